from faults import Answers

ANSWERS = {
    "6.1": Answers(
        right=[
            """
@dsl.component(base_image=IMAGE, install_kfp_package=False)
def share_of_ones(path: str) -> float:
    from pathlib import Path
    from pyarrow import parquet
    found = parquet.read_table(Path(path)).column("label").to_pylist()
    return found.count(1) / len(found)
""",
        ],
        wrong={
            "NameError: name 'pd' is not defined`. The step's process got the text of your function": """
@component
def share_of_ones(labels: str) -> float:
    return float(pd.read_parquet(labels).label.mean())
""",
            "that is a function, not a component": """
def share_of_ones(labels: str) -> float:
    import pandas as pd
    return float(pd.read_parquet(labels).label.mean())
""",
            "would run `pip install`": """
@dsl.component
def share_of_ones(labels: str) -> float:
    import pandas as pd
    return float(pd.read_parquet(labels).label.mean())
""",
            "declares no output": """
@component
def share_of_ones(labels: str):
    import pandas as pd
    return float(pd.read_parquet(labels).label.mean())
""",
            "it should take one string": """
@component
def share_of_ones(labels: dsl.Input[dsl.Dataset]) -> float:
    import pandas as pd
    return float(pd.read_parquet(labels.path).label.mean())
""",
            "a share lies between 0 and 1": """
@component
def share_of_ones(labels: str) -> float:
    import pandas as pd
    return float(pd.read_parquet(labels).label.sum())
""",
            "the step failed with `AttributeError": """
@component
def share_of_ones(labels: str) -> float:
    import pandas as pd
    return float(pd.read_parquet(labels).conv_rate.mean())
""",
            "the step failed with `AssertionError`": """
@component
def share_of_ones(labels: str) -> float:
    raise AssertionError
""",
            "the step failed with `ArrowInvalid: no footer`": """
@component
def share_of_ones(labels: str) -> float:
    from pyarrow import ArrowInvalid
    raise ArrowInvalid('no footer')
""",
            "finished with no outputs; it should return one number": """
@component
def share_of_ones(labels: str) -> float:
    import pandas as pd
    print(pd.read_parquet(labels).label.mean())
""",
            "the step returned a str; a gate can only compare a number": """
@component
def share_of_ones(labels: str) -> str:
    import pandas as pd
    return str(pd.read_parquet(labels).label.mean())
""",
            "count its ones by hand": "@component\ndef share_of_ones(labels: str) -> float:\n    return 0.45",
        },
    ),
    "6.2": Answers(
        right=[
            """
def wait(first, then):
    return then.after(first)
""",
            "wait = lambda validated, trained: trained.after(validated)",
        ],
        wrong={
            "so both could run side by side": (
                "def wait(validated, trained):\n    return [validated, trained]"
            ),
            "the model is trained before its data is tested": (
                "def wait(validated, trained):\n    validated.after(trained)"
            ),
            "KFP cannot compile the pipeline with your line": (
                "def wait(validated, trained):\n    trained.after(validated.outputs['Output'])"
            ),
            "your answer is of type list": "wait = ['validate-features', 'train-model']",
        },
    ),
    "6.3": Answers(
        right=[
            """
def believable(auc, register):
    with dsl.If(auc < 0.9, name='not-too-good'), dsl.If(auc > 0.65, name='good-enough'):
        register()
""",
            """
@component
def between(auc: float) -> bool:
    return 0.65 <= auc <= 0.9

def believable(auc, register):
    with dsl.If(between(auc=auc).output == True):
        register()
""",
        ],
        wrong={
            "requires only `auc <= 0.9`": """
def believable(auc, register):
    with dsl.If(0.65 <= auc <= 0.9):
        register()
""",
            "holds no condition": """
def believable(auc, register):
    if auc >= 0.65 and auc <= 0.9:
        register()
""",
            "The compiled file requires only `auc >= 0.65`": """
def believable(auc, register):
    with dsl.If(auc >= 0.65):
        register()
""",
            "the score 0.91 still opens the gate": """
def believable(auc, register):
    with dsl.If(0.9 >= auc >= 0.65):
        register()
""",
            "The compiled file requires `auc <= 0.9` and `auc >= 0.6`.": """
def believable(auc, register):
    with dsl.If(auc >= 0.6):
        with dsl.If(auc <= 0.9):
            register()
""",
            "didn't call `register()`": """
def believable(auc, register):
    with dsl.If(auc >= 0.65):
        with dsl.If(auc <= 0.9):
            register
""",
            "one of your conditions contains no step": """
def believable(auc, register):
    with dsl.If(auc < 0.65):
        pass
    with dsl.Else():
        register()
""",
            "KFP cannot compile this gate: TypeError": """
def believable(auc, register):
    with dsl.If((auc >= 0.65) & (auc <= 0.9)):
        register()
""",
            "the gate ran the step for []": """
def believable(auc, register):
    with dsl.If(auc >= 0.9):
        with dsl.If(auc <= 0.65):
            register()
""",
            "write the number with a decimal point": """
def believable(auc, register):
    with dsl.If(auc >= 0.65), dsl.If(auc < 1):
        register()
""",
        },
    ),
}

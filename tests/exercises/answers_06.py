from answers import Answers

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
        wrong=[
            (
                "@component\ndef share_of_ones(labels: str) -> float:\n    return float(pd.read_parquet(labels).label.mean())",
                "NameError: name 'pd' is not defined`. The step's process got the text of your function alone",
            ),
            (
                "def share_of_ones(labels: str) -> float:\n    import pandas as pd\n    return float(pd.read_parquet(labels).label.mean())",
                "that is a function, and no component",
            ),
            (
                "@dsl.component\ndef share_of_ones(labels: str) -> float:\n    import pandas as pd\n    return float(pd.read_parquet(labels).label.mean())",
                "would run `pip install`",
            ),
            (
                "@component\ndef share_of_ones(labels: str):\n    import pandas as pd\n    return float(pd.read_parquet(labels).label.mean())",
                "declares no output",
            ),
            (
                "@component\ndef share_of_ones(labels: dsl.Input[dsl.Dataset]) -> float:\n    import pandas as pd\n    return float(pd.read_parquet(labels.path).label.mean())",
                "it should take one text",
            ),
            (
                "@component\ndef share_of_ones(labels: str) -> float:\n    import pandas as pd\n    return float(pd.read_parquet(labels).label.sum())",
                "a share lies between 0 and 1",
            ),
            (
                "@component\ndef share_of_ones(labels: str) -> float:\n    import pandas as pd\n    return float(pd.read_parquet(labels).conv_rate.mean())",
                "the step failed with `AttributeError",
            ),
            (
                "@component\ndef share_of_ones(labels: str) -> float:\n    raise AssertionError",
                "the step failed with `AssertionError`",
            ),
            (
                "@component\ndef share_of_ones(labels: str) -> float:\n    from pyarrow import ArrowInvalid\n    raise ArrowInvalid('no footer')",
                "the step failed with `ArrowInvalid: no footer`",
            ),
            (
                "@component\ndef share_of_ones(labels: str) -> float:\n    import pandas as pd\n    print(pd.read_parquet(labels).label.mean())",
                "gave no outputs; it should give one number",
            ),
            (
                "@component\ndef share_of_ones(labels: str) -> str:\n    import pandas as pd\n    return str(pd.read_parquet(labels).label.mean())",
                "the step gave a str; what a later step compares has to be a number",
            ),
            (
                "@component\ndef share_of_ones(labels: str) -> float:\n    return 0.45",
                "count its ones by hand",
            ),
        ],
    ),
    "6.2": Answers(
        right=[
            "def wait(first, then):\n    return then.after(first)",
            "wait = lambda validated, trained: trained.after(validated)",
        ],
        wrong=[
            (
                "def wait(validated, trained):\n    return [validated, trained]",
                "so both could run side by side",
            ),
            (
                "def wait(validated, trained):\n    validated.after(trained)",
                "the model is there before anybody looks",
            ),
            (
                "def wait(validated, trained):\n    trained.after(validated.outputs['Output'])",
                "KFP cannot compile the pipeline with your line",
            ),
            ("wait = ['validate-features', 'train-model']", "that is of the type list"),
        ],
    ),
    "6.3": Answers(
        right=[
            "def believable(auc, register):\n    with dsl.If(auc < 0.9, name='not-too-good'), dsl.If(auc > 0.65, name='good-enough'):\n        register()",
            """
@component
def between(auc: float) -> bool:
    return 0.65 <= auc <= 0.9

def believable(auc, register):
    with dsl.If(between(auc=auc).output == True):
        register()
""",
        ],
        wrong=[
            (
                "def believable(auc, register):\n    with dsl.If(0.65 <= auc <= 0.9):\n        register()",
                "asks is `auc <= 0.9`",
            ),
            (
                "def believable(auc, register):\n    if auc >= 0.65 and auc <= 0.9:\n        register()",
                "holds no condition",
            ),
            (
                "def believable(auc, register):\n    with dsl.If(auc >= 0.65):\n        register()",
                "All that the compiled file asks is `auc >= 0.65`",
            ),
            (
                "def believable(auc, register):\n    with dsl.If(0.9 >= auc >= 0.65):\n        register()",
                "the score 0.91 still opens the gate",
            ),
            (
                "def believable(auc, register):\n    with dsl.If(auc >= 0.6):\n        with dsl.If(auc <= 0.9):\n            register()",
                "The compiled file asks `auc <= 0.9` and `auc >= 0.6`.",
            ),
            (
                "def believable(auc, register):\n    with dsl.If(auc >= 0.65):\n        with dsl.If(auc <= 0.9):\n            register",
                "did not call `register()`",
            ),
            (
                "def believable(auc, register):\n    with dsl.If(auc < 0.65):\n        pass\n    with dsl.Else():\n        register()",
                "a condition without a step in it",
            ),
            (
                "def believable(auc, register):\n    with dsl.If((auc >= 0.65) & (auc <= 0.9)):\n        register()",
                "KFP cannot compile this gate: TypeError",
            ),
            (
                "def believable(auc, register):\n    with dsl.If(auc >= 0.9):\n        with dsl.If(auc <= 0.65):\n            register()",
                "the gate ran the step for []",
            ),
            (
                "def believable(auc, register):\n    with dsl.If(auc >= 0.65), dsl.If(auc < 1):\n        register()",
                "write it with a decimal point",
            ),
        ],
    ),
}

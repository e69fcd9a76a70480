"""The exercises of notebook 06."""

import contextlib
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from exercises.core import Exercise, NotYet, attempt
from helpers.workspace import current

SCORES = LOW, FAIR, GOOD, ABSURD = 0.64, 0.66, 0.89, 0.91
"""The scores on which a gate between 0.65 and 0.9 is tried."""


@contextlib.contextmanager
def _runner() -> Iterator[tuple[Path, Path]]:
    """Set up the local runner in a scratch folder; yield the folder and a log in it.

    Afterwards the folder is deleted, and the notebook's settings of the runner hold again.
    """
    from kfp import local
    from kfp.local.config import LocalExecutionConfig

    settings = LocalExecutionConfig.instance
    with tempfile.TemporaryDirectory(prefix="exercise-") as name:
        folder = Path(name)
        local.init(
            local.SubprocessRunner(use_venv=False),
            str(folder / "outputs"),
            str(folder / "runner"),
            raise_on_error=True,
        )
        try:
            yield folder, folder / "log.txt"
        finally:
            LocalExecutionConfig.instance = settings


def _is_component(share: Any) -> None:
    from kfp.dsl.python_component import PythonComponent

    if not isinstance(share, PythonComponent):
        what = (
            "a function"
            if callable(share) and hasattr(share, "__code__")
            else f"of type {type(share).__name__}"
        )
        raise NotYet(f"that is {what}, not a component: compare the first line of each step above.")
    if "pip install" in str(share.component_spec.implementation):
        raise NotYet(
            "this component would run `pip install` each time it starts. The image holds the packages: use"
            " the notebook's decorator, `component`."
        )
    kinds = {name: given.type for name, given in (share.component_spec.inputs or {}).items()}
    if list(kinds.values()) != ["String"]:
        raise NotYet(
            f"the component takes {kinds or 'nothing'}; it should take one string, the path of a file."
        )
    if not share.component_spec.outputs:
        raise NotYet(
            "the component declares no output, so no later step could get its number. See how"
            " `measure_coverage` declares that it returns a number."
        )


def _why(log: str) -> str:
    """Describe the last error in a failed step's log."""
    # A name may follow its module's, and lack a message.
    errors = re.findall(r"(?m)^\s*(?:\w+\.)*(\w+(?:Error|Exception|Invalid))(?:: (.*))?$", log)
    name, said = errors[-1] if errors else ("an error", "see the component's code.")
    if name == "NameError":
        said = said.partition(". Did you")[0]  # Python's guess, which knows nothing of the notebook
        return (
            f"the step failed with `{name}: {said}`. The step's process got the text of your function, and"
            " nothing that this notebook imported or defined."
        )
    return f"the step failed with `{f'{name}: {said}' if said else name}`."


def _gives_the_share(share: Any) -> str:
    import pandas as pd

    from lifecycle.models.model import selection_ends
    from lifecycle.training import pipeline

    _is_component(share)
    labels = pd.read_parquet(current().data / "driver_labels.parquet")
    later = labels[labels.event_timestamp > selection_ends(labels.event_timestamp)]
    [given] = share.component_spec.inputs
    with _runner() as (folder, log):
        later.to_parquet(folder / "later.parquet")
        with attempt("the component cannot be run"):
            try:
                with pipeline.local_run(log):
                    outputs = share(**{given: str(folder / "later.parquet")}).outputs
            except RuntimeError:  # it names the step; the reason is in the log
                raise NotYet(_why(log.read_text())) from None
    if len(outputs) != 1:
        raise NotYet(
            f"the step finished with {len(outputs) or 'no'} outputs; it should return one number. What a"
            " component prints is only in its log."
        )
    [found] = outputs.values()
    if not isinstance(found, float | int):
        raise NotYet(f"the step returned a {type(found).__name__}; a gate can only compare a number.")
    if not 0 <= found <= 1:
        raise NotYet(
            f"the step returned {found} for a file of {len(later)} labels; a share lies between 0 and 1."
        )
    if abs(found - later.label.mean()) > 1e-6:
        raise NotYet(
            f"the step returned {found:.3f} for a file of {len(later)} labels; count its ones by hand."
        )
    return (
        f"A process without this notebook's variables read {len(later)} labels and returned {found:.3f}. The"
        " same text runs in a container."
    )


def _waits(order: Any) -> str:
    import yaml
    from kfp import compiler, dsl

    from lifecycle.training import pipeline

    if not callable(order):
        raise NotYet(f"your answer is of type {type(order).__name__}; write a function of two tasks.")
    with attempt("KFP cannot compile the pipeline with your line"), tempfile.TemporaryDirectory() as folder:

        @dsl.pipeline(name="order")
        def ordered(feature_repo: str, labels: str) -> None:
            retrieved = pipeline.retrieve_features(
                feature_repo=feature_repo,
                labels=labels,
                feature_service="rates",
                label="label",
                experiment="order",
                pipeline_run="order",
            )
            both = {"table": retrieved.outputs["table"], "parent_run": retrieved.outputs["Output"]}
            validated = pipeline.validate_features(
                **both, experiment="order", feature_repo=feature_repo, reference="reference"
            )
            trained = pipeline.train_model(**both, experiment="order", checked=True, hyperparameters="{}")
            order(validated, trained)

        path = Path(folder) / "order.yaml"
        compiler.Compiler().compile(ordered, str(path))
        tasks = next(yaml.safe_load_all(path.read_text()))["root"]["dag"]["tasks"]
    waits = {name: sorted(task.get("dependentTasks", [])) for name, task in tasks.items()}
    if "train-model" in waits["validate-features"]:
        raise NotYet(
            "now validate-features waits for train-model: the model is trained before its data is tested."
        )
    if "validate-features" not in waits["train-model"]:
        raise NotYet(
            f"in the compiled file, train-model waits only for {' and '.join(waits['train-model'])}, so both"
            " could run side by side. Neither the order of lines nor what your function returns adds an edge."
        )
    return (
        f"In the compiled file, train-model waits for {' and '.join(waits['train-model'])}, without a value"
        " from the latter. The course passes a value instead, because a forgotten argument is an error, and a"
        " forgotten `after` isn't."
    )


def _believes(gate: Any) -> str:
    from kfp import dsl

    from lifecycle.training import pipeline

    if not callable(gate):
        raise NotYet(
            f"your answer is of type {type(gate).__name__}; write a function of a score and of a"
            " function that adds a step."
        )

    @pipeline.component
    def register(auc: float, notes: str) -> None:
        from pathlib import Path

        with Path(notes).open("a") as file:
            file.write(f"{auc}\n")

    added: list[Any] = []

    def pipeline_of_gates(low: float, fair: float, good: float, absurd: float, notes: str) -> None:
        for auc in (low, fair, good, absurd):

            def step(*_: Any, auc: Any = auc) -> Any:
                added.append(register(auc=auc, notes=notes))
                return added[-1]

            gate(auc, step)
            if not added:
                raise NotYet(
                    "your function didn't call `register()` when the pipeline was compiled, so its gate"
                    " contains no step."
                )

    with attempt("KFP cannot compile this gate"):
        gates = dsl.pipeline(name="gates")(pipeline_of_gates)

    parts = gates.pipeline_spec.components.items()
    if any(name.startswith("comp-condition") and not part.dag.tasks for name, part in parts):
        raise NotYet("one of your conditions contains no step, and KFP can't run an empty one.")
    conditions = re.findall(r"\bcondition: \"(.*)\"", str(gates.pipeline_spec))
    with _runner() as (folder, log):
        notes = folder / "notes.txt"
        notes.touch()
        with attempt("the local runner cannot run this gate"):
            try:
                with pipeline.local_run(log):
                    gates(low=LOW, fair=FAIR, good=GOOD, absurd=ABSURD, notes=str(notes))
            except RuntimeError:  # it names the step; the reason is in the log
                raise NotYet(_why(log.read_text())) from None
        opened = [float(line) for line in notes.read_text().splitlines()]
    _judge_gate(opened, conditions)
    return (
        f"Of the scores {LOW}, {FAIR}, {GOOD}, and {ABSURD}, the two in the middle ran the step. `dsl.If`"
        " takes one comparison, and a gate inside another one requires both."
    )


def _judge_gate(opened: list[float], conditions: list[str]) -> None:
    if LOW in opened and not conditions:
        raise NotYet(
            f"the score {LOW} opens the gate, and the compiled file holds no condition: Python evaluates a"
            " plain `if` when the pipeline is compiled, and the score is still a placeholder then."
        )
    scores = r"inputs\S+pipelinechannel--(?:low|fair|good|absurd)\S+"
    asked = sorted({f"`{re.sub(scores, 'auc', condition)}`" for condition in conditions})
    asks = f" The compiled file requires {' and '.join(asked)}."
    if len(asked) == 1:
        asks = f" The compiled file requires only {asked[0]}: where is the other bound?"
    if "double(" in asks:
        asks += (
            " The local runner can't evaluate `double(...)`, which KFP writes for a whole number: write the"
            " number with a decimal point."
        )
    if "inputs" in asks:  # a step of the learner's own decides
        asks = ""
    if LOW in opened and ABSURD not in opened:
        raise NotYet(f"the score {LOW} opens the gate.{asks}")
    if ABSURD in opened:
        raise NotYet(
            f"the score {ABSURD} still opens the gate, and so would a model that has seen the future.{asks}"
        )
    if sorted(opened) != [FAIR, GOOD]:
        raise NotYet(
            f"of the scores {SCORES}, the gate ran the step for {sorted(opened)}. It should run it for {FAIR}"
            f" and {GOOD}, once each.{asks}"
        )


EXERCISES = [
    Exercise(
        "6.1",
        "Write a component",
        _gives_the_share,
        more=(
            "The mean of a column of zeros and ones is the share of its ones. Three things make it a step:"
            " the decorator, types for input and output, and an import inside the function."
        ),
        worked="""
@component
def share_of_ones(labels: str) -> float:
    # The step gets only this text, so it imports what it uses.
    import pandas as pd

    return float(pd.read_parquet(labels).label.mean())
""",
    ),
    Exercise(
        "6.2",
        "Make a step wait",
        _waits,
        more="The task whose `after` you call is the one that waits; the argument is the task to wait for.",
        worked="""
def wait(validated, trained):
    # An edge without data: training starts when validation has succeeded.
    trained.after(validated)
""",
    ),
    Exercise(
        "6.3",
        "Reject a score that is too good",
        _believes,
        more=(
            "A comparison with a placeholder is an object, and `dsl.If` takes one. The body of a"
            " `with dsl.If(...)` can hold anything that a pipeline can hold."
        ),
        worked="""
def believable(auc, register):
    # `and` would keep only the second comparison: to Python, both are objects, and any object is true.
    with dsl.If(auc >= 0.65):
        with dsl.If(auc <= 0.9):
            register()
""",
    ),
]

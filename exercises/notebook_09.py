"""The exercises of notebook 09."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import tempfile
from inspect import getsource
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exercises.core import Exercise, NotYet, attempt
from helpers.workspace import current

if TYPE_CHECKING:
    import pandas as pd

KEY = "driver_id"
WORKERS = (2, 3, 5)
_ASK = """
import sys

import cloudpickle
import pandas as pd

given, answered = sys.argv[1:]
with open(given, "rb") as file:
    function, questions, workers = cloudpickle.load(file)
found = {count: [function(questions.copy(), rank, count) for rank in range(count)] for count in workers}
pd.to_pickle(found, answered)
"""
"""A process of its own, which draws its own seed for the hashes of texts, as Python does by default."""


def _together(of_one_worker: Any) -> str:
    import pandas as pd

    if not callable(of_one_worker):
        raise NotYet(f"your answer has the type {type(of_one_worker).__name__}; write a function.")
    questions = pd.read_parquet(current().data / "driver_labels.parquet")
    for count in WORKERS:
        with attempt("`of_one_worker` failed"):
            shards = [of_one_worker(questions.copy(), rank, count) for rank in range(count)]
        _judge(shards, questions, "in one process")
    elsewhere = [_in_a_process(of_one_worker, questions, seed) for seed in ("1", "2")]
    for count in WORKERS:
        # Worker 0 as the first process sees it, the others as the second does.
        mixed = [elsewhere[rank > 0][count][rank] for rank in range(count)]
        _judge(mixed, questions, "when each worker is a process of its own")
    largest = max(len(shard) for shard in elsewhere[0][5])
    return (
        "Each driver's rows are with one worker, of two, three, or five, and all processes agree. The largest"
        f" of five shards has {largest} of {len(questions)} rows."
    )


def _judge(shards: list[Any], questions: pd.DataFrame, where: str) -> None:
    import pandas as pd

    count = len(shards)
    for rank, rows in enumerate(shards):
        if not isinstance(rows, pd.DataFrame):
            raise NotYet(
                f"for worker {rank} of {count}, it returns a value of type {type(rows).__name__}; return"
                " rows of the table."
            )
        if rows.empty:
            raise NotYet(f"worker {rank} of {count} gets no row.")
    lacking = sorted(set(questions.columns) - set.intersection(*(set(rows.columns) for rows in shards)))
    if lacking:
        raise NotYet(f"the column {lacking[0]!r} is gone; return whole rows of the table.")
    # By what a row holds, and not by its index: who numbers the rows anew has the same rows.
    given, whole = _counted(pd.concat(shards)[list(questions.columns)]), _counted(questions)
    if not given.index.isin(whole.index).all():
        raise NotYet("a worker has a row that isn't in the table. Return its rows as they are.")
    often = given.sub(whole, fill_value=0).astype(int)
    if twice := often[often > 0].sum():
        raise NotYet(f"{where}, {twice} rows are with more than one of {count} workers.")
    if lost := -often[often < 0].sum():
        raise NotYet(f"{where}, {lost} of {len(questions)} rows are with none of {count} workers.")
    owners = (
        pd.concat([rows.assign(rank=rank) for rank, rows in enumerate(shards)]).groupby(KEY)["rank"].nunique()
    )
    if owners.max() > 1:
        raise NotYet(
            f"the rows of driver {owners.idxmax()} are with {owners.max()} of {count} workers. Which column"
            " decides where a row goes?"
        )
    if max(map(len, shards)) > 3 * len(questions) / count:
        raise NotYet(
            f"one of {count} workers has {max(map(len, shards))} of {len(questions)} rows, and the others"
            " wait for it. Share the drivers more evenly."
        )


def _counted(rows: pd.DataFrame) -> pd.Series:
    """How often each row is there."""
    import pandas as pd

    return pd.util.hash_pandas_object(rows, index=False).value_counts()


def _in_a_process(function: Any, questions: pd.DataFrame, seed: str) -> dict[int, list[pd.DataFrame]]:
    import cloudpickle
    import pandas as pd

    with tempfile.TemporaryDirectory() as folder:
        given, answered = Path(folder, "given"), Path(folder, "answered")
        with attempt("your function can't be sent to another process"):
            given.write_bytes(cloudpickle.dumps((function, questions, WORKERS)))
        command = [sys.executable, "-c", _ASK, str(given), str(answered)]
        done = subprocess.run(
            command, env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, text=True
        )
        if done.returncode:
            last = done.stderr.strip().splitlines()[-1]
            raise NotYet(f"in a process of its own, your function failed: {last}")
        return pd.read_pickle(answered)


SIZES = (700, 250, 50)
"""Rows of the shards of exercise 9.2."""


def _weighed(combine: Any) -> str:
    import numpy as np

    if not callable(combine):
        raise NotYet(f"your answer has the type {type(combine).__name__}; write a function.")
    rng = np.random.default_rng(9)
    X = rng.normal(size=(sum(SIZES), 4)) + np.repeat([0.0, 1.0, -2.0], SIZES)[:, None]
    y = (rng.random(sum(SIZES)) < 0.4).astype(float)
    cuts = list(np.cumsum(SIZES)[:-1])
    means = [_gradient(*shard) for shard in zip(np.split(X, cuts), np.split(y, cuts), strict=True)]
    whole = _gradient(X, y)
    with attempt("`combine` failed"):
        answer = combine([mean.copy() for mean in means], list(SIZES))
        if answer is None:
            raise NotYet("your function returns nothing. Does it end with a `return`?")
        answer = np.asarray(answer, dtype=float)
    if answer.shape != whole.shape:
        raise NotYet(
            f"it returns an array of the shape {answer.shape}; a gradient here has the shape {whole.shape}."
        )
    if np.allclose(answer, whole, rtol=1e-9):
        return (
            f"That is the gradient of all {sum(SIZES)} rows. The plain mean of the three would have been off"
            f" by up to {np.abs(np.mean(means, axis=0) - whole).max():.2f}, and the smallest shard would have"
            " counted as much as the largest."
        )
    if np.allclose(answer, np.mean(means, axis=0)):
        raise NotYet(
            f"that is the plain mean: a row in the shard of {SIZES[2]} counts as much as fourteen rows in the"
            f" shard of {SIZES[0]}."
        )
    if np.allclose(answer, np.sum(means, axis=0)):
        raise NotYet(
            "that is the sum of three means, about three times a mean. How many rows does each mean cover?"
        )
    total = np.sum([mean * size for mean, size in zip(means, SIZES, strict=True)], axis=0)
    if np.allclose(answer, total):
        raise NotYet(
            "that is the gradient of the summed loss, which grows with the number of rows. The loss is the"
            " mean over all rows."
        )
    raise NotYet(
        "that is not the gradient of all rows together. How do you get a shard's sum from its mean, and the"
        " mean of all rows from all sums?"
    )


def _gradient(X: Any, y: Any) -> Any:
    """The gradient of the mean log loss at weights of one half, computed by PyTorch."""
    import torch

    weights = torch.full((X.shape[1],), 0.5, dtype=torch.float64, requires_grad=True)
    loss = torch.nn.functional.binary_cross_entropy_with_logits(torch.tensor(X) @ weights, torch.tensor(y))
    loss.backward()
    gradient = weights.grad
    assert gradient is not None, "backward() gives it"
    return gradient.numpy()


RESERVED = {"PET_NNODES", "PET_NPROC_PER_NODE", "PET_NODE_RANK", "PET_MASTER_ADDR", "PET_MASTER_PORT"}
"""torchrun's settings, which Trainer makes itself: a TrainJob that has one of them is refused."""


def _six(trainer: Any) -> str:
    from kubeflow.trainer import CustomTrainer

    from helpers.capture import captured_trainer
    from lifecycle.objects import RUNTIME
    from lifecycle.settings import Cluster
    from lifecycle.training import shipped
    from lifecycle.training.distributed import round_trip

    if not isinstance(trainer, CustomTrainer):
        raise NotYet(f"your answer has the type {type(trainer).__name__}; assign a `CustomTrainer`.")
    client, sent = captured_trainer()
    with attempt("the client can't render your trainer"):
        client.train(runtime=RUNTIME, trainer=trainer)
        back = round_trip(sent[0])
    if back != sent[0]:
        raise NotYet("Trainer's models drop a part of it: compare what you set with the TrainJob above.")
    asked = sent[0]["spec"]["trainer"]
    command = asked["command"][-1]
    volume = Cluster().volume
    on_volume = [f"'{name}': '{volume}/" in command for name in ("feature_repo", "labels", "folder")]
    if getsource(shipped.train) not in command or not all(on_volume):
        raise NotYet(
            "the rendered command doesn't train with `on_cluster`: pass `func=shipped.train` and"
            " `func_args=on_cluster`."
        )
    if reserved := RESERVED & {variable["name"] for variable in asked.get("env", [])}:
        raise NotYet(
            f"Trainer rejects a TrainJob that sets {min(reserved)}: it sets this one itself. What decides how"
            " many processes it starts in a pod?"
        )
    nodes = asked.get("numNodes", 1)
    each = _processes(asked)
    if nodes == 6:
        raise NotYet(
            "that asks for six pods. You have three machines with two CPUs each: how many pods, and how many"
            " processes in each?"
        )
    if nodes != 3:
        raise NotYet(
            f"the TrainJob asks for {nodes} pod{'s' * (nodes > 1)}. Which argument of `CustomTrainer` says"
            " how many?"
        )
    if each != 2:
        raise NotYet(
            f"three pods with {each} process{'es' * (each > 1)} each make {3 * each} workers. Trainer starts"
            " one for each CPU that a pod requests: which argument of `CustomTrainer` says what a pod gets?"
        )
    return (
        "numNodes: 3, and two CPUs for each: Trainer lets `torchrun` start two processes in each pod, with"
        " the ranks 0 to 5. The runtime's memory request stays as it is."
    )


def _processes(asked: dict[str, Any]) -> int:
    """How many processes Trainer 2.3 starts in a pod: one for each CPU that is requested, else allowed."""
    from kubernetes.utils import parse_quantity

    from lifecycle.settings import Cluster

    resources = asked.get("resourcesPerNode") or Cluster().step.manifest()
    for kind in ("requests", "limits"):
        if count := math.ceil(parse_quantity(resources.get(kind, {}).get("cpu", "0"))):
            return count
    return 1


EXERCISES = [
    Exercise(
        "9.1",
        "Keep a driver together",
        _together,
        more=(
            "The driver's number must decide, by a rule that gives the same answer in every process. The"
            " remainder of a division is such a rule. Python's `hash` of a text is not: it differs from one"
            " process to the next."
        ),
        worked="""
def of_one_worker(questions, rank, workers):
    # The driver decides, and a remainder is the same in every process.
    return questions[questions.driver_id % workers == rank]
""",
    ),
    Exercise(
        "9.2",
        "Weigh the shards",
        _weighed,
        more=(
            "A shard's mean gradient times its number of rows is its sum. You can add up the sums. The mean"
            " over all rows is that total, divided once by the number of all rows."
        ),
        worked="""
def combine(gradients, rows):
    # Weight each mean by the number of rows behind it.
    return np.average(gradients, axis=0, weights=rows)
""",
    ),
    Exercise(
        "9.3",
        "Ask for six workers",
        _six,
        more=(
            "`CustomTrainer` has an argument for each number. `num_nodes` is the number of pods. The"
            " processes follow from a pod's CPUs, which are a part of `resources_per_node`."
        ),
        worked="""
# Three pods with two CPUs each: Trainer starts a process for each CPU.
six = CustomTrainer(
    func=shipped.train,
    func_args=on_cluster,
    num_nodes=3,
    resources_per_node={"cpu": "2"},
)
""",
    ),
]

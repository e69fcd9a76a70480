"""What a run of the training pipeline came to: one record, which each step adds to, at the parent run."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any

import mlflow
from mlflow.exceptions import MlflowException

FILE = "outcome.json"
"""The record, an artifact of the parent run."""


@dataclass(frozen=True)
class Record:
    """The outcome of one run of the pipeline.

    Attributes:
        rows: with a value in each of the contract's columns.
        dropped: rows without a value, by column of the contract.
        metric: by which the models are judged.
        score: of the new model on the held-out rows.
        threshold: that it had to reach.
        champion: number of the version that it had to beat; empty without one.
        champion_score: of that version on the same rows.
        gate: that stayed closed, ``good-enough`` or ``better``; empty when none did, or none was reached.
        version: number of the version that was registered; empty when none was.
        reason: a sentence with the figures.
        status: ``FINISHED`` when a gate stayed closed or a version was registered, else ``FAILED``; empty
            while the run goes on.
    """

    rows: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    metric: str = ""
    score: float | None = None
    threshold: float | None = None
    champion: str = ""
    champion_score: float | None = None
    gate: str = ""
    version: str = ""
    reason: str = ""
    status: str = ""


def read_record(run_id: str) -> Record:
    """The record of a parent run; an empty one when no step has added to it."""
    try:
        stored = mlflow.artifacts.load_dict(f"runs:/{run_id}/{FILE}")
    except (MlflowException, OSError):  # a run without artifacts; MLflow's stores differ in the error
        return Record()
    return Record(**stored)


def add_to_record(run_id: str, **facts: Any) -> Record:
    """Add to the record of a parent run; the steps of a pipeline do it one after the other.

    Args:
        run_id: of the parent run.
        facts: attributes of ``Record``.
    """
    record = replace(read_record(run_id), **facts)
    mlflow.MlflowClient().log_dict(run_id, asdict(record), FILE)
    return record


def open_runs(experiment: str, run_name: str) -> list[str]:
    """The ids of the runs of this name that are still open.

    Names are compared here: MLflow's filter language reads a quote in a name as the end of the name.
    """
    client = mlflow.MlflowClient()
    found = client.get_experiment_by_name(experiment)
    runs = client.search_runs([found.experiment_id], "attributes.status = 'RUNNING'") if found else []
    return [run.info.run_id for run in runs if run.info.run_name == run_name]

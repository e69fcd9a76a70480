"""What a run of the training pipeline came to: one record, which each step adds to, at the parent run."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any

import mlflow
from mlflow.exceptions import MlflowException

FILE = "outcome.json"
"""The record, an artifact of the parent run."""
PIPELINE_RUN = "pipeline.run"
"""The tag of a parent run with the id that Kubeflow gave the pipeline's run."""


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
        reason: a sentence with the figures; empty when no model was judged.
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

    When somebody retries a failed run on a cluster, nothing calls the exit handler a second time. So what
    decides a run that is closed already closes it anew.

    Args:
        run_id: of the parent run.
        facts: attributes of ``Record``.
    """
    record = replace(read_record(run_id), **facts)
    decides = bool(facts.get("gate") or facts.get("version"))
    if record.status and decides:
        record = replace(record, status="FINISHED")
    mlflow.MlflowClient().log_dict(run_id, asdict(record), FILE)
    if record.status and decides:
        end_parent(run_id, record.status)
    return record


def find_parent(experiment: str, pipeline_run: str) -> str | None:
    """The id of the parent run of one run of the pipeline, open or closed; None when it has none yet.

    Args:
        experiment: of MLflow.
        pipeline_run: the id that Kubeflow gave the run.
    """
    client = mlflow.MlflowClient()
    found = client.get_experiment_by_name(experiment)
    of_run = f"tags.`{PIPELINE_RUN}` = '{pipeline_run}'"
    runs = client.search_runs([found.experiment_id], of_run) if found else []
    return runs[0].info.run_id if runs else None


def open_parent(experiment: str, pipeline_run: str, run_name: str = "") -> str:
    """The id of the parent run of one run of the pipeline, which is made when there is none.

    A step can run twice, because its pod was lost or somebody retries the run. It finds the same parent.

    Args:
        experiment: of MLflow.
        pipeline_run: the id that Kubeflow gave the run.
        run_name: of the parent run; ``pipeline_run`` when left out.

    Raises:
        ValueError: nobody has put the id into its place.
    """
    if not pipeline_run or "{" in pipeline_run:
        raise ValueError(f"pipeline_run is {pipeline_run!r}: Kubeflow should have put the run's id there.")
    experiment_id = mlflow.set_experiment(experiment).experiment_id
    found = find_parent(experiment, pipeline_run)
    if found:
        return found
    made = mlflow.MlflowClient().create_run(
        experiment_id, run_name=run_name or pipeline_run, tags={PIPELINE_RUN: pipeline_run}
    )
    return made.info.run_id


def end_parent(run_id: str, status: str) -> None:
    """Close a parent run, and the runs below it that a lost pod left open.

    Args:
        run_id: of the parent run.
        status: ``FINISHED`` or ``FAILED``.
    """
    client = mlflow.MlflowClient()
    experiment_id = client.get_run(run_id).info.experiment_id
    left = f"tags.`mlflow.parentRunId` = '{run_id}' and attributes.status = 'RUNNING'"
    for run in client.search_runs([experiment_id], left):
        client.set_terminated(run.info.run_id, "KILLED")
    client.set_terminated(run_id, status)

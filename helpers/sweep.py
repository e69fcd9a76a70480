"""The sweep of notebook 05, which shows it: one that may be killed at any moment, and goes on as if nothing had happened.

Optuna's database holds the trials, MLflow's the runs, and no transaction spans both. So each step leaves enough behind to tell, after a
kill, which of the two is ahead. One process writes: a second sweep of the same study at the same time is not guarded against.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import mlflow
import optuna
import pandas as pd
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState


def open_study(storage: str, name: str) -> optuna.Study:
    """The study with this name in the database at ``storage``; a new one when there is none."""
    return optuna.create_study(study_name=name, storage=storage, direction="maximize", load_if_exists=True)


def complete(study: optuna.Study) -> list[FrozenTrial]:
    """The trials with a score, in the order in which they were proposed."""
    return study.get_trials(states=(TrialState.COMPLETE,))


def parent_run(name: str) -> mlflow.ActiveRun:
    """The study's run in MLflow. It carries the study's name from its first moment on, so it is found even if nobody noted its id."""
    mlflow.set_experiment("sweep")
    found = mlflow.search_runs(filter_string=f"tags.`optuna.study` = '{name}'", output_format="list")
    if not found:
        return mlflow.start_run(run_name=name, tags={"optuna.study": name, "interruptions": 0})
    run = mlflow.start_run(run_id=found[0].info.run_id)
    if found[0].info.status != "FINISHED":  # a killed process could not say goodbye
        mlflow.set_tag("interruptions", int(found[0].data.tags["interruptions"]) + 1)
    return run


def settle(study: optuna.Study, parent_id: str) -> None:
    """Bring both records together after a kill: each trial that MLflow holds finished is told to Optuna, all other open ones are closed."""
    client = mlflow.MlflowClient()
    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        run = client.get_run(trial.user_attrs["mlflow_run_id"]) if "mlflow_run_id" in trial.user_attrs else None
        if run and run.info.status == "FINISHED":  # killed between the end of the run and `tell`: nothing is lost
            study.tell(trial.number, run.data.metrics["auc"])
        else:
            study.tell(trial.number, state=TrialState.FAIL)
    unfinished = f"tags.`mlflow.parentRunId` = '{parent_id}' and attributes.status = 'RUNNING'"
    for run in mlflow.search_runs(filter_string=unfinished, output_format="list"):
        client.set_terminated(run.info.run_id, "KILLED")


def sweep(
    storage: str,
    name: str,
    space: Mapping[str, BaseDistribution],
    score: Callable[[dict], float],
    total: int,
    first: Mapping[str, object],
    seed: int,
) -> None:
    """Bring the study to ``total`` complete trials, ``first`` before all others, each with an MLflow run under the study's."""
    study = open_study(storage, name)
    with parent_run(name) as parent:
        settle(study, parent.info.run_id)
        while (done := len(complete(study))) < total:
            # Proposals depend on the seed and the complete trials alone: after a kill, the same trial is proposed again.
            study.sampler = optuna.samplers.TPESampler(seed=seed + done)
            if not study.get_trials(states=(TrialState.COMPLETE, TrialState.WAITING)):
                study.enqueue_trial(dict(first))
            trial = study.ask(dict(space))
            with mlflow.start_run(run_name=f"trial {done:03d}", nested=True) as run:
                trial.set_user_attr("mlflow_run_id", run.info.run_id)
                mlflow.log_params(trial.params)
                auc = score(trial.params)
                mlflow.log_metric("auc", auc)
            study.tell(trial, auc)
        mlflow.log_metric("best_auc", study.best_value)
        mlflow.set_tags({f"best.{choice}": value for choice, value in study.best_params.items()})


def records(name: str) -> tuple[pd.Series, pd.DataFrame]:
    """MLflow's record of a study: its own run, and those of its trials, a row each."""
    (parent,) = mlflow.search_runs(experiment_names=["sweep"], filter_string=f"tags.`optuna.study` = '{name}'").to_dict(
        "records"
    )
    below = f"tags.`mlflow.parentRunId` = '{parent['run_id']}'"
    return pd.Series(parent), mlflow.search_runs(experiment_names=["sweep"], filter_string=below)


def in_a_process(log: Path, task: Callable[..., None], **arguments: object) -> subprocess.Popen:
    """Call ``task`` with ``arguments`` in a Python process of its own. A notebook's functions travel there by value.

    The process ends when this one does: a sweep without its owner would be a second writer after a restart.
    """
    import cloudpickle

    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        command = [sys.executable, "-P", "-m", "helpers.sweep"]
        worker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=output, stderr=subprocess.STDOUT)
    worker.stdin.write(cloudpickle.dumps((task, arguments)))
    worker.stdin.flush()  # and kept open: its end is the sign that the owner is gone
    return worker


def _work() -> None:
    import cloudpickle

    task, arguments = cloudpickle.load(sys.stdin.buffer)
    watch = threading.Thread(target=lambda: (sys.stdin.buffer.read(), os._exit(1)), daemon=True)
    watch.start()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    task(**arguments)
    sys.stdout.flush()
    os._exit(0)  # the watch still holds standard input


if __name__ == "__main__":
    _work()

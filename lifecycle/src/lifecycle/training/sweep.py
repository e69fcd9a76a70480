"""A sweep that may be killed at any moment, and goes on as if nothing had happened.

Optuna's database holds the trials, MLflow's the runs, and no transaction spans both. So each step leaves
enough behind to tell, after a kill, which of the two is ahead. One process writes: a second sweep of the same
study at the same time is not guarded against.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable, Mapping
from typing import Any

import mlflow
import optuna
import pandas as pd
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState


class SweepChanged(ValueError):
    """The arguments do not fit the study's own trials, or each other; the message says what to do."""


class StoresDisagree(RuntimeError):
    """Optuna's database and MLflow's are not of the same sweep: one was deleted or replaced.

    The message says what is missing, and what to do.
    """


def open_study(storage: str, name: str) -> optuna.Study:
    """The study with this name in the database at ``storage``; a new one when there is none.

    Higher scores are better.

    Args:
        storage: SQLAlchemy address of Optuna's database.
        name: of the study.
    """
    study = optuna.create_study(study_name=name, storage=storage, direction="maximize", load_if_exists=True)
    if "id" not in study.user_attrs:  # a name can be given again, in a new database; this tells the two apart
        study.set_user_attr("id", uuid.uuid4().hex)
    return study


def complete(study: optuna.Study) -> list[FrozenTrial]:
    """The trials with a score, in the order in which they were proposed."""
    return study.get_trials(states=(TrialState.COMPLETE,))


def parent_run(study: optuna.Study, experiment: str) -> mlflow.ActiveRun:
    """The study's run in an MLflow experiment.

    It carries the study's id from its first moment on, so it is found even if nobody noted its own.

    Raises:
        StoresDisagree: the study's trials had runs, and MLflow does not know the study; or the experiment was
            deleted in MLflow. Nothing was changed.
    """
    stored = mlflow.MlflowClient().get_experiment_by_name(experiment)
    if stored and stored.lifecycle_stage == "deleted":
        raise StoresDisagree(
            f"MLflow's experiment {experiment!r} was deleted. Bring it back, with "
            f"`mlflow experiments restore --experiment-id {stored.experiment_id}`, or give the sweep "
            "another one."
        )
    mlflow.set_experiment(experiment)
    of_study = {"optuna.study": study.study_name, "optuna.study_id": study.user_attrs["id"]}
    found = mlflow.search_runs(filter_string=_of(study), output_format="list")
    if not found:
        tracked = [trial for trial in study.trials if "mlflow_run_id" in trial.user_attrs]
        if tracked:
            raise StoresDisagree(
                f"Optuna's study {study.study_name!r} has {len(tracked)} trials, and MLflow's experiment "
                f"{experiment!r} has no run of it: "
                "MLflow's store was deleted or replaced. Bring it back, or give the sweep another name."
            )
        # A text: MLflow's server takes no number for a tag, where a database takes it.
        return mlflow.start_run(run_name=study.study_name, tags={**of_study, "interruptions": "0"})
    run = mlflow.start_run(run_id=found[0].info.run_id)
    if found[0].info.status != "FINISHED":  # a killed process leaves its run open
        mlflow.set_tag("interruptions", int(found[0].data.tags["interruptions"]) + 1)
    return run


def _check_space(
    study: optuna.Study, space: Mapping[str, BaseDistribution], first: Mapping[str, object]
) -> None:
    """Refuse a space that is not that of the study's trials, and a first choice that is not in the space."""
    if unknown := sorted(set(first) - set(space)):
        raise SweepChanged(
            f"`first` names {', '.join(unknown)}, and the search space has {', '.join(space)}: "
            "name one of these."
        )
    try:
        optuna.trial.create_trial(
            value=0.0, params=dict(first), distributions={name: space[name] for name in first}
        )
    except ValueError as error:
        raise SweepChanged(f"`first` is not in the search space: {error}") from None
    for trial in study.trials:
        for name, then in trial.distributions.items():
            now = space.get(name)
            if now is None or not _compatible(then, now):
                raise SweepChanged(
                    f"the study {study.study_name!r} searched {name} in {then}, and is now asked to search "
                    f"{now or 'without it'}. Another question deserves another name: give the sweep a new "
                    "one, or the old space back."
                )


def _compatible(then: BaseDistribution, now: BaseDistribution) -> bool:
    try:
        optuna.distributions.check_distribution_compatibility(then, now)
    except ValueError:
        return False
    return True


def settle(study: optuna.Study, parent_id: str, metric: str = "auc") -> None:
    """Bring both records together after a kill.

    Each trial that MLflow holds finished is told to Optuna; all other open ones are closed.

    Args:
        study: of which trials may be open.
        parent_id: id of the study's MLflow run.
        metric: name of the score in a trial's run.
    """
    found = mlflow.search_runs(filter_string=_below(parent_id), output_format="list")
    runs = {run.info.run_id: run for run in found}
    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        run = runs.get(trial.user_attrs.get("mlflow_run_id"))
        if run and run.info.status == "FINISHED":  # killed just before `tell`: nothing is lost
            study.tell(trial.number, run.data.metrics[metric])
        else:
            study.tell(trial.number, state=TrialState.FAIL)
    for run_id, run in runs.items():
        if run.info.status == "RUNNING":
            mlflow.MlflowClient().set_terminated(run_id, "KILLED")


def sweep(
    storage: str,
    experiment: str,
    name: str,
    space: Mapping[str, BaseDistribution],
    score: Callable[[dict[str, Any]], float],
    total: int,
    first: Mapping[str, object],
    seed: int,
    metric: str = "auc",
) -> None:
    """Bring the study to ``total`` complete trials, each with an MLflow run under the study's.

    Args:
        storage: SQLAlchemy address of Optuna's database.
        experiment: of MLflow, for the study's run and those of its trials.
        name: of the study; another question deserves another name.
        space: the search space, by hyperparameter.
        score: gives the score of one choice of hyperparameters; higher is better.
        total: number of complete trials to reach, those of earlier calls included.
        first: the choice to try before all others.
        seed: of the sampler.
        metric: name of the score in MLflow; see ``lifecycle.models.recipe.Recipe.score_name``.

    Raises:
        SweepChanged: the space is not that of the study's trials, or ``first`` is not in it.
        StoresDisagree: MLflow does not know the study, whose trials had runs; or its experiment was deleted.
        ValueError: a score is no number. What was complete before stays so.
    """
    study = open_study(storage, name)
    _check_space(study, space, first)
    with parent_run(study, experiment) as parent:
        settle(study, parent.info.run_id, metric)
        while (done := len(complete(study))) < total:
            # The seed and the complete trials determine the proposal, so a resumed sweep repeats it.
            study.sampler = optuna.samplers.TPESampler(seed=seed + done)
            if not study.get_trials(states=(TrialState.COMPLETE, TrialState.WAITING)):
                study.enqueue_trial(dict(first))
            trial = study.ask(dict(space))
            with mlflow.start_run(run_name=f"trial {done:03d}", nested=True) as run:
                trial.set_user_attr("mlflow_run_id", run.info.run_id)
                mlflow.log_params(trial.params)
                value = score(trial.params)
                # Optuna fails a trial whose score is NaN, so the next seed, and with it the next trial, would
                # be the same, forever.
                if not math.isfinite(value):
                    raise ValueError(f"the score of {trial.params} is {value}: a trial needs a number.")
                mlflow.log_metric(metric, value)
            study.tell(trial, value)
        mlflow.log_metric(f"best_{metric}", study.best_value)
        mlflow.set_tags({f"best.{choice}": value for choice, value in study.best_params.items()})


def records(study: optuna.Study, experiment: str) -> tuple[pd.Series, pd.DataFrame]:
    """MLflow's record of a study: its own run, and those of its trials, a row each, in no order.

    Raises:
        StoresDisagree: the experiment has no run of the study.
    """
    found = mlflow.search_runs(experiment_names=[experiment], filter_string=_of(study))
    if found.empty:
        raise StoresDisagree(
            f"MLflow has no run of the study {study.study_name!r}: nobody has started its sweep, or "
            "MLflow's store was deleted or replaced."
        )
    parent = found.iloc[0]
    return parent, mlflow.search_runs(experiment_names=[experiment], filter_string=_below(parent.run_id))


def _of(study: optuna.Study) -> str:
    return f"tags.`optuna.study_id` = '{study.user_attrs['id']}'"


def _below(parent_id: str) -> str:
    return f"tags.`mlflow.parentRunId` = '{parent_id}'"

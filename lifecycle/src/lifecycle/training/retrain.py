"""Retraining: the training pipeline on a window of labelled days; the alias moves for a better model.

One door for a person, a schedule and a cluster: ``lifecycle retrain``. It says in one sentence what it did,
and why. Whatever goes wrong, the champion keeps serving.
"""

from __future__ import annotations

import fcntl
import re
import uuid
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.exceptions import MlflowException

from lifecycle.features.contract import FeatureContract
from lifecycle.features.labels import declared_types, in_words, usable_rows
from lifecycle.models.model import hyperparameters, split
from lifecycle.models.recipe import DEFAULT, Recipe, RecipeError, recipe_of
from lifecycle.models.versions import Version, load_version, version_by_alias
from lifecycle.settings import Settings
from lifecycle.training.comparison import TooFewLabels, check_enough
from lifecycle.training.outcome import add_to_record, read_record
from lifecycle.training.pipeline import arguments, training_pipeline


class NotRetrained(RuntimeError):
    """Nothing was trained, or nothing came of it; the message says why, in a sentence.

    The champion keeps serving.
    """


@dataclass(frozen=True)
class Outcome:
    """What a retraining came to.

    Attributes:
        promoted: whether the alias names the challenger now.
        said: one sentence, with the figures.
        champion: number of the version that served before.
        challenger: number of the version that the pipeline registered; None when a gate stayed closed.
        run_id: of the pipeline's parent run in MLflow.
    """

    promoted: bool
    said: str
    champion: str
    challenger: str | None
    run_id: str


@contextmanager
def _in_words(what: str, *errors: type[Exception]) -> Iterator[None]:
    """Turn an error of a tool into NotRetrained: ``what``, and the first line of what the tool says."""
    try:
        yield
    except errors as error:
        line = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise NotRetrained(f"{what}: {line.rstrip('.')}.") from None


def usable_labels(
    labels: pd.DataFrame,
    contract: FeatureContract,
    begin: pd.Timestamp | None = None,
    end: pd.Timestamp | None = None,
    *,
    settings: Settings,
    declared: Mapping[str, Any] | None = None,
) -> tuple[pd.DataFrame, dict[str, int], int]:
    """The labels of a window that a model can learn from, and what was left out.

    Args:
        labels: the join keys, the request fields, ``event_timestamp`` (UTC) and the label column; further
            columns are dropped.
        contract: of the champion.
        begin: first moment of the window, UTC; ``retraining.window_days`` before its end when left out.
        end: last moment; that of the newest label when left out.
        settings: of the project: its task, and when labels are believed.
        declared: the type of each join key and request field; see ``declared_types`` in
            ``lifecycle.features.labels``.

    Returns:
        The rows; how many lacked a value, by column (those without a time are of no window, and are counted
        too); and how many questions with contradictory answers were left out.

    Raises:
        NotRetrained: what ``lifecycle.features.labels.usable_rows`` refuses; nothing in the window; no labels
            at its end; too many contradictions; too few entities with each outcome among the held-out rows,
            see ``lifecycle.training.comparison``.
    """
    task, limits = settings.training.task, settings.retraining
    window, late = pd.Timedelta(days=limits.window_days), pd.Timedelta(days=limits.late_days)
    keys = list(contract.join_keys)
    question = [*keys, *contract.request_fields, "event_timestamp"]
    if "event_timestamp" in labels and len(labels):
        times = labels.event_timestamp
        inside = times.isna()
        if isinstance(times.dtype, pd.DatetimeTZDtype) and times.notna().any():
            last = end or times.max()
            inside |= times.between(begin or last - window, last)
            if not inside[times.notna()].any():
                raise NotRetrained(
                    f"no labels between {begin or last - window:%Y-%m-%d} and {last:%Y-%m-%d}; the newest "
                    f"is of {times.max():%Y-%m-%d %H:%M}."
                )
            labels = labels[inside]
    try:
        rows, dropped = usable_rows(labels, contract, declared or {}, task)
    except ValueError as error:
        raise NotRetrained(str(error)) from None
    newest = rows.event_timestamp.max()
    end = end or newest
    begin = begin or end - window
    if end - newest > late:
        raise NotRetrained(
            f"no labels for the newest days: the window ends on {end:%Y-%m-%d}, the last label is of "
            f"{newest:%Y-%m-%d %H:%M}. "
            "Wait for them, or end the window earlier."
        )
    asked = rows.groupby(question, observed=True)[contract.label]
    both = asked.transform("nunique") > 1
    contradictory = len(rows[both].drop_duplicates(question))
    if contradictory > limits.contradictions * asked.ngroups:
        answers = "both answers, 0 and 1" if task == "binary" else "several answers"
        raise NotRetrained(
            f"{contradictory} of {asked.ngroups} questions have {answers}. Find out which is right before a "
            "model learns from them."
        )
    kept = rows[~both].drop_duplicates(question)
    kept = kept.sort_values(["event_timestamp", *keys], ignore_index=True)
    _, latest = split(kept, settings.training.held_out)
    if latest.empty:
        raise NotRetrained(
            f"the {len(kept)} labels from {begin:%Y-%m-%d} to {end:%Y-%m-%d} are too few: they leave no "
            "held-out days to compare on. Wait for more."
        )
    with _in_words(
        "wait for more labels, those of the held-out days are too few to compare on", TooFewLabels
    ):
        check_enough(latest[contract.label], latest[keys], task, settings.training.fewest)
    return kept, dropped, contradictory


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the folder's lock. The system gives it up when this process ends, however it ends."""
    with _in_words(f"{folder.name}/ cannot be written", OSError):
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / ".retraining.lock").open("a")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise NotRetrained(
                f"another retraining is under way in {folder.name}/; this one did nothing."
            ) from None
        yield


def _close_dead_runs(folder: Path, experiment: str) -> None:
    """Close what an earlier retraining left open when it was killed.

    Its labels lie in ``folder``, and whoever holds the folder's lock knows that it is gone.
    """
    client = mlflow.MlflowClient()
    found = client.get_experiment_by_name(experiment)
    if found is None:
        return
    if found.lifecycle_stage == "deleted":
        raise NotRetrained(
            f"MLflow's experiment {experiment!r} was deleted. Bring it back, with `mlflow experiments "
            f"restore --experiment-id {found.experiment_id}`, or give another name."
        )
    runs = client.search_runs([found.experiment_id], "attributes.status = 'RUNNING'")
    dead = {run.info.run_id for run in runs if (folder / f"{run.info.run_name}.parquet").is_file()}
    for run in runs:
        if run.info.run_id in dead:
            add_to_record(run.info.run_id, status="FAILED", reason="the retraining was killed")
        elif run.data.tags.get("mlflow.parentRunId") not in dead:
            continue
        client.set_terminated(run.info.run_id, "KILLED")


def _recipe(name: str, champion: Version, fitted: Any, wanted: Recipe) -> Recipe:
    """``wanted`` with the champion's hyperparameters.

    Only these are read from the stored model: an estimator's name is code that will be called, and the
    project's settings say which.
    """
    stored = recipe_of(f"models:/{name}/{champion.number}")
    if stored is None:
        if wanted.estimator != DEFAULT:
            raise RecipeError(
                f"it was stored without a recipe, and the settings name the estimator {wanted.estimator}: "
                "register a first version of that estimator by the pipeline"
            )
        return replace(wanted, hyperparameters=hyperparameters(fitted))
    for part in ("estimator", "task"):
        if getattr(stored, part) != getattr(wanted, part):
            raise RecipeError(
                f"its {part} is {getattr(stored, part)}, and the settings name {getattr(wanted, part)}: "
                f"register a first version of the new {part} by the pipeline, or set it back"
            )
    return replace(wanted, hyperparameters=stored.hyperparameters)


def promote(
    registry: mlflow.MlflowClient, model: str, alias: str, champion: Version, challenger: str
) -> None:
    """Let ``alias`` name ``challenger``, if it still names the champion that it was compared with.

    MLflow cannot look and set in one step: who moves the alias in the few milliseconds between is not
    noticed.

    Raises:
        NotRetrained: the alias was moved meanwhile, or deleted.
    """
    try:
        now = version_by_alias(registry, model, alias)
        moved = f"moved from version {champion.number} to {now.number}"
    except MlflowException:
        now, moved = None, f"taken from version {champion.number}"
    if now != champion:
        raise NotRetrained(
            f"{alias} was {moved} while version {challenger} was trained. Version {challenger} is "
            f"registered, and was compared with {champion.number} alone, "
            "so the alias stays as it is."
        )
    registry.set_registered_model_alias(model, alias, challenger)


def _kept(registry: mlflow.MlflowClient, model: str, alias: str, champion: Version) -> str:
    try:
        kept = version_by_alias(registry, model, alias) == champion
    except MlflowException:
        kept = False
    number = champion.number
    return (
        f"version {number} keeps serving"
        if kept
        else f"{alias} no longer names version {number}, and was not moved"
    )


def retrain(
    settings: Settings, begin: pd.Timestamp | None = None, end: pd.Timestamp | None = None
) -> Outcome:
    """Run the training pipeline on a window of labels, and move the alias if its model is better.

    The challenger has the champion's features and hyperparameters, read from its contract and recipe. The
    pipeline trains on the earlier days of the window and compares both on the newest ones
    (``lifecycle.training.comparison``).

    Args:
        settings: of the project. One retraining at a time works in the folder ``retraining.outputs``.
        begin: first moment of the window, UTC; see ``usable_labels``.
        end: last moment.

    Raises:
        NotRetrained: for a reason that its message gives. The alias was not moved.
    """
    model, alias, experiment = settings.model, settings.alias, settings.retraining.experiment
    feature_repo, labels = settings.path(settings.feature_repo), settings.path(settings.labels)
    outputs = settings.path(settings.retraining.outputs).resolve()
    with _in_words("the settings of the model", RecipeError):
        wanted = Recipe.from_settings(settings.training)
    with _alone(outputs):
        _close_dead_runs(outputs, experiment)
        registry = mlflow.MlflowClient()
        with _in_words(f"the champion, {alias} of {model}, was not found", MlflowException):
            champion = version_by_alias(registry, model, alias)
        with _in_words(f"version {champion.number}, which {alias} names, cannot be trained again", Exception):
            with warnings.catch_warnings():
                # The names are compared by ``load_version``.
                warnings.filterwarnings("ignore", message="X does not have valid feature names")
                fitted, contract = load_version(model, champion, types=wanted.allowed_types, task=wanted.task)
            recipe = _recipe(model, champion, fitted, wanted)
            recipe.new_estimator()
        with _in_words(f"{feature_repo.name}/ cannot be read as a feature repository", Exception):
            from feast import FeatureStore

            declared = declared_types(FeatureStore(repo_path=str(feature_repo)), contract.feature_service)
        with _in_words(f"{labels.name} cannot be read as a label table", OSError, TypeError, ValueError):
            table = pd.read_parquet(labels)
            rows, dropped, contradictory = usable_labels(
                table, contract, begin, end, declared=declared, settings=settings
            )
        name = f"retraining {rows.event_timestamp.max():%Y-%m-%d} {uuid.uuid4().hex[:8]}"
        used = outputs / f"{name}.parquet"
        rows.to_parquet(used)
        given = arguments(
            settings,
            name,
            recipe,
            labels=str(used),
            feature_service=contract.feature_service,
            label=contract.label,
            experiment=experiment,
            champion=champion.number,
        )
        _run(settings, outputs, outputs / f"{name}.log", given)
        (parent,) = mlflow.search_runs(
            [], f"attributes.run_name = '{name}'", output_format="list", experiment_names=[experiment]
        )
        run_id = parent.info.run_id
        record = read_record(run_id)
        # The pipeline knows what it lost itself; what was left out before is added here.
        dropped = {
            column: dropped.get(column, 0) + record.dropped.get(column, 0)
            for column in {**dropped, **record.dropped}
        }
        add_to_record(run_id, dropped=dropped)
        left_out = [f"{contradictory} questions with both answers were left out"] if contradictory else []
        left_out += [f"rows left out: {in_words(dropped)}"] if dropped else []
        without = f" ({'; '.join(left_out)})" if left_out else ""
        if not record.version:
            if not record.gate:
                raise NotRetrained(f"the run ended without an answer; its log is {outputs / f'{name}.log'}.")
            said = f"{_kept(registry, model, alias, champion)}: {record.reason}"
            return Outcome(False, f"{said}{without}.", champion.number, None, run_id)
        challenger = record.version
        if settings.retraining.hold:
            said = f"version {challenger} is better than {champion.number} and held back: {record.reason}"
            return Outcome(False, f"{said}{without}.", champion.number, challenger, run_id)
        promote(registry, model, alias, champion, challenger)
        said = f"version {challenger} took the place of {champion.number}: {record.reason}{without}."
        return Outcome(True, said, champion.number, challenger, run_id)


def _run(settings: Settings, outputs: Path, log: Path, given: dict) -> None:
    from kfp import components, local

    from lifecycle.training.local_runner import local_run

    name = Path(settings.pipeline).name
    if settings.pipeline:
        with _in_words(f"{name} is no compiled pipeline", Exception):
            training = components.load_component_from_file(str(settings.path(settings.pipeline)))
    else:
        training = training_pipeline(settings.cluster)
    local.init(local.SubprocessRunner(use_venv=False), pipeline_root=str(outputs), raise_on_error=True)
    try:
        with local_run(log):
            training(**given)
    except TypeError as error:
        raise NotRetrained(
            f"{name} takes other arguments than this version of lifecycle gives ({error}): compile it anew."
        ) from None
    except RuntimeError:
        failed = re.search(r"Task \S*'([\w-]+)'\S* finished with status \S*FAILURE", log.read_text())
        step = failed[1] if failed else "a step"
        raise NotRetrained(f"{step} failed; its own words are in {log}.") from None

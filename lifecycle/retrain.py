"""Retraining: the compiled pipeline on a window of labelled days, and an alias that moves for a better model.

One door for a person, a schedule and a cluster::

    python -m lifecycle.retrain --pipeline compiled.yaml --feature-repo feature_repo \\
        --labels labels.parquet --model NAME --alias production --outputs retraining --reference SAVED_DATASET

It says in one sentence what it did, and why. Whatever goes wrong, the champion keeps serving.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import re
import sys
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import mlflow
import pandas as pd
from mlflow.exceptions import MlflowException

from lifecycle.comparison import TooFewLabels, check_enough
from lifecycle.contract import FeatureContract
from lifecycle.model import hyperparameters, split
from lifecycle.versions import Version, behind_alias, read

WINDOW = pd.Timedelta(days=14)
"""How much is trained and compared on, when nobody says where the window begins."""
MOST_CONTRADICTIONS = 0.05
"""Share of the questions with both answers, above which labels are not believed.

Below it those questions are left out.
"""
LATE = pd.Timedelta(days=2)
"""How far before the end of the window the newest label may lie."""


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
) -> tuple[pd.DataFrame, int]:
    """The labels of a window that a model can learn from, and how many contradictory questions were left out.

    Args:
        labels: the join keys, the request fields, ``event_timestamp`` (UTC) and the label column; further
            columns are dropped.
        contract: of the champion.
        begin: first moment of the window, UTC; ``WINDOW`` before its end when left out.
        end: last moment; that of the newest label when left out.

    Raises:
        NotRetrained: a column is missing; times without a time zone; a label other than 0 and 1; nothing in
            the window; no labels at its end; too many contradictions; too few entities with each outcome
            among the held-out rows, see ``lifecycle.comparison``.
    """
    keys = list(contract.join_keys)
    question = [*keys, *contract.request_fields, "event_timestamp"]
    missing = [name for name in (*question, contract.label) if name not in labels]
    if missing:
        raise NotRetrained(
            f"the label table has no column {', '.join(missing)}; it has {', '.join(labels.columns)}."
        )
    if not isinstance(labels.event_timestamp.dtype, pd.DatetimeTZDtype):
        raise NotRetrained("the times of the labels have no time zone: write them in UTC.")
    newest = labels.event_timestamp.max()
    if pd.isna(newest):
        raise NotRetrained("the label table has no label.")
    end = end or newest
    begin = begin or end - WINDOW
    rows = labels.loc[labels.event_timestamp.between(begin, end), [*question, contract.label]]
    if rows.empty:
        raise NotRetrained(
            f"no labels between {begin:%Y-%m-%d} and {end:%Y-%m-%d}; the newest is of "
            f"{newest:%Y-%m-%d %H:%M}."
        )
    strange = rows.loc[~rows[contract.label].isin([0, 1]), contract.label].unique().tolist()
    if strange:
        raise NotRetrained(f"labels must be 0 or 1; there is {', '.join(map(repr, strange[:5]))}.")
    newest = rows.event_timestamp.max()
    if end - newest > LATE:
        raise NotRetrained(
            f"no labels for the newest days: the window ends on {end:%Y-%m-%d}, the last label is of "
            f"{newest:%Y-%m-%d %H:%M}. "
            "Wait for them, or end the window earlier."
        )
    asked = rows.groupby(question)[contract.label]
    both = asked.transform("nunique") > 1
    contradictory = len(rows[both].drop_duplicates(question))
    if contradictory > MOST_CONTRADICTIONS * asked.ngroups:
        raise NotRetrained(
            f"{contradictory} of {asked.ngroups} questions have both answers, 0 and 1. Find out which is "
            "right before a model learns from them."
        )
    kept = rows[~both].drop_duplicates(question).astype({contract.label: "int64"})
    kept = kept.sort_values(["event_timestamp", *keys], ignore_index=True)
    _, held_out = split(kept)
    if held_out.empty:
        raise NotRetrained(
            f"the {len(kept)} labels from {begin:%Y-%m-%d} to {end:%Y-%m-%d} are too few: they leave no "
            "held-out days to compare on. Wait for more."
        )
    with _in_words(
        "wait for more labels, those of the held-out days are too few to compare on", TooFewLabels
    ):
        check_enough(held_out[contract.label], held_out[keys])
    return kept, contradictory


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
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
        now = behind_alias(registry, model, alias)
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
        kept = behind_alias(registry, model, alias) == champion
    except MlflowException:
        kept = False
    number = champion.number
    return (
        f"version {number} keeps serving"
        if kept
        else f"{alias} no longer names version {number}, and was not moved"
    )


def retrain(
    pipeline: Path,
    feature_repo: Path,
    labels: Path,
    model: str,
    alias: str,
    outputs: Path,
    begin: pd.Timestamp | None = None,
    end: pd.Timestamp | None = None,
    *,
    reference: str,
    experiment: str = "retraining",
    threshold: float = 0.5,
    hold: bool = False,
) -> Outcome:
    """Run the compiled training pipeline on a window of labels, and move the alias if its model is better.

    The challenger has the champion's features and hyperparameters, read from the champion itself. The
    pipeline trains on the earlier days of the window and compares both on the newest ones
    (``lifecycle.comparison``).

    Args:
        pipeline: the compiled file.
        feature_repo: folder of ``feature_store.yaml``.
        labels: parquet file; see ``usable_labels``.
        model: the registered model.
        alias: names the champion.
        outputs: folder for what the run leaves: its labels, its log, the files of its steps. One retraining
            at a time works in it.
        begin: first moment of the window, UTC; see ``usable_labels``.
        end: last moment.
        reference: saved dataset whose expectation suite the data must meet.
        experiment: of MLflow, for the pipeline's runs.
        threshold: AUC that a challenger must reach in any case.
        hold: leave the alias where it is, also for a better model, and let somebody look at it first.

    Raises:
        NotRetrained: for a reason that its message gives. The alias was not moved.
    """
    outputs = outputs.resolve()
    with _alone(outputs):
        registry = mlflow.MlflowClient()
        with _in_words(f"the champion, {alias} of {model}, was not found", MlflowException):
            champion = behind_alias(registry, model, alias)
        with _in_words(f"version {champion.number}, which {alias} names, cannot be trained again", Exception):
            with warnings.catch_warnings():
                # The names are compared by ``read``.
                warnings.filterwarnings("ignore", message="X does not have valid feature names")
                fitted, contract = read(model, champion)
            settings = hyperparameters(fitted)
        with _in_words(f"{labels.name} cannot be read as a label table", OSError, TypeError, ValueError):
            rows, contradictory = usable_labels(pd.read_parquet(labels), contract, begin, end)
        name = f"retraining {rows.event_timestamp.max():%Y-%m-%d} {uuid.uuid4().hex[:8]}"
        used = outputs / f"{name}.parquet"
        rows.to_parquet(used)
        _run(
            pipeline,
            outputs,
            outputs / f"{name}.log",
            {
                "feature_repo": str(feature_repo.resolve()),
                "labels": str(used),
                "feature_service": contract.feature_service,
                "label": contract.label,
                "reference": reference,
                "experiment": experiment,
                "run_name": name,
                "model_name": model,
                "threshold": threshold,
                "champion": champion.number,
                **settings,
            },
        )
        (parent,) = mlflow.search_runs(
            [], f"attributes.run_name = '{name}'", output_format="list", experiment_names=[experiment]
        )
        made = registry.search_model_versions(
            f"name = '{model}' and tag.`pipeline.parent_run` = '{parent.info.run_id}'"
        )
        steps = mlflow.search_runs(
            filter_string=f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'",
            output_format="list",
            experiment_names=[experiment],
        )
        compared = next((step.data.tags["outcome"] for step in steps if "outcome" in step.data.tags), "")
        without = f" ({contradictory} questions with both answers were left out)" if contradictory else ""
        if not made:
            said = f"the challenger is not better, {compared}"
            if not compared:
                auc = next(step.data.metrics["auc"] for step in steps if "auc" in step.data.metrics)
                said = f"the challenger's AUC is {auc:.3f}, below {threshold}"
            said = f"{_kept(registry, model, alias, champion)}: {said}"
            return Outcome(False, f"{said}{without}.", champion.number, None, parent.info.run_id)
        challenger = made[0].version
        if hold:
            said = (
                f"version {challenger} is better than {champion.number} and held back: {compared}{without}."
            )
            return Outcome(False, said, champion.number, challenger, parent.info.run_id)
        promote(registry, model, alias, champion, challenger)
        said = f"version {challenger} took the place of {champion.number}: {compared}{without}."
        return Outcome(True, said, champion.number, challenger, parent.info.run_id)


def _run(pipeline: Path, outputs: Path, log: Path, arguments: dict) -> None:
    from kfp import components, local

    from lifecycle.pipeline import local_run

    with _in_words(f"{pipeline.name} is no compiled pipeline", Exception):
        from_file = components.load_component_from_file(str(pipeline))
    local.init(local.SubprocessRunner(use_venv=False), pipeline_root=str(outputs), raise_on_error=True)
    try:
        with local_run(log):
            from_file(**arguments)
    except TypeError as error:
        raise NotRetrained(
            f"{pipeline.name} takes other arguments than this version of lifecycle gives ({error}): compile "
            "it anew."
        ) from None
    except RuntimeError:
        failed = re.search(r"Task \S*'([\w-]+)'\S* finished with status \S*FAILURE", log.read_text())
        step = failed[1] if failed else "a step"
        raise NotRetrained(f"{step} failed; its own words are in {log}.") from None


def main(argv: list[str] | None = None) -> int:
    """The command line. Returns 0 when it came to a decision, whichever; 2 when nothing was decided."""
    parser = argparse.ArgumentParser(
        prog="python -m lifecycle.retrain", description="Retrain, compare, promote if better."
    )
    parser.add_argument("--pipeline", type=Path, required=True, help="the compiled training pipeline")
    parser.add_argument("--feature-repo", type=Path, required=True)
    parser.add_argument(
        "--labels", type=Path, required=True, help="parquet file with keys, event_timestamp and label"
    )
    parser.add_argument("--model", required=True, help="name in the MLflow registry")
    parser.add_argument("--alias", default="production")
    parser.add_argument("--outputs", type=Path, required=True, help="folder for the run's files")
    parser.add_argument(
        "--begin", type=_moment, help="first day of the window, UTC; 14 days before its end when left out"
    )
    parser.add_argument(
        "--end", type=_moment, help="last moment of the window, UTC; the newest label when left out"
    )
    parser.add_argument("--reference", required=True, help="saved dataset that carries the expectation suite")
    parser.add_argument("--experiment", default="retraining")
    parser.add_argument(
        "--threshold", type=float, default=0.5, help="AUC that a challenger must reach in any case"
    )
    parser.add_argument(
        "--hold", action="store_true", help="register a better challenger, and do not promote it"
    )
    given = parser.parse_args(argv)
    try:
        outcome = retrain(
            given.pipeline,
            given.feature_repo,
            given.labels,
            given.model,
            given.alias,
            given.outputs,
            given.begin,
            given.end,
            reference=given.reference,
            experiment=given.experiment,
            threshold=given.threshold,
            hold=given.hold,
        )
    except NotRetrained as reason:
        print(f"nothing was promoted: {reason}")
        return 2
    print(outcome.said)
    return 0


def _moment(text: str) -> pd.Timestamp:
    try:
        moment = pd.to_datetime(text, utc=True)
    except ValueError:
        moment = pd.NaT
    if moment is pd.NaT:
        raise argparse.ArgumentTypeError(f"{text!r} is no time; write it as 2030-03-22 or 2030-03-22T06:00")
    return moment


if __name__ == "__main__":
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    sys.exit(main())

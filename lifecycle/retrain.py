"""Retraining: the compiled pipeline on a window of labelled days, challenger against champion, and an alias that moves only for a better model.

One door for a person, a schedule and a cluster::

    python -m lifecycle.retrain --pipeline compiled.yaml --feature-repo feature_repo --labels labels.parquet \\
        --model NAME --alias production --outputs retraining --reference SAVED_DATASET

It says in one sentence what it did, and why. Whatever goes wrong, the champion keeps serving.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import mlflow
import pandas as pd
from mlflow.exceptions import MlflowException

from lifecycle.comparison import FEWEST
from lifecycle.contract import FeatureContract
from lifecycle.model import hyperparameters, split
from lifecycle.versions import Version, VersionRefused, behind_alias, read

MOST_CONTRADICTIONS = 0.05
"""Share of the questions with both answers, above which labels are not believed. Below it those questions are left out."""
LATE = pd.Timedelta(days=2)
"""How far before the end of the window the newest label may lie."""


class NotRetrained(RuntimeError):
    """Nothing was trained, or nothing came of it; the message says why, in a sentence. The champion keeps serving."""


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


def usable_labels(
    labels: pd.DataFrame, contract: FeatureContract, begin: pd.Timestamp, end: pd.Timestamp
) -> tuple[pd.DataFrame, int]:
    """The labels of a window that a model can be trained and compared on, and how many contradictory rows were left out.

    Args:
        labels: the join keys, the request fields, ``event_timestamp`` (UTC) and the label column; further columns are dropped.
        contract: of the champion.
        begin: first moment of the window, UTC.
        end: last moment.

    Raises:
        NotRetrained: a column is missing; times without a time zone; a label other than 0 and 1; nothing in the window; no labels at its end; too many contradictions;
            fewer than ``lifecycle.comparison.FEWEST`` of one outcome among the held-out rows.
    """
    key = [*contract.join_keys, *contract.request_fields, "event_timestamp"]
    missing = [name for name in (*key, contract.label) if name not in labels]
    if missing:
        raise NotRetrained(f"the label table has no column {', '.join(missing)}; it has {', '.join(labels.columns)}.")
    if not isinstance(labels.event_timestamp.dtype, pd.DatetimeTZDtype):
        raise NotRetrained("the times of the labels have no time zone: write them in UTC.")
    rows = labels.loc[labels.event_timestamp.between(begin, end), [*key, contract.label]]
    if rows.empty:
        newest = labels.event_timestamp.max()
        raise NotRetrained(
            f"no labels between {begin:%Y-%m-%d} and {end:%Y-%m-%d}; the newest is of {newest:%Y-%m-%d %H:%M}."
        )
    if not rows[contract.label].isin([0, 1]).all():
        strange = sorted(set(rows[contract.label].astype(str)) - {"0", "1"})[:5]
        raise NotRetrained(f"labels must be 0 or 1; there is {', '.join(strange)}.")
    newest = rows.event_timestamp.max()
    if end - newest > LATE:
        raise NotRetrained(
            f"no labels for the newest days: the window ends on {end:%Y-%m-%d}, the last label is of {newest:%Y-%m-%d %H:%M}. "
            "Wait for them, or end the window earlier."
        )
    questions = rows.groupby(key)[contract.label]
    both = questions.transform("nunique") > 1
    contradictory = len(rows[both].drop_duplicates(key))
    if contradictory > MOST_CONTRADICTIONS * questions.ngroups:
        raise NotRetrained(
            f"{contradictory} of {questions.ngroups} questions have both answers, 0 and 1. Find out which is right before a model learns from them."
        )
    kept = rows[~both].drop_duplicates(key).sort_values(["event_timestamp", *contract.join_keys], ignore_index=True)
    _, held_out = split(kept)
    counts = held_out[contract.label].value_counts()
    if min(counts.get(0, 0), counts.get(1, 0)) < FEWEST:
        raise NotRetrained(
            f"too few labels: {len(kept)} rows between {begin:%Y-%m-%d} and {end:%Y-%m-%d}, of which the held-out ones have {counts.get(1, 0)} ones and "
            f"{counts.get(0, 0)} zeros; a comparison needs {FEWEST} of each. Wait for more."
        )
    return kept, contradictory


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".retraining.lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise NotRetrained(f"another retraining is under way in {folder.name}/; this one did nothing.") from None
        yield


def promote(registry: mlflow.MlflowClient, model: str, alias: str, champion: Version, challenger: str) -> None:
    """Let ``alias`` name ``challenger``, if it still names the champion that the challenger was compared with.

    MLflow cannot look and set in one step: who moves the alias in the few milliseconds between is not noticed.

    Raises:
        NotRetrained: the alias was moved meanwhile, or deleted.
    """
    try:
        now = behind_alias(registry, model, alias).number
    except MlflowException:
        now = "none"
    if now != champion.number:
        raise NotRetrained(
            f"{alias} was moved from version {champion.number} to {now} while version {challenger} was trained. "
            f"It was not compared with {now}, so the alias stays there; version {challenger} is registered."
        )
    registry.set_registered_model_alias(model, alias, challenger)


def retrain(
    pipeline: Path,
    feature_repo: Path,
    labels: Path,
    model: str,
    alias: str,
    outputs: Path,
    begin: pd.Timestamp,
    end: pd.Timestamp,
    *,
    reference: str,
    experiment: str = "retraining",
    threshold: float = 0.5,
    hold: bool = False,
) -> Outcome:
    """Run the compiled training pipeline on the labels of a window, and move the alias if its model beats the champion there.

    The challenger has the champion's features and hyperparameters, read from the champion itself. The pipeline trains on the earlier days of the
    window and compares both on the newest ones (``lifecycle.comparison``).

    Args:
        pipeline: the compiled file.
        feature_repo: folder of ``feature_store.yaml``.
        labels: parquet file; see ``usable_labels``.
        model: the registered model.
        alias: names the champion.
        outputs: folder for what the run leaves: its labels, its log, the files of its steps. One retraining at a time works in it.
        begin: first moment of the window, UTC.
        end: last moment.
        reference: saved dataset whose expectation suite the data must meet.
        experiment: of MLflow, for the pipeline's runs.
        threshold: AUC that a challenger must reach in any case.
        hold: leave the alias where it is, also for a better model, and let somebody look at it first.

    Raises:
        NotRetrained: for a reason that its message gives. The alias was not moved.
    """
    with _alone(outputs):
        registry = mlflow.MlflowClient()
        try:
            champion = behind_alias(registry, model, alias)
            fitted, contract = read(model, champion)
        except MlflowException as error:
            raise NotRetrained(f"{alias} of {model} names no version to beat ({str(error).splitlines()[0]}).") from None
        except VersionRefused as error:
            raise NotRetrained(f"version {champion.number}, which {alias} names, cannot be read: {error}.") from None
        try:
            rows, contradictory = usable_labels(pd.read_parquet(labels), contract, begin, end)
        except (OSError, ValueError) as error:
            raise NotRetrained(f"{labels.name} cannot be read as a label table: {str(error).splitlines()[0]}") from None
        name = _new_name(experiment, end)
        used = outputs / f"{name}.parquet"
        rows.to_parquet(used)
        _run(
            pipeline,
            outputs,
            outputs / f"{name}.log",
            {
                "feature_repo": str(feature_repo),
                "labels": str(used),
                "feature_service": contract.feature_service,
                "label": contract.label,
                "reference": reference,
                "experiment": experiment,
                "run_name": name,
                "model_name": model,
                "threshold": threshold,
                "champion": champion.number,
                **hyperparameters(fitted),
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
            said = f"version {champion.number} keeps serving: the challenger is not better, {compared}"
            if not compared:
                auc = next(step.data.metrics["auc"] for step in steps if "auc" in step.data.metrics)
                said = f"version {champion.number} keeps serving: the challenger's AUC is {auc:.3f}, below {threshold}"
            return Outcome(False, f"{said}{without}.", champion.number, None, parent.info.run_id)
        challenger = made[0].version
        if hold:
            said = f"version {challenger} is better than {champion.number} and held back: {compared}{without}."
            return Outcome(False, said, champion.number, challenger, parent.info.run_id)
        promote(registry, model, alias, champion, challenger)
        said = f"version {challenger} took the place of {champion.number}: {compared}{without}."
        return Outcome(True, said, champion.number, challenger, parent.info.run_id)


def _new_name(experiment: str, end: pd.Timestamp) -> str:
    found = mlflow.get_experiment_by_name(experiment)
    stem = f"retraining {end:%Y-%m-%d}"
    earlier = (
        mlflow.search_runs([found.experiment_id], f"attributes.run_name LIKE '{stem}%'", output_format="list")
        if found
        else []
    )
    return f"{stem} {len(earlier) + 1}"


def _run(pipeline: Path, outputs: Path, log: Path, arguments: dict) -> None:
    from kfp import components, local

    from lifecycle.pipeline import local_run

    try:
        from_file = components.load_component_from_file(str(pipeline))
    except Exception as error:
        raise NotRetrained(f"{pipeline.name} is no compiled pipeline: {str(error).splitlines()[0]}") from None
    local.init(local.SubprocessRunner(use_venv=False), pipeline_root=str(outputs), raise_on_error=True)
    try:
        with local_run(log):
            from_file(**arguments)
    except TypeError as error:
        raise NotRetrained(
            f"{pipeline.name} takes other arguments than this version of lifecycle gives ({error}): compile it anew."
        ) from None
    except RuntimeError:
        failed = re.search(r"Task \S*'([\w-]+)'\S* finished with status \S*FAILURE", log.read_text())
        step = failed[1] if failed else "a step"
        raise NotRetrained(f"{step} failed, so there is no challenger; its own words are in {log}.") from None


def main(argv: list[str] | None = None) -> int:
    """The command line. Returns 0 when it came to a decision, whichever; 2 when nothing was decided."""
    parser = argparse.ArgumentParser(
        prog="python -m lifecycle.retrain", description="Retrain, compare, promote if better."
    )
    parser.add_argument("--pipeline", type=Path, required=True, help="the compiled training pipeline")
    parser.add_argument("--feature-repo", type=Path, required=True)
    parser.add_argument("--labels", type=Path, required=True, help="parquet file with keys, event_timestamp and label")
    parser.add_argument("--model", required=True, help="name in the MLflow registry")
    parser.add_argument("--alias", default="production")
    parser.add_argument("--outputs", type=Path, required=True, help="folder for the run's files")
    parser.add_argument(
        "--begin", type=_moment, help="first day of the window, UTC; 14 days before its end when left out"
    )
    parser.add_argument("--end", type=_moment, help="last moment of the window, UTC; the newest label when left out")
    parser.add_argument("--reference", required=True, help="saved dataset that carries the expectation suite")
    parser.add_argument("--experiment", default="retraining")
    parser.add_argument("--threshold", type=float, default=0.5, help="AUC that a challenger must reach in any case")
    parser.add_argument("--hold", action="store_true", help="register a better challenger, and do not promote it")
    given = parser.parse_args(argv)
    try:
        end = given.end or _newest(given.labels)
        begin = given.begin or end - pd.Timedelta(days=14)
        outcome = retrain(
            given.pipeline,
            given.feature_repo,
            given.labels,
            given.model,
            given.alias,
            given.outputs.resolve(),
            begin,
            end,
            reference=given.reference,
            experiment=given.experiment,
            threshold=given.threshold,
            hold=given.hold,
        )
    except NotRetrained as reason:
        print(f"not retrained, the champion keeps serving: {reason}")
        return 2
    print(outcome.said)
    return 0


def _moment(text: str) -> pd.Timestamp:
    moment = pd.Timestamp(text)
    return moment.tz_localize("UTC") if moment.tzinfo is None else moment.tz_convert("UTC")


def _newest(labels: Path) -> pd.Timestamp:
    try:
        return pd.read_parquet(labels, columns=["event_timestamp"]).event_timestamp.max()
    except (OSError, ValueError) as error:
        raise NotRetrained(f"{labels.name} cannot be read as a label table: {str(error).splitlines()[0]}") from None


if __name__ == "__main__":
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    sys.exit(main())

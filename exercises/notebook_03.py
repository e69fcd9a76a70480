"""The exercises of notebook 03."""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exercises.core import Exercise, NotYet, attempt, scratch, staged
from helpers.data import NOW
from helpers.workspace import current

if TYPE_CHECKING:
    import pandas as pd
    from feast import FeatureStore

    from lifecycle.features.validation import SuiteReport

HOURLY = ["conv_rate", "acc_rate", "avg_daily_trips"]
FEATURES = [f"driver_hourly_stats:{name}" for name in HOURLY]
REFERENCE_BEGINS, REFERENCE_ENDS, LAST_WEEK = (NOW - timedelta(days=days) for days in (35, 21, 7))


def _refuses_frozen(rule: Any) -> str:
    import great_expectations as gx
    import pandas as pd
    from great_expectations.expectations.expectation import Expectation

    from lifecycle.features.validation import judge, suite_tag

    if isinstance(rule, type) and issubclass(rule, Expectation):
        raise NotYet(
            "that's the class of an expectation; call it with a column and its limits, as in `rules` above."
        )
    if not isinstance(rule, Expectation):
        raise NotYet(
            f"your answer is of type {type(rule).__name__}; write one expectation, such as those in `rules`"
            " above."
        )
    suite = gx.ExpectationSuite("frozen", expectations=[rule])
    with attempt("the registry can't store this rule"):
        suite_tag(suite)
    column = rule.configuration.kwargs["column"]
    if column != "acc_rate":
        raise NotYet(f"the rule is on `{column}`, but the frozen column is `acc_rate`.")

    labels = pd.read_parquet(current().data / "driver_labels.parquet")
    with scratch() as store:
        table = store.get_historical_features(
            labels[labels.event_timestamp >= REFERENCE_BEGINS], FEATURES
        ).to_df()
    good = {
        "the reference period": table[table.event_timestamp < REFERENCE_ENDS],
        "the last week": table[table.event_timestamp >= LAST_WEEK],
    }
    rates = good["the reference period"].acc_rate
    week = good["the last week"]

    def refused(rows: pd.DataFrame) -> str:
        return _in_one_line(judge(suite, rows, ["acc_rate"]))

    def frozen(value: float) -> pd.DataFrame:
        return week.assign(acc_rate=week.acc_rate.where(week.acc_rate.isna(), value))

    mean = rates.mean()
    hair = (
        "The standard deviation of equal numbers is 0, but rounding can make it slightly larger: leave room"
        " for that."
    )
    if not refused(frozen(mean)):
        no_limit = "A frozen column spreads too little, and this rule sets no lower limit."
        why = {
            "expect_column_stdev_to_be_between": (
                no_limit if rule.configuration.kwargs.get("min_value") is None else hair
            ),
            "expect_column_mean_to_be_between": (
                "Its mean is exactly the reference's mean, so a rule on the mean finds nothing."
            ),
            "expect_column_values_to_be_between": (
                "Each of its values is a legal rate. Look for a rule on the column as a whole."
            ),
            "expect_column_values_to_not_be_null": "None of its values is missing.",
        }
        raise NotYet(
            "the frozen batch passes."
            f" {why.get(rule.configuration.type, 'How do its values differ from good ones as a group?')}"
        )
    for value in (rates.quantile(0.05), rates.quantile(0.95)):
        if not refused(frozen(value)):
            spread = rule.configuration.type == "expect_column_stdev_to_be_between"
            raise NotYet(
                f"the rule rejects a batch frozen at {mean:.2f}, but accepts one frozen at {value:.2f}. "
                + (hair if spread else "The next accident brings another value.")
            )
    for name, rows in good.items():
        if found := refused(rows):
            raise NotYet(f"the rule rejects the frozen batch, but also {name}: {found}.")
    return (
        f"The reference has {rates.nunique()} different values and a standard deviation of"
        f" {rates.std():.2f}; the frozen batch has one value and 0. A rule on single values can't see that,"
        " and neither can a rule on the mean when the value is the mean."
    )


def _in_one_line(report: SuiteReport) -> str:
    """The broken rules, or an empty text."""
    # A rule without a number for a limit has nothing in brackets.
    return str(report).replace("\n", "; ").replace(" ()", "")


def _knows_incomplete(complete: Any) -> str:
    import numpy as np
    import pandas as pd
    from feast import FeatureStore, FileSource
    from feast.monitoring.monitoring_service import MonitoringService

    if not callable(complete):
        raise NotYet(
            f"your answer is of type {type(complete).__name__}; write a function of a run and a store."
        )
    recent = pd.read_parquet(current().data / "driver_stats.parquet")
    recent = recent[recent.event_timestamp >= LAST_WEEK]

    def answer_for(store: FeatureStore) -> tuple[bool, dict[str, Any]]:
        """The learner's function applied to a run over the last week, and the run."""
        with _quiet():
            run = MonitoringService(store).compute_metrics(
                store.project,
                start_date=LAST_WEEK.date(),
                end_date=NOW.date() - timedelta(days=1),
                granularity="weekly",
            )
        with attempt("your function failed"):
            answer = complete(dict(run), store)
        if not isinstance(answer, bool | np.bool_):
            what = "None" if answer is None else f"a value of type {type(answer).__name__}"
            raise NotYet(f"your function returned {what}; return True or False.")
        return bool(answer), run

    with scratch() as course, tempfile.TemporaryDirectory(prefix="exercise-") as folder:
        # The service writes its tables to the repository's folder; these go with the exercise.
        config = course.config.model_copy(update={"repo_path": Path(folder)})
        whole, run = answer_for(FeatureStore(config=config))
        if not whole:
            raise NotYet(
                f"Feast measured the whole project, {run['computed_features']} features of"
                f" {run['computed_feature_views']} views, and your function returns False."
            )
        profile = course.get_feature_view("driver_daily_profile")
        profile.batch_source = FileSource(
            name="gone", path=f"{folder}/gone.parquet", timestamp_field="event_timestamp"
        )
        course.apply(profile)
        part, run = answer_for(FeatureStore(config=config))
    with staged(recent) as store:
        batch, run_of_batch = answer_for(store)
        source = store.get_feature_view("driver_hourly_stats").batch_source
        assert isinstance(source, FileSource)
        Path(source.path).unlink()
        nothing, run_of_none = answer_for(store)
    if nothing:
        raise NotYet(
            "a staged batch lost its file, Feast measured nothing, and your function returns True. The"
            " `status` makes the same mistake."
        )
    if part:
        raise NotYet(
            f"one of two views lost its file, Feast measured {run['computed_features']} of 5 features, and"
            " your function returns True. How many should there be?"
        )
    if not batch:
        raise NotYet(
            f"a staged batch has one view, Feast measured all {run_of_batch['computed_features']} of its"
            " features, and your function returns False. The store knows how many there should be."
        )
    return (
        f"With one of two files gone, Feast reports {run['status']!r} and {run['computed_features']}"
        f" features; with the only file of a batch gone, {run_of_none['status']!r} and"
        f" {run_of_none['computed_features']}. It never raises an error, so a scheduled job needs your"
        " function."
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hide the service's log, which has a traceback for each view that it can't read."""
    before = logging.root.manager.disable
    logging.disable()
    try:
        yield
    finally:
        logging.disable(before)


def _gets_past(spoil: Any, threshold: float) -> str:
    import pandas as pd
    from feast import FeatureStore

    from helpers.start import REFERENCE
    from lifecycle.features.validation import judge, stored_suite

    if not callable(spoil):
        raise NotYet(
            f"your answer is of type {type(spoil).__name__}; write a function that takes a batch and returns"
            " the spoiled one."
        )
    stats = pd.read_parquet(current().data / "driver_stats.parquet")
    week = stats[stats.event_timestamp >= LAST_WEEK].reset_index(drop=True)
    with attempt("your function failed"):
        batch = spoil(week.copy())
    if not isinstance(batch, pd.DataFrame) or not set(week) <= set(batch):
        raise NotYet("return the batch as a table with all its original columns.")
    good = stats[stats.event_timestamp.between(REFERENCE_BEGINS, REFERENCE_ENDS, "left")]
    noons = week.loc[week.event_timestamp.dt.hour == 12, ["driver_id", "event_timestamp"]].drop_duplicates()
    with staged(week) as store:
        truth = store.get_historical_features(noons, FEATURES).to_df().set_index(list(noons)).conv_rate
    suite = stored_suite(FeatureStore(repo_path=str(current().feature_repo)), REFERENCE)
    with attempt("Feast can't read the batch"), staged(pd.concat([good, batch[list(week)]])) as store:
        table = store.get_historical_features(noons, FEATURES).to_df()
        report = judge(suite, table, HOURLY)
        if not report.is_success:  # before the score: a column without a value has no histogram
            raise NotYet(f"the rules reject the batch. {_in_one_line(report)}.")
        scores = _drift(store)

    moved = [f"{name} {score:.2f}" for name, score in scores.items() if score > threshold]
    if moved:
        raise NotYet(
            f"no rule is broken, but the score holds the batch: {', '.join(moved)}. What can you change about"
            " a column without changing its histogram?"
        )
    served = table.set_index(list(noons)).conv_rate
    alike = served.corr(truth)
    if abs(alike) > 0.2:
        raise NotYet(
            "the batch is released, but not useless: the served and the true `conv_rate` have a correlation"
            f" of {alike:.2f}. "
            + (
                "Nothing is spoiled yet: each driver gets its own value. (When you assign a series, pandas"
                " aligns it by index, not by order.)"
                if (served - truth).abs().max() < 1e-9
                else "A model could still learn from that. Whose value does a driver get?"
            )
        )
    return (
        f"The batch is released: no rule is broken, and the largest drift score is"
        f" {max(scores.values()):.3f}. Yet a driver's `conv_rate` says nothing about the driver. Both gates"
        " look at one column at a time and don't know whose value it is. Only labels would show that, and"
        " they come later."
    )


def _drift(store: FeatureStore) -> dict[str, float]:
    """The drift score of each hourly feature, as in the notebook: the last week and the reference period."""
    import pandas as pd
    from feast.monitoring.monitoring_service import MonitoringService
    from scipy.spatial.distance import jensenshannon

    from lifecycle.features.validation import common_bins

    monitor = MonitoringService(store)
    histograms = []
    for start, end, window in ((REFERENCE_BEGINS, REFERENCE_ENDS, "biweekly"), (LAST_WEEK, NOW, "weekly")):
        monitor.compute_metrics(
            store.project,
            start_date=start.date(),
            end_date=end.date() - timedelta(days=1),
            granularity=window,
        )
        measured = pd.DataFrame(monitor.get_feature_metrics(store.project, granularity=window))
        histograms.append(measured.set_index("feature_name").histogram)
    before, after = histograms
    return {
        name: float(
            jensenshannon(
                *common_bins(before[name], after[name], whole_numbers=name == "avg_daily_trips"), base=2
            )
        )
        for name in HOURLY
    }


EXERCISES = [
    Exercise(
        "3.1",
        "Reject a frozen column",
        _refuses_frozen,
        more=(
            "A frozen column has no spread and a single value. Great Expectations has one rule on a column's"
            " standard deviation, and another on the number of its different values. `reference_rows`"
            " shows which limit leaves room for good weeks."
        ),
        worked="""
# Half the spread of a good period: far from 0, and far below the spread of good weeks.
frozen_rule = gxe.ExpectColumnStdevToBeBetween(
    column="acc_rate", min_value=round(float(reference_rows.acc_rate.std() / 2), 3)
)
""",
    ),
    Exercise(
        "3.2",
        "Write the alarm that the monitor lacks",
        _knows_incomplete,
        more=(
            "`store.list_feature_views()` returns the views with stored features, and Feast measures a view's"
            " `features`."
        ),
        worked="""
def all_measured(run, store):
    # The registry knows what should have been measured, so the function needs no number of its own.
    stored = sum(len(view.features) for view in store.list_feature_views())
    return run["computed_features"] == stored
""",
    ),
    Exercise(
        "3.3",
        "Get a useless batch past both gates",
        _gets_past,
        more=(
            "The rules look at single values and at the mean; the score looks at a histogram. None of them"
            " changes when values only swap places."
        ),
        worked="""
def spoiled(rows):
    # Each driver gets values of other drivers, as after a join on the wrong key.
    shuffled = np.random.default_rng(0).permutation(rows.conv_rate)
    return rows.assign(conv_rate=shuffled)
""",
    ),
]

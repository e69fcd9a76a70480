"""The exercises of notebook 08."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from exercises.core import Exercise, NotYet, attempt
from helpers.workspace import NOW

if TYPE_CHECKING:
    import pandas as pd
    from evidently import Report

    from lifecycle.training.comparison import Comparison

DRIFTED, CHANGED = (2, 3), (4, 5, 6)
"""The weeks of covariate drift and of concept drift."""
CHANCE, FALL = 0.03, 0.06
"""An AUC may fall by the first in any good week; from the second on, something was lost.

In between, a rule may say either.
"""
COPIES = 20
"""How often a row is repeated in a table that holds nothing new."""


def _steady(report: Any, predictions: pd.DataFrame, before: pd.DataFrame) -> str:
    from evidently import Report

    if not isinstance(report, Report):
        raise NotYet(
            f"your answer has the type {type(report).__name__}; assign a `Report`, and don't call its `run`:"
            " the check does that."
        )
    columns = [
        name for name in before if name in set(predictions) - {"driver_id", "event_timestamp", "score"}
    ]
    week = (predictions.event_timestamp - NOW).dt.days // 7 + 1
    seen = {number: rows[columns].astype(float) for number, rows in predictions.groupby(week)}
    reference = before[columns].astype(float)
    for number in DRIFTED:
        if not _results(report, seen[number], reference).drifted.any():
            raise NotYet(
                f"it finds no drift in week {number}, where the features moved a long way. Which values does"
                " your method return for good weeks, and which for this one? A p-value falls when two tables"
                " differ more, and a distance grows."
            )
    quiet = _quiet_week(report, seen, reference, 1)
    # Evidently takes most of a second for each report, so test for the likeliest mistake first.
    copied = _results(report, *(rows.loc[rows.index.repeat(COPIES)] for rows in (seen[1], reference)))
    if (changed := copied.method != quiet.method).any():
        raise NotYet(
            f"you leave the method to Evidently, which chooses by the number of rows: with {COPIES} times as"
            f" many it takes {copied.method[changed].iloc[0]} instead of"
            f" {quiet.method[changed].iloc[0]}, and one threshold can't fit both. Name a method."
        )
    if copied.drifted.any():
        raise NotYet(
            "it finds drift in weeks 2 and 3. But repeat each row of week 1 and of `before`"
            f" {COPIES} times, and it finds drift in {_first(copied[copied.drifted])}"
        )
    for number in CHANGED:
        _quiet_week(report, seen, reference, number)
    return (
        "It finds drift in weeks 2 and 3 and no other, and none when each row of week 1 and of `before` is"
        f" repeated {COPIES} times, which adds no information. A distance measures how far apart two tables"
        " are; a p-value counts each row as independent evidence."
    )


def _quiet_week(
    report: Any, seen: dict[int, pd.DataFrame], reference: pd.DataFrame, number: int
) -> pd.DataFrame:
    """The results for a week in which no feature drifted; finding drift there is a mistake."""
    results = _results(report, seen[number], reference)
    if results.drifted.any():
        raise NotYet(f"in week {number} it finds drift in {_first(results[results.drifted])}")
    return results


def _results(report: Report, seen: pd.DataFrame, reference: pd.DataFrame) -> pd.DataFrame:
    """A row for each column that a report tests: ``method``, ``value``, ``threshold``, and ``drifted``.

    The last is Evidently's own verdict.
    """
    import pandas as pd
    from evidently import Report

    with attempt("Evidently cannot run your report"):
        # Evidently's tests say which way its methods count.
        run = Report(report.metrics, include_tests=True).run(
            seen.reset_index(drop=True), reference.reset_index(drop=True)
        )
    found = run.dict()
    drifted = {test["metric_config"]["metric_id"]: test["status"] == "FAIL" for test in found["tests"]}
    rows = [
        entry["config"] | {"value": float(entry["value"]), "drifted": drifted[entry["id"]]}
        for entry in found["metrics"]
        if entry["config"]["type"].endswith("ValueDrift")
    ]
    if not rows:
        raise NotYet(
            "your report tests no column for drift; `DataDriftPreset` tests all columns, `ValueDrift` one."
        )
    return pd.DataFrame(rows)[["column", "method", "value", "threshold", "drifted"]]


def _first(drifted: pd.DataFrame) -> str:
    """The first of some columns in which drift was found, and why that may be unfounded."""
    first = drifted.iloc[0]
    figures = f"{first.column} ({first.method}: {first.value:.2g}, threshold {first.threshold:g}). "
    if first.value < first.threshold:
        return (
            figures
            + "That is a p-value: it falls with the number of rows, whether or not they add information, and"
            " no threshold fits for long. Use a distance."
        )
    return (
        figures
        + "That is a distance, and good weeks reach your threshold. Look at its values in all six weeks, and"
        " leave room on both sides: some methods use bins, and more rows make more bins."
    )


def _worth_it(rule: Any, weekly: pd.DataFrame) -> str:
    if not callable(rule):
        raise NotYet(
            f"your answer has the type {type(rule).__name__}; write a function that takes one week's row."
        )

    def says(week: pd.Series, what: str, **other: float) -> bool:
        row = week.copy()
        for name, value in other.items():
            row[name] = value
        with attempt(f"your function failed for {what}"):
            answer = rule(row)
            return _yes_or_no(answer, what)

    real = {number: says(week, f"week {number}") for number, week in weekly.iterrows()}
    quiet, usual = weekly.loc[1].copy(), float(weekly.auc_before.iloc[0])
    quiet[["stored_drift", "p_value", "score_distance"]] = 0.02, 0.5, 0.05
    if says(quiet, "a small dip", auc=usual - 0.015):
        low, high = weekly.auc[[1, 2, 3]].min(), weekly.auc[[1, 2, 3]].max()
        raise NotYet(
            "it retrains when the AUC is 0.015 lower than before and nothing else moved. In weeks 1 to 3,"
            f" when the model was as good as ever, the AUC was between {low:.3f} and {high:.3f}: that much"
            " is chance."
        )
    fall = usual - weekly.auc
    if needless := [number for number in (1, *DRIFTED) if real[number] and fall[number] < CHANCE]:
        week = weekly.loc[needless[0]]
        raise NotYet(
            f"it retrains in week {needless[0]}: the features moved by {week.stored_drift:.2f}, and the AUC"
            f" is {week.auc:.3f} after {usual:.3f}. How much is there to win back, and how far does chance"
            " move the AUC of a week?"
        )
    if missed := [number for number in CHANGED if not real[number] and fall[number] > FALL]:
        week = weekly.loc[missed[0]]
        raise NotYet(
            f"it does nothing in week {missed[0]}: the AUC is {week.auc:.3f} after {usual:.3f}, and the"
            f" features moved by {week.stored_drift:.2f}. See *Side by side*: which instrument raised an"
            " alarm in this week?"
        )
    if says(weekly.loc[4], "a week without labels", auc=float("nan")):
        raise NotYet(
            "it retrains in a week whose labels haven't arrived yet: `auc` is NaN there. A comparison such as"
            " `>=` with NaN is False, so `not (...)` of it is True. There is nothing to train on either."
        )
    if says(quiet, "a week whose AUC rose", auc=usual + 0.1):
        raise NotYet(f"it retrains in a week whose AUC rose from {usual:.3f} to {usual + 0.1:.3f}.")
    if not says(weekly.loc[2], "a fall beside a drift", auc=usual - 0.1):
        raise NotYet(
            "it does nothing in a week in which the features drifted *and* the AUC fell by 0.1. A change of"
            " meaning can come with a drift; what counts is the fall."
        )
    for now, then, needed in ((0.85, 0.95, True), (0.62, 0.63, False)):
        if says(quiet, f"a model of AUC {then}", auc=now, auc_before=then) != needed:
            raise NotYet(
                f"another model had an AUC of {then} before, and has {now} in a quiet week: your function"
                f" returns {not needed}. A number that is low for one task is high for another; compare with"
                " the model's own past."
            )
    starts = [number for number in real if real[number]]
    false = [number for number in starts if number not in CHANGED]
    return (
        f"It retrains in {_weeks(starts)}, whose AUC is {fall[starts].min():.2f} to"
        f" {fall[starts].max():.2f} below the AUC before. "
        + (f"In {_weeks(false)} that happened by chance, and the gate must notice. " if false else "")
        + "It waits while labels are missing, and drift alone doesn't start it."
    )


def _weeks(numbers: list[int]) -> str:
    *first, last = map(str, numbers)
    return f"weeks {', '.join(first)} and {last}" if first else f"week {last}"


def _yes_or_no(answer: Any, what: str) -> bool:
    import numpy as np

    if not isinstance(answer, bool | np.bool_):
        raise NotYet(f"for {what} your function returns {answer!r}; return True or False in every case.")
    return bool(answer)


LUCK = 0.02
"""Standard deviation of the noise that is added to a score."""
MOST_ROWS = 4000
COLUMNS = ["driver_id", "label", "champion", "challenger"]


def _luck_as_proof(more_evidence: Any, everything: pd.DataFrame) -> str:
    import pandas as pd

    from lifecycle.training.comparison import compare

    if not callable(more_evidence):
        raise NotYet(
            f"your answer has the type {type(more_evidence).__name__}; write a function that takes the gate's"
            " rows."
        )
    rows, honest = _lucky(everything)
    with attempt("`more_evidence` failed"):
        table = more_evidence(rows.copy())
    if not isinstance(table, pd.DataFrame):
        raise NotYet(f"your function returns a value of type {type(table).__name__}; return a table.")
    times = _judge_copies(table, rows)
    with attempt("`compare` rejects your table"):
        found = compare(table.label, table.champion, table.challenger, table[["driver_id"]])
    drivers, claimed = rows.driver_id.nunique(), table.driver_id.nunique()
    was, now = (f"{each.low:+.4f} to {each.high:+.4f}" for each in (honest, found))
    if not found.better:
        raise NotYet(
            f"the interval was {was} and is now {now}: the gate stays closed."
            f" {_why_closed(times, claimed, drivers)}"
        )
    return (
        f"A gain of {honest.challenger - honest.champion:+.4f}, all of it luck, had an interval of {was} from"
        f" {drivers} drivers; with {claimed:,} supposed drivers it is {now}, and the gate opens. If you ask a"
        " server every hour, you get such a table: one outcome joins 24 answers. It does no harm as long as"
        " the gate draws drivers and not rows."
    )


def _lucky(everything: pd.DataFrame) -> tuple[pd.DataFrame, Comparison]:
    """The gate's rows of the false alarm, and the comparison with a challenger that is ahead by luck alone.

    The challenger is the champion plus noise, and the gate keeps it out.
    """
    import numpy as np

    from lifecycle.models.model import split
    from lifecycle.training.comparison import auc, compare

    _, rows = split(everything[everything.week.isin(DRIFTED)])
    rows = rows.rename(columns={"score": "champion"})[["driver_id", "label", "champion"]].reset_index(
        drop=True
    )
    label, champion = rows.label.to_numpy(), rows.champion.to_numpy()
    challengers = [
        champion + LUCK * np.random.default_rng(dice).normal(size=len(rows)) for dice in range(400)
    ]
    gains = np.array([auc(label, scores) - auc(label, champion) for scores in challengers])
    # Near the end of what luck gives, where the interval just holds zero: a few copies then change the
    # verdict.
    for number in np.argsort(np.where(gains < 1.5 * gains.std(), -gains, np.inf)):
        found = compare(label, champion, challengers[number], rows[["driver_id"]])
        if not found.better:
            break
    return rows.assign(challenger=challengers[number]), found


def _judge_copies(table: pd.DataFrame, rows: pd.DataFrame) -> int:
    """How often ``table`` has each of the rows; whatever ``driver_id`` says."""
    if missing := [name for name in COLUMNS if name not in table]:
        raise NotYet(f"your table has no column {', '.join(missing)}; it needs those of `rows`.")
    if len(table) > MOST_ROWS:
        raise NotYet(f"your table has {len(table):,} rows; the gate opens with fewer than {MOST_ROWS:,}.")
    if table.driver_id.isna().any():
        raise NotYet(f"{table.driver_id.isna().sum()} of its rows have no driver; every row needs one.")
    evidence = COLUMNS[1:]
    given, taken = rows.value_counts(evidence), table.value_counts(evidence)
    if invented := len(taken.index.difference(given.index)):
        raise NotYet(
            f"{invented} combinations of label and scores are in none of the given rows. Don't invent any;"
            " change only `driver_id`."
        )
    often = taken.reindex(given.index, fill_value=0) / given
    if often.nunique() > 1:
        raise NotYet(
            f"some rows are in your table {often.min():g} times and others {often.max():g} times. By"
            " choosing rows by their outcome, you can show anything; repeat every row equally often."
        )
    return int(often.iloc[0])


def _why_closed(times: int, claimed: int, drivers: int) -> str:
    if times > 1 and claimed <= drivers:
        return (
            "Each copy belongs to the driver of its original, and is drawn or left out with that driver. So"
            " what does `compare` count as independent evidence?"
        )
    if times == 1:
        return (
            f"It counts {claimed} drivers in your table, with one row each. How can there be more drivers"
            " without any new answers?"
        )
    return (
        f"It counts {claimed:,} drivers in your table. That's the right direction; the width of an interval"
        " falls with the square root of their number."
    )


EXERCISES = [
    Exercise(
        "8.1",
        "Give Evidently a distance",
        _steady,
        more=(
            "`DataDriftPreset(method=..., threshold=...)` sets both for all columns. Choose a distance, run"
            " such a report on the weeks as in the cell above, look at the values of weeks 1 and 2, and set"
            " the threshold well between them."
        ),
        worked="""
# A normed Wasserstein distance counts in standard deviations of the reference: bins and the number
# of rows don't matter.
# Good weeks stay near 0.1, and in weeks 2 and 3 two features moved by half a deviation and more.
steady_report = Report([DataDriftPreset(method="wasserstein", threshold=0.3)])
""",
    ),
    Exercise(
        "8.2",
        "Write the rule",
        _worth_it,
        more=(
            "Retraining can win back what was lost, and nothing more. Two of the five figures say how much"
            " that is; the other three only say that someone should look. How far apart are the two in"
            " weeks 1 to 3, and in weeks 4 to 6? And what does your comparison return when one of them is"
            " NaN?"
        ),
        worked="""
def worth_retraining(week):
    # Relative to the model's own past, and by more than chance moves a week. `<` with NaN is False:
    # without labels no loss is known, and there is nothing to train on.
    return bool(week["auc"] < week["auc_before"] - 0.05)
""",
    ),
    Exercise(
        "8.3",
        "Turn luck into proof",
        _luck_as_proof,
        more=(
            "`compare` draws values of `driver_id`, each with all its rows, and counts them as independent."
            " Their number decides how wide the interval is. `pd.concat` of a list of the same table returns"
            " copies, and nothing checks `driver_id`."
        ),
        worked="""
def more_evidence(rows):
    # Repeat each answer five times, as if from five drivers: the AUCs stay the same, and the interval
    # shrinks to less than half its width.
    copies = pd.concat([rows] * 5, ignore_index=True)
    return copies.assign(driver_id=range(len(copies)))
""",
    ),
]

"""The exercises of notebook 02."""

from __future__ import annotations

import tempfile
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from exercises.core import Exercise, NotYet, attempt, scratch, staged
from helpers.workspace import current

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd


def _keeps_expired(ttl: Any) -> str:
    import pandas as pd

    from helpers.data import NOW

    if not isinstance(ttl, timedelta):
        raise NotYet(
            f"that is of the type {type(ttl).__name__}; a time to live is a `timedelta`, as in `by_hand`"
            " above."
        )
    stats = pd.read_parquet(current().data / "driver_stats.parquet", columns=["driver_id", "event_timestamp"])
    last = stats.groupby("driver_id").event_timestamp.max()
    oldest = NOW - last.min()
    times = pd.DataFrame({"event_timestamp": [NOW, NOW + oldest]})
    questions = pd.DataFrame({"driver_id": last.index}).merge(times, how="cross")
    with scratch() as store:
        view = store.get_feature_view("driver_hourly_stats")
        with attempt(f"Feast's DuckDB store cannot use {ttl} (whole days are fine)"):
            view.ttl = ttl
            store.apply(view)
            found = store.get_historical_features(questions, ["driver_hourly_stats:conv_rate"]).to_df()
    kept = found.pivot(index="driver_id", columns="event_timestamp", values="conv_rate").notna()
    today, much_later = kept[NOW], kept[NOW + oldest]
    days = oldest.total_seconds() / 86400
    if not today.all():
        short = str(ttl).removesuffix(", 0:00:00").removesuffix(" 00:00:00")
        raise NotYet(
            f"with {short} Feast still gives {(~today).sum()} of {len(today)} drivers a null; the oldest last"
            f" value is {oldest} old. "
            + ("That is shorter than today's 7 days." if ttl < timedelta(days=7) else "Compare the two.")
        )
    if much_later[last.idxmin()]:
        raise NotYet(
            f"every driver gets a value, but so would one who left {2 * days:.0f} days ago. "
            + ("To Feast, zero means no limit. " if not ttl else "")
            + "Find the age in the file, and stay near it."
        )
    return (
        f"All {len(today)} drivers get a value, and the model is told that one of {days:.0f} days ago is as"
        " good as one of today."
    )


DAILY = "driver_daily_means:mean_conv_rate"


def _never_ahead(ask: Any) -> str:
    import numpy as np
    import pandas as pd
    from feast import FeatureView, Field, FileSource
    from feast.types import Float64
    from sklearn.metrics import roc_auc_score

    if not callable(ask):
        raise NotYet(
            f"that is of the type {type(ask).__name__}; write a function that takes a store and questions."
        )
    stats = pd.read_parquet(current().data / "driver_stats.parquet")
    labels = pd.read_parquet(current().data / "driver_labels.parquet")
    days = stats.event_timestamp.dt.floor("D")
    means = stats.groupby(["driver_id", days]).conv_rate.mean().rename("mean_conv_rate")
    # Later in the day than any label.
    evening = labels.tail(100).event_timestamp.dt.floor("D") + timedelta(hours=22)
    questions = pd.concat([labels, labels.tail(100).assign(event_timestamp=evening)], ignore_index=True)
    questions = questions[["driver_id", "event_timestamp"]].assign(number=range(len(questions)))
    with scratch() as store, tempfile.TemporaryDirectory(prefix="exercise-") as folder:
        path = f"{folder}/daily_means.parquet"
        means.reset_index().to_parquet(path)
        view = FeatureView(
            name="driver_daily_means",
            entities=[store.get_entity("driver")],
            ttl=timedelta(days=7),
            schema=[Field(name="mean_conv_rate", dtype=Float64)],
            source=FileSource(name="driver_daily_means", path=path, timestamp_field="event_timestamp"),
        )
        store.apply(view)
        with attempt("your function failed"):
            answer = ask(store, questions.copy())
    found = _by_number(answer, len(questions))

    def mean_of(later: int) -> np.ndarray:
        day = questions.event_timestamp.dt.floor("D") + timedelta(days=later)
        return means.reindex(pd.MultiIndex.from_arrays([questions.driver_id, day])).to_numpy()

    # The first and the last day of a driver, and drivers without rows, cannot tell the days apart.
    clear = ~np.isnan([mean_of(later) for later in (-2, -1, 0)]).any(axis=0)
    ahead = clear & (np.isclose(found, mean_of(0)) | np.isclose(found, mean_of(1)))
    stale = clear & np.isclose(found, mean_of(-2))
    right = clear & np.isclose(found, mean_of(-1))
    if ahead.any():
        raise NotYet(_why_ahead(answer, int(ahead.sum()), int(clear.sum())))
    if stale.any():
        raise NotYet(
            f"nothing looks ahead, but {stale.sum()} of {clear.sum()} questions get the mean of the day"
            " before yesterday. That of yesterday was complete at midnight."
        )
    if not right[clear].all():
        raise NotYet(
            f"{(clear & ~right).sum()} of {clear.sum()} answers are not the mean of the day before the"
            " question, or are null. Which row does Feast take?"
        )
    asked = clear & (questions.number < len(labels)).to_numpy()
    truth = labels.label.reindex(questions.number)[asked]
    leaky, honest = (roc_auc_score(truth, mean_of(later)[asked]) for later in (0, -1))
    return (
        f"All {clear.sum():,} questions whose driver reported on these days get the mean of the day before."
        f" As a score of its own it has an AUC of {honest:.2f}; asked at the label's time it would show"
        f" {leaky:.2f}. A point-in-time join is as right as the time that is stamped on a row."
    )


def _by_number(answer: Any, questions: int) -> np.ndarray:
    """The features that an answer holds, in the order of the questions."""
    import pandas as pd

    if hasattr(answer, "to_df"):
        raise NotYet("that is a job: its rows are joined when `to_df()` is called.")
    if not isinstance(answer, pd.DataFrame):
        raise NotYet(
            f"your function returns something of the type {type(answer).__name__}; return the table that"
            " Feast gives."
        )
    answer = answer.reset_index() if answer.index.name == "number" else answer
    why = {
        "number": "Feast passes the columns of the entity table through.",
        "mean_conv_rate": "Feast adds one for each feature that is asked for.",
    }
    for column in why:
        if column not in answer:
            raise NotYet(f"the table that your function returns has no column `{column}`; {why[column]}")
    if sorted(answer.number) != list(range(questions)):
        raise NotYet(
            f"{questions} questions were asked, and {len(answer)} rows came back; each should come back once."
        )
    return answer.set_index("number").mean_conv_rate.sort_index().to_numpy(float)


def _why_ahead(answer: pd.DataFrame, ahead: int, clear: int) -> str:
    """What to say when so many of so many answers hold hours after their question."""
    if ahead < clear:
        return (
            f"{ahead} of {clear} questions still get the mean of their own day. Take one at 20:00: for which"
            " time do you ask, and which stamp is the last that is not later?"
        )
    asked = answer.get("event_timestamp")
    if asked is not None and (asked == asked.dt.floor("D")).all():
        return (
            "you ask at midnight, and a day's row is stamped with that very moment: *not later than*"
            " includes it."
        )
    return (
        f"each of {clear} questions gets the mean of its own day, or of a later one. The row of a day is"
        " stamped 00:00, so for any hour of that day it is the last that is *not later*, and it holds the"
        " hours up to the next midnight."
    )


def _looks_ahead(row: Any) -> str:
    import pandas as pd

    from helpers.data import FIRST_DRIVER

    moment = pd.Timestamp("2025-02-10 10:25", tz="UTC")
    stats = pd.read_parquet(current().data / "driver_stats.parquet")
    driver = stats[stats.driver_id == FIRST_DRIVER]
    row = _one_row(row, driver)

    def asked(rows: pd.DataFrame) -> list[float]:
        """As of ten twenty-five: by event time alone, and as known then."""
        question = pd.DataFrame({"driver_id": [FIRST_DRIVER], "event_timestamp": [moment]})
        features = ["driver_hourly_stats:conv_rate"]
        with staged(rows) as store:
            jobs = [
                store.get_historical_features(question, features, filter_by_created_timestamp=then)
                for then in (False, True)
            ]
            return [float(job.to_df().conv_rate.iloc[0]) for job in jobs]

    before, known_before = asked(driver)
    with attempt("the file does not take this row"):
        frame = pd.concat([driver, row], ignore_index=True).astype(driver.dtypes)
    trained, known = asked(frame)
    given = float(row.conv_rate.iloc[0])
    if trained != given or given == before:
        raise NotYet(_why_not_taken(row.iloc[0], driver, moment, before))
    if known != known_before:
        raise NotYet(
            f"asked as of 10:25, both retrievals take your row, {given}: it was written by then. Look at its"
            " `created`."
        )
    return (
        f"A training set as of 10:25 gets {given}; what was known then is {known}. "
        "By event time alone a late row looks ahead."
    )


def _one_row(row: Any, like: pd.DataFrame) -> pd.DataFrame:
    """The learner's row as a table of one row with the columns of ``like``."""
    import pandas as pd

    if isinstance(row, dict | pd.Series):  # of values, or of columns with a value each
        columns = {
            name: value if pd.api.types.is_list_like(value) else [value] for name, value in row.items()
        }
        with attempt("it does not make a table"):
            row = pd.DataFrame(columns)
    if not isinstance(row, pd.DataFrame):
        raise NotYet(
            f"that is of the type {type(row).__name__}; write a table of one row with the columns of `stats`."
        )
    if len(row) != 1:
        raise NotYet(f"that table has {len(row)} rows; one is asked for.")
    if missing := [name for name in like if name not in row]:
        raise NotYet(f"the row has no {', '.join(missing)}; it needs all columns of `stats`.")
    if row.conv_rate.isna().any():
        raise NotYet("its `conv_rate` is missing; give the row a number, or nobody can tell which was taken.")
    for name in ("event_timestamp", "created"):
        if not pd.api.types.is_datetime64_any_dtype(row[name]):
            raise NotYet(
                f"`{name}` is a column of the type {row[name].dtype}; write a time like `hour` above."
            )
        if not isinstance(row[name].dtype, pd.DatetimeTZDtype):
            raise NotYet(f"`{name}` has no time zone; write it like `hour` above.")
    return row[list(like)]


def _why_not_taken(row: pd.Series, driver: pd.DataFrame, moment: pd.Timestamp, before: float) -> str:
    """What to say when the retrieval by event time does not take the learner's row."""
    latest = driver[driver.event_timestamp <= moment].sort_values(["event_timestamp", "created"]).iloc[-1]
    if row.driver_id != latest.driver_id:
        return f"the row is of driver {row.driver_id}, and the question is about {latest.driver_id}."
    if row.conv_rate == before:
        return (
            f"your `conv_rate` is that of the file, {before}; give the row another one, or nobody can tell"
            " which was taken."
        )
    if row.event_timestamp > moment:
        return (
            f"its event time, {row.event_timestamp:%H:%M} on {row.event_timestamp:%d %B}, is later than the"
            " question, so nobody takes it: part 1 of the rule."
        )
    if row.event_timestamp < latest.event_timestamp:
        return (
            f"asked as of 10:25, Feast still takes the row of {latest.event_timestamp:%H:%M}: its event time"
            " is later than yours. See part 3 of the rule."
        )
    if row.event_timestamp == latest.event_timestamp and row.created <= latest.created:
        return (
            "the file has a row of the same hour that was written after yours, and wins: part 4 of the rule."
        )
    return (
        f"asked as of 10:25, Feast does not give its `conv_rate`, {row.conv_rate}. Compare it with the four"
        " parts of the rule."
    )


EXERCISES = [
    Exercise(
        "2.1",
        "Keep an expired value",
        _keeps_expired,
        more="`NOW - last_hourly.min()` is the age of the oldest last value at the course's clock.",
        worked="""
# The longest silence, rounded up to whole days.
longer_ttl = timedelta(days=(NOW - last_hourly.min()).days + 1)
""",
    ),
    Exercise(
        "2.2",
        "Mend a leak that the view brings along",
        _never_ahead,
        more=(
            "The view cannot be changed; the entity table can. At which time do you have to ask, so that the"
            " last stamp before it is that of a day which has ended by the question's own time? Write that"
            " time into a copy of `questions`, and retrieve with it."
        ),
        worked="""
def without_looking_ahead(store, questions):
    # Stamped with its start, a day is complete a day later. So whatever is stamped a day before the
    # question is complete at the question. (Better still: its owner stamps the row with the end.)
    a_day_before = questions.event_timestamp - timedelta(days=1)
    return historical_features(
        store,
        questions.assign(event_timestamp=a_day_before),
        ["driver_daily_means:mean_conv_rate"],
    )
""",
    ),
    Exercise(
        "2.3",
        "Write a row that looks ahead",
        _looks_ahead,
        more=(
            "Two times are yours to choose. By the first the row has to be the latest at 10:25, and by the"
            " second nobody had it at 10:25. `stats[...].assign(...)` of the row of ten o'clock is a short"
            " way to write it."
        ),
        worked="""
# A correction of ten o'clock, written two days later.
ten = stats[(stats.driver_id == 1001) & (stats.event_timestamp == hour)]
late_row = ten.tail(1).assign(conv_rate=0.99, created=hour + timedelta(days=2))
""",
    ),
]

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
            f"your answer is of type {type(ttl).__name__}; a time to live is a `timedelta`, as in `by_hand`"
            " above."
        )
    stats = pd.read_parquet(current().data / "driver_stats.parquet", columns=["driver_id", "event_timestamp"])
    last = stats.groupby("driver_id").event_timestamp.max()
    oldest = NOW - last.min()
    times = pd.DataFrame({"event_timestamp": [NOW, NOW + oldest]})
    questions = pd.DataFrame({"driver_id": last.index}).merge(times, how="cross")
    with scratch() as store:
        view = store.get_feature_view("driver_hourly_stats")
        with attempt(f"Feast's DuckDB store can't use {ttl} (whole days work)"):
            view.ttl = ttl
            store.apply(view)
            found = store.get_historical_features(questions, ["driver_hourly_stats:conv_rate"]).to_df()
    kept = found.pivot(index="driver_id", columns="event_timestamp", values="conv_rate").notna()
    today, much_later = kept[NOW], kept[NOW + oldest]
    days = oldest.total_seconds() / 86400
    if not today.all():
        short = str(ttl).removesuffix(", 0:00:00").removesuffix(" 00:00:00")
        raise NotYet(
            f"with {short}, Feast still returns null for {(~today).sum()} of {len(today)} drivers; the oldest"
            f" last value is {oldest} old. "
            + ("Yours is shorter than the current 7 days." if ttl < timedelta(days=7) else "Compare the two.")
        )
    if much_later[last.idxmin()]:
        raise NotYet(
            f"every driver gets a value, but so would a driver who left {2 * days:.0f} days ago. "
            + ("To Feast, zero means no limit. " if not ttl else "")
            + "Find the age of the oldest last row in `stats`, and stay close to it."
        )
    return (
        f"All {len(today)} drivers get a value. The price: the model can't tell a value that is"
        f" {days:.0f} days old from one of today."
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
            f"your answer is of type {type(ask).__name__}; write a function that takes a store and questions."
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
            f"nothing looks ahead, but {stale.sum()} of {clear.sum()} questions get the mean of two days"
            " before. The mean of the day before was complete at midnight."
        )
    if not right[clear].all():
        raise NotYet(
            f"{(clear & ~right).sum()} of {clear.sum()} answers are null, or aren't the mean of the day"
            " before the question. Which row does Feast return?"
        )
    asked = clear & (questions.number < len(labels)).to_numpy()
    truth = labels.label.reindex(questions.number)[asked]
    leaky, honest = (roc_auc_score(truth, mean_of(later)[asked]) for later in (0, -1))
    return (
        f"All {clear.sum():,} questions whose driver reported on these days get the mean of the day before."
        f" Used alone as a score, it has an AUC of {honest:.2f}; retrieved at the label's time, it would"
        f" have {leaky:.2f}. A point-in-time join is only as good as the timestamps of the rows."
    )


def _by_number(answer: Any, questions: int) -> np.ndarray:
    """The features that an answer holds, in the order of the questions."""
    import pandas as pd

    if hasattr(answer, "to_df"):
        raise NotYet("your function returns a job, which joins the rows when you call `to_df()`.")
    if not isinstance(answer, pd.DataFrame):
        raise NotYet(
            f"your function returns a value of type {type(answer).__name__}; return the table that Feast"
            " returns."
        )
    answer = answer.reset_index() if answer.index.name == "number" else answer
    why = {
        "number": "Feast passes the columns of the entity table through.",
        "mean_conv_rate": "Feast adds one for each feature that you ask for.",
    }
    for column in why:
        if column not in answer:
            raise NotYet(f"the table that your function returns has no column `{column}`. {why[column]}")
    if sorted(answer.number) != list(range(questions)):
        raise NotYet(
            f"there were {questions} questions, and {len(answer)} rows came back; each question should come"
            " back once."
        )
    return answer.set_index("number").mean_conv_rate.sort_index().to_numpy(float)


def _why_ahead(answer: pd.DataFrame, ahead: int, clear: int) -> str:
    """What to say when so many of so many answers hold hours after their question."""
    if ahead < clear:
        return (
            f"{ahead} of {clear} questions still get the mean of their own day. Take one at 20:00: which time"
            " do you ask for, and what is the last timestamp that isn't later?"
        )
    asked = answer.get("event_timestamp")
    if asked is not None and (asked == asked.dt.floor("D")).all():
        return (
            "you ask for midnight, and the row of a day has exactly that timestamp: *not later than*"
            " includes it."
        )
    return (
        f"each of {clear} questions gets the mean of its own day, or of a later one. The row of a day has"
        " the timestamp 00:00, so for any hour of that day it is the last row that is *not later*. It"
        " averages the hours up to the next midnight."
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
    with attempt("the row doesn't fit into the file"):
        frame = pd.concat([driver, row], ignore_index=True).astype(driver.dtypes)
    trained, known = asked(frame)
    given = float(row.conv_rate.iloc[0])
    if trained != given or given == before:
        raise NotYet(_why_not_taken(row.iloc[0], driver, moment, before))
    if known != known_before:
        raise NotYet(
            f"as of 10:25, both retrievals return your row, {given}: it was written by then. Look at its"
            " `created`."
        )
    return (
        f"A training set as of 10:25 gets {given}, although {known} was known then. "
        "By event time alone, a late row looks ahead."
    )


def _one_row(row: Any, like: pd.DataFrame) -> pd.DataFrame:
    """The learner's row as a table of one row with the columns of ``like``."""
    import pandas as pd

    if isinstance(row, dict | pd.Series):  # of values, or of columns with a value each
        columns = {
            name: value if pd.api.types.is_list_like(value) else [value] for name, value in row.items()
        }
        with attempt("your answer doesn't make a table"):
            row = pd.DataFrame(columns)
    if not isinstance(row, pd.DataFrame):
        raise NotYet(
            f"your answer is of type {type(row).__name__}; write a table of one row with the columns of"
            " `stats`."
        )
    if len(row) != 1:
        raise NotYet(f"your table has {len(row)} rows; write one.")
    if missing := [name for name in like if name not in row]:
        raise NotYet(f"the row lacks {', '.join(missing)}; it needs all columns of `stats`.")
    if row.conv_rate.isna().any():
        raise NotYet("its `conv_rate` is missing; give the row a number, to show which row Feast returned.")
    for name in ("event_timestamp", "created"):
        if not pd.api.types.is_datetime64_any_dtype(row[name]):
            raise NotYet(f"the column `{name}` is of type {row[name].dtype}; write a time like `hour` above.")
        if not isinstance(row[name].dtype, pd.DatetimeTZDtype):
            raise NotYet(f"`{name}` has no time zone; write it like `hour` above.")
    return row[list(like)]


def _why_not_taken(row: pd.Series, driver: pd.DataFrame, moment: pd.Timestamp, before: float) -> str:
    """What to say when the retrieval by event time doesn't return the learner's row."""
    latest = driver[driver.event_timestamp <= moment].sort_values(["event_timestamp", "created"]).iloc[-1]
    if row.driver_id != latest.driver_id:
        return f"the row is about driver {row.driver_id}, and the question about {latest.driver_id}."
    if row.conv_rate == before:
        return (
            f"your `conv_rate` equals the one in the file, {before}; choose another, to show which row Feast"
            " returned."
        )
    if row.event_timestamp > moment:
        return (
            f"its event time, {row.event_timestamp:%H:%M} on {row.event_timestamp:%d %B}, is later than the"
            " question, so Feast ignores it: part 1 of the rule."
        )
    if row.event_timestamp < latest.event_timestamp:
        return (
            f"as of 10:25, Feast still returns the row of {latest.event_timestamp:%H:%M}: its event time is"
            " later than yours. See part 3 of the rule."
        )
    if row.event_timestamp == latest.event_timestamp and row.created <= latest.created:
        return "the file has a row of the same hour that was written after yours: part 4 of the rule."
    return (
        f"as of 10:25, Feast doesn't return its `conv_rate`, {row.conv_rate}. Compare the row with the four"
        " parts of the rule."
    )


EXERCISES = [
    Exercise(
        "2.1",
        "Keep an expired value",
        _keeps_expired,
        more="`NOW - last_hourly.min()` is the age of the oldest last row at the course's clock.",
        worked="""
# The age of the oldest last row, rounded up to whole days.
longer_ttl = timedelta(days=(NOW - last_hourly.min()).days + 1)
""",
    ),
    Exercise(
        "2.2",
        "Fix a leak built into a view",
        _never_ahead,
        more=(
            "You can't change the view, but you can change the entity table. For which time must you ask, so"
            " that the last timestamp before it belongs to a day that has ended by the question's own time?"
            " Write that time into a copy of `questions`, and retrieve with it."
        ),
        worked="""
def without_looking_ahead(store, questions):
    # A row is stamped with the start of its day, and complete a day later. So a row that is stamped at least
    # a day before the question is complete by then. (Better: the owner stamps it with the end of its day.)
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
            "Choose two times. `event_timestamp` makes the row the latest one at 10:25, and `created` says"
            " that nobody had it at 10:25. In short, `assign` both to the row of 10:00 in `stats`."
        ),
        worked="""
# A correction of the row of 10:00, written two days later.
ten = stats[(stats.driver_id == 1001) & (stats.event_timestamp == hour)]
late_row = ten.tail(1).assign(conv_rate=0.99, created=hour + timedelta(days=2))
""",
    ),
]

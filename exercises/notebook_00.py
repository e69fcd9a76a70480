"""The exercises of notebook 00."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from exercises.core import Exercise, NotYet, attempt, scratch
from helpers.workspace import current

if TYPE_CHECKING:
    import pandas as pd

KEY = ["driver_id", "event_timestamp"]


def _read(table: str) -> pd.DataFrame:
    import pandas as pd

    return pd.read_parquet(current().data / f"{table}.parquet")


def _a_function(answer: Any, takes: str) -> None:
    if not callable(answer):
        raise NotYet(
            f"that is of the type {type(answer).__name__}; the check needs a function, and gives it {takes}."
        )


def _misread(misread: Any) -> str:
    import pandas as pd

    _a_function(misread, "the labels' times")
    labels = _read("driver_labels")
    rates = _read("driver_stats").sort_values("event_timestamp")[[*KEY, "conv_rate"]]
    with attempt("`misread` fails on the labels' times"):
        times = misread(labels.event_timestamp.dt.tz_localize(None))
    with attempt("what `misread` returns cannot be read as times"):
        times = pd.Series(pd.DatetimeIndex(times).as_unit("us"))
    if len(times) != len(labels):
        raise NotYet(f"{len(labels)} times went in, and {len(times)} came out.")
    if times.dt.tz is None:
        raise NotYet("the times that come out have no zone yet; look at `dt.tz_localize` in pandas' guide.")

    def correlation(asked: pd.Series) -> float:
        questions = labels.assign(event_timestamp=asked.dt.tz_convert("UTC")).sort_values("event_timestamp")
        known = pd.merge_asof(questions, rates, on="event_timestamp", by="driver_id").dropna()
        return known.conv_rate.corr(known.label)

    shift = (times - labels.event_timestamp).median() / pd.Timedelta(hours=1)
    right, wrong = correlation(labels.event_timestamp), correlation(times)
    if shift == 0:
        raise NotYet(
            f"all times still mean what they meant in UTC, and conv_rate's correlation stays at {right:.2f}."
            " The office needs another clock."
        )
    moves = f"conv_rate's correlation with the label goes from {right:.2f} to {wrong:.2f}"
    if shift < 0:
        raise NotYet(
            f"read there, every question was asked {-shift:g} hour{'' if shift == -1 else 's'} before its"
            f" real time, so it finds older rates, and {moves}. Which rates would look better, and when were"
            " they measured?"
        )
    if wrong < right + 0.05:
        raise NotYet(
            f"the times move by {shift:g} hours and {moves}; that is hardly better. Look at the table"
            " `moves`."
        )
    return (
        f"Each question is read {shift:g} hours late and finds rates from after it, so {moves}: a leak,"
        " without any error."
    )


def _corrected(as_corrected: Any) -> str:
    import pandas as pd

    _a_function(as_corrected, "the hourly rows")
    stats = _read("driver_stats")
    with attempt("`as_corrected` fails on the hourly rows in another order"):
        found = as_corrected(stats.sample(frac=1, random_state=0))
    if not isinstance(found, pd.DataFrame):
        raise NotYet(
            f"it returns the type {type(found).__name__}; the check needs a table (a DataFrame) of hourly"
            " rows."
        )
    if not set(KEY) <= set(found):
        found = found.reset_index()
    lost = {*KEY, "conv_rate"} - set(found)
    if lost:
        raise NotYet(f"the table that it returns has no column {', '.join(sorted(lost))}.")
    twice = int(found.duplicated(KEY).sum())
    if twice:
        raise NotYet(f"{twice:,} hours of a driver still have two rows; each should have one.")
    stats = stats.sort_values("created")
    written = stats.groupby(KEY).agg(
        first=("conv_rate", "first"), last=("conv_rate", "last"), at=("created", "last")
    )
    with attempt("the times and drivers that it returns are not those of the file"):
        rows = written.join(
            found.set_index(KEY)[[name for name in ("conv_rate", "created") if name in found]]
        )
    if rows.conv_rate.isna().any():
        raise NotYet(
            f"{rows.conv_rate.isna().sum():,} of {len(rows):,} hours are gone. A corrected hour should keep"
            " one row, not lose both."
        )
    hours = rows[rows["first"] != rows["last"]]
    away, old = (abs(hours.conv_rate - hours[which]) > 1e-9 for which in ("last", "first"))
    where = f"the {len(hours):,} hours whose rate was corrected"
    if (away & old).any():
        raise NotYet(
            f"in {(away & old).sum():,} of {where} the rate is in neither row of the file. Choose a row, do"
            " not compute one."
        )
    if away.all():
        raise NotYet(f"in all of {where} the row that was written first is kept. Which one is better?")
    if away.any() and "created" in hours and (hours["created"] == hours["at"])[away].all():
        raise NotYet(
            f"in {away.sum():,} of {where} the rate is from one row and `created` from the other. Choose a"
            " whole row."
        )
    if away.any():
        raise NotYet(
            f"in {away.sum():,} of {where} the older row is kept. The check shuffles the rows first: "
            "their order in the file says nothing that you may rely on. Which column does?"
        )
    one = stats[stats.driver_id == stats.driver_id.min()]
    with attempt("`as_corrected` fails on the rows of one driver"):
        few = len(as_corrected(one.sample(frac=1, random_state=0)))
    if few > len(one):
        raise NotYet(
            f"given the {len(one):,} rows of one driver alone, it returns {few:,}: it reads another table"
            " than the one that it is given."
        )
    moved = abs(hours["last"] - hours["first"]).mean()
    return (
        f"{len(stats) - len(rows):,} hours were corrected, their rate by {moved:.2f} on average, and the rule"
        " holds in whatever order the rows come."
    )


def _valid_for(valid_for: Any) -> str:
    _a_function(valid_for, "a feature store")
    with scratch() as store:
        view, other = (
            store.get_feature_view("driver_daily_profile"),
            store.get_feature_view("driver_hourly_stats"),
        )
        true = view.ttl
        with attempt("`valid_for` fails on the scratch project's store"):
            first = valid_for(store)
        view.ttl = timedelta(days=41)
        store.apply(view)
        with attempt("`valid_for` fails on the scratch project's store"):
            second = valid_for(store)
    if not isinstance(first, timedelta):
        raise NotYet(
            f"it returns the type {type(first).__name__}. The registry keeps a time to live as a `timedelta`;"
            " return it as it comes out."
        )
    if first == other.ttl != true:
        raise NotYet(
            f"{first.days} days is how long a value of {other.name} is valid. In which file is the rating?"
        )
    if first != true:
        raise NotYet(f"the registry says something else than {first}.")
    if second != view.ttl:
        raise NotYet(
            f"the check then changed the time to live in its registry to {view.ttl.days} days, and you still"
            f" say {second.days}. Ask the store each time."
        )
    return (
        f"A rating is valid for {true.days} days, and after a change of the registry for {view.ttl.days}:"
        " whoever asks is up to date."
    )


EXERCISES = [
    Exercise(
        "0.1",
        "Misread a time zone",
        _misread,
        more=(
            "A model that sees the hours after the question knows the answer. Where is it still morning when"
            " it is already noon in UTC?"
        ),
        worked="""
# New York is five hours behind UTC in winter: what it calls 10:00 is 15:00 in UTC,
# five hours after the question.
def misread(times):
    return times.dt.tz_localize("America/New_York")
""",
    ),
    Exercise(
        "0.2",
        "Write the rule for corrected hours",
        _corrected,
        more=(
            "The rows of an hour differ in when they were written. Bring the rows into that order yourself,"
            " before you drop one of two."
        ),
        worked="""
# `created` says which row was written last. Sorted by it, the last row of an hour is the correction,
# in whatever order the rows came.
def as_corrected(rows):
    return rows.sort_values("created").drop_duplicates(key, keep="last")
""",
    ),
    Exercise(
        "0.3",
        "Ask a feature registry",
        _valid_for,
        more=(
            '`hits("Feast", "^get_feature_view$")` finds the call. It takes the name of a view, and what it'
            " returns has an attribute `ttl`, the time to live."
        ),
        worked="""
# The store reads its registry at each call: nothing is copied into this function.
def valid_for(store):
    return store.get_feature_view("driver_daily_profile").ttl
""",
    ),
]

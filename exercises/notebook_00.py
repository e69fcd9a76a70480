"""The exercises of notebook 00."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from exercises.core import Exercise, NotYet, attempt
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
            f"your answer is of type {type(answer).__name__}; the check calls a function with {takes}."
        )


def _misread(misread: Any) -> str:
    import pandas as pd

    _a_function(misread, "the labels' times")
    labels = _read("driver_labels")
    rates = _read("driver_stats").sort_values("event_timestamp")[[*KEY, "conv_rate"]]
    with attempt("`misread` fails on the labels' times"):
        times = misread(labels.event_timestamp.dt.tz_localize(None))
    with attempt("what `misread` returns can't be read as times"):
        times = pd.Series(pd.DatetimeIndex(times).as_unit("us"))
    if len(times) != len(labels):
        raise NotYet(f"`misread` got {len(labels)} times and returned {len(times)}.")
    if times.dt.tz is None:
        raise NotYet("the returned times have no zone yet; see `dt.tz_localize` in pandas' guide.")

    def correlation(asked: pd.Series) -> float:
        questions = labels.assign(event_timestamp=asked.dt.tz_convert("UTC")).sort_values("event_timestamp")
        known = pd.merge_asof(questions, rates, on="event_timestamp", by="driver_id").dropna()
        return known.conv_rate.corr(known.label)

    shift = (times - labels.event_timestamp).median() / pd.Timedelta(hours=1)
    right, wrong = correlation(labels.event_timestamp), correlation(times)
    if shift == 0:
        raise NotYet(
            f"the returned times are still the right ones, and conv_rate's correlation stays at {right:.2f}."
            " Choose an office in another time zone, and don't convert back to UTC."
        )
    moves = f"conv_rate's correlation with the label goes from {right:.2f} to {wrong:.2f}"
    if shift < 0:
        raise NotYet(
            f"in that zone, every label is read {-shift:g} hour{'' if shift == -1 else 's'} before its"
            f" real time, so it gets older rates, and {moves}. Which rates would correlate better, and when"
            " were they measured?"
        )
    if wrong < right + 0.05:
        raise NotYet(
            f"the times move by {shift:g} hours and {moves}, which is hardly better. Look at the table"
            " `moves` again."
        )
    return (
        f"Each label is read {shift:g} hours late and gets rates from after its time, so {moves}."
        " This is a leak, and nothing raises an error."
    )


def _corrected(as_corrected: Any) -> str:
    import pandas as pd

    _a_function(as_corrected, "the hourly rows")
    stats = _read("driver_stats")
    with attempt("`as_corrected` fails on the hourly rows in another order"):
        found = as_corrected(stats.sample(frac=1, random_state=0))
    if not isinstance(found, pd.DataFrame):
        raise NotYet(
            f"`as_corrected` returns a {type(found).__name__}; the check needs a DataFrame of hourly rows."
        )
    if not set(KEY) <= set(found):
        found = found.reset_index()
    lost = {*KEY, "conv_rate"} - set(found)
    if lost:
        raise NotYet(f"the returned table has no column {', '.join(sorted(lost))}.")
    twice = int(found.duplicated(KEY).sum())
    if twice:
        raise NotYet(f"{twice:,} hours still have two rows; each should have one.")
    stats = stats.sort_values("created")
    written = stats.groupby(KEY).agg(
        first=("conv_rate", "first"), last=("conv_rate", "last"), at=("created", "last")
    )
    with attempt("the returned times and drivers aren't those of the file"):
        rows = written.join(
            found.set_index(KEY)[[name for name in ("conv_rate", "created") if name in found]]
        )
    if rows.conv_rate.isna().any():
        raise NotYet(
            f"{rows.conv_rate.isna().sum():,} of {len(rows):,} hours are missing. A corrected hour should"
            " keep one row, not lose both."
        )
    hours = rows[rows["first"] != rows["last"]]
    away, old = (abs(hours.conv_rate - hours[which]) > 1e-9 for which in ("last", "first"))
    where = f"the {len(hours):,} hours whose rate was corrected"
    if (away & old).any():
        raise NotYet(
            f"in {(away & old).sum():,} of {where}, the rate is in neither row of the file. Choose a row;"
            " don't compute one."
        )
    if away.all():
        raise NotYet(
            f"in all of {where}, your function keeps the row that was written first. Which one is better?"
        )
    if away.any() and "created" in hours and (hours["created"] == hours["at"])[away].all():
        raise NotYet(
            f"in {away.sum():,} of {where}, the rate is from one row and `created` from the other. Choose a"
            " whole row."
        )
    if away.any():
        raise NotYet(
            f"in {away.sum():,} of {where}, your function keeps the older row. The check shuffles the rows"
            " first, because you can't rely on their order in the file. Which column can you rely on?"
        )
    one = stats[stats.driver_id == stats.driver_id.min()]
    with attempt("`as_corrected` fails on the rows of one driver"):
        few = len(as_corrected(one.sample(frac=1, random_state=0)))
    if few > len(one):
        raise NotYet(
            f"for the {len(one):,} rows of one driver, it returns {few:,} rows: it reads another table than"
            " the one that the check passes."
        )
    moved = abs(hours["last"] - hours["first"]).mean()
    return (
        f"{len(stats) - len(rows):,} hours were corrected, by {moved:.2f} on average, and your rule works"
        " for rows in any order."
    )


EXERCISES = [
    Exercise(
        "0.1",
        "Misread a time zone",
        _misread,
        more=(
            "A model that sees the hours after a label knows the answer. Where is it still morning when it's"
            " already noon in UTC?"
        ),
        worked="""
# New York is five hours behind UTC in winter: 10:00 there is 15:00 in UTC,
# five hours after the time of the label.
def misread(times):
    return times.dt.tz_localize("America/New_York")
""",
    ),
    Exercise(
        "0.2",
        "Write the rule for corrected hours",
        _corrected,
        more=(
            "The two rows of an hour were written at different times. Sort the rows by that time before you"
            " drop one of the two."
        ),
        worked="""
# `created` is the time at which a row was written. Sorted by it, the last row of an hour is the
# correction, in whatever order the rows arrive.
def as_corrected(rows):
    return rows.sort_values("created").drop_duplicates(key, keep="last")
""",
    ),
]

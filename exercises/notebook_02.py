"""The exercises of notebook 02."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from exercises.core import Exercise, NotYet, attempt, scratch
from helpers.workspace import current


def _keeps_expired(ttl: Any) -> str:
    import pandas as pd

    from helpers.data import NOW

    if not isinstance(ttl, timedelta):
        raise NotYet(f"that is a {type(ttl).__name__}; a time to live is a `timedelta`, as in `by_hand` above.")
    with scratch() as store:
        view = store.get_feature_view("driver_hourly_stats")
        with attempt("Feast refuses this time to live"):
            view.ttl = ttl
            store.apply(view)
        stats = pd.read_parquet(current().data / "driver_stats.parquet", columns=["driver_id", "event_timestamp"])
        last = stats.groupby("driver_id").event_timestamp.max()
        questions = pd.DataFrame({"driver_id": last.index, "event_timestamp": NOW})
        found = store.get_historical_features(questions, ["driver_hourly_stats:conv_rate"]).to_df()
    ages = (NOW - last).dt.total_seconds() / 86400
    kept = found.set_index("driver_id").conv_rate.notna()
    if not kept.all():
        raise NotYet(
            f"with {ttl} Feast still gives {(~kept).sum()} of {len(kept)} drivers a null; the oldest last value is {ages.max():.0f} days old. "
            + ("That is shorter than today's 7 days." if ttl < timedelta(days=7) else "Compare the two.")
        )
    if ttl > timedelta(days=2 * ages.max()):
        raise NotYet(
            f"every driver gets a value, but so would one who left {ttl.days} days ago. Find the age in the file, and stay near it."
        )
    return f"With {ttl.days} days all {len(kept)} drivers get a value, and the model is told that one of {ages.max():.0f} days ago is as good as one of today."


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
    )
]

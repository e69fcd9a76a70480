"""Where the raw rows come from."""

from pathlib import Path

from feast import Field, FileSource, RequestSource
from feast.types import Float64

# Absolute: the DuckDB store reads a relative path from the working directory, not from this folder.
DATA = Path(__file__).resolve().parent.parent / "data"

driver_stats_source = FileSource(
    name="driver_stats",
    path=str(DATA / "driver_stats.parquet"),
    timestamp_field="event_timestamp",
    # Late corrections repeat an event time. This column decides which row is the latest;
    # without it the stores disagree.
    created_timestamp_column="created",
    description="Hourly activity counts, one row per driver and hour, plus late corrections.",
)

driver_profile_source = FileSource(
    name="driver_profile",
    path=str(DATA / "driver_profile.parquet"),
    timestamp_field="event_timestamp",
    created_timestamp_column="created",
    description="Slow facts, one row per driver and day.",
)

ranking_request = RequestSource(
    name="ranking_request",
    schema=[Field(name="target_rate", dtype=Float64)],
    description="What only the caller knows: the conversion rate that the campaign asks for.",
)

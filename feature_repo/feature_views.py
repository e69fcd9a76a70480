"""The features: how they are read, how long they are valid, and what is computed at retrieval."""

from datetime import timedelta

from entities import driver
from feast import FeatureView, Field
from feast.types import Float64, Int64
from sources import driver_profile_source, driver_stats_source

driver_hourly_stats = FeatureView(
    name="driver_hourly_stats",
    entities=[driver],
    ttl=timedelta(days=7),
    schema=[
        Field(name="driver_id", dtype=Int64),
        Field(
            name="conv_rate",
            dtype=Float64,
            description="Share of offered trips that converted, last hour, 0 to 1.",
        ),
        Field(
            name="acc_rate",
            dtype=Float64,
            description="Share of offered trips that the driver accepted, last hour, 0 to 1.",
        ),
        Field(
            name="avg_daily_trips",
            dtype=Int64,
            description="Mean number of trips per day. Planted: pure noise.",
        ),
    ],
    source=driver_stats_source,
    tags={"team": "driver_activity", "cadence": "hourly"},
)

driver_daily_profile = FeatureView(
    name="driver_daily_profile",
    entities=[driver],
    ttl=timedelta(days=30),
    schema=[
        Field(name="driver_id", dtype=Int64),
        Field(name="rating", dtype=Float64, description="Mean rider rating, 1 to 5."),
        Field(
            name="tenure_days",
            dtype=Int64,
            description="Days since the driver joined. Planted: pure noise.",
        ),
    ],
    source=driver_profile_source,
    tags={"team": "driver_relations", "cadence": "daily"},
)

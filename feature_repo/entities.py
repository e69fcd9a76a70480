"""The project, and whom its features describe."""

from feast import Entity, Project, ValueType

project = Project(
    name="driver_ranking",
    description="Rank drivers by the chance that they convert in the next 24 hours.",
)

driver = Entity(
    name="driver",
    join_keys=["driver_id"],
    value_type=ValueType.INT64,
    description="A driver of the ride-hailing company, by number.",
)

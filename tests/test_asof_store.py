"""lifecycle/asof_store.py beside Feast's own DuckDB store: the same answers on generated tables, by another plan.

Both are asked through ``FeatureStore.get_historical_features``. The same generator finds planted mistakes in the plan.
"""

from __future__ import annotations

import inspect
import sys
import types
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from random import Random

import hypothesis
import ibis
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import HARD_TO_QUOTE
from feast import Entity, FeatureService, FeatureStore, FeatureView, Field, FileSource, RepoConfig, RequestSource
from feast import ValueType as V
from feast.infra.offline_stores.file_source import SavedDatasetFileStorage
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Float64, Int64, String
from hypothesis import strategies as st

from lifecycle import asof_store

ASOF = "lifecycle.asof_store.AsofOfflineStore"
NOON = pd.Timestamp("2025-03-30 00:00", tz="UTC").as_unit("us")  # clocks go forward in Europe in the hours to come
HOUR, MICROSECOND = pd.Timedelta("1h"), pd.Timedelta("1us")

driver = Entity(name="driver", join_keys=["driver_id"], value_type=V.INT64)
city = Entity(name="city", join_keys=["city"], value_type=V.STRING)


@dataclass(frozen=True)
class Table:
    """A feature view of the tests and the types of its file. Its features are ``<name>_n`` and ``<name>_s``."""

    name: str
    keys: tuple[Entity, ...]
    ttl: timedelta
    created: str | None = "created"
    time: str = "event_timestamp"
    unit: str = "us"
    zone: str | None = "UTC"
    mapping: dict[str, str] = field(default_factory=dict)

    @property
    def schema(self) -> pa.Schema:
        when = pa.timestamp(self.unit, self.zone)
        kinds = {"driver_id": pa.int64(), "city": pa.string()}
        columns = {key.join_key: kinds[key.join_key] for key in self.keys} | {self.time: when}
        columns |= {self.created: when} if self.created else {}
        columns |= {f"{self.name}_n": pa.float64(), f"{self.name}_s": pa.string()}
        back = {new: old for old, new in self.mapping.items()}
        return pa.schema([(back.get(name, name), kind) for name, kind in columns.items()])

    def write(self, folder: Path, rows: list[dict]) -> None:
        back = {new: old for old, new in self.mapping.items()}
        columns: dict[str, list] = {name: [] for name in self.schema.names}
        for number, row in enumerate(rows):
            values = {"driver_id": row["driver"], "city": row["city"], self.time: row["time"]}
            values |= {self.created: row["created"]} if self.created else {}
            values |= {f"{self.name}_n": row["n"] and number + row["n"], f"{self.name}_s": f"{self.name} {number}"}
            for name, value in values.items():
                if back.get(name, name) in columns:
                    columns[back.get(name, name)].append(value)
        arrays = [_array(columns[part.name], part.type) for part in self.schema]
        pq.write_table(pa.table(arrays, schema=self.schema), folder / f"{self.name}.parquet")

    def view(self, folder: Path) -> FeatureView:
        kinds = {"driver_id": Int64, "city": String, f"{self.name}_n": Float64, f"{self.name}_s": String}
        names = [*(key.join_key for key in self.keys), f"{self.name}_n", f"{self.name}_s"]
        return FeatureView(
            name=self.name,
            entities=list(self.keys),
            ttl=self.ttl,
            schema=[Field(name=name, dtype=kinds[name]) for name in names],
            source=FileSource(
                name=f"{self.name}_file",
                path=str(folder / f"{self.name}.parquet"),
                timestamp_field=self.time,
                created_timestamp_column=self.created,
                field_mapping=self.mapping,
            ),
        )


def _array(values: list, kind: pa.DataType) -> pa.Array:
    if pa.types.is_timestamp(kind):
        naive = pa.array([value and value.tz_localize(None).to_pydatetime() for value in values], pa.timestamp("us"))
        return naive.cast(pa.timestamp(kind.unit), safe=False).cast(kind)
    return pa.array(values, kind)


TABLES = [
    Table("hourly", (driver,), timedelta(hours=3)),
    Table("pairs", (driver, city), timedelta(days=1), unit="ms"),
    Table("company", (), timedelta(hours=2)),
    Table("forever", (driver,), timedelta(0), created=None, unit="ns", zone=None),
    Table("naive", (city,), timedelta(seconds=3600), zone=None),
    Table(
        "mapped",
        (driver,),
        timedelta(hours=1),
        created="written",
        time="at",
        mapping={"id": "driver_id", "when": "at", "put": "written", "number": "mapped_n"},
    ),
]


class Pair:
    """Feast's store and ours on one registry, over files that each case writes anew."""

    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir(parents=True)
        for table in TABLES:
            table.write(folder, [])
        views = {table.name: table.view(folder) for table in TABLES}
        mine = views["hourly"].with_name("mine")
        other = views["hourly"].with_name("other").with_join_key_map({"driver_id": "other_id"})
        self.aliased = FeatureService(name="aliased", features=[mine, other])
        self.feast = self.store("duckdb")
        self.feast.apply([driver, city, *views.values(), self.aliased])
        self.asof = self.store(ASOF)

    def store(self, kind: str) -> FeatureStore:
        return FeatureStore(
            config=RepoConfig(
                project="pair",
                provider="local",
                registry=str(self.folder / "registry.db"),
                offline_store={"type": kind},
                online_store={"type": "sqlite", "path": str(self.folder / "online.db")},
                entity_key_serialization_version=3,
            )
        )


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> Pair:
    return Pair(tmp_path_factory.mktemp("pair") / HARD_TO_QUOTE)


times = st.builds(
    lambda hours, jitter: NOON + hours * HOUR + jitter * MICROSECOND, st.integers(0, 6), st.integers(-1, 1)
)
drivers, cities = st.sampled_from([1, 1, 2, None]), st.sampled_from(["a", "a", "", None])
rows = st.fixed_dictionaries(
    {
        "driver": drivers,
        "city": cities,
        "time": st.one_of(times, times, times, times, st.none()),
        "created": st.one_of(times, times, times, st.none()),
        "n": st.sampled_from([0.5, 0.25, None]),
    }
)


def told_apart(table: Table):
    """What two rows of a table must not have in common: between such rows the choice is open, in both stores."""

    def identity(row: dict) -> tuple:
        def seen(time):
            return time and time.floor(table.unit)

        keys = [row[{"driver_id": "driver", "city": "city"}[key.join_key]] for key in table.keys]
        return (*keys, seen(row["time"]), seen(row["created"]) if table.created else None)

    return identity


asked_rows = st.fixed_dictionaries(
    {
        "driver_id": drivers,
        "city": cities,
        "other_id": drivers,
        "event_timestamp": st.one_of(times, times, times, st.none()),
    }
)


@st.composite
def cases(draw) -> dict:
    """Tables, the rows that are asked for, and the call."""
    names = draw(st.lists(st.sampled_from([table.name for table in TABLES]), min_size=1, max_size=3, unique=True))
    service = draw(st.integers(0, 5)) == 0
    needed = {"hourly"} if service else set(names)
    tables = {
        table.name: draw(st.lists(rows, max_size=12, unique_by=told_apart(table)))
        for table in TABLES
        if table.name in needed
    }
    return {
        "tables": tables,
        "asked": draw(st.lists(asked_rows, max_size=8)),
        "zone": draw(st.sampled_from(["UTC", None, "Asia/Kolkata", "Europe/Berlin"])),
        "unit": draw(st.sampled_from(["us", "ns", "ms"])),
        "names": [] if service else names,
        "full_feature_names": service or draw(st.booleans()),
        "filter_by_created_timestamp": draw(st.booleans()),
    }


def frame_of(case: dict) -> pd.DataFrame:
    asked = case["asked"]
    moments = pd.DatetimeIndex([row["event_timestamp"] for row in asked], dtype="datetime64[us, UTC]").as_unit(
        case["unit"]
    )
    return pd.DataFrame(
        {
            "row": np.arange(len(asked)),
            "driver_id": pd.array([row["driver_id"] for row in asked], dtype="Int64"),
            "event_timestamp": moments.tz_convert(case["zone"]),
            "city": pd.Series([row["city"] for row in asked], dtype="object"),
            "other_id": pd.array([row["other_id"] for row in asked], dtype="Int64"),
            "label": np.arange(len(asked)) % 2,
        }
    )


def answers(pair: Pair, store: FeatureStore, case: dict) -> pd.DataFrame:
    references = [f"{name}:{name}_{part}" for name in case["names"] for part in ("s", "n")]
    job = store.get_historical_features(
        entity_df=frame_of(case),
        features=references or pair.aliased,
        full_feature_names=case["full_feature_names"],
        filter_by_created_timestamp=case["filter_by_created_timestamp"],
    )
    return job.to_df().sort_values("row", ignore_index=True)


def write(pair: Pair, case: dict) -> None:
    for table in TABLES:
        if table.name in case["tables"]:
            table.write(pair.folder, case["tables"][table.name])


STABLE = {"database": None, "deadline": None, "suppress_health_check": list(hypothesis.HealthCheck)}


def test_the_answers_are_those_of_feasts_duckdb_store(pair):
    shown = []

    @hypothesis.settings(max_examples=150, derandomize=True, **STABLE)
    @hypothesis.given(cases())
    def same(case):
        write(pair, case)
        expected = answers(pair, pair.feast, case)
        pd.testing.assert_frame_equal(answers(pair, pair.asof, case), expected, check_exact=True)
        features = expected.drop(columns=["row", "driver_id", "event_timestamp", "city", "other_id", "label"])
        shown.append((features.notna().to_numpy().sum(), features.isna().to_numpy().sum()))

    same()
    found, null = np.sum(shown, axis=0)
    assert len(shown) >= 150 and found > 500 and null > 500, (
        f"{len(shown)} cases with {found} values and {null} nulls show little"
    )

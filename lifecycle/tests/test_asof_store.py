"""The ASOF store beside Feast's DuckDB store: the same answers on generated tables, by another plan."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import count, product
from pathlib import Path

import hypothesis
import ibis
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast import Entity, FeatureService, FeatureStore, FeatureView, Field, FileSource, RepoConfig
from feast.data_format import ParquetFormat
from feast.feature_logging import LoggingConfig
from feast.infra.offline_stores.file_source import FileLoggingDestination, SavedDatasetFileStorage
from feast.types import Float64, Int64, String
from feast.value_type import ValueType
from hypothesis import strategies as st

from lifecycle.features.asof_store import merge_joins

pytestmark = pytest.mark.unit
ASOF = "lifecycle.features.asof_store.AsofOfflineStore"
# Clocks go forward in Europe in the hours to come.
NOON = pd.Timestamp("2025-03-30 00:00", tz="UTC").as_unit("us")
# DuckDB keeps what it has read of a file until its second of change differs: each file gets one of its own.
CHANGED = count(1_700_000_000)
HOUR, MICROSECOND = pd.Timedelta("1h"), pd.Timedelta("1us")
driver = Entity(name="driver", join_keys=["driver_id"], value_type=ValueType.INT64)
city = Entity(name="city", join_keys=["city"], value_type=ValueType.STRING)
KINDS = {"driver_id": (pa.int64(), Int64), "city": (pa.string(), String)}


def file_source(folder: Path, name: str, time: str, created: str | None, **options) -> FileSource:
    options |= {"path": str(folder / f"{name}.parquet"), "file_format": ParquetFormat()}
    times = {"timestamp_field": time, "created_timestamp_column": created}
    return FileSource(name=f"{name}_file", **times, **options)


@dataclass(frozen=True)
class Table:
    """A feature view and the types of its file. Its features are ``<name>_n`` and ``<name>_s``."""

    name: str
    keys: tuple[Entity, ...]
    ttl: timedelta
    created: str | None = "created"
    time: str = "event_timestamp"
    unit: str = "us"
    zone: str | None = "UTC"
    mapping: dict[str, str] = field(default_factory=dict)

    def write(self, folder: Path, rows: list[dict]) -> None:
        """Write a file of rows, under the names that the source maps."""
        when = pa.timestamp(self.unit, self.zone)
        columns = {self.time: (when, [row["time"] for row in rows])}
        for key in self.keys:
            columns[key.join_key] = KINDS[key.join_key][0], [row[key.name] for row in rows]
        if self.created:
            columns[self.created] = when, [row["created"] for row in rows]
        numbers = [row["n"] and number + row["n"] for number, row in enumerate(rows)]
        columns[f"{self.name}_n"] = pa.float64(), numbers
        columns[f"{self.name}_s"] = pa.string(), [f"{self.name} {number}" for number in range(len(rows))]
        back = {new: old for old, new in self.mapping.items()}
        arrays = {back.get(name, name): _array(values, kind) for name, (kind, values) in columns.items()}
        path, moment = folder / f"{self.name}.parquet", next(CHANGED)
        pq.write_table(pa.table(arrays), path)
        os.utime(path, (moment, moment))

    def view(self, folder: Path) -> FeatureView:
        schema = [Field(name=key.join_key, dtype=KINDS[key.join_key][1]) for key in self.keys]
        schema += [Field(name=f"{self.name}_n", dtype=Float64), Field(name=f"{self.name}_s", dtype=String)]
        source = file_source(folder, self.name, self.time, self.created, field_mapping=self.mapping)
        return FeatureView(name=self.name, entities=[*self.keys], ttl=self.ttl, schema=schema, source=source)


def _array(values: list, kind: pa.DataType) -> pa.Array:
    if pa.types.is_timestamp(kind):
        naive = [value and value.tz_localize(None).to_pydatetime() for value in values]
        return pa.array(naive, pa.timestamp("us")).cast(pa.timestamp(kind.unit), safe=False).cast(kind)
    return pa.array(values, kind)


MAPPING = {"id": "driver_id", "when": "at", "put": "written", "number": "mapped_n"}
TABLES = [
    Table("hourly", (driver,), timedelta(hours=3)),
    Table("pairs", (driver, city), timedelta(days=1), unit="ms"),
    Table("company", (), timedelta(hours=2)),
    Table("forever", (driver,), timedelta(0), created=None, unit="ns", zone=None),
    Table("naive", (city,), timedelta(seconds=3600), zone=None),
    Table("mapped", (driver,), timedelta(hours=1), created="written", time="at", mapping=MAPPING),
]


def store_of(folder: Path, kind: str, *objects, **settings) -> FeatureStore:
    """A store of this kind with a registry in the folder; views and entities are applied."""
    folder.mkdir(parents=True, exist_ok=True)
    settings |= {"offline_store": {"type": kind}, "registry": str(folder / "registry.db")}
    settings |= {"online_store": {"type": "sqlite", "path": str(folder / "online.db")}}
    settings |= {"project": "pair", "provider": "local", "entity_key_serialization_version": 3}
    store = FeatureStore(config=RepoConfig(**settings), repo_path=folder)
    if objects:
        store.apply([driver, city, *objects])
    return store


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
        self.feast = store_of(folder, "duckdb", *views.values(), self.aliased)
        self.asof = store_of(folder, ASOF)

    def answers(self, case: dict) -> list[pd.DataFrame]:
        for table, rows in case["rows"]:
            table.write(self.folder, rows)
        references = [f"{name}:{name}_{part}" for name in case["names"] for part in ("s", "n")]
        options = {name: case[name] for name in ("full_feature_names", "filter_by_created_timestamp")}
        features = references or self.aliased
        return [answer(store, frame_of(case), features, **options) for store in (self.feast, self.asof)]


# Few moments, so that many rows share one, and many are as old as a time to live, a microsecond more or less.
MOMENTS = [NOON + hour * HOUR + part * MICROSECOND for hour in range(5) for part in (0, 0, 0, -1, 1)]
times, times_or_null = st.sampled_from([*MOMENTS, None, None]), st.sampled_from([*MOMENTS, *[None] * 8])
drivers, cities = st.sampled_from([1, 1, 1, 2, None]), st.sampled_from(["a", "a", "", None])
numbers = st.sampled_from([0.5, 0.25, None])
ROW = {"driver": drivers, "city": cities, "time": times, "created": times_or_null, "n": numbers}
ASKED = {"driver_id": drivers, "city": cities, "other_id": drivers, "event_timestamp": times}
rows, asked_rows = st.fixed_dictionaries(ROW), st.fixed_dictionaries(ASKED)


def identity(table: Table):
    """What two rows of a table must not have in common: between such rows, either store may choose."""

    def key(row: dict) -> tuple:
        moments = [row["time"], row["created"]] if table.created else [row["time"]]
        return *(row[key.name] for key in table.keys), *(time and time.floor(table.unit) for time in moments)

    return key


# The views of a case; none: a feature service that has one view under two aliases.
CHOICES = [("hourly",), ("pairs",), ("company",), ("forever",), ("naive", "mapped"), ("pairs", "company"), ()]


@st.composite
def cases(draw, names: tuple[str, ...], least: int) -> dict:
    """Tables of at least so many rows, the rows that are asked for, and the call."""
    tables = [table for table in TABLES if table.name in (names or ["hourly"])]
    several = [st.lists(rows, min_size=least, max_size=25, unique_by=identity(table)) for table in tables]
    return {
        "rows": [(table, draw(rows)) for table, rows in zip(tables, several, strict=True)],
        "asked": draw(st.lists(asked_rows, min_size=least, max_size=20)),
        "zone": draw(st.sampled_from(["UTC", None, "Asia/Kolkata", "Europe/Berlin"])),
        "unit": draw(st.sampled_from(["us", "ns", "ms"])),
        "names": names,
        "full_feature_names": not names or draw(st.booleans()),
        "filter_by_created_timestamp": draw(st.booleans()),
    }


def frame_of(case: dict) -> pd.DataFrame:
    frame = pd.DataFrame(case["asked"], columns=["driver_id", "event_timestamp", "city", "other_id"])
    moments = pd.DatetimeIndex(frame.event_timestamp, dtype="datetime64[us, UTC]").as_unit(case["unit"])
    frame["event_timestamp"] = moments.tz_convert(case["zone"])
    frame = frame.astype({"driver_id": "Int64", "other_id": "Int64", "city": "object"})
    return frame.assign(row=np.arange(len(frame)), label=np.arange(len(frame)) % 2)


def test_the_answers_are_those_of_feasts_duckdb_store(tmp_path):
    """The cases are the same in each run (``derandomize``)."""
    pair, values, nulls = Pair(tmp_path / "Übung d'été (1) [2]"), [], []
    stable = {"database": None, "deadline": None, "suppress_health_check": list(hypothesis.HealthCheck)}
    for names, (least, examples) in product(CHOICES, ((12, 12), (0, 3))):

        @hypothesis.settings(max_examples=examples, derandomize=True, **stable)
        @hypothesis.given(cases(names, least))
        def same(case):
            expected, found = pair.answers(case)
            pd.testing.assert_frame_equal(found, expected, check_exact=True)
            features = expected.drop(columns=frame_of(case).columns).to_numpy()
            values.append(pd.notna(features).sum())
            nulls.append(pd.isna(features).sum())

        same()
    assert len(values) >= 100 and min(sum(values), sum(nulls)) > 500, "the cases say little"


# Named cases, each on files of its own.


TIMES = ("driver_id", "event_timestamp", "created")


def view_of(folder: Path, name: str = "stats", ttl=timedelta(days=7), **columns) -> FeatureView:
    """A view with a feature ``a`` and more columns, over a small file."""
    data = {"driver_id": [1, 1, 2], "event_timestamp": [NOON, NOON + HOUR, NOON], "a": [1.0, 2.0, 3.0]}
    data |= columns
    pd.DataFrame(data).to_parquet(folder / f"{name}.parquet")
    features = [Field(name=column, dtype=Float64) for column in ["a", *columns] if column not in TIMES]
    created = "created" if "created" in data else None
    source = file_source(folder, name, "event_timestamp", created)
    schema = [Field(name="driver_id", dtype=Int64), *features]
    return FeatureView(name=name, entities=[driver], ttl=ttl, schema=schema, source=source)


def both(folder: Path, *objects, **settings) -> list[FeatureStore]:
    return [store_of(folder / kind, kind, *objects, **settings) for kind in ("duckdb", ASOF)]


def frame(**columns) -> pd.DataFrame:
    times = [NOON + 2 * HOUR] * 3
    return pd.DataFrame({"row": [0, 1, 2], "driver_id": [1, 2, 9], "event_timestamp": times} | columns)


def answer(store: FeatureStore, rows: pd.DataFrame, features: list, **options) -> pd.DataFrame:
    job = store.get_historical_features(rows, features, **options)
    return job.to_df().sort_values("row", ignore_index=True)


def test_the_plan_is_an_asof_join_and_no_nested_loop(tmp_path):
    store = store_of(tmp_path, ASOF, view_of(tmp_path))
    table = store.get_historical_features(frame(), ["stats:a"]).table
    backend = ibis.get_backend(table)
    backend._run_pre_execute_hooks(table)
    with merge_joins():
        plan = backend.raw_sql(f"EXPLAIN {ibis.to_sql(table)}").fetchall()[0][1]
    assert "ASOF_JOIN" in plan and "NESTED_LOOP" not in plan


@pytest.mark.parametrize("columns", [{"_own_a": [99.0] * 3}, {"_OWN_A": ["x"] * 3, "_own_ time": ["y"] * 3}])
def test_a_column_with_a_name_of_the_plan_passes_through(tmp_path, columns):
    feast, asof = both(tmp_path, view_of(tmp_path))
    found = answer(asof, frame(**columns), ["stats:a"])
    assert found.a.tolist()[:2] == [2.0, 3.0] and found[list(columns)].to_dict("list") == columns
    pd.testing.assert_frame_equal(found, answer(feast, frame(**columns), ["stats:a"]))


def test_a_retrieval_leaves_the_settings_of_the_shared_connection_as_they_were(tmp_path):
    connection = ibis.get_backend()
    setting = lambda: connection.raw_sql("SELECT current_setting('asof_loop_join_threshold')").fetchone()[0]  # noqa: E731
    store, usual = store_of(tmp_path, ASOF, view_of(tmp_path)), setting()
    try:
        for threshold in (usual, usual + 1):
            connection.raw_sql(f"SET asof_loop_join_threshold = {threshold}")
            job = store.get_historical_features(frame(), ["stats:a"])
            assert (setting(), len(job.to_df()), len(job.to_arrow()), setting()) == (
                threshold,
                3,
                3,
                threshold,
            )
        with pytest.raises(ibis.IbisError), merge_joins():
            raise ibis.IbisError
        assert setting() == usual + 1
    finally:
        connection.raw_sql(f"SET asof_loop_join_threshold = {usual}")


def test_of_rows_that_nothing_distinguishes_one_answers_as_a_whole(tmp_path):
    columns = {"driver_id": [1] * 3, "event_timestamp": [NOON] * 3, "b": [10.0, 20.0, 30.0]}
    untold, equal = view_of(tmp_path, "untold", **columns), columns | {"created": [NOON] * 3}
    for store in both(tmp_path, untold, view_of(tmp_path, "equal", **equal)):
        for name in ("untold", "equal"):
            found = answer(store, frame(driver_id=[1] * 3), [f"{name}:a", f"{name}:b"])
            assert set(found.a) <= {1.0, 2.0, 3.0} and (found.b == 10 * found.a).all() and len(found) == 3


LATER = NOON + 2 * HOUR
FORMS = [("event_timestamp", str(LATER)), ("asked at", LATER.tz_localize(None))]


@pytest.mark.parametrize(("name", "moment"), FORMS, ids=["text", "naive"])
@pytest.mark.parametrize("settings", [{}, {"coerce_tz_aware": False}], ids=["UTC", "as given"])
def test_times_may_be_text_or_naive_and_other_columns_pass_through(tmp_path, name, moment, settings):
    given = frame(event_timestamp=[moment] * 3, created=["x", None, "z"])
    given = given.rename(columns={"event_timestamp": name})
    before, (feast, asof) = given.copy(), both(tmp_path, view_of(tmp_path), **settings)
    found = answer(asof, given, ["stats:a"])
    assert found.columns.tolist() == ["row", "driver_id", name, "created", "a"]
    assert found.a.tolist()[:2] == [2.0, 3.0]
    pd.testing.assert_frame_equal(given, before)
    pd.testing.assert_frame_equal(found, answer(feast, given, ["stats:a"]))


def test_a_time_to_live_of_mixed_units_and_awkward_names_work_here(tmp_path):
    """Feast's own store fails on each: docs/upstream.md."""
    columns = {name: [1.0, 2.0, 3.0] for name in ("speed_y", "rn", "event_expire_timestamp", "entity_row_id")}
    store = store_of(tmp_path, ASOF, view_of(tmp_path, ttl=timedelta(hours=36), **columns))
    found = answer(store, frame(), [f"stats:{name}" for name in columns])[list(columns)]
    assert found.loc[0].tolist() == [2.0] * 4 and found.loc[2].isna().all()
    late = answer(store, frame(event_timestamp=[NOON + 37 * HOUR] * 3), ["stats:rn"])
    assert late.rn.tolist()[0] == 2.0 and late.rn.isna().tolist() == [False, True, True]


def test_rejects_what_cannot_be_joined_and_names_the_remedy(tmp_path):
    store = store_of(tmp_path, ASOF, view_of(tmp_path))
    with pytest.raises(ValueError, match=r"pandas data frame.*pass entity_df"):
        store.get_historical_features("SELECT 1", ["stats:a"])
    with pytest.raises(ValueError, match=r"pandas data frame.*pass entity_df"):
        store.get_historical_features(features=["stats:a"], start_date=NOON.to_pydatetime())
    with pytest.raises(ValueError, match="no column driver_id, a join key of stats"):
        store.get_historical_features(frame().drop(columns="driver_id"), ["stats:a"])
    with pytest.raises(ValueError, match=r"the name a\. Rename"):
        store.get_historical_features(frame(a=[1, 2, 3]), ["stats:a"])
    renamed = answer(store, frame(a=[1, 2, 3]), ["stats:a"], full_feature_names=True)
    assert renamed.stats__a.tolist()[:2] == [2.0, 3.0]


def test_materialized_saved_monitored_and_logged_features_are_those_of_feasts_store(tmp_path):
    """What the store inherits must work through a configuration class of another name."""
    stats, results = view_of(tmp_path, created=[NOON] * 3), []
    for kind in ("duckdb", ASOF):
        place = tmp_path / kind
        (place / "log").mkdir(parents=True)
        log = LoggingConfig(destination=FileLoggingDestination(path=str(place / "log")))
        service = FeatureService(name="service", features=[stats], logging_config=log)
        store = store_of(place, kind, stats, service)
        store.materialize(NOON.to_pydatetime(), (NOON + HOUR).to_pydatetime())
        online = store.get_online_features(["stats:a"], [{"driver_id": 1}, {"driver_id": 2}]).to_dict()["a"]
        job = store.get_historical_features(frame(), ["stats:a"])
        storage = SavedDatasetFileStorage(path=str(place / "saved.parquet"))
        store.create_saved_dataset(job, "saved", storage)
        saved = store.get_saved_dataset("saved").to_df().sort_values("driver_id").a.fillna(-1).tolist()
        offline, source = store._get_provider().offline_store, stats.batch_source
        numeric = [("a", "numeric")]
        metrics = offline.compute_monitoring_metrics(store.config, source, numeric, "event_timestamp")
        store.write_logged_features(pq.read_table(source.path), service)
        results.append([online, saved, metrics[0]["mean"], pq.read_table(place / "log").num_rows])
    assert results == [[[2.0, 3.0], [2.0, 3.0, -1.0], 2.0, 3]] * 2

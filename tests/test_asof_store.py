"""lifecycle/asof_store.py beside Feast's own DuckDB store: the same answers on generated tables, by another plan.

Both are asked through ``FeatureStore.get_historical_features``. The same generator finds planted mistakes in the plan.
"""

from __future__ import annotations

import inspect
import sys
import types
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import hypothesis
import ibis
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from conftest import HARD_TO_QUOTE
from feast import (
    Entity,
    FeatureService,
    FeatureStore,
    FeatureView,
    Field,
    FileSource,
    RepoConfig,
    RequestSource,
)
from feast import ValueType as V
from feast.data_format import ParquetFormat
from feast.feature_logging import LoggingConfig
from feast.infra.offline_stores.duckdb import DuckDBOfflineStoreConfig
from feast.infra.offline_stores.file_source import FileLoggingDestination, SavedDatasetFileStorage
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Float64, Int64, String
from hypothesis import strategies as st

from lifecycle import asof_store

ASOF = "lifecycle.asof_store.AsofOfflineStore"
NOON = pd.Timestamp("2025-03-30 00:00", tz="UTC").as_unit(
    "us"
)  # clocks go forward in Europe in the hours to come
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
            values |= {
                f"{self.name}_n": row["n"] and number + row["n"],
                f"{self.name}_s": f"{self.name} {number}",
            }
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
        naive = pa.array(
            [value and value.tz_localize(None).to_pydatetime() for value in values], pa.timestamp("us")
        )
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


# Few moments, so that many rows share one, and many are as old as a time to live, a microsecond more or less.
MOMENTS = [NOON + hour * HOUR + part * MICROSECOND for hour in range(5) for part in (0, 0, 0, -1, 1)]
times, times_or_null = st.sampled_from([*MOMENTS, None, None]), st.sampled_from([*MOMENTS, *[None] * 8])
drivers, cities = st.sampled_from([1, 1, 1, 2, None]), st.sampled_from(["a", "a", "", None])
rows = st.fixed_dictionaries(
    {
        "driver": drivers,
        "city": cities,
        "time": times,
        "created": times_or_null,
        "n": st.sampled_from([0.5, 0.25, None]),
    }
)
asked_rows = st.fixed_dictionaries(
    {"driver_id": drivers, "city": cities, "other_id": drivers, "event_timestamp": times}
)


def told_apart(table: Table):
    """What two rows of a table must not have in common: between such rows the choice is open, in both stores."""

    def identity(row: dict) -> tuple:
        def seen(time):
            return time and time.floor(table.unit)

        keys = [row[{"driver_id": "driver", "city": "city"}[key.join_key]] for key in table.keys]
        return (*keys, seen(row["time"]), seen(row["created"]) if table.created else None)

    return identity


ALIASED = ()
"""In place of names: the feature service, which has one view under two aliases."""
CHOICES = [
    ("hourly",),
    ("pairs",),
    ("company",),
    ("forever",),
    ("naive", "mapped"),
    ("pairs", "company"),
    ALIASED,
]


@st.composite
def cases(draw, names: tuple[str, ...], least: int) -> dict:
    """Tables of at least so many rows, the rows that are asked for, and the call."""
    tables = {}
    for table in TABLES:
        if table.name in (names or ["hourly"]):
            several = st.lists(rows, min_size=least, max_size=25, unique_by=told_apart(table))
            tables[table.name] = draw(several)
    return {
        "tables": tables,
        "asked": draw(st.lists(asked_rows, min_size=least, max_size=20)),
        "zone": draw(st.sampled_from(["UTC", None, "Asia/Kolkata", "Europe/Berlin"])),
        "unit": draw(st.sampled_from(["us", "ns", "ms"])),
        "names": names,
        "full_feature_names": not names or draw(st.booleans()),
        "filter_by_created_timestamp": draw(st.booleans()),
    }


def frame_of(case: dict) -> pd.DataFrame:
    asked = case["asked"]
    moments = pd.DatetimeIndex(
        [row["event_timestamp"] for row in asked], dtype="datetime64[us, UTC]"
    ).as_unit(case["unit"])
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


def compare(pair: Pair, examined: list) -> None:
    """Asks both stores about generated tables. What Feast's says goes to ``examined``, with its case."""
    for least in (12, 0):
        for names in CHOICES:

            @hypothesis.settings(max_examples=12 if least else 3, derandomize=True, **STABLE)
            @hypothesis.given(cases(names, least))
            def same(case):
                write(pair, case)
                expected = answers(pair, pair.feast, case)
                examined.append((case, expected))
                pd.testing.assert_frame_equal(answers(pair, pair.asof, case), expected, check_exact=True)

            same()


@pytest.fixture(scope="module")
def examined() -> list[tuple[dict, pd.DataFrame]]:
    return []


def test_the_answers_are_those_of_feasts_duckdb_store(pair, examined):
    compare(pair, examined)
    features = [answer.drop(columns=frame_of(case).columns) for case, answer in examined]
    found = sum(frame.notna().to_numpy().sum() for frame in features)
    null = sum(frame.isna().to_numpy().sum() for frame in features)
    assert len(examined) >= 100 and min(found, null) > 500, (
        f"{len(examined)} cases, {found} values, {null} nulls"
    )


MISTAKES = {
    "a row expires at its time to live": ("_interval(view.ttl) >= joined", "_interval(view.ttl) > joined"),
    "a row lives a microsecond longer": ("timedelta(microseconds=1))", "timedelta(microseconds=1) + 1)"),
    "no row expires": ("if view.ttl:", "if False:"),
    "a time to live of 0 is over at once": ("if view.ttl:", "if True:"),
    "a row answers from after its time": ("answer[time] >= rows[_SINCE]", "answer[time] > rows[_SINCE]"),
    "the first correction counts": ("rows[_WRITTEN].desc()", "rows[_WRITTEN].asc()"),
    "a row without a created time counts most": (
        "rows[_WRITTEN].desc()",
        "rows[_WRITTEN].desc(nulls_first=True)",
    ),
    "a row without an answer is dropped": (
        "joined.select(",
        "joined.filter(joined[_SINCE].notnull()).select(",
    ),
    "a row without a time has an answer": (
        "in [time, *view.keys.values()]",
        "in view.keys.values() or [time]",
    ),
    "a row without a key has an answer": ("in [time, *view.keys.values()]", "in [time]"),
    "the second key is forgotten": ("in view.keys.items()]", "in [*view.keys.items()][:1]]"),
    "the keys have their own names": ("view.projection.join_key_map or ", ""),
    "what was written later is known": (
        "ibis.greatest(table[view.time], table[view.created])",
        "table[view.time]",
    ),
    "what was never written is known": ("rows = rows.drop_null(_WRITTEN)", "rows = rows"),
    "what is written late about earlier counts": (
        "rows[_TIME] == rows[_TIME].max().over(before)",
        "rows[_TIME].notnull()",
    ),
    "the earlier of two known at once counts": ("order = [rows[_TIME].desc()", "order = [rows[_TIME].asc()"),
    "the features change places": (
        "joined[_OWN + column]",
        "joined[_OWN + list(view.features.values())[-1]]",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_the_plan_is_found(pair, examined, monkeypatch, mistake):
    right, wrong = MISTAKES[mistake]
    source = inspect.getsource(asof_store)
    assert source.count(right) == 1, f"the store has no place for this mistake: {right}"
    mutant = types.ModuleType("mutant")
    monkeypatch.setitem(sys.modules, "mutant", mutant)
    exec(compile(source.replace(right, wrong), "mutant", "exec"), vars(mutant))
    if not examined:  # when this test runs alone
        compare(pair, examined)
    store = pair.store("mutant.AsofOfflineStore")

    def differs(case: dict, expected: pd.DataFrame) -> bool:
        write(pair, case)
        return not answers(pair, store, case).equals(expected)

    assert any(differs(case, expected) for case, expected in examined), f"unnoticed in {len(examined)} cases"


# Named cases, each on files of its own.


class Small:
    """A folder with a registry for each store, and views over small files."""

    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir(parents=True)

    def view(
        self, name: str, columns: dict, entities=(driver,), ttl=timedelta(days=7), **source
    ) -> FeatureView:
        path = self.folder / f"{name}.parquet"
        pd.DataFrame(columns).to_parquet(path)
        times = {"event_timestamp", "created"}
        keys = {entity.join_key for entity in entities}
        return FeatureView(
            name=name,
            entities=list(entities),
            ttl=ttl,
            schema=[Field(name=c, dtype=Int64 if c in keys else Float64) for c in columns if c not in times],
            source=FileSource(
                name=f"{name}_file", path=str(path), timestamp_field="event_timestamp", **source
            ),
        )

    def store(self, kind: str, *objects, **settings) -> FeatureStore:
        place = self.folder / kind
        place.mkdir(exist_ok=True)
        config = RepoConfig(
            project="small",
            provider="local",
            registry=str(place / "registry.db"),
            offline_store={"type": kind},
            online_store={"type": "sqlite", "path": str(place / "online.db")},
            entity_key_serialization_version=3,
            **settings,
        )
        store = FeatureStore(config=config, repo_path=place)
        store.apply([driver, *objects])
        return store

    def both(self, *objects, **settings) -> tuple[FeatureStore, FeatureStore]:
        return self.store("duckdb", *objects, **settings), self.store(ASOF, *objects, **settings)


@pytest.fixture
def small(tmp_path) -> Small:
    return Small(tmp_path / HARD_TO_QUOTE)


def plain(columns: dict | None = None, **more) -> dict:
    given = {"driver_id": [1, 1, 2], "event_timestamp": [NOON, NOON + HOUR, NOON], "a": [1.0, 2.0, 3.0]}
    return given | (columns or {}) | more


def asked(**columns) -> pd.DataFrame:
    return pd.DataFrame(
        {"row": [0, 1, 2], "driver_id": [1, 2, 9], "event_timestamp": [NOON + 2 * HOUR] * 3} | columns
    )


def found(store: FeatureStore, rows: pd.DataFrame, features: list, **options) -> pd.DataFrame:
    return (
        store.get_historical_features(rows, features, **options).to_df().sort_values("row", ignore_index=True)
    )


def test_the_plan_is_an_asof_join_and_no_nested_loop(small):
    _, store = small.both(small.view("stats", plain()))
    table = store.get_historical_features(asked(), ["stats:a"]).table
    assert "ASOF LEFT JOIN" in ibis.to_sql(table) and "ROW_NUMBER" not in ibis.to_sql(table)
    backend = ibis.get_backend(table)
    backend._run_pre_execute_hooks(table)
    plan = backend.raw_sql(f"EXPLAIN {ibis.to_sql(table)}").fetchall()[0][1]
    assert "ASOF_JOIN" in plan and "NESTED_LOOP" not in plan


def test_rows_that_nothing_tells_apart_give_one_of_them_as_a_whole(small):
    rows = plain({"driver_id": [1] * 3, "event_timestamp": [NOON] * 3, "b": [10.0, 20.0, 30.0]})
    views = [
        small.view("untold", rows),
        small.view("equal", {**rows, "created": [NOON] * 3}, created_timestamp_column="created"),
    ]
    for store in small.both(*views):
        for name in ("untold", "equal"):
            answer = found(store, asked(driver_id=[1] * 3), [f"{name}:a", f"{name}:b"])
            assert set(answer.a) <= {1.0, 2.0, 3.0} and (answer.b == 10 * answer.a).all() and len(answer) == 3


def test_nanoseconds_are_cut_to_microseconds_before_the_created_time_decides(small):
    later = NOON.as_unit("ns") + pd.Timedelta("1ns")
    rows = plain({"driver_id": [1, 1, 2], "event_timestamp": [NOON.as_unit("ns"), later, later]})
    rows["created"] = [later + HOUR, later, later]
    answers = [
        found(store, asked(), ["stats:a"])
        for store in small.both(small.view("stats", rows, created_timestamp_column="created"))
    ]
    assert answers[1].a.tolist()[:2] == [1.0, 3.0] and pd.isna(answers[1].a[2])
    pd.testing.assert_frame_equal(*answers)


@pytest.mark.parametrize(
    ("moments", "settings"),
    [
        ([str(NOON + 2 * HOUR)] * 3, {}),
        ([(NOON + 2 * HOUR).tz_localize(None)] * 3, {}),
        ([(NOON + 2 * HOUR).tz_localize(None)] * 3, {"coerce_tz_aware": False}),
        ([(NOON + 2 * HOUR).tz_convert("America/New_York")] * 3, {"coerce_tz_aware": False}),
    ],
    ids=["text", "naive", "naive and left so", "zoned and left so"],
)
def test_times_may_be_text_naive_or_zoned(small, moments, settings):
    stores = small.both(small.view("stats", plain()), **settings)
    rows = asked(event_timestamp=moments)
    before = rows.copy()
    answers = [found(store, rows.copy(), ["stats:a"]) for store in stores]
    assert answers[1].a.tolist()[:2] == [2.0, 3.0]
    pd.testing.assert_frame_equal(*answers)
    found(stores[1], rows, ["stats:a"])
    pd.testing.assert_frame_equal(rows, before)


def test_a_time_column_of_another_name_and_extra_columns_pass_through(small):
    rows = (
        asked()
        .rename(columns={"event_timestamp": "asked at"})
        .assign(created=["x", None, "z"], a_given=[1, 2, 3])
    )
    answers = [found(store, rows, ["stats:a"]) for store in small.both(small.view("stats", plain()))]
    assert answers[1].columns.tolist() == ["row", "driver_id", "asked at", "created", "a_given", "a"]
    pd.testing.assert_frame_equal(*answers)


def test_arrow_has_the_same_columns_and_types(small):
    rows = plain(created=[NOON] * 3)
    stores = small.both(small.view("stats", rows, created_timestamp_column="created"))
    jobs = [store.get_historical_features(asked(), ["stats:a"], full_feature_names=True) for store in stores]
    tables = [job.to_arrow().sort_by("row") for job in jobs]
    assert tables[0].schema == tables[1].schema and tables[0].equals(tables[1])
    meta = [job.metadata for job in jobs]
    assert sorted(meta[0].keys) == sorted(meta[1].keys) == ["driver_id", "row"]
    assert (meta[0].features, meta[0].min_event_timestamp) == (meta[1].features, meta[1].min_event_timestamp)


def test_no_rows_are_no_answers_with_the_same_columns(small):
    answers = [
        found(store, asked().head(0), ["stats:a"]) for store in small.both(small.view("stats", plain()))
    ]
    assert len(answers[1]) == 0
    pd.testing.assert_frame_equal(*answers)


def test_on_demand_views_compute_from_the_answer_and_the_request(small):
    stats = small.view("stats", plain())
    request = RequestSource(name="request", schema=[Field(name="factor", dtype=Float64)])

    def scaled(inputs: pd.DataFrame) -> pd.DataFrame:
        return pd.DataFrame({"scaled": inputs["a"] * inputs["factor"]})

    view = on_demand_feature_view(sources=[stats, request], schema=[Field(name="scaled", dtype=Float64)])(
        scaled
    )
    answers = [
        found(store, asked(factor=[2.0, 3.0, 4.0]), ["scaled:scaled", "stats:a"])
        for store in small.both(stats, view)
    ]
    assert answers[1].scaled.tolist()[:2] == [4.0, 9.0]
    pd.testing.assert_frame_equal(*answers)


def test_a_time_to_live_of_mixed_units_and_awkward_names_work_here(small):
    """Feast's own store fails on each: docs/upstream.md."""
    names = ["speed_y", "rn", "event_expire_timestamp", "entity_row_id"]
    columns = plain() | {name: [1.0, 2.0, 3.0] for name in names}
    store = small.store(ASOF, small.view("stats", columns, ttl=timedelta(hours=36)))
    answer = found(store, asked(), [f"stats:{name}" for name in names])
    assert answer[names].loc[0].tolist() == [2.0] * 4 and answer[names].loc[2].isna().all()
    late = found(store, asked(event_timestamp=[NOON + 37 * HOUR] * 3), ["stats:rn"])
    assert late.rn.tolist()[0] == 2.0 and late.rn.isna().tolist() == [False, True, True]


def test_what_cannot_be_joined_is_refused_with_what_to_do(small):
    store = small.store(ASOF, small.view("stats", plain()))
    with pytest.raises(ValueError, match=r"pandas data frame.*pass entity_df"):
        store.get_historical_features("SELECT 1", ["stats:a"])
    with pytest.raises(ValueError, match=r"pandas data frame.*pass entity_df"):
        store.get_historical_features(features=["stats:a"], start_date=NOON.to_pydatetime())
    with pytest.raises(ValueError, match="no column driver_id, a join key of stats"):
        store.get_historical_features(asked().drop(columns="driver_id"), ["stats:a"])
    with pytest.raises(ValueError, match=r"the name a\. Rename"):
        store.get_historical_features(asked(a=[1, 2, 3]), ["stats:a"])
    assert found(store, asked(a=[1, 2, 3]), ["stats:a"], full_feature_names=True).stats__a.tolist()[:2] == [
        2.0,
        3.0,
    ]


def test_all_else_is_feasts_own():
    own = {name for name in vars(asof_store.AsofOfflineStore) if not name.startswith("_")}
    assert own == {"get_historical_features"}
    assert issubclass(
        asof_store.AsofOfflineStoreConfig, DuckDBOfflineStoreConfig
    )  # monitoring looks for that class


def test_materialized_saved_and_logged_features_are_those_of_feasts_store(small):
    """The paths that a store inherits: they must find their way through a configuration class of another name."""
    rows = plain(created=[NOON] * 3)
    # Feast's monitoring wants the format said.
    stats = small.view("stats", rows, created_timestamp_column="created", file_format=ParquetFormat())
    seen = []
    for kind in ("duckdb", ASOF):
        log = small.folder / kind / "log"
        log.mkdir(parents=True)
        destination = LoggingConfig(destination=FileLoggingDestination(path=str(log)))
        service = FeatureService(name="service", features=[stats], logging_config=destination)
        store = small.store(kind, stats, service)
        store.materialize(NOON.to_pydatetime(), (NOON + HOUR).to_pydatetime())
        online = store.get_online_features(["stats:a"], [{"driver_id": 1}, {"driver_id": 2}]).to_dict()["a"]

        path = str(small.folder / kind / "saved.parquet")
        job = store.get_historical_features(asked(), ["stats:a"])
        saved = store.create_saved_dataset(job, "saved", SavedDatasetFileStorage(path=path))
        again = store.get_saved_dataset("saved").to_df().sort_values("driver_id", ignore_index=True)

        source = stats.batch_source
        columns = [("a", "numeric")]
        offline = store._get_provider().offline_store
        metrics = offline.compute_monitoring_metrics(store.config, source, columns, "event_timestamp")
        latest = offline.get_monitoring_max_timestamp(store.config, source, "event_timestamp")
        table = pq.read_table(source.path)
        store.write_logged_features(table, service)
        logged = pq.read_table(log).num_rows
        seen.append(
            [online, len(saved.to_df()), again.a.fillna(-1).tolist(), metrics[0]["mean"], latest, logged]
        )
    assert seen[0] == seen[1]
    assert seen[1][:4] == [[2.0, 3.0], 3, [2.0, 3.0, -1.0], 2.0] and seen[1][5] == 3


def test_one_line_of_the_workshops_settings_chooses_it(home, applied):
    settings = yaml.safe_load((applied.feature_repo / "feature_store.yaml").read_text())
    settings["registry"] = str((applied.feature_repo / settings["registry"]).resolve())
    del settings["mlflow"]
    stores = []
    for kind in ("duckdb", ASOF):
        settings["offline_store"] = {"type": kind}
        repo = home.path / kind
        repo.mkdir(parents=True)
        (repo / "feature_store.yaml").write_text(yaml.safe_dump(settings))
        stores.append(FeatureStore(repo_path=str(repo)))
    labels = pd.read_parquet(applied.data / "driver_labels.parquet").reset_index(names="row")
    service = stores[0].list_feature_services()[0]
    answers = [found(store, labels, store.get_feature_service(service.name)) for store in stores]
    assert type(stores[1]._get_provider().offline_store) is asof_store.AsofOfflineStore
    assert len(answers[1]) == len(labels) > 1000 and answers[1].iloc[:, -1].notna().sum() > 1000
    pd.testing.assert_frame_equal(*answers, check_exact=True)

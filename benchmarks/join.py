"""The point-in-time join: Feast on two offline stores, DuckDB's ASOF join by hand, pandas. One process each.

python -m benchmarks.join make --rows 1000000 --questions 100000 --folder DIR
python -m benchmarks.join feast|feast_batches|feast_asof|asof|pandas|explain --folder DIR --ttl-hours 168
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd

from helpers import data

FEATURES = ["conv_rate", "acc_rate", "avg_daily_trips"]
STATS, QUESTIONS = "driver_stats.parquet", "questions.parquet"
MEMORY_GB = 8  # that DuckDB may use, in each contestant that runs on it; beyond it DuckDB spills to disk
UNKNOWN_SHARE = 0.01  # of the questions are about a driver that has no features


def make(folder: Path, rows: int, questions: int, seed: int = data.SEED) -> None:
    """The course's hourly table with about ``rows`` rows, and ``questions`` about drivers at random times."""
    per_driver = data.DAYS * 24 * (1 + data.CORRECTION_RATE)
    drivers = max(data.EXPIRED_EVERY, round(rows / per_driver))
    data.write(folder, seed=seed, drivers=drivers)
    rng = np.random.default_rng(seed)
    asked = rng.integers(data.FIRST_DRIVER, data.FIRST_DRIVER + drivers, questions)
    asked[rng.random(questions) < UNKNOWN_SHARE] = data.UNKNOWN_DRIVER
    minutes = rng.integers(0, data.DAYS * 24 * 60, questions)
    first = (data.NOW - timedelta(days=data.DAYS)).as_unit("us")
    times = first + pd.to_timedelta(minutes, unit="min").as_unit("us")
    frame = pd.DataFrame({"driver_id": asked, "event_timestamp": times, "row": np.arange(questions)})
    frame.to_parquet(folder / QUESTIONS, index=False)


def _settings(folder: Path) -> str:
    return f"SET memory_limit = '{MEMORY_GB}GB'; SET temp_directory = {_quoted(folder / 'spilled')}"


def _quoted(path: Path) -> str:
    """A path as a string in SQL: a folder's name may hold an apostrophe."""
    return "'" + str(path).replace("'", "''") + "'"


def with_feast(
    folder: Path, ttl: timedelta, offline_store: str = "duckdb"
) -> Callable[[pd.DataFrame], pd.DataFrame]:
    """Feast's own call, on its DuckDB store or another."""
    import ibis
    from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
    from feast.types import Float64, Int64

    config = RepoConfig(
        project="benchmark",
        provider="local",
        registry=str(folder / f"registry_{ttl.total_seconds():.0f}.db"),
        offline_store={"type": offline_store},
        online_store=None,
        entity_key_serialization_version=3,
    )
    driver = Entity(name="driver", join_keys=["driver_id"], value_type=ValueType.INT64)
    times = {"timestamp_field": "event_timestamp", "created_timestamp_column": "created"}
    source = FileSource(name="stats", path=str(folder / STATS), **times)
    types = {"driver_id": Int64, "conv_rate": Float64, "acc_rate": Float64, "avg_daily_trips": Int64}
    schema = [Field(name=name, dtype=kind) for name, kind in types.items()]
    store = FeatureStore(config=config)
    ibis.get_backend().raw_sql(_settings(folder))  # the connection that Feast's store uses
    store.apply([driver, FeatureView(name="stats", entities=[driver], ttl=ttl, schema=schema, source=source)])
    references = [f"stats:{name}" for name in FEATURES]
    return lambda asked: store.get_historical_features(entity_df=asked, features=references).to_df()


def with_feast_batches(folder: Path, ttl: timedelta) -> Callable[[pd.DataFrame], pd.DataFrame]:
    """Feast's own call, for a tenth of the questions at a time."""
    join = with_feast(folder, ttl)
    return lambda asked: pd.concat([join(asked.iloc[start::10]) for start in range(10)])


def with_feast_asof(folder: Path, ttl: timedelta) -> Callable[[pd.DataFrame], pd.DataFrame]:
    """Feast's own call on the project's offline store, whose plan is an ASOF join."""
    return with_feast(folder, ttl, offline_store="lifecycle.features.asof_store.AsofOfflineStore")


def with_asof(folder: Path, ttl: timedelta) -> Callable[[pd.DataFrame], pd.DataFrame]:
    """The join of notebook 02, written by hand: nearest earlier row, latest correction, time to live."""
    import duckdb

    valid = f"asked.event_timestamp - view.event_timestamp <= INTERVAL {ttl.total_seconds():.0f} SECOND"
    columns = ", ".join(f"CASE WHEN {valid} THEN view.{name} END AS {name}" for name in FEATURES)
    query = f"""
        SELECT asked.*, {columns}
        FROM asked ASOF LEFT JOIN (
            SELECT * FROM {_quoted(folder / STATS)}
            QUALIFY row_number() OVER (PARTITION BY driver_id, event_timestamp ORDER BY created DESC) = 1
        ) AS view ON asked.driver_id = view.driver_id AND asked.event_timestamp >= view.event_timestamp
    """

    def join(asked: pd.DataFrame) -> pd.DataFrame:
        with duckdb.connect() as connection:
            connection.execute(_settings(folder))
            connection.register("asked", asked)
            return connection.sql(query).df()

    return join


def with_pandas(folder: Path, ttl: timedelta) -> Callable[[pd.DataFrame], pd.DataFrame]:
    """``pandas.merge_asof``, which wants both tables sorted by time."""

    def join(asked: pd.DataFrame) -> pd.DataFrame:
        stats = pd.read_parquet(folder / STATS)
        stats = stats.sort_values(["event_timestamp", "created"], kind="stable")
        stats = stats.drop_duplicates(["driver_id", "event_timestamp"], keep="last").drop(columns="created")
        left = asked.sort_values("event_timestamp")
        return pd.merge_asof(left, stats, on="event_timestamp", by="driver_id", tolerance=ttl)

    return join


CONTESTANTS = {
    "feast": with_feast,
    "feast_batches": with_feast_batches,
    "feast_asof": with_feast_asof,
    "asof": with_asof,
    "pandas": with_pandas,
}


def peak_mb() -> float:
    """The greatest resident memory of this process so far."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def digest(answer: pd.DataFrame) -> str:
    """A hash of every feature value in the order of the questions, nulls included."""
    ordered = answer.sort_values("row")
    rows = ordered["row"].to_numpy("int64").tobytes()
    values = ordered[FEATURES].to_numpy("float64", na_value=np.nan)
    return hashlib.sha256(rows + np.where(np.isnan(values), -1.0, values).tobytes()).hexdigest()


def measure(contestant: str, folder: Path, ttl: timedelta) -> dict:
    """Seconds from the questions in memory to the answer in memory, and what the process used."""
    join = CONTESTANTS[contestant](folder, ttl)
    asked = pd.read_parquet(folder / QUESTIONS)
    if contestant != "pandas":
        join(asked.head(10))  # what an engine imports at its first query is not the join's cost
    load = os.getloadavg()[0]
    began, cpu = time.perf_counter(), time.process_time()
    answer = join(asked)
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - cpu
    return {
        "contestant": contestant,
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "peak_mb": peak_mb(),
        "load": load,
        "nulls": int(answer.conv_rate.isna().sum()),
        "digest": digest(answer),
    }


def explain(folder: Path, ttl: timedelta) -> dict:
    """DuckDB's own account of Feast's query: how many rows it ranks, and that ranking's share of the time."""
    import ibis
    from feast.infra.offline_stores.ibis import IbisRetrievalJob

    plans = []

    def to_arrow(job: IbisRetrievalJob, timeout: int | None = None):
        connection = ibis.get_backend(job.table)
        connection._run_pre_execute_hooks(job.table)  # hands the questions over
        query = f"EXPLAIN (ANALYZE, FORMAT JSON) {connection.compile(job.table)}"
        plans.append(json.loads(connection.raw_sql(query).fetchall()[0][1]))
        return job.table.limit(0).to_pyarrow()

    IbisRetrievalJob._to_arrow_internal = to_arrow
    asked = pd.read_parquet(folder / QUESTIONS)
    with_feast(folder, ttl)(asked)
    seconds: dict[str, float] = {}
    ranked = []

    def walk(node: dict) -> None:
        name = node.get("operator_name") or "PLAN"
        seconds[name] = seconds.get(name, 0) + node.get("operator_timing", 0)
        if name == "WINDOW":
            ranked.append(node["operator_cardinality"])
        for child in node.get("children", []):
            walk(child)

    walk(plans[0])
    share = round(seconds["WINDOW"] / sum(seconds.values()), 3)
    return {"questions": len(asked), "ranked_rows": max(ranked), "share_of_time": share}


def main(argv: list[str] | None = None) -> None:
    """The command line of the process of one contestant."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.join", description=__doc__)
    parser.add_argument("what", choices=["make", "explain", *CONTESTANTS])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--rows", type=int)
    parser.add_argument("--questions", type=int)
    parser.add_argument("--ttl-hours", type=int, default=168)
    arguments = parser.parse_args(argv)
    folder = arguments.folder.resolve()
    if arguments.what == "make":
        make(folder, arguments.rows, arguments.questions)
        return
    ttl = timedelta(hours=arguments.ttl_hours)
    explaining = arguments.what == "explain"
    print(json.dumps(explain(folder, ttl) if explaining else measure(arguments.what, folder, ttl)))


if __name__ == "__main__":
    main()

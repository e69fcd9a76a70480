"""The point-in-time join on a distributed engine, Spark with a master and two workers on this machine, beside DuckDB: docs/engine.json.

python -m benchmarks.engine [--sizes 1000x20000 10000x100000 100000x1000000] [--rounds 3] [--out docs]

Each contestant has a process of its own and retrieves the same questions twice; the second time counts, when every engine has started.
Memory is the greatest sum over the processes that take part, of Spark with master, workers and their executors.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import psutil

from benchmarks.__main__ import REPOSITORY, machine, turns
from benchmarks.join import FEATURES, QUESTIONS, STATS, digest, make, with_feast
from helpers import engine

CONTESTANTS = ["duckdb", "spark"]
TTL = timedelta(hours=168)


def with_spark(folder: Path, master: str):
    """Feast's own call on its Spark store."""
    from feast import Entity, FeatureStore, FeatureView, Field, RepoConfig, ValueType
    from feast.infra.offline_stores.contrib.spark_offline_store.spark_source import SparkSource
    from feast.types import Float64, Int64

    config = RepoConfig(
        project="benchmark",
        provider="local",
        registry=str(folder / "registry_spark.db"),
        offline_store=engine.offline_store(master),
        online_store=None,
        entity_key_serialization_version=3,
    )
    driver = Entity(name="driver", join_keys=["driver_id"], value_type=ValueType.INT64)
    times = {"timestamp_field": "event_timestamp", "created_timestamp_column": "created"}
    source = SparkSource(name="stats", path=str(folder / STATS), file_format="parquet", **times)
    types = {"driver_id": Int64, "conv_rate": Float64, "acc_rate": Float64, "avg_daily_trips": Int64}
    schema = [Field(name=name, dtype=kind) for name, kind in types.items()]
    store = FeatureStore(config=config)
    store.apply([driver, FeatureView(name="stats", entities=[driver], ttl=TTL, schema=schema, source=source)])
    references = [f"stats:{name}" for name in FEATURES]
    return lambda asked: store.get_historical_features(entity_df=asked, features=references).to_df()


def measure(contestant: str, folder: Path, master: str) -> dict:
    """The same questions twice, in this process."""
    join = with_feast(folder, TTL) if contestant == "duckdb" else with_spark(folder, master)
    asked = pd.read_parquet(folder / QUESTIONS)
    seconds = []
    for _ in range(2):
        began = time.perf_counter()
        answer = join(asked)
        seconds.append(time.perf_counter() - began)
    return {"first": seconds[0], "seconds": seconds[1], "answers": len(answer), "digest": digest(answer)}


def resident_mb(processes: list[int]) -> float:
    """What these processes and all below them hold now."""
    held = 0
    for pid in processes:
        try:
            family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
            held += sum(member.memory_info().rss for member in family)
        except psutil.NoSuchProcess:
            continue
    return held / 1e6


def run(contestant: str, folder: Path, cluster: engine.SparkCluster) -> dict:
    """A contestant in a process of its own, and the greatest memory of all that take part."""
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.engine", "--contestant", contestant]
    command += ["--folder", str(folder), "--master", cluster.address]
    environment = {**cluster.environment, "PYTHONPATH": str(REPOSITORY)}
    began = os.getloadavg()[0]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )
    members = [process.pid]
    if contestant == "spark":
        members += [service._keeper.pid for service in cluster.processes]
    peak, ended = [0.0], threading.Event()

    def watch() -> None:
        while not ended.wait(0.2):
            peak[0] = max(peak[0], resident_mb(members))

    watcher = threading.Thread(target=watch)
    watcher.start()
    out, errors = process.communicate()
    ended.set()
    watcher.join()
    if process.returncode:
        raise SystemExit(f"error: {contestant} failed:\n{errors[-3000:]}")
    return json.loads(out.splitlines()[-1]) | {"contestant": contestant, "peak_mb": peak[0], "load": began}


def curve(runs: list[dict], contestant: str) -> dict[str, float]:
    """Seconds = fixed + per row x rows of the view, by least squares on relative errors; neither is below 0.

    Args:
        runs: of one table each, with ``rows`` and ``seconds``.
    """
    own = [run for run in runs if run["contestant"] == contestant]
    rows = np.array([run["rows"] for run in own], dtype=float)
    seconds = np.array([run["seconds"] for run in own])
    weighted = np.column_stack([1 / seconds, rows / seconds])
    fixed, per_row = np.linalg.lstsq(weighted, np.ones(len(own)), rcond=None)[0]
    if fixed < 0:
        fixed, per_row = 0.0, float(np.sum(rows / seconds) / np.sum((rows / seconds) ** 2))
    if per_row < 0:
        fixed, per_row = float(np.sum(1 / seconds) / np.sum(1 / seconds**2)), 0.0
    return {"fixed_seconds": float(fixed), "seconds_per_million_rows": float(per_row) * 1e6}


def pays_from(curves: dict[str, dict[str, float]]) -> float | None:
    """From how many million rows the engine is faster, by the two fitted lines; None where it never is."""
    slower = curves["spark"]["fixed_seconds"] - curves["duckdb"]["fixed_seconds"]
    gained = curves["duckdb"]["seconds_per_million_rows"] - curves["spark"]["seconds_per_million_rows"]
    return max(0.0, slower / gained) if gained > 0 else None


def write(runs: list[dict], out: Path) -> None:
    """What was measured so far, the fitted lines, and where they cross, as ``engine.json``."""
    curves = {contestant: curve(runs, contestant) for contestant in CONTESTANTS}
    measured = {
        "machine": machine(),
        "runs": runs,
        "curves": curves,
        "pays_from_million_rows": pays_from(curves),
    }
    (out / "engine.json").write_text(json.dumps(measured, indent=1) + "\n")


def main(argv: list[str] | None = None) -> int:
    """The command line; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.engine")
    sizes = ["1000x20000", "10000x100000", "100000x1000000"]
    parser.add_argument("--sizes", nargs="+", default=sizes, help="questions x rows of the view")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=REPOSITORY / "docs")
    parser.add_argument("--contestant", choices=CONTESTANTS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--master", help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.contestant:
        print(json.dumps(measure(arguments.contestant, arguments.folder, arguments.master)))
        return 0
    if found := engine.lacking():
        print(f"error: {found}", file=sys.stderr)
        return 2
    runs = []
    with (
        tempfile.TemporaryDirectory(prefix="engine-") as folder,
        engine.SparkCluster(Path(folder) / "spark") as spark,
    ):
        for size in arguments.sizes:
            questions, rows = (int(part) for part in size.split("x"))
            table = Path(folder) / size
            make(table, rows, questions)
            for number, contestant in turns(CONTESTANTS, arguments.rounds):
                found = run(contestant, table, spark)
                runs.append({"round": number, "questions": questions, "rows": rows} | found)
                print(
                    f"{contestant}, {size}: {found['seconds']:.2f} s, {found['peak_mb']:.0f} MB", flush=True
                )
            write(runs, arguments.out)  # after each size: the next one may take long
    return 0


if __name__ == "__main__":
    sys.exit(main())

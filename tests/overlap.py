"""Several processes apply to one feature registry at the same moment: ``python overlap.py settings.json``.

They are forked after the import of Feast, and wait at a barrier before each apply; otherwise their times
would rarely meet. The counts are printed as JSON.
"""

import json
import multiprocessing
import sys
from datetime import timedelta
from pathlib import Path

import pandas as pd
from feast import Entity, FeatureService, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
from feast.types import Float64

WORKERS, ROUNDS = 4, 5
DRIVER = Entity(name="driver", join_keys=["driver_id"], value_type=ValueType.INT64)


def open_store(settings: dict) -> FeatureStore:
    return FeatureStore(config=RepoConfig(**settings["store"]))


def source(settings: dict) -> FileSource:
    return FileSource(name="file", path=settings["file"], timestamp_field="event_timestamp")


def work(number: int, settings: dict, barrier) -> None:
    """In each round, apply a view and a service that nobody else applies."""
    store = open_store(settings)
    for turn in range(ROUNDS):
        view = FeatureView(
            name=f"view_{number}_{turn}",
            entities=[DRIVER],
            ttl=timedelta(days=1),
            schema=[Field(name="a", dtype=Float64)],
            source=source(settings),
        )
        barrier.wait()
        store.apply([view, FeatureService(name=f"service_{number}_{turn}", features=[view])])


def main(settings: dict) -> dict:
    row = {"driver_id": [1], "event_timestamp": pd.to_datetime(["2025-01-01"], utc=True), "a": [1.0]}
    pd.DataFrame(row).to_parquet(settings["file"])
    open_store(settings).apply([DRIVER, source(settings)])  # one process makes tables and project
    fork = multiprocessing.get_context("fork")
    barrier = fork.Barrier(WORKERS)
    workers = [fork.Process(target=work, args=(number, settings, barrier)) for number in range(WORKERS)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
    store = open_store(settings)
    names = [found.name for found in (*store.list_feature_views(), *store.list_feature_services())]
    kept = sum(name.startswith(("view_", "service_")) for name in names)
    codes = [worker.exitcode for worker in workers]
    return {"applied": 2 * WORKERS * ROUNDS, "kept": kept, "exit codes": codes}


if __name__ == "__main__":
    print(json.dumps(main(json.loads(Path(sys.argv[1]).read_text()))))

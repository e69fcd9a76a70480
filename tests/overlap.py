"""Several processes apply to one feature registry at the same moment, and the counts come as JSON.

``python overlap.py settings.json`` forks after the import of Feast, and a barrier stands before each apply:
without it, their times would rarely meet.
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


def opened(settings: dict) -> FeatureStore:
    return FeatureStore(config=RepoConfig(**settings["store"]))


def view(name: str, source: FileSource) -> FeatureView:
    schema = [Field(name="a", dtype=Float64)]
    return FeatureView(name=name, entities=[DRIVER], ttl=timedelta(days=1), schema=schema, source=source)


def work(number: int, settings: dict, barrier, results) -> None:
    """In each round apply a view and a service of one's own, and with ``shared`` one view that all define."""
    store = opened(settings)
    source = FileSource(name="file", path=settings["file"], timestamp_field="event_timestamp")
    said, again = [], []
    for turn in range(ROUNDS):
        own = view(f"view_{number}_{turn}", source)
        objects = [own, FeatureService(name=f"service_{number}_{turn}", features=[own])]
        if settings["shared"]:
            objects.append(view(f"shared_{turn}", source))
        barrier.wait()
        try:
            store.apply(objects)
        except Exception as error:
            said.append(f"{type(error).__name__}: {error}"[:300])
            again.append(objects)
    barrier.wait()
    for objects in again:  # one process after the other would be the plain way; here all at once
        store.apply(objects)
    results.put(said)


def kept(settings: dict) -> int:
    store = opened(settings)
    names = [found.name for found in (*store.list_feature_views(), *store.list_feature_services())]
    return sum(name.startswith(("view_", "service_")) for name in names)


def main(settings: dict) -> dict:
    row = {"driver_id": [1], "event_timestamp": pd.to_datetime(["2025-01-01"], utc=True), "a": [1.0]}
    pd.DataFrame(row).to_parquet(settings["file"])
    source = FileSource(name="file", path=settings["file"], timestamp_field="event_timestamp")
    opened(settings).apply([DRIVER, source])  # one process makes the tables and the project
    fork = multiprocessing.get_context("fork")
    barrier, results = fork.Barrier(WORKERS), fork.Queue()
    workers = [fork.Process(target=work, args=(n, settings, barrier, results)) for n in range(WORKERS)]
    for worker in workers:
        worker.start()
    said = [line for _ in workers for line in results.get(timeout=120)]
    for worker in workers:
        worker.join(60)
    ended = [worker.exitcode for worker in workers]
    return {"applied": 2 * WORKERS * ROUNDS, "said": said, "kept": kept(settings), "ended": ended}


if __name__ == "__main__":
    print(json.dumps(main(json.loads(Path(sys.argv[1]).read_text()))))

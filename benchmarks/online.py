"""Online prediction: in process, in process with a prediction log, and by one client of KServe's server.

python -m benchmarks.online --home DIR --rounds 3 --requests 2000
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import IPython.core.history  # noqa: F401  before Feast: lifecycle/src/lifecycle/serving/scoring.py says why
import numpy as np
import pandas as pd

from benchmarks.__main__ import turns
from benchmarks.homes import ALIAS, SERVICE, serving_home
from helpers import data
from helpers.services import HOST, Service, milliseconds
from helpers.start import MODEL
from helpers.workspace import Workspace


def known_drivers(workspace: Workspace) -> list[dict]:
    """The drivers with a value of the last two hours: each request has an answer."""
    stats = pd.read_parquet(workspace.data / "driver_stats.parquet", columns=["driver_id", "event_timestamp"])
    last = stats.groupby("driver_id").event_timestamp.max()
    return [{"driver_id": int(driver)} for driver in last.index[last > data.NOW - pd.Timedelta(hours=2)]]


def measure(ask: Callable[[dict], float], drivers: list[dict], requests: int) -> dict:
    """Milliseconds of each request as quantiles, after a warm-up, and every driver's score."""
    load, times = os.getloadavg()[0], milliseconds(ask, drivers, requests)
    p50, p99 = (float(np.quantile(times, q)) for q in (0.5, 0.99))
    scores = [ask(driver) for driver in drivers]
    return {"p50_ms": p50, "p99_ms": p99, "requests": requests, "load": load, "scores": scores}


def in_process(workspace: Workspace, requests: int) -> dict:
    """The server's own class, called directly; often enough for several writes of a prediction log."""
    from lifecycle.serving.scoring import FeatureModel

    model = FeatureModel(MODEL, workspace.feature_repo, ALIAS, now=data.NOW.timestamp())

    def ask(driver: dict) -> float:
        return float(model.score([driver])[0][0])

    try:
        return measure(ask, known_drivers(workspace), 5 * requests)
    finally:
        model.stop()


def logged(workspace: Workspace, requests: int) -> dict:
    """The same while the feature service has a prediction log."""
    from feast import FeatureStore
    from feast.feature_logging import LoggingConfig
    from feast.infra.offline_stores.file_source import FileLoggingDestination

    store = FeatureStore(repo_path=str(workspace.feature_repo))
    service = store.get_feature_service(SERVICE)
    folder = workspace.path / "prediction_log"
    service.logging_config = LoggingConfig(destination=FileLoggingDestination(path=str(folder)))
    store.apply(service)
    try:
        measured = in_process(workspace, requests)
    finally:
        service.logging_config = None
        store.apply(service)
    rows = sum(len(pd.read_parquet(file)) for file in folder.glob("*.parquet"))
    assert rows, "nothing was logged"
    shutil.rmtree(folder)
    return measured


def over_http(workspace: Workspace, requests: int) -> dict:
    """One client on one open connection: V1 protocol, one driver a request."""
    command = [sys.executable, "-m", "lifecycle", "serve", "--feature-repo", workspace.feature_repo]
    command += ["--model", MODEL, "--alias", ALIAS, "--port", "{port}", "--now", data.NOW.timestamp()]
    log = workspace.path / "logs" / "benchmark_server.log"
    ready = f"/v2/models/{MODEL}/ready"
    with Service("model server", command, health=ready, log=log, timeout=600) as server:
        connection = http.client.HTTPConnection(HOST, server.port, timeout=30)

        def ask(driver: dict) -> float:
            body, headers = json.dumps({"instances": [driver]}), {"Content-Type": "application/json"}
            connection.request("POST", f"/v1/models/{MODEL}:predict", body, headers)
            return json.loads(connection.getresponse().read())["predictions"][0]

        return measure(ask, known_drivers(workspace), requests)


CONTESTANTS = {"in_process": in_process, "logged": logged, "over_http": over_http}


def main(argv: list[str] | None = None) -> None:
    """The command line; prints one list, an entry for each contestant and round."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.online", description=__doc__)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--requests", type=int, default=2000)
    arguments = parser.parse_args(argv)
    workspace, runs = serving_home(arguments.home), []
    for number, name in turns(list(CONTESTANTS), arguments.rounds):
        measured = CONTESTANTS[name](workspace, arguments.requests)
        print(f"{name}: p50 {measured['p50_ms']:.2f} ms, p99 {measured['p99_ms']:.2f} ms", flush=True)
        runs.append({"round": number, "contestant": name, **measured})
    print(json.dumps(runs))


if __name__ == "__main__":
    main()

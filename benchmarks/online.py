"""Online prediction, features and model: in process, with and without the prediction log, and through KServe's server at one client.

python -m benchmarks.online prepare|in_process|logged|over_http --home DIR --requests 2000
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

import numpy as np
import pandas as pd

from benchmarks.homes import SERVICE
from helpers import data
from helpers.services import HOST, Service, milliseconds
from helpers.start import MODEL
from helpers.workspace import Workspace, configure

ALIAS = "production"


def drivers(workspace: Workspace) -> list[int]:
    """Those with a value of the last two hours: each request has an answer."""
    stats = pd.read_parquet(workspace.data / "driver_stats.parquet", columns=["driver_id", "event_timestamp"])
    last = stats.groupby("driver_id").event_timestamp.max()
    return [int(driver) for driver in last.index[last > data.NOW - pd.Timedelta(hours=2)]]


def timed(ask: Callable[[int], float], known: list[int], requests: int) -> dict:
    """Milliseconds of each request as quantiles, after a warm-up; and every driver's score."""
    load, times = os.getloadavg()[0], milliseconds(ask, known, requests)
    quantiles = {name: float(np.quantile(times, q)) for name, q in (("p50_ms", 0.5), ("p99_ms", 0.99))}
    return {**quantiles, "requests": requests, "load": load, "scores": [ask(driver) for driver in known]}


def in_process(workspace: Workspace, requests: int) -> dict:
    """The server's own class, called directly. Long enough for several writes of a prediction log."""
    from lifecycle.serving import FeatureModel

    model = FeatureModel(MODEL, workspace.feature_repo, ALIAS, now=data.NOW.timestamp())
    found = timed(lambda driver: float(model.score([{"driver_id": driver}])[0][0]), drivers(workspace), 5 * requests)
    model.stop()
    return found


def logged(workspace: Workspace, requests: int) -> dict:
    """The same with a prediction log, for as long as this takes."""
    import IPython.core.history  # noqa: F401  before Feast: lifecycle/serving.py says why
    from feast import FeatureStore
    from feast.feature_logging import LoggingConfig
    from feast.infra.offline_stores.file_source import FileLoggingDestination

    store = FeatureStore(repo_path=str(workspace.feature_repo))
    service = store.get_feature_service(SERVICE)
    folder = workspace.path / "prediction_log"
    service.logging_config = LoggingConfig(destination=FileLoggingDestination(path=str(folder)))
    store.apply(service)
    try:
        found = in_process(workspace, requests)
    finally:
        service.logging_config = None
        store.apply(service)
    kept = sum(len(pd.read_parquet(file)) for file in folder.glob("*.parquet"))
    shutil.rmtree(folder)
    return found | {"kept": kept}


def over_http(workspace: Workspace, requests: int) -> dict:
    """One client, one connection that is kept open, V1 protocol, one driver a request."""
    arguments = ["--feature-repo", workspace.feature_repo, "--model", MODEL, "--alias", ALIAS]
    command = [sys.executable, "-m", "lifecycle.serving", *arguments, "--port", "{port}", "--now", data.NOW.timestamp()]
    health, log = f"/v2/models/{MODEL}/ready", workspace.path / "logs" / "benchmark_server.log"
    with Service("model server", command, health=health, log=log) as server:
        connection = http.client.HTTPConnection(HOST, server.port, timeout=30)

        def ask(driver: int) -> float:
            body = json.dumps({"instances": [{"driver_id": driver}]})
            connection.request("POST", f"/v1/models/{MODEL}:predict", body, {"Content-Type": "application/json"})
            return json.loads(connection.getresponse().read())["predictions"][0]

        return timed(ask, drivers(workspace), requests)


def main(argv: list[str] | None = None) -> None:
    """The command line of the process of one contestant."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.online", description=__doc__)
    parser.add_argument("what", choices=["prepare", "in_process", "logged", "over_http"])
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--requests", type=int, default=2000)
    arguments = parser.parse_args(argv)
    if arguments.what == "prepare":
        from benchmarks.homes import serving_home

        serving_home(arguments.home, MODEL, ALIAS)
        return
    workspace = Workspace(arguments.home.resolve())
    configure(workspace)
    contestants = {"in_process": in_process, "logged": logged, "over_http": over_http}
    found = contestants[arguments.what](workspace, arguments.requests)
    print(json.dumps({"contestant": arguments.what, **found}))


if __name__ == "__main__":
    main()

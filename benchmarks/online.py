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
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks import flights as late
from benchmarks import homes
from benchmarks.homes import ALIAS
from helpers import data
from helpers.services import HOST, Service, milliseconds
from helpers.start import MODEL
from helpers.workspace import Workspace, configure


@dataclass(frozen=True)
class Served:
    """A registered model that is served, with which features, at which time, and what to ask: one instance a request."""

    model: str
    feature_repo: Path
    service: str
    now: datetime
    instances: list[dict]


def drivers(workspace: Workspace) -> Served:
    """The drivers with a value of the last two hours: each request has an answer."""
    stats = pd.read_parquet(workspace.data / "driver_stats.parquet", columns=["driver_id", "event_timestamp"])
    last = stats.groupby("driver_id").event_timestamp.max()
    known = [{"driver_id": int(driver)} for driver in last.index[last > data.NOW - pd.Timedelta(hours=2)]]
    return Served(MODEL, workspace.feature_repo, homes.SERVICE, data.NOW, known)


def flights(workspace: Workspace) -> Served:
    """Each pair of airport and carrier, for a departure at five in the afternoon, which only the caller knows."""
    project = workspace.path / "flights"
    pairs = pd.read_parquet(
        project / "data" / "carrier.parquet", columns=["origin", "carrier"]
    ).drop_duplicates()
    known = pairs.assign(scheduled_hour=17.0).to_dict("records")
    return Served(late.MODEL, project / "feature_repo", late.SERVICE, late.NOW, known)


STORIES = {"drivers": drivers, "flights": flights}


def timed(ask: Callable[[dict], float], known: list[dict], requests: int) -> dict:
    """Milliseconds of each request as quantiles, after a warm-up; and every entity's score."""
    load, times = os.getloadavg()[0], milliseconds(ask, known, requests)
    quantiles = {name: float(np.quantile(times, q)) for name, q in (("p50_ms", 0.5), ("p99_ms", 0.99))}
    return {**quantiles, "requests": requests, "load": load, "scores": [ask(instance) for instance in known]}


def in_process(workspace: Workspace, served: Served, requests: int) -> dict:
    """The server's own class, called directly. Long enough for several writes of a prediction log."""
    from lifecycle.serving import FeatureModel

    model = FeatureModel(served.model, served.feature_repo, ALIAS, now=served.now.timestamp())
    found = timed(lambda instance: float(model.score([instance])[0][0]), served.instances, 5 * requests)
    model.stop()
    return found


def logged(workspace: Workspace, served: Served, requests: int) -> dict:
    """The same with a prediction log, for as long as this takes."""
    import IPython.core.history  # noqa: F401  before Feast: lifecycle/serving.py says why
    from feast import FeatureStore
    from feast.feature_logging import LoggingConfig
    from feast.infra.offline_stores.file_source import FileLoggingDestination

    store = FeatureStore(repo_path=str(served.feature_repo))
    service = store.get_feature_service(served.service)
    folder = workspace.path / "prediction_log"
    service.logging_config = LoggingConfig(destination=FileLoggingDestination(path=str(folder)))
    store.apply(service)
    try:
        found = in_process(workspace, served, requests)
    finally:
        service.logging_config = None
        store.apply(service)
    kept = sum(len(pd.read_parquet(file)) for file in folder.glob("*.parquet"))
    shutil.rmtree(folder)
    return found | {"kept": kept}


def over_http(workspace: Workspace, served: Served, requests: int) -> dict:
    """One client, one connection that is kept open, V1 protocol, one instance a request."""
    arguments = [
        "--feature-repo",
        served.feature_repo,
        "--model",
        served.model,
        "--alias",
        ALIAS,
        "--port",
        "{port}",
    ]
    command = [sys.executable, "-m", "lifecycle.serving", *arguments, "--now", served.now.timestamp()]
    health, log = f"/v2/models/{served.model}/ready", workspace.path / "logs" / "benchmark_server.log"
    with Service("model server", command, health=health, log=log) as server:
        connection = http.client.HTTPConnection(HOST, server.port, timeout=30)

        def ask(instance: dict) -> float:
            body, headers = json.dumps({"instances": [instance]}), {"Content-Type": "application/json"}
            connection.request("POST", f"/v1/models/{served.model}:predict", body, headers)
            return json.loads(connection.getresponse().read())["predictions"][0]

        return timed(ask, served.instances, requests)


def main(argv: list[str] | None = None) -> None:
    """The command line of the process of one contestant."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.online", description=__doc__)
    parser.add_argument("what", choices=["prepare", "in_process", "logged", "over_http"])
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--requests", type=int, default=2000)
    arguments = parser.parse_args(argv)
    if arguments.what == "prepare":
        homes.serving_home(arguments.home, MODEL)
        return
    workspace = Workspace(arguments.home.resolve())
    configure(workspace)
    contestants = {"in_process": in_process, "logged": logged, "over_http": over_http}
    found = []
    for story, served in STORIES.items():
        measured = contestants[arguments.what](workspace, served(workspace), arguments.requests)
        found.append({"data": story, "contestant": arguments.what, **measured})
    print(json.dumps(found))


if __name__ == "__main__":
    main()

"""A home with a served model, and how tests talk to its server."""

from __future__ import annotations

import shutil
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import mlflow
import pandas as pd
import pytest
import requests
from feast import FeatureService, FeatureStore
from feast.feature_logging import LoggingConfig
from feast.infra.offline_stores.file_source import FileLoggingDestination
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler

from helpers import registry
from helpers.data import NOW
from helpers.services import Service
from helpers.start import MODEL
from helpers.workspace import Workspace, configure, create_home
from lifecycle.features.contract import FeatureContract
from lifecycle.features.retrieval import historical_features

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

# The feature service that each version was trained on.
SERVICES = {"1": "rates", "2": "log_odds_and_rating", "3": "computed_only"}
DRIVER = 1001
LONG_AGO = NOW - timedelta(days=8)  # the hourly view's time to live is 7 days


def training(store: FeatureStore, service_name: str) -> tuple[pd.DataFrame, FeatureContract]:
    """Training rows of a feature service without those that lack a value, and its contract."""
    labels = pd.read_parquet(Path(store.repo_path).parent / "data" / "driver_labels.parquet").head(1500)
    frame = historical_features(store, labels, store.get_feature_service(service_name)).dropna()
    return frame, FeatureContract.from_feature_service(store, service_name, "label")


def register(store: FeatureStore, experiment: str, service_name: str) -> None:
    """Train and register a version of MODEL."""
    frame, contract = training(store, service_name)
    columns = contract.columns
    features = PolynomialFeatures(2, include_bias=False)
    model = make_pipeline(StandardScaler(), features, LogisticRegression(C=10))
    model.fit(frame[columns], frame.label)
    with mlflow.start_run(experiment_id=experiment):
        stored = {"pip_requirements": ["scikit-learn"], "metadata": {"feast": contract.to_dict()}}
        stored |= {"serialization_format": "skops", "input_example": frame[columns].astype("float64").head()}
        logged = mlflow.sklearn.log_model(model, name="model", **stored)
    mlflow.register_model(logged.model_uri, MODEL)


def served_home(folder: Path) -> Workspace:
    """A home with the features of every driver online, and the versions of SERVICES; 2 is in production."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(Path.cwd())
        for name in ("MLFLOW_TRACKING_URI", "TZ"):
            patch.setenv(name, "")
        # Some tests replace the database; a pooled connection of this process would keep the old one.
        patch.setenv("MLFLOW_SQLALCHEMYSTORE_POOLCLASS", "NullPool")
        workspace = create_home(folder / "home")
        configure(workspace)
        store = FeatureStore(repo_path=str(workspace.feature_repo))
        registry.apply(store, workspace.feature_repo)
        ratios = store.get_on_demand_feature_view("driver_ratios")
        store.apply(FeatureService(name="computed_only", features=[ratios[["conv_log_odds"]]]))
        experiment = mlflow.MlflowClient().create_experiment("tests", (workspace.path / "artifacts").as_uri())
        for service in SERVICES.values():
            register(store, experiment, service)
        mlflow.MlflowClient().set_registered_model_alias(MODEL, "production", "2")
        store.materialize(NOW - timedelta(days=7), NOW)
        return workspace


def logging_to(path: object, sample_rate: float = 1.0, **options: object) -> LoggingConfig:
    return LoggingConfig(FileLoggingDestination(path=str(path), **options), sample_rate)


def copy_with_a_log(served: Workspace, folder: Path) -> Workspace:
    """A copy of the served home in which each feature service has a log in ``workspace/predictions``."""
    own = create_home(folder / "home")
    for name in ("registry.db", "mlflow.db", "online_store.db"):
        shutil.copy(served.path / name, own.path / name)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("MLFLOW_TRACKING_URI", "TZ"):
            patch.setenv(name, "")
        configure(own)
        store = FeatureStore(repo_path=str(own.feature_repo))
        for name in (*SERVICES.values(), "driver_campaign"):
            service = store.get_feature_service(name)
            service.logging_config = logging_to(f"../workspace/predictions/{name}")
            store.apply(service)
    return own


def start(
    served: Workspace,
    alias: str = "production",
    name: str = MODEL,
    log: str = "model_server.log",
    now: datetime = NOW,
) -> Service:
    """The model server of a home, as a process, with the course's clock or another."""
    command = [sys.executable, "-m", "lifecycle", "serve", "--feature-repo", served.feature_repo]
    command += ["--model", name, "--alias", alias, "--port", "{port}", "--now", now.timestamp()]
    health, output = f"/v2/models/{name}/ready", served.path / "logs" / log
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", served.tracking_uri)
        return Service("model server", command, health=health, log=output, timeout=600)


def eventually(condition: Callable, message: str, seconds: float = 180) -> object:
    """What ``condition`` returns once that is true. The limit is far beyond what a busy machine needs."""
    end = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < end, message
        time.sleep(0.05)
    return result


def v1(server: Service, *drivers: object, session=requests) -> requests.Response:
    body = {"instances": [{"driver_id": driver} for driver in drivers]}
    return session.post(f"{server.url}/v1/models/{MODEL}:predict", json=body, timeout=60)


def tensor(**changes: object) -> dict:
    one = {"name": "driver_id", "datatype": "INT64", "shape": [1], "data": [DRIVER]} | changes
    return {"inputs": [{name: value for name, value in one.items() if value is not ...}]}


def v2(server: Service, body: dict) -> requests.Response:
    return requests.post(f"{server.url}/v2/models/{MODEL}/infer", json=body, timeout=60)


def get(server: Service, path: str, **options: object) -> tuple[int, dict]:
    """The status and the JSON of one of the server's pages."""
    answer = requests.get(server.url + path, timeout=60, **options)
    return answer.status_code, answer.json()


def status(server: Service) -> dict:
    return get(server, "/status")[1][MODEL]


def promote(server: Service, version: str) -> None:
    """Move the alias and wait until the server has followed."""
    mlflow.MlflowClient().set_registered_model_alias(MODEL, "production", version)
    followed = lambda: v1(server, DRIVER).json().get("model_version") == version  # noqa: E731
    eventually(followed, f"the server did not follow the alias: {server.tail()}")


def write(store: FeatureStore, driver: int, when: pd.Timestamp, conv_rate: float | None = 0.5) -> None:
    """Put a driver's row of each view straight into the online store, as a late or broken pipeline would."""
    keys = {"driver_id": [driver], "event_timestamp": [when], "created": [when]}
    hourly = pd.DataFrame(keys | {"conv_rate": [conv_rate], "acc_rate": [0.9], "avg_daily_trips": [9]})
    store.write_to_online_store("driver_hourly_stats", hourly.astype({"conv_rate": "float64"}))
    fresh = keys | {"event_timestamp": [NOW], "rating": [4.5], "tenure_days": [100]}
    store.write_to_online_store("driver_daily_profile", pd.DataFrame(fresh))

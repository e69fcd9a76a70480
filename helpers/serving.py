"""The model server of notebook 07: a KServe model that reads its features from Feast's online store.

The same class runs as a process on a laptop and as the container of an InferenceService on a cluster::

    python -m helpers.serving --feature-repo feature_repo --model driver_conversion --alias production --port 8080
"""

from __future__ import annotations

import argparse
import os
import threading
import time
import uuid
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Feast's SQLite store and IPython each register a converter for SQLite's "timestamp" in the whole process; the last import wins, and MLflow may import
# IPython later. With IPython first, online reads work.
import IPython.core.history  # noqa: F401  # isort: skip

import mlflow
import numpy as np
from fastapi import HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from feast import FeatureStore
from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer
from kserve.errors import InvalidInput
from kserve.model_server import app
from kserve.protocol.dataplane import DataPlane
from kserve.protocol.model_repository_extension import ModelRepositoryExtension
from starlette.exceptions import HTTPException as AnyHTTPException

MOST_ROWS = 1000  # in one request: more would hold up everybody else


def base_views(store: FeatureStore, service_name: str) -> list[str]:
    """The feature views that must be materialized to serve a feature service: its own, and those behind its on-demand views."""
    on_demand = {view.name: view for view in store.list_on_demand_feature_views()}
    names = set()
    for projection in store.get_feature_service(service_name).feature_view_projections:
        view = on_demand.get(projection.name)
        names |= {p.name for p in view.source_feature_view_projections.values()} if view else {projection.name}
    return sorted(names)


@dataclass(frozen=True)
class Loaded:
    """One version of the model, with all that a request needs."""

    version: str
    model: Any
    columns: list[str]
    # References to read: those of the contract, and one of each view that has no other, for its age.
    features: list[str]
    oldest: dict[str, float]  # seconds that a stored feature may be old


class DriverModel(Model):
    """Scores drivers by number: features from the online store, the model from the MLflow registry.

    Args:
        name: of the registered model, and of the model in the URL.
        feature_repo: folder of ``feature_store.yaml``.
        alias: of the model version to serve. When the alias moves, the server follows without a restart: it looks every ``watch`` seconds, and loads.
        now: the clock in seconds since 1970 for the age of features; the wall clock when left out.
        watch: seconds between two looks at the registry; after an error the pauses double, to 5 seconds at most.

    Requests name drivers: V1 ``{"instances": [{"driver_id": 1001}]}``, V2 one INT64 input ``driver_id`` of shape [n]. A driver without valid
    features (unknown, or older than the feature view's TTL, which an online store does not enforce) is refused with status 404.
    """

    def __init__(self, name: str, feature_repo: Path, alias: str, now: float | None = None, watch: float = 0.3):
        super().__init__(name)
        self.alias, self.now = alias, now
        self.store = FeatureStore(repo_path=str(feature_repo))
        self.registry = mlflow.MlflowClient()
        self.loaded = self._load(self._wanted())
        self.ready = True
        threading.Thread(target=self._follow, args=(watch,), daemon=True).start()

    def _wanted(self) -> str:
        return str(self.registry.get_model_version_by_alias(self.name, self.alias).version)

    def _load(self, version: str) -> Loaded:
        uri = f"models:/{self.name}/{version}"
        contract = mlflow.models.get_model_info(uri).metadata["feast"]
        service = self.store.get_feature_service(contract["feature_service"])
        served = [f"{p.name}:{f.name}" for p in service.feature_view_projections for f in p.features]
        if served != contract["feature_refs"]:
            raise ValueError(
                f"feature service {service.name} has changed since version {version} was trained: {served} is not {contract['feature_refs']}"
            )
        model, columns = mlflow.sklearn.load_model(uri), contract["columns"]
        if list(model.feature_names_in_) != columns:
            raise ValueError(
                f"version {version} was trained on {list(model.feature_names_in_)}, its contract says {columns}"
            )
        # From here on rows are arrays: a table a request costs more than the model. The first call is not on a customer's time.
        model.predict_proba(np.zeros((1, len(columns))))
        loaded = Loaded(version, model, columns, *self._ages(service.name, served))
        self._features(loaded, [0])  # opens the store
        return loaded

    def _ages(self, service: str, references: list[str]) -> tuple[list[str], dict[str, float]]:
        """What to read, and how old each stored feature may be. Feast gives a computed feature no time: it is as old as the views behind it."""
        references = list(references)
        views = {view.name: view for view in self.store.list_batch_feature_views()}
        for name in base_views(self.store, service):
            if not any(reference.startswith(f"{name}:") for reference in references):
                references.append(f"{name}:{views[name].features[0].name}")
        stored = [reference.split(":") for reference in references if reference.split(":")[0] in views]
        return references, {feature: views[name].ttl.total_seconds() for name, feature in stored if views[name].ttl}

    def _follow(self, watch: float) -> None:
        pause, said = watch, ""
        while True:
            time.sleep(pause)
            try:
                wanted = self._wanted()
                if wanted != self.loaded.version:
                    self.loaded = self._load(wanted)
                pause, said = watch, ""
            except Exception as error:  # the registry is away, or the new version is broken: keep serving the old one
                if said != (said := f"still serving version {self.loaded.version}: {error}"):
                    print(said, flush=True)
                pause = min(2 * pause, 5)

    def _features(self, loaded: Loaded, drivers: list[int]) -> dict[str, list]:
        rows = [{"driver_id": driver} for driver in drivers]
        response = self.store.get_online_features(features=loaded.features, entity_rows=rows)
        return response.to_dict(include_event_timestamps=True)

    def score(self, drivers: list[int]) -> tuple[np.ndarray, str]:
        """The probability of conversion of each driver, and the model version that says so.

        Raises:
            HTTPException: 404, a driver has no valid features; the message names the drivers and the features.
        """
        loaded = self.loaded  # one version for the whole request, even if the alias moves meanwhile
        values = self._features(loaded, drivers)
        now = time.time() if self.now is None else self.now
        refused = {}
        for row, driver in enumerate(drivers):
            missing = [name for name in loaded.columns if values[name][row] is None]
            stale = [name for name, ttl in loaded.oldest.items() if now - values[f"{name}__ts"][row] > ttl]
            if missing or stale:
                refused[driver] = f"missing {', '.join(missing)}" if missing else f"stale {', '.join(stale)}"
        if refused:
            said = "; ".join(f"driver {driver}: {why}" for driver, why in refused.items())
            raise HTTPException(404, f"no valid features for {len(refused)} of {len(drivers)} drivers ({said[:500]})")
        table = np.array([values[name] for name in loaded.columns], dtype="float64").T
        return loaded.model.predict_proba(table)[:, 1], loaded.version

    def get_input_types(self) -> list[dict]:
        """For the model's page of the Open Inference Protocol."""
        return [{"name": "driver_id", "datatype": "INT64", "shape": [-1]}]

    def get_output_types(self) -> list[dict]:
        """For the model's page of the Open Inference Protocol."""
        return [{"name": "score", "datatype": "FP64", "shape": [-1]}]

    def predict(
        self, payload: dict | InferRequest, headers: dict | None = None, response_headers: dict | None = None
    ) -> dict | InferResponse:
        """Answer a V1 or a V2 request."""
        if not isinstance(payload, InferRequest):
            scores, version = self.score(_drivers_v1(payload))
            return {"predictions": scores.tolist(), "model_version": version}
        scores, version = self.score(_drivers_v2(payload))
        output = InferOutput(name="score", shape=[len(scores)], datatype="FP64", parameters={})
        output.set_data_from_numpy(scores, binary_data=False)
        return InferResponse(payload.id or str(uuid.uuid4()), self.name, [output], model_version=version, parameters={})


def _checked(drivers: list) -> list[int]:
    if not drivers:
        raise InvalidInput("no driver was asked for")
    if len(drivers) > MOST_ROWS:
        raise InvalidInput(f"{len(drivers)} drivers in one request; at most {MOST_ROWS} are answered, so split it")
    for driver in drivers:
        if isinstance(driver, bool) or not isinstance(driver, int | np.integer):
            raise InvalidInput(f"driver_id must be a whole number, not {driver!r:.40}")
        if not 0 <= driver < 2**63:
            raise InvalidInput("driver_id must be at least 0 and fit into 64 bits")
    return [int(driver) for driver in drivers]


def _drivers_v1(payload: Any) -> list[int]:
    instances = payload.get("instances") if isinstance(payload, dict) else None
    if not isinstance(instances, list) or not all(isinstance(i, dict) and set(i) == {"driver_id"} for i in instances):
        raise InvalidInput('a V1 request is JSON, {"instances": [{"driver_id": 1001}, ...]}, sent as application/json')
    return _checked([instance["driver_id"] for instance in instances])


def _drivers_v2(payload: InferRequest) -> list[int]:
    inputs = payload.inputs
    if any(not isinstance(tensor.shape, list) for tensor in inputs):
        raise InvalidInput("a shape is a list of numbers")
    if len(inputs) != 1 or inputs[0].name != "driver_id" or inputs[0].datatype != "INT64" or len(inputs[0].shape) != 1:
        raise InvalidInput("a V2 request has one input: name driver_id, datatype INT64, shape [n], data [n numbers]")
    if any(output.name != "score" for output in payload.request_outputs or []):
        raise InvalidInput("the only output is score")
    if not isinstance(payload.id, str | None):
        raise InvalidInput("the id of a request is a string")
    data = inputs[0].data
    if not isinstance(data, list) or len(data) != inputs[0].shape[0]:
        raise InvalidInput("the shape of input driver_id does not fit its data")
    return _checked(data)


class _DataPlane(DataPlane):
    """KServe's, in which a body that cannot be read is the caller's mistake (400) and not the server's (500)."""

    def decode(self, body: Any, headers: dict, *arguments: Any, **named: Any) -> tuple:
        kind = headers.get("content-type", "").split(";")[0].strip()  # "; charset=utf-8" is no other kind of JSON
        try:
            return super().decode(body, {**headers, "content-type": kind} if kind else headers, *arguments, **named)
        except InvalidInput:
            raise
        except Exception as error:
            raise InvalidInput(f"the request cannot be read: {type(error).__name__}: {error}") from error

    def metadata(self) -> dict:
        return {**super().metadata(), "extensions": []}


class _Repository(ModelRepositoryExtension):
    """KServe lets every caller load and unload models. Here the alias decides, and nobody else."""

    async def load(self, model_name: str) -> None:
        raise HTTPException(403, "the alias in the model registry decides what is served")

    unload = load


async def _unreadable(_: Request, error: RequestValidationError) -> JSONResponse:
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    return JSONResponse({"error": f"{place}: {first['msg']}"}, 400)


async def _refused(_: Request, error: AnyHTTPException) -> JSONResponse:
    return JSONResponse({"error": str(error.detail)}, error.status_code, headers=error.headers)


class _Server(ModelServer):
    """KServe's server on a chosen interface: its own always takes all of them, and a workshop answers on loopback alone.

    The Open Inference Protocol wants a status of 4xx and ``{"error": text}`` for what is the caller's mistake. KServe leaves some of it to FastAPI,
    which answers in another form, and with 500 to a body with NaN in the wrong place.
    """

    host = "127.0.0.1"

    def __init__(self, **options: Any):
        super().__init__(**options)
        self.dataplane = _DataPlane(self.registered_models)
        self.model_repository_extension = _Repository(self.registered_models)
        app.add_exception_handler(RequestValidationError, _unreadable)
        app.add_exception_handler(AnyHTTPException, _refused)

    async def _serve(self) -> None:
        self._rest_server.config.host = self.host
        await super()._serve()


def main() -> None:
    """The command line: serve until the process is ended."""
    parser = argparse.ArgumentParser(prog="python -m helpers.serving", description="Serve a registered model.")
    parser.add_argument("--feature-repo", type=Path, required=True)
    parser.add_argument("--model", required=True, help="name in the MLflow registry")
    parser.add_argument("--alias", default="production")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0 in a container")
    parser.add_argument("--now", type=float, help="clock for the age of features, seconds since 1970")
    arguments = parser.parse_args()
    # DriverModel compares the names once, when it loads a version.
    warnings.filterwarnings("ignore", message="X does not have valid feature names")
    model = DriverModel(arguments.model, arguments.feature_repo.resolve(), arguments.alias, arguments.now)
    server = _Server(http_port=arguments.port, enable_grpc=False, workers=1)
    server.host = arguments.host
    server.start([model])


if __name__ == "__main__":
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    main()

"""The model server: a KServe model that reads its features from Feast's online store.

The same class runs as a process on a laptop and as the container of an InferenceService on a cluster::

    python -m lifecycle.serving --feature-repo feature_repo --model NAME --alias production --port 8080
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import threading
import time
import uuid
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Feast's SQLite store and IPython each register a converter for SQLite's "timestamp" in the whole process; the last import wins, and MLflow may import
# IPython later. Where IPython is installed it comes first, and online reads work; an image without it has no such conflict.
if importlib.util.find_spec("IPython"):
    import IPython.core.history  # noqa: F401  # isort: skip

import mlflow
import numpy as np
from fastapi import HTTPException
from feast import FeatureStore, ValueType
from feast.types import PrimitiveFeastType
from kserve import InferOutput, InferRequest, InferResponse, Model

from lifecycle.contract import ContractError, FeatureContract
from lifecycle.open_inference import INTEGER, NUMBER, TEXT, Rows, Server, rows_of_v1, rows_of_v2

_TYPES = {
    ValueType.INT32: INTEGER,
    ValueType.INT64: INTEGER,
    ValueType.FLOAT: NUMBER,
    ValueType.DOUBLE: NUMBER,
    ValueType.STRING: TEXT,
}


@dataclass(frozen=True)
class Loaded:
    """One version of the model, with all that a request needs.

    Attributes:
        version: in the model registry.
        model: the fitted estimator.
        columns: its input, in order.
        inputs: what a request names, by the protocol's type: join keys and request fields.
        features: references to read: those of the contract, and one of each view that has no other, for its age.
        oldest: seconds that a stored feature may be old, by name.
    """

    version: str
    model: Any
    columns: list[str]
    inputs: dict[str, str]
    features: list[str]
    oldest: dict[str, float]


def input_types(store: FeatureStore, contract: FeatureContract) -> dict[str, str]:
    """The Open Inference Protocol's type of each join key and request field of a contract.

    Raises:
        ContractError: a type that a request cannot carry, such as a list.
    """
    found: dict[str, Any] = {}
    for name in contract.base_views(store):
        for field in store.get_feature_view(name).entity_columns:
            found[field.name] = field.dtype
    for view in store.list_on_demand_feature_views():
        for source in view.source_request_sources.values():
            found |= {field.name: field.dtype for field in source.schema if field.name in contract.request_fields}
    types = {}
    for name in (*contract.join_keys, *contract.request_fields):
        dtype = found.get(name)
        kind = _TYPES.get(dtype.to_value_type()) if isinstance(dtype, PrimitiveFeastType) else None
        if kind is None:
            raise ContractError(f"{name} is of type {dtype}; a request can carry whole numbers, numbers and text.")
        types[name] = kind
    return types


class FeatureModel(Model):
    """Scores entities by their join keys: features from the online store, the model from the MLflow registry.

    Args:
        name: of the registered model, and of the model in the URL.
        feature_repo: folder of ``feature_store.yaml``.
        alias: of the model version to serve. When the alias moves, the server follows without a restart: it looks every ``watch`` seconds, and loads.
        now: the clock in seconds since 1970 for the age of features; the wall clock when left out.
        watch: seconds between two looks at the registry; after an error the pauses double, to 5 seconds at most.

    Requests name entities by the join keys of the model's feature contract: V1 ``{"instances": [{key: value, ...}, ...]}``, V2 one input of shape
    [n] per key. An entity without valid features (unknown, or older than the feature view's TTL, which an online store does not enforce) is refused
    with status 404.
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
        contract = FeatureContract.of_model(uri)
        contract.check(self.store)
        model = mlflow.sklearn.load_model(uri)
        if list(model.feature_names_in_) != contract.columns:
            raise ContractError(
                f"version {version} was trained on {list(model.feature_names_in_)}, its contract says {contract.columns}"
            )
        # From here on rows are arrays: a table a request costs more than the model. The first call is not on a customer's time.
        model.predict_proba(np.zeros((1, len(contract.columns))))
        inputs = input_types(self.store, contract)
        loaded = Loaded(version, model, contract.columns, inputs, *contract.reads(self.store))
        self._features(loaded, [{name: "" if kind == TEXT else 0 for name, kind in inputs.items()}])  # opens the store
        return loaded

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

    def _features(self, loaded: Loaded, rows: Rows) -> dict[str, list]:
        response = self.store.get_online_features(features=loaded.features, entity_rows=rows)
        return response.to_dict(include_event_timestamps=True)

    def score(self, rows: Rows, loaded: Loaded | None = None) -> tuple[np.ndarray, str]:
        """The probability of the outcome 1 for each entity, and the model version that says so.

        Args:
            rows: n entities, each with its join keys and request fields.
            loaded: the version to ask; the one that serves when left out.

        Raises:
            HTTPException: 404, an entity has no valid features; the message names the entities and the features.
        """
        loaded = loaded or self.loaded  # one version for the whole request, even if the alias moves meanwhile
        values = self._features(loaded, rows)
        now = time.time() if self.now is None else self.now
        refused = []
        for place, row in enumerate(rows):
            missing = [name for name in loaded.columns if values[name][place] is None]
            stale = [name for name, limit in loaded.oldest.items() if now - values[f"{name}__ts"][place] > limit]
            if missing or stale:
                entity = ", ".join(f"{name}={value}" for name, value in row.items())
                why = f"missing {', '.join(missing)}" if missing else f"stale {', '.join(stale)}"
                refused.append(f"{entity}: {why}")
        if refused:
            said = "; ".join(refused)
            raise HTTPException(404, f"no valid features for {len(refused)} of {len(rows)} entities ({said[:500]})")
        table = np.array([values[name] for name in loaded.columns], dtype="float64").T
        return loaded.model.predict_proba(table)[:, 1], loaded.version

    def get_input_types(self) -> list[dict]:
        """For the model's page of the Open Inference Protocol."""
        return [{"name": name, "datatype": kind, "shape": [-1]} for name, kind in self.loaded.inputs.items()]

    def get_output_types(self) -> list[dict]:
        """For the model's page of the Open Inference Protocol."""
        return [{"name": "score", "datatype": "FP64", "shape": [-1]}]

    def predict(
        self, payload: dict | InferRequest, headers: dict | None = None, response_headers: dict | None = None
    ) -> dict | InferResponse:
        """Answer a V1 or a V2 request."""
        loaded = self.loaded
        if not isinstance(payload, InferRequest):
            scores, version = self.score(rows_of_v1(payload, loaded.inputs), loaded)
            return {"predictions": scores.tolist(), "model_version": version}
        scores, version = self.score(rows_of_v2(payload, loaded.inputs, "score"), loaded)
        output = InferOutput(name="score", shape=[len(scores)], datatype="FP64", parameters={})
        output.set_data_from_numpy(scores, binary_data=False)
        return InferResponse(payload.id or str(uuid.uuid4()), self.name, [output], model_version=version, parameters={})


def main() -> None:
    """The command line: serve until the process is ended."""
    parser = argparse.ArgumentParser(prog="python -m lifecycle.serving", description="Serve a registered model.")
    parser.add_argument("--feature-repo", type=Path, required=True)
    parser.add_argument("--model", required=True, help="name in the MLflow registry")
    parser.add_argument("--alias", default="production")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0 in a container")
    parser.add_argument("--now", type=float, help="clock for the age of features, seconds since 1970")
    arguments = parser.parse_args()
    # FeatureModel compares the names once, when it loads a version.
    warnings.filterwarnings("ignore", message="X does not have valid feature names")
    model = FeatureModel(arguments.model, arguments.feature_repo.resolve(), arguments.alias, arguments.now)
    Server(arguments.host, arguments.port).start([model])


if __name__ == "__main__":
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    main()

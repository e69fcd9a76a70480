"""The model server: a KServe model that reads its features from Feast's online store.

The same class runs as a process on a laptop (``lifecycle serve``) and as the container of an InferenceService
on a cluster.
"""

from __future__ import annotations

import importlib.util
import math
import os
import time
import uuid
import warnings
from collections.abc import Collection
from pathlib import Path
from typing import Any

# Feast's SQLite store and IPython each register a converter for SQLite's "timestamp" in the whole process;
# the last import wins, and MLflow may import IPython later. Where IPython is installed it comes first, and
# online reads work; an image without it has no such conflict.
if importlib.util.find_spec("IPython"):
    import IPython.core.history  # noqa: F401  # isort: skip

import numpy as np
from fastapi import HTTPException
from kserve import InferOutput, InferRequest, InferResponse, Model
from prometheus_client import Histogram

from lifecycle.models.model import TYPES
from lifecycle.models.recipe import Recipe
from lifecycle.serving.inference_server import Server
from lifecycle.serving.limits import MOST_WAITING, REFUSED, THREADS, Pool
from lifecycle.serving.open_inference import Rows, rows_of_v1, rows_of_v2
from lifecycle.serving.prediction_log import Answer, PredictionLog
from lifecycle.serving.watching import AGE as _AGE
from lifecycle.serving.watching import Follower, Loaded
from lifecycle.settings import Serving, Settings

SKEW = Serving().skew_seconds
"""Seconds that a stored feature may lie in the future, as clocks of two machines differ.

Further ahead, it would never grow stale."""
_SCORE = Histogram(
    "lifecycle_score", "Scores.", ["model_name"], buckets=[tenth / 10 for tenth in range(1, 11)]
)


class FeatureModel(Model):
    """Scores entities by their join keys: features from the online store, the model from the MLflow registry.

    Args:
        name: of the registered model, and of the model in the URL.
        feature_repo: folder of ``feature_store.yaml``.
        alias: of the model version to serve. When the alias moves, the server follows without a restart: it
            looks every ``watch`` seconds, and loads.
        now: the clock in seconds since 1970 for the age of features and the time of a logged prediction; the
            wall clock when left out. It may be set while the server runs.
        watch: seconds between two looks at both registries; after an error the pauses double, to 5 seconds at
            most.
        types: full names of the types that a stored model may hold.
        task: ``binary``, and a score is the probability of the outcome 1; or ``regression``, and it is the
            value that the model predicts.
        skew: seconds that a stored feature may lie in the future.
        most_waiting: requests that wait for a thread.

    Requests name entities by the join keys of the model's feature contract: V1 ``{"instances": [{key: value,
    ...}, ...]}``, V2 one input of shape [n] per key. An entity without valid features (unknown, older than
    the feature view's TTL, which an online store does not enforce, from the future, or not finite) is refused
    with status 404.

    A version that must not serve never replaces the one that does; ``lifecycle.models.versions`` says which
    those are. When a definition in the feature registry is no longer that of the training, the server stops:
    it refuses with 503, and is not ready, until the definition is back or the alias names a version that was
    trained with the new one. Until it notices, it answers by the old definition, so no answer mixes two.

    Answers are kept when the feature service asks for it; see ``lifecycle.serving.prediction_log``.

    Raises:
        lifecycle.models.versions.VersionRefused: the version that the alias names must not serve.
        lifecycle.features.contract.ContractError: its contract does not fit the feature registry.
        FileNotFoundError: the online store's file does not exist.
    """

    def __init__(
        self,
        name: str,
        feature_repo: Path,
        alias: str,
        now: float | None = None,
        watch: float = 0.5,
        *,
        types: Collection[str] = TYPES,
        task: str = "binary",
        skew: float = SKEW,
        most_waiting: int = MOST_WAITING,
    ):
        super().__init__(name)
        self.now, self._skew = now, skew
        self._predict = _probabilities if task == "binary" else _values
        self.follower = Follower(name, feature_repo, alias, watch, types, task)
        # One connection serves all threads of an SQLite store. While one of them waits for a lock in it, the
        # next would wait for the connection and hold Python's own lock meanwhile: the whole server would
        # stand still.
        self.pool = Pool(
            1 if self.follower.store.config.online_store.type == "sqlite" else THREADS, most_waiting
        )
        self.log = PredictionLog(name, self.follower.say)
        self.ready = True

    @property
    def loaded(self) -> Loaded:
        """The version that serves."""
        return self.follower.loaded

    @property
    def not_ready(self) -> str:
        """Why not; read by the server before each request."""
        return self.follower.not_ready

    def status(self) -> dict[str, Any]:
        """Which version is wanted, which serves and why; whether the server is ready and follows."""
        return self.follower.status()

    def stop(self) -> None:
        """Stop looking, and write what the log still holds. KServe calls this when the server ends."""
        self.follower.stop()
        self.log.close()

    def _features(self, loaded: Loaded, rows: Rows) -> dict[str, list]:
        return loaded.reader.read(rows)

    def score(self, rows: Rows, loaded: Loaded | None = None) -> tuple[np.ndarray, str]:
        """The score of each entity, and the model version that says so.

        Args:
            rows: n entities, each with its join keys and request fields.
            loaded: the version to ask; the one that serves when left out.

        Raises:
            HTTPException: 404, an entity has no valid features; the message names the entities and the
                features.
        """
        loaded = loaded or self.loaded  # one version for the whole request, even if the alias moves meanwhile
        values = self._features(loaded, rows)
        now = time.time() if self.now is None else self.now
        columns = loaded.contract.columns
        reasons: dict[int, tuple[str, str]] = {}
        for place in range(len(rows)):
            if found := _invalid(loaded, columns, values, place, now, self._skew):
                reasons[place] = found
        for name in loaded.oldest:
            # A request that began before the alias moved must not bring back what was removed then.
            if loaded is self.loaded and (times := [found for found in values[f"{name}__ts"] if found]):
                _AGE.labels(self.name, name).set(now - min(times))
        if reasons:
            raise _no_valid_features(rows, reasons)
        table = np.array([values[name] for name in columns], dtype="float64").T
        scores = self._predict(loaded.model, table)
        if not np.isfinite(scores).all():
            for place in np.flatnonzero(~np.isfinite(scores)).tolist():
                named = ", ".join(f"{name} {values[name][place]:g}" for name in columns)
                reasons[place] = "out of range", named
            raise _no_valid_features(rows, reasons)
        observe = _SCORE.labels(self.name).observe
        for score in scores.tolist():
            observe(score)
        if loaded.layout:
            self.log.add(Answer(loaded.layout, now, rows, values, scores, loaded.version.number))
        return scores, loaded.version.number

    def get_input_types(self) -> list[dict]:
        """For the model's page of the Open Inference Protocol."""
        return [{"name": name, "datatype": kind, "shape": [-1]} for name, kind in self.loaded.inputs.items()]

    def get_output_types(self) -> list[dict]:
        """For the model's page of the Open Inference Protocol."""
        return [{"name": "score", "datatype": "FP64", "shape": [-1]}]

    async def predict(
        self, payload: dict | InferRequest, headers: dict | None = None, response_headers: dict | None = None
    ) -> dict | InferResponse:
        """Answer a V1 or a V2 request, from a thread of the pool."""
        return await self.pool.run(self._answer, payload)

    def _answer(self, payload: dict | InferRequest) -> dict | InferResponse:
        loaded = self.loaded
        if not isinstance(payload, InferRequest):
            scores, version = self.score(rows_of_v1(payload, loaded.inputs), loaded)
            return {"predictions": scores.tolist(), "model_version": version}
        scores, version = self.score(rows_of_v2(payload, loaded.inputs, "score"), loaded)
        output = InferOutput(name="score", shape=[len(scores)], datatype="FP64", parameters={})
        output.set_data_from_numpy(scores, binary_data=False)
        return InferResponse(
            payload.id or str(uuid.uuid4()), self.name, [output], model_version=version, parameters={}
        )


def _invalid(
    loaded: Loaded, columns: list[str], values: dict[str, list], place: int, now: float, skew: float
) -> tuple[str, str] | None:
    """The first reason why features of one entity are not valid, and which; None when all are."""
    missing = [name for name in columns if values[name][place] is None]
    if missing:
        return "missing", ", ".join(missing)
    stale = [name for name, limit in loaded.oldest.items() if now - values[f"{name}__ts"][place] > limit]
    if stale:
        return "stale", ", ".join(stale)
    early = [name for name in loaded.oldest if values[f"{name}__ts"][place] > now + skew]
    if early:
        return "from the future", ", ".join(early)
    absurd = [name for name in columns if not math.isfinite(values[name][place])]
    return ("not finite", ", ".join(absurd)) if absurd else None


def _no_valid_features(rows: Rows, reasons: dict[int, tuple[str, str]]) -> HTTPException:
    said = []
    for place, (reason, names) in reasons.items():
        entity = ", ".join(f"{name}={value}" for name, value in rows[place].items())
        said.append(f"{entity}: {reason} {names}")
    REFUSED.labels(next(iter(reasons.values()))[0]).inc()
    return HTTPException(
        404, f"no valid features for {len(said)} of {len(rows)} entities ({'; '.join(said)[:400]})"
    )


def _probabilities(model: Any, table: np.ndarray) -> np.ndarray:
    """Of the outcome 1, for each row; NaN where the model cannot compute it, as when a square overflows."""
    with np.errstate(all="ignore"):
        try:
            return model.predict_proba(table)[:, 1]
        except ValueError:  # scikit-learn refuses the whole table for one row
            if len(table) == 1:
                return np.full(1, np.nan)
            return np.concatenate([_probabilities(model, row[None]) for row in table])


def _values(model: Any, table: np.ndarray) -> np.ndarray:
    """What a regression predicts for each row; NaN where it cannot."""
    with np.errstate(all="ignore"):
        try:
            return np.asarray(model.predict(table), dtype="float64")
        except ValueError:
            if len(table) == 1:
                return np.full(1, np.nan)
            return np.concatenate([_values(model, row[None]) for row in table])


def serve(settings: Settings, host: str, now: float | None = None) -> None:
    """Serve until the process is ended.

    Args:
        settings: of the project.
        host: address of the interface, such as ``127.0.0.1``.
        now: see ``FeatureModel``.
    """
    # A pooled connection goes on reading a database file that was replaced.
    os.environ.setdefault("MLFLOW_SQLALCHEMYSTORE_POOLCLASS", "NullPool")
    # The names are compared once, when a version is loaded.
    warnings.filterwarnings("ignore", message="X does not have valid feature names")
    # Between KServe and FastAPI, at each request.
    warnings.filterwarnings("ignore", message="ORJSONResponse is deprecated")
    limits, recipe = settings.serving, Recipe.from_settings(settings.training)
    model = FeatureModel(
        settings.model,
        settings.path(settings.feature_repo).resolve(),
        settings.alias,
        now,
        types=recipe.allowed_types,
        task=recipe.task,
        skew=limits.skew_seconds,
        most_waiting=limits.most_waiting,
    )
    Server(host, limits.port, limits.hosts, limits.most_bytes).start([model])

"""The model server: a KServe model that reads its features from Feast's online store.

The same class runs as a process on a laptop and as the container of an InferenceService on a cluster::

    python -m lifecycle.serving --feature-repo feature_repo --model NAME --alias production --port 8080
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import math
import os
import tempfile
import threading
import time
import uuid
import warnings
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Feast's SQLite store and IPython each register a converter for SQLite's "timestamp" in the whole process;
# the last import wins, and MLflow may import IPython later. Where IPython is installed it comes first, and
# online reads work; an image without it has no such conflict.
if importlib.util.find_spec("IPython"):
    import IPython.core.history  # noqa: F401  # isort: skip

import mlflow
import numpy as np
from fastapi import HTTPException
from feast import FeatureStore, RepoConfig, ValueType
from feast.types import PrimitiveFeastType
from kserve import InferOutput, InferRequest, InferResponse, Model
from prometheus_client import Counter, Gauge, Histogram, Info

from lifecycle.contract import ContractError, FeatureContract
from lifecycle.limits import LOOPBACK, REFUSED, THREADS, Pool, one_line
from lifecycle.open_inference import INTEGER, NUMBER, TEXT, Rows, Server, rows_of_v1, rows_of_v2
from lifecycle.prediction_log import Answer, Layout, PredictionLog
from lifecycle.versions import Version, VersionRefused, behind_alias, read

SKEW = 60.0
"""Seconds that a stored feature may lie in the future, as clocks of two machines differ.

Further ahead, it would never grow stale."""
FOLLOWS = 15.0
"""Seconds since the last successful look at both registries up to which the server follows them."""
_SERVED = Info("lifecycle_served_version", "The model version that serves.", ["model_name"])
_LOOK = Gauge(
    "lifecycle_registry_look_timestamp_seconds", "Last successful look at both registries.", ["model_name"]
)
_FOLLOWS = Gauge("lifecycle_follows", "1 while the registries are looked at.", ["model_name"])
_READY = Gauge("lifecycle_ready", "0 while a definition is not that of the training.", ["model_name"])
_AGE = Gauge("lifecycle_feature_age_seconds", "Oldest value of the last request.", ["model_name", "feature"])
_AGE_LIMIT = Gauge(
    "lifecycle_feature_age_limit_seconds",
    "Time to live of a stored feature, if it has one.",
    ["model_name", "feature"],
)
_SCORE = Histogram(
    "lifecycle_score", "Scores.", ["model_name"], buckets=[tenth / 10 for tenth in range(1, 11)]
)
_KEPT_OUT = Counter(
    "lifecycle_refused_versions", "Versions that the alias named and that must not serve.", ["model_name"]
)
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
        contract: its feature contract.
        inputs: what a request names, by the protocol's type: join keys and request fields.
        features: references to read: those of the contract, and one of each view that has no other, for its
            age.
        oldest: seconds that a stored feature may be old, by name.
        store: the feature store with the definitions of the moment of loading; see ``pinned``.
        folder: holds the copy of the registry.
        store_file: what tells one online store in a file from another that takes its place; None for a store
            that is a server.
        layout: of the prediction log; None when the feature service has no ``logging_config``.
    """

    version: Version
    model: Any
    contract: FeatureContract
    inputs: dict[str, str]
    features: list[str]
    oldest: dict[str, float]
    store: FeatureStore
    folder: tempfile.TemporaryDirectory
    store_file: tuple[int, int] | None
    layout: Layout | None


def pinned(store: FeatureStore, folder: Path, views: Collection[str]) -> FeatureStore:
    """A feature store that keeps the definitions that ``store`` has read, whatever is applied later.

    Feast would pick up a changed definition in the middle of serving, and make a function of each on-demand
    view of the project, whoever needs it.

    Args:
        store: with the registry to copy.
        folder: for the copy; it must last as long as the store is used.
        views: names of the feature views to take along.
    """
    path, proto = folder / "registry.db", type(store.registry.proto())()
    proto.CopyFrom(store.registry.proto())
    for found in (proto.feature_views, proto.stream_feature_views, proto.on_demand_feature_views):
        kept = [view for view in found if view.spec.name in views]
        del found[:]
        found.extend(kept)
    for view in proto.on_demand_feature_views:
        function = view.spec.feature_transformation.user_defined_function
        # Feast would unpickle the body where the text cannot be executed; the text is what was compared.
        if function.body_text:
            function.body = b""
    path.write_bytes(proto.SerializeToString())
    settings = store.config.model_dump(by_alias=True, exclude_none=True)
    # A time to live of 0 means for ever: by default Feast would read the copy again every ten minutes.
    settings |= {"registry": {"path": str(path), "cache_ttl_seconds": 0}, "repo_path": store.config.repo_path}
    return FeatureStore(config=RepoConfig(**settings))


def online_file(store: FeatureStore) -> tuple[int, int] | None:
    """Device and number of the file that holds an SQLite online store; None for any other store.

    Raises:
        FileNotFoundError: there is no such file. (Feast would create an empty one.)
    """
    if store.config.online_store.type != "sqlite":
        return None
    try:
        found = (Path(store.config.repo_path or ".") / store.config.online_store.path).stat()
    except FileNotFoundError:
        raise FileNotFoundError(
            "the online store's file is gone; materialize the feature views, or restore it"
        ) from None
    return found.st_dev, found.st_ino


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
            found |= {
                field.name: field.dtype for field in source.schema if field.name in contract.request_fields
            }
    types = {}
    for name in (*contract.join_keys, *contract.request_fields):
        dtype = found.get(name)
        kind = _TYPES.get(dtype.to_value_type()) if isinstance(dtype, PrimitiveFeastType) else None
        if kind is None:
            raise ContractError(
                f"{name} is of type {dtype}; a request can carry whole numbers, numbers and text."
            )
        types[name] = kind
    return types


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

    Requests name entities by the join keys of the model's feature contract: V1 ``{"instances": [{key: value,
    ...}, ...]}``, V2 one input of shape [n] per key. An entity without valid features (unknown, older than
    the feature view's TTL, which an online store does not enforce, from the future, or not finite) is refused
    with status 404.

    A version that must not serve never replaces the one that does; ``lifecycle.versions`` says which those
    are. When a definition in the feature registry is no longer that of the training, the server stops: it
    refuses with 503, and is not ready, until the definition is back or the alias names a version that was
    trained with the new one. Until it notices, it answers by the old definition, so no answer mixes two.

    Answers are kept when the feature service asks for it; see ``lifecycle.prediction_log``.

    Raises:
        lifecycle.versions.VersionRefused: the version that the alias names must not serve.
        lifecycle.contract.ContractError: its contract does not fit the feature registry.
        FileNotFoundError: the online store's file does not exist.
    """

    def __init__(
        self, name: str, feature_repo: Path, alias: str, now: float | None = None, watch: float = 0.5
    ):
        super().__init__(name)
        self.alias, self.now = alias, now
        self.not_ready = ""  # why not; read by the server before each request
        self._refusal = self._said = ""
        self.store = FeatureStore(repo_path=str(feature_repo))
        self.registry = mlflow.MlflowClient()
        # One connection serves all threads of an SQLite store. While one of them waits for a lock in it, the
        # next would wait for the connection and hold Python's own lock meanwhile: the whole server would
        # stand still.
        self.pool = Pool(1 if self.store.config.online_store.type == "sqlite" else THREADS)
        self.log = PredictionLog(name, self._say)
        self._take(self._load(behind_alias(self.registry, name, alias)))
        self._wanted = self.loaded.version
        self._noted()
        _FOLLOWS.labels(name).set_function(lambda: float(self.follows))
        _READY.labels(name).set_function(lambda: float(not self.not_ready))
        # 0 from the first look on: a counter that begins with its first event has no increase.
        _KEPT_OUT.labels(name)
        self.ready, self._end = True, threading.Event()
        threading.Thread(target=self._follow, args=(watch,), daemon=True).start()

    def _load(self, version: Version) -> Loaded:
        model, contract = read(self.name, version)
        folder, file = tempfile.TemporaryDirectory(prefix="definitions-"), online_file(self.store)
        self.store.refresh_registry()
        store = pinned(self.store, Path(folder.name), contract.definitions)
        contract.check(store)  # what is compared is what serves
        inputs = input_types(store, contract)
        layout = Layout.of_service(store, contract.feature_service)
        loaded = Loaded(version, model, contract, inputs, *contract.reads(store), store, folder, file, layout)
        # The first read opens the store, and is not on a customer's time.
        self._features(loaded, [{name: "" if kind == TEXT else 0 for name, kind in inputs.items()}])
        return loaded

    def _take(self, loaded: Loaded, measured: Collection[str] = ()) -> None:
        self.loaded, self.not_ready, self._refusal = loaded, "", ""
        for feature in measured:  # by the version before
            _AGE_LIMIT.remove(self.name, feature)
            if feature not in loaded.oldest:
                _AGE.remove(self.name, feature)
        for feature, limit in loaded.oldest.items():
            if math.isfinite(limit):
                _AGE_LIMIT.labels(self.name, feature).set(limit)
        _SERVED.labels(self.name).info(
            {"version": loaded.version.number, "model_id": loaded.version.model_id}
        )

    def _noted(self) -> None:
        self._looked, self._since = time.time(), time.monotonic()
        _LOOK.labels(self.name).set(self._looked)

    @property
    def follows(self) -> bool:
        """Whether the last successful look at both registries was a moment ago."""
        return time.monotonic() - self._since < FOLLOWS

    def _follow(self, watch: float) -> None:
        pause = watch
        while not self._end.wait(pause):
            try:
                self._look()
                pause = watch
            except BaseException as error:  # whatever it is, SystemExit included: this thread must not end
                serves = self.loaded.version.number
                self._say(f"still serving version {serves}: {error or type(error).__name__}")
                pause = min(2 * pause, 5)

    def stop(self) -> None:
        """Stop looking, and write what the log still holds. KServe calls this when the server ends."""
        self._end.set()
        self.log.close()

    def _look(self) -> None:
        """Compare what serves with what both registries and the online store say now."""
        self.store.refresh_registry()
        try:
            self.loaded.contract.check_definitions(self.store)
        except ContractError as error:
            self.not_ready = str(error)
            self._say(f"stopped, not ready: {error}")
        else:
            if self.not_ready:
                self.not_ready = ""
                self._say(f"ready again, with version {self.loaded.version.number}")
        self._wanted = wanted = behind_alias(self.registry, self.name, self.alias)
        self._noted()
        if wanted == self.loaded.version and online_file(self.store) == self.loaded.store_file:
            self._refusal = ""
            if not self.not_ready:
                self._said = ""  # the next trouble is news, even if it is the same
            return
        try:
            self._take(self._load(wanted), measured=self.loaded.oldest)
        except BaseException as error:
            # Any caller may read the status: what is not a refusal of ours may name files of this machine,
            # and is for the log.
            ours = isinstance(error, VersionRefused | ContractError)
            said = one_line(str(error), 500) if ours else f"{type(error).__name__} while it was loaded"
            if self._refusal != (refusal := f"version {wanted.number} must not serve: {said}"):
                self._refusal = refusal
                _KEPT_OUT.labels(self.name).inc()
                if not ours:
                    self._say(f"version {wanted.number}: {type(error).__name__}: {error}")
            raise RuntimeError(refusal) from error
        self._say(f"serving version {wanted.number}")

    def _say(self, text: str) -> None:
        if text != self._said:
            self._said = text
            # Nobody may read the standard output any more, or it has no room.
            with contextlib.suppress(OSError, ValueError):
                print(one_line(text), flush=True)

    def status(self) -> dict[str, Any]:
        """Which version is wanted, which serves and why; whether the server is ready and follows."""
        serves, wanted = (
            {"version": v.number, "model_id": v.model_id} for v in (self.loaded.version, self._wanted)
        )
        return {
            "alias": self.alias,
            "wanted": wanted,
            "serves": serves,
            "refused": self._refusal or None,
            "ready": not self.not_ready,
            "not_ready": self.not_ready or None,
            "follows": self.follows,
            "last_look": self._looked,
            "definitions": self.loaded.contract.definitions,
        }

    def _features(self, loaded: Loaded, rows: Rows) -> dict[str, list]:
        response = loaded.store.get_online_features(features=loaded.features, entity_rows=rows)
        return response.to_dict(include_event_timestamps=True)

    def score(self, rows: Rows, loaded: Loaded | None = None) -> tuple[np.ndarray, str]:
        """The probability of the outcome 1 for each entity, and the model version that says so.

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
            if found := _invalid(loaded, columns, values, place, now):
                reasons[place] = found
        for name in loaded.oldest:
            # A request that began before the alias moved must not bring back what was removed then.
            if loaded is self.loaded and (times := [found for found in values[f"{name}__ts"] if found]):
                _AGE.labels(self.name, name).set(now - min(times))
        if reasons:
            raise _no_valid_features(rows, reasons)
        table = np.array([values[name] for name in columns], dtype="float64").T
        scores = _probabilities(loaded.model, table)
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
    loaded: Loaded, columns: list[str], values: dict[str, list], place: int, now: float
) -> tuple[str, str] | None:
    """The first reason why features of one entity are not valid, and which; None when all are."""
    missing = [name for name in columns if values[name][place] is None]
    if missing:
        return "missing", ", ".join(missing)
    stale = [name for name, limit in loaded.oldest.items() if now - values[f"{name}__ts"][place] > limit]
    if stale:
        return "stale", ", ".join(stale)
    early = [name for name in loaded.oldest if values[f"{name}__ts"][place] > now + SKEW]
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


def main() -> None:
    """The command line: serve until the process is ended."""
    parser = argparse.ArgumentParser(
        prog="python -m lifecycle.serving", description="Serve a registered model."
    )
    parser.add_argument("--feature-repo", type=Path, required=True)
    parser.add_argument("--model", required=True, help="name in the MLflow registry")
    parser.add_argument("--alias", default="production")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0 in a container")
    parser.add_argument("--now", type=float, help="clock for the age of features, seconds since 1970")
    parser.add_argument(
        "--hosts",
        nargs="+",
        default=LOOPBACK,
        help="names by which callers may call it, without a port; '*' in a container",
    )
    arguments = parser.parse_args()
    # A pooled connection goes on reading a database file that was replaced.
    os.environ.setdefault("MLFLOW_SQLALCHEMYSTORE_POOLCLASS", "NullPool")
    # The names are compared once, when a version is loaded.
    warnings.filterwarnings("ignore", message="X does not have valid feature names")
    # Between KServe and FastAPI, at each request.
    warnings.filterwarnings("ignore", message="ORJSONResponse is deprecated")
    model = FeatureModel(arguments.model, arguments.feature_repo.resolve(), arguments.alias, arguments.now)
    Server(arguments.host, arguments.port, arguments.hosts).start([model])


if __name__ == "__main__":
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    main()

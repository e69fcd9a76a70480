"""Which version of the model serves: both registries are watched, a version is loaded beside the old one."""

from __future__ import annotations

import contextlib
import math
import tempfile
import threading
import time
import uuid
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
from feast import FeatureStore, RepoConfig
from prometheus_client import Counter, Gauge, Info

from lifecycle.features.contract import ContractError, FeatureContract, entity_columns
from lifecycle.features.declared import protocol_type
from lifecycle.features.online import OnlineReader
from lifecycle.models.versions import Version, VersionRefused, load_version, stored_files, version_by_alias
from lifecycle.serving.limits import one_line
from lifecycle.serving.open_inference import TEXT
from lifecycle.serving.prediction_log import LogSchema

FOLLOWS = 15.0
"""Seconds since the last successful look at both registries up to which the server follows them."""
_SERVED = Info("lifecycle_served_version", "The model version that serves.", ["model_name"])
_LOOK = Gauge(
    "lifecycle_registry_look_timestamp_seconds", "Last successful look at both registries.", ["model_name"]
)
_FOLLOWS = Gauge("lifecycle_follows", "1 while the registries are looked at.", ["model_name"])
_READY = Gauge("lifecycle_ready", "0 while a definition is not that of the training.", ["model_name"])
AGE = Gauge("lifecycle_feature_age_seconds", "Oldest value of the last request.", ["model_name", "feature"])
_AGE_LIMIT = Gauge(
    "lifecycle_feature_age_limit_seconds",
    "Time to live of a stored feature, if it has one.",
    ["model_name", "feature"],
)
_KEPT_OUT = Counter(
    "lifecycle_refused_versions", "Versions that the alias named and that must not serve.", ["model_name"]
)


@dataclass(frozen=True)
class Loaded:
    """One version of the model, with all that a request needs.

    Attributes:
        version: in the model registry.
        model: the fitted estimator.
        contract: its feature contract.
        inputs: what a request names, by the protocol's type: join keys and request fields.
        reader: of its features.
        oldest: seconds that a stored feature may be old, by column.
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
    reader: OnlineReader
    oldest: dict[str, float]
    store: FeatureStore
    folder: tempfile.TemporaryDirectory
    store_file: tuple[int, int] | None
    layout: LogSchema | None


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
    # Feast keeps lists of views by the address of a registry in memory and this id: a copy needs its own.
    proto.version_id = str(uuid.uuid4())
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
    keys, fields = entity_columns(store, contract)
    types = {name: protocol_type(dtype) for name, dtype in {**keys, **fields}.items()}
    if unknown := [name for name, kind in types.items() if kind is None]:
        raise ContractError(f"a request cannot carry the type of {', '.join(unknown)}")
    return {name: types[name] or "" for name in (*contract.join_keys, *contract.request_fields)}


class Follower:
    """The version that an alias names, loaded; the alias and both registries are looked at from a thread.

    A version that must not serve never replaces the one that does. It is not read again until it changes.

    Args:
        name: of the registered model.
        feature_repo: folder of ``feature_store.yaml``.
        alias: of the model version to serve.
        watch: seconds between two looks at both registries; after an error the pauses double, to 5 seconds at
            most.
        types: full names of the types that a stored model may hold.
        task: ``binary`` or ``regression``.

    Attributes:
        loaded: the version that serves.
        not_ready: why it must not serve now; empty while it may.

    Raises:
        lifecycle.models.versions.VersionRefused: the version that the alias names must not serve.
        lifecycle.features.contract.ContractError: its contract does not fit the feature registry.
        FileNotFoundError: the online store's file does not exist.
    """

    def __init__(
        self, name: str, feature_repo: Path, alias: str, watch: float, types: Collection[str], task: str
    ):
        self.name, self.alias, self._types, self._task = name, alias, types, task
        self.not_ready = self._refusal = self._said = ""
        self._known: tuple[Any, Any] = (None, None)
        self.store = FeatureStore(repo_path=str(feature_repo))
        self.registry = mlflow.MlflowClient()
        self._take(self._load(version_by_alias(self.registry, name, alias)))
        self._wanted = self.loaded.version
        self._noted()
        _FOLLOWS.labels(name).set_function(lambda: float(self.follows))
        _READY.labels(name).set_function(lambda: float(not self.not_ready))
        # 0 from the first look on: a counter that begins with its first event has no increase.
        _KEPT_OUT.labels(name)
        self._end = threading.Event()
        threading.Thread(target=self._follow, args=(watch,), daemon=True).start()

    def _read(self, version: Version) -> tuple[Any, FeatureContract]:
        """As ``read``, once for each state of a version's files, whether it is refused or not."""
        state = version, stored_files(self.name, version)
        if self._known[0] != state:
            result: Any
            try:
                result = load_version(self.name, version, types=self._types, task=self._task)
            except VersionRefused as error:
                result = str(error)
            self._known = state, result
        result = self._known[1]
        if isinstance(result, str):
            raise VersionRefused(result)
        return result

    def _load(self, version: Version) -> Loaded:
        model, contract = self._read(version)
        folder, file = tempfile.TemporaryDirectory(prefix="definitions-"), online_file(self.store)
        self.store.refresh_registry()
        store = pinned(self.store, Path(folder.name), contract.definitions)
        contract.check(store)  # what is compared is what serves
        inputs = input_types(store, contract)
        layout = LogSchema.from_feature_service(store, contract.feature_service)
        reader = OnlineReader(store, contract)
        loaded = Loaded(version, model, contract, inputs, reader, reader.limits, store, folder, file, layout)
        # The first read opens the store, and is not on a customer's time.
        reader.read([{name: "" if kind == TEXT else 0 for name, kind in inputs.items()}])
        return loaded

    def _take(self, loaded: Loaded, measured: Collection[str] = ()) -> None:
        self.loaded, self.not_ready, self._refusal = loaded, "", ""
        self._known = (None, None)
        for feature in measured:  # by the version before
            _AGE_LIMIT.remove(self.name, feature)
            if feature not in loaded.oldest:
                AGE.remove(self.name, feature)
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
                self.say(f"still serving version {serves}: {error or type(error).__name__}")
                pause = min(2 * pause, 5)

    def stop(self) -> None:
        """Stop looking."""
        self._end.set()

    def _look(self) -> None:
        """Compare what serves with what both registries and the online store say now."""
        self.store.refresh_registry()
        try:
            self.loaded.contract.check_definitions(self.store)
        except ContractError as error:
            self.not_ready = str(error)
            self.say(f"stopped, not ready: {error}")
        else:
            if self.not_ready:
                self.not_ready = ""
                self.say(f"ready again, with version {self.loaded.version.number}")
        self._wanted = wanted = version_by_alias(self.registry, self.name, self.alias)
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
                    self.say(f"version {wanted.number}: {type(error).__name__}: {error}")
            raise RuntimeError(refusal) from error
        self.say(f"serving version {wanted.number}")

    def say(self, text: str) -> None:
        """Print a line, unless it is the last one again."""
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

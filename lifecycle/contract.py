"""The feature contract: which features a model reads, by which keys, and what they meant when it was trained.

A contract is made from a feature service when a model is trained, stored in the model's metadata, and read
wherever the model is used: to fill the online store, to serve, to train again. It is the only place that
takes a feature reference (``view:feature``) apart.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from feast import FeatureService, FeatureStore, FeatureView, OnDemandFeatureView
    from feast.types import FeastType

METADATA = "feast"
"""The key of a model's metadata under which its contract is stored."""
_NO_ENTITY = "__dummy"  # Feast's own entity for feature views that have none


class ContractError(ValueError):
    """A feature service, a model or a registry does not fit a contract; the message says in what."""


@dataclass(frozen=True)
class FeatureContract:
    """What a model needs from a feature store.

    Attributes:
        project: Feast's project.
        feature_service: name of the feature service that the model was trained with.
        feature_refs: n references ``view:feature``, in the order of the model's columns.
        join_keys: columns that identify a row, such as those of an entity table.
        request_fields: columns that only the caller knows (Feast's request sources); often none.
        label: column of the training table that the model predicts.
        definitions: a digest of what each feature view behind the references meant at training, by view; see
            ``definitions``.
    """

    project: str
    feature_service: str
    feature_refs: tuple[str, ...]
    join_keys: tuple[str, ...]
    request_fields: tuple[str, ...]
    label: str
    definitions: dict[str, str]

    @classmethod
    def of_service(cls, store: FeatureStore, feature_service: str, label: str) -> FeatureContract:
        """The contract of a feature service as the registry holds it now.

        Raises:
            feast.errors.FeatureServiceNotFoundException: the registry has no such service.
            ContractError: two of its features share a name, so a table could not hold both.
        """
        service = store.get_feature_service(feature_service)
        references = feature_references(store, service)
        columns = feature_names(references)
        twice = sorted({name for name in columns if columns.count(name) > 1})
        if twice:
            raise ContractError(
                f"feature service {feature_service!r} has two features named {', '.join(twice)}."
            )
        keys, fields = entity_columns(store, service)
        meant = definitions(store, references)
        return cls(
            store.project, feature_service, tuple(references), tuple(keys), tuple(fields), label, meant
        )

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> FeatureContract:
        """The contract that ``to_dict`` gave.

        Raises:
            ContractError: a part of it is missing.
        """
        parts = list(cls.__dataclass_fields__)
        missing = [name for name in parts if name not in stored]
        if missing:
            raise ContractError(
                f"the stored feature contract lacks {', '.join(missing)}; it has {', '.join(stored)}."
            )
        return cls(**{name: _frozen(stored[name]) for name in parts})

    @classmethod
    def of_model(cls, model_uri: str) -> FeatureContract:
        """The contract in the metadata of an MLflow model, such as ``models:/name@alias``.

        Raises:
            mlflow.exceptions.MlflowException: there is no such model.
            ContractError: the model was stored without a contract.
        """
        import mlflow

        metadata = mlflow.models.get_model_info(model_uri).metadata or {}
        if METADATA not in metadata:
            raise ContractError(
                f"{model_uri} was stored without a feature contract: its metadata has no {METADATA!r}."
            )
        return cls.from_dict(metadata[METADATA])

    @property
    def columns(self) -> list[str]:
        """The n feature columns of the model's input, in order."""
        return feature_names(self.feature_refs)

    def to_dict(self) -> dict[str, Any]:
        """The contract as text and lists, with ``columns`` for whoever reads it without this package."""
        parts = {name: getattr(self, name) for name in self.__dataclass_fields__}
        plain = {name: list(value) if isinstance(value, tuple) else value for name, value in parts.items()}
        return {**plain, "columns": self.columns}

    def tags(self) -> dict[str, str]:
        """Tags of a registered model version; ``store.mlflow.resolve_features`` reads them."""
        return {
            "feast.feature_service": self.feature_service,
            "feast.feature_refs": json.dumps(list(self.feature_refs)),
        }

    def check(self, store: FeatureStore) -> None:
        """Compare the contract with the feature service and the definitions that the registry holds now.

        The definitions come first: they are compared as text, before Feast makes a function of a text that
        nobody knows.

        Raises:
            feast.errors.FeatureServiceNotFoundException: the service is gone.
            ContractError: project, references, keys or request fields differ, and the message has both sides;
                or a definition differs, and it names the feature views.
        """
        self.check_definitions(store)
        service = store.get_feature_service(self.feature_service)
        self._compare(project=store.project, feature_refs=tuple(feature_references(store, service)))
        # Only now: these need the feature views behind the references, which are those of the contract.
        keys, fields = entity_columns(store, service)
        self._compare(join_keys=tuple(keys), request_fields=tuple(fields))

    def _compare(self, **now: str | tuple[str, ...]) -> None:
        for name, today in now.items():
            then = getattr(self, name)
            if then != today:
                raise ContractError(
                    f"feature service {self.feature_service!r} has changed since the model was trained: "
                    f"{name} is {_plain(today)} in the registry and {_plain(then)} in the contract."
                )

    def check_definitions(self, store: FeatureStore) -> None:
        """Compare what the features meant at training with what the registry says, as ``store`` last read it.

        Raises:
            ContractError: a feature view is gone, or means something else; the message names each.
            RuntimeError: the registry holds nothing at all. Feast empties its file for a moment whenever it
                writes it.
        """
        if not store.registry.proto().ListFields():
            raise RuntimeError("the feature registry is empty, or just being written")
        now = definitions(store, self.feature_refs)
        changed = sorted(
            view for view in {*self.definitions, *now} if self.definitions.get(view) != now.get(view)
        )
        if changed:
            raise ContractError(
                f"the definition of {', '.join(changed)} has changed since the model was trained. "
                "Apply the old definition again, or serve a version that was trained with the new one."
            )

    def base_views(self, store: FeatureStore) -> list[str]:
        """The feature views to materialize before the model can be served; see ``base_views``."""
        return base_views(store, list(self.feature_refs))

    def reads(self, store: FeatureStore) -> tuple[list[str], dict[str, float]]:
        """What a server reads for one prediction, and how old each stored value may be.

        Feast gives a computed feature no time of its own: it is as old as the views behind it. Of a view that
        only a computed feature needs, one stored feature is therefore read along, for its age.

        Returns:
            The references to read, those of the contract first; and the time to live in seconds by name of
            each stored feature among them (infinite for a view without one).
        """
        stored, _ = _views(store)
        references = list(self.feature_refs)
        seen = {_parts(reference)[0] for reference in references}
        references += [
            f"{view}:{stored[view].features[0].name}" for view in self.base_views(store) if view not in seen
        ]
        limits = {}
        for view, feature in map(_parts, references):
            if view in stored:
                ttl = stored[view].ttl
                limits[feature] = ttl.total_seconds() if ttl else math.inf
        return references, limits


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else ", ".join(value) or "none"


def _parts(reference: str) -> tuple[str, str]:
    view, _, feature = reference.partition(":")
    return view, feature


def feature_names(references: Sequence[str]) -> list[str]:
    """The feature of each reference ``view:feature``: the columns of a retrieved table."""
    return [_parts(reference)[1] for reference in references]


def _views(store: FeatureStore) -> tuple[dict[str, FeatureView], dict[str, OnDemandFeatureView]]:
    stored = [*store.list_batch_feature_views(), *store.list_stream_feature_views()]
    return {view.name: view for view in stored}, {
        view.name: view for view in store.list_on_demand_feature_views()
    }


def feature_references(store: FeatureStore, features: list[str] | FeatureService) -> list[str]:
    """The references ``view:feature`` of a list or a feature service, each known to the registry.

    Raises:
        ValueError: a reference is malformed, or its view or feature is not in the registry; the message lists
            what is.
    """
    if not isinstance(features, list):
        return [
            f"{p.name_to_use()}:{field.name}"
            for p in features.feature_view_projections
            for field in p.features
        ]
    stored, computed = _views(store)
    views = {**stored, **computed}
    for reference in features:
        name, feature = _parts(reference)
        if ":" not in reference:
            raise ValueError(f"{reference!r} is not a feature reference: write view:feature.")
        if name not in views:
            raise ValueError(
                f"no feature view {name!r} in the registry (feature reference {reference!r}). "
                f"It has: {', '.join(sorted(views))}."
            )
        known = [field.name for field in views[name].features]
        if feature not in known:
            raise ValueError(f"feature view {name!r} has no feature {feature!r}. It has: {', '.join(known)}.")
    return features


def base_views(store: FeatureStore, features: list[str] | FeatureService) -> list[str]:
    """The views that hold the stored values behind ``features``, also of on-demand views; sorted by name."""
    _, computed = _views(store)
    names: set[str] = set()
    open_ = _projected(features)
    while open_:
        name = open_.pop()
        if name in computed:
            sources = computed[name].source_feature_view_projections.values()
            open_ += [source.name for source in sources]
        else:
            names.add(name)
    return sorted(names)


def _projected(features: list[str] | FeatureService) -> list[str]:
    if isinstance(features, list):
        return [_parts(reference)[0] for reference in features]
    return [projection.name for projection in features.feature_view_projections]


def definitions(store: FeatureStore, references: Iterable[str]) -> dict[str, str]:
    """A digest of what each view behind ``references`` means, in the registry as ``store`` last read it.

    Part of the meaning: of a stored view the keys, the time to live, the source's name, time columns and
    field mapping, and a function if it has one; of an on-demand view its function's text, its mode and its
    inputs; of both the names and types of the features that are read. Not part of it: where a file lies,
    descriptions, tags, owners, features that nobody here reads. The registry is read as data: no function of
    it is made.

    Args:
        store: the feature store whose registry is asked.
        references: ``view:feature``; a view that the registry lacks is left out of the result.

    Returns:
        16 hexadecimal digits of SHA-256, by name of the view; the views that on-demand views compute from are
        among them.
    """
    proto = store.registry.proto()
    stored = {view.spec.name: view.spec for view in _of_project(proto.feature_views, store)}
    stored |= {view.spec.name: view.spec for view in _of_project(proto.stream_feature_views, store)}
    computed = {view.spec.name: view.spec for view in _of_project(proto.on_demand_feature_views, store)}
    read: dict[str, set[str]] = {}
    open_ = [_parts(reference) for reference in references]
    while open_:
        view, feature = open_.pop()
        if feature in read.setdefault(view, set()):
            continue
        read[view].add(feature)
        if view in computed:
            for source in computed[view].sources.values():
                projection = source.feature_view_projection
                open_ += [
                    (projection.feature_view_name, column.name) for column in projection.feature_columns
                ]
    meanings: dict[str, Any] = {}
    for view, features in read.items():
        if view in computed:
            meanings[view] = _meaning_of_computed(computed[view], features)
        elif view in stored:
            meanings[view] = _meaning_of_stored(stored[view], features)
    return {view: _digest(meanings[view]) for view in sorted(meanings)}


def _of_project(views: Iterable[Any], store: FeatureStore) -> list[Any]:
    return [view for view in views if view.spec.project == store.project]


def _digest(meaning: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(meaning, sort_keys=True).encode()).hexdigest()[:16]


def _columns(fields: Iterable[Any]) -> dict[str, int]:
    return {field.name: field.value_type for field in fields}


def _function(spec: Any) -> list[str]:
    function = spec.feature_transformation.user_defined_function
    # The text alone, where there is one: the same text has other byte code in another version of Python.
    text = function.body_text or hashlib.sha256(function.body).hexdigest()
    plan, streamed = (
        spec.feature_transformation.substrait_transformation,
        getattr(spec, "user_defined_function", None),
    )
    binary = plan.substrait_plan + plan.ibis_function + (streamed.body if streamed else b"")
    return [spec.mode, text, hashlib.sha256(binary).hexdigest(), *map(str, getattr(spec, "aggregations", []))]


def _meaning_of_stored(spec: Any, features: set[str]) -> dict[str, Any]:
    source = spec.batch_source
    return {
        "keys": _columns(spec.entity_columns),
        "features": _columns(field for field in spec.features if field.name in features),
        "seconds to live": spec.ttl.seconds + spec.ttl.nanos / 1e9,
        # A source without a name of its own is named by its path, and that says where, not what.
        "source": "" if source.name == source.file_options.uri else source.name,
        "times": [source.timestamp_field, source.created_timestamp_column],
        "mapping": dict(source.field_mapping),
        "function": _function(spec),
    }


def _meaning_of_computed(spec: Any, features: set[str]) -> dict[str, Any]:
    inputs = {}
    for name, source in spec.sources.items():
        projection, request = source.feature_view_projection, source.request_data_source.request_data_options
        inputs[name] = {**_columns(projection.feature_columns), **_columns(request.schema)}
    return {
        "function": _function(spec),
        "one row at a time": spec.singleton,
        "inputs": inputs,
        "features": _columns(field for field in spec.features if field.name in features),
    }


def stored_views(store: FeatureStore, features: list[str] | FeatureService) -> list[FeatureView]:
    """The feature views of ``base_views``, as the registry holds them."""
    stored, _ = _views(store)
    return [stored[name] for name in base_views(store, features)]


def feature_types(store: FeatureStore, features: list[str] | FeatureService) -> dict[str, FeastType]:
    """The declared type of each feature, by its name."""
    if not isinstance(features, list):
        return {field.name: field.dtype for p in features.feature_view_projections for field in p.features}
    stored, computed = _views(store)
    views = {**stored, **computed}
    asked = [_parts(reference) for reference in features]
    return {
        field.name: field.dtype
        for view, name in asked
        for field in views[view].features
        if field.name == name
    }


def entity_columns(
    store: FeatureStore, features: list[str] | FeatureService
) -> tuple[dict[str, FeastType], dict[str, FeastType]]:
    """The columns that an entity table needs for ``features``, beside its ``event_timestamp``.

    Returns:
        The declared types of the join keys, in the order of the views' entities, and of the request fields,
        in the order of their sources.
    """
    stored, computed = _views(store)
    renamed: dict[str, str] = {}
    if not isinstance(features, list):
        for projection in features.feature_view_projections:
            renamed |= projection.join_key_map
    keys: dict[str, FeastType] = {}
    for name in base_views(store, features):
        types = {field.name: field.dtype for field in stored[name].entity_columns}
        for entity in stored[name].entities:
            if entity != _NO_ENTITY:
                key = store.get_entity(entity).join_key
                keys[renamed.get(key, key)] = types[key]
    fields: dict[str, FeastType] = {}
    for name in _projected(features):
        if name in computed:
            for source in computed[name].source_request_sources.values():
                fields |= {field.name: field.dtype for field in source.schema}
    return keys, fields

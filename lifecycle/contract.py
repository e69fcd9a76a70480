"""The feature contract: which features a model reads, from which feature service, by which keys.

A contract is made from a feature service when a model is trained, stored in the model's metadata, and read wherever the model is used: to fill the
online store, to serve, to train again. It is the only place that takes a feature reference (``view:feature``) apart.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from feast import FeatureService, FeatureStore, FeatureView, OnDemandFeatureView

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
    """

    project: str
    feature_service: str
    feature_refs: tuple[str, ...]
    join_keys: tuple[str, ...]
    request_fields: tuple[str, ...]
    label: str

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
            raise ContractError(f"feature service {feature_service!r} has two features named {', '.join(twice)}.")
        keys, fields = entity_columns(store, service)
        return cls(store.project, feature_service, tuple(references), tuple(keys), tuple(fields), label)

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> FeatureContract:
        """The contract that ``to_dict`` gave.

        Raises:
            ContractError: a part of it is missing.
        """
        parts = list(cls.__dataclass_fields__)
        missing = [name for name in parts if name not in stored]
        if missing:
            raise ContractError(f"the stored feature contract lacks {', '.join(missing)}; it has {', '.join(stored)}.")
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
            raise ContractError(f"{model_uri} was stored without a feature contract: its metadata has no {METADATA!r}.")
        return cls.from_dict(metadata[METADATA])

    @property
    def columns(self) -> list[str]:
        """The n feature columns of the model's input, in order."""
        return feature_names(self.feature_refs)

    def to_dict(self) -> dict[str, Any]:
        """The contract as text and lists, with ``columns`` for whoever reads it without this package."""
        parts = {name: getattr(self, name) for name in self.__dataclass_fields__}
        plain = {name: value if isinstance(value, str) else list(value) for name, value in parts.items()}
        return {**plain, "columns": self.columns}

    def tags(self) -> dict[str, str]:
        """Tags of a registered model version: to search for, and what ``store.mlflow.resolve_features`` reads."""
        return {
            "feast.feature_service": self.feature_service,
            "feast.feature_refs": json.dumps(list(self.feature_refs)),
        }

    def check(self, store: FeatureStore) -> None:
        """Compare the contract with the feature service that the registry holds now.

        Raises:
            feast.errors.FeatureServiceNotFoundException: the service is gone.
            ContractError: project, references, keys or request fields differ; the message has both sides.
        """
        now = FeatureContract.of_service(store, self.feature_service, self.label)
        for name in ("project", "feature_refs", "join_keys", "request_fields"):
            then, today = getattr(self, name), getattr(now, name)
            if then != today:
                raise ContractError(
                    f"feature service {self.feature_service!r} has changed since the model was trained: "
                    f"{name} is {_plain(today)} in the registry and {_plain(then)} in the contract."
                )

    def base_views(self, store: FeatureStore) -> list[str]:
        """The feature views to materialize before the model can be served; see ``base_views``."""
        return base_views(store, list(self.feature_refs))

    def reads(self, store: FeatureStore) -> tuple[list[str], dict[str, float]]:
        """What a server reads for one prediction, and how old each stored value may be.

        Feast gives a computed feature no time of its own: it is as old as the views behind it. Of a view that only a computed feature needs, one
        stored feature is therefore read along, for its age.

        Returns:
            The references to read, those of the contract first; and the time to live in seconds by name of each stored feature among them (none
            for a view without a time to live).
        """
        stored, _ = _views(store)
        references = list(self.feature_refs)
        seen = {_parts(reference)[0] for reference in references}
        references += [f"{view}:{stored[view].features[0].name}" for view in self.base_views(store) if view not in seen]
        limits = {}
        for view, feature in map(_parts, references):
            ttl = stored[view].ttl if view in stored else None
            if ttl:
                limits[feature] = ttl.total_seconds()
        return references, limits


def _frozen(value: Any) -> Any:
    return value if isinstance(value, str) else tuple(value)


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
    return {view.name: view for view in stored}, {view.name: view for view in store.list_on_demand_feature_views()}


def feature_references(store: FeatureStore, features: list[str] | FeatureService) -> list[str]:
    """The references ``view:feature`` that a list or a feature service stands for, each known to the registry.

    Raises:
        ValueError: a reference is malformed, or its view or feature is not in the registry; the message lists what is.
    """
    if not isinstance(features, list):
        return [f"{p.name_to_use()}:{field.name}" for p in features.feature_view_projections for field in p.features]
    stored, computed = _views(store)
    views = {**stored, **computed}
    for reference in features:
        name, feature = _parts(reference)
        if ":" not in reference:
            raise ValueError(f"{reference!r} is not a feature reference: write view:feature.")
        if name not in views:
            raise ValueError(
                f"no feature view {name!r} in the registry (feature reference {reference!r}). It has: {', '.join(sorted(views))}."
            )
        known = [field.name for field in views[name].features]
        if feature not in known:
            raise ValueError(f"feature view {name!r} has no feature {feature!r}. It has: {', '.join(known)}.")
    return features


def base_views(store: FeatureStore, features: list[str] | FeatureService) -> list[str]:
    """The feature views that hold stored values behind ``features``: their own, and those that on-demand views compute from. Sorted by name."""
    _, computed = _views(store)
    names: set[str] = set()
    open_ = _projected(features)
    while open_:
        name = open_.pop()
        if name in computed:
            open_ += [projection.name for projection in computed[name].source_feature_view_projections.values()]
        else:
            names.add(name)
    return sorted(names)


def _projected(features: list[str] | FeatureService) -> list[str]:
    if isinstance(features, list):
        return [_parts(reference)[0] for reference in features]
    return [projection.name for projection in features.feature_view_projections]


def entity_columns(store: FeatureStore, features: list[str] | FeatureService) -> tuple[list[str], list[str]]:
    """The columns that an entity table needs for ``features``, beside its ``event_timestamp``.

    Returns:
        The join keys, in the order of the views' entities, and the request fields, in the order of their sources.
    """
    stored, computed = _views(store)
    renamed: dict[str, str] = {}
    if not isinstance(features, list):
        for projection in features.feature_view_projections:
            renamed |= projection.join_key_map
    keys: dict[str, None] = {}
    for name in base_views(store, features):
        for entity in stored[name].entities:
            if entity != _NO_ENTITY:
                key = store.get_entity(entity).join_key
                keys[renamed.get(key, key)] = None
    fields: dict[str, None] = {}
    for name in _projected(features):
        if name in computed:
            for source in computed[name].source_request_sources.values():
                fields |= dict.fromkeys(field.name for field in source.schema)
    return list(keys), list(fields)

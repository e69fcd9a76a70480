"""The feature contract: which features a model reads, by which keys, and what they meant when it was trained.

A contract is made from a feature service when a model is trained, stored in the model's metadata, and read
wherever the model is used: to fill the online store, to serve, to train again. It is the only place that
takes a feature reference (``view:feature``) apart.

A feature service may hold one view under several aliases, each with join keys of its own: a buyer and a
seller are two users. Feast knows an alias by the service alone, so functions here take the service, or the
contract made from it, wherever they take a list of references.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import json
import textwrap
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from lifecycle.features.declared import protocol_type

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
        feature_refs: n references ``view:feature``, in the order of the model's columns; ``alias:feature``
            for a view that the service holds under an alias.
        join_keys: columns that identify a row, such as those of an entity table.
        request_fields: columns that only the caller knows (Feast's request sources); often none.
        label: column of the training table that the model predicts.
        definitions: a digest of what each feature view behind the references meant at training, by view; see
            ``definitions``.
        aliases: the feature view in the registry, by alias.
        join_key_maps: for each view that the service reads by other key columns, the column by join key; by
            the view's name in the references.
    """

    project: str
    feature_service: str
    feature_refs: tuple[str, ...]
    join_keys: tuple[str, ...]
    request_fields: tuple[str, ...]
    label: str
    definitions: dict[str, str]
    aliases: dict[str, str] = field(default_factory=dict)
    join_key_maps: dict[str, dict[str, str]] = field(default_factory=dict)

    @classmethod
    def from_feature_service(cls, store: FeatureStore, feature_service: str, label: str) -> FeatureContract:
        """The contract of a feature service as the registry holds it now.

        Each of its on-demand views is called once, with no stored value, as a server calls it for an entity
        that nobody knows.

        Raises:
            feast.errors.FeatureServiceNotFoundException: the registry has no such service.
            ContractError: the service cannot be trained on and served alike; the message says why.
        """
        service = store.get_feature_service(feature_service)
        references = feature_references(store, service)
        views = _views_of(service)
        keys, fields = entity_columns(store, service)
        _check_columns(feature_service, references, keys, fields)
        meanings = _meanings(store, service)
        unknown = [
            f"{view}:{feature}"
            for view, feature in _features_of(service)
            if feature not in meanings.get(view, {}).get("features", {})
        ]
        if unknown or not meanings:
            raise ContractError(
                f"feature service {feature_service!r} reads {', '.join(unknown) or 'no feature'}, of which "
                "the registry has no definition: apply the feature views and the service together."
            )
        for name, view in _views(store)[1].items():
            if name in meanings:
                _check_without_values(view)
        return cls(
            project=store.project,
            feature_service=feature_service,
            feature_refs=tuple(references),
            join_keys=tuple(keys),
            request_fields=tuple(fields),
            label=label,
            definitions={view: _digest(meaning) for view, meaning in meanings.items()},
            aliases={name: view.view for name, view in views.items() if name != view.view},
            join_key_maps={name: view.keys for name, view in views.items() if view.keys},
        )

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> FeatureContract:
        """The contract that ``to_dict`` gave.

        Raises:
            ContractError: a part of it is missing.
        """
        parts = {name: stored[name] for name in cls.__dataclass_fields__ if name in stored}
        missing = [name for name in cls.__dataclass_fields__ if name not in (*parts, *_OPTIONAL)]
        if missing:
            raise ContractError(
                f"the stored feature contract lacks {', '.join(missing)}; it has {', '.join(stored)}."
            )
        return cls(**{name: _frozen(value) for name, value in parts.items()})

    @classmethod
    def from_json(cls, text: object) -> FeatureContract:
        """The contract that ``to_json`` gave, from an artifact's metadata.

        Raises:
            ContractError: it is no such text.
        """
        try:
            stored = json.loads(text) if isinstance(text, str) else None
        except json.JSONDecodeError:
            stored = None
        if not isinstance(stored, dict):
            raise ContractError(
                f"the artifact holds no feature contract: its metadata has {text!r:.60} in place of a JSON "
                "text. Run the step that wrote it again."
            )
        return cls.from_dict(stored)

    @classmethod
    def from_model(cls, model_uri: str) -> FeatureContract:
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
        """The contract as text and lists, with ``columns`` for whoever reads it without this package.

        ``aliases`` and ``join_key_maps`` are left out when they are empty.
        """
        parts = {name: getattr(self, name) for name in self.__dataclass_fields__}
        plain = {name: list(value) if isinstance(value, tuple) else value for name, value in parts.items()}
        kept = {name: value for name, value in plain.items() if value or name not in _OPTIONAL}
        return {**kept, "columns": self.columns}

    def to_json(self) -> str:
        """The contract as one text: Kubeflow's backend wraps lists and tables of an artifact's metadata."""
        return json.dumps(self.to_dict())

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
            ContractError: project, references, aliases, keys or request fields differ, and the message has
                both sides; or a definition differs, and it names the feature views.
        """
        self.check_definitions(store)
        service = store.get_feature_service(self.feature_service)
        views = _views_of(service)
        self._compare(
            project=store.project,
            feature_refs=tuple(feature_references(store, service)),
            aliases={name: view.view for name, view in views.items() if name != view.view},
            join_key_maps={name: view.keys for name, view in views.items() if view.keys},
        )
        # Only now: these need the feature views behind the references, which are those of the contract.
        keys, fields = entity_columns(store, service)
        self._compare(join_keys=tuple(keys), request_fields=tuple(fields))

    def _compare(self, **now: Any) -> None:
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
            ContractError: a feature view is gone, or means something else, and the message names each; or
                the contract holds no digest of a view that it reads, so that it would guard nothing.
            RuntimeError: the registry holds nothing at all. Feast empties its file for a moment whenever it
                writes it.
        """
        read = {view for view, _ in _features_of(self)}
        unguarded = sorted(read - set(self.definitions))
        if unguarded or not read:
            raise ContractError(
                f"the contract guards nothing: it has no digest of {', '.join(unguarded) or 'any view'}. "
                "Make it with FeatureContract.from_feature_service, and log the model again."
            )
        if not store.registry.proto().ListFields():
            raise RuntimeError("the feature registry is empty, or just being written")
        now = definitions(store, self)
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
        return base_views(store, self)


_OPTIONAL = ("aliases", "join_key_maps")
"""Parts that a contract stores only when they say something."""
if TYPE_CHECKING:
    Features = list[str] | FeatureService | FeatureContract  # references, or what also knows aliases


class View(NamedTuple):
    """A feature view as features are read from it.

    Attributes:
        name: in references and full feature names: the alias, or the view's own name.
        view: its name in the registry.
        keys: the column of the entity table by join key; empty when the names are the same.
    """

    name: str
    view: str
    keys: dict[str, str]


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        value = [f"{name}: {_plain(one)}" for name, one in value.items()]
    return value if isinstance(value, str) else ", ".join(value) or "none"


def _parts(reference: str) -> tuple[str, str]:
    view, _, feature = reference.partition(":")
    return view, feature


def full_names(references: Sequence[str]) -> list[str]:
    """Each reference ``view:feature`` as Feast writes it with ``full_feature_names=True``."""
    return ["__".join(_parts(reference)) for reference in references]


def feature_names(references: Sequence[str]) -> list[str]:
    """The column of each reference ``view:feature``: the feature's name, or with the view's when not unique.

    The second form is Feast's own, ``view__feature``, for every feature whose name another one has as well.
    """
    features = [_parts(reference)[1] for reference in references]
    times = Counter(features)
    return [
        feature if times[feature] == 1 else full
        for feature, full in zip(features, full_names(references), strict=True)
    ]


def repeated(names: Iterable[str]) -> list[str]:
    """The names that are there more than once, sorted."""
    return sorted(name for name, times in Counter(names).items() if times > 1)


def _views(store: FeatureStore) -> tuple[dict[str, FeatureView], dict[str, OnDemandFeatureView]]:
    stored = [*store.list_batch_feature_views(), *store.list_stream_feature_views()]
    return {view.name: view for view in stored}, {
        view.name: view for view in store.list_on_demand_feature_views()
    }


def _views_of(features: Features) -> dict[str, View]:
    """The views that features are read from, by their names in references.

    Raises:
        ContractError: a name stands for two views, or for one by two keys; a view is pinned to a version.
    """
    if isinstance(features, list):
        views = [View(name, name, {}) for name, _ in map(_parts, features)]
    elif isinstance(features, FeatureContract):
        names = dict.fromkeys(view for view, _ in map(_parts, features.feature_refs))
        views = [
            View(name, features.aliases.get(name, name), features.join_key_maps.get(name, {}))
            for name in names
        ]
    else:
        projections = features.feature_view_projections
        if pinned := [p.name_to_use() for p in projections if p.version_tag is not None]:
            raise ContractError(
                f"feature service {features.name!r} pins {', '.join(pinned)}, and definitions are compared "
                "as the registry holds them now: name the view without a version."
            )
        own, aliased = ({p.name for p in projections if bool(p.name_alias) is has} for has in (False, True))
        if both := sorted(own & aliased):
            raise ContractError(
                f"feature service {features.name!r} holds {', '.join(both)} with an alias and without, and "
                "Feast fails to compare such a service: give each an alias, if only its own name."
            )
        views = [View(p.name_to_use(), p.name, dict(p.join_key_map)) for p in projections]
    return _by_name(views)


def _by_name(views: Iterable[View]) -> dict[str, View]:
    found: dict[str, View] = {}
    for view in views:
        if found.setdefault(view.name, view) != view:
            raise ContractError(
                f"{view.name!r} names the feature view {view.view!r} and another one, or one view by two "
                "keys, and Feast would read one of them twice: give one an alias, view.with_name(...)."
            )
    return found


def _features_of(features: Features) -> list[tuple[str, str]]:
    """The view in the registry and the feature of each reference."""
    if isinstance(features, list):
        return [_parts(reference) for reference in features]
    if isinstance(features, FeatureContract):
        views = _views_of(features)
        return [(views[name].view, feature) for name, feature in map(_parts, features.feature_refs)]
    return [(p.name, column.name) for p in features.feature_view_projections for column in p.features]


def feature_references(store: FeatureStore, features: list[str] | FeatureService) -> list[str]:
    """The references ``view:feature`` of a list or a feature service, each of a list known to the registry.

    Raises:
        ValueError: a reference is malformed, or its view or feature is not in the registry; the message lists
            what is.
    """
    if not isinstance(features, list):
        return [
            f"{p.name_to_use()}:{column.name}"
            for p in features.feature_view_projections
            for column in p.features
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
                f"It has: {', '.join(sorted(views))}. An alias is known to its feature service alone: pass "
                "the service in place of references."
            )
        known = [column.name for column in views[name].features]
        if feature not in known:
            raise ValueError(f"feature view {name!r} has no feature {feature!r}. It has: {', '.join(known)}.")
    return features


def stored_sources(store: FeatureStore, features: Features) -> list[View]:
    """The stored views behind ``features``, also those that on-demand views compute from, in order of names.

    Raises:
        ContractError: Feast cannot read them so both offline and online.
    """
    stored, computed = _views(store)
    views = _views_of(features)
    sources = []
    for view in views.values():
        if view.view not in computed:
            sources.append(view)
            continue
        inputs = list(computed[view.view].source_feature_view_projections.values())
        if view.name != view.view or view.keys or any(p.name_alias or p.join_key_map for p in inputs):
            raise ContractError(
                f"the on-demand view {view.view!r} is read under an alias, or computes from one, and Feast "
                "leaves it out of what it retrieves: use it, and the views that it reads, by their own names."
            )
        sources += [View(source.name, source.name, {}) for source in inputs]
    for view in (found := _by_name([*views.values(), *sources])).values():
        if view.view in stored and view.keys:
            _check_keys(view, _join_keys(store, stored[view.view]))
    return sorted(
        (view for view in found.values() if view.view not in computed), key=lambda view: view[1::-1]
    )


def _join_keys(store: FeatureStore, view: FeatureView) -> list[str]:
    return [store.get_entity(entity).join_key for entity in view.entities if entity != _NO_ENTITY]


def _check_keys(view: View, keys: Sequence[str]) -> None:
    # Offline, Feast joins by the keys in the map alone; online, it adds the others.
    if set(view.keys) != set(keys):
        raise ContractError(
            f"the join key map of {view.name!r} names {', '.join(sorted(view.keys))}, and the join keys of "
            f"the feature view {view.view!r} are {', '.join(keys)}: give each of them a column."
        )


def base_views(store: FeatureStore, features: Features) -> list[str]:
    """The views that hold the stored values behind ``features``, also of on-demand views; sorted by name.

    These are names of the registry, whatever aliases they are read by.
    """
    _, computed = _views(store)
    names: set[str] = set()
    open_ = [view.view for view in _views_of(features).values()]
    while open_:
        name = open_.pop()
        if name in computed:
            sources = computed[name].source_feature_view_projections.values()
            open_ += [source.name for source in sources]
        else:
            names.add(name)
    return sorted(names)


def stored_views(store: FeatureStore, features: Features) -> list[FeatureView]:
    """The feature views of ``base_views``, as the registry holds them."""
    stored, _ = _views(store)
    return [stored[name] for name in base_views(store, features)]


def feature_types(store: FeatureStore, features: list[str] | FeatureService) -> dict[str, FeastType]:
    """The declared type of each feature, by its column; see ``feature_names``."""
    names = feature_names(feature_references(store, features))
    if not isinstance(features, list):
        types = [column.dtype for p in features.feature_view_projections for column in p.features]
    else:
        stored, computed = _views(store)
        views = {**stored, **computed}
        types = [
            next(column.dtype for column in views[view].features if column.name == feature)
            for view, feature in map(_parts, features)
        ]
    return dict(zip(names, types, strict=True))


def entity_columns(
    store: FeatureStore, features: Features
) -> tuple[dict[str, FeastType], dict[str, FeastType]]:
    """The columns that an entity table needs for ``features``, beside its ``event_timestamp``.

    Returns:
        The declared types of the join keys, in the order of the views' entities, and of the request fields,
        in the order of their sources.
    """
    stored, computed = _views(store)
    keys: dict[str, FeastType] = {}
    for source in stored_sources(store, features):
        types = {column.name: column.dtype for column in stored[source.view].entity_columns}
        for key in _join_keys(store, stored[source.view]):
            keys[source.keys.get(key, key)] = types[key]
    fields: dict[str, FeastType] = {}
    for view in _views_of(features).values():
        if view.view in computed:
            for request in computed[view.view].source_request_sources.values():
                fields |= {column.name: column.dtype for column in request.schema}
    return keys, fields


def _check_columns(
    service: str,
    references: Sequence[str],
    keys: Mapping[str, FeastType],
    fields: Mapping[str, FeastType],
) -> None:
    """Refuse two columns of one name, and a type that a request cannot carry."""
    if twice := repeated(feature_names(references)) or repeated(full_names(references)):
        raise ContractError(f"feature service {service!r} has two features named {', '.join(twice)}.")
    if both := sorted({*keys} & {*fields}):
        raise ContractError(
            f"{', '.join(both)} is a join key and a request field of the feature service {service!r}, and "
            "Feast reads no stored value for it: rename the field of the request source."
        )
    if both := sorted({*keys, *fields} & {*feature_names(references)}):
        raise ContractError(
            f"{', '.join(both)} is a feature of the feature service {service!r} and a column by which it is "
            "asked: rename one of them."
        )
    for name, dtype in {**keys, **fields}.items():
        if protocol_type(dtype) is None:
            raise ContractError(
                f"{name} is of type {dtype}; a request can carry whole numbers, numbers and text."
            )


def _check_without_values(view: OnDemandFeatureView) -> None:
    """Call an on-demand view as a server does for an unknown entity: without stored values."""
    from feast import utils
    from feast.protos.feast.serving.ServingService_pb2 import FieldStatus, GetOnlineFeaturesResponse
    from feast.protos.feast.types.Value_pb2 import Value
    from feast.type_map import python_values_to_proto_values
    from google.protobuf.timestamp_pb2 import Timestamp

    inputs = {
        column.name: (Value(), column.dtype.to_value_type())
        for source in view.source_feature_view_projections.values()
        for column in source.features
    }
    given: dict[str, Any] = {}
    for request in view.source_request_sources.values():
        for column in request.schema:
            given[column.name] = "" if protocol_type(column.dtype) == "BYTES" else 0
            kind = column.dtype.to_value_type()
            inputs[column.name] = python_values_to_proto_values([given[column.name]], kind)[0], kind
    count = sum(len(p.features) for p in view.source_feature_view_projections.values()) + len(given)
    outputs = [column.name for column in view.features]
    if len({*inputs, *outputs}) < count + len(outputs):
        raise ContractError(
            f"two inputs of the on-demand view {view.name!r} share a name, or one has that of an output. "
            "Feast's online read gives a function one value for both: rename one of them."
        )
    response = GetOnlineFeaturesResponse()
    response.metadata.feature_names.val.extend(inputs)
    for value, _ in inputs.values():
        response.results.add(values=[value], statuses=[FieldStatus.PRESENT], event_timestamps=[Timestamp()])
    references = [f"{view.name}:{name}" for name in outputs]
    types = {name: kind for name, (_, kind) in inputs.items()}
    try:
        utils._augment_response_with_on_demand_transforms(response, references, [view], False, types)
    except Exception as error:
        asked = f", and {given} from the caller" if given else ""
        raise ContractError(
            f"the on-demand view {view.name!r} fails where an entity has no stored values "
            f"({type(error).__name__}: {error}). A server gives it None for each of them{asked}: let its "
            "function return None where an input is missing."
        ) from error


def definitions(store: FeatureStore, features: Features) -> dict[str, str]:
    """A digest of what each view behind ``features`` means, in the registry as ``store`` last read it.

    Part of the meaning: of a stored view the keys, the time to live, the source with its name, table or
    query, time columns and field mapping, its stream, the views that it is derived from, and a function if it
    has one; of an on-demand view its function, its mode and its inputs; of both the names and types of the
    features that are read. A function is compared by its syntax tree. Not part of it: where a file lies,
    descriptions, tags, owners, features that nobody here reads, and the comments, docstrings and layout of a
    function. The registry is read as data: no function of it is made.

    Args:
        store: the feature store whose registry is asked.
        features: references, a feature service or a contract; a view that the registry lacks is left out of
            the result.

    Returns:
        16 hexadecimal digits of SHA-256, by name of the view in the registry; the views that on-demand views
        compute from are among them.
    """
    return {view: _digest(meaning) for view, meaning in _meanings(store, features).items()}


def _meanings(store: FeatureStore, features: Features) -> dict[str, dict[str, Any]]:
    proto = store.registry.proto()
    stored = {view.spec.name: view.spec for view in _of_project(proto.feature_views, store)}
    stored |= {view.spec.name: view.spec for view in _of_project(proto.stream_feature_views, store)}
    computed = {view.spec.name: view.spec for view in _of_project(proto.on_demand_feature_views, store)}
    read: dict[str, set[str]] = {}
    open_ = _features_of(features)
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
    meanings: dict[str, dict[str, Any]] = {}
    for view, names in sorted(read.items()):
        if view in computed:
            meanings[view] = _meaning_of_computed(computed[view], names)
        elif view in stored:
            meanings[view] = _meaning_of_stored(stored[view], names)
    return meanings


def _of_project(views: Iterable[Any], store: FeatureStore) -> list[Any]:
    return [view for view in views if view.spec.project == store.project]


def _digest(meaning: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(meaning, sort_keys=True).encode()).hexdigest()[:16]


def _columns(fields: Iterable[Any]) -> dict[str, int]:
    return {column.name: column.value_type for column in fields}


def _function(spec: Any) -> list[Any]:
    functions = [spec.feature_transformation.user_defined_function]
    if hasattr(spec, "user_defined_function"):
        functions.append(spec.user_defined_function)
    plan = spec.feature_transformation.substrait_transformation
    # The text alone, where there is one: the same text has other byte code in another version of Python.
    texts = [_syntax(f.body_text) if f.body_text else hashlib.sha256(f.body).hexdigest() for f in functions]
    binary = hashlib.sha256(plan.substrait_plan + plan.ibis_function).hexdigest()
    return [spec.mode, texts, binary, *map(str, getattr(spec, "aggregations", []))]


def _syntax(text: str) -> Any:
    """The syntax tree of a function's text, without docstrings and without the decorator of its view.

    The decorator's arguments are in the registry by themselves. A text that is no statement of Python, such
    as a line with a lambda, stands for itself.
    """
    try:
        tree = ast.parse(textwrap.dedent(text))
    except (RecursionError, SyntaxError, ValueError):
        return text
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Module):
            documented = ast.get_docstring(node, clean=False) is not None
            node.body = node.body[documented:]
    for function in tree.body:
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            function.decorator_list = [
                decorator
                for decorator in function.decorator_list
                if "feature_view" not in ast.dump(decorator)
            ]
    return _tree(tree)


def _tree(node: Any) -> Any:
    """A node as lists and text. ``ast.dump`` writes empty parts in one version of Python, not in another."""
    if isinstance(node, list):
        return [_tree(one) for one in node]
    if not isinstance(node, ast.AST):
        return repr(node)
    parts = {name: _tree(value) for name, value in ast.iter_fields(node) if value not in (None, [])}
    return [type(node).__name__, parts]


def _meaning_of_stored(spec: Any, features: set[str]) -> dict[str, Any]:
    source = spec.batch_source
    meaning = {
        "keys": _columns(spec.entity_columns),
        "features": _columns(column for column in spec.features if column.name in features),
        "seconds to live": spec.ttl.seconds + spec.ttl.nanos / 1e9,
        # A source without a name of its own is named by its path, and that says where, not what.
        "source": "" if source.name == source.file_options.uri else source.name,
        "rows": _rows(source),
        "times": [
            source.timestamp_field,
            source.created_timestamp_column,
            source.date_partition_column,
            source.timestamp_field_type,
        ],
        "mapping": dict(source.field_mapping),
        "function": _function(spec),
    }
    # Only where there are any: a view without them has the digest that it always had.
    if before := getattr(spec, "source_views", ()):
        meaning["views"] = {
            view.name: _meaning_of_stored(view, {column.name for column in view.features}) for view in before
        }
    stream = spec.stream_source
    if stream.WhichOneof("options") in ("kafka_options", "kinesis_options"):
        meaning["stream"] = [_rows(stream), stream.timestamp_field, dict(stream.field_mapping)]
    return meaning


def _rows(source: Any) -> list[Any]:
    """The table or the query that a source reads, and what else it says, except where a file lies."""
    from google.protobuf.json_format import MessageToDict

    kind = source.WhichOneof("options")
    if kind is None:
        return []
    options = MessageToDict(getattr(source, kind), preserving_proto_field_name=True)
    if kind == "custom_options":
        kind = source.data_source_class_type  # of Feast's own sources it is there after some applies only
        with contextlib.suppress(ValueError):
            options = dict(json.loads(source.custom_options.configuration))
    for place in ("uri", "path", "s3_endpoint_override", "kafka_bootstrap_servers", "region"):
        options.pop(place, None)
    return [kind, options]


def _meaning_of_computed(spec: Any, features: set[str]) -> dict[str, Any]:
    inputs = {}
    for name, source in spec.sources.items():
        projection, request = source.feature_view_projection, source.request_data_source.request_data_options
        inputs[name] = {**_columns(projection.feature_columns), **_columns(request.schema)}
    return {
        "function": _function(spec),
        "one row at a time": spec.singleton,
        "when written": spec.write_to_online_store,
        "inputs": inputs,
        "features": _columns(column for column in spec.features if column.name in features),
    }

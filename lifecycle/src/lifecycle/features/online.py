"""The online read of a model's features, by the names of its columns."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from lifecycle.features.contract import (
    FeatureContract,
    View,
    full_names,
    repeated,
    stored_sources,
    stored_views,
)

if TYPE_CHECKING:
    from feast import FeatureService, FeatureStore, FeatureView

_SERVICE = "the stored features of one contract"


class OnlineReader:
    """Reads the features of a contract from the online store, and says how old each may be.

    Feast gives a computed feature no time of its own: it is as old as the views behind it. Of a view that
    only a computed feature needs, one stored feature is therefore read along, for its age.

    By bare names one read gives everything. Where two features, or inputs of an on-demand view, share a name,
    or where a view has an alias, the stored features are read by full names and through a feature service,
    which alone knows aliases; and each on-demand view by itself, because Feast 0.67 leaves out what a Python
    function computes when full names are asked for.

    Args:
        store: the registry gets a feature service of this reader's own, so it must be a copy; see
            ``lifecycle.serving.watching.pinned``.
        contract: as ``FeatureContract.check`` found it to be in order.

    Attributes:
        limits: the time to live in seconds (infinite for a view without one), by the column of each stored
            feature.
    """

    def __init__(self, store: FeatureStore, contract: FeatureContract):
        sources = stored_sources(store, contract)
        stored = {view.name: view for view in stored_views(store, contract)}
        views = {source.name: stored[source.view] for source in sources}
        references = list(contract.feature_refs)
        columns, computed = list(contract.columns), dict[str, list[str]]()
        for reference in references:
            name = reference.partition(":")[0]
            if name not in views:
                computed.setdefault(name, []).append(reference)
        for name in [name for name in views if not any(r.startswith(f"{name}:") for r in references)]:
            along = f"{name}:{views[name].features[0].name}"
            references.append(along)
            columns.append(_free(_bare([along])[0], full_names([along])[0], columns))
        named = dict(zip(references, columns, strict=True))

        self._store, self._keys, self.limits = store, dict[str, str](), dict[str, float]()
        for reference, column in named.items():
            if view := views.get(reference.partition(":")[0]):
                self.limits[column] = view.ttl.total_seconds() if view.ttl else math.inf

        inputs = {
            f"{source.name}:{feature.name}"
            for name in computed
            for source in store.get_on_demand_feature_view(name).source_feature_view_projections.values()
            for feature in source.features
        }
        names = [*_bare({*references, *inputs}), *contract.join_keys, *contract.request_fields]
        self._reads: list[tuple[list[str] | FeatureService, bool, dict[str, str]]]
        if not (contract.aliases or contract.join_key_maps or repeated(names)):
            self._reads = [(references, False, dict(zip(_bare(references), columns, strict=True)))]
            return
        of_views = [reference for reference in references if reference.partition(":")[0] in views]
        full = {name: named[r] for name, r in zip(full_names(of_views), of_views, strict=True)}
        self._reads = [(self._service(sources, views, of_views), True, full)] if of_views else []
        self._reads += [(read, False, {_bare([r])[0]: named[r] for r in read}) for read in computed.values()]

    def _service(
        self, sources: list[View], views: dict[str, FeatureView], references: list[str]
    ) -> FeatureService:
        """Put a feature service with the stored features into the registry of the store.

        It maps every join key to a column that no view has for a key: Feast takes a column with the name of
        a view's own key for it, even where a map names another.
        """
        from feast import FeatureService

        projected = []
        for source in sources:
            view = views[source.name]
            names = [
                feature for name, feature in (r.split(":", 1) for r in references) if name == source.name
            ]
            keys = {column.name: source.keys.get(column.name, column.name) for column in view.entity_columns}
            keys.pop("__dummy_id", None)
            self._keys |= {column: f"{column} of the request" for column in keys.values()}
            projected.append(
                view[names]
                .with_name(source.name)
                .with_join_key_map({key: self._keys[column] for key, column in keys.items()})
            )
        service = FeatureService(name=_SERVICE, features=projected)
        self._store.registry.apply_feature_service(service, self._store.project)
        return self._store.get_feature_service(_SERVICE)

    def read(self, rows: list[dict[str, Any]]) -> dict[str, list]:
        """The values of n entities by column, and under ``column__ts`` their times, seconds since 1970.

        Args:
            rows: the join keys and the request fields of each entity.
        """
        values: dict[str, list] = {}
        for features, full, columns in self._reads:
            entity_rows = rows
            if full:
                entity_rows = [{key: row[column] for column, key in self._keys.items()} for row in rows]
            response = self._store.get_online_features(
                features=features, entity_rows=entity_rows, full_feature_names=full
            ).to_dict(include_event_timestamps=True)
            for name, column in columns.items():
                values[column], values[f"{column}__ts"] = response[name], response[f"{name}__ts"]
        return values


def _bare(references: Iterable[str]) -> list[str]:
    return [reference.partition(":")[2] for reference in references]


def _free(name: str, full: str, taken: list[str]) -> str:
    """A name for a column that is read along, and that no other has."""
    if name in taken:
        name = full
    while name in taken:
        name += "_"
    return name

"""Definitions in files against the feature registry: what `feast plan` would change, without its false
alarms."""

from __future__ import annotations

import contextlib
import shutil
import sys
from collections.abc import MutableSequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from helpers.workspace import WorkshopError, Workspace

if TYPE_CHECKING:
    from feast import FeatureService, FeatureStore
    from feast.diff.registry_diff import RegistryDiff
    from feast.repo_contents import RepoContents


def definitions(feature_repo: Path) -> RepoContents:
    """The objects that the files of a feature repository define, as `feast apply` reads them."""
    from feast.repo_operations import parse_repo

    # Read again what was imported before, perhaps from another home or before an edit.
    for path in feature_repo.glob("*.py"):
        sys.modules.pop(path.stem, None)
    sys.path.insert(0, str(feature_repo))  # the files import one another
    try:
        with contextlib.chdir(feature_repo):  # Feast names modules relative to the working directory
            return parse_repo(feature_repo)
    finally:
        sys.path.remove(str(feature_repo))


def _without_times(value: Any) -> Any:
    if hasattr(value, "HasField") and "meta" in value.DESCRIPTOR.fields_by_name:
        value = type(value).FromString(value.SerializeToString())
        value.ClearField("meta")
    return value


def _in_any_order(value: Any) -> Any:
    if isinstance(value, MutableSequence):
        return sorted(map(str, value))
    return _without_times(value)


def changes(difference: RegistryDiff) -> pd.DataFrame:
    """A planned change per row: object, kind, change (create, update, delete) and the properties that differ.

    Once a feature view was materialized, Feast 0.67 reports it as changed in ``batch_source``, because the
    registry's copy carries times of its own. Such a difference in times alone is left out here, and so is
    another order of a view's fields, which ``FeatureView.schema`` gives in any order.
    """
    rows = []
    for found in difference.feast_object_diffs:
        change = found.transition_type.name.lower()
        # The order of a service's features is that of a model's columns; that of a view's is nobody's.
        same = _in_any_order if "feature view" in found.feast_object_type.value else _without_times
        properties = [
            p.property_name
            for p in found.feast_object_property_diffs
            if same(p.val_existing) != same(p.val_declared)
        ]
        if change in ("create", "delete") or (change == "update" and properties):
            rows.append(
                {
                    "object": found.name,
                    "kind": found.feast_object_type.value,
                    "change": change,
                    "properties": ", ".join(sorted(set(properties))),
                }
            )
    return pd.DataFrame(rows, columns=["object", "kind", "change", "properties"]).sort_values(
        ["kind", "object"], ignore_index=True
    )


def apply(store: FeatureStore, folder: Path) -> None:
    """Register what the files in ``folder`` define, as `feast apply` does, but delete nothing."""
    found = definitions(folder)
    views: list[Any] = [*found.feature_views, *found.on_demand_feature_views]
    store.apply([*found.projects, *found.entities, *found.data_sources, *views, *found.feature_services])


def view_versions(store: FeatureStore, service: FeatureService) -> dict[str, str]:
    """The current version of each feature view that a service reads, as tags of a run:
    ``version.driver_hourly_stats: v2``."""
    views = [projection.name for projection in service.feature_view_projections]
    return {f"version.{view}": store.list_feature_view_versions(view)[-1]["version"] for view in views}


def check(workspace: Workspace) -> None:
    """Raise WorkshopError when the registry holds other definitions than ``feature_repo/``, such as those of
    a moved clone."""
    from feast import FeatureStore

    store = FeatureStore(repo_path=str(workspace.feature_repo))
    try:
        difference, _, _ = store.plan(definitions(workspace.feature_repo))
    # `feast apply` stores the online store's whole path, and a plan opens it where it was.
    except FileNotFoundError as error:
        raise WorkshopError(
            f"the feature registry is stale, it was applied in a folder that is gone ({error.filename}). "
            f"Delete {workspace.path / 'registry.db'} and try again: notebooks 01 and 03 make it again."
        ) from None
    stale = changes(difference)
    if len(stale):
        rows = "; ".join(f"{row.object}: {row.change} {row.properties}".strip() for row in stale.itertuples())
        raise WorkshopError(
            f"the feature registry is stale, it differs from feature_repo/ ({rows}). Run notebook 01, or "
            "`feast apply` in feature_repo/; nothing else is lost."
        )


def staging(
    workspace: Workspace, store: FeatureStore, view: str, name: str, rows: pd.DataFrame
) -> FeatureStore:
    """A feature store of its own for rows that have just arrived: they are judged before anybody reads them.

    It is a Feast project in ``workspace/staging/<name>/`` with its own registry and online store; ``store``'s
    registry is only read.

    Args:
        workspace: where the staging folder goes.
        store: the project whose feature view is taken over: name, keys, schema and time to live.
        view: name of that feature view.
        name: of the staged batch.
        rows: n rows with the columns of the view's source; written as the staged view's source.

    What an earlier batch of this name left there, perhaps half written, is deleted first.
    """
    from feast import FeatureStore, FeatureView, FileSource, RepoConfig

    folder = workspace.path / "staging" / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    path = folder / "rows.parquet"
    rows.to_parquet(path, index=False)

    served = store.get_feature_view(view)
    assert served.batch_source, f"{view} is not filled from a batch source"
    entities = [store.get_entity(entity) for entity in served.entities]
    source = FileSource(
        name=served.batch_source.name,
        path=str(path),
        timestamp_field=served.batch_source.timestamp_field,
        created_timestamp_column=served.batch_source.created_timestamp_column,
    )
    config = RepoConfig(
        project="staging",
        provider="local",
        registry=str(folder / "registry.db"),
        online_store={"type": "sqlite", "path": str(folder / "online_store.db")},
        offline_store={"type": "duckdb"},
        repo_path=folder,
        entity_key_serialization_version=3,
    )
    arrived = FeatureStore(config=config)
    staged = FeatureView(name=view, entities=entities, ttl=served.ttl, schema=served.schema, source=source)
    arrived.apply([*entities, staged])
    return arrived

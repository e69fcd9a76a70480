"""Point-in-time retrieval with a guard: as many rows as were asked for, in their order, and no name twice."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

if TYPE_CHECKING:
    from feast import FeatureService, FeatureStore

_ROW = "workshop_row"


def feature_references(store: FeatureStore, features: list[str] | FeatureService) -> list[str]:
    """The references ``view:feature`` that a list or a feature service stands for, each known to the registry.

    Raises:
        ValueError: a reference is malformed, or its view or feature is not in the registry; the message lists what is.
    """
    if not isinstance(features, list):
        return [f"{p.name_to_use()}:{field.name}" for p in features.feature_view_projections for field in p.features]
    views = {view.name: view for view in [*store.list_batch_feature_views(), *store.list_on_demand_feature_views()]}
    for reference in features:
        name, colon, feature = reference.partition(":")
        if not colon:
            raise ValueError(
                f"{reference!r} is not a feature reference: write view:feature, such as driver_hourly_stats:conv_rate."
            )
        if name not in views:
            raise ValueError(
                f"no feature view {name!r} in the registry (feature reference {reference!r}). It has: {', '.join(sorted(views))}."
            )
        known = [field.name for field in views[name].features]
        if feature not in known:
            raise ValueError(f"feature view {name!r} has no feature {feature!r}. It has: {', '.join(known)}.")
    return features


def historical_features(
    store: FeatureStore, entity_df: pd.DataFrame, features: list[str] | FeatureService
) -> pd.DataFrame:
    """``store.get_historical_features``, with every row of ``entity_df`` back once and in its place.

    Feast may return rows in another order, and some offline stores drop or merge rows without a word. This adds a row number before the call,
    checks that each came back once, and sorts by it.

    Args:
        entity_df: n rows with the join keys and a UTC ``event_timestamp``; further columns, such as the label, pass through.
        features: feature references or a feature service.

    Returns:
        n rows with the index of ``entity_df``: its columns, then one per feature (null where nothing is valid at that row's time).

    Raises:
        ValueError: an unknown feature reference; a column of ``entity_df`` with a feature's name; a missing join key or ``event_timestamp``;
            a row that was lost or repeated.
    """
    references = feature_references(store, features)
    names = [reference.split(":")[1] for reference in references]
    clash = sorted({*names, _ROW} & set(entity_df.columns))
    if clash:
        raise ValueError(
            f"the entity table already has the column{'s' if len(clash) > 1 else ''} {', '.join(clash)}, which the features would overwrite. "
            f"Drop or rename: entity_df.rename(columns={{{clash[0]!r}: {clash[0] + '_given'!r}}})."
        )
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(
            f"two features share the name {', '.join(twice)}. Retrieve them in two calls, or give one view an alias with `view.with_name()`."
        )
    keys = [entity.join_key for entity in store.list_entities()]
    missing = sorted({*keys, "event_timestamp"} - set(entity_df.columns))
    if missing:
        raise ValueError(
            f"the entity table has no column {', '.join(missing)}; it needs {', '.join(keys)} and event_timestamp."
        )

    numbered = entity_df.reset_index(drop=True).assign(**{_ROW: range(len(entity_df))})
    frame = store.get_historical_features(entity_df=numbered, features=features).to_df()
    if sorted(frame[_ROW]) != list(range(len(entity_df))):
        came = frame[_ROW].nunique()
        raise ValueError(
            f"{len(entity_df)} rows were asked for, {len(frame)} came back, of them {came} different ones. The offline store loses or repeats rows: "
            f"it is {store.config.offline_store.type!r}; use duckdb."
        )
    frame = frame.sort_values(_ROW).set_index(entity_df.index)
    return frame[[*entity_df.columns, *names]]

"""Point-in-time retrieval with a guard: as many rows as were asked for, in their order, and no name twice."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from lifecycle.features.contract import (
    entity_columns,
    feature_names,
    feature_references,
    feature_types,
    full_names,
    repeated,
    stored_sources,
    stored_views,
)
from lifecycle.features.declared import check_entity_table, check_files, check_whole_numbers

if TYPE_CHECKING:
    from feast import FeatureService, FeatureStore

_ROW = "row_number_of_the_guard"


def historical_features(
    store: FeatureStore, entity_df: pd.DataFrame, features: list[str] | FeatureService
) -> pd.DataFrame:
    """``store.get_historical_features``, with every row of ``entity_df`` back once and in its place.

    Feast may return rows in another order, and some offline stores drop or merge rows silently.
    This adds a row number before the call, checks that each came back once, and sorts by it.

    Args:
        store: the feature store to ask.
        entity_df: n rows with the join keys, the request fields and an ``event_timestamp`` with a
            time zone; further columns, such as the label, pass through.
        features: feature references or a feature service; only a service can hold a view under an alias.

    Returns:
        n rows with the index of ``entity_df``: its columns, then one per feature (null where
        nothing is valid at that row's time), by the names of ``lifecycle.features.contract.feature_names``.

    Raises:
        ValueError: an unknown feature reference; a column of ``entity_df`` with a feature's name;
            a missing join key, request field or ``event_timestamp``; a row lost or repeated;
            times without a time zone, and other types than are declared (``lifecycle.features.declared``).
    """
    references = feature_references(store, features)
    names, full = feature_names(references), full_names(references)
    clash = sorted({*names, _ROW} & set(entity_df.columns))
    if clash:
        raise ValueError(
            f"the entity table already has the column{'s' if len(clash) > 1 else ''} "
            f"{', '.join(clash)}, which the features would overwrite. Drop or rename: "
            f"entity_df.rename(columns={{{clash[0]!r}: {clash[0] + '_given'!r}}})."
        )
    if twice := repeated(names) or repeated(full):
        raise ValueError(f"two features share the name {', '.join(twice)}: ask for each feature once.")
    sources = stored_sources(store, features)
    if store.config.offline_store.type == "remote" and any(source.keys for source in sources):
        raise ValueError(
            "Feast's remote offline store leaves out join key maps and would join by other keys: retrieve "
            "where the files are."
        )
    keys, fields = entity_columns(store, features)
    needed = list(dict.fromkeys([*keys, *fields, "event_timestamp"]))
    missing = sorted(set(needed) - set(entity_df.columns))
    if missing:
        raise ValueError(
            f"the entity table has no column {', '.join(missing)}; "
            f"it needs {', '.join(needed[:-1])} and event_timestamp."
        )
    check_entity_table(entity_df, {**keys, **fields})
    stored = stored_views(store, features)
    for view in stored:
        check_files(view, store)

    # By full names, and without a column that a view has as well: nothing inside can meet a name of its own.
    # The others go along, because Feast logs the entity table to the active MLflow run.
    inside = {*full, *(field.name for view in stored for field in view.schema)}
    sent = [name for name in entity_df if name in needed or name not in inside]
    numbered = entity_df[sent].reset_index(drop=True).assign(**{_ROW: range(len(entity_df))})
    frame = store.get_historical_features(
        entity_df=numbered, features=features, full_feature_names=True
    ).to_df()
    if sorted(frame[_ROW]) != list(range(len(entity_df))):
        came = frame[_ROW].nunique()
        raise ValueError(
            f"{len(entity_df)} rows were requested, and {len(frame)} came back, {came} of them distinct. "
            f"The offline store {store.config.offline_store.type!r} loses or repeats rows; use duckdb."
        )
    frame = frame.sort_values(_ROW).set_index(entity_df.index)
    others = entity_df.drop(columns=needed)
    found = frame[full].set_axis(names, axis="columns")
    check_whole_numbers(found, feature_types(store, features))
    return pd.concat([frame[needed], others, found], axis="columns")[[*entity_df.columns, *names]]

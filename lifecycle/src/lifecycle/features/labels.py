"""The labels of a training: checked here, whichever door they come in by; what is left out is counted.

The pipeline's first step, a Katib trial, a retraining, and a distributed training check a label table before
they retrieve a feature; a sweep's ``validation_scores`` checks the column of labels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from lifecycle.features.contract import FeatureContract, entity_columns
from lifecycle.features.declared import check_entity_table
from lifecycle.features.retrieval import historical_features

if TYPE_CHECKING:
    from feast import FeatureStore

_WHOLE = ("INT32", "INT64")


class LabelsRefused(ValueError):
    """Labels that no model should learn from; the message says what to do."""


def check_values(labels: pd.Series, task: str) -> None:
    """Refuse labels that the task cannot learn.

    Args:
        labels: n values; a missing one is for the caller to drop.
        task: ``binary``: 0 and 1 (true and false are the same); ``regression``: finite numbers.

    Raises:
        LabelsRefused: other values; the message shows some, and the line that mends them.
    """
    name, values = labels.name, labels.dropna()
    if task == "regression":
        if not pd.api.types.is_numeric_dtype(values.dtype):
            kind = pd.api.types.infer_dtype(values, skipna=True)
            raise LabelsRefused(
                f"the labels of a regression must be numbers, and the column {name} holds {kind} values: "
                f"labels[{name!r}] = pd.to_numeric(labels[{name!r}])."
            )
        infinite = int(np.isinf(values.to_numpy("float64")).sum())
        if infinite:
            raise LabelsRefused(
                f"{infinite} of the labels in the column {name} are infinite, and a regression needs finite "
                "numbers. Leave these rows out, or cap them."
            )
        return
    found = values.unique().tolist()
    if all(value in (0, 1) for value in found):
        return
    shown = ", ".join(map(repr, sorted(found, key=str)[:5])) + (", ..." if len(found) > 5 else "")
    if len(found) > 2:
        remedy = (
            "Say which of them the model predicts, as in "
            f"labels[{name!r}] = (labels[{name!r}] == {found[0]!r}).astype('int64'), "
            "or take task = 'regression'."
        )
    else:
        [one] = sorted(found, key=str)[-1:]
        remedy = f"If {one!r} stands for 1: labels[{name!r}] = (labels[{name!r}] == {one!r}).astype('int64')."
    raise LabelsRefused(f"labels must be 0 or 1; the column {name} holds {shown}. {remedy}")


def declared_types(store: FeatureStore, feature_service: str) -> dict[str, Any]:
    """The declared type of each join key and request field of a feature service, by column."""
    keys, fields = entity_columns(store, store.get_feature_service(feature_service))
    return {**keys, **fields}


def usable_rows(
    labels: pd.DataFrame, contract: FeatureContract, declared: Mapping[str, Any], task: str = "binary"
) -> tuple[pd.DataFrame, dict[str, int]]:
    """The rows of a label table that can be asked about and learned from.

    Args:
        labels: join keys, request fields, ``event_timestamp`` and the label; further columns are left out.
        contract: of the features.
        declared: the type of each join key and request field; see ``declared_types``.
        task: see ``check_values``.

    Returns:
        The rows with a value in each of the contract's columns, with those columns alone and the index of
        ``labels``; and how many rows lack one, by column.

    Raises:
        LabelsRefused: a column is missing, no row is complete, or a label is none.
        ValueError: times without a time zone, text or fractions for whole numbers; see
            ``lifecycle.features.declared``.
    """
    needed = [*contract.join_keys, *contract.request_fields, "event_timestamp", contract.label]
    absent = [name for name in needed if name not in labels]
    if absent:
        raise LabelsRefused(
            f"the label table has no column {', '.join(absent)}; "
            f"it has {', '.join(map(str, labels.columns))}."
        )
    table = labels[needed]
    dropped = missing_values(table)
    rows = table.dropna()
    if rows.empty:
        lacking = f": {in_words(dropped)}" if dropped else ""
        raise LabelsRefused(f"none of the {len(table)} rows of the label table is complete{lacking}.")
    check_entity_table(rows, {name: dtype for name, dtype in declared.items() if name in rows})
    # A missing value made the column one of floats; fractions were refused above.
    whole = [
        name
        for name in [*contract.join_keys, *contract.request_fields]
        if name in declared and declared[name].to_value_type().name in _WHOLE
        if pd.api.types.is_float_dtype(rows[name])
    ]
    rows = rows.astype(dict.fromkeys(whole, "int64"))
    check_values(rows[contract.label], task)
    kind = "int64" if task == "binary" else "float64"
    return rows.astype({contract.label: kind}), dropped


def training_table(
    store: FeatureStore, labels: pd.DataFrame, contract: FeatureContract, task: str = "binary"
) -> tuple[pd.DataFrame, dict[str, int]]:
    """The point-in-time features of the usable rows of a label table.

    Args:
        store: the feature store to ask.
        labels: see ``usable_rows``.
        contract: of the features, made from ``store``.
        task: see ``check_values``.

    Returns:
        The contract's columns of each usable row, null where nothing is valid at its time; and how many rows
        lack a value, by column: those of ``labels``, which are left out here, and the features, whose rows
        ``lifecycle.models.model.split`` leaves out.

    Raises:
        ValueError: see ``usable_rows`` and ``lifecycle.features.retrieval.historical_features``.
    """
    rows, dropped = usable_rows(labels, contract, declared_types(store, contract.feature_service), task)
    table = historical_features(store, rows, store.get_feature_service(contract.feature_service))
    return table, dropped | missing_values(table[contract.columns])


def missing_values(table: pd.DataFrame) -> dict[str, int]:
    """How many rows lack a value, by column; columns that lack none are left out."""
    counts = table.isna().sum()
    return {str(name): int(count) for name, count in counts.items() if count}


def in_words(dropped: Mapping[str, int]) -> str:
    """The counts as a part of a sentence, empty when nothing was left out."""
    return ", ".join(f"{count} without {name}" for name, count in dropped.items())

"""Whether an entity table, and the files behind feature views, hold what the feature repository declares.

Each check names table, column and remedy.

Without them Feast's own words would be those of the join ("Arguments ...:string and ...:int64 are not
comparable"), or there would be none: times without a zone are read as UTC, and fractions are cut off on the
way into an online store.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

if TYPE_CHECKING:
    from feast import FeatureStore, FeatureView
    from feast.types import FeastType

_WHOLE = ("INT32", "INT64")
_NUMBERS = (*_WHOLE, "FLOAT", "DOUBLE")
_INFERRED = {
    "string": "text",
    **dict.fromkeys(("integer", "floating", "mixed-integer-float", "decimal"), "numbers"),
}
"""What pandas infers that a column holds, in the two words by which it is compared."""


def check_entity_table(entity_df: pd.DataFrame, declared: Mapping[str, FeastType]) -> None:
    """Refuse times without a time zone, and keys or request fields with text for numbers or numbers for text.

    Args:
        entity_df: n rows with ``event_timestamp`` and the columns of ``declared``.
        declared: the type of each join key and request field.

    Raises:
        ValueError: as above; the message names the column.
    """
    times = entity_df["event_timestamp"]
    if pd.api.types.is_datetime64_dtype(times):
        raise ValueError(
            "the times of the entity table have no time zone, and Feast would take them for UTC. Say which "
            "zone they are of: "
            'entity_df.event_timestamp.dt.tz_localize("UTC"), or "America/New_York" in its place.'
        )
    if not isinstance(times.dtype, pd.DatetimeTZDtype):
        kind = pd.api.types.infer_dtype(times, skipna=True)
        raise ValueError(
            f"event_timestamp of the entity table is a column of {kind} values, not of times with a time "
            "zone. "
            "Make them: pd.to_datetime(entity_df.event_timestamp, utc=True), if they are in UTC."
        )
    for name, dtype in declared.items():
        values = entity_df[name]
        if isinstance(values.dtype, pd.CategoricalDtype):
            values = pd.Series(values.cat.categories)
        inferred = pd.api.types.infer_dtype(values, skipna=True)
        expected, found = _declared(dtype), _INFERRED.get(inferred, f"{inferred} values")
        if expected and inferred != "empty" and found != expected:
            (example,) = values.dropna().head(1).tolist()
            raise ValueError(
                f"the column {name} of the entity table holds {found}, such as {example!r}, and the feature "
                f"repository declares {expected} ({dtype}). "
                f"Read it as {expected} from its file on, or declare the other type and apply."
            )


def check_files(view: FeatureView, store: FeatureStore) -> None:
    """Compare the columns in a feature view's parquet files with their declared types, by the footers alone.

    Several files are read as the first of them is, and what differs in the others is rounded or cast without
    a word. Times without a time zone are right when they are in UTC, so they are only warned about. Files
    that are not on this machine are not looked at.

    Args:
        view: as the registry holds it.
        store: its feature store, for the folder that paths begin in.

    Raises:
        ValueError: text where numbers are declared, or the other way round; whole numbers in the first file
            and fractions in another.
    """
    from feast import FileSource
    from feast.data_format import ParquetFormat

    source = view.batch_source
    if not isinstance(source, FileSource) or not isinstance(
        source.file_format or ParquetFormat(), ParquetFormat
    ):
        return
    path = Path(str(store.config.repo_path or "."), source.file_options.uri)
    if path.is_file():
        files = [path]
    else:
        files = sorted(path.glob("*.parquet") if path.is_dir() else path.parent.glob(path.name))
    first: dict[str, pa.DataType] = {}
    for file in files:
        try:
            schema = pq.read_schema(file)
        except (OSError, pa.ArrowInvalid):
            continue  # no parquet, or cut short: the offline store says so, and names the file
        types = {source.field_mapping.get(column.name, column.name): column.type for column in schema}
        for column in [*view.entity_columns, *view.features]:
            if column.name not in types:
                continue
            expected, found = _declared(column.dtype), _stored(types[column.name])
            if expected and found and found != expected:
                raise ValueError(
                    f"{file.name} holds {found} ({types[column.name]}) in the column {column.name}, and the "
                    f"feature view {view.name!r} declares {expected} "
                    f"({column.dtype}). Write the file with that type, or declare the other one and apply."
                )
            before = first.setdefault(column.name, types[column.name])
            if pa.types.is_integer(before) and pa.types.is_floating(types[column.name]):
                raise ValueError(
                    f"the files of the feature view {view.name!r} differ in the column {column.name}: "
                    f"{before} in {files[0].name}, {types[column.name]} in {file.name}. "
                    "All are read as the first is, which would round the others: write them with one type."
                )
        time = types.get(source.timestamp_field)
        if time is not None and pa.types.is_timestamp(time) and time.tz is None:
            warnings.warn(
                f"the times in {file.name} ({source.timestamp_field}) have no time zone, and Feast takes "
                "them for UTC. "
                "If they are of another zone, a feature is known hours too early or too late: write them "
                "with their zone.",
                stacklevel=3,
            )


def check_whole_numbers(frame: pd.DataFrame, declared: Mapping[str, FeastType]) -> None:
    """Refuse fractions in a feature that is declared as whole numbers.

    A model would learn from 7.5, and an online store would give it 7.

    Args:
        frame: n retrieved rows.
        declared: the type of each feature.

    Raises:
        ValueError: as above; the message names the feature.
    """
    for name, dtype in declared.items():
        if dtype.to_value_type().name in _WHOLE and pd.api.types.is_float_dtype(frame[name]):
            values = frame[name].dropna()
            fractions = values[values % 1 != 0]
            if len(fractions):
                raise ValueError(
                    f"the feature {name} is declared as whole numbers ({dtype}) and holds fractions, such "
                    f"as {fractions.iloc[0]}. "
                    "An online store would cut them off, so a model would be served other values than it "
                    "learned from: declare Float64 and apply."
                )


def _declared(dtype: FeastType) -> str:
    name = dtype.to_value_type().name
    return "text" if name == "STRING" else "numbers" if name in _NUMBERS else ""


def _stored(found: pa.DataType) -> str:
    found = found.value_type if pa.types.is_dictionary(found) else found
    if pa.types.is_string(found) or pa.types.is_large_string(found):
        return "text"
    number = pa.types.is_integer(found) or pa.types.is_floating(found) or pa.types.is_decimal(found)
    return "numbers" if number else ""

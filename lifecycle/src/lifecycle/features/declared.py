"""Whether an entity table, and the files behind feature views, hold what the feature repository declares.

Each check names table, column and remedy.

Without them Feast's own words would be those of the join ("Arguments ...:string and ...:int64 are not
comparable"), or there would be none: times without a zone are read as UTC, and fractions are cut off on the
way into an online store.
"""

from __future__ import annotations

import glob
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

if TYPE_CHECKING:
    from feast import FeatureStore, FeatureView
    from feast.types import FeastType

_WHOLE = {"INT32": 32, "INT64": 64}
_NUMBERS = (*_WHOLE, "FLOAT", "DOUBLE")
LARGEST = {"FP32": 3.4028234e38, "FP64": 1.7e308}
"""The greatest number of a type that a request can carry, by the protocol's name."""
LONGEST = 1000
"""Characters of a text that a request can carry."""
_PROTOCOL = {"INT32": "INT32", "INT64": "INT64", "FLOAT": "FP32", "DOUBLE": "FP64", "STRING": "BYTES"}
_FILES: dict[str, Callable[[pa.DataType], bool]] = {
    "INT32": lambda found: pa.types.is_integer(found) or pa.types.is_floating(found),
    "INT64": lambda found: pa.types.is_integer(found) or pa.types.is_floating(found),
    "FLOAT": lambda found: found in (pa.float16(), pa.float32()),
    "DOUBLE": lambda found: found in (pa.float64(), pa.int64()) or pa.types.is_decimal(found),
    "STRING": lambda found: found == pa.string(),
    "BOOL": pa.types.is_boolean,
    "UNIX_TIMESTAMP": pa.types.is_timestamp,
}
"""The types of a file's column that a retrieval and the online store give back as the same values.

Whole numbers with gaps are floats in files that pandas wrote; ``check_whole_numbers`` looks at their values.
"""
_INFERRED = {
    "string": "text",
    **dict.fromkeys(("integer", "floating", "mixed-integer-float", "decimal"), "numbers"),
}
"""What pandas infers that a column holds, in the two words by which it is compared."""


def protocol_type(dtype: FeastType) -> str | None:
    """The Open Inference Protocol's name of a type that a request can carry; None for any other type."""
    return _PROTOCOL.get(dtype.to_value_type().name)


def check_entity_table(entity_df: pd.DataFrame, declared: Mapping[str, FeastType]) -> None:
    """Refuse times without a time zone, and keys or request fields that a server would not accept.

    Args:
        entity_df: n rows with ``event_timestamp`` and the columns of ``declared``.
        declared: the type of each join key and request field.

    Raises:
        ValueError: as above, such as text for numbers, fractions or too large numbers for whole ones; the
            message names the column.
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
        bits = _WHOLE.get(dtype.to_value_type().name)
        if bits and not values.dropna().between(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1).all():
            raise ValueError(
                f"the column {name} of the entity table holds numbers that {dtype} has no room for, such as "
                f"{values.abs().max()}. Declare a wider type and apply."
            )
        if bits and pd.api.types.is_float_dtype(values) and (values.abs() >= 2**53).any():
            raise ValueError(
                f"the column {name} of the entity table became one of floats, as a value is missing, and "
                f"floats round numbers as large as {values.abs().max():.0f}: another row could answer. Leave "
                "the rows without it out of the file, or write it as pandas' Int64."
            )
        if inferred != "empty":
            _check_room(name, values.dropna(), dtype)
    check_whole_numbers(entity_df, declared)


def _check_room(name: str, values: pd.Series, dtype: FeastType) -> None:
    """Refuse a number or a text that a request could not carry."""
    kind = protocol_type(dtype) or ""
    if kind in LARGEST and not (values.abs() <= LARGEST[kind]).all():
        raise ValueError(
            f"the column {name} of the entity table holds {values.abs().max()}, and a server takes finite "
            f"numbers of {kind[2:]} bits ({dtype}): leave these rows out."
        )
    if kind == "BYTES" and values.str.len().max() > LONGEST:
        raise ValueError(
            f"the column {name} of the entity table holds a text of {values.str.len().max()} characters, and "
            f"a server takes at most {LONGEST}."
        )


def check_files(view: FeatureView, store: FeatureStore) -> None:
    """Compare the columns in a feature view's parquet files with their declared types, by the footers alone.

    Several files are read as the first of them is, and what differs in the others is rounded or cast without
    a word. What the files hold must be what a retrieval and ``materialize`` can give as one value. Times
    without a time zone are right when they are in UTC, so they are only warned about. Files that are not on
    this machine are not looked at.

    Args:
        view: as the registry holds it.
        store: its feature store, for the folder that paths begin in.

    Raises:
        ValueError: a type that is not declared so, such as text for numbers or float for Float64; two files
            whose types differ so that the first cannot hold the values of the other; times that are none.
            The message names file, column and type.
    """
    from feast import FileSource
    from feast.data_format import ParquetFormat

    source = view.batch_source
    if not isinstance(source, FileSource) or not isinstance(
        source.file_format or ParquetFormat(), ParquetFormat
    ):
        return
    files = _files(source.file_options.uri, _start_of_paths(store))
    times = {name for name in (source.timestamp_field, source.created_timestamp_column) if name}
    declared = {column.name: column.dtype for column in [*view.entity_columns, *view.features]}
    first: dict[str, tuple[Path, pa.DataType]] = {}
    for file in files:
        try:
            schema = pq.read_schema(file)
        except (OSError, pa.ArrowInvalid):
            continue  # no parquet, or cut short: the offline store says so, and names the file
        # DuckDB compares names without regard to case.
        columns = {column.name.lower(): _plain(column.type) for column in schema}
        mapped = {new: old for old, new in source.field_mapping.items() if old.lower() in columns}
        for name in [*declared, *sorted(times)]:
            if (found := columns.get(mapped.get(name, name).lower())) is None:
                continue
            if name in times:
                _check_time(file, name, found)
            else:
                _check_type(file, name, found, declared[name], view.name)
            place, before = first.setdefault(name, (file, found))
            if not _holds(before, found):
                one, other = (place, file) if place.name == file.name else (place.name, file.name)
                raise ValueError(
                    f"the files of the feature view {view.name!r} differ in the column {name}: "
                    f"{before} in {one}, {found} in {other}. "
                    "All are read as the first is, which would round or change the others: write them with "
                    "one type."
                )


def _files(uri: str, start: str) -> list[Path]:
    """The files on this machine that a source's path stands for: a file, a folder, or a pattern."""
    name = uri.removeprefix("file://")
    path = Path(start, name)
    if path.is_file():
        return [path]
    if path.is_dir():
        return sorted(path.rglob("*.parquet"))
    # The folder's own name may hold a bracket.
    patterns = (name, f"{glob.escape(str(path.parent))}/{path.name}")
    matches = [match for one in patterns for match in glob.glob(one, root_dir=start, recursive=True)]  # noqa: PTH207
    return sorted(file for file in {Path(start, match) for match in matches} if file.is_file())


def _start_of_paths(store: FeatureStore) -> str:
    """Where the offline store starts a relative path: Feast's DuckDB store at the working directory."""
    kinds = [kind.__name__ for kind in type(store.config.offline_store).__mro__]
    return str(Path.cwd()) if "DuckDBOfflineStoreConfig" in kinds else str(store.config.repo_path or ".")


def _plain(found: pa.DataType) -> pa.DataType:
    found = found.value_type if pa.types.is_dictionary(found) else found
    return pa.string() if pa.types.is_large_string(found) or pa.types.is_string_view(found) else found


def _check_type(file: Path, name: str, found: pa.DataType, dtype: FeastType, view: str) -> None:
    fits = _FILES.get(dtype.to_value_type().name)
    if fits and not fits(found) and not pa.types.is_null(found):
        holds = f"{_stored(found)} ({found})".lstrip()
        expected = f"{_declared(dtype)} ({dtype})".lstrip()
        raise ValueError(
            f"{file.name} holds {holds} in the column {name}, and the feature view {view!r} declares "
            f"{expected}. Write the file with that type, or declare the other one and apply."
        )


def _check_time(file: Path, name: str, found: pa.DataType) -> None:
    if pa.types.is_timestamp(found) and found.tz is not None:
        return
    if not (pa.types.is_timestamp(found) or pa.types.is_date(found) or found == pa.string()):
        raise ValueError(
            f"the times in {file.name} ({name}) are {found} values: write them as times with a time zone."
        )
    kind = f"They are {found} values; a date counts from midnight on. "
    if pa.types.is_timestamp(found):
        kind = ""
    warnings.warn(
        f"the times in {file.name} ({name}) have no time zone, and Feast takes them for UTC. {kind}"
        "If they are of another zone, a feature is known hours too early or too late: write them "
        "with their zone.",
        stacklevel=4,
    )


def _holds(first: pa.DataType, other: pa.DataType) -> bool:
    """Whether a column of the first type can hold each value of the other."""
    if first == other or pa.types.is_null(other):
        return True
    if pa.types.is_timestamp(first) and pa.types.is_timestamp(other):
        units = ["s", "ms", "us", "ns"]
        return (first.tz is None) == (other.tz is None) and units.index(first.unit) >= units.index(other.unit)
    if pa.types.is_decimal(first) and pa.types.is_decimal(other):
        before_the_point = first.precision - first.scale >= other.precision - other.scale
        return first.scale >= other.scale and before_the_point
    if pa.types.is_integer(first) and pa.types.is_integer(other):
        bounds = [
            (-(2 ** (kind.bit_width - 1)), 2 ** (kind.bit_width - 1))
            if pa.types.is_signed_integer(kind)
            else (0, 2**kind.bit_width)
            for kind in (first, other)
        ]
        return bounds[0][0] <= bounds[1][0] and bounds[0][1] >= bounds[1][1]
    if pa.types.is_floating(first):
        # Pandas writes whole numbers with gaps as float64; below 2^53 that holds the other files' integers.
        small = pa.types.is_integer(other) and (first == pa.float64() or other.bit_width < first.bit_width)
        return small or (pa.types.is_floating(other) and first.bit_width > other.bit_width)
    return False


def check_whole_numbers(frame: pd.DataFrame, declared: Mapping[str, FeastType]) -> None:
    """Refuse fractions in a column that is declared as whole numbers.

    A model would learn from 7.5, and an online store would give it 7.

    Args:
        frame: n rows.
        declared: the type of each column to look at.

    Raises:
        ValueError: as above; the message names the column.
    """
    for name, dtype in declared.items():
        if dtype.to_value_type().name in _WHOLE and pd.api.types.is_float_dtype(frame[name]):
            values = frame[name].dropna()
            fractions = values[values % 1 != 0]
            if len(fractions):
                raise ValueError(
                    f"the column {name} is declared as whole numbers ({dtype}) and holds fractions, such "
                    f"as {fractions.iloc[0]}. "
                    "An online store would cut them off, so a model would be served other values than it "
                    "learned from: declare Float64 and apply, or mend what writes them."
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

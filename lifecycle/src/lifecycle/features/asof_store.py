"""An offline store whose point-in-time join is DuckDB's ASOF join: Feast's DuckDB store with another plan.

Feast 0.67's own DuckDB store joins each row that is asked for with *every* feature row that is valid for it,
and then ranks them. With hourly rows and a time to live of seven days that is 168 rows made and sorted for
one answer. An ASOF join finds the one row by a merge of two sorted tables. One line of ``feature_store.yaml``
chooses this store::

    offline_store: {type: lifecycle.features.asof_store.AsofOfflineStore}

Values, columns and types are those of Feast's DuckDB store; the order of rows is free in both. Case by case:

- *In the ASOF plan*: any number of views and keys, views without a key, joins under other key names
  (``with_join_key_map``), aliases, mapped source columns, full feature names, extra columns, repeated rows,
  nulls in keys, times and features, a time to live or none (0), naive and zoned timestamps of any unit, and
  ``filter_by_created_timestamp``. On-demand views run on the result, as in Feast's store.
- *In Feast's own code, inherited*: everything but ``get_historical_features``, such as materialization, saved
  datasets, feature logs and monitoring.
- *Refused*: a column of the entity table with the name of a feature in the answer, and rows that are asked
  for by SQL or by a range of dates. Feast's DuckDB store ends there in an
  ``AttributeError`` and a ``TypeError``.
- *Better than there*: a time to live of mixed units (36 hours), and columns whose names Feast's plan needs
  for itself (``docs/upstream.md``).
- *Left open, as there*: which of two rows is taken that agree in keys, event time and created time, or that
  have no created time to tell them apart. All features of one answer come from one row.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import ibis
import pandas as pd
import pyarrow as pa
from feast.feature_view import FeatureView
from feast.infra.offline_stores.duckdb import (
    DuckDBOfflineStore,
    DuckDBOfflineStoreConfig,
    _read_data_source,
    _validate_lance_feature_views,
    _write_data_source,
)
from feast.infra.offline_stores.ibis import IbisRetrievalJob
from feast.infra.offline_stores.offline_store import RetrievalJob, RetrievalMetadata
from feast.infra.offline_stores.offline_utils import infer_event_timestamp_from_entity_df
from feast.infra.registry.base_registry import BaseRegistry
from feast.on_demand_feature_view import OnDemandFeatureView
from feast.repo_config import RepoConfig

UTC = ibis.dtype("timestamp('UTC')")
_TIME, _WRITTEN, _SINCE = " time", " written", " since"
"""What a view's own columns are called inside the plan, behind the prefix that ``_prefix`` gives them."""
_SETTING = "asof_loop_join_threshold"
_one_query = threading.RLock()


class AsofOfflineStoreConfig(DuckDBOfflineStoreConfig):
    """The settings of Feast's DuckDB store; Feast finds this class by its name."""

    type: str = "lifecycle.features.asof_store.AsofOfflineStore"


@dataclass(frozen=True)
class ViewRows:
    """The rows of one feature view, and what the join must know of it.

    Attributes:
        table: all rows, with both time columns in UTC.
        time: the column of the event time.
        created: the column that tells when a row was written, if there is one.
        keys: for each join key of the view, the column of the entity table that it meets. Empty for a view
            without an entity.
        features: the names in the answer, and the columns of ``table`` that they come from.
        ttl: how long a row is valid; ``None`` or 0: for ever.
    """

    table: ibis.Table
    time: str
    created: str | None
    keys: dict[str, str]
    features: dict[str, str]
    ttl: timedelta | None


class AsofOfflineStore(DuckDBOfflineStore):
    """Feast's DuckDB store with an ASOF join; the module's text says what differs."""

    @staticmethod
    def get_historical_features(
        config: RepoConfig,
        feature_views: list[FeatureView],
        feature_refs: list[str],
        entity_df: pd.DataFrame | str | None,
        registry: BaseRegistry,
        project: str,
        full_feature_names: bool = False,
        filter_by_created_timestamp: bool = False,
        start_date: datetime | None = None,
        end_date: datetime | None = None,
    ) -> RetrievalJob:
        """The features of each row of ``entity_df`` as of its event time.

        Feast calls this; the arguments are those of its ``OfflineStore``.

        Args:
            entity_df: n rows with the join keys and one time column; others pass through.
            filter_by_created_timestamp: leave out what had not been written at the event time.

        Returns:
            A job for n rows: the columns of ``entity_df``, then the features, view by view.

        Raises:
            ValueError: ``entity_df`` is no data frame, lacks a join key, or has a column with a feature's
                name.
        """
        if not isinstance(entity_df, pd.DataFrame):
            raise ValueError(
                "this offline store takes the rows to be joined as a pandas data frame, as Feast's DuckDB "
                "store does. Run the query or make the dates first, and pass entity_df=frame."
            )
        _validate_lance_feature_views(feature_views)
        time = infer_event_timestamp_from_entity_df(
            dict(zip(entity_df.columns, entity_df.dtypes, strict=True))
        )
        asked = _with_times(entity_df, time)
        views = [_view_rows(view, feature_refs, full_feature_names, config) for view in feature_views]
        _check_columns(asked, feature_views, views)

        table = asof_plan(ibis.memtable(asked), views, time, filter_by_created_timestamp)

        on_demand = OnDemandFeatureView.get_requested_odfvs(feature_refs, project, registry)
        for view in on_demand:
            if view.mode == "substrait":
                table = view.transform_ibis(table, full_feature_names)
        return AsofRetrievalJob(
            table,
            [view for view in on_demand if view.mode != "substrait"],
            full_feature_names,
            metadata=RetrievalMetadata(
                features=feature_refs,
                keys=[column for column in asked.columns if column != time],
                min_event_timestamp=asked[time].min().to_pydatetime(),
                max_event_timestamp=asked[time].max().to_pydatetime(),
            ),
            data_source_writer=_write_data_source,
            staging_location=config.offline_store.staging_location,
            staging_location_endpoint_override=config.offline_store.staging_location_endpoint_override,
            repo_path=str(config.repo_path),
        )


@contextmanager
def merge_joins() -> Iterator[None]:
    """Let DuckDB join by a merge of two sorted tables whatever their size, as the plan wants it.

    Ibis hands the frame over as a stream of unknown length. DuckDB then expects one row, and would join a few
    rows in a nested loop. The setting belongs to Ibis' one connection, which others use as well, so it is put
    back afterwards; one query at a time, or the last to end would put back another's.
    """
    connection = ibis.get_backend()
    with _one_query:
        [before] = connection.raw_sql(f"SELECT current_setting('{_SETTING}')").fetchone()
        connection.raw_sql(f"SET {_SETTING} = 0")
        try:
            yield
        finally:
            connection.raw_sql(f"SET {_SETTING} = {before}")


class AsofRetrievalJob(IbisRetrievalJob):
    """Feast's job, which is executed under ``merge_joins``."""

    def _to_df_internal(self, timeout: int | None = None) -> pd.DataFrame:
        with merge_joins():
            return super()._to_df_internal(timeout)

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:
        with merge_joins():
            return super()._to_arrow_internal(timeout)

    def persist(self, *arguments: Any, **named: Any) -> None:
        """As Feast's."""
        with merge_joins():
            super().persist(*arguments, **named)

    def to_remote_storage(self) -> list[str]:
        """As Feast's."""
        with merge_joins():
            return super().to_remote_storage()


def asof_plan(
    asked: ibis.Table, views: Sequence[ViewRows], time: str, only_known: bool = False
) -> ibis.Table:
    """For each row of ``asked`` the latest valid row of each view, by one ASOF join a view.

    Args:
        asked: n rows.
        views: their rows; the join keys have their columns in ``asked``.
        time: the column of ``asked`` with the time as of which to answer.
        only_known: look only at rows that had been written by then.

    Returns:
        n rows: the columns of ``asked``, then the features, null where no row is valid.
    """
    answer, own = asked, _prefix([*asked.columns, *(name for view in views for name in view.features)])
    for view in views:
        rows = _one_row_a_moment(view, own, only_known)
        same = [answer[given] == rows[own + key] for key, given in view.keys.items()]
        joined = answer.asof_join(rows, on=answer[time] >= rows[own + _SINCE], predicates=same)
        # DuckDB's join finds a row for a time that is null, and for a key that is: docs/upstream.md.
        valid = ibis.and_(*(joined[column].notnull() for column in [time, *view.keys.values()]))
        if view.ttl:
            valid &= joined[own + _TIME] + _interval(view.ttl) >= joined[time]
        found = {
            name: valid.ifelse(joined[own + column], ibis.null()) for name, column in view.features.items()
        }
        answer = joined.select(*answer.columns, **found)
    return answer


def _prefix(names: Sequence[str]) -> str:
    """What none of ``names`` begins with. DuckDB compares names without regard to case."""
    prefix = "_own_"
    while any(name.lower().startswith(prefix) for name in names):
        prefix = f"_{prefix}"
    return prefix


def _one_row_a_moment(view: ViewRows, own: str, only_known: bool) -> ibis.Table:
    """At most one row for each key and moment: the one that answers from then (``since``) until the next.

    Without ``only_known`` a row answers from its event time, and of rows with one event time the last written
    counts. With it, a row answers once it has happened and has been written; what is written late about an
    earlier time than is known already never does.
    """
    table = view.table.drop_null(view.time)
    columns = {own + name: table[name] for name in [*view.keys, *view.features.values()]}
    time, written, since = own + _TIME, own + _WRITTEN, own + _SINCE
    columns |= {time: table[view.time], since: table[view.time]}
    if view.created is None:
        return table.select(**columns)
    if only_known:
        columns[since] = ibis.greatest(table[view.time], table[view.created])
    rows = table.select(**columns, **{written: table[view.created]})
    if only_known:
        rows = rows.drop_null(written)

    keys = [own + key for key in view.keys]
    order = [rows[time].desc(), rows[written].desc()]
    rows = rows.filter(ibis.row_number().over(group_by=[*keys, since], order_by=order) == 0)
    if only_known:
        before = ibis.window(group_by=keys, order_by=since, following=0)
        rows = rows.filter(rows[time] == rows[time].max().over(before))
    return rows


def _view_rows(
    view: FeatureView, feature_refs: list[str], full_feature_names: bool, config: RepoConfig
) -> ViewRows:
    """Read a view's source as Feast's DuckDB store does: mapped names, times in UTC, requested features."""
    source = view.batch_source
    if source is None:
        raise ValueError(
            f"the feature view {view.name!r} has no batch source to read. Give it one with source=."
        )
    table = _read_data_source(source, str(config.repo_path))
    names = {new: old for old, new in source.field_mapping.items() if old in table.columns}
    table = table.rename(names)
    created = source.created_timestamp_column or None
    times = [source.timestamp_field, created] if created else [source.timestamp_field]
    table = table.mutate(**{column: table[column].cast(UTC) for column in times})

    asked = view.projection.name_to_use() + ":"
    columns = [reference.removeprefix(asked) for reference in feature_refs if reference.startswith(asked)]
    prefix = f"{view.projection.name_alias or view.name}__" if full_feature_names else ""
    return ViewRows(
        table=table,
        time=source.timestamp_field,
        created=created,
        keys={
            field.name: view.projection.join_key_map.get(field.name, field.name)
            for field in view.entity_columns
        },
        features={prefix + column: column for column in columns},
        ttl=view.ttl,
    )


def _check_columns(asked: pd.DataFrame, feature_views: list[FeatureView], views: list[ViewRows]) -> None:
    """Refuse a missing join key, and a column that a feature's would stand beside."""
    for named, view in zip(feature_views, views, strict=True):
        missing = sorted(set(view.keys.values()) - set(asked.columns))
        if missing:
            raise ValueError(
                f"the rows that are asked for have no column {', '.join(missing)}, "
                f"a join key of {named.name}."
            )
    names = [name for view in views for name in view.features]
    twice = sorted({name for name in names if name in asked.columns or names.count(name) > 1})
    if twice:
        raise ValueError(
            f"two columns of the answer would have the name {', '.join(twice)}. "
            "Rename the column of the rows that are asked for, or pass full_feature_names=True."
        )


def _with_times(entity_df: pd.DataFrame, time: str) -> pd.DataFrame:
    """A copy in which times that were given as text are times, in UTC."""
    times = entity_df[time].infer_objects()
    if pd.api.types.is_string_dtype(times) or pd.api.types.is_object_dtype(times):
        times = pd.to_datetime(times, utc=True)
    return entity_df.assign(**{time: times})


def _interval(ttl: timedelta) -> ibis.expr.types.IntervalScalar:
    """The time to live in microseconds: ``ibis.literal`` refuses a timedelta of several units."""
    return ibis.interval(microseconds=ttl // timedelta(microseconds=1))

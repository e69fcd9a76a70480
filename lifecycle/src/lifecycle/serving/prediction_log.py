"""What the model server answered, kept through Feast's feature logging, and read again.

The log is on for a model whose feature service has a ``logging_config`` in the registry when the version is
loaded::

    destination = FileLoggingDestination(path="/var/log/predictions")
    logging_config = LoggingConfig(destination=destination, sample_rate=1.0)
    FeatureService(name=..., features=[...], logging_config=logging_config)

A row is a scored entity: the columns of Feast's own schema, and ``score`` and ``model_version``. A refused
request has no score and leaves no row.

No answer waits for the log, but its thread takes its share of Python's lock: with one client that asks
without a pause (1,300 requests a second on two cores) the median stayed at 0.73 ms, and p99 rose from 0.9 to
1.5 ms. What is not on disk yet is lost when the process is killed: the rows of the last ``EVERY`` seconds and
of the write that the kill interrupts. Nothing is lost when it ends in order. Files are not forced to disk
(fsync): a power failure may cost more.

A server adds to its newest file until that is an hour old or holds ``FILE_ROWS`` rows, and replaces it whole
each time. So a reader never meets half a file, and a day of steady traffic leaves tens of files, not one for
each write. Nothing here deletes old files.
"""

from __future__ import annotations

import copy
import random
import shutil
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import pyarrow as pa
from feast import FeatureService, FeatureStore, RepoConfig
from feast.embedded_go.type_map import FEAST_TYPE_TO_ARROW_TYPE
from feast.feature_logging import (
    LOG_DATE_FIELD,
    LOG_TIMESTAMP_FIELD,
    REQUEST_ID_FIELD,
    FeatureServiceLoggingSource,
    LoggingConfig,
)
from feast.infra.offline_stores.file_source import FileLoggingDestination, FileSource
from feast.protos.feast.serving.ServingService_pb2 import FieldStatus
from prometheus_client import Counter
from pyarrow import dataset

from lifecycle.features.contract import (
    ContractError,
    entity_columns,
    feature_names,
    feature_references,
    full_names,
)
from lifecycle.serving.open_inference import Rows

if TYPE_CHECKING:
    import numpy as np

EVERY = 5.0
"""Seconds between two writes."""
MOST_ROWS = 20_000
"""Rows that wait to be written. Further ones are answered and not kept."""
ENOUGH = 2_000
"""Waiting rows that are written without waiting for the time."""
SLICE, BREATH = 20, 0.001
"""Answers that become rows at once, a fraction of a millisecond, and seconds of rest between: Python runs one
thread at a time, and requests come first."""
FILE_ROWS = 10_000
"""From which on a file is not added to."""
HOUR = 3600.0
TRIES = 3
"""Attempts to write what is left when the server ends."""
PATIENCE = 10.0
"""Seconds for them. A disk that does not answer must not keep the server from ending."""
SCORE, VERSION = "score", "model_version"
_UNLOGGED = Counter(
    "lifecycle_unlogged_predictions", "Rows answered and not kept in the log.", ["model_name", "reason"]
)


def log_schema(store: FeatureStore, service: FeatureService) -> pa.Schema:
    """The columns of a log: Feast's, the join keys that it leaves out, ``score`` and ``model_version``.

    Raises:
        ContractError: a join key or a request field has the name of another column.
    """
    schema = FeatureServiceLoggingSource(service, store.project).get_schema(store.registry)
    keys, _ = entity_columns(store, service)
    # Feast takes the keys from the feature views of a service, not from those behind its on-demand views: a
    # log without them could not be joined.
    for key, dtype in keys.items():
        if key not in schema.names:
            schema = schema.append(pa.field(key, FEAST_TYPE_TO_ARROW_TYPE[dtype]))
    schema = schema.append(pa.field(SCORE, pa.float64())).append(pa.field(VERSION, pa.string()))
    if twice := sorted({name for name in schema.names if schema.names.count(name) > 1}):
        raise ContractError(
            f"the log of feature service {service.name!r} would have two columns {', '.join(twice)}."
        )
    return schema


def log_folder(store: FeatureStore, service: FeatureService) -> Path:
    """Where the log of a feature service lies; a relative path starts at the feature repository.

    Raises:
        ContractError: the service has no ``logging_config``, or one that names something else than a folder
            of files side by side.
    """
    config = service.logging_config
    if config is None:
        raise ContractError(
            f"feature service {service.name!r} has no logging_config, so its predictions are not kept."
        )
    destination = config.destination
    if (
        not isinstance(destination, FileLoggingDestination)
        or "://" in destination.path
        or destination.partition_by
    ):
        raise ContractError(
            f"the logging_config of feature service {service.name!r} must be a FileLoggingDestination "
            "with a path of this machine and no partition_by."
        )
    # Feast's DuckDB store would start a relative path at the working directory.
    return Path(FileSource.get_uri_for_file_path(repo_path=store.config.repo_path, uri=destination.path))


class LogSchema:
    """How the answers of one version become rows, and where they go.

    Args:
        store: with the definitions that serve.
        service: the feature service of the version, with a ``logging_config``.

    Raises:
        ContractError: see ``log_folder`` and ``log_schema``.
    """

    def __init__(self, store: FeatureStore, service: FeatureService):
        self.folder, self.schema = log_folder(store, service), log_schema(store, service)
        assert service.logging_config, "log_folder asks for it"
        self.sample_rate = service.logging_config.sample_rate
        self._inputs = [name for part in entity_columns(store, service) for name in part]
        references = feature_references(store, service)
        self._features = dict(zip(full_names(references), feature_names(references), strict=True))
        self._service = copy.copy(service)
        # Feast's DuckDB store works on one connection of the process: a write beside a retrieval in another
        # thread can hang both. The files are the same with the Dask store, which writes them with pyarrow.
        self._store = FeatureStore(
            config=RepoConfig(
                project=store.project,
                provider="local",
                registry=store.config.registry,
                offline_store={"type": "dask"},
                entity_key_serialization_version=store.config.entity_key_serialization_version,
            )
        )
        with tempfile.TemporaryDirectory() as folder:  # the first write imports a second's worth of modules
            self._write(pa.Table.from_pylist([{}], self.schema), Path(folder))

    @classmethod
    def from_feature_service(cls, store: FeatureStore, feature_service: str) -> LogSchema | None:
        """That of a feature service of the registry; None when it has no ``logging_config``."""
        service = store.get_feature_service(feature_service)
        return cls(store, service) if service.logging_config else None

    def table(self, answers: Sequence[Answer]) -> pa.Table:
        """The rows of some answers of this layout, in their order."""
        columns: dict[str, list] = {name: [] for name in self.schema.names}
        for answer in answers:
            count = len(answer.rows)
            for name in self._inputs:
                columns[name] += [row[name] for row in answer.rows]
            for column, feature in self._features.items():
                columns[column] += answer.values[feature]
                # 0 is Feast's time of a computed feature: it has none.
                columns[f"{column}__timestamp"] += [
                    second or None for second in answer.values[f"{feature}__ts"]
                ]
                # The only status of a value that is there; and a row that lacks one is not answered.
                columns[f"{column}__status"] += [FieldStatus.PRESENT] * count
            columns[LOG_TIMESTAMP_FIELD] += [round(answer.now * 1e6)] * count
            columns[LOG_DATE_FIELD] += [int(answer.now // 86_400)] * count
            columns[REQUEST_ID_FIELD] += [uuid.uuid4().hex] * count
            columns[SCORE] += answer.scores.tolist()
            columns[VERSION] += [answer.version] * count
        return pa.table(columns, schema=self.schema)

    def _write(self, table: pa.Table, folder: Path) -> Path:
        self._service.logging_config = LoggingConfig(destination=FileLoggingDestination(path=str(folder)))
        self._store.write_logged_features(table, self._service)
        [file] = folder.glob("*.parquet")
        return file

    def save(self, table: pa.Table, name: str) -> None:
        """Write a table to the file ``name`` of the folder, in place of the one there, whole or not at all.

        Raises:
            OSError: the folder cannot be written to, or the disk is full.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        # Feast writes under the last name: a kill would leave half a file, and every reader of the folder
        # would fail on it. Feast's DuckDB store reads the folders below it as well, hence another place, and
        # a copy, because a file cannot be renamed from one disk to another.
        half = self.folder / f".{name}.part"
        with tempfile.TemporaryDirectory() as elsewhere:
            shutil.copyfile(self._write(table, Path(elsewhere)), half)
        half.replace(self.folder / name)

    def sweep(self) -> None:
        """Delete what a killed server left half written, an hour ago or earlier."""
        for half in self.folder.glob(".*.part"):
            if half.stat().st_mtime < time.time() - HOUR:
                half.unlink(missing_ok=True)


@dataclass(frozen=True)
class Answer:
    """What one request was answered with.

    Attributes:
        layout: of the version that answered.
        now: the server's clock, seconds since 1970.
        rows: n entities, as they were asked for.
        values: n values of each feature by its name, and under ``name__ts`` their times, seconds since 1970.
        scores: n probabilities.
        version: of the model.
    """

    layout: LogSchema
    now: float
    rows: Rows
    values: dict[str, list]
    scores: np.ndarray
    version: str


@dataclass(frozen=True)
class _File:
    layout: LogSchema
    name: str
    began: float
    rows: pa.Table


class PredictionLog:
    """Keeps answers in memory for some seconds, and writes them from a thread of its own.

    A write that fails is tried again, and the rows wait meanwhile. ``lifecycle_unlogged_predictions_total``
    counts the rows that are not kept, by reason: ``full`` (``MOST_ROWS`` wait already), ``failed`` (they do
    not fit the log's columns, or could not be written before the end), ``stopped`` (they came after
    ``close``).

    Args:
        model_name: for the metric.
        say: takes a line of text, once for each trouble.
        every: seconds between two writes.
    """

    def __init__(self, model_name: str, say: Callable[[str], None], every: float = EVERY):
        self.every, self._name, self._say = every, model_name, say
        self._lock, self._wake, self._closed = threading.Lock(), threading.Event(), threading.Event()
        self._answers: list[Answer] = []
        self._tables: list[tuple[LogSchema, pa.Table]] = []
        self._waiting = 0  # rows of both
        self._file: _File | None = None
        self._trouble = ""
        for reason in ("full", "failed", "stopped"):
            # 0 from the start: a counter that begins with its first event has no increase.
            _UNLOGGED.labels(model_name, reason)
        self._thread = threading.Thread(target=self._run, name="prediction log", daemon=True)
        self._thread.start()

    def add(self, answer: Answer) -> None:
        """Take an answer or, by the layout's ``sample_rate``, leave it. Never waits for a disk or fails."""
        rate, count = answer.layout.sample_rate, len(answer.rows)
        if rate < 1 and random.random() >= rate:
            return
        with self._lock:
            reason = (
                "stopped" if self._closed.is_set() else "full" if self._waiting + count > MOST_ROWS else ""
            )
            if not reason:
                self._answers.append(answer)
                self._waiting += count
        if reason:
            self._lost(count, reason)
        elif self._waiting >= ENOUGH:
            self._wake.set()

    def close(self) -> None:
        """Write what waits, within ``PATIENCE``, and take no more. Safe to call twice."""
        with self._lock:
            self._closed.set()
        self._wake.set()
        self._thread.join(PATIENCE)

    def _lost(self, rows: int, reason: str) -> None:
        _UNLOGGED.labels(self._name, reason).inc(rows)

    def _run(self) -> None:
        while not self._closed.is_set():
            # After a failure the next attempt has its time: a full buffer must not make it a busy one.
            (self._closed if self._trouble else self._wake).wait(self.every)
            self._wake.clear()
            self._save_all()
        for _ in range(TRIES - 1):
            if self._save_all():
                return
            time.sleep(0.5)
        if not self._save_all():
            self._lost(self._waiting, "failed")

    def _save_all(self) -> bool:
        """Whether nothing waits any more."""
        with self._lock:
            answers, self._answers = self._answers, []
        for layout, group in groupby(answers, key=lambda answer: answer.layout):
            found, parts, lost, why = list(group), [], 0, ""
            for start in range(0, len(found), SLICE):
                part = found[start : start + SLICE]
                try:
                    parts.append(layout.table(part))
                except BaseException as error:  # whatever it is: this thread must not end
                    lost += sum(len(answer.rows) for answer in part)
                    why = f"{type(error).__name__}: {error}"
                self._closed.wait(BREATH)
            if lost:
                self._done(lost)
                self._lost(lost, "failed")
                self._say(f"{lost} predictions do not fit their log: {why}")
            if parts:
                self._tables.append((layout, pa.concat_tables(parts)))
        while self._tables:
            layout, table = self._tables[0]
            try:
                self._save(layout, table)
            except BaseException as error:
                if self._trouble != (
                    trouble := f"the prediction log is not written: {type(error).__name__}: {error}"
                ):
                    self._trouble = trouble
                    self._say(trouble)
                return False
            del self._tables[0]
            self._done(len(table))
        if self._trouble:
            self._trouble = ""
            self._say("the prediction log is written again")
        return True

    def _done(self, rows: int) -> None:
        with self._lock:
            self._waiting -= rows

    def _save(self, layout: LogSchema, table: pa.Table) -> None:
        file = self._file
        if (
            file is None
            or file.layout is not layout
            or len(file.rows) >= FILE_ROWS
            or time.monotonic() - file.began > HOUR
        ):
            file = _File(layout, f"{uuid.uuid4().hex}.parquet", time.monotonic(), layout.schema.empty_table())
            layout.sweep()
        file = _File(layout, file.name, file.began, pa.concat_tables([file.rows, table]))
        layout.save(file.rows, file.name)
        self._file = file


def read_log(store: FeatureStore, feature_service: str, begin: datetime, end: datetime) -> pd.DataFrame:
    """The predictions of a time span, by the server's clock.

    Feast's own reading leaves out ``score`` and ``model_version``, and fails once the service has a feature
    more than in an older file.

    Args:
        store: the feature store with the feature service.
        feature_service: its name.
        begin: first moment, with a time zone.
        end: first moment that is not part of the span, with a time zone.

    Returns:
        A row for each scored entity, with the columns of ``log_schema``, sorted by ``__log_timestamp`` (UTC,
        microseconds). Of a feature that the service had not yet, null. No rows when nothing was logged.

    Raises:
        feast.errors.FeatureServiceNotFoundException: the registry has no such service.
        ContractError: see ``log_folder``.
    """
    service = store.get_feature_service(feature_service)
    folder, schema = log_folder(store, service), log_schema(store, service)
    moment = dataset.field(LOG_TIMESTAMP_FIELD)
    first, last = (pa.scalar(time, pa.timestamp("us", tz="UTC")) for time in (begin, end))
    table = schema.empty_table()
    if folder.is_dir():  # files whose names begin with a dot are left out: they are half written
        table = dataset.dataset(folder, schema, format="parquet").to_table(
            filter=(moment >= first) & (moment < last)
        )
    return table.to_pandas().sort_values(
        [LOG_TIMESTAMP_FIELD, REQUEST_ID_FIELD], kind="stable", ignore_index=True
    )

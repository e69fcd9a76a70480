"""The prediction log: what a row holds, and what is kept when disks, clocks and processes fail."""

import faulthandler
import os
import shutil
import threading
import time
from datetime import timedelta

import duckdb
import mlflow
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from fastapi import HTTPException
from feast import FeatureStore
from feast.feature_logging import FeatureServiceLoggingSource, LoggingConfig
from feast.infra.offline_stores.bigquery_source import BigQueryLoggingDestination
from prometheus_client import REGISTRY
from served import DRIVER, SERVICES, eventually, logging_to

from helpers.data import NOW, UNKNOWN_DRIVER
from helpers.start import MODEL
from lifecycle.features.contract import ContractError
from lifecycle.serving import prediction_log
from lifecycle.serving.prediction_log import Answer, LogSchema, PredictionLog, read_log
from lifecycle.serving.scoring import FeatureModel

pytestmark = [pytest.mark.unit, pytest.mark.xdist_group("served")]
SERVICE = SERVICES["2"]
SOME = [1001, 1002, 1003, 1004, 1005]
ALWAYS = (NOW - timedelta(days=1000), NOW + timedelta(days=1000))


@pytest.fixture
def store(kept_store) -> FeatureStore:
    return kept_store


def serve(kept, **options: object) -> FeatureModel:
    """The server's own class, in this process."""
    return FeatureModel(MODEL, kept.feature_repo, "production", now=NOW.timestamp(), **options)


@pytest.fixture
def layout(store) -> LogSchema:
    return LogSchema(store, store.get_feature_service("rates"))


def answer(layout: LogSchema, *drivers: int) -> Answer:
    """An answer of the service ``rates``."""
    count, now = len(drivers), NOW.timestamp()
    values = {"conv_rate": [0.4] * count, "acc_rate": [0.9] * count}
    values |= {f"{name}__ts": [int(now)] * count for name in ("conv_rate", "acc_rate")}
    return Answer(layout, now, rows(*drivers), values, np.full(count, 0.5), "1")


def rows(*drivers: int) -> list[dict]:
    return [{"driver_id": driver} for driver in drivers]


def logged(store: FeatureStore, service: str = "rates") -> list[int]:
    return sorted(read_log(store, service, *ALWAYS).driver_id)


def unlogged(name: str, reason: str) -> float | None:
    labels = {"model_name": name, "reason": reason}
    return REGISTRY.get_sample_value("lifecycle_unlogged_predictions_total", labels)


def test_a_row_holds_feasts_columns_the_score_and_the_version(kept, store, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # the path of the log starts at the feature repository
    model = serve(kept)
    scores, version = model.score(rows(*SOME))
    with pytest.raises(HTTPException):
        model.score(rows(DRIVER, UNKNOWN_DRIVER))
    model.stop()
    assert len(list((kept.path / "predictions" / SERVICE).iterdir())) == 1
    log = read_log(store, SERVICE, *ALWAYS)
    service = store.get_feature_service(SERVICE)
    columns = FeatureServiceLoggingSource(service, store.project).get_schema(store.registry).names
    assert list(log) == [*columns, "score", "model_version"]
    assert log.driver_id.tolist() == SOME and log.score.tolist() == scores.tolist()
    assert set(log.model_version) == {version} == {"2"}
    assert set(log["__log_timestamp"]) == {NOW} and set(log["__log_date"]) == {NOW.date()}
    assert log["__request_id"].nunique() == 1
    online = store.get_online_features(service, rows(*SOME)).proto
    for name, vector in zip(online.metadata.feature_names.val, online.results, strict=True):
        if name == "driver_id":
            continue
        [column] = [column for column in columns if column.endswith(f"__{name}")]
        assert log[column].tolist() == [value.double_val for value in vector.values], name
        assert log[f"{column}__status"].tolist() == list(vector.statuses), name
        times = [0 if time is pd.NaT else int(time.timestamp()) for time in log[f"{column}__timestamp"]]
        assert times == [time.seconds for time in vector.event_timestamps], name
    assert log["driver_ratios__conv_log_odds__timestamp"].isna().all(), "a computed feature has no time"


def test_rejects_a_log_that_cannot_be_written(store):
    service = store.get_feature_service("rates")
    table = LoggingConfig(BigQueryLoggingDestination(table_ref="project.log"))
    parts = logging_to("log", partition_by=["__log_date"])
    for service.logging_config in (logging_to("s3://bucket/log"), table, parts):
        with pytest.raises(ContractError, match="must be a FileLoggingDestination with a path of this"):
            LogSchema(store, service)
    service.logging_config = None
    with pytest.raises(ContractError, match="'rates' has no logging_config"):
        LogSchema(store, service)


def test_the_log_has_join_keys_and_what_only_the_caller_knows(store):
    # Feast's own schema of a service of computed features alone has no join key.
    assert "driver_id" in LogSchema(store, store.get_feature_service("computed_only")).schema.names
    campaign = LogSchema(store, store.get_feature_service("driver_campaign"))
    values = {"conv_rate": [0.4], "conv_rate__ts": [1]}
    values |= {"rate_above_target": [0.1], "rate_above_target__ts": [0]}
    row = {"driver_id": 1001, "target_rate": 0.3}
    log = PredictionLog("campaign", print)
    log.add(Answer(campaign, NOW.timestamp(), [row], values, np.array([0.7]), "1"))
    log.close()
    [found] = read_log(store, "driver_campaign", *ALWAYS).to_dict("records")
    assert {name: found[name] for name in row} == row


def test_a_blocked_log_blocks_nobody_and_loses_nothing_until_it_is_full(store, layout, monkeypatch):
    monkeypatch.setattr(prediction_log, "MOST_ROWS", 50)
    said: list[str] = []
    layout.folder.parent.mkdir(parents=True)
    layout.folder.write_text("a file where the folder should be")
    log = PredictionLog("blocked", said.append, every=0.05)
    for driver in range(60):
        log.add(answer(layout, driver))
    eventually(lambda: said, "the trouble is not reported")
    assert unlogged("blocked", "full") == 10
    layout.folder.unlink()
    eventually(lambda: said[-1] == "the prediction log is written again", "the writer has given up")
    shutil.rmtree(layout.folder)  # the next write makes it again, with the rows before
    log.add(answer(layout, 60))  # there is room again
    log.close()
    assert logged(store) == [*range(50), 60]
    assert [line.split(":")[0] for line in said[:-1]] == ["the prediction log is not written"]
    assert unlogged("blocked", "full") == 10


def test_a_server_adds_to_one_file_until_it_is_full_or_old(store, layout, monkeypatch):
    monkeypatch.setattr(prediction_log, "FILE_ROWS", 20)
    layout.folder.mkdir(parents=True)
    for name, age in (("old", 7200), ("new", 10)):  # what killed writes left
        half = layout.folder / f".{name}.parquet.part"
        half.write_bytes(b"PAR1 and no more")
        os.utime(half, (time.time() - age,) * 2)
    log = PredictionLog("files", print, every=0.01)
    for driver in range(47):
        if driver == 45:
            monkeypatch.setattr(prediction_log, "HOUR", 0.0)
        log.add(answer(layout, driver))
        eventually(lambda: not log._waiting, "not written")  # each row by a write of its own
        if driver == 44:
            assert [half.name for half in layout.folder.glob(".*")] == [".new.parquet.part"]
    log.close()
    sizes = [pa.parquet.read_metadata(file).num_rows for file in layout.folder.glob("[!.]*")]
    assert sorted(sizes) == [1, 1, 5, 20, 20]
    assert logged(store) == list(range(47)), "a row twice, or none"


def test_a_reader_meets_no_half_file_and_a_retrieval_beside_it_does_not_hang(store, layout, monkeypatch):
    """Feast's DuckDB store hangs when it writes a log beside a retrieval; see docs/upstream.md."""
    monkeypatch.setattr(prediction_log, "ENOUGH", 1)
    log, stop, retrieved, counts = PredictionLog("read", print, every=0.01), threading.Event(), [], [0]
    labels = pd.DataFrame({"driver_id": SOME, "event_timestamp": [NOW] * len(SOME)})
    query = f"SELECT count(*) FROM read_parquet(['{layout.folder}'])"

    def retrieve() -> None:
        while not stop.is_set():
            job = store.get_historical_features(labels.copy(), ["driver_hourly_stats:acc_rate"])
            retrieved.append(len(job.to_df()))

    def add() -> None:
        while not stop.is_set():
            log.add(answer(layout, *range(200)))
            time.sleep(0.002)

    threads = [threading.Thread(target=target, daemon=True) for target in (retrieve, add)]
    # A hang in DuckDB holds Python's lock: nothing here could end it.
    faulthandler.dump_traceback_later(900, exit=True)
    for thread in threads:
        thread.start()
    while len(set(counts)) < 12 or len(retrieved) < 5:
        counts.append(len(read_log(store, "rates", *ALWAYS)))
        if counts[-1]:
            counts.append(duckdb.connect().sql(query).fetchall()[0][0])
    stop.set()
    for thread in threads:
        thread.join()
    log.close()
    faulthandler.cancel_dump_traceback_later()
    assert counts == sorted(counts), "rows that were there are gone"
    assert all(count % 200 == 0 for count in counts) and set(retrieved) == {len(SOME)}


def test_each_version_has_its_services_log(kept, store):
    model = serve(kept, watch=0.1)
    model.score(rows(*SOME))
    mlflow.MlflowClient().set_registered_model_alias(MODEL, "production", "1")
    eventually(lambda: model.loaded.version.number == "1", "it does not follow")
    model.score(rows(*SOME))
    model.stop()
    for version, service in (("2", SERVICE), ("1", "rates")):
        assert read_log(store, service, *ALWAYS).model_version.tolist() == [version] * len(SOME)

"""The log of predictions: what a row holds, what is kept when disks, clocks and processes fail, and the metrics beside it."""

import contextlib
import faulthandler
import os
import re
import shutil
import signal
import threading
import time
from collections import Counter
from datetime import timedelta

import duckdb
import mlflow
import numpy as np
import pandas as pd
import psutil
import pyarrow as pa
import pytest
import requests
from fastapi import HTTPException
from feast import FeatureStore
from feast.feature_logging import FeatureServiceLoggingSource, LoggingConfig
from feast.infra.offline_stores.file_source import FileLoggingDestination
from prometheus_client import REGISTRY
from served import DRIVER, LONG_AGO, SERVICES, promote, start, v1, v2, write

from helpers.data import NOW, UNKNOWN_DRIVER
from helpers.start import MODEL
from helpers.workspace import Workspace, configure, create_home
from lifecycle import prediction_log
from lifecycle.contract import ContractError
from lifecycle.prediction_log import EVERY, Answer, Layout, PredictionLog, read_log, unknown_versions
from lifecycle.serving import FeatureModel

SERVICE = SERVICES["2"]
SOME = [1001, 1002, 1003, 1004, 1005]
ALWAYS = (NOW - timedelta(days=1000), NOW + timedelta(days=1000))


def logging_of(path: object, **options: object) -> LoggingConfig:
    rate = options.pop("sample_rate", 1.0)
    return LoggingConfig(destination=FileLoggingDestination(path=str(path), **options), sample_rate=rate)


@pytest.fixture(scope="module")
def kept(served, tmp_path_factory) -> Workspace:
    """A copy of the served home whose feature services have a log, each in a folder that is named from the feature repository."""
    own = create_home(tmp_path_factory.mktemp("kept predictions") / "home")
    for name in ("registry.db", "mlflow.db", "online_store.db"):
        shutil.copy(served.path / name, own.path / name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", "")
        patch.setenv("TZ", "")
        configure(own)
        found = FeatureStore(repo_path=str(own.feature_repo))
        for name in (*SERVICES.values(), "driver_campaign"):
            service = found.get_feature_service(name)
            service.logging_config = logging_of(f"../workspace/predictions/{name}")
            found.apply(service)
    return own


@pytest.fixture
def store(kept) -> FeatureStore:
    configure(kept)
    shutil.rmtree(kept.path / "predictions", ignore_errors=True)
    mlflow.MlflowClient().set_registered_model_alias(MODEL, "production", "2")
    return FeatureStore(repo_path=str(kept.feature_repo))


@pytest.fixture
def served_model(kept, store):
    """Starts the server's own class in this process."""
    with contextlib.ExitStack() as ends:

        def serve(**options: object) -> FeatureModel:
            model = FeatureModel(MODEL, kept.feature_repo, "production", now=NOW.timestamp(), **options)
            ends.callback(model.stop)
            return model

        yield serve


@pytest.fixture
def layout(store) -> Layout:
    return Layout(store, store.get_feature_service("rates"))


def answer(layout: Layout, *drivers: int, now: float = NOW.timestamp(), score: float = 0.5) -> Answer:
    """An answer of the service ``rates``."""
    rows, count = [{"driver_id": driver} for driver in drivers], len(drivers)
    second = int(now)
    values = {"conv_rate": [0.4] * count, "acc_rate": [0.9] * count}
    values |= {f"{name}__ts": [second] * count for name in ("conv_rate", "acc_rate")}
    return Answer(layout, now, rows, values, np.full(count, score), "1")


def unlogged(name: str, reason: str) -> float:
    return (
        REGISTRY.get_sample_value(
            "lifecycle_unlogged_predictions_total", {"model_name": name, "reason": reason}
        )
        or 0.0
    )


def eventually(true, what: str, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, what
        time.sleep(0.02)


def asked(*drivers: int) -> list[dict]:
    return [{"driver_id": driver} for driver in drivers]


def test_a_row_holds_feasts_columns_the_score_and_the_version(
    served_model, kept, store, monkeypatch, tmp_path
):
    monkeypatch.chdir(tmp_path)  # the path of the log starts at the feature repository
    model = served_model()
    scores, version = model.score(asked(*SOME))
    with pytest.raises(HTTPException):
        model.score(asked(DRIVER, UNKNOWN_DRIVER))
    model.stop()
    assert len(list((kept.path / "predictions" / SERVICE).iterdir())) == 1
    log = read_log(store, SERVICE, *ALWAYS)
    service = store.get_feature_service(SERVICE)
    feasts = FeatureServiceLoggingSource(service, store.project).get_schema(store.registry).names
    assert list(log) == [*feasts, "score", "model_version"]
    assert log.driver_id.tolist() == SOME and log.score.tolist() == scores.tolist()
    assert set(log.model_version) == {version} == {"2"}
    assert log["__log_timestamp"].tolist() == [NOW] * len(SOME)
    assert log["__log_date"].tolist() == [NOW.date()] * len(SOME)
    assert log["__request_id"].nunique() == 1
    online = store.get_online_features(service, asked(*SOME)).proto
    for name, vector in zip(online.metadata.feature_names.val, online.results, strict=True):
        if name == "driver_id":
            continue
        [column] = [column for column in feasts if column.endswith(f"__{name}")]
        assert log[column].tolist() == [value.double_val for value in vector.values], name
        assert log[f"{column}__status"].tolist() == list(vector.statuses), name
        times = [
            int(moment.timestamp()) if moment is not pd.NaT else 0 for moment in log[f"{column}__timestamp"]
        ]
        assert times == [moment.seconds for moment in vector.event_timestamps], name
    assert log["driver_ratios__conv_log_odds__timestamp"].isna().all(), (
        "a computed feature has no time of its own"
    )


def test_a_service_without_a_logging_config_keeps_nothing(served_model, store, kept):
    service = store.get_feature_service(SERVICE)
    config, service.logging_config = service.logging_config, None
    store.apply(service)
    try:
        model = served_model()
        model.score(asked(*SOME))
        model.stop()
        assert not (kept.path / "predictions").exists()
        with pytest.raises(
            ContractError, match=f"'{SERVICE}' has no logging_config, so its predictions are not kept"
        ):
            read_log(store, SERVICE, *ALWAYS)
    finally:
        service.logging_config = config
        store.apply(service)


@pytest.mark.parametrize(
    "destination", ["s3://bucket/log", "of a table", "with parts"], ids=["remote", "no file", "partition_by"]
)
def test_a_log_that_cannot_be_written_is_refused_when_the_version_is_loaded(store, destination):
    from feast.infra.offline_stores.bigquery_source import BigQueryLoggingDestination

    service = store.get_feature_service("rates")
    service.logging_config = {
        "s3://bucket/log": logging_of("s3://bucket/log"),
        "of a table": LoggingConfig(destination=BigQueryLoggingDestination(table_ref="project.log")),
        "with parts": logging_of("log", partition_by=["__log_date"]),
    }[destination]
    with pytest.raises(
        ContractError, match="must be a FileLoggingDestination with a path of this machine and no part"
    ):
        Layout(store, service)


def test_the_sample_rate_takes_whole_requests(layout):
    log = PredictionLog("sampled", print)
    layout.sample_rate = 0.5
    for _ in range(400):
        log.add(answer(layout, 1, 2, 3))
    log.close()
    found = pa.concat_tables(
        [pa.parquet.read_table(file) for file in layout.folder.glob("*.parquet")]
    ).to_pandas()
    sizes = found.groupby("__request_id").size()
    assert set(sizes) == {3} and 140 < len(sizes) < 260
    assert unlogged("sampled", "full") == 0


def test_the_log_of_a_computed_feature_alone_has_its_join_keys(served_model, store):
    mlflow.MlflowClient().set_registered_model_alias(MODEL, "production", "3")
    service = store.get_feature_service("computed_only")
    assert (
        "driver_id"
        not in FeatureServiceLoggingSource(service, store.project).get_schema(store.registry).names
    )
    model = served_model()
    model.score(asked(*SOME))
    model.stop()
    assert read_log(store, "computed_only", *ALWAYS).driver_id.tolist() == SOME


def test_what_only_the_caller_knows_is_kept(store):
    campaign = Layout(store, store.get_feature_service("driver_campaign"))
    values = {
        "conv_rate": [0.4],
        "conv_rate__ts": [1],
        "rate_above_target": [0.1],
        "rate_above_target__ts": [0],
    }
    row = {"driver_id": 1001, "target_rate": 0.3}
    log = PredictionLog("campaign", print)
    log.add(Answer(campaign, NOW.timestamp(), [row], values, np.array([0.7]), "1"))
    log.close()
    [found] = read_log(store, "driver_campaign", *ALWAYS).to_dict("records")
    assert {name: found[name] for name in row} == row


def test_an_answer_waits_for_no_disk_and_a_log_that_cannot_be_written_loses_nothing_until_it_is_full(
    store, layout, monkeypatch
):
    monkeypatch.setattr(prediction_log, "MOST_ROWS", 50)
    said: list[str] = []
    layout.folder.parent.mkdir(parents=True)
    layout.folder.write_text("a file where the folder should be")
    log = PredictionLog("blocked", said.append, every=0.05)
    for driver in range(60):
        log.add(answer(layout, driver))
        time.sleep(0.01)
    assert unlogged("blocked", "full") == 10
    assert [line.split(":")[0] for line in said] == ["the prediction log is not written"], "once is enough"
    layout.folder.unlink()
    eventually(lambda: said[-1] == "the prediction log is written again", "the writer has given up")
    log.add(answer(layout, 60))  # there is room again
    log.close()
    assert sorted(read_log(store, "rates", *ALWAYS).driver_id) == [*range(50), 60]
    assert len(said) == 2 and unlogged("blocked", "full") == 10


def test_a_folder_that_is_gone_is_made_again(store, layout):
    log = PredictionLog("gone", print, every=0.05)
    log.add(answer(layout, 1))
    eventually(layout.folder.exists, "nothing is written")
    shutil.rmtree(layout.folder)
    log.add(answer(layout, 2))
    log.close()
    assert 2 in read_log(store, "rates", *ALWAYS).driver_id.tolist()


def test_many_waiting_rows_are_written_before_their_time(layout, monkeypatch):
    monkeypatch.setattr(prediction_log, "ENOUGH", 100)
    log = PredictionLog("many", print, every=60)
    for _ in range(10):
        log.add(answer(layout, *range(10)))
    eventually(lambda: layout.folder.exists(), "it waits for the time", seconds=10)
    log.close()


def test_what_does_not_fit_is_counted_and_keeps_nobody_from_being_written(store, layout):
    said: list[str] = []
    log = PredictionLog("unfit", said.append, every=0.2)
    other = Layout(store, store.get_feature_service("rates"))
    bad = answer(other, 1)
    bad.values["conv_rate"] = ["text"]
    for one in (answer(layout, 2), bad, answer(layout, 3)):
        log.add(one)
    log.close()
    assert read_log(store, "rates", *ALWAYS).driver_id.tolist() in ([2, 3], [3, 2])
    assert unlogged("unfit", "failed") == 1
    assert said and said[0].startswith("1 predictions do not fit their log: ")


def test_the_end_does_not_wait_for_ever_and_counts_what_it_could_not_write(layout):
    layout.folder.parent.mkdir(parents=True)
    layout.folder.write_text("a file where the folder should be")
    log = PredictionLog("ending", lambda line: None)
    log.add(answer(layout, 1, 2))
    began = time.monotonic()
    log.close()
    assert time.monotonic() - began < prediction_log.PATIENCE
    assert unlogged("ending", "failed") == 2
    log.add(answer(layout, 3))
    log.close()
    assert unlogged("ending", "stopped") == 1


def test_a_server_adds_to_one_file_until_it_is_full(store, layout, monkeypatch):
    monkeypatch.setattr(prediction_log, "FILE_ROWS", 20)
    log = PredictionLog("files", print, every=0.01)
    for driver in range(45):
        log.add(answer(layout, driver))
        eventually(lambda: not log._waiting, "not written")  # each row by a write of its own
    log.close()
    sizes = [pa.parquet.read_metadata(file).num_rows for file in layout.folder.iterdir()]
    assert sorted(sizes) == [5, 20, 20]
    assert sorted(read_log(store, "rates", *ALWAYS).driver_id) == list(range(45)), "a row twice, or none"


def test_a_file_is_left_after_an_hour(layout, monkeypatch):
    monkeypatch.setattr(prediction_log, "HOUR", 0.0)
    log = PredictionLog("hours", print, every=0.01)
    for driver in range(3):
        log.add(answer(layout, driver))
        eventually(lambda: not log._waiting, "not written")
    log.close()
    assert len(list(layout.folder.iterdir())) == 3


def test_a_reader_never_meets_half_a_file_and_a_retrieval_beside_the_log_does_not_hang(
    store, layout, monkeypatch
):
    """Feast's DuckDB store hangs when it writes a log while another thread retrieves; see docs/upstream.md."""
    monkeypatch.setattr(prediction_log, "ENOUGH", 1)
    log, stop, read, counts = PredictionLog("read", print, every=0.01), threading.Event(), [], []
    labels = pd.DataFrame({"driver_id": SOME, "event_timestamp": [NOW] * len(SOME)})

    def retrieve() -> None:
        while not stop.is_set():
            read.append(
                len(store.get_historical_features(labels.copy(), ["driver_hourly_stats:acc_rate"]).to_df())
            )

    def ask() -> None:
        while not stop.is_set():
            log.add(answer(layout, *range(200)))
            time.sleep(0.002)

    threads = [threading.Thread(target=target, daemon=True) for target in (retrieve, ask)]
    faulthandler.dump_traceback_later(
        120, exit=True
    )  # a hang in DuckDB holds Python's lock: nothing here could end it
    for thread in threads:
        thread.start()
    end = time.monotonic() + 5
    while time.monotonic() < end:
        counts.append(len(read_log(store, "rates", *ALWAYS)))
        if counts[-1]:
            counts.append(
                duckdb.connect()
                .sql(f"SELECT count(*) FROM read_parquet(['{layout.folder}'])")
                .fetchall()[0][0]
            )
    stop.set()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive(), "two threads wait for each other"
    log.close()
    faulthandler.cancel_dump_traceback_later()
    assert counts == sorted(counts) and len(set(counts)) > 10, "rows that were there are gone"
    assert all(count % 200 == 0 for count in counts)
    assert len(read) > 5 and set(read) == {len(SOME)}


def test_what_a_killed_write_left_is_not_read_and_not_kept_for_ever(store, layout):
    layout.folder.mkdir(parents=True)
    for name, age in (("old", 7200), ("new", 10)):
        half = layout.folder / f".{name}.parquet.part"
        half.write_bytes(b"PAR1 and no more")
        os.utime(half, (time.time() - age,) * 2)
    log = PredictionLog("swept", print)
    log.add(answer(layout, 1))
    log.close()
    assert read_log(store, "rates", *ALWAYS).driver_id.tolist() == [1]
    assert duckdb.connect().sql(f"SELECT driver_id FROM read_parquet(['{layout.folder}'])").fetchall() == [
        (1,)
    ]
    assert [half.name for half in layout.folder.glob(".*")] == [".new.parquet.part"]


def test_a_clock_that_goes_back_leaves_rows_in_the_order_of_their_times(served_model, store):
    model = served_model()
    moments = [NOW + timedelta(hours=3), NOW, NOW + timedelta(hours=1)]
    for moment, driver in zip(moments, SOME, strict=False):
        model.now = moment.timestamp()
        model.score(asked(driver))
    model.stop()
    log = read_log(store, SERVICE, *ALWAYS)
    assert log["__log_timestamp"].tolist() == sorted(moments)
    assert log.driver_id.tolist() == [SOME[1], SOME[2], SOME[0]]
    part = read_log(store, SERVICE, moments[1], moments[0])
    assert part.driver_id.tolist() == [SOME[1], SOME[2]], "the end is not part of a span"


def test_nothing_logged_is_an_empty_frame_with_the_columns(store, layout):
    log = read_log(store, "rates", *ALWAYS)
    assert log.empty and list(log) == layout.schema.names
    assert str(log["__log_timestamp"].dtype) == "datetime64[us, UTC]" and log.score.dtype == "float64"


def test_a_feature_that_the_service_had_not_yet_is_null(store, layout):
    log = PredictionLog("older", print)
    log.add(answer(layout, 1))
    log.close()
    service = store.get_feature_service(SERVICE)  # acc_rate, and two features that the log does not have
    service.logging_config = logging_of(layout.folder)
    store.apply(service)
    try:
        found = read_log(store, SERVICE, *ALWAYS)
        assert found["driver_hourly_stats__acc_rate"].tolist() == [0.9]
        assert found["driver_daily_profile__rating"].isna().all() and len(found) == 1
    finally:
        service.logging_config = logging_of(f"../workspace/predictions/{SERVICE}")
        store.apply(service)


def test_a_version_that_the_registry_does_not_know_is_named(served_model, store):
    model = served_model(watch=0.1)
    model.score(asked(*SOME))
    mlflow.MlflowClient().set_registered_model_alias(MODEL, "production", "1")
    eventually(lambda: model.loaded.version.number == "1", "it does not follow")
    model.score(asked(*SOME))
    model.stop()
    log = pd.concat([read_log(store, name, *ALWAYS) for name in (SERVICE, "rates")])
    assert Counter(log.model_version) == {"1": len(SOME), "2": len(SOME)}, (
        "each version has its own service's log"
    )
    registry = mlflow.MlflowClient()
    assert unknown_versions(log, registry, MODEL) == []
    assert unknown_versions(log.assign(model_version="77"), registry, MODEL) == ["77"]
    assert unknown_versions(log, registry, "another model") == ["1", "2"]


def process_of(server) -> psutil.Process:
    [process] = psutil.Process(server._keeper.pid).children()
    return process


def test_an_orderly_end_of_the_server_loses_nothing(kept, store):
    with start(kept, log="orderly.log") as server:
        for driver in SOME * 20:
            assert v1(server, driver).status_code == 200
        body = {"inputs": [{"name": "driver_id", "datatype": "INT64", "shape": [5], "data": SOME}]}
        assert v2(server, body).status_code == 200
        process_of(server).send_signal(signal.SIGTERM)
        eventually(lambda: not server.running, "the server does not end")
    assert Counter(read_log(store, SERVICE, *ALWAYS).driver_id) == dict.fromkeys(SOME, 21)


def test_a_killed_server_loses_the_rows_of_its_last_seconds_alone(kept, store):
    answered: list[tuple[float, int]] = []
    written: list[float] = []
    states: set[int] = set()
    folder = kept.path / "predictions" / SERVICE
    with start(kept, log="killed.log") as server:
        while len(written) < 3 or time.monotonic() < written[-1] + EVERY / 2:
            driver = SOME[len(answered) % len(SOME)]
            assert v1(server, driver).status_code == 200
            answered.append((time.monotonic(), driver))
            found = {file.stat().st_mtime_ns for file in folder.glob("*.parquet")} - states
            if found:
                states |= found
                written.append(time.monotonic())
            assert time.monotonic() < answered[0][0] + 6 * EVERY, "it does not write"
            time.sleep(0.01)
        killed = time.monotonic()
        process_of(server).kill()
        eventually(lambda: not server.running, "the server does not end")
    log = read_log(store, SERVICE, *ALWAYS)
    assert max(np.diff(written)) < EVERY + 1, "this is what a kill can cost"
    assert 0 < len(log) < len(answered)
    assert Counter(log.driver_id) == Counter(driver for _, driver in answered[: len(log)]), (
        "not the last ones are lost"
    )
    assert killed - answered[len(log)][0] < EVERY + 1


def sample(text: str, name: str, **labels: str) -> float | None:
    wanted = ",".join(f'{label}="{value}"' for label, value in sorted(labels.items()))
    found = re.search(rf"^{re.escape(f'{name}{{{wanted}}}')} (\S+)$", text, re.M)
    return float(found[1]) if found else None


def test_the_metrics_say_how_old_a_feature_may_be_and_forget_what_is_read_no_more(server, served):
    def metrics() -> str:
        return requests.get(f"{server.url}/metrics", timeout=10).text

    def shown(*features: str) -> bool:
        text = metrics()
        found = [set(re.findall(rf'^{name}{{feature="(\w+)"', text, re.M)) for name in (age, limit)]
        return found == [set(features)] * 2

    age, limit = "lifecycle_feature_age_seconds", "lifecycle_feature_age_limit_seconds"
    assert v1(server, DRIVER).status_code == 200
    assert shown("acc_rate", "rating"), (
        "of the computed feature, the age is that of what it was computed from"
    )
    week, month = (timedelta(days=days).total_seconds() for days in (7, 30))
    assert sample(metrics(), limit, feature="acc_rate", model_name=MODEL) == week
    assert sample(metrics(), limit, feature="rating", model_name=MODEL) == month
    promote(server, "1")
    eventually(lambda: shown("conv_rate", "acc_rate"), metrics())
    promote(server, "2")
    eventually(lambda: shown("acc_rate", "rating"), metrics())
    alarm = FeatureStore(repo_path=str(served.feature_repo))
    write(alarm, 920, LONG_AGO + timedelta(days=2))
    assert v1(server, 920).status_code == 200
    assert sample(metrics(), age, feature="acc_rate", model_name=MODEL) / week > 0.8, (
        "it ages before it is refused"
    )


def test_the_metrics_count_the_scores(server):
    def counts() -> dict[str, float]:
        text = requests.get(f"{server.url}/metrics", timeout=10).text
        bounds = [*(f"0.{tenth}" for tenth in range(1, 10)), "1.0", "+Inf"]
        return {bound: sample(text, "lifecycle_score_bucket", le=bound, model_name=MODEL) for bound in bounds}

    before = counts()
    scores = v1(server, *SOME).json()["predictions"]
    after = counts()
    found = {bound: after[bound] - before[bound] for bound in after}
    assert found == {bound: sum(score <= float(bound) for score in scores) for bound in after}
    assert found["1.0"] == len(SOME)
    assert v1(server, UNKNOWN_DRIVER).status_code == 404 and counts() == after

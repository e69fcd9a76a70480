"""The model server as a process, under what the outside can do to it: to its registries and stores, and in requests."""

import asyncio
import contextlib
import http.client
import json
import logging
import math
import shutil
import socket
import sqlite3
import threading
import time
from datetime import timedelta

import mlflow
import numpy as np
import pytest
import requests
from fastapi import HTTPException
from feast import Field
from feast.feature_store import FeatureStore
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Float64
from served import DRIVER, promote, start, v1, v2, write

from helpers import registry
from helpers.data import NOW
from helpers.services import HOST
from helpers.start import MODEL
from helpers.workspace import configure, create_home
from lifecycle import limits

PREDICT = f"/v1/models/{MODEL}:predict"


@pytest.fixture
def store(served) -> FeatureStore:
    configure(served)
    return FeatureStore(repo_path=str(served.feature_repo))


def status(server) -> dict:
    return requests.get(f"{server.url}/status", timeout=10).json()[MODEL]


def eventually(true, what: str, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, what
        time.sleep(0.05)


def readiness(server) -> tuple[int, dict]:
    answer = requests.get(f"{server.url}/v2/models/{MODEL}/ready", timeout=10)
    return answer.status_code, answer.json()


@pytest.fixture
def other_log_odds():
    """A change that keeps every name: the ratio's function computes something else."""

    def change(store: FeatureStore) -> None:
        hourly = store.get_feature_view("driver_hourly_stats")

        @on_demand_feature_view(
            sources=[hourly[["conv_rate", "acc_rate"]]],
            schema=[Field(name="conv_acc_ratio", dtype=Float64), Field(name="conv_log_odds", dtype=Float64)],
            mode="python",
        )
        def driver_ratios(inputs):
            rates = inputs["conv_rate"]
            return {"conv_acc_ratio": [-30.0] * len(rates), "conv_log_odds": [-30.0] * len(rates)}

        store.apply(driver_ratios)

    return change


def shorter_life(store: FeatureStore) -> None:
    view = store.get_feature_view("driver_hourly_stats")
    view.ttl = timedelta(days=1)
    store.apply(view)


@pytest.mark.parametrize(
    "which, view", [("function", "driver_ratios"), ("time to live", "driver_hourly_stats")]
)
def test_a_changed_definition_stops_the_server_until_it_is_back(
    server, served, store, other_log_odds, which, view
):
    score = v1(server, DRIVER).json()["predictions"]
    answers, stop = [], threading.Event()

    def ask() -> None:
        while not stop.is_set():
            answers.append(v1(server, DRIVER))

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        (other_log_odds if which == "function" else shorter_life)(store)
        eventually(lambda: readiness(server)[0] == 503, "the server is still ready")
        said = f"the definition of {view} has changed since the model was trained"
        assert said in readiness(server)[1]["error"] and said in status(server)["not_ready"]
        refused = v1(server, DRIVER)
        assert refused.status_code == 503 and said in refused.json()["error"]
        assert requests.get(f"{server.url}/v2/health/ready", timeout=10).status_code == 503
        assert requests.get(f"{server.url}/v2/health/live", timeout=10).status_code == 200
    finally:
        stop.set()
        asking.join()
        registry.apply(store, served.feature_repo)
    eventually(lambda: readiness(server)[0] == 200, "the definition is back, and the server is not ready")
    assert v1(server, DRIVER).json()["predictions"] == score
    assert {answer.status_code for answer in answers} == {200, 503}
    seen = {tuple(answer.json()["predictions"]) for answer in answers if answer.status_code == 200}
    assert seen == {tuple(score)}, "an answer was computed with the other definition"


def test_a_version_of_the_old_definition_is_refused_at_the_start(served, store, other_log_odds):
    other_log_odds(store)
    try:
        with pytest.raises(
            Exception, match="the definition of driver_ratios has changed since the model was trained"
        ):
            start(served, log="refused.log")
    finally:
        registry.apply(store, served.feature_repo)


def test_what_nobody_reads_may_change(server, store, served):
    view = store.get_feature_view("driver_hourly_stats")
    view.description, view.tags = "another text", {"team": "another"}
    view.features.append(Field(name="cancel_rate", dtype=Float64))
    looked = status(server)["last_look"]
    store.apply(view)
    try:
        eventually(lambda: status(server)["last_look"] > looked + 1, "the server does not look")
        assert readiness(server)[0] == 200 and v1(server, DRIVER).status_code == 200
    finally:
        registry.apply(store, served.feature_repo)


def test_a_database_of_models_that_takes_the_place_of_another_is_noticed(server, served):
    database = served.path / "mlflow.db"
    backup = served.path / "mlflow.backup"
    with sqlite3.connect(database) as source, sqlite3.connect(backup) as target:
        source.backup(target)
    promote(server, "1")
    backup.replace(database)  # in it, version 2 is in production
    eventually(
        lambda: status(server)["serves"]["version"] == "2",
        "the server reads the database that was there before",
    )


def test_an_online_store_that_takes_the_place_of_another_is_noticed(server, served, store):
    path = served.path / "online_store.db"
    backup = served.path / "online_store.backup"
    shutil.copy(path, backup)
    write(store, 904, NOW, conv_rate=0.5)
    assert v1(server, 904).status_code == 200
    backup.replace(path)  # without that driver
    eventually(lambda: v1(server, 904).status_code == 404, "the server reads the store that was there before")
    assert v1(server, DRIVER).status_code == 200


def test_an_answer_names_no_file_of_the_machine_when_the_registry_is_gone(server, served):
    path = served.path / "registry.db"
    looked = status(server)["last_look"]
    hidden = path.rename(path.with_suffix(".away"))
    try:
        time.sleep(1)
        answers = [v1(server, DRIVER), v1(server, 5), requests.get(f"{server.url}/status", timeout=10)]
        assert [answer.status_code for answer in answers] == [200, 404, 200]
        assert [
            answer.text for answer in answers if "/" in answer.text and str(served.home) in answer.text
        ] == []
    finally:
        hidden.rename(path)
    eventually(lambda: status(server)["last_look"] > looked + 1, "the server does not look any more")


@pytest.mark.parametrize("value", [math.inf, -math.inf, 1e308], ids=str)
def test_an_absurd_stored_value_is_refused_and_named(server, store, value):
    promote(server, "1")  # reads the rate itself, and squares it
    write(store, 905, NOW, conv_rate=value)
    answer = v1(server, DRIVER, 905)
    assert answer.status_code == 404, answer.text
    assert "1 of 2 entities (driver_id=905: " in answer.json()["error"]
    assert v1(server, DRIVER).status_code == 200


def test_a_value_from_the_future_is_refused_and_named(server, store):
    write(store, 906, NOW + timedelta(days=400))
    answer = v1(server, 906, DRIVER)
    assert answer.status_code == 404 and "driver_id=906: from the future acc_rate" in answer.json()["error"]
    write(store, 907, NOW + timedelta(seconds=30))
    assert v1(server, 907).status_code == 200, "clocks of two machines may differ a little"


def test_all_reasons_are_in_one_refusal(server, store):
    write(store, 908, NOW - timedelta(days=8))
    write(store, 909, NOW + timedelta(days=1))
    said = v1(server, 908, DRIVER, 909, 910).json()["error"]
    assert "3 of 4 entities" in said
    assert (
        "driver_id=908: stale" in said
        and "driver_id=909: from the future" in said
        and "driver_id=910: missing" in said
    )


def raw(server, *parts: bytes, patience: float = 30) -> bytes:
    """What the server answers to bytes on a socket; empty when it hangs up."""
    with socket.create_connection((HOST, server.port), timeout=patience) as connection:
        for part in parts:
            connection.sendall(part)
        found = b""
        while part := connection.recv(65536):
            found += part
        return found


def head(length: object = "", host: str = "127.0.0.1", extra: str = "") -> bytes:
    size = f"content-length: {length}\r\n" if length != "" else ""
    return f"POST {PREDICT} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n{size}{extra}\r\n".encode()


def refusals(server, reason: str) -> float:
    text = requests.get(f"{server.url}/metrics", timeout=10).text
    found = [
        line
        for line in text.splitlines()
        if line.startswith(f'lifecycle_refused_requests_total{{reason="{reason}"}}')
    ]
    return float(found[0].split()[-1]) if found else 0.0


def test_a_body_beyond_the_limit_is_refused_before_it_is_sent(server):
    before = refusals(server, "too large")
    answer = raw(server, head(limits.MOST_BYTES + 1))
    assert answer.startswith(b"HTTP/1.1 413") and b"at most 1,000,000 bytes" in answer
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    began = time.monotonic()
    with contextlib.suppress(ConnectionError):  # the server may hang up while we are still sending
        assert raw(server, head(extra="transfer-encoding: chunked\r\n"), *[chunk] * 20).startswith(
            b"HTTP/1.1 413"
        )
    assert time.monotonic() - began < limits.SECONDS - 2, "the server waited for the rest"
    assert refusals(server, "too large") == before + 2
    assert v1(server, DRIVER).status_code == 200


def test_who_sends_slowly_is_not_waited_for_for_ever(server):
    with (
        socket.create_connection((HOST, server.port), timeout=60) as silent,
        socket.create_connection((HOST, server.port), timeout=60) as half_a_head,
        socket.create_connection((HOST, server.port), timeout=60) as kept,
        socket.create_connection((HOST, server.port), timeout=60) as half_a_body,
    ):
        kept.sendall(b"GET /v2/health/live HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n")
        answered = b""
        while not answered.endswith(b'{"live":true}'):
            answered += kept.recv(65536)
        kept.sendall(b"\r\n")  # not a request, and enough to end uvicorn's patience with an idle connection
        half_a_head.sendall(head()[:-10])
        half_a_body.sendall(head(100) + b'{"instances"')
        began = time.monotonic()
        assert half_a_body.recv(65536).startswith(b"HTTP/1.1 408")
        for connection in (silent, half_a_head, kept):
            with contextlib.suppress(ConnectionResetError):
                assert connection.recv(65536) == b"", "the server should hang up"
        assert limits.SECONDS - 2 < time.monotonic() - began < limits.SECONDS + 10
    assert v1(server, DRIVER).status_code == 200


def test_a_server_is_called_by_its_own_names(server):
    for host in (
        "127.0.0.1",
        f"localhost:{server.port}",
        f"127.0.0.1:{server.port}",
        "LOCALHOST",
        "[::1]:80",
    ):
        assert requests.get(f"{server.url}/v2", headers={"host": host}, timeout=10).status_code == 200, host
    for host in ("example.org", "127.0.0.1.example.org", ""):
        answer = requests.get(f"{server.url}/v2", headers={"host": host}, timeout=10)
        assert answer.status_code == 400 and answer.json() == {
            "error": "this server is not called by that host name"
        }


def test_what_the_server_does_not_offer_is_not_found(server):
    body = {"instances": [{"driver_id": DRIVER}]}
    answers = [
        requests.get(f"{server.url}/v2/models/{MODEL}/versions/1", timeout=10),
        requests.get(f"{server.url}/v2/models/{MODEL}/versions/1/ready", timeout=10),
        requests.post(f"{server.url}/v2/models/{MODEL}/versions/1/infer", json={"inputs": []}, timeout=10),
        requests.post(f"{server.url}/v1/models/{MODEL}:explain", json=body, timeout=10),
    ]
    assert [answer.status_code // 100 for answer in answers] == [4] * 4, [answer.text for answer in answers]
    assert all(set(answer.json()) == {"error"} for answer in answers)


def test_a_request_leaves_no_line_in_the_log_and_a_url_no_line_break(server):
    size = server.log.stat().st_size
    for _ in range(20):
        v1(server, DRIVER)
    v1(server, 5)
    v2(server, {"inputs": []})
    for path in ("/%0d%0aWARNING%20forged", "/%1b%5b31mred", "/v1/models/%0aforged:predict"):
        requests.get(server.url + path, timeout=10)
        requests.post(server.url + path, data="x", timeout=10)
    raw(server, b"\r\nGARBAGE \x1b[31m\r\nforged\r\n\r\n")
    time.sleep(0.2)
    new = server.log.read_bytes()[size:]
    assert len(new) < 300 and b"\x1b" not in new, new
    assert [line for line in new.splitlines() if line.startswith((b"forged", b"WARNING forged"))] == []


def test_a_record_of_the_log_is_one_line_and_there_is_an_end_of_them():
    assert limits.one_line("a\nb\x1b[31m\x00é") == "a\\nb\\x1b[31m\\x00é"
    assert limits.one_line("x" * 10_000 + "the end") == "x" * 500 + " [...] " + "x" * 1493 + "the end"
    seldom = limits.Seldom(most=3)
    records = [logging.makeLogRecord({"msg": f"record {number}"}) for number in range(10)]
    kept = [record.getMessage() for record in records if seldom.filter(record)]
    assert kept == ["record 0", "record 1", "record 2 (further records of this minute are left out)"]


def test_a_full_queue_asks_to_come_back():
    async def crowd() -> list:
        pool, leave = limits.Pool(threads=2), threading.Event()
        waiting = [asyncio.ensure_future(pool.run(leave.wait, 30)) for _ in range(limits.MOST_WAITING + 2)]
        await asyncio.sleep(0.1)
        with pytest.raises(HTTPException) as refusal:
            await pool.run(leave.wait, 30)
        leave.set()
        assert await asyncio.gather(*waiting) == [True] * len(waiting)
        assert await pool.run(lambda: "room again") == "room again"
        return [refusal.value.status_code, refusal.value.headers]

    assert asyncio.run(crowd()) == [503, {"Retry-After": "1"}]


def test_health_answers_while_the_online_store_is_locked(server, served):
    lock = sqlite3.connect(served.path / "online_store.db", isolation_level=None)
    lock.execute("BEGIN EXCLUSIVE")
    answers = []
    asking = [threading.Thread(target=lambda: answers.append(v1(server, DRIVER))) for _ in range(6)]
    try:
        for thread in asking:
            thread.start()
        began, slowest = time.monotonic(), 0.0
        while time.monotonic() < began + 2:
            asked = time.monotonic()
            assert requests.get(f"{server.url}/v2/health/live", timeout=10).status_code == 200
            slowest = max(slowest, time.monotonic() - asked)
        assert slowest < 1.5, "health waits for the store"  # which is locked for 2 s
        assert not answers, "the store was not locked"
    finally:
        lock.rollback()
        lock.close()
        for thread in asking:
            thread.join()
    assert [answer.status_code for answer in answers] == [200] * 6


def test_the_metrics_say_what_serves_how_old_it_is_and_what_was_refused(server, store):
    v1(server, DRIVER)
    v1(server, 5)
    write(store, 911, NOW - timedelta(hours=3))
    v1(server, 911)
    text = requests.get(f"{server.url}/metrics", timeout=10).text
    served = status(server)["serves"]
    assert (
        f'lifecycle_served_version_info{{model_id="{served["model_id"]}",model_name="{MODEL}",version="2"}} 1.0'
        in text
    )
    for line in ("lifecycle_follows", "lifecycle_ready"):
        assert f'{line}{{model_name="{MODEL}"}} 1.0' in text
    assert f'lifecycle_feature_age_seconds{{feature="acc_rate",model_name="{MODEL}"}} {3 * 3600.0}' in text
    assert 'lifecycle_refused_requests_total{reason="missing"}' in text
    [look] = [
        line for line in text.splitlines() if line.startswith("lifecycle_registry_look_timestamp_seconds{")
    ]
    assert time.time() - float(look.split()[-1]) < 30


def test_a_failure_of_the_server_is_told_without_its_text(served, store, tmp_path):
    """The table of a feature view is dropped from the store, as by another program: the one thing that is left to be a 500."""
    own = create_home(tmp_path / "home")
    for name in ("registry.db", "mlflow.db", "online_store.db"):
        shutil.copy(served.path / name, own.path / name)
    configure(own)
    registry.apply(FeatureStore(repo_path=str(own.feature_repo)), own.feature_repo)
    with start(own, log="failing.log") as server:
        with sqlite3.connect(own.path / "online_store.db") as database:
            database.execute("DROP TABLE driver_ranking_driver_hourly_stats")
        answer = v1(server, DRIVER)
        assert answer.status_code == 500 and answer.json() == {
            "error": "the server failed on this request; its log says why"
        }
        eventually(lambda: "no such table" in server.log.read_text(), "the log does not say why")


def test_many_half_open_connections_do_not_make_it_deaf(server):
    """Under the usual limit of 1024 descriptors there is room left; what is half open goes after a while (see the test of slow senders)."""
    half_open = [socket.create_connection((HOST, server.port), timeout=30) for _ in range(300)]
    try:
        for connection in half_open:
            connection.sendall(head()[:-10])
        began = time.monotonic()
        assert v1(server, DRIVER).status_code == 200 and time.monotonic() - began < limits.SECONDS - 2
    finally:
        for connection in half_open:
            connection.close()


def test_a_kept_connection_serves_many_requests(server):
    connection = http.client.HTTPConnection(HOST, server.port, timeout=30)
    found = []
    for _ in range(50):
        connection.request(
            "POST",
            PREDICT,
            json.dumps({"instances": [{"driver_id": DRIVER}]}),
            {"content-type": "application/json"},
        )
        found.append(json.loads(connection.getresponse().read())["predictions"][0])
    assert len(set(found)) == 1 and np.isfinite(found).all()
    assert mlflow.MlflowClient().get_model_version_by_alias(MODEL, "production").version

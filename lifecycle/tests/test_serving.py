"""The model server under good, bad and hostile requests, while its alias, registries and stores change."""

import asyncio
import contextlib
import json
import resource
import shutil
import socket
import sqlite3
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import psutil
import pytest
import requests
import yaml
from fastapi import HTTPException
from feast import FeatureStore, Field
from feast.infra.online_stores.redis import RedisOnlineStore, RedisOnlineStoreConfig
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Float64
from served import DRIVER, LONG_AGO, SERVICES, eventually, get, promote, start, status, tensor, v1, v2, write

from conftest import listening
from helpers import registry, services
from helpers.data import NOW, UNKNOWN_DRIVER
from helpers.services import HOST, Service, free_port
from helpers.start import MODEL
from lifecycle.cluster.manifests import cluster_settings
from lifecycle.features.contract import FeatureContract
from lifecycle.serving import limits
from lifecycle.serving.open_inference import MOST_ROWS
from lifecycle.serving.prediction_log import read_log
from lifecycle.settings import Cluster

pytestmark = [pytest.mark.system, pytest.mark.xdist_group("served")]
PREDICT, INFER = f"/v1/models/{MODEL}:predict", f"/v2/models/{MODEL}/infer"
NAMES = ["driver_hourly_stats:acc_rate", "driver_hourly_stats:conv_rate", "driver_daily_profile:rating"]
NAMES += ["driver_ratios:conv_log_odds"]


@pytest.fixture
def drivers(served) -> list[int]:
    """Those with valid features: they reported within the last hours, and have a profile of the last days."""
    fresh = []
    for name, age in (("driver_stats", timedelta(hours=2)), ("driver_profile", timedelta(days=2))):
        rows = pd.read_parquet(served.data / f"{name}.parquet", columns=["driver_id", "event_timestamp"])
        last = rows.groupby("driver_id").event_timestamp.max()
        fresh.append(set(last.index[last > NOW - age]))
    return sorted(int(driver) for driver in fresh[0] & fresh[1])


@pytest.fixture
def alive(server):
    """Whatever the test sends, the same process answers the next caller."""
    yield server
    assert server.running and v1(server, DRIVER).status_code == 200


def own_scores(store: FeatureStore, version: str, drivers: list[int]) -> dict[int, float]:
    """What the model returns without a server: features as a table, columns by name, one driver at a time."""
    model = mlflow.sklearn.load_model(f"models:/{MODEL}/{version}")
    contract = FeatureContract.from_feature_service(store, SERVICES[version], "label")
    rows = [{"driver_id": driver} for driver in drivers]
    table = store.get_online_features(features=list(contract.feature_refs), entity_rows=rows).to_df()
    scores = [model.predict_proba(table[contract.columns].iloc[[row]])[0, 1] for row in range(len(drivers))]
    return dict(zip(drivers, map(float, scores), strict=True))


def test_both_protocols_return_the_models_own_scores(server, served_store, drivers):
    own = own_scores(served_store, "2", drivers)
    first = v1(server, *drivers).json()
    np.testing.assert_allclose(first["predictions"], list(own.values()), rtol=0, atol=1e-14)
    for driver in drivers[:5]:
        assert v1(server, driver).json()["predictions"] == [own[driver]]
    second = v2(server, {"id": "42", **tensor(shape=[len(drivers)], data=drivers)}).json()
    assert (second["id"], second["model_name"], second["model_version"]) == ("42", MODEL, "2")
    [output] = second["outputs"]
    assert (output["name"], output["datatype"], output["shape"]) == ("score", "FP64", [len(drivers)])
    assert output["data"] == first["predictions"]
    assert v2(server, tensor()).json()["id"] != v2(server, tensor()).json()["id"]


def instances(*values: object) -> str:
    return json.dumps({"instances": [{"driver_id": value} for value in values]})


BAD_BODIES = ["", '{"instances": [', b"\xff\xfe", "[" * 100_000, "null", "[]", "{}"]
BAD_V1 = [
    *BAD_BODIES,
    *[json.dumps({"instances": bad}) for bad in ({}, [], [1001], [{}], [{"driver_id": 1, "a": 1}])],
    *[instances(bad) for bad in ("1001", 1001.0, True, None, [DRIVER], 2**63, -(10**400), float("nan"))],
    instances(*[DRIVER] * (MOST_ROWS + 1)),
    instances(DRIVER).replace("1001", "9" * 5000),
    '{"specversion": "1.0", "type": "x", "source": "y", "id": "z", "data": 5}',
]
BAD_V2 = [
    *BAD_BODIES,
    *[{"inputs": bad} for bad in ([], {}, tensor()["inputs"] * 2)],
    *[tensor() | bad for bad in ({"id": 42}, {"parameters": {"a": [1]}}, {"outputs": [{"name": "a"}]})],
    *[tensor(name=bad) for bad in ("driver", ...)],
    *[tensor(datatype=bad) for bad in ("FP64", "NUMBER", "FP16", 64, ...)],
    *[tensor(shape=bad) for bad in (..., "one", [1.5], [float("nan")], [2], [0], [-1], [10**30], [])],
    *[tensor(data=bad) for bad in (..., None, "1001", [[DRIVER]], ["A"], [1.5], [True], [None], [2**63])],
    tensor(shape=[1, 1], data=[[DRIVER]]),
    tensor(shape=[MOST_ROWS + 1], data=[DRIVER] * (MOST_ROWS + 1)),
    tensor(datatype="BYTES", data=..., parameters={"binary_data_size": 8}),
    json.dumps(tensor()).replace("1001", "9" * 5000),
]


def refused(answer: requests.Response, status: int = 400) -> str:
    assert answer.status_code == status, answer.text[:300]
    assert set(answer.json()) == {"error"} and isinstance(answer.json()["error"], str)
    assert 0 < len(answer.text) < 1000, "a refusal should not send the request back"
    return answer.json()["error"]


def post(server: Service, path: str, body: object, kind: str = "application/json") -> requests.Response:
    data = json.dumps(body) if isinstance(body, dict) else body
    return requests.post(server.url + path, data=data, headers={"content-type": kind}, timeout=60)


def test_rejects_bad_requests_as_the_callers_mistake(alive, subtests):
    for path, bad in ((PREDICT, BAD_V1), (INFER, BAD_V2)):
        for number, body in enumerate(bad):
            with subtests.test(f"{path} {number}: {str(body)[:60]}"):
                refused(post(alive, path, body))
    refused(post(alive, PREDICT, instances(DRIVER), "text/plain"))
    refused(post(alive, INFER, tensor(), "application/xml"))
    assert post(alive, PREDICT, instances(DRIVER), "application/json; charset=utf-8").status_code == 200


def test_what_the_server_does_not_offer_is_not_found(alive):
    for path in ("/nowhere", "/v2/models/nobody/ready", f"/v2/models/{MODEL}/versions/1"):
        refused(requests.get(alive.url + path, timeout=60), 404)
    refused(post(alive, "/v1/models/nobody:predict", instances(DRIVER)), 404)
    refused(post(alive, "/v2/models/nobody/infer", tensor()), 404)
    refused(post(alive, f"/v1/models/{MODEL}:explain", instances(DRIVER)), 404)
    for verb in ("load", "unload"):
        refused(post(alive, f"/v2/repository/models/{MODEL}/{verb}", ""), 403)


def test_an_entity_without_valid_features_is_refused_and_named(alive, served_store):
    write(served_store, 901, NOW, conv_rate=None)
    write(served_store, 902, LONG_AGO)
    write(served_store, 903, NOW + timedelta(days=1))
    error = refused(v1(alive, 901, 902, DRIVER, 903, UNKNOWN_DRIVER), 404)
    assert "4 of 5 entities (driver_id=901: missing conv_log_odds" in error
    assert "driver_id=902: stale acc_rate" in error and "driver_id=903: from the future acc_rate" in error
    assert f"driver_id={UNKNOWN_DRIVER}: missing acc_rate" in error
    refused(v2(alive, tensor(data=[UNKNOWN_DRIVER])), 404)
    refused(v1(alive, *range(5_000_000, 5_000_000 + MOST_ROWS)), 404)
    row = served_store.get_online_features(NAMES, [{"driver_id": 902}]).to_dict()
    assert row["acc_rate"] == [0.9], "Feast's online store no longer serves what its TTL forbids"
    # As old as the time to live is not older, and clocks of two machines may differ a little.
    for driver, when in ((901, NOW), (902, LONG_AGO + timedelta(days=1)), (903, NOW + timedelta(seconds=30))):
        write(served_store, driver, when)
        assert v1(alive, driver).status_code == 200


def test_a_computed_feature_is_as_old_as_its_source_and_an_absurd_value_is_refused(alive, served_store):
    promote(alive, "3")
    write(served_store, 904, LONG_AGO)
    assert "driver_id=904: stale" in refused(v1(alive, 904), 404)
    promote(alive, "1")  # reads the rate itself, and squares it
    for value in (float("inf"), -float("inf"), 1e308):
        write(served_store, 905, NOW, conv_rate=value)
        assert "1 of 2 entities (driver_id=905: " in refused(v1(alive, DRIVER, 905), 404)


def process_of(server: Service) -> psutil.Process:
    [process] = psutil.Process(server._keeper.pid).children()
    return process


def test_concurrent_clients_get_right_scores_while_the_alias_moves(server, served_store, drivers):
    own = {version: own_scores(served_store, version, drivers) for version in "12"}
    process = process_of(server)

    def client(number: int) -> list[tuple[int, int, dict]]:
        with requests.Session() as session:
            chosen = [drivers[(number * 37 + k) % len(drivers)] for k in range(100)]
            answers = [(driver, v1(server, driver, session=session)) for driver in chosen]
            return [(driver, answer.status_code, answer.json()) for driver, answer in answers]

    with ThreadPoolExecutor(4) as pool:
        clients = [pool.submit(client, number) for number in range(4)]
        for version in ("1", "2"):
            promote(server, version)
        answers = [answer for future in clients for answer in future.result()]
    assert len(answers) == 400 and {status for _, status, _ in answers} == {200}
    wrong = [(d, a) for d, _, a in answers if a["predictions"] != [own[a["model_version"]][d]]]
    assert wrong == []
    assert process_of(server) == process, "the server followed without a restart"


def sockets(server: Service) -> set[str]:
    below = listening(server._keeper.pid)
    assert server.port in {socket.laddr.port for socket in below}
    return {socket.laddr.ip for socket in below}


def test_feasts_feature_server_returns_the_values_of_its_library(served, server, served_store, drivers):
    command = [Path(sys.executable).with_name("feast"), "-c", served.feature_repo, "serve", "--host", HOST]
    log = served.path / "logs" / "feature_server.log"
    rows = [*drivers, UNKNOWN_DRIVER]
    body = {"feature_service": "log_odds_and_rating", "entities": {"driver_id": rows}}
    command += ["--port", "{port}"]
    with Service("feature server", command, health="/health", log=log, timeout=600) as feast_server:
        answer = requests.post(f"{feast_server.url}/get-online-features", json=body, timeout=60)
        assert sockets(feast_server) == sockets(server) == {HOST}, "both listen on loopback alone"
        for header in ({"host": "evil.org"}, {"origin": "http://evil.org"}):
            for path in ("/get-online-features", "/write-to-online-store", "/push", "/materialize"):
                refused = requests.post(feast_server.url + path, json=body, headers=header, timeout=60)
                assert refused.status_code in (400, 403), (path, header)
    assert answer.status_code == 200, answer.text
    names, results = answer.json()["metadata"]["feature_names"], answer.json()["results"]
    over_http = {name: result["values"] for name, result in zip(names, results, strict=True)}
    service = served_store.get_feature_service("log_odds_and_rating")
    own = served_store.get_online_features(service, [{"driver_id": driver} for driver in rows]).to_dict()
    assert over_http == own
    assert sum(value is None for values in own.values() for value in values) == 3


def test_redis_and_sqlite_return_equal_values_for_every_driver(served, served_store, tmp_path):
    redis = services.redis(tmp_path / "redis.log")
    if redis is None:
        pytest.skip("redis-server is not installed")
    with redis:
        assert sockets(redis) == {HOST}
        settings = yaml.safe_load((served.feature_repo / "feature_store.yaml").read_text())
        settings["online_store"] = {"type": "redis", "connection_string": f"{HOST}:{redis.port}"}
        (served.path / "redis.yaml").write_text(yaml.safe_dump(settings))
        other = FeatureStore(fs_yaml_file=served.path / "redis.yaml")
        other.materialize(NOW - timedelta(days=7), NOW)
        rows = [{"driver_id": driver} for driver in [*range(1001, 1151), UNKNOWN_DRIVER]]
        answers = [store.get_online_features(NAMES, rows) for store in (served_store, other)]
        one, two = (answer.to_dict(include_event_timestamps=True) for answer in answers)
        assert one == two
        assert one["acc_rate"].count(None) < 20


# What others do to its registries and stores, and hostile requests.


def other_log_odds(store: FeatureStore) -> None:
    """A change that keeps every name: the function computes something else."""
    hourly = store.get_feature_view("driver_hourly_stats")[["conv_rate", "acc_rate"]]
    schema = [Field(name=name, dtype=Float64) for name in ("conv_acc_ratio", "conv_log_odds")]

    @on_demand_feature_view(sources=[hourly], schema=schema, mode="python")
    def driver_ratios(inputs):
        constant = [-30.0] * len(inputs["conv_rate"])
        return {"conv_acc_ratio": constant, "conv_log_odds": constant}

    store.apply(driver_ratios)


def readiness(server) -> tuple[int, dict]:
    return get(server, f"/v2/models/{MODEL}/ready")


def looks(server) -> None:
    """Wait until the server has looked at its registries twice: the first look may have begun before."""
    for _ in range(2):
        looked = status(server)["last_look"]
        eventually(lambda: status(server)["last_look"] > looked, "the server looks no more")  # noqa: B023


def test_a_changed_definition_stops_the_server_until_it_is_back(server, served, served_store):
    score = v1(server, DRIVER).json()["predictions"]
    answers, stop = [], threading.Event()

    def keep_asking() -> None:
        while not stop.is_set():
            answers.append(v1(server, DRIVER))

    client = threading.Thread(target=keep_asking)
    client.start()
    try:
        other_log_odds(served_store)
        eventually(lambda: readiness(server)[0] == 503, "the server is still ready")
        message = "the definition of driver_ratios has changed since the model was trained"
        assert message in readiness(server)[1]["error"] and message in status(server)["not_ready"]
        refused = v1(server, DRIVER)
        assert refused.status_code == 503 and message in refused.json()["error"]
        assert get(server, "/v2/health/ready")[0] == 503 and get(server, "/v2/health/live")[0] == 200
    finally:
        stop.set()
        client.join()
        registry.apply(served_store, served.feature_repo)
    eventually(lambda: readiness(server)[0] == 200, "the definition is back, and the server is not ready")
    assert v1(server, DRIVER).json()["predictions"] == score
    assert {answer.status_code for answer in answers} == {200, 503}
    scores = [answer.json()["predictions"] for answer in answers if answer.status_code == 200]
    assert scores == [score] * len(scores), "an answer was computed with the other definition"


def test_a_replaced_database_of_models_or_online_store_is_noticed(server, served, served_store):
    models, online = served.path / "mlflow.db", served.path / "online_store.db"
    for path in (models, online):
        shutil.copy(path, path.with_suffix(".backup"))
    promote(server, "1")
    models.with_suffix(".backup").replace(models)  # in it, version 2 is in production
    eventually(lambda: status(server)["serves"]["version"] == "2", "the server reads the old database")
    write(served_store, 914, NOW)
    assert v1(server, 914).status_code == 200
    online.with_suffix(".backup").replace(online)  # without that driver
    eventually(lambda: v1(server, 914).status_code == 404, "the server reads the old store")
    assert v1(server, DRIVER).status_code == 200


def test_a_failure_is_reported_without_its_text(server, served):
    table = "driver_ranking_driver_hourly_stats"
    with sqlite3.connect(served.path / "online_store.db") as database:
        database.execute(f"ALTER TABLE {table} RENAME TO hidden")
    try:
        answer = v1(server, DRIVER)
        assert answer.status_code == 500 and answer.json()["error"].endswith("; its log says why")
        eventually(lambda: "no such table" in server.log.read_text(), "the log does not say why")
    finally:
        with sqlite3.connect(served.path / "online_store.db") as database:
            database.execute(f"ALTER TABLE hidden RENAME TO {table}")
    assert v1(server, DRIVER).status_code == 200


def test_a_killed_server_loses_only_the_rows_since_its_last_write(kept, kept_store):
    answered: list[int] = []
    written: list[int] = []  # how many requests had been answered when a write was noticed
    states: set[int] = set()
    with start(kept, log="killed.log") as server:
        while len(written) < 3:
            answered.append(1001 + len(answered) % 5)
            assert v1(server, answered[-1]).status_code == 200
            now = {file.stat().st_mtime_ns for file in kept.path.glob("predictions/*/*.parquet")}
            if now - states:
                states |= now
                written.append(len(answered))
            time.sleep(0.02)
        psutil.Process(server._keeper.pid).children()[0].kill()
        eventually(lambda: not server.running, "the server does not end")
    log = read_log(kept_store, SERVICES["2"], NOW - timedelta(days=1), NOW + timedelta(days=1))
    # A write holds at least what had been answered when the write before was noticed.
    assert written[1] <= len(log) <= len(answered)
    assert Counter(log.driver_id) == Counter(answered[: len(log)]), "not the last ones are lost"


@contextlib.contextmanager
def descriptors(most: int):
    """What is started meanwhile has so many; this process keeps its own."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def raw(server, *parts: bytes) -> bytes:
    """What the server answers to bytes on a socket; empty when it hangs up."""
    with socket.create_connection((HOST, server.port), timeout=120) as connection:
        for part in parts:
            connection.sendall(part)
        found = b""
        while part := connection.recv(65536):
            found += part
        return found


def head(length: object = "", extra: str = "") -> bytes:
    size = f"content-length: {length}\r\n" if length != "" else ""
    lines = f"POST {PREDICT} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
    return f"{lines}{size}{extra}\r\n".encode()


def refusals(server, reason: str) -> float:
    begin = f'lifecycle_refused_requests_total{{reason="{reason}"}}'
    lines = requests.get(f"{server.url}/metrics", timeout=60).text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(begin))


def test_rejects_a_body_beyond_the_limit_before_all_of_it_arrives(server):
    large, slow = refusals(server, "too large"), refusals(server, "slow")
    answer = raw(server, head(limits.MOST_BYTES + 1))
    assert answer.startswith(b"HTTP/1.1 413") and b"at most 1,000,000 bytes" in answer
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    with contextlib.suppress(ConnectionError):  # the server may hang up while we are still sending
        answer = raw(server, head(extra="transfer-encoding: chunked\r\n"), *[chunk] * 20)
        assert answer.startswith(b"HTTP/1.1 413")
    assert refusals(server, "too large") == large + 2 and refusals(server, "slow") == slow
    assert v1(server, DRIVER).status_code == 200


def test_hangs_up_on_slow_senders_and_answers_others_meanwhile(server):
    with contextlib.ExitStack() as open_connections:

        def connect(sent: bytes = b"") -> socket.socket:
            connection = socket.create_connection((HOST, server.port), timeout=120)
            connection.sendall(sent)
            return open_connections.enter_context(connection)

        kept = connect(b"GET /v2/health/live HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n")
        answered = b""
        while not answered.endswith(b'{"live":true}'):
            answered += kept.recv(65536)
        kept.sendall(b"\r\n")  # not a request, and enough to end uvicorn's patience with an idle connection
        half_a_body = connect(head(100) + b'{"instances"')
        silent, half_heads = connect(), [connect(head()[:-10]) for _ in range(300)]
        assert v1(server, DRIVER).status_code == 200
        assert half_a_body.recv(65536).startswith(b"HTTP/1.1 408")
        for connection in (silent, kept, *half_heads):
            with contextlib.suppress(ConnectionResetError):
                assert connection.recv(65536) == b"", "the server should hang up"
    assert v1(server, DRIVER).status_code == 200


def test_answers_only_to_its_own_host_names(server):
    port = server.port
    for host in ("127.0.0.1", f"localhost:{port}", f"127.0.0.1:{port}", "LOCALHOST", "[::1]:80"):
        assert get(server, "/v2", headers={"host": host})[0] == 200, host
    for host in ("example.org", "127.0.0.1.example.org", ""):
        assert requests.get(f"{server.url}/v2", headers={"host": host}, timeout=60).status_code == 400


WRONG_CALLERS = {
    "two hosts": (b"host: 127.0.0.1\r\nhost: evil.org", b"400", b"one Host"),
    "a foreign page": (b"host: 127.0.0.1\r\norigin: http://evil.org", b"403", b"page of another host"),
    "a page without a name": (b"host: 127.0.0.1\r\norigin: null", b"403", b"page of another host"),
    "a length of 4,401 digits": (b"host: 127.0.0.1\r\ncontent-length: " + b"9" * 4401, b"4", b""),
}


@pytest.mark.parametrize("caller", WRONG_CALLERS)
def test_refuses_wrong_callers_and_logs_no_traceback(alive, caller):
    lines, status, says = WRONG_CALLERS[caller]
    body, size = instances(DRIVER).encode(), alive.log.stat().st_size
    length = b"" if b"content-length" in lines else b"content-length: %d\r\n" % len(body)
    answer = raw(
        alive, b"POST " + PREDICT.encode() + b" HTTP/1.1\r\n" + lines + b"\r\n" + length + b"\r\n" + body
    )
    assert answer.split(b" ")[1].startswith(status) and says in answer
    assert b"Traceback" not in alive.log.read_bytes()[size:]


def test_a_page_of_its_own_is_answered(alive):
    headers = {"origin": alive.url}
    answer = requests.post(alive.url + PREDICT, instances(DRIVER), headers=headers, timeout=60)
    assert answer.status_code == 200


def test_bounds_silent_idle_and_unread_connections_and_what_they_log(served):
    """300 descriptors; 600 callers: silent, idle after an answer, or with 60 answers that nobody reads."""
    with descriptors(300):
        server = start(served, log="connections.log")
    ask = b"GET %s HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n"
    with server, contextlib.ExitStack() as held:
        size = server.log.stat().st_size
        for number in range(600):
            connection = held.enter_context(socket.socket())
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect((HOST, server.port))
            unread = number % 10 == 9
            with contextlib.suppress(OSError):
                connection.send(ask % b"/metrics" * 60 if unread else ask % b"/v2/health/live" * (number % 2))
        began = time.monotonic()
        assert get(server, "/v2/health/live")[0] == 200
        assert time.monotonic() - began < 10, "liveness waits for those who are silent"
        process = process_of(server)
        assert len(process.net_connections("tcp")) < 200
        few = lambda: len(process.net_connections("tcp")) < 10  # noqa: E731
        eventually(few, "connections are held for ever", seconds=60)
        assert v1(server, DRIVER).status_code == 200
        written = server.log.read_bytes()[size:]
        assert b"Too many open files" not in written
        assert written.count(b"\n") < 60, "what callers can cause fills the disk"


def test_a_request_leaves_no_line_in_the_log(server):
    size = server.log.stat().st_size
    for _ in range(20):
        v1(server, DRIVER)
    v1(server, 5)
    v2(server, {"inputs": []})
    for path in ("/%0d%0aWARNING%20forged", "/%1b%5b31mred", "/v1/models/%0aforged:predict"):
        requests.get(server.url + path, timeout=60)
        requests.post(server.url + path, data="x", timeout=60)
    raw(server, b"\r\nGARBAGE \x1b[31m\r\nforged\r\n\r\n")
    looks(server)  # by now, what the requests caused is in the log
    new = server.log.read_bytes()[size:]
    assert len(new) < 300 and b"\x1b" not in new, new
    assert not any(line.startswith((b"forged", b"WARNING forged")) for line in new.splitlines())


class Held:
    """What an error of a store holds, and who lets go of it."""

    def __init__(self, seen: list):
        self.seen = seen

    def __del__(self):
        self.seen.append(threading.current_thread())


@pytest.mark.parametrize(
    ("says", "expected"), [("database is locked", HTTPException), ("no such table: x", RuntimeError)]
)
def test_an_error_of_the_store_ends_in_its_thread(says, expected):
    """In the event loop's, a cursor waits for whoever works on its connection, and the loop with it."""
    seen: list = []

    def task():
        held = Held(seen)
        raise sqlite3.OperationalError(says, held)

    async def ask():
        try:
            await limits.Pool(threads=1).run(task)
        except Exception as error:
            return error

    error = asyncio.run(ask())
    assert isinstance(error, expected) and error.__context__ is None
    assert len(seen) == 1 and seen[0] is not threading.main_thread()
    if expected is HTTPException:
        assert (error.status_code, error.headers) == (503, {"Retry-After": "1"})
    else:
        assert says in str(error)


def test_a_redis_that_is_away_asks_to_come_back_and_names_no_address(caplog):
    """Through Feast's own client, with the settings that a cluster gets: at once, not after ten seconds."""
    options = cluster_settings({}, Cluster(redis=f"{HOST}:{free_port()}"))["online_store"]
    online = RedisOnlineStore()
    client = online._get_client(RedisOnlineStoreConfig(**options))

    async def ask():
        await limits.Pool(threads=1).run(client.ping)

    began = time.monotonic()
    with pytest.raises(HTTPException) as refusal:
        asyncio.run(ask())
    assert (refusal.value.status_code, refusal.value.headers) == (503, {"Retry-After": "1"})
    assert refusal.value.detail == "the online store does not answer" and HOST in caplog.text
    assert time.monotonic() - began < 5


def test_a_full_queue_asks_to_come_back():
    async def crowd() -> tuple:
        pool, leave = limits.Pool(threads=2), threading.Event()
        waiting = [asyncio.ensure_future(pool.run(leave.wait, 60)) for _ in range(limits.MOST_WAITING + 2)]
        await asyncio.sleep(0)  # each of them has entered the queue
        with pytest.raises(HTTPException) as refusal:
            await pool.run(leave.wait, 60)
        leave.set()
        assert await asyncio.gather(*waiting) == [True] * len(waiting)
        assert await pool.run(lambda: "room again") == "room again"
        return refusal.value.status_code, refusal.value.headers

    assert asyncio.run(crowd()) == (503, {"Retry-After": "1"})


def test_a_locked_store_answers_503_and_never_holds_the_event_loop(server, served):
    """Longer than the 5 s that SQLite waits; liveness is asked all the time."""
    lock = sqlite3.connect(served.path / "online_store.db", isolation_level=None)
    lock.execute("BEGIN EXCLUSIVE")
    with ThreadPoolExecutor(6) as clients:
        try:
            waiting, live = [clients.submit(v1, server, DRIVER) for _ in range(6)], []
            end = time.monotonic() + 12
            while time.monotonic() < end:
                began = time.monotonic()
                assert get(server, "/v2/health/live")[0] == 200
                live.append(time.monotonic() - began)
            answers = [answer.result() for answer in waiting]
        finally:
            lock.rollback()
            lock.close()
        assert {(a.status_code, a.headers.get("retry-after")) for a in answers} == {(503, "1")}
        assert max(live) < 2, "health waits for the store"  # seconds of a busy machine, not of the lock
        assert v1(server, DRIVER).status_code == 200

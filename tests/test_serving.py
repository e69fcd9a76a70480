"""The model server under good, bad and concurrent requests, and what stands beside it: Feast's feature server, Redis, Prometheus.

One small home with three model versions, each with its contract, and one server of each kind for all tests of this file.
"""

import json
import sys
import time
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
from conftest import listening
from feast import FeatureStore
from prometheus_client.parser import text_string_to_metric_families
from served import DRIVER, LONG_AGO, SERVICES, promote, tensor, v1, v2, write

from helpers import services
from helpers.data import NOW, UNKNOWN_DRIVER
from helpers.services import HOST, Service
from helpers.start import MODEL
from helpers.workspace import configure
from lifecycle import open_inference
from lifecycle.contract import FeatureContract

JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def feature_server(served):
    """Feast's own feature server."""
    command = [Path(sys.executable).with_name("feast"), "-c", served.feature_repo, "serve", "--host", HOST]
    log = served.path / "logs" / "feature_server.log"
    with Service("feature server", [*command, "--port", "{port}"], health="/health", log=log) as server:
        yield server


@pytest.fixture
def store(served) -> FeatureStore:
    configure(served)
    return FeatureStore(repo_path=str(served.feature_repo))


@pytest.fixture
def drivers(served) -> list[int]:
    """Those with valid features: they reported within the last hours, and have a profile of the last days."""
    known = None
    for name, age in (("driver_stats", timedelta(hours=2)), ("driver_profile", timedelta(days=2))):
        rows = pd.read_parquet(served.data / f"{name}.parquet", columns=["driver_id", "event_timestamp"])
        last = rows.groupby("driver_id").event_timestamp.max()
        fresh = set(last.index[last > NOW - age])
        known = fresh if known is None else known & fresh
    return sorted(int(driver) for driver in known)


def own_scores(store: FeatureStore, version: str, drivers: list[int]) -> dict[int, float]:
    """What the model says without a server: features as a table, columns by name, one driver at a time."""
    model = mlflow.sklearn.load_model(f"models:/{MODEL}/{version}")
    contract = FeatureContract.of_service(store, SERVICES[version], "label")
    rows = [{"driver_id": driver} for driver in drivers]
    table = store.get_online_features(features=list(contract.feature_refs), entity_rows=rows).to_df()
    columns = contract.columns
    return {
        driver: float(model.predict_proba(table[columns].iloc[[row]])[0, 1])
        for row, driver in enumerate(drivers)
    }


def test_both_protocols_answer_with_the_models_own_scores(server, store, drivers):
    own = own_scores(store, "2", drivers)
    first, second = v1(server, *drivers), v2(server, tensor(shape=[len(drivers)], data=drivers))
    assert first.status_code == second.status_code == 200
    np.testing.assert_allclose(first.json()["predictions"], list(own.values()), rtol=0, atol=1e-14)
    assert second.json()["outputs"][0]["data"] == first.json()["predictions"]
    assert [v1(server, driver).json()["predictions"] for driver in drivers[:5]] == [
        [own[d]] for d in drivers[:5]
    ]


def test_the_open_inference_protocols_pages_answer_as_it_says(server):
    def page(path: str) -> tuple[int, object]:
        answer = requests.get(server.url + path, timeout=10)
        return answer.status_code, answer.json()

    status, about = page("/v2")
    assert status == 200 and about["name"] == "kserve" and about["version"] and about["extensions"] == []
    assert page("/v2/health/live") == (200, {"live": True})
    assert page("/v2/health/ready") == (200, {"ready": True})
    assert page(f"/v2/models/{MODEL}/ready") == (200, {"name": MODEL, "ready": True, "follows": True})
    status, model = page(f"/v2/models/{MODEL}")
    assert status == 200 and model["name"] == MODEL and isinstance(model["platform"], str)
    assert model["inputs"] == [{"name": "driver_id", "datatype": "INT64", "shape": [-1]}]
    assert model["outputs"] == [{"name": "score", "datatype": "FP64", "shape": [-1]}]
    for path in ("/v2/models/nobody", "/v2/models/nobody/ready", "/nowhere"):
        status, said = page(path)
        assert status == 404 and set(said) == {"error"}
    described = page("/openapi.json")[1]["paths"]
    assert {"/v2/health/live", "/v2/models/{model_name}/infer", "/v1/models/{model_name}:predict"} <= set(
        described
    )


def test_a_v2_answer_has_the_form_of_the_protocol(server):
    answer = v2(server, {"id": "42", **tensor()}).json()
    assert (answer["id"], answer["model_name"], answer["model_version"]) == ("42", MODEL, "2")
    [output] = answer["outputs"]
    assert (output["name"], output["datatype"], output["shape"]) == ("score", "FP64", [1])
    assert len(output["data"]) == 1 and 0 < output["data"][0] < 1
    assert v2(server, {"outputs": [{"name": "score"}], **tensor()}).status_code == 200
    assert v2(server, tensor()).json()["id"] != v2(server, tensor()).json()["id"]


def instances(*values: object) -> str:
    return json.dumps({"instances": [{"driver_id": value} for value in values]})


BAD_V1 = {
    "no body": "",
    "bad JSON": '{"instances": [',
    "not UTF-8": b"\xff\xfe",
    "nested too deep": "[" * 100_000,
    "null": "null",
    "a list": "[]",
    "no instances": "{}",
    "instances as an object": '{"instances": {"driver_id": 1001}}',
    "no driver": '{"instances": []}',
    "numbers alone": '{"instances": [1001]}',
    "wrong name": '{"instances": [{"driver": 1001}]}',
    "no name": '{"instances": [{}]}',
    "a name too many": '{"instances": [{"driver_id": 1001, "conv_rate": 1}]}',
    "text": instances("Ada"),
    "a number as text": instances("1001"),
    "a fraction": instances(1001.5),
    "a float": instances(1001.0),
    "true": instances(True),
    "nothing": instances(None),
    "a list of drivers": instances([DRIVER]),
    "NaN": instances(float("nan")),
    "infinity": instances(float("inf")),
    "negative": instances(-1),
    "64 bits and one": instances(2**63),
    "400 digits": instances(10**400),
    "5000 digits": '{"instances": [{"driver_id": ' + "9" * 5000 + "}]}",
    "a huge batch": instances(*[DRIVER] * (open_inference.MOST_ROWS + 1)),
    "a cloud event of another kind": '{"specversion": "1.0", "type": "x", "source": "y", "id": "z", "data": 5}',
}
BAD_V2 = {
    "no body": "",
    "bad JSON": '{"inputs": [',
    "not UTF-8": b"\xff\xfe",
    "nested too deep": "[" * 100_000,
    "null": "null",
    "a list": "[]",
    "no inputs": "{}",
    "inputs empty": '{"inputs": []}',
    "inputs as an object": '{"inputs": {}}',
    "two inputs": {"inputs": tensor()["inputs"] * 2},
    "wrong name": tensor(name="driver"),
    "no name": tensor(name=...),
    "wrong type": tensor(datatype="FP64"),
    "unknown type": tensor(datatype="NUMBER"),
    "half floats": tensor(datatype="FP16"),
    "type as a number": tensor(datatype=64),
    "no type": tensor(datatype=...),
    "no shape": tensor(shape=...),
    "shape as text": tensor(shape="one"),
    "shape of a fraction": tensor(shape=[1.5]),
    "shape of NaN": tensor(shape=[float("nan")]),
    "shape too large": tensor(shape=[2]),
    "shape zero": tensor(shape=[0]),
    "shape negative": tensor(shape=[-1]),
    "shape of 30 digits": tensor(shape=[10**30]),
    "shape empty": tensor(shape=[]),
    "two dimensions": tensor(shape=[1, 1], data=[[DRIVER]]),
    "no data": tensor(data=...),
    "data null": tensor(data=None),
    "data as text": tensor(data="1001"),
    "data nested": tensor(data=[[DRIVER]]),
    "data empty": tensor(shape=[0], data=[]),
    "a name in the data": tensor(data=["Ada"]),
    "a fraction": tensor(data=[1001.5]),
    "true": tensor(data=[True]),
    "nothing": tensor(data=[None]),
    "NaN": tensor(data=[float("nan")]),
    "infinity": tensor(data=[float("inf")]),
    "negative": tensor(data=[-1]),
    "64 bits and one": tensor(data=[2**63]),
    "5000 digits": json.dumps(tensor()).replace("1001", "9" * 5000),
    "a huge batch": tensor(
        shape=[open_inference.MOST_ROWS + 1], data=[DRIVER] * (open_inference.MOST_ROWS + 1)
    ),
    "id as a number": {"id": 42, **tensor()},
    "parameters of lists": {"parameters": {"a": [1]}, **tensor()},
    "an output that there is not": {"outputs": [{"name": "rank"}], **tensor()},
}


def refused(answer: requests.Response, status: int = 400) -> None:
    assert answer.status_code == status, answer.text[:300]
    assert set(answer.json()) == {"error"} and isinstance(answer.json()["error"], str)
    assert 0 < len(answer.text) < 1000, "a refusal should not send the request back"


@pytest.fixture
def alive(server):
    """After whatever the test sent, the same process answers the next caller."""
    yield server
    assert server.running
    assert v1(server, DRIVER).status_code == 200


def test_bad_v1_requests_are_refused_as_the_callers_mistake(alive, subtests):
    for name, body in BAD_V1.items():
        with subtests.test(name):
            refused(
                requests.post(f"{alive.url}/v1/models/{MODEL}:predict", data=body, headers=JSON, timeout=30)
            )


def test_bad_v2_requests_are_refused_as_the_callers_mistake(alive, subtests):
    for name, body in BAD_V2.items():
        data = json.dumps(body) if isinstance(body, dict) else body
        with subtests.test(name):
            refused(
                requests.post(f"{alive.url}/v2/models/{MODEL}/infer", data=data, headers=JSON, timeout=30)
            )


def test_bad_binary_v2_requests_are_refused_as_the_callers_mistake(alive, subtests):
    raw = {"datatype": "INT64", "shape": [2], "data": ..., "parameters": {"binary_data_size": 16}}
    two = np.array([DRIVER, DRIVER + 1]).tobytes()

    def send(body: object, data: bytes = two, length: object = None) -> requests.Response:
        head = json.dumps(body).encode()
        headers = {"inference-header-content-length": str(len(head) if length is None else length)}
        headers |= {"content-type": "application/octet-stream"}
        return requests.post(
            f"{alive.url}/v2/models/{MODEL}/infer", data=head + data, headers=headers, timeout=30
        )

    assert send(tensor(**raw)).status_code == 200
    bad = {
        "data too short": (tensor(**raw), b"123"),
        "length in words": (tensor(**raw), two, "many"),
        "length too large": (tensor(**raw), two, 99999),
        "length negative": (tensor(**raw), two, -5),
        "a list": ([], b""),
        "inputs as a number": ({"inputs": 5}, b""),
        "an empty input": ({"inputs": [{}]}, b""),
        "type as a number": (tensor(datatype=64), b""),
        "shape as a number": (tensor(shape=1), b""),
        "shape negative": (tensor(**raw | {"shape": [-1]}),),
        "size in words": (tensor(**raw | {"parameters": {"binary_data_size": "x"}}),),
        "text": (tensor(**raw | {"datatype": "BYTES"}),),
        "id as an object": ({"id": {}, **tensor()}, b""),
        "outputs as a number": ({"outputs": 5, **tensor()}, b""),
    }
    for name, request in bad.items():
        with subtests.test(name):
            refused(send(*request))


def test_the_content_type_decides_how_a_body_is_read(alive):
    url, body = f"{alive.url}/v1/models/{MODEL}:predict", instances(DRIVER)
    for kind in ("application/json", "application/json; charset=utf-8"):
        assert requests.post(url, data=body, headers={"content-type": kind}, timeout=30).status_code == 200
    for kind in ("text/plain", "application/xml", "application/x-www-form-urlencoded"):
        refused(requests.post(url, data=body, headers={"content-type": kind}, timeout=30))
    url = f"{alive.url}/v2/models/{MODEL}/infer"
    refused(requests.post(url, data=json.dumps(tensor()), headers={"content-type": "text/plain"}, timeout=30))


def test_an_unknown_model_is_not_found_and_nobody_takes_the_model_away(alive):
    refused(requests.post(f"{alive.url}/v1/models/nobody:predict", data=instances(DRIVER), headers=JSON), 404)
    refused(requests.post(f"{alive.url}/v2/models/nobody/infer", json=tensor()), 404)
    for verb in ("load", "unload"):
        refused(requests.post(f"{alive.url}/v2/repository/models/{MODEL}/{verb}"), 403)


def test_a_driver_without_valid_features_does_not_exist(alive):
    answer = v1(alive, DRIVER, UNKNOWN_DRIVER)
    refused(answer, 404)
    assert f"1 of 2 entities (driver_id={UNKNOWN_DRIVER}: missing acc_rate" in answer.json()["error"]
    refused(v2(alive, tensor(data=[UNKNOWN_DRIVER])), 404)
    refused(v1(alive, *range(5_000_000, 5_000_000 + open_inference.MOST_ROWS)), 404)


def test_a_missing_value_is_refused_and_named(alive, store):
    write(store, 901, NOW, conv_rate=None)
    answer = v1(alive, 901)
    refused(answer, 404)
    assert "driver_id=901: missing conv_log_odds)" in answer.json()["error"]
    write(store, 901, NOW, conv_rate=0.5)
    assert v1(alive, 901).status_code == 200


def test_stale_features_are_served_by_feast_and_refused_by_the_server(alive, store):
    write(store, 902, LONG_AGO)
    row = store.get_online_features(
        store.get_feature_service("log_odds_and_rating"), [{"driver_id": 902}]
    ).to_dict()
    assert row["acc_rate"] == [0.9] and row["conv_log_odds"][0] is not None, (
        "Feast serves what its TTL forbids"
    )
    answer = v1(alive, 902)
    refused(answer, 404)
    assert "driver_id=902: stale acc_rate)" in answer.json()["error"]
    write(store, 902, LONG_AGO + timedelta(days=1))
    assert v1(alive, 902).status_code == 200, "as old as the time to live is not older"


def test_a_computed_feature_is_as_old_as_what_it_was_computed_from(alive, store):
    write(store, 903, LONG_AGO)
    promote(alive, "3")
    answer = v1(alive, 903)
    refused(answer, 404)
    assert "driver_id=903: stale" in answer.json()["error"]
    promote(alive, "2")


def test_the_server_follows_the_alias_within_a_second_in_the_same_process(server):
    process = process_of(server)
    seconds = []
    for version in ["1", "2"] * 5:  # the best of several: a busy machine may slow down any one
        seconds.append(promote(server, version))
        if min(seconds) < 1:
            break
    assert min(seconds) < 1, f"the fastest of {len(seconds)} moves took {min(seconds):.1f} s"
    assert process_of(server) == process


def test_a_version_whose_contract_does_not_hold_is_not_served(server, store):
    mlflow.MlflowClient().set_registered_model_alias(MODEL, "production", "4")
    said = "still serving version 2: version 4 must not serve: its input example has the columns"
    end = time.monotonic() + 20
    while said not in server.log.read_text() and time.monotonic() < end:
        time.sleep(0.1)
    assert said in server.log.read_text()
    time.sleep(1.5)
    assert v1(server, DRIVER).json()["model_version"] == "2"
    assert server.log.read_text().count(said) == 1, "once is enough"
    promote(server, "1")


def test_concurrent_clients_get_right_scores_while_the_alias_moves(server, store, drivers):
    own = {version: own_scores(store, version, drivers) for version in "12"}

    def client(number: int) -> list[tuple[int, int, dict]]:
        with requests.Session() as session:
            chosen = [drivers[(number * 37 + k) % len(drivers)] for k in range(100)]
            answers = [(driver, v1(server, driver, session=session)) for driver in chosen]
            return [(driver, answer.status_code, answer.json()) for driver, answer in answers]

    with ThreadPoolExecutor(4) as pool:
        clients = [pool.submit(client, number) for number in range(4)]
        for version in ("1", "2"):
            promote(server, version)
        answers = [answer for future in clients for answer in future.result(timeout=120)]
    assert len(answers) == 400 and {status for _, status, _ in answers} == {200}
    wrong = [(d, a) for d, _, a in answers if a["predictions"] != [own[a["model_version"]][d]]]
    assert wrong == []


def figures(server: Service, name: str) -> dict[str, float]:
    text = requests.get(f"{server.url}/metrics", timeout=10).text
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {
        s.name.removeprefix(name): s.value
        for s in samples
        if s.name.startswith(name) and "le" not in s.labels
    }


def test_the_servers_metrics_count_each_prediction(server):
    before = figures(server, "request_predict_seconds")
    for _ in range(7):
        v1(server, DRIVER)
    after = figures(server, "request_predict_seconds")
    assert after["_count"] - before["_count"] == 7
    assert 0 < after["_sum"] - before["_sum"] < 60


def test_prometheus_scrapes_the_server_and_answers_a_quantile(server, tmp_path):
    prometheus = services.prometheus(tmp_path, [server.url.removeprefix("http://")])
    if prometheus is None:
        pytest.skip("prometheus is not installed")
    expression = "histogram_quantile(0.99, sum by (le) (rate(request_predict_seconds_bucket[1m])))"
    with prometheus:
        end = time.monotonic() + 30
        while not [found for found in services.query(prometheus, expression) if found["value"] > 0]:
            assert time.monotonic() < end, "no quantile"
            v1(server, DRIVER)  # a rate needs something that moves
            time.sleep(0.3)
        [found] = services.query(prometheus, expression)
        assert found["value"] < 10


def test_feasts_own_feature_server_gives_the_values_of_the_python_interface(feature_server, store, drivers):
    asked = [*drivers, UNKNOWN_DRIVER]
    body = {"feature_service": "log_odds_and_rating", "entities": {"driver_id": asked}}
    answer = requests.post(f"{feature_server.url}/get-online-features", json=body, timeout=30)
    assert answer.status_code == 200, answer.text
    names, results = answer.json()["metadata"]["feature_names"], answer.json()["results"]
    over_http = {name: result["values"] for name, result in zip(names, results, strict=True)}
    rows = [{"driver_id": driver} for driver in asked]
    own = store.get_online_features(store.get_feature_service("log_odds_and_rating"), rows).to_dict()
    assert over_http == own
    assert sum(value is None for values in own.values() for value in values) == 3


def other_store(served, online_store: dict) -> FeatureStore:
    """The same definitions and registry with another online store: one block of the settings."""
    settings = yaml.safe_load((served.feature_repo / "feature_store.yaml").read_text())
    path = served.path / "other_store.yaml"
    path.write_text(yaml.safe_dump(settings | {"online_store": online_store}))
    return FeatureStore(fs_yaml_file=path)


def test_redis_in_place_of_sqlite_gives_equal_values_for_every_driver(served, store, drivers, tmp_path):
    redis = services.redis(tmp_path / "redis.log")
    if redis is None:
        pytest.skip("redis-server is not installed")
    with redis:
        assert {socket.laddr.ip for socket in sockets(redis)} == {HOST}
        other = other_store(served, {"type": "redis", "connection_string": f"{HOST}:{redis.port}"})
        other.materialize(NOW - timedelta(days=7), NOW)
        asked = [{"driver_id": driver} for driver in [*range(1001, 1151), UNKNOWN_DRIVER]]
        names = [
            "driver_hourly_stats:acc_rate",
            "driver_hourly_stats:conv_rate",
            "driver_daily_profile:rating",
        ]
        names += ["driver_ratios:conv_log_odds"]
        one, two = (
            s.get_online_features(names, asked).to_dict(include_event_timestamps=True) for s in (store, other)
        )
        assert one == two
        assert one["acc_rate"].count(None) < 20


def process_of(server: Service) -> int:
    (process,) = psutil.Process(server._keeper.pid).children()
    return process.pid


def sockets(server: Service) -> list:
    found = listening(server._keeper.pid)
    assert server.port in {socket.laddr.port for socket in found}, "the server listens where it says"
    return found


def test_the_servers_listen_on_loopback_alone(server, feature_server):
    for one in (server, feature_server):
        assert {socket.laddr.ip for socket in sockets(one)} == {HOST}, one.name

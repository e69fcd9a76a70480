"""What watches the model server: a real Prometheus with the cluster's alert rules over two real servers, and the dashboard's queries on it.

One server has the course's clock. On the other it is six days later, and nothing was materialized meanwhile.
"""

import glob
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from datetime import timedelta
from urllib.error import HTTPError

import psutil
import pytest
import requests
import yaml
from conftest import HARD_TO_QUOTE, listening
from feast import FeatureStore
from prometheus_client.parser import text_string_to_metric_families
from served import DRIVER, start, v1

from helpers import registry, services
from helpers.data import NOW, UNKNOWN_DRIVER
from helpers.services import HOST, MONITORING
from helpers.start import MODEL
from helpers.workspace import configure

RULES = {
    rule["alert"]: rule
    for rule in yaml.safe_load((MONITORING / "alerts.yaml").read_text())["groups"][0]["rules"]
}
DASHBOARD = MONITORING / "dashboard.json"


def promtool(*arguments: object) -> str:
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("promtool is not installed")
    done = subprocess.run([program, *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_settings_and_the_rules_are_what_prometheus_expects(tmp_path):
    assert f"{len(RULES)} rules found" in promtool("check", "rules", MONITORING / "alerts.yaml")
    shutil.copytree(
        MONITORING, tmp_path / "plain"
    )  # the rules' place is a pattern, and the clone's folder may hold brackets
    assert "1 rule files found" in promtool("check", "config", tmp_path / "plain" / "prometheus.yaml")


def test_each_rule_says_how_urgent_it_is_and_in_one_sentence_what_to_do():
    for name, rule in RULES.items():
        assert rule["labels"]["severity"] in ("page", "ticket"), name
        said = re.sub(r"{{.*?}}", "", rule["annotations"]["summary"])
        assert said.count(".") == 1 and said.endswith(".") and said.count(": ") == 1, (
            f"{name}: what is so, and what to do"
        )


AGE, LIMIT = (
    'lifecycle_feature_age_seconds{feature="a"}',
    'lifecycle_feature_age_limit_seconds{feature="a"}',
)
REFUSED = 'lifecycle_refused_requests_total{job="model_server", reason="stale"}'
ANSWERED = 'request_postprocess_seconds_count{job="model_server", model_name="m"}'
FAST, SLOW, ALL = (f'request_predict_seconds_bucket{{le="{le}"}}' for le in ("0.1", "0.25", "+Inf"))
LOST, UP = 'lifecycle_unlogged_predictions_total{model_name="m", reason="full"}', 'up{job="model_server"}'


# Prometheus computes each alert, with the rules' waiting times, over series of one value each 15 seconds; the last value counts.
@pytest.mark.parametrize(
    "alert, fires, series",
    [
        ("FeaturesGrowOld", True, {AGE: "81x9", LIMIT: "100x9"}),
        ("FeaturesGrowOld", False, {AGE: "79x9", LIMIT: "100x9"}),
        ("FeaturesGrowOld", False, {AGE: "10 10 99x7", LIMIT: "100x9"}),  # one silent entity among others
        ("FeaturesGrowOld", False, {AGE: "1000000x9"}),  # a view without a time to live
        ("RequestsRefused", True, {REFUSED: "0+6x9", ANSWERED: "0+94x9"}),
        ("RequestsRefused", False, {REFUSED: "0+4x9", ANSWERED: "0+96x9"}),
        ("RequestsRefused", True, {REFUSED: "0+1x9"}),  # nobody had an answer yet
        ("NotReady", True, {"lifecycle_ready": "1x6 0x2"}),
        ("NotReady", False, {"lifecycle_ready": "1 0 1 0 1 0 1 0 1 0"}),
        ("DoesNotFollow", True, {"lifecycle_follows": "1x8 0"}),
        ("DoesNotFollow", False, {"lifecycle_follows": "0x8 1"}),
        ("AnswersSlow", True, {FAST: "0+98x9", SLOW: "0+100x9", ALL: "0+100x9"}),
        ("AnswersSlow", False, {FAST: "0+99x9", SLOW: "0+100x9", ALL: "0+100x9"}),
        ("ServerGone", True, {UP: "1x6 0x2"}),
        ("ServerGone", False, {UP: "1 0 1 0 1 0 1 0 1 0"}),
        ("ServerGone", True, {}),  # Prometheus knows of no server
        ("PredictionsUnlogged", True, {LOST: "0 0 3x7"}),
        ("PredictionsUnlogged", False, {LOST: "3x9"}),
    ],
)
def test_a_rule_fires_when_it_should_and_only_then(tmp_path, alert, fires, series):
    firing = {"expr": f'count(ALERTS{{alertname="{alert}", alertstate="firing"}})', "eval_time": "135s"}
    firing["exp_samples"] = [{"labels": "{}", "value": 1}] if fires else []
    inputs = [{"series": name, "values": values} for name, values in series.items()]
    test = {"interval": "15s", "input_series": inputs, "promql_expr_test": [firing]}
    rules = [glob.escape(str(MONITORING / "alerts.yaml"))]
    path = tmp_path / "test.yaml"
    path.write_text(yaml.safe_dump({"rule_files": rules, "evaluation_interval": "15s", "tests": [test]}))
    promtool("test", "rules", path)


def eventually(right, what: str, seconds: float = 40) -> object:
    """What ``right`` gives once it is true."""
    end = time.monotonic() + seconds
    while not (found := right()):
        assert time.monotonic() < end, what
        time.sleep(0.2)
    return found


@pytest.fixture(scope="module")
def later(served, model_server):
    """A server of the same model whose clock is six days ahead: its hourly features live for seven."""
    with start(served, now=NOW + timedelta(days=6), log="later.log") as server:
        yield server


def target(server: services.Service) -> str:
    return server.url.removeprefix("http://")


@pytest.fixture(scope="module")
def prometheus(model_server, later, tmp_path_factory):
    """Prometheus over both servers, in a folder that is hard to quote."""
    folder = tmp_path_factory.mktemp("prometheus") / HARD_TO_QUOTE
    found = services.prometheus(folder, [target(model_server), target(later)])
    if found is None:
        pytest.skip("prometheus is not installed")
    with found:
        yield found


def alert(prometheus, name: str, server, state: str = "firing") -> dict | None:
    """The alert of this name over a server; one over all of a job's servers names none."""
    return next(
        (
            found
            for found in services.alerts(prometheus)
            if (found["alertname"], found["state"]) == (name, state)
            and found.get("instance", target(server)) == target(server)
        ),
        None,
    )


def test_prometheus_answers_on_loopback_alone_and_knows_each_rule(prometheus, model_server, later):
    assert {found.laddr.ip for found in listening(prometheus._keeper.pid)} == {HOST}
    groups = requests.get(f"{prometheus.url}/api/v1/rules", timeout=10).json()["data"]["groups"]
    assert [rule["name"] for group in groups for rule in group["rules"]] == list(RULES)
    up = eventually(lambda: services.query(prometheus, "up == 1"), "no server was scraped")
    assert {found["job"] for found in up} == {"model_server"}
    assert {found["instance"] for found in up} <= {target(model_server), target(later)}


def test_features_that_grow_old_raise_an_alert_while_requests_are_still_answered(
    prometheus, model_server, later
):
    assert v1(model_server, DRIVER).status_code == v1(later, DRIVER).status_code == 200
    found = eventually(lambda: alert(prometheus, "FeaturesGrowOld", later), "no alert about old features")
    assert found["feature"] == "acc_rate" and found["severity"] == "page"
    assert re.match(r"acc_rate has used 86\.\d+% of its time to live: materialize", found["summary"])
    assert v1(later, DRIVER).status_code == 200, "the alert comes before requests are refused"
    assert alert(prometheus, "FeaturesGrowOld", model_server) is None
    [age] = services.query(
        prometheus, f'lifecycle_feature_age_seconds{{feature="acc_rate",instance="{target(later)}"}}'
    )
    assert 6 * 86400 < age["value"] < 7 * 86400


def test_refused_requests_raise_an_alert_that_names_the_reason(prometheus, later):
    def refused():
        assert v1(later, UNKNOWN_DRIVER).status_code == 404
        return alert(prometheus, "RequestsRefused", later)

    found = eventually(refused, "no alert about refused requests")
    assert found["reason"] == "missing" and found["severity"] == "ticket" and '"missing"' in found["summary"]


def queries() -> dict[str, str]:
    """The dashboard's queries, by panel and place."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    return {
        f"{panel['title']} {query['refId']}": query["expr"] for panel in panels for query in panel["targets"]
    }


def test_each_query_of_the_dashboard_gives_figures(prometheus, model_server, later):
    missing = queries()
    assert len(missing) >= 11
    end = time.monotonic() + 40
    while missing and time.monotonic() < end:
        for server in (model_server, later):
            assert v1(server, DRIVER).status_code == 200 and v1(server, UNKNOWN_DRIVER).status_code == 404
        found = {name: services.query(prometheus, expression) for name, expression in missing.items()}
        # Nothing divided by nothing is NaN, and no figure.
        missing = {name: missing[name] for name in found if not any(one["value"] >= 0 for one in found[name])}
    assert missing == {}


def test_the_committed_dashboard_is_what_its_script_prints_and_grafanas_models_keep_all_of_it():
    from grafana_foundation_sdk.cog.encoder import JSONEncoder
    from grafana_foundation_sdk.cog.plugins import register_default_plugins
    from grafana_foundation_sdk.models.dashboard import Dashboard

    script = DASHBOARD.with_suffix(".py")
    built = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True).stdout
    assert DASHBOARD.read_text() == built, f"run it: {script.name} > {DASHBOARD.name}"
    register_default_plugins()
    document = json.loads(built)
    assert json.loads(JSONEncoder().encode(Dashboard.from_json(document))) == document
    document["panels"][0]["gridPosition"] = document["panels"][0].pop("gridPos")
    assert json.loads(JSONEncoder().encode(Dashboard.from_json(document))) != document, (
        "a misspelt field is dropped"
    )


def test_every_metric_of_rules_and_dashboard_is_one_that_the_server_shows(model_server):
    v1(model_server, DRIVER), v1(model_server, UNKNOWN_DRIVER)
    text = requests.get(
        f"{model_server.url}/metrics", timeout=10
    ).text  # what is read where no Prometheus is installed
    shown = {sample.name for family in text_string_to_metric_families(text) for sample in family.samples}
    asked = " ".join([rule["expr"] for rule in RULES.values()] + list(queries().values()))
    named = set(re.findall(r"\b(?:lifecycle|request)_\w+", asked))
    assert len(named) >= 9 and named <= shown


def test_a_changed_definition_raises_the_alert_that_the_server_is_not_ready(prometheus, served, later):
    configure(served)
    store = FeatureStore(repo_path=str(served.feature_repo))
    view = store.get_feature_view("driver_hourly_stats")
    view.ttl = timedelta(days=1)
    store.apply(view)
    try:
        found = eventually(
            lambda: alert(prometheus, "NotReady", later), "no alert about a server that refuses all"
        )
        assert found["severity"] == "page" and found["summary"].startswith(f"{MODEL} refuses all requests")
        assert v1(later, DRIVER).status_code == 503
    finally:
        registry.apply(store, served.feature_repo)
    eventually(
        lambda: alert(prometheus, "NotReady", later) is None, "the definition is back, and the alert goes on"
    )


def test_a_server_that_ends_raises_an_alert_that_says_where(prometheus, later, model_server):
    later.stop()
    found = eventually(
        lambda: alert(prometheus, "ServerGone", later), "no alert about a server that has ended"
    )
    assert found["severity"] == "page" and f"at {target(later)} does not answer" in found["summary"]
    assert alert(prometheus, "ServerGone", model_server) is None


def test_a_killed_prometheus_takes_nothing_along(model_server, tmp_path):
    def scrapes(prometheus: services.Service) -> float:
        return sum(found["value"] for found in services.query(prometheus, "count_over_time(up[5m])"))

    first = services.prometheus(tmp_path, [target(model_server)])
    if first is None:
        pytest.skip("prometheus is not installed")
    with first:
        eventually(lambda: scrapes(first) >= 3, "three looks at the server")
        [process] = psutil.Process(first._keeper.pid).children()
        process.send_signal(signal.SIGKILL)
        eventually(lambda: not first.running, "Prometheus is still there")
        assert v1(model_server, DRIVER).status_code == 200
        with pytest.raises(OSError, match="refused"):
            services.alerts(first)
    with services.prometheus(tmp_path, []) as second:
        assert scrapes(second) >= 3, "the next one in the same folder does not remember"


def test_without_a_prometheus_there_is_no_service(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert services.prometheus(tmp_path, ["127.0.0.1:1"]) is None


def test_an_expression_that_cannot_be_read_is_an_error(prometheus):
    with pytest.raises(HTTPError, match="400"):
        services.query(prometheus, "sum by (")

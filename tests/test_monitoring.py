"""What watches the model server: its metrics, the cluster's alert rules in Prometheus, and the dashboard.

One server has the course's clock. On the other it is six days later, and nothing was materialized meanwhile.
"""

import glob
import json
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from datetime import timedelta

import psutil
import pytest
import requests
import yaml
from served import DRIVER, SERVICES, eventually, start, v1

from conftest import HARD_TO_QUOTE, listening
from helpers import services
from helpers.data import NOW, UNKNOWN_DRIVER
from helpers.services import HOST, MONITORING
from helpers.start import MODEL
from lifecycle.serving.prediction_log import read_log

pytestmark = [pytest.mark.system, pytest.mark.xdist_group("served")]
RULES = yaml.safe_load((MONITORING / "alerts.yaml").read_text())["groups"][0]["rules"]
DASHBOARD = MONITORING / "dashboard.json"
LATER = NOW + timedelta(days=6)  # the hourly features live for seven


def promtool(*arguments: object) -> str:
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("promtool is not installed")
    done = subprocess.run([program, *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


AGE = 'lifecycle_feature_age_seconds{feature="a"}'
LIMIT = 'lifecycle_feature_age_limit_seconds{feature="a"}'
REFUSED = 'lifecycle_refused_requests_total{job="model_server", reason="stale"}'
ANSWERED = 'request_postprocess_seconds_count{job="model_server", model_name="m"}'
FAST, SLOW, ALL = (f'request_predict_seconds_bucket{{le="{le}"}}' for le in ("0.1", "0.25", "+Inf"))
LOST, UP = 'lifecycle_unlogged_predictions_total{model_name="m", reason="full"}', 'up{job="model_server"}'
# An alert, whether it fires, and one value each 15 seconds of each series; the last value counts.
CASES = [
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
]


def test_a_rule_fires_when_it_should_and_only_then(tmp_path):
    tests = []
    for number, (alert, fires, series) in enumerate(CASES):
        query = {"expr": f'count(ALERTS{{alertname="{alert}", alertstate="firing"}})', "eval_time": "135s"}
        query["exp_samples"] = [{"labels": "{}", "value": 1}] if fires else []
        inputs = [{"series": name, "values": values} for name, values in series.items()]
        case = {"name": f"{number} {alert}", "interval": "15s", "input_series": inputs}
        tests.append(case | {"promql_expr_test": [query]})
    rules = {"rule_files": [glob.escape(str(MONITORING / "alerts.yaml"))], "evaluation_interval": "15s"}
    (tmp_path / "test.yaml").write_text(yaml.safe_dump(rules | {"tests": tests}))
    promtool("test", "rules", tmp_path / "test.yaml")
    assert {rule["alert"] for rule in RULES} == {alert for alert, _, _ in CASES}
    # The rules' place is a pattern, and the clone's folder may hold brackets.
    shutil.copytree(MONITORING, tmp_path / "plain")
    assert "1 rule files found" in promtool("check", "config", tmp_path / "plain" / "prometheus.yaml")


def test_the_committed_dashboard_is_what_its_script_prints_and_grafana_keeps_all_of_it():
    from grafana_foundation_sdk.cog.encoder import JSONEncoder
    from grafana_foundation_sdk.cog.plugins import register_default_plugins
    from grafana_foundation_sdk.models.dashboard import Dashboard

    script = DASHBOARD.with_suffix(".py")
    built = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True).stdout
    assert DASHBOARD.read_text() == built, f"run it: {script.name} > {DASHBOARD.name}"
    register_default_plugins()
    document = json.loads(built)
    assert json.loads(JSONEncoder().encode(Dashboard.from_json(document))) == document


def metrics(server) -> dict[str, float]:
    lines = requests.get(f"{server.url}/metrics", timeout=60).text.splitlines()
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if line[0] != "#")}


def test_the_metrics_count_answers_refusals_and_scores(server):
    before = metrics(server)
    scores = v1(server, 1001, 1002, 1003, 1004, 1005).json()["predictions"]
    v1(server, UNKNOWN_DRIVER)
    after, model = metrics(server), f'model_name="{MODEL}"'
    more = {name: after[name] - before.get(name, 0) for name in after}
    assert more[f"request_postprocess_seconds_count{{{model}}}"] == 1
    assert more['lifecycle_refused_requests_total{reason="missing"}'] == 1
    for bound in [*(f"0.{tenth}" for tenth in range(1, 10)), "1.0", "+Inf"]:
        counted = sum(score <= float(bound) for score in scores)
        assert more[f'lifecycle_score_bucket{{le="{bound}",{model}}}'] == counted
    [served] = [name for name in after if name.startswith("lifecycle_served_version_info")]
    assert 'model_id="m-' in served and 'version="2"' in served
    assert after[f"lifecycle_ready{{{model}}}"] == after[f"lifecycle_follows{{{model}}}"] == 1


def dashboard_queries() -> dict[str, str]:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    each = [(panel["title"], query) for panel in panels for query in panel["targets"]]
    return {f"{title} {query['refId']}": query["expr"] for title, query in each}


def test_a_real_prometheus_raises_each_alert_of_an_ageing_and_ending_server(
    model_server, kept, kept_store, tmp_path
):
    """On the way, each query of the dashboard gives figures, and the server ends without losing a row."""
    if shutil.which("prometheus") is None:
        pytest.skip("prometheus is not installed")
    with start(kept, now=LATER, log="later.log") as later:
        places = [server.url.removeprefix("http://") for server in (model_server, later)]
        with services.prometheus(tmp_path / HARD_TO_QUOTE, places) as prometheus:

            def alert(name: str, place: str = places[1]) -> dict | None:
                """The alert of this name over a server; one over all of a job's servers names none."""
                firing = [each for each in services.alerts(prometheus) if each["state"] == "firing"]
                named = [each for each in firing if each["alertname"] == name]
                return next((each for each in named if each.get("instance", place) == place), None)

            assert {socket.laddr.ip for socket in listening(prometheus._keeper.pid)} == {HOST}
            missing, answered = dashboard_queries(), 0

            def all_figures() -> bool:
                nonlocal answered
                for server in (model_server, later):
                    assert v1(server, DRIVER).status_code == 200
                    assert v1(server, UNKNOWN_DRIVER).status_code == 404
                answered += 1
                for name, query in [*missing.items()]:
                    # Nothing divided by nothing is NaN, and no figure.
                    if any(series["value"] >= 0 for series in services.query(prometheus, query)):
                        del missing[name]
                return not missing

            assert len(missing) >= 11
            eventually(all_figures, "a query of the dashboard gives no figure")

            old = eventually(lambda: alert("FeaturesGrowOld"), "no alert about old features")
            assert old["feature"] == "acc_rate" and old["severity"] == "page"
            assert re.match(r"acc_rate has used 86\.\d+% of its time to live: materialize", old["summary"])
            assert alert("FeaturesGrowOld", places[0]) is None
            refused = eventually(lambda: alert("RequestsRefused"), "no alert about refused requests")
            assert (refused["reason"], refused["severity"]) == ("missing", "ticket")

            view = kept_store.get_feature_view("driver_hourly_stats")
            view.ttl = timedelta(days=1)
            kept_store.apply(view)
            not_ready = eventually(lambda: alert("NotReady"), "no alert about a server that refuses all")
            assert not_ready["severity"] == "page"
            assert not_ready["summary"].startswith(f"{MODEL} refuses all requests")
            assert v1(later, DRIVER).status_code == 503
            view.ttl = timedelta(days=7)
            kept_store.apply(view)
            eventually(lambda: alert("NotReady") is None, "the definition is back, and the alert goes on")

            assert v1(later, 1002, 1003).status_code == 200
            psutil.Process(later._keeper.pid).children()[0].send_signal(signal.SIGTERM)
            gone = eventually(lambda: alert("ServerGone"), "no alert about a server that has ended")
            assert gone["severity"] == "page" and f"at {places[1]} does not answer" in gone["summary"]
            assert alert("ServerGone", places[0]) is None
    log = read_log(kept_store, SERVICES["2"], LATER, LATER + timedelta(days=1))
    assert Counter(log.driver_id) == {DRIVER: answered, 1002: 1, 1003: 1}

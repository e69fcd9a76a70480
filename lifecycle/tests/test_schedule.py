"""`lifecycle schedule`: Kubeflow's real client, and a small server that keeps what it is sent."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import kfp_server_api
import pytest
from click.testing import CliRunner
from kfp import Client

from lifecycle.cli import main
from lifecycle.settings import FILE, Settings

pytestmark = pytest.mark.unit
PROJECT = """
feature_service = "known"
labels = "data/labels.parquet"
label = "empty"
reference = "good_weeks"
model = "station_empty"
[training]
hyperparameters = {C = 0.5, weights = "balanced"}
[retraining]
cron = "0 0 3 * * *"
"""


class Server(ThreadingHTTPServer):
    """The part of Kubeflow Pipelines' API that a schedule takes."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.address = f"http://127.0.0.1:{self.server_port}"
        self.multi_user = False
        self.refusal: tuple[int, dict] | None = None
        self.experiments: list[dict] = []
        self.there: list[dict] = []
        self.asked: list[str] = []


class Answers(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_: object) -> None:
        pass

    def answer(self, body: dict, status: int = 200) -> None:
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def do_GET(self) -> None:
        server, (_, _, path, query, _) = self.server, urlsplit(self.path)
        server.asked.append(f"GET {path}")
        wanted = parse_qs(query)
        named = {
            one["stringValue"] for text in wanted.get("filter", []) for one in json.loads(text)["predicates"]
        }
        if path.endswith("/healthz"):
            return self.answer({"multi_user": server.multi_user})
        if path.endswith("/experiments"):
            assert wanted.get("namespace", [""]) == ["ml-lifecycle" if server.multi_user else ""]
            return self.answer(
                {"experiments": [one for one in server.experiments if one["display_name"] in named]}
            )
        assert path.endswith("/recurringruns") and wanted["experiment_id"] == ["weekly-id"]
        return self.answer({"recurringRuns": [one for one in server.there if one["display_name"] in named]})

    def do_POST(self) -> None:
        server = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server.asked.append(f"POST {self.path}")
        if server.refusal:
            status, refusal = server.refusal
            return self.answer(refusal, status)
        if self.path.endswith("/experiments"):
            server.experiments.append({**body, "experiment_id": "weekly-id"})
            return self.answer(server.experiments[-1])
        status = "ENABLED" if body["mode"] == "ENABLE" else "DISABLED"
        number = str(sum(line.endswith("POST /apis/v2beta1/recurringruns") for line in server.asked))
        server.there.append({**body, "recurring_run_id": number, "status": status})
        return self.answer(server.there[-1])

    def do_DELETE(self) -> None:
        self.server.asked.append(f"DELETE {self.path}")
        self.server.there = [
            one for one in self.server.there if not self.path.endswith(one["recurring_run_id"])
        ]
        self.answer({})


@pytest.fixture
def server(monkeypatch, tmp_path):
    monkeypatch.setattr(Client, "_LOCAL_KFP_CONTEXT", str(tmp_path / "context.json"))
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def schedule(server, tmp_path):
    """Call the command on the project with these changes of its text; gives what it printed."""

    def call(*options: str, code: int = 0, **changes: str) -> str:
        text = PROJECT
        for old, new in changes.values():
            text = text.replace(old, new)
        (tmp_path / FILE).write_text(text)
        arguments = ["--settings", str(tmp_path / FILE), "schedule", "--host", server.address, *options]
        done = CliRunner().invoke(main, arguments)
        assert done.exit_code == code, done.output
        # When it makes an experiment, Kubeflow's client prints a link to it.
        return done.output if "--print" in options else done.output.splitlines()[-1] + "\n"

    return call


def test_creates_what_the_api_takes_once_and_says_what_is_there(server, schedule):
    printed = json.loads(schedule("--print"))
    assert server.asked == []
    assert schedule() == "retrain-station-empty is there now: '0 0 3 * * *' in UTC.\n"
    [created] = server.there
    sent = {name: value for name, value in created.items() if name not in ("recurring_run_id", "status")}
    assert sent == {**printed, "experiment_id": "weekly-id"}
    assert server.experiments[0]["display_name"] == "retraining"
    assert "plugins_input" not in sent, "with it, the server keeps no pipeline, and no run ever starts"
    assert kfp_server_api.V2beta1RecurringRun.openapi_types.keys() >= sent.keys()
    assert schedule() == "retrain-station-empty is there already, unchanged: '0 0 3 * * *' in UTC.\n"
    assert server.there == [created]


def test_the_step_reads_no_file_of_the_volume_but_data_and_definitions(schedule):
    run = json.loads(schedule("--print"))
    settings = Settings.from_json(run["runtime_config"]["parameters"]["settings"])
    assert settings.path(settings.labels).as_posix() == "/ml-lifecycle/data/labels.parquet"
    assert settings.path(settings.feature_repo).as_posix() == "/ml-lifecycle/feature_repo"
    assert settings.path(settings.retraining.outputs).as_posix() == "/ml-lifecycle/retraining"
    assert settings.pipeline == "", "that of the package"
    assert settings.cluster.pipelines_uri == "", "that of the machine which called the command"
    assert settings.training.hyperparameters == {"C": 0.5, "weights": "balanced"}
    assert (settings.model, settings.reference) == ("station_empty", "good_weeks")
    platform = run["pipeline_spec"]["platform_spec"]["platforms"]["kubernetes"]
    assert platform["pipelineConfig"] == {"activeDeadlineSeconds": 7200}


def test_another_rule_takes_the_place_of_the_old_one_which_goes_last(server, schedule):
    schedule()
    other = {"rule": ('"0 0 3 * * *"', '"0 0 4 * * *"')}
    said = schedule(**other)
    assert said == "retrain-station-empty takes the place of one with other settings: '0 0 4 * * *' in UTC.\n"
    [left] = server.there
    assert left["recurring_run_id"] == "2" and left["trigger"]["cron_schedule"] == {"cron": "0 0 4 * * *"}
    changes = [line for line in server.asked if not line.startswith("GET")]
    assert changes[-2:] == ["POST /apis/v2beta1/recurringruns", "DELETE /apis/v2beta1/recurringruns/1"]


def test_what_was_switched_off_stays_off(server, schedule):
    schedule()
    server.there[0]["status"] = "DISABLED"
    assert schedule().endswith("unchanged: '0 0 3 * * *' in UTC. It is switched off.\n")
    assert schedule(share=('"good_weeks"', '"better_weeks"')).endswith("It is switched off.\n")
    assert [one["status"] for one in server.there] == ["DISABLED"]


def test_where_each_team_has_a_namespace_its_own_is_asked_for(server, schedule):
    server.multi_user = True
    schedule()
    assert server.experiments[0]["namespace"] == "ml-lifecycle"


def test_the_servers_own_words_reach_the_user(server, schedule):
    server.refusal = 400, {"error": "x", "code": 3, "message": "Invalid input error: the cron is odd"}
    said = schedule(code=1)
    assert said == "Error: Kubeflow Pipelines refused: Invalid input error: the cron is odd\n"
    server.refusal = 403, {}
    assert schedule(code=1) == "Error: Kubeflow Pipelines refused: 403 Forbidden\n"


def test_a_server_that_is_not_there_and_a_path_outside_the_project_get_a_sentence(schedule):
    said = schedule("--host", "http://127.0.0.1:9", code=1)
    assert said.splitlines()[-1].startswith(
        "Error: Kubeflow Pipelines does not answer at http://127.0.0.1:9: "
    )
    said = schedule("--print", code=1, labels=('"data/labels.parquet"', '"/data/labels.parquet"'))
    assert (
        said == "Error: /data/labels.parquet is no path inside the project, so the volume does not hold it.\n"
    )


@pytest.mark.parametrize(
    "text, said",
    [
        ('{"model": "m"', "the settings are no JSON: "),
        ('{"modle": "m"}', "the settings: modle is no setting."),
        ('{"folder": "/"}', "the settings: folder is no setting."),
        ('{"retraining": {"cron": "0 6 * * 1"}}', "wants six fields in UTC"),
    ],
)
def test_settings_as_text_are_checked_like_a_file(text, said):
    done = CliRunner().invoke(main, ["--settings", text, "retrain"])
    assert done.exit_code == 1 and said in done.output

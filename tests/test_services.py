"""Servers of the course start when they answer, say why they do not, and never outlive their owner."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from types import SimpleNamespace

import pytest
import requests
from kserve import Model

from helpers.services import HOST, Deployed, InThread, Service
from helpers.workspace import WorkshopError

pytestmark = pytest.mark.system
SERVER = [sys.executable, "-m", "http.server", "--bind", HOST, "{port}"]


def answers(url: str) -> bool:
    try:
        return urllib.request.urlopen(url, timeout=2).status == 200
    except OSError:
        return False


def test_a_proxy_in_the_environment_is_not_asked_for_a_server_of_the_course(tmp_path):
    """In a new process, as of one who has a company's proxy and no list of exceptions."""
    code = "import sys, pathlib, requests; from helpers.services import Service\n"
    code += (
        "with Service('files', sys.argv[2:], health='/', log=pathlib.Path(sys.argv[1]), timeout=20) as it:"
    )
    code += " print(requests.get(it.url).status_code)"
    ours = {name: value for name, value in os.environ.items() if name.lower() != "no_proxy"}
    ours |= {"PYTHONPATH": os.pathsep.join(sys.path)}
    for name in ("HTTP_PROXY", "http_proxy"):
        command = [sys.executable, "-c", code, tmp_path / "log", *SERVER]
        there = ours | {name: "http://127.0.0.1:9", "NO_PROXY": "example.org"}
        done = subprocess.run(command, env=there, capture_output=True, text=True)
        assert done.stdout == "200\n", done.stderr


def test_a_server_answers_within_its_block_and_is_gone_after_it_also_when_the_block_fails(tmp_path):
    with (
        pytest.raises(ZeroDivisionError),
        Service("one", SERVER, health="/", log=tmp_path / "logs" / "1.log") as one,
        Service("two", SERVER, health="/", log=tmp_path / "2.log") as two,
    ):
        assert one.port != two.port and one.running and answers(one.url) and answers(two.url)
        two.stop()
        assert not two.running
        raise ZeroDivisionError
    assert not answers(one.url) and not answers(two.url)


def test_a_server_that_dies_or_never_answers_shows_the_end_of_its_log(tmp_path):
    program = [sys.executable, "-u", "-c", "print('opening the model'); raise SystemExit('no such model')"]
    with pytest.raises(
        WorkshopError, match=r"(?s)scorer ended with exit code 1.*opening the model.*no such model"
    ):
        Service("scorer", program, health="/", log=tmp_path / "log")
    with pytest.raises(WorkshopError, match=r"(?s)files did not answer on .*/no within 4 s.*404") as raised:
        Service("files", SERVER, health="/no", log=tmp_path / "log", timeout=4)
    assert not answers(str(raised.value).split(" did not answer on ")[1].split("/no ")[0])


def test_an_occupied_port_is_named_with_the_remedy(tmp_path):
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            WorkshopError, match=f"port {port} is taken by another program. Leave the port out"
        ):
            Service("files", SERVER, health="/", log=tmp_path / "log", port=port)


@pytest.mark.parametrize("kill", [os.kill, os.killpg], ids=["alone", "with its process group"])
def test_a_server_ends_when_its_owner_is_killed(tmp_path, kill):
    owner = "import sys, time; from helpers.services import Service; "
    owner += f"s = Service('files', {SERVER!r}, health='/', log=sys.argv[1]); "
    owner += "print(s.url, flush=True); time.sleep(600)"
    command = [sys.executable, "-c", owner, tmp_path / "log"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        url = process.stdout.readline().strip()
        assert answers(url)
        kill(process.pid, signal.SIGKILL)
    for _ in range(600):
        if not answers(url):
            return
        time.sleep(0.1)
    pytest.fail("the server outlived its owner")


class Echo(Model):
    def load(self):
        self.ready = True
        return self.ready

    def predict(self, payload, headers=None):
        return {"predictions": payload["instances"]}


def test_a_model_in_a_thread_answers_by_its_own_names_and_two_follow_one_another():
    model = Echo("echo")
    model.load()
    for _ in range(2):
        server = InThread(model)
        assert server.url.startswith(f"http://{HOST}:")
        url = f"{server.url}/v1/models/echo:predict"
        answers = [
            requests.post(url, json={"instances": [1]}, headers=headers, timeout=10)
            for headers in ({}, {"Host": "elsewhere.example"})
        ]
        assert [answer.status_code for answer in answers] == [200, 400]
        assert answers[0].json() == {"predictions": [1]}
        server.stop()
        server.stop()
        assert not server.running
        with pytest.raises(requests.ConnectionError):
            requests.get(server.url, timeout=2)


def test_an_inference_service_of_an_earlier_run_is_replaced(monkeypatch):
    cluster: dict = {}

    class Client:
        def __init__(self):
            self.api_instance = self
            self.core_api = SimpleNamespace(api_client=self)

        def create(self, service, namespace):
            if cluster:
                raise RuntimeError("Exception when calling CustomObjectsApi: (409)\nReason: Conflict")
            cluster.update(spec=service.spec)

        def replace_namespaced_custom_object(self, group, version, namespace, plural, name, service):
            assert service.metadata == {"name": "churn", "resourceVersion": "7"}
            cluster.update(spec=service.spec)

        def get(self, name, namespace):
            return {"metadata": {"resourceVersion": "7"}}

        def is_isvc_ready(self, name, namespace):
            return bool(cluster)

        def delete(self, name, namespace):
            cluster.clear()

    def ready(kind, name, namespace, api, **_):  # lifecycle/tests/test_waiting.py tries the real one
        assert cluster and (kind, name, namespace) == ("InferenceService", "churn", "here")
        return SimpleNamespace(object={"status": {"address": {"url": "http://churn"}}})

    monkeypatch.setattr("kserve.KServeClient", Client)
    monkeypatch.setattr("lifecycle.cluster.waiting.for_object", ready)
    service = {"apiVersion": "serving.kserve.io/v1beta1", "kind": "InferenceService"}
    for minimum in (1, 2):
        spec = {"predictor": {"minReplicas": minimum}}
        deployed = Deployed(service | {"metadata": {"name": "churn"}, "spec": spec}, "here")
        assert cluster["spec"] == spec and deployed.url == "http://churn" and deployed.running
    deployed.stop()
    assert not deployed.running and not cluster

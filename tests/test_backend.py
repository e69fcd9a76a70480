"""BACKEND=kubernetes as far as it goes without a cluster: what the official clients send, to a server on loopback that writes it down.

The server is no cluster: it accepts everything, and answers as if the work had been done. So this shows what is asked for, not that a cluster does it.
"""

import json
import os
import subprocess
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import yaml

from helpers.workspace import REPOSITORY, WorkshopError, Workspace, configure
from lifecycle import manifests
from lifecycle.cluster import NAMESPACE, VOLUME, backend

FILES = manifests.read(REPOSITORY / "cluster" / "manifests")
DONE = {"status": {"conditions": [{"type": "Succeeded", "status": "True"}]}}


class Recorder(ThreadingHTTPServer):
    """Stands where an API server would: keeps each request, and answers with what ``answers`` holds for the end of its path; else what is sent exists, and what is asked for does not."""

    def __init__(self, answers: dict[str, dict]):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers, self.sent = answers, []
        self.url = f"http://127.0.0.1:{self.server_port}"

    def posted(self, end: str) -> list[dict]:
        return [body for method, path, body in self.sent if method == "POST" and path.endswith(end)]


class _Handler(BaseHTTPRequestHandler):
    def _answer(self):
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length) or b"{}")
        path = self.path.partition("?")[0]
        self.server.sent.append((self.command, path, body))
        found = [
            answer for end, answer in self.server.answers.items() if f"{self.command} {path}".endswith(end)
        ]
        said = json.dumps(found[0] if found else body).encode()
        self.send_response(200 if found or self.command != "GET" else 404)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    do_GET = do_POST = do_DELETE = _answer

    def log_message(self, *_):
        pass


@contextmanager
def recorder(answers: dict[str, dict]):
    with Recorder(answers) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def ran(server: Recorder, tmp_path, program: str) -> str:
    """Run a program in a process of its own, as a pod's would be set up: the clients find the server by their own settings."""
    kubeconfig = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "clusters": [{"name": "here", "cluster": {"server": server.url}}],
        "users": [{"name": "nobody", "user": {}}],
        "contexts": [
            {"name": "here", "context": {"cluster": "here", "user": "nobody", "namespace": NAMESPACE}}
        ],
    }
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(kubeconfig))
    settings = {"BACKEND": "kubernetes", "KUBECONFIG": str(tmp_path / "kubeconfig"), "HOME": str(tmp_path)}
    settings |= {"KF_PIPELINES_ENDPOINT": server.url, "MLFLOW_TRACKING_URI": "http://mlflow:5000"}
    done = subprocess.run(
        [sys.executable, "-c", CELLS + program],
        env={**os.environ, **settings},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


# What each program begins with: the notebook's own cells, by id.
CELLS = f"""
import nbformat
from pathlib import Path
from types import SimpleNamespace
from helpers.workspace import Workspace
from lifecycle.cluster import NAMESPACE, VOLUME, backend

workspace = Workspace(Path(VOLUME))
def run(number, *ids):
    [path] = Path({str(REPOSITORY / "notebooks")!r}).glob(number + "_*.ipynb")
    cells = {{cell.id: cell.source for cell in nbformat.read(path, as_version=4).cells}}
    for identity in ids:
        exec(cells[identity], globals())
"""


def test_notebook_06_sends_the_compiled_file_and_its_arguments(tmp_path):
    program = f"""
from kfp import Client
from helpers.start import MODEL, REFERENCE
from lifecycle import pipeline
compiled = Path({str(REPOSITORY / "cluster" / "training_pipeline.yaml")!r})
contract = SimpleNamespace(feature_service="rates_and_rating")
choice = {{"C": 0.5, "degree": 2, "weights": "equal"}}
earlier, threshold = 0, 0.65
run("06", "n06-34", "n06-35")
"""
    answers = {
        "GET /apis/v2beta1/healthz": {"multi_user": False},
        "GET /apis/v2beta1/experiments": {"experiments": [{"experiment_id": "1", "display_name": "Default"}]},
        "POST /apis/v2beta1/runs": {"run_id": "r1", "experiment_id": "1"},
        "GET /apis/v2beta1/runs/r1": {"run_id": "r1", "state": "SUCCEEDED"},
    }
    with recorder(answers) as server:
        ran(server, tmp_path, program)
        [run] = server.posted("/runs")
    specification, platform = yaml.safe_load_all(
        (REPOSITORY / "cluster" / "training_pipeline.yaml").read_text()
    )
    assert run["pipeline_spec"] == {"pipeline_spec": specification, "platform_spec": platform}
    given = run["runtime_config"]["parameters"]
    inputs = specification["root"]["inputDefinitions"]["parameters"]
    assert set(given) == {name for name, kind in inputs.items() if "defaultValue" not in kind}
    assert given["feature_repo"] == f"{VOLUME}/feature_repo"
    assert given["labels"] == f"{VOLUME}/data/driver_labels.parquet"
    assert given["run_name"] == run["display_name"] == "pipeline 001"


def test_notebook_05_creates_the_committed_experiment_and_takes_its_best_trial(tmp_path):
    program = """
import yaml
from kubernetes import client as kubernetes_client
from kubernetes import config as kubernetes_config
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from lifecycle import katib
Code = lambda text, language: text
study = SimpleNamespace(best_params={})
contract = SimpleNamespace(feature_service="rates_and_rating", label="label")
run("05", "n05-01", "n05-32", "n05-76", "n05-88b")
print(best)
"""
    found = [
        {"name": "C", "value": "0.25"},
        {"name": "degree", "value": "2"},
        {"name": "weights", "value": "equal"},
    ]
    answer = {"status": {**DONE["status"], "currentOptimalTrial": {"parameterAssignments": found}}}
    with recorder({"/experiments/driver-sweep": answer}) as server:
        said = ran(server, tmp_path, program)
        [experiment] = server.posted(f"/namespaces/{NAMESPACE}/experiments")
    assert experiment == FILES["models/experiment.yaml"][0]
    assert said.splitlines()[-1] == str({"C": 0.25, "degree": 2, "weights": "equal"})


def test_notebook_07_creates_the_committed_service_with_the_course_s_clock_and_talks_to_its_address(tmp_path):
    program = """
from kserve import KServeClient, V1beta1InferenceService
from helpers import services
from helpers.data import NOW
from helpers.start import MODEL
from lifecycle.cluster import kubernetes_name
from lifecycle.inference_service import inference_service
run("07", "n07-42b")
print(server.url, server.running)
server.stop()
print(server.running)
"""
    ready = {"conditions": [{"type": "Ready", "status": "True"}], "address": {"url": "http://the-server"}}
    with recorder({"/inferenceservices/driver-conversion": {"status": ready}}) as server:
        said = ran(server, tmp_path, program)
        [service] = server.posted(f"/namespaces/{NAMESPACE}/inferenceservices")
        asked = [method for method, path, _ in server.sent if path.endswith("/driver-conversion")]
    [one] = service["spec"]["predictor"]["containers"]
    clock, one["args"] = one["args"][-2:], one["args"][:-2]
    assert clock[0] == "--now" and float(clock[1]) > 0
    assert service == FILES["models/inference_service.yaml"][0]
    assert said.splitlines()[-2:] == ["http://the-server True", "False"]
    assert asked[-1] == "DELETE"


def test_notebook_09_sends_the_committed_job_and_waits_for_its_end(tmp_path):
    program = """
import shutil
import yaml
from kubeflow.trainer import KubernetesBackendConfig, TrainerClient
from helpers.capture import captured_trainer
from lifecycle import distributed, shipped
Code = lambda text, language: text
contract = SimpleNamespace(feature_service="rates_and_rating", label="label")
shutil.rmtree = lambda *given, **named: None
Path.write_text = lambda self, text: None
run("09", "train-021", "train-064", "train-068b")
print(cluster.get_job(submitted).status)
"""
    [job] = FILES["models/train_job.yaml"]
    ended = {
        **job,
        "status": {
            "conditions": [
                {
                    "type": "Complete",
                    "status": "True",
                    "reason": "done",
                    "message": "",
                    "lastTransitionTime": "2025-03-01T00:00:00Z",
                }
            ]
        },
    }
    ended["metadata"] = {
        **job["metadata"],
        "namespace": NAMESPACE,
        "creationTimestamp": "2025-03-01T00:00:00Z",
    }
    container = {"name": "node", "image": "ml-lifecycle:1.0"}
    labels = {"trainer.kubeflow.org/trainjob-ancestor-step": "trainer"}
    jobs = {"metadata": {"labels": labels}, "spec": {"template": {"spec": {"containers": [container]}}}}
    runtime = {
        "apiVersion": "trainer.kubeflow.org/v1alpha1",
        "kind": "ClusterTrainingRuntime",
        "metadata": {"name": "torch-distributed", "labels": {"trainer.kubeflow.org/framework": "torch"}},
        "spec": {
            "mlPolicy": {"numNodes": 1, "torch": {}},
            "template": {"spec": {"replicatedJobs": [{"name": "node", "template": jobs}]}},
        },
    }
    answers = {
        "/configmaps/kubeflow-trainer-public": {"data": {"kubeflow_trainer_version": "v2.3.0"}},
        "GET /apis/trainer.kubeflow.org/v1alpha1/clustertrainingruntimes/torch-distributed": runtime,
        "/trainjobs/driver-training": ended,
        "/pods": {"kind": "PodList", "apiVersion": "v1", "items": []},
    }
    with recorder(answers) as server:
        said = ran(server, tmp_path, program)
        [sent] = server.posted(f"/namespaces/{NAMESPACE}/trainjobs")
    assert sent == job
    assert said.splitlines()[-1] == "Complete"


def test_a_failed_experiment_is_told_with_the_cluster_s_reason_and_a_slow_one_after_a_time():
    from lifecycle import katib

    class Api:
        def __init__(self, *conditions):
            self.conditions = conditions

        def get_namespaced_custom_object(self, *_):
            return {"status": {"conditions": list(self.conditions)}}

    failed = {"type": "Failed", "status": "True", "message": "too many failed trials"}
    with pytest.raises(RuntimeError, match="the Experiment sweep failed: too many failed trials"):
        katib.finished(Api(failed), "sweep", NAMESPACE)
    running = {"type": "Running", "status": "True"}
    with pytest.raises(TimeoutError, match="has not ended within 0 s"):
        katib.finished(Api(running, {**failed, "status": "False"}), "sweep", NAMESPACE, patience=0)


def test_without_the_setting_work_is_local_and_another_word_is_refused(monkeypatch):
    monkeypatch.delenv("BACKEND", raising=False)
    assert backend() == "local"
    monkeypatch.setenv("BACKEND", "")
    assert backend() == "local"
    monkeypatch.setenv("BACKEND", "kubernetes")
    assert backend() == "kubernetes"
    monkeypatch.setenv("BACKEND", "Kubernetes")
    with pytest.raises(ValueError, match="BACKEND is 'Kubernetes'"):
        backend()


def test_a_notebook_does_not_begin_where_steps_would_not_find_its_files(home, monkeypatch):
    monkeypatch.setenv("BACKEND", "k8s")
    with pytest.raises(WorkshopError, match="BACKEND is 'k8s'"):
        configure(home)
    monkeypatch.setenv("BACKEND", "kubernetes")
    with pytest.raises(WorkshopError, match=f"needs the home {VOLUME}"):
        configure(home)
    monkeypatch.setattr("helpers.workspace.VOLUME", str(home.home))
    for address in ("", "sqlite:///here.db"):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        with pytest.raises(WorkshopError, match="needs MLflow's server"):
            configure(home)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    configure(home)
    assert os.environ["MLFLOW_TRACKING_URI"] == Workspace(home.home).tracking_uri == "http://mlflow:5000"

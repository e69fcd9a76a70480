"""BACKEND=kubernetes without a cluster: what the notebooks' cells send, recorded by a server on loopback.

The server accepts everything and answers as if the work had been done. So this shows what a cluster would be
asked for, not that it does it.
"""

import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import yaml

from helpers.workspace import REPOSITORY, WorkshopError, Workspace, configure
from lifecycle import manifests
from lifecycle.cluster import NAMESPACE, VOLUME

pytestmark = pytest.mark.unit

CLUSTER = REPOSITORY / "cluster"
FILES = manifests.read(CLUSTER / "manifests")

# Cells of the notebooks, by id, in the order in which a reader runs them.
CELLS = f"""
import shutil
from pathlib import Path
from types import SimpleNamespace

import nbformat
import yaml
from kfp import Client
from kserve import KServeClient, V1beta1InferenceService
from kubeflow.trainer import KubernetesBackendConfig, TrainerClient
from kubernetes import client as kubernetes_client
from kubernetes import config as kubernetes_config
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from helpers import services
from helpers.capture import captured_trainer
from helpers.data import NOW
from helpers.start import MODEL, REFERENCE
from helpers.workspace import Workspace
from lifecycle import distributed, katib, pipeline, shipped
from lifecycle.cluster import NAMESPACE, VOLUME, backend, kubernetes_name
from lifecycle.inference_service import inference_service

Code = lambda text, language: text
workspace = Workspace(Path(VOLUME))
contract = SimpleNamespace(feature_service="rates_and_rating", label="label")
study = SimpleNamespace(best_params={{}})
compiled = Path({str(CLUSTER / "training_pipeline.yaml")!r})
choice = {{"C": 0.5, "degree": 2, "weights": "equal"}}
earlier, threshold = 0, 0.65

def run(number, *ids):
    [path] = Path({str(REPOSITORY / "notebooks")!r}).glob(number + "_*.ipynb")
    cells = {{cell.id: cell.source for cell in nbformat.read(path, as_version=4).cells}}
    for identity in ids:
        exec(cells[identity], globals())

run("05", "n05-01", "n05-32", "n05-76", "n05-88b")
run("06", "n06-34", "n06-35")
print(best)
run("07", "n07-42b")
print(server.url, server.running)
server.stop()
print(server.running)
run("09", "train-021", "train-064", "train-068b")
print(cluster.get_job(submitted).status)
"""


class Recorder(ThreadingHTTPServer):
    """Stands in for an API server: records each request, and answers by the end of method and path.

    Without an answer of ours, what is posted exists from then on, and what is read does not.
    """

    def __init__(self, answers: dict[str, dict]):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers, self.requests = answers, []
        self.url = f"http://127.0.0.1:{self.server_port}"

    def posted(self, end: str) -> dict:
        [body] = [body for call, body in self.requests if call.startswith("POST ") and call.endswith(end)]
        return body


class _Handler(BaseHTTPRequestHandler):
    def _answer(self):
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")
        call = f"{self.command} {self.path.partition('?')[0]}"
        self.server.requests.append((call, body))
        answers = [answer for end, answer in self.server.answers.items() if call.endswith(end)]
        text = json.dumps(answers[0] if answers else body).encode()
        self.send_response(200 if answers or self.command != "GET" else 404)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_POST = do_DELETE = _answer

    def log_message(self, *_):
        pass


@pytest.fixture
def cluster():
    with Recorder(answers()) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def answers() -> dict[str, dict]:
    """What the cluster would say of work that has been done."""
    best = {"C": "0.25", "degree": "2", "weights": "equal"}
    assigned = {"parameterAssignments": [{"name": name, "value": value} for name, value in best.items()]}
    succeeded = [{"type": "Succeeded", "status": "True"}]
    ready = {"conditions": [{"type": "Ready", "status": "True"}], "address": {"url": "http://the-server"}}
    [job] = FILES["models/train_job.yaml"]
    time = "2025-03-01T00:00:00Z"
    complete = {"type": "Complete", "status": "True", "reason": "done", "message": ""}
    job = {**job, "status": {"conditions": [{**complete, "lastTransitionTime": time}]}}
    job["metadata"] = {**job["metadata"], "namespace": NAMESPACE, "creationTimestamp": time}
    pod = {"spec": {"containers": [{"name": "node", "image": "ml-lifecycle:1.0"}]}}
    step = {"labels": {"trainer.kubeflow.org/trainjob-ancestor-step": "trainer"}}
    node = {"name": "node", "template": {"metadata": step, "spec": {"template": pod}}}
    framework = {"labels": {"trainer.kubeflow.org/framework": "torch"}, "name": "torch-distributed"}
    runtime = {"apiVersion": "trainer.kubeflow.org/v1alpha1", "kind": "ClusterTrainingRuntime"}
    runtime |= {"metadata": framework, "spec": {"mlPolicy": {"numNodes": 1, "torch": {}}}}
    runtime["spec"]["template"] = {"spec": {"replicatedJobs": [node]}}
    experiment = {"experiment_id": "1", "display_name": "Default"}
    return {
        "/experiments/driver-sweep": {"status": {"conditions": succeeded, "currentOptimalTrial": assigned}},
        "GET /apis/v2beta1/healthz": {"multi_user": False},
        "GET /apis/v2beta1/experiments": {"experiments": [experiment]},
        "POST /apis/v2beta1/runs": {"run_id": "r1", "experiment_id": "1"},
        "GET /apis/v2beta1/runs/r1": {"run_id": "r1", "state": "SUCCEEDED"},
        "/inferenceservices/driver-conversion": {"status": ready},
        "/configmaps/kubeflow-trainer-public": {"data": {"kubeflow_trainer_version": "v2.3.0"}},
        "/clustertrainingruntimes/torch-distributed": runtime,
        "/trainjobs/driver-training": job,
        "/pods": {"kind": "PodList", "apiVersion": "v1", "items": []},
    }


def test_the_notebooks_send_the_committed_manifests_and_use_what_the_cluster_answers(cluster, tmp_path):
    # In a process whose clients find the server by their own settings.
    kubeconfig = {"apiVersion": "v1", "kind": "Config", "current-context": "here"}
    kubeconfig["clusters"] = [{"name": "here", "cluster": {"server": cluster.url}}]
    kubeconfig["users"] = [{"name": "nobody", "user": {}}]
    context = {"cluster": "here", "user": "nobody", "namespace": NAMESPACE}
    kubeconfig["contexts"] = [{"name": "here", "context": context}]
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(kubeconfig))
    settings = {"BACKEND": "kubernetes", "KUBECONFIG": str(tmp_path / "kubeconfig"), "HOME": str(tmp_path)}
    settings |= {"KF_PIPELINES_ENDPOINT": cluster.url, "MLFLOW_TRACKING_URI": "http://mlflow:5000"}
    command, environment = [sys.executable, "-c", CELLS], {**os.environ, **settings}
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    chosen = {"C": 0.25, "degree": 2, "weights": "equal"}
    *_, best, served, stopped, job = done.stdout.splitlines()
    assert (best, served, stopped, job) == (str(chosen), "http://the-server True", "False", "Complete")

    assert cluster.posted("/experiments") == FILES["models/experiment.yaml"][0]
    assert cluster.posted("/trainjobs") == FILES["models/train_job.yaml"][0]
    service = cluster.posted("/inferenceservices")
    [container] = service["spec"]["predictor"]["containers"]
    clock, container["args"] = container["args"][-2:], container["args"][:-2]
    assert clock[0] == "--now" and float(clock[1]) > 0
    assert service == FILES["models/inference_service.yaml"][0]
    assert [call for call, _ in cluster.requests if call.endswith("/driver-conversion")][-1][:6] == "DELETE"

    run = cluster.posted("/runs")
    specification, platform = yaml.safe_load_all((CLUSTER / "training_pipeline.yaml").read_text())
    assert run["pipeline_spec"] == {"pipeline_spec": specification, "platform_spec": platform}
    given = run["runtime_config"]["parameters"]
    inputs = specification["root"]["inputDefinitions"]["parameters"]
    assert set(given) == {name for name, kind in inputs.items() if "defaultValue" not in kind}
    assert given["feature_repo"] == f"{VOLUME}/feature_repo"
    assert given["labels"] == f"{VOLUME}/data/driver_labels.parquet"
    assert given["run_name"] == run["display_name"] == "pipeline 001"


def test_a_notebook_does_not_begin_where_steps_would_not_find_its_files(home, monkeypatch):
    monkeypatch.setenv("BACKEND", "Kubernetes")
    with pytest.raises(WorkshopError, match="BACKEND is 'Kubernetes'"):
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

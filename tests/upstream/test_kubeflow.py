"""Traps in Kubeflow Pipelines, Kubeflow's SDK and KServe that this repository works around: docs/upstream.md.
A test passes while its trap exists."""

import builtins
import inspect
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

pytestmark = [pytest.mark.unit, pytest.mark.filterwarnings("ignore")]


@pytest.fixture
def number(tmp_path, monkeypatch):
    """A step for Kubeflow's local runner, in a folder of its own, with a Python whose path has no space."""
    from kfp import dsl, local

    @dsl.component(install_kfp_package=False, base_image="python:3.11")
    def number(x: float) -> float:
        return x

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(builtins, "print", print)  # put back, whatever the runner leaves behind
    (tmp_path / "plain").symlink_to(sys.prefix)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "plain" / "bin" / "python"))
    local.init(runner=local.SubprocessRunner(use_venv=False), pipeline_root="outputs", raise_on_error=True)
    return number


def test_the_local_runners_python_may_not_have_a_space_in_its_path(number, tmp_path, monkeypatch):
    (tmp_path / "an environment").symlink_to(sys.prefix)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "an environment" / "bin" / "python"))
    with pytest.raises(RuntimeError, match="FAILURE"):
        number(x=1.0)


def test_each_setting_of_a_step_reads_the_source_of_its_callers(number, monkeypatch):
    from kfp import dsl

    sources = []
    real = inspect.getframeinfo
    monkeypatch.setattr(
        inspect, "getframeinfo", lambda frame, lines=1: sources.append(lines) or real(frame, lines)
    )

    @dsl.pipeline
    def limited():
        number(x=2.0).set_memory_limit("1Gi")

    assert len(sources) > 5 and set(sources) == {1}


def test_a_gate_with_a_whole_number_is_never_open(number):
    from kfp import dsl

    @dsl.pipeline
    def gate():
        two = number(x=2.0)
        with dsl.If(two.output > 1):
            number(x=3.0)
        with dsl.If(two.output > 1.0):
            number(x=4.0)

    gate()
    assert {path.parent.name for path in Path("outputs").rglob("*.json")} == {"number", "number-3"}


def test_the_clients_of_pipelines_cannot_set_plugins_input():
    import kfp_server_api
    from kfp import Client
    from kubeflow.pipelines import PipelinesClient

    starts = [Client.create_run_from_pipeline_package, Client.run_pipeline, Client.create_recurring_run]
    for start in [*starts, PipelinesClient.run]:
        assert "plugins_input" not in inspect.signature(start).parameters
    assert "plugins_input" in kfp_server_api.V2beta1Run.openapi_types


def train(*given, **named):
    import os

    print("given", given, named, "variable", os.environ.get("SET_BY_THE_CALLER"))
    raise SystemExit(3)


def test_a_local_job_differs_from_one_on_a_cluster(tmp_path, monkeypatch):
    from kubeflow.trainer import CustomTrainer, LocalProcessBackendConfig, Runtime, RuntimeKind, TrainerClient
    from kubeflow.trainer.backends.localprocess.constants import local_runtimes
    from kubeflow.trainer.backends.localprocess.types import LocalRuntimeTrainer
    from kubeflow.trainer.types.types import TrainerType

    kind = TrainerType.CUSTOM_TRAINER  # with a runtime that installs nothing; the default installs PyTorch
    plain = LocalRuntimeTrainer(trainer_type=kind, framework="python", packages=[], image="local")
    local_runtimes.append(Runtime(name="plain", trainer=plain, kind=RuntimeKind.TRAINING_RUNTIME))
    (tmp_path / "plain").symlink_to(sys.prefix)  # its script quotes no path
    monkeypatch.setenv("PATH", str(tmp_path / "plain" / "bin"), prepend=os.pathsep)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("SET_BY_THE_CALLER", "yes")
    client, folders = TrainerClient(LocalProcessBackendConfig()), set()
    trainer = CustomTrainer(func=train, func_args={"rate": 1}, num_nodes=4)
    name = client.train(runtime="plain", trainer=trainer)
    while client.get_job(name).status not in ("Complete", "Failed"):
        folders.add(Path.cwd().name)
        time.sleep(0.001)
    local_runtimes.pop()
    log = "\n".join(client.get_job_logs(name))
    assert "given ({'rate': 1},) {}" in log
    assert "variable None" in log
    assert any(folder.startswith(name) for folder in folders), "the caller's own folder, meanwhile"
    assert client.get_job(name).num_nodes == 1 == log.count("given")
    assert list(tmp_path.glob(f"{name}*/bin")), "the environment of the failed job"


def test_the_sdk_lets_a_shell_read_functions_knows_no_whole_numbers_and_drops_unknown_fields(tmp_path):
    from kubeflow.optimizer import Search
    from kubeflow.optimizer.types.algorithm_types import ALGORITHM_REGISTRY
    from kubeflow.trainer.constants.constants import EXEC_FUNC_SCRIPT
    from kubeflow_katib_api import models

    script = EXEC_FUNC_SCRIPT.replace("__ENTRYPOINT__", "cat").format(func_code="$PRICE", func_file="f.py")
    options = {
        "cwd": tmp_path,
        "env": os.environ | {"PRICE": "expanded"},
        "capture_output": True,
        "text": True,
    }
    assert "expanded" in subprocess.run(["bash", "-c", script], **options).stdout
    kinds = {name for name in dir(Search) if not name.startswith("_")}
    assert kinds == {"choice", "loguniform", "uniform"} and set(ALGORITHM_REGISTRY) == {"grid", "random"}
    written = {"kind": "Experiment", "spec": {"maxTrials": 9, "parallelTrialCount": 2}}
    assert models.V1beta1Experiment.from_dict(written).to_dict()["spec"] == {"parallelTrialCount": 2}


def test_kserve_trusts_its_callers_too_much():
    from fastapi import FastAPI
    from kserve import Model, ModelRepository, ModelServer
    from kserve.protocol.dataplane import DataPlane
    from kserve.protocol.model_repository_extension import ModelRepositoryExtension
    from kserve.protocol.rest.server import RESTServer
    from starlette.testclient import TestClient

    class Echo(Model):
        def predict(self, payload, headers=None, response_headers=None):
            return {"predictions": [type(payload).__name__]}

    repository, model = ModelRepository(), Echo("echo")
    model.ready = True
    repository.update(model)
    server = RESTServer(FastAPI(), DataPlane(repository), ModelRepositoryExtension(repository), 8080)
    server._register_endpoints(server.config.app)
    server._add_exception_handlers(server.config.app)
    client = TestClient(server.config.app, raise_server_exceptions=False)
    json, body = "application/json", b'{"instances": [1]}'

    def post(path, kind, content):
        return client.post(f"/{path}", headers={"content-type": kind}, content=content)

    answers = [post("v1/models/echo:predict", kind, body).json() for kind in (json, f"{json}; charset=utf-8")]
    assert answers == [{"predictions": ["dict"]}, {"predictions": ["bytes"]}]
    assert post("v2/models/echo/infer", json, b'{"inputs": [{"name": NaN}]}').status_code == 500
    assert post("v2/repository/models/echo/unload", json, b"").status_code == 200
    assert post("v1/models/echo:predict", json, body).status_code == 404
    assert server.config.host == "0.0.0.0"
    assert "host" not in inspect.signature(ModelServer.__init__).parameters

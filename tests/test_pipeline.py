"""The compiled training pipeline: the committed file, a closed gate, broken data, and the local runner."""

import builtins
import logging
import re
import sys
from pathlib import Path

import mlflow
import pandas as pd
import pytest
import yaml
from conftest import save_reference
from google.protobuf import json_format
from kfp import compiler, dsl, local
from kfp.pipeline_spec import pipeline_spec_pb2
from pipeline_steps import in_process

from helpers.workspace import REPOSITORY
from lifecycle import pipeline
from workshop import commands

pytestmark = pytest.mark.unit
COMMITTED = REPOSITORY / "cluster" / commands.PIPELINE


def test_the_committed_file_is_what_the_code_compiles_to(tmp_path):
    compiled = tmp_path / "compiled.yaml"
    compiler.Compiler().compile(pipeline.training, str(compiled))
    first, committed = (
        re.sub(r"^sdkVersion: kfp-\S+$", "", path.read_text(), flags=re.M) for path in (compiled, COMMITTED)
    )
    assert committed == first, "run `make notebooks`"
    compiler.Compiler().compile(pipeline.training, str(tmp_path / "twice.yaml"))
    assert (tmp_path / "twice.yaml").read_bytes() == compiled.read_bytes()


def test_the_committed_file_is_a_valid_specification_with_all_that_a_cluster_needs():
    document, platform = yaml.safe_load_all(COMMITTED.read_text())
    json_format.ParseDict(document, pipeline_spec_pb2.PipelineSpec())  # refuses unknown fields
    executors = document["deploymentSpec"]["executors"]
    steps = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert set(steps) == set(executors)
    for name, step in steps.items():
        assert set(step) == {"configMapAsEnv", "secretAsEnv", "pvcMount"}, name
        assert executors[name]["container"]["resources"]["resourceMemoryLimit"] == "2Gi"


def test_steps_that_read_changing_data_register_or_close_are_never_answered_from_a_cache():
    document = next(yaml.safe_load_all(COMMITTED.read_text()))
    dags = [component["dag"] for component in document["components"].values() if "dag" in component]
    tasks = [task for dag in [document["root"]["dag"], *dags] for task in dag["tasks"].items()]
    never = {
        name
        for name, task in tasks
        if "cachingOptions" in task and not task["cachingOptions"].get("enableCache")
    }
    assert never == {"retrieve-features", "compare-with-champion", "register-model", "close-run"}


@pytest.fixture
def run(applied, store, tmp_path):
    """Run the committed file; gives the log, the parent run's status, and the steps' by name."""
    save_reference(store, applied)

    def go(name, labels, threshold, reference="driver_reference"):
        runner = local.SubprocessRunner(use_venv=False)
        local.init(runner, pipeline_root=str(tmp_path / "out"), raise_on_error=False)
        data = {"feature_repo": str(applied.feature_repo), "labels": str(labels), "label": "label"}
        data |= {"feature_service": "rates", "reference": reference}
        model = {"model_name": "driver_conversion", "C": 1.0, "degree": 1, "weights": "equal"}
        run = {"experiment": "training_pipeline", "run_name": name, "threshold": threshold}
        log = tmp_path / "logs" / f"{name}.log"
        with in_process():
            pipeline.run_file(COMMITTED, data | model | run, log)
        named = {"experiment_names": ["training_pipeline"], "output_format": "list"}
        (parent,) = mlflow.search_runs(filter_string=f"attributes.run_name = '{name}'", **named)
        nested = f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'"
        steps = mlflow.search_runs(filter_string=nested, order_by=["attributes.start_time"], **named)
        found = {step.info.run_name: step.info.status for step in steps}
        return log.read_text(), parent.info.status, found

    return go


def test_a_closed_gate_registers_nothing_and_is_a_success(run, applied):
    _, parent, steps = run("closed", applied.data / "driver_labels.parquet", 0.95)
    assert parent == "FINISHED"
    assert list(steps) == ["retrieve", "validate", "train", "evaluate"]
    assert mlflow.MlflowClient().search_model_versions("name = 'driver_conversion'") == []


def test_broken_labels_stop_at_validation_and_the_parent_run_fails(run, applied, tmp_path):
    broken = tmp_path / "broken labels.parquet"
    pd.read_parquet(applied.data / "driver_labels.parquet").replace({"label": {1: 7}}).to_parquet(broken)
    log, parent, steps = run("broken", broken, 0.65)
    assert steps == {"retrieve": "FINISHED", "validate": "FAILED"} and parent == "FAILED"
    assert "the training data breaks its expectations" in log


def test_without_a_stored_suite_validation_fails_and_says_what_to_do(run, applied):
    log, parent, steps = run("no suite", applied.data / "driver_labels.parquet", 0.65, "nobody_saved_it")
    assert steps == {"retrieve": "FINISHED", "validate": "FAILED"} and parent == "FAILED"
    assert "has no saved dataset 'nobody_saved_it', so there is nothing to validate by" in log


def test_the_runner_finds_python_in_a_path_with_a_space_and_leaves_print_alone(tmp_path, monkeypatch, capsys):
    linked = tmp_path / "an environment"
    linked.symlink_to(Path(sys.prefix))
    monkeypatch.setattr(sys, "executable", str(linked / "bin" / "python"))
    runner = local.SubprocessRunner(use_venv=False)
    local.init(runner, pipeline_root=str(tmp_path / "out"), raise_on_error=True)

    @dsl.component(base_image="python", install_kfp_package=False)
    def double(number: int) -> int:
        return 2 * number

    own_print = builtins.print
    with pipeline.local_run(tmp_path / "logs" / "log", show_steps=True):
        task = double(number=21)
    assert task.output == 42
    assert capsys.readouterr().out == "double: success\n", "a line per step, and nothing else"
    assert "Executing task" in (tmp_path / "logs" / "log").read_text()
    assert builtins.print is own_print and sys.executable == str(linked / "bin" / "python")


def test_the_runner_leaves_no_handler_that_writes_to_a_closed_log(tmp_path):
    """Kubeflow's threads put back the root logger's handlers in any order."""
    root = logging.getLogger()
    own = root.handlers[:], root.level
    with pipeline.local_run(tmp_path / "logs" / "log"):
        root.handlers[:] = [logging.StreamHandler(sys.stdout)]
        root.setLevel(logging.INFO)
    assert (root.handlers, root.level) == own

"""The training pipeline: its compiled file, and the real one run with a closed gate and with broken data."""

import builtins
import logging
import re
import sys
from pathlib import Path

import mlflow
import pandas as pd
import pytest
from conftest import save_reference
from feast import FeatureStore
from google.protobuf import json_format
from kfp import compiler, components, dsl, local
from kfp.pipeline_spec import pipeline_spec_pb2

from helpers.workspace import REPOSITORY, configure
from lifecycle import pipeline
from workshop import commands

COMMITTED = REPOSITORY / "cluster" / commands.PIPELINE


def compiled(folder):
    path = folder / "compiled.yaml"
    compiler.Compiler().compile(pipeline.training, str(path))
    return path


def without_sdk_version(path):
    return re.sub(r"^sdkVersion: kfp-\S+$", "", path.read_text(), flags=re.M)


def test_the_compiled_file_is_the_same_each_time(tmp_path):
    first = compiled(tmp_path).read_bytes()
    assert compiled(tmp_path).read_bytes() == first


def test_the_committed_file_is_what_the_code_compiles_to(tmp_path):
    assert without_sdk_version(COMMITTED) == without_sdk_version(compiled(tmp_path)), "run `make notebooks`"


def test_the_committed_file_is_a_valid_specification_whose_dependencies_exist():
    import yaml

    document, platform = yaml.safe_load_all(COMMITTED.read_text())
    specification = json_format.ParseDict(
        document, pipeline_spec_pb2.PipelineSpec()
    )  # refuses unknown fields
    assert specification.pipeline_info.name == "training-pipeline"
    for name, component in document["components"].items():
        tasks = component.get("dag", {}).get("tasks", {})
        for task in tasks.values():
            assert set(task.get("dependentTasks", [])) <= set(tasks), name
            assert task["componentRef"]["name"] in document["components"]
    steps = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert set(steps) == set(document["deploymentSpec"]["executors"])
    for name, step in steps.items():
        assert set(step) == {"configMapAsEnv", "secretAsEnv", "pvcMount"}, name
        assert (
            document["deploymentSpec"]["executors"][name]["container"]["resources"]["resourceMemoryLimit"]
            == "2Gi"
        )


def test_steps_that_read_changing_data_register_or_close_are_never_answered_from_a_cache():
    import yaml

    document = next(yaml.safe_load_all(COMMITTED.read_text()))
    dags = [component["dag"] for component in document["components"].values() if "dag" in component]
    tasks = [task for dag in [document["root"]["dag"], *dags] for task in dag["tasks"].items()]
    never = {
        name
        for name, task in tasks
        if "cachingOptions" in task and not task["cachingOptions"].get("enableCache")
    }
    assert {"retrieve-features", "compare-with-champion", "register-model", "close-run"} <= never
    assert not {"validate-features", "train-model", "evaluate-model"} & never


@pytest.fixture(scope="module")
def run(applied):
    """Runs the committed file and gives the steps' status and the parent's, both from MLflow."""
    from_file = components.load_component_from_file(str(COMMITTED))
    configure(applied)
    save_reference(FeatureStore(repo_path=str(applied.feature_repo)), applied)

    def go(name, labels, threshold, reference="driver_reference"):
        configure(applied)
        outputs = str(applied.path / "out")
        local.init(local.SubprocessRunner(use_venv=False), pipeline_root=outputs, raise_on_error=True)
        arguments = {
            "feature_repo": str(applied.feature_repo),
            "labels": str(labels),
            "feature_service": "rates",
        }
        arguments |= {"label": "label", "reference": reference, "experiment": "training_pipeline"}
        arguments |= {
            "run_name": name,
            "model_name": "driver_conversion",
            "C": 1.0,
            "degree": 1,
            "weights": "equal",
        }
        failure = None
        log = applied.path / "logs" / f"{name}.log"
        try:
            with pipeline.local_run(log):
                from_file(**arguments, threshold=threshold)
        except RuntimeError as error:
            failure = str(error)
        named = {"experiment_names": ["training_pipeline"], "output_format": "list"}
        (parent,) = mlflow.search_runs(filter_string=f"attributes.run_name = '{name}'", **named)
        nested = f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'"
        steps = mlflow.search_runs(filter_string=nested, order_by=["attributes.start_time"], **named)
        return failure, parent.info.status, {step.info.run_name: step.info.status for step in steps}

    return go


def test_a_closed_gate_registers_nothing_and_is_a_success(run, applied):
    failure, parent, steps = run("closed", applied.data / "driver_labels.parquet", 0.95)
    assert failure is None and parent == "FINISHED"
    assert list(steps) == ["retrieve", "validate", "train", "evaluate"]
    assert mlflow.MlflowClient(applied.tracking_uri).search_model_versions("name = 'driver_conversion'") == []


def test_broken_labels_stop_at_validation_and_the_parent_run_fails(run, applied, tmp_path):
    broken = tmp_path / "broken labels.parquet"
    pd.read_parquet(applied.data / "driver_labels.parquet").replace({"label": {1: 7}}).to_parquet(broken)
    failure, parent, steps = run("broken", broken, 0.65)
    assert "validate-features" in failure and parent == "FAILED"
    assert steps == {"retrieve": "FINISHED", "validate": "FAILED"}
    assert "the training data breaks its expectations" in (applied.path / "logs" / "broken.log").read_text()


def test_without_a_stored_suite_validation_fails_and_says_what_to_do(run, applied):
    failure, parent, steps = run(
        "no suite", applied.data / "driver_labels.parquet", 0.65, reference="nobody_saved_it"
    )
    assert "validate-features" in failure and parent == "FAILED"
    assert steps == {"retrieve": "FINISHED", "validate": "FAILED"}
    said = (applied.path / "logs" / "no suite.log").read_text()
    assert (
        "the feature registry has no saved dataset 'nobody_saved_it', so there is nothing to validate by"
        in said
    )


def test_the_runner_finds_python_in_a_path_with_a_space_and_leaves_print_alone(tmp_path, monkeypatch, capsys):
    linked = tmp_path / "an environment"
    linked.symlink_to(Path(sys.prefix))
    monkeypatch.setattr(sys, "executable", str(linked / "bin" / "python"))
    local.init(
        local.SubprocessRunner(use_venv=False), pipeline_root=str(tmp_path / "out"), raise_on_error=True
    )

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
    """Kubeflow's threads put back the root logger's handlers in any order: what one leaves behind, the next run of this kernel would find in its log."""
    root = logging.getLogger()
    own = root.handlers[:], root.level
    with pipeline.local_run(tmp_path / "logs" / "log"):
        root.handlers[:] = [logging.StreamHandler(sys.stdout)]
        root.setLevel(logging.INFO)
    assert (root.handlers, root.level) == own

"""The compiled training pipeline: the committed file, a closed gate, broken data, and the local runner."""

import builtins
import json
import logging
import re
import subprocess
import sys
import uuid
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import mlflow
import pandas as pd
import psutil
import pytest
import yaml
from google.protobuf import json_format
from kfp import compiler, dsl, local
from kfp.local import task_dispatcher
from kfp.pipeline_spec import pipeline_spec_pb2
from pipeline_steps import in_process
from served import eventually

from conftest import save_reference
from helpers.workspace import REPOSITORY
from lifecycle.features.contract import FeatureContract
from lifecycle.features.labels import training_table
from lifecycle.models import versions
from lifecycle.models.model import new_model
from lifecycle.models.recipe import Recipe
from lifecycle.settings import Cluster, Settings
from lifecycle.training import local_runner, outcome, pipeline
from workshop import commands

pytestmark = pytest.mark.unit
COMMITTED = REPOSITORY / "cluster" / commands.PIPELINE


def test_the_committed_file_is_what_the_code_compiles_to(tmp_path):
    compiled = tmp_path / "compiled.yaml"
    compiler.Compiler().compile(pipeline.training_pipeline(Cluster()), str(compiled))
    first, committed = (
        re.sub(r"^sdkVersion: kfp-\S+$", "", path.read_text(), flags=re.M) for path in (compiled, COMMITTED)
    )
    assert committed == first, "run `make notebooks`"
    compiler.Compiler().compile(pipeline.training_pipeline(Cluster()), str(tmp_path / "twice.yaml"))
    assert (tmp_path / "twice.yaml").read_bytes() == compiled.read_bytes()


def test_the_committed_file_is_a_valid_specification_with_all_that_a_cluster_needs():
    document, platform = yaml.safe_load_all(COMMITTED.read_text())
    json_format.ParseDict(document, pipeline_spec_pb2.PipelineSpec())  # refuses unknown fields
    executors = document["deploymentSpec"]["executors"]
    steps = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert set(steps) == set(executors)
    for name, step in steps.items():
        parts = {"configMapAsEnv", "secretAsEnv", "pvcMount", "securityContext", "podMetadata"}
        assert set(step) == parts, name
        assert step["securityContext"] == {"runAsUser": "10001", "runAsGroup": "10001", "runAsNonRoot": True}
        resources = executors[name]["container"]["resources"]
        assert (resources["resourceMemoryLimit"], resources["resourceMemoryRequest"]) == ("2Gi", "1Gi")


def test_the_file_passes_the_runs_id_as_kubeflow_fills_it_in_and_limits_its_time(tmp_path):
    document, _ = yaml.safe_load_all(COMMITTED.read_text())
    inner = document["components"]["comp-exit-handler-1"]["dag"]["tasks"]["retrieve-features"]
    for task in (document["root"]["dag"]["tasks"]["close-run"], inner):
        # Kubeflow's driver replaces a constant that is the placeholder and nothing else.
        given = task["inputs"]["parameters"]["pipeline_run"]["runtimeValue"]["constant"]
        assert given == dsl.PIPELINE_JOB_ID_PLACEHOLDER
    short = tmp_path / "short.yaml"
    compiler.Compiler().compile(pipeline.training_pipeline(Cluster(run_seconds=600)), str(short))
    _, platform = yaml.safe_load_all(short.read_text())
    assert platform["platforms"]["kubernetes"]["pipelineConfig"] == {"activeDeadlineSeconds": 600}


def test_each_setting_of_a_training_reaches_the_pipeline():
    settings = Settings(training={"confidence": 0.8, "fewest": 7, "held_out": 0.1, "metric": "accuracy"})
    given = pipeline.arguments(settings, "a run")
    document = next(yaml.safe_load_all(COMMITTED.read_text()))
    assert {*given, "champion"} == set(document["root"]["inputDefinitions"]["parameters"])
    assert set(type(settings.training).model_fields) <= set(given)
    assert [given[name] for name in ("confidence", "fewest", "held_out", "metric")] == [
        0.8,
        7,
        0.1,
        "accuracy",
    ]


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
        model = {"model_name": "driver_conversion", "hyperparameters": '{"C": 1.0, "degree": 1}'}
        run = {"experiment": "training_pipeline", "run_name": name, "threshold": threshold}
        log = tmp_path / "logs" / f"{name}.log"
        with in_process():
            pipeline.run_file(COMMITTED, data | model | run, log)
        named = {"experiment_names": ["training_pipeline"], "output_format": "list"}
        newest = mlflow.search_runs(order_by=["attributes.start_time DESC"], **named)
        parent = next(r for r in newest if r.info.run_name == name)
        nested = f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'"
        steps = mlflow.search_runs(filter_string=nested, order_by=["attributes.start_time"], **named)
        found = {step.info.run_name: step.info.status for step in steps}
        return log.read_text(), parent.info.status, found

    return go


def test_a_closed_gate_registers_nothing_and_is_a_success(run, applied):
    _, parent, steps = run("closed", applied.data / "driver_labels.parquet", 0.95)
    assert parent == "FINISHED"
    [parent] = mlflow.search_runs(
        experiment_names=["training_pipeline"],
        filter_string="attributes.run_name = 'closed'",
        output_format="list",
    )
    record = outcome.read_record(parent.info.run_id)
    assert record.gate == "good-enough" and record.status == "FINISHED" and record.version == ""
    assert (
        record.reason == f"the challenger's AUC is {record.score:.3f}, below 0.95"
        and record.metric == "roc_auc"
    )
    labels = pd.read_parquet(applied.data / "driver_labels.parquet")
    assert record.rows == len(labels) - max(record.dropped.values()) > 1000, "one column lacks them all"
    assert list(steps) == ["retrieve", "validate", "train", "evaluate"]
    assert mlflow.MlflowClient().search_model_versions("name = 'driver_conversion'") == []


def test_broken_features_stop_at_validation_and_the_parent_run_fails(run, applied, tmp_path):
    broken = tmp_path / "broken labels.parquet"
    labels = pd.read_parquet(applied.data / "driver_labels.parquet")
    labels.assign(driver_id=labels.driver_id + 5000).to_parquet(broken)  # nobody's features
    log, parent, steps = run("broken", broken, 0.65)
    assert steps == {"retrieve": "FINISHED", "validate": "FAILED"} and parent == "FAILED"
    assert "the training data breaks its expectations" in log


def test_a_run_without_a_noted_decision_is_closed_as_failed_whatever_its_name(run, applied, monkeypatch):
    """The runner may call the whole a success: the record has neither a version nor a closed gate."""
    monkeypatch.setattr(outcome, "add_to_record", lambda run_id, **facts: None)
    _, parent, steps = run("Tom's first run", applied.data / "driver_labels.parquet", 0.6)
    assert steps["register"] == "FINISHED" and parent == "FAILED"
    mlflow.MlflowClient().delete_registered_model("driver_conversion")


def test_without_a_stored_suite_validation_fails_and_says_what_to_do(run, applied):
    log, parent, steps = run("no suite", applied.data / "driver_labels.parquet", 0.65, "nobody_saved_it")
    assert steps == {"retrieve": "FINISHED", "validate": "FAILED"} and parent == "FAILED"
    assert "has no saved dataset 'nobody_saved_it', so there is nothing to validate by" in log


def test_validation_says_nothing_that_is_no_warning(applied, store, tmp_path, caplog):
    save_reference(store, applied)
    contract = FeatureContract.from_feature_service(store, "rates", "label")
    labels = pd.read_parquet(applied.data / "driver_labels.parquet").head(2000)
    training_table(store, labels, contract, "binary")[0].to_parquet(tmp_path / "table")
    table = SimpleNamespace(path=tmp_path / "table", metadata={"contract": contract.to_json()})
    where = {"experiment": "quiet", "feature_repo": str(applied.feature_repo)}
    where |= {"reference": "driver_reference", "report": SimpleNamespace(path=str(tmp_path / "report"))}
    parent = outcome.open_parent("quiet", "1")
    with caplog.at_level(logging.INFO):  # the level of Kubeflow's executor
        assert pipeline.validate_features.python_func(table, parent, **where)
    of_gx = {found.name for found in caplog.records if found.name.startswith("great_expectations")}
    assert of_gx <= {"great_expectations.data_context.types.base"}, "that one sets its own level"


def test_a_champions_feature_is_not_taken_for_one_of_the_same_name_in_another_view(tmp_path, monkeypatch):
    ours = FeatureContract("p", "s", ("drivers:rating",), ("id",), (), "y", {"drivers": "0"})
    rows = pd.DataFrame({"rating": range(8), "y": [0, 1] * 4, "id": range(8)}).astype({"rating": "float64"})
    rows.assign(event_timestamp=pd.date_range("2025", periods=8, tz="UTC")).to_parquet(tmp_path / "table")
    fitted = new_model().fit(rows[["rating"]], rows.y)
    theirs = replace(ours, feature_refs=("riders:rating",))
    monkeypatch.setattr(versions, "version_by_number", lambda *_: None)
    monkeypatch.setattr(versions, "load_version", lambda *_, **__: (fitted, theirs))
    table = SimpleNamespace(path=tmp_path / "table", metadata={"contract": ours.to_json(), "held_out": 0.25})
    model = SimpleNamespace(path=tmp_path / "model", metadata={"recipe": json.dumps(Recipe().to_dict())})
    step = pipeline.compare_with_champion.python_func
    with pytest.raises(ValueError, match="the champion reads riders:rating, which 's' does not hold"):
        step(table, model, parent_run="", experiment="", model_name="m", champion="1")


@pytest.mark.parametrize(
    "facts, state, ended",
    [
        ({"version": "3"}, "COMPLETE", "FINISHED"),  # Kubeflow's backend, both gates open
        ({"gate": "better"}, "RUNNING", "FINISHED"),  # a gate stayed closed
        ({"gate": "better"}, "SUCCEEDED", "FINISHED"),  # the local runner
        ({"rows": 100}, "RUNNING", "FAILED"),  # somebody ended the run
        ({"rows": 100}, "COMPLETE", "FAILED"),
        ({"version": "3"}, "FAILED", "FAILED"),
    ],
)
def test_a_run_is_closed_by_what_its_steps_have_noted(mlflow, facts, state, ended):
    client, experiment = mlflow.MlflowClient(), mlflow.get_experiment("1").name
    run = uuid.uuid4().hex
    parent = outcome.open_parent(experiment, run)
    outcome.add_to_record(parent, **facts)
    pipeline.close_run.python_func(experiment, run, SimpleNamespace(state=state))
    assert client.get_run(parent).info.status == ended
    assert outcome.read_record(parent).status == ended


def test_two_nights_of_one_name_are_two_parents_and_each_closes_its_own(mlflow):
    client, experiment = mlflow.MlflowClient(), mlflow.get_experiment("1").name
    first, second = (outcome.open_parent(experiment, night, "nightly") for night in ("1", "2"))
    close = pipeline.close_run.python_func
    close(experiment, "2", SimpleNamespace(state="FAILED"))
    states = [client.get_run(parent).info.status for parent in (first, second)]
    assert states == ["RUNNING", "FAILED"]
    close(experiment, "3", SimpleNamespace(state="FAILED"))  # a run whose first step never began
    close("no experiment of this name", "1", SimpleNamespace(state="FAILED"))
    assert client.get_run(first).info.status == "RUNNING"
    unnamed = [client.get_run(outcome.open_parent(experiment, night)).info.run_name for night in ("4", "5")]
    assert unnamed == ["4", "5"]


def test_a_step_that_runs_twice_finds_its_parent_and_a_lost_pods_run_is_closed(mlflow):
    client, experiment = mlflow.MlflowClient(), mlflow.get_experiment("1").name
    parent = outcome.open_parent(experiment, "7")
    lost = mlflow.start_run(run_name="retrieve", parent_run_id=parent).info.run_id
    mlflow.tracking.fluent._active_run_stack.set([])  # the pod is gone
    assert outcome.open_parent(experiment, "7") == parent
    outcome.add_to_record(parent, version="3")
    pipeline.close_run.python_func(experiment, "7", SimpleNamespace(state="COMPLETE"))
    assert [client.get_run(run).info.status for run in (parent, lost)] == ["FINISHED", "KILLED"]


@pytest.mark.parametrize("facts", [{"version": "3"}, {"gate": "better", "reason": "not better"}])
def test_a_failed_run_that_is_retried_is_closed_by_the_step_that_decides_it(mlflow, facts):
    """Nothing calls the exit handler a second time."""
    client, experiment = mlflow.MlflowClient(), mlflow.get_experiment("1").name
    run = uuid.uuid4().hex
    parent = outcome.open_parent(experiment, run)
    outcome.add_to_record(parent, rows=100)
    pipeline.close_run.python_func(experiment, run, SimpleNamespace(state="FAILED"))
    assert outcome.open_parent(experiment, run) == parent
    outcome.add_to_record(parent, rows=101)
    assert client.get_run(parent).info.status == outcome.read_record(parent).status == "FAILED"
    outcome.add_to_record(parent, **facts)
    assert client.get_run(parent).info.status == outcome.read_record(parent).status == "FINISHED"


@pytest.mark.parametrize("identity", ["", dsl.PIPELINE_JOB_ID_PLACEHOLDER])
def test_an_id_that_nobody_filled_in_makes_no_parent_for_all_runs(mlflow, identity):
    with pytest.raises(ValueError, match="Kubeflow should have put the run's id there"):
        outcome.open_parent(mlflow.get_experiment("1").name, identity)


@dsl.component(base_image="python", install_kfp_package=False)
def double(number: int) -> int:
    if number < 0:
        raise ValueError("negative")
    return 2 * number


def test_the_runner_works_in_a_child_and_leaves_this_process_alone(tmp_path, monkeypatch, capsys):
    linked = tmp_path / "an environment"
    linked.symlink_to(Path(sys.prefix))
    monkeypatch.setattr(sys, "executable", str(linked / "bin" / "python"))
    runner = local.SubprocessRunner(use_venv=False)
    local.init(runner, pipeline_root=str(tmp_path / "out"), raise_on_error=True)
    root, log = logging.getLogger(), tmp_path / "logs" / "of today" / "log"
    own = builtins.print, sys.executable, sys.stdout, root.handlers[:], root.level
    with pipeline.local_run(log, show_steps=True):
        task = double(number=21)
        assert (builtins.print, sys.executable, sys.stdout, root.handlers, root.level) == own
        with pytest.raises(RuntimeError, match="FAILURE"):
            double(number=-1)
    assert task.output == 42
    # The error of a component that is called alone says that it failed.
    assert capsys.readouterr().out == "double: success\n", "a line per step, and nothing else"
    assert "Executing task" in log.read_text() and "ValueError: negative" in log.read_text()
    assert (builtins.print, sys.executable, sys.stdout, root.handlers, root.level) == own
    assert task_dispatcher.run_single_task is local_runner.ENTRIES["run_single_task"]


@dsl.component(base_image="python", install_kfp_package=False)
def leave(note: str):
    import os
    import pathlib
    import time

    if not os.fork():
        os.close(1)
        os.close(2)
        time.sleep(600)
    pathlib.Path(note).write_text("left")


def test_what_a_step_leaves_running_ends_with_the_call(tmp_path):
    local.init(local.SubprocessRunner(use_venv=False), pipeline_root=str(tmp_path / "out"))
    before = {process.pid for process in psutil.process_iter()}
    with pipeline.local_run(tmp_path / "log"):
        leave(note=str(tmp_path / "note"))
    assert (tmp_path / "note").read_text() == "left"
    new = [process for process in psutil.process_iter() if process.pid not in before]
    alive = [one for one in new if one.status() != psutil.STATUS_ZOMBIE]
    ours = [one.pid for one in alive if "local_runner" in " ".join(one.cmdline())]
    assert len(ours) <= 1, "the process that forks, and no other"


ORPHAN = """
from pathlib import Path
from kfp import dsl, local
from lifecycle.training.pipeline import local_run

@dsl.component(base_image="python", install_kfp_package=False)
def wait(note: str):
    import os, pathlib, time
    pathlib.Path(note).write_text(str(os.getpid()))
    time.sleep(600)

local.init(local.SubprocessRunner(use_venv=False), pipeline_root="out")
with local_run(Path("log")):
    wait(note="note")
"""


def test_a_step_ends_with_a_caller_that_is_killed(tmp_path):
    (tmp_path / "caller.py").write_text(ORPHAN)
    caller = subprocess.Popen([sys.executable, "caller.py"], cwd=tmp_path, stdout=subprocess.DEVNULL)
    note = tmp_path / "note"
    eventually(lambda: caller.poll() is not None or (note.exists() and note.read_text()), "no step began")
    step = int(note.read_text())
    assert psutil.pid_exists(step)
    caller.kill()
    caller.wait()
    eventually(lambda: not psutil.pid_exists(step), "the step lives on")

"""Retraining on a schedule: the recurring run that a cluster gets, and the workflow. Both knock at the door that notebook 08 uses; neither has run."""

import json
import shlex
from types import SimpleNamespace

import kfp
import kfp_server_api
import pytest
import yaml
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2

from helpers.workspace import REPOSITORY
from lifecycle import retrain
from lifecycle.pipeline import VOLUME
from lifecycle.schedule import recurring_run

COMMITTED = REPOSITORY / "cluster" / "recurring_run.yaml"


@pytest.fixture
def committed() -> dict:
    return yaml.safe_load(COMMITTED.read_text())


def container(run: dict) -> dict:
    [executor] = run["pipeline_spec"]["pipeline_spec"]["deploymentSpec"]["executors"].values()
    return executor["container"]


def rendered(run: dict) -> dict:
    """What the code makes of the name, the time and the arguments of a recurring run."""
    return recurring_run(run["display_name"], run["trigger"]["cron_schedule"]["cron"], container(run)["args"])


def test_the_committed_recurring_run_is_what_the_code_renders(committed):
    assert committed == rendered(committed)


def test_it_comes_back_unchanged_from_the_servers_own_model(committed):
    api = kfp_server_api.ApiClient()
    read = api.deserialize(SimpleNamespace(data=json.dumps(committed)), "V2beta1RecurringRun")
    assert api.sanitize_for_serialization(read) == committed
    misspelt = {**committed, "max_concurency": "1"}
    read = api.deserialize(SimpleNamespace(data=json.dumps(misspelt)), "V2beta1RecurringRun")
    assert api.sanitize_for_serialization(read) != misspelt, "the model drops what it does not know"


def test_its_pipeline_is_a_valid_specification_with_what_each_step_gets_on_a_cluster(committed):
    pipeline, platform = (
        committed["pipeline_spec"]["pipeline_spec"],
        committed["pipeline_spec"]["platform_spec"],
    )
    read = json_format.ParseDict(pipeline, pipeline_spec_pb2.PipelineSpec())  # refuses unknown fields
    json_format.ParseDict(platform, pipeline_spec_pb2.PlatformSpec())
    assert not read.root.dag.tasks["retrain"].caching_options.enable_cache, (
        "it would be answered from the last week's"
    )
    training = list(yaml.safe_load_all((REPOSITORY / "cluster" / "training_pipeline.yaml").read_text()))[1]
    [given] = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"].values()
    assert given == training["platforms"]["kubernetes"]["deploymentSpec"]["executors"]["exec-train-model"]


def test_kubeflows_client_sends_the_same_for_the_same_pipeline(committed, tmp_path):
    package = tmp_path / "pipeline.yaml"
    package.write_text(yaml.safe_dump_all(committed["pipeline_spec"].values()))
    sent = []
    client = kfp.Client.__new__(kfp.Client)  # its constructor needs a server
    client._recurring_run_api = SimpleNamespace(
        recurring_run_service_create_recurring_run=lambda recurring_run: sent.append(recurring_run)
    )
    client.create_recurring_run(
        experiment_id="of the cluster",
        job_name=committed["display_name"],
        cron_expression=committed["trigger"]["cron_schedule"]["cron"],
        no_catchup=True,
        pipeline_package_path=str(package),
    )
    [body] = kfp_server_api.ApiClient().sanitize_for_serialization(sent)
    assert int(body.pop("max_concurrency")) == int(
        committed.pop("max_concurrency")
    )  # 64 bits are text in JSON
    assert body == {**committed, "experiment_id": "of the cluster"}


def test_recurring_run_and_workflow_call_the_door_with_the_same_words(committed):
    workflow = yaml.safe_load((REPOSITORY / ".github" / "workflows" / "retrain.yml").read_text())
    *_, last = workflow["jobs"]["retrain"]["steps"]
    python, *words = shlex.split(last["run"])
    assert python == ".venv/bin/python"
    assert ["python", *words] == container(committed)["command"] + container(committed)["args"]
    assert {word.split("/")[1] for word in words if word.startswith("/")} == {VOLUME.strip("/")}


def test_the_door_takes_these_words(committed, capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.chdir(tmp_path)
    words = [word.replace(VOLUME, str(tmp_path)) for word in container(committed)["args"]]
    assert retrain.main(words) == 2  # a wrong word would be SystemExit
    assert "production of driver_conversion, was not found" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        retrain.main([*words, "--no-such-option"])

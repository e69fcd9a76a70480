"""The InferenceService: rendered, and compared with what the server's command line and the pipeline's steps know."""

import json
import re
from pathlib import Path
from types import SimpleNamespace

import kserve
import pytest
import yaml
from kubernetes import client

from helpers.workspace import REPOSITORY
from lifecycle import IMAGE, serving
from lifecycle.cluster import USER
from lifecycle.inference_service import CONTAINER, PORT, container, inference_service


@pytest.fixture
def service() -> dict:
    return inference_service("driver-conversion", "driver_conversion")


def read_back(service: dict) -> dict:
    """Through the official models, which drop what they do not know."""
    api = client.ApiClient()
    for name in ("V1beta1InferenceService", "V1beta1InferenceServiceSpec", "V1beta1PredictorSpec"):
        setattr(client.models, name, getattr(kserve, name))
    read = api.deserialize(SimpleNamespace(data=json.dumps(service)), "V1beta1InferenceService")
    return api.sanitize_for_serialization(read)


def test_it_comes_back_unchanged_from_the_official_models(service):
    assert read_back(service) == service
    service["spec"]["predictor"]["minReplica"] = 2
    assert read_back(service) != service, "a misspelt field should be dropped"


def test_the_server_takes_its_command_line(service, monkeypatch):
    started = {}
    monkeypatch.setattr(serving, "FeatureModel", lambda *given: started.update(model=given))
    monkeypatch.setattr(
        serving, "Server", lambda *given: SimpleNamespace(start=lambda _: started.update(at=given))
    )
    found = container(
        inference_service("driver-conversion", "driver_conversion", "champion", port=9000, now=5.0)
    )
    assert found["command"] == ["python", "-m", "lifecycle.serving"] and found["image"] == IMAGE
    monkeypatch.setattr("sys.argv", ["serving", *found["args"]])
    serving.main()
    assert started["model"] == ("driver_conversion", Path("/ml-lifecycle/feature_repo"), "champion", 5.0)
    assert started["at"] == ("0.0.0.0", 9000, ["*"])
    assert found["ports"][0]["containerPort"] == 9000
    assert {found[probe]["httpGet"]["port"] for probe in ("readinessProbe", "livenessProbe")} == {9000}


def test_it_names_the_same_config_map_secret_and_volume_as_each_step_of_the_pipeline(service):
    _, platform = yaml.safe_load_all((REPOSITORY / "cluster" / "training_pipeline.yaml").read_text())
    step = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]["exec-register-model"]
    found = container(service)
    told = {one["name"]: next(iter(one["valueFrom"].values())) for one in found["env"]}
    of_step = {
        pair["envVar"]: {"name": source[kind], "key": pair[key]}
        for source, kind, key in [
            (step["configMapAsEnv"][0], "configMapName", "configMapKey"),
            (step["secretAsEnv"][0], "secretName", "secretKey"),
        ]
        for pair in source["keyToEnv"]
    }
    assert told == of_step
    [claim], [mount] = step["pvcMount"], found["volumeMounts"]
    [volume] = service["spec"]["predictor"]["volumes"]
    assert volume["persistentVolumeClaim"]["claimName"] == claim["constant"]
    assert (mount["mountPath"], mount["name"]) == (claim["mountPath"], volume["name"])


def test_a_server_elsewhere_listens_where_the_image_looks_for_its_health(service):
    assert f"or '{PORT}'" in (REPOSITORY / "cluster" / "Dockerfile").read_text()
    assert f"USER {USER}:{USER}" in (REPOSITORY / "cluster" / "Dockerfile").read_text()
    assert container(service)["name"] == CONTAINER
    assert re.fullmatch(r"[a-z0-9-]+", service["metadata"]["name"])

"""The files in cluster/: rendered by cluster/render.py, valid, guarded, and without a secret."""

import copy
import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jsonschema
import kfp_server_api
import nbformat
import pytest
import yaml
from feast.repo_config import RepoConfig
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2
from optuna import distributions

from helpers.capture import captured_trainer
from helpers.workspace import REPOSITORY, Workspace
from lifecycle import cli
from lifecycle.cluster import katib, manifests
from lifecycle.cluster.inference_service import container
from lifecycle.objects import LOGIN, STORES, USER
from lifecycle.settings import FILE, Cluster
from lifecycle.training import shipped

pytestmark = pytest.mark.unit

CLUSTER = REPOSITORY / "cluster"
FOLDER = CLUSTER / "manifests"
DOCUMENTS = {
    f"{document['kind']}/{document['metadata']['name']}": document
    for documents in manifests.read(FOLDER).values()
    for document in documents
}
BY_HAND = [
    document
    for name in ("loader", "notebooks")
    for document in yaml.safe_load_all((CLUSTER / "kind" / f"{name}.yaml").read_text())
]
_, PLATFORM = yaml.safe_load_all((CLUSTER / "training_pipeline.yaml").read_text())
STEPS = PLATFORM["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
RECURRING = yaml.safe_load((CLUSTER / "recurring_run.yaml").read_text())
OUR_SCHEMA = yaml.safe_load(Path(__file__).with_name("schemas").joinpath("feature_store.yaml").read_text())
# A folder with schemas of other projects and the program that reads them, where there is one.
VALIDATOR = Path(
    os.environ.get("MANIFEST_VALIDATOR") or REPOSITORY.parent / "shared" / "bin" / "validate-manifests"
)
REMOVED = object()


def changed(document: dict, place: str, value: object) -> dict:
    """A copy in which one place has another value, or none."""
    document = copy.deepcopy(document)
    *way, last = [int(part) if part.isdigit() else part for part in place.split("/")]
    inner = document
    for part in way:
        inner = inner[part]
    inner[last] = value
    if value is REMOVED:
        del inner[last]
    return document


def problems(document: dict) -> list[str]:
    """What the official classes say, and for Feast's object, which has none, our schema."""
    if document["kind"] == "FeatureStore":
        return [error.message for error in jsonschema.Draft202012Validator(OUR_SCHEMA).iter_errors(document)]
    return manifests.problems(document)


def pods() -> dict[str, dict]:
    """Each pod's specification, wherever a kind keeps it."""
    found = {}
    for document in [*DOCUMENTS.values(), *BY_HAND]:
        kind, spec = document["kind"], document.get("spec", {})
        if kind == "Experiment":
            spec = spec["trialTemplate"]["trialSpec"]["spec"]
        pod = spec if kind == "Pod" else spec.get("predictor") or spec.get("template", {}).get("spec")
        if pod:
            found[f"{kind}/{document['metadata']['name']}"] = pod
    return found


def test_the_committed_files_are_the_rendered_ones(tmp_path):
    runpy.run_path(str(CLUSTER / "render.py"))["main"](tmp_path)
    rendered = {path.relative_to(tmp_path): path.read_text() for path in tmp_path.rglob("*.yaml")}
    committed = {name: (CLUSTER / name).read_text() for name in rendered}
    assert rendered == committed, "run `python cluster/render.py`"
    others = {CLUSTER / "recurring_run.yaml", CLUSTER / "training_pipeline.yaml"}
    assert {CLUSTER / name for name in rendered} == {*FOLDER.rglob("*.yaml"), *others}


def run_cells(number: str, ids: list[str], names: dict) -> dict:
    """The names that cells of a notebook bind, run on ``names`` with all that the notebook imports."""
    [path] = (REPOSITORY / "notebooks").glob(f"{number}_*.ipynb")
    cells = {cell.id: cell.source for cell in nbformat.read(path, as_version=4).cells}
    for identity in ids:
        exec(cells[identity], names)
    return names


def test_the_notebooks_create_the_committed_experiment_and_train_job(tmp_path):
    names = {"yaml": yaml, "workspace": Workspace(tmp_path), "Code": lambda text, language: text}
    names["contract"] = SimpleNamespace(feature_service="rates_and_rating", label="label")
    of_05 = {**names, **vars(distributions), "katib": katib}
    of_05 = run_cells("05", ["n05-01", "n05-32", "n05-76"], of_05)
    assert of_05["experiment"] == DOCUMENTS["Experiment/driver-sweep"]
    of_09 = {**names, "shutil": shutil, "shipped": shipped, "captured_trainer": captured_trainer}
    of_09 = run_cells("09", ["train-021", "train-064"], of_09)
    assert of_09["train_job"] == DOCUMENTS["TrainJob/driver-training"]


def test_the_official_classes_read_every_manifest_unchanged():
    assert {name: found for name, document in DOCUMENTS.items() if (found := problems(document))} == {}
    assert [found for document in BY_HAND if (found := manifests.problems(document))] == []
    without_class = {name for name, document in DOCUMENTS.items() if manifests.round_trip(document) is None}
    assert {name.partition("/")[0] for name in without_class} == {"FeatureStore", "Kustomization"}


MISTAKES = [
    ("Deployment/redis", "spec/replica", 1),
    ("Service/redis", "spec/ports/0/port", [6379]),
    ("ConfigMap/mlflow", "metadata/name", REMOVED),
    ("FeatureStore/driver-ranking", "spec/project", "driver_ranking"),
    ("Experiment/driver-sweep", "spec/maxTrials", 20),
    ("Experiment/driver-sweep", "spec/trialTemplate/trialSpec/spec/template", REMOVED),
    ("TrainJob/driver-training", "spec/trainer/numNodes", "two"),
    ("TrainJob/driver-training", "spec/runtimeRef", REMOVED),
    ("InferenceService/driver-conversion", "spec/predictor/minReplica", 1),
    ("InferenceService/driver-conversion", "spec/predictor/minReplicas", "one"),
]


@pytest.mark.parametrize("name, place, value", MISTAKES, ids=[f"{name} {at}" for name, at, _ in MISTAKES])
def test_notices_a_planted_mistake(name, place, value):
    assert problems(changed(DOCUMENTS[name], place, value)) != []


def test_the_projects_own_schemas_accept_the_manifests_and_reject_mistakes(tmp_path):
    if not VALIDATOR.exists():
        return  # not beside every clone; the official classes have read them

    def validated(folder: Path) -> subprocess.CompletedProcess:
        return subprocess.run([sys.executable, VALIDATOR, folder, "1"], capture_output=True, text=True)

    done = validated(FOLDER)
    assert done.returncode == 0, done.stdout
    planted = [mistake for mistake in MISTAKES if mistake[0].startswith(("InferenceService/", "TrainJob/"))]
    for number, (name, place, value) in enumerate(planted):
        (tmp_path / f"{number}.yaml").write_text(manifests.text([changed(DOCUMENTS[name], place, value)]))
    noticed = re.findall(r"/(\d+)\.yaml\[0\]: \w+: \d+ errors", validated(tmp_path).stdout)
    assert sorted(noticed) == [str(number) for number in range(len(planted))]


def test_feast_takes_the_clusters_settings_and_its_servers_read_the_same_registry():
    settings = yaml.safe_load(DOCUMENTS["ConfigMap/feature-store"]["data"]["feature_store.yaml"])
    config = RepoConfig(**settings, repo_path=Path("/ml-lifecycle/feature_repo"))
    assert (config.online_store.type, config.online_store.connection_string) == ("redis", Cluster().redis)
    store = DOCUMENTS["FeatureStore/driver-ranking"]["spec"]
    assert config.project == store["feastProject"] and config.offline_store.type == "duckdb"
    registry = os.path.normpath(Path("/ml-lifecycle/feature_repo", settings["registry"]))
    assert store["services"]["registry"]["local"]["persistence"]["file"]["path"] == registry


def test_every_pod_is_guarded_and_limited_and_names_a_pinned_image():
    assert len(pods()) == 7
    for name, pod in pods().items():
        assert pod["securityContext"]["runAsUser"] == pod["securityContext"]["fsGroup"] == USER, name
        assert pod["securityContext"]["runAsNonRoot"] is True and pod["enableServiceLinks"] is False, name
        for inner in pod["containers"]:
            assert inner["securityContext"]["allowPrivilegeEscalation"] is False, name
            assert inner["securityContext"]["capabilities"] == {"drop": ["ALL"]}, name
            limits = inner["resources"]
            assert set(limits["requests"]) == set(limits["limits"]) == {"cpu", "memory"}, name
            assert re.search(r":\d+\.\d+", inner["image"]), f"{inner['image']} is not pinned"
            if name.startswith(("Deployment/", "InferenceService/")):
                assert {"readinessProbe", "livenessProbe"} <= set(inner), name


def test_a_server_names_the_same_volume_address_and_secret_as_a_step_of_the_pipeline():
    step = STEPS["exec-register-model"]
    service = DOCUMENTS["InferenceService/driver-conversion"]
    server = container(service)
    named = {one["name"]: next(iter(one["valueFrom"].values())) for one in server["env"]}
    [config], [secret] = step["configMapAsEnv"], step["secretAsEnv"]
    for source, kind in ((config, "configMap"), (secret, "secret")):
        for pair in source["keyToEnv"]:
            assert named[pair["envVar"]] == {"name": source[f"{kind}Name"], "key": pair[f"{kind}Key"]}
    [claim], [mount], [volume] = (
        step["pvcMount"],
        server["volumeMounts"],
        service["spec"]["predictor"]["volumes"],
    )
    assert volume["persistentVolumeClaim"]["claimName"] == claim["constant"]
    assert (mount["mountPath"], mount["name"]) == (claim["mountPath"], volume["name"])


def test_no_file_holds_a_secret_and_the_script_makes_every_secret_that_is_named():
    text = "\n".join(path.read_text() for path in CLUSTER.rglob("*.yaml"))
    assert "kind: Secret\n" not in text and not re.search(r"(?i)password:\s*\S", text)
    script = (CLUSTER / "secrets.sh").read_text()
    for name, key in (LOGIN, STORES):
        assert f"secret {name} {key}" in script
    named = re.findall(r"secret(?:Key)?Ref:\s+name: (\S+)", text)
    assert set(named) == {LOGIN[0], STORES[0]}


def test_the_servers_own_model_reads_the_recurring_run_unchanged():
    api = kfp_server_api.ApiClient()
    for run in (RECURRING, {**RECURRING, "misspelled": "1"}):
        model = api.deserialize(SimpleNamespace(data=json.dumps(run)), "V2beta1RecurringRun")
        assert api.sanitize_for_serialization(model) == RECURRING


def test_the_recurring_step_is_valid_never_cached_and_gets_what_a_training_step_gets():
    pipeline, platform = (RECURRING["pipeline_spec"][f"{part}_spec"] for part in ("pipeline", "platform"))
    spec = json_format.ParseDict(pipeline, pipeline_spec_pb2.PipelineSpec())  # rejects unknown fields
    json_format.ParseDict(platform, pipeline_spec_pb2.PlatformSpec())
    assert not spec.root.dag.tasks["retrain"].caching_options.enable_cache
    [step] = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"].values()
    assert step == STEPS["exec-train-model"]


def test_recurring_run_and_workflow_start_one_command_with_the_settings_on_the_volume(capsys):
    [executor] = RECURRING["pipeline_spec"]["pipeline_spec"]["deploymentSpec"]["executors"].values()
    command = [*executor["container"]["command"], *executor["container"]["args"]]
    workflow = yaml.safe_load((REPOSITORY / ".github" / "workflows" / "retrain.yml").read_text())
    *_, last = workflow["jobs"]["retrain"]["steps"]
    program, *arguments = shlex.split(last["run"])
    assert [program.removeprefix(".venv/bin/"), *arguments] == command
    assert cli.main([*arguments, "--help"], standalone_mode=False) == 0
    assert (
        f"{Cluster().volume}/{FILE}" in command and "Train on a window of labels" in capsys.readouterr().out
    )

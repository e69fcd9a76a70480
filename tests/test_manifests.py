"""The manifests in cluster/: what the code renders, valid, and each mistake in them noticed. No cluster has taken them."""

import copy
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jsonschema
import nbformat
import pytest
import requests
import yaml
from feast.repo_config import RepoConfig
from optuna import distributions

from helpers import services
from helpers.capture import captured_trainer
from helpers.services import Service
from helpers.start import MODEL
from helpers.workspace import REPOSITORY, Workspace
from lifecycle import IMAGE, distributed, katib, manifests, shipped
from lifecycle.cluster import (
    CLAIM,
    LOGIN,
    MLFLOW_PORT,
    MLFLOW_URI,
    NAMESPACE,
    REDIS_ADDRESS,
    SERVER_PORT,
    STORES,
    USER,
    VOLUME,
    on_volume,
)
from lifecycle.inference_service import PORT, container

CLUSTER = REPOSITORY / "cluster"
FOLDER = CLUSTER / "manifests"
FILES = manifests.read(FOLDER)
DOCUMENTS = {
    f"{one['kind']}/{one['metadata']['name']}": one for documents in FILES.values() for one in documents
}
BY_HAND = [
    one
    for name in ("loader", "notebooks")
    for one in yaml.safe_load_all((CLUSTER / "kind" / f"{name}.yaml").read_text())
]
OUR_SCHEMA = yaml.safe_load(Path(__file__).with_name("schemas").joinpath("feature_store.yaml").read_text())
# A folder with schemas of other projects and the program that reads them, where there is one.
VALIDATOR = Path(
    os.environ.get("MANIFEST_VALIDATOR") or REPOSITORY.parent / "shared" / "bin" / "validate-manifests"
)
REMOVED = object()


def said(value: object) -> str:
    return "removed" if value is REMOVED else str(value)


def changed(document: dict, place: str, value: object) -> dict:
    """A copy in which one place has another value, or none."""
    document = copy.deepcopy(document)
    *way, last = [int(part) if part.isdigit() else part for part in place.split("/")]
    found = document
    for part in way:
        found = found[part]
    if value is REMOVED:
        del found[last]
    else:
        found[last] = value
    return document


def problems(document: dict) -> list[str]:
    """What the official classes say, and for Feast's object, which has none, our schema."""
    if document["kind"] == "FeatureStore":
        return [error.message for error in jsonschema.Draft202012Validator(OUR_SCHEMA).iter_errors(document)]
    return manifests.problems(document)


def cells(number: str) -> dict[str, str]:
    """The code of a notebook's cells, by id."""
    [path] = (REPOSITORY / "notebooks").glob(f"{number}_*.ipynb")
    return {cell.id: cell.source for cell in nbformat.read(path, as_version=4).cells}


def pods() -> list[dict]:
    """Each pod's specification in the manifests, wherever a kind keeps it."""
    found = []
    for one in [*DOCUMENTS.values(), *BY_HAND]:
        spec = one.get("spec", {})
        if one["kind"] == "Experiment":
            spec = spec["trialTemplate"]["trialSpec"]["spec"]
        for inner in (
            spec.get("template", {}).get("spec"),
            spec.get("predictor"),
            spec if one["kind"] == "Pod" else None,
        ):
            if inner:
                found.append(inner)
    return found


def test_rendered_again_they_are_the_committed_ones(tmp_path):
    assert manifests.again(FILES) == FILES, "run `python -m lifecycle.manifests cluster/manifests`"
    manifests.write(tmp_path, FILES)
    written = {path.relative_to(tmp_path): path.read_text() for path in tmp_path.rglob("*.yaml")}
    assert written == {path.relative_to(FOLDER): path.read_text() for path in FOLDER.rglob("*.yaml")}


def test_the_command_renders_a_folder_again(tmp_path):
    manifests.write(tmp_path, FILES)
    stale = tmp_path / "base" / "redis.yaml"
    stale.write_text(stale.read_text().replace(manifests.REDIS_IMAGE, "redis:latest"))
    subprocess.run([sys.executable, "-m", "lifecycle.manifests", tmp_path], check=True)
    assert manifests.read(tmp_path) == FILES


def test_they_are_of_the_course_s_own_settings_and_model():
    settings = yaml.safe_load((REPOSITORY / "feature_repo" / "feature_store.yaml").read_text())
    [of_cluster] = [one for one in FILES["base/config.yaml"] if one["metadata"]["name"] == "feature-store"]
    assert yaml.safe_load(of_cluster["data"]["feature_store.yaml"]) == manifests.cluster_settings(settings)
    arguments = container(DOCUMENTS["InferenceService/driver-conversion"])["args"]
    assert arguments[arguments.index("--model") + 1] == MODEL


def test_the_experiment_is_the_one_that_notebook_05_renders():
    source = cells("05")
    names: dict = vars(distributions) | {
        "VOLUME": VOLUME,
        "katib": katib,
        "yaml": yaml,
        "Code": lambda text, language: text,
    }
    names["contract"] = SimpleNamespace(feature_service="rates_and_rating", label="label")
    for identity in ("n05-01", "n05-32", "n05-76"):
        exec(source[identity], names)
    assert names["experiment"] == DOCUMENTS["Experiment/driver-sweep"]
    door = yaml.safe_load((CLUSTER / "recurring_run.yaml").read_text())
    [executor] = door["pipeline_spec"]["pipeline_spec"]["deploymentSpec"]["executors"].values()
    words = executor["container"]["args"]
    assert names["inputs"]["feature_repo"] in words and names["inputs"]["labels"] in words


def test_the_train_job_is_the_one_that_notebook_09_renders(tmp_path):
    source = cells("09")
    names: dict = {
        "VOLUME": VOLUME,
        "distributed": distributed,
        "shipped": shipped,
        "captured_trainer": captured_trainer,
        "shutil": shutil,
    }
    names |= {"yaml": yaml, "Code": lambda text, language: text, "workspace": Workspace(tmp_path)}
    names["contract"] = SimpleNamespace(feature_service="rates_and_rating", label="label")
    names["workspace"].path.mkdir()
    exec(source["train-021"], names)
    exec(source["train-064"], names)
    assert [names["train_job"]] == FILES["models/train_job.yaml"], (
        "run `python -m lifecycle.manifests cluster/manifests`"
    )


def test_the_cluster_s_settings_are_ones_that_feast_takes():
    settings = yaml.safe_load(DOCUMENTS["ConfigMap/feature-store"]["data"]["feature_store.yaml"])
    config = RepoConfig(**settings, repo_path=Path("/ml-lifecycle/feature_repo"))
    assert config.online_store.type == "redis" and config.online_store.connection_string == REDIS_ADDRESS
    assert config.offline_store.type == "duckdb"
    assert config.project == DOCUMENTS["FeatureStore/driver-ranking"]["spec"]["feastProject"]
    registry = Path("/ml-lifecycle/feature_repo", settings["registry"])
    served = DOCUMENTS["FeatureStore/driver-ranking"]["spec"]["services"]["registry"]["local"]["persistence"][
        "file"
    ]
    assert os.path.normpath(registry) == served["path"], "Feast's servers would read another registry"


@pytest.mark.parametrize("name", DOCUMENTS)
def test_it_comes_back_unchanged_from_the_official_classes(name):
    document = DOCUMENTS[name]
    assert problems(document) == []
    assert (manifests.round_trip(document) is None) == (document["kind"] in ("FeatureStore", "Kustomization"))


@pytest.mark.parametrize("document", BY_HAND, ids=lambda one: one["kind"])
def test_what_kind_gets_besides_is_known_to_the_official_classes(document):
    assert manifests.problems(document) == []


MISTAKES = [
    ("Namespace/ml-lifecycle", "spec", {"finalisers": []}),
    ("Namespace/ml-lifecycle", "metadata/labels", "enabled"),
    ("Namespace/ml-lifecycle", "metadata/name", REMOVED),
    ("PersistentVolumeClaim/ml-lifecycle", "spec/accessMode", "ReadWriteMany"),
    ("PersistentVolumeClaim/ml-lifecycle", "spec/accessModes", "ReadWriteMany"),
    ("PersistentVolumeClaim/ml-lifecycle", "metadata/name", REMOVED),
    ("ConfigMap/mlflow", "datas", {}),
    ("ConfigMap/mlflow", "data/tracking-uri", 5000),
    ("ConfigMap/mlflow", "metadata/name", REMOVED),
    ("ConfigMap/feature-store", "imutable", True),
    ("ConfigMap/feature-store", "data/feature_store.yaml", {"project": "driver_ranking"}),
    ("ConfigMap/feature-store", "metadata/name", REMOVED),
    ("Deployment/redis", "spec/replica", 1),
    ("Deployment/redis", "spec/replicas", "one"),
    ("Deployment/redis", "spec/selector", REMOVED),
    ("Service/redis", "spec/selectors", {}),
    ("Service/redis", "spec/ports/0/port", "redis"),
    ("Service/redis", "spec/ports/0/port", REMOVED),
    ("Deployment/mlflow", "spec/template/spec/containers/0/livenesProbe", {}),
    ("Deployment/mlflow", "spec/template/spec/containers/0/ports/0/containerPort", "http"),
    ("Deployment/mlflow", "spec/template/spec/containers/0/name", REMOVED),
    ("Service/mlflow", "spec/port", 5000),
    ("Service/mlflow", "spec/ports/0/port", [5000]),
    ("Service/mlflow", "spec/ports/0/port", REMOVED),
    ("Job/apply-features", "spec/retries", 1),
    ("Job/apply-features", "spec/backoffLimit", "one"),
    ("Job/apply-features", "spec/template", REMOVED),
    ("FeatureStore/driver-ranking", "spec/project", "driver_ranking"),
    ("FeatureStore/driver-ranking", "spec/services/disableInitContainers", "yes"),
    ("FeatureStore/driver-ranking", "spec/feastProject", REMOVED),
    ("Experiment/driver-sweep", "spec/maxTrials", 20),
    ("Experiment/driver-sweep", "spec/maxTrialCount", "many"),
    ("Experiment/driver-sweep", "spec/trialTemplate/trialSpec/spec/backofLimit", 1),
    ("Experiment/driver-sweep", "spec/trialTemplate/trialSpec/spec/template", REMOVED),
    ("TrainJob/driver-training", "spec/trainer/numNode", 2),
    ("TrainJob/driver-training", "spec/trainer/numNodes", "two"),
    ("TrainJob/driver-training", "spec/runtimeRef", REMOVED),
    ("InferenceService/driver-conversion", "spec/predictor/minReplica", 1),
    ("InferenceService/driver-conversion", "spec/predictor/minReplicas", "one"),
    ("InferenceService/driver-conversion", "spec/predictor", REMOVED),
]


@pytest.mark.parametrize("name, place, value", MISTAKES, ids=said)
def test_a_planted_mistake_is_noticed(name, place, value):
    assert problems(changed(DOCUMENTS[name], place, value)) != []


def test_a_mistake_is_planted_in_each_manifest():
    kinds = {name for name in DOCUMENTS if not name.startswith("Kustomization/")}
    assert {name for name, _, _ in MISTAKES} >= kinds
    for name in kinds:
        values = [value for planted, _, value in MISTAKES if planted == name]
        assert REMOVED in values and len(values) >= 3, name


def test_the_kustomizations_name_every_file():
    for folder in (FOLDER / "base", FOLDER / "features", FOLDER / "models"):
        own = yaml.safe_load((folder / "kustomization.yaml").read_text())
        assert own["namespace"] == NAMESPACE
        assert own["resources"] == sorted(
            path.name for path in folder.glob("*.yaml") if path.name != "kustomization.yaml"
        )


def test_each_pod_is_guarded_limited_and_of_a_pinned_image():
    assert len(pods()) == 7
    for pod in pods():
        assert pod["securityContext"]["runAsUser"] == pod["securityContext"]["fsGroup"] == USER
        assert pod["securityContext"]["runAsNonRoot"] is True and pod["enableServiceLinks"] is False
        claims = [
            one["persistentVolumeClaim"]["claimName"]
            for one in pod["volumes"]
            if "persistentVolumeClaim" in one
        ]
        assert set(claims) <= {CLAIM}
        for one in pod["containers"]:
            assert one["securityContext"]["allowPrivilegeEscalation"] is False
            assert one["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            assert set(one["resources"]["requests"]) == set(one["resources"]["limits"]) == {"cpu", "memory"}
            assert re.search(r":\d+\.\d+", one["image"]), f"{one['image']} is not pinned"
            mounts = {mount["name"]: mount["mountPath"] for mount in one["volumeMounts"]}
            assert mounts.get(CLAIM, VOLUME) == VOLUME


@pytest.mark.parametrize(
    "name", ["Deployment/redis", "Deployment/mlflow", "InferenceService/driver-conversion"]
)
def test_a_server_has_probes(name):
    spec = DOCUMENTS[name]["spec"]
    [one] = (spec.get("predictor") or spec["template"]["spec"])["containers"]
    assert {"readinessProbe", "livenessProbe"} <= set(one)


def test_no_secret_s_value_is_in_a_file_and_each_reference_has_a_secret_that_the_script_makes():
    text = "\n".join(path.read_text() for path in CLUSTER.rglob("*.yaml"))
    assert "kind: Secret\n" not in text and not re.search(r"(?i)password:\s*\S", text)
    script = (CLUSTER / "secrets.sh").read_text()
    for name, key in (LOGIN, STORES):
        assert f"secret {name} {key}" in script
    referred = set(re.findall(r"secretKeyRef:\s+name: (\S+)|secretRef:\s+name: (\S+)", text))
    assert {name for pair in referred for name in pair if name} == {LOGIN[0], STORES[0]}


def test_a_file_of_the_home_lies_on_the_volume(tmp_path):
    assert on_volume(tmp_path / "data" / "labels.parquet", tmp_path) == f"{VOLUME}/data/labels.parquet"
    with pytest.raises(ValueError):
        on_volume(Path("/elsewhere/labels.parquet"), tmp_path)


# The servers start here as their manifests say, with this machine's folders and a free port.


def on_this_machine(words: list[str], folder: Path, port: int) -> list[str]:
    swapped = [word.replace(VOLUME, str(folder)) for word in words]
    return [
        re.sub(r"^(--port=)?" + str(port) + "$", r"\g<1>{port}", word).replace("0.0.0.0", "127.0.0.1")
        for word in swapped
    ]


def test_mlflow_s_server_starts_with_these_words_and_answers_who_may_ask(tmp_path, monkeypatch):
    [one] = DOCUMENTS["Deployment/mlflow"]["spec"]["template"]["spec"]["containers"]
    for pair in one["env"]:
        monkeypatch.setenv(pair["name"], pair["value"])
    program, *words = on_this_machine([*one["command"], *one["args"]], tmp_path, MLFLOW_PORT)
    command = [str(Path(sys.executable).with_name(program)), *words]
    with Service("MLflow", command, health="/health", log=tmp_path / "mlflow.log", timeout=240) as server:
        asked = f"{server.url}/api/2.0/mlflow/experiments/search?max_results=5"
        host = MLFLOW_URI.removeprefix("http://")
        assert (
            requests.get(asked, headers={"Host": host}, timeout=30).json()["experiments"][0]["name"]
            == "Default"
        )
        assert requests.get(asked, headers={"Host": "evil.example"}, timeout=30).status_code == 403
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            [header] = one[probe]["httpGet"]["httpHeaders"]
            path = server.url + one[probe]["httpGet"]["path"]
            assert (
                requests.get(path, headers={header["name"]: header["value"]}, timeout=30).status_code == 200
            )
    assert (tmp_path / "mlflow.db").stat().st_size > 0


def test_redis_starts_with_these_words(tmp_path):
    from redis import Redis

    if not shutil.which("redis-server"):
        pytest.skip("no redis-server here")
    [one] = DOCUMENTS["Deployment/redis"]["spec"]["template"]["spec"]["containers"]
    words = on_this_machine(one["args"], tmp_path, 6379)
    with Service(
        "Redis", [*words, "--bind", services.HOST], health=None, log=tmp_path / "redis.log"
    ) as server:
        assert Redis(host=services.HOST, port=server.port).ping()


def test_the_model_server_answers_the_probes_of_its_manifest(model_server, served):
    one = container(DOCUMENTS["InferenceService/driver-conversion"])
    assert PORT == SERVER_PORT and one["image"] == IMAGE
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert requests.get(model_server.url + one[probe]["httpGet"]["path"], timeout=30).status_code == 200


if VALIDATOR.exists():  # not beside every clone; the tests above need nothing but this repository

    def validated(folder: Path) -> subprocess.CompletedProcess:
        return subprocess.run([sys.executable, VALIDATOR, folder, "1"], capture_output=True, text=True)

    def test_they_are_valid_by_the_schemas_of_the_projects_that_read_them():
        done = validated(FOLDER)
        assert done.returncode == 0, done.stdout

    def test_by_these_schemas_planted_mistakes_are_noticed(tmp_path):
        theirs = [
            mistake for mistake in MISTAKES if mistake[0].startswith(("InferenceService/", "TrainJob/"))
        ]
        for number, (name, place, value) in enumerate(theirs):
            (tmp_path / f"{number}.yaml").write_text(manifests.text([changed(DOCUMENTS[name], place, value)]))
        done = validated(tmp_path)
        assert done.returncode == 1 and len(theirs) == 6
        for number in range(len(theirs)):
            assert re.search(rf"/{number}\.yaml\[0\]: \w+: \d+ errors", done.stdout), theirs[number]

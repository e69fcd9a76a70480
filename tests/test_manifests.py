"""The files in cluster/: rendered by cluster/render.py, valid, guarded, and without a secret."""

import copy
import json
import math
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
import optuna
import pytest
import yaml
from feast.infra.online_stores.redis import RedisOnlineStore
from feast.repo_config import load_repo_config
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2
from kubeflow.trainer import CustomTrainer
from kubeflow.trainer.options import Name
from kubernetes.utils import parse_quantity
from mlflow.server.security_utils import is_allowed_host_header

from helpers.capture import captured_trainer
from helpers.data import NOW
from helpers.workspace import REPOSITORY, Workspace
from lifecycle import cli
from lifecycle.cluster import manifests
from lifecycle.cluster.inference_service import container, inference_service
from lifecycle.cluster.schedule import recurring_run
from lifecycle.cluster.trainer import train_job, training_runtime
from lifecycle.objects import LABELS, RUNTIME, USER, kubernetes_name, secrets
from lifecycle.settings import FILE, Cluster, Settings, SettingsError
from lifecycle.training import shipped
from lifecycle.training.pipeline import training_pipeline

pytestmark = pytest.mark.unit

CLUSTER = REPOSITORY / "cluster"
FOLDER = CLUSTER / "manifests"
DOCUMENTS = {
    f"{document['kind']}/{document['metadata']['name']}": document
    for documents in manifests.read(FOLDER).values()
    for document in documents
}
[TRAIN_JOB] = [name for name in DOCUMENTS if name.startswith("TrainJob/")]
BY_HAND = [
    document
    for name in ("loader", "notebooks")
    for document in yaml.safe_load_all((CLUSTER / "kind" / f"{name}.yaml").read_text())
]
_, PLATFORM = yaml.safe_load_all((CLUSTER / "training_pipeline.yaml").read_text())
STEPS = PLATFORM["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
RECURRING = json.loads((CLUSTER / "recurring_run.json").read_text())
RECURRING_STEPS = RECURRING["pipeline_spec"]["platform_spec"]["platforms"]["kubernetes"]["deploymentSpec"][
    "executors"
]
OUR_SCHEMA = yaml.safe_load(Path(__file__).with_name("schemas").joinpath("feature_store.yaml").read_text())
# A folder with schemas of other projects and the program that reads them, where there is one.
VALIDATOR = Path(
    os.environ.get("MANIFEST_VALIDATOR") or REPOSITORY.parent / "shared" / "bin" / "validate-manifests"
)
REMOVED = object()
TRAINING_RUNTIME = f"TrainingRuntime/{RUNTIME}"
RESERVED = {"PET_NNODES", "PET_NPROC_PER_NODE", "PET_NODE_RANK", "PET_MASTER_ADDR", "PET_MASTER_PORT"}
"""Variables that Trainer 2.3 sets itself: a TrainJob that sets one is refused."""


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
        if kind == "CronJob":
            spec = spec["jobTemplate"]["spec"]
        if kind == "TrainingRuntime":
            [nodes] = spec["template"]["spec"]["replicatedJobs"]
            spec = nodes["template"]["spec"]
        pod = spec if kind == "Pod" else spec.get("predictor") or spec.get("template", {}).get("spec")
        if pod:
            found[f"{kind}/{document['metadata']['name']}"] = pod
    return found


def test_the_committed_files_are_the_rendered_ones(tmp_path):
    runpy.run_path(str(CLUSTER / "render.py"))["main"](tmp_path)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    rendered = {path.relative_to(tmp_path): path.read_text() for path in files}
    committed = {name: (CLUSTER / name).read_text() for name in rendered}
    assert rendered == committed, "run `python cluster/render.py`"
    others = {CLUSTER / "recurring_run.json", CLUSTER / "training_pipeline.yaml"}
    others |= {CLUSTER / "monitoring" / "prometheus.yaml"}
    assert {CLUSTER / name for name in rendered} == {*FOLDER.rglob("*.yaml"), *others}


def test_an_option_names_the_image_of_distributed_training(tmp_path):
    command = [sys.executable, CLUSTER / "render.py", tmp_path, "--training-image", "here/torch:1"]
    subprocess.run(command, check=True, capture_output=True)
    runtime = (tmp_path / "manifests" / "base" / "training_runtime.yaml").read_text()
    assert "image: here/torch:1\n" in runtime


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
    project = tmp_path / "my project"
    of_10 = {**names, "manifests": manifests, "project": project, "settings": names["workspace"].settings}
    of_10["study"] = optuna.create_study(direction="maximize")
    objective = run_cells("05", ["n05-011"], {"score": lambda *choice: 0.5})["objective"]
    of_10["study"].optimize(objective, n_trials=1)
    of_10 = run_cells("10", ["m10-30"], of_10)
    assert of_10["experiment"] == DOCUMENTS["Experiment/driver-sweep"]
    of_09 = {**names, "shutil": shutil, "shipped": shipped, "captured_trainer": captured_trainer}
    of_09 |= {"CustomTrainer": CustomTrainer, "Name": Name, "RUNTIME": RUNTIME}
    of_09["settings"] = of_09["workspace"].settings.cluster
    of_09 = run_cells("09", ["train-021", "train-064"], of_09)
    [committed] = [document for document in DOCUMENTS.values() if document["kind"] == "TrainJob"]
    # The committed job is named by its content, the notebook's by its run.
    name = committed["metadata"]["name"]
    assert json.loads(json.dumps(committed).replace(name, "driver-training")) == of_09["train_job"]


def test_notebook_06_takes_the_volume_for_no_folder_of_a_machine(tmp_path, monkeypatch):
    """Where the home is the folder at which steps mount the volume, the file's second part names it."""
    committed = (CLUSTER / "training_pipeline.yaml").read_bytes()
    image = Cluster().image
    (tmp_path / "recompiled.yaml").write_bytes(committed)
    monkeypatch.chdir(tmp_path)
    executors = next(yaml.safe_load_all(committed))["deploymentSpec"]["executors"]
    names = {"compiled": tmp_path / "recompiled.yaml", "IMAGE": image, "executors": executors, "Path": Path}
    run_cells("06", ["n06-check-bytes"], {**names, "workspace": SimpleNamespace(home=Path(Cluster().volume))})


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
    (TRAIN_JOB, "spec/trainer/numNodes", "two"),
    (TRAIN_JOB, "spec/runtimeRef", REMOVED),
    (TRAINING_RUNTIME, "spec/template/spec/replicatedJob", []),
    (TRAINING_RUNTIME, "spec/mlPolicy/torch/numProcPerNode", 1),
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
    planted = [mistake for mistake in MISTAKES if mistake[0].startswith(("InferenceService/", "Train"))]
    for number, (name, place, value) in enumerate(planted):
        (tmp_path / f"{number}.yaml").write_text(manifests.text([changed(DOCUMENTS[name], place, value)]))
    noticed = re.findall(r"/(\d+)\.yaml\[0\]: \w+: \d+ errors", validated(tmp_path).stdout)
    assert sorted(noticed) == [str(number) for number in range(len(planted))]


FEAST = {"project": "driver_ranking", "registry": "../workspace/registry.db", "mlflow": {"enabled": True}}


def test_feast_takes_the_clusters_settings_with_logins_from_the_environment(tmp_path, monkeypatch):
    for name in ("DATABASE_USER", "DATABASE_PASSWORD", "REDIS_PASSWORD"):
        monkeypatch.setenv(name, f"of-{name.lower()}")
    text = DOCUMENTS["ConfigMap/feature-store"]["data"]["feature_store.yaml"]
    (tmp_path / "feature_store.yaml").write_text(text)
    config = load_repo_config(tmp_path, tmp_path / "feature_store.yaml")
    user, end = "of-database_user:of-database_password", "svc.cluster.local"
    assert config.registry.path == f"postgresql+psycopg://{user}@postgres.ml-lifecycle.{end}:5432/feast"
    nodes, options = RedisOnlineStore._parse_connection_string(config.online_store.connection_string)
    assert nodes == [{"host": f"redis.ml-lifecycle.{end}", "port": "6379"}]
    assert options["password"] == "of-redis_password" and options["socket_timeout"] == 1
    assert config.offline_store.type == "duckdb"
    assert config.mlflow.tracking_uri == f"http://mlflow.ml-lifecycle.{end}:5000"


def test_a_store_that_is_a_server_is_kept_and_no_other_is_rendered_beside_it():
    own = {
        **FEAST,
        "registry": {"registry_type": "sql", "path": "postgresql://mine/registry"},
        "online_store": {"type": "dynamodb", "region": "eu-north-1"},
    }
    settings = Settings(model="m", cluster=Cluster(mlflow_uri="https://runs.example.org"))
    kept = manifests.cluster_settings(own, settings.cluster)
    assert (kept["registry"], kept["online_store"]) == (own["registry"], own["online_store"])
    files = manifests.render(settings, own)
    assert {name for name in files if name.startswith("base/")} == {
        f"base/{name}.yaml" for name in ("namespace", "volume", "config", "kustomization")
    }
    [store] = files["features/feature_store.yaml"]
    persistence = [store["spec"]["services"][part]["persistence"] for part in ("onlineStore",)]
    assert persistence == [{"store": {"type": "dynamodb", "secretRef": {"name": Cluster().stores_secret}}}]
    assert store["spec"]["mlflow"]["trackingUri"] == "https://runs.example.org"
    in_a_bucket = manifests.cluster_settings({**FEAST, "registry": "s3://mine/registry.db"}, Cluster())
    assert in_a_bucket["registry"] == "s3://mine/registry.db"


REFUSED = [
    ("model", "driver conversion"),
    ("model", "fraud.v2"),
    ("model", "2024-churn"),
    ("model", "modèle"),
    ("model", "churn-"),
    ("model", "c" * 41),  # with -predictor-ml-lifecycle 64 characters
]


@pytest.mark.parametrize(("name", "value"), REFUSED, ids=[value[:9] for _, value in REFUSED])
def test_a_name_that_a_cluster_refuses_is_refused_when_it_is_rendered(name, value):
    with pytest.raises(ValueError, match=re.escape(repr(value))):
        inference_service(Settings(**{name: value}))
    assert inference_service(Settings(model="c" * 40))["metadata"]["name"] == "c" * 40
    assert kubernetes_name("Driver_Ranking") == "driver-ranking"


def test_what_feasts_operator_would_do_by_itself_is_off():
    """Its job would materialize up to now, and Feast's REST server of the registry cannot start."""
    spec = DOCUMENTS["FeatureStore/driver-ranking"]["spec"]
    assert spec["cronJob"] == {"suspend": True}
    assert "restAPI" not in json.dumps(spec)


def test_the_operators_object_names_the_stores_that_its_servers_read_in_the_settings():
    """What it says about stores goes to clients alone, so a difference would show nowhere."""
    [services] = [one["spec"]["services"] for one in DOCUMENTS.values() if one["kind"] == "FeatureStore"]
    [config] = [one for one in DOCUMENTS.values() if "feature_store.yaml" in one.get("data", {})]
    there = yaml.safe_load(config["data"]["feature_store.yaml"])
    assert services["registry"]["local"]["persistence"]["store"]["type"] == there["registry"]["registry_type"]
    assert services["onlineStore"]["persistence"]["store"]["type"] == there["online_store"]["type"]
    assert services["offlineStore"]["persistence"]["file"]["type"] == there["offline_store"]["type"]
    for server in (services["registry"]["local"], services["offlineStore"], services["onlineStore"]):
        [mounted] = [one for one in server["server"]["volumeMounts"] if one["name"] == "settings"]
        assert mounted["subPath"] == "feature_store.yaml"
    assert {"name": "settings", "configMap": {"name": config["metadata"]["name"]}} in services["volumes"]


def test_more_promised_than_allowed_is_refused():
    with pytest.raises(SettingsError, match="memory is more than memory_limit"):
        Settings().replace(cluster={"step": Cluster().step.model_dump() | {"memory": "3Gi"}})


def test_changed_definitions_get_a_job_of_their_own(tmp_path):
    settings, names = Settings(model="m", folder=tmp_path), []
    (tmp_path / "feature_repo").mkdir()
    for text in ("a = 1", "a = 1", "a = 2"):
        (tmp_path / "feature_repo" / "definitions.py").write_text(text)
        names.append(manifests.apply_features(FEAST, settings)["metadata"]["name"])
    assert names[0] == names[1] != names[2] and len(names[2]) < 63


def test_the_server_scales_only_where_the_settings_say_so():
    fixed, scaled = (
        inference_service(Settings(model="m", cluster=Cluster(replicas=2, most_replicas=most)))
        for most in (1, 5)
    )
    kinds = [one["metadata"]["annotations"]["serving.kserve.io/autoscalerClass"] for one in (fixed, scaled)]
    assert kinds == ["none", "hpa"]
    bounds = [
        (one["spec"]["predictor"]["minReplicas"], one["spec"]["predictor"]["maxReplicas"])
        for one in (fixed, scaled)
    ]
    assert bounds == [(2, 2), (2, 5)]


def test_the_server_is_asked_at_the_clock_of_the_settings_and_drains_before_it_ends():
    server = container(DOCUMENTS["InferenceService/driver-conversion"])
    assert server["args"][server["args"].index("--now") + 1] == str(NOW.timestamp())
    assert server["lifecycle"]["preStop"]["sleep"]["seconds"] >= 5
    assert "--now" not in container(inference_service(Settings(model="m")))["args"]


def test_redis_refuses_writes_before_its_limit_and_wants_the_password_of_the_secret():
    [server] = DOCUMENTS["Deployment/redis"]["spec"]["template"]["spec"]["containers"]
    words = server["args"]
    assert int(words[words.index("--maxmemory") + 1]) == 3 * 2**30 // 4  # of 1Gi
    assert words[words.index("--requirepass") + 1] == "$(REDIS_PASSWORD)"
    assert server["env"][0]["valueFrom"]["secretKeyRef"] == {
        "name": Cluster().stores_secret,
        "key": "redis-password",
    }


def test_only_pods_of_ours_reach_the_stores_and_mlflow():
    guarded = {name for name in DOCUMENTS if name.startswith("NetworkPolicy/")}
    assert guarded == {f"NetworkPolicy/{name}" for name in ("redis", "postgres", "mlflow")}
    for name in guarded:
        [rule] = DOCUMENTS[name]["spec"]["ingress"]
        assert {"podSelector": {"matchLabels": LABELS}} in rule["from"]
    for document in DOCUMENTS.values():
        if document["kind"] in ("Deployment", "Job"):
            assert LABELS.items() <= document["spec"]["template"]["metadata"]["labels"].items()
    for step in [*STEPS.values(), *RECURRING_STEPS.values()]:
        assert step["podMetadata"]["labels"] == LABELS
    assert DOCUMENTS["InferenceService/driver-conversion"]["spec"]["predictor"]["labels"] == LABELS


def test_the_copy_waits_for_the_database_that_starts_beside_it(tmp_path):
    """A container that ends at once is started again after longer and longer pauses, and looks stuck."""
    [pod] = [pod for name, pod in pods().items() if name == "Deployment/mlflow"]
    [words] = [one["command"][-1] for one in pod["initContainers"] if one["name"] == "copy"]
    kept = tmp_path / "copies"
    words = words.replace("/ml-lifecycle/copies", str(kept)).replace("/tmp/copy", str(tmp_path / "copy"))
    stand_ins = {
        "pg_isready": f"echo x >> {tmp_path}/asked; [ $(wc -l < {tmp_path}/asked) -ge 3 ]",
        "sleep": "true",
        "pg_dump": f"[ $(wc -l < {tmp_path}/asked) -ge 3 ] && echo a dump",
    }
    for name, body in stand_ins.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    subprocess.run(["sh", "-ec", words], env=environment, check=True, timeout=60)
    assert [path.read_text() for path in kept.iterdir()] == ["a dump\n"]
    subprocess.run(["sh", "-ec", words], env=environment, check=True, timeout=60)  # it is there already
    (tmp_path / "pg_isready").write_text("#!/bin/sh\nexit 1\n")
    shutil.rmtree(kept)
    (tmp_path / "pg_dump").write_text("#!/bin/sh\nexit 1\n")
    assert subprocess.run(["sh", "-ec", words], env=environment, timeout=60).returncode, "it gives up"


def test_before_a_new_image_starts_its_database_is_copied_and_upgraded():
    old, new = (manifests.mlflow_server(Cluster(image=f"mine:{tag}"))[0] for tag in ("1.0", "2.0"))
    [copy, upgrade], [other, _] = (one["spec"]["template"]["spec"]["initContainers"] for one in (old, new))
    assert "pg_dump mlflow" in copy["command"][-1] and copy["command"] != other["command"]
    [server] = old["spec"]["template"]["spec"]["containers"]
    assert upgrade["command"][:3] == ["mlflow", "db", "upgrade"]
    assert f"--backend-store-uri={upgrade['command'][3]}" in server["args"]


def test_mlflow_answers_by_each_name_that_people_use():
    [server] = DOCUMENTS["Deployment/mlflow"]["spec"]["template"]["spec"]["containers"]
    [words] = [word for word in server["args"] if word.startswith("--allowed-hosts=")]
    allowed = words.partition("=")[2].split(",")
    for host in (
        "mlflow:5000",
        "localhost:15001",
        "mlflow.ml-lifecycle.svc:5000",
        "mlflow.ml-lifecycle:5000",
    ):
        assert is_allowed_host_header(allowed, host), host
    assert not is_allowed_host_header(allowed, "evil.example:5000")
    own = manifests.mlflow_server(Cluster(namespace="x", mlflow_hosts=("runs.example.org",)))
    words = own[0]["spec"]["template"]["spec"]["containers"][0]["args"]
    assert "--cors-allowed-origins=http://runs.example.org,https://runs.example.org" in words


def refusals(job: dict) -> list[str]:
    """Why Trainer 2.3 refuses a TrainJob, as an API server said it."""
    spec = job["spec"]
    reserved = RESERVED & {variable["name"] for variable in spec.get("trainer", {}).get("env", [])}
    found = ["spec.trainer.env: must not have reserved envs"] if reserved else []
    for patch in spec.get("runtimePatches", []):
        for nodes in patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]:
            for inner in nodes["template"]["spec"]["template"]["spec"]["containers"]:
                if inner.get("env") and inner["name"] in ("dataset-initializer", "model-initializer", "node"):
                    found.append("spec.runtimePatches: must not have envs for the node containers")
    return found


def test_trainer_admits_the_train_job_and_refuses_variables_where_it_sets_them():
    from kubeflow.trainer.options import (
        ContainerPatch,
        JobSetSpecPatch,
        JobSetTemplatePatch,
        JobSpecPatch,
        JobTemplatePatch,
        PodSpecPatch,
        PodTemplatePatch,
        ReplicatedJobPatch,
        RuntimePatch,
        TrainingRuntimeSpecPatch,
    )

    assert refusals(DOCUMENTS[TRAIN_JOB]) == []
    client, sent = captured_trainer()
    container = ContainerPatch(name="node", env=[{"name": "A", "value": "b"}])
    pod = PodTemplatePatch(spec=PodSpecPatch(containers=[container]))
    nodes = ReplicatedJobPatch(name="node", template=JobTemplatePatch(spec=JobSpecPatch(template=pod)))
    jobs = JobSetTemplatePatch(spec=JobSetSpecPatch(replicated_jobs=[nodes]))
    patch = RuntimePatch(training_runtime_spec=TrainingRuntimeSpecPatch(template=jobs))
    trainer = CustomTrainer(func=shipped.train, env={"PET_NPROC_PER_NODE": "1"})
    client.train(runtime=RUNTIME, trainer=trainer, options=[patch])
    assert [refusal.partition(":")[0] for refusal in refusals(sent[0])] == [
        "spec.trainer.env",
        "spec.runtimePatches",
    ]


def test_a_train_job_says_what_to_run_and_the_runtime_where():
    job, runtime = DOCUMENTS[TRAIN_JOB]["spec"], DOCUMENTS[TRAINING_RUNTIME]
    assert job["runtimeRef"] == {"kind": runtime["kind"], "name": runtime["metadata"]["name"]}
    assert set(job) == {"runtimeRef", "trainer"} and set(job["trainer"]) == {"command", "numNodes"}
    pod = pods()[TRAINING_RUNTIME]
    [node] = pod["containers"]
    [nodes] = runtime["spec"]["template"]["spec"]["replicatedJobs"]
    # A pod that fails ends the job and stays, with its log.
    assert (pod["restartPolicy"], nodes["template"]["spec"]["backoffLimit"]) == ("Never", 0)
    assert pod["automountServiceAccountToken"] is False
    assert node["securityContext"]["readOnlyRootFilesystem"] is True
    assert node["image"] == Cluster().image_with_torch != Cluster().image
    # The shipped script lies in the working directory: on the volume, one job would run another's.
    [own] = [volume["name"] for volume in pod["volumes"] if "emptyDir" in volume]
    assert {"name": own, "mountPath": node["workingDir"]} in node["volumeMounts"]
    assert not node["workingDir"].startswith(Cluster().volume)
    assert nodes["template"]["spec"]["template"]["metadata"]["labels"] == LABELS, "else no store admits it"
    # Trainer counts processes by the CPU that is requested, rounded up.
    assert math.ceil(float(parse_quantity(node["resources"]["requests"]["cpu"]))) == 1


def test_another_training_is_another_train_job_in_a_folder_of_its_own():
    jobs = [train_job("a", {"folder": "/v", "C": c}, 2, Cluster()) for c in (1.0, 1.0, 0.5)]
    names = [job["metadata"]["name"] for job in jobs]
    assert jobs[0] == jobs[1] and names[0] != names[2] and re.fullmatch("a-[0-9a-f]{8}", names[0])
    assert f"'folder': '/v/{names[0]}'" in jobs[0]["spec"]["trainer"]["command"][-1]


def test_the_training_image_has_a_name_of_its_own():
    assert Cluster(image="r/x:1").image_with_torch == "r/x:1-distributed"
    assert Cluster(image="r/x@sha256:0", training_image="r/y:1").image_with_torch == "r/y:1"
    with pytest.raises(SettingsError, match=r"cluster\.training_image: not set"):
        training_runtime(Cluster(image="r/x@sha256:0"))


def test_every_pod_is_guarded_and_limited_and_names_a_pinned_image():
    assert len(pods()) == 10
    for name, pod in pods().items():
        assert pod["securityContext"]["runAsUser"] == pod["securityContext"]["fsGroup"] == USER, name
        assert pod["securityContext"]["runAsNonRoot"] is True and pod["enableServiceLinks"] is False, name
        assert pod["securityContext"]["runAsGroup"] == USER, name
        assert pod.get("serviceAccountName") or pod["automountServiceAccountToken"] is False, name
        for inner in [*pod.get("initContainers", []), *pod["containers"]]:
            assert inner["securityContext"]["allowPrivilegeEscalation"] is False, name
            assert inner["securityContext"]["capabilities"] == {"drop": ["ALL"]}, name
            # The notebooks make their environment in the container.
            assert inner["securityContext"].get("readOnlyRootFilesystem") or name == "Job/notebooks", name
            limits = inner["resources"]
            assert set(limits["requests"]) == set(limits["limits"]) == {"cpu", "memory"}, name
            assert re.search(r":\d+\.\d+", inner["image"]), f"{inner['image']} is not pinned"
            if name.startswith(("Deployment/", "InferenceService/")) and inner in pod["containers"]:
                assert {"readinessProbe", "livenessProbe"} <= set(inner), name


def test_a_server_names_the_same_volume_address_and_secrets_as_a_step_of_the_pipeline():
    step = STEPS["exec-register-model"]
    service = DOCUMENTS["InferenceService/driver-conversion"]
    server = container(service)
    named = {
        one["name"]: next(iter(one["valueFrom"].values())) for one in server["env"] if "valueFrom" in one
    }
    sources = [(one, "configMap") for one in step["configMapAsEnv"]]
    sources += [(one, "secret") for one in step["secretAsEnv"]]
    for source, kind in sources:
        for pair in source["keyToEnv"]:
            assert named.pop(pair["envVar"]) == {"name": source[f"{kind}Name"], "key": pair[f"{kind}Key"]}
    assert named == {}
    [claim], [mount], [volume] = (
        step["pvcMount"],
        server["volumeMounts"][:1],
        service["spec"]["predictor"]["volumes"][:1],
    )
    assert volume["persistentVolumeClaim"]["claimName"] == claim["constant"]
    assert (mount["mountPath"], mount["name"]) == (claim["mountPath"], volume["name"])


def test_no_file_holds_a_secret_and_the_script_makes_every_secret_that_is_named():
    text = "\n".join(path.read_text() for path in CLUSTER.rglob("*.yaml"))
    assert "kind: Secret\n" not in text and not re.search(r"(?i)password:\s*\S", text)
    named = set(re.findall(r"secretKeyRef:\s+name: (\S+)\s+key: (\S+)", text))
    named |= {
        (one["secretName"], pair["secretKey"])
        for s in STEPS.values()
        for one in s["secretAsEnv"]
        for pair in one["keyToEnv"]
    }
    assert named == set(secrets(Cluster()).values())
    script = (CLUSTER / "secrets.sh").read_text()
    login, stores = Cluster().login_secret, Cluster().stores_secret
    made = {login: {"user", "password"}, stores: {"database-user", "database-password", "redis-password"}}
    assert {(name, key) for name, keys in made.items() for key in keys} == named
    assert all(f":-{name}}}" in script and f"{key}=%s" in script for name, key in named)


def test_the_secrets_have_the_names_of_the_settings_everywhere():
    names = {"login_secret": "a-login", "stores_secret": "a-store"}
    settings = Settings(model="m", cluster=Cluster(**names))
    steps = json_format.MessageToDict(training_pipeline(settings.cluster).platform_spec)
    feast = FEAST | {"online_store": {"type": "redis", "connection_string": "redis:6379"}}
    text = json.dumps([manifests.render(settings, feast), steps, recurring_run(settings)])
    found = set(re.findall(r"[\w-]+", text))
    assert set(names.values()) <= found
    assert not {Cluster().login_secret, Cluster().stores_secret} & found


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


def test_recurring_run_and_workflow_start_one_command_with_the_projects_settings(capsys):
    [executor] = RECURRING["pipeline_spec"]["pipeline_spec"]["deploymentSpec"]["executors"].values()
    command = [*executor["container"]["command"], *executor["container"]["args"]]
    assert command.pop(2) == "{{$.inputs.parameters['settings']}}"
    settings = Settings.from_json(RECURRING["runtime_config"]["parameters"]["settings"])
    workflow = yaml.safe_load((REPOSITORY / ".github" / "workflows" / "retrain.yml").read_text())
    *_, last = workflow["jobs"]["retrain"]["steps"]
    program, *arguments = shlex.split(last["run"])
    file = arguments.pop(1)
    assert [program.removeprefix(".venv/bin/"), *arguments] == command
    arguments.insert(1, str(REPOSITORY / FILE))
    assert cli.main([*arguments, "--help"], standalone_mode=False) == 0
    assert file == f"{Cluster().volume}/{FILE}" and "Train on a window of" in capsys.readouterr().out
    ours = Settings.load(REPOSITORY / FILE)
    assert settings.labels == Cluster().on_volume(ours.labels) and settings.model == ours.model
    assert settings.retraining.outputs == Cluster().on_volume(ours.retraining.outputs)

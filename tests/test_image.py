"""The image, built once and used: the compiled pipeline with each step in a container, a server, a trial.

It takes Docker. Without an engine that answers, these tests are skipped, which in CI is a failure.
``IMAGE_BASE`` names an image to build on that the engine holds already; then nothing is fetched. Without it,
the Dockerfile's own base and the packages come from the network.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from uuid import uuid4

import database
import numpy as np
import pandas as pd
import pytest
import requests
import yaml
from optuna.distributions import CategoricalDistribution
from packaging.requirements import Requirement

from conftest import apply, save_reference
from helpers.containers import lacking
from helpers.data import NOW
from helpers.services import HOST, Service, free_port
from helpers.start import MODEL, REFERENCE
from helpers.workspace import REPOSITORY, WorkshopError, configure, create_home
from lifecycle.cluster import katib, manifests
from lifecycle.cluster.inference_service import PORT, container, inference_service
from lifecycle.cluster.manifests import MLFLOW_PORT
from lifecycle.features.contract import FeatureContract
from lifecycle.features.retrieval import historical_features
from lifecycle.models.model import new_model, split
from lifecycle.objects import USER
from lifecycle.settings import FILE, IMAGE, Cluster, Settings
from lifecycle.training import pipeline
from workshop import commands
from workshop.image import build, engine

# With the other tests that need a folder of wheels, so that it is filled once.
pytestmark = [pytest.mark.system, pytest.mark.xdist_group("wheels")]

CHOICE = {"C": 0.5, "degree": 2, "weights": "balanced"}
INPUTS = {"feature_service": "rates", "label": "label"}
SETTINGS = Settings.load(REPOSITORY / FILE)
VOLUME = SETTINGS.cluster.volume
ON_VOLUME = {"feature_repo": f"{VOLUME}/feature_repo", "labels": f"{VOLUME}/data/driver_labels.parquet"}
DRIVERS = list(range(1001, 1015))
PATIENCE = 600  # seconds until a server is ready, on a machine that does much else
SEARCH = "/api/2.0/mlflow/experiments/search?max_results=5"


@pytest.fixture(scope="module")
def docker():
    """Runs the docker program and gives what it prints."""
    try:
        engine("docker")
    except WorkshopError as error:
        pytest.skip(f"the image is neither built nor run: {error}")

    def run(*arguments: object) -> str:
        done = subprocess.run(["docker", *map(str, arguments)], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout

    return run


def made(docker, request, **options: bool) -> str:
    """An image on the base that the engine holds. Its stages are built once: the engine keeps them."""
    base, wheels = os.environ.get("IMAGE_BASE", ""), None
    if base:
        python = docker("run", "--rm", "--network", "none", base, "python3", "--version")
        if python.startswith(f"Python 3.{sys.version_info[1]}."):
            wheels = request.getfixturevalue("wheels")
    return build("docker", base, wheels, **options)


@pytest.fixture(scope="module")
def image(docker, request) -> str:
    """The image, built once."""
    return made(docker, request)


LOGINS = {
    "MLFLOW_TRACKING_USERNAME": "nobody",
    "MLFLOW_TRACKING_PASSWORD": "not-asked-for",
    "DATABASE_USER": database.USER,
    "DATABASE_PASSWORD": database.PASSWORD,
    "REDIS_PASSWORD": "open-sesame",
}


def as_its_manifest_says(server: dict, changes: dict[str, str]) -> list[str]:
    """A container's command line with some of its words as this machine needs them."""
    names = {**changes, **{f"$({name})": value for name, value in LOGINS.items()}}
    pattern = "|".join(map(re.escape, names))
    words = [*server.get("command", []), *server["args"]]
    return [re.sub(pattern, lambda found: names[found[0]], word) for word in words]


@pytest.fixture(scope="module")
def world(tmp_path_factory, docker, image, postgres):
    """The stores as a cluster has them: registry and runs in PostgreSQL, features online in Redis, MLflow's
    server and Redis as their manifests start them. A home that is the cluster's volume, and what this process
    finds on it: the model that the pipeline should register, a trial's score, and what should be served.
    """
    from mlflow.tracking._tracking_service import utils

    program = shutil.which("redis-server") or pytest.skip("redis-server is not installed")
    folder = tmp_path_factory.mktemp("cluster")
    for name in (manifests.FEAST, manifests.MLFLOW):
        postgres.new(name)
    there = Cluster(database=f"{HOST}:{postgres.port}", redis=f"{HOST}:{free_port()}")
    [of_redis], [server] = (
        found[0]["spec"]["template"]["spec"]["containers"]
        for found in (manifests.redis(there), manifests.mlflow_server(there))
    )
    port = there.redis.rpartition(":")[2]
    start_redis = as_its_manifest_says(of_redis, {str(manifests.REDIS_PORT): port, "redis-server": program})
    here = {VOLUME: str(folder), "0.0.0.0": HOST, str(MLFLOW_PORT): "{port}"}
    command = [sys.executable, "-m", *as_its_manifest_says(server, here)]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(Path.cwd())
        for name in ("MLFLOW_TRACKING_URI", "TZ", "PATH"):
            patch.setenv(name, os.environ.get(name, ""))
        for name, value in LOGINS.items():
            patch.setenv(name, value)
        for pair in server["env"]:
            if "value" in pair:
                patch.setenv(pair["name"], pair["value"])
        patch.setattr(utils, "_tracking_uri", utils._tracking_uri)  # `at` changes it
        health = server["readinessProbe"]["httpGet"]["path"]
        logs = folder / "logs"
        with (
            Service(
                "Redis", [*start_redis, "--bind", HOST], health=None, log=logs / "redis.log", port=int(port)
            ),
            Service("MLflow", command, health=health, log=logs / "mlflow.log", timeout=PATIENCE) as mlflow,
        ):
            [header] = server["livenessProbe"]["httpGet"]["httpHeaders"]
            for host, path, status in ((header["value"], health, 200), ("evil.example", SEARCH, 403)):
                answer = requests.get(mlflow.url + path, headers={"Host": host}, timeout=30)
                assert answer.status_code == status, answer.text
            found = SimpleNamespace(tracking=mlflow.url, folder=folder)
            found.home = create_home(folder / "volume")
            settings = found.home.feature_repo / "feature_store.yaml"
            there = there.model_copy(update={"mlflow_uri": mlflow.url})
            changed = manifests.cluster_settings(yaml.safe_load(settings.read_text()), there)
            settings.write_text(yaml.safe_dump(changed))
            at(found)
            store = apply(found.home)
            save_reference(store, found.home)
            store.materialize(NOW - pd.Timedelta(days=7), NOW)

            labels = found.home.data / "driver_labels.parquet"
            service = store.get_feature_service(INPUTS["feature_service"])
            found.contract = FeatureContract.from_feature_service(store, *INPUTS.values())
            rows, _ = split(historical_features(store, pd.read_parquet(labels), service))
            found.model = new_model(**CHOICE).fit(rows[found.contract.columns], rows.label)
            place = {"feature_repo": str(found.home.feature_repo), "labels": str(labels)}
            found.score = katib.trial(**CHOICE, **place, **INPUTS)
            keys = [{"driver_id": driver} for driver in DRIVERS]
            online = store.get_online_features(service, keys).to_df()
            found.served = found.model.predict_proba(online[found.contract.columns])[:, 1]

            found.user = os.getuid() or USER
            if found.user != os.getuid():  # root may give files away, and so the image's own user gets them
                subprocess.run(["chown", "-R", f"{USER}:{USER}", found.home.home], check=True)
            # Under its own path too: the registry names the sources by it.
            found.mounts = [(str(found.home.home), target) for target in (VOLUME, str(found.home.home))]
            found.mounted = ["--network", "host", "--user", f"{found.user}:{found.user}"]
            found.mounted += [word for pair in found.mounts for word in ("--volume", ":".join(pair))]
            yield found


def at(world) -> None:
    """As `configure`, with MLflow behind its server."""
    import mlflow

    configure(world.home)
    os.environ["MLFLOW_TRACKING_URI"] = world.tracking
    mlflow.set_tracking_uri(world.tracking)


@pytest.fixture(scope="module")
def registered(world) -> SimpleNamespace:
    """What the committed file registers and leaves, run by Kubeflow's own runner for containers."""
    import mlflow
    from docker.types import Mount
    from kfp import components, local

    at(world)
    outputs = world.folder / "outputs"
    outputs.mkdir()
    os.chown(outputs, world.user, -1)
    runner = local.DockerRunner(
        network_mode="host",
        user=f"{world.user}:{world.user}",
        environment={"MLFLOW_TRACKING_URI": world.tracking, **LOGINS},
        mounts=[Mount(target, source, type="bind") for source, target in world.mounts],
    )
    local.init(runner, pipeline_root=str(outputs), raise_on_error=True)
    log = world.folder / "logs" / "pipeline.log"
    with pipeline.local_run(log):
        components.load_component_from_file(str(REPOSITORY / "cluster" / commands.PIPELINE))(
            reference=REFERENCE,
            experiment="training_pipeline",
            run_name="in containers",
            model_name=MODEL,
            threshold=0.5,
            **ON_VOLUME,
            **INPUTS,
            hyperparameters=json.dumps(CHOICE),
        )
    [version] = mlflow.MlflowClient().search_model_versions(f"name = '{MODEL}'")
    return SimpleNamespace(version=version, log=log.read_text(), outputs=outputs)


LOOK = """
import importlib, json, os, pkgutil, shutil, sys, tempfile
from importlib.metadata import distributions
import lifecycle
for found in pkgutil.walk_packages(lifecycle.__path__, "lifecycle."):
    importlib.import_module(found.name)
for server in ("feature_server", "offline_server", "registry_server"):  # Feast's operator starts them
    importlib.import_module(f"feast.{server}")
tempfile.mkdtemp()
absent = "helpers exercises workshop notebooks IPython jupyterlab papermill evidently torch".split()
print(json.dumps({
    "packages": [[one.name, one.version] for one in distributions()],
    "place": lifecycle.__file__,
    "found": [name for name in absent if importlib.util.find_spec(name)],
    "compilers": [name for name in "gcc cc g++ c++ clang make uv".split() if shutil.which(name)],
    "python": sys.version.split()[0],
    "user": os.getuid(),
    "may change its packages": os.access(os.__file__, os.W_OK),
}))
"""


def test_the_image_holds_the_listed_packages_and_lifecycle_and_nothing_else(docker, image):
    assert lacking(image) == "" and "`make image` builds it" in lacking("nobody-built-it:1")
    alone = ["run", "--rm", "--network", "none", image]
    found = json.loads(docker(*alone, "python", "-c", LOOK).splitlines()[-1])
    lines = (REPOSITORY / "cluster" / "requirements.txt").read_text().splitlines()
    listed = [Requirement(line.rstrip("\\")) for line in lines if re.match(r"\w", line)]
    python = {"python_full_version": found["python"], "python_version": found["python"].rpartition(".")[0]}
    wanted = {
        (one.name, str(one.specifier)[2:]) for one in listed if not one.marker or one.marker.evaluate(python)
    }
    wanted.add(("ml-lifecycle", version("ml-lifecycle")))
    assert {(re.sub(r"[-_.]+", "-", name).lower(), number) for name, number in found["packages"]} == wanted
    assert "/site-packages/" in found["place"]
    assert found["found"] == [] and found["compilers"] == []
    assert found["user"] == USER and not found["may change its packages"]

    [inspected] = json.loads(docker("image", "inspect", image))
    assert inspected["Config"]["User"] == f"{USER}:{USER}"
    assert inspected["Config"]["Labels"]["org.opencontainers.image.version"] == IMAGE.rpartition(":")[2]
    assert inspected["Size"] < 1.6e9, f"{inspected['Size'] / 1e9:.2f} GB"
    check = inspected["Config"]["Healthcheck"]["Test"][1:]
    assert f"or '{PORT}'" in check[-1]
    unhealthy = subprocess.run(["docker", *alone, *check], capture_output=True, text=True)
    assert unhealthy.returncode == 1 and "Connection refused" in unhealthy.stderr


def test_the_compiled_pipeline_runs_with_each_step_in_a_container_and_registers_an_equal_model(
    world, registered
):
    import mlflow

    at(world)
    steps = [path for path in registered.outputs.glob("training-pipeline-*/*") if path.is_dir()]
    assert len(steps) == 7 and registered.log.count(f"Found image '{IMAGE}'") == 7
    made = {path.stat().st_uid for step in steps for path in step.rglob("*") if path.is_file()}
    assert made == {world.user} != {0}, "a step wrote as another user"
    tags = registered.version.tags
    assert tags["made_by"] == "pipeline"
    assert mlflow.get_run(tags["pipeline.parent_run"]).info.status == "FINISHED"
    model = mlflow.sklearn.load_model(f"models:/{MODEL}/{registered.version.version}")
    assert list(model.feature_names_in_) == world.contract.columns
    rows = pd.DataFrame(np.random.default_rng(0).random((500, 2)), columns=world.contract.columns)
    theirs, ours = (one.predict_proba(rows)[:, 1] for one in (model, world.model))
    assert ours.std() > 0.01 and np.abs(theirs - ours).max() < 1e-12


def guarded(inner: dict) -> list[str]:
    """What a container's manifest says of its rights and its folders, in Docker's words."""
    assert inner["securityContext"]["readOnlyRootFilesystem"] and inner["workingDir"] == "/tmp"
    words = ["--read-only", "--tmpfs", "/tmp", "--workdir", inner["workingDir"]]
    return [*words, "--cap-drop", "ALL", "--security-opt", "no-new-privileges"]


def variables(inner: dict, world: SimpleNamespace) -> list[str]:
    """The environment that a container's manifest says, with the logins of this machine's servers."""
    known = {"MLFLOW_TRACKING_URI": world.tracking, **LOGINS}
    pairs = {one["name"]: one.get("value") or known[one["name"]] for one in inner["env"]}
    return [word for pair in pairs.items() for word in ("--env", "=".join(pair))]


def test_the_server_runs_as_its_inference_service_says_and_scores_as_this_process(
    docker, world, image, registered, request
):
    import mlflow

    at(world)
    mlflow.MlflowClient().set_registered_model_alias(MODEL, "production", registered.version.version)
    port = free_port()
    found = container(inference_service(SETTINGS, port=port))
    assert found["image"] == image and found["volumeMounts"][0]["mountPath"] == VOLUME
    name = f"served-{uuid4().hex[:8]}"
    # It outlives its client when that one is killed.
    request.addfinalizer(lambda: subprocess.run(["docker", "rm", "--force", name], capture_output=True))
    command = ["docker", "run", "--rm", "--name", name, *guarded(found), *world.mounted]
    # PORT is for the image's own health check alone; the object has probes.
    command += ["--env", f"PORT={port}"]
    command += [*variables(found, world), found["image"], *found["command"], *found["args"]]
    ready, live = (found[probe]["httpGet"]["path"] for probe in ("readinessProbe", "livenessProbe"))
    log = world.folder / "logs" / "served.log"
    with Service("container", command, health=ready, log=log, port=port, timeout=PATIENCE) as server:
        rows = {"instances": [{"driver_id": driver} for driver in DRIVERS]}
        answer = requests.post(f"{server.url}/v1/models/{MODEL}:predict", json=rows, timeout=30)
        assert answer.status_code == 200, answer.text
        assert requests.get(server.url + live, timeout=10).status_code == 200
        [inspected] = json.loads(docker("image", "inspect", image))
        docker("exec", name, *inspected["Config"]["Healthcheck"]["Test"][1:])
        processes = docker("top", name, "-eo", "pid,uid,args").splitlines()[1:]
    scores = answer.json()["predictions"]
    assert len(set(scores)) > 10 and scores == pytest.approx(list(world.served), abs=1e-12)
    assert answer.json()["model_version"] == registered.version.version
    assert {int(line.split()[1]) for line in processes} == {world.user}


def test_a_trial_runs_in_a_container_as_its_job_would_start_it(docker, world, image):
    space = {name: CategoricalDistribution([value]) for name, value in CHOICE.items()}
    experiment = katib.experiment("driver-sweep", space, ON_VOLUME | INPUTS, 1, SETTINGS.cluster)
    template = json.dumps(experiment["spec"]["trialTemplate"]["trialSpec"])
    for name, value in CHOICE.items():
        template = template.replace(f"${{trialParameters.{name}}}", str(value))
    assert "trialParameters" not in template
    [job] = json.loads(template)["spec"]["template"]["spec"]["containers"]
    assert job["image"] == image
    asked = [*guarded(job), *variables(job, world), *world.mounted]
    printed = docker("run", "--rm", *asked, job["image"], *job["command"], *job["args"])
    [score] = re.findall(r"(?m)^auc=(0\.\d+)$", printed)
    assert float(score) == pytest.approx(world.score, abs=1e-6) and world.score > 0.6

"""The image, built and used: the pipeline from its file with each step in a container, the model server as its InferenceService says, a trial of Katib.

It takes Docker. Without an engine that answers these tests are skipped, which in CI is a failure. ``IMAGE_BASE`` names an image to build on that the
engine holds already; then nothing is fetched. Without it, the Dockerfile's own base and the packages come from the network.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from uuid import uuid4

import numpy as np
import pandas as pd
import pytest
import requests
import yaml
from conftest import apply, save_reference
from packaging.requirements import Requirement

from helpers.containers import lacking
from helpers.data import NOW
from helpers.services import HOST, Service, free_port
from helpers.start import MODEL, REFERENCE
from helpers.workspace import REPOSITORY, WorkshopError, configure, create_home
from lifecycle import IMAGE, katib, pipeline
from lifecycle.cluster import USER, VOLUME
from lifecycle.inference_service import container, inference_service
from workshop import commands
from workshop.image import build, engine

CHOICE = {"C": 0.5, "degree": 2, "weights": "balanced"}
INPUTS = {"feature_service": "rates", "label": "label"}
COMPILED = REPOSITORY / "cluster" / commands.PIPELINE


MOVED_IN = """
feast -c feature_repo apply
exec python - "$0" <<'END'
import sys
import pandas as pd
from feast import FeatureStore
from feast.infra.offline_stores.file_source import SavedDatasetFileStorage

store = FeatureStore(repo_path="feature_repo")
tags = store.registry.get_saved_dataset(sys.argv[1], store.project).tags
labels = pd.read_parquet("data/driver_labels.parquet").head(200)
store.create_saved_dataset(
    from_=store.get_historical_features(labels, store.get_feature_service("rates_and_rating")),
    name=sys.argv[1], tags=tags, allow_overwrite=True,
    storage=SavedDatasetFileStorage(path="/ml-lifecycle/workspace/reference.parquet"),
)
END
"""
"""What makes a home at home on the volume: its registry names the sources and the saved data set by the paths of the host. ``feast apply`` mends the
first; the second is saved anew."""


@pytest.fixture(scope="session")
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


@pytest.fixture(scope="session")
def image(docker, request) -> str:
    """The image, built once."""
    base, wheels = os.environ.get("IMAGE_BASE", ""), None
    if base:
        python = docker("run", "--rm", "--network", "none", base, "python3", "--version")
        if python.startswith(f"Python 3.{sys.version_info[1]}."):
            wheels = request.getfixturevalue("wheels")
    build("docker", base, wheels)
    return IMAGE


@pytest.fixture(scope="module")
def world(tmp_path_factory, docker, image):
    """MLflow behind its server, and two homes that it serves: the laptop's, and one that is the cluster's volume."""
    from mlflow.tracking._tracking_service import utils

    folder = tmp_path_factory.mktemp("a cluster's volume")
    store = [
        "--backend-store-uri",
        f"sqlite:///{folder / 'mlflow.db'}",
        "--artifacts-destination",
        folder / "artifacts",
    ]
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "server",
        "--host",
        HOST,
        "--port",
        "{port}",
        "--workers",
        "1",
        *store,
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(Path.cwd())
        for name in ("MLFLOW_TRACKING_URI", "TZ", "PATH"):
            patch.setenv(name, os.environ.get(name, ""))
        patch.setenv("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")
        patch.setattr(
            utils, "_tracking_uri", utils._tracking_uri
        )  # `at` changes it, and the server will be gone
        with Service("MLflow", command, health="/health", log=folder / "logs" / "mlflow.log") as server:
            laptop, volume = (home(folder / name, server.url) for name in ("laptop é [1]", "volume"))
            if os.getuid() == 0:  # root may give files away, and so the image's own user gets them
                user = f"{USER}:{USER}"
                subprocess.run(["chown", "-R", user, volume.home], check=True)
            else:
                user = f"{os.getuid()}:{os.getgid()}"
            mounted = ["--network", "host", "--user", user, "--volume", f"{volume.home}:{VOLUME}"]
            docker("run", "--rm", *mounted, image, "sh", "-ec", MOVED_IN, REFERENCE)
            yield SimpleNamespace(
                laptop=laptop, volume=volume, tracking=server.url, user=user, mounted=mounted, folder=folder
            )


def home(folder: Path, tracking: str):
    """A home with the definitions applied, the suite stored and the features online, whose settings name MLflow's server."""
    found = create_home(folder)
    settings = found.feature_repo / "feature_store.yaml"
    told = yaml.safe_load(settings.read_text())
    told["mlflow"]["tracking_uri"] = tracking
    settings.write_text(yaml.safe_dump(told))
    at(found, tracking)
    store = apply(found)
    save_reference(store, found)
    store.materialize(NOW - pd.Timedelta(days=7), NOW)
    return found


def at(found, tracking: str) -> None:
    """As `configure`, with MLflow behind its server."""
    import mlflow

    configure(found)
    os.environ["MLFLOW_TRACKING_URI"] = tracking
    mlflow.set_tracking_uri(tracking)


def run_pipeline(world, runner, seen: Path, outputs: Path, name: str) -> tuple[str, str]:
    """The committed file with one of Kubeflow's local runners: the version that it registered, and its log."""
    import mlflow
    from kfp import components, local

    at(world.laptop, world.tracking)
    local.init(runner, pipeline_root=str(outputs), raise_on_error=True)
    log = world.folder / "logs" / f"{name}.log"
    with pipeline.local_run(log):
        components.load_component_from_file(str(COMPILED))(
            feature_repo=str(seen / "feature_repo"),
            labels=str(seen / "data" / "driver_labels.parquet"),
            reference=REFERENCE,
            experiment="training_pipeline",
            run_name=name,
            model_name=MODEL,
            threshold=0.5,
            **INPUTS,
            **CHOICE,
        )
    client = mlflow.MlflowClient()
    (parent,) = mlflow.search_runs(
        experiment_names=["training_pipeline"],
        filter_string=f"attributes.run_name = '{name}'",
        output_format="list",
    )
    assert parent.info.status == "FINISHED"
    (version,) = client.search_model_versions(f"tag.`pipeline.parent_run` = '{parent.info.run_id}'")
    return version.version, log.read_text()


@pytest.fixture(scope="module")
def in_processes(world) -> str:
    from kfp import local

    outputs = world.folder / "out of processes"
    version, _ = run_pipeline(
        world, local.SubprocessRunner(use_venv=False), world.laptop.home, outputs, "in processes"
    )
    return version


@pytest.fixture(scope="module")
def in_containers(world) -> SimpleNamespace:
    from docker.types import Mount
    from kfp import local

    outputs = world.folder / "out of containers"
    outputs.mkdir()
    if os.getuid() == 0:
        os.chown(outputs, USER, USER)
    runner = local.DockerRunner(
        network_mode="host",
        user=world.user,
        environment={"MLFLOW_TRACKING_URI": world.tracking},
        mounts=[Mount(VOLUME, str(world.volume.home), type="bind")],
    )
    version, log = run_pipeline(world, runner, Path(VOLUME), outputs, "in containers")
    return SimpleNamespace(version=version, log=log, outputs=outputs)


def test_the_image_holds_the_packages_of_its_list_and_lifecycle_and_nothing_else(docker, image):
    look = """
import json, importlib, pkgutil, shutil, sys
from importlib.metadata import distributions
import lifecycle
for found in pkgutil.iter_modules(lifecycle.__path__):
    importlib.import_module(f"lifecycle.{found.name}")
absent = "helpers exercises workshop notebooks IPython jupyterlab papermill evidently torch".split()
print(json.dumps({
    "packages": [[one.name, one.version] for one in distributions()],
    "place": lifecycle.__file__,
    "found": [name for name in absent if importlib.util.find_spec(name)],
    "compilers": [name for name in "gcc cc g++ c++ clang make uv".split() if shutil.which(name)],
    "python": sys.version.split()[0],
}))
"""
    found = json.loads(
        docker("run", "--rm", "--network", "none", image, "python", "-c", look).splitlines()[-1]
    )
    lines = (REPOSITORY / "cluster" / "requirements.txt").read_text().splitlines()
    listed = [Requirement(line.rstrip("\\")) for line in lines if re.match(r"\w", line)]
    of_python = {"python_full_version": found["python"], "python_version": found["python"].rpartition(".")[0]}
    wanted = {
        (one.name, str(one.specifier)[2:])
        for one in listed
        if not one.marker or one.marker.evaluate(of_python)
    }
    assert {(re.sub(r"[-_.]+", "-", name).lower(), version) for name, version in found["packages"]} == wanted
    assert "/site-packages/" in found["place"]
    assert found["found"] == [] and found["compilers"] == []


def test_a_notebook_sees_whether_the_image_is_there(image):
    assert lacking(image) == ""
    assert (
        lacking("nobody-built-it:1") == "Docker holds no image nobody-built-it:1 yet; `make image` builds it"
    )


def test_it_says_what_it_is_and_runs_as_nobody_in_particular(docker, image):
    (told,) = json.loads(docker("image", "inspect", image))
    assert told["Config"]["User"] == f"{USER}:{USER}"
    labels = told["Config"]["Labels"]
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert labels["org.opencontainers.image.version"] == IMAGE.rpartition(":")[2]
    assert told["Size"] < 1.6e9, f"{told['Size'] / 1e9:.2f} GB: has something heavy come along?"
    writes = "import os, tempfile; tempfile.mkdtemp(); print(os.getuid(), os.access(os.__file__, os.W_OK))"
    assert docker("run", "--rm", "--network", "none", image, "python", "-c", writes) == f"{USER} False\n"


def test_the_pipeline_runs_from_its_file_with_each_step_in_a_container_and_registers_an_equal_model(
    world, in_containers, in_processes
):
    import mlflow

    steps = sorted(path for path in in_containers.outputs.glob("training-pipeline-*/*") if path.is_dir())
    assert len(steps) == 7 and in_containers.log.count(f"Found image '{IMAGE}'") == 7
    owner = int(world.user.split(":")[0])
    made = {path.stat().st_uid for step in steps for path in step.rglob("*") if path.is_file()}
    assert made == {owner} != {0}, "a step wrote as another user"
    assert in_containers.version != in_processes
    versions = [
        mlflow.MlflowClient().get_model_version(MODEL, one) for one in (in_processes, in_containers.version)
    ]
    assert [one.tags["made_by"] for one in versions] == ["pipeline", "pipeline"]
    assert versions[0].tags["feast.feature_refs"] == versions[1].tags["feast.feature_refs"]
    models = [mlflow.sklearn.load_model(f"models:/{MODEL}/{one.version}") for one in versions]
    rows = pd.DataFrame(np.random.default_rng(0).random((500, 2)), columns=models[0].feature_names_in_)
    theirs, ours = (model.predict_proba(rows)[:, 1] for model in models)
    assert ours.std() > 0.01 and np.abs(theirs - ours).max() < 1e-12
    aucs = [
        mlflow.search_runs(
            experiment_names=["training_pipeline"],
            filter_string=f"tags.`mlflow.parentRunId` = '{one.tags['pipeline.parent_run']}' and attributes.run_name = 'evaluate'",
        )["metrics.auc"].item()
        for one in versions
    ]
    assert aucs[0] == pytest.approx(aucs[1], abs=1e-12) and aucs[0] > 0.6


def told(found: dict, values: dict[tuple[str, str], str]) -> list[str]:
    """The environment of a container as a pod would get it: each reference, resolved, as an argument of `docker run`."""
    given = []
    for one in found["env"]:
        ((_, reference),) = one["valueFrom"].items()
        given += ["--env", f"{one['name']}={values[reference['name'], reference['key']]}"]
    return given


def test_the_server_runs_as_its_inference_service_says_and_scores_as_the_local_one(
    docker, world, image, in_containers
):
    import mlflow

    at(world.laptop, world.tracking)
    mlflow.MlflowClient().set_registered_model_alias(MODEL, "production", in_containers.version)
    port = free_port()
    service = inference_service("driver-conversion", MODEL, port=port, now=NOW.timestamp())
    found = container(service)
    assert found["image"] == image and found["volumeMounts"][0]["mountPath"] == VOLUME
    values = {("mlflow", "tracking-uri"): world.tracking, ("mlflow-login", "password"): "not asked for"}
    name = f"served-{uuid4().hex[:8]}"
    limits = ["--cap-drop", "ALL", "--security-opt", "no-new-privileges"]
    # PORT is for the image's own health check alone; the object has probes.
    started = ["docker", "run", "--rm", "--name", name, *world.mounted, *limits, *told(found, values)]
    started += ["--env", f"PORT={port}", found["image"], *found["command"], *found["args"]]
    local_server = [sys.executable, "-m", "lifecycle.serving", "--feature-repo", world.laptop.feature_repo]
    local_server += ["--model", MODEL, "--port", "{port}", "--now", NOW.timestamp()]
    ready = found["readinessProbe"]["httpGet"]["path"]
    logs = world.folder / "logs"
    asked = {"instances": [{"driver_id": driver} for driver in range(1001, 1015)]}
    with (
        Service("container", started, health=ready, log=logs / "container.log", port=port) as there,
        Service("here", local_server, health=ready, log=logs / "here.log") as here,
    ):
        answers = [
            requests.post(f"{one.url}/v1/models/{MODEL}:predict", json=asked, timeout=30)
            for one in (there, here)
        ]
        live = requests.get(f"{there.url}{found['livenessProbe']['httpGet']['path']}", timeout=10)
        docker("exec", name, *health_check(docker, image))
        processes = docker("top", name, "-eo", "pid,uid,args")
    assert [one.status_code for one in answers] == [200, 200], answers[0].text
    scores = [one.json()["predictions"] for one in answers]
    assert len(set(scores[0])) > 10 and scores[0] == pytest.approx(scores[1], abs=1e-12)
    assert answers[0].json()["model_version"] == in_containers.version
    assert live.status_code == 200
    assert {line.split()[1] for line in processes.splitlines()[1:]} == {world.user.split(":")[0]}


def health_check(docker, image: str) -> list[str]:
    """The image's own, as the engine would start it."""
    (told,) = json.loads(docker("image", "inspect", image))
    kind, *command = told["Config"]["Healthcheck"]["Test"]
    assert kind == "CMD"
    return command


def test_the_health_check_fails_where_no_server_listens(docker, image):
    check = ["docker", "run", "--rm", "--network", "none", image, *health_check(docker, image)]
    done = subprocess.run(check, capture_output=True, text=True)
    assert done.returncode == 1 and "Connection refused" in done.stderr


def test_a_trial_of_katib_runs_in_the_container_as_its_job_would_start_it(docker, world, image):
    from test_katib import SPACE

    at(world.laptop, world.tracking)
    seen = {"feature_repo": f"{VOLUME}/feature_repo", "labels": f"{VOLUME}/data/driver_labels.parquet"}
    experiment = katib.experiment("driver-sweep", SPACE, seen | INPUTS, 1)
    template = json.dumps(experiment["spec"]["trialTemplate"]["trialSpec"])
    for name, value in CHOICE.items():
        template = template.replace(f"${{trialParameters.{name}}}", str(value))
    assert "trialParameters" not in template
    (job,) = json.loads(template)["spec"]["template"]["spec"]["containers"]
    assert job["image"] == image
    printed = docker("run", "--rm", *world.mounted, job["image"], *job["command"], *job["args"])
    labels = world.laptop.data / "driver_labels.parquet"
    here = katib.trial(
        **{name: str(value) for name, value in CHOICE.items()},
        feature_repo=str(world.laptop.feature_repo),
        labels=str(labels),
        **INPUTS,
    )
    (line,) = [line for line in printed.splitlines() if line.startswith("auc=")]
    assert float(line.removeprefix("auc=")) == pytest.approx(here, abs=1e-6) and here > 0.6

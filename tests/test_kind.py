"""The scripts for a kind cluster, without a cluster: what a dry run prints, and how a secret travels."""

import re
import subprocess
import tomllib

import pytest
import yaml

from helpers.workspace import REPOSITORY
from lifecycle.cluster import manifests
from lifecycle.settings import Cluster, Settings

pytestmark = pytest.mark.unit

KIND = REPOSITORY / "cluster" / "kind"


@pytest.fixture
def recorded(tmp_path) -> dict[str, str]:
    """An environment whose `kind` and `kubectl` record their arguments and input, and know no object."""
    for name in ("kind", "kubectl"):
        script = f"#!/bin/sh\necho \"$@\" >> '{tmp_path}/called'\n"
        script += f"case \"$*\" in *' get '*) exit 1 ;; *' apply '*) cat >> '{tmp_path}/read' ;; esac\n"
        (tmp_path / name).write_text(script)
        (tmp_path / name).chmod(0o755)
    return {"PATH": f"{tmp_path}:/usr/bin:/bin", "NAMESPACE": "elsewhere"}


def test_a_dry_run_needs_no_program_and_prints_pinned_releases_that_fit_the_locked_clients():
    bare = {"PATH": "/usr/bin:/bin"}
    done = subprocess.run([KIND / "up.sh", "--dry-run"], env=bare, cwd="/", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    commands = re.findall(r"(?m)^\+ (.*)$", done.stdout)
    assert commands[0].startswith("kind create cluster") and "job/notebooks" in commands[-1]

    remote = [command for command in commands if re.search(r"https://|github\.com|oci://", command)]
    assert len(remote) == 9
    assert all(re.search(r"\d+\.\d+\.\d+", command) for command in remote), "a release is not pinned"
    lock = tomllib.loads((REPOSITORY / "uv.lock").read_text())
    locked = {package["name"]: package["version"] for package in lock["package"]}
    text = "\n".join(commands)
    assert f"trainer.git/manifests/overlays/manager\\?ref=v{locked['kubeflow-trainer-api']}" in text
    assert f"katib-standalone\\?ref=v{locked['kubeflow-katib-api']}" in text
    # The cluster's part of Pipelines has fewer releases than its SDK: minor versions agree.
    minor = re.search(r"platform-agnostic\\\?ref=(\d+\.\d+)\.\d+", text)[1]
    assert locked["kfp"].startswith(f"{minor}.")

    # Without it, each InferenceService warns that there is no VirtualService.
    assert "kserve.controller.gateway.disableIstioVirtualHost=true" in text
    # A TrainJob runs, in its own image; what pods are waited for by a command that looks at them.
    image = Settings.load(REPOSITORY / "lifecycle.toml").cluster.image_with_torch
    assert f"kind load docker-image {image} --name" in text and "models/train_job.yaml" in text
    waited = [command for command in commands if command.startswith(".venv/bin/lifecycle wait")]
    assert [command.split()[-1].partition("/")[0] for command in waited] == [
        *("deployment", "job", "trainjob", "job")
    ]
    ours = [word for command in commands for word in command.split() if word.startswith("cluster/")]
    assert [name for name in ours if not (REPOSITORY / name).exists()] == []


def test_the_name_of_a_rendered_job_is_read_from_its_file():
    """The line of up.sh that finds it, on the committed files."""
    [line] = [line for line in (KIND / "up.sh").read_text().splitlines() if line.startswith("named()")]
    for file, name in (("features/apply", "apply-features"), ("models/train_job", "driver-training")):
        path = REPOSITORY / "cluster" / "manifests" / f"{file}.yaml"
        done = subprocess.run(
            ["sh", "-c", f'{line}; named "{path}"'], capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == yaml.safe_load(path.read_text())["metadata"]["name"]
        assert done.stdout.startswith(f"{name}-")


def test_the_platforms_alone_come_without_an_object_of_ours(recorded, tmp_path):
    for name in ("docker", "helm"):
        (tmp_path / name).symlink_to(tmp_path / "kind")
    done = subprocess.run([KIND / "up.sh", "--platforms"], env=recorded, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    called = (tmp_path / "called").read_text()
    assert "load docker-image ml-lifecycle:1.0 " in called and "feast-operator-system" in called
    assert "secret" not in called and "loader" not in called


@pytest.mark.parametrize("script", ["up.sh", "down.sh"])
def test_a_mistyped_option_changes_no_cluster(script, recorded, tmp_path):
    done = subprocess.run([KIND / script, "--dryrun"], env=recorded, capture_output=True, text=True)
    assert done.returncode == 2 and "usage:" in done.stderr
    assert not (tmp_path / "called").exists()


def test_a_secret_reaches_kubectl_on_its_input_alone(recorded, tmp_path):
    script = ["bash", REPOSITORY / "cluster" / "secrets.sh"]
    answers = "me\nopen-sesame\nowner\nof-the-rows\n\n"
    subprocess.run(script, env=recorded, input=answers, text=True, check=True, capture_output=True)
    called, read = (tmp_path / "called").read_text(), (tmp_path / "read").read_text()
    assert "sesame" not in called and "--namespace elsewhere" in called
    login, stores = (yaml.safe_load(f"apiVersion{text}") for text in read.split("apiVersion")[1:])
    assert login["stringData"] == {"user": "me", "password": "open-sesame"}
    found = stores["stringData"]
    assert (found["database-user"], found["database-password"]) == ("owner", "of-the-rows")
    assert len(found["redis-password"]) > 20, "a password that nobody typed is drawn"
    # As Feast's operator hands them to clients: with variables in place of the logins.
    here = manifests.cluster_settings({"registry": "registry.db"}, Cluster(namespace="elsewhere"))
    for key, block in (("sql", here["registry"]), ("redis", here["online_store"])):
        told = yaml.safe_load(found[key])
        assert told.items() <= block.items() and told, key


@pytest.mark.parametrize("password", ["open sesame", "a,b", "12345", "true", "p@ss"])
def test_a_password_that_feast_would_misread_is_refused_before_anything_is_created(
    password, recorded, tmp_path
):
    """Feast's own parser of a connection string takes commas apart, and reads numbers and words of JSON."""
    script = ["bash", REPOSITORY / "cluster" / "secrets.sh"]
    done = subprocess.run(script, env=recorded, input=f"me\n{password}\n", text=True, capture_output=True)
    assert done.returncode == 1 and "begin with a letter" in done.stderr
    assert not (tmp_path / "called").exists()

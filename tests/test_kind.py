"""The scripts for a kind cluster, without a cluster: what a dry run prints, and how a secret travels."""

import re
import subprocess
import tomllib

import pytest

from helpers.workspace import REPOSITORY

pytestmark = pytest.mark.unit

KIND = REPOSITORY / "cluster" / "kind"


@pytest.fixture
def recorded(tmp_path) -> dict[str, str]:
    """An environment whose `kind` and `kubectl` record their arguments and input, and do nothing."""
    for name in ("kind", "kubectl"):
        script = f"#!/bin/sh\necho \"$@\" >> '{tmp_path}/called'\n[ -t 0 ] || cat >> '{tmp_path}/read'\n"
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

    ours = [word for command in commands for word in command.split() if word.startswith("cluster/")]
    assert len(ours) == 5 and [name for name in ours if not (REPOSITORY / name).exists()] == []


@pytest.mark.parametrize("script", ["up.sh", "down.sh"])
def test_a_mistyped_option_changes_no_cluster(script, recorded, tmp_path):
    done = subprocess.run([KIND / script, "--dryrun"], env=recorded, capture_output=True, text=True)
    assert done.returncode == 2 and "usage:" in done.stderr
    assert not (tmp_path / "called").exists()


def test_a_secret_reaches_kubectl_on_its_input_alone(recorded, tmp_path):
    script = ["bash", REPOSITORY / "cluster" / "secrets.sh"]
    subprocess.run(script, env=recorded, input="open sesame\n", text=True, check=True, capture_output=True)
    called, read = (tmp_path / "called").read_text(), (tmp_path / "read").read_text()
    assert "open sesame" in read and "sesame" not in called
    assert "generic mlflow-login --namespace elsewhere --from-file=password=/dev/stdin" in called
    assert "generic feature-stores" in called and "connection_string: redis:6379" in read
    done = subprocess.run(script, env=recorded, input="\n", text=True, capture_output=True)
    assert done.returncode == 1 and "Type a password" in done.stderr

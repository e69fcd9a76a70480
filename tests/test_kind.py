"""The scripts for a kind cluster. None has met a cluster: what can be checked is how they are written, and what they would do."""

import os
import re
import shutil
import subprocess
import tomllib

import pytest

from helpers.workspace import REPOSITORY
from lifecycle import IMAGE

KIND = REPOSITORY / "cluster" / "kind"
SCRIPTS = [*sorted(KIND.glob("*.sh")), REPOSITORY / "cluster" / "secrets.sh"]


@pytest.fixture(scope="module")
def commands() -> list[str]:
    """What a dry run prints, on a machine that has none of the programs, called from another folder."""
    bare = {"PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [KIND / "up.sh", "--dry-run"], env=bare, cwd="/", capture_output=True, text=True, check=True
    )
    return [line.removeprefix("+ ") for line in done.stdout.splitlines() if line.startswith("+ ")]


def place(commands: list[str], what: str) -> int:
    [found] = [number for number, command in enumerate(commands) if what in command]
    return found


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_is_well_formed(script):
    subprocess.run(["bash", "-n", script], check=True)
    assert os.access(script, os.X_OK)
    if not shutil.which("shellcheck"):
        pytest.skip("no shellcheck: Debian and Ubuntu have a package of this name")
    done = subprocess.run(["shellcheck", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_scripts_say_that_they_were_never_run():
    assert "NEVER RUN" in (KIND / "up.sh").read_text() and "Never run" in (KIND / "down.sh").read_text()


def test_a_dry_run_comes_to_its_end_and_runs_nothing(commands):
    assert len(commands) > 20
    assert commands[0].startswith("kind create cluster") and "job/notebooks" in commands[-1]


@pytest.mark.parametrize("script", ["up.sh", "down.sh"])
def test_another_word_is_refused(script, tmp_path):
    done = subprocess.run([KIND / script, "--dryrun"], env=told(tmp_path), capture_output=True, text=True)
    assert done.returncode == 2 and "usage:" in done.stderr and done.stdout == ""
    assert not (tmp_path / "told").exists(), "it called kind"


def test_a_dry_run_of_the_removal_removes_nothing(tmp_path):
    environment = told(tmp_path)
    done = subprocess.run(
        [KIND / "down.sh", "--dry-run"], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == "+ kind delete cluster --name ml-lifecycle\nNothing was run.\n"
    assert not (tmp_path / "told").exists(), "it called kind"
    subprocess.run([KIND / "down.sh"], env=environment, check=True)
    assert (tmp_path / "told").read_text() == "delete cluster --name ml-lifecycle\n"


def told(folder) -> dict[str, str]:
    """An environment whose `kind` writes down what it is told, and does nothing."""
    (folder / "kind").write_text(f"#!/bin/sh\necho \"$@\" >> '{folder / 'told'}'\n")
    (folder / "kind").chmod(0o755)
    return {"PATH": f"{folder}:/usr/bin:/bin"}


def test_without_the_programs_it_says_which_is_missing(tmp_path):
    (tmp_path / "dirname").symlink_to(shutil.which("dirname"))
    script = [shutil.which("bash"), KIND / "up.sh"]
    done = subprocess.run(script, env={"PATH": str(tmp_path)}, capture_output=True, text=True)
    assert done.returncode == 1 and "error: docker is not installed" in done.stderr and done.stdout == ""


def test_releases_are_pinned_and_those_of_the_clients_that_the_lock_holds(commands):
    lock = tomllib.loads((REPOSITORY / "uv.lock").read_text())
    locked = {package["name"]: package["version"] for package in lock["package"]}
    text = "\n".join(commands)
    assert f"ref={locked['kfp']}" in text
    assert text.count(f"trainer.git/manifests/overlays/manager\\?ref=v{locked['kubeflow-trainer-api']}") == 1
    assert f"katib-standalone\\?ref=v{locked['kubeflow-katib-api']}" in text
    assert not re.search(r"ref=(master|main)|latest", text)
    remote = [
        command
        for command in commands
        if "https://" in command or "github.com" in command or "oci://" in command
    ]
    assert len(remote) == 9
    assert all(re.search(r"\d+\.\d+\.\d+", command) for command in remote)


def test_what_it_applies_from_here_is_there(commands):
    ours = [word for command in commands for word in command.split() if word.startswith("cluster/")]
    assert len(ours) == 5
    assert [name for name in ours if not (REPOSITORY / name).exists()] == []
    for folder in (KIND / "base", KIND / "features"):
        for resource in re.findall(r"(?m)^- (\.\./.*)$", (folder / "kustomization.yaml").read_text()):
            assert (folder / resource / "kustomization.yaml").exists()


def test_the_order_is_one_in_which_each_finds_what_it_needs(commands):
    order = [
        "kind create cluster",
        f"load docker-image {IMAGE}",
        "cert-manager.yaml",
        "cluster-scoped-resources",
        "env/platform-agnostic",
        "install kserve-crd",
        "install kserve oci",
        "cluster/secrets.sh",
        "cluster/kind/base",
        "git archive HEAD",
        "cluster/kind/features",
        "job/apply-features",
        "cluster/kind/notebooks.yaml",
    ]
    places = [place(commands, what) for what in order]
    assert places == sorted(places)


def test_secrets_are_asked_for_and_come_to_kubectl_on_its_input_alone(tmp_path):
    (tmp_path / "kubectl").write_text(
        f'#!/bin/sh\necho "$@" >> "{tmp_path}/called"\ncat >> "{tmp_path}/read"\n'
    )
    (tmp_path / "kubectl").chmod(0o755)
    settings = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "NAMESPACE": "elsewhere"}
    script = ["bash", REPOSITORY / "cluster" / "secrets.sh"]
    subprocess.run(script, env=settings, input="open sesame\n", text=True, check=True, capture_output=True)
    called, read = (tmp_path / "called").read_text(), (tmp_path / "read").read_text()
    assert "open sesame" in read and "sesame" not in called
    assert (
        "create secret generic mlflow-login --namespace elsewhere --from-file=password=/dev/stdin" in called
    )
    assert "create secret generic feature-stores" in called and "connection_string: redis:6379" in read
    for nothing in ("\n", ""):
        done = subprocess.run(script, env=settings, input=nothing, text=True, capture_output=True)
        assert done.returncode == 1 and "Type a password" in done.stderr

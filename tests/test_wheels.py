"""`make wheels`, and a set-up from its folder with the network cut: what thirty laptops without a network do."""

import os
import platform
import re
import shutil
import socket
import subprocess
import sys
import tomllib
import warnings
from hashlib import sha256
from importlib import metadata
from pathlib import Path

import pytest
from conftest import HARD_TO_QUOTE
from packaging.requirements import Requirement

from helpers.workspace import REPOSITORY

NOT_PART = shutil.ignore_patterns(".git", ".venv", "workspace", "wheels", "__pycache__", ".*_cache")
OF_THE_USER = ("PIP_", "UV_", "XDG_", "MAKE", "VIRTUAL_ENV", "WHEELS")


def copy(folder: Path) -> Path:
    """The repository in another folder, with no environment."""
    return shutil.copytree(REPOSITORY, folder / HARD_TO_QUOTE, ignore=NOT_PART)


def without_network(tmp_path: Path) -> tuple[list[str], dict[str, str]]:
    """What to put before a command, and its environment: a home of its own, no cache, none of the user's settings, and no way out.

    A network namespace has no way out. Where none can be made (macOS, some containers), each request meets a closed port; that is said aloud."""
    here = {name: value for name, value in os.environ.items() if not name.startswith(OF_THE_USER)}
    here |= {"HOME": str(tmp_path / "home"), "UV_CACHE_DIR": str(tmp_path / "an empty cache")}
    here |= {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_CACHE_DIR": "1"}
    here["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{here['PATH']}"
    before = ["unshare", "--map-root-user", "--net"]
    if shutil.which("unshare") and subprocess.run([*before, "true"], capture_output=True).returncode == 0:
        look = "import socket; print([name for _, name in socket.if_nameindex()])"
        seen = subprocess.run([*before, sys.executable, "-c", look], capture_output=True, text=True)
        assert seen.stdout == "['lo']\n"
        return before, here
    warnings.warn(
        "no network namespace can be made here: a proxy that is not there stands for the cut", stacklevel=1
    )
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        closed = f"http://127.0.0.1:{taken.getsockname()[1]}"
    names = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")
    return [], here | dict.fromkeys(names, closed) | {"NO_PROXY": "", "no_proxy": ""}


def make(clone: Path, goal: str, wheels: Path) -> subprocess.CompletedProcess:
    before, here = without_network(clone.parent)
    command = [*before, "make", goal, f"WHEELS={wheels}"]
    return subprocess.run(command, cwd=clone, env=here, capture_output=True, text=True)


@pytest.fixture(scope="module")
def clone(tmp_path_factory, wheels) -> Path:
    """A clone that was set up from the wheels, with the network cut."""
    clone = copy(tmp_path_factory.mktemp("a laptop"))
    done = make(clone, ".venv/current", wheels)
    assert done.returncode == 0, done.stderr
    assert not (clone.parent / "home" / ".cache").exists(), "a cache of the user's was filled"
    return clone


def locked() -> dict[str, str]:
    """The name of a package by the digest of each of its files in the lock."""
    packages = tomllib.loads((REPOSITORY / "uv.lock").read_text())["package"]
    return {
        file["hash"].removeprefix("sha256:"): package["name"]
        for package in packages
        for file in [*package.get("wheels", []), *filter(None, [package.get("sdist")])]
    }


def installed(python: str | Path = sys.executable) -> set[tuple[str, str]]:
    look = "from importlib.metadata import distributions as d; print(*(f'{x.name} {x.version}' for x in d()), sep='\\n')"
    done = subprocess.run([python, "-P", "-c", look], capture_output=True, text=True, check=True)
    return {
        (re.sub(r"[-_.]+", "-", name).lower(), version)
        for name, version in map(str.split, done.stdout.splitlines())
    }


def listed(python: str) -> set[tuple[str, str]]:
    """Names and versions of the packages in the lock's default groups that a version of Python installs on this system."""
    uv = shutil.which("uv") or Path(sys.executable).with_name("uv")
    options = [
        "--quiet",
        "--frozen",
        "--offline",
        "--no-emit-project",
        "--no-hashes",
        "--no-header",
        "--no-annotate",
    ]
    lock = subprocess.run(
        [uv, "export", *options], cwd=REPOSITORY, capture_output=True, text=True, check=True
    ).stdout
    found = map(Requirement, lock.splitlines())
    read = [one for one in found if not one.marker or one.marker.evaluate({"python_full_version": python})]
    return {(one.name, str(one.specifier).removeprefix("==")) for one in read}


def test_the_wheels_are_the_locks_for_each_patch_version_of_this_python(wheels):
    names = locked()
    found = sorted(names[sha256(file.read_bytes()).hexdigest()] for file in wheels.iterdir())
    minor = f"3.{sys.version_info[1]}"
    first, last = listed(f"{minor}.0"), listed(f"{minor}.99")
    assert found == sorted(name for name, _ in first | last)
    assert listed(platform.python_version()) <= installed()
    if minor == "3.11":  # Debian 12 has 3.11.2
        assert ("async-timeout", "5.0.1") in first - last, (
            "nothing is read by an old patch version alone: try less"
        )


def test_a_clone_sets_itself_up_from_wheels_with_the_network_cut(clone):
    assert (clone / ".venv" / "current").read_text() == str(clone)
    project = {("feast-mlflow-kubeflow-workshop", metadata.version("feast-mlflow-kubeflow-workshop"))}
    assert installed(clone / ".venv" / "bin" / "python") == listed(platform.python_version()) | project
    before, here = without_network(clone.parent)
    begins = "from helpers.start import check_environment as check; print(len(check()))"
    command = [*before, clone / ".venv" / "bin" / "python", "-c", begins]
    done = subprocess.run(command, cwd=clone.parent, env=here, capture_output=True, text=True)
    assert done.returncode == 0 and int(done.stdout) > 15, done.stderr


@pytest.mark.parametrize("name", ["six", "uv"], ids=["installed by uv", "installed by pip"])
def test_a_changed_wheel_is_refused(clone, wheels, tmp_path, name):
    python = clone / ".venv" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "uninstall", "--yes", "--quiet", name], check=True)
    (clone / ".venv" / "current").unlink(missing_ok=True)
    changed = tmp_path / "changed"
    changed.mkdir()
    for file in wheels.iterdir():
        os.link(file, changed / file.name)
    [file] = changed.glob(f"{name}-*.whl")
    other = file.read_bytes() + b"\0"
    file.unlink()
    file.write_bytes(other)
    done = make(clone, ".venv/current", changed)
    assert done.returncode != 0 and re.search("hash mismatch|do not match the hashes", done.stderr, re.I), (
        done.stderr
    )
    assert f"error: {changed} does not hold what this clone needs." in done.stderr
    assert not (clone / ".venv" / "current").exists()
    assert name not in {installed_name for installed_name, _ in installed(python)}


def test_a_folder_without_wheels_gets_one_sentence(tmp_path):
    clone = copy(tmp_path)
    done = make(clone, "run", tmp_path)
    said = [line for line in done.stderr.splitlines() if not line.startswith("make")]
    assert done.returncode != 0 and said == [
        f"error: WHEELS={tmp_path} is no folder that `make wheels` filled."
    ]
    assert not (clone / ".venv").exists()

"""`make wheels`, and a set-up from its folder with the network cut, as on a laptop without one."""

import os
import platform
import re
import shutil
import subprocess
import sys
import tomllib
from hashlib import sha256
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from conftest import HARD_TO_QUOTE
from helpers.workspace import REPOSITORY

pytestmark = [pytest.mark.system, pytest.mark.xdist_group("wheels")]
NOT_PART = shutil.ignore_patterns(".git", ".venv", "workspace", "wheels", "__pycache__", ".*_cache")
OF_THE_USER = ("PIP_", "UV_", "XDG_", "MAKE", "VIRTUAL_ENV", "WHEELS")


def without_network(folder: Path) -> tuple[list[str], dict[str, str]]:
    """What to put before a command, and its environment: no cache, no settings, and no way out.

    A network namespace has no way out. Where none can be made, each request meets a port that nobody listens
    on.
    """
    here = {name: value for name, value in os.environ.items() if not name.startswith(OF_THE_USER)}
    here |= {"HOME": str(folder / "home"), "UV_CACHE_DIR": str(folder / "an empty cache")}
    here |= {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_CACHE_DIR": "1"}
    here["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{here['PATH']}"
    before = ["unshare", "--map-root-user", "--net"]
    if shutil.which("unshare") and subprocess.run([*before, "true"], capture_output=True).returncode == 0:
        return before, here
    names = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")
    return [], here | dict.fromkeys(names, "http://127.0.0.1:9") | {"NO_PROXY": "", "no_proxy": ""}


def make(clone: Path, goal: str, wheels: Path) -> subprocess.CompletedProcess:
    before, here = without_network(clone.parent)
    # pip installs uv here, and would put it elsewhere.
    here |= {"PIP_USER": "1", "PIP_TARGET": str(clone.parent / "elsewhere"), "PIP_PREFIX": "/nowhere"}
    command = [*before, "make", goal, f"WHEELS={wheels}"]
    return subprocess.run(command, cwd=clone, env=here, capture_output=True, text=True)


@pytest.fixture(scope="module")
def clone(tmp_path_factory, wheels) -> Path:
    """A clone that was set up from the wheels, with the network cut."""
    clone = tmp_path_factory.mktemp("a laptop") / HARD_TO_QUOTE
    shutil.copytree(REPOSITORY, clone, ignore=NOT_PART)
    done = make(clone, "run", clone.parent)
    assert f"error: WHEELS={clone.parent} is no folder that `make wheels` filled." in done.stderr
    assert done.returncode and not (clone / ".venv").exists()
    done = make(clone, ".venv/current", wheels)
    assert done.returncode == 0, done.stderr
    return clone


def listed(python: str) -> set[tuple[str, str]]:
    """Names and versions of what a version of Python installs here of the lock's default groups."""
    uv = shutil.which("uv") or Path(sys.executable).with_name("uv")
    options = [
        "--quiet",
        "--frozen",
        "--offline",
        "--no-emit-workspace",
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
    names = {}  # of a package, by the digest of each of its files
    for package in tomllib.loads((REPOSITORY / "uv.lock").read_text())["package"]:
        for file in [*package.get("wheels", []), *filter(None, [package.get("sdist")])]:
            names[file["hash"].removeprefix("sha256:")] = package["name"]
    found = sorted(names[sha256(file.read_bytes()).hexdigest()] for file in wheels.iterdir())
    first, last = (listed(f"3.{sys.version_info[1]}.{patch}") for patch in (0, 99))
    assert found == sorted(name for name, _ in first | last)


def test_a_clone_sets_itself_up_from_wheels_with_the_network_cut(clone):
    python = clone / ".venv" / "bin" / "python"
    done = subprocess.run([python, "-m", "pip", "freeze", "--all"], capture_output=True, text=True)
    installed = {tuple(line.split("==")) for line in done.stdout.splitlines() if re.match("[^#]+==", line)}
    assert {(re.sub(r"[-_.]+", "-", name).lower(), version) for name, version in installed} == listed(
        platform.python_version()
    )
    begins = "from helpers.start import check_environment as check; print(len(check()))"
    before, here = without_network(clone.parent)
    done = subprocess.run(
        [*before, python, "-c", begins], cwd=clone, env=here, capture_output=True, text=True
    )
    assert done.returncode == 0 and int(done.stdout) > 15, done.stderr


@pytest.mark.parametrize("name", ["six", "uv"], ids=["installed by uv", "installed by pip"])
def test_a_changed_wheel_is_refused(clone, wheels, tmp_path, name):
    python = clone / ".venv" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "uninstall", "--yes", "--quiet", name], check=True)
    (clone / ".venv" / "current").unlink(missing_ok=True)
    for file in wheels.iterdir():
        os.link(file, tmp_path / file.name)
    [file] = tmp_path.glob(f"{name}-*.whl")
    other = file.read_bytes() + b"\0"
    file.unlink()
    file.write_bytes(other)
    done = make(clone, ".venv/current", tmp_path)
    assert done.returncode and re.search("hash mismatch|do not match the hashes", done.stderr, re.I), (
        done.stderr
    )
    assert f"error: {tmp_path} does not hold what this clone needs." in done.stderr
    assert not (clone / ".venv" / "current").exists()

import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import yaml
from packaging.requirements import Requirement

from helpers.workspace import REPOSITORY

PROJECT = REPOSITORY / "pyproject.toml"
UV = Path(sys.executable).with_name("uv")


def uv(*arguments: str) -> str:
    program = shutil.which("uv") or UV
    done = subprocess.run([program, *arguments, "--offline"], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def pins() -> list[Requirement]:
    project = tomllib.loads(PROJECT.read_text())
    return [Requirement(text) for text in project["project"]["dependencies"]]


def test_the_lock_answers_the_project_file():
    uv("lock", "--check")


def test_requirements_txt_is_the_lock():
    exported = uv("export", "--frozen", "--no-dev", "--no-emit-project", "--no-header", "--no-annotate")
    assert (REPOSITORY / "requirements.txt").read_text() == exported


def test_every_line_of_requirements_txt_is_pinned_by_hash():
    text = (REPOSITORY / "requirements.txt").read_text().replace("\\\n", " ")
    lines = text.strip().splitlines()
    assert len(lines) > 200
    assert [line for line in lines if not re.match(r"\S+==\S+ .*--hash=sha256:[0-9a-f]{64}", line)] == []
    assert {pin.name for pin in pins()} <= {line.split("==")[0] for line in lines}


def test_the_conda_door_is_python_pip_and_requirements_txt():
    environment = yaml.safe_load((REPOSITORY / "environment.yml").read_text())
    python, pip, files = environment["dependencies"]
    assert (pip, files) == ("pip", {"pip": ["--require-hashes", "-r requirements.txt"]})
    assert python in ("python=3.11", "python=3.12", "python=3.13")


def test_this_environment_holds_the_versions_of_the_lock():
    packages = tomllib.loads((REPOSITORY / "uv.lock").read_text())["package"]
    locked = {package["name"]: package.get("version") for package in packages}
    assert {pin.name: version(pin.name) for pin in pins()} == {pin.name: locked[pin.name] for pin in pins()}


def test_each_direct_pin_has_its_reason_beside_it():
    text = PROJECT.read_text()
    body = re.search(r"^dependencies = \[\n(.*?)^\]", text, re.M | re.S)[1]
    groups = re.findall(r"((?:^ +#.+\n)+)((?:^ +\".+\n)+)", body, re.M)
    explained = [Requirement(pin) for _, names in groups for pin in re.findall(r'"(.+)"', names)]
    assert explained == pins(), "a pin without a comment directly above it or above its group"
    assert [names for _, names in groups if names.count("\n") > 2] == [], "one reason covers at most two pins"
    assert min(len(reason.strip()) for reason, _ in groups) > 15


def test_each_pin_has_an_upper_end():
    open_ended = {pin.name for pin in pins() if not any(s.operator in ("==", "<", "~=") for s in pin.specifier)}
    assert open_ended <= {"pip"}


def test_the_license_is_the_whole_of_apache_2():
    text = (REPOSITORY / "LICENSE").read_text()
    assert "Apache License" in text and "END OF TERMS AND CONDITIONS" in text
    assert tomllib.loads(PROJECT.read_text())["project"]["license"] == "Apache-2.0"


def test_a_skipped_test_fails_in_ci_and_says_why(tmp_path):
    shutil.copy(REPOSITORY / "tests" / "conftest.py", tmp_path)
    (tmp_path / "test_it.py").write_text(
        "import pytest\n\ndef test_redis():\n    pytest.skip('no redis-server here')\n"
    )
    (tmp_path / "test_all.py").write_text(
        "import pytest\n\npytest.skip('not on this system', allow_module_level=True)\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-ra", "-p", "no:cacheprovider", "--rootdir", tmp_path, tmp_path]
    here = {name: value for name, value in os.environ.items() if name != "CI"}
    done = subprocess.run(command, env=here, capture_output=True, text=True)
    assert done.returncode in (0, 5) and "2 skipped" in done.stdout and "no redis-server here" in done.stdout
    done = subprocess.run(command, env={**here, "CI": "true"}, capture_output=True, text=True)
    assert done.returncode not in (0, 5)
    assert "nothing may be skipped" in done.stdout and "not on this system" in done.stdout

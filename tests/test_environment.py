"""What pyproject.toml, the lock and other files of the clone promise together.

`make check` compares the lock's exports.
"""

import ast
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

from helpers.workspace import REPOSITORY

pytestmark = pytest.mark.unit
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
LOCK = tomllib.loads((REPOSITORY / "uv.lock").read_text())
UV = Path(sys.executable).with_name("uv")


def pins() -> list[Requirement]:
    return [Requirement(text) for text in PROJECT["project"]["dependencies"]]


MACHINES = {
    "Linux on x86_64": r"any|manylinux\w*x86_64",
    "Linux on ARM": r"any|manylinux\w*aarch64",
    "macOS on ARM": r"any|macosx\w*(arm64|universal2)",
}
WINDOWS = {"pywin32", "pywinpty"}


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("python", ["311", "312", "313"])
def test_every_package_with_wheels_has_one_for_each_python_and_machine(python, machine):
    """An image that is built on a laptop with an ARM processor is for Linux on ARM."""
    fits = re.compile(
        rf"-(cp{python}-|py3-|py2\.py3-|cp3\d+-abi3-|[\w.]*\bpy3\d*[\w.]*-none-)[\w.-]*({MACHINES[machine]})"
    )
    files: dict[str, list[str]] = {}  # of all versions: some packages have another for the oldest Python
    for package in LOCK["package"]:
        found = [wheel["url"].rsplit("/", 1)[-1] for wheel in package.get("wheels", [])]
        files.setdefault(package["name"], []).extend(found)
    without = {name for name, found in files.items() if found and not any(map(fits.search, found))}
    assert without <= WINDOWS


def test_the_conda_environment_is_python_and_pip():
    python, *rest = yaml.safe_load((REPOSITORY / "environment.yml").read_text())["dependencies"]
    assert rest == ["pip"]
    assert python in ("python=3.11", "python=3.12", "python=3.13")
    installs = {"--no-deps", "--require-hashes", "requirements.txt"}
    for page in ("docs/commands.md", "postBuild"):  # what is left to those who take this door
        lines = (REPOSITORY / page).read_text().splitlines()
        assert any(installs <= set(line.split()) for line in lines), page


@pytest.mark.parametrize("page, count", [("take-it-home.md", 3), ("commands.md", 1)])
def test_pip_takes_the_lock_as_it_is_which_it_would_refuse(page, count):
    [needed] = [Requirement(text) for text in metadata.requires("kserve") or [] if text.startswith("psutil")]
    assert metadata.version("psutil") not in needed.specifier, "pip can resolve the lock: --no-deps can go"
    lines = (REPOSITORY / "docs" / page).read_text().splitlines()
    installs = [line for line in lines if "pip install" in line and "--require-hashes" in line]
    assert len(installs) == count and all("--no-deps" in line for line in installs), installs


def test_the_citation_and_the_issue_form_know_the_project():
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())
    project = PROJECT["project"]
    assert (citation["version"], citation["license"]) == (project["version"], project["license"])
    form = yaml.safe_load((REPOSITORY / ".github" / "ISSUE_TEMPLATE" / "notebook.yml").read_text())
    notebooks = sorted(path.name[:2] for path in (REPOSITORY / "notebooks").glob("*.ipynb"))
    assert form["body"][0]["attributes"]["options"][:-1] == notebooks


def test_the_image_has_each_package_that_lifecycle_imports():
    """Anywhere in its text, also inside the pipeline's steps."""
    imported = set()
    for path in (REPOSITORY / "lifecycle" / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            if isinstance(node, ast.ImportFrom) and node.module:
                imported.add(node.module.partition(".")[0])
    optional = {"IPython", "torch"}  # where it is installed; PyTorch has an image of its own
    outside = imported - sys.stdlib_module_names - {"lifecycle"} - optional
    lines = (REPOSITORY / "cluster" / "requirements.txt").read_text().splitlines()
    held = {line.partition("==")[0] for line in lines if re.match(r"\w", line)}
    packages = metadata.packages_distributions()
    found = {name: {re.sub(r"[-_.]+", "-", one).lower() for one in packages[name]} for name in outside}
    assert len(found) > 20 and [name for name, names in found.items() if not names & held] == []


def test_the_requirements_of_all_installed_packages_agree():
    """Except the requirements that pyproject.toml overrides, with the reason beside each."""
    done = subprocess.run([sys.executable, "-m", "pip", "check"], capture_output=True, text=True)
    overridden = [Requirement(text).name for text in PROJECT["tool"]["uv"]["override-dependencies"]]
    asked = re.compile(rf"has requirement ({'|'.join(overridden)})\b")
    broken = [line for line in done.stdout.splitlines() if line and not asked.search(line)]
    assert broken in ([], ["No broken requirements found."]), broken


BLOCKS = ["feast", "duckdb", "redis", "great-expectations", "openlineage-python", "mlflow", "optuna", "kfp"]
BLOCKS += ["kubeflow", "kserve", "evidently", "prometheus-client"]


@pytest.mark.parametrize("package", BLOCKS)
def test_each_building_block_is_installed_under_an_open_license(package):
    about = metadata.metadata(package)
    classifiers = [line for line in about.get_all("Classifier", []) if line.startswith("License")]
    license = about.get("License-Expression") or " ".join(classifiers).split(" :: ")[-1]
    known = {"Apache-2.0", "MIT", "BSD-2-Clause", "Apache Software License", "MIT License", "BSD License"}
    assert set(license.split(" AND ")) <= known

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
import zipfile
from functools import partial
from hashlib import sha256
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from pathlib import Path
from threading import Thread

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from helpers.workspace import REPOSITORY

PROJECT = REPOSITORY / "pyproject.toml"
NOT_IN_THE_IMAGE = ("papermill", "nbconvert", "jupyterlab", "ipywidgets", "evidently")
"""Packages of the course that `lifecycle` does not import; CONTRIBUTING.md has the command."""
A_TOOL = "a_tool-1.0-py3-none-any.whl"
OURS = "feast_mlflow_kubeflow_workshop"
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


@pytest.mark.parametrize("python", ["311", "312", "313"])
def test_every_package_with_wheels_has_one_for_each_python_of_the_lock(python):
    fits = re.compile(rf"-(cp{python}-|py3-|py2\.py3-|cp3\d+-abi3-|[\w.]*\bpy3\d*[\w.]*-none-)")
    files: dict[str, list[str]] = {}  # of all versions: some packages have another for the oldest Python
    for package in tomllib.loads((REPOSITORY / "uv.lock").read_text())["package"]:
        found = [wheel["url"].rsplit("/", 1)[-1] for wheel in package.get("wheels", [])]
        files.setdefault(package["name"], []).extend(found)
    lacking = [name for name, found in files.items() if found and not any(map(fits.search, found))]
    assert lacking == [], f"no wheel for Python {python}"


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("requirements.txt", ["--no-dev", "--no-emit-project"]),
        ("build-requirements.txt", ["--only-group", "build"]),
        (
            "cluster/requirements.txt",
            ["--no-dev", "--no-emit-project", *(f"--prune={name}" for name in NOT_IN_THE_IMAGE)],
        ),
    ],
)
def test_requirements_are_the_lock_and_pinned_by_hash(name, options):
    text = (REPOSITORY / name).read_text()
    assert text == uv("export", "--frozen", *options, "--no-header", "--no-annotate")
    lines = text.replace("\\\n", " ").strip().splitlines()
    assert [line for line in lines if not re.match(r"\S+==\S+ .*--hash=sha256:[0-9a-f]{64}", line)] == []
    names = {line.split("==")[0] for line in lines}
    project = tomllib.loads(PROJECT.read_text())
    if name == "requirements.txt":
        assert len(lines) > 200 and {pin.name for pin in pins()} <= names
    elif name == "cluster/requirements.txt":
        assert {pin.name for pin in pins()} - names == set(NOT_IN_THE_IMAGE)
    else:
        tools = project["build-system"]["requires"] + project["dependency-groups"]["build"]
        assert {Requirement(tool).name for tool in tools} <= names


def test_what_comes_as_source_is_named_and_built_with_the_tools_of_the_lock():
    settings = tomllib.loads(PROJECT.read_text())["tool"]["uv"]
    packages = tomllib.loads((REPOSITORY / "uv.lock").read_text())["package"]
    source = sorted(package["name"] for package in packages if not package.get("wheels"))
    assert settings["no-build"] is True
    assert settings["no-binary-package"] == settings["no-build-isolation-package"] == source


def wheel(folder: Path, marker: Path) -> str:
    """A build tool as a wheel in ``folder``, an index of it alone; leaves ``marker`` when it runs. The wheel's digest."""
    build = f"""
import pathlib, zipfile

def build_editable(folder, settings=None, metadata=None):
    pathlib.Path({str(marker)!r}).touch()
    with zipfile.ZipFile(pathlib.Path(folder, "{OURS}-1.0.0-py3-none-any.whl"), "w") as built:
        info = "{OURS}-1.0.0.dist-info"
        built.writestr(f"{{info}}/METADATA", "Metadata-Version: 2.1\\nName: {OURS}\\nVersion: 1.0.0\\n")
        built.writestr(f"{{info}}/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        built.writestr(f"{{info}}/RECORD", "")
    return "{OURS}-1.0.0-py3-none-any.whl"
"""
    page = folder / "a-tool" / "index.html"
    page.parent.mkdir(parents=True, exist_ok=True)
    path = folder / A_TOOL
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a_tool.py", build)
        archive.writestr(
            "a_tool-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: a-tool\nVersion: 1.0\n"
        )
        archive.writestr(
            "a_tool-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr("a_tool-1.0.dist-info/RECORD", "")
    digest = sha256(path.read_bytes()).hexdigest()
    page.write_text(f'<a href="/{A_TOOL}#sha256={digest}">{A_TOOL}</a>')
    return digest


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def test_a_changed_build_tool_is_refused_before_it_runs(tmp_path):
    """A project with our name and our `[tool.uv]`. After it was locked, the index holds another tool of that name."""
    own, changed = tmp_path / "own", tmp_path / "changed"
    wheel(tmp_path / "index", own)
    (tmp_path / "pyproject.toml").write_text(f"""
[project]
name = "{OURS.replace("_", "-")}"
version = "1.0.0"
requires-python = ">=3.11"
[build-system]
requires = ["a-tool"]
build-backend = "a_tool"
[dependency-groups]
dev = ["a-tool"]
{re.search(r"^.tool.uv.$.*?(?=^.tool.hatch)", PROJECT.read_text(), re.M | re.S)[0]}
""")

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=tmp_path / "index"))
    Thread(target=server.serve_forever, daemon=True).start()
    here = {name: value for name, value in os.environ.items() if not name.startswith(("UV_", "VIRTUAL_ENV"))}
    here |= {
        "NO_PROXY": "127.0.0.1",
        "UV_DEFAULT_INDEX": f"http://127.0.0.1:{server.server_port}",
        "UV_NO_CACHE": "1",
    }

    def run(*arguments: str) -> subprocess.CompletedProcess:
        command = [shutil.which("uv") or UV, *arguments, "--python", sys.executable]
        return subprocess.run(command, cwd=tmp_path, env=here, capture_output=True, text=True)

    try:
        locked, done = run("lock"), run("sync", "--frozen")
        assert done.returncode == 0 and own.exists(), locked.stderr + done.stderr
        shutil.rmtree(tmp_path / ".venv")
        wheel(tmp_path / "index", changed)
        done = run("sync", "--frozen")
        assert done.returncode != 0 and "Hash mismatch" in done.stderr
        assert not changed.exists(), "the changed tool ran"
    finally:
        server.shutdown()
        server.server_close()


def test_make_installs_uv_only_with_the_hash_of_the_list(tmp_path):
    digest = wheel(tmp_path / "index", tmp_path / "ran")
    arguments = re.search(r"-m pip (install [^;\n]+);", (REPOSITORY / "Makefile").read_text())[1]
    here = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    here |= {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path / "index"), "PIP_CONFIG_FILE": os.devnull}
    command = [sys.executable, "-m", "pip", *shlex.split(arguments), "--target", tmp_path / "installed"]
    for line, says in [
        ("a-tool==1.0", "Hashes are required"),
        (f"a-tool==1.0 --hash=sha256:{'0' * 64}", "DO NOT MATCH THE HASHES"),
        (f"a-tool==1.0 --hash=sha256:{digest}", ""),
    ]:
        (tmp_path / "build-requirements.txt").write_text(line)
        done = subprocess.run(command, cwd=tmp_path, env=here, capture_output=True, text=True)
        assert says in done.stderr
        assert (done.returncode == 0) == (tmp_path / "installed" / "a_tool.py").exists() == (not says), (
            done.stderr
        )


def test_workflows_hold_fixed_actions_and_no_credentials():
    workflows = sorted((REPOSITORY / ".github" / "workflows").glob("*.yml"))
    assert workflows
    for path in workflows:
        text = path.read_text()
        for action in re.findall(r"uses: *(.*)", text):
            assert re.fullmatch(r"[\w.-]+/[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", action), (
                f"{path.name}: {action}"
            )
        workflow = yaml.safe_load(text)
        assert workflow["permissions"] == {"contents": "read"}
        for job in workflow["jobs"].values():
            # tests/test_workflows.py says who may write
            assert job.get("permissions", {}) in ({}, {"pull-requests": "write"}, {"issues": "write"})
            checkouts = [
                step for step in job["steps"] if step.get("uses", "").startswith("actions/checkout@")
            ]
            assert checkouts or "permissions" in job
            assert all(step["with"]["persist-credentials"] is False for step in checkouts)


def test_each_python_that_the_project_allows_is_tested_on_both_systems():
    allowed = SpecifierSet(tomllib.loads(PROJECT.read_text())["project"]["requires-python"])
    workflow = yaml.safe_load((REPOSITORY / ".github" / "workflows" / "ci.yml").read_text())
    matrix = workflow["jobs"]["test"]["strategy"]["matrix"]
    assert {f"3.{minor}" for minor in range(8, 30) if f"3.{minor}" in allowed} == set(matrix["python"])
    assert {name.split("-")[0] for name in matrix["os"]} == {"ubuntu", "macos"}


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
    open_ended = {
        pin.name for pin in pins() if not any(s.operator in ("==", "<", "~=") for s in pin.specifier)
    }
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
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-ra",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        tmp_path,
        tmp_path,
    ]
    here = {name: value for name, value in os.environ.items() if name != "CI"}
    done = subprocess.run(command, env=here, capture_output=True, text=True)
    assert done.returncode in (0, 5) and "2 skipped" in done.stdout and "no redis-server here" in done.stdout
    done = subprocess.run(command, env={**here, "CI": "true"}, capture_output=True, text=True)
    assert done.returncode not in (0, 5)
    assert "nothing may be skipped" in done.stdout and "not on this system" in done.stdout


def test_the_citation_and_the_issue_form_know_the_project():
    project = tomllib.loads(PROJECT.read_text())["project"]
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())
    assert (citation["version"], citation["license"]) == (project["version"], project["license"])
    form = yaml.safe_load((REPOSITORY / ".github" / "ISSUE_TEMPLATE" / "notebook.yml").read_text())
    options = form["body"][0]["attributes"]["options"]
    assert options[:-1] == sorted(path.name[:2] for path in (REPOSITORY / "notebooks").glob("*.ipynb"))

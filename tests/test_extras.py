"""A notebook that needs more than the default installation: it is told, left out, added by its own door, and brought along."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from functools import partial
from hashlib import sha256
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from pathlib import Path
from threading import Thread

import harness
import pytest

from helpers import course, extras
from helpers.start import begin
from helpers.workspace import REPOSITORY, WorkshopError
from workshop import commands, runner
from workshop import extras as added

UV = shutil.which("uv") or Path(sys.executable).with_name("uv")


@pytest.fixture
def without(monkeypatch):
    """As if notebook 09's package were not installed."""

    def missing(name: str) -> str:
        if name == "torch":
            raise extras.importlib.metadata.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(extras.importlib.metadata, "version", missing)


def test_each_extra_has_its_group_its_door_its_notebook_and_its_place_in_ci():
    numbers = [path.name[:2] for path in runner.choose()]
    makefile, ci = (REPOSITORY / "Makefile").read_text(), (REPOSITORY / ".ci" / "run").read_text()
    for group, number in course.extras().items():
        assert number in numbers
        assert extras.requirements(group)
        assert re.search(rf"(?m)^{group}: \.venv/current ## ", makefile)
        assert re.search(rf"(?m)^make {group}\b", ci)
        assert f"`make {group}`" in (REPOSITORY / "README.md").read_text()


def test_no_extra_is_part_of_the_default_installation():
    names = {requirement.name for group in course.extras() for requirement in extras.requirements(group)}
    default = (REPOSITORY / "requirements.txt").read_text()
    assert names and not [name for name in names if re.search(rf"(?m)^{name}==", default)]
    assert "nvidia" not in default


def test_what_is_missing_and_a_wrong_version_are_told_with_the_command(without, monkeypatch):
    assert extras.lacking("09") == "torch is not installed. `make distributed` adds it."
    assert extras.lacking("04") == ""
    monkeypatch.setattr(extras.importlib.metadata, "version", lambda name: "1.13.1+cpu")
    assert extras.lacking("09").startswith("torch 1.13.1+cpu is installed, ")
    assert extras.lacking("09").endswith(" is needed. `make distributed` adds it.")
    monkeypatch.setattr(extras.importlib.metadata, "version", lambda name: "2.13.0+cpu")
    assert extras.lacking("09") == ""


def test_begin_says_what_to_do(without):
    with pytest.raises(
        WorkshopError, match=r"needs more than the others: torch is not installed\. `make distributed`"
    ):
        begin("09")


def test_a_run_leaves_it_out_and_says_so_in_one_line(without, capsys):
    found = runner.with_extras(runner.choose())
    assert [path.name[:2] for path in found] == [
        p.name[:2] for p in runner.choose() if not extras.lacking(p.name[:2])
    ]
    line = "09_train_distributed is left out: torch is not installed. `make distributed` adds it.\n"
    assert line in capsys.readouterr().out


def test_asked_for_alone_it_is_an_error(without, capsys):
    assert runner.main(["--only", "09"]) == 2
    said = capsys.readouterr()
    assert "09_train_distributed is left out" in said.out and "there is nothing to run" in said.err


def test_make_notebooks_keeps_its_outputs(without, monkeypatch, tmp_path, capsys):
    course = tmp_path / "notebooks"
    course.mkdir()
    for path in runner.choose():
        if path.name[:2] == "09":
            shutil.copy(path, course)
    monkeypatch.setattr(runner, "NOTEBOOKS", course)
    monkeypatch.setattr(commands, "NOTEBOOKS", course)
    before = (course / "09_train_distributed.ipynb").read_bytes()
    (tmp_path / "cluster").mkdir()
    monkeypatch.setattr(commands, "REPOSITORY", tmp_path)

    def run(notebooks, workspace, copies):
        assert notebooks == []
        (workspace.path / commands.PIPELINE).touch()  # notebook 06 would have made it
        return []

    monkeypatch.setattr(commands, "run", run)
    assert commands.notebooks() == 0
    assert (course / "09_train_distributed.ipynb").read_bytes() == before
    assert "is left out" in capsys.readouterr().out


def test_a_test_is_skipped_with_the_reason(without):
    with pytest.raises(pytest.skip.Exception, match="09_train_distributed: torch is not installed"):
        harness.skip_without_extras(Path("notebooks/09_train_distributed.ipynb"))


def test_pips_settings_lead_uv_and_its_own_come_before_them():
    pips = {
        "index-url": "http://a",
        "extra-index-url": "http://b\nhttp://c",
        "find-links": "/d",
        "no-index": "true",
    }
    where, flags = added.settings("http://given", pips, {"UV_FIND_LINKS": "/mine"})
    assert where == {
        "UV_DEFAULT_INDEX": "http://a",
        "UV_INDEX": "http://given http://b http://c",
        "UV_FIND_LINKS": "/mine",
    }
    assert flags == ["--no-index"]
    assert added.settings("", {}, {"HOME": "/h"}) == ({"HOME": "/h"}, [])


def test_a_group_that_no_notebook_needs_and_an_index_with_a_password_are_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(added, "ADDED", tmp_path / ".extras")
    with pytest.raises(WorkshopError, match="there is no extra 'dev'; there are distributed"):
        added.add("dev")
    with pytest.raises(WorkshopError, match="INDEX holds a user or a password"):
        added.add("distributed", "https://me:secret@example.org/simple")
    assert not (tmp_path / ".extras").exists()


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def wheel(folder: Path, name: str, number: str, content: str = "") -> None:
    """A package in a folder that is also an index."""
    folder.mkdir(parents=True, exist_ok=True)
    file, info = f"{name}-{number}-py3-none-any.whl", f"{name}-{number}.dist-info"
    with zipfile.ZipFile(folder / file, "w") as archive:
        archive.writestr(f"{name}.py", content)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {number}\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    digest = sha256((folder / file).read_bytes()).hexdigest()
    page = folder / name / "index.html"
    page.parent.mkdir(exist_ok=True)
    page.write_text(f'<a href="/{file}#sha256={digest}">{file}</a>')


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project with an extra of one small package, locked against an index of this machine, and an environment for it."""
    wheel(tmp_path / "index", "heavy", "1.0")
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "pyproject.toml").write_text(
        '[project]\nname = "ours"\nversion = "1.0"\nrequires-python = ">=3.11"\n'
        '[dependency-groups]\ndistributed = ["heavy>=1,<2"]\n'
    )
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=tmp_path / "index"))
    Thread(target=server.serve_forever, daemon=True).start()
    for name in [name for name in os.environ if name.startswith(("UV_", "PIP_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("UV_NO_CACHE", "1")
    monkeypatch.setenv("UV_DEFAULT_INDEX", f"http://127.0.0.1:{server.server_port}")
    subprocess.run([UV, "lock", "--quiet", "--python", sys.executable], cwd=folder, check=True)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / ".venv"], check=True)
    monkeypatch.setattr(added, "REPOSITORY", folder)
    monkeypatch.setattr(extras, "REPOSITORY", folder)
    monkeypatch.setattr(added, "ADDED", folder / ".extras")
    yield folder
    server.shutdown()
    server.server_close()


def installed(project: Path) -> str:
    code = "from importlib.metadata import version; print(version('heavy'))"
    done = subprocess.run([project / ".venv" / "bin" / "python", "-c", code], capture_output=True, text=True)
    return done.stdout.strip()


def test_an_extra_is_installed_from_the_locks_index_and_remembered(project):
    added.add("distributed", python=str(project / ".venv" / "bin" / "python"))
    assert installed(project) == "1.0"
    assert added.remembered() == {"distributed": ""}


def test_another_build_of_the_locked_version_is_taken_from_pips_own_folder(project, monkeypatch, tmp_path):
    wheel(tmp_path / "own builds", "heavy", "1.0+cpu")
    monkeypatch.setenv("PIP_FIND_LINKS", (tmp_path / "own builds").as_uri())
    added.add("distributed", python=str(project / ".venv" / "bin" / "python"))
    assert installed(project) == "1.0+cpu"


def test_another_file_in_the_place_of_the_locked_one_is_refused(project, tmp_path, capfd):
    wheel(tmp_path / "index", "heavy", "1.0", content="print('not what was locked')")
    with pytest.raises(WorkshopError, match="distributed was not added; uv says above why"):
        added.add("distributed", python=str(project / ".venv" / "bin" / "python"))
    assert "Hash mismatch" in capfd.readouterr().err
    assert installed(project) == "" and added.remembered() == {}


def test_a_newer_version_elsewhere_does_not_replace_the_locked_one(project, monkeypatch, tmp_path):
    wheel(tmp_path / "newer", "heavy", "1.5")
    monkeypatch.setenv("UV_FIND_LINKS", str(tmp_path / "newer"))
    added.add("distributed", python=str(project / ".venv" / "bin" / "python"))
    assert installed(project) == "1.0"


def test_what_was_added_is_added_again_and_a_failure_is_told_without_stopping(project, monkeypatch, capsys):
    (project / ".extras").write_text("distributed http://127.0.0.1:9/\n")
    assert added.remembered() == {"distributed": "http://127.0.0.1:9/"}
    asked = []
    monkeypatch.setattr(added, "add", lambda group, index: asked.append((group, index)))
    added.again()
    assert asked == [("distributed", "http://127.0.0.1:9/")]

    def fails(group, index):
        raise WorkshopError("no network")

    monkeypatch.setattr(added, "add", fails)
    added.again()
    assert capsys.readouterr().err == "note: no network\n"


def test_a_set_up_keeps_and_looks_after_what_was_added(tmp_path):
    """The Makefile's part, with a uv and a Python that only note how they are called."""
    clone, tools, noted = tmp_path / "clone", tmp_path / "bin", tmp_path / "noted"
    clone.mkdir()
    tools.mkdir()
    for name in ("Makefile", "pyproject.toml", "uv.lock"):
        shutil.copy(REPOSITORY / name, clone)
    note = f'#!/bin/sh\necho "$(basename "$0") $*" >> "{noted}"\n'
    (tools / "uv").write_text(note)
    makes = f'[ "$2" = venv ] && mkdir -p .venv/bin && cp "{tools}/uv" .venv/bin/python && exit'
    (tools / "apython").write_text(f'#!/bin/sh\n{makes}\nexec "{sys.executable}" "$@"\n')
    for tool in tools.iterdir():
        tool.chmod(0o755)
    here = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    here["PATH"] = f"{tools}{os.pathsep}{here['PATH']}"

    def set_up() -> list[str]:
        noted.write_text("")
        os.utime(clone / "uv.lock")
        shutil.rmtree(clone / ".venv", ignore_errors=True)
        command = ["make", ".venv/current", "PYTHON=apython"]
        subprocess.run(command, cwd=clone, env=here, capture_output=True, text=True, check=True)
        return noted.read_text().splitlines()

    assert set_up() == ["uv sync --frozen --python .venv/bin/python"]
    (clone / ".extras").write_text("distributed\n")
    assert set_up() == [
        "uv sync --frozen --python .venv/bin/python --inexact",
        "python -m workshop.extras again",
    ]

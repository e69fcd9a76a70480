"""A notebook that needs an extra: it is left out without it, and the extra is added and remembered."""

import os
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

import pytest

from helpers import extras
from helpers.start import begin
from helpers.workspace import WorkshopError
from workshop import extras as added
from workshop import runner

UV = shutil.which("uv") or Path(sys.executable).with_name("uv")


@pytest.fixture
def without(monkeypatch):
    """As if notebook 09's package were not installed."""

    def missing(name: str) -> str:
        if name == "torch":
            raise extras.importlib.metadata.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(extras.importlib.metadata, "version", missing)


def test_a_notebook_without_its_extra_is_left_out_and_says_how_to_add_it(without, monkeypatch, capsys):
    said = "torch is not installed. `make distributed` adds it."
    assert (extras.lacking("09"), extras.lacking("04")) == (said, "")
    with pytest.raises(WorkshopError, match="needs more than the others: torch is not installed"):
        begin("09")
    assert "09_train_distributed" not in [path.stem for path in runner.with_extras(runner.choose())]
    assert f"09_train_distributed is left out: {said}\n" in capsys.readouterr().out
    assert runner.main(["--only", "09"]) == 2
    assert "there is nothing to run" in capsys.readouterr().err
    for build, lacks in (("1.13.1+cpu", "torch 1.13.1+cpu is installed, "), ("2.13.0+cpu", "")):
        monkeypatch.setattr(extras.importlib.metadata, "version", lambda name, build=build: build)
        assert extras.lacking("09").startswith(lacks) and bool(extras.lacking("09")) == bool(lacks)


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def wheel(folder: Path, number: str, content: str = "") -> None:
    """The package `heavy` in a folder that is also an index."""
    file, info = f"heavy-{number}-py3-none-any.whl", f"heavy-{number}.dist-info"
    (folder / "heavy").mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(folder / file, "w") as archive:
        archive.writestr("heavy.py", content)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: heavy\nVersion: {number}\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    digest = sha256((folder / file).read_bytes()).hexdigest()
    (folder / "heavy" / "index.html").write_text(f'<a href="/{file}#sha256={digest}">{file}</a>')


@pytest.fixture
def installs(tmp_path, monkeypatch):
    """Installs the extra of a project: one small package, locked against an index of this machine."""
    wheel(tmp_path / "index", "1.0")
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
    settings = {"PIP_CONFIG_FILE": os.devnull, "NO_PROXY": "127.0.0.1", "UV_NO_CACHE": "1"}
    for name, value in (settings | {"UV_DEFAULT_INDEX": f"http://127.0.0.1:{server.server_port}"}).items():
        monkeypatch.setenv(name, value)
    subprocess.run([UV, "lock", "--quiet", "--python", sys.executable], cwd=folder, check=True)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / ".venv"], check=True)
    monkeypatch.setattr(added, "REPOSITORY", folder)
    monkeypatch.setattr(extras, "REPOSITORY", folder)
    monkeypatch.setattr(added, "ADDED", folder / ".extras")

    def add(index: str = "") -> str:
        python = folder / ".venv" / "bin" / "python"
        added.add("distributed", index, python=str(python))
        code = "from importlib.metadata import version; print(version('heavy'))"
        return subprocess.run([python, "-c", code], capture_output=True, text=True).stdout.strip()

    yield add
    server.shutdown()
    server.server_close()


@pytest.mark.system
def test_an_extra_comes_from_the_locks_index_and_only_as_what_was_locked(
    installs, monkeypatch, tmp_path, capfd
):
    wheel(tmp_path / "newer", "1.5")
    monkeypatch.setenv("UV_FIND_LINKS", str(tmp_path / "newer"))
    assert installs() == "1.0" and added.remembered() == {"distributed": ""}
    shutil.rmtree(tmp_path / "project" / ".venv" / "lib")
    wheel(tmp_path / "index", "1.0", content="print('not what was locked')")
    with pytest.raises(WorkshopError, match="distributed was not added; uv says above why"):
        installs()
    assert "Hash mismatch" in capfd.readouterr().err


@pytest.mark.system
def test_another_build_of_the_locked_version_comes_from_an_index_or_from_pips_own_folder(
    installs, monkeypatch, tmp_path
):
    wheel(tmp_path / "own builds", "1.0+cpu")
    monkeypatch.setenv("PIP_FIND_LINKS", (tmp_path / "own builds").as_uri())
    assert installs() == "1.0+cpu"
    monkeypatch.delenv("PIP_FIND_LINKS")
    with ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(QuietHandler, directory=tmp_path / "own builds")
    ) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        shutil.rmtree(tmp_path / "project" / ".venv" / "lib")
        index = f"http://127.0.0.1:{server.server_port}"
        assert installs(index) == "1.0+cpu" and added.remembered() == {"distributed": index}
        server.shutdown()


@pytest.mark.system
def test_an_extra_comes_from_the_folder_of_wheels_where_no_index_answers(installs, monkeypatch, tmp_path):
    monkeypatch.setenv("UV_DEFAULT_INDEX", "http://127.0.0.1:9")
    folder = tmp_path / "own wheels"
    folder.mkdir()
    monkeypatch.setenv("WHEELS", str(folder))
    with pytest.raises(WorkshopError, match="distributed was not added"):
        installs()
    shutil.copy(tmp_path / "index" / "heavy-1.0-py3-none-any.whl", folder)
    assert installs() == "1.0" and added.remembered() == {"distributed": ""}


def test_what_was_added_is_added_again_and_an_unknown_group_or_a_password_is_refused(
    monkeypatch, tmp_path, capsys
):
    monkeypatch.setattr(added, "ADDED", tmp_path / ".extras")
    with pytest.raises(WorkshopError, match="INDEX holds a user or a password"):
        added.add("distributed", "https://me:secret@example.org/simple")
    assert not added.ADDED.exists()
    added.ADDED.write_text("dev http://127.0.0.1:9/\n")
    assert added.main(["again"]) == 0, "a failure does not stop a set-up"
    assert capsys.readouterr().err.startswith("note: there is no extra 'dev'; there are distributed, engine")

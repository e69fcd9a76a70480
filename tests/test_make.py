import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from conftest import HARD_TO_QUOTE

from helpers.workspace import REPOSITORY
from workshop import commands, runner

DOORS = {"help", "run", "test", "check", "lab", "ui", "notebooks", "reset", "bench"}


@pytest.fixture
def clone(tmp_path):
    """What make needs of the repository, in a folder that is hard to quote, with no environment."""
    folder = tmp_path / f'{HARD_TO_QUOTE} $HOME "q"'
    folder.mkdir()
    for name in ("Makefile", "pyproject.toml", "uv.lock"):
        shutil.copy(REPOSITORY / name, folder)
    return folder


def make(folder, *arguments: str, path: str = "") -> subprocess.CompletedProcess:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    clean["PATH"] = f"{path}{os.pathsep}{clean['PATH']}"
    command = ["make", *arguments]
    return subprocess.run(command, cwd=folder, env=clean, capture_output=True, text=True, timeout=120)


def a_python(folder, script: str) -> str:
    folder.mkdir()
    (folder / "apython").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "apython").chmod(0o755)
    return str(folder)


def one_sentence(done: subprocess.CompletedProcess) -> str:
    lines = [line for line in done.stderr.splitlines() if not line.startswith("make")]
    assert done.returncode != 0 and len(lines) == 1, done.stderr
    return lines[0]


def test_a_python_that_is_too_old_gets_one_sentence(clone, tmp_path):
    path = a_python(tmp_path / "bin", '[ "$1" = --version ] && echo "Python 3.9.18" || exit 1')
    said = one_sentence(make(clone, "run", "PYTHON=apython", path=path))
    assert said.startswith("error: 'apython' is Python 3.9.18; the workshop needs Python 3.11, 3.12 or 3.13.")
    assert not (clone / ".venv").exists()


def test_a_python_without_venv_gets_one_sentence(clone, tmp_path):
    path = a_python(tmp_path / "bin", f'case "$*" in *venv*) exit 1;; esac; exec "{sys.executable}" "$@"')
    said = one_sentence(make(clone, "test", "PYTHON=apython", path=path))
    assert said.startswith("error: 'apython' cannot create virtual environments.")
    assert "apt-get install python3-venv" in said
    assert not (clone / ".venv").exists()


def test_a_python_that_is_not_there_gets_one_sentence(clone):
    assert "the workshop needs Python 3.11, 3.12 or 3.13" in one_sentence(
        make(clone, "run", "PYTHON=no-such-python")
    )


def test_make_alone_lists_every_door(clone):
    listed = [line.split(maxsplit=2) for line in make(clone).stdout.splitlines()]
    assert {door for _, door, _ in listed} >= DOORS
    assert {command for command, _, _ in listed} == {"make"} and all(purpose for _, _, purpose in listed)
    assert not (clone / ".venv").exists()


def test_an_environment_is_current_until_the_lock_changes_or_the_clone_moves(clone):
    def current() -> bool:
        return make(clone, "--question", ".venv/current").returncode == 0

    assert not current()
    (clone / ".venv").mkdir()
    (clone / ".venv" / "current").write_text(str(clone))
    assert current()
    (clone / ".venv" / "current").write_text(str(clone) + " before it moved")
    assert not current()
    (clone / ".venv" / "current").write_text(str(clone))
    os.utime(clone / "uv.lock", (time.time() + 10,) * 2)
    assert not current()


@pytest.fixture
def set_up(tmp_path) -> str:
    """A Python and a uv that install nothing, and note when they do: what is tried is the Makefile, not what it calls."""
    path = a_python(
        tmp_path / "bin",
        f'[ "$2" = venv ] && mkdir -p .venv/bin && exit; exec "{sys.executable}" "$@"',
    )
    uv = tmp_path / "bin" / "uv"
    uv.write_text(
        f'#!/bin/sh\necho begins >> "{tmp_path}/uv.log"; sleep 1; echo ends >> "{tmp_path}/uv.log"\n'
    )
    uv.chmod(0o755)
    return path


def test_a_set_up_is_current_in_a_folder_whatever_its_name(clone, set_up):
    done = make(clone, ".venv/current", "PYTHON=apython", path=set_up)
    assert (done.returncode, done.stderr) == (0, "")
    assert (clone / ".venv" / "current").read_text() == str(clone)
    assert make(clone, "--question", ".venv/current").returncode == 0


def test_another_python_that_is_named_makes_the_environment_anew(clone, set_up, tmp_path):
    def current(*named: str) -> bool:
        return make(clone, "--question", ".venv/current", *named, path=set_up).returncode == 0

    make(clone, ".venv/current", "PYTHON=apython", path=set_up)
    assert current() and current("PYTHON=apython")
    newer = tmp_path / "bin" / "newer"
    newer.write_text(
        f'#!/bin/sh\n[ "$1" = --version ] && echo "Python 3.13.99" && exit\nexec "{set_up}/apython" "$@"\n'
    )
    newer.chmod(0o755)
    assert not current("PYTHON=newer")
    done = make(clone, ".venv/current", "PYTHON=newer", path=set_up)
    assert (done.returncode, done.stderr) == (0, "")
    assert (clone / ".venv" / "made").read_text() == f"Python 3.13.99 {clone}\n"
    assert current("PYTHON=newer") and current(), "without a name, the one that is there stays"


def test_of_two_set_ups_at_once_the_second_waits_and_says_so(clone, set_up, tmp_path):
    with ThreadPoolExecutor() as pool:
        both = list(pool.map(lambda _: make(clone, ".venv/current", "PYTHON=apython", path=set_up), range(2)))
    assert [done.returncode for done in both] == [0, 0]
    assert sorted(done.stdout for done in both) == [
        "",
        "Another make sets this clone up; this one waits until it has ended.\n",
    ]
    assert (tmp_path / "uv.log").read_text().split() == ["begins", "ends"] * 2


def test_a_notebook_number_that_does_not_exist_is_refused_with_those_that_do(capsys, monkeypatch, tmp_path):
    (tmp_path / "03_validate_features.ipynb").touch()
    monkeypatch.setattr(runner, "NOTEBOOKS", tmp_path)
    for option, name in (("--only", "ONLY"), ("--from", "FROM")):
        assert runner.main([option, "99"]) == 2
        assert capsys.readouterr().err == f"error: {name}=99: there is no such notebook. Give one of 03.\n"


def answering(home, text: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "WORKSHOP_HOME": str(home.home)}
    command = [sys.executable, "-m", "workshop.commands", "reset"]
    return subprocess.run(command, input=text, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("answer", ["", "no\n", "y\n", "\n"])
def test_reset_deletes_nothing_without_a_yes(home, answer):
    (home.path / "mlflow.db").write_text("three days of work")
    done = answering(home, answer)
    assert done.returncode == 1
    assert "mlflow.db" in done.stdout and "Nothing was deleted." in done.stdout
    assert (home.path / "mlflow.db").read_text() == "three days of work"


def test_reset_empties_the_workspace_after_a_yes_and_leaves_what_a_link_points_to(home, tmp_path):
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").write_text("mine")
    (home.path / "link").symlink_to(tmp_path / "kept")
    (home.path / "mlruns" / "1").mkdir(parents=True)
    assert answering(home, "yes\n").returncode == 0
    assert list(home.path.iterdir()) == []
    assert (tmp_path / "kept" / "file").read_text() == "mine"
    assert len(list(home.data.iterdir())) >= 3


def test_a_door_meets_a_damaged_file_with_a_message(home, monkeypatch, capsys):
    monkeypatch.setenv("WORKSHOP_HOME", str(home.home))
    (home.data / "driver_stats.parquet").unlink()
    assert commands.main(["ui"]) == 2
    assert capsys.readouterr().err.startswith("error: driver_stats.parquet is missing")

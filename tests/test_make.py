"""The Makefile: what it says where it cannot set up, and when it sets up anew. Nothing is installed here."""

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from conftest import HARD_TO_QUOTE
from helpers.workspace import REPOSITORY

pytestmark = pytest.mark.system


@pytest.fixture
def clone(tmp_path):
    """What make needs of the repository, in a folder that is hard to quote, with no environment."""
    folder = tmp_path / f'{HARD_TO_QUOTE} $HOME "q"'
    folder.mkdir()
    (folder / "lifecycle").mkdir()
    for name in ("Makefile", "pyproject.toml", "uv.lock", "lifecycle/pyproject.toml"):
        shutil.copy(REPOSITORY / name, folder / name)
    return folder


@pytest.fixture
def program(tmp_path):
    """Adds a program to the folder that `make` puts in front of the PATH."""
    (tmp_path / "bin").mkdir()

    def add(name: str, script: str) -> None:
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "bin" / name).chmod(0o755)

    return add


def make(folder, *arguments: str) -> subprocess.CompletedProcess:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    clean["PATH"] = f"{folder.parent / 'bin'}{os.pathsep}{clean['PATH']}"
    return subprocess.run(
        ["make", *arguments], cwd=folder, env=clean, capture_output=True, text=True, timeout=300
    )


@pytest.mark.parametrize(
    "script, says",
    [
        (
            '[ "$1" = --version ] && echo "Python 3.9.18" || exit 1',
            "is Python 3.9.18; the workshop needs Python 3.11",
        ),
        (
            f'case "$*" in *venv*) exit 1;; esac; exec "{sys.executable}" "$@"',
            "cannot create virtual environments.",
        ),
        ("exit 127", "the workshop needs Python 3.11, 3.12 or 3.13."),
    ],
)
def test_a_python_that_cannot_serve_gets_one_sentence(clone, program, script, says):
    program("apython", script)
    done = make(clone, "run", "PYTHON=apython")
    (line,) = [line for line in done.stderr.splitlines() if not line.startswith("make")]
    assert line.startswith("error: 'apython' ") and says in line
    assert done.returncode and not (clone / ".venv").exists()
    assert "make run" in make(clone).stdout, "`make` alone lists its commands"


@pytest.fixture
def noted(program, tmp_path):
    """A Python and a uv that install nothing, and note how they are called."""
    log = tmp_path / "noted"
    program("uv", f'echo "$(basename "$0") $*" >> "{log}"; sleep 1; echo ends >> "{log}"')
    copy = f'mkdir -p .venv/bin && cp "{tmp_path}/bin/uv" .venv/bin/python'
    program("apython", f'[ "$2" = venv ] && {copy} && exit; exec "{sys.executable}" "$@"')
    return log


def test_an_environment_is_made_anew_after_a_move_or_for_another_python_and_keeps_extras(
    clone, program, noted
):
    def current(*named: str) -> bool:
        return make(clone, "--question", ".venv/current", *named).returncode == 0

    assert not current()
    done = make(clone, ".venv/current", "PYTHON=apython")
    assert (done.returncode, done.stderr) == (0, "")
    assert noted.read_text().splitlines() == ["uv sync --frozen --python .venv/bin/python", "ends"]
    assert current() and current("PYTHON=apython")
    (clone / ".venv" / "current").write_text(f"{clone} before it moved")
    assert not current()
    (clone / ".extras").write_text("distributed\n")
    noted.unlink()
    make(clone, ".venv/current", "PYTHON=apython")
    called = [line for line in noted.read_text().splitlines() if line != "ends"]
    assert called[0].endswith(" --inexact") and called[1] == "python -m workshop.extras again"
    program(
        "newer",
        f'[ "$1" = --version ] && echo "Python 3.13.99" && exit; exec "{clone.parent}/bin/apython" "$@"',
    )
    assert not current("PYTHON=newer")
    make(clone, ".venv/current", "PYTHON=newer")
    assert (clone / ".venv" / "made").read_text() == f"Python 3.13.99 {clone}\n"
    assert current("PYTHON=newer") and current(), "without a name, the one that is there stays"


def test_of_two_set_ups_at_once_the_second_waits_and_says_so(clone, noted):
    with ThreadPoolExecutor() as pool:
        both = list(pool.map(lambda _: make(clone, ".venv/current", "PYTHON=apython"), range(2)))
    waits = "Another make sets this clone up; this one waits until it has ended.\n"
    assert sorted((done.returncode, done.stdout) for done in both) == [(0, ""), (0, waits)]
    assert [line == "ends" for line in noted.read_text().splitlines()] == [False, True] * 2

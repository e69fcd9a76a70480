"""The Makefile: what it says where it cannot set up, when it sets up anew, and what it takes from a caller.
At most one small package is installed here."""

import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import ThreadingHTTPServer
from threading import Thread

import pytest
from test_extras import UV, QuietHandler, wheel

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


def make(folder, *arguments: str, **variables: object) -> subprocess.CompletedProcess:
    clean = {
        name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "PIP_", "UV_"))
    }
    clean["PATH"] = f"{folder.parent / 'bin'}{os.pathsep}{clean['PATH']}"
    clean |= {name: str(value) for name, value in variables.items()}
    return subprocess.run(
        ["make", *arguments], cwd=folder, env=clean, capture_output=True, text=True, timeout=300
    )


SET_UP = re.compile(
    r"Installing up to (\d+) packages into \.venv: up to 0\.5 GB to download, a minute or two\.\n"
    r"The environment is ready, after \d+ s\.\n"
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
    program("uv", f'echo "$(basename "$0") $*" >> "{log}"; sleep 0.1; echo ends >> "{log}"')
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
    called = [line for line in noted.read_text().splitlines() if line != "ends"]
    assert called[-2] == "uv sync --quiet --frozen --python .venv/bin/python"
    assert current() and current("PYTHON=apython")
    (clone / ".venv" / "bin" / "python").rename(clone / "python")
    assert not current(), "its Python is gone, as after an upgrade of the system"
    make(clone, ".venv/current", "PYTHON=apython")
    assert current()
    (clone / ".venv" / "current").write_text(f"{clone} before it moved")
    assert not current()
    (clone / ".extras").write_text("distributed\n")
    noted.unlink()
    make(clone, ".venv/current", "PYTHON=apython")
    called = [line for line in noted.read_text().splitlines() if line != "ends"]
    assert called[-3].endswith(" --inexact") and called[-2] == "python -m workshop.extras again"
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
    assert [(done.returncode, done.stderr) for done in both] == [(0, "")] * 2
    assert sorted(SET_UP.sub("", done.stdout) for done in both) == ["", waits]
    called = noted.read_text().splitlines()
    assert [line == "ends" for line in called] == [False, True] * (len(called) // 2)


@pytest.fixture
def small(clone, program):
    """A clone whose lock has one small package. The index that the lock names is gone; `own` is its copy.

    Sets it up anew, and gives what make said.
    """
    wheel(clone.parent / "public", "1.0")
    shutil.copytree(clone.parent / "public", clone.parent / "own")
    (clone / "pyproject.toml").write_text(
        '[project]\nname = "ours"\nversion = "1.0"\nrequires-python = ">=3.11"\ndependencies = ["heavy"]\n'
    )
    program("uv", f'exec "{UV}" "$@"')
    program("apython", f'exec "{sys.executable}" "$@"')
    (clone / "workshop").mkdir()
    shutil.copy(REPOSITORY / "workshop" / "index.py", clone / "workshop")
    (clone / "workshop" / "commands.py").write_text("import heavy\n")

    def set_up(**variables: object) -> subprocess.CompletedProcess:
        for place in [clone / ".venv" / "current", *clone.glob(".venv/lib/*/site-packages/heavy*")]:
            shutil.rmtree(place) if place.is_dir() else place.unlink(missing_ok=True)
        given = {
            "UV_NO_CACHE": 1,
            "UV_HTTP_RETRIES": 0,
            "PIP_CONFIG_FILE": os.devnull,
            "NO_PROXY": "127.0.0.1",
        }
        return make(clone, ".venv/current", "PYTHON=apython", **(given | variables))

    servers = {}
    for name in ("public", "own"):
        handler = partial(QuietHandler, directory=clone.parent / name)
        servers[name] = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        Thread(target=servers[name].serve_forever, daemon=True).start()
    public, set_up.own = (f"http://127.0.0.1:{server.server_port}" for server in servers.values())
    lock = [UV, "lock", "--quiet", "--no-cache", "--default-index", public, "--python", sys.executable]
    subprocess.run(lock, cwd=clone, check=True)
    servers["public"].shutdown()
    servers["public"].server_close()

    yield set_up
    servers["own"].shutdown()
    servers["own"].server_close()


def test_a_set_up_takes_the_locks_packages_from_the_index_that_its_user_names(small, clone):
    (clone.parent / "pip.conf").write_text(f"[global]\nindex-url = {small.own}\nuser = true\n")
    names = ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL")
    for settings in [*({name: small.own} for name in names), {"PIP_CONFIG_FILE": clone.parent / "pip.conf"}]:
        done = small(**settings)
        assert done.returncode == 0, f"{settings}: {done.stderr}"
        assert SET_UP.fullmatch(done.stdout)[1] == "1" and done.stderr == ""
    wheel(clone.parent / "own", "1.0", content="print('not what was locked')")
    done = small(PIP_INDEX_URL=small.own)
    assert done.returncode and "Hash mismatch" in done.stderr and not (clone / ".venv" / "current").exists()


def test_a_callers_variables_lead_to_no_other_environment_and_to_no_other_python(small, clone, program):
    other = clone.parent / "of another project"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", other], check=True)
    before = sorted(other.rglob("*"))
    theirs = {"UV_PROJECT_ENVIRONMENT": other, "UV_PYTHON": "/nowhere/python", "UV_PROJECT": "/nowhere"}
    theirs |= {"UV_NO_BINARY": 1, "UV_NO_DEV": 1, "PIP_TARGET": clone.parent / "target", "PYTHONOPTIMIZE": 1}
    done = small(UV_INDEX_URL=small.own, **theirs)
    assert done.returncode == 0, done.stderr
    assert sorted(other.rglob("*")) == before
    program("uv", "exit 0")
    done = small()
    assert done.returncode and "error: .venv was set up and does not work" in done.stderr
    assert not (clone / ".venv" / "current").exists()

"""The weekly audit fails unless a database that knows vulnerabilities was asked about every locked version.

The database is a stand-in on 127.0.0.1 that speaks OSV's query protocol, because a test must not depend on a service
outside, and the real one never lies about the canary. pip-audit, which asks it, is the real one.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from helpers.workspace import REPOSITORY

AUDIT = REPOSITORY / ".github" / "audit.py"
CANARY = ("requests", "2.19.0")
LOCK = """version = 1

[[package]]
name = "ours"
version = "1.0.0"
source = { editable = "." }
""" + "".join(
    f'\n[[package]]\nname = "{name}"\nversion = "{version}"\nsource = {{ registry = "index" }}\n'
    for name, version in [
        ("requests", "2.34.2"),
        ("scipy", "1.17.1"),
        ("scipy", "1.18.1"),
        ("wrapt", "2.5.2"),
    ]
)


@contextmanager
def database(known: dict[tuple[str, str], str], asked: list[tuple[str, str]]) -> Iterator[str]:
    """The address of a database that holds ``known`` and notes what it was asked."""

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            query = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            pin = query["package"]["name"], query["version"]
            asked.append(pin)
            found = {"vulns": [{"id": known[pin], "affected": []}]} if pin in known else {}
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(found).encode())

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1/query"
    finally:
        server.shutdown()
        server.server_close()


def audit(folder: Path, address: str, *options: str) -> subprocess.CompletedProcess:
    command = [sys.executable, AUDIT, "--osv-url", address, *options]
    here = {**os.environ, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    return subprocess.run(command, cwd=folder, env=here, capture_output=True, text=True)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "uv.lock").write_text(LOCK)
    return tmp_path


def test_an_audit_that_finds_nothing_but_the_canary_passes(project):
    asked = []
    with database({CANARY: "PYSEC-2018-28"}, asked) as address:
        done = audit(project, address)
    assert done.returncode == 0, done.stderr
    assert "4 locked versions audited" in done.stdout
    assert asked[0] == CANARY
    assert set(asked[1:]) == {
        ("requests", "2.34.2"),
        ("scipy", "1.17.1"),
        ("scipy", "1.18.1"),
        ("wrapt", "2.5.2"),
    }


def test_every_version_of_our_lock_is_asked_about():
    asked = []
    with database({CANARY: "PYSEC-2018-28"}, asked) as address:
        done = audit(REPOSITORY, address)
    assert done.returncode == 0, done.stderr
    pinned = (REPOSITORY / "requirements.txt").read_text() + (
        REPOSITORY / "build-requirements.txt"
    ).read_text()
    lines = [line.split()[0] for line in pinned.splitlines() if "==" in line and not line.startswith(" ")]
    assert len(lines) > 200 and set(lines) <= {"==".join(pin) for pin in asked}


def test_a_database_out_of_reach_fails_the_audit(project):
    with database({CANARY: "PYSEC-2018-28"}, []) as address:
        pass  # the port is closed again
    for nobody in (address, "http://nowhere.invalid/v1/query"):
        done = audit(project, nobody)
        assert done.returncode == 1
        assert "database cannot be reached" in done.stderr and "proves nothing" in done.stderr
        assert "audited," not in done.stdout


def test_a_database_that_knows_nothing_of_the_canary_fails_the_audit(project):
    asked = []
    with database({}, asked) as address:
        done = audit(project, address)
    assert done.returncode == 1
    assert "knows nothing against requests==2.19.0" in done.stderr
    assert asked == [CANARY], "nothing else is worth asking"


def test_a_known_vulnerability_fails_the_audit_by_name_until_it_is_accepted(project):
    with database({CANARY: "PYSEC-2018-28", ("scipy", "1.17.1"): "PYSEC-2026-1"}, []) as address:
        done = audit(project, address)
        accepted = audit(project, address, "--ignore-vuln", "PYSEC-2026-1")
    assert done.returncode == 1
    assert "scipy==1.17.1: PYSEC-2026-1" in done.stdout and "wrapt" not in done.stdout
    assert "1 of 4 locked versions" in done.stderr
    assert accepted.returncode == 0, accepted.stderr


@pytest.mark.parametrize(
    ("lock", "says"),
    [
        (LOCK[: LOCK.index('\n[[package]]\nname = "requests"')], "0 of the lock's 0 versions were audited"),
        (LOCK.replace('"2.5.2"', '"2.05.2"'), "3 of the lock's 4 versions were audited; not: wrapt==2.05.2"),
        (LOCK.replace('"2.5.2"', '"not.a.version"'), "cannot be reached or read"),
    ],
    ids=["nothing", "a version that pip-audit reports as another", "a version that is none"],
)
def test_an_audit_of_less_than_the_lock_fails(tmp_path, lock, says):
    (tmp_path / "uv.lock").write_text(lock)
    with database({CANARY: "PYSEC-2018-28"}, []) as address:
        done = audit(tmp_path, address)
    assert done.returncode == 1 and says in done.stderr

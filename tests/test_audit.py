"""The weekly audit fails unless a database that knows vulnerabilities was asked about every locked version.

The database is a stand-in on 127.0.0.1 that speaks OSV's protocol. pip-audit, which asks it, is the real one.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from helpers.workspace import REPOSITORY

pytestmark = pytest.mark.unit
CANARY = ("requests", "2.19.0")
KNOWN = {CANARY: "PYSEC-2018-28"}
PACKAGE = '\n[[package]]\nname = "{}"\nversion = "{}"\nsource = {{ registry = "index" }}\n'


@contextmanager
def database(known: dict[tuple[str, str], str]) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """A database that holds ``known``: its address, and what it was asked."""
    asked = []

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            query = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append((query["package"]["name"], query["version"]))
            found = {"vulns": [{"id": known[asked[-1]], "affected": []}]} if asked[-1] in known else {}
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(found).encode())

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/v1/query", asked
        server.shutdown()


def audit(address: str, *options: str, folder=REPOSITORY) -> subprocess.CompletedProcess:
    command = [sys.executable, REPOSITORY / ".github" / "audit.py", "--osv-url", address, *options]
    here = {**os.environ, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    return subprocess.run(command, cwd=folder, env=here, capture_output=True, text=True)


def test_every_version_of_the_lock_is_asked_about():
    with database(KNOWN) as (address, asked):
        done = audit(address)
    assert done.returncode == 0, done.stderr
    assert asked[0] == CANARY and "locked versions audited" in done.stdout
    text = (REPOSITORY / "requirements.txt").read_text() + (REPOSITORY / "build-requirements.txt").read_text()
    pins = set(re.findall(r"^[\w.-]+==[\w.!+-]+", text, re.M))
    assert len(pins) > 200 and pins <= {"==".join(pin) for pin in asked}


def test_a_database_that_cannot_be_reached_or_knows_nothing_fails_the_audit():
    with database({}) as (address, asked):
        done = audit(address)
    assert done.returncode == 1 and "knows nothing against requests==2.19.0" in done.stderr
    assert asked == [CANARY], "nothing else is worth asking"
    done = audit(address)  # the port is closed now
    assert done.returncode == 1 and "cannot be reached or read" in done.stderr and not done.stdout


def test_a_known_vulnerability_fails_the_audit_by_name_until_it_is_accepted(tmp_path):
    pins = [("scipy", "1.17.1"), ("scipy", "1.18.1"), ("wrapt", "2.5.2")]
    (tmp_path / "uv.lock").write_text("version = 1\n" + "".join(PACKAGE.format(*pin) for pin in pins))
    known = KNOWN | {pins[0]: "PYSEC-2026-1", pins[2]: "PYSEC-2026-2"}
    with database(known) as (address, _):
        done = audit(address, "--ignore-vuln", "PYSEC-2026-2", folder=tmp_path)
    assert done.returncode == 1 and "1 of 3 locked versions" in done.stderr
    assert done.stdout.strip() == "scipy==1.17.1: PYSEC-2026-1"

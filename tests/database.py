"""A PostgreSQL server for tests, with a login."""

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from conftest import HARD_TO_QUOTE
from helpers.services import HOST, Service

USER, PASSWORD = "workshop", "open-sesame"


class Database:
    """The server, a process on loopback; skips the test where there is none. Use it as a context manager.

    Args:
        log: file for what it says.
    """

    def __init__(self, log: Path) -> None:
        self.psycopg = pytest.importorskip("psycopg", reason="PostgreSQL's driver is missing")
        # Debian keeps the server's programs outside the PATH.
        versions = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
        path = os.pathsep.join([os.environ["PATH"], *map(str, versions)])
        initdb, server = shutil.which("initdb", path=path), shutil.which("postgres", path=path)
        if not (initdb and server):
            pytest.skip("no PostgreSQL on this machine. On Debian or Ubuntu: sudo apt-get install postgresql")
        # Outside pytest's folders: each session that starts closes them to other users.
        self.outer = tempfile.TemporaryDirectory()
        folder = Path(self.outer.name) / HARD_TO_QUOTE
        folder.mkdir()
        secret = folder / "password"
        secret.write_text(PASSWORD)
        user = []
        if os.geteuid() == 0:  # as root it refuses to run
            names = {entry.pw_name: entry for entry in pwd.getpwall()}
            other = names.get("postgres") or names["nobody"]
            for owned in (folder.parent, folder, secret):
                os.chown(owned, other.pw_uid, other.pw_gid)
            user = ["setpriv", f"--reuid={other.pw_uid}", f"--regid={other.pw_gid}", "--clear-groups"]
        make = [*user, initdb, "-D", folder / "data", "-U", USER, "-A", "scram-sha-256"]
        make += [f"--pwfile={secret}", "--no-sync", "--encoding=UTF8"]
        environment = {**os.environ, "LC_ALL": "C.UTF-8"}
        done = subprocess.run(make, capture_output=True, text=True, cwd="/", env=environment)
        assert done.returncode == 0, done.stderr
        command = [*user, server, "-D", folder / "data", "-p", "{port}", "-c", f"listen_addresses={HOST}"]
        command += ["-c", "unix_socket_directories=", "-c", "fsync=off"]
        self.service = Service("PostgreSQL", command, health=None, log=log)
        self.port = self.service.port

    def __enter__(self) -> "Database":
        return self

    def __exit__(self, *_: object) -> None:
        self.service.stop()
        self.outer.cleanup()

    def new(self, name: str) -> str:
        """Make a database, and give its address."""
        with self._connection() as admin:
            admin.execute(f"CREATE DATABASE {name}")
        return f"postgresql+psycopg://{USER}:{PASSWORD}@{HOST}:{self.port}/{name}"

    def _connection(self):
        place = {"host": HOST, "port": self.port, "user": USER, "password": PASSWORD, "dbname": "postgres"}
        for _ in range(100):  # it accepts connections a moment before it answers them
            try:
                return self.psycopg.connect(**place, autocommit=True)
            except self.psycopg.OperationalError as error:
                last = error
                time.sleep(0.3)
        raise last

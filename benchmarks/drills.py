"""The model server under load and under faults: `make drills` writes docs/reliability.md.

python -m benchmarks.drills [--short] [--out FOLDER]

Every request goes to 127.0.0.1, to a server that this program starts and ends.
Each score is compared with the one that the version it names gives without a server.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import platform
import resource
import shutil
import signal
import socket
import sqlite3
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import aiohttp
import numpy as np
import psutil

REPOSITORY = Path(__file__).resolve().parent.parent
MODEL = "driver_conversion"
LIVE = "/v2/health/live"


@dataclass
class Seen:
    """What the clients of one drill saw; times in milliseconds."""

    milliseconds: list[float] = field(default_factory=list)
    later: int = 0  # 503 with Retry-After: the queue was full, or the store locked
    stopped: int = 0  # 503 of a server that says that it is not ready
    failures: list[str] = field(default_factory=list)
    wrong: int = 0
    versions: set[str] = field(default_factory=set)
    live: list[float] = field(default_factory=list)

    @property
    def requests(self) -> int:
        return len(self.milliseconds) + self.later + self.stopped + len(self.failures)


class Ground:
    """A home with two versions that score differently, their server, and the scores that each would give."""

    def __init__(self, home: Path) -> None:
        import mlflow
        from feast import FeatureStore

        from benchmarks.homes import serving_home
        from benchmarks.online import known_drivers
        from helpers import data
        from helpers.services import Service
        from lifecycle.features.contract import FeatureContract
        from lifecycle.features.retrieval import historical_features
        from lifecycle.models.model import new_model

        self.workspace = serving_home(home)
        self.registry = mlflow.MlflowClient()
        self.store = FeatureStore(repo_path=str(self.workspace.feature_repo))
        self.contract = FeatureContract.from_model(f"models:/{MODEL}/1")
        import pandas as pd

        labels = pd.read_parquet(self.workspace.data / "driver_labels.parquet")
        service = self.store.get_feature_service(self.contract.feature_service)
        self.rows = historical_features(self.store, labels, service).dropna()
        self.model = new_model(C=0.001).fit(self.rows[self.contract.columns], self.rows.label)
        self.register(self.model)
        self.drivers = [known["driver_id"] for known in known_drivers(self.workspace)]
        self.own = {version: self._scores(version) for version in ("1", "2")}
        log = self.workspace.path / "logs" / "drills.log"
        command = [sys.executable, "-m", "lifecycle", "serve", "--feature-repo", self.workspace.feature_repo]
        command += ["--model", MODEL, "--port", "{port}", "--now", data.NOW.timestamp()]
        ready = f"/v2/models/{MODEL}/ready"
        self.server = Service("model server", command, health=ready, log=log, timeout=600)
        [process] = psutil.Process(self.server._keeper.pid).children()
        self.process = process

    def register(self, model: object, **changes: object) -> str:
        """A further version of the model; gives its number."""
        import mlflow

        stored = {
            "pip_requirements": ["scikit-learn", "skops"],
            "metadata": {"feast": self.contract.to_dict()},
            "input_example": self.rows[self.contract.columns].head(),
            "serialization_format": "skops",
        }
        with mlflow.start_run():
            logged = mlflow.sklearn.log_model(model, name="model", **{**stored, **changes})
        return str(mlflow.register_model(logged.model_uri, MODEL).version)

    def _scores(self, version: str) -> dict[int, float]:
        import mlflow

        model = mlflow.sklearn.load_model(f"models:/{MODEL}/{version}")
        asked = [{"driver_id": driver} for driver in self.drivers]
        table = self.store.get_online_features(list(self.contract.feature_refs), asked).to_df()
        scores = model.predict_proba(table[self.contract.columns])[:, 1]
        return dict(zip(self.drivers, map(float, scores), strict=True))

    def promote(self, version: str) -> None:
        """Move the alias."""
        self.registry.set_registered_model_alias(MODEL, "production", version)

    def status(self) -> dict:
        """The server's page about itself."""
        import requests

        return requests.get(f"{self.server.url}/status", timeout=30).json()[MODEL]

    def wait(self, true: Callable[[dict], object], seconds: float = 60) -> float:
        """Seconds until the server's status is as wanted.

        Raises:
            SystemExit: it never was.
        """
        began = time.monotonic()
        while not true(self.status()):
            if time.monotonic() - began > seconds:
                raise SystemExit(f"error: the server did not come to what was expected: {self.status()}")
            time.sleep(0.05)
        return time.monotonic() - began

    def serves(self, version: str) -> float:
        """Seconds until this version serves."""
        return self.wait(lambda status: status["serves"]["version"] == version and status["ready"])

    def memory(self) -> float:
        """Megabytes that the server holds."""
        return self.process.memory_info().rss / 1e6

    def is_wrong(self, version: str, driver: int, score: float) -> bool:
        """Whether a score is not what this version says of this driver without a server."""
        return not abs(score - self.own.get(version, {}).get(driver, np.inf)) <= 1e-12

    async def _client(
        self, session: aiohttp.ClientSession, number: int, seen: Seen, stop: threading.Event
    ) -> None:
        place = number * 7
        while not stop.is_set():
            place += 1
            driver = self.drivers[place % len(self.drivers)]
            began = time.perf_counter()
            try:
                body = {"instances": [{"driver_id": driver}]}
                async with session.post(f"/v1/models/{MODEL}:predict", json=body) as answer:
                    found, status = await answer.json(), answer.status
            except (aiohttp.ClientError, TimeoutError) as error:
                seen.failures.append(type(error).__name__)
                await asyncio.sleep(0.05)
                continue
            if status == 200:
                seen.milliseconds.append((time.perf_counter() - began) * 1000)
                version = found["model_version"]
                seen.versions.add(version)
                seen.wrong += self.is_wrong(version, driver, found["predictions"][0])
            elif status == 503 and "retry-after" in answer.headers:
                seen.later += 1
                await asyncio.sleep(float(answer.headers["retry-after"]))
            elif status == 503:
                seen.stopped += 1
                await asyncio.sleep(0.02)
            else:
                seen.failures.append(f"{status} {found}")

    async def _pulse(self, session: aiohttp.ClientSession, seen: Seen, stop: threading.Event) -> None:
        while not stop.is_set():
            began = time.perf_counter()
            async with session.get(LIVE) as answer:
                assert answer.status == 200
            seen.live.append(time.perf_counter() - began)
            await asyncio.sleep(0.1)

    @contextlib.contextmanager
    def clients(self, count: int) -> Iterator[Seen]:
        """``count`` clients that ask without a pause while the block runs, each on its own connection."""
        seen, stop = Seen(), threading.Event()

        async def crowd() -> None:
            timeout = aiohttp.ClientTimeout(total=60)
            connector = aiohttp.TCPConnector(limit=0)
            async with aiohttp.ClientSession(
                self.server.url, connector=connector, timeout=timeout
            ) as session:
                tasks = [self._client(session, number, seen, stop) for number in range(count)]
                await asyncio.gather(*tasks, self._pulse(session, seen, stop))

        with ThreadPoolExecutor(1) as pool:
            asking = pool.submit(lambda: asyncio.run(crowd()))
            try:
                yield seen
            finally:
                stop.set()
            asking.result()  # an error of a client, or a liveness that does not answer, ends the drill


def moving(ground: Ground, seconds: float) -> str:
    """Move the alias between the two versions, as often as the server follows."""
    end, moves = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        version = "12"[moves % 2]
        ground.promote(version)
        ground.serves(version)
        moves += 1
    ground.promote("1")
    ground.serves("1")
    return f"the alias moved {moves + 1} times"


def quiet(ground: Ground, seconds: float) -> str:
    """Nothing but the load."""
    time.sleep(seconds)
    return "nothing else"


def pickle(ground: Ground, _: float) -> str:
    """A version that executes when it is unpickled."""
    evidence = ground.workspace.path / "executed"
    version = ground.register(ground.model, serialization_format="pickle")
    number = ground.registry.get_model_version(MODEL, version).source.removeprefix("models:/")
    import mlflow

    folder = Path(mlflow.artifacts.download_artifacts(f"models:/{number}"))
    # Protocol 0, by hand: call os.mkdir with the path.
    (folder / "model.pkl").write_bytes(
        b"cos\nmkdir\n(V" + str(evidence).encode("raw_unicode_escape") + b"\ntR."
    )
    return _refused(ground, version) + ("; its code RAN" if evidence.exists() else "; nothing of it ran")


def _tenfold(schema: dict) -> dict:
    """Ten levels of lists, each naming the next one ten times."""
    kind = {"__class__": "list", "__module__": "builtins", "__loader__": "ListNode"}
    inner = {**kind, "content": [], "__id__": 1}
    for level in range(2, 12):
        inner = {**kind, "__id__": level, "content": [inner, *[{**kind, "__id__": level - 1}] * 9]}
    schema["content"]["content"]["extra"] = inner
    return schema


def hostile_files(ground: Ground, _: float) -> str:
    """Three versions whose files would hang the server, or fill its memory."""
    import mlflow
    import yaml

    laughs = "a0: &a0 [x]\n" + "".join(f"a{n + 1}: &a{n + 1} [{f'*a{n}, ' * 9}]\n" for n in range(9))
    took = []
    for plant in ("levels", "aliases", "device"):
        version = ground.register(ground.model)
        number = ground.registry.get_model_version(MODEL, version).source.removeprefix("models:/")
        folder = Path(mlflow.artifacts.download_artifacts(f"models:/{number}"))
        if plant == "levels":
            with zipfile.ZipFile(folder / "model.skops") as file:
                parts = {name: file.read(name) for name in file.namelist()}
            parts["schema.json"] = json.dumps(_tenfold(json.loads(parts["schema.json"]))).encode()
            with zipfile.ZipFile(folder / "model.skops", "w") as file:
                for name, data in parts.items():
                    file.writestr(name, data)
        elif plant == "aliases":
            (folder / "MLmodel").write_text(laughs)
        else:
            stored = yaml.safe_load((folder / "MLmodel").read_text())
            stored["saved_input_example_info"]["artifact_path"] = "../../../../../../../../dev/zero"
            (folder / "MLmodel").write_text(yaml.safe_dump(stored))
        began = time.monotonic()
        _refused(ground, version)
        took.append(time.monotonic() - began)
    return f"each was refused, and the alias back, within {max(took):.0f} s; version 1 served on"


def not_a_number(ground: Ground, _: float) -> str:
    """A version whose scores are NaN."""
    import copy

    broken = copy.deepcopy(ground.model)
    broken[-1].coef_ = np.full_like(broken[-1].coef_, np.nan)
    return _refused(ground, ground.register(broken))


def _refused(ground: Ground, version: str) -> str:
    ground.promote(version)
    ground.wait(lambda status: status["refused"])
    said, serves = ground.status()["refused"], ground.status()["serves"]["version"]
    ground.promote("1")
    ground.wait(lambda status: not status["refused"])
    return f"version {serves} served on: {said.replace(f'version {version} ', 'the new one ')}"


def definition(ground: Ground, _: float) -> str:
    """Another time to live of the feature view is applied, and the old one again."""
    view = ground.store.get_feature_view("driver_hourly_stats")
    before, view.ttl = view.ttl, timedelta(days=1)
    began = time.monotonic()
    ground.store.apply(view)
    ground.wait(lambda status: not status["ready"])
    noticed = time.monotonic() - began
    view.ttl = before
    ground.store.apply(view)
    back = ground.serves("1")
    again = f"ready again {back:.1f} s after the old definition was back"
    return f"stopped {noticed:.1f} s after `apply` began, {again}"


def models_replaced(ground: Ground, _: float) -> str:
    """The MLflow database is replaced by a copy in which the alias names the other version."""
    database = ground.workspace.path / "mlflow.db"
    backup, spare = database.with_suffix(".backup"), database.with_suffix(".spare")
    for target in (backup, spare):
        with (
            contextlib.closing(sqlite3.connect(database)) as source,
            contextlib.closing(sqlite3.connect(target)) as to,
        ):
            source.backup(to)
    with contextlib.closing(sqlite3.connect(backup)) as other, other:
        other.execute("UPDATE registered_model_aliases SET version = 2")
    backup.replace(database)
    noticed = ground.serves("2")
    spare.replace(database)
    ground.serves("1")
    return f"the version of the new database served after {noticed:.1f} s"


def features_replaced(ground: Ground, _: float) -> str:
    """The online store is replaced by a copy of itself, and that by another."""
    path = ground.workspace.path / "online_store.db"
    for _ in range(2):
        copy_ = path.with_suffix(".copy")
        shutil.copy(path, copy_)
        copy_.replace(path)
        before = time.time()
        ground.wait(lambda status, before=before: status["last_look"] > before + 1)
    held = sorted({file.path for file in ground.process.open_files() if path.name in file.path})
    return "the new file was opened" if held == [str(path)] else f"the server holds {', '.join(held)}"


def features_locked(ground: Ground, seconds: float) -> str:
    """Another program holds the online store."""
    lock = sqlite3.connect(ground.workspace.path / "online_store.db", isolation_level=None)
    lock.execute("BEGIN EXCLUSIVE")
    time.sleep(seconds)
    lock.rollback()
    lock.close()
    time.sleep(2)
    return "who had waited 5 s was asked to come back" if seconds > 5 else "each client waited once"


def registry_gone(ground: Ground, _: float) -> str:
    """The file of the feature registry is away for two seconds."""
    path = ground.workspace.path / "registry.db"
    hidden = path.rename(path.with_suffix(".away"))
    time.sleep(2)
    hidden.rename(path)
    before = time.time()
    ground.wait(lambda status: status["last_look"] > before)
    return "answered by the definitions it had, and looked again once the file was back"


def alias_gone(ground: Ground, _: float) -> str:
    """The alias is deleted and set again."""
    ground.registry.delete_registered_model_alias(MODEL, "production")
    time.sleep(2)
    ground.promote("1")
    before = time.time()
    ground.wait(lambda status: status["last_look"] > before)
    return "version 1 served on"


def paused(ground: Ground, _: float) -> str:
    """The process is paused for two seconds (SIGSTOP), as a machine that swaps."""
    os.kill(ground.process.pid, signal.SIGSTOP)
    time.sleep(2)
    os.kill(ground.process.pid, signal.SIGCONT)
    time.sleep(1)
    return "each client waited once, up to 2 s: too few to show in the p99"


def large_bodies(ground: Ground, _: float) -> str:
    """Twenty callers announce a body of 95 MB."""
    lines = [
        f"POST /v1/models/{MODEL}:predict HTTP/1.1",
        "host: 127.0.0.1",
        "content-length: 95000000",
        "",
        "",
    ]
    head = "\r\n".join(lines).encode()
    answers = []
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", ground.server.port), timeout=30) as connection:
            connection.sendall(head + b" " * 10_000)
            answers.append(connection.recv(64).split(b" ")[1].decode())
    return f"answered {', '.join(sorted(set(answers)))} before the body was sent"


def half_requests(ground: Ground, _: float) -> str:
    """300 callers send half a request and wait."""
    head = f"POST /v1/models/{MODEL}:predict HTTP/1.1\r\nhost: 127.0.0.1\r\n".encode()
    waiting = [socket.create_connection(("127.0.0.1", ground.server.port), timeout=30) for _ in range(300)]
    for connection in waiting:
        connection.sendall(head)
    time.sleep(12)
    closed = 0
    for connection in waiting:
        connection.settimeout(0.05)
        with contextlib.suppress(TimeoutError):
            try:
                closed += connection.recv(1) == b""
            except ConnectionError:
                closed += 1
        connection.close()
    return f"after 12 s the server had hung up on {closed} of 300"


def _descriptors() -> None:
    """As many for this process as the system lets it have."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65_536), hard))


def silent_connections(ground: Ground, _: float) -> str:
    """1,770 callers connect and say nothing; 30 more ask 60 times at once and read no answer."""
    _descriptors()
    size, most = ground.server.log.stat().st_size, 0
    ask = b"GET /metrics HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n" * 60
    with contextlib.ExitStack() as held:
        for number in range(1800):
            connection = held.enter_context(socket.socket())
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect(("127.0.0.1", ground.server.port))
            if number >= 1770:
                with contextlib.suppress(OSError):
                    connection.send(ask)
            if number % 100 == 0:
                most = max(most, len(ground.process.net_connections()))
        time.sleep(12)
        left = len(ground.process.net_connections())
    grown = ground.server.log.stat().st_size - size
    return f"the server held {most:,} at most, and {left} after 12 s; its log grew by {grown:,} bytes"


def wrong_callers(ground: Ground, _: float) -> str:
    """Requests of pages that rebind a name, and of broken clients."""
    body = b'{"instances": [{"driver_id": 1001}]}'
    port = ground.server.port
    tries = {
        "another host": b"host: evil.org",
        "two hosts": b"host: 127.0.0.1\r\nhost: evil.org",
        "a foreign page": b"host: 127.0.0.1\r\norigin: http://evil.org",
        "a length of 4,401 digits": b"host: 127.0.0.1\r\ncontent-length: " + b"9" * 4401,
    }
    seen = []
    for name, lines in tries.items():
        length = b"" if b"content-length" in lines else b"content-length: %d\r\n" % len(body)
        head = f"POST /v1/models/{MODEL}:predict HTTP/1.1\r\n".encode() + lines + b"\r\n" + length + b"\r\n"
        with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
            connection.sendall(head + body)
            seen.append(f"{name} {connection.recv(64).split(b' ')[1].decode()}")
    return ", ".join(seen)


LOADS = [
    ("one client", 1, quiet, 20.0),
    ("50 clients, the alias moves", 50, moving, 60.0),
    ("500 clients", 500, quiet, 30.0),
]
FAULTS: list[tuple[str, Callable[[Ground, float], str], float]] = [
    ("a version that executes is promoted", pickle, 0),
    ("versions that would hang or fill the server", hostile_files, 0),
    ("a version with NaN scores is promoted", not_a_number, 0),
    ("a definition changes", definition, 0),
    ("`mlflow.db` is replaced", models_replaced, 0),
    ("`online_store.db` is replaced", features_replaced, 0),
    *((f"the online store is locked for {n} s", features_locked, float(n)) for n in (2, 8, 15)),
    ("the feature registry is gone", registry_gone, 0),
    ("the alias is deleted", alias_gone, 0),
    ("the process is paused", paused, 0),
    ("bodies of 95 MB", large_bodies, 0),
    ("300 half requests", half_requests, 0),
    ("1,800 silent connections", silent_connections, 0),
    ("wrong callers", wrong_callers, 0),
]
SHORT = {
    "50 clients, the alias moves",
    "a definition changes",
    "a version with NaN scores is promoted",
    "the online store is locked for 8 s",
    "bodies of 95 MB",
    "wrong callers",
}


def drill(
    ground: Ground, name: str, clients: int, what: Callable[[Ground, float], str], seconds: float
) -> dict:
    """One row of the table."""
    before, began = ground.memory(), time.monotonic()
    with ground.clients(clients) as seen:
        time.sleep(0.5)
        happened = what(ground, seconds)
        time.sleep(0.5)
    took = time.monotonic() - began
    p50, p99 = (float(np.quantile(seen.milliseconds, q)) for q in (0.5, 0.99))
    row = {
        "drill": name,
        "clients": clients,
        "seconds": round(took, 1),
        "requests": seen.requests,
        "later": seen.later,
        "stopped": seen.stopped,
        "failures": len(seen.failures),
        "first_failure": seen.failures[0][:200] if seen.failures else "",
        "wrong": int(seen.wrong),
        "p50_ms": round(p50, 1),
        "p99_ms": round(p99, 1),
        "liveness_worst_s": round(max(seen.live), 2),
        "memory_mb": round(ground.memory() - before, 1),
        "versions": sorted(seen.versions),
        "happened": happened,
    }
    print(json.dumps(row), flush=True)
    return row


def run(short: bool) -> list[dict]:
    """All drills, or a few for a few seconds."""
    with tempfile.TemporaryDirectory() as folder:
        ground = Ground(Path(folder) / "home")
        with ground.server:
            rows = []
            faults = [(name, 8, what, seconds) for name, what, seconds in FAULTS]
            loads = [(*load[:3], min(load[3], 3)) if short else load for load in LOADS]
            for name, clients, what, seconds in [*loads, *faults]:
                if not short or name in SHORT:
                    rows.append(drill(ground, name, clients, what, seconds))
            return rows


COLUMNS = {
    "drill": "drill",
    "clients": "clients",
    "seconds": "s",
    "requests": "requests",
    "later": "later",
    "stopped": "stopped",
    "failures": "failures",
    "wrong": "wrong scores",
    "p50_ms": "p50, ms",
    "p99_ms": "p99, ms",
    "liveness_worst_s": "liveness, s",
    "memory_mb": "memory, MB",
    "happened": "what happened",
}
"""A row's keys, and the page's columns."""
PAGE = """<!-- `make drills` writes this page. -->
# The model server under load and under faults

{requests:,} requests: {later:,} were told to come back later, {stopped:,} met a server that had stopped.
Of all requests, {failures} failed, and {wrong} got another score than that of the version the answer names.
Measured on {machine}; the clients ran on the same cores.

Each client asks without a pause, on its own connection, and waits as long as a 503 tells it to.
Each score is compared with the one that its version gives for that driver without a server.
*Later* counts the answers 503 with `Retry-After`, of a full queue or a locked store.
*Stopped* counts the answers of a server that says why it is not ready.
Liveness is asked ten times a second; the column has its slowest answer.
Memory is how much more the server process held at the end of the drill than at its start.
The faults happen while 8 clients ask.

"""


def page(rows: list[dict]) -> str:
    """docs/reliability.md."""
    totals = {
        key: sum(row[key] for row in rows) for key in ("requests", "later", "stopped", "failures", "wrong")
    }
    system = f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"
    lines = [list(COLUMNS.values()), ["---"] * len(COLUMNS)]
    for row in rows:
        cells = row | {"requests": f"{row['requests']:,}", "memory_mb": f"{row['memory_mb']:+}"}
        lines.append([str(cells[key]).replace("|", "\\|") for key in COLUMNS])
    table = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    return PAGE.format(machine=f"{os.cpu_count()} cores, {system}", **totals) + table


def main(argv: list[str] | None = None) -> int:
    """The command line; 1 when a request failed or a score was wrong."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.drills", description=__doc__)
    parser.add_argument("--short", action="store_true", help="a few of them, for a few seconds")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "docs", help="folder of reliability.md")
    arguments = parser.parse_args(argv)
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    os.environ["MLFLOW_SQLALCHEMYSTORE_POOLCLASS"] = "NullPool"  # a drill puts another database in its place
    rows = run(arguments.short)
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "reliability.md").write_text(page(rows), encoding="utf-8")
    print(arguments.out / "reliability.md")
    return int(any(row["failures"] or row["wrong"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())

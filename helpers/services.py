"""Servers of the course: on loopback, on a free port, watched until they answer, and ended by their own
handle."""

from __future__ import annotations

import asyncio
import glob
import json
import logging
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from helpers.workspace import REPOSITORY, WorkshopError
from lifecycle.cluster import waiting

if TYPE_CHECKING:
    from kserve import Model

HOST = "127.0.0.1"
MONITORING = REPOSITORY / "cluster" / "monitoring"
"""What a cluster's Prometheus and Grafana get: scrape settings, alert rules, a dashboard."""
_KEEPER = Path(__file__).resolve().with_name("_keeper.py")
_FEAST = Path(__file__).resolve().with_name("_feast.py")


def free_port() -> int:
    """A port of the loopback interface that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return probe.getsockname()[1]


def is_free(port: int) -> bool:
    """Whether nobody listens on a port of the loopback interface now."""
    with socket.socket() as probe:
        # As servers do: a port that only lingers from a connection closed a moment ago is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


class Service:
    """A server process. Use it as a context manager, or call ``stop()``.

    The server also ends when this process does, however that happens: it runs under a keeper (``_keeper.py``)
    that holds a pipe from here and ends the server when the pipe closes. A killed notebook kernel leaves
    nothing behind. A command that starts with ``feast`` runs Feast's command line with a check of the host
    that a caller names (``_feast.py``); MLflow's server and ``lifecycle.serving.scoring`` have their own.

    Args:
        name: for messages and the log file.
        command: arguments; ``{port}`` in them is replaced by the port.
        health: path that answers 200 once the server is ready, such as ``/health``; None for a server that
            speaks no HTTP: it is ready once it accepts a connection.
        log: file that takes what the server prints.
        port: a port of your own; a free one when left out.
        timeout: seconds to wait until it is ready.
        wait: False to go on at once, so that two servers can start side by side; call ``wait()`` before the
            first request.

    Raises:
        WorkshopError: the port is taken; the server ended or did not answer in time. The message carries the
            end of its log.
    """

    def __init__(
        self,
        name: str,
        command: list[str],
        *,
        health: str | None,
        log: Path,
        port: int | None = None,
        timeout: float = 120,
        wait: bool = True,
    ):
        self.name, self.log, self.health, self.timeout = name, Path(log), health, timeout
        self.port = port or free_port()
        self.url = f"http://{HOST}:{self.port}"
        if not is_free(self.port):
            raise WorkshopError(
                f"{name}: port {self.port} is taken by another program. Leave the port out and a free "
                "one is found, or stop that program."
            )
        self.log.parent.mkdir(parents=True, exist_ok=True)
        arguments = [str(argument).replace("{port}", str(self.port)) for argument in command]
        if Path(arguments[0]).name == "feast":
            arguments = [sys.executable, "-P", str(_FEAST), *arguments[1:]]
        with self.log.open("wb") as output:
            self._keeper = subprocess.Popen(
                [sys.executable, "-P", str(_KEEPER), *arguments],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                # Jupyter kills a kernel with its whole process group, and the keeper must outlive that.
                start_new_session=True,
            )
        if wait:
            self.wait()

    def wait(self) -> Service:
        """Return once the server is ready; see the class for what is raised otherwise, after ending it."""
        try:
            deadline = time.monotonic() + self.timeout
            while not self._answers():
                if self._keeper.poll() is not None:
                    raise WorkshopError(
                        f"{self.name} ended with exit code {self._keeper.returncode} before it was ready. "
                        f"The end of {self.log}:\n{self.tail()}"
                    )
                if time.monotonic() > deadline:
                    raise WorkshopError(
                        f"{self.name} did not answer on {self.url}{self.health or ''} within "
                        f"{self.timeout:.0f} s. The end of {self.log}:\n{self.tail()}"
                    )
                time.sleep(0.1)
        except BaseException:
            self.stop()
            raise
        return self

    def _answers(self) -> bool:
        try:
            if self.health is None:
                socket.create_connection((HOST, self.port), timeout=2).close()
                return True
            with urllib.request.urlopen(self.url + self.health, timeout=2) as answer:
                return answer.status == 200
        except (urllib.error.URLError, OSError):
            return False

    def tail(self, lines: int = 15) -> str:
        """The last lines that the server printed."""
        return (
            "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])
            if self.log.exists()
            else "(no log)"
        )

    @property
    def running(self) -> bool:
        """Whether the server process is alive."""
        return self._keeper.poll() is None

    def stop(self) -> None:
        """End the server and wait until it has ended. Safe to call twice."""
        if self._keeper.stdin and not self._keeper.stdin.closed:
            self._keeper.stdin.close()
        try:
            self._keeper.wait(20)
        except subprocess.TimeoutExpired:
            self._keeper.kill()
            self._keeper.wait()

    def __enter__(self) -> Service:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class InThread:
    """KServe's server for one model, in a thread of this process: on loopback, on a free port.

    ``kserve.ModelServer().start([model])``, with which a program ends, listens on all interfaces and returns
    only when the process is told to end. Errors reach the caller, and no log.

    Args:
        model: loaded.
    """

    def __init__(self, model: Model):
        from fastapi import FastAPI
        from kserve import ModelRepository
        from kserve.protocol.dataplane import DataPlane
        from kserve.protocol.model_repository_extension import ModelRepositoryExtension
        from kserve.protocol.rest.server import RESTServer
        from starlette.middleware.trustedhost import TrustedHostMiddleware

        models, app = ModelRepository(), FastAPI()
        models.update(model)
        self._socket = socket.create_server((HOST, 0))
        self.url = f"http://{HOST}:{self._socket.getsockname()[1]}"
        # KServe's own way to start it takes one application for the whole process.
        rest = RESTServer("", DataPlane(models), ModelRepositoryExtension(models), 0)
        rest._register_endpoints(app)
        rest._add_exception_handlers(app)
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"], www_redirect=False)
        rest.config.app, rest.config.ws, self._server = app, "none", rest._server
        for name in ("kserve", "uvicorn.error", "uvicorn.access"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        # Between KServe and FastAPI, at each request.
        warnings.filterwarnings("ignore", message="ORJSONResponse is deprecated")
        serves = self._server.serve([self._socket])
        self._thread = threading.Thread(target=asyncio.run, args=[serves], daemon=True)
        self._thread.start()
        while not self._server.started and self._thread.is_alive():
            time.sleep(0.01)

    @property
    def running(self) -> bool:
        """Whether the server still answers."""
        return self._thread.is_alive()

    def stop(self) -> None:
        """End the server and wait until it has ended. Safe to call twice."""
        self._server.should_exit = True
        self._thread.join(20)
        self._socket.close()


class Deployed:
    """A model server that KServe runs on a cluster: what is asked of it is what is asked of ``Service``.

    One of an earlier run is replaced.

    Args:
        service: the InferenceService, as ``lifecycle.cluster.inference_service`` renders it.
        namespace: where it runs.
        options: those of ``lifecycle.cluster.waiting.follow``.

    Raises:
        ClusterError: it cannot start; the message says which pod and why.
        TimeoutError: it was not ready in time.
    """

    def __init__(self, service: dict[str, Any], namespace: str, **options: Any):
        from kserve import KServeClient, V1beta1InferenceService

        self._client, self._namespace = KServeClient(), namespace
        self._name = name = service["metadata"]["name"]
        wanted = V1beta1InferenceService(
            api_version=service["apiVersion"],
            kind=service["kind"],
            metadata=service["metadata"],
            spec=service["spec"],
        )
        try:
            self._client.create(wanted, namespace=namespace)
        except RuntimeError as error:  # KServe wraps the status
            if "(409)" not in str(error):
                raise
            found = self._client.get(name, namespace=namespace)["metadata"]
            wanted.metadata = {**service["metadata"], "resourceVersion": found["resourceVersion"]}
            self._client.api_instance.replace_namespaced_custom_object(
                "serving.kserve.io", "v1beta1", namespace, "inferenceservices", name, wanted
            )
        api = self._client.core_api.api_client
        ready = waiting.for_object("InferenceService", name, namespace, api, **{"patience": 600, **options})
        self.url = ready.object["status"]["address"]["url"]

    @property
    def running(self) -> bool:
        """Whether KServe says that it is ready."""
        return bool(self._name and self._client.is_isvc_ready(self._name, namespace=self._namespace))

    def stop(self) -> None:
        """Delete the InferenceService; KServe ends its pods. Safe to call twice."""
        if self._name:
            self._client.delete(self._name, namespace=self._namespace)
            self._name = ""


class Neighbor:
    """A server in a container beside this one, which compose.yaml started, and ends.

    Args:
        address: ``host:port``, where it answers.
    """

    def __init__(self, address: str):
        self.url, self.port = f"http://{address}", int(address.rpartition(":")[2])

    def stop(self) -> None:
        """Nothing: others may use it."""


def redis(log: Path) -> Service | Neighbor | None:
    """A Redis server that keeps everything in memory; None where no ``redis-server`` is installed.

    Where compose.yaml started one, that one.
    """
    if address := os.environ.get("WORKSHOP_REDIS"):
        return Neighbor(address)
    program = shutil.which("redis-server")
    if program is None:
        return None
    command = [program, "--bind", HOST, "--port", "{port}", "--save", "", "--appendonly", "no"]
    return Service("Redis", command, health=None, log=log)


def prometheus(folder: Path, targets: Sequence[str]) -> Service | Neighbor | None:
    """A Prometheus with the cluster's alert rules that scrapes, and evaluates them, each second.

    None where no ``prometheus`` is installed. Where compose.yaml started one, that one reads the targets.

    Its first look at a server comes after about five seconds.

    Args:
        folder: for its settings, its data and its log.
        targets: of the servers with ``/metrics``, each as ``host:port``.
    """
    if address := os.environ.get("WORKSHOP_PROMETHEUS"):
        listed = REPOSITORY / "workspace" / "prometheus.json"
        listed.parent.mkdir(parents=True, exist_ok=True)
        listed.write_text(json.dumps([{"targets": list(targets)}]))
        return Neighbor(address)
    program = shutil.which("prometheus")
    if program is None:
        return None
    settings = yaml.safe_load((MONITORING / "prometheus.yaml").read_text())
    settings["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    # A pattern for Prometheus, and a folder's name may hold brackets.
    settings["rule_files"] = [glob.escape(str(MONITORING / name)) for name in settings["rule_files"]]
    settings["scrape_configs"][0]["static_configs"] = [{"targets": list(targets)}]
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "prometheus.yaml"
    config.write_text(yaml.safe_dump(settings))
    command = [program, f"--config.file={config}", f"--storage.tsdb.path={folder / 'series'}"]
    command += [f"--web.listen-address={HOST}:{{port}}", "--log.level=warn"]
    return Service("Prometheus", command, health="/-/ready", log=folder / "prometheus.log")


def _asked(prometheus: Service | Neighbor, path: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"{prometheus.url}/api/v1/{path}", timeout=10) as answer:
        return json.load(answer)["data"]


def query(prometheus: Service | Neighbor, expression: str) -> list[dict[str, Any]]:
    """What a PromQL expression gives now: the labels of each series, and its ``value``.

    Raises:
        urllib.error.HTTPError: 400, the expression cannot be read.
    """
    found = _asked(prometheus, f"query?{urllib.parse.urlencode({'query': expression})}")["result"]
    return [{**series["metric"], "value": float(series["value"][1])} for series in found]


def alerts(prometheus: Service | Neighbor) -> list[dict[str, Any]]:
    """The alerts that are ``pending`` or ``firing`` now: the labels of each, its ``state`` and its
    ``summary``."""
    found = _asked(prometheus, "alerts")["alerts"]
    return [{**alert["labels"], **alert["annotations"], "state": alert["state"]} for alert in found]


def milliseconds(call: Callable[[object], object], arguments: Sequence[object], count: int) -> list[float]:
    """How long each of ``count`` calls takes, one after the other, with ``arguments`` in turn; 20 calls
    before them are not counted."""
    times = []
    for number in range(count + 20):
        began = time.perf_counter()
        call(arguments[number % len(arguments)])
        times.append((time.perf_counter() - began) * 1000)
    return times[20:]

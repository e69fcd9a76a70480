"""`docker compose up` on a copy of the clone, as a new user types it: four servers on loopback, and
notebook 00 in a browser, run by JupyterLab in the container.

It takes Docker, with its command for Compose. The images of Redis and Prometheus come from a registry; where
there is none (``IMAGE_BASE``), this machine's own programs stand in, in images of the same names.
"""

import json
import os
import re
import shutil
import subprocess
import time
from types import SimpleNamespace
from uuid import uuid4

import lab
import psutil
import pytest
import requests
import yaml
from browser import browser, needs_chromium  # noqa: F401  a fixture
from test_image import docker, made  # noqa: F401  a fixture
from test_jupyterlab import run_all
from test_wheels import NOT_PART

from helpers.services import HOST, free_port
from helpers.workspace import REPOSITORY, Workspace
from lifecycle.settings import Cluster
from workshop.image import LAB

pytestmark = [pytest.mark.system, pytest.mark.xdist_group("wheels"), needs_chromium]
COMPOSE = yaml.safe_load((REPOSITORY / "compose.yaml").read_text())["services"]
CONTAINER = json.loads((REPOSITORY / ".devcontainer" / "devcontainer.json").read_text())
PORTS = {"LAB_PORT": 8888, "MLFLOW_PORT": 8898, "PROMETHEUS_PORT": 9090}
CALLER = 12345 if os.getuid() == 0 else os.getuid()  # root may give files away


def stand_in(docker, folder, name: str, program: str, entrypoint: str) -> None:  # noqa: F811
    """An image with a program of this machine, and the libraries that it is linked with."""
    path = shutil.which(program) or pytest.skip(f"{program} is not installed")
    linked = subprocess.run(["ldd", path], capture_output=True, text=True).stdout
    for file in [path, *re.findall(r"(/\S+) \(0x", linked)]:
        (folder / file[1:]).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, folder / file[1:])
    (folder / "Dockerfile").write_text(f"FROM scratch\nCOPY . /\n{entrypoint}\n")
    docker("build", "--quiet", "--tag", name, folder)


@pytest.fixture(scope="module")
def up(docker, request, tmp_path_factory):  # noqa: F811
    """The clone's copy, and its containers, started by Compose."""
    compose = ["docker", "compose"]
    if subprocess.run([*compose, "version"], capture_output=True).returncode:
        compose = [shutil.which("docker-compose") or pytest.skip("Docker's command for Compose is not here")]
    made(docker, request, lab=True)
    if os.environ.get("IMAGE_BASE"):
        starts = {"redis-server": "", "prometheus": 'ENTRYPOINT ["/usr/bin/prometheus"]'}
        for name, (program, entrypoint) in zip(("redis", "prometheus"), starts.items(), strict=True):
            stand_in(docker, tmp_path_factory.mktemp(name), COMPOSE[name]["image"], program, entrypoint)
    clone = tmp_path_factory.mktemp("a caller") / "clone"
    shutil.copytree(REPOSITORY, clone, ignore=NOT_PART)
    for path in [clone, *clone.rglob("*")]:
        os.chown(path, CALLER, CALLER if os.getuid() == 0 else -1)
    ports = {name: free_port() for name in PORTS}
    given = {name: str(port) for name, port in ports.items()}
    there = {**os.environ, **given, "COMPOSE_PROJECT_NAME": f"course{uuid4().hex[:8]}"}

    def run(*words: str) -> str:
        done = subprocess.run([*compose, *words], cwd=clone, env=there, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout

    try:
        run("up", "--detach")
        until = time.monotonic() + 300
        while not (
            found := re.findall(r"http://127\.0\.0\.1:8888(/lab/tree/\S+\?token=\w+)", run("logs", "lab"))
        ):
            assert time.monotonic() < until, run("logs")
            run("exec", "-T", "lab", "true")  # it has not ended
            time.sleep(1)
        address = f"http://{HOST}:{ports['LAB_PORT']}{found[0]}"
        yield SimpleNamespace(clone=clone, ports=ports, address=address, run=run)
    finally:
        run("down", "--volumes")


def eventually(url: str, **options: object) -> requests.Response:
    until = time.monotonic() + 180
    while True:
        try:
            return requests.get(url, timeout=10, **options)
        except requests.ConnectionError:
            assert time.monotonic() < until, url
            time.sleep(0.5)


def test_the_files_of_both_doors_name_the_same_ports_images_and_places():
    ports = COMPOSE["lab"]["ports"]
    assert ports == [f"127.0.0.1:${{{name}:-{port}}}:{port}" for name, port in PORTS.items()]
    assert (
        CONTAINER["forwardPorts"] == [int(port) for port in CONTAINER["portsAttributes"]] == [*PORTS.values()]
    )
    assert COMPOSE["lab"]["image"] == COMPOSE["mlflow"]["image"] == LAB
    assert COMPOSE["redis"]["image"] == Cluster().redis_image
    assert COMPOSE["lab"]["volumes"] == [f".:{CONTAINER['workspaceFolder']}"]
    assert not any("ports" in service for name, service in COMPOSE.items() if name != "lab")


def test_notebook_00_runs_to_its_end_in_the_container_and_leaves_the_callers_files(up, browser):  # noqa: F811
    listening = {socket.laddr for socket in psutil.net_connections("inet") if socket.status == "LISTEN"}
    assert {ip for ip, port in listening if port in up.ports.values()} == {HOST}
    tab = lab.Tab(browser, Workspace(up.clone), up.address, "00_start_here.ipynb", root=up.clone)
    run_all(tab)
    owners = {path.stat().st_uid for path in up.clone.rglob("*")}
    assert owners == {CALLER}
    users = up.run("exec", "-T", "--user", str(CALLER), "lab", "sh", "-c", "cat /proc/[0-9]*/status")
    assert set(re.findall(r"(?m)^Uid:\s+(\d+)", users)) == {str(CALLER)}


def test_each_server_answers_to_this_machines_names_alone(up):
    for name, path in (
        ("LAB_PORT", "/api"),
        ("MLFLOW_PORT", "/api/2.0/mlflow/experiments/search?max_results=9"),
    ):
        url = f"http://{HOST}:{up.ports[name]}{path}"
        assert eventually(url).status_code == 200
        assert requests.get(url, headers={"Host": "evil.example"}, timeout=10).status_code == 403
    url = f"http://{HOST}:{up.ports['LAB_PORT']}/api/contents"
    assert requests.get(url, timeout=10).status_code == 403, "it wants its token"


LOOK = """
import time, pathlib, sys
from helpers import services
import redis
store = services.redis(pathlib.Path("log"))
client = redis.Redis(services.HOST, store.port)
client.set("driver", "1001")
watched = services.prometheus(pathlib.Path("."), ["127.0.0.1:9090"])
for _ in range(60):
    if found := services.query(watched, "up"):
        break
    time.sleep(1)
print(client.get("driver"), [(one["instance"], one["value"]) for one in found])
"""


def test_a_notebook_in_the_container_uses_redis_and_prometheus_beside_it(up):
    said = up.run("exec", "-T", "--user", str(CALLER), "lab", "python", "-c", LOOK)
    assert said.strip() == "b'1001' [('127.0.0.1:9090', 1.0)]"

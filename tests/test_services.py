"""Servers of the course start when they answer, say why they do not, and never outlive their owner."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

from helpers.services import HOST, Service
from helpers.workspace import WorkshopError

pytestmark = pytest.mark.system
SERVER = [sys.executable, "-m", "http.server", "--bind", HOST, "{port}"]


def answers(url: str) -> bool:
    try:
        return urllib.request.urlopen(url, timeout=2).status == 200
    except OSError:
        return False


def test_a_server_answers_within_its_block_and_is_gone_after_it_also_when_the_block_fails(tmp_path):
    with (
        pytest.raises(ZeroDivisionError),
        Service("one", SERVER, health="/", log=tmp_path / "logs" / "1.log") as one,
        Service("two", SERVER, health="/", log=tmp_path / "2.log") as two,
    ):
        assert one.port != two.port and one.running and answers(one.url) and answers(two.url)
        two.stop()
        assert not two.running
        raise ZeroDivisionError
    assert not answers(one.url) and not answers(two.url)


def test_a_server_that_dies_or_never_answers_shows_the_end_of_its_log(tmp_path):
    program = [sys.executable, "-u", "-c", "print('opening the model'); raise SystemExit('no such model')"]
    with pytest.raises(
        WorkshopError, match=r"(?s)scorer ended with exit code 1.*opening the model.*no such model"
    ):
        Service("scorer", program, health="/", log=tmp_path / "log")
    with pytest.raises(WorkshopError, match=r"(?s)files did not answer on .*/no within 4 s.*404") as raised:
        Service("files", SERVER, health="/no", log=tmp_path / "log", timeout=4)
    assert not answers(str(raised.value).split(" did not answer on ")[1].split("/no ")[0])


def test_an_occupied_port_is_named_with_the_remedy(tmp_path):
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            WorkshopError, match=f"port {port} is taken by another program. Leave the port out"
        ):
            Service("files", SERVER, health="/", log=tmp_path / "log", port=port)


@pytest.mark.parametrize("kill", [os.kill, os.killpg], ids=["alone", "with its process group"])
def test_a_server_ends_when_its_owner_is_killed(tmp_path, kill):
    owner = "import sys, time; from helpers.services import Service; "
    owner += f"s = Service('files', {SERVER!r}, health='/', log=sys.argv[1]); "
    owner += "print(s.url, flush=True); time.sleep(600)"
    command = [sys.executable, "-c", owner, tmp_path / "log"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        url = process.stdout.readline().strip()
        assert answers(url)
        kill(process.pid, signal.SIGKILL)
    for _ in range(600):
        if not answers(url):
            return
        time.sleep(0.1)
    pytest.fail("the server outlived its owner")

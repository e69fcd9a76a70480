import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest

from helpers.services import HOST, Service, free_port
from helpers.workspace import WorkshopError

SERVER = [sys.executable, "-m", "http.server", "--bind", HOST, "{port}"]


def answers(url: str) -> bool:
    try:
        return urllib.request.urlopen(url, timeout=2).status == 200
    except (urllib.error.URLError, OSError):
        return False


def until(true, seconds: float = 15) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if true():
            return True
        time.sleep(0.1)
    return False


def test_a_free_port_can_be_bound():
    with socket.socket() as probe:
        probe.bind((HOST, free_port()))


def test_a_server_is_healthy_when_its_handle_is_there_and_gone_after_it(tmp_path):
    with Service("files", SERVER, health="/", log=tmp_path / "logs" / "files.log") as server:
        assert server.running and answers(server.url)
    assert not server.running and not answers(server.url)
    server.stop()  # a second time does no harm


def test_a_server_is_stopped_when_the_code_that_uses_it_fails(tmp_path):
    with (
        pytest.raises(ZeroDivisionError),
        Service("files", SERVER, health="/", log=tmp_path / "log") as server,
    ):
        1 / 0  # noqa: B018
    assert not answers(server.url)


def test_two_servers_get_ports_of_their_own(tmp_path):
    with (
        Service("one", SERVER, health="/", log=tmp_path / "1.log") as one,
        Service("two", SERVER, health="/", log=tmp_path / "2.log") as two,
    ):
        assert one.port != two.port
        assert answers(one.url) and answers(two.url)


def test_a_server_that_dies_shows_the_end_of_its_log(tmp_path):
    program = "import sys; print('opening the model'); sys.exit('no such model: champion')"
    with pytest.raises(
        WorkshopError, match=r"(?s)scorer ended with exit code 1.*opening the model.*no such model: champion"
    ):
        Service("scorer", [sys.executable, "-u", "-c", program], health="/", log=tmp_path / "log")


def test_a_server_that_never_gets_healthy_is_ended_after_the_time_given(tmp_path):
    began = time.monotonic()
    with pytest.raises(
        WorkshopError, match=r"(?s)files did not answer on .*/nothing-here within 2 s.*404"
    ) as raised:
        Service("files", SERVER, health="/nothing-here", log=tmp_path / "log", timeout=2)
    assert time.monotonic() - began < 30
    address = str(raised.value).split(" did not answer on ")[1].split("/nothing-here")[0]
    assert not answers(address)


def test_an_occupied_port_is_named_with_the_remedy(tmp_path):
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(
            WorkshopError, match=f"port {port} is taken by another program. Leave the port out"
        ):
            Service("files", SERVER, health="/", log=tmp_path / "log", port=port)


@pytest.mark.parametrize("kill", [os.kill, os.killpg], ids=["alone", "with its process group"])
def test_a_server_ends_when_its_owner_is_killed(tmp_path, kill):
    owner = "import sys, time; from helpers.services import Service; "
    owner += f"s = Service('files', {SERVER!r}, health='/', log=sys.argv[1]); print(s.url, flush=True); time.sleep(600)"
    with subprocess.Popen(
        [sys.executable, "-c", owner, tmp_path / "log"],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        url = process.stdout.readline().strip()
        assert answers(url)
        kill(process.pid, signal.SIGKILL)
    assert until(lambda: not answers(url)), "the server outlived its owner"

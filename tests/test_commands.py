"""The doors that open pages: they answer on loopback, and Ctrl-C ends what they started."""

import os
import re
import signal
import subprocess
import sys
import urllib.request

import pytest
from conftest import listening

from helpers.services import HOST
from helpers.workspace import REPOSITORY


def deaf_to_ctrl_c():
    """As a shell starts what runs in the background."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def test_the_pages_of_mlflow_and_feast_answer_on_loopback_alone_until_ctrl_c(applied):
    command = [sys.executable, "-m", "workshop.commands", "ui"]
    environment = {**os.environ, "WORKSHOP_HOME": str(applied.home)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(command, cwd=REPOSITORY, env=environment, preexec_fn=deaf_to_ctrl_c, **pipes) as door:
        try:
            said = []
            while not said or said[-1] not in ("", "Ctrl-C stops both.\n"):
                said.append(door.stdout.readline())
            pages = dict(re.findall(r"^(MLflow|Feast) +(http://127\.0\.0\.1:\d+)$", "".join(said), re.M))
            assert set(pages) == {"MLflow", "Feast"}, "".join(said)
            statuses = {urllib.request.urlopen(address, timeout=20).status for address in pages.values()}
            found = listening(door.pid)
            door.send_signal(signal.SIGINT)
            assert door.wait(40) == 0
        finally:
            door.kill()
    assert statuses == {200}
    assert {socket.laddr.ip for socket in found} == {HOST}
    assert set(pages.values()) <= {f"http://{HOST}:{socket.laddr.port}" for socket in found}
    for address in pages.values():
        with pytest.raises(OSError):
            urllib.request.urlopen(address, timeout=5)


def test_without_a_registry_there_is_nothing_to_look_at_and_it_says_so(home):
    command = [sys.executable, "-m", "workshop.commands", "ui"]
    environment = {**os.environ, "WORKSHOP_HOME": str(home.home)}
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "there is nothing to look at yet: run notebook 01" in done.stderr

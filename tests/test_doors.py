"""The doors that open pages: they answer on loopback, and Ctrl-C ends what they started."""

import os
import re
import signal
import subprocess
import sys
import urllib.request

from helpers.workspace import REPOSITORY


def test_the_pages_of_mlflow_and_feast_answer_on_loopback_until_ctrl_c(applied):
    command = [sys.executable, "-m", "helpers.doors", "ui"]
    environment = {**os.environ, "WORKSHOP_HOME": str(applied.home)}
    with subprocess.Popen(command, cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, text=True) as door:
        said = "".join(iter(door.stdout.readline, "Ctrl-C stops both.\n"))
        pages = dict(re.findall(r"^(MLflow|Feast) +(http://127\.0\.0\.1:\d+)$", said, re.M))
        statuses = {name: urllib.request.urlopen(address, timeout=20).status for name, address in pages.items()}
        door.send_signal(signal.SIGINT)
        assert door.wait(40) == 0
    assert statuses == {"MLflow": 200, "Feast": 200}
    for address in pages.values():
        try:
            urllib.request.urlopen(address, timeout=5)
        except OSError:
            continue
        raise AssertionError(f"{address} still answers")


def test_without_a_registry_there_is_nothing_to_look_at_and_it_says_so(home):
    command = [sys.executable, "-m", "helpers.doors", "ui"]
    environment = {**os.environ, "WORKSHOP_HOME": str(home.home)}
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "there is nothing to look at yet: run notebook 01" in done.stderr

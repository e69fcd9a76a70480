"""A function of a notebook in a Python process of its own, so that it can be killed."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path


def in_a_process(log: Path, task: Callable[..., None], **arguments: object) -> subprocess.Popen:
    """Call ``task`` with ``arguments`` in a new Python process; what it prints goes to ``log``.

    A notebook's functions travel there by value.

    The process ends when this one does: a sweep without its owner would be a second writer after a restart.
    """
    import cloudpickle

    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        command = [sys.executable, "-P", "-m", "helpers.worker"]
        worker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=output, stderr=subprocess.STDOUT)
    assert worker.stdin
    worker.stdin.write(cloudpickle.dumps((task, arguments)))
    worker.stdin.flush()  # and kept open: its end is the sign that the owner is gone
    return worker


def _work() -> None:
    import cloudpickle
    import optuna

    task, arguments = cloudpickle.load(sys.stdin.buffer)
    watch = threading.Thread(target=lambda: (sys.stdin.buffer.read(), os._exit(1)), daemon=True)
    watch.start()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    task(**arguments)
    sys.stdout.flush()
    os._exit(0)  # the watch still holds standard input


if __name__ == "__main__":
    _work()

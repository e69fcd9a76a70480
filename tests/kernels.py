"""Kernels of notebooks that tests execute are forks of one process that has imported the tools.

A kernel that starts Python anew spends most of a short notebook's time on the imports of Feast, MLflow and
scikit-learn. JupyterLab's kernels and papermill's own command start as they always do.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import signal
import sys
import threading
import time
from pathlib import Path

from jupyter_client.provisioning import local_provisioner

PYTHON = multiprocessing.get_context("forkserver")
PYTHON.set_forkserver_preload(["ready"])  # it is in tests/quick, which conftest.py puts into PYTHONPATH


class Fork:
    """A kernel's process, with what ``LocalProvisioner`` asks of ``subprocess.Popen``."""

    stdin = stdout = stderr = None

    def __init__(self, command: list[str], env: dict[str, str], cwd: str):
        self._process = PYTHON.Process(target=_kernel, args=(command, env, cwd))
        self._process.start()
        self.pid = self._process.pid
        while os.getpgid(self.pid) != self.pid:  # else a signal to its group would reach this process
            time.sleep(0.01)
        self.send_signal = lambda number: os.kill(self.pid, number)
        self.kill, self.terminate = self._process.kill, self._process.terminate

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self) -> int | None:
        self._process.join()
        return self._process.exitcode


def _kernel(command: list[str], env: dict[str, str], cwd: str) -> None:
    """What `python -m ipykernel_launcher ...` does, in a process that has the imports behind it."""
    import ready  # noqa: F401  the server of forks says nothing when it cannot import it

    os.setsid()
    threading.Thread(target=_end_with_the_tests, daemon=True).start()
    os.chdir(cwd)
    # Prometheus' client looks at it when it is imported, Feast has set it then, and its metrics look again.
    imported = {name: os.environ[name] for name in ("PROMETHEUS_MULTIPROC_DIR",) if name in os.environ}
    os.environ.clear()
    os.environ.update(imported | env)
    time.tzset()
    module = command.index("-m") + 1
    # Who has a parent prints no word about himself; the variable that says so is read by ipykernel's import.
    sys.argv = [*command[module:], f"--IPKernelApp.parent_handle={os.getppid()}"]
    sys.path.insert(0, cwd)
    runpy.run_module(command[module], run_name="__main__", alter_sys=True)


def _end_with_the_tests() -> None:
    multiprocessing.parent_process().join()
    os.killpg(0, signal.SIGKILL)


def launch(command: list[str], env: dict[str, str], cwd: str | None = None, **_) -> Fork:
    return Fork(command, env, cwd or str(Path.cwd()))


def install() -> None:
    """Let the kernels that this process starts be forks."""
    # Elsewhere some libraries do not survive one.
    if sys.platform == "linux":
        local_provisioner.launch_kernel = launch

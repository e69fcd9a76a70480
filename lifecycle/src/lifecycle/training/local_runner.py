"""Kubeflow's local runner in a process of its own, so that this one stays as it is.

The runner (2.17) replaces Python's ``print`` to indent, replaces the root logger's handlers (parallel steps
in any order), and pastes the path of Python into a shell script without quotes, where a space ends it.
In a child process none of that matters, and its steps end with the process that asked for them.

On Linux one process imports the tools, each call of the runner is a fork of it, and each step a fork of that:
a call or a step that starts Python anew spends most of its time on the imports of Feast, MLflow and
scikit-learn.
"""

from __future__ import annotations

import builtins
import importlib
import logging
import os
import pickle
import re
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO
from unittest import mock

from kfp.dsl.executor_main import executor_main
from kfp.local import config, pipeline_orchestrator, subprocess_task_handler, task_dispatcher
from kfp.pipeline_spec.pipeline_spec_pb2 import PipelineSpec

ENTRIES: dict[str, Callable[..., dict[str, Any]]] = {
    "run_local_pipeline": pipeline_orchestrator.run_local_pipeline,
    "run_single_task": task_dispatcher.run_single_task,
}
"""Where a call of a pipeline or of a component enters the local runner."""
_SLOW = ("skops.io", "pandas", "mlflow.sklearn", "mlflow.store.tracking.sqlalchemy_store", "feast")
"""What the steps of a pipeline of this package import, imported once before the first of them.

skops goes first: it looks for some functions of NumPy and SciPy in each module that is there already.
"""
_OURS = re.compile(rb"(from|import) lifecycle\b")
"""In the source of a step of this package. An image's name may have the word, too."""
_ENDED = re.compile(r"Task \S*'([\w-]+)'\S* finished with status \S*(SUCCESS|FAILURE)")


class Log:
    """A log that prints a line to ``shown`` for each step whose end the runner notes in it.

    Args:
        file: to write to.
        shown: where to print; None prints nothing.
    """

    def __init__(self, file: TextIO, shown: TextIO | None) -> None:
        self.file, self.shown = file, shown

    def write(self, text: str) -> int:
        """Write to the file, and say whether a step has ended."""
        if self.shown and (ended := _ENDED.search(text)):
            self.shown.write(f"{ended[1]}: {ended[2].lower()}\n")
            self.shown.flush()
        return self.file.write(text)

    def flush(self) -> None:
        """Flush the file."""
        self.file.flush()


@contextmanager
def local_run(log: Path, show_steps: bool = False) -> Iterator[None]:
    """Run the pipelines and components that are called inside in a child process.

    What ``kfp.local.init`` chose holds there too. The child ends with this process, however that ends.

    Args:
        log: file to append the runner's output to.
        show_steps: print a line when a step has ended. Parallel steps share one logger, and some of their
            ends are lost.
    """
    log.parent.mkdir(parents=True, exist_ok=True)

    def entry(name: str) -> Callable[..., dict[str, Any]]:
        def run(pipeline_spec: Any, arguments: dict[str, Any]) -> dict[str, Any]:
            config.LocalExecutionConfig.validate()
            with log.open("a") as file:
                return in_child(name, pipeline_spec, arguments, Log(file, sys.stdout if show_steps else None))

        return run

    with ExitStack() as stack:
        # Two functions of Kubeflow's own, for the time of the block; nothing else in this process changes.
        for module, name in (
            (pipeline_orchestrator, "run_local_pipeline"),
            (task_dispatcher, "run_single_task"),
        ):
            stack.enter_context(mock.patch.object(module, name, entry(name)))
        yield


def in_child(name: str, pipeline_spec: Any, arguments: dict[str, Any], log: Log) -> dict[str, Any]:
    """The outputs of one call of the local runner, made in a child process.

    Args:
        name: of one of ``ENTRIES``.
        pipeline_spec: what to run.
        arguments: of it.
        log: gets each line that the child prints, when it prints it.

    Raises:
        RuntimeError: a step failed, or the child was ended.
    """
    specification = pipeline_spec.SerializeToString()
    settings = vars(config.LocalExecutionConfig.instance)
    with tempfile.TemporaryDirectory(prefix="local-runner-") as folder:
        answer = Path(folder) / "answer"
        place = dict(os.environ), str(Path.cwd()), answer
        # Where this end is closed, by whatever closes it, the child ends with its steps.
        with _started(bool(_OURS.search(specification))) as child:
            with suppress(BrokenPipeError):  # it ended at once; its missing answer says so below
                child.sendall(pickle.dumps((place, name, settings, specification, arguments)))
            with child.makefile("rb") as said:
                for line in said:
                    log.write(line.decode(errors="replace"))
        log.flush()
        if not answer.exists():
            raise RuntimeError("Kubeflow's local runner was ended before it answered.")
        outputs, error = pickle.loads(answer.read_bytes())
    if error is not None:
        raise error
    return outputs


def _started(slow: bool) -> socket.socket:
    """A child that waits for a call at the other end.

    Args:
        slow: it will need what ``_SLOW`` names.
    """
    ours, its = socket.socketpair()
    with its:
        if _FORKS:
            socket.send_fds(_forking(), [b"slow" if slow else b"fast"], [its.fileno()])
        else:
            command = [sys.executable, "-m", "lifecycle.training.local_runner"]
            end = its.fileno()
            subprocess.Popen(command, stdin=end, stdout=end, stderr=end, start_new_session=True)
    return ours


def _forking() -> socket.socket:
    """The way to the process that forks; it is started when this process has none, and ends with it."""
    global _server
    with _starting:
        here = (os.getpid(), sys.executable)
        if _server is None or _server[0] != here or _server[1].poll() is not None:
            ours, its = socket.socketpair()
            with its:
                process = subprocess.Popen(
                    [sys.executable, "-m", "lifecycle.training.local_runner", str(its.fileno())],
                    pass_fds=[its.fileno()],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,
                )
            _server = here, process, ours
        return _server[2]


_FORKS = sys.platform == "linux"  # elsewhere some libraries do not survive a fork
_starting = threading.Lock()
_server: tuple[tuple[int, str], subprocess.Popen, socket.socket] | None = None


def _fork_for_each(calls: socket.socket) -> None:
    """The process that forks: a child for each connection that comes, until the owner is gone."""
    while True:
        message, connections, _, _ = socket.recv_fds(calls, 4, 1)
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG) != (0, 0):
                pass
        if not connections:
            return
        if message == b"slow":
            _say_to(connections[0])  # what the tools say when they are imported belongs into the log
            _import_tools()
            with Path(os.devnull).open("wb") as nothing:
                _say_to(nothing.fileno())
        if not os.fork():
            calls.close()
            os.setsid()  # a group of its own, with its steps: they can be ended together
            os.dup2(connections[0], 0)
            _say_to(connections[0])
            os.close(connections[0])
            main()
        os.close(connections[0])


def _say_to(end: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(end, 1)
    os.dup2(end, 2)


def _import_tools() -> None:
    for module in _SLOW:
        with suppress(ImportError):  # the step says so
            importlib.import_module(module)


def _end_with(owner: int) -> None:
    """End this process and its steps when the other end of ``owner`` is closed, by whatever closes it."""
    os.read(owner, 1)
    os.killpg(os.getpgrp(), signal.SIGKILL)


class _Forks:
    """Kubeflow's ``run_local_subprocess``, with a fork in place of a new Python.

    Args:
        plain: Kubeflow's own, for a step that installs packages first.
        executable: path of Python.
    """

    def __init__(self, plain: Callable[..., int], executable: str) -> None:
        self._plain, self._executable = plain, executable
        self._lock = threading.Lock()  # a fork while another thread imports would never see its end
        self._print = builtins.print

    def __call__(self, full_command: list[str], env_vars: dict[str, str] | None = None) -> int:
        shell, option, script, source, *arguments = full_command
        if [shell, option] != ["sh", "-ec"] or "kfp.dsl.executor_main" not in script:
            return self._plain(full_command=full_command, env_vars=env_vars)
        with self._lock:
            reading, writing = os.pipe()
            process = os.fork()
            if not process:
                os.close(reading)
                self._step(source, arguments, {**(env_vars or {}), "_KFP_RUNTIME": "true"}, writing)
            os.close(writing)  # before the next fork, which would hold it open
        with os.fdopen(reading, errors="replace") as said:
            for line in said:
                print(line, end="")
        print("\n")
        return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])

    def _step(self, source: str, arguments: list[str], env_vars: dict[str, str], writing: int) -> None:
        """The fork: be as a new process would be, and end."""
        code: object = 1
        try:
            os.dup2(writing, 1)
            os.dup2(writing, 2)
            os.close(writing)  # what the step leaves running would hold it open
            for name, number in (("stdout", 1), ("stderr", 2)):
                setattr(sys, name, os.fdopen(number, "w", buffering=1, closefd=False))
            builtins.print, sys.executable = self._print, self._executable
            logging.getLogger().handlers.clear()  # the runner's
            os.environ.update(env_vars)
            with tempfile.TemporaryDirectory(prefix="step-") as folder:
                module = Path(folder) / "ephemeral_component.py"
                module.write_text(source, encoding="utf-8")
                sys.argv = ["executor_main", "--component_module_path", str(module), *arguments]
                executor_main()
            code = 0
        except SystemExit as error:
            code = error.code or 0
        except BaseException:
            traceback.print_exc()
        finally:
            with suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code if isinstance(code, int) else 1)


def main() -> None:
    """The child, alone in its group: make a call, and end together with what its steps have left running."""
    try:
        _answer()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os.killpg(0, signal.SIGKILL)


def _answer() -> None:
    """Read a call from standard input, make it, and leave its outcome in a file."""
    with os.fdopen(os.dup(0), "rb", buffering=0) as request:
        (environment, folder, answer), name, settings, specification, arguments = pickle.load(request)
        owner = os.dup(request.fileno())
    # The steps inherit standard input; the owner's end is nothing for them.
    with Path(os.devnull).open("rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    threading.Thread(target=_end_with, args=(owner,), daemon=True).start()
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    os.environ.clear()
    os.environ.update(environment)
    time.tzset()
    os.chdir(folder)
    if not sys.flags.safe_path:
        sys.path[0] = folder
    if _FORKS:
        warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
        plain = subprocess_task_handler.run_local_subprocess
        subprocess_task_handler.run_local_subprocess = _Forks(plain, sys.executable)
    sys.executable = shlex.quote(sys.executable)
    config.LocalExecutionConfig(**settings)
    outcome: tuple[dict[str, Any], Exception | None]
    try:
        outcome = ENTRIES[name](PipelineSpec.FromString(specification), arguments), None
    except Exception as error:
        outcome = (
            {},
            type(error)(*map(str, error.args)) if type(error) in _PLAIN else RuntimeError(str(error)),
        )
    partial = answer.with_suffix(".partial")
    partial.write_bytes(pickle.dumps(outcome))
    partial.replace(answer)


_PLAIN = (RuntimeError, ValueError, TypeError, NotImplementedError)

if __name__ == "__main__":
    if len(sys.argv) > 1:
        _fork_for_each(socket.socket(fileno=int(sys.argv[1])))
    else:
        main()

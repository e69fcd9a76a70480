"""Kubeflow's local runner in a process of its own, so that this one stays as it is.

The runner (2.17) replaces Python's ``print`` to indent, replaces the root logger's handlers (parallel steps
in any order), and pastes the path of Python into a shell script without quotes, where a space ends it.
In a child process none of that matters, and its steps end with the process that asked for them.
"""

from __future__ import annotations

import os
import pickle
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO
from unittest import mock

from kfp.local import config, pipeline_orchestrator, task_dispatcher
from kfp.pipeline_spec.pipeline_spec_pb2 import PipelineSpec

ENTRIES: dict[str, Callable[..., dict[str, Any]]] = {
    "run_local_pipeline": pipeline_orchestrator.run_local_pipeline,
    "run_single_task": task_dispatcher.run_single_task,
}
"""Where a call of a pipeline or of a component enters the local runner."""
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
    settings = vars(config.LocalExecutionConfig.instance)
    with tempfile.TemporaryDirectory(prefix="local-runner-") as folder:
        answer = Path(folder) / "answer"
        child = subprocess.Popen(
            [sys.executable, "-m", "lifecycle.training.local_runner", str(answer)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a group of its own, with its steps: they can be ended together
        )
        assert child.stdin and child.stdout, "both are pipes"
        try:
            with suppress(BrokenPipeError):  # it ended at once; its code says so below
                pickle.dump((name, settings, pipeline_spec.SerializeToString(), arguments), child.stdin)
                child.stdin.flush()
            for line in child.stdout:
                log.write(line.decode(errors="replace"))
            code = child.wait()
        finally:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(child.pid, signal.SIGKILL)
            for pipe in (child.stdin, child.stdout):
                with suppress(BrokenPipeError):
                    pipe.close()
            child.wait()
            log.flush()
        if not answer.exists():
            raise RuntimeError(f"Kubeflow's local runner was ended (code {code}) before it answered.")
        outputs, error = pickle.loads(answer.read_bytes())
    if error is not None:
        raise error
    return outputs


def _end_with(owner: int) -> None:
    """End this process and its steps when the other end of ``owner`` is closed, by whatever closes it."""
    os.read(owner, 1)
    os.killpg(os.getpgrp(), signal.SIGKILL)


def main(answer: Path) -> None:
    """The child: read a call from standard input, make it, and leave its outcome in a file."""
    with os.fdopen(os.dup(0), "rb", buffering=0) as request:
        name, settings, specification, arguments = pickle.load(request)
        owner = os.dup(request.fileno())
    # The steps inherit standard input; the owner's end is nothing for them.
    with Path(os.devnull).open("rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    threading.Thread(target=_end_with, args=(owner,), daemon=True).start()
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
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    main(Path(sys.argv[1]))

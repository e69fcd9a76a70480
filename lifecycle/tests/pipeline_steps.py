"""Run a compiled pipeline with its steps in this process: each process would spend seconds on imports.

Kubeflow's local runner still reads the compiled file and decides what runs, when, and with which artifacts.
Each step's text, as compiled, is executed by Kubeflow's own executor. Only the new process is left out.
An artifact's metadata comes as Kubeflow's backend hands it over, which the local runner does not.
"""

from __future__ import annotations

import builtins
import contextlib
import json
import logging
import traceback
from collections.abc import Callable, Iterator

import pytest
from kfp.dsl.executor import Executor
from kfp.local import subprocess_task_handler
from mlflow.tracking import fluent

from lifecycle.training import local_runner


def _as_a_backend(given: dict) -> dict:
    """Wrap lists and tables in the metadata of a step's input, and add what the backend adds (2.17)."""
    for artifacts in given.get("inputs", {}).get("artifacts", {}).values():
        for artifact in artifacts["artifacts"]:
            found = artifact.get("metadata", {}).items()
            kinds = {list: "list", dict: "struct"}
            wrapped = {key: {kinds[type(v)]: v} if type(v) in kinds else v for key, v in found}
            artifact["metadata"] = {**wrapped, "display_name": "table", "store_session_info": "{}"}
    return given


@contextlib.contextmanager
def in_process(before: dict[str, Callable[[], object]] | None = None) -> Iterator[list[str]]:
    """Let ``kfp.local.SubprocessRunner`` run its steps here.

    Args:
        before: what to do right before a step, by the name of its function.

    Yields:
        The functions that ran, in order; the list grows with each step.
    """
    ran: list[str] = []

    def execute(full_command: list[str], env_vars: dict[str, str] | None = None) -> int:
        source, *arguments = full_command[3:]
        given = dict(zip(arguments[::2], arguments[1::2], strict=True))
        name = given["--function_to_execute"]
        ran.append(name)
        (before or {}).get(name, lambda: None)()
        step: dict[str, object] = {}
        try:
            # A process would take its active experiment with it when it ends.
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("MLFLOW_EXPERIMENT_ID", "")
                patch.setattr(fluent, "_active_experiment_id", None)
                exec(compile(source, f"{name}.py", "exec", dont_inherit=True), step)
                Executor(_as_a_backend(json.loads(given["--executor_input"])), step[name]).execute()
        except Exception:
            traceback.print_exc()
            return 1
        return 0

    def here(name: str, pipeline_spec: object, arguments: dict, log: local_runner.Log) -> dict:
        root = logging.getLogger()
        with pytest.MonkeyPatch.context() as patch:  # the runner puts them back in any order
            patch.setattr(builtins, "print", print)
            patch.setattr(root, "handlers", root.handlers[:])
            patch.setattr(root, "level", root.level)
            with contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
                return local_runner.ENTRIES[name](pipeline_spec, arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local_runner, "in_child", here)
        patch.setattr(subprocess_task_handler, "run_local_subprocess", execute)
        yield ran

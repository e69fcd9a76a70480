"""Executes notebooks with papermill, one after the other: for `make run`, and for the catching up of
``begin``."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from helpers import course, data
from helpers.workspace import FULL, WorkshopError, Workspace, check_room, unwritten

TIMEOUT = 600  # seconds for one cell; the longest takes a minute
KERNEL = "python3"


@dataclass
class Result:
    """What one notebook did. ``start_up`` is the part of ``seconds`` that its kernel and its imports took."""

    name: str
    seconds: float
    start_up: float
    checks: int
    failure: str = ""


def execute(notebook: Path, output: Path, workspace: Workspace, progress: bool) -> Result:
    """Run one notebook in the workspace.

    Keep the executed copy at ``output``, unless the disk took only a part of it.
    """
    import papermill
    from papermill.exceptions import PapermillExecutionError

    os.environ["WORKSHOP_HOME"] = str(workspace.home)
    began, failure = time.time(), ""
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        papermill.execute_notebook(
            notebook,
            output,
            parameters={} if workspace.seed == data.SEED else {"seed": workspace.seed},
            kernel_name=KERNEL,
            execution_timeout=TIMEOUT,
            start_timeout=120,
            # Each kernel would warn that loopback traffic is not encrypted.
            extra_arguments=["--log-level=40"],
            # Asked politely, a kernel with MLflow in it does not end, and is killed after 2.5 seconds.
            shutdown_kernel="immediate",
            cwd=str(workspace.path),
            progress_bar={"desc": notebook.stem, "leave": False} if progress else False,
        )
    except PapermillExecutionError as error:
        failure = f"cell {error.exec_count}: {error.ename}: {error.evalue}"
    except OSError as error:
        failure = str(unwritten(workspace.path, error))
    # A kernel that died, a time limit: the other notebooks' results are still worth a table.
    except Exception as error:
        failure = f"{type(error).__name__}: {error}"
    if failure:
        try:
            check_room(workspace.path, FULL)
        except WorkshopError as full:
            failure = str(full)
    return _read(notebook.stem, output, began, time.time() - began, failure)


def _read(name: str, output: Path, began: float, seconds: float, failure: str) -> Result:
    import nbformat

    try:
        notebook = nbformat.read(output, as_version=4)
    except (OSError, nbformat.reader.NotJSONError):  # the disk took nothing of it, or only a part
        output.unlink(missing_ok=True)
        return Result(name, seconds, seconds, 0, failure or "no executed copy was written")
    cells = [cell for cell in notebook.cells if cell.cell_type == "code" and "papermill" in cell.metadata]
    done = [cell for cell in cells if cell.metadata.papermill.status == "completed"]
    starts = [cell.metadata.papermill.start_time for cell in cells if cell.metadata.papermill.start_time]
    kernel = datetime.fromisoformat(min(starts)).timestamp() - began if starts else seconds
    importing = [cell for cell in done if "imports" in cell.metadata.get("tags", [])]
    imports = sum(cell.metadata.papermill.duration or 0 for cell in importing)
    checks = sum("check" in cell.metadata.get("tags", []) for cell in done)
    return Result(name, seconds, kernel + imports, checks, failure)


@contextlib.contextmanager
def ticking(what: str, expected: int, every: float = 1) -> Iterator[None]:
    """Print the seconds since the block began, again and again in one line."""
    began, ended, line = time.monotonic(), threading.Event(), ""

    def tick() -> None:
        nonlocal line
        while not ended.wait(every):
            seconds = time.monotonic() - began
            late = ", more than on two idle cores" if seconds > expected else ""
            line = f"  {what}: {seconds:.0f} s of about {expected} s{late}"
            print(line, end="\r", flush=True)

    thread = threading.Thread(target=tick, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        print(" " * len(line), end="\r" if line else "", flush=True)


def run(notebooks: list[Path], workspace: Workspace, copies: Path, plain: bool = False) -> list[Result]:
    """Run ``notebooks`` in order; stop at the first that fails.

    ``plain``: lines instead of a progress bar.
    """
    results = []
    for place, notebook in enumerate(notebooks, 1):
        with contextlib.ExitStack() as stack:
            if plain:
                seconds = course.notebooks()[notebook.name[:2]].seconds
                print(f"{place} of {len(notebooks)}: {notebook.stem}, about {seconds} s ...", flush=True)
                stack.enter_context(ticking(notebook.stem, seconds))
            result = execute(notebook, copies / notebook.name, workspace, progress=not plain)
        results.append(result)
        outcome = "FAILED" if result.failure else f"{result.checks} checks passed"
        print(f"{'  ' if plain else ''}{notebook.stem}: {result.seconds:.1f} s, {outcome}", flush=True)
        if result.failure:
            break
    return results


def failures(results: list[Result], copies: Path) -> list[str]:
    """Print each failure on standard error, with the place of its executed copy; returns them."""
    failed = [result for result in results if result.failure]
    for result in failed:
        copy = copies / f"{result.name}.ipynb"
        kept = f"\nIts executed copy: {copy}" if copy.exists() else ""
        print(f"\n{result.name} failed: {result.failure}{kept}", file=sys.stderr)
    return [result.failure for result in failed]

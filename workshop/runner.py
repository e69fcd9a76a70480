"""Run the notebooks in order with papermill and report: `make run`, and the catching up of ``begin``.

python -m workshop.runner [--only 04] [--from 05] [--home DIR [--needed-by 07]]
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import threading
import time
import warnings
from datetime import datetime
from pathlib import Path

from helpers import course, data, extras
from helpers.start import CATCHING_UP, missing, one_at_a_time
from helpers.workspace import (
    FULL,
    REPOSITORY,
    WorkshopError,
    Workspace,
    alone,
    check_room,
    chosen_home,
    create_home,
    unwritten,
)
from workshop.report import Result, report

NOTEBOOKS = REPOSITORY / "notebooks"
TIMEOUT = 600  # seconds for one cell; the longest takes a minute
KERNEL = "python3"


def choose(only: str | None = None, first: str | None = None, before: str | None = None) -> list[Path]:
    """The notebooks to run, in order.

    Raises:
        WorkshopError: a number that no notebook has.
    """
    notebooks = sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))
    numbers = [path.name[:2] for path in notebooks]
    for option, value in (("ONLY", only), ("FROM", first)):
        if value and value not in numbers:
            raise WorkshopError(
                f"{option}={value}: there is no such notebook. Give one of {', '.join(numbers)}."
            )
    if only:
        return [path for path in notebooks if path.name[:2] == only]
    return [path for path in notebooks if (first or "00") <= path.name[:2] < (before or "99")]


def with_extras(notebooks: list[Path]) -> list[Path]:
    """The notebooks that this environment has everything for; the others are told, with what they lack."""
    lacking = {path: extras.lacking(path.name[:2]) for path in notebooks}
    for path, found in lacking.items():
        if found:
            print(f"{path.stem} is left out: {found}", flush=True)
    return [path for path, found in lacking.items() if not found]


def execute(notebook: Path, output: Path, workspace: Workspace, progress: bool) -> Result:
    """Run one notebook in the workspace; the executed copy is kept at ``output``, unless the disk took only a part of it."""
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
            extra_arguments=[
                "--log-level=40"
            ],  # each kernel would warn that loopback traffic is not encrypted
            shutdown_kernel="immediate",  # asked politely, a kernel with MLflow in it does not end, and is killed after 2.5 seconds
            cwd=str(workspace.path),
            progress_bar={"desc": notebook.stem, "leave": False} if progress else False,
        )
    except PapermillExecutionError as error:
        failure = f"cell {error.exec_count}: {error.ename}: {error.evalue}"
    except OSError as error:
        failure = str(unwritten(workspace.path, error))
    except (
        Exception
    ) as error:  # a kernel that died, a time limit: the other notebooks' results are still worth a table
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
    imports = sum(
        cell.metadata.papermill.duration or 0 for cell in done if "imports" in cell.metadata.get("tags", [])
    )
    checks = sum("check" in cell.metadata.get("tags", []) for cell in done)
    return Result(name, seconds, kernel + imports, checks, failure)


def table(results: list[Result]) -> str:
    """The results as text, one row per notebook."""
    width = max(len(result.name) for result in results)
    lines = [f"{'notebook':{width}}  seconds  of that start-up  checks passed"]
    for r in results:
        lines.append(
            f"{r.name:{width}}  {r.seconds:7.1f}  {r.start_up:16.1f}  {r.checks:13d}{'  FAILED' if r.failure else ''}"
        )
    total, start_up = sum(r.seconds for r in results), sum(r.start_up for r in results)
    lines.append(f"{'total':{width}}  {total:7.1f}  {start_up:16.1f}  {sum(r.checks for r in results):13d}")
    lines.append(
        f"{start_up:.0f} s of {total:.0f} s are kernel starts and cells that import; the pipeline's steps and the model server, "
        "processes of their own, import as well."
    )
    return "\n".join(lines)


def _seconds(notebook: Path) -> int:
    return course.notebooks()[notebook.name[:2]].seconds


def run(notebooks: list[Path], workspace: Workspace, copies: Path, plain: bool = False) -> list[Result]:
    """Run ``notebooks`` in order; stop at the first that fails. ``plain``: lines instead of a progress bar."""
    results = []
    for place, notebook in enumerate(notebooks, 1):
        if plain:
            print(
                f"{place} of {len(notebooks)}: {notebook.stem}, about {_seconds(notebook)} s ...", flush=True
            )
        result = execute(notebook, copies / notebook.name, workspace, progress=not plain)
        results.append(result)
        outcome = "FAILED" if result.failure else f"{result.checks} checks passed"
        print(f"{'' if not plain else '  '}{notebook.stem}: {result.seconds:.1f} s, {outcome}", flush=True)
        if result.failure:
            break
    return results


def _failures(results: list[Result], copies: Path) -> list[str]:
    """Tell each failure on standard error; returns them."""
    failed = [result for result in results if result.failure]
    for result in failed:
        copy = copies / f"{result.name}.ipynb"
        kept = f"\nIts executed copy: {copy}" if copy.exists() else ""
        print(f"\n{result.name} failed: {result.failure}{kept}", file=sys.stderr)
    return [result.failure for result in failed]


def run_and_report(notebooks: list[Path], workspace: Workspace) -> int:
    """Run ``notebooks`` and what is missing for them, print the table and the address of the report; returns an exit code."""
    copies = workspace.path / "executed"
    asked = {path.name[:2] for path in notebooks}
    needed = asked.union(*(missing(workspace, number) for number in asked))
    notebooks = [path for path in choose() if path.name[:2] in needed]
    results = run(notebooks, workspace, copies)
    print("\n" + table(results))
    failures = _failures(results, copies)
    try:
        print(f"Report: {report(results, copies).as_uri()}", flush=True)
    except OSError as error:
        failures.append(str(unwritten(workspace.path, error)))
        if failures[-1] not in failures[:-1]:  # a full disk is told once
            print(f"\nThere is no report: {failures[-1]}", file=sys.stderr)
    return 1 if failures else 0


def catch_up(workspace: Workspace, number: str) -> int:
    """Run what is missing for notebook ``number``, and nothing else. Ends with whoever holds the other end of standard input."""
    threading.Thread(target=lambda: (os.read(0, 1), os._exit(1)), daemon=True).start()
    os.environ[CATCHING_UP] = number
    # `missing` asks MLflow, and this process has no filters of a notebook's.
    warnings.filterwarnings("ignore", message=r"(?s).*``noload`` loader strategy is deprecated")
    with one_at_a_time(workspace):
        gone = missing(workspace, number)  # looked up again: somebody may just have made it
        notebooks = [path for path in choose() if path.name[:2] in gone]
        if notebooks:
            print(
                f"{len(notebooks)} to run, about {sum(map(_seconds, notebooks))} s on two idle cores.",
                flush=True,
            )
        results = run(notebooks, workspace, workspace.path / "executed", plain=True)
    return 1 if _failures(results, workspace.path / "executed") else 0


def main(argv: list[str] | None = None) -> int:
    """The command line; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m workshop.runner", description="Run the workshop's notebooks in order."
    )
    parser.add_argument("--only", metavar="NN", help="run this notebook, and before it what it needs")
    parser.add_argument("--from", dest="first", metavar="NN", help="run this notebook and all after it")
    parser.add_argument("--home", type=Path, help="run in this home instead of a clean one")
    parser.add_argument("--needed-by", metavar="NN", help="with --home: what `begin` starts to catch up")
    arguments = parser.parse_args(argv)
    try:
        notebooks = with_extras(choose(arguments.only, arguments.first))
        if not notebooks:
            raise WorkshopError("there is nothing to run: see the lines above.")
        if arguments.home:
            home = arguments.home.resolve()
            data.check_files(home / "data")
            workspace = Workspace(home, data.seed_of(home / "data"))
            if arguments.needed_by:
                return catch_up(workspace, arguments.needed_by)
            return run_and_report(notebooks, workspace)
        root = chosen_home()
        check_room(root / "workspace")
        waiting = f"Another `make run` is at work in {root}; this one waits until it has ended."
        with alone(root / "workspace" / ".run.lock", waiting):
            home = root / "workspace" / "run"
            shutil.rmtree(home, ignore_errors=True)
            return run_and_report(notebooks, create_home(home, seed=data.seed_of(root / "data"), source=root))
    except (WorkshopError, data.DataError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())

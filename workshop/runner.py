"""Run the notebooks in order with papermill and report: `make run`, and the catching up of ``begin``.

python -m workshop.runner [--only 04] [--from 05] [--before 07] [--home DIR]
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from helpers import data
from helpers.workspace import REPOSITORY, WorkshopError, Workspace, create_home
from workshop.report import report

NOTEBOOKS = REPOSITORY / "notebooks"
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


def choose(only: str | None = None, first: str | None = None, before: str | None = None) -> list[Path]:
    """The notebooks to run, in order.

    Raises:
        WorkshopError: a number that no notebook has.
    """
    notebooks = sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))
    numbers = [path.name[:2] for path in notebooks]
    for option, value in (("ONLY", only), ("FROM", first)):
        if value and value not in numbers:
            raise WorkshopError(f"{option}={value}: there is no such notebook. Give one of {', '.join(numbers)}.")
    if only:
        return [path for path in notebooks if path.name[:2] == only]
    return [path for path in notebooks if (first or "00") <= path.name[:2] < (before or "99")]


def execute(notebook: Path, output: Path, workspace: Workspace, progress: bool) -> Result:
    """Run one notebook in the workspace; the executed copy is kept at ``output`` in any case."""
    import papermill
    from papermill.exceptions import PapermillExecutionError

    os.environ["WORKSHOP_HOME"] = str(workspace.home)
    output.parent.mkdir(parents=True, exist_ok=True)
    began, failure = time.time(), ""
    try:
        papermill.execute_notebook(
            notebook,
            output,
            parameters={} if workspace.seed == data.SEED else {"seed": workspace.seed},
            kernel_name=KERNEL,
            execution_timeout=TIMEOUT,
            start_timeout=120,
            extra_arguments=["--log-level=40"],  # each kernel would warn that loopback traffic is not encrypted
            shutdown_kernel="immediate",  # asked politely, a kernel with MLflow in it does not end, and is killed after 2.5 seconds
            cwd=str(workspace.path),
            progress_bar={"desc": notebook.stem, "leave": False} if progress else False,
        )
    except PapermillExecutionError as error:
        failure = f"cell {error.exec_count}: {error.ename}: {error.evalue}"
    except Exception as error:  # a kernel that died, a time limit: the other notebooks' results are still worth a table
        failure = f"{type(error).__name__}: {error}"
    return _read(notebook.stem, output, began, time.time() - began, failure)


def _read(name: str, output: Path, began: float, seconds: float, failure: str) -> Result:
    import nbformat

    if not output.exists():
        return Result(name, seconds, seconds, 0, failure or "no executed copy was written")
    cells = [
        cell
        for cell in nbformat.read(output, as_version=4).cells
        if cell.cell_type == "code" and "papermill" in cell.metadata
    ]
    done = [cell for cell in cells if cell.metadata.papermill.status == "completed"]
    starts = [cell.metadata.papermill.start_time for cell in cells if cell.metadata.papermill.start_time]
    kernel = datetime.fromisoformat(min(starts)).timestamp() - began if starts else seconds
    imports = sum(cell.metadata.papermill.duration or 0 for cell in done if "imports" in cell.metadata.get("tags", []))
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


def run(notebooks: list[Path], workspace: Workspace, copies: Path, plain: bool = False) -> list[Result]:
    """Run ``notebooks`` in order; stop at the first that fails."""
    results = []
    for notebook in notebooks:
        if plain:
            print(f"{notebook.stem} ...", flush=True)
        result = execute(notebook, copies / notebook.name, workspace, progress=not plain)
        results.append(result)
        outcome = "FAILED" if result.failure else f"{result.checks} checks passed"
        print(f"{'' if not plain else '  '}{notebook.stem}: {result.seconds:.1f} s, {outcome}", flush=True)
        if result.failure:
            break
    return results


def main(argv: list[str] | None = None) -> int:
    """The command line; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m workshop.runner", description="Run the workshop's notebooks in order."
    )
    parser.add_argument("--only", metavar="NN", help="run this notebook (what it needs is caught up)")
    parser.add_argument("--from", dest="first", metavar="NN", help="run this notebook and all after it")
    parser.add_argument("--before", metavar="NN", help="stop before this notebook")
    parser.add_argument("--home", type=Path, help="run in this home instead of a clean one")
    parser.add_argument("--plain", action="store_true", help="lines instead of a progress bar, and no report")
    arguments = parser.parse_args(argv)
    try:
        notebooks = choose(arguments.only, arguments.first, arguments.before)
        if arguments.home:
            home = arguments.home.resolve()
            data.check_files(home / "data")
            workspace = Workspace(home, data.seed_of(home / "data"))
        else:
            home = REPOSITORY / "workspace" / "run"
            shutil.rmtree(home, ignore_errors=True)
            home.parent.mkdir(exist_ok=True)
            data.check_files(REPOSITORY / "data")
            workspace = create_home(home)
    except (WorkshopError, data.DataError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    copies = workspace.path / "executed"
    results = run(notebooks, workspace, copies, arguments.plain)
    failed = [result for result in results if result.failure]
    if not arguments.plain:
        print("\n" + table(results))
        print(f"Report: {report(results, copies).as_uri()}")
    for result in failed:
        print(
            f"\n{result.name} failed in {result.failure}\nIts executed copy: {copies / (result.name + '.ipynb')}",
            file=sys.stderr,
        )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

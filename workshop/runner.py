"""`make run`: the notebooks in order, and a report. python -m workshop.runner [--only 04] [--from 05] [--home
DIR]"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

from helpers import data, extras
from helpers.run import Result, execute, failures, run
from helpers.start import missing
from helpers.workspace import (
    REPOSITORY,
    WorkshopError,
    Workspace,
    alone,
    check_room,
    chosen_home,
    create_home,
    unwritten,
)
from workshop.report import report

__all__ = ["NOTEBOOKS", "Result", "choose", "execute", "run", "run_and_report", "table", "with_extras"]
NOTEBOOKS = REPOSITORY / "notebooks"


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


def table(results: list[Result]) -> str:
    """The results as text, one row per notebook."""
    width = max(len(result.name) for result in results)
    lines = [f"{'notebook':{width}}  seconds  of that start-up  checks passed"]
    for r in results:
        outcome = "  FAILED" if r.failure else ""
        lines.append(f"{r.name:{width}}  {r.seconds:7.1f}  {r.start_up:16.1f}  {r.checks:13d}{outcome}")
    total, start_up = sum(r.seconds for r in results), sum(r.start_up for r in results)
    lines.append(f"{'total':{width}}  {total:7.1f}  {start_up:16.1f}  {sum(r.checks for r in results):13d}")
    lines.append(
        f"{start_up:.0f} s of {total:.0f} s are kernel starts and cells that import; the pipeline's steps "
        "and the model server, "
        "processes of their own, import as well."
    )
    return "\n".join(lines)


def run_and_report(notebooks: list[Path], workspace: Workspace) -> int:
    """Run ``notebooks`` and what is missing for them, print the table and the address of the report; returns
    an exit code."""
    copies = workspace.path / "executed"
    asked = {path.name[:2] for path in notebooks}
    needed = asked.union(*(missing(workspace, number) for number in asked))
    notebooks = [path for path in choose() if path.name[:2] in needed]
    results = run(notebooks, workspace, copies)
    print("\n" + table(results))
    failed = failures(results, copies)
    try:
        print(f"Report: {report(results, copies).as_uri()}", flush=True)
    except OSError as error:
        failed.append(str(unwritten(workspace.path, error)))
        if failed[-1] not in failed[:-1]:  # a full disk is told once
            print(f"\nThere is no report: {failed[-1]}", file=sys.stderr)
    return 1 if failed else 0


def main(argv: list[str] | None = None) -> int:
    """The command line; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m workshop.runner", description="Run the workshop's notebooks in order."
    )
    parser.add_argument("--only", metavar="NN", help="run this notebook, and before it what it needs")
    parser.add_argument("--from", dest="first", metavar="NN", help="run this notebook and all after it")
    parser.add_argument("--home", type=Path, help="run in this home instead of a clean one")
    arguments = parser.parse_args(argv)
    try:
        notebooks = with_extras(choose(arguments.only, arguments.first))
        if not notebooks:
            raise WorkshopError("there is nothing to run: see the lines above.")
        if arguments.home:
            home = arguments.home.resolve()
            data.check_files(home / "data")
            workspace = Workspace(home, data.seed_of(home / "data"))
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

"""`make run`, taken apart: per notebook its seconds, the start of its kernel, and the imports of every process that it waits for.

python -m benchmarks.course --home DIR [--before 01]
"""

from __future__ import annotations

import argparse
import json
import os
import time
from datetime import datetime
from pathlib import Path

import nbformat

from helpers import extras
from helpers.workspace import create_home
from workshop import runner

HOOK = Path(__file__).resolve().parent / "imports_seen"
KINDS = ("kernel", "step", "server", "other")


def imports(folder: Path, first_cell: float) -> dict[str, float]:
    """Seconds in imports by kind of process, and the number of processes. A kernel's own, before ``first_cell`` began, belong to its start."""
    found: dict[str, float] = {f"{kind}_imports": 0.0 for kind in KINDS} | {
        f"{kind}_processes": 0 for kind in KINDS
    }
    for path in folder.glob("*.txt"):
        kind = path.name.split("-")[0]
        noted = [map(float, line.split()[:2]) for line in path.read_text().splitlines()]
        found[f"{kind}_imports"] += sum(s for ended, s in noted if kind != "kernel" or ended > first_cell)
        found[f"{kind}_processes"] += 1
    return found


def cells(copy: Path, began: float) -> tuple[float, list[dict]]:
    """Seconds until the first cell began, and the slowest cells that are not tagged as imports."""
    noted = [
        c
        for c in nbformat.read(copy, as_version=4).cells
        if c.cell_type == "code" and "papermill" in c.metadata
    ]
    starts = [c.metadata.papermill.start_time for c in noted if c.metadata.papermill.start_time]
    kernel = datetime.fromisoformat(min(starts)).timestamp() - began
    work = [c for c in noted if "imports" not in c.metadata.get("tags", [])]
    slow = sorted(work, key=lambda c: -(c.metadata.papermill.duration or 0))[:3]
    return kernel, [
        {"seconds": c.metadata.papermill.duration, "begins": c.source.strip().splitlines()[0]} for c in slow
    ]


def main(argv: list[str] | None = None) -> None:
    """The command line; prints one list, an entry per notebook."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.course", description=__doc__)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--before", help="stop before this notebook, such as 01")
    arguments = parser.parse_args(argv)
    home = arguments.home.resolve()
    if home.exists():
        parser.error(f"{home} exists already: the course is measured in a home of its own")
    workspace = create_home(home)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(HOOK), os.environ.get("PYTHONPATH")]))
    rows = []
    for notebook in runner.choose(before=arguments.before):
        if extras.lacking(notebook.name[:2]):
            continue
        seen, copy = home / "imports" / notebook.stem, workspace.path / "executed" / notebook.name
        seen.mkdir(parents=True)
        os.environ["WORKSHOP_IMPORTS"] = str(seen)
        load, began = os.getloadavg()[0], time.time()
        result = runner.execute(notebook, copy, workspace, progress=False)
        if result.failure:
            raise SystemExit(f"{result.name} failed in {result.failure}")
        kernel, slowest = cells(copy, began)
        row = {"notebook": result.name, "seconds": result.seconds, "checks": result.checks, "load": load}
        row |= {
            "tagged_start_up": result.start_up,
            "kernel_start": kernel,
            **imports(seen, began + kernel),
            "slowest": slowest,
        }
        rows.append(row)
    print(json.dumps(rows))


if __name__ == "__main__":
    main()

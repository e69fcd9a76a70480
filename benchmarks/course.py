"""`make run`, taken apart: each notebook's seconds, its kernel's start, and the imports of all its processes.

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


def imports(folder: Path, first_cell: float) -> dict[str, float]:
    """Seconds of imports in the kernel from its first cell on, those in other processes, and their number."""
    own, others, processes = 0.0, 0.0, 0
    for path in folder.glob("*.txt"):
        noted = [tuple(map(float, line.split()[:2])) for line in path.read_text().splitlines()]
        if path.name.startswith("kernel-"):
            own += sum(seconds for ended, seconds in noted if ended > first_cell)
        else:
            others += sum(seconds for _, seconds in noted)
            processes += 1
    return {"imports": own, "imports_of_others": others, "processes": processes}


def first_cell(copy: Path) -> float:
    """When the first cell of an executed notebook began."""
    cells = nbformat.read(copy, as_version=4).cells
    starts = [c.metadata.papermill.start_time for c in cells if "papermill" in c.metadata]
    return datetime.fromisoformat(min(filter(None, starts))).timestamp()


def main(argv: list[str] | None = None) -> None:
    """The command line; prints one list, an entry for each notebook."""
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
        start = first_cell(copy)
        row = {"notebook": result.name, "seconds": result.seconds, "kernel_start": start - began}
        row |= imports(seen, start)
        rows.append({name: round(v, 1) if isinstance(v, float) else v for name, v in row.items()})
        rows[-1]["load"] = load
    print(json.dumps(rows))


if __name__ == "__main__":
    main()

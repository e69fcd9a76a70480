"""`make progress`: which exercises are open and solved, in one's own workspace or in a room."""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path

from exercises import core
from helpers.workspace import WorkshopError, Workspace

_Record = dict[str, list[str]]  # what was done with an exercise, in order


def read(path: Path) -> _Record:
    """A record, by exercise.

    A line that cannot be read, such as one that a full disk cut, is named on standard error and left out.
    """
    found: _Record = defaultdict(list)
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
    for number, line in enumerate(lines, 1):
        try:
            entry = json.loads(line)
            found[entry["exercise"]].append(entry["what"])
        except (ValueError, KeyError, TypeError):
            print(f"{path.name}: line {number} cannot be read, and is left out", file=sys.stderr)
    return found


def mine(workspace: Workspace) -> int:
    """Print a line for each exercise."""
    path = workspace.path / core.RECORD
    record, every = read(path), core.every()
    width = max(len(found.title) for found in every.values())
    solved = 0
    for number, found in every.items():
        done = record.get(number, [])
        right = core.SOLVED in done
        solved += right
        wrong = done[: done.index(core.SOLVED) if right else None].count(core.WRONG)
        how = [f"{wrong} wrong{' before' if right else ''}"] if wrong else []
        how += [what for what in (core.HINT, core.SOLUTION) if what in done]
        print(
            f"{number}  {found.title:{width}}  {'solved' if right else 'open':6}  {', '.join(how)}".rstrip()
        )
    print(f"\n{solved} of {len(every)} solved. The record is {path}")
    return 0


def room(folder: Path) -> int:
    """Print a row for each record of a folder, named as its file: ``+`` solved, ``x`` tried, ``.`` not tried.

    Raises:
        WorkshopError: the folder holds no record.
    """
    paths = sorted(folder.glob("*.jsonl"))
    if not paths:
        raise WorkshopError(
            f"there is no record (*.jsonl) in {folder}. Collect each participant's workspace/{core.RECORD} "
            "there, under a name of its own."
        )
    every, width = list(core.every()), max(len(path.stem) for path in paths)
    print(f"{'':{width}}  {'  '.join(every)}  solved")
    for path in paths:
        record = read(path)
        marks = ["+" if core.SOLVED in record.get(n, []) else "x" if n in record else "." for n in every]
        cells = "  ".join(f"{mark:^{len(number)}}" for mark, number in zip(marks, every, strict=True))
        print(f"{path.stem:{width}}  {cells}  {marks.count('+'):6}")
    return 0

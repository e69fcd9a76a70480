"""What a notebook has shown since its kernel started, for the list at its end: checks that passed, exercises
that are solved."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from helpers import lab
from helpers.workspace import REPOSITORY

if TYPE_CHECKING:
    from IPython.display import Markdown

_FIRST_LINE = re.compile(r"# Check: ([\w-]+)\n")
_HEADING = re.compile(r"### (Exercise ([\d.]+): .+)")
_passed: set[str] = set()
_not_run: dict[str, tuple[str, str]] = {}
_exercises: dict[str, str] = {}
_cells: list[tuple[str, BaseException | None]] = []
_number = ""


def watch(number: str = "") -> None:
    """From now on note what the cells of this kernel do; ``begin`` calls it.

    A check cell names itself in its first line, ``# Check: <tag>``.

    Args:
        number: of the notebook, such as ``"04"``.
    """
    global _number
    from IPython import get_ipython

    if shell := get_ipython():
        if _note in shell.events.callbacks["post_run_cell"]:
            shell.events.unregister("post_run_cell", _note)
        for noted in (_passed, _not_run, _exercises, _cells):
            noted.clear()
        _number = number
        shell.events.register("post_run_cell", _note)


def _note(result: Any) -> None:
    source = result.info.raw_cell or "" if result.info else ""
    _cells.append((source, result.error_before_exec or result.error_in_exec))
    if named := _FIRST_LINE.match(source):
        (_passed.add if result.success else _passed.discard)(named[1])


def error_in_answer(number: str) -> BaseException | None:
    """Return the error of the cell that was meant to give the answer to an exercise, if it failed last time.

    The name of the answer still has its value from an earlier run then. Its cell is the latest that binds
    that name or has the exercise's first line.
    """
    from IPython import get_ipython

    shell = get_ipython()
    check = shell.user_ns.get("In", [""])[-1] if shell else ""
    named = re.search(rf'exercise\("{re.escape(number)}"\)\.check\(\s*(\w+)', check)
    if not named:
        return None
    answer = re.compile(
        rf"(?m)^# Exercise {re.escape(number)}: your answer"
        rf"|^\s*(?:async\s+)?(?:def|class)\s+{named[1]}\b|^\s*{named[1]}\b[^=\n]*=(?!=)"
    )
    return next((error for source, error in reversed(_cells) if answer.search(source)), None)


def note_exercise(number: str, state: str) -> None:
    """Note for ``showed`` that an exercise is ``"solved"``, ``"not yet"`` solved, or ``"open"``."""
    _exercises[number] = state


def not_run(name: str, why: str, shown_in: str = "") -> None:
    """Note that what a check is about does not run here, so that ``showed`` does not tick it.

    Args:
        name: the tag of the check.
        why: half a sentence, such as "Prometheus isn't installed".
        shown_in: a Markdown link to the page that shows it, if there is one.
    """
    _not_run[name] = why, shown_in


def showed(sentences: Mapping[str, Sequence[str]]) -> Markdown:
    """The list of what a notebook showed.

    A sentence is ticked when all its checks have passed in this kernel; else it says why one of them did not
    run here and where it is shown, or names those that have not passed. For a reader, the notebook's
    exercises follow.

    Args:
        sentences: the tags of its checks, by sentence.
    """
    from IPython.display import Markdown

    lines = []
    for sentence, names in sentences.items():
        reasons = [_not_run[name][0] for name in names if name in _not_run]
        links = [_not_run[name][1] for name in names if name in _not_run and _not_run[name][1]]
        waiting = [name for name in names if name not in _passed]
        if reasons and links:
            lines.append(
                f"- ↗ {sentence} *(not run here: {'; '.join(reasons)}; shown in {', '.join(links)})*"
            )
        elif reasons:
            lines.append(f"- ○ {sentence} *(not run here: {'; '.join(reasons)})*")
        elif waiting:
            lines.append(f"- ☐ {sentence} *(not passed in this run: {', '.join(waiting)})*")
        else:
            lines.append(f"- ✓ {sentence}")
    if _number and lab.has_reader():
        lines += ["", *_exercise_lines()]
    return Markdown("\n".join(lines))


def _exercise_lines() -> list[str]:
    """How many exercises of this notebook are solved, and a link to each of the others."""
    [path] = (REPOSITORY / "notebooks").glob(f"{_number}_*.ipynb")
    texts = ["".join(cell["source"]) for cell in json.loads(path.read_text("utf-8"))["cells"]]
    headings = [found.groups() for found in map(_HEADING.match, texts) if found]
    lines = []
    for heading, number in headings:
        state = _exercises.get(number, "open")
        if state == "solved":
            lines.append(f"- ✓ {heading}")
        else:
            lines.append(f"- {lab.SYMBOLS[state]} [{heading}](#{heading.replace(' ', '-')}) ({state})")
    solved = sum(line.startswith("- ✓") for line in lines)
    return [f"**{solved} of {len(headings)} exercises solved**", "", *lines]

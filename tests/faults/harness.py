"""One execution of a notebook that tries checks with faults and exercises with answers; its outputs."""

from __future__ import annotations

import ast
import difflib
import functools
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import nbformat
import pytest
from faults import FOLDER
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbval.plugin import coalesce_streams
from papermill.clientwrap import PapermillNotebookClient

from helpers import extras
from helpers.workspace import Workspace
from workshop import runner
from workshop.contract import own_tags, tags

LEAKED = (
    "passed in a copy, and fails in the notebook after its faults were tried: a fault changed what is not"
    " copied (let it restore, after a yield), or the check itself changes something"
)
# Runs in the kernel before a check, in names of its own.
_RUN = """import sys
sys.path.insert(0, {folder!r})
try: import trial
finally: sys.path.remove({folder!r})
trial.{what}(get_ipython(), *{given!r})"""
_ANSWER = "__import__('sys').modules['trial'].report"


def checks(notebook: Path) -> list[str]:
    """The checks of a notebook in order, each by its own tag: workshop/contract.py sees that it has one."""
    cells = nbformat.read(notebook, as_version=4).cells
    return [own_tags(cell)[0] for cell in cells if "check" in tags(cell)]


def exercises(notebook: Path) -> list[str]:
    """The numbers of a notebook's exercises, in order."""
    cells = nbformat.read(notebook, as_version=4).cells
    return [_number(cell) for cell in cells if "exercise-check" in tags(cell)]


def _number(cell) -> str:
    """Of an exercise, from the call in its check."""
    return re.search(r'exercise\("([\d.]+)"\)\.check', cell.source)[1]


@dataclass(frozen=True)
class Execution:
    """What one execution of a notebook did.

    ``tried`` has, by the tag of each check and the number of each exercise that was reached, what was tried
    there (None: the check without a fault) and what was wrong.
    """

    notebook: Path
    result: runner.Result
    copy: Path
    tried: dict[str, list[tuple[str | None, str]]]

    def wrong(self, place: str) -> str:
        """What is wrong with a check and its faults, or with an exercise and its answers; else nothing."""
        if place not in self.tried:
            return f"{place}: the notebook stopped before it: {self.result.failure}"
        found = [(what or "no fault", wrong) for what, wrong in self.tried[place] if wrong]
        if len(self.tried[place]) < 2 and not found:
            return f"{place}: no fault is planted for this check; faults.py says how"
        return "\n\n".join(f"{place}, {what}: {wrong}" for what, wrong in found)


def execute(notebook: Path, output: Path, workspace: Workspace, folder: Path = FOLDER) -> Execution:
    """``runner.execute``, with the faults and answers of ``folder`` tried; by default those of the course."""
    tried: dict[str, list[tuple[str | None, str]]] = {}

    def execute_cell(client, cell, cell_index, **options):
        place = None
        if "exercise-check" in tags(cell):
            number = _number(cell)
            tried[number] = _ask(
                client, cell, "answers", number, cell.source, str(folder.parent / "exercises")
            )
        elif "check" in tags(cell):
            place = own_tags(cell)[0]
            tried[place] = _ask(client, cell, "trials", notebook.name[:2], place, cell.source, str(folder))
        try:
            return NotebookClient.execute_cell(client, cell, cell_index, **options)
        except CellExecutionError:
            if place and not tried[place][0][1]:
                tried[place].append((None, LEAKED))
            raise

    # Notebook 10 would run the pipeline in containers again: minutes, and tests/test_image.py does it.
    no_engine = mock.patch.dict(os.environ, DOCKER_HOST="unix:///nowhere")
    with no_engine, mock.patch.object(PapermillNotebookClient, "execute_cell", execute_cell):
        result = runner.execute(notebook, output, workspace, progress=False)
    return Execution(notebook, result, output, tried)


def _ask(client, cell, what: str, *given: str) -> list[tuple[str | None, str]]:
    """Call a function of trial.py in the kernel; returns its report."""
    code = f"exec({_RUN.format(what=what, folder=str(FOLDER), given=given)!r}, {{**globals()}})"
    options = {"silent": True, "store_history": False, "allow_stdin": False, "stop_on_error": False}
    request = client.kc.execute(code, **options, user_expressions={"report": _ANSWER})
    content = client.wait_for_reply(request, cell)["content"]
    if content["status"] != "ok":
        return [(None, "was not tried: " + "\n".join(content["traceback"]))]
    answer = json.loads(ast.literal_eval(content["user_expressions"]["report"]["data"]["text/plain"]))
    return [(row["tried"], row["wrong"]) for row in answer]


def skip_without_extras(notebook: Path) -> None:
    """Skip the test when this environment lacks what the notebook needs beyond the default installation."""
    if found := extras.lacking(notebook.name[:2]):
        pytest.skip(f"{notebook.stem}: {found}")


def once(notebook: Path, workspace: Workspace) -> Execution:
    """The only execution of a notebook in this home; its copy is where the runner's would be."""
    skip_without_extras(notebook)
    return _once(notebook, workspace)


@functools.cache
def _once(notebook: Path, workspace: Workspace) -> Execution:
    return execute(notebook, workspace.path / "executed" / notebook.name, workspace)


def differences(committed: Path, executed: Path) -> list[str]:
    """Where an executed copy's outputs differ from the committed notebook's: for each such cell a diff."""
    old, new = (
        [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
        for path in (committed, executed)
    )
    found = [] if len(old) == len(new) else [f"{len(old)} code cells are committed, {len(new)} were executed"]
    for before, after in zip(old, new, strict=False):
        was, now = _lines(before), _lines(after)
        if len(was) == len(now):
            was = [new if _same_within_a_digit(old, new) else old for old, new in zip(was, now, strict=True)]
        lines = list(difflib.unified_diff(was, now, "committed", "executed", lineterm=""))
        if lines and "nbval-ignore-output" not in tags(before):
            found.append("\n".join([before.source.partition("\n")[0], *lines]))
    return found


_NUMBER = re.compile(r"(\d+\.\d{3,}(?:e[+-]?\d+)?)")


def _same_within_a_digit(old: str, new: str) -> bool:
    """Whether two lines differ only in the last digit of numbers with three or more decimals.

    Processors add in another order, so a model's scores differ from one machine to the next. Of a number
    with more digits than anyone would round to, nine are compared.
    """
    was, now = _NUMBER.split(" ".join(old.split())), _NUMBER.split(" ".join(new.split()))
    if was[::2] != now[::2]:
        return False
    for one, other in zip(was[1::2], now[1::2], strict=True):
        a, b = float(one), float(other)
        digits = min(len(text.partition("e")[0].partition(".")[2]) for text in (one, other))
        exponent = int(one.partition("e")[2] or 0)
        if abs(a - b) > max(1.001 * 10.0 ** (exponent - digits), 1e-9 * abs(a)):
            return False
    return True


def _lines(cell) -> list[str]:
    """What is compared of a cell's outputs. Pictures differ between machines: of them it is the alt text."""
    texts = []
    for output in coalesce_streams(cell.outputs):
        texts += [output.get("name", ""), output.get("text", ""), output.get("evalue", "")]
        for kind, value in output.get("data", {}).items():
            if kind in ("image/png", "image/jpeg"):
                value = output.metadata.get(kind, {}).get("alt", "")
            if kind != "application/vnd.jupyter.widget-view+json":  # an id, another one each time
                value = value if isinstance(value, str) else json.dumps(value, indent=1, sort_keys=True)
                texts += [kind, value]
    text = re.sub(r"ipykernel_\d+", "ipykernel_PROCESS", "\n".join(texts))
    text = re.sub(r'src="data:image/\w+;base64,[^"]*"', 'src="BYTES"', text)
    return [repr(line)[1:-1] for line in text.splitlines(keepends=True)]  # repr shows a blank at the end

"""One execution of a notebook that also tries its checks with their faults and its exercises with answers, and the comparison of its outputs with the committed ones."""

from __future__ import annotations

import ast
import difflib
import functools
import json
import re
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import nbformat
import pytest
from faults import FOLDER, load
from nbclient.exceptions import CellExecutionError
from nbval.plugin import coalesce_streams
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine, papermill_engines
from papermill.log import logger

from helpers import extras
from helpers.workspace import REPOSITORY, Workspace
from workshop import runner

LEAKED = (
    "passed in a copy, and fails in the notebook after its faults were tried: a fault changed what is not"
    " copied (let it restore, after a yield), or the check itself changes something"
)
# What is sent to the kernel before a check. It binds no name there.
_ASK = """exec('import sys\\nsys.path.insert(0, folder)\\ntry: import trial\\nfinally: sys.path.remove(folder)\\ntrial.{what}(*given)',
{{'folder': {folder!r}, 'given': [get_ipython(), *{given!r}]}})"""
_BYTES = r'src="data:image/\w+;base64,[^"]*"', 'src="BYTES"'
_PROCESS = r"ipykernel_\d+", "ipykernel_PROCESS"
_ANSWER = "__import__('sys').modules['trial'].report"
ANSWERS = REPOSITORY / "tests" / "exercises"


def tags(cell) -> list[str]:
    """A cell's tags."""
    return cell.metadata.get("tags", [])


def own_tags(cell) -> list[str]:
    """The tags of a check by which a fault can name it."""
    return [tag for tag in tags(cell) if tag.startswith(("claim-", "check-"))]


def checks(notebook: Path) -> dict[str, list[str]]:
    """The checks of a notebook in order: a name for each, and its own tags."""
    return dict(_checks(nbformat.read(notebook, as_version=4).cells).values())


def _checks(cells: list) -> dict[int, tuple[str, list[str]]]:
    """Name and own tags of each check, by the cell's index. The name is the first of these tags, if no earlier check has it."""
    found = {}
    for index, cell in enumerate(cells):
        if "check" in tags(cell):
            taken, own = {name for name, _ in found.values()}, own_tags(cell)
            found[index] = (own[0] if own and own[0] not in taken else f"cell {index}"), own
    return found


def exercises(notebook: Path) -> list[str]:
    """The numbers of a notebook's exercises, in order."""
    return [
        _number(cell)
        for cell in nbformat.read(notebook, as_version=4).cells
        if "exercise-check" in tags(cell)
    ]


def _number(cell) -> str:
    """Of an exercise, from the call in its check."""
    return re.search(r'exercise\("([\d.]+)"\)\.check', cell.source)[1]


def not_named(notebook: Path) -> list[str]:
    """The checks that no fault can name."""
    found = checks(notebook)
    every = [tag for own in found.values() for tag in own]
    nameless = [
        f"{check} has no tag of its own: claim-<id> or check-<name>"
        for check, own in found.items()
        if not own
    ]
    return nameless + [
        f"the tag {tag} stands at more than one check, or twice"
        for tag in sorted({t for t in every if every.count(t) > 1})
    ]


def homeless(notebook: Path, folder: Path = FOLDER) -> list[str]:
    """The faults in a notebook's file that belong to no check of it."""
    number, every = notebook.name[:2], {tag for own in checks(notebook).values() for tag in own}
    found = []
    for fault in load(number, folder):
        if fault.notebook != number:
            found.append(f"{fault.name}: it is planted in {fault.notebook}, and stands in faults_{number}.py")
        elif fault.tag not in every:
            found.append(f"{fault.name}: no check of {number} has the tag {fault.tag}")
    return found


@dataclass(frozen=True)
class Execution:
    """What one execution of a notebook did. ``tried`` has for each check that was reached the faults (None: without one) and what was wrong;
    ``answered`` for each exercise the answers and what was wrong."""

    notebook: Path
    result: runner.Result
    copy: Path
    tried: dict[str, list[tuple[str | None, str]]]
    answered: dict[str, list[tuple[str, str]]]

    def wrong_answers(self, number: str) -> str:
        """What is wrong with an exercise; nothing when each right answer was taken, and each wrong one refused with its hint."""
        if number not in self.answered:
            return (
                f"{self.notebook.stem}: the notebook stopped before exercise {number}: {self.result.failure}"
            )
        found = [f"exercise {number}, {answer}\n{wrong}" for answer, wrong in self.answered[number] if wrong]
        return "\n\n".join(found)

    def wrong(self, check: str) -> str:
        """What is wrong with a check and its faults; nothing when each fault was noticed."""
        where = f"{self.notebook.stem}, {check}"
        if check not in self.tried:
            return f"{where}: the notebook stopped before this check: {self.result.failure}"
        if not self.tried[check]:
            return f"{where}: no fault is planted for this check; faults.py says how"
        found = [f"{fault or 'no fault'}: the check {wrong}" for fault, wrong in self.tried[check] if wrong]
        return "\n\n".join(f"{where}, {line}" for line in found)


def execute(notebook: Path, output: Path, workspace: Workspace, folder: Path = FOLDER) -> Execution:
    """``runner.execute``, with the faults of ``folder`` tried before each check."""
    tried: dict[str, list[tuple[str | None, str]]] = {}
    answered: dict[str, list[tuple[str, str]]] = {}
    with _trying(notebook.name[:2], folder, tried, answered):
        result = runner.execute(notebook, output, workspace, progress=False)
    return Execution(notebook, result, output, tried, answered)


def skip_without_extras(notebook: Path) -> None:
    """Skip the test when this environment lacks what the notebook needs beyond the default installation."""
    if found := extras.lacking(notebook.name[:2]):
        pytest.skip(f"{notebook.stem}: {found}")


def once(notebook: Path, workspace: Workspace) -> Execution:
    """The only execution of a notebook of the course in this home; its copy is where the runner's would be. Without its extra: skipped."""
    skip_without_extras(notebook)
    return _once(notebook, workspace)


@functools.cache
def _once(notebook: Path, workspace: Workspace) -> Execution:
    return execute(notebook, workspace.path / "executed" / notebook.name, workspace)


@contextmanager
def _trying(number: str, folder: Path, tried: dict, answered: dict) -> Iterator[None]:
    """Within it papermill tries faults and answers: its default engine is another one."""

    class Client(PapermillNotebookClient):
        def execute_cell(self, cell, cell_index, **options):
            if "exercise-check" in tags(cell):
                answered[_number(cell)] = self._try(
                    "answers", cell, [_number(cell), cell.source, str(ANSWERS)]
                )
            if "check" not in tags(cell):
                return super().execute_cell(cell, cell_index, **options)
            name, own = _checks(self.nb.cells)[cell_index]
            has_faults = (folder / f"faults_{number}.py").exists()
            given = [number, own, cell.source, str(folder)]
            rows = tried[name] = self._try("trials", cell, given) if has_faults else []
            try:
                return super().execute_cell(cell, cell_index, **options)
            except CellExecutionError:
                if rows and not rows[0][1]:
                    rows.append((None, LEAKED))
                raise

        def _try(self, what: str, cell, given: list) -> list[tuple[str | None, str]]:
            code = _ASK.format(what=what, folder=str(FOLDER), given=given)
            options = {"silent": True, "store_history": False, "allow_stdin": False, "stop_on_error": False}
            request = self.kc.execute(code, **options, user_expressions={"report": _ANSWER})
            content = self.wait_for_reply(request, cell)["content"]
            if content["status"] != "ok":
                return [(None, "was not tried: " + "\n".join(content["traceback"]))]
            answer = json.loads(ast.literal_eval(content["user_expressions"]["report"]["data"]["text/plain"]))
            return [(row["tried"], row["wrong"]) for row in answer]

    class Engine(NBClientEngine):
        @classmethod
        def execute_managed_notebook(
            cls, manager, kernel_name, start_timeout=60, execution_timeout=None, **options
        ):
            options = {
                name: value for name, value in options.items() if name not in ("input_path", "log_output")
            }
            limits = {"startup_timeout": start_timeout, "timeout": execution_timeout}
            return Client(manager, kernel_name=kernel_name, log=logger, **limits, **options).execute()

    papermill_engines.register(None, Engine)
    try:
        yield
    finally:
        papermill_engines.register(None, NBClientEngine)


def differences(committed: Path, executed: Path) -> list[str]:
    """Where the outputs of an executed copy are not those of the committed notebook: for each such cell a diff."""
    old, new = (
        [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
        for path in (committed, executed)
    )
    found = [] if len(old) == len(new) else [f"{len(old)} code cells are committed, {len(new)} were executed"]
    for number, (before, after) in enumerate(zip(old, new, strict=False)):
        if "nbval-ignore-output" in tags(before):
            continue
        was, now = _parts(before.outputs), _parts(after.outputs)
        lines = [
            line
            for kind in sorted(was | now)
            for line in difflib.unified_diff(
                _lines(was.get(kind, [])),
                _lines(now.get(kind, [])),
                f"committed {kind}",
                f"executed {kind}",
                lineterm="",
            )
        ]
        if lines:
            start = before.source.splitlines()[:1]
            found.append(
                "\n".join([f"code cell {number} {tags(before) or ''} ({''.join(start)} ...)", *lines])
            )
    return found


def _parts(outputs: list) -> dict[str, list[str]]:
    """What is compared of a cell's outputs, by kind and in order. Pictures differ between machines: of them it is the text."""
    parts = defaultdict(list)
    for output in coalesce_streams(outputs):
        if output.output_type == "stream":
            parts[output.name].append(output.text)
        elif output.output_type == "error":
            parts["error"].append(f"{output.ename}: {output.evalue}")
        for kind, value in output.get("data", {}).items():
            if kind in ("image/png", "image/jpeg"):
                value = output.metadata.get(kind, {}).get("alt", "")
            if kind != "application/vnd.jupyter.widget-view+json":  # an id, another one each time
                parts[kind].append(
                    value if isinstance(value, str) else json.dumps(value, indent=1, sort_keys=True)
                )
    return {
        kind: [re.sub(*_PROCESS, re.sub(*_BYTES, text)) for text in texts] for kind, texts in parts.items()
    }


def _lines(texts: list[str]) -> list[str]:
    """The lines of all outputs of a kind; repr shows where one differs by a blank alone."""
    return [repr(line)[1:-1] for text in texts for line in [*text.splitlines(keepends=True), "--"]]

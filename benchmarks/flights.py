"""The flights of notebook 12 as a project of its own, made by the cells of the notebook: nothing of it is typed here again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

# Before feast: see lifecycle/serving.py.
import IPython.core.history  # noqa: F401  # isort: skip

import nbformat

from exercises.core import every, made
from helpers.workspace import REPOSITORY, Workspace

MODEL = "late_departure"
SERVICE, LABEL = "known", "late"
NOW = datetime(2013, 6, 28, 20, tzinfo=UTC)  # a Friday, four in the afternoon in New York
LAST = "candidates"
"""What the last cell that is run makes."""
CANDIDATES = "candidates.json"
"""Their columns, in a file of the project."""


def cells() -> Iterator[str]:
    """The code cells of the notebook in order, without its checks, its exercises' checks, and the cell that finds the workspace."""
    (path,) = (REPOSITORY / "notebooks").glob("12_*.ipynb")
    for cell in nbformat.read(path, as_version=4).cells:
        judges = {"check", "exercise-check"} & set(cell.metadata.get("tags", []))
        if cell.cell_type == "code" and not judges and "begin(" not in cell.source:
            yield cell.source


class Worked:
    """An exercise whose answer is its worked solution, in a namespace."""

    def __init__(self, number: str, namespace: dict[str, Any]) -> None:
        self.number, self.namespace = number, namespace

    def or_solution(self, _: object) -> Any:
        """What the solution makes."""
        return made(every()[self.number].worked.strip(), f"<the solution of {self.number}>", self.namespace)


def build(workspace: Workspace) -> dict[str, Any]:
    """Run the notebook as far as its candidates: raw files, labels, feature tables, definitions, registry, training table, reference. The candidates
    become a file of the project.

    Args:
        workspace: what the tools of this process are configured for; the project becomes its folder ``flights``.

    Returns:
        The notebook's names, such as ``project``, ``feature_repo``, ``store``, ``labels``, ``contract``, ``table`` and ``candidates``.

    Raises:
        KeyError: the notebook makes no candidates.
    """
    # A module that has no file: of `__main__`, Feast would read the text of a function in the program that runs.
    namespace: dict[str, Any] = {"__name__": "notebook_12", "workspace": workspace}
    for source in cells():
        exec(compile(source, "<notebook 12>", "exec", dont_inherit=True), namespace)
        namespace["exercise"] = lambda number: Worked(number, namespace)
        if LAST in namespace:
            (namespace["project"] / CANDIDATES).write_text(json.dumps(namespace[LAST]))
            return namespace
    raise KeyError(f"no cell of notebook 12 makes `{LAST}`")

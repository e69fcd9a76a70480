"""The flights of notebook 12 as a project of its own, made by the cells of the notebook: nothing of it is typed here again.

python -m benchmarks.flights --home DIR
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

# Before feast: see lifecycle/serving.py.
import IPython.core.history  # noqa: F401  # isort: skip

import nbformat
import pandas as pd

from benchmarks.homes import register
from exercises.core import every, made
from helpers.workspace import REPOSITORY, Workspace, configure, quiet

if TYPE_CHECKING:
    from feast import FeatureStore

MODEL = "late_departure"
SERVICE, LABEL = "known", "late"
NOW = pd.Timestamp("2013-06-28 20:00", tz="UTC")  # a Friday, four in the afternoon in New York
LAST = "candidates"
"""What the last cell that is run makes."""
CANDIDATES = "candidates.json"


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
    """Run the notebook as far as its candidates: raw files, labels, feature tables, definitions, registry, training table, reference.

    Args:
        workspace: what the tools of this process are configured for; the project becomes its folder ``flights``.

    Returns:
        The notebook's names, such as ``project``, ``feature_repo``, ``store``, ``labels``, ``contract``, ``table`` and ``candidates``.

    Raises:
        KeyError: the notebook makes no candidates.
    """
    namespace: dict[str, Any] = {"__name__": "__main__", "workspace": workspace}
    for source in cells():
        exec(compile(source, "<notebook 12>", "exec"), namespace)
        namespace["exercise"] = lambda number: Worked(number, namespace)
        if LAST in namespace:
            return namespace
    raise KeyError(f"no cell of notebook 12 makes `{LAST}`")


def home(folder: Path) -> Workspace:
    """A home with the project, a registered model under ``homes.ALIAS``, and its features in the online store."""
    workspace = Workspace(folder.resolve())
    configure(workspace)
    import feast  # noqa: F401

    quiet()
    names = build(workspace)
    store: FeatureStore = names["store"]
    contract = names["contract"]
    register(store, contract, names["labels"], MODEL)
    views = contract.base_views(store)
    store.materialize((NOW - timedelta(hours=6)).to_pydatetime(), NOW.to_pydatetime(), feature_views=views)
    (names["project"] / CANDIDATES).write_text(json.dumps(names[LAST]))
    return workspace


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.flights", description=__doc__)
    parser.add_argument("--home", type=Path, required=True)
    home(parser.parse_args(argv).home)


if __name__ == "__main__":
    main()

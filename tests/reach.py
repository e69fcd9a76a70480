"""What a notebook or a test reaches: the modules that it imports and the texts that it holds, followed by name through the repository's own code.

A name that is used leads to its definition, a fixture that is asked for to the fixture, and a text that names a module of the repository, as in
``python -m lifecycle.serving``, to that module. What is defined beside and used by nobody on the way is not reached.
"""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import nbformat

from helpers.workspace import REPOSITORY

NOT_FOLLOWED = {(REPOSITORY / "helpers" / "start.py", "begin")}
"""It catches up with other notebooks: what those reach is no doing of the place."""


def file_of(module: str) -> Path | None:
    """The file of a module of this repository; a test imports its neighbours by their bare names."""
    path = Path(*module.split("."))
    kept = [
        REPOSITORY / path.with_suffix(".py"),
        REPOSITORY / path / "__init__.py",
        REPOSITORY / "tests" / f"{path}.py",
    ]
    return next((file for file in kept if file.exists()), None)


@cache
def tree_of(file: Path) -> ast.Module:
    if file.suffix == ".ipynb":
        cells = nbformat.read(file, as_version=4).cells
        return ast.parse("\n".join(cell.source for cell in cells if cell.cell_type == "code"))
    return ast.parse(file.read_text(encoding="utf-8"))


@cache
def definitions(file: Path) -> dict[str, ast.stmt]:
    """What the names of a file's top level stand for."""
    found: dict[str, ast.stmt] = {}
    for node in tree_of(file).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found[node.name] = node
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found |= {(alias.asname or alias.name).split(".")[0]: node for alias in node.names}
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = [name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)]
            found |= dict.fromkeys(names, node)
    return found


@cache
def reach(place: str) -> Reach:
    """What a notebook, or a test as ``tests/FILE.py::NAME``, reaches."""
    return Reach(place)


class Reach:
    """What a place reaches: ``modules``, those of this repository too, and ``texts``."""

    def __init__(self, place: str) -> None:
        self.modules: set[str] = set()
        self.texts: set[str] = set()
        self._seen: set[tuple[Path, str]] = set()
        path, _, test = place.partition("::")
        file = REPOSITORY / path
        self._named(file, test) if test else self._all(file)

    def names(self, tool: str) -> bool:
        """Whether a module of this name, or one in it, is imported, or a text is the name: of a program, or of what is looked for."""
        return tool in self.texts or any(f"{module}.".startswith(f"{tool}.") for module in self.modules)

    def _all(self, file: Path) -> None:
        if (file, "") not in self._seen:
            self._seen.add((file, ""))
            self._walk(tree_of(file), file)

    def _named(self, file: Path, name: str) -> None:
        node = definitions(file).get(name)
        if node is None or (file, name) in self._seen | NOT_FOLLOWED:
            return
        self._seen.add((file, name))
        if isinstance(node, ast.Import | ast.ImportFrom):
            for alias in node.names:
                if (alias.asname or alias.name).split(".")[0] == name:
                    self._imported(node, alias)
        else:
            self._walk(node, file)

    def _imported(self, node: ast.Import | ast.ImportFrom, alias: ast.alias) -> None:
        if isinstance(node, ast.Import):
            self.modules.add(alias.name)
            return
        module = node.module or ""
        self.modules |= {module, f"{module}.{alias.name}"}
        if (file := file_of(module)) and not file_of(f"{module}.{alias.name}"):
            self._named(file, alias.name)

    def _walk(self, root: ast.AST, file: Path) -> None:
        for node in ast.walk(root):
            if isinstance(node, ast.Import | ast.ImportFrom):
                for alias in node.names:
                    self._imported(node, alias)
            elif isinstance(node, ast.Name):
                self._named(file, node.id)
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                self._attribute(file, node.value.id, node.attr)
            elif isinstance(node, ast.arg):
                self._fixture(file, node.arg)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                self._text(node.value, file)

    def _attribute(self, file: Path, name: str, attribute: str) -> None:
        """``services.redis``: the attribute of a module of this repository."""
        bound = definitions(file).get(name)
        if isinstance(bound, ast.ImportFrom):
            for alias in bound.names:
                if (alias.asname or alias.name) == name and (
                    module := file_of(f"{bound.module}.{alias.name}")
                ):
                    self._named(module, attribute)

    def _fixture(self, file: Path, name: str) -> None:
        for place in (file, REPOSITORY / "tests" / "conftest.py"):
            node = definitions(place).get(name)
            if isinstance(node, ast.FunctionDef) and any(
                "fixture" in ast.unparse(one) for one in node.decorator_list
            ):
                return self._named(place, name)

    def _text(self, text: str, file: Path) -> None:
        self.texts.add(text)
        if "\n" in text and "import " in text:  # a program that is given to another process
            try:
                self._walk(ast.parse(text), file)
            except SyntaxError:
                return
        elif re.fullmatch(r"\w+(\.\w+)+", text) and (module := file_of(text)):
            self.modules.add(text)
            self._all(module)

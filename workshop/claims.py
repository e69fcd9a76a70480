"""docs/claims.md from docs/claims.toml and the notebooks: `make notebooks` writes it, and so does `python -m workshop.claims`.

A claim is shown by a notebook's check cell with the tag ``claim-<id>``, by tests, or by both. The measured figure is the line that the cell printed.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from pathlib import Path

import nbformat

from helpers.workspace import REPOSITORY

TABLE, PAGE = "docs/claims.toml", "docs/claims.md"
VERDICTS = {"true": "true", "condition": "true, with a condition", "not": "not true as stated"}
SOURCES = {"post": "post", "guide": "guide", "both": "post, guide", "workshop": "workshop"}
WAYS = {
    "executed": "executed here",
    "container": "executed in a container",
    "rendered": "rendered and validated only",
}
UNUSED = "not used"


@dataclass
class Claim:
    """A row of claims.toml. ``note`` is the condition, or what holds in place of a claim that does not; ``again``
    names claims that the same check shows once more, on other data."""

    id: str
    group: str
    of: str
    says: str
    verdict: str
    note: str = ""
    tests: list[str] = field(default_factory=list)
    again: list[str] = field(default_factory=list)


@dataclass
class Tool:
    """A tool in a row of one of the texts' tables, and where it ran. Each place is a notebook, or a test as ``tests/FILE.py::NAME``.

    ``names``: the modules and programs by which one sees in such a place that it runs the tool. A tool without a place is not used, and ``note``
    says why.
    """

    table: str
    row: str
    name: str
    names: list[str] = field(default_factory=list)
    executed: list[str] = field(default_factory=list)
    container: list[str] = field(default_factory=list)
    rendered: list[str] = field(default_factory=list)
    note: str = ""

    @property
    def how(self) -> str:
        """How far it came: the first of ``WAYS`` that has a place."""
        return next((words for way, words in WAYS.items() if getattr(self, way)), UNUSED)


@dataclass(frozen=True)
class Check:
    """A check cell that shows a claim, and the line it printed (empty when it has not run)."""

    notebook: str
    line: str


def claims(repository: Path = REPOSITORY) -> list[Claim]:
    """The rows of claims.toml, in its order."""
    return [Claim(**row) for row in tomllib.loads((repository / TABLE).read_text(encoding="utf-8"))["claim"]]


def tools(repository: Path = REPOSITORY) -> list[Tool]:
    """The tools of claims.toml, in its order."""
    return [Tool(**row) for row in tomllib.loads((repository / TABLE).read_text(encoding="utf-8"))["tool"]]


def checks(repository: Path = REPOSITORY) -> dict[str, list[Check]]:
    """The tagged cells of the committed notebooks, by claim."""
    found: dict[str, list[Check]] = {}
    for path in sorted((repository / "notebooks").glob("[0-9][0-9]_*.ipynb")):
        for cell in nbformat.read(path, as_version=4).cells:
            for tag in cell.metadata.get("tags", []):
                if tag.startswith("claim-"):
                    line = "".join(output.get("text", "") for output in cell.get("outputs", [])).strip()
                    found.setdefault(tag.removeprefix("claim-"), []).append(Check(path.name, line))
    return found


def page(repository: Path = REPOSITORY) -> str:
    """The text of claims.md."""
    table, shown = tomllib.loads((repository / TABLE).read_text(encoding="utf-8")), checks(repository)
    rows = [Claim(**row) for row in table["claim"]]
    repeated = {again for row in rows for again in row.again}
    counts = [f"{sum(row.verdict == key for row in rows)} {words}" for key, words in VERDICTS.items()]
    lines = [
        "<!-- Written by `python -m workshop.claims` from claims.toml and the notebooks. -->",
        "# The claims",
    ]
    lines += [
        "",
        *table["introduction"].strip().splitlines(),
        "",
        f"{len(rows)} claims: {', '.join(counts)}.",
    ]
    for group in dict.fromkeys(row.group for row in rows):
        lines += [
            "",
            f"## {group}",
            "",
            "| claim | of | verdict | shown by | measured |",
            "|---|---|---|---|---|",
        ]
        lines += [_row(row, shown.get(row.id, []), row.id in repeated) for row in rows if row.group == group]
    lines += _tools(table["tools_introduction"], [Tool(**row) for row in table["tool"]])
    lines += ["", "## Not shown yet", "", *table["open_introduction"].strip().splitlines(), ""]
    lines += [f"- {sentence}" for sentence in table["open"]]
    return "\n".join(lines) + "\n"


def _row(claim: Claim, shown: list[Check], repeated: bool) -> str:
    says = f'<a id="claim-{claim.id}"></a>{claim.says}' if repeated else claim.says
    if claim.again:
        says += f"<br>Shows again: {', '.join(f'[{name}](#claim-{name})' for name in claim.again)}."
    verdict = VERDICTS[claim.verdict] + (f": {claim.note}" if claim.note else "")
    places = [f"[{check.notebook[:2]}](../notebooks/{check.notebook}) `claim-{claim.id}`" for check in shown]
    places += map(_place, claim.tests)
    figures = "<br>".join(check.line or "not run" for check in shown) or "asserted"
    return _line([says, SOURCES[claim.of], verdict, "<br>".join(places), figures])


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _place(place: str) -> str:
    path, _, test = place.partition("::")
    return f"[{Path(path).stem}](../{path}) `{test}`" if test else f"[{Path(path).name[:2]}](../{path})"


def _tools(introduction: str, rows: list[Tool]) -> list[str]:
    """The section about the texts' tools."""
    lines = ["", "## The texts' tools, and where each one ran", "", *introduction.strip().splitlines(), ""]
    counts = [f"{sum(tool.how == words for tool in rows)} {words}" for words in (*WAYS.values(), UNUSED)]
    lines.append(f"{len(rows)} entries, each counted by its strongest: {', '.join(counts)}.")
    for table in dict.fromkeys(tool.table for tool in rows):
        lines += ["", f"### {table}", "", "| row | tool | where it ran | note |", "|---|---|---|---|"]
        lines += [_line([t.row, t.name, _ran(t), t.note]) for t in rows if t.table == table]
    return lines


def _ran(tool: Tool) -> str:
    ways = [(words, getattr(tool, way)) for way, words in WAYS.items()]
    return (
        "<br>".join(f"{words}: {', '.join(map(_place, places))}" for words, places in ways if places)
        or UNUSED
    )


def write(repository: Path = REPOSITORY) -> Path:
    """Write claims.md; returns its path."""
    path = repository / PAGE
    path.write_text(page(repository), encoding="utf-8")
    return path


if __name__ == "__main__":
    print(write())

"""docs/claims.md from docs/claims.toml and the notebooks: `make notebooks` writes it, and so does `python -m workshop.claims`.

A claim is shown by a notebook's check cell with the tag ``claim-<id>`` (or the tag that its row names), by tests, or by both. The measured figure is the line that the cell printed.
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


@dataclass
class Claim:
    """A row of claims.toml. ``note`` is the condition, or what holds in place of a claim that does not; ``check`` is the tag of its check cell,
    where that is not ``claim-<id>``; ``again`` names claims that the same check shows once more, on other data."""

    id: str
    group: str
    of: str
    says: str
    verdict: str
    note: str = ""
    tests: list[str] = field(default_factory=list)
    check: str = ""
    again: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Check:
    """A check cell that shows a claim, and the line it printed (empty when it has not run)."""

    notebook: str
    line: str


def claims(repository: Path = REPOSITORY) -> list[Claim]:
    """The rows of claims.toml, in its order."""
    return [Claim(**row) for row in tomllib.loads((repository / TABLE).read_text(encoding="utf-8"))["claim"]]


def checks(repository: Path = REPOSITORY) -> dict[str, list[Check]]:
    """The tagged cells of the committed notebooks, by claim."""
    found: dict[str, list[Check]] = {}
    named = {row.check: row.id for row in claims(repository) if row.check}
    for path in sorted((repository / "notebooks").glob("[0-9][0-9]_*.ipynb")):
        for cell in nbformat.read(path, as_version=4).cells:
            for tag in cell.metadata.get("tags", []):
                if tag.startswith("claim-") or tag in named:
                    line = "".join(output.get("text", "") for output in cell.get("outputs", [])).strip()
                    found.setdefault(named.get(tag, tag.removeprefix("claim-")), []).append(Check(path.name, line))
    return found


def page(repository: Path = REPOSITORY) -> str:
    """The text of claims.md."""
    table, shown = tomllib.loads((repository / TABLE).read_text(encoding="utf-8")), checks(repository)
    rows = [Claim(**row) for row in table["claim"]]
    repeated = {again for row in rows for again in row.again}
    counts = [f"{sum(row.verdict == key for row in rows)} {words}" for key, words in VERDICTS.items()]
    lines = ["<!-- Written by `python -m workshop.claims` from claims.toml and the notebooks. -->", "# The claims"]
    lines += ["", *table["introduction"].strip().splitlines(), "", f"{len(rows)} claims: {', '.join(counts)}."]
    for group in dict.fromkeys(row.group for row in rows):
        lines += ["", f"## {group}", "", "| claim | of | verdict | shown by | measured |", "|---|---|---|---|---|"]
        lines += [_row(row, shown.get(row.id, []), row.id in repeated) for row in rows if row.group == group]
    lines += ["", "## Not shown yet", "", *table["open_introduction"].strip().splitlines(), ""]
    lines += [f"- {sentence}" for sentence in table["open"]]
    return "\n".join(lines) + "\n"


def _row(claim: Claim, shown: list[Check], repeated: bool) -> str:
    says = f'<a id="claim-{claim.id}"></a>{claim.says}' if repeated else claim.says
    if claim.again:
        says += f"<br>Shows again: {', '.join(f'[{name}](#claim-{name})' for name in claim.again)}."
    verdict = VERDICTS[claim.verdict] + (f": {claim.note}" if claim.note else "")
    places = [
        f"[{check.notebook[:2]}](../notebooks/{check.notebook}) `{claim.check or f'claim-{claim.id}'}`"
        for check in shown
    ]
    for test in claim.tests:
        path, name = test.split("::")
        places.append(f"[{Path(path).stem}](../{path}) `{name}`")
    figures = "<br>".join(check.line or "not run" for check in shown) or "asserted"
    cells = [says, SOURCES[claim.of], verdict, "<br>".join(places), figures]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def write(repository: Path = REPOSITORY) -> Path:
    """Write claims.md; returns its path."""
    path = repository / PAGE
    path.write_text(page(repository), encoding="utf-8")
    return path


if __name__ == "__main__":
    print(write())

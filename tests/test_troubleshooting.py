"""docs/troubleshooting.md: what it quotes is what the workshop says, and what the workshop can say has its place there."""

import ast
import re
from pathlib import Path

import pytest

from helpers.workspace import REPOSITORY

PAGE = REPOSITORY / "docs" / "troubleshooting.md"
ELSEWHERE = "What other programs say"
GUARDED = ("WorkshopError", "DataError", "NotRetrained", "NotTrained", "_in_words")
"""Errors that a learner can put right: each has its row."""
VARIES = "\0"


def text(node: ast.expr) -> str:
    """A string as it stands in the source, with VARIES for what is filled in."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(text(part) for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return text(node.left) + text(node.right)
    return VARIES


def sources() -> list[Path]:
    return [
        path
        for folder in ("helpers", "workshop", "exercises", "lifecycle")
        for path in (REPOSITORY / folder).glob("*.py")
    ]


def calls(names: tuple[str, ...], paths: list[Path]) -> dict[str, str]:
    """The texts that calls of these names are given, and where. What is filled in alone, such as a message made elsewhere, is no text."""
    found = {}
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.Call)
                and getattr(node.func, "id", getattr(node.func, "attr", "")) in names
            ):
                for given in map(text, node.args):
                    if re.search(r"[a-z]{2}", given):
                        found[given] = f"{path.relative_to(REPOSITORY)}:{node.lineno}"
    return found


def of_the_makefile() -> dict[str, str]:
    lines = (REPOSITORY / "Makefile").read_text(encoding="utf-8").splitlines()
    echoed = {number: re.search(r'echo "(.*?)"( >&2)?;', line) for number, line in enumerate(lines, 1)}
    return {
        re.sub(r"\$\$?(\((?:[^()]|\([^()]*\))*\)|\w+)", VARIES, match[1]): f"Makefile:{number}"
        for number, match in echoed.items()
        if match
    }


def literals() -> dict[str, str]:
    """Every text of the sources: what is printed, raised, answered or logged."""
    found = {}
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.expr) and re.search(r"[a-z]{2}", given := text(node)):
                found[given] = f"{path.relative_to(REPOSITORY)}:{node.lineno}"
    return found


def quotes() -> dict[str, str]:
    """What the page quotes in the first code of each row, and the heading it stands under; what other programs say left out."""
    found, heading = {}, ""
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            heading = line.lstrip("# ")
        cells = [cell.strip() for cell in line.split(" | ")] if line.startswith("| ") else []
        coded = [match for cell in cells[:2] if (match := re.fullmatch(r"(?:\| )?(`+)(.+?)\1", cell))]
        if coded and heading != ELSEWHERE:
            found[coded[0][2]] = heading
    return found


def says(message: str, quote: str) -> bool:
    """Whether a message reads as the quote does: ``...`` stands for what is filled in, and at either end for anything that was left out."""
    first, *between = quote.split("...")
    inner = re.escape(first) + "".join(f"{VARIES}+" + re.escape(part) for part in between)
    return re.search(inner.removeprefix(f"{VARIES}+").removesuffix(f"{VARIES}+"), message) is not None


def test_the_page_has_rows_in_every_table_and_none_is_lost_by_how_it_is_written():
    text_of = PAGE.read_text(encoding="utf-8")
    rows = [line for line in text_of.split(f"## {ELSEWHERE}")[0].splitlines() if line.startswith("| ")]
    heads = [line for line in rows if "you see |" in line]
    assert len(heads) >= 8
    assert len(quotes()) == len(rows) - len(heads) > 50


def test_each_quoted_message_is_the_real_text_of_a_source():
    real = [*literals(), *of_the_makefile()]
    assert [quote for quote in quotes() if not any(says(message, quote) for message in real)] == []


@pytest.mark.parametrize("quote", quotes())
def test_a_quote_says_enough_to_be_found_by(quote):
    assert sum(len(part.strip()) for part in quote.split("...")) >= 6


def test_each_error_that_a_learner_can_put_right_has_its_row():
    raised = calls(GUARDED, sources()) | of_the_makefile()
    assert len(raised) > 35
    assert {m: place for m, place in raised.items() if not any(says(m, quote) for quote in quotes())} == {}


def test_what_begin_prints_has_its_row():
    begin = [REPOSITORY / "helpers" / name for name in ("start.py", "damage.py")]
    printed = {m: p for m, p in calls(("print", "alone"), begin).items() if "is ready. Data seed" not in m}
    assert len(printed) >= 4
    assert {m: place for m, place in printed.items() if not any(says(m, quote) for quote in quotes())} == {}

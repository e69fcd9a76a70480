"""docs/troubleshooting.md has a row for each message that a learner can act on, and real quotes."""

import ast
import re

import pytest

from helpers.workspace import REPOSITORY

pytestmark = pytest.mark.unit
PAGE = (REPOSITORY / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
RAISED = {"WorkshopError", "DataError", "NotRetrained", "NotTrained", "_in_words"}
"""What raises or words an error that a learner can act on."""
VARIES = "\0"


def text(node: ast.expr) -> str:
    """A string of the source, with VARIES for what is filled in."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(map(text, node.values))
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return text(node.left) + text(node.right)
    return VARIES


def messages() -> tuple[set[str], set[str]]:
    """Every string of the sources, and those that need a row: errors, and what `begin` prints."""
    everything, needed = set(), set()
    for folder in ("helpers", "workshop", "exercises", "lifecycle"):
        for path in (REPOSITORY / folder).glob("src/**/*.py" if folder == "lifecycle" else "*.py"):
            names = RAISED | ({"print", "alone"} if path.name in ("start.py", "damage.py") else set())
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.expr):
                    everything.add(text(node))
                if (
                    isinstance(node, ast.Call)
                    and getattr(node.func, "id", getattr(node.func, "attr", "")) in names
                ):
                    needed |= {text(argument) for argument in node.args}
    echoed = re.findall(r'echo "(.*?)"(?: >&2)?;', (REPOSITORY / "Makefile").read_text(encoding="utf-8"))
    of_make = {re.sub(r"\$\$?(\((?:[^()]|\([^()]*\))*\)|\w+)", VARIES, message) for message in echoed}
    needed = {message for message in needed | of_make if re.search("[a-z]{2}", message)}
    progress = re.compile("is ready. Data seed|to run, about")
    return everything | of_make, {message for message in needed if not progress.search(message)}


def quotes() -> list[str]:
    """The first code of each row, without what other programs say."""
    found = []
    for line in PAGE.split("## What other programs say")[0].splitlines():
        cells = line.removeprefix("| ").split(" | ")[:2] if line.startswith("| ") else []
        found += [match[2] for cell in cells if (match := re.fullmatch(r"(`+)(.+?)\1", cell))][:1]
    return found


def pattern(quote: str) -> re.Pattern:
    """What a quote stands for: `...` is what is filled in or left out."""
    inner = f"{VARIES}+".join(map(re.escape, quote.split("...")))
    return re.compile(inner.removeprefix(f"{VARIES}+").removesuffix(f"{VARIES}+"))


def test_each_message_that_a_learner_can_act_on_has_a_row():
    _, needed = messages()
    patterns = [pattern(quote) for quote in quotes()]
    assert len(needed) > 40
    assert [message for message in needed if not any(p.search(message) for p in patterns)] == []


def test_each_quoted_message_is_one_of_the_sources():
    everything = "\1".join(messages()[0])
    assert len(quotes()) > 50
    assert [quote for quote in quotes() if not pattern(quote).search(everything)] == []

"""The instructor's guide and the glossary say what the notebooks say."""

import math
import re
from pathlib import Path

import nbformat
import pytest

from helpers.workspace import REPOSITORY

NOTEBOOKS = sorted((REPOSITORY / "notebooks").glob("*.ipynb"))
GUIDE = (REPOSITORY / "docs" / "instructor-guide.md").read_text()
GLOSSARY = (REPOSITORY / "docs" / "glossary.md").read_text()
ENTRY = re.compile(
    r"## (?P<term>.+)\n\n(?P<text>(?:[^\n#\[].*\n)+)\n"
    r"\[(?P<of>[^]]+)\]\((?P<link>[^)\s]+)\); first in \[(?P<notebook>\d\d)\]\(\.\./notebooks/(?P<file>[^)]+)\)\.\n"
)
ENTRIES = {entry["term"]: entry for entry in ENTRY.finditer(GLOSSARY)}
LINK = re.compile(r"\[([^]]+)\]\(\.\./docs/glossary\.md#([^)]*)\)")


def anchor(heading: str) -> str:
    """The name under which a heading of a page is reached."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def header(path: Path) -> dict[str, int]:
    """The minutes and seconds that a notebook states."""
    text = nbformat.read(path, as_version=4).cells[0].source
    found = re.search(
        r"about (?P<reading>\d+) minutes to read, (?P<exercises>\d+) for the exercises, (?P<running>\d+) seconds to run",
        text,
    )
    assert found, f"{path.name} states no minutes for its exercises"
    return {name: int(number) for name, number in found.groupdict().items()}


def plan(title: str) -> list[list[str]]:
    """The rows of a plan: when, what, reading, exercises, running, minutes."""
    table = GUIDE.split(f"\n## {title}\n")[1].split("\n## ")[0]
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in re.findall(r"^\|.*\|$", table, re.M)
    ]
    assert rows[0] == ["at", "what", "reading", "exercises", "running, s", "minutes"]
    return rows[2:]


PLANS = {"A full day": 9, "A second day": 9, "Half a day": 4.5}


@pytest.mark.parametrize("title", PLANS)
def test_a_plan_has_the_minutes_of_the_notebooks_headers(title):
    for _, what, reading, exercises, running, minutes in plan(title):
        if link := re.search(r"\((\.\./notebooks/.+)\)", what):
            states = header(REPOSITORY / "docs" / link[1])
            done = states["exercises"] if exercises else 0
            total = states["reading"] + done + math.ceil(states["running"] / 60)
            expected = [states["reading"], done or "", states["running"], total]
            assert [reading, exercises, running, minutes] == [str(number) for number in expected], what


@pytest.mark.parametrize("title", PLANS)
def test_the_times_of_a_plan_add_up(title):
    *rows, (end, *_) = plan(title)
    at = 0
    for when, what, *_, minutes in rows:
        assert when == f"{at // 60}:{at % 60:02d}", what
        at += int(minutes)
    assert end == f"{at // 60}:{at % 60:02d}" and at / 60 <= PLANS[title]


def test_the_two_days_hold_every_notebook_and_half_a_day_some_in_order():
    names = {title: re.findall(r"\.\./notebooks/([^)]+)\)", str(plan(title))) for title in PLANS}
    assert names["A full day"] + names["A second day"] == [path.name for path in NOTEBOOKS]
    half = names["Half a day"]
    assert half == sorted(set(half)) and set(half) < set(names["A full day"])


def test_the_guide_says_for_each_notebook_what_to_say_and_where_people_stumble():
    parts = re.findall(r"^### (\d\d) .+\n\n\*\*Say\*\*: \".+\"\n\n((?:- .+\n)+)", GUIDE, re.M)
    assert [number for number, _ in parts] == [path.name[:2] for path in NOTEBOOKS]
    assert min(stumbles.count("\n") for _, stumbles in parts) >= 2


@pytest.mark.parametrize("page", ["instructor-guide.md", "glossary.md"])
def test_the_links_of_a_page_lead_somewhere(page):
    text = (REPOSITORY / "docs" / page).read_text()
    headings = {anchor(heading) for heading in re.findall(r"^#+ (.+)$", text, re.M)}
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, part = link.partition("#")
        if not link.startswith("https://"):
            assert (REPOSITORY / "docs" / path).exists() if path else part in headings, link


def test_the_glossarys_entries_are_whole_and_in_alphabetical_order():
    headings = re.findall(r"^## (.+)$", GLOSSARY, re.M)
    assert headings == list(ENTRIES), "an entry without a text, a link or a notebook"
    assert headings == sorted(headings, key=str.casefold) and len(headings) > 40
    for entry in ENTRIES.values():
        assert len(re.findall(r"[.!?](?=\s)", entry["text"])) in (1, 2), entry["term"]
        assert entry["file"].startswith(entry["notebook"])


def test_each_term_is_linked_once_and_from_the_notebook_that_its_entry_names():
    linked = []
    for path in NOTEBOOKS:
        for cell in nbformat.read(path, as_version=4).cells:
            if cell.cell_type == "markdown":
                linked += [(name, path.name) for _, name in LINK.findall(cell.source)]
    assert sorted(linked) == sorted((anchor(term), entry["file"]) for term, entry in ENTRIES.items())


def test_a_term_is_linked_in_running_text():
    for path in NOTEBOOKS:
        first, *rest = nbformat.read(path, as_version=4).cells
        assert not LINK.search(first.source)
        for cell in rest:
            for line in cell.source.splitlines():
                if LINK.search(line):
                    assert cell.cell_type == "markdown" and not re.match(r"\s*([#>|]|```)", line), line
                    assert not LINK.search("".join(line.split("`")[1::2])), f"a link in code: {line}"

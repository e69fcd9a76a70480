"""The pages: links lead somewhere, and the tests and check cells that a page names exist."""

import json
import re
from functools import cache
from pathlib import Path

import pytest

from helpers.workspace import REPOSITORY

pytestmark = pytest.mark.unit
NOTEBOOKS = {path.name[:2]: path for path in (REPOSITORY / "notebooks").glob("*.ipynb")}
FOLDERS = (".", ".github", "cluster", "data", "data/flights", "docs")
PAGES = [*NOTEBOOKS.values(), *(page for folder in FOLDERS for page in (REPOSITORY / folder).glob("*.md"))]


def cells(notebook: Path, kind: str) -> list[dict]:
    return [c for c in json.loads(notebook.read_text(encoding="utf-8"))["cells"] if c["cell_type"] == kind]


@cache
def prose(page: Path) -> str:
    """A page, or a notebook's markdown, without code blocks and code."""
    text = page.read_text(encoding="utf-8")
    if page.suffix == ".ipynb":
        text = "\n\n".join("".join(cell["source"]) for cell in cells(page, "markdown"))
    return re.sub(r"(?ms)^\s*(`{3,}).*?^\s*\1", "", text)


@cache
def anchors(page: Path) -> set[str]:
    """Where a link can lead within a page, as GitHub and, with capitals and hyphens, JupyterLab name it."""
    headings = [re.sub(r"\[([^]]+)\]\([^)]*\)", r"\1", h) for h in re.findall(r"(?m)^#+ (.+)$", prose(page))]
    github = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    return github | {h.replace(" ", "-") for h in headings} | set(re.findall(r'<a id="([^"]+)"', prose(page)))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_links_lead_to_a_file_and_a_heading(page):
    text = re.sub(r"`[^`\n]+`(?!\]\()", "", prose(page))
    links = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r"(?m)^\[[^]]+\]: (\S+)", text)
    broken = []
    for link in (link for link in links if not re.match(r"[a-z]+:", link)):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        inside = anchor if target.suffix in (".md", ".ipynb") else ""
        if not target.exists() or (inside and inside not in anchors(target)):
            broken.append(link)
    assert broken == []


def test_the_readme_is_short_and_begins_with_three_lines_to_type():
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    assert len(text.split()) < 900
    _, commands, below = text.split("```")
    assert len(commands.strip().splitlines()) == 3
    places = [below.index(part) for part in ("![", "<!-- notebooks", "## Who it is for", "## More")]
    assert places == sorted(places)


@cache
def functions() -> dict[str, str]:
    """Every test function, with the folder of its file."""
    folders = (REPOSITORY / "tests", REPOSITORY / "lifecycle" / "tests")
    files = {path: path.read_text(encoding="utf-8") for at in folders for path in at.rglob("test_*.py")}
    return {
        name: path.parent.name for path in files for name in re.findall(r"(?m)^def (test_\w+)", files[path])
    }


def named() -> tuple[set[str], set[tuple[str, str]]]:
    """The tests that the pages name, and the check cells: the notebook's number and the tag behind it."""
    names = ("claims.md", "upstream.md", "post-and-workshop.md")
    text = "".join((REPOSITORY / "docs" / name).read_text(encoding="utf-8") for name in names)
    groups = re.findall(r"\[(\d\d)\](?:\([^)]+\))? ((?:`(?:claim|check)-[\w-]+`(?:, )?)+)", text)
    tags = [(number, tag) for number, listed in groups for tag in re.findall(r"`([\w-]+)`", listed)]
    assert len(tags) == len(re.findall(r"`(?:claim|check)-", text)), (
        "a tag has no notebook's number before it"
    )
    return set(re.findall(r"`(test_\w+)`", text)), set(tags)


def test_each_check_cell_that_a_page_names_exists():
    code = [(number, cell) for number, path in NOTEBOOKS.items() for cell in cells(path, "code")]
    tags = {(number, tag) for number, cell in code for tag in cell["metadata"].get("tags", [])}
    assert named()[1] - tags == set()


def test_each_test_that_a_page_names_exists_and_each_of_upstream_is_named():
    assert named()[0] - set(functions()) == set()
    assert {name for name, folder in functions().items() if folder == "upstream"} - named()[0] == set()


def test_the_page_of_traps_is_about_the_locked_versions():
    headings = re.findall(r"(?m)^## .+$", (REPOSITORY / "docs" / "upstream.md").read_text(encoding="utf-8"))
    lock = (REPOSITORY / "uv.lock").read_text(encoding="utf-8")
    assert [v for v in re.findall(r"\d+\.\d+\.\d+", str(headings)) if f'version = "{v}"' not in lock] == []

"""The website, as `make site` builds it: links lead somewhere, and readers find, read, and unfold."""

import html
import json
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from browser import browser, needs_chromium  # noqa: F401

from helpers.workspace import REPOSITORY

pytest.importorskip("sphinx", reason="the website's packages are not installed. `make site` adds them.")
pytestmark = pytest.mark.system
LESSON = "notebooks/02_retrieve_point_in_time"
HOSTING = {"GITHUB_SERVER_URL": "https://git.test", "GITHUB_REPOSITORY": "team/course", "GITHUB_SHA": "a1"}


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    [recipe] = re.findall(
        r"\$\(VENV\) (-m sphinx .+) workspace/site\n", (REPOSITORY / "Makefile").read_text()
    )
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, *recipe.split(), folder]
    done = subprocess.run(
        command, cwd=REPOSITORY, env=os.environ | HOSTING, capture_output=True, text=True, timeout=900
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    return folder


@pytest.fixture
def page(browser, site):  # noqa: F811
    """A page of a phone's width. What it asks for comes from the folder, and it asks for nothing else."""
    context = browser.new_context(viewport={"width": 390, "height": 844}, base_url="https://site.test")
    outside = []

    def answer(route):
        url = urlsplit(route.request.url)
        if url.netloc != "site.test":
            outside.append(route.request.url)
        path = site / unquote(url.path.lstrip("/"))
        route.fulfill(path=path) if path.is_file() else route.abort()

    context.route("**/*", answer)
    yield context.new_page()
    context.close()
    assert outside == []


@cache
def built(page: Path) -> str:
    return page.read_text(encoding="utf-8")


@cache
def anchors(page: Path) -> set[str]:
    return set(map(html.unescape, re.findall(r'\sid="([^"]+)"', built(page))))


def test_every_link_leads_to_a_page_and_an_anchor_or_to_the_hosting_site(site):
    broken, files = [], set()
    for page in set(site.rglob("*.html")) - set(site.rglob("_static/*")):
        for link in map(html.unescape, re.findall(r'\s(?:href|src)="([^"]+)"', built(page))):
            if link.startswith("https://git.test/"):
                files.add(link)
            if re.match("[a-z]+:", link):
                continue
            path, _, anchor = link.partition("#")
            target = (page.parent / unquote(path.partition("?")[0])).resolve() if path else page
            if not target.is_file() or (anchor and unquote(anchor) not in anchors(target)):
                broken.append(f"{page.relative_to(site)}: {link}")
    assert broken == []
    start = "https://git.test/team/course/blob/a1/"
    assert f"{start}cluster/Dockerfile" in files and f"{start}tests/upstream" in files
    missing = [
        file for file in files if not (REPOSITORY / file.removeprefix(start).partition("#")[0]).exists()
    ]
    assert missing == []


def test_a_lesson_shows_its_stored_outputs_and_a_solution_for_each_exercise(site):
    cells = json.loads((REPOSITORY / f"{LESSON}.ipynb").read_text(encoding="utf-8"))["cells"]
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    texts = ["".join(output["text"]).strip() for output in outputs if output["output_type"] == "stream"]
    shown = html.unescape(re.sub(r"<[^>]+>", "", built(site / f"{LESSON}.html")))
    assert texts and [text for text in texts if text not in shown] == []
    exercises = [cell for cell in cells if "exercise" in cell["metadata"].get("tags", [])]
    assert shown.count("Show a solution") == len(exercises) > 0


@needs_chromium
def test_checks_and_solutions_are_folded_and_a_terms_meaning_shows_on_hover(page):
    from playwright.sync_api import expect

    page.goto(f"{LESSON}.html")
    for folded in ("# Check: claim-no-future-data", "Show a solution"):
        details = page.locator("details", has_text=folded).first
        expect(details.locator("pre")).to_be_hidden()
        details.locator("summary").click()
        expect(details.locator("pre")).to_be_visible()
    page.locator('a[href$="glossary.html#point-in-time-join"]').first.hover()
    expect(page.get_by_role("tooltip")).to_contain_text("the values that were known at its time")


@needs_chromium
def test_search_finds_a_term(page):
    from playwright.sync_api import expect

    page.goto("search.html?q=materialization")
    expect(page.locator("#search-results").get_by_role("link", name="materialization").first).to_be_visible()


@needs_chromium
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["index", LESSON, "docs/glossary", "docs/site/api/settings"])
def test_a_page_fits_a_phone_and_has_no_serious_violation_of_accessibility(page, name, scheme):
    from axe_playwright_python.base import AXE_SCRIPT
    from playwright.sync_api import expect

    page.emulate_media(color_scheme=scheme)
    page.goto(f"{name}.html")
    expect(page.locator("html")).to_have_attribute("data-theme", scheme)
    assert page.evaluate("document.scrollingElement.scrollWidth") <= 390
    page.evaluate(AXE_SCRIPT)
    found = page.evaluate("axe.run()")
    assert len(found["passes"]) > 10
    serious = [each for each in found["violations"] if each["impact"] in ("serious", "critical")]
    assert [(each["id"], [node["html"] for node in each["nodes"]]) for each in serious] == []

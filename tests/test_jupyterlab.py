"""A notebook in JupyterLab, in a real browser, as a participant uses it, from an empty workspace."""

import json
import time

import lab
import nbformat
import pytest
from browser import browser, needs_chromium  # noqa: F401  a fixture
from nbconvert import HTMLExporter
from playwright.sync_api import expect

from exercises.core import RECORD
from helpers.workspace import REPOSITORY
from workshop.runner import NOTEBOOKS

pytestmark = [pytest.mark.system, needs_chromium]


def run_all(tab: lab.Tab) -> None:
    """All cells run, in order and without an error; each sentence at the end is ticked."""
    tab.menu("Run", "Run All Cells")
    end = time.monotonic() + 600
    while time.monotonic() < end:  # while JupyterLab loads the sliders, the kernel is idle, and a cell waits
        tab.wait()
        cells = tab.cells()
        counts = [cell.execution_count or 0 for cell in cells]
        if 0 not in counts and counts == sorted(counts):
            break
    assert tab.errors() == []
    assert 0 not in counts and counts == sorted(counts)
    [at_the_end] = [cell for cell in cells if "showed" in cell.metadata.get("tags", [])]
    assert "☐" not in at_the_end.outputs[0].data["text/markdown"]


def test_a_notebook_runs_twice_with_an_exercise_answered_wrongly_and_rightly_between(
    browser,  # noqa: F811
    tmp_path,
):
    with lab.opened(tmp_path) as (home, address):
        tab = lab.Tab(browser, home, address, next(NOTEBOOKS.glob("02_*.ipynb")).name)
        tab.page.set_default_timeout(180_000)  # of a machine that does much else
        run_all(tab)
        said = "".join(output.get("text", "") for output in tab.cells()[1].outputs)
        assert "1 of 1: 01_define_features, about" in said, "it catches up, and says how long that takes"

        tab.open_heading("Move the question")
        sliders = tab.page.locator(".widget-slider")
        sliders.first.wait_for(timeout=30_000)
        assert sliders.count() == 2
        sliders.first.locator(".noUi-handle").press("ArrowRight")
        tab.page.locator("""img[alt*="The question on 13 Feb at 12:00"]""").wait_for(timeout=30_000)

        check = tab.page.locator(".jp-CodeCell", has_text="# Exercise 2.1: its check")
        result = check.locator(".jp-OutputArea")

        def give(before: str, answer: str, shown: str) -> None:
            """Replace the answer, run it and its check, and read the card."""
            tab.open_heading("Exercise 2.1")
            tab.edit(before, answer)
            tab.wait()  # when it fails, a cell that waits is not run
            tab.page.keyboard.press("Shift+Enter")  # its check is the next cell
            result.filter(has_text=shown).wait_for()
            tab.wait()
            assert "Traceback" not in result.inner_text()

        assert "Open: 2.1 Keep an expired value" in result.inner_text()
        give(
            "# Exercise 2.1: your answer",
            "longer_ttl = timedelta(hours=9)",
            "shorter than the current 7 days",
        )
        give("longer_ttl = timedelta(hours=9)", "longer_ttl = timedelta(days=16", "ended with SyntaxError")
        give(
            "longer_ttl = timedelta(days=16",
            "longer_ttl = timedelta(days=16)",
            "Solved: 2.1 Keep an expired value",
        )
        assert tab.errors() == []
        done = [json.loads(line)["what"] for line in (home.path / RECORD).read_text().splitlines()]
        assert done == ["wrong", "solved"]
        run_all(tab)
        closing = tab.page.locator(".jp-OutputArea", has_text="1 of 3 exercises solved")
        closing.get_by_role("link", name="Exercise 2.2").click()
        expect(tab.page.get_by_role("heading", name="Exercise 2.2")).to_be_in_viewport()


def test_no_table_is_wider_than_its_place(browser, tmp_path):  # noqa: F811
    """At the width that JupyterLab leaves to an output on a screen of 1366 pixels, its side bar open."""
    whole = nbformat.v4.new_notebook()
    for path in sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb")):
        cells = nbformat.read(path, as_version=4).cells
        tables = [cell for cell in cells if "<table" in str(cell.get("outputs", ""))]
        assert tables, path.name
        whole.cells += tables
    html, _ = HTMLExporter(template_name="lab").from_notebook_node(whole)
    (tmp_path / "page.html").write_text(html)
    page = browser.new_page(viewport={"width": 1366, "height": 700})
    page.goto((tmp_path / "page.html").as_uri(), wait_until="domcontentloaded")
    page.add_style_tag(path=REPOSITORY / "workshop" / "jupyter" / "custom" / "custom.css")
    place = page.locator(".jp-OutputArea-output").first.evaluate("place => place.clientWidth")
    page.set_viewport_size({"width": 1366 - (place - 934), "height": 700})
    wide = page.evaluate("""() => [...document.querySelectorAll(".jp-OutputArea table")].filter(
        table => table.scrollWidth > table.closest(".jp-OutputArea-output").clientWidth
    ).map(table => table.rows[0].innerText)""")
    assert wide == []

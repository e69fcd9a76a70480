"""A notebook in JupyterLab, in a real browser, as a participant uses it, from an empty workspace."""

import json
import time

import lab
import nbformat
import pytest
from browser import browser, needs_chromium  # noqa: F401  a fixture
from nbconvert import HTMLExporter

from exercises.core import RECORD
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

        tab.open_heading("Exercise 2.1")
        tab.edit("# Exercise 2.1: your answer", "longer_ttl = timedelta(hours=9)")
        tab.page.keyboard.press("Shift+Enter")  # its check is the next cell
        tab.wait()
        [error] = tab.errors()
        assert error.startswith("NotYet: ") and "shorter than the current 7 days" in error
        check = tab.page.locator(".jp-CodeCell", has_text="# Exercise 2.1: its check")
        shown = check.locator(".jp-OutputArea").inner_text()
        assert shown.startswith("Not yet: ") and "Traceback" not in shown

        tab.edit("longer_ttl = timedelta(hours=9)", "longer_ttl = timedelta(days=16)")
        tab.page.keyboard.press("Shift+Enter")
        tab.wait()
        cell = next(cell for cell in tab.cells() if cell.source.startswith("# Exercise 2.1: its check"))
        assert cell.outputs[0].text.startswith("solved: 2.1. ")
        done = [json.loads(line)["what"] for line in (home.path / RECORD).read_text().splitlines()]
        assert done == ["wrong", "solved"]
        run_all(tab)


def test_no_table_is_wider_than_its_place(browser, tmp_path):  # noqa: F811
    """At the width that JupyterLab leaves to a notebook on a laptop's screen, its side bar open."""
    whole = nbformat.v4.new_notebook()
    for path in sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb")):
        cells = nbformat.read(path, as_version=4).cells
        tables = [cell for cell in cells if "<table" in str(cell.get("outputs", ""))]
        assert len(tables) >= 3, path.name
        whole.cells += tables
    html, _ = HTMLExporter(template_name="lab").from_notebook_node(whole)
    (tmp_path / "page.html").write_text(html)
    page = browser.new_page(viewport={"width": 1440 - 324, "height": 700})
    page.goto((tmp_path / "page.html").as_uri(), wait_until="domcontentloaded")
    wide = page.evaluate("""() => [...document.querySelectorAll(".jp-OutputArea table")].filter(
        table => table.scrollWidth > table.closest(".jp-OutputArea-output").clientWidth
    ).map(table => table.rows[0].innerText)""")
    assert wide == []

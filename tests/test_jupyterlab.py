"""The notebooks in JupyterLab, in a real browser, as a participant uses them: in order, from an empty workspace."""

import json

import lab
import pytest
from browser import chromium, needs_chromium
from nbconvert import HTMLExporter

from exercises.core import RECORD
from workshop.runner import NOTEBOOKS

pytestmark = needs_chromium


@pytest.fixture(scope="module")
def browser():
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def room(tmp_path_factory, browser):
    """A function that opens a notebook in a tab."""
    with lab.opened(tmp_path_factory.mktemp("in a browser")) as (home, address):

        def tab(name: str) -> lab.Tab:
            return lab.Tab(browser, home, address, next(NOTEBOOKS.glob(f"{name}_*.ipynb")).name)

        tab.home = home
        yield tab


def run_all(tab: lab.Tab) -> None:
    tab.menu("Run", "Run All Cells")


def passed(tab: lab.Tab) -> None:
    """All cells ran, in order and without an error; each sentence at the end is ticked."""
    cells = tab.cells()
    assert tab.errors() == []
    counts = [cell.execution_count for cell in cells]
    assert None not in counts and counts == sorted(counts)
    [at_the_end] = [cell for cell in cells if "showed" in cell.metadata.get("tags", [])]
    assert "☐" not in at_the_end.outputs[0].data["text/markdown"]


def test_two_notebooks_at_once_in_an_empty_workspace(room):
    """Both need the registry: one makes it, the other waits."""
    first, second = room("02"), room("03")
    run_all(first)
    run_all(second)
    said = []
    for tab in (first, second):
        tab.wait()
        passed(tab)
        said.append("".join(output.get("text", "") for output in tab.cells()[1].outputs))
    assert sum("1 of 1: 01_define_features, about" in text for text in said) == 1, (
        "it runs once, and says how long it takes"
    )
    assert sum("this one waits for it" in text for text in said) == 1


def test_an_exercise_answered_wrongly_and_rightly_with_a_hint_between(room):
    tab = room("02")
    run_all(tab)
    tab.wait()
    tab.open_heading("Exercise 2.1")
    tab.edit("# Exercise 2.1: your answer", "longer_ttl = timedelta(hours=9)")
    tab.page.keyboard.press("Shift+Enter")  # its check is the next cell
    tab.wait()
    [error] = tab.errors()
    assert error.startswith("NotYet: ") and "shorter than today's 7 days" in error
    shown = tab.page.locator(".jp-CodeCell", has_text="# Exercise 2.1: its check").locator(".jp-OutputArea")
    assert shown.inner_text().startswith("Not yet: ") and "Traceback" not in shown.inner_text()

    tab.insert_below("# Exercise 2.1: its check", 'exercise("2.1").hint()')
    tab.wait()
    asked = next(cell for cell in tab.cells() if cell.source == 'exercise("2.1").hint()')
    assert "NOW" in asked.outputs[0].text

    tab.edit("longer_ttl = timedelta(hours=9)", "longer_ttl = timedelta(days=16)")
    tab.page.keyboard.press("Shift+Enter")
    tab.wait()
    assert tab.errors() == []
    check = next(cell for cell in tab.cells() if cell.source.startswith("# Exercise 2.1: its check"))
    assert check.outputs[0].text.startswith("solved: 2.1. ")
    done = [json.loads(line)["what"] for line in (room.home.path / RECORD).read_text().splitlines()]
    assert done == ["wrong", "hint", "solved"]


def test_a_notebook_can_be_run_twice_in_one_kernel(room):
    tab = room("04")
    for _ in range(2):
        run_all(tab)
        tab.wait()
        passed(tab)


def test_a_sweep_that_was_interrupted_can_be_run_again(room):
    tab = room("05")
    run_all(tab)
    tab.open_heading("Kill it inside a trial")
    tab.wait_until_done("# Check: check-killed-inside-a-trial")  # the next one is the sweep in this kernel
    tab.page.wait_for_timeout(300)
    tab.menu("Kernel", "Interrupt Kernel")
    tab.wait()
    assert [error.partition(":")[0] for error in tab.errors()] == ["KeyboardInterrupt"]
    run_all(tab)
    tab.wait()
    passed(tab)


def test_no_table_is_wider_than_its_place(browser, tmp_path):
    """At the width that JupyterLab leaves to a notebook on a laptop's screen of 1440 pixels, its side bar open."""
    wide = {}
    page = browser.new_page(viewport={"width": 1440 - 324, "height": 700})
    for path in sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb")):
        html, _ = HTMLExporter(template_name="lab").from_filename(str(path))
        (tmp_path / "page.html").write_text(html)
        page.goto((tmp_path / "page.html").as_uri())
        assert page.locator(".jp-OutputArea table").count() >= 3
        wide[path.stem] = page.evaluate(
            """() => [...document.querySelectorAll(".jp-OutputArea table")].filter(
                table => table.scrollWidth > table.closest(".jp-OutputArea-output").clientWidth
            ).map(table => table.rows[0].innerText)"""
        )
    assert not any(wide.values()), wide

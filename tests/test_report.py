"""The report of a run: what it says, where its links lead, and how it looks on a screen and on a phone."""

import re
import sys
from datetime import datetime, timedelta
from importlib.metadata import version

import nbformat
import pytest
from browser import chromium, needs_chromium

from workshop.report import report
from workshop.runner import Result

PROSE = (
    "A point-in-time join gives each label the features that were known at its time, and none that came later. "
    * 5
)
WIDE = "rows = retrieve(" + ", ".join(f"feature_{n}=store['feature_{n}']" for n in range(12)) + ")"
TABLE = f"<table><tr>{''.join(f'<td>feature_{n}</td>' for n in range(30))}</tr></table>"
NAMES = ["00_first", "01_second", "02_third"]


def an_executed_notebook() -> nbformat.NotebookNode:
    cell = nbformat.v4
    frame = cell.new_output("execute_result", {"text/html": TABLE, "text/plain": "table"}, execution_count=1)
    log = cell.new_output("stream", name="stdout", text=f"{'a' * 300}\n")
    return cell.new_notebook(
        cells=[
            cell.new_markdown_cell(f"# Try it\n\n{PROSE}\n\n`{'long_name_' * 12}`"),
            cell.new_markdown_cell(
                f"| {' | '.join('column_of_a_table' for _ in range(9))} |\n|{'---|' * 9}\n"
            ),
            cell.new_code_cell(WIDE, outputs=[frame, log], execution_count=1),
            cell.new_code_cell("# Check: it\nassert rows", metadata={"tags": ["check"]}, execution_count=2),
        ]
    )


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    """The report of two notebooks that passed and one that failed; the failure of the last carries markup."""
    folder = tmp_path_factory.mktemp("a report")
    for name in NAMES:
        nbformat.write(an_executed_notebook(), folder / f"{name}.ipynb")
    results = [Result(NAMES[0], 10.04, 5, 3), Result(NAMES[1], 20.5, 5, 4)]
    return report([*results, Result(NAMES[2], 1.2, 1, 0, "cell 2: AssertionError: <b>1 < 2</b>")], folder)


def test_it_says_when_with_what_and_how_much(index):
    text = index.read_text()
    (written,) = re.findall(r"<p>(\d{4}-\d\d-\d\d \d\d:\d\d) \S+<p>", text)
    assert abs(datetime.now() - datetime.strptime(written, "%Y-%m-%d %H:%M")) < timedelta(minutes=10)
    assert f"Python {sys.version.split()[0]}, " in text
    for tool in ("feast", "mlflow", "kfp", "kubeflow", "kserve", "optuna", "scikit-learn"):
        assert f"{tool} {version(tool)}" in text
    assert '<tfoot><tr><td>total<td>31.7<td>7<td><b class="bad">1 failed</b>' in text
    assert "AssertionError: &lt;b&gt;1 &lt; 2&lt;/b&gt;" in text


def test_each_page_leads_to_the_index_and_to_its_neighbours(index):
    for number, name in enumerate(NAMES):
        text = index.with_name(f"{name}.html").read_text()
        ways = re.findall(r'<nav class="run">(.*?)</nav>', text)
        assert len(ways) == 2, "above and below"
        neighbours = [n for n in (number - 1, number + 1) if 0 <= n < len(NAMES)]
        expected = {"index.html", *(f"{NAMES[n]}.html" for n in neighbours)}
        for way in ways:
            links = re.findall(r'href="([^"]+)"', way)
            assert set(links) == expected and all(index.with_name(link).exists() for link in links)


def test_a_notebook_that_left_no_copy_has_a_row_and_no_link(tmp_path):
    text = report([Result("00_lost", 1.0, 1, 0, "no executed copy was written")], tmp_path).read_text()
    assert "<td>00_lost<td>1.0" in text and "href" not in text


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


def opened(browser, index, name: str, width: int):
    page = browser.new_page(viewport={"width": width, "height": 900}, is_mobile=width < 500)
    page.goto(index.with_name(f"{name}.html").as_uri())
    return page


@needs_chromium
@pytest.mark.parametrize("name", ["index", *NAMES])
@pytest.mark.parametrize("width", [390, 1200])
def test_no_page_scrolls_sideways(browser, index, name, width):
    page = opened(browser, index, name, width)
    assert page.evaluate("[innerWidth, document.documentElement.scrollWidth]") == [width, width]


@needs_chromium
def test_code_tables_and_output_scroll_within_themselves_on_a_phone(browser, index):
    page = opened(browser, index, NAMES[0], 390)
    # Scrolled by its reader: it moves, and ends within the page.
    scrolled = """part => {
        let box = part;
        while (box && getComputedStyle(box).overflowX !== "auto") box = box.parentElement;
        if (!box) return "it cannot be scrolled";
        box.scrollLeft = 100;
        return [box.scrollLeft, box.getBoundingClientRect().right <= 390];
    }"""
    for part in (".highlight pre", ".jp-RenderedHTML table", ".jp-MarkdownOutput table"):
        assert page.locator(part).first.evaluate(scrolled) == [100, True], part


@needs_chromium
def test_prose_has_lines_that_can_be_read(browser, index):
    page = opened(browser, index, NAMES[0], 1200)
    lines = page.evaluate("""() => {
        const text = document.querySelector('.jp-MarkdownOutput p').firstChild, range = document.createRange(), tops = {};
        for (let at = 0; at < text.length; at++) {
            range.setStart(text, at); range.setEnd(text, at + 1);
            const top = Math.round(range.getBoundingClientRect().top);
            tops[top] = (tops[top] || 0) + 1;
        }
        return Object.values(tops);
    }""")
    assert len(lines) > 3 and 60 <= max(lines) <= 85


@needs_chromium
def test_a_check_is_told_apart_from_other_cells(browser, index):
    page = opened(browser, index, NAMES[0], 1200)
    style = (
        "cells => cells.map(c => [getComputedStyle(c).borderLeftWidth, getComputedStyle(c).backgroundColor])"
    )
    (lesson, check) = page.eval_on_selector_all(".jp-CodeCell", style)
    assert lesson[0] == "0px" and check[0] == "4px" and lesson[1] != check[1]

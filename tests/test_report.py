"""The report of a run: what it says and where its links lead."""

import re
import sys
from importlib.metadata import version

import nbformat
import pytest
from browser import browser, needs_chromium  # noqa: F401  a fixture

from helpers import course
from workshop.report import report
from workshop.runner import Result

WIDE = "rows = retrieve(" + ", ".join(f"feature_{n}=store['feature_{n}']" for n in range(12)) + ")"
TABLE = f"<table><tr>{''.join(f'<td>feature_{n}</td>' for n in range(30))}</tr></table>"
NAMES = ["00_first", "01_second", "02_third"]


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    """The report of two notebooks that passed, one that failed, and one that left no copy."""
    folder, cell = tmp_path_factory.mktemp("a report"), nbformat.v4
    shown = '<style>.k { font-weight: bold }</style><div class="highlight"><pre>def f(): ...</pre></div>'
    source = cell.new_output("display_data", {"text/html": shown, "text/plain": "def f(): ..."})
    frame = cell.new_output("execute_result", {"text/html": TABLE, "text/plain": "table"}, execution_count=1)
    cells = [
        cell.new_markdown_cell(f"# Try it\n\n`{'long_name_' * 12}`"),
        cell.new_markdown_cell(f"| {' | '.join('column_of_a_table' for _ in range(9))} |\n|{'---|' * 9}\n"),
        cell.new_code_cell(WIDE, outputs=[frame, source], execution_count=1),
    ]
    for name in NAMES:
        nbformat.write(cell.new_notebook(cells=cells), folder / f"{name}.ipynb")
    failed = Result(NAMES[2], 1.2, 1, 0, "cell 2: AssertionError: <b>1 < 2</b>")
    lost = Result("03_lost", 1.0, 1, 0, "no executed copy was written")
    return report([Result(NAMES[0], 10.04, 5, 3), Result(NAMES[1], 20.5, 5, 4), failed, lost], folder)


@pytest.mark.system
@needs_chromium
def test_the_report_is_readable_on_a_phone_and_in_the_dark(index, browser):  # noqa: F811
    context = browser.new_context(viewport={"width": 390, "height": 800}, color_scheme="dark")
    page = context.new_page()
    page.goto(index.as_uri(), wait_until="domcontentloaded")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    for outcome in page.locator("td:last-child").all():
        box = outcome.bounding_box()
        assert box["x"] + box["width"] <= 390, f"cut off: {outcome.inner_text()}"
    page.goto(index.with_name(f"{NAMES[0]}.html").as_uri(), wait_until="domcontentloaded")
    look = "element => { const style = getComputedStyle(element); return [style.fontFamily, style.color] }"
    for code in page.locator(".highlight pre").all():
        family, color = code.evaluate(look)
        assert "mono" in family, family
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert max(map(int, re.findall(r"\d+", ground)[:3])) < 80, f"the page is light: {ground}"
    assert min(map(int, re.findall(r"\d+", color)[:3])) > 120, f"dark text: {color}"
    context.close()


@pytest.mark.unit
def test_the_report_says_with_what_and_how_much_and_links_what_is_there(index):
    text = index.read_text()
    assert f"Python {sys.version.split()[0]}, " in text and f"feast {version('feast')}" in text
    assert '<tfoot><tr><td>total<td><td>32.7<td>7<td><b class="bad">2 failed</b>' in text
    assert "AssertionError: &lt;b&gt;1 &lt; 2&lt;/b&gt;" in text
    facts = course.notebooks()["03"]
    minutes = facts.reading + facts.exercises
    assert f'<div class="name">03_lost</div><td>{minutes}<td>1.0' in text and "03_lost.html" not in text
    assert '<a href="00_first.html">00 Start here</a>' in text
    for number, name in enumerate(NAMES):
        page = index.with_name(f"{name}.html").read_text()
        neighbours = {f"{NAMES[n]}.html" for n in (number - 1, number + 1) if 0 <= n < len(NAMES)}
        above, below = re.findall(r'<nav class="run">(.*?)</nav>', page)
        assert set(re.findall(r'href="([^"]+)"', above)) == {"index.html"} | neighbours
        assert re.findall(r'href="([^"]+)"', below) == re.findall(r'href="([^"]+)"', above)

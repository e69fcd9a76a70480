"""The report of a run: what it says and where its links lead."""

import re
import sys
from importlib.metadata import version

import nbformat
import pytest

from workshop.report import report
from workshop.runner import Result

WIDE = "rows = retrieve(" + ", ".join(f"feature_{n}=store['feature_{n}']" for n in range(12)) + ")"
TABLE = f"<table><tr>{''.join(f'<td>feature_{n}</td>' for n in range(30))}</tr></table>"
NAMES = ["00_first", "01_second", "02_third"]


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    """The report of two notebooks that passed, one that failed, and one that left no copy."""
    folder, cell = tmp_path_factory.mktemp("a report"), nbformat.v4
    frame = cell.new_output("execute_result", {"text/html": TABLE, "text/plain": "table"}, execution_count=1)
    cells = [
        cell.new_markdown_cell(f"# Try it\n\n`{'long_name_' * 12}`"),
        cell.new_markdown_cell(f"| {' | '.join('column_of_a_table' for _ in range(9))} |\n|{'---|' * 9}\n"),
        cell.new_code_cell(WIDE, outputs=[frame], execution_count=1),
    ]
    for name in NAMES:
        nbformat.write(cell.new_notebook(cells=cells), folder / f"{name}.ipynb")
    failed = Result(NAMES[2], 1.2, 1, 0, "cell 2: AssertionError: <b>1 < 2</b>")
    lost = Result("03_lost", 1.0, 1, 0, "no executed copy was written")
    return report([Result(NAMES[0], 10.04, 5, 3), Result(NAMES[1], 20.5, 5, 4), failed, lost], folder)


@pytest.mark.unit
def test_the_report_says_with_what_and_how_much_and_links_what_is_there(index):
    text = index.read_text()
    assert f"Python {sys.version.split()[0]}, " in text and f"feast {version('feast')}" in text
    assert '<tfoot><tr><td>total<td>32.7<td>7<td><b class="bad">2 failed</b>' in text
    assert "AssertionError: &lt;b&gt;1 &lt; 2&lt;/b&gt;" in text
    assert "<td>03_lost<td>1.0" in text and "03_lost.html" not in text
    for number, name in enumerate(NAMES):
        page = index.with_name(f"{name}.html").read_text()
        neighbours = {f"{NAMES[n]}.html" for n in (number - 1, number + 1) if 0 <= n < len(NAMES)}
        above, below = re.findall(r'<nav class="run">(.*?)</nav>', page)
        assert set(re.findall(r'href="([^"]+)"', above)) == {"index.html"} | neighbours
        assert re.findall(r'href="([^"]+)"', below) == re.findall(r'href="([^"]+)"', above)

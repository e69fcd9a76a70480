"""The notebooks' contract, workshop/contract.py, notices a mistake in each thing that it promises."""

import json
import shutil

import pytest

from workshop import contract

pytestmark = pytest.mark.unit
NOTEBOOK = contract.NOTEBOOKS / "05_sweep_hyperparameters.ipynb"
PNG = {"image/png": "QUJD"}
# The promise, a part of the cell in which the mistake is made, and what replaces it, or changes the cell.
MISTAKES = [
    ("lacks one sentence that begins", "You will tune", "We tune"),
    ("lacks a table of before", "| Before |", "| Earlier |"),
    ("does not mark this notebook's step", "**tune**", "tune"),
    ("does not start with parameters", "seed = 2025", "seed = 1"),
    ("the closing lacks '## Read on'", "## Read on", "## Links"),
    ("more than 25 lines", "best_again = score(", "\n" * 25 + "best_again = score("),
    ("not the cell's first line", "## Read on\n", "## Read on\n\n### Twice\n"),
    ("a picture without alt text", "## Read on\n", "## Read on\n![](../README.md)"),
    ("a link to nowhere.md", "## Read on\n", "## Read on\n[here](nowhere.md)"),
    ("which only a check has bound", "evaluator = ", "best_again\nevaluator = "),
    (
        "without the tag `check`",
        "# Check: claim-hyperparameter-tuning",
        lambda cell: cell.metadata["tags"].pop(0),
    ),
    ("one tag of its own", "# Check: claim-hyperparameter-tuning", "# Check: check-another"),
    (
        "and no other cell",
        "# Check: claim-hyperparameter-tuning",
        lambda cell: cell.metadata.pop("jupyter"),
    ),
    ("asserts, each time with a message", ', "each trial should be one run"', ""),
    (
        "prints one line, at its end",
        "# Check: claim-hyperparameter-tuning\n",
        "# Check: claim-hyperparameter-tuning\nprint()\n",
    ),
    ("calls unheard_of", "best_again = ", "best_again = unheard_of() or "),
    (
        "not executed in order",
        "# Check: claim-hyperparameter-tuning",
        lambda cell: cell.update(execution_count=None),
    ),
    ("on stderr", "seed = 2025", {"output_type": "stream", "name": "stderr", "text": "hm"}),
    ("alt text has fewer", "seed = 2025", {"output_type": "display_data", "data": PNG, "metadata": {}}),
    (
        "an absolute path: '/home/'",
        "seed = 2025",
        {"output_type": "stream", "name": "stdout", "text": "/home/x"},
    ),
    ("a color code", "seed = 2025", {"output_type": "stream", "name": "stdout", "text": "\x1b[31mred"}),
    (
        "two or three exercises, not 4",
        "## Read on",
        lambda cell: cell.metadata.update(tags=["exercise-check"]),
    ),
    ("the heading of exercise 5.1", "**Five minutes.**", "Five minutes."),
    ("5.1 is not stored as open", "# Exercise 5.1: its check", lambda cell: cell.outputs.clear()),
    ("the answer to exercise 5.1", "def suggest(trial): ...", "def suggest(): pass"),
    ("lack the tag `exercise`", "# Exercise 5.1: your answer", lambda cell: cell.metadata["tags"].clear()),
    ("names each claim", "showed(", "'claim-of-nobody'; showed("),
    ("is not ticked", "showed(", lambda cell: cell.outputs.clear()),
]


@pytest.mark.parametrize("sentence, where, mistake", MISTAKES, ids=[row[0] for row in MISTAKES])
def test_notices_a_broken_promise(sentence, where, mistake, tmp_path):
    copy = shutil.copy(NOTEBOOK, tmp_path / NOTEBOOK.name)
    contract.collapse(copy)
    assert not contract.broken(copy)
    notebook = json.loads(copy.read_text(), object_hook=contract.Node)
    cell = next(cell for cell in notebook.cells if where in cell.source)
    if isinstance(mistake, str):
        cell["source"] = cell.source.replace(where, mistake)
    elif isinstance(mistake, dict):
        cell.outputs.append(mistake)
    else:
        mistake(cell)
    copy.write_text(json.dumps(notebook))
    assert [line for line in contract.broken(copy) if sentence in line]


def test_collapses_checks_alone_and_changes_nothing_else(tmp_path):
    copy = shutil.copy(NOTEBOOK, tmp_path / NOTEBOOK.name)
    before = json.loads(copy.read_text())
    before["cells"][0]["metadata"]["jupyter"] = {"source_hidden": True}
    copy.write_text(json.dumps(before))
    contract.collapse(copy)
    text = copy.read_text()
    after = json.loads(text)
    hidden = [cell for cell in after["cells"] if cell["metadata"].pop("jupyter", None)]
    checks = [cell for cell in after["cells"] if {"check", "showed"} & set(cell["metadata"].get("tags", []))]
    assert hidden == checks != []
    for cell in before["cells"]:
        cell["metadata"].pop("jupyter", None)
    assert after == before
    contract.collapse(copy)
    assert copy.read_text() == text, "a second time changes nothing"


def test_the_command_prints_each_broken_promise_and_exits_1(tmp_path, capsys):
    (tmp_path / NOTEBOOK.name).write_text(NOTEBOOK.read_text().replace("## Read on", "## Links"))
    assert contract.main(["--collapse", str(tmp_path / NOTEBOOK.name)]) == 1
    line = capsys.readouterr().out
    assert line.startswith(f"{NOTEBOOK.name}, cell ") and line.endswith("lacks '## Read on' here\n")

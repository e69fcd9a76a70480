"""The list at a notebook's end is ticked by the checks that passed in its kernel, and by nothing else."""

import nbclient
import pytest
from nbformat.v4 import new_code_cell, new_notebook

pytestmark = pytest.mark.course
WATCH = "from helpers import checks\nchecks.watch()"
LIST = """checks.showed({"One holds.": ["claim-one"], "Both hold.": ["claim-one", "check-two"]})"""
ONE, TWO = "# Check: claim-one\nassert 1", "# Check: check-two\nassert 1"
BROKEN = "# Check: claim-one\nassert not 1, 'no'"
CELLS = {  # what runs: the checks that each of the two sentences then waits for
    (): (["claim-one"], ["claim-one", "check-two"]),
    (ONE,): ([], ["check-two"]),
    (ONE, TWO): ([], []),
    (BROKEN, TWO): (["claim-one"], ["claim-one"]),
    (ONE, BROKEN): (["claim-one"], ["claim-one", "check-two"]),
    (ONE, TWO, WATCH, ONE): ([], ["check-two"]),
}
NOT_RUN = "checks.not_run('claim-one', 'Redis is missing')"
ERRORS = {
    "from helpers.start import begin\nbegin('4')": "Error: there is no notebook '4'; there are 00, 01,",
    "from exercises import exercise\nexercise('1.9')": "Error: there is no exercise '1.9'; there are 0.1,",
    "from helpers.data import DataError\nraise DataError('word ' * 60)": "Error: word word",
    "from exercises.core import NotYet\nraise NotYet('it is odd.')": "Not yet: it is odd.",
}


@pytest.fixture(scope="module")
def outputs() -> list[list]:
    """Of the lists and errors; a cell that fails does not stop the others, as when a reader goes on."""
    sources = [source for cells in CELLS for source in (WATCH, *cells, LIST)]
    sources += [WATCH, ONE, TWO, NOT_RUN, LIST, *ERRORS]
    notebook = new_notebook(cells=[new_code_cell(source) for source in sources])
    nbclient.NotebookClient(notebook, kernel_name="python3", allow_errors=True).execute()
    return [cell.outputs for cell in notebook.cells if cell.source == LIST or cell.source in ERRORS]


def line(sentence: str, waiting: list[str]) -> str:
    return (
        f"- ☐ {sentence} *(not passed in this run: {', '.join(waiting)})*" if waiting else f"- ✓ {sentence}"
    )


def test_a_sentence_is_ticked_when_its_checks_passed_in_this_kernel(outputs):
    for [output], (one, both) in zip(outputs, CELLS.values(), strict=False):
        expected = [line("One holds.", one), line("Both hold.", both)]
        assert output.data["text/markdown"].splitlines() == expected


def test_does_not_tick_what_did_not_run_here(outputs):
    [output] = outputs[len(CELLS)]
    assert output.data["text/markdown"].splitlines() == [
        f"- ○ {sentence} *(not run here: Redis is missing)*" for sentence in ("One holds.", "Both hold.")
    ]


def test_what_a_learner_can_put_right_is_shown_as_a_sentence_without_a_traceback(outputs):
    for [output], shown in zip(outputs[len(CELLS) + 1 :], ERRORS.values(), strict=True):
        assert output.traceback[0].startswith(shown)
        assert max(map(len, output.traceback)) <= 100 and "Traceback" not in "".join(output.traceback)

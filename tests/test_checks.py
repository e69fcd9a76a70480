"""The list at a notebook's end: ticked by the checks that passed in its kernel, and by nothing else."""

import nbclient
import pytest
from nbformat.v4 import new_code_cell, new_notebook

WATCH = "from helpers import checks\nchecks.watch()"
LIST = """checks.showed({"One holds.": ["claim-one"], "Both hold.": ["claim-one", "check-two"]})"""


def executed(*cells: str) -> list[str]:
    """The lines of the list at the end; a cell that fails does not stop the others, as when a reader goes on by hand."""
    notebook = new_notebook(cells=[new_code_cell(source) for source in (WATCH, *cells, LIST)])
    nbclient.NotebookClient(notebook, kernel_name="python3", allow_errors=True).execute()
    return notebook.cells[-1].outputs[0].data["text/markdown"].splitlines()


ONE, TWO, BROKEN = (
    "# Check: claim-one\nassert 1",
    "# Check: check-two\nassert 1",
    "# Check: claim-one\nassert not 1, 'no'",
)
NOT_ONE = "- ☐ One holds. *(not passed in this run: claim-one)*"


@pytest.mark.parametrize(
    "cells, lines",
    {
        "nothing ran": ((), [NOT_ONE, "- ☐ Both hold. *(not passed in this run: claim-one, check-two)*"]),
        "one passed": ((ONE,), ["- ✓ One holds.", "- ☐ Both hold. *(not passed in this run: check-two)*"]),
        "both passed": ((ONE, TWO), ["- ✓ One holds.", "- ✓ Both hold."]),
        "one failed": ((BROKEN, TWO), [NOT_ONE, "- ☐ Both hold. *(not passed in this run: claim-one)*"]),
        "one passed, then failed": (
            (ONE, BROKEN),
            [NOT_ONE, "- ☐ Both hold. *(not passed in this run: claim-one, check-two)*"],
        ),
        "begun again": (
            (ONE, TWO, WATCH, ONE),
            ["- ✓ One holds.", "- ☐ Both hold. *(not passed in this run: check-two)*"],
        ),
    }.values(),
    ids=str,
)
def test_a_sentence_is_ticked_when_its_checks_passed_in_this_kernel(cells, lines):
    assert executed(*cells) == lines


@pytest.mark.parametrize(
    "cell, shown",
    [
        ("from helpers.start import begin\nbegin('4')", "Error: there is no notebook '4'; there are 00, 01,"),
        (
            "from exercises import exercise\nexercise('1.9')",
            "Error: there is no exercise '1.9'; there are 0.1,",
        ),
        ("from helpers.data import DataError\nraise DataError('word ' * 60)", "Error: word word"),
        ("from exercises.core import NotYet\nraise NotYet('it is odd.')", "Not yet: it is odd."),
    ],
)
def test_what_a_learner_can_put_right_is_shown_as_a_sentence_without_a_traceback(cell, shown):
    notebook = new_notebook(cells=[new_code_cell(cell)])
    nbclient.NotebookClient(notebook, kernel_name="python3", allow_errors=True).execute()
    [output] = notebook.cells[0].outputs
    assert output.traceback[0].startswith(shown)
    assert max(map(len, output.traceback)) <= 100 and "Traceback" not in "".join(output.traceback)

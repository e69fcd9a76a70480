"""What a notebook's end lists: the checks that passed in its kernel, and the exercises of a reader."""

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
ELSEWHERE = "checks.not_run('claim-one', 'Docker is missing', '[reliability](../docs/reliability.md)')"
# A reader of notebook 02, whose exercise 2.1 asks for the number 7.
READER = """import helpers.lab
from exercises import core
from helpers import checks
helpers.lab.has_reader, core.record = lambda: True, lambda *what: None
checks.watch("02")
def judge(answer):
    if answer != 7:
        raise core.NotYet(f"`{answer}` is not <7>.")
    return "It is 7."
def exercise(number): return core.Exercise(number, "Find seven", judge, "more", "answer = 7")"""
CHECK = '# Exercise 2.1: its check\nexercise("2.1").check(answer)'
STEPS = {  # what a reader runs, one after the other: what the exercise's check shows then, after its title
    "# Exercise 2.1: your answer\nanswer = ...": "open: 2.1 Find seven. Replace `...`",
    "answer = 7": "solved: 2.1 Find seven. It is 7.",
    "answer = (8": "not yet: 2.1 Find seven. your answer's cell ended with SyntaxError: ",
    "other = 1": "not yet: 2.1 Find seven. your answer's cell ended with SyntaxError: ",
    "answer = 8": "not yet: 2.1 Find seven. `8` is not <7>. (`exercise",
    "answer[0]": "not yet: 2.1 Find seven. `8` is not <7>. (`exercise",  # it only reads the answer
    "answer: int = 1 / 0": "not yet: 2.1 Find seven. your answer's cell ended with ZeroDivisionError: ",
    "def answer(): ...": "open: ",
    "# Exercise 2.1: your answer\nanswer 7": "not yet: 2.1 Find seven. your answer's cell ended",
}
ERRORS = {
    "from helpers.start import begin\nbegin('4')": "Error: there is no notebook '4'; there are 00, 01,",
    "from exercises import exercise\nexercise('1.9')": "Error: there is no exercise '1.9'; there are 0.1,",
    "from helpers.data import DataError\nraise DataError('word ' * 60)": "Error: word word",
    "from exercises.core import NotYet\nraise NotYet('it is odd.')": "Not yet: it is odd.",
}


@pytest.fixture(scope="module")
def reading():
    """What the check of an exercise shows after each of a reader's steps, and the list at the end."""
    sources = [READER]
    for step in STEPS:
        sources += [step, CHECK]
    sources += [LIST, "answer = 7", CHECK, LIST]
    notebook = new_notebook(cells=[new_code_cell(source) for source in sources])
    nbclient.NotebookClient(notebook, kernel_name="python3", allow_errors=True).execute()
    checked = [cell for cell in notebook.cells if cell.source == CHECK]
    return [cell.outputs for cell in checked], [
        cell.outputs for cell in notebook.cells if cell.source == LIST
    ]


def test_shows_a_reader_a_card_for_the_answer_that_the_cell_holds_now(reading):
    for [card], (step, shown) in zip(reading[0], STEPS.items(), strict=False):
        assert card.output_type == "display_data", f"{step}: a card stands in place of an error"
        assert card.data["text/plain"].startswith(shown), step
    [wrong] = reading[0][4]
    html = wrong.data["text/html"]
    assert "✗</span> Not yet: 2.1 Find seven</b><br><code>8</code> is not &lt;7&gt;." in html
    assert "white-space:normal" in html and "overflow-wrap:anywhere" in html


def test_the_list_at_the_end_counts_a_readers_exercises_and_links_the_unsolved(reading):
    before, after = (output.data["text/markdown"].split("\n\n", 1)[1] for [output] in reading[1])
    assert before.startswith("**0 of 3 exercises solved**\n\n- ✗ [Exercise 2.1: ")
    assert after.startswith("**1 of 3 exercises solved**\n\n- ✓ Exercise 2.1: ")
    second = after.splitlines()[3]
    assert second.startswith("- ○ [Exercise 2.2: ") and "](#Exercise-2.2:-" in second and "(open)" in second


@pytest.fixture(scope="module")
def outputs() -> list[list]:
    """Of the lists and errors; a cell that fails does not stop the others, as when a reader goes on."""
    sources = [source for cells in CELLS for source in (WATCH, *cells, LIST)]
    sources += [WATCH, ONE, TWO, NOT_RUN, LIST, WATCH, ONE, TWO, ELSEWHERE, LIST, *ERRORS]
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


def test_links_the_place_that_shows_what_did_not_run_here(outputs):
    [output] = outputs[len(CELLS) + 1]
    why = "*(not run here: Docker is missing; shown in [reliability](../docs/reliability.md))*"
    assert output.data["text/markdown"].splitlines() == [
        f"- ↗ {sentence} {why}" for sentence in ("One holds.", "Both hold.")
    ]


def test_what_a_learner_can_put_right_is_shown_as_a_sentence_without_a_traceback(outputs):
    for [output], shown in zip(outputs[len(CELLS) + 2 :], ERRORS.values(), strict=True):
        assert output.traceback[0].startswith(shown)
        assert max(map(len, output.traceback)) <= 100 and "Traceback" not in "".join(output.traceback)

"""The exercises: what a learner may answer, and what the exercise says to it.

The answers are in exercises/answers_NN.py; they are tried in the notebook's own kernel, at the exercise's place (faults/trial.py).
`FAULTS_HOME=/some/folder pytest tests/test_exercises.py -k "2.1"` tries them again and again, in a home that stays.
"""

import contextlib
import json
import re

import answers
import harness
import nbformat
import pytest

from exercises import core, exercise
from helpers.workspace import WorkshopError, Workspace, configure
from workshop import progress, runner

NOTEBOOKS = {path.name[:2]: path for path in runner.choose()}
EXERCISES = [(notebook, number) for notebook, path in NOTEBOOKS.items() for number in harness.exercises(path)]


@pytest.mark.parametrize(("notebook", "number"), EXERCISES, ids=lambda value: str(value))
def test_right_answers_are_taken_and_each_wrong_one_gets_its_hint(notebook, number, place):
    wrong = harness.once(NOTEBOOKS[notebook], place).wrong_answers(number)
    assert not wrong, wrong


@pytest.mark.parametrize(("notebook", "number"), EXERCISES, ids=lambda value: str(value))
def test_an_unanswered_exercise_says_so_and_stays_green(notebook, number):
    cells = nbformat.read(NOTEBOOKS[notebook], as_version=4).cells
    [check] = [cell for cell in cells if f'exercise("{number}").check' in cell.source]
    assert [output.text for output in check.outputs] == [f"open: {number}, {exercise(number).title}\n"]


@pytest.mark.parametrize(("notebook", "number"), EXERCISES, ids=lambda value: str(value))
def test_an_exercise_has_a_solution_in_another_style_and_two_mistakes_with_hints_of_their_own(
    notebook, number
):
    given = answers.load(notebook)[number]
    assert len(given.right) >= 1
    assert len(given.wrong) >= 2


@pytest.mark.parametrize("notebook", NOTEBOOKS)
def test_a_notebook_has_two_or_three_exercises_in_order(notebook):
    numbers = harness.exercises(NOTEBOOKS[notebook])
    assert numbers == [f"{int(notebook)}.{n}" for n in range(1, len(numbers) + 1)] and 2 <= len(numbers) <= 3
    assert numbers == [found.number for found in core.exercises_of(notebook)] == list(answers.load(notebook))


@pytest.mark.parametrize(("notebook", "number"), EXERCISES, ids=lambda value: str(value))
def test_an_exercise_is_a_heading_with_its_minutes_then_a_cell_to_answer_in_then_its_check(notebook, number):
    cells = nbformat.read(NOTEBOOKS[notebook], as_version=4).cells
    place = next(k for k, cell in enumerate(cells) if f'exercise("{number}").check' in cell.source)
    text, answer, check = cells[place - 2 : place + 1]
    minutes = "two|three|four|five|six|seven|eight|nine"
    assert re.match(
        rf"### Exercise {number}: {exercise(number).title}\n\n\*\*({minutes}) minutes\.\*\* ",
        text.source,
        re.I,
    )
    assert answer.metadata.tags == ["exercise"] and check.metadata.tags == ["exercise-check"]
    assert answer.source.startswith(f"# Exercise {number}: your answer\n") and "..." in answer.source
    more = f'# Exercise {number}: its check. For more: exercise("{number}").hint() or exercise("{number}").solution()'
    assert re.fullmatch(rf'{re.escape(more)}\nexercise\("{number}"\)\.check\([\w, ]+\)', check.source)


@pytest.mark.parametrize("number", core.every())
def test_no_hint_gives_the_solution_away(number):
    found = exercise(number)
    code = [
        line.partition(" = ")[2]
        for line in found.worked.splitlines()
        if " = " in line and not line.startswith("#")
    ]
    assert [part for part in code if len(part) > 12 and part in found.more] == []
    assert len(found.more) > 20 and len(found.worked.strip().splitlines()) >= 1


def even(number):
    with core.attempt("`double` failed"):
        number = number() if callable(number) else number
    if number % 2:
        raise core.NotYet(f"{number} is odd.")
    return f"{number} is even."


@pytest.fixture
def one(home, monkeypatch) -> core.Exercise:
    """An exercise in a home of the test's own."""
    configure(home)
    found = core.Exercise(
        "9.1", "Find an even number", even, more="Two of it are always even.", worked="number = 4"
    )
    monkeypatch.setattr(
        core, "every", lambda: {"9.1": found, "9.2": core.Exercise("9.2", "Rest", even, "", "")}
    )
    return found


def recorded(workspace: Workspace) -> list[str]:
    path = workspace.path / core.RECORD
    return [json.loads(line)["what"] for line in path.read_text().splitlines()] if path.exists() else []


def not_written_yet(): ...


def written_already():
    return 2


@pytest.mark.parametrize("answer", [..., not_written_yet], ids=["dots", "a function of dots"])
def test_an_open_exercise_is_no_error_and_not_recorded(one, home, capsys, answer):
    one.check(answer)
    assert capsys.readouterr().out == "open: 9.1, Find an even number\n"
    assert recorded(home) == []


def test_each_answer_hint_and_solution_is_recorded(one, home, capsys):
    with pytest.raises(core.NotYet, match=r"^3 is odd\. \(`exercise\(\"9\.1\"\)\.hint\(\)` says more\.\)$"):
        one.check(3)
    one.hint()
    assert one.solution().data == "number = 4"
    one.check(written_already)
    assert capsys.readouterr().out == "Two of it are always even.\nsolved: 9.1. 2 is even.\n"
    assert recorded(home) == ["wrong", "hint", "solution", "solved"]


def test_what_the_learners_code_raises_is_a_wrong_answer_in_one_line(one):
    def broken():
        raise KeyError("two\nlines")

    with pytest.raises(core.NotYet, match=r"^`double` failed: KeyError: 'two\\nlines' \(") as caught:
        one.check(broken)
    assert caught.value.__cause__ is None
    shown = caught.value._render_traceback_()
    assert " ".join(shown) == f"Not yet: {caught.value}" and max(map(len, shown)) <= 100


def test_an_error_of_the_exercise_itself_is_no_wrong_answer(one, home):
    with pytest.raises(TypeError):
        one.check("x")
    assert recorded(home) == []


def test_a_number_that_no_exercise_has_is_named(one):
    with pytest.raises(WorkshopError, match=r"there is no exercise '1\.9'; there are 9\.1, 9\.2\."):
        exercise("1.9")


def test_a_number_without_quotes_is_understood(one):
    assert exercise(9.1) is one


def test_a_record_that_cannot_be_written_stops_nobody(one, home, capsys):
    (home.path / core.RECORD).mkdir()
    one.check(2)
    said = capsys.readouterr().out
    assert "not recorded for `make progress`: Is a directory" in said and "solved: 9.1. 2 is even." in said


def test_what_an_exercise_does_in_its_copy_of_mlflows_database_stays_there(one, home):
    from mlflow import MlflowClient

    own = MlflowClient(home.tracking_uri)
    own.create_registered_model("kept")
    with core.scratch_tracking() as client:
        client.create_registered_model("gone")
        assert {model.name for model in client.search_registered_models()} == {"kept", "gone"}
    assert [model.name for model in own.search_registered_models()] == ["kept"]


def test_progress_shows_open_and_solved_and_how(one, home, capsys):
    for answer in (3, 5, 2, 7):  # who was right once has solved it, whatever he tries later
        with pytest.raises(core.NotYet) if answer % 2 else contextlib.nullcontext():
            one.check(answer)
    one.hint()
    capsys.readouterr()
    assert progress.mine(home) == 0
    said = capsys.readouterr().out
    assert re.search(r"9\.1  Find an even number +solved +2 wrong before, hint\n", said)
    assert re.search(r"9\.2  Rest +open *\n", said)
    assert "1 of 2 solved" in said and str(home.path / core.RECORD) in said


def test_an_instructor_sees_one_row_a_participant(one, tmp_path, capsys):
    lines = {"anna": ["wrong", "solved"], "ben, table 2": ["wrong", "solution"], "cleo": []}
    for name, whats in lines.items():
        text = "".join(
            json.dumps({"exercise": "9.1", "what": what, "at": "2025-01-01"}) + "\n" for what in whats
        )
        (tmp_path / f"{name}.jsonl").write_text(text)
    assert progress.room(tmp_path) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert (
        ["anna", "+", ".", "1"] in rows
        and ["ben,", "table", "2", "x", ".", "0"] in rows
        and ["cleo", ".", ".", "0"] in rows
    )


@pytest.mark.parametrize("text", ["not JSON\n", '{"exercise": "9.1"}\n', "[]\n"])
def test_a_damaged_line_of_a_record_is_named_and_the_others_count(one, home, capsys, text):
    one.check(2)
    with (home.path / core.RECORD).open("a") as file:
        file.write(text)
    assert progress.mine(home) == 0
    said = capsys.readouterr()
    assert "1 of 2 solved" in said.out and f"{core.RECORD}: line 2 cannot be read" in said.err


def test_an_empty_folder_of_records_is_an_error(tmp_path):
    with pytest.raises(WorkshopError, match=r"no record \(\*\.jsonl\) in"):
        progress.room(tmp_path)

"""The exercises: what a learner may answer, and what the exercise says to it.

The answers are in exercises/answers_NN.py; they are tried in the notebook's own kernel (faults/trial.py).
`FAULTS_HOME=/some/folder pytest tests/test_exercises.py -k "2.1"` tries them in a home that stays.
"""

import contextlib
import json
import re

import harness
import pytest
from faults import answers_of

from exercises import core
from helpers.workspace import WorkshopError, Workspace, configure
from workshop import progress, runner

COURSE = [pytest.mark.course, pytest.mark.xdist_group("course")]
NOTEBOOKS = {path.name[:2]: path for path in runner.choose()}
EXERCISES = [
    pytest.param(notebook, number, id=number, marks=COURSE)
    for notebook, path in NOTEBOOKS.items()
    for number in harness.exercises(path)
]


@pytest.mark.parametrize(("notebook", "number"), EXERCISES)
def test_right_answers_are_taken_and_each_wrong_one_gets_its_hint(notebook, number, place):
    wrong = harness.once(NOTEBOOKS[notebook], place).wrong(number)
    assert not wrong, wrong


@pytest.mark.unit
@pytest.mark.parametrize("notebook", NOTEBOOKS)
def test_each_exercise_has_another_solution_two_mistakes_and_a_hint_that_keeps_the_secret(notebook):
    given = answers_of(notebook)
    exercises = core.exercises_of(notebook)
    assert harness.exercises(NOTEBOOKS[notebook]) == [found.number for found in exercises] == list(given)
    for found in exercises:
        assert len(given[found.number].right) >= 1 and len(given[found.number].wrong) >= 2
        code = [line.partition(" = ")[2] for line in found.worked.splitlines() if not line.startswith("#")]
        assert [part for part in code if len(part) > 12 and part in found.more] == []
        assert len(found.more) > 20


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
    more, worked = "Two of it are always even.", "number = 4"
    found = core.Exercise("9.1", "Find an even number", even, more, worked)
    rest = core.Exercise("9.2", "Rest", even, "", "")
    monkeypatch.setattr(core, "every", lambda: {"9.1": found, "9.2": rest})
    return found


def recorded(workspace: Workspace) -> list[str]:
    path = workspace.path / core.RECORD
    return [json.loads(line)["what"] for line in path.read_text().splitlines()] if path.exists() else []


def not_written_yet(): ...


@pytest.mark.unit
def test_an_open_exercise_is_no_error_and_not_recorded(one, home, capsys):
    one.check(...)
    one.check(not_written_yet)
    assert capsys.readouterr().out == "open: 9.1, Find an even number\n" * 2
    assert recorded(home) == []


@pytest.mark.unit
def test_records_each_answer_hint_and_solution(one, home, capsys):
    with pytest.raises(core.NotYet, match=r"^3 is odd\. \(`exercise\(\"9\.1\"\)\.hint\(\)` says more\.\)$"):
        one.check(3)
    one.hint()
    assert one.solution().data == "number = 4"
    one.check(lambda: 2)
    assert capsys.readouterr().out == "Two of it are always even.\nsolved: 9.1. 2 is even.\n"
    assert recorded(home) == ["wrong", "hint", "solution", "solved"]
    (home.path / core.RECORD).unlink()
    (home.path / core.RECORD).mkdir()  # now it cannot be written, which stops nobody
    one.check(2)
    assert "not recorded for `make progress`: Is a directory" in capsys.readouterr().out


@pytest.mark.unit
def test_an_error_in_the_learners_code_is_a_wrong_answer_and_one_in_the_judge_is_not(one, home):
    def broken():
        raise KeyError("two\nlines")

    with pytest.raises(core.NotYet, match=r"^`double` failed: KeyError: 'two\\nlines' \(") as caught:
        one.check(broken)
    assert caught.value.__cause__ is None
    with pytest.raises(TypeError):
        one.check("x")
    assert recorded(home) == ["wrong"]


@pytest.mark.unit
def test_progress_shows_open_and_solved_and_names_a_damaged_line(one, home, capsys):
    for answer in (3, 5, 2, 7):  # who was right once has solved it, whatever comes later
        with pytest.raises(core.NotYet) if answer % 2 else contextlib.nullcontext():
            one.check(answer)
    one.hint()
    with (home.path / core.RECORD).open("a") as file:
        file.write('not JSON\n{"exercise": "9.1"}\n[]\n')
    capsys.readouterr()
    assert progress.mine(home) == 0
    said = capsys.readouterr()
    assert re.search(r"9\.1  Find an even number +solved +2 wrong before, hint\n", said.out)
    assert re.search(r"9\.2  Rest +open *\n", said.out)
    assert "1 of 2 solved" in said.out and str(home.path / core.RECORD) in said.out
    assert re.findall(r"line (\d) cannot be read", said.err) == ["6", "7", "8"]


@pytest.mark.unit
def test_an_instructor_sees_one_row_a_participant(one, tmp_path, capsys):
    with pytest.raises(WorkshopError, match=r"no record \(\*\.jsonl\) in"):
        progress.room(tmp_path)
    for name, whats in {
        "anna": ["wrong", "solved"],
        "ben, table 2": ["wrong", "solution"],
        "cleo": [],
    }.items():
        lines = [json.dumps({"exercise": "9.1", "what": what, "at": "2025-01-01"}) + "\n" for what in whats]
        (tmp_path / f"{name}.jsonl").write_text("".join(lines))
    assert progress.room(tmp_path) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    expected = [["anna", "+", ".", "1"], ["ben,", "table", "2", "x", ".", "0"], ["cleo", ".", ".", "0"]]
    assert [row for row in rows if row in expected] == expected

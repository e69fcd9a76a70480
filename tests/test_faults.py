"""Each check of the notebooks notices what is planted before it (faults/faults.py), and so does the harness.

`FAULTS_HOME=/some/folder pytest tests/test_faults.py -k 02` tries one notebook's faults in a home that stays.
"""

from types import SimpleNamespace

import harness
import nbformat
import pytest
import trial
from faults import FOLDER, Fault, load
from nbformat.v4 import new_code_cell, new_notebook, new_output

from workshop import runner

COURSE = [pytest.mark.course, pytest.mark.xdist_group("course")]
NOTEBOOKS = {path.name[:2]: path for path in runner.choose()}
CHECKS = [
    pytest.param(number, check, id=f"{number}-{check}", marks=COURSE)
    for number, path in NOTEBOOKS.items()
    for check in harness.checks(path)
]


@pytest.mark.parametrize(("number", "check"), CHECKS)
def test_a_check_passes_and_notices_each_of_its_faults(number, check, place):
    wrong = harness.once(NOTEBOOKS[number], place).wrong(check)
    assert not wrong, wrong


@pytest.mark.unit
def test_each_fault_belongs_to_a_check():
    assert {path.stem.removeprefix("faults_") for path in FOLDER.glob("faults_*.py")} == set(NOTEBOOKS)
    for number, path in NOTEBOOKS.items():
        assert {(fault.notebook, fault.tag) for fault in load(number)} == {
            (number, tag) for tag in harness.checks(path)
        }


# From here on the harness itself.

CELL = """
from types import SimpleNamespace
import pandas as pd
numbers = pd.Series([1, 2, 3])
lists = pd.DataFrame({"of": [[1], [2], "x"]})
answer = SimpleNamespace(body={"score": 0.5})
def factor():
    return 1
def total():
    return factor() * numbers.sum()
calls = {"total": total}
"""
CHECK = """
found = calls["total"]()
assert found == 6, f"the total is {found}"
assert lists.of[0] == [1], "a list in a table changed"
assert answer.body["score"] == 0.5, "the score differs"
"""


@pytest.mark.unit
@pytest.mark.parametrize(
    "change, says, wrong",
    [
        ("numbers.iloc[0] += 1", "the total is 7", ""),
        ("ns['factor'] = lambda: 10", "the total is 60", ""),
        ("lists.of[0].append(1)", "a list in a table changed", ""),
        ("answer.body['score'] = 1.0", "the score differs", ""),
        ("pass", "the total is 7", "passes: it does not notice the fault"),
        ("numbers.iloc[1] += 1", "the total is 8", "fails, but does not say 'the total is 8'"),
        ("del ns['calls']", "the total", "raises another error than AssertionError"),
        ("ns['no such name'].sort()", "the total", "was not tried, because the fault itself failed"),
    ],
)
def test_tells_a_fault_that_is_noticed_from_one_that_is_not(change, says, wrong):
    real: dict = {"__name__": "__main__"}
    exec(CELL, real)
    planted = Fault("00", "claim-total", says, lambda ns: exec(change, {**ns, "ns": ns}))
    code = compile(CHECK, "the check", "exec")
    assert trial._try(code, trial.namespace(real), planted).partition(":\n")[0] == wrong
    assert trial._outcome(code, real, None) == ""  # nothing reached the notebook


@pytest.mark.unit
@pytest.mark.parametrize(
    "answer, says, wrong",
    [
        ("number = 2", None, ""),
        ("number = 3", "3 is odd", ""),
        ("number = 3", None, "is right, and was refused: 3 is odd"),
        ("number = 2", "odd", "is wrong, and was taken: solved: 9.1. Even."),
        ("number = 3", "even", "is refused, but not with 'even': 3 is odd"),
        ("number = 'x'", "odd", "raises another error than NotYet:"),
    ],
)
def test_tells_a_right_answer_from_a_wrong_one(answer, says, wrong):
    shell = SimpleNamespace(user_ns={"NotYet": type("NotYet", (Exception,), {})}, transform_cell=str)
    check = "if number % 2:\n    raise NotYet(f'{number} is odd')\nprint('solved: 9.1. Even.')"
    assert trial._answer(shell, "9.1", answer, check, says).partition("\n")[0] == wrong


@pytest.mark.course
def test_names_a_fault_that_leaks_a_check_that_was_not_reached_and_one_without_a_fault(tmp_path, home):
    (tmp_path / "faults_00.py").write_text(
        "from faults import fault\n"
        "@fault('00', 'claim-digits', says='digits changed')\n"
        "def a_library_for_ever(ns):\n    ns['string'].digits = '01'\n"
    )
    sources = {
        "import string": [],
        "assert string": ["check", "claim-without-a-fault"],
        "assert string.digits == '0123456789', 'digits changed'": ["check", "claim-digits"],
        "assert True": ["check", "claim-not-reached"],
    }
    cells = [new_code_cell(source, metadata={"tags": tags}) for source, tags in sources.items()]
    nbformat.write(new_notebook(cells=cells), tmp_path / "00_toy.ipynb")
    execution = harness.execute(tmp_path / "00_toy.ipynb", tmp_path / "out.ipynb", home, tmp_path)
    assert "digits changed" in execution.result.failure
    assert "no fault is planted" in execution.wrong("claim-without-a-fault")
    assert "a fault changed what is not copied" in execution.wrong("claim-digits")
    assert "stopped before it" in execution.wrong("claim-not-reached")


def picture(alt, data):
    return new_output("display_data", data={"image/png": data}, metadata={"image/png": {"alt": alt}})


@pytest.mark.unit
@pytest.mark.parametrize(
    "old, new, same",
    [
        ("AUC 0.7611 of 3,006", "AUC 0.7612 of 3,006", True),
        ("C  0.0015945492966073266", "C 0.0015945492966073264", True),
        ("7.104e-05", "7.105e-05", True),
        ("AUC 0.7611", "AUC 0.7613", False),
        ("AUC 0.7611 of 3,006", "AUC 0.7611 of 3,007", False),
        ("MLflow 3.17", "MLflow 3.18", False),
        ("0.761 better", "0.761 worse", False),
    ],
)
def test_outputs_may_differ_in_the_last_digit_between_machines(tmp_path, old, new, same):
    for name, text in (("old", old), ("new", new)):
        cell = new_code_cell("print(text)", outputs=[new_output("stream", name="stdout", text=text)])
        nbformat.write(new_notebook(cells=[cell]), tmp_path / f"{name}.ipynb")
    assert (harness.differences(tmp_path / "old.ipynb", tmp_path / "new.ipynb") == []) == same


@pytest.mark.unit
@pytest.mark.parametrize(
    "new, shown",
    [
        ([picture("bars", "WFla")], None),  # pixels differ between machines
        ([picture("a line", "QUJD")], "+a line"),
        ([], "-bars"),
        ([picture("bars", "QUJD"), new_output("stream", name="stdout", text="two\n")], "+two\\n"),
    ],
)
def test_shows_an_output_that_is_not_the_committed_one(tmp_path, new, shown):
    def compared(tags):
        for name, outputs in (("old", [picture("bars", "QUJD")]), ("new", new)):
            cell = new_code_cell("print('one')", outputs=outputs, metadata={"tags": tags})
            nbformat.write(new_notebook(cells=[cell]), tmp_path / f"{name}.ipynb")
        return harness.differences(tmp_path / "old.ipynb", tmp_path / "new.ipynb")

    assert [shown in found.splitlines() for found in compared([])] == ([True] if shown else [])
    assert compared(["nbval-ignore-output"]) == []

"""Each check of the notebooks notices what is planted before it (faults/faults.py says how), and the harness that tries this works.

`FAULTS_HOME=/some/folder pytest tests/test_faults.py -k 02` tries the faults of one notebook, again and again, in a home that stays.
"""

import re
import textwrap
from pathlib import Path

import harness
import nbformat
import pytest
from faults import FOLDER, fault, load

from helpers.workspace import Workspace
from workshop import runner

NOTEBOOKS = {path.name[:2]: path for path in runner.choose()}
CHECKS = [(number, check) for number, path in NOTEBOOKS.items() for check in harness.checks(path)]


@pytest.mark.parametrize(("number", "check"), CHECKS, ids=lambda value: value.replace(" ", "-"))
def test_a_check_passes_and_notices_each_of_its_faults(number, check, place):
    wrong = harness.once(NOTEBOOKS[number], place).wrong(check)
    assert not wrong, wrong


@pytest.mark.parametrize("number", NOTEBOOKS)
def test_each_check_has_a_tag_that_no_other_has(number):
    assert harness.not_named(NOTEBOOKS[number]) == []


@pytest.mark.parametrize("number", NOTEBOOKS)
def test_each_fault_belongs_to_a_check(number):
    assert harness.homeless(NOTEBOOKS[number]) == []


def test_each_file_of_faults_belongs_to_a_notebook():
    assert {path.stem.removeprefix("faults_") for path in FOLDER.glob("faults_*.py")} <= set(NOTEBOOKS)


# From here on the harness itself, on notebooks made for it.

TOY = [
    (
        "import json\nfrom types import SimpleNamespace\nimport pandas as pd\n"
        "numbers = pd.Series([1, 2, 3])\nlists = pd.DataFrame({'of': [[1], [2], 'x']})\nlimits = {'low': [0], 'high': 9}\n"
        "answer = SimpleNamespace(status=200, body={'score': 0.5})\nsame = numbers\n"
        "class Gate:\n    opened = False\ngate = Gate()\n"
        "def factor():\n    return 1\ndef total(of=None):\n    return factor() * numbers.sum()\n"
        "def keep(value):\n    def get():\n        return value\n    return get\n"
        "kept = keep(numbers)\ncalls = {'total': total}",
        [],
    ),
    (
        "found = calls['total']()\nprint('the toy speaks')\n"
        "assert same is numbers, 'the two names are no longer one'\nassert kept() is numbers\n"
        "assert found == 6, f'the total is {found}'\n"
        "assert limits['low'] == [0], 'the lowest limit moved'\nassert lists.of[0] == [1], 'a list in a table changed'\n"
        "assert answer.body['score'] == 0.5, 'the score differs'\nassert not gate.opened, 'the gate is open'\n"
        "assert json.dumps(1) == '1', 'json writes something else'",
        ["check", "claim-total", "claim-second-tag"],
    ),
    ("assert limits['high'] < 10, 'the limit is too high'\nprint('below')", ["check", "check-limit"]),
    ("assert limits", ["check", "claim-without-a-fault"]),
    (
        "print(numbers.tolist(), limits, answer, lists.of[0], json.dumps(1), gate.opened, found, total())\n"
        "print(sorted(name for name in globals() if name in ('fault', 'kernel', 'sys', 'tests', 'given')))",
        [],
    ),
]
FAULTS = """
    import json
    from unittest import mock

    from faults import fault

    @fault("00", "claim-total", says="the total is 7")
    def a_value(ns):
        ns["numbers"].iloc[0] += 1

    @fault("00", "claim-total", says="the total is 60")
    def a_function_that_another_calls(ns):
        ns["factor"] = lambda: 10

    @fault("00", "claim-second-tag", says="the total is 0")
    def another_value(ns):
        ns["numbers"] *= float("nan")
        ns["same"] = ns["numbers"]
        ns["kept"] = lambda: ns["numbers"]

    @fault("00", "claim-total", says="the lowest limit moved")
    def a_list_in_a_dict(ns):
        ns["limits"]["low"].append(1)

    @fault("00", "claim-total", says="a list in a table changed")
    def a_list_in_a_table(ns):
        ns["lists"].of[0].append(1)

    @fault("00", "claim-total", says="the score differs")
    def a_dict_in_a_record(ns):
        ns["answer"].body["score"] = 1.0

    @fault("00", "claim-total", says="the gate is open")
    def an_object_of_the_notebooks_own_class(ns):
        ns["gate"].opened = True

    @fault("00", "claim-total", says="json writes something else")
    def a_library_for_a_while(ns):
        with mock.patch.object(json, "dumps", return_value="2"):
            yield

    @fault("00", "claim-total", says="the total is 6")
    @fault("00", "check-limit", says="too high")
    def nothing(ns):
        pass

    @fault("00", "claim-total", says="the total is 8")
    def a_fault_with_another_message(ns):
        ns["numbers"].iloc[0] += 1

    @fault("00", "claim-total", says="the total")
    def a_name_that_is_gone(ns):
        del ns["calls"]

    @fault("00", "claim-total", says="the total")
    def a_fault_that_breaks(ns):
        ns["no such name"].sort()

    @fault("00", "claim-total", says="the total is 7")
    def a_fault_that_does_not_restore(ns):
        ns["numbers"].iloc[0] += 1
        yield
        raise OSError("the disk is full")

    @fault("00", "claim-total", says="the total is 7")
    def a_fault_that_yields_twice(ns):
        ns["numbers"].iloc[0] += 1
        yield
        yield

    @fault("00", "claim-of-nobody", says="anything")
    def a_fault_without_a_check(ns):
        pass

    @fault("03", "claim-total", says="anything")
    def a_fault_of_another_notebook(ns):
        pass
"""


def toy(folder: Path, cells: list[tuple[str, list[str]]], faults: str = "") -> Path:
    """Write a notebook 00 and its faults."""
    folder.mkdir(exist_ok=True)
    cells = [nbformat.v4.new_code_cell(source, metadata={"tags": tags}) for source, tags in cells]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), folder / "00_toy.ipynb")
    if faults:
        (folder / "faults_00.py").write_text(textwrap.dedent(faults))
    return folder / "00_toy.ipynb"


def execute(notebook: Path, home: Workspace) -> harness.Execution:
    return harness.execute(notebook, notebook.with_name("out.ipynb"), home, notebook.parent)


@pytest.fixture(scope="module")
def toy_run(tmp_path_factory, applied) -> harness.Execution:
    return execute(toy(tmp_path_factory.mktemp("toy") / "toy", TOY, FAULTS), applied)


def printed(execution: harness.Execution, cell: int) -> str:
    return "".join(output.text for output in nbformat.read(execution.copy, as_version=4).cells[cell].outputs)


NOTICED = [
    "a_value",
    "a_function_that_another_calls",
    "another_value",
    "a_list_in_a_dict",
    "a_list_in_a_table",
    "a_dict_in_a_record",
    "an_object_of_the_notebooks_own_class",
    "a_library_for_a_while",
]


def test_a_fault_that_the_check_notices_leaves_nothing_to_say(toy_run):
    assert not toy_run.result.failure
    tried = dict(toy_run.tried["claim-total"])
    assert {name: tried[name] for name in [None, *NOTICED]} == dict.fromkeys([None, *NOTICED], "")


@pytest.mark.parametrize(
    ("name", "says"),
    {
        "nothing": "the check passes: it does not notice the fault",
        "a_fault_with_another_message": r"does not say 'the total is 8':(?s:.*)AssertionError: the total is 7",
        "a_name_that_is_gone": r"another error than AssertionError:(?s:.*)found = calls(?s:.*)NameError: name 'calls'",
        "a_fault_that_breaks": r"was not tried, because the fault itself failed:(?s:.*)KeyError: 'no such name'",
        "a_fault_that_does_not_restore": r"the fault failed to restore:(?s:.*)OSError: the disk is full",
        "a_fault_that_yields_twice": r"the fault failed to restore:(?s:.*)yields once",
    }.items(),
    ids=lambda value: value.split(":")[0] if "_" in value or value == "nothing" else "",
)
def test_a_fault_that_shows_nothing_is_named_with_notebook_check_and_reason(toy_run, name, says):
    wrong = toy_run.wrong("claim-total").split("\n\n00_toy, ")
    (line,) = [line for line in wrong if line.removeprefix("00_toy, ").startswith(f"claim-total, {name}: ")]
    assert re.search(says, line)
    assert len(wrong) == len(toy_run.tried["claim-total"]) - 1 - len(NOTICED)


def test_a_fault_may_be_planted_for_several_checks(toy_run):
    assert [name for name, _ in toy_run.tried["check-limit"]] == [None, "nothing"]
    assert (
        toy_run.wrong("check-limit")
        == "00_toy, check-limit, nothing: the check passes: it does not notice the fault"
    )


def test_a_check_without_a_fault_is_named(toy_run):
    assert "claim-without-a-fault: no fault is planted" in toy_run.wrong("claim-without-a-fault")


def test_nothing_of_the_trials_is_left_in_the_notebook(toy_run):
    assert printed(toy_run, 1) == "the toy speaks\n"
    values, names = printed(toy_run, 4).splitlines()
    assert values == (
        "[1, 2, 3] {'low': [0], 'high': 9} namespace(status=200, body={'score': 0.5}) [1] 1 False 6 6"
    )
    assert names == "[]"
    counts = [cell.execution_count for cell in nbformat.read(toy_run.copy, as_version=4).cells]
    assert counts == [1, 2, 3, 4, 5]


def test_a_fault_without_a_check_and_one_of_another_notebook_are_named(toy_run):
    assert harness.homeless(toy_run.notebook, toy_run.notebook.parent) == [
        "a_fault_without_a_check: no check of 00 has the tag claim-of-nobody",
        "a_fault_of_another_notebook: it is planted in 03, and stands in faults_00.py",
    ]


def test_a_fault_that_reaches_the_notebook_is_told_apart_from_a_check_that_fails(tmp_path, home):
    cells = [
        ("import string", []),
        ("assert string.digits == '0123456789', 'digits changed'", ["check", "claim-digits"]),
    ]
    faults = """
        from faults import fault
        @fault("00", "claim-digits", says="digits changed")
        def a_library_for_ever(ns):
            ns["string"].digits = "01"
    """
    leaking = execute(toy(tmp_path / "leak", cells, faults), home)
    assert "digits changed" in leaking.result.failure
    assert "a fault changed what is not copied" in leaking.wrong("claim-digits")
    failing = execute(
        toy(tmp_path / "fail", [("import string; string.digits = ''", []), cells[1]], faults), home
    )
    assert "digits changed" in failing.result.failure
    assert "no fault: the check fails in a copy of the namespace" in failing.wrong("claim-digits")
    assert "a fault changed" not in failing.wrong("claim-digits")


def test_a_check_that_was_not_reached_is_not_taken_for_passed(tmp_path, home):
    cells = [("raise OSError('no room')", []), ("assert True", ["check", "claim-nothing"])]
    stopped = execute(toy(tmp_path / "toy", cells), home)
    assert "stopped before this check" in stopped.wrong("claim-nothing")
    assert "no room" in stopped.wrong("claim-nothing")


def test_warnings_and_random_numbers_are_as_without_trials(tmp_path, home):
    cells = [
        ("import random, warnings\nimport numpy as np\nrandom.seed(1)\nnp.random.seed(1)\ndrawn = [3]", []),
        (
            "drawn.append((random.random(), np.random.rand()))\nwarnings.warn('look here')\nassert drawn[0] == 3, 'not 3'",
            ["check", "check-drawn"],
        ),
        ("print(len(drawn), drawn[1])", []),
    ]
    faults = """
        from faults import fault
        @fault("00", "check-drawn", says="not 3")
        def another_number(ns):
            ns["drawn"][0] = 4
    """
    with_trials = execute(toy(tmp_path / "with", cells, faults), home)
    without = execute(toy(tmp_path / "without", cells), home)
    assert with_trials.wrong("check-drawn") == "" and without.tried == {"check-drawn": []}
    assert printed(with_trials, 2) == printed(without, 2) and printed(without, 2).startswith("2 ")
    assert "look here" in printed(with_trials, 1)


@pytest.mark.parametrize(
    ("tags", "says"), [(["check"], "has no tag of its own"), (["check", "claim-a"], "twice")]
)
def test_a_check_that_a_fault_cannot_name_is_found(tmp_path, tags, says):
    path = toy(tmp_path / "toy", [("assert 1", ["check", "claim-a"]), ("assert 2", tags)])
    (found,) = harness.not_named(path)
    assert says in found


def test_a_fault_says_what_the_check_must_say():
    with pytest.raises(ValueError, match="part of the message"):
        fault("00", "claim-a", says="")
    assert load("99") == []


def stream(text, name="stdout"):
    return nbformat.v4.new_output("stream", name=name, text=text)


def picture(alt, bytes_="QUJD"):
    data = {"image/png": bytes_, "text/plain": "[picture]"}
    return nbformat.v4.new_output("display_data", data=data, metadata={"image/png": {"alt": alt}})


def result(text, **more):
    return nbformat.v4.new_output("execute_result", data={"text/plain": text, **more}, execution_count=1)


def drawn(alt, bytes_="QUJD"):
    return result(
        f"[picture: {alt}]", **{"text/html": f'<img alt="{alt}" src="data:image/png;base64,{bytes_}">'}
    )


EQUAL = {
    "a drawn picture's bytes": ([drawn("two bars")], [drawn("two bars", "WFla")]),
    "a picture's bytes": ([picture("two bars")], [picture("two bars", "WFla")]),
    "the number of the kernel's process": (
        [stream("in /tmp/ipykernel_123/1.py")],
        [stream("in /tmp/ipykernel_9/1.py")],
    ),
    "a text in two pieces": ([stream("one\ntwo\n")], [stream("one\n"), stream("two\n")]),
}
DIFFERENT = {
    "a printed word": ([stream("one\n")], [stream("two\n")], ["-one\\n", "+two\\n"]),
    "a missing line end": ([stream("one\n")], [stream("one")], ["-one\\n", "+one"]),
    "another stream": (
        [stream("one")],
        [stream("one", "stderr")],
        ["--- committed stdout", "+++ executed stderr"],
    ),
    "a picture's text": ([picture("two bars")], [picture("a line")], ["-two bars", "+a line"]),
    "a drawn picture's text": (
        [drawn("bars")],
        [drawn("a line")],
        ["-[picture: bars]", '+<img alt="a line" src="BYTES">'],
    ),
    "no picture": ([picture("two bars")], [], ["-two bars"]),
    "one more picture": ([picture("a")], [picture("a"), picture("a")], ["+a"]),
    "a value": ([result("1")], [result("2")], ["-1", "+2"]),
    "a table": (
        [result("1", **{"text/html": "<b>1"})],
        [result("1", **{"text/html": "<b>2"})],
        ["-<b>1", "+<b>2"],
    ),
    "a table's form": ([result("1")], [result("1", **{"text/html": "<b>"})], ["+<b>"]),
    "nothing any more": ([stream("one")], [], ["-one"]),
}


def compare(folder: Path, old: list, new: list, tags: list[str]) -> list[str]:
    for name, outputs in (("old", old), ("new", new)):
        cells = [nbformat.v4.new_markdown_cell("# Text")]
        cells.append(nbformat.v4.new_code_cell("print('one')", outputs=outputs, metadata={"tags": tags}))
        nbformat.write(nbformat.v4.new_notebook(cells=cells), folder / f"{name}.ipynb")
    return harness.differences(folder / "old.ipynb", folder / "new.ipynb")


@pytest.mark.parametrize("case", EQUAL)
def test_what_differs_in_each_correct_execution_is_not_compared(case, tmp_path):
    assert compare(tmp_path, *EQUAL[case], []) == []


@pytest.mark.parametrize("case", DIFFERENT)
def test_an_output_that_is_not_the_committed_one_is_shown_line_by_line(case, tmp_path):
    old, new, shown = DIFFERENT[case]
    (found,) = compare(tmp_path, old, new, [])
    assert found.startswith("code cell 0  (print('one') ...)")
    assert [line for line in shown if line not in found.splitlines()] == []
    assert compare(tmp_path, old, new, ["nbval-ignore-output"]) == []


def test_a_cell_that_is_missing_is_a_difference(tmp_path):
    one, two = toy(tmp_path / "one", [("1", [])]), toy(tmp_path / "two", [("1", []), ("2", [])])
    assert harness.differences(one, two) == ["1 code cells are committed, 2 were executed"]

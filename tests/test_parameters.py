"""What a participant may turn: each parameter's stated range keeps the course green, and what lies outside is refused in a sentence."""

import ast
import re

import harness
import nbformat
import pytest
from conftest import apply

from helpers.workspace import REPOSITORY, create_home
from workshop import runner

BY_NUMBER = {path.name[:2]: path for path in sorted((REPOSITORY / "notebooks").glob("*.ipynb"))}
# The ends of a range, and what lies just outside of it.
RANGES = {
    ("04", "tolerance"): ((0.001, 0.05), (-0.01, 0, 0.0009, 0.051, float("nan"))),
    ("05", "trials"): ((5, 100), (-1, 0, 4, 101)),
    ("06", "threshold"): ((0, 1), (-0.1, 1.01, float("nan"))),
}
REFUSED = [(number, name, value) for (number, name), (_, outside) in RANGES.items() for value in outside]


def cell(number, tag):
    return next(
        c for c in nbformat.read(BY_NUMBER[number], as_version=4).cells if tag in c.metadata.get("tags", [])
    )


def guard(number):
    """What the cell of `begin` does before `begin`."""
    statements = ast.parse(cell(number, "imports").source).body
    assert "begin(" in ast.unparse(statements[-1])
    return compile(ast.Module([s for s in statements[:-1] if isinstance(s, ast.If)], []), number, "exec")


@pytest.mark.parametrize("number, name, value", REFUSED)
def test_a_value_outside_its_range_is_refused_before_anything_runs(number, name, value):
    with pytest.raises(ValueError, match=re.escape(f"{name} = {value}: ")):
        exec(guard(number), {name: value})


@pytest.mark.parametrize("number, name", RANGES)
def test_the_ends_of_a_range_are_taken_and_stated_beside_the_parameter(number, name):
    ends, _ = RANGES[number, name]
    for value in ends:
        exec(guard(number), {name: value})
    line = re.search(rf"(?m)^{name} = .*$", cell(number, "parameters").source)[0]
    assert line.endswith(f"; {ends[0]} to {ends[1]}")


def test_every_parameter_beside_the_seed_has_a_range():
    found = set()
    for number in BY_NUMBER:
        assigned = ast.parse(cell(number, "parameters").source).body
        found |= {(number, statement.targets[0].id) for statement in assigned}
    only_time = {("07", "requests_to_time")}  # any number will do
    assert {parameter for parameter in found if parameter[1] != "seed"} == set(RANGES) | only_time


@pytest.fixture(scope="module")
def away(tmp_path_factory):
    workspace = create_home(tmp_path_factory.mktemp("other parameters") / "home")
    apply(workspace)
    return workspace


def run(number, workspace, folder, **parameters):
    """The notebook's outcome with its parameters changed in place, as a participant does it."""
    notebook = nbformat.read(BY_NUMBER[number], as_version=4)
    turned = next(c for c in notebook.cells if "parameters" in c.metadata.get("tags", []))
    for name, value in parameters.items():
        turned.source, changed = re.subn(rf"(?m)^{name} = \S+", f"{name} = {value}", turned.source)
        assert changed == 1
    copy = folder / BY_NUMBER[number].name
    nbformat.write(notebook, copy)
    result = runner.execute(copy, folder / "executed" / copy.name, workspace, progress=False)
    assert not result.failure
    assert result.checks == len(harness.checks(BY_NUMBER[number]))


def test_the_smallest_tolerance_keeps_the_selection_green(away, tmp_path):
    run("04", away, tmp_path, tolerance=0.001)


def test_the_largest_tolerance_keeps_selection_and_sweep_green(away, tmp_path):
    """It leaves one feature, with which most trials score alike."""
    run("04", away, tmp_path, tolerance=0.05)
    run("05", away, tmp_path, trials=5)

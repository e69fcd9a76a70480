"""What a participant may turn: a parameter's stated range keeps the course green; all else is rejected."""

import ast
import re

import nbformat
import pytest

from workshop import runner

pytestmark = pytest.mark.unit
BY_NUMBER = {path.name[:2]: path for path in runner.choose()}
# The ends of a range, and what lies just outside of it.
RANGES = {
    ("04", "tolerance"): ((0.001, 0.05), (-0.01, 0, 0.0009, 0.051, float("nan"))),
    ("05", "trials"): ((5, 100), (-1, 0, 4, 101)),
    ("06", "threshold"): ((0, 1), (-0.1, 1.01, float("nan"))),
}


def cell(number, tag):
    cells = nbformat.read(BY_NUMBER[number], as_version=4).cells
    return next(c for c in cells if tag in c.metadata.get("tags", []))


def guard(number):
    """What the cell of `begin` does before `begin`."""
    statements = ast.parse(cell(number, "imports").source).body
    assert "begin(" in ast.unparse(statements[-1])
    return compile(ast.Module([s for s in statements[:-1] if isinstance(s, ast.If)], []), number, "exec")


@pytest.mark.parametrize("number, name", RANGES)
def test_a_range_is_stated_and_rejects_what_lies_outside_before_anything_runs(number, name):
    ends, outside = RANGES[number, name]
    line = re.search(rf"(?m)^{name} = .*$", cell(number, "parameters").source)[0]
    assert line.endswith(f"; {ends[0]} to {ends[1]}")
    for value in ends:
        exec(guard(number), {name: value})
    for value in outside:
        with pytest.raises(ValueError, match=re.escape(f"{name} = {value}: ")):
            exec(guard(number), {name: value})

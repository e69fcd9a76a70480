"""Traps in DuckDB. Each test passes while the trap exists; a failure is news from upstream, not a regression here. docs/upstream.md has the lines that run."""

from upstream import lines_of_the_section, preambles, watch  # noqa: F401  # two are fixtures


@watch
def test_an_asof_join_finds_a_row_for_a_null(reproduction):
    values = reproduction()["values"]
    assert values[64] == [None, None]
    assert values[0] == [30, 40]

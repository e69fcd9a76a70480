"""Traps in Great Expectations. Each test passes while the trap exists; a failure is news from upstream, not a regression here. docs/upstream.md has the lines."""

import pytest
from upstream import lines_of_the_section, preambles, watch  # noqa: F401  # two are fixtures

pytestmark = pytest.mark.filterwarnings("ignore")


@watch
def test_discard_failed_expectations_discards_nothing(reproduction):
    names = reproduction()
    assert not names["failed"].success
    assert len(names["kept"]) == 1


@watch
def test_a_suite_without_a_context_cannot_be_added_to(reproduction):
    names = reproduction()
    assert len(names["built"].expectations) == 1
    assert names["said"].startswith("DataContextRequiredError")


@watch
def test_validating_one_row_draws_progress_bars(reproduction):
    assert "Calculating Metrics" in reproduction()["errors"].getvalue()


@watch
def test_a_missing_column_is_a_failed_rule_with_an_empty_result(reproduction):
    missing = reproduction()["missing"]
    assert not missing.success
    assert missing.result == {}


@watch
def test_the_report_as_a_page_needs_the_network(reproduction):
    assert len(reproduction()["hosts"]) > 3

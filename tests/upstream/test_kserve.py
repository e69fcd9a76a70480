"""Traps in KServe. Each test passes while the trap exists; a failure is news from upstream, not a regression here. docs/upstream.md has the lines that run."""

import pytest
from upstream import lines_of_the_section, preambles, watch  # noqa: F401  # two are fixtures

pytestmark = pytest.mark.filterwarnings("ignore")


@watch
def test_some_unreadable_bodies_are_the_servers_fault(reproduction):
    assert reproduction()["codes"] == [200, 500, 500]


@watch
def test_json_with_a_charset_reaches_the_model_as_bytes(reproduction):
    assert reproduction()["types"] == [{"predictions": ["dict"]}, {"predictions": ["bytes"]}]


@watch
def test_whoever_can_ask_can_unload_the_model(reproduction):
    names = reproduction()
    assert (names["unloaded"], names["after"]) == (200, 404)


@watch
def test_the_server_always_listens_on_all_interfaces(reproduction):
    names = reproduction()
    assert names["rest"].config.host == "0.0.0.0"
    assert names["named"] == []

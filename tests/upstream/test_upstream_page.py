"""docs/upstream.md and its tests keep step: each section names its test, each test has its section, the versions are those installed."""

import ast
import re
from importlib.metadata import version
from pathlib import Path

import pytest
from upstream import PAGE, POINTS, sections, watch


def watches() -> dict[str, str]:
    """The tests with the decorator `watch`, by name; each with its file."""
    found = {}
    for path in Path(__file__).parent.glob("test_*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef) and "watch" in [
                d.id for d in node.decorator_list if isinstance(d, ast.Name)
            ]:
                found[node.name] = path.name
    return found


def test_each_section_names_its_test_and_each_test_has_its_section():
    named = [
        (s.test, re.search(r"tests/upstream/(test_\w+\.py)", s.points["Test"]).group(1)) for s in sections()
    ]
    assert sorted(named) == sorted(watches().items())
    assert len(named) == PAGE.read_text().count("\n### ")


def test_each_section_says_where_what_it_costs_and_what_would_mend_it():
    for section in sections():
        assert tuple(section.points) == POINTS, section.title
        assert section.code, f"{section.title}: no lines to run"
        assert section.points["Seen"].startswith(("run", "read")), section.title


def test_the_page_is_about_the_installed_versions():
    chapters = {section.project for section in sections()}
    stale = [chapter for chapter in chapters if version(chapter.split()[0]) != chapter.split()[1]]
    assert stale == [], "run tests/upstream on the installed version, then write it into the heading"


def test_each_place_in_the_source_exists():
    """A dotted name in a point "Where" is a module, or something in one."""
    from pkgutil import resolve_name

    roots = (
        "feast",
        "mlflow",
        "kfp",
        "kserve",
        "great_expectations",
        "optuna",
        "kubeflow",
        "kubeflow_katib_api",
    )
    missing = []
    for section in sections():
        for name in re.findall(r"`((?:\w+\.)+\w+)`", section.points["Where"]):
            if name.startswith(roots):
                try:
                    resolve_name(name)
                except (ImportError, AttributeError):
                    missing.append(name)
    assert missing == []


def test_each_link_of_the_page_leads_somewhere():
    links = re.findall(r"\]\(([^)#]+)", PAGE.read_text())
    assert [link for link in links if not (PAGE.parent / link).exists()] == []


def test_a_watch_that_fails_says_what_to_take_out():
    @watch
    def test_whole_numbers_in_a_list_arrive_as_floats():
        assert [1, 2] == [1.5, 2.0]

    with pytest.raises(
        AssertionError, match=r"(?s)News, not a regression.*kfp 2\.17\.0.*take the section out.*notebook 06"
    ):
        test_whole_numbers_in_a_list_arrive_as_floats()

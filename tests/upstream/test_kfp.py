"""Traps in Kubeflow Pipelines. Each test passes while the trap exists; a failure is news from upstream, not a regression here. docs/upstream.md has the lines."""

import pytest
from upstream import lines_of_the_section, preambles, watch  # noqa: F401  # two are fixtures

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(autouse=True)
def own_print(monkeypatch):
    """Puts `print` back, whatever the local runner leaves behind."""
    monkeypatch.setattr("builtins.print", print)


@watch
def test_the_local_runners_python_may_not_have_a_space_in_its_path(reproduction, capfd):
    said = reproduction()["said"]
    assert "'number'" in said and "FAILURE" in said
    assert "an: No such file or directory" in capfd.readouterr().out.replace(
        "not found", "No such file or directory"
    )


@watch
def test_a_gate_with_a_whole_number_is_never_open(reproduction):
    assert reproduction()["Path"]("gate.txt").read_text() == "2 > 1.0 "


@watch
def test_whole_numbers_in_a_list_arrive_as_floats(reproduction):
    assert reproduction()["shown"] == ["[1.0, 2.0]"] * 2


@watch
def test_parallel_steps_can_leave_another_print(reproduction):
    names = reproduction()
    assert names["left"] is not names["own"]


@watch
def test_independent_steps_run_one_after_the_other(reproduction):
    names = reproduction()
    assert names["second_start"] > names["first_end"]


@watch
def test_what_a_step_needs_from_kubernetes_is_ignored(reproduction):
    names = reproduction()
    assert names["value"] == "not set"
    assert "login-secret" not in names["said"]


@watch
def test_an_exit_handler_is_not_told_what_failed(reproduction):
    told = reproduction()["told"]
    assert told == "Task exit-handler-1 failed."


@watch
def test_an_imported_artifact_with_a_file_address_cannot_be_read(reproduction):
    names = reproduction()
    assert names["works"] == "a,b"
    assert "'read'" in names["said"]

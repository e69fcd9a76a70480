"""Traps in Kubeflow's SDK. Each test passes while the trap exists; a failure is news from upstream, not a regression here. docs/upstream.md has the lines."""

import tempfile

import pytest
from upstream import lines_of_the_section, preambles, watch  # noqa: F401  # two are fixtures

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module", autouse=True)
def own_temporary_folder(tmp_path_factory):
    """The failing job of the chapter leaves its environment behind: here, not in the machine's folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(tmp_path_factory.mktemp("jobs")))
        yield


@watch
def test_the_local_backend_calls_with_one_dictionary(reproduction):
    names = reproduction()
    assert "given ({'rate': 1},) {}" in names["log"]
    assert "train(**{'rate': 1})" in names["on_cluster"]


@watch
def test_a_local_job_inherits_no_variable(reproduction):
    assert "variable None" in reproduction()["log"]


@watch
def test_a_local_job_moves_its_caller(reproduction):
    names = reproduction()
    assert [folder for folder in names["meanwhile"] if folder.name.startswith(names["name"])]


@watch
def test_a_local_job_ignores_num_nodes(reproduction):
    names = reproduction()
    assert names["job"].num_nodes == 1
    assert names["log"].count("given") == 1


@watch
def test_a_local_job_that_fails_leaves_its_environment(reproduction):
    names = reproduction()
    assert names["job"].status == "Failed"
    assert len(names["left"]) == 1


@watch
def test_a_shell_reads_the_training_function_first(reproduction):
    assert reproduction()["ran"].stdout == "costs nothing\n"


@watch
def test_the_tuning_client_knows_no_whole_numbers(reproduction):
    names = reproduction()
    assert names["kinds"] == {"choice", "loguniform", "uniform"}
    assert set(names["ALGORITHM_REGISTRY"]) == {"grid", "random"}
    assert names["as_text"] == ["1", "2"]


@watch
def test_katibs_models_drop_a_field_that_they_do_not_know(reproduction):
    assert reproduction()["read"]["spec"] == {"parallelTrialCount": 2}


@watch
def test_importing_the_client_warns_about_its_own_models(reproduction):
    assert "Support for class-based `config` is deprecated" in reproduction.alone(preamble=False)

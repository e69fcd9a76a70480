"""Traps in MLflow. Each test passes while the trap exists; a failure is news from upstream, not a regression here. docs/upstream.md has the lines that run."""

import pytest
from upstream import lines_of_the_section, preambles, watch  # noqa: F401  # two are fixtures

pytestmark = [pytest.mark.usefixtures("mlflow"), pytest.mark.filterwarnings("ignore")]


@watch
def test_the_digest_leaves_out_times_and_late_rows(reproduction):
    names = reproduction()
    digests = [names["mlflow"].data.from_pandas(names[table]).digest for table in ("table", "other")]
    assert not names["table"].equals(names["other"])
    assert digests[0] == digests[1]


@watch
def test_models_serve_finds_uvicorn_on_the_path_only(reproduction):
    names = reproduction()
    assert names["command"].startswith("uvicorn ")
    assert names["ended"].returncode == 127


@watch
def test_logging_a_model_starts_a_process_and_writes_down_too_much(reproduction, monkeypatch):
    from mlflow.utils import requirements_utils

    started, run = [], requirements_utils._run_command
    monkeypatch.setattr(
        requirements_utils, "_run_command", lambda *a, **k: (started.append(a), run(*a, **k))[1]
    )
    listed = {line.split("==")[0] for line in reproduction()["listed"]}
    assert len(started) == 1
    assert listed - {"mlflow", "scikit-learn", "skops", "numpy", "pandas", "scipy", "cloudpickle"}


@watch
def test_the_default_format_refuses_forests(reproduction):
    assert "references untrusted types" in reproduction()["said"]


@watch
def test_a_model_names_the_types_that_its_reader_trusts(reproduction):
    names = reproduction()
    assert type(names["loaded"]).__name__ == "RandomForestClassifier"
    assert "trusted-types allow-list is read from the model itself" in names["said"]
    assert not [
        name
        for name in names["inspect"].signature(names["mlflow"].sklearn.load_model).parameters
        if "trust" in name
    ]


@watch
def test_a_registered_version_does_not_know_its_models_id(reproduction):
    names = reproduction()
    assert names["version"].source == names["info"].model_uri
    assert names["version"].model_id is None


@watch
def test_a_success_is_printed_to_the_stream_for_errors(reproduction, monkeypatch):
    from mlflow.tracking._model_registry import fluent
    from mlflow.utils.logging_utils import eprint

    monkeypatch.setattr(fluent, "eprint", eprint)  # as it is before a notebook begins
    assert "Successfully registered model 'announced'." in reproduction()["errors"].getvalue()


@watch
def test_each_trial_of_mlflows_storage_reads_all_before_it(reproduction):
    calls = reproduction()["calls"]
    assert calls == sorted(calls)
    assert calls[-1] >= calls[0] + 7, "one call more for each trial before it, at least"


@watch
def test_mlflows_storage_takes_every_run_for_a_study(reproduction):
    assert reproduction()["missing"] == "optuna.study_direction"


@watch
def test_a_trial_in_mlflows_storage_cannot_be_told_by_number(reproduction):
    assert reproduction()["said"] == "This method is not supported in MLflow backend."


@watch
def test_autologging_calls_a_renamed_argument(reproduction):
    said = [str(warning.message) for warning in reproduction()["caught"]]
    assert [line for line in said if line.startswith("`y_pred` was renamed")]


@watch
def test_a_loader_strategy_that_sqlalchemy_calls_incorrect(reproduction):
    assert "SADeprecationWarning: The ``noload`` loader strategy is deprecated" in reproduction.alone(
        preamble=False
    )

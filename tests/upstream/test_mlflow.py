"""Traps in MLflow, which docs/upstream.md and its neighbors name. A test passes while its trap exists."""

import contextlib
import io

import mlflow
import pandas as pd
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression

pytestmark = [pytest.mark.unit, pytest.mark.usefixtures("mlflow"), pytest.mark.filterwarnings("ignore")]

X, Y = pd.DataFrame({"x": [0.0, 1.0, 2.0, 3.0]}), [0, 0, 1, 1]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Beside uv's lock, and with uv on the PATH, MLflow takes a model's requirements from the lock."""
    monkeypatch.chdir(tmp_path)


def logged(**options):
    with mlflow.start_run():
        return mlflow.sklearn.log_model(LogisticRegression().fit(X, Y), name="model", **options)


def test_the_digest_leaves_out_times_and_late_rows():
    table = pd.DataFrame({"x": range(10_005)})
    table["time"] = pd.date_range("2025-01-01", periods=len(table), freq="h")
    other = table.assign(time=table.time + pd.Timedelta("365d"))
    other.loc[10_004, "x"] = -1
    assert mlflow.data.from_pandas(table).digest == mlflow.data.from_pandas(other).digest


def test_logging_a_model_starts_a_process_unless_its_requirements_are_given(monkeypatch):
    from mlflow.utils import requirements_utils

    started = []

    def run(*arguments, **_):
        started.append(arguments)
        raise OSError("not started here: it takes seconds")

    monkeypatch.setattr(requirements_utils, "_run_command", run)
    logged(pip_requirements=[])
    assert started == []
    logged()
    assert len(started) == 1


def test_a_model_file_names_the_types_that_its_reader_trusts(tmp_path):
    forest, place = RandomForestClassifier(2, random_state=0).fit(X, Y), str(tmp_path / "forest")
    trusted = ["sklearn.tree._tree.Tree"]
    mlflow.sklearn.save_model(forest, place, pip_requirements=[], skops_trusted_types=trusted)
    assert isinstance(mlflow.sklearn.load_model(place), RandomForestClassifier), "nobody asked the reader"


def test_a_registered_version_has_no_model_id_and_success_goes_to_standard_error(monkeypatch):
    from mlflow.tracking._model_registry import fluent
    from mlflow.utils.logging_utils import eprint

    monkeypatch.setattr(fluent, "eprint", eprint)  # as it is before helpers.workspace.quiet
    info = logged(pip_requirements=[])
    with contextlib.redirect_stderr(io.StringIO()) as errors:
        mlflow.register_model(info.model_uri, "registered")
    assert "Successfully registered model 'registered'." in errors.getvalue()
    assert mlflow.MlflowClient().get_model_version("registered", "1").model_id is None


def test_each_trial_of_mlflows_storage_reads_all_trials_before_it():
    import optuna
    from mlflow.optuna.storage import MlflowStorage

    storage, calls, counts = MlflowStorage(experiment_id="1"), [], []
    get_run = storage._mlflow_client.get_run
    storage._mlflow_client.get_run = lambda run_id: (calls.append(run_id), get_run(run_id))[1]
    study = optuna.create_study(storage=storage, study_name="growing")
    for _ in range(5):
        calls.clear()
        study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
        counts.append(len(calls))
    assert counts == sorted(counts) and counts[-1] >= counts[0] + 4


def test_the_parent_run_of_the_sweep_holds_no_result():
    import optuna

    def objective(trial):
        with mlflow.start_run(nested=True):
            mlflow.log_params({"C": trial.suggest_float("C", 1e-3, 10.0, log=True)})
        return 0.5

    with mlflow.start_run(run_name="optuna_sweep") as parent:
        optuna.create_study(direction="maximize").optimize(objective, n_trials=2)
    data = mlflow.get_run(parent.info.run_id).data
    assert data.metrics == {} == data.params


def evaluated(**row):
    from mlflow.genai.scorers import scorer

    @scorer
    def is_short(outputs):
        return len(outputs) < 5

    with mlflow.start_run():
        return mlflow.genai.evaluate(data=[{"inputs": {"x": 1}, **row}], scorers=[is_short])


def test_an_evaluation_of_texts_draws_a_bar_and_prints_its_run_in_color(monkeypatch, capsys):
    from mlflow.genai.evaluation import base, harness
    from mlflow.genai.utils.display_utils import display_evaluation_output
    from tqdm.auto import tqdm

    # As they are before helpers.workspace.quiet.
    monkeypatch.setattr(base, "display_evaluation_output", display_evaluation_output)
    monkeypatch.setattr(harness, "tqdm", tqdm)
    evaluation = evaluated(outputs="one")
    shown = capsys.readouterr()
    assert f"\033[94m{evaluation.run_id}" in shown.out
    assert "Evaluating: 100%" in shown.err


def test_an_evaluation_takes_expectations_for_verdicts_and_leaves_errors_out_of_means():
    assert evaluated(outputs="one").passed
    expected = evaluated(outputs="one", expectations={"text": "one"})
    assert expected.metrics == {"is_short/mean": 1.0} and not expected.passed
    assert evaluated(outputs=1).metrics == {}, "a number has no length"

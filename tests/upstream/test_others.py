"""Traps in DuckDB, Great Expectations, JupyterLab and Optuna that this repository works around:
docs/upstream.md. A test passes while its trap exists."""

import contextlib
import io

import pandas as pd
import pytest

pytestmark = [pytest.mark.unit, pytest.mark.filterwarnings("ignore")]


def test_an_asof_join_finds_a_row_for_a_null():
    import duckdb

    connection, values = duckdb.connect(), {}
    connection.sql("CREATE TABLE asked AS FROM (VALUES (1, 'a', NULL), (1, NULL, 5)) AS t(key, place, time)")
    known = "(VALUES (1, 'a', 3, 30), (1, NULL, 4, 40)) AS t(key, place, time, value)"
    connection.sql(f"CREATE TABLE known AS FROM {known}")
    for threshold in (64, 0):  # of rows, below which DuckDB takes the nested loop, which is right
        connection.sql(f"SET asof_loop_join_threshold = {threshold}")
        values[threshold] = connection.sql("""
            SELECT known.value FROM asked ASOF LEFT JOIN known
            ON asked.key = known.key AND asked.place = known.place AND asked.time >= known.time
            ORDER BY asked.place NULLS LAST
        """).fetchall()
    assert values == {64: [(None,), (None,)], 0: [(30,), (40,)]}


def test_a_seeded_sampler_that_is_made_again_repeats_itself():
    import optuna

    study = {"study_name": "resumed", "storage": optuna.storages.InMemoryStorage(), "load_if_exists": True}
    for _ in range(3):  # as if the process had ended in between
        resumed = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=0), **study)
        resumed.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=4)
    assert len({trial.params["x"] for trial in resumed.trials}) < len(resumed.trials) == 12


def test_great_expectations_keeps_failed_rules_needs_a_context_and_draws_bars():
    import great_expectations as gx
    import great_expectations.expectations as gxe
    from great_expectations.data_context import project_manager

    rule = {"column": "y", "min_value": 0, "max_value": 1}
    built = gx.ExpectationSuite("built", expectations=[gxe.ExpectColumnValuesToBeBetween(**rule)])
    project_manager.set_project(None)  # as in a new process
    with pytest.raises(gx.exceptions.DataContextError, match="requires an active data context"):
        gx.ExpectationSuite("added").add_expectation(gxe.ExpectColumnValuesToBeBetween(**rule))

    context = gx.get_context(mode="ephemeral")
    whole = context.data_sources.add_pandas("p").add_dataframe_asset("t").add_batch_definition_whole_dataframe
    batch = whole("b").get_batch({"dataframe": pd.DataFrame({"x": [5.0]})})
    with contextlib.redirect_stderr(io.StringIO()) as errors:
        (missing,) = batch.validate(built).results
    assert "Calculating Metrics" in errors.getvalue()
    assert not missing.success and missing.result == {}, "a missing column, and no reason"

    validator = context.get_validator(batch=batch, create_expectation_suite_with_name="one")
    assert not validator.expect_column_values_to_be_between("x", min_value=0, max_value=1).success
    assert len(validator.get_expectation_suite(discard_failed_expectations=True).expectations) == 1


def test_jupyterlab_finds_no_extension_below_a_folder_with_brackets(tmp_path):
    from jupyterlab_server.config import get_federated_extensions

    for folder, found in ((tmp_path / "plain", ["sliders"]), (tmp_path / "two [2]", [])):
        (folder / "sliders").mkdir(parents=True)
        (folder / "sliders" / "package.json").write_text('{"name": "sliders", "version": "1"}')
        assert list(get_federated_extensions([str(folder)])) == found

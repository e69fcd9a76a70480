import os
import shutil
import subprocess
import sys
from pathlib import Path

import duckdb
import ibis
import mlflow
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import apply

from helpers import data, registry
from helpers.start import begin, check_environment
from helpers.workspace import REPOSITORY, WorkshopError, configure, create_home, locate, quiet


def test_without_a_setting_the_workspace_is_the_repositorys():
    assert locate().home == REPOSITORY
    assert locate().path == REPOSITORY / "workspace"


def test_workshop_home_moves_data_definitions_and_state_together(home, monkeypatch):
    monkeypatch.setenv("WORKSHOP_HOME", str(home.home))
    found = locate()
    assert (found.data, found.feature_repo) == (home.home / "data", home.home / "feature_repo")
    assert found.path == home.home / "workspace"


def test_a_folder_that_is_no_home_is_refused_with_the_remedy(tmp_path, monkeypatch):
    monkeypatch.setenv("WORKSHOP_HOME", str(tmp_path))
    with pytest.raises(WorkshopError, match=r"no feature_repo/feature_store\.yaml in .*set WORKSHOP_HOME to the clone"):
        locate()


def test_another_seed_gets_a_home_of_its_own_with_its_own_data(home, monkeypatch):
    monkeypatch.setenv("WORKSHOP_HOME", str(home.home))
    other = locate(seed=7)
    assert other.home == home.path / "seed-7"
    assert data.seed_of(other.data) == 7
    made = pq.read_table(other.data / "driver_labels.parquet").to_pandas()
    pd.testing.assert_frame_equal(made, data.generate(7).labels, check_dtype=False)
    assert data.seed_of(home.data) == data.SEED
    assert locate(seed=7) == other


def test_a_seed_below_zero_is_refused_and_leaves_nothing(home, monkeypatch):
    monkeypatch.setenv("WORKSHOP_HOME", str(home.home))
    with pytest.raises(data.DataError, match="seed=-1: a seed is an integer of 0 or more"):
        locate(seed=-1)
    assert list(home.path.iterdir()) == []


def test_mlflow_keeps_its_state_in_the_workspace_whatever_folder_it_is_called_from(home, tmp_path, monkeypatch):
    configure(home)
    assert os.environ["MLFLOW_TRACKING_URI"] == home.tracking_uri == f"sqlite:///{home.path}/mlflow.db"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    client = mlflow.MlflowClient(home.tracking_uri)
    run = client.create_run(client.create_experiment("trial", artifact_location=(home.path / "mlruns").as_uri()))
    client.log_text(run.info.run_id, "hello", "note.txt")
    assert (home.path / "mlflow.db").exists()
    assert len(list((home.path / "mlruns").rglob("note.txt"))) == 1
    assert list(elsewhere.iterdir()) == []


def test_duckdb_draws_no_progress_bar_into_a_slow_machines_outputs():
    connections = (duckdb.default_connection(), ibis.get_backend().con)
    for connection in connections:
        connection.execute("SET enable_progress_bar = true")  # as DuckDB does in a notebook
    quiet()
    setting = "SELECT current_setting('enable_progress_bar')"
    assert [connection.execute(setting).fetchone() for connection in connections] == [(False,), (False,)]


def test_a_moved_clone_is_told_that_its_registry_is_stale(tmp_path):
    first = create_home(tmp_path / "before")
    configure(first)
    apply(first)
    registry.check(first)
    os.chdir(tmp_path)
    first.home.rename(tmp_path / "after")
    moved = type(first)(tmp_path / "after")
    configure(moved)
    with pytest.raises(
        WorkshopError, match=r"registry is stale.*driver_hourly_stats: update.*Run notebook 01, or `feast apply`"
    ):
        registry.check(moved)
    apply(moved)
    registry.check(moved)


def test_a_changed_definition_is_named_when_it_has_not_been_applied(home):
    configure(home)
    apply(home)
    registry.check(home)
    views = home.feature_repo / "feature_views.py"
    views.write_text(views.read_text().replace("ttl=timedelta(days=7)", "ttl=timedelta(days=9)"))
    with pytest.raises(WorkshopError, match=r"stale.*\(driver_hourly_stats: update ttl\)"):
        registry.check(home)


def missing(path):
    path.unlink()


def truncated(path):
    path.write_bytes(path.read_bytes()[:-100])


def empty(path):
    path.write_bytes(b"")


def of_another_type(path):
    table = pq.read_table(path)
    place = table.schema.get_field_index("driver_id")
    pq.write_table(table.set_column(place, "driver_id", table["driver_id"].cast(pa.string())), path)


def without_a_column(path):
    pq.write_table(pq.read_table(path).drop_columns(["event_timestamp"]), path)


@pytest.mark.parametrize("name", data.FILES)
@pytest.mark.parametrize(
    "damage, words",
    [
        (missing, "is missing from the data/ folder"),
        (truncated, "is damaged or cut short"),
        (empty, "is damaged or cut short"),
        (of_another_type, "column 'driver_id' has type string, and must be int64"),
        (without_a_column, "has no column 'event_timestamp'"),
    ],
)
def test_a_damaged_data_file_is_named_with_the_remedy_where_a_notebook_begins(home, monkeypatch, name, damage, words):
    monkeypatch.setenv("WORKSHOP_HOME", str(home.home))
    damage(home.data / name)
    with pytest.raises(data.DataError, match=words) as raised:
        begin("00")
    assert str(raised.value).startswith(name)
    assert f"`git checkout -- data/{name}`" in str(raised.value)
    assert "`python -m helpers.data --out data`" in str(raised.value)
    assert list(home.path.iterdir()) == []


def test_begin_reports_what_it_found_and_works_in_the_workspace(home, monkeypatch, capsys):
    monkeypatch.setenv("WORKSHOP_HOME", str(home.home))
    assert begin("01") == home
    assert Path.cwd() == home.path
    assert capsys.readouterr().out == (
        "Notebook 01 is ready. Data seed 2025, clock 2025-03-01. Needs: nothing from earlier notebooks.\n"
    )


def test_a_notebook_that_does_not_exist_is_refused():
    with pytest.raises(WorkshopError, match="there is no notebook '99'; there are 00, 01"):
        begin("99")


@pytest.mark.parametrize("seed", ["2025", 7.5, None])
def test_a_seed_that_is_no_whole_number_is_refused_with_a_sentence(seed):
    with pytest.raises(WorkshopError, match=rf"seed = {seed!r}: a seed is a whole number of 0 or more\."):
        begin("00", seed=seed)


def test_the_environment_check_names_a_package_of_another_version(tmp_path):
    shutil.copytree(REPOSITORY / "helpers", tmp_path / "helpers")
    old = tmp_path / "optuna-4.0.0.dist-info"
    old.mkdir()
    (old / "METADATA").write_text("Metadata-Version: 2.1\nName: optuna\nVersion: 4.0.0\n")
    program = "from helpers.start import check_environment; check_environment()"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert "optuna 4.0.0 is installed, <6,>=5 is needed. Run `make lab`" in done.stderr


def test_this_environment_passes_the_check():
    assert {"feast", "mlflow", "kfp", "kserve", "optuna"} <= check_environment().keys()


def test_helpers_are_importable_from_any_folder(tmp_path):
    program = "from helpers.data import NOW; print(NOW)"
    done = subprocess.run([sys.executable, "-P", "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout == "2025-03-01 00:00:00+00:00\n", done.stderr

"""What a participant breaks: `begin` names the file and the remedy, and the remedy, typed as it is printed, helps."""

import re
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pandas as pd
import pytest
from conftest import apply
from feast import FeatureService
from mlflow import MlflowClient

from helpers import damage, registry
from helpers.start import begin
from helpers.workspace import REPOSITORY, WorkshopError, Workspace, configure, create_home
from lifecycle.sweep import open_study

FILES = (damage.REGISTRY, damage.ONLINE, damage.TRACKING, damage.STUDY)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Workspace:
    """A home with every file of state, as the tools write it."""
    workspace = create_home(tmp_path_factory.mktemp("whole") / "home")
    apply(workspace)
    MlflowClient(workspace.tracking_uri).create_experiment("sweep")
    open_study(f"sqlite:///{workspace.path / damage.STUDY}", "one")
    return workspace


@pytest.fixture
def mine(home, whole) -> Workspace:
    """The same, for the test alone."""
    for name in FILES:
        shutil.copy(whole.path / name, home.path / name)
    return home


def something_else(path):
    path.write_bytes(b"hello, this is a note that somebody saved under this name\n" * 20)


def cut_short(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3 + 7])


def test_a_workspace_as_the_tools_leave_it_is_left_alone(mine, capsys):
    damage.check(mine)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("harm", [something_else, cut_short])
def test_a_damaged_file_is_named_and_the_command_that_is_printed_sets_it_aside(mine, name, harm):
    harm(mine.path / name)
    with pytest.raises(WorkshopError, match=rf"^{name} \(.+\) is damaged: .+ Set it aside, `mv ") as raised:
        damage.check(mine)
    (command,) = re.findall(r"`(mv .*?)`,", str(raised.value))
    subprocess.run(command, shell=True, check=True)
    damage.check(mine)
    assert not (mine.path / name).exists() and (mine.path / f"{name}.damaged").exists()


@pytest.mark.parametrize("name", FILES)
def test_an_empty_file_is_said_to_be_made_again_and_is_no_error(mine, name, capsys):
    (mine.path / name).write_bytes(b"")
    damage.check(mine)
    assert re.fullmatch(rf"{name} \(.+\) is empty: .+\.\n", capsys.readouterr().out)


def test_an_online_store_that_is_gone_is_named_while_its_registry_is_there(mine, capsys):
    (mine.path / damage.ONLINE).unlink()
    damage.check(mine)
    assert capsys.readouterr().out.startswith(
        "online_store.db (online store) is gone: notebook 01 makes it again"
    )
    (mine.path / damage.REGISTRY).unlink()
    damage.check(mine)
    assert capsys.readouterr().out == ""


def test_a_registry_of_another_project_is_stale_with_the_remedy(mine, monkeypatch):
    yaml = mine.feature_repo / "feature_store.yaml"
    ours = yaml.read_text()
    yaml.write_text(re.sub(r"(?m)^project: .*$", "project: another", ours))
    (mine.path / damage.REGISTRY).unlink()
    configure(mine)
    apply(mine)
    yaml.write_text(ours)
    monkeypatch.setenv("WORKSHOP_HOME", str(mine.home))
    with pytest.raises(WorkshopError, match=r"stale.*create.*Run notebook 01, or `feast apply`"):
        begin("02")
    apply(mine)
    begin("02")


def test_a_registry_that_holds_more_than_the_files_is_mended_by_the_command_alone(mine, monkeypatch):
    configure(mine)
    apply(mine).apply(FeatureService(name="left_over", features=[]))
    monkeypatch.setenv("WORKSHOP_HOME", str(mine.home))
    with pytest.raises(WorkshopError, match=r"left_over: delete\)\. Run `feast apply` in feature_repo/"):
        begin("02")
    feast = str(Path(sys.executable).with_name("feast"))
    subprocess.run([feast, "apply"], cwd=mine.feature_repo, check=True, capture_output=True)
    begin("02")


@pytest.mark.parametrize("name", FILES[1:])
def test_a_database_that_another_program_holds_is_named_and_nothing_is_lost(mine, name, monkeypatch):
    monkeypatch.setattr(damage, "PATIENCE", 0.5)
    with closing(sqlite3.connect(mine.path / name, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(
            WorkshopError, match=rf"^{name} \(.+\) is locked: another program has been writing to it"
        ):
            damage.check(mine)
    damage.check(mine)


def revision(workspace: Workspace) -> str:
    with closing(sqlite3.connect(workspace.path / damage.TRACKING)) as database:
        return database.execute("SELECT version_num FROM alembic_version").fetchone()[0]


def made_up_to(workspace: Workspace, revision: str) -> None:
    """MLflow's database as it is after some steps of its creation, in place of the whole one."""
    import sqlalchemy
    from alembic import command
    from mlflow.store.db.utils import InitialBase, _get_alembic_config

    (workspace.path / damage.TRACKING).unlink()
    engine = sqlalchemy.create_engine(workspace.tracking_uri)
    InitialBase.metadata.create_all(engine)
    command.upgrade(_get_alembic_config(workspace.tracking_uri.replace("%", "%%")), revision)
    engine.dispose()


def test_a_database_that_was_left_half_made_is_made_again_but_not_while_somebody_makes_it(mine, capsys):
    made_up_to(mine, "head-20")
    command = [sys.executable, "-c", BEGUN, str(mine.home)]
    (mine.path / damage.TRACKING).rename(mine.path / "away")
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "begun\n"
        (mine.path / "away").rename(mine.path / damage.TRACKING)
        damage.check(mine)
        assert (mine.path / damage.TRACKING).exists() and capsys.readouterr().out == ""
    damage.check(mine)
    assert (
        "mlflow.db was left half made by a process that was killed, and held nothing"
        in capsys.readouterr().out
    )
    assert not (mine.path / damage.TRACKING).exists()


def test_a_database_of_an_older_mlflow_is_upgraded_by_the_commands_that_are_printed(mine):
    newest = revision(mine)
    made_up_to(mine, "head-1")
    with closing(sqlite3.connect(mine.path / damage.TRACKING)) as database, database:
        database.execute("INSERT INTO experiments (name) VALUES ('mine')")
    assert revision(mine) != newest
    with pytest.raises(
        WorkshopError, match=r"^mlflow\.db was written by an older MLflow than this"
    ) as raised:
        damage.check(mine)
    for line in re.findall(r"`(.*?)`", str(raised.value)):
        subprocess.run(line, shell=True, check=True, cwd=REPOSITORY, capture_output=True)
    assert revision(mine) == newest and (mine.path / "mlflow.db.before").exists()
    damage.check(mine)


def test_a_database_of_a_newer_mlflow_is_named(mine):
    with closing(sqlite3.connect(mine.path / damage.TRACKING)) as database, database:
        database.execute("UPDATE alembic_version SET version_num = 'of the future'")
    with pytest.raises(WorkshopError, match=r"is damaged: a newer MLflow than this environment's .* `mv "):
        damage.check(mine)


KILLED = """
import os, signal, sys
import mlflow
from mlflow.optuna.storage import MlflowStorage
import optuna
mlflow.set_tracking_uri(sys.argv[1])
mlflow.set_experiment("training_pipeline")
optuna.create_study(study_name="native", storage=MlflowStorage(mlflow.set_experiment("native").experiment_id))
mlflow.set_experiment("training_pipeline")
with mlflow.start_run(run_name="pipeline 001"):
    with mlflow.start_run(run_name="train", nested=True):
        os.kill(os.getpid(), signal.SIGKILL)
"""
BEGUN = "import sys; from pathlib import Path; from helpers import damage; from helpers.workspace import Workspace; damage.check(Workspace(Path(sys.argv[1]))); print('begun', flush=True); sys.stdin.read()"


def statuses(workspace: Workspace) -> dict[str, str]:
    client = MlflowClient(workspace.tracking_uri)
    ids = [experiment.experiment_id for experiment in client.search_experiments()]
    return {run.info.run_name: run.info.status for run in client.search_runs(ids)}


def test_what_a_killed_process_left_open_is_closed_once_nobody_else_works_here(mine, tmp_path, capsys):
    command = [sys.executable, "-c", BEGUN, str(mine.home)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "begun\n"
        killed = subprocess.run(
            [sys.executable, "-c", KILLED, mine.tracking_uri], cwd=tmp_path, capture_output=True
        )
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        left = {"pipeline 001": "RUNNING", "train": "RUNNING", "native": "RUNNING"}
        damage.check(mine)
        assert statuses(mine) == left, "the other one may be working on them"
        assert capsys.readouterr().out == ""
    damage.check(mine)
    assert statuses(mine) == left | {"pipeline 001": "KILLED", "train": "KILLED"}, (
        "the study goes on by design"
    )
    said = (
        "Left open by a process that was killed, and now closed in MLflow as KILLED: pipeline 001, train.\n"
    )
    assert capsys.readouterr().out == said
    damage.check(mine)
    assert capsys.readouterr().out == "", "it is told once"


def test_what_a_killed_kernel_left_in_a_staging_folder_is_no_hindrance(mine):
    configure(mine)
    store = apply(mine)
    rows = pd.read_parquet(mine.data / "driver_stats.parquet").head(50)
    for _ in range(2):
        staged = registry.staging(mine, store, "driver_hourly_stats", "nightly", rows)
        assert [view.name for view in staged.list_feature_views()] == ["driver_hourly_stats"]
        for name in (damage.REGISTRY, damage.ONLINE, "rows.parquet"):
            (mine.path / "staging" / "nightly" / name).write_bytes(b"half a fi")


def test_begin_names_the_damage_before_it_runs_anything(mine, monkeypatch, capsys):
    monkeypatch.setenv("WORKSHOP_HOME", str(mine.home))
    cut_short(mine.path / damage.REGISTRY)
    with pytest.raises(WorkshopError, match=r"^registry\.db \(feature registry\) is damaged"):
        begin("07")
    assert capsys.readouterr().out == ""

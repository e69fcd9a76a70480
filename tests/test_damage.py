"""What a participant breaks: `begin` names the file and the remedy, and the remedy, typed as it is printed,
helps."""

import re
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing, contextmanager
from pathlib import Path

import pandas as pd
import pytest
from feast import FeatureService
from mlflow import MlflowClient

from conftest import apply
from helpers import damage, registry
from helpers.start import begin, missing
from helpers.workspace import REPOSITORY, WorkshopError, Workspace, configure, create_home
from lifecycle.training.sweep import open_study

pytestmark = pytest.mark.unit
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


@contextmanager
def somebody_else_at_work(workspace: Workspace):
    """Another process that has begun in this workspace."""
    code = "import sys; from pathlib import Path; from helpers.damage import check; "
    code += "from helpers.workspace import Workspace; check(Workspace(Path(sys.argv[1]))); "
    code += "print('begun', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", code, str(workspace.home)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "begun\n"
        yield
        other.stdin.close()


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("share", [0, 2 / 3], ids=["something else", "cut short"])
def test_a_damaged_file_is_named_and_the_command_that_is_printed_sets_it_aside(
    mine, name, share, monkeypatch, capsys
):
    damage.check(mine)
    assert capsys.readouterr().out == "", "a workspace as the tools leave it"
    content = (mine.path / name).read_bytes()
    (mine.path / name).write_bytes(
        content[: int(len(content) * share) + 7] if share else b"a note of somebody's " * 50
    )
    monkeypatch.setenv("WORKSHOP_HOME", str(mine.home))
    with pytest.raises(WorkshopError, match=rf"^{name} \(.+\) is damaged: .+ Set it aside, `mv ") as raised:
        begin("07")
    (command,) = re.findall(r"`(mv .*?)`,", str(raised.value))
    subprocess.run(command, shell=True, check=True)
    damage.check(mine)
    assert not (mine.path / name).exists() and (mine.path / f"{name}.damaged").exists()


def test_what_is_empty_or_gone_is_said_to_be_made_again_and_is_no_error(mine, capsys):
    for name in FILES:
        (mine.path / name).write_bytes(b"")
    damage.check(mine)
    said = capsys.readouterr().out.splitlines()
    assert [line.split(" (")[0] for line in said if ") is empty: " in line] == list(FILES)
    (mine.path / damage.ONLINE).unlink()
    damage.check(mine)
    assert "online_store.db (online store) is gone: notebook 01 makes it again" in capsys.readouterr().out


def test_a_stale_registry_is_named_with_the_command_that_mends_it(mine, monkeypatch):
    configure(mine)
    apply(mine).apply(FeatureService(name="left_over", features=[]))
    monkeypatch.setenv("WORKSHOP_HOME", str(mine.home))
    with pytest.raises(WorkshopError, match=r"left_over: delete\)\. Run notebook 01, or `feast apply`"):
        begin("02")
    feast = str(Path(sys.executable).with_name("feast"))
    subprocess.run([feast, "apply"], cwd=mine.feature_repo, check=True, capture_output=True)
    begin("02")
    views = mine.feature_repo / "feature_views.py"
    views.write_text(views.read_text().replace("ttl=timedelta(days=7)", "ttl=timedelta(days=9)"))
    with pytest.raises(WorkshopError, match=r"stale.*\(driver_hourly_stats: update ttl\)"):
        begin("02")
    apply(mine)
    begin("02")
    moved = Workspace(mine.home.rename(mine.home.with_name("moved")))
    monkeypatch.setenv("WORKSHOP_HOME", str(moved.home))
    with pytest.raises(WorkshopError, match=r"stale, it was applied in a folder that is gone .*\. Delete "):
        begin("02")
    (moved.path / damage.REGISTRY).unlink()
    assert missing(moved, "02") == {"01": "feature registry"}


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


def change(workspace: Workspace, query: str) -> list[tuple]:
    with closing(sqlite3.connect(workspace.path / damage.TRACKING)) as database, database:
        return database.execute(query).fetchall()


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
    (mine.path / damage.TRACKING).rename(mine.path / "away")
    with somebody_else_at_work(mine):
        (mine.path / "away").rename(mine.path / damage.TRACKING)
        damage.check(mine)
        assert (mine.path / damage.TRACKING).exists() and capsys.readouterr().out == ""
    damage.check(mine)
    assert "mlflow.db was left half made by a process that was killed" in capsys.readouterr().out
    assert not (mine.path / damage.TRACKING).exists()


def test_a_database_of_an_older_mlflow_is_upgraded_by_the_printed_commands_and_a_newer_one_named(mine):
    newest = change(mine, "SELECT version_num FROM alembic_version")
    made_up_to(mine, "head-1")
    change(mine, "INSERT INTO experiments (name) VALUES ('mine')")
    with pytest.raises(
        WorkshopError, match=r"^mlflow\.db was written by an older MLflow than this"
    ) as raised:
        damage.check(mine)
    for line in re.findall(r"`(.*?)`", str(raised.value)):
        subprocess.run(line, shell=True, check=True, cwd=REPOSITORY, capture_output=True)
    assert change(mine, "SELECT version_num FROM alembic_version") == newest
    assert (mine.path / "mlflow.db.before").exists()
    damage.check(mine)
    change(mine, "UPDATE alembic_version SET version_num = 'of the future'")
    with pytest.raises(WorkshopError, match=r"is damaged: a newer MLflow than this environment's .* `mv "):
        damage.check(mine)


KILLED = """
import os, signal, sys
import mlflow, optuna
from mlflow.optuna.storage import MlflowStorage
mlflow.set_tracking_uri(sys.argv[1])
optuna.create_study(study_name="native", storage=MlflowStorage(mlflow.set_experiment("native").experiment_id))
mlflow.set_experiment("training_pipeline")
with mlflow.start_run(run_name="pipeline 001"):
    with mlflow.start_run(run_name="train", nested=True):
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_left_open_is_closed_once_nobody_else_works_here(mine, tmp_path, capsys):
    def statuses() -> dict[str, str]:
        return dict(change(mine, "SELECT name, status FROM runs"))

    with somebody_else_at_work(mine):
        killed = subprocess.run(
            [sys.executable, "-c", KILLED, mine.tracking_uri], cwd=tmp_path, capture_output=True
        )
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        left = {"pipeline 001": "RUNNING", "train": "RUNNING", "native": "RUNNING"}
        damage.check(mine)
        assert statuses() == left, "the other one may be working on them"
    damage.check(mine)
    assert statuses() == left | {"pipeline 001": "KILLED", "train": "KILLED"}, "the study goes on by design"
    said = (
        "Left open by a process that was killed, and now closed in MLflow as KILLED: pipeline 001, train.\n"
    )
    damage.check(mine)
    assert capsys.readouterr().out == said, "it is told once"


def test_what_a_killed_kernel_left_in_a_staging_folder_is_no_hindrance(mine):
    configure(mine)
    store = apply(mine)
    rows = pd.read_parquet(mine.data / "driver_stats.parquet").head(50)
    for _ in range(2):
        staged = registry.staging(mine, store, "driver_hourly_stats", "nightly", rows)
        assert [view.name for view in staged.list_feature_views()] == ["driver_hourly_stats"]
        for name in (damage.REGISTRY, damage.ONLINE, "rows.parquet"):
            (mine.path / "staging" / "nightly" / name).write_bytes(b"half a fi")

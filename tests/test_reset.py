"""`make reset`: what one notebook and those after it made, or everything except the learner's own things."""

import sqlite3
from contextlib import closing
from fnmatch import fnmatch

import harness
import mlflow
import pandas as pd
import pytest
from feast.protos.feast.core.Registry_pb2 import Registry
from test_workspace import register

from conftest import apply, save_reference
from exercises.core import RECORD
from helpers import course, damage, extras
from helpers.data import NOW
from helpers.start import MODEL, begin, missing
from helpers.workspace import WorkshopError, Workspace, configure
from workshop import commands, runner
from workshop.reset import COPIES, PAGES, reset

OF_NO_NOTEBOOK = {COPIES, RECORD, "executed", "mlflow.db", "mlruns", ".at_work.lock", ".catching_up.lock"}
OF_NO_NOTEBOOK |= {
    PAGES,
    "logs/catching_up.log",
    "logs/mlflow_ui.log",
    "logs/feast_ui.log",
}  # other tests look at this home's pages


def ask(workspace: Workspace, query: str, file: str = damage.TRACKING) -> set:
    with closing(sqlite3.connect(workspace.path / file)) as database:
        return {row[0] for row in database.execute(query)}


def experiments(workspace: Workspace) -> set[str]:
    return ask(workspace, "SELECT name FROM experiments WHERE lifecycle_stage = 'active'")


def entries(workspace: Workspace) -> set[str]:
    """What lies in the workspace; the folders that notebooks share are opened."""
    found = [*workspace.path.iterdir(), *workspace.path.glob("logs/*"), *workspace.path.glob("staging/*")]
    return {path.relative_to(workspace.path).as_posix() for path in found} - {"logs", "staging"}


@pytest.mark.course
@pytest.mark.xdist_group("course")
def test_the_course_leaves_what_its_facts_say_and_nothing_else(place):
    for path in runner.with_extras(runner.choose()):
        assert not harness.once(path, place).result.failure
    ran = [notebook.makes for number, notebook in course.notebooks().items() if not extras.lacking(number)]
    patterns = [pattern for makes in ran for pattern in makes.files]
    left = entries(place) - OF_NO_NOTEBOOK
    assert {name for name in left if not any(fnmatch(name, pattern) for pattern in patterns)} == set()
    unused = {pattern for pattern in patterns if not any(fnmatch(name, pattern) for name in left)}
    # One stands for the other where Redis is not installed; a sweep that goes on deletes the sign of the
    # kill; containers leave something where an engine holds the image.
    containers = {"container_outputs", "logs/containers.log"}
    assert unused <= {"second.db", "logs/redis.log", "logs/inside_a_trial", *containers}
    assert experiments(place) == {"Default", *(name for makes in ran for name in makes.experiments)}
    assert ask(place, "SELECT alias FROM registered_model_aliases") == {"selected", "production"}


@pytest.mark.unit
def test_from_05_on_is_emptied_and_what_04_and_before_made_works(home, monkeypatch, capsys):
    monkeypatch.setenv("WORKSHOP_HOME", str(home.home))
    configure(home)
    store = apply(home)
    save_reference(store, home)
    store.materialize(NOW - pd.Timedelta(hours=2), NOW, feature_views=["driver_hourly_stats"])
    for number, name in enumerate(("feature_selection", "sweep", "training_pipeline", "my own"), 1):
        register(home, {2: "sweep", 3: "pipeline"}.get(number, "selection"), name)
    for alias, version in (("selected", 1), ("production", 3)):
        mlflow.MlflowClient().set_registered_model_alias(MODEL, alias, str(version))
    mine = [home.path / name for name in (RECORD, "executed/04_a.ipynb", f"{COPIES}/05_a.ipynb", "my file")]
    made = [
        home.path / name for name in ("optuna.db", "executed/05_a.ipynb", "logs/pipeline.log", "flights/a")
    ]
    for path in mine + made:
        path.parent.mkdir(exist_ok=True)
        path.touch()

    assert reset("05", lambda _: "no") == 0 and all(path.exists() for path in mine + made)
    assert reset("05", lambda _: "yes") == 0
    said = capsys.readouterr().out
    assert "MLflow's experiment 'sweep', its runs and models" in said and "feature_selection" not in said
    assert all(path.exists() for path in mine) and not any(path.exists() for path in made)
    assert experiments(home) == {"Default", "feature_selection", "my own"}
    assert ask(home, "SELECT alias FROM registered_model_aliases") == {"selected"}
    registry = Registry.FromString((home.path / damage.REGISTRY).read_bytes())
    assert registry.saved_datasets and not any(
        view.meta.materialization_intervals for view in registry.feature_views
    )
    tables = ask(home, "SELECT name FROM sqlite_master WHERE type = 'table'", damage.ONLINE)
    assert [ask(home, f'SELECT count(*) FROM "{table}"', damage.ONLINE) for table in tables] == [{0}] * len(
        tables
    )

    assert list(missing(begin("05"), "07")) == ["05", "06"]
    mlflow.sklearn.load_model(f"models:/{MODEL}@selected")
    register(home, "sweep", "sweep")  # the name is free again, and so is it the next time
    assert list(missing(home, "07")) == ["06"]
    assert reset("03", lambda _: "yes") == 0
    assert experiments(home) == {"Default", "my own"}
    assert list(missing(begin("03"), "05")) == []  # "my own" has a selected version, and keeps it
    assert list(missing(home, "06")) == ["03", "05"]
    assert reset("00", lambda _: "yes") == 0 and entries(home) <= OF_NO_NOTEBOOK | {
        "my file",
        "reference.parquet",
    }
    reset("00", lambda _: pytest.fail("asked"))
    assert "There is nothing to delete" in capsys.readouterr().out


@pytest.mark.unit
def test_a_reset_of_all_keeps_the_learners_own_things_and_without_a_yes_everything(
    home, tmp_path, monkeypatch
):
    monkeypatch.setenv("WORKSHOP_HOME", str(home.home))
    commands.own_copies(home.path / COPIES)
    (home.path / RECORD).touch()
    (tmp_path / "kept").touch()
    (home.path / "mlruns" / "1").mkdir(parents=True)
    (home.path / "mlruns" / "link").symlink_to(tmp_path)
    for answer in ("", "no", "y"):
        assert reset(ask=lambda _, answer=answer: answer) == 0 and (home.path / "mlruns").exists()
    assert reset(ask=lambda _: "yes") == 0 and entries(home) == {COPIES, PAGES, RECORD}
    assert any((home.path / COPIES).iterdir()) and (tmp_path / "kept").exists()
    with pytest.raises(WorkshopError, match=r"ONLY=4: there is no such notebook\. Give one of 00, 01"):
        reset("4")

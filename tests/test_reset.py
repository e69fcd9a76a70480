"""`make reset ONLY=NN` in a workspace that the whole course has filled: what that notebook and later ones made goes, and what earlier ones made still works."""

import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from fnmatch import fnmatch

import harness
import pytest
from feast.protos.feast.core.Registry_pb2 import Registry

from exercises.core import RECORD
from helpers import course, damage, extras
from helpers.workspace import REPOSITORY, WorkshopError, Workspace
from workshop import runner
from workshop.reset import COPIES, reset

MADE = {number: notebook.makes for number, notebook in course.notebooks().items()}

OF_NO_NOTEBOOK = {COPIES, RECORD, "executed", "mlflow.db", "mlruns", ".at_work.lock", ".catching_up.lock"}
OF_NO_NOTEBOOK |= {"logs/mlflow_ui.log", "logs/feast_ui.log"}  # other tests look at this home's pages
"""What is the learner's, belongs to all notebooks, or to the running itself."""


@pytest.fixture(scope="module")
def filled(place) -> Workspace:
    """The home in which every notebook has run."""
    for path in runner.with_extras(runner.choose()):
        assert not harness.once(path, place).result.failure
    return place


@pytest.fixture
def mine(filled, tmp_path):
    """A copy of it in its very place, because its databases hold whole paths. The home itself is put aside and comes back as it was."""
    aside = filled.home.with_name("aside")
    filled.home.rename(aside)
    try:
        shutil.copytree(aside, filled.home, symlinks=True)
        (filled.path / COPIES).mkdir(exist_ok=True)
        (filled.path / COPIES / "mine.ipynb").write_text("{}")
        (filled.path / RECORD).write_text('{"exercise": "2.1", "what": "solved", "at": "2025-03-01"}\n')
        yield filled
    finally:
        shutil.rmtree(filled.home)
        aside.rename(filled.home)


def in_a_process(workspace: Workspace, *command: str, answer: str = "") -> str:
    """What a command says. (In a process of its own: this one's tools keep the databases open that were put aside.)"""
    environment = {**os.environ, "WORKSHOP_HOME": str(workspace.home)}
    done = subprocess.run(
        [sys.executable, *command],
        input=answer,
        env=environment,
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    assert "Traceback" not in done.stderr and "Warning" not in done.stderr, done.stderr
    return done.stdout + done.stderr


def reset_from(number: str, workspace: Workspace, answer: str = "yes\n") -> str:
    return in_a_process(workspace, "-m", "workshop.commands", "reset", "--only", number, answer=answer)


def ask(workspace: Workspace, query: str, file: str = damage.TRACKING) -> set:
    with closing(sqlite3.connect(workspace.path / file)) as database:
        return {row[0] if len(row) == 1 else row for row in database.execute(query)}


def made_by(workspace: Workspace) -> set[str]:
    """The tags `made_by` of the model versions that are there."""
    return ask(
        workspace,
        "SELECT value FROM model_version_tags JOIN model_versions USING (name, version) WHERE key = 'made_by' AND current_stage != 'Deleted_Internal'",
    )


def feature_registry(workspace: Workspace) -> Registry:
    return Registry.FromString((workspace.path / damage.REGISTRY).read_bytes())


def entries(workspace: Workspace) -> set[str]:
    """What lies in the workspace; the folders that notebooks share are opened."""
    found = {path.relative_to(workspace.path).as_posix() for path in workspace.path.iterdir()}
    for folder in ("logs", "staging"):
        found -= {folder}
        found |= {path.relative_to(workspace.path).as_posix() for path in (workspace.path / folder).glob("*")}
    return found


def test_each_notebook_says_what_it_makes_and_the_course_leaves_nothing_else(filled):
    assert list(MADE) == [path.name[:2] for path in runner.choose()]
    ran = [made for number, made in MADE.items() if not extras.lacking(number)]
    patterns = [pattern for made in ran for pattern in made.files]
    left = entries(filled) - OF_NO_NOTEBOOK
    assert {name for name in left if not any(fnmatch(name, pattern) for pattern in patterns)} == set()
    unused = {pattern for pattern in patterns if not any(fnmatch(name, pattern) for name in left)}
    # One stands for the other where Redis is not installed; a sweep that goes on deletes the sign of the kill.
    # And the log of the containers is there where an engine holds the image.
    assert unused <= {"second.db", "logs/redis.log", "logs/inside_a_trial", "logs/containers.log"}
    experiments = [name for made in ran for name in made.experiments]
    assert ask(filled, "SELECT name FROM experiments") == {"Default", *experiments}
    aliases = [alias for made in MADE.values() for alias in made.aliases]
    assert ask(filled, "SELECT alias FROM registered_model_aliases") == set(aliases)
    assert made_by(filled) - {"flyte"} == {"selection", "sweep", "pipeline", "colleague"}  # Flyte is an extra
    assert len(feature_registry(filled).saved_datasets) > 0


READY = """
import mlflow
from helpers.start import begin, missing
print(list(missing(begin("05"), "07")))
mlflow.sklearn.load_model("models:/driver_conversion@selected")
for name in ("sweep", "training_pipeline"):
    mlflow.set_experiment(name)
"""


def test_from_05_on_is_emptied_and_what_04_and_before_made_works(mine):
    before, registry_before = entries(mine), feature_registry(mine)
    assert "Nothing was deleted." in reset_from("05", mine, answer="no\n")
    assert entries(mine) == before

    said = reset_from("05", mine)
    for line in (
        "optuna.db",
        "MLflow's experiment 'sweep', its runs and models",
        "made by pipeline",
        "the alias production of",
    ):
        assert line in said.split("Deleted.")[0]
    assert (
        "feature_selection" not in said
        and "driver_reference" not in said
        and "driver_conversion, made by selection" not in said
    )
    assert f"Deleted. Your notebooks in {mine.path / COPIES} stay, and the record of your exercises." in said

    gone = {
        name for name in before if any(fnmatch(name, p) for n in MADE if n >= "05" for p in MADE[n].files)
    }
    assert len(gone) > 10 and entries(mine) == before - gone
    assert (mine.path / RECORD).read_text().count("solved") == 1 and (
        mine.path / COPIES / "mine.ipynb"
    ).exists()
    assert ask(mine, "SELECT name FROM experiments") == {"Default", "feature_selection"}
    assert made_by(mine) == {"selection"}
    assert ask(mine, "SELECT alias FROM registered_model_aliases") == {"selected"}
    assert {f"{name}" for name in ask(mine, "SELECT experiment_id FROM experiments")} >= {
        path.name for path in (mine.path / "mlruns").iterdir() if path.name.isdigit()
    }
    assert ask(
        mine,
        "SELECT count(*) FROM logged_models WHERE experiment_id NOT IN (SELECT experiment_id FROM experiments)",
    ) == {0}
    assert {path.name[:2] for path in (mine.path / "executed").iterdir()} & {
        n for n in MADE if n >= "04"
    } == {"04"}

    registry = feature_registry(mine)
    assert registry.saved_datasets == registry_before.saved_datasets
    assert any(view.meta.materialization_intervals for view in registry_before.feature_views)
    assert not any(view.meta.materialization_intervals for view in registry.feature_views)
    tables = ask(mine, "SELECT name FROM sqlite_master WHERE type = 'table'", damage.ONLINE)
    assert len(tables) >= 2
    assert {
        count for table in tables for count in ask(mine, f'SELECT count(*) FROM "{table}"', damage.ONLINE)
    } == {0}

    said = in_a_process(mine, "-c", READY)
    assert said.startswith("Notebook 05 is ready.") and "['05', '06']" in said, said

    assert "the saved dataset driver_reference in the feature registry" in reset_from("03", mine)
    assert len(feature_registry(mine).saved_datasets) == 0 and made_by(mine) == set()
    said = in_a_process(
        mine, "-c", "from helpers.start import begin, missing; print(list(missing(begin('03'), '07')))"
    )
    assert said.startswith("Notebook 03 is ready.") and "['03', '04', '05', '06']" in said, said

    reset_from("00", mine)
    assert entries(mine) <= OF_NO_NOTEBOOK
    assert "There is nothing to delete" in reset_from("00", mine)


def test_a_workspace_that_was_copied_is_not_emptied_in_part_because_the_files_are_the_others(
    filled, tmp_path
):
    copy = Workspace(tmp_path / "copy", filled.seed)
    shutil.copytree(filled.home, copy.home)
    said = reset_from("05", copy)
    assert "keeps its files in" in said and "which was copied or moved" in said and "Deleted" not in said
    assert entries(copy) == entries(filled)


def test_a_notebook_that_does_not_exist_is_named(home, monkeypatch):
    monkeypatch.setenv("WORKSHOP_HOME", str(home.home))
    with pytest.raises(WorkshopError, match=r"ONLY=4: there is no such notebook\. Give one of 00, 01"):
        reset("4")


def test_make_passes_the_number_on():
    done = subprocess.run(["make", "-n", "reset", "ONLY=05"], cwd=REPOSITORY, capture_output=True, text=True)
    assert "workshop.commands reset --only 05" in done.stdout

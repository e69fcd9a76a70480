"""`make reset`: empties the learner's workspace, whole, or of what one notebook and those after it made
(`ONLY=05`)."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from exercises.core import RECORD
from helpers import course, damage
from helpers.course import Makes
from helpers.start import MODEL, one_at_a_time
from helpers.workspace import WorkshopError, Workspace, locate, quiet

if TYPE_CHECKING:
    from feast.protos.feast.core.Registry_pb2 import Registry
    from mlflow import MlflowClient
    from mlflow.entities import Experiment

COPIES = "notebooks"  # the folder of a workspace in which a learner works
PAGES = "docs"  # the copies of the pages that notebooks link to
_Thing = tuple[str, Callable[[], object]]  # what is shown before the question, and what deletes it


def reset(only: str | None = None, ask: Callable[[str], str] = input) -> int:
    """Empty the learner's workspace, after asking.

    The copies of the notebooks and the record of the exercises stay.

    Args:
        only: a notebook's number: delete what this one and those after it made, and nothing else.
        ask: puts the question.

    Returns:
        An exit code.

    Raises:
        WorkshopError: there is no such notebook, or a database is damaged.
    """
    workspace = locate()
    copies = workspace.path / COPIES
    if only is None:
        kept = {COPIES, PAGES, RECORD}
        found = sorted(workspace.path.iterdir()) if workspace.path.exists() else []
        things: list[_Thing] = [
            (path.name, partial(_remove, path)) for path in found if path.name not in kept
        ]
    else:
        things = _made_from(workspace, only)
    what = f"what notebook {only} and those after it made" if only else "all that your runs produced"
    stays = f"Your notebooks in {copies} stay, and the record of your exercises." if copies.exists() else ""
    if not things:
        print(f"There is nothing to delete in {workspace.path}. {stays}".strip())
        return 0
    shown = "\n  ".join(text for text, _ in things)
    print(f"This deletes {what} in {workspace.path}:\n  {shown}\n{stays}".rstrip())
    try:
        answer = ask("Type yes to delete it: ")
    except EOFError:
        answer = ""
    if answer.strip().lower() != "yes":
        print("Nothing was deleted.")
        return 0  # as asked: make would call another one an error
    with one_at_a_time(workspace) if only else contextlib.nullcontext():
        for _, delete in things:
            delete()
    print(" ".join(filter(None, ["Deleted.", stays, "Restart the kernels of notebooks that are open."])))
    return 0


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _made_from(workspace: Workspace, first: str) -> list[_Thing]:
    """What the notebook ``first`` and those after it have left: in MLflow, in Feast, and as files."""
    every = course.notebooks()
    if first not in every:
        raise WorkshopError(f"ONLY={first}: there is no such notebook. Give one of {', '.join(every)}.")
    import feast  # noqa: F401  # before it, as in `begin`

    quiet()
    damage.check(workspace)
    made = {number: notebook.makes for number, notebook in every.items() if number >= first}
    patterns = [pattern for makes in made.values() for pattern in makes.files]
    patterns += [f"executed/{number}_*" for number in made]
    files = sorted({path for pattern in patterns for path in workspace.path.glob(pattern)})
    things: list[_Thing] = []
    if (workspace.path / damage.TRACKING).exists():
        things += _in_mlflow(workspace, list(made.values()))
    registry = workspace.path / damage.REGISTRY
    if registry.exists() and registry not in files:
        things += _in_feast(registry, workspace.path / damage.ONLINE, list(made.values()))
    return things + [(path.relative_to(workspace.path).as_posix(), partial(_remove, path)) for path in files]


def _in_mlflow(workspace: Workspace, made: list[Makes]) -> list[_Thing]:
    from mlflow import MlflowClient
    from mlflow.entities import ViewType

    client = MlflowClient(workspace.tracking_uri)
    names = {name for makes in made for name in makes.experiments}
    aliases = {alias for makes in made for alias in makes.aliases}
    things: list[_Thing] = [
        (f"the alias {alias} of {MODEL}", partial(client.delete_registered_model_alias, MODEL, alias))
        for model in client.search_registered_models(f"name = '{MODEL}'")
        for alias in sorted(aliases & set(model.aliases))
    ]
    for experiment in client.search_experiments(ViewType.ALL):
        if experiment.name in names:
            text = f"MLflow's experiment {experiment.name!r}, its runs and models"
            things.append((text, partial(_delete_experiment, workspace, client, experiment)))
    return things


def _delete_experiment(workspace: Workspace, client: MlflowClient, experiment: Experiment) -> None:
    """Delete it with the model versions of its runs.

    MLflow only marks an experiment as deleted: another name frees its own.
    """
    from mlflow.entities import ViewType
    from mlflow.utils.file_utils import local_file_uri_to_path

    number = experiment.experiment_id
    runs = client.search_runs([number], run_view_type=ViewType.ALL, max_results=50_000)
    ids = {run.info.run_id for run in runs}
    for version in client.search_model_versions(max_results=10_000):
        if version.run_id in ids:
            client.delete_model_version(version.name, version.version)
            if not client.search_model_versions(f"name = '{version.name}'"):
                client.delete_registered_model(version.name)  # then the numbers begin at 1 again
    if experiment.lifecycle_stage == "deleted":
        client.restore_experiment(number)
    client.rename_experiment(number, f"{experiment.name} (deleted, {number})")
    client.delete_experiment(number)
    files = Path(local_file_uri_to_path(experiment.artifact_location))
    if workspace.path in files.parents:  # in a copied workspace, they are the other one's
        shutil.rmtree(files, ignore_errors=True)


def _in_feast(registry: Path, online: Path, made: list[Makes]) -> list[_Thing]:
    things: list[_Thing] = []
    if any(makes.saved_datasets for makes in made) and _read(registry).saved_datasets:
        things.append(("the saved datasets in the feature registry", partial(_forget_datasets, registry)))
    if any(makes.online_values for makes in made) and online.exists():
        with contextlib.closing(sqlite3.connect(online)) as database:
            rows = sum(
                database.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in _tables(database)
            )
        if rows:
            things.append((f"{rows:,} values in the online store", partial(_empty, registry, online)))
    return things


def _read(registry: Path) -> Registry:
    from feast.protos.feast.core.Registry_pb2 import Registry

    return Registry.FromString(registry.read_bytes())


def _write(registry: Path, content: Registry) -> None:
    partial_file = registry.with_suffix(".partial")
    partial_file.write_bytes(content.SerializeToString())
    partial_file.rename(registry)


def _forget_datasets(registry: Path) -> None:
    content = _read(registry)
    content.ClearField("saved_datasets")
    content.ClearField("validation_references")  # each is of a saved dataset
    _write(registry, content)


def _empty(registry: Path, online: Path) -> None:
    """Delete the values of the online store; its tables stay.

    Feast begins again, not where the deleted values ended.
    """
    with contextlib.closing(sqlite3.connect(online)) as database, database:
        for table in _tables(database):
            database.execute(f"DELETE FROM {table}")
    content = _read(registry)
    for view in content.feature_views:
        view.meta.ClearField("materialization_intervals")
        view.meta.ClearField("state")
    _write(registry, content)


def _tables(database: sqlite3.Connection) -> list[str]:
    """The names of its tables, quoted."""
    query = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
    return [f'"{name}"' for (name,) in database.execute(query)]

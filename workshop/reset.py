"""`make reset`: the learner's workspace emptied, whole, or what one notebook and those after it made (`ONLY=05`)."""

from __future__ import annotations

import contextlib
import io
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from exercises.core import RECORD
from helpers import course, damage
from helpers.start import MODEL, one_at_a_time
from helpers.workspace import WorkshopError, Workspace, locate, quiet

if TYPE_CHECKING:
    from feast.protos.feast.core.Registry_pb2 import Registry
    from mlflow.entities import Experiment
    from mlflow.entities.model_registry import ModelVersion

COPIES = "notebooks"  # the folder of a workspace in which a learner works


def reset(only: str | None = None, ask: Callable[[str], str] = input) -> int:
    """Empty the learner's workspace, after asking. The copies of the notebooks and the record of the exercises are the learner's own work, and stay.

    Args:
        only: a notebook's number: what this one and those after it made, and nothing else.
        ask: puts the question.

    Returns:
        An exit code.

    Raises:
        WorkshopError: there is no such notebook, or a database cannot be emptied in part.
    """
    workspace = locate()
    copies, record = workspace.path / COPIES, workspace.path / RECORD
    if only is None:
        found = sorted(workspace.path.iterdir()) if workspace.path.exists() else []
        gone = [path for path in found if path not in (copies, record)]
        shown, delete = [path.name for path in gone], lambda: _delete(gone)
    else:
        part = _Part(workspace, only)
        shown, delete = part.shown(), part.delete
    what = f"what notebook {only} and those after it made" if only else "all that your runs produced"
    kept = f"Your notebooks in {copies} stay, and the record of your exercises." if copies.exists() else ""
    if not shown:
        print(f"There is nothing to delete in {workspace.path}. {kept}".strip())
        return 0
    print(f"This deletes {what} in {workspace.path}:\n  " + "\n  ".join(shown) + f"\n{kept}".rstrip())
    try:
        answer = ask("Type yes to delete it: ")
    except EOFError:
        answer = ""
    if answer.strip().lower() != "yes":
        print("Nothing was deleted.")
        return 1
    delete()
    print(" ".join(filter(None, ["Deleted.", kept, "Restart the kernels of notebooks that are open."])))
    return 0


def _delete(paths: list[Path]) -> None:
    for path in paths:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


class _Part:
    """What a notebook and those after it made in a workspace."""

    def __init__(self, workspace: Workspace, first: str) -> None:
        every = course.notebooks()
        if first not in every:
            raise WorkshopError(f"ONLY={first}: there is no such notebook. Give one of {', '.join(every)}.")
        import feast  # noqa: F401  # before it, as in `begin`

        quiet()
        damage.check(workspace)
        self.workspace = workspace
        self.registry, self.online = workspace.path / damage.REGISTRY, workspace.path / damage.ONLINE
        made = {number: found.makes for number, found in every.items() if number >= first}
        patterns = [pattern for found in made.values() for pattern in found.files]
        patterns += [f"executed/{number}_*" for number in made]
        self.files = sorted({path for pattern in patterns for path in workspace.path.glob(pattern)})
        self.saved_datasets = (
            self._saved_datasets() if any(found.saved_datasets for found in made.values()) else []
        )
        self.rows = self._online_rows() if any(found.online_values for found in made.values()) else 0
        self.experiments: list[Experiment] = []
        self.runs: list[str] = []
        self.versions: list[ModelVersion] = []
        self.aliases: list[str] = []
        names = [name for found in made.values() for name in found.experiments]
        if not (names and (workspace.path / damage.TRACKING).exists()):
            return
        from mlflow import MlflowClient

        self.client = MlflowClient(workspace.tracking_uri)
        self._look_up(names, [alias for found in made.values() for alias in found.aliases])

    def _look_up(self, names: list[str], aliases: list[str]) -> None:
        from mlflow.entities import ViewType
        from mlflow.utils.file_utils import local_file_uri_to_path

        for experiment in self.client.search_experiments(ViewType.ALL):
            if experiment.name not in names:
                continue
            self.experiments.append(experiment)
            place = Path(local_file_uri_to_path(experiment.artifact_location))
            if self.workspace.path not in place.parents:
                raise WorkshopError(
                    f"MLflow's experiment {experiment.name!r} keeps its files in {place}, and not in this workspace, which was copied or moved. "
                    "Only the whole can be emptied safely: `make reset`."
                )
        if self.experiments:
            ids = [experiment.experiment_id for experiment in self.experiments]
            self.runs = [
                run.info.run_id for run in _pages(self.client.search_runs, ids, run_view_type=ViewType.ALL)
            ]
        for model in _pages(self.client.search_registered_models):
            if model.name == MODEL:
                self.aliases = [alias for alias in aliases if alias in model.aliases]
            every = _pages(self.client.search_model_versions, f"name = '{model.name}'")
            self.versions += [version for version in every if version.run_id in self.runs]

    def _saved_datasets(self) -> list[str]:
        return [dataset.spec.name for dataset in self._read_registry().saved_datasets]

    def _read_registry(self) -> Registry:
        from feast.protos.feast.core.Registry_pb2 import Registry

        return Registry.FromString(self.registry.read_bytes() if self.registry.exists() else b"")

    def _online_rows(self) -> int:
        if not self.online.exists():
            return 0
        with closing(sqlite3.connect(self.online)) as database:
            return sum(
                database.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in _tables(database)
            )

    def shown(self) -> list[str]:
        """A line for each thing that would be deleted."""
        lines = [path.relative_to(self.workspace.path).as_posix() for path in self.files]
        lines += [
            f"MLflow's experiment {experiment.name!r}, its runs and models" for experiment in self.experiments
        ]
        lines += [
            f"version {version.version} of {version.name}, made by {version.tags.get('made_by', 'you')}"
            for version in sorted(self.versions, key=lambda version: (version.name, int(version.version)))
        ]
        lines += [f"the alias {alias} of {MODEL}" for alias in self.aliases]
        if self.registry not in self.files:
            lines += [f"the saved dataset {name} in the feature registry" for name in self.saved_datasets]
        if self.rows and self.online not in self.files:
            lines.append(f"{self.rows:,} values in the online store")
        return lines

    def delete(self) -> None:
        """Delete it. What MLflow only marks as deleted is purged as well, so that the names are free again."""
        with one_at_a_time(self.workspace):
            if self.experiments or self.aliases:
                self._delete_from_mlflow()
            if self.registry not in self.files and self.registry.exists():
                self._delete_from_feast()
            _delete(self.files)

    def _delete_from_mlflow(self) -> None:
        from mlflow.cli import gc
        from mlflow.utils.file_utils import local_file_uri_to_path

        for alias in self.aliases:
            self.client.delete_registered_model_alias(MODEL, alias)
        for version in self.versions:
            self.client.delete_model_version(version.name, version.version)
        for name in {version.name for version in self.versions}:
            if not self.client.search_model_versions(f"name = '{name}'"):
                self.client.delete_registered_model(name)  # then the numbers begin at 1 again
        if not self.experiments:
            return
        ids = [experiment.experiment_id for experiment in self.experiments]
        models = [model.model_id for model in _pages(self.client.search_logged_models, ids)]
        for model in models:
            self.client.delete_logged_model(model)
        for experiment in self.experiments:
            if experiment.lifecycle_stage == "active":
                self.client.delete_experiment(experiment.experiment_id)
        uri = self.workspace.tracking_uri
        what = ["--backend-store-uri", uri, "--tracking-uri", uri, "--experiment-ids", ",".join(ids)]
        # Without these two, it also purges whatever else a learner has deleted.
        what += ["--run-ids", ",".join(self.runs)] if self.runs else []
        what += ["--logged-model-ids", ",".join(models)] if models else []
        with contextlib.redirect_stdout(io.StringIO()):  # a line for each run
            gc.main(what, standalone_mode=False)
        _delete(
            [Path(local_file_uri_to_path(experiment.artifact_location)) for experiment in self.experiments]
        )

    def _delete_from_feast(self) -> None:
        registry = self._read_registry()
        if self.saved_datasets:
            registry.ClearField("saved_datasets")
            registry.ClearField("validation_references")  # each is of a saved dataset
        if self.rows:
            with closing(sqlite3.connect(self.online)) as database, database:
                for table in _tables(database):
                    database.execute(f"DELETE FROM {table}")
            for view in registry.feature_views:  # else Feast would take up where the deleted rows ended
                view.meta.ClearField("materialization_intervals")
                view.meta.ClearField("state")
        if self.saved_datasets or self.rows:
            partial = self.registry.with_suffix(".partial")
            partial.write_bytes(registry.SerializeToString())
            partial.rename(self.registry)


def _tables(database: sqlite3.Connection) -> list[str]:
    """The names of its tables, quoted."""
    return [
        '"' + name.replace('"', '""') + '"'
        for (name,) in database.execute(
            "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
        )
    ]


def _pages(search: Callable, *given: object, **options: object) -> Iterator:
    """All that a search of MLflow finds, page after page."""
    token = None
    while True:
        page = search(*given, **options, page_token=token)
        yield from page
        token = page.token
        if not token:
            return

"""``begin``: the first call of each notebook.

It checks the environment, and catches up when an earlier notebook has not run.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import os
import re
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from helpers import checks, course, damage, data, extras, registry, run
from helpers.workspace import (
    REPOSITORY,
    WorkshopError,
    Workspace,
    alone,
    backend,
    check_room,
    configure,
    locate,
    quiet,
)

MODEL = "driver_conversion"
"""The registered model's name in MLflow."""
REFERENCE = "driver_reference"
"""The saved dataset of the reference period, in Feast's registry; it carries the expectation suite."""


def check_environment() -> dict[str, str]:
    """The versions of the tools, by distribution name.

    Raises:
        WorkshopError: Python or a package is missing, or not of the version that the lock names; with what to
            do.
    """
    if not (3, 11) <= sys.version_info[:2] <= (3, 13):
        raise WorkshopError(
            f"Python {sys.version.split()[0]} runs this notebook; the lock is for 3.11 to 3.13. Choose the "
            "workshop's kernel, or run `make lab`."
        )
    try:
        requirements = importlib.metadata.requires("feast-mlflow-kubeflow-workshop") or []
    except importlib.metadata.PackageNotFoundError:
        raise WorkshopError(
            "the workshop is not installed in this kernel's environment. Run `make lab`, or `pip install "
            "--no-deps -e .` in the clone."
        ) from None
    from packaging.requirements import Requirement

    found, wrong = {}, []
    for text in requirements:
        requirement = Requirement(text)
        try:
            found[requirement.name] = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            wrong.append(f"{requirement.name} is missing")
            continue
        if not requirement.specifier.contains(found[requirement.name], prereleases=True):
            wrong.append(
                f"{requirement.name} {found[requirement.name]} is installed, {requirement.specifier} is "
                "needed"
            )
    if wrong:
        raise WorkshopError(
            f"this environment is not the lock's: {'; '.join(wrong)}. In the clone: `rm .venv/current`, "
            "then `make lab`."
        )
    return found


def _registry_exists(workspace: Workspace) -> bool:
    """Whether the registry is there, with the online store, whose tables only an apply makes.

    (A read that fails leaves an empty file.)
    """
    if backend() == "kubernetes":  # a job has applied the definitions to a registry in a database
        from feast import FeatureStore

        return bool(FeatureStore(repo_path=str(workspace.feature_repo)).list_feature_services())
    files = [workspace.path / name for name in ("registry.db", "online_store.db")]
    return all(file.exists() and file.stat().st_size for file in files)


def _model_versions(workspace: Workspace, made_by: str) -> bool:
    """Whether the newest version with this tag is there, with its files: database and artifacts are two
    places, and one can be lost."""
    on_server = backend() == "kubernetes"
    if not on_server and not (workspace.path / "mlflow.db").exists():
        return False
    from mlflow import MlflowClient
    from mlflow.utils.file_utils import local_file_uri_to_path

    client = MlflowClient(workspace.tracking_uri)
    versions = client.search_model_versions(f"name = '{MODEL}' and tag.made_by = '{made_by}'")
    if not versions or on_server:  # files behind a server are the server's concern
        return bool(versions)
    newest = max(versions, key=lambda version: int(version.version))
    files = local_file_uri_to_path(client.get_model_version_download_uri(MODEL, newest.version))
    return (Path(files) / "MLmodel").exists()


def _promoted(workspace: Workspace) -> bool:
    """Whether the alias ``production`` names a version whose files are there."""
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    if not _model_versions(workspace, "pipeline"):
        return False
    try:
        return bool(MlflowClient(workspace.tracking_uri).get_model_version_by_alias(MODEL, "production"))
    except MlflowException:
        return False


def _suite_stored(workspace: Workspace) -> bool:
    """Whether the saved dataset is there, with its file: the registry holds only its place."""
    if not _registry_exists(workspace):
        return False
    from feast import FeatureStore
    from feast.infra.offline_stores.file_source import SavedDatasetFileStorage

    storages = {
        dataset.name: dataset.storage
        for dataset in FeatureStore(repo_path=str(workspace.feature_repo)).list_saved_datasets()
    }
    storage = storages.get(REFERENCE)
    return isinstance(storage, SavedDatasetFileStorage) and Path(storage.file_options.uri).exists()


_IS_THERE: dict[str, Callable[[Workspace], bool]] = {
    "registry": _registry_exists,
    "suite": _suite_stored,
    "selected": lambda workspace: _model_versions(workspace, "selection"),
    "tuned": lambda workspace: _model_versions(workspace, "sweep"),
    "pipeline": lambda workspace: _model_versions(workspace, "pipeline"),
    "production": _promoted,
}
"""How to see that what ``course.toml`` calls by this name is there."""


CATCHING_UP = "WORKSHOP_CATCHING_UP"
"""Set in the kernels of a catch-up: they do not wait for it, and start no other."""


def missing(workspace: Workspace, number: str) -> dict[str, str]:
    """What must be made before notebook ``number`` can begin, by the notebook that makes it, in order; what
    those need in turn included."""
    found: dict[str, str] = {}
    for key in course.notebooks()[number].needs:
        need = course.needs()[key]
        if need.made_by not in found and not _IS_THERE[key](workspace):
            found |= {need.made_by: need.name, **missing(workspace, need.made_by)}
    return dict(sorted(found.items()))


def begin(number: str, seed: int = data.SEED) -> Workspace:
    """Make this notebook ready to run: environment, data, workspace, and what earlier notebooks leave behind.

    What is missing is made by running the notebooks that make it with papermill. The working directory
    becomes the workspace folder.

    Args:
        number: of this notebook, such as ``"04"``.
        seed: of the data; another than the committed one works in a workspace of its own.

    Returns:
        The paths of the workspace.

    Raises:
        WorkshopError: a seed that is no number, a wrong environment, a folder that cannot be written, a
            damaged file of state, a stale registry, or an earlier notebook that failed; the message says what
            to do.
        helpers.data.DataError: a data file is missing or damaged, or holds other data than the course works
        on.
    """
    if number not in course.notebooks():
        raise WorkshopError(f"there is no notebook {number!r}; there are {', '.join(course.notebooks())}.")
    if not isinstance(seed, int):
        raise WorkshopError(f"seed = {seed!r}: a seed is a whole number of 0 or more.")
    check_environment()
    if found := extras.lacking(number):
        raise WorkshopError(f"this notebook needs more than the others: {found}")
    workspace = locate(seed)
    check_room(workspace.path)
    configure(workspace)

    import feast  # noqa: F401  # here, so that its own warning filters are in place before ours

    quiet()
    checks.watch(number)
    damage.check(workspace)
    _catch_up(workspace, number)
    needs = course.notebooks()[number].needs
    if needs:
        registry.check(workspace)
    have = ", ".join(course.needs()[key].name for key in needs) or "nothing from earlier notebooks"
    print(
        f"Notebook {number} is ready. Data seed {workspace.seed}, clock {data.NOW:%Y-%m-%d}. Needs: {have}."
    )
    return workspace


def one_at_a_time(workspace: Workspace) -> AbstractContextManager[None]:
    """Who catches up in a workspace holds this; the others wait, and say so."""
    return alone(
        workspace.path / ".catching_up.lock",
        "Another notebook is catching up in this workspace; this one waits for it.",
    )


def _catch_up(workspace: Workspace, number: str) -> None:
    """Have what is missing made in a process of its own, and pass on its progress."""
    if CATCHING_UP not in os.environ:
        with one_at_a_time(workspace):  # what exists may still be half made
            pass
    gone = missing(workspace, number)
    if not gone:
        return
    if CATCHING_UP in os.environ:
        raise WorkshopError(f"{', '.join(gone.values())}: still missing after notebook {', '.join(gone)}.")
    print(
        f"Missing: {', '.join(gone.values())}. Running the notebooks that make it; this happens once.",
        flush=True,
    )
    log = workspace.path / "logs" / "catching_up.log"
    log.parent.mkdir(exist_ok=True)
    with (
        log.open("w") as warned,
        subprocess.Popen(
            [
                sys.executable,
                "-P",
                "-m",
                "helpers.start",
                str(workspace.home),
                number,
            ],  # _make_missing, below
            stdin=subprocess.PIPE,  # its end tells that process that this kernel is gone
            stdout=subprocess.PIPE,
            stderr=warned,
            cwd=workspace.path,  # MLflow makes a folder where it is called
            env=_plain_environment(),
        ) as process,
    ):
        # A line that ends with a carriage return is written over by the next.
        for line in io.TextIOWrapper(process.stdout or io.BytesIO(), newline=""):
            print("  " + line, end="", flush=True)
    if process.returncode:
        raise WorkshopError(
            f"an earlier notebook failed, so {number} cannot start. Open the one named above, fix it, "
            f"and run this cell again. What the tools said is in {log}."
        )


def _plain_environment() -> dict[str, str]:
    """This process's environment without what belongs to this kernel alone."""
    return {
        name: value
        for name, value in os.environ.items()
        if not re.match(r"(JPY_|PYDEVD_|IPYKERNEL|WORKSHOP_HOME)", name)
    }


def _make_missing(home: Path, number: str) -> int:
    """Run what is missing for notebook ``number``, and nothing else. Ends when standard input does."""
    threading.Thread(target=lambda: (os.read(0, 1), os._exit(1)), daemon=True).start()
    os.environ[CATCHING_UP] = number
    # `missing` asks MLflow, and this process has no filters of a notebook's.
    warnings.filterwarnings("ignore", message=r"(?s).*``noload`` loader strategy is deprecated")
    workspace = Workspace(home, data.seed_of(home / "data"))
    copies = workspace.path / "executed"
    with one_at_a_time(workspace):
        # Looked up again: another notebook may just have made it.
        made = [course.notebooks()[maker] for maker in missing(workspace, number)]
        if made:
            seconds = sum(notebook.seconds for notebook in made)
            print(f"{len(made)} to run, about {seconds} s on two idle cores.", flush=True)
        notebooks = [REPOSITORY / "notebooks" / f"{notebook.stem}.ipynb" for notebook in made]
        results = run.run(notebooks, workspace, copies, plain=True)
    with contextlib.redirect_stderr(sys.stdout):
        return 1 if run.failures(results, copies) else 0


if __name__ == "__main__":
    sys.exit(_make_missing(Path(sys.argv[1]), sys.argv[2]))

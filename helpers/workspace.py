"""Where everything lives: paths, the fixed clock, and the settings that make each tool keep its state in one
folder."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import sys
import time
import urllib.request
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from helpers import data
from helpers.errors import Told
from lifecycle.settings import FILE, Settings

BACKENDS = ("local", "kubernetes")
NOW = data.NOW
REPOSITORY = Path(__file__).resolve().parent.parent

# No proxy of the environment belongs between the course and its own servers. Clients read either spelling.
_proxies = urllib.request.getproxies_environment()
if set(_proxies) - {"no"} and _proxies.get("no") != "*":
    _direct = dict.fromkeys([*filter(None, _proxies.get("no", "").split(",")), "127.0.0.1", "localhost"])
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = ",".join(_direct)


class WorkshopError(Told, RuntimeError):
    """Something a learner can put right; the message says how."""


def backend() -> str:
    """Where work is to run, ``"local"`` or ``"kubernetes"``: the environment variable ``BACKEND``, else
    ``"local"``.

    Raises:
        WorkshopError: ``BACKEND`` is another word.
    """
    chosen = os.environ.get("BACKEND") or "local"
    if chosen not in BACKENDS:
        raise WorkshopError(
            f"BACKEND is {chosen!r}: set it to 'local' or 'kubernetes', or unset it: then it is 'local'."
        )
    return chosen


@dataclass(frozen=True)
class Workspace:
    """The folders of one run of the course.

    ``home`` holds ``data/``, ``feature_repo/`` and ``workspace/`` side by side. It is the repository, or a
    folder laid out like it: `make run` and other data seeds have homes of their own, so that nothing touches
    what a learner has made.
    """

    home: Path
    seed: int = data.SEED

    @property
    def data(self) -> Path:
        """The parquet files."""
        return self.home / "data"

    @property
    def feature_repo(self) -> Path:
        """``feature_store.yaml`` and the definitions."""
        return self.home / "feature_repo"

    @property
    def path(self) -> Path:
        """All state: registry, online store, MLflow database and artifacts, pipeline files, reports."""
        return self.home / "workspace"

    @property
    def tracking_uri(self) -> str:
        """MLflow's database as an absolute address: MLflow's own default depends on the working directory. On
        a cluster its server's."""
        if backend() == "kubernetes":
            return os.environ.get("MLFLOW_TRACKING_URI", "")
        return f"sqlite:///{(self.path / 'mlflow.db').as_posix()}"

    @property
    def settings(self) -> Settings:
        """The course's settings, with paths of this home. In a pod, the environment names image and
        namespace."""
        given = {
            "namespace": os.environ.get("LIFECYCLE_NAMESPACE"),
            "image": os.environ.get("LIFECYCLE_IMAGE"),
        }
        cluster = {name: value for name, value in given.items() if value}
        return Settings.load(REPOSITORY / FILE, folder=self.home, cluster=cluster)


def chosen_home() -> Path:
    """The folder that ``WORKSHOP_HOME`` names, else this repository.

    A folder that is new or empty is laid out as a home.

    Raises:
        WorkshopError: the folder is something else, or a new one cannot be written.
        helpers.data.DataError: a data file is missing or damaged, or holds other data.
    """
    home = Path(os.environ.get("WORKSHOP_HOME") or REPOSITORY).expanduser().resolve()
    if {"'", '"'} <= set(str(home)):
        raise WorkshopError(
            f"{home} has both kinds of quotes in its name, which MLflow cannot write into its database. "
            "Rename a folder, or set WORKSHOP_HOME to another."
        )
    if not home.exists() or (home.is_dir() and not any(home.iterdir())):
        create_home(home)
    if not (home / "feature_repo" / "feature_store.yaml").exists():
        raise WorkshopError(
            f"no feature_repo/feature_store.yaml in {home}. Install the workshop from its clone (`make lab` "
            "does), or set WORKSHOP_HOME to the clone or to an empty folder."
        )
    data.check_files(home / "data")
    return home


def locate(seed: int = data.SEED) -> Workspace:
    """The workspace for a data seed in the chosen home.

    Another seed than that of the home's data gets its own home inside, with its own data.

    Raises:
        WorkshopError: see ``chosen_home``.
        helpers.data.DataError: see ``chosen_home``; the seed is below 0.
    """
    home = chosen_home()
    if seed == data.seed_of(home / "data"):
        return Workspace(home, seed)
    own = home / "workspace" / f"seed-{seed}"
    if not own.exists():
        create_home(own, seed=seed, source=home)
    return Workspace(own, seed)


def create_home(home: Path, *, seed: int = data.SEED, source: Path = REPOSITORY) -> Workspace:
    """Lay out a new home: the definitions of ``source``, the data of ``seed``, an empty workspace.

    Complete or not at all.

    Raises:
        WorkshopError: the folder cannot be written.
    """
    check_room(home)
    exists = home.exists()  # an empty folder that somebody chose, perhaps a mount: it is filled where it is
    # Two processes may lay out one home.
    partial = (home if exists else home.parent) / f".{home.name}.{os.getpid()}.partial"
    ignore = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints", "feast_monitoring")
    try:
        shutil.copytree(source / "feature_repo", partial / "feature_repo", ignore=ignore)
        if seed == data.seed_of(source / "data"):
            shutil.copytree(source / "data", partial / "data")
        else:
            data.write(partial / "data", seed=seed)
        (partial / "workspace").mkdir()
        if exists:
            for name in ("data", "workspace", "feature_repo"):  # the last one makes it a home
                (partial / name).rename(home / name)
        else:
            partial.rename(home)
    except OSError as error:
        if not (home / "feature_repo").exists():  # else another process was faster
            raise unwritten(home, error) from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return Workspace(home, seed)


ROOM = 60_000_000
"""Bytes that must be free to begin.

The whole course leaves some 20 MB in a workspace, and each repeated notebook a few more.
"""
FULL = 5_000_000
"""When less than this is free after something went wrong, that is why."""


def check_room(folder: Path, needed: int = ROOM) -> None:
    """Raise WorkshopError, with the way out, when ``folder`` is read-only or less than ``needed`` bytes are
    free there. It need not exist."""
    there = next(place for place in (folder, *folder.parents) if place.exists())
    if not os.access(there, os.W_OK):
        raise WorkshopError(
            f"{there} is read-only, and {folder.name}/ is to be written there. "
            "Set WORKSHOP_HOME to a folder that you can write, new or empty: `WORKSHOP_HOME=~/my-workshop "
            "make lab`."
        )
    free = shutil.disk_usage(there).free
    if free < needed:
        raise WorkshopError(
            f"the disk is full: {free / 1e6:.0f} MB are free at {there}, and the course needs "
            f"{ROOM / 1e6:.0f} MB. "
            "Make room there, or set WORKSHOP_HOME to a folder on another disk; what is complete stays as "
            "it is."
        )


def unwritten(folder: Path, error: OSError) -> WorkshopError:
    """What a file error in ``folder`` means to a learner, in a sentence."""
    try:
        check_room(folder, FULL)
    except WorkshopError as found:
        return found
    why = error.strerror or str(error)
    if isinstance(error, shutil.Error):  # a list of (from, to, "[Errno 27] why: 'from' -> 'to'")
        why = error.args[0][0][2].partition("] ")[2].partition(":")[0]
    return WorkshopError(
        f"{folder} could not be written: {why}. Mend that, or set WORKSHOP_HOME to another folder; what is "
        "complete stays as it is."
    )


@contextlib.contextmanager
def alone(lock: Path, waiting: str) -> Iterator[None]:
    """Hold the file ``lock``, one process at a time; print ``waiting`` when another one has it.

    The lock is the operating system's: when its process ends, however that happens, it is free.
    """
    import fcntl

    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(waiting, flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


# Each line of noise, and why a learner need not see it. Anything else still shows.
_NOISE = [
    # Feast calls its interface stable in the same sentence.
    ("On demand feature view is an experimental feature", RuntimeWarning),
    ("Saving dataset is an experimental feature", RuntimeWarning),
    ("Dataset validation is an experimental feature", RuntimeWarning),
    ("Retrieving datasets is an experimental feature", RuntimeWarning),
    # Feast's monitoring, on its first, empty tables.
    ("The behavior of DataFrame concatenation with empty", FutureWarning),
    (r"fetch_arrow_table\(\) is deprecated", DeprecationWarning),  # between ibis and DuckDB
    (r"(?s)Hint: Inferred schema contains integer", UserWarning),  # keys and labels are never missing here
    ("X does not have valid feature names", UserWarning),  # the model server compares the names itself
    ("`y_pred` was renamed to `y_proba`", FutureWarning),  # between MLflow's autolog and scikit-learn 1.9
    # Between Kubeflow's SDK and pydantic, and between MLflow and SQLAlchemy 2.1.
    ("Support for class-based `config` is deprecated", DeprecationWarning),
    (r"(?s).*``noload`` loader strategy is deprecated", DeprecationWarning),
    (r"numpy\.core is deprecated", DeprecationWarning),  # between Evidently and NumPy 2
    # In Evidently, when Python compiles it for the first time; the second from Python 3.12 on.
    ("invalid escape sequence", DeprecationWarning),
    ("invalid escape sequence", SyntaxWarning),
    # Evidently, litestar.
    (r"(Call to deprecated function|Use of deprecated class) 'Dependency", DeprecationWarning),
]


_current: Workspace | None = None


def current() -> Workspace:
    """The workspace that this process works in.

    Raises:
        WorkshopError: none was begun.
    """
    if _current is None:
        raise WorkshopError("run the notebook's first cells: the one with `begin` opens the workspace.")
    return _current


def _check_backend(workspace: Workspace) -> None:
    """With ``BACKEND=kubernetes``, the steps log elsewhere: this process must read the same MLflow.

    Raises:
        WorkshopError: ``BACKEND`` is an unknown word, or the tracking address is that of no server.
    """
    if backend() == "local":
        return
    if not workspace.tracking_uri.startswith("http"):
        raise WorkshopError(
            "BACKEND=kubernetes needs MLflow's server, the same for this notebook and for the steps. Set "
            "MLFLOW_TRACKING_URI to its address, or unset BACKEND."
        )


def configure(workspace: Workspace) -> None:
    """Point every tool of this process, and of the processes it starts, at the workspace.

    The working directory becomes the workspace: MLflow, Feast and OpenLineage write some files to wherever
    they are started. UTC becomes the time zone, so that what a tool prints in local time is the same on every
    machine.
    """
    global _current
    _check_backend(workspace)
    _current = workspace
    workspace.path.mkdir(parents=True, exist_ok=True)
    os.chdir(workspace.path)
    # The pipeline runner and some of MLflow's commands start `python` by name: it must be this one.
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    os.environ.update(
        MLFLOW_TRACKING_URI=workspace.tracking_uri,
        MLFLOW_DISABLE_TELEMETRY="true",
        DO_NOT_TRACK="true",
        GX_ANALYTICS_ENABLED="false",
        FEAST_USAGE="false",
        MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR="false",
        TZ="UTC",
        # From 3.13 on Python colors a traceback where FORCE_COLOR is set, as ipykernel does: a step's log is
        # read as text.
        PYTHON_COLORS="0",
        # Without git on the machine, MLflow would say so on each run.
        GIT_PYTHON_REFRESH="quiet",
    )
    time.tzset()


def quiet() -> None:
    """Silence the lines of ``_NOISE``.

    Call it after ``import feast``, which puts filters of its own in front.
    """
    for message, category in _NOISE:
        warnings.filterwarnings("ignore", message=message, category=category)
    # "Created version 1 of model ...": worth reading, and no error, so it goes where results go.
    from mlflow.tracking._model_registry import fluent

    fluent.eprint = print
    # `mlflow.genai.evaluate` draws a progress bar, and prints the id of its run, in color.
    from mlflow.genai.evaluation import base, harness

    base.display_evaluation_output = lambda run_id: None
    harness.tqdm = None
    # DuckDB draws a progress bar into a notebook once a query takes two seconds: on a slow machine, and not
    # on another.
    import duckdb
    import ibis

    duckdb.sql("SET enable_progress_bar = false")
    # The connection that Feast's offline store uses.
    ibis.get_backend().raw_sql("SET enable_progress_bar = false")
    # A notebook would store shown code a second time, as LaTeX.
    from IPython import get_ipython

    if shell := get_ipython():
        shell.display_formatter.formatters["text/latex"].enabled = False
    # The first use of a database reports each table migration; from a notebook that is noise.
    for name in (
        "alembic",
        "mlflow.store.db.utils",
        "mlflow.tracking.fluent",
        "mlflow.store.model_registry.abstract_store",
        "mlflow.genai.utils.data_validation",
    ):
        logging.getLogger(name).setLevel(logging.WARNING)
    # `mlflow.models.evaluate` tells each step, and warns that SHAP, which nothing here uses, is not
    # installed.
    logging.getLogger("mlflow.models.evaluation").setLevel(logging.ERROR)

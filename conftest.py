"""What the tests share: homes under a path that is hard to quote, and stores with the definitions applied."""

from __future__ import annotations

import contextlib
import importlib.machinery
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import IPython.core.history  # noqa: F401  before any test imports Feast: lifecycle/src/lifecycle/serving/scoring.py says why
import psutil
import pytest

from helpers import registry
from helpers.workspace import Workspace, configure, create_home

if TYPE_CHECKING:
    from feast import FeatureStore

# pyspark takes a program without a file for its own doctests, and ends it: a worker of pytest-xdist is one.
sys.modules["__main__"].__spec__ = importlib.machinery.ModuleSpec("__main__", None)

HARD_TO_QUOTE = "Übung d'été (1) [2]"
"""A folder's name. A double quote may stand in a path too, but not beside an apostrophe: MLflow writes the
path of its experiment "Default" into SQL as Python prints it."""
collect_ignore = [] if sys.platform == "linux" else ["tests/test_image.py"]  # containers are Linux
SETTINGS = ("WORKSHOP_HOME", "MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "TZ")


def pytest_configure(config):
    # A test that starts a program gives it this environment; byte code on disk keeps its start short.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ["PYTHONPATH"] = str(Path(__file__).resolve().parent / "tests" / "quick")


def pytest_xdist_auto_num_workers():
    """One more than cores: tests wait for servers, browsers, and containers."""
    return min((os.cpu_count() or 1) + 1, 4)


def pytest_report_header():
    return [f"left out on {sys.platform}: {name}" for name in collect_ignore]


KINDS = {"unit", "course", "system", "cluster"}
LONGEST_FIRST = ("course", "second seed", "wheels", "test_take_it_home")
"""Groups of tests that take minutes. A worker that started one of them last would keep the others waiting."""
STRICT = bool(os.environ.get("CI")) and sys.platform == "linux"
"""In CI nothing that can run there is skipped, so a skip is a failure. GitHub's macOS machines lack some."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Keep a file's tests in one worker, start with what takes longest, and take the rest for unit tests."""
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(item.path.stem))
        if not KINDS & {marker.name for marker in item.iter_markers()}:
            item.add_marker(pytest.mark.unit)

    def start(item) -> int:
        group = item.get_closest_marker("xdist_group").args[0]
        return LONGEST_FIRST.index(group) if group in LONGEST_FIRST else len(LONGEST_FIRST)

    items.sort(key=start)


def fail_when_skipped(report):
    """Turn a skip into a failure in CI. Elsewhere its reason stands in the summary (`-ra`)."""
    if report.skipped and STRICT and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"in CI nothing may be skipped, and this was: {report.longrepr}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport():
    return fail_when_skipped((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report():
    return fail_when_skipped((yield))


@pytest.fixture(scope="session", autouse=True)
def quick_kernels():
    """Notebooks that tests execute start with the imports behind them."""
    import kernels

    kernels.install()


@pytest.fixture(autouse=True)
def settings(monkeypatch, request):
    """The settings as a new terminal has them, and restored after the test, whatever it or a helper sets."""
    kinds = KINDS & {marker.name for marker in request.node.iter_markers()}
    assert len(kinds) == 1, "pyproject.toml says what unit, course, system and cluster mean: a test is one"
    monkeypatch.chdir(Path.cwd())
    for name in SETTINGS:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


@pytest.fixture
def home(tmp_path) -> Workspace:
    """A home of the test's own: definitions, data, an empty workspace."""
    return create_home(tmp_path / HARD_TO_QUOTE)


@pytest.fixture(scope="session")
def applied(tmp_path_factory) -> Workspace:
    """A home with the definitions applied. Shared: a test that changes it takes `home`."""
    workspace = create_home(tmp_path_factory.mktemp("applied") / HARD_TO_QUOTE)
    apply(workspace)
    return workspace


@pytest.fixture
def store(applied) -> FeatureStore:
    from feast import FeatureStore

    configure(applied)
    return FeatureStore(repo_path=str(applied.feature_repo))


@pytest.fixture(scope="session")
def course(tmp_path_factory) -> Workspace:
    """The home that test_notebooks.py goes through in order. Others find there what the notebooks made."""
    return create_home(tmp_path_factory.mktemp("the whole course") / HARD_TO_QUOTE)


@pytest.fixture(scope="session")
def wheels(tmp_path_factory) -> Path:
    """A folder that `make wheels` filled."""
    from helpers.workspace import WorkshopError
    from workshop import commands

    folder = tmp_path_factory.mktemp("a stick") / "the wheels, for all"
    try:
        commands.wheels(folder)
    except WorkshopError as error:
        if "does not answer" in str(error):
            pytest.skip(str(error))
        raise
    return folder


@pytest.fixture(scope="session")
def place(request) -> Workspace:
    """The course's home, or the one that `FAULTS_HOME` names. In either, a notebook catches up by itself."""
    if not os.environ.get("FAULTS_HOME"):
        return request.getfixturevalue("course")
    home = Path(os.environ["FAULTS_HOME"]).expanduser().resolve() / "home"
    return Workspace(home) if home.exists() else create_home(home)


@pytest.fixture(scope="module")
def mlflow(tmp_path_factory):
    """MLflow on a database for one module's tests. Its global state is as before when the last test ends."""
    import mlflow
    from mlflow.tracking import fluent
    from mlflow.tracking._tracking_service import utils

    folder = tmp_path_factory.mktemp("mlflow")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_EXPERIMENT_ID", "")
        patch.setattr(utils, "_tracking_uri", f"sqlite:///{folder / 'mlflow.db'}")
        # Where the store is opened, it puts the artifacts of experiments to come.
        with contextlib.chdir(folder):
            mlflow.MlflowClient().create_experiment("tests", artifact_location=str(folder / "artifacts"))
        patch.setattr(fluent, "_active_experiment_id", "1")
        yield mlflow


def listening(pid: int) -> list:
    """The sockets on which a process and those below it listen, from the system's table."""
    sockets = []
    for process in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):  # it has just ended
            sockets += process.net_connections("inet")
    return [socket for socket in sockets if socket.status == psutil.CONN_LISTEN]


def save_reference(store: FeatureStore, workspace: Workspace) -> None:
    """What notebook 03 leaves behind, in small: a saved dataset with the suite that gates judge by."""
    import great_expectations as gx
    import great_expectations.expectations as gxe
    import pandas as pd
    from feast.infra.offline_stores.file_source import SavedDatasetFileStorage

    from helpers.start import REFERENCE
    from lifecycle.features.validation import suite_tag

    rules = [
        gxe.ExpectColumnValuesToBeInSet(column="label", value_set=[0, 1]),
        gxe.ExpectColumnValuesToBeBetween(column="conv_rate", min_value=0, max_value=1),
        gxe.ExpectColumnValuesToNotBeNull(column="acc_rate", mostly=0.9),
        gxe.ExpectColumnValuesToBeBetween(column="rating", min_value=1, max_value=5),
    ]
    suite = gx.ExpectationSuite("training", expectations=rules)
    labels = pd.read_parquet(workspace.data / "driver_labels.parquet").head(200)
    store.create_saved_dataset(
        from_=store.get_historical_features(labels, store.get_feature_service("rates_and_rating")),
        name=REFERENCE,
        storage=SavedDatasetFileStorage(path=str(workspace.path / "reference.parquet")),
        tags=suite_tag(suite),
        allow_overwrite=True,
    )


def apply(workspace: Workspace) -> FeatureStore:
    """Apply a home's definitions through Feast's Python interface."""
    from feast import FeatureStore

    store = FeatureStore(repo_path=str(workspace.feature_repo))
    registry.apply(store, workspace.feature_repo)
    return store


@pytest.fixture(scope="session")
def postgres(tmp_path_factory):
    """A PostgreSQL server on loopback that wants a password."""
    from database import Database

    with Database(tmp_path_factory.mktemp("postgres") / "log") as running:
        yield running


@pytest.fixture(scope="session")
def served(tmp_path_factory) -> Workspace:
    """A home with three registered versions, the second in production, and all drivers' features online.

    Whoever changes it changes it back. Files that use it share a worker: `pytest.mark.xdist_group("served")`.
    """
    from served import served_home

    return served_home(tmp_path_factory.mktemp("a served model"))


@pytest.fixture
def served_store(served) -> FeatureStore:
    """The feature store of that home."""
    from feast import FeatureStore

    configure(served)
    return FeatureStore(repo_path=str(served.feature_repo))


@pytest.fixture(scope="session")
def model_server(served):
    """Its model server, a process."""
    from served import start

    with start(served) as server:
        yield server


@pytest.fixture
def server(model_server, served):
    """The model server, with version 2 in production before and after the test."""
    from served import promote

    configure(served)
    yield model_server
    promote(model_server, "2")


@pytest.fixture(scope="session")
def kept(served, tmp_path_factory) -> Workspace:
    """A copy of the served home whose feature services keep a prediction log."""
    from served import copy_with_a_log

    return copy_with_a_log(served, tmp_path_factory.mktemp("kept predictions"))


@pytest.fixture
def kept_store(kept) -> FeatureStore:
    """The feature store of that copy, with version 2 in production and an empty log."""
    import mlflow
    from feast import FeatureStore

    from helpers.start import MODEL

    configure(kept)
    shutil.rmtree(kept.path / "predictions", ignore_errors=True)
    mlflow.MlflowClient().set_registered_model_alias(MODEL, "production", "2")
    return FeatureStore(repo_path=str(kept.feature_repo))

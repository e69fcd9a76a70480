"""Several machines in small: servers of Feast, MLflow and PostgreSQL, each a process of its own."""

import json
import subprocess
import sys
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path

import pandas as pd
import pytest
import yaml
from database import PASSWORD, USER
from optuna.distributions import FloatDistribution

from conftest import HARD_TO_QUOTE, apply, listening
from helpers import registry
from helpers.data import NOW, UNKNOWN_DRIVER
from helpers.services import HOST, Service
from helpers.workspace import configure, create_home
from lifecycle.features.retrieval import historical_features
from lifecycle.training.sweep import sweep

pytestmark = pytest.mark.system

# All features, two of them computed; and one feature that needs a value of the request.
SERVICES = ("driver_training", "driver_campaign")
PATIENTLY = {"wait": False, "timeout": 600}
"""How a server starts: beside others, and without a hurry on a busy machine."""


def feast_servers(feature_repo, logs) -> dict[str, Service]:
    """The three servers over a feature repository, by the name of what a client reads from each."""
    feast = ["feast", "-c", feature_repo]
    place = ["--host", HOST, "--port", "{port}"]
    commands = {
        "registry": [sys.executable, "-P", "-m", "helpers.registry_server", feature_repo, "{port}"],
        "online": [*feast, "serve", *place],
        "offline": [*feast, "serve_offline", *place],
    }
    health = {"online": "/health"}
    started = {
        name: Service(name, command, health=health.get(name), log=logs / f"{name}.log", **PATIENTLY)
        for name, command in commands.items()
    }
    return {name: server.wait() for name, server in started.items()}


def client_settings(servers: dict[str, Service], **more: object) -> dict[str, object]:
    """What a client's feature_store.yaml holds: three addresses."""
    return {
        "project": "driver_ranking",
        "provider": "local",
        "registry": {"registry_type": "remote", "path": f"{HOST}:{servers['registry'].port}"},
        "online_store": {"type": "remote", "path": servers["online"].url},
        "offline_store": {"type": "remote", "host": HOST, "port": servers["offline"].port},
        "entity_key_serialization_version": 3,
        **more,
    }


def client_of(folder, settings):
    from feast import FeatureStore

    folder.mkdir()
    (folder / "feature_store.yaml").write_text(yaml.safe_dump(settings))
    return FeatureStore(repo_path=str(folder))


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """A home whose features of all drivers are online."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", "")
        patch.setenv("TZ", "UTC")
        workspace = create_home(tmp_path_factory.mktemp("machines") / HARD_TO_QUOTE)
        configure(workspace)
        store = apply(workspace)
        store.materialize(NOW - timedelta(days=30), NOW)
        yield workspace


@pytest.fixture(scope="module")
def servers(filled):
    with ExitStack() as stack:
        started = feast_servers(filled.feature_repo, filled.path / "logs")
        for server in started.values():
            stack.enter_context(server)
        yield started


@pytest.fixture
def local(filled):
    from feast import FeatureStore

    configure(filled)
    return FeatureStore(repo_path=str(filled.feature_repo))


@pytest.fixture
def remote(tmp_path, servers):
    return client_of(tmp_path / "client", client_settings(servers))


@pytest.fixture
def labels(filled):
    return pd.read_parquet(filled.data / "driver_labels.parquet").assign(target_rate=0.4)


def assert_same_history(there, here, labels) -> None:
    for name in SERVICES:
        expected = historical_features(here, labels, here.get_feature_service(name))
        found = historical_features(there, labels, there.get_feature_service(name))
        pd.testing.assert_frame_equal(found, expected, check_exact=True)


def assert_same_online(there, here, labels) -> None:
    everyone = sorted({*labels.driver_id, UNKNOWN_DRIVER})
    for name, request in zip(SERVICES, ({}, {"target_rate": 0.4}), strict=True):
        rows = [{"driver_id": int(driver), **request} for driver in everyone]
        expected = here.get_online_features(here.get_feature_service(name), rows).to_df()
        found = there.get_online_features(there.get_feature_service(name), rows).to_df()
        assert expected.notna().any().all(), "a feature that is null for everybody compares nothing"
        pd.testing.assert_frame_equal(found[expected.columns], expected, check_exact=True)


def test_history_over_the_network_equals_the_local_one_on_every_label(local, remote, labels, servers):
    assert_same_history(remote, local, labels)
    found = {socket.laddr.ip for server in servers.values() for socket in listening(server._keeper.pid)}
    assert found and found <= {HOST, f"::ffff:{HOST}"}, "a server is open to other machines"


def test_online_values_over_the_network_equal_the_local_ones_for_every_driver(local, remote, labels):
    assert_same_online(remote, local, labels)


def test_a_client_whose_server_is_gone_fails_and_returns_nothing_old(filled, tmp_path, labels):
    settings = yaml.safe_load((filled.feature_repo / "feature_store.yaml").read_text())
    settings["registry"] = str(filled.path / "registry.db")
    settings.pop("mlflow")
    command = ["feast", "-c", filled.feature_repo, "serve_offline", "--host", HOST, "--port", "{port}"]
    with Service("offline", command, health=None, log=tmp_path / "log", **PATIENTLY).wait() as server:
        place = {"type": "remote", "host": HOST, "port": server.port, "connection_retries": 0}
        store = client_of(tmp_path / "client", settings | {"offline_store": place})
        service = store.get_feature_service("rates")
        assert len(store.get_historical_features(labels.head(3), service).to_df()) == 3
    with pytest.raises(Exception, match="failed to connect"):
        store.get_historical_features(labels.head(3), service).to_df()


# One PostgreSQL for Feast's registry, its online store and MLflow's tracking.


@pytest.fixture(scope="module")
def on_postgres(postgres, filled):
    """The course's definitions and its drivers' features, with registry and online store in PostgreSQL."""
    from feast import FeatureStore

    home = create_home(filled.home.parent / "on postgres")
    settings = yaml.safe_load((home.feature_repo / "feature_store.yaml").read_text())
    place = {"host": HOST, "port": postgres.port, "database": "features", "user": USER, "password": PASSWORD}
    settings["registry"] = {"registry_type": "sql", "path": postgres.new("features")}
    settings["online_store"] = {"type": "postgres", "sslmode": "disable", **place}
    settings.pop("mlflow")
    (home.feature_repo / "feature_store.yaml").write_text(yaml.safe_dump(settings))
    store = FeatureStore(repo_path=str(home.feature_repo))
    registry.apply(store, home.feature_repo)
    store.materialize(NOW - timedelta(days=30), NOW)
    return store


def test_with_registry_and_online_store_in_postgres_every_value_is_the_same(local, on_postgres, labels):
    assert_same_history(on_postgres, local, labels)
    assert_same_online(on_postgres, local, labels)


def apply_at_once(folder: Path, registry: dict[str, str]) -> dict:
    """What overlap.py counts: four processes that apply at the same moment, five times."""
    store = {"project": "at_once", "provider": "local", "registry": registry}
    store |= {"offline_store": {"type": "duckdb"}, "entity_key_serialization_version": 3}
    store |= {"online_store": {"type": "sqlite", "path": str(folder / "online_store.db")}}
    settings = {"store": store, "file": str(folder / "file.parquet")}
    (folder / "settings.json").write_text(json.dumps(settings))
    script = Path(__file__).with_name("overlap.py")
    command = [sys.executable, "-W", "ignore", script, folder / "settings.json"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    counts = json.loads(done.stdout)
    assert counts["exit codes"] == [0, 0, 0, 0], counts
    return counts


def test_postgres_keeps_all_that_four_processes_apply_at_the_same_moment(postgres, tmp_path):
    place = {"registry_type": "sql", "path": postgres.new("applied_at_once")}
    counts = apply_at_once(tmp_path, place)
    assert counts["kept"] == counts["applied"] == 40


def test_a_model_registered_over_http_is_loaded_from_postgres_and_the_servers_files(
    mlflow, postgres, tmp_path, monkeypatch
):
    import numpy as np
    from mlflow.tracking import fluent
    from mlflow.tracking._tracking_service import utils
    from sklearn.linear_model import LogisticRegression

    # Without job execution: seven more processes that nothing here uses.
    command = ["env", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false", sys.executable, "-P", "-m", "mlflow"]
    command += ["server", "--host", HOST, "--port", "{port}", "--workers", "1"]
    command += ["--backend-store-uri", postgres.new("tracking")]
    command += ["--artifacts-destination", (tmp_path / "artifacts").as_uri()]
    log = tmp_path / "mlflow.log"
    with Service("MLflow", command, health="/health", log=log, **PATIENTLY).wait() as server:
        monkeypatch.setattr(utils, "_tracking_uri", server.url)
        monkeypatch.setattr(fluent, "_active_experiment_id", mlflow.create_experiment("over http"))
        rows = np.random.default_rng(0).normal(size=(200, 3))
        model = LogisticRegression().fit(rows, rows[:, 0] > 0)
        with mlflow.start_run() as run:
            mlflow.log_metric("auc", 0.75)
            mlflow.sklearn.log_model(
                model,
                name="model",
                serialization_format="skops",
                pip_requirements=["scikit-learn"],
                registered_model_name="published",
            )
        client = mlflow.MlflowClient()
        client.set_registered_model_alias("published", "production", "1")
        found = client.get_run(run.info.run_id)
        assert found.data.metrics == {"auc": 0.75}
        assert found.info.artifact_uri.startswith("mlflow-artifacts:"), "files bypass the server"
        loaded = mlflow.sklearn.load_model("models:/published@production")
        assert (loaded.predict_proba(rows) == model.predict_proba(rows)).all()
        sweep(
            f"sqlite:///{tmp_path / 'optuna.sqlite'}",
            experiment="a sweep over http",
            name="two trials",
            space={"C": FloatDistribution(0.1, 1.0)},
            score=lambda choice: choice["C"],
            total=2,
            first={"C": 0.5},
            seed=0,
        )
        [parent] = client.search_runs(
            [client.get_experiment_by_name("a sweep over http").experiment_id], "metrics.best_auc > 0"
        )
        assert parent.data.tags["interruptions"] == "0"
    assert not list(tmp_path.rglob("*.db")), "a database file was written beside PostgreSQL"

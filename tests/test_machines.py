"""Several machines in small: Feast's registry, online and offline servers and MLflow's server, each a process of its own, asked by a client that has
nothing but their addresses."""

import json
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path

import pandas as pd
import pytest
import requests
import yaml
from conftest import HARD_TO_QUOTE, apply, listening

from helpers.data import NOW, UNKNOWN_DRIVER
from helpers.services import HOST, Service, free_port
from helpers.workspace import configure, create_home
from lifecycle.retrieval import historical_features

SERVICES = (
    "driver_training",
    "driver_campaign",
)  # all features, two computed ones; one that needs a value of the request


def feast_servers(feature_repo, logs) -> dict[str, Service]:
    """The three servers over a feature repository, by the name of what a client reads from each."""
    feast = ["feast", "-c", feature_repo]
    place = ["--host", HOST, "--port", "{port}"]
    registry = [sys.executable, "-P", "-m", "helpers.registry_server", feature_repo, "{port}"]
    started = {
        "registry": Service("registry", registry, health=None, log=logs / "registry.log", wait=False),
        "online": Service(
            "online", [*feast, "serve", *place], health="/health", log=logs / "online.log", wait=False
        ),
        "offline": Service(
            "offline", [*feast, "serve_offline", *place], health=None, log=logs / "off.log", wait=False
        ),
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


def drivers(labels) -> list[dict[str, object]]:
    everyone = sorted({*labels.driver_id, UNKNOWN_DRIVER})
    return [{"driver_id": int(driver), "target_rate": 0.4} for driver in everyone]


@pytest.mark.parametrize("service", SERVICES)
def test_history_over_the_network_equals_the_local_one_on_every_label(local, remote, labels, service):
    here = historical_features(local, labels, local.get_feature_service(service))
    there = historical_features(remote, labels, remote.get_feature_service(service))
    assert len(there) == len(labels)
    pd.testing.assert_frame_equal(there, here, check_exact=True)


@pytest.mark.parametrize("service", SERVICES)
def test_online_values_over_the_network_equal_the_local_ones_for_every_driver(local, remote, labels, service):
    rows = drivers(labels)
    if service == "driver_training":
        rows = [{"driver_id": row["driver_id"]} for row in rows]
    here = local.get_online_features(local.get_feature_service(service), rows).to_df()
    there = remote.get_online_features(remote.get_feature_service(service), rows).to_df()
    assert here.notna().any().all(), "a feature that is null for everybody compares nothing"
    pd.testing.assert_frame_equal(there[here.columns], here, check_exact=True)


def test_each_server_is_a_process_of_its_own_and_listens_on_loopback_alone(servers):
    found = {
        name: {socket.laddr.ip for socket in listening(server._keeper.pid)}
        for name, server in servers.items()
    }
    assert set(found) == {"registry", "online", "offline"}
    assert all(found.values()), f"a server does not listen: {found}"
    assert set().union(*found.values()) <= {HOST, f"::ffff:{HOST}"}, found
    assert len({server._keeper.pid for server in servers.values()}) == 3


def test_a_client_keeps_nothing_but_its_addresses(remote, labels, tmp_path):
    remote.get_historical_features(labels.head(3), remote.get_feature_service("rates")).to_df()
    remote.get_online_features(remote.get_feature_service("rates"), [{"driver_id": 1001}]).to_dict()
    assert [path.name for path in (tmp_path / "client").iterdir()] == ["feature_store.yaml"]


def test_what_a_client_applies_is_in_the_registry_of_all(local, remote):
    from feast import FeatureService

    view = remote.get_feature_view("driver_hourly_stats")
    remote.apply(FeatureService(name="from_a_client", features=[view[["conv_rate"]]]))
    try:
        assert "from_a_client" in [service.name for service in local.list_feature_services()]
    finally:
        remote.delete_feature_service("from_a_client")
    local.refresh_registry()
    assert "from_a_client" not in [service.name for service in local.list_feature_services()]


def test_what_a_client_writes_is_online_for_all(local, remote):
    written = {"driver_id": [998], "event_timestamp": [NOW], "created": [NOW]}
    written |= {"conv_rate": [0.5], "acc_rate": [0.25], "avg_daily_trips": [3]}
    remote.write_to_online_store("driver_hourly_stats", pd.DataFrame(written))
    assert local.get_online_features(["driver_hourly_stats:acc_rate"], [{"driver_id": 998}]).to_dict()[
        "acc_rate"
    ] == [0.25]


def test_a_request_for_an_unknown_feature_hides_its_reason_from_the_client(remote, servers):
    """Feast's online server answers 500, the client repeats the request and gives up without the server's words, which are in the server's log."""
    with pytest.raises(requests.exceptions.RetryError, match="too many 500 error responses"):
        remote.get_online_features(["driver_hourly_stats:nope"], [{"driver_id": 1001}])
    assert "Feature nope not found" in servers["online"].tail(100)


def test_a_client_whose_server_is_gone_fails_and_reads_nothing_old(filled, tmp_path, labels):
    """No value of its own is left to fall back to."""
    place = ["--host", HOST, "--port", "{port}"]
    command = ["feast", "-c", filled.feature_repo, "serve_offline", *place]
    settings = yaml.safe_load((filled.feature_repo / "feature_store.yaml").read_text())
    settings["registry"] = str(filled.path / "registry.db")
    settings.pop("mlflow")
    with Service("offline", command, health=None, log=tmp_path / "log") as server:
        settings["offline_store"] = {
            "type": "remote",
            "host": HOST,
            "port": server.port,
            "connection_retries": 0,
        }
        store = client_of(tmp_path / "client", settings)
        assert (
            len(store.get_historical_features(labels.head(3), store.get_feature_service("rates")).to_df())
            == 3
        )
    with pytest.raises(Exception, match="failed to connect"):
        store.get_historical_features(labels.head(3), store.get_feature_service("rates")).to_df()


def test_an_error_of_the_offline_server_comes_with_its_reason(remote, labels):
    """docs/troubleshooting.md has the words to look for."""
    with pytest.raises(
        Exception, match=r"'driver_id' is not found in table.*Detail: Python exception: Traceback"
    ):
        remote.get_historical_features(
            labels.drop(columns="driver_id"), remote.get_feature_service("rates")
        ).to_df()


# MLflow behind its server: a client's process knows the address alone.

PUBLISH = """
import sys

import mlflow
import numpy as np
from sklearn.linear_model import LogisticRegression

mlflow.set_tracking_uri(sys.argv[1])
mlflow.set_experiment("over http")
rows = np.random.default_rng(0).normal(size=(200, 3))
model = LogisticRegression().fit(rows, rows[:, 0] > 0)
with mlflow.start_run() as run:
    mlflow.log_metric("auc", 0.75)
    mlflow.sklearn.log_model(
        model,
        name="model",
        serialization_format="skops",
        pip_requirements=["scikit-learn"],
        metadata={"feast": {"feature_service": "rates"}},
        registered_model_name="published",
    )
mlflow.MlflowClient().set_registered_model_alias("published", "production", "1")
print(run.info.run_id, *model.predict_proba(rows[:5])[:, 1].tolist())
"""


@pytest.fixture(scope="module")
def tracking(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tracking") / HARD_TO_QUOTE
    folder.mkdir()
    with tracking_server(f"sqlite:///{folder / 'mlflow.db'}", folder) as server:
        yield server


def tracking_server(database: str, folder) -> Service:
    """MLflow's server: the database at one address, the files of runs and models in a folder that clients reach through the server alone."""
    command = [
        "env",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false",
    ]  # seven more processes that nothing here uses
    command += [
        sys.executable,
        "-P",
        "-m",
        "mlflow",
        "server",
        "--host",
        HOST,
        "--port",
        "{port}",
        "--workers",
        "1",
    ]
    command += ["--backend-store-uri", database, "--artifacts-destination", (folder / "artifacts").as_uri()]
    return Service("MLflow", command, health="/health", log=folder / "mlflow.log")


def published(server: Service, folder) -> list[str]:
    """What another process registers over HTTP: the run, and five scores."""
    folder.mkdir()
    command = [sys.executable, "-P", "-W", "ignore", "-c", PUBLISH, server.url]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=300)
    assert done.returncode == 0, done.stderr
    assert not list(folder.iterdir()), "the client left files of its own"
    return done.stdout.splitlines()[-1].split()


def loaded(server: Service, run: str) -> list[float]:
    """The scores of the published model, loaded in this process over HTTP."""
    import mlflow
    import numpy as np

    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(server.url)
    try:
        client = mlflow.MlflowClient()
        assert client.get_run(run).data.metrics == {"auc": 0.75}
        assert client.get_run(run).info.artifact_uri.startswith("mlflow-artifacts:"), (
            "the files do not go through the server"
        )
        model = mlflow.sklearn.load_model("models:/published@production")
        assert (
            mlflow.models.get_model_info("models:/published@production").metadata["feast"]["feature_service"]
            == "rates"
        )
        return model.predict_proba(np.random.default_rng(0).normal(size=(200, 3))[:5])[:, 1].tolist()
    finally:
        mlflow.set_tracking_uri(before)


def test_a_model_registered_over_http_by_one_process_is_loaded_by_another(mlflow, tracking, tmp_path):
    run, *scores = published(tracking, tmp_path / "elsewhere")
    assert loaded(tracking, run) == [float(score) for score in scores]


def test_a_client_of_mlflow_whose_server_is_gone_says_so_after_its_tries(mlflow, monkeypatch):
    """By default they take about four minutes, as docs/troubleshooting.md says."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    client = mlflow.MlflowClient(f"http://{HOST}:{free_port()}")
    with pytest.raises(
        mlflow.exceptions.MlflowException, match=r"Max retries exceeded with url: .*Connection refused"
    ):
        client.search_experiments()


def test_mlflows_server_listens_on_loopback_alone(tracking):
    assert {socket.laddr.ip for socket in listening(tracking._keeper.pid)} == {HOST}


# One PostgreSQL for Feast's registry, its online store and MLflow's tracking.

DATABASES = ("features", "applied_at_once", "shared_at_once", "tracking")
OWNER = "workshop"


def postgres_program(name: str) -> str | None:
    """A program of PostgreSQL. Debian keeps the server's outside the PATH."""
    kept = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return shutil.which(name) or (str(kept[-1]) if kept else None)


def as_server_user(folder: Path) -> list[str]:
    """What goes before a command of PostgreSQL, which refuses to run as root: the name of a user that then owns ``folder``."""
    if os.geteuid() != 0:
        return []
    names = [entry.pw_name for entry in pwd.getpwall()]
    user = pwd.getpwnam("postgres" if "postgres" in names else "nobody")
    os.chown(folder, user.pw_uid, user.pw_gid)
    for parent in folder.parents:  # pytest's folders are closed to everybody else
        if parent.owner() == "root" and str(parent).startswith(tempfile.gettempdir() + os.sep):
            parent.chmod(parent.stat().st_mode | 0o011)
    return ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]


@pytest.fixture(scope="module")
def postgres(tmp_path_factory):
    """A PostgreSQL server on loopback with the databases of ``DATABASES``."""
    psycopg = pytest.importorskip(
        "psycopg", reason="PostgreSQL's driver is in the group dev: `uv sync --group dev`"
    )
    initdb, server = postgres_program("initdb"), postgres_program("postgres")
    if not (initdb and server):
        pytest.skip("no PostgreSQL on this machine. On Debian or Ubuntu: sudo apt-get install postgresql")
    folder = tmp_path_factory.mktemp("postgres") / HARD_TO_QUOTE
    folder.mkdir()
    user = as_server_user(folder)
    make = [*user, initdb, "-D", folder / "data", "-U", OWNER, "-A", "trust", "--no-sync", "--encoding=UTF8"]
    done = subprocess.run(
        make, capture_output=True, text=True, cwd="/", env={**os.environ, "LC_ALL": "C.UTF-8"}
    )
    assert done.returncode == 0, done.stderr
    command = [*user, server, "-D", folder / "data", "-p", "{port}", "-c", f"listen_addresses={HOST}"]
    command += ["-c", "unix_socket_directories=", "-c", "fsync=off"]
    with Service("PostgreSQL", command, health=None, log=folder.parent / "postgres.log") as running:
        until_open(psycopg, running)
        with psycopg.connect(
            host=HOST, port=running.port, user=OWNER, dbname="postgres", autocommit=True
        ) as admin:
            for name in DATABASES:
                admin.execute(f"CREATE DATABASE {name}")
        yield running


def until_open(psycopg, server: Service) -> None:
    """It accepts connections a moment before it answers them."""
    end = time.monotonic() + 30
    while True:
        try:
            psycopg.connect(host=HOST, port=server.port, user=OWNER, dbname="postgres").close()
            return
        except psycopg.OperationalError:
            if time.monotonic() > end:
                raise
            time.sleep(0.1)


def database(server: Service, name: str) -> str:
    return f"postgresql+psycopg://{OWNER}@{HOST}:{server.port}/{name}"


@pytest.fixture(scope="module")
def on_postgres(postgres, filled):
    """The course's definitions and its drivers' features, with registry and online store in PostgreSQL."""
    from feast import FeatureStore

    from helpers import registry

    home = create_home(filled.home.parent / "on postgres")
    settings = yaml.safe_load((home.feature_repo / "feature_store.yaml").read_text())
    place = {"host": HOST, "port": postgres.port, "database": "features", "user": OWNER, "password": "-"}
    settings["registry"] = {"registry_type": "sql", "path": database(postgres, "features")}
    settings["online_store"] = {"type": "postgres", "sslmode": "disable", **place}
    settings.pop("mlflow")
    (home.feature_repo / "feature_store.yaml").write_text(yaml.safe_dump(settings))
    store = FeatureStore(repo_path=str(home.feature_repo))
    registry.apply(store, home.feature_repo)
    store.materialize(NOW - timedelta(days=30), NOW)
    return store


@pytest.mark.parametrize("service", SERVICES)
def test_with_registry_and_online_store_in_postgres_every_value_is_the_same(
    local, on_postgres, labels, service
):
    here = historical_features(local, labels, local.get_feature_service(service))
    there = historical_features(on_postgres, labels, on_postgres.get_feature_service(service))
    pd.testing.assert_frame_equal(there, here, check_exact=True)
    rows = drivers(labels)
    if service == "driver_training":
        rows = [{"driver_id": row["driver_id"]} for row in rows]
    online_here = local.get_online_features(local.get_feature_service(service), rows).to_df()
    online_there = on_postgres.get_online_features(on_postgres.get_feature_service(service), rows).to_df()
    assert online_there.notna().any().all()
    pd.testing.assert_frame_equal(online_there[online_here.columns], online_here, check_exact=True)


def test_postgres_listens_on_loopback_alone_and_holds_what_was_applied(postgres, on_postgres):
    import psycopg

    assert {socket.laddr.ip for socket in listening(postgres._keeper.pid)} == {HOST}
    with psycopg.connect(host=HOST, port=postgres.port, user=OWNER, dbname="features") as connection:
        views = connection.execute("SELECT feature_view_name FROM feature_views").fetchall()
        values = connection.execute("SELECT count(*) FROM driver_ranking_driver_hourly_stats").fetchone()
    assert {name for (name,) in views} == {"driver_hourly_stats", "driver_daily_profile"}
    assert values[0] > 100


def at_once(folder: Path, registry: dict[str, str], shared: bool = False) -> dict:
    """What overlap.py counts: four processes that apply at the same moment, five times."""
    store = {
        "project": "at_once",
        "provider": "local",
        "registry": registry,
        "entity_key_serialization_version": 3,
    }
    store |= {"offline_store": {"type": "duckdb"}}
    store |= {"online_store": {"type": "sqlite", "path": str(folder / "online_store.db")}}
    settings = {"store": store, "file": str(folder / "file.parquet"), "shared": shared}
    (folder / "settings.json").write_text(json.dumps(settings))
    command = [
        sys.executable,
        "-W",
        "ignore",
        Path(__file__).with_name("overlap.py"),
        folder / "settings.json",
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert found["ended"] == [0, 0, 0, 0], found
    return found


def test_what_four_processes_apply_at_the_same_moment_is_all_kept_in_postgres(postgres, tmp_path):
    found = at_once(tmp_path, {"registry_type": "sql", "path": database(postgres, "applied_at_once")})
    assert found["said"] == []
    assert found["kept"] == found["applied"] == 40


def test_one_new_view_that_four_processes_apply_at_once_is_refused_aloud_and_a_second_try_keeps_all(
    postgres, tmp_path
):
    found = at_once(
        tmp_path, {"registry_type": "sql", "path": database(postgres, "shared_at_once")}, shared=True
    )
    assert found["said"], "no two processes met: this run shows nothing"
    assert {line.split(":")[0] for line in found["said"]} == {"IntegrityError"}
    assert found["kept"] == found["applied"] == 40


def test_a_registry_file_loses_what_is_applied_at_the_same_moment_and_says_nothing(tmp_path):
    """Why several writers want a database; docs/upstream.md has the section."""
    found = at_once(tmp_path, {"registry_type": "file", "path": str(tmp_path / "registry.db")})
    assert found["said"] == []
    assert found["kept"] < found["applied"]


def test_mlflows_server_in_front_of_postgres_gives_the_published_model_to_another_process(
    mlflow, postgres, tmp_path
):
    folder = tmp_path / "tracking"
    folder.mkdir()
    with tracking_server(database(postgres, "tracking"), folder) as server:
        run, *scores = published(server, tmp_path / "elsewhere")
        assert loaded(server, run) == [float(score) for score in scores]
    assert not list(tmp_path.rglob("*.db")), "a database file was written beside PostgreSQL"

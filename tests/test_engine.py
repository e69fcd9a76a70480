"""The course's definitions on a distributed engine: Spark's standalone master with two workers, on loopback. Equal values on every label."""

from pathlib import Path

import pandas as pd
import pytest
from conftest import HARD_TO_QUOTE, apply, listening

from helpers import engine
from helpers.services import HOST
from helpers.workspace import create_home
from lifecycle.retrieval import historical_features

SERVICES = ("driver_training", "driver_campaign")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    if found := engine.lacking():
        pytest.skip(found)
    with engine.SparkCluster(tmp_path_factory.mktemp("spark") / "cluster") as running:
        yield running


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return create_home(tmp_path_factory.mktemp("engine") / HARD_TO_QUOTE)


@pytest.fixture(scope="module")
def store(home):
    return apply(home)


@pytest.fixture(scope="module")
def on_spark(home, cluster) -> Path:
    return engine.on_spark(home.home, cluster)


def test_master_and_workers_are_three_processes_on_loopback_alone(cluster):
    assert cluster.alive() == 2
    found = [{socket.laddr.ip for socket in listening(process._keeper.pid)} for process in cluster.processes]
    assert len(found) == 3 and all(found)
    assert set().union(*found) <= {HOST, f"::ffff:{HOST}"}, found


def test_two_files_of_the_definitions_differ_and_no_other(home, on_spark):
    ours = {path.name: path.read_text() for path in home.feature_repo.glob("*.*")}
    theirs = {path.name: path.read_text() for path in on_spark.glob("*.*")}
    assert {name for name in ours if ours[name] != theirs[name]} == {"feature_store.yaml", "sources.py"}
    assert "FileSource" not in theirs["sources.py"]
    assert theirs["sources.py"].count("SparkSource(") == ours["sources.py"].count("FileSource(") == 2


@pytest.mark.parametrize("service", SERVICES)
def test_every_label_gets_the_same_values_on_the_engine(home, store, cluster, on_spark, tmp_path, service):
    labels = pd.read_parquet(home.data / "driver_labels.parquet").assign(target_rate=0.4)
    labels.to_parquet(tmp_path / "labels.parquet")
    here = historical_features(store, labels, store.get_feature_service(service))
    seconds = engine.history(
        cluster, on_spark, service, tmp_path / "labels.parquet", tmp_path / "answer.parquet"
    )
    there = pd.read_parquet(tmp_path / "answer.parquet")
    assert there.event_timestamp.dt.tz is None, (
        "Spark's answer has a time zone now: notebook 10 says otherwise"
    )
    there["event_timestamp"] = there.event_timestamp.dt.tz_localize("UTC").astype(here.event_timestamp.dtype)
    assert here.isna().any(axis=None), "no label with an expired feature: this compares less than it should"
    assert len(there) == len(labels)
    pd.testing.assert_frame_equal(there, here, check_exact=True)
    assert min(seconds.values()) > 0


def test_the_workers_did_the_work(cluster, on_spark):
    """Each has kept the folder of an executor of its own."""
    executors = {log.parent.parent.name for log in (cluster.folder / "work").glob("app-*/*/stderr")}
    assert executors, "no executor ran on a worker"
    assert all("Registered" in process.tail(400) for process in cluster.processes[:1])

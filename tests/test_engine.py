"""The course's definitions on Spark's master and two workers, on loopback: equal values on every label."""

import pandas as pd
import pytest

from conftest import HARD_TO_QUOTE, apply, listening
from helpers import engine
from helpers.services import HOST
from helpers.workspace import create_home
from lifecycle.features.retrieval import historical_features

pytestmark = pytest.mark.system
SERVICE = "driver_campaign"  # computes with a value of the request; notebook 10 compares driver_training


@pytest.mark.skipif(bool(engine.lacking()), reason=engine.lacking() or "nothing is lacking")
def test_every_label_gets_the_same_values_on_the_engine(tmp_path):
    home = create_home(tmp_path / HARD_TO_QUOTE)
    store = apply(home)
    labels = pd.read_parquet(home.data / "driver_labels.parquet").assign(target_rate=0.4)
    here = historical_features(store, labels, store.get_feature_service(SERVICE))
    assert here.isna().any(axis=None), "no label with an expired feature: this compares less than it should"
    questions, answer = tmp_path / "labels.parquet", tmp_path / "answer.parquet"
    labels.to_parquet(questions)
    with engine.SparkCluster(tmp_path / "spark") as cluster:
        assert cluster.alive() == 2
        sockets = [socket for each in cluster.processes for socket in listening(each._keeper.pid)]
        assert len(sockets) >= 3 and {s.laddr.ip for s in sockets} <= {HOST, f"::ffff:{HOST}"}, sockets
        definitions = engine.on_spark(home.home, cluster)
        engine.history(cluster, definitions, SERVICE, questions, answer)
        assert list((cluster.folder / "work").glob("app-*/*/stderr")), "no executor ran on a worker"
    ours, theirs = ({p.name: p.read_text() for p in f.glob("*.*")} for f in (home.feature_repo, definitions))
    assert {name for name in ours if ours[name] != theirs[name]} == {"feature_store.yaml", "sources.py"}
    there = pd.read_parquet(answer)
    assert there.event_timestamp.dt.tz is None, (
        "Spark's answer has a time zone now: notebook 10 says otherwise"
    )
    there["event_timestamp"] = there.event_timestamp.dt.tz_localize("UTC").astype(here.event_timestamp.dtype)
    pd.testing.assert_frame_equal(there, here, check_exact=True)

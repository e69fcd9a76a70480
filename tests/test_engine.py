"""Spark's master and workers, as notebook 13 starts them; what they answer is that notebook's check."""

import pytest

from conftest import HARD_TO_QUOTE, listening
from helpers import engine
from helpers.services import HOST
from helpers.workspace import create_home

pytestmark = pytest.mark.system


@pytest.mark.skipif(bool(engine.lacking()), reason=engine.lacking() or "nothing is lacking")
def test_master_and_workers_listen_on_loopback_alone_and_two_files_of_the_definitions_change(tmp_path):
    home = create_home(tmp_path / HARD_TO_QUOTE)
    with engine.SparkCluster(tmp_path / "spark") as cluster:
        assert cluster.alive() == 2
        sockets = [socket for each in cluster.processes for socket in listening(each._keeper.pid)]
        assert len(sockets) >= 3 and {s.laddr.ip for s in sockets} <= {HOST, f"::ffff:{HOST}"}, sockets
        definitions = engine.on_spark(home.home, cluster)
    ours, theirs = ({p.name: p.read_text() for p in f.glob("*.*")} for f in (home.feature_repo, definitions))
    assert {name for name in ours if ours[name] != theirs[name]} == {"feature_store.yaml", "sources.py"}

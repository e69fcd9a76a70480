"""When features come online: by the period of the settings, and at once when Redis comes back empty."""

from datetime import timedelta

import pytest
import redis
import yaml
from click.testing import CliRunner

from conftest import apply
from helpers import services
from helpers.data import NOW
from helpers.services import HOST
from helpers.workspace import configure
from lifecycle.cli import main
from lifecycle.cluster.manifests import cluster_settings
from lifecycle.settings import Cluster

pytestmark = pytest.mark.unit


def test_a_job_that_looks_often_materializes_when_it_is_due_or_redis_came_back_empty(
    home, tmp_path, monkeypatch
):
    server = services.redis(tmp_path / "redis.log")
    if server is None:
        pytest.skip("redis-server is not installed")
    with server:
        monkeypatch.setenv("REDIS_PASSWORD", "")
        configure(home)
        file = home.feature_repo / "feature_store.yaml"
        feast = yaml.safe_load(file.read_text())
        there = Cluster(redis=f"{HOST}:{server.port}")
        feast["online_store"] = cluster_settings(feast, there)["online_store"]
        file.write_text(yaml.safe_dump(feast))
        store = apply(home)
        settings = home.path / "lifecycle.toml"
        settings.write_text(f'feature_repo = "{home.feature_repo}"\n[materialization]\nhours = 24\n')

        def look(later: timedelta = timedelta(0)) -> str:
            moment = str((NOW + later).timestamp())
            words = ["--settings", str(settings), "materialize", "--due", "--now", moment]
            done = CliRunner().invoke(main, words)
            assert done.exit_code == 0, done.output
            return done.stdout.splitlines()[0]

        assert look() == "materializing up to 2025-03-01 00:00 UTC: the online store is empty"
        assert look(timedelta(hours=23)) == "nothing is due"
        assert "last materialized up to 2025-03-01 00:00 UTC" in look(timedelta(hours=24))
        client = redis.Redis(HOST, server.port)
        stored = client.dbsize()
        client.flushall()
        assert look(timedelta(hours=25)).endswith("the online store is empty")
        assert client.dbsize() == stored > 100
        features = store.get_feature_service("rates")
        answer = store.get_online_features(features, [{"driver_id": 1001}]).to_dict()
        assert None not in [values[0] for values in answer.values()]

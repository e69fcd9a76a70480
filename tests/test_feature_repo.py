import copy
import math
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from feast.infra.offline_stores.duckdb import DuckDBOfflineStoreConfig
from feast.infra.online_stores.sqlite import SqliteOnlineStoreConfig

from helpers import registry
from helpers.data import NOW
from lifecycle.retrieval import historical_features

FEAST = Path(sys.executable).with_name("feast")
RATIOS = ["driver_ratios:conv_acc_ratio", "driver_ratios:conv_log_odds"]
DRIVERS = [1001, 1002, 1025, 1003]  # 1025 has expired


def feast(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    """The `feast` command as a learner types it in the folder: nothing of the workshop's is exported."""
    bare = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("WORKSHOP", "MLFLOW", "FEAST"))
    }
    return subprocess.run(
        [FEAST, *arguments], cwd=folder, env=bare, capture_output=True, text=True, timeout=180
    )


def test_the_feast_command_works_in_the_folder_and_keeps_its_state_in_the_workspace(home):
    before = {path.name for path in home.feature_repo.iterdir()}
    applied = feast(home.feature_repo, "apply")
    assert applied.returncode == 0, applied.stderr
    listed = feast(home.feature_repo, "feature-views", "list")
    assert listed.returncode == 0, listed.stderr
    assert {"driver_hourly_stats", "driver_daily_profile", "driver_ratios"} <= set(listed.stdout.split())
    assert (home.path / "registry.db").exists() and (home.path / "online_store.db").exists()
    assert {path.name for path in home.feature_repo.iterdir()} - before <= {"__pycache__"}
    assert {path.name for path in home.home.iterdir()} == {"data", "feature_repo", "workspace"}


def test_what_an_editor_leaves_behind_is_not_executed(home):
    for folder in (".ipynb_checkpoints", "__pycache__", "feast_monitoring"):
        (home.feature_repo / folder).mkdir(exist_ok=True)
        (home.feature_repo / folder / "left_behind.py").write_text("raise RuntimeError('executed')")
    applied = feast(home.feature_repo, "apply")
    assert applied.returncode == 0, applied.stderr
    (home.feature_repo / "left_behind.py").write_text("raise RuntimeError('executed')")
    assert "executed" in feast(home.feature_repo, "apply").stderr, (
        "the trial itself: such a file beside the definitions is executed"
    )


def test_the_stores_are_those_of_the_course(store):
    assert isinstance(store.config.offline_store, DuckDBOfflineStoreConfig)
    assert isinstance(store.config.online_store, SqliteOnlineStoreConfig)


def test_applying_again_changes_nothing(store, applied):
    difference, _, _ = store.plan(registry.definitions(applied.feature_repo))
    assert registry.changes(difference).empty


def test_beside_a_change_another_order_of_the_fields_is_no_change_and_another_field_is_one(store, applied):
    found = registry.definitions(applied.feature_repo)

    def changed(alter) -> tuple[set[str], list[list[str]]]:
        views = [copy.copy(view) for view in found.feature_views]
        views[0].ttl, views[0].features = views[0].ttl * 2, alter(views[0].features)
        difference, _, _ = store.plan(found._replace(feature_views=views))
        feast = {
            p.property_name
            for diff in difference.feast_object_diffs
            for p in diff.feast_object_property_diffs
        }
        return feast, registry.changes(difference)[["object", "properties"]].to_numpy().tolist()

    name = found.feature_views[0].name
    feast, ours = changed(lambda fields: fields[::-1])
    assert "features" in feast, "the trial itself: Feast's own plan reports another order"
    assert ours == [[name, "ttl"]]
    assert changed(lambda fields: fields[:-1])[1] == [[name, "features, ttl"]]


def test_every_definition_says_what_it_is(store):
    objects = [
        *store.list_entities(),
        *store.list_data_sources(),
        *store.list_batch_feature_views(),
        *store.list_on_demand_feature_views(),
        *store.list_feature_services(),
    ]
    assert len(objects) >= 14
    assert [found.name for found in objects if not (found.description or found.tags)] == []


def test_every_batch_source_says_when_a_row_was_written(store):
    sources = [view.batch_source for view in store.list_batch_feature_views()]
    assert [source.created_timestamp_column for source in sources] == ["created", "created"]


def test_the_two_views_have_a_ttl_each(store):
    ttl = {view.name: view.ttl.days for view in store.list_batch_feature_views()}
    assert ttl == {"driver_hourly_stats": 7, "driver_daily_profile": 30}


@pytest.fixture
def online(store):
    store.materialize(NOW - pd.Timedelta(days=7), NOW, feature_views=["driver_hourly_stats"])
    return store


def by_hand(conv: float, acc: float) -> tuple[float, float]:
    return conv / (acc + 1e-6), math.log((conv + 1e-3) / (1 - conv + 1e-3))


def test_an_on_demand_feature_is_the_same_offline_online_and_by_hand(online):
    rates = ["driver_hourly_stats:conv_rate", "driver_hourly_stats:acc_rate"]
    rows = pd.DataFrame({"driver_id": DRIVERS, "event_timestamp": NOW})
    offline = historical_features(online, rows, [*rates, *RATIOS])
    served = online.get_online_features([*rates, *RATIOS], [{"driver_id": i} for i in DRIVERS]).to_df()
    for place, driver in enumerate(DRIVERS):
        expected = by_hand(offline.conv_rate[place], offline.acc_rate[place])
        for frame in (offline, served):
            found = tuple(frame.loc[place, ["conv_acc_ratio", "conv_log_odds"]].astype("float64"))
            assert found == pytest.approx(expected, nan_ok=True), driver
    assert offline.conv_log_odds.isna().tolist() == [False, False, True, False]


def test_the_callers_value_reaches_the_same_function_offline_and_online(online):
    refs = ["driver_hourly_stats:conv_rate", "driver_target:rate_above_target"]
    rows = pd.DataFrame({"driver_id": DRIVERS, "event_timestamp": NOW, "target_rate": [0.1, 0.2, 0.3, 0.4]})
    offline = historical_features(online, rows, refs)
    asked = rows.drop(columns="event_timestamp").to_dict("records")
    served = online.get_online_features(refs, asked).to_df()
    expected = (offline.conv_rate - rows.target_rate).tolist()
    assert offline.rate_above_target.tolist() == pytest.approx(expected, nan_ok=True)
    assert served.rate_above_target.astype("float64").tolist() == pytest.approx(expected, nan_ok=True)

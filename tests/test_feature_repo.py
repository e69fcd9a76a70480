"""The definitions of the course, as the `feast` command and the Python interface read them."""

import copy
import math
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from helpers import registry
from helpers.data import NOW
from lifecycle.features.retrieval import historical_features

pytestmark = pytest.mark.unit
DRIVERS = [1001, 1002, 1025, 1003]  # 1025 has expired


def test_the_feast_command_applies_the_folder_and_keeps_its_state_in_the_workspace(home):
    """As a learner types it, with nothing exported; what an editor leaves behind is not executed."""
    for folder in (".ipynb_checkpoints", "__pycache__", "feast_monitoring"):
        (home.feature_repo / folder).mkdir(exist_ok=True)
        (home.feature_repo / folder / "left_behind.py").write_text("raise RuntimeError('executed')")
    before = {path.name for path in home.feature_repo.iterdir()}
    ours = ("WORKSHOP", "MLFLOW", "FEAST")
    bare = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    command = [Path(sys.executable).with_name("feast"), "apply"]
    applied = subprocess.run(command, cwd=home.feature_repo, env=bare, capture_output=True, text=True)
    assert applied.returncode == 0, applied.stderr
    assert {"driver_hourly_stats", "driver_daily_profile", "driver_ratios"} <= set(applied.stdout.split())
    assert (home.path / "registry.db").exists() and (home.path / "online_store.db").exists()
    assert {path.name for path in home.feature_repo.iterdir()} == before
    assert {path.name for path in home.home.iterdir()} == {"data", "feature_repo", "workspace"}


def test_a_change_is_reported_and_another_order_of_the_fields_is_none(store, applied):
    definitions = registry.definitions(applied.feature_repo)
    name = definitions.feature_views[0].name

    def changed(alter, times: int) -> list[list[str]]:
        views = [copy.copy(view) for view in definitions.feature_views]
        views[0].ttl, views[0].features = views[0].ttl * times, alter(views[0].features)
        difference, _, _ = store.plan(definitions._replace(feature_views=views))
        return registry.changes(difference)[["object", "properties"]].to_numpy().tolist()

    assert changed(lambda fields: fields, 1) == []
    assert changed(lambda fields: fields[::-1], 2) == [[name, "ttl"]]
    assert changed(lambda fields: fields[:-1], 2) == [[name, "features, ttl"]]


def test_an_on_demand_feature_is_the_same_offline_online_and_by_hand(store):
    store.materialize(NOW - pd.Timedelta(days=7), NOW, feature_views=["driver_hourly_stats"])
    names = ["driver_hourly_stats:conv_rate", "driver_hourly_stats:acc_rate", "driver_ratios:conv_acc_ratio"]
    names += ["driver_ratios:conv_log_odds", "driver_target:rate_above_target"]
    rows = pd.DataFrame({"driver_id": DRIVERS, "event_timestamp": NOW, "target_rate": [0.1, 0.2, 0.3, 0.4]})
    offline = historical_features(store, rows, names)
    online = store.get_online_features(names, rows.drop(columns="event_timestamp").to_dict("records")).to_df()
    for place, (driver, target) in enumerate(zip(DRIVERS, rows.target_rate, strict=True)):
        conv, acc = offline.conv_rate[place], offline.acc_rate[place]
        by_hand = (conv / (acc + 1e-6), math.log((conv + 1e-3) / (1 - conv + 1e-3)), conv - target)
        for frame in (offline, online):
            values = frame.loc[place, ["conv_acc_ratio", "conv_log_odds", "rate_above_target"]]
            assert tuple(values.astype("float64")) == pytest.approx(by_hand, nan_ok=True), driver
    assert offline.conv_log_odds.isna().tolist() == [False, False, True, False]

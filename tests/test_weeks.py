"""The six weeks after the clock: what is planted in them, and a home that leaves the workspace as it was."""

import hashlib
from functools import cache
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from feast import FeatureStore
from sklearn.metrics import roc_auc_score
from test_data import card_table, latest, ranked, tables

from conftest import HARD_TO_QUOTE, apply
from helpers import data, weeks
from helpers.data import NOW, SEED
from helpers.workspace import Workspace, configure, create_home
from lifecycle.features.retrieval import historical_features
from lifecycle.models.model import new_model, split

pytestmark = pytest.mark.unit
COLUMNS = ["conv_rate", "acc_rate", "rating"]
SEEDS = [SEED, 0]


@cache
def made(seed: int) -> weeks.Weeks:
    return weeks.generate(seed)


def week_of(times: pd.Series) -> pd.Series:
    """0 for the history, then 1 to 6."""
    return ((times - NOW) // pd.Timedelta(days=7) + 1).clip(lower=0)


@cache
def rows(seed: int) -> pd.DataFrame:
    """Every label with the features that were known at its time, joined with pandas alone, and its week."""
    old, new = tables(seed), made(seed)
    labels = [table.labels.assign(probability=table.probability) for table in (old, new)]
    frame = pd.concat(labels, ignore_index=True).drop(columns="created")
    for name, days in (("stats", 7), ("profile", 30)):
        table = latest(pd.concat([getattr(old, name), getattr(new, name)]))
        tolerance = pd.Timedelta(days=days)
        frame = pd.merge_asof(frame, table, tolerance=tolerance, on="event_timestamp", by="driver_id")
    return frame.assign(week=week_of(frame.event_timestamp))


def of_weeks(seed: int, *numbers: int) -> pd.DataFrame:
    frame = rows(seed)
    return frame[frame.week.isin(numbers)].dropna(subset=[*COLUMNS, "label"])


@cache
def scores(seed: int) -> dict[str, float]:
    """What the champion scores in the six weeks, and a model of the first two changed ones."""

    def fit(frame: pd.DataFrame):
        return new_model(C=1.0, degree=1).fit(frame[COLUMNS], frame.label)

    def auc(week: int, model=None) -> float:
        frame = of_weeks(seed, week)
        return roc_auc_score(
            frame.label, model.predict_proba(frame[COLUMNS])[:, 1] if model else frame.probability
        )

    history = rows(seed)
    champion = fit(split(history[history.week == 0])[0])
    weekly, best = [auc(week, champion) for week in range(1, 7)], [auc(week) for week in range(1, 7)]
    return {
        "week 1": weekly[0],
        "weeks 2 and 3": float(np.mean(weekly[1:3])),
        "weeks 4 to 6": float(np.mean(weekly[3:])),
        "week 6": weekly[5],
        "retrained, week 6": auc(6, fit(of_weeks(seed, 4, 5))),
        "best possible, weeks 1 to 3": float(np.mean(best[:3])),
        "best possible, weeks 4 to 6": float(np.mean(best[3:])),
        "before the change": float(np.mean(weekly[:3])),
    }


def shift(seed: int, column: str, week: int) -> float:
    """Population stability index of an hourly column in a week; above 0.2 counts as drift."""
    before, after = tables(seed).stats[column], made(seed).stats
    after = after.loc[week_of(after.event_timestamp) == week, column]
    bounds = np.quantile(before, np.arange(0.1, 1, 0.1))
    old, new = (np.bincount(np.searchsorted(bounds, v), minlength=10) / len(v) for v in (before, after))
    return float(((new - old) * np.log(new / old)).sum())


@pytest.mark.parametrize("seed", SEEDS)
def test_drift_costs_little_the_change_costs_much_and_a_retrained_model_wins_it_back(seed):
    found = scores(seed)
    assert found["week 1"] - found["weeks 2 and 3"] < 0.02
    lost = found["before the change"] - found["week 6"]
    assert lost >= 0.05 and found["retrained, week 6"] - found["week 6"] >= 2 / 3 * lost
    assert found["best possible, weeks 4 to 6"] >= found["best possible, weeks 1 to 3"]
    before, after = of_weeks(seed, 1, 2, 3), of_weeks(seed, 4, 5, 6)
    assert ranked(before.acc_rate, before.label) > 0.6 > 0.5 > ranked(after.acc_rate, after.label)
    drift = [shift(seed, "conv_rate", week) for week in range(1, 7)]
    assert min(drift[1:3]) > 0.2 and max(drift[0], *drift[3:]) < 0.05
    measured = [*list(found.values())[:-1], min(drift[1:3]), max(drift[0], *drift[3:])]
    assert card_table("The six weeks after the clock")[seed] == pytest.approx(measured, abs=0.011)


@pytest.fixture
def company(tmp_path) -> Workspace:
    """A home with the definitions applied, a row online, and a registered model with an alias."""
    workspace = create_home(tmp_path / HARD_TO_QUOTE)
    configure(workspace)
    apply(workspace).materialize(NOW - pd.Timedelta(hours=2), NOW, feature_views=["driver_hourly_stats"])
    client = mlflow.MlflowClient()
    client.create_registered_model("ranker")
    client.create_model_version("ranker", workspace.path.as_uri())
    client.set_registered_model_alias("ranker", "production", "1")
    return workspace


def digests(workspace: Workspace) -> dict[str, str]:
    """Of all files that notebooks before left, and of the data."""
    files = [*workspace.data.glob("*.parquet"), *workspace.path.glob("*.db")]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_their_home_holds_history_and_model_and_leaves_the_workspace_as_it_was(company):
    before = digests(company)
    later = weeks.six_weeks_later(company)
    for name, table in zip(data.FILES, ("stats", "profile", "labels"), strict=True):
        assert pq.read_schema(later.data / name).remove_metadata() == data.SCHEMAS[name], name
        found, history = pd.read_parquet(later.data / name), pd.read_parquet(company.data / name)
        pd.testing.assert_frame_equal(found.head(len(history)), history)
        added, new = found.iloc[len(history) :].reset_index(drop=True), getattr(made(data.SEED), table)
        shared = [column for column in new if column in added]
        pd.testing.assert_frame_equal(added[shared], new[shared], check_dtype=False)
    store = FeatureStore(repo_path=str(later.feature_repo))
    labels = made(data.SEED).labels.tail(200)[["driver_id", "event_timestamp"]]
    frame = historical_features(store, labels, store.get_feature_service("rates"))
    assert frame.conv_rate.notna().equals(labels.driver_id.isin(made(data.SEED).stats.driver_id))
    online = store.get_online_features(["driver_hourly_stats:conv_rate"], [{"driver_id": 1001}]).to_dict()
    last = pd.read_parquet(company.data / "driver_stats.parquet").query("driver_id == 1001").iloc[-1]
    assert online["conv_rate"] == [last.conv_rate]
    for _ in range(2):  # the second time, MLflow has connections to the database of the first
        later = weeks.six_weeks_later(company)
        client = mlflow.MlflowClient()
        assert client.get_registered_model("ranker").aliases.keys() == {"production"}
        client.set_registered_model_alias("ranker", "challenger", "1")
        (later.path / "left over").touch()
    assert not (weeks.six_weeks_later(company).path / "left over").exists()
    assert digests(company) == before and Path(later.path).is_relative_to(company.path)

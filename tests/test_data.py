"""The generated data: what is planted in it, for several seeds, and the command that writes it."""

from functools import cache

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from helpers import data
from helpers.workspace import REPOSITORY

pytestmark = pytest.mark.unit
COMMITTED = REPOSITORY / "data"
HOURLY = ["conv_rate", "acc_rate", "avg_daily_trips"]
SEEDS = [data.SEED, 0]
KEY = ["driver_id", "event_timestamp"]


@cache
def tables(seed: int) -> data.Tables:
    return data.generate(seed)


def latest(rows: pd.DataFrame) -> pd.DataFrame:
    """One row per driver and hour: the one written last."""
    rows = rows.sort_values(["event_timestamp", "created"])
    return rows.drop_duplicates(KEY, keep="last").drop(columns="created")


def ranked(feature: pd.Series, label: pd.Series) -> float:
    known = feature.notna()
    return roc_auc_score(label[known], feature[known])


@cache
def scores(seed: int) -> dict[str, float]:
    """AUC on the later quarter of the labels, with pandas alone."""
    made = tables(seed)
    labels = made.labels.assign(probability=made.probability)
    hourly = latest(made.stats)
    time = {"on": "event_timestamp", "by": "driver_id"}
    honest = pd.merge_asof(labels, hourly, tolerance=pd.Timedelta(days=7), **time)
    honest = pd.merge_asof(honest, latest(made.profile), tolerance=pd.Timedelta(days=30), **time)
    day = hourly.event_timestamp.dt.floor("D").rename("day")
    daily = hourly.groupby(["driver_id", day])[HOURLY].mean()
    leaky = labels.assign(day=labels.event_timestamp.dt.floor("D")).join(daily, on=["driver_id", "day"])
    known = (honest.conv_rate.notna() & leaky.conv_rate.notna()).to_numpy()
    honest, leaky = honest[known], leaky[known]
    later = (honest.event_timestamp > honest.event_timestamp.quantile(0.75)).to_numpy()

    def fit(frame: pd.DataFrame):
        return make_pipeline(StandardScaler(), LogisticRegression()).fit(
            frame.loc[~later, HOURLY], frame.label[~later]
        )

    def auc(model, frame: pd.DataFrame) -> float:
        return roc_auc_score(frame.label[later], model.predict_proba(frame.loc[later, HOURLY])[:, 1])

    looks_ahead = fit(leaky)
    return {
        "honest join": auc(fit(honest), honest),
        "leaky join": auc(looks_ahead, leaky),
        "leaky model in production": auc(looks_ahead, honest),
        "best possible": roc_auc_score(honest.label[later], honest.probability[later]),
        # One feature alone needs no model: it ranks the drivers itself, over all labels.
        **{name: ranked(honest[name], honest.label) for name in [*HOURLY, "rating", "tenure_days"]},
    }


@pytest.mark.parametrize("name, table", list(zip(data.FILES, ("stats", "profile", "labels"), strict=True)))
def test_regenerating_gives_the_committed_values_in_utc_before_the_clock(name, table):
    committed = pq.read_table(COMMITTED / name)
    frame = committed.to_pandas()
    pd.testing.assert_frame_equal(getattr(tables(data.SEED), table), frame, check_dtype=False, rtol=1e-9)
    times = {field.type for field in committed.schema if pa.types.is_timestamp(field.type)}
    assert times == {pa.timestamp("us", tz="UTC")} and frame.event_timestamp.max() < data.NOW
    card = (COMMITTED / "README.md").read_text()
    assert f"`{name}`: {len(frame):,} rows" in card
    assert [column for column in frame if f"`{column}`" not in card] == []


@pytest.mark.parametrize("seed", SEEDS)
def test_the_planted_signal_can_be_measured_and_is_that_of_the_data_card(seed):
    found = scores(seed)
    assert found["leaky join"] > found["best possible"] + 0.03
    assert found["leaky model in production"] < found["honest join"] - 0.03
    assert 0.7 < found["honest join"] < found["best possible"]
    assert found["conv_rate"] > found["acc_rate"] + 0.02
    assert found["acc_rate"] > found["rating"] > 0.6
    assert [found[noise] for noise in ("avg_daily_trips", "tenure_days")] == pytest.approx(
        [0.5, 0.5], abs=0.05
    )
    assert card_table("Scores by seed")[seed] == pytest.approx(list(found.values()), abs=0.011)


@pytest.mark.parametrize("seed", SEEDS)
def test_corrections_silent_drivers_and_double_labels_are_planted(seed, tmp_path):
    data.write(tmp_path, seed=seed)
    data.check_files(tmp_path)
    made = tables(seed)
    twice = made.stats[made.stats.duplicated(KEY, keep=False)].sort_values([*KEY, "created"])
    first, second = twice.iloc[::2].reset_index(), twice.iloc[1::2].reset_index()
    assert (second.created - second.event_timestamp).min() >= pd.Timedelta(days=1)
    assert (first.conv_rate != second.conv_rate).mean() > 0.99 and (first.acc_rate == second.acc_rate).all()
    pairs = made.labels.groupby(KEY).label.agg(["size", "nunique"]).query("size > 1")
    assert 1 <= (pairs["nunique"] == 2).sum() < len(pairs)


def card_table(heading: str) -> dict[int, list[float]]:
    """The rows of the table below a heading of the data card, by seed."""
    _, _, section = (COMMITTED / "README.md").read_text().partition(f"## {heading}\n")
    lines = section.partition("\n## ")[0].splitlines()
    rows = [line.strip("| ").split("|") for line in lines if line.startswith("|") and line[2:3].isdigit()]
    return {int(row[0]): [float(cell) for cell in row[1:]] for row in rows}

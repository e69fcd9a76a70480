import os
import subprocess
import sys
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

COMMITTED = REPOSITORY / "data"
HOURLY = ["conv_rate", "acc_rate", "avg_daily_trips"]
SEEDS = range(5)


@cache
def tables(seed: int) -> data.Tables:
    return data.generate(seed)


def latest(rows: pd.DataFrame) -> pd.DataFrame:
    """One row per driver and hour: the one written last."""
    rows = rows.sort_values(["event_timestamp", "created"])
    return rows.drop_duplicates(["driver_id", "event_timestamp"], keep="last").drop(columns="created")


@cache
def scores(seed: int) -> dict[str, float]:
    """AUC on the later quarter of the labels, computed with pandas alone, so that no tool of the course is needed to see what is planted."""
    made = tables(seed)
    labels = made.labels.assign(probability=made.probability, row=range(len(made.labels)))
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

    def fit(frame: pd.DataFrame, columns: list[str]):
        return make_pipeline(StandardScaler(), LogisticRegression()).fit(
            frame.loc[~later, columns], frame.label[~later]
        )

    def auc(model, frame: pd.DataFrame, columns: list[str]) -> float:
        return roc_auc_score(frame.label[later], model.predict_proba(frame.loc[later, columns])[:, 1])

    looks_ahead = fit(leaky, HOURLY)
    return {
        "honest join": auc(fit(honest, HOURLY), honest, HOURLY),
        "leaky join": auc(looks_ahead, leaky, HOURLY),
        "leaky model in production": auc(looks_ahead, honest, HOURLY),
        "best possible": roc_auc_score(honest.label[later], honest.probability[later]),
        # One feature alone needs no model: it ranks the drivers itself, over all labels.
        **{name: ranked(honest[name], honest.label) for name in [*HOURLY, "rating", "tenure_days"]},
    }


def ranked(feature: pd.Series, label: pd.Series) -> float:
    known = feature.notna()
    return roc_auc_score(label[known], feature[known])


@pytest.mark.parametrize("name, table", list(zip(data.FILES, ("stats", "profile", "labels"), strict=True)))
def test_regenerating_gives_the_committed_values(name, table):
    committed = pq.read_table(COMMITTED / name).to_pandas()
    pd.testing.assert_frame_equal(getattr(tables(data.SEED), table), committed, check_dtype=False, rtol=1e-9)


def test_the_committed_files_are_small():
    assert sum(path.stat().st_size for path in COMMITTED.iterdir()) <= 3_000_000


@pytest.mark.parametrize("name", data.FILES)
def test_committed_times_are_microseconds_in_utc_and_end_at_the_clock(name):
    table = pq.read_table(COMMITTED / name)
    times = [field.name for field in table.schema if pa.types.is_timestamp(field.type)]
    assert "event_timestamp" in times
    assert {table.schema.field(column).type for column in times} == {pa.timestamp("us", tz="UTC")}
    assert table["event_timestamp"].to_pandas().max() < data.NOW


@pytest.mark.parametrize("seed", SEEDS)
def test_looking_ahead_scores_above_the_best_possible_and_loses_in_production(seed):
    found = scores(seed)
    assert found["leaky join"] > found["best possible"] + 0.03
    assert found["leaky model in production"] < found["honest join"] - 0.03
    assert 0.7 < found["honest join"] < found["best possible"]


@pytest.mark.parametrize("seed", SEEDS)
def test_conv_rate_carries_most_acc_rate_some_and_the_noise_features_nothing(seed):
    found = scores(seed)
    assert found["conv_rate"] > found["acc_rate"] + 0.02
    assert found["acc_rate"] > found["rating"] > 0.6
    for noise in ("avg_daily_trips", "tenure_days"):
        assert found[noise] == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("seed", SEEDS)
def test_about_one_hour_in_a_hundred_is_corrected_a_day_or_more_later(seed):
    stats = tables(seed).stats
    group = stats.groupby(["driver_id", "event_timestamp"])
    twice = stats[group.created.transform("size") == 2].sort_values(
        ["driver_id", "event_timestamp", "created"]
    )
    assert 0.008 < len(twice) / 2 / group.ngroups < 0.012
    first, second = twice.iloc[::2].reset_index(), twice.iloc[1::2].reset_index()
    assert (second.created - second.event_timestamp).min() >= pd.Timedelta(days=1)
    assert (first.conv_rate != second.conv_rate).mean() > 0.99
    assert (first.acc_rate == second.acc_rate).all()


@pytest.mark.parametrize("seed", SEEDS)
def test_one_driver_in_25_stops_reporting_long_before_the_clock(seed):
    last = tables(seed).stats.groupby("driver_id").event_timestamp.max()
    silent = last[last < data.NOW - pd.Timedelta(days=7)]
    assert len(silent) == data.DRIVERS // data.EXPIRED_EVERY == 6
    assert (data.NOW - silent >= pd.Timedelta(days=data.EXPIRED_DAYS)).all()


@pytest.mark.parametrize("seed", SEEDS)
def test_one_driver_in_50_loses_its_profile_for_longer_than_the_daily_views_ttl_and_is_still_asked_about(
    seed,
):
    made = tables(seed)
    last = made.profile.groupby("driver_id").event_timestamp.max()
    unrated = last[last < data.NOW - pd.Timedelta(days=30)]
    assert len(unrated) == data.DRIVERS // data.UNRATED_EVERY == 3
    age = made.labels.event_timestamp - made.labels.driver_id.map(unrated)
    assert (age > pd.Timedelta(days=30)).sum() >= 3
    hourly = made.stats.groupby("driver_id").event_timestamp.max()
    assert (hourly[unrated.index] > data.NOW - pd.Timedelta(hours=2)).all(), "only the profile is missing"


@pytest.mark.parametrize("seed", [data.SEED, *SEEDS])
def test_some_label_keys_come_twice_and_at_least_one_pair_disagrees(seed):
    pairs = tables(seed).labels.groupby(["driver_id", "event_timestamp"]).label.agg(["size", "nunique"])
    pairs = pairs[pairs["size"] > 1]
    assert len(pairs) >= 10
    assert 1 <= (pairs["nunique"] == 2).sum() < len(pairs)


@pytest.mark.parametrize("seed", SEEDS)
def test_one_driver_has_labels_and_no_features(seed):
    made = tables(seed)
    assert (made.labels.driver_id == data.UNKNOWN_DRIVER).sum() == 3
    assert data.UNKNOWN_DRIVER not in {*made.stats.driver_id, *made.profile.driver_id}


def test_the_size_of_a_chunk_does_not_change_the_rows():
    whole = next(data.chunks(60, 30, seed=4, size=60))
    parts = list(data.chunks(60, 30, seed=4, size=7))
    assert len(parts) == 9
    for name in ("stats", "profile", "later"):
        joined = pd.concat([getattr(part, name) for part in parts], ignore_index=True)
        pd.testing.assert_frame_equal(joined, getattr(whole, name))


def test_more_drivers_keep_the_first_ones_as_they_were():
    few, many = data.generate(4, drivers=30, days=30), data.generate(4, drivers=50, days=30)
    ids = few.stats.driver_id.unique()
    pd.testing.assert_frame_equal(
        many.stats[many.stats.driver_id.isin(ids)].reset_index(drop=True), few.stats
    )


def test_drift_moves_the_later_week_and_nothing_before_it():
    calm, moved = tables(0), data.generate(0, drift=1.0)
    pd.testing.assert_frame_equal(calm.stats, moved.stats)
    assert calm.later.event_timestamp.min() == data.NOW
    assert moved.later.conv_rate.mean() < calm.later.conv_rate.mean() - 0.05
    assert moved.later.acc_rate.mean() > calm.later.acc_rate.mean() + 0.05
    assert abs(calm.later.conv_rate.mean() - calm.stats.conv_rate.mean()) < 0.03


def command(*arguments: str) -> subprocess.CompletedProcess:
    program = [sys.executable, "-m", "helpers.data", *arguments]
    return subprocess.run(
        program, capture_output=True, text=True, timeout=120, env={**os.environ, "PYTHONIOENCODING": "ascii"}
    )


def test_the_command_writes_three_files_of_the_size_asked_for_and_reports_progress(tmp_path):
    out = tmp_path / "made here" / "small"
    done = command("--drivers", "25", "--days", "30", "--seed", "3", "--out", str(out))
    assert done.returncode == 0, done.stderr
    assert "25/25" in done.stderr
    assert sorted(path.name for path in out.iterdir()) == sorted(data.FILES)
    stats = pq.read_table(out / "driver_stats.parquet").to_pandas()
    assert stats.driver_id.nunique() == 25
    assert stats.event_timestamp.min() == data.NOW - pd.Timedelta(days=30)
    assert data.seed_of(out) == 3
    for name in data.FILES:
        data.check_file(out / name)


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--drivers", "0"], "at least 25 are needed"),
        (["--days", "-3"], "at least 30 are needed"),
        (["--seed", "-1"], "a seed is an integer of 0 or more"),
        (["--drivers", "3000000", "--days", "3000"], "hourly rows"),
        (["--drivers", "many"], "invalid int value: 'many'"),
    ],
)
def test_nonsense_is_refused_and_nothing_is_written(tmp_path, arguments, words):
    done = command(*arguments, "--out", str(tmp_path / "out"))
    assert done.returncode == 2
    assert words in done.stderr and "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_place_of_the_folder_is_refused_and_kept(tmp_path):
    (tmp_path / "out").write_text("mine")
    done = command("--out", str(tmp_path / "out"))
    assert (done.returncode, (tmp_path / "out").read_text()) == (2, "mine")
    assert "is a file; --out takes a folder" in done.stderr


def card_table(heading: str) -> dict[int, list[float]]:
    """The rows of the table below a heading of the data card, by seed."""
    _, _, section = (COMMITTED / "README.md").read_text().partition(f"## {heading}\n")
    lines = section.partition("\n## ")[0].splitlines()
    rows = [line.strip("| ").split("|") for line in lines if line.startswith("|") and line[2:3].isdigit()]
    return {int(row[0]): [float(cell) for cell in row[1:]] for row in rows}


@pytest.mark.parametrize("seed", [data.SEED, *SEEDS])
def test_the_data_card_gives_the_measured_scores(seed):
    assert card_table("Scores by seed")[seed] == pytest.approx(list(scores(seed).values()), abs=0.011)


def test_the_data_card_describes_each_column_and_counts_the_rows():
    text = (COMMITTED / "README.md").read_text()
    for name in data.FILES:
        assert f"`{name}`: {pq.read_metadata(COMMITTED / name).num_rows:,} rows" in text
    missing = [
        f"{name}: {column}"
        for name in data.FILES
        for column in data.SCHEMAS[name].names
        if f"`{column}`" not in text
    ]
    assert missing == []

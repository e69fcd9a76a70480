"""Six weeks after the workshop's clock, in which the world changes: the data of notebook 08.

One quiet week; two weeks of covariate drift, in which all drivers are out of form and all else stays as it
was; three weeks of concept drift, in which a bonus for accepting trips turns the relation around: who accepts
more now converts less. ``data/README.md`` has the figures, for several seeds.
"""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from feast import FeatureStore
from scipy.signal import lfilter

from helpers import data, registry
from helpers.data import DAYS, DRIVERS, EXPIRED_EVERY, LABEL_RATE, NOW, UNRATED_EVERY, UNRATED_FIRST
from helpers.workspace import Workspace, configure, create_home

WEEKS = 6
COVARIATE = (8, 21)
"""First and last day of covariate drift, counted from 1 at ``NOW``."""
CONCEPT = (22, 42)
"""First and last day of concept drift."""
OUT_OF_FORM = 0.8
"""How far the hidden state of every driver falls during covariate drift."""
RANKED_AT = 6
"""Hour of the day at which the drivers are ranked, and the question of each label is asked."""
LABEL_DELAY = pd.Timedelta(days=1)
"""A label's question is about the 24 hours after its time: nobody knows it earlier."""


@dataclass(frozen=True)
class Weeks:
    """The six weeks.

    Attributes:
        stats: hourly rows, columns as in ``driver_stats.parquet``.
        profile: daily rows, columns as in ``driver_profile.parquet`` but for ``tenure_days``, which goes on
            from the committed file.
        labels: ``driver_id``, ``event_timestamp``, ``label``, and ``created``: when the outcome was known.
        probability: the true probability of ``label == 1``, a float per row of ``labels``. No feature may
            hold it.
    """

    stats: pd.DataFrame
    profile: pd.DataFrame
    labels: pd.DataFrame
    probability: np.ndarray


def _driver(seed: int, number: int) -> tuple[dict, dict, dict]:
    """One driver's columns, times in seconds since ``NOW``.

    The hidden state goes on from where the committed history ends.
    """
    history = np.random.default_rng([seed, number])
    skill = history.normal()
    form = data._form(history, (DAYS + data.LATER_DAYS) * 24)[DAYS * 24 - 1]
    rng = np.random.default_rng([seed, number, 2])
    days = WEEKS * 7
    hours = days * 24
    clock = np.arange(hours)
    keep = 0.5 ** (1 / data.HALF_LIFE_HOURS)
    shocks = rng.normal(size=hours) * np.sqrt(1 - keep**2)
    series, _ = lfilter([1.0], [1.0, -keep], shocks, zi=[keep * form])
    day = clock // 24 + 1
    drifting = (day >= COVARIATE[0]) & (day <= COVARIATE[1])
    changed = day >= CONCEPT[0]
    state = 0.6 * skill + 0.8 * series - OUT_OF_FORM * drifting
    accepts = rng.normal(0, 1, hours)

    asked = np.flatnonzero(rng.random(days) < LABEL_RATE) * 24 + RANKED_AT
    quiet = 1.5 * state[asked] - 0.2
    turned = 1.6 * state[asked] - 1.8 * accepts[asked] - 0.2
    probability = data._sigmoid(np.where(changed[asked], turned, quiet))
    label = (rng.random(asked.size) < probability).astype("int64")
    outcome = np.zeros(hours + 25)
    for hour, y in zip(asked, label, strict=True):
        outcome[hour + 1 : hour + 25] = 0.9 if y else -0.9
    conv = state + outcome[:hours] + rng.normal(0, 0.6, hours)
    stats = {
        "driver": np.full(hours, number),
        "second": clock * 3600,
        "conv_rate": data._sigmoid(conv).round(4),
        "acc_rate": data._sigmoid(0.9 * state + 0.5 + accepts).round(4),
        "avg_daily_trips": rng.poisson(20, hours),
        "created": clock * 3600 + rng.integers(60, 600, hours),
    }
    dates = np.arange(days)
    profile = {
        "driver": np.full(days, number),
        "second": dates * 86_400,
        "rating": np.clip(4.5 + 0.2 * skill + rng.normal(0, 0.1, days), 1, 5).round(2),
        "created": dates * 86_400 + rng.integers(600, 3600, days),
    }
    labels = {
        "driver": np.full(asked.size, number),
        "second": asked * 3600,
        "label": label,
        "created": asked * 3600 + int(LABEL_DELAY.total_seconds()) + rng.integers(60, 3600, asked.size),
        "probability": probability,
    }
    return stats, profile, labels


def generate(seed: int, drivers: int = DRIVERS) -> Weeks:
    """The six weeks that follow the history of ``seed``, for its first ``drivers`` drivers.

    Drivers that sent nothing any more at ``NOW`` stay silent, and those without a profile stay without one;
    both have labels.
    """
    made = [_driver(seed, number) for number in range(drivers)]
    silent = [n for n in range(drivers) if n % EXPIRED_EVERY == EXPIRED_EVERY - 1]
    unrated = [n for n in range(drivers) if n % UNRATED_EVERY == UNRATED_FIRST]
    stats = data._frame([stats for n, (stats, _, _) in enumerate(made) if n not in silent], 0)
    profile = data._frame([profile for n, (_, profile, _) in enumerate(made) if n not in unrated], 0)
    labels = data._frame([labels for _, _, labels in made], 0).sort_values(
        ["event_timestamp", "driver_id"], ignore_index=True
    )
    probability = labels.pop("probability").to_numpy()
    return Weeks(stats, profile, labels, probability)


def six_weeks_later(workspace: Workspace) -> Workspace:
    """The company six weeks on, in a home of its own below the workspace, made anew at each call.

    This process works in it from then on.

    Its data is the history and the six weeks. Registry, online store and MLflow's database are copies, so
    that what happens in these weeks changes nothing that earlier notebooks left. The definitions are those of
    the workspace, applied to the longer files.

    Returns:
        The home. Its ``driver_labels.parquet`` has a label for each question of the six weeks too; when it
        was known is in ``Weeks.labels``.
    """
    home = workspace.path / "six_weeks_later"
    database, aside = home / "workspace" / "mlflow.db", workspace.path / ".six_weeks_later.mlflow.db"
    # This process may have connections to it, which would not find a new file: it is filled anew.
    if database.exists():
        database.rename(aside)
    shutil.rmtree(home, ignore_errors=True)
    later = create_home(home, seed=workspace.seed, source=workspace.home)
    if aside.exists():
        aside.rename(database)
    weeks = generate(workspace.seed)
    profile = pd.read_parquet(later.data / "driver_profile.parquet")
    joined = profile.groupby("driver_id").tenure_days.max()
    days = (weeks.profile.event_timestamp - NOW).dt.days + 1
    weeks.profile["tenure_days"] = weeks.profile.driver_id.map(joined) + days
    for name, new in zip(data.FILES, (weeks.stats, weeks.profile, weeks.labels), strict=True):
        path = later.data / name
        schema = pq.read_schema(path)  # with the seed that the file carries
        longer = pd.concat([pd.read_parquet(path), new[schema.names]], ignore_index=True)
        pq.write_table(data._table(longer, schema), path)
    for name in ("registry.db", "online_store.db"):
        shutil.copy(workspace.path / name, later.path / name)
    with (
        contextlib.closing(sqlite3.connect(workspace.path / "mlflow.db")) as original,
        contextlib.closing(sqlite3.connect(later.path / "mlflow.db")) as copy,
    ):
        original.backup(copy)
    configure(later)
    registry.apply(FeatureStore(repo_path=str(later.feature_repo)), later.feature_repo)
    return later

"""The workshop's data: generated, seeded, with a planted signal and planted faults.

A ride-hailing company ranks drivers by the chance that they convert in the next 24 hours. Each driver has a
hidden state that moves slowly; the features observe it with noise, the label is drawn from it, and the
generator therefore knows the best score that any model can reach. ``data/README.md`` is the data card. From a
terminal, at any size::

    python -m helpers.data --drivers 1000 --days 90 --seed 7 --out my_data
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from helpers.errors import Told

SEED = 2025
DRIVERS = 150
DAYS = 45
NOW = pd.Timestamp("2025-03-01", tz="UTC")
"""The workshop's clock.

The data ends here, and nothing reads the wall clock, so that every run gives the same figures.
"""

FIRST_DRIVER = 1001
UNKNOWN_DRIVER = 999
"""A driver that has labels and no features."""

FILES = ("driver_stats.parquet", "driver_profile.parquet", "driver_labels.parquet")

LATER_DAYS = 7  # a week after NOW is always generated, and kept apart: notebook 03 lets it arrive
FIRST_LABEL_DAY = 7  # before it, no label: every label has a week of history
HALF_LIFE_HOURS = 48  # of a driver's form
LABEL_RATE = 0.72  # labels per driver and day
CORRECTION_RATE = 0.01  # share of hourly rows that are written twice
EXPIRED_EVERY = 25  # one driver in so many stops reporting ...
EXPIRED_DAYS = 15  # ... this long before NOW; the hourly view's TTL is 7 days
UNRATED_EVERY, UNRATED_FIRST = 50, 16  # one driver in so many, counted from this one, ...
RATED_DAYS = 10  # ... has a profile in the first days alone; the daily view's TTL is 30 days
DUPLICATE_EVERY = 200  # one label key in so many carries two labels


class DataError(Told, ValueError):
    """The data is not what the workshop needs; the message says what to do."""


@dataclass(frozen=True)
class Tables:
    """What one generation gives.

    Attributes:
        stats: hourly rows: ``driver_id``, ``event_timestamp``, ``conv_rate``, ``acc_rate``,
            ``avg_daily_trips``, ``created``.
        profile: daily rows: ``driver_id``, ``event_timestamp``, ``rating``, ``tenure_days``, ``created``.
        labels: ``driver_id``, ``event_timestamp``, ``label`` (0 or 1).
        later: hourly rows of the week after ``NOW``, like ``stats``.
        probability: the true probability of ``label == 1``, a float per row of ``labels``. No feature may
            hold it.
    """

    stats: pd.DataFrame
    profile: pd.DataFrame
    labels: pd.DataFrame
    later: pd.DataFrame
    probability: np.ndarray


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def _form(rng: np.random.Generator, hours: int) -> np.ndarray:
    """A stationary AR(1) series with unit variance: today's form is most of tomorrow's."""
    from scipy.signal import lfilter

    keep = 0.5 ** (1 / HALF_LIFE_HOURS)
    shocks = rng.normal(size=hours) * np.sqrt(1 - keep**2)
    shocks[0] = rng.normal()
    return lfilter([1.0], [1.0, -keep], shocks)


def _driver(seed: int, number: int, days: int, drift: float) -> tuple[dict, dict, dict]:
    """One driver's columns: hourly stats, daily profile, labels.

    Depends on nothing but its arguments, so any chunk can be made alone.
    """
    rng = np.random.default_rng([seed, number])
    hours = (days + LATER_DAYS) * 24
    clock = np.arange(hours)  # row h describes the hour that ends h hours after the first day began
    skill = rng.normal()
    state = 0.6 * skill + 0.8 * _form(rng, hours)

    label_days = np.arange(FIRST_LABEL_DAY, days - 1)
    label_days = label_days[rng.random(label_days.size) < LABEL_RATE]
    label_hours = label_days * 24 + rng.integers(6, 21, label_days.size)
    probability = _sigmoid(1.5 * state[label_hours] - 0.2)
    label = (rng.random(label_hours.size) < probability).astype("int64")

    # The labelled conversions happen in the 24 hours after the label's time, and raise or lower what is
    # measured in them: the leak.
    outcome = np.zeros(hours)
    for hour, y in zip(label_hours, label, strict=True):
        outcome[hour + 1 : hour + 25] = 0.9 if y else -0.9
    # So do those of the later week, whose labels nobody has yet: without them a clean later week would look
    # drifted. Draws of their own, so that the week changes nothing before it.
    unseen = np.random.default_rng([seed, number, 1])
    for day in range(days, days + LATER_DAYS):
        hour = day * 24 + unseen.integers(6, 21)
        y, happens = unseen.random() < _sigmoid(1.5 * state[hour] - 0.2), unseen.random() < LABEL_RATE
        if happens:
            outcome[hour + 1 : hour + 25] = 0.9 if y else -0.9

    later = clock >= days * 24
    conv = state + outcome + rng.normal(0, 0.6, hours) - 0.6 * drift * later
    acc = 0.9 * state + 0.5 + rng.normal(0, 1, hours) + 1.0 * drift * later
    trips = rng.poisson(20, hours)
    delay = rng.integers(60, 600, hours)  # seconds until a row is written
    corrected = rng.random(hours) < CORRECTION_RATE
    wrong = conv + rng.normal(0, 1.5, hours)
    correction_delay = rng.integers(24 * 3600, 72 * 3600, hours)

    rows = np.concatenate([clock, clock[corrected]])
    first = np.where(corrected, wrong, conv)
    stats = {
        "driver": np.full(rows.size, number),
        "second": rows * 3600,
        "conv_rate": _sigmoid(np.concatenate([first, conv[corrected]])).round(4),
        "acc_rate": _sigmoid(acc)[rows].round(4),
        "avg_daily_trips": trips[rows],
        "created": rows * 3600 + np.concatenate([delay, correction_delay[corrected]]),
        "later": later[rows],
    }
    if number % EXPIRED_EVERY == EXPIRED_EVERY - 1:
        keep = rows < (days - EXPIRED_DAYS) * 24
        stats = {name: column[keep] for name, column in stats.items()}

    dates = np.arange(days)
    profile: dict[str, np.ndarray] = {
        "driver": np.full(days, number),
        "second": dates * 86_400,
        "rating": np.clip(4.5 + 0.2 * skill + rng.normal(0, 0.1, days), 1, 5).round(2),
        "tenure_days": rng.integers(10, 1500) + dates,
        "created": dates * 86_400 + rng.integers(600, 3600, days),
    }
    if number % UNRATED_EVERY == UNRATED_FIRST:
        profile = {name: column[:RATED_DAYS] for name, column in profile.items()}

    twice = np.flatnonzero((label_hours * 31 + number * 7) % DUPLICATE_EVERY == 0)
    second_label = (rng.random(label_hours.size) < probability).astype("int64")[twice]
    labels = {
        "driver": np.full(label_hours.size + twice.size, number),
        "second": np.concatenate([label_hours, label_hours[twice]]) * 3600,
        "label": np.concatenate([label, second_label]),
        "probability": np.concatenate([probability, probability[twice]]),
    }
    return stats, profile, labels


def _frame(parts: list[dict], days: int) -> pd.DataFrame:
    start = NOW - pd.Timedelta(days=days)
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def times(name: str) -> pd.Series:
        return pd.Series(start.as_unit("us") + pd.to_timedelta(columns.pop(name), unit="s").as_unit("us"))

    frame = {"driver_id": columns.pop("driver") + FIRST_DRIVER, "event_timestamp": times("second")}
    created = {"created": times("created")} if "created" in columns else {}
    return pd.DataFrame({**frame, **columns, **created})


def _check_size(drivers: int, days: int, seed: int) -> None:
    if drivers < EXPIRED_EVERY:
        raise DataError(
            f"drivers={drivers}: at least {EXPIRED_EVERY} are needed, or no planted case (an expired "
            f"driver) exists. Try --drivers {DRIVERS}."
        )
    if days < 30:
        raise DataError(
            f"days={days}: at least 30 are needed: a week before the first label, and weeks to train and to "
            f"test on. Try --days {DAYS}."
        )
    if seed < 0:
        raise DataError(f"seed={seed}: a seed is an integer of 0 or more.")
    if drivers * days > 20_000_000:
        raise DataError(
            f"{drivers:,} drivers x {days} days is {drivers * days * 24:,} hourly rows, more than this "
            "machine's disk is meant for."
        )


def chunks(drivers: int, days: int, seed: int, drift: float = 0.0, size: int = 500) -> Iterator[Tables]:
    """The tables in parts of ``size`` drivers, in driver order. The parts do not depend on ``size``."""
    _check_size(drivers, days, seed)
    for low in range(0, drivers, size):
        made = [_driver(seed, number, days, drift) for number in range(low, min(low + size, drivers))]
        stats, profile, labels = (_frame([m[k] for m in made], days) for k in range(3))
        stats = stats.sort_values(["driver_id", "event_timestamp", "created"], ignore_index=True)
        if low == 0:
            unknown = labels.iloc[:3].assign(driver_id=UNKNOWN_DRIVER)
            labels = pd.concat([unknown, labels], ignore_index=True)
        labels = labels.sort_values(["event_timestamp", "driver_id"], kind="stable", ignore_index=True)
        later = stats.pop("later").to_numpy()
        yield Tables(
            stats=stats[~later].reset_index(drop=True),
            profile=profile.reset_index(drop=True),
            labels=labels.drop(columns="probability"),
            later=stats[later].reset_index(drop=True),
            probability=labels["probability"].to_numpy(),
        )


def generate(seed: int = SEED, drivers: int = DRIVERS, days: int = DAYS, drift: float = 0.0) -> Tables:
    """All tables in memory; the defaults give the committed files.

    Args:
        seed: 0 or more. Other seeds give other drivers with the same planted relations.
        drivers: number of drivers, at least 25.
        days: days of history before ``NOW``, at least 30.
        drift: shift of the later week: conv_rate down by 0.6 x drift and acc_rate up by 1.0 x drift, on the
            log-odds scale.

    Raises:
        DataError: a size that cannot hold the planted cases.
    """
    parts = list(chunks(drivers, days, seed, drift))
    if len(parts) == 1:
        return parts[0]
    labels = pd.concat([p.labels.assign(probability=p.probability) for p in parts])
    labels = labels.sort_values(["event_timestamp", "driver_id"], kind="stable", ignore_index=True)
    return Tables(
        stats=pd.concat([p.stats for p in parts], ignore_index=True),
        profile=pd.concat([p.profile for p in parts], ignore_index=True),
        labels=labels.drop(columns="probability"),
        later=pd.concat([p.later for p in parts], ignore_index=True),
        probability=labels["probability"].to_numpy(),
    )


_TIME = pa.timestamp("us", tz="UTC")  # DuckDB 2 and `feast monitor` fail on pandas' default, nanoseconds
SCHEMAS = {
    "driver_stats.parquet": pa.schema(
        [
            ("driver_id", pa.int64()),
            ("event_timestamp", _TIME),
            ("conv_rate", pa.float64()),
            ("acc_rate", pa.float64()),
            ("avg_daily_trips", pa.int64()),
            ("created", _TIME),
        ]
    ),
    "driver_profile.parquet": pa.schema(
        [
            ("driver_id", pa.int64()),
            ("event_timestamp", _TIME),
            ("rating", pa.float64()),
            ("tenure_days", pa.int64()),
            ("created", _TIME),
        ]
    ),
    "driver_labels.parquet": pa.schema(
        [("driver_id", pa.int64()), ("event_timestamp", _TIME), ("label", pa.int64())]
    ),
}


def _table(frame: pd.DataFrame, schema: pa.Schema) -> pa.Table:
    return pa.Table.from_pandas(frame, schema=schema, preserve_index=False)


def seed_of(folder: Path) -> int:
    """The seed that made the files in ``folder``; each file carries it in its metadata."""
    return int((pq.read_schema(Path(folder) / FILES[0]).metadata or {}).get(b"workshop.seed", SEED))


def write(
    out: Path, *, seed: int = SEED, drivers: int = DRIVERS, days: int = DAYS, progress: bool = False
) -> None:
    """Write the three parquet files into ``out``, complete or not at all: a whole file is renamed into place.

    Raises:
        DataError: nonsense sizes, or ``out`` is a file.
    """
    from tqdm import tqdm

    _check_size(drivers, days, seed)
    out = Path(out)
    if out.exists() and not out.is_dir():
        raise DataError(f"{out} is a file; --out takes a folder.")
    out.mkdir(parents=True, exist_ok=True)
    partial = {name: out / f".{name}.partial" for name in FILES}
    options = {"compression": "zstd", "version": "2.6"}
    note = {"workshop.seed": str(seed), "workshop.drivers": str(drivers), "workshop.days": str(days)}
    schemas = {name: schema.with_metadata(note) for name, schema in SCHEMAS.items()}
    labels = []
    bar = tqdm(total=drivers, unit=" drivers", disable=not progress)
    try:
        with (
            pq.ParquetWriter(partial[FILES[0]], schemas[FILES[0]], **options) as stats,
            pq.ParquetWriter(partial[FILES[1]], schemas[FILES[1]], **options) as profile,
            bar,
        ):
            for part in chunks(drivers, days, seed):
                stats.write_table(_table(part.stats, schemas[FILES[0]]))
                profile.write_table(_table(part.profile, schemas[FILES[1]]))
                labels.append(part.labels)
                bar.update(part.profile["driver_id"].nunique())
        frame = pd.concat(labels).sort_values(
            ["event_timestamp", "driver_id"], kind="stable", ignore_index=True
        )
        pq.write_table(_table(frame, schemas[FILES[2]]), partial[FILES[2]], **options)
        for name in FILES:
            partial[name].replace(out / name)
    finally:
        for path in partial.values():
            path.unlink(missing_ok=True)


def check_file(path: Path) -> None:
    """Raise DataError, with what to do, when one of the three files is missing, cut short, or has other
    columns or types than its card says."""
    name = path.name
    mend = (
        f"Restore it with `git checkout -- data/{name}`, or make all three again with "
        f"`python -m helpers.data --out {path.parent.name}`."
    )
    if not path.exists():
        raise DataError(f"{name} is missing from the {path.parent.name}/ folder. {mend}")
    try:
        found = pq.read_schema(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(
            f"{name} is damaged or cut short and cannot be read as parquet ({str(error).splitlines()[0]}). "
            f"{mend}"
        ) from None
    for field in SCHEMAS[name]:
        if field.name not in found.names:
            raise DataError(f"{name} has no column {field.name!r}; it has {', '.join(found.names)}. {mend}")
        if found.field(field.name).type != field.type:
            raise DataError(
                f"{name}: column {field.name!r} has type {found.field(field.name).type}, and must be "
                f"{field.type}. {mend}"
            )


def check_files(folder: Path) -> None:
    """``check_file`` for all three, and whether they hold what the course counts on; takes some 50 ms.

    Raises:
        DataError: a file is missing or damaged, or it is other data, of whatever shape.
    """
    for name in FILES:
        check_file(Path(folder) / name)
    key = ["driver_id", "event_timestamp"]
    stats, profile, labels = (pq.read_table(Path(folder) / name, columns=key).to_pandas() for name in FILES)
    drivers = stats.driver_id.nunique()
    silent = (stats.groupby("driver_id").event_timestamp.max() < NOW - pd.Timedelta(days=7)).sum()
    unrated = (profile.groupby("driver_id").event_timestamp.max() < NOW - pd.Timedelta(days=30)).sum()
    twice = stats.duplicated(key).mean()
    first, last = stats.event_timestamp.min(), stats.event_timestamp.max()
    begins = NOW - pd.Timedelta(days=DAYS)
    holds = {
        f"hourly rows from {first:%Y-%m-%d} to {last:%Y-%m-%d}, "
        f"not from {begins:%Y-%m-%d} to {NOW:%Y-%m-%d}": (
            first <= begins and NOW - pd.Timedelta(hours=1) <= last < NOW
        ),
        f"{twice:.1%} of the hours written twice, not about 1%": 0.005 < twice < 0.02,
        f"{silent} of {drivers} drivers silent for 7 days, not one in {EXPIRED_EVERY}": silent
        == drivers // EXPIRED_EVERY,
        f"{unrated} of {drivers} profiles ended 30 days ago, not one in {UNRATED_EVERY}": unrated
        == drivers // UNRATED_EVERY
        > 0,
        "no label key that comes twice": labels.duplicated(key).any(),
        f"no labels of a driver {UNKNOWN_DRIVER} without features": UNKNOWN_DRIVER in set(labels.driver_id)
        and UNKNOWN_DRIVER not in {*stats.driver_id, *profile.driver_id},
    }
    wrong = [found for found, fits in holds.items() if not fits]
    if wrong:
        raise DataError(
            f"{Path(folder).name}/ holds other data than the course can be run on: {'; '.join(wrong)}. Its "
            "notebooks count on what data/README.md lists as "
            "planted: restore it with `git checkout -- data`, and for data of your own start a project with "
            "`lifecycle/` and definitions like those in `feature_repo/`."
        )


def main(argv: list[str] | None = None) -> int:
    """The command line; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m helpers.data", description="Generate the workshop's data at any size."
    )
    parser.add_argument("--drivers", type=int, default=DRIVERS, help=f"number of drivers (default {DRIVERS})")
    parser.add_argument(
        "--days", type=int, default=DAYS, help=f"days of history before {NOW.date()} (default {DAYS})"
    )
    parser.add_argument(
        "--seed", type=int, default=SEED, help=f"random seed (default {SEED}, that of the committed files)"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to write to; made when missing")
    arguments = parser.parse_args(argv)
    try:
        write(
            arguments.out, seed=arguments.seed, drivers=arguments.drivers, days=arguments.days, progress=True
        )
    except (DataError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for name in FILES:
        path = arguments.out / name
        print(f"{name:24} {pq.read_metadata(path).num_rows:>12,} rows {path.stat().st_size / 1e6:8.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())

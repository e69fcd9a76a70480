"""The exercises of notebook 07."""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exercises.core import Exercise, NotYet, attempt, scratch, scratch_tracking, staged
from helpers.start import MODEL
from helpers.workspace import NOW, current

if TYPE_CHECKING:
    import pandas as pd
    from feast import FeatureStore
    from mlflow import MlflowClient

HOURLY, DAILY = "driver_hourly_stats", "driver_daily_profile"
RATES = [f"{HOURLY}:conv_rate", f"{HOURLY}:acc_rate"]
SCRATCH_MODEL = "exercise"
TOKYO = timedelta(hours=9)
SILENT = [timedelta(days=days, hours=12) for days in range(3, 13)]
"""How long each of ten drivers has been silent, on both sides of the time to live of seven days."""


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hide Feast's progress reports."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


def _aliases(client: MlflowClient, name: str) -> dict[str, str]:
    return {alias: str(version) for alias, version in client.get_registered_model(name).aliases.items()}


def _keeps_a_way_back(promote: Any) -> str:
    if not callable(promote):
        raise NotYet(
            f"`promote` is a {type(promote).__name__}. Write a function of a client, a name, and a version."
        )
    with scratch_tracking() as client:
        client.create_registered_model(SCRATCH_MODEL)
        for _ in range(3):
            client.create_model_version(SCRATCH_MODEL, source="nowhere")
        client.set_registered_model_alias(SCRATCH_MODEL, "production", "1")
        course, served = _aliases(client, MODEL), "1"
        for version in ("3", "2"):
            with attempt(f"`promote` failed while version {served} was in production"):
                promote(client, SCRATCH_MODEL, version)
            if _aliases(client, MODEL) != course:
                raise NotYet(
                    f"your function moved an alias of {MODEL} (in a copy), although the check called it for"
                    " another model. Use all three arguments."
                )
            _judge_aliases(_aliases(client, SCRATCH_MODEL), served, version)
            served = version
    return (
        "The check promoted version 3 and then version 2, and each time `previous` named the version that"
        " served before. MLflow itself keeps no history of an alias."
    )


def _judge_aliases(found: dict[str, str], served: str, version: str) -> None:
    if found.get("production") != version:
        names = f"version {found['production']}" if "production" in found else "none"
        raise NotYet(f"`promote` was called for version {version}, and production names {names}.")
    if "previous" not in found:
        raise NotYet(
            f"production names version {version}, and no alias `previous` names the version before it. The"
            f" model's aliases: {', '.join(found)}."
        )
    if found["previous"] == version:
        raise NotYet(
            f"both aliases name version {version}. In which order does your function read and move them? Once"
            " an alias has moved, it doesn't say where it was."
        )
    if found["previous"] != served:
        raise NotYet(
            f"version {served} was in production, and now `previous` names version {found['previous']}. Don't"
            " derive the number or write it down: ask the registry which version is in production."
        )


def _with_silent_drivers() -> pd.DataFrame:
    """Return the course's hourly rows, in which some drivers have been silent for days."""
    import pandas as pd

    stats = pd.read_parquet(current().data / "driver_stats.parquet")
    last = stats.groupby("driver_id").event_timestamp.max()
    reporting = last.index[last > NOW - min(SILENT)]
    ends = stats.driver_id.map(dict(zip(reporting, (NOW - silence for silence in SILENT), strict=False)))
    return stats[~(stats.event_timestamp > ends)]


def _fixes(fix: Any) -> str:
    if not callable(fix):
        raise NotYet(f"`fix` is a {type(fix).__name__}. Write a function of a feature store.")
    rows = _with_silent_drivers()
    everyone = rows[["driver_id"]].drop_duplicates().assign(event_timestamp=NOW)
    with _quiet(), staged(rows) as store:
        store.materialize_incremental(NOW, feature_views=[HOURLY])
        with attempt("`fix` failed"):
            fix(store)
        asked = everyone[["driver_id"]].to_dict("records")
        with attempt("after `fix`, the store doesn't answer"):
            online = store.get_online_features(RATES, asked).to_df().set_index("driver_id").conv_rate
            training = store.get_historical_features(everyone, RATES).to_df().set_index("driver_id").conv_rate
    _judge_online(online, training.reindex(online.index))
    return (
        f"{online.notna().sum()} of {len(online)} drivers have an online value, and the other"
        f" {online.isna().sum()} are null, as in a training set. `materialize` takes both ends from you and"
        " doesn't read the machine's clock."
    )


def _judge_online(online: pd.Series, training: pd.Series) -> None:
    if online.isna().all():
        raise NotYet(
            f"all {len(online)} drivers are still null: does your period contain the data of early 2025? An"
            " increment begins where the last period ended, and the first call's ended at `NOW`, although it"
            " loaded nothing."
        )
    late, expired = online.isna() & training.notna(), online.notna() & training.isna()
    if late.any():
        raise NotYet(
            f"still null online, with a value in a training set as of `NOW`: {late.sum()} of {len(online)}"
            " drivers. Their last row is older than the start of your period."
        )
    if expired.any():
        raise NotYet(
            f"online, and null in a training set as of `NOW`: {expired.sum()} of {len(online)} drivers. Your"
            " period starts earlier than the time to live allows."
        )
    other = (online != training) & online.notna()
    if other.any():
        raise NotYet(
            f"{other.sum()} of {len(online)} drivers have a different online value than in a training set as"
            " of `NOW`: their last rows are later than the end of your period."
        )


def _server_says(store: FeatureStore, driver: int) -> str:
    """Return what the model server's class refuses a driver with, by the course's clock; "" for a score."""
    import yaml
    from fastapi import HTTPException

    from lifecycle.serving.scoring import FeatureModel

    with tempfile.TemporaryDirectory(prefix="exercise-") as folder:
        settings = store.config.model_dump(mode="json", by_alias=True, exclude_none=True)
        (Path(folder) / "feature_store.yaml").write_text(yaml.safe_dump(settings))
        model = FeatureModel(MODEL, Path(folder), "production", now=NOW.timestamp())
        try:
            model.score([{"driver_id": driver}])
        except HTTPException as error:
            return str(error.detail)
        finally:
            model.stop()
            model.loaded.folder.cleanup()
    return ""


def _lies_ahead(hour: Any) -> str:
    import pandas as pd

    if not isinstance(hour, pd.DataFrame) or len(hour) != 1:
        rows = f", of {len(hour)} rows" if isinstance(hour, pd.DataFrame) else ""
        raise NotYet(
            f"`tokyo_hour` is a {type(hour).__name__}{rows}. Make a table of one row, like `old_hour`."
        )
    missing = {"driver_id", "event_timestamp", "created", "conv_rate", "acc_rate", "avg_daily_trips"} - set(
        hour
    )
    if missing:
        raise NotYet(f"the row lacks {', '.join(sorted(missing))}, which the feature view has.")
    with attempt("`event_timestamp` can't be read as a time"):
        ahead = pd.Timestamp(pd.to_datetime(hour.event_timestamp, utc=True).iloc[0]) - NOW
    with attempt("`driver_id` isn't a number"):
        driver = int(hour.driver_id.iloc[0])
    with scratch() as store, _quiet():
        day = {
            "driver_id": [driver],
            "event_timestamp": NOW,
            "created": NOW,
            "rating": 4.5,
            "tenure_days": 100,
        }
        with attempt("Feast rejects this row"):
            store.write_to_online_store(HOURLY, hour)
        store.write_to_online_store(DAILY, pd.DataFrame(day))
        served = store.get_online_features(RATES, [{"driver_id": driver}]).to_df().conv_rate.iloc[0]
        said = _server_says(store, driver)
        week = store.get_feature_view(HOURLY).ttl or timedelta(0)
    _judge_hour(ahead, said)
    return (
        f"Feast returns the conversion rate {served:.2f} without a warning, and the model server answers"
        f" *from the future*. Without that test, the value would count as fresh for {week.days} days and"
        f" {TOKYO.seconds // 3600} hours."
    )


def _judge_hour(ahead: timedelta, said: str) -> None:
    hours = ahead.total_seconds() / 3600
    if not said and not hours:
        raise NotYet(
            "the model server returns a score, and rightly: this row's time is `NOW`. A time with a zone is"
            " the same moment in every zone. The loader loses the zone and keeps the digits."
        )
    if not said:
        raise NotYet(
            f"the model server returns a score: a row from {-hours:g} hour{'' if hours == -1 else 's'} before"
            " `NOW` is like any other. Which clock is ahead, Tokyo's or UTC's?"
        )
    if "from the future" not in said:
        raise NotYet(f"the model server rejects the row for another reason: {said}.")
    if ahead != TOKYO:
        raise NotYet(
            f"the row is {hours:g} hours after `NOW`, and Tokyo is {TOKYO.seconds // 3600} hours ahead of"
            " UTC."
        )


EXERCISES = [
    Exercise(
        "7.1",
        "Promote, and keep a way back",
        _keeps_a_way_back,
        more=(
            "`client.get_model_version_by_alias` returns the version that an alias names. Call it before you"
            " move anything."
        ),
        worked="""
def promote(client, name, version):
    # Ask first: once the alias has moved, the registry doesn't say where it was.
    served = client.get_model_version_by_alias(name, "production")
    client.set_registered_model_alias(name, "previous", served.version)
    client.set_registered_model_alias(name, "production", version)
""",
    ),
    Exercise(
        "7.2",
        "Fix a materialization that loaded nothing",
        _fixes,
        more=(
            "An increment never looks back beyond the end of the last period that Feast has stored;"
            " `materialize` loads the period that you name. Start where *Materialize a period* starts: which"
            " rows are still valid at `NOW`?"
        ),
        worked="""
def fix(store):
    # Name both ends. What's older than the time to live stays out: training wouldn't see it either.
    oldest = NOW - store.get_feature_view("driver_hourly_stats").ttl
    store.materialize(oldest, NOW, feature_views=["driver_hourly_stats"])
""",
    ),
    Exercise(
        "7.3",
        "A clock in another time zone",
        _lies_ahead,
        more=(
            "`old_hour.assign(...)` returns a copy with other values. At midnight UTC, a clock in Tokyo shows"
            " nine in the morning, and that's what the feed writes down."
        ),
        worked="""
# The digits of Tokyo's clock, read as UTC: a time nine hours ahead.
wall_clock = NOW.tz_convert("Asia/Tokyo").tz_localize(None)
tokyo_hour = old_hour.assign(driver_id=997, event_timestamp=wall_clock.tz_localize("UTC"))
""",
    ),
]

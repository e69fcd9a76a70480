"""The extract of real data: made again from the package, and as its card says."""

import re

import pandas as pd
import pyarrow.parquet as pq
import pytest

from helpers.workspace import REPOSITORY, WorkshopError
from workshop import flights

COMMITTED = REPOSITORY / "data" / "flights"
CARD = (COMMITTED / "README.md").read_text()


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    return flights.fetch(tmp_path_factory.mktemp("package"))


def test_the_script_makes_the_committed_files_again(package, tmp_path):
    flights.write(tmp_path, package)
    for name, schema in flights.SCHEMAS.items():
        committed = pq.read_table(COMMITTED / name)
        assert committed.schema == schema
        assert committed.equals(pq.read_table(tmp_path / name)), f"{name} holds something else"


def test_another_package_is_refused(package, tmp_path):
    changed = tmp_path / package.name
    changed.write_bytes(package.read_bytes() + b" ")
    with pytest.raises(WorkshopError, match="SHA-256"):
        flights.write(tmp_path / "out", changed)
    assert not (tmp_path / "out" / flights.FLIGHTS).exists()


def test_the_command_says_what_is_wrong(capsys, tmp_path):
    (tmp_path / "other.tar.gz").write_bytes(b"no archive")
    assert flights.main(["--package", str(tmp_path / "other.tar.gz"), "--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("error: ")
    assert flights.main(["--package", str(tmp_path / "absent.tar.gz"), "--out", str(tmp_path)]) == 2
    assert "absent.tar.gz" in capsys.readouterr().err


def test_the_extract_is_small_and_carries_no_time_of_its_making():
    assert sum(path.stat().st_size for path in COMMITTED.glob("*.parquet")) < 2_000_000
    for name in flights.SCHEMAS:
        assert pq.read_schema(COMMITTED / name).metadata is None


def test_the_card_counts_what_is_there():
    departures, weather = (pd.read_parquet(COMMITTED / name) for name in (flights.FLIGHTS, flights.WEATHER))
    counted = {
        rf"`departures.parquet`: {len(departures):,} rows": True,
        rf"`weather.parquet`: {len(weather):,} rows": True,
        rf"code; {departures.carrier.nunique()} of them": True,
        rf"{departures.delay.isna().sum():,} of them, {departures.delay.isna().mean():.1%}": True,
        rf"{departures.duplicated(['origin', 'carrier', 'scheduled']).mean():.0%} of the rows share": True,
    }
    assert {text: text in CARD for text in counted} == counted
    hours = pd.date_range(weather.observed.min(), weather.observed.max(), freq="h")
    assert len(hours) * 3 - len(weather) == 1 == weather.wind_speed.isna().sum()
    assert weather.visibility.max() == 10
    per_carrier = departures.carrier.value_counts()
    assert per_carrier["OO"] == 2 and per_carrier["HA"] == 91
    assert set(departures.origin) == {"EWR", "JFK", "LGA"}


def test_every_scheduled_time_is_in_the_three_months_and_none_is_ambiguous():
    scheduled = pd.read_parquet(COMMITTED / flights.FLIGHTS).scheduled.dt.tz_convert(flights.TIME_ZONE)
    assert set(scheduled.dt.month) == set(flights.MONTHS)
    assert scheduled.dt.strftime("%z").unique().tolist() == ["-0400"], "summer time in all of them"


def test_the_card_names_the_columns_in_order():
    for name, schema in flights.SCHEMAS.items():
        part = CARD.split(f"`{name}`")[1].split("\n\n")[1]
        assert re.findall(r"^\| `(\w+)` \|", part, re.M) == schema.names

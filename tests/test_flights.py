"""The extract of real data: made again from the package, byte by byte in what it holds."""

import pyarrow.parquet as pq
import pytest

from helpers.workspace import REPOSITORY, WorkshopError
from workshop import flights

pytestmark = pytest.mark.system
COMMITTED = REPOSITORY / "data" / "flights"


def test_the_script_makes_the_committed_files_again_and_refuses_another_package(tmp_path):
    package = flights.fetch(tmp_path)
    flights.write(tmp_path / "made", package)
    for name, schema in flights.SCHEMAS.items():
        committed = pq.read_table(COMMITTED / name)
        assert committed.schema == schema and committed.schema.metadata is None
        assert committed.equals(pq.read_table(tmp_path / "made" / name)), f"{name} holds something else"
    package.write_bytes(package.read_bytes() + b" ")
    with pytest.raises(WorkshopError, match="SHA-256"):
        flights.write(tmp_path / "out", package)
    assert not (tmp_path / "out" / flights.FLIGHTS).exists()


def test_the_command_says_what_is_wrong(capsys, tmp_path):
    (tmp_path / "other.tar.gz").write_bytes(b"no archive")
    assert flights.main(["--package", str(tmp_path / "other.tar.gz"), "--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("error: ")
    assert flights.main(["--package", str(tmp_path / "absent.tar.gz"), "--out", str(tmp_path)]) == 2
    assert "absent.tar.gz" in capsys.readouterr().err

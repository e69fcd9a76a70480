"""The drills in their short form: every answer right, every fault met as the page says. `make drills` runs them all, for longer."""

import json
import re
import subprocess
import sys

import pytest

from benchmarks import drills
from helpers.workspace import REPOSITORY


@pytest.fixture(scope="module")
def short(tmp_path_factory) -> tuple[dict[str, dict], str]:
    """The rows of the short form by name, and its page."""
    folder = tmp_path_factory.mktemp("drills")
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.drills", "--short", "--out", str(folder)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return {row["drill"]: row for row in rows}, (folder / "reliability.md").read_text()


def test_under_load_and_faults_no_request_fails_and_no_score_is_of_another_version(short):
    rows, _ = short
    assert set(rows) == {name for name, *_ in drills.LOADS} | drills.SHORT
    assert all(row["requests"] > 20 for row in rows.values()), rows
    assert [(row["failures"], row["first_failure"], row["wrong"]) for row in rows.values()] == [
        (0, "", 0)
    ] * len(rows)
    assert rows["50 clients, the alias moves"]["versions"] == ["1", "2"], "the alias did not move"


def test_liveness_answers_while_the_clients_crowd(short):
    rows, _ = short
    assert max(row["liveness_worst_s"] for row in rows.values()) < 5, (
        rows
    )  # make drills has the figure of a quiet machine


def test_each_fault_is_met(short):
    rows, page = short
    assert "must not serve" in rows["a version with NaN scores is promoted"]["happened"]
    assert (
        rows["a definition changes"]["stopped"] > 0
        and "ready again" in rows["a definition changes"]["happened"]
    )
    assert rows["bodies of 95 MB"]["happened"] == "answered 413 before the body was sent"
    assert all(f"| {name} |" in page for name in rows)


@pytest.mark.parametrize(
    "version, driver, score, wrong",
    [
        ("1", 1001, 0.5, False),
        ("1", 1001, 0.5000001, True),
        ("1", 1001, float("nan"), True),
        ("1", 1002, 0.5, True),
        ("3", 1001, 0.5, True),
    ],
)
def test_a_score_is_right_when_its_version_says_so_of_that_driver(version, driver, score, wrong):
    ground = drills.Ground.__new__(drills.Ground)
    ground.own = {"1": {1001: 0.5}, "2": {1001: 0.7}}
    assert ground.is_wrong(version, driver, score) == wrong


def test_what_went_wrong_stands_in_the_first_line_of_the_page():
    row = {
        "drill": "x",
        "clients": 1,
        "seconds": 1,
        "requests": 3,
        "later": 0,
        "stopped": 0,
        "failures": 1,
        "wrong": 2,
    }
    row |= {"p50_ms": 1, "p99_ms": 2, "liveness_worst_s": 0, "memory_mb": 0.0, "happened": "nothing"}
    assert "1 failed, and 2 were answered with another score" in drills.page([row])


def test_the_committed_page_is_of_all_drills_and_none_went_wrong():
    page = (REPOSITORY / "docs" / "reliability.md").read_text()
    for name in [name for name, *_ in drills.LOADS] + [name for name, _ in drills.FAULTS]:
        assert f"| {name} |" in page, name
    assert re.search(r"[\d,]{6,} requests: .+, 0 failed, and 0 were answered with another score", page)

"""The server's drills in their short form: every answer is right, and every fault is met as the page says."""

import json
import re
import subprocess
import sys

import pytest

from benchmarks import drills
from helpers.workspace import REPOSITORY


@pytest.mark.system
def test_under_load_and_faults_no_request_fails_and_no_score_is_wrong(tmp_path):
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.drills", "--short", "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    rows = {r["drill"]: r for r in map(json.loads, re.findall(r"^\{.*\}$", done.stdout, re.M))}
    assert set(rows) == drills.SHORT and all(row["requests"] > 20 for row in rows.values()), rows
    assert {(row["failures"], row["first_failure"], row["wrong"]) for row in rows.values()} == {(0, "", 0)}
    assert rows["50 clients, the alias moves"]["versions"] == ["1", "2"], "the alias did not move"
    assert "must not serve" in rows["a version with NaN scores is promoted"]["happened"]
    changed = rows["a definition changes"]
    assert changed["stopped"] > 0 and "ready again" in changed["happened"]
    locked = rows["the online store is locked for 8 s"]
    assert locked["later"] > 0 and locked["liveness_worst_s"] < 2, "a busy machine takes its time, not 8 s"
    refused = "another host 400, two hosts 400, a foreign page 403, a length of 4,401 digits 400"
    assert rows["wrong callers"]["happened"] == refused
    assert rows["bodies of 95 MB"]["happened"] == "answered 413 before the body was sent"
    assert (tmp_path / "reliability.md").read_text() == drills.page(list(rows.values()))


@pytest.mark.unit
def test_the_committed_page_has_all_drills_and_none_went_wrong():
    page = (REPOSITORY / "docs" / "reliability.md").read_text()
    assert [row[0] for row in [*drills.LOADS, *drills.FAULTS] if f"| {row[0]} |" not in page] == []
    assert re.search(r"^[\d,]{6,} requests: ", page, re.M)
    assert "Of all requests, 0 failed, and 0 got another score" in page

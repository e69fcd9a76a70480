"""Flyte on a laptop keeps to the workspace: nothing in the home folder or the system's, no word to its makers."""

import os
import subprocess
import sys

import pytest
from harness import skip_without_extras

from helpers.workspace import REPOSITORY

NOTEBOOK = REPOSITORY / "notebooks" / "11_compare_orchestrators.ipynb"
WORK = """
import sys
from pathlib import Path
from helpers.orchestrators import local_flyte
runner = local_flyte(Path.cwd(), Path.cwd() / "orchestrators")
import flyte
import pandas as pd
import sentry_sdk
environment = flyte.TaskEnvironment(name="test")

@environment.task(cache="auto")
async def rows(n: int) -> pd.DataFrame:
    return pd.DataFrame({"n": range(n)})

@environment.task
async def total(n: int) -> int:
    return int((await rows(n)).n.sum())

from flyte import _sentry
_sentry.init()
print(runner.run(total, n=4).outputs().o0, sentry_sdk.is_initialized())
"""


@pytest.fixture
def places(tmp_path):
    skip_without_extras(NOTEBOOK)
    (tmp_path / "work.py").write_text(WORK)
    for name in ("home", "temporary", "workspace"):
        (tmp_path / name).mkdir()
    return tmp_path


def test_flyte_leaves_its_cache_and_files_in_the_workspace_and_tells_nobody(places):
    home, temporary, workspace = (places / name for name in ("home", "temporary", "workspace"))
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("FLYTE", "UCTL", "UNION"))
    }
    here = kept | {
        "HOME": str(home),
        "TMPDIR": str(temporary),
        "DO_NOT_TRACK": "true",
        "PYTHONPATH": str(REPOSITORY),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    here.pop("PYTEST_CURRENT_TEST", None)  # Flyte tells nobody while a test runs
    command = [sys.executable, places / "work.py"]
    for _ in range(2):
        done = subprocess.run(command, cwd=workspace, env=here, capture_output=True, text=True, timeout=120)
        assert (done.stdout, done.returncode) == ("6 False\n", 0), done.stderr
    assert (workspace / ".flyte" / "local-cache" / "cache.db").stat().st_size > 0
    assert {path.name for path in workspace.iterdir()} == {".flyte", "orchestrators"}
    assert list(home.iterdir()) == [] and list(temporary.iterdir()) == []


def test_without_the_setting_flyte_would_tell(places):
    """What the test above would see if `begin` did not set it; nothing is sent, as nothing is told."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in ("DO_NOT_TRACK", "PYTEST_CURRENT_TEST")
    }
    command = [
        sys.executable,
        "-c",
        "from flyte import _sentry; import sentry_sdk; _sentry.init(); print(sentry_sdk.is_initialized())",
    ]
    here = kept | {"HOME": str(places / "home")}
    done = subprocess.run(command, cwd=places, env=here, capture_output=True, text=True, timeout=120)
    assert done.stdout == "True\n", done.stderr

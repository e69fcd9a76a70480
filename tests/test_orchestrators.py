"""Flyte on a laptop writes to the workspace alone, and reports nothing to its makers."""

import os
import subprocess
import sys

import pytest
from harness import skip_without_extras

from helpers.workspace import REPOSITORY

pytestmark = pytest.mark.unit

WORK = """
from pathlib import Path
import flyte
from helpers.orchestrators import keep_files_in
runner = flyte.with_runcontext(mode="local", raw_data_path=str(Path.cwd() / "orchestrators"))
keep_files_in(Path.cwd(), runner)
import pandas as pd
import sentry_sdk
from flyte import _sentry
environment = flyte.TaskEnvironment(name="test")

@environment.task(cache="auto")
async def rows(n: int) -> pd.DataFrame:
    return pd.DataFrame({"n": range(n)})

@environment.task
async def total(n: int) -> int:
    return int((await rows(n)).n.sum())

_sentry.init()
print(runner.run(total, n=4).outputs().o0, sentry_sdk.is_initialized())
"""


def test_flyte_leaves_its_files_in_the_workspace_and_tells_nobody(tmp_path):
    skip_without_extras(REPOSITORY / "notebooks" / "11_compare_orchestrators.ipynb")
    (tmp_path / "work.py").write_text(WORK)
    home, temporary, workspace = (tmp_path / name for name in ("home", "temporary", "workspace"))
    for folder in (home, temporary, workspace):
        folder.mkdir()
    # Flyte reports nothing while a test runs, so it must not notice this one.
    foreign = ("FLYTE", "UCTL", "UNION", "PYTEST_CURRENT_TEST")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    kept |= {"HOME": str(home), "TMPDIR": str(temporary), "PYTHONPATH": str(REPOSITORY)}
    kept |= {"DO_NOT_TRACK": "true", "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, tmp_path / "work.py"]
    done = subprocess.run(command, cwd=workspace, env=kept, capture_output=True, text=True, timeout=300)
    assert (done.stdout, done.returncode) == ("6 False\n", 0), done.stderr
    assert (workspace / ".flyte" / "local-cache" / "cache.db").stat().st_size > 0
    assert {path.name for path in workspace.iterdir()} == {".flyte", "orchestrators"}
    assert list(home.iterdir()) == [] and list(temporary.iterdir()) == []

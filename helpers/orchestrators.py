"""Where Flyte keeps its files on a laptop."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def keep_files_in(workspace: Path, runner: Any) -> None:
    """Have a local runner of Flyte write to the workspace alone.

    Call it from the workspace, which is the working directory of each notebook.

    Left alone, Flyte (2.12) keeps its cache in the home folder, and what it notes about each run in the
    system's folder for temporary files. Its command line, and a run that is sent to a cluster, report errors
    to its makers unless ``DO_NOT_TRACK`` is set; ``begin`` sets it.

    Args:
        workspace: the working directory. Flyte looks there for a configuration first, and puts its cache
            beside the one that it finds.
        runner: what ``flyte.with_runcontext(mode="local", raw_data_path=...)`` returns.
    """
    settings = workspace / ".flyte" / "config.yaml"
    settings.parent.mkdir(parents=True, exist_ok=True)
    if not settings.exists():
        settings.write_text("{}\n", encoding="utf-8")
    # No argument leads there.
    runner._metadata_path = str(Path(runner._raw_data_path) / "metadata")

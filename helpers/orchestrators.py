"""Flyte on this laptop: where it keeps what it keeps, and how much it says."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any


def local_flyte(workspace: Path, folder: Path) -> Any:
    """A runner that executes Flyte's workflows in this process.

    Call it from the workspace, which is the working directory of each notebook.

    Left alone, Flyte (2.12) keeps its cache in the home folder, and the files that tasks hand on in the
    system's folder for temporary files. Its command line, and a run that is sent to a cluster, tell its
    makers what was run and what failed unless ``DO_NOT_TRACK`` is set; ``begin`` sets it.

    Args:
        workspace: the working directory. Flyte looks there for a configuration first, and puts its cache
            beside the one that it finds.
        folder: for the files that tasks hand on.

    Returns:
        What ``flyte.with_runcontext`` gives: ``runner.run(workflow, ...)`` runs it.
    """
    import flyte

    settings = workspace / ".flyte" / "config.yaml"
    settings.parent.mkdir(parents=True, exist_ok=True)
    if not settings.exists():
        settings.write_text("{}\n", encoding="utf-8")
    # Each failure would come twice: as an exception, and with its traceback on standard error.
    flyte.init(log_level=logging.CRITICAL)
    runner = flyte.with_runcontext(mode="local", raw_data_path=str(folder))
    # No argument leads there, and the default is the system's folder.
    runner._metadata_path = str(folder / "metadata")
    return runner

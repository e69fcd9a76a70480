"""What a participant has broken: each file of state is looked at before a notebook stumbles over it, and the
remedy is the one that keeps the most."""

from __future__ import annotations

import fcntl
import shlex
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import TextIO

from helpers.workspace import WorkshopError, Workspace

REGISTRY, ONLINE, TRACKING, STUDY = "registry.db", "online_store.db", "mlflow.db", "optuna.db"
# What each file holds, and what becomes of it without the file.
_STATE = {
    REGISTRY: ("feature registry", "notebooks 01 and 03 make it again, and MLflow's runs and models stay"),
    ONLINE: ("online store", "notebook 01 makes it again and 07 fills it; it held copies alone"),
    TRACKING: (
        "MLflow's database",
        "what a notebook needs of it is made again, and the feature registry stays",
    ),
    STUDY: ("Optuna's study", "notebook 05 begins a new one, and the old one's runs stay in MLflow"),
}
PATIENCE = 10
"""Seconds that another program may keep a database locked before that is told."""
_at_work: dict[Path, TextIO] = {}


def check(workspace: Workspace) -> None:
    """Look at every file of state.

    What is empty or gone is made again, which is said; runs that a killed process left open are closed.

    Raises:
        WorkshopError: a file is damaged, locked by another program, or of another version of MLflow; with the
            remedy.
    """
    for name, (what, then) in _STATE.items():
        path = workspace.path / name
        if path.exists() and path.stat().st_size:
            _check_registry(path) if name == REGISTRY else _check_database(path)
        elif path.exists() or (name == ONLINE and (workspace.path / REGISTRY).exists()):
            print(f"{name} ({what}) is {'empty' if path.exists() else 'gone'}: {then}.", flush=True)
    alone = _alone(workspace)
    if (workspace.path / TRACKING).exists():
        _check_schema(workspace, alone)
    if alone and (workspace.path / TRACKING).exists():
        _close_runs(workspace)


def _damaged(path: Path, why: object) -> WorkshopError:
    what, then = _STATE[path.name]
    aside = shlex.join(["mv", str(path), f"{path}.damaged"])
    return WorkshopError(
        f"{path.name} ({what}) is damaged: {why}. Set it aside, `{aside}`, and try again: {then}."
    )


def _check_registry(path: Path) -> None:
    from feast.protos.feast.core.Registry_pb2 import Registry
    from google.protobuf.message import DecodeError

    for wait in (0.5, 0):
        try:
            Registry.FromString(path.read_bytes())
            return
        except DecodeError:
            time.sleep(wait)  # another notebook may be writing it
    raise _damaged(path, "it is no registry of Feast's, or cut short")


def _check_database(path: Path) -> None:
    try:
        with closing(sqlite3.connect(path, timeout=PATIENCE)) as database:
            (found,) = database.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode == sqlite3.SQLITE_BUSY:
            raise WorkshopError(
                f"{path.name} ({_STATE[path.name][0]}) is locked: another program has been writing to it "
                f"for {PATIENCE} s. "
                f"End that program, such as a database browser on {path}, and try again; nothing is lost."
            ) from None
        found = str(error)
    if found != "ok":
        raise _damaged(path, found)


def _check_schema(workspace: Workspace, alone: bool) -> None:
    """Whether MLflow's database is of the installed MLflow.

    An upgrade of the clone brings another one, and the workspace stays.
    """
    import mlflow
    from alembic.script import ScriptDirectory

    path = workspace.path / TRACKING
    found = _ask(path, "SELECT version_num FROM alembic_version")
    known = ScriptDirectory(str(Path(mlflow.__file__).parent / "store" / "db_migrations"))
    if not found or found[0][0] == known.get_current_head():
        return
    if not _ask(path, "SELECT name FROM experiments"):
        # MLflow makes its tables in steps, and its first experiment last. After a kill within a step it
        # stumbles for ever: "table already exists".
        if alone:
            path.unlink()
            print(
                f"{TRACKING} was left half made by a process that was killed, and held nothing: it is made "
                "again.",
                flush=True,
            )
    elif found[0][0] in {revision.revision for revision in known.walk_revisions()}:
        upgrade = shlex.join(["mlflow", "db", "upgrade", workspace.tracking_uri])
        raise WorkshopError(
            f"{TRACKING} was written by an older MLflow than this environment's {mlflow.__version__}. "
            f"In a terminal: `cp {shlex.quote(str(path))} {shlex.quote(f'{path}.before')}`, then "
            f"`.venv/bin/{upgrade}` in the clone; it keeps everything."
        )
    else:
        raise _damaged(path, f"a newer MLflow than this environment's {mlflow.__version__} wrote it, or none")


def _ask(path: Path, query: str) -> list[tuple]:
    """The rows; none when a table is not there (yet)."""
    try:
        with closing(sqlite3.connect(path, timeout=PATIENCE)) as database:
            return database.execute(query).fetchall()
    except sqlite3.OperationalError as error:
        if "no such table" in str(error):
            return []
        raise


def _alone(workspace: Workspace) -> bool:
    """Whether no other process has begun in this workspace. From now on, and until it ends, this one has."""
    if workspace.path not in _at_work:
        _at_work[workspace.path] = (workspace.path / ".at_work.lock").open("a")
    lock = _at_work[workspace.path]
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        alone = True
    except BlockingIOError:
        alone = False
    fcntl.flock(lock, fcntl.LOCK_SH)
    return alone


def _close_runs(workspace: Workspace) -> None:
    """End what nobody works on: a killed pipeline or sweep leaves its MLflow runs open for ever.

    (A study's run in MlflowStorage stays open by design.)
    """
    left = _ask(
        workspace.path / TRACKING,
        "SELECT run_uuid, name FROM runs WHERE status = 'RUNNING' AND lifecycle_stage = 'active' "
        "AND run_uuid NOT IN (SELECT run_uuid FROM tags WHERE key = 'optuna.study_direction')",
    )
    if not left:
        return
    from mlflow import MlflowClient

    for run_id, _ in left:
        MlflowClient(workspace.tracking_uri).set_terminated(run_id, "KILLED")
    names = ", ".join(sorted(name or run_id for run_id, name in left))
    print(f"Left open by a process that was killed, and now closed in MLflow as KILLED: {names}.", flush=True)

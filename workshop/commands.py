"""What the Makefile opens: JupyterLab, the tools' own pages, the re-execution of the committed notebooks, the reset."""

from __future__ import annotations

import argparse
import base64
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from helpers.data import DataError
from helpers.services import HOST, Service
from helpers.workspace import REPOSITORY, WorkshopError, Workspace, create_home, locate
from workshop import claims
from workshop.runner import NOTEBOOKS, run

PIPELINE = "training_pipeline.yaml"


def lab() -> int:
    """JupyterLab in the foreground, on loopback; Ctrl-C ends it."""
    command = [
        sys.executable,
        "-m",
        "jupyterlab",
        f"--ServerApp.ip={HOST}",
        f"--ServerApp.root_dir={REPOSITORY}",
        "--LabApp.default_url=/lab/tree/notebooks/00_start_here.ipynb",
    ]
    quiet = ["--LabApp.news_url=", "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]
    root = ["--allow-root"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    try:
        return subprocess.call([*command, *quiet, *root])
    except KeyboardInterrupt:
        return 0


def pages(workspace: Workspace) -> tuple[Service, Service]:
    """MLflow's and Feast's own servers over a workspace, started side by side: call ``wait()`` on both. They take settings from this process's
    environment and working directory."""
    os.chdir(workspace.path)
    # MLflow's job workers, seven more processes, serve what the course does not use.
    unused = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    os.environ.update({"MLFLOW_TRACKING_URI": workspace.tracking_uri, "TZ": "UTC", **unused})
    place, logs = ["--host", HOST, "--port", "{port}"], workspace.path / "logs"
    store = ["--backend-store-uri", workspace.tracking_uri, "--workers", "1"]
    mlflow = [sys.executable, "-m", "mlflow", "server", *place, *store]
    feast = [str(Path(sys.executable).with_name("feast")), "-c", str(workspace.feature_repo), "ui", *place]
    return (
        Service("MLflow", mlflow, health="/health", log=logs / "mlflow_ui.log", wait=False),
        Service("Feast", feast, health="/", log=logs / "feast_ui.log", wait=False),
    )


def ui() -> int:
    """MLflow's and Feast's pages over the learner's workspace until Ctrl-C."""
    workspace = locate()
    if not (workspace.path / "registry.db").exists():
        raise WorkshopError(
            "there is nothing to look at yet: run notebook 01 in JupyterLab (`make lab`), which creates the feature registry."
        )
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts what runs in the background deaf to it
    print("Starting both servers; this takes half a minute.", flush=True)
    first, second = pages(workspace)
    with first, second:
        print(f"MLflow  {first.wait().url}\nFeast   {second.wait().url}\nCtrl-C stops both.", flush=True)
        try:
            while first.running and second.running:
                time.sleep(0.5)
        except KeyboardInterrupt:
            print()
            return 0
    raise WorkshopError("a server ended by itself; its log is in workspace/logs.")


def notebooks() -> int:
    """Execute every notebook in order in a clean home, and store the outputs in place once all have passed."""
    import nbformat

    with tempfile.TemporaryDirectory() as folder:
        workspace = create_home(Path(folder) / "home")
        copies = workspace.path / "executed"
        results = run(sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb")), workspace, copies)
        failed = [result for result in results if result.failure]
        if failed:
            print(f"error: {failed[0].name}: {failed[0].failure}\nNothing was stored.", file=sys.stderr)
            return 1
        for result in results:
            notebook = nbformat.read(copies / f"{result.name}.ipynb", as_version=4)
            nbformat.write(clean(notebook), NOTEBOOKS / f"{result.name}.ipynb")
            if result.name.startswith("00"):
                _store_picture(notebook, REPOSITORY / "docs" / "lifecycle.png")
        shutil.copy(workspace.path / PIPELINE, REPOSITORY / "cluster" / PIPELINE)
    claims.write()
    return 0


def _store_picture(notebook, path: Path) -> None:
    """The first picture of a notebook as a file: the README shows the one of notebook 00."""
    shown = [
        output.data.get("text/html", "")
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if "data" in output
    ]
    (first, *_) = re.findall(r'src="data:image/png;base64,([^"]+)"', "".join(shown))
    path.write_bytes(base64.b64decode(first))


def clean(notebook):
    """The notebook without what differs from one execution to the next (times, papermill's notes, the kernel's version)."""
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for cell in notebook.cells:
        cell.metadata.pop("papermill", None)
        cell.metadata.pop("execution", None)
    return notebook


def reset(ask=input) -> int:
    """Empty the learner's workspace, after asking."""
    workspace: Workspace = locate()
    entries = sorted(workspace.path.iterdir()) if workspace.path.exists() else []
    if not entries:
        print("workspace/ is empty.")
        return 0
    print(
        f"This deletes all that your runs produced in {workspace.path}:\n  "
        + "\n  ".join(entry.name for entry in entries)
    )
    try:
        answer = ask("Type yes to delete it: ")
    except EOFError:
        answer = ""
    if answer.strip().lower() != "yes":
        print("Nothing was deleted.")
        return 1
    for entry in entries:
        shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
    print("workspace/ is empty.")
    return 0


def main(argv: list[str] | None = None) -> int:
    commands = {command.__name__: command for command in (lab, ui, notebooks, reset)}
    parser = argparse.ArgumentParser(prog="python -m workshop.commands", description=__doc__)
    parser.add_argument("command", choices=commands)
    try:
        return commands[parser.parse_args(argv).command]()
    except (WorkshopError, DataError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())

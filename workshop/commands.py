"""What the Makefile opens: JupyterLab, the tools' own pages, the re-execution of the committed notebooks, the
reset."""

from __future__ import annotations

import argparse
import base64
import contextlib
import glob
import hashlib
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import quote, urlencode

from packaging.markers import Marker

from helpers.data import DataError
from helpers.services import HOST, Service, is_free
from helpers.workspace import REPOSITORY, WorkshopError, Workspace, create_home, locate
from workshop import links
from workshop.reset import COPIES, PAGES, reset
from workshop.runner import NOTEBOOKS, choose, run, with_extras

PIPELINE = "training_pipeline.yaml"
PORTS = {"links": 8897, "MLflow": 8898, "Feast": 8899}
"""Of `make ui`, where they are free: what a browser remembers of a page, it remembers for its port."""
WHEELS = REPOSITORY / "wheels"


def own_copies(copies: Path) -> list[str]:
    """Make the learner's copies of the notebooks: without outputs, with links that work from there.

    A copy that exists is left alone. The pages of ``docs/`` are copied beside them, each time anew, so that
    their links to notebooks lead to the copies.

    Returns:
        The names of copies whose notebook has changed since they were made.
    """
    import nbformat

    copies.mkdir(parents=True, exist_ok=True)
    pages = copies.parent / PAGES
    pages.mkdir(exist_ok=True)
    for path in sorted((REPOSITORY / "docs").glob("*.md")):
        page = _lead_elsewhere(path.read_text(encoding="utf-8"), pages, "docs", r"\.\./notebooks/|[\w-]+\.md")
        (pages / path.name).write_text(page, encoding="utf-8")
    changed = []
    for path in sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb")):
        notebook = clean(nbformat.read(path, as_version=4))
        made_from = hashlib.sha256("\0".join(cell.source for cell in notebook.cells).encode()).hexdigest()
        copy = copies / path.name
        if copy.exists():
            if _made_from(copy) != made_from:
                changed.append(path.name)
            continue
        for cell in notebook.cells:
            if cell.cell_type == "code":
                cell.outputs, cell.execution_count = [], None
            else:
                cell.source = _lead_elsewhere(
                    cell.source, copies, "notebooks", r"\.\./docs/[\w-]+\.md|\w+\.ipynb"
                )
        notebook.metadata.workshop = {"made_from": made_from}
        partial = copies / f".{path.name}.partial"  # a copy is complete, or is not there
        nbformat.write(notebook, partial)
        partial.rename(copy)
    return changed


def _lead_elsewhere(text: str, folder: Path, original: str, copied: str) -> str:
    """Let the relative links of a text in ``folder`` lead to the files of the clone that the text links to.

    Args:
        text: Markdown, as it is in the clone.
        folder: in which its copy lies.
        original: the folder of the clone in which the text lies.
        copied: a pattern of links to files that are copied, too.
    """
    there = quote(os.path.relpath(REPOSITORY / original, folder))
    link = rf"\]\((?!https?:|#)(?!{copied})([^)#\s]+)"
    return re.sub(link, lambda found: f"]({os.path.normpath(f'{there}/{found[1]}')}", text)


def _made_from(copy: Path) -> str | None:
    """The digest that a copy carries of the notebook it was made from; None when it cannot be read."""
    try:
        return json.loads(copy.read_text(encoding="utf-8"))["metadata"]["workshop"]["made_from"]
    except (ValueError, KeyError, TypeError):
        return None


def lab(ip: str = HOST) -> NoReturn:
    """Become JupyterLab on the learner's copies of the notebooks; Ctrl-C asks whether to end it.

    Args:
        ip: where it listens. A container's own network needs another than loopback.
    """
    copies = locate().path / COPIES
    for name in own_copies(copies):
        print(
            f"{name} of the course is newer than your copy. To get it, rename {copies / name} and run `make "
            "lab` again.",
            flush=True,
        )
    root = os.path.commonpath([REPOSITORY, copies])  # a link or a picture works only below it
    first = min(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb")).name
    command = [
        sys.executable,
        "-m",
        "jupyterlab",
        f"--ServerApp.ip={ip}",
        "--ServerApp.allow_remote_access=False",  # wherever it listens, it answers to this machine's names
        f"--ServerApp.root_dir={root}",
        "--ServerApp.log_level=WARN",  # else thirty lines come after what was printed above
        "--LabApp.custom_css=True",
        f"--ServerApp.tornado_settings=static_custom_path={Path(__file__).with_name('jupyter') / 'custom'}",
        f"--LabApp.default_url=/lab/tree/{quote((copies / first).relative_to(root).as_posix())}",
    ]
    # JupyterLab takes the path of its extensions, such as the one that shows sliders, for a pattern.
    extensions = str(Path(sys.prefix, "share", "jupyter", "labextensions"))
    if glob.has_magic(extensions):
        command.append(f"--LabApp.extra_labextensions_path={glob.escape(extensions)}")
    # JupyterLab's own defaults, changed: it asks nobody for news or updates, and does not ask whether to.
    settings = [
        str(Path(__file__).with_name("jupyter")),
        *filter(None, [os.environ.get("JUPYTER_CONFIG_PATH")]),
    ]
    as_root = ["--allow-root"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    # In this process: it would answer Ctrl-C by ending, while JupyterLab still asks whether to shut down.
    os.execve(
        command[0],
        [*command, *as_root],
        {**os.environ, "JUPYTER_CONFIG_PATH": os.pathsep.join(settings)},
    )


def pages(workspace: Workspace, ports: Mapping[str, int | None] = {}) -> tuple[Service, Service]:
    """MLflow's and Feast's own servers over a workspace, started side by side: call ``wait()`` on both.

    They take settings from this process's environment and working directory.

    Args:
        workspace: that they show.
        ports: of each tool's server; a free one when left out.
    """
    os.chdir(workspace.path)
    # MLflow's job workers, seven more processes, serve what the course does not use.
    unused = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    os.environ.update({"MLFLOW_TRACKING_URI": workspace.tracking_uri, "TZ": "UTC", **unused})
    place, logs = ["--host", HOST, "--port", "{port}"], workspace.path / "logs"
    store = ["--backend-store-uri", workspace.tracking_uri, "--workers", "1"]
    mlflow = [sys.executable, "-m", "mlflow", "server", *place, *store]
    feast = [str(Path(sys.executable).with_name("feast")), "-c", str(workspace.feature_repo), "ui", *place]
    ports = {"MLflow": None, "Feast": None, **ports}
    return (
        Service(
            "MLflow",
            mlflow,
            health="/health",
            log=logs / "mlflow_ui.log",
            port=ports["MLflow"],
            wait=False,
        ),
        Service("Feast", feast, health="/", log=logs / "feast_ui.log", port=ports["Feast"], wait=False),
    )


def addresses(workspace: Workspace, mlflow: str, feast: str) -> dict[str, dict[str, str]]:
    """The pages that matter, per tool, by what they show.

    Args:
        workspace: that the servers show.
        mlflow, feast: where they answer.
    """
    import yaml
    from mlflow import MlflowClient

    def runs_of(experiment: str, **options: str) -> str:
        # Without the first option, MLflow shows the pages of its mode for GenAI.
        query = urlencode({"workflowType": "machine_learning", **options})
        return f"{mlflow}/#/experiments/{experiment}/runs?{query}"

    client = MlflowClient(mlflow)
    candidates = {
        "searchFilter": "tags.stage = 'candidate'",
        "orderByKey": "metrics.`auc`",
        "orderByAsc": "false",
    }
    shown = {}
    for experiment in sorted(client.search_experiments(), key=lambda e: int(e.experiment_id)):
        if client.search_runs([experiment.experiment_id], max_results=1):
            shown[f"runs of {experiment.name}"] = runs_of(experiment.experiment_id)
        if client.search_runs([experiment.experiment_id], candidates["searchFilter"], max_results=1):
            shown["its candidates, best first"] = runs_of(experiment.experiment_id, **candidates)
            shown["their metrics in charts"] = runs_of(
                experiment.experiment_id, **candidates, compareRunsMode="CHART"
            )
    for model in client.search_registered_models():
        shown[f"versions of {model.name}"] = (
            f"{mlflow}/#/models/{quote(model.name)}?workflowType=machine_learning"
        )
    project = yaml.safe_load((workspace.feature_repo / "feature_store.yaml").read_text(encoding="utf-8"))[
        "project"
    ]
    parts = {"lineage": "lineage", "feature views": "feature-view", "feature services": "feature-service"}
    return {
        "MLflow": shown or {"experiments": f"{mlflow}/#/experiments?workflowType=machine_learning"},
        "Feast": {what: f"{feast}/p/{project}/{part}" for what, part in parts.items()},
    }


def choose_state(of: str | None = None) -> Workspace:
    """The state that the tools' pages show: the learner's own, else that of the last `make run`.

    Args:
        of: ``"mine"`` or ``"run"`` to have that one and no other.

    Raises:
        WorkshopError: there is no such state.
    """
    if of not in (None, "mine", "run"):
        raise WorkshopError(f"OF={of}: give mine for your workspace, or run for the last `make run`.")
    mine = locate()
    run = Workspace(mine.path / "run", mine.seed)
    for name, workspace in {"mine": mine, "run": run}.items():
        if of in (None, name) and (workspace.path / "registry.db").exists():
            return workspace
    raise WorkshopError(
        "there is nothing to look at yet: run notebook 01 in JupyterLab (`make lab`), which creates the "
        "feature registry, or all notebooks (`make run`)."
    )


def ui(of: str | None = None) -> int:
    """MLflow's and Feast's pages until Ctrl-C; ``of`` as in `choose_state`."""
    workspace = choose_state(of)
    whose = "your workspace" if workspace == locate() else "the last `make run`"
    # A shell starts what runs in the background deaf to it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    print(
        f"These pages show {whose}, {workspace.path}. Starting both servers takes half a minute.", flush=True
    )
    ports = {name: port if is_free(port) else None for name, port in PORTS.items()}
    first, second = pages(workspace, {tool: ports[tool] for tool in ("MLflow", "Feast")})
    with first, second, contextlib.ExitStack() as stack:
        urls = {"MLflow": first.wait().url, "Feast": second.wait().url}
        text = links.page(f"{whose}, {workspace.path}", urls, addresses(workspace, *urls.values()))
        start = stack.enter_context(links.served(text, ports["links"] or 0))
        print(f"\nOpen {start} to see what they show, with a link to each page.\n")
        for tool, url in urls.items():
            print(f"{tool:7} {url}")
        print("\nCtrl-C stops both.", flush=True)
        try:
            while first.running and second.running:
                time.sleep(0.5)
        except KeyboardInterrupt:
            print()
            return 0
    raise WorkshopError(f"a server ended by itself; its log is in {workspace.path / 'logs'}.")


def notebooks() -> int:
    """Execute every notebook in a clean home, and store the outputs in place once all have passed."""
    import nbformat

    with tempfile.TemporaryDirectory() as folder:
        workspace = create_home(Path(folder) / "home")
        copies = workspace.path / "executed"
        results = run(with_extras(choose()), workspace, copies)
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
    return 0


def _store_picture(notebook: Any, path: Path) -> None:
    """The first picture of a notebook as a file: the README shows the one of notebook 00."""
    shown = [
        output.data.get("text/html", "")
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if "data" in output
    ]
    (first, *_) = re.findall(r'src="data:image/png;base64,([^"]+)"', "".join(shown))
    path.write_bytes(base64.b64decode(first))


def clean(notebook: Any) -> Any:
    """The notebook without what differs from one execution to the next: times, papermill's notes, the
    kernel's version, and where a kernel cuts what a cell prints."""
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for cell in notebook.cells:
        cell.metadata.pop("papermill", None)
        cell.metadata.pop("execution", None)
        if not cell.metadata.get("tags"):
            cell.metadata.pop("tags", None)
        joined: list[Any] = []
        for output in cell.get("outputs", []):
            if joined and output.output_type == "stream" and joined[-1].get("name") == output.name:
                joined[-1].text += output.text
            else:
                joined.append(output)
        if "outputs" in cell:
            cell.outputs = joined
    return notebook


def progress(of: str | None = None) -> int:
    """Which exercises are solved: in the learner's workspace, or in the folder ``of`` of records."""
    from workshop import progress as shown

    return shown.room(Path(of).expanduser()) if of else shown.mine(locate())


def _of_other_patches(lock: str) -> str:
    """What another patch version of this Python needs and this one does not: Debian's 3.11.2 needs a package
    that 3.11.3 no longer needs."""
    minor = f"{sys.version_info[0]}.{sys.version_info[1]}"
    found = []
    for one, marker in re.findall(r"^(\S+==\S+) ; ((?:[^\\\n]|\\\n)+)", lock, flags=re.M):
        condition, _, hashes = marker.partition("\\\n")
        read = Marker(condition)
        there = any(read.evaluate({"python_full_version": f"{minor}.{patch}"}) for patch in (0, 99))
        if there and not read.evaluate():
            found.append(f"{one} \\\n{hashes}")
    return "\n".join(found)


def _fetch(requirements: str, into: Path, *more: str) -> subprocess.CompletedProcess:
    """Fetch a list of packages into a folder, each with its hash verified."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write(requirements)
        file.flush()
        # The one package without a wheel is built to learn what it needs: with this environment's tools,
        # which are the lock's.
        options = [
            "--require-hashes",
            "--no-deps",
            "--no-build-isolation",
            "--dest",
            str(into),
            "-r",
            file.name,
            *more,
        ]
        quiet = ["--quiet", "--disable-pip-version-check", "--progress-bar", "off"]
        fetch = [sys.executable, "-m", "pip", "download", *quiet, *options]
        return subprocess.run(fetch, stderr=subprocess.PIPE, text=True)


def wheels(into: Path = WHEELS) -> int:
    """Fetch every package of the lock that this system and this Python need, each with its hash verified.

    pip fetches them, and not uv, which has no command for it; so they come from the index that pip is set up
    with.

    Args:
        into: a folder; made when it is not there. What it holds already stays, so that one folder can serve
            several kinds of laptops.

    Raises:
        WorkshopError: a package could not be fetched, or is another one than the lock's.
    """
    uv = shutil.which("uv") or Path(sys.executable).with_name("uv")
    export = [uv, "export", "--quiet", "--frozen", "--offline", "--no-emit-workspace"]
    lock = subprocess.run(export, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    into.mkdir(parents=True, exist_ok=True)
    done = _fetch(lock, into)
    if not done.returncode and (others := _of_other_patches(lock)):
        done = _fetch(others, into, "--ignore-requires-python")  # they are for another one
    if done.returncode:
        if "connection broken" in done.stderr:
            raise WorkshopError(
                "the wheels are not complete: the package index that pip is set up with does not answer."
            )
        raise WorkshopError(f"the wheels are not complete. pip says:\n{done.stderr.strip()}")
    files = [path for path in into.iterdir() if path.is_file()]
    size = sum(path.stat().st_size for path in files) / 1e9
    system = (
        f"{platform.system()} on {platform.machine()} with Python {sys.version_info[0]}.{sys.version_info[1]}"
    )
    print(
        f"{into} holds {len(files)} packages, {size:.2f} GB, for {system}. Copy it to each laptop; there, "
        "in the clone:\n"
        "  make run WHEELS=/path/to/wheels"
    )
    return 0


def main(argv: list[str] | None = None) -> int:
    commands = {command.__name__: command for command in (lab, ui, notebooks, progress, reset, wheels)}
    parser = argparse.ArgumentParser(prog="python -m workshop.commands", description=__doc__)
    parser.add_argument("command", choices=commands)
    parser.add_argument(
        "--of", help="whose state: for `ui` mine or run, for `progress` a folder of collected records"
    )
    parser.add_argument(
        "--only", metavar="NN", help="for `reset`: what this notebook and those after it made"
    )
    parser.add_argument("--ip", default=HOST, help="for `lab`: where it listens, in a container 0.0.0.0")
    arguments = parser.parse_args(argv)
    try:
        given = {
            "lab": [arguments.ip],
            "ui": [arguments.of],
            "progress": [arguments.of],
            "reset": [arguments.only],
        }
        return commands[arguments.command](*given.get(arguments.command, []))
    except (WorkshopError, DataError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())

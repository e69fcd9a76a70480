"""The doors that open pages: they answer on loopback, show the right state, lead to copies of the notebooks, and Ctrl-C ends what they started."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from urllib.parse import quote, unquote

import lab
import nbformat
import pytest
from browser import chromium, needs_chromium
from conftest import listening

from helpers.services import HOST
from helpers.workspace import REPOSITORY, WorkshopError, create_home
from workshop import commands
from workshop.runner import NOTEBOOKS


def deaf_to_ctrl_c():
    """As a shell starts what runs in the background."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def test_the_pages_of_mlflow_and_feast_answer_on_loopback_alone_until_ctrl_c(applied):
    command = [sys.executable, "-m", "workshop.commands", "ui"]
    environment = {**os.environ, "WORKSHOP_HOME": str(applied.home)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(
        command, cwd=REPOSITORY, env=environment, preexec_fn=deaf_to_ctrl_c, **pipes
    ) as door:
        try:
            said = []
            while not said or said[-1] not in ("", "Ctrl-C stops both.\n"):
                said.append(door.stdout.readline())
            pages = dict(re.findall(r"^(MLflow|Feast) +(http://127\.0\.0\.1:\d+)$", "".join(said), re.M))
            assert set(pages) == {"MLflow", "Feast"}, "".join(said)
            statuses = {urllib.request.urlopen(address, timeout=20).status for address in pages.values()}
            found = listening(door.pid)
            door.send_signal(signal.SIGINT)
            assert door.wait(40) == 0
        finally:
            door.kill()
    assert statuses == {200}
    assert {socket.laddr.ip for socket in found} == {HOST}
    assert set(pages.values()) <= {f"http://{HOST}:{socket.laddr.port}" for socket in found}
    for address in pages.values():
        with pytest.raises(OSError):
            urllib.request.urlopen(address, timeout=5)


def test_with_no_state_at_all_there_is_nothing_to_look_at_and_it_says_so(home):
    command = [sys.executable, "-m", "workshop.commands", "ui"]
    environment = {**os.environ, "WORKSHOP_HOME": str(home.home)}
    done = subprocess.run(
        command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert "there is nothing to look at yet: run notebook 01" in done.stderr and "make run" in done.stderr


def test_the_pages_show_the_learners_state_or_else_that_of_the_last_run(home, monkeypatch):
    monkeypatch.setenv("WORKSHOP_HOME", str(home.home))
    run = create_home(home.path / "run")
    (run.path / "registry.db").touch()
    assert commands.choose_state() == commands.choose_state("run") == run
    with pytest.raises(WorkshopError, match="nothing to look at yet"):
        commands.choose_state("mine")
    (home.path / "registry.db").touch()
    assert commands.choose_state() == commands.choose_state("mine") == home
    assert commands.choose_state("run") == run


def links(notebook) -> list[str]:
    """Where the links and pictures of a notebook's text lead, other places on the web and parts of a page left out."""
    texts = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    return [unquote(link) for text in texts for link in re.findall(r"\]\((?!https?:|#)([^)#]+)", text)]


def test_a_copy_has_the_notebooks_cells_no_outputs_and_links_that_lead_somewhere(home):
    assert commands.own_copies(home.path / "notebooks") == []
    copies = sorted((home.path / "notebooks").iterdir())
    assert [copy.name for copy in copies] == [path.name for path in sorted(NOTEBOOKS.glob("*.ipynb"))]
    leads_to = []
    for copy in copies:
        made, original = (
            nbformat.read(folder / copy.name, as_version=4) for folder in (copy.parent, NOTEBOOKS)
        )
        assert [cell.metadata.get("tags") for cell in made.cells] == [
            c.metadata.get("tags") for c in original.cells
        ]
        for cell, from_cell in zip(made.cells, original.cells, strict=True):
            if cell.cell_type == "code":
                assert (cell.source, cell.outputs, cell.execution_count) == (from_cell.source, [], None)
        assert len(links(made)) == len(links(original))
        leads_to += [(copy.parent / link).resolve() for link in links(made)]
    assert (
        REPOSITORY / "docs" / "claims.md" in leads_to
        and home.path / "notebooks" / "01_define_features.ipynb" in leads_to
    )
    assert [path for path in leads_to if not path.exists()] == []


def test_a_copy_is_never_overwritten_and_a_newer_notebook_is_named(home, monkeypatch, tmp_path):
    course = tmp_path / "notebooks"
    shutil.copytree(NOTEBOOKS, course)
    monkeypatch.setattr(commands, "NOTEBOOKS", course)
    copies, name = home.path / "notebooks", "04_select_features.ipynb"
    commands.own_copies(copies)
    mine = nbformat.read(copies / name, as_version=4)
    mine.cells[1].source = "my_answer = 42"
    nbformat.write(mine, copies / name)
    mine = (copies / name).read_bytes()
    assert commands.own_copies(copies) == []

    newer = nbformat.read(course / name, as_version=4)
    newer.cells[-2].outputs = []
    nbformat.write(newer, course / name)
    assert commands.own_copies(copies) == [], "outputs stored anew are no change"
    newer.cells[0].source += "\n\nOne more sentence."
    nbformat.write(newer, course / name)
    assert commands.own_copies(copies) == [name]
    assert (copies / name).read_bytes() == mine

    (copies / name).rename(copies / "mine.ipynb")
    assert commands.own_copies(copies) == []
    assert (
        "One more sentence." in (copies / name).read_text() and (copies / "mine.ipynb").read_bytes() == mine
    )


def test_git_does_not_see_the_copies():
    copies = REPOSITORY / "workspace" / "notebooks" / "00_start_here.ipynb"
    assert subprocess.run(["git", "check-ignore", "-q", copies], cwd=REPOSITORY).returncode == 0


@pytest.fixture(scope="module")
def jupyterlab(tmp_path_factory):
    """The home, and the address of its JupyterLab."""
    with lab.opened(tmp_path_factory.mktemp("a learner")) as opened:
        yield opened


def test_the_lab_opens_the_copies_below_a_folder_in_which_their_links_work(jupyterlab):
    home, address = jupyterlab
    server, token = re.match(r"(http://[^/]+)/.*token=(\w+)", address).groups()
    root = os.path.commonpath([REPOSITORY, home.path])
    copies = (home.path / "notebooks").relative_to(root)
    assert unquote(address).startswith(f"{server}/lab/tree/{copies}/00_start_here.ipynb?")

    def get(kind: str, path: str) -> bytes:
        with urllib.request.urlopen(f"{server}/{kind}/{quote(path)}?token={token}", timeout=60) as answer:
            return answer.read()

    opened = json.loads(get("api/contents", f"{copies}/04_select_features.ipynb"))["content"]
    pictures = [link for link in links(nbformat.from_dict(opened)) if link.endswith(".png")]
    assert len(pictures) >= 3
    for picture in pictures:
        assert get("files", os.path.normpath(copies / picture)).startswith(b"\x89PNG")


@needs_chromium
def test_the_lab_opens_without_a_pop_up_for_somebody_who_never_used_it(jupyterlab):
    _, address = jupyterlab
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        page.set_default_timeout(120_000)
        page.goto(address)
        page.get_by_role("heading", name="Start here").first.wait_for()
        page.wait_for_timeout(8000)  # the question about news comes some seconds later
        assert page.locator(".Toastify__toast, .jp-Dialog, [role=alert]").all_inner_texts() == []


def test_papermill_executes_a_copy_with_the_state_of_its_home(jupyterlab, tmp_path):
    home, _ = jupyterlab
    copy = home.path / "notebooks" / "00_start_here.ipynb"
    command = [Path(sys.executable).with_name("papermill"), copy, "out.ipynb", "--no-progress-bar"]
    environment = {**os.environ, "WORKSHOP_HOME": str(home.home)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    cells = nbformat.read(tmp_path / "out.ipynb", as_version=4).cells
    checks = [cell for cell in cells if "check" in cell.metadata.get("tags", [])]
    assert len(checks) >= 4 and {cell.metadata.papermill.status for cell in checks} == {"completed"}
    assert (home.path / "notebooks").is_dir() and not (home.path / "notebooks" / "workspace").exists()


def test_reset_keeps_the_learners_notebooks_and_says_so(home):
    commands.own_copies(home.path / "notebooks")
    (home.path / "mlflow.db").touch()
    (home.path / "exercises.jsonl").touch()
    environment = {**os.environ, "WORKSHOP_HOME": str(home.home)}
    command = [sys.executable, "-m", "workshop.commands", "reset"]
    for said in ("Deleted.", "There is nothing to delete"):
        done = subprocess.run(command, input="yes\n", env=environment, capture_output=True, text=True)
        assert (
            said in done.stdout
            and f"Your notebooks in {home.path / 'notebooks'} stay, and the record of your exercises."
            in done.stdout
        )
        assert {path.name for path in home.path.iterdir()} == {"notebooks", "exercises.jsonl"}
        assert any((home.path / "notebooks").iterdir())

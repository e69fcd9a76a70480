"""The commands that open pages: they answer on loopback, show the right state, and lead to copies of the
notebooks."""

import html
import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from urllib.parse import unquote

import lab
import nbformat
import pytest
import requests
from browser import chromium, needs_chromium
from jupyterlab_server.config import get_federated_extensions

from conftest import listening
from helpers.services import HOST
from helpers.workspace import REPOSITORY, WorkshopError, create_home
from workshop import commands, course
from workshop import links as links_page
from workshop.runner import NOTEBOOKS


@pytest.mark.system
def test_the_pages_of_mlflow_and_feast_answer_on_loopback_alone_until_ctrl_c(applied):
    command = [sys.executable, "-m", "workshop.commands", "ui"]
    options = {"cwd": REPOSITORY, "env": {**os.environ, "WORKSHOP_HOME": str(applied.home)}, "text": True}
    # As a shell starts what runs in the background: deaf to Ctrl-C.
    options["preexec_fn"] = lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options) as door:
        try:
            said = []
            while not said or said[-1] not in ("", "Ctrl-C stops both.\n"):
                said.append(door.stdout.readline())
            [start] = re.findall(r"^Open (http://127\.0\.0\.1:\d+) ", "".join(said), re.M)
            first_page = requests.get(start, timeout=60).text
            links = re.findall(r'<dt><a href="([^"]+)">', first_page)
            assert {requests.get(html.unescape(link), timeout=60).status_code for link in links} == {200}
            assert requests.get(start, headers={"host": "evil.org"}, timeout=60).status_code == 403
            pages = dict(re.findall(r"^(MLflow|Feast) +(http://127\.0\.0\.1:\d+)$", "".join(said), re.M))
            assert set(pages) == {"MLflow", "Feast"}, "".join(said)
            assert all(f'<h2><a href="{page}">{tool}</a>' in first_page for tool, page in pages.items())
            assert {urllib.request.urlopen(page, timeout=60).status for page in pages.values()} == {200}
            assert {socket.laddr.ip for socket in listening(door.pid)} == {HOST}
            for name, path in (("MLflow", "/api/2.0/mlflow/runs/create"), ("Feast", "/api/v1/entities")):
                for header in ({"host": "evil.org"}, {"origin": "http://evil.org"}):
                    answer = requests.post(pages[name] + path, json={}, headers=header, timeout=60)
                    assert answer.status_code in (400, 403), (name, header, answer.text)
            door.send_signal(signal.SIGINT)
            assert door.wait(120) == 0
        finally:
            door.kill()
    for page in pages.values():
        with pytest.raises(OSError):
            urllib.request.urlopen(page, timeout=5)


def test_the_first_page_says_of_each_link_what_to_look_at():
    shown = {"MLflow": {"runs of a <b>": "http://m/#/?a=1&b=2"}, "Feast": {"lineage": "http://f/l"}}
    text = links_page.page("yours", {"MLflow": "http://m", "Feast": "http://f"}, shown)
    assert '<dt><a href="http://m/#/?a=1&amp;b=2">runs of a &lt;b&gt;</a><dd>One row per run.' in text
    assert '<dt><a href="http://f/l">lineage</a><dd>Follow a feature' in text


def test_the_pages_show_the_learners_state_or_else_that_of_the_last_run(home, monkeypatch, capsys):
    monkeypatch.setenv("WORKSHOP_HOME", str(home.home))
    assert commands.main(["ui"]) == 2
    assert "there is nothing to look at yet: run notebook 01" in capsys.readouterr().err
    run = create_home(home.path / "run")
    (run.path / "registry.db").touch()
    assert commands.choose_state() == commands.choose_state("run") == run
    with pytest.raises(WorkshopError, match="nothing to look at yet"):
        commands.choose_state("mine")
    (home.path / "registry.db").touch()
    assert commands.choose_state() == commands.choose_state("mine") == home


def links(notebook) -> list[str]:
    """Where the links and pictures of a notebook's text lead, except to the web and within the page."""
    texts = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    return [unquote(link) for text in texts for link in re.findall(r"\]\((?!https?:|#)([^)#]+)", text)]


def test_a_copy_has_the_notebooks_cells_and_links_that_lead_somewhere_and_is_never_overwritten(
    home, monkeypatch
):
    copies = home.path / "notebooks"
    assert commands.own_copies(copies) == []
    assert [copy.name for copy in sorted(copies.iterdir())] == sorted(
        p.name for p in NOTEBOOKS.glob("*.ipynb")
    )
    for copy in copies.iterdir():
        made, original = (nbformat.read(folder / copy.name, as_version=4) for folder in (copies, NOTEBOOKS))
        for cell, from_cell in zip(made.cells, original.cells, strict=True):
            assert cell.metadata.get("tags") == from_cell.metadata.get("tags")
            if cell.cell_type == "code":
                assert (cell.source, cell.outputs) == (from_cell.source, [])
        assert len(links(made)) == len(links(original))
        assert [link for link in links(made) if not (copies / link).resolve().exists()] == []

    pages = home.path / "docs"
    for page in pages.iterdir():
        text = page.read_text()
        leads = [unquote(link) for link in re.findall(r"\]\((?!https?:|#)([^)#]+)", text)]
        assert [link for link in leads if not (pages / link).resolve().exists()] == [], page.name
        assert not [link for link in leads if (pages / link).resolve().is_relative_to(NOTEBOOKS)], page.name
    [glossary] = {(copies / link).resolve() for link in links(made) if "glossary" in link}
    assert glossary == (pages / "glossary.md").resolve(), "a notebook leads to the page that leads to copies"

    name = "04_select_features.ipynb"
    (home.home / "newer").mkdir()
    newer = nbformat.read(NOTEBOOKS / name, as_version=4)
    newer.cells[-2].outputs = []
    monkeypatch.setattr(commands, "NOTEBOOKS", home.home / "newer")
    mine = (copies / name).read_bytes()
    for text, changed in (("", []), ("\n\nOne more sentence.", [name])):  # outputs stored anew are no change
        newer.cells[0].source += text
        nbformat.write(newer, home.home / "newer" / name)
        assert commands.own_copies(copies) == changed and (copies / name).read_bytes() == mine
    (copies / name).rename(copies / "mine.ipynb")
    assert commands.own_copies(copies) == [] and "One more sentence." in (copies / name).read_text()


def test_the_lab_takes_the_place_of_its_command_and_finds_its_extensions_in_any_folder(home, monkeypatch):
    monkeypatch.setenv("WORKSHOP_HOME", str(home.home))
    monkeypatch.setattr(sys, "prefix", str(home.home))  # its name has brackets
    extension = home.home / "share" / "jupyter" / "labextensions" / "sliders" / "package.json"
    extension.parent.mkdir(parents=True)
    extension.write_text('{"name": "sliders", "version": "1"}')
    became = []
    monkeypatch.setattr(os, "execve", lambda *call: became.append(call))
    commands.main(["lab"])
    [(program, arguments, environment)] = became
    assert program == sys.executable and arguments[:3] == [sys.executable, "-m", "jupyterlab"]
    named = [argument.split("=", 1) for argument in arguments if "labextensions_path" in argument]
    assert list(get_federated_extensions([path for _, path in named])) == ["sliders"]
    settings = environment["JUPYTER_CONFIG_PATH"].split(os.pathsep)[0]
    changed = json.loads(Path(settings, "labconfig", "default_setting_overrides.json").read_text())
    schemas = Path(sys.executable).parent.parent / "share" / "jupyter" / "lab" / "schemas"
    for plugin, values in changed.items():
        known = json.loads((schemas / f"{plugin.replace(':', '/')}.json").read_text())["properties"]
        assert set(values) <= set(known), f"JupyterLab has no such setting of {plugin}"


@pytest.mark.system
@needs_chromium
def test_the_lab_opens_the_copies_without_a_pop_up(tmp_path):
    with lab.opened(tmp_path) as (home, address), chromium() as browser:
        root = os.path.commonpath([REPOSITORY, home.path])
        copies = (home.path / "notebooks").relative_to(root)
        assert f"/lab/tree/{copies}/00_start_here.ipynb?" in unquote(address)

        page = browser.new_page(viewport={"width": 1400, "height": 900})
        page.set_default_timeout(120_000)
        page.goto(address)
        page.get_by_role("heading", name="Start here").first.wait_for()
        page.wait_for_timeout(8000)  # the question about news comes some seconds later
        assert page.locator(".Toastify__toast, .jp-Dialog, [role=alert]").all_inner_texts() == []
        assert page.locator('li[data-id="extensionmanager.main-view"]').count() == 0


def test_a_changed_fact_is_found_in_the_tables_and_in_the_notebooks_header(monkeypatch, capsys):
    assert course.main(["--check"]) == 0
    facts = course.course.notebooks()
    changed = {
        **facts,
        "05": facts["05"].__class__(**{**vars(facts["05"]), "seconds": 46, "needs": ("tuned",)}),
    }
    monkeypatch.setattr(course.course, "notebooks", lambda: changed)
    assert course.main(["--check"]) == 1
    said = capsys.readouterr().err
    assert "guide.md: a table" in said and "05_sweep_hyperparameters: the time" in said
    table = course.generated("docs/instructor-guide.md")
    reading = facts["05"].reading  # the row leaves the exercises for at home; 46 seconds are a minute more
    assert f"| {reading} |  | 46 | {reading + 1} |" in table


def test_minutes_to_read_follow_from_words_code_and_outputs(monkeypatch):
    def cell(kind, source, *tags, outputs=0):
        return {
            "cell_type": kind,
            "source": [source],
            "metadata": {"tags": list(tags)},
            "outputs": [{}] * outputs,
        }

    cells = [
        cell("markdown", "[two words](and an address) " * 200),  # 400 words: 2 minutes
        cell("code", "x = 1\n\n" * 30, outputs=5),  # 30 lines and 5 outputs: 3 minutes
        cell("code", "assert x\n" * 30, "check", outputs=1),
        cell("markdown", "### Exercise 1.1\n" + "words " * 400),
    ]
    assert course.minutes_to_read(cells) == 5
    notebook = course.course.notebooks()["05"]
    assert course.wrong_header(notebook) == ""
    monkeypatch.setattr(course, "WORDS", course.WORDS / 2)
    assert re.search(
        rf"about \d+ minutes to read, and not {notebook.reading}$", course.wrong_header(notebook)
    )

"""Every notebook is executed: once by the runner, and by papermill's own command with another data seed.

The runner's execution also tries each check with its faults (test_faults.py), and its outputs are compared.
The tests of this file run in the order in which they stand.
"""

import os
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import harness
import nbformat
import pytest

from helpers.workspace import REPOSITORY, create_home
from workshop import runner

FILES = sorted((REPOSITORY / "notebooks").glob("*.ipynb"))
BY_NUMBER = {path.name[:2]: path for path in FILES}
OTHER_SEED = 2  # it once broke a check that held for ten others


def numbered(numbers):
    return pytest.mark.parametrize(
        "notebook", [BY_NUMBER[n] for n in numbers if n in BY_NUMBER], ids=lambda p: p.stem
    )


def environment(home: Path) -> dict[str, str]:
    return {**os.environ, "WORKSHOP_HOME": str(home)}


@numbered(sorted(BY_NUMBER))
def test_the_notebooks_pass_in_order_in_a_fresh_workspace(notebook, course):
    result = harness.once(notebook, course).result
    assert not result.failure
    assert result.checks == len(harness.checks(notebook)) >= 4
    assert 0 < result.start_up < result.seconds


@numbered(sorted(BY_NUMBER))
def test_the_committed_outputs_are_those_of_a_fresh_execution(notebook, course):
    differ = harness.differences(notebook, harness.once(notebook, course).copy)
    assert not differ, "\n\n".join(["run `make notebooks`, and look at what changed:", *differ])


def test_the_report_is_complete_in_itself(course):
    ran = runner.with_extras(FILES)
    index = runner.report([harness.once(path, course).result for path in ran], course.path / "executed")
    links = re.findall(r'href="([^"#:]+)"', index.read_text())
    assert links == [f"{path.stem}.html" for path in ran]
    for page in (index.parent / link for link in links):
        text = page.read_text()
        assert re.findall(r'<(?:img|script|link)[^>]+(?:src|href)="(?!data:)([^"]+)"', text) == []
        leads_to = [
            path.removeprefix("file://") for path in re.findall(r'<a [^>]*href="((?!http|#)[^"#]+)', text)
        ]
        assert [path for path in map(unquote, leads_to) if not (index.parent / path).exists()] == []


# Those that change what others read: the registry, the study and the model registry, the alias and running servers.
@numbered(["01", "05", "07"])
def test_a_notebook_that_was_interrupted_can_be_run_again(notebook, course, tmp_path):
    half = nbformat.read(notebook, as_version=4)
    half.cells = half.cells[: len(half.cells) * 2 // 3]
    (tmp_path / "half").mkdir()
    nbformat.write(half, tmp_path / "half" / notebook.name)
    interrupted = runner.execute(
        tmp_path / "half" / notebook.name, tmp_path / "out" / notebook.name, course, False
    )
    assert not interrupted.failure
    again = runner.execute(notebook, tmp_path / "again.ipynb", course, progress=False)
    assert not again.failure
    assert again.checks == len(harness.checks(notebook))


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    return tmp_path_factory.mktemp("from another folder")


# 04 comes first: in an empty workspace it has to catch up by itself.
@numbered(["04", *(number for number in sorted(BY_NUMBER) if number != "04")])
def test_papermills_own_command_runs_it_from_any_folder_with_another_seed(notebook, elsewhere):
    harness.skip_without_extras(notebook)
    home, folder = elsewhere / "home", elsewhere / f"run {notebook.stem}"
    if not home.exists():
        create_home(home)
    folder.mkdir()
    papermill = Path(sys.executable).with_name("papermill")
    command = [papermill, notebook, "out.ipynb", "-p", "seed", str(OTHER_SEED), "--no-progress-bar"]
    done = subprocess.run(
        command, cwd=folder, env=environment(home), capture_output=True, text=True, timeout=1200
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert [path.name for path in folder.iterdir()] == ["out.ipynb"], "a run leaves nothing but its copy"
    cells = nbformat.read(folder / "out.ipynb", as_version=4).cells
    passed = [
        c
        for c in cells
        if "check" in c.metadata.get("tags", []) and c.metadata.papermill.status == "completed"
    ]
    assert len(passed) == len(harness.checks(notebook))
    assert (home / "workspace" / f"seed-{OTHER_SEED}" / "data").is_dir()
    assert not (home / "workspace" / "registry.db").exists(), "the learner's own workspace is not touched"


@pytest.fixture
def failing(tmp_path, monkeypatch) -> str:
    """A folder of notebooks in which a check of the second fails."""
    cells = nbformat.read(FILES[0], as_version=4).cells[:4]
    check = nbformat.v4.new_code_cell(
        "assert 1 > 2, 'one is below two: look at the sky'", metadata={"tags": ["check"]}
    )
    for name, source in (("00_go", cells), ("01_fail", [*cells[:2], check]), ("02_never", cells)):
        nbformat.write(nbformat.v4.new_notebook(cells=source), tmp_path / f"{name}.ipynb")
    monkeypatch.setattr(runner, "NOTEBOOKS", tmp_path)
    return "01_fail"


def test_a_failing_check_stops_the_run_and_is_named_with_its_message(failing, home, capsys):
    assert runner.main(["--home", str(home.home)]) == 1
    said = capsys.readouterr()
    assert f"{failing} failed: cell 2: AssertionError: one is below two: look at the sky" in said.err
    kept = home.path / "executed" / f"{failing}.ipynb"
    assert f"Its executed copy: {kept}" in said.err
    assert "look at the sky" in str(nbformat.read(kept, as_version=4).cells[-1].outputs)
    rows = [
        line.split() for line in said.out.splitlines() if line.startswith(("00_go ", "01_fail ", "02_never "))
    ]
    assert [(row[0], row[-1]) for row in rows] == [("00_go", "0"), ("01_fail", "FAILED")]
    assert "look at the sky" in (kept.parent / "index.html").read_text()
    assert (kept.parent / "01_fail.html").exists()


def test_a_notebook_alone_brings_what_it_needs_and_nothing_else(failing, home, capsys):
    assert runner.main(["--home", str(home.home), "--only", "02"]) == 1
    told = capsys.readouterr().out
    assert f"{failing}: " in told and "00_go" not in told, "02 needs the registry of 01, and not 00"


def test_a_kernel_that_dies_is_reported_like_a_failing_check(tmp_path, home):
    dying = nbformat.v4.new_code_cell("import os; os.kill(os.getpid(), 9)")
    nbformat.write(nbformat.v4.new_notebook(cells=[dying]), tmp_path / "00_die.ipynb")
    result = runner.execute(tmp_path / "00_die.ipynb", home.path / "00_die.ipynb", home, progress=False)
    assert "DeadKernelError" in result.failure
    assert result.checks == 0

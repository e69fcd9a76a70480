"""Every notebook is executed once by the runner: outputs are compared, faults and answers tried on the way.

Part of it runs with another data seed: 04 by papermill's own command, which has to catch up by itself, and so
runs 01.
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

from helpers.workspace import Workspace, create_home
from workshop import runner

pytestmark = pytest.mark.course
FILES = runner.choose()
BY_NUMBER = {path.name[:2]: path for path in FILES}
OTHER_SEED = 2  # it once broke a check that held for ten others


@pytest.mark.xdist_group("course")
@pytest.mark.parametrize("number", BY_NUMBER)
def test_a_notebook_passes_and_its_outputs_are_the_committed_ones(number, course):
    execution = harness.once(BY_NUMBER[number], course)
    assert not execution.result.failure
    assert execution.result.checks == len(harness.checks(BY_NUMBER[number]))
    assert 0 < execution.result.start_up < execution.result.seconds
    differ = harness.differences(BY_NUMBER[number], execution.copy)
    assert not differ, "\n\n".join(["run `make notebooks`, and look at what changed:", *differ])


@pytest.mark.xdist_group("course")
def test_the_report_is_complete_in_itself(course):
    ran = runner.with_extras(FILES)
    index = runner.report([harness.once(path, course).result for path in ran], course.path / "executed")
    assert re.findall(r'href="([^"#:]+)"', index.read_text()) == [f"{path.stem}.html" for path in ran]
    for path in ran:
        page = (index.parent / f"{path.stem}.html").read_text()
        assert re.findall(r'<(?:img|script|link)[^>]+(?:src|href)="(?!data:)([^"]+)"', page) == []
        links = [
            link.removeprefix("file://") for link in re.findall(r'<a [^>]*href="((?!http|#)[^"#]+)', page)
        ]
        assert [link for link in links if not (index.parent / unquote(link)).exists()] == []


@pytest.fixture(scope="session")
def second_seed(tmp_path_factory) -> Workspace:
    """A home with another data seed, in which papermill's own command has run 04 from another folder."""
    home, folder = tmp_path_factory.mktemp("second seed") / "home", tmp_path_factory.mktemp("elsewhere")
    create_home(home)
    papermill = Path(sys.executable).with_name("papermill")
    done = subprocess.run(
        [papermill, BY_NUMBER["04"], "out.ipynb", "-p", "seed", str(OTHER_SEED), "--no-progress-bar"],
        cwd=folder,
        env={**os.environ, "WORKSHOP_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=1200,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert [path.name for path in folder.iterdir()] == ["out.ipynb"], "a run leaves nothing but its copy"
    assert not (home / "workspace" / "registry.db").exists(), "the learner's own workspace is not touched"
    return Workspace(home / "workspace" / f"seed-{OTHER_SEED}", OTHER_SEED)


@pytest.mark.xdist_group("second seed")
def test_papermills_own_command_catches_up_from_any_folder(second_seed):
    assert (second_seed.path / "executed" / BY_NUMBER["01"].name).exists()


@pytest.mark.xdist_group("second seed")
@pytest.mark.parametrize("number", ["00", "02", "03", "05", "12"])
def test_a_notebook_passes_with_another_seed(number, second_seed, tmp_path):
    result = runner.execute(BY_NUMBER[number], tmp_path / BY_NUMBER[number].name, second_seed, progress=False)
    assert not result.failure
    assert result.checks == len(harness.checks(BY_NUMBER[number]))


@pytest.fixture
def failing(tmp_path, monkeypatch) -> str:
    """A folder of notebooks in which a check of the second fails."""
    cells = nbformat.read(FILES[0], as_version=4).cells[:4]
    source = "assert 1 > 2, 'one is below two: look at the sky'"
    check = nbformat.v4.new_code_cell(source, metadata={"tags": ["check"]})
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
    rows = [line.split() for line in said.out.splitlines() if re.match(r"(00_go|01_fail|02_never) ", line)]
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

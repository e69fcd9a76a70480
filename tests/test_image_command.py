"""`make image`: what it tells an engine, and what it says where none can work. tests/test_image.py builds and runs the image."""

import os
import shlex
import subprocess
import sys

import pytest

from helpers.containers import lacking
from helpers.workspace import REPOSITORY, WorkshopError
from lifecycle import IMAGE
from workshop import image


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """Puts programs on a PATH that holds nothing else. Each notes its arguments, and what lies in its folder."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    noted = tmp_path / "noted"

    def add(name: str, ends: int = 0, says: str = "") -> None:
        script = f"""import pathlib, sys
here = sorted(str(path) for path in pathlib.Path().rglob("*") if path.is_file()) if "build" in sys.argv else []
with open({str(noted)!r}, "a") as file:
    print([{name!r}, *sys.argv[1:]], here, file=file)
print({says!r}, file=sys.stderr)
sys.exit({ends})
"""
        (tmp_path / f"{name}.py").write_text(script)
        # No line "#!python": the path of Python may hold a space.
        call = shlex.join([sys.executable, "-P", str(tmp_path / f"{name}.py")])
        (folder / name).write_text(f'#!/bin/sh\nexec {call} "$@"\n')
        (folder / name).chmod(0o755)

    add.noted = lambda: [eval(line.replace("] [", "], [", 1)) for line in noted.read_text().splitlines()]
    return add


def test_without_an_engine_it_says_what_to_do(programs, capsys):
    assert image.main([]) == 2
    assert capsys.readouterr().err == (
        "error: no container engine is here: neither docker nor podman is on the PATH. Install one of them. "
        "All notebooks run without it.\n"
    )
    assert image.main(["--engine", "podman"]) == 2
    assert "ENGINE=podman: no such program is on the PATH." in capsys.readouterr().err


def test_an_engine_whose_daemon_does_not_answer_is_named_with_its_last_line(programs):
    programs(
        "docker",
        ends=1,
        says="Client: 1.0\nCannot connect to the Docker daemon at unix:///var/run/docker.sock.",
    )
    with pytest.raises(WorkshopError, match=r"docker: installed, but it does not answer \(Cannot connect"):
        image.engine()
    programs("podman")
    assert image.engine() == "podman", "the other one answers"
    with pytest.raises(WorkshopError, match="does not answer"):
        image.engine("docker")


def test_a_notebook_where_no_engine_answers_says_what_would_help(monkeypatch, tmp_path):
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nobody")
    assert lacking(IMAGE) == "no Docker engine answers here; where one does, `make image` builds the image"


def test_the_build_reads_lifecycle_and_the_lists_of_packages_and_nothing_else(programs):
    programs("podman")
    image.build("podman", base="mine:1")
    command, here = programs.noted()[-1]
    assert command[:6] == ["podman", "build", "--file", "cluster/Dockerfile", "--tag", IMAGE]
    assert command[6:10] == ["--format", "docker", "--build-arg", "BASE=mine:1"] and command[-1] == "."
    assert "--network" not in command
    modules = sorted(f"lifecycle/{path.name}" for path in (REPOSITORY / "lifecycle").glob("*.py"))
    of_cluster = ["cluster/Dockerfile", "cluster/install.sh", "cluster/requirements.txt"]
    assert here == ["build-requirements.txt", *of_cluster, *modules]


def test_with_wheels_the_build_has_no_network(programs, tmp_path):
    programs("docker")
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(WorkshopError, match="is no folder that `make wheels` filled"):
        image.build("docker", wheels=empty)
    (empty / "uv-1-py3-none-any.whl").write_bytes(b"wheel")
    image.build("docker", wheels=empty)
    command, here = programs.noted()[-1]
    assert command[command.index("--network") + 1] == "none"
    assert "wheels/uv-1-py3-none-any.whl" in here


def test_a_build_that_fails_says_where_to_look(programs):
    programs("docker", ends=1)
    with pytest.raises(WorkshopError, match=f"docker did not build {IMAGE}; its last lines above say why"):
        image.build("docker")


def test_an_index_with_a_password_is_handed_over_by_name(programs, monkeypatch):
    monkeypatch.setenv("PIP_INDEX_URL", "https://me:secret@index.example/simple")
    programs("docker")
    image.build("docker")
    command, _ = programs.noted()[-1]
    assert command[command.index("PIP_INDEX_URL") - 1] == "--build-arg"
    assert "secret" not in " ".join(command)


def test_the_script_of_the_first_stage_is_plain_shell():
    subprocess.run(["sh", "-n", REPOSITORY / "cluster" / "install.sh"], check=True)
    assert not os.access(REPOSITORY / "cluster" / "install.sh", os.X_OK), "the Dockerfile calls it by sh"

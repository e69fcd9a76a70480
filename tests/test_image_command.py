"""`make image`: what it tells an engine, and what it says where none can work. tests/test_image.py builds the
image."""

import getpass
import shlex
import subprocess
import sys

import pytest

from helpers.containers import lacking
from helpers.workspace import REPOSITORY, WorkshopError
from lifecycle.objects import ON_TMP
from lifecycle.settings import IMAGE, Cluster
from workshop import image

pytestmark = pytest.mark.unit


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """Puts programs on a PATH that holds nothing else.

    Each notes its arguments, and what lies in its folder.
    """
    folder, noted = tmp_path / "bin", tmp_path / "noted"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))

    def add(name: str, ends: int = 0, says: str = "") -> None:
        script = f"""import pathlib, sys
here = sorted(map(str, pathlib.Path().rglob("*.*"))) if "build" in sys.argv else []
pathlib.Path({str(noted)!r}).write_text(repr((sys.argv[1:], here)))
print({says!r}, file=sys.stderr)
sys.exit({ends})
"""
        # No line "#!python": the path of Python may hold a space.
        call = shlex.join([sys.executable, "-P", "-c", script])
        (folder / name).write_text(f'#!/bin/sh\nexec {call} "$@"\n')
        (folder / name).chmod(0o755)

    add.noted = lambda: eval(noted.read_text())
    return add


def test_without_an_engine_that_answers_it_says_what_to_do(programs, capsys, monkeypatch, tmp_path):
    assert image.main([]) == 2
    assert "neither docker nor podman is on the PATH. Install one of them." in capsys.readouterr().err
    assert image.main(["--engine", "podman"]) == 2
    assert "ENGINE=podman: no such program is on the PATH." in capsys.readouterr().err
    programs("docker", ends=1, says="Client: 1.0\nCannot connect to the Docker daemon")
    with pytest.raises(WorkshopError, match=r"docker: installed, but it does not answer \(Cannot connect"):
        image.engine()
    programs("podman")
    assert image.engine() == "podman", "the other one answers"
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nobody")
    assert lacking(IMAGE) == "no Docker engine answers here; where one does, `make image` builds the image"


def test_the_build_reads_lifecycle_and_the_lists_of_packages_and_names_no_password(programs, monkeypatch):
    monkeypatch.setenv("PIP_INDEX_URL", "https://me:secret@index.example/simple")
    programs("podman")
    image.build("podman", base="mine:1")
    command, here = programs.noted()
    assert command[:5] == ["build", "--file", "cluster/Dockerfile", "--tag", IMAGE] and command[-1] == "."
    assert command[5:7] == ["--target", "lifecycle"]
    assert (
        command[7:11] == ["--format", "docker", "--build-arg", "BASE=mine:1"] and "--network" not in command
    )
    assert command[command.index("PIP_INDEX_URL") - 1] == "--build-arg" and "secret" not in " ".join(command)
    source = REPOSITORY / "lifecycle" / "src"
    modules = {
        path.relative_to(REPOSITORY).as_posix() for path in [*source.rglob("*.py"), *source.rglob("py.typed")]
    }
    modules |= {"lifecycle/pyproject.toml", "lifecycle/README.md"}
    of_lab = {"README.md", "pyproject.toml", "requirements.txt", "cluster/as_owner.py"}
    lists = {"build-requirements.txt", "cluster/requirements.txt", "cluster/requirements-distributed.txt"}
    assert set(here) == {"cluster/install.sh", *lists, *modules, *of_lab}
    programs("podman", ends=1)
    with pytest.raises(WorkshopError, match=f"podman did not build {IMAGE}; its last lines above say why"):
        image.build("podman")


def test_the_image_with_pytorch_has_the_name_that_the_training_runtime_asks_for(programs, capsys):
    programs("podman")
    index = "https://index.example/cpu"
    assert image.main(["--extra", "distributed", "--index", index]) == 0
    command, _ = programs.noted()
    name = Cluster().image_with_torch
    assert command[command.index("--tag") + 1] == name and name in capsys.readouterr().out
    arguments = [command[place + 1] for place, word in enumerate(command) if word == "--build-arg"]
    assert {"EXTRA=distributed", f"INDEX={index}"} <= set(arguments)
    assert image.main(["--lab"]) == 0
    command, _ = programs.noted()
    assert {"lab", image.LAB} <= set(command) and image.LAB in capsys.readouterr().out
    with pytest.raises(WorkshopError, match="INDEX holds a user or a password"):
        image.build("podman", extra="distributed", index="https://me:secret@index.example/cpu")


def test_a_build_reaches_its_index_by_a_network_and_with_certificates_that_are_named(
    programs, capsys, tmp_path
):
    programs("podman")
    certificates = tmp_path / "company.crt"
    certificates.write_text("-----BEGIN CERTIFICATE-----\n")
    assert image.main(["--network", "host", "--ca", str(certificates)]) == 0
    command, here = programs.noted()
    assert command[command.index("--network") + 1] == "host" and "ca.pem" in here
    assert image.main(["--ca", str(tmp_path / "missing")]) == 2
    assert "missing is no file with certificates in PEM form" in capsys.readouterr().err
    programs("podman", ends=1)
    with pytest.raises(WorkshopError, match="CERTIFICATE_VERIFY_FAILED: give CA="):
        image.build("podman")


def test_what_fetches_packages_trusts_the_named_certificates_beside_the_public_ones(tmp_path):
    """`install.sh` with a Python whose environment holds two programs that say what they trust."""
    says = '#!/bin/sh\necho "$PIP_CERT $SSL_CERT_FILE"; cat "$PIP_CERT"\n'
    makes = "#!/bin/sh\nmkdir -p tools/bin tools/lib; echo public >tools/lib/cacert.pem\n"
    makes += f"for name in python uv; do printf '%s' {shlex.quote(says)} >tools/bin/$name; done\n"
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python3").write_text(makes + "chmod +x tools/bin/*\n")
    (tmp_path / "bin" / "python3").chmod(0o755)
    (tmp_path / "requirements.txt").touch()
    (tmp_path / "ca.pem").write_text("ours\n")
    script = ["sh", str(REPOSITORY / "cluster" / "install.sh")]
    path = {"PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin"}
    done = subprocess.run(script, cwd=tmp_path, env=path, capture_output=True, text=True, check=True)
    trusted = tmp_path / "trusted.pem"
    assert done.stdout == f"{trusted} {trusted}\npublic\nours\n" * 3, done.stderr


def test_the_image_works_in_a_folder_apart_from_the_volume_and_runs_no_code_from_there():
    lines = (REPOSITORY / image.DOCKERFILE).read_text().partition("FROM build AS lab-build")[0].splitlines()
    [*_, folder] = [line.split()[1] for line in lines if line.startswith("WORKDIR ")]
    assert folder == ON_TMP["mountPath"] and not folder.startswith(Cluster().volume)
    assert any("PYTHONSAFEPATH=1" in line for line in lines)


def test_a_user_without_an_entry_in_the_image_has_a_name(monkeypatch):
    """A cluster runs it under a number; Python's `getpass` asks the environment before the image's users."""
    words = (REPOSITORY / "cluster" / "Dockerfile").read_text().partition("ENV PATH=")[2].split()
    given = dict(word.split("=", 1) for word in words[: words.index("WORKDIR")] if "=" in word)
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("pwd.getpwuid", lambda number: {}[f"getpwuid(): uid not found: {number}"])
    assert getpass.getuser() == given["USER"] == given["LOGNAME"]

"""docs/take-it-home.md: its steps, executed in an empty folder as a reader would, and its tables compared with the code.

The reader's terminal is one shell. Where the page installs packages, an environment takes their place that borrows those of this one, and nothing
else: neither `helpers` nor `workshop` nor the `lifecycle` of this clone can be imported in it.
"""

import ast
import contextlib
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from importlib.metadata import entry_points, packages_distributions, requires
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from test_environment import UV, pins
from test_lifecycle import imported, modules
from test_workflows import LINTERS, lint

from helpers.workspace import REPOSITORY
from lifecycle.manifests import problems

PAGE = REPOSITORY / "docs" / "take-it-home.md"
TEXT = PAGE.read_text(encoding="utf-8")
BLOCK = re.compile(r"^```(?P<kind>\w+)\n(?P<text>.*?)^```$", re.M | re.S)
MARK = "--next-block--"
NOT_IMPORTED = {"duckdb"}
"""What the page asks for and nothing imports by its name."""


@dataclass
class Step:
    """A block of the page: a file to write, or commands and what they print.

    Attributes:
        file: name of the file; empty for commands.
        installed: whether the page has installed the tools by then.
        text: what to write or execute.
        says: what is printed, ``...`` for what varies; None where the page does not say.
    """

    file: str
    installed: bool
    text: str
    says: str | None = None


def steps() -> list[Step]:
    """What a reader does, in order. Blocks of `console` are left out."""
    found: list[Step] = []
    installs = TEXT.index("```console\npython3 -m venv .venv\n")
    for block in BLOCK.finditer(TEXT):
        kind, text = block["kind"], block["text"]
        if named := re.match(r"# file: (\S+)\n", text):
            found.append(Step(named[1], block.start() > installs, text))
        elif kind == "text":
            assert not found[-1].file and found[-1].says is None, "an output without commands"
            found[-1].says = text
        elif kind == "bash":
            found.append(Step("", block.start() > installs, text))
        else:
            assert kind == "console", f"nobody executes a block of {kind}: {text}"
    return found


def commands() -> list[Step]:
    return [step for step in steps() if not step.file]


def files() -> dict[str, str]:
    return {step.file: step.text for step in steps() if step.file}


def environment(folder: Path) -> None:
    """What the page's `pip install` leaves behind, from the packages of this environment: the tools, their programs, and the project itself."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / ".venv"], check=True)
    python = folder / ".venv" / "bin" / "python"
    ask = "import sysconfig; print(sysconfig.get_path('purelib'))"
    [own] = subprocess.run([python, "-c", ask], check=True, capture_output=True, text=True).stdout.splitlines()
    # A path in a .pth file is searched, and what .pth files in it say is not: this clone's own packages stay out.
    tools = {path for path in sys.path if path.endswith(("site-packages", "dist-packages"))}
    Path(own, "tools.pth").write_text("\n".join(sorted(tools)))
    for program in entry_points(group="console_scripts"):
        if program.name in ("feast", "kfp", "pytest"):
            script = python.with_name(program.name)
            # A path with a space cannot stand in a first line; pip writes this one as well.
            start = f"#!/bin/sh\n'''exec' {shlex.quote(str(python))} \"$0\" \"$@\"\n' '''\n"
            script.write_text(
                f"{start}import sys\nfrom {program.module} import {program.attr}\nsys.exit({program.attr}())\n"
            )
            script.chmod(0o755)
    build = [shutil.which("uv") or UV, "pip", "install", "--quiet", "--offline", "--no-deps", "--no-build-isolation"]
    subprocess.run([*build, "--python", python, "--editable", "."], cwd=folder, check=True)


def script(part: list[Step]) -> str:
    """Steps as one script. A line MARK stands before what each block of commands prints."""
    lines = ["set -eo pipefail"]
    for step in part:
        if step.file:
            lines += [f"cat > {step.file} <<'{MARK}'", step.text + MARK]
        else:
            lines += [f"echo {MARK}", step.text]
    return "\n".join(lines)


def execute(part: list[Step], folder: Path, given: dict[str, str]) -> list[str]:
    """What each block of commands printed, both streams together as in a terminal."""
    log = folder.with_name(f"terminal {len(part)}.log")
    command = ["bash", "--noprofile", "--norc", "-c", script(part)]
    with log.open("wb") as output:
        # In a session of its own: whatever a step that failed has started ends with it.
        shell = subprocess.Popen(
            command, cwd=folder, env=given, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        code = shell.wait(400)
    except subprocess.TimeoutExpired:
        code = "a step has not ended"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(shell.pid, signal.SIGKILL)
        shell.wait()
    printed = log.read_text()
    assert code == 0, f"{code}: {printed[-4000:]}"
    return printed.split(f"{MARK}\n")[1:]


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> tuple[Path, list[str]]:
    """The new project, and what each block of commands printed."""
    folder = tmp_path_factory.mktemp("a team") / "our bikes"
    folder.mkdir()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    kept = ("HOME", "LANG", "PATH", "TMPDIR", "CI", "UV_CACHE_DIR")
    given = {name: os.environ[name] for name in kept if name in os.environ}
    given |= {"WORKSHOP": str(REPOSITORY), "PORT": str(port), "TERM": "dumb"}
    given |= {
        f"GIT_{who}_{what}": "a.test@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
    }
    before, after = ([step for step in steps() if step.installed is installed] for installed in (False, True))
    printed = execute(before, folder, given)
    environment(folder)
    return folder, printed + execute(after, folder, given)

"""docs/take-it-home.md, executed in an empty folder as a reader would.

The reader's terminal is one shell. Where the page installs packages, an environment takes their place that
borrows those of this one: neither `helpers` nor `workshop` nor the `lifecycle` of this clone can be imported.
"""

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
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from helpers.workspace import REPOSITORY
from lifecycle.cluster.inference_service import container
from lifecycle.cluster.manifests import problems, read

pytestmark = pytest.mark.system
TEXT = (REPOSITORY / "docs" / "take-it-home.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```(?P<kind>\w+)\n(?P<text>.*?)^```$", re.M | re.S)
MARK = "--next-block--"


@dataclass
class Step:
    """A block of the page: a file to write, or commands and what they print."""

    file: str  # empty for commands
    installed: bool  # whether the page has installed the tools by then
    text: str
    says: str | None = None  # ``...`` for what varies


def page() -> list[Step]:
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


FILES = {step.file: step.text for step in page() if step.file}
COMMANDS = [step for step in page() if not step.file]


def install(folder: Path) -> None:
    """What the page's `pip install` leaves behind: the tools, their programs, and the package's wheel."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / ".venv"], check=True)
    python = folder / ".venv" / "bin" / "python"
    ask = "import sysconfig; print(sysconfig.get_path('purelib'))"
    own = subprocess.run([python, "-c", ask], check=True, capture_output=True, text=True).stdout.strip()
    # A path in a .pth file is searched; .pth files in that path are not read: this clone's packages stay out.
    tools = {path for path in sys.path if path.endswith(("site-packages", "dist-packages"))}
    Path(own, "tools.pth").write_text("\n".join(sorted(tools)))
    for program in entry_points(group="console_scripts"):
        if program.name in ("feast", "kfp", "pytest"):
            script = python.with_name(program.name)
            # A path with a space cannot stand in a first line; pip writes this one as well.
            start = f"#!/bin/sh\n'''exec' {shlex.quote(str(python))} \"$0\" \"$@\"\n' '''\n"
            call = f"import sys\nfrom {program.module} import {program.attr}\nsys.exit({program.attr}())\n"
            script.write_text(start + call)
            script.chmod(0o755)
    uv = shutil.which("uv") or Path(sys.executable).with_name("uv")
    build = [
        uv,
        "build",
        "--quiet",
        "--wheel",
        "--offline",
        "--no-build-isolation",
        "--python",
        sys.executable,
    ]
    subprocess.run([*build, "--out-dir", folder / "wheels", REPOSITORY / "lifecycle"], check=True)
    wheel = next((folder / "wheels").glob("ml_lifecycle-*.whl"))
    use = [uv, "pip", "install", "--quiet", "--offline", "--no-deps", "--python", python, wheel]
    subprocess.run(use, cwd=folder, check=True)


def execute(part: list[Step], folder: Path, given: dict[str, str]) -> list[str]:
    """What each block of commands printed, both streams together as in a terminal."""
    lines = ["set -eo pipefail"]
    for step in part:
        if step.file:
            lines += [f"cat > {step.file} <<'{MARK}'", step.text + MARK]
        else:
            lines += [f"echo {MARK}", step.text]
    log = folder.with_name(f"terminal {len(part)}.log")
    command = ["bash", "--noprofile", "--norc", "-c", "\n".join(lines)]
    with log.open("wb") as output:
        # In a session of its own: whatever a step that failed has started ends with it.
        shell = subprocess.Popen(
            command, cwd=folder, env=given, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        code = shell.wait(1800)
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
    # PYTHONPATH is tests/quick alone; conftest.py sets it.
    kept = ("HOME", "LANG", "LC_ALL", "LC_CTYPE", "PATH", "PYTHONPATH", "TMPDIR", "CI")
    given = {name: os.environ[name] for name in kept if name in os.environ}
    given |= {"WORKSHOP": str(REPOSITORY), "PORT": str(port), "TERM": "dumb", "GIT_CONFIG_GLOBAL": os.devnull}
    for name in ("AUTHOR_NAME", "AUTHOR_EMAIL", "COMMITTER_NAME", "COMMITTER_EMAIL"):
        given[f"GIT_{name}"] = "a.test@example.org"
    printed = execute([step for step in page() if not step.installed], folder, given)
    install(folder)
    return folder, printed + execute([step for step in page() if step.installed], folder, given)


def test_each_block_prints_what_the_page_says(home):
    """And the wheel is what is imported, and brings neither `helpers` nor `workshop`."""
    folder, printed = home
    code = "from importlib.util import find_spec as f; import lifecycle; "
    code += "print(f('helpers'), f('workshop'), f('exercises'), lifecycle.__file__)"
    command = [folder / ".venv" / "bin" / "python", "-c", code]
    done = subprocess.run(command, cwd=folder / "tests", env={}, capture_output=True, text=True)
    assert done.stdout.startswith(f"None None None {folder / '.venv'}"), done.stdout + done.stderr
    assert len(printed) == len(COMMANDS)
    for step, output in zip(COMMANDS, printed, strict=True):
        parts = [re.escape(part) for part in (step.says or "...").strip().split("...")]
        assert re.fullmatch(".*".join(parts), output.strip(), re.S), f"{step.text}printed\n{output}"


def test_the_page_names_the_version_of_the_package():
    project = tomllib.loads((REPOSITORY / "lifecycle" / "pyproject.toml").read_text())["project"]
    assert TEXT.count(f"{project['version']}\n") == 2


def test_the_pages_workflow_runs_commands_of_the_page():
    """And the actions of this repository; its own last line, which compares the contract, comes on top."""
    text = FILES[".github/workflows/ci.yml"]
    ours = "".join(path.read_text() for path in (REPOSITORY / ".github" / "workflows").glob("*.yml"))
    assert all(f"uses: {action}\n" in ours for action in re.findall(r"uses: (.*)", text))
    go = text.split("name: From data to tests\n")[1].splitlines()[1:]
    shown = [line for step in COMMANDS for line in step.text.splitlines()]
    places = [shown.index(line.strip()) for line in go[:-1]]
    assert places == sorted(places) and go[-1].strip() == "git diff --exit-code -- contract.json"


def test_what_is_rendered_for_a_cluster_is_the_new_projects_and_well_formed(home):
    folder, _ = home
    manifests = read(folder / "cluster" / "manifests")
    assert {name: found for name, some in manifests.items() for one in some if (found := problems(one))} == {}
    [service] = manifests["models/inference_service.yaml"]
    [store] = manifests["features/feature_store.yaml"]
    image = "registry.example.org/bikes:1.0"
    assert container(service)["image"] == image and "station_empty" in container(service)["args"]
    kept = store["spec"]["services"]["registry"]["local"]["persistence"]["store"]["type"]
    assert (store["metadata"]["name"], kept) == ("bikes", "sql")
    for name in ("training_pipeline.yaml", "recurring_run.json", "manifests/base/mlflow.yaml"):
        text = (folder / "cluster" / name).read_text().replace('"', "")
        assert f"image: {image}" in text and "ml-lifecycle:1.0" not in text, name

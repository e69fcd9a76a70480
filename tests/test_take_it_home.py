"""docs/take-it-home.md: its steps, executed in an empty folder as a reader would, and its tables compared with the code.

The reader's terminal is one shell. Where the page installs packages, an environment takes their place that borrows those of this one, and nothing
else: neither `helpers` nor `workshop` nor the `lifecycle` of this clone can be imported in it.
"""

import ast
import contextlib
import functools
import json
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
from importlib.metadata import entry_points, requires, version
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from test_environment import UV, pins
from test_lifecycle import imported, modules
from test_workflows import LINTERS, lint

from helpers.workspace import REPOSITORY
from lifecycle import comparison, limits, retrain, serving
from lifecycle.inference_service import container
from lifecycle.manifests import again, feature_store, problems, read
from lifecycle.model import SELECTION_SHARE

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
    [own] = subprocess.run(
        [python, "-c", ask], check=True, capture_output=True, text=True
    ).stdout.splitlines()
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
    build = [
        shutil.which("uv") or UV,
        "pip",
        "install",
        "--quiet",
        "--offline",
        "--no-deps",
        "--no-build-isolation",
    ]
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
        code = shell.wait(900)
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
    kept = ("HOME", "LANG", "LC_ALL", "LC_CTYPE", "PATH", "TMPDIR", "CI")
    given = {name: os.environ[name] for name in kept if name in os.environ}
    given |= {"WORKSHOP": str(REPOSITORY), "PORT": str(port), "TERM": "dumb", "GIT_CONFIG_GLOBAL": os.devnull}
    given |= {
        f"GIT_{who}_{what}": "a.test@example.org"
        for who in ("AUTHOR", "COMMITTER")
        for what in ("NAME", "EMAIL")
    }
    before, after = ([step for step in steps() if step.installed is installed] for installed in (False, True))
    printed = execute(before, folder, given)
    environment(folder)
    return folder, printed + execute(after, folder, given)


def matches(printed: str, says: str) -> bool:
    """Whether the page quotes what was printed; ``...`` stands for anything."""
    parts = [re.escape(part) for part in says.strip().split("...")]
    return re.fullmatch(".*".join(parts), printed.strip(), re.S) is not None


def test_each_step_prints_what_the_page_says(home):
    _, printed = home
    ran = commands()
    assert len(printed) == len(ran)
    for step, output in zip(ran, printed, strict=True):
        assert matches(output, step.says or "..."), f"{step.text}printed\n{output}"
    assert sum(step.says is not None for step in ran) >= 7


def test_a_quote_that_differs_in_one_word_is_found():
    said = "version 1 keeps serving: the challenger is not better, AUC 0.9."
    assert matches(said, "version 1 keeps ... not better, AUC ...")
    assert not matches(said, "version 2 keeps ... not better, AUC ...") and not matches(
        said, "version 1 keeps"
    )


def test_nothing_of_the_workshop_but_its_copied_lifecycle_can_be_imported(home):
    folder, printed = home
    assert printed[1].strip() == str(folder / "lifecycle" / "__init__.py")
    for name in ("helpers", "workshop", "exercises", "benchmarks"):
        command = [folder / ".venv" / "bin" / "python", "-c", f"import {name}"]
        alone = {**os.environ, "PYTHONPATH": ""}
        done = subprocess.run(command, cwd=folder / "tests", env=alone, capture_output=True, text=True)
        assert f"No module named '{name}'" in done.stderr, name


def test_the_first_model_is_in_production_with_the_contract_that_is_under_version_control(home):
    import mlflow

    from lifecycle.contract import FeatureContract

    folder, _ = home
    client = mlflow.MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    version = client.get_model_version_by_alias("station_empty", "production")
    assert str(version.version) == "1" and version.tags["made_by"] == "pipeline"
    assert len(client.search_model_versions("name = 'station_empty'")) == 1, (
        "the retraining registered a model"
    )
    kept = FeatureContract.from_dict(json.loads((folder / "contract.json").read_text()))
    assert kept.tags()["feast.feature_refs"] == version.tags["feast.feature_refs"]
    assert (kept.label, kept.join_keys, list(kept.definitions)) == ("empty", ("station",), ["station_hours"])


def test_git_holds_what_was_written_and_copied_and_nothing_that_running_made(home):
    folder, _ = home
    asked = ["git", "ls-tree", "-r", "-z", "--name-only", "HEAD"]
    held = subprocess.run(asked, cwd=folder, check=True, capture_output=True, text=True).stdout.split("\0")
    copied = {f"lifecycle/{path.name}" for path in (REPOSITORY / "lifecycle").glob("*.py")} | {
        "lifecycle/LICENSE"
    }
    copied |= {
        f"cluster/{name}"
        for name in ("requirements.txt", "training_pipeline.yaml", "Dockerfile", "install.sh")
    }
    copied |= {"build-requirements.txt", ".dockerignore"}
    assert set(held) - {""} == {*files(), *copied, "contract.json"} - {"cluster/render.py"}
    assert (folder / "lifecycle" / "LICENSE").read_text() == (REPOSITORY / "LICENSE").read_text()
    # What the image is made of lies where its file looks for it.
    for line in (folder / "cluster" / "Dockerfile").read_text().splitlines():
        if line.startswith("COPY ") and "--from" not in line and "wheels" not in line:
            assert all((folder / name).exists() for name in line.split()[1:-1]), line


def project() -> list[Requirement]:
    found = tomllib.loads(files()["pyproject.toml"])
    return [Requirement(text) for text in found["project"]["dependencies"]]


NAMED = {
    "google": {"protobuf"},
    "ibis": {"ibis-framework"},
    "kfp": {"kfp", "kfp-kubernetes"},  # kfp.kubernetes is a package of its own
    "openlineage": {"openlineage-python"},
    "sklearn": {"scikit-learn"},
    "yaml": {"pyyaml"},
}
"""Packages that are imported by another name."""


def imports() -> set[str]:
    """The packages that lifecycle imports. PyTorch is for the distributed training alone, and IPython is imported where it is installed."""
    names = {name.split(".")[0] for tree in modules("lifecycle").values() for name in imported(tree)}
    names -= {*sys.stdlib_module_names, "lifecycle", "torch", "IPython"}
    packages = {package for name in names for package in NAMED.get(name, {canonicalize_name(name)})}
    assert all(version(package) for package in packages)
    return packages


needs = functools.cache(requires)


def brought(requirement: Requirement) -> set[str]:
    """The packages that a requirement installs, itself included."""
    seen: set[tuple[str, frozenset]] = set()
    todo = [(canonicalize_name(requirement.name), frozenset(requirement.extras))]
    while todo:
        name, extras = one = todo.pop()
        if one in seen:
            continue
        seen.add(one)
        for needed in map(Requirement, needs(name) or []):
            if not needed.marker or any(needed.marker.evaluate({"extra": extra}) for extra in extras or {""}):
                todo.append((canonicalize_name(needed.name), frozenset(needed.extras)))
    return {name for name, _ in seen}


def test_the_project_asks_for_what_lifecycle_imports_with_the_workshops_pins():
    ours = {canonicalize_name(pin.name): pin for pin in pins()}
    asked = {canonicalize_name(one.name): one for one in project()}
    assert set(asked) - NOT_IMPORTED == imports() & set(ours) and set(asked) >= NOT_IMPORTED
    for name, one in asked.items():
        assert one.specifier == ours[name].specifier and one.extras <= ours[name].extras, name


def test_six_of_them_bring_all_that_lifecycle_imports_and_no_five_do():
    packages_needed = imports()
    six = {"feast", "mlflow", "kubeflow", "kserve", "optuna", "great-expectations"}
    assert (
        "Six of them bring all the others along: Feast, MLflow, `kubeflow`, `kserve`, Optuna and Great Expectations."
        in TEXT
    )
    found = {one.name: brought(one) for one in project()}
    assert packages_needed | NOT_IMPORTED <= set().union(*(found[name] for name in six))
    for name in six:
        assert not packages_needed <= set().union(
            *(packages for other, packages in found.items() if other != name)
        ), name


def test_the_counts_of_the_page():
    lines = [line for text in files().values() for line in text.splitlines()]
    written = [line for line in lines if line.strip() and not line.lstrip().startswith("#")]
    numbers = [
        "no",
        "one",
        "two",
        "three",
        "four",
        "five",
        "six",
        "seven",
        "eight",
        "nine",
        "ten",
        "eleven",
        "twelve",
    ]
    assert f"You write {numbers[len(files())]} files with {len(written)} lines in all" in TEXT
    lifecycle = sum(len(path.read_text().splitlines()) for path in (REPOSITORY / "lifecycle").glob("*.py"))
    assert f"the {round(lifecycle, -3):,} lines of `lifecycle`" in TEXT
    packages = set(re.findall(r"^\S+==", (REPOSITORY / "cluster" / "requirements.txt").read_text(), re.M))
    assert f"the {len(packages)} packages" in TEXT
    assert len(TEXT.split()) < 2800, "ten minutes"


@pytest.mark.parametrize("linter", LINTERS)
def test_the_workflow_of_the_page_has_no_finding(home, linter):
    folder, _ = home
    done = lint(linter, folder / ".github" / "workflows" / "ci.yml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_workflow_goes_the_way_of_the_page_with_this_repositorys_actions():
    text = files()[".github/workflows/ci.yml"]
    workflow = yaml.safe_load(text)
    assert workflow["permissions"] == {"contents": "read"}
    ours = "".join(path.read_text() for path in (REPOSITORY / ".github" / "workflows").glob("*.yml"))
    actions = re.findall(r"uses: (.*)", text)
    assert len(actions) == 2 and all(f"uses: {action}\n" in ours for action in actions)
    install, go = (step["run"].splitlines() for step in workflow["jobs"]["test"]["steps"][2:])
    assert f"```console\n{chr(10).join(install)}\n```" in TEXT
    shown = [line for step in commands() for line in step.text.splitlines()]
    places = [shown.index(line) for line in go[:-1]]
    assert places == sorted(places) and go[-1] == "git diff --exit-code -- contract.json"


def test_the_code_of_the_page_is_in_this_repositorys_style(home):
    folder, _ = home
    python = [folder / name for name in files() if name.endswith(".py")]
    ruff = [Path(sys.executable).with_name("ruff")]
    settings = ["--config", REPOSITORY / "pyproject.toml", "--no-cache"]
    for words in (["check", "--ignore", "D"], ["format", "--check"]):
        done = subprocess.run([*ruff, *words, *settings, *python], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    for block in BLOCK.finditer(TEXT):
        if block["kind"] in ("bash", "console"):
            subprocess.run(["bash", "-n", "-c", block["text"]], check=True)


def test_what_is_rendered_for_a_cluster_is_of_the_new_project_and_well_formed(home):
    folder, _ = home
    manifests = read(folder / "cluster" / "manifests")
    assert {name: found for name, some in manifests.items() for one in some if (found := problems(one))} == {}
    [service] = manifests["models/inference_service.yaml"]
    [store] = manifests["features/feature_store.yaml"]
    image = "registry.example.org/bikes:1.0"
    assert container(service)["image"] == image and "station_empty" in container(service)["args"]
    place = store["spec"]["services"]["registry"]["local"]["persistence"]["file"]["path"]
    assert (store["metadata"]["name"], place) == ("bikes", "/ml-lifecycle/feature_repo/registry.db")
    for name in ("training_pipeline.yaml", "recurring_run.yaml", "manifests/base/mlflow.yaml"):
        text = (folder / "cluster" / name).read_text()
        assert f"image: {image}" in text and "ml-lifecycle:1.0" not in text, name
    assert again(manifests).keys() == manifests.keys(), "a project without a sweep can be rendered again"


def test_a_registry_that_is_no_file_is_refused_for_the_operators_object():
    for registry in ({"registry_type": "sql", "path": "postgresql://there"}, "s3://bucket/registry.db"):
        with pytest.raises(ValueError, match="is no file: write its path alone"):
            feature_store({"project": "bikes", "registry": registry})


def decisions() -> list[list[str]]:
    table = TEXT.split("\n## Decide\n")[1]
    return [
        [cell.strip() for cell in line.strip("|").split(" | ")]
        for line in re.findall(r"^\|.*\|$", table, re.M)
    ][2:]


def names(tree: ast.Module) -> set[str]:
    """What a module defines, takes as an argument or calls."""
    found: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef() | ast.ClassDef():
                found.add(node.name)
            case ast.arg() | ast.keyword() if node.arg:
                found.add(node.arg)
            case ast.Name(ctx=ast.Store()):
                found.add(node.id)
            case ast.Call(func=ast.Attribute(attr=name)) | ast.Call(func=ast.Name(id=name)):
                found.add(name)
    return found


def test_each_decision_is_set_where_the_table_says():
    found = decisions()
    assert len(found) >= 20
    for what, _, place, by in found:
        path = place.strip("`")
        text = files().get(path) or (REPOSITORY / path).read_text()
        there = names(ast.parse(text)) if path.endswith(".py") else set(re.findall(r"^\w+", text, re.M))
        there |= set(re.findall(r'^ +"(\w+)": ', text, re.M))  # the pipeline's arguments
        for name in re.findall(r"`(\w+)`", by):
            assert name in there, f"{what}: {path} has no {name}"


def test_each_number_of_the_table_is_the_codes():
    here = {by.strip("`"): said for _, said, _, by in decisions()}
    assert here["LATE"] == f"{retrain.LATE.days} days" and here["WINDOW"] == f"{retrain.WINDOW.days} days"
    assert here["MOST_CONTRADICTIONS"] == f"{retrain.MOST_CONTRADICTIONS:.0%}"
    assert here["SELECTION_SHARE"] == f"the last {1 - SELECTION_SHARE:.0%} of the rows, by time"
    assert here["FEWEST"] == f"{comparison.FEWEST} with each outcome"
    assert here["SKEW"] == f"{serving.SKEW:.0f} seconds"
    assert here["MOST_BYTES`, `MOST_WAITING"] == f"{limits.MOST_BYTES:,} bytes; {limits.MOST_WAITING}"
    assert f'"threshold": {here["threshold"]},' in files()["first_model.py"]
    assert f"ttl=timedelta(hours={here['ttl'].split()[0]})" in files()["feature_repo/definitions.py"]
    assert here["rules"] == "1% of `bikes`" and 'column="bikes", mostly=0.99' in files()["first_model.py"]

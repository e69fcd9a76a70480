"""The workflows in .github: linted, and their shell commands run in scratch repositories, as far as that takes no GitHub.

GitHub itself has run only what .github/workflows/ci.yml says; the conditions, the permissions and the comment are linted here, not tried.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from helpers.workspace import REPOSITORY

WORKFLOWS = REPOSITORY / ".github" / "workflows"
BIN = Path(sys.executable).parent
LINTERS = {
    "zizmor": [BIN / "zizmor", "--offline", "--no-config", "--no-progress", "--quiet"],
    "schema": [BIN / "check-jsonschema", "--builtin-schema", "vendor.github-workflows"],
}


def workflow(name: str) -> dict:
    return yaml.safe_load((WORKFLOWS / name).read_text())


def script(name: str, job: str, step: str) -> str:
    """The shell commands of a step."""
    [found] = [each["run"] for each in workflow(name)["jobs"][job]["steps"] if each.get("name") == step]
    return found


def run(commands: str, folder: Path, **given: str) -> subprocess.CompletedProcess:
    """Run a step's commands in ``folder`` as GitHub does with ``shell: bash``, with the environment's programs as .venv."""
    assert workflow("features.yml")["defaults"]["run"]["shell"] == "bash"
    if not (folder / ".venv").exists():
        (folder / ".venv").mkdir()
        (folder / ".venv" / "bin").symlink_to(BIN, target_is_directory=True)
    bare = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW", "FEAST"))}
    return subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", commands],
        cwd=folder,
        env={
            **bare,
            "GITHUB_OUTPUT": str(folder / "output"),
            "GITHUB_STEP_SUMMARY": str(folder / "summary"),
            **given,
        },
        capture_output=True,
        text=True,
        timeout=300,
    )


def lint(linter: str, *paths: Path) -> subprocess.CompletedProcess:
    return subprocess.run([*LINTERS[linter], *paths], capture_output=True, text=True)


@pytest.mark.parametrize("linter", LINTERS)
def test_the_linter_finds_nothing(linter):
    paths = sorted(WORKFLOWS.glob("*.yml"))
    assert len(paths) >= 6
    done = lint(linter, *paths)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "linter, name, old, new, says",
    [
        ("zizmor", "features.yml", 'gh pr comment "$NUMBER"', "gh pr comment ${{ github.head_ref }}", "template-injection"),
        ("zizmor", "features.yml", "  pull_request:\n", "  pull_request_target:\n", "dangerous-triggers"),
        ("zizmor", "features.yml", "permissions:\n  contents: read", "permissions: write-all", "excessive-permissions"),
        ("zizmor", "pipeline.yml", "          persist-credentials: false", "          clean: true", "artipacked"),
        ("zizmor", "image.yml", "@ed142fd0673e97e23eac54620cfb913e5ce36c25", "@master", "unpinned-uses"),
        ("schema", "pipeline.yml", "runs-on:", "runs-in:", "runs-in"),
        ("schema", "features.yml", "pull-requests: write", "pull-requests: comment", "comment"),
        ("schema", "image.yml", "timeout-minutes: 30", "timeout-minutes: half an hour", "half an hour"),
    ],
)  # fmt: skip
def test_the_linter_finds_a_planted_mistake(tmp_path, linter, name, old, new, says):
    folder = tmp_path / ".github" / "workflows"
    folder.mkdir(parents=True)
    text = (WORKFLOWS / name).read_text()
    assert old in text
    (folder / name).write_text(text.replace(old, new, 1))
    done = lint(linter, folder / name)
    assert done.returncode != 0 and says in done.stdout, done.stdout + done.stderr


def test_who_may_write_executes_nothing_of_the_pull_request():
    writers = {}
    for path in WORKFLOWS.glob("*.yml"):
        for name, job in workflow(path.name)["jobs"].items():
            if "permissions" in job:
                writers[path.name, name] = job
    assert set(writers) == {("features.yml", "comment")}
    [job] = writers.values()
    assert job["permissions"] == {"pull-requests": "write"}
    assert [step.get("uses") for step in job["steps"]] == [None], "no checkout, no action"
    assert "${{" not in "".join(step["run"] for step in job["steps"]), (
        "what the request holds comes as a variable"
    )


def test_a_pull_request_meets_no_secret():
    for path in WORKFLOWS.glob("*.yml"):
        found = workflow(path.name)
        if "pull_request" in found[True]:  # YAML reads the key `on` as true
            assert "secrets." not in path.read_text(), path.name


@pytest.fixture(scope="module")
def scratch(tmp_path_factory) -> Path:
    """A checkout of a pull request, with the branch that it is for below it. Who changes it changes it back."""
    folder = tmp_path_factory.mktemp("a pull request")
    for place in (folder, folder / "before"):
        for name in ("feature_repo", "data"):
            shutil.copytree(REPOSITORY / name, place / name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def plan(scratch: Path, change=lambda text: text) -> tuple[subprocess.CompletedProcess, str, str]:
    """The plan's step for a changed feature_views.py; gives what ended up in the job's output and in its summary as well."""
    shutil.rmtree(scratch / "before")
    for name in ("output", "summary"):
        (scratch / name).unlink(missing_ok=True)
    for name in ("feature_repo", "data"):
        shutil.copytree(
            REPOSITORY / name, scratch / "before" / name, ignore=shutil.ignore_patterns("__pycache__")
        )
    definitions = scratch / "feature_repo" / "feature_views.py"
    kept = definitions.read_text()
    definitions.write_text(change(kept))
    try:
        done = run(script("features.yml", "plan", "What feast apply would change"), scratch)
    finally:
        definitions.write_text(kept)
    written = [
        path.read_text() if path.exists() else "" for path in (scratch / "output", scratch / "summary")
    ]
    return done, *written


def test_the_plan_shows_a_changed_definition_in_the_output_that_the_comment_reads(scratch):
    done, output, summary = plan(
        scratch, lambda text: text.replace("ttl=timedelta(days=7)", "ttl=timedelta(days=9)")
    )
    assert done.returncode == 0, done.stderr
    assert re.findall(r"^(?:Created|Updated|Deleted) .*", output, re.M) == [
        "Updated feature view driver_hourly_stats"
    ]
    first, *shown, last = output.splitlines()
    assert first == f"plan<<{last}" and last not in shown
    assert summary == "".join(f"    {line}\n" for line in shown)


def test_a_definition_that_cannot_be_read_fails_the_job_and_gives_no_plan(scratch):
    done, output, _ = plan(scratch, lambda text: text + "\nraise RuntimeError('half a definition')\n")
    assert done.returncode != 0 and "half a definition" in done.stderr
    assert output == ""


def test_the_comment_holds_the_plan_indented_whatever_the_plan_says(tmp_path):
    """GitHub's own program is not run: a file takes its place that keeps its arguments and its input."""
    (tmp_path / "gh").write_text(
        f"#!/bin/sh\nprintf '%s\\n' \"$@\" > {tmp_path}/arguments\ncat > {tmp_path}/body\n"
    )
    (tmp_path / "gh").chmod(0o755)
    given = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "GITHUB_REPOSITORY": "a/b", "NUMBER": "7"}
    text = "Created view `a` $(touch broken)\n```\n%s \\ \"'"
    done = run(
        script("features.yml", "comment", "Comment, or change the last comment"), tmp_path, PLAN=text, **given
    )
    assert done.returncode == 0, done.stderr
    title, empty, *lines = (tmp_path / "body").read_text().splitlines()
    assert (title, empty) == ("What `feast apply` would change:", "")
    assert lines == ["    " + line for line in text.splitlines()]
    assert not (tmp_path / "broken").exists()
    arguments = (tmp_path / "arguments").read_text().split()
    assert arguments == [
        "pr",
        "comment",
        "7",
        "--repo",
        "a/b",
        "--edit-last",
        "--create-if-none",
        "--body-file",
        "-",
    ]


def test_apply_brings_the_definitions_of_main_to_the_registry(scratch, home):
    from feast import FeatureStore

    (home.feature_repo / "an_old_definition.py").write_text(
        "raise RuntimeError('main no longer holds this')\n"
    )
    settings = (home.feature_repo / "feature_store.yaml").read_bytes()
    done = run(script("features.yml", "apply", "Apply"), scratch, FEATURE_REPO=str(home.feature_repo))
    assert done.returncode == 0, done.stderr
    assert (home.feature_repo / "feature_store.yaml").read_bytes() == settings
    views = FeatureStore(repo_path=str(home.feature_repo)).list_feature_views()
    assert {"driver_hourly_stats", "driver_daily_profile"} <= {view.name for view in views}


@pytest.fixture
def repository(tmp_path) -> Path:
    """A git repository with the pipeline's code and its compiled file."""
    for name in ("lifecycle", "cluster"):
        (tmp_path / name).mkdir()
    shutil.copy(REPOSITORY / "lifecycle" / "pipeline.py", tmp_path / "lifecycle")
    shutil.copy(REPOSITORY / "cluster" / "training_pipeline.yaml", tmp_path / "cluster")
    author = ["-c", "user.name=a test", "-c", "user.email=test@example.org"]
    for words in (["init", "--quiet"], ["add", "."], [*author, "commit", "--quiet", "-m", "reviewed"]):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    return tmp_path


COMPILE = "The committed file is what the code compiles to"


def test_the_pipeline_compiles_to_the_committed_file(repository):
    done = run(script("pipeline.yml", "compile", COMPILE), repository)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_step_that_changed_without_its_compiled_file_fails(repository):
    path = repository / "lifecycle" / "pipeline.py"
    path.write_text(path.read_text().replace('set_memory_limit("2Gi")', 'set_memory_limit("3Gi")'))
    done = run(script("pipeline.yml", "compile", COMPILE), repository)
    assert done.returncode != 0 and re.search(r"^\+.*3Gi", done.stdout, re.M), done.stdout + done.stderr


def test_the_image_that_is_tried_and_scanned_is_the_one_that_was_built():
    build, tried, scan = workflow("image.yml")["jobs"]["build"]["steps"][1:]
    tag = re.search(r"--tag (\S+)", build["run"])[1]
    assert f" {tag} " in tried["run"] and scan["with"]["image-ref"] == tag
    assert scan["with"]["exit-code"] == "1", "a scan that cannot fail is none"

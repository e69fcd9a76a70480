"""The workflows in .github: their shell commands run in scratch repositories, as far as that takes no GitHub.

GitHub itself hasn't run them: `make check` lints conditions and permissions, and comments and issues go to
a stand-in for its command line.
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

pytestmark = pytest.mark.unit
WORKFLOWS = REPOSITORY / ".github" / "workflows"
BIN = Path(sys.executable).parent
LINTERS = {
    "zizmor": [BIN / "zizmor", "--offline", "--no-config", "--no-progress", "--quiet"],
    "schema": [BIN / "check-jsonschema", "--builtin-schema", "vendor.github-workflows"],
}


def lint(linter: str, *paths: Path) -> subprocess.CompletedProcess:
    return subprocess.run([*LINTERS[linter], *paths], capture_output=True, text=True)


def jobs() -> dict[tuple[str, str], dict]:
    found = {path.name: yaml.safe_load(path.read_text()) for path in WORKFLOWS.glob("*.yml")}
    return {(name, job): each for name, workflow in found.items() for job, each in workflow["jobs"].items()}


def run(workflow: str, job: str, step: str, folder: Path, **given: str) -> subprocess.CompletedProcess:
    """Run a step's commands as GitHub does with ``shell: bash``, with this environment as .venv."""
    assert yaml.safe_load((WORKFLOWS / workflow).read_text())["defaults"]["run"]["shell"] == "bash"
    [commands] = [each["run"] for each in jobs()[workflow, job]["steps"] if each.get("name") == step]
    if not (folder / ".venv").exists():
        (folder / ".venv").symlink_to(sys.prefix, target_is_directory=True)
    bare = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW", "FEAST"))}
    files = {"GITHUB_OUTPUT": str(folder / "output"), "GITHUB_STEP_SUMMARY": str(folder / "summary")}
    command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", commands]
    environment = {**bare, **files, "GITHUB_REPOSITORY": "a/b", **given}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=900)


def copy(folder: Path, *names: str) -> None:
    for name in names:
        shutil.copytree(REPOSITORY / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))


def stand_in(folder: Path, answers: str = "") -> dict[str, str]:
    """A program `gh` that keeps its arguments, its input and the file ``body``: the PATH that finds it."""
    keep = f'echo "$*" >> {folder}/calls\n[ "$1 $2" != "pr comment" ] || cat > {folder}/body\n'
    text = f"#!/bin/bash\n{keep}{answers}"
    (folder / "gh").write_text(text)
    (folder / "gh").chmod(0o755)
    return {"PATH": f"{folder}:{os.environ['PATH']}"}


def test_each_workflow_is_one_by_githubs_schema():
    done = lint("schema", *WORKFLOWS.glob("*.yml"))
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_job_that_may_write_executes_nothing_of_others_and_a_pull_request_meets_no_secret():
    writers = {place: job for place, job in jobs().items() if "permissions" in job}
    assert {place: job["permissions"] for place, job in writers.items()} == {
        ("features.yml", "comment"): {"pull-requests": "write"},
        ("canary.yml", "issue"): {"issues": "write"},
        ("site.yml", "publish"): {"pages": "write", "id-token": "write"},
    }
    for job in writers.values():
        [step] = job["steps"]
        used = step.get("uses", "").partition("@")[0]
        assert used in ("", "actions/deploy-pages"), "no checkout, and no action but the one that publishes"
        assert "${{" not in step.get("run", ""), "text comes as a variable"
    for path in WORKFLOWS.glob("*.yml"):
        if "pull_request" in yaml.safe_load(path.read_text())[True]:  # YAML reads the key `on` as true
            assert "secrets." not in path.read_text(), path.name


def test_a_plan_shows_the_changed_definition_and_apply_brings_it_to_the_registry(tmp_path, home):
    from feast import FeatureStore

    copy(tmp_path, "feature_repo", "data")
    copy(tmp_path / "before", "feature_repo", "data")
    definitions = tmp_path / "feature_repo" / "feature_views.py"
    definitions.write_text(definitions.read_text().replace("ttl=timedelta(days=7)", "ttl=timedelta(days=9)"))
    done = run("features.yml", "plan", "What feast apply would change", tmp_path)
    assert done.returncode == 0, done.stderr
    first, *shown, last = (tmp_path / "output").read_text().splitlines()
    assert first == f"plan<<{last}" and last not in shown
    changes = [line for line in shown if line.startswith(("Created", "Updated", "Deleted"))]
    assert changes == ["Updated feature view driver_hourly_stats"]
    assert (tmp_path / "summary").read_text() == "".join(f"    {line}\n" for line in shown)

    old = home.feature_repo / "an_old_definition.py"
    old.write_text("raise RuntimeError('main no longer holds this')\n")
    settings = (home.feature_repo / "feature_store.yaml").read_bytes()
    done = run("features.yml", "apply", "Apply", tmp_path, FEATURE_REPO=str(home.feature_repo))
    assert done.returncode == 0, done.stderr
    assert (home.feature_repo / "feature_store.yaml").read_bytes() == settings and not old.exists()
    view = FeatureStore(repo_path=str(home.feature_repo)).get_feature_view("driver_hourly_stats")
    assert view.ttl.days == 9


def test_the_comment_holds_the_plan_indented_whatever_the_plan_says(tmp_path):
    text = "Created view `a` $(touch broken)\n```\n%s \\ \"'"
    given = stand_in(tmp_path) | {"PLAN": text, "NUMBER": "7"}
    done = run("features.yml", "comment", "Comment, or change the last comment", tmp_path, **given)
    assert done.returncode == 0, done.stderr
    title, empty, *lines = (tmp_path / "body").read_text().splitlines()
    assert (title, empty) == ("What `feast apply` would change:", "")
    assert lines == ["    " + line for line in text.splitlines()] and not (tmp_path / "broken").exists()
    [call] = (tmp_path / "calls").read_text().splitlines()
    assert call == "pr comment 7 --repo a/b --edit-last --create-if-none --body-file -"


def test_a_setting_that_changed_without_the_compiled_file_fails_and_shows_that_limit_alone(tmp_path):
    (tmp_path / "cluster").mkdir()
    for name in ("lifecycle.toml", "cluster/training_pipeline.yaml"):
        shutil.copy(REPOSITORY / name, tmp_path / name)
    author = ["-c", "user.name=a test", "-c", "user.email=test@example.org"]
    for words in (["init", "--quiet"], ["add", "."], [*author, "commit", "--quiet", "-m", "reviewed"]):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    with (tmp_path / "lifecycle.toml").open("a") as settings:
        limits = {"cpu": "250m", "memory": "1Gi", "cpu_limit": "1", "memory_limit": "3Gi"}
        settings.write("[cluster.step]\n" + "".join(f'{name} = "{most}"\n' for name, most in limits.items()))
    done = run("pipeline.yml", "compile", "The committed file is what the code compiles to", tmp_path)
    assert done.returncode != 0

    changed = {line.split(":")[-1].strip() for line in re.findall(r"^\+ .*", done.stdout, re.M)}
    assert changed == {"3Gi", "3.221225472"}, done.stdout + done.stderr  # the limit, and the same in GB


def test_the_canary_asks_for_each_direct_dependency_without_an_upper_bound():
    command = [sys.executable, REPOSITORY / ".github" / "canary.py", "requirements"]
    lines = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True).stdout.splitlines()
    assert len(lines) >= 20 and all(re.fullmatch(r"[\w.-]+(\[[\w,-]+\])?>=[\w.]+", line) for line in lines)
    assert any(re.fullmatch(r"feast\[duckdb,grpcio,openlineage,redis\]>=\d.*", line) for line in lines)


def test_the_canarys_report_is_the_end_of_each_log_and_cannot_be_read_as_markup(tmp_path):
    copy(tmp_path, ".github")
    (tmp_path / "versions.log").write_text(" - duckdb==1.5.6\n + duckdb==2.0.1\n")
    (tmp_path / "unit.log").write_text("early\n" * 200 + "```\nFAILED tests/test_x.py::test_y\n")
    done = run("canary.yml", "newest", "What broke", tmp_path)
    assert done.returncode == 0, done.stderr
    first, *body, last = (tmp_path / "output").read_text().splitlines()
    assert first == f"report<<{last}" and body.count("    early") == 78 and "### notebooks" not in body
    assert {"     + duckdb==2.0.1", "    ```", "    FAILED tests/test_x.py::test_y"} <= set(body)


@pytest.mark.parametrize("number, does", [("12", "issue edit 12"), ("", "issue create")])
def test_the_canary_changes_its_open_issue_or_opens_one(tmp_path, number, does):
    given = stand_in(tmp_path, f'[ "$1 $2" != "issue list" ] || echo "{number}"\n')
    report, address = "duckdb $(touch broken) `2.0.1`", "https://github.com/a/b/actions/runs/1"
    given |= {"REPORT": report, "RUN": address}
    done = run("canary.yml", "issue", "Open an issue, or change the open one", tmp_path, **given)
    assert done.returncode == 0, done.stderr
    label, listed, call = (tmp_path / "calls").read_text().splitlines()
    assert label.startswith("label create canary --repo a/b") and "--label canary --state open" in listed
    assert call.startswith(f"{does} ") and call.endswith("--body-file body")
    assert (tmp_path / "body").read_text() == f"{address}\n\n{report}\n"
    assert not (tmp_path / "broken").exists()

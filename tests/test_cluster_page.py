"""cluster/README.md: its commands name options, files, and objects that exist, and its figures are the sums
of the rendered ones."""

import re
import shlex
import subprocess

import pytest
import yaml
from kubernetes.utils import parse_quantity

from helpers.workspace import REPOSITORY
from lifecycle.cli import main
from lifecycle.cluster import manifests, waiting

pytestmark = pytest.mark.unit
CLUSTER = REPOSITORY / "cluster"
PAGE = (CLUSTER / "README.md").read_text(encoding="utf-8")
COMMANDS = [
    line.strip()
    for language, block in re.findall(r"^ *```(\w*)\n(.*?)^ *```$", PAGE, re.M | re.S)
    for line in block.splitlines()
    if not language
]
SPOKEN = re.findall(r"`((?:make|kubectl|lifecycle|\.venv/bin/lifecycle) [^`]+)`", PAGE)
RENDERED = [
    document for documents in manifests.read(CLUSTER / "manifests").values() for document in documents
]
BY_HAND = [
    document
    for name in ("loader", "notebooks")
    for document in yaml.safe_load_all((CLUSTER / "kind" / f"{name}.yaml").read_text())
]


def test_each_command_of_lifecycle_has_the_options_and_kinds_that_the_page_gives_it():
    found = [line for line in [*COMMANDS, *SPOKEN] if re.match(r"(\.venv/bin/)?lifecycle [a-z]", line)]
    assert len(found) >= 12
    for line in found:
        plain = re.sub(r"\$\(.*?\)", "job.batch/x", line.partition(" > ")[0].removesuffix("..."))
        words = shlex.split(plain)[1:]
        command = main.commands[words[0]]
        words = words if words[0] != "wait" or len(words) > 1 else ["wait", "job/x"]
        context = command.make_context(words[0], words[1:])  # an option that is not there ends here
        for name in context.params.get("objects") or ():
            assert name.partition("/")[0].partition(".")[0] in {*map(str.lower, waiting.KINDS), "run"}, line


def test_each_file_and_object_that_a_command_names_is_rendered():
    text = "\n".join([*COMMANDS, *SPOKEN])
    for path in set(re.findall(r"/tmp/mine/([\w./]+)", text)):
        assert (CLUSTER / path).exists(), path
    for path in set(re.findall(r"\bcluster/[\w./]+", text)):
        assert (REPOSITORY / path).exists(), path
    there = {f"{one['kind'].lower()}/{one['metadata']['name']}" for one in [*RENDERED, *BY_HAND]}
    there |= {"service/driver-conversion-predictor", "job/materialize-now"}  # KServe's, and the page's own
    named = set(
        re.findall(r"\b(deployment|service|cronjob|pod|job|inferenceservice|experiment)/([a-z-]+)", text)
    )
    assert len(named) >= 10 and {f"{kind}/{name}" for kind, name in named} <= there
    [loader] = [one for one in BY_HAND if one["kind"] == "Pod"]
    assert (
        "sed 's|ml-lifecycle:1.0|" in text and loader["spec"]["containers"][0]["image"] == "ml-lifecycle:1.0"
    )
    settings = yaml.safe_dump(RENDERED)
    assert "/ml-lifecycle/lifecycle.toml" in settings and "git archive HEAD ." in text, (
        "the whole clone is copied"
    )


@pytest.mark.parametrize("file", ["README.md", "kind/up.sh"])
def test_a_second_copy_of_the_clone_leaves_the_clusters_settings_alone(file, tmp_path):
    """The job that puts them there has ended, and does not run again for the same definitions."""
    words = (CLUSTER / file).read_text().replace('"$definitions"', "':!feature_repo/feature_store.yaml'")
    [command] = set(re.findall(r"^ *(git archive .*?) \| kubectl", words, re.M))
    listed = subprocess.run(
        ["sh", "-c", f"{command} | tar -t"], cwd=REPOSITORY, check=True, capture_output=True, text=True
    ).stdout.split()
    assert {"lifecycle.toml", "feature_repo/feature_views.py", "data/driver_labels.parquet"} <= set(listed)
    assert "feature_repo/feature_store.yaml" not in listed


def test_a_request_says_that_its_body_is_json():
    """The model server refuses what curl calls a body by itself: a form."""
    asked = [line for line in COMMANDS if "curl" in line and " -d " in line]
    assert asked and all("-H 'Content-Type: application/json'" in line for line in asked)


def test_make_has_the_variables_that_the_page_names():
    makefile = (REPOSITORY / "Makefile").read_text()
    [recipe] = re.findall(r"(?m)^image:.*\n\t(.*)$", makefile)
    calls = [line for line in [*COMMANDS, *SPOKEN] if line.startswith("make image")]
    named = {name for line in calls for name in re.findall(r"\b([A-Z]+)=", line)}
    assert named >= {"CA", "NETWORK", "BASE", "WHEELS", "EXTRA"}
    assert {name for name in named if f"$({name})" not in recipe} == set()


def requests(pods: list[dict]) -> tuple[int, int]:
    """CPU in thousandths, and memory in Mi."""
    found = [container["resources"]["requests"] for pod in pods for container in pod["containers"]]
    cpu, memory = (sum(parse_quantity(one[name]) for one in found) for name in ("cpu", "memory"))
    return int(cpu * 1000), int(memory / 2**20)


def test_the_page_says_what_the_rendered_objects_ask_for():
    by_kind: dict[str, list[dict]] = {}
    for one in [*RENDERED, *BY_HAND]:
        by_kind.setdefault(one["kind"], []).append(one.get("spec", {}))
    servers = [one["template"]["spec"] for one in by_kind["Deployment"]]
    [services] = [one["services"] for one in by_kind["FeatureStore"]]
    feast = [services["registry"]["local"], services["offlineStore"], services["onlineStore"]]
    [model] = [one["predictor"] for one in by_kind["InferenceService"]]
    [trial] = [one["trialTemplate"]["trialSpec"]["spec"]["template"]["spec"] for one in by_kind["Experiment"]]
    sums = [requests(servers), requests([{"containers": [one["server"] for one in feast]}])]
    sums += [requests([model]), requests([trial])]
    rows = re.findall(r"^\| [^|]+ \| (\d+)m \| (\d+)Mi \|$", PAGE, re.M)
    assert [(int(cpu), int(memory)) for cpu, memory in rows] == sums
    [notebooks] = [one["template"]["spec"] for one in by_kind["Job"] if "notebooks" in str(one)]
    assert requests([notebooks]) == (1000, 3 * 1024) and "| 1 | 3Gi |" in PAGE

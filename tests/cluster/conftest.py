"""The acceptance suite's options, its limits of time, and its table."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from acceptance import Cluster

from helpers.workspace import REPOSITORY
from lifecycle.settings import FILE, Settings

OPTIONS = {
    "namespace": (
        "kubeflow",
        "of what is made; Pipelines alone, without profiles, runs its steps in its own",
    ),
    "image": (None, "of steps, trials, and servers"),
    "training-image": (None, "of the TrainJob, with PyTorch; empty to leave it out"),
    "access": ("ReadWriteMany", "of the claims; a cluster of one node wants ReadWriteOnce"),
    "pipelines": ("", "address of Kubeflow Pipelines; a forwarded port when left out"),
    "notebooks-image": (None, "of the notebooks' pods, with Python and make"),
    "wheels": ("", "folder with the lock's packages, for a cluster without a package index"),
    "extras": ("distributed", "groups that the environment of notebook 09 gets"),
}
RESULTS = pytest.StashKey[dict]()
CLUSTER = pytest.StashKey["Cluster | str"]()


def pytest_addoption(parser):
    settings = Settings.load(REPOSITORY / FILE).cluster
    group = parser.getgroup("cluster", "acceptance of a cluster; each option also as CLUSTER_NAME")
    for name, (default, text) in OPTIONS.items():
        here = getattr(settings, name.replace("-", "_"), "") if default is None else default
        variable = f"CLUSTER_{name.upper().replace('-', '_')}"
        group.addoption(f"--{name}", default=os.environ.get(variable, here), help=f"{text} [{here}]")
    group.addoption("--reuse", action="store_true", help="go on with what --keep left")
    group.addoption("--keep", action="store_true", help="delete nothing in the end")


def pytest_configure(config):
    config.stash[RESULTS] = {}


def no_cluster() -> str:
    """Why there is no cluster to test; empty where there is one."""
    if not os.environ.get("KUBECONFIG"):
        return "KUBECONFIG names no cluster"
    if not shutil.which("kubectl"):
        return "kubectl is not installed"
    command = ["kubectl", "version", "--request-timeout=10s"]
    done = subprocess.run(command, capture_output=True, text=True)
    return "" if done.returncode == 0 else f"the cluster does not answer: {done.stderr.splitlines()[-1]}"


def pytest_runtest_setup(item):
    """Skip what lacks a component, before a fixture of a whole session would fail on it."""
    stash = item.config.stash
    if CLUSTER not in stash:
        reason = no_cluster()
        stash[CLUSTER] = reason or Cluster(item.config.option)
    found = stash[CLUSTER]
    if isinstance(found, str):
        pytest.skip(found)
    for need in item.get_closest_marker("cluster").kwargs["needs"]:
        if need in found.missing:
            pytest.skip(f"{need} is not there")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    """A test ends within its minutes, wherever it waits."""
    minutes = item.get_closest_marker("cluster").kwargs["minutes"]

    def end(*_):
        raise TimeoutError(f"not done within {minutes} minutes")

    signal.signal(signal.SIGALRM, end)
    signal.alarm(60 * minutes)
    try:
        return (yield)
    finally:
        signal.alarm(0)


@pytest.fixture(scope="session")
def cluster(request, tmp_path_factory):
    """The cluster with what is rendered for it; in the end, what was made is deleted."""
    found = request.config.stash[CLUSTER]
    found.render(tmp_path_factory.mktemp("rendered"))
    try:
        yield found
    finally:
        if not request.config.option.keep:
            found.remove()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    results = item.config.stash[RESULTS]
    seconds, result = results.get(item.nodeid, (0.0, ""))[:2]
    if report.skipped:
        result = f"skipped: {report.longrepr[2].removeprefix('Skipped: ')}"
    elif report.failed:
        said = str(call.excinfo.value).splitlines() or [call.excinfo.typename]
        result = f"failed: {said[0]:.200}"
    elif report.when == "call" and not result:
        result = "passed"
    needs = item.get_closest_marker("cluster").kwargs.get("needs", ())
    results[item.nodeid] = (seconds + report.duration, result, needs)
    return report


def table(config) -> str:
    """What, result, seconds, versions: a table in Markdown."""
    cluster = config.stash.get(CLUSTER, None)
    versions = cluster.versions if isinstance(cluster, Cluster) else {}
    lines = ["| what | result | seconds | version |", "|---|---|---|---|"]
    for name, (seconds, result, needs) in config.stash[RESULTS].items():
        what = name.rpartition("::test_")[2].replace("_", " ")
        version = ", ".join(f"{need} {versions.get(need, '')}".strip() for need in needs or ["Kubernetes"])
        lines.append(f"| {what} | {result.replace('|', '/')} | {seconds:.0f} | {version} |")
    return "\n".join(lines) + "\n"


def pytest_terminal_summary(terminalreporter, config):
    text = table(config)
    terminalreporter.section("the cluster")
    terminalreporter.write(text)
    if config.option.xmlpath:
        Path(config.option.xmlpath).with_suffix(".md").write_text(text)


def pytest_sessionfinish(session):
    results = [result for _, result, _ in session.config.stash[RESULTS].values()]
    if results and all(result.startswith("skipped") for result in results):
        session.exitstatus = pytest.ExitCode.NO_TESTS_COLLECTED  # a cluster that was not tried has not passed

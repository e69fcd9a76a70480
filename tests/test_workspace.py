"""Where everything lives, and `begin`: what it refuses, what it looks for, and how it catches up."""

import importlib.metadata
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import mlflow
import nbformat
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from sklearn.dummy import DummyClassifier

from conftest import HARD_TO_QUOTE, apply, save_reference
from helpers import course, data, run, start
from helpers.start import MODEL, begin, check_environment, missing
from helpers.workspace import REPOSITORY, ROOM, WorkshopError, Workspace, configure, locate

STATS, PROFILE, LABELS = data.FILES


@pytest.mark.parametrize("there", [True, False])
def test_an_empty_or_new_folder_becomes_a_home(tmp_path, monkeypatch, there):
    folder = tmp_path / HARD_TO_QUOTE
    if there:
        folder.mkdir()
    monkeypatch.setenv("WORKSHOP_HOME", str(folder))
    assert locate() == locate() == Workspace(folder)
    assert sorted(path.name for path in folder.iterdir()) == ["data", "feature_repo", "workspace"]
    assert [path.name for path in tmp_path.iterdir()] == [HARD_TO_QUOTE], "nothing is left beside it"
    other = locate(seed=7)
    assert other.home == folder / "workspace" / "seed-7" and data.seed_of(other.data) == 7
    with pytest.raises(data.DataError, match="seed=-1: a seed is an integer of 0 or more"):
        locate(seed=-1)


def test_a_folder_that_is_no_home_or_that_mlflow_cannot_write_is_refused_and_left_alone(
    tmp_path, monkeypatch
):
    (tmp_path / "letters").mkdir()
    for folder, words in (
        (
            tmp_path,
            r"no feature_repo/feature_store\.yaml in .*set WORKSHOP_HOME to the clone or to an empty folder",
        ),
        (tmp_path / 'd\'été "q"', "both kinds of quotes in its name, which MLflow cannot write"),
    ):
        monkeypatch.setenv("WORKSHOP_HOME", str(folder))
        with pytest.raises(WorkshopError, match=words):
            locate()
    assert [path.name for path in tmp_path.rglob("*")] == ["letters"]


def changed(change):
    def rewrite(path):
        pq.write_table(
            pa.Table.from_pandas(change(pq.read_table(path).to_pandas()), preserve_index=False), path
        )

    return rewrite


@pytest.mark.parametrize(
    "name, harm, words",
    [
        (STATS, Path.unlink, "is missing from the data/ folder"),
        (PROFILE, lambda path: path.write_bytes(path.read_bytes()[:-100]), "is damaged or cut short"),
        (LABELS, changed(lambda t: t.drop(columns="event_timestamp")), "has no column 'event_timestamp'"),
        (LABELS, changed(lambda t: t.astype({"driver_id": str})), "column 'driver_id' has type string"),
        (STATS, changed(lambda t: t[t.event_timestamp >= "2025-02-01"]), "hourly rows from 2025-02-01 to"),
        (PROFILE, changed(lambda t: t[t.driver_id != 1017]), "2 of 150 profiles ended 30 days ago"),
    ],
)
def test_damaged_or_other_data_is_named_with_the_remedy_where_a_notebook_begins(
    home, monkeypatch, name, harm, words
):
    monkeypatch.setenv("WORKSHOP_HOME", str(home.home))
    harm(home.data / name)
    with pytest.raises(data.DataError) as raised:
        begin("00")
    assert words in str(raised.value) and "`git checkout -- data" in str(raised.value)
    assert list(home.path.iterdir()) == []


def test_begin_works_in_the_workspace_and_refuses_what_is_no_notebook_or_no_seed(home, monkeypatch, capsys):
    monkeypatch.setenv("WORKSHOP_HOME", str(home.home))
    assert begin("01") == home and Path.cwd() == home.path
    said = "Notebook 01 is ready. Data seed 2025, clock 2025-03-01. Needs: nothing from earlier notebooks.\n"
    assert capsys.readouterr().out == said
    assert os.environ["MLFLOW_TRACKING_URI"] == f"sqlite:///{home.path}/mlflow.db"
    with pytest.raises(WorkshopError, match="there is no notebook '99'; there are 00, 01"):
        begin("99")
    for seed in ("2025", 7.5):
        with pytest.raises(WorkshopError, match=rf"seed = {seed!r}: a seed is a whole number of 0 or more\."):
            begin("00", seed=seed)


def test_the_environment_check_names_a_package_of_another_version(monkeypatch):
    assert {"feast", "mlflow", "kfp", "kserve", "optuna"} <= check_environment().keys()
    right = importlib.metadata.version
    monkeypatch.setattr(
        importlib.metadata, "version", lambda name: "4.0.0" if name == "optuna" else right(name)
    )
    with pytest.raises(
        WorkshopError, match=r"optuna 4\.0\.0 is installed, <6,>=5 is needed\. In the clone: `rm "
    ):
        check_environment()


def test_a_cluster_needs_mlflows_server_and_no_certain_folder(home, monkeypatch):
    monkeypatch.setenv("BACKEND", "Kubernetes")
    with pytest.raises(WorkshopError, match="BACKEND is 'Kubernetes'"):
        configure(home)
    monkeypatch.setenv("BACKEND", "kubernetes")
    for address in ("", "sqlite:///here.db"):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        with pytest.raises(WorkshopError, match="needs MLflow's server"):
            configure(home)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    configure(home)
    assert os.environ["MLFLOW_TRACKING_URI"] == Workspace(home.home).tracking_uri == "http://mlflow:5000"


def test_on_a_cluster_the_registry_is_where_the_settings_say(home, monkeypatch):
    settings = home.feature_repo / "feature_store.yaml"
    content = yaml.safe_load(settings.read_text())
    content["registry"] = {"registry_type": "sql", "path": f"sqlite:///{home.path}/of_a_server.sql"}
    settings.write_text(yaml.safe_dump(content))
    monkeypatch.setenv("BACKEND", "kubernetes")
    assert missing(home, "02") == {"01": "feature registry"}
    monkeypatch.delenv("BACKEND")
    apply(home)
    monkeypatch.setenv("BACKEND", "kubernetes")
    assert missing(home, "02") == {}


def register(workspace, made_by, experiment="made before"):
    """A small model in the registry, tagged as the notebook tags it that makes such a version; gives its
    logged model."""
    configure(workspace)
    mlflow.set_experiment(experiment)
    model = DummyClassifier().fit([[0.0], [1.0]], [0, 1])
    logged = mlflow.sklearn.log_model(model, name="model", serialization_format="skops", pip_requirements=[])
    mlflow.register_model(logged.model_uri, MODEL, tags={"made_by": made_by})
    return logged


def test_what_two_stores_hold_together_is_missing_when_one_of_them_is_lost(home):
    assert list(missing(home, "07")) == ["01", "03", "04", "05", "06"]
    assert missing(home, "04") == {"01": "feature registry"}
    configure(home)
    save_reference(apply(home), home)
    made = {made_by: register(home, made_by) for made_by in ("selection", "sweep", "pipeline")}
    assert missing(home, "08") == {"07": "model in production"}, "no alias names a version"
    mlflow.MlflowClient().set_registered_model_alias(MODEL, "production", "3")
    assert not any(missing(home, number) for number in course.notebooks())

    model = Path(mlflow.artifacts.download_artifacts(made["pipeline"].model_uri))
    for lost, makers in (
        (home.path / "reference.parquet", ["03"]),  # the registry still knows the dataset
        (model, ["06"]),  # the version is still registered
        (home.path / "registry.db", ["01", "03"]),  # the models are still there
        (home.path / "online_store.db", ["01", "03"]),  # no store has tables for the views
        (home.path / "mlflow.db", ["04", "05", "06"]),
    ):
        lost.rename(home.path / "away")
        assert list(missing(home, "07")) == makers, lost
        (home.path / "away").rename(lost)


def test_the_seconds_of_a_running_notebook_are_printed_over_each_other(capsys):
    with run.ticking("01", 60, every=0.01):
        time.sleep(0.2)
    said = capsys.readouterr().out
    first, *_, blank, end = said.split("\r")
    assert (first, blank.strip(), end) == ("  01: 0 s of about 60 s", "", "") and "\n" not in said
    with run.ticking("01", 0, every=0.01):
        time.sleep(0.2)
    assert "0 s of about 0 s, more than on two idle cores\r" in capsys.readouterr().out


def test_catching_up_passes_on_its_progress_and_keeps_warnings_in_a_log(home, monkeypatch, capsys):
    maker = home.home / "python"
    maker.write_text("#!/bin/sh\nprintf '1 s\\r2 s\\rdone\\n'; echo a warning >&2; exit 1\n")
    maker.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(maker))
    monkeypatch.setattr(start, "missing", lambda *_: {"01": "feature registry"})
    log = home.path / "logs" / "catching_up.log"
    with pytest.raises(WorkshopError, match=f"02 cannot start.*{re.escape(str(log))}"):
        start._catch_up(home, "02")
    assert capsys.readouterr().out.endswith("happens once.\n  1 s\r  2 s\r  done\n")
    assert log.read_text() == "a warning\n"


def in_processes(code, homes, **options):
    """Start Python on ``code`` once for each home, as a notebook would; what each says goes to a file."""
    started = []
    for number, home in enumerate(homes):
        log = home.parent / f"said {number}"
        with log.open("w") as output:
            options |= {"env": {**os.environ, "WORKSHOP_HOME": str(home)}, "stderr": subprocess.STDOUT}
            started.append((subprocess.Popen([sys.executable, "-c", code], stdout=output, **options), log))
    return started


@pytest.mark.course
def test_of_notebooks_started_at_once_one_catches_up_and_the_others_wait_also_after_a_kill(tmp_path):
    makes = "1 of 1: 01_define_features, about 60 s ..."
    started = in_processes("from helpers.start import begin; begin('02')", [tmp_path / HARD_TO_QUOTE] * 3)
    makers: list = []
    while not makers:
        assert all(process.poll() is None for process, _ in started), [
            said.read_text() for _, said in started
        ]
        makers = [process for process, said in started if makes in said.read_text()]
        time.sleep(0.05)
    makers[0].kill()  # before its notebook has applied anything: a kernel takes seconds to start
    others = [(process, said) for process, said in started if process is not makers[0]]
    assert [process.wait(900) for process, _ in others] == [0, 0], [said.read_text() for _, said in others]
    texts = sorted((said.read_text() for _, said in others), key=lambda text: makes in text)
    assert [makes in text for text in texts] == [False, True], texts
    assert "Another notebook is catching up in this workspace; this one waits for it." in texts[0], texts
    ready = "Notebook 02 is ready. Data seed 2025, clock 2025-03-01. Needs: feature registry.\n"
    assert all(text.endswith(ready) for text in texts), texts


def runs(folder: Path, **notebooks: list[str]) -> str:
    """The code of a `make run` of notebooks that consist of these cells."""
    for name, cells in notebooks.items():
        content = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in cells])
        nbformat.write(content, folder / f"{name}.ipynb")
    return (
        f"from pathlib import Path; from workshop import runner; runner.NOTEBOOKS = Path({str(folder)!r}); "
        "code = runner.main([])\n"
    )


@pytest.mark.course
def test_a_second_run_waits_for_the_first_and_both_end_whole(tmp_path):
    home = tmp_path / "here" / HARD_TO_QUOTE
    home.parent.mkdir()
    both = in_processes(runs(tmp_path, **{"00_wait": ["import time; time.sleep(2)"]}), [home, home])
    assert [process.wait(400) for process, _ in both] == [0, 0], [said.read_text() for _, said in both]
    waits = f"Another `make run` is at work in {home}; this one waits until it has ended."
    assert sorted(waits in said.read_text() for _, said in both) == [False, True]


def rights_to_mount() -> list[str]:
    """The words before a command that let it mount a file system for itself alone.

    Some systems grant that to root only.
    """
    for words in (["unshare", "-rm"], ["sudo", "-nE", "unshare", "-m"]):
        mount = [*words, "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
        if shutil.which(words[0]) and subprocess.run(mount, capture_output=True).returncode == 0:
            return words
    pytest.skip("neither `unshare -rm` nor sudo may mount here")


def mounted(mount, code, home) -> subprocess.CompletedProcess:
    """Python on ``code`` after ``mount``, a line of shell in which $1 is the folder of the test."""
    shell = ["sh", "-c", f'{mount} && shift && exec "$@"', "sh", str(home.parent)]
    environment = {**os.environ, "WORKSHOP_HOME": str(home)}
    command = [*rights_to_mount(), *shell, sys.executable, "-c", code]
    return subprocess.run(command, env=environment, cwd="/", capture_output=True, text=True, timeout=600)


BEGIN = """
from helpers.start import begin
from helpers.workspace import WorkshopError
try: begin('01')
except WorkshopError as error: print(error)
"""
BALLAST = """file = open('ballast', 'wb', buffering=0)
try:
    while True: file.write(bytes(1 << 12))
except OSError: pass"""
linux = pytest.mark.skipif(sys.platform != "linux", reason="the disk of its own is made with what Linux has")


@linux
@pytest.mark.system
def test_a_disk_without_room_or_read_only_is_named_with_the_way_out(home, tmp_path):
    said = mounted('mount -t tmpfs -o size=8m tmpfs "$1"', BEGIN, tmp_path / "home").stdout
    room = f"8 MB are free at {tmp_path}, and the course needs {ROOM // 10**6} MB. Make room there, or set"
    assert said.startswith(f"the disk is full: {room}"), said
    shutil.rmtree(home.path)
    said = mounted('mount --bind "$1" "$1" && mount -o remount,bind,ro "$1"', BEGIN, home.home).stdout
    assert said.startswith(
        f"{home.home} is read-only, and workspace/ is to be written there. Set WORKSHOP_HOME"
    ), said
    clone = shlex.quote(str(REPOSITORY))
    read_only = f"mount --bind {clone} {clone} && mount -o remount,bind,ro {clone}"
    assert mounted(read_only, BEGIN, tmp_path / "elsewhere").stdout.startswith("Notebook 01 is ready.")


@linux
@pytest.mark.system
def test_a_disk_that_fills_during_a_run_is_told_once_and_what_was_complete_stays(tmp_path):
    code = runs(tmp_path, **{"00_fits": ["1"], "01_fills": [BALLAST, "'x' * 100_000"]})
    (tmp_path / "disk").mkdir()
    mount = f'mount -t tmpfs -o size={ROOM // 10**6 + 10}m tmpfs "$1"'
    kept = str(tmp_path / "disk" / "home" / "workspace" / "run" / "workspace" / "executed")
    code += f"print([path.name for path in Path({kept!r}).glob('*.ipynb')]); raise SystemExit(code)"
    done = mounted(mount, code, tmp_path / "disk" / "home")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert done.stderr.count("the disk is full: 0 MB are free at ") == 1, done.stderr
    assert "01_fills failed: the disk is full" in done.stderr and done.stdout.endswith("['00_fits.ipynb']\n")

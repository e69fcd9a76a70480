import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import duckdb
import ibis
import mlflow
import nbformat
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import HARD_TO_QUOTE, apply, save_reference
from sklearn.dummy import DummyClassifier

from helpers import course, data, registry
from helpers.start import MODEL, begin, check_environment, missing
from helpers.workspace import (
    REPOSITORY,
    ROOM,
    WorkshopError,
    Workspace,
    alone,
    configure,
    create_home,
    locate,
    quiet,
)


def test_without_a_setting_the_workspace_is_the_repositorys():
    assert locate().home == REPOSITORY
    assert locate().path == REPOSITORY / "workspace"


def test_workshop_home_moves_data_definitions_and_state_together(home, monkeypatch):
    monkeypatch.setenv("WORKSHOP_HOME", str(home.home))
    found = locate()
    assert (found.data, found.feature_repo) == (home.home / "data", home.home / "feature_repo")
    assert found.path == home.home / "workspace"


def test_a_folder_that_is_no_home_is_refused_with_the_remedy_and_left_alone(tmp_path, monkeypatch):
    (tmp_path / "letters").mkdir()
    monkeypatch.setenv("WORKSHOP_HOME", str(tmp_path))
    with pytest.raises(
        WorkshopError,
        match=r"no feature_repo/feature_store\.yaml in .*set WORKSHOP_HOME to the clone or to an empty folder",
    ):
        locate()
    assert [path.name for path in tmp_path.rglob("*")] == ["letters"]


@pytest.mark.parametrize("there", [True, False])
def test_an_empty_or_new_folder_becomes_a_home(tmp_path, monkeypatch, there):
    folder = tmp_path / "elsewhere" / HARD_TO_QUOTE
    if there:
        folder.mkdir(parents=True)
    monkeypatch.setenv("WORKSHOP_HOME", str(folder))
    assert locate() == Workspace(folder)
    assert sorted(path.name for path in folder.iterdir()) == ["data", "feature_repo", "workspace"]
    assert [path.name for path in folder.parent.iterdir()] == [HARD_TO_QUOTE], "nothing is left beside it"


def test_a_path_that_mlflow_cannot_write_is_refused_before_anything_is_made(tmp_path, monkeypatch):
    monkeypatch.setenv("WORKSHOP_HOME", str(tmp_path / 'd\'été "q"'))
    with pytest.raises(WorkshopError, match="both kinds of quotes in its name, which MLflow cannot write"):
        locate()
    assert list(tmp_path.iterdir()) == []


def test_another_seed_gets_a_home_of_its_own_with_its_own_data(home, monkeypatch):
    monkeypatch.setenv("WORKSHOP_HOME", str(home.home))
    other = locate(seed=7)
    assert other.home == home.path / "seed-7"
    assert data.seed_of(other.data) == 7
    made = pq.read_table(other.data / "driver_labels.parquet").to_pandas()
    pd.testing.assert_frame_equal(made, data.generate(7).labels, check_dtype=False)
    assert data.seed_of(home.data) == data.SEED
    assert locate(seed=7) == other


def test_a_seed_below_zero_is_refused_and_leaves_nothing(home, monkeypatch):
    monkeypatch.setenv("WORKSHOP_HOME", str(home.home))
    with pytest.raises(data.DataError, match="seed=-1: a seed is an integer of 0 or more"):
        locate(seed=-1)
    assert list(home.path.iterdir()) == []


def test_mlflow_keeps_its_state_in_the_workspace_whatever_folder_it_is_called_from(
    home, tmp_path, monkeypatch
):
    configure(home)
    assert os.environ["MLFLOW_TRACKING_URI"] == home.tracking_uri == f"sqlite:///{home.path}/mlflow.db"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    client = mlflow.MlflowClient(home.tracking_uri)
    run = client.create_run(
        client.create_experiment("trial", artifact_location=(home.path / "mlruns").as_uri())
    )
    client.log_text(run.info.run_id, "hello", "note.txt")
    assert (home.path / "mlflow.db").exists()
    assert len(list((home.path / "mlruns").rglob("note.txt"))) == 1
    assert list(elsewhere.iterdir()) == []


def test_duckdb_draws_no_progress_bar_into_a_slow_machines_outputs():
    connections = (duckdb.default_connection(), ibis.get_backend().con)
    for connection in connections:
        connection.execute("SET enable_progress_bar = true")  # as DuckDB does in a notebook
    quiet()
    setting = "SELECT current_setting('enable_progress_bar')"
    assert [connection.execute(setting).fetchone() for connection in connections] == [(False,), (False,)]


def test_a_moved_clone_is_told_that_its_registry_is_stale(tmp_path):
    first = create_home(tmp_path / "before")
    configure(first)
    apply(first)
    registry.check(first)
    os.chdir(tmp_path)
    first.home.rename(tmp_path / "after")
    moved = type(first)(tmp_path / "after")
    configure(moved)
    with pytest.raises(
        WorkshopError,
        match=r"registry is stale.*driver_hourly_stats: update.*Run notebook 01, or `feast apply`",
    ):
        registry.check(moved)
    apply(moved)
    registry.check(moved)


def test_a_changed_definition_is_named_when_it_has_not_been_applied(home):
    configure(home)
    apply(home)
    registry.check(home)
    views = home.feature_repo / "feature_views.py"
    views.write_text(views.read_text().replace("ttl=timedelta(days=7)", "ttl=timedelta(days=9)"))
    with pytest.raises(WorkshopError, match=r"stale.*\(driver_hourly_stats: update ttl\)"):
        registry.check(home)


def gone(path):
    path.unlink()


def truncated(path):
    path.write_bytes(path.read_bytes()[:-100])


def empty(path):
    path.write_bytes(b"")


def of_another_type(path):
    table = pq.read_table(path)
    place = table.schema.get_field_index("driver_id")
    pq.write_table(table.set_column(place, "driver_id", table["driver_id"].cast(pa.string())), path)


def without_a_column(path):
    pq.write_table(pq.read_table(path).drop_columns(["event_timestamp"]), path)


@pytest.mark.parametrize("name", data.FILES)
@pytest.mark.parametrize(
    "damage, words",
    [
        (gone, "is missing from the data/ folder"),
        (truncated, "is damaged or cut short"),
        (empty, "is damaged or cut short"),
        (of_another_type, "column 'driver_id' has type string, and must be int64"),
        (without_a_column, "has no column 'event_timestamp'"),
    ],
)
def test_a_damaged_data_file_is_named_with_the_remedy_where_a_notebook_begins(
    home, monkeypatch, name, damage, words
):
    monkeypatch.setenv("WORKSHOP_HOME", str(home.home))
    damage(home.data / name)
    with pytest.raises(data.DataError, match=words) as raised:
        begin("00")
    assert str(raised.value).startswith(name)
    assert f"`git checkout -- data/{name}`" in str(raised.value)
    assert "`python -m helpers.data --out data`" in str(raised.value)
    assert list(home.path.iterdir()) == []


def rewritten(folder, name, change):
    path = folder / name
    table = pq.read_table(path).to_pandas()
    pq.write_table(pa.Table.from_pandas(change(table), schema=data.SCHEMAS[name], preserve_index=False), path)


STATS, PROFILE, LABELS = data.FILES
KEY = ["driver_id", "event_timestamp"]


@pytest.mark.parametrize(
    "name, change, words",
    [
        (
            STATS,
            lambda t: t[t.event_timestamp >= "2025-02-01"],
            "hourly rows from 2025-02-01 to 2025-02-28, not from",
        ),
        (
            STATS,
            lambda t: t.assign(event_timestamp=t.event_timestamp + pd.Timedelta(days=30)),
            "to 2025-03-30, not",
        ),
        (STATS, lambda t: t.drop_duplicates(KEY), "0.0% of the hours written twice, not about 1%"),
        (
            STATS,
            lambda t: t[~t.driver_id.isin([1025, 1050])],
            "4 of 148 drivers silent for 7 days, not one in 25",
        ),
        (PROFILE, lambda t: t[t.driver_id != 1017], "2 of 150 profiles ended 30 days ago, not one in 50"),
        (LABELS, lambda t: t.drop_duplicates(KEY), "no label key that comes twice"),
        (LABELS, lambda t: t[t.driver_id != 999], "no labels of a driver 999 without features"),
    ],
)
def test_other_data_of_the_same_shape_is_refused_where_a_notebook_begins(
    home, monkeypatch, name, change, words
):
    monkeypatch.setenv("WORKSHOP_HOME", str(home.home))
    rewritten(home.data, name, change)
    with pytest.raises(data.DataError) as raised:
        begin("00")
    said = str(raised.value)
    assert words in said and said.startswith("data/ holds other data than the course can be run on:")
    assert "`git checkout -- data`" in said and "start a project with `lifecycle/`" in said
    assert list(home.path.iterdir()) == []


@pytest.mark.parametrize("seed", [0, 3, 11])
def test_the_generators_data_is_accepted_whatever_its_seed(tmp_path, seed):
    data.write(tmp_path, seed=seed)
    data.check_files(tmp_path)


def test_begin_reports_what_it_found_and_works_in_the_workspace(home, monkeypatch, capsys):
    monkeypatch.setenv("WORKSHOP_HOME", str(home.home))
    assert begin("01") == home
    assert Path.cwd() == home.path
    assert capsys.readouterr().out == (
        "Notebook 01 is ready. Data seed 2025, clock 2025-03-01. Needs: nothing from earlier notebooks.\n"
    )


def test_a_notebook_that_does_not_exist_is_refused():
    with pytest.raises(WorkshopError, match="there is no notebook '99'; there are 00, 01"):
        begin("99")


@pytest.mark.parametrize("seed", ["2025", 7.5, None])
def test_a_seed_that_is_no_whole_number_is_refused_with_a_sentence(seed):
    with pytest.raises(WorkshopError, match=rf"seed = {seed!r}: a seed is a whole number of 0 or more\."):
        begin("00", seed=seed)


def test_the_environment_check_names_a_package_of_another_version(tmp_path):
    shutil.copytree(REPOSITORY / "helpers", tmp_path / "helpers")
    old = tmp_path / "optuna-4.0.0.dist-info"
    old.mkdir()
    (old / "METADATA").write_text("Metadata-Version: 2.1\nName: optuna\nVersion: 4.0.0\n")
    program = "from helpers.start import check_environment; check_environment()"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert (
        "optuna 4.0.0 is installed, <6,>=5 is needed. In the clone: `rm .venv/current`, then `make lab`"
        in done.stderr
    )


def test_this_environment_passes_the_check():
    assert {"feast", "mlflow", "kfp", "kserve", "optuna"} <= check_environment().keys()


def test_helpers_are_importable_from_any_folder(tmp_path):
    program = "from helpers.data import NOW; print(NOW)"
    done = subprocess.run([sys.executable, "-P", "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout == "2025-03-01 00:00:00+00:00\n", done.stderr


def register(workspace, made_by):
    """A small model in the registry, tagged as the notebook tags it that makes such a version; gives its logged model."""
    configure(workspace)
    mlflow.set_experiment("made before")
    model = DummyClassifier().fit([[0.0], [1.0]], [0, 1])
    logged = mlflow.sklearn.log_model(model, name="model", serialization_format="skops", pip_requirements=[])
    mlflow.register_model(logged.model_uri, MODEL, tags={"made_by": made_by})
    return logged


def test_in_an_empty_workspace_only_the_makers_are_missing(home):
    assert list(missing(home, "07")) == ["01", "03", "04", "05", "06"]
    assert missing(home, "04") == {"01": "feature registry"}


def test_what_two_stores_hold_together_is_missing_when_one_of_them_is_lost(home):
    configure(home)
    save_reference(apply(home), home)
    made = {made_by: register(home, made_by) for made_by in ("selection", "sweep", "pipeline")}
    assert missing(home, "08") == {"07": "model in production"}, "no alias names a version"
    mlflow.MlflowClient().set_registered_model_alias(MODEL, "production", "3")
    assert [missing(home, number) for number in course.notebooks()] == [{}] * 13

    (home.path / "reference.parquet").rename(home.path / "away")
    assert missing(home, "07") == {"03": "expectation suite"}, (
        "the registry knows the dataset, and its file is gone"
    )
    (home.path / "away").rename(home.path / "reference.parquet")

    folder = Path(mlflow.artifacts.download_artifacts(made["pipeline"].model_uri))
    folder.rename(home.path / "away")
    assert missing(home, "07") == {"06": "pipeline's model"}, (
        "the version is registered, and its files are gone"
    )
    assert missing(home, "06") == {}
    (home.path / "away").rename(folder)

    (home.path / "registry.db").rename(home.path / "away")
    assert list(missing(home, "07")) == ["01", "03"], "the models are still there"
    (home.path / "away").rename(home.path / "registry.db")

    (home.path / "online_store.db").write_bytes(b"")
    assert "01" in missing(home, "07"), "the registry is there, and no store has tables for its views"
    apply(home)
    assert missing(home, "07") == {}

    (home.path / "mlflow.db").unlink()
    assert list(missing(home, "05")) == ["04"]
    assert list(missing(home, "07")) == ["04", "05", "06"]


def in_processes(code, homes, **options):
    """Start Python on ``code`` once for each home, as a notebook would; what each says goes to a file."""
    started = []
    for number, home in enumerate(homes):
        log = home.parent / f"said {number}"
        environment = {**os.environ, "WORKSHOP_HOME": str(home)}
        with log.open("w") as output:
            command = [sys.executable, "-c", code]
            process = subprocess.Popen(
                command, env=environment, stdout=output, stderr=subprocess.STDOUT, **options
            )
        started.append((process, log))
    return started


def test_of_notebooks_started_at_once_from_nothing_one_catches_up_and_the_others_wait_also_after_a_kill(
    tmp_path,
):
    waits = "Another notebook is catching up in this workspace; this one waits for it."
    makes = "1 of 1: 01_define_features, about 12 s ..."
    started = in_processes("from helpers.start import begin; begin('02')", [tmp_path / HARD_TO_QUOTE] * 3)
    makers: list = []
    while not makers:
        assert all(process.poll() is None for process, _ in started), [
            said.read_text() for _, said in started
        ]
        makers = [process for process, said in started if makes in said.read_text()]
        time.sleep(0.05)
    (killed,) = makers
    killed.kill()  # before its notebook has applied anything: a kernel takes seconds to start
    others = [(process, said) for process, said in started if process is not killed]
    ended = [process.wait(400) for process, _ in others]
    texts = sorted((said.read_text() for _, said in others), key=lambda text: makes in text)
    assert ended == [0, 0], texts
    assert [makes in text for text in texts] == [False, True], texts
    assert waits in texts[0], texts
    ready = "Notebook 02 is ready. Data seed 2025, clock 2025-03-01. Needs: feature registry.\n"
    assert all(text.endswith(ready) for text in texts), texts


def test_a_second_run_waits_for_the_first_and_both_end_whole(tmp_path, monkeypatch):
    (tmp_path / "notebooks").mkdir()
    cells = [nbformat.v4.new_code_cell("import time; time.sleep(2)")]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "notebooks" / "00_wait.ipynb")
    code = f"from pathlib import Path; from workshop import runner; runner.NOTEBOOKS = Path({str(tmp_path / 'notebooks')!r}); raise SystemExit(runner.main([]))"
    home = tmp_path / HARD_TO_QUOTE
    both = in_processes(code, [home, home])
    assert [process.wait(120) for process, _ in both] == [0, 0], [said.read_text() for _, said in both]
    waited = [
        f"Another `make run` is at work in {home}; this one waits until it has ended." in said.read_text()
        for _, said in both
    ]
    assert sorted(waited) == [False, True]


def test_a_lock_is_free_again_when_its_block_ends(tmp_path, capsys):
    for _ in range(2):
        with alone(tmp_path / "lock", "taken"):
            pass
    assert capsys.readouterr().out == ""


def rights_to_mount() -> list[str]:
    """The words before a command that let it mount a file system for itself alone. Some systems grant that to root only."""
    for words in (["unshare", "-rm"], ["sudo", "-nE", "unshare", "-m"]):
        try:
            if (
                subprocess.run(
                    [*words, "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True
                ).returncode
                == 0
            ):
                return words
        except FileNotFoundError:
            continue
    pytest.skip("neither `unshare -rm` nor sudo may mount here")


def mounted(mount, code, home) -> subprocess.CompletedProcess:
    """Python on ``code`` after ``mount``, a line of shell in which $1 is the folder of the test."""
    shell = ["sh", "-c", f'{mount} && shift && exec "$@"', "sh", str(home.parent)]
    environment = {**os.environ, "WORKSHOP_HOME": str(home)}
    command = [*rights_to_mount(), *shell, sys.executable, "-c", code]
    return subprocess.run(command, env=environment, cwd="/", capture_output=True, text=True, timeout=300)


BEGIN = """
from helpers.start import begin
from helpers.workspace import WorkshopError
try: begin('01')
except WorkshopError as error: print(error)
"""


# A disk of its own or a read-only one is made with what Linux has; what happens after is the same on every system.
if sys.platform == "linux":

    def test_a_disk_without_room_is_refused_with_how_much_where_and_what_to_do(tmp_path):
        done = mounted('mount -t tmpfs -o size=8m tmpfs "$1"', BEGIN, tmp_path / "home")
        assert done.stdout == (
            f"the disk is full: 8 MB are free at {tmp_path}, and the course needs {ROOM // 10**6} MB. "
            "Make room there, or set WORKSHOP_HOME to a folder on another disk; what is complete stays as it is.\n"
        ), done.stderr

    def test_a_disk_that_fills_during_a_run_is_told_once_and_what_was_complete_stays(tmp_path):
        sources = {
            "00_fits": ["1"],
            "01_fills": [
                "file = open('ballast', 'wb', buffering=0)",
                "try:\n    while True: file.write(bytes(1 << 12))\nexcept OSError: pass",
                "'x' * 100_000",
            ],
        }
        for name, cells in sources.items():
            cells = [nbformat.v4.new_code_cell(source) for source in cells]
            nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / f"{name}.ipynb")
        code = f"""
import nbformat, sys
from pathlib import Path
from workshop import runner
runner.NOTEBOOKS = Path({str(tmp_path)!r})
code = runner.main([])
executed = Path({str(tmp_path)!r}) / "disk/home/workspace/run/workspace/executed"
print([path.name for path in executed.glob("*.ipynb") if nbformat.read(path, as_version=4)])
sys.exit(code)
"""
        (tmp_path / "disk").mkdir()
        size = ROOM // 10**6 + 10
        done = mounted(f'mount -t tmpfs -o size={size}m tmpfs "$1"', code, tmp_path / "disk" / "home")
        assert done.returncode == 1
        assert "Traceback" not in done.stderr and "NotJSONError" not in done.stdout + done.stderr
        assert done.stderr.count("the disk is full: 0 MB are free at ") == 1, done.stderr
        assert "01_fills failed: the disk is full" in done.stderr
        assert done.stdout.endswith("['00_fits.ipynb']\n"), done.stdout

    def test_a_read_only_home_names_the_way_out(home):
        shutil.rmtree(home.path)
        mount = 'mount --bind "$1" "$1" && mount -o remount,bind,ro "$1"'
        done = mounted(mount, BEGIN, home.home)
        assert done.stdout == (
            f"{home.home} is read-only, and workspace/ is to be written there. Set WORKSHOP_HOME to a folder that you can write, new or empty: "
            "`WORKSHOP_HOME=~/my-workshop make lab`.\n"
        ), done.stderr

    def test_from_a_read_only_clone_a_notebook_works_in_a_home_elsewhere(tmp_path):
        clone = shlex.quote(str(REPOSITORY))
        mount = f"mount --bind {clone} {clone} && mount -o remount,bind,ro {clone}"
        done = mounted(mount, BEGIN, tmp_path / "home")
        assert done.stdout.startswith("Notebook 01 is ready."), done.stderr


def limited(size):
    """No file may grow beyond this many bytes, as under a quota: a refusal that comes with free disk."""
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def test_a_home_that_the_system_does_not_let_grow_is_told_in_a_sentence_and_leaves_nothing(tmp_path):
    (tmp_path / "here").mkdir()
    home = tmp_path / "here" / "home"
    ((process, said),) = in_processes(BEGIN, [home], preexec_fn=lambda: limited(500_000))
    assert process.wait(120) == 0
    assert said.read_text() == (
        f"{home} could not be written: File too large. Mend that, or set WORKSHOP_HOME to another folder; what is complete stays as it is.\n"
    )
    assert [path.name for path in home.parent.iterdir()] == ["said 0"]


def test_a_copy_that_was_written_in_part_is_told_in_a_sentence_and_not_kept(home, tmp_path):
    cells = [nbformat.v4.new_code_cell(f"print({letter!r} * 300_000)") for letter in "ab"]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "00_long.ipynb")
    code = f"""
from pathlib import Path
from workshop import runner
runner.NOTEBOOKS = Path({str(tmp_path)!r})
raise SystemExit(runner.main(["--home", {str(home.home)!r}]))
"""
    ((process, said),) = in_processes(code, [home.home], preexec_fn=lambda: limited(500_000))
    assert process.wait(120) == 1
    told = said.read_text()
    assert f"00_long failed: {home.path} could not be written: File too large." in told
    assert "Traceback" not in told and "executed copy" not in told, told
    assert not (home.path / "executed" / "00_long.ipynb").exists()

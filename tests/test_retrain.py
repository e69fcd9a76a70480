"""`python -m lifecycle.retrain` on the six later weeks, with the real pipeline, feature store and model registry.

Whatever is wrong, it says so in a sentence, and the alias names whom it named.
"""

import contextlib
import subprocess
import sys
import threading
import time
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import psutil
import pytest
from conftest import HARD_TO_QUOTE, apply, save_reference
from feast import FeatureStore
from served import register, training
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from test_versions import eventually

from helpers.start import MODEL, REFERENCE
from helpers.weeks import six_weeks_later
from helpers.workspace import REPOSITORY, Workspace, configure, create_home
from lifecycle.model import hyperparameters, new_model
from lifecycle.retrain import NotRetrained, _kept, main, promote, usable_labels
from lifecycle.serving import FeatureModel
from lifecycle.versions import behind_alias, read
from workshop import commands

BEGIN, END = "2025-03-22", "2025-04-04T23:00"
"""The first two weeks after the relation has changed."""


@pytest.fixture(scope="module")
def later(tmp_path_factory) -> Workspace:
    """The company six weeks on: a champion of the history in production, and a second version."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(Path.cwd())
        for name in ("MLFLOW_TRACKING_URI", "TZ"):
            patch.setenv(name, "")
        workspace = create_home(tmp_path_factory.mktemp("retraining") / HARD_TO_QUOTE)
        configure(workspace)
        store = apply(workspace)
        save_reference(store, workspace)
        experiment = mlflow.MlflowClient().create_experiment(
            "by hand", (workspace.path / "artifacts").as_uri()
        )
        for _ in range(2):
            register(store, experiment, "rates_and_rating")
        mlflow.MlflowClient().set_registered_model_alias(MODEL, "production", "1")
        return six_weeks_later(workspace)


@pytest.fixture
def client(later):
    """MLflow's registry, with version 1 in production before and after the test."""
    configure(later)
    client = mlflow.MlflowClient()
    yield client
    client.set_registered_model_alias(MODEL, "production", "1")


@pytest.fixture(scope="module")
def labels(later) -> pd.DataFrame:
    return pd.read_parquet(later.data / "driver_labels.parquet")


def command(later: Workspace, **changes: object) -> list[str]:
    """The arguments of the door; ``None`` leaves one out."""
    given = {
        "pipeline": REPOSITORY / "cluster" / commands.PIPELINE,
        "feature_repo": later.feature_repo,
        "labels": later.data / "driver_labels.parquet",
        "model": MODEL,
        "alias": "production",
        "outputs": later.path / "retraining",
        "reference": REFERENCE,
        "begin": BEGIN,
        "end": END,
    } | changes
    parts = [
        [f"--{name.replace('_', '-')}", str(value)] for name, value in given.items() if value is not None
    ]
    return [part for pair in parts for part in pair]


def numbers(client) -> set[int]:
    return {int(version.version) for version in client.search_model_versions(f"name = '{MODEL}'")}


def in_production(client) -> str:
    return str(client.get_model_version_by_alias(MODEL, "production").version)


def refused(capsys, client, arguments: list[str]) -> str:
    """What the door says when nothing comes of it: a single line, the exit code for it, and nothing changed."""
    before = numbers(client), in_production(client)
    capsys.readouterr()
    assert main(arguments) == 2
    said, log = capsys.readouterr()
    assert said.count("\n") == 1 and said.startswith("nothing was promoted: ") and said.endswith(".\n")
    assert "Traceback" not in log and "Warning" not in log
    assert (numbers(client), in_production(client)) == before
    return said


def twice(rows: pd.DataFrame, share: float) -> pd.DataFrame:
    """The rows, and for a share of those in the window the other answer too."""
    inside = rows[rows.event_timestamp.between(pd.Timestamp(BEGIN, tz="UTC"), pd.Timestamp(END, tz="UTC"))]
    other = inside.sample(frac=share, random_state=0)
    return pd.concat([rows, other.assign(label=1 - other.label)], ignore_index=True)


def without_zone(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.assign(event_timestamp=rows.event_timestamp.dt.tz_localize(None))


BAD_LABELS = {
    "a column is missing": (
        lambda rows: rows.drop(columns="label"),
        {},
        "the label table has no column label; it has driver_id, event_timestamp.",
    ),
    "so is the time, and no window is given": (
        lambda rows: rows.drop(columns="event_timestamp"),
        {"begin": None, "end": None},
        "the label table has no column event_timestamp; it has driver_id, label.",
    ),
    "no time zone": (without_zone, {}, "the times of the labels have no time zone: write them in UTC."),
    "no time zone, and no window is given": (without_zone, {"begin": None, "end": None}, "have no time zone"),
    "times are text": (
        lambda rows: rows.assign(event_timestamp=rows.event_timestamp.astype(str)),
        {},
        "no time zone",
    ),
    "no row": (lambda rows: rows.head(0), {"begin": None, "end": None}, "the label table has no label."),
    "none in the window": (
        lambda rows: rows,
        {"begin": "2025-06-01", "end": "2025-06-14"},
        "no labels between 2025-06-01 and 2025-06-14; the newest is of 2025-04-11 06:00.",
    ),
    "the window ends before it begins": (
        lambda rows: rows,
        {"begin": END, "end": BEGIN},
        "no labels between 2025-04-04",
    ),
    "none for the newest days": (
        lambda rows: rows[rows.event_timestamp < pd.Timestamp("2025-04-01", tz="UTC")],
        {},
        "no labels for the newest days: the window ends on 2025-04-04, the last label is of 2025-03-31 06:00. Wait for them, or end the window earlier.",
    ),
    "a seven": (lambda rows: rows.replace({"label": {1: 7}}), {}, "labels must be 0 or 1; there is 7."),
    "text": (
        lambda rows: rows.assign(label=rows.label.astype(str)),
        {},
        "labels must be 0 or 1; there is '0', '1'.",
    ),
    "a hole": (
        lambda rows: rows.assign(label=rows.label.astype(float).where(rows.index % 9 > 0)),
        {},
        "labels must be 0 or 1; there is nan.",
    ),
    "many say both": (
        lambda rows: twice(rows, 0.06),
        {},
        "questions have both answers, 0 and 1. Find out which is right before a model learns from them.",
    ),
    "too few days": (
        lambda rows: rows,
        {"begin": "2025-04-04"},
        "labels from 2025-04-04 to 2025-04-04 are too few: they leave no held-out days to compare on. Wait for more.",
    ),
    "one outcome alone": (
        lambda rows: rows.assign(label=1),
        {},
        "wait for more labels, those of the held-out days are too few to compare on: 148 of the entities have a label 1 and 0 a label 0, and a comparison needs 20 of each.",
    ),
    "too few drivers": (lambda rows: rows[rows.driver_id < 1015], {}, "are too few to compare on"),
    "keys are lists": (
        lambda rows: rows.assign(driver_id=[[1]] * len(rows)),
        {},
        "cannot be read as a label table",
    ),
}


@pytest.mark.parametrize("case", BAD_LABELS)
def test_labels_that_no_model_should_learn_from_are_refused_with_the_reason(
    case, later, client, labels, capsys, tmp_path
):
    spoil, changes, words = BAD_LABELS[case]
    spoil(labels).to_parquet(tmp_path / "labels.parquet")
    said = refused(capsys, client, command(later, labels=tmp_path / "labels.parquet", **changes))
    assert words in said
    assert list((later.path / "retraining").glob("*.log")) == [], "no pipeline was started"


def test_the_few_questions_with_both_answers_are_left_out_and_what_is_said_twice_counts_once(
    later, client, labels
):
    _, contract = read(MODEL, behind_alias(client, MODEL, "production"))
    window = [pd.Timestamp(moment, tz="UTC") for moment in (BEGIN, END)]
    rows = twice(labels, 0.04)
    kept, left_out = usable_labels(pd.concat([rows, labels]).assign(note="dropped"), contract, *window)
    key = ["driver_id", "event_timestamp"]
    doubtful = rows.tail(len(rows) - len(labels))
    assert left_out == len(doubtful) > 40
    expected = labels[labels.event_timestamp.between(*window)]
    expected = expected[~expected.set_index(key).index.isin(doubtful.set_index(key).index)]
    pd.testing.assert_frame_equal(kept, expected.sort_values(key[::-1], ignore_index=True))
    assert kept.event_timestamp.is_monotonic_increasing


def test_without_a_window_the_newest_two_weeks_are_taken(later, client, labels):
    _, contract = read(MODEL, behind_alias(client, MODEL, "production"))
    kept, _ = usable_labels(labels.assign(label=labels.label == 1), contract)
    assert kept.event_timestamp.max() == labels.event_timestamp.max()
    assert kept.event_timestamp.min() == labels.event_timestamp.max() - pd.Timedelta(days=14)
    assert kept.label.dtype == "int64", "true and false are 1 and 0"


def damaged(folder: Path) -> Path:
    (folder / "cut short.parquet").write_bytes(b"PAR1")
    return folder / "cut short.parquet"


def written(folder: Path, text: str) -> Path:
    (folder / "pipeline.yaml").write_text(text)
    return folder / "pipeline.yaml"


BAD_FILES = {
    "no labels": (
        lambda folder: {"labels": folder / "none.parquet"},
        "none.parquet cannot be read as a label table",
    ),
    "damaged labels": (
        lambda folder: {"labels": damaged(folder)},
        "cut short.parquet cannot be read as a label table",
    ),
    "no pipeline": (lambda folder: {"pipeline": folder / "none.yaml"}, "none.yaml is no compiled pipeline"),
    "another YAML": (
        lambda folder: {"pipeline": written(folder, "a: 1")},
        "pipeline.yaml is no compiled pipeline",
    ),
    "an empty YAML": (
        lambda folder: {"pipeline": written(folder, "")},
        "pipeline.yaml is no compiled pipeline",
    ),
    "a parquet file": (
        lambda folder: {"pipeline": damaged(folder)},
        "cut short.parquet is no compiled pipeline",
    ),
    "a file as folder": (lambda folder: {"outputs": damaged(folder)}, "cut short.parquet/ cannot be written"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_file_that_cannot_be_used_is_named(case, later, client, capsys, tmp_path):
    changes, words = BAD_FILES[case]
    assert words in refused(capsys, client, command(later, **changes(tmp_path)))


def test_a_pipeline_of_before_the_comparison_is_refused(later, client, capsys, tmp_path):
    from kfp import compiler, dsl

    @dsl.component(base_image="python", install_kfp_package=False)
    def train(labels: str) -> None: ...

    @dsl.pipeline(name="older")
    def older(labels: str) -> None:
        train(labels=labels)

    compiler.Compiler().compile(older, str(tmp_path / "older.yaml"))
    said = refused(capsys, client, command(later, pipeline=tmp_path / "older.yaml"))
    assert "older.yaml takes other arguments than this version of lifecycle gives" in said


@pytest.mark.parametrize("end", ["yesterday or so", "NaT", ""])
def test_a_time_that_is_none_is_refused(later, capsys, end):
    with pytest.raises(SystemExit) as ended:
        main(command(later, end=end))
    assert ended.value.code == 2
    assert f"argument --end: {end!r} is no time; write it as 2030-03-22" in capsys.readouterr().err


# --- the champion


def copied(client, alias: str, source: str = "") -> str:
    """One more version, of version 1's model or of another place, behind an alias."""
    one = client.get_model_version(MODEL, "1")
    number = str(client.create_model_version(MODEL, source or one.source).version)
    client.set_registered_model_alias(MODEL, alias, number)
    return number


@pytest.mark.parametrize("changes", [{"alias": "nobody"}, {"model": "no such model"}])
def test_without_a_champion_nothing_is_trained(changes, later, client, capsys):
    said = refused(capsys, client, command(later, **changes))
    name = " of ".join(
        {"alias": "production", "model": MODEL, **changes}[part] for part in ("alias", "model")
    )
    assert f"the champion, {name}, was not found" in said


def test_an_alias_of_a_version_that_was_deleted_names_no_champion(later, client, capsys):
    client.delete_model_version(MODEL, copied(client, "deleted"))
    assert "the champion, deleted of" in refused(capsys, client, command(later, alias="deleted"))


def test_a_champion_whose_files_are_lost_cannot_be_trained_again(later, client, capsys, tmp_path):
    number = copied(client, "lost", (tmp_path / "nowhere").as_uri())
    said = refused(capsys, client, command(later, alias="lost"))
    assert f"version {number}, which lost names, cannot be trained again: " in said


def test_a_champion_of_another_kind_cannot_be_trained_again(later, client, capsys, tmp_path):
    frame, contract = training(FeatureStore(repo_path=str(later.feature_repo)), "rates")
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(frame[contract.columns], frame.label)
    example = frame[contract.columns].head()
    stored = {"serialization_format": "skops", "pip_requirements": ["scikit-learn"], "input_example": example}
    experiment = client.create_experiment("another kind", tmp_path.as_uri())
    with mlflow.start_run(experiment_id=experiment):
        logged = mlflow.sklearn.log_model(
            model, name="model", metadata={"feast": contract.to_dict()}, **stored
        )
    number = mlflow.register_model(logged.model_uri, MODEL).version
    client.set_registered_model_alias(MODEL, "other", number)
    said = refused(capsys, client, command(later, alias="other"))
    assert (
        f"version {number}, which other names, cannot be trained again: the model is not of the kind" in said
    )


@pytest.mark.parametrize("C, degree, weights", [(0.003, 3, "equal"), (10.0, 1, "balanced")])
def test_the_challengers_settings_are_the_champions(C, degree, weights):
    assert hyperparameters(new_model(C, degree, weights)) == {"C": C, "degree": degree, "weights": weights}


def test_weights_that_no_argument_can_ask_for_are_not_passed_over():
    model = new_model()
    model["logisticregression"].class_weight = {0: 1, 1: 5}
    with pytest.raises(ValueError, match="not of the kind"):
        hyperparameters(model)


def test_promotion_moves_the_alias_of_the_champion_that_was_compared(client):
    champion = behind_alias(client, MODEL, "production")
    promote(client, MODEL, "production", champion, "2")
    assert in_production(client) == "2"


def test_a_closed_gate_says_that_the_champion_serves_only_while_it_does(client):
    champion = behind_alias(client, MODEL, "production")
    assert _kept(client, MODEL, "production", champion) == "version 1 keeps serving"
    client.set_registered_model_alias(MODEL, "production", "2")
    assert (
        _kept(client, MODEL, "production", champion)
        == "production no longer names version 1, and was not moved"
    )
    client.delete_registered_model_alias(MODEL, "production")
    assert _kept(client, MODEL, "production", champion).startswith("production no longer names version 1")


def test_promotion_leaves_an_alias_alone_that_was_moved_or_taken_away_or_names_a_model_made_anew(
    client, tmp_path
):
    champion = behind_alias(client, MODEL, "production")
    client.set_registered_model_alias(MODEL, "production", "2")
    with pytest.raises(
        NotRetrained, match="production was moved from version 1 to 2 while version 5 was trained"
    ):
        promote(client, MODEL, "production", champion, "5")
    assert in_production(client) == "2"
    client.delete_registered_model_alias(MODEL, "production")
    with pytest.raises(NotRetrained, match="production was taken from version 1 while version 5 was trained"):
        promote(client, MODEL, "production", champion, "5")
    assert "production" not in client.get_registered_model(MODEL).aliases
    for place in ("first", "second"):
        client.create_registered_model("anew")
        client.create_model_version("anew", (tmp_path / place).as_uri())
        client.set_registered_model_alias("anew", "production", "1")
        if place == "first":
            before = behind_alias(client, "anew", "production")
            client.delete_registered_model("anew")
    client.create_model_version("anew", (tmp_path / "third").as_uri())
    with pytest.raises(NotRetrained):
        promote(client, "anew", "production", before, "2")
    assert client.get_registered_model("anew").aliases["production"] == 1


# --- with the pipeline, which takes most of a minute each time


@pytest.fixture
def server(later, client):
    """What the model server scores with, in this process, at the end of the window; it looks twenty times a second."""
    end = pd.Timestamp(END, tz="UTC")
    FeatureStore(repo_path=str(later.feature_repo)).materialize(end - pd.Timedelta(days=2), end)
    made = FeatureModel(MODEL, later.feature_repo, "production", now=end.timestamp(), watch=0.05)
    yield made
    made.stop()


def test_a_model_of_the_new_weeks_takes_the_place_the_server_follows_and_the_old_one_can_be_called_back(
    later, client, server, labels, tmp_path
):
    drivers = [{"driver_id": number} for number in (1001, 1002, 1003)]
    before, served = server.score(drivers)
    assert served == "1"

    few = twice(labels, 0.01)
    few.to_parquet(tmp_path / "labels.parquet")
    program = [sys.executable, "-m", "lifecycle.retrain", *command(later, labels=tmp_path / "labels.parquet")]
    done = subprocess.run(program, capture_output=True, text=True, timeout=400, cwd=tmp_path)
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stdout + done.stderr
    new = in_production(client)
    assert int(new) == max(numbers(client)) > 2
    contradictory = len(few) - len(labels)
    assert done.stdout.startswith(f"version {new} took the place of 1: AUC 0.7"), done.stdout
    assert done.stdout.endswith(f"({contradictory} questions with both answers were left out).\n")

    made = client.get_model_version(MODEL, new)
    run = client.get_run(made.tags["pipeline.parent_run"])
    assert run.info.status == "FINISHED"
    assert sorted(path.suffix for path in (later.path / "retraining").glob(f"{run.info.run_name}*")) == [
        ".log",
        ".parquet",
    ]
    used = pd.read_parquet(later.path / "retraining" / f"{run.info.run_name}.parquet")
    assert used.event_timestamp.min() >= pd.Timestamp(
        BEGIN, tz="UTC"
    ) and used.event_timestamp.max() <= pd.Timestamp(END, tz="UTC")
    assert not used.duplicated(["driver_id", "event_timestamp"]).any()
    old, theirs = (mlflow.sklearn.load_model(f"models:/{MODEL}/{number}") for number in ("1", new))
    assert hyperparameters(theirs) == hyperparameters(old) == {"C": 10.0, "degree": 2, "weights": "equal"}

    eventually(lambda: server.score(drivers)[1] == new, "the server did not follow")
    assert not np.allclose(server.score(drivers)[0], before)
    client.set_registered_model_alias(MODEL, "production", "1")
    eventually(lambda: server.score(drivers)[1] == "1", "the server did not go back")
    assert np.array_equal(server.score(drivers)[0], before)


def test_a_model_that_is_not_better_is_not_even_registered(later, client, capsys):
    before = numbers(client)
    drift = {"begin": "2025-03-08", "end": "2025-03-21T23:00"}  # of the features alone
    assert main(command(later, **drift, experiment="not better")) == 0
    said = capsys.readouterr().out
    assert (
        said.startswith("version 1 keeps serving: the challenger is not better, AUC 0.")
        and said.count("\n") == 1
    )
    assert numbers(client) == before and in_production(client) == "1"
    (step,) = mlflow.search_runs(
        experiment_names=["not better"], filter_string="attributes.run_name = 'compare'", output_format="list"
    )
    figures = step.data.metrics
    assert figures["low"] <= 0, "the interval is why"
    assert f"{figures['challenger']:.3f} against {figures['champion']:.3f}" in said
    assert step.data.tags["champion"] == "1"


def test_a_step_that_fails_is_named_and_its_words_are_kept(later, client, capsys):
    said = refused(capsys, client, command(later, reference="nobody_saved_it", experiment="failing"))
    log = Path(
        said.removeprefix("nothing was promoted: validate-features failed; its own words are in ").rstrip(
            ".\n"
        )
    )
    assert "the feature registry has no saved dataset 'nobody_saved_it'" in log.read_text()
    runs = mlflow.search_runs(experiment_names=["failing"], output_format="list")
    assert {run.info.run_name.partition(" ")[0]: run.info.status for run in runs} == {
        "retraining": "FAILED",
        "retrieve": "FINISHED",
        "validate": "FAILED",
    }


def test_an_alias_that_somebody_moves_while_the_pipeline_runs_stays_where_it_was_put(later, client, capsys):
    before = numbers(client)
    seen = []

    def somebody_else():
        while not seen:
            time.sleep(0.2)
            if client.get_experiment_by_name("moved"):
                seen.extend(mlflow.search_runs(experiment_names=["moved"], output_format="list"))
        client.set_registered_model_alias(MODEL, "production", "2")

    thread = threading.Thread(target=somebody_else)
    thread.start()
    code = main(command(later, experiment="moved"))
    seen.append("the end")
    thread.join()
    (new,) = numbers(client) - before
    assert capsys.readouterr().out == (
        f"nothing was promoted: production was moved from version 1 to 2 while version {new} was trained. "
        f"Version {new} is registered, and was compared with 1 alone, so the alias stays as it is.\n"
    )
    assert code == 2 and in_production(client) == "2"


def test_of_two_at_once_the_second_does_nothing_and_a_killed_one_leaves_the_place_free(
    later, client, capsys, tmp_path
):
    folder = later.path / "two at once"
    program = [
        sys.executable,
        "-m",
        "lifecycle.retrain",
        *command(later, outputs=folder, experiment="killed"),
    ]
    first = subprocess.Popen(program, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    steps = []
    try:
        eventually(lambda: list(folder.glob("*.log")), "the first one did not begin")
        said = refused(capsys, client, command(later, outputs=folder))
        assert (
            said
            == "nothing was promoted: another retraining is under way in two at once/; this one did nothing.\n"
        )
        eventually(lambda: psutil.Process(first.pid).children(), "the first one started no step")
        steps = psutil.Process(first.pid).children(recursive=True)
        first.kill()
        first.wait()
        said = refused(capsys, client, command(later, outputs=folder, labels=tmp_path / "none.parquet"))
        assert "none.parquet cannot be read" in said, (
            "a lock without its process is none, also while a step lives on"
        )
    finally:
        first.kill()
        first.wait()
        for step in steps:
            with contextlib.suppress(psutil.NoSuchProcess):
                step.kill()

"""`lifecycle retrain` on the six later weeks, with the pipeline's real steps and real registries.

Whatever is wrong, it says so in a sentence, and the alias stays where it was.
"""

import re
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from feast import FeatureStore
from feast.types import Int64
from pipeline_steps import in_process
from served import eventually, register

from conftest import HARD_TO_QUOTE, apply, save_reference
from helpers.start import MODEL, REFERENCE
from helpers.weeks import six_weeks_later
from helpers.workspace import REPOSITORY, Workspace, configure, create_home
from lifecycle import cli
from lifecycle.models.model import hyperparameters, new_model
from lifecycle.models.recipe import Recipe, RecipeError
from lifecycle.models.versions import load_version, version_by_alias
from lifecycle.serving.scoring import FeatureModel
from lifecycle.settings import Settings
from lifecycle.training import retrain as retrain_module
from lifecycle.training.outcome import read_record
from lifecycle.training.retrain import (
    NotRetrained,
    _alone,
    _close_dead_runs,
    _kept,
    _recipe,
    promote,
    usable_labels,
)
from workshop import commands

pytestmark = pytest.mark.unit
BEGIN, END = "2025-03-22", "2025-04-04T23:00"
"""The first two weeks after the relation has changed."""
PIPELINE = REPOSITORY / "cluster" / commands.PIPELINE
WINDOW = [pd.Timestamp(moment, tz="UTC") for moment in (BEGIN, END)]


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
        artifacts = (workspace.path / "artifacts").as_uri()
        experiment = mlflow.MlflowClient().create_experiment("by hand", artifacts)
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


def main(arguments: list[str]) -> int:
    """The exit code of `lifecycle retrain`."""
    return cli.main(["retrain", *arguments], standalone_mode=False) or 0


def command(later: Workspace, **changes: object) -> list[str]:
    """The command's arguments."""
    given = {
        "feature-repo": later.feature_repo,
        "labels": later.data / "driver_labels.parquet",
        "model": MODEL,
        "alias": "production",
        "outputs": later.path / "retraining",
        "reference": REFERENCE,
        "begin": BEGIN,
        "end": END,
    } | changes
    return [part for name, value in given.items() for part in (f"--{name}", str(value))]


def numbers(client) -> set[int]:
    return {int(version.version) for version in client.search_model_versions(f"name = '{MODEL}'")}


def in_production(client) -> str:
    return str(client.get_model_version_by_alias(MODEL, "production").version)


def refused(capsys, client, arguments: list[str]) -> str:
    """What the command prints when nothing comes of it: one line, exit code 2, and nothing changed."""
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
    inside = rows[rows.event_timestamp.between(*WINDOW)]
    other = inside.sample(frac=share, random_state=0)
    return pd.concat([rows, other.assign(label=1 - other.label)], ignore_index=True)


def before(rows: pd.DataFrame, day: str) -> pd.DataFrame:
    return rows[rows.event_timestamp < pd.Timestamp(day, tz="UTC")]


@pytest.fixture
def contract(client):
    return load_version(MODEL, version_by_alias(client, MODEL, "production"))[1]


@pytest.mark.parametrize(
    "spoil, words",
    [
        (lambda rows: rows.drop(columns="label"), "has no column label; it has driver_id, event_timestamp."),
        (lambda rows: rows.assign(event_timestamp=rows.event_timestamp.dt.tz_localize(None)), "no time zone"),
        (lambda rows: rows.head(0), "none of the 0 rows of the label table is complete."),
        (
            lambda rows: before(rows, "2025-03-20"),
            "no labels between 2025-03-22 and 2025-04-04; the newest is",
        ),
        (
            lambda rows: before(rows, "2025-04-01"),
            "ends on 2025-04-04, the last label is of 2025-03-31 06:00.",
        ),
        (lambda rows: rows.replace({"label": {1: 7}}), "labels must be 0 or 1; the column label holds 0, 7."),
        (
            lambda rows: rows.assign(driver_id=rows.driver_id + 0.5),
            "driver_id is declared as whole numbers",
        ),
        (
            lambda rows: rows.assign(driver_id=rows.driver_id.astype(str)),
            "driver_id of the entity table holds text",
        ),
        (lambda rows: twice(rows, 0.06), "questions have both answers, 0 and 1. Find out which is right"),
        (lambda rows: rows[rows.event_timestamp > WINDOW[1].floor("D")], "they leave no held-out days"),
        (lambda rows: rows.assign(label=1), "148 of the entities have a label 1 and 0 a label 0"),
    ],
)
def test_refuses_labels_that_no_model_should_learn_from(spoil, words, contract, labels):
    with pytest.raises(NotRetrained) as refusal:
        usable_labels(spoil(labels), contract, *WINDOW, settings=Settings(), declared={"driver_id": Int64})
    assert words in str(refusal.value)


def test_leaves_out_a_few_contradictions_and_counts_a_repeated_label_once(contract, labels):
    rows = twice(labels, 0.04)
    lost = labels[labels.event_timestamp.between(*WINDOW)].tail(9).index
    table = pd.concat([rows, labels]).assign(note=None)
    lacking = [
        labels.loc[lost].assign(event_timestamp=labels.event_timestamp.where(labels.label > 1)),
        labels.loc[lost].assign(label=np.nan),
    ]
    kept, dropped, left_out = usable_labels(
        pd.concat([table, *lacking]), contract, *WINDOW, settings=Settings()
    )
    assert dropped == {"event_timestamp": 9, "label": 9}, "counted, and no row for the empty note"
    key = ["driver_id", "event_timestamp"]
    doubtful = rows.tail(len(rows) - len(labels))
    assert left_out == len(doubtful) > 40
    expected = labels[labels.event_timestamp.between(*WINDOW)]
    expected = expected[~expected.set_index(key).index.isin(doubtful.set_index(key).index)]
    pd.testing.assert_frame_equal(kept, expected.sort_values(key[::-1], ignore_index=True))


def test_takes_the_newest_two_weeks_without_a_window(contract, labels):
    kept, *_ = usable_labels(labels.assign(label=labels.label == 1), contract, settings=Settings())
    assert kept.event_timestamp.max() == labels.event_timestamp.max()
    assert kept.event_timestamp.min() == labels.event_timestamp.max() - pd.Timedelta(days=14)
    assert kept.label.dtype == "int64", "true and false are 1 and 0"


@pytest.mark.parametrize(
    "argument, content, words",
    [
        ("labels", None, "cannot be read as a label table"),
        ("labels", b"PAR1", "cannot be read as a label table"),
        ("pipeline", b"a: 1", "is no compiled pipeline"),
        ("pipeline", PIPELINE.read_bytes().replace(b"champion", b"rival"), "takes other arguments than"),
        ("outputs", b"a file", "cannot be written"),
    ],
    ids=["no labels", "labels cut off", "another YAML", "another pipeline", "a file for a folder"],
)
def test_names_a_file_that_it_cannot_use(argument, content, words, later, client, capsys, tmp_path):
    file = tmp_path / "the file.parquet"
    if content:
        file.write_bytes(content)
    said = refused(capsys, client, command(later, **{argument: file}))
    assert file.name in said and words in said


def copied(client, alias: str, source: str = "") -> str:
    """One more version, of version 1's model or of another place, behind an alias."""
    source = source or client.get_model_version(MODEL, "1").source
    number = str(client.create_model_version(MODEL, source).version)
    client.set_registered_model_alias(MODEL, alias, number)
    return number


def test_trains_nothing_without_a_champion_that_can_be_read(later, client, capsys, tmp_path):
    assert f"nobody of {MODEL}, was not found" in refused(capsys, client, command(later, alias="nobody"))
    client.delete_model_version(MODEL, copied(client, "deleted"))
    assert "the champion, deleted of" in refused(capsys, client, command(later, alias="deleted"))
    number = copied(client, "lost", (tmp_path / "nowhere").as_uri())
    said = refused(capsys, client, command(later, alias="lost"))
    assert f"version {number}, which lost names, cannot be trained again: " in said


def test_reads_the_champions_settings_from_the_champion():
    settings = {"C": 0.003, "degree": 3, "weights": "balanced"}
    model = new_model(**settings)
    assert hyperparameters(model) == settings
    model["logisticregression"].class_weight = {0: 1, 1: 5}
    with pytest.raises(ValueError, match="not of the kind"):
        hyperparameters(model)


def test_promotes_only_over_the_champion_that_was_compared(client):
    champion = version_by_alias(client, MODEL, "production")
    assert _kept(client, MODEL, "production", champion) == "version 1 keeps serving"
    promote(client, MODEL, "production", champion, "2")
    assert in_production(client) == "2"
    gone = "production no longer names version 1, and was not moved"
    assert _kept(client, MODEL, "production", champion) == gone
    with pytest.raises(NotRetrained, match="was moved from version 1 to 2 while version 5 was trained"):
        promote(client, MODEL, "production", champion, "5")
    client.delete_registered_model_alias(MODEL, "production")
    assert _kept(client, MODEL, "production", champion) == gone
    with pytest.raises(NotRetrained, match="was taken from version 1 while version 5 was trained"):
        promote(client, MODEL, "production", champion, "5")
    assert "production" not in client.get_registered_model(MODEL).aliases


# --- with the pipeline's steps


@pytest.fixture
def server(later, client):
    """The server's model in this process, at the end of the window; it checks the alias 20 times a second."""
    end = WINDOW[1]
    FeatureStore(repo_path=str(later.feature_repo)).materialize(end - pd.Timedelta(days=2), end)
    server = FeatureModel(MODEL, later.feature_repo, "production", now=end.timestamp(), watch=0.05)
    yield server
    server.stop()


def test_promotes_a_better_model_that_the_server_follows_and_can_be_rolled_back(
    later, client, server, labels, capsys, tmp_path
):
    drivers = [{"driver_id": number} for number in (1001, 1002, 1003)]
    before, served = server.score(drivers)
    assert served == "1"
    few = twice(labels, 0.01)
    few.to_parquet(tmp_path / "labels.parquet")
    with in_process() as ran:
        assert main(command(later, labels=tmp_path / "labels.parquet")) == 0
    assert len(ran) == 7 and ran[0] == "retrieve_features" and ran[-2:] == ["register_model", "close_run"]
    said, new = capsys.readouterr().out, in_production(client)
    assert int(new) == max(numbers(client)) > 2
    assert said.startswith(f"version {new} took the place of 1: AUC 0.7")
    left_out = rf" \({len(few) - len(labels)} questions with both answers were left out; rows left out: "
    assert re.search(left_out + r".*\d+ without \w+\)\.\n$", said)

    run = client.get_run(client.get_model_version(MODEL, new).tags["pipeline.parent_run"])
    assert run.info.status == "FINISHED"
    used = pd.read_parquet(later.path / "retraining" / f"{run.info.run_name}.parquet")
    assert used.event_timestamp.between(*WINDOW).all()
    assert not used.duplicated(["driver_id", "event_timestamp"]).any()
    old, challenger = (mlflow.sklearn.load_model(f"models:/{MODEL}/{number}") for number in ("1", new))
    assert hyperparameters(challenger) == hyperparameters(old) == {"C": 10.0, "degree": 2, "weights": "equal"}

    eventually(lambda: server.score(drivers)[1] == new, "the server did not follow")
    assert not np.allclose(server.score(drivers)[0], before)
    client.set_registered_model_alias(MODEL, "production", "1")
    eventually(lambda: server.score(drivers)[1] == "1", "the server did not go back")
    assert np.array_equal(server.score(drivers)[0], before)


def test_does_not_even_register_a_model_that_is_not_better(later, client, capsys):
    before = numbers(client)
    drift = {"begin": "2025-03-08", "end": "2025-03-21T23:00"}  # of the features alone
    with in_process() as ran:
        assert main(command(later, **drift, experiment="not better")) == 0
    assert ran[-2:] == ["compare_with_champion", "close_run"]
    said = capsys.readouterr().out
    assert said.startswith("version 1 keeps serving: the challenger is not better, AUC 0.")
    assert numbers(client) == before and in_production(client) == "1"
    runs = mlflow.search_runs(experiment_names=["not better"]).set_index("tags.mlflow.runName")
    compared = runs.loc["compare"]
    assert compared["metrics.low"] <= 0, "the interval is why"
    assert f"{compared['metrics.challenger']:.3f} against {compared['metrics.champion']:.3f}" in said
    assert compared["tags.champion"] == "1"


def test_names_a_step_that_fails_and_keeps_its_log(later, client, capsys):
    with in_process():
        said = refused(capsys, client, command(later, reference="nobody_saved_it", experiment="failing"))
    log = said.removeprefix("nothing was promoted: validate-features failed; its own words are in ")
    assert "has no saved dataset 'nobody_saved_it'" in Path(log.rstrip(".\n")).read_text()
    runs = mlflow.search_runs(experiment_names=["failing"])
    assert sorted(runs.status) == ["FAILED", "FAILED", "FINISHED"], "the run, its validation, its retrieval"


def test_leaves_an_alias_alone_that_was_moved_while_the_pipeline_ran(later, client, capsys):
    before = numbers(client)

    def move_alias():
        client.set_registered_model_alias(MODEL, "production", "2")

    with in_process(before={"register_model": move_alias}):
        assert main(command(later)) == 2
    (new,) = numbers(client) - before
    assert capsys.readouterr().out == (
        f"nothing was promoted: production was moved from version 1 to 2 while version {new} was trained. "
        f"Version {new} is registered, and was compared with 1 alone, so the alias stays as it is.\n"
    )
    assert in_production(client) == "2"


def test_closes_the_runs_of_a_retraining_that_was_killed_and_no_other(later, client):
    mlflow.set_experiment("killed")
    experiment = client.get_experiment_by_name("killed").experiment_id
    folder = later.path / "killed"
    folder.mkdir()
    (folder / "retraining dead.parquet").touch()
    dead, alive = (client.create_run(experiment, run_name=f"retraining {name}") for name in ("dead", "alive"))
    parent = {"mlflow.parentRunId": dead.info.run_id}
    step = client.create_run(experiment, run_name="train", tags=parent)
    _close_dead_runs(folder, "killed")
    assert [client.get_run(run.info.run_id).info.status for run in (dead, alive, step)] == [
        "KILLED",
        "RUNNING",
        "KILLED",
    ]
    assert read_record(dead.info.run_id).reason == "the retraining was killed"


def test_calls_only_the_estimator_that_the_settings_name(client, monkeypatch):
    """A stored model names one too: whoever writes it must not choose the code of the next retraining."""
    champion, wanted = version_by_alias(client, MODEL, "production"), Recipe()
    fitted = new_model(C=0.3)
    assert _recipe(MODEL, champion, fitted, wanted).hyperparameters["C"] == 0.3, "stored without a recipe"
    stored = Recipe(hyperparameters={"degree": 2})
    monkeypatch.setattr(retrain_module, "recipe_of", lambda uri: stored)
    assert _recipe(MODEL, champion, fitted, wanted) == stored
    stored = Recipe(estimator="os:system", hyperparameters={"command": "true"})
    with pytest.raises(RecipeError, match="its estimator is os:system, and the settings name"):
        _recipe(MODEL, champion, fitted, wanted)


def test_does_nothing_while_another_retraining_is_under_way(later, client, capsys):
    folder = later.path / "two at once"
    with _alone(folder):
        said = refused(capsys, client, command(later, outputs=folder))
    assert said.endswith("another retraining is under way in two at once/; this one did nothing.\n")
    with _alone(folder):
        pass

"""Bad input of real data, each kind where lifecycle meets it: refused in a helpful sentence, or handled.

The data are three weeks of the real extract. Each test damages one thing, and has the good case beside it.
"""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import great_expectations as gx
import great_expectations.expectations as gxe
import numpy as np
import pandas as pd
import pytest
from fastapi import HTTPException
from feast import Entity, FeatureService, FeatureStore, FeatureView, Field, FileSource, RequestSource
from feast import ValueType as Type
from feast.infra.offline_stores.file_source import SavedDatasetFileStorage
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Float64, Int64, String
from kfp import local
from optuna.distributions import FloatDistribution, IntDistribution
from pipeline_steps import in_process
from sklearn.ensemble import HistGradientBoostingClassifier

from conftest import HARD_TO_QUOTE
from helpers.workspace import REPOSITORY
from lifecycle.features.contract import FeatureContract
from lifecycle.features.retrieval import historical_features
from lifecycle.features.validation import judge, suite_tag
from lifecycle.models.model import TYPES, needed_types, new_model, split, validation_scores
from lifecycle.models.recipe import Recipe
from lifecycle.models.versions import VersionRefused, load_version, version_by_alias
from lifecycle.serving.scoring import FeatureModel
from lifecycle.settings import Settings
from lifecycle.training import pipeline
from lifecycle.training.katib_trial import trial
from lifecycle.training.outcome import read_record
from lifecycle.training.retrain import retrain, usable_labels
from lifecycle.training.sweep import open_study, sweep

pytestmark = pytest.mark.unit
BEGIN, END = pd.Timestamp("2013-04-01", tz="UTC"), pd.Timestamp("2013-04-22", tz="UTC")
ACCENTED = " Lignes Aériennes d'été "
"""A carrier whose code has spaces, at both ends too, an apostrophe and accents."""
STORE = """
project: departures
provider: local
registry: registry.db
online_store: {type: sqlite, path: online_store.db}
offline_store: {type: duckdb}
entity_key_serialization_version: 3
"""
origin = Entity(name="origin", join_keys=["origin"], value_type=Type.STRING)
carrier = Entity(name="carrier", join_keys=["carrier"], value_type=Type.STRING)
asked = RequestSource(name="asked", schema=[Field(name="scheduled_hour", dtype=Float64)])
RULES = [
    gxe.ExpectColumnValuesToBeBetween(column="carrier_delay", min_value=-60, max_value=1500),
    gxe.ExpectColumnMeanToBeBetween(column="carrier_flights", min_value=1, max_value=25),
]
SUITE = gx.ExpectationSuite("departures", expectations=RULES)


@on_demand_feature_view(sources=[asked], schema=[Field(name="hours_into_day", dtype=Float64)], mode="python")
def schedule(inputs):
    return {"hours_into_day": [(hour - 4) % 24 for hour in inputs["scheduled_hour"]]}


def view(name: str, path: Path, **features) -> FeatureView:
    columns = {"origin": String, "carrier": String} | features
    return FeatureView(
        name=name,
        entities=[origin, carrier],
        ttl=timedelta(hours=6),
        schema=[Field(name=column, dtype=dtype) for column, dtype in columns.items()],
        source=FileSource(name=name, path=str(path), timestamp_field="known"),
    )


class Project:
    """A feature repository of a team's own over the real extract, and what the tests ask of it."""

    def __init__(self, folder: Path) -> None:
        self.repo, self.file = folder / "feature_repo", folder / "carrier.parquet"
        self.repo.mkdir(parents=True)
        (self.repo / "feature_store.yaml").write_text(STORE)
        departures = pd.read_parquet(REPOSITORY / "data" / "flights" / "departures.parquet")
        departures = departures[departures.scheduled.between(BEGIN, END)]
        departures = departures.assign(carrier=departures.carrier.replace("B6", ACCENTED))
        gone = departures.dropna(subset="delay")
        known = gone.scheduled + pd.to_timedelta(gone.delay.astype(float), unit="min").dt.as_unit("us")
        hourly = gone.assign(known=known.dt.ceil("h")).groupby(["origin", "carrier", "known"], as_index=False)
        hourly = hourly.agg(carrier_delay=("delay", "mean"), carrier_flights=("delay", "count"))
        hourly.astype({"carrier_delay": "float64"}).to_parquet(self.file)
        sample = departures.sample(3000, random_state=1)
        sample = sample.sort_values(["scheduled", "origin", "carrier"], ignore_index=True)
        self.labels = sample[["origin", "carrier"]].assign(
            event_timestamp=sample.scheduled - timedelta(hours=1),
            scheduled_hour=sample.scheduled.dt.tz_convert("America/New_York").dt.hour.astype(float),
            late=((sample.delay > 15) | sample.delay.isna()).astype("int64"),
        )
        self.store = FeatureStore(repo_path=str(self.repo))
        views = [view("carrier", self.file, carrier_delay=Float64, carrier_flights=Int64), schedule]
        self.store.apply([origin, carrier, *views, FeatureService(name="known", features=views)])
        self.contract = FeatureContract.from_feature_service(self.store, "known", label="late")
        self.table = self.retrieve(self.labels)

    def retrieve(self, labels: pd.DataFrame) -> pd.DataFrame:
        return historical_features(self.store, labels, self.store.get_feature_service("known"))

    def assert_same_features(self, table: pd.DataFrame, expected: pd.DataFrame) -> None:
        values = [one[self.contract.columns].to_numpy(dtype="float64") for one in (table, expected)]
        np.testing.assert_array_equal(*values)


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Project:
    return Project(tmp_path_factory.mktemp("flights") / HARD_TO_QUOTE)


def without_zone(times: pd.Series) -> pd.Series:
    return times.dt.tz_localize(None)


@pytest.mark.parametrize(
    "column, change, says",
    [
        ("event_timestamp", without_zone, r"no time zone.*tz_localize\(\"UTC\"\)"),
        ("event_timestamp", lambda times: times.astype(str), r"column of string values.*pd.to_datetime"),
        ("event_timestamp", lambda times: times.astype("int64"), "column of integer values"),
        ("carrier", lambda _: 9, "carrier of the entity table holds numbers, such as 9, .* declares text"),
        ("carrier", lambda _: b"9E", "carrier of the entity table holds bytes values, such as b'9E'"),
        ("scheduled_hour", lambda _: "five", "holds text, such as 'five', .* declares numbers"),
    ],
)
def test_refuses_a_label_table_of_other_types(project, column, change, says):
    with pytest.raises(ValueError, match=says):
        project.retrieve(project.labels.assign(**{column: change(project.labels[column])}))


def latest_first(labels: pd.DataFrame) -> pd.DataFrame:
    late = labels.event_timestamp > labels.event_timestamp[1500]
    return pd.concat([labels[late], labels[~late]])


@pytest.mark.parametrize(
    "change",
    [
        lambda labels: labels.assign(event_timestamp=labels.event_timestamp.dt.tz_convert("Asia/Tokyo")),
        lambda labels: labels.astype({"origin": "category", "carrier": "category"}),
        lambda labels: labels.set_axis([*range(1500), *range(1500)]),
        latest_first,
    ],
    ids=["another zone", "categories", "an index twice", "the latest first"],
)
def test_the_form_of_the_label_table_changes_no_value(project, change):
    labels = change(project.labels)
    found = project.retrieve(labels)
    assert found.index.equals(labels.index)
    for part, expected in zip(split(found), split(project.table), strict=True):
        project.assert_same_features(part, expected)
    kept, expected = (
        usable_labels(one, project.contract, settings=Settings())[0] for one in (labels, project.labels)
    )
    assert len(kept) > 1000 and kept.late.equals(expected.late)


def test_the_gate_says_what_a_column_holds_that_its_rules_cannot_read(project):
    columns = [*project.contract.columns, "late"]
    assert judge(SUITE, project.table, columns).is_success
    report = judge(SUITE, project.table.astype({"carrier_delay": "str", "carrier_flights": "str"}), columns)
    assert report.table()["column"].tolist() == ["carrier_delay", "carrier_flights"]
    for line in str(report).splitlines():
        assert "found the column holds string values" in line and len(line) < 400
    with pytest.raises(ValueError, match="the table to be judged has no column late; it has origin"):
        judge(SUITE, project.table.drop(columns="late"), columns)


def test_names_a_column_without_any_value(project):
    says = r"none of the \d+ rows from 2013-04-01.* carrier_delay is missing in 100%"
    with pytest.raises(ValueError, match=says):
        split(project.table.assign(carrier_delay=np.nan))
    newest = project.table.event_timestamp > split(project.table)[1].event_timestamp.min()
    with pytest.raises(ValueError, match="carrier_flights is missing in 100% of them"):
        split(project.table.assign(carrier_flights=project.table.carrier_flights.where(newest)))


@pytest.mark.parametrize(
    "column, rows, value, says",
    [
        ("late", slice(0, 350), 0, r"block 1 of 5 has no score: the \d+ rows before it all have the label 0"),
        ("late", slice(-350, None), 0, r"block 5 of 5 has no score: the \d+ rows in it all have the label 0"),
        ("carrier_delay", slice(-100, None), np.nan, "Input X contains NaN"),
        (
            "carrier_delay",
            slice(-100, None),
            "five",
            "the feature carrier_delay holds values that are no numbers, .* 'five'",
        ),
    ],
)
def test_gives_no_score_for_rows_that_cannot_be_scored(project, column, rows, value, says):
    table = split(project.table)[0].astype({"carrier_delay": object})
    assert np.isfinite(validation_scores(new_model(), table[project.contract.columns], table.late)).all()
    with pytest.raises(ValueError, match="of other rows than X, or in another order: take both from one"):
        validation_scores(new_model(), table[project.contract.columns], table.late.iloc[::-1])
    table.iloc[rows, table.columns.get_loc(column)] = value
    with pytest.raises(ValueError, match=says):
        validation_scores(new_model(), table[project.contract.columns], table.late)


def test_a_key_with_spaces_and_accents_and_an_entity_that_is_new_are_answered(project, mlflow, monkeypatch):
    rows, _ = split(project.table)
    X = rows[project.contract.columns].astype("float64")
    model = new_model().fit(X, rows.late)
    mlflow.set_experiment("tests")
    with mlflow.start_run():
        how = {"serialization_format": "skops", "pip_requirements": ["scikit-learn"]}
        how |= {"metadata": {"feast": project.contract.to_dict()}, "input_example": X.head(5)}
        logged = mlflow.sklearn.log_model(model, name="model", **how)
    version = mlflow.register_model(logged.model_uri, "late_departure").version
    mlflow.MlflowClient().set_registered_model_alias("late_departure", "production", version)
    project.store.materialize(END - timedelta(hours=6), END, feature_views=["carrier"])
    question = {"origin": "JFK", "carrier": ACCENTED, "scheduled_hour": 17.0}
    history = project.retrieve(pd.DataFrame([question | {"event_timestamp": END}]))
    assert history[project.contract.columns].notna().all(axis=None)
    expected = model.predict_proba(history[project.contract.columns])[:, 1].tolist()

    server = FeatureModel("late_departure", project.repo, "production", now=END.timestamp())
    try:
        assert server.score([question])[0] == pytest.approx(expected, abs=1e-12)
        for unknown in (ACCENTED.strip(), "Compañía Nueva"):
            with pytest.raises(HTTPException) as refusal:
                server.score([question | {"carrier": unknown}])
            assert refusal.value.status_code == 404 and unknown in refusal.value.detail
        # The new carrier's first features arrive; the model needs to know nothing of it.
        first = {"origin": ["JFK"], "carrier": ["Compañía Nueva"], "known": [END]}
        delays = pd.DataFrame(first | {"carrier_delay": [30.0], "carrier_flights": [3]})
        project.store.write_to_online_store("carrier", delays)
        similar = history.assign(carrier_delay=30.0, carrier_flights=3)
        expected = model.predict_proba(similar[project.contract.columns])[:, 1].tolist()
        scores, _ = server.score([question | {"carrier": "Compañía Nueva"}])
        assert scores == pytest.approx(expected, abs=1e-12)
    finally:
        server.stop()


def test_a_gradient_boosted_model_goes_from_the_sweep_to_the_server_and_is_retrained(
    project, mlflow, tmp_path
):
    """All parts get the same settings; the stored recipe carries the sweep's choice to the retraining."""
    name, labels = "boosted", tmp_path / "labels.parquet"
    project.labels.to_parquet(labels)
    model = {"estimator": "sklearn.ensemble:HistGradientBoostingClassifier", "metric": "neg_log_loss"}
    inputs = {
        "feature_repo": str(project.repo),
        "labels": str(labels),
        "feature_service": "known",
        "label": "late",
    }
    rows, _ = split(project.table)
    by_hand = HistGradientBoostingClassifier(max_iter=1).fit(rows[project.contract.columns], rows.late)
    types = needed_types(by_hand)
    assert any("TreePredictor" in kind for kind in types)

    def score(choice):
        made = Recipe(**model, hyperparameters=choice).new_estimator()
        X, y = rows[project.contract.columns], rows.late
        return validation_scores(made, X, y, metric=model["metric"]).mean()

    space = {"max_iter": IntDistribution(5, 20), "learning_rate": FloatDistribution(0.01, 0.5)}
    storage = f"sqlite:///{tmp_path / 'optuna.db'}"
    first = {"max_iter": 10, "learning_rate": 0.1}
    sweep(storage, "tests", name, space, score, total=2, first=first, seed=1, metric="neg_log_loss")
    best = open_study(storage, name).best_params
    as_text = {choice: str(value) for choice, value in best.items()}
    assert trial(**inputs, **model, **as_text) == pytest.approx(open_study(storage, name).best_value)

    storage = SavedDatasetFileStorage(path=str(tmp_path / "reference.parquet"))
    asked = project.store.get_historical_features(project.labels.head(300), ["carrier:carrier_delay"])
    project.store.create_saved_dataset(
        asked, name="reference", storage=storage, tags=suite_tag(SUITE), allow_overwrite=True
    )
    compiled = REPOSITORY / "cluster" / "training_pipeline.yaml"
    local.init(local.SubprocessRunner(use_venv=False), pipeline_root=str(tmp_path / "out"))
    given = {"reference": "reference", "experiment": name, "run_name": "first", "model_name": name}
    given |= {"threshold": -1.0, "types": types, "hyperparameters": json.dumps(best)}
    with in_process():
        pipeline.run_file(compiled, {**inputs, **model, **given}, tmp_path / "log")
    client = mlflow.MlflowClient()
    version = client.get_model_version(name, "1")
    record = read_record(version.tags["pipeline.parent_run"])
    assert (record.version, record.metric, record.status) == ("1", "neg_log_loss", "FINISHED")
    assert -1 < record.score < 0 and record.rows == len(project.table.dropna())
    client.set_registered_model_alias(name, "production", "1")

    with pytest.raises(VersionRefused, match=r"types that nobody vouches for: numpy\.random"):
        load_version(name, version_by_alias(client, name, "production"))
    fitted, _ = load_version(name, version_by_alias(client, name, "production"), types=TYPES | {*types})
    project.store.materialize(END - timedelta(hours=6), END, feature_views=["carrier"])
    allowed = TYPES | {*types}
    server = FeatureModel(name, project.repo, "production", now=END.timestamp(), types=allowed)
    try:
        question = {"origin": "JFK", "carrier": ACCENTED, "scheduled_hour": 17.0}
        history = project.retrieve(pd.DataFrame([question | {"event_timestamp": END}]))
        expected = fitted.predict_proba(history[project.contract.columns].astype("float64"))[:, 1]
        assert server.score([question])[0] == pytest.approx(expected.tolist(), abs=1e-12)
    finally:
        server.stop()

    settings = Settings(
        feature_repo=str(project.repo),
        labels=str(labels),
        pipeline=str(compiled),
        reference="reference",
        model=name,
        training={**model, "threshold": -1.0, "types": types},
        retraining={"outputs": str(tmp_path / "weekly"), "experiment": name},
    )
    with in_process() as ran:
        outcome = retrain(settings)
    assert "compare_with_champion" in ran and " neg_log_loss -0." in outcome.said
    record = read_record(outcome.run_id)
    assert (record.champion, record.gate) == ("1", "" if outcome.promoted else "better")
    assert -1 < record.champion_score < 0
    steps = mlflow.search_runs(experiment_names=[name], filter_string="attributes.run_name = 'train'")
    assert set(steps["params.max_iter"]) == {str(best["max_iter"])}, "the champion's choice"

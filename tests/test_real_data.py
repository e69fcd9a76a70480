"""Bad input of real data, each kind at the doors of lifecycle that it comes through: refused in a sentence that says what to do, or answered rightly.

The data are three weeks of the real extract. Each test damages one thing on purpose, and has the good case beside it.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import great_expectations as gx
import great_expectations.expectations as gxe
import numpy as np
import optuna
import pandas as pd
import pytest
import requests
from conftest import HARD_TO_QUOTE
from feast import (
    Entity,
    FeatureService,
    FeatureStore,
    FeatureView,
    Field,
    FileSource,
    RequestSource,
    ValueType,
)
from feast.data_format import ParquetFormat
from feast.infra.offline_stores.file_source import SavedDatasetFileStorage
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Float64, Int64, String
from kfp import dsl
from optuna.distributions import FloatDistribution
from scipy.spatial.distance import jensenshannon

from helpers.services import Service
from helpers.workspace import REPOSITORY
from lifecycle import pipeline
from lifecycle.comparison import compare
from lifecycle.contract import FeatureContract
from lifecycle.model import load, new_model, split, validation_scores
from lifecycle.retrain import NotRetrained, usable_labels
from lifecycle.retrieval import historical_features
from lifecycle.sweep import complete, open_study, sweep
from lifecycle.validation import common_bins, judge, suite_tag

BEGIN, END = pd.Timestamp("2013-04-01", tz="UTC"), pd.Timestamp("2013-04-22", tz="UTC")
ZONE = "America/New_York"
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
origin = Entity(name="origin", join_keys=["origin"], value_type=ValueType.STRING)
carrier = Entity(name="carrier", join_keys=["carrier"], value_type=ValueType.STRING)
asked = RequestSource(name="asked", schema=[Field(name="scheduled_hour", dtype=Float64)])
RULES = [
    gxe.ExpectColumnValuesToBeBetween(column="carrier_delay", min_value=-60, max_value=1500),
    gxe.ExpectColumnMeanToBeBetween(column="wind_speed", min_value=2, max_value=25),
    gxe.ExpectColumnValuesToNotBeNull(column="carrier_flights", mostly=0.8),
]
SUITE = gx.ExpectationSuite("departures", expectations=RULES)


@on_demand_feature_view(sources=[asked], schema=[Field(name="hours_into_day", dtype=Float64)], mode="python")
def schedule(inputs):
    return {"hours_into_day": [(hour - 4) % 24 for hour in inputs["scheduled_hour"]]}


def view(name: str, keys: list[Entity], path: Path, time: str = "event_timestamp", **features) -> FeatureView:
    columns = {key.join_key: String for key in keys} | features
    return FeatureView(
        name=name,
        entities=keys,
        ttl=timedelta(hours=6),
        schema=[Field(name=column, dtype=dtype) for column, dtype in columns.items()],
        source=FileSource(name=name, path=str(path), timestamp_field=time, file_format=ParquetFormat()),
    )


class Project:
    """A feature repository of a team's own over the real extract, and what the tests ask of it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.repo = folder, folder / "feature_repo"
        self.repo.mkdir(parents=True)
        (self.repo / "feature_store.yaml").write_text(STORE)
        self.labels = self._write()
        self.store = FeatureStore(repo_path=str(self.repo))
        flights = {"airport_delay": Float64, "airport_flights": Int64}
        by_airport = view("airport", [origin], self.file("airport"), **flights)
        flights = {"carrier_delay": Float64, "carrier_flights": Int64}
        by_carrier = view("carrier", [origin, carrier], self.file("carrier"), **flights)
        weather = view(
            "weather", [origin], self.file("weather"), "observed", wind_speed=Float64, visibility=Float64
        )
        views = [by_airport, by_carrier, weather, schedule]
        self.store.apply([origin, carrier, *views, FeatureService(name="known", features=views)])
        self.contract = FeatureContract.of_service(self.store, "known", label="late")
        self.table = self.retrieve(self.labels)

    def file(self, name: str) -> Path:
        return self.folder / f"{name}.parquet"

    def _write(self) -> pd.DataFrame:
        departures = pd.read_parquet(REPOSITORY / "data" / "flights" / "departures.parquet")
        departures = departures[departures.scheduled.between(BEGIN, END)]
        departures = departures.assign(carrier=departures.carrier.replace("B6", ACCENTED))
        gone = departures.dropna(subset="delay")
        known = gone.scheduled + pd.to_timedelta(gone.delay.astype(float), unit="min").dt.as_unit("us")
        gone = gone.assign(event_timestamp=known.dt.ceil("h"))
        for name, keys in {"airport": ["origin"], "carrier": ["origin", "carrier"]}.items():
            hourly = gone.groupby([*keys, "event_timestamp"], as_index=False).delay.agg(["mean", "count"])
            columns = {"mean": f"{name}_delay", "count": f"{name}_flights"}
            hourly.rename(columns=columns).to_parquet(self.file(name))
        weather = pd.read_parquet(REPOSITORY / "data" / "flights" / "weather.parquet")
        weather[weather.observed.between(BEGIN, END)].to_parquet(self.file("weather"))
        sample = departures.sample(3000, random_state=1)
        sample = sample.sort_values(["scheduled", "origin", "carrier"], ignore_index=True)
        local = sample.scheduled.dt.tz_convert(ZONE)
        return sample[["origin", "carrier"]].assign(
            event_timestamp=sample.scheduled - timedelta(hours=1),
            scheduled_hour=local.dt.hour + local.dt.minute / 60,
            late=((sample.delay > 15) | sample.delay.isna()).astype("int64"),
        )

    def retrieve(self, labels: pd.DataFrame) -> pd.DataFrame:
        return historical_features(self.store, labels, self.store.get_feature_service("known"))

    def values(self, table: pd.DataFrame) -> np.ndarray:
        return table[self.contract.columns].to_numpy(dtype="float64")

    def scores(self, table: pd.DataFrame) -> list[float]:
        rows, _ = split(table)
        return validation_scores(new_model(), rows[self.contract.columns], rows.late).tolist()


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Project:
    return Project(tmp_path_factory.mktemp("flights") / HARD_TO_QUOTE)


@pytest.fixture
def damaged(project):
    """Changes the file of a feature view, until the test ends."""
    kept = {}

    def damage(name: str, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
        kept[project.file(name)] = project.file(name).read_bytes()
        change(pd.read_parquet(project.file(name))).to_parquet(project.file(name))

    yield damage
    for file, content in kept.items():
        file.write_bytes(content)


def without_zone(times: pd.Series, zone: str = "UTC") -> pd.Series:
    return times.dt.tz_convert(zone).dt.tz_localize(None)


# --- Times ---


@pytest.mark.parametrize(
    "change, says",
    [
        (without_zone, r"no time zone.*tz_localize\(\"UTC\"\)"),
        (lambda times: without_zone(times, ZONE), "no time zone"),
        (lambda times: without_zone(times, ZONE).astype(str), r"column of string values.*pd.to_datetime"),
        (lambda times: times.astype("int64"), "column of integer values"),
    ],
    ids=["naive, in UTC", "naive, local", "text", "numbers"],
)
def test_times_that_nobody_can_place_are_refused(project, change, says):
    labels = project.labels.assign(event_timestamp=change(project.labels.event_timestamp))
    with pytest.raises(ValueError, match=says):
        project.retrieve(labels)


def test_times_of_any_zone_give_the_same_features(project):
    local = project.labels.assign(event_timestamp=project.labels.event_timestamp.dt.tz_convert(ZONE))
    assert np.array_equal(
        project.values(project.retrieve(local)), project.values(project.table), equal_nan=True
    )
    kept, _ = usable_labels(local, project.contract)
    in_utc, _ = usable_labels(project.labels, project.contract)
    assert len(kept) > 1000 and (kept.late == in_utc.late).all()
    with pytest.raises(NotRetrained, match="the times of the labels have no time zone"):
        usable_labels(local.assign(event_timestamp=without_zone(local.event_timestamp)), project.contract)


def test_feature_times_without_a_zone_are_those_of_utc_and_a_warning_says_so(project, damaged):
    damaged("weather", lambda table: table.assign(observed=without_zone(table.observed)))
    with pytest.warns(UserWarning, match=r"the times in weather.parquet \(observed\) have no time zone"):
        found = project.retrieve(project.labels)
    assert np.array_equal(project.values(found), project.values(project.table), equal_nan=True)
    project.store.materialize(END - timedelta(hours=6), END, feature_views=["weather"])
    online = project.store.get_online_features(
        features=["weather:wind_speed"], entity_rows=[{"origin": "JFK"}]
    )
    newest = (
        pd.read_parquet(project.file("weather")).query("origin == 'JFK'").sort_values("observed").iloc[-1]
    )
    read = online.to_dict(include_event_timestamps=True)
    assert read["wind_speed"] == [newest.wind_speed]
    assert read["wind_speed__ts"] == [newest.observed.tz_localize("UTC").timestamp()]


def test_feature_times_with_a_zone_bring_no_warning(project):
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="the times in")
        project.retrieve(project.labels.head(10))


# --- The index, and the order of rows ---


def test_a_duplicated_index_changes_no_value_at_any_door(project):
    twice = project.labels.set_axis([*range(1500), *range(1500)])
    found = project.retrieve(twice)
    assert found.index.equals(twice.index)
    assert np.array_equal(project.values(found), project.values(project.table), equal_nan=True)
    again = historical_features(project.store, twice, ["carrier:carrier_delay"])
    found["again"] = again.carrier_delay
    assert found.again.equals(found.carrier_delay)
    assert project.scores(found.drop(columns="again")) == project.scores(project.table)
    assert judge(SUITE, found, project.contract.columns).is_success
    assert usable_labels(twice, project.contract)[0].equals(
        usable_labels(project.labels, project.contract)[0]
    )


def test_labels_out_of_order_are_validated_in_the_order_of_time(project):
    late_first = project.labels.event_timestamp > project.labels.event_timestamp[1500]
    turned = pd.concat([project.labels[late_first], project.labels[~late_first]])
    assert not turned.event_timestamp.is_monotonic_increasing
    found = project.retrieve(turned)
    assert found.index.equals(turned.index)
    for part, other in zip(split(found), split(project.table), strict=True):
        pd.testing.assert_frame_equal(part, other)
    assert project.scores(found) == project.scores(project.table)
    assert usable_labels(turned, project.contract)[0].equals(
        usable_labels(project.labels, project.contract)[0]
    )


def test_labels_in_another_order_than_the_rows_are_refused(project):
    rows, _ = split(project.table)
    X = rows[project.contract.columns]
    assert np.isfinite(validation_scores(new_model(), X, rows.late)).all()
    with pytest.raises(
        ValueError, match="of other rows than X, or in another order: take both from one table"
    ):
        validation_scores(new_model(), X, rows.late.sample(frac=1, random_state=0))


@pytest.fixture(scope="module")
def scored(project) -> tuple[pd.Series, pd.Series, pd.Series, pd.DataFrame]:
    """Labels, scores of two models and keys of the held-out rows."""
    rows, held_out = split(project.table)
    columns = project.contract.columns
    models = [new_model().fit(rows[names], rows.late) for names in (columns[:2], columns)]
    few, all_of_them = (
        pd.Series(model.predict_proba(held_out[names])[:, 1], held_out.index)
        for model, names in zip(models, (columns[:2], columns), strict=True)
    )
    return held_out.late, few, all_of_them, held_out[["origin", "carrier"]]


def test_what_is_compared_row_by_row_must_be_in_one_order(scored):
    late, champion, challenger, keys = scored
    found = compare(late, champion, challenger, keys)
    assert found == compare(late.to_numpy(), champion.to_numpy(), challenger.reset_index(drop=True), keys)
    for other in range(4):
        given = [
            one.sample(frac=1, random_state=0) if place == other else one for place, one in enumerate(scored)
        ]
        with pytest.raises(ValueError, match=r"the same index in another order.*sort them alike"):
            compare(*given)


@pytest.mark.parametrize(
    "change, says",
    [
        (lambda late, old, new, keys: (late, old[:-1], new[:-1], keys), r"as many of each"),
        (
            lambda late, old, new, keys: (late, old, new, keys[:10]),
            r"10 rows of keys: a comparison needs as many",
        ),
        (
            lambda late, old, new, keys: (late.astype(str), old, new, keys),
            "labels must be 0 or 1; there is '0', '1'",
        ),
        (
            lambda late, old, new, keys: (late.where(keys.origin != "JFK"), old, new, keys),
            "0 or 1; there is nan",
        ),
        (
            lambda late, old, new, keys: (late, old, new.where(keys.origin != "JFK"), keys),
            "a score is missing",
        ),
    ],
    ids=["fewer scores", "fewer keys", "text", "no label", "no score"],
)
def test_what_cannot_be_compared_is_named(scored, change, says):
    with pytest.raises(ValueError, match=says):
        compare(*change(*scored))


# --- Types ---


@pytest.mark.parametrize(
    "change, says",
    [
        ({"carrier": 9}, "the column carrier of the entity table holds numbers, such as 9, .* declares text"),
        ({"carrier": b"9E"}, "carrier of the entity table holds bytes values, such as b'9E'"),
        (
            {"scheduled_hour": "five"},
            "scheduled_hour of the entity table holds text, such as 'five', .*numbers",
        ),
    ],
)
def test_a_key_or_field_of_another_type_is_named_before_the_join(project, change, says):
    with pytest.raises(ValueError, match=says):
        project.retrieve(project.labels.assign(**change))


def test_keys_as_categories_are_text(project):
    found = project.retrieve(project.labels.astype({"origin": "category", "carrier": "category"}))
    assert np.array_equal(project.values(found), project.values(project.table), equal_nan=True)


@pytest.mark.parametrize(
    "change, says",
    [
        (
            lambda table: {"carrier": range(len(table))},
            r"holds numbers \(int64\) in the column carrier, .*declares text",
        ),
        (
            lambda table: {"carrier_delay": table.carrier_delay.astype(str)},
            r"carrier.parquet holds text \(string\) in",
        ),
        (
            lambda table: {"carrier_flights": table.carrier_flights + 0.5},
            r"carrier_flights is declared as whole numbers \(Int64\) and holds fractions, such as \d+\.5",
        ),
    ],
    ids=["key", "text", "fractions"],
)
def test_a_feature_file_that_has_changed_a_type_is_named(project, damaged, change, says):
    damaged("carrier", lambda table: table.assign(**change(table)))
    with pytest.raises(ValueError, match=says):
        project.retrieve(project.labels)


def test_whole_numbers_that_pandas_stores_as_floats_are_whole(project, damaged):
    damaged("carrier", lambda table: table.astype({"carrier_flights": "float64"}))
    found = project.retrieve(project.labels)
    assert np.array_equal(project.values(found), project.values(project.table), equal_nan=True)


def test_files_of_one_view_that_differ_are_named(project, tmp_path):
    hourly = pd.read_parquet(project.file("carrier"))
    parts = {"2013-04-a": hourly.iloc[: len(hourly) // 2], "2013-04-b": hourly.iloc[len(hourly) // 2 :]}

    def retrieve(folder: str, **changed: pd.DataFrame) -> pd.Series:
        (tmp_path / folder).mkdir()
        for name, part in (parts | changed).items():
            part.to_parquet(tmp_path / folder / f"{name}.parquet")
        monthly = view("monthly", [origin, carrier], tmp_path / folder, carrier_delay=Float64)
        project.store.apply([monthly])
        return historical_features(project.store, project.labels, ["monthly:carrier_delay"]).carrier_delay

    try:
        assert retrieve("good").equals(project.table.carrier_delay)
        whole = {"2013-04-a": parts["2013-04-a"].round().astype({"carrier_delay": "int64"})}
        with pytest.raises(
            ValueError, match=r"int64 in 2013-04-a.parquet, double in 2013-04-b.parquet.*round"
        ):
            retrieve("whole numbers first", **whole)
        comma = parts["2013-04-b"].carrier_delay.astype(str).str.replace(".", ",")
        with pytest.raises(ValueError, match=r"2013-04-b.parquet holds text .* in the column carrier_delay"):
            retrieve("text", **{"2013-04-b": parts["2013-04-b"].assign(carrier_delay=comma)})
    finally:
        project.store.apply([], objects_to_delete=[project.store.get_feature_view("monthly")], partial=False)


def test_the_gate_says_what_a_column_holds_that_its_rules_cannot_read(project):
    assert judge(SUITE, project.table, [*project.contract.columns, "late"]).is_success
    text = project.table.astype({"carrier_delay": "str", "wind_speed": "str"})
    report = judge(SUITE, text, project.contract.columns)
    assert report.table()["column"].tolist() == ["carrier_delay", "wind_speed"]
    for line in str(report).splitlines():
        assert "found the column holds string values" in line and len(line) < 400
    with pytest.raises(ValueError, match="the table to be judged has no column late; it has origin"):
        judge(SUITE, project.table.drop(columns="late"), [*project.contract.columns, "late"])


# --- Columns that say nothing ---


def test_a_constant_feature_changes_no_score(project):
    rows, held_out = split(project.table)
    columns = project.contract.columns
    constant, without = rows.assign(visibility=0.1), [name for name in columns if name != "visibility"]
    scores = validation_scores(new_model(), constant[columns], rows.late)
    assert scores == pytest.approx(validation_scores(new_model(), rows[without], rows.late), abs=1e-9)
    fitted = new_model(degree=2).fit(constant[columns], rows.late)
    assert np.isfinite(fitted.predict_proba(held_out.assign(visibility=0.1)[columns])).all()
    alone = validation_scores(new_model(), constant[["visibility"]], rows.late)
    assert alone.tolist() == [0.5] * 5


@pytest.mark.parametrize("stuck_at", [0.0, 4.0, 10.0])
def test_a_feature_that_stops_moving_is_seen_beside_one_that_moved(stuck_at):
    moving = {"bins": np.linspace(0, 10, 11).tolist(), "counts": [10] * 10}
    stuck = {"bins": [stuck_at, stuck_at], "counts": [100]}  # as Feast's monitoring gives it
    before, after = common_bins(moving, stuck)
    assert before.sum() == pytest.approx(1) and after.sum() == pytest.approx(1)
    assert jensenshannon(before, after, base=2) > 0.5
    assert jensenshannon(*common_bins(stuck, stuck), base=2) == pytest.approx(0, abs=1e-6)


def test_a_column_without_any_value_is_named_and_not_dropped_with_all_rows(project):
    with pytest.raises(
        ValueError, match=r"none of the \d+ rows from 2013-04-01.* visibility is missing in 100%"
    ):
        split(project.table.assign(visibility=np.nan))
    newest = project.table.event_timestamp > split(project.table)[1].event_timestamp.min()
    with pytest.raises(ValueError, match="wind_speed is missing in 100% of them"):
        split(project.table.assign(wind_speed=project.table.wind_speed.where(newest)))


@pytest.mark.parametrize("place, says", [("before", "the 342 rows before it"), ("in", "the 341 rows in it")])
def test_a_block_of_one_label_is_named(project, place, says):
    rows, _ = split(project.table)
    fifth = len(rows) // 5
    late = rows.late.copy()
    late.iloc[slice(0, fifth) if place == "before" else slice(-fifth, None)] = 0
    with pytest.raises(ValueError, match=rf"block \d of 5 has no AUC: {says} all have the label 0"):
        validation_scores(new_model(), rows[project.contract.columns], late)


def test_a_value_that_the_model_cannot_take_is_no_score(project):
    rows, _ = split(project.table)
    newest = rows.event_timestamp > rows.event_timestamp.quantile(0.9)
    X = rows[project.contract.columns]
    with pytest.raises(ValueError, match="Input X contains NaN"):
        validation_scores(new_model(), X.assign(visibility=X.visibility.mask(newest)), rows.late)
    with pytest.raises(ValueError, match="could not convert string to float: 'five'"):
        validation_scores(new_model(), X.assign(visibility="five"), rows.late)


def test_a_sweep_whose_score_is_no_number_ends_and_goes_on_with_one_that_is(tmp_path, mlflow):
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage, given = f"sqlite:///{tmp_path / 'optuna.db'}", []

    def go(score: Callable[[dict], float]) -> None:
        def counted(parameters: dict) -> float:
            given.append(parameters)
            assert len(given) < 10, "the same trial is proposed for ever"
            return score(parameters)

        space = {"C": FloatDistribution(0.1, 1.0)}
        sweep(storage, "sweep of real data", "one", space, counted, total=3, first={"C": 0.5}, seed=0)

    with pytest.raises(ValueError, match=r"the score of \{'C': 0.\d+\} is nan: a trial needs a number"):
        go(lambda parameters: 0.7 if len(given) < 2 else float("nan"))
    assert [trial.value for trial in complete(open_study(storage, "one"))] == [0.7]
    go(lambda parameters: 0.8)
    assert [trial.value for trial in complete(open_study(storage, "one"))] == [0.7, 0.8, 0.8]


# --- The steps of the pipeline ---


@pytest.fixture
def steps(project, tmp_path, mlflow):
    """Retrieve, validate and train by the pipeline's own functions; gives the fitted model."""
    try:
        project.store.get_saved_dataset("april")
    except Exception:
        project.store.create_saved_dataset(
            from_=project.store.get_historical_features(project.labels.head(500), ["carrier:carrier_delay"]),
            name="april",
            storage=SavedDatasetFileStorage(path=str(project.folder / "april.parquet")),
            tags=suite_tag(SUITE),
        )

    def go(labels: pd.DataFrame, name: str):
        labels.to_parquet(tmp_path / f"{name}.parquet")
        table = dsl.Dataset(name="table", uri=str(tmp_path / f"{name}-table"))
        model = dsl.Model(name="model", uri=str(tmp_path / f"{name}-model"))
        report = dsl.HTML(name="report", uri=str(tmp_path / f"{name}-report"))
        common = {"experiment": "steps on real data"}
        parent = pipeline.retrieve_features.python_func(
            feature_repo=str(project.repo),
            labels=str(tmp_path / f"{name}.parquet"),
            feature_service="known",
            label="late",
            run_name=name,
            table=table,
            **common,
        )
        common |= {"parent_run": parent, "table": table}
        checked = pipeline.validate_features.python_func(
            feature_repo=str(project.repo), reference="april", report=report, **common
        )
        pipeline.train_model.python_func(
            checked=checked, C=1.0, degree=1, weights="equal", model=model, **common
        )
        return load(model.path)

    return go


def test_the_pipeline_refuses_what_it_cannot_train_on_and_takes_labels_in_any_order(project, steps):
    in_order = steps(project.labels, "in order")
    turned = steps(project.labels.iloc[::-1], "turned")
    assert turned[-1].coef_ == pytest.approx(in_order[-1].coef_, abs=1e-6)
    with pytest.raises(ValueError, match="the times of the entity table have no time zone"):
        steps(project.labels.assign(event_timestamp=without_zone(project.labels.event_timestamp)), "naive")
    with pytest.raises(ValueError, match="the table to be judged has no column late"):
        steps(project.labels.drop(columns="late"), "no label")


# --- Keys, and entities that come later ---


def test_a_key_with_spaces_and_accents_and_an_entity_that_is_new_are_answered(project, mlflow, monkeypatch):
    rows, _ = split(project.table)
    X = rows[project.contract.columns].astype("float64")
    model = new_model().fit(X, rows.late)
    mlflow.set_experiment("tests")
    with mlflow.start_run():
        logged = mlflow.sklearn.log_model(
            model,
            name="model",
            metadata={"feast": project.contract.to_dict()},
            input_example=X.head(5),
            serialization_format="skops",
            pip_requirements=["scikit-learn"],
        )
    version = mlflow.register_model(logged.model_uri, "late_departure").version
    mlflow.MlflowClient().set_registered_model_alias("late_departure", "production", version)
    project.store.materialize(END - timedelta(hours=6), END, feature_views=["airport", "carrier", "weather"])
    question = {"origin": "JFK", "carrier": ACCENTED, "scheduled_hour": 17.0}
    history = project.retrieve(pd.DataFrame([question | {"event_timestamp": END}]))
    assert history[project.contract.columns].notna().all(axis=None)
    expected = model.predict_proba(history[project.contract.columns])[:, 1].tolist()

    def v1(url: str, carrier: str) -> requests.Response:
        body = json.dumps({"instances": [question | {"carrier": carrier}]}, ensure_ascii=False).encode()
        headers = {"Content-Type": "application/json"}
        return requests.post(f"{url}/v1/models/late_departure:predict", body, headers=headers, timeout=30)

    def v2(url: str, carrier: str) -> requests.Response:
        given, kinds = (
            question | {"carrier": carrier},
            {"origin": "BYTES", "carrier": "BYTES", "scheduled_hour": "FP64"},
        )
        inputs = [
            {"name": n, "datatype": kind, "shape": [1], "data": [given[n]]} for n, kind in kinds.items()
        ]
        return requests.post(f"{url}/v2/models/late_departure/infer", json={"inputs": inputs}, timeout=30)

    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow.get_tracking_uri())
    command = [
        sys.executable,
        "-m",
        "lifecycle.serving",
        "--feature-repo",
        project.repo,
        "--model",
        "late_departure",
    ]
    command += ["--port", "{port}", "--now", END.timestamp()]
    health, log = "/v2/models/late_departure/ready", project.folder / "server.log"
    with Service("model server", command, health=health, log=log) as server:
        assert v1(server.url, ACCENTED).json()["predictions"] == pytest.approx(expected, abs=1e-12)
        assert v2(server.url, ACCENTED).json()["outputs"][0]["data"] == pytest.approx(expected, abs=1e-12)
        for ask in (v1, v2):
            for unknown in (ACCENTED.strip(), "Compañía Nueva"):
                refused = ask(server.url, unknown)
                assert refused.status_code == 404 and unknown in refused.json()["error"]
        # The new carrier's first features arrive; the model has never seen it, and needs to know nothing of it.
        first = {"origin": ["JFK"], "carrier": ["Compañía Nueva"], "event_timestamp": [END]}
        delays = pd.DataFrame(first | {"carrier_delay": [30.0], "carrier_flights": [3]})
        project.store.write_to_online_store("carrier", delays)
        answers = [ask(server.url, "Compañía Nueva") for ask in (v1, v2)]
        assert [answer.status_code for answer in answers] == [200, 200]
        like = history.assign(carrier_delay=30.0, carrier_flights=3)
        expected = model.predict_proba(like[project.contract.columns])[:, 1].tolist()
        assert answers[0].json()["predictions"] == pytest.approx(expected, abs=1e-12)
        assert answers[1].json()["outputs"][0]["data"] == answers[0].json()["predictions"]


def test_an_entity_that_is_new_has_no_history_and_keeps_its_row(project):
    asked_twice = pd.concat([project.labels.tail(5), project.labels.tail(5).assign(carrier="Compañía Nueva")])
    found = project.retrieve(asked_twice)
    assert found.carrier.tolist() == asked_twice.carrier.tolist()
    assert np.array_equal(project.values(found[:5]), project.values(project.table.tail(5)), equal_nan=True)
    assert found[5:].carrier_delay.isna().all() and found[5:].wind_speed.notna().all()

"""What the post's code does on the versions of this lock. docs/post-and-workshop.md names the post, and has a row for each test here.

Each test runs a line of the post, completed only as far as it must be, on a few rows of made-up data.
"""

from __future__ import annotations

import ast
import builtins
import inspect
import logging
import re
import sys
import time
import warnings
from datetime import datetime, timedelta
from importlib.metadata import metadata
from itertools import permutations
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from packaging.specifiers import SpecifierSet

from helpers.workspace import REPOSITORY

PAGE = REPOSITORY / "docs" / "post-and-workshop.md"
RATES = ["driver_hourly_stats:conv_rate", "driver_hourly_stats:acc_rate"]
ASKED = pd.to_datetime(["2025-01-01", "2025-01-02", "2025-01-03"])
STORE = (
    "project: post\nprovider: local\nregistry: registry.db\nonline_store: {type: sqlite, path: online.db}\n"
)
EXPIRED = 1004  # the driver whose last row is older than the time to live

# Lines as the post prints them, each from one of its listings.
ENTITY_ROWS = """
entity_df = pd.DataFrame({
    "driver_id": [1001, 1002, 1003],
    "event_timestamp": pd.to_datetime(["2025-01-01", "2025-01-02", "2025-01-03"]),
})
"""
VALIDATION = """
store = FeatureStore(repo_path=".")

reference_job = store.get_historical_features(
    entity_df=entity_df,
    features=["driver_hourly_stats:conv_rate", "driver_hourly_stats:acc_rate"],
)

dataset = store.create_saved_dataset(
    from_=reference_job,
    name="driver_stats_validation",
    storage=storage,
)

new_job = store.get_historical_features(
    entity_df=new_entity_df,
    features=["driver_hourly_stats:conv_rate", "driver_hourly_stats:acc_rate"],
)
"""
REGISTRATION = 'mlflow.register_model(f"runs:/{best_run_id}/model", "driver_conversion_model")'
IMPORTS = "from feast import FeatureStore\nimport mlflow\nimport pandas as pd\n"
PREDICTION = """
from feast import FeatureStore

store = FeatureStore(repo_path=".")

def predict(driver_id: int) -> float:
    features = store.get_online_features(
        features=["driver_hourly_stats:conv_rate", "driver_hourly_stats:acc_rate"],
        entity_rows=[{"driver_id": driver_id}],
    ).to_dict()
    return model.predict_proba([[features["conv_rate"][0], features["acc_rate"][0]]])[0][1]
"""


def view(folder, **more):
    """The post's feature view, with an entity object where the post has a string."""
    from feast import Entity, FeatureView, Field, FileSource, ValueType
    from feast.types import Float64, Int64

    path, key = str(folder / "driver_stats.parquet"), "event_timestamp"
    driver = Entity(name="driver", join_keys=["driver_id"], value_type=ValueType.INT64)
    schema = [Field(name=name, dtype=Float64) for name in ("conv_rate", "acc_rate")]
    schema.append(Field(name="avg_daily_trips", dtype=Int64))
    settings = {
        "name": "driver_hourly_stats",
        "entities": [driver],
        "ttl": timedelta(days=7),
        "schema": schema,
        "source": FileSource(path=path, timestamp_field=key),
    }
    return driver, FeatureView(**settings | more)


def open_store(folder, offline_store: str = ""):
    from feast import FeatureStore

    folder.mkdir(exist_ok=True)
    (folder / "feature_store.yaml").write_text(STORE + offline_store)
    return FeatureStore(repo_path=str(folder))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The two files of the post: a row per driver and day in December, and labels in January."""
    folder, random = tmp_path_factory.mktemp("the post"), np.random.default_rng(0)
    days = pd.date_range("2024-12-20", "2025-01-03", tz="UTC", unit="us")
    stats = pd.DataFrame([(driver, day) for driver in (1001, 1002, 1003) for day in days])
    stats.loc[len(stats)] = [EXPIRED, days[0]]
    stats.columns = ["driver_id", "event_timestamp"]
    rates = {name: random.uniform(0.1, 0.9, len(stats)).round(3) for name in ("conv_rate", "acc_rate")}
    stats.assign(**rates, avg_daily_trips=random.integers(5, 30, len(stats))).to_parquet(
        folder / "driver_stats.parquet"
    )
    keys = [(driver, day) for day in pd.to_datetime(ASKED, utc=True) for driver in (1003, 1001, 1002)]
    keys += [
        (EXPIRED, days[-1]),
        keys[0],
    ]  # a label without valid features, and a second label for one driver and day
    labels = pd.DataFrame(keys, columns=["driver_id", "event_timestamp"])
    labels["label"] = [0, 1, 1, 0, 0, 1, 1, 0, 1, 1, 1]
    labels.to_parquet(folder / "driver_labels.parquet")
    return folder


@pytest.fixture(scope="module")
def default(folder):
    """The store that the post's settings give: no offline store is named."""
    store = open_store(folder / "default")
    store.apply([*view(folder)])
    return store


@pytest.fixture(scope="module")
def store(folder):
    """The same on DuckDB, with all rows materialized."""
    store = open_store(folder / "duckdb", "offline_store: {type: duckdb}\n")
    store.apply([*view(folder)])
    store.materialize(pd.Timestamp("2024-12-01", tz="UTC"), pd.Timestamp("2025-02-01", tz="UTC"))
    return store


@pytest.fixture
def labels(folder) -> pd.DataFrame:
    return pd.read_parquet(folder / "driver_labels.parquet")


def frame(rows: int = 200, seed: int = 0) -> tuple[pd.DataFrame, pd.Series]:
    """Features and a label that follows the first of them."""
    random = np.random.default_rng(seed)
    X = pd.DataFrame(random.uniform(size=(rows, 3)), columns=["conv_rate", "acc_rate", "avg_daily_trips"])
    return X, (X.conv_rate + random.normal(0, 0.3, rows) > 0.5).astype(int)


def fitted(columns=("conv_rate", "acc_rate"), **parameters):
    from sklearn.linear_model import LogisticRegression

    X, y = frame()
    return LogisticRegression(**parameters).fit(X[[*columns]], y)


class Listener(logging.Handler):
    """What MLflow's loggers say inside the block."""

    def __enter__(self):
        self.said: list[str] = []
        logging.getLogger("mlflow").addHandler(self)
        return self

    def __exit__(self, *_):
        logging.getLogger("mlflow").removeHandler(self)

    def emit(self, record):
        self.said.append(record.getMessage())


@pytest.fixture(scope="module")
def logged(mlflow):
    """The post's run: a model logged with `artifact_path`. Requirements are given, as finding them takes seconds."""
    with Listener() as listener, mlflow.start_run() as run, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mlflow.sklearn.log_model(fitted(), artifact_path="model", pip_requirements=[])
        mlflow.log_param("features", ["conv_rate", "acc_rate"])
    return SimpleNamespace(run_id=run.info.run_id, said=" ".join(listener.said))


# Features


def test_an_entity_given_as_a_string_is_refused(folder):
    with pytest.raises(Exception, match=r"item 0 is not an instance of feast\.entity\.Entity"):
        view(folder, entities=["driver_id"])


def test_a_script_beside_the_definitions_is_executed_by_apply(tmp_path, monkeypatch):
    from feast.repo_operations import parse_repo

    (tmp_path / "feature_store.yaml").write_text(STORE)
    script = "from pathlib import Path\nPath('trained').touch()\n"
    (tmp_path / "train_the_posts_model.py").write_text(script)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    parse_repo(tmp_path)  # what `feast apply` and `feast plan` do first
    assert (tmp_path / "trained").exists()


def test_without_a_created_column_the_order_in_the_file_decides_which_correction_counts(tmp_path):
    from feast import FileSource

    hour, day = pd.Timestamp("2025-01-02", tz="UTC").as_unit("us"), timedelta(days=1)
    path, times = str(tmp_path / "driver_stats.parquet"), {"timestamp_field": "event_timestamp"}
    rows = pd.DataFrame({"created": [hour, hour + day], "conv_rate": [0.9, 0.2], "acc_rate": 0.5})
    rows = rows.assign(driver_id=1, event_timestamp=hour, avg_daily_trips=9)  # 0.2 is the correction of 0.9
    question = pd.DataFrame({"driver_id": [1], "event_timestamp": [hour + 2 * day]})
    sources = {
        "post": FileSource(path=path, **times),
        "workshop": FileSource(path=path, **times, created_timestamp_column="created"),
    }
    found = {name: set() for name in sources}
    for name, source in sources.items():
        store = open_store(tmp_path / name, "offline_store: {type: duckdb}\n")
        store.apply([*view(tmp_path, source=source)])
        for order in (rows, rows[::-1]):
            order.to_parquet(path)
            store.materialize(hour - day, hour + day)
            found[name].add(store.get_historical_features(question, RATES).to_df().conv_rate[0])
            found[name].add(store.get_online_features(RATES, [{"driver_id": 1}]).to_dict()["conv_rate"][0])
    assert found == {"post": {0.9, 0.2}, "workshop": {0.2}}


def test_the_training_example_has_no_label(default):
    printed = {"pd": pd}
    exec(ENTITY_ROWS, printed)
    entity_df = printed["entity_df"]
    with pytest.raises(KeyError, match="label"):  # what the post's training step reads: y = df["label"]
        default.get_historical_features(entity_df=entity_df, features=RATES).to_df()["label"]
    labelled = default.get_historical_features(
        entity_df=entity_df.assign(label=[0, 1, 1]), features=RATES
    ).to_df()
    assert sorted(labelled["label"]) == [0, 1, 1]


def test_the_default_store_loses_merges_and_reorders_labels(default, store, labels):
    kept = {}
    for name, one in (("default", default), ("duckdb", store)):
        numbered = labels.assign(row=range(len(labels)))
        kept[name] = one.get_historical_features(entity_df=numbered, features=RATES).to_df()
    assert sorted(kept["duckdb"].row) == list(range(len(labels)))
    assert EXPIRED not in set(kept["default"].driver_id)
    assert len(kept["default"]) == len(labels) - 2, (
        "the expired row is lost, and two labels of one key became one"
    )
    assert not kept["default"].row.is_monotonic_increasing


def test_a_label_without_valid_features_stops_the_fit(store, labels):
    from sklearn.linear_model import LogisticRegression

    feature_df = store.get_historical_features(entity_df=labels, features=RATES).to_df()
    with pytest.raises(ValueError, match="Input X contains NaN"):
        LogisticRegression().fit(feature_df[["conv_rate", "acc_rate"]], feature_df["label"])


def test_incremental_materialization_of_last_years_data_loads_nothing(default):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        default.materialize_incremental(end_date=datetime.utcnow())
    rows = [{"driver_id": 1001}]
    assert default.get_online_features(features=RATES, entity_rows=rows).to_dict()["conv_rate"] == [None]
    default.materialize(pd.Timestamp("2024-12-01", tz="UTC"), pd.Timestamp("2025-02-01", tz="UTC"))
    assert default.get_online_features(features=RATES, entity_rows=rows).to_dict()["conv_rate"] != [None]


def test_utcnow_means_another_moment_outside_feast(monkeypatch):
    from feast.utils import make_tzaware

    try:
        with monkeypatch.context() as patch, warnings.catch_warnings(record=True) as caught:
            patch.setenv("TZ", "Asia/Kolkata")  # five and a half hours ahead
            time.tzset()
            warnings.simplefilter("always")
            moment, now = datetime.utcnow(), time.time()
            for_feast, for_python = make_tzaware(moment).timestamp(), moment.timestamp()
    finally:
        time.tzset()
    assert abs(for_feast - now) < 60, "Feast takes it for UTC"
    assert round((now - for_python) / 3600, 1) == 5.5, "Python takes it for local time"
    if sys.version_info >= (3, 12):
        assert [warning.category for warning in caught] == [DeprecationWarning]


def test_online_keys_are_the_bare_feature_names_unless_full_names_are_asked_for(store):
    rows = [{"driver_id": 1001}]
    assert set(store.get_online_features(RATES, rows).to_dict()) == {"driver_id", "conv_rate", "acc_rate"}
    full = store.get_online_features(RATES, rows, full_feature_names=True).to_dict()
    assert set(full) == {"driver_id", "driver_hourly_stats__conv_rate", "driver_hourly_stats__acc_rate"}


def test_the_online_store_serves_what_training_calls_expired(store):
    question = pd.DataFrame(
        {"driver_id": [EXPIRED], "event_timestamp": [pd.Timestamp("2025-01-03", tz="UTC")]}
    )
    assert store.get_historical_features(question, RATES).to_df().conv_rate.isna().all()
    assert store.get_online_features(RATES, [{"driver_id": EXPIRED}]).to_dict()["conv_rate"][0] is not None


def driver_ratios(inputs):
    df = inputs.copy()
    df["conv_acc_ratio"] = df["conv_rate"] / (df["acc_rate"] + 1e-6)
    return df[["conv_acc_ratio"]]


@pytest.fixture(scope="module")
def on_demand(folder):
    """A store with the post's on-demand view, and the warnings of defining and reading it."""
    from feast import Field
    from feast.on_demand_feature_view import on_demand_feature_view
    from feast.types import Float64

    store = open_store(folder / "on demand", "offline_store: {type: duckdb}\n")
    driver, driver_stats = view(folder)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        schema = [Field(name="conv_acc_ratio", dtype=Float64)]
        ratios = on_demand_feature_view(sources=[driver_stats], schema=schema)(driver_ratios)
        store.apply([driver, driver_stats, ratios])
        question = pd.DataFrame({"driver_id": [1001], "event_timestamp": ASKED[:1]})
        history = store.get_historical_features(question, ["driver_ratios:conv_acc_ratio"]).to_df()
    return SimpleNamespace(
        store=store, mode=ratios.mode, history=history, said=[str(w.message) for w in caught]
    )


def test_an_on_demand_view_warns_and_without_a_mode_makes_tables_online(on_demand, monkeypatch):
    assert [text for text in on_demand.said if "does not scale well for offline retrieval" in text]
    assert on_demand.mode == "pandas"
    made, table = [], pd.DataFrame.copy
    monkeypatch.setattr(
        pd.DataFrame, "copy", lambda df, *args, **named: (made.append(df), table(df, *args, **named))[1]
    )
    on_demand.store.get_online_features(["driver_ratios:conv_acc_ratio"], [{"driver_id": 1001}])
    assert [df for df in made if {"conv_rate", "acc_rate"} <= set(df)], (
        "the function's `inputs.copy()` had no table"
    )


def test_an_on_demand_view_adds_columns_that_nobody_asked_for(on_demand):
    assert {"conv_rate", "acc_rate", "avg_daily_trips"} < set(on_demand.history)


def test_the_schema_is_not_in_the_declared_order(folder, store):
    feature_view = store.get_feature_view("driver_hourly_stats")
    assert "driver_id" in {field.name for field in feature_view.schema}
    kept = []
    for declared in permutations(feature_view.features):
        _, driver_stats = view(folder, schema=[*declared])
        kept.append([f.name for f in driver_stats.schema] == [f.name for f in declared])
    assert len(kept) == 6 and not all(kept), "the order is that of hashes, whatever was declared"


# Validation


def test_feasts_profiler_cannot_be_imported_with_todays_great_expectations():
    with pytest.raises(ModuleNotFoundError, match=r"great_expectations\.dataset"):
        from feast.dqm.profilers.ge_profiler import ge_profiler  # noqa: F401
    with pytest.raises(ModuleNotFoundError, match=r"great_expectations\.dataset"):
        from great_expectations.dataset import PandasDataset  # noqa: F401


def test_the_method_that_dropped_broken_rules_now_keeps_them_against_its_own_default():
    # The post's class is gone. Great Expectations' validator has a method of the same name, with the same default.
    import great_expectations as gx
    from great_expectations.data_context.types.base import ProgressBarsConfig

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    batch = (
        context.data_sources.add_pandas("p")
        .add_dataframe_asset("a")
        .add_batch_definition_whole_dataframe("b")
    )
    batch = batch.get_batch({"dataframe": pd.DataFrame({"conv_rate": [0.1, 0.9], "acc_rate": [0.2, 0.8]})})
    dataset = context.get_validator(batch=batch, create_expectation_suite_with_name="post")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert not dataset.expect_column_values_to_be_between("conv_rate", min_value=0, max_value=0.5).success
        assert dataset.expect_column_values_to_be_between("acc_rate", min_value=0, max_value=1).success
    suite = dataset.get_expectation_suite
    assert inspect.signature(suite).parameters["discard_failed_expectations"].default is True
    assert [rule.column for rule in suite().expectations] == ["conv_rate", "acc_rate"]


@pytest.fixture(scope="module")
def saved(store, folder):
    """The post's saved dataset, with the storage that the post does not define."""
    from feast.infra.offline_stores.file_source import SavedDatasetFileStorage

    question = pd.DataFrame({"driver_id": [1001, 1002, 1003], "event_timestamp": ASKED})
    job = store.get_historical_features(entity_df=question, features=RATES)
    storage = SavedDatasetFileStorage(path=str(folder / "saved.parquet"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return store.create_saved_dataset(from_=job, name="driver_stats_validation", storage=storage)


def test_a_second_run_cannot_save_the_dataset_again(store, saved):
    question = pd.DataFrame({"driver_id": [1001], "event_timestamp": ASKED[:1]})
    job = store.get_historical_features(entity_df=question, features=RATES)
    with pytest.raises(Exception, match=r"(?i)exist"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        store.create_saved_dataset(from_=job, name="driver_stats_validation", storage=saved.storage)


def test_the_reference_cannot_be_kept_in_the_registry(store, saved):
    from feast.dqm.profilers.profiler import Profile, Profiler

    class Nothing(Profiler):
        def analyze_dataset(self, dataset):
            return Profile()

    reference = saved.as_reference(name="driver_stats_ref", profiler=Nothing())
    with pytest.raises(ModuleNotFoundError, match="great_expectations"):
        store.apply([reference])


def never_assigned(code: str) -> set[str]:
    """The names that a listing uses and neither assigns, imports, defines nor takes as an argument."""
    used, known = set(), set(dir(builtins))
    for node in ast.walk(ast.parse(code)):
        match node:
            case ast.Name(id=name, ctx=ast.Load()):
                used.add(name)
            case ast.Name(id=name) | ast.arg(arg=name) | ast.FunctionDef(name=name):
                known.add(name)
            case ast.Import(names=found) | ast.ImportFrom(names=found):
                known |= {alias.asname or alias.name for alias in found}
    return used - known


def test_three_names_are_never_defined():
    printed = IMPORTS + ENTITY_ROWS + VALIDATION + REGISTRATION
    assert never_assigned(printed) == {"storage", "new_entity_df", "best_run_id"}


# Experiments and models


def test_a_split_without_a_seed_gives_another_score_each_time():
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import train_test_split

    X, y = frame()
    scores = set()
    for _ in range(8):
        X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.2)
        model = LogisticRegression().fit(X_train, y_train)
        scores.add(roc_auc_score(y_test, model.predict_proba(X_test)[:, 1]))
    assert len(scores) > 1


def test_a_random_split_trains_on_days_after_those_it_is_tested_on(labels):
    from sklearn.model_selection import train_test_split

    train, test = train_test_split(labels, test_size=0.2, random_state=42)
    assert train.event_timestamp.max() > test.event_timestamp.min()


def test_the_best_of_many_on_the_test_set_looks_good_on_pure_noise():
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import train_test_split

    random = np.random.default_rng(0)
    X, y = pd.DataFrame(random.normal(size=(1200, 20))), random.integers(0, 2, 1200)
    later_X, later_y = X[400:], y[400:]  # kept apart, as new data would be
    X_train, X_test, y_train, y_test = train_test_split(X[:400], y[:400], test_size=0.2, random_state=42)
    fits = {column: LogisticRegression().fit(X_train[[column]], y_train) for column in X}
    on_test = {c: roc_auc_score(y_test, fit.predict_proba(X_test[[c]])[:, 1]) for c, fit in fits.items()}
    best = max(on_test, key=on_test.get)
    assert on_test[best] > 0.58
    assert abs(roc_auc_score(later_y, fits[best].predict_proba(later_X[[best]])[:, 1]) - 0.5) < 0.05


def test_max_iter_tunes_nothing():
    from sklearn.linear_model import LogisticRegression

    X, y = frame()
    X = X.assign(
        avg_daily_trips=30 * X.avg_daily_trips
    )  # trips and rates on scales of their own, as in the post
    few, many = (LogisticRegression(max_iter=most).fit(X, y) for most in (100, 1000))
    assert few.n_iter_ < 100
    assert (few.coef_ == many.coef_).all()


@pytest.fixture(scope="module")
def sweep(mlflow):
    """The post's sweep, cut to three trials, run twice."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    X, y = frame(seed=1)

    def objective(trial):
        C = trial.suggest_float("C", 1e-3, 10.0, log=True)
        with mlflow.start_run(nested=True):
            mlflow.log_params({"C": C})
        return fitted(C=C).score(X[["conv_rate", "acc_rate"]], y)

    studies = [optuna.create_study(direction="maximize") for _ in range(2)]
    for study in studies:
        with mlflow.start_run(run_name="optuna_sweep") as parent:
            study.optimize(objective, n_trials=3)
    return SimpleNamespace(studies=studies, parent=mlflow.get_run(parent.info.run_id))


def test_an_unseeded_study_tries_other_values_each_time(sweep):
    first, second = ([trial.params for trial in study.trials] for study in sweep.studies)
    assert first != second


def test_the_parent_run_of_the_sweep_holds_no_result(sweep):
    assert sweep.parent.data.metrics == {}
    assert sweep.parent.data.params == {}


def test_artifact_path_is_deprecated(logged):
    assert "`artifact_path` is deprecated" in logged.said


def test_the_model_is_no_artifact_of_the_run(logged, mlflow):
    assert mlflow.MlflowClient().list_artifacts(logged.run_id) == []
    assert mlflow.get_run(logged.run_id).outputs.model_outputs


def test_registering_by_the_runs_address_works_through_a_fallback_alone(logged, mlflow):
    with Listener() as listener:
        version = mlflow.register_model(f"runs:/{logged.run_id}/model", "by_run")
    assert "has no artifacts at artifact path 'model'" in " ".join(listener.said)
    assert version.source.startswith("models:/m-")


def test_version_three_does_not_exist_after_one_registration(logged, mlflow):
    mlflow.register_model(f"runs:/{logged.run_id}/model", "once")
    client = mlflow.tracking.MlflowClient()
    with pytest.raises(mlflow.MlflowException, match=r"Model Version .*version=3.* not found"):
        client.set_registered_model_alias(name="once", alias="production", version="3")


def test_the_logged_feature_list_is_text_without_views(logged, mlflow):
    assert mlflow.get_run(logged.run_id).data.params["features"] == "['conv_rate', 'acc_rate']"


def test_the_logged_configuration_holds_no_definitions(store, folder, mlflow, tmp_path):
    from feast import FeatureStore

    with mlflow.start_run() as run:
        mlflow.log_artifact(str(folder / "duckdb" / "feature_store.yaml"), artifact_path="feast_config")
    back = mlflow.artifacts.download_artifacts(run_id=run.info.run_id, artifact_path="feast_config")
    assert [view.name for view in store.list_feature_views()] == ["driver_hourly_stats"]
    assert FeatureStore(repo_path=back).list_feature_views() == []
    absolute = STORE.replace("registry.db", str(folder / "duckdb" / "registry.db"))
    (tmp_path / "feature_store.yaml").write_text(absolute)
    found = FeatureStore(repo_path=str(tmp_path)).list_feature_views()
    assert [view.name for view in found] == ["driver_hourly_stats"], (
        "from the registry that everybody changes"
    )


def test_a_folder_of_files_is_refused_as_tracking_backend(mlflow, tmp_path):
    with pytest.raises(mlflow.MlflowException, match="maintenance mode"):
        mlflow.MlflowClient(f"file://{tmp_path}/mlruns").search_experiments()


# Pipeline


@pytest.fixture(scope="module")
def component():
    """The settings of the post's first component, on a component that does nothing."""
    from kfp import dsl

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")

        @dsl.component(
            base_image="python:3.10-slim",
            packages_to_install=["feast", "mlflow", "scikit-learn", "pandas", "pyarrow"],
        )
        def step():
            pass

    return step.component_spec.implementation.container


def test_the_components_install_whatever_is_newest(component):
    script = " ".join([*component.command, *(component.args or [])])
    assert re.search(r"pip install [^&]*'feast' 'mlflow' 'scikit-learn' 'pandas' 'pyarrow'", script)


def test_the_components_image_is_too_old_for_todays_versions(component):
    assert component.image == "python:3.10-slim"
    assert not SpecifierSet(metadata("scikit-learn")["Requires-Python"]).contains("3.10.19")


# Serving


def test_the_listing_that_predicts_loads_no_model(store, folder, monkeypatch):
    monkeypatch.chdir(folder / "duckdb")
    printed = {}
    exec(PREDICTION, printed)
    with pytest.raises(NameError, match="name 'model' is not defined"):
        printed["predict"](1001)
    printed["model"] = fitted()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert 0 < printed["predict"](1001) < 1


def test_a_bare_list_warns_that_it_has_no_feature_names():
    with pytest.warns(UserWarning, match="X does not have valid feature names"):
        fitted().predict_proba([[0.4, 0.8]])


def test_features_by_position_can_be_swapped_unnoticed():
    model = fitted()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        right, swapped = (model.predict_proba([row])[0][1] for row in ([0.1, 0.9], [0.9, 0.1]))
    assert abs(right - swapped) > 0.3
    with pytest.raises(ValueError, match="feature names should match"):
        model.predict_proba(pd.DataFrame({"acc_rate": [0.9], "conv_rate": [0.1]}))


def test_an_unknown_driver_ends_in_an_error_that_does_not_name_it(store):
    features = store.get_online_features(RATES, [{"driver_id": 9999}]).to_dict()
    assert features["conv_rate"] == [None]
    with pytest.raises(TypeError, match="NoneType"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fitted().predict_proba([[features["conv_rate"][0], features["acc_rate"][0]]])


# The page


def test_each_row_of_the_page_names_a_test_and_each_test_has_a_row():
    named = re.findall(r"^\|.*\| `(test_\w+)` \|$", PAGE.read_text(encoding="utf-8"), re.M)
    here = [
        name for name, thing in globals().items() if name.startswith("test_") and inspect.isfunction(thing)
    ]
    own = {name for name in here if name.startswith("test_each_row_of_the_page")}
    assert len(named) == len(set(named))
    assert set(named) == set(here) - own


def test_each_row_of_the_page_links_to_a_place_that_exists():
    text = PAGE.read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.endswith("` |")]
    assert rows and all("](" in line.split(" | ")[2] for line in rows), (
        "each row links to what the workshop does"
    )
    assert [link for link in re.findall(r"\]\(([^)#]+)", text) if not (PAGE.parent / link).exists()] == []

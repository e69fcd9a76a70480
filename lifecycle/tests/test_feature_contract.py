"""The feature contract on real stores: aliases, names that meet, meanings, and files behind a view."""

from __future__ import annotations

import itertools
import textwrap
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fastapi import HTTPException
from feast import (
    Entity,
    FeatureService,
    FeatureStore,
    FeatureView,
    Field,
    FileSource,
    KafkaSource,
    RequestSource,
    ValueType,
)
from feast.data_format import JsonFormat
from feast.feature_logging import LoggingConfig
from feast.infra.offline_stores.contrib.postgres_offline_store.postgres_source import PostgreSQLSource
from feast.infra.offline_stores.file_source import FileLoggingDestination, SavedDatasetFileStorage
from feast.infra.offline_stores.snowflake_source import SnowflakeSource
from feast.on_demand_feature_view import OnDemandFeatureView, on_demand_feature_view
from feast.transformation.python_transformation import PythonTransformation
from feast.types import Bool, Float64, Int32, Int64
from great_expectations import ExpectationSuite
from great_expectations.expectations import ExpectColumnMeanToBeBetween
from kfp import local
from kserve.errors import InvalidInput
from pipeline_steps import in_process
from sklearn.linear_model import Ridge

from helpers.workspace import REPOSITORY
from lifecycle.features.contract import ContractError, FeatureContract, definitions
from lifecycle.features.declared import check_files
from lifecycle.features.materializing import materialize
from lifecycle.features.online import OnlineReader
from lifecycle.features.retrieval import historical_features
from lifecycle.features.validation import suite_tag
from lifecycle.models.model import TYPES, needed_types, new_model
from lifecycle.models.recipe import Recipe
from lifecycle.models.versions import load_version, version_by_alias
from lifecycle.serving.open_inference import rows_of_v1
from lifecycle.serving.prediction_log import read_log
from lifecycle.serving.scoring import FeatureModel
from lifecycle.serving.watching import input_types, pinned
from lifecycle.settings import Materialization, Settings
from lifecycle.training import pipeline
from lifecycle.training.katib_trial import trial
from lifecycle.training.outcome import read_record
from lifecycle.training.retrain import retrain

pytestmark = pytest.mark.unit
NOON = datetime(2025, 3, 1, 12, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
STORE = """
project: market
provider: local
registry: registry.db
online_store: {type: sqlite, path: online_store.db}
offline_store: {type: %s}
entity_key_serialization_version: 3
"""
user = Entity(name="user", join_keys=["id"], value_type=ValueType.INT64)
item = Entity(name="item", join_keys=["item_id"], value_type=ValueType.INT64)
request = RequestSource(name="request", schema=[Field(name="price", dtype=Float64)])


def view(folder: Path, name: str, keys: list[Entity], ttl: timedelta = DAY, **columns: list) -> FeatureView:
    """A view over a new file of hourly rows: the entity's number, and random values of the features."""
    draw = np.random.default_rng(len(name))
    rows = pd.DataFrame(list(itertools.product(range(-3, 40), range(6))), columns=["key", "hour"])
    table = pd.DataFrame({key.join_key: rows.key for key in keys})
    table["event_timestamp"] = pd.to_datetime([NOON - HOUR * hour for hour in rows.hour]).as_unit("us")
    for column, dtype in columns.items():
        values = draw.normal(size=len(table))
        table[column] = values if dtype == Float64 else (values * 1000).astype("int64")
    table.to_parquet(folder / f"{name}.parquet")
    source = FileSource(
        name=f"{name}_rows", path=str(folder / f"{name}.parquet"), timestamp_field="event_timestamp"
    )
    schema = [Field(name=key.join_key, dtype=Int64) for key in keys]
    schema += [Field(name=column, dtype=dtype) for column, dtype in columns.items()]
    return FeatureView(name=name, entities=keys, ttl=ttl, schema=schema, source=source)


def store_in(folder: Path, *objects, kind: str = "duckdb") -> FeatureStore:
    folder.mkdir(exist_ok=True)
    (folder / "feature_store.yaml").write_text(STORE % kind)
    store = FeatureStore(repo_path=str(folder))
    store.apply([user, item, *objects])
    return store


def on_demand(function, sources: list, *outputs: str, mode: str = "python"):
    schema = [Field(name=output, dtype=Float64) for output in outputs]
    return on_demand_feature_view(sources=sources, schema=schema, mode=mode)(function)


def worth(inputs):
    pairs = zip(inputs["rating"], inputs["price"], strict=True)
    return {"worth": [None if rating is None else rating * price for rating, price in pairs]}


class Market:
    """Buyers and sellers are users; users and items both have a rating; a worth is computed of a user's."""

    def __init__(self, folder: Path):
        self.repo = folder / "repo"
        self.repo.mkdir(parents=True)
        users = view(folder, "users", [user], rating=Float64, trips=Int64)
        items = view(folder, "items", [item], ttl=2 * HOUR, rating=Float64, sold=Float64)
        self.worth = on_demand(worth, [users[["rating"]], request], "worth")
        buyer = users.with_name("buyer").with_join_key_map({"id": "buyer_id"})
        seller = users.with_name("seller").with_join_key_map({"id": "seller_id"})
        self.services = {
            "aliased": [buyer, seller[["trips"]], items[["rating"]]],
            "beside its own name": [users[["trips"]].with_name("users"), buyer[["rating"]]],
            "with a computed feature": [buyer, items[["rating"]], self.worth],
            "same names": [users[["rating"]], items[["rating", "sold"]]],
            "read along": [items[["rating"]], self.worth],
            "plain": [users],
        }
        log = LoggingConfig(destination=FileLoggingDestination(path=str(folder / "log")))
        services = [FeatureService(name=n, features=p, logging_config=log) for n, p in self.services.items()]
        self.store = store_in(self.repo, users, items, self.worth, *services)
        self.store.materialize(NOON - DAY, NOON)

    def rows(self, contract: FeatureContract, count: int = 300) -> pd.DataFrame:
        draw = np.random.default_rng(1)
        asked = pd.DataFrame({key: draw.integers(-3, 40, count) for key in contract.join_keys})
        for field in contract.request_fields:
            asked[field] = draw.normal(size=count)
        return asked.assign(event_timestamp=pd.Timestamp(NOON), label=draw.integers(0, 2, count))

    def by_pandas(self, name: str, keys: pd.Series, column: str) -> np.ndarray:
        table = pd.read_parquet(self.repo.parent / f"{name}.parquet")
        latest = table[table.event_timestamp == NOON].set_index("id" if name == "users" else "item_id")
        return latest[column].loc[keys].to_numpy()


@pytest.fixture(scope="module")
def market(tmp_path_factory) -> Market:
    return Market(tmp_path_factory.mktemp("market"))


EXPECTED = {
    "aliased": ["buyer__rating", "buyer__trips", "seller__trips", "items__rating"],
    "beside its own name": ["trips", "rating"],
    "with a computed feature": ["buyer__rating", "trips", "items__rating", "worth"],
    "same names": ["users__rating", "items__rating", "sold"],
    "read along": ["rating", "worth"],
    "plain": ["rating", "trips"],
}


@pytest.mark.parametrize("service", EXPECTED)
def test_retrieval_materialization_and_the_online_read_agree(market, service, tmp_path):
    contract = FeatureContract.from_feature_service(market.store, service, "label")
    assert contract.columns == EXPECTED[service]
    assert FeatureContract.from_dict(contract.to_dict()) == contract
    assert ("aliases" in contract.to_dict()) == ("buyer" in str(contract.feature_refs))
    contract.check(market.store)
    views = ["items", "users"] if "items" in str(contract.definitions) else ["users"]
    assert contract.base_views(market.store) == views
    # A column with the name of an input of a function, and one that Feast's plan uses itself.
    asked = market.rows(contract).assign(entity_row_id="x", trips_given=1.0)
    offline = historical_features(market.store, asked, market.store.get_feature_service(service))
    assert list(offline) == [*asked, *contract.columns]
    own = pinned(market.store, tmp_path, contract.definitions)
    reader = OnlineReader(own, contract)
    online = reader.read(asked[[*contract.join_keys, *contract.request_fields]].to_dict("records"))
    for column in contract.columns:
        np.testing.assert_array_equal(
            np.array(online[column], "float64"), offline[column].to_numpy("float64")
        )
    assert all(set(online[f"{column}__ts"]) == {int(NOON.timestamp())} for column in reader.limits)
    ages = {"aliased": [86400.0] * 3 + [7200.0], "read along": [7200.0, 86400.0], "plain": [86400.0] * 2}
    assert service not in ages or list(reader.limits.values()) == ages[service]
    if service in ("aliased", "beside its own name"):
        keys = {
            "buyer__rating": "buyer_id",
            "rating": "buyer_id",
            "seller__trips": "seller_id",
            "trips": "id",
        }
        for column in set(keys) & set(offline):
            feature = column.rpartition("__")[2]
            expected = market.by_pandas("users", asked[keys[column]], feature)
            np.testing.assert_array_equal(offline[column], expected)


@pytest.fixture
def mlflow(tmp_path, monkeypatch):
    """MLflow on a database of the test's own."""
    import mlflow
    from mlflow.tracking import fluent
    from mlflow.tracking._tracking_service import utils

    monkeypatch.chdir(tmp_path)  # where the store is opened, it puts the artifacts
    monkeypatch.setattr(utils, "_tracking_uri", f"sqlite:///{tmp_path / 'mlflow.db'}")
    monkeypatch.setattr(fluent, "_active_experiment_id", None)
    return mlflow


def test_a_model_of_two_aliases_is_trained_logged_and_served(market, mlflow):
    contract = FeatureContract.from_feature_service(market.store, "with a computed feature", "label")
    assert input_types(market.store, contract) == {
        "item_id": "INT64", "buyer_id": "INT64", "id": "INT64", "price": "FP64"
    }  # fmt: skip
    table = historical_features(
        market.store, market.rows(contract), market.store.get_feature_service(contract.feature_service)
    )
    X = table[contract.columns].astype("float64")
    model = new_model(degree=2).fit(X, table.label)
    mlflow.set_experiment("market")
    with mlflow.start_run():
        how = {
            "serialization_format": "skops",
            "pip_requirements": ["scikit-learn"],
            "input_example": X.head(),
        }
        logged = mlflow.sklearn.log_model(model, name="model", metadata={"feast": contract.to_dict()}, **how)
    version = mlflow.register_model(logged.model_uri, "market").version
    mlflow.MlflowClient().set_registered_model_alias("market", "production", version)
    server = FeatureModel("market", market.repo, "production", now=NOON.timestamp() + 60)
    try:
        rows = table[[*contract.join_keys, *contract.request_fields]].to_dict("records")
        scores, _ = server.score(rows)
        np.testing.assert_allclose(scores, model.predict_proba(X)[:, 1], atol=1e-12)
        with pytest.raises(HTTPException, match=r"buyer_id=4000.*missing buyer__rating, trips"):
            server.score([rows[0] | {"buyer_id": 4000}])
        server.now = NOON.timestamp() + 3 * 3600
        with pytest.raises(HTTPException, match=r"stale items__rating"):
            server.score(rows[:1])
    finally:
        server.stop()
    log = read_log(market.store, contract.feature_service, NOON, NOON + HOUR)
    assert len(log) == len(table) and log.score.tolist() == pytest.approx(scores.tolist())
    assert log.buyer__rating.tolist() == table.buyer__rating.tolist() and log.id.tolist() == table.id.tolist()


def test_a_regression_on_two_aliases_goes_from_the_trial_to_the_server_and_is_retrained(
    market, mlflow, tmp_path
):
    """Katib's trial, the pipeline's steps, materialization's views, the server, and a retraining."""
    service, name = market.store.get_feature_service("aliased"), "worth"
    contract = FeatureContract.from_feature_service(market.store, service.name, "label")
    asked, draw = market.rows(contract, 900), np.random.default_rng(7)
    asked["event_timestamp"] = pd.to_datetime(NOON - HOUR * draw.integers(0, 6, len(asked)))
    table = historical_features(market.store, asked, service)
    asked["label"] = 3 * table.buyer__rating - table.items__rating + draw.normal(scale=0.1, size=len(asked))
    asked.assign(note=None).to_parquet(tmp_path / "labels.parquet")  # a column that is nobody's

    metric = "neg_mean_absolute_error"
    model = {"estimator": "sklearn.linear_model:Ridge", "task": "regression", "metric": metric}
    types = needed_types(Ridge().fit(table[contract.columns], asked.label))
    inputs = {"feature_repo": str(market.repo), "labels": str(tmp_path / "labels.parquet")}
    inputs |= {"feature_service": service.name, "label": "label"}
    assert -0.2 < trial(**inputs, **model, alpha="0.1") < -0.05, "the noise's"

    rule = ExpectColumnMeanToBeBetween(column="items__rating", min_value=-1, max_value=1)
    market.store.create_saved_dataset(
        market.store.get_historical_features(asked[["item_id", "event_timestamp"]], ["items:rating"]),
        name="worth",
        storage=SavedDatasetFileStorage(path=str(tmp_path / "reference.parquet")),
        tags=suite_tag(ExpectationSuite("worth", expectations=[rule])),
        allow_overwrite=True,
    )
    settings = Settings(
        feature_repo=str(market.repo),
        feature_service=service.name,
        labels=inputs["labels"],
        label="label",
        reference="worth",
        model=name,
        pipeline=str(REPOSITORY / "cluster" / "training_pipeline.yaml"),
        training={**model, "types": types, "threshold": -0.2, "hyperparameters": {"alpha": 0.1}},
        retraining={"outputs": str(tmp_path / "weekly"), "experiment": name},
    )
    local.init(local.SubprocessRunner(use_venv=False), pipeline_root=str(tmp_path / "out"))
    given = pipeline.arguments(settings, "first", Recipe.from_settings(settings.training))
    with in_process():
        pipeline.run_file(settings.pipeline, given, tmp_path / "log")
    client = mlflow.MlflowClient()
    record = read_record(client.get_model_version(name, "1").tags["pipeline.parent_run"])
    assert (record.rows, record.metric) == (len(asked), metric) and -0.2 < record.score < -0.05
    assert record.dropped == {}
    client.set_registered_model_alias(name, "production", "1")

    allowed = TYPES | {*types}
    server = FeatureModel(
        name, market.repo, "production", now=NOON.timestamp() + 60, types=allowed, task="regression"
    )
    try:
        now = asked.assign(event_timestamp=pd.Timestamp(NOON))
        X = historical_features(market.store, now, service)[contract.columns]
        fitted, _ = load_version(
            name, version_by_alias(client, name, "production"), types=allowed, task="regression"
        )
        values, _ = server.score(now[[*contract.join_keys]].to_dict("records"))
        np.testing.assert_allclose(values, fitted.predict(X), atol=1e-12)
        assert min(values) < 0 and max(values) > 1, "values, not probabilities"
    finally:
        server.stop()

    with in_process() as ran:
        outcome = retrain(settings)
    assert "compare_with_champion" in ran and f" {metric} -0." in outcome.said


def test_a_change_of_an_aliased_view_of_an_alias_or_of_its_keys_is_noticed(market, tmp_path):
    users = view(tmp_path, "users", [user], rating=Float64)
    for number, (change, says) in enumerate(
        [
            ({"ttl": 2 * DAY}, "the definition of users has changed"),
            (
                {"keys": "payer_id"},
                "join_key_maps is buyer: id: payer_id in the registry and buyer: id: buyer_id",
            ),
            ({"alias": "payer"}, "feature_refs is payer:rating"),
        ]
    ):
        service = lambda v, a="buyer", k="buyer_id": FeatureService(  # noqa: E731
            name="s", features=[v.with_name(a).with_join_key_map({"id": k})]
        )
        store = store_in(tmp_path / str(number), users, service(users))
        contract = FeatureContract.from_feature_service(store, "s", "label")
        assert list(contract.definitions) == ["users"]
        contract.check(store)
        changed = view(tmp_path, "users", [user], ttl=change.get("ttl", DAY), rating=Float64)
        store.apply([changed, service(changed, change.get("alias", "buyer"), change.get("keys", "buyer_id"))])
        with pytest.raises(ContractError, match=says):
            contract.check(store)
        for lost in ({}, {"other": "0123456789abcdef"}):
            with pytest.raises(ContractError, match="guards nothing: it has no digest of users"):
                FeatureContract.from_dict(contract.to_dict() | {"definitions": lost}).check(store)


def half_of(sources: list, fails: bool):
    def half(inputs):
        return {"half": [None if rating is None else rating / 2 for rating in inputs["rating"]]}

    def fails_on_none(inputs):
        return {"half": [rating / 2 for rating in inputs["rating"]]}

    return on_demand(fails_on_none if fails else half, sources, "half")


@pytest.mark.parametrize(
    "columns, parts, says",
    [
        (None, lambda v, odfv: [odfv], r"'fails_on_none' fails where .*TypeError.*return None where"),
        ({"id": Int64}, lambda v, odfv: [v, odfv], "id is a join key and a request field"),
        ({"rating": Float64}, lambda v, odfv: [odfv], "two inputs of the on-demand view 'half' share"),
        ({"flag": Bool}, lambda v, odfv: [odfv], "flag is of type Bool; a request can carry"),
        ({}, lambda v, odfv: [odfv.with_name("other")], "'half' is read under an alias"),
        ({}, lambda v, odfv: [v.with_join_key_map({"no": "x"})], "names no, and the join keys of .* are id"),
        ({}, lambda v, odfv: [v.with_name("items"), odfv.with_name("items")], "names the feature view"),
        ({}, lambda v, odfv: [v, v.with_join_key_map({"id": "x"})], "one view by two keys"),
        ({}, lambda v, odfv: [v, v.with_name("x")], "holds users with an alias and without"),
    ],
)  # fmt: skip
def test_refuses_a_service_that_cannot_be_served_as_it_is_trained(tmp_path, columns, parts, says):
    users = view(tmp_path, "users", [user], rating=Float64)
    sources = [users[["rating"]]]
    if columns:
        sources.append(RequestSource(name="r", schema=[Field(name=n, dtype=d) for n, d in columns.items()]))
    computed = half_of(sources, columns is None)
    store = store_in(tmp_path, users, computed, FeatureService(name="s", features=parts(users, computed)))
    with pytest.raises(ContractError, match=says):
        FeatureContract.from_feature_service(store, "s", "label")


def test_a_service_whose_view_is_gone_has_no_contract(tmp_path):
    users = view(tmp_path, "users", [user], rating=Float64, trips=Int64)
    store = store_in(tmp_path, users, FeatureService(name="s", features=[users]))
    store.apply([view(tmp_path, "users", [user], rating=Float64)])
    with pytest.raises(ContractError, match="'s' reads users:trips, of which the registry has no definition"):
        FeatureContract.from_feature_service(store, "s", "label")


FUNCTION = """
def half(inputs):
    \"\"\"Half of it.\"\"\"
    return {"half": [None if a is None else a / 2 for a in inputs["rating"]]}
"""
COMMENTED = """
def half(inputs):
    # Of a rating,

    return {
        "half": [None if a is None else (a / 2) for a in inputs['rating']],
    }
"""


def digest(folder: Path, source=None, text: str = FUNCTION, **options) -> str:
    """Of the features of a view over a source, or of a function with a text."""
    folder.mkdir()
    options = {"ttl": DAY, "schema": [Field(name="rating", dtype=Float64)]} | options
    (folder / "repo").mkdir()
    source = source or FileSource(name="rows", path="x.parquet", timestamp_field="t")
    stats = FeatureView(name="stats", entities=[user], source=source, **options)
    names: dict = {"on_demand_feature_view": lambda **_: lambda function: function}
    exec(text, names)
    half = OnDemandFeatureView(
        name="half",
        sources=[stats],
        schema=[Field(name="half", dtype=Float64)],
        mode="python",
        feature_transformation=PythonTransformation(udf=names["half"], udf_string=textwrap.dedent(text)),
    )
    (folder / "repo" / "feature_store.yaml").write_text(STORE % "duckdb")
    store = FeatureStore(repo_path=str(folder / "repo"))
    store.registry.apply_feature_view(stats, store.project)
    store.registry.apply_feature_view(half, store.project)
    return "".join(definitions(store, ["half:half", "stats:rating"]).values())


def snowflake(**options):
    return lambda: SnowflakeSource(
        name="s", timestamp_field="t", **{"database": "D", "schema": "S"} | options
    )


def postgres(**options):
    return lambda: PostgreSQLSource(name="s", timestamp_field="t", **options)


def file(path: str = "x.parquet", **options):
    return lambda: FileSource(**{"name": "rows", "path": path, "timestamp_field": "t"} | options)


def kafka(topic: str, servers: str = "here:9092"):
    return lambda: KafkaSource(
        name="k",
        topic=topic,
        kafka_bootstrap_servers=servers,
        message_format=JsonFormat("rating double"),
        timestamp_field="t",
        batch_source=file()(),
    )


def derived(path: str, **options):
    schema = [Field(name="rating", dtype=Float64)]
    first = FeatureView(name="first", entities=[user], schema=schema, source=file(path, **options)())
    return {"source": lambda: [first], "sink_source": file("sink.parquet")()}


@pytest.mark.parametrize(
    "first, second, same",
    [
        ({"text": FUNCTION}, {"text": COMMENTED}, True),
        ({"text": FUNCTION}, {"text": FUNCTION.replace("/ 2", "/ 3")}, False),
        ({"text": FUNCTION}, {"text": "@on_demand_feature_view(description='x')" + FUNCTION}, True),
        ({"source": file()}, {"source": file("y.parquet", description="d", tags={"a": "b"})}, True),
        ({"source": file()}, {"source": file(created_timestamp_column="c")}, False),
        ({"source": file()}, {"source": file(field_mapping={"a": "rating"})}, False),
        ({"source": snowflake(query="SELECT 1")}, {"source": snowflake(query="SELECT 2")}, False),
        ({"source": snowflake(table="A")}, {"source": snowflake(table="B")}, False),
        ({"source": snowflake(table="A")}, {"source": snowflake(table="A", owner="o")}, True),
        ({"source": postgres(query="SELECT 1")}, {"source": postgres(query="SELECT 2")}, False),
        ({"source": postgres(query="SELECT 1")}, {"source": postgres(query="SELECT 1", owner="o")}, True),
        ({"ttl": DAY}, {"ttl": 2 * DAY}, False),
        ({"source": kafka("a")}, {"source": kafka("b")}, False),
        ({"source": kafka("a")}, {"source": kafka("a", "other:9092")}, True),
        (derived("x.parquet"), derived("y.parquet"), True),
        (derived("x.parquet"), derived("x.parquet", created_timestamp_column="c"), False),
    ],
)  # fmt: skip
def test_definitions_are_compared_by_what_they_mean(tmp_path, first, second, same):
    digests = []
    for number, options in enumerate((first, second)):
        options = {name: value() if name == "source" else value for name, value in options.items()}
        digests.append(digest(tmp_path / str(number), **options))
    assert (digests[0] == digests[1]) == same


@pytest.mark.parametrize(
    "kind, value, says",
    [
        ("INT64", -5, None),
        ("INT64", 2**63, "x must fit into 64 bits"),
        ("INT32", -(2**31), None),
        ("INT32", 2**40, r"x must fit into 32 bits: from -2\^31 to 2\^31 - 1"),
        ("FP32", 1e39, "a finite number of 32 bits"),
        ("FP64", float("nan"), "a finite number of 64 bits"),
    ],
)
def test_a_request_holds_what_its_declared_type_holds(kind, value, says):
    body = {"instances": [{"x": value}]}
    if says is None:
        assert rows_of_v1(body, {"x": kind}) == [{"x": value}]
    else:
        with pytest.raises(InvalidInput, match=says):
            rows_of_v1(body, {"x": kind})


@pytest.mark.parametrize(
    "dtype, value, says",
    [
        (Int32, 2**40, "Int32 has no room for, such as 1099511627776"),
        (Int64, 7.5, "holds fractions, such as 7.5"),
    ],
)
def test_a_label_table_holds_what_a_request_may_hold(tmp_path, dtype, value, says):
    key = Entity(name="key", join_keys=["id"], value_type=ValueType[dtype.name])
    pd.DataFrame({"id": [1], "event_timestamp": [NOON], "a": [1.0]}).to_parquet(tmp_path / "v.parquet")
    source = FileSource(path=str(tmp_path / "v.parquet"), timestamp_field="event_timestamp")
    schema = [Field(name="id", dtype=dtype), Field(name="a", dtype=Float64)]
    store = store_in(tmp_path / "r")
    store.apply([key, FeatureView(name="v", entities=[key], schema=schema, source=source)])
    with pytest.raises(ValueError, match=says):
        historical_features(
            store, pd.DataFrame({"id": [value], "event_timestamp": [pd.Timestamp(NOON)]}), ["v:a"]
        )


def instants(*times, unit: str = "us", zone: str | None = "UTC") -> pa.Array:
    return pa.array(times, pa.timestamp("us", "UTC")).cast(pa.timestamp(unit, zone))


F32, F64 = pa.array([0.1, 2.5], pa.float32()), pa.array([0.1, 2.5])
CENTS, MILLS = pa.array([Decimal("0.50")] * 2), pa.array([Decimal("0.125")] * 2)
TWO = instants(NOON, NOON)
DATES = pa.array([NOON.date()] * 2)
WHOLE, GAPS = pa.array([1, 2]), pa.array([1.0, None])


@pytest.mark.parametrize(
    "files, says",
    [
        ([{"a": F32}], r"0.parquet holds numbers \(float\) in the column a, .* declares numbers \(Float64\)"),
        ([{"a": pa.array([1, 2], pa.int32())}], r"0.parquet holds numbers \(int32\) in the column a"),
        ([{"a": pa.array([True, False])}], r"0.parquet holds \(bool\) in the column a"),
        ([{"id": pa.array(["x", "y"])}], r"0.parquet holds text \(string\) in the column id"),
        ([{"n": pa.array([0.5, 1.0])}], "column n is declared as whole numbers .* fractions, such as 0.5"),
        ([{"a": CENTS}, {"a": MILLS}], r"a: decimal128\(2, 2\) in 0.parquet, .*3\) in 1.parquet"),
        ([{"a": WHOLE}, {"a": CENTS}], "column a: int64 in 0.parquet, decimal"),
        ([{"a": F64}, {"a": WHOLE}], None),
        ([{"a": F64}, {"A": pa.array(["x", "y"])}], r"1.parquet holds text \(string\) in the column a"),
        ([{"n": WHOLE}, {"n": GAPS}], "column n: int64 in 0.parquet, double in 1.parquet"),
        ([{"n": GAPS}, {"n": WHOLE}], None),
        ([{"t": DATES}], UserWarning("no time zone.*They are date32.* a date counts from midnight on")),
        ([{"t": pa.array(["2025-03-01 12:00"] * 2)}], UserWarning("no time zone.*They are string values")),
        ([{"t": instants(NOON, NOON, zone=None)}], UserWarning("no time zone, .* for UTC. If they")),
        ([{"t": WHOLE}], r"the times in 0.parquet \(t\) are int64 values"),
        ([{"t": DATES}, {}], r"column t: date32\[day\] in 0.parquet, timestamp\[us, tz=UTC\] in 1.parquet"),
        ([{"t": instants(NOON, NOON, unit="ms")}, {}], r"column t: timestamp\[ms, tz=UTC\] in 0.parquet"),
        ([{}, {"t": instants(NOON, NOON, zone=None)}], r"column t: timestamp\[us, tz=UTC\] in 0.parquet"),
        ([{}, {}], None),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:the times in")
def test_files_hold_what_can_be_retrieved_and_materialized_as_one_value(tmp_path, files, says):
    rows = tmp_path / "rows"
    rows.mkdir()
    for number, columns in enumerate(files):
        plain = {"id": pa.array([2 * number, 2 * number + 1]), "t": TWO, "a": F64, "n": WHOLE}
        kept = {name: array for name, array in plain.items() if name.upper() not in columns}
        pq.write_table(pa.table(kept | columns), rows / f"{number}.parquet")
    source = FileSource(name="v", path=f"{rows}/*.parquet", timestamp_field="t")
    schema = [Field(name="id", dtype=Int64), Field(name="a", dtype=Float64), Field(name="n", dtype=Int64)]
    v = FeatureView(name="v", entities=[user], ttl=DAY, schema=schema, source=source)
    store = store_in(tmp_path / "repo", v)
    asked = pd.DataFrame({"id": range(2 * len(files)), "event_timestamp": pd.Timestamp(NOON)})
    if isinstance(says, str):
        with pytest.raises(ValueError, match=says):
            historical_features(store, asked, ["v:a", "v:n"])
        return
    if says:
        with pytest.warns(UserWarning, match=str(says)):
            check_files(v, store)
    offline = historical_features(store, asked, ["v:a", "v:n"])
    store.materialize(NOON - DAY, NOON)
    online = store.get_online_features(["v:a", "v:n"], asked[["id"]].to_dict("records")).to_df()
    pd.testing.assert_frame_equal(online[["a", "n"]], offline[["a", "n"]], check_dtype=False)


@pytest.mark.parametrize(
    "pattern", ["%s/*/0.parquet", "%s/**/*.parquet", "%s/[ab]/*.parquet", "file://%s/b/0.parquet", "%s"]
)
def test_each_file_behind_a_path_is_looked_at_before_it_is_read_or_materialized(tmp_path, pattern):
    for folder, values in (("a", CENTS), ("b", MILLS)):
        (tmp_path / "rows" / folder).mkdir(parents=True)
        rows = {"id": WHOLE, "t": TWO, "a": F32 if "file" in pattern else values}
        pq.write_table(pa.table(rows), tmp_path / "rows" / folder / "0.parquet")
    source = FileSource(name="v", path=pattern % (tmp_path / "rows"), timestamp_field="t")
    v = FeatureView(
        name="v", entities=[user], ttl=DAY, schema=[Field(name="a", dtype=Float64)], source=source
    )
    store = store_in(tmp_path / "repo")
    store.registry.apply_feature_view(v, store.project)
    says = r"column a: decimal128\(2, 2\) in .*/a/0.parquet, .* in .*/b/0.parquet"
    if "file" in pattern:
        says = r"0.parquet holds numbers \(float\) in the column a"
    with pytest.raises(ValueError, match=says):
        check_files(v, store)
    with pytest.raises(ValueError, match=says):
        materialize(store, Materialization(), NOON)


@pytest.mark.parametrize("place", ["here", "repo"])
def test_a_relative_path_is_checked_where_the_store_reads_it(tmp_path, monkeypatch, place):
    for folder, array in (("here", F64), ("repo", F64), (place, pa.array(["x", "y"]))):
        (tmp_path / folder).mkdir(exist_ok=True)
        pq.write_table(pa.table({"id": WHOLE, "t": TWO, "a": array}), tmp_path / folder / "v.parquet")
    monkeypatch.chdir(tmp_path / "here")
    source = FileSource(name="v", path="v.parquet", timestamp_field="t")
    v = FeatureView(name="v", entities=[user], schema=[Field(name="a", dtype=Float64)], source=source)
    store = store_in(tmp_path / "repo")
    if place == "repo":  # any store but DuckDB's
        settings = SimpleNamespace(repo_path=store.config.repo_path, offline_store=None)
        store = SimpleNamespace(config=settings)
    with pytest.raises(ValueError, match=r"v.parquet holds text \(string\) in the column a"):
        check_files(v, store)

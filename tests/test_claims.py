"""docs/claims.md: no claim without a check that ran, no check without its claim, and the page is what the generator writes.

The second half holds the proofs of claims that no notebook shows.
"""

from __future__ import annotations

import ast
import re
import shutil
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import apply
from feast import BatchFeatureView
from reach import reach

from helpers.data import NOW
from helpers.workspace import REPOSITORY, configure
from lifecycle.contract import FeatureContract
from lifecycle.retrieval import historical_features
from workshop import claims

ROWS = claims.claims()
SHOWN = claims.checks()
TOOLS = claims.tools()
REAL = "On real data"


def functions(path: Path) -> set[str]:
    """The test functions of a file, by name."""
    tree = ast.parse(path.read_text(encoding="utf-8")) if path.exists() else ast.Module([], [])
    return {
        node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


def test_every_claim_has_a_check_that_ran_or_a_test():
    unshown = [row.id for row in ROWS if not SHOWN.get(row.id) and not row.tests]
    assert unshown == [], "no notebook cell has the tag claim-<id>, and docs/claims.toml names no test"
    silent = [
        (name, check.notebook)
        for name, cells in SHOWN.items()
        for check in cells
        if check.line.count("\n") or not check.line
    ]
    assert silent == [], (
        "a check cell of a claim has no printed line: execute the notebook and store its outputs"
    )


def test_every_tag_has_its_claim():
    assert sorted(set(SHOWN) - {row.id for row in ROWS}) == [], (
        "add a row to docs/claims.toml, or take the tag out"
    )


def test_every_named_test_exists():
    named = [test for row in ROWS for test in row.tests]
    missing = [t for t in named if t.split("::")[1] not in functions(REPOSITORY / t.split("::")[0])]
    assert missing == []


def test_every_proof_of_this_file_belongs_to_a_claim():
    named = {
        test.split("::")[1] for row in ROWS for test in row.tests if test.startswith("tests/test_claims.py::")
    }
    own = {
        name for name in functions(Path(__file__)) if not name.startswith(("test_every_", "test_the_page_"))
    }
    assert named == own


def test_every_row_is_complete():
    assert len({row.id for row in ROWS}) == len(ROWS)
    for row in ROWS:
        assert re.fullmatch(r"[a-z0-9-]+", row.id)
        assert row.verdict in claims.VERDICTS and row.of in claims.SOURCES
        assert row.verdict == "true" or row.note, f"{row.id}: say the condition, or what holds instead"
        assert row.says.endswith(".") and (not row.note or row.note.endswith(".")), row.id


def test_every_place_of_a_tool_exists_and_comes_to_the_tool():
    """A notebook or a test that imports or starts it, directly or through the code and the fixtures that it uses; see reach.py."""
    not_found = {}
    for tool in TOOLS:
        for way in claims.WAYS:
            needed = [*tool.names, *(["docker"] if way == "container" else [])]
            for place in getattr(tool, way):
                path, _, test = place.partition("::")
                assert (REPOSITORY / path).exists(), place
                assert path.startswith("notebooks/") if not test else test in functions(REPOSITORY / path), (
                    place
                )
                found = reach(place)
                if missing := [name for name in needed if not found.names(name)]:
                    not_found[f"{tool.name}, {way}: {place}"] = missing
    assert not_found == {}, "this place neither imports nor starts what the row names"


def test_every_tool_says_where_it_ran_or_why_not():
    for tool in TOOLS:
        ran = tool.how != claims.UNUSED
        assert bool(tool.names) == ran, f"{tool.name}: names are what its places are searched for"
        assert ran or tool.note, f"{tool.name}: say why it is not used"
        assert not tool.note or tool.note.endswith("."), tool.name
    assert len({(tool.table, tool.row, tool.name) for tool in TOOLS}) == len(TOOLS)


def test_every_row_of_the_texts_tables_has_a_tool_that_ran_or_was_rendered():
    rows = {(tool.table, tool.row) for tool in TOOLS}
    shown = {(tool.table, tool.row) for tool in TOOLS if tool.how != claims.UNUSED}
    assert rows == shown
    held = {table: sum(row[0] == table for row in rows) for table, _ in rows}
    of_the_texts = {
        "The post's table of capabilities": 12,
        "The post's stages": 5,
        "The post's summary": 5,
        "The guide's building blocks": 6,
        "The guide's minimal stack": 3,
    }
    assert {table: held[table] for table in of_the_texts} == of_the_texts


NOT_THERE = [
    ("notebooks/02_retrieve_point_in_time.ipynb", "kserve"),
    ("notebooks/02_retrieve_point_in_time.ipynb", "redis-server"),
    ("notebooks/06_compile_pipeline.ipynb", "docker"),
    (
        "notebooks/07_serve_online.ipynb",
        "prometheus",
    ),  # in the same file of helpers as the Redis that it starts
    ("tests/test_serving.py::test_the_servers_metrics_count_each_prediction", "redis-server"),
    ("tests/test_claims.py::test_autolog_records_parameters_and_metrics", "evidently"),
]


@pytest.mark.parametrize(("place", "tool"), NOT_THERE)
def test_every_search_for_a_tool_also_finds_nothing_where_it_is_not(place, tool):
    assert not reach(place).names(tool)


def test_every_claim_that_is_shown_again_is_a_claim_of_the_page_before():
    earlier = [row.id for row in ROWS if row.group != REAL]
    assert {
        row.id: sorted(set(row.again) - set(earlier)) for row in ROWS if set(row.again) - set(earlier)
    } == {}
    assert len({name for row in ROWS for name in row.again}) >= 10
    page = claims.page()
    links = re.findall(r"\]\(#(claim-[a-z0-9-]+)\)", page)
    assert links and [link for link in links if page.count(f'<a id="{link}"></a>') != 1] == []


def test_every_claim_on_real_data_is_shown_by_notebook_12_and_by_no_other():
    shown = {name: {check.notebook[:2] for check in SHOWN.get(name, [])} for name in [row.id for row in ROWS]}
    assert {row.id: shown[row.id] for row in ROWS if row.group == REAL and shown[row.id] != {"12"}} == {}
    assert [row.id for row in ROWS if row.group != REAL and "12" in shown[row.id]] == []
    assert all(row.again for row in ROWS if row.group == REAL and row.id != "little-is-new")


def test_the_page_is_what_the_generator_writes():
    written = (REPOSITORY / claims.PAGE).read_text(encoding="utf-8")
    assert written == claims.page(), "run `python -m workshop.claims`"


def test_the_page_changes_when_a_check_disappears(tmp_path):
    for name in ("notebooks", "docs"):
        shutil.copytree(REPOSITORY / name, tmp_path / name, ignore=shutil.ignore_patterns("*.png"))
    path = next((tmp_path / "notebooks").glob("02_*.ipynb"))
    path.write_text(path.read_text().replace('"claim-no-future-data"', '"other"'))
    assert "no-future-data" not in claims.checks(tmp_path)
    assert claims.page(tmp_path) != claims.page()


# Proofs


def test_evidently_tells_a_shifted_feature_from_one_that_stayed():
    from evidently import Report
    from evidently.presets import DataDriftPreset

    random = np.random.default_rng(0)
    good = pd.DataFrame({"conv_rate": random.uniform(size=500), "acc_rate": random.uniform(size=500)})
    later = pd.DataFrame({"conv_rate": random.uniform(size=500) ** 3, "acc_rate": random.uniform(size=500)})
    measured = Report([DataDriftPreset()]).run(later, good).dict()["metrics"]
    p_values = {m["config"]["column"]: m["value"] for m in measured if m["config"].get("column")}
    assert p_values["conv_rate"] < 0.001 < p_values["acc_rate"]


def test_a_plain_feature_view_names_columns_and_computes_nothing(store, applied):
    for view in store.list_batch_feature_views():
        columns = pd.read_parquet(applied.data / Path(view.batch_source.path).name).columns
        assert {field.name for field in view.features} < set(columns)
        assert not hasattr(view, "feature_transformation")
    assert all(view.feature_transformation for view in store.list_on_demand_feature_views())


def test_a_batch_views_function_is_not_run_when_the_past_is_retrieved(home):
    configure(home)
    store = apply(home)
    hourly, driver = store.get_feature_view("driver_hourly_stats"), store.get_entity("driver")

    def doubled(rows):
        return rows.assign(conv_rate=2 * rows["conv_rate"])

    with pytest.warns(
        RuntimeWarning, match="Batch feature views are experimental features in alpha development"
    ):
        view = BatchFeatureView(
            name="doubled",
            mode="pandas",
            udf=doubled,
            udf_string="def doubled(rows):\n    return rows.assign(conv_rate=2 * rows['conv_rate'])\n",
            entities=[driver],
            ttl=hourly.ttl,
            schema=[field for field in hourly.schema if field.name in ("driver_id", "conv_rate")],
            source=hourly.batch_source,
            online=True,
        )
    store.apply([view])
    row = pd.DataFrame({"driver_id": [1001], "event_timestamp": [NOW]})
    raw = historical_features(store, row, ["driver_hourly_stats:conv_rate"])
    assert historical_features(store, row, ["doubled:conv_rate"]).conv_rate.tolist() == raw.conv_rate.tolist()
    with pytest.raises(KeyError, match="conv_rate"):
        store.materialize(NOW - pd.Timedelta(days=1), NOW, feature_views=["doubled"])


def test_views_of_both_kinds_have_a_history_and_nothing_else_has(store):
    views = [*store.list_batch_feature_views(), *store.list_on_demand_feature_views()]
    others = [*store.list_feature_services(), *store.list_data_sources(), *store.list_entities()]
    assert [view.name for view in views if not store.list_feature_view_versions(view.name)] == []
    assert [found.name for found in others if store.list_feature_view_versions(found.name)] == []


def test_the_features_of_a_stored_model_are_a_slice_of_the_registry(store, mlflow):
    from sklearn.linear_model import LogisticRegression

    contract = FeatureContract.of_service(store, "rates_and_rating", label="label")
    model = LogisticRegression().fit([[0, 0, 0], [1, 1, 1]], [0, 1])
    with mlflow.start_run(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        kept = mlflow.sklearn.log_model(
            model, name="model", pip_requirements=[], metadata={"feast": contract.to_dict()}
        )
    views = [*store.list_batch_feature_views(), *store.list_on_demand_feature_views()]
    known = {f"{view.name}:{field.name}" for view in views for field in view.features}
    assert set(FeatureContract.of_model(kept.model_uri).feature_refs) < known


def test_source_and_schema_of_a_feature_can_be_read_back(store, applied):
    view = store.get_feature_view("driver_hourly_stats")
    assert Path(view.source.path) == applied.data / "driver_stats.parquet"
    assert {"conv_rate", "acc_rate", "avg_daily_trips"} < {field.name for field in view.schema}


def test_apply_and_materialize_write_lineage_events(home):
    settings = home.feature_repo / "feature_store.yaml"
    settings.write_text(
        settings.read_text() + "\nopenlineage: {enabled: true, transport_type: file, namespace: feast}\n"
    )
    configure(home)  # the events land in the working directory, which becomes the home's workspace
    store = apply(home)
    after_apply = list(home.path.glob("openlineage*"))
    store.materialize(NOW - pd.Timedelta(days=1), NOW, feature_views=["driver_hourly_stats"])
    events = "".join(path.read_text() for path in home.path.glob("openlineage*"))
    assert after_apply
    assert "driver_stats" in events and "driver_hourly_stats" in events
    assert {"START", "COMPLETE"} <= set(re.findall(r'"eventType":\s*"(\w+)"', events))


def test_materializing_one_view_serves_all_its_features_and_none_of_another(home):
    configure(home)
    store = apply(home)
    store.materialize(NOW - pd.Timedelta(days=7), NOW, feature_views=["driver_hourly_stats"])
    asked = [
        "driver_hourly_stats:conv_rate",
        "driver_hourly_stats:avg_daily_trips",
        "driver_daily_profile:rating",
    ]
    found = store.get_online_features(asked, [{"driver_id": 1001}]).to_dict()
    assert found["conv_rate"] != [None]
    assert found["avg_daily_trips"] != [None], (
        "not needed by a model of conv_rate alone, and there all the same"
    )
    assert found["rating"] == [None]


def test_shards_retrieved_apart_are_the_rows_of_one_retrieval(store, applied):
    labels = pd.read_parquet(applied.data / "driver_labels.parquet")
    service = store.get_feature_service("rates")
    whole = historical_features(store, labels, service)
    shards = [historical_features(store, labels.iloc[rank::2], service) for rank in range(2)]
    pd.testing.assert_frame_equal(pd.concat(shards).sort_index(), whole)


def test_another_file_gives_another_past(home):
    configure(home)
    store = apply(home)
    path = home.data / "driver_stats.parquet"
    stats = pd.read_parquet(path)
    row = stats.iloc[[-1]][["driver_id", "event_timestamp"]]
    before = historical_features(store, row, ["driver_hourly_stats:acc_rate"]).acc_rate.iloc[0]
    stats.assign(acc_rate=stats.acc_rate / 2).to_parquet(path)
    assert historical_features(store, row, ["driver_hourly_stats:acc_rate"]).acc_rate.iloc[0] == before / 2
    assert len(store.list_feature_view_versions("driver_hourly_stats")) == 1, "no version tells the two apart"


def test_features_are_served_over_grpc(store):
    import grpc
    from feast.infra.contrib.grpc_server import GrpcFeatureServer
    from feast.protos.feast.serving import GrpcServer_pb2_grpc as service
    from feast.protos.feast.serving.ServingService_pb2 import GetOnlineFeaturesRequest
    from feast.protos.feast.types.Value_pb2 import RepeatedValue, Value

    store.materialize(NOW - pd.Timedelta(days=1), NOW, feature_views=["driver_hourly_stats"])
    server = grpc.server(ThreadPoolExecutor(1))
    servicer = GrpcFeatureServer(store, registry_ttl_sec=3600)
    service.add_GrpcFeatureServerServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    request = GetOnlineFeaturesRequest()
    request.features.val.append("driver_hourly_stats:conv_rate")
    request.entities["driver_id"].CopyFrom(RepeatedValue(val=[Value(int64_val=1001)]))
    try:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            answer = service.GrpcFeatureServerStub(channel).GetOnlineFeatures(request, timeout=20)
    finally:
        server.stop(0).wait()
        servicer._active_timer.cancel()  # a thread that would keep this process alive
    columns = dict(zip(answer.metadata.feature_names.val, answer.results, strict=True))
    in_process = store.get_online_features(list(request.features.val), [{"driver_id": 1001}]).to_dict()
    assert columns["conv_rate"].values[0].double_val == in_process["conv_rate"][0]


def test_a_run_that_nobody_registers_is_no_model_version(mlflow):
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression().fit([[0], [1]], [0, 1])
    logged = []
    for _ in range(2):
        with mlflow.start_run(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            logged.append(mlflow.sklearn.log_model(model, name="candidate", pip_requirements=[]))
    mlflow.register_model(logged[0].model_uri, "candidates")
    versions = mlflow.MlflowClient().search_model_versions("name = 'candidates'")
    assert [version.source for version in versions] == [logged[0].model_uri]


def test_autolog_records_parameters_and_metrics(mlflow):
    from sklearn.linear_model import LogisticRegression

    X = pd.DataFrame({"conv_rate": [0.1, 0.2, 0.8, 0.9]})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with mlflow.start_run() as plain:
            LogisticRegression(C=0.5).fit(X, [0, 0, 1, 1])
        mlflow.sklearn.autolog(log_models=False, log_datasets=False, silent=True)
        try:
            with mlflow.start_run() as automatic:
                LogisticRegression(C=0.5).fit(X, [0, 0, 1, 1])
        finally:
            mlflow.sklearn.autolog(disable=True, silent=True)
    assert mlflow.get_run(plain.info.run_id).data.params == {}
    recorded = mlflow.get_run(automatic.info.run_id).data
    assert recorded.params["C"] == "0.5"
    assert any("roc_auc" in name for name in recorded.metrics)


def test_mlflow_evaluates_a_classifier_by_itself(mlflow):
    random = np.random.default_rng(0)
    table = pd.DataFrame({"label": random.integers(0, 2, 60)})
    table["score"] = (table.label * 0.5 + random.uniform(size=60) > 0.6).astype(int)
    with mlflow.start_run(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        options = {"data": table, "predictions": "score", "targets": "label", "model_type": "classifier"}
        metrics = mlflow.models.evaluate(**options).metrics
    assert metrics["accuracy_score"] == pytest.approx((table.score == table.label).mean())
    assert {"precision_score", "recall_score", "f1_score"} < set(metrics)

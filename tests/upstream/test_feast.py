"""Traps in Feast, which docs/upstream.md and its neighbors name. A test passes while its trap exists."""

import contextlib
import importlib.util
import socket
import sqlite3
from datetime import timedelta
from importlib.metadata import requires
from itertools import product
from pathlib import Path

import pandas as pd
import pytest
from feast import Entity, FeatureService, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Float64

pytestmark = [pytest.mark.unit, pytest.mark.filterwarnings("ignore")]

DRIVER = Entity(name="driver", join_keys=["driver_id"], value_type=ValueType.INT64)
NOW, DAY = pd.Timestamp("2025-03-01", tz="UTC").as_unit("us"), pd.Timedelta("1d")
QUESTION = pd.DataFrame({"driver_id": [1], "event_timestamp": [NOW]})


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def view(name="stats", ttl=timedelta(days=7), **columns):
    """A feature view over a new file; without columns, driver 1 has the features a and b of yesterday."""
    rows = {"driver_id": [1], "event_timestamp": [NOW - DAY]} | (columns or {"a": [1.0], "b": [3.0]})
    path = Path(f"{name}.parquet").absolute()
    pd.DataFrame(rows).to_parquet(path)
    features = [column for column in rows if column not in ("driver_id", "event_timestamp", "created")]
    times = {"timestamp_field": "event_timestamp"}
    times |= {"created_timestamp_column": "created"} if "created" in rows else {}
    source = FileSource(name=f"{name}_file", path=str(path), **times)
    schema = [Field(name=column, dtype=Float64) for column in features]
    return FeatureView(name=name, entities=[DRIVER], ttl=ttl, schema=schema, source=source)


def test_a_list_of_a_registry_is_taken_for_that_of_another_at_its_address():
    from feast.infra.registry.proto_registry_utils import list_entities
    from feast.protos.feast.core.Registry_pb2 import Registry

    first = Registry(version_id="1")
    entity = first.entities.add()
    entity.CopyFrom(DRIVER.to_proto())
    entity.spec.project = "p"
    assert [found.name for found in list_entities(first, "p", None)] == ["driver"]
    address, others = id(first), []
    del first, entity
    while id(other := Registry(version_id="1")) != address and len(others) < 1000:
        others.append(other)
    assert [found.name for found in list_entities(other, "p", None)] == ["driver"], "it has none"


def doubled(source):
    """An on-demand view with the feature `twice`."""

    def doubled(inputs):
        return {"twice": [2 * value for value in inputs["a"]]}

    schema = [Field(name="twice", dtype=Float64)]
    return on_demand_feature_view(sources=[source], schema=schema, mode="python")(doubled)


def store_of(*objects, offline="duckdb", **settings):
    settings |= {"registry": str(Path(f"{offline}.db").absolute()), "offline_store": {"type": offline}}
    settings |= {"online_store": {"type": "sqlite", "path": str(Path(f"{offline}_online.db").absolute())}}
    config = RepoConfig(project="p", provider="local", entity_key_serialization_version=3, **settings)
    store = FeatureStore(config=config)
    store.apply([DRIVER, *objects])
    return store


def history(store, features, rows=QUESTION):
    return store.get_historical_features(rows.copy(), features).to_df()


def online(store, features, *rows):
    return store.get_online_features(features, list(rows or [{"driver_id": 1}])).to_dict()


def test_a_column_with_a_features_name_hides_the_feature():
    answer = history(store_of(view(), offline="dask"), ["stats:a"], QUESTION.assign(a=7.0))
    assert (answer.a[0], answer.a__[0]) == (7.0, 1.0)


def test_the_duckdb_store_ranks_every_valid_row_and_fails_on_some_names_and_times_to_live():
    import ibis

    names = view("names", speed_y=[2.0], event_expire_timestamp=[5.0])
    store = store_of(view(), names, view("mixed", ttl=timedelta(hours=36), a=[1.0]))
    query = ibis.to_sql(store.get_historical_features(QUESTION, ["stats:a"]).table)
    assert "ROW_NUMBER() OVER" in query and "ASOF" not in query
    expiry = history(store, ["names:event_expire_timestamp"]).event_expire_timestamp[0]
    assert expiry == NOW + 6 * DAY, "a time in place of the feature's value, 5.0"
    with pytest.raises(Exception, match="Column 'speed_y' is not found"):
        history(store, ["names:speed_y"])
    with pytest.raises(ValueError, match="mixed units"):
        history(store, ["mixed:a"])


def test_the_duckdb_store_writes_a_log_without_partitions_and_below_the_working_directory(tmp_path):
    import pyarrow as pa
    from feast.feature_logging import LoggingConfig
    from feast.infra.offline_stores.file_source import FileLoggingDestination

    source, rows = view(), pa.table({"driver_id": [1], "day": pa.array([20_000], pa.date32())})
    store = store_of(source)

    def write(**destination):
        config = LoggingConfig(destination=FileLoggingDestination(path="log", **destination))
        store.write_logged_features(rows, FeatureService(name="s", features=[source], logging_config=config))

    (tmp_path / "elsewhere" / "log").mkdir(parents=True)
    with pytest.raises(Exception, match="No such file or directory"):
        write()
    with contextlib.chdir("elsewhere"):
        write()
        with pytest.raises(Exception, match="it was not found in the table"):
            write(partition_by=["day"])


def test_indirect_lineage_links_a_feature_to_a_service_that_does_not_read_it():
    from feast.lineage.registry_lineage import RegistryLineageGenerator

    source = view()
    store = store_of(source, FeatureService(name="reads_a", features=[source[["a"]]]))
    _, indirect = RegistryLineageGenerator().generate_lineage(store.registry.proto())
    links = {(link.source.name, link.target.name) for link in indirect}
    assert {("a", "reads_a"), ("b", "reads_a")} <= links


def test_the_log_of_computed_features_has_no_join_keys():
    from feast.feature_logging import FeatureServiceLoggingSource

    source = view()
    service = FeatureService(name="computed", features=[doubled(source)])
    registry = store_of(source, doubled(source), service).registry
    columns = FeatureServiceLoggingSource(service, "p").get_schema(registry).names
    assert "doubled__twice" in columns and "driver_id" not in columns


def test_an_on_demand_view_adds_columns_offline_only():
    source = view()
    store = store_of(source, doubled(source))
    store.materialize(NOW - 7 * DAY, NOW)
    assert {"a", "b", "twice"} < set(history(store, ["doubled:twice"]))
    assert set(online(store, ["doubled:twice"])) == {"driver_id", "twice"}


def test_duckdb_2_is_allowed():
    assert 'ibis-framework[duckdb]>=10.0.0; extra == "duckdb"' in requires("feast")


def test_the_first_incremental_materialization_of_older_data_loads_nothing():
    store = store_of(view())
    store.materialize_incremental(end_date=(NOW + DAY).to_pydatetime())
    assert online(store, ["stats:a"])["a"] == [None]


def test_an_online_question_without_its_key_is_left_out():
    store = store_of(view())
    assert online(store, ["stats:a"], {"driver_id": 1}, {})["driver_id"] == [1]
    with pytest.raises(TypeError, match="attribute name must be string"):
        online(store, ["stats:a"], {"driver_id": None})


def test_importing_ipython_after_feast_breaks_online_reads(monkeypatch):
    store = store_of(view())
    store.materialize(NOW - 7 * DAY, NOW)
    assert online(store, ["stats:a"])["a"] == [1.0]
    kept = sqlite3.converters["TIMESTAMP"]
    monkeypatch.setitem(sqlite3.converters, "TIMESTAMP", kept)  # and back at the end
    spec = importlib.util.find_spec("IPython.core.history")
    spec.loader.exec_module(importlib.util.module_from_spec(spec))  # what a first import does
    with pytest.raises(ValueError, match="Invalid isoformat string"):
        online(store, ["stats:a"])


def test_after_a_materialization_plan_reports_a_change():
    from feast.diff.registry_diff import diff_registry_objects
    from feast.infra.registry.registry import FeastObjectType

    store = store_of(view())
    same = store.get_feature_view("stats")
    same.batch_source = view().batch_source

    def changes():
        current = store.get_feature_view("stats")
        difference = diff_registry_objects(current, same, FeastObjectType.FEATURE_VIEW)
        return [change.property_name for change in difference.feast_object_property_diffs]

    assert changes() == []
    store.materialize(NOW - 7 * DAY, NOW)
    assert changes() == ["batch_source"]


def test_definitions_can_be_read_only_from_above_their_folder(tmp_path):
    from feast.repo_operations import parse_repo

    (tmp_path / "definitions").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "definitions" / "entities.py").write_text("")
    with contextlib.chdir("elsewhere"), pytest.raises(ValueError, match="is not in the subpath of"):
        parse_repo(tmp_path / "definitions")


def test_a_registry_file_loses_what_another_process_applied():
    first, source = store_of(view()), view()
    second = FeatureStore(config=first.config)
    service = FeatureService(name="of_the_first", features=[source])
    first.registry.apply_feature_service(service, "p", commit=False)  # `apply` does this ...
    second.apply(FeatureService(name="of_the_second", features=[source]))
    first.registry.commit()  # ... and then this
    assert [s.name for s in FeatureStore(config=first.config).list_feature_services()] == ["of_the_first"]


def test_feasts_profiler_cannot_be_imported_with_todays_great_expectations():
    with pytest.raises(ModuleNotFoundError, match=r"great_expectations\.dataset"):
        from feast.dqm.profilers.ge_profiler import ge_profiler  # noqa: F401


def test_feasts_page_and_registry_server_listen_on_all_interfaces():
    import feast.registry_server
    import psutil
    from feast.cli.ui import ui

    assert next(option.default for option in ui.params if option.name == "host") == "0.0.0.0"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    running = feast.registry_server.start_server(store_of(view()), port, wait_for_termination=False)
    addresses = {s.laddr.ip for s in psutil.Process().net_connections("inet") if s.laddr.port == port}
    running.stop(None)
    assert addresses == {"::"}


def test_the_registrys_rest_server_does_not_start():
    from feast.api.registry.rest.rest_registry_server import RestRegistryServer

    with pytest.raises(TypeError, match="unexpected keyword argument 'default_status_code'"):
        RestRegistryServer(store_of(view()))


def test_without_a_created_column_the_order_in_the_file_decides_which_correction_counts():
    times = {"created": [NOW - DAY, NOW - DAY / 2], "event_timestamp": [NOW - DAY] * 2}
    rows = pd.DataFrame(times | {"driver_id": 1, "a": [0.9, 0.2]})  # 0.2 corrects 0.9
    named = view("named", **rows.to_dict("list"))
    unnamed = view("unnamed", **rows.drop(columns="created").to_dict("list"))
    store, values = store_of(named, unnamed), {"named": set(), "unnamed": set()}
    for name, order in product(values, (rows, rows[::-1])):
        order.to_parquet(f"{name}.parquet")
        store.materialize(NOW - 7 * DAY, NOW)
        values[name] |= {history(store, [f"{name}:a"]).a[0], online(store, [f"{name}:a"])["a"][0]}
    assert values == {"named": {0.2}, "unnamed": {0.9, 0.2}}


def test_the_logged_configuration_holds_no_definitions():
    Path("feature_store.yaml").write_text("project: p\nprovider: local\nregistry: duckdb.db\n")
    Path("copy").mkdir()
    Path("copy/feature_store.yaml").write_bytes(Path("feature_store.yaml").read_bytes())
    store_of(view())
    assert [found.name for found in FeatureStore(repo_path=".").list_feature_views()] == ["stats"]
    assert FeatureStore(repo_path="copy").list_feature_views() == []


def test_a_batch_views_function_is_not_run_at_retrieval():
    from feast import BatchFeatureView

    plain = view()
    function = {"udf": lambda rows: rows.assign(a=2 * rows["a"]), "udf_string": "doubled"}
    options = {"entities": [DRIVER], "ttl": plain.ttl, "schema": plain.schema, "source": plain.batch_source}
    doubled = BatchFeatureView(name="doubled", mode="pandas", online=True, **function, **options)
    store = store_of(plain, doubled)
    assert history(store, ["doubled:a"]).a[0] == 1.0
    with pytest.raises(KeyError):
        store.materialize(NOW - 7 * DAY, NOW, feature_views=["doubled"])


def test_another_file_gives_another_past():
    store = store_of(view())
    view(a=[5.0], b=[3.0])
    assert history(store, ["stats:a"]).a[0] == 5.0
    assert len(store.list_feature_view_versions("stats")) == 1, "no version tells the two apart"


def test_materializing_one_view_serves_all_its_features_and_none_of_another():
    store = store_of(view(), view("other", c=[7.0]))
    store.materialize(NOW - 7 * DAY, NOW, feature_views=["stats"])
    values = online(store, ["stats:a", "stats:b", "other:c"])
    assert (values["a"], values["b"], values["c"]) == ([1.0], [3.0], [None])


def test_an_online_read_confuses_the_keys_of_an_alias_and_leaves_out_computed_features():
    stats = view(driver_id=[1, 2], event_timestamp=[NOW - DAY] * 2, a=[1.0, 2.0])
    buyer, computed = stats.with_name("buyer").with_join_key_map({"driver_id": "buyer_id"}), doubled(stats)
    service = FeatureService(name="both", features=[stats.with_name("stats"), buyer, computed])
    without = FeatureService(name="without", features=[stats, buyer])
    store = store_of(stats, computed, service, without)
    store.materialize(NOW - 7 * DAY, NOW)
    with pytest.raises(TypeError, match="'<' not supported between instances of"):
        store.get_online_features(without, [{"driver_id": 1, "buyer_id": 2}], full_feature_names=True)
    for row, found in (({"driver_id": 1, "buyer_id": 2}, 2.0), ({"buyer_id": 2, "driver_id": 1}, 1.0)):
        values = store.get_online_features(service, [row], full_feature_names=True).to_dict()
        assert values["buyer__a"] == [found] and "doubled__twice" not in values

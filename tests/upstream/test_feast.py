"""Traps in Feast. Each test passes while the trap exists; a failure is news from upstream, not a regression here. docs/upstream.md has the lines that run."""

import sys

import pandas as pd
import pytest
from upstream import lines_of_the_section, preambles, watch  # noqa: F401  # two are fixtures

pytestmark = [pytest.mark.usefixtures("mlflow"), pytest.mark.filterwarnings("ignore")]


@watch
def test_the_default_store_drops_a_row_when_one_feature_has_expired(reproduction):
    found = reproduction()["found"]
    assert sorted(found["dask"].driver_id) == [1, 3]
    assert sorted(found["duckdb"].driver_id) == [1, 2, 3]


@watch
def test_the_default_store_merges_two_rows_of_one_key_and_time(reproduction):
    assert len(reproduction()["found"]) == 1


@watch
def test_the_default_store_prefers_the_older_correction(reproduction):
    older = reproduction()["older"]
    assert older["dask"] > 0
    assert older["duckdb"] == 0


@watch
def test_a_column_with_a_features_name_hides_the_feature(reproduction):
    found = reproduction()["found"]
    assert (found.a[0], found.a__[0]) == (7.0, 1.0)


@watch
def test_the_duckdb_store_ranks_every_valid_row(reproduction):
    query = reproduction()["query"]
    assert "ROW_NUMBER() OVER" in query
    assert "ASOF" not in query


@watch
def test_the_duckdb_store_takes_some_column_names_for_itself(reproduction):
    names = reproduction()
    assert names["expiry"] == pd.Timestamp("2025-03-07", tz="UTC")
    assert "entity_row_id" not in names["left"]
    assert "Column 'speed_y' is not found" in names["unknown"]


@watch
def test_a_service_with_a_view_and_its_alias_cannot_be_asked(reproduction):
    assert "'<' not supported" in reproduction()["unsorted"]


@watch
def test_a_time_to_live_of_mixed_units_cannot_be_retrieved(reproduction):
    assert "mixed units" in reproduction()["said"]


@watch
def test_the_first_incremental_materialization_of_older_data_loads_nothing(reproduction):
    names = reproduction()
    assert names["online"]["a"] == [None]
    assert names["start"] > names["end"]


@watch
def test_online_reads_do_not_know_the_time_to_live(reproduction):
    names = reproduction()
    assert pd.isna(names["offline"])
    assert names["online"] == 2.0


@watch
def test_an_online_question_without_its_key_is_left_out(reproduction):
    names = reproduction()
    assert names["answers"]["driver_id"] == [1]
    assert [error.split(":")[0] for error in names["errors"]] == ["IndexError", "TypeError"]


@watch
def test_after_a_materialization_plan_reports_a_change(reproduction):
    names = reproduction()
    assert names["before"] == []
    assert names["after"] == ["batch_source"]


@watch
def test_definitions_can_be_read_only_from_above_their_folder(reproduction):
    assert "is not in the subpath of" in reproduction()["said"]


@watch
def test_a_source_whose_file_is_missing_passes_the_validation(reproduction):
    names = reproduction()
    assert names["answer"] is None
    assert [view.name for view in names["store"].list_feature_views()] == ["lost"]


@watch
def test_monitoring_is_completed_when_every_view_failed(reproduction):
    report = reproduction()["report"]
    assert report["status"] == "completed"
    assert report["computed_features"] == 0


@watch
def test_all_threads_use_the_duckdb_store_on_one_connection(reproduction):
    first, second = reproduction()["used"]
    assert first is second


@watch
def test_the_duckdb_store_writes_no_partitions_and_a_relative_path_anywhere(reproduction):
    names = reproduction()
    assert "No such file or directory" in names["said"]["no folder"]
    assert "it was not found in the table" in names["said"]["parts"]
    [file] = (names["here"] / "elsewhere" / "log").iterdir()
    assert file.name.endswith("-{i}.parquet")
    assert list((names["here"] / "log").iterdir()) == []


@watch
def test_the_log_of_computed_features_has_no_join_keys(reproduction):
    assert "driver_id" not in reproduction()["columns"]


@watch
def test_indirect_lineage_links_a_feature_to_services_that_do_not_read_it(reproduction):
    assert {"a", "b"} <= reproduction()["claimed"]


@watch
def test_the_registry_keeps_one_kind_of_profiler(reproduction):
    assert reproduction()["said"] == "No module named 'great_expectations.dataset'"


@watch
def test_importing_ipython_after_feast_breaks_online_reads(reproduction):
    said = reproduction.alone()
    assert "before: [1.0]" in said
    assert "ValueError: Invalid isoformat string" in said


@watch
def test_duckdb_2_is_allowed(reproduction):
    assert reproduction()["wanted"] == ['ibis-framework[duckdb]>=10.0.0; extra == "duckdb"']


@watch
def test_feast_ui_needs_an_extra_that_it_does_not_name(reproduction, monkeypatch):
    for name in [name for name in sys.modules if name.startswith(("grpc_health", "feast.registry_server"))]:
        monkeypatch.delitem(sys.modules, name)  # and back at the end of the test
    for name in ("grpc_health", "grpc_health.v1"):
        monkeypatch.setitem(sys.modules, name, None)
    assert reproduction()["said"].startswith("import of grpc_health")


@watch
def test_feast_ui_listens_on_all_interfaces(reproduction):
    assert list(reproduction()["hosts"].values()) == ["127.0.0.1", "0.0.0.0", "0.0.0.0"]


@watch
def test_an_on_demand_view_adds_columns_offline_only(reproduction):
    names = reproduction()
    assert {"a", "b"} <= set(names["offline"])
    assert names["online"] == ["driver_id", "twice"]


@watch
def test_the_schema_has_another_order_in_each_process(reproduction):
    names = reproduction()
    assert sorted(names["order"]) == names["declared"]
    assert names["order"] != names["declared"]


@watch
def test_feast_is_instrumented_at_import(reproduction):
    names = reproduction()
    assert "check_argument_types_internal" in names["FeatureView"].__init__.__code__.co_names


@watch
def test_the_grpc_server_keeps_its_process_alive(reproduction):
    names = reproduction()
    assert not names["timer"].daemon
    assert not names["public"] & {"stop", "close", "shutdown"}


@watch
def test_openlineages_further_settings_are_dropped(reproduction):
    (written,) = reproduction()["written"]
    assert written.startswith("openlineage_events.json-")


@watch
def test_the_lineage_of_apply_links_every_source_with_every_view(reproduction):
    names = reproduction()
    true = {("stats_file", "stats"), ("profile_file", "profile")}
    assert names["one_by_one"] == true
    assert names["by_apply"] == true | {("stats_file", "profile"), ("profile_file", "stats")}


@watch
def test_a_local_lineage_processor_never_gets_an_event(reproduction):
    assert reproduction()["kept"].get_jobs() == []


@watch
def test_feast_does_not_read_mlflows_form_of_an_alias(reproduction):
    names = reproduction()
    assert list(names["answers"].values()) == ["only_a", "only_a", "Invalid model_uri format"]
    assert names["notes"]["models:/ranker/1"]["feast.feature_service"] == "only_a"
    assert names["notes"]["models:/ranker@champion"] == {}


@watch
def test_feasts_start_run_moves_the_active_experiment(reproduction):
    names = reproduction()
    assert names["first"].info.experiment_id == names["second"].info.experiment_id != names["chosen"]


@watch
def test_a_later_read_overwrites_what_a_run_says(reproduction):
    names = reproduction()
    assert names["trained_on"] == "stats:a,stats:b"
    assert names["noted"](names["run"])["feast.feature_refs"] == "stats:a"


@watch
def test_a_retrieval_by_references_is_noted_as_a_larger_service(reproduction):
    names = reproduction()
    assert names["noted"](names["run"])["feast.feature_service"] == "both"


@watch
def test_feasts_log_model_gives_nothing_back(reproduction):
    assert reproduction()["info"] is None


@watch
def test_feasts_page_shows_only_the_runs_of_one_experiment(reproduction):
    names = reproduction()
    assert names["noted"](names["run"])["feast.project"] == "paged"
    assert names["listed"] == []


@watch
def test_feasts_page_lists_no_versions_of_a_feature_view(reproduction):
    names = reproduction()
    assert names["versions"] == ["v0", "v1"]
    assert "/feature_views/{name}" in names["routes"]
    assert [route for route in names["routes"] if "versions" in route] == []


@watch
def test_the_registry_server_listens_on_all_interfaces(reproduction):
    assert reproduction()["open_ports"] == {"::"}


@watch
def test_a_registry_file_loses_what_another_process_applied(reproduction):
    assert reproduction()["kept"] == ["of_the_first"]

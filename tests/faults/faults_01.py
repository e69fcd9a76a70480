"""What the checks of notebook 01 must notice."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
from faults import fault


@fault("01", "claim-define-version-schemas", says="plan lists")
def a_service_is_missing_from_the_registry(ns):
    service = ns["store"].get_feature_service("everything")
    ns["store"].delete_feature_service("everything")
    yield
    ns["store"].apply(service)


@fault("01", "claim-define-version-schemas", says="the table differs from the files")
def a_type_is_not_the_declared_one(ns):
    ns["fields"].loc[ns["fields"].feature == "rating", "type"] = "String"


@fault("01", "claim-registry-superset", says="conv_only reads {'conv_rate'}")
def a_service_is_registered_with_another_feature(ns):
    from feast import FeatureService

    store = ns["store"]
    service, view = store.get_feature_service("conv_only"), store.get_feature_view("driver_hourly_stats")
    store.apply(FeatureService(name="conv_only", features=[view[["acc_rate"]]], tags=service.tags))
    yield
    store.apply(service)


@fault("01", "claim-registry-superset", says="everything reads every feature")
def a_service_reads_the_whole_registry(ns):
    from feast import FeatureService

    store = ns["store"]
    service = store.get_feature_service("everything")
    views = [*store.list_batch_feature_views(), *store.list_on_demand_feature_views()]
    store.apply(FeatureService(name="everything", features=views, tags=service.tags))
    ns["reads"]["everything"] = list(ns["known"])
    yield
    store.apply(service)


@fault("01", "check-on-demand-formulas", says="differs from its formula")
def the_log_odds_are_those_of_two_rates(ns):
    table = ns["retrieved"]
    table["conv_log_odds"] = np.log((table.conv_rate + 1e-3) / (1 - table.acc_rate + 1e-3))


@fault("01", "check-on-demand-formulas", says="200 questions, 20 rows")
def most_rows_are_lost(ns):
    ns["retrieved"] = ns["retrieved"].head(20)
    ns["by_hand"] = ns["by_hand"].head(20)


@fault("01", "check-on-demand-formulas", says="missing where the rates aren't")
def a_known_rate_returns_no_log_odds(ns):
    ns["retrieved"].loc[ns["by_hand"].conv_log_odds.first_valid_index(), "conv_log_odds"] = np.nan


@fault("01", "check-on-demand-formulas", says="none of these drivers has a rate")
def no_driver_has_a_rate(ns):
    ns["retrieved"][list(ns["by_hand"])] = np.nan
    ns["by_hand"][:] = np.nan


@fault("01", "claim-on-demand-sources", says="answered once")
def a_question_is_lost(ns):
    ns["above"] = ns["above"].head(5)


@fault("01", "claim-on-demand-sources", says="the rate minus the target")
def every_question_gets_the_target_of_the_first(ns):
    ns["above"]["rate_above_target"] = ns["above"].conv_rate - ns["above"].target_rate.iloc[0]


@fault("01", "claim-on-demand-sources", says="exactly where the rate is missing")
def a_known_rate_returns_no_result(ns):
    ns["above"].iloc[0, ns["above"].columns.get_loc("rate_above_target")] = None


@fault("01", "claim-on-demand-sources", says="keep its target")
def the_callers_targets_are_overwritten(ns):
    ns["above"]["target_rate"] = 0.5
    ns["above"]["rate_above_target"] = ns["above"].conv_rate - 0.5


@fault("01", "claim-on-demand-sources", says="none of these drivers has a conversion rate")
def no_question_finds_a_rate(ns):
    ns["above"][["conv_rate", "rate_above_target"]] = np.nan


@fault("01", "check-plan-changes-nothing", says="plan must not change the registry")
def the_plan_is_applied(ns):
    from feast import FeatureStore, FeatureView, Field
    from feast.types import Float64

    path = Path("my_features/registry.db")
    before, other = path.read_bytes(), FeatureStore("my_features")
    view = other.get_feature_view("hourly_rates")
    schema = [*view.schema, Field(name="acc_rate", dtype=Float64)]
    entities = [other.get_entity("driver")]
    other.apply(
        FeatureView(name=view.name, entities=entities, ttl=view.ttl, schema=schema, source=view.batch_source)
    )
    yield
    path.write_bytes(before)


@fault("01", "check-plan-changes-nothing", says="should have the new feature")
def the_file_is_not_edited(ns):
    text = ns["file"].read_text()
    ns["file"].write_text(text.replace("acc_rate", "avg_daily_trips"))
    yield
    ns["file"].write_text(text)


@fault("01", "claim-version-features", says="should each add one version")
def the_undo_makes_no_version(ns):
    ns["history"]["undone"] = ns["history"]["cancel_rate added"]


@fault("01", "claim-version-features", says="should have a version of its change")
def my_view_has_its_first_version_alone(ns):
    first = SimpleNamespace(list_feature_view_versions=lambda name: [{"version": "v0"}])
    ns["FeatureStore"] = lambda path: first


@fault("01", "claim-version-features", says="should be readable again")
def the_driver_has_no_rows(ns):
    ns["one_row"]["driver_id"] = ns["UNKNOWN_DRIVER"]


@fault("01", "claim-version-features", says="the registry keeps a history of")
def services_have_a_history(ns):
    fields = SimpleNamespace(fields_by_name=["feature_view_version_history", "feature_service_history"])
    ns["store"] = SimpleNamespace(
        get_historical_features=ns["store"].get_historical_features,
        registry=SimpleNamespace(proto=lambda: SimpleNamespace(DESCRIPTOR=fields)),
    )


@fault("01", "claim-lineage", says="but its lineage leads to")
def the_hourly_file_is_missing_from_the_graph(ns):
    ns["parents"]["driver_hourly_stats"].discard("driver_stats")


@fault("01", "claim-lineage", says="driver_campaign reads")
def the_request_source_is_missing_from_the_graph(ns):
    ns["parents"]["driver_target"].discard("ranking_request")


@fault("01", "claim-lineage", says="the table is wrong about conv_only")
def a_row_of_the_table_has_no_source(ns):
    ns["origins"]["conv_only"] = set()

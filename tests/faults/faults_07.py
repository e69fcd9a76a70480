"""What the checks of notebook 07 must notice."""

from types import SimpleNamespace

from faults import fault


@fault("07", "claim-promote-by-alias", says="the alias points to version")
def the_alias_stays_where_it_was(ns):
    ns["behind_alias"] = "1"


@fault("07", "claim-promote-by-alias", says="other columns than its contract")
def the_model_was_trained_on_other_columns(ns):
    ns["model"] = SimpleNamespace(feature_names_in_=[*ns["contract"].columns[::-1], "x"])


@fault("07", "claim-gate-before-materialization", says="passed the gate")
def the_gate_lets_percent_through(ns):
    ns["refusal"] = "not refused"


@fault("07", "claim-gate-before-materialization", says="should name both rates")
def the_gate_judges_one_column_alone(ns):
    ns["refusal"] = ns["refusal"][ns["refusal"]["column"] == "conv_rate"]


@fault("07", "claim-gate-before-materialization", says="with every driver")
def the_gate_loses_a_driver(ns):
    ns["about_to_serve"] = ns["about_to_serve"].iloc[1:]


@fault("07", "claim-incremental", says="changed hardly anything")
def the_increment_loads_nothing(ns):
    ns["both"]["after the increment"] = ns["both"]["yesterday"]


@fault("07", "claim-incremental", says="not the latest")
def the_increment_ends_an_hour_early(ns):
    ns["today"].loc[3, "conv_rate"] += 0.01


@fault("07", "claim-incremental", says="loaded nothing")
def the_first_materialization_begins_at_the_wall_clock(ns):
    ns["yesterday"]["conv_rate"] = None


@fault("07", "claim-incremental", says="begin where the first ended")
def the_increment_loads_everything_again(ns):
    ns["intervals"][1] = (ns["intervals"][0][0], ns["NOW"])


@fault("07", "claim-no-skew", says="values differ between the stores")
def a_value_is_written_after_the_materialization(ns):
    ns["online"].iloc[5, 0] += 0.1


@fault("07", "claim-no-skew", says="no online value at all")
def a_view_is_not_materialized(ns):
    ns["online"].iloc[:, 0] = ns["offline"].iloc[:, 0] = None


@fault("07", "claim-on-demand-sources", says="did not reach the computation")
def the_callers_value_is_ignored(ns):
    ns["above"]["rate_above_target"] = ns["above"].conv_rate


@fault("07", "claim-predictions-served", says="served scores differ")
def the_server_fills_columns_in_another_order(ns):
    ns["answers"].iloc[3, 1] += 1e-6


@fault("07", "claim-predictions-served", says="another version")
def the_server_runs_another_version(ns):
    ns["version_served"] = "1"


@fault("07", "claim-feature-server", says="different values")
def feasts_server_gives_another_value(ns):
    name = ns["contract"].columns[0]
    ns["over_http"][name][0] = 0.123456


@fault("07", "claim-clear-refusal", says="the client's fault")
def an_unknown_driver_is_a_server_error(ns):
    ns["odd"]["unknown driver"] = (500, "KeyError")


@fault("07", "claim-clear-refusal", says="should name the driver")
def the_refusal_names_nobody(ns):
    ns["odd"]["unknown driver"] = (404, "not found")


@fault("07", "claim-clear-refusal", says="live on")
def the_server_dies_of_a_bad_request(ns):
    ns["afterwards"] = 503


@fault("07", "claim-stale-refused", says="were not refused")
def the_server_serves_stale_values(ns):
    ns["odd"]["stale features"] = (200, "0.6")


@fault("07", "claim-online-latency", says="is the machine busy")
def a_prediction_takes_sixty_milliseconds(ns):
    ns["times"]["in process"] += 60


@fault("07", "claim-online-latency", says="no online serving")
def a_request_waits_for_a_lock(ns):
    ns["times"]["over HTTP"] += 300


@fault("07", "claim-server-metrics", says="fewer than were asked for")
def the_server_does_not_count(ns):
    ns["count"] = 3


@fault("07", "claim-online-store-redis", says="holds other values")
def the_second_store_is_filled_to_another_moment(ns):
    ns["elsewhere"].iloc[0, 0] += 0.1


@fault("07", "check-definition-change", says="is ready although")
def the_server_does_not_look_at_the_definitions(ns):
    ns["changed"].status_code = 200


@fault("07", "check-definition-change", says="was answered with 200")
def the_server_answers_by_the_new_definition(ns):
    ns["while_changed"] = (200, [0.5])


@fault("07", "check-definition-change", says="should name the feature view")
def the_refusal_does_not_say_what_has_changed(ns):
    ns["while_changed"] = (503, "not ready")


@fault("07", "check-definition-change", says="is back, and the server is not ready")
def the_server_stays_stopped(ns):
    ns["restored"].status_code = 503


@fault("07", "check-definition-change", says="another than before")
def the_server_comes_back_with_another_score(ns):
    ns["once_restored"] = (200, [ns["once_restored"][1][0] + 1e-6])


@fault("07", "claim-rollback", says="was promoted, and")
def the_server_ignores_the_alias(ns):
    ns["new_answer"] = ns["after_rollback"]


@fault("07", "claim-rollback", says="score alike")
def both_versions_are_the_same_model(ns):
    ns["new_answer"] = (ns["new_answer"][0], ns["after_rollback"][1])
    ns["own_newer"] = ns["after_rollback"][1]


@fault("07", "claim-rollback", says="not that of the version that is named")
def the_server_names_one_version_and_runs_another(ns):
    ns["new_answer"] = (ns["new_answer"][0], ns["after_rollback"][1] + 1e-9)


@fault("07", "claim-rollback", says="after the rollback")
def the_server_does_not_come_back(ns):
    ns["after_rollback"] = ns["new_answer"]


@fault("07", "claim-rollback", says="is the machine busy")
def a_rollback_takes_a_minute(ns):
    ns["back"] = [60.0] * 3


@fault("07", "check-server-ended", says="did not live through")
def the_server_dies_during_a_rollback(ns):
    ns["still_running"] = False


@fault("07", "check-server-ended", says="should have ended")
def the_server_lives_on(ns):
    ns["server"] = SimpleNamespace(running=True)

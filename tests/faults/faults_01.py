"""What the checks of notebook 01 must notice."""

import numpy as np
import pandas as pd
from faults import fault


@fault("01", "claim-define-version-schemas", says="plan still lists")
def apply_left_a_view_out(ns):
    row = {"object": "driver_ratios", "kind": "on demand feature view", "change": "create", "properties": ""}
    ns["left"] = pd.DataFrame([row])


@fault("01", "claim-define-version-schemas", says="not in the registry: driver_target")
def a_definition_is_not_in_the_registry(ns):
    ns["registered"] = [found for found in ns["registered"] if found.name != "driver_target"]


@fault("01", "check-how-long-features-are-valid", says="should be valid for 7 and 30 days")
def the_daily_view_has_a_time_to_live_of_one_day(ns):
    ns["fields"].loc[ns["fields"]["feature view"] == "driver_daily_profile", "valid for days"] = 1


@fault("01", "check-how-long-features-are-valid", says="should hold five features")
def a_view_has_lost_a_feature(ns):
    ns["fields"] = ns["fields"][ns["fields"].feature != "rating"]


@fault("01", "check-command-line", says="should list {'conv_log_odds'} too")
def the_command_does_not_list_a_computed_feature(ns):
    text = ns["answer"].stdout.replace("conv_log_odds", "")
    ns["answer"] = type("Answer", (), {"stdout": text, "exit_code": 0, "exception": None})


@fault("01", "check-command-line", says="the feast command failed")
def the_command_ends_with_an_error(ns):
    ns["answer"] = ns["CliRunner"]().invoke(ns["cli"], ["--chdir", "/", "features", "list"])


@fault("01", "claim-registry-superset", says="the registry does not define")
def a_service_reads_a_feature_that_no_view_has(ns):
    ns["reads"]["rates"].append("cancel_rate")


@fault("01", "claim-registry-superset", says="a real slice")
def every_candidate_reads_everything(ns):
    ns["reads"].update((name, list(ns["known"])) for name in ns["reads"])


@fault("01", "check-services-read-what-they-promise", says="service rates_and_rating should read")
def rates_and_rating_reads_the_tenure(ns):
    ns["reads"]["rates_and_rating"] = ["conv_rate", "acc_rate", "tenure_days"]


@fault("01", "check-services-read-what-they-promise", says="a promise for each service")
def a_service_is_added_without_a_promise(ns):
    ns["reads"]["rates_again"] = ["conv_rate", "acc_rate"]


@fault("01", "check-on-demand-formulas", says="away from its formula")
def the_log_odds_are_taken_over_the_other_rate(ns):
    table = ns["retrieved"]
    table["conv_log_odds"] = np.log((table.conv_rate + 1e-3) / (1 - table.acc_rate + 1e-3))


@fault("01", "check-on-demand-formulas", says="have an answer")
def most_answers_are_missing(ns):
    ns["retrieved"] = ns["retrieved"].head(20)
    ns["by_hand"] = ns["by_hand"].head(20)


@fault("01", "claim-on-demand-sources", says="minus the caller's target")
def every_question_gets_the_target_of_the_first(ns):
    ns["above"]["rate_above_target"] = ns["above"].conv_rate - ns["above"].target_rate.iloc[0]


@fault("01", "claim-on-demand-sources", says="missing where the rate is")
def a_known_rate_gives_no_result(ns):
    ns["above"].iloc[0, ns["above"].columns.get_loc("rate_above_target")] = None


@fault("01", "claim-on-demand-sources", says="its own target")
def the_callers_targets_are_overwritten(ns):
    ns["above"]["target_rate"] = 0.5
    ns["above"]["rate_above_target"] = ns["above"].conv_rate - 0.5


@fault("01", "claim-on-demand-sources", says="no driver of these questions")
def nobody_has_a_rate(ns):
    ns["above"][["conv_rate", "rate_above_target"]] = np.nan


@fault("01", "check-plan-changes-nothing", says="should name one view and its features")
def the_plan_is_silent_about_the_change(ns):
    ns["planned"] = ns["planned"].head(0)


@fault("01", "check-plan-changes-nothing", says="must not change the registry")
def the_plan_has_been_applied(ns):
    registered, proposed = ns["store"], ns["proposed"]
    ns["store"] = type("Store", (), {"get_feature_view": staticmethod(lambda name: proposed)})
    assert "cancel_rate" not in [field.name for field in registered.get_feature_view(proposed.name).features]


@fault("01", "claim-version-features", says="should be two versions")
def the_reversal_leaves_no_version(ns):
    ns["history"].loc["driver_hourly_stats", "taken back"] -= 1


@fault("01", "claim-version-features", says="nobody changed the other views")
def the_change_touches_another_view(ns):
    ns["history"].loc["driver_ratios", "taken back"] += 1


@fault("01", "claim-version-features", says="at least its first version")
def on_demand_views_have_no_history(ns):
    ns["history"].loc["driver_ratios"] = 0


@fault("01", "claim-version-features", says="has a history now")
def services_have_a_history(ns):
    ns["others"]["a service, rates_and_rating"] = 1


@fault("01", "claim-version-features", says="should be readable again")
def the_reversal_cannot_be_read(ns):
    ns["row"]["conv_rate"] = None


@fault("01", "claim-lineage", says="lead back to no source")
def a_view_has_lost_its_source(ns):
    ns["origins"]["conv_only"] = set()


@fault("01", "claim-lineage", says="read the profile, but lineage says")
def the_way_from_the_profile_is_missing(ns):
    ns["origins"]["rates_and_rating"] = {"driver_stats"}


@fault("01", "claim-lineage", says="only the campaign needs the caller's value")
def the_request_source_is_not_in_the_graph(ns):
    ns["origins"]["driver_campaign"] = {"driver_stats"}


@fault("01", "check-indirect-lineage", says="the warning above can go")
def feast_derives_indirect_lineage_by_feature(ns):
    ns["claimed"] = set(ns["real"])


@fault("01", "check-indirect-lineage", says="misses what a service really reads")
def a_real_read_is_missing_from_the_indirect_lineage(ns):
    ns["claimed"] = ns["claimed"] - {("conv_rate", "conv_only")}

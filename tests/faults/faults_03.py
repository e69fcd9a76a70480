"""What the checks of notebook 03 must notice."""

from faults import fault


@fault("03", "claim-saved-dataset", says="the saved rows differ")
def a_saved_value_is_rounded(ns):
    ns["read_back"].loc[3, "conv_rate"] += 0.001


@fault("03", "claim-saved-dataset", says="a rule changed on its way")
def the_registry_loses_a_rule(ns):
    gx = ns["gx"]
    ns["saved_suite"] = gx.ExpectationSuite("driver_ranking", expectations=ns["rules"][:-1])


@fault("03", "check-every-column-has-a-rule", says="a broken conv_log_odds would pass")
def a_computed_feature_has_no_rule(ns):
    ns["ruled"].discard("conv_log_odds")


@fault("03", "check-every-column-has-a-rule", says="a broken label would pass")
def the_label_has_no_rule(ns):
    ns["ruled"].discard("label")


@fault("03", "claim-validation-reference", says="pass with every row")
def the_gate_drops_a_row_of_a_clean_week(ns):
    ns["clean"] = ns["clean"].iloc[1:]


@fault("03", "claim-validation-reference", says="the few nulls that are normal")
def the_retrieval_fills_expired_values(ns):
    ns["clean"] = ns["clean"].fillna(0.5)


@fault("03", "claim-validation-failed", says="the gate is open")
def the_gate_lets_the_broken_week_through(ns):
    ns["trained"]["broken week"] = ns["careless"]


@fault("03", "claim-validation-failed", says="should name the broken rules")
def the_report_leaves_out_the_unit(ns):
    report = ns["report"]
    ns["report"] = type("Report", (), {"table": lambda self: report.table().query("column != 'conv_rate'")})()


@fault("03", "claim-validation-failed", says="should name the same rules")
def the_retrieval_raises_without_a_reason(ns):
    ns["raised"] = "validation failed"


@fault("03", "claim-validation-failed", says="visible harm")
def the_careless_model_does_no_harm(ns):
    ns["says"]["fed shares"] = ns["says"]["what happened"]


class Passed:
    """A report whose ``is_success`` is always true."""

    is_success = True


@fault("03", "claim-stale-and-schema", says="beyond their time to live passed")
def the_report_of_a_stopped_feed_is_a_success(ns):
    ns["accidents"]["the feed stopped"] = Passed()


@fault("03", "claim-stale-and-schema", says="a missing column must be named")
def a_missing_column_is_not_noticed(ns):
    ns["broken_rules"]["a column is gone"] = []


@fault("03", "claim-stale-and-schema", says="arrive as text")
def text_in_place_of_numbers_passes(ns):
    ns["broken_rules"]["a column is text"] = []


@fault("03", "claim-stale-and-schema", says="neither 0 nor 1")
def the_rule_about_labels_is_lost(ns):
    ns["broken_rules"]["a label of 7"] = []


@fault("03", "claim-expectations-discarded", says="it was dropped")
def the_rule_that_the_reference_breaks_is_dropped(ns):
    ns["verdict"] = ns["clean"]


@fault("03", "claim-feature-monitoring", says="views and features measured")
def a_window_of_the_monitor_is_empty(ns):
    ns["runs"]["baseline"] |= {"computed_features": 0}


@fault("03", "claim-feature-monitoring", says="reports a missing source itself")
def the_monitor_fails_without_a_source(ns):
    ns["empty"]["status"] = "failed"


@fault("03", "claim-drift-threshold", says="too close to the threshold")
def a_good_week_scores_like_a_drifted_one(ns):
    ns["history"].iloc[0, 0] = 0.2


@fault("03", "claim-drift-threshold", says="compared with itself must score zero")
def the_bins_of_the_two_windows_differ(ns):
    real = ns["common_bins"]

    def shifted(first, second, **options):
        one, other = real(first, second, **options)
        return one, other[::-1]

    ns["common_bins"] = shifted


@fault("03", "claim-drift-detected", says="both planted shifts and no more")
def the_drifted_week_is_the_clean_one(ns):
    ns["scores"].loc["drifted"] = ns["scores"].loc["clean"]


@fault("03", "claim-drift-detected", says="were measured")
def an_arrival_is_not_measured(ns):
    ns["counted"]["clean"] = 0


@fault("03", "claim-drift-detected", says="a clean week scores as drifted")
def the_clean_week_scores_as_drifted(ns):
    ns["scores"].loc["clean", "acc_rate"] = 0.3


@fault("03", "claim-stopped-before-serving", says="the rules must stop the broken week")
def the_rules_are_not_asked(ns):
    ns["outcome"]["broken"] = "held: conv_rate drifted"


@fault("03", "claim-stopped-before-serving", says="must hold the drifted week")
def the_score_is_not_asked(ns):
    ns["outcome"]["drifted"] = "released"


@fault("03", "claim-stopped-before-serving", says="only the clean week may be online")
def a_held_week_is_online(ns):
    ns["online"]["drifted"] = 144


@fault("03", "check-registry-untouched", says="one saved dataset belongs in the registry")
def a_staged_batch_is_saved_in_the_projects_registry(ns):
    ns["saved_names"].append("broken")


@fault("03", "check-materialization-looks-at-no-value", says="check values now")
def materialization_refuses_impossible_values(ns):
    ns["served"]["conv_rate"] = ns["served"].conv_rate.clip(upper=1)


@fault("03", "check-materialization-looks-at-no-value", says="a value is missing online")
def materialization_loads_nothing(ns):
    ns["served"]["conv_rate"] = None

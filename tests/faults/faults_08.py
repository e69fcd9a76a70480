"""What the checks of notebook 08 must notice."""

from datetime import timedelta

from faults import fault


@fault("08", "claim-predictions-logged", says="are in the log")
def the_last_answers_never_leave_the_buffer(ns):
    ns["log"] = ns["log"].iloc[:-1]


@fault("08", "claim-predictions-logged", says="not those that were given")
def the_log_keeps_the_scores_of_another_version(ns):
    ns["log"].loc[3, "score"] += 0.01


@fault("08", "claim-predictions-logged", says="training and serving differ")
def the_server_reads_a_value_of_the_day_before(ns):
    ns["logged"].iloc[5, 0] += 0.01


@fault("08", "claim-labels-join-late", says="younger than its question")
def the_join_looks_ahead(ns):
    ns["everything"]["predicted"] += timedelta(days=1)


@fault("08", "claim-labels-join-late", says="used before it was known")
def nobody_looks_at_when_a_label_was_written(ns):
    ns["early"] = ns["everything"]


@fault("08", "claim-labels-join-late", says="cannot be known yet")
def labels_are_stamped_with_the_time_of_their_question(ns):
    ns["labels"]["created"] = ns["labels"]["event_timestamp"]
    ns["early"] = ns["known_by"](ns["week_5"])


@fault("08", "claim-views-see-covariates", says="went unnoticed")
def evidently_keeps_silent_in_a_drifted_week(ns):
    ns["alarms"].loc["Evidently", 3] = False


@fault("08", "claim-views-see-covariates", says="moved with the concept")
def the_scores_move_after_the_change(ns):
    ns["alarms"].loc["scores", 5] = True


@fault("08", "claim-views-see-covariates", says="in the quiet week")
def a_threshold_so_low_that_a_quiet_week_passes_it(ns):
    ns["alarms"].loc["Feast's windows", 1] = True


@fault("08", "claim-concept-needs-labels", says="lost before the relation changed")
def the_auc_falls_with_the_features(ns):
    ns["auc_view"][[2, 3]] -= 0.2


@fault("08", "claim-concept-needs-labels", says="did not suffer")
def the_auc_stays_as_it_was(ns):
    ns["auc_view"][[4, 5, 6]] = ns["auc_before"]


@fault("08", "claim-concept-needs-labels", says="cost only")
def the_relation_hardly_changes(ns):
    ns["auc_view"][[1, 2, 3]] = ns["auc_before"] - 0.04
    ns["auc_view"][[4, 5, 6]] = ns["auc_before"] - 0.06


@fault("08", "claim-concept-needs-labels", says="no alarm for it")
def nobody_is_called(ns):
    ns["alarms"].loc["AUC"] = False


@fault("08", "claim-alert-before-refusal", says="should still answer")
def the_server_refuses_already(ns):
    ns["statuses"].add(404)


@fault("08", "claim-alert-before-refusal", says="no feature is old")
def the_server_runs_on_the_clock_of_the_last_materialization(ns):
    ns["used"]["age, days"] = 0.1


# A machine without Prometheus tries these two as well.
@fault("08", "claim-alert-before-refusal", says="the alerts name []")
def prometheus_does_not_reach_the_server(ns):
    ns["prometheus"], ns["alerts"] = "running", {}


@fault("08", "claim-alert-before-refusal", says="the alerts are")
def the_rule_waits_for_an_hour(ns):
    used = ns["used"]
    old = used.index[used["age, days"] > 0.8 * used["limit, days"]]
    ns["prometheus"], ns["alerts"] = "running", {name: {"state": "pending"} for name in old}


@fault("08", "claim-gate-keeps-champion", says="came to no decision")
def a_step_of_the_retraining_fails(ns):
    ns["false_alarm"] = (2, "nothing was promoted: train failed")


@fault("08", "claim-gate-keeps-champion", says="was better after all")
@fault("08", "claim-promoted-if-better", says="is not better")
def the_gate_decides_against_its_interval(ns):
    measured = ns["comparisons"]
    ns["comparisons"] = lambda: measured().assign(low=lambda rows: -rows.low)


@fault("08", "claim-gate-keeps-champion", says="should say what happened")
def the_retraining_says_nothing(ns):
    ns["false_alarm"] = (0, "done")


@fault("08", "claim-gate-keeps-champion", says="the alias moved")
def somebody_moves_the_alias(ns):
    move = ns["client"].set_registered_model_alias
    move(ns["MODEL"], "production", "1")
    yield
    move(ns["MODEL"], "production", ns["champion"].number)


@fault("08", "claim-promoted-if-better", says="should be refused")
def two_days_of_labels_are_enough(ns):
    ns["too_early"] = (0, ns["too_early"][1])


@fault("08", "claim-promoted-if-better", says="should name the reason")
def the_refusal_has_another_reason(ns):
    ns["too_early"] = (2, "nothing was promoted: no labels between 2025-03-22 and 2025-03-24.")


@fault("08", "claim-promoted-if-better", says="did not follow")
def the_server_ignores_the_promotion(ns):
    ns["after_promotion"] = (200, ns["champion"].number)


@fault("08", "claim-promoted-if-better", says="did not come back")
def the_server_stays_with_the_new_version(ns):
    ns["called_back"] = (200, ns["challenger"].number)


@fault("08", "claim-promoted-if-better", says="was overruled")
def promotion_does_not_look_at_the_alias(ns):
    ns["overruled"] = "the colleague was overruled"


@fault("08", "claim-loop-closes", says="AUC was lost")
def the_champion_recovers_by_itself(ns):
    ns["story"].loc[6, "never"] = ns["story"].loc[3, "never"]


@fault("08", "claim-loop-closes", says="retraining won back")
def the_challenger_learnt_from_the_old_world(ns):
    ns["story"].loc[6, "on the alarm"] = ns["story"].loc[6, "never"] + 0.01


@fault("08", "claim-loop-closes", says="the task itself became harder")
def the_generator_adds_noise(ns):
    ns["story"].loc[5, "best possible"] = ns["story"].loc[[1, 2, 3], "best possible"].min() - 0.05


@fault("08", "claim-covariate-needs-no-model", says="changed the AUC by")
def a_new_model_gains_in_the_drifted_weeks(ns):
    ns["story"].loc[[2, 3], "each week"] += 0.1

"""What the checks of notebook 08 must notice."""

from dataclasses import replace
from datetime import timedelta

import pandas as pd
from faults import fault


def aucs(ns, probability):
    """The AUC of each week if drivers converted with another probability."""
    frame = ns["everything"].assign(chance=probability)
    return pd.Series(
        {week: ns["roc_auc_score"](rows.label, rows.chance) for week, rows in frame.groupby("week")}
    )


@fault("08", "claim-predictions-logged", says="in the log")
def the_last_morning_never_leaves_the_buffer(ns):
    ns["logged_scores"] = ns["logged_scores"].iloc[:-1]


@fault("08", "claim-predictions-logged", says="belongs to another driver or morning")
def on_one_morning_scores_stand_beside_other_drivers(ns):
    morning = ns["logged_scores"].iloc[3]
    ns["logged_scores"].iloc[3] = morning.sort_values().to_numpy()


@fault("08", "claim-predictions-logged", says="names another version")
def the_log_names_the_first_version_each_time(ns):
    ns["predictions"]["model_version"] = "1"


@fault("08", "claim-predictions-logged", says="other features than serving")
def the_server_reads_a_value_of_the_day_before(ns):
    column, drivers = ns["contract"].columns[0], ns["predictions"].driver_id
    before = ns["predictions"].groupby(drivers)[column].shift().fillna(0)
    ns["predictions"].loc[drivers == drivers[0], column] = before


@fault("08", "claim-labels-join-late", says="younger than its question")
def the_join_looks_ahead(ns):
    frame = ns["predictions"]
    frame["event_timestamp"] += timedelta(hours=1)
    joined = pd.merge_asof(
        ns["labels"],
        frame.assign(predicted=frame.event_timestamp),
        on="event_timestamp",
        by="driver_id",
        direction="forward",
    )
    ns["everything"] = joined.dropna(subset="score")


@fault("08", "claim-labels-join-late", says="used before it was known")
def nobody_looks_at_when_a_label_was_written(ns):
    ns["early"] = ns["everything"]


@fault("08", "claim-labels-join-late", says="cannot be known yet")
def labels_are_stamped_with_the_time_of_their_question(ns):
    ns["labels"]["created"] = ns["labels"]["event_timestamp"]
    ns["early"] = ns["known_by"](ns["week_5"])


@fault("08", "claim-views-see-covariates", says="a stored rate did not move")
def the_table_holds_another_column_under_a_rates_name(ns):
    metrics = ns["metrics"]
    trips = metrics[(metrics.granularity == "weekly") & (metrics.feature_name == "avg_daily_trips")]
    baseline = ns["baseline"]["avg_daily_trips"]
    pairs = [ns["common_bins"](baseline, histogram) for histogram in trips.histogram]
    ns["stored_drift"]["acc_rate"] = [ns["jensenshannon"](*pair, base=2) for pair in pairs]


@fault("08", "claim-views-see-covariates", says="Evidently missed a rate")
def evidently_compares_a_week_with_itself(ns):
    week_3 = ns["predictions"].loc[ns["log_week"] == 3, ns["contract"].columns].astype(float)
    found = ns["Report"]([ns["DataDriftPreset"]()]).run(week_3, week_3.head(900)).dict()["metrics"]
    entries = [entry for entry in found if "column" in entry["config"]]
    ns["evidently"][3] = pd.Series({entry["config"]["column"]: float(entry["value"]) for entry in entries})


@fault("08", "claim-views-see-covariates", says="the scores did not move")
def the_scores_are_compared_with_themselves(ns):
    ns["alarms"].loc["scores", 2] = False


@fault("08", "claim-views-see-covariates", says="moved in another week")
def a_threshold_so_low_that_a_quiet_week_passes_it(ns):
    ns["alarms"].loc["Feast's monitoring"] = (ns["stored_drift"] > 0.005).any(axis=1)


@fault("08", "claim-concept-needs-labels", says="lost before the relation changed")
def the_labels_are_shuffled(ns):
    shuffled = ns["everything"].label.sample(frac=1, random_state=1).to_numpy()
    ns["everything"]["label"] = shuffled
    ns["auc_view"] = aucs(ns, ns["everything"].score)


@fault("08", "claim-concept-needs-labels", says="cost only")
def the_model_follows_the_change(ns):
    ns["auc_view"][[4, 5, 6]] = ns["auc_before"]


@fault("08", "claim-concept-needs-labels", says="no alarm for it")
def nobody_is_called(ns):
    ns["alarms"].loc["AUC"] = ns["auc_view"] < ns["auc_before"] - 0.5


@fault("08", "claim-alert-before-refusal", says="should still answer")
def the_server_refuses_already(ns):
    ns["statuses"].add(404)


@fault("08", "claim-alert-before-refusal", says="no feature is old")
def the_server_runs_on_the_clock_of_the_last_materialization(ns):
    ns["ages"]["age"] -= 6


# A machine without Prometheus tries these two as well.
@fault("08", "claim-alert-before-refusal", says="the alerts name []")
def prometheus_does_not_reach_the_server(ns):
    ns["prometheus"], ns["alerts"] = "running", {}


@fault("08", "claim-alert-before-refusal", says="the alerts are")
def the_rule_waits_for_an_hour(ns):
    ages = ns["ages"]
    old = ages.index[ages["age"] > 0.8 * ages["age_limit"]]
    ns["prometheus"], ns["alerts"] = "running", {name: {"state": "pending"} for name in old}


def measured(ns, **changes):
    """Let the gate's record differ: each change gets the record and returns a figure."""
    read = ns["gate_of"]

    def changed(outcome):
        gate = read(outcome)
        return pd.Series({**gate, **{name: change(gate) for name, change in changes.items()}})

    ns["gate_of"] = changed


@fault("08", "claim-gate-keeps-champion", says="rows, the later days have")
def the_models_are_compared_on_the_training_rows(ns):
    measured(ns, rows=lambda gate: 3 * gate.rows)


@fault("08", "claim-gate-keeps-champion", says="the champion scores")
@fault("08", "claim-promoted-if-better", says="the champion scores")
def the_champion_is_scored_on_other_rows(ns):
    measured(ns, champion=lambda gate: gate.champion + 0.01)


@fault("08", "claim-gate-keeps-champion", says="such a model scores")
@fault("08", "claim-promoted-if-better", says="such a model scores")
def the_challenger_has_other_hyperparameters(ns):
    ns["hyperparameters"] = lambda model: {"C": 1e-6, "degree": 4, "weights": "equal"}


@fault("08", "claim-gate-keeps-champion", says="no interval")
@fault("08", "claim-promoted-if-better", says="no gain")
def the_interval_is_open_above(ns):
    measured(ns, high=lambda gate: float("inf"))


@fault("08", "claim-gate-keeps-champion", says="was better after all")
def the_gate_decides_against_its_interval(ns):
    measured(ns, low=lambda gate: -gate.low)


@fault("08", "claim-gate-keeps-champion", says="a model was registered")
def the_retraining_promotes_in_any_case(ns):
    ns["false_alarm"] = replace(ns["false_alarm"], promoted=True, challenger="5")


@fault("08", "claim-gate-keeps-champion", says="the alias moved")
def somebody_moves_the_alias(ns):
    move = ns["client"].set_registered_model_alias
    move(ns["MODEL"], "production", "1")
    yield
    move(ns["MODEL"], "production", ns["champion"].number)


@fault("08", "claim-covariate-needs-no-model", says="retraining on the drifted weeks gained")
def a_new_model_gains_in_the_drifted_weeks(ns):
    measured(ns, challenger=lambda gate: gate.champion + 0.05)


@fault("08", "claim-promoted-if-better", says="should be refused")
def the_refusal_has_another_reason(ns):
    ns["too_early"] = "no labels between 2025-03-22 and 2025-03-24."


@fault("08", "claim-promoted-if-better", says="no gain")
def the_gate_opens_for_a_model_that_is_no_better(ns):
    measured(ns, low=lambda gate: -0.01)


@fault("08", "claim-promoted-if-better", says="was to be held back")
def hold_is_ignored(ns):
    ns["held_alias"] = ns["challenger"]


@fault("08", "claim-promoted-if-better", says="was overruled")
def promotion_does_not_look_at_the_alias(ns):
    ns["alias_of_colleague"] = ns["challenger"].number


@fault("08", "claim-promoted-if-better", says="did not follow")
def the_server_ignores_the_promotion(ns):
    ns["promoted"] = (200, ns["champion"].number)


@fault("08", "claim-promoted-if-better", says="did not come back")
def the_server_stays_with_the_new_version(ns):
    ns["rolled_back"] = (200, ns["challenger"].number)


@fault("08", "claim-loop-closes", says="was trained on itself")
def weekly_retraining_sees_the_week_it_is_scored_on(ns):
    known = ns["known_in_week"]
    ns["known_in_week"] = lambda week: known(week + 1)


@fault("08", "claim-loop-closes", says="AUC was lost")
def the_champion_recovers_by_itself(ns):
    ns["story"].loc[6, "never"] = ns["story"].loc[3, "never"]


@fault("08", "claim-loop-closes", says="retraining won back")
def the_challenger_learned_from_the_old_world(ns):
    rows = ns["everything"][ns["everything"].week == 6]
    old = ns["fit"](ns["before"]).predict_proba(rows[ns["X"]])[:, 1]
    ns["story"].loc[6, "on the alarm"] = ns["roc_auc_score"](rows.label, old)


@fault("08", "claim-loop-closes", says="the task itself became harder")
def the_generator_adds_noise(ns):
    ns["story"].loc[5, "best possible"] = ns["story"].loc[[1, 2, 3], "best possible"].min() - 0.05

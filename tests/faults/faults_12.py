"""What the checks of notebook 12 must notice: faulty code and faulty data, planted where it is quick."""

import dataclasses
from copy import deepcopy
from datetime import timedelta

import numpy as np
from faults import fault, rerun


@fault("12", "check-labels", says="an hour before schedule")
def the_question_is_asked_at_departure(ns):
    ns["labels"]["event_timestamp"] = ns["sample"].scheduled


@fault("12", "check-labels", says="not New York's time")
def the_hour_is_in_utc(ns):
    scheduled = ns["sample"].scheduled
    ns["labels"]["scheduled_hour"] = scheduled.dt.hour + scheduled.dt.minute / 60


@fault("12", "check-labels", says="no two rows share")
def the_sample_has_no_two_flights_of_one_minute(ns):
    labels = ns["labels"].drop_duplicates(["origin", "carrier", "event_timestamp"])
    ns["labels"], ns["sample"] = labels, ns["sample"].loc[labels.index]
    rerun(ns, "share_keys = ")


def row_of_the_table(ns):
    """The row that the notebook counts by hand, made again by its own function."""
    rows = ns["recent"](["origin"], hours=3, name="airport")
    return rows[(rows.origin == "LGA") & (rows.event_timestamp == ns["moment"])].iloc[0]


@fault("12", "claim-features-know-the-past", says="doesn't count the flights")
def departures_count_from_their_schedule(ns):
    ns["departed"]["known"] = ns["departed"].scheduled
    ns["row"] = row_of_the_table(ns)


@fault("12", "claim-features-know-the-past", says="another mean delay")
def a_delay_is_stored_in_other_units(ns):
    ns["departed"]["delay"] = ns["departed"].delay / 60
    ns["row"] = row_of_the_table(ns)


@fault("12", "claim-features-know-the-past", says="before its question")
def a_flight_leaves_two_hours_early(ns):
    departed = ns["departed"]
    departed.loc[departed.index[0], "known"] = departed.scheduled.iloc[0] - timedelta(hours=2)


@fault("12", "claim-features-know-the-past", says="this moment shows nothing")
def everything_left_on_time(ns):
    ns["departed"]["known"] = ns["departed"][["known", "scheduled"]].min(axis=1)
    ns["by_airport"] = ns["recent"](["origin"], hours=3, name="airport")
    rerun(ns, "moment = ")


def contract_of(ns, *features):
    """The contract of a service of these features, in a registry of its own."""
    from exercises.notebook_12 import _a_project, _entities

    with _a_project() as store:
        store.apply([*_entities(), *features, ns["FeatureService"](name="fault", features=list(features))])
        return ns["FeatureContract"].from_feature_service(store, "fault", label="late")


@fault("12", "claim-own-definitions", says="the keys are")
def no_view_is_about_a_carrier(ns):
    ns["contract"] = contract_of(ns, ns["airport_view"], ns["weather_view"])


@fault("12", "claim-own-definitions", says="not in the contract")
def the_caller_sends_nothing(ns):
    ns["contract"] = contract_of(ns, ns["airport_view"], ns["carrier_view"], ns["weather_view"])


@fault("12", "claim-own-definitions", says="other columns")
def the_leak_is_in_the_service(ns):
    ns["contract"] = contract_of(ns, *ns["served_views"], ns["day_view"])


@fault("12", "claim-real-point-in-time", says="rows were lost or repeated")
def rows_that_share_keys_and_time_are_merged(ns):
    ns["table"] = ns["table"].drop_duplicates(["origin", "carrier", "event_timestamp"])


@fault("12", "claim-real-point-in-time", says="another order")
def the_rows_come_back_sorted_by_airport(ns):
    ns["table"] = ns["table"].sort_values("origin", kind="stable", ignore_index=True)


@fault("12", "claim-real-point-in-time", says="disagree on missing values")
def a_value_of_the_weather_is_missing(ns):
    ns["table"].loc[700, "visibility"] = np.nan


@fault("12", "claim-real-point-in-time", says="different values")
def the_airports_are_joined_one_row_late(ns):
    values = ns["table"].airport_delay
    ns["table"]["airport_delay"] = values.shift().fillna(0).mask(values.isna())
    rerun(ns, "difference = ")


@fault("12", "claim-real-point-in-time", says="the hours are wrong")
def the_day_begins_at_midnight(ns):
    ns["table"]["hours_into_day"] = ns["labels"].scheduled_hour


@fault("12", "claim-real-point-in-time", says="rows are complete")
def most_rows_lack_a_feature(ns):
    ns["complete_rows"][:] = np.arange(len(ns["complete_rows"])) % 2 == 0


def judged(ns, rules, rows):
    suite = ns["gx"].ExpectationSuite("fault", expectations=deepcopy(rules))
    return ns["judge"](suite, rows, ns["judged"])


@fault("12", "claim-real-validation", says="breaks its own rules")
def the_real_data_is_in_other_units(ns):
    ns["report"] = judged(ns, ns["rules"], ns["in_kilometers"])


@fault("12", "claim-real-validation", says="not the one that was defined")
def a_rule_is_not_stored(ns):
    ns["report"] = judged(ns, ns["rules"][1:], ns["table"])


@fault("12", "claim-real-validation", says="should break one rule")
def no_rule_looks_at_the_mean(ns):
    ns["rejected"] = judged(ns, ns["rules"][:-1], ns["in_kilometers"])


@fault("12", "claim-real-leak", says="before the day's mean is known")
def the_day_is_known_in_time(ns):
    ns["by_day"] = ns["by_day"].assign(known=ns["by_day"].known - timedelta(days=2))
    rerun(ns, "too_late = ")


@fault("12", "claim-real-leak", says="alone should look too good")
def the_day_is_stamped_when_it_was_known(ns):
    ns["selection"] = ns["selection"].assign(day_delay=ns["selection"].day_delay_known)
    rerun(ns, "aucs_alone = ")


@fault("12", "claim-real-leak", says="look better in a backtest")
def the_backtest_has_what_a_server_has(ns):
    rerun(
        ns, "leaky_columns = ", change=("predict_proba(held_out[leaky_columns])", "predict_proba(as_served)")
    )


@fault("12", "claim-real-leak", says="as served it should be worse")
def the_server_has_what_the_backtest_has(ns):
    rerun(
        ns, "leaky_columns = ", change=("predict_proba(as_served)", "predict_proba(held_out[leaky_columns])")
    )


@fault("12", "claim-gate-is-blind-to-a-leak", says="the gate should open for it")
def the_gate_compares_the_other_way_round(ns):
    models = 'predictions["no leak"], predictions[f"leak, {rows}"]'
    rerun(ns, "gates = {", change=(models, 'predictions[f"leak, {rows}"], predictions["no leak"]'))


@fault("12", "claim-gate-is-blind-to-a-leak", says="it should stay closed")
def the_gate_opens_for_what_serves_worse(ns):
    rerun(ns, "gates = {", change=('predictions[f"leak, {rows}"]', 'predictions["leak, as stored"]'))


@fault("12", "claim-same-pipeline", says="a strange gain")
def the_interval_contains_zero(ns):
    ns["comparison"].data.metrics["low"] = -0.001


@fault("12", "claim-same-pipeline", says="a strange gain")
def the_interval_is_open_at_its_end(ns):
    ns["comparison"].data.metrics["high"] = 1.8e308


@fault("12", "claim-same-pipeline", says="on other rows")
def the_champion_is_judged_on_the_selection_days(ns):
    scores = ns["first_model"].predict_proba(ns["inputs"])[:, 1]
    auc, metrics = ns["roc_auc_score"](ns["selection"].late, scores), ns["comparison"].data.metrics
    metrics["challenger"] += auc - metrics["champion"]
    metrics["champion"] = auc


@fault("12", "claim-same-pipeline", says="registered no version")
def the_newest_is_the_first(ns):
    rerun(ns, "newest = max", change=("made_by = 'pipeline'", "made_by = 'selection'"))


@fault("12", "claim-same-pipeline", says="trained another model")
def the_pipeline_leaves_the_hyperparameters_out(ns):
    ns["best"] = {}
    rerun(ns, "by_pipeline = ")


@fault("12", "claim-same-pipeline", says="another feature contract")
def its_columns_are_swapped(ns):
    contract = ns["new_contract"]
    ns["new_contract"] = dataclasses.replace(contract, feature_refs=contract.feature_refs[::-1])


@fault("12", "claim-same-server", says="pairs of airport and carrier")
def hardly_any_pair_can_be_asked_about(ns):
    ns["board"] = ns["board"].head(5)


@fault("12", "claim-same-server", says="give scores that differ")
def the_scores_are_in_another_order(ns):
    ns["board"]["served"] = ns["board"].served.to_numpy()[::-1]


@fault("12", "claim-same-server", says="another version served")
def version_one_answers(ns):
    ns["answer"]["model_version"] = str(ns["first"].version)


@fault("12", "claim-same-server", says="the bad requests were answered with")
def an_unknown_carrier_gets_a_score(ns):
    ns["bad_requests"]["unknown carrier"] = ns["at_five"]


@fault("12", "claim-same-server", says="the answer doesn't name")
def the_word_is_rejected_without_a_reason(ns):
    ns["bad_requests"]["a word as the hour"] = [400, "bad request"]


@fault("12", "claim-same-server", says="no effect on the score")
def the_hour_is_ignored(ns):
    ns["at_seven"] = ns["at_five"]

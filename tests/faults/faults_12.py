"""What the checks of notebook 12 must notice."""

import dataclasses

import numpy as np
from faults import fault


@fault("12", "claim-features-know-the-past", says="counts other flights")
def a_flight_is_counted_twice(ns):
    ns["row"] = ns["row"].copy()
    ns["row"]["airport_flights"] += 1


@fault("12", "claim-features-know-the-past", says="another mean delay")
def a_delay_is_counted_that_nobody_knew(ns):
    ns["row"] = ns["row"].copy()
    ns["row"]["airport_delay"] += 0.01


@fault("12", "claim-features-know-the-past", says="before its question is asked")
def a_flight_leaves_two_hours_early(ns):
    ns["earliest"] = -2 * ns["timedelta"](hours=1)


@fault("12", "claim-features-know-the-past", says="this moment shows nothing")
def everything_left_on_time(ns):
    ns["not_yet"] = ns["not_yet"].head(0)


@fault("12", "claim-own-definitions", says="the keys of the service are")
def the_carrier_is_no_key(ns):
    ns["contract"] = dataclasses.replace(ns["contract"], join_keys=("origin",))


@fault("12", "claim-own-definitions", says="the caller's value is not in the contract")
def the_caller_sends_nothing(ns):
    ns["contract"] = dataclasses.replace(ns["contract"], request_fields=())


@fault("12", "claim-own-definitions", says="the service holds other columns")
def the_leak_is_in_the_service(ns):
    given = ns["contract"]
    ns["contract"] = dataclasses.replace(given, feature_refs=(*given.feature_refs, "day:day_delay"))


@fault("12", "claim-real-point-in-time", says="rows were lost or repeated")
def rows_that_share_keys_and_time_are_merged(ns):
    ns["table"] = ns["table"].drop_duplicates(["origin", "carrier", "event_timestamp"])


@fault("12", "claim-real-point-in-time", says="another order")
def two_rows_change_places(ns):
    late = ns["table"].late.to_numpy().copy()
    first = int(np.argmax(late))
    late[[0, first]] = late[[first, 0]] if first else 1 - late[[0, 0]]
    ns["table"]["late"] = late


@fault("12", "claim-real-point-in-time", says="where a value is missing")
def feast_gives_a_null(ns):
    ns["in_order"].iloc[700, ns["in_order"].columns.get_loc("carrier_delay")] = np.nan


@fault("12", "claim-real-point-in-time", says="different values")
def one_value_is_another(ns):
    ns["difference"][700, 0] = 0.5


@fault("12", "claim-real-point-in-time", says="rows have all features")
def most_rows_lack_a_feature(ns):
    ns["complete_rows"][:] = np.arange(len(ns["complete_rows"])) % 2 == 0


@fault("12", "claim-real-validation", says="breaks its own rules")
def the_real_data_is_in_other_units(ns):
    ns["report"] = ns["refused"]


@fault("12", "claim-real-validation", says="should break one rule")
def other_units_go_unnoticed(ns):
    ns["refused"] = ns["report"]


@fault("12", "claim-real-leak", says="known only after the question")
def the_day_was_known_in_time(ns):
    ns["too_late"] = ~ns["too_late"]


@fault("12", "claim-real-leak", says="alone should look too good")
def the_day_says_nothing(ns):
    ns["alone"]["day_delay"] = 0.5


@fault("12", "claim-real-leak", says="look better in a backtest")
def the_leak_gains_nothing(ns):
    ns["aucs"]["leak, as stored"] = ns["aucs"]["known"]


@fault("12", "claim-real-leak", says="as served it should be worse")
def the_leak_serves_as_well(ns):
    ns["aucs"]["leak, as served"] = ns["aucs"]["known"]


@fault("12", "claim-real-leak", says="of the days")
def the_days_are_swapped(ns):
    daily = ns["daily"]
    stored, served = daily["leak, as stored"].copy(), daily["leak, as served"].copy()
    daily["leak, as stored"], daily["leak, as served"] = served, stored


@fault("12", "claim-gate-is-blind-to-a-leak", says="the gate should open for it")
def the_gate_stops_the_leak(ns):
    ns["gate_stored"] = ns["gate_served"]


@fault("12", "claim-gate-is-blind-to-a-leak", says="it should stay closed")
def the_gate_opens_for_what_serves_worse(ns):
    ns["gate_served"] = ns["gate_stored"]


@fault("12", "claim-same-pipeline", says="a model pass that is not better")
def the_interval_holds_zero(ns):
    ns["compared"].data.metrics["low"] = -0.001


@fault("12", "claim-same-pipeline", says="registered no version")
def the_newest_is_the_first(ns):
    ns["newest"] = ns["first"]


@fault("12", "claim-same-pipeline", says="trained another model")
def the_pipelines_model_scores_a_little_differently(ns):
    ns["scores_by_pipeline"] = ns["scores_by_pipeline"] + 1e-6


@fault("12", "claim-same-pipeline", says="another feature contract")
def its_columns_are_swapped(ns):
    given = ns["new_contract"]
    ns["new_contract"] = dataclasses.replace(given, feature_refs=given.feature_refs[::-1])


@fault("12", "claim-same-server", says="pairs of airport and carrier")
def hardly_anybody_can_be_asked_about(ns):
    ns["board"] = ns["board"].head(5)


@fault("12", "claim-same-server", says="give scores that differ")
def one_score_is_another(ns):
    ns["board"].iloc[3, ns["board"].columns.get_loc("served")] += 1e-6


@fault("12", "claim-same-server", says="another version served")
def version_one_answers(ns):
    ns["answer"]["model_version"] = str(ns["first"].version)


@fault("12", "claim-same-server", says="odd questions were answered with")
def an_unknown_carrier_gets_a_score(ns):
    ns["odd"]["a carrier of tomorrow"] = [200, [0.3]]


@fault("12", "claim-same-server", says="no effect on the score")
def the_hour_is_ignored(ns):
    ns["at_seven"] = ns["at_five"]


@fault("12", "claim-little-is-new", says="no cell was counted")
def a_step_is_not_counted(ns):
    ns["written"]["rules"] = np.nan


@fault("12", "claim-little-is-new", says="these modules know the story")
def a_module_speaks_of_flights(ns):
    given = ns["getsource"]
    ns["getsource"] = lambda module: (
        "# the flight's carrier" if module.__name__.endswith("model") else given(module)
    )


@fault("12", "claim-little-is-new", says="more had to be written")
def a_thousand_lines_were_needed(ns):
    ns["written"]["features"] = 1000

"""What the checks of notebook 02 must notice."""

from datetime import timedelta

from faults import fault


def age_of_the_last(ns, table):
    """How old the last row of each label's driver is at the label's time."""
    last = ns[table].groupby("driver_id").event_timestamp.max()
    return ns["labels"].event_timestamp - ns["labels"].driver_id.map(last)


@fault("02", "claim-point-in-time", says="disagree")
def one_answer_is_an_hour_late(ns):
    ns["answers"].loc["between two hours", "conv_rate"] += 0.01


@fault("02", "claim-point-in-time", says="must be null")
def an_expired_value_is_used_by_both(ns):
    ns["answers"].loc["last value expired", ["conv_rate", "by hand"]] = 0.5


@fault("02", "claim-point-in-time", says="corrected must not come back")
def both_give_the_value_before_its_correction(ns):
    ns["answers"].loc["a corrected row", ["conv_rate", "by hand"]] = ns["corrected"].conv_rate


@fault("02", "claim-no-future-data", says="values differ")
def one_value_from_the_next_hour(ns):
    ns["found"].iloc[17, 0] += 0.01


@fault("02", "claim-no-future-data", says="values differ")
def the_daily_view_has_a_time_to_live_of_one_day(ns):
    ns["found"].loc[age_of_the_last(ns, "profile") > timedelta(days=1), "rating"] = float("nan")


@fault("02", "claim-no-future-data", says="values differ")
def the_daily_view_has_a_longer_time_to_live(ns):
    age = age_of_the_last(ns, "profile")
    ns["found"].loc[(age > timedelta(days=30)) & (age <= timedelta(days=33)), "rating"] = 4.5


@fault("02", "claim-no-future-data", says="values differ")
def the_hourly_view_has_a_shorter_time_to_live(ns):
    ns["found"].loc[age_of_the_last(ns, "stats") > timedelta(days=5), "conv_rate"] = float("nan")


@fault("02", "claim-no-future-data", says="lost or repeated")
def a_label_is_lost(ns):
    ns["training"] = ns["training"].iloc[1:]


@fault("02", "check-on-demand-formulas", says="away from its formula")
def the_log_odds_are_computed_with_the_other_rate(ns):
    expected, np = ns["expected"], ns["np"]
    ns["computed"]["conv_log_odds"] = np.log((expected.conv_rate + 1e-3) / (1 - expected.acc_rate + 1e-3))


@fault("02", "check-on-demand-formulas", says="must be null where its inputs are")
def a_missing_input_counts_as_zero(ns):
    ns["computed"] = ns["computed"].fillna(0.0)


@fault("02", "claim-leakage-costs", says="did the data change")
def the_daily_means_look_back_only(ns):
    ns["scores"]["leaky join, in the notebook"] = ns["scores"]["honest join"]


@fault("02", "claim-leakage-costs", says="cost where it counts")
def the_leaky_model_is_scored_on_its_own_table(ns):
    ns["scores"]["leaky join, in production"] = ns["scores"]["leaky join, in the notebook"]


@fault("02", "claim-leakage-costs", says="is the honest join leaking")
def the_honest_join_looks_ahead(ns):
    ns["scores"]["honest join"] = ns["scores"]["leaky join, in the notebook"]


@fault("02", "check-expired-values", says="of rating within its time to live is missing")
def ratings_expire_after_a_day(ns):
    ns["training"].loc[ns["daily_age"] > timedelta(days=1), "rating"] = float("nan")


@fault("02", "check-expired-values", says="of rating beyond its time to live came back")
def ratings_never_expire(ns):
    ns["training"]["rating"] = ns["training"].rating.fillna(4.5)


@fault("02", "check-expired-values", says="of conv_rate beyond its time to live came back")
def hourly_values_never_expire(ns):
    ns["training"]["conv_rate"] = ns["training"].conv_rate.fillna(0.5)


@fault("02", "check-expired-values", says="of conv_rate within its time to live is missing")
def hourly_values_expire_after_a_day(ns):
    ns["training"].loc[ns["hourly_age"] > timedelta(days=1), "conv_rate"] = float("nan")


@fault("02", "check-expired-values", says="on both sides")
def no_profile_is_older_than_its_time_to_live(ns):
    ns["daily_age"] = ns["daily_age"].clip(upper=timedelta(days=1))


@fault("02", "check-shared-keys", says="was lost")
def one_label_of_a_pair_is_merged(ns):
    ns["pairs"].iloc[0, 0] = 1


@fault("02", "check-shared-keys", says="should disagree")
def pairs_that_disagree_are_dropped(ns):
    ns["pairs"]["different_labels"] = 1


@fault("02", "check-shared-keys", says="the same features")
def a_pair_gets_different_features(ns):
    ns["pairs"].iloc[0, 2] = 2


@fault("02", "claim-as-known-then", says="not yet written")
def a_value_that_was_written_later_is_let_through(ns):
    ns["known_then"] = ns["compare"].conv_rate


@fault("02", "claim-as-known-then", says="the row written last")
def the_first_of_two_rows_wins(ns):
    ns["corrections"].loc[0, "conv_rate"] = ns["corrections"].conv_rate[0] + 0.1


@fault("02", "claim-as-known-then", says="lost or repeated")
def a_label_without_a_known_value_is_dropped(ns):
    ns["known_then"] = ns["known_then"].dropna()


@fault("02", "claim-default-store-refused", says="answer all four")
def duckdb_merges_the_two_labels_of_a_key(ns):
    ns["with_duckdb"] = ns["with_duckdb"].drop_duplicates("key")


@fault("02", "claim-default-store-refused", says="beside an expired one")
def duckdb_loses_the_value_beside_an_expired_one(ns):
    ns["with_duckdb"].loc[ns["with_duckdb"].key == 2, "b"] = float("nan")


@fault("02", "claim-default-store-refused", says="answers all questions now")
def the_default_store_is_mended(ns):
    ns["with_dask"] = ns["with_duckdb"]


@fault("02", "check-the-guard-counts", says="should refuse")
def the_guard_lets_an_answer_with_fewer_rows_through(ns):
    ns["refusal"] = "nothing was refused"


@fault("02", "check-the-guard-counts", says="the store and the remedy")
def the_guard_does_not_say_what_to_do(ns):
    ns["refusal"] = "1000 rows were asked for, 953 came back"

"""What the checks of notebook 02 must notice."""

import contextlib
from datetime import timedelta

from faults import fault, rerun

KEY = ["driver_id", "event_timestamp"]


@contextlib.contextmanager
def time_to_live(view, days):
    """A store like the course's, in which a view has another time to live."""
    from exercises.core import scratch

    with scratch() as store:
        changed = store.get_feature_view(view)
        changed.ttl = timedelta(days=days)
        store.apply(changed)
        yield store


def rows(table):
    """A store like the course's hourly view, over other rows."""
    from exercises.core import staged

    return staged(table)


@fault("02", "claim-point-in-time", says="disagree")
def feast_reads_one_hour_of_the_future(ns):
    stats = ns["stats"]
    with rows(stats.assign(event_timestamp=stats.event_timestamp - timedelta(hours=1))) as ns["store"]:
        rerun(ns, "by_hand(row.driver_id")
        yield


@fault("02", "claim-point-in-time", says="disagree")
def the_view_keeps_values_for_sixty_days(ns):
    with time_to_live("driver_hourly_stats", 60) as ns["store"]:
        rerun(ns, "by_hand(row.driver_id")
        yield


@fault("02", "claim-point-in-time", says="no valid row")
def view_and_rule_keep_values_for_sixty_days(ns):
    with time_to_live("driver_hourly_stats", 60) as ns["store"]:
        rerun(ns, "def by_hand", "by_hand(row.driver_id", change=("days=7", "days=60"))
        yield


@fault("02", "claim-point-in-time", says="corrected later")
def no_row_was_corrected(ns):
    ns["stats"] = ns["stats"].drop_duplicates(KEY, keep="first")
    with rows(ns["stats"]) as ns["store"]:
        rerun(ns, "by_hand(row.driver_id")
        yield


@fault("02", "claim-no-future-data", says="values differ")
def one_value_is_of_the_next_hour(ns):
    later = ns["labels"].assign(event_timestamp=ns["labels"].event_timestamp + timedelta(hours=1))
    ahead = ns["historical_features"](ns["store"], later.iloc[[17]], ns["rates"])
    ns["training"].loc[17, "conv_rate"] = ahead.conv_rate.iloc[0]
    rerun(ns, "feast_values = training")


@fault("02", "claim-no-future-data", says="values differ")
def the_daily_view_has_a_time_to_live_of_one_day(ns):
    with time_to_live("driver_daily_profile", 1) as ns["store"]:
        rerun(ns, "training = historical", "feast_values = training")
        yield


@fault("02", "claim-no-future-data", says="values differ")
def the_daily_view_has_a_longer_time_to_live(ns):
    with time_to_live("driver_daily_profile", 33) as ns["store"]:
        rerun(ns, "training = historical", "feast_values = training")
        yield


@fault("02", "claim-no-future-data", says="values differ")
def the_hourly_view_has_a_shorter_time_to_live(ns):
    with time_to_live("driver_hourly_stats", 5) as ns["store"]:
        rerun(ns, "training = historical", "feast_values = training")
        yield


@fault("02", "claim-no-future-data", says="values differ")
def a_correction_does_not_count(ns):
    first = ns["stats"].drop_duplicates(KEY, keep="first")
    with rows(first) as store:
        ns["training"]["conv_rate"] = ns["historical_features"](store, ns["labels"], ns["rates"]).conv_rate
        rerun(ns, "feast_values = training")
        yield


@fault("02", "claim-no-future-data", says="lost or repeated")
def a_label_is_lost(ns):
    rerun(ns, "training = historical", change=("(store, labels,", "(store, labels.iloc[1:],"))


LEAK = ["calendar = history", "past_only = labels.join", "usable_rows = past_only", "scores = {"]


@fault("02", "claim-leakage-costs", says="does the join still leak")
def the_daily_average_is_that_of_the_day_before(ns):
    rerun(ns, *LEAK, change=('.floor("D"))\n', '.floor("D") - timedelta(days=1))\n'))


@fault("02", "claim-leakage-costs", says="does the control leak")
def the_trailing_average_looks_ahead(ns):
    rerun(ns, *LEAK, change=('rolling("24h")', 'rolling("24h", center=True)'))


@fault("02", "claim-leakage-costs", says="cost more than it gains")
def the_leaky_model_is_scored_on_its_own_table(ns):
    rerun(ns, *LEAK, change=("fit(looks_ahead), past_only", "fit(looks_ahead), looks_ahead"))


@fault("02", "check-expired-values", says="of rating within its time to live is missing")
def ratings_expire_after_a_day(ns):
    with time_to_live("driver_daily_profile", 1) as ns["store"]:
        rerun(ns, "training = historical")
        yield


@fault("02", "check-expired-values", says="of rating beyond its time to live came back")
def ratings_last_for_sixty_days(ns):
    with time_to_live("driver_daily_profile", 60) as ns["store"]:
        rerun(ns, "training = historical")
        yield


@fault("02", "check-expired-values", says="of conv_rate beyond its time to live came back")
def hourly_values_last_for_sixty_days(ns):
    with time_to_live("driver_hourly_stats", 60) as ns["store"]:
        rerun(ns, "training = historical")
        yield


@fault("02", "check-expired-values", says="of conv_rate within its time to live is missing")
def hourly_values_expire_after_a_day(ns):
    with time_to_live("driver_hourly_stats", 1) as ns["store"]:
        rerun(ns, "training = historical")
        yield


@fault("02", "check-expired-values", says="no label is on one side")
def no_profile_ends_early(ns):
    ns["profile"]["event_timestamp"] += timedelta(days=30)
    rerun(ns, "last_daily = ")


@fault("02", "check-shared-keys", says="was lost")
def one_label_of_a_pair_is_lost(ns):
    labels = ns["labels"]
    first = labels[labels.duplicated(KEY)].index[0]
    ns["training"] = ns["training"].drop(index=first)
    rerun(ns, "pairs = training")


@fault("02", "check-shared-keys", says="no two labels share a key")
def one_label_of_each_pair_is_kept(ns):
    ns["training"] = ns["training"].drop_duplicates(KEY)
    rerun(ns, "pairs = training")


@fault("02", "check-shared-keys", says="was lost")
def pairs_that_disagree_are_dropped(ns):
    disagree = ns["training"].groupby(KEY).label.transform("nunique") > 1
    ns["training"] = ns["training"][~disagree]
    rerun(ns, "pairs = training")


@fault("02", "check-shared-keys", says="the same features")
def a_pair_gets_different_features(ns):
    labels = ns["labels"]
    ns["training"].loc[labels[labels.duplicated(KEY)].index[0], "conv_rate"] += 0.01
    rerun(ns, "pairs = training")


@fault("02", "claim-as-known-then", says="weren't written yet")
def the_time_of_writing_is_ignored(ns):
    rerun(ns, "as_known = store", change=("filter_by_created_timestamp=True", "full_feature_names=False"))


@fault("02", "claim-as-known-then", says="the row written last")
def the_first_of_two_rows_wins(ns):
    with rows(ns["stats"].drop_duplicates(KEY, keep="first")) as store:
        ns["training"]["conv_rate"] = ns["historical_features"](store, ns["labels"], ns["rates"]).conv_rate
        yield


@fault("02", "claim-as-known-then", says="lost or repeated")
def a_label_is_not_asked_about(ns):
    rerun(ns, "as_known = store", change=("entity_df=numbered_labels", "entity_df=numbered_labels.iloc[1:]"))


@fault("02", "claim-as-known-then", says="no label falls on a corrected row")
def nothing_was_corrected(ns):
    ns["stats"] = ns["stats"].drop_duplicates(KEY, keep="last")
    rerun(ns, "rows_written_twice = stats")


@fault("02", "claim-as-known-then", says="came before its label")
def corrections_are_written_at_once(ns):
    ns["stats"]["created"] = ns["stats"].event_timestamp
    rerun(ns, "rows_written_twice = stats")


STORES = ["default_config = ", "lost_rows = from_duckdb"]


@fault("02", "claim-default-store-refused", says="each label once")
def duckdb_joins_as_dask_does(ns):
    ns["store"] = ns["default_store"]
    rerun(ns, *STORES)


@fault("02", "claim-default-store-refused", says="returns every row now")
def the_default_store_keeps_every_row(ns):
    rerun(ns, *STORES, change=("from_dask = default_store", "from_dask = store"))


@fault("02", "claim-default-store-refused", says="keeps a row with one expired feature")
def no_feature_has_expired(ns):
    ns["numbered_labels"] = ns["numbered_labels"][~ns["training"][["conv_rate", "rating"]].isna().any(axis=1)]
    rerun(ns, *STORES)


@fault("02", "claim-default-store-refused", says="keeps labels that share a key")
def no_labels_share_a_key(ns):
    ns["numbered_labels"] = ns["numbered_labels"].drop_duplicates(KEY)
    rerun(ns, *STORES)

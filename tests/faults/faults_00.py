"""What the checks of notebook 00 must notice."""

import copy

import pandas as pd
from faults import fault


def _newest_rows(ns):
    rows = pd.read_parquet(ns["workspace"].data / "driver_stats.parquet")
    rows = rows.sort_values(["event_timestamp", "created"]).drop_duplicates("driver_id", keep="last")
    return rows[rows.driver_id.isin([1001, 1002, 1003])]


@fault("00", "check-first-prediction", says="the newest rows of the file say")
def the_online_store_holds_other_values(ns):
    rows = _newest_rows(ns)
    ns["store"].write_to_online_store("rates", rows.assign(conv_rate=1 - rows.conv_rate))
    yield
    ns["store"].write_to_online_store("rates", rows)


@fault("00", "check-first-prediction", says="the trained model and the newest rows")
def the_server_loads_another_model(ns):
    other = copy.copy(ns["ranking"])
    training = ns["training"]
    other.model = copy.deepcopy(other.model).fit(training[ns["columns"]], 1 - training["label"])
    ns["ranking"] = other


@fault("00", "check-first-prediction", says="the same request should get the same response")
def the_response_belongs_to_the_drivers_in_another_order(ns):
    ns["response"]["predictions"].reverse()


@fault("00", "check-answer-in-the-next-hours", says="after a label of 1 the rate should rise")
def each_label_belongs_to_another_driver(ns):
    pairs = ns["pairs"]
    pairs["label"] = pairs.label.sample(frac=1, random_state=0).to_numpy()


@fault("00", "check-answer-in-the-next-hours", says="after a label of 0 the rate should fall")
def a_missed_conversion_leaves_no_trace_in_the_next_hours(ns):
    pairs, missed = ns["pairs"], ns["pairs"].label == 0
    pairs.loc[missed, "conv_rate 12 hours later"] = pairs.loc[missed, "conv_rate at the label"]


@fault("00", "claim-synthetic-data", says="most of the signal, acc_rate some")
def the_two_rates_are_swapped(ns):
    ns["known"] = ns["known"].rename(columns={"conv_rate": "acc_rate", "acc_rate": "conv_rate"})


@fault("00", "claim-synthetic-data", says="rating some")
def the_rating_belongs_to_another_driver(ns):
    ns["known"] = ns["known"].assign(rating=ns["known"].rating.sample(frac=1, random_state=0).to_numpy())


@fault("00", "claim-synthetic-data", says="are noise")
def the_number_of_trips_knows_the_label(ns):
    ns["known"] = ns["known"].assign(avg_daily_trips=ns["known"].avg_daily_trips + 3 * ns["known"].label)


@fault("00", "claim-planted-faults", says="corrected later")
def no_hour_is_written_twice(ns):
    ns["stats"] = ns["stats"].drop_duplicates(ns["key"], keep="last")


@fault("00", "claim-planted-faults", says="written after the original")
def a_correction_has_the_time_of_its_original(ns):
    ns["stats"]["created"] = ns["stats"].event_timestamp


@fault("00", "claim-planted-faults", says="should go silent")
def every_driver_sends_to_the_end(ns):
    stats, now = ns["stats"], ns["NOW"] - pd.Timedelta(hours=1)
    last = stats.drop_duplicates("driver_id", keep="last")
    ns["stats"] = pd.concat([stats, last.assign(event_timestamp=now)]).drop_duplicates(ns["key"])
    repeated = stats[stats.duplicated(ns["key"])]
    ns["stats"] = pd.concat([ns["stats"], repeated])


@fault("00", "claim-planted-faults", says="should end")
def every_profile_continues_to_the_end(ns):
    profile = ns["profile"]
    last = profile.drop_duplicates("driver_id", keep="last")
    ns["profile"] = pd.concat([profile, last.assign(event_timestamp=ns["NOW"])])


@fault("00", "claim-planted-faults", says="share their driver and hour")
def no_two_labels_share_a_key(ns):
    ns["labels"] = ns["labels"].drop_duplicates(ns["key"])


@fault("00", "claim-planted-faults", says="should have labels")
def nobody_asks_about_the_unknown_driver(ns):
    ns["labels"] = ns["labels"][ns["labels"].driver_id != ns["UNKNOWN_DRIVER"]]


@fault("00", "claim-planted-faults", says="should have no features")
def the_unknown_driver_has_a_profile(ns):
    row = ns["profile"].iloc[[0]].assign(driver_id=ns["UNKNOWN_DRIVER"], event_timestamp=ns["NOW"])
    ns["profile"] = pd.concat([ns["profile"], row])


@fault("00", "claim-planted-faults", says="count each hour once")
def an_hour_is_corrected_twice(ns):
    stats = ns["stats"]
    twice = stats[stats.duplicated(ns["key"], keep="last")].head(1)
    ns["planted"]["late corrections"] = pd.concat([stats, twice]).duplicated(ns["key"]).sum()

"""Point-in-time retrieval gives back each row that was passed in, in its place, or says why it cannot."""

import pandas as pd
import pytest

from conftest import apply
from helpers.data import NOW, UNKNOWN_DRIVER
from helpers.workspace import configure
from lifecycle.features.retrieval import historical_features

pytestmark = pytest.mark.unit
CONV = ["driver_hourly_stats:conv_rate"]
EXPIRED = 1025  # the first driver that stops reporting 15 days before the clock


def labels(*drivers: int, days_ago: int = 1) -> pd.DataFrame:
    time = NOW - pd.Timedelta(days=days_ago)
    return pd.DataFrame({"driver_id": drivers, "event_timestamp": time, "label": range(len(drivers))})


def test_rows_come_back_in_the_order_and_with_the_index_they_had(store):
    asked = labels(1051, 1001, 1101, 1002).set_index(pd.Index(["d", "a", "c", "b"], name="key"))
    asked["event_timestamp"] -= pd.to_timedelta([0, 240, 48, 12], unit="h")
    frame = historical_features(store, asked, CONV)
    pd.testing.assert_frame_equal(frame[asked.columns], asked, check_dtype=False)
    alone = [historical_features(store, asked.iloc[[i]], CONV).conv_rate.item() for i in range(4)]
    assert frame.conv_rate.tolist() == alone


def test_duplicate_keys_all_come_back_each_with_its_own_label(store):
    frame = historical_features(store, labels(1001, 1001, 1002, 1001), store.get_feature_service("rates"))
    assert list(frame) == ["driver_id", "event_timestamp", "label", "conv_rate", "acc_rate"]
    assert frame.label.tolist() == [0, 1, 2, 3]
    assert frame.conv_rate.notna().all() and frame.conv_rate.iloc[[0, 1, 3]].nunique() == 1


def test_expired_features_and_those_of_an_unknown_driver_are_null(store):
    references = [*CONV, "driver_daily_profile:rating"]
    frame = historical_features(store, labels(1001, EXPIRED, UNKNOWN_DRIVER), references)
    assert frame.conv_rate.isna().tolist() == [False, True, True]
    assert frame.rating.isna().tolist() == [False, False, True], "the daily view's ttl is longer"


@pytest.mark.parametrize(
    "references, message",
    [
        (CONV * 2, "two features share the name driver_hourly_stats__conv_rate: ask for each"),
        (["hourly:conv_rate"], "no feature view 'hourly'.*It has:.*driver_hourly_stats"),
        (["driver_hourly_stats:speed"], "'driver_hourly_stats' has no feature 'speed'.*conv_rate, acc_rate"),
        (["conv_rate"], "'conv_rate' is not a feature reference: write view:feature"),
    ],
)
def test_names_a_reference_that_cannot_be_retrieved(store, references, message):
    with pytest.raises(ValueError, match=message):
        historical_features(store, labels(1001), references)


def test_names_a_column_that_is_missing_or_has_the_name_of_a_feature(store):
    with pytest.raises(ValueError, match=r"already has the column conv_rate.*rename\(columns=.'conv_rate'"):
        historical_features(store, labels(1001).assign(conv_rate=0.5), CONV)
    for column in ("driver_id", "event_timestamp"):
        with pytest.raises(ValueError, match=f"has no column {column}; it needs driver_id and event_timest"):
            historical_features(store, labels(1001).drop(columns=column), CONV)


def test_a_store_that_merges_rows_is_refused_by_name(home):
    settings = home.feature_repo / "feature_store.yaml"
    settings.write_text(settings.read_text().replace("type: duckdb", "type: dask"))
    configure(home)
    lossy = apply(home)
    with pytest.raises(ValueError, match=r"4 rows were requested, and \d came back.*'dask' loses.*duckdb"):
        historical_features(lossy, labels(1001, 1001, EXPIRED, 1002), CONV)

"""The validation gate: the suite in the feature registry, its report on a table, and Feast around it."""

import great_expectations as gx
import great_expectations.expectations as gxe
import numpy as np
import pandas as pd
import pytest
from feast.dqm.errors import ValidationFailed
from feast.infra.offline_stores.file_source import SavedDatasetFileStorage
from scipy.spatial.distance import jensenshannon

from lifecycle.features.validation import (
    NoSuiteError,
    SuiteProfiler,
    common_bins,
    judge,
    stored_suite,
    suite_tag,
    validation_reference,
)

pytestmark = pytest.mark.unit
LABEL = gxe.ExpectColumnValuesToBeInSet(column="label", value_set=[0, 1])
RATE = gxe.ExpectColumnValuesToBeBetween(column="conv_rate", min_value=0, max_value=1)
NULLS = gxe.ExpectColumnValuesToNotBeNull(column="acc_rate", mostly=0.9)
MEAN = gxe.ExpectColumnMeanToBeBetween(column="conv_rate", min_value=0.2, max_value=0.8)
COMPUTED = gxe.ExpectColumnValuesToNotBeNull(column="conv_log_odds", mostly=0.9)
SUITE = gx.ExpectationSuite("rates", expectations=[RATE, MEAN, NULLS, LABEL, COMPUTED])
RATES = ["driver_hourly_stats:conv_rate", "driver_hourly_stats:acc_rate"]


@pytest.fixture
def table() -> pd.DataFrame:
    rates = np.linspace(0.1, 0.9, 20)
    return pd.DataFrame({"conv_rate": rates, "acc_rate": rates, "label": [0, 1] * 10})


def save(store, workspace, name: str, suite: gx.ExpectationSuite | None) -> None:
    labels = pd.read_parquet(workspace.data / "driver_labels.parquet").head(200)
    store.create_saved_dataset(
        from_=store.get_historical_features(labels, RATES),
        name=name,
        storage=SavedDatasetFileStorage(path=str(workspace.path / f"{name}.parquet")),
        tags=suite_tag(suite) if suite else {},
        allow_overwrite=True,
    )


@pytest.fixture
def saved(store, applied):
    """A saved dataset with the suite, and one without, taken out of the registry again."""
    for name, suite in {"good_weeks": SUITE, "bare": None}.items():
        save(store, applied, name, suite)
    yield "good_weeks"
    for name in ("good_weeks", "bare"):
        store.registry.delete_saved_dataset(name, store.project)


def test_a_suite_comes_back_from_the_registry_or_the_message_says_how_to_store_one(store, saved):
    assert stored_suite(store, saved).to_json_dict()["expectations"] == SUITE.to_json_dict()["expectations"]
    with pytest.raises(NoSuiteError, match=r"no saved dataset 'none'.*create_saved_dataset\(name='none'"):
        stored_suite(store, "none")
    with pytest.raises(NoSuiteError, match="'bare' carries no expectation suite"):
        stored_suite(store, "bare")


def test_a_rule_that_is_on_no_single_column_cannot_be_stored():
    rows = gxe.ExpectTableRowCountToBeBetween(min_value=1)
    with pytest.raises(ValueError, match=r"expect_table_row_count_to_be_between.*must be on one column"):
        suite_tag(gx.ExpectationSuite("rows", expectations=[RATE, rows]))


def test_a_report_lists_column_expectation_limits_and_finding(table):
    columns = ["conv_rate", "acc_rate", "label"]
    good = judge(SUITE, table, columns)
    assert good.is_success and good.outcomes().passed.tolist() == [True] * 4 and str(good) == ""
    broken = table.assign(conv_rate=table.conv_rate * 100, acc_rate=table.acc_rate.where(table.index > 4))
    report = judge(SUITE, broken.assign(label=7), columns)
    assert not report.is_success and not report.outcomes().passed.any()
    assert str(report).replace("expect_column_", "").splitlines() == [
        "conv_rate: values_to_be_between (min_value 0.0, max_value 1.0), found 20 rows (100.0 %)",
        "conv_rate: mean_to_be_between (min_value 0.2, max_value 0.8), found 50.000",
        "acc_rate: values_to_not_be_null (mostly 0.9), found 5 rows (25.0 %)",
        "label: values_to_be_in_set (), found 20 rows (100.0 %)",
    ]
    text = report.markdown()
    assert "**conv_rate**" in text and "Validation Time" not in text
    assert not any(line.startswith("#") for line in text.splitlines()), "headings of their own"


def test_a_missing_column_breaks_its_rule_and_one_without_a_rule_cannot_be_judged(table):
    missing = judge(SUITE, table.drop(columns="acc_rate"), ["conv_rate", "acc_rate"])
    assert missing.table()["column"].tolist() == ["acc_rate"] and "acc_rate" in missing.table().found[0]
    with pytest.raises(NoSuiteError, match="'rates' has no expectation for tenure_days"):
        judge(SUITE, table, ["tenure_days"])


def test_feast_raises_with_the_report_when_a_retrieval_breaks_a_rule(store, applied, saved):
    labels = pd.read_parquet(applied.data / "driver_labels.parquet").head(100)
    gate = validation_reference(store, saved, ["conv_rate", "acc_rate"])
    assert len(store.get_historical_features(labels, RATES).to_df(validation_reference=gate)) == len(labels)
    long_ago = labels.assign(event_timestamp=pd.Timestamp("2024-01-01", tz="UTC"))
    with pytest.raises(ValidationFailed, match="acc_rate: expect_column_values_to_not_be_null"):
        store.get_historical_features(long_ago, RATES).to_df(validation_reference=gate)
    with pytest.raises(NoSuiteError, match="no expectation for rating"):
        validation_reference(store, saved, ["rating"])


def test_a_reference_is_judged_by_the_rules_on_its_columns(table):
    half = gxe.ExpectColumnValuesToBeBetween(column="conv_rate", min_value=0, max_value=0.5)
    profiler = SuiteProfiler(lambda _: gx.ExpectationSuite("half", expectations=[half, COMPUTED]))
    with pytest.raises(ValidationFailed, match=r"conv_rate: .* found 10 rows \(50.0 %\)"):
        profiler.analyze_dataset(table)
    # A rule on a column that the reference lacks judges the batches alone.
    report = SuiteProfiler(lambda _: SUITE).analyze_dataset(table).validate(table.assign(conv_log_odds=None))
    assert report.table()["column"].tolist() == ["conv_log_odds"]


def test_histograms_with_different_edges_are_compared_on_common_bins():
    narrow, wide = (
        {"bins": [0.0, 0.5, 1.0], "counts": [10, 10]},
        {"bins": [0.0, 1.0, 2.0], "counts": [20, 20]},
    )
    first, second = common_bins(narrow, wide, bins=4)
    assert (first.tolist(), second.tolist()) == ([0.5, 0.5, 0.0, 0.0], [0.25] * 4)
    whole = np.repeat(np.arange(10), 100)
    histograms = [
        dict(zip(("counts", "bins"), np.histogram(whole, bins=bins), strict=True)) for bins in (4, 7)
    ]
    first, second = common_bins(*histograms, whole_numbers=True)
    assert np.abs(first - second).max() < 1e-9


@pytest.mark.parametrize("stuck_at", [0.0, 4.0, 10.0])
def test_a_feature_that_stops_moving_differs_from_one_that_moved(stuck_at):
    moving = {"bins": np.linspace(0, 10, 11).tolist(), "counts": [10] * 10}
    stuck = {"bins": [stuck_at, stuck_at], "counts": [100]}  # as Feast's monitoring gives it
    assert jensenshannon(*common_bins(moving, stuck), base=2) > 0.5
    assert jensenshannon(*common_bins(stuck, stuck), base=2) == pytest.approx(0, abs=1e-6)

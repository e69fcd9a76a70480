"""The validation gate: the suite that lives in the feature registry, what it says about a table, and Feast's interface around it."""

import great_expectations as gx
import great_expectations.expectations as gxe
import numpy as np
import pandas as pd
import pytest
from feast.dqm.errors import ValidationFailed
from feast.infra.offline_stores.file_source import SavedDatasetFileStorage

from lifecycle.validation import (
    NoSuiteError,
    SuiteProfiler,
    common_bins,
    judge,
    rules_for,
    stored_suite,
    suite_tag,
    validation_reference,
)

LABEL = gxe.ExpectColumnValuesToBeInSet(column="label", value_set=[0, 1])
RATE = gxe.ExpectColumnValuesToBeBetween(column="conv_rate", min_value=0, max_value=1)
NULLS = gxe.ExpectColumnValuesToNotBeNull(column="acc_rate", mostly=0.9)
MEAN = gxe.ExpectColumnMeanToBeBetween(column="conv_rate", min_value=0.2, max_value=0.8)
COMPUTED = gxe.ExpectColumnValuesToNotBeNull(column="conv_log_odds", mostly=0.9)
RATES = ["driver_hourly_stats:conv_rate", "driver_hourly_stats:acc_rate"]


@pytest.fixture(scope="module")
def suite() -> gx.ExpectationSuite:
    return gx.ExpectationSuite("rates", expectations=[RATE, MEAN, NULLS, LABEL, COMPUTED])


@pytest.fixture
def table() -> pd.DataFrame:
    rates = np.linspace(0.1, 0.9, 20)
    return pd.DataFrame({"conv_rate": rates, "acc_rate": rates, "label": [0, 1] * 10})


def names(suite: gx.ExpectationSuite) -> list[tuple[str, str]]:
    return [(rule.configuration.kwargs["column"], rule.configuration.type) for rule in suite.expectations]


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
def saved(store, applied, suite):
    """A saved dataset with the suite, taken out of the registry again."""
    save(store, applied, "good_weeks", suite)
    yield "good_weeks"
    store.registry.delete_saved_dataset("good_weeks", store.project)


def test_a_suite_comes_back_from_the_registry_as_it_was_stored(store, saved, suite):
    assert stored_suite(store, saved).to_json_dict()["expectations"] == suite.to_json_dict()["expectations"]


def test_without_a_saved_dataset_the_message_says_how_to_store_one(store):
    with pytest.raises(
        NoSuiteError, match=r"no saved dataset 'never_saved'.*create_saved_dataset\(name='never_saved'"
    ):
        stored_suite(store, "never_saved")


def test_a_saved_dataset_without_a_suite_is_named(store, applied):
    save(store, applied, "bare", None)
    with pytest.raises(NoSuiteError, match="'bare' carries no expectation suite"):
        stored_suite(store, "bare")
    store.registry.delete_saved_dataset("bare", store.project)


def test_a_rule_that_is_on_no_single_column_cannot_be_stored():
    rows = gxe.ExpectTableRowCountToBeBetween(min_value=1)
    with pytest.raises(ValueError, match=r"expect_table_row_count_to_be_between.*must be on one column"):
        suite_tag(gx.ExpectationSuite("rows", expectations=[RATE, rows]))


def test_only_the_rules_on_the_columns_are_kept(suite):
    assert names(rules_for(suite, ["acc_rate", "label"])) == [
        ("acc_rate", "expect_column_values_to_not_be_null"),
        ("label", "expect_column_values_to_be_in_set"),
    ]


def test_a_good_table_passes_and_every_rule_is_listed(suite, table):
    report = judge(suite, table, ["conv_rate", "acc_rate", "label"])
    assert report.is_success and report.errors == []
    assert len(report.outcomes()) == 4 and report.outcomes().passed.all()
    assert report.table().empty and str(report) == ""


def test_a_broken_table_is_reported_by_column_expectation_limits_and_finding(suite, table):
    broken = table.assign(
        conv_rate=table.conv_rate * 100, acc_rate=table.acc_rate.mask(table.index < 5), label=7
    )
    report = judge(suite, broken, ["conv_rate", "acc_rate", "label"])
    assert not report.is_success
    assert report.table().values.tolist() == [
        [
            "conv_rate",
            "expect_column_values_to_be_between",
            "min_value 0.0, max_value 1.0",
            "20 rows (100.0 %)",
        ],
        ["conv_rate", "expect_column_mean_to_be_between", "min_value 0.2, max_value 0.8", "50.000"],
        ["acc_rate", "expect_column_values_to_not_be_null", "mostly 0.9", "5 rows (25.0 %)"],
        ["label", "expect_column_values_to_be_in_set", "", "20 rows (100.0 %)"],
    ]
    assert str(report).splitlines()[1].endswith("found 50.000")
    assert not report.outcomes().passed.any()


def test_a_missing_column_and_one_of_text_break_their_rules(suite, table):
    missing = judge(suite, table.drop(columns="acc_rate"), ["conv_rate", "acc_rate"])
    assert missing.table()["column"].tolist() == ["acc_rate"]
    assert "acc_rate" in missing.table().found[0]
    text = judge(suite, table.assign(conv_rate=table.conv_rate.astype(str)), ["conv_rate", "acc_rate"])
    assert set(text.table()["column"]) == {"conv_rate"}


@pytest.mark.parametrize(
    ("rule", "found"),
    [
        (gxe.ExpectColumnStdevToBeBetween(column="conv_rate", max_value=0.1), "found 0.249"),
        (gxe.ExpectColumnMostCommonValueToBeInSet(column="label", value_set=[7]), "found 0, 1"),
        (gxe.ExpectColumnDistinctValuesToBeInSet(column="label", value_set=[0]), "found 1 unexpected"),
        (
            gxe.ExpectColumnQuantileValuesToBeBetween(
                column="label", quantile_ranges={"quantiles": [0.1], "value_ranges": [[0.5, 1]]}
            ),
            "found {'quantiles': [0.1], 'values': [0]}",
        ),
    ],
)
def test_a_rule_whose_finding_is_no_count_of_rows_is_reported_too(table, rule, found):
    report = judge(gx.ExpectationSuite("whole columns", expectations=[rule]), table, ["conv_rate", "label"])
    assert not report.is_success and found in str(report)
    assert report.table().expectation.tolist() == [rule.expectation_type]
    assert "❌" in report.markdown()


def test_columns_that_no_rule_speaks_of_cannot_be_judged(suite, table):
    with pytest.raises(NoSuiteError, match="'rates' has no expectation for tenure_days"):
        judge(suite, table, ["tenure_days"])


def test_the_markdown_report_has_no_heading_and_no_time_of_day(suite, table):
    text = judge(suite, table.assign(conv_rate=2.0), ["conv_rate"]).markdown()
    assert "**conv_rate**" in text and "**Expectation Suite: rates**" in text
    assert not any(line.startswith("#") for line in text.splitlines())
    assert "Validation Time" not in text


def test_feast_raises_with_the_report_when_a_retrieval_breaks_a_rule(store, applied, saved):
    labels = pd.read_parquet(applied.data / "driver_labels.parquet").head(100)
    gate = validation_reference(store, saved, ["conv_rate", "acc_rate"])
    assert len(store.get_historical_features(labels, RATES).to_df(validation_reference=gate)) == len(labels)
    long_ago = labels.assign(event_timestamp=pd.Timestamp("2024-01-01", tz="UTC"))
    with pytest.raises(ValidationFailed, match="acc_rate: expect_column_values_to_not_be_null") as refused:
        store.get_historical_features(long_ago, RATES).to_df(validation_reference=gate)
    assert refused.value.report.table()["column"].tolist() == [
        "conv_rate",
        "acc_rate",
    ]  # a mean of nothing, and nulls


def test_a_gate_for_columns_without_a_rule_is_refused(store, saved):
    with pytest.raises(NoSuiteError, match="no expectation for rating"):
        validation_reference(store, saved, ["rating"])


def test_a_reference_that_breaks_its_own_rule_raises(table):
    half = gxe.ExpectColumnValuesToBeBetween(column="conv_rate", min_value=0, max_value=0.5)
    profiler = SuiteProfiler(lambda _: gx.ExpectationSuite("half", expectations=[half]))
    with pytest.raises(ValidationFailed, match=r"conv_rate: .* found 10 rows \(50.0 %\)"):
        profiler.analyze_dataset(table)


def test_a_rule_on_a_column_that_the_reference_lacks_judges_the_batches_alone(suite, table):
    profile = SuiteProfiler(lambda _: suite).analyze_dataset(table)
    assert profile.validate(table.assign(conv_log_odds=0.5)).is_success
    report = profile.validate(table.assign(conv_log_odds=None))
    assert report.table()["column"].tolist() == ["conv_log_odds"]


def test_a_profiler_says_where_to_store_the_rules_instead(suite):
    with pytest.raises(NotImplementedError, match="suite_tag"):
        SuiteProfiler(lambda _: suite).to_proto()


def test_two_histograms_with_other_edges_are_compared_on_common_bins():
    narrow = {"bins": [0.0, 0.5, 1.0], "counts": [10, 10]}
    wide = {"bins": [0.0, 1.0, 2.0], "counts": [20, 20]}
    first, second = common_bins(narrow, wide, bins=4)
    assert first.tolist() == [0.5, 0.5, 0.0, 0.0]
    assert second.tolist() == [0.25, 0.25, 0.25, 0.25]


def test_whole_numbers_in_bins_of_other_widths_score_alike():
    values = np.repeat(np.arange(10), 100)
    histograms = []
    for bins in (4, 7):
        counts, edges = np.histogram(values, bins=bins)
        histograms.append({"bins": edges, "counts": counts})
    first, second = common_bins(*histograms, whole_numbers=True)
    assert np.abs(first - second).max() < 1e-9

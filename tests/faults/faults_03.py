"""What the checks of notebook 03 must notice."""

import contextlib
from datetime import timedelta

from faults import fault, rerun


def rows(table):
    """A store like the course's hourly view, over other rows."""
    from exercises.core import staged

    return staged(table)


@contextlib.contextmanager
def without_limit(table):
    """The same, with a view that keeps values for sixty days."""
    with rows(table) as store:
        view = store.get_feature_view("driver_hourly_stats")
        view.ttl = timedelta(days=60)
        store.apply(view)
        yield store


@fault("03", "claim-saved-dataset", says="the saved rows differ")
def a_saved_value_changes_in_the_file(ns):
    path = ns["workspace"].path / "driver_reference.parquet"
    saved = path.read_bytes()
    ns["saved_rows"].assign(conv_rate=ns["saved_rows"].conv_rate.round(2)).to_parquet(path)
    try:
        rerun(ns, "saved_rows = ")
        yield
    finally:
        path.write_bytes(saved)


@fault("03", "claim-saved-dataset", says="a rule changed on its way")
def the_registry_loses_a_rule(ns):
    stored, gx = ns["stored_suite"], ns["gx"]

    def all_but_one(store, name):
        return gx.ExpectationSuite("driver_ranking", expectations=stored(store, name).expectations[:-1])

    ns["stored_suite"] = all_but_one
    rerun(ns, "saved_rows = ")


@fault("03", "claim-saved-dataset", says="has no rule")
def a_computed_feature_has_no_rule(ns):
    del ns["limits"]["conv_log_odds"]
    rerun(ns, "rules = []")
    ns["stored_suite"] = lambda store, name: ns["suite"]
    rerun(ns, "saved_rows = ")


CLEAN = "own_reference = reopened_store"


@fault("03", "claim-validation-reference", says="pass with every row")
def the_gate_drops_rows_of_a_clean_week(ns):
    gated = "to_df(validation_reference=own_reference)"
    rerun(ns, CLEAN, change=(gated, f"{gated}.dropna()"))


@fault("03", "claim-validation-reference", says="the few nulls that are normal")
def values_never_expire(ns):
    with without_limit(ns["pd"].read_parquet(ns["workspace"].data / "driver_stats.parquet")) as ns["store"]:
        rerun(ns, CLEAN)
        yield


@fault("03", "claim-validation-failed", says="the gate is open")
def the_training_function_forgets_the_reference(ns):
    rerun(ns, "def train(", change=("validation_reference=reference", ""))


@fault("03", "claim-validation-failed", says="should name the broken rules")
def only_the_rates_are_lost(ns):
    holes = ns["recent"].assign(acc_rate=ns["breaks"](ns["recent"]).acc_rate)
    with rows(holes) as store:
        ns["broken_job"] = store.get_historical_features(
            entity_df=ns["clean_labels"], features=ns["features"]
        )
        rerun(ns, "def train(")
        yield


@fault("03", "claim-validation-failed", says="no visible harm")
def the_careless_model_trains_on_shares(ns):
    ns["unchecked_rows"] = ns["clean_rows"].dropna()
    rerun(ns, "careless_model = ")


ACCIDENTS = ["old_rows = ", "columns_named = "]


@fault("03", "claim-stale-and-schema", says="expired values passed")
def values_of_a_stopped_feed_never_expire(ns):
    keep = contextlib.ExitStack()
    with keep:
        ns["staging"] = lambda workspace, store, view, name, table: keep.enter_context(without_limit(table))
        rerun(ns, *ACCIDENTS)
        yield


def judge_with(ns, judge):
    """Let the notebook judge its accidents with another function."""
    ns["judge"] = judge
    rerun(ns, *ACCIDENTS, change=("from lifecycle.features.validation import judge", ""))


@fault("03", "claim-stale-and-schema", says="a missing column must be named")
def columns_that_are_missing_are_skipped(ns):
    judge = ns["judge"]
    judge_with(
        ns, lambda suite, table, columns: judge(suite, table, [name for name in columns if name in table])
    )


@fault("03", "claim-stale-and-schema", says="arrive as text")
def text_becomes_numbers_first(ns):
    judge, to_numeric = ns["judge"], ns["pd"].to_numeric

    def numbers(table):
        return table.assign(conv_rate=to_numeric(table.conv_rate, errors="coerce"))

    judge_with(ns, lambda suite, table, columns: judge(suite, numbers(table), columns))


@fault("03", "claim-stale-and-schema", says="neither 0 nor 1")
def the_rule_about_labels_allows_any_number(ns):
    gx, rules = ns["gx"], ns["saved_suite"].expectations
    kept = [rule for rule in rules if type(rule).__name__ != "ExpectColumnValuesToBeInSet"]
    ns["saved_suite"] = gx.ExpectationSuite("driver_ranking", expectations=kept)
    rerun(ns, *ACCIDENTS)


@fault("03", "claim-expectations-discarded", says="must raise an error")
def the_profiler_does_not_try_the_rules_on_the_reference(ns):
    rerun(ns, "class GxProfiler", change=("if not report.is_success", "if False"))
    rerun(ns, "mistaken_profiler = GxProfiler")


@fault("03", "claim-expectations-discarded", says="should be a gross one")
def the_reference_obeys_the_rule(ns):
    ns["saved_rows"]["conv_rate"] /= 2


@fault("03", "claim-feature-monitoring", says="lacks a view or a feature")
def a_view_has_lost_its_file(ns):
    import logging
    import tempfile
    from pathlib import Path

    from feast import FeatureStore, FileSource

    from exercises.core import scratch

    with scratch() as course, tempfile.TemporaryDirectory() as folder:
        profile = course.get_feature_view("driver_daily_profile")
        profile.batch_source = FileSource(
            name="gone", path=f"{folder}/gone.parquet", timestamp_field="event_timestamp"
        )
        course.apply(profile)
        config = course.config.model_copy(update={"repo_path": Path(folder)})
        before = logging.root.manager.disable
        logging.disable()
        ns["monitor"] = ns["MonitoringService"](FeatureStore(config=config))
        rerun(ns, "for days in (21, 14, 7)")
        logging.disable(before)
        yield


@fault("03", "claim-feature-monitoring", says="a window of a feature is missing")
def a_window_is_left_out(ns):
    rerun(ns, "metrics = pd.DataFrame", change=("start_date=start.date()", "start_date=end.date()"))


@fault("03", "claim-feature-monitoring", says="differs from pandas")
def the_monitor_measures_other_rows(ns):
    ns["stats"]["conv_rate"] *= 1.001


@fault("03", "claim-feature-monitoring", says="differs from pandas")
def missing_values_are_not_counted(ns):
    ns["stats"]["acc_rate"] = ns["stats"].acc_rate.mask(ns["stats"].index % 10 == 0)


@fault("03", "claim-feature-monitoring", says="reports a missing file itself")
def the_file_of_the_batch_is_there(ns):
    gone = '(workspace.path / "staging" / "vanished" / "rows.parquet").unlink()'
    rerun(ns, "vanished_store = staging", change=(gone, "pass"))


THRESHOLD = ["driver_weeks = [", "resampled_scores = pd"]


@fault("03", "claim-drift-threshold", says="compared with itself must score zero")
def the_bins_of_the_two_windows_differ(ns):
    real = ns["common_bins"]

    def shifted(first, second, **options):
        one, other = real(first, second, **options)
        return one, other[::-1]

    ns["common_bins"] = shifted


@fault("03", "claim-drift-threshold", says="is the baseline another one")
def the_baseline_is_of_another_feature(ns):
    ns["after"] = ns["after"].assign(conv_rate=ns["after"].acc_rate)


@fault("03", "claim-drift-threshold", says="doesn't fit weeks of this size")
def hours_are_drawn_as_if_they_were_independent(ns):
    hours = "after[hourly].sample(frac=1, random_state=0).to_numpy()"
    rerun(
        ns,
        *THRESHOLD,
        change=("drivers = len", f"driver_weeks = np.array_split({hours}, len(driver_weeks))\ndrivers = len"),
    )


@fault("03", "claim-drift-threshold", says="doesn't fit weeks of this size")
def a_week_is_drawn_from_ten_drivers(ns):
    rerun(ns, *THRESHOLD, change=("len(driver_weeks) // 3", "10"))


def scored(ns, **measured):
    """Score other measurements."""
    ns["arrival_histograms"] |= measured
    ns["scores"] = (
        ns["pd"].DataFrame({name: ns["drift"](found) for name, found in ns["arrival_histograms"].items()}).T
    )


@fault("03", "claim-drift-detected", says="both planted shifts and no more")
def the_drifted_week_is_the_clean_one(ns):
    scored(ns, drifted=ns["arrival_histograms"]["clean"])


@fault("03", "claim-drift-detected", says="both planted shifts and no more")
def a_score_stands_in_the_column_of_another_feature(ns):
    one = ns["arrival_histograms"]["drifted"]
    scored(ns, drifted=one.rename({"acc_rate": "avg_daily_trips", "avg_daily_trips": "acc_rate"}))


@fault("03", "claim-drift-detected", says="a clean week scores as drifted")
def the_clean_week_has_drifted(ns):
    scored(ns, clean=ns["arrival_histograms"]["drifted"])


@fault("03", "claim-drift-detected", says="hardly overlap")
def the_broken_week_was_repaired(ns):
    scored(ns, broken=ns["arrival_histograms"]["clean"])


GATES = ["def decide", "outcome = {"]


@fault("03", "claim-stopped-before-serving", says="should meet its own gate")
def the_rules_are_not_asked(ns):
    rerun(ns, *GATES, change=("validation_reference=reference", ""))


@fault("03", "claim-stopped-before-serving", says="should meet its own gate")
def the_score_is_not_asked(ns):
    rerun(ns, *GATES, change=("> threshold", "> 1"))


@fault("03", "claim-stopped-before-serving", says="the last row of each driver")
def the_online_store_is_a_day_behind(ns):
    with rows(ns["clean_week"]) as store:
        store.materialize(ns["NOW"], ns["NOW"] + timedelta(days=6))
        ns["arrivals"] = ns["arrivals"] | {"clean": store}
        rerun(ns, "entity_rows = ")
        yield


@fault("03", "claim-stopped-before-serving", says="does materialization check values now")
def materialization_loads_no_rate_above_one(ns):
    broken = ns["batches"]["broken"]
    with rows(broken.assign(conv_rate=broken.conv_rate.clip(upper=1))) as store:
        ns["staging"] = lambda *batch: store
        rerun(ns, "unguarded_store = staging")
        yield

"""What the checks of notebook 07 must notice."""

import contextlib
import sqlite3
import time
from datetime import timedelta
from types import SimpleNamespace

from faults import fault, rerun

HOURLY = "driver_hourly_stats"


@contextlib.contextmanager
def online_rates(ns, driver, **changes):
    """Other values of a driver's last hour in the online store."""
    store, stats = ns["store"], ns["stats"]
    last = stats[stats.driver_id == driver].sort_values(["event_timestamp", "created"]).tail(1)
    store.write_to_online_store(HOURLY, last.assign(**changes))
    yield
    store.write_to_online_store(HOURLY, last)


@contextlib.contextmanager
def production(ns, version):
    """The alias at another version; the course's server follows, if it runs."""
    ns["client"].set_registered_model_alias(ns["MODEL"], "production", version)
    yield
    ns["client"].set_registered_model_alias(ns["MODEL"], "production", ns["champion"].version)


def follow(ns, version):
    """Wait until the course's server answers with a version."""
    deadline = time.monotonic() + 60
    while ns["ask"](ns["url"], ns["instances"])[1].get("model_version") != version:
        assert time.monotonic() < deadline, "the server did not follow"
        time.sleep(0.05)


@contextlib.contextmanager
def ten_lines(ns, predict):
    """Another ``predict``, behind a server of its own: the notebook's holds the model that was not copied."""
    ns["ranking"].predict = predict
    server = ns["services"].InThread(ns["ranking"])
    ns["small_url"] = f"{server.url}/v1/models/ranking:predict"
    yield
    server.stop()


@fault("07", "claim-promote-by-alias", says="leads to another version")
def the_alias_points_to_the_first_version(ns):
    with production(ns, "1"):
        rerun(ns, "model_uri = ")
        yield


@fault("07", "claim-promote-by-alias", says="other columns than its contract")
def the_model_was_trained_on_columns_in_another_order(ns):
    columns = ns["contract"].columns[::-1]
    ns["model"].fit(ns["pd"].DataFrame([[0.0] * 3, [1.0] * 3], columns=columns), [0, 1])


@fault("07", "claim-incremental", says="not the latest")
def the_increment_ends_two_hours_early(ns):
    rerun(ns, "nightly = staging", change=("end_date=NOW,", "end_date=NOW - timedelta(hours=2),"))


@fault("07", "claim-incremental", says="changed hardly anything")
def the_increment_never_runs(ns):
    call = "nightly.materialize_incremental(end_date=NOW, feature_views=[hourly])"
    rerun(ns, "nightly = staging", change=(call, "pass"))


@fault("07", "claim-incremental", says="loaded nothing")
def the_first_period_holds_no_row(ns):
    periods = "NOW - timedelta(days=7), NOW - timedelta(days=1)"
    between = "NOW - timedelta(hours=24.5), NOW - timedelta(hours=24.1)"
    rerun(ns, "nightly = staging", change=(periods, between))


@fault("07", "claim-incremental", says="begin where the first ended")
def the_job_materializes_everything_again(ns):
    again = "materialize(start_date=start, end_date=NOW,"
    rerun(ns, "nightly = staging", "intervals = ", change=("materialize_incremental(end_date=NOW,", again))


@fault("07", "claim-no-skew", says="values differ between the stores")
def a_value_is_written_after_the_materialization(ns):
    with online_rates(ns, int(ns["online"].dropna().index[3]), conv_rate=0.987):
        rerun(ns, "answer = store.get_online_features(features=compared", "differs = ")
        yield


@fault("07", "claim-no-skew", says="values differ between the stores")
def training_reads_two_hours_earlier(ns):
    earlier = ns["NOW"] - timedelta(hours=2)  # the newest rows are an hour old
    ns["everyone"] = ns["everyone"].assign(event_timestamp=earlier)
    rerun(ns, "differs = ")


@fault("07", "claim-no-skew", says="has no online value")
def a_view_is_not_materialized(ns):
    store = ns["store"]
    path = store.config.repo_path / store.config.online_store.path
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        database.execute(f'DELETE FROM "{store.project}_driver_daily_profile"')
    rerun(ns, "answer = store.get_online_features(features=compared", "differs = ")
    yield
    start, end = ns["periods"]["driver_daily_profile"]
    store.materialize(start, end, feature_views=["driver_daily_profile"])


@fault("07", "claim-on-demand-sources", says="did not reach the computation")
def the_caller_sends_a_percentage(ns):
    rerun(ns, "campaign_rows = ", change=("0.4", "40.0"))


@fault("07", "check-ten-lines", says="score differently")
def the_columns_come_in_another_order(ns):
    ranking, store, features = ns["ranking"], ns["store"], ns["features"]

    def predict(payload, headers=None):
        rows = store.get_online_features(features, payload["instances"]).to_df()
        values = rows[ns["contract"].columns[::-1]].to_numpy()
        return {"predictions": ranking.model.predict_proba(values)[:, 1].tolist()}

    with ten_lines(ns, predict):
        rerun(ns, "over_http = ")
        yield


@fault("07", "check-ten-lines", says="an unknown driver was answered")
def missing_values_are_filled_with_zero(ns):
    ranking, store, features = ns["ranking"], ns["store"], ns["features"]

    def predict(payload, headers=None):
        rows = store.get_online_features(features, payload["instances"]).to_df()
        values = rows[ns["contract"].columns].astype(float).fillna(0)
        return {"predictions": ranking.model.predict_proba(values)[:, 1].tolist()}

    with ten_lines(ns, predict):
        answer = ns["ask"](ns["small_url"], [{"driver_id": ns["UNKNOWN_DRIVER"]}])
        ns["small_unknown"] = answer
        yield


@fault("07", "check-ten-lines", says="were not scored")
def the_stale_row_is_not_written(ns):
    ns["small_stale"] = ns["ask"](ns["small_url"], [{"driver_id": 997}])


@fault("07", "claim-predictions-served", says="served scores differ")
def a_value_changes_before_the_server_reads_it(ns):
    with online_rates(ns, ns["known"][3], conv_rate=0.987):
        rerun(ns, "tensor = ")
        yield


@fault("07", "claim-predictions-served", says="was promoted, and 2 answers")
def the_alias_points_to_the_version_of_the_sweep(ns):
    with production(ns, "2"):
        follow(ns, "2")
        rerun(ns, "tensor = ")
        yield
    follow(ns, str(ns["champion"].version))


@fault("07", "claim-feature-server", says="returns other values")
def a_value_changes_before_python_reads_it(ns):
    with online_rates(ns, ns["known"][3], acc_rate=0.123):
        rerun(ns, "answer = store.get_online_features(features=compared")
        yield


@fault("07", "claim-clear-refusal", says="no features: 404")
def the_ten_lines_are_asked(ns):
    ns["url"] = ns["small_url"]
    answers = ns["ask"](ns["url"], ns["hard_requests"]["unknown driver"])
    ns["answers"]["unknown driver"] = answers


@fault("07", "claim-clear-refusal", says="name the driver and the features")
def another_driver_is_asked_about(ns):
    ns["hard_requests"]["unknown driver"] = [{"driver_id": 997}]
    ns["answers"] = {name: ns["ask"](ns["url"], hard) for name, hard in ns["hard_requests"].items()}


@fault("07", "claim-clear-refusal", says="the same answer as before")
def a_value_changes_between_two_requests(ns):
    with online_rates(ns, ns["known"][3], conv_rate=0.987):
        ns["afterwards"] = ns["ask"](ns["url"], ns["instances"])
        yield


@fault("07", "claim-stale-refused", says="were not rejected")
def the_feed_has_come_back(ns):
    row = ns["old_hour"].assign(event_timestamp=ns["NOW"])
    ns["store"].write_to_online_store(HOURLY, row)
    ns["answers"]["stale features"] = ns["ask"](ns["url"], [{"driver_id": 998}])
    yield
    ns["store"].write_to_online_store(HOURLY, ns["old_hour"])


@fault("07", "check-definition-change", says="is ready although")
def nothing_is_changed(ns):
    ns["longest_wait"] = 0
    rerun(ns, "ready_while_changed = ", change=("timedelta(days=1)", "week"))


@fault("07", "check-definition-change", says="is back, and the server is not ready")
def the_definition_is_not_restored(ns):
    rerun(ns, "ready_while_changed = ")
    ns["longest_wait"] = 2
    rerun(ns, "ready_once_restored = ", change=("view.ttl = week", "view.ttl = timedelta(days=1)"))
    yield
    ns["longest_wait"] = 30
    rerun(ns, "ready_once_restored = ")


@fault("07", "check-definition-change", says="answers differently")
def a_value_changes_while_the_server_waits(ns):
    with online_rates(ns, ns["known"][3], conv_rate=0.987):
        ns["once_restored"] = ns["ask"](ns["url"], ns["instances"])
        yield


@fault("07", "claim-rollback", says="still answers")
def the_alias_does_not_move(ns):
    ns["newer"], promoted = ns["champion"].version, ns["newer"]
    rerun(ns, "seconds_out, rolled_out = ")
    ns["newer"] = promoted


@fault("07", "claim-rollback", says="not those of the version that is named")
def the_version_holds_another_model(ns):
    ns["cautious"] = ns["new_model"](C=0.01).fit(
        ns["selection"][ns["contract"].columns], ns["selection"].label
    )


@fault("07", "claim-rollback", says="after the rollback")
def a_value_changes_before_the_rollback(ns):
    with online_rates(ns, ns["known"][3], conv_rate=0.987):
        ns["rolled_back"] = ns["move_alias"](ns["champion"].version)[1]
        yield


@fault("07", "claim-rollback", says="ended on the way")
def another_server_answers_after_the_rollback(ns):
    ns["server"] = ns["services"].InThread(ns["ranking"])
    ns["server"].stop()


def slowly(seconds):
    def call(*_, **__):
        time.sleep(seconds)
        return SimpleNamespace(raise_for_status=lambda: None)

    return call


@fault("07", "claim-online-latency", says="features and a prediction take more than 20 ms")
def the_online_store_is_far_away(ns):
    ns["requests_to_time"] = 5
    ns["model"] = SimpleNamespace(predict_proba=slowly(0.03))
    rerun(ns, "calls = ")


@fault("07", "claim-online-latency", says="a request takes more than 20 ms")
def each_request_waits_for_a_lock(ns):
    ns["requests_to_time"] = 5
    ns["session"] = SimpleNamespace(post=slowly(0.03))
    rerun(ns, "calls = ")


@fault("07", "claim-server-metrics", says="fewer than were sent")
def another_server_was_asked(ns):
    ns["server"] = ns["small_server"]
    rerun(ns, "published = ")


@fault("07", "claim-server-metrics", says="ms outside")
def the_seconds_are_milliseconds(ns):
    total = 'samples["request_predict_seconds_sum"]'
    rerun(ns, "published = ", change=(total, f"1000 * {total}"))


@fault("07", "check-servers-ended", says="the server of ten lines should have ended")
def a_server_is_started_once_more(ns):
    ns["small_server"] = ns["services"].InThread(ns["ranking"])
    yield
    ns["small_server"].stop()


@fault("07", "check-servers-ended", says="the model server should have ended")
def the_model_server_has_another_handle(ns):
    ns["server"] = ns["services"].InThread(ns["ranking"])
    yield
    ns["server"].stop()


@fault("07", "claim-online-store-redis", says="holds other values")
def a_late_row_reaches_one_store_alone(ns):
    stats, later = ns["stats"], ns["NOW"] + timedelta(seconds=1)
    row = stats[stats.driver_id == ns["known"][3]].tail(1)
    ns["second"].write_to_online_store(HOURLY, row.assign(event_timestamp=later, conv_rate=0.987))
    rerun(ns, "answer = second")

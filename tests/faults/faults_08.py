"""What the checks of notebook 08 must notice. No fault retrains; gates get other figures in MLflow."""

from types import SimpleNamespace

import pyarrow.parquet as pq
from faults import fault, rerun
from prometheus_client import generate_latest

from lifecycle.serving.scoring import FeatureModel
from lifecycle.training.comparison import compare

JOIN = ["def known_by", "everything = known_by"]
TOLERANCE = "tolerance=timedelta(hours=23)"


def logged(ns, change):
    """The log's file with changed rows, read again."""
    [file] = (ns["later"].path / "prediction_log").glob("*.parquet")
    before = file.read_bytes()
    change(pq.read_table(file).to_pandas()).to_parquet(file)
    retrieval = "retrieved = historical_features(store, questions, list(contract.feature_refs))\n"
    rerun(ns, "log = read_log", "logged_scores = ", change=(retrieval, ""))
    yield
    file.write_bytes(before)


@fault("08", "claim-predictions-logged", says="in the log")
def the_last_morning_never_leaves_the_buffer(ns):
    return logged(ns, lambda log: log[log["__log_timestamp"] < ns["mornings"][-1]])


@fault("08", "claim-predictions-logged", says="belongs to another driver or morning")
def on_one_morning_scores_stand_beside_other_drivers(ns):
    def change(log):
        there = log["__log_timestamp"] == ns["mornings"][3]
        return log.assign(score=log.score.mask(there, log.score[there].shift(fill_value=0.5)))

    return logged(ns, change)


@fault("08", "claim-predictions-logged", says="names another version")
def the_log_names_the_first_version_each_time(ns):
    return logged(ns, lambda log: log.assign(model_version="1"))


@fault("08", "claim-predictions-logged", says="other features than serving")
def the_server_reads_a_value_of_the_day_before(ns):
    def change(log):
        log, column = log.sort_values("__log_timestamp"), ns["contract"].feature_refs[0].replace(":", "__")
        before = log.groupby("driver_id")[column].shift()
        return log.assign(**{column: log[column].mask(log.driver_id == ns["drivers"][0], before)})

    return logged(ns, change)


@fault("08", "claim-labels-join-late", says="younger than its question")
def the_join_looks_ahead(ns):
    rerun(ns, *JOIN, change=(TOLERANCE, 'direction="forward", allow_exact_matches=False'))


@fault("08", "claim-labels-join-late", says="joined with an older prediction")
def the_join_leaves_out_the_moment_itself(ns):
    rerun(ns, *JOIN, change=(TOLERANCE, "allow_exact_matches=False"))


@fault("08", "claim-labels-join-late", says="used before it was known")
def nobody_looks_at_when_a_label_was_written(ns):
    rerun(ns, *JOIN, change=("labels.created <= moment", "labels.event_timestamp <= moment"))


@fault("08", "claim-labels-join-late", says="cannot be known yet")
def labels_are_stamped_with_the_time_of_their_question(ns):
    ns["labels"]["created"] = ns["labels"]["event_timestamp"]
    rerun(ns, *JOIN)


@fault("08", "claim-views-see-covariates", says="a stored rate did not move")
def the_table_holds_another_column_under_a_rates_name(ns):
    measure = ns["monitor"].get_feature_metrics
    named = {"avg_daily_trips": "acc_rate", "acc_rate": "avg_daily_trips", "conv_rate": "conv_rate"}
    found = [row | {"feature_name": named[row["feature_name"]]} for row in measure(ns["store"].project)]
    ns["monitor"] = SimpleNamespace(get_feature_metrics=lambda *_, **__: found)
    rerun(ns, "stored_drift = ")


@fault("08", "claim-views-see-covariates", says="Evidently missed a rate")
def evidently_compares_a_week_with_itself(ns):
    rerun(ns, "log_week = ", change=("before[contract.columns].astype(float)", "seen"))


@fault("08", "claim-views-see-covariates", says="the scores did not move")
def the_scores_are_compared_with_themselves(ns):
    rerun(ns, "def score_distance", "alarms = ", change=("histogram(before.score,", "histogram(scores,"))


@fault("08", "claim-views-see-covariates", says="moved in another week")
def a_threshold_so_low_that_a_quiet_week_passes_it(ns):
    rerun(ns, "alarms = ", change=("stored_drift > 0.1", "stored_drift > 0.005"))


@fault("08", "claim-concept-needs-labels", says="lost before the relation changed")
def the_labels_are_shuffled(ns):
    ns["labels"]["label"] = ns["labels"].label.sample(frac=1, random_state=1).to_numpy()
    rerun(ns, "everything = known_by", "auc_before = ")


def foreseen(ns, *weeks):
    """In some weeks drivers do what the champion expects of them."""
    rows = ns["everything"]
    rows["label"] = rows.label.mask(rows.week.isin(weeks), (rows.score > 0.5).astype(int))
    rerun(ns, "auc_before = ")


@fault("08", "claim-concept-needs-labels", says="cost only")
def the_model_follows_the_change(ns):
    foreseen(ns, 4, 5, 6)


@fault("08", "claim-concept-needs-labels", says="no alarm for it")
def nobody_is_called(ns):
    rerun(ns, "alarms = ", change=("auc_before - 0.05", "auc_before - 0.5"))


@fault("08", "claim-alert-before-refusal", says="should still answer")
def a_driver_is_asked_for_who_stopped_reporting(ns):
    ns["drivers"] = ns["rejected"]
    rerun(ns, "statuses, alerts = ")


@fault("08", "claim-alert-before-refusal", says="no feature is old")
def the_server_runs_on_the_clock_of_the_last_materialization(ns):
    ns["page_here"] = generate_latest().decode()  # the model of this process last answered then
    asked = 'requests.get(f"{server.url}/metrics", timeout=10).text'
    rerun(ns, "page = ", change=(asked, "page_here"))


def alerted(ns, *alerts):
    """The loop with these alerts, also on a machine without Prometheus."""
    ns["prometheus"], ns["services"] = "running", SimpleNamespace(alerts=lambda _: alerts)
    rerun(ns, "statuses, alerts = ", change=("time.sleep(0.5)", "break"))


@fault("08", "claim-alert-before-refusal", says="the alerts name []")
def prometheus_does_not_reach_the_server(ns):
    alerted(ns)


@fault("08", "claim-alert-before-refusal", says="the alerts are")
def the_rule_waits_for_an_hour(ns):
    old = ns["ages"].index[ns["ages"]["age"] > 0.8 * ns["ages"]["age_limit"]]
    rule = {"alertname": "FeaturesGrowOld", "state": "pending", "summary": ""}
    alerted(ns, *[rule | {"feature": name} for name in old])


def gate(ns, **figures):
    """These figures in the run that the last retraining's gate left in MLflow."""
    outcome, client = ns.get("real_alarm", ns["false_alarm"]), ns["client"]
    step = f"tags.`mlflow.parentRunId` = '{outcome.run_id}' and attributes.run_name = 'compare'"
    (run,) = ns["mlflow"].search_runs([], step, output_format="list", experiment_names=["retraining"])
    for name, value in figures.items():
        client.log_metric(run.info.run_id, name, value)
    yield
    for name in figures:
        client.log_metric(run.info.run_id, name, run.data.metrics[name])


def compared(ns, *, on_training_rows=False, champion=None, challenger=None, **options):
    """The comparison of the last retraining again, with other rows, scores, or hyperparameters."""
    first, last = (3, 5) if "real_alarm" in ns else (1, 3)
    begin, end = ns["week_ends"][first], ns["week_ends"][last]
    times, rows = ns["labels"].event_timestamp, ns["everything"]
    cut = ns["selection_ends"](times[times.between(begin, end)])
    rows = rows[rows.event_timestamp.between(begin, end)]
    training = rows[rows.event_timestamp <= cut]
    rows = training if on_training_rows else rows[rows.event_timestamp > cut]
    options = options or ns["hyperparameters"](ns["champion_model"])
    model = ns["new_model"](**options).fit(training[ns["X"]], training.label)
    old = champion(rows) if champion else rows.score
    new = challenger(rows) if challenger else model.predict_proba(rows[ns["X"]])[:, 1]
    return gate(ns, **compare(rows.label, old, new, rows[["driver_id"]]).figures())


@fault("08", "claim-gate-keeps-champion", says="rows, the later days have")
def the_models_are_compared_on_the_training_rows(ns):
    return compared(ns, on_training_rows=True)


@fault("08", "claim-gate-keeps-champion", says="the champion scores")
@fault("08", "claim-promoted-if-better", says="the champion scores")
def the_champion_answers_of_another_day_are_taken(ns):
    return compared(ns, champion=lambda rows: rows.groupby("driver_id").score.shift().fillna(rows.score))


@fault("08", "claim-gate-keeps-champion", says="such a model scores")
@fault("08", "claim-promoted-if-better", says="such a model scores")
def the_challenger_has_other_hyperparameters(ns):
    return compared(ns, C=1e-6, degree=4, weights="equal")


@fault("08", "claim-gate-keeps-champion", says="no interval")
@fault("08", "claim-promoted-if-better", says="no gain")
def the_interval_is_open_above(ns):
    return gate(ns, high=float("inf"))


@fault("08", "claim-gate-keeps-champion", says="was better after all")
def the_gate_decides_against_its_interval(ns):
    return gate(ns, low=0.001)


@fault("08", "claim-gate-keeps-champion", says="a model was registered")
def the_retraining_registers_in_any_case(ns):
    name = "pipeline.parent_run"
    ns["client"].set_model_version_tag(ns["MODEL"], "1", name, ns["false_alarm"].run_id)
    yield
    ns["client"].delete_model_version_tag(ns["MODEL"], "1", name)


def moved(ns, before, after, *mark, change=("", "")):
    """The alias names one version while a cell begins, and another once the check has run."""
    move = ns["client"].set_registered_model_alias
    move(ns["MODEL"], "production", before)
    if mark:
        rerun(ns, *mark, change=change)
    yield
    move(ns["MODEL"], "production", after)


@fault("08", "claim-gate-keeps-champion", says="the alias moved")
def somebody_moves_the_alias(ns):
    return moved(ns, "1", ns["champion"].number)


@fault("08", "claim-covariate-needs-no-model", says="retraining on the drifted weeks gained")
def a_new_model_gains_in_the_drifted_weeks(ns):
    return compared(ns, challenger=lambda rows: rows.score + 0.1 * rows.label)


@fault("08", "claim-promoted-if-better", says="should be rejected")
def it_is_rejected_for_another_reason(ns):
    rerun(ns, "too_early = ", change=("week_ends[3] + timedelta", "week_ends[3] - timedelta"))


@fault("08", "claim-promoted-if-better", says="no gain")
def the_gate_opens_for_a_model_that_is_no_better(ns):
    return gate(ns, low=-0.01)


@fault("08", "claim-promoted-if-better", says="was to be held back")
def hold_is_ignored(ns):
    ns["retrain_on"] = lambda *_, hold: ns["real_alarm"]  # the alias names its challenger by now
    rerun(ns, "real_alarm = retrain_on")


@fault("08", "claim-promoted-if-better", says="was overruled")
def promotion_does_not_look_at_the_alias(ns):
    ns["promote"] = lambda client, model, alias, _, new: client.set_registered_model_alias(model, alias, new)
    return moved(ns, ns["champion"].number, ns["challenger"].number, "alias_of_colleague = ")


def followed(ns, model):
    """The way there and back, with a server that loads no other version."""
    ns["ask_server"] = lambda: (200, model.score([{"driver_id": ns["drivers"][0]}])[1])
    at_once = ("time.monotonic() + 30", "time.monotonic()")
    return moved(ns, ns["champion"].number, ns["challenger"].number, "def wait_for", change=at_once)


@fault("08", "claim-promoted-if-better", says="did not follow")
def the_server_ignores_the_promotion(ns):
    return followed(ns, ns["model"])


@fault("08", "claim-promoted-if-better", says="did not come back")
def the_server_stays_with_the_new_version(ns):
    model = FeatureModel(ns["MODEL"], ns["later"].feature_repo, "production", ns["model"].now, watch=3600)
    model.stop()
    return followed(ns, model)


@fault("08", "claim-loop-closes", says="was trained on itself")
def weekly_retraining_knows_labels_a_day_early(ns):
    rerun(ns, "def known_in_week", change=("begins - timedelta(days=1)", "begins"))


@fault("08", "claim-loop-closes", says="AUC was lost")
def the_champion_recovers_by_itself(ns):
    foreseen(ns, 6)
    rerun(ns, "story.loc[week")


@fault("08", "claim-loop-closes", says="retraining won back")
def the_challenger_learned_from_the_old_world(ns):
    ns["shadow"] = ns["fit"](ns["before"])
    rerun(ns, "story.loc[week")


@fault("08", "claim-loop-closes", says="the task itself became harder")
def the_generator_adds_noise(ns):
    ns["labels"]["label"] = ns["labels"].label.mask(ns["week_of_label"] == 5, 1 - ns["labels"].label)
    rerun(ns, "story.loc[week")

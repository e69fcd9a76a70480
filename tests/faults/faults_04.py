"""What the checks of notebook 04 must notice."""

import contextlib
import copy
import dataclasses
from types import SimpleNamespace

from faults import fault, rerun

AUTOLOG = "mlflow.sklearn.autolog(log_models=False"
LOG_MODEL = "logged_model = mlflow.sklearn.log_model"
RETRIEVES = "    features = historical_features(store, labels, training_service)"
REGISTER = "version = mlflow.register_model"


@contextlib.contextmanager
def retrieved(ns, instead):
    """The retrieval of the notebook, done otherwise in a run of its own."""
    marks = ["as parent:", "parent_id = ", "recorded_references = "]
    rerun(ns, *marks, change=(RETRIEVES, instead))
    yield
    ns["mlflow"].delete_run(ns["parent_id"])


@contextlib.contextmanager
def candidate(ns, name, rows=None, columns=None, blocks=None):
    """A candidate's run in place of the notebook's, and the search again.

    Args:
        ns: the notebook's names.
        name: of the candidate.
        rows: to validate it on; the selection by default.
        columns: what the run says that it read; the candidate's by default.
        blocks: scores to log, in place of a validation.
    """
    mlflow, client = ns["mlflow"], ns["mlflow"].MlflowClient()
    columns = columns or ns["columns"][name]
    if blocks is None:
        rows = ns["selection"] if rows is None else rows
        blocks = ns["blocks_of"][name] = ns["validate"](rows, columns)
    before = ns["runs"].run_id[name]
    client.delete_run(before)
    with mlflow.start_run(run_id=ns["parent_id"]), mlflow.start_run(run_name=name, nested=True) as run:
        ns["log_candidate"](name, columns, blocks)
    rerun(ns, "children = ")
    yield
    client.delete_run(run.info.run_id)
    client.restore_run(before)


@contextlib.contextmanager
def registered(ns, *then, change=("", "")):
    """The model logged otherwise, and registered under a name of its own."""
    ns["MODEL"] = "planted"
    rerun(ns, LOG_MODEL, REGISTER, "address = f", "service_filter = ", *then, change=change)
    yield
    ns["client"].delete_registered_model("planted")
    ns["client"].delete_logged_model(ns["logged_model"].model_id)


def trips(ns, signal):
    """The selection, with trips that know the label."""
    rows = ns["selection"]
    return rows.assign(avg_daily_trips=rows.avg_daily_trips + signal * rows.label)


def shuffled(rows, column):
    """The rows, with the values of one column in another order."""
    return rows.assign(**{column: rows[column].sample(frac=1, random_state=1).to_numpy()})


@fault("04", "claim-run-records-features", says="exactly the retrieved features")
def the_run_retrieves_another_service(ns):
    with retrieved(ns, RETRIEVES.replace("training_service", 'store.get_feature_service("rates")')):
        yield


@fault("04", "claim-run-records-features", says="how many rows")
def a_look_at_three_rows_happens_in_the_run(ns):
    look = "    historical_features(store, labels.head(3), training_service)"
    with retrieved(ns, f"{RETRIEVES}\n{look}"):
        yield


@fault("04", "claim-log-experiments", says="every candidate should be one run")
def a_candidate_has_no_run(ns):
    client, run_id = ns["mlflow"].MlflowClient(), ns["runs"].run_id["rates"]
    client.delete_run(run_id)
    rerun(ns, "children = ")
    yield
    client.restore_run(run_id)


@fault("04", "claim-log-experiments", says="another candidate's score")
def a_run_logs_the_scores_of_the_candidate_before(ns):
    with candidate(ns, "rates", blocks=ns["blocks_of"]["conv_only"]):
        yield


@fault("04", "claim-log-experiments", says="names other features than its service")
def a_run_reads_the_tenure_in_place_of_the_rating(ns):
    with candidate(ns, "rates_and_rating", columns=["conv_rate", "acc_rate", "tenure_days"]):
        yield


@fault("04", "claim-log-experiments", says="all five metrics")
def a_metric_is_not_logged(ns):
    rerun(ns, "def log_candidate", change=('"recall", "f1"]]', '"f1"]]'))
    with candidate(ns, "rates"):
        yield


@fault("04", "claim-log-experiments", says="the best run first")
def the_search_has_no_order(ns):
    rerun(ns, "children = ", change=('order_by=["metrics.auc DESC"],', ""))


@fault("04", "claim-log-experiments", says="the tag should find its runs")
def a_run_lacks_the_tag_of_a_feature(ns):
    client, run_id = ns["mlflow"].MlflowClient(), ns["runs"].run_id["everything"]
    client.delete_tag(run_id, "feature_rating")
    rerun(ns, "with_rating = ")
    yield
    client.set_tag(run_id, "feature_rating", "included")


@fault("04", "claim-choice-saw-no-later-row", says="later than the cut")
def a_candidate_is_validated_on_all_rows(ns):
    with candidate(ns, "conv_only", rows=ns["features"].dropna()):
        rerun(ns, "last_rows = ")
        yield


@fault("04", "claim-choice-saw-no-later-row", says="should come after the selection")
def the_held_out_rows_are_a_random_quarter(ns):
    ns["held_out"] = ns["features"].dropna().sample(frac=0.25, random_state=1)


@fault("04", "claim-choice-saw-no-later-row", says="a model of earlier rows")
def one_candidate_is_validated_on_shuffled_rows(ns):
    rows = ns["selection"].sample(frac=1, random_state=1)
    ns["blocks_of"]["rates"] = ns["validate"](rows, ns["columns"]["rates"])


@fault("04", "claim-reproducible-run", says="a feature view has changed")
def the_run_used_another_version_of_a_view(ns):
    client, name = ns["mlflow"].MlflowClient(), "version.driver_hourly_stats"
    version = ns["run_tags"][name]
    client.set_tag(ns["parent_id"], name, "v99")
    rerun(ns, "parent_id = ")
    yield
    client.set_tag(ns["parent_id"], name, version)


@fault("04", "claim-reproducible-run", says="the rebuilt training data differs")
def a_value_of_the_file_changes_after_the_run(ns):
    file = ns["workspace"].data / "driver_stats.parquet"
    before = file.read_bytes()
    stats = ns["pd"].read_parquet(file)
    stats.assign(conv_rate=stats.conv_rate + 1e-6).to_parquet(file)
    rerun(ns, "entity_rows = ")
    yield
    file.write_bytes(before)


@fault("04", "claim-reproducible-run", says="scores differently")
def the_repeated_run_validates_other_rows(ns):
    rerun(ns, "best_run = ", change=("validate(rebuilt_selection,", "validate(rebuilt_selection.iloc[1:],"))


@fault("04", "claim-single-feature", says="now and then")
def trips_carry_signal(ns):
    with candidate(ns, "acc_and_trips", rows=trips(ns, 20)):
        rerun(ns, "alone = ")
        yield


@fault("04", "claim-single-feature", says="noise should change little")
def the_run_logs_trips_that_know_the_label(ns):
    with candidate(ns, "acc_and_trips", rows=trips(ns, 2)):
        yield


@fault("04", "claim-single-feature", says="the full set should win clearly")
def conversion_carries_nothing(ns):
    with candidate(ns, "rates_and_trips", rows=shuffled(ns["selection"], "conv_rate")):
        rerun(ns, "alone = ")
        yield


@fault("04", "claim-single-feature", says="a set with more signal")
def conversion_carries_nothing_in_the_blocks(ns):
    rows = shuffled(ns["selection"], "conv_rate")
    ns["blocks_of"]["rates_and_trips"] = ns["validate"](rows, ns["columns"]["rates_and_trips"])
    rerun(ns, "alone = ")


@fault("04", "claim-feature-selection", says="holds a noise feature")
def the_largest_set_wins(ns):
    rerun(ns, "good_enough = ", change=("[True, False]", "[False, False]"))


@fault("04", "claim-feature-selection", says="the strongest feature is missing")
def the_smallest_set_wins_at_any_loss(ns):
    ns["tolerance"] = 1
    rerun(ns, "good_enough = ", change=("[True, False]", "[True, True]"))


@fault("04", "claim-feature-selection", says="conversion carries more")
def the_view_reads_acceptance_as_conversion(ns):
    rows = ns["selection"]
    with candidate(ns, "conv_only", rows=rows.assign(conv_rate=rows.acc_rate)):
        yield


@fault("04", "claim-feature-selection", says="adding pure noise gained")
def the_noise_leaks_the_label(ns):
    with candidate(ns, "rates_and_trips", rows=trips(ns, 5)):
        yield


@fault("04", "claim-held-out-once", says="only the winner should read")
def a_candidate_is_scored_on_the_held_out_days(ns):
    mlflow = ns["mlflow"]
    with mlflow.start_run(run_name="rates", parent_run_id=ns["parent_id"]) as run:
        mlflow.log_input(ns["held_out_data"], context="evaluation")
    rerun(ns, "looks = ")
    yield
    mlflow.delete_run(run.info.run_id)


@fault("04", "claim-held-out-once", says="means a leak")
def a_held_out_feature_knows_the_label(ns):
    rows = ns["held_out"]
    ns["held_out"] = rows.assign(conv_rate=rows.conv_rate + rows.label)
    rerun(ns, "as winner_run:")
    yield
    ns["mlflow"].delete_run(ns["winner_run"].info.run_id)


@fault("04", "claim-held-out-once", says="capture most")
def the_labels_of_the_held_out_days_are_shuffled(ns):
    ns["held_out"] = shuffled(ns["held_out"], "label")
    rerun(ns, "as winner_run:")
    yield
    ns["mlflow"].delete_run(ns["winner_run"].info.run_id)


@fault("04", "claim-richer-registry", says="the version just registered")
def the_alias_was_not_moved(ns):
    ns["MODEL"] = "planted"
    moves = 'client.set_registered_model_alias(MODEL, "selected", version.version)'
    rerun(ns, REGISTER)
    rerun(ns, REGISTER, "address = f", "service_filter = ", change=(moves, ""))
    yield
    ns["client"].delete_registered_model("planted")


@fault("04", "claim-richer-registry", says="should find the version")
def the_version_has_no_tag(ns):
    client, version, name = ns["client"], ns["version"], "feast.feature_service"
    client.delete_model_version_tag(version.name, version.version, name)
    rerun(ns, "service_filter = ")
    yield
    client.set_model_version_tag(version.name, version.version, name, ns["winner"])


@fault("04", "claim-richer-registry", says="carry its own score")
def another_score_is_logged(ns):
    half = ('"held_out_auc", held_out_auc', '"held_out_auc", held_out_auc / 2')
    with registered(ns, change=half):
        yield
    ns["client"].log_metric(ns["winner_run"].info.run_id, "held_out_auc", ns["held_out_auc"])


@fault("04", "claim-richer-registry", says="know its run")
def the_model_is_logged_in_another_run(ns):
    with registered(ns, change=("run_id=winner_run.info.run_id", "run_id=parent_id")):
        yield


@fault("04", "claim-model-knows-its-features", says="name different columns")
def the_contract_has_its_columns_in_another_order(ns):
    contract = ns["contract"]
    ns["swapped"] = dataclasses.replace(contract, feature_refs=contract.feature_refs[::-1])
    with registered(ns, "stored_inputs = ", change=("contract.to_dict()", "swapped.to_dict()")):
        yield


@fault("04", "claim-model-knows-its-features", says="the feature service has changed")
def the_feature_service_reads_other_features(ns):
    store, name = ns["store"], ns["stored_contract"].feature_service
    service = store.get_feature_service(name)
    other = copy.deepcopy(store.get_feature_service("everything"))
    other.name = name
    store.apply(other)
    yield
    store.apply(service)


@fault("04", "claim-model-knows-its-features", says="scores differently")
def another_model_is_stored(ns):
    rows = ns["selection"]
    ns["model"] = ns["new_model"](degree=2).fit(rows[ns["contract"].columns], rows.label)
    with registered(ns, "stored_inputs = "):
        yield


@contextlib.contextmanager
def fitted(ns, change):
    """The two fits beside autolog, done otherwise."""
    rerun(ns, AUTOLOG, change=change)
    yield
    ns["mlflow"].sklearn.autolog(disable=True, silent=True)
    for run in (ns["autolog_run"], ns["plain_run"]):
        ns["mlflow"].delete_run(run.info.run_id)


@fault("04", "claim-autolog", says="should log the parameters")
def autolog_records_another_fit(ns):
    with fitted(ns, ("new_model(C=0.5)", "new_model(C=0.7)")):
        yield


@fault("04", "claim-autolog", says="should log the metrics")
def autolog_records_no_metrics(ns):
    ns["autologged"] = SimpleNamespace(params=ns["autologged"].params, metrics={})


@fault("04", "claim-autolog", says="should log nothing")
def autolog_is_left_on(ns):
    with fitted(ns, ("mlflow.sklearn.autolog(disable=True, silent=True)", "")):
        yield


@fault("04", "claim-built-in-evaluation", says="another AUC")
def evaluate_reads_other_rows(ns):
    ns["held_out_data"] = ns["mlflow"].data.from_pandas(
        ns["held_out"][[*ns["columns"][ns["winner"]], "label"]].iloc[100:], targets="label"
    )
    rerun(ns, "evaluation = ", change=("run_id=winner_run.info.run_id", 'run_name="planted"'))
    yield
    ns["mlflow"].delete_run(ns["mlflow"].last_active_run().info.run_id)


@fault("04", "claim-built-in-evaluation", says="another accuracy")
def evaluate_reads_other_labels(ns):
    ns["held_out"]["label"] = 1 - ns["held_out"].label


@fault("04", "claim-native-integration", says="name different services")
def the_tag_of_the_version_names_another_service(ns):
    client, version, name = ns["client"], ns["version"], "feast.feature_service"
    client.set_model_version_tag(version.name, version.version, name, "everything")
    rerun(ns, "resolved = {}")
    yield
    client.set_model_version_tag(version.name, version.version, name, ns["winner"])


@fault("04", "claim-native-integration", says="reads an alias after @")
def feast_reads_the_alias(ns):
    rerun(ns, "resolved = {}", change=("resolve_features(uri)", 'resolve_features(uri.replace("@", "/"))'))


@fault("04", "claim-native-integration", says="the last retrieval")
def the_second_retrieval_reads_the_first_service(ns):
    first = 'get_feature_service("driver_training")'
    rerun(ns, "tags_after = {}", change=("get_feature_service(name)", first))


@contextlib.contextmanager
def evaluated(ns, *before, change=("", "")):
    """Both writers evaluated once more, in runs that are deleted afterwards."""
    mlflow, place = ns["mlflow"], {"experiment_names": ["driver_summaries"]}
    there = set(mlflow.search_runs(**place).run_id)
    rerun(ns, *before, "verdicts, passed = ", change=change)
    yield
    for run_id in set(mlflow.search_runs(**place).run_id) - there:
        mlflow.delete_run(run_id)


@fault("04", "claim-generated-text", says="these passed")
def the_careful_writer_states_the_facts_of_january(ns):
    february = ns["facts"]
    rerun(ns, "halves = ", change=('"2025-02-01 01:00", "2025-03-01"', '"2025-01-16", "2025-02-20"'))
    ns["january"], ns["facts"] = ns["facts"], february
    with evaluated(
        ns, "def careful", change=("fact = facts.loc[driver_id]", "fact = january.loc[driver_id]")
    ):
        yield


@fault("04", "claim-generated-text", says="own_numbers refuses the summaries of [1002]")
def a_number_may_be_that_of_any_driver(ns):
    any_driver = 'value=set(stated) <= set(facts[["acc_rate", "conv_rate"]].stack())'
    with evaluated(ns, "def own_numbers", change=("value=stated == true", any_driver)):
        yield


@fault("04", "claim-generated-text", says="own_numbers refuses the summaries of []")
def a_scorer_raises_for_what_it_would_refuse(ns):
    raises = ("value=stated == true", "value=bool(1 / (stated == true))")
    with evaluated(ns, "def own_numbers", change=raises):
        yield


@fault("04", "claim-generated-text", says="own_trend refuses []")
def any_trend_will_do(ns):
    with evaluated(ns, "def own_trend", change=("{facts.trend[inputs['driver_id']]}", "")):
        yield


@fault("04", "claim-generated-text", says="true ones of another driver")
def the_numbers_of_other_drivers_are_not_in_the_data(ns):
    anyone = """def in_the_data(outputs):
    return set(percentages(outputs)) <= set(facts[["acc_rate", "conv_rate"]].stack())"""
    own = """def in_the_data(inputs, outputs):
    return set(percentages(outputs)) <= set(facts.loc[inputs["driver_id"], ["acc_rate", "conv_rate"]])"""
    with evaluated(ns, "def in_the_data", change=(anyone, own)):
        yield


@fault("04", "claim-generated-text", says="the run has other means")
def the_run_is_the_one_of_the_careful_writer(ns):
    with evaluated(ns, change=("(careful, eager)", "(eager, careful)")):
        yield

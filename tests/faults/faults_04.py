"""What the checks of notebook 04 must notice."""

import dataclasses
from types import SimpleNamespace

from faults import fault

EXPERIMENT = "feature_selection"


def recorded(ns, service, rows):
    """The tags that Feast adds to a run for another retrieval."""
    mlflow, store = ns["mlflow"], ns["store"]
    with mlflow.start_run(run_name="planted") as run:
        ns["historical_features"](store, rows, store.get_feature_service(service))
    tags = mlflow.get_run(run.info.run_id).data.tags
    mlflow.delete_run(run.info.run_id)
    return tags


def search(ns, condition, **options):
    """The names of the runs that MLflow finds now."""
    found = ns["mlflow"].search_runs(experiment_names=[EXPERIMENT], filter_string=condition, **options)
    return found["tags.mlflow.runName"].tolist()


def validated(ns, candidate, **changes):
    """Validate a candidate on selection rows of which some columns differ."""
    return ns["validate"](ns["selection"].assign(**changes), ns["columns"][candidate])


@fault("04", "claim-run-records-features", says="exactly the retrieved features")
def the_run_retrieves_another_service(ns):
    tags = recorded(ns, "rates", ns["labels"].head(3))
    ns["recorded_references"] = tags["feast.feature_refs"].split(",")


@fault("04", "claim-run-records-features", says="how many rows")
def a_look_at_three_rows_happens_in_the_run(ns):
    ns["run_tags"] = recorded(ns, "driver_training", ns["labels"].head(3))


@fault("04", "claim-log-experiments", says="every candidate should be one run")
def a_candidate_has_no_run(ns):
    client, run_id = ns["mlflow"].MlflowClient(), ns["runs"].run_id["rates"]
    client.delete_run(run_id)
    ns["table"] = ns["table"].loc[search(ns, ns["children"])]
    yield
    client.restore_run(run_id)


@fault("04", "claim-log-experiments", says="another candidate's score")
def the_runs_of_two_candidates_are_swapped(ns):
    two = ["rates", "conv_only"]
    ns["table"].loc[two, "auc"] = ns["table"].loc[two[::-1], "auc"].to_numpy()


@fault("04", "claim-log-experiments", says="names other features than its service")
def a_run_reads_the_tenure_in_place_of_the_rating(ns):
    features = ns["runs"].loc["rates_and_rating", "params.features"]
    ns["runs"].loc["rates_and_rating", "params.features"] = features.replace("rating", "tenure_days")


@fault("04", "claim-log-experiments", says="all five metrics")
def a_metric_is_not_logged(ns):
    ns["table"].loc["rates", "recall"] = float("nan")


@fault("04", "claim-log-experiments", says="the best run first")
def the_search_has_no_order(ns):
    ns["table"] = ns["table"].loc[search(ns, ns["children"])]


@fault("04", "claim-log-experiments", says="the tag should find its runs")
def a_run_lacks_the_tag_of_a_feature(ns):
    client, run_id = ns["mlflow"].MlflowClient(), ns["runs"].run_id["everything"]
    client.delete_tag(run_id, "feature_rating")
    ns["rating_runs"] = sorted(search(ns, f"{ns['children']} and tags.feature_rating = 'included'"))
    yield
    client.set_tag(run_id, "feature_rating", "included")


@fault("04", "claim-choice-saw-no-later-row", says="later than the cut")
def the_candidates_are_selected_on_all_rows(ns):
    blocks = ns["validate"](ns["features"].dropna(), ["conv_rate"])
    ns["last_rows"].loc["conv_only"] = blocks.scored_until.max()


@fault("04", "claim-choice-saw-no-later-row", says="should come after the selection")
def the_held_out_rows_are_a_random_quarter(ns):
    ns["held_out"] = ns["features"].dropna().sample(955, random_state=1)


@fault("04", "claim-choice-saw-no-later-row", says="a model of earlier rows")
def one_candidate_is_validated_on_shuffled_rows(ns):
    shuffled = ns["selection"].sample(frac=1, random_state=1)
    ns["blocks_of"]["rates"] = ns["validate"](shuffled, ["conv_rate", "acc_rate"])


@fault("04", "claim-reproducible-run", says="a feature view has changed")
def a_view_has_another_version_now(ns):
    ns["versions_now"]["version.driver_hourly_stats"] = "v99"


@fault("04", "claim-reproducible-run", says="the rebuilt training data differs")
def a_value_of_the_file_changes_after_the_run(ns):
    ns["rebuilt"].iloc[5, 3] += 1e-9


@fault("04", "claim-reproducible-run", says="scores differently")
def the_repeated_run_validates_other_rows(ns):
    blocks = ns["validate"](ns["rebuilt_selection"].iloc[1:], ["conv_rate", "acc_rate", "rating"])
    ns["repeated"]["repeated"] = blocks.mean(numeric_only=True)


@fault("04", "claim-single-feature", says="now and then")
def trips_carry_signal(ns):
    trips = ns["selection"].avg_daily_trips + 20 * ns["selection"].label
    blocks = validated(ns, "acc_and_trips", avg_daily_trips=trips)
    ns["blocks_won"]["acc_and_trips"] = int((ns["alone"] > blocks.auc).sum())


@fault("04", "claim-single-feature", says="noise should change little")
def the_noise_is_no_noise(ns):
    ns["table"].loc["acc_and_trips", "auc"] += 0.02


@fault("04", "claim-single-feature", says="the full set should win clearly")
def conversion_carries_nothing(ns):
    shuffled = ns["selection"].conv_rate.sample(frac=1, random_state=1).to_numpy()
    blocks = validated(ns, "rates_and_trips", conv_rate=shuffled)
    ns["table"].loc["rates_and_trips", "auc"] = blocks.auc.mean()


@fault("04", "claim-single-feature", says="a set with more signal")
def conversion_is_lost_in_five_blocks(ns):
    ns["blocks_won"]["rates_and_trips"] = 5


@fault("04", "claim-feature-selection", says="holds a noise feature")
def the_largest_set_wins(ns):
    ns["winner"] = ns["table"].num_features.idxmax()


@fault("04", "claim-feature-selection", says="the strongest feature is missing")
def the_smallest_set_wins_at_any_loss(ns):
    ns["winner"] = ns["table"].sort_values(["num_features", "auc"]).index[0]


@fault("04", "claim-feature-selection", says="conversion carries more")
def the_view_reads_acceptance_as_conversion(ns):
    blocks = validated(ns, "conv_only", conv_rate=ns["selection"].acc_rate)
    ns["table"].loc["conv_only", "auc"] = blocks.auc.mean()


@fault("04", "claim-feature-selection", says="adding pure noise gained")
def the_noise_leaks_the_label(ns):
    trips = ns["selection"].avg_daily_trips + 5 * ns["selection"].label
    blocks = validated(ns, "rates_and_trips", avg_daily_trips=trips)
    ns["table"].loc["rates_and_trips", "auc"] = blocks.auc.mean()


@fault("04", "claim-held-out-once", says="only the winner should read")
def a_candidate_is_scored_on_the_held_out_days(ns):
    mlflow = ns["mlflow"]
    with mlflow.start_run(run_name="rates", parent_run_id=ns["parent_id"]) as run:
        mlflow.log_input(ns["held_out_data"], context="evaluation")
    ns["looks"] = mlflow.search_runs(
        experiment_names=[EXPERIMENT],
        filter_string=f"datasets.name = 'held_out_days' and tags.`mlflow.parentRunId` = '{ns['parent_id']}'",
    )
    yield
    mlflow.delete_run(run.info.run_id)


@fault("04", "claim-held-out-once", says="means a leak")
def the_scores_have_seen_the_labels(ns):
    leaked = ns["scores"] + 0.2 * ns["held_out"].label
    ns["held_out_auc"] = ns["roc_auc_score"](ns["held_out"].label, leaked)


@fault("04", "claim-held-out-once", says="capture most")
def the_labels_of_the_held_out_days_are_shuffled(ns):
    shuffled = ns["held_out"].label.sample(frac=1, random_state=1)
    ns["held_out_auc"] = ns["roc_auc_score"](shuffled, ns["scores"])


@fault("04", "claim-richer-registry", says="the version just registered")
def the_alias_was_not_moved(ns):
    ns["by_alias"] = SimpleNamespace(version=0, tags={})


@fault("04", "claim-richer-registry", says="should find the version")
def the_version_has_no_tag(ns):
    client, version, name = ns["client"], ns["version"], "feast.feature_service"
    client.delete_model_version_tag(version.name, version.version, name)
    ns["versions_by_tag"] = [entry.version for entry in client.search_model_versions(ns["service_filter"])]
    yield
    client.set_model_version_tag(version.name, version.version, name, ns["winner"])


@fault("04", "claim-richer-registry", says="carry its own score")
def the_score_was_logged_to_the_run_alone(ns):
    ns["stored_metrics"].pop("held_out_auc")


@fault("04", "claim-richer-registry", says="know its run")
def the_model_was_logged_in_another_run(ns):
    ns["stored_model"] = SimpleNamespace(source_run_id=ns["parent_id"])


@fault("04", "claim-model-knows-its-features", says="name different columns")
def the_contract_has_its_columns_swapped(ns):
    contract = ns["stored_contract"]
    ns["stored_contract"] = dataclasses.replace(contract, feature_refs=contract.feature_refs[::-1])


@fault("04", "claim-model-knows-its-features", says="the feature service has changed")
def the_feature_service_reads_other_features(ns):
    store = ns["store"]
    ns["store"] = SimpleNamespace(get_feature_service=lambda name: store.get_feature_service("rates"))


@fault("04", "claim-model-knows-its-features", says="scores differently")
def another_model_was_stored(ns):
    rows = ns["selection"]
    ns["loaded_model"] = ns["new_model"](degree=2).fit(rows[ns["stored_inputs"]], rows.label)


@fault("04", "claim-autolog", says="should log the parameters")
def autolog_records_another_fit(ns):
    ns["autologged"] = SimpleNamespace(
        params={"logisticregression__C": "1.0"}, metrics=ns["autologged"].metrics
    )


@fault("04", "claim-autolog", says="should log the metrics")
def autolog_records_no_metrics(ns):
    ns["autologged"] = SimpleNamespace(params=ns["autologged"].params, metrics={})


@fault("04", "claim-autolog", says="should log nothing")
def autolog_was_left_on(ns):
    ns["plain"] = ns["autologged"]


@fault("04", "claim-built-in-evaluation", says="another AUC")
def the_curve_is_drawn_from_classes(ns):
    classes = ns["scores"] > 0.5
    wrong = ns["roc_auc_score"](ns["held_out"].label, classes)
    ns["evaluation"] = SimpleNamespace(metrics=ns["evaluation"].metrics | {"roc_auc": wrong})


@fault("04", "claim-built-in-evaluation", says="another accuracy")
def evaluate_reads_other_labels(ns):
    ns["held_out"]["label"] = 1 - ns["held_out"].label


@fault("04", "claim-native-integration", says="name different services")
def the_tag_of_the_version_names_another_service(ns):
    client, version, name = ns["client"], ns["version"], "feast.feature_service"
    client.set_model_version_tag(version.name, version.version, name, "everything")
    uri = ns["addresses"][0]
    ns["resolved"][uri] = ns["store"].mlflow.resolve_features(uri)
    yield
    client.set_model_version_tag(version.name, version.version, name, ns["winner"])


@fault("04", "claim-native-integration", says="reads an alias after @")
def feast_reads_the_alias(ns):
    ns["resolved"][ns["address"]] = ns["winner"]


@fault("04", "claim-native-integration", says="the last retrieval")
def the_first_retrieval_is_kept(ns):
    ns["tags_after"]["after rates"] = ns["tags_after"]["after driver_training"]

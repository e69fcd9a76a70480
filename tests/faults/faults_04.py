"""What the checks of notebook 04 must notice."""

import dataclasses
from types import SimpleNamespace

import pandas as pd
from faults import fault


@fault("04", "claim-run-records-features", says="exactly the features")
def the_run_notes_a_feature_less(ns):
    ns["refs_noted"].pop()


@fault("04", "claim-run-records-features", says="how many rows")
def the_run_notes_another_retrieval(ns):
    ns["noted"]["feast.entity_count"] = "3"


@fault("04", "claim-run-records-features", says="the version of each feature view")
def a_version_is_not_noted(ns):
    del ns["noted"]["version.driver_ratios"]


@fault("04", "claim-log-experiments", says="every candidate should be one run")
def a_candidate_has_no_run(ns):
    ns["table"] = ns["table"].iloc[1:]


@fault("04", "claim-log-experiments", says="all five metrics")
def a_metric_is_not_logged(ns):
    ns["table"].loc["rates", "recall"] = float("nan")


@fault("04", "claim-log-experiments", says="the best run first")
def the_runs_come_in_no_order(ns):
    ns["table"] = ns["table"].iloc[::-1]


@fault("04", "claim-log-experiments", says="the tag should find its runs")
def a_run_lacks_the_tag_of_a_feature(ns):
    ns["found"].pop()


@fault("04", "claim-choice-saw-no-later-row", says="later than the cut")
def the_candidates_are_selected_on_all_rows(ns):
    blocks = ns["validate"](ns["features"].dropna(), ["conv_rate"])
    ns["last_rows"].loc["conv_only"] = blocks.scored_until.max()


@fault("04", "claim-choice-saw-no-later-row", says="should all lie behind")
def the_held_out_rows_are_a_random_quarter(ns):
    ns["held_out"] = ns["features"].dropna().sample(955, random_state=1)


@fault("04", "claim-choice-saw-no-later-row", says="a model of earlier rows")
def the_folds_are_shuffled(ns):
    ns["by_block"] = ns["validate"](ns["selection"].sample(frac=1, random_state=1), ["conv_rate"])


@fault("04", "claim-reproducible-run", says="a feature view has changed")
def a_view_has_another_version_now(ns):
    ns["versions_now"]["version.driver_hourly_stats"] = "v99"


@fault("04", "claim-reproducible-run", says="the rebuilt training data differs")
def a_value_of_the_file_changes_after_the_run(ns):
    ns["rebuilt"].iloc[5, 3] += 1e-9
    ns["hashes"]["rebuilt"] = ns["fingerprint"](ns["rebuilt"])


@fault("04", "claim-reproducible-run", says="scores differently")
def the_repeated_run_validates_other_rows(ns):
    again = ns["validate"](ns["rows_again"].iloc[1:], ["conv_rate", "acc_rate", "rating"])
    ns["repeated"]["repeated"] = again.mean(numeric_only=True)


@fault("04", "claim-single-feature", says="now and then")
def trips_carry_signal(ns):
    ns["blocks_won"]["acc_and_trips"] = 0


@fault("04", "claim-single-feature", says="noise should change little")
def the_noise_is_no_noise(ns):
    ns["table"].loc["acc_and_trips", "auc"] += 0.02


@fault("04", "claim-single-feature", says="the full set should win clearly")
def conversion_carries_nothing(ns):
    ns["table"].loc["rates_and_trips", "auc"] = ns["table"].auc.acc_only


@fault("04", "claim-single-feature", says="a set with more signal")
def acceptance_beats_the_full_set(ns):
    ns["blocks_won"]["rates_and_trips"] = 5


@fault("04", "claim-feature-selection", says="holds a noise feature")
def the_largest_set_wins(ns):
    ns["winner"] = "everything"


@fault("04", "claim-feature-selection", says="the strongest feature is missing")
def acceptance_alone_wins(ns):
    ns["winner"] = "acc_only"


@fault("04", "claim-feature-selection", says="conversion carries more")
def the_metrics_of_two_runs_are_swapped(ns):
    table = ns["table"]
    table.loc[["conv_only", "acc_only"], "auc"] = table.loc[["acc_only", "conv_only"], "auc"].to_numpy()


@fault("04", "claim-feature-selection", says="does rates_and_rating read it")
def the_service_reads_the_tenure_in_place_of_the_rating(ns):
    blocks = ns["validate"](ns["selection"], ["conv_rate", "acc_rate", "tenure_days"])
    ns["table"].loc["rates_and_rating", "auc"] = blocks.auc.mean()


@fault("04", "claim-feature-selection", says="adding pure noise gained")
def the_noise_helps(ns):
    ns["table"].loc["rates_and_trips", "auc"] += 0.01


@fault("04", "claim-held-out-once", says="means a leak")
def the_score_is_better_than_any_model_can_be(ns):
    ns["held_out_auc"] = ns["best_possible"] + 0.05


@fault("04", "claim-held-out-once", says="capture most")
def the_labels_of_the_held_out_days_are_shuffled(ns):
    shuffled = ns["held_out"].label.sample(frac=1, random_state=1)
    ns["held_out_auc"] = ns["roc_auc_score"](shuffled, ns["scores"])


@fault("04", "claim-model-knows-its-features", says="name different columns")
def the_contract_has_its_columns_swapped(ns):
    contract = ns["stored_contract"]
    ns["stored_contract"] = dataclasses.replace(contract, feature_refs=contract.feature_refs[::-1])


@fault("04", "claim-model-knows-its-features", says="the feature service has changed")
def the_feature_service_reads_another_feature(ns):
    ns["features_now"][-1] = "driver_daily_profile:tenure_days"


@fault("04", "claim-model-knows-its-features", says="scores differently")
def another_model_was_stored(ns):
    ns["scores_loaded"] = ns["scores_loaded"][::-1]


@fault("04", "claim-richer-registry", says="the version just registered")
def the_alias_was_not_moved(ns):
    ns["by_alias"] = SimpleNamespace(version=0, tags={})


@fault("04", "claim-richer-registry", says="should find the version")
def the_version_has_no_tag(ns):
    ns["by_tag"] = []


@fault("04", "claim-richer-registry", says="carry its held-out score")
def the_score_was_logged_to_the_run_alone(ns):
    ns["own_metrics"]["held_out_auc"] = None


@fault("04", "claim-richer-registry", says="the run that made it")
def the_model_was_logged_in_another_run(ns):
    ns["behind"] = SimpleNamespace(source_run_id=ns["parent_id"])


@fault("04", "claim-autolog", says="should note the parameters")
def autolog_notes_another_fit(ns):
    ns["by_autolog"] = SimpleNamespace(
        params={"logisticregression__C": "1.0"}, metrics=ns["by_autolog"].metrics
    )


@fault("04", "claim-autolog", says="should note the metrics")
def autolog_notes_no_metrics(ns):
    ns["by_autolog"] = SimpleNamespace(params=ns["by_autolog"].params, metrics={})


@fault("04", "claim-autolog", says="should note nothing")
def autolog_was_left_on(ns):
    ns["by_nobody"] = ns["by_autolog"]


@fault("04", "claim-built-in-evaluation", says="another AUC")
def evaluate_scores_the_training_rows(ns):
    ns["by_evaluate"]["roc_auc"] += 0.01


@fault("04", "claim-built-in-evaluation", says="another accuracy")
def evaluate_reads_other_labels(ns):
    ns["held_out"]["label"] = pd.Series(1 - ns["held_out"].label)


@fault("04", "claim-native-integration", says="name different services")
def the_tag_of_the_version_names_another_service(ns):
    ns["answers"][next(iter(ns["answers"]))] = "everything"


@fault("04", "claim-native-integration", says="reads an alias after @")
def feast_reads_the_alias(ns):
    ns["answers"][list(ns["answers"])[-1]] = ns["winner"]


@fault("04", "claim-native-integration", says="the last retrieval")
def the_first_retrieval_is_noted(ns):
    ns["noted_then"].loc["feast.feature_service", "after rates"] = "driver_training"

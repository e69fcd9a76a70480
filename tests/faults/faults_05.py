"""What the checks of notebook 05 must notice."""

import dataclasses
from types import SimpleNamespace

import pandas as pd
from faults import fault
from optuna.distributions import FloatDistribution, IntDistribution


@fault("05", "check-plain-sweep", says="a run with its score")
def a_trial_logs_no_score(ns):
    ns["plain_runs"].loc[2, "metrics.auc"] = float("nan")


@fault("05", "check-plain-sweep", says="and with its choices")
def a_trial_logs_the_choices_of_another(ns):
    ns["plain_runs"]["params.C"] = ns["plain_runs"]["params.C"].to_numpy()[::-1]


@fault("05", "check-plain-sweep", says="hold the best score")
def the_parent_holds_the_last_score(ns):
    ns["plain_found"]["best_auc"] = min(ns["plain_runs"]["metrics.auc"])


@fault("05", "claim-native-tuning", says="a run with its value")
def the_storage_loses_a_trial(ns):
    ns["native_runs"] = ns["native_runs"].iloc[1:]


@fault("05", "claim-native-tuning", says="and with its choices")
def the_storage_loses_a_parameter(ns):
    ns["native_runs"].loc[0, "params.degree"] = None


@fault("05", "claim-native-tuning", says="now ends the study's run")
def the_storage_ends_the_run(ns):
    ns["theirs"] = ns["ours"]


@fault("05", "claim-native-tuning", says="now writes the best score")
def the_storage_writes_the_result(ns):
    ns["theirs"] = SimpleNamespace(info=ns["theirs"].info, data=ns["ours"].data)


@fault("05", "check-killed-inside-a-trial", says="open in Optuna")
def the_kill_falls_between_two_trials(ns):
    ns["open_trials"] = []


@fault("05", "check-killed-inside-a-trial", says="open in MLflow")
def the_run_is_closed_by_the_dying_process(ns):
    ns["open_runs"] = ns["open_runs"].iloc[:0]


@fault("05", "claim-hyperparameter-tuning", says="were asked for")
def a_trial_is_lost(ns):
    ns["done"].pop()


@fault("05", "claim-hyperparameter-tuning", says="one to one")
def a_trial_has_no_run(ns):
    ns["run_ids"][3] = "nobody's"


@fault("05", "claim-hyperparameter-tuning", says="differ between Optuna and MLflow")
def a_run_holds_the_parameters_of_another_trial(ns):
    ns["of_runs"].loc[4, "degree"] += 1


@fault("05", "claim-hyperparameter-tuning", says="hold the best score")
def the_result_is_not_written(ns):
    ns["parent"]["metrics.best_auc"] = 0.0


@fault("05", "claim-sweep-survives-kill", says="never killed")
def nobody_killed_the_sweep(ns):
    ns["parent"]["tags.interruptions"] = "0"


@fault("05", "claim-sweep-survives-kill", says="settled as failed")
def settle_is_not_called_for_the_trial(ns):
    ns["settled"][:] = ["RUNNING"]


@fault("05", "claim-sweep-survives-kill", says="closed as killed")
def settle_is_not_called_for_the_run(ns):
    ns["runs_settled"][:] = ["RUNNING"]


@fault("05", "claim-sweep-survives-kill", says="was left open")
def the_study_is_left_open(ns):
    ns["parent"]["status"] = "RUNNING"


@fault("05", "claim-sweep-survives-kill", says="repeats another")
def the_sampler_starts_again_with_its_first_seed(ns):
    ns["results"].iloc[7] = ns["results"].iloc[1]


@fault("05", "claim-sweep-survives-kill", says="should be the current model")
def the_sweep_starts_somewhere_else(ns):
    ns["done"][0] = ns["done"][1]


@fault("05", "check-tuning-gains-little", says="cannot be worse")
def the_current_model_is_not_tried(ns):
    ns["gained"] = -0.001


@fault("05", "check-tuning-gains-little", says="a leak or a broken score")
def the_sweep_scores_the_training_rows(ns):
    ns["gained"] = 0.1


@fault("05", "check-pruning-saves-epochs", says="some trials should be stopped")
def nothing_is_pruned(ns):
    ns["pruned"][:] = False


@fault("05", "check-pruning-saves-epochs", says="should mark the trials")
def the_callback_marks_every_trial(ns):
    ns["marked"] = pd.concat([ns["marked"], ns["marked"]])


@fault("05", "check-pruning-saves-epochs", says="run to its end")
def a_complete_trial_stops_early(ns):
    ns["took"][ns["took"].idxmax()] -= 1


@fault("05", "check-pruning-saves-epochs", says="first two epochs")
def the_warm_up_is_ignored(ns):
    ns["took"][ns["pruned"]] = 1


@fault("05", "check-pruning-saves-epochs", says="save epochs")
def a_pruned_trial_runs_on(ns):
    ns["took"][:] = ns["epochs"]


@fault("05", "claim-one-search-space", says="another space than Optuna")
def katib_searches_on_a_linear_scale(ns):
    ns["space_of_katib"]["C"] = FloatDistribution(1e-4, 10.0)


@fault("05", "claim-one-search-space", says="dropped or changed a field")
def katib_does_not_know_a_field(ns):
    del ns["read_back"]["spec"]["objective"]


@fault("05", "claim-one-search-space", says="a misspelled field")
def the_round_trip_keeps_what_it_does_not_know(ns):
    ns["misspelled_back"] = ns["misspelled"]


@fault("05", "claim-one-search-space", says="another space than expected")
def the_client_knows_whole_numbers(ns):
    ns["space_of_client"]["degree"] = IntDistribution(1, 3)


@fault("05", "check-katib-trial", says="scores differently")
def the_job_reads_the_held_out_days_too(ns):
    ns["as_job"] += 1e-4


@fault("05", "claim-best-candidate-registered", says="scores differently")
def the_default_model_was_stored(ns):
    ns["auc_loaded"] = ns["auc_untuned"]


@fault("05", "claim-best-candidate-registered", says="carry the contract")
def the_contract_loses_a_column(ns):
    contract = ns["contract_loaded"]
    ns["contract_loaded"] = dataclasses.replace(contract, feature_refs=contract.feature_refs[:-1])


@fault("05", "claim-best-candidate-registered", says="a newer version")
def the_tuned_model_is_an_old_version(ns):
    ns["tuned"] = SimpleNamespace(version="0")


@fault("05", "claim-best-candidate-registered", says="it followed noise")
def the_tuned_model_ranks_like_a_coin(ns):
    ns["held_out_auc"] = ns["auc_loaded"] = 0.5

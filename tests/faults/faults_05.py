"""What the checks of notebook 05 must notice."""

import contextlib
import dataclasses
from types import SimpleNamespace
from unittest import mock

import optuna
from faults import fault, rerun
from optuna.trial import TrialState

SEARCH = "runs = mlflow.search_runs("


@contextlib.contextmanager
def without_run(ns, run_id):
    """A trial's run is deleted in MLflow."""
    ns["client"].delete_run(run_id)
    yield
    ns["client"].restore_run(run_id)


@contextlib.contextmanager
def with_status(ns, run_id, status):
    """A run has another status in MLflow."""
    before = ns["client"].get_run(run_id).info.status
    ns["client"].update_run(run_id, status=status)
    yield
    ns["client"].update_run(run_id, status=before)


def of_trial(runs, number):
    """The id of a trial's run."""
    return runs.run_id[f"trial {number}"]


def swept(ns, *, change=("", ""), trials=2):
    """Run a small sweep with a changed cell, and search its runs."""
    ns["trials"] = trials
    rerun(ns, "def logged_objective", "study.enqueue_trial(default)", SEARCH, "parent_data = ", change=change)


def copied(study, change):
    """A copy of a study in memory, with ``change`` applied to each of its trials; None leaves one out."""
    copy = optuna.create_study(direction=study.direction.name.lower())
    for trial in study.trials:
        if changed := change(trial):
            copy.add_trial(changed)
    return copy


@fault("05", "claim-hyperparameter-tuning", says="should be one run")
def a_trial_has_no_run(ns):
    with without_run(ns, of_trial(ns["runs"], 1)):
        rerun(ns, SEARCH)
        yield


@fault("05", "claim-hyperparameter-tuning", says="has another trial's choice")
def the_objective_logs_the_default_in_place_of_the_choice(ns):
    swept(ns, change=("log_params(trial.params)", "log_params(default)"))


@fault("05", "claim-hyperparameter-tuning", says="has another trial's choice")
def the_choices_of_two_runs_are_swapped(ns):
    two, columns = ["trial 1", "trial 2"], ns["choices"]
    ns["runs"].loc[two, columns] = ns["runs"].loc[two[::-1], columns].to_numpy()


@fault("05", "claim-hyperparameter-tuning", says="has another score")
def the_objective_logs_what_it_does_not_return(ns):
    swept(ns, change=('log_metric("auc", auc)', 'log_metric("auc", 1 - auc)'))


@fault("05", "claim-hyperparameter-tuning", says="the parent should have the best score")
def the_parent_gets_the_worst_score(ns):
    worst = 'log_metric("best_auc", study.trials_dataframe().value.min())'
    swept(ns, change=('log_metric("best_auc", study.best_value)', worst))


@fault("05", "claim-hyperparameter-tuning", says="the best run first")
def the_search_returns_the_worst_run_first(ns):
    rerun(ns, SEARCH, change=("auc DESC", "auc ASC"))


@fault("05", "claim-best-candidate-registered", says="isn't the best trial's")
def the_default_model_is_registered(ns):
    ns["loaded"]["tuned"] = ns["loaded"]["default"]


@fault("05", "claim-best-candidate-registered", says="scores differently")
def the_stored_model_was_fitted_on_fewer_rows(ns):
    best, rows = ns["best"], slice(500)
    fitted = ns["new_model"](**best).fit(ns["X"][rows], ns["y"][rows])
    scores = fitted.predict_proba(ns["X_later"])[:, 1]
    ns["held_out_scores"]["tuned"] = ns["roc_auc_score"](ns["y_later"], scores)


@fault("05", "claim-best-candidate-registered", says="the contract of the selected one")
def the_contract_loses_a_column(ns):
    contract = ns["tuned_contract"]
    ns["tuned_contract"] = dataclasses.replace(contract, feature_refs=contract.feature_refs[:-1])


@fault("05", "claim-best-candidate-registered", says="a newer version")
def the_selected_model_is_newer(ns):
    ns["selected"] = SimpleNamespace(version=int(ns["tuned"].version) + 1)


@fault("05", "check-tuning-gains-little", says="try the current model first")
def the_current_model_is_not_enqueued(ns):
    swept(ns, change=("study.enqueue_trial(default)", "pass"))


@fault("05", "check-tuning-gains-little", says="scores differently in the sweep")
def the_sweep_scores_other_rows(ns):
    ns["X"], ns["y"] = ns["X"].iloc[:-500], ns["y"].iloc[:-500]
    swept(ns)


@fault("05", "check-tuning-gains-little", says="a leak or a broken score")
def a_feature_leaks_the_label_to_the_sweep(ns):
    leaked = ns["X"].assign(label=ns["y"])
    leaky = ns["validation_scores"](ns["new_model"](**ns["best"]), leaked, ns["y"]).mean()
    ns["gained"] = leaky - ns["before"]


@fault("05", "check-tuning-gains-little", says="one of the models is broken")
def the_tuned_model_reads_its_columns_in_another_order(ns):
    reversed_columns = ns["X_later"].iloc[:, ::-1].set_axis(ns["X_later"].columns, axis=1)
    scores = ns["loaded"]["tuned"].predict_proba(reversed_columns)[:, 1]
    ns["held_out_scores"]["tuned"] = ns["roc_auc_score"](ns["y_later"], scores)


def in_epochs(ns, *changes):
    """Run the trials in epochs again, with some texts changed."""
    for mark, *change in changes:
        rerun(ns, mark, change=tuple(change))
    rerun(ns, "took = pd.DataFrame(")


LEARN, EARLY = "def learn(trial)", "early = optuna.create_study("


@fault("05", "check-pruning-saves-epochs", says="some trials should be stopped")
def the_study_has_no_pruner(ns):
    median = "MedianPruner(n_startup_trials=4, n_warmup_steps=2)"
    in_epochs(ns, (EARLY, median, "NopPruner()"))


@fault("05", "check-pruning-saves-epochs", says="a complete trial stopped early")
def a_hopeless_trial_ends_without_a_word(ns):
    in_epochs(ns, (LEARN, "raise optuna.TrialPruned", "return loss"), (EARLY, "", ""))


@fault("05", "check-pruning-saves-epochs", says="none of the first four")
def the_first_trials_are_stopped_too(ns):
    in_epochs(ns, (EARLY, "n_startup_trials=4", "n_startup_trials=1"))


@fault("05", "check-pruning-saves-epochs", says="first two epochs")
def there_is_no_warm_up(ns):
    in_epochs(ns, (EARLY, "n_warmup_steps=2", "n_warmup_steps=0"))


@fault("05", "check-pruning-saves-epochs", says="the best trial should be a complete one")
def a_pruned_trial_is_the_best(ns):
    ns["early"] = SimpleNamespace(best_trial=SimpleNamespace(state=TrialState.PRUNED))


NATIVE = "native_runs = mlflow.search_runs("


@fault("05", "claim-native-tuning", says="should be one run")
def the_storage_loses_a_trial(ns):
    with without_run(ns, ns["native_runs"].run_id[2]):
        rerun(ns, NATIVE)
        yield


@fault("05", "claim-native-tuning", says="has another trial's choice")
def the_storage_swaps_the_choices_of_two_trials(ns):
    columns = ns["choices"]
    ns["native_runs"].loc[[1, 2], columns] = ns["native_runs"].loc[[2, 1], columns].to_numpy()


@fault("05", "claim-native-tuning", says="has another score")
def the_storage_swaps_the_scores_of_two_trials(ns):
    values = ns["native_runs"]["metrics.value"]
    ns["native_runs"].loc[[1, 2], "metrics.value"] = values[[2, 1]].to_numpy()


@fault("05", "claim-native-tuning", says="should be those of the first study")
def the_first_study_has_another_seed(ns):
    ns["first_study"] = copied(
        ns["first_study"], lambda trial: with_state(trial, trial.state, value=trial.value + 1)
    )


@fault("05", "claim-native-tuning", says="now ends the study's run")
def the_storage_ends_the_run(ns):
    with with_status(ns, ns["native_runs"].run_id[0], "FINISHED"):
        rerun(ns, NATIVE)
        yield


@fault("05", "claim-native-tuning", says="now writes the best score")
def the_storage_writes_the_result(ns):
    ns["native_runs"].loc[0, "metrics.value"] = ns["native_runs"]["metrics.value"].max()


LEFT = "_, runs_then = records("


def looks_again(ns, change):
    """Look again at what a kill left, with a changed copy of the study."""
    copy, original, records = copied(ns["killed"], change), ns["killed"], ns["records"]
    with (
        mock.patch.object(optuna, "load_study", return_value=copy),
        mock.patch(
            "lifecycle.training.sweep.records", lambda study, experiment: records(original, experiment)
        ),
    ):
        rerun(ns, LEFT)


def closed(trial):
    """The trial as a dying process would have to close it."""
    return with_state(trial, TrialState.FAIL) if trial.state == TrialState.RUNNING else trial


def with_state(trial, state, **changes):
    """The trial in another state."""
    values = {"params": trial.params, "distributions": trial.distributions, "user_attrs": trial.user_attrs}
    return optuna.trial.create_trial(state=state, **{**values, **changes})


@fault("05", "check-killed-inside-a-trial", says="in the fifth trial")
def the_kill_comes_before_the_trial_is_stored(ns):
    looks_again(ns, lambda trial: trial if trial.number < 4 else None)


@fault("05", "check-killed-inside-a-trial", says="open in Optuna, not 1")
def the_dying_process_closes_its_trial(ns):
    looks_again(ns, closed)


@fault("05", "check-killed-inside-a-trial", says="open in MLflow, not 1")
def the_dying_process_closes_its_run(ns):
    with with_status(ns, ns["open_runs"].run_id.iloc[0], "KILLED"):
        rerun(ns, LEFT)
        yield


@fault("05", "check-killed-inside-a-trial", says="should know its run")
def the_trial_stores_the_id_of_another_run(ns):
    def change(trial):
        if trial.state != TrialState.RUNNING:
            return trial
        return with_state(trial, trial.state, user_attrs={"mlflow_run_id": "another"})

    looks_again(ns, change)


RESUMED, SETTLED = "resumed = pd.DataFrame(", "study_run, trial_runs = records("


@fault("05", "claim-sweep-survives-kill", says="not FAIL")
def the_open_trial_is_not_settled(ns):
    number = ns["open_trials"][0].number
    records, killed = ns["records"], ns["killed"]
    ns["records"] = lambda study, experiment: records(killed, experiment)
    ns["killed"] = copied(
        killed, lambda trial: with_state(trial, TrialState.RUNNING) if trial.number == number else trial
    )
    rerun(ns, SETTLED)


@fault("05", "claim-sweep-survives-kill", says="not KILLED")
def the_open_run_is_not_settled(ns):
    with with_status(ns, ns["open_runs"].run_id.iloc[0], "RUNNING"):
        rerun(ns, SETTLED)
        yield


@fault("05", "claim-sweep-survives-kill", says="the study's run was left open")
def the_study_is_left_open(ns):
    with with_status(ns, ns["study_run"].run_id, "RUNNING"):
        rerun(ns, SETTLED)
        yield


@fault("05", "claim-sweep-survives-kill", says="0 interruptions, not 1")
def the_interruption_is_not_counted(ns):
    run_id = ns["study_run"].run_id
    ns["client"].set_tag(run_id, "interruptions", "0")
    rerun(ns, SETTLED)
    yield
    ns["client"].set_tag(run_id, "interruptions", "1")


@fault("05", "claim-sweep-survives-kill", says="tried other choices than the undisturbed one")
def the_seed_does_not_grow_with_the_complete_trials(ns):
    ns["score"] = lambda C, degree, weights: C
    sampler, seed = optuna.samplers.TPESampler, ns["workspace"].seed
    with mock.patch.object(optuna.samplers, "TPESampler", lambda **_: sampler(seed=seed)):
        ns["sweep"](name="planted", score=ns["score_choice"], **ns["task"] | {"total": 3})
    ns["killed"] = optuna.load_study(study_name="planted", storage=ns["storage"])
    rerun(ns, RESUMED)
    yield
    optuna.delete_study(study_name="planted", storage=ns["storage"])


@fault("05", "claim-sweep-survives-kill", says="scored a choice differently")
def the_worker_scores_other_rows(ns):
    score = ns["score"]
    ns["X"], ns["y"] = ns["X"].iloc[:-500], ns["y"].iloc[:-500]

    def change(trial):
        return with_state(trial, trial.state, value=score(**trial.params)) if trial.number == 2 else trial

    ns["killed"] = copied(ns["killed"], change)
    rerun(ns, RESUMED)


@fault("05", "claim-sweep-survives-kill", says="are complete, not 12")
def both_sweeps_lose_the_last_trial(ns):
    last = ns["killed"].trials[-1].number
    ns["killed"] = copied(ns["killed"], lambda trial: trial if trial.number < last else None)
    rerun(ns, RESUMED, change=("complete(undisturbed)", "complete(undisturbed)[:-1]"))


@fault("05", "claim-sweep-survives-kill", says="has another score")
def two_runs_have_swapped_scores(ns):
    complete, runs = ns["complete"](ns["killed"]), ns["trial_runs"]
    two = [trial.user_attrs["mlflow_run_id"] for trial in complete[:2]]
    runs.loc[two, "metrics.auc"] = runs.loc[two[::-1], "metrics.auc"].to_numpy()

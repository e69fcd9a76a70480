"""What the checks of notebook 06 must notice."""

import copy
import dataclasses
from types import SimpleNamespace

from faults import fault


def _closed_as(status, run):
    return SimpleNamespace(info=SimpleNamespace(status=status, run_id=run.info.run_id))


@fault("06", "claim-pipeline-reproducible", says="different bytes")
def the_compiled_file_holds_the_time(ns):
    ns["second"] = ns["first"] + b"# compiled at noon"


@fault("06", "claim-pipeline-reproducible", says="names a folder of this machine")
def the_compiled_file_holds_a_path(ns):
    ns["first"] = ns["second"] = f"{ns['workspace'].home}/data".encode()


@fault("06", "claim-pipeline-reproducible", says="should run in one image")
def a_step_has_an_image_of_its_own(ns):
    ns["images"].add("python:3.10-slim")


@fault("06", "claim-orchestrate", says="training must wait")
def training_does_not_wait_for_validation(ns):
    ns["edges"].remove(("validate-features", "train-model"))


@fault("06", "claim-orchestrate", says="compare with the threshold")
def the_gate_is_always_open(ns):
    ns["tasks"][ns["gate"]]["triggerPolicy"]["condition"] = "true"


@fault("06", "claim-orchestrate", says="compare behind the gate")
def nobody_compares(ns):
    ns["behind_gate"] = {ns["second_gate"]: ns["behind_gate"][ns["second_gate"]]}


@fault("06", "claim-orchestrate", says="ask what the comparison said")
def the_second_gate_is_always_open(ns):
    ns["behind_gate"][ns["second_gate"]]["triggerPolicy"]["condition"] = "true"


@fault("06", "claim-orchestrate", says="register behind both gates")
def register_stands_before_the_second_gate(ns):
    ns["behind_second"] = {}


@fault("06", "claim-one-parent-run", says="the steps are")
def a_step_nests_under_another_run(ns):
    ns["steps"] = ns["steps"].drop("validate")


@fault("06", "claim-one-parent-run", says="should be finished")
def a_child_run_stays_open(ns):
    ns["steps"].loc["train", "status"] = "RUNNING"


@fault("06", "claim-one-parent-run", says="should have got the tuned C")
def the_pipeline_ignores_c(ns):
    ns["steps"].loc["train", "params.C"] = "1.0"


@fault("06", "claim-pipeline-registers", says="an open gate registers one version")
def the_open_gate_registers_nothing(ns):
    ns["mine"] = []


@fault("06", "claim-pipeline-registers", says="another feature contract")
def the_contract_has_its_columns_swapped(ns):
    ns["contracts"] = [dataclasses.replace(ns["contract"], feature_refs=ns["contract"].feature_refs[::-1])]


@fault("06", "claim-pipeline-score", says="on rows that it has not seen")
def the_evaluation_reads_the_training_rows(ns):
    rows = ns["selection"]
    scores = ns["theirs"].predict_proba(rows[ns["contract"].columns])[:, 1]
    ns["reported"] = ns["roc_auc_score"](rows.label, scores)


@fault("06", "claim-pipeline-score", says="other rows than the selection days")
def the_pipeline_trains_on_all_rows(ns):
    ns["pair"]["rows trained on"][1] += len(ns["held_out"])


@fault("06", "claim-pipeline-score", says="did not reach the model")
def the_model_has_the_default_c(ns):
    ns["pair"]["C"][1] = 1.0


@fault("06", "claim-pipeline-score", says="scores the held-out rows differently")
def the_model_file_holds_another_model(ns):
    ns["scores_theirs"] = ns["scores_theirs"] + 1e-9


@fault("06", "claim-gate", says="should leave register out")
def the_gate_does_not_close(ns):
    ns["steps_again"] = ns["pd"].concat(
        [ns["steps_again"], ns["steps_again"].tail(1).rename({"evaluate": "register"})]
    )


@fault("06", "claim-gate", says="registered a model")
def a_closed_gate_registers(ns):
    ns["of_again"] = ["version 4"]


@fault("06", "claim-equal-second-run", says="gave another model")
def the_second_model_differs(ns):
    other = copy.deepcopy(ns["theirs_again"])
    other[-1].coef_ = other[-1].coef_ + 1e-9
    ns["theirs_again"] = other


@fault("06", "claim-equal-second-run", says="AUC differs")
def the_second_run_reports_another_auc(ns):
    ns["steps_again"].loc["evaluate", "metrics.auc"] += 0.001


@fault("06", "claim-gate", says="no failure")
def a_closed_gate_fails_the_run(ns):
    ns["parent_again"] = _closed_as("FAILED", ns["parent_again"])


@fault("06", "claim-broken-data-stops", says="validation must stop the run")
def the_validation_step_never_raises(ns):
    ns["steps_broken"].loc["validate", "status"] = "FINISHED"


@fault("06", "claim-broken-data-stops", says="close a broken run as failed")
def the_exit_handler_closes_every_run_as_finished(ns):
    ns["parent_broken"] = _closed_as("FINISHED", ns["parent_broken"])


@fault("06", "claim-broken-data-stops", says="should name the broken rule")
def the_log_does_not_say_why(ns):
    ns["reason"] = ["step failed", "exit code 1"]


@fault("06", "claim-retry", says="two attempts")
def the_retry_is_ignored(ns):
    ns["attempts"].pop()


@fault("06", "claim-retry", says="should give its score")
def the_retried_step_gives_another_score(ns):
    ns["answer"] = None


@fault("06", "claim-parallel-steps", says="the pipeline found")
def the_collected_scores_lose_the_best(ns):
    ns["best_scores"][0] = min(ns["alone"].values())


@fault("06", "claim-parallel-steps", says="no two steps ran at the same time")
def the_steps_run_one_after_the_other(ns):
    ns["overlapping"] = 0


@fault("06", "claim-local-cache", says="from the cache")
def the_cache_is_off(ns):
    ns["executed"][1] = 2 * ns["executed"][0]


@fault("06", "claim-local-cache", says="gave another result")
def the_cache_answers_for_other_arguments(ns):
    ns["best_scores"][1] -= 0.01


@fault("06", "claim-portable-pipeline", says="has no platform part")
def a_step_has_no_platform_part(ns):
    ns["needs"].pop("exec-train-model")


@fault("06", "claim-portable-pipeline", says="a step lacks one")
def a_step_has_no_secret(ns):
    ns["needs"]["exec-train-model"].pop("secretAsEnv")


@fault("06", "claim-portable-pipeline", says="same limit of memory")
def a_step_has_no_limit(ns):
    ns["limits"].add(None)

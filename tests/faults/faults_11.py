"""What the checks of notebook 11 must notice."""

import dataclasses

from faults import fault


@fault("11", "claim-flyte-local-cache", says="should execute each step")
def the_cache_was_not_empty(ns):
    ns["flyte_first"] = ["register"]


@fault("11", "claim-flyte-local-cache", says="key should be its address")
def a_frame_is_known_by_its_content_without_being_told(ns):
    ns["flyte_second"] = ["register"]


@fault("11", "claim-flyte-local-cache", says="the retrieval should be kept")
def the_retrieval_runs_for_another_workflow_again(ns):
    ns["content_first"] = ns["STEPS"]


@fault("11", "claim-flyte-local-cache", says="the same content should be kept")
def the_content_counts_for_nothing(ns):
    ns["content_second"] = ["train", "register"]


@fault("11", "claim-two-orchestrators", says="should execute each step")
def kubeflow_leaves_training_out(ns):
    ns["kubeflow_first"] = ["retrieve", "register"]


@fault("11", "claim-two-orchestrators", says="the second should only register")
def kubeflow_caches_nothing(ns):
    ns["kubeflow_second"] = ns["STEPS"]


@fault("11", "claim-two-orchestrators", says="different feature contracts")
def one_contract_has_its_columns_swapped(ns):
    given = ns["flyte_contract"]
    ns["flyte_contract"] = dataclasses.replace(given, feature_refs=given.feature_refs[::-1])


@fault("11", "claim-two-orchestrators", says="registered different models")
def one_model_is_another_by_a_little(ns):
    ns["coefficients"]["Flyte"] = ns["coefficients"]["Flyte"] + 1e-9


@fault("11", "claim-step-overhead", says="should count to 5")
def a_step_is_left_out(ns):
    ns["kubeflow_five"] = 4


@fault("11", "claim-step-overhead", says="a step in Flyte took")
def flyte_starts_a_process_for_each_step(ns):
    ns["flyte_seconds"] = ns["kubeflow_seconds"]


@fault("11", "claim-step-overhead", says="should run in this process")
def flyte_runs_elsewhere(ns):
    ns["in_flyte"] = ns["in_kubeflow"]


@fault("11", "claim-step-overhead", says="a process of its own")
def kubeflow_runs_in_the_notebook(ns):
    ns["in_kubeflow"] = ns["this"]


@fault("11", "claim-side-by-side", says="gather should start all three")
def gather_awaits_one_by_one(ns):
    ns["together"]["Flyte, asyncio.gather"] = 1


@fault("11", "claim-side-by-side", says="siblings should queue")
def independent_steps_overlap(ns):
    ns["together"]["Kubeflow, independent steps"] = 3


@fault("11", "claim-side-by-side", says="the loop should overlap")
def the_loop_is_a_queue(ns):
    ns["together"]["Kubeflow, ParallelFor"] = 1


@fault("11", "claim-both-retry", says="both should answer 7")
def one_answers_something_else(ns):
    ns["answers"]["Kubeflow Pipelines"] = 0


@fault("11", "claim-both-retry", says="are three attempts")
def the_warehouse_answered_at_once(ns):
    ns["attempts"]["Flyte"] = 1


@fault("11", "claim-type-refused", says="Flyte should name the value")
def flyte_takes_the_text(ns):
    ns["flyte_refusal"] = "nothing was refused"


@fault("11", "claim-type-refused", says="Kubeflow should name the type")
def kubeflow_takes_the_text(ns):
    ns["kubeflow_refusal"] = "nothing was refused"


@fault("11", "claim-type-refused", says="'Kubeflow Pipelines': True")
def kubeflow_refuses_only_when_it_runs(ns):
    ns["ran_before"]["Kubeflow Pipelines"] = True


@fault("11", "claim-failure-seen", says="Flyte hides the error")
def flyte_says_only_that_it_failed(ns):
    ns["failures"]["Flyte"] = "the task failed"


@fault("11", "claim-failure-seen", says="no step is named")
def kubeflow_does_not_name_the_step(ns):
    ns["failures"]["Kubeflow Pipelines"] = "the pipeline failed"


@fault("11", "claim-failure-seen", says="holds the reason now")
def kubeflows_exception_holds_the_reason(ns):
    ns["failures"]["Kubeflow Pipelines"] += " negative trips"


@fault("11", "claim-failure-seen", says="should stand in the runner's log")
def the_log_is_empty(ns):
    ns["log"] = ns["folder"] / "another.log"
    ns["log"].touch()


@fault("11", "claim-failure-seen", says="should go on with -1")
def the_workflow_stops_all_the_same(ns):
    ns["default"] = 0

"""What the checks of notebook 11 must notice. Where it is quick, the tools run again with faulty code."""

import dataclasses
import random

import numpy as np
from faults import fault


def workflow_with(ns, table_type, recipe):
    """The notebook's workflow with another type of the table that trains, or another recipe."""
    import flyte
    from flyte.io import File

    from lifecycle.features.contract import FeatureContract

    # Flyte names folders by Python's random numbers, and a fault begins with the state of the one before.
    random.seed()
    environment = flyte.TaskEnvironment(name="fault")
    path = ns["folder"] / "of a fault.skops"
    retrieve, register = ns["retrieve"], ns["register"]

    @environment.task(cache=ns["cache"])
    async def train(table: table_type, contract: FeatureContract) -> File:
        rows, _ = ns["split"](table)
        with ns["mlflow"].start_run(run_name="train"):
            ns["save"](recipe.new_estimator().fit(rows[contract.columns], rows[contract.label]), path)
        return await File.from_local(path)

    @environment.task
    async def workflow(feature_repo: str, labels: str, contract: FeatureContract) -> int:
        table = await retrieve(feature_repo, labels, contract)
        return await register(await train(table, contract), table, contract)

    return workflow


@fault("11", "claim-flyte-local-cache", says="should execute each step")
def the_cache_is_not_empty(ns):
    _, ns["flyte_first"] = ns["run_in_flyte"]()


@fault("11", "claim-flyte-local-cache", says="should only register")
def the_key_of_the_table_is_its_address(ns):
    ns["workflow"] = workflow_with(ns, ns["pd"].DataFrame, ns["recipe"])
    ns["run_in_flyte"]()
    _, ns["flyte_second"] = ns["run_in_flyte"]()


@fault("11", "claim-two-orchestrators", says="should execute each step")
def the_cache_of_kubeflow_is_not_empty(ns):
    _, ns["kubeflow_first"] = ns["run_in_kubeflow"]()


@fault("11", "claim-two-orchestrators", says="should only register")
def kubeflow_caches_nothing(ns):
    from kfp.local import config

    caching = config.LocalExecutionConfig.instance
    enabled, caching.enable_caching = caching.enable_caching, False
    _, ns["kubeflow_second"] = ns["run_in_kubeflow"]()
    yield
    caching.enable_caching = enabled


@fault("11", "claim-two-orchestrators", says="feature contracts differ")
def one_contract_has_its_columns_swapped(ns):
    contract = ns["contracts"]["Flyte"]
    ns["contracts"]["Flyte"] = dataclasses.replace(contract, feature_refs=contract.feature_refs[::-1])


@fault("11", "claim-two-orchestrators", says="registered different models")
def one_model_has_a_slightly_different_hyperparameter(ns):
    recipe = ns["Recipe"](hyperparameters={"C": 0.999})
    ns["workflow"] = workflow_with(ns, ns["Table"], recipe)
    version, _ = ns["run_in_flyte"]()
    model = ns["mlflow"].sklearn.load_model(f"models:/{ns['MODEL']}/{version}")
    ns["coefficients"]["Flyte"] = model["logisticregression"].coef_[0]


def overlap(notes):
    spans = np.loadtxt(notes)
    return bool(spans[:, 0].max() < spans[:, 1].min())


@fault("11", "claim-side-by-side", says="gather should start both")
def the_workflow_awaits_one_pause_after_the_other(ns):
    import flyte

    pause, notes = ns["pause"], str(ns["folder"] / "one by one.txt")

    @flyte.TaskEnvironment(name="fault").task
    async def two_pauses(notes: str) -> float:
        return await pause(0.2, notes) + await pause(0.2, notes)

    ns["runner"].run(two_pauses, notes=notes)
    ns["parallel"]["Flyte"] = overlap(notes)


@fault("11", "claim-side-by-side", says="should overlap")
def the_loop_runs_one_step_at_a_time(ns):
    dsl, pause_step, notes = ns["dsl"], ns["pause_step"], str(ns["folder"] / "in a queue.txt")

    @dsl.pipeline(name="in-a-queue")
    def queue(notes: str):
        with dsl.ParallelFor(items=[0.2, 0.3], parallelism=1) as seconds:
            pause_step(seconds=seconds, notes=notes)

    with ns["pipeline"].local_run(ns["log"]):
        queue(notes=notes)
    ns["parallel"]["Kubeflow Pipelines"] = overlap(notes)


@fault("11", "claim-step-overhead", says="should run in this process")
def flyte_runs_elsewhere(ns):
    ns["in_notebook"]["Flyte"] = False


@fault("11", "claim-step-overhead", says="a step ran in this process")
def kubeflow_runs_in_the_notebook(ns):
    ns["processes"]["Kubeflow Pipelines"] = ns["processes"]["Flyte"]


@fault("11", "claim-step-overhead", says="a process of its own")
def two_steps_share_a_process(ns):
    ns["processes"]["Kubeflow Pipelines"].pop()


@fault("11", "claim-step-overhead", says="a step in Flyte took")
def flyte_is_as_slow(ns):
    ns["flyte_seconds"] = ns["kubeflow_seconds"]


@fault("11", "claim-both-retry", says="both should answer 7")
def one_answers_something_else(ns):
    ns["answers"]["Kubeflow Pipelines"] = 0


@fault("11", "claim-both-retry", says="are three attempts")
def the_warehouse_answered_at_once(ns):
    ns["attempts"]["Flyte"] = 1


@fault("11", "claim-type-refused", says="Flyte should name the value")
def flyte_takes_the_text(ns):
    ns["flyte_error"] = ""


@fault("11", "claim-type-refused", says="first step should run before the error")
def flyte_rejects_the_type_before_it_starts(ns):
    ns["before_error"] = ns["folder"] / "another file.txt"


@fault("11", "claim-type-refused", says="Kubeflow should name the type")
def kubeflow_takes_the_text(ns):
    ns["kubeflow_error"] = ""


@fault("11", "claim-failure-seen", says="Flyte hides the error")
def flyte_says_only_that_it_failed(ns):
    ns["failures"]["Flyte"] = "the task failed"


@fault("11", "claim-failure-seen", says="no step is named")
def kubeflow_does_not_name_the_step(ns):
    ns["failures"]["Kubeflow Pipelines"] = "the pipeline failed"


@fault("11", "claim-failure-seen", says="contains the reason now")
def kubeflows_exception_contains_the_reason(ns):
    ns["failures"]["Kubeflow Pipelines"] += " the table has no column conv_rate"


@fault("11", "claim-failure-seen", says="should be in the runner's log")
def the_log_is_empty(ns):
    ns["log"] = ns["folder"] / "another.log"
    ns["log"].touch()


@fault("11", "claim-failure-seen", says="should go on with -1")
def the_workflow_stops_all_the_same(ns):
    ns["default"] = 7

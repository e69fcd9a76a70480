"""What the checks of notebook 11 must notice: the tools run again with faulty code."""

import dataclasses
import os
import random
from pathlib import Path

from faults import fault, rerun

TRAIN = ["recipe = Recipe", "async def workflow"]
PAUSES, QUERIES = "spans = {", "hiccups = {"
PAUSE_IN = {
    "Flyte": 'runner.run(two_pauses, notes=notes["Flyte"])\n',
    "Kubeflow Pipelines": (
        'with pipeline.local_run(log):\n    two_pause_steps(notes=notes["Kubeflow Pipelines"])\n'
    ),
}
QUERY_IN_KUBEFLOW = (
    "with pipeline.local_run(log):\n"
    '    run = query_pipeline(kind="hiccup", attempts=str(hiccups["Kubeflow Pipelines"]))\n'
)


def again(ns, *marks, change=("", "")):
    """``rerun`` with Flyte, which names folders by Python's random numbers: those of a fault begin anew."""
    random.seed()
    rerun(ns, *marks, change=change)


def noted(ns, path, text, *marks, leave_out=""):
    """Cells that append to a file: it begins with this text, and is as before once the check has run."""
    before = Path(path).read_text()
    Path(path).write_text(text)
    if marks:
        again(ns, *marks, change=(leave_out, ""))
    yield
    Path(path).write_text(before)


@fault("11", "claim-flyte-local-cache", says="should execute each step")
def the_cache_is_not_empty(ns):
    again(ns, "flyte_version, flyte_first = ")


@fault("11", "claim-flyte-local-cache", says="should only register")
def the_key_of_the_table_is_its_address(ns):
    ns["Table"] = ns["pd"].DataFrame
    again(ns, *TRAIN)
    ns["run_in_flyte"]()
    _, ns["flyte_second"] = ns["run_in_flyte"]()


@fault("11", "claim-two-orchestrators", says="should execute each step")
def the_cache_of_kubeflow_is_not_empty(ns):
    second = "_, kubeflow_second = run_in_kubeflow()\n"
    rerun(ns, "kubeflow_version, kubeflow_first = ", change=(second, ""))


@fault("11", "claim-two-orchestrators", says="should only register")
def kubeflow_caches_nothing(ns):
    from kfp.local import config

    caching = config.LocalExecutionConfig.instance
    enabled, caching.enable_caching = caching.enable_caching, False
    first = "kubeflow_version, kubeflow_first = run_in_kubeflow()\n"
    rerun(ns, "kubeflow_version, kubeflow_first = ", change=(first, ""))
    yield
    caching.enable_caching = enabled


def registered(ns, change=("", "")):
    """Another model from Flyte, compared with the one from Kubeflow."""
    ns["folder"] = ns["folder"] / "planted"  # the cache holds the path of the model's file
    ns["folder"].mkdir(exist_ok=True)
    again(ns, *TRAIN, change=change)
    ns["flyte_version"], _ = ns["run_in_flyte"]()
    rerun(ns, "coefficients, contracts = ")


@fault("11", "claim-two-orchestrators", says="feature contracts differ")
def one_contract_has_its_columns_swapped(ns):
    references = ns["contract"].feature_refs[::-1]
    ns["contract"] = dataclasses.replace(ns["contract"], feature_refs=references)
    registered(ns)


@fault("11", "claim-two-orchestrators", says="registered different models")
def one_model_has_a_slightly_different_hyperparameter(ns):
    registered(ns, ("recipe.new_estimator()", 'Recipe(hyperparameters={"C": 0.999}).new_estimator()'))


@fault("11", "claim-side-by-side", says="gather should start both")
def the_workflow_awaits_one_pause_after_the_other(ns):
    both = "await asyncio.gather(pause(2.0, notes), pause(2.1, notes))"
    rerun(ns, "async def pause", change=(both, "[await pause(0.2, notes), await pause(0.2, notes)]"))
    return noted(ns, ns["notes"]["Flyte"], "", PAUSES, leave_out=PAUSE_IN["Kubeflow Pipelines"])


@fault("11", "claim-side-by-side", says="should overlap")
def the_loop_runs_one_step_at_a_time(ns):
    both = "items=[2.0, 2.1], parallelism=2"
    rerun(ns, "def pause_step", change=(both, "items=[0.2, 0.3], parallelism=1"))
    return noted(ns, ns["notes"]["Kubeflow Pipelines"], "", PAUSES, leave_out=PAUSE_IN["Flyte"])


def processes(ns, tool, *numbers):
    """The notes as if a tool's steps had run in these processes."""
    text = "".join(f"0 1 {number}\n" for number in numbers)
    return noted(ns, ns["notes"][tool], text, PAUSES, leave_out="".join(PAUSE_IN.values()))


@fault("11", "claim-step-overhead", says="should run in this process")
def flyte_runs_elsewhere(ns):
    return processes(ns, "Flyte", 1, 1)


@fault("11", "claim-step-overhead", says="a step ran in this process")
def kubeflow_runs_in_the_notebook(ns):
    return processes(ns, "Kubeflow Pipelines", os.getpid(), os.getpid())


@fault("11", "claim-step-overhead", says="a process of its own")
def two_steps_share_a_process(ns):
    return processes(ns, "Kubeflow Pipelines", 1, 1)


@fault("11", "claim-step-overhead", says="a step in Flyte took")
def flyte_is_as_slow(ns):
    ns["notes"] = dict.fromkeys(ns["notes"], os.devnull)
    again(ns, "flyte_seconds = ", change=("runner.run(pause, seconds=0.0", "runner.run(pause, seconds=2.0"))


@fault("11", "claim-both-retry", says="both should answer 7")
def one_answers_something_else(ns):
    rerun(ns, "def warehouse", change=("return 7", "return 0"))
    return noted(ns, ns["hiccups"]["Flyte"], "", QUERIES, leave_out=QUERY_IN_KUBEFLOW)


@fault("11", "claim-both-retry", says="are three attempts")
def the_warehouse_answers_at_once(ns):
    rerun(ns, "def warehouse", change=("< 3", "< 1"))
    return noted(ns, ns["hiccups"]["Flyte"], "", QUERIES, leave_out=QUERY_IN_KUBEFLOW)


@fault("11", "claim-type-refused", says="Flyte should name the value")
def flyte_takes_the_text(ns):
    again(ns, "async def pause", "before_error = ", change=("seconds: float", "seconds: float | str"))


@fault("11", "claim-type-refused", says="first step should run before the error")
def flyte_rejects_the_type_before_it_starts(ns):
    ns["before_error"].unlink()
    again(ns, "before_error = ", change=("    await pause(0.1, notes)\n", ""))
    yield
    ns["before_error"].touch()


@fault("11", "claim-type-refused", says="Kubeflow should name the type")
def kubeflow_takes_the_text(ns):
    rerun(ns, "kubeflow_error = ", change=('"three"', "True"))


@fault("11", "claim-failure-seen", says="Flyte hides the error")
def flyte_says_only_that_it_failed(ns):
    reason = "the table has no column conv_rate"
    again(ns, "def warehouse", "failures = {}", change=(reason, "the task failed"))


@fault("11", "claim-failure-seen", says="no step is named")
def kubeflow_does_not_name_the_step(ns):
    again(ns, "def query_step", "failures = {}", change=("query_step", "a_step"))


@fault("11", "claim-failure-seen", says="contains the reason now")
def kubeflows_exception_contains_the_reason(ns):
    again(ns, "failures = {}", change=("str(error))", "str(error) + log.read_text())"))


@fault("11", "claim-failure-seen", says="should be in the runner's log")
def the_log_is_empty(ns):
    return noted(ns, ns["log"], "")


@fault("11", "claim-failure-seen", says="should go on with -1")
def the_workflow_stops_all_the_same(ns):
    again(ns, "default = ", change=('query("broken", attempts)', 'query("hiccup", attempts)'))

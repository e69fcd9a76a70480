"""The sweep of notebook 05 is killed, again and again. Afterwards each finished trial is there once, in Optuna and in MLflow."""

import math
import os
import random
import signal
import sys
import time

import cloudpickle
import mlflow
import optuna
import pytest
from conftest import HARD_TO_QUOTE
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from helpers.worker import in_a_process
from helpers.workspace import configure, create_home
from lifecycle.sweep import StoresDisagree, complete, open_study, records, sweep

TOTAL = 13  # ten at random, then the sampler learns
SPACE = {
    "C": FloatDistribution(1e-4, 10.0, log=True),
    "degree": IntDistribution(1, 3),
    "weights": CategoricalDistribution(["equal", "balanced"]),
}
DEFAULT = {"C": 1.0, "degree": 1, "weights": "equal"}

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # the worker cannot import this file


def score(parameters):
    time.sleep(0.05)
    return 0.7 - 0.01 * (math.log10(parameters["C"]) + 1.5) ** 2 - 0.02 * abs(parameters["degree"] - 2)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A workspace whose MLflow database has its tables: making them takes longer than a sweep."""
    workspace = create_home(tmp_path_factory.mktemp("a sweep") / HARD_TO_QUOTE)
    mlflow.MlflowClient(workspace.tracking_uri).create_experiment("sweep")
    return workspace


@pytest.fixture(autouse=True)
def here(place):
    configure(place)


def task(place, name):
    storage = f"sqlite:///{(place.path / 'optuna.db').as_posix()}"
    return {"storage": storage, "experiment": "sweep", "name": name, "space": SPACE, "score": score} | {
        "total": TOTAL,
        "first": DEFAULT,
        "seed": 7,
    }


def run(place, function, **arguments):
    """In a process of its own, to its end."""
    log = place.path / "logs" / "worker.log"
    assert in_a_process(log, function, **arguments).wait(300) == 0, log.read_text()


@pytest.fixture(scope="module")
def undisturbed(place):
    """What a sweep that nobody kills proposes and finds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place.path)
        patch.setenv("MLFLOW_TRACKING_URI", place.tracking_uri)
        run(place, sweep, **task(place, "undisturbed"))
    return [
        (trial.params, trial.value)
        for trial in complete(open_study(task(place, "")["storage"], "undisturbed"))
    ]


def runs(place, filter_string):
    client = mlflow.MlflowClient(place.tracking_uri)
    return client.search_runs([client.get_experiment_by_name("sweep").experiment_id], filter_string)


def assert_each_trial_is_there_once(place, name, undisturbed, kills, left="KILLED"):
    study = open_study(task(place, name)["storage"], name)
    done = complete(study)
    assert len(done) == TOTAL == len({str(trial.params) for trial in done})
    assert {trial.state for trial in study.trials} <= {TrialState.COMPLETE, TrialState.FAIL}
    (parent,) = runs(place, f"tags.`optuna.study` = '{name}'")
    assert (parent.info.status, parent.data.tags["interruptions"]) == ("FINISHED", str(kills))
    children = runs(place, f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'")
    finished = {child.info.run_id: child for child in children if child.info.status == "FINISHED"}
    assert {trial.user_attrs["mlflow_run_id"] for trial in done} == set(finished) and len(finished) == TOTAL
    for trial in done:
        run = finished[trial.user_attrs["mlflow_run_id"]].data
        assert run.metrics["auc"] == trial.value
        assert run.params == {choice: str(value) for choice, value in trial.params.items()}
    assert {child.info.status for child in children} <= {"FINISHED", left}
    assert len(children) <= TOTAL + kills
    assert [(trial.params, trial.value) for trial in done] == undisturbed, (
        "a kill changed what was tried or found"
    )


def test_an_undisturbed_sweep_starts_with_the_default_and_repeats_nothing(place, undisturbed):
    assert undisturbed[0][0] == DEFAULT
    assert_each_trial_is_there_once(place, "undisturbed", undisturbed, kills=0)


def test_a_sweep_killed_twice_at_random_moments_ends_like_one_that_nobody_killed(place, undisturbed):
    chance = random.Random()
    arguments = task(place, "killed at random")
    study = open_study(arguments["storage"], arguments["name"])
    for least in (chance.randint(1, 4), chance.randint(6, 8)):
        worker = in_a_process(place.path / "logs" / "killed.log", sweep, **arguments)
        while worker.poll() is None and len(complete(study)) < least:
            time.sleep(0.01)
        time.sleep(chance.uniform(0, 0.15))  # about the length of a trial
        worker.kill()
        assert worker.wait() == -signal.SIGKILL, "it ended before it was killed"
        assert least <= len(complete(study)) < TOTAL
    run(place, sweep, **arguments)
    assert_each_trial_is_there_once(place, arguments["name"], undisturbed, kills=2)


# The call at which the process dies: whose, its name, the how-manyth, and whether it is still made.
MOMENTS = {
    "the study's run exists, and nothing else": (mlflow, "start_run", 1, "after"),
    "the first trial, which was queued, is drawn": (optuna.Study, "ask", 1, "after"),
    "a trial has half of its choices": (optuna.trial.Trial, "_suggest", 5, "before"),
    "a trial's run exists, and the trial does not know it": (mlflow, "start_run", 4, "after"),
    "the run has no parameters yet": (mlflow, "log_params", 2, "before"),
    "the score is logged, the run is open": (mlflow, "log_metric", 2, "after"),
    "the run is finished, Optuna is not told": (optuna.Study, "tell", 2, "before"),
    "once more, right after the start settled the last one": (optuna.Study, "tell", 1, "after"),
    "Optuna is told, the next trial not begun": (optuna.Study, "tell", 3, "after"),
    "all trials are done, the study's run is open": (mlflow, "set_tags", 1, "before"),
}


def die_at_each(moments, **arguments):
    """In the worker: one forked process per moment, which kills itself then."""
    for what, (owner, name, count, when) in moments.items():
        child = os.fork()
        if child == 0:
            call, calls = getattr(owner, name), []

            def deadly(*given, call=call, calls=calls, count=count, when=when, **options):
                calls.append(1)
                if len(calls) == count and when == "before":
                    os.kill(os.getpid(), signal.SIGKILL)
                result = call(*given, **options)
                if len(calls) == count:
                    os.kill(os.getpid(), signal.SIGKILL)
                return result

            setattr(owner, name, deadly)
            sweep(**arguments)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status), f"it lived on: {what}"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_sweep_killed_at_every_step_of_a_trial_ends_like_one_that_nobody_killed(place, undisturbed):
    arguments = task(place, "killed at every step")
    run(place, die_at_each, moments=MOMENTS, **arguments)
    run(place, sweep, **arguments)
    assert_each_trial_is_there_once(place, arguments["name"], undisturbed, kills=len(MOMENTS))


def test_a_finished_run_that_optuna_does_not_know_is_told_and_not_repeated(place, undisturbed):
    arguments = task(place, "told late")
    moment = {"the run is finished": MOMENTS["the run is finished, Optuna is not told"]}
    run(place, die_at_each, moments=moment, **arguments)
    study = open_study(arguments["storage"], arguments["name"])
    (late,) = study.get_trials(states=(TrialState.RUNNING,))
    run(place, sweep, **arguments)
    assert study.trials[late.number].state == TrialState.COMPLETE and len(study.trials) == TOTAL
    assert_each_trial_is_there_once(place, arguments["name"], undisturbed, kills=1)


def interrupted(**arguments):
    """In the worker: Ctrl-C in the middle of the third trial, which Python can catch, unlike a kill."""
    calls = []

    def pressed(parameters):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return score(parameters)

    try:
        sweep(**{**arguments, "score": pressed})
    except KeyboardInterrupt:
        return
    raise AssertionError("nobody pressed Ctrl-C")


def test_a_sweep_that_was_interrupted_by_ctrl_c_ends_like_one_that_nobody_touched(place, undisturbed):
    arguments = task(place, "interrupted")
    run(place, interrupted, **arguments)
    assert len(complete(open_study(arguments["storage"], arguments["name"]))) == 2
    run(place, sweep, **arguments)
    assert_each_trial_is_there_once(place, arguments["name"], undisturbed, kills=1, left="FAILED")


def test_a_worker_ends_when_its_owner_does(place):
    arguments = task(place, "without an owner")
    worker = in_a_process(place.path / "logs" / "owner.log", sweep, **arguments)
    study = open_study(arguments["storage"], arguments["name"])
    while worker.poll() is None and not complete(study):
        time.sleep(0.01)
    worker.stdin.close()  # what the end of the owner does
    assert worker.wait(20) == 1
    assert len(complete(study)) < TOTAL


def test_a_finished_sweep_is_left_as_it_is(place, undisturbed):
    before = len(runs(place, ""))
    run(place, sweep, **task(place, "undisturbed"))
    assert len(runs(place, "")) == before
    assert_each_trial_is_there_once(place, "undisturbed", undisturbed, kills=0)


def recorded(place, name):
    """The parent's run and the runs of the trials, as a notebook reads them."""
    configure(place)
    return records(open_study(task(place, name)["storage"], name), "sweep")


def test_a_sweep_whose_runs_were_lost_with_mlflows_store_says_so_and_changes_nothing(place):
    arguments = {**task(place, "its runs are lost"), "total": 2}
    sweep(**arguments)
    before = len(runs(place, ""))
    lost = {**arguments, "experiment": "an empty store"}
    with pytest.raises(
        StoresDisagree, match="has 2 trials, and MLflow's experiment 'an empty store' has no run of it"
    ):
        sweep(**lost)
    assert len(runs(place, "")) == before
    client = mlflow.MlflowClient(place.tracking_uri)
    assert client.search_runs([client.get_experiment_by_name("an empty store").experiment_id]) == []


def test_a_sweep_whose_trials_were_lost_with_optunas_database_begins_a_new_run(place):
    arguments = {**task(place, "its trials are lost"), "total": 2}
    sweep(**arguments)
    optuna.delete_study(study_name=arguments["name"], storage=arguments["storage"])
    sweep(**arguments)
    parent, children = recorded(place, arguments["name"])
    assert len(runs(place, f"tags.`optuna.study` = '{arguments['name']}'")) == 2, (
        "the old study's run stays as it was"
    )
    assert parent.status == "FINISHED" and len(children) == 2


def test_the_record_of_a_study_that_nobody_has_started_is_refused(place):
    with pytest.raises(StoresDisagree, match="MLflow has no run of the study 'never started'"):
        recorded(place, "never started")

"""The sweep of notebook 05 is killed. After it has resumed, Optuna and MLflow hold each trial once."""

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
from mlflow.tracking import fluent
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from conftest import HARD_TO_QUOTE
from helpers.worker import in_a_process
from helpers.workspace import configure, create_home
from lifecycle.training.sweep import StoresDisagree, SweepChanged, complete, open_study, records, sweep

pytestmark = pytest.mark.unit
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
def here(place, monkeypatch):
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "")
    monkeypatch.setattr(fluent, "_active_experiment_id", None)
    configure(place)


def task(place, name):
    storage = f"sqlite:///{(place.path / 'optuna.db').as_posix()}"
    task = {"storage": storage, "experiment": "sweep", "name": name, "space": SPACE}
    return task | {"score": score, "total": TOTAL, "first": DEFAULT, "seed": 7}


def run(place, function, **arguments):
    """In a process of its own, to its end."""
    log = place.path / "logs" / "worker.log"
    assert in_a_process(log, function, **arguments).wait(900) == 0, log.read_text()


@pytest.fixture(scope="module")
def undisturbed(place):
    """What a sweep that nobody kills proposes and finds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place.path)
        patch.setenv("MLFLOW_TRACKING_URI", place.tracking_uri)
        patch.setenv("MLFLOW_EXPERIMENT_ID", "")
        patch.setattr(fluent, "_active_experiment_id", None)
        sweep(**task(place, "undisturbed"))
    study = open_study(task(place, "")["storage"], "undisturbed")
    return [(trial.params, trial.value) for trial in complete(study)]


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
    assert [(trial.params, trial.value) for trial in done] == undisturbed, "a kill changed what was tried"


def test_an_undisturbed_sweep_starts_with_the_default_repeats_nothing_and_ends(place, undisturbed):
    assert undisturbed[0][0] == DEFAULT
    before = len(runs(place, ""))
    sweep(**task(place, "undisturbed"))
    assert len(runs(place, "")) == before, "a finished sweep is left as it is"
    assert_each_trial_is_there_once(place, "undisturbed", undisturbed, kills=0)


def test_a_sweep_killed_twice_at_random_moments_ends_like_one_that_nobody_killed(place, undisturbed):
    seed = random.randrange(10**6)
    print(f"the moments of the kills: random.Random({seed})")
    chance = random.Random(seed)
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
    sweep(**arguments)
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
    sweep(**arguments)
    assert_each_trial_is_there_once(place, arguments["name"], undisturbed, kills=len(MOMENTS))


def test_a_sweep_that_ctrl_c_interrupts_ends_like_one_that_nobody_touched(place, undisturbed):
    arguments, calls = task(place, "interrupted"), []

    def pressed(parameters):
        calls.append(parameters)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return score(parameters)

    with pytest.raises(KeyboardInterrupt):
        sweep(**arguments | {"score": pressed})
    assert len(complete(open_study(arguments["storage"], arguments["name"]))) == 2
    sweep(**arguments)
    assert_each_trial_is_there_once(place, arguments["name"], undisturbed, kills=1, left="FAILED")


def test_a_worker_ends_when_its_owner_does(place):
    arguments = task(place, "without an owner")
    worker = in_a_process(place.path / "logs" / "owner.log", sweep, **arguments)
    study = open_study(arguments["storage"], arguments["name"])
    while worker.poll() is None and not complete(study):
        time.sleep(0.01)
    worker.stdin.close()  # what the end of the owner does
    assert worker.wait(60) == 1
    assert len(complete(study)) < TOTAL


def test_a_score_that_is_no_number_ends_the_sweep_which_resumes_with_one_that_is(place):
    arguments, scores = {**task(place, "nan"), "total": 3}, [0.7, math.nan, 0.8, 0.8]
    with pytest.raises(ValueError, match=r"the score of .* is nan: a trial needs a number"):
        sweep(**arguments | {"score": lambda _: scores.pop(0)})
    sweep(**arguments | {"score": lambda _: scores.pop(0)})
    done = complete(open_study(arguments["storage"], "nan"))
    assert [trial.value for trial in done] == [0.7, 0.8, 0.8]


def test_a_sweep_whose_mlflow_runs_were_lost_says_so_and_changes_nothing(place):
    arguments = {**task(place, "its runs are lost"), "total": 2}
    sweep(**arguments)
    before = len(runs(place, ""))
    says = "has 2 trials, and MLflow's experiment 'an empty store' has no run of it"
    with pytest.raises(StoresDisagree, match=says):
        sweep(**arguments | {"experiment": "an empty store"})
    assert len(runs(place, "")) == before
    assert mlflow.search_runs(experiment_names=["an empty store"], output_format="list") == []


def test_a_sweep_whose_optuna_trials_were_lost_begins_a_new_run(place):
    arguments = {**task(place, "its trials are lost"), "total": 2}
    sweep(**arguments)
    optuna.delete_study(study_name=arguments["name"], storage=arguments["storage"])
    with pytest.raises(StoresDisagree, match="MLflow has no run of the study 'its trials are lost'"):
        records(open_study(arguments["storage"], arguments["name"]), "sweep")
    sweep(**arguments)
    parent, children = records(open_study(arguments["storage"], arguments["name"]), "sweep")
    assert len(runs(place, f"tags.`optuna.study` = '{arguments['name']}'")) == 2, "the old run stays"
    assert parent.status == "FINISHED" and len(children) == 2


@pytest.mark.parametrize(
    "change, says",
    [
        ({"first": {"c": 1.0}}, "`first` names c, and the search space has C, degree, weights"),
        ({"first": {"C": 99.0}}, "`first` is not in the search space"),
        (
            {"space": SPACE | {"weights": CategoricalDistribution(["equal", "by age"])}},
            r"searched weights in .*, and is now asked .*: give the sweep a new one, or the old space back",
        ),
        ({"space": {"C": SPACE["C"]}, "first": {"C": 1.0}}, "and is now asked to search without it"),
    ],
)
def test_refuses_another_question_under_the_name_of_a_study(place, change, says):
    arguments = {**task(place, "asked before"), "total": 1}
    sweep(**arguments)
    before = len(runs(place, ""))
    with pytest.raises(SweepChanged, match=says):
        sweep(**arguments | change)
    assert len(runs(place, "")) == before


def test_says_how_to_bring_a_deleted_experiment_back(place):
    client = mlflow.MlflowClient()
    number = client.create_experiment("deleted in the pages")
    client.delete_experiment(number)
    arguments = {**task(place, "of a deleted experiment"), "experiment": "deleted in the pages"}
    with pytest.raises(StoresDisagree, match=f"mlflow experiments restore --experiment-id {number}`"):
        sweep(**arguments)


def test_the_score_has_the_name_of_its_metric(place):
    sweep(**{**task(place, "another metric"), "total": 1, "metric": "neg_log_loss"})
    parent, children = records(open_study(task(place, "")["storage"], "another metric"), "sweep")
    assert parent["metrics.best_neg_log_loss"] == children["metrics.neg_log_loss"].iloc[0]

"""One search space for Optuna and Katib, and the trial that a job runs."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from helpers.capture import captured_client
from lifecycle.cluster import katib
from lifecycle.models import model
from lifecycle.objects import RUNTIME
from lifecycle.settings import Cluster
from lifecycle.training.katib_trial import trial

pytestmark = pytest.mark.unit

SPACE = {
    "C": FloatDistribution(1e-4, 10.0, log=True),
    "degree": IntDistribution(1, 3),
    "weights": CategoricalDistribution(["equal", "balanced"]),
}
CHOICE = {"C": "0.5", "degree": "2", "weights": "balanced"}
OTHERS = [
    FloatDistribution(0.0, 1.0),
    FloatDistribution(0.0, 1.0, step=0.25),
    IntDistribution(10, 100, step=10),
]


def test_a_search_space_survives_the_way_to_katib_and_back():
    space = {**SPACE, **{str(number): other for number, other in enumerate(OTHERS)}}
    experiment = katib.experiment("driver-sweep", space, {}, 24, Cluster())
    assert katib.distributions(experiment["spec"]["parameters"]) == space


def test_whole_numbers_have_the_distribution_that_optuna_gives_them():
    """With a step, Katib would draw 1, 2, and 3 in 25, 50, and 25 of 100 trials."""
    assert katib.parameter("degree", SPACE["degree"]).feasible_space.to_dict() == {"min": "1", "max": "3"}
    by_ten = katib.parameter("trees", IntDistribution(10, 100, step=10))
    assert by_ten.feasible_space.step == "10"


def test_a_second_run_of_a_sweep_has_a_name_of_its_own_that_katib_takes():
    for name in ("driver-sweep", "a" * 40, "a" * 30 + "-" + "b" * 9):
        experiment = katib.experiment(name, SPACE, {}, 2, Cluster())
        first, second = (katib.for_one_run(experiment)["metadata"]["name"] for _ in range(2))
        assert first != second and re.fullmatch("[a-z]([-a-z0-9]{0,38}[a-z0-9])?", first), first
        assert "--" not in first and first.startswith(name[:30])
        assert experiment["metadata"]["name"] == name


@pytest.mark.parametrize("name", ["a" * 41, "Sweep", "2024-sweep", "sweep-", "sweep.v2", ""])
def test_a_name_that_katib_refuses_is_refused_when_it_is_rendered(name):
    with pytest.raises(ValueError, match="is no name for Katib: write at most 40 lower-case letters"):
        katib.experiment(name, SPACE, {}, 2, Cluster())


def test_a_failed_trials_pod_stays_to_be_read():
    assert katib.experiment("one", SPACE, {}, 2, Cluster())["spec"]["trialTemplate"]["retain"] is True


@pytest.mark.parametrize("trials", [1, 2, 20])
def test_a_short_sweep_has_counts_that_katib_admits(trials):
    spec = katib.experiment("one", SPACE, {}, trials, Cluster())["spec"]
    assert max(spec["parallelTrialCount"], spec["maxFailedTrialCount"]) <= spec["maxTrialCount"] == trials


@pytest.mark.parametrize("trials", [1, 2, 24])
def test_the_sdk_asks_for_our_runtime_and_for_a_sweep_that_can_fail(trials):
    client, sent = captured_client()
    katib.optimize(client, SPACE, {}, trials)
    spec = sent[0]["spec"]
    counts = (spec["maxTrialCount"], spec["parallelTrialCount"], spec["maxFailedTrialCount"])
    assert counts == (trials, min(2, trials), min(3, trials))
    job = spec["trialTemplate"]["trialSpec"]["spec"]
    assert job["runtimeRef"] == {"name": RUNTIME, "kind": "TrainingRuntime"}
    # The runtime gives image, volume, and each trial a working directory of its own.
    assert set(job) == {"runtimeRef", "trainer"} and set(job["trainer"]) == {"command"}


def test_an_experiment_without_a_best_trial_is_an_error():
    ended = {"metadata": {"name": "sweep"}, "status": {"currentOptimalTrial": {"observation": {}}}}
    with pytest.raises(RuntimeError, match="the Experiment sweep has ended without a best trial"):
        katib.best(ended, SPACE)


def test_a_trial_whose_score_is_no_number_fails(applied, monkeypatch):
    monkeypatch.setattr(model, "validation_scores", lambda *_, **__: np.array([0.7, np.nan]))
    where = {"feature_repo": str(applied.feature_repo), "feature_service": "rates", "label": "label"}
    with pytest.raises(ValueError, match="the score is nan, so this trial has none"):
        trial(labels=str(applied.data / "driver_labels.parquet"), **where, **CHOICE)


def test_rejects_what_katib_cannot_express():
    with pytest.raises(ValueError, match="trees: Katib has no counterpart of IntDistribution"):
        katib.experiment("one", {"trees": IntDistribution(1, 1000, log=True)}, {}, 1, Cluster())
    for distribution in (FloatDistribution(0.0, 1.0, step=0.25), IntDistribution(1, 1000, log=True)):
        with pytest.raises(ValueError, match="Search has no counterpart of"):
            katib.search(distribution)


def test_the_sdk_asks_for_the_same_space_and_ships_a_trial_that_prints_its_score(applied, tmp_path):
    inputs = {
        "feature_repo": str(applied.feature_repo),
        "labels": str(applied.data / "driver_labels.parquet"),
        "feature_service": "rates",
        "label": "label",
    }
    client, sent = captured_client()
    katib.optimize(client, SPACE, inputs, 24)
    [experiment] = sent
    assert katib.round_trip(experiment) == experiment
    space = katib.distributions(experiment["spec"]["parameters"])
    # Search of version 0.5 has no whole numbers.
    assert space == {**SPACE, "degree": CategoricalDistribution(["1", "2", "3"])}
    assert experiment["spec"]["objective"] == {"type": "maximize", "objectiveMetricName": "auc"}

    shipped = experiment["spec"]["trialTemplate"]["trialSpec"]["spec"]["trainer"]["command"]
    # torchrun, which may not be here, starts one Python.
    shipped[-1] = shipped[-1].replace("\ntorchrun ", "\npython ")
    command = [re.sub(r"\$\{trialParameters\.(\w+)\}", lambda m: CHOICE[m[1]], word) for word in shipped]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, "PATH": path}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    [score] = re.findall(r"(?m)^auc=(0\.\d+)$", done.stdout)  # the line that Katib's collector reads
    assert float(score) == pytest.approx(trial(**CHOICE, **inputs), abs=1e-6)
    arguments = [f"--{name}={value}" for name, value in (inputs | CHOICE).items()]
    started = subprocess.run(
        [sys.executable, "-m", "lifecycle.training.katib_trial", *arguments],
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"auc={score}\n" in started.stdout

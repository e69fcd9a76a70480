"""One search space, for Optuna and for Katib: what is rendered is read back, and what a job would run is run."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from kubernetes import client as kubernetes
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from helpers.capture import captured_client
from lifecycle import katib

SPACE = {
    "C": FloatDistribution(1e-4, 10.0, log=True),
    "degree": IntDistribution(1, 3),
    "weights": CategoricalDistribution(["equal", "balanced"]),
}
CHOICES = {"C": "0.5", "degree": "2", "weights": "balanced"}
ELSEWHERE = {
    "feature_repo": "/data/feature_repo",
    "labels": "/data/labels.parquet",
    "feature_service": "rates",
    "label": "label",
}


@pytest.fixture
def inputs(applied):
    labels = applied.data / "driver_labels.parquet"
    return {
        "feature_repo": str(applied.feature_repo),
        "labels": str(labels),
        "feature_service": "rates",
        "label": "label",
    }


def sent(inputs):
    client, sent = captured_client()
    katib.optimize(client, SPACE, inputs, 24)
    (experiment,) = sent
    return experiment


def test_an_experiment_comes_back_unchanged_from_katibs_own_models():
    experiment = katib.experiment("driver-sweep", SPACE, ELSEWHERE, 24)
    assert katib.round_trip(experiment) == experiment
    assert experiment["spec"]["maxTrialCount"] == 24
    assert experiment["spec"]["objective"] == {"type": "maximize", "objectiveMetricName": "auc"}


def test_the_round_trip_shows_a_misspelled_field_and_a_wrong_type():
    experiment = katib.experiment("driver-sweep", SPACE, ELSEWHERE, 24)
    assert katib.round_trip({**experiment, "spec": {**experiment["spec"], "maxTrials": 24}}) == experiment
    with pytest.raises(ValueError, match="maxTrialCount"):
        katib.round_trip({**experiment, "spec": {**experiment["spec"], "maxTrialCount": "many"}})


@pytest.mark.parametrize(
    "distribution",
    [
        *SPACE.values(),
        FloatDistribution(0.0, 1.0),
        FloatDistribution(0.0, 1.0, step=0.25),
        IntDistribution(10, 100, step=10),
    ],
    ids=str,
)
def test_a_distribution_comes_back_from_katib_as_it_was(distribution):
    experiment = katib.experiment("one", {"choice": distribution}, {}, 1)
    assert katib.distributions(experiment["spec"]["parameters"]) == {"choice": distribution}


def test_what_katib_cannot_say_is_refused():
    with pytest.raises(ValueError, match="trees: Katib has no counterpart of IntDistribution"):
        katib.experiment("one", {"trees": IntDistribution(1, 1000, log=True)}, {}, 1)
    for distribution in (FloatDistribution(0.0, 1.0, step=0.25), IntDistribution(1, 1000, log=True)):
        with pytest.raises(ValueError, match="Search has no counterpart of"):
            katib.search(distribution)


def test_the_job_of_a_trial_is_one_that_kubernetes_knows():
    job = katib.experiment("driver-sweep", SPACE, ELSEWHERE, 24)["spec"]["trialTemplate"]["trialSpec"]
    api = kubernetes.ApiClient()
    read = api.deserialize(SimpleNamespace(data=json.dumps(job)), "V1Job")
    assert api.sanitize_for_serialization(read) == job


def test_the_client_asks_for_the_same_space():
    experiment = sent(ELSEWHERE)
    assert katib.round_trip(experiment) == experiment
    space = katib.distributions(experiment["spec"]["parameters"])
    assert space["C"] == SPACE["C"] and space["weights"] == SPACE["weights"]
    assert space["degree"] == CategoricalDistribution(["1", "2", "3"]), "Search has no whole numbers in 0.5"
    assert experiment["spec"]["objective"] == {"type": "maximize", "objectiveMetricName": "auc"}


def substituted(text: str) -> str:
    """What Katib does to the template before it starts a trial."""
    return re.sub(r"\$\{trialParameters\.(\w+)\}", lambda found: CHOICES[found[1]], text)


def test_a_trial_starts_as_the_job_and_as_the_client_ship_it_and_prints_the_line_that_katib_collects(
    inputs, tmp_path
):
    job = katib.experiment("driver-sweep", SPACE, inputs, 24)["spec"]["trialTemplate"]["trialSpec"]
    (container,) = job["spec"]["template"]["spec"]["containers"]
    shipped = sent(inputs)["spec"]["trialTemplate"]["trialSpec"]["spec"]["trainer"]["command"]
    (tmp_path / "here").mkdir()
    folder = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    lines = []
    for command in ([*container["command"], *container["args"]], shipped):
        command = [substituted(word) for word in command]
        done = subprocess.run(
            command, cwd=tmp_path / "here", env={**os.environ, "PATH": folder}, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        lines.append(re.findall(r"(?m)^auc=(0\.\d+)$", done.stdout))
    assert lines[0] == lines[1] and len(lines[0]) == 1
    assert 0.6 < float(lines[0][0]) < 0.85

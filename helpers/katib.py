"""The sweep of notebook 05 as Katib runs it on a cluster: one search space, a job per trial. Rendered here, run nowhere on this laptop.

python -m helpers.katib --C 0.5 --degree 2 --weights equal ...    one trial, as the container of such a job starts it
"""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING

from kubeflow_katib_api import models
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

if TYPE_CHECKING:
    from kubeflow.optimizer import OptimizerClient
    from kubeflow.trainer import Runtime

IMAGE = "driver-ranking-workshop:1.0"
"""The image of the pipeline's steps: this repository and its lock."""


def trial(C: str, degree: str, weights: str, feature_repo: str, labels: str, feature_service: str) -> float:
    """One trial of notebook 05. Arguments arrive as text, and the score leaves as a line of output, where Katib's collector reads it.

    The SDK ships the source text of this function, so it imports all it needs in its own body.
    """
    import pandas as pd
    from feast import FeatureStore
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import TimeSeriesSplit, cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import PolynomialFeatures, StandardScaler

    from helpers import feature_references, historical_features

    store = FeatureStore(repo_path=feature_repo)
    service = store.get_feature_service(feature_service)
    columns = [reference.split(":")[1] for reference in feature_references(store, service)]
    table = historical_features(store, pd.read_parquet(labels), service)
    rows = table[table.event_timestamp <= table.event_timestamp.quantile(0.75)].dropna()
    powers = PolynomialFeatures(int(degree), include_bias=False)
    weight = "balanced" if weights == "balanced" else None
    model = make_pipeline(StandardScaler(), powers, LogisticRegression(C=float(C), class_weight=weight, max_iter=1000))
    scores = cross_val_score(model, rows[columns], rows.label, cv=TimeSeriesSplit(5), scoring="roc_auc")
    print(f"auc={scores.mean():.6f}")
    return float(scores.mean())


def parameter(name: str, distribution: BaseDistribution) -> models.V1beta1ParameterSpec:
    """Optuna's distribution as Katib's parameter. Katib writes every bound and every choice as text.

    Raises:
        ValueError: Katib cannot say it: whole numbers on a log scale, or a distribution of another kind.
    """
    match distribution:
        case FloatDistribution(low=low, high=high, log=log, step=step):
            kind, limits = "double", {"min": str(low), "max": str(high)}
            limits |= {"distribution": "logUniform" if log else "uniform"} | ({"step": str(step)} if step else {})
        case IntDistribution(low=low, high=high, log=False, step=step):
            kind, limits = "int", {"min": str(low), "max": str(high), "step": str(step)}
        case CategoricalDistribution(choices=choices):
            kind, limits = "categorical", {"list": [str(choice) for choice in choices]}
        case _:
            raise ValueError(f"{name}: Katib has no counterpart of {distribution}.")
    space = models.V1beta1FeasibleSpace(**limits)
    return models.V1beta1ParameterSpec(name=name, parameterType=kind, feasibleSpace=space)


def search(distribution: BaseDistribution) -> models.V1beta1ParameterSpec:
    """The same for ``OptimizerClient``, whose ``Search`` of version 0.5 has no whole numbers: those become choices.

    Raises:
        ValueError: ``Search`` cannot say it: floats in steps, or whole numbers on a log scale.
    """
    from kubeflow.optimizer import Search

    match distribution:
        case FloatDistribution(low=low, high=high, log=True):
            return Search.loguniform(low, high)
        case FloatDistribution(low=low, high=high, step=None):
            return Search.uniform(low, high)
        case IntDistribution(low=low, high=high, log=False, step=step):
            return Search.choice(list(range(low, high + 1, step)))
        case CategoricalDistribution(choices=choices):
            return Search.choice(list(choices))
        case _:
            raise ValueError(f"the client's Search has no counterpart of {distribution}.")


def distributions(parameters: list[dict]) -> dict[str, BaseDistribution]:
    """The way back: an Experiment's parameters as Optuna's distributions (choices stay text)."""
    space: dict[str, BaseDistribution] = {}
    for found in parameters:
        limits = found["feasibleSpace"]
        match found["parameterType"]:
            case "double":
                low, high, log = float(limits["min"]), float(limits["max"]), limits["distribution"] == "logUniform"
                step = float(limits["step"]) if "step" in limits else None
                space[found["name"]] = FloatDistribution(low, high, log=log, step=step)
            case "int":
                low, high, step = (int(limits[name]) for name in ("min", "max", "step"))
                space[found["name"]] = IntDistribution(low, high, step=step)
            case "categorical":
                space[found["name"]] = CategoricalDistribution(limits["list"])
    return space


def experiment(
    name: str, space: Mapping[str, BaseDistribution], inputs: Mapping[str, str], trials: int, parallel: int = 2
) -> dict:
    """A Katib Experiment: ``trials`` Kubernetes jobs that each call ``trial`` with ``inputs`` and their share of ``space``.

    The metrics collector reads ``auc=...`` from the job's output, which is Katib's default.
    """
    arguments = [f"--{choice}=${{trialParameters.{choice}}}" for choice in space]
    arguments += [f"--{given}={value}" for given, value in inputs.items()]
    container = {"name": "trial", "image": IMAGE, "command": ["python", "-m", "helpers.katib"], "args": arguments}
    container |= {"resources": {"limits": {"cpu": "1", "memory": "2Gi"}}}
    pod = {"restartPolicy": "Never", "containers": [container]}
    job = {"apiVersion": "batch/v1", "kind": "Job", "spec": {"backoffLimit": 1, "template": {"spec": pod}}}
    references = [models.V1beta1TrialParameterSpec(name=choice, reference=choice) for choice in space]
    spec = models.V1beta1ExperimentSpec(
        objective=models.V1beta1ObjectiveSpec(type="maximize", objectiveMetricName="auc"),
        algorithm=models.V1beta1AlgorithmSpec(algorithmName="tpe"),
        maxTrialCount=trials,
        parallelTrialCount=parallel,
        maxFailedTrialCount=3,
        parameters=[parameter(choice, distribution) for choice, distribution in space.items()],
        trialTemplate=models.V1beta1TrialTemplate(
            primaryContainerName="trial", trialParameters=references, trialSpec=job
        ),
    )
    metadata = models.IoK8sApimachineryPkgApisMetaV1ObjectMeta(name=name)
    return models.V1beta1Experiment(
        apiVersion="kubeflow.org/v1beta1", kind="Experiment", metadata=metadata, spec=spec
    ).to_dict()


def round_trip(manifest: dict) -> dict:
    """``manifest`` read by Katib's official models and written again. They drop what they do not know without a word: compare."""
    return models.V1beta1Experiment.from_dict(manifest).to_dict()


def runtime() -> Runtime:
    """A training runtime of the workshop's image. On a cluster, ``TrainerClient().get_runtime(name)`` gives one."""
    from kubeflow.trainer import Runtime, RuntimeKind
    from kubeflow.trainer.constants import constants
    from kubeflow.trainer.types.types import RuntimeTrainer, TrainerType

    trainer = RuntimeTrainer(trainer_type=TrainerType.CUSTOM_TRAINER, framework="python", image=IMAGE)
    trainer.set_command(constants.DEFAULT_COMMAND)
    return Runtime(name="driver-ranking", trainer=trainer, kind=RuntimeKind.CLUSTER_TRAINING_RUNTIME)


def optimize(
    client: OptimizerClient, space: Mapping[str, BaseDistribution], inputs: Mapping[str, str], trials: int
) -> str:
    """Ask the cluster that ``client`` belongs to for the sweep; gives the name of the job that does it."""
    from kubeflow.optimizer import Objective, RandomSearch, TrainJobTemplate, TrialConfig
    from kubeflow.trainer import CustomTrainer

    trainer = CustomTrainer(func=trial, func_args=dict(inputs), image=IMAGE)
    return client.optimize(
        TrainJobTemplate(runtime=runtime(), trainer=trainer),
        search_space={choice: search(distribution) for choice, distribution in space.items()},
        objectives=[Objective(metric="auc", direction="maximize")],
        trial_config=TrialConfig(num_trials=trials, parallel_trials=2),
        algorithm=RandomSearch(),
    )


class Captured:
    """Stands where the SDK talks to Kubernetes, and keeps what would have been sent."""

    def __init__(self) -> None:
        self.sent: list[dict] = []

    def create_namespaced_custom_object(self, group: str, version: str, namespace: str, plural: str, body: dict):
        """What the Kubernetes client has under this name: it would create the object."""
        self.sent.append(body)
        return body


def captured_client(namespace: str = "driver-ranking") -> tuple[OptimizerClient, list[dict]]:
    """An ``OptimizerClient`` without a cluster, and the list in which what it would send is found.

    Its constructor needs a cluster's address; this leaves it out, and so touches what version 0.5 keeps private.
    """
    from kubeflow.optimizer import OptimizerClient
    from kubeflow.optimizer.backends.kubernetes.backend import KubernetesBackend
    from kubeflow.trainer.backends.kubernetes.backend import KubernetesBackend as TrainerBackend

    api = Captured()
    client = OptimizerClient.__new__(OptimizerClient)
    client.backend = KubernetesBackend.__new__(KubernetesBackend)
    client.backend.trainer_backend = TrainerBackend.__new__(TrainerBackend)
    for backend in (client.backend, client.backend.trainer_backend):
        backend.custom_api, backend.namespace = api, namespace
    return client, api.sent


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m helpers.katib", description="One trial of the sweep.")
    for argument in inspect.signature(trial).parameters:
        parser.add_argument(f"--{argument}", required=True)
    trial(**vars(parser.parse_args()))

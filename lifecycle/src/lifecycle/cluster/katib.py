"""A sweep as Katib runs it on a cluster: one search space, a job per trial. Rendered here; a cluster runs it.

What a job runs is ``lifecycle.training.katib_trial``.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from kubeflow_katib_api import models
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from lifecycle.cluster import waiting
from lifecycle.models.recipe import Recipe
from lifecycle.objects import (
    CONTAINER_SECURITY,
    LABELS,
    ON_TMP,
    POD,
    RUNTIME,
    SCRATCH,
    environment,
    mount,
    volume,
)
from lifecycle.settings import Cluster
from lifecycle.training.katib_trial import trial

if TYPE_CHECKING:
    from kubeflow.optimizer import OptimizerClient
    from kubernetes.client import CustomObjectsApi


LONGEST_NAME = 40
"""Characters that Katib allows an Experiment's name."""
# The trial's own container ends without output: the collector reads it, and prints it.
_WHERE_TO_LOOK = (
    "What a trial printed is in its pod: kubectl logs --selector katib.kubeflow.org/experiment={name} "
    "--container metrics-logger-and-collector"
)


def parameter(name: str, distribution: BaseDistribution) -> models.V1beta1ParameterSpec:
    """Optuna's distribution as Katib's parameter. Katib writes every bound and every choice as text.

    Whole numbers in steps of more than 1 are searched otherwise than by Optuna: Katib makes them a quantized
    uniform distribution, in which both ends come up half as often as the values between them.

    Args:
        name: of the hyperparameter.
        distribution: its range and scale.

    Raises:
        ValueError: Katib cannot say it: whole numbers on a log scale, or a distribution of another kind.
    """
    limits: dict[str, Any]
    match distribution:
        case FloatDistribution(low=low, high=high, log=log, step=step):
            kind, limits = "double", {"min": str(low), "max": str(high)}
            limits |= {"distribution": "logUniform" if log else "uniform"} | (
                {"step": str(step)} if step else {}
            )
        case IntDistribution(low=low, high=high, log=False, step=step):
            kind, limits = "int", {"min": str(low), "max": str(high)}
            limits |= {"step": str(step)} if step != 1 else {}
        case CategoricalDistribution(choices=choices):
            kind, limits = "categorical", {"list": [str(choice) for choice in choices]}
        case _:
            raise ValueError(f"{name}: Katib has no counterpart of {distribution}.")
    space = models.V1beta1FeasibleSpace(**limits)
    return models.V1beta1ParameterSpec(name=name, parameterType=kind, feasibleSpace=space)


def search(distribution: BaseDistribution) -> Any:
    """The same for ``OptimizerClient``, whose ``Search`` of version 0.5 has no whole numbers: those become
    choices.

    Args:
        distribution: range and scale of one hyperparameter.

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


def distributions(parameters: list[dict[str, Any]]) -> dict[str, BaseDistribution]:
    """The way back: an Experiment's parameters as Optuna's distributions (choices stay text).

    Args:
        parameters: what stands under ``spec.parameters`` of an Experiment.
    """
    space: dict[str, BaseDistribution] = {}
    for found in parameters:
        limits = found["feasibleSpace"]
        match found["parameterType"]:
            case "double":
                low, high, log = (
                    float(limits["min"]),
                    float(limits["max"]),
                    limits["distribution"] == "logUniform",
                )
                step = float(limits["step"]) if "step" in limits else None
                space[found["name"]] = FloatDistribution(low, high, log=log, step=step)
            case "int":
                least, most = int(limits["min"]), int(limits["max"])
                space[found["name"]] = IntDistribution(least, most, step=int(limits.get("step", 1)))
            case "categorical":
                space[found["name"]] = CategoricalDistribution(limits["list"])
    return space


def experiment(
    name: str,
    space: Mapping[str, BaseDistribution],
    inputs: Mapping[str, str],
    trials: int,
    cluster: Cluster,
    parallel: int = 2,
) -> dict[str, Any]:
    """A Katib Experiment: ``trials`` Kubernetes jobs that each call ``trial`` with ``inputs`` and their share
    of ``space``.

    The metrics collector reads ``auc=...``, or the name of another metric, from the job's output, which is
    Katib's default.

    Args:
        name: of the Experiment on the cluster.
        space: the search space, by hyperparameter.
        inputs: the other arguments of ``trial``.
        trials: number of trials in all.
        cluster: the settings of that name.
        parallel: number of jobs at a time.

    Raises:
        ValueError: Katib cannot say a part of the space, or refuses the name.
    """
    if not re.fullmatch(rf"[a-z]([-a-z0-9]{{0,{LONGEST_NAME - 2}}}[a-z0-9])?", name):
        raise ValueError(
            f"{name!r} is no name for Katib: write at most {LONGEST_NAME} lower-case letters, digits, and "
            "hyphens, with a letter first and no hyphen last."
        )
    arguments = [f"--{choice}=${{trialParameters.{choice}}}" for choice in space]
    arguments += [f"--{given}={value}" for given, value in inputs.items()]
    container: dict[str, Any] = {"name": "trial", "image": cluster.image}
    container |= {"command": ["python", "-m", "lifecycle.training.katib_trial"], "args": arguments}
    container |= {"resources": cluster.step.manifest(), "securityContext": CONTAINER_SECURITY}
    container |= {"env": environment(cluster), "workingDir": "/tmp", "volumeMounts": [mount(cluster), ON_TMP]}
    pod = {"restartPolicy": "Never", **POD, "containers": [container], "volumes": [volume(cluster), SCRATCH]}
    template = {"metadata": {"labels": LABELS}, "spec": pod}
    job = {"apiVersion": "batch/v1", "kind": "Job", "spec": {"backoffLimit": 1, "template": template}}
    references = [models.V1beta1TrialParameterSpec(name=choice, reference=choice) for choice in space]
    spec = models.V1beta1ExperimentSpec(
        objective=models.V1beta1ObjectiveSpec(type="maximize", objectiveMetricName=_score_name(inputs)),
        algorithm=models.V1beta1AlgorithmSpec(algorithmName="tpe"),
        maxTrialCount=trials,
        # Katib refuses an Experiment in which one of these is greater than the number of trials.
        parallelTrialCount=min(parallel, trials),
        maxFailedTrialCount=min(3, trials),
        parameters=[parameter(choice, distribution) for choice, distribution in space.items()],
        trialTemplate=models.V1beta1TrialTemplate(
            primaryContainerName="trial",
            trialParameters=references,
            trialSpec=job,
            retain=True,  # else Katib deletes a failed trial's pod, and its output with it
        ),
    )
    metadata = models.IoK8sApimachineryPkgApisMetaV1ObjectMeta(name=name)
    return models.V1beta1Experiment(
        apiVersion="kubeflow.org/v1beta1", kind="Experiment", metadata=metadata, spec=spec
    ).to_dict()


def for_one_run(manifest: dict[str, Any]) -> dict[str, Any]:
    """The same Experiment under a name that no other run of the sweep has: a cluster keeps the earlier ones.

    Args:
        manifest: the Experiment.
    """
    ending = f"-{uuid.uuid4().hex[:8]}"
    name = manifest["metadata"]["name"][: LONGEST_NAME - len(ending)].rstrip("-") + ending
    return {**manifest, "metadata": {**manifest["metadata"], "name": name}}


def _score_name(inputs: Mapping[str, str]) -> str:
    return Recipe(metric=inputs.get("metric", Recipe.metric)).score_name


def finished(api: CustomObjectsApi, name: str, namespace: str, **options: Any) -> Mapping[str, Any]:
    """The Experiment once the cluster has ended it.

    Args:
        api: of the Kubernetes client.
        name: of the Experiment.
        namespace: where it was created.
        options: those of ``lifecycle.cluster.waiting.follow``.

    Raises:
        ClusterError: the Experiment failed, or cannot go on; the message says which pod and why.
        TimeoutError: it has not ended in time.
    """
    return waiting.for_object("Experiment", name, namespace, api.api_client, **options).object


def best(ended: Mapping[str, Any], space: Mapping[str, BaseDistribution]) -> dict[str, Any]:
    """The choices of the best trial, of the types that ``space`` has: Katib keeps all as text.

    Args:
        ended: the Experiment with its status.
        space: the search space, by hyperparameter.

    Raises:
        RuntimeError: it ended, and no trial has a score.
    """
    assignments = ended["status"].get("currentOptimalTrial", {}).get("parameterAssignments") or []
    if not assignments:
        name = ended["metadata"]["name"]
        raise RuntimeError(
            f"the Experiment {name} has ended without a best trial: no trial printed a score. "
            f"{_WHERE_TO_LOOK.format(name=name)}"
        )
    chosen = {found["name"]: found["value"] for found in assignments}
    read: dict[str, Any] = {}
    for name, distribution in space.items():
        if isinstance(distribution, CategoricalDistribution):
            [read[name]] = [choice for choice in distribution.choices if str(choice) == chosen[name]]
        else:
            read[name] = (
                int(chosen[name]) if isinstance(distribution, IntDistribution) else float(chosen[name])
            )
    return read


def round_trip(manifest: dict[str, Any]) -> dict[str, Any]:
    """``manifest`` read by Katib's official models and written again.

    They drop what they do not know without a word: compare.
    """
    return models.V1beta1Experiment.from_dict(manifest).to_dict()


def optimize(
    client: OptimizerClient,
    space: Mapping[str, BaseDistribution],
    inputs: Mapping[str, str],
    trials: int,
    runtime: str = RUNTIME,
    parallel: int = 2,
) -> str:
    """Ask the cluster that ``client`` belongs to for the sweep; gives the name of the job that does it.

    Without a number of trials that may fail, Katib calls a sweep succeeded of which all trials failed.

    Args:
        client: of Kubeflow's SDK; its constructor needs a cluster.
        space: the search space, by hyperparameter.
        inputs: the other arguments of ``trial``.
        trials: number of trials in all.
        runtime: name of the TrainingRuntime, whose working directory must be each pod's own: the client keeps
            the trial's text there.
        parallel: number of trials at a time.

    Raises:
        ValueError: the client's ``Search`` cannot say a part of the space.
    """
    from kubeflow.optimizer import Objective, RandomSearch, TrainJobTemplate, TrialConfig
    from kubeflow.optimizer.types.optimization_types import Direction
    from kubeflow.trainer import CustomTrainer

    trainer = CustomTrainer(func=trial, func_args=dict(inputs))
    return client.optimize(
        TrainJobTemplate(runtime=runtime, trainer=trainer),
        search_space={choice: search(distribution) for choice, distribution in space.items()},
        objectives=[Objective(metric=_score_name(inputs), direction=Direction.MAXIMIZE)],
        trial_config=TrialConfig(
            num_trials=trials, parallel_trials=min(parallel, trials), max_failed_trials=min(3, trials)
        ),
        algorithm=RandomSearch(),
    )

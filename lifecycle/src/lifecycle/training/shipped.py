"""What Kubeflow's Trainer ships to each worker, and the call that ships it.

A module of its own, because a pod keeps the text in a file of the module's name, beside which Python looks
for packages first: one called ``distributed.py`` would hide the package ``distributed`` from Dask.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kubeflow.trainer import TrainerClient

    from lifecycle.settings import Cluster


def train(parameters: dict | None = None, **named: object) -> None:
    """Train as one worker of several. It is shipped as text, so it imports all it needs in its own body.

    Trainer's local backend calls it with one dictionary, a cluster with named arguments (kubeflow 0.5).

    Args:
        parameters: the arguments of work, in lifecycle/src/lifecycle/training/distributed.py.
        named: the same.
    """
    from lifecycle.training.distributed import work

    work(**(parameters or named))


def submit(
    client: TrainerClient, name: str, inputs: Mapping[str, Any], workers: int, cluster: Cluster
) -> str:
    """Ask the cluster that ``client`` belongs to for the training, a pod for each worker; gives the job's
    name.

    Each pod mounts the volume, which holds the feature
    repository, the data and the job's folder, and gets MLflow's address from the config map ``mlflow``, as
    the steps of the pipeline do.

    Args:
        client: of Kubeflow's SDK.
        name: of the job: lower case, with hyphens.
        inputs: the arguments of ``work``.
        workers: number of pods.
        cluster: the settings of that name; its training image must hold this package and PyTorch.
    """
    from kubeflow.trainer import CustomTrainer, Runtime, RuntimeKind
    from kubeflow.trainer.constants import constants
    from kubeflow.trainer.options import (
        ContainerPatch,
        JobSetSpecPatch,
        JobSetTemplatePatch,
        JobSpecPatch,
        JobTemplatePatch,
        Name,
        PodSpecPatch,
        PodTemplatePatch,
        ReplicatedJobPatch,
        RuntimePatch,
        TrainingRuntimeSpecPatch,
    )
    from kubeflow.trainer.types.types import RuntimeTrainer, TrainerType

    from lifecycle.objects import TRACKING, mount, volume

    image = cluster.training_image or cluster.image
    # What `TrainerClient().get_runtime("torch-distributed")` gives on a cluster with Kubeflow's own runtimes.
    runtime_trainer = RuntimeTrainer(trainer_type=TrainerType.CUSTOM_TRAINER, framework="torch", image=image)
    runtime_trainer.set_command(constants.TORCH_COMMAND)
    runtime = Runtime(
        name="torch-distributed", trainer=runtime_trainer, kind=RuntimeKind.CLUSTER_TRAINING_RUNTIME
    )
    config_map, address = TRACKING
    source = {"configMapKeyRef": {"name": config_map, "key": address}}
    container = ContainerPatch(
        name=constants.NODE,
        env=[{"name": "MLFLOW_TRACKING_URI", "valueFrom": source}],
        volume_mounts=[mount(cluster)],
    )
    pod = PodTemplatePatch(spec=PodSpecPatch(volumes=[volume(cluster)], containers=[container]))
    nodes = ReplicatedJobPatch(
        name=constants.NODE, template=JobTemplatePatch(spec=JobSpecPatch(template=pod))
    )
    jobs = JobSetTemplatePatch(spec=JobSetSpecPatch(replicated_jobs=[nodes]))
    patch = RuntimePatch(training_runtime_spec=TrainingRuntimeSpecPatch(template=jobs))
    trainer = CustomTrainer(
        func=train,
        func_args=dict(inputs),
        image=image,
        num_nodes=workers,
        resources_per_node={"cpu": cluster.step.cpu_limit, "memory": cluster.step.memory_limit},
        env={"PET_NPROC_PER_NODE": "1"},
    )
    return client.train(runtime=runtime, trainer=trainer, options=[Name(name), patch])

"""What Kubeflow Trainer gets: the runtime that all jobs share, and a job."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

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


def training_runtime(cluster: Cluster) -> dict[str, Any]:
    """Where distributed training runs: all that a TrainJob would otherwise have to say about its pods.

    Trainer gives each pod a process for each CPU that it requests, rounded up. A pod that fails ends the job,
    and is kept with its log.

    Args:
        cluster: the settings of that name.
    """
    node = {
        "name": "node",  # by this name Trainer finds the container in which it starts torchrun
        "image": cluster.image_with_torch,
        # Not the volume: the client writes the function's text there, and another job would run it.
        "workingDir": ON_TMP["mountPath"],
        "env": environment(cluster),
        "resources": cluster.step.manifest(),
        "securityContext": CONTAINER_SECURITY,
        "volumeMounts": [mount(cluster), ON_TMP],
    }
    pod = {
        "restartPolicy": "Never",
        **POD,
        "containers": [node],
        "volumes": [volume(cluster), SCRATCH],
    }
    job = {
        "metadata": {"labels": {"trainer.kubeflow.org/trainjob-ancestor-step": "trainer"}},
        "spec": {"backoffLimit": 0, "template": {"metadata": {"labels": LABELS}, "spec": pod}},
    }
    return {
        "apiVersion": "trainer.kubeflow.org/v1alpha1",
        "kind": "TrainingRuntime",
        # Kubeflow's client reads from the label how to start a function.
        "metadata": {"name": RUNTIME, "labels": {"trainer.kubeflow.org/framework": "torch"}},
        "spec": {
            "mlPolicy": {"numNodes": 1, "torch": {}},
            "template": {"spec": {"replicatedJobs": [{"name": "node", "template": job}]}},
        },
    }


def train_job(name: str, inputs: Mapping[str, Any], workers: int, cluster: Cluster) -> dict[str, Any]:
    """The TrainJob that Kubeflow's client makes of ``lifecycle.training.shipped.train``.

    Its name ends with a digest of what it says. A TrainJob cannot be changed: another training is another
    job, with a folder of its own.

    The client renders it and sends it at once. Here it has no cluster: what it would send is kept, which
    touches what version 0.5 keeps private.

    Args:
        name: of the training: lower case, with hyphens.
        inputs: the arguments of ``lifecycle.training.distributed.work``; ``folder`` is where each job makes
            its own.
        workers: number of pods.
        cluster: the settings of that name.
    """
    from kubeflow.trainer import CustomTrainer, TrainerClient
    from kubeflow.trainer.backends.kubernetes.backend import KubernetesBackend
    from kubeflow.trainer.options import Name

    from lifecycle.training import shipped

    said = json.dumps([inputs, workers, inspect.getsource(shipped.train)])
    job = f"{name}-{hashlib.sha256(said.encode()).hexdigest()[:8]}"
    sent: list[dict[str, Any]] = []
    client = TrainerClient.__new__(TrainerClient)
    client.backend = KubernetesBackend.__new__(KubernetesBackend)
    client.backend.namespace = cluster.namespace
    runtime = SimpleNamespace(get=lambda _: training_runtime(cluster))
    client.backend.custom_api = SimpleNamespace(
        get_namespaced_custom_object=lambda *_, **__: runtime,
        create_namespaced_custom_object=lambda *given: sent.append(given[-1]),
    )
    inputs = {**inputs, "folder": f"{inputs['folder']}/{job}", "run_name": job}
    trainer = CustomTrainer(func=shipped.train, func_args=inputs, num_nodes=workers)
    client.train(runtime=RUNTIME, trainer=trainer, options=[Name(job)])
    return sent[0]

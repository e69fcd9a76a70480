"""Kubeflow's own client without a cluster: what it would send is kept and can be looked at."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING

from lifecycle.cluster.trainer import training_runtime
from lifecycle.settings import Cluster

if TYPE_CHECKING:
    from kubeflow.optimizer import OptimizerClient
    from kubeflow.trainer import TrainerClient


class Captured:
    """Stands where the SDK talks to Kubernetes, and keeps what would have been sent."""

    def __init__(self) -> None:
        self.sent: list[dict] = []

    def create_namespaced_custom_object(
        self, group: str, version: str, namespace: str, plural: str, body: dict
    ) -> dict:
        """What the Kubernetes client has under this name: it would create the object."""
        self.sent.append(body)
        return body

    def get_namespaced_custom_object(self, *place: str, async_req: bool) -> SimpleNamespace:
        """The one object that a client asks for before it sends a job: the training runtime, by any name."""
        runtime = training_runtime(Cluster())
        runtime["metadata"]["name"] = place[-1]
        return SimpleNamespace(get=lambda _: runtime)


def captured_client(namespace: str = Cluster().namespace) -> tuple[OptimizerClient, list[dict]]:
    """An ``OptimizerClient`` without a cluster, and the list in which what it would send is found.

    Its constructor needs a cluster's address; this leaves it out, and so touches what version 0.5 keeps
    private.
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


def captured_trainer(namespace: str = Cluster().namespace) -> tuple[TrainerClient, list[dict]]:
    """The same for a ``TrainerClient``."""
    from kubeflow.trainer import TrainerClient
    from kubeflow.trainer.backends.kubernetes.backend import KubernetesBackend

    api = Captured()
    client = TrainerClient.__new__(TrainerClient)
    client.backend = KubernetesBackend.__new__(KubernetesBackend)
    client.backend.custom_api, client.backend.namespace = api, namespace
    return client, api.sent

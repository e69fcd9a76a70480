"""What all objects on a cluster have in common: names that they share, and the form of a pod."""

from __future__ import annotations

import re
from typing import Any
from uuid import uuid4

from lifecycle.settings import Cluster

TRACKING = ("mlflow", "tracking-uri")
"""ConfigMap and key that hold MLflow's address."""
PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3", "MLFLOW_HTTP_REQUEST_TIMEOUT": "30"}
"""Else a container would ask for four minutes before it says that MLflow does not answer."""
LABELS = {"app.kubernetes.io/part-of": "ml-lifecycle"}
"""What each pod of ours is labelled with. Only pods with this label reach the stores and MLflow."""
SETTINGS = ("feature-store", "feature_store.yaml")
"""ConfigMap and key that hold Feast's settings for the cluster."""
RUNTIME = "ml-lifecycle"
"""The TrainingRuntime of distributed training, in the project's namespace."""
USER = 10001
"""The number of the user that the image runs as, and of the group that may write on the volume."""
POD_SECURITY: dict[str, Any] = {
    "runAsNonRoot": True,
    "runAsUser": USER,
    "runAsGroup": USER,
    "fsGroup": USER,
    "seccompProfile": {"type": "RuntimeDefault"},
}
POD: dict[str, Any] = {
    "securityContext": POD_SECURITY,
    # Else each pod would get variables of each Service, and MLflow and Redis read some of these names as
    # settings of their own.
    "enableServiceLinks": False,
    "automountServiceAccountToken": False,  # none of ours asks Kubernetes for anything
}
"""What each pod has: a user who is not root, and no variables and no token but its own."""
CONTAINER_SECURITY: dict[str, Any] = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
}
SCRATCH: dict[str, Any] = {"name": "scratch", "emptyDir": {}}
"""A pod's own place to write, apart from the volume that all share: mounted at ``/tmp``."""
ON_TMP: dict[str, Any] = {"name": "scratch", "mountPath": "/tmp"}


def volume(cluster: Cluster) -> dict[str, Any]:
    """The claim that all share, as a pod names it."""
    return {"name": cluster.claim, "persistentVolumeClaim": {"claimName": cluster.claim}}


def mount(cluster: Cluster) -> dict[str, Any]:
    """Where a container finds it."""
    return {"name": cluster.claim, "mountPath": cluster.volume}


def secrets(cluster: Cluster) -> dict[str, tuple[str, str]]:
    """What each container that opens a store finds in its environment: Secret and key by variable.

    MLflow sends a login only when it has both halves.
    """
    return {
        "MLFLOW_TRACKING_USERNAME": (cluster.login_secret, "user"),
        "MLFLOW_TRACKING_PASSWORD": (cluster.login_secret, "password"),
        "DATABASE_USER": (cluster.stores_secret, "database-user"),
        "DATABASE_PASSWORD": (cluster.stores_secret, "database-password"),
        "REDIS_PASSWORD": (cluster.stores_secret, "redis-password"),
    }


def environment(cluster: Cluster) -> list[dict[str, Any]]:
    """MLflow's address, and the logins of MLflow and of the stores, by reference: what
    ``lifecycle.training.pipeline.on_cluster`` gives a step, for any other container.
    """
    name, key = TRACKING
    address = {"name": "MLFLOW_TRACKING_URI", "valueFrom": {"configMapKeyRef": {"name": name, "key": key}}}
    logins = [
        {"name": variable, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}}
        for variable, (secret, key) in secrets(cluster).items()
    ]
    return [address, *logins, *({"name": variable, "value": value} for variable, value in PATIENCE.items())]


def kubernetes_name(name: str, most: int = 63) -> str:
    """``name`` as Kubernetes allows it for a Service: lower case, hyphens for underscores.

    Args:
        name: of a model, a project.
        most: how long it may be, where Kubernetes or a platform appends something.

    Raises:
        ValueError: it still has other characters, or is too long.
    """
    found = name.lower().replace("_", "-")
    if not re.fullmatch(r"[a-z]([a-z0-9-]*[a-z0-9])?", found):
        raise ValueError(
            f"{name!r} cannot name an object on a cluster: begin with a letter, then letters, digits, "
            "underscores and hyphens, and no hyphen at the end."
        )
    if len(found) > most:
        raise ValueError(f"{name!r} is {len(found)} characters long; on this cluster it may have {most}.")
    return found


def unique_name(prefix: str) -> str:
    """A name for one run, such as ``driver-training-3f9c01ab``: at most 40 characters, so that Kubernetes can
    lengthen it for the pods.

    Args:
        prefix: what runs.
    """
    return f"{kubernetes_name(prefix[:31].rstrip('-_'))}-{uuid4().hex[:8]}"

"""What all objects on a cluster have in common: names that they share, and the form of a pod."""

from __future__ import annotations

from typing import Any

from lifecycle.settings import Cluster

TRACKING = ("mlflow", "tracking-uri")
"""ConfigMap and key that hold MLflow's address."""
LOGIN = ("mlflow-login", "password")
"""Secret and key that hold the password for MLflow. The value is in no file of a project."""
STORES = ("feature-stores", "redis")
"""Secret and key that hold the online store's address, as Feast's operator reads it."""
SETTINGS = ("feature-store", "feature_store.yaml")
"""ConfigMap and key that hold Feast's settings for the cluster."""
USER = 10001
"""The number of the user that the image runs as, and of the group that may write on the volume."""
POD_SECURITY: dict[str, Any] = {
    "runAsNonRoot": True,
    "runAsUser": USER,
    "runAsGroup": USER,
    "fsGroup": USER,
    "seccompProfile": {"type": "RuntimeDefault"},
}
# Without the last word each pod would get variables of each Service, and MLflow and Redis read some of these
# names as settings of their own.
POD: dict[str, Any] = {"securityContext": POD_SECURITY, "enableServiceLinks": False}
"""What each pod has: a user who is not root, and no variables but its own."""
CONTAINER_SECURITY: dict[str, Any] = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


def volume(cluster: Cluster) -> dict[str, Any]:
    """The claim that all share, as a pod names it."""
    return {"name": cluster.claim, "persistentVolumeClaim": {"claimName": cluster.claim}}


def mount(cluster: Cluster) -> dict[str, Any]:
    """Where a container finds it."""
    return {"name": cluster.claim, "mountPath": cluster.volume}


def tracking_environment() -> list[dict[str, Any]]:
    """MLflow's address and the password for it, by reference: what
    ``lifecycle.training.pipeline.on_cluster`` gives a step, for any other container.
    """
    name, key = TRACKING
    secret, password = LOGIN
    return [
        {"name": "MLFLOW_TRACKING_URI", "valueFrom": {"configMapKeyRef": {"name": name, "key": key}}},
        {
            "name": "MLFLOW_TRACKING_PASSWORD",
            "valueFrom": {"secretKeyRef": {"name": secret, "key": password}},
        },
    ]


def kubernetes_name(name: str) -> str:
    """``name`` as Kubernetes allows it: lower case, hyphens for underscores."""
    return name.lower().replace("_", "-")

"""The names that a cluster and this package share: each is written here once.

And where work is to run: ``BACKEND``.
"""

import os
from pathlib import Path, PurePosixPath
from typing import Any

BACKENDS = ("local", "kubernetes")

NAMESPACE = os.environ.get("LIFECYCLE_NAMESPACE", "ml-lifecycle")
"""Where everything of the lifecycle lives on a cluster.

Another comes from ``LIFECYCLE_NAMESPACE``, read at import.
"""
CLAIM = "ml-lifecycle"
"""The PersistentVolumeClaim that all steps, trials and servers mount at ``VOLUME``."""
VOLUME = "/ml-lifecycle"
"""Where a step on a cluster finds the feature repository and the data."""
TRACKING = ("mlflow", "tracking-uri")
"""ConfigMap and key that hold MLflow's address."""
LOGIN = ("mlflow-login", "password")
"""Secret and key that hold the password for MLflow. The value is in no file of this repository."""
STORES = ("feature-stores", "redis")
"""Secret and key that hold the online store's address, as Feast's operator reads it."""
SETTINGS = ("feature-store", "feature_store.yaml")
"""ConfigMap and key that hold Feast's settings for the cluster."""
USER = 10001
"""The number of the user that the image runs as, and of the group that may write on the volume."""
MLFLOW_PORT = 5000
REDIS_PORT = 6379
SERVER_PORT = 8080
"""Of the model server; KServe sends requests to it."""
MLFLOW_URI = f"http://mlflow:{MLFLOW_PORT}"
REDIS_ADDRESS = f"redis:{REDIS_PORT}"


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
VOLUMES: dict[str, Any] = {"name": CLAIM, "persistentVolumeClaim": {"claimName": CLAIM}}
MOUNT: dict[str, Any] = {"name": CLAIM, "mountPath": VOLUME}


def resources(cpu: str, memory: str, cpu_limit: str, memory_limit: str) -> dict[str, Any]:
    """What a container is promised, and what it may take at most.

    Args:
        cpu: cores that it is promised, such as ``"250m"`` (a quarter).
        memory: bytes that it is promised, such as ``"1Gi"``.
        cpu_limit: cores that it may take.
        memory_limit: bytes above which it is ended.
    """
    return {"requests": {"cpu": cpu, "memory": memory}, "limits": {"cpu": cpu_limit, "memory": memory_limit}}


def tracking_environment() -> list[dict[str, Any]]:
    """MLflow's address and the password for it, by reference: what ``lifecycle.pipeline.on_cluster`` gives
    a step, for any other container.
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


def backend() -> str:
    """Where work is to run, ``"local"`` or ``"kubernetes"``: the environment variable ``BACKEND``, else
    ``"local"``.

    Raises:
        ValueError: ``BACKEND`` is another word.
    """
    chosen = os.environ.get("BACKEND") or "local"
    if chosen not in BACKENDS:
        raise ValueError(
            f"BACKEND is {chosen!r}: set it to 'local' or 'kubernetes', or unset it: then it is 'local'."
        )
    return chosen


def on_volume(path: Path, home: Path) -> str:
    """Where a file lies for a step on a cluster, whose volume holds a copy of the folder ``home``.

    Args:
        path: the file here.
        home: the folder that is copied to the volume.

    Raises:
        ValueError: the file is not below ``home``.
    """
    return str(PurePosixPath(VOLUME) / path.relative_to(home).as_posix())

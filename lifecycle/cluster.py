"""The names that a cluster and this package share: each is written here once. And where work is to run: ``BACKEND``."""

import os
from pathlib import Path, PurePosixPath

BACKENDS = ("local", "kubernetes")

NAMESPACE = "ml-lifecycle"
"""Where everything of the lifecycle lives on a cluster."""
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
USER = 1000
"""The number of the user that the image runs as, and of the group that may write on the volume."""
MLFLOW_PORT = 5000
REDIS_PORT = 6379
SERVER_PORT = 8080
"""Of the model server; KServe sends requests to it."""
MLFLOW_URI = f"http://mlflow:{MLFLOW_PORT}"
REDIS_ADDRESS = f"redis:{REDIS_PORT}"


def backend() -> str:
    """Where work is to run, ``"local"`` or ``"kubernetes"``: the environment variable ``BACKEND``, else ``"local"``.

    Raises:
        ValueError: ``BACKEND`` is another word.
    """
    chosen = os.environ.get("BACKEND") or "local"
    if chosen not in BACKENDS:
        raise ValueError(f"BACKEND is {chosen!r}. Set it to 'local' or 'kubernetes', or unset it: then it is 'local'.")
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

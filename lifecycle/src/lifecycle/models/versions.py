"""A version of a registered model: found by alias, read without executing it, tried on stored rows."""

from __future__ import annotations

import hashlib
import io
import stat
import tempfile
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import mlflow
from mlflow.entities.model_registry import ModelVersion
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from sklearn.pipeline import Pipeline

from lifecycle.features.contract import FeatureContract
from lifecycle.models.model import TYPES, load
from lifecycle.models.model_file import MOST_BYTES
from lifecycle.models.sandbox import VersionRefused, vouch

__all__ = [
    "Version",
    "VersionRefused",
    "load_version",
    "stored_files",
    "version_by_alias",
    "version_by_number",
]
_MOST_FILES = 100


@dataclass(frozen=True)
class Version:
    """What an alias names.

    Attributes:
        number: in the model registry.
        model_id: of the logged model behind it. A registered model that is deleted and made anew starts again
            at number 1, with another id.
    """

    number: str
    model_id: str


def version_by_alias(registry: mlflow.MlflowClient, name: str, alias: str) -> Version:
    """The version of a registered model that an alias names now.

    Raises:
        mlflow.exceptions.MlflowException: there is no such model or alias.
    """
    return _version(registry.get_model_version_by_alias(name, alias))


def version_by_number(registry: mlflow.MlflowClient, name: str, number: str) -> Version:
    """The version of a registered model with this number.

    Raises:
        mlflow.exceptions.MlflowException: there is no such version.
    """
    return _version(registry.get_model_version(name, number))


def _version(found: ModelVersion) -> Version:
    return Version(str(found.version), (found.model_id or found.source or "").removeprefix("models:/"))


def stored_files(name: str, version: Version) -> list[tuple[str, int]]:
    """Name and size of each of a version's files, without a copy of any.

    Args:
        name: of the registered model.
        version: of it.

    Raises:
        VersionRefused: it holds folders or other things than files, or more than ``MOST_BYTES``.
    """
    repository = get_artifact_repository(_address(name, version))
    files = repository.list_artifacts(None)
    # A model of ours has no folders; code that a version brings along lies in one.
    if any(file.is_dir for file in files):
        raise VersionRefused("it holds folders, and a model that is read here holds files alone")
    if sum(file.file_size or 0 for file in files) > MOST_BYTES or len(files) > _MOST_FILES:
        raise VersionRefused(
            f"its files take more than {MOST_BYTES:,} bytes, or are more than {_MOST_FILES}, and would fill "
            "the disk"
        )
    # On a file system, a link may lead to a device without an end.
    if local := getattr(getattr(repository, "repo", None), "artifact_dir", None):
        for file in files:
            if not stat.S_ISREG((Path(local) / file.path).lstat().st_mode):
                raise VersionRefused("it holds something else than plain files")
    return [(file.path, file.file_size or 0) for file in files]


def _address(name: str, version: Version) -> str:
    return f"models:/{name}/{version.number}"


def load_version(
    name: str, version: Version, *, types: Collection[str] = TYPES, task: str = "binary"
) -> tuple[Pipeline, FeatureContract]:
    """The fitted estimator of a version, and its feature contract. Nothing in the version is executed.

    ``mlflow.sklearn.load_model`` would: it unpickles, and it takes the list of types that skops may build
    from the model's own metadata. A child process with limits reads and tries the files first; see
    ``lifecycle.models.sandbox``.

    Args:
        name: of the registered model.
        version: of it.
        types: full names of the types that the model may hold.
        task: ``binary`` or ``regression``.

    Raises:
        VersionRefused: it holds folders or more than ``MOST_BYTES``, is not stored in the format skops, holds
            types that are not in ``types``, has no contract or no input example, is not the model of
            ``version.model_id``, does not do on its own input example what its task asks for, or takes more
            time or memory than ``lifecycle.models.sandbox`` gives it.
        TimeoutError: the machine is too busy to try it.
    """
    stored_files(name, version)
    with tempfile.TemporaryDirectory(prefix="version-") as folder:
        path = Path(mlflow.artifacts.download_artifacts(_address(name, version), dst_path=folder)).resolve()
        vouched = vouch(path, version.model_id, types, task)
        content = (path / vouched["file"]).read_bytes()
    if hashlib.sha256(content).hexdigest() != vouched["sha256"]:
        raise RuntimeError("the model's file has changed since it was tried")
    return load(io.BytesIO(content), types), FeatureContract.from_dict(vouched["contract"])

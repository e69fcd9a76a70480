"""A version of a registered model: found by alias, read without executing it, tried on stored rows."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
from mlflow.entities.model_registry import ModelVersion
from sklearn.pipeline import Pipeline

from lifecycle.contract import METADATA, FeatureContract
from lifecycle.model import MOST_BYTES, load


class VersionRefused(ValueError):
    """A version that must not serve; the message says which and why."""


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


def behind_alias(registry: mlflow.MlflowClient, name: str, alias: str) -> Version:
    """The version of a registered model that an alias names now.

    Raises:
        mlflow.exceptions.MlflowException: there is no such model or alias.
    """
    return _version(registry.get_model_version_by_alias(name, alias))


def numbered(registry: mlflow.MlflowClient, name: str, number: str) -> Version:
    """The version of a registered model with this number.

    Raises:
        mlflow.exceptions.MlflowException: there is no such version.
    """
    return _version(registry.get_model_version(name, number))


def _version(found: ModelVersion) -> Version:
    return Version(str(found.version), (found.model_id or found.source or "").removeprefix("models:/"))


def read(name: str, version: Version) -> tuple[Pipeline, FeatureContract]:
    """The fitted estimator of a version, and its feature contract. Nothing in the version is executed.

    ``mlflow.sklearn.load_model`` would: it unpickles, and it takes the list of types that skops may build
    from the model's own metadata.

    Raises:
        VersionRefused: it holds folders or more than ``MOST_BYTES``, is not stored in the format skops, holds
            types that are not in ``lifecycle.model.TYPES``, has no contract or no input example, is not the
            model of ``version.model_id``, or does not do on its own input example what a classifier of two
            outcomes does.
    """
    address = f"models:/{name}/{version.number}"
    files = mlflow.artifacts.list_artifacts(artifact_uri=address)
    # A model of ours has no folders; code that a version brings along lies in one.
    if any(file.is_dir for file in files):
        raise VersionRefused("it holds folders, and a model that is read here holds files alone")
    if sum(file.file_size or 0 for file in files) > MOST_BYTES:
        raise VersionRefused(f"its files take more than {MOST_BYTES:,} bytes, and would fill the disk")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(mlflow.artifacts.download_artifacts(address, dst_path=folder)).resolve()
        stored = mlflow.models.Model.load(path)
        if stored.model_id != version.model_id:
            raise VersionRefused(
                f"the registry names the model {version.model_id}, and stores {stored.model_id}"
            )
        flavor = stored.flavors.get("sklearn") or {}
        form = flavor.get("serialization_format", "none that MLflow names")
        if form != "skops":
            raise VersionRefused(
                f"it is stored as {form}; only skops is read, because reading it executes nothing"
            )
        file = (path / str(flavor.get("pickled_model"))).resolve()
        if not file.is_relative_to(path) or not file.is_file():
            raise VersionRefused("its metadata names a file that is not in it")
        metadata = stored.metadata or {}
        if METADATA not in metadata:
            raise VersionRefused(
                f"it was stored without a feature contract: its metadata has no {METADATA!r}"
            )
        try:
            model, contract = load(file), FeatureContract.from_dict(metadata[METADATA])
        except ValueError as error:
            raise VersionRefused(str(error)) from error
        try:
            example = stored.load_input_example(str(path))
        except Exception as error:  # MLflow's own form of it, damaged
            raise VersionRefused(f"its input example cannot be read: {type(error).__name__}") from error
    if not isinstance(example, pd.DataFrame) or example.empty:
        raise VersionRefused(
            "it carries no rows to try it on: log it with input_example=, a table of a few rows"
        )
    _try(model, contract, example)
    return model, contract


def _try(model: Pipeline, contract: FeatureContract, example: pd.DataFrame) -> None:
    """Ask a model about its stored rows, as the server will ask it."""
    if list(example.columns) != contract.columns:
        raise VersionRefused(
            f"its input example has the columns {list(example.columns)}, its contract {contract.columns}"
        )
    if list(getattr(model, "feature_names_in_", [])) != contract.columns:
        trained = list(getattr(model, "feature_names_in_", []))
        raise VersionRefused(f"it was trained on {trained}, its contract says {contract.columns}")
    if [*getattr(model, "classes_", [])] != [0, 1]:
        outcomes = len(getattr(model, "classes_", []))
        raise VersionRefused(f"it tells {outcomes} outcomes apart; the two outcomes 0 and 1 are served")
    try:
        # As an array: a table a request costs more than the model. Names were compared above.
        scores = model.predict_proba(example.to_numpy(dtype="float64"))
    except Exception as error:
        raise VersionRefused(f"it fails on its own input example: {type(error).__name__}: {error}") from error
    if (
        scores.shape != (len(example), 2)
        or not np.isfinite(scores).all()
        or scores.min() < 0
        or scores.max() > 1
    ):
        raise VersionRefused(
            "its scores on its own input example are not two probabilities a row, finite and between 0 and 1"
        )

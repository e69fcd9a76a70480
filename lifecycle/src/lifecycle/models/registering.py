"""A fitted model as MLflow stores it, in the form that ``lifecycle.models.versions`` enforces."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import mlflow
import pandas as pd

from lifecycle.features.contract import METADATA as CONTRACT
from lifecycle.features.contract import FeatureContract
from lifecycle.models.model import TYPES, check_features, needed_types
from lifecycle.models.recipe import METADATA as RECIPE
from lifecycle.models.recipe import Recipe

if TYPE_CHECKING:
    from mlflow.models.model import ModelInfo


def log_model(
    model: Any, contract: FeatureContract, recipe: Recipe, inputs: pd.DataFrame, name: str = "model"
) -> ModelInfo:
    """Log a fitted model to the active run, with signature, exact requirements, contract and recipe.

    Args:
        model: the fitted estimator.
        contract: of its features.
        recipe: that made it.
        inputs: a few complete rows of the contract's columns.
        name: of the logged model.

    Raises:
        ValueError: skops cannot hold the model; it holds types that ``recipe.types`` does not name, which no
            server would read; a column holds no numbers.
    """
    check_features(inputs)
    unnamed = [kind for kind in needed_types(model) if kind not in recipe.allowed_types]
    if unnamed:
        raise ValueError(
            f"a stored {type(model).__name__} holds types that the settings do not name, and no server would "
            f"read it: {', '.join(unnamed)}. Look at each, and add those that you accept to `types`."
        )
    inputs = inputs[contract.columns].astype("float64")
    return mlflow.sklearn.log_model(
        model,
        name=name,
        signature=mlflow.models.infer_signature(inputs, recipe.predictions(model, inputs)),
        pip_requirements=[f"{package}=={version(package)}" for package in ("scikit-learn", "skops")],
        metadata={CONTRACT: contract.to_dict(), RECIPE: recipe.to_dict()},
        input_example=inputs.head(5),
        serialization_format="skops",
        skops_trusted_types=sorted({*recipe.types} - TYPES) or None,
    )

"""The recipe of a model: estimator, task, metric, and hyperparameters, stored beside the feature contract."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.metrics import get_scorer, get_scorer_names

from lifecycle.models.model import TYPES
from lifecycle.settings import Training

METADATA = "lifecycle"
"""The key of a model's metadata under which its recipe is stored."""
DEFAULT = Training().estimator
"""The estimator of a recipe that names none: scaled, polynomial, logistic regression."""
TASKS = ("binary", "regression")


class RecipeError(ValueError):
    """A recipe that makes no model; the message says why."""


@dataclass(frozen=True)
class Recipe:
    """How a model is made and judged.

    Attributes:
        estimator: ``package.module:function``. The function takes the hyperparameters as keywords and returns
            an unfitted scikit-learn estimator.
        task: ``binary`` (labels 0 and 1, the score is the probability of 1) or ``regression`` (the score is
            what the model predicts).
        metric: name of a scikit-learn scorer; higher is better.
        types: that a stored model of this estimator holds beyond ``lifecycle.models.model.TYPES``. They come
            from the project's settings, never from a stored model.
        hyperparameters: keywords of the function, of values that JSON can hold.

    Raises:
        RecipeError: one of them is none of these.
    """

    estimator: str = DEFAULT
    task: str = "binary"
    metric: str = "roc_auc"
    types: Sequence[str] = ()
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "types", tuple(self.types))
        object.__setattr__(self, "hyperparameters", dict(self.hyperparameters))
        if self.task not in TASKS:
            raise RecipeError(f"task is {self.task!r}: give one of {', '.join(TASKS)}.")
        if self.metric not in get_scorer_names():
            raise RecipeError(
                f"metric is {self.metric!r}, and scikit-learn has no scorer of that name: "
                "sklearn.metrics.get_scorer_names() lists them."
            )
        module, _, function = self.estimator.partition(":")
        if not all(part.isidentifier() for part in [*module.split("."), function]):
            raise RecipeError(f"estimator is {self.estimator!r}: write package.module:function.")
        try:
            json.dumps(self.hyperparameters, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise RecipeError(f"the hyperparameters cannot be stored as JSON: {error}.") from None

    @classmethod
    def from_settings(cls, training: Training) -> Recipe:
        """The recipe that a project's settings name.

        Raises:
            RecipeError: see ``Recipe``.
        """
        return cls(
            training.estimator, training.task, training.metric, training.types, training.hyperparameters
        )

    @classmethod
    def from_dict(cls, stored: object) -> Recipe:
        """The recipe that ``to_dict`` gave.

        Raises:
            RecipeError: it is no recipe.
        """
        names = set(cls.__dataclass_fields__)
        if not isinstance(stored, dict) or set(stored) != names:
            raise RecipeError(f"the stored recipe should have {', '.join(sorted(names))}.")
        texts = [stored["estimator"], stored["task"], stored["metric"], *stored["types"]]
        if not all(isinstance(text, str) for text in texts) or not isinstance(
            stored["hyperparameters"], dict
        ):
            raise RecipeError("the stored recipe holds values of other types than a recipe has.")
        return cls(**stored)

    def to_dict(self) -> dict[str, Any]:
        """The recipe as text, lists and a dictionary."""
        return {**asdict(self), "types": list(self.types)}

    @property
    def allowed_types(self) -> frozenset[str]:
        """All that a stored model of this recipe may hold."""
        return TYPES | frozenset(self.types)

    @property
    def score_name(self) -> str:
        """The metric's name in MLflow and in Katib: ``auc`` for ``roc_auc``, else the scorer's own."""
        return "auc" if self.metric == "roc_auc" else self.metric

    def new_estimator(self) -> Any:
        """An unfitted estimator with the hyperparameters.

        Raises:
            RecipeError: there is no such function, it does not take these hyperparameters, or it returns no
                estimator for the task.
        """
        module, _, name = self.estimator.partition(":")
        try:
            function = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError) as error:
            raise RecipeError(f"the estimator {self.estimator} cannot be imported: {error}.") from error
        try:
            made = function(**self.hyperparameters)
        except (TypeError, ValueError) as error:
            raise RecipeError(f"{self.estimator} does not take the hyperparameters: {error}.") from error
        method = "predict_proba" if self.task == "binary" else "predict"
        if not (isinstance(made, BaseEstimator) and hasattr(made, "fit") and hasattr(made, method)):
            raise RecipeError(
                f"{self.estimator} returns a {type(made).__name__}: the task {self.task} needs an unfitted "
                f"scikit-learn estimator with the method {method}."
            )
        return made

    def predictions(self, model: Any, X: pd.DataFrame) -> np.ndarray:
        """What a fitted model says of n rows: the probability of 1, or for a regression the value."""
        if self.task == "regression":
            return np.asarray(model.predict(X), dtype="float64")
        return np.asarray(model.predict_proba(X)[:, 1], dtype="float64")

    def score(self, labels: Any, predictions: Any) -> float:
        """The metric of n predictions."""
        return scorer(self.metric, self.task)(np.asarray(labels), np.asarray(predictions))


def recipe_of(model_uri: str) -> Recipe | None:
    """The recipe in the metadata of an MLflow model; None for a model that was stored without one.

    Raises:
        mlflow.exceptions.MlflowException: there is no such model.
        RecipeError: what it stores is no recipe.
    """
    import mlflow

    metadata = mlflow.models.get_model_info(model_uri).metadata or {}
    return Recipe.from_dict(metadata[METADATA]) if METADATA in metadata else None


class _Stored(BaseEstimator):
    """An "estimator" whose X is the predictions themselves, so that a scorer can judge them."""

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def fit(self, X: Any, y: Any) -> _Stored:
        return self


class _StoredClassifier(ClassifierMixin, _Stored):
    classes_ = np.array([0, 1])

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        return np.column_stack([1 - X[:, 0], X[:, 0]])

    def predict(self, X: np.ndarray) -> np.ndarray:
        return (X[:, 0] > 0.5).astype("int64")


class _StoredRegressor(RegressorMixin, _Stored):
    def predict(self, X: np.ndarray) -> np.ndarray:
        return X[:, 0]


def scorer(metric: str, task: str) -> Callable[[np.ndarray, np.ndarray], float]:
    """A scikit-learn scorer as a function of labels and stored predictions.

    For a binary task the predictions are probabilities of 1, and a class is what lies above 0.5.
    """
    judge = get_scorer(metric)
    stored = _StoredClassifier() if task == "binary" else _StoredRegressor()
    return lambda labels, predictions: float(judge(stored, predictions.reshape(-1, 1), labels))

"""The model: its estimator, the cut between selection and held-out days, and a file that executes no code."""

from __future__ import annotations

import tempfile
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import pandas as pd
from sklearn.base import BaseEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import TimeSeriesSplit, cross_val_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler

from lifecycle.features.labels import check_values
from lifecycle.models import model_file
from lifecycle.settings import Training

if TYPE_CHECKING:
    from numpy import ndarray

HELD_OUT = Training().held_out
"""The share of the rows, the latest ones, that a model is judged on. Choices are made on the rest."""
TYPES = frozenset(
    [
        *(f"builtins.{name}" for name in ("bool", "dict", "float", "int", "list", "str", "tuple")),
        *(f"numpy.{name}" for name in ("bool", "float64", "int64", "ndarray")),
        "sklearn.linear_model._logistic.LogisticRegression",
        "sklearn.pipeline.Pipeline",
        "sklearn.preprocessing._data.StandardScaler",
        "sklearn.preprocessing._polynomial.PolynomialFeatures",
    ]
)
"""All types that a stored model may hold: those of ``new_model`` and the plain values inside them.

Another estimator brings its own to this list.
"""


def new_model(C: float = 1.0, degree: int = 1, weights: str = "equal") -> Pipeline:
    """An unfitted classifier: scale, multiply features up to ``degree``, logistic regression.

    Args:
        C: inverse strength of the regularization, above 0.
        degree: 1 for the features alone, 2 adds squares and products, and so on.
        weights: ``equal``, or ``balanced`` to weight both outcomes alike.

    Raises:
        ValueError: ``weights`` is neither.
    """
    if weights not in ("equal", "balanced"):
        raise ValueError(f"weights={weights!r}: give 'equal' or 'balanced'.")
    powers = PolynomialFeatures(degree, include_bias=False)
    weight = "balanced" if weights == "balanced" else None
    regression = LogisticRegression(C=C, class_weight=weight, max_iter=1000)
    return make_pipeline(StandardScaler(), powers, regression)


def hyperparameters(model: Pipeline) -> dict[str, float | int | str]:
    """What ``new_model`` was given to make ``model``, read from the model itself.

    Raises:
        ValueError: ``new_model`` did not make it.
    """
    try:
        regression, powers = model["logisticregression"], model["polynomialfeatures"]
        weights = {None: "equal", "balanced": "balanced"}[regression.class_weight]
        return {"C": float(regression.C), "degree": int(powers.degree), "weights": weights}
    except (AttributeError, KeyError, TypeError):
        raise ValueError(
            "the model is not of the kind that lifecycle.models.model.new_model makes."
        ) from None


def selection_ends(times: pd.Series, held_out: float = HELD_OUT) -> pd.Timestamp:
    """The cut: rows up to this time are selected and tuned on, later ones are held out.

    Args:
        times: ``event_timestamp`` of *all* labelled rows, those without features included, so that every user
            of a table finds the same cut.
        held_out: share of the rows after the cut.
    """
    return times.quantile(1 - held_out)


def split(table: pd.DataFrame, held_out: float = HELD_OUT) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows to select on and the held-out rows of a table, in the order of time, without incomplete rows.

    Args:
        table: labelled rows with features and ``event_timestamp``, as ``historical_features`` gives them, in
            any order.
        held_out: share of the rows after the cut.

    Raises:
        ValueError: a part has rows, and none of them has all its values; the message names the column that
            lacks most.
    """
    table = table.sort_values("event_timestamp", kind="stable")
    later = table.event_timestamp > selection_ends(table.event_timestamp, held_out)
    return _complete(table[~later]), _complete(table[later])


def _complete(rows: pd.DataFrame) -> pd.DataFrame:
    complete = rows.dropna()
    if len(rows) and complete.empty:
        missing = rows.isna().mean()
        raise ValueError(
            f"none of the {len(rows)} rows from {rows.event_timestamp.min()} to "
            f"{rows.event_timestamp.max()} has all its values: "
            f"{missing.idxmax()} is missing in {missing.max():.0%} of them. Compare keys and times with "
            "those of its source, or leave the column out."
        )
    return complete


def check_features(X: pd.DataFrame) -> None:
    """Refuse a feature column that holds no numbers.

    Raises:
        ValueError: a column holds text or anything else that is no number; the message names it.
    """
    for name in X.columns:
        values = X[name].dropna()
        kind = pd.api.types.infer_dtype(values, skipna=True)
        if kind in ("floating", "integer", "boolean", "mixed-integer-float", "decimal", "empty"):
            continue
        example = next((value for value in values if isinstance(value, str)), values.iloc[0])
        raise ValueError(
            f"the feature {name} holds values that are no numbers, such as {example!r}, and a model here is "
            "trained and served on numbers. "
            "Leave it out of the feature service, or compute numbers from it in an on-demand feature view."
        )


def validation_scores(
    model: BaseEstimator,
    X: pd.DataFrame,
    y: pd.Series,
    blocks: int = 5,
    metric: str = "roc_auc",
    task: str = "binary",
) -> ndarray:
    """The metric on each of ``blocks`` later stretches of time, by a model fitted on all rows before.

    Args:
        model: an estimator; it is cloned, not changed.
        X: n rows in the order of time, as ``split`` gives them.
        y: n labels with the index of ``X``.
        blocks: number of scores.
        metric: name of a scikit-learn scorer; AUC when left out.
        task: ``binary`` or ``regression``; see ``lifecycle.features.labels.check_values``.

    Raises:
        ValueError: ``y`` has another index, or values that are no labels of the task; a block, or what lies
            before it, has one label alone; a value that the model cannot take.
    """
    if not X.index.equals(y.index):
        raise ValueError(
            "the labels are of other rows than X, or in another order: take both from one table."
        )
    check_values(y, task)
    check_features(X)
    folds = list(TimeSeriesSplit(blocks).split(X))
    for number, (before, block) in enumerate(folds if task == "binary" else [], 1):
        for rows, place in ((before, "before it"), (block, "in it")):
            if y.iloc[rows].nunique() < 2:
                raise ValueError(
                    f"block {number} of {blocks} has no score: the {len(rows)} rows {place} all have the "
                    f"label {y.iloc[rows[0]]}. "
                    "Give more rows, or fewer blocks."
                )
    return cross_val_score(model, X, y, cv=folds, scoring=metric, error_score="raise")


def save(model: BaseEstimator, path: str | Path) -> None:
    """Write a fitted model as a skops file, and read it once: skops also writes what it cannot read.

    Raises:
        ValueError: skops cannot hold a part of it, such as a function that was made inside another.
    """
    import skops.io

    try:
        skops.io.dump(model, path)
        skops.io.load(path, trusted=skops.io.get_untrusted_types(file=path))
    except Exception as error:
        line = next(iter(str(error).splitlines()), "") or "no reason given"
        raise ValueError(
            f"skops cannot hold this {type(model).__name__} ({type(error).__name__}: {line}). A stored model "
            "is read without executing code, so all its parts must be classes and functions that Python can "
            "import by name, with plain values inside: no lambda, no function or class inside another."
        ) from error


def needed_types(model: BaseEstimator) -> list[str]:
    """The types that a fitted model holds beyond ``TYPES``.

    Look at them: whoever may write a model file can have any of them built, with any values. What you accept
    belongs into the project's setting ``types``.

    Args:
        model: a fitted estimator.

    Raises:
        ValueError: skops cannot hold it; see ``save``.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.skops"
        save(model, path)
        return sorted(model_file.types_of(path) - TYPES)


def load(path: str | Path | BinaryIO, types: Collection[str] = TYPES) -> Pipeline:
    """Read a model that ``save`` wrote, or MLflow in the format skops, as
    ``lifecycle.models.model_file.load`` does.

    Args:
        path: of the file; or the file itself, open for reading.
        types: full names of the types that it may hold; see ``needed_types``.

    Raises:
        ValueError: see ``lifecycle.models.model_file.load``.
    """
    return model_file.load(path, types)

"""The model: its estimator, the cut between selection and held-out days, and a file that executes no code."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import TimeSeriesSplit, cross_val_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler

from lifecycle import model_file

if TYPE_CHECKING:
    from numpy import ndarray

SELECTION_SHARE = 0.75
"""The share of the rows, in the order of time, on which choices are made. The rest is held out."""
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
        raise ValueError("the model is not of the kind that lifecycle.model.new_model makes.") from None


def selection_ends(times: pd.Series) -> pd.Timestamp:
    """The cut: rows up to this time are selected and tuned on, later ones are held out.

    Args:
        times: ``event_timestamp`` of *all* labelled rows, those without features included, so that every user
            of a table finds the same cut.
    """
    return times.quantile(SELECTION_SHARE)


def split(table: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows to select on and the held-out rows of a table, in the order of time, without incomplete rows.

    Args:
        table: labelled rows with features and ``event_timestamp``, as ``historical_features`` gives them, in
            any order.

    Raises:
        ValueError: a part has rows, and none of them has all its values; the message names the column that
            lacks most.
    """
    table = table.sort_values("event_timestamp", kind="stable")
    later = table.event_timestamp > selection_ends(table.event_timestamp)
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


def validation_scores(model: Pipeline, X: pd.DataFrame, y: pd.Series, blocks: int = 5) -> ndarray:
    """AUC on each of ``blocks`` later stretches of time, by a model that was fitted on all rows before.

    Args:
        model: an estimator; it is cloned, not changed.
        X: n rows in the order of time, as ``split`` gives them.
        y: n labels, 0 or 1, with the index of ``X``.
        blocks: number of scores.

    Raises:
        ValueError: ``y`` has another index; a block, or what lies before it, has one label alone; a value
            that the model cannot take.
    """
    if not X.index.equals(y.index):
        raise ValueError(
            "the labels are of other rows than X, or in another order: take both from one table."
        )
    folds = list(TimeSeriesSplit(blocks).split(X))
    for number, (before, block) in enumerate(folds, 1):
        for rows, place in ((before, "before it"), (block, "in it")):
            if y.iloc[rows].nunique() < 2:
                raise ValueError(
                    f"block {number} of {blocks} has no AUC: the {len(rows)} rows {place} all have the "
                    f"label {y.iloc[rows[0]]}. "
                    "Give more rows, or fewer blocks."
                )
    return cross_val_score(model, X, y, cv=folds, scoring="roc_auc", error_score="raise")


def save(model: Pipeline, path: str | Path) -> None:
    """Write a fitted model as a skops file."""
    import skops.io

    skops.io.dump(model, path)


def load(path: str | Path | BinaryIO, types: Collection[str] = TYPES) -> Pipeline:
    """Read a model that ``save`` wrote, or MLflow in the format skops, as ``lifecycle.model_file.load`` does.

    Args:
        path: of the file; or the file itself, open for reading.
        types: full names of the types that it may hold.

    Raises:
        ValueError: see ``lifecycle.model_file.load``.
    """
    return model_file.load(path, types)

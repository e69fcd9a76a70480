"""One trial of a sweep, as the container of a Katib job starts it.

``python -m lifecycle.training.katib_trial --feature_repo=... --labels=... --C=0.5 --degree=2`` is one: what
is no argument of ``trial`` itself is a hyperparameter of the estimator.
"""

from __future__ import annotations

import argparse


def trial(
    feature_repo: str,
    labels: str,
    feature_service: str,
    label: str,
    estimator: str = "lifecycle.models.model:new_model",
    task: str = "binary",
    metric: str = "roc_auc",
    **hyperparameters: str,
) -> float:
    """One trial. Arguments arrive as text, and the score leaves as a line of output, where Katib's collector
    reads it.

    The SDK ships the source text of this function, so it imports all it needs in its own body.

    Args:
        feature_repo: folder of ``feature_store.yaml``.
        labels: parquet file with join keys, ``event_timestamp`` and the label.
        feature_service: name of the features to train on.
        label: the column to predict.
        estimator: see ``lifecycle.models.recipe.Recipe``.
        task: the same.
        metric: the same.
        hyperparameters: of the estimator, as text: what reads as a number, ``True``, ``False`` or ``None`` is
            one.
    """
    import json

    import pandas as pd
    from feast import FeatureStore

    from lifecycle.features.contract import FeatureContract
    from lifecycle.features.labels import in_words, training_table
    from lifecycle.models.model import split, validation_scores
    from lifecycle.models.recipe import Recipe

    def typed(text: str) -> object:
        words = {"True": True, "False": False, "None": None}
        try:
            return words[text] if text in words else json.loads(text)
        except (TypeError, ValueError):  # a word, or a value that a caller in Python gave
            return text

    chosen = {name: typed(value) for name, value in hyperparameters.items()}
    recipe = Recipe(estimator, task, metric, hyperparameters=chosen)
    model = recipe.new_estimator()
    store = FeatureStore(repo_path=feature_repo)
    contract = FeatureContract.from_feature_service(store, feature_service, label)
    table, dropped = training_table(store, pd.read_parquet(labels), contract, task)
    if dropped:
        print(f"left out: {in_words(dropped)}")
    rows, _ = split(table)
    scores = validation_scores(model, rows[contract.columns], rows[label], metric=metric, task=task)
    score = float(scores.mean())
    if score - score:  # no number, or infinite: Katib would take it for the best, and its search would hang
        raise ValueError(f"the score is {score}, so this trial has none: look at the labels and the metric.")
    print(f"{recipe.score_name}={score:.6f}")
    return score


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        prog="python -m lifecycle.training.katib_trial",
        description="One trial of the sweep.",
        allow_abbrev=False,
    )
    for argument in ("feature_repo", "labels", "feature_service", "label"):
        parser.add_argument(f"--{argument}", required=True)
    for argument in ("estimator", "task", "metric"):
        parser.add_argument(f"--{argument}", default=argparse.SUPPRESS)
    given, more = parser.parse_known_args()
    choices = dict(word.removeprefix("--").split("=", 1) for word in more if "=" in word)
    if len(choices) < len(more):
        parser.error(f"write each hyperparameter as --name=value: {' '.join(more)}")
    trial(**vars(given), **choices)

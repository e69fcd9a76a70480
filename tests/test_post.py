"""Statements of the post that docs/claims.md and docs/post-and-workshop.md judge."""

import importlib

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

pytestmark = pytest.mark.unit


def rates(rows=200):
    """Two rates, and a label that follows the first."""
    random = np.random.default_rng(0)
    X = pd.DataFrame(random.uniform(size=(rows, 2)), columns=["conv_rate", "acc_rate"])
    return X, (X.conv_rate + random.normal(0, 0.3, rows) > 0.5).astype(int)


def test_the_best_of_many_on_the_test_set_looks_good_on_pure_noise():
    from sklearn.model_selection import train_test_split

    random = np.random.default_rng(0)
    X, y = pd.DataFrame(random.normal(size=(1200, 20))), random.integers(0, 2, 1200)
    later_X, later_y = X[400:], y[400:]  # kept apart, as new data would be
    X_train, X_test, y_train, y_test = train_test_split(X[:400], y[:400], test_size=0.2, random_state=42)
    fits = {column: LogisticRegression().fit(X_train[[column]], y_train) for column in X}
    on_test = {c: roc_auc_score(y_test, fit.predict_proba(X_test[[c]])[:, 1]) for c, fit in fits.items()}
    best = max(on_test, key=on_test.get)
    assert on_test[best] > 0.58
    assert abs(roc_auc_score(later_y, fits[best].predict_proba(later_X[[best]])[:, 1]) - 0.5) < 0.05


def test_features_by_position_can_be_swapped_unnoticed():
    model = LogisticRegression().fit(*rates())
    with pytest.warns(UserWarning, match="X does not have valid feature names"):
        right, swapped = (model.predict_proba([row])[0][1] for row in ([0.1, 0.9], [0.9, 0.1]))
    assert abs(right - swapped) > 0.3
    with pytest.raises(ValueError, match="feature names should match"):
        model.predict_proba(pd.DataFrame({"acc_rate": [0.9], "conv_rate": [0.1]}))


def has(path):
    """Whether an installed module has a name, such as ``feast.FeatureStore.apply``."""
    module, *names = path.split(":")
    value = importlib.import_module(module)
    for name in names[0].split("."):
        value = getattr(value, name, None)
    return value is not None


CAPABILITIES = {
    "define and version feature schemas": "feast:FeatureStore.list_feature_view_versions",
    "store and serve features": "feast:FeatureStore.get_online_features",
    "retrieve as of a time": "feast:FeatureStore.get_historical_features",
    "transform features alike in training and serving": "feast.on_demand_feature_view:on_demand_feature_view",
    "feature lineage": "feast.lineage.registry_lineage:RegistryLineageGenerator",
    "validate features": "feast:FeatureStore.validate_logged_features",
    "log experiments": "mlflow:log_metric",
    "compare model versions": "mlflow:MlflowClient.search_model_versions",
    "promote models by alias": "mlflow:MlflowClient.set_registered_model_alias",
    "orchestrate steps": "kfp.dsl:pipeline",
    "train on several machines": "kubeflow.trainer:TrainerClient.train",
    "tune hyperparameters": "kubeflow.optimizer:OptimizerClient.optimize",
}


@pytest.mark.parametrize("capability", CAPABILITIES)
def test_each_capability_has_a_call_in_the_tool_that_the_post_names(capability):
    assert has(CAPABILITIES[capability])


def test_the_tools_overlap_where_the_claims_say():
    assert has("kfp.dsl:Metrics.log_metric") and has("kfp:Client.list_runs")
    assert has("mlflow.optuna:MlflowStorage")
    from kubeflow.hub import ModelRegistryClient

    names = dir(ModelRegistryClient)
    assert "register_model" in names and not [name for name in names if "alias" in name]

"""A home with a served model, in a temporary folder: no learner's workspace is touched."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from helpers import data, registry
from helpers.start import MODEL
from helpers.workspace import Workspace, configure, create_home, quiet

SERVICE = "rates"  # the feature service of the model that is served
ALIAS = "production"


def serving_home(home: Path) -> Workspace:
    """A home with one registered model under the alias, and its drivers' features in the online store."""
    workspace = create_home(home.resolve())
    configure(workspace)
    import mlflow
    import pandas as pd
    from feast import FeatureStore

    from lifecycle.features.contract import FeatureContract
    from lifecycle.features.retrieval import historical_features
    from lifecycle.models.model import new_model
    from lifecycle.models.recipe import Recipe
    from lifecycle.models.registering import log_model

    quiet()
    store = FeatureStore(repo_path=str(workspace.feature_repo))
    registry.apply(store, workspace.feature_repo)
    mlflow.set_experiment("selection")
    contract = FeatureContract.from_feature_service(store, SERVICE, label="label")
    labels = pd.read_parquet(workspace.data / "driver_labels.parquet")
    rows = historical_features(store, labels, store.get_feature_service(SERVICE))
    complete = rows.dropna(subset=contract.columns)
    inputs = complete[contract.columns].astype("float64")
    model = new_model().fit(inputs, complete[contract.label])
    with mlflow.start_run(run_name="served model"):
        logged = log_model(model, contract, Recipe(), inputs)
    registered = mlflow.register_model(logged.model_uri, MODEL, tags=contract.tags())
    mlflow.MlflowClient().set_registered_model_alias(MODEL, ALIAS, registered.version)
    store.materialize(data.NOW - timedelta(days=7), data.NOW, feature_views=["driver_hourly_stats"])
    return workspace

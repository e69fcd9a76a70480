"""Homes that the benchmarks work in: made anew in a temporary folder, so that no learner's workspace is touched."""

from __future__ import annotations

from datetime import timedelta
from importlib.metadata import version
from pathlib import Path

import pandas as pd

from helpers import data, registry
from helpers.workspace import Workspace, configure, create_home, quiet

SERVICE = "rates"  # the feature service of the model that is served


def applied_home(home: Path, seed: int = data.SEED) -> Workspace:
    """A home with the course's definitions applied, and MLflow's database with its tables."""
    workspace = create_home(home.resolve(), seed=seed)
    configure(workspace)
    import mlflow
    from feast import FeatureStore

    quiet()
    registry.apply(FeatureStore(repo_path=str(workspace.feature_repo)), workspace.feature_repo)
    mlflow.set_experiment("selection")
    return workspace


def serving_home(home: Path, model_name: str, alias: str) -> Workspace:
    """A home with a registered model under ``alias`` and its features in the online store."""
    workspace = applied_home(home)
    import mlflow
    from feast import FeatureStore

    from lifecycle.contract import FeatureContract
    from lifecycle.model import new_model
    from lifecycle.retrieval import historical_features

    store = FeatureStore(repo_path=str(workspace.feature_repo))
    contract = FeatureContract.of_service(store, SERVICE, label="label")
    columns = contract.columns
    labels = pd.read_parquet(workspace.data / "driver_labels.parquet")
    complete = historical_features(store, labels, store.get_feature_service(SERVICE)).dropna()
    model = new_model().fit(complete[columns], complete.label)
    requirements = [f"{name}=={version(name)}" for name in ("scikit-learn", "skops")]
    signature = mlflow.models.infer_signature(complete[columns], model.predict_proba(complete[columns])[:, 1])
    with mlflow.start_run(run_name="served model"):
        logged = mlflow.sklearn.log_model(
            model,
            name="model",
            signature=signature,
            pip_requirements=requirements,
            metadata={"feast": contract.to_dict()},
            input_example=complete[columns].head(),
            serialization_format="skops",
        )
    made = mlflow.register_model(logged.model_uri, model_name, tags=contract.tags())
    mlflow.MlflowClient().set_registered_model_alias(model_name, alias, made.version)
    store.materialize(data.NOW - timedelta(days=7), data.NOW, feature_views=["driver_hourly_stats"])
    return workspace

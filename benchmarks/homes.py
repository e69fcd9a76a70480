"""Homes that the benchmarks work in: made anew in a temporary folder, so that no learner's workspace is touched."""

from __future__ import annotations

from datetime import timedelta
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from helpers import data, registry
from helpers.workspace import Workspace, configure, create_home, quiet

if TYPE_CHECKING:
    from lifecycle.contract import FeatureContract

SERVICE = "rates"  # the feature service of the model that is served
ALIAS = "production"


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


def register(contract: FeatureContract, table: pd.DataFrame, model_name: str) -> None:
    """A model of all rows with features, logged with its contract and registered under ``ALIAS``."""
    import mlflow

    from lifecycle.model import new_model

    complete = table.dropna(subset=contract.columns)
    inputs = complete[contract.columns].astype("float64")
    model = new_model().fit(inputs, complete[contract.label])
    with mlflow.start_run(run_name="served model"):
        logged = mlflow.sklearn.log_model(
            model,
            name="model",
            signature=mlflow.models.infer_signature(inputs, model.predict_proba(inputs)[:, 1]),
            pip_requirements=[f"{name}=={version(name)}" for name in ("scikit-learn", "skops")],
            metadata={"feast": contract.to_dict()},
            input_example=inputs.head(),
            serialization_format="skops",
        )
    made = mlflow.register_model(logged.model_uri, model_name, tags=contract.tags())
    mlflow.MlflowClient().set_registered_model_alias(model_name, ALIAS, made.version)


def serving_home(home: Path, model_name: str) -> Workspace:
    """A home with two registered models, of the drivers and of the flights, and their features in two online stores."""
    workspace = applied_home(home)
    from feast import FeatureStore

    from benchmarks import flights
    from lifecycle.contract import FeatureContract
    from lifecycle.retrieval import historical_features

    store = FeatureStore(repo_path=str(workspace.feature_repo))
    contract = FeatureContract.of_service(store, SERVICE, label="label")
    labels = pd.read_parquet(workspace.data / "driver_labels.parquet")
    table = historical_features(store, labels, store.get_feature_service(SERVICE))
    register(contract, table, model_name)
    store.materialize(data.NOW - timedelta(days=7), data.NOW, feature_views=["driver_hourly_stats"])

    notebook = flights.build(workspace)
    store, contract = notebook["store"], notebook["contract"]
    register(contract, notebook["table"], flights.MODEL)
    began = flights.NOW - timedelta(hours=6)
    store.materialize(began, flights.NOW, feature_views=contract.base_views(store))
    return workspace

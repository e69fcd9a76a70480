"""What the suite does inside a cluster: a pod of the image gets this module as text, and a call."""

from __future__ import annotations

import json
import os
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any


def places(volume: str) -> dict[str, Any]:
    """Who this process is, and to whom the volume and a file belong that a rendered job wrote there."""
    written = Path(volume) / "feature_repo" / "feature_store.yaml"
    here = [os.getuid(), os.getgid(), sorted(os.getgroups())]
    return {"here": here, "volume": Path(volume).stat().st_gid, "file": written.stat().st_gid}


def online_and_history(
    repo: str, service: str, drivers: list[int], moment: str, client: str = "", patience: float = 0
) -> list[dict]:
    """Features from the online store and by a point-in-time join, by driver; tried again for a while."""
    import pandas as pd
    import yaml
    from feast import FeatureStore, RepoConfig
    from feast.errors import FeastError

    if client:
        settings = yaml.safe_load(client)
        store = FeatureStore(config=RepoConfig(**settings, repo_path="/tmp"))
    else:
        store = FeatureStore(repo_path=repo)
    rows = [{"driver_id": driver} for driver in drivers]
    questions = pd.DataFrame(rows).assign(event_timestamp=pd.Timestamp(moment))
    began = time.monotonic()
    while True:
        try:
            features = store.get_feature_service(service)
            online = store.get_online_features(features=features, entity_rows=rows).to_df()
            history = store.get_historical_features(questions, features).to_df()
            break
        except FeastError:
            if time.monotonic() - began > patience:
                raise
            time.sleep(5)
    return [
        json.loads(frame.set_index("driver_id").drop(columns="event_timestamp", errors="ignore").to_json())
        for frame in (online, history)
    ]


def save_reference(repo: str, labels: str, service: str, name: str) -> int:
    """Save the project's reference data with rules, as notebook 03 does."""
    import great_expectations as gx
    import great_expectations.expectations as gxe
    import pandas as pd
    from feast import FeatureStore
    from feast.infra.offline_stores.file_source import SavedDatasetFileStorage

    from lifecycle.features.validation import suite_tag

    rules = [
        gxe.ExpectColumnValuesToBeInSet(column="label", value_set=[0, 1]),
        gxe.ExpectColumnValuesToBeBetween(column="conv_rate", min_value=0, max_value=1),
        gxe.ExpectColumnValuesToNotBeNull(column="acc_rate", mostly=0.9),
        gxe.ExpectColumnValuesToBeBetween(column="rating", min_value=1, max_value=5),
    ]
    store = FeatureStore(repo_path=repo)
    questions = pd.read_parquet(labels).head(200)
    store.create_saved_dataset(
        from_=store.get_historical_features(questions, store.get_feature_service(service)),
        name=name,
        storage=SavedDatasetFileStorage(path=f"{Path(repo).parent}/{name}.parquet"),
        tags=suite_tag(gx.ExpectationSuite("training", expectations=rules)),
        allow_overwrite=True,
    )
    return len(questions)


def break_labels(labels: str, broken: str) -> int:
    """The labels at times for which half of them have no features, which breaks a rule."""
    import pandas as pd

    rows = pd.read_parquet(labels)
    rows.loc[rows.index[::2], "event_timestamp"] += pd.Timedelta(days=365)
    rows.to_parquet(broken)
    return len(rows)


def register(
    repo: str, labels: str, service: str, label: str, model: str, C: float, drivers: list[int]
) -> dict[str, Any]:
    """Train and register a version; gives it with its scores of the drivers' online features."""
    import mlflow
    import pandas as pd
    from feast import FeatureStore

    from lifecycle.features.contract import FeatureContract
    from lifecycle.features.labels import training_table
    from lifecycle.models.model import new_model, split
    from lifecycle.models.recipe import Recipe
    from lifecycle.models.registering import log_model

    store = FeatureStore(repo_path=repo)
    contract = FeatureContract.from_feature_service(store, service, label)
    table, _ = training_table(store, pd.read_parquet(labels), contract, "binary")
    rows, _ = split(table)
    rows = rows.dropna()
    fitted = new_model(C=C).fit(rows[contract.columns], rows[label])
    mlflow.set_experiment("acceptance")
    with mlflow.start_run():
        logged = log_model(fitted, contract, Recipe(hyperparameters={"C": C}), rows[contract.columns].head())
    tags = {**contract.tags(), "made_by": "acceptance"}
    version = mlflow.register_model(logged.model_uri, model, tags=tags).version
    asked = [{"driver_id": driver} for driver in drivers]
    online = store.get_online_features(features=store.get_feature_service(service), entity_rows=asked)
    scores = fitted.predict_proba(online.to_df()[contract.columns])[:, 1]
    return {"version": str(version), "scores": scores.tolist()}


def versions(model: str) -> list[str]:
    """The numbers of the model's versions that the pipeline made."""
    import mlflow

    found = mlflow.MlflowClient().search_model_versions(f"name = '{model}'")
    return sorted(str(one.version) for one in found if one.tags.get("made_by") == "pipeline")


def record(experiment: str, pipeline_run: str) -> dict[str, Any]:
    """What the pipeline's steps have noted, with the parent runs' states and the number of runs left open."""
    from dataclasses import asdict

    import mlflow

    from lifecycle.training.outcome import PIPELINE_RUN, read_record

    client = mlflow.MlflowClient()
    place = [client.get_experiment_by_name(experiment).experiment_id]
    parents = client.search_runs(place, f"tags.`{PIPELINE_RUN}` = '{pipeline_run}'")
    noted = asdict(read_record(parents[0].info.run_id)) if parents else {}
    below = [
        client.search_runs(place, f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'") for parent in parents
    ]
    running = sum(run.info.status == "RUNNING" for runs in below for run in runs)
    return {**noted, "parents": [parent.info.status for parent in parents], "running": running}


def logged(experiment: str) -> dict[str, str]:
    """State of an experiment's runs by name."""
    import mlflow

    client = mlflow.MlflowClient()
    place = client.get_experiment_by_name(experiment)
    runs = client.search_runs([place.experiment_id]) if place else []
    return {run.info.run_name: run.info.status for run in runs}


def outcomes(folder: str) -> list[dict[str, Any]]:
    """What the workers of a distributed training left."""
    return [json.loads(path.read_text()) for path in sorted(Path(folder).glob("outcome_*.json"))]


def ask(url: str, model: str, drivers: list[int], patience: float = 0) -> dict[str, Any]:
    """Ask the model server, until it answers 200 or the patience has ended; status, body, and seconds."""
    body = json.dumps({"instances": [{"driver_id": driver} for driver in drivers]}).encode()
    request = urllib.request.Request(
        f"{url}/v1/models/{model}:predict", body, {"Content-Type": "application/json"}
    )
    began = time.monotonic()
    while True:
        asked = time.monotonic()
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                status, text = response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            status, text = error.code, error.read().decode()
        except OSError as error:
            status, text = 0, json.dumps(str(error))
        now = time.monotonic()
        if status == 200 or now - began > patience:
            return {"status": status, "body": json.loads(text), "seconds": now - asked}
        time.sleep(0.5)


def promote(url: str, model: str, alias: str, version: str, drivers: list[int]) -> dict[str, Any]:
    """Move the alias; gives the answer once the server follows, or after a minute, and the seconds."""
    import mlflow

    mlflow.MlflowClient().set_registered_model_alias(model, alias, version)
    began = time.monotonic()
    while True:
        found = ask(url, model, drivers)
        waited = time.monotonic() - began
        if (found["status"] == 200 and found["body"]["model_version"] == version) or waited > 60:
            return {**found, "waited": waited}
        time.sleep(0.1)


def load(url: str, model: str, drivers: list[int], until: str) -> dict[str, int]:
    """Ask again and again until a file is there; answers by status."""
    found: dict[str, int] = {}
    while not Path(until).exists():
        status = str(ask(url, model, drivers)["status"])
        found[status] = found.get(status, 0) + 1
        time.sleep(0.05)
    return found


def end_load(until: str) -> None:
    """End what ``load`` does."""
    Path(until).touch()


def set_alias(model: str, alias: str, version: str) -> None:
    """Promote a version."""
    import mlflow

    mlflow.MlflowClient().set_registered_model_alias(model, alias, version)

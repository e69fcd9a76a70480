"""Feature selection: the post's loop, mended only where it does not run, and notebook 04's way. One contestant, one process.

python -m benchmarks.selection prepare|seed|seed_duckdb|workshop --home DIR --subsets 3
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

# Before feast: see lifecycle/serving.py.
import IPython.core.history  # noqa: F401  # isort: skip

import pandas as pd

from benchmarks.homes import applied_home
from helpers.workspace import Workspace, configure, quiet

VIEW = "driver_hourly_stats"
SUBSETS = {  # those of the post
    "all_features": ["conv_rate", "acc_rate", "avg_daily_trips"],
    "acc_rate_trips": ["acc_rate", "avg_daily_trips"],
    "acc_rate_only": ["acc_rate"],
}
REQUIREMENTS = ["scikit-learn", "skops"]  # named, as notebook 04 names them
METRICS = ["accuracy", "roc_auc", "precision", "recall", "f1"]


@dataclass(frozen=True)
class Story:
    """What features are selected for.

    Attributes:
        feature_repo: folder of ``feature_store.yaml``.
        project: Feast's project.
        registry: its file.
        labels: n rows with the keys, ``event_timestamp`` and the label.
        keys: columns that identify an entity.
        label: column of the outcome, 0 or 1.
        references: of each feature, by column.
        subsets: columns of each candidate.
    """

    feature_repo: Path
    project: str
    registry: Path
    labels: pd.DataFrame
    keys: list[str]
    label: str
    references: dict[str, str]
    subsets: dict[str, list[str]]


def drivers(workspace: Workspace) -> Story:
    """The post's three subsets of the course's hourly features."""
    labels = pd.read_parquet(workspace.data / "driver_labels.parquet")
    references = {name: f"{VIEW}:{name}" for name in SUBSETS["all_features"]}
    place = (workspace.feature_repo, "driver_ranking", workspace.path / "registry.db")
    return Story(*place, labels, ["driver_id"], "label", references, SUBSETS)


def flights(workspace: Workspace) -> Story:
    """The candidates of notebook 12."""
    from feast import FeatureStore

    from benchmarks.flights import CANDIDATES, LABEL
    from lifecycle.contract import FeatureContract

    project = workspace.path / "flights"
    feature_repo, labels = project / "feature_repo", pd.read_parquet(project / "labels.parquet")
    contract = FeatureContract.of_service(FeatureStore(repo_path=feature_repo), "everything", LABEL)
    references = dict(zip(contract.columns, contract.feature_refs, strict=True))
    subsets = json.loads((project / CANDIDATES).read_text())
    place = (feature_repo, contract.project, feature_repo / "registry.db")
    return Story(*place, labels, list(contract.join_keys), LABEL, references, subsets)


STORIES = {"drivers": drivers, "flights": flights}


class Clock:
    """Seconds by part."""

    def __init__(self) -> None:
        self.parts: dict[str, float] = {}

    @contextmanager
    def __call__(self, part: str):
        began = time.perf_counter()
        yield
        self.parts[part] = self.parts.get(part, 0) + time.perf_counter() - began


def digest(story: Story, frame: pd.DataFrame, columns: list[str]) -> str:
    """A hash of the training rows of one subset, whatever their order."""
    ordered = frame[[*story.keys, "event_timestamp", story.label, *columns]].astype(
        dict.fromkeys(columns, float)
    )
    ordered = ordered.sort_values(list(ordered.columns), ignore_index=True)
    return hashlib.sha256(pd.util.hash_pandas_object(ordered, index=False).to_numpy().tobytes()).hexdigest()


def by_the_seed(
    story: Story, entity_df: pd.DataFrame, subsets: dict, offline_store: str, clock: Clock, **options: object
) -> dict:
    """The post's loop. Mended: entities are objects (the course's definitions), rows without features leave, the model has a ``name``."""
    import mlflow
    import mlflow.sklearn
    from feast import FeatureStore, RepoConfig
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import train_test_split

    registry = str(story.registry)
    settings = {"project": story.project, "provider": "local", "registry": registry, "online_store": None}
    store = FeatureStore(
        config=RepoConfig(
            **settings, offline_store={"type": offline_store}, entity_key_serialization_version=3
        )
    )
    found = {}
    with mlflow.start_run(run_name="feast_feature_selection"):
        for subset_name, feature_cols in subsets.items():
            with clock("retrieve"):
                feature_df = store.get_historical_features(
                    entity_df=entity_df, features=[story.references[name] for name in feature_cols]
                ).to_df()
            came = len(feature_df)
            feature_df = feature_df.dropna()
            X, y = feature_df[feature_cols], feature_df[story.label]
            X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.2, random_state=42)
            with mlflow.start_run(run_name=subset_name, nested=True):
                mlflow.log_param("features", feature_cols)
                with clock("fit and score"):
                    model = LogisticRegression()
                    model.fit(X_train, y_train)
                    auc = roc_auc_score(y_test, model.predict_proba(X_test)[:, 1])
                mlflow.log_metric("auc", auc)
                with clock("log the model"):
                    mlflow.sklearn.log_model(model, name="model", **options)
            found[subset_name] = {"rows": came, "digest": digest(story, feature_df, feature_cols), "auc": auc}
    return found


def by_the_workshop(story: Story, labels: pd.DataFrame, subsets: dict, clock: Clock) -> dict:
    """Notebook 04's way: one guarded retrieval, a nested run a subset with five cross-validated metrics, one model: the winner's."""
    import mlflow
    import mlflow.sklearn
    from feast import FeatureStore
    from mlflow.models import infer_signature
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import TimeSeriesSplit, cross_validate
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from lifecycle.retrieval import historical_features

    store = FeatureStore(repo_path=story.feature_repo)
    every = list(dict.fromkeys(name for names in subsets.values() for name in names))
    found = {}
    with mlflow.start_run(run_name="feature_selection"):
        with clock("retrieve"):
            features = historical_features(store, labels, [story.references[name] for name in every])
        complete = features.dropna()
        for name, columns in subsets.items():
            with mlflow.start_run(run_name=name, nested=True):
                with clock("fit and score"):
                    model = make_pipeline(StandardScaler(), LogisticRegression())
                    splits = TimeSeriesSplit(n_splits=8)
                    result = cross_validate(
                        model, complete[columns], complete[story.label], cv=splits, scoring=METRICS
                    )
                mlflow.log_params({"features": columns, "num_features": len(columns)})
                mlflow.set_tags(
                    {"stage": "candidate", **{f"feature_{column}": "included" for column in columns}}
                )
                mlflow.log_metrics({metric: result[f"test_{metric}"].mean() for metric in METRICS})
                for step, value in enumerate(result["test_roc_auc"]):
                    mlflow.log_metric("block_auc", value, step=step)
            found[name] = {
                "rows": len(features),
                "digest": digest(story, features.dropna(subset=columns), columns),
            }
            found[name]["auc"] = result["test_roc_auc"].mean()
        winner = subsets[max(found, key=lambda name: found[name]["auc"])]
        with clock("fit and score"):
            model.fit(complete[winner], complete[story.label])
        with clock("log the model"), mlflow.start_run(run_name="winner", nested=True):
            signature = infer_signature(complete[winner], model.predict_proba(complete[winner])[:, 1])
            mlflow.sklearn.log_model(model, name="model", signature=signature, pip_requirements=REQUIREMENTS)
    return found


def measured(what: str, name: str, story: Story, count: int | None) -> dict:
    """One contestant on one story: seconds, by part too, and what it trained on."""
    subsets = dict(list(story.subsets.items())[:count])

    def way(asked: pd.DataFrame, chosen: dict, clock: Clock, **options: object) -> dict:
        if what == "workshop":
            return by_the_workshop(story, asked, chosen, clock)
        store = {"seed": "dask", "seed_duckdb": "duckdb"}[what]
        return by_the_seed(story, asked, chosen, store, clock, **options)

    # Once on a few rows: what the tools import at their first call is not counted.
    first = {} if what == "workshop" else {"pip_requirements": REQUIREMENTS}
    way(story.labels.head(200), dict(list(story.subsets.items())[-1:]), Clock(), **first)
    clock, load = Clock(), os.getloadavg()[0]
    cpu, began = os.times(), time.perf_counter()
    found = way(story.labels, subsets, clock)
    seconds, now = time.perf_counter() - began, os.times()
    used = sum(now[:4]) - sum(cpu[:4])  # with its children: inferring requirements starts another Python
    return {
        "data": name,
        "contestant": what,
        "seconds": seconds,
        "cpu_seconds": used,
        "parts": clock.parts | {"else": seconds - sum(clock.parts.values())},
        "subsets": found,
        "labels": len(story.labels),
        "load": load,
    }


def main(argv: list[str] | None = None) -> None:
    """The command line of the process of one contestant."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.selection", description=__doc__)
    parser.add_argument("what", choices=["prepare", "seed", "seed_duckdb", "workshop"])
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--subsets", type=int, help="the first few alone")
    arguments = parser.parse_args(argv)
    if arguments.what == "prepare":
        applied_home(arguments.home)
        return
    workspace = Workspace(arguments.home.resolve())
    configure(workspace)
    import feast  # noqa: F401
    import mlflow
    import sklearn.model_selection  # noqa: F401

    quiet()
    mlflow.set_experiment("selection")
    # Feast's default store joins a label with every row of its keys before it chooses, of an airport thousands: it was ended after minutes, at 7 GB.
    names = ["drivers"] if arguments.what == "seed" else list(STORIES)
    print(
        json.dumps(
            [measured(arguments.what, name, STORIES[name](workspace), arguments.subsets) for name in names]
        )
    )


if __name__ == "__main__":
    main()

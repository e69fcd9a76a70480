"""The training pipeline of notebook 06, which shows and compiles it.

Kubeflow stores the source text of each component: it imports all it needs in its own body, and on a cluster shares nothing with its neighbours but
what it declares. The tracking address is not a parameter: each step finds it in ``MLFLOW_TRACKING_URI``.
"""

import builtins
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

from kfp import dsl, kubernetes

IMAGE = "driver-ranking-workshop:1.0"  # built from this repository's lock; on a laptop the environment at hand takes its place
component = dsl.component(base_image=IMAGE, install_kfp_package=False)


@contextmanager
def local_run(log: Path) -> Iterator[None]:
    """What Kubeflow's local runner (2.17) needs around it; its output goes to the file ``log``.

    It pastes the path of Python into a shell script without quotes, so a path with a space would end at the space. And it indents by replacing
    Python's own ``print``: with parallel steps it may not put the right one back.
    """
    log.parent.mkdir(exist_ok=True)
    own_print, own_path = builtins.print, sys.executable
    sys.executable = shlex.quote(own_path)
    try:
        with log.open("a") as file, redirect_stdout(file), redirect_stderr(file):
            yield
    finally:
        builtins.print, sys.executable = own_print, own_path


def on_cluster(task: dsl.PipelineTask) -> dsl.PipelineTask:
    """What a step needs on a cluster: limits, the tracking address, its password, and a volume. The local runner ignores all four."""
    kubernetes.use_config_map_as_env(task, "mlflow", {"tracking-uri": "MLFLOW_TRACKING_URI"})
    kubernetes.use_secret_as_env(task, "mlflow-login", {"password": "MLFLOW_TRACKING_PASSWORD"})
    kubernetes.mount_pvc(task, pvc_name="driver-ranking", mount_path="/driver-ranking")
    return task.set_cpu_limit("1").set_memory_limit("2Gi")


@component
def retrieve_features(
    feature_repo: str, labels: str, feature_service: str, run_name: str, table: dsl.Output[dsl.Dataset]
) -> str:
    """Point-in-time features for the labels, and the MLflow run that all steps nest under; gives its id."""
    import mlflow
    import pandas as pd
    from feast import FeatureStore

    from helpers import feature_references, historical_features

    store = FeatureStore(repo_path=feature_repo)
    service = store.get_feature_service(feature_service)
    experiment = mlflow.set_experiment("training_pipeline")
    parent = mlflow.MlflowClient().create_run(experiment.experiment_id, run_name=run_name).info.run_id
    with mlflow.start_run(run_name="retrieve", parent_run_id=parent):
        frame = historical_features(store, pd.read_parquet(labels), service)
        mlflow.log_metric("rows", len(frame))
    frame.to_parquet(table.path)
    references = feature_references(store, service)
    table.metadata["columns"] = [reference.split(":")[1] for reference in references]
    table.metadata |= {"project": store.project, "feature_service": feature_service, "feature_refs": references}
    return parent


@component
def validate_features(table: dsl.Input[dsl.Dataset], parent_run: str, report: dsl.Output[dsl.HTML]) -> bool:
    """Stop here when the training data breaks an expectation, before it becomes a model."""
    import great_expectations as gx
    import great_expectations.expectations as gxe
    import mlflow
    import pandas as pd

    frame, columns = pd.read_parquet(table.path), table.metadata["columns"]
    suite = gx.ExpectationSuite(
        "training", expectations=[gxe.ExpectColumnValuesToBeInSet(column="label", value_set=[0, 1])]
    )
    suite.expectations += [gxe.ExpectColumnValuesToNotBeNull(column=name, mostly=0.95) for name in columns]
    rates = [name for name in columns if name.endswith("_rate")]
    suite.expectations += [gxe.ExpectColumnValuesToBeBetween(column=name, min_value=0, max_value=1) for name in rates]
    source = gx.get_context(mode="ephemeral").data_sources.add_pandas("pipeline").add_dataframe_asset("table")
    batch = source.add_batch_definition_whole_dataframe("all").get_batch({"dataframe": frame})
    results = batch.validate(suite).results
    outcome = {
        f"{r.expectation_config.type}({r.expectation_config.kwargs['column']})": bool(r.success) for r in results
    }
    pd.Series(outcome, name="passed").to_frame().to_html(report.path)
    failed = [name for name, passed in outcome.items() if not passed]
    mlflow.set_experiment("training_pipeline")
    with mlflow.start_run(run_name="validate", parent_run_id=parent_run):
        mlflow.log_metrics({"expectations": len(outcome), "failed_expectations": len(failed)})
        if failed:
            raise ValueError("the training data breaks its expectations: " + ", ".join(failed))
    return True


@component
def train_model(
    table: dsl.Input[dsl.Dataset],
    parent_run: str,
    checked: bool,
    C: float,
    degree: int,
    weights: str,
    model: dsl.Output[dsl.Model],
):
    """Fit on the earlier three quarters of the labels. ``checked`` only makes this step wait for validation."""
    import joblib
    import mlflow
    import pandas as pd
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import PolynomialFeatures, StandardScaler

    frame = pd.read_parquet(table.path)
    train = frame[frame.event_timestamp <= frame.event_timestamp.quantile(0.75)].dropna()
    powers = PolynomialFeatures(degree, include_bias=False)
    weight = "balanced" if weights == "balanced" else None
    fitted = make_pipeline(StandardScaler(), powers, LogisticRegression(C=C, class_weight=weight, max_iter=1000))
    joblib.dump(fitted.fit(train[table.metadata["columns"]], train.label), model.path)
    mlflow.set_experiment("training_pipeline")
    with mlflow.start_run(run_name="train", parent_run_id=parent_run):
        mlflow.log_params({"C": C, "degree": degree, "weights": weights, "rows": len(train)})


@component
def evaluate_model(
    table: dsl.Input[dsl.Dataset], model: dsl.Input[dsl.Model], parent_run: str, metrics: dsl.Output[dsl.Metrics]
) -> float:
    """AUC on the later quarter, which training did not see."""
    import joblib
    import mlflow
    import pandas as pd
    from sklearn.metrics import accuracy_score, roc_auc_score

    frame = pd.read_parquet(table.path)
    later = frame[frame.event_timestamp > frame.event_timestamp.quantile(0.75)].dropna()
    scores = joblib.load(model.path).predict_proba(later[table.metadata["columns"]])[:, 1]
    auc, accuracy = roc_auc_score(later.label, scores), accuracy_score(later.label, scores > 0.5)
    metrics.log_metric("auc", auc)
    metrics.log_metric("accuracy", accuracy)
    mlflow.set_experiment("training_pipeline")
    with mlflow.start_run(run_name="evaluate", parent_run_id=parent_run):
        mlflow.log_metrics({"auc": auc, "accuracy": accuracy})
    return float(auc)


@component
def register_model(table: dsl.Input[dsl.Dataset], model: dsl.Input[dsl.Model], parent_run: str, model_name: str) -> int:
    """Store the model in MLflow with signature, exact requirements and feature contract; gives its version."""
    import json
    from importlib.metadata import version

    import joblib
    import mlflow
    import pandas as pd

    contract = {**table.metadata, "join_keys": ["driver_id"]}
    fitted = joblib.load(model.path)
    inputs = pd.read_parquet(table.path)[contract["columns"]].dropna().astype("float64").head(100)
    signature = mlflow.models.infer_signature(inputs, fitted.predict_proba(inputs)[:, 1])
    requirements = [f"{name}=={version(name)}" for name in ("scikit-learn", "skops")]
    stored = {"signature": signature, "pip_requirements": requirements, "metadata": {"feast": contract}}
    mlflow.set_experiment("training_pipeline")
    with mlflow.start_run(run_name="register", parent_run_id=parent_run):
        logged = mlflow.sklearn.log_model(fitted, name="model", **stored)
    tags = {f"feast.{name}": json.dumps(contract[name]).strip('"') for name in ("feature_service", "feature_refs")}
    tags |= {"workshop.notebook": "06", "pipeline.parent_run": parent_run}
    return int(mlflow.register_model(logged.model_uri, model_name, tags=tags).version)


@component
def close_run(run_name: str, status: dsl.PipelineTaskFinalStatus):
    """Runs last, whatever happened. It can take no other step's output, so it finds the parent run by its name."""
    import mlflow

    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name("training_pipeline")
    named = f"attributes.run_name = '{run_name}'"
    for run in client.search_runs([experiment.experiment_id], named) if experiment else []:
        client.set_terminated(run.info.run_id, "FINISHED" if status.state == "SUCCEEDED" else "FAILED")


@dsl.pipeline(
    name="driver-training-pipeline", description="Retrieve, validate, train, evaluate; register if good enough."
)
def driver_training(
    feature_repo: str,
    labels: str,
    feature_service: str,
    run_name: str,
    model_name: str,
    C: float,
    degree: int,
    weights: str,
    threshold: float,
):
    """Retrieve, validate, train, evaluate; register when the gate opens; close the run in any case."""
    with dsl.ExitHandler(on_cluster(close_run(run_name=run_name))):
        retrieved = retrieve_features(
            feature_repo=feature_repo, labels=labels, feature_service=feature_service, run_name=run_name
        )
        # A cluster reuses a step's outputs when its inputs are the same. These are paths: the data behind them changes.
        on_cluster(retrieved).set_caching_options(False)
        data = {"table": retrieved.outputs["table"], "parent_run": retrieved.outputs["Output"]}
        checked = on_cluster(validate_features(**data)).outputs["Output"]
        training = train_model(**data, checked=checked, C=C, degree=degree, weights=weights)
        model = on_cluster(training).outputs["model"]
        auc = on_cluster(evaluate_model(**data, model=model)).outputs["Output"]
        with dsl.If(auc >= threshold, name="good-enough"):
            on_cluster(register_model(**data, model=model, model_name=model_name))

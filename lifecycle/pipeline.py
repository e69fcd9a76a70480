"""The training pipeline: retrieve, validate, train, evaluate, compare, and register a model that is better.

Kubeflow stores the source text of each component: it imports all it needs in its own body, and on a cluster
shares nothing with its neighbours except what it declares. The tracking address is not a parameter: each step
finds it in ``MLFLOW_TRACKING_URI``.
"""

import builtins
import logging
import re
import shlex
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import TextIOBase
from pathlib import Path
from typing import TextIO

from kfp import components, dsl, kubernetes

from lifecycle import IMAGE
from lifecycle.cluster import CLAIM, LOGIN, TRACKING, VOLUME

component = dsl.component(base_image=IMAGE, install_kfp_package=False)


class _Log(TextIOBase):
    """A log that prints a line to ``shown`` for each step whose end the runner notes in it."""

    def __init__(self, file: TextIO, shown: TextIO) -> None:
        self.file, self.shown = file, shown

    def write(self, text: str) -> int:
        if ended := re.search(r"Task \S*'([\w-]+)'\S* finished with status \S*(SUCCESS|FAILURE)", text):
            self.shown.write(f"{ended[1]}: {ended[2].lower()}\n")
            self.shown.flush()
        return self.file.write(text)

    def flush(self) -> None:
        self.file.flush()


@contextmanager
def local_run(log: Path, show_steps: bool = False) -> Iterator[None]:
    """What Kubeflow's local runner (2.17) needs around it; its output goes to the file ``log``.

    It pastes the path of Python into a shell script without quotes, so a path with a space would end at the
    space. And it indents by replacing Python's own ``print``, and logs by replacing the root logger's
    handlers: with parallel steps it may not put the right ones back.

    Args:
        log: file to append to.
        show_steps: print a line when a step has ended. Parallel steps share one logger, and some of their
            ends are lost.
    """
    log.parent.mkdir(exist_ok=True)
    own_print, own_path = builtins.print, sys.executable
    root = logging.getLogger()
    own_handlers, own_level = root.handlers[:], root.level
    sys.executable = shlex.quote(own_path)
    try:
        with log.open("a") as file:
            output = _Log(file, sys.stdout) if show_steps else file
            with redirect_stdout(output), redirect_stderr(output):
                yield
    finally:
        builtins.print, sys.executable = own_print, own_path
        root.handlers[:] = own_handlers  # a handler that stays writes to a log that is closed
        root.setLevel(own_level)


def run_file(file: Path, arguments: Mapping[str, object], log: Path, show_steps: bool = False) -> None:
    """Run a compiled pipeline from its file, with the local runner that ``kfp.local.init`` chose.

    Args:
        file: the compiled pipeline.
        arguments: of the pipeline, by name.
        log: file to append the runner's output to.
        show_steps: print a line when a step has ended.
    """
    compiled = components.load_component_from_file(str(file))
    with local_run(log, show_steps):
        compiled(**arguments)


def on_cluster(task: dsl.PipelineTask) -> dsl.PipelineTask:
    """What a step needs on a cluster: limits, the tracking address, its password, and a volume.

    The local runner leaves out the last three, and warns in its log that the limits have no effect.
    """
    config_map, address = TRACKING
    secret, password = LOGIN
    kubernetes.use_config_map_as_env(task, config_map, {address: "MLFLOW_TRACKING_URI"})
    kubernetes.use_secret_as_env(task, secret, {password: "MLFLOW_TRACKING_PASSWORD"})
    kubernetes.mount_pvc(task, pvc_name=CLAIM, mount_path=VOLUME)
    return task.set_cpu_limit("1").set_memory_limit("2Gi")


@component
def retrieve_features(
    feature_repo: str,
    labels: str,
    feature_service: str,
    label: str,
    experiment: str,
    run_name: str,
    table: dsl.Output[dsl.Dataset],
) -> str:
    """Point-in-time features for the labels, and the MLflow run that all steps nest under; gives its id."""
    import mlflow
    import pandas as pd
    from feast import FeatureStore

    from lifecycle.contract import FeatureContract
    from lifecycle.retrieval import historical_features

    store = FeatureStore(repo_path=feature_repo)
    contract = FeatureContract.of_service(store, feature_service, label)
    experiment_id = mlflow.set_experiment(experiment).experiment_id
    parent = mlflow.MlflowClient().create_run(experiment_id, run_name=run_name).info.run_id
    with mlflow.start_run(run_name="retrieve", parent_run_id=parent):
        frame = historical_features(
            store, pd.read_parquet(labels), store.get_feature_service(feature_service)
        )
        mlflow.log_metric("rows", len(frame))
    frame.to_parquet(table.path)
    table.metadata.update(contract.to_dict())
    return parent


@component
def validate_features(
    table: dsl.Input[dsl.Dataset],
    parent_run: str,
    experiment: str,
    feature_repo: str,
    reference: str,
    report: dsl.Output[dsl.HTML],
) -> bool:
    """Stop here when the training data breaks an expectation of the suite of the saved dataset ``reference``.

    Also when a definition has changed since the retrieval.
    """
    import mlflow
    import pandas as pd
    from feast import FeatureStore

    from lifecycle.contract import FeatureContract
    from lifecycle.validation import judge, stored_suite

    contract = FeatureContract.from_dict(table.metadata)
    store = FeatureStore(repo_path=feature_repo)
    mlflow.set_experiment(experiment)
    with mlflow.start_run(run_name="validate", parent_run_id=parent_run):
        contract.check(store)
        suite = stored_suite(store, reference)
        found = judge(suite, pd.read_parquet(table.path), [*contract.columns, contract.label])
        found.outcomes().to_html(report.path)
        mlflow.log_metrics({"expectations": len(found.outcomes()), "failed_expectations": len(found.errors)})
        if not found.is_success:
            raise ValueError(f"the training data breaks its expectations:\n{found}")
    return True


@component
def train_model(
    table: dsl.Input[dsl.Dataset],
    parent_run: str,
    experiment: str,
    checked: bool,
    C: float,
    degree: int,
    weights: str,
    model: dsl.Output[dsl.Model],
) -> None:
    """Fit on the selection days. ``checked`` only makes this step wait for validation."""
    import mlflow
    import pandas as pd

    from lifecycle.contract import FeatureContract
    from lifecycle.model import new_model, save, split

    contract = FeatureContract.from_dict(table.metadata)
    rows, _ = split(pd.read_parquet(table.path))
    fitted = new_model(C=C, degree=degree, weights=weights).fit(rows[contract.columns], rows[contract.label])
    save(fitted, model.path)
    mlflow.set_experiment(experiment)
    with mlflow.start_run(run_name="train", parent_run_id=parent_run):
        mlflow.log_params({"C": C, "degree": degree, "weights": weights, "rows": len(rows)})


@component
def evaluate_model(
    table: dsl.Input[dsl.Dataset],
    model: dsl.Input[dsl.Model],
    parent_run: str,
    experiment: str,
    metrics: dsl.Output[dsl.Metrics],
) -> float:
    """AUC on the held-out days, which training did not see."""
    import mlflow
    import pandas as pd
    from sklearn.metrics import accuracy_score, roc_auc_score

    from lifecycle.contract import FeatureContract
    from lifecycle.model import load, split

    contract = FeatureContract.from_dict(table.metadata)
    _, rows = split(pd.read_parquet(table.path))
    scores = load(model.path).predict_proba(rows[contract.columns])[:, 1]
    auc = float(roc_auc_score(rows[contract.label], scores))
    accuracy = float(accuracy_score(rows[contract.label], scores > 0.5))
    metrics.log_metric("auc", auc)
    metrics.log_metric("accuracy", accuracy)
    mlflow.set_experiment(experiment)
    with mlflow.start_run(run_name="evaluate", parent_run_id=parent_run):
        mlflow.log_metrics({"auc": auc, "accuracy": accuracy})
    return auc


@component
def compare_with_champion(
    table: dsl.Input[dsl.Dataset],
    model: dsl.Input[dsl.Model],
    parent_run: str,
    experiment: str,
    model_name: str,
    champion: str,
) -> bool:
    """Whether the new model beats the version ``champion`` on the held-out days.

    Without a champion there is none to beat.
    """
    if not champion:
        return True
    import mlflow
    import pandas as pd

    from lifecycle.comparison import compare
    from lifecycle.contract import FeatureContract
    from lifecycle.model import load, split
    from lifecycle.versions import numbered, read

    contract = FeatureContract.from_dict(table.metadata)
    old, theirs = read(model_name, numbered(mlflow.MlflowClient(), model_name, champion))
    _, rows = split(pd.read_parquet(table.path))
    missing = sorted(set(theirs.columns) - set(rows.columns))
    if missing:
        raise ValueError(
            f"the champion reads {', '.join(missing)}, which {contract.feature_service!r} does not hold."
        )
    champion_scores = old.predict_proba(rows[theirs.columns])[:, 1]
    scores = load(model.path).predict_proba(rows[contract.columns])[:, 1]
    found = compare(rows[contract.label], champion_scores, scores, rows[list(contract.join_keys)])
    mlflow.set_experiment(experiment)
    with mlflow.start_run(run_name="compare", parent_run_id=parent_run):
        mlflow.log_metrics(found.figures())
        mlflow.set_tags({"champion": champion, "outcome": str(found)})
    return found.better


@component
def register_model(
    table: dsl.Input[dsl.Dataset],
    model: dsl.Input[dsl.Model],
    parent_run: str,
    experiment: str,
    model_name: str,
) -> int:
    """Store the model in MLflow with signature, exact requirements and contract; gives its version."""
    from importlib.metadata import version

    import mlflow
    import pandas as pd

    from lifecycle.contract import FeatureContract
    from lifecycle.model import load

    contract = FeatureContract.from_dict(table.metadata)
    fitted = load(model.path)
    inputs = pd.read_parquet(table.path)[contract.columns].dropna().astype("float64").head(100)
    mlflow.set_experiment(experiment)
    with mlflow.start_run(run_name="register", parent_run_id=parent_run):
        logged = mlflow.sklearn.log_model(
            fitted,
            name="model",
            signature=mlflow.models.infer_signature(inputs, fitted.predict_proba(inputs)[:, 1]),
            pip_requirements=[f"{name}=={version(name)}" for name in ("scikit-learn", "skops")],
            metadata={"feast": contract.to_dict()},
            input_example=inputs.head(5),
            serialization_format="skops",
        )
    tags = {**contract.tags(), "made_by": "pipeline", "pipeline.parent_run": parent_run}
    return int(mlflow.register_model(logged.model_uri, model_name, tags=tags).version)


@component
def close_run(experiment: str, run_name: str, status: dsl.PipelineTaskFinalStatus) -> None:
    """Runs last, whatever happened.

    It can take no other step's output, so it finds the parent run by its name.
    """
    import mlflow

    client = mlflow.MlflowClient()
    found = client.get_experiment_by_name(experiment)
    named = f"attributes.run_name = '{run_name}'"
    for run in client.search_runs([found.experiment_id], named) if found else []:
        client.set_terminated(run.info.run_id, "FINISHED" if status.state == "SUCCEEDED" else "FAILED")


@dsl.pipeline(
    name="training-pipeline",
    description="Retrieve, validate, train, evaluate, compare; register if good enough and better.",
)
def training(
    feature_repo: str,
    labels: str,
    feature_service: str,
    label: str,
    reference: str,
    experiment: str,
    run_name: str,
    model_name: str,
    C: float,
    degree: int,
    weights: str,
    threshold: float,
    champion: str = "",
) -> None:
    """Retrieve, validate, train, evaluate, compare; register when both gates open; close the run in any case.

    Args:
        feature_repo: folder of ``feature_store.yaml``.
        labels: parquet file with the join keys, ``event_timestamp`` and the label.
        feature_service: name of the features to train on.
        label: the column to predict, 0 or 1.
        reference: saved dataset whose expectation suite the data must meet.
        experiment: of MLflow, for the run and its steps.
        run_name: of the parent run, new each time.
        model_name: in MLflow's model registry.
        C: a hyperparameter, as in ``lifecycle.model.new_model``.
        degree: the same.
        weights: the same.
        threshold: AUC on the held-out days that a model must reach to be registered.
        champion: number of the version of ``model_name`` that it must beat on the same days; none when left
            out.
    """
    # A cluster reuses a step's outputs when code and inputs are the same. What registers a model or closes a
    # run must run each time.
    closed = close_run(experiment=experiment, run_name=run_name)
    on_cluster(closed).set_caching_options(False)
    with dsl.ExitHandler(closed):
        retrieved = retrieve_features(
            feature_repo=feature_repo,
            labels=labels,
            feature_service=feature_service,
            label=label,
            experiment=experiment,
            run_name=run_name,
        )
        # So must this one: its inputs are paths, and the data behind them changes.
        on_cluster(retrieved).set_caching_options(False)
        table, parent_run = retrieved.outputs["table"], retrieved.outputs["Output"]

        validated = validate_features(
            table=table,
            parent_run=parent_run,
            experiment=experiment,
            feature_repo=feature_repo,
            reference=reference,
        )
        on_cluster(validated)

        trained = train_model(
            table=table,
            parent_run=parent_run,
            experiment=experiment,
            checked=validated.outputs["Output"],
            C=C,
            degree=degree,
            weights=weights,
        )
        on_cluster(trained)
        model = trained.outputs["model"]

        evaluated = evaluate_model(table=table, model=model, parent_run=parent_run, experiment=experiment)
        on_cluster(evaluated)

        with dsl.If(evaluated.outputs["Output"] >= threshold, name="good-enough"):
            compared = compare_with_champion(
                table=table,
                model=model,
                parent_run=parent_run,
                experiment=experiment,
                model_name=model_name,
                champion=champion,
            )
            # The champion is a name here, and another model tomorrow.
            on_cluster(compared).set_caching_options(False)
            # Python doesn't evaluate this comparison: it becomes a condition of the compiled file.
            with dsl.If(compared.output == True, name="better"):  # noqa: E712
                registered = register_model(
                    table=table,
                    model=model,
                    parent_run=parent_run,
                    experiment=experiment,
                    model_name=model_name,
                )
                on_cluster(registered).set_caching_options(False)

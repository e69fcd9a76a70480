"""The training pipeline: retrieve, validate, train, evaluate, compare, and register a model that is better.

Kubeflow stores the source text of each component: it imports all it needs in its own body, and on a cluster
shares nothing with its neighbours except what it declares. The tracking address is not a parameter: each step
finds it in ``MLFLOW_TRACKING_URI``.
"""

import contextlib
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from kfp import components, dsl, kubernetes
from kfp.dsl import pipeline_task
from kfp.dsl.base_component import BaseComponent

from lifecycle.models.recipe import Recipe
from lifecycle.objects import LABELS, PATIENCE, TRACKING, USER, secrets
from lifecycle.settings import IMAGE, Cluster, Settings
from lifecycle.training.local_runner import local_run

component = dsl.component(base_image=IMAGE, install_kfp_package=False)


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


def arguments(settings: Settings, run_name: str = "", recipe: Recipe | None = None, **changes: Any) -> dict:
    """The pipeline's arguments, by name, as a project's settings say them.

    Args:
        settings: of the project.
        run_name: of the parent run; when left out, the id that Kubeflow gives the run.
        recipe: of the model; that of the settings when left out.
        changes: arguments that differ.
    """
    recipe = recipe or Recipe.from_settings(settings.training)
    return {
        "feature_repo": str(settings.path(settings.feature_repo).resolve()),
        "labels": str(settings.path(settings.labels).resolve()),
        "feature_service": settings.feature_service,
        "label": settings.label,
        "reference": settings.reference,
        "experiment": settings.training.experiment,
        "run_name": run_name,
        "model_name": settings.model,
        "threshold": settings.training.threshold,
        "held_out": settings.training.held_out,
        "confidence": settings.training.confidence,
        "fewest": settings.training.fewest,
        **recipe.to_dict(),
        "hyperparameters": json.dumps(recipe.hyperparameters),
        **changes,
    }


def on_cluster(task: dsl.PipelineTask, cluster: Cluster) -> dsl.PipelineTask:
    """What a step needs on a cluster: image, resources, user, MLflow's address, logins, label, a volume.

    The local runner leaves out the last five, and warns in its log that the resources have no effect.

    Args:
        task: the step.
        cluster: the settings of that name.
    """
    config_map, address = TRACKING
    kubernetes.use_config_map_as_env(task, config_map, {address: "MLFLOW_TRACKING_URI"})
    for variable, (secret, key) in secrets(cluster).items():
        kubernetes.use_secret_as_env(task, secret, {key: variable})
    for variable, value in PATIENCE.items():
        task.set_env_variable(variable, value)
    for label, value in LABELS.items():
        kubernetes.add_pod_label(task, label, value)
    kubernetes.mount_pvc(task, pvc_name=cluster.claim, mount_path=cluster.volume)
    # The image names the user too, but Kubernetes doesn't take the group from there.
    kubernetes.set_security_context(task, run_as_user=USER, run_as_group=USER, run_as_non_root=True)
    task.set_container_image(cluster.image)
    # Without requests Kubernetes would reserve the limits.
    task.set_cpu_request(cluster.step.cpu).set_memory_request(cluster.step.memory)
    return task.set_cpu_limit(cluster.step.cpu_limit).set_memory_limit(cluster.step.memory_limit)


@component
def retrieve_features(
    feature_repo: str,
    labels: str,
    feature_service: str,
    label: str,
    experiment: str,
    pipeline_run: str,
    table: dsl.Output[dsl.Dataset],
    run_name: str = "",
    task: str = "binary",
    held_out: float = 0.25,
) -> str:
    """Point-in-time features for the labels, and the MLflow run that all steps nest under; gives its id."""
    import mlflow
    import pandas as pd
    from feast import FeatureStore

    from lifecycle.features.contract import FeatureContract
    from lifecycle.features.labels import in_words, training_table
    from lifecycle.training.outcome import add_to_record, open_parent

    parent = open_parent(experiment, pipeline_run, run_name)
    with mlflow.start_run(run_name="retrieve", parent_run_id=parent):
        store = FeatureStore(repo_path=feature_repo)
        contract = FeatureContract.from_feature_service(store, feature_service, label)
        frame, dropped = training_table(store, pd.read_parquet(labels), contract, task)
        rows = len(frame.dropna())
        mlflow.log_metrics({"rows": len(frame), "complete_rows": rows})
    print(f"{rows} complete rows; left out: {in_words(dropped) or 'none'}")
    add_to_record(parent, rows=rows, dropped=dropped)
    frame.to_parquet(table.path)
    table.metadata.update(contract=contract.to_json(), held_out=held_out)
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
    import logging

    import mlflow
    import pandas as pd
    from feast import FeatureStore

    from lifecycle.features.contract import FeatureContract
    from lifecycle.features.validation import judge, stored_suite

    # Kubeflow's executor shows INFO, of which Great Expectations has hundreds of lines.
    logging.getLogger("great_expectations").setLevel(logging.WARNING)
    contract = FeatureContract.from_json(table.metadata.get("contract"))
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
    hyperparameters: str,
    model: dsl.Output[dsl.Model],
    estimator: str = "lifecycle.models.model:new_model",
    task: str = "binary",
    metric: str = "roc_auc",
    types: list = [],  # noqa: B006
) -> None:
    """Fit on the selection days. ``checked`` only makes this step wait for validation."""
    import json

    import mlflow
    import pandas as pd

    from lifecycle.features.contract import FeatureContract
    from lifecycle.models.model import check_features, save, split
    from lifecycle.models.recipe import Recipe

    contract = FeatureContract.from_json(table.metadata.get("contract"))
    recipe = Recipe(estimator, task, metric, tuple(types), json.loads(hyperparameters))
    rows, _ = split(pd.read_parquet(table.path), table.metadata["held_out"])
    check_features(rows[contract.columns])
    save(recipe.new_estimator().fit(rows[contract.columns], rows[contract.label]), model.path)
    model.metadata["recipe"] = json.dumps(recipe.to_dict())
    mlflow.set_experiment(experiment)
    with mlflow.start_run(run_name="train", parent_run_id=parent_run):
        mlflow.log_params({**recipe.hyperparameters, "estimator": estimator, "rows": len(rows)})


@component
def evaluate_model(
    table: dsl.Input[dsl.Dataset],
    model: dsl.Input[dsl.Model],
    parent_run: str,
    experiment: str,
    threshold: float,
    metrics: dsl.Output[dsl.Metrics],
) -> float:
    """The metric on the held-out days, which training did not see."""
    import json

    import mlflow
    import pandas as pd

    from lifecycle.features.contract import FeatureContract
    from lifecycle.models.model import load, split
    from lifecycle.models.recipe import Recipe, scorer
    from lifecycle.training.outcome import add_to_record

    contract = FeatureContract.from_json(table.metadata.get("contract"))
    recipe = Recipe.from_dict(json.loads(model.metadata["recipe"]))
    _, rows = split(pd.read_parquet(table.path), table.metadata["held_out"])
    predictions = recipe.predictions(load(model.path, recipe.allowed_types), rows[contract.columns])
    score = recipe.score(rows[contract.label], predictions)
    found = {recipe.score_name: score}
    if recipe.task == "binary":
        found["accuracy"] = scorer("accuracy", recipe.task)(rows[contract.label].to_numpy(), predictions)
    for name, value in found.items():
        metrics.log_metric(name, value)
    mlflow.set_experiment(experiment)
    with mlflow.start_run(run_name="evaluate", parent_run_id=parent_run):
        mlflow.log_metrics(found)
    name = "AUC" if recipe.metric == "roc_auc" else recipe.metric
    closed = not score >= threshold
    add_to_record(
        parent_run,
        metric=recipe.metric,
        score=score,
        threshold=threshold,
        gate="good-enough" if closed else "",
        reason=f"the challenger's {name} is {score:.3f}, below {threshold}" if closed else "",
    )
    return score


@component
def compare_with_champion(
    table: dsl.Input[dsl.Dataset],
    model: dsl.Input[dsl.Model],
    parent_run: str,
    experiment: str,
    model_name: str,
    champion: str,
    confidence: float = 0.95,
    fewest: int = 20,
) -> bool:
    """Whether the new model beats the version ``champion`` on the held-out days.

    Without a champion there is none to beat.
    """
    if not champion:
        return True
    import json

    import mlflow
    import pandas as pd

    from lifecycle.features.contract import FeatureContract
    from lifecycle.models.model import load, split
    from lifecycle.models.recipe import Recipe
    from lifecycle.models.versions import load_version, version_by_number
    from lifecycle.training.comparison import compare
    from lifecycle.training.outcome import add_to_record

    contract = FeatureContract.from_json(table.metadata.get("contract"))
    recipe = Recipe.from_dict(json.loads(model.metadata["recipe"]))
    version = version_by_number(mlflow.MlflowClient(), model_name, champion)
    old, theirs = load_version(model_name, version, types=recipe.allowed_types, task=recipe.task)
    _, rows = split(pd.read_parquet(table.path), table.metadata["held_out"])
    ours = dict(zip(contract.feature_refs, contract.columns, strict=True))
    missing = sorted(set(theirs.feature_refs) - set(ours))
    if missing:
        raise ValueError(
            f"the champion reads {', '.join(missing)}, which {contract.feature_service!r} does not hold."
        )
    # A feature's column in one contract may have another name in the other, and one name be two features.
    asked = rows[[ours[reference] for reference in theirs.feature_refs]].set_axis(theirs.columns, axis=1)
    found = compare(
        rows[contract.label],
        recipe.predictions(old, asked),
        recipe.predictions(load(model.path, recipe.allowed_types), rows[contract.columns]),
        rows[list(contract.join_keys)],
        metric=recipe.metric,
        task=recipe.task,
        confidence=confidence,
        fewest=fewest,
    )
    mlflow.set_experiment(experiment)
    with mlflow.start_run(run_name="compare", parent_run_id=parent_run):
        mlflow.log_metrics(found.figures())
        mlflow.set_tags({"champion": champion, "outcome": str(found)})
    add_to_record(
        parent_run,
        champion=champion,
        champion_score=found.champion,
        gate="" if found.better else "better",
        reason=str(found) if found.better else f"the challenger is not better, {found}",
    )
    return found.better


@component
def register_model(
    table: dsl.Input[dsl.Dataset],
    model: dsl.Input[dsl.Model],
    parent_run: str,
    experiment: str,
    model_name: str,
) -> int:
    """Store the model in MLflow with signature, requirements, contract, and recipe; gives its version."""
    import json

    import mlflow
    import pandas as pd

    from lifecycle.features.contract import FeatureContract
    from lifecycle.models.model import load
    from lifecycle.models.recipe import Recipe
    from lifecycle.models.registering import log_model
    from lifecycle.training.outcome import add_to_record

    contract = FeatureContract.from_json(table.metadata.get("contract"))
    recipe = Recipe.from_dict(json.loads(model.metadata["recipe"]))
    inputs = pd.read_parquet(table.path)[contract.columns].dropna().head(100)
    mlflow.set_experiment(experiment)
    with mlflow.start_run(run_name="register", parent_run_id=parent_run):
        logged = log_model(load(model.path, recipe.allowed_types), contract, recipe, inputs)
    tags = {**contract.tags(), "made_by": "pipeline", "pipeline.parent_run": parent_run}
    version = int(mlflow.register_model(logged.model_uri, model_name, tags=tags).version)
    add_to_record(parent_run, version=str(version))
    return version


@component
def close_run(experiment: str, pipeline_run: str, status: dsl.PipelineTaskFinalStatus) -> None:
    """Runs last, whatever happened.

    It can take no other step's output, so it finds the parent run by the id of Kubeflow's run.
    """
    from lifecycle.training.outcome import add_to_record, end_parent, find_parent, read_record

    parent = find_parent(experiment, pipeline_run)
    if parent is None:  # not even the first step began
        return
    record = read_record(parent)
    # What the steps have noted decides. The runner's word counts only when it is bad: local_run says
    # SUCCEEDED, a cluster COMPLETE, and RUNNING when a gate stayed closed or somebody ended the run.
    done = status.state != "FAILED" and bool(record.gate or record.version)
    ended = "FINISHED" if done else "FAILED"
    add_to_record(parent, status=ended)
    end_parent(parent, ended)


@contextlib.contextmanager
def _without_sources_of_callers() -> Iterator[None]:
    """KFP looks up the source of every caller at each setting of a step, and uses the name of one.

    In a notebook, with its many callers and modules, that takes 8 s of processor time or more.
    """

    def stack() -> list[tuple[None, None, None, str]]:
        names = (sys._getframe(number).f_code.co_name for number in (1, 2))
        return [(None, None, None, name) for name in names]

    before = pipeline_task.inspect
    pipeline_task.inspect = SimpleNamespace(stack=stack)
    try:
        yield
    finally:
        pipeline_task.inspect = before


@_without_sources_of_callers()
def training_pipeline(cluster: Cluster) -> BaseComponent:
    """The pipeline, for a cluster with these settings; the local runner takes the same file.

    Args:
        cluster: the settings of that name.
    """

    @dsl.pipeline(
        name="training-pipeline",
        description="Retrieve, validate, train, evaluate, compare; register if good enough and better.",
        pipeline_config=dsl.PipelineConfig(active_deadline_seconds=cluster.run_seconds),
    )
    def training(
        feature_repo: str,
        labels: str,
        feature_service: str,
        label: str,
        reference: str,
        experiment: str,
        model_name: str,
        threshold: float,
        run_name: str = "",
        champion: str = "",
        hyperparameters: str = "{}",
        estimator: str = "lifecycle.models.model:new_model",
        task: str = "binary",
        metric: str = "roc_auc",
        types: list = [],  # noqa: B006
        held_out: float = 0.25,
        confidence: float = 0.95,
        fewest: int = 20,
    ) -> None:
        """Retrieve, validate, train, evaluate, compare; register when both gates open; always close the run.

        Args:
            feature_repo: folder of ``feature_store.yaml``.
            labels: parquet file with the join keys, ``event_timestamp`` and the label.
            feature_service: name of the features to train on.
            label: the column to predict.
            reference: saved dataset whose expectation suite the data must meet.
            experiment: of MLflow, for the run and its steps.
            model_name: in MLflow's model registry.
            threshold: of the metric on the held-out days, that a model must reach to be registered.
            run_name: of the parent run; when left out, the id that Kubeflow gives the run, another each time.
            champion: number of the version of ``model_name`` that it must beat on the same days; none when
                left out.
            hyperparameters: of the estimator, as JSON text.
            estimator: see ``lifecycle.models.recipe.Recipe``.
            task: the same.
            metric: the same.
            types: the same.
            held_out: share of the rows, the latest ones, that a model is judged on.
            confidence: of the interval for the gain over the champion, which must lie above 0.
            fewest: entities with each outcome below which nothing is compared.
        """
        # A cluster reuses a step's outputs when code and inputs are the same. What registers a model or
        # closes a run must run each time.
        closed = close_run(experiment=experiment, pipeline_run=dsl.PIPELINE_JOB_ID_PLACEHOLDER)
        on_cluster(closed, cluster).set_caching_options(False)
        with dsl.ExitHandler(closed):
            retrieved = retrieve_features(
                feature_repo=feature_repo,
                labels=labels,
                feature_service=feature_service,
                label=label,
                experiment=experiment,
                pipeline_run=dsl.PIPELINE_JOB_ID_PLACEHOLDER,
                run_name=run_name,
                task=task,
                held_out=held_out,
            )
            # So must this one: its inputs are paths, and the data behind them changes.
            on_cluster(retrieved, cluster).set_caching_options(False)
            table, parent_run = retrieved.outputs["table"], retrieved.outputs["Output"]

            validated = validate_features(
                table=table,
                parent_run=parent_run,
                experiment=experiment,
                feature_repo=feature_repo,
                reference=reference,
            )
            on_cluster(validated, cluster)

            trained = train_model(
                table=table,
                parent_run=parent_run,
                experiment=experiment,
                checked=validated.outputs["Output"],
                hyperparameters=hyperparameters,
                estimator=estimator,
                task=task,
                metric=metric,
                types=types,
            )
            on_cluster(trained, cluster)
            model = trained.outputs["model"]

            evaluated = evaluate_model(
                table=table, model=model, parent_run=parent_run, experiment=experiment, threshold=threshold
            )
            on_cluster(evaluated, cluster)

            with dsl.If(evaluated.outputs["Output"] >= threshold, name="good-enough"):
                compared = compare_with_champion(
                    table=table,
                    model=model,
                    parent_run=parent_run,
                    experiment=experiment,
                    model_name=model_name,
                    champion=champion,
                    confidence=confidence,
                    fewest=fewest,
                )
                # The champion is a name here, and another model tomorrow.
                on_cluster(compared, cluster).set_caching_options(False)
                # Python doesn't evaluate this comparison: it becomes a condition of the compiled file.
                with dsl.If(compared.output == True, name="better"):  # noqa: E712
                    registered = register_model(
                        table=table,
                        model=model,
                        parent_run=parent_run,
                        experiment=experiment,
                        model_name=model_name,
                    )
                    on_cluster(registered, cluster).set_caching_options(False)

    return training

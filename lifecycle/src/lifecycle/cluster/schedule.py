"""Retraining on a schedule, as Kubeflow Pipelines' own object, and the call that brings it to the server."""

import hashlib
import json
from typing import Any

import kfp
import kfp_server_api as api
from google.protobuf import json_format
from kfp import dsl

from lifecycle.objects import kubernetes_name
from lifecycle.settings import Settings
from lifecycle.training.pipeline import on_cluster


def recurring_run(settings: Settings) -> dict[str, Any]:
    """A recurring run of a pipeline with one step, ``lifecycle retrain``.

    It is what ``POST /apis/v2beta1/recurringruns`` takes. The step gets the settings as a parameter of the
    run, and the training pipeline from its image; definitions and labels are on the volume.

    Args:
        settings: of the project.

    Raises:
        ValueError: a path of the settings is not inside the project, so the volume does not hold it.
    """
    cluster, name = settings.cluster, f"retrain-{kubernetes_name(settings.model)}"

    @dsl.container_component
    def retrain(settings: str) -> dsl.ContainerSpec:
        return dsl.ContainerSpec(
            image=cluster.image, command=["lifecycle", "--settings", settings], args=["retrain"]
        )

    @dsl.pipeline(name=name, pipeline_config=dsl.PipelineConfig(active_deadline_seconds=cluster.run_seconds))
    def retraining(settings: str) -> None:
        on_cluster(retrain(settings=settings), cluster).set_caching_options(False)

    specification = {
        "pipeline_spec": json_format.MessageToDict(retraining.pipeline_spec),
        "platform_spec": json_format.MessageToDict(retraining.platform_spec),
    }
    body = api.V2beta1RecurringRun(
        display_name=name,
        mode=api.RecurringRunMode.ENABLE,
        trigger=api.V2beta1Trigger(cron_schedule=api.V2beta1CronSchedule(cron=settings.retraining.cron)),
        max_concurrency="1",
        no_catchup=True,  # after a pause one retraining, not one for each week that was missed
        pipeline_spec=specification,
        # No plugins_input, not even to turn the MLflow plugin off: with it, Pipelines 2.17.0 stores no
        # pipeline in the schedule, asks for one by an empty id, and starts nothing.
        runtime_config=api.V2beta1RuntimeConfig(parameters={"settings": _on_volume(settings)}),
    )
    written = api.ApiClient().sanitize_for_serialization(body)
    digest = hashlib.sha256(json.dumps(written, sort_keys=True).encode()).hexdigest()
    return {**written, "description": f"Made by `lifecycle schedule`, which compares {digest[:16]}."}


def _on_volume(settings: Settings) -> str:
    """The settings as JSON, without those that have their defaults, and with the paths of a step."""
    of_step = settings.cluster.on_volume
    paths = {name: getattr(settings, name) for name in ("feature_repo", "labels", "pipeline")}
    moved: dict[str, Any] = {name: of_step(path) for name, path in paths.items() if path}
    moved |= {"retraining": {"outputs": of_step(settings.retraining.outputs)}}
    # Where this machine finds the server is nothing to a step.
    moved |= {"cluster": {"pipelines_uri": ""}}
    return settings.replace(**moved).model_dump_json(exclude_defaults=True)


def schedule(client: kfp.Client, settings: Settings) -> str:
    """Bring the recurring run to the server; gives a sentence that says what is there now.

    The server changes no recurring run, so another one takes the place of one with other settings. One that
    was switched off stays switched off.

    Args:
        client: of Kubeflow Pipelines.
        settings: of the project.

    Raises:
        kfp_server_api.ApiException: the server refused; its body holds the reason.
    """
    wanted = recurring_run(settings)
    name, rule = wanted["display_name"], f"{settings.retraining.cron!r} in UTC"
    namespace = settings.cluster.namespace if client.get_kfp_healthz().multi_user else None
    experiment = client.create_experiment(settings.retraining.experiment, namespace=namespace)
    of_name = {"predicates": [{"operation": "EQUALS", "key": "display_name", "stringValue": name}]}
    found = client.list_recurring_runs(
        page_size=100, experiment_id=experiment.experiment_id, filter=json.dumps(of_name)
    )
    there = found.recurring_runs or []
    off = bool(there) and all(one.status == "DISABLED" for one in there)
    switched = " It is switched off." if off else ""
    if [one.description for one in there] == [wanted["description"]]:
        return f"{name} is there already, unchanged: {rule}.{switched}"
    mode = api.RecurringRunMode.DISABLE if off else wanted["mode"]
    client.recurring_runs.recurring_run_service_create_recurring_run(
        recurring_run={**wanted, "mode": mode, "experiment_id": experiment.experiment_id}
    )
    for old in there:
        client.delete_recurring_run(old.recurring_run_id)
    done = "takes the place of one with other settings" if there else "is there now"
    return f"{name} {done}: {rule}.{switched}"

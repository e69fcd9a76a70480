"""Retraining on a schedule, as Kubeflow Pipelines' own object: rendered here; a cluster runs it."""

from typing import Any

import kfp_server_api as api
from google.protobuf import json_format
from kfp import dsl

from lifecycle.objects import kubernetes_name
from lifecycle.settings import FILE, Settings
from lifecycle.training.pipeline import on_cluster


def recurring_run(settings: Settings) -> dict[str, Any]:
    """A recurring run of a pipeline with one step, ``lifecycle retrain``.

    It is what ``POST /apis/v2beta1/recurringruns`` takes. Add its ``experiment_id``, which only the cluster
    knows. The step reads the project's settings from the volume, where they lie beside definitions and data.

    Args:
        settings: of the project.
    """
    cluster, name = settings.cluster, f"retrain-{kubernetes_name(settings.model)}"

    @dsl.container_component
    def retrain() -> dsl.ContainerSpec:
        return dsl.ContainerSpec(
            image=cluster.image,
            command=["lifecycle", "--settings", cluster.on_volume(FILE)],
            args=["retrain"],
        )

    @dsl.pipeline(name=name)
    def retraining() -> None:
        on_cluster(retrain(), cluster).set_caching_options(False)

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
        runtime_config=api.V2beta1RuntimeConfig(parameters={}),
    )
    return api.ApiClient().sanitize_for_serialization(body)

"""Retraining on a schedule, as Kubeflow Pipelines' own object: rendered here; a cluster runs it.

::

    python -m lifecycle.schedule NAME "0 0 6 * * 1" --model MODEL ...

After the time, the arguments are those of ``lifecycle.retrain``.
"""

import argparse
from collections.abc import Sequence
from typing import Any

import kfp_server_api as api
import yaml
from google.protobuf import json_format
from kfp import dsl

from lifecycle import IMAGE
from lifecycle.pipeline import on_cluster


def recurring_run(name: str, cron: str, arguments: Sequence[str]) -> dict[str, Any]:
    """A recurring run of a pipeline with one step, ``python -m lifecycle.retrain``.

    It is what ``POST /apis/v2beta1/recurringruns`` takes. Add its ``experiment_id``, which only the cluster
    knows.

    Args:
        name: of the recurring run, and of its pipeline: lower case, with hyphens.
        cron: when, in six fields, of which the first is the second: ``0 0 6 * * 1`` is each Monday at six.
        arguments: the command line of ``lifecycle.retrain``; its files lie on the volume of
            ``lifecycle.pipeline.VOLUME``.
    """

    @dsl.container_component
    def retrain() -> dsl.ContainerSpec:
        return dsl.ContainerSpec(
            image=IMAGE, command=["python", "-m", "lifecycle.retrain"], args=list(arguments)
        )

    @dsl.pipeline(name=name)
    def retraining() -> None:
        on_cluster(retrain()).set_caching_options(False)

    specification = {
        "pipeline_spec": json_format.MessageToDict(retraining.pipeline_spec),
        "platform_spec": json_format.MessageToDict(retraining.platform_spec),
    }
    body = api.V2beta1RecurringRun(
        display_name=name,
        mode=api.RecurringRunMode.ENABLE,
        trigger=api.V2beta1Trigger(cron_schedule=api.V2beta1CronSchedule(cron=cron)),
        max_concurrency="1",
        no_catchup=True,  # after a pause one retraining, not one for each week that was missed
        pipeline_spec=specification,
        runtime_config=api.V2beta1RuntimeConfig(parameters={}),
    )
    return api.ApiClient().sanitize_for_serialization(body)


def main() -> None:
    """The command line: print the object as YAML."""
    parser = argparse.ArgumentParser(
        prog="python -m lifecycle.schedule", description="Render a recurring run."
    )
    parser.add_argument("name")
    parser.add_argument("cron", help="six fields, the first is the second")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="of lifecycle.retrain")
    given = parser.parse_args()
    # Sorted: protobuf gives a message's fields in another order each time.
    print(yaml.safe_dump(recurring_run(given.name, given.cron, given.arguments)), end="")


if __name__ == "__main__":
    main()

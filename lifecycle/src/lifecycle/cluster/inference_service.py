"""The model server as KServe's object on a cluster: rendered here from the server's own command line; a
cluster runs it.

A laptop runs the same container: ``container`` gives what the object says about it.
"""

from __future__ import annotations

from typing import Any

from kserve import V1beta1InferenceService, V1beta1InferenceServiceSpec, V1beta1PredictorSpec
from kubernetes import client

from lifecycle.objects import (
    CONTAINER_SECURITY,
    LABELS,
    ON_TMP,
    POD_SECURITY,
    SCRATCH,
    environment,
    kubernetes_name,
    mount,
    volume,
)
from lifecycle.settings import Settings

PORT = 8080
"""Where the server listens in its container: KServe's own default, and that of the image's health check."""
CONTAINER = "kserve-container"
"""KServe looks for the model server under this name."""
DRAINS = 5
"""Seconds that a pod which is to end still answers, until nobody sends it requests any more."""
BUSY = 70
"""Percent of the requested processor time above which Kubernetes adds a replica, where it may."""


def service_name(settings: Settings) -> str:
    """The InferenceService's name, from the model's.

    Raises:
        ValueError: KServe could not make the names that it derives from it: ``NAME-predictor-NAMESPACE`` is
            the first part of an address, which has 63 characters at most.
    """
    return kubernetes_name(settings.model, 63 - len(f"-predictor-{settings.cluster.namespace}"))


def scrape_target(settings: Settings) -> str:
    """``host:port`` at which Prometheus finds the server's metrics."""
    return f"{settings.cluster.service(service_name(settings) + '-predictor')}:80"


def inference_service(settings: Settings, port: int = PORT) -> dict[str, Any]:
    """An InferenceService: the image with the command line ``lifecycle serve``, on the volume of the
    pipeline's steps.

    Args:
        settings: of the project.
        port: where the server listens.

    Raises:
        ValueError: see ``service_name``.
    """
    cluster, model, name = settings.cluster, settings.model, service_name(settings)
    arguments = ["--feature-repo", cluster.on_volume(settings.feature_repo), "--model", model]
    # In a pod, callers come by the pod's address and by names that the cluster gives.
    arguments += ["--alias", settings.alias, "--host", "0.0.0.0", "--hosts", "*", "--port", str(port)]
    if cluster.clock:
        arguments += ["--now", str(cluster.clock.timestamp())]
    most = max(cluster.replicas, cluster.most_replicas)
    scales = most > cluster.replicas
    server = client.V1Container(
        name=CONTAINER,
        image=cluster.image,
        command=["lifecycle", "serve"],
        args=arguments,
        env=environment(cluster),
        working_dir="/tmp",
        ports=[client.V1ContainerPort(container_port=port, protocol="TCP")],
        # Imports, then the version's model. The other two begin when this has passed.
        startup_probe=_asks(f"/v2/models/{model}/ready", port, period_seconds=5, failure_threshold=60),
        readiness_probe=_asks(f"/v2/models/{model}/ready", port),
        liveness_probe=_asks("/v2/health/live", port),
        resources=cluster.server.manifest(),
        security_context=CONTAINER_SECURITY,
        # A rollout ends a pod before each proxy knows.
        lifecycle=client.V1Lifecycle(
            pre_stop=client.V1LifecycleHandler(sleep=client.V1SleepAction(seconds=DRAINS))
        ),
        volume_mounts=[mount(cluster), ON_TMP],
    )
    predictor = V1beta1PredictorSpec(
        min_replicas=cluster.replicas,
        max_replicas=most,
        scale_metric="cpu" if scales else None,
        scale_target=BUSY if scales else None,
        labels=LABELS,
        security_context=POD_SECURITY,
        # Else variables of each Service in the namespace would be settings to MLflow.
        enable_service_links=False,
        automount_service_account_token=False,
        containers=[server],
        volumes=[volume(cluster), SCRATCH],
    )
    service = V1beta1InferenceService(
        api_version="serving.kserve.io/v1beta1",
        kind="InferenceService",
        metadata=client.V1ObjectMeta(
            name=name,
            annotations={
                "serving.kserve.io/deploymentMode": "Standard",  # a Deployment and a Service, without Knative
                "serving.kserve.io/autoscalerClass": "hpa" if scales else "none",
            },
        ),
        spec=V1beta1InferenceServiceSpec(predictor=predictor),
    )
    return client.ApiClient().sanitize_for_serialization(service)


def container(service: dict[str, Any]) -> dict[str, Any]:
    """What an InferenceService says about the container of its model server.

    Args:
        service: what ``inference_service`` gives.
    """
    [found] = [one for one in service["spec"]["predictor"]["containers"] if one["name"] == CONTAINER]
    return found


def _asks(path: str, port: int, **timing: int) -> client.V1Probe:
    return client.V1Probe(http_get=client.V1HTTPGetAction(path=path, port=port), timeout_seconds=3, **timing)

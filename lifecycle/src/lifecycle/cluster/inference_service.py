"""The model server as KServe's object on a cluster: rendered here from the server's own command line; a
cluster runs it.

A laptop runs the same container: ``container`` gives what the object says about it.
"""

from __future__ import annotations

from typing import Any

from kserve import V1beta1InferenceService, V1beta1InferenceServiceSpec, V1beta1PredictorSpec
from kubernetes import client

from lifecycle.objects import POD_SECURITY, kubernetes_name, mount, tracking_environment, volume
from lifecycle.settings import Settings

PORT = 8080
"""Where the server listens in its container: KServe's own default, and that of the image's health check."""
CONTAINER = "kserve-container"
"""KServe looks for the model server under this name."""


def inference_service(settings: Settings, port: int = PORT, now: float | None = None) -> dict[str, Any]:
    """An InferenceService: the image with the command line ``lifecycle serve``, on the volume of the
    pipeline's steps.

    Args:
        settings: of the project.
        port: where the server listens.
        now: clock for the age of features, seconds since 1970; the wall clock when left out.
    """
    cluster, model = settings.cluster, settings.model
    arguments = ["--feature-repo", cluster.on_volume(settings.feature_repo), "--model", model]
    # In a pod, callers come by the pod's address and by names that the cluster gives.
    arguments += ["--alias", settings.alias, "--host", "0.0.0.0", "--hosts", "*", "--port", str(port)]
    if now is not None:
        arguments += ["--now", str(now)]
    server = client.V1Container(
        name=CONTAINER,
        image=cluster.image,
        command=["lifecycle", "serve"],
        args=arguments,
        env=tracking_environment(),
        ports=[client.V1ContainerPort(container_port=port, protocol="TCP")],
        # Imports, then the version's model. The other two begin when this has passed.
        startup_probe=_asks(f"/v2/models/{model}/ready", port, period_seconds=5, failure_threshold=60),
        readiness_probe=_asks(f"/v2/models/{model}/ready", port),
        liveness_probe=_asks("/v2/health/live", port),
        resources=cluster.server.manifest(),
        security_context=client.V1SecurityContext(
            allow_privilege_escalation=False,
            run_as_non_root=True,
            capabilities=client.V1Capabilities(drop=["ALL"]),
            seccomp_profile=client.V1SeccompProfile(type="RuntimeDefault"),
        ),
        volume_mounts=[mount(cluster)],
    )
    predictor = V1beta1PredictorSpec(
        min_replicas=cluster.replicas,
        security_context=POD_SECURITY,
        # Else variables of each Service in the namespace would be settings to MLflow.
        enable_service_links=False,
        containers=[server],
        volumes=[volume(cluster)],
    )
    service = V1beta1InferenceService(
        api_version="serving.kserve.io/v1beta1",
        kind="InferenceService",
        # Standard: a Deployment and a Service, without Knative.
        metadata=client.V1ObjectMeta(
            name=kubernetes_name(model), annotations={"serving.kserve.io/deploymentMode": "Standard"}
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

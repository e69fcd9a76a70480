"""From file to model in one graph: Feast tells OpenLineage what it applies and materializes, and this adds
what it cannot know, the training.

OpenLineage is a standard for such events: a job ran, read these data sets, wrote those.
https://openlineage.io
"""

from __future__ import annotations

import uuid
from datetime import UTC, datetime

import mlflow
from feast.openlineage.identity import resolve_namespace
from mlflow.entities.model_registry import ModelVersion
from openlineage.client.event_v2 import InputDataset, Job, OutputDataset, Run, RunEvent, RunState

from lifecycle.features.contract import FeatureContract

NAMESPACE = "mlflow"
"""Of the training job and of its models."""
PRODUCER = "https://github.com/mlflow/mlflow"


def training_event(version: ModelVersion, contract: FeatureContract, namespace: str) -> RunEvent:
    """The event of a training that has ended: it read a feature service, and wrote a version of a registered
    model.

    The same version gives the same event each time, so sending it twice adds nothing to a graph.

    Args:
        version: of the registered model.
        contract: what it was trained on, as ``lifecycle.models.versions.load_version`` gives it.
        namespace: of ``openlineage`` in ``feature_store.yaml``; Feast puts its data sets into one of its own
            for each project.
    """
    model = f"models:/{version.name}/{version.version}"
    return RunEvent(
        eventType=RunState.COMPLETE,
        eventTime=datetime.fromtimestamp(version.creation_timestamp / 1000, UTC).isoformat(),
        run=Run(runId=str(uuid.uuid5(uuid.NAMESPACE_URL, f"{mlflow.get_tracking_uri()} {model}"))),
        job=Job(namespace=NAMESPACE, name=f"train_{version.name}"),
        inputs=[
            InputDataset(
                namespace=resolve_namespace(namespace, contract.project), name=contract.feature_service
            )
        ],
        outputs=[OutputDataset(namespace=NAMESPACE, name=model)],
        producer=PRODUCER,
    )

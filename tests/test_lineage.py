"""The event of a training, in the lineage that Feast collects."""

import json
from types import SimpleNamespace

import pytest
from openlineage.client import OpenLineageClient
from openlineage.client.serde import Serde
from openlineage.client.transport.file import FileConfig, FileTransport

from lifecycle.contract import FeatureContract
from lifecycle.lineage import training_event

pytestmark = pytest.mark.unit
VERSION = SimpleNamespace(name="driver_conversion", version=3, creation_timestamp=1_740_787_200_000)


def test_one_graph_leads_from_the_files_to_the_model_and_names_no_other_view(
    tmp_path, store, mlflow, monkeypatch
):
    """In Feast's own collector, with what the registry holds, and the event twice."""
    from feast.openlineage import FeastOpenLineageEmitter
    from feast.openlineage.config import OpenLineageConfig
    from feast.openlineage.processor import OpenLineageProcessor
    from feast.openlineage.store import OpenLineageStore

    contract = FeatureContract.of_service(store, "rates_and_rating", label="label")
    event = training_event(VERSION, contract, namespace="workshop")
    sent = Serde.to_dict(event)
    assert sent["eventTime"] == "2025-03-01T00:00:00+00:00" and sent["eventType"] == "COMPLETE"
    assert sent["inputs"][0]["namespace"] == "workshop/driver_ranking"

    kept = OpenLineageStore(connection_string=f"sqlite:///{tmp_path}/lineage.db")
    kept.initialize()
    config = OpenLineageConfig(enabled=True, transport_type="console", namespace="workshop")
    emitter, log = FeastOpenLineageEmitter(config), tmp_path / "events.jsonl"
    transport = FileTransport(FileConfig(log_file_path=str(log), append=True))
    emitter._client._client.transport = transport
    assert all(emitter.emit_registry_lineage(store.registry, store.project))
    for _ in range(2):
        OpenLineageClient(transport=transport).emit(event)
    processor = OpenLineageProcessor(store=kept, namespace_mapping={})
    for line in log.read_text().splitlines():
        processor.process_event(json.loads(line))
    edges = [edge for edge in kept.get_all_lineage_edges() if edge["edge_type"] == "derived"]

    def made_from(name):
        direct = {edge["source_name"] for edge in edges if edge["target_name"] == name}
        return direct.union(*map(made_from, direct))

    names = {"rates_and_rating", "driver_hourly_stats", "driver_daily_profile"}
    assert made_from("models:/driver_conversion/3") == names | {"driver_stats", "driver_profile", "driver"}
    runs = [run for run in kept.get_runs() if run["job_name"] == "train_driver_conversion"]
    assert len(runs) == 1, "the same training sent twice is one run"
    other = SimpleNamespace(**{**vars(VERSION), "version": 4})
    assert training_event(other, contract, "workshop").run.runId != event.run.runId
    monkeypatch.setattr("mlflow.get_tracking_uri", lambda: "http://elsewhere")
    assert training_event(VERSION, contract, "workshop").run.runId != event.run.runId

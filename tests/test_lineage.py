"""The event of a training, in the lineage that Feast collects."""

import json
from types import SimpleNamespace

import pytest
from openlineage.client.serde import Serde

from lifecycle.contract import FeatureContract
from lifecycle.lineage import training_event

VERSION = SimpleNamespace(name="driver_conversion", version=3, creation_timestamp=1_740_787_200_000)


@pytest.fixture
def event(store, mlflow):
    contract = FeatureContract.of_service(store, "rates_and_rating", label="label")
    return training_event(VERSION, contract, namespace="workshop")


@pytest.fixture
def collected(tmp_path, store, event):
    """Feast's own collector, with what the registry holds, and the event twice."""
    from feast.openlineage import FeastOpenLineageEmitter
    from feast.openlineage.config import OpenLineageConfig
    from feast.openlineage.processor import OpenLineageProcessor
    from feast.openlineage.store import OpenLineageStore
    from openlineage.client import OpenLineageClient
    from openlineage.client.transport.file import FileConfig, FileTransport

    kept = OpenLineageStore(connection_string=f"sqlite:///{tmp_path}/lineage.db")
    kept.initialize()
    processor = OpenLineageProcessor(store=kept, namespace_mapping={})
    emitter = FeastOpenLineageEmitter(
        OpenLineageConfig(enabled=True, transport_type="console", namespace="workshop")
    )
    log = tmp_path / "events.jsonl"
    emitter._client._client.transport = FileTransport(FileConfig(log_file_path=str(log), append=True))
    assert all(emitter.emit_registry_lineage(store.registry, store.project))
    own = OpenLineageClient(transport=FileTransport(FileConfig(log_file_path=str(log), append=True)))
    own.emit(event)
    own.emit(event)
    for line in log.read_text().splitlines():
        processor.process_event(json.loads(line))
    return kept


def test_one_graph_leads_from_the_files_to_the_model_and_names_no_other_view(collected):
    edges = [edge for edge in collected.get_all_lineage_edges() if edge["edge_type"] == "derived"]

    def made_from(name):
        direct = {edge["source_name"] for edge in edges if edge["target_name"] == name}
        return direct.union(*map(made_from, direct))

    assert made_from("models:/driver_conversion/3") == {
        "rates_and_rating",
        "driver_hourly_stats",
        "driver_daily_profile",
        "driver_stats",
        "driver_profile",
        "driver",
    }


def test_the_same_training_told_twice_is_one_run(collected):
    assert len([run for run in collected.get_runs() if run["job_name"] == "train_driver_conversion"]) == 1


def test_another_version_and_another_tracking_server_are_other_runs(store, event, monkeypatch):
    contract = FeatureContract.of_service(store, "rates_and_rating", label="label")
    other = SimpleNamespace(**{**vars(VERSION), "version": 4})
    assert training_event(other, contract, "workshop").run.runId != event.run.runId
    monkeypatch.setattr("mlflow.get_tracking_uri", lambda: "http://elsewhere")
    assert training_event(VERSION, contract, "workshop").run.runId != event.run.runId


def test_the_event_is_what_the_standard_asks_for_and_names_feasts_namespace(event):
    told = Serde.to_dict(event)
    assert told["eventTime"] == "2025-03-01T00:00:00+00:00" and told["eventType"] == "COMPLETE"
    assert told["inputs"][0]["namespace"] == "workshop/driver_ranking"
    assert told["outputs"][0]["name"] == "models:/driver_conversion/3"

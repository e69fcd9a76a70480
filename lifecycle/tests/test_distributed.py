"""Training in several processes: what is retrieved, what comes out, and what is rejected."""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import harness
import numpy as np
import pandas as pd
import pytest
from kubeflow.trainer import CustomTrainer, LocalProcessBackendConfig, TrainerClient

from helpers.capture import captured_trainer
from helpers.trainer import LocalRuntime
from helpers.workspace import REPOSITORY, configure
from lifecycle.features.contract import FeatureContract
from lifecycle.features.retrieval import historical_features
from lifecycle.models.model import load, new_model, save, selection_ends
from lifecycle.objects import RUNTIME
from lifecycle.training import distributed, shipped
from lifecycle.training.distributed import NotTrained

pytestmark = pytest.mark.unit

SERVICE = "rates_and_rating"


@pytest.fixture(scope="module", autouse=True)
def with_torch():
    harness.skip_without_extras(REPOSITORY / "notebooks" / "09_train_distributed.ipynb")


@pytest.fixture
def inputs(applied, tmp_path):
    configure(applied)
    return {
        "feature_repo": str(applied.feature_repo),
        "labels": str(applied.data / "driver_labels.parquet"),
        "feature_service": SERVICE,
        "label": "label",
        "folder": str(tmp_path / "job"),
        "epochs": 60,
    }


def launch(inputs: dict, workers: int, tmp_path: Path, **variables: str) -> subprocess.CompletedProcess:
    """Run the command that a TrainJob's pod would run, in bash, with torchrun's settings for one machine.

    The workers meet by a file, so that no port is opened.
    """
    client, sent = captured_trainer()
    client.train(runtime=RUNTIME, trainer=CustomTrainer(func=shipped.train, func_args=inputs))
    command = sent[0]["spec"]["trainer"]["command"]
    pod = tmp_path / "pod"
    pod.mkdir()
    settings = {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PET_NPROC_PER_NODE": str(workers),
        "PET_RDZV_BACKEND": "c10d",
        "PET_RDZV_ENDPOINT": str(pod / "agents"),
        "PET_RDZV_CONF": "store_type=file",
        "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
        "LIFECYCLE_RENDEZVOUS": str(pod / "workers"),
        "GLOO_SOCKET_IFNAME": "lo" if sys.platform == "linux" else "lo0",
        "OMP_NUM_THREADS": "1",
    }
    environment = {**os.environ, **settings, **variables}
    return subprocess.run(command, env=environment, cwd=pod, capture_output=True, text=True, timeout=900)


def with_labels(inputs: dict, tmp_path: Path, rows: pd.DataFrame) -> dict:
    path = tmp_path / "other labels.parquet"
    rows.to_parquet(path)
    return inputs | {"labels": str(path)}


def train_until(inputs: dict, last: int) -> None:
    """A training that is interrupted after an epoch."""

    def stop(rank: int, epoch: int) -> None:
        if epoch == last:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        distributed.work(**inputs, after_epoch=stop)


@pytest.mark.parametrize(("rows", "workers"), [(1, 1), (7, 3), (7, 7), (4008, 5)])
def test_shards_are_disjoint_and_complete(rows, workers):
    shards = [list(distributed.shard(rows, rank, workers)) for rank in range(workers)]
    assert sorted(row for shard in shards for row in shard) == list(range(rows))
    assert max(map(len, shards)) - min(map(len, shards)) <= 1


def test_rejects_more_workers_than_rows_and_an_unknown_rank():
    with pytest.raises(NotTrained, match="3 workers for 2 rows"):
        distributed.shard(2, 0, 3)
    for rank in (3, -1):
        with pytest.raises(NotTrained, match="ranks go from 0 to 2"):
            distributed.shard(9, rank, 3)


def test_two_workers_resume_a_checkpoint_and_log_the_model_that_one_process_finds(
    inputs, mlflow, store, tmp_path, capsys
):
    from sklearn.metrics import roc_auc_score

    rows = pd.read_parquet(inputs["labels"])
    # Nobody's features: worker 0 trains on fewer rows. Shards of one size would hide a mean of means.
    rows.loc[rows.index[:600:2], "driver_id"] = 9999
    inputs = with_labels(inputs, tmp_path, rows.set_axis(rows.index[::-1] + 7))  # a row is known by its place
    alone = distributed.work(**inputs | {"folder": str(tmp_path / "alone")})
    train_until(inputs, 30)
    logged = inputs | {"experiment": "shared", "run_name": "two"}
    done = launch(logged, 2, tmp_path, MLFLOW_TRACKING_URI=mlflow.get_tracking_uri())
    assert done.returncode == 0, done.stderr[-3000:]

    workers = distributed.outcomes(inputs["folder"])
    assert [worker.rank for worker in workers] == [0, 1]
    assert {(worker.workers, worker.began_at) for worker in workers} == {(2, 20)}
    assert len({worker.trained_on for worker in workers}) > 1
    assert sum(worker.trained_on for worker in workers) == alone.trained_on
    assert len({(*worker.weights, worker.bias) for worker in workers}) == 1
    for name in ("weights", "mean", "scale", "losses"):
        np.testing.assert_allclose(getattr(workers[0], name), getattr(alone, name), rtol=1e-9, atol=1e-12)

    table = historical_features(store, rows, store.get_feature_service(SERVICE))
    together = pd.concat(distributed.shards(inputs["folder"])).set_index(distributed.ROW).sort_index()
    pd.testing.assert_frame_equal(together, table, check_names=False)

    [run] = mlflow.search_runs(experiment_names=["shared"], output_format="list")
    assert run.data.params["workers"] == "2"
    contract = FeatureContract.from_feature_service(store, SERVICE, "label")
    uri = f"models:/{run.outputs.model_outputs[0].model_id}"
    assert FeatureContract.from_model(uri) == contract
    later = table[table.event_timestamp > selection_ends(rows.event_timestamp)].dropna()
    scores = mlflow.sklearn.load_model(uri).predict_proba(later[contract.columns])[:, 1]
    assert run.data.metrics["held_out_auc"] == pytest.approx(roc_auc_score(later.label, scores))

    # A job that goes on with fewer workers forgets what the others left, and finds nothing to do.
    again = distributed.work(**logged)
    assert again.weights == workers[0].weights
    assert len(distributed.outcomes(inputs["folder"])) == len(distributed.shards(inputs["folder"])) == 1
    assert f"this training, complete, and its MLflow run is {run.info.run_id}" in capsys.readouterr().out
    assert len(mlflow.search_runs(experiment_names=["shared"])) == 1


def test_the_model_is_scikit_learns_and_survives_storing(inputs, store, tmp_path):
    trained = distributed.work(**inputs | {"epochs": 400, "C": 0.01})
    contract = FeatureContract.from_feature_service(store, SERVICE, "label")
    labels = pd.read_parquet(inputs["labels"])
    table = historical_features(store, labels, store.get_feature_service(SERVICE))
    rows = table[table.event_timestamp <= selection_ends(labels.event_timestamp)].dropna()
    theirs = new_model(C=0.01)
    theirs.set_params(logisticregression__tol=1e-10)  # by default it stops after three digits
    X = rows[contract.columns]
    theirs.fit(X, rows.label)
    save(distributed.estimator(trained, contract.columns, C=0.01), tmp_path / "model.skops")
    ours = load(tmp_path / "model.skops")
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), atol=1e-6)
    assert list(ours.feature_names_in_) == contract.columns


@pytest.mark.parametrize("last", [19, 20, 39])
def test_an_interrupted_training_resumes_to_the_very_same_weights(inputs, tmp_path, last):
    train_until(inputs, last)
    resumed = distributed.work(**inputs)
    assert resumed.began_at == last // 20 * 20
    assert replace(resumed, began_at=0) == distributed.work(**inputs | {"folder": str(tmp_path / "whole")})


def test_rejects_the_checkpoint_of_another_training_and_keeps_it(inputs, tmp_path):
    train_until(inputs, 20)
    checkpoint = Path(inputs["folder"], distributed.CHECKPOINT)
    content = checkpoint.read_bytes()
    for change, message in [
        ({"learning_rate": 0.5}, "another training: learning_rate differ"),
        ({"feature_service": "rates"}, "another training: contract differ"),
        ({"epochs": 10}, "is of epoch 20, and 10 are asked for"),
    ]:
        with pytest.raises(NotTrained, match=message):
            distributed.work(**inputs | change)
    rows = pd.read_parquet(inputs["labels"])
    with pytest.raises(NotTrained, match="another training: rows differ"):
        distributed.work(**with_labels(inputs, tmp_path, rows.assign(label=1 - rows.label)))
    assert checkpoint.read_bytes() == content
    checkpoint.write_bytes(content[:200])
    with pytest.raises(NotTrained, match="cannot be read as a checkpoint"):
        distributed.work(**inputs)


def test_removes_the_environments_of_one_job_and_of_no_other(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for job in ("job1", "job10"):
        commands = Path(tempfile.mkdtemp(prefix=job), "bin")
        commands.mkdir()
        (commands / "torchrun").touch()
    assert LocalRuntime.remove(SimpleNamespace(), "job1") == 1
    assert [path.name[:5] for path in tmp_path.iterdir()] == ["job10"]


def test_the_local_runtime_brings_this_environment_and_its_variables(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", os.environ["PATH"])
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "a 'quoted' $HOME")
    monkeypatch.setenv("DATABASE_PASSWORD", "a store's, on a cluster")
    monkeypatch.setenv("A_SECRET", "stays here")
    local = LocalRuntime(processes=2)
    client = TrainerClient(LocalProcessBackendConfig())
    variables = {"tracking": "MLFLOW_TRACKING_URI", "secret": "A_SECRET", "meeting": "LIFECYCLE_RENDEZVOUS"}
    variables["store"] = "DATABASE_PASSWORD"
    asked = {"folder": str(tmp_path), "variables": variables}
    job = client.train(runtime=local.name, trainer=CustomTrainer(func=show, func_args=asked))
    ended = client.wait_for_job_status(job, status={"Complete", "Failed"}, timeout=300, polling_interval=1)
    assert ended.status == "Complete", list(client.get_job_logs(job))
    told = [json.loads((tmp_path / rank).read_text()) for rank in "01"]
    assert {(word["python"], word["tracking"], word["store"], word["secret"]) for word in told} == {
        (sys.executable, "a 'quoted' $HOME", "a store's, on a cluster", None)
    }
    assert len({word["meeting"] for word in told}) == 1
    assert subprocess.check_output(["python", "-c", "print(6 * 7)"], text=True) == "42\n"


def show(parameters: dict) -> None:
    import json
    import os
    import sys
    from pathlib import Path

    said = {name: os.environ.get(variable) for name, variable in parameters["variables"].items()}
    Path(parameters["folder"], os.environ["RANK"]).write_text(json.dumps(said | {"python": sys.executable}))

"""Training in several processes: what is retrieved, what comes out, and what is refused. Workers are real processes, started by torchrun."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import harness
import numpy as np
import pandas as pd
import pytest

from helpers import trainer
from helpers.capture import captured_trainer
from helpers.workspace import REPOSITORY, configure
from lifecycle import distributed, shipped
from lifecycle.contract import FeatureContract
from lifecycle.distributed import NotTrained
from lifecycle.model import load, new_model, save, selection_ends
from lifecycle.retrieval import historical_features

SERVICE = "rates_and_rating"
LAUNCHED = """
import json, sys
from lifecycle.distributed import work
work(**json.loads(sys.argv[1]))
"""


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
    """The workers of a job, as torchrun starts them. They meet by a file, so that no port is opened."""
    program = tmp_path / "program.py"
    program.write_text(LAUNCHED)
    meeting = tmp_path / f"meeting {len(list(tmp_path.iterdir()))}"
    meeting.mkdir()
    settings = {
        "PET_NPROC_PER_NODE": str(workers),
        "PET_RDZV_BACKEND": "c10d",
        "PET_RDZV_ENDPOINT": str(meeting / "agents"),
        "PET_RDZV_CONF": "store_type=file",
        "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
        "LIFECYCLE_RENDEZVOUS": str(meeting / "workers"),
        "GLOO_SOCKET_IFNAME": "lo" if sys.platform == "linux" else "lo0",
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", "torch.distributed.run", str(program), json.dumps(inputs)]
    here = {**os.environ, **settings, **variables}
    return subprocess.run(command, env=here, cwd=tmp_path, capture_output=True, text=True, timeout=900)


def small(inputs: dict, tmp_path: Path, rows: pd.DataFrame) -> dict:
    path = tmp_path / "few labels.parquet"
    rows.to_parquet(path)
    return inputs | {"labels": str(path)}


@pytest.mark.parametrize(("rows", "workers"), [(1, 1), (7, 2), (7, 3), (7, 7), (4008, 5)])
def test_shards_are_disjoint_and_complete(rows, workers):
    shards = [list(distributed.shard(rows, rank, workers)) for rank in range(workers)]
    assert sorted(row for shard in shards for row in shard) == list(range(rows))
    assert max(map(len, shards)) - min(map(len, shards)) <= 1


@pytest.mark.parametrize(
    ("rows", "rank", "workers", "says"),
    [
        (2, 0, 3, "3 workers for 2 rows"),
        (9, 3, 3, "ranks go from 0 to 2"),
        (9, -1, 3, "ranks go from 0 to 2"),
    ],
)
def test_more_workers_than_rows_and_a_wrong_rank_are_refused(rows, rank, workers, says):
    with pytest.raises(NotTrained, match=says):
        distributed.shard(rows, rank, workers)


def test_three_workers_find_what_one_finds_and_their_shards_are_one_retrieval(
    inputs, applied, store, tmp_path
):
    rows = pd.read_parquet(inputs["labels"])
    rows.loc[rows.index[:900:3], "driver_id"] = 9999  # nobody's features: worker 0 trains on fewer rows
    inputs = small(inputs, tmp_path, rows)
    done = launch(inputs, 3, tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    workers = distributed.outcomes(inputs["folder"])
    assert [worker.rank for worker in workers] == [0, 1, 2] and {worker.workers for worker in workers} == {3}
    assert len({worker.trained_on for worker in workers}) > 1, "shards of one size would hide a mean of means"
    assert len({(*worker.weights, worker.bias) for worker in workers}) == 1

    alone = distributed.work(**inputs | {"folder": str(tmp_path / "alone")})
    assert alone.trained_on == sum(worker.trained_on for worker in workers)
    for name in ("weights", "mean", "scale", "losses"):
        np.testing.assert_allclose(getattr(workers[0], name), getattr(alone, name), rtol=1e-9, atol=1e-12)

    questions = pd.read_parquet(inputs["labels"])
    whole = historical_features(store, questions, store.get_feature_service(SERVICE))
    together = pd.concat(distributed.shards(inputs["folder"])).set_index(distributed.ROW).sort_index()
    pd.testing.assert_frame_equal(together, whole, check_names=False)


def test_the_model_is_scikit_learns_and_is_stored_and_read_as_others_are(inputs, store, tmp_path):
    alone = distributed.work(**inputs | {"epochs": 400, "C": 0.01})
    contract = FeatureContract.of_service(store, SERVICE, "label")
    questions = pd.read_parquet(inputs["labels"])
    table = historical_features(store, questions, store.get_feature_service(SERVICE))
    rows = table[table.event_timestamp <= selection_ends(questions.event_timestamp)].dropna()
    theirs = new_model(C=0.01).set_params(
        logisticregression__tol=1e-10
    )  # by itself it stops after three digits
    theirs.fit(rows[contract.columns], rows.label)
    ours = distributed.estimator(alone, contract.columns, C=0.01)
    save(ours, tmp_path / "model.skops")
    ours = load(tmp_path / "model.skops")
    X = rows[contract.columns]
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), atol=1e-6)
    assert list(ours.feature_names_in_) == contract.columns


def test_one_run_is_logged_with_the_contract_and_scores_the_held_out_rows_of_all(
    inputs, mlflow, tmp_path, store
):
    from sklearn.metrics import roc_auc_score

    done = launch(
        inputs | {"experiment": "shared", "run_name": "two", "epochs": 40},
        2,
        tmp_path,
        MLFLOW_TRACKING_URI=mlflow.get_tracking_uri(),
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (run,) = mlflow.search_runs(experiment_names=["shared"], output_format="list")
    assert {"workers": "2", "epochs": "40", "C": "1.0"}.items() <= run.data.params.items()
    model_id = run.outputs.model_outputs[0].model_id
    contract = FeatureContract.of_model(f"models:/{model_id}")
    assert contract == FeatureContract.of_service(store, SERVICE, "label")
    model = mlflow.sklearn.load_model(f"models:/{model_id}")
    questions = pd.read_parquet(inputs["labels"])
    table = historical_features(store, questions, store.get_feature_service(SERVICE))
    later = table[table.event_timestamp > selection_ends(questions.event_timestamp)].dropna()
    auc = roc_auc_score(later.label, model.predict_proba(later[contract.columns])[:, 1])
    assert run.data.metrics["held_out_auc"] == pytest.approx(auc)
    losses = mlflow.MlflowClient().get_metric_history(run.info.run_id, "loss")
    assert len(losses) == 40 and losses[-1].value < losses[0].value
    assert mlflow.MlflowClient().search_registered_models() == []


class Stop(Exception):
    pass


def stopped(inputs: dict, at: int) -> None:
    """A training that ends after an epoch."""

    def stop(rank: int, epoch: int) -> None:
        if epoch == at:
            raise Stop

    with pytest.raises(Stop):
        distributed.work(**inputs, after_epoch=stop)


@pytest.mark.parametrize("at", [19, 20, 39, 60])
def test_a_training_goes_on_from_its_checkpoint_to_the_very_same_weights(inputs, tmp_path, at):
    stopped(inputs, at)
    resumed = distributed.work(**inputs)
    whole = distributed.work(**inputs | {"folder": str(tmp_path / "whole")})
    assert resumed.began_at == at // 20 * 20
    assert replace(resumed, began_at=0) == whole


def test_a_checkpoint_may_go_on_with_another_number_of_workers(inputs, tmp_path):
    stopped(inputs, 30)
    done = launch(inputs, 2, tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    whole = distributed.work(**inputs | {"folder": str(tmp_path / "whole")})
    workers = distributed.outcomes(inputs["folder"])
    assert [(worker.rank, worker.began_at) for worker in workers] == [(0, 20), (1, 20)]
    np.testing.assert_allclose(workers[1].weights, whole.weights, rtol=1e-9)


def test_what_ranks_left_that_a_job_does_not_have_is_forgotten(inputs, tmp_path):
    done = launch(inputs, 2, tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    distributed.work(**inputs)
    assert len(distributed.outcomes(inputs["folder"])) == len(distributed.shards(inputs["folder"])) == 1


@pytest.mark.parametrize(
    ("change", "differs"),
    [
        ({"learning_rate": 0.5}, "learning_rate"),
        ({"C": 2.0}, "C"),
        ({"feature_service": "rates"}, "contract"),
    ],
)
def test_the_checkpoint_of_another_training_is_refused_and_kept(inputs, change, differs):
    stopped(inputs, 20)
    before = Path(inputs["folder"], distributed.CHECKPOINT).read_bytes()
    with pytest.raises(NotTrained, match=f"the checkpoint of another training: {differs} differ"):
        distributed.work(**inputs | change)
    assert Path(inputs["folder"], distributed.CHECKPOINT).read_bytes() == before


def test_a_checkpoint_of_other_rows_or_of_a_later_epoch_or_a_damaged_one_is_refused(inputs, tmp_path):
    stopped(inputs, 20)
    rows = pd.read_parquet(inputs["labels"])
    with pytest.raises(NotTrained, match="another training: rows differ"):
        distributed.work(**small(inputs, tmp_path, rows.assign(label=1 - rows.label)))
    with pytest.raises(NotTrained, match="is of epoch 20, and 10 are asked for"):
        distributed.work(**inputs | {"epochs": 10})
    path = Path(inputs["folder"], distributed.CHECKPOINT)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(NotTrained, match="cannot be read as a checkpoint"):
        distributed.work(**inputs)


def test_a_write_that_fails_leaves_the_old_checkpoint(inputs, monkeypatch):
    import torch

    stopped(inputs, 20)
    path = Path(inputs["folder"], distributed.CHECKPOINT)
    before = path.read_bytes()

    def half(state, file):
        file.write(b"half of a checkpoint")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(OSError, match="No space left"):
        distributed.work(**inputs)
    assert path.read_bytes() == before


def test_more_workers_than_rows_end_with_one_sentence(inputs, applied, tmp_path):
    rows = pd.read_parquet(inputs["labels"]).head(2)
    done = launch(small(inputs, tmp_path, rows), 3, tmp_path)
    assert done.returncode != 0
    assert "NotTrained: 3 workers for 2 rows: a worker would have none. Start at most 2." in done.stderr


def test_a_shard_without_a_row_to_train_on_is_named_by_all(inputs, tmp_path):
    """The features of every second row are unknown: worker 1 retrieves them, and has nothing."""
    rows = pd.read_parquet(inputs["labels"]).head(40).reset_index(drop=True)
    rows.loc[1::2, "driver_id"] = 9999
    done = launch(small(inputs, tmp_path, rows), 2, tmp_path)
    assert done.returncode != 0
    assert (
        "NotTrained: worker 1 of 2 has no row with all features to train on. Start fewer workers."
        in done.stderr
    )
    assert not Path(inputs["folder"], distributed.CHECKPOINT).exists()


def test_labels_other_than_0_and_1_are_refused(inputs, tmp_path):
    rows = pd.read_parquet(inputs["labels"]).head(40)
    with pytest.raises(NotTrained, match="column 'label' holds other values than 0 and 1"):
        distributed.work(**small(inputs, tmp_path, rows.assign(label=2)))


def test_without_pytorch_the_message_says_what_is_missing(inputs, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(NotTrained, match="PyTorch is not installed here"):
        distributed.work(**inputs)


def test_a_training_file_imports_no_pipeline_and_no_kubernetes(tmp_path):
    """A worker starts in seconds, twice on two cores."""
    code = "import sys; import lifecycle.distributed; print({'kfp', 'kubernetes', 'torch', 'mlflow'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def train_job(inputs: dict, workers: int) -> dict:
    client, sent = captured_trainer()
    assert shipped.submit(client, "a-training", inputs, workers) == "a-training"
    (found,) = sent
    return found


def test_a_misspelled_field_and_a_wrong_type_are_noticed():
    job = train_job({"folder": "/ml-lifecycle/job"}, 2)
    assert distributed.round_trip(job) == job
    misspelled = job | {"spec": job["spec"] | {"runtimePatchez": []}}
    assert distributed.round_trip(misspelled) != misspelled
    with pytest.raises(ValueError, match="numNodes"):
        distributed.round_trip(job | {"spec": job["spec"] | {"trainer": {"numNodes": "two"}}})


def test_the_command_of_a_pod_trains_as_it_stands(inputs, tmp_path):
    """What the TrainJob's container would run, in bash, with this machine's files."""
    (tmp_path / "pod").mkdir()
    job = train_job(inputs, 1)
    settings = {"PET_STANDALONE": "1", "PET_NPROC_PER_NODE": "1", "OMP_NUM_THREADS": "1"}
    here = {
        **os.environ,
        **settings,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    command = job["spec"]["trainer"]["command"]
    done = subprocess.run(
        command, cwd=tmp_path / "pod", env=here, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (outcome,) = distributed.outcomes(inputs["folder"])
    alone = distributed.work(**inputs | {"folder": str(tmp_path / "alone")})
    np.testing.assert_allclose(outcome.weights, alone.weights, rtol=1e-9)


def test_the_shipped_functions_hold_nothing_that_a_shell_reads():
    """Between client and pod stands a shell that expands dollar signs and backticks: docs/upstream.md."""
    from inspect import getsource

    for function in (shipped.train, trainer.train_and_lose_a_worker):
        text = getsource(function)
        assert not {"$", "`", "\\"} & set(text), text

"""What the checks of notebook 09 must notice. No fault starts workers again: what they left is changed."""

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from unittest import mock

import pandas as pd
from faults import fault, rerun

STATUS = "kubeflow.trainer.backends.localprocess.job.LocalJob.status"
REQUEST, SENT = "stand_in, sent", "(train_job,) = sent"


def left(ns, files, mark, folder="two", change=("", "")):
    """Files of a job with another content, and the cell that reads them."""
    places = {ns[folder] / name: content for name, content in files.items()}
    before = {path: path.read_bytes() for path in places if path.exists()}
    for path, content in places.items():
        path.write_bytes(content)
    rerun(ns, mark, change=change)
    yield
    for path in places:
        path.write_bytes(before[path]) if path in before else path.unlink()


def retrieved(ns, rows):
    whole = "whole = historical_features(store, questions, service)\n"  # it stays
    files = {"shard_1.parquet": rows.to_parquet()}
    return left(ns, files, "parts = distributed", change=(whole, ""))


def ended(ns, *ranks, **values):
    outcomes = {f"outcome_{rank}.json": asdict(ns["workers"][rank]) | values for rank in ranks}
    files = {name: json.dumps(outcome).encode() for name, outcome in outcomes.items()}
    return left(ns, files, "workers = distributed")


@fault("09", "claim-shards", says="are in both shards")
def both_workers_take_a_row(ns):
    return retrieved(ns, pd.concat([ns["parts"][1], ns["parts"][0].head(1)]))


@fault("09", "claim-shards", says="rows were retrieved")
def the_last_row_is_with_nobody(ns):
    return retrieved(ns, ns["parts"][1].iloc[:-1])


@fault("09", "claim-shards", says="values differ")
def a_worker_reads_another_value(ns):
    ns["parts"][1].iloc[17, ns["parts"][1].columns.get_loc(ns["contract"].columns[0])] = 0.123
    return retrieved(ns, ns["parts"][1])


@fault("09", "claim-distributed-training", says="the job is Failed")
def the_job_failed(ns):
    with mock.patch(STATUS, "Failed"):
        rerun(ns, "first = client.wait")


@fault("09", "claim-distributed-training", says="the workers' weights lie")
def the_workers_do_not_add_up(ns):
    return ended(ns, 1, bias=ns["workers"][1].bias + 0.01)


@fault("09", "claim-distributed-training", says="should train on all rows")
def a_worker_leaves_rows_out(ns):
    return ended(ns, 1, trained_on=ns["workers"][1].trained_on - 1)


@fault("09", "claim-distributed-training", says="from those of one process")
def the_means_of_unequal_shards_are_averaged(ns):
    return ended(ns, 0, 1, weights=[weight + 1e-6 for weight in ns["alone"].weights])


def trained(ns, mark, place, **values):
    """A training in this process again, in a folder of its own."""
    ns["planted"] = {"folder": str(ns["jobs"] / "planted"), **values}
    rerun(ns, mark, change=(place, "**planted"))
    yield
    shutil.rmtree(ns["jobs"] / "planted")


@fault("09", "claim-distributed-training", says="should lower the loss")
def nothing_is_learned(ns):
    ns["inputs"]["epochs"] = 2
    return trained(ns, "alone = ", 'folder=str(jobs / "one process")', learning_rate=0.0)


@fault("09", "check-same-as-scikit-learn", says="the rows that the workers saw")
def scikit_learn_sees_the_held_out_days(ns):
    rerun(ns, "cut = selection_ends", change=("whole[whole.event_timestamp <= cut]", "whole"))


@fault("09", "check-same-as-scikit-learn", says="from scikit-learn's")
def another_strength_of_regularization(ns):
    rerun(ns, "cut = selection_ends", change=("C=1.0", "C=0.001"))


def logged(ns, *instead, **parameters):
    """A run like that of the job with these parameters, beside others or instead of them."""
    mlflow, client, run = ns["mlflow"], ns["mlflow_client"], ns["runs"][0]
    for run_id in instead:
        client.delete_run(run_id)
    with mlflow.start_run() as other:
        mlflow.log_params(run.data.params | parameters)
        mlflow.log_metrics(run.data.metrics)
    rerun(ns, "newest_first = ")
    yield
    client.delete_run(other.info.run_id)
    for run_id in instead:
        client.restore_run(run_id)


@fault("09", "check-logged-once", says="should leave one run, and left 2")
def both_workers_log(ns):
    return logged(ns)


@fault("09", "check-logged-once", says="how many workers")
def the_run_is_that_of_one_process(ns):
    return logged(ns, ns["runs"][0].info.run_id, workers=1)


@fault("09", "check-logged-once", says="carry the contract")
def the_model_has_another_contract(ns):
    ns["model"] = Path(ns["mlflow"].artifacts.download_artifacts(f"models:/{ns['model_id']}"))
    text = (ns["model"] / "MLmodel").read_text().replace("label: label", "label: another")
    return left(ns, {"MLmodel": text.encode()}, "mlflow_client = ", folder="model")


@fault("09", "check-logged-once", says="scores differently")
def the_scaling_is_forgotten(ns):
    rerun(ns, "mlflow_client = ", change=("stored_model.predict_proba", "stored_model[-1].predict_proba"))


@fault("09", "check-logged-once", says="registers and promotes nothing")
def somebody_registers_it(ns):
    ns["MODEL"] = "planted"
    ns["mlflow"].register_model(f"models:/{ns['model_id']}", "planted")
    rerun(ns, "mlflow_client = ")
    yield
    ns["mlflow_client"].delete_registered_model("planted")


@fault("09", "check-lost-worker-fails-the-job", says="says Complete")
def the_job_goes_on_with_half_of_the_rows(ns):
    with mock.patch(STATUS, "Complete"):
        ns["second"] = ns["client"].wait_for_job_status(ns["lost"])


@fault("09", "check-lost-worker-fails-the-job", says="should name the kill")
def the_worker_ended_by_an_error_of_its_own(ns):
    printed = "client.get_job_logs(lost))"
    rerun(ns, "exit_codes = {", change=(printed, f'{printed}.replace(": -9 ", ": 1 ")'))


@fault("09", "check-lost-worker-fails-the-job", says="a training that did not end leaves")
def an_outcome_is_left(ns):
    return left(ns, {"outcome_0.json": b""}, "exit_codes = {", folder="broken")


def resumed(ns, change=None):
    """The training again, from its start or from a changed checkpoint of epoch 100."""
    if change:
        import torch

        file = ns["jobs"] / "planted" / "checkpoint.pt"
        ns["distributed"].work(**ns["inputs"] | {"epochs": 100, "folder": str(file.parent)})
        change(state := torch.load(file))
        torch.save(state, file)
    return trained(ns, "resumed = ", "folder=str(broken)")


@fault("09", "claim-training-survives-kill", says="not at the checkpoint")
def it_begins_anew(ns):
    return resumed(ns)


@fault("09", "claim-training-survives-kill", says="steps in all")
def steps_are_done_again_and_counted_twice(ns):
    return resumed(ns, lambda state: state["losses"].append(0.5))


@fault("09", "claim-training-survives-kill", says="from those of the uninterrupted training")
def the_optimizers_state_is_forgotten(ns):
    return resumed(ns, lambda state: state["optimizer"]["state"].clear())


@fault("09", "claim-train-job", says="the client rendered a")
def another_kind_of_object(ns):
    rerun(ns, REQUEST, change=(SENT, 'train_job = sent[0] | {"kind": "Job"}'))


@fault("09", "claim-train-job", says="two pods were asked for")
def one_pod(ns):
    rerun(ns, REQUEST, change=("num_nodes=2", "num_nodes=1"))


@fault("09", "claim-train-job", says="name our runtime")
def a_runtime_without_the_volume(ns):
    rerun(ns, REQUEST, change=("runtime=RUNTIME", 'runtime="torch-distributed"'))


@fault("09", "claim-train-job", says="ship the function")
def another_function_is_shipped(ns):
    rerun(ns, REQUEST, change=("func=shipped.train", "func=trainer.train_and_lose_a_worker"))


@fault("09", "claim-train-job", says="dropped or changed")
def the_models_drop_a_field(ns):
    rerun(ns, REQUEST, "read_back = ", change=(SENT, 'train_job = sent[0] | {"unknown": 1}'))


@fault("09", "claim-train-job", says="should be noticed")
def the_round_trip_keeps_everything(ns):
    rerun(ns, "read_back = ", change=("distributed.round_trip(misspelled)", "dict(misspelled)"))


@fault("09", "claim-train-job", says="PyTorchJob is back")
def the_old_kind_returns(ns):
    with mock.patch.object(ns["models"], "KubeflowOrgV1PyTorchJob", object, create=True):
        rerun(ns, "read_back = ")

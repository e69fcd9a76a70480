"""What the checks of notebook 09 must notice."""

from faults import fault


@fault("09", "claim-shards", says="are in both shards")
def both_workers_take_a_row(ns):
    ns["parts"][1].loc[ns["parts"][1].index[0], "row"] = ns["parts"][0]["row"].iloc[0]


@fault("09", "claim-shards", says="rows were retrieved")
def the_last_row_is_with_nobody(ns):
    ns["together"] = ns["together"].iloc[:-1]
    ns["whole"] = ns["whole"].iloc[:-1]


@fault("09", "claim-shards", says="values differ")
def a_worker_reads_another_value(ns):
    ns["together"].iloc[17, -1] = 0.123


@fault("09", "claim-distributed-training", says="the job is Failed")
def the_job_failed(ns):
    ns["first"].status = "Failed"


@fault("09", "claim-distributed-training", says="the workers' weights lie")
def the_workers_do_not_add_up(ns):
    ns["weights"].iloc[0, 1] += 0.01


@fault("09", "claim-distributed-training", says="should train on all rows")
def a_worker_leaves_rows_out(ns):
    object.__setattr__(ns["workers"][1], "trained_on", ns["workers"][1].trained_on - 1)


@fault("09", "claim-distributed-training", says="from those of one process")
def the_means_of_unequal_shards_are_averaged(ns):
    ns["weights"][["worker 0", "worker 1"]] += 1e-6


@fault("09", "claim-distributed-training", says="should lower the loss")
def nothing_is_learned(ns):
    ns["alone"].losses[-1] = ns["alone"].losses[0]


@fault("09", "check-same-as-scikit-learn", says="the rows that the workers saw")
def scikit_learn_sees_the_held_out_days(ns):
    ns["rows"] = ns["whole"].dropna()


@fault("09", "check-same-as-scikit-learn", says="from scikit-learn's")
def another_strength_of_regularization(ns):
    weaker = ns["new_model"](C=0.001).fit(ns["rows"][ns["contract"].columns], ns["rows"].label)
    ns["compared"]["sklearn"] = [*weaker[-1].coef_[0], weaker[-1].intercept_[0]]


@fault("09", "check-logged-once", says="should leave one run, and left 2")
def both_workers_log(ns):
    ns["runs"] = ns["runs"] * 2


@fault("09", "check-logged-once", says="how many workers")
def the_run_is_that_of_one_process(ns):
    ns["runs"][0].data.params["workers"] = "1"


@fault("09", "check-logged-once", says="carry the contract")
def the_model_has_another_contract(ns):
    object.__setattr__(ns["stored_contract"], "label", "another")


@fault("09", "check-logged-once", says="scores differently")
def the_scaling_is_forgotten(ns):
    ns["scores"] = ns["scores"] * 0.9


@fault("09", "check-logged-once", says="registers and promotes nothing")
def somebody_registers_it(ns):
    ns["registered"] = ns["versions"][:1]


@fault("09", "check-lost-worker-fails-the-job", says="says Complete")
def the_job_goes_on_with_half_of_the_rows(ns):
    ns["second"].status = "Complete"


@fault("09", "check-lost-worker-fails-the-job", says="should name the kill")
def the_worker_ended_by_an_error_of_its_own(ns):
    ns["exit_codes"]["worker 1"] = 1


@fault("09", "check-lost-worker-fails-the-job", says="a training that did not end leaves")
def an_outcome_is_left(ns):
    ns["left"].append("outcome_0.json")


@fault("09", "claim-training-survives-kill", says="not at the checkpoint")
def it_begins_anew(ns):
    object.__setattr__(ns["resumed"], "began_at", 0)


@fault("09", "claim-training-survives-kill", says="steps in all")
def steps_are_done_again_and_counted_twice(ns):
    ns["resumed"].losses.append(0.5)


@fault("09", "claim-training-survives-kill", says="from those of the uninterrupted training")
def the_optimizers_state_is_forgotten(ns):
    ns["resumed"].weights[0] += 1e-6


@fault("09", "claim-train-job", says="the client rendered a")
def another_kind_of_object(ns):
    ns["train_job"]["kind"] = "Job"


@fault("09", "claim-train-job", says="two pods were asked for")
def one_pod(ns):
    ns["asked"]["numNodes"] = 1


@fault("09", "claim-train-job", says="name our runtime")
def a_runtime_without_the_volume(ns):
    ns["train_job"]["spec"]["runtimeRef"]["name"] = "torch-distributed"


@fault("09", "claim-train-job", says="ship the function")
def another_function_is_shipped(ns):
    ns["asked"]["command"][-1] = "torchrun train.py"


@fault("09", "claim-train-job", says="dropped or changed")
def the_models_drop_a_field(ns):
    del ns["read_back"]["spec"]["trainer"]["numNodes"]


@fault("09", "claim-train-job", says="should be noticed")
def the_round_trip_keeps_everything(ns):
    ns["misspelled_back"] = ns["misspelled"]


@fault("09", "claim-train-job", says="PyTorchJob is back")
def the_old_kind_returns(ns):
    ns["kinds"].append("KubeflowOrgV1PyTorchJob")

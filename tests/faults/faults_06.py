"""What the checks of notebook 06 must notice."""

import contextlib
import importlib.util
import shutil
import sys
import tempfile
from pathlib import Path
from unittest import mock

from faults import fault, rerun


@contextlib.contextmanager
def restored(change, *before):
    """Call ``change`` with what was there before, whatever happens."""
    try:
        yield
    finally:
        change(*before)


@contextlib.contextmanager
def changed(ns, old, new, both=False):
    """The course's pipeline with a changed source, compiled; with ``both`` in the second process, too."""
    source = Path(ns["pipeline"].__file__).read_text()
    if source.count(old) != 1:
        raise ValueError(f"{old!r} is not in the pipeline once")
    compiled, again = ns["compiled"], Path("recompiled.yaml")
    kept = compiled.read_bytes(), again.read_bytes() if again.exists() else None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "changed_pipeline.py"
        path.write_text(source.replace(old, new))
        specification = importlib.util.spec_from_file_location(path.stem, path)
        ns["pipeline"] = sys.modules[path.stem] = importlib.util.module_from_spec(specification)
        try:
            specification.loader.exec_module(ns["pipeline"])
            with mock.patch.object(ns["graphs"], "pipeline"):
                rerun(ns, "training = pipeline.training_pipeline")
            rerun(ns, "executors = specification", *(["needs = kubernetes"] if "needs" in ns else []))
            if "in_file" in ns:
                rerun(ns, "in_file = {")
            if both:
                shutil.copy(compiled, again)
            yield
        finally:
            del sys.modules[path.stem]
            compiled.write_bytes(kept[0])
            if kept[1] is not None:
                again.write_bytes(kept[1])


@contextlib.contextmanager
def replaced(ns, parent, name, component, **arguments):
    """A step's run in MLflow by another one: the component is called here, with the table of the run."""
    from lifecycle.training import outcome

    mlflow, client = ns["mlflow"], ns["mlflow"].MlflowClient()
    experiment = client.get_experiment_by_name("training_pipeline").experiment_id

    def runs():
        below = f"tags.`mlflow.parentRunId` = '{parent}' and attributes.run_name = '{name}'"
        return {run.info.run_id for run in client.search_runs([experiment], below)}

    before = runs()
    for run_id in before:
        client.delete_run(run_id)
    folder = sorted(ns["outputs"].glob("training-pipeline-*"))[-1]
    metadata = {"contract": ns["contract"].to_json(), "held_out": 0.25} | arguments.pop("metadata", {})
    table = ns["dsl"].Dataset(uri=str(folder / "retrieve-features" / "table"), metadata=metadata)
    try:
        with mock.patch.object(outcome, "add_to_record"), tempfile.TemporaryDirectory() as scratch:
            made = {kind: here(scratch) for kind, here in arguments.pop("made", {}).items()}
            given = {"table": table, "parent_run": parent, "experiment": "training_pipeline"}
            component.python_func(**given, **made, **arguments)
        yield
    finally:
        for run_id in runs() - before:
            client.delete_run(run_id)
        for run_id in before:
            client.restore_run(run_id)
        while mlflow.active_run():
            mlflow.end_run()


def trained_again(ns, hyperparameters, **metadata):
    made = {"model": lambda folder: ns["dsl"].Model(uri=f"{folder}/model")}
    given = {"checked": True, "hyperparameters": hyperparameters, "metadata": metadata, "made": made}
    return replaced(ns, ns["parent"].run_id, "train", ns["pipeline"].train_model, **given)


@contextlib.contextmanager
def retagged(ns, version, parent):
    """A version of the model that names another parent run."""
    tag = "pipeline.parent_run"
    ns["client"].set_model_version_tag(version.name, version.version, tag, parent)
    try:
        yield
    finally:
        ns["client"].set_model_version_tag(version.name, version.version, tag, ns["parent"].run_id)


@fault("06", "claim-gate", says="only the early day should be complete")
def half_of_the_drivers_are_silent_on_the_early_day(ns):
    stats = ns["stats"]
    silent = (stats.driver_id % 2 == 0) & (stats.event_timestamp.dt.normalize() == "2025-02-10")
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/driver_stats.parquet"
        stats[~silent].to_parquet(path)
        rerun(ns, "stats_file = str", change=('str(workspace.data / "driver_stats.parquet")', repr(path)))
        yield


@fault("06", "claim-gate", says="a closed gate ran the step inside")
def the_gate_compares_the_wrong_way(ns):
    change = ("coverage.output >= least", "coverage.output <= least")
    with restored(ns["own_file"].write_bytes, ns["own_file"].read_bytes()):
        rerun(ns, "def check_day", change=change)
        rerun(ns, "own_file = Path", "check_file = components", "late = check_file")
        ns["late_folder"] = sorted(ns["outputs"].glob("check-day-*"))[-1]
        yield


@fault("06", "claim-gate", says="the steps measured")
def the_step_counts_rows_in_place_of_drivers(ns):
    with restored(ns["own_file"].write_bytes, ns["own_file"].read_bytes()):
        rerun(ns, "def measure_coverage", change=("driver_id.nunique()", "shape[0]"))
        rerun(ns, "def check_day", "own_file = Path", "check_file = components", "late = check_file")
        yield


@fault("06", "claim-orchestrate", says="training must wait")
def training_does_not_wait_for_validation(ns):
    with changed(ns, 'checked=validated.outputs["Output"]', "checked=True"):
        yield


@fault("06", "claim-orchestrate", says="the first gate asks")
def the_gate_compares_with_a_constant(ns):
    with changed(ns, 'evaluated.outputs["Output"] >= threshold', 'evaluated.outputs["Output"] >= 0.0'):
        yield


@fault("06", "claim-orchestrate", says="the second gate asks")
def the_second_gate_does_not_ask_the_comparison(ns):
    with changed(ns, "dsl.If(compared.output == True,", 'dsl.If(parent_run != "",'):
        yield


@fault("06", "claim-orchestrate", says="it guards ['compare")
def a_model_that_is_not_better_is_registered(ns):
    gate = 'with dsl.If(compared.output == True, name="better"):  # noqa: E712'
    with changed(ns, gate, "if True:"):
        yield


@fault("06", "claim-orchestrate", says="the second gate guards")
def the_comparison_is_repeated_behind_the_second_gate(ns):
    old = "registered = register_model("
    given = ("table", "model", "parent_run", "experiment", "threshold")
    call = f"evaluate_model({', '.join(f'{name}={name}' for name in given)})"
    with changed(ns, old, f"{call}\n                    {old}"):
        yield


@fault("06", "claim-pipeline-reproducible", says="compiled different bytes")
def the_description_holds_the_time(ns):
    with changed(ns, 'description="Retrieve', f'description="At {id(ns)}: Retrieve'):
        yield


@fault("06", "claim-pipeline-reproducible", says="names a folder of this machine")
def a_default_is_a_path_of_this_machine(ns):
    path = f"{ns['workspace'].home}/data/driver_labels.parquet"
    with changed(ns, 'champion: str = "",', f"champion: str = {path!r},", both=True):
        yield


@fault("06", "claim-pipeline-reproducible", says="every step should use one image")
def a_step_has_an_image_of_its_own(ns):
    old = "on_cluster(trained, cluster)"
    with changed(ns, old, f'{old}.set_container_image("python:3.10-slim")', both=True):
        yield


@fault("06", "claim-one-parent-run", says="the steps are")
def a_step_nests_under_another_run(ns):
    client, run_id = ns["client"], ns["steps"].run_id["train"]
    with restored(client.set_tag, run_id, "mlflow.parentRunId", ns["parent"].run_id):
        client.set_tag(run_id, "mlflow.parentRunId", "another")
        rerun(ns, 'recorded("notebook 06")')
        yield


@fault("06", "claim-one-parent-run", says="each step's run should be finished")
def a_child_run_stays_open(ns):
    client, run_id = ns["client"], ns["steps"].run_id["train"]
    with restored(client.update_run, run_id, "FINISHED"):
        client.update_run(run_id, "RUNNING")
        rerun(ns, 'recorded("notebook 06")')
        yield


@fault("06", "claim-one-parent-run", says="the parent run should be finished")
def the_exit_handler_leaves_the_parent_open(ns):
    client, run_id = ns["client"], ns["parent"].run_id
    with restored(client.update_run, run_id, "FINISHED"):
        client.update_run(run_id, "RUNNING")
        rerun(ns, 'recorded("notebook 06")')
        yield


@fault("06", "claim-one-parent-run", says="should have got the tuned C")
def the_training_step_ignores_the_hyperparameters(ns):
    with trained_again(ns, '{"C": 1.0}'):
        rerun(ns, 'recorded("notebook 06")')
        ns["steps"] = ns["steps"].loc[["retrieve", "validate", "train", "evaluate"]]  # it ran last
        yield


@fault("06", "claim-pipeline-registers", says="0 versions for an AUC")
def the_version_does_not_name_its_run(ns):
    [version] = ns["versions"]
    ns["not_run"] = print
    with retagged(ns, version, "another"):
        rerun(ns, "versions = client.search_model_versions")
        yield


@fault("06", "claim-pipeline-registers", says="another feature contract")
def the_pipeline_trains_on_another_feature_service(ns):
    from feast import FeatureStore

    ns["store"] = FeatureStore(repo_path=ns["workspace"].feature_repo)
    old = 'FeatureContract.from_model(f"models:/{MODEL}/{tuned.version}")'
    rerun(
        ns, "tuned = max", change=(old, 'FeatureContract.from_feature_service(store, "everything", "label")')
    )


@fault("06", "claim-pipeline-score", says="and the held-out rows give")
def the_evaluation_reads_the_training_rows(ns):
    from lifecycle.models import model
    from lifecycle.models.recipe import Recipe

    real, folder = model.split, sorted(ns["outputs"].glob("training-pipeline-*"))[-1]
    recipe = Recipe("lifecycle.models.model:new_model", "binary", "roc_auc", (), ns["choice"])
    artifact = ns["dsl"].Model(
        uri=str(folder / "train-model" / "model"), metadata={"recipe": ns["json"].dumps(recipe.to_dict())}
    )
    given = {"model": artifact, "threshold": 0.5, "metrics": ns["dsl"].Metrics()}
    with (
        mock.patch.object(model, "split", lambda *given: real(*given)[::-1]),
        replaced(ns, ns["parent"].run_id, "evaluate", ns["pipeline"].evaluate_model, **given),
    ):
        rerun(ns, 'recorded("notebook 06")', "versions = client.search_model_versions")
        yield


@fault("06", "claim-pipeline-score", says="the pipeline trained on")
def the_pipeline_trains_on_nearly_all_rows(ns):
    with trained_again(ns, ns["json"].dumps(ns["choice"]), held_out=0.01):
        rerun(ns, 'recorded("notebook 06")')
        yield


@fault("06", "claim-broken-data-stops", says="validation must stop the run")
def the_validation_step_accepts_any_table(ns):
    from lifecycle.features import validation

    class Accepted:
        errors: tuple = ()
        is_success = True

        def outcomes(self):
            return ns["pd"].DataFrame()

    given = {"feature_repo": str(ns["workspace"].feature_repo), "reference": ns["REFERENCE"]}
    made = {"report": lambda folder: ns["dsl"].HTML(uri=f"{folder}/report.html")}
    with (
        mock.patch.object(validation, "judge", lambda *_: Accepted()),
        replaced(
            ns, ns["broken_parent"].run_id, "validate", ns["pipeline"].validate_features, made=made, **given
        ),
    ):
        rerun(ns, "broken_parent, broken_steps =")
        yield


@fault("06", "claim-broken-data-stops", says="end a broken run as failed")
def the_exit_handler_ends_every_run_as_finished(ns):
    from lifecycle.training import outcome

    with restored(outcome.end_parent, ns["broken_parent"].run_id, "FAILED"):
        outcome.end_parent(ns["broken_parent"].run_id, "FINISHED")
        rerun(ns, "broken_parent, broken_steps =")
        yield


@fault("06", "claim-broken-data-stops", says="should name the broken expectation")
def the_log_does_not_say_why(ns):
    with restored(ns["log"].write_text, ns["log"].read_text()):
        ns["log"].write_text("ValueError: step failed\nexit code 1\n")
        rerun(ns, "reason = message")
        yield


@fault("06", "claim-broken-data-stops", says="was registered from broken data")
def a_version_names_the_broken_run(ns):
    [version] = ns["versions"]
    with retagged(ns, version, ns["broken_parent"].run_id):
        rerun(ns, "broken_parent, broken_steps =")
        yield


@fault("06", "claim-parallel-steps", says="the loop found")
def the_loop_collects_the_highest(ns):
    rerun(ns, "def lowest", change=("min(values)", "max(values)"))
    rerun(ns, "worst = check_days")


@fault("06", "claim-parallel-steps", says="neither first nor last")
def the_lowest_day_is_the_last(ns):
    rerun(ns, "worst = check_days", change=('"2025-02-28", "2025-02-11"', '"2025-02-11", "2025-02-28"'))


@fault("06", "claim-local-cache", says="ran the steps again")
def the_cache_is_off(ns):
    rerun(ns, "cache = {", change=('"enable_caching": True', '"enable_caching": False'))


@fault("06", "claim-local-cache", says="should hold fewer drivers")
def the_file_does_not_change(ns):
    with restored(ns["changing_file"].write_bytes, ns["changing_file"].read_bytes()):
        rerun(ns, "cache = {", change=("stats.driver_id % 2 == 0", "stats.driver_id > 0"))
        yield


@fault("06", "claim-portable-pipeline", says="has no Kubernetes part")
def a_step_is_not_prepared(ns):
    with changed(ns, "on_cluster(validated, cluster)", "pass"):
        yield


@fault("06", "claim-portable-pipeline", says="a step lacks an entry")
def a_step_has_no_secret(ns):
    new = "(secrets(cluster) if task.name != 'validate-features' else {}).items()"
    with changed(ns, "secrets(cluster).items()", new):
        yield


@fault("06", "claim-portable-pipeline", says="the same memory limit")
def a_step_has_another_limit(ns):
    old = "on_cluster(trained, cluster)"
    with changed(ns, old, f'{old}.set_memory_limit("4Gi")'):
        yield


@fault("06", "claim-portable-pipeline", says="should hold two settings only")
def a_password_is_written_into_the_file(ns):
    old = "on_cluster(trained, cluster)"
    with changed(ns, old, f'{old}.set_env_variable("MLFLOW_TRACKING_PASSWORD", "secret")'):
        yield


@fault("06", "claim-portable-pipeline", says="could hold a login")
def a_setting_is_an_address_with_a_login(ns):
    old = "on_cluster(trained, cluster)"
    with changed(ns, old, f'{old}.set_env_variable("MLFLOW_HTTP_REQUEST_TIMEOUT", "https://a:b@mlflow")'):
        yield

"""What the checks of notebook 10 must notice."""

import contextlib
import shutil
import tempfile
from pathlib import Path
from unittest import mock

import mlflow
import yaml
from faults import fault, rerun


@contextlib.contextmanager
def other_project(ns):
    """A copy of the learner's project, which a fault may change."""
    with tempfile.TemporaryDirectory() as folder:
        ns["project"] = shutil.copytree(ns["project"], Path(folder) / "my_cluster")
        yield ns["project"]


def render(ns):
    """Render the project as its command does, and read it as the notebook does."""
    from lifecycle import cli

    file, target = ns["project"] / "lifecycle.toml", ns["project"] / "manifests"
    shutil.rmtree(target)
    cli.main(["--settings", str(file), "render", str(target)], standalone_mode=False)
    rerun(ns, "files = manifests.read", "server = container")


def edit(file, old, new):
    text = file.read_text()
    assert old in text, f"{file.name} has no {old!r}"
    file.write_text(text.replace(old, new, 1))


@fault("10", "claim-manifests-rendered", says="name other images")
def the_server_names_an_image_of_its_own(ns):
    from lifecycle.cluster import manifests

    made = manifests.inference_service
    with (
        other_project(ns),
        mock.patch.object(
            manifests, "inference_service", lambda s: made(s.replace(cluster={"image": "ml-lifecycle:1.0"}))
        ),
    ):
        render(ns)
        yield


@fault("10", "claim-manifests-rendered", says="the server serves driver_rating")
def the_settings_name_another_model(ns):
    with other_project(ns) as project:
        edit(project / "lifecycle.toml", 'model = "driver_conversion"', 'model = "driver_rating"')
        render(ns)
        yield


@fault("10", "claim-manifests-rendered", says="follows the alias latest")
def the_settings_name_another_alias(ns):
    with other_project(ns) as project:
        edit(project / "lifecycle.toml", 'label = "label"', 'label = "label"\nalias = "latest"')
        render(ns)
        yield


@fault("10", "claim-manifests-rendered", says="no such folder")
def the_server_looks_beside_the_volume(ns):
    from lifecycle.settings import Cluster

    with other_project(ns):
        with mock.patch.object(Cluster, "on_volume", lambda self, path: f"/data/{path}"):
            render(ns)
        yield


@fault("10", "claim-manifests-rendered", says="another port")
def the_probes_ask_another_port(ns):
    from lifecycle.cluster import inference_service

    asks = inference_service._asks
    wrong = mock.patch.object(inference_service, "_asks", lambda path, port, **more: asks(path, 8081, **more))
    with other_project(ns), wrong:
        render(ns)
        yield


@fault("10", "claim-manifests-rendered", says="a login's value")
def the_definitions_hold_a_password(ns):
    with other_project(ns) as project:
        file = project / "feature_repo" / "feature_store.yaml"
        settings = yaml.safe_load(file.read_text())
        address = "redis.example.org:6379,password=open-sesame"
        settings["online_store"] = {"type": "redis", "connection_string": address}
        file.write_text(yaml.safe_dump(settings))
        render(ns)
        yield


@fault("10", "claim-manifests-rendered", says="a variable's secret value")
def a_variable_holds_a_password(ns):
    from lifecycle.cluster import inference_service

    plain = [{"name": "MLFLOW_TRACKING_PASSWORD", "value": "open sesame"}]
    with other_project(ns), mock.patch.object(inference_service, "environment", lambda cluster: plain):
        render(ns)
        yield


@fault("10", "claim-manifests-checked", says="a manifest has a mistake")
def the_renderer_misspells_a_field(ns):
    from lifecycle.cluster import manifests

    made = manifests.redis

    def misspelled(cluster):
        deployment, *others = made(cluster)
        deployment["spec"]["replica"] = deployment["spec"].pop("replicas", 1)
        return [deployment, *others]

    with other_project(ns), mock.patch.object(manifests, "redis", misspelled):
        render(ns)
        rerun(ns, "problems = [")
        yield


@fault("10", "claim-manifests-checked", says="misspelled field went unnoticed")
def what_was_read_is_not_compared(ns):
    from lifecycle.cluster import manifests

    with mock.patch.object(manifests, "_differences", lambda *_: []):
        rerun(ns, "found = {name")
        yield


@fault("10", "claim-manifests-checked", says="a text for a number went unnoticed")
def the_text_is_a_number(ns):
    rerun(ns, "found = {name", change=('"two"', "2"))


@fault("10", "claim-manifests-checked", says="a missing field went unnoticed")
def the_selector_is_there(ns):
    rerun(ns, "found = {name", change=('del incomplete["spec"]["selector"]', ""))


@fault("10", "claim-same-file-in-containers", says="the steps name")
def one_step_names_another_image(ns):
    with other_project(ns) as project:
        edit(project / "training_pipeline.yaml", ns["settings"].cluster.image, "python:3.11")
        yield


@fault("10", "claim-same-file-in-containers", says="installs a package when it starts")
def a_step_installs_packages(ns):
    with other_project(ns) as project:
        file = project / "training_pipeline.yaml"
        edit(file, "program_path=$(mktemp -d)", "python3 -m pip install feast; program_path=$(mktemp -d)")
        yield


@fault("10", "claim-same-file-in-containers", says="did not finish")
def the_run_in_containers_failed(ns):
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name("training_pipeline").experiment_id
    run = client.create_run(experiment, run_name=ns["run_name"])
    client.set_terminated(run.info.run_id, "FAILED")
    ns["no_image"] = ""
    yield
    client.delete_run(run.info.run_id)


SPACE = "space = study.best_trial"


@fault("10", "claim-one-search-space", says="another space than Optuna")
def katib_gets_a_narrower_range(ns):
    with other_project(ns):
        ns["FloatDistribution"] = type(ns["space"]["C"])
        narrow = 'experiment("driver-sweep", space | {"C": FloatDistribution(1e-4, 1.0, log=True)}'
        rerun(ns, SPACE, change=('experiment("driver-sweep", space', narrow))
        yield


@fault("10", "claim-one-search-space", says="Katib would draw C from")
def renderer_and_reader_share_a_misspelled_word(ns):
    from lifecycle.cluster import katib

    made = katib.parameter

    def misspelled(name, distribution):
        parameter = made(name, distribution)
        if parameter.feasible_space.distribution == "logUniform":
            parameter.feasible_space.distribution = "loguniform"
        return parameter

    reads = mock.patch.object(katib, "distributions", lambda parameters: ns["space"])
    with other_project(ns), mock.patch.object(katib, "parameter", misspelled), reads:
        rerun(ns, SPACE)
        yield


@fault("10", "claim-one-search-space", says="maxTrials is not known")
def the_experiment_has_a_field_that_katib_does_not_know(ns):
    ns["experiment"]["spec"]["maxTrials"] = ns["experiment"]["spec"].pop("maxTrialCount")


@fault("10", "claim-one-search-space", says="scores differently")
def the_job_ignores_a_hyperparameter(ns):
    rerun(ns, "command = [*job", change=('f"${{trialParameters.{name}}}"', 'f"${{trialParameter.{name}}}"'))


@fault("10", "claim-one-search-space", says="the worst trial")
def katib_minimizes(ns):
    ns["experiment"]["spec"]["objective"]["type"] = "minimize"


@fault("10", "claim-remote-history", says="rows were lost")
def the_offline_server_drops_a_row(ns):
    ns["history"]["over the network"] = ns["history"]["over the network"].iloc[1:]


@fault("10", "claim-remote-history", says="the columns differ")
def the_offline_server_swaps_two_columns(ns):
    found = ns["history"]["over the network"]
    ns["history"]["over the network"] = found[found.columns[::-1]]


@fault("10", "claim-remote-history", says="compares nothing")
def nobody_has_a_rating(ns):
    for table in ns["history"].values():
        table["rating"] = float("nan")


@fault("10", "claim-remote-history", says="returned other values")
def the_offline_server_has_another_time_to_live(ns):
    from datetime import timedelta

    from exercises.core import scratch

    with scratch() as store:
        view = store.get_feature_view("driver_hourly_stats")
        view.ttl = timedelta(hours=2)
        store.apply(view)
        ns["changed"] = store
        other = 'FeatureStore(repo_path=folder) if place == "here" else changed'
        rerun(ns, "history = {}", change=("FeatureStore(repo_path=folder)", other))
        yield

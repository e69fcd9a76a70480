"""A cluster from its first server to its last notebook: `make cluster-test`, in this order.

What a laptop computes is the measure: features, scores, weights.
"""

from __future__ import annotations

import json
import time

import pandas as pd
import pytest
import yaml

from helpers.workspace import REPOSITORY, configure
from lifecycle.cluster import katib, waiting
from lifecycle.features.contract import FeatureContract
from lifecycle.features.labels import training_table
from lifecycle.models.model import new_model, split
from lifecycle.objects import RUNTIME, unique_name
from lifecycle.training import shipped
from lifecycle.training.katib_trial import trial
from lifecycle.training.pipeline import arguments

KUBEFLOW, KATIB, TRAINER, KSERVE, FEAST = (
    *("Kubeflow Pipelines", "Katib", "Trainer", "KServe"),
    "Feast's operator",
)
DRIVERS = list(range(1001, 1011))


def step(minutes: int, *needs: str):
    """A test's limit, and the components without which it is skipped."""
    return pytest.mark.cluster(minutes=minutes, needs=needs)


@pytest.fixture(scope="session")
def servers(cluster):
    """PostgreSQL, Redis, MLflow's server, and a pod of the image with the clone on the volume."""
    cluster.secrets()
    cluster.apply("base")
    cluster.wait("Deployment", "postgres", "redis", "mlflow")
    cluster.start_pod()
    return cluster


@pytest.fixture(scope="session")
def project(servers):
    """The project's own words, with paths of the volume."""
    settings, place = servers.settings, servers.on_volume
    return {
        "repo": servers.repository,
        "labels": place(settings.labels),
        "service": settings.feature_service,
        "label": settings.label,
    }


@pytest.fixture(scope="session")
def features(servers):
    """The definitions applied, and their features in Redis."""
    servers.apply("features")
    servers.wait("Job", servers.document("features/apply.yaml")["metadata"]["name"])
    materialize(servers)
    return servers


def materialize(cluster) -> None:
    name = unique_name("acceptance-materialize")
    cluster.kubectl("create", "job", "--from=cronjob/materialize", name)
    cluster.wait("Job", name)


@pytest.fixture(scope="session")
def models(features, project):
    """Two registered versions with their scores; the first is in production."""
    words = {**project, "model": features.settings.model, "drivers": DRIVERS}
    return [features.inside("register", **words, C=C) for C in (1.0, 0.0001)]


@step(10)
def test_the_servers_start(servers):
    assert servers.read("deployment/mlflow")["status"]["readyReplicas"] == 1


@step(10)
def test_features_are_applied_and_materialized(features, project):
    words = {name: project[name] for name in ("repo", "service")}
    moment = features.settings.cluster.clock.isoformat()
    online, history = features.inside("online_and_history", **words, drivers=DRIVERS, moment=moment)
    assert online == history and len(online) >= 3, "online, a driver has other features than at this moment"
    assert all(value is not None for column in online.values() for value in column.values())


@step(5)
def test_the_volume_belongs_to_the_images_group(features):
    found = features.inside("places", volume=features.settings.cluster.volume)
    assert found["here"] == [10001, 10001, [10001]], f"the pod runs as {found['here']}"
    assert found["file"] == 10001, f"what a job writes belongs to group {found['file']}"
    assert found["volume"] == 10001, (
        f"the volume belongs to group {found['volume']}: its driver takes no fsGroup"
    )


@step(10, FEAST)
def test_a_client_of_the_feature_store_retrieves(features, project):
    name = features.document("features/feature_store.yaml")["metadata"]["name"]
    status = features.wait("FeatureStore", name)["status"]
    client = features.read(f"configmap/{status['clientConfigMap']}")["data"]["feature_store.yaml"]
    words = {name: project[name] for name in ("repo", "service")}
    words |= {"drivers": DRIVERS, "moment": features.settings.cluster.clock.isoformat()}
    here = features.inside("online_and_history", **words)
    # A server that started before the job had applied the definitions looks again after a minute.
    remote = features.inside("online_and_history", **words, client=client, patience=90)
    assert remote == here, "the servers return other values"


@pytest.fixture(scope="session")
def service(models, features):
    """The model server; gives its address and the model's name."""
    settings = features.settings
    name = features.document("models/inference_service.yaml")["metadata"]["name"]
    words = {"model": settings.model, "alias": settings.alias, "version": models[0]["version"]}
    features.inside("set_alias", **words)
    features.kubectl("apply", "-f", str(features.folder / "manifests/models/inference_service.yaml"))
    status = features.wait("InferenceService", name)["status"]
    yield {"url": status["address"]["url"], "model": settings.model}
    if not features.options.keep:
        features.kubectl("delete", f"inferenceservice/{name}", "--timeout=180s")


@step(10, KSERVE)
def test_the_model_is_served(features, service, models):
    found = features.inside("ask", **service, drivers=DRIVERS)
    assert found["status"] == 200 and found["body"]["model_version"] == models[0]["version"], found
    assert found["body"]["predictions"] == pytest.approx(models[0]["scores"], abs=1e-9)


@step(5, KSERVE)
def test_a_version_is_promoted_and_rolled_back(features, service, models):
    alias = features.settings.alias
    for one in (models[1], models[0]):
        words = {**service, "alias": alias, "version": one["version"], "drivers": DRIVERS}
        found = features.inside("promote", **words)
        assert found["waited"] < 30, f"after {found['waited']:.0f} s {found['body']} answers"
        assert found["body"]["predictions"] == pytest.approx(one["scores"], abs=1e-9)


@step(10, KSERVE)
def test_a_rollout_under_load_refuses_nothing(features, service):
    name = features.document("models/inference_service.yaml")["metadata"]["name"]
    server, until = f"deployment/{name}-predictor", "/tmp/end-of-load"
    with features.started("load", **service, drivers=DRIVERS, until=until) as asking:
        time.sleep(10)
        before = features.read(server)["metadata"]["generation"]
        changed = {"spec": {"predictor": {"annotations": {"acceptance": "again"}}}}
        features.kubectl("patch", f"inferenceservice/{name}", "--type=merge", "-p", json.dumps(changed))
        deadline = time.monotonic() + 60
        while features.read(server)["metadata"]["generation"] == before:
            assert time.monotonic() < deadline, "KServe has not rolled anything out"
            time.sleep(1)
        features.kubectl("rollout", "status", server, "--timeout=400s")
        time.sleep(10)  # the old pod still drains
        features.inside("end_load", until=until)
        from acceptance import answer

        found = answer(asking)
    assert set(found) == {"200"} and found["200"] > 50, f"answers by status: {found}"


@step(10, KSERVE)
def test_without_redis_it_refuses_quickly_and_with_it_serves_again(features, service, models):
    assert features.inside("ask", **service, drivers=DRIVERS)["status"] == 200
    features.kubectl("scale", "deployment/redis", "--replicas=0")
    try:
        features.kubectl("wait", "--for=delete", "pod", "--selector=app=redis", "--timeout=120s")
        refused = features.inside("ask", **service, drivers=DRIVERS)
    finally:
        features.kubectl("scale", "deployment/redis", "--replicas=1")
    assert refused["status"] == 503, refused
    assert refused["seconds"] < 5 and "online store" in str(refused["body"]), refused
    features.wait("Deployment", "redis")
    materialize(features)
    found = features.inside("ask", **service, drivers=DRIVERS, patience=60)
    assert found["body"]["predictions"] == pytest.approx(models[0]["scores"], abs=1e-9), found


@step(15, TRAINER)
def test_a_train_job_ends_with_the_weights_of_scikit_learn(features, applied, project):
    job = trained(features)
    features.kubectl("apply", "-f", str(features.folder / "manifests/models/train_job.yaml"))
    features.wait("TrainJob", job, patience=800)
    left = features.inside("outcomes", folder=features.on_volume(f"jobs/{job}"))
    assert [one["rank"] for one in left] == [0, 1] and left[0]["weights"] == left[1]["weights"]
    configure(applied)
    settings = features.settings
    from feast import FeatureStore

    store = FeatureStore(repo_path=str(applied.feature_repo))
    contract = FeatureContract.from_feature_service(store, settings.feature_service, settings.label)
    labels = pd.read_parquet(applied.data / "driver_labels.parquet")
    rows = split(training_table(store, labels, contract, "binary")[0])[0].dropna()
    model = new_model(C=1.0).fit(rows[contract.columns], rows[settings.label])
    weights = model["logisticregression"].coef_[0]
    assert left[0]["weights"] == pytest.approx(weights, abs=1e-3)


def trained(cluster) -> str:
    """The rendered TrainJob's name."""
    if not cluster.options.training_image:
        pytest.skip("no image with PyTorch was named: --training-image")
    return cluster.document("models/train_job.yaml")["metadata"]["name"]


def submit(cluster, project, function, name: str) -> None:
    from kubeflow.trainer import CustomTrainer, KubernetesBackendConfig, TrainerClient
    from kubeflow.trainer.options import Name

    words = {"feature_repo": project["repo"], "labels": project["labels"], "label": project["label"]}
    words |= {"feature_service": project["service"], "epochs": 40, "experiment": "acceptance"}
    words |= {"folder": cluster.on_volume(f"jobs/{name}"), "run_name": name}
    client = TrainerClient(KubernetesBackendConfig(namespace=cluster.namespace))
    trainer = CustomTrainer(func=function, func_args=words, num_nodes=1)
    with waiting.admission():
        client.train(runtime=RUNTIME, trainer=trainer, options=[Name(name)])


@step(15, TRAINER)
def test_two_train_jobs_at_once_do_the_work_of_two(features, project):
    trained(features)
    names = [unique_name("driver-one"), unique_name("driver-two")]
    for name in names:
        submit(features, project, shipped.train, name)
    features.wait("TrainJob", *names, patience=800)
    assert (
        features.inside("logged", experiment="acceptance").items() >= dict.fromkeys(names, "FINISHED").items()
    )


def raises(**named: object) -> None:
    """What a TrainJob ships that fails."""
    raise RuntimeError("the labels are gone")


@step(10, TRAINER)
def test_a_train_job_that_raises_ends_with_its_reason(features, project):
    trained(features)
    name = unique_name("driver-raises")
    submit(features, project, raises, name)
    with pytest.raises(waiting.ClusterError, match="the labels are gone"):
        features.wait("TrainJob", name)


def sweep(cluster, trials: int, **changes: str) -> str:
    """Start the rendered sweep in small; gives its name."""
    rendered = cluster.document("models/experiment.yaml")
    space = katib.distributions(rendered["spec"]["parameters"])
    inputs = {"feature_repo": cluster.repository, "labels": cluster.on_volume(cluster.settings.labels)}
    inputs |= {"feature_service": cluster.settings.feature_service, "label": cluster.settings.label}
    small = katib.experiment("driver-sweep", space, inputs | changes, trials, cluster.settings.cluster)
    one = katib.for_one_run(small)
    cluster.kubectl("create", "-f", "-", stdin=json.dumps(one))
    return one["metadata"]["name"]


@step(25, KATIB)
def test_each_value_of_a_sweep_equals_the_local_one(features, applied):
    name = sweep(features, trials=4)
    features.wait("Experiment", name, patience=1400)
    found = features.read("trials.kubeflow.org", "--selector", f"katib.kubeflow.org/experiment={name}")
    configure(applied)
    here = {"feature_repo": str(applied.feature_repo), "labels": str(applied.data / "driver_labels.parquet")}
    here |= {"feature_service": features.settings.feature_service, "label": features.settings.label}
    compared = 0
    for one in found["items"]:
        [metric] = one["status"]["observation"]["metrics"]
        choices = {given["name"]: given["value"] for given in one["spec"]["parameterAssignments"]}
        assert metric["latest"] == f"{trial(**here, **choices):.6f}", choices
        compared += 1
    assert compared == 4


@step(10, KATIB)
def test_a_sweep_that_fails_says_why(features):
    name = sweep(features, trials=1, label="no_such_label")
    with pytest.raises(waiting.ClusterError, match="no_such_label"):
        features.wait("Experiment", name)


class Runs:
    """Runs of the rendered pipeline, each with an experiment of MLflow of its own kind."""

    experiment = "acceptance_pipeline"

    def __init__(self, cluster):
        self.cluster = cluster

    def start(self, **changes) -> str:
        cluster, settings = self.cluster, self.cluster.settings
        paths = {"feature_repo": cluster.repository, "labels": cluster.on_volume(settings.labels)}
        given = arguments(settings, **{**paths, "experiment": self.experiment, **changes})
        file = str(cluster.folder / "training_pipeline.yaml")
        return cluster.pipelines.create_run_from_pipeline_package(file, arguments=given).run_id

    def wait(self, run: str) -> None:
        waiting.for_run(self.cluster.pipelines, run, self.cluster.namespace, patience=1200)

    def record(self, run: str) -> dict:
        return self.cluster.inside("record", experiment=self.experiment, pipeline_run=run)

    def versions(self) -> list[str]:
        return self.cluster.inside("versions", model=self.cluster.settings.model)


@pytest.fixture(scope="session")
def runs(features, project):
    words = {name: project[name] for name in ("repo", "labels", "service")}
    features.inside("save_reference", **words, name=features.settings.reference)
    return Runs(features)


@pytest.fixture(scope="session")
def gated(runs):
    """Two runs at once, with open gates and with a closed one; and the versions before them."""
    before = runs.versions()
    return runs.start(), runs.start(threshold=0.99), before


@step(20, KUBEFLOW)
def test_a_run_with_open_gates_registers_a_version(runs, gated):
    run, _, before = gated
    runs.wait(run)
    found = runs.record(run)
    assert (found["status"], found["parents"], found["running"]) == ("FINISHED", ["FINISHED"], 0), found
    assert found["version"] in set(runs.versions()) - set(before), found


@step(20, KUBEFLOW)
def test_a_run_with_a_closed_gate_registers_nothing(runs, gated):
    other, run, before = gated
    for one in (other, run):
        runs.wait(one)
    found = runs.record(run)
    assert (found["status"], found["gate"], found["version"]) == ("FINISHED", "good-enough", ""), found
    assert set(runs.versions()) - set(before) == {runs.record(other)["version"]}


@pytest.fixture(scope="session")
def failing(runs, project):
    """Two runs at once: one on broken labels, and one whose reference data is saved after its failure."""
    broken = runs.cluster.on_volume("data/broken.parquet")
    runs.cluster.inside("break_labels", labels=project["labels"], broken=broken)
    return runs.start(labels=broken), runs.start(reference="saved_later")


@step(15, KUBEFLOW)
def test_broken_data_end_a_run_in_the_words_of_the_rule(runs, failing):
    run, _ = failing
    with pytest.raises(waiting.ClusterError, match="breaks its expectations"):
        runs.wait(run)
    assert runs.record(run)["parents"] == ["FAILED"]


@step(20, KUBEFLOW)
def test_a_retried_run_ends_in_the_same_parent(runs, failing, project):
    _, run = failing
    with pytest.raises(waiting.ClusterError, match="saved_later"):
        runs.wait(run)
    words = {name: project[name] for name in ("repo", "labels", "service")}
    runs.cluster.inside("save_reference", **words, name="saved_later")
    runs.cluster.pipelines.runs.run_service_retry_run(run)
    runs.wait(run)
    found = runs.record(run)
    assert (found["status"], found["parents"], found["running"]) == ("FINISHED", ["FINISHED"], 0), found


@step(15, KUBEFLOW)
def test_a_terminated_run_is_closed(runs):
    run = runs.start()
    deadline = time.monotonic() + 600
    while not begun(runs.cluster, run):
        assert time.monotonic() < deadline, "no step has ended"
        time.sleep(2)
    runs.cluster.pipelines.terminate_run(run)
    with pytest.raises(waiting.ClusterError):
        runs.wait(run)
    found = runs.record(run)
    assert (found["parents"], found["running"], found["version"]) == (["FAILED"], 0, ""), found


def begun(cluster, run: str) -> bool:
    """Whether the run's first step, which opens the parent in MLflow, has ended."""
    pods = cluster.read("pods", "--selector", f"pipeline/runid={run}")["items"]
    return any(
        "-container-impl-" in pod["metadata"]["name"] and pod["status"]["phase"] == "Succeeded"
        for pod in pods
    )


@step(30, KUBEFLOW)
def test_a_schedule_retrains_twice(runs, models):
    cluster = runs.cluster
    cluster.inside(
        "set_alias", model=cluster.settings.model, alias="production", version=models[0]["version"]
    )
    settings = cluster.settings.replace(retraining={"cron": "0 */2 * * * *"})
    words = ["--settings", settings.model_dump_json(exclude_defaults=True), "schedule"]
    words += ["--host", cluster.host()]
    assert "is there now" in cluster.lifecycle(*words)
    assert "unchanged" in cluster.lifecycle(*words)
    client = cluster.pipelines
    place = client.get_experiment(
        experiment_name=settings.retraining.experiment,
        namespace=cluster.namespace if client.get_kfp_healthz().multi_user else None,
    ).experiment_id
    [schedule] = client.list_recurring_runs(experiment_id=place).recurring_runs
    seen: list[str] = []
    while len(seen) < 2:
        found = client.list_runs(page_size=100, experiment_id=place, sort_by="created_at").runs or []
        started = [one.run_id for one in found if one.recurring_run_id == schedule.recurring_run_id]
        for run in [one for one in started if one not in seen][:1]:
            runs.wait(run)
            seen.append(run)
        time.sleep(5)
    client.delete_recurring_run(schedule.recurring_run_id)


NOTEBOOKS = {"06": KUBEFLOW, "07": KSERVE, "09": TRAINER, "10": KATIB}


@pytest.mark.parametrize(
    "number", [pytest.param(number, marks=step(90, needs)) for number, needs in NOTEBOOKS.items()]
)
def test_a_notebook_runs_twice(features, number):
    if number == "09":
        trained(features)
    documents = list(yaml.safe_load_all((REPOSITORY / "cluster" / "kind" / "notebooks.yaml").read_text()))
    job = documents.pop()
    name = f"acceptance-notebook-{number}"
    job["metadata"]["name"] = name
    [container] = job["spec"]["template"]["spec"]["containers"]
    container["image"] = features.options.notebooks_image or container["image"]
    there = {"LIFECYCLE_IMAGE": features.image, "LIFECYCLE_NAMESPACE": features.namespace}
    there |= {"NOTEBOOKS": f"{number} {number}"}
    there |= {"EXTRAS": features.options.extras} if number == "09" else {}
    there |= {"WHEELS": "/ml-lifecycle/wheels"} if features.options.wheels else {}
    container["env"] += [{"name": one, "value": value} for one, value in there.items()]
    features.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(documents))
    features.kubectl("create", "configmap", "notebooks", check=False)
    features.kubectl("create", "-f", "-", stdin=json.dumps(job))
    features.wait("Job", name, patience=5000)

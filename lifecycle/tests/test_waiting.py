"""Waiting for what runs on a cluster: the tools' own clients against a server that answers as theirs do."""

import json
import threading
import time
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml
from click.testing import CliRunner
from kserve import V1beta1InferenceService
from optuna.distributions import IntDistribution

from helpers.workspace import REPOSITORY
from lifecycle.cli import main
from lifecycle.cluster import katib, waiting
from lifecycle.cluster.inference_service import inference_service
from lifecycle.cluster.trainer import training_runtime
from lifecycle.objects import RUNTIME, unique_name
from lifecycle.settings import Cluster, Settings
from lifecycle.training import shipped

pytestmark = [pytest.mark.unit, pytest.mark.filterwarnings("ignore")]

NAMESPACE = "somewhere"
JOB = "training-1"
POD = f"{JOB}-node-0-0-abcde"
OTHER = f"{JOB}-node-0-1-fghij"
RUN = "3f1c4a9e-8f0e-4c57-9f4d-6d1f0f6f4e0b"
WORKFLOW = "training-pipeline-x7k2p"
OBJECTS = {"trainjobs", "experiments", "inferenceservices", "jobs", "deployments", "featurestores"}
QUICK = {"every": 0.02, "grace": 0.3, "patience": 20}
RUNNING = {"phase": "Running", "containerStatuses": [{"name": "node", "state": {"running": {}}}]}


def at(second: int) -> str:
    return f"2026-11-30T12:00:{second:02d}Z"


def pod(status: dict, name: str = POD, made: int = 0, containers: str = "node", **metadata: dict) -> dict:
    statuses = [
        {"name": "node", "image": "i", "ready": False, "restartCount": 0, "imageID": "", **container}
        for container in status.get("containerStatuses", [])
    ]
    return {
        "metadata": {"name": name, "namespace": NAMESPACE, "creationTimestamp": at(made), **metadata},
        "spec": {"containers": [{"name": container} for container in containers.split()]},
        "status": {**status, "containerStatuses": statuses},
    }


def waits(reason: str, message: str = "", name: str = POD) -> dict:
    state = {"waiting": {"reason": reason, "message": message}}
    return pod({"phase": "Pending", "containerStatuses": [{"name": "node", "state": state}]}, name)


def unschedulable(message: str, name: str = POD, **metadata: dict) -> dict:
    scheduled = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
    return pod({"phase": "Pending", "conditions": [scheduled]}, name, **metadata)


def ended(code: int, second: int, reason: str = "Error", container: str = "node") -> dict:
    state = {"terminated": {"exitCode": code, "reason": reason, "finishedAt": at(second)}}
    return {"phase": "Failed", "containerStatuses": [{"name": container, "state": state}]}


def event(kind: str, name: str, reason: str, message: str, second: int = 30) -> dict:
    return {
        "metadata": {"name": f"{name}.1"},
        "involvedObject": {"kind": kind, "name": name},
        **{"type": "Warning", "reason": reason, "message": message, "lastTimestamp": at(second)},
    }


def condition(kind: str, reason: str = "", message: str = "") -> dict:
    return {"conditions": [{"type": kind, "status": "True", "reason": reason, "message": message}]}


@pytest.fixture
def cluster(monkeypatch, tmp_path):
    """A server with one namespace, and what talks to it. ``looks`` are what each look finds: an object (its
    status, or an answer with its code; of a run, the run and its Workflow), pods, and events; the last one
    stays."""
    from kubernetes.client import ApiClient, Configuration

    found = SimpleNamespace(looks=[], logs={}, previous={}, refusal=None, fails=0, requests=set())

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"  # one connection for all looks

        def answer(self, code: int, body: object) -> None:
            content = body.encode() if isinstance(body, str) else json.dumps(body).encode()
            kind = "text/plain" if isinstance(body, str) else "application/json"
            self.send_response(code)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def asked(self, verb: str) -> list[str]:
            """Notes verb, group, and resource; gives the resource and its name."""
            head, _, tail = urlsplit(self.path).path.partition(f"/namespaces/{NAMESPACE}/")
            resource = tail.split("/")
            group = head.split("/")[2] if head.startswith("/apis/") else ""
            if tail:
                word = "pods/log" if resource[-1] == "log" else resource[0]
                found.requests.add((verb or ("get" if len(resource) > 1 else "list"), group, word))
            return resource

        def do_GET(self) -> None:
            resource, query = self.asked(""), parse_qs(urlsplit(self.path).query)
            if self.path.endswith("/healthz"):
                return self.answer(200, {"multi_user": False})
            if resource[0] == "trainingruntimes":
                return self.answer(200, training_runtime(Cluster()))
            if self.path == f"/apis/v2beta1/runs/{RUN}" or resource[0] in OBJECTS:
                if found.fails:
                    found.fails -= 1
                    return self.answer(503, {"message": "etcd is away"})
                found.look = found.looks.pop(0) if len(found.looks) > 1 else found.looks[0]
                code, said = found.look[0] if isinstance(found.look[0], tuple) else (200, found.look[0])
                if code == 200 and resource[0] in OBJECTS:
                    said = {"metadata": {"name": resource[1], "generation": 2}, "status": said}
                return self.answer(code, said.get("run", said))
            if resource[0] == "workflows":
                assert query["labelSelector"] == [f"pipeline/runid={RUN}"]
                return self.answer(200, {"items": found.look[0]["workflows"]})
            if resource[-1] == "log":
                logs = found.previous if "previous" in query else found.logs
                written = logs.get(resource[1], {})
                lines = written if isinstance(written, str) else written.get(query["container"][0], "")
                lines = lines.splitlines()
                last = query.get("tailLines")
                return self.answer(200, "\n".join(lines[-int(last[0]) :] if last else lines))
            if resource[0] in ("pods", "events"):
                if resource[0] == "pods":
                    found.selector = query["labelSelector"][0]
                return self.answer(200, {"items": found.look[1 if resource[0] == "pods" else 2]})
            return self.answer(404, {"message": "not found"})

        def do_POST(self) -> None:
            self.asked("create")
            self.rfile.read(int(self.headers["Content-Length"]))
            self.answer(*(found.refusal or (201, {})))

        def do_PUT(self) -> None:
            self.asked("update")
            self.rfile.read(int(self.headers["Content-Length"]))
            self.answer(200, {})

        def do_DELETE(self) -> None:
            self.asked("delete")
            self.answer(200, {})

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    found.address = f"http://127.0.0.1:{server.server_port}"
    found.configuration = Configuration(host=found.address)
    found.configuration.retries = False
    found.api = ApiClient(found.configuration)
    yield found
    server.shutdown()
    server.server_close()


@pytest.fixture
def trainer(cluster):
    from kubeflow.trainer import KubernetesBackendConfig, TrainerClient

    config = KubernetesBackendConfig(namespace=NAMESPACE, client_configuration=cluster.configuration)
    client = TrainerClient(config)
    cluster.requests.clear()
    return client


@pytest.fixture
def pipelines(cluster, monkeypatch, tmp_path):
    import kfp

    monkeypatch.setattr(kfp.Client, "_LOCAL_KFP_CONTEXT", str(tmp_path / "context.json"))
    return kfp.Client(host=cluster.address)


def submit(client) -> str:
    from kubeflow.trainer import CustomTrainer
    from kubeflow.trainer.options import Name

    trainer = CustomTrainer(func=shipped.train, func_args={"epochs": 1}, num_nodes=2)
    return client.train(runtime=RUNTIME, trainer=trainer, options=[Name(JOB)])


@contextmanager
def stops(cluster, *looks: tuple, words: str, wait=None, **options):
    """The wait ends early, with these words, and what it has said on the way."""
    cluster.looks, said = list(looks), []
    began = time.monotonic()
    with pytest.raises(waiting.ClusterError) as raised:
        (wait or partial(waiting.for_object, "TrainJob", JOB, NAMESPACE, cluster.api))(
            say=said.append, **QUICK | options
        )
    assert words in str(raised.value), raised.value
    assert time.monotonic() - began < 15, "it waited for its patience to end"
    yield said


def test_a_job_that_completes_is_reported_as_it_goes_and_each_line_once(cluster, trainer):
    done = {"phase": "Succeeded", "containerStatuses": [{"name": "node", "state": {"terminated": {}}}]}
    done["containerStatuses"][0]["state"]["terminated"] = {"exitCode": 0}
    cluster.logs[POD] = "trains\nends"
    cluster.looks = [
        ({}, [], []),
        ({}, [waits("ContainerCreating")], []),
        ({}, [pod(RUNNING)], []),
        (condition("Complete", "AllJobsCompleted"), [pod(done)], []),
    ]
    said = []
    status = waiting.for_train_job(trainer, JOB, say=said.append, **QUICK)
    assert status == waiting.Status("Complete", "succeeded", "AllJobsCompleted")
    assert said == [
        "training-1: Created; no pod yet",
        "training-1: Created; node-0-0-abcde ContainerCreating",
        "training-1: Created; node-0-0-abcde Running",
        "node-0-0-abcde | trains",
        "node-0-0-abcde | ends",
        "training-1: Complete; node-0-0-abcde Succeeded",
    ]


IMAGE = 'Back-off pulling image "nobody/has:it"'
CONFIG = 'configmap "mlflow" not found'
CLAIM = 'persistentvolumeclaim "ml-lifecycle" not found'
ROOM = "0/1 nodes are available: 1 Insufficient cpu."
QUOTA = 'pods "x" is forbidden: exceeded quota: small, requested: limits.cpu=1'
POLICY = 'pods "x" is forbidden: violates PodSecurity "restricted:latest"'
WEBHOOK = (
    'Internal error occurred: failed calling webhook "mutator.pod.katib.kubeflow.org": failed to call '
    'webhook: Post "https://katib-controller.kubeflow.svc:443/mutate-pod?timeout=10s": connection refused'
)


@pytest.mark.parametrize("kind", sorted(waiting.KINDS))
def test_ends_on_what_cannot_start_with_the_pod_and_the_reason(cluster, kind):
    wait = partial(waiting.for_object, kind, JOB, NAMESPACE, cluster.api)
    looks = {
        f"pod {POD}: ImagePullBackOff: {IMAGE}": ([waits("ImagePullBackOff", IMAGE)], []),
        f"pod {POD}: CreateContainerConfigError: {CONFIG}": (
            [waits("CreateContainerConfigError", CONFIG)],
            [],
        ),
        f"pod {POD}: Unschedulable: {CLAIM}": ([unschedulable(CLAIM)], []),
        f"pod {POD}: Unschedulable: {ROOM}": ([unschedulable(ROOM)], []),
    }
    for message in (QUOTA, POLICY, WEBHOOK):
        refused = event("Job", f"{JOB}-node-0", "FailedCreate", message)
        looks[f"Job {JOB}-node-0: FailedCreate: {message}"] = ([], [refused])
    for reason, (pods, events) in looks.items():
        words = f"{kind} {JOB} cannot go on: {reason}"
        with stops(cluster, ({}, pods, events), words=words, wait=wait, grace=0.1) as said:
            assert len(said) == 1 + len(events), "what changed, and each warning, is said once"
    assert cluster.selector == waiting.KINDS[kind].pods.format(JOB)


def test_a_second_pod_that_is_refused_ends_the_wait_of_the_first(cluster):
    refused = event("Job", f"{JOB}-node-0", "FailedCreate", QUOTA)
    with stops(cluster, ({}, [pod(RUNNING, made=29)], [refused]), words=QUOTA) as said:
        assert said.count(f"Job {JOB}-node-0: FailedCreate: {QUOTA}") == 1


def test_ends_on_a_volume_that_cannot_be_mounted(cluster):
    message = 'MountVolume.SetUp failed for volume "settings" : configmap "feature-store" not found'
    about = event("Pod", POD, "FailedMount", message)
    with stops(cluster, ({}, [waits("ContainerCreating")], [about]), words=f"FailedMount: {message}"):
        pass
    pulls = event("Pod", POD, "Pulling", "Pulling image", second=31) | {"type": "Normal"}
    cluster.looks = [({}, [waits("ContainerCreating")], [about, pulls])] * 8 + [
        (condition("Complete"), [], [])
    ]
    wait = partial(waiting.for_object, "TrainJob", JOB, NAMESPACE, cluster.api)
    assert wait(say=len, **QUICK | {"grace": 0.1}).ended == "succeeded", "the volume is mounted by now"


def test_goes_on_when_an_obstacle_passes_and_when_the_server_comes_back(cluster):
    cluster.fails = 3
    refused = event("Job", f"{JOB}-node-0", "FailedCreate", QUOTA, second=1)
    stuck = ({}, [waits("ErrImagePull", IMAGE)], [refused])
    goes = ({}, [pod(RUNNING, made=2)], [refused])
    cluster.looks = [stuck] * 3 + [goes] * 40 + [(condition("Complete"), [pod(RUNNING, made=2)], [])]
    longer = QUICK | {"every": 0.03, "grace": 1.1}
    assert waiting.for_object("TrainJob", JOB, NAMESPACE, cluster.api, say=len, **longer).ended == "succeeded"


def test_events_of_another_run_do_not_count(cluster):
    other = event("Job", "training-12-node-0", "FailedCreate", QUOTA)
    cluster.looks = [({}, [], [other])] * 30 + [(condition("Complete"), [], [])]
    assert waiting.for_object("TrainJob", JOB, NAMESPACE, cluster.api, say=len, **QUICK).ended == "succeeded"


def test_a_failed_job_names_the_pod_that_failed_first_and_its_last_lines(cluster):
    cluster.logs = {POD: "worker 0\nlost worker 1", OTHER: "one\ntwo\nValueError: no rows"}
    pods = [pod(ended(1, 20)), pod(ended(137, 10, "OOMKilled"), OTHER, made=1)]
    failed = condition("Failed", "FailedJobs", "jobset failed")
    words = (
        f"TrainJob training-1 failed: FailedJobs: jobset failed. Pod {OTHER}, container node: OOMKilled, "
        "exit code 137. Its last lines:\ntwo\nValueError: no rows"
    )
    with stops(cluster, (failed, pods, []), words=words, lines=2) as said:
        assert "node-0-0-abcde | lost worker 1" in said
    evicted = pod({"phase": "Failed", "reason": "Evicted", "message": "low on memory"})
    with stops(cluster, (failed, [evicted], []), words=f"Pod {POD}, Evicted: low on memory"):
        pass
    gone = event("Job", f"{JOB}-node-0", "BackoffLimitExceeded", "Job has reached its limit")
    with stops(cluster, (failed, [], [gone]), words="Its last event: Job has reached its limit"):
        pass


def test_ends_when_the_job_is_deleted_when_rights_are_missing_and_when_nobody_answers(cluster):
    with stops(cluster, ((404, {}), [], []), words="TrainJob training-1 is not in somewhere: it was"):
        pass
    forbidden = 'trainjobs.trainer.kubeflow.org "training-1" is forbidden'
    with stops(cluster, ((403, {"message": forbidden}), [], []), words=forbidden):
        pass
    cluster.fails = 10_000
    with stops(cluster, ({}, [], []), words="the cluster: does not answer: 503"):
        pass


def test_patience_ends_and_says_what_was_last_seen(cluster):
    cluster.looks = [({}, [pod(RUNNING)], [])]
    words = "training-1 has not ended within 0 s; it is Created; node-0-0-abcde Running"
    with pytest.raises(TimeoutError, match=words):
        waiting.for_object("TrainJob", JOB, NAMESPACE, cluster.api, say=len, **QUICK | {"patience": 0.1})


TRIAL = {"katib.kubeflow.org/experiment": JOB, "katib.kubeflow.org/trial": f"{JOB}-8m2xq"}
COLLECTED = "trial metrics-logger-and-collector"
SEARCHES = {
    "conditions": [
        {"type": "Created", "status": "True", "reason": "ExperimentCreated"},
        {"type": "Running", "status": "True", "reason": "ExperimentRunning"},
    ],
    "trials": 2,
    "trialsSucceeded": 1,
    "trialsRunning": 1,
}


def of_trial(name: str, status: dict) -> dict:
    return pod(status, f"{JOB}-{name}", containers=COLLECTED, labels=TRIAL)


def searched(kind: str, reason: str, message: str, **more: object) -> dict:
    """An Experiment's status as Katib 0.19 leaves it: what was true stays, with the status False."""
    [created, running] = SEARCHES["conditions"]
    conditions = [created, {**running, "status": "False"}, *condition(kind, reason, message)["conditions"]]
    return {**SEARCHES, "trialsRunning": 0, "conditions": conditions, **more}


def test_a_sweep_reports_its_trials_and_gives_the_best(cluster):
    from kubernetes.client import CustomObjectsApi

    optimum = {"parameterAssignments": [{"name": "degree", "value": "2"}]}
    message = "Experiment has succeeded because max trial count has reached"
    done = searched("Succeeded", "ExperimentMaxTrialsReached", message, currentOptimalTrial=optimum)
    suggestion = pod(RUNNING, f"{JOB}-tpe-5d8f", containers="suggestion")
    cluster.logs = {
        f"{JOB}-a": {"metrics-logger-and-collector": "auc=0.77", "trial": "not reported"},
        f"{JOB}-tpe-5d8f": "a line of the suggestion",
    }
    cluster.looks = [
        (SEARCHES, [of_trial("a", RUNNING), suggestion], []),
        (done, [of_trial("a", {"phase": "Succeeded"}), suggestion], []),
    ]
    said = []
    ended = katib.finished(CustomObjectsApi(cluster.api), JOB, NAMESPACE, say=said.append, **QUICK)
    assert katib.best(ended, {"degree": IntDistribution(1, 3)}) == {"degree": 2}
    assert said == [
        f"{JOB}: Running, trials: 1 succeeded, 0 failed; a Running, tpe-5d8f Running",
        "a | auc=0.77",
        f"{JOB}: Succeeded, trials: 1 succeeded, 0 failed; tpe-5d8f Running",
    ]


def test_a_failed_sweep_has_the_words_of_the_trial_which_its_collector_prints(cluster):
    failed = searched(
        "Failed", "ExperimentFailed", "Experiment has failed because max failed count has reached"
    )
    cluster.logs[f"{JOB}-a"] = {"metrics-logger-and-collector": "Traceback\nValueError: no rows"}
    pods = [of_trial("a", ended(1, 10, container="trial")), of_trial("b", ended(1, 20, container="trial"))]
    words = (
        f"Experiment {JOB} failed: ExperimentFailed: Experiment has failed because max failed count has "
        f"reached. Pod {JOB}-a, container trial: Error, exit code 1. Its last lines:\nTraceback\n"
        "ValueError: no rows"
    )
    wait = partial(waiting.for_object, "Experiment", JOB, NAMESPACE, cluster.api)
    with stops(cluster, (failed, pods, []), words=words, wait=wait):
        pass


def test_a_trial_without_room_waits_for_another_one_and_not_for_the_suggestion(cluster):
    waits_for_room = unschedulable(ROOM, f"{JOB}-b", labels=TRIAL)
    full = (SEARCHES, [of_trial("a", RUNNING), waits_for_room], [])
    done = (searched("Succeeded", "", ""), [], [])
    wait = partial(waiting.for_object, "Experiment", JOB, NAMESPACE, cluster.api)
    cluster.looks = [full] * 8 + [done]
    assert wait(say=len, **QUICK | {"grace": 0.1}).ended == "succeeded"
    alone = (SEARCHES, [pod(RUNNING, f"{JOB}-tpe-5d8f", containers="suggestion"), waits_for_room], [])
    with stops(cluster, alone, words=f"pod {JOB}-b: Unschedulable: {ROOM}", wait=wait):
        pass
    missing = (SEARCHES, [of_trial("a", RUNNING), unschedulable(CLAIM, f"{JOB}-b", labels=TRIAL)], [])
    with stops(cluster, missing, words=f"pod {JOB}-b: Unschedulable: {CLAIM}", wait=wait):
        pass


def serves(restarts: int = 0, ready: bool = True, name: str = POD) -> dict:
    container = {"name": "kserve-container", "state": {"running": {}}, "restartCount": restarts}
    conditions = [{"type": "Ready", "status": str(ready)}]
    status = {"phase": "Running", "conditions": conditions, "containerStatuses": [container]}
    return pod(status, name, containers="kserve-container")


URL = "http://driver-conversion-predictor.somewhere.svc.cluster.local"
SERVED = {
    "address": {"url": URL},
    "conditions": [{"type": kind, "status": "True"} for kind in ("IngressReady", "PredictorReady", "Ready")],
    "deploymentMode": "Standard",
    "modelStatus": {"states": {"activeModelState": "", "targetModelState": "Pending"}},
}
NOT_SERVED = {"conditions": [{"type": kind, "status": "False"} for kind in ("PredictorReady", "Ready")]}


@pytest.fixture
def kserve(cluster):
    from kserve import KServeClient
    from kubernetes.client import Configuration

    names = {"name": "here", "context": {"cluster": "here", "user": "me"}, "user": {}}
    config = {"current-context": "here", "contexts": [names], "users": [{**names, "name": "me"}]}
    config |= {"clusters": [{"name": "here", "cluster": {"server": cluster.address}}]}
    yield KServeClient(config_dict=config, persist_config=False)
    Configuration.set_default(None)


def test_a_server_is_there_when_all_its_pods_are_ready_in_two_looks(cluster):
    new = serves(ready=False, name=f"{JOB}-new")
    cluster.logs = {POD: "an old line", f"{JOB}-new": "loads version 3"}
    cluster.looks = [
        (NOT_SERVED, [], []),
        (SERVED, [serves()], []),  # the rollout has not begun
        (SERVED, [serves(), new], []),
        *[(SERVED, [serves(name=f"{JOB}-new")], [])] * 2,
    ]
    said = []
    wait = partial(waiting.for_object, "InferenceService", JOB, NAMESPACE, cluster.api)
    ready = wait(say=said.append, **QUICK)
    assert ready.object["status"]["address"]["url"] == URL and len(cluster.looks) == 1
    assert said[:2] == [f"{JOB}: not ready; no pod yet", f"{JOB}: Ready; node-0-0-abcde Running"]
    assert "new | loads version 3" in said and "node-0-0-abcde | an old line" not in said


def test_a_rollout_that_has_no_room_is_not_ready_although_the_old_pod_answers(cluster):
    wait = partial(waiting.for_object, "InferenceService", JOB, NAMESPACE, cluster.api)
    stuck = (SERVED, [serves(), unschedulable(ROOM, f"{JOB}-new")], [])
    with stops(cluster, stuck, words=f"pod {JOB}-new: Unschedulable: {ROOM}", wait=wait):
        pass
    observed = condition("Available") | {"observedGeneration": 1}  # of 2: the last change is not applied yet
    applied = [(observed, [serves()], [])] * 3 + [(observed | {"observedGeneration": 2}, [serves()], [])]
    cluster.looks = applied
    waiting.for_object("Deployment", JOB, NAMESPACE, cluster.api, say=len, **QUICK)
    assert len(applied) == 1


def test_a_server_that_ends_again_and_again_is_reported_with_its_last_words(cluster):
    words = "ContractError: the definition of conv_rate has changed since the model was trained"
    cluster.previous[POD] = f"Traceback\n{words}"
    wait = partial(waiting.for_object, "InferenceService", JOB, NAMESPACE, cluster.api)
    reason = (
        f"pod {POD}: CrashLoopBackOff: container kserve-container ended 3 times. Its last lines:\nTraceback"
    )
    with stops(cluster, (NOT_SERVED, [serves(3, ready=False)], []), words=reason, wait=wait) as said:
        pass
    assert any("Running" in line for line in said), "the container runs between two ends"


LAUNCHERS = {
    "torch/distributed/elastic/multiprocessing/api.py:1002] failed (exitcode: 1) local_rank: 0 (pid: 10)": 31,
    "launcher_v2.go:449] Component failed to execute successfully: exit status 1": 24,
}


@pytest.mark.parametrize("line", LAUNCHERS)
def test_the_reason_stands_before_what_a_launcher_says_about_it(cluster, line):
    """torchrun and Kubeflow's launcher write a page after the failed process's own last words."""
    words = [f"E1201 01:21:37.709 1 {line}", *(f"a frame of its own {n}" for n in range(LAUNCHERS[line]))]
    cluster.logs[POD] = "\n".join(["Traceback (most recent call last):", "RuntimeError: no labels", *words])
    failed = (condition("Failed", "FailedJobs"), [pod(ended(1, 20))], [])
    cluster.looks = [failed]
    with pytest.raises(waiting.ClusterError, match="RuntimeError: no labels") as raised:
        waiting.for_object("TrainJob", JOB, NAMESPACE, cluster.api, say=len, **QUICK)
    assert str(raised.value).endswith(line), "what the launcher knows about the end comes last"


def test_a_feature_store_is_ready_with_its_servers(cluster):
    parts = [{"type": kind, "status": "True", "reason": "Ready"} for kind in ("Registry", "Client")]
    away = {"type": "FeatureStore", "status": "False", "reason": "DeploymentNotAvailable"}
    store = {"type": "FeatureStore", "status": "True", "reason": "Ready"}
    made = {"clientConfigMap": "feast-drivers-client", "conditions": [*parts, store]}
    pending = [({"conditions": [*parts, away]}, [serves(ready=False)], [])] * 2
    cluster.looks = [*pending, *[(made, [serves()], [])] * 2]
    ready = waiting.for_object("FeatureStore", JOB, NAMESPACE, cluster.api, say=len, **QUICK)
    assert ready.object["status"]["clientConfigMap"] == "feast-drivers-client"
    assert cluster.selector == f"feast.dev/name={JOB}"


def test_a_job_that_applies_features_ends_with_feasts_own_words(cluster):
    failed = {"type": "FailureTarget", "status": "True", "reason": "BackoffLimitExceeded"}
    both = {"conditions": [failed, {**failed, "type": "Failed", "message": "Job has reached its limit"}]}
    cluster.logs[POD] = "psycopg.OperationalError: password authentication failed"
    words = (
        f"Job {JOB} failed: BackoffLimitExceeded: Job has reached its limit. Pod {POD}, container node: "
        "Error, exit code 1. Its last lines:\npsycopg.OperationalError: password authentication failed"
    )
    wait = partial(waiting.for_object, "Job", JOB, NAMESPACE, cluster.api)
    with stops(cluster, (both, [pod(ended(1, 10))], []), words=words, wait=wait):
        pass
    complete = {"type": "SuccessCriteriaMet", "status": "True"}
    cluster.looks = [({"conditions": [complete, {**complete, "type": "Complete"}]}, [], [])]
    assert wait(say=len, **QUICK).phase == "Complete"


def node(name: str, phase: str, message: str = "", kind: str = "Pod", **more: object) -> dict:
    found = {"name": f"{WORKFLOW}.root.{name}", "phase": phase, "type": kind, "message": message}
    return {"id": f"{WORKFLOW}-{abs(hash(name))}", "finishedAt": at(10), **found, **more}


def run_of(state: str, *nodes: dict) -> dict:
    """The answers of Kubeflow Pipelines 2.17, which gives no reason, and of Argo 4.0."""
    status = {"phase": "Running", "nodes": {one["id"]: one for one in nodes}}
    run = {"run_id": RUN, "display_name": "pipeline 001", "state": state}
    return {"run": run, "workflows": [{"metadata": {"name": WORKFLOW}, "status": status}]}


def of_step(of: dict, status: dict, template: str = "system-container-impl") -> dict:
    labels = {"workflows.argoproj.io/workflow": WORKFLOW, "pipeline/runid": RUN}
    notes = {"workflows.argoproj.io/node-name": of["name"], "workflows.argoproj.io/node-id": of["id"]}
    name = f"{WORKFLOW}-{template}-{of['id'].rpartition('-')[2]}"
    return pod(status, name, containers="wait main", labels=labels, annotations=notes)


def test_a_run_is_reported_by_its_steps(cluster, pipelines):
    driver, train = node("train-model-driver(0)", "Succeeded"), node("train-model.executor(0)", "Running")
    pods = [of_step(driver, {"phase": "Succeeded"}, "system-container-driver"), of_step(train, RUNNING)]
    cluster.logs = {one["metadata"]["name"]: {"main": "its words", "wait": "Argo's words"} for one in pods}
    ended = [of_step(one, {"phase": "Succeeded"}) for one in (driver, train)]
    cluster.looks = [
        ({"run": {"state": "PENDING"}, "workflows": []}, [], []),
        (run_of("RUNNING", driver, train), pods, []),
        (run_of("SUCCEEDED", driver, train), ended, []),
    ]
    said = []
    status = waiting.for_run(pipelines, RUN, NAMESPACE, cluster.api, say=said.append, **QUICK)
    assert (status.phase, status.ended) == ("SUCCEEDED", "succeeded")
    assert said == [
        f"{RUN}: PENDING; no pod yet",
        f"{RUN}: RUNNING; train-model Running",
        "train-model | its words",
        f"{RUN}: SUCCEEDED; 2 pods Succeeded",
    ]


MUST_SPECIFY = (
    'pods "x" is forbidden: failed quota: small: must specify limits.cpu for: init; limits.memory for: init'
)


@pytest.mark.parametrize("message", [POLICY, MUST_SPECIFY])
def test_a_step_whose_pod_is_refused_is_named_when_its_run_failed(cluster, pipelines, message):
    wait = partial(waiting.for_run, pipelines, RUN, NAMESPACE, cluster.api)
    failed = run_of("FAILED", node("validate-features-driver", "Error", message))
    about = event("Workflow", WORKFLOW, "WorkflowFailed", "Error (exit code 1)")
    words = f"run {RUN} failed: validate-features-driver: {message}. Its last event: Error (exit code 1)"
    with stops(cluster, (failed, [], [about]), words=words, wait=wait) as said:
        assert f"Workflow {WORKFLOW}: WorkflowFailed: Error (exit code 1)" in said


def test_a_run_ends_when_a_quota_keeps_its_step_waiting_and_no_event_says_so(cluster, pipelines):
    wait = partial(waiting.for_run, pipelines, RUN, NAMESPACE, cluster.api)
    starts = node("load-labels.executor", "Pending", "PodInitializing")
    refused = node("train-model.executor", "Pending", QUOTA)
    words = f"run {RUN} cannot go on: step train-model: {QUOTA}"
    with stops(cluster, (run_of("RUNNING", starts, refused), [], []), words=words, wait=wait):
        pass
    other = (run_of("RUNNING", refused), [of_step(starts, RUNNING)], [])
    cluster.looks = [other] * 8 + [(run_of("SUCCEEDED"), [], [])]
    assert wait(say=len, **QUICK | {"grace": 0.1}).ended == "succeeded", (
        "it has room when the other step ends"
    )


def test_a_failed_run_blames_the_step_that_failed_it_and_not_one_that_was_tried_again(cluster, pipelines):
    first, train = (
        node("load-labels.executor(0)", "Failed"),
        node("train-model.executor(0)", "Failed", "Error"),
    )
    again = node("load-labels.executor", "Succeeded", kind="Retry", children=[first["id"]])
    pods = [
        of_step(first, ended(1, 5, container="main")),
        of_step(train, ended(1, 20, container="main")),
    ]
    cluster.logs = {one["metadata"]["name"]: {"main": "ValueError: no rows"} for one in pods}
    words = (
        f"run {RUN} failed: train-model: Error. Pod {pods[1]['metadata']['name']}, container main: Error, "
        "exit code 1. Its last lines:\nValueError: no rows"
    )
    wait = partial(waiting.for_run, pipelines, RUN, NAMESPACE, cluster.api)
    with stops(cluster, (run_of("FAILED", first, train, again), pods, []), words=words, wait=wait):
        pass


def test_a_run_that_was_canceled_or_is_not_there_ends_the_wait(cluster, pipelines):
    wait = partial(waiting.for_run, pipelines, RUN, NAMESPACE, cluster.api)
    with stops(cluster, (run_of("CANCELED"), [], []), words=f"run {RUN} failed: no reason given", wait=wait):
        pass
    with stops(
        cluster,
        ((404, {"message": "not found"}), [], []),
        words="is not in somewhere: it was deleted",
        wait=wait,
    ):
        pass
    with stops(cluster, ((401, {"message": "no token"}), [], []), words="no token", wait=wait):
        pass


@pytest.fixture
def wait_command(cluster, tmp_path, monkeypatch):
    """`lifecycle wait` with a kubeconfig of its own."""
    from kubernetes.client import Configuration
    from kubernetes.config import kube_config

    context = {"name": "here", "context": {"cluster": "here", "user": "me"}}
    server = {"name": "here", "cluster": {"server": cluster.address}}
    config = {"contexts": [context], "clusters": [server], "users": [{"name": "me", "user": {}}]}
    (tmp_path / "config").write_text(yaml.safe_dump({"current-context": "here", **config}))
    for module in (kube_config, "kubernetes.config"):
        place = f"{getattr(module, '__name__', module)}.KUBE_CONFIG_DEFAULT_LOCATION"
        monkeypatch.setattr(place, str(tmp_path / "config"))
    yield lambda *words: CliRunner().invoke(
        main, ["wait", "--namespace", NAMESPACE, "--grace", "0.1", *words]
    )
    Configuration.set_default(None)


def test_the_command_takes_names_as_kubectl_prints_them(cluster, wait_command):
    cluster.looks = [(condition("Complete"), [], [])]
    done = wait_command(f"job.batch/{JOB}", f"trainjob.trainer.kubeflow.org/{JOB}")
    assert (done.exit_code, done.output) == (0, f"{JOB}: Complete; no pod yet\n" * 2)
    cluster.looks = [({}, [waits("ImagePullBackOff", IMAGE)], [])]
    done = wait_command(f"job.batch/{JOB}", "--context", "here")
    assert done.exit_code == 1 and f"Error: Job {JOB} cannot go on: pod {POD}: ImagePull" in done.output
    for wrong in ("pod/x", "job.batch"):
        done = wait_command(wrong)
        assert done.exit_code == 2 and f"{wrong!r} is none of trainjob/NAME, experiment/NAME" in done.output
    done = wait_command("job/x", "--context", "nowhere")
    assert done.exit_code == 1 and "Error: no cluster: " in done.output


REFUSALS = [
    (403, "admission webhook denied the request: spec.trainer.env: must not have reserved envs"),
    (409, 'trainjobs.trainer.kubeflow.org "training-1" already exists'),
    (422, "spec.runtimeRef: field is immutable"),
]


@pytest.mark.parametrize(("code", "message"), REFUSALS)
def test_a_refusal_is_in_the_words_of_the_cluster(cluster, trainer, code, message):
    cluster.refusal = code, {"kind": "Status", "message": message}
    refused = pytest.raises(waiting.ClusterError, match="Failed to create TrainJob")
    with refused as raised, waiting.admission():
        submit(trainer)
    assert message in str(raised.value)
    with pytest.raises(ZeroDivisionError), waiting.admission():
        raise ZeroDivisionError  # what a cluster has not said stays as it is


def create_experiment(cluster) -> None:
    from kubernetes.client import CustomObjectsApi

    CustomObjectsApi(cluster.api).create_namespaced_custom_object(
        "kubeflow.org", "v1beta1", NAMESPACE, "experiments", {}
    )


def create_service(kserve) -> None:
    service = inference_service(Settings(model="driver_conversion"))
    kserve.create(V1beta1InferenceService(**{"api_version": service["apiVersion"]}), namespace=NAMESPACE)


def test_every_client_gives_the_clusters_words(cluster, pipelines, kserve):
    message = "spec.maxFailedTrialCount: Invalid value: 3: should be less than or equal to maxTrialCount"
    cluster.refusal = 403, {"kind": "Status", "message": message}
    for create in (lambda: create_experiment(cluster), lambda: create_service(kserve)):
        with pytest.raises(waiting.ClusterError) as raised, waiting.admission():
            create()
        assert message in str(raised.value)
    said = {"code": 3, "message": "Invalid input error: unknown parameter", "details": []}
    cluster.refusal = 400, {"error": "validate create run request failed.", **said}
    with pytest.raises(waiting.ClusterError, match="unknown parameter"), waiting.admission():
        pipelines.runs.run_service_create_run(run={})


def test_the_notebooks_may_do_exactly_what_creating_and_waiting_ask_for(cluster, trainer, pipelines, kserve):
    create_experiment(cluster)
    create_service(kserve)
    submit(trainer)
    lost = [pod(ended(1, 20))]
    for kind in ("Experiment", "TrainJob"):
        cluster.looks = [(condition("Failed"), lost, [])]
        with pytest.raises(waiting.ClusterError):
            waiting.for_object(kind, JOB, NAMESPACE, cluster.api, say=len, **QUICK)
    cluster.looks = [(run_of("SUCCEEDED"), [], [])]
    waiting.for_run(pipelines, RUN, NAMESPACE, cluster.api, say=len, **QUICK)
    cluster.looks = [(SERVED, [serves()], [])]
    waiting.for_object("InferenceService", JOB, NAMESPACE, cluster.api, say=len, **QUICK)
    # One of an earlier run is replaced, and the notebook deletes its own.
    where = ("serving.kserve.io", "v1beta1", NAMESPACE, "inferenceservices", JOB)
    kserve.api_instance.replace_namespaced_custom_object(*where, {})
    kserve.delete(JOB, namespace=NAMESPACE)
    documents = yaml.safe_load_all((REPOSITORY / "cluster" / "kind" / "notebooks.yaml").read_text())
    [role] = [document for document in documents if document["kind"] == "Role"]
    allowed = {
        (verb, group, resource)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    # Notebook 09 deletes its job, whose pods a failed one keeps.
    assert cluster.requests | {("delete", "trainer.kubeflow.org", "trainjobs")} == allowed


def test_each_run_has_a_name_that_kubernetes_can_lengthen():
    names = {unique_name("Driver_Training" * 9) for _ in range(20)}
    assert len(names) == 20 and {len(name) for name in names} == {40}
    assert unique_name("driver_training").startswith("driver-training-")

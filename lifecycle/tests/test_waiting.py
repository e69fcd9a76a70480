"""Waiting for a TrainJob: Kubeflow's own client against a server that answers as Kubernetes does."""

import json
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml

from helpers.workspace import REPOSITORY
from lifecycle.cluster import waiting
from lifecycle.cluster.trainer import training_runtime
from lifecycle.objects import RUNTIME, unique_name
from lifecycle.settings import Cluster
from lifecycle.training import shipped

pytestmark = [pytest.mark.unit, pytest.mark.filterwarnings("ignore")]

NAMESPACE = "somewhere"
JOB = "training-1"
POD = f"{JOB}-node-0-0-abcde"
OTHER = f"{JOB}-node-0-1-fghij"
QUICK = {"every": 0.02, "grace": 0.3, "patience": 20}
RUNNING = {"phase": "Running", "containerStatuses": [{"name": "node", "state": {"running": {}}}]}


def at(second: int) -> str:
    return f"2026-11-30T12:00:{second:02d}Z"


def pod(status: dict, name: str = POD, made: int = 0) -> dict:
    containers = [
        {"name": "node", "image": "i", "ready": False, "restartCount": 0, "imageID": "", **container}
        for container in status.get("containerStatuses", [])
    ]
    return {
        "metadata": {"name": name, "namespace": NAMESPACE, "creationTimestamp": at(made)},
        "spec": {"containers": [{"name": "node"}]},
        "status": {**status, "containerStatuses": containers},
    }


def waits(reason: str, message: str = "") -> dict:
    state = {"waiting": {"reason": reason, "message": message}}
    return pod({"phase": "Pending", "containerStatuses": [{"name": "node", "state": state}]})


def ended(code: int, second: int, reason: str = "Error") -> dict:
    state = {"terminated": {"exitCode": code, "reason": reason, "finishedAt": at(second)}}
    return {"phase": "Failed", "containerStatuses": [{"name": "node", "state": state}]}


def event(kind: str, name: str, reason: str, message: str, second: int = 30) -> dict:
    return {
        "metadata": {"name": f"{name}.1"},
        "involvedObject": {"kind": kind, "name": name},
        **{"type": "Warning", "reason": reason, "message": message, "lastTimestamp": at(second)},
    }


def condition(kind: str, reason: str = "", message: str = "") -> dict:
    return {"conditions": [{"type": kind, "status": "True", "reason": reason, "message": message}]}


@pytest.fixture
def cluster():
    """A server with one namespace, and the client that talks to it. ``looks`` are what each look at the job
    finds: its status, pods, and events; the last one stays."""
    from kubeflow.trainer import KubernetesBackendConfig, TrainerClient
    from kubernetes.client import Configuration

    found = SimpleNamespace(looks=[], logs={}, refusal=None, fails=0, requests=[])

    class Handler(BaseHTTPRequestHandler):
        def answer(self, code: int, body: object) -> None:
            content = body.encode() if isinstance(body, str) else json.dumps(body).encode()
            kind = "text/plain" if isinstance(body, str) else "application/json"
            self.send_response(code)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def do_GET(self) -> None:
            path = urlsplit(self.path).path
            resource = path.partition(f"/namespaces/{NAMESPACE}/")[2].split("/")
            found.requests.append(("get" if len(resource) > 1 else "list", resource))
            if resource[0] == "trainingruntimes":
                return self.answer(200, training_runtime(Cluster()))
            if resource[0] == "trainjobs":
                if found.fails:
                    found.fails -= 1
                    return self.answer(503, {"message": "etcd is away"})
                found.look = found.looks.pop(0) if len(found.looks) > 1 else found.looks[0]
                code, status = found.look[0] if isinstance(found.look[0], tuple) else (200, found.look[0])
                return self.answer(code, {"status": status} if code == 200 else status)
            if resource[-1] == "log":
                lines = found.logs.get(resource[1], "").splitlines()
                last = parse_qs(urlsplit(self.path).query).get("tailLines")
                return self.answer(200, "\n".join(lines[-int(last[0]) :] if last else lines))
            if resource[0] in ("pods", "events"):
                return self.answer(200, {"items": found.look[1 if resource[0] == "pods" else 2]})
            return self.answer(404, {"message": "not found"})

        def do_POST(self) -> None:
            found.requests.append(("create", ["trainjobs"]))
            self.rfile.read(int(self.headers["Content-Length"]))
            self.answer(*(found.refusal or (201, {})))

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    configuration = Configuration(host=f"http://127.0.0.1:{server.server_port}")
    configuration.retries = False
    config = KubernetesBackendConfig(namespace=NAMESPACE, client_configuration=configuration)
    found.client = TrainerClient(config)
    found.requests.clear()
    yield found
    server.shutdown()
    server.server_close()


def submit(client) -> str:
    from kubeflow.trainer import CustomTrainer
    from kubeflow.trainer.options import Name

    trainer = CustomTrainer(func=shipped.train, func_args={"epochs": 1}, num_nodes=2)
    return client.train(runtime=RUNTIME, trainer=trainer, options=[Name(JOB)])


@contextmanager
def stops(cluster, *looks: tuple, words: str, **options):
    """The wait ends early, with these words, and what it has said on the way."""
    cluster.looks, said = list(looks), []
    began = time.monotonic()
    with pytest.raises(waiting.ClusterError) as raised:
        waiting.for_train_job(cluster.client, JOB, say=said.append, **QUICK | options)
    assert words in str(raised.value), raised.value
    assert time.monotonic() - began < 15, "it waited for its patience to end"
    yield said


def test_a_job_that_completes_is_reported_as_it_goes_and_each_line_once(cluster):
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
    status = waiting.for_train_job(cluster.client, JOB, say=said.append, **QUICK)
    assert status == waiting.Status("Complete", "succeeded", "AllJobsCompleted")
    assert said == [
        "training-1: Created; no pod yet",
        "training-1: Created; node-0-0-abcde ContainerCreating",
        "training-1: Created; node-0-0-abcde Running",
        "node-0-0-abcde | trains",
        "node-0-0-abcde | ends",
        "training-1: Complete; node-0-0-abcde Succeeded",
    ]


UNSCHEDULABLE = [
    'persistentvolumeclaim "ml-lifecycle" not found',
    "0/1 nodes are available: 1 Insufficient cpu.",
]


@pytest.mark.parametrize("message", UNSCHEDULABLE)
def test_ends_on_a_claim_that_is_missing_and_on_a_cluster_without_room(cluster, message):
    scheduled = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
    with stops(
        cluster, ({}, [pod({"phase": "Pending", "conditions": [scheduled]})], []), words=message
    ) as said:
        assert said == ["training-1: Created; node-0-0-abcde Pending"]


IMAGE = 'Back-off pulling image "nobody/has:it"'
CONFIG = 'configmap "mlflow" not found'


@pytest.mark.parametrize(
    ("reason", "message"), [("ImagePullBackOff", IMAGE), ("CreateContainerConfigError", CONFIG)]
)
def test_ends_on_an_image_and_on_a_config_map_that_are_missing(cluster, reason, message):
    words = f"TrainJob training-1 cannot go on: pod {POD}: {reason}: {message}"
    with stops(cluster, ({}, [waits(reason, message)], []), words=words):
        pass


QUOTA = 'pods "x" is forbidden: exceeded quota: small, requested: limits.cpu=1'
POLICY = 'pods "x" is forbidden: violates PodSecurity "restricted:latest"'


@pytest.mark.parametrize("message", [QUOTA, POLICY])
def test_ends_when_a_quota_or_a_policy_refuses_the_pods(cluster, message):
    refused = event("Job", f"{JOB}-node-0", "FailedCreate", message)
    # The second pod is refused, while the first one waits for it.
    for pods in ([], [pod(RUNNING, made=29)]):
        words = f"Job {JOB}-node-0: FailedCreate: {message}"
        with stops(cluster, ({}, pods, [refused]), words=words) as said:
            assert said.count(words) == 1


def test_ends_on_a_volume_that_cannot_be_mounted(cluster):
    message = 'MountVolume.SetUp failed for volume "settings" : configmap "feature-store" not found'
    about = event("Pod", POD, "FailedMount", message)
    with stops(cluster, ({}, [waits("ContainerCreating")], [about]), words=f"FailedMount: {message}"):
        pass


def test_goes_on_when_an_obstacle_passes_and_when_the_server_comes_back(cluster):
    cluster.fails = 3
    refused = event("Job", f"{JOB}-node-0", "FailedCreate", QUOTA, second=1)
    stuck = ({}, [waits("ErrImagePull", IMAGE)], [refused])
    goes = ({}, [pod(RUNNING, made=2)], [refused])
    cluster.looks = [stuck] * 3 + [goes] * 40 + [(condition("Complete"), [pod(RUNNING, made=2)], [])]
    longer = QUICK | {"every": 0.03, "grace": 1.1}
    assert waiting.for_train_job(cluster.client, JOB, say=len, **longer).ended == "succeeded"


def test_events_of_another_run_do_not_count(cluster):
    other = event("Job", "training-12-node-0", "FailedCreate", QUOTA)
    cluster.looks = [({}, [], [other])] * 30 + [(condition("Complete"), [], [])]
    assert waiting.for_train_job(cluster.client, JOB, say=len, **QUICK).ended == "succeeded"


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
    with stops(cluster, ((404, {}), [], []), words="TrainJob training-1 is not in somewhere any more"):
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
        waiting.for_train_job(cluster.client, JOB, say=len, **QUICK | {"patience": 0.1})


REFUSALS = [
    (403, "admission webhook denied the request: spec.trainer.env: must not have reserved envs"),
    (409, 'trainjobs.trainer.kubeflow.org "training-1" already exists'),
    (422, "spec.runtimeRef: field is immutable"),
]


@pytest.mark.parametrize(("code", "message"), REFUSALS)
def test_a_refusal_is_in_the_words_of_the_cluster(cluster, code, message):
    cluster.refusal = code, {"kind": "Status", "message": message}
    refused = pytest.raises(waiting.ClusterError, match="Failed to create TrainJob")
    with refused as raised, waiting.admission():
        submit(cluster.client)
    assert message in str(raised.value)
    with pytest.raises(ZeroDivisionError), waiting.admission():
        raise ZeroDivisionError  # what a cluster has not said stays as it is


def test_the_notebooks_may_do_exactly_what_training_and_waiting_ask_for(cluster):
    cluster.looks = [(condition("Failed"), [pod(ended(1, 20))], [])]
    with waiting.admission():
        submit(cluster.client)
    with pytest.raises(waiting.ClusterError):
        waiting.for_train_job(cluster.client, JOB, say=len, **QUICK)
    asked = {(verb, "pods/log" if path[-1] == "log" else path[0]) for verb, path in cluster.requests}
    documents = yaml.safe_load_all((REPOSITORY / "cluster" / "kind" / "notebooks.yaml").read_text())
    [role] = [document for document in documents if document["kind"] == "Role"]
    allowed = {
        (verb, resource)
        for rule in role["rules"]
        if set(rule["apiGroups"]) & {"", "trainer.kubeflow.org"}
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    assert asked | {("delete", "trainjobs")} == allowed


def test_each_run_has_a_name_that_kubernetes_can_lengthen():
    names = {unique_name("Driver_Training" * 9) for _ in range(20)}
    assert len(names) == 20 and {len(name) for name in names} == {40}
    assert unique_name("driver_training").startswith("driver-training-")

"""Waiting for what a cluster runs: it follows status, pods, events, and logs, and ends early with the reason.

``for_object`` waits for a Kubernetes object and ``for_run`` for a run of Kubeflow Pipelines; ``follow`` waits
for anything else that runs in pods. What cannot start ends the wait within a minute: an image that cannot be
pulled, a ConfigMap or a claim that does not exist, a cluster without room, a quota, a policy.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import kfp
    from kubeflow.trainer import TrainerClient
    from kubernetes.client import ApiClient

STUCK = {
    *("ImagePullBackOff", "ErrImagePull", "ErrImageNeverPull", "InvalidImageName", "RegistryUnavailable"),
    *("CreateContainerConfigError", "CreateContainerError", "RunContainerError", "CrashLoopBackOff"),
}
"""Why a container waits, where more waiting rarely helps."""
NOT_MADE = {"FailedCreate", "FailedMount", "FailedAttachVolume", "FailedCreatePodSandBox"}
"""Reasons of events that say why there is no pod, or why its containers do not start."""
NO_ROOM = ("Insufficient ", "Too many pods", "exceeded quota")
"""What a message says when a pod could start once another one has ended."""
REFUSED = ("is forbidden", "admission webhook", "failed calling webhook")
"""What a message says when the API server refused a pod."""
LAUNCHER = re.compile(r"torch/distributed/elastic/.*failed \(exitcode|launcher_v2\.go:.*failed to execute")
"""Where torchrun, or the launcher of a pipeline's step, begins its page about a process that failed."""
PAGE = 50
"""Lines of such a page, at most."""
NODE = "workflows.argoproj.io/node-id"
"""The annotation by which Argo finds a pod's node in the Workflow."""


class ClusterError(RuntimeError):
    """Why the cluster does not run something, in its own words: which pod, the reason, the last lines."""


@dataclass(frozen=True)
class Status:
    """What a cluster says about a run.

    Attributes:
        phase: in the words of its kind.
        ended: how it ended, empty while it has not.
        reason: why, where the cluster gives a reason.
        object: the object as it was read.
        made: name of the object that makes the pods, where it has a name of its own.
        obstacles: what the object itself says about pods that could not be made, by what they would do.
        blames: whether a pod that failed is a reason why the run did.
    """

    phase: str
    ended: Literal["", "succeeded", "failed"] = ""
    reason: str = ""
    object: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)
    made: str = ""
    obstacles: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)
    blames: Callable[[Any], bool] = field(default=lambda pod: True, repr=False, compare=False)


def _none(pod: Any) -> bool:
    return False


def _all_containers(pod: Any) -> Collection[str]:
    return [container.name for container in pod.spec.containers]


@dataclass(frozen=True)
class Run:
    """What to wait for.

    Attributes:
        kind: of the object, for messages.
        name: of the object. Events about it, and about objects whose names begin with it and a hyphen, belong
            to the run.
        namespace: of the object and its pods.
        pods: label selector of its pods.
        status: reads the object.
        ends_alone: whether a pod ends without waiting for the others, and leaves its room to them. While one
            of these runs, a pod that has no room is no reason to stop.
        shown: the containers of a pod whose logs are reported.
        lasts: it does not end, but is ready: in two looks, and with no pod left that is not.
    """

    kind: str
    name: str
    namespace: str
    pods: str
    status: Callable[[], Status]
    ends_alone: Callable[[Any], bool] = _none
    shown: Callable[[Any], Collection[str]] = _all_containers
    lasts: bool = False


@contextmanager
def admission() -> Iterator[None]:
    """What is sent to a cluster in this block is refused in the cluster's own words.

    Kubeflow's clients raise a sentence without them, and keep them in the exception behind it.

    Raises:
        ClusterError: the cluster refused, and said why.
    """
    try:
        yield
    except Exception as error:
        words = _words(error)
        if not words:
            raise
        raise ClusterError(f"{error}: {words}" if str(error) not in words else words) from error


def _words(error: BaseException | None) -> str:
    """The server's message in an exception, or in one behind it."""
    while error is not None:
        body = getattr(error, "body", None)
        if body:
            try:
                return str(json.loads(body)["message"])
            except (TypeError, ValueError, KeyError):
                return str(body)
        error = error.__cause__ or error.__context__
    return ""


def _of_trial(pod: Any) -> bool:
    return "katib.kubeflow.org/trial" in (pod.metadata.labels or {})


def _of_collector(pod: Any) -> Collection[str]:
    """A trial's own container writes into a file, which the collector beside it reads and prints."""
    return [name for name in _all_containers(pod) if name == "metrics-logger-and-collector"]


def _unless_ready(pod: Any) -> Collection[str]:
    return [] if _ready(pod) else _all_containers(pod)


@dataclass(frozen=True)
class _Kind:
    """How to wait for objects of a kind: where they and their pods are, and which condition ends them."""

    group: str
    version: str
    plural: str
    pods: str
    succeeded: str
    failed: str = ""
    ends_alone: Callable[[Any], bool] = _none
    shown: Callable[[Any], Collection[str]] = _all_containers
    lasts: bool = False


KINDS = {
    "TrainJob": _Kind(
        group="trainer.kubeflow.org",
        version="v1alpha1",
        plural="trainjobs",
        pods="jobset.sigs.k8s.io/jobset-name={}",
        succeeded="Complete",
        failed="Failed",
    ),
    "Experiment": _Kind(
        group="kubeflow.org",
        version="v1beta1",
        plural="experiments",
        pods="katib.kubeflow.org/experiment={}",
        succeeded="Succeeded",
        failed="Failed",
        ends_alone=_of_trial,
        shown=_of_collector,
    ),
    "InferenceService": _Kind(
        group="serving.kserve.io",
        version="v1beta1",
        plural="inferenceservices",
        pods="serving.kserve.io/inferenceservice={}",
        succeeded="Ready",
        shown=_unless_ready,
        lasts=True,
    ),
    "Job": _Kind(
        group="batch",
        version="v1",
        plural="jobs",
        pods="batch.kubernetes.io/job-name={}",
        succeeded="Complete",
        failed="Failed",
    ),
    "Deployment": _Kind(
        group="apps",
        version="v1",
        plural="deployments",
        pods="app={}",
        succeeded="Available",
        shown=_unless_ready,
        lasts=True,
    ),
    "FeatureStore": _Kind(
        group="feast.dev",
        version="v1",
        plural="featurestores",
        pods="feast.dev/name={}",
        succeeded="FeatureStore",
        shown=_unless_ready,
        lasts=True,
    ),
}
"""What ``for_object`` waits for. A Deployment's pods need the label ``app``, as rendered ones have."""


def for_train_job(client: TrainerClient, name: str, **options: Any) -> Status:
    """Wait until a TrainJob has ended.

    Args:
        client: Kubeflow's, with the backend for Kubernetes.
        name: of the job.
        options: those of ``follow``.

    Raises:
        ClusterError: it failed, or cannot start.
        TimeoutError: it has not ended in time.
    """
    backend: Any = client.backend
    return for_object("TrainJob", name, backend.namespace, backend.core_api.api_client, **options)


def for_object(kind: str, name: str, namespace: str, api: ApiClient | None = None, **options: Any) -> Status:
    """Wait until an object has done its work; one that does not end, until it is ready.

    Args:
        kind: one of ``KINDS``.
        name: of the object.
        namespace: of the object.
        api: of the Kubernetes client; one with the configuration that was loaded last when left out.
        options: those of ``follow``.

    Raises:
        ClusterError: it failed, or cannot start.
        TimeoutError: it has not ended in time.
    """
    from kubernetes.client import CoreV1Api, CustomObjectsApi

    how, objects = KINDS[kind], CustomObjectsApi(api)

    def status() -> Status:
        found = objects.get_namespaced_custom_object(how.group, how.version, namespace, how.plural, name)
        return _by_conditions(found, how)

    run = Run(
        kind=kind,
        name=name,
        namespace=namespace,
        pods=how.pods.format(name),
        status=status,
        ends_alone=how.ends_alone,
        shown=how.shown,
        lasts=how.lasts,
    )
    return follow(CoreV1Api(api), run, **options)


def _by_conditions(found: dict[str, Any], how: _Kind) -> Status:
    said = found.get("status", {})
    phase, ended, reason = "not ready" if how.lasts else "Created", "", ""
    for condition in said.get("conditions", []):
        if condition["status"] != "True":
            continue
        if not how.lasts or condition["type"] == how.succeeded:
            phase = condition["type"]
        if condition["type"] in (how.succeeded, how.failed):
            ended = "succeeded" if phase == how.succeeded else "failed"
            reason = ": ".join(filter(None, (condition.get("reason"), condition.get("message"))))
            break
    observed = said.get("observedGeneration")
    if how.plural == "deployments" and observed != found["metadata"].get("generation"):
        phase, ended = "not ready", ""  # these conditions are those of the Deployment before the last change
    if how.plural == "experiments":
        counts = (f"{said.get(f'trials{word}', 0)} {word.lower()}" for word in ("Succeeded", "Failed"))
        phase += f", trials: {', '.join(counts)}"
    return Status(phase, ended, reason, found)  # type: ignore[arg-type]


def for_run(
    client: kfp.Client, run_id: str, namespace: str, api: ApiClient | None = None, **options: Any
) -> Status:
    """Wait until a run of Kubeflow Pipelines has ended.

    Its server says how a run ended and gives no reason. The reason is in the run's Workflow and in its pods.

    Args:
        client: of Kubeflow Pipelines.
        run_id: of the run.
        namespace: of its pods.
        api: of the Kubernetes client; one with the configuration that was loaded last when left out.
        options: those of ``follow``.

    Raises:
        ClusterError: it failed, was canceled, or cannot go on.
        TimeoutError: it has not ended in time.
    """
    import kfp_server_api
    from kubernetes.client import ApiException, CoreV1Api, CustomObjectsApi

    objects, label = CustomObjectsApi(api), f"pipeline/runid={run_id}"
    ends: dict[str, Literal["succeeded", "failed"]] = {"SUCCEEDED": "succeeded", "SKIPPED": "succeeded"}
    ends |= {"FAILED": "failed", "CANCELED": "failed"}

    def status() -> Status:
        try:
            found = client.get_run(run_id)
        except kfp_server_api.ApiException as error:
            refusal = ApiException(error.status, error.reason)
            refusal.body = error.body
            raise refusal from None
        workflows = objects.list_namespaced_custom_object(
            "argoproj.io", "v1alpha1", namespace, "workflows", label_selector=label
        )["items"]
        made = workflows[0]["metadata"]["name"] if workflows else ""
        nodes = workflows[0].get("status", {}).get("nodes", {}) if workflows else {}
        # Argo asks again and again for a pod that a quota refuses, and sends no event.
        obstacles = {
            f"step {_step(node['name'], made)}": node["message"]
            for node in nodes.values()
            if node["phase"] == "Pending" and any(word in node.get("message", "") for word in REFUSED)
        }
        retried = {
            child
            for node in nodes.values()
            if node["type"] == "Retry" and node["phase"] == "Succeeded"
            for child in node.get("children", [])
        }
        lost = [
            node
            for node in nodes.values()
            if node["type"] == "Pod" and node["phase"] in ("Failed", "Error") and node["id"] not in retried
        ]
        lost.sort(key=lambda node: node.get("finishedAt") or "")
        reason = ": ".join((_step(lost[0]["name"], made), lost[0].get("message", ""))) if lost else ""
        return Status(
            phase=found.state,
            ended=ends.get(found.state, ""),
            reason=reason,
            object=found.to_dict(),
            made=made,
            obstacles=obstacles,
            blames=lambda pod: (pod.metadata.annotations or {}).get(NODE) not in retried,
        )

    run = Run("run", run_id, namespace, label, status, lambda pod: True, _of_step)
    return follow(CoreV1Api(api), run, **options)


def _of_step(pod: Any) -> Collection[str]:
    """Drivers decide what runs and write pages about it; a step's own words are in the container ``main``."""
    return ["main"] if "-container-impl-" in pod.metadata.name else []


def _step(node: str, workflow: str) -> str:
    """``train-model`` of Argo's ``training-pipeline-x7k2p.root.train-model.executor``."""
    node = node.replace("(0)", "")  # the first try
    return node.removeprefix(f"{workflow}.").removeprefix("root.").removesuffix(".executor")


def follow(
    core: Any,
    run: Run,
    patience: float = 3600,
    grace: float = 40,
    every: float = 5,
    lines: int = 20,
    say: Callable[[str], None] = print,
) -> Status:
    """Wait until a run has ended, and report on the way: each change, each warning, each line of its logs.

    Args:
        core: ``CoreV1Api`` of the Kubernetes client.
        run: what to wait for.
        patience: seconds to wait in all.
        grace: seconds for which something may keep a pod from starting. Where a busy cluster adds a machine,
            give it the minutes that this takes.
        every: seconds between two looks.
        lines: of the log of a pod that failed.
        say: takes a line of the report.

    Raises:
        ClusterError: it failed, it cannot start, or the cluster does not answer; the message says why.
        TimeoutError: it has not ended in time.
    """
    from kubernetes.client import ApiException
    from urllib3.exceptions import HTTPError

    report = _Report(core, run, say)
    began = time.monotonic()
    since: dict[str, float] = {}
    pods: list[Any] = []
    looks = 0
    while True:
        now = time.monotonic()
        try:
            status = run.status()
            pods, events = report.look(status)
            obstacles = {**status.obstacles, **_obstacles(pods, events)}
            if any(run.ends_alone(pod) and pod.status.phase == "Running" for pod in pods):
                obstacles = {
                    place: reason
                    for place, reason in obstacles.items()
                    if not any(word in reason for word in NO_ROOM)
                }
            if status.ended:
                report.logs(pods)
        except ApiException as error:
            if error.status == 404:
                gone = f"{run.kind} {run.name} is not in {run.namespace}: it was deleted, or never created."
                raise ClusterError(gone) from None
            if error.status in (401, 403):
                raise ClusterError(_words(error) or str(error)) from None
            obstacles = {"the cluster": f"does not answer: {error.status} {error.reason}"}
            status = Status("")
        except HTTPError as error:
            obstacles, status = {"the cluster": f"does not answer: {error}"}, Status("")
        looks = looks + 1 if status.ended == "succeeded" and all(map(_ready, pods)) else 0
        if status.ended == "succeeded" and (not run.lasts or looks > 1):
            return status
        if status.ended == "failed":
            why = _why(core, [pod for pod in pods if status.blames(pod)], events, lines)
            raise ClusterError(f"{run.kind} {run.name} failed: {status.reason or 'no reason given'}. {why}")
        since = {place: since.get(place, now) for place in obstacles}
        for place, reason in obstacles.items():
            if now - since[place] >= grace:
                last = _last_lines(core, pods, place, lines)
                raise ClusterError(f"{run.kind} {run.name} cannot go on: {place}: {reason}{last}")
        if now - began >= patience:
            seen = report.last or "unseen"
            raise TimeoutError(f"{run.kind} {run.name} has not ended within {patience:.0f} s; it is {seen}.")
        time.sleep(min(every, max(0.0, began + patience - now)))


@dataclass
class _Report:
    """What was said already, so that nothing is said twice."""

    core: Any
    run: Run
    say: Callable[[str], None]
    last: str = ""
    _warned: set[tuple[str, ...]] = field(default_factory=set)
    _lines: dict[tuple[str, str], int] = field(default_factory=dict)
    _read: set[str] = field(default_factory=set)

    def look(self, status: Status) -> tuple[list[Any], list[Any]]:
        """The run's pods, oldest first, and its events; says what is new."""
        namespace, name = self.run.namespace, status.made or self.run.name
        pods = self.core.list_namespaced_pod(namespace, label_selector=self.run.pods).items
        pods.sort(key=lambda pod: (pod.metadata.creation_timestamp, pod.metadata.name))
        events = [
            event
            for event in self.core.list_namespaced_event(namespace).items
            if f"{event.involved_object.name or ''}-".startswith((f"{name}-", f"{self.run.name}-"))
        ]
        events.sort(key=_when)
        # Of those that end one by one, there are soon too many to name.
        named = [pod for pod in pods if not (self.run.ends_alone(pod) and pod.status.phase == "Succeeded")]
        states = ", ".join(f"{_short(pod, name)} {_state(pod)}" for pod in named)
        states = states or ("no pod yet" if not pods else f"{len(pods)} pods Succeeded")
        if (now := f"{status.phase}; {states}") != self.last:
            self.say(f"{self.run.name}: {now}")
            self.last = now
        for event in events:
            warning = (event.involved_object.name, event.reason or "", event.message or "")
            if event.type == "Warning" and warning not in self._warned:
                self._warned.add(warning)
                self.say(f"{event.involved_object.kind} {': '.join(warning)}")
        if not status.ended:
            self.logs(pods)
        return pods, events

    def logs(self, pods: list[Any]) -> None:
        """Say what the containers have written since the last look."""
        for pod in pods:
            name = pod.metadata.name
            if pod.status.phase == "Pending" or name in self._read:
                continue
            for container in self.run.shown(pod):
                written = _log(self.core, pod, container).splitlines()
                for line in written[self._lines.get((name, container), 0) :]:
                    self.say(f"{_short(pod, self.run.name)} | {line}")
                self._lines[name, container] = len(written)
            if pod.status.phase in ("Succeeded", "Failed"):
                self._read.add(name)


def _short(pod: Any, name: str) -> str:
    """A pod's name without that of its run; of a pipeline's pod, the name of its step."""
    labels, notes = pod.metadata.labels or {}, pod.metadata.annotations or {}
    if node := notes.get("workflows.argoproj.io/node-name"):
        return _step(node, labels.get("workflows.argoproj.io/workflow", ""))
    return str(pod.metadata.name).removeprefix(f"{name}-")


def _ready(pod: Any) -> bool:
    """Whether a pod takes requests, or never will again."""
    if pod.metadata.deletion_timestamp or pod.status.phase in ("Succeeded", "Failed"):
        return True
    return any(one.type == "Ready" and one.status == "True" for one in pod.status.conditions or [])


def _state(pod: Any) -> str:
    """The phase of a pod, or why a container of it waits."""
    for container in _containers(pod):
        if container.state and container.state.waiting and container.state.waiting.reason:
            return str(container.state.waiting.reason)
    return str(pod.status.phase)


def _containers(pod: Any) -> list[Any]:
    return [*(pod.status.init_container_statuses or []), *(pod.status.container_statuses or [])]


def _when(event: Any) -> datetime:
    times = (event.last_timestamp, event.event_time, event.first_timestamp, event.metadata.creation_timestamp)
    return next((moment for moment in times if moment), datetime.min.replace(tzinfo=UTC))


def _obstacles(pods: list[Any], events: list[Any]) -> dict[str, str]:
    """What keeps a pod from starting, or from being made, by the name of the object that it concerns."""
    found = {}
    for pod in pods:
        name = f"pod {pod.metadata.name}"
        for container in _containers(pod):
            waiting = container.state.waiting if container.state else None
            if waiting and waiting.reason in STUCK:
                found[name] = f"{waiting.reason}: {waiting.message or container.image}"
            elif container.restart_count > 1 and not container.ready:
                # Between two waits of a crash loop it runs, for a while.
                found[name] = (
                    f"CrashLoopBackOff: container {container.name} ended {container.restart_count} times"
                )
        for condition in pod.status.conditions or []:
            if condition.type == "PodScheduled" and condition.reason == "Unschedulable":
                found[name] = f"{condition.reason}: {condition.message}"
        if pod.status.phase == "Pending" and name not in found:
            # A later event, such as that of an image being pulled, shows that the reason has gone.
            for event in [event for event in events if event.involved_object.name == pod.metadata.name][-1:]:
                if event.reason in NOT_MADE:
                    found[name] = f"{event.reason}: {event.message}"
    newest = max((pod.metadata.creation_timestamp for pod in pods), default=None)
    for event in events:
        # A pod that was made later shows that the reason has gone.
        if event.reason == "FailedCreate" and (newest is None or _when(event) >= newest):
            where = f"{event.involved_object.kind} {event.involved_object.name}"
            found[where] = f"{event.reason}: {event.message}"
    return found


def _log(core: Any, pod: Any, container: str, **which: Any) -> str:
    """What a container has written; nothing where its log is gone, or has not begun."""
    from kubernetes.client import ApiException

    try:
        place = {"name": pod.metadata.name, "namespace": pod.metadata.namespace, "container": container}
        return str(core.read_namespaced_pod_log(**place, **which) or "")
    except ApiException as error:
        if error.status in (400, 404):
            return ""
        raise


def _tail(core: Any, pod: Any, container: str, lines: int) -> str:
    """The last lines of a container; of one that was started again, those from before."""
    [state] = [one for one in _containers(pod) if one.name == container] or [None]
    restarted = state and state.restart_count and state.state and state.state.running
    which = {"tail_lines": lines + PAGE, **({"previous": True} if restarted else {})}
    written = _log(core, pod, container, **which).rstrip().splitlines()
    end = next((number for number, line in enumerate(written, 1) if LAUNCHER.search(line)), len(written))
    return "\n".join(written[max(0, end - lines) : end])


def _last_lines(core: Any, pods: list[Any], place: str, lines: int) -> str:
    """What the pod at ``place`` has written, if it is a pod, and has."""
    found = [pod for pod in pods if f"pod {pod.metadata.name}" == place]
    written = (_tail(core, pod, name, lines) for pod in found for name in _all_containers(pod))
    last = next(filter(None, written), "")
    return f". Its last lines:\n{last}" if last else ""


def _why(core: Any, pods: list[Any], events: list[Any], lines: int) -> str:
    """Which pod failed first, how, and with which last lines; without one, the last warning."""
    failed = []
    for pod in pods:
        for container in _containers(pod):
            ended = container.state.terminated if container.state else None
            if ended and ended.exit_code:
                at = ended.finished_at or pod.metadata.creation_timestamp
                how = f"{ended.reason or 'ended'}, exit code {ended.exit_code}"
                failed.append((at, pod, container.name, f"container {container.name}: {how}"))
        if pod.status.reason:  # such as Evicted
            at = pod.metadata.creation_timestamp
            failed.append((at, pod, "", f"{pod.status.reason}: {pod.status.message}"))
    if not failed:
        warnings = [event.message for event in events if event.type == "Warning"]
        return f"Its last event: {warnings[-1]}" if warnings else "No pod of it is left, and no event."
    _, pod, container, how = min(failed, key=lambda one: one[0])
    names = [container, *(one.name for one in pod.spec.containers if one.name != container)]
    # A container whose output another one collects writes nothing itself.
    written = (_tail(core, pod, name, lines) for name in names if name)
    last = next(filter(None, written), "")
    said = f"Its last lines:\n{last}" if last else "Its log is empty."
    return f"Pod {pod.metadata.name}, {how}. {said}"

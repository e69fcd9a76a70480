"""Waiting for what a cluster runs: it follows status, pods, events, and logs, and ends early with the reason.

``follow`` waits for anything that runs in pods; ``for_train_job`` says how to find those of a TrainJob. What
cannot start ends the wait within a minute: an image that cannot be pulled, a ConfigMap or a claim that is not
there, a cluster without room, a quota, a policy.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from kubeflow.trainer import TrainerClient

STUCK = {
    *("ImagePullBackOff", "ErrImagePull", "ErrImageNeverPull", "InvalidImageName", "RegistryUnavailable"),
    *("CreateContainerConfigError", "CreateContainerError", "RunContainerError", "CrashLoopBackOff"),
}
"""Why a container waits, where more waiting rarely helps."""
NOT_MADE = {"FailedCreate", "FailedMount", "FailedAttachVolume", "FailedCreatePodSandBox"}
"""Reasons of events that say why there is no pod, or why its containers do not start."""


class ClusterError(RuntimeError):
    """Why the cluster does not run something, in its own words: which pod, the reason, the last lines."""


@dataclass(frozen=True)
class Status:
    """What a cluster says about a run.

    Attributes:
        phase: in the words of its kind.
        ended: how it ended, empty while it has not.
        reason: why, where the cluster gives a reason.
    """

    phase: str
    ended: Literal["", "succeeded", "failed"] = ""
    reason: str = ""


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
    """

    kind: str
    name: str
    namespace: str
    pods: str
    status: Callable[[], Status]


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

    def status() -> Status:
        job = backend.custom_api.get_namespaced_custom_object(
            "trainer.kubeflow.org", "v1alpha1", backend.namespace, "trainjobs", name
        )
        ended: dict[str, Literal["succeeded", "failed"]] = {"Complete": "succeeded", "Failed": "failed"}
        phase = "Created"
        for condition in job.get("status", {}).get("conditions", []):
            if condition["status"] != "True":
                continue
            phase = condition["type"]
            if phase in ended:
                reason = ": ".join(filter(None, (condition.get("reason"), condition.get("message"))))
                return Status(phase, ended[phase], reason)
        return Status(phase)

    pods = f"jobset.sigs.k8s.io/jobset-name={name}"
    return follow(backend.core_api, Run("TrainJob", name, backend.namespace, pods, status), **options)


def follow(
    core: Any,
    run: Run,
    patience: float = 3600,
    grace: float = 40,
    every: float = 5,
    lines: int = 20,
    say: Callable[[str], None] = print,
) -> Status:
    """Wait until a run has ended, and report on the way: each change, each warning, each line of a log.

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
    while True:
        now = time.monotonic()
        try:
            status = run.status()
            pods, events = report.look(status)
            obstacles = _obstacles(pods, events)
            if status.ended:
                report.logs(pods)
        except ApiException as error:
            if error.status == 404:
                raise ClusterError(f"{run.kind} {run.name} is not in {run.namespace} any more.") from None
            if error.status in (401, 403):
                raise ClusterError(_words(error) or str(error)) from None
            obstacles = {"the cluster": f"does not answer: {error.status} {error.reason}"}
            status = Status("")
        except HTTPError as error:
            obstacles, status = {"the cluster": f"does not answer: {error}"}, Status("")
        if status.ended == "succeeded":
            return status
        if status.ended == "failed":
            why = _why(core, run, pods, events, lines)
            raise ClusterError(f"{run.kind} {run.name} failed: {status.reason or 'no reason given'}. {why}")
        since = {place: since.get(place, now) for place in obstacles}
        for place, reason in obstacles.items():
            if now - since[place] >= grace:
                raise ClusterError(f"{run.kind} {run.name} cannot go on: {place}: {reason}")
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

    def look(self, status: Status) -> tuple[list[Any], list[Any]]:
        """The run's pods, oldest first, and its events; says what is new."""
        namespace, name = self.run.namespace, self.run.name
        pods = self.core.list_namespaced_pod(namespace, label_selector=self.run.pods).items
        pods.sort(key=lambda pod: (pod.metadata.creation_timestamp, pod.metadata.name))
        events = [
            event
            for event in self.core.list_namespaced_event(namespace).items
            if f"{event.involved_object.name or ''}-".startswith(f"{name}-")
        ]
        events.sort(key=_when)
        states = ", ".join(f"{_short(pod, name)} {_state(pod)}" for pod in pods) or "no pod yet"
        if (now := f"{status.phase}; {states}") != self.last:
            self.say(f"{name}: {now}")
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
            if pod.status.phase == "Pending":
                continue
            for container in pod.spec.containers:
                written = _log(self.core, pod, container.name).splitlines()
                place = (pod.metadata.name, container.name)
                for line in written[self._lines.get(place, 0) :]:
                    self.say(f"{_short(pod, self.run.name)} | {line}")
                self._lines[place] = len(written)


def _short(pod: Any, name: str) -> str:
    """A pod's name without that of its run."""
    return str(pod.metadata.name).removeprefix(f"{name}-")


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
        for condition in pod.status.conditions or []:
            if condition.type == "PodScheduled" and condition.reason == "Unschedulable":
                found[name] = f"{condition.reason}: {condition.message}"
        if pod.status.phase == "Pending" and name not in found:
            for event in events:
                if event.involved_object.name == pod.metadata.name and event.reason in NOT_MADE:
                    found[name] = f"{event.reason}: {event.message}"
    newest = max((pod.metadata.creation_timestamp for pod in pods), default=None)
    for event in events:
        # A pod that was made later shows that the reason has gone.
        if event.reason == "FailedCreate" and (newest is None or _when(event) >= newest):
            where = f"{event.involved_object.kind} {event.involved_object.name}"
            found[where] = f"{event.reason}: {event.message}"
    return found


def _log(core: Any, pod: Any, container: str, **limits: int) -> str:
    """What a container has written; nothing where its log is gone, or has not begun."""
    from kubernetes.client import ApiException

    try:
        place = {"name": pod.metadata.name, "namespace": pod.metadata.namespace, "container": container}
        return str(core.read_namespaced_pod_log(**place, **limits) or "")
    except ApiException as error:
        if error.status in (400, 404):
            return ""
        raise


def _why(core: Any, run: Run, pods: list[Any], events: list[Any], lines: int) -> str:
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
    written = (_log(core, pod, name, tail_lines=lines).rstrip() for name in names if name)
    last = next(filter(None, written), "")
    said = f"Its last lines:\n{last}" if last else "Its log is empty."
    return f"Pod {pod.metadata.name}, {how}. {said}"

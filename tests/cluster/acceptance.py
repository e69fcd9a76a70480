"""A cluster under test: what the acceptance suite puts there, asks of it, and removes again."""

from __future__ import annotations

import contextlib
import inspect
import json
import os
import re
import runpy
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import inside
import yaml
from kubernetes import config

from helpers.workspace import REPOSITORY
from lifecycle.cluster import waiting
from lifecycle.objects import LABELS
from lifecycle.settings import FILE, Settings

COMPONENTS = {
    "Kubeflow Pipelines": ("service/ml-pipeline", "api-server"),
    "Katib": ("experiments.kubeflow.org", "katib-controller"),
    "Trainer": ("trainjobs.trainer.kubeflow.org", "trainer-controller-manager"),
    "KServe": ("inferenceservices.serving.kserve.io", "kserve-controller"),
    "Feast's operator": ("featurestores.feast.dev", "feast-operator"),
}
"""How to see that a component is there, by its Service or kind; and the image that has its version."""
OURS = (
    *("deployments", "services", "configmaps", "secrets", "networkpolicies", "persistentvolumeclaims"),
    *("jobs", "cronjobs", "serviceaccounts", "roles", "rolebindings"),
)
MADE = ("workflows.argoproj.io", "trainingruntimes.trainer.kubeflow.org")
"""Kinds of which nothing new is left behind; those of ``COMPONENTS`` too."""
STARTED = re.compile(r"(inferenceservice|featurestore|experiment|trainjob|job)\.[a-z.]+/(driver-|acceptance)")
"""What the suite and its notebooks start under names of their own."""
SETTINGS = ":!feature_repo/feature_store.yaml"
"""Not copied onto the volume: the cluster's own would be replaced by that of a laptop."""
KATIB = "katib.kubeflow.org/metrics-collector-injection"


class Cluster:
    """The suite's view of a cluster. One of its pods, ``acceptance``, runs the functions of ``inside.py``.

    Args:
        options: of the command line.
    """

    def __init__(self, options: Any):
        config.load_kube_config()
        self.options, self.namespace, self.image = options, options.namespace, options.image
        changes = {"namespace": options.namespace, "image": options.image, "access": options.access}
        changes |= {"training_image": options.training_image}
        self.settings = Settings.load(REPOSITORY / FILE, cluster=changes)
        self.on_volume = self.settings.cluster.on_volume
        self.repository = self.on_volume(self.settings.feature_repo)
        self.versions = self._versions()
        self.missing = {name for name, (sign, _) in COMPONENTS.items() if not self._there(sign)}
        self._forward: subprocess.Popen | None = None
        self._pipelines: Any = None

    def kubectl(self, *words: str, stdin: str | None = None, check: bool = True) -> str:
        """Standard output of ``kubectl`` in the namespace."""
        command = ["kubectl", "--namespace", self.namespace, *words]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=900)
        if check and done.returncode:
            raise waiting.ClusterError(f"kubectl {' '.join(words)}: {done.stderr or done.stdout}")
        return done.stdout

    def read(self, *words: str) -> Any:
        """What ``kubectl get`` finds, as read from JSON."""
        return json.loads(self.kubectl("get", *words, "--output=json"))

    def wait(self, kind: str, *names: str, patience: float = 600) -> dict[str, Any]:
        """Wait for objects as ``lifecycle wait`` does; gives the last one."""
        for name in names:
            found = waiting.for_object(kind, name, self.namespace, patience=patience, say=say)
        return dict(found.object)

    def lifecycle(self, *words: str) -> str:
        """Standard output of this clone's command line."""
        command = [sys.executable, "-m", "lifecycle", *words]
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=300)
        if done.returncode:
            raise waiting.ClusterError(f"lifecycle {' '.join(words)}: {done.stderr or done.stdout}")
        return done.stdout

    def inside(self, function: str, **arguments: Any) -> Any:
        """Call a function of ``inside.py`` in the pod; gives what it returns."""
        with self.started(function, **arguments) as process:
            return answer(process)

    @contextlib.contextmanager
    def started(self, function: str, **arguments: Any) -> Iterator[subprocess.Popen]:
        """The same, while the block runs; ``answer`` waits for its end."""
        call = f"\nprint(json.dumps({function}(**json.loads({json.dumps(arguments)!r}))))\n"
        command = ["kubectl", "--namespace", self.namespace, "exec", "--stdin", "deployment/acceptance"]
        process = subprocess.Popen(
            [*command, "--", "python", "-W", "ignore", "-"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        process.stdin.write(inspect.getsource(inside) + call)
        process.stdin.close()
        process.stdin = None
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    def _there(self, sign: str) -> bool:
        words = [sign] if "/" in sign else ["crd", sign]
        return bool(self.kubectl("get", *words, "--ignore-not-found", "--output=name", check=False))

    def _versions(self) -> dict[str, str]:
        found = json.loads(self.kubectl("version", "--output=json"))["serverVersion"]["gitVersion"]
        versions = {"Kubernetes": found}
        for one in self.read("deployments", "--all-namespaces")["items"]:
            for container in one["spec"]["template"]["spec"]["containers"]:
                name, _, tag = container["image"].rpartition(":")
                versions |= {key: tag for key, (_, image) in COMPONENTS.items() if name.endswith(image)}
        return versions

    def objects(self) -> set[str]:
        """The namespace's objects of the kinds that the suite and what it starts make."""
        kinds = [*OURS, *(sign for sign, _ in COMPONENTS.values() if "/" not in sign), *MADE]
        known = [kind for kind in kinds if "." not in kind or self._there(kind)]
        return set(self.kubectl("get", ",".join(known), "--output=name", check=False).split())

    def render(self, folder: Path) -> None:
        """Render what the cluster gets, without the objects of components that it does not have.

        Args:
            folder: for what is rendered.

        Raises:
            ClusterError: one of the objects is there: it would be changed, and deleted in the end.
        """
        self.folder = folder
        runpy.run_path(str(REPOSITORY / "cluster" / "render.py"))["main"](self.folder, self.settings)
        groups = {sign.partition(".")[2] for name, (sign, _) in COMPONENTS.items() if name in self.missing}
        for kustomization in (self.folder / "manifests").glob("*/kustomization.yaml"):
            content = yaml.safe_load(kustomization.read_text())
            for name in list(content["resources"]):
                [first, *_] = yaml.safe_load_all((kustomization.parent / name).read_text())
                if first["apiVersion"].partition("/")[0] in groups:
                    content["resources"].remove(name)
            kustomization.write_text(yaml.safe_dump(content))
        self.made_namespace = not self._there(f"namespace/{self.namespace}")
        labels = {} if self.made_namespace else self.read(f"namespace/{self.namespace}")["metadata"]["labels"]
        self.labelled = KATIB in labels
        self.before = self.objects()
        for path in self._files():
            there = self.kubectl("get", "-f", str(path), "--ignore-not-found", "--output=name", check=False)
            if there and not self.options.reuse:
                raise waiting.ClusterError(
                    f"{', '.join(there.split())}: already in {self.namespace}. The suite would change and "
                    "delete it: name another namespace, remove it, or go on with what --keep left by --reuse."
                )

    def _files(self) -> list[Path]:
        """The rendered files, but that of the namespace."""
        found = []
        for kustomization in (self.folder / "manifests").glob("*/kustomization.yaml"):
            names = yaml.safe_load(kustomization.read_text())["resources"]
            found += [kustomization.parent / name for name in names if name != "namespace.yaml"]
        return found

    def apply(self, folder: str) -> None:
        """Apply a folder of what was rendered."""
        self.kubectl("apply", "-k", str(self.folder / "manifests" / folder))

    def secrets(self) -> None:
        """Make the Secrets, with passwords that are drawn."""
        self.kubectl("apply", "-f", str(self.folder / "manifests" / "base" / "namespace.yaml"))
        subprocess.run(
            ["bash", str(REPOSITORY / "cluster" / "secrets.sh")],
            env={**os.environ, "NAMESPACE": self.namespace},
            stdin=subprocess.DEVNULL,
            check=True,
            capture_output=True,
        )

    def document(self, file: str) -> dict[str, Any]:
        """The one document of a rendered file."""
        return yaml.safe_load((self.folder / "manifests" / file).read_text())

    def start_pod(self) -> None:
        """The pod that ``inside`` runs in: a rendered one that waits. Then the clone onto the volume."""
        template = self.document("features/materialize.yaml")["spec"]["jobTemplate"]["spec"]["template"]
        template["metadata"]["labels"] = {**LABELS, "app": "acceptance"}
        template["spec"]["restartPolicy"] = "Always"
        [container] = template["spec"]["containers"]
        container["command"] = ["sleep", "36000"]
        pod = {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "acceptance"},
            "spec": {"selector": {"matchLabels": {"app": "acceptance"}}, "template": template},
        }
        self.kubectl("apply", "-f", "-", stdin=json.dumps(pod))
        self.wait("Deployment", "acceptance")
        archive = subprocess.Popen(
            ["git", "archive", "HEAD", ".", SETTINGS], cwd=REPOSITORY, stdout=subprocess.PIPE
        )
        self._unpack(archive, "/ml-lifecycle")
        if wheels := self.options.wheels:
            archive = subprocess.Popen(["tar", "-cf", "-", "-C", wheels, "."], stdout=subprocess.PIPE)
            self._unpack(archive, "/ml-lifecycle/wheels")

    def _unpack(self, archive: subprocess.Popen, folder: str) -> None:
        words = f"mkdir -p {folder} && tar -xf - -C {folder}"
        command = ["kubectl", "--namespace", self.namespace, "exec", "--stdin", "deployment/acceptance", "--"]
        subprocess.run([*command, "sh", "-ec", words], stdin=archive.stdout, check=True, capture_output=True)
        if archive.wait():
            raise waiting.ClusterError("what belongs on the volume could not be packed.")

    def host(self) -> str:
        """The address of Kubeflow Pipelines: that of the option, or a port that ``kubectl`` forwards."""
        if self.options.pipelines:
            return self.options.pipelines
        if not self._forward:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                port = free.getsockname()[1]
            words = f"kubectl -n {self.namespace} port-forward service/ml-pipeline {port}:8888"
            # It ends with the connection to a node, so another one takes its place, for as long as this
            # process lives.
            self._forward = subprocess.Popen(
                ["sh", "-c", f"while kill -0 {os.getpid()}; do {words}; sleep 1; done"],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            self._address = f"http://localhost:{port}"
            time.sleep(3)
        return self._address

    @property
    def pipelines(self) -> Any:
        """The client of Kubeflow Pipelines."""
        import kfp

        if self._pipelines is None:
            self._pipelines = kfp.Client(host=self.host())
            self.experiments = {one.experiment_id for one in self._experiments()}
        return self._pipelines

    def _experiments(self) -> list[Any]:
        """All of Kubeflow Pipelines; without profiles, it knows no namespace."""
        many = self._pipelines.get_kfp_healthz().multi_user
        found = self._pipelines.list_experiments(page_size=100, namespace=self.namespace if many else None)
        return found.experiments or []

    def remove(self) -> None:
        """Delete what the suite and what it started has made.

        Raises:
            ClusterError: something is left.
        """
        try:
            if self._pipelines:
                self._remove_runs()
        finally:
            self._remove_objects()

    def _remove_objects(self) -> None:
        words = ["delete", "--ignore-not-found", "--timeout=180s"]
        for made in sorted(self.objects() - self.before):
            if STARTED.match(made):
                self.kubectl(*words, made, check=False)
        self.kubectl(*words, "deployment/acceptance", "configmap/notebooks", check=False)
        self.kubectl(*words, "-f", str(REPOSITORY / "cluster" / "kind" / "notebooks.yaml"), check=False)
        for path in self._files():
            self.kubectl(*words, "-f", str(path), check=False)
        self.kubectl(*words, "secret/mlflow-login", "secret/feature-stores", check=False)
        if self._forward:
            os.killpg(self._forward.pid, signal.SIGTERM)
        if self.made_namespace:
            self.kubectl(*words, f"namespace/{self.namespace}")
            return
        if not self.labelled:
            self.kubectl("label", f"namespace/{self.namespace}", f"{KATIB}-", check=False)
        deadline = time.monotonic() + 120
        while (left := self.objects() - self.before) and time.monotonic() < deadline:
            time.sleep(3)
        if left:
            raise waiting.ClusterError(f"left behind in {self.namespace}: {', '.join(sorted(left))}")

    def _remove_runs(self) -> None:
        """Runs are those that have had pods of ours, in experiments of ours too."""
        client = self.pipelines
        made = [one for one in self._experiments() if one.experiment_id not in self.experiments]
        for one in made:
            found = client.list_recurring_runs(page_size=100, experiment_id=one.experiment_id)
            for recurring in found.recurring_runs or []:
                client.delete_recurring_run(recurring.recurring_run_id)
        ours = ",".join(f"{name}={value}" for name, value in LABELS.items())
        pods = self.read("pods", "--selector", f"{ours},pipeline/runid")["items"]
        for run in {pod["metadata"]["labels"]["pipeline/runid"] for pod in pods}:
            client.delete_run(run)
        for one in made:
            client.delete_experiment(one.experiment_id)


def answer(process: subprocess.Popen) -> Any:
    """What a function of ``inside.py`` returned, or its error."""
    output, errors = process.communicate(timeout=900)
    if process.returncode:
        raise waiting.ClusterError(f"in the pod: {errors[-3000:]}{output[-500:]}")
    return json.loads(output.splitlines()[-1])


def say(line: str) -> None:
    """A line of a wait's report, with the time."""
    print(f"{time.strftime('%H:%M:%S')} {line}", flush=True)

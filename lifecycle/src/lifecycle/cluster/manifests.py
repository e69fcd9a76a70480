"""What a cluster gets, as Kubernetes objects: ``write(folder, render(settings, ...))``.

Plain dictionaries, with the field names of Kubernetes' own documentation. ``round_trip`` reads them with the
official Python classes. ``read`` is for looking at rendered files; nothing is configured from them.
"""

import copy
import json
import posixpath
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import yaml

from lifecycle.cluster.inference_service import inference_service
from lifecycle.objects import (
    CONTAINER_SECURITY,
    POD,
    POD_SECURITY,
    SETTINGS,
    STORES,
    TRACKING,
    kubernetes_name,
    mount,
    tracking_environment,
    volume,
)
from lifecycle.settings import Cluster, Settings

Manifest = dict[str, Any]

MLFLOW_PORT = 5000
REDIS_PORT = 6379
READ_ONLY: Manifest = {**CONTAINER_SECURITY, "readOnlyRootFilesystem": True}
_SCRATCH: Manifest = {"name": "scratch", "emptyDir": {}}


def namespace(cluster: Cluster) -> Manifest:
    """The namespace. The label lets Katib put its metrics collector beside each trial."""
    labels = {"katib.kubeflow.org/metrics-collector-injection": "enabled"}
    return {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": cluster.namespace, "labels": labels},
    }


def volume_claim(cluster: Cluster) -> Manifest:
    """The volume that all share: feature repository, data, registry, MLflow's database and artifacts."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": cluster.claim},
        "spec": {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": cluster.storage}}},
    }


def tracking_config(cluster: Cluster) -> Manifest:
    """The ConfigMap in which each step finds MLflow's address."""
    name, key = TRACKING
    data = {key: cluster.mlflow_uri}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def cluster_settings(feast: Mapping[str, Any], cluster: Cluster) -> dict[str, Any]:
    """``feature_store.yaml`` for the cluster: the same, but features are online in Redis and runs in the
    cluster's MLflow.

    The registry's place is relative to the feature repository, so it lands on the volume.

    Args:
        feast: ``feature_store.yaml`` of this machine, as read.
        cluster: the settings of that name.
    """
    changed = copy.deepcopy(dict(feast))
    changed["online_store"] = {"type": "redis", "connection_string": cluster.redis}
    if "mlflow" in changed:
        changed["mlflow"]["tracking_uri"] = cluster.mlflow_uri
    return changed


def settings_config(feast: Mapping[str, Any], cluster: Cluster) -> Manifest:
    """The ConfigMap with Feast's settings for the cluster.

    Args:
        feast: ``feature_store.yaml`` of this machine, as read.
        cluster: the settings of that name.
    """
    name, key = SETTINGS
    text = yaml.safe_dump(cluster_settings(feast, cluster), sort_keys=False)
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {key: text}}


def _service(name: str, port: int) -> Manifest:
    ports = [{"name": name, "port": port, "targetPort": port}]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"selector": {"app": name}, "ports": ports},
    }


def _deployment(name: str, server: Manifest, volumes: list[Manifest]) -> Manifest:
    pod = {**POD, "containers": [server], "volumes": volumes}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            "replicas": 1,
            "strategy": {"type": "Recreate"},  # two at a time would write to one volume
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": pod},
        },
    }


def redis(cluster: Cluster) -> list[Manifest]:
    """Redis as online store, in memory alone: materializing again fills it."""
    server = {
        "name": "redis",
        "image": cluster.redis_image,
        "args": ["redis-server", "--port", str(REDIS_PORT), "--save", "", "--appendonly", "no"],
        "ports": [{"containerPort": REDIS_PORT}],
        "readinessProbe": {"exec": {"command": ["redis-cli", "ping"]}, "periodSeconds": 5},
        "livenessProbe": {"tcpSocket": {"port": REDIS_PORT}, "periodSeconds": 20},
        "resources": cluster.store.manifest(),
        "securityContext": READ_ONLY,
        "volumeMounts": [{"name": "scratch", "mountPath": "/data"}],
    }
    return [_deployment("redis", server, [_SCRATCH]), _service("redis", REDIS_PORT)]


def mlflow_server(cluster: Cluster) -> list[Manifest]:
    """MLflow's server, with its database and its artifacts on the volume.

    It asks for no login: reach it from inside the cluster only.
    """
    # It answers only callers who call it by one of these names, against pages that rebind a name. A probe
    # calls by the pod's address.
    names = [
        "mlflow",
        f"mlflow.{cluster.namespace}",
        f"mlflow.{cluster.namespace}.svc.cluster.local",
        "localhost",
        "127.0.0.1",
    ]
    allowed = ",".join([*names, *(f"{name}:{MLFLOW_PORT}" for name in names)])
    host = {"name": "Host", "value": "mlflow"}
    health = {"httpGet": {"path": "/health", "port": MLFLOW_PORT, "httpHeaders": [host]}}
    server = {
        "name": "mlflow",
        "image": cluster.image,
        "command": ["mlflow", "server"],
        "args": [
            "--host=0.0.0.0",
            f"--port={MLFLOW_PORT}",
            "--workers=1",  # SQLite has one writer
            f"--backend-store-uri=sqlite:///{cluster.volume}/mlflow.db",
            f"--artifacts-destination={cluster.volume}/mlflow-artifacts",
            f"--allowed-hosts={allowed}",
        ],
        "env": [{"name": "MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "value": "false"}],
        "ports": [{"containerPort": MLFLOW_PORT}],
        # The first start makes the tables.
        "startupProbe": {**health, "periodSeconds": 5, "failureThreshold": 60},
        "readinessProbe": {**health, "periodSeconds": 10},
        "livenessProbe": {**health, "periodSeconds": 20, "failureThreshold": 5},
        "resources": cluster.mlflow.manifest(),
        "securityContext": CONTAINER_SECURITY,
        "volumeMounts": [mount(cluster)],
    }
    return [_deployment("mlflow", server, [volume(cluster)]), _service("mlflow", MLFLOW_PORT)]


def apply_features(settings: Settings) -> Manifest:
    """The job that puts the cluster's settings beside the definitions on the volume, and applies them there.

    Sources are absolute paths, so a registry that was applied elsewhere names files that the volume does not
    have.
    """
    name, key = SETTINGS
    cluster = settings.cluster
    repo = cluster.on_volume(settings.feature_repo)
    words = f"cp /settings/{key} {repo}/{key} && exec feast -c {repo} apply"
    applying = {
        "name": "apply",
        "image": cluster.image,
        "command": ["sh", "-ec", words],
        "workingDir": cluster.volume,
        "env": tracking_environment(),
        "resources": cluster.step.manifest(),
        "securityContext": CONTAINER_SECURITY,
        "volumeMounts": [mount(cluster), {"name": "settings", "mountPath": "/settings", "readOnly": True}],
    }
    pod = {
        "restartPolicy": "Never",
        **POD,
        "containers": [applying],
        "volumes": [volume(cluster), {"name": "settings", "configMap": {"name": name}}],
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "apply-features"},
        "spec": {"backoffLimit": 1, "template": {"spec": pod}},
    }


def feature_store(feast: Mapping[str, Any], settings: Settings) -> Manifest:
    """The object of Feast's operator: servers for registry, offline and online store, on the volume's feature
    repository.

    Written for the operator's release 0.66. ``disableInitContainers`` lets its servers read the repository
    where it lies; ``apply_features`` applies it.

    Args:
        feast: ``feature_store.yaml`` of this machine, as read: the project's name, and the registry's place
            relative to that file.
        settings: of the project.

    Raises:
        ValueError: the registry is something else than a file.
    """
    secret, _ = STORES
    cluster = settings.cluster
    repo = cluster.on_volume(settings.feature_repo)
    if not isinstance(feast["registry"], str) or "://" in feast["registry"]:
        raise ValueError(
            "the registry in feature_store.yaml is no file: "
            "write its path alone, as in `registry: registry.db`."
        )
    registry = posixpath.normpath(posixpath.join(repo, feast["registry"]))
    server = {"resources": cluster.step.manifest(), "volumeMounts": [mount(cluster)]}
    return {
        "apiVersion": "feast.dev/v1",
        "kind": "FeatureStore",
        "metadata": {"name": kubernetes_name(feast["project"])},
        "spec": {
            "feastProject": feast["project"],
            "feastProjectDir": {"packaged": {"featureRepoPath": repo, "image": cluster.image}},
            "services": {
                "disableInitContainers": True,
                "securityContext": POD_SECURITY,
                "volumes": [volume(cluster)],
                "registry": {
                    "local": {
                        "persistence": {"file": {"path": registry}},
                        "server": server,
                    }
                },
                "offlineStore": {"persistence": {"file": {"type": "duckdb"}}, "server": server},
                "onlineStore": {
                    "persistence": {"store": {"type": "redis", "secretRef": {"name": secret}}},
                    "server": server,
                },
            },
        },
    }


def render(
    settings: Settings,
    feast: Mapping[str, Any],
    experiment: Manifest | None = None,
    train_job: Sequence[Manifest] = (),
) -> dict[str, list[Manifest]]:
    """All manifests of a project, by file. The folders are three, in the order in which a cluster takes them.

    ``base`` is what must be there before anything runs, ``features`` needs the definitions and data on the
    volume, ``models`` needs the features.

    Args:
        settings: of the project.
        feast: ``feature_store.yaml`` of this machine, as read.
        experiment: what ``lifecycle.cluster.katib.experiment`` rendered, if there is a sweep.
        train_job: a TrainJob, and the runtime that it names where that is the project's own, if there is one.
    """
    cluster = settings.cluster
    files = {
        "base/namespace.yaml": [namespace(cluster)],
        "base/volume.yaml": [volume_claim(cluster)],
        "base/config.yaml": [tracking_config(cluster), settings_config(feast, cluster)],
        "base/redis.yaml": redis(cluster),
        "base/mlflow.yaml": mlflow_server(cluster),
        "features/apply.yaml": [apply_features(settings)],
        "features/feature_store.yaml": [feature_store(feast, settings)],
        "models/inference_service.yaml": [inference_service(settings)],
    }
    if experiment:
        files["models/experiment.yaml"] = [experiment]
    if train_job:
        files["models/train_job.yaml"] = list(train_job)
    for folder in ("base", "features", "models"):
        names = sorted(Path(file).name for file in files if file.startswith(f"{folder}/"))
        files[f"{folder}/kustomization.yaml"] = [_kustomization(folder, names, cluster)]
    return files


def _kustomization(folder: str, names: list[str], cluster: Cluster) -> Manifest:
    return {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "metadata": {"name": folder},
        "namespace": cluster.namespace,
        "resources": names,
    }


def write(folder: Path, files: Mapping[str, list[Manifest]]) -> None:
    """Write each file of ``render`` below ``folder``.

    Args:
        folder: is made where it is not there.
        files: documents by the file's name.
    """
    for name, documents in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text(documents))


def text(documents: list[Manifest]) -> str:
    """Documents as YAML, without the anchors that a value used twice would get."""
    return yaml.dump_all(documents, Dumper=_Plain, sort_keys=False, width=120)


class _Plain(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def _block(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


_Plain.add_representer(str, _block)


def read(folder: Path) -> dict[str, list[Manifest]]:
    """What ``write`` wrote: the documents by file.

    Args:
        folder: with the rendered manifests.
    """
    paths = sorted(folder.rglob("*.yaml"))
    return {path.relative_to(folder).as_posix(): list(yaml.safe_load_all(path.read_text())) for path in paths}


def train_job(name: str, inputs: Mapping[str, Any], workers: int, cluster: Cluster) -> Manifest:
    """The TrainJob that ``lifecycle.training.shipped.submit`` asks a cluster for.

    Kubeflow's client renders it and sends it at once. Here it has no cluster: what it would send is kept,
    which touches what version 0.5 keeps private.

    Args:
        name: of the job: lower case, with hyphens.
        inputs: the arguments of ``lifecycle.training.distributed.work``.
        workers: number of pods.
        cluster: the settings of that name.
    """
    from kubeflow.trainer import TrainerClient
    from kubeflow.trainer.backends.kubernetes.backend import KubernetesBackend

    from lifecycle.training import shipped

    sent: list[Manifest] = []
    client = TrainerClient.__new__(TrainerClient)
    client.backend = KubernetesBackend.__new__(KubernetesBackend)
    client.backend.namespace = cluster.namespace
    client.backend.custom_api = SimpleNamespace(
        create_namespaced_custom_object=lambda *given: sent.append(given[-1])
    )
    shipped.submit(client, name, inputs, workers, cluster)
    return sent[0]


def round_trip(manifest: Manifest) -> Manifest | None:
    """``manifest`` read by the official Python class of its kind and written again; None where there is no
    such class.

    The classes drop a field that they do not know, without a word: compare.

    Args:
        manifest: an object of Kubernetes, KServe, Katib or Kubeflow Trainer.
    """
    group = manifest["apiVersion"].rpartition("/")[0]
    if group == "kubeflow.org":
        from lifecycle.cluster import katib

        return katib.round_trip(manifest)
    if group == "trainer.kubeflow.org":
        from kubeflow_trainer_api import models

        return getattr(models, f"TrainerV1alpha1{manifest['kind']}").from_dict(manifest).to_dict()
    return _by_class(manifest, group)


def _by_class(manifest: Manifest, group: str) -> Manifest | None:
    """The same for classes of the Kubernetes client's make, KServe's among them."""
    from kubernetes import client

    if group == "serving.kserve.io":
        import kserve.models

        for name in dir(kserve.models):  # the client looks a field's class up among its own
            if name.startswith("V1beta1") and not hasattr(client.models, name):
                setattr(client.models, name, getattr(kserve.models, name))
    version = manifest["apiVersion"].rpartition("/")[2]
    kind = f"{version[0].upper()}{version[1:]}{manifest['kind']}"
    if not hasattr(client.models, kind):
        return None
    api = client.ApiClient()
    found = api.deserialize(SimpleNamespace(data=json.dumps(manifest)), kind)
    _check_types(found, kind)
    return api.sanitize_for_serialization(found)


def _check_types(found: Any, kind: str, place: str = "") -> None:
    """Raise a TypeError where a list or a dictionary stands for a number or a text: the client leaves it
    as it is.
    """
    plain = {"str": str, "int": int, "float": float, "bool": bool}.get(kind)
    if plain and found is not None and not isinstance(found, plain):
        raise TypeError(f"{place} is {found!r}, which is no {kind}")
    for name, inner in getattr(found, "openapi_types", {}).items():
        _check_types(getattr(found, name), inner, f"{place}.{found.attribute_map[name]}".lstrip("."))
    if isinstance(found, list) and kind.startswith("list["):
        for number, one in enumerate(found):
            _check_types(one, kind[5:-1], f"{place}[{number}]")


def problems(manifest: Manifest) -> list[str]:
    """What is wrong with a manifest, as far as the official Python classes can tell: unknown and missing
    fields, wrong types. Empty if nothing is.

    They check no value beyond its type: a misspelled word in a field of text passes. A kind without a class
    is asked for its name alone.

    Args:
        manifest: an object of Kubernetes, KServe, Katib or Kubeflow Trainer.
    """
    found = [] if manifest.get("metadata", {}).get("name") else ["metadata.name is missing"]
    try:
        back = round_trip(manifest)
    except (ValueError, TypeError, AttributeError) as error:  # how the classes refuse what they cannot read
        return [*found, f"{manifest['kind']} cannot be read: {error}"]
    if back is not None:
        found += _differences(manifest, back, "")
    if manifest["kind"] == "Experiment":
        # For Katib's class, the template of the trials' job is any dictionary.
        job = manifest.get("spec", {}).get("trialTemplate", {}).get("trialSpec", {})
        found += [f"trialSpec: {problem}" for problem in problems({"metadata": {"name": "trial"}, **job})]
    return found


def _differences(given: Any, read: Any, place: str) -> list[str]:
    """Where what was read is not what was given."""
    if isinstance(given, dict) and isinstance(read, dict):
        found = []
        for name in [*given, *(read.keys() - given.keys())]:
            where = f"{place}.{name}".lstrip(".")
            if name not in read:
                found.append(f"{where} is not known")
            elif name not in given:
                found.append(f"{where} is missing")
            else:
                found += _differences(given[name], read[name], where)
        return found
    if isinstance(given, list) and isinstance(read, list) and len(given) == len(read):
        pairs = enumerate(zip(given, read, strict=True))
        return [one for number, (a, b) in pairs for one in _differences(a, b, f"{place}[{number}]")]
    same = given == read and type(given) is type(read)
    return [] if same else [f"{place} is {given!r}, and was read as {read!r}"]

"""What a cluster gets, as Kubernetes objects: ``write(folder, render(settings, ...))``.

Plain dictionaries, with the field names of Kubernetes' own documentation. ``round_trip`` reads them with the
official Python classes. ``read`` is for looking at rendered files; nothing is configured from them.

What several processes write lies in PostgreSQL: a registry or a tracking store in a file on a shared volume
loses writes.
"""

import copy
import hashlib
import json
import posixpath
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import yaml

from lifecycle.cluster.inference_service import inference_service, scrape_target
from lifecycle.cluster.trainer import training_runtime
from lifecycle.objects import (
    CONTAINER_SECURITY,
    LABELS,
    ON_TMP,
    POD,
    POD_SECURITY,
    SCRATCH,
    SETTINGS,
    TRACKING,
    environment,
    kubernetes_name,
    mount,
    volume,
)
from lifecycle.settings import FILE, Cluster, Settings, amount

Manifest = dict[str, Any]

MLFLOW_PORT = 5000
REDIS_PORT = 6379
DATABASE_PORT = 5432
FEAST, MLFLOW = "feast", "mlflow"
"""The databases in PostgreSQL."""


def namespace(cluster: Cluster) -> Manifest:
    """The namespace. The label lets Katib put its metrics collector beside each trial."""
    labels = {"katib.kubeflow.org/metrics-collector-injection": "enabled"}
    return {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": cluster.namespace, "labels": labels},
    }


def volume_claim(cluster: Cluster) -> Manifest:
    """The volume that all share: feature repository, data, and MLflow's artifacts."""
    return _claim(cluster.claim, cluster.access, cluster)


def _claim(name: str, access: str, cluster: Cluster) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name},
        "spec": {"accessModes": [access], "resources": {"requests": {"storage": cluster.storage}}},
    }


def _config(name: str, **data: str) -> Manifest:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def tracking_config(cluster: Cluster) -> Manifest:
    """The ConfigMap in which each step finds MLflow's address."""
    name, key = TRACKING
    return _config(name, **{key: cluster.tracking_uri})


def cluster_settings(feast: Mapping[str, Any], cluster: Cluster) -> dict[str, Any]:
    """``feature_store.yaml`` for the cluster: the same, but what lies in a file here is on a server there.

    Features are online in Redis, the registry is in PostgreSQL, runs are in the cluster's MLflow.

    A store that is a server already is kept. Logins are variables, which Feast reads from the environment.

    Args:
        feast: ``feature_store.yaml`` of this machine, as read.
        cluster: the settings of that name.
    """
    changed = copy.deepcopy(dict(feast))
    if _online_in_a_file(feast):
        # Redis answers in milliseconds or not at all. By default its client would ask for ten seconds.
        patience = "socket_connect_timeout=1,socket_timeout=1,retry=null"
        changed["online_store"] = {
            "type": "redis",
            "connection_string": f"{cluster.redis_address},password=${{REDIS_PASSWORD}},{patience}",
        }
    if _registry_in_a_file(feast):
        changed["registry"] = {
            "registry_type": "sql",
            "path": _database(FEAST, cluster, "${DATABASE_USER}:${DATABASE_PASSWORD}"),
            "cache_ttl_seconds": 60,
            "sqlalchemy_config_kwargs": {"echo": False, "pool_pre_ping": True},
        }
    if "mlflow" in changed:
        changed["mlflow"]["tracking_uri"] = cluster.tracking_uri
    return changed


def _online_in_a_file(feast: Mapping[str, Any]) -> bool:
    store = feast.get("online_store", {})
    return (store if isinstance(store, str) else store.get("type", "sqlite")) == "sqlite"


def _registry_in_a_file(feast: Mapping[str, Any]) -> bool:
    registry = feast.get("registry", "")
    if isinstance(registry, str):
        return "://" not in registry
    return registry.get("registry_type", "file") == "file" and "://" not in registry.get("path", "")


def _database(name: str, cluster: Cluster, login: str) -> str:
    return f"postgresql+psycopg://{login}@{cluster.database_address}/{name}"


def settings_config(feast: Mapping[str, Any], cluster: Cluster) -> Manifest:
    """The ConfigMap with Feast's settings for the cluster.

    Args:
        feast: ``feature_store.yaml`` of this machine, as read.
        cluster: the settings of that name.
    """
    name, key = SETTINGS
    return _config(name, **{key: yaml.safe_dump(cluster_settings(feast, cluster), sort_keys=False)})


def _service(name: str, port: int) -> Manifest:
    ports = [{"name": name, "port": port, "targetPort": port}]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"selector": {"app": name}, "ports": ports},
    }


def _deployment(name: str, server: Manifest, volumes: list[Manifest]) -> Manifest:
    pod = {**POD, "containers": [server], "volumes": [*volumes, SCRATCH]}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            "replicas": 1,
            "strategy": {"type": "Recreate"},  # two at a time would write to one volume
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name, **LABELS}}, "spec": pod},
        },
    }


def _guard(name: str, port: int) -> Manifest:
    """Who may talk to a server: pods of ours, Feast's servers, and the notebooks of Kubeflow's users."""
    ours = {"matchLabels": LABELS}
    others = [
        {"matchExpressions": [{"key": label, "operator": "Exists"}]}
        for label in ("feast.dev/name", "notebook-name")
    ]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name},
        "spec": {
            "podSelector": {"matchLabels": {"app": name}},
            "policyTypes": ["Ingress"],
            "ingress": [
                {
                    "from": [{"podSelector": selector} for selector in (ours, *others)],
                    "ports": [{"port": port}],
                }
            ],
        },
    }


def _secret(variable: str, key: str, cluster: Cluster) -> Manifest:
    return {"name": variable, "valueFrom": {"secretKeyRef": {"name": cluster.stores_secret, "key": key}}}


def redis(cluster: Cluster) -> list[Manifest]:
    """Redis as online store, in memory alone. When it comes back empty, the job ``materialize`` fills it.

    A write that would take it over its memory is refused, and what is stored stays. Without a bound it would
    be killed at its limit, and come back empty.
    """
    bound = int(amount(cluster.store.memory_limit) * 3 / 4)
    # Over the pod's address and with the password, as a client: on loopback it would answer anybody.
    ping = 'REDISCLI_AUTH="$REDIS_PASSWORD" redis-cli -h "$(hostname -i)" ping | grep -q PONG'
    server = {
        "name": "redis",
        "image": cluster.redis_image,
        "args": [
            *("redis-server", "--port", str(REDIS_PORT), "--save", "", "--appendonly", "no"),
            *("--maxmemory", str(bound), "--maxmemory-policy", "noeviction"),
            *("--requirepass", "$(REDIS_PASSWORD)"),
        ],
        "env": [_secret("REDIS_PASSWORD", "redis-password", cluster)],
        "ports": [{"containerPort": REDIS_PORT}],
        "readinessProbe": {"exec": {"command": ["sh", "-c", ping]}, "periodSeconds": 5},
        "livenessProbe": {"tcpSocket": {"port": REDIS_PORT}, "periodSeconds": 20},
        "resources": cluster.store.manifest(),
        "securityContext": CONTAINER_SECURITY,
        "volumeMounts": [{"name": "scratch", "mountPath": "/data"}],
    }
    return [_deployment("redis", server, []), _service("redis", REDIS_PORT), _guard("redis", REDIS_PORT)]


def postgres(cluster: Cluster) -> list[Manifest]:
    """PostgreSQL with a database for Feast's registry and one for MLflow, on a claim of its own."""
    data = "/var/lib/postgresql/data"
    ready = ["sh", "-c", f'pg_isready --username "$POSTGRES_USER" --dbname {FEAST}']
    server = {
        "name": "postgres",
        "image": cluster.database_image,
        "env": [
            _secret("POSTGRES_USER", "database-user", cluster),
            _secret("POSTGRES_PASSWORD", "database-password", cluster),
            {"name": "POSTGRES_DB", "value": FEAST},
            {"name": "PGDATA", "value": f"{data}/pgdata"},
        ],
        "ports": [{"containerPort": DATABASE_PORT}],
        "startupProbe": {"exec": {"command": ready}, "periodSeconds": 5, "failureThreshold": 60},
        "readinessProbe": {"exec": {"command": ready}, "periodSeconds": 10},
        "livenessProbe": {"tcpSocket": {"port": DATABASE_PORT}, "periodSeconds": 20},
        "resources": cluster.store.manifest(),
        "securityContext": CONTAINER_SECURITY,
        "volumeMounts": [
            {"name": "postgres", "mountPath": data},
            {"name": "first-start", "mountPath": "/docker-entrypoint-initdb.d", "readOnly": True},
            ON_TMP,
            {**ON_TMP, "mountPath": "/var/run/postgresql", "subPath": "socket"},
        ],
    }
    volumes = [
        {"name": "postgres", "persistentVolumeClaim": {"claimName": "postgres"}},
        {"name": "first-start", "configMap": {"name": "postgres"}},
    ]
    return [
        _claim("postgres", "ReadWriteOnce", cluster),
        _config("postgres", **{"mlflow.sql": f"CREATE DATABASE {MLFLOW};\n"}),
        _deployment("postgres", server, volumes),
        _service("postgres", DATABASE_PORT),
        _guard("postgres", DATABASE_PORT),
    ]


def mlflow_server(cluster: Cluster) -> list[Manifest]:
    """MLflow's server, with its database in PostgreSQL and its artifacts on the volume.

    It asks for no login: reach it from inside the cluster, or by a port that ``kubectl`` forwards.

    A newer MLflow wants newer tables, and an older one cannot read those. So before the first start of each
    image, the database is copied to the volume; then it is upgraded, which changes nothing where nothing is
    newer.
    """
    # It answers only callers who call it by one of these names, against pages that rebind a name. A probe
    # calls by the pod's address; a forwarded port may have any number.
    full = cluster.service("mlflow")
    names = ["mlflow", f"mlflow.{cluster.namespace}", full.removesuffix(".cluster.local"), full]
    names += ["localhost", "127.0.0.1", *cluster.mlflow_hosts]
    allowed = ",".join([*names, *(f"{name}:*" for name in names)])
    origins = ",".join(f"{scheme}://{name}" for name in cluster.mlflow_hosts for scheme in ("http", "https"))
    store = _database(MLFLOW, cluster, "$(DATABASE_USER):$(DATABASE_PASSWORD)")
    called = {"name": "Host", "value": "mlflow"}
    health = {"httpGet": {"path": "/health", "port": MLFLOW_PORT, "httpHeaders": [called]}}
    server = {
        "name": "mlflow",
        "image": cluster.image,
        "command": ["mlflow", "server"],
        "args": [
            "--host=0.0.0.0",
            f"--port={MLFLOW_PORT}",
            "--workers=1",
            f"--backend-store-uri={store}",
            f"--artifacts-destination={cluster.volume}/mlflow-artifacts",
            f"--allowed-hosts={allowed}",
            *([f"--cors-allowed-origins={origins}"] if origins else []),
        ],
        "env": [
            _secret("DATABASE_USER", "database-user", cluster),
            _secret("DATABASE_PASSWORD", "database-password", cluster),
            {"name": "MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "value": "false"},
        ],
        "workingDir": "/tmp",
        "ports": [{"containerPort": MLFLOW_PORT}],
        # The first start makes the tables.
        "startupProbe": {**health, "periodSeconds": 5, "failureThreshold": 60},
        "readinessProbe": {**health, "periodSeconds": 10},
        "livenessProbe": {**health, "periodSeconds": 20, "failureThreshold": 5},
        "resources": cluster.mlflow.manifest(),
        "securityContext": CONTAINER_SECURITY,
        "volumeMounts": [mount(cluster), ON_TMP],
    }
    host, _, port = cluster.database_address.partition(":")
    digest = hashlib.sha256(cluster.image.encode()).hexdigest()[:8]
    kept = f"{cluster.volume}/copies/mlflow-before-{digest}.sql"
    make = f"mkdir -p {posixpath.dirname(kept)}; pg_dump {MLFLOW} >/tmp/copy; mv /tmp/copy {kept}"
    # The database may start at this moment. A container that ends is started again later and later.
    ready = "for look in $(seq 60); do pg_isready -q && break; sleep 2; done"
    words = f"[ -e {kept} ] || {{ {ready}; {make}; }}"
    common = {
        "resources": cluster.mlflow.manifest(),
        "securityContext": CONTAINER_SECURITY,
        "volumeMounts": [mount(cluster), ON_TMP],
    }
    copy = {
        "name": "copy",
        "image": cluster.database_image,
        "command": ["sh", "-ec", words],
        "env": [
            {"name": "PGHOST", "value": host},
            {"name": "PGPORT", "value": port},
            _secret("PGUSER", "database-user", cluster),
            _secret("PGPASSWORD", "database-password", cluster),
        ],
        **common,
    }
    upgrade = {
        "name": "upgrade",
        "image": cluster.image,
        "command": ["mlflow", "db", "upgrade", store],
        "env": server["env"],
        "workingDir": "/tmp",
        **common,
    }
    deployment = _deployment("mlflow", server, [volume(cluster)])
    deployment["spec"]["template"]["spec"]["initContainers"] = [copy, upgrade]
    return [
        deployment,
        _service("mlflow", MLFLOW_PORT),
        _guard("mlflow", MLFLOW_PORT),
    ]


def _task(name: str, cluster: Cluster, command: list[str]) -> Manifest:
    """A pod of the image that runs one command and ends."""
    container = {
        "name": name,
        "image": cluster.image,
        "command": command,
        "workingDir": "/tmp",
        "env": environment(cluster),
        "resources": cluster.step.manifest(),
        "securityContext": CONTAINER_SECURITY,
        "volumeMounts": [mount(cluster), ON_TMP],
    }
    pod = {"restartPolicy": "Never", **POD, "containers": [container], "volumes": [volume(cluster), SCRATCH]}
    return {"metadata": {"labels": LABELS}, "spec": pod}


def apply_features(feast: Mapping[str, Any], settings: Settings) -> Manifest:
    """The job that puts the cluster's settings beside the definitions on the volume, and applies them there.

    Sources are absolute paths, so a registry that was applied elsewhere names files that the volume does not
    have. A job's fields cannot be changed; so its name has a digest of what it applies, and changed
    definitions get a job of their own.

    Args:
        feast: ``feature_store.yaml`` of this machine, as read.
        settings: of the project.
    """
    name, key = SETTINGS
    cluster = settings.cluster
    repo = cluster.on_volume(settings.feature_repo)
    config = settings_config(feast, cluster)
    template = _task(
        "apply", cluster, ["sh", "-ec", f"cp /settings/{key} {repo}/{key} && exec feast -c {repo} apply"]
    )
    [container] = template["spec"]["containers"]
    container["volumeMounts"].append({"name": "settings", "mountPath": "/settings", "readOnly": True})
    template["spec"]["volumes"].append({"name": "settings", "configMap": {"name": name}})
    definitions = sorted(settings.path(settings.feature_repo).glob("*.py"))
    content = [json.dumps([config, template]), *(path.read_text(encoding="utf-8") for path in definitions)]
    digest = hashlib.sha256("\0".join(content).encode()).hexdigest()[:8]
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": f"apply-features-{digest}", "labels": {"app": "apply-features"}},
        "spec": {"backoffLimit": 1, "ttlSecondsAfterFinished": 7 * 86_400, "template": template},
    }


def materialize(settings: Settings) -> Manifest:
    """The job that looks whether features are due in the online store, and materializes them if so."""
    cluster, asked = settings.cluster, settings.materialization
    command = ["lifecycle", "--settings", cluster.on_volume(FILE), "materialize", "--due"]
    command += ["--now", str(cluster.clock.timestamp())] if cluster.clock else []
    return {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {"name": "materialize"},
        "spec": {
            "schedule": asked.cron,
            "timeZone": "Etc/UTC",
            "concurrencyPolicy": "Forbid",
            "jobTemplate": {
                "spec": {"backoffLimit": 0, "template": _task("materialize", cluster, command)},
            },
        },
    }


def feature_store(feast: Mapping[str, Any], settings: Settings) -> Manifest:
    """The object of Feast's operator: servers for registry, offline and online store, on the volume's feature
    repository.

    Written for the operator's release 0.66. ``disableInitContainers`` lets its servers read the repository
    where it lies; ``apply_features`` applies it. They find ``feature_store.yaml`` in the ConfigMap, so they
    may start before that job. What the object says about stores, and the Secret's blocks, steers no server:
    the operator hands it to clients. Without ``restAPI``: Feast 0.67 cannot start it.

    Args:
        feast: ``feature_store.yaml`` of this machine, as read.
        settings: of the project.
    """
    cluster, (config, key) = settings.cluster, SETTINGS
    repo = cluster.on_volume(settings.feature_repo)
    server = {
        "env": environment(cluster),
        "resources": cluster.step.manifest(),
        "volumeMounts": [mount(cluster), {"name": "settings", "mountPath": f"{repo}/{key}", "subPath": key}],
    }
    there = cluster_settings(feast, cluster)
    spec: Manifest = {
        "feastProject": feast["project"],
        "feastProjectDir": {"packaged": {"featureRepoPath": repo, "image": cluster.image}},
        # The operator's own job would materialize up to this moment; ours does it, by the settings.
        "cronJob": {"suspend": True},
        "authz": {"noAuth": True},  # as feature_store.yaml has none; else clients are asked for a token
        "services": {
            "disableInitContainers": True,
            "securityContext": POD_SECURITY,
            "volumes": [volume(cluster), {"name": "settings", "configMap": {"name": config}}],
            "registry": {"local": {"persistence": _registry(there["registry"], cluster), "server": server}},
            "offlineStore": {"persistence": {"file": {"type": "duckdb"}}, "server": server},
            "onlineStore": {
                "persistence": {
                    "store": {
                        "type": there["online_store"]["type"],
                        "secretRef": {"name": cluster.stores_secret},
                    }
                },
                "server": server,
            },
        },
    }
    if tracking := there.get("mlflow"):
        spec["mlflow"] = {
            "enabled": tracking.get("enabled", False),
            "trackingUri": tracking["tracking_uri"],
            "autoLog": tracking.get("auto_log", True),
            "autoLogEntityDf": tracking.get("auto_log_entity_df", False),
            "trackingAuth": "",
        }
    return {
        "apiVersion": "feast.dev/v1",
        "kind": "FeatureStore",
        "metadata": {"name": kubernetes_name(feast["project"])},
        "spec": spec,
    }


def _registry(there: str | Mapping[str, Any], cluster: Cluster) -> Manifest:
    if isinstance(there, str):
        return {"file": {"path": there}}
    kind = there.get("registry_type", "file")
    if kind == "file":
        return {"file": {"path": there["path"]}}
    return {"store": {"type": kind, "secretRef": {"name": cluster.stores_secret}}}


def scrape(settings: Settings) -> Manifest:
    """Prometheus's settings for the model server: it runs with ``alerts.yaml`` beside them.

    The target is the Service of the server. Each replica counts for itself: with several, let
    ``kubernetes_sd_configs`` find the pods.
    """
    return {
        "global": {"scrape_interval": "15s", "evaluation_interval": "15s"},
        "rule_files": ["alerts.yaml"],
        "scrape_configs": [
            {
                "job_name": "model_server",
                "metrics_path": "/metrics",
                "static_configs": [{"targets": [scrape_target(settings)]}],
            }
        ],
    }


def render(
    settings: Settings,
    feast: Mapping[str, Any],
    experiment: Manifest | None = None,
    train_job: Sequence[Manifest] = (),
) -> dict[str, list[Manifest]]:
    """All manifests of a project, by file. The folders are three, in the order in which a cluster takes them.

    ``base`` is what must be there before anything runs, ``features`` needs the definitions and data on the
    volume, ``models`` needs the features. A server that the settings name an address of is not rendered.

    Args:
        settings: of the project.
        feast: ``feature_store.yaml`` of this machine, as read.
        experiment: what ``lifecycle.cluster.katib.experiment`` rendered, if there is a sweep.
        train_job: what ``lifecycle.cluster.trainer.train_job`` rendered, if there is a distributed training.
            Its runtime comes along, as it does where the settings name a ``training_image``.

    Raises:
        ValueError: a name that a cluster would refuse.
    """
    cluster = settings.cluster
    files = {
        "base/namespace.yaml": [namespace(cluster)],
        "base/volume.yaml": [volume_claim(cluster)],
        "base/config.yaml": [tracking_config(cluster), settings_config(feast, cluster)],
    }
    if not cluster.mlflow_uri:
        files["base/mlflow.yaml"] = mlflow_server(cluster)
    if not cluster.database and (_registry_in_a_file(feast) or not cluster.mlflow_uri):
        files["base/postgres.yaml"] = postgres(cluster)
    if not cluster.redis and _online_in_a_file(feast):
        files["base/redis.yaml"] = redis(cluster)
    files |= {
        "features/apply.yaml": [apply_features(feast, settings)],
        "features/feature_store.yaml": [feature_store(feast, settings)],
        "features/materialize.yaml": [materialize(settings)],
        "models/inference_service.yaml": [inference_service(settings)],
        "models/scrape.yaml": [_config("scrape", **{"prometheus.yaml": text([scrape(settings)])})],
    }
    if train_job or cluster.training_image:
        files["base/training_runtime.yaml"] = [training_runtime(cluster)]
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

"""A project's settings: ``lifecycle.toml``, or the table ``[tool.lifecycle]`` in ``pyproject.toml``.

Everything that differs from one project to the next stands here, and each name below is its name in the file.
Nothing is read from the environment, so the same file renders the same objects everywhere.
"""

from __future__ import annotations

import json
import re
import tomllib
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    field_validator,
    model_validator,
)

FILE = "lifecycle.toml"
IMAGE = "ml-lifecycle:1.0"
"""The image that ``make image`` builds, when no setting names another."""
DISTRIBUTED = "distributed"
"""The end of the name of the image that also holds PyTorch."""
Share = Annotated[float, Field(gt=0, lt=1)]
KubernetesName = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]
"""What Kubernetes takes as a label: at most 63 lower-case letters, digits, and hyphens."""
Quantity = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$")]
Address = Annotated[str, Field(pattern=r"^([\w.-]+:[0-9]+)?$")]
"""``host:port``, or nothing."""
_UNITS = {
    "m": 1e-3,
    "k": 1e3,
    "M": 1e6,
    "G": 1e9,
    "T": 1e12,
    "Ki": 2**10,
    "Mi": 2**20,
    "Gi": 2**30,
    "Ti": 2**40,
}


_CRON = {
    "second": (0, 59, ""),
    "minute": (0, 59, ""),
    "hour": (0, 23, ""),
    "day of the month": (1, 31, ""),
    "month": (1, 12, "jan feb mar apr may jun jul aug sep oct nov dec"),
    "day of the week": (0, 6, "sun mon tue wed thu fri sat"),
}
"""The fields of a rule as Kubeflow Pipelines reads them: least, most, and names from the least on."""


def _checked_cron(rule: str) -> str:
    """Refuse what Kubeflow Pipelines would refuse, or take for another rule.

    Its server takes five fields too, and reads the first as the second.
    """
    fields = rule.split()
    if "TZ=" in rule:
        raise ValueError("Kubeflow Pipelines takes no time zone; write the hours in UTC")
    if len(fields) != len(_CRON):
        example = f"0 {rule}" if len(fields) == len(_CRON) - 1 else "0 0 6 * * 1"
        raise ValueError(
            f"Kubeflow Pipelines wants six fields in UTC, {', '.join(_CRON)}; write {example!r}, for example"
        )
    for field, (name, (least, most, names)) in zip(fields, _CRON.items(), strict=True):
        numbers = {word: least + place for place, word in enumerate(names.split())}
        for part in field.split(","):
            found = re.fullmatch(r"(?:[*?]|(\w+)(?:-(\w+))?)(?:/([1-9]\d*))?", part, re.ASCII)
            ends = [numbers.get(end.lower(), end) for end in (found.groups()[:2] if found else ()) if end]
            limits = [int(end) if str(end).isdigit() else -1 for end in ends]
            if not found or limits != sorted(limits) or any(not least <= end <= most for end in limits):
                raise ValueError(
                    f"the {name} is {field!r}; write {least} to {most}{', or a name' if names else ''}, a "
                    "list (1,3), a range (1-3), a step (*/2), or *"
                )
    return " ".join(fields)


class SettingsError(ValueError):
    """The settings cannot be read; the message names the file, the setting, and what it should be."""


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Training(_Table):
    """What is trained, and when it is good enough.

    Attributes:
        estimator: ``module:function``; called with the hyperparameters, it gives an unfitted scikit-learn
            estimator.
        hyperparameters: of a first model. A retraining takes the champion's.
        task: ``binary`` predicts the probability of the label 1, ``regression`` a number.
        metric: name of a scikit-learn scorer; greater is better.
        types: what a stored model may hold beside the types of the default estimator, as skops names them.
        threshold: of the metric on the held-out rows, below which no model is registered.
        held_out: share of the rows, the latest ones, that a model is judged on.
        confidence: of the interval for a challenger's gain, which must lie above 0.
        fewest: entities with each outcome, or entities of a regression, below which nothing is compared. With
            20, a resample that draws none of them does not happen (exp(-20)).
        experiment: of MLflow.
    """

    estimator: Annotated[str, Field(pattern=r"^[\w.]+:\w+$")] = "lifecycle.models.model:new_model"
    hyperparameters: dict[str, float | int | str | bool | None] = {}
    task: Literal["binary", "regression"] = "binary"
    metric: str = "roc_auc"
    types: tuple[str, ...] = ()
    threshold: float = 0.5
    held_out: Share = 0.25
    confidence: Annotated[float, Field(ge=0.5, lt=1)] = 0.95
    fewest: Annotated[int, Field(ge=2)] = 20
    experiment: str = "training_pipeline"


class Retraining(_Table):
    """When labels are believed, and what moves the alias.

    Attributes:
        window_days: how much is trained and compared on.
        late_days: how far before the end of the window the newest label may lie.
        contradictions: share of the questions with both answers, above which labels are not believed.
        hold: register a better model and leave the alias where it is.
        outputs: folder for what a retraining leaves.
        experiment: of MLflow.
        cron: when Kubeflow Pipelines retrains, in UTC: second, minute, hour, day of the month, month, day of
            the week.
    """

    window_days: PositiveFloat = 14
    late_days: PositiveFloat = 2
    contradictions: Share = 0.05
    hold: bool = False
    outputs: str = "retraining"
    experiment: str = "retraining"
    cron: Annotated[str, AfterValidator(_checked_cron)] = "0 0 6 * * 1"


class Materialization(_Table):
    """How features come into the online store on a cluster.

    Attributes:
        days: how far back of the newest values are read.
        hours: between two materializations. An online store that came back empty is filled without waiting.
        cron: when a job looks whether one is due; Kubernetes' five fields, UTC.
    """

    days: PositiveFloat = 7
    hours: PositiveFloat = 24
    cron: Annotated[str, Field(pattern=r"^\S+( \S+){4}$")] = "*/10 * * * *"


class Serving(_Table):
    """The model server.

    Attributes:
        port: of the REST interface.
        hosts: names, without a port, by which callers may call it; on a cluster any.
        skew_seconds: how far two clocks may differ.
        most_bytes: of a request's body.
        most_waiting: requests that wait for a thread.
    """

    port: Annotated[int, Field(ge=0, le=65535)] = 8080
    hosts: tuple[str, ...] = ("127.0.0.1", "localhost", "[::1]")
    skew_seconds: PositiveFloat = 60
    most_bytes: PositiveInt = 1_000_000
    most_waiting: PositiveInt = 128


class Resources(_Table):
    """What a container is promised (``cpu``, ``memory``), and what it may take at most."""

    cpu: Quantity
    memory: Quantity
    cpu_limit: Quantity
    memory_limit: Quantity

    def manifest(self) -> dict[str, dict[str, str]]:
        """As Kubernetes writes it."""
        return {
            "requests": {"cpu": self.cpu, "memory": self.memory},
            "limits": {"cpu": self.cpu_limit, "memory": self.memory_limit},
        }

    @model_validator(mode="after")
    def _within_limits(self) -> Self:
        for name in ("cpu", "memory"):
            if amount(getattr(self, name)) > amount(getattr(self, f"{name}_limit")):
                raise ValueError(f"{name} is more than {name}_limit, which Kubernetes refuses")
        return self


def amount(quantity: str) -> float:
    """A quantity of Kubernetes as a number: ``500m`` is 0.5, ``1Ki`` is 1024."""
    digits = quantity.rstrip("mkMGTKi")
    return float(digits) * _UNITS.get(quantity[len(digits) :], 1)


class Cluster(_Table):
    """Where it runs on Kubernetes.

    Attributes:
        namespace: of everything that is rendered.
        image: of pipeline steps, Katib trials, the model server, and MLflow.
        training_image: of distributed training, with PyTorch. Where it is set, the manifests hold a training
            runtime; see also ``image_with_torch``.
        claim: the PersistentVolumeClaim that all of them mount.
        volume: where they mount it. A project's relative paths are relative to it there.
        storage: size of the claim, and of the database's.
        access: how the claim is mounted; ``ReadWriteOnce`` is enough for a cluster of one node.
        clock: the moment that counts as now for the age of features, for data that has ended; the wall clock
            when left out.
        mlflow_uri: address of a tracking server that exists; when left out, one is rendered.
        pipelines_uri: address of Kubeflow Pipelines; when left out, where its client finds the server.
        mlflow_hosts: names by which people call the rendered server from outside the cluster.
        redis: ``host:port`` of a Redis that exists; when left out, one is rendered. It takes the place of an
            online store in a file; a ``feature_store.yaml`` that names a server keeps it.
        redis_image: of the rendered Redis.
        database: ``host:port`` of a PostgreSQL that exists, with the databases ``feast`` and ``mlflow``; when
            left out, one is rendered. It takes the place of a registry in a file.
        database_image: of the rendered PostgreSQL.
        login_secret: the Secret with the login for MLflow: ``user``, ``password``. No file of a project holds
            its values.
        stores_secret: the Secret with the logins of the stores: ``database-user``, ``database-password``,
            ``redis-password``; under ``redis`` and ``sql``, the blocks of ``feature_store.yaml`` as Feast's
            operator reads them.
        replicas: of the model server, at least.
        most_replicas: of the model server; more than ``replicas`` lets Kubernetes add some under load.
        run_seconds: how long a run of a pipeline may take, waiting included; Kubeflow ends it then.
        step: resources of a pipeline step, a trial, or a training worker.
        server: resources of the model server.
        mlflow: resources of MLflow's server.
        store: resources of Redis and of PostgreSQL.
    """

    namespace: KubernetesName = "ml-lifecycle"
    image: str = IMAGE
    training_image: str = ""
    claim: KubernetesName = "ml-lifecycle"
    volume: Annotated[str, Field(pattern=r"^/[\w./-]*\w$")] = "/ml-lifecycle"
    storage: Quantity = "10Gi"
    access: Literal["ReadWriteMany", "ReadWriteOnce"] = "ReadWriteMany"
    clock: datetime | None = None
    mlflow_uri: Annotated[str, Field(pattern=r"^(https?://\S+)?$")] = ""
    pipelines_uri: str = ""
    mlflow_hosts: tuple[Annotated[str, Field(pattern=r"^[\w.-]+$")], ...] = ()
    redis: Address = ""
    redis_image: str = "docker.io/library/redis:7.4.2"
    database: Address = ""
    database_image: str = "docker.io/library/postgres:17.5"
    login_secret: KubernetesName = "mlflow-login"
    stores_secret: KubernetesName = "feature-stores"
    replicas: PositiveInt = 1
    most_replicas: PositiveInt = 1
    run_seconds: Annotated[int, Field(gt=0, lt=2**31)] = 7200
    step: Resources = Resources(cpu="250m", memory="1Gi", cpu_limit="1", memory_limit="2Gi")
    server: Resources = Resources(cpu="250m", memory="1Gi", cpu_limit="1", memory_limit="2Gi")
    mlflow: Resources = Resources(cpu="250m", memory="1Gi", cpu_limit="1", memory_limit="2Gi")
    store: Resources = Resources(cpu="100m", memory="256Mi", cpu_limit="1", memory_limit="1Gi")

    @field_validator("clock")
    @classmethod
    def _in_utc(cls, clock: datetime | None) -> datetime | None:
        return clock if clock is None or clock.tzinfo else clock.replace(tzinfo=UTC)

    @property
    def tracking_uri(self) -> str:
        """MLflow's address. The full name: a proxy's usual exceptions know its end, and not a bare name."""
        return self.mlflow_uri or f"http://{self.service('mlflow')}:5000"

    @property
    def redis_address(self) -> str:
        """``host:port`` of Redis."""
        return self.redis or f"{self.service('redis')}:6379"

    @property
    def database_address(self) -> str:
        """``host:port`` of PostgreSQL."""
        return self.database or f"{self.service('postgres')}:5432"

    def service(self, name: str) -> str:
        """The full name of a Service in the namespace."""
        return f"{name}.{self.namespace}.svc.cluster.local"

    @property
    def image_with_torch(self) -> str:
        """``training_image``; when that is left out, the image that ``make image EXTRA=distributed`` builds.

        Raises:
            SettingsError: ``image`` is pinned by its digest, from which no second name follows.
        """
        if self.training_image:
            return self.training_image
        if "@" in self.image:
            raise SettingsError(
                "cluster.training_image: not set, and cluster.image is pinned by its digest. "
                f'Write a line such as `training_image = "..."` below [cluster] into {FILE}.'
            )
        return f"{self.image}-{DISTRIBUTED}"

    def on_volume(self, path: str | Path, home: Path | None = None) -> str:
        """Where a file of the project lies for a step on the cluster.

        Args:
            path: relative to the project's folder, or below ``home``.
            home: the folder whose copy the volume holds.

        Raises:
            ValueError: the file is not below ``home``.
        """
        inner = Path(path).relative_to(home) if home else Path(path)
        if inner.is_absolute():
            raise ValueError(f"{inner} is no path inside the project, so the volume does not hold it.")
        return str(PurePosixPath(self.volume) / inner.as_posix())


class Settings(_Table):
    """One project.

    Attributes:
        feature_repo: folder of ``feature_store.yaml``.
        feature_service: name of the features to train on.
        labels: parquet file with the join keys, ``event_timestamp``, and the label.
        label: the column to predict.
        reference: saved dataset whose expectation suite the training data must meet.
        model: name in MLflow's model registry.
        alias: of the version that serves.
        pipeline: a compiled training pipeline to retrain with; when left out, that of this package.
        training: see ``Training``.
        retraining: see ``Retraining``.
        materialization: see ``Materialization``.
        serving: see ``Serving``.
        cluster: see ``Cluster``.
        folder: of the file that was read; relative paths begin there. Not a setting.
    """

    feature_repo: str = "feature_repo"
    feature_service: str = ""
    labels: str = ""
    label: str = ""
    reference: str = ""
    model: str = ""
    alias: str = "production"
    pipeline: str = ""
    training: Training = Training()
    retraining: Retraining = Retraining()
    materialization: Materialization = Materialization()
    serving: Serving = Serving()
    cluster: Cluster = Cluster()
    folder: Path = Field(default=Path(), exclude=True)

    @classmethod
    def load(cls, file: Path | None = None, **changes: Any) -> Settings:
        """The settings of a project.

        Args:
            file: ``lifecycle.toml`` or ``pyproject.toml``; when left out, the first of them in the working
                directory or above it that has settings. Where there is none, every setting has its default.
            changes: as ``replace`` takes them; they win over the file.

        Raises:
            SettingsError: the file cannot be read, or a setting is unknown or of another form.
        """
        found = file or _nearest(Path.cwd())
        if found is None:
            return cls(folder=Path.cwd()).replace(**changes)
        try:
            tables = _tables(found)
        except OSError as error:
            raise SettingsError(f"{found} cannot be read: {error.strerror}.") from None
        except tomllib.TOMLDecodeError as error:
            raise SettingsError(f"{found} is no TOML: {error}.") from None
        if tables is None:
            raise SettingsError(f"{found} has no table [tool.lifecycle].")
        return cls._of(tables, found.resolve().parent, str(found)).replace(**changes)

    @classmethod
    def from_json(cls, text: str, **changes: Any) -> Settings:
        """The settings of a project, from a text that ``model_dump_json`` gave.

        Args:
            text: with absolute paths; relative ones begin in the working directory.
            changes: as ``load`` takes them.

        Raises:
            SettingsError: as ``load``.
        """
        try:
            tables = json.loads(text)
        except ValueError as error:
            raise SettingsError(f"the settings are no JSON: {error}.") from None
        return cls._of(tables, Path.cwd(), "the settings").replace(**changes)

    @classmethod
    def _of(cls, tables: dict[str, Any], folder: Path, source: str) -> Settings:
        if "folder" in tables:
            raise SettingsError(f"{source}: folder is no setting.")
        try:
            return cls.model_validate({**tables, "folder": folder})
        except ValidationError as error:
            raise SettingsError(f"{source}: {_in_words(error)}") from None

    def require(self, *names: str) -> Settings:
        """The same settings, if none of those that a command needs is empty.

        Args:
            names: of settings outside the tables.

        Raises:
            SettingsError: as above; the message names each.
        """
        empty = [name for name in names if not getattr(self, name)]
        if empty:
            raise SettingsError(
                f'{", ".join(empty)}: not set. Write a line such as `{empty[0]} = "..."` into {FILE}.'
            )
        return self

    def path(self, name: str) -> Path:
        """A path of the project on this machine.

        Args:
            name: relative to the folder of the settings, or absolute.
        """
        return self.folder / name

    def replace(self, **changes: Any) -> Settings:
        """The settings with some of them changed, and checked again.

        Args:
            changes: settings by name; those of a table as a dictionary of what changes in it.

        Raises:
            SettingsError: as ``load``.
        """
        tables = {**self.model_dump(), "folder": self.folder}
        for name, value in changes.items():
            tables[name] = {**tables[name], **value} if isinstance(value, dict) else value
        try:
            return type(self).model_validate(tables)
        except ValidationError as error:
            raise SettingsError(_in_words(error)) from None


def _nearest(folder: Path) -> Path | None:
    for place in (folder, *folder.parents):
        for name in (FILE, "pyproject.toml"):
            if (place / name).is_file() and _tables(place / name) is not None:
                return place / name
    return None


def _tables(file: Path) -> dict[str, Any] | None:
    with file.open("rb") as opened:
        tables = tomllib.load(opened)
    return tables.get("tool", {}).get("lifecycle") if file.name == "pyproject.toml" else tables


def _in_words(error: ValidationError) -> str:
    said = []
    for found in error.errors(include_url=False):
        name = ".".join(str(part) for part in found["loc"])
        match found["type"]:
            case "extra_forbidden":
                said.append(f"{name} is no setting")
            case "value_error":
                said.append(f"{name} is {found['input']!r:.60}: {found['ctx']['error']}")
            case _:
                said.append(f"{name} is {found['input']!r:.60}: {found['msg'][0].lower()}{found['msg'][1:]}")
    return f"{'; '.join(said)}."

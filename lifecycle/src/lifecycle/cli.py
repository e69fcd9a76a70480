"""The command line, ``lifecycle``: what a person, a schedule, and a container call.

Each command reads the project's settings (``lifecycle.settings``), and imports what it needs when called.
"""

from __future__ import annotations

import atexit
import gc
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lifecycle.settings import FILE, Settings, SettingsError

if TYPE_CHECKING:
    import kfp
    from kfp_server_api import ApiException

COMPILED = "cluster/training_pipeline.yaml"
"""Where `lifecycle compile` writes, when no setting names another file."""


_EXTRAS = {
    "great_expectations": "validation",
    "kfp": "pipelines",
    "kfp_server_api": "pipelines",
    "kserve": "serving",
    "kubeflow": "kubeflow",
    "kubernetes": "kubeflow",
    "psycopg": "cluster",
}
"""What brings a module that a command needs, by module."""


class _Commands(click.Group):
    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except ModuleNotFoundError as error:
            name = (error.name or "").partition(".")[0]
            if name not in _EXTRAS:
                raise
            raise click.ClickException(
                f"{name} is not installed, and this command needs it: "
                f'pip install "ml-lifecycle[{_EXTRAS[name]}]"'
            ) from None


class _Moment(click.ParamType):
    name = "moment"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> datetime | object:
        if isinstance(value, datetime):
            return value
        try:
            moment = datetime.fromisoformat(str(value))
        except ValueError:
            self.fail(f"{value!r} is no time; write it as 2030-03-22 or 2030-03-22T06:00", param, ctx)
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--settings",
    "source",
    help=f"{FILE} or pyproject.toml, or the settings themselves as JSON; the nearest file when left out.",
)
@click.version_option(package_name="ml-lifecycle")
@click.pass_context
def main(context: click.Context, source: str | None) -> None:
    """Feast, MLflow, and Kubeflow as one ML lifecycle."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    # An interpreter that ends looks for garbage several times. The tools leave half a million objects: over a
    # second, for memory that the system takes back anyway.
    atexit.register(gc.freeze)
    context.obj = source


def _settings(context: click.Context, *needed: str, **changes: object) -> Settings:
    """The project's settings with what options say in their place."""
    given = {name: value for name, value in changes.items() if value not in (None, {})}
    source = context.obj
    try:
        if source and source.startswith("{"):
            return Settings.from_json(source, **given).require(*needed)
        return Settings.load(Path(source) if source else None, **given).require(*needed)
    except SettingsError as error:
        raise click.ClickException(str(error)) from None


def _table(**changes: object) -> dict[str, object]:
    return {name: value for name, value in changes.items() if value is not None}


@main.command()
@click.option("--feature-repo", help="Folder of feature_store.yaml.")
@click.option("--model", help="Name in the MLflow registry.")
@click.option("--alias", help="Of the version to serve.")
@click.option("--host", default="127.0.0.1", show_default=True, help="0.0.0.0 in a container.")
@click.option("--hosts", multiple=True, help="A name by which callers may call it; '*' in a container.")
@click.option("--port", type=int)
@click.option("--now", type=float, help="Clock for the age of features, seconds since 1970.")
@click.pass_context
def serve(
    context: click.Context,
    feature_repo: str | None,
    model: str | None,
    alias: str | None,
    host: str,
    hosts: tuple[str, ...],
    port: int | None,
    now: float | None,
) -> None:
    """Serve a registered model until the process is ended. An option wins over its setting."""
    from lifecycle.serving import scoring as serving

    changes = {"feature_repo": feature_repo, "model": model, "alias": alias}
    settings = _settings(context, "model", **changes, serving=_table(port=port, hosts=hosts or None))
    serving.serve(settings, host, now)


@main.command()
@click.option("--feature-repo", help="Folder of feature_store.yaml.")
@click.option("--labels", help="Parquet file with the join keys, event_timestamp, and the label.")
@click.option("--pipeline", help="A compiled pipeline; that of the package when left out.")
@click.option("--model", help="Name in the MLflow registry.")
@click.option("--alias", help="Of the champion.")
@click.option("--reference", help="Saved dataset whose rules the data must meet.")
@click.option("--outputs", help="Folder for what the retraining leaves.")
@click.option("--experiment", help="Of MLflow.")
@click.option("--threshold", type=float, help="Of the metric, which a challenger must reach in any case.")
@click.option("--begin", type=_Moment(), help="First moment of the window, UTC.")
@click.option("--end", type=_Moment(), help="Last moment of the window, UTC; the newest label if left out.")
@click.option("--hold", is_flag=True, default=None, help="Register a better model, and do not promote it.")
@click.pass_context
def retrain(
    context: click.Context,
    feature_repo: str | None,
    labels: str | None,
    pipeline: str | None,
    model: str | None,
    alias: str | None,
    reference: str | None,
    outputs: str | None,
    experiment: str | None,
    threshold: float | None,
    begin: datetime | None,
    end: datetime | None,
    hold: bool | None,
) -> None:
    """Train on a window of labels, compare, and promote a better model. An option wins over its setting.

    Ends with 0 when it came to a decision, whichever; with 2 when nothing was decided.
    """
    import pandas as pd

    from lifecycle.training import retrain as retraining

    settings = _settings(
        context,
        "labels",
        "model",
        "reference",
        feature_repo=feature_repo,
        labels=labels,
        pipeline=pipeline,
        model=model,
        alias=alias,
        reference=reference,
        training=_table(threshold=threshold),
        retraining=_table(outputs=outputs, experiment=experiment, hold=hold),
    )
    try:
        outcome = retraining.retrain(settings, *(moment and pd.Timestamp(moment) for moment in (begin, end)))
    except retraining.NotRetrained as reason:
        click.echo(f"nothing was promoted: {reason}")
        context.exit(2)
    click.echo(outcome.said)


@main.command()
@click.option("--due", is_flag=True, help="Only when the online store is empty or the last time is long ago.")
@click.option("--now", type=float, help="The moment up to which features are wanted, seconds since 1970.")
@click.pass_context
def materialize(context: click.Context, due: bool, now: float | None) -> None:
    """Bring the newest features into the online store."""
    from feast import FeatureStore

    from lifecycle.features import materializing

    settings = _settings(context)
    store = FeatureStore(repo_path=str(settings.path(settings.feature_repo)))
    moment = datetime.now(UTC) if now is None else datetime.fromtimestamp(now, UTC)
    reason = materializing.why_due(store, settings.materialization, moment) if due else "asked for"
    if not reason:
        click.echo("nothing is due")
        return
    click.echo(f"materializing up to {moment:%Y-%m-%d %H:%M} UTC: {reason}")
    materializing.materialize(store, settings.materialization, moment)


@main.command("compile")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    help=f"The setting `pipeline` when left out, or else {COMPILED}.",
)
@click.pass_context
def compile_pipeline(context: click.Context, output: Path | None) -> None:
    """Compile the training pipeline."""
    from kfp import compiler

    from lifecycle.training.pipeline import training_pipeline

    settings = _settings(context)
    target = output or settings.path(settings.pipeline or COMPILED)
    target.parent.mkdir(parents=True, exist_ok=True)
    compiler.Compiler().compile(training_pipeline(settings.cluster), str(target))
    click.echo(f"compiled {target}")


@main.command()
@click.option("--namespace", help="Of Kubernetes.")
@click.option("--image", help="Of pipeline steps, trials, and servers.")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path), default="cluster/manifests")
@click.pass_context
def render(context: click.Context, namespace: str | None, image: str | None, folder: Path) -> None:
    """Write what a cluster gets below FOLDER. An option wins over its setting."""
    import yaml

    from lifecycle.cluster import manifests

    settings = _settings(context, "model", cluster=_table(namespace=namespace, image=image))
    file = settings.path(settings.feature_repo) / "feature_store.yaml"
    try:
        files = manifests.render(settings, yaml.safe_load(file.read_text()))
    except SettingsError as error:
        raise click.ClickException(str(error)) from None
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise click.ClickException(f"{file}: {error}") from None
    manifests.write(folder, files)
    click.echo(f"{len(files)} files in {folder}, for the namespace {settings.cluster.namespace}")


@main.command()
@click.option("--image", help="Of the step.")
@click.option("--host", help="Address of Kubeflow Pipelines.")
@click.option("--print", "only_print", is_flag=True, help="Print the object as JSON, and ask no server.")
@click.pass_context
def schedule(context: click.Context, image: str | None, host: str | None, only_print: bool) -> None:
    """Let Kubeflow Pipelines retrain by the rule `retraining.cron`, in UTC. An option wins over its setting.

    Call it again after a change of the settings: the new recurring run takes the old one's place.
    """
    import json

    from kfp_server_api import ApiException
    from urllib3.exceptions import HTTPError

    from lifecycle.cluster import schedule as schedules

    changes = _table(image=image, pipelines_uri=host)
    settings = _settings(context, "labels", "model", "reference", cluster=changes)
    address = settings.cluster.pipelines_uri
    try:
        if only_print:
            # Sorted: protobuf gives a message's fields in another order each time.
            click.echo(json.dumps(schedules.recurring_run(settings), indent=2, sort_keys=True))
            return
        click.echo(schedules.schedule(_pipelines(settings), settings))
    except ApiException as error:
        raise click.ClickException(f"Kubeflow Pipelines refused: {_reason(error)}") from None
    except (HTTPError, TimeoutError) as error:
        where = address or "the address that its client found"
        raise click.ClickException(f"Kubeflow Pipelines does not answer at {where}: {error}") from None
    except ValueError as error:
        raise click.ClickException(str(error)) from None


def _pipelines(settings: Settings) -> kfp.Client:
    import warnings

    import kfp

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # that the client needs a server of version 2
        return kfp.Client(host=settings.cluster.pipelines_uri or None)


def _reason(error: ApiException) -> str:
    """The server's own words, which lie in its answer's body."""
    import json

    try:
        return str(json.loads(error.body)["message"])
    except (TypeError, ValueError, KeyError):
        return f"{error.status} {error.reason}"


@main.command()
@click.option("--namespace", help="Of Kubernetes.")
@click.option("--context", "kube_context", help="Of the kubeconfig; its current one when left out.")
@click.option("--host", help="Address of Kubeflow Pipelines.")
@click.option("--patience", type=float, default=3600, show_default=True, help="Seconds to wait in all.")
@click.option(
    "--grace",
    type=float,
    default=40,
    show_default=True,
    help="Seconds for which a pod may be unable to start.",
)
@click.argument("objects", nargs=-1, required=True)
@click.pass_context
def wait(
    context: click.Context,
    namespace: str | None,
    kube_context: str | None,
    host: str | None,
    patience: float,
    grace: float,
    objects: tuple[str, ...],
) -> None:
    """Wait for OBJECTS on a cluster, and end within a minute on what cannot start.

    Each is a name as `kubectl ... -o name` prints it, such as job.batch/apply-features, or run/ID for a run
    of Kubeflow Pipelines. The command prints changes, warnings, and logs. A failure ends it with 1, the pod,
    the reason, and the pod's last lines.
    """
    from lifecycle.cluster import waiting

    settings = _settings(context, cluster=_table(namespace=namespace, pipelines_uri=host))
    options: dict[str, Any] = {"patience": patience, "grace": grace, "say": click.echo}
    kinds = {kind.lower(): kind for kind in waiting.KINDS}
    named = [(one.partition("/")[0].partition(".")[0], one.partition("/")[2]) for one in objects]
    for one, (kind, name) in zip(objects, named, strict=True):
        if not name or kind not in {*kinds, "run"}:
            known = ", ".join(f"{kind}/NAME" for kind in [*kinds, "run"])
            raise click.BadParameter(f"{one!r} is none of {known}.", param_hint="OBJECTS")
    from kubernetes import config

    try:
        if kube_context:
            config.load_kube_config(context=kube_context)
        else:
            config.load_config()
        for kind, name in named:
            if kind == "run":
                waiting.for_run(_pipelines(settings), name, settings.cluster.namespace, **options)
            else:
                waiting.for_object(kinds[kind], name, settings.cluster.namespace, **options)
    except config.ConfigException as error:
        raise click.ClickException(f"no cluster: {error}") from None
    except (waiting.ClusterError, TimeoutError) as error:
        raise click.ClickException(str(error)) from None


@main.command()
@click.pass_context
def check(context: click.Context) -> None:
    """Say whether settings, definitions, labels, and the model in production fit each other."""
    from lifecycle.check import findings

    said = findings(_settings(context, "feature_service", "labels", "label", "reference", "model"))
    for name, problem in said.items():
        click.echo(f"{'ok ' if problem is None else 'NO '} {name}{'' if problem is None else f': {problem}'}")
    context.exit(int(any(problem is not None for problem in said.values())))

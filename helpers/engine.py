"""A distributed engine for the offline store: a Spark cluster on loopback, with the course's definitions."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from types import TracebackType

import yaml

from helpers import extras
from helpers.services import HOST, Service, free_port
from helpers.workspace import WorkshopError

GROUP = "engine"
WORKER_MEMORY = "1g"
# Of six processes that live a minute on two cores, Java's second compiler took half of the processor's time.
_SHORT_LIVED = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"
# What Spark's own start script opens to Spark in Java 17 and newer.
_OPENED = (
    *("java.lang", "java.lang.invoke", "java.lang.reflect", "java.io", "java.net", "java.nio", "java.util"),
    *("java.util.concurrent", "java.util.concurrent.atomic", "sun.nio.ch", "sun.nio.cs"),
    *("sun.security.action", "sun.util.calendar"),
)


def lacking() -> str:
    """What this machine lacks for the engine, and how to add it; empty when it lacks nothing."""
    if shutil.which("java") is None:
        return (
            "Spark needs a Java of version 17 or newer, and there is none. "
            "On Debian or Ubuntu: sudo apt-get install openjdk-17-jre-headless"
        )
    found = [text for text in map(extras.wrong, extras.requirements(GROUP)) if text]
    return f"{found[0]}. `make {GROUP}` adds it." if found else ""


class SparkCluster:
    """A standalone master and its workers, each a process with one core. Use it as a context manager.

    Args:
        folder: new; for logs and what the workers write. Java and Spark would read `*` or `[` as a pattern.
        workers: how many.

    Raises:
        WorkshopError: something is missing, with what to do; or a process did not get ready.
    """

    def __init__(self, folder: Path, workers: int = 2) -> None:
        if found := lacking():
            raise WorkshopError(f"no distributed engine here: {found}")
        self.folder, self.processes = folder, []
        folder.mkdir(parents=True)
        spec = importlib.util.find_spec("pyspark")
        assert spec and spec.origin
        # Spark's scripts and Java's class path don't quote a path, and a clone's path may need it.
        (folder / "spark").symlink_to(Path(spec.origin).parent)
        core = next((folder / "spark" / "jars").glob("spark-core_*.jar")).name
        self.environment = {
            **os.environ,
            "SPARK_HOME": str(folder / "spark"),
            # A worker asks for it before it starts an executor.
            "SPARK_SCALA_VERSION": core.removeprefix("spark-core_").partition("-")[0],
            "SPARK_LOCAL_IP": HOST,
            "SPARK_WORKER_DIR": str(folder / "work"),
            "SPARK_LOCAL_DIRS": str(folder / "local"),
            "PYSPARK_PYTHON": sys.executable,
            "TZ": "UTC",
            "JDK_JAVA_OPTIONS": f"{os.environ.get('JDK_JAVA_OPTIONS', '')} {_SHORT_LIVED}".strip(),
        }
        port = free_port()
        self.address = f"spark://{HOST}:{port}"
        master = ["master.Master", "--host", HOST, "--port", str(port), "--webui-port", "{port}"]
        try:
            self.processes.append(self._start("master", master))
            worker = ["worker.Worker", "--host", HOST, "--cores", "1", "--memory", WORKER_MEMORY]
            for number in range(workers):
                options = ["--webui-port", "{port}", self.address]
                self.processes.append(self._start(f"worker {number + 1}", [*worker, *options]))
            self._wait_for(workers)
        except BaseException:
            self.stop()
            raise

    def _start(self, name: str, arguments: list[str]) -> Service:
        opened = [f"--add-opens=java.base/{package}=ALL-UNNAMED" for package in _OPENED]
        command = ["java", "-cp", f"{self.folder}/spark/jars/*", "-Xmx512m", *opened]
        settings = [
            f"{key}={value}" for key, value in self.environment.items() if key.startswith(("SPARK_", "JDK_"))
        ]
        log = self.folder / f"{name.replace(' ', '_')}.log"
        java = [*command, f"org.apache.spark.deploy.{arguments[0]}", *arguments[1:]]
        return Service(f"Spark's {name}", ["env", *settings, *java], health="/json/", log=log)

    def _wait_for(self, workers: int) -> None:
        end = time.monotonic() + 60
        while self.alive() < workers:
            if time.monotonic() > end:
                raise WorkshopError(
                    f"{self.alive()} of {workers} Spark workers found their master. The end of its log:\n"
                    f"{self.processes[0].tail()}"
                )
            time.sleep(0.2)

    def alive(self) -> int:
        """How many workers the master knows as alive."""
        with urllib.request.urlopen(f"{self.processes[0].url}/json/", timeout=5) as answer:
            return json.load(answer)["aliveworkers"]

    def stop(self) -> None:
        """End workers and master."""
        for process in reversed(self.processes):
            process.stop()

    def __enter__(self) -> SparkCluster:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def offline_store(address: str) -> dict[str, object]:
    """The block of ``feature_store.yaml`` that names a Spark master, such as ``spark://127.0.0.1:7077``."""
    settings = {
        "spark.master": address,
        "spark.sql.session.timeZone": "UTC",  # Feast's query writes times as text
        "spark.driver.host": HOST,
        "spark.driver.bindAddress": HOST,
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.executor.memory": WORKER_MEMORY,
        "spark.sql.shuffle.partitions": "4",  # Spark's own 200 are for a larger cluster
        "spark.sql.execution.arrow.pyspark.enabled": "true",
    }
    return {"type": "spark", "spark_conf": settings}


def on_spark(home: Path, cluster: SparkCluster) -> Path:
    """The definitions of a home on the engine: a copy of its feature repository, over the home's own data.

    Two files differ. ``feature_store.yaml`` names the engine, and ``sources.py`` makes a ``SparkSource`` of
    each ``FileSource``: Feast's Spark store takes no other. The copy is below the cluster's folder.
    """
    copy = cluster.folder / "feature_repo"
    shutil.copytree(home / "feature_repo", copy, ignore=shutil.ignore_patterns("__pycache__"))
    (cluster.folder / "data").symlink_to(home / "data")  # Spark reads a path with brackets as a pattern
    sources = (copy / "sources.py").read_text()
    sources = sources.replace("import Field, FileSource, RequestSource", "import Field, RequestSource")
    place = "feast.infra.offline_stores.contrib.spark_offline_store.spark_source"
    sources = sources.replace("from feast.types", f"from {place} import SparkSource\nfrom feast.types")
    sources = sources.replace("FileSource(\n", 'SparkSource(\n    file_format="parquet",\n')
    sources = sources.replace(".resolve()", ".absolute()")
    (copy / "sources.py").write_text(sources)
    settings = yaml.safe_load((copy / "feature_store.yaml").read_text())
    settings.pop("mlflow", None)
    settings |= {
        "registry": str(cluster.folder / "registry.db"),
        "offline_store": offline_store(cluster.address),
    }
    settings["online_store"] = {"type": "sqlite", "path": str(cluster.folder / "online_store.db")}
    (copy / "feature_store.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    return copy


def history(cluster: SparkCluster, feature_repo: Path, service: str, entities: Path, answer: Path) -> None:
    """Have a process of its own apply a feature repository and retrieve a feature service on the engine.

    Args:
        cluster: to work on.
        feature_repo: see ``on_spark``.
        service: name of the feature service.
        entities: parquet file with the entity rows.
        answer: parquet file for the answer.

    Raises:
        WorkshopError: it failed; the message carries the end of what it said.
    """
    command: list[str | Path] = [sys.executable, "-P", "-W", "ignore", "-m", "helpers.engine"]
    command += [feature_repo, service, entities, answer]
    done = subprocess.run(
        command, capture_output=True, text=True, env=cluster.environment, cwd=cluster.folder
    )
    if done.returncode:
        raise WorkshopError(f"the retrieval on Spark failed:\n{done.stderr[-1500:]}")


def main(feature_repo: str, service: str, entities: str, answer: str) -> None:
    """The process of ``history``."""
    import pandas as pd
    from feast import FeatureStore

    from helpers import registry
    from lifecycle.features.retrieval import historical_features

    store = FeatureStore(repo_path=feature_repo)
    registry.apply(store, Path(feature_repo))
    rows = historical_features(store, pd.read_parquet(entities), store.get_feature_service(service))
    rows.to_parquet(answer)


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Render what a cluster gets for this course: ``python cluster/render.py [FOLDER]``, by default cluster/.

It writes ``manifests/``, ``monitoring/prometheus.yaml``, ``recurring_run.json`` and
``training_pipeline.yaml``. The settings are those of ``lifecycle.toml``; the sweep and the distributed
training are the course's. ``--namespace``, ``--image``, ``--training-image`` and ``--access`` win over the
settings.
"""

import argparse
import json
from pathlib import Path

import yaml
from kfp import compiler
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from lifecycle.cluster import katib
from lifecycle.cluster.manifests import render, scrape, write
from lifecycle.cluster.schedule import recurring_run
from lifecycle.cluster.trainer import train_job
from lifecycle.settings import FILE, Settings
from lifecycle.training.pipeline import training_pipeline

HERE = Path(__file__).resolve().parent
SETTINGS = Settings.load(HERE.parent / FILE)
SPACE = {
    "C": FloatDistribution(1e-4, 10.0, log=True),
    "degree": IntDistribution(1, 3),
    "weights": CategoricalDistribution(["equal", "balanced"]),
}


def main(folder: Path, settings: Settings = SETTINGS) -> None:
    """Write the files below a folder."""
    cluster = settings.cluster
    inputs = {
        "feature_repo": cluster.on_volume(settings.feature_repo),
        "labels": cluster.on_volume(settings.labels),
        "feature_service": settings.feature_service,
        "label": settings.label,
    }
    sweep = katib.experiment(name="driver-sweep", space=SPACE, inputs=inputs, trials=20, cluster=cluster)
    training = train_job(
        name="driver-training",
        inputs={
            **inputs,
            "epochs": 200,
            "checkpoint_every": 20,
            "folder": cluster.on_volume("jobs"),
            "experiment": "distributed_training",
        },
        workers=2,
        cluster=cluster,
    )
    feast = yaml.safe_load((HERE.parent / settings.feature_repo / "feature_store.yaml").read_text())
    write(folder / "manifests", render(settings, feast, sweep, [training]))
    write(folder / "monitoring", {"prometheus.yaml": [scrape(settings)]})
    recurring = json.dumps(recurring_run(settings), indent=2, sort_keys=True)
    (folder / "recurring_run.json").write_text(f"{recurring}\n")
    compiler.Compiler().compile(training_pipeline(cluster), str(folder / "training_pipeline.yaml"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=HERE)
    for name in ("namespace", "image", "training_image", "access"):
        parser.add_argument(f"--{name.replace('_', '-')}", default=getattr(SETTINGS.cluster, name))
    given = vars(parser.parse_args())
    main(given.pop("folder"), SETTINGS.replace(cluster=given))

"""Render what a cluster gets for this course: ``python cluster/render.py [FOLDER]``, by default cluster/.

It writes ``manifests/``, ``recurring_run.yaml`` and ``training_pipeline.yaml``. The settings are those of
``lifecycle.toml``; the sweep and the distributed training are the course's.
"""

import sys
from pathlib import Path

import yaml
from kfp import compiler
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from lifecycle.cluster import katib
from lifecycle.cluster.manifests import render, train_job, write
from lifecycle.cluster.schedule import recurring_run
from lifecycle.settings import FILE, Settings
from lifecycle.training.pipeline import training_pipeline

HERE = Path(__file__).resolve().parent
SETTINGS = Settings.load(HERE.parent / FILE)
CLUSTER = SETTINGS.cluster
INPUTS = {
    "feature_repo": CLUSTER.on_volume(SETTINGS.feature_repo),
    "labels": CLUSTER.on_volume(SETTINGS.labels),
    "feature_service": SETTINGS.feature_service,
    "label": SETTINGS.label,
}
SWEEP = katib.experiment(
    name="driver-sweep",
    space={
        "C": FloatDistribution(1e-4, 10.0, log=True),
        "degree": IntDistribution(1, 3),
        "weights": CategoricalDistribution(["equal", "balanced"]),
    },
    inputs=INPUTS,
    trials=20,
    cluster=CLUSTER,
)
TRAINING = train_job(
    name="driver-training",
    inputs={
        **INPUTS,
        "epochs": 200,
        "checkpoint_every": 20,
        "folder": CLUSTER.on_volume("jobs/driver-training"),
        "experiment": "distributed_training",
        "run_name": "driver-training",
    },
    workers=2,
    cluster=CLUSTER,
)


def main(folder: Path) -> None:
    """Write the files below a folder."""
    feast = yaml.safe_load((HERE.parent / SETTINGS.feature_repo / "feature_store.yaml").read_text())
    write(folder / "manifests", render(SETTINGS, feast, SWEEP, [TRAINING]))
    (folder / "recurring_run.yaml").write_text(yaml.safe_dump(recurring_run(SETTINGS)))
    compiler.Compiler().compile(training_pipeline(CLUSTER), str(folder / "training_pipeline.yaml"))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if sys.argv[1:] else HERE)

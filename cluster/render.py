"""Render what a cluster gets for this course: ``python cluster/render.py [FOLDER]``, by default cluster/.

It writes ``manifests/`` and ``recurring_run.yaml``. The values below are the course's; another project has
its own. ``LIFECYCLE_IMAGE`` and ``LIFECYCLE_NAMESPACE`` name another image and another namespace.
"""

import sys
from pathlib import Path

import yaml
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from lifecycle import katib
from lifecycle.cluster import VOLUME
from lifecycle.manifests import Project, render, train_job, write
from lifecycle.schedule import recurring_run

HERE = Path(__file__).resolve().parent
INPUTS = {
    "feature_repo": f"{VOLUME}/feature_repo",
    "labels": f"{VOLUME}/data/driver_labels.parquet",
    "feature_service": "rates_and_rating",
    "label": "label",
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
)
TRAINING = train_job(
    name="driver-training",
    inputs={
        **INPUTS,
        "epochs": 200,
        "checkpoint_every": 20,
        "folder": f"{VOLUME}/jobs/driver-training",
        "experiment": "distributed_training",
        "run_name": "driver-training",
    },
    workers=2,
)
PROJECT = Project(
    settings=yaml.safe_load((HERE.parent / "feature_repo" / "feature_store.yaml").read_text()),
    model="driver_conversion",
    alias="production",
    experiment=SWEEP,
    train_job=(TRAINING,),
)

RETRAINING = {
    "pipeline": f"{VOLUME}/training_pipeline.yaml",
    "feature-repo": f"{VOLUME}/feature_repo",
    "labels": f"{VOLUME}/data/driver_labels.parquet",
    "model": "driver_conversion",
    "alias": "production",
    "reference": "driver_reference",
    "outputs": f"{VOLUME}/retraining",
}
WEEKLY = recurring_run(
    name="retrain-weekly",
    cron="0 0 6 * * 1",  # seconds first: each Monday at six
    arguments=[word for name, value in RETRAINING.items() for word in (f"--{name}", value)],
)


def main(folder: Path) -> None:
    """Write the files below a folder."""
    write(folder / "manifests", render(PROJECT))
    (folder / "recurring_run.yaml").write_text(yaml.safe_dump(WEEKLY))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if sys.argv[1:] else HERE)

"""What MLflow adds to a sweep: the same trials without it, with a run each, and with a model each. In turns, in one process.

python -m benchmarks.sweep --home DIR --trials 20 --rounds 5
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

import numpy as np

from helpers.workspace import Workspace, configure, quiet

REQUIREMENTS = ["scikit-learn", "skops"]
CONTESTANTS = ["optuna", "optuna_mlflow", "optuna_mlflow_models"]


def sweep(contestant: str, trials: int, X: np.ndarray, y: np.ndarray, folder: Path) -> float:
    """One study in SQLite as in notebook 05; gives the best value."""
    import mlflow
    import optuna
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import TimeSeriesSplit, cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    space = {"C": optuna.distributions.FloatDistribution(1e-4, 10.0, log=True)}
    sampler = optuna.samplers.TPESampler(seed=0)
    study = optuna.create_study(
        direction="maximize", sampler=sampler, storage=f"sqlite:///{folder / 'optuna.db'}"
    )

    def model_of(trial: optuna.Trial):
        return make_pipeline(StandardScaler(), LogisticRegression(C=trial.params["C"]))

    def score(trial: optuna.Trial) -> float:
        return cross_val_score(model_of(trial), X, y, cv=TimeSeriesSplit(5), scoring="roc_auc").mean()

    def run(trial: optuna.Trial) -> float:
        with mlflow.start_run(run_name=f"trial {trial.number:03d}", nested=True) as started:
            trial.set_user_attr("mlflow_run_id", started.info.run_id)
            mlflow.log_params(trial.params)
            auc = score(trial)
            mlflow.log_metric("auc", auc)
            if contestant == "optuna_mlflow_models":
                mlflow.sklearn.log_model(
                    model_of(trial).fit(X, y), name="model", pip_requirements=REQUIREMENTS
                )
        return auc

    if contestant == "optuna":
        for _ in range(trials):
            trial = study.ask(space)
            study.tell(trial, score(trial))
    else:
        with mlflow.start_run(run_name="sweep"):
            for _ in range(trials):
                trial = study.ask(space)
                study.tell(trial, run(trial))
    return study.best_value


def main(argv: list[str] | None = None) -> None:
    """The command line; prints one list of measurements."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sweep", description=__doc__)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args(argv)
    workspace = Workspace(arguments.home.resolve())
    configure(workspace)
    import mlflow
    import optuna

    quiet()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    mlflow.set_experiment("sweep")
    rng = np.random.default_rng(0)
    X = rng.normal(size=(3000, 3))
    y = (X[:, 0] + rng.normal(size=3000) > 0).astype(int)
    for contestant in CONTESTANTS:  # the first of each opens databases and imports
        sweep(contestant, 2, X, y, workspace.path)
    runs = []
    for number in range(arguments.rounds):
        for contestant in CONTESTANTS[number % 3 :] + CONTESTANTS[: number % 3]:
            load, began, cpu = os.getloadavg()[0], time.perf_counter(), time.process_time()
            best = sweep(contestant, arguments.trials, X, y, workspace.path)
            used = {"seconds": time.perf_counter() - began, "cpu_seconds": time.process_time() - cpu}
            runs.append(
                {
                    "contestant": contestant,
                    "round": number,
                    "trials": arguments.trials,
                    "best": best,
                    "load": load,
                    **used,
                }
            )
    print(json.dumps(runs))


if __name__ == "__main__":
    main()

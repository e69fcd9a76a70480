"""Training in several processes: each retrieves its own share of the rows, and all end with the weights that
one process finds on all of them.

``shipped.train`` is what Kubeflow's Trainer ships: small, and self-contained. It calls ``work``, which every
worker runs. What is trained is the logistic regression of ``lifecycle.models.model.new_model`` with PyTorch:
the same objective, the same scaling, so that the result is stored and served like any other.

PyTorch is imported where it is needed: the rest of this package does without it.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from lifecycle.features.contract import FeatureContract
from lifecycle.features.labels import LabelsRefused, declared_types, in_words, missing_values, usable_rows
from lifecycle.features.retrieval import historical_features
from lifecycle.models.model import new_model, selection_ends
from lifecycle.models.recipe import Recipe
from lifecycle.models.registering import log_model

if TYPE_CHECKING:
    import torch
    from sklearn.pipeline import Pipeline

CHECKPOINT = "checkpoint.pt"
"""The checkpoint's name in a job's folder."""
LOGGED = "logged.json"
"""The file beside it that says which MLflow run the training left, and after which epoch."""
ROW = "row"
"""The column of a shard's file that says which row of the label file a row is, counted from 0."""


class NotTrained(ValueError):
    """Why a distributed training cannot begin or go on; the message says what to do."""


@dataclass(frozen=True)
class Outcome:
    """What a worker ends with.

    Attributes:
        rank: of the worker, from 0.
        workers: their number.
        rows: that this worker retrieved.
        trained_on: rows of this worker that were trained on: those of the selection days that have all
            features.
        began_at: the epoch at which training began: 0, or that of a checkpoint.
        weights: k weights of the scaled features.
        bias: of the regression.
        mean: k means of all workers' training rows together, by which the features are scaled.
        scale: k standard deviations of the same rows.
        losses: mean log loss of all training rows, and the penalty, before each epoch.
    """

    rank: int
    workers: int
    rows: int
    trained_on: int
    began_at: int
    weights: list[float]
    bias: float
    mean: list[float]
    scale: list[float]
    losses: list[float]


def shard(rows: int, rank: int, workers: int) -> range:
    """Return the rows of one worker: every ``workers``-th row, starting with its rank.

    Together, the shards contain each row exactly once.

    Args:
        rows: the number of all rows.
        rank: the worker's rank, from 0.
        workers: the number of workers.

    Raises:
        NotTrained: there are more workers than rows, or no worker has this rank.
    """
    if not 0 <= rank < workers:
        raise NotTrained(f"rank {rank} of {workers} workers: ranks go from 0 to {workers - 1}.")
    if workers > rows:
        raise NotTrained(
            f"{workers} workers for {rows} rows: a worker would have none. Start at most {rows}."
        )
    return range(rank, rows, workers)


def work(
    feature_repo: str,
    labels: str,
    feature_service: str,
    label: str,
    folder: str,
    experiment: str = "",
    run_name: str = "",
    C: float = 1.0,
    epochs: int = 200,
    learning_rate: float = 1.0,
    checkpoint_every: int = 20,
    after_epoch: Callable[[int, int], None] | None = None,
) -> Outcome:
    """What each worker does: retrieve its shard, train with the others, and leave its outcome in ``folder``.

    ``torchrun`` says by ``RANK`` and ``WORLD_SIZE`` who a worker is; without them it is one process on all
    rows. In ``folder``, which all workers share, each leaves ``shard_<rank>.parquet`` and
    ``outcome_<rank>.json``; worker 0 also keeps the checkpoint, and logs to MLflow when all is done. A job
    that finds its checkpoint goes on from there, also with another number of workers. One that finds a
    complete training says so, and logs no second run.

    Args:
        feature_repo: folder of ``feature_store.yaml``.
        labels: parquet file with join keys, request fields, ``event_timestamp`` and the label.
        feature_service: name of the features to train on.
        label: the column to predict, 0 or 1.
        folder: of this job, for what it leaves.
        experiment: of MLflow; empty to log nothing.
        run_name: of the run in it.
        C: inverse strength of the regularization, above 0, as in ``new_model``.
        epochs: number of steps, each over all rows.
        learning_rate: length of a step.
        checkpoint_every: number of epochs from one checkpoint to the next.
        after_epoch: called with rank and epoch when one has ended and its checkpoint is written.

    Raises:
        NotTrained: more workers than rows; a worker without a row to train on; labels other than 0 and 1;
            PyTorch is missing; a checkpoint of another training.
    """
    from feast import FeatureStore

    torch = _torch()
    rank, workers = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    questions = pd.read_parquet(labels)
    # From here on the index is the position in the file.
    questions = questions.reset_index(drop=True)
    store = FeatureStore(repo_path=feature_repo)
    contract = FeatureContract.from_feature_service(store, feature_service, label)
    try:
        questions, dropped = usable_rows(questions, contract, declared_types(store, feature_service))
    except LabelsRefused as error:
        raise NotTrained(str(error)) from None
    mine = questions.iloc[list(shard(len(questions), rank, workers))]

    if rank == 0:
        _forget(place, workers)
    if workers > 1:
        # A rendezvous through a file opens no port to other machines; several nodes meet at the address that
        # torchrun names.
        shared = os.environ.get("LIFECYCLE_RENDEZVOUS")
        meeting = torch.distributed.FileStore(shared, workers) if shared else None
        torch.distributed.init_process_group("gloo", store=meeting, rank=rank, world_size=workers)
    try:
        table = historical_features(store, mine, store.get_feature_service(feature_service))
        table.assign(**{ROW: mine.index}).to_parquet(place / f"shard_{rank}.parquet")
        _say(f"worker {rank} of {workers}: {len(table)} rows retrieved")
        dropped |= missing_values(table[contract.columns])
        if dropped:
            _say(f"worker {rank} of {workers}: left out: {in_words(dropped)}")

        # The cut is that of all rows: each shard on its own would find another.
        later = table.event_timestamp > selection_ends(questions.event_timestamp)
        rows, held_out = table[~later].dropna(), table[later].dropna()
        counts = _together(torch.tensor([len(rows) if r == rank else 0 for r in range(workers)]), workers)
        if 0 in counts:
            raise NotTrained(
                f"worker {counts.tolist().index(0)} of {workers} has no row with all features to train on. "
                "Start fewer workers."
            )
        settings = {"C": C, "learning_rate": learning_rate}
        fingerprint = {"contract": contract.to_dict(), **settings, "rows": _digest(questions)}
        training = Training(rows, contract, settings, int(counts.sum()), rank, workers)
        began_at = training.load(place / CHECKPOINT, fingerprint, epochs)
        _say(f"worker {rank} of {workers}: trains on {len(rows)} rows, from epoch {began_at}")

        for epoch in range(began_at + 1, epochs + 1):
            training.step()
            if rank == 0 and (epoch % checkpoint_every == 0 or epoch == epochs):
                training.save(place / CHECKPOINT, fingerprint, epoch)
            if after_epoch:
                after_epoch(rank, epoch)
        outcome = training.outcome(len(table), began_at)
        _write(place / f"outcome_{rank}.json", json.dumps(asdict(outcome)).encode())
        scored = _gather(_scores(outcome, contract, held_out), rank, workers)
        if rank == 0 and experiment:
            earlier = json.loads((place / LOGGED).read_text()) if (place / LOGGED).exists() else {}
            if began_at == epochs == earlier.get("epoch"):
                _say(
                    f"nothing to do: {place} holds this training, complete, and its MLflow run is "
                    f"{earlier['run_id']}. A new training needs a folder of its own."
                )
                return outcome
            parameters = settings | {"epochs": epochs}
            run_id = _log(outcome, contract, C, parameters, pd.concat(scored), experiment, run_name)
            _write(place / LOGGED, json.dumps({"run_id": run_id, "epoch": epochs}).encode())
        return outcome
    finally:
        if workers > 1:
            torch.distributed.destroy_process_group()


class Training:
    """The model, its optimizer, and the rows of one worker.

    Args:
        rows: of this worker, to train on.
        contract: of the features.
        settings: ``C`` and ``learning_rate``.
        total: number of rows of all workers.
        rank: of this worker.
        workers: their number.
    """

    def __init__(
        self,
        rows: pd.DataFrame,
        contract: FeatureContract,
        settings: dict[str, float],
        total: int,
        rank: int,
        workers: int,
    ) -> None:
        torch = _torch()
        self.rank, self.workers, self.total, self.C = rank, workers, total, settings["C"]
        X = torch.tensor(rows[contract.columns].to_numpy("float64"))
        # The scaling is that of all rows as well.
        self.mean = _together(X.sum(0), workers) / total
        variance = _together(((X - self.mean) ** 2).sum(0), workers) / total
        self.scale = torch.where(variance > 0, variance.sqrt(), 1.0)
        self.X = (X - self.mean) / self.scale
        self.y = torch.tensor(rows[contract.label].to_numpy("float64"))
        self.model = torch.nn.Linear(X.shape[1], 1, dtype=torch.float64)
        torch.nn.init.zeros_(self.model.weight)
        torch.nn.init.zeros_(self.model.bias)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=settings["learning_rate"], momentum=0.9)
        # It adds up the gradients of all workers after each backward pass, and divides by the number of
        # workers.
        self.shared = torch.nn.parallel.DistributedDataParallel(self.model) if workers > 1 else self.model
        self.losses: list[float] = []

    def step(self) -> None:
        """Take one step on scikit-learn's logistic regression objective, divided by C and the row count."""
        torch = _torch()
        self.optimizer.zero_grad()
        loss = torch.nn.functional.binary_cross_entropy_with_logits(
            self.shared(self.X)[:, 0], self.y, reduction="sum"
        )
        penalty = (self.model.weight**2).sum() / (2 * self.C * self.total)
        # Shards differ in size, so the mean of their mean losses would be wrong. Divide this shard's sum by
        # the number of all rows. PyTorch divides gradients by the number of workers, so multiply by it.
        objective = loss * self.workers / self.total + penalty
        objective.backward()
        self.optimizer.step()
        self.losses.append(float(_together(objective.detach().clone(), self.workers)) / self.workers)

    def save(self, path: Path, fingerprint: dict[str, Any], epoch: int) -> None:
        """Write a checkpoint: whole, or not at all."""
        state = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "losses": self.losses,
        }
        partial = path.with_suffix(".partial")
        with partial.open("wb") as file:
            _torch().save({"epoch": epoch, "fingerprint": fingerprint, **state}, file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)

    def load(self, path: Path, fingerprint: dict[str, Any], epochs: int) -> int:
        """Go on from a checkpoint, if there is one; gives its epoch, else 0."""
        torch = _torch()
        epoch = torch.zeros(1)
        if path.exists():
            found = _read(path)
            other = sorted(
                name for name in fingerprint if found["fingerprint"].get(name) != fingerprint[name]
            )
            if other:
                raise NotTrained(
                    f"{path} is the checkpoint of another training: {', '.join(other)} differ. "
                    "Give this job a folder of its own."
                )
            if found["epoch"] > epochs:
                raise NotTrained(
                    f"{path} is of epoch {found['epoch']}, and {epochs} are asked for. "
                    "Give this job a folder of its own."
                )
            self.model.load_state_dict(found["model"])
            self.optimizer.load_state_dict(found["optimizer"])
            self.losses = found["losses"]
            epoch[0] = found["epoch"]
        if float(_together(epoch.clone(), self.workers)) != float(epoch) * self.workers:
            raise NotTrained(
                "the workers do not see one checkpoint: "
                f"{path.parent} must be a folder that all of them share."
            )
        return int(epoch)

    def outcome(self, rows: int, began_at: int) -> Outcome:
        """What this worker ends with, having retrieved ``rows`` rows and begun at an epoch."""
        return Outcome(
            rank=self.rank,
            workers=self.workers,
            rows=rows,
            trained_on=len(self.y),
            began_at=began_at,
            weights=self.model.weight.detach()[0].tolist(),
            bias=float(self.model.bias.detach()),
            mean=self.mean.tolist(),
            scale=self.scale.tolist(),
            losses=self.losses,
        )


def _torch() -> Any:
    """PyTorch with its distributed part."""
    try:
        import torch
        import torch.distributed
    except ImportError:
        raise NotTrained(
            "PyTorch is not installed here: distributed training needs the package torch."
        ) from None
    return torch


def _say(line: str) -> None:
    """One line, in one piece: torchrun starts workers unbuffered, and `print` would write the end of a
    line by itself, after that of another worker.
    """
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _read(path: Path) -> dict[str, Any]:
    try:
        return _torch().load(path, weights_only=True)  # executes no code of the file
    except Exception as error:
        raise NotTrained(
            f"{path} cannot be read as a checkpoint ({type(error).__name__}). "
            "Delete it, and the training begins anew."
        ) from None


def _together(values: torch.Tensor, workers: int) -> torch.Tensor:
    """The sum of this tensor over all workers."""
    if workers > 1:
        _torch().distributed.all_reduce(values)
    return values


def _gather(frame: pd.DataFrame, rank: int, workers: int) -> list[pd.DataFrame]:
    """The frames of all workers, at worker 0."""
    if workers == 1:
        return [frame]
    frames: list[Any] | None = [None] * workers if rank == 0 else None
    _torch().distributed.gather_object(frame, frames)
    return frames or []


def _digest(frame: pd.DataFrame) -> str:
    return hashlib.sha256(pd.util.hash_pandas_object(frame).to_numpy().tobytes()).hexdigest()[:16]


def _write(path: Path, content: bytes) -> None:
    partial = path.with_suffix(".partial")
    partial.write_bytes(content)
    partial.replace(path)


def _forget(place: Path, workers: int) -> None:
    """Delete what ranks have left that this job does not have: it may go on with fewer workers."""
    for path in [*place.glob("outcome_*.json"), *place.glob("shard_*.parquet")]:
        if int(path.stem.partition("_")[2]) >= workers:
            path.unlink()


def estimator(outcome: Outcome, columns: list[str], C: float = 1.0) -> Pipeline:
    """The trained model as the pipeline that ``new_model`` makes, to be stored, compared and served like any
    other.

    Args:
        outcome: of a worker.
        columns: the k features, in order.
        C: that it was trained with.
    """
    mean, scale = np.array(outcome.mean), np.array(outcome.scale)
    model = new_model(C=C)
    # Fitted on two rows for the shape of all that scikit-learn keeps; then the values are put in.
    model.fit(pd.DataFrame([mean - scale, mean + scale], columns=columns), [0, 1])
    scaler, regression = model["standardscaler"], model["logisticregression"]
    scaler.mean_, scaler.scale_, scaler.var_ = mean, scale, scale**2
    regression.coef_, regression.intercept_ = np.array([outcome.weights]), np.array([outcome.bias])
    regression.n_iter_ = np.array([len(outcome.losses)], dtype="int32")
    return model


def _scores(outcome: Outcome, contract: FeatureContract, rows: pd.DataFrame) -> pd.DataFrame:
    """This worker's held-out rows: ``label`` and ``score``."""
    scaled = (rows[contract.columns].to_numpy("float64") - outcome.mean) / outcome.scale
    logits = scaled @ np.array(outcome.weights) + outcome.bias
    return pd.DataFrame({"label": rows[contract.label].to_numpy(), "score": 1 / (1 + np.exp(-logits))})


def _log(
    outcome: Outcome,
    contract: FeatureContract,
    C: float,
    parameters: dict[str, Any],
    scored: pd.DataFrame,
    experiment: str,
    run_name: str,
) -> str:
    """One run for the whole job: parameters, the loss of each epoch, the score on the held-out rows of all
    workers, the model with its contract. Gives the run's id.
    """
    import mlflow
    from mlflow.entities import Metric
    from sklearn.metrics import roc_auc_score

    example = pd.DataFrame([outcome.mean], columns=contract.columns)
    model = estimator(outcome, contract.columns, C)
    mlflow.set_experiment(experiment)
    with mlflow.start_run(run_name=run_name or None) as run:
        mlflow.log_params(
            {**parameters, "workers": outcome.workers, "feature_service": contract.feature_service}
        )
        curve = [Metric("loss", value, 0, step) for step, value in enumerate(outcome.losses)]
        for start in range(0, len(curve), 1000):  # MLflow takes no more at a time
            mlflow.MlflowClient().log_batch(run.info.run_id, metrics=curve[start : start + 1000])
        logged = log_model(model, contract, Recipe(hyperparameters={"C": C}), example)
        mlflow.log_metric("held_out_auc", roc_auc_score(scored.label, scored.score), model_id=logged.model_id)
    return str(run.info.run_id)


def outcomes(folder: str | Path) -> list[Outcome]:
    """What the workers of a job left, in the order of their ranks.

    Args:
        folder: of the job.
    """
    found = [Outcome(**json.loads(path.read_text())) for path in Path(folder).glob("outcome_*.json")]
    return sorted(found, key=lambda outcome: outcome.rank)


def shards(folder: str | Path) -> list[pd.DataFrame]:
    """The tables that the workers of a job retrieved, in the order of their ranks; ``row`` counts the rows of
    the labels from 0.

    Args:
        folder: of the job.
    """
    paths = sorted(Path(folder).glob("shard_*.parquet"), key=lambda path: int(path.stem.partition("_")[2]))
    return [pd.read_parquet(path) for path in paths]


def round_trip(manifest: dict[str, Any]) -> dict[str, Any]:
    """``manifest`` read by Trainer's official models and written again.

    They drop what they do not know without a word: compare.
    """
    from kubeflow_trainer_api import models

    return models.TrainerV1alpha1TrainJob.from_dict(manifest).to_dict()

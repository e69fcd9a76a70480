"""Whether a project's settings, definitions, labels, and model in production fit each other."""

from __future__ import annotations

from collections.abc import Callable

from lifecycle.settings import Settings


def findings(settings: Settings) -> dict[str, str | None]:
    """What was looked at, each with what is wrong with it in a sentence, or None. Nothing is written.

    Args:
        settings: of the project.
    """
    found: dict[str, str | None] = {}

    def look(name: str, at: Callable[[], object]) -> None:
        try:
            at()
        except Exception as error:  # whatever a tool raises is the finding
            found[name] = f"{error or type(error).__name__}"
        else:
            found[name] = None

    look(f"estimator {settings.training.estimator}", lambda: _estimator(settings))
    look(f"feature service {settings.feature_service}", lambda: _contract(settings))
    look(f"labels {settings.labels}", lambda: _labels(settings))
    look(f"rules of {settings.reference}", lambda: _rules(settings))
    look(f"{settings.alias} of {settings.model}", lambda: _champion(settings))
    return found


def _estimator(settings: Settings) -> None:
    from lifecycle.models.recipe import Recipe

    training = settings.training
    Recipe(
        training.estimator, training.task, training.metric, training.types, training.hyperparameters
    ).new_estimator()


def _store(settings: Settings):  # type: ignore[no-untyped-def]  # Feast is imported when it is needed
    from feast import FeatureStore

    return FeatureStore(repo_path=str(settings.path(settings.feature_repo)))


def _contract(settings: Settings) -> None:
    from lifecycle.features.contract import FeatureContract

    FeatureContract.of_service(_store(settings), settings.feature_service, settings.label)


def _labels(settings: Settings) -> None:
    import pandas as pd

    from lifecycle.features.contract import FeatureContract
    from lifecycle.features.labels import declared_types, usable_rows

    store = _store(settings)
    contract = FeatureContract.of_service(store, settings.feature_service, settings.label)
    labels = pd.read_parquet(settings.path(settings.labels))
    usable_rows(labels, contract, declared_types(store, settings.feature_service), settings.training.task)


def _rules(settings: Settings) -> None:
    from lifecycle.features.validation import stored_suite

    stored_suite(_store(settings), settings.reference)


def _champion(settings: Settings) -> None:
    import mlflow

    from lifecycle.models.model import TYPES
    from lifecycle.models.versions import behind_alias, read

    training = settings.training
    version = behind_alias(mlflow.MlflowClient(), settings.model, settings.alias)
    _, contract = read(settings.model, version, types=TYPES | set(training.types), task=training.task)
    contract.check(_store(settings))

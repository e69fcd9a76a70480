"""Whether a project's settings, definitions, labels, and model in production fit each other."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from lifecycle.settings import Settings

if TYPE_CHECKING:
    from feast import FeatureStore

    from lifecycle.features.contract import FeatureContract


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

    Recipe.from_settings(settings.training).new_estimator()


def _store(settings: Settings) -> FeatureStore:
    from feast import FeatureStore

    return FeatureStore(repo_path=str(settings.path(settings.feature_repo)))


def _contract(settings: Settings) -> FeatureContract:
    from lifecycle.features.contract import FeatureContract

    return FeatureContract.from_feature_service(_store(settings), settings.feature_service, settings.label)


def _labels(settings: Settings) -> None:
    import pandas as pd

    from lifecycle.features.labels import declared_types, usable_rows

    declared = declared_types(_store(settings), settings.feature_service)
    labels = pd.read_parquet(settings.path(settings.labels))
    usable_rows(labels, _contract(settings), declared, settings.training.task)


def _rules(settings: Settings) -> None:
    from lifecycle.features.validation import stored_suite

    stored_suite(_store(settings), settings.reference)


def _champion(settings: Settings) -> None:
    import mlflow

    from lifecycle.models.recipe import Recipe
    from lifecycle.models.versions import load_version, version_by_alias

    recipe = Recipe.from_settings(settings.training)
    version = version_by_alias(mlflow.MlflowClient(), settings.model, settings.alias)
    _, contract = load_version(settings.model, version, types=recipe.allowed_types, task=recipe.task)
    contract.check(_store(settings))

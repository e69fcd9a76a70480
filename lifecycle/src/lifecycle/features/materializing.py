"""When features are due in the online store, for a job that looks often and works seldom."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from lifecycle.features.declared import check_files

if TYPE_CHECKING:
    from feast import FeatureStore, FeatureView

    from lifecycle.settings import Materialization


def online_views(store: FeatureStore) -> list[FeatureView]:
    """The feature views that are served online, and so can be materialized."""
    return [view for view in store.list_batch_feature_views() if view.online]


def why_due(store: FeatureStore, settings: Materialization, now: datetime) -> str:
    """Why features must be materialized now; empty when they need not be.

    Args:
        store: with the definitions applied.
        settings: of the project.
        now: the moment up to which features are wanted.
    """
    if online_store_is_empty(store):
        return "the online store is empty"
    for view in online_views(store):
        if not view.materialization_intervals:
            return f"{view.name} was never materialized"
        last = max(end for _, end in view.materialization_intervals)
        last = last if last.tzinfo else last.replace(tzinfo=UTC)
        if now - last >= timedelta(hours=settings.hours):
            return f"{view.name} was last materialized up to {last:%Y-%m-%d %H:%M} UTC"
    return ""


def online_store_is_empty(store: FeatureStore) -> bool:
    """Whether a Redis holds no key at all, as after a restart without its memory; False for other stores.

    The registry remembers what was materialized, and cannot know that it is gone.
    """
    from feast.infra.online_stores.redis import RedisOnlineStore

    config = store.config
    online = store._get_provider().online_store  # Feast has no public way
    if not isinstance(online, RedisOnlineStore):
        return False
    return not online._get_client(config.online_store).dbsize()


def materialize(store: FeatureStore, settings: Materialization, now: datetime) -> None:
    """Bring the newest values of each entity online.

    Args:
        store: with the definitions applied.
        settings: of the project.
        now: the newest moment that counts.

    Raises:
        ValueError: the files behind a view do not hold what it declares, and nothing was written; see
            ``lifecycle.features.declared.check_files``.
    """
    for view in online_views(store):
        check_files(view, store)
    store.materialize(now - timedelta(days=settings.days), now)

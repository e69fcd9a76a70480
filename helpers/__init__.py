"""What the notebooks share. The calls that the course teaches are in the notebooks, not here."""

import importlib

_HOME = {
    "NOW": "helpers.data",
    "SEED": "helpers.data",
    "UNKNOWN_DRIVER": "helpers.data",
    "MODEL": "helpers.start",
    "begin": "helpers.start",
    "feature_references": "helpers.retrieval",
    "historical_features": "helpers.retrieval",
}
__all__ = list(_HOME)


def __getattr__(name: str) -> object:
    # On first use: `python -m helpers.data` would otherwise load that module twice.
    if name not in _HOME:
        raise AttributeError(f"module 'helpers' has no attribute {name!r}; it has {', '.join(_HOME)}")
    return getattr(importlib.import_module(_HOME[name]), name)

"""What the notebooks share. The calls that the course teaches are in the notebooks, not here."""

from helpers.data import NOW, SEED, UNKNOWN_DRIVER
from helpers.retrieval import historical_features
from helpers.start import begin

__all__ = ["NOW", "SEED", "UNKNOWN_DRIVER", "begin", "historical_features"]

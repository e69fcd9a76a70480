"""The notebooks' exercises: a file for each notebook, and what they share in ``core``."""

from exercises.core import exercise

__all__ = ["exercise"]

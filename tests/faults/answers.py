"""What learners may answer: read by the harness, which tries each answer in the notebook's own kernel.

A file `answers_NN.py` for each notebook holds `ANSWERS`: for each exercise the code that goes into its cell.
The worked solution is always tried.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent.parent / "exercises"


@dataclass(frozen=True)
class Answers:
    """Attributes:
    right: solutions in another style than the worked one.
    wrong: by a part of the hint that fits it, a plausible mistake.
    """

    right: list[str]
    wrong: dict[str, str]


def load(notebook: str, folder: Path = FOLDER) -> dict[str, Answers]:
    """The answers of a notebook, by exercise; none when it has no file."""
    path = folder / f"answers_{notebook}.py"
    if not path.exists():
        return {}
    specification = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module.ANSWERS

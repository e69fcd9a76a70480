"""Planted faults and answers: each check has been seen to fail, each exercise to take and reject answers.

``faults_02.py`` holds the faults of notebook 02::

    @fault("02", "claim-no-future-data", says="values differ")
    def one_value_from_the_next_hour(ns):
        ns["found"].iloc[17, 0] += 0.01

The second argument is the tag of the check's cell; ``says`` is a part of the message that it must fail with.
``ns`` is a copy of all names just before the check: change a value in place or replace it, and none of it
reaches the notebook. Its functions see the changed names. Modules, classes, clients, stores, and servers are
not copied (``trial.py`` lists what is): replace such a name, or let the fault yield, and restore afterwards.

Before each check, its source runs once in a copy without a fault, where it must pass, and once per fault,
where it must raise AssertionError; then the cell itself runs. So a check may not change anything but names.

``../exercises/answers_02.py`` holds ``ANSWERS``: for each exercise the code that goes into its cell. The
worked solution is always tried.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Fault:
    """A fault: ``plant`` changes a namespace, and the check with the tag ``tag`` must then say ``says``."""

    notebook: str
    tag: str
    says: str
    plant: Callable

    @property
    def name(self) -> str:
        return self.plant.__name__


_planted: list[Fault] = []


def fault(notebook: str, tag: str, *, says: str) -> Callable[[Callable], Callable]:
    """Plant the decorated function, ``f(ns)`` or a generator that yields once, before a notebook's check."""
    if not says:
        raise ValueError("says: give a part of the message that the check must fail with")

    def keep(plant: Callable) -> Callable:
        _planted.append(Fault(notebook, tag, says, plant))
        return plant

    return keep


def load(number: str, folder: Path = FOLDER) -> list[Fault]:
    """The faults of ``faults_<number>.py``, executed anew; none when there is no such file."""
    _planted.clear()
    _module(folder / f"faults_{number}.py")
    return list(_planted)


@dataclass(frozen=True)
class Answers:
    """Answers to an exercise.

    Attributes:
        right: solutions in another style than the worked one.
        wrong: by a part of the hint that fits it, a plausible mistake.
    """

    right: list[str]
    wrong: dict[str, str]


def answers_of(notebook: str, folder: Path = FOLDER.parent / "exercises") -> dict[str, Answers]:
    """The answers of a notebook, by exercise; none when it has no file."""
    return getattr(_module(folder / f"answers_{notebook}.py"), "ANSWERS", {})


def _module(path: Path):
    if path.exists():
        specification = importlib.util.spec_from_file_location(path.stem, path)
        module = importlib.util.module_from_spec(specification)
        specification.loader.exec_module(module)
        return module

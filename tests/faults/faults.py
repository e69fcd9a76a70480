"""Planted faults and answers: each check has been seen to fail, each exercise to take and reject answers.

``faults_02.py`` holds the faults of notebook 02::

    @fault("02", "claim-no-future-data", says="values differ")
    def the_daily_view_has_a_longer_time_to_live(ns):
        with time_to_live("driver_daily_profile", 33) as ns["store"]:
            rerun(ns, "training = historical", "feast_values = training")
            yield

The second argument is the tag of the check's cell; ``says`` is a part of the message that it must fail with.
``ns`` is a copy of all names just before the check: change a value in place or replace it, and none of it
reaches the notebook. Its functions see the changed names. Modules, classes, clients, stores, and servers are
not copied (``trial.py`` lists what is): replace such a name, or let the fault yield, and restore afterwards.

A fault changes data or code and lets the notebook compute with it: ``rerun`` executes its cells again in
``ns``. A fault that sets the variable which the assertion reads proves only that ``assert`` works.

Before each check, its source runs once in a copy without a fault, where it must pass, and once per fault,
where it must raise AssertionError; then the cell itself runs. So a check may not change anything but names.

``../exercises/answers_02.py`` holds ``ANSWERS``: for each exercise the code that goes into its cell. The
worked solution is always tried.
"""

from __future__ import annotations

import importlib.util
import linecache
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


def rerun(ns: dict, *marks: str, change: tuple[str, str] = ("", "")) -> None:
    """Execute cells of the notebook again in ``ns``, with the names that a fault has changed.

    Args:
        ns: the namespace that the fault got.
        marks: for each cell a text that no other cell contains, checks aside; in the order of execution.
        change: a text of these cells and what to execute instead.
    """
    old, new = change
    cells = [source for source in ns["In"] if not source.startswith("# Check")]
    found = [[source for source in cells if mark in source] for mark in marks]
    unclear = [mark for mark, sources in zip(marks, found, strict=True) if len(set(sources)) != 1]
    if unclear or not any(old in sources[0] for sources in found):
        raise ValueError(f"no cell, or several, with {unclear or old!r}")
    for sources in found:
        source = sources[0].replace(old, new)
        name = f"<a cell with a fault: {hash(source)}>"
        # Some tools read a function's source.
        linecache.cache[name] = len(source), None, source.splitlines(keepends=True), name
        exec(compile(source, name, "exec", dont_inherit=True), ns)


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

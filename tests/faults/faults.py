"""Planted faults: each check of the notebooks has been seen to fail.

How a fault is planted. ``faults_02.py`` holds those of notebook 02::

    from faults import fault

    @fault("02", "claim-no-future-data", says="values differ")
    def one_value_from_the_next_hour(ns):
        ns["found"].iloc[17, 0] += 0.01

The second argument is a tag of the check's cell, ``claim-<id>`` or ``check-<name>``; no other check has it. ``says`` is a part of the message
that the check must fail with. ``ns`` is a copy of all names as they are just before the check: change a value in place or replace it, and
nothing of it reaches the notebook. Functions that the notebook defines see the changed names. Modules, classes, clients, stores,
sessions and servers are not copied (``trial.py`` says what is): replace such a name, or restore what you changed after a ``yield``::

    @fault("07", "claim-promote-by-alias", says="the alias points to")
    def the_alias_never_moved(ns):
        with mock.patch.object(ns["client"], "get_model_version_by_alias", return_value=ns["versions"][0]):
            yield

One function may carry several decorators. Before each check, its source runs once in a copy without a fault, where it must pass, and
once per fault, where it must raise AssertionError; then the cell itself runs. So a check may not change anything outside the namespace.

    .venv/bin/python -m pytest tests/test_faults.py -k 02

``FAULTS_HOME=/some/folder`` before it keeps the home from one run to the next, so that what earlier notebooks leave is made only once;
delete the folder when one of those has changed.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Fault:
    """A fault: ``plant`` changes the namespace that it is given, and the check with the tag ``tag`` must say ``says``."""

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
    path = folder / f"faults_{number}.py"
    if not path.exists():
        return []
    _planted.clear()
    specification = importlib.util.spec_from_file_location(path.stem, path)
    specification.loader.exec_module(importlib.util.module_from_spec(specification))
    return list(_planted)

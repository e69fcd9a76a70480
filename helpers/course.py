"""The facts of each notebook, from ``course.toml``: titles, times, needs, and what it makes."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache

from helpers.workspace import REPOSITORY

FILE = REPOSITORY / "course.toml"


@dataclass(frozen=True)
class Need:
    """Something that one notebook makes and others need."""

    name: str
    made_by: str


@dataclass(frozen=True)
class Makes:
    """What a notebook leaves behind: files (patterns below the workspace), experiments of MLflow, aliases of
    the model, saved datasets in the feature registry, values in the online store."""

    files: tuple[str, ...] = ()
    experiments: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    saved_datasets: bool = False
    online_values: bool = False


@dataclass(frozen=True)
class Notebook:
    """The facts of one notebook; ``course.toml`` explains them."""

    stem: str
    title: str
    summary: str
    reading: int
    exercises: int
    seconds: int
    needs: tuple[str, ...] = ()
    makes: Makes = Makes()
    extra: str = ""
    section: str = ""

    @property
    def number(self) -> str:
        """Of the notebook, such as ``"04"``."""
        return self.stem[:2]


@cache
def notebooks() -> dict[str, Notebook]:
    """Every notebook by its number, in order."""
    found = (
        _notebook(stem, **facts)
        for stem, facts in tomllib.loads(FILE.read_text("utf-8"))["notebooks"].items()
    )
    return {notebook.number: notebook for notebook in found}


def _notebook(stem: str, makes: dict | None = None, needs: tuple = (), **facts: object) -> Notebook:
    made = {name: tuple(value) if isinstance(value, list) else value for name, value in (makes or {}).items()}
    return Notebook(stem, needs=tuple(needs), makes=Makes(**made), **facts)  # type: ignore[arg-type]


@cache
def needs() -> dict[str, Need]:
    """What notebooks can need, by the key under which they name it."""
    return {key: Need(**facts) for key, facts in tomllib.loads(FILE.read_text("utf-8"))["needs"].items()}


def extras() -> dict[str, str]:
    """The dependency groups outside the default installation, each with the notebook that uses it."""
    return {
        group: found.number
        for found in notebooks().values()
        for group in (found.extra, found.section)
        if group
    }

"""What a notebook needs beyond the default installation: a dependency group of pyproject.toml, added by a door of its own, such as `make distributed`."""

from __future__ import annotations

import importlib.metadata
import tomllib

from packaging.requirements import Requirement

from helpers.workspace import REPOSITORY

EXTRAS = {"09": "distributed", "11": "orchestrators"}
"""Notebook and dependency group; the door of `make` that adds a group has the group's name."""


def requirements(group: str) -> list[Requirement]:
    """What a dependency group of pyproject.toml names."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    return [Requirement(text) for text in project["dependency-groups"][group]]


def lacking(number: str) -> str:
    """What this environment lacks for a notebook, and how to add it, in two sentences; empty when it lacks nothing.

    Args:
        number: of the notebook, such as ``"09"``.
    """
    group = EXTRAS.get(number)
    wrong = [_wrong(requirement) for requirement in requirements(group)] if group else []
    found = "; ".join(filter(None, wrong))
    return f"{found}. `make {group}` adds it." if found else ""


def _wrong(requirement: Requirement) -> str:
    try:
        version = importlib.metadata.version(requirement.name)
    except importlib.metadata.PackageNotFoundError:
        return f"{requirement.name} is not installed"
    if requirement.specifier.contains(version, prereleases=True):
        return ""
    return f"{requirement.name} {version} is installed, {requirement.specifier} is needed"

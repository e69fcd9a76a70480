"""What a notebook needs beyond the default installation: a dependency group of pyproject.toml, which the
`make` command of the same name adds, such as `make distributed`."""

from __future__ import annotations

import importlib.metadata
import tomllib

from packaging.requirements import Requirement

from helpers import course
from helpers.workspace import REPOSITORY


def requirements(group: str) -> list[Requirement]:
    """What a dependency group of pyproject.toml names."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    return [Requirement(text) for text in project["dependency-groups"][group]]


def lacking(number: str) -> str:
    """What this environment lacks for a notebook, and how to add it; empty when it lacks nothing.

    Args:
        number: of the notebook, such as ``"09"``.
    """
    group = course.notebooks()[number].extra
    unmet = [wrong(requirement) for requirement in requirements(group)] if group else []
    found = "; ".join(filter(None, unmet))
    return f"{found}. `make {group}` adds it." if found else ""


def wrong(requirement: Requirement) -> str:
    """What is wrong with a requirement in this environment; empty when it is met."""
    try:
        version = importlib.metadata.version(requirement.name)
    except importlib.metadata.PackageNotFoundError:
        return f"{requirement.name} is not installed"
    if requirement.specifier.contains(version, prereleases=True):
        return ""
    return f"{requirement.name} {version} is installed, {requirement.specifier} is needed"

"""docs/upstream.md, read and run: its chapters, the sections in them, and the lines of code of each.

A section names its test, and the test runs the section's own lines: what a maintainer reads is what ran.
"""

from __future__ import annotations

import functools
import os
import re
import runpy
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from helpers.workspace import REPOSITORY

PAGE = REPOSITORY / "docs" / "upstream.md"
POINTS = ("Where", "Seen", "Costs", "Mend", "Here", "Test")
"""What each section says, as list items of the page, in this order."""


@dataclass(frozen=True)
class Section:
    """A trap, as the page tells it.

    Attributes:
        title: the heading.
        project: distribution and version of the chapter, as in its heading.
        points: the list items, by their bold word.
        preamble: the code that the chapter's sections share.
        code: the section's own code.
    """

    title: str
    project: str
    points: dict[str, str]
    preamble: str
    code: str

    @property
    def test(self) -> str:
        """The function that the last list item names."""
        return re.search(r"`(test_\w+)`", self.points.get("Test", "")).group(1)


def _code(text: str) -> str:
    return "\n".join(re.findall(r"^```python\n(.*?)^```$", text, re.M | re.S))


def sections() -> list[Section]:
    """The sections of the page, in their order."""
    found = []
    _, *chapters = re.split(r"^## ", PAGE.read_text(encoding="utf-8"), flags=re.M)
    for chapter in chapters:
        opening, *parts = re.split(r"^### ", chapter, flags=re.M)
        for part in parts:
            points = dict(re.findall(r"^- \*\*(\w+)\*\*: ((?:.+\n)+?)(?=- \*\*|\n|\Z)", part, re.M))
            titles = (part.splitlines()[0], opening.splitlines()[0])
            found.append(Section(*titles, points, _code(opening), _code(part)))
    return found


class Reproduction:
    """Runs the lines of one section. The preamble of a chapter runs once for a module's tests, as its imports take seconds."""

    def __init__(self, section: Section, folder: Path, preambles: dict[str, dict]):
        self.section, self.folder, self._preambles = section, folder, preambles

    def __call__(self) -> dict:
        """In this process; gives the names that the lines leave behind."""
        if self.section.project not in self._preambles:
            self._preambles[self.section.project] = self._run("preamble", self.section.preamble, {})
        return self._run(self.section.test, self.section.code, self._preambles[self.section.project])

    def alone(self, preamble: bool = True) -> str:
        """In a process of its own, for what depends on what was imported before; gives what it prints, errors and warnings as well."""
        path = self._write("alone", f"{self.section.preamble if preamble else ''}\n{self.section.code}")
        ended = subprocess.run(
            [sys.executable, "-W", "default", path],
            capture_output=True,
            text=True,
            cwd=self.folder,
            timeout=120,
        )
        return ended.stdout + ended.stderr

    def _run(self, name: str, code: str, given: dict) -> dict:
        known = {name: value for name, value in given.items() if not name.startswith("__")}
        return runpy.run_path(str(self._write(name, code)), init_globals=known)

    def _write(self, name: str, code: str) -> Path:
        path = self.folder / f"{name}.py"  # a file: some tools read the source text of what they are given
        path.write_text(code)
        return path


def watch(test: Callable) -> Callable:
    """The test passes while the trap exists. When it fails, it says what to do."""

    @functools.wraps(test)
    def watching(*given, **named):
        try:
            test(*given, **named)
        except (Exception, pytest.fail.Exception) as error:
            section = next(s for s in sections() if s.test == test.__name__)
            raise AssertionError(
                f'News, not a regression: "{section.title}" ({section.project}) no longer holds as docs/upstream.md tells it. If it is mended upstream, '
                f"take the section out of docs/upstream.md, and the workaround out of the repository: {section.points['Here'].strip()}"
            ) from error

    return watching


@pytest.fixture(scope="module")
def preambles() -> dict[str, dict]:
    """What the chapters' preambles leave behind, for one module's tests."""
    return {}


@pytest.fixture(name="reproduction")
def lines_of_the_section(request, tmp_path, monkeypatch, preambles) -> Reproduction:
    """The lines of the section that names this test, to be run in a folder of their own."""
    monkeypatch.chdir(tmp_path)
    # Some local runners stumble over a space in the path of Python. That is a section of its own; all others get a path without one.
    plain = tmp_path / "environment"
    plain.symlink_to(sys.prefix)
    monkeypatch.setattr(sys, "executable", str(plain / "bin" / "python"))
    monkeypatch.setenv("PATH", os.pathsep.join([str(plain / "bin"), os.environ["PATH"]]))
    section = next(s for s in sections() if s.test == request.function.__name__)
    return Reproduction(section, tmp_path, preambles)

"""An exercise judges an answer by what it does with the real tools, and records what was solved."""

from __future__ import annotations

import ast
import contextlib
import datetime
import importlib
import json
import linecache
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from helpers import checks, lab
from helpers.errors import Told
from helpers.workspace import WorkshopError, Workspace, current

if TYPE_CHECKING:
    import pandas as pd
    from feast import FeatureStore
    from IPython.display import Code
    from mlflow import MlflowClient

FOLDER = Path(__file__).parent
RECORD = "exercises.jsonl"
"""The record's name in a workspace: a line for each answer, hint and solution, in the order of time."""
SOLVED, WRONG, HINT, SOLUTION = "solved", "wrong", "hint", "solution"


class NotYet(Told):
    """A wrong answer. The message says what is wrong and where to look, never the answer."""

    shown = "Not yet: ..."


@dataclass(frozen=True)
class Exercise:
    """One exercise of a notebook.

    Attributes:
        number: of the notebook and of the exercise in it, such as ``"2.1"``.
        title: what the learner does; the heading of the exercise in the notebook.
        judge: takes the answers; returns what a right one shows, in a sentence or two; raises ``NotYet``
            for a wrong one.
        more: a second hint, for the asking.
        worked: a solution: code for the exercise's cell, and why it is one in comments.
    """

    number: str
    title: str
    judge: Callable[..., str]
    more: str
    worked: str

    def check(self, *answers: Any) -> None:
        """Judge the answer. One that is left at ``...`` is open, which is no error.

        Raises:
            NotYet: the answer is wrong.
        """
        if error := checks.error_in_answer(self.number):
            raise self._not_yet(
                f"your answer's cell ended with {type(error).__name__}: {error}. Until it runs, there is "
                "only an older answer to judge. Fix that cell, run it, and run this one again."
            )
        if any(map(unwritten, answers)):
            checks.note_exercise(self.number, "open")
            if lab.has_reader():
                lab.show_card("open", self._name, "Replace `...` in the cell above, and run both cells.")
            else:
                print(f"open: {self.number}, {self.title}")
            return
        try:
            shows = self.judge(*answers)
        except NotYet as error:
            record(self.number, WRONG)
            ask = f'`exercise("{self.number}").hint()`'
            # Without its cause: what a learner needs of that is in the message.
            raise self._not_yet(f"{error} ({ask} says more.)") from None
        record(self.number, SOLVED)
        checks.note_exercise(self.number, "solved")
        if lab.has_reader():
            lab.show_card("solved", self._name, shows)
        else:
            print(f"solved: {self.number}. {shows}")

    @property
    def _name(self) -> str:
        return f"{self.number} {self.title}"

    def _not_yet(self, message: str) -> NotYet:
        """The error for a wrong answer; a reader sees a card instead."""
        checks.note_exercise(self.number, "not yet")
        if lab.has_reader():
            lab.instead_of_tracebacks(NotYet, lambda error: lab.show_card("not yet", self._name, str(error)))
        return NotYet(message)

    def or_solution(self, answer: Any) -> Any:
        """Return the answer for later cells to build on; while it is open, what the worked solution makes."""
        if not unwritten(answer):
            return answer
        from IPython import get_ipython

        print(f"{self.number} is open, so the notebook continues with the worked solution.")
        return made(self.worked.strip(), f"<the solution of {self.number}>", get_ipython().user_ns)

    def hint(self) -> None:
        """Print the second hint."""
        record(self.number, HINT)
        print(self.more)

    def solution(self) -> Code:
        """A worked solution, to read or to copy."""
        from IPython.display import Code

        record(self.number, SOLUTION)
        return Code(self.worked.strip(), language="python")


def made(code: str, name: str, namespace: dict[str, Any]) -> Any:
    """Return what the last definition or assignment of ``code`` makes, in a copy of ``namespace``.

    ``name`` is the file name that a traceback shows.
    """
    last = ast.parse(code).body[-1]
    target = getattr(last, "name", None) or ast.unparse(last.targets[0])  # type: ignore[attr-defined]
    # Feast stores a function's source text, which it asks linecache for.
    linecache.cache[name] = len(code), None, code.splitlines(keepends=True), name
    own = dict(namespace)
    exec(compile(code, name, "exec"), own)
    return own[target]


def _empty() -> None: ...


def unwritten(answer: Any) -> bool:
    """Whether an answer is still ``...``, or a function whose body is."""
    code = getattr(answer, "__code__", None)
    return answer is ... or (
        code is not None
        and (code.co_code, code.co_consts) == (_empty.__code__.co_code, _empty.__code__.co_consts)
    )


@contextlib.contextmanager
def attempt(what: str) -> Iterator[None]:
    """Turn what the learner's code raises into a wrong answer; ``what`` begins the sentence that says so."""
    try:
        yield
    except NotYet:
        raise
    except Exception as error:
        said = " ".join(str(error).split())
        raise NotYet(f"{what}: {type(error).__name__}{': ' if said else ''}{said[:400]}") from error


@contextlib.contextmanager
def scratch() -> Iterator[FeatureStore]:
    """A Feast project of an exercise's own, to change and fill at will.

    It has the course's definitions and files, and a registry and an (empty) online store that are gone
    afterwards.
    """
    from feast import FeatureStore, RepoConfig

    from helpers import registry

    repository = current().feature_repo
    course = FeatureStore(repo_path=str(repository)).config
    with tempfile.TemporaryDirectory(prefix="exercise-") as folder:
        settings = course.model_dump(by_alias=True, exclude_none=True) | {
            "registry": {"registry_type": "file", "path": f"{folder}/registry.db"},
            "online_store": {"type": "sqlite", "path": f"{folder}/online_store.db"},
            "repo_path": repository,
        }
        store = FeatureStore(config=RepoConfig(**settings))
        registry.apply(store, repository)
        yield store


@contextlib.contextmanager
def staged(rows: pd.DataFrame) -> Iterator[FeatureStore]:
    """A Feast project of an exercise's own, gone afterwards, with the course's hourly view over ``rows``.

    ``rows`` has the columns of driver_stats.parquet.
    """
    from feast import FeatureStore

    from helpers.registry import staging

    course = FeatureStore(repo_path=str(current().feature_repo))
    with tempfile.TemporaryDirectory(prefix="exercise-") as folder:
        yield staging(Workspace(Path(folder)), course, "driver_hourly_stats", "arrived", rows)


@contextlib.contextmanager
def scratch_tracking() -> Iterator[MlflowClient]:
    """A client of MLflow on a copy of the workspace's database, to search and change; gone afterwards.

    A model's files are not copied: what reads or writes one touches the workspace.
    """
    from mlflow import MlflowClient

    with tempfile.TemporaryDirectory(prefix="exercise-") as folder:
        copy = f"{folder}/mlflow.db"
        with (
            contextlib.closing(sqlite3.connect(current().path / "mlflow.db")) as original,
            contextlib.closing(sqlite3.connect(copy)) as target,
        ):
            original.backup(target)
        yield MlflowClient(f"sqlite:///{copy}")


def exercises_of(notebook: str) -> list[Exercise]:
    """The exercises of a notebook such as ``"02"``, in order."""
    return importlib.import_module(f"exercises.notebook_{notebook}").EXERCISES


def every() -> dict[str, Exercise]:
    """All exercises by number, in the order of the course."""
    files = sorted(FOLDER.glob("notebook_[0-9][0-9].py"))
    return {found.number: found for file in files for found in exercises_of(file.stem[-2:])}


def exercise(number: str) -> Exercise:
    """The exercise with this number, such as ``"2.1"``.

    Raises:
        WorkshopError: there is none.
    """
    found, number = every(), str(number)  # 2.1 without quotes is meant as "2.1"
    if number not in found:
        raise WorkshopError(f"there is no exercise {number!r}; there are {', '.join(found)}.")
    return found[number]


def record(number: str, what: str) -> None:
    """Add a line to the record of the current workspace. If it cannot be written, the exercise goes on."""
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    line = json.dumps({"exercise": number, "what": what, "at": now})
    path = current().path / RECORD
    try:
        # A line is short enough for one write, so two notebooks can record at the same time.
        with path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
    except OSError as error:
        print(f"(not recorded for `make progress`: {error.strerror})")

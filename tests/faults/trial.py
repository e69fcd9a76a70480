"""Runs in a notebook's kernel before a check or an exercise: its source in copies of the namespace."""

from __future__ import annotations

import contextlib
import copy
import ctypes
import dataclasses
import functools
import gc
import inspect
import io
import json
import linecache
import logging
import random
import re
import sys
import traceback
import types
import warnings
from collections import deque
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd
from faults import answers_of, load

# IPython's own names, and its history of inputs and outputs.
HIDDEN = re.compile(r"_+|_(i+|oh|ih|dh|i?\d+)|In|Out|exit|quit|get_ipython|__\w+__")
# Objects that only hold values. All others (stores, clients, servers, figures) are shared with the notebook.
RECORDS = re.compile(
    r"__main__\.|feast\.(base_feature_view|data_source|entity|feature_service|feature_view_projection|field)\."
    r"|feast\.saved_dataset\.|great_expectations\.(core|expectations)\.|lifecycle\.validation\.|sklearn\."
    r"|mlflow\.(entities|models)\.|optuna\.trial\._frozen\.|pydantic\.main\.|requests\.models\.Response\."
    r"|types\.SimpleNamespace\."
)
VALUES = (dict, list, tuple, set, frozenset, deque, functools.partial, types.MethodType, np.ndarray, pd.Index)

report = "[]"  # of the last call, as JSON: the harness reads it in the same request


def namespace(real: dict) -> dict:
    """Copy a notebook's names; functions of the notebook are rebuilt with the copy as their globals."""
    new = {name: value for name, value in real.items() if HIDDEN.fullmatch(name)}
    copies = _Copies(real, new)
    for name, value in real.items():
        if name not in new:
            try:
                new[name] = copy.deepcopy(value, copies)
            except Exception:
                new[name] = value
    return new


class _Copies(dict):
    """The memo that ``deepcopy`` asks by an object's id before it copies the object; some it then shares."""

    def __init__(self, real: dict, new: dict):
        self.real, self.new, self.alive = real, new, []

    def get(self, key, default=None):
        if key in self:
            return self[key]
        value = ctypes.cast(key, ctypes.py_object).value
        match value:
            case types.FunctionType():
                self._function(key, value)
            case pd.DataFrame():
                self[key] = new = value.copy()
                for position in np.flatnonzero([kind.kind == "O" for kind in value.dtypes]):
                    new.isetitem(position, self._objects(value.iloc[:, position]))
            case pd.Series():
                self[key] = self._objects(value)
            case _:
                return default if isinstance(value, VALUES) or _is_record(type(value)) else value
        self.alive.append(value)  # its id is not used again
        return self[key]

    def _objects(self, series: pd.Series) -> pd.Series:
        """A copy of a series. Texts, the usual objects, need no look at each."""
        new = series.copy()
        if series.dtype.kind == "O" and pd.api.types.infer_dtype(series, skipna=True).startswith("mixed"):
            for position, item in enumerate(series):
                new.iat[position] = copy.deepcopy(item, self)
        return new

    def _function(self, key: int, value: types.FunctionType) -> None:
        ours, closure = value.__globals__ is self.real, value.__closure__ or ()
        if not ours and not closure:
            self[key] = value
            return
        # Its variables from outside: a decorated function holds the notebook's in one.
        cells = tuple(types.CellType() for _ in closure)
        space = self.new if ours else value.__globals__
        self[key] = new = types.FunctionType(value.__code__, space, value.__name__, None, cells or None)
        for cell, old in zip(cells, closure, strict=True):
            with contextlib.suppress(ValueError):  # an empty one stays so
                cell.cell_contents = copy.deepcopy(old.cell_contents, self)
        new.__defaults__ = copy.deepcopy(value.__defaults__, self)
        new.__kwdefaults__ = copy.deepcopy(value.__kwdefaults__, self)
        new.__qualname__, new.__doc__, new.__module__ = value.__qualname__, value.__doc__, value.__module__
        new.__annotations__ = value.__annotations__
        new.__dict__.update(copy.deepcopy(vars(value), self))


@functools.cache
def _is_record(kind: type) -> bool:
    names = [f"{base.__module__}.{base.__qualname__}." for base in kind.__mro__]
    return dataclasses.is_dataclass(kind) or any(map(RECORDS.match, names))


@contextlib.contextmanager
def _unnoticed():
    """What is printed, warned or drawn at random here does not reach the notebook."""
    drawn, drawn_by_numpy = random.getstate(), np.random.get_state()
    silence = contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO())
    try:
        with warnings.catch_warnings(), silence[0], silence[1]:
            warnings.simplefilter("ignore")
            yield
    finally:
        random.setstate(drawn)
        np.random.set_state(drawn_by_numpy)


def _compiled(shell, source: str, name: str) -> types.CodeType:
    """The code of a cell. Tracebacks show its source, and some tools read a function's."""
    source = source.lstrip("\n")  # IPython drops empty lines before the first, and the numbers must agree
    linecache.cache[name] = len(source), None, source.splitlines(keepends=True), name
    return compile(shell.transform_cell(source), name, "exec", dont_inherit=True)


def _traceback(error: BaseException) -> str:
    inner = error.__traceback__.tb_next  # without the frame of this file
    return "".join(traceback.format_exception(type(error), error, inner)).strip()


def _outcome(code: types.CodeType, ns: dict, says: str | None) -> str:
    """What is wrong with a check's outcome, or nothing. ``says``: what it must fail with; None: it passes."""
    try:
        exec(code, ns)
    except AssertionError as error:
        if says is None:
            return f"fails in a copy of the namespace, without a fault:\n{_traceback(error)}"
        return "" if says in str(error) else f"fails, but does not say {says!r}:\n{_traceback(error)}"
    # Whatever it raises, SystemExit too: the notebook goes on.
    except BaseException as error:
        return f"raises another error than AssertionError:\n{_traceback(error)}"
    return "passes: it does not notice the fault" if says is not None else ""


def _try(code: types.CodeType, ns: dict, fault) -> str:
    try:
        planted = fault.plant(ns)  # one that yields restores afterwards
        yields = inspect.isgenerator(planted)
        with contextlib.contextmanager(lambda: planted)() if yields else contextlib.nullcontext():
            return _outcome(code, ns, fault.says)
    except BaseException as error:
        return f"was not tried, because the fault itself failed:\n{_traceback(error)}"


def trials(shell, number: str, tag: str, source: str, folder: str) -> None:
    """Try a check without a fault and with each of its faults; put what happened into ``report``."""
    global report
    with _unnoticed():
        code = _compiled(shell, source, f"<the check {tag}>")
        # Without a fault first, so that what fails below fails because of its fault and not of the copy.
        found = [{"tried": None, "wrong": _outcome(code, namespace(shell.user_ns), None)}]
        for fault in load(number, Path(folder)):
            if fault.tag == tag:
                wrong = _try(code, namespace(shell.user_ns), fault)
                found.append({"tried": fault.name, "wrong": wrong})
    report = json.dumps(found)


def _answer(shell, number: str, source: str, check: str, says: str | None) -> str:
    """Give an answer in a copy; what is wrong with the outcome, or nothing. ``says``: None: it is right."""
    ns, said = namespace(shell.user_ns), io.StringIO()
    try:
        exec(_compiled(shell, source, f"<an answer to {number}>"), ns)
        with contextlib.redirect_stdout(said):
            exec(check, ns)
    except Exception as error:
        if type(error).__name__ != "NotYet":
            return f"raises another error than NotYet:\n{_traceback(error)}"
        if says is None:
            return f"is right, and was refused: {error}"
        return "" if says in str(error) else f"is refused, but not with {says!r}: {error}"
    told = said.getvalue()
    if says is not None:
        return f"is wrong, and was taken: {told}"
    solved = told.startswith(f"solved: {number}. ") and told.count("\n") == 1
    return "" if solved else f"is right, and the check says: {told!r}"


def answers(shell, number: str, check: str, folder: str) -> None:
    """Try right and wrong answers to an exercise, record nothing, and put what happened into ``report``."""
    global report

    from exercises import core, exercise

    every: list[tuple[str, str | None]] = [(exercise(number).worked.strip(), None)]
    if given := answers_of(f"{int(number.split('.')[0]):02d}", Path(folder)).get(number):
        every += [(source, None) for source in given.right]
        every += [(source, says) for says, source in given.wrong.items()]
    with _unnoticed(), mock.patch.object(core, "record"):
        found = [{"tried": code, "wrong": _answer(shell, number, code, check, says)} for code, says in every]
        if "flyte" in sys.modules:
            # A task that failed says so when it is collected. Flyte's own thread may hold it for longer.
            logging.getLogger("asyncio").setLevel(logging.CRITICAL)
            gc.collect()
    report = json.dumps(found)

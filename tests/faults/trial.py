"""What runs inside a notebook's kernel, before a check or an exercise's check: its source in copies of the namespace."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import inspect
import io
import json
import linecache
import random
import re
import traceback
import types
import warnings
from collections import deque
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd
from answers import load as load_answers
from faults import load

# IPython's own names, and its history of inputs and outputs.
HIDDEN = re.compile(r"_+|_(i+|oh|ih|dh|i?\d+)|In|Out|exit|quit|get_ipython|__\w+__")
# Objects that only hold values. All others (stores, clients, sessions, servers, figures, studies) are shared with the notebook.
RECORDS = (
    "__main__.",  # the notebook's own classes
    "feast.base_feature_view.",
    "feast.data_source.",
    "feast.entity.",
    "feast.feature_service.",
    "feast.feature_view_projection.",
    "feast.field.",
    "feast.saved_dataset.",
    "great_expectations.core.",
    "great_expectations.expectations.",
    "lifecycle.validation.",
    "mlflow.entities.",
    "mlflow.models.",
    "optuna.trial._frozen.",
    "pydantic.main.",
    "requests.models.Response.",
    "sklearn.",
    "types.SimpleNamespace.",
)

report = "[]"  # of the last call of `trials`, as JSON: the harness reads it in the same request


def namespace(real: dict) -> dict:
    """A copy of a notebook's names: values are copied, functions of the notebook are rebuilt with the copy as their globals."""
    new = {name: value for name, value in real.items() if HIDDEN.fullmatch(name)}
    copier = _Copier(real, new)
    new.update({name: copier.copy(value) for name, value in real.items() if name not in new})
    return new


class _Copier:
    """Copies values once each, so that two names of one object are again two names of one object."""

    def __init__(self, real: dict, new: dict):
        self.real, self.new = real, new
        self.done: dict[
            int, tuple[object, object]
        ] = {}  # by id; the original beside its copy keeps the id from being used again

    def copy(self, value):
        if id(value) not in self.done:
            self.done[id(value)] = value, value  # shared, unless a copy succeeds; and the end of a circle
            try:
                self._keep(value, self._copy(value))
            except Exception:
                self._keep(value, value)
        return self.done[id(value)][1]

    def _keep(self, value, new):
        self.done[id(value)] = value, new
        return new

    def _copy(self, value):
        match value:
            case type() | types.ModuleType() | str() | bytes() | int() | float() | None:
                return value
            case pd.DataFrame():
                new = value.copy()
                for position, kind in enumerate(value.dtypes):
                    if kind.kind == "O":
                        new.isetitem(position, self._objects(value.iloc[:, position]))
                return new
            case pd.Series():
                return self._objects(value)
            case np.ndarray() if value.dtype == object:
                new = self._keep(value, value.copy())
                new.flat = [self.copy(item) for item in value.flat]
                return new
            case np.ndarray() | pd.Index() | bytearray():
                return value.copy()
            case dict():
                new = self._keep(value, copy.copy(value))
                new.clear()
                new.update([(self.copy(key), self.copy(item)) for key, item in value.items()])
                return new
            case list() | deque():
                new = self._keep(value, copy.copy(value))
                new.clear()
                new.extend([self.copy(item) for item in value])
                return new
            case set() | frozenset():
                return type(value)([self.copy(item) for item in value])
            case tuple():
                new = [self.copy(item) for item in value]
                if all(one is other for one, other in zip(new, value, strict=True)):
                    return value
                return value._make(new) if hasattr(value, "_make") else type(value)(new)
            case functools.partial():
                return functools.partial(
                    self.copy(value.func), *self.copy(value.args), **self.copy(value.keywords)
                )
            case types.MethodType():
                return types.MethodType(self.copy(value.__func__), self.copy(value.__self__))
            case types.FunctionType():
                return self._function(value)
        return self._record(value) if _is_record(type(value)) else value

    def _objects(self, series: pd.Series) -> pd.Series:
        """A copy of a series of objects. Texts, the usual case, need no look at each."""
        new = series.copy()
        if pd.api.types.infer_dtype(series, skipna=True).startswith("mixed"):
            for position, item in enumerate(series):
                new.iat[position] = self.copy(item)
        return new

    def _function(self, value: types.FunctionType):
        ours = value.__globals__ is self.real
        if not ours and not value.__closure__:
            return value
        # Its variables from outside: a decorated function holds the notebook's in one.
        cells = tuple(types.CellType() for _ in value.__closure__ or ())
        space = self.new if ours else value.__globals__
        new = types.FunctionType(value.__code__, space, value.__name__, None, cells or None)
        self._keep(value, new)
        for cell, old in zip(cells, value.__closure__ or (), strict=True):
            with contextlib.suppress(ValueError):  # an empty one stays so
                cell.cell_contents = self.copy(old.cell_contents)
        new.__defaults__, new.__kwdefaults__ = self.copy(value.__defaults__), self.copy(value.__kwdefaults__)
        new.__qualname__, new.__doc__, new.__module__ = value.__qualname__, value.__doc__, value.__module__
        new.__annotations__ = value.__annotations__
        new.__dict__.update({name: self.copy(item) for name, item in vars(value).items()})
        return new

    def _record(self, value):
        new = self._keep(value, copy.copy(value))
        if hasattr(value, "__dict__"):
            vars(new).update({name: self.copy(item) for name, item in vars(value).items()})
        elif dataclasses.is_dataclass(value):  # with slots
            for field in dataclasses.fields(value):
                object.__setattr__(new, field.name, self.copy(getattr(value, field.name)))
        return new


@functools.cache
def _is_record(kind: type) -> bool:
    names = [f"{base.__module__}.{base.__qualname__}." for base in kind.__mro__]
    return dataclasses.is_dataclass(kind) or any(name.startswith(RECORDS) for name in names)


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


def _plant(fault, ns: dict):
    """Plant a fault; returns what restores."""
    planted = fault.plant(ns)
    if not inspect.isgenerator(planted):
        return lambda: None
    next(planted)

    def restore():
        with contextlib.suppress(StopIteration):
            next(planted)
            raise RuntimeError("a fault yields once, and this one did so again")

    return restore


def _traceback(error: BaseException) -> str:
    inner = error.__traceback__.tb_next  # without the frame of this file
    return "".join(traceback.format_exception(type(error), error, inner)).strip()


def _try(code: types.CodeType, real: dict, fault=None) -> str:
    """Run a check in a copy; what is wrong with the outcome, or nothing."""
    ns = namespace(real)
    restore = wrong = None
    try:
        restore = _plant(fault, ns) if fault else lambda: None
        try:
            exec(code, ns)
        except AssertionError as error:
            if not fault:
                wrong = f"fails in a copy of the namespace, without a fault:\n{_traceback(error)}"
            elif fault.says not in str(error):
                wrong = f"fails, but does not say {fault.says!r}:\n{_traceback(error)}"
        except BaseException as error:  # also KeyboardInterrupt and SystemExit: whatever it raises is shown, and the notebook goes on
            wrong = f"raises another error than AssertionError:\n{_traceback(error)}"
        else:
            wrong = "passes: it does not notice the fault" if fault else None
    except BaseException as error:
        wrong = f"was not tried, because the fault itself failed:\n{_traceback(error)}"
    finally:
        try:
            if restore:
                restore()
        except BaseException as error:
            wrong = f"was tried, and then the fault failed to restore:\n{_traceback(error)}"
    return wrong or ""


def trials(shell, number: str, tags: list[str], source: str, folder: str) -> None:
    """Try the check ``source`` without a fault and with each of its faults, and put what happened into ``report``."""
    global report
    with _unnoticed():
        faults = [fault for fault in load(number, Path(folder)) if fault.tag in tags]
        name = f"<the check {' '.join(tags)}>"
        linecache.cache[name] = len(source), None, source.splitlines(keepends=True), name
        code = compile(shell.transform_cell(source), name, "exec", dont_inherit=True)
        # Without a fault first. The cell itself follows and proves that it passes; this proves that it also does in a copy, so that
        # what fails below fails because of the fault.
        found = [
            {"tried": fault.name if fault else None, "wrong": _try(code, shell.user_ns, fault)}
            for fault in ([None, *faults] if faults else [])
        ]
    report = json.dumps(found)


def _answer(shell, number: str, source: str, check: str, says: str | None) -> str:
    """Give an answer to an exercise in a copy; what is wrong with the outcome, or nothing. ``says``: None for a right answer."""
    ns, said = namespace(shell.user_ns), io.StringIO()
    name = f"<an answer to {number}>"
    # Some tools read a function's source, as of a cell.
    linecache.cache[name] = len(source), None, source.splitlines(keepends=True), name
    try:
        exec(compile(shell.transform_cell(source), name, "exec", dont_inherit=True), ns)
        with contextlib.redirect_stdout(said):
            exec(compile(check, f"<the check of {number}>", "exec", dont_inherit=True), ns)
    except Exception as error:
        if type(error).__name__ != "NotYet":
            return f"raises another error than NotYet:\n{_traceback(error)}"
        if says is None:
            return f"is right, and was refused: {error}"
        return "" if says in str(error) else f"is refused, but not with {says!r}: {error}"
    told = said.getvalue()
    if says is not None:
        return f"is wrong, and was taken: {told}"
    return (
        ""
        if told.startswith(f"solved: {number}. ") and told.count("\n") == 1
        else f"is right, and the check says: {told!r}"
    )


def answers(shell, number: str, check: str, folder: str) -> None:
    """Try the answers to an exercise, right ones and wrong ones, and put what happened into ``report``. Nothing of it is recorded."""
    global report

    from exercises import core, exercise

    given = load_answers(f"{int(number.split('.')[0]):02d}", Path(folder)).get(number)
    every = [(exercise(number).worked.strip(), None)]
    if given:
        every += [(source, None) for source in given.right] + [
            (source, says) for says, source in given.wrong.items()
        ]
    with _unnoticed(), mock.patch.object(core, "record"):
        found = [
            {"tried": source, "wrong": _answer(shell, number, source, check, says)} for source, says in every
        ]
    report = json.dumps(found)

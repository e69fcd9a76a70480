"""The Open Inference Protocol: the rows of a request, or what is wrong with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from kserve import InferRequest
from kserve.errors import InvalidInput

from lifecycle.features.declared import LARGEST, LONGEST

MOST_ROWS = 1000
"""Rows in one request: more would hold up everybody else."""
Rows = list[dict[str, int | float | str]]
TEXT = "BYTES"
_BITS = {"INT32": 32, "INT64": 64}
"""The protocol's names of the types of whole numbers, with their size."""


def rows_of_v1(payload: Any, inputs: Mapping[str, str]) -> Rows:
    """The rows of a V1 request, ``{"instances": [{"key": value, ...}, ...]}``.

    Args:
        payload: the body.
        inputs: the protocol's type of each input, by name; see ``lifecycle.features.declared.protocol_type``.

    Raises:
        InvalidInput: another form, another input, a value of another type, no row or too many; the message
            says what is expected.
    """
    instances = payload.get("instances") if isinstance(payload, dict) else None
    if not isinstance(instances, list) or not all(
        isinstance(i, dict) and set(i) == set(inputs) for i in instances
    ):
        example = ", ".join(f'"{name}": {_EXAMPLES[kind]}' for name, kind in inputs.items())
        raise InvalidInput(
            f'a V1 request is JSON, {{"instances": [{{{example}}}, ...]}}, sent as application/json'
        )
    return _checked([[instance[name] for instance in instances] for name in inputs], inputs)


def rows_of_v2(payload: InferRequest, inputs: Mapping[str, str], output: str) -> Rows:
    """The rows of a V2 request: one tensor of shape [n] per input, by name.

    Args:
        payload: the request as KServe reads it.
        inputs: as in ``rows_of_v1``.
        output: the name of the only output.

    Raises:
        InvalidInput: as in ``rows_of_v1``.
    """
    tensors = {tensor.name: tensor for tensor in payload.inputs}
    if any(not isinstance(tensor.shape, list) for tensor in payload.inputs):
        raise InvalidInput("a shape is a list of numbers")
    expected = " and ".join(f"name {name}, datatype {kind}" for name, kind in inputs.items())
    fits = len(payload.inputs) == len(inputs) and set(tensors) == set(inputs)
    if not fits or any(
        tensors[name].datatype != kind or len(tensors[name].shape) != 1 for name, kind in inputs.items()
    ):
        raise InvalidInput(f"a V2 request has {len(inputs)} input: {expected}, shape [n], data [n values]")
    if any(asked.name != output for asked in payload.request_outputs or []):
        raise InvalidInput(f"the only output is {output}")
    if not isinstance(payload.id, str | None):
        raise InvalidInput("the id of a request is a string")
    for name in inputs:
        data = tensors[name].data
        if not isinstance(data, list) or len(data) != tensors[name].shape[0]:
            raise InvalidInput(f"the shape of input {name} does not fit its data")
    if len({len(tensors[name].data) for name in inputs}) > 1:
        raise InvalidInput("all inputs need the same number of values")
    return _checked([tensors[name].data for name in inputs], inputs)


_NUMBERS: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(_BITS, (int, np.integer)),
    **dict.fromkeys(LARGEST, (int, float, np.number)),
}
_PLAIN: dict[str, Callable] = {**dict.fromkeys(_BITS, int), **dict.fromkeys(LARGEST, float), TEXT: str}
_EXAMPLES = {**dict.fromkeys(_BITS, "1001"), **dict.fromkeys(LARGEST, "0.5"), TEXT: '"A1"'}


def _checked(columns: list[list], inputs: Mapping[str, str]) -> Rows:
    count = len(columns[0])
    if not count:
        raise InvalidInput("no row was asked for")
    if count > MOST_ROWS:
        raise InvalidInput(f"{count} rows in one request; at most {MOST_ROWS} are answered, so split it")
    for (name, kind), values in zip(inputs.items(), columns, strict=True):
        for value in values:
            _check(name, kind, value)
    plain = [
        [_PLAIN[kind](value) for value in values]
        for kind, values in zip(inputs.values(), columns, strict=True)
    ]
    return [dict(zip(inputs, row, strict=True)) for row in zip(*plain, strict=True)]


def _check(name: str, kind: str, value: Any) -> None:
    if kind == TEXT:
        if not isinstance(value, str):  # binary tensors of text are refused as well: JSON carries text
            raise InvalidInput(f"{name} must be text, not {value!r:.40}")
        if len(value) > LONGEST:
            raise InvalidInput(f"{name} must be at most {LONGEST} characters long")
        return
    bits = _BITS.get(kind)
    if isinstance(value, bool) or not isinstance(value, _NUMBERS[kind]):
        raise InvalidInput(f"{name} must be a {'whole ' if bits else ''}number, not {value!r:.40}")
    number: Any = value
    if bits and not -(2 ** (bits - 1)) <= number < 2 ** (bits - 1):
        raise InvalidInput(f"{name} must fit into {bits} bits: from -2^{bits - 1} to 2^{bits - 1} - 1")
    if not bits and not abs(number) <= LARGEST[kind]:  # also false for NaN
        raise InvalidInput(f"{name} must be a finite number of {kind[2:]} bits")

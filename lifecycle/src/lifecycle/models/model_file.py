"""A skops file is read here: its types, sizes and shape are checked before anything in it is built.

This module imports little: the child process of ``lifecycle.models.sandbox`` starts with it.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Collection
from pathlib import Path
from typing import Any, BinaryIO

MOST_BYTES = 200_000_000
"""Of a model's files, and of what they unpack to."""
MOST_SCHEMA_BYTES = 10_000_000
"""Of what ``schema.json`` unpacks to. A gradient boosting of 100 trees takes 2 MB; memory takes 28 times as
much."""
MOST_NODES = 200_000
"""Parts of a model. A gradient boosting of 100 trees has 7,000."""
_NODES = frozenset(f"{kind}Node" for kind in ("Dict", "Json", "List", "NdArray", "Object", "Tuple", "Type"))


def load(file: str | Path | BinaryIO, types: Collection[str]) -> Any:
    """Read a model that ``skops.io.dump`` wrote. Reading executes no code.

    A skops file names the type of each of its parts. All of them must be in ``types``: skops itself would
    also build what it trusts, functions of NumPy and scikit-learn among them, and what a file's own metadata
    asks to be trusted counts for nothing here.

    Args:
        file: its path, or the file itself, open for reading.
        types: full names of the types that it may hold.

    Raises:
        ValueError: the file is no skops file, is absurdly large, holds a type that is not in ``types``, or an
            object with an attribute in the place of a method; the message names it.
    """
    import skops.io

    unknown = sorted(types_of(file) - set(types))
    if unknown:
        raise ValueError(
            f"the model holds types that nobody vouches for: {', '.join(unknown)[:300]}. It was not loaded."
        )
    model = skops.io.load(file, trusted=sorted({name.partition(" (")[0] for name in types}))
    if shadow := _shadowed_method(model):
        raise ValueError(f"the model stores an attribute {shadow}, in the place of the method of that name.")
    return model


def types_of(file: str | Path | BinaryIO) -> set[str]:
    """The names of all types that a skops file would build."""
    try:
        with zipfile.ZipFile(file) as archive:
            sizes = {part.filename: part.file_size for part in archive.infolist()}
            if sum(sizes.values()) > MOST_BYTES:
                raise ValueError(
                    f"the model takes {sum(sizes.values()):,} bytes, and at most {MOST_BYTES:,} are read."
                )
            if sizes["schema.json"] > MOST_SCHEMA_BYTES:
                raise ValueError(f"the model's schema.json takes more than {MOST_SCHEMA_BYTES:,} bytes.")
            schema = json.loads(archive.read("schema.json"))
        return _types_in(schema, sizes)
    except (zipfile.BadZipFile, KeyError, RecursionError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(
            f"this is no model file: skops cannot read it ({type(error).__name__}: {str(error)[:200]})."
        ) from None
    except UnicodeDecodeError:
        raise ValueError("this is no model file: its schema.json is not text.") from None


def _types_in(schema: Any, sizes: dict[str, int]) -> set[str]:
    size, count, found, open_ = 0, 0, set(), [schema]
    named: dict[Any, dict] = {}
    while open_:
        node = open_.pop()
        if isinstance(node, dict):
            open_ += node.values()
            if "__loader__" not in node:
                continue
            count += 1
            if count > MOST_NODES:
                raise ValueError(f"the model has more than {MOST_NODES:,} parts.")
            # skops reads a part again for each node that names it.
            size += sizes.get(str(node.get("file")), 0)
            if size > MOST_BYTES:
                raise ValueError(f"the model unpacks to more than the {MOST_BYTES:,} bytes that are read.")
            # A node with the id of an earlier one stands for that. skops writes such a node whole; a short
            # one makes ten levels of ten parts, 10^10 visits, in a few bytes.
            if (name := node.get("__id__")) and named.setdefault(name, node) != node:
                raise ValueError(f"two parts of the model have one id, {str(name)[:40]}, and differ.")
            kind = f"{node.get('__module__')}.{node.get('__class__')}"
            loader = str(node["__loader__"])
            found.add(kind if loader in _NODES else f"{kind} ({loader})")
        elif isinstance(node, list):
            open_ += node
    return found


def _shadowed_method(model: Any) -> str:
    """The first attribute of an object in ``model`` that hides a method of its class; "" for none."""
    open_, seen = [model], set()
    while open_:
        part = open_.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        if isinstance(part, dict):
            open_ += part.values()
        elif isinstance(part, list | tuple):
            open_ += part
        elif not isinstance(part, type):
            stored = getattr(part, "__dict__", {})
            for name in stored:
                if callable(getattr(type(part), name, None)):
                    return f"{type(part).__name__}.{name}"
            open_ += stored.values()
    return ""

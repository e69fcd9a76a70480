"""Which checks of a notebook have passed since its kernel started, for the list at its end."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from IPython.display import Markdown

_FIRST_LINE = re.compile(r"# Check: ([\w-]+)\n")
_passed: set[str] = set()


def watch() -> None:
    """From now on note each check cell of this kernel that passes; ``begin`` calls it.

    A check cell names itself in its first line, ``# Check: <tag>``.
    """
    from IPython import get_ipython

    if shell := get_ipython():
        if _note in shell.events.callbacks["post_run_cell"]:
            shell.events.unregister("post_run_cell", _note)
        _passed.clear()
        shell.events.register("post_run_cell", _note)


def _note(result: Any) -> None:
    named = _FIRST_LINE.match(result.info.raw_cell or "") if result.info else None
    if named:
        (_passed.add if result.success else _passed.discard)(named[1])


def showed(sentences: Mapping[str, Sequence[str]]) -> Markdown:
    """The list of what a notebook showed.

    A sentence is ticked when all its checks have passed in this kernel; else it names those that have not.

    Args:
        sentences: the tags of its checks, by sentence.
    """
    from IPython.display import Markdown

    lines = []
    for sentence, names in sentences.items():
        waiting = [name for name in names if name not in _passed]
        lines.append(
            f"- ☐ {sentence} *(not passed in this run: {', '.join(waiting)})*"
            if waiting
            else f"- ✓ {sentence}"
        )
    return Markdown("\n".join(lines))

"""Which checks of a notebook have passed since its kernel started, for the list at its end."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from IPython.display import Markdown

_FIRST_LINE = re.compile(r"# Check: ([\w-]+)\n")
_passed: set[str] = set()
_not_run: dict[str, str] = {}


def watch() -> None:
    """From now on note each check cell of this kernel that passes; ``begin`` calls it.

    A check cell names itself in its first line, ``# Check: <tag>``.
    """
    from IPython import get_ipython

    if shell := get_ipython():
        if _note in shell.events.callbacks["post_run_cell"]:
            shell.events.unregister("post_run_cell", _note)
        _passed.clear()
        _not_run.clear()
        shell.events.register("post_run_cell", _note)


def _note(result: Any) -> None:
    named = _FIRST_LINE.match(result.info.raw_cell or "") if result.info else None
    if named:
        (_passed.add if result.success else _passed.discard)(named[1])


def not_run(name: str, why: str) -> None:
    """Note that what a check is about does not run here, so that ``showed`` does not tick it.

    Args:
        name: the tag of the check.
        why: half a sentence, such as "Prometheus isn't installed".
    """
    _not_run[name] = why


def showed(sentences: Mapping[str, Sequence[str]]) -> Markdown:
    """The list of what a notebook showed.

    A sentence is ticked when all its checks have passed in this kernel; else it says why one of them did not
    run here, or names those that have not passed.

    Args:
        sentences: the tags of its checks, by sentence.
    """
    from IPython.display import Markdown

    lines = []
    for sentence, names in sentences.items():
        reasons = [_not_run[name] for name in names if name in _not_run]
        waiting = [name for name in names if name not in _passed]
        if reasons:
            lines.append(f"- ○ {sentence} *(not run here: {'; '.join(reasons)})*")
        elif waiting:
            lines.append(f"- ☐ {sentence} *(not passed in this run: {', '.join(waiting)})*")
        else:
            lines.append(f"- ✓ {sentence}")
    return Markdown("\n".join(lines))

"""What a notebook shows only to a reader in JupyterLab or VS Code.

A run without a reader (papermill, nbval, the pages on the web) gets plain text instead.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable

SYMBOLS = {"solved": "✓", "not yet": "✗", "open": "○"}
_COLORS = {"solved": "#2e7d32", "not yet": "#b3261e", "open": "#5f6b7a"}


def has_reader() -> bool:
    """Whether JupyterLab or VS Code executes this cell: they name it, and papermill and nbconvert don't."""
    from IPython import get_ipython

    kernel = getattr(get_ipython(), "kernel", None)
    return kernel is not None and "cellId" in kernel.get_parent("shell").get("metadata", {})


def show_card(state: str, title: str, text: str) -> None:
    """Show how an exercise went: a symbol and a word, so that the color is never the only sign.

    Args:
        state: ``"solved"``, ``"not yet"``, or ``"open"``.
        title: which exercise it is.
        text: what to know about it.
    """
    from IPython.display import display

    symbol, color = SYMBOLS[state], _COLORS[state]
    box = (
        f"border:1px solid {color};border-left:6px solid {color};border-radius:4px;padding:8px 12px;"
        "max-width:70ch;white-space:normal;overflow-wrap:anywhere;line-height:1.5"
    )
    heading = f"{html.escape(state.capitalize())}: {html.escape(title)}"
    shown = (
        f'<div style="{box}"><b><span style="color:{color}">{symbol}</span> {heading}</b>'
        f"<br>{_with_code(text)}</div>"
    )
    display({"text/html": shown, "text/plain": f"{state}: {title}. {text}"}, raw=True)


def _with_code(text: str) -> str:
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text))


def instead_of_tracebacks(kind: type[Exception], show: Callable[[Exception], None]) -> None:
    """Call ``show(error)`` in place of a traceback when a cell raises an error of this kind.

    The cell still fails, so that JupyterLab doesn't run those after it.
    """
    from IPython import get_ipython

    get_ipython().set_custom_exc((kind,), lambda shell, etype, error, tb, tb_offset=None: show(error))

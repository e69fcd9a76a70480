"""What is said to a learner, in place of a traceback."""

from __future__ import annotations

import textwrap


class Told(Exception):
    """Something that a learner can put right.

    A notebook shows its sentence alone: a traceback would lead into the code of the workshop.
    """

    shown = "Error: ..."

    def _render_traceback_(self) -> list[str]:  # IPython asks for it
        return textwrap.wrap(self.shown.replace("...", str(self)), 100, break_long_words=False)

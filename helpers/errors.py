"""What is said to a learner, in place of a traceback."""

from __future__ import annotations

import textwrap


class Told(Exception):
    """Something that a learner can put right. A notebook shows its sentence alone: a traceback would lead into the code of the workshop."""

    title = "Error"

    def _render_traceback_(self) -> list[str]:  # IPython asks for it
        return textwrap.wrap(f"{self.title}: {self}", 100, break_long_words=False)

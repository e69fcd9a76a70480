"""The graph of a compiled Kubeflow pipeline, drawn from its file as Kubeflow's page draws it: top down."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from helpers import plots

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH, HEIGHT, GAP, PAD, TITLE = 2.1, 0.42, 0.32, 0.22, 0.4
"""Of a box, between two rows, inside a frame, and of a frame's title; in inches."""
_VALUE = re.compile(r"inputs\.parameter_values\['(?:pipelinechannel--)?(.+?)(?:-Output)?'\]")


@dataclass(frozen=True)
class Part:
    """A step, or with ``rows`` a gate, a loop, an exit handler, or the whole pipeline.

    Attributes:
        name: of the task.
        title: of a frame; empty for a step.
        rows: what is inside; a part stands below all that it depends on.
        edges: each entry of ``dependentTasks`` inside, with the task that has it.
    """

    name: str
    title: str = ""
    rows: tuple[tuple[Part, ...], ...] = ()
    edges: tuple[tuple[str, str], ...] = ()

    @property
    def size(self) -> tuple[float, float]:
        """Width and height."""
        if not self.rows:
            return WIDTH, HEIGHT
        sizes = [[part.size for part in row] for row in self.rows]
        width = max(sum(width for width, _ in row) + GAP * (len(row) - 1) for row in sizes)
        height = sum(max(height for _, height in row) for row in sizes) + GAP * (len(sizes) - 1)
        return max(width + 2 * (PAD + self._past), 0.07 * len(self.title) + 0.3), height + TITLE + PAD

    @property
    def _past(self) -> float:
        """The room on each side for arrows that pass a row."""
        return 0.25 if any(self.steps(*edge) > 1 for edge in self.edges) else 0

    def steps(self, start: str, end: str) -> int:
        """The number of rows from one part down to another."""
        row = {part.name: number for number, parts in enumerate(self.rows) for part in parts}
        return row[end] - row[start]

    def words(self) -> str:
        """What the picture shows, for a reader who cannot see it."""
        after = {part.name: [a for a, b in self.edges if b == part.name] for row in self.rows for part in row}
        said = []
        for part in (part for row in self.rows for part in row):
            inside = f" ({part.title}) with {part.words()}" if part.rows else ""
            waits = f" after {' and '.join(after[part.name])}" if after[part.name] else ""
            said.append(f"{part.name}{waits}{inside}")
        return "; ".join(said)


def read(file: Path) -> Part:
    """The graph in a compiled pipeline."""
    import yaml

    specification = next(yaml.safe_load_all(file.read_text()))
    return _part("pipeline", specification["root"], specification["components"], "pipeline")


def _part(name: str, component: dict, components: dict, title: str) -> Part:
    if "dag" not in component:
        return Part(name)
    tasks = component["dag"]["tasks"]
    edges = [(before, task) for task in sorted(tasks) for before in tasks[task].get("dependentTasks", [])]
    rows: list[list[str]] = []
    left = sorted(tasks)
    while left:
        free = [task for task in left if not any(end == task and start in left for start, end in edges)]
        rows.append(free)
        left = [task for task in left if task not in free]
    parts = tuple(
        tuple(
            _part(task, components[tasks[task]["componentRef"]["name"]], components, _title(tasks[task]))
            for task in row
        )
        for row in rows
    )
    return Part(name, title, parts, tuple(edges))


def _title(task: dict) -> str:
    """Of a frame: its name, and when or how often what is inside runs."""
    name = task["taskInfo"]["name"]
    if condition := task.get("triggerPolicy", {}).get("condition"):
        shown = _VALUE.sub(r"\1", " ".join(condition.split()))
        return f"{name}: if {shown}"
    if items := task.get("parameterIterator", {}).get("items"):
        values = items.get("inputParameter") or items.get("raw", "")
        return f"{name}: for each of {values.removeprefix('pipelinechannel--')}"
    return str(name)


def pipeline(file: Path) -> None:
    """Draw the graph of a compiled pipeline: boxes for steps, frames for gates, loops, and exit handlers.

    An arrow is an entry of ``dependentTasks`` in the file.

    Args:
        file: the compiled pipeline.
    """
    whole = read(file)
    width, height = whole.size
    fig, ax = plots.figure(width=width, height=height - TITLE)
    ax.set_axis_off()
    _draw(ax, whole, 0, 0)
    ax.set(xlim=(0, width), ylim=(height, TITLE - 0.02))
    plots.show(fig, f"The graph of a pipeline, top down: {whole.words()}.")


def _draw(ax: Axes, whole: Part, left: float, top: float) -> None:
    from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

    places = {}
    middle, y = left + whole.size[0] / 2, top + TITLE
    for row in whole.rows:
        x = middle - (sum(part.size[0] for part in row) + GAP * (len(row) - 1)) / 2
        for part in row:
            width, height = part.size
            shape = FancyBboxPatch(
                (x, y),
                width,
                height,
                boxstyle="round,pad=0,rounding_size=0.08",
                facecolor="none" if part.rows else plots.BLUE,
                edgecolor=plots.ORANGE if part.rows else "none",
            )
            ax.add_patch(shape)
            if part.rows:
                ax.text(x + 0.12, y + TITLE / 2, part.title, va="center", color=plots.INK, fontsize=9)
                _draw(ax, part, x, y)
            else:
                place = x + width / 2, y + height / 2
                ax.text(*place, part.name, ha="center", va="center", color="white", fontsize=10)
            places[part.name] = (x, y, width, height)
            x += width + GAP
        y += max(part.size[1] for part in row) + GAP
    for start, end in whole.edges:
        (x, y, width, height), (x_end, y_end, width_end, height_end) = places[start], places[end]
        first, last, bend = (x + width / 2, y + height), (x_end + width_end / 2, y_end), 0.0
        if whole.steps(start, end) > 1:  # past the rows between them, on the right
            right = x + width
            first, bend = (right, y + height / 2), -0.4
            last = (right, y_end + height_end / 2) if height_end == HEIGHT else (right + 0.1, y_end)
        arrow = FancyArrowPatch(
            first,
            last,
            arrowstyle="-|>",
            connectionstyle=f"arc3,rad={bend}",
            mutation_scale=11,
            color=plots.MUTED,
            shrinkA=1,
            shrinkB=1,
        )
        ax.add_patch(arrow)

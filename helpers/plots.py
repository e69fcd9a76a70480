"""Plots in one style. Each is shown with a text that says what the picture shows, for readers who cannot see it."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, MUTED, GRID = "#1f2933", "#7b8794", "#e4e7eb"
BLUE, ORANGE, GREEN, RED, PURPLE, GREY = "#2f6fb0", "#d9822b", "#3a8f5c", "#c23b3b", "#7a5195", "#b8c2cc"
CYCLE = [BLUE, ORANGE, GREEN, PURPLE, RED, GREY]


def figure(
    width: float = 7.5, height: float = 3.2, columns: int = 1, **options: object
) -> tuple[Figure, Axes | np.ndarray]:
    """An empty figure and its axes in the course's style; sizes in inches."""
    from matplotlib.figure import (
        Figure as NewFigure,
    )  # not pyplot: nothing is kept alive, and no backend is chosen for the reader

    fig = NewFigure(figsize=(width, height), layout="constrained", dpi=110)
    axes = fig.subplots(1, columns, **options)
    for ax in np.atleast_1d(axes):
        ax.spines[["top", "right"]].set_visible(False)
        ax.spines[["left", "bottom"]].set_color(MUTED)
        ax.tick_params(colors=MUTED, labelcolor=INK)
        ax.set_prop_cycle(color=CYCLE)
        ax.set_axisbelow(True)
    return fig, axes


def show(fig: Figure, alt: str) -> None:
    """Display ``fig`` with ``alt``, one or two sentences that say what it shows."""
    from IPython.display import display

    buffer = io.BytesIO()
    fig.savefig(buffer, format="png", facecolor="white", metadata={"Software": None})
    display(
        {"image/png": buffer.getvalue(), "text/plain": f"[picture: {alt}]"},
        raw=True,
        metadata={"image/png": {"alt": alt}},
    )


def bars(
    values: Mapping[str, float],
    *,
    label: str,
    alt: str,
    limit: tuple[str, float] | None = None,
    lowest: float = 0.0,
    colors: Sequence[str] = (),
) -> None:
    """One horizontal bar per name, with its value; ``limit`` draws a named line across."""
    fig, ax = figure(height=0.9 + 0.42 * len(values))
    names = list(values)
    drawn = ax.barh(names, [values[n] for n in names], color=list(colors) or BLUE, height=0.62)
    ax.bar_label(drawn, fmt="%.3f", padding=4, color=INK)
    ax.invert_yaxis()
    ax.set_xlabel(label, color=INK)
    top = max(*values.values(), limit[1] if limit else 0)
    ax.set_xlim(lowest, top + 0.12 * (top - lowest))
    if limit:
        ax.axvline(limit[1], color=RED, linestyle="--", linewidth=1.4)
        ax.set_title(f"dashed: {limit[0]} ({limit[1]:.3f})", color=RED, fontsize=9, loc="right")
    show(fig, alt)


def histograms(columns: Mapping[str, pd.Series], *, alt: str, bins: int = 40) -> None:
    """One histogram per column, side by side."""
    fig, axes = figure(width=2.6 * len(columns), height=2.5, columns=len(columns))
    for ax, (name, values), color in zip(np.atleast_1d(axes), columns.items(), CYCLE * 3, strict=False):
        ax.hist(values.dropna(), bins=bins, color=color)
        ax.set_title(name, color=INK, fontsize=10)
        ax.set_yticks([])
        ax.spines["left"].set_visible(False)
    show(fig, alt)


def boxes(
    ax: Axes,
    places: Mapping[str, tuple[float, float, str]],
    arrows: Sequence[tuple[str, str, str]],
    size: tuple[float, float] = (1.7, 0.62),
) -> None:
    """A drawing of boxes (centre x, centre y, colour) and labelled arrows between them, on axes without ticks."""
    from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

    ax.set_axis_off()
    width, height = size
    drawn = {}
    for text, (x, y, color) in places.items():
        box = FancyBboxPatch(
            (x - width / 2, y - height / 2),
            width,
            height,
            boxstyle="round,pad=0.03,rounding_size=0.08",
            facecolor=color,
            edgecolor="none",
        )
        drawn[text] = ax.add_patch(box)
        ax.text(x, y, text, ha="center", va="center", color="white", fontsize=9)
    for start, end, label in arrows:
        (x0, y0, _), (x1, y1, _) = places[start], places[end]
        arrow = FancyArrowPatch(
            (x0, y0),
            (x1, y1),
            patchA=drawn[start],
            patchB=drawn[end],
            arrowstyle="-|>",
            mutation_scale=12,
            color=MUTED,
            shrinkA=2,
            shrinkB=2,
        )
        ax.add_patch(arrow)
        ax.text((x0 + x1) / 2, (y0 + y1) / 2 + 0.08, label, ha="center", va="bottom", fontsize=8, color=INK)
    xs, ys = [p[0] for p in places.values()], [p[1] for p in places.values()]
    ax.set_xlim(min(xs) - width / 2 - 0.1, max(xs) + width / 2 + 0.1)
    ax.set_ylim(min(ys) - height / 2 - 0.15, max(ys) + height / 2 + 0.15)

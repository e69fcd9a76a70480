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
    values = dict(values)
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
        paper = {"facecolor": "white", "edgecolor": "none", "pad": 1}  # the arrow passes behind the word
        lift = 0.14 if y0 == y1 else 0
        if label:
            ax.text((x0 + x1) / 2, (y0 + y1) / 2 + lift, label, ha="center", va="center", fontsize=8, bbox=paper)
    xs, ys = [p[0] for p in places.values()], [p[1] for p in places.values()]
    ax.set_xlim(min(xs) - width / 2 - 0.1, max(xs) + width / 2 + 0.1)
    ax.set_ylim(min(ys) - height / 2 - 0.15, max(ys) + height / 2 + 0.15)


def layers(columns: Sequence[Sequence[str | None]], edges: Sequence[tuple[str, str]], *, alt: str) -> None:
    """Boxes in columns, left to right (None leaves a place empty), with an arrow for each edge between two that are drawn."""
    colors = [MUTED, BLUE, PURPLE, GREEN, ORANGE]
    tallest = max(map(len, columns))
    places = {
        name: (2.6 * x, (tallest - 1) / 2 * 0.9 + ((len(names) - 1) / 2 - y) * 0.9, colors[x % len(colors)])
        for x, names in enumerate(columns)
        for y, name in enumerate(names)
        if name
    }
    fig, ax = figure(width=2.3 * len(columns), height=0.95 * tallest)
    arrows = [(a, b, "") for a, b in sorted(edges) if a in places and b in places]  # sorted: the same picture each time
    boxes(ax, places, arrows, size=(2.1, 0.5))
    show(fig, alt)


def as_of(rows: pd.DataFrame, value: str, time: pd.Timestamp, *, alt: str) -> None:
    """One driver's ``rows`` as dots over time, the question's ``time`` as a line, and the dot that a point-in-time join takes."""
    fig, ax = figure(height=2.6)
    known = rows.event_timestamp <= time
    ax.scatter(rows.event_timestamp[known], rows[value][known], color=BLUE, label=f"known at {time:%H:%M}", zorder=3)
    ax.scatter(
        rows.event_timestamp[~known], rows[value][~known], color="white", edgecolor=RED, label="the future", zorder=3
    )
    ax.axvline(time, color=INK, linewidth=1)
    taken = rows[known].iloc[-1]
    ax.annotate(
        "taken",
        (taken.event_timestamp, taken[value]),
        xytext=(-45, 18),
        textcoords="offset points",
        color=BLUE,
        arrowprops={"arrowstyle": "->", "color": BLUE},
    )
    ax.xaxis.set_major_formatter(lambda day, _: f"{round(day % 1 * 24) % 24:02d}:00")
    ax.set(ylabel=value, ylim=(0, 1))
    ax.legend(frameon=False, loc="upper right", fontsize=8)
    show(fig, alt)


def outlines(
    baseline: Mapping[str, Mapping], windows: Mapping[str, Mapping[str, Mapping]], features: Sequence[str], *, alt: str
) -> None:
    """Histograms of ``features`` as Feast's monitoring gives them: the baseline filled, each window as a line, all as densities."""

    def draw(ax: Axes, histogram: Mapping, **style: object) -> None:
        counts, edges = np.array(histogram["counts"]), np.array(histogram["bins"])
        ax.stairs(counts / counts.sum() / np.diff(edges), edges, **style)

    fig, axes = figure(width=8.5, height=2.6, columns=len(features))
    for ax, feature in zip(np.atleast_1d(axes), features, strict=True):
        draw(ax, baseline[feature], fill=True, color=GREY, label="baseline")
        for (name, window), color in zip(windows.items(), CYCLE, strict=False):
            draw(ax, window[feature], color=color, linewidth=1.8, label=name)
        ax.set_title(feature, color=INK, fontsize=10)
        ax.set_yticks([])
        ax.spines["left"].set_visible(False)
    np.atleast_1d(axes)[0].legend(frameon=False, fontsize=8)
    show(fig, alt)


def parallel(table: pd.DataFrame, *, alt: str) -> None:
    """Parallel coordinates: a line per row through its columns, each scaled to its range; the higher the last column, the darker."""
    ordered = table.astype(float).sort_values(table.columns[-1], kind="stable")
    lines = (ordered - ordered.min()) / (ordered.max() - ordered.min()).replace(0, 1)
    fig, ax = figure(height=2.8)
    for line, good in zip(lines.to_numpy(), np.linspace(0, 1, len(lines)), strict=True):
        ax.plot(lines.columns, line, color=BLUE, alpha=0.1 + 0.9 * good**3, linewidth=0.8 + 1.4 * good**3)
    ax.set_yticks([0, 1], ["low", "high"])
    show(fig, alt)


def history(values: pd.Series, *, alt: str) -> None:
    """A dot per trial of a sweep, and a line for the best so far."""
    fig, ax = figure(height=2.6)
    ax.scatter(values.index, values, color=GREY, label="trial")
    ax.plot(values.index, values.cummax(), color=BLUE, label="best so far")
    ax.set(xlabel="trial", ylabel="AUC")
    ax.legend(frameon=False, loc="lower right")
    show(fig, alt)


def curves(table: pd.DataFrame, stopped: pd.Series, *, label: str, alt: str) -> None:
    """A line per column over the epochs in the index: grey, or red with dots where ``stopped`` is true."""
    fig, ax = figure(height=2.6)
    for name, curve in table.items():
        style = {"color": RED, "marker": "o", "markersize": 3} if stopped[name] else {"color": GREY}
        ax.plot(curve.index + 1, curve, linewidth=1.3, zorder=2 + stopped[name], **style)
    for color, text in ((GREY, "to the end"), (RED, "pruned")):
        ax.plot([], [], color=color, label=text)
    ax.set(xlabel="epoch", ylabel=label)
    ax.legend(frameon=False, loc="center right")
    show(fig, alt)


def roc_and_calibration(labels: pd.Series, scores: Mapping[str, Sequence[float]], *, alt: str) -> None:
    """Two plots of each score against the 0/1 labels: ranking (ROC curve), and share that came true per predicted probability."""
    from sklearn.calibration import calibration_curve
    from sklearn.metrics import roc_curve

    fig, (left, right) = figure(height=3.4, columns=2)
    for name, given in scores.items():
        false_alarms, found, _ = roc_curve(labels, given)
        left.plot(false_alarms, found, label=name)
        came, said = calibration_curve(labels, given, n_bins=8, strategy="quantile")
        right.plot(said, came, marker="o", markersize=4, label=name)
    left.set(xlabel="false alarms, share of the negatives", ylabel="found, share of the positives", title="ROC")
    right.set(xlabel="predicted probability", ylabel="share that came true", title="calibration")
    for ax in (left, right):
        ax.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1, zorder=1)
        ax.set(xlim=(0, 1), ylim=(0, 1))
        ax.legend(frameon=False, loc="lower right", fontsize=8)
    show(fig, alt)

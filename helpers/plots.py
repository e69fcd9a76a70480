"""Plots in one style. Each is shown with a text that says what the picture shows, for readers who cannot see
it."""

from __future__ import annotations

import base64
import contextlib
import html
import io
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from helpers import lab

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# All but GREY, which only fills, stand out from white by 4.5:1 or more.
INK, MUTED, GREY = "#1f2933", "#616e7c", "#b8c2cc"
# The tools: Feast, Kubeflow, MLflow; monitoring.
BLUE, ORANGE, GREEN, PURPLE = "#2f6fb0", "#b45309", "#2e7d4f", "#7a5195"
# The data.
TEAL, PLUM, OCHRE, RED = "#00717a", "#8a3a76", "#806000", "#c23b3b"
CYCLE = [TEAL, PLUM, OCHRE, RED, MUTED]
TYPE = 10  # points, of every text


def figure(width: float = 7.5, height: float = 3.2, columns: int = 1, **options: Any) -> tuple[Figure, Any]:
    """An empty figure in the course's style, and its axes (an array of them for more than one column); sizes
    in inches."""
    # Not pyplot: it keeps figures alive, and chooses a backend.
    from matplotlib.figure import Figure as NewFigure

    fig = NewFigure(figsize=(width, height), layout="constrained", dpi=110)
    axes = fig.subplots(1, columns, **options)
    for ax in np.atleast_1d(axes):
        _style(ax)
        ax.set_prop_cycle(color=CYCLE)
    return fig, axes


def _style(ax: Axes) -> None:
    ax.set_facecolor("white")
    ax.grid(False)
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(MUTED)
    ax.tick_params(colors=MUTED, labelcolor=INK)
    ax.set_axisbelow(True)


@contextlib.contextmanager
def drawn_by_a_tool(width: float = 7.5, height: float = 3.2) -> Iterator[None]:
    """What a tool draws with pyplot in this block gets the course's style; no setting stays changed.

    Optuna's pictures take no axes, switch matplotlib to a style of their own, and warn that they are
    experimental.
    """
    import matplotlib.pyplot as plt

    before = plt.get_fignums()
    with warnings.catch_warnings(), plt.rc_context():
        warnings.filterwarnings("ignore", message=r".*\.plot_\w+ is experimental")
        yield
        for number in set(plt.get_fignums()) - set(before):
            fig = plt.figure(number)
            fig.set_size_inches(width, height)
            fig.set_dpi(110)
            fig.set_layout_engine("tight")
            for ax in fig.axes:
                _style(ax)
                for place in ("left", "center"):
                    ax.set_title("", loc=place)  # the text above the picture names it
                ax.xaxis.label.set(color=INK, fontsize=TYPE)
                ax.yaxis.label.set(color=INK, fontsize=TYPE)
                if legend := ax.get_legend():
                    legend.set_frame_on(False)
            plt.close(fig)  # or the notebook would show it a second time


def show(fig: Figure, alt: str) -> None:
    """Display ``fig`` with ``alt``, one or two sentences that say what it shows.

    As HTML: JupyterLab shows a picture of the type image/png without any ``alt``, whatever its metadata says.
    """
    from IPython.display import display
    from PIL import Image

    drawn, small = io.BytesIO(), io.BytesIO()
    fig.savefig(drawn, format="png", facecolor="white")
    # 256 colors are enough for a chart, and a notebook stays a third of its size.
    Image.open(drawn).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(
        small, format="png", optimize=True
    )
    picture = base64.b64encode(small.getvalue()).decode()
    shown = f'<img alt="{html.escape(alt)}" src="data:image/png;base64,{picture}">'
    display({"text/html": shown, "text/plain": f"[picture: {alt}]"}, raw=True)


def bars(
    values: Mapping[str, float],
    *,
    label: str,
    alt: str,
    limit: tuple[str, float] | None = None,
    lowest: float = 0.0,
    colors: Sequence[str] = (),
) -> None:
    """One horizontal bar per name; the values stand in a column beside the axes, where ``limit``, a named
    line across, crosses none."""
    values = dict(values)
    fig, ax = figure(height=0.9 + 0.42 * len(values))
    names = list(values)
    ax.barh(names, [values[n] for n in names], color=list(colors) or TEAL, height=0.62)
    for row, name in enumerate(names):
        ax.text(1.01, row, f"{values[name]:.3f}", color=INK, va="center", transform=ax.get_yaxis_transform())
    ax.invert_yaxis()
    ax.set_xlabel(label, color=INK)
    top = max(*values.values(), limit[1] if limit else 0)
    ax.set_xlim(lowest, top + 0.03 * (top - lowest))
    if limit:
        ax.axvline(limit[1], color=RED, linestyle="--", linewidth=1.4)
        ax.set_title(f"dashed: {limit[0]} ({limit[1]:.3f})", color=RED, fontsize=TYPE, loc="right")
    show(fig, alt)


def histograms(columns: Mapping[str, pd.Series], *, alt: str, bins: int = 40) -> None:
    """One histogram per column, side by side."""
    fig, axes = figure(width=2.6 * len(columns), height=2.5, columns=len(columns))
    for ax, (name, values), color in zip(np.atleast_1d(axes), columns.items(), CYCLE * 3, strict=False):
        ax.hist(values.dropna(), bins=bins, color=color)
        ax.set_title(name, color=INK, fontsize=TYPE)
        ax.set_yticks([])
        ax.spines["left"].set_visible(False)
    show(fig, alt)


def boxes(
    ax: Axes,
    places: Mapping[str, tuple[float, float, str]],
    arrows: Sequence[tuple[str, str, str]],
    size: tuple[float, float] = (1.7, 0.62),
) -> None:
    """A drawing of boxes (centre x, centre y, colour) and labelled arrows between them, on axes without
    ticks."""
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
        ax.text(x, y, text, ha="center", va="center", color="white", fontsize=TYPE)
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
            zorder=0.5,  # behind the boxes
        )
        ax.add_patch(arrow)
        paper = {"facecolor": "white", "edgecolor": "none", "pad": 1}  # the arrow passes behind the word
        lift = 0.14 if y0 == y1 else 0
        if label:
            ax.text(
                (x0 + x1) / 2,
                (y0 + y1) / 2 + lift,
                label,
                ha="center",
                va="center",
                fontsize=TYPE,
                bbox=paper,
            )
    xs, ys = [p[0] for p in places.values()], [p[1] for p in places.values()]
    ax.set_xlim(min(xs) - width / 2 - 0.1, max(xs) + width / 2 + 0.1)
    ax.set_ylim(min(ys) - height / 2 - 0.15, max(ys) + height / 2 + 0.15)


def lifecycle() -> None:
    """The way of a model from raw data to a served prediction and back, with the tool at each station."""
    places = {
        "raw data": (0, 0, MUTED),
        "Feast\noffline store": (2.7, 0, BLUE),
        "Pipelines,\nruns in MLflow": (5.4, 0, ORANGE),
        "MLflow\nmodel registry": (8.1, 0, GREEN),
        "KServe\nmodel server": (10.8, 0, ORANGE),
        "Feast\nonline store": (8.1, -1.5, BLUE),
        "monitoring": (8.1, 1.5, PURPLE),
    }
    raw, offline, pipelines, models, server, online, watch = places
    arrows = [(raw, offline, "define"), (offline, pipelines, "retrieve"), (pipelines, models, "register")]
    arrows += [(models, server, "promote"), (offline, online, "materialize"), (online, server, "read")]
    arrows += [(server, watch, "measure"), (watch, pipelines, "retrain")]
    fig, ax = figure(width=9.5, height=3.4)
    boxes(ax, places, arrows)
    way = "Raw data goes through Feast, pipelines with MLflow runs and the model registry to the model server"
    show(
        fig,
        f"{way}, which reads Feast's online store; monitoring leads from the server back to the pipelines.",
    )


def layers(columns: Sequence[Sequence[str | None]], edges: Sequence[tuple[str, str]], *, alt: str) -> None:
    """Boxes in columns, left to right (None leaves a place empty), with an arrow for each edge between two
    that are drawn."""
    colors = [MUTED, TEAL, PLUM, OCHRE, INK]
    tallest = max(map(len, columns))
    places = {
        name: (2.6 * x, (tallest - 1) / 2 * 0.9 + ((len(names) - 1) / 2 - y) * 0.9, colors[x % len(colors)])
        for x, names in enumerate(columns)
        for y, name in enumerate(names)
        if name
    }
    fig, ax = figure(width=2.3 * len(columns), height=0.95 * tallest)
    arrows = [
        (a, b, "") for a, b in sorted(edges) if a in places and b in places
    ]  # sorted: the same picture each time
    boxes(ax, places, arrows, size=(2.1, 0.5))
    show(fig, alt)


def as_of(rows: pd.DataFrame, value: str, time: pd.Timestamp, ttl: pd.Timedelta) -> None:
    """Draw a point-in-time join: the rows that are too old, valid, or in the future, and the one returned.

    Args:
        rows: one driver's rows, in the order of ``event_timestamp`` and ``created``.
        value: the feature's column.
        time: the question's time; the view's ``ttl`` reaches back from it.
    """
    from matplotlib.dates import DateFormatter

    future, too_old = rows.event_timestamp > time, rows.event_timestamp < time - ttl
    valid = ~future & ~too_old
    fig, ax = figure(width=8.5, height=2.9)
    ax.axvspan(time - ttl, time, color=TEAL, alpha=0.08, linewidth=0)
    ax.axvline(time, color=INK, linewidth=1.2)
    styles = {
        "too old": (too_old, MUTED, "."),
        "valid": (valid, TEAL, "o"),
        "in the future": (future, RED, "x"),
    }
    for label, (chosen, color, marker) in styles.items():
        ax.scatter(
            rows.event_timestamp[chosen], rows[value][chosen], s=12, color=color, marker=marker, label=label
        )
    question = (
        f"The question on {time:%d %b at %H:%M} with a time to live of {ttl / pd.Timedelta('1D'):g} days"
    )
    answer = "returns null: no row is valid"
    if valid.any():
        row = rows[valid].iloc[-1]
        answer = f"returns {row[value]:.4f}, the row of {row.event_timestamp:%d %b at %H:%M}"
        ax.scatter(row.event_timestamp, row[value], s=90, facecolor="none", edgecolor=INK, linewidth=1.8)
    ax.set_title(f"{question}\n{answer}", color=INK, fontsize=TYPE, loc="left")
    ax.xaxis.set_major_formatter(DateFormatter("%d %b"))
    edge = pd.Timedelta("12h")
    ax.set(ylabel=value, ylim=(0, 1))
    ax.set_xlim(rows.event_timestamp.min() - edge, rows.event_timestamp.max() + pd.Timedelta("15D"))
    ax.legend(frameon=False, loc="upper right", fontsize=TYPE)
    show(fig, f"One driver's hourly {value} over time. {question} {answer}.")


def with_sliders(draw: Callable[..., None], **ranges: tuple[float, float, float, float]) -> None:
    """Draw a picture, in JupyterLab with a slider for each argument.

    A run without a person (papermill, the pages on the web) shows the picture of the start values alone.

    Args:
        draw: draws one picture; takes each name of ``ranges``.
        ranges: lowest, highest, step, and start of each slider.
    """
    starts = {name: start for name, (*_, start) in ranges.items()}
    if not lab.has_reader():
        draw(**starts)
        return
    from ipywidgets import FloatSlider, Layout, interact

    wide, style = Layout(width="600px"), {"description_width": "150px"}
    interact(
        draw,
        **{
            name: FloatSlider(
                min=low,
                max=high,
                step=step,
                value=start,
                description=name.replace("_", " "),
                layout=wide,
                style=style,
                continuous_update=False,
            )
            for name, (low, high, step, start) in ranges.items()
        },
    )


def outlines(
    baseline: Mapping[str, Mapping],
    windows: Mapping[str, Mapping[str, Mapping]],
    features: Sequence[str],
    *,
    alt: str,
) -> None:
    """Histograms of ``features`` as Feast's monitoring gives them: the baseline filled, each window as a
    line, all as densities."""

    def draw(ax: Axes, histogram: Mapping, **style: Any) -> None:
        counts, edges = np.array(histogram["counts"]), np.array(histogram["bins"])
        ax.stairs(counts / counts.sum() / np.diff(edges), edges, **style)

    fig, axes = figure(width=8.5, height=2.6, columns=len(features))
    for ax, feature in zip(np.atleast_1d(axes), features, strict=True):
        draw(ax, baseline[feature], fill=True, color=GREY, label="baseline")
        for (name, window), color in zip(windows.items(), CYCLE, strict=False):
            draw(ax, window[feature], color=color, linewidth=1.8, label=name)
        ax.set_title(feature, color=INK, fontsize=TYPE)
        ax.set_yticks([])
        ax.spines["left"].set_visible(False)
    np.atleast_1d(axes)[0].legend(frameon=False, fontsize=TYPE)
    show(fig, alt)

"""The picture of a point-in-time join, its sliders, and the graph of a compiled pipeline."""

from types import SimpleNamespace

import ipywidgets
import pandas as pd
import pytest
from kfp import compiler, dsl

from helpers import graphs, plots

ROWS = pd.DataFrame(
    {
        "event_timestamp": pd.to_datetime(["2025-02-01", "2025-02-02", "2025-02-05"], utc=True),
        "conv_rate": [0.1, 0.2, 0.3],
    }
)


def against_white(color: str) -> float:
    """The contrast of WCAG 2."""
    parts = [int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 1.05 / (0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2] + 0.05)


def test_text_stands_out_and_data_does_not_look_like_a_tool():
    tools = {plots.BLUE, plots.ORANGE, plots.GREEN, plots.PURPLE}
    for color in {plots.INK, *tools, *plots.CYCLE}:
        assert against_white(color) >= 4.5, color
    assert not tools & set(plots.CYCLE)


@pytest.mark.parametrize(
    ("day", "ttl", "answer"),
    [
        ("2025-02-04", 7, "returns 0.2000, the row of 02 Feb at 00:00"),
        ("2025-02-04", 1, "returns null"),
        ("2025-02-05", 1, "returns 0.3000"),  # at its own time, a row counts
        ("2025-02-03", 1, "returns 0.2000"),  # and as old as the time to live
    ],
)
def test_draws_the_row_that_a_point_in_time_join_returns(monkeypatch, day, ttl, answer):
    shown = []
    monkeypatch.setattr(plots, "show", lambda fig, alt: shown.append(alt))
    plots.as_of(ROWS, "conv_rate", pd.Timestamp(day, tz="UTC"), ttl=pd.Timedelta(days=ttl))
    assert len(shown) == 1 and answer in shown[0]


@pytest.mark.parametrize("metadata", [{}, {"cellId": "a cell of JupyterLab"}])
def test_shows_sliders_in_jupyterlab_and_a_picture_elsewhere(monkeypatch, metadata):
    kernel = SimpleNamespace(get_parent=lambda channel: {"metadata": metadata})
    monkeypatch.setattr("IPython.get_ipython", lambda: SimpleNamespace(kernel=kernel))
    drawn, sliders = [], {}
    monkeypatch.setattr(ipywidgets, "interact", lambda draw, **controls: sliders.update(controls))
    plots.with_sliders(lambda **values: drawn.append(values), day=(1, 28, 0.5, 12), ttl=(1, 30, 1, 7))
    if not metadata:
        assert drawn == [{"day": 12, "ttl": 7}] and not sliders
        return
    assert not drawn
    day = sliders["day"]
    assert (day.min, day.max, day.step, day.value) == (1, 28, 0.5, 12)


@dsl.component(base_image="python:3.11")
def step(number: float = 0.0) -> float:
    return number


@dsl.pipeline(name="all-groups")
def all_groups(items: list, least: float):
    with dsl.ExitHandler(step().set_display_name("last")):
        first = step()
        with dsl.ParallelFor(items=items) as item:
            step(number=item)
        with dsl.If(first.output >= least, name="enough"):
            step(number=first.output)
        step().after(first)


def test_draws_the_graph_that_a_compiled_pipeline_holds(monkeypatch, tmp_path):
    file = tmp_path / "pipeline.yaml"
    compiler.Compiler().compile(all_groups, str(file))
    whole = graphs.read(file)
    assert whole.edges == (("exit-handler-1", "step"),)
    [[handler], [last]] = whole.rows
    assert last.name == "step" and not last.rows
    assert sorted(handler.edges) == [("step-2", "condition-3"), ("step-2", "step-5")]
    parts = {part.name: part for row in handler.rows for part in row}
    assert parts["condition-3"].title == "enough: if step-2 >= least"
    assert parts["for-loop-2"].title == "for-loop-2: for each of items"
    assert [part.name for part in parts["for-loop-2"].rows[0]] == ["step-3"]
    shown = []
    monkeypatch.setattr(plots, "show", lambda fig, alt: shown.append(alt))
    graphs.pipeline(file)
    assert "condition-3 after step-2 (enough: if step-2 >= least) with step-4" in shown[0]

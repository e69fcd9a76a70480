"""Pictures of a tool in the course's style, and nothing left behind."""

import base64
import html
import re
import warnings

import matplotlib.pyplot as plt
import optuna
import pytest
from optuna.visualization import matplotlib as optuna_plots

from helpers import plots


@pytest.fixture
def study():
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    made = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    made.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=5)
    return made


def test_a_picture_that_optuna_draws_gets_the_courses_style_and_leaves_no_setting_and_no_figure(study):
    before, style = plt.get_fignums(), dict(plt.rcParams)
    with warnings.catch_warnings(record=True) as said, plots.drawn_by_a_tool(width=6, height=2):
        axes = optuna_plots.plot_optimization_history(study, target_name="AUC")
    assert said == [], "Optuna's note that its plots are experimental"
    assert (plt.get_fignums(), dict(plt.rcParams)) == (before, style)
    assert axes.figure.get_size_inches().tolist() == [6, 2] and axes.get_facecolor() == (1, 1, 1, 1)
    assert axes.get_title() == "" and axes.get_ylabel() == "AUC"


def test_another_warning_in_the_block_is_still_heard():
    with pytest.warns(UserWarning, match="look here"), plots.drawn_by_a_tool():
        warnings.warn("look here", UserWarning, stacklevel=1)


def test_a_figure_that_was_open_before_stays_as_it_was(study):
    own = plt.figure(figsize=(3, 3))
    before = plt.get_fignums()  # figures of other tests may be open beside it
    try:
        with plots.drawn_by_a_tool(width=6, height=2):
            optuna_plots.plot_optimization_history(study)
        assert own.number in before and plt.get_fignums() == before
        assert own.get_size_inches().tolist() == [3, 3]
    finally:
        plt.close(own)


def test_a_shown_figure_is_a_small_picture_with_its_text(monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda data, **options: shown.append(data))
    fig, ax = plots.figure()
    ax.plot([0, 1], [0, 1])
    plots.show(fig, 'A line "upwards", from 0 to 1.')
    (data,) = shown
    found = re.fullmatch(r'<img alt="([^"]+)" src="data:image/png;base64,([^"]+)">', data["text/html"])
    assert html.unescape(found[1]) == 'A line "upwards", from 0 to 1.'
    assert base64.b64decode(found[2]).startswith(b"\x89PNG") and len(data["text/html"]) < 16_000
    assert data["text/plain"] == '[picture: A line "upwards", from 0 to 1.]'


@pytest.mark.parametrize("limit", [0.59, 0.62, 0.7, 0.9])
def test_the_line_across_bars_crosses_no_value(monkeypatch, limit):
    drawn = []
    monkeypatch.setattr(plots, "show", lambda fig, alt: drawn.append(fig))
    values = {"first": 0.58, "second": 0.9}
    plots.bars(values, limit=("best", limit), lowest=0.5, label="AUC", alt="Two bars and a line.")
    (fig,) = drawn
    fig.canvas.draw()
    (ax,) = fig.axes
    (line,) = ax.lines
    across = ax.transData.transform((line.get_xdata()[0], 0))[0]
    spans = {text.get_text(): text.get_window_extent() for text in ax.texts}
    assert set(spans) == {"0.580", "0.900"}
    assert [text for text, span in spans.items() if span.x0 <= across <= span.x1] == []
    assert max(span.x1 for span in spans.values()) <= fig.bbox.x1

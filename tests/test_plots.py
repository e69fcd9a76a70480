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

pytestmark = pytest.mark.unit


def test_a_picture_of_optunas_gets_the_courses_style_and_leaves_no_setting_and_no_figure():
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=5)
    before, style = plt.get_fignums(), dict(plt.rcParams)
    with warnings.catch_warnings(record=True) as caught, plots.drawn_by_a_tool(width=6, height=2):
        axes = optuna_plots.plot_optimization_history(study, target_name="AUC")
    assert caught == [], "Optuna's note that its plots are experimental"
    assert (plt.get_fignums(), dict(plt.rcParams)) == (before, style)
    assert axes.figure.get_size_inches().tolist() == [6, 2]
    assert axes.get_title() == "" and axes.get_ylabel() == "AUC"


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

"""Pictures of a tool in the course's style, and nothing left behind."""

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
    monkeypatch.setattr("IPython.display.display", lambda data, **options: shown.append((data, options["metadata"])))
    fig, ax = plots.figure()
    ax.plot([0, 1], [0, 1])
    plots.show(fig, "A line from the lower left to the upper right.")
    ((data, metadata),) = shown
    assert data["image/png"].startswith(b"\x89PNG") and len(data["image/png"]) < 12_000
    assert metadata == {"image/png": {"alt": "A line from the lower left to the upper right."}}

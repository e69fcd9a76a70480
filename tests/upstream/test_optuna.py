"""Traps in Optuna. Each test passes while the trap exists; a failure is news from upstream, not a regression here. docs/upstream.md has the lines that run."""

import pytest
from upstream import lines_of_the_section, preambles, watch  # noqa: F401  # two are fixtures

pytestmark = pytest.mark.filterwarnings("ignore")


@watch
def test_a_seeded_sampler_that_is_made_again_repeats_itself(reproduction):
    tried = reproduction()["tried"]
    assert len(tried) == 12
    assert len(set(tried)) < 12


@watch
def test_equal_scores_end_the_analysis_of_variance(reproduction):
    assert reproduction()["said"] == "Encountered zero total variance in all trees."

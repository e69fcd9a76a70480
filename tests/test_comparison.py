"""Challenger against champion: the score, and an interval that is neither too narrow nor another one tomorrow."""

import numpy as np
import pandas as pd
import pytest
from scipy.special import ndtr
from sklearn.metrics import roc_auc_score

from lifecycle import comparison
from lifecycle.comparison import FEWEST, TooFewLabels, auc, compare


def drivers(numbers) -> pd.DataFrame:
    return pd.DataFrame({"driver_id": numbers})


def drawn(seed: int, entities: int = 150, rows: int = 3, better: float = 0.0):
    """Labels, two models' scores, and whose rows they are. Rows of an entity resemble one another; the challenger errs less by the share ``better``."""
    rng = np.random.default_rng(seed)
    of = np.repeat(np.arange(entities), rows)
    truth = rng.normal(size=entities)
    usual = rng.random(entities) < ndtr(truth)
    labels = np.where(rng.random(of.size) < 0.8, usual[of], ~usual[of]).astype(int)
    champion, challenger = (truth + rng.normal(size=entities) * (1 - share) for share in (0.0, better))
    return labels, champion[of], challenger[of], drivers(of)


@pytest.mark.parametrize("seed", range(20))
def test_the_auc_is_that_of_scikit_learn_ties_included(seed):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, rng.integers(10, 300))
    labels[:2] = 0, 1
    scores = (
        rng.integers(0, rng.integers(1, 40), labels.size) / 10
    )  # few values, and for some seeds a single one
    assert auc(labels, scores) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_of_two_models_alike_neither_is_better(seed):
    found = compare(*drawn(seed))
    assert found.low < 0 < found.high and not found.better


def test_a_model_beside_itself_gains_nothing_at_all():
    labels, champion, _, entities = drawn(0)
    found = compare(labels, champion, champion, entities)
    assert (found.low, found.high, found.better) == (0, 0, False)


@pytest.mark.parametrize("seed", range(5))
def test_a_far_better_model_is_better_and_a_far_worse_one_is_not(seed):
    labels, champion, challenger, entities = drawn(seed, better=0.9)
    found, turned = (
        compare(labels, champion, challenger, entities),
        compare(labels, challenger, champion, entities),
    )
    assert found.better and found.low < found.challenger - found.champion < found.high
    exact = [roc_auc_score(labels, scores) for scores in (champion, challenger)]
    assert [found.champion, found.challenger] == pytest.approx(exact, abs=1e-12)
    assert found.rows == len(labels)
    assert turned.high < 0 and not turned.better


def test_rows_that_say_the_same_again_make_no_narrower_interval():
    labels, champion, challenger, entities = drawn(3, entities=60, rows=1, better=0.4)
    once = compare(labels, champion, challenger, entities)
    again = np.tile(np.arange(60), 30)
    repeated = compare(labels[again], champion[again], challenger[again], entities.iloc[again])
    single = compare(labels[again], champion[again], challenger[again], drivers(np.arange(again.size)))
    assert repeated.high - repeated.low == pytest.approx(once.high - once.low, rel=0.1)
    assert single.high - single.low < 0.3 * (once.high - once.low), "this is what drawing rows would claim"


def test_two_keys_make_one_entity():
    labels, champion, challenger, entities = drawn(4, entities=60, rows=4, better=0.4)
    pair = pd.DataFrame({"origin": entities.driver_id // 6, "carrier": entities.driver_id % 6})
    one, two = (compare(labels, champion, challenger, keys) for keys in (entities, pair))
    assert (one.low, one.high) == (two.low, two.high)


def test_the_interval_holds_the_true_gain_about_nineteen_times_in_twenty(monkeypatch):
    monkeypatch.setattr(comparison, "RESAMPLES", 199)
    labels, champion, challenger, _ = drawn(0, entities=200_000, better=0.3)
    true = roc_auc_score(labels, challenger) - roc_auc_score(labels, champion)
    found = [compare(*drawn(seed, entities=60, rows=6, better=0.3)) for seed in range(1, 101)]
    held = np.mean([one.low <= true <= one.high for one in found])
    assert 0.89 <= held <= 0.99, f"{held} of 100 intervals hold the true gain of {true:.3f}"


def test_the_same_rows_give_the_same_interval_and_another_seed_nearly_the_same():
    rows = drawn(7, better=0.3)
    first, second, other = compare(*rows), compare(*rows), compare(*rows, seed=1)
    assert first == second != other
    assert other.low == pytest.approx(first.low, abs=0.01)


@pytest.mark.parametrize("scarce", [0, 1])
def test_too_few_entities_with_an_outcome_are_no_ground_to_judge_on(scarce):
    labels = np.full(400, 1 - scarce)
    labels[: 10 * (FEWEST - 1)] = scarce  # many rows, of few entities
    scores = np.random.default_rng(0).random(400)
    entities = drivers(np.arange(400) // 10)
    counts = {scarce: FEWEST - 1, 1 - scarce: 40 - FEWEST + 1}
    with pytest.raises(
        TooFewLabels, match=f"{counts[1]} of the entities have a label 1 and {counts[0]} a label 0"
    ):
        compare(labels, scores, scores, entities)
    labels[10 * (FEWEST - 1)] = scarce
    assert compare(labels, scores, scores, entities).rows == 400


def test_it_says_what_it_found_in_words_and_as_figures():
    labels, champion, challenger, entities = drawn(2, better=0.9)
    found = compare(labels, champion, challenger, entities)
    gain = found.challenger - found.champion
    assert str(found) == (
        f"AUC {found.challenger:.3f} against {found.champion:.3f}, a gain of {gain:+.3f} ({found.low:+.3f} to {found.high:+.3f}) on 450 rows"
    )
    assert found.figures() == {
        name: getattr(found, name) for name in ("rows", "champion", "challenger", "low", "high")
    }


def test_rows_without_a_key_are_one_entity_and_none_is_dropped():
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, 400)
    good, poor = labels + random.normal(0, 1, 400), -labels + random.normal(0, 1, 400)
    keyed = np.arange(400) % 2 == 0
    keys = pd.DataFrame({"key": np.where(keyed, np.arange(400) % 97, np.nan)})
    # With the rows that have a key alone, the challenger would be far better.
    found = compare(labels, np.where(keyed, poor, good), np.where(keyed, good, poor), keys)
    assert found.low < 0 < found.high

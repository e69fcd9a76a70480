"""Challenger against champion: the scores, and an interval that is not too narrow and stays the same."""

import time

import numpy as np
import pandas as pd
import pytest
from scipy.special import ndtr
from scipy.stats import bootstrap
from sklearn.metrics import mean_absolute_error, roc_auc_score

from lifecycle.training import comparison
from lifecycle.training.comparison import FEWEST, TooFewLabels, auc, compare

pytestmark = pytest.mark.unit


def drivers(numbers) -> pd.DataFrame:
    return pd.DataFrame({"driver_id": numbers})


def drawn(seed: int, entities: int = 150, rows: int = 3, better: float = 0.0):
    """Labels, two models' scores and entities with similar rows; the challenger is ``better`` by a share."""
    rng = np.random.default_rng(seed)
    of = np.repeat(np.arange(entities), rows)
    truth = rng.normal(size=entities)
    usual = rng.random(entities) < ndtr(truth)
    labels = np.where(rng.random(of.size) < 0.8, usual[of], ~usual[of]).astype(int)
    champion, challenger = (truth + rng.normal(size=entities) * (1 - share) for share in (0.0, better))
    return labels, champion[of], challenger[of], drivers(of)


@pytest.mark.parametrize("seed", range(10))
def test_the_auc_is_that_of_scikit_learn_ties_included(seed):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, rng.integers(10, 300))
    labels[:2] = 0, 1
    # Few values, and for some seeds a single one.
    scores = rng.integers(0, rng.integers(1, 40), labels.size) / 10
    assert auc(labels, scores) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)


@pytest.mark.parametrize("seed", range(2))
def test_only_a_better_model_is_better(seed):
    alike = compare(*drawn(seed))
    assert alike.low < 0 < alike.high and not alike.better
    labels, champion, challenger, entities = drawn(seed, better=0.9)
    found = compare(labels, champion, challenger, entities)
    assert found == compare(labels, champion, challenger, entities), "the same rows, another interval"
    assert found.better and found.low < found.challenger - found.champion < found.high
    exact = [roc_auc_score(labels, scores) for scores in (champion, challenger)]
    assert [found.champion, found.challenger] == pytest.approx(exact, abs=1e-12)
    assert str(found).startswith(f"AUC {exact[1]:.3f} against {exact[0]:.3f}, a gain of +")
    turned, itself = (compare(labels, challenger, other, entities) for other in (champion, challenger))
    assert turned.high < 0 and (itself.low, itself.high) == (0, 0)
    assert not turned.better and not itself.better


def test_rows_that_say_the_same_again_make_no_narrower_interval():
    labels, champion, challenger, entities = drawn(3, entities=60, rows=1, better=0.4)
    once = compare(labels, champion, challenger, entities)
    again = np.tile(np.arange(60), 30)
    repeated = compare(labels[again], champion[again], challenger[again], entities.iloc[again])
    single = compare(labels[again], champion[again], challenger[again], drivers(np.arange(again.size)))
    assert repeated.high - repeated.low == pytest.approx(once.high - once.low, rel=0.1)
    assert single.high - single.low < 0.3 * (once.high - once.low), "this is what drawing rows would claim"


def test_the_interval_holds_the_true_gain_about_nineteen_times_in_twenty(monkeypatch):
    monkeypatch.setattr(comparison, "RESAMPLES", 199)
    labels, champion, challenger, _ = drawn(0, entities=200_000, better=0.3)
    true = roc_auc_score(labels, challenger) - roc_auc_score(labels, champion)
    found = [compare(*drawn(seed, entities=60, rows=6, better=0.3)) for seed in range(1, 101)]
    held = np.mean([one.low <= true <= one.high for one in found])
    assert 0.89 <= held <= 0.99, f"{held} of 100 intervals hold the true gain of {true:.3f}"


@pytest.mark.parametrize("scarce", [0, 1])
def test_too_few_entities_with_an_outcome_are_no_ground_to_judge_on(scarce):
    labels = np.full(400, 1 - scarce)
    labels[: 10 * (FEWEST - 1)] = scarce  # many rows, of few entities
    scores, entities = np.random.default_rng(0).random(400), drivers(np.arange(400) // 10)
    with pytest.raises(TooFewLabels, match=rf"{FEWEST - 1}.*a comparison needs {FEWEST} of each"):
        compare(labels, scores, scores, entities)
    assert compare(labels, scores, scores, entities, fewest=FEWEST - 1).rows == 400
    labels[10 * (FEWEST - 1)] = scarce
    assert compare(labels, scores, scores, entities).rows == 400


def test_more_confidence_makes_a_wider_interval():
    found = [compare(*drawn(0, better=0.3), confidence=confidence) for confidence in (0.8, 0.95, 0.99)]
    lows, highs = [one.low for one in found], [one.high for one in found]
    assert lows == sorted(lows, reverse=True) and highs == sorted(highs)
    assert len({*lows, *highs}) == 6


def series(labels, champion, challenger, entities):
    return [pd.Series(labels), pd.Series(champion), pd.Series(challenger), entities]


def test_refuses_to_compare_rows_in_different_orders():
    rows = [one.rename(lambda number: number + 7) for one in series(*drawn(0))]
    assert compare(*rows) == compare(*drawn(0))
    for turned in range(4):
        given = list(rows)
        given[turned] = given[turned].sample(frac=1, random_state=0)
        with pytest.raises(ValueError, match=r"the same index in another order.*sort them alike"):
            compare(*given)


@pytest.mark.parametrize(
    "place, change, says",
    [
        (3, lambda keys: keys[:10], "10 rows of keys: a comparison needs as many of each"),
        (0, lambda labels: labels.astype(str), "labels must be 0 or 1; the column label holds '0', '1'"),
        (0, lambda labels: labels.where(labels > 0), "a label is missing"),
        (3, lambda keys: keys[[]], "no column, and a comparison draws entities: give it the join keys"),
        (3, lambda keys: keys.assign(driver_id=pd.Series(dtype="str")), "driver_id is missing in every row"),
        (2, lambda scores: scores.where(scores > 0), "a score is missing"),
    ],
)
def test_names_what_cannot_be_compared(place, change, says):
    rows = series(*drawn(0))
    rows[place] = change(rows[place])
    with pytest.raises(ValueError, match=says):
        compare(*rows)


@pytest.mark.parametrize("metric", ["roc_auc", "neg_mean_absolute_error"])
def test_gives_the_interval_of_the_slow_way(metric, monkeypatch):
    """SciPy's bootstrap, with each metric calculated anew from the rows drawn; a third of them tie."""
    monkeypatch.setattr(comparison, "RESAMPLES", 99)
    labels, champion, challenger, entities = drawn(4, entities=90, better=0.5)
    champion, challenger = champion.round(1), np.where(np.arange(labels.size) % 3, challenger, 0.0)
    groups = [np.flatnonzero(entities.driver_id == number) for number in range(90)]
    judge = roc_auc_score if metric == "roc_auc" else lambda *given: -mean_absolute_error(*given)

    def gain(numbers):
        rows = np.concatenate([groups[number] for number in numbers])
        return judge(labels[rows], challenger[rows]) - judge(labels[rows], champion[rows])

    how = {"n_resamples": comparison.RESAMPLES, "vectorized": False, "method": "percentile"}
    slow = bootstrap((np.arange(90),), gain, **how, rng=np.random.default_rng(0)).confidence_interval
    task = "binary" if metric == "roc_auc" else "regression"
    found = compare(labels, champion, challenger, entities, metric=metric, task=task)
    assert (found.low, found.high) == pytest.approx(tuple(slow), abs=1e-12)
    assert found.champion == pytest.approx(judge(labels, champion))
    assert str(found).startswith("AUC" if metric == "roc_auc" else metric)


def test_compares_twenty_thousand_entities_in_a_second_of_this_process():
    given = drawn(5, entities=20_000, rows=1)
    began = time.process_time()
    compare(*given)
    assert time.process_time() - began < 2, (
        "it took 9.7 s, and takes 0.6 s on a machine with nothing else to do"
    )

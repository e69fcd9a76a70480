"""Labels: one check for every door, with the line that mends them; what is left out is counted."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from feast.types import Float32, Float64, Int64, String
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.preprocessing import FunctionTransformer

from lifecycle.features.contract import FeatureContract
from lifecycle.features.labels import LabelsRefused, check_values, usable_rows
from lifecycle.models.model import check_features, needed_types, new_model, split, validation_scores
from lifecycle.models.recipe import Recipe, RecipeError

pytestmark = pytest.mark.unit
CONTRACT = FeatureContract("p", "s", ("view:x",), ("id",), (), "y", {})
TIMES = pd.date_range("2030-01-01", periods=400, freq="h", tz="UTC")


@pytest.mark.parametrize(
    "values, task, says",
    [
        (
            [1, 2, 2],
            "binary",
            r"0 or 1; the column y holds 1, 2. If 2 stands for 1: labels\['y'\] = \(labels",
        ),
        ([-1, 1], "binary", r"holds -1, 1. If 1 stands for 1"),
        (["Yes", "No"], "binary", r"holds 'No', 'Yes'. If 'Yes' stands for 1: labels\['y'\] = .* == 'Yes'\)"),
        ([0, 1, 2], "binary", r"holds 0, 1, 2. Say which of them .* or take task = 'regression'"),
        (
            ["1.5", "2"],
            "regression",
            r"must be numbers, and the column y holds string values: .*pd.to_numeric",
        ),
        ([1.5, np.inf], "regression", "1 of the labels in the column y are infinite"),
    ],
)
def test_refuses_labels_with_the_line_that_mends_them(values, task, says):
    labels = pd.Series(values, name="y")
    with pytest.raises(LabelsRefused, match=says):
        check_values(labels, task)
    repeated = pd.Series(values * (400 // len(values)), name="y")
    with pytest.raises(LabelsRefused, match=says.replace("1 of the", "200 of the")):
        validation_scores(new_model(), pd.DataFrame({"x": np.arange(len(repeated))}), repeated, task=task)


@pytest.mark.parametrize(
    "values, task",
    [
        ([0, 1, 1], "binary"),
        ([True, False, True], "binary"),
        ([0.0, 1.0, np.nan], "binary"),
        ([-2, 7.5, 1], "regression"),
    ],
)
def test_keeps_labels_of_the_task_and_counts_each_missing_value_of_the_contract(values, task):
    table = pd.DataFrame({"id": [1, 2, None], "event_timestamp": TIMES[:3], "y": values, "note": None})
    rows, dropped = usable_rows(table, CONTRACT, {"id": Int64}, task)
    assert dropped == {"id": 1} | ({"y": 1} if pd.isna(values[-1]) else {}), "and nothing for the empty note"
    assert rows.y.tolist() == values[:2] and rows.id.tolist() == [1, 2] and rows.id.dtype == "int64"


@pytest.mark.parametrize(
    "dtype, values, says",
    [
        (Int64, [2.0**53 + 2, None], "became one of floats, .* as large as 9007199254740994"),
        (Float64, [np.inf, 1.0], "holds inf, and a server takes finite numbers of 64 bits"),
        (Float32, [-1e39, 1.0], r"holds 1e\+39, and a server takes finite numbers of 32 bits"),
        (String, ["x" * 1001, None], "a text of 1001 characters, and a server takes at most 1000"),
    ],
)
def test_refuses_a_key_that_no_request_could_carry(dtype, values, says):
    table = pd.DataFrame({"id": values, "event_timestamp": TIMES[:2], "y": [0, 1]})
    with pytest.raises(ValueError, match=says):
        usable_rows(table, CONTRACT, {"id": dtype})
    near = {Int64: 2.0**53 - 1, String: "x" * 1000}.get(dtype, 1e38)
    assert len(usable_rows(table.assign(id=[near, None]), CONTRACT, {"id": dtype})[0]) == 1


def test_a_request_field_of_whole_numbers_stays_one_beside_a_missing_value():
    table = pd.DataFrame({"id": [1, 2], "n": [7.0, None], "event_timestamp": TIMES[:2], "y": [0, 1]})
    rows, dropped = usable_rows(table, replace(CONTRACT, request_fields=("n",)), {"id": Int64, "n": Int64})
    assert rows.n.tolist() == [7] and rows.n.dtype == "int64" and dropped == {"n": 1}


def test_names_a_feature_that_holds_text():
    rows = pd.DataFrame({"x": np.arange(400.0), "origin": "JFK", "event_timestamp": TIMES, "y": [0, 1] * 200})
    with pytest.raises(
        ValueError, match="the feature origin holds values that are no numbers, such as 'JFK'"
    ):
        validation_scores(new_model(), rows[["x", "origin"]], rows.y)
    check_features(split(rows)[0][["x"]])


def test_says_what_a_stored_model_holds_and_when_skops_cannot_hold_it():
    fitted = HistGradientBoostingRegressor(max_iter=2).fit([[0.0], [1.0]] * 20, [0.0, 1.0] * 20)
    assert "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor" in needed_types(fitted)
    assert needed_types(new_model().fit([[0.0], [1.0]], [0, 1])) == []
    with pytest.raises(ValueError, match=r"skops cannot hold this FunctionTransformer .* no lambda"):
        needed_types(FunctionTransformer(lambda x: x).fit([[1.0]]))


@pytest.mark.parametrize(
    "recipe, says",
    [
        ({"task": "ranking"}, "task is 'ranking': give one of binary, regression"),
        ({"metric": "accuracy_score"}, r"has no scorer of that name: sklearn.metrics.get_scorer_names\(\)"),
        ({"estimator": "os.system"}, "estimator is 'os.system': write package.module:function"),
        ({"estimator": "nowhere.at_all:new"}, "cannot be imported: No module named 'nowhere'"),
        (
            {"estimator": "builtins:dict"},
            "returns a dict: the task binary needs an unfitted .* predict_proba",
        ),
        ({"hyperparameters": {"depth": 3}}, "does not take the hyperparameters: .* argument 'depth'"),
        ({"hyperparameters": {"C": np.float32(1)}}, "cannot be stored as JSON"),
    ],
)
def test_refuses_a_recipe_that_makes_no_model(recipe, says):
    with pytest.raises(RecipeError, match=says):
        Recipe(**recipe).new_estimator()

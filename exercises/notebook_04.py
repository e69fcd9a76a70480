"""The exercises of notebook 04."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from exercises.core import Exercise, NotYet, attempt, scratch_tracking
from helpers.workspace import WorkshopError

if TYPE_CHECKING:
    import pandas as pd
    from mlflow import MlflowClient
    from mlflow.entities import Run

EXPERIMENT = "feature_selection"
HORIZON = 24
"""Hours that a label looks ahead."""


def _knows_its_labels(splitter: Any, rows: pd.DataFrame) -> str:
    import numpy as np
    import pandas as pd
    from sklearn.model_selection import KFold, TimeSeriesSplit, check_cv, cross_val_score
    from sklearn.neighbors import KNeighborsClassifier

    if isinstance(splitter, type):
        raise NotYet(
            f"that is the class {splitter.__name__}; call it with its parameters, as `validate` does."
        )
    if splitter is None or isinstance(splitter, int):  # for scikit-learn these are numbers of folds
        raise NotYet(
            f"your answer is of type {type(splitter).__name__}; make a `TimeSeriesSplit`, as `validate` does."
        )
    positions = np.arange(len(rows))
    with attempt("scikit-learn cannot split the rows with this"):
        folds = [(positions[train], positions[test]) for train, test in check_cv(splitter).split(rows)]
    if len(folds) != 8:
        raise NotYet(
            f"that makes {len(folds)} folds, but `validate` scores eight blocks: you can only compare equal"
            " blocks."
        )
    times, ahead = rows.event_timestamp, pd.Timedelta(hours=HORIZON)
    blocks = [block for _, block in TimeSeriesSplit(8).split(rows)]
    for number, (train, test) in enumerate(folds):
        starts, learned = times.iloc[test].min(), times.iloc[train]
        later, unknown = (learned > starts).sum(), (learned + ahead > starts).sum()
        if later:
            raise NotYet(
                f"fold {number} learns from {later:,} rows that are later than the first row it is scored on."
                " That is what a random split does; see this notebook's first section."
            )
        if not np.array_equal(test, blocks[number]):
            raise NotYet(
                f"fold {number} is not scored on block {number} of `validate`: you can only compare equal"
                " blocks."
            )
        if unknown:
            units = (
                " A gap is counted in rows, not in hours." if getattr(splitter, "gap", 0) == HORIZON else ""
            )
            raise NotYet(
                f"block {number} begins on {starts:%B %d at %H:%M}, and its model has learned from {unknown}"
                f" label{'' if unknown == 1 else 's'} whose {HORIZON} hours were not over.{units} How many"
                f" rows are in the {HORIZON} hours before each block?"
            )
        unused = (times + ahead <= starts).sum() - len(train)
        if unused > 150:
            raise NotYet(
                f"no label is used too early, but block {number} leaves out {unused} labels that were known: "
                "more than a day's worth."
            )
    days = (times - times.min()).dt.total_seconds() / 86400
    # Drivers are so far apart here that the nearest rows always belong to the same driver.
    looked_up = pd.DataFrame({"driver": rows.driver_id * 1000, "day": days})
    scores = [
        cross_val_score(KNeighborsClassifier(6), looked_up, rows.label, cv=cut, scoring="roc_auc").mean()
        for cut in (KFold(8, shuffle=True, random_state=0), TimeSeriesSplit(8), folds)
    ]
    shuffled, without_gap, yours = (f"{score:.3f}" for score in scores)
    return (
        "Every label was known when its block began. A model that only looks up a driver's six nearest labels"
        f" in time shows how much unknown labels give away: its AUC is {shuffled} in shuffled folds,"
        f" {without_gap} in the split of `validate`, and {yours} in yours."
    )


def _candidates(client: MlflowClient) -> tuple[Run, list[Run]]:
    """The parent run of the newest selection, and the runs of its candidates."""
    found = client.get_experiment_by_name(EXPERIMENT)
    if found is None:
        raise WorkshopError(f"MLflow has no experiment {EXPERIMENT!r}: run the cells above first.")
    experiment = found.experiment_id
    newest = ["attributes.start_time DESC"]
    for parent in client.search_runs(
        [experiment], f"attributes.run_name = '{EXPERIMENT}'", order_by=newest, max_results=1
    ):
        below = f"tags.`mlflow.parentRunId` = '{parent.info.run_id}' and tags.stage = 'candidate'"
        if candidates := list(client.search_runs([experiment], below)):
            return parent, candidates
    raise WorkshopError("the newest selection has no candidates in MLflow: run the cells above first.")


def _finds_what_is_without(filter_string: Any) -> str:
    if not isinstance(filter_string, str):
        raise NotYet(
            f"your answer is of type {type(filter_string).__name__}; write the string that `search_runs`"
            " takes as `filter_string`."
        )
    feature = "avg_daily_trips"
    if unfilled := re.search(r"\{\w*\}", filter_string):
        raise NotYet(
            f"the string contains {unfilled[0]} literally: Python fills in braces only when an `f` is before"
            " the quote."
        )
    with scratch_tracking() as client:
        parent, candidates = _candidates(client)
        experiment = parent.info.experiment_id

        def found() -> dict[str, str]:
            with attempt("MLflow rejects this filter"):
                return {
                    run.info.run_id: run.info.run_name
                    for run in client.search_runs([experiment], filter_string)
                }

        def add(name: str, columns: list[str], below: str) -> str:
            tags = {"mlflow.parentRunId": below, "stage": "candidate"}
            tags |= {f"feature_{column}": "included" for column in columns}
            run = client.create_run(experiment, tags=tags, run_name=name)
            client.log_param(run.info.run_id, "features", ", ".join(columns))
            return run.info.run_id

        wanted = {
            run.info.run_id: run.info.run_name
            for run in candidates
            if feature not in run.data.params["features"].split(", ")
        }
        got = found()
        if not got:
            compares = re.search(rf"{feature}\W*=", filter_string)
            raise NotYet(
                "MLflow finds no run. "
                + (
                    "A comparison with `=` or `!=` needs a value to compare: look at the tags of a run"
                    " without the feature."
                    if compares
                    else "Try its conditions one by one: which of them is true for no run?"
                )
            )
        with_it = [run.info.run_name for run in candidates if run.info.run_id in got.keys() - wanted.keys()]
        if with_it:
            raise NotYet(
                f"it also finds {with_it[0]}, which reads {feature}: see the column `features` of the"
                " candidates' table."
            )
        missed = sorted(wanted[run] for run in wanted.keys() - got.keys())
        if missed:
            raise NotYet(
                f"it misses {', '.join(missed)}: {len(missed)} of {len(wanted)} candidates without {feature}."
            )
        others = sorted(got[run] for run in got.keys() - wanted.keys())
        if others:
            raise NotYet(
                f"it also finds {others[0]!r}, which is no candidate of this selection: `children`, above,"
                " is the condition for one."
            )
        # Added tomorrow, in the copy: a run that belongs to the answer, one that does not, one of another
        # selection, and the winner's.
        colleague = add("rating_only", ["rating"], parent.info.run_id)
        add("trips_only", [feature], parent.info.run_id)
        add(
            "rating_only", ["rating"], client.create_run(experiment, run_name="another selection").info.run_id
        )
        below = {"mlflow.parentRunId": parent.info.run_id}
        winner = client.create_run(experiment, tags=below, run_name="winner: rating_only").info.run_id
        tomorrow = found()
    if colleague not in tomorrow:
        raise NotYet(
            "today it finds the right runs; tomorrow it would miss a new candidate, rating_only. Ask for what"
            " the runs have in common, not for their names."
        )
    if winner in tomorrow:
        raise NotYet(
            "today it finds the right runs; tomorrow it would also find the winner's run, which has the same"
            " parent and is no candidate."
        )
    if len(tomorrow) > len(wanted) + 1:
        raise NotYet(
            "today it finds the right runs; tomorrow it would also find a candidate of another selection."
        )
    return (
        f"{len(wanted)} of {len(candidates)} candidates do without {feature}; your filter also found one"
        " more, rating_only, as soon as a colleague had logged it."
    )


def _one_standard_error(scores: pd.DataFrame, num_features: pd.Series, ddof: int) -> str:
    means = scores.mean()
    best = means.idxmax()
    close = means[means >= means[best] - scores[best].sem(ddof=ddof)]
    smallest = num_features[close.index].min()
    return close[num_features[close.index] == smallest].idxmax()


def _chooses_by_standard_error(rule: Any) -> str:
    import numpy as np
    import pandas as pd
    from mlflow import MlflowClient

    if not callable(rule):
        raise NotYet(
            f"your answer is of type {type(rule).__name__}; write a function that returns a candidate's name."
        )
    # A made-up table in which each mistake takes another candidate: name, features, mean, and how far a block
    # lies from it.
    made_up = pd.DataFrame(
        [
            ("one", 1, 0.700, 0.010),
            ("two", 2, 0.775, 0.010),
            ("three", 3, 0.7915, 0.005),
            ("three, better", 3, 0.7925, 0.005),
            ("three, shaky", 3, 0.785, 0.060),
            ("five", 5, 0.799, 0.030),
            ("six", 6, 0.800, 0.030),
        ],
        columns=["candidate", "features", "mean", "step"],
    ).set_index("candidate")
    blocks = np.outer([1, -1] * 4, made_up.step) + made_up["mean"].to_numpy()
    scores = pd.DataFrame(blocks, columns=list(made_up.index))
    mistakes = {
        "one": "that is the smallest set of all, and the best one is 0.1 better.",
        "two": (
            f"its mean is {made_up['mean'].six - made_up['mean'].two:.3f} below the best. Single blocks"
            " differ that much; the mean of eight differs less."
        ),
        "three": "of two sets with three features that are close enough, it takes the worse one.",
        "three, shaky": (
            "it is far below the best, and only its own blocks differ so much. Whose standard error tells how"
            " good the best set is?"
        ),
        "five": (
            "it is within 0.002 of the best, which was the notebook's rule. Here the blocks decide how close"
            " is close enough."
        ),
        "six": "that is the best set; the blocks can't tell some smaller ones from it.",
    }
    with attempt("the rule failed on a made-up table of eight blocks"):
        choice = rule(scores.copy(), made_up.features.copy())
    if not isinstance(choice, str):
        what = "None" if choice is None else f"a value of type {type(choice).__name__}"
        raise NotYet(f"the rule returned {what}; return the name of one candidate.")
    if choice != "three, better":
        where = f"in a made-up table, where the best mean is 0.800, it takes the set {choice!r}"
        raise NotYet(f"{where}: {mistakes.get(choice, 'there is no such column in `scores`.')}")
    client = MlflowClient()
    _, runs = _candidates(client)
    curves = {
        run.info.run_name: [
            metric.value for metric in client.get_metric_history(run.info.run_id, "block_auc")
        ]
        for run in runs
    }
    logged = pd.DataFrame(curves)
    features = pd.Series({run.info.run_name: int(run.data.params["num_features"]) for run in runs})
    with attempt("the rule failed on the curves of the runs in MLflow"):
        choice = rule(logged.copy(), features.copy())
    # NumPy divides by the number of blocks where pandas divides by one less. Both are taken.
    by_ddof = {_one_standard_error(logged, features, ddof): ddof for ddof in (0, 1)}
    if choice not in by_ddof:
        raise NotYet(
            f"it is right on the made-up table, but of this notebook's candidates it takes {choice!r}. Does"
            " it read anything but `scores` and `num_features`?"
        )
    best = logged.mean().idxmax()
    behind = int((logged[choice] < logged[best]).sum())
    return (
        f"On the curves in MLflow it takes {choice} (AUC {logged[choice].mean():.3f}): the best is {best}"
        f" ({logged[best].mean():.3f}), with a standard error of"
        f" {logged[best].sem(ddof=by_ddof[choice]):.3f}. The rule is generous: it ignores that {choice} is"
        f" behind in {behind} of the {len(logged)} blocks."
    )


EXERCISES = [
    Exercise(
        "4.1",
        "Find the labels that were not known yet",
        _knows_its_labels,
        more=(
            "`by_block.scored_from` holds the start of each block. Count the rows of `selection` in the day"
            " before each, and take the largest count."
        ),
        worked="""
# A gap counts rows. Leave out as many as the busiest 24 hours before a block have.
times = selection.event_timestamp
too_young = [
    times.between(start - pd.Timedelta(hours=24), start).sum() for start in by_block.scored_from
]
careful_split = TimeSeriesSplit(n_splits=8, gap=max(too_young))
""",
    ),
    Exercise(
        "4.2",
        "Ask for what is not there",
        _finds_what_is_without,
        more=(
            "A run has a tag for each feature that it includes, and none for the others. Which operator asks"
            " whether a tag exists at all?"
        ),
        worked="""
# `!=` compares values, and a run without the tag has none. A missing tag is null.
without_trips = f"{children} and tags.feature_avg_daily_trips IS NULL"
""",
    ),
    Exercise(
        "4.3",
        "Let the blocks set the tolerance",
        _chooses_by_standard_error,
        more=(
            "Three steps: find the best mean and its column; keep the sets whose mean is at least that mean"
            " minus the column's `sem()`; of these, take the fewest features, then the higher mean."
        ),
        worked="""
def by_standard_error(scores, num_features):
    means = scores.mean()
    best = means.idxmax()
    # The mean of eight blocks differs less than one block, by a factor of the square root of eight.
    close = means[means >= means[best] - scores[best].sem()]
    table = pd.DataFrame({"features": num_features[close.index], "auc": close})
    return table.sort_values(["features", "auc"], ascending=[True, False]).index[0]
""",
    ),
]

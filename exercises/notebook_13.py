"""The exercises of notebook 13."""

from __future__ import annotations

from typing import Any

from exercises.core import Exercise, NotYet, attempt, staged


def _known_from(answer: Any) -> str:
    import pandas as pd

    from helpers.data import FIRST_DRIVER, NOW

    if not callable(answer):
        raise NotYet(f"your answer has the type {type(answer).__name__}; write a function of a table.")
    noon, hour = pd.Timestamp(NOW).as_unit("us") - pd.Timedelta("1d"), pd.Timedelta("1h")
    cases = {
        "was written two hours after it happened": 2 * hour,
        "was written as it happened": 0 * hour,
        "was written three hours ahead, as a forecast is": -3 * hour,
    }
    rows = pd.DataFrame(
        {
            "driver_id": range(FIRST_DRIVER, FIRST_DRIVER + len(cases)),
            "event_timestamp": noon,
            "created": [noon + delay for delay in cases.values()],
            "conv_rate": 0.5,
            "acc_rate": 0.5,
            "avg_daily_trips": 5,
        }
    )
    with attempt("your function fails"):
        found = answer(rows.copy())
        if found is ...:
            raise NotYet("your function still returns `...`.")
        if found is None or isinstance(found, pd.DataFrame):
            raise NotYet(
                f"it returns {'nothing' if found is None else 'a table'}; return one time for each row."
            )
        moments = pd.Series(pd.to_datetime(list(found), utc=True)).dt.as_unit("us")
    if len(moments) != len(rows):
        raise NotYet(
            f"there are {len(rows)} rows, and your function returns {len(moments)} times. Return one for"
            " each row."
        )

    with staged(rows) as store:

        def known(times: pd.Series) -> list[bool]:
            questions = pd.DataFrame({"driver_id": rows.driver_id, "event_timestamp": times})
            job = store.get_historical_features(
                questions, ["driver_hourly_stats:conv_rate"], filter_by_created_timestamp=True
            )
            return job.to_df().sort_values("driver_id").conv_rate.notna().tolist()

        at, before = known(moments), known(moments - pd.Timedelta("1us"))
    for case, there, sooner in zip(cases, at, before, strict=True):
        if not there:
            raise NotYet(
                f"a row that {case}: at your time, Feast doesn't return it yet. Has it both happened and"
                " been written by then?"
            )
        if sooner:
            raise NotYet(
                f"a row that {case}: Feast already returns it a microsecond before your time. What"
                " does it still wait for?"
            )
    return (
        "A row counts from the later of its two times. With `filter_by_created_timestamp`, the ASOF store"
        " joins on that column. Before the join, it drops each row that was written after a row about a later"
        " time."
    )


Dataset = tuple[str, str]
SPEED, PROFILE = ("shop/riders", "speed_file"), ("shop/riders", "profile_file")
MODELS = {number: ("mlflow", f"models:/arrival/{number}") for number in (1, 2, 3, 4)}


def _graph() -> list[tuple[Dataset, Dataset]]:
    """Two projects whose data sets have the same names; models 1 to 3 are the first's, 4 is the second's."""
    edges: list[tuple[Dataset, Dataset]] = []
    for project in ("shop/riders", "shop/drivers"):
        for source, view in (("speed_file", "speed_view"), ("profile_file", "profile_view")):
            edges += [((project, source), (project, view)), ((project, "entity"), (project, view))]
        for view, service in (("speed_view", "fast"), ("speed_view", "both"), ("profile_view", "both")):
            edges.append(((project, view), (project, service)))
        edges.append(((project, "profile_view"), (project, "slow")))
    edges += [(("shop/riders", "fast"), MODELS[1]), (("shop/riders", "both"), MODELS[2])]
    edges += [(("shop/riders", "slow"), MODELS[3]), (("shop/drivers", "both"), MODELS[4])]
    return edges


def _models_from(answer: Any) -> str:
    if not callable(answer):
        raise NotYet(
            f"your answer has the type {type(answer).__name__}; write a function of edges and a data set."
        )
    edges = _graph()
    drivers_speed = ("shop/drivers", "speed_file")
    cases: dict[Dataset, set[Dataset]] = {
        SPEED: {MODELS[1], MODELS[2]},
        PROFILE: {MODELS[2], MODELS[3]},
        drivers_speed: {MODELS[4]},
        ("shop/riders", "slow"): {MODELS[3]},
        MODELS[4]: set(),
    }
    for dataset, expected in cases.items():
        with attempt("your function fails"):
            found = answer(list(edges), dataset)
            if found is ... or found is None:
                raise NotYet("your function returns nothing.")
            found = set(found)
        what = f"{dataset[1]!r} of {dataset[0]!r}"
        if strange := [one for one in found if one not in MODELS.values()]:
            raise NotYet(
                f"for {what}, you return {strange[0]!r}, which is no model's data set. Each is a namespace"
                " and a name, and a model's name begins with 'models:/'."
            )
        if missed := sorted(expected - found):
            raise NotYet(
                f"for {what}, {missed[0][1]!r} is missing. How many edges lie between the two, and in which"
                " direction do they point?"
            )
        if wrong := sorted(found - expected):
            raise NotYet(
                f"for {what}, you return {wrong[0][1]!r}, to which no path leads from there. Two projects"
                " have data sets with the same name: what tells them apart?"
            )
    return (
        f"Of {len(MODELS)} models, {len(cases[SPEED])} learned from the file, each through a feature view and"
        " a feature service; the other project's file of the same name leads to another model."
    )


EXERCISES = [
    Exercise(
        "13.1",
        "Find out when a row was known",
        _known_from,
        more=(
            "Two things must be true before a row counts: it has happened, and it has been written. Each"
            " has its time in the table, and both can come last."
        ),
        worked="""
def known_from(stats):
    # A row that happened at noon and was written at two counts from two o'clock; a
    # forecast, written at nine for noon, counts from noon. So the later time counts.
    return stats[["event_timestamp", "created"]].max(axis=1)
""",
    ),
    Exercise(
        "13.2",
        "Find the models behind a bad file",
        _models_from,
        more=(
            "`made_from` goes from a target to its sources. Turn it around: from a data set to all that was"
            " made from it, directly or through others. Keep those whose name begins with `models:/`."
        ),
        worked="""
def models_from(edges, dataset):
    # A data set is a namespace and a name: by the name alone, two projects would be one.
    reached, waiting = set(), [dataset]
    while waiting:
        current = waiting.pop()
        for source, target in edges:
            if source == current and target not in reached:
                reached.add(target)
                waiting.append(target)
    return {one for one in reached if one[1].startswith("models:/")}
""",
    ),
]

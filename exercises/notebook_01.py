"""The exercises of notebook 01."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from exercises.core import Exercise, NotYet, attempt, scratch
from helpers import registry
from helpers.data import NOW, UNKNOWN_DRIVER
from helpers.workspace import current

if TYPE_CHECKING:
    import pandas as pd
    from feast import FeatureStore, FeatureView

HOURLY = "driver_hourly_stats"


def _read(table: str) -> pd.DataFrame:
    import pandas as pd

    return pd.read_parquet(current().data / f"{table}.parquet")


def _ask(store: FeatureStore, questions: pd.DataFrame, features: list[str]) -> pd.DataFrame:
    """The features of each question, in the order of the questions, which Feast does not keep."""
    numbered = questions.reset_index(drop=True).rename_axis("question").reset_index()
    return store.get_historical_features(numbered, features).to_df().set_index("question").sort_index()


def _a_view(answer: Any) -> FeatureView:
    from feast import FeatureView

    if not isinstance(answer, FeatureView):
        raise NotYet(
            f"that is of the type {type(answer).__name__}; the check needs a `FeatureView`, as in"
            " feature_views.py."
        )
    ttl = answer.ttl
    if ttl and ttl.days and (ttl.seconds or ttl.microseconds):
        raise NotYet(
            f"Feast's DuckDB store cannot retrieve with a time to live of {ttl}: it takes whole days, or less"
            " than one."
        )
    return answer


def _fresh_acceptance(answer: Any) -> str:
    import pandas as pd

    view = _a_view(answer)
    if view.name != "driver_acceptance":
        raise NotYet(
            f"the view is named {view.name!r}; call it 'driver_acceptance', so that the team finds it."
        )
    if view.entities != ["driver"]:
        raise NotYet(
            "the view does not name the driver as its entity: whose rate is it? Compare `entities` in"
            " feature_views.py."
        )
    features = [field.name for field in view.features]
    if features != ["acc_rate"]:
        raise NotYet(f"its features are {features}; the team asked for `acc_rate` and nothing else.")
    kind = str(view.features[0].dtype)
    if kind not in ("Float64", "Float32"):
        raise NotYet(
            f"`acc_rate` is declared as {kind}, and the file holds shares between 0 and 1. Retrieval of the"
            " past would not enforce the type, and so not show it."
        )
    stats = _read("driver_stats").sort_values(["event_timestamp", "created"])
    last = stats.drop_duplicates("driver_id", keep="last")[["driver_id", "event_timestamp", "acc_rate"]]
    hours = (23, 25, 6 * 24)
    questions = pd.concat(
        [last.assign(age=age, event_timestamp=last.event_timestamp + timedelta(hours=age)) for age in hours]
    )
    with scratch() as store:
        with attempt("Feast does not register this view"):
            store.apply(view)
        with attempt("Feast registers this view, and cannot retrieve from it"):
            found = _ask(store, questions.drop(columns="acc_rate"), ["driver_acceptance:acc_rate"])
    after_23_hours, after_25_hours, after_6_days = (found[found.age == age].acc_rate for age in hours)
    lives = (
        f"The view's time to live is {view.ttl}."
        if view.ttl
        else "A view without a `ttl` keeps its values for ever."
    )
    if after_23_hours.isna().any():
        raise NotYet(f"23 hours after a driver's last row the rate is missing already. {lives}")
    if after_25_hours.notna().any():
        old = "6 days" if after_6_days.notna().any() else "25 hours"
        raise NotYet(f"Feast still gives a rate that is {old} old. {lives}")
    if (abs(after_23_hours.to_numpy() - last.acc_rate.to_numpy()) > 1e-9).any():
        raise NotYet("some rates are not those of `driver_stats`. From which source does the view read?")
    source = view.batch_source
    if source is None or source.name != "driver_stats" or source.created_timestamp_column != "created":
        raise NotYet(
            "it reads the right file by a source of its own. `driver_stats` is registered, and knows which of"
            " two rows was written last: take that one."
        )
    return (
        f"23 hours after its last row each of {len(last)} drivers has a rate, and 25 hours after it none. "
        "Two views read one file, and each says for itself how long a value is valid."
    )


def _returns_trips(answer: Callable) -> None:
    """Call the function on two drivers, as Feast does; its own errors about a wrong one are hard to read."""
    beside = {"driver_id": [1001, 1002], "event_timestamp": [NOW.to_pydatetime()] * 2}
    with attempt(
        'it fails on the lists of two drivers, which `mode="python"` passes (those of the two features, and'
        f" beside them {' and '.join(beside)})"
    ):
        given = answer(beside | {"conv_rate": [0.5, 0.0], "avg_daily_trips": [20, 8]})
    if not isinstance(given, dict):
        raise NotYet(
            f"it returns the type {type(given).__name__}; an on-demand view needs a dictionary, as those in"
            " on_demand.py return."
        )
    if list(given) != ["converted_trips"]:
        raise NotYet(
            f"the dictionary that it returns holds {list(given)}; it should hold 'converted_trips' alone."
        )
    values = given["converted_trips"]
    if not isinstance(values, list):
        raise NotYet(
            f"under 'converted_trips' it returns the type {type(values).__name__}; Feast needs a list."
        )
    if len(values) != 2:
        raise NotYet(f"two drivers go in and {len(values)} values come out; Feast needs one for each.")
    if values[1] is None or values[1] != values[1]:
        raise NotYet("a driver whose rate is 0 gets a missing value; but 0 is a rate that is known.")
    kinds = sorted({type(value).__name__ for value in values if not isinstance(value, float)})
    if kinds:
        raise NotYet(
            f"its list holds values of type {', '.join(kinds)}; the feature is a Float64, and Feast refuses"
            " them."
        )
    if values != [10, 0]:
        raise NotYet(f"a driver with a rate of 0.5 and 20 trips a day, and one with 0 and 8, get {values}.")


def _converted_trips(answer: Any) -> str:
    from feast import Field
    from feast.on_demand_feature_view import on_demand_feature_view
    from feast.types import Float64

    if not callable(answer):
        raise NotYet(
            f"that is of the type {type(answer).__name__}; the check needs a function, as the two in"
            " on_demand.py."
        )
    _returns_trips(answer)
    stats = _read("driver_stats")
    last = stats.groupby("driver_id").event_timestamp.max()
    missing = (
        f"{(last < NOW - timedelta(days=7)).sum()} of the {len(last)} drivers have no rate at the course's"
        " clock"
    )
    questions = last.reset_index().assign(event_timestamp=NOW)
    served = stats[stats.event_timestamp == stats.event_timestamp.max()].drop_duplicates("driver_id").head(2)
    with scratch() as store:
        with attempt("Feast does not register an on-demand view of this function"):
            columns = store.get_feature_view(HOURLY)[["conv_rate", "avg_daily_trips"]]
            schema = [Field(name="converted_trips", dtype=Float64)]
            view = on_demand_feature_view(sources=[columns], schema=schema, mode="python")(answer)
            store.apply(view)
        store.write_to_online_store(HOURLY, served)
        features = [f"{HOURLY}:conv_rate", f"{HOURLY}:avg_daily_trips", f"{view.name}:converted_trips"]
        whom = [{"driver_id": int(driver)} for driver in [*served.driver_id, UNKNOWN_DRIVER]]
        with attempt(f"{missing} and come as None, and the retrieval with your function fails"):
            try:
                offline = _ask(store, questions, features)
                online = store.get_online_features(features, whom).to_df()
            except NameError as error:
                raise NotYet(
                    f"Feast rebuilds the function from the registry, and then {error}. All that it needs has"
                    " to stand in its own body."
                ) from error
    for found, where in ((offline, "offline"), (online, "online")):
        trips = found.conv_rate.astype(float) * found.avg_daily_trips.astype(float)
        given = found.converted_trips.astype(float)
        unknown = trips.isna() & given.notna()
        if unknown.any():
            raise NotYet(
                f"{missing}, and with your function {unknown.sum()} of them {where} convert"
                f" {given[unknown].iloc[0]:g} trips a day. A model cannot tell that from a driver who was"
                " measured."
            )
        lost = given.isna() & trips.notna()
        if lost.any():
            raise NotYet(
                f"{where}, {lost.sum()} of {trips.notna().sum()} drivers with a rate and trips get no result."
                " Others in the lists have none, and each driver is a case of its own."
            )
        if (abs(given - trips) > 1e-9).any():
            raise NotYet(f"{where}, some results are not the rate times the number of trips.")
    return (
        f"Offline it gives {offline.converted_trips.notna().sum()} drivers a value and"
        f" {offline.converted_trips.isna().sum()} none, online {online.converted_trips.notna().sum()} and"
        f" {online.converted_trips.isna().sum()}: one function, written once, and no file holds its result."
    )


def _without_a_trace(answer: Any) -> str:
    view = _a_view(answer)
    if view.name != HOURLY:
        raise NotYet(f"this is the view {view.name!r}; the training data reads {HOURLY!r}.")
    features = [f"{HOURLY}:{name}" for name in ("conv_rate", "acc_rate", "avg_daily_trips")]
    labels = _read("driver_labels")[["driver_id", "event_timestamp"]]
    files = registry.definitions(current().feature_repo)
    others = [other for other in files.feature_views if other.name != HOURLY]
    with scratch() as store:
        difference, _, _ = store.plan(files._replace(feature_views=[view, *others]))
        properties = ", ".join(registry.changes(difference).properties)
        if not properties:
            raise NotYet("`plan` finds no change: this view is as it is in the files.")
        before = _ask(store, labels, features)
        with attempt("Feast does not apply this change"):
            store.apply(view)
        versions = len(store.list_feature_view_versions(HOURLY))
        if versions > 1:
            raise NotYet(
                f"`plan` reports {properties}, and the history has {versions} versions: this change leaves a"
                " trace. What else does a view say beside its features?"
            )
        with attempt("after this change the training data cannot be retrieved"):
            after = _ask(store, labels, features)
    other = ((before != after) & ~(before.isna() & after.isna())).any(axis="columns")
    if not other.any():
        raise NotYet(
            "the history has one version, but no value of the training data is another one: your change"
            f" ({properties}) does not reach it."
        )
    return (
        f"`plan` reports {properties}, the history still has one version, and {other.sum():,} of"
        f" {len(other):,} training rows are other ones. So a review reads the plan: the history will not"
        " tell."
    )


EXERCISES = [
    Exercise(
        "1.1",
        "Write a feature view",
        _fresh_acceptance,
        more=(
            "Take `driver_hourly_stats` in feature_views.py as a model: name, entities, ttl, schema and"
            " source, each with another value or fewer of them."
        ),
        worked="""
from datetime import timedelta

# Entity and source are registered already. The view only says which column, of whom, and for how long.
acceptance_view = FeatureView(
    name="driver_acceptance",
    entities=[store.get_entity("driver")],
    ttl=timedelta(days=1),
    schema=[Field(name="acc_rate", dtype=Float64)],
    source=store.get_data_source("driver_stats"),
)
""",
    ),
    Exercise(
        "1.2",
        "Compute a feature at retrieval",
        _converted_trips,
        more=(
            "Go through both lists at once with `zip`, as `driver_ratios` does. A missing value comes as"
            " None, which cannot be multiplied."
        ),
        worked="""
# One value for each driver, also for one without a rate: Feast puts the list beside the others.
def converted_trips(inputs):
    results = []
    for rate, trips in zip(inputs["conv_rate"], inputs["avg_daily_trips"], strict=True):
        missing = rate is None or rate != rate  # NaN, where a file holds one, differs from itself
        results.append(None if missing else rate * trips)
    return {"converted_trips": results}
""",
    ),
    Exercise(
        "1.3",
        "Change a feature without a trace",
        _without_a_trace,
        more=(
            "A version is kept when a feature changes. Leave the schema and the entities as they are: what"
            " decides which of the values are still used?"
        ),
        worked="""
from datetime import timedelta

# With a shorter time to live some values count as missing. Feast keeps a version when features or entities
# change, and these do not.
silent_change = FeatureView(
    name=hourly.name,
    entities=[store.get_entity("driver")],
    ttl=timedelta(days=1),
    schema=hourly.schema,
    source=hourly.batch_source,
    tags=hourly.tags,
)
""",
    ),
]

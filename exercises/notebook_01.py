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
            f"your answer is of type {type(answer).__name__}; the check needs a `FeatureView`, as in"
            " feature_views.py."
        )
    ttl = answer.ttl
    if ttl and ttl.days and (ttl.seconds or ttl.microseconds):
        raise NotYet(
            f"Feast's DuckDB store can't retrieve with a time to live of {ttl}: use whole days, or less than"
            " one day."
        )
    return answer


def _fresh_acceptance(answer: Any) -> str:
    import pandas as pd

    view = _a_view(answer)
    if view.name != "driver_acceptance":
        raise NotYet(
            f"the view is named {view.name!r}; name it 'driver_acceptance', so that the team can find it."
        )
    if view.entities != ["driver"]:
        raise NotYet(
            "the view doesn't have the driver as its entity, so Feast doesn't know whose rate it is. Compare"
            " `entities` in feature_views.py."
        )
    features = [field.name for field in view.features]
    if features != ["acc_rate"]:
        raise NotYet(f"the view's features are {features}; the team asked for `acc_rate` alone.")
    kind = str(view.features[0].dtype)
    if kind not in ("Float64", "Float32"):
        raise NotYet(
            f"`acc_rate` is declared as {kind}, but the file holds shares between 0 and 1. Retrieving past"
            " values doesn't enforce the type, so the mistake wouldn't show there."
        )
    stats = _read("driver_stats").sort_values(["event_timestamp", "created"])
    last = stats.drop_duplicates("driver_id", keep="last")[["driver_id", "event_timestamp", "acc_rate"]]
    hours = (23, 25, 6 * 24)
    questions = pd.concat(
        [last.assign(age=age, event_timestamp=last.event_timestamp + timedelta(hours=age)) for age in hours]
    )
    with scratch() as store:
        with attempt("Feast doesn't register this view"):
            store.apply(view)
        with attempt("Feast registers this view, but can't retrieve from it"):
            found = _ask(store, questions.drop(columns="acc_rate"), ["driver_acceptance:acc_rate"])
    after_23_hours, after_25_hours, after_6_days = (found[found.age == age].acc_rate for age in hours)
    lives = (
        f"The view's time to live is {view.ttl}."
        if view.ttl
        else "In a view without a `ttl`, values never expire."
    )
    if after_23_hours.isna().any():
        raise NotYet(f"23 hours after a driver's last row, the rate is already missing. {lives}")
    if after_25_hours.notna().any():
        old = "6 days" if after_6_days.notna().any() else "25 hours"
        raise NotYet(f"Feast still returns a rate that is {old} old. {lives}")
    if (abs(after_23_hours.to_numpy() - last.acc_rate.to_numpy()) > 1e-9).any():
        raise NotYet("some rates differ from those of `driver_stats`. Which source does the view read?")
    source = view.batch_source
    if source is None or source.name != "driver_stats" or source.created_timestamp_column != "created":
        raise NotYet(
            "the view reads the right file through another source. Use the registered `driver_stats`, whose"
            " `created` column tells which of two rows is newer."
        )
    return (
        f"23 hours after the last row, each of {len(last)} drivers has a rate, and after 25 hours none has. "
        "Two views read one file, each with its own time to live."
    )


def _returns_trips(answer: Callable) -> None:
    """Call the function on two drivers as Feast does, because Feast's own errors are hard to read."""
    beside = {"driver_id": [1001, 1002], "event_timestamp": [NOW.to_pydatetime()] * 2}
    with attempt(
        '`converted_trips` fails on the lists of two drivers that `mode="python"` passes (the two features,'
        f" with {' and '.join(beside)})"
    ):
        given = answer(beside | {"conv_rate": [0.5, 0.0], "avg_daily_trips": [20, 8]})
    if not isinstance(given, dict):
        raise NotYet(
            f"`converted_trips` returns a {type(given).__name__}; an on-demand view needs a dictionary, like"
            " those that the functions in on_demand.py return."
        )
    if list(given) != ["converted_trips"]:
        raise NotYet(f"the returned dictionary holds {list(given)}; it should hold 'converted_trips' alone.")
    values = given["converted_trips"]
    if not isinstance(values, list):
        raise NotYet(f"the value of 'converted_trips' is a {type(values).__name__}; Feast needs a list.")
    if len(values) != 2:
        raise NotYet(
            f"for two drivers, the list holds {len(values)} values; Feast needs one for each driver."
        )
    if values[1] is None or values[1] != values[1]:
        raise NotYet("a driver whose rate is 0 gets a missing value, but 0 is a known rate.")
    kinds = sorted({type(value).__name__ for value in values if not isinstance(value, float)})
    if kinds:
        raise NotYet(
            f"the list holds values of type {', '.join(kinds)}; the feature is a Float64, so Feast rejects"
            " them."
        )
    if values != [10, 0]:
        raise NotYet(
            f"for a rate of 0.5 with 20 trips a day, and a rate of 0 with 8, the result is {values}."
        )


def _converted_trips(answer: Any) -> str:
    from feast import Field
    from feast.on_demand_feature_view import on_demand_feature_view
    from feast.types import Float64

    if not callable(answer):
        raise NotYet(
            f"your answer is of type {type(answer).__name__}; the check needs a function, like the two in"
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
        with attempt("Feast doesn't register an on-demand view of this function"):
            columns = store.get_feature_view(HOURLY)[["conv_rate", "avg_daily_trips"]]
            schema = [Field(name="converted_trips", dtype=Float64)]
            view = on_demand_feature_view(sources=[columns], schema=schema, mode="python")(answer)
            store.apply(view)
        store.write_to_online_store(HOURLY, served)
        features = [f"{HOURLY}:conv_rate", f"{HOURLY}:avg_daily_trips", f"{view.name}:converted_trips"]
        whom = [{"driver_id": int(driver)} for driver in [*served.driver_id, UNKNOWN_DRIVER]]
        with attempt(f"{missing}, which your function gets as None, and the retrieval fails"):
            try:
                offline = _ask(store, questions, features)
                online = store.get_online_features(features, whom).to_df()
            except NameError as error:
                raise NotYet(
                    f"Feast rebuilds the function from the registry, and then {error}. Define everything that"
                    " the function needs in its own body."
                ) from error
    for found, where in ((offline, "offline"), (online, "online")):
        trips = found.conv_rate.astype(float) * found.avg_daily_trips.astype(float)
        given = found.converted_trips.astype(float)
        unknown = trips.isna() & given.notna()
        if unknown.any():
            raise NotYet(
                f"{missing}, but your function returns {given[unknown].iloc[0]:g} trips a day for"
                f" {unknown.sum()} of them {where}. A model can't tell that from a measured value."
            )
        lost = given.isna() & trips.notna()
        if lost.any():
            raise NotYet(
                f"{where}, {lost.sum()} of {trips.notna().sum()} drivers with a rate and trips get no result."
                " Other drivers in the lists have no rate; decide for each driver separately."
            )
        if (abs(given - trips) > 1e-9).any():
            raise NotYet(f"{where}, some results differ from the rate times the number of trips.")
    return (
        f"Offline, {offline.converted_trips.notna().sum()} drivers get a value and"
        f" {offline.converted_trips.isna().sum()} don't; online, {online.converted_trips.notna().sum()} get"
        f" one and {online.converted_trips.isna().sum()} doesn't. The same function computes both."
    )


def _without_a_trace(answer: Any) -> str:
    view = _a_view(answer)
    if view.name != HOURLY:
        raise NotYet(f"your view is named {view.name!r}; the training data reads {HOURLY!r}.")
    features = [f"{HOURLY}:{name}" for name in ("conv_rate", "acc_rate", "avg_daily_trips")]
    labels = _read("driver_labels")[["driver_id", "event_timestamp"]]
    files = registry.definitions(current().feature_repo)
    others = [other for other in files.feature_views if other.name != HOURLY]
    with scratch() as store:
        difference, _, _ = store.plan(files._replace(feature_views=[view, *others]))
        properties = ", ".join(registry.changes(difference).properties)
        if not properties:
            raise NotYet("`plan` finds no change: your view equals the one in the files.")
        before = _ask(store, labels, features)
        with attempt("Feast doesn't apply this change"):
            store.apply(view)
        versions = len(store.list_feature_view_versions(HOURLY))
        if versions > 1:
            raise NotYet(
                f"`plan` reports {properties}, and the history now has {versions} versions. What else does a"
                " view declare, apart from its features?"
            )
        with attempt("after this change, the training data can't be retrieved"):
            after = _ask(store, labels, features)
    other = ((before != after) & ~(before.isna() & after.isna())).any(axis="columns")
    if not other.any():
        raise NotYet(
            "the history has one version, but no value of the training data differs: your change"
            f" ({properties}) doesn't affect it."
        )
    return (
        f"`plan` reports {properties}, the history still has one version, and {other.sum():,} of"
        f" {len(other):,} training rows differ. So review the plan: the history doesn't show this change."
    )


EXERCISES = [
    Exercise(
        "1.1",
        "Write a feature view",
        _fresh_acceptance,
        more=(
            "Start from `driver_hourly_stats` in feature_views.py and change its name, ttl, and schema. Get"
            " the entity and the source from the store."
        ),
        worked="""
from datetime import timedelta

# The entity and the source are registered already. The view adds a column and a time to live.
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
            "Loop over both lists at once with `zip`, as `driver_ratios` does. A missing value is None, which"
            " can't be multiplied."
        ),
        worked="""
# Return one value for each driver, and None for a driver without a rate.
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
            "Changed features make a version, so leave the schema and the entities alone. Which property"
            " decides when a value expires?"
        ),
        worked="""
from datetime import timedelta

# With a shorter time to live, some values count as missing. Feast makes a version when features or entities
# change, and here they don't.
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

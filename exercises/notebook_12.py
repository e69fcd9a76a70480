"""The exercises of notebook 12: definitions that later cells use."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exercises.core import Exercise, NotYet, attempt
from helpers.workspace import current

if TYPE_CHECKING:
    import pandas as pd
    from feast import FeatureStore, FeatureView


def _table(name: str) -> pd.DataFrame:
    import pandas as pd

    return pd.read_parquet(current().path / "flights" / "data" / f"{name}.parquet")


@contextlib.contextmanager
def _a_project() -> Iterator[FeatureStore]:
    """A Feast project without definitions, with the notebook's settings; gone afterwards."""
    from feast import FeatureStore, RepoConfig

    settings = FeatureStore(repo_path=str(current().path / "flights" / "feature_repo")).config
    with tempfile.TemporaryDirectory(prefix="exercise-") as folder:
        kept = settings.model_dump(by_alias=True, exclude_none=True)
        kept["registry"] = {"registry_type": "file", "path": f"{folder}/registry.db"}
        kept["online_store"] = {"type": "sqlite", "path": f"{folder}/online_store.db"}
        yield FeatureStore(config=RepoConfig(**kept | {"repo_path": Path(folder)}))


def _entities() -> list[Any]:
    from feast import Entity, ValueType

    return [
        Entity(name=name, join_keys=[name], value_type=ValueType.STRING) for name in ("origin", "carrier")
    ]


def _view_of_both(answer: Any, name: str, features: dict[str, str]) -> FeatureView:
    """The answer, when it is a view of this name with both entities and these features."""
    from feast import FeatureView

    if not isinstance(answer, FeatureView):
        raise NotYet(
            f"your answer has the type {type(answer).__name__}; the check needs a"
            " `FeatureView` like the two above."
        )
    if answer.name != name:
        raise NotYet(f"the view is named {answer.name!r}; call it {name!r}.")
    if sorted(answer.entities) != ["carrier", "origin"]:
        raise NotYet(
            f"its entities are {answer.entities}. A row of the file is about an airport and a carrier"
            " together, so the view needs both."
        )
    found = {field.name: str(field.dtype) for field in answer.features}
    if sorted(found) != sorted(features):
        raise NotYet(f"its features are {sorted(found)}; they should be {sorted(features)}.")
    for feature, kind in features.items():
        if found[feature] != kind:
            raise NotYet(
                f"`{feature}` is declared as {found[feature]}; declare it as {kind}, like the airport's."
            )
    return answer


def _ask(view: FeatureView, questions: pd.DataFrame, features: list[str]) -> pd.DataFrame:
    """The features of each question, in the order of the questions."""
    numbered = questions.reset_index(drop=True).rename_axis("question").reset_index()
    with _a_project() as store:
        with attempt("Feast doesn't register this view"):
            store.apply([*_entities(), view])
        with attempt("Feast registers this view, but can't retrieve from it"):
            job = store.get_historical_features(numbered, [f"{view.name}:{feature}" for feature in features])
            return job.to_df().set_index("question").sort_index()


def _two_keys(answer: Any) -> str:
    import pandas as pd

    features = {"carrier_delay": "Float64", "carrier_flights": "Int64"}
    view = _view_of_both(answer, "carrier_at_airport", features)
    rows = _table("carrier")
    moment = pd.Timestamp("2013-06-13 22:00", tz="UTC")
    asked = rows[(rows.event_timestamp == moment) & (rows.origin == "JFK") & rows.carrier.isin(["B6", "DL"])]
    last = rows[rows.event_timestamp == rows.event_timestamp.max()]
    fresh = asked.assign(event_timestamp=moment + timedelta(minutes=10))
    lasting = last.assign(event_timestamp=last.event_timestamp + timedelta(minutes=110))
    old = last.assign(event_timestamp=last.event_timestamp + timedelta(hours=3))
    questions = pd.concat([fresh, lasting, old])[["origin", "carrier", "event_timestamp"]]
    found = _ask(view, questions, list(features))
    found_fresh, found_lasting, found_old = (
        found[: len(fresh)],
        found[len(fresh) : -len(old)],
        found[-len(old) :],
    )
    for name in features:
        if found_fresh[name].isna().any():
            raise NotYet(
                f"ten minutes after its row, `{name}` is missing. Check the view's file, its timestamp"
                " column, and its time to live."
            )
        if abs(found_fresh[name].to_numpy(float) - fresh[name].to_numpy(float)).max() > 1e-9:
            raise NotYet(
                f"`{name}` of the carriers B6 and DL isn't what the file holds for each of them. Check the"
                " view's file."
            )
    if found_lasting.isna()[list(features)].any(axis=None):
        raise NotYet(
            "an hour and fifty minutes after the last row, the values are missing: the view's time to live"
            f" is {view.ttl}. The airport's is two hours."
        )
    if found_old.notna()[list(features)].any(axis=None):
        raise NotYet(
            "three hours after the last row, Feast still returns values: the view's time to live is"
            f" {view.ttl or 'unlimited'}. The airport's is two hours."
        )
    return (
        f"Two carriers of one airport get different values, and none of {len(old)} pairs gets one that is"
        " three hours old."
    )


def _from_the_caller(answer: Any) -> str:
    import pandas as pd
    from feast.on_demand_feature_view import OnDemandFeatureView

    if not isinstance(answer, OnDemandFeatureView):
        raise NotYet(
            f"your answer has the type {type(answer).__name__}; to make a view, decorate a"
            " function with `on_demand_feature_view`."
        )
    if answer.name != "schedule":
        raise NotYet(f"the view is named {answer.name!r}, like its function; call the function `schedule`.")
    fields = {
        field.name: str(field.dtype)
        for source in answer.source_request_sources.values()
        for field in source.schema
    }
    if fields != {"scheduled_hour": "Float64"}:
        raise NotYet(
            f"the request fields are {fields or 'not declared'}; declare `scheduled_hour`, a Float64, in a"
            " `RequestSource`."
        )
    found = {field.name: str(field.dtype) for field in answer.features}
    if found != {"hours_into_day": "Float64"}:
        raise NotYet(f"its features are {found}; the only one should be `hours_into_day`, a Float64.")
    asked = {4.0: 0.0, 17.25: 13.25, 23.5: 19.5, 0.5: 20.5, 3.75: 23.75}
    keys = {"origin": "JFK", "carrier": "B6", "event_timestamp": pd.Timestamp("2013-06-13", tz="UTC")}
    questions = pd.DataFrame([keys | {"scheduled_hour": hour} for hour in asked])
    with _a_project() as store:
        with attempt("Feast doesn't register this view"):
            store.apply([*_entities(), answer])
        with attempt("Feast registers this view, but can't compute with it"):
            job = store.get_historical_features(questions, ["schedule:hours_into_day"])
            frame = job.to_df().set_index("scheduled_hour")
    for hour, right in asked.items():
        value = frame.hours_into_day[hour]
        if not abs(value - right) < 1e-9:
            raise NotYet(
                f"for the hour {hour} the view returns {value} instead of {right}. The day begins at four; an"
                " earlier hour belongs to the end of the day before."
            )
    return "The caller's hour goes in, and the hours since four come out, also after midnight."


def _known_only_then(answer: Any) -> str:
    import pandas as pd

    view = _view_of_both(answer, "day_as_known", {"day_delay_known": "Float64"})
    source = view.batch_source
    if source and source.name in ("day", "airport", "carrier", "weather"):
        raise NotYet(
            f"its source is named {source.name!r}, like that of another view, which it would replace in the"
            " registry. Choose a new name."
        )
    rows = _table("day")
    of_one = rows[(rows.origin == "JFK") & (rows.carrier == "B6")].sort_values("day").reset_index(drop=True)
    today, yesterday = of_one.iloc[73], of_one.iloc[72]
    morning = today.known + timedelta(minutes=5)
    noon = today.day + timedelta(hours=12)
    questions = pd.DataFrame({"origin": "JFK", "carrier": "B6", "event_timestamp": [noon, morning]})
    at_noon, next_morning = _ask(view, questions, ["day_delay_known"]).day_delay_known
    if abs(at_noon - today.day_delay) < 1e-9:
        raise NotYet(
            "at noon the view returns the mean of that whole day, and half of the day's flights haven't left."
            " Which column says when a row was known?"
        )
    if not abs(at_noon - yesterday.day_delay) < 1e-9:
        raise NotYet(
            f"at noon the view returns {at_noon}; the mean of the day before, {yesterday.day_delay:.1f}, was"
            " known then. Check the time to live and the mapped column."
        )
    if not abs(next_morning - today.day_delay) < 1e-9:
        raise NotYet(
            f"five minutes after the day's last departure the view returns {next_morning}; by then the day's"
            f" mean, {today.day_delay:.1f}, is known."
        )
    return "At noon the view returns the mean of the day before, and after the last flight the day's own."


EXERCISES = [
    Exercise(
        number="12.1",
        title="Define a view with two keys",
        judge=_two_keys,
        more=(
            "Copy `airport_view` and change four things: the name, `entities=[origin, carrier]`, a field for"
            ' each column of the file (the two keys are `String`), and `source("carrier", ...)`.'
        ),
        worked="""
carrier_view = FeatureView(
    name="carrier_at_airport",
    entities=[origin, carrier],
    ttl=timedelta(hours=2),
    schema=[
        Field(name="origin", dtype=String),
        Field(name="carrier", dtype=String),
        Field(name="carrier_delay", dtype=Float64),
        Field(name="carrier_flights", dtype=Int64),
    ],
    source=source("carrier", timestamp="event_timestamp"),
)

# With one entity, Feast would join on that key alone, and mix the rows of all carriers.
""",
    ),
    Exercise(
        number="12.2",
        title="Compute from what only the caller knows",
        judge=_from_the_caller,
        more=(
            "Put a `RequestSource(name=..., schema=[Field(...)])` into `sources`. The function gets lists,"
            ' such as `inputs["scheduled_hour"]`. In Python, the remainder `%` by 24 is never'
            " negative: `(0.5 - 4) % 24` is 20.5."
        ),
        worked="""
caller = RequestSource(name="caller", schema=[Field(name="scheduled_hour", dtype=Float64)])


@on_demand_feature_view(
    sources=[caller], schema=[Field(name="hours_into_day", dtype=Float64)], mode="python"
)
def schedule(inputs):
    return {"hours_into_day": [(hour - 4) % 24 for hour in inputs["scheduled_hour"]]}

# As hours since midnight, 0.5 and 23.5 would be the two ends of a scale, although they are neighbors.
""",
    ),
    Exercise(
        number="12.3",
        title="Stamp the day when it was known",
        judge=_known_only_then,
        more=(
            'A `FileSource` takes `timestamp_field` and `field_mapping={"column of the file": "name of the'
            ' feature"}`. No other source may have its name.'
        ),
        worked="""
day_as_known_view = FeatureView(
    name="day_as_known",
    entities=[origin, carrier],
    ttl=timedelta(days=3),
    schema=[
        Field(name="origin", dtype=String),
        Field(name="carrier", dtype=String),
        Field(name="day_delay_known", dtype=Float64),
    ],
    source=FileSource(
        name="day_as_known",
        path=str(project / "data" / "day.parquet"),
        timestamp_field="known",
        field_mapping={"day_delay": "day_delay_known"},
    ),
)

# One word decides: the same file is stamped with the day it describes, or with the time it was known.
""",
    ),
]

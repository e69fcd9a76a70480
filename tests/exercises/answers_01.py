from faults import Answers

VIEW = """
from datetime import timedelta
from feast.types import Float32, Int64
acceptance_view = FeatureView(
    name="driver_acceptance",
    entities=[store.get_entity("driver")],
    ttl=timedelta(days=1),
    schema=[Field(name="driver_id", dtype=Int64), Field(name="acc_rate", dtype=Float64)],
    source=store.get_data_source("driver_stats"),
)
"""
TRIPS = """
def converted_trips(inputs):
    pairs = zip(inputs["conv_rate"], inputs["avg_daily_trips"])
    lost = lambda rate: rate is None or rate != rate
    return {"converted_trips": [None if lost(rate) else rate * trips for rate, trips in pairs]}
"""
CHANGE = """
hourly = store.get_feature_view("driver_hourly_stats")
silent_change = FeatureView(
    name=hourly.name,
    entities=[store.get_entity("driver")],
    ttl=hourly.ttl,
    schema=hourly.schema,
    source=hourly.batch_source,
    tags=hourly.tags,
)
"""


def but(code: str, old: str, new: str) -> str:
    """An answer with one part changed."""
    assert old in code
    return code.replace(old, new)


ANSWERS = {
    "1.1": Answers(
        right=[
            VIEW,
            "[hourly_source] = [found for found in store.list_data_sources() if found.name == 'driver_stats']"
            + but(
                but(VIEW, "timedelta(days=1)", "pd.Timedelta(hours=24)"),
                'store.get_data_source("driver_stats")',
                "hourly_source",
            ),
        ],
        wrong={
            "values never expire": but(VIEW, "    ttl=timedelta(days=1),\n", ""),
            "that is 6 days old. The view's time to live is 7 days": but(VIEW, "days=1", "days=7"),
            "the rate is already missing": but(VIEW, "days=1", "hours=1"),
            "whose rate it is": but(VIEW, '    entities=[store.get_entity("driver")],\n', ""),
            "can't retrieve from it": but(VIEW, '"driver_stats"', '"driver_profile"'),
            "features are ['acceptance']": but(VIEW, '"acc_rate"', '"acceptance"'),
            "the view is named 'driver_hourly_stats'": but(
                VIEW, '"driver_acceptance"', '"driver_hourly_stats"'
            ),
            "is declared as Int64": but(VIEW, "dtype=Float64", "dtype=Int64"),
            "through another source": (
                but(
                    VIEW,
                    'store.get_data_source("driver_stats")',
                    'FileSource(name="own", path=store.get_data_source("driver_stats").path,'
                    ' timestamp_field="event_timestamp")',
                ).replace("from datetime", "from feast import FileSource\nfrom datetime")
            ),
            "your answer is of type str": "acceptance_view = 'driver_acceptance'",
        },
    ),
    "1.2": Answers(
        right=[
            TRIPS,
            """
def converted_trips(inputs):
    import pandas as pd

    table = pd.DataFrame({name: inputs[name] for name in ("conv_rate", "avg_daily_trips")}, dtype=float)
    return {"converted_trips": table.prod(axis=1, skipna=False).tolist()}
""",
        ],
        wrong={
            "gets as None, and the retrieval fails: TypeError": but(
                TRIPS, "None if lost(rate) else rate * trips", "rate * trips"
            ),
            "returns 0 trips a day": but(TRIPS, "None if", "0.0 if"),
            "is a known rate": but(TRIPS, "None if lost(rate)", "None if not rate"),
            "got length 144": but(TRIPS, "pairs]}", "pairs if rate is not None]}"),
            "returns a list; an on-demand view": but(TRIPS, '{"converted_trips": [', "[").replace("]}", "]"),
            "can't multiply sequence": """
def converted_trips(inputs):
    return {'converted_trips': inputs['conv_rate'] * inputs['avg_daily_trips']}
""",
            "with driver_id and event_timestamp): ValueError: too many values": but(
                TRIPS, 'zip(inputs["conv_rate"], inputs["avg_daily_trips"])', "zip(*inputs.values())"
            ),
            "144 of 144 drivers with a rate and trips get no result": """
def converted_trips(inputs):
    pairs = zip(inputs['conv_rate'], inputs['avg_daily_trips'])
    try:
        return {'converted_trips': [rate * trips for rate, trips in pairs]}
    except TypeError:
        return {'converted_trips': [None] * len(inputs['conv_rate'])}
""",
            "holds ['trips']": but(TRIPS, '{"converted_trips"', '{"trips"'),
            "your answer is of type str": "converted_trips = 'conv_rate * avg_daily_trips'",
            "values of type int": but(TRIPS, "rate * trips for", "round(rate * trips) for"),
            "differ from the rate times the number of trips": but(
                TRIPS, "rate * trips for", "round(rate * trips, 1) for"
            ),
            "the result is [20.5, 8.0]": but(TRIPS, "rate * trips for", "rate + trips for"),
            "the list holds 1 values": but(TRIPS, "in pairs]", "in pairs if rate]"),
            "is a ndarray; Feast needs a list": """
def converted_trips(inputs):
    rates, trips = inputs['conv_rate'], inputs['avg_daily_trips']
    return {'converted_trips': np.array(rates, dtype=float) * np.array(trips, dtype=float)}
""",
            "in its own body": """
def product(rate, trips):
    return None if rate is None else rate * trips
def converted_trips(inputs):
    return {'converted_trips': list(map(product, inputs['conv_rate'], inputs['avg_daily_trips']))}
""",
        },
    ),
    "1.3": Answers(
        right=[
            but(CHANGE, "ttl=hourly.ttl", "ttl=pd.Timedelta(days=1)"),
            """
import copy
hourly = store.get_feature_view("driver_hourly_stats")
silent_change = copy.copy(hourly)
silent_change.ttl = hourly.ttl * 3
""",
        ],
        wrong={
            "`plan` finds no change": CHANGE,
            "your change (tags) doesn't affect it": but(CHANGE, "tags=hourly.tags", "tags={'team': 'risk'}"),
            "now has 2 versions": (
                but(
                    CHANGE,
                    "schema=hourly.schema",
                    "schema=[*hourly.schema, Field(name='cancel_rate', dtype=Float64)]",
                )
            ),
            "whole days, or less than one day": but(CHANGE, "ttl=hourly.ttl", "ttl=pd.Timedelta(hours=36)"),
            "your view is named 'driver_daily_profile'": (
                but(CHANGE, "driver_hourly_stats", "driver_daily_profile")
            ),
            "your answer is of type list": "silent_change = proposed.schema",
        },
    ),
}

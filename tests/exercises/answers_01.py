from answers import Answers

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
    return {"converted_trips": [None if rate is None or rate != rate else rate * trips for rate, trips in pairs]}
"""
CHANGE = """
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
            but(
                but(VIEW, "timedelta(days=1)", "pd.Timedelta(hours=24)"),
                'store.get_data_source("driver_stats")',
                "hourly_source",
            ).replace(
                "acceptance_view",
                "[hourly_source] = [found for found in definitions.data_sources if found.name == 'driver_stats']\nacceptance_view",
            ),
        ],
        wrong=[
            (but(VIEW, "    ttl=timedelta(days=1),\n", ""), "without a `ttl` keeps its values for ever"),
            (but(VIEW, "days=1", "days=7"), "that is 6 days old. The view's time to live is 7 days"),
            (but(VIEW, "days=1", "hours=1"), "the rate is missing already"),
            (but(VIEW, '    entities=[store.get_entity("driver")],\n', ""), "whose rate is it"),
            (but(VIEW, '"driver_stats"', '"driver_profile"'), "cannot retrieve from it"),
            (but(VIEW, '"acc_rate"', '"acceptance"'), "its features are ['acceptance']"),
            (
                but(VIEW, '"driver_acceptance"', '"driver_hourly_stats"'),
                "the view is named 'driver_hourly_stats'",
            ),
            (but(VIEW, "dtype=Float64", "dtype=Int64"), "is declared as Int64"),
            (
                but(
                    VIEW,
                    'store.get_data_source("driver_stats")',
                    'FileSource(name="own", path=store.get_data_source("driver_stats").path, timestamp_field="event_timestamp")',
                ).replace("from datetime", "from feast import FileSource\nfrom datetime"),
                "by a source of its own",
            ),
            ("acceptance_view = 'driver_acceptance'", "that is of the type str"),
        ],
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
        wrong=[
            (
                but(TRIPS, "None if rate is None or rate != rate else rate * trips", "rate * trips"),
                "come as None, and the retrieval with your function fails: TypeError",
            ),
            (but(TRIPS, "None if", "0.0 if"), "convert 0 trips a day"),
            (but(TRIPS, "None if rate is None or rate != rate", "None if not rate"), "a rate that is known"),
            (but(TRIPS, "pairs]}", "pairs if rate is not None]}"), "got length 144"),
            (but(TRIPS, '{"converted_trips": [', "[").replace("]}", "]"), "it returns the type list"),
            (
                "def converted_trips(inputs):\n    return {'converted_trips': inputs['conv_rate'] * inputs['avg_daily_trips']}",
                "can't multiply sequence",
            ),
            (
                but(TRIPS, 'zip(inputs["conv_rate"], inputs["avg_daily_trips"])', "zip(*inputs.values())"),
                "beside them driver_id and event_timestamp): ValueError: too many values",
            ),
            (
                "def converted_trips(inputs):\n    pairs = zip(inputs['conv_rate'], inputs['avg_daily_trips'])\n"
                "    try:\n        return {'converted_trips': [rate * trips for rate, trips in pairs]}\n"
                "    except TypeError:\n        return {'converted_trips': [None] * len(inputs['conv_rate'])}",
                "144 of 144 drivers with a rate and trips get no result",
            ),
            (but(TRIPS, '{"converted_trips"', '{"trips"'), "holds ['trips']"),
            ("converted_trips = 'conv_rate * avg_daily_trips'", "that is of the type str"),
            (but(TRIPS, "rate * trips for", "round(rate * trips) for"), "values of type int"),
            (
                but(TRIPS, "rate * trips for", "round(rate * trips, 1) for"),
                "are not the rate times the number of trips",
            ),
            (but(TRIPS, "rate * trips for", "rate + trips for"), "get [20.5, 8.0]"),
            (but(TRIPS, "in pairs]", "in pairs if rate]"), "1 values come out"),
            (
                "def converted_trips(inputs):\n    rates, trips = inputs['conv_rate'], inputs['avg_daily_trips']\n"
                "    return {'converted_trips': np.array(rates, dtype=float) * np.array(trips, dtype=float)}",
                "it returns the type ndarray",
            ),
            (
                "def product(rate, trips):\n    return None if rate is None else rate * trips\n"
                "def converted_trips(inputs):\n"
                "    return {'converted_trips': list(map(product, inputs['conv_rate'], inputs['avg_daily_trips']))}",
                "in its own body",
            ),
        ],
    ),
    "1.3": Answers(
        right=[
            but(CHANGE, "ttl=hourly.ttl", "ttl=pd.Timedelta(days=1)"),
            "import copy\nsilent_change = copy.copy(hourly)\nsilent_change.ttl = hourly.ttl * 3",
        ],
        wrong=[
            (CHANGE, "`plan` finds no change"),
            (
                but(CHANGE, "tags=hourly.tags", "tags={'team': 'risk'}"),
                "your change (tags) does not reach it",
            ),
            (
                but(
                    CHANGE,
                    "schema=hourly.schema",
                    "schema=[*hourly.schema, Field(name='cancel_rate', dtype=Float64)]",
                ),
                "leaves a trace",
            ),
            (but(CHANGE, "ttl=hourly.ttl", "ttl=pd.Timedelta(hours=36)"), "whole days, or less than one"),
            (
                but(CHANGE, "hourly", "daily").replace(
                    "silent", "daily = store.get_feature_view('driver_daily_profile')\nsilent", 1
                ),
                "this is the view 'driver_daily_profile'",
            ),
            ("silent_change = hourly.schema", "that is of the type list"),
        ],
    ),
}

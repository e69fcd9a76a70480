from answers import Answers

from exercises.notebook_12 import EXERCISES

SCHEDULE = """
@on_demand_feature_view(
    sources=[RequestSource(name="asked", schema=[Field(name="scheduled_hour", dtype=Float64)])],
    schema=[Field(name="hours_into_day", dtype=Float64)],
    mode="python",
)
def schedule(inputs):
    return {"hours_into_day": [hour - 4 if hour >= 4 else hour + 20 for hour in inputs["scheduled_hour"]]}
"""
VIEW, _, DAY = (exercise.worked for exercise in EXERCISES)

ANSWERS = {
    "12.1": Answers(
        right=[VIEW.replace("[origin, carrier]", "[carrier, origin]").replace("hours=2", "minutes=119")],
        wrong=[
            ("carrier_view = airport_view", "the view is named 'airport'"),
            ("carrier_view = origin", "that is of the type Entity"),
            (VIEW.replace("[origin, carrier]", "[origin]"), "about an airport and a carrier together"),
            (VIEW.replace('        Field(name="carrier_flights", dtype=Int64),\n', ""), "its features are"),
            (VIEW.replace("dtype=Int64", "dtype=Float64"), "`carrier_flights` is declared as Float64"),
            (VIEW.replace("hours=2", "days=2"), "three hours after the last row"),
            (VIEW.replace("    ttl=timedelta(hours=2),\n", ""), "without an end"),
            (VIEW.replace("hours=2", "minutes=5"), "ten minutes after its row"),
            (VIEW.replace("hours=2", "minutes=90"), "an hour and fifty minutes after the last row"),
            (VIEW.replace('source("carrier"', 'source("airport"'), "cannot retrieve from it"),
        ],
    ),
    "12.2": Answers(
        right=[SCHEDULE],
        wrong=[
            (SCHEDULE.replace("hour + 20", "hour"), "for the hour 0.5 it gives 0.5"),
            (
                SCHEDULE.replace("def schedule", "def hours").replace("schedule(", "hours(")
                + "\nschedule = hours",
                "the view is named 'hours'",
            ),
            (SCHEDULE.replace("Float64)],\n    mode", "Int64)],\n    mode"), "one is asked for"),
            (
                SCHEDULE.replace('"scheduled_hour", dtype=Float64', '"scheduled_hour", dtype=Int64'),
                "it should be `scheduled_hour`, a Float64",
            ),
            (
                "def schedule(inputs):\n    return {'hours_into_day': [(hour - 4) % 24 for hour in inputs['scheduled_hour']]}",
                "that is of the type function",
            ),
            (SCHEDULE.replace('inputs["scheduled_hour"]]', 'inputs["hour"]]'), "Feast"),
        ],
    ),
    "12.3": Answers(
        right=[DAY.replace("[origin, carrier]", "[carrier, origin]")],
        wrong=[
            (DAY.replace('timestamp_field="known"', 'timestamp_field="day"'), "the mean of that whole day"),
            (DAY.replace("[origin, carrier]", "[origin]"), "about an airport and a carrier together"),
            (DAY.replace('Field(name="day_delay_known"', 'Field(name="day_mean"'), "its features are"),
            ("day_as_known_view = day_view", "the view is named 'day'"),
            (
                DAY.replace('name="day_as_known",\n        path', 'name="day",\n        path'),
                "Give it a name of its own",
            ),
            (DAY.replace("days=3", "hours=1"), "at noon it gives nan"),
            (DAY.replace('        field_mapping={"day_delay": "day_delay_known"},\n', ""), "Feast"),
        ],
    ),
}

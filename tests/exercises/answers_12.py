from faults import Answers

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
        wrong={
            "the view is named 'airport'": "carrier_view = airport_view",
            "your answer has the type Entity": "carrier_view = origin",
            "about an airport and a carrier together": VIEW.replace("[origin, carrier]", "[origin]"),
            "its features are": VIEW.replace('        Field(name="carrier_flights", dtype=Int64),\n', ""),
            "`carrier_flights` is declared as Float64": VIEW.replace("dtype=Int64", "dtype=Float64"),
            "three hours after the last row": VIEW.replace("hours=2", "days=2"),
            "unlimited": VIEW.replace("    ttl=timedelta(hours=2),\n", ""),
            "ten minutes after its row": VIEW.replace("hours=2", "minutes=5"),
            "an hour and fifty minutes after the last row": VIEW.replace("hours=2", "minutes=90"),
            "can't retrieve from it": VIEW.replace('source("carrier"', 'source("airport"'),
        },
    ),
    "12.2": Answers(
        right=[SCHEDULE],
        wrong={
            "for the hour 0.5 the view returns 0.5": SCHEDULE.replace("hour + 20", "hour"),
            "the view is named 'hours'": (
                SCHEDULE.replace("def schedule", "def hours").replace("schedule(", "hours(")
                + "\nschedule = hours"
            ),
            "the only one should be": SCHEDULE.replace("Float64)],\n    mode", "Int64)],\n    mode"),
            "declare `scheduled_hour`, a Float64": SCHEDULE.replace(
                '"scheduled_hour", dtype=Float64', '"scheduled_hour", dtype=Int64'
            ),
            "your answer has the type function": """
def schedule(inputs):
    return {'hours_into_day': [(hour - 4) % 24 for hour in inputs['scheduled_hour']]}
""",
            "Feast": SCHEDULE.replace('inputs["scheduled_hour"]]', 'inputs["hour"]]'),
        },
    ),
    "12.3": Answers(
        right=[DAY.replace("[origin, carrier]", "[carrier, origin]")],
        wrong={
            "the mean of that whole day": DAY.replace('timestamp_field="known"', 'timestamp_field="day"'),
            "about an airport and a carrier together": DAY.replace("[origin, carrier]", "[origin]"),
            "its features are": DAY.replace('Field(name="day_delay_known"', 'Field(name="day_mean"'),
            "the view is named 'day'": "day_as_known_view = day_view",
            "Choose a new name": DAY.replace(
                'name="day_as_known",\n        path', 'name="day",\n        path'
            ),
            "at noon the view returns nan": DAY.replace("days=3", "hours=1"),
            "Feast": DAY.replace('        field_mapping={"day_delay": "day_delay_known"},\n', ""),
        },
    ),
}

from faults import Answers

ASK = """
def without_looking_ahead(store, questions):
    moment = {moment}
    asked = questions.assign(event_timestamp=moment)
    return historical_features(store, asked, ["driver_daily_means:mean_conv_rate"])
"""
LATE = """
late_row = pd.DataFrame(
    {{
        "driver_id": [1001],
        "event_timestamp": [pd.Timestamp("{event}", tz="UTC")],
        "conv_rate": [0.9],
        "acc_rate": [0.5],
        "avg_daily_trips": [20],
        "created": [pd.Timestamp("{created}", tz="UTC")],
    }}
)
"""

ANSWERS = {
    "2.1": Answers(
        right=[
            """
import numpy as np
longer_ttl = timedelta(hours=24 * int(np.ceil((NOW - last_hourly.min()) / timedelta(days=1))))
""",
            'longer_ttl = pd.Timedelta("16D")',
        ],
        wrong={
            "shorter than the current 7 days": "longer_ttl = timedelta(hours=9)",
            "with 10 days, Feast still returns null": "longer_ttl = timedelta(days=10)",
            "with 11 days, Feast still returns null": 'longer_ttl = pd.Timedelta("11D")',
            "the oldest last value is 15 days 01:00:00 old": "longer_ttl = timedelta(days=15)",
            "so would a driver who left": "longer_ttl = timedelta(days=365)",
            "zero means no limit": "longer_ttl = timedelta(0)",
            "(whole days work): ValueError": "longer_ttl = NOW - last_hourly.min()",
            "your answer is of type int": "longer_ttl = 30",
        },
    ),
    "2.2": Answers(
        right=[
            ASK.format(moment='questions.event_timestamp.dt.floor("D") - timedelta(microseconds=1)'),
            """
def without_looking_ahead(store, questions):
    yesterday = questions.event_timestamp - pd.Timedelta("24h")
    job = store.get_historical_features(
        entity_df=questions[["driver_id", "number"]].assign(event_timestamp=yesterday),
        features=["driver_daily_means:mean_conv_rate"],
    )
    return job.to_df().set_index("number")
""",
        ],
        wrong={
            "it is the last row that is *not later*": ASK.format(moment="questions.event_timestamp"),
            "you ask for midnight": ASK.format(moment='questions.event_timestamp.dt.floor("D")'),
            "Take one at 20:00": ASK.format(moment="questions.event_timestamp - timedelta(hours=12)"),
            "the mean of two days before": ASK.format(moment="questions.event_timestamp - timedelta(days=2)"),
            "your function returns a job": """
def without_looking_ahead(store, questions):
    return store.get_historical_features(questions, ["driver_daily_means:mean_conv_rate"])
""",
            "no column `mean_conv_rate`. Feast adds one for each feature": (
                ASK.format(moment="questions.event_timestamp").replace(
                    "daily_means:mean_conv", "hourly_stats:conv"
                )
            ),
        },
    ),
    "2.3": Answers(
        right=[
            LATE.format(event="2025-02-10 10:20", created="2025-02-10 10:30"),
            """
late_row = stats[(stats.driver_id == 1001) & (stats.event_timestamp == hour)].iloc[-1].to_dict()
late_row |= {"conv_rate": 0.0, "created": pd.Timestamp("2025-02-14", tz="UTC")}
""",
            (
                LATE.format(event="2025-02-10 10:20", created="2025-02-10 10:30")
                + "late_row = late_row.to_dict('list')"
            ),
        ],
        wrong={
            "Look at its `created`": LATE.format(event="2025-02-10 10:20", created="2025-02-10 10:22"),
            "part 1 of the rule": LATE.format(event="2025-02-10 11:00", created="2025-02-12 10:00"),
            "part 3 of the rule": LATE.format(event="2025-02-10 09:00", created="2025-02-12 10:00"),
            "part 4 of the rule": LATE.format(event="2025-02-10 10:00", created="2025-02-10 10:00"),
            "has no time zone": LATE.format(event="2025-02-10 10:20", created="2025-02-10 10:30").replace(
                ', tz="UTC"', ""
            ),
            "the column `created` is of type object": (
                LATE.format(event="2025-02-10 10:20", created="2025-02-10 10:30")
                + "late_row = late_row.astype({'created': str})"
            ),
            "its `conv_rate` is missing": LATE.format(
                event="2025-02-10 10:20", created="2025-02-10 10:30"
            ).replace("0.9", 'float("nan")'),
            "your answer doesn't make a table: ValueError": (
                'late_row = {"driver_id": [1001, 1001], "conv_rate": [0.9]}'
            ),
        },
    ),
}

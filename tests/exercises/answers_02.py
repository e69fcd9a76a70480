from answers import Answers

ASK = """
def without_looking_ahead(store, questions):
    moment = {moment}
    return historical_features(store, questions.assign(event_timestamp=moment), ["driver_daily_means:mean_conv_rate"])
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
            "import numpy as np\nlonger_ttl = timedelta(hours=24 * int(np.ceil((NOW - last_hourly.min()) / timedelta(days=1))))",
            'longer_ttl = pd.Timedelta("16D")',
        ],
        wrong=[
            ("longer_ttl = timedelta(hours=9)", "shorter than today's 7 days"),
            ("longer_ttl = timedelta(days=10)", "with 10 days Feast still gives"),
            ('longer_ttl = pd.Timedelta("11D")', "with 11 days Feast still gives"),
            ("longer_ttl = timedelta(days=15)", "the oldest last value is 15 days 01:00:00 old"),
            ("longer_ttl = timedelta(days=365)", "so would one who left"),
            ("longer_ttl = timedelta(0)", "zero means no limit"),
            ("longer_ttl = NOW - last_hourly.min()", "(whole days are fine): ValueError"),
            ("longer_ttl = 30", "that is of the type int"),
        ],
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
        wrong=[
            (ASK.format(moment="questions.event_timestamp"), "it is the last that is *not later*"),
            (ASK.format(moment='questions.event_timestamp.dt.floor("D")'), "you ask at midnight"),
            (ASK.format(moment="questions.event_timestamp - timedelta(hours=12)"), "Take one at 20:00"),
            (ASK.format(moment="questions.event_timestamp - timedelta(days=2)"), "day before yesterday"),
            (
                """
def without_looking_ahead(store, questions):
    return store.get_historical_features(questions, ["driver_daily_means:mean_conv_rate"])
""",
                "that is a job",
            ),
            (
                ASK.format(moment="questions.event_timestamp").replace(
                    "daily_means:mean_conv", "hourly_stats:conv"
                ),
                "no column `mean_conv_rate`; Feast adds one for each feature",
            ),
        ],
    ),
    "2.3": Answers(
        right=[
            LATE.format(event="2025-02-10 10:20", created="2025-02-10 10:30"),
            """
late_row = stats[(stats.driver_id == 1001) & (stats.event_timestamp == hour)].iloc[-1].to_dict()
late_row |= {"conv_rate": 0.0, "created": pd.Timestamp("2025-02-14", tz="UTC")}
""",
            LATE.format(event="2025-02-10 10:20", created="2025-02-10 10:30")
            + "late_row = late_row.to_dict('list')",
        ],
        wrong=[
            (LATE.format(event="2025-02-10 10:20", created="2025-02-10 10:22"), "Look at its `created`"),
            (LATE.format(event="2025-02-10 11:00", created="2025-02-12 10:00"), "part 1 of the rule"),
            (LATE.format(event="2025-02-10 09:00", created="2025-02-12 10:00"), "part 3 of the rule"),
            (LATE.format(event="2025-02-10 10:00", created="2025-02-10 10:00"), "part 4 of the rule"),
            (
                LATE.format(event="2025-02-10 10:20", created="2025-02-10 10:30").replace(', tz="UTC"', ""),
                "has no time zone",
            ),
            (
                LATE.format(event="2025-02-10 10:20", created="2025-02-10 10:30")
                + "late_row = late_row.astype({'created': str})",
                "`created` is a column of the type object",
            ),
            (
                LATE.format(event="2025-02-10 10:20", created="2025-02-10 10:30").replace("0.9", "np.nan"),
                "its `conv_rate` is missing",
            ),
            (
                'late_row = {"driver_id": [1001, 1001], "conv_rate": [0.9]}',
                "it does not make a table: ValueError",
            ),
        ],
    ),
}

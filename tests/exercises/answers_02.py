from answers import Answers

ANSWERS = {
    "2.1": Answers(
        right=[
            "import numpy as np\nlonger_ttl = timedelta(hours=24 * int(np.ceil((NOW - last_hourly.min()) / timedelta(days=1))))"
        ],
        wrong=[
            ("longer_ttl = timedelta(hours=9)", "shorter than today's 7 days"),
            ("longer_ttl = timedelta(days=365)", "so would one who left 365 days ago"),
            ("longer_ttl = 30", "that is a int"),
        ],
    ),
}

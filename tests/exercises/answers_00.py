from faults import Answers

ANSWERS = {
    "0.1": Answers(
        right=[
            """
def misread(times):
    return (times + pd.Timedelta(hours=8)).dt.tz_localize('UTC')
""",
            """
from zoneinfo import ZoneInfo
misread = lambda times: pd.DatetimeIndex(times).tz_localize(ZoneInfo('America/Sao_Paulo')).tz_convert('UTC')
""",
        ],
        wrong={
            "read 9 hours before its real time": (
                "def misread(times):\n    return times.dt.tz_localize('Asia/Tokyo')"
            ),
            "are still the right ones": """
def misread(times):
    return times.dt.tz_localize('UTC').dt.tz_convert('America/New_York')
""",
            "have no zone yet": "def misread(times):\n    return times + pd.Timedelta(hours=5)",
            "hardly better": (
                "def misread(times):\n    return (times + pd.Timedelta(days=2)).dt.tz_localize('UTC')"
            ),
            "your answer is of type str": "misread = 'America/New_York'",
            "read 1 hour before": "def misread(times):\n    return times.dt.tz_localize('Europe/Berlin')",
            "can't be read as times": "def misread(times):\n    return 'America/New_York'",
            "`misread` fails on the labels' times": (
                "def misread(times):\n    return times.dt.tz_localize('New York')"
            ),
            "returned 10": (
                "def misread(times):\n    return times.dt.tz_localize('America/New_York').head(10)"
            ),
        },
    ),
    "0.2": Answers(
        right=[
            """
def as_corrected(rows):
    return rows.sort_values('created').groupby(key).last()
""",
            """
def as_corrected(rows):
    return rows.loc[rows.groupby(['driver_id', 'event_timestamp']).created.idxmax()].drop(columns='created')
""",
            """
import duckdb


def as_corrected(rows):
    return duckdb.sql(
        "FROM rows QUALIFY created = max(created) OVER (PARTITION BY driver_id, event_timestamp)"
    ).df()
""",
        ],
        wrong={
            "shuffles the rows first": (
                "def as_corrected(rows):\n    return rows.drop_duplicates(key, keep='last')"
            ),
            "keeps the row that was written first": (
                "def as_corrected(rows):\n    return rows.sort_values('created').drop_duplicates(key)"
            ),
            "hours are missing": "def as_corrected(rows):\n    return rows.drop_duplicates(key, keep=False)",
            "in neither row of the file": (
                "def as_corrected(rows):\n    return rows.groupby(key, as_index=False).mean()"
            ),
            "Choose a whole row": (
                "def as_corrected(rows):\n    return rows.groupby(key, as_index=False).max()"
            ),
            "still have two rows": "def as_corrected(rows):\n    return rows.drop_duplicates()",
            "it reads another table than the one that the check passes": (
                "def as_corrected(rows):\n    return stats.drop_duplicates(key, keep='last')"
            ),
            "returns a Series": "def as_corrected(rows):\n    return rows.conv_rate",
            "has no column conv_rate": "def as_corrected(rows):\n    return rows[key].drop_duplicates()",
        },
    ),
}

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
            "asked 9 hours before its real time": (
                "def misread(times):\n    return times.dt.tz_localize('Asia/Tokyo')"
            ),
            "still mean what they meant in UTC": """
def misread(times):
    return times.dt.tz_localize('UTC').dt.tz_convert('America/New_York')
""",
            "have no zone yet": "def misread(times):\n    return times + pd.Timedelta(hours=5)",
            "hardly better": (
                "def misread(times):\n    return (times + pd.Timedelta(days=2)).dt.tz_localize('UTC')"
            ),
            "that is of the type str": "misread = 'America/New_York'",
            "asked 1 hour before": "def misread(times):\n    return times.dt.tz_localize('Europe/Berlin')",
            "cannot be read as times": "def misread(times):\n    return 'America/New_York'",
            "`misread` fails on the labels' times": (
                "def misread(times):\n    return times.dt.tz_localize('New York')"
            ),
            "10 came out": (
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
            "written first is kept": (
                "def as_corrected(rows):\n    return rows.sort_values('created').drop_duplicates(key)"
            ),
            "hours are gone": "def as_corrected(rows):\n    return rows.drop_duplicates(key, keep=False)",
            "in neither row of the file": (
                "def as_corrected(rows):\n    return rows.groupby(key, as_index=False).mean()"
            ),
            "Choose a whole row": (
                "def as_corrected(rows):\n    return rows.groupby(key, as_index=False).max()"
            ),
            "still have two rows": "def as_corrected(rows):\n    return rows.drop_duplicates()",
            "it reads another table than the one that it is given": (
                "def as_corrected(rows):\n    return stats.drop_duplicates(key, keep='last')"
            ),
            "it returns the type Series": "def as_corrected(rows):\n    return rows.conv_rate",
            "has no column conv_rate": "def as_corrected(rows):\n    return rows[key].drop_duplicates()",
        },
    ),
    "0.3": Answers(
        right=[
            """
valid_for = lambda store: pd.Timedelta(
    store.registry.get_feature_view("driver_daily_profile", store.project).ttl
)
""",
            """
def valid_for(store):
    return {view.name: view.ttl for view in store.list_feature_views()}['driver_daily_profile']
""",
        ],
        wrong={
            "you still say 30": "def valid_for(store):\n    return pd.Timedelta(days=30)",
            "is the rating": (
                "def valid_for(store):\n    return store.get_feature_view('driver_hourly_stats').ttl"
            ),
            "returns the type FeatureView": (
                "def valid_for(store):\n    return store.get_feature_view('driver_daily_profile')"
            ),
            "fails on the scratch project": (
                "def valid_for(store):\n    return store.get_feature_view('rating').ttl"
            ),
            "the registry says something else than 365 days": (
                "def valid_for(store):\n    return pd.Timedelta(days=365)"
            ),
            "that is of the type Timedelta": "valid_for = pd.Timedelta(days=30)",
        },
    ),
}

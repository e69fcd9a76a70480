from faults import Answers

ANSWERS = {
    "4.1": Answers(
        right=[
            """
times = selection.event_timestamp.reset_index(drop=True)
careful_split = []
for _, test in TimeSeriesSplit(n_splits=8).split(selection):
    known = times + pd.Timedelta(days=1) <= times[test[0]]
    careful_split.append((times.index[known].to_numpy(), test))
""",
            "careful_split = TimeSeriesSplit(8, gap=180)",
        ],
        wrong={
            "labels whose 24 hours were not over. How many rows": (
                "careful_split = TimeSeriesSplit(n_splits=8)"
            ),
            "A gap is counted in rows, not in hours": "careful_split = TimeSeriesSplit(n_splits=8, gap=24)",
            "rows that are later than the first row it is scored on": """
from sklearn.model_selection import KFold
careful_split = KFold(8, shuffle=True, random_state=0)
""",
            "that makes 5 folds": "careful_split = TimeSeriesSplit(n_splits=5, gap=150)",
            "fold 0 is not scored on block 0": (
                "careful_split = TimeSeriesSplit(n_splits=8, gap=150, test_size=100)"
            ),
            "labels that were known": "careful_split = TimeSeriesSplit(n_splits=8, gap=330)",
            "has learned from 1 label whose": "careful_split = TimeSeriesSplit(n_splits=8, gap=111)",
            "that is the class TimeSeriesSplit; call it": "careful_split = TimeSeriesSplit",
            "your answer is of type int; make a `TimeSeriesSplit`": "careful_split = 120",
            "scikit-learn cannot split the rows with this: ValueError": "careful_split = 'by time'",
        },
    ),
    "4.2": Answers(
        right=["without_trips = 'tags.`feature_avg_daily_trips` is null AND ' + children"],
        wrong={
            "MLflow finds no run. A comparison with": (
                "without_trips = f\"{children} and tags.feature_avg_daily_trips != 'included'\""
            ),
            "contains {parent_id} literally": """
without_trips = "tags.`mlflow.parentRunId` = '{parent_id}' and tags.feature_avg_daily_trips IS NULL"
""",
            "MLflow finds no run. Try its conditions one by one": """
without_trips = f"{children} and tags.stage = 'winner' and tags.feature_avg_daily_trips IS NULL"
""",
            "it would also find the winner's run": """
without_trips = f"tags.`mlflow.parentRunId` = '{parent_id}' and tags.feature_avg_daily_trips IS NULL"
""",
            "which reads avg_daily_trips": "without_trips = children",
            "it misses acc_only, conv_only, rates: 3 of 5": """
without_trips = f"{children} and tags.feature_rating = 'included' and tags.feature_avg_daily_trips IS NULL"
""",
            "which is no candidate of this selection": (
                "without_trips = 'tags.feature_avg_daily_trips IS NULL'"
            ),
            "it would miss a new candidate, rating_only": """
names = [name for name in candidates if 'avg_daily_trips' not in columns[name]]
listed = ', '.join(repr(run_id) for run_id in runs.run_id[names])
without_trips = f"{children} and attributes.run_id IN ({listed})"
""",
            "MLflow rejects this filter": (
                "without_trips = f\"{children} and not tags.feature_avg_daily_trips = 'included'\""
            ),
            "your answer is of type DataFrame": "without_trips = with_rating",
        },
    ),
    "4.3": Answers(
        right=[
            """
def by_standard_error(scores, num_features):
    best = max(scores, key=lambda name: scores[name].mean())
    line = scores[best].mean() - np.std(scores[best]) / np.sqrt(len(scores))
    close = [name for name in scores if scores[name].mean() >= line]
    return min(close, key=lambda name: (num_features[name], -scores[name].mean()))
""",
        ],
        wrong={
            "the mean of eight differs less": """
def by_standard_error(scores, num_features):
    means = scores.mean()
    close = means[means >= means.max() - scores[means.idxmax()].std()]
    return num_features[close.index].idxmin()
""",
            "it takes the worse one": """
def by_standard_error(scores, num_features):
    means = scores.mean()
    close = means[means >= means.max() - scores[means.idxmax()].sem()]
    return num_features[close.index].idxmin()
""",
            "Whose standard error": """
def by_standard_error(scores, num_features):
    means = scores.mean()
    close = means[means >= means.max() - scores.sem()]
    return num_features[close.index].idxmin()
""",
            "which was the notebook's rule": """
def by_standard_error(scores, num_features):
    means = scores.mean()
    return num_features[means[means >= means.max() - tolerance].index].idxmin()
""",
            "that is the best set": (
                "def by_standard_error(scores, num_features):\n    return scores.mean().idxmax()"
            ),
            "returned a value of type Series": (
                "def by_standard_error(scores, num_features):\n    return scores.mean()"
            ),
            "returned None; return the name": (
                "def by_standard_error(scores, num_features):\n    print(scores)"
            ),
            "your answer is of type str; write a function": "by_standard_error = winner",
        },
    ),
}

from faults import Answers

ANSWERS = {
    "13.1": Answers(
        right=[
            """
def known_from(stats):
    late = stats.created > stats.event_timestamp
    return stats.created.where(late, stats.event_timestamp)
""",
        ],
        wrong={
            "two hours after it happened: at your time, Feast doesn't return it yet": (
                "def known_from(stats):\n    return stats.event_timestamp"
            ),
            "as a forecast is: at your time, Feast doesn't return it yet": (
                "def known_from(stats):\n    return stats.created"
            ),
            "already returns it a microsecond before your time": """
def known_from(stats):
    return stats[["event_timestamp", "created"]].max(axis=1) + pd.Timedelta("1h")
""",
            "Return one for each row": (
                'def known_from(stats):\n    return [stats[["event_timestamp", "created"]].max().max()]'
            ),
            "it returns a table": (
                'def known_from(stats):\n    return stats[["event_timestamp", "created"]]'
            ),
            "it returns nothing": (
                'def known_from(stats):\n    later = stats[["event_timestamp", "created"]].max(axis=1)'
            ),
            "write a function of a table": "known_from = 'created'",
            "your function fails": "def known_from(stats):\n    return stats.written",
        },
    ),
    "13.2": Answers(
        right=[
            """
def models_from(edges, dataset):
    found = set()
    for source, target in edges:
        if source == dataset:
            found |= {target} if target[1].startswith("models:/") else models_from(edges, target)
    return found
""",
        ],
        wrong={
            "How many edges lie between the two": """
def models_from(edges, dataset):
    return {target for source, target in edges if source == dataset and target[1].startswith("models:/")}
""",
            "what tells them apart": """
def models_from(edges, dataset):
    reached = {dataset[1]}
    for _ in edges:
        reached |= {target[1] for source, target in edges if source[1] in reached}
    return {t for _, t in edges if t[1] in reached and t[1].startswith("models:/") and t != dataset}
""",
            "which is no model's data set": """
def models_from(edges, dataset):
    reached = {dataset}
    for _ in edges:
        reached |= {target for source, target in edges if source in reached}
    return reached
""",
            "in which direction do they point": """
def models_from(edges, dataset):
    reached = {dataset}
    for _ in edges:
        reached |= {source for source, target in edges if target in reached}
    return {one for one in reached if one[1].startswith("models:/")}
""",
            "write a function of edges and a data set": "models_from = {('mlflow', 'models:/a/1')}",
            "your function returns nothing": "def models_from(edges, dataset):\n    found = set()",
            "your function fails": "def models_from(edges, dataset):\n    return edges[dataset]",
        },
    ),
}

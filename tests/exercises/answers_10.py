from faults import Answers

ANSWERS = {
    "10.1": Answers(
        right=[
            """
def unlimited(documents):
    def pods(value):
        if isinstance(value, dict):
            if isinstance(value.get("containers"), list):
                yield value
            for inner in value.values():
                yield from pods(inner)
        elif isinstance(value, list):
            for inner in value:
                yield from pods(inner)

    return {
        document["metadata"]["name"]
        for document in documents
        for pod in pods(document)
        for container in pod["containers"]
        if not container.get("resources", {}).get("limits", {}).get("memory")
    }
""",
        ],
        wrong={
            "is left out: its container 'sidecar' has no 'resources'": """
def unlimited(documents):
    found = set()
    for document in documents:
        pod = document.get("spec", {}).get("template", {}).get("spec", {})
        for container in pod.get("containers", []):
            if "memory" not in container.get("resources", {}).get("limits", {}):
                found.add(document["metadata"]["name"])
    return found
""",
            "is named, and each of its containers has a limit": """
def unlimited(documents):
    return {document["metadata"]["name"] for document in documents}
""",
            "your function ends with an error: KeyError": """
def unlimited(documents):
    return [
        one
        for one in documents
        if "memory" not in one["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]
    ]
""",
            "the answer is a function of a list of manifests": 'unlimited = {"redis"}',
        },
    ),
    "10.2": Answers(
        right=[
            """
def out_of_reach(client):
    names = []
    for experiment in client.search_experiments():
        place = experiment.artifact_location
        if place.startswith("/") or place.startswith("file:"):
            names.append(experiment.name)
    return names
""",
        ],
        wrong={
            "is left out, and its files are in /": """
def out_of_reach(client):
    return [e.name for e in client.search_experiments() if e.artifact_location.startswith("file:")]
""",
            "which is no folder of one machine": """
def out_of_reach(client):
    return [e.name for e in client.search_experiments() if "mlflow-artifacts" not in e.artifact_location]
""",
            "which machine has that folder": """
def out_of_reach(client):
    return [e.name for e in client.search_experiments() if e.artifact_location.startswith("/")]
""",
            "is the name of no experiment": (
                "def out_of_reach(client):\n    return [e.experiment_id for e in client.search_experiments()]"
            ),
            "something of the type Experiment": """
def out_of_reach(client):
    return [e for e in client.search_experiments() if e.artifact_location.startswith(("/", "file:"))]
""",
            "the answer is a function of a client": "out_of_reach = ['of Ana']",
            "your function ends with an error": (
                "def out_of_reach(client):\n    return [e.name for e in client.list_experiments()]"
            ),
        },
    ),
    "10.3": Answers(
        right=[
            """
def answers_from(stats):
    late = stats.created > stats.event_timestamp
    return stats.created.where(late, stats.event_timestamp)
""",
        ],
        wrong={
            "two hours after it happened: at your moment Feast does not give it yet": (
                "def answers_from(stats):\n    return stats.event_timestamp"
            ),
            "as a forecast is: at your moment Feast does not give it yet": (
                "def answers_from(stats):\n    return stats.created"
            ),
            "a microsecond before your moment already": """
def answers_from(stats):
    return stats[["event_timestamp", "created"]].max(axis=1) + pd.Timedelta("1h")
""",
            "Give one for each row": (
                'def answers_from(stats):\n    return [stats[["event_timestamp", "created"]].max().max()]'
            ),
            "it gives a table": 'def answers_from(stats):\n    return stats[["event_timestamp", "created"]]',
            "it gives nothing": (
                'def answers_from(stats):\n    later = stats[["event_timestamp", "created"]].max(axis=1)'
            ),
            "the answer is a function of a table": "answers_from = 'created'",
            "your function ends with an error": "def answers_from(stats):\n    return stats.written",
        },
    ),
}

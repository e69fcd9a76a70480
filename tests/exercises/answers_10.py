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
            "but each of its containers has a limit": """
def unlimited(documents):
    return {document["metadata"]["name"] for document in documents}
""",
            "your function fails: KeyError": """
def unlimited(documents):
    return [
        one
        for one in documents
        if "memory" not in one["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]
    ]
""",
            "write a function of a list of manifests": 'unlimited = {"redis"}',
        },
    ),
    "10.2": Answers(
        right=[
            '''
in_katibs_words = """
- {name: epochs, parameterType: int, feasibleSpace: {min: "4", max: "12", step: "4"}}
- name: learning_rate
  parameterType: double
  feasibleSpace: {min: "1e-6", max: "1e-1", distribution: logUniform}
"""
''',
            """
from optuna.distributions import FloatDistribution, IntDistribution

rates = FloatDistribution(1e-6, 1e-1, log=True)
epochs_allowed = IntDistribution(4, 12, step=4)
in_katibs_words = [katib.parameter("learning_rate", rates), katib.parameter("epochs", epochs_allowed)]
""",
        ],
        wrong={
            "min of learning_rate is a number, 1e-06": """
in_katibs_words = [
    {
        "name": "learning_rate",
        "parameterType": "double",
        "feasibleSpace": {"min": 1e-6, "max": 0.1, "distribution": "logUniform"},
    },
    {"name": "epochs", "parameterType": "int", "feasibleSpace": {"min": 4, "max": 12, "step": 4}},
]
""",
            "are below 0.001. Which scale": """
in_katibs_words = [
    {"name": "learning_rate", "parameterType": "double", "feasibleSpace": {"min": "1e-6", "max": "0.1"}},
    {"name": "epochs", "parameterType": "int", "feasibleSpace": {"min": "4", "max": "12", "step": "4"}},
]
""",
            "Katib would try 4, 5, 6, 7": """
in_katibs_words = [
    {
        "name": "learning_rate",
        "parameterType": "double",
        "feasibleSpace": {"min": "1e-6", "max": "0.1", "distribution": "logUniform"},
    },
    {"name": "epochs", "parameterType": "int", "feasibleSpace": {"min": "4", "max": "12"}},
]
""",
            "dropped feasible_space": """
in_katibs_words = [
    {
        "name": "learning_rate",
        "parameterType": "double",
        "feasible_space": {"min": "1e-6", "max": "0.1", "distribution": "logUniform"},
    },
    {"name": "epochs", "parameterType": "int", "feasible_space": {"min": "4", "max": "12", "step": "4"}},
]
""",
            "the distribution 'loguniform' is neither": """
in_katibs_words = [
    {
        "name": "learning_rate",
        "parameterType": "double",
        "feasibleSpace": {"min": "1e-6", "max": "0.1", "distribution": "loguniform"},
    },
    {"name": "epochs", "parameterType": "int", "feasibleSpace": {"min": "4", "max": "12", "step": "4"}},
]
""",
            "epochs has the type 'categorical'": """
in_katibs_words = [
    {
        "name": "learning_rate",
        "parameterType": "double",
        "feasibleSpace": {"min": "1e-6", "max": "0.1", "distribution": "logUniform"},
    },
    {"name": "epochs", "parameterType": "categorical", "feasibleSpace": {"list": ["4", "8", "12"]}},
]
""",
            "the names are C, degree, weights": "in_katibs_words = experiment['spec']['parameters']",
            "epochs has a logarithmic scale": """
in_katibs_words = [
    {
        "name": "learning_rate",
        "parameterType": "double",
        "feasibleSpace": {"min": "1e-6", "max": "0.1", "distribution": "logUniform"},
    },
    {
        "name": "epochs",
        "parameterType": "int",
        "feasibleSpace": {"min": "4", "max": "12", "step": "4", "distribution": "logUniform"},
    },
]
""",
            "Optuna can't make a range of these limits: ValueError": """
in_katibs_words = [
    {
        "name": "learning_rate",
        "parameterType": "double",
        "feasibleSpace": {"min": "0.1", "max": "1e-6", "distribution": "logUniform"},
    },
    {"name": "epochs", "parameterType": "int", "feasibleSpace": {"min": "4", "max": "12", "step": "4"}},
]
""",
            "an entry of the list has the type FloatDistribution": "in_katibs_words = list(space.values())",
            "learning_rate has no parameterType": (
                "in_katibs_words = [{'name': 'learning_rate'}, {'name': 'epochs'}]"
            ),
            "the names are none": "in_katibs_words = []",
            "your answer has the type dict; Katib takes a list": "in_katibs_words = space",
        },
    ),
    "10.3": Answers(
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
            "which isn't a folder on one machine": """
def out_of_reach(client):
    return [e.name for e in client.search_experiments() if "mlflow-artifacts" not in e.artifact_location]
""",
            "which machine has that folder": """
def out_of_reach(client):
    return [e.name for e in client.search_experiments() if e.artifact_location.startswith("/")]
""",
            "isn't the name of an experiment": (
                "def out_of_reach(client):\n    return [e.experiment_id for e in client.search_experiments()]"
            ),
            "a value of type Experiment": """
def out_of_reach(client):
    return [e for e in client.search_experiments() if e.artifact_location.startswith(("/", "file:"))]
""",
            "write a function of a client": "out_of_reach = ['of Ana']",
            "your function fails": (
                "def out_of_reach(client):\n    return [e.name for e in client.list_experiments()]"
            ),
        },
    ),
}

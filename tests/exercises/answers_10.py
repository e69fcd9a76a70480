from faults import Answers

ANSWERS = {
    "10.1": Answers(
        right=[
            """
sizes = {"cpu": "100m", "memory": "450Mi", "cpu_limit": "2", "memory_limit": "2Gi"}
smaller = {name: sizes for name in ("step", "server", "mlflow")}
""",
            """
smaller = {
    "step": {"cpu": "0.2", "memory": "512Mi", "cpu_limit": "1", "memory_limit": "2Gi"},
    "redis": "redis.example.org:6379",
    "database": "postgres.example.org:5432",
}
""",
        ],
        wrong={
            "request 1.7 CPUs and 6,144 MiB": """
smaller = {"server": {"cpu": "250m", "memory": "512Mi", "cpu_limit": "1", "memory_limit": "2Gi"}}
""",
            "request 1.7 CPUs and 4,608 MiB": """
smaller = {"step": {"cpu": "250m", "memory": "512Mi", "cpu_limit": "1", "memory_limit": "2Gi"}}
""",
            "takes about 400 MiB": """
smaller = {"step": {"cpu": "250m", "memory": "128Mi", "cpu_limit": "1", "memory_limit": "2Gi"}}
""",
            "memory_limit of step is 512Mi": """
half = {"cpu": "250m", "memory": "512Mi", "cpu_limit": "1", "memory_limit": "512Mi"}
smaller = {"step": half, "mlflow": half}
""",
            "it would hardly start": """
half = {"cpu": "1m", "memory": "512Mi", "cpu_limit": "1", "memory_limit": "2Gi"}
smaller = {"step": half, "mlflow": half}
""",
            "the settings reject it": 'smaller = {"step": {"memory": "512Mi"}}',
            "write a dictionary of settings": 'smaller = "512Mi"',
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

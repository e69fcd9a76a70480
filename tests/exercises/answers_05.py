from faults import Answers

ANSWERS = {
    "5.1": Answers(
        right=[
            """
def bring_to(study, objective, total):
    for trial in study.trials:
        if not trial.state.is_finished():
            study.tell(trial.number, state=TrialState.FAIL)
    study.sampler = optuna.samplers.TPESampler(seed=len(study.trials))
    while len(complete(study)) < total:
        trial = study.ask()
        study.tell(trial, objective(trial))
""",
        ],
        wrong={
            "6 complete trials were asked for, and there are 9": (
                "def bring_to(study, objective, total):\n    study.optimize(objective, n_trials=total)"
            ),
            "6 complete trials were asked for, and there are 4": """
def bring_to(study, objective, total):
    study.optimize(objective, n_trials=total - len(study.trials))
""",
            "was tried 2 times: the seed of the sampler": """
def bring_to(study, objective, total):
    study.optimize(objective, n_trials=total - len(complete(study)))
""",
            "9 complete trials, but x": """
def bring_to(study, objective, total):
    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)
    study.sampler = optuna.samplers.TPESampler(seed=workspace.seed)
    study.optimize(objective, n_trials=total - len(complete(study)))
""",
            "trial 4, in which the first process died, says RUNNING for ever": """
def bring_to(study, objective, total):
    done = len(complete(study))
    study.sampler = optuna.samplers.TPESampler(seed=workspace.seed + done)
    study.optimize(objective, n_trials=total - done)
""",
            "starting once more added 1": """
def bring_to(study, objective, total):
    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)
    study.sampler = optuna.samplers.TPESampler(seed=workspace.seed + len(complete(study)))
    study.optimize(
        objective, callbacks=[optuna.study.MaxTrialsCallback(total, states=(TrialState.COMPLETE,))]
    )
""",
            "after 50 trials it still goes on": (
                "def bring_to(study, objective, total):\n    study.optimize(objective)"
            ),
            "without a call of `objective`": """
def bring_to(study, objective, total):
    while len(complete(study)) < total:
        study.tell(study.ask(), 0.5)
""",
            "trial 4 was told the score 0.5, which `objective` has not given": """
def bring_to(study, objective, total):
    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        study.tell(trial.number, 0.5)
    study.sampler = optuna.samplers.TPESampler(seed=workspace.seed + len(complete(study)))
    study.optimize(objective, n_trials=total - len(complete(study)))
""",
            "`bring_to` failed: TypeError": "def bring_to(study):\n    return study",
            "that is of the type Study; write the function": "bring_to = study",
        },
    ),
    "5.2": Answers(
        right=[
            "patient = optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=8)",
            "patient = optuna.pruners.PatientPruner(None, patience=3)",
        ],
        wrong={
            "as the tenth trial, the slow starter is stopped after epoch 2": (
                "patient = optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=2)"
            ),
            "as the fifteenth trial, the slow starter is stopped": (
                "patient = optuna.pruners.MedianPruner(n_startup_trials=10)"
            ),
            "no trial is stopped": "patient = optuna.pruners.NopPruner()",
            "epochs are saved: the hopeless": (
                "patient = optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=10)"
            ),
            "that is the class MedianPruner": "patient = optuna.pruners.MedianPruner",
        },
    ),
    "5.3": Answers(
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
            "are below 0.001. Compare with `suggest_float`": """
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
            "epochs is of the type 'categorical'": """
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
            "Optuna makes no range of these limits: ValueError": """
in_katibs_words = [
    {
        "name": "learning_rate",
        "parameterType": "double",
        "feasibleSpace": {"min": "0.1", "max": "1e-6", "distribution": "logUniform"},
    },
    {"name": "epochs", "parameterType": "int", "feasibleSpace": {"min": "4", "max": "12", "step": "4"}},
]
""",
            "an entry of the list is of the type FloatDistribution": "in_katibs_words = list(space.values())",
            "learning_rate has no parameterType": (
                "in_katibs_words = [{'name': 'learning_rate'}, {'name': 'epochs'}]"
            ),
            "the names are none": "in_katibs_words = []",
            "that is of the type dict; Katib takes a list": "in_katibs_words = space",
        },
    ),
}

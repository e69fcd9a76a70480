from faults import Answers


def suggest(
    rate="0.001, 1, log=True",
    leaves='suggest_int("max_leaf_nodes", 8, 64, step=8)',
    stopping="[True, False]",
):
    """An answer to 5.1 that differs from a right one in one place."""
    return f"""
def suggest(trial):
    values = {{
        "learning_rate": trial.suggest_float("learning_rate", {rate}),
        "max_leaf_nodes": trial.{leaves},
        "early_stopping": trial.suggest_categorical("early_stopping", {stopping}),
    }}
    if values["early_stopping"] in (True, "yes"):
        values["patience"] = trial.suggest_int("patience", 2, 20)
    return values
"""


ANSWERS = {
    "5.1": Answers(
        right=[
            """
def suggest(trial):
    trial.suggest_categorical("early_stopping", [False, True])
    if trial.params["early_stopping"]:
        trial.suggest_int("patience", 2, 20)
    trial.suggest_int("max_leaf_nodes", 8, 64, step=8)
    trial.suggest_float("learning_rate", 0.001, 1, log=True)
    return trial.params
""",
        ],
        wrong={
            "a patience without early stopping": """
def suggest(trial):
    return {
        "learning_rate": trial.suggest_float("learning_rate", 0.001, 1, log=True),
        "max_leaf_nodes": trial.suggest_int("max_leaf_nodes", 8, 64, step=8),
        "early_stopping": trial.suggest_categorical("early_stopping", [True, False]),
        "patience": trial.suggest_int("patience", 2, 20),
    }
""",
            "the middle of the logarithmic scale": suggest(rate="0.001, 1"),
            "max_leaf_nodes is 8, 9, 10": suggest(leaves='suggest_int("max_leaf_nodes", 8, 64)'),
            "max_leaf_nodes has the right values, but": suggest(
                leaves='suggest_categorical("max_leaf_nodes", [8, 16, 24, 32, 40, 48, 56, 64])'
            ),
            "for max_leaf_nodes, it returns 32, and the trial recorded 4": """
def suggest(trial):
    return {"max_leaf_nodes": 8 * trial.suggest_int("max_leaf_nodes", 1, 8)}
""",
            "early_stopping is 'no'; it should": suggest(stopping='["yes", "no"]'),
            "the hyperparameters are learning_rate, not": """
def suggest(trial):
    return {"learning_rate": trial.suggest_float("learning_rate", 0.001, 1, log=True)}
""",
            "of type NoneType; return a dictionary": """
def suggest(trial):
    trial.suggest_float("learning_rate", 0.001, 1, log=True)
""",
            "`suggest` failed: ValueError": suggest(rate="0, 1, log=True"),
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
            """
def bring_to(study, objective, total):
    for trial in study.trials:
        if not trial.state.is_finished():
            study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
    study.sampler = optuna.samplers.TPESampler(seed=len(study.trials))
    while len(complete(study)) < total:
        trial = study.ask()
        study.tell(trial, objective(trial))
""",
        ],
        wrong={
            "there should be 6 complete trials, and there are 9": (
                "def bring_to(study, objective, total):\n    study.optimize(objective, n_trials=total)"
            ),
            "there should be 6 complete trials, and there are 4": """
def bring_to(study, objective, total):
    study.optimize(objective, n_trials=total - len(study.trials))
""",
            "was tried 2 times: the sampler starts": """
def bring_to(study, objective, total):
    study.optimize(objective, n_trials=total - len(complete(study)))
""",
            "9 complete trials, but x": """
def bring_to(study, objective, total):
    for trial in study.get_trials(states=(optuna.trial.TrialState.RUNNING,)):
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
    study.sampler = optuna.samplers.TPESampler(seed=workspace.seed)
    study.optimize(objective, n_trials=total - len(complete(study)))
""",
            "trial 4, in which the first process died, stays RUNNING forever": """
def bring_to(study, objective, total):
    done = len(complete(study))
    study.sampler = optuna.samplers.TPESampler(seed=workspace.seed + done)
    study.optimize(objective, n_trials=total - done)
""",
            "one more start added 1": """
def bring_to(study, objective, total):
    for trial in study.get_trials(states=(optuna.trial.TrialState.RUNNING,)):
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
    study.sampler = optuna.samplers.TPESampler(seed=workspace.seed + len(complete(study)))
    enough = optuna.study.MaxTrialsCallback(total, states=(optuna.trial.TrialState.COMPLETE,))
    study.optimize(objective, callbacks=[enough])
""",
            "after 50 trials it's still running": (
                "def bring_to(study, objective, total):\n    study.optimize(objective)"
            ),
            "without a call of `objective`": """
def bring_to(study, objective, total):
    while len(complete(study)) < total:
        study.tell(study.ask(), 0.5)
""",
            "trial 4 got the score 0.5, which `objective` didn't return": """
def bring_to(study, objective, total):
    for trial in study.get_trials(states=(optuna.trial.TrialState.RUNNING,)):
        study.tell(trial.number, 0.5)
    study.sampler = optuna.samplers.TPESampler(seed=workspace.seed + len(complete(study)))
    study.optimize(objective, n_trials=total - len(complete(study)))
""",
            "`bring_to` failed: TypeError": "def bring_to(study):\n    return study",
            "your answer is of type Study; write the function": "bring_to = study",
        },
    ),
}

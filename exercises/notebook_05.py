"""The exercises of notebook 05."""

from __future__ import annotations

import copy
import math
from collections import Counter
from typing import TYPE_CHECKING, Any

from exercises.core import Exercise, NotYet, attempt

if TYPE_CHECKING:
    import optuna


DRAWS = 200


def _suggests(suggest: Any) -> str:
    import optuna

    if not callable(suggest):
        raise NotYet(f"your answer is of type {type(suggest).__name__}; write the function.")
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    drawn: list[dict[str, Any]] = []
    ranges: dict[str, Any] = {}
    for _ in range(DRAWS):
        trial = study.ask()
        with attempt("`suggest` failed"):
            returned = suggest(trial)
        if not isinstance(returned, dict):
            raise NotYet(f"it returns a value of type {type(returned).__name__}; return a dictionary.")
        values = {name: value for name, value in returned.items() if value is not None}
        for name in sorted(trial.params.keys() | values.keys()):
            recorded, value = trial.params.get(name), values.get(name)
            if recorded != value or type(recorded) is not type(value):
                raise NotYet(
                    f"for {name}, it returns {value!r}, and the trial recorded {recorded!r}. MLflow and"
                    " `best_params` get what the trial recorded: return exactly that, under the same name."
                )
        drawn.append(values)
        ranges |= trial.distributions
    return _fits(drawn, ranges)


def _fits(drawn: list[dict[str, Any]], ranges: dict[str, Any]) -> str:
    """Compare what was drawn, and from which ranges, with the text of the exercise."""
    from optuna.distributions import FloatDistribution, IntDistribution

    asked = ["early_stopping", "learning_rate", "max_leaf_nodes", "patience"]
    if sorted(ranges) != asked:
        raise NotYet(
            f"the hyperparameters are {', '.join(sorted(ranges)) or 'none'}, not {', '.join(asked)}."
        )
    if {type(values["early_stopping"]) for values in drawn} != {bool}:
        raise NotYet(f"early_stopping is {drawn[0]['early_stopping']!r}; it should be True or False.")
    without = [values for values in drawn if "patience" in values and not values["early_stopping"]]
    if without:
        raise NotYet(
            f"{len(without)} of {DRAWS} trials got a patience without early stopping, where it has no"
            " effect. A `suggest_` call is a call like any other: when should it run?"
        )
    stopping = sum(values["early_stopping"] for values in drawn)
    if stopping != sum("patience" in values for values in drawn):
        raise NotYet("some trials with early stopping got no patience.")
    small = sum(values["learning_rate"] < 0.03 for values in drawn)
    if ranges["learning_rate"] != FloatDistribution(1e-3, 1.0, log=True):
        raise NotYet(
            f"learning_rate is drawn from {ranges['learning_rate']}: {small} of {DRAWS} draws are below 0.03,"
            " the middle of the logarithmic scale. Compare it with `C` in `objective`."
        )
    for name, expected in {
        "max_leaf_nodes": IntDistribution(8, 64, step=8),
        "patience": IntDistribution(2, 20),
    }.items():
        if ranges[name] == expected:
            continue
        found = sorted({values[name] for values in drawn if name in values})
        if found == [*range(expected.low, expected.high + 1, expected.step)]:
            raise NotYet(
                f"{name} has the right values, but it's drawn from {ranges[name]}. From that, the sampler"
                " can't tell that they're numbers, in order, and equally far apart."
            )
        shown = ", ".join(map(str, found[:6]))
        raise NotYet(f"{name} is {shown}{', ...' if len(found) > 6 else ''}, up to {found[-1]}.")
    return (
        f"Of {DRAWS} trials, {small} have a learning rate in the lower half of the logarithmic scale, and"
        f" only the {stopping} with early stopping have a patience."
    )


def _brings_to(bring_to: Any) -> str:
    import optuna
    from optuna.distributions import FloatDistribution
    from optuna.trial import TrialState

    if not callable(bring_to):
        raise NotYet(f"your answer is of type {type(bring_to).__name__}; write the function.")
    storage, calls = optuna.storages.InMemoryStorage(), []

    def objective(trial: optuna.Trial) -> float:
        calls.append(trial.number)
        if len(calls) > 50:
            raise NotYet("after 50 trials it's still running: what ends it?")
        return trial.suggest_float("x", 0, 1)

    def new_process() -> optuna.Study:
        return optuna.load_study(
            study_name="sweep", storage=storage, sampler=optuna.samplers.TPESampler(seed=1)
        )

    def complete() -> list[optuna.trial.FrozenTrial]:
        return new_process().get_trials(states=(TrialState.COMPLETE,))

    optuna.create_study(study_name="sweep", storage=storage, direction="maximize")
    killed = new_process()
    killed.optimize(objective, n_trials=3)
    killed.tell(killed.ask({"x": FloatDistribution(0, 1)}), state=TrialState.FAIL)
    killed.ask({"x": FloatDistribution(0, 1)})  # the process dies inside this one
    for total in (6, 9, 9):  # resumed, resumed by one more process, and started again when everything is done
        before = len(complete())
        with attempt("`bring_to` failed"):
            bring_to(new_process(), objective, total)
        done, now = complete(), len(complete())
        if before == total < now:
            raise NotYet(
                f"the study had its {total} complete trials, and one more start added {now - before}."
            )
        if now != total:
            raise NotYet(
                f"there should be {total} complete trials, and there are {now}. At the start, the study had"
                f" {before} complete trials, one that failed, and one that was open. Which of them count, and"
                " what does `n_trials` count?"
            )
        if any("x" not in trial.params for trial in done):
            raise NotYet("a trial got a score without a call of `objective`.")
        for trial in done:
            if trial.value != trial.params["x"]:  # which is what `objective` returns
                raise NotYet(
                    f"trial {trial.number} got the score {trial.value}, which `objective` didn't return."
                )
        value, times = Counter(trial.params["x"] for trial in done).most_common(1)[0]
        if times > 1:
            raise NotYet(
                f"{now} complete trials, but x = {value:.3f} was tried {times} times: the sampler starts from"
                " the previous process's seed."
            )
        still = [trial.number for trial in new_process().get_trials(states=(TrialState.RUNNING,))]
        if still:
            raise NotYet(
                f"trial {still[0]}, in which the first process died, stays RUNNING forever. What does"
                " `settle` do with it?"
            )
    return (
        "After the kill, a third process, and one more start when everything was done, there are 9 complete"
        " trials, no two alike, and none is open."
    )


EPOCHS = 12
ENDS = [0.58, 0.60, 0.59, 0.61, 0.585, 0.605, 0.595, 0.59, 0.60, 0.61]
"""What ordinary trials end near."""
SLOW = [0.693, 0.691, 0.688, 0.683, 0.674, 0.658, 0.634, 0.606, 0.580, 0.562, 0.552, 0.548]


def _curves(place: int) -> list[list[float]]:
    """Log loss over the epochs for each of sixteen trials.

    They are ordinary ones, five that only get worse, and the slow starter at ``place``.
    """
    ordinary = [[end + (0.69 - end) * math.exp(-epoch / 3) for epoch in range(EPOCHS)] for end in ENDS]
    hopeless = [
        [0.69 + rate * epoch for epoch in range(EPOCHS)] for rate in (0.002, 0.004, 0.006, 0.01, 0.02)
    ]
    curves = ordinary[:5] + [curve for pair in zip(hopeless, ordinary[5:], strict=True) for curve in pair]
    curves.insert(place, SLOW)
    return curves


def _replay(pruner: optuna.pruners.BasePruner, place: int) -> tuple[int, int]:
    """Ask a pruner about each epoch of each trial; return the slow starter's epochs and those of all."""
    import optuna

    curves = _curves(place)
    study = optuna.create_study(direction="minimize", pruner=copy.deepcopy(pruner))

    def objective(trial: optuna.Trial) -> float:
        for epoch, loss in enumerate(curves[trial.number]):
            trial.report(loss, step=epoch)
            if trial.should_prune():
                raise optuna.TrialPruned
        return loss

    study.optimize(objective, n_trials=len(curves))
    ran = [len(trial.intermediate_values) for trial in study.trials]
    return ran[place], sum(ran)


def _keeps_the_slow_starter(pruner: Any) -> str:
    import optuna

    if isinstance(pruner, type):
        raise NotYet(f"that is the class {pruner.__name__}; a study takes an instance, as for `early`.")
    if not isinstance(pruner, optuna.pruners.BasePruner):
        raise NotYet(
            f"your answer is of type {type(pruner).__name__}; make a pruner of `optuna.pruners`, as for"
            " `early`."
        )
    every, saved = 16 * EPOCHS, []
    # Also a late one: a pruner that spares only the first trials isn't patient.
    for place, which in ((9, "tenth"), (14, "fifteenth")):
        with attempt("the pruner failed"):
            ran, epochs = _replay(pruner, place)
        if ran < EPOCHS:
            at = [curve[ran - 1] for curve in _curves(place)]
            raise NotYet(
                f"as the {which} trial, the slow starter is stopped after epoch {ran - 1}: its loss is"
                f" {SLOW[ran - 1]:.3f} there, the best trial's {min(at):.3f}. Look at the table: when does it"
                " overtake the others, and what do the hopeless trials never do?"
            )
        saved.append(every - epochs)
    if min(saved) == 0:
        raise NotYet(f"the slow starter wins, but no trial is stopped: all {every} epochs run.")
    if min(saved) < every // 8:
        raise NotYet(
            f"the slow starter wins, but only {min(saved)} of {every} epochs are saved: the hopeless trials"
            " run too long."
        )
    return (
        f"The slow starter runs to its end and wins with {SLOW[-1]:.3f}, and {min(saved)} of {every} epochs"
        " are saved."
    )


EXERCISES = [
    Exercise(
        "5.1",
        "Write a search space",
        _suggests,
        more=(
            "`suggest_float` has a parameter `log`, and `suggest_int` a parameter `step`. A `suggest_` call"
            " can be inside an `if` that looks at what an earlier call returned."
        ),
        worked="""
def suggest(trial):
    values = {
        "learning_rate": trial.suggest_float("learning_rate", 1e-3, 1.0, log=True),
        "max_leaf_nodes": trial.suggest_int("max_leaf_nodes", 8, 64, step=8),
        "early_stopping": trial.suggest_categorical("early_stopping", [True, False]),
    }
    # The space may depend on the trial: a hyperparameter that has no effect isn't drawn.
    if values["early_stopping"]:
        values["patience"] = trial.suggest_int("patience", 2, 20)
    return values
""",
    ),
    Exercise(
        "5.2",
        "Keep the slow starter",
        _keeps_the_slow_starter,
        more=(
            "Either judge later, with an argument of `MedianPruner`, or wrap the pruner in another one of"
            " `optuna.pruners` that waits as long as a trial improves. (Optuna marks that one as experimental"
            " and warns about it.)"
        ),
        worked="""
# It asks the median only about trials that have stopped improving, and the slow starter never does.
# (Optuna marks this pruner as experimental and warns. A MedianPruner with n_warmup_steps=8 saves less.)
patient = optuna.pruners.PatientPruner(
    optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=2),
    patience=2,
)
""",
    ),
    Exercise(
        "5.3",
        "Complete a killed study",
        _brings_to,
        more=(
            "Do three things, in the order of `sweep`: close open trials with `tell`, set a sampler whose"
            " seed depends on how many trials are complete, and run as many further trials as are missing."
        ),
        worked="""
def bring_to(study, objective, total):
    # What a dead process left open stays open until someone closes it.
    for trial in study.get_trials(states=(optuna.trial.TrialState.RUNNING,)):
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
    done = len(complete(study))
    # A seed that grows with the complete trials: the draws of the first process aren't repeated.
    study.sampler = optuna.samplers.TPESampler(seed=workspace.seed + done)
    study.optimize(objective, n_trials=total - done)
""",
    ),
]

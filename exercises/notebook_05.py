"""The exercises of notebook 05."""

from __future__ import annotations

import copy
import math
from collections import Counter
from typing import TYPE_CHECKING, Any

from exercises.core import Exercise, NotYet, attempt

if TYPE_CHECKING:
    import optuna


def _brings_to(bring_to: Any) -> str:
    import optuna
    from optuna.distributions import FloatDistribution
    from optuna.trial import TrialState

    if not callable(bring_to):
        raise NotYet(f"that is of the type {type(bring_to).__name__}; write the function.")
    storage, calls = optuna.storages.InMemoryStorage(), []

    def objective(trial: optuna.Trial) -> float:
        calls.append(trial.number)
        if len(calls) > 50:
            raise NotYet("after 50 trials it still goes on: what ends it?")
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
    for total in (6, 9, 9):  # resumed; resumed by one more process; and started again when all is done
        before = len(complete())
        with attempt("`bring_to` failed"):
            bring_to(new_process(), objective, total)
        done, now = complete(), len(complete())
        if before == total < now:
            raise NotYet(
                f"the study had its {total} complete trials, and starting once more added {now - before}."
            )
        if now != total:
            raise NotYet(
                f"{total} complete trials were asked for, and there are {now}. The study held {before}"
                " complete trials at the start, and two more: one that failed, one that was open. Which of"
                " them count, and what does `n_trials` count?"
            )
        if any("x" not in trial.params for trial in done):
            raise NotYet("a trial was told a score without a call of `objective`.")
        for trial in done:
            if trial.value != trial.params["x"]:  # which is what `objective` returns
                raise NotYet(
                    f"trial {trial.number} was told the score {trial.value}, which `objective` has not given."
                )
        value, times = Counter(trial.params["x"] for trial in done).most_common(1)[0]
        if times > 1:
            raise NotYet(
                f"{now} complete trials, but x = {value:.3f} was tried {times} times: the seed of the sampler"
                " is that of the process before."
            )
        still = [trial.number for trial in new_process().get_trials(states=(TrialState.RUNNING,))]
        if still:
            raise NotYet(
                f"trial {still[0]}, in which the first process died, says RUNNING for ever. What does"
                " `settle` do with it?"
            )
    return (
        "Resumed after the kill, resumed by a third process, started once more when all was done: 9 complete"
        " trials, no two alike, and nothing is left open."
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
        raise NotYet(
            f"that is the class {pruner.__name__}; a study takes a pruner that was made of it, as `early`"
            " does."
        )
    if not isinstance(pruner, optuna.pruners.BasePruner):
        raise NotYet(
            f"that is of the type {type(pruner).__name__}; make one of `optuna.pruners`, as for the study"
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
                " overtake the others, and what do the hopeless ones never do?"
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


def _says_it_to_katib(parameters: Any) -> str:
    import optuna
    import yaml
    from kubeflow_katib_api import models
    from optuna.distributions import FloatDistribution, IntDistribution

    from lifecycle.cluster import katib

    if isinstance(parameters, str):
        with attempt("that text is no YAML"):
            parameters = yaml.safe_load(parameters)
    spec = models.V1beta1ParameterSpec
    if not isinstance(parameters, list | tuple):
        raise NotYet(
            f"that is of the type {type(parameters).__name__}; Katib takes a list with an entry for each"
            " hyperparameter, as in the YAML above."
        )
    for one in parameters:
        if not isinstance(one, dict | spec):
            raise NotYet(
                f"an entry of the list is of the type {type(one).__name__}; each is a dictionary with the"
                " keys of the YAML above."
            )
    written = [one.to_dict() if isinstance(one, spec) else one for one in parameters]
    for one in written:
        limits = one.get("feasibleSpace")
        for key, value in limits.items() if isinstance(limits, dict) else ():
            if isinstance(value, int | float):
                raise NotYet(
                    f"{key} of {one.get('name')} is a number, {value!r}, which Katib's models refuse. How"
                    " does the YAML above write every value?"
                )
    with attempt("Katib's models refuse it"):
        read = [spec.from_dict(one).to_dict() for one in written]
    if lost := _lost(written, read):
        raise NotYet(
            f"Katib's models read it, and dropped {', '.join(lost)} without a word. Compare each key with the"
            " YAML above."
        )
    names = [one.get("name") for one in read]
    if sorted(map(str, names)) != ["epochs", "learning_rate"]:
        raise NotYet(
            f"the names are {', '.join(map(str, names)) or 'none'}: `learning_rate` and `epochs` are asked"
            " for, once each."
        )
    for one in read:
        name, kind, limits = one["name"], one.get("parameterType"), one.get("feasibleSpace", {})
        if kind is None:
            raise NotYet(f"{name} has no parameterType.")
        if kind != {"learning_rate": "double", "epochs": "int"}[name]:
            raise NotYet(
                f"{name} is of the type {kind!r}. Katib's types in the YAML above are for a fraction, a whole"
                " number and a choice; as a choice, a sampler would not know what lies between."
            )
        if not {"min", "max"} <= limits.keys():
            raise NotYet(f"{name} has no {' and no '.join(sorted({'min', 'max'} - limits.keys()))}.")
        if limits.get("distribution", "uniform") not in ("uniform", "logUniform"):
            raise NotYet(
                f"the distribution {limits['distribution']!r} is neither of the two; compare it with that of"
                " C in the YAML above."
            )
        limits.setdefault("distribution", "uniform")  # as Katib does
        if kind == "int" and limits["distribution"] != "uniform":
            raise NotYet(f"{name} has a logarithmic scale; 4, 8 and 12 lie equally far apart.")
    with attempt("Optuna makes no range of these limits"):
        space = katib.distributions(read)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    drawn = [study.ask(dict(sorted(space.items()))).params for _ in range(200)]
    small = sum(trial["learning_rate"] < 1e-3 for trial in drawn)
    if space["learning_rate"] != FloatDistribution(1e-6, 1e-1, log=True):
        raise NotYet(
            f"Katib would draw learning_rate from {space['learning_rate']}: of 200 draws, {small} are below"
            " 0.001. Compare with `suggest_float` in `learn`."
        )
    if space["epochs"] != IntDistribution(4, 12, step=4):
        raise NotYet(
            f"Katib would try {', '.join(map(str, sorted({trial['epochs'] for trial in drawn})))} epochs."
        )
    return (
        f"Read back, it is Optuna's space: of 200 draws, {small} have a learning rate below 0.001, and the"
        " epochs are 4, 8 or 12."
    )


def _lost(written: Any, read: Any) -> list[str]:
    """The outermost keys of lists and mappings that are in ``written`` and no more in ``read``."""
    if isinstance(written, dict):
        inner = [key for name in written if name in read for key in _lost(written[name], read[name])]
        return [*map(str, written.keys() - read.keys()), *inner]
    if isinstance(written, list | tuple):
        return sorted(
            {key for before, after in zip(written, read, strict=True) for key in _lost(before, after)}
        )
    return []


EXERCISES = [
    Exercise(
        "5.1",
        "Bring a killed study to its goal",
        _brings_to,
        more=(
            "Three things, in the order of `sweep`: close what is open with `tell`; a sampler whose seed"
            " depends on how many trials are complete; as many further trials as are missing."
        ),
        worked="""
def bring_to(study, objective, total):
    # What a dead process left open will never end by itself.
    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)
    done = len(complete(study))
    # A seed that moves on with what is known: the draws of the first process do not come back.
    study.sampler = optuna.samplers.TPESampler(seed=workspace.seed + done)
    study.optimize(objective, n_trials=total - done)
""",
    ),
    Exercise(
        "5.2",
        "Keep the slow starter",
        _keeps_the_slow_starter,
        more=(
            "Either judge later (an argument of `MedianPruner`), or wrap the pruner in one of"
            " `optuna.pruners` that waits as long as a trial improves (Optuna calls that one experimental,"
            " and says so in a warning)."
        ),
        worked="""
# It asks the median only about trials that have stopped improving, and the slow starter never does.
# (Optuna calls this pruner experimental, and warns. A MedianPruner with n_warmup_steps=8 saves less.)
patient = optuna.pruners.PatientPruner(
    optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=2),
    patience=2,
)
""",
    ),
    Exercise(
        "5.3",
        "Say it in Katib's words",
        _says_it_to_katib,
        more=(
            "Two entries like those of C and degree in the YAML above. Each has a name, a type, and under"
            " `feasibleSpace` limits in quotes; the whole numbers are four apart."
        ),
        worked="""
# All values are text; without logUniform nine of ten trials would lie above 0.01.
in_katibs_words = [
    {
        "name": "learning_rate",
        "parameterType": "double",
        "feasibleSpace": {"min": "0.000001", "max": "0.1", "distribution": "logUniform"},
    },
    {
        "name": "epochs",
        "parameterType": "int",
        "feasibleSpace": {"min": "4", "max": "12", "step": "4"},
    },
]
""",
    ),
]

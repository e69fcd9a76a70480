"""The exercises of notebook 10."""

from __future__ import annotations

import copy
from typing import Any
from urllib.parse import urlparse

from exercises.core import Exercise, NotYet, attempt, scratch_tracking
from helpers.workspace import REPOSITORY


def _containers(document: dict[str, Any]) -> list[dict[str, Any]]:
    spec = document["spec"]
    if document["kind"] == "Experiment":
        spec = spec["trialTemplate"]["trialSpec"]["spec"]
    return (spec.get("predictor") or spec["template"]["spec"])["containers"]


def _unlimited(answer: Any) -> str:
    from lifecycle.cluster import manifests

    if not callable(answer):
        raise NotYet(
            f"your answer has the type {type(answer).__name__}; write a function of a list of manifests."
        )
    files = manifests.read(REPOSITORY / "cluster" / "manifests")
    kinds = ("Deployment", "Job", "InferenceService", "Experiment")
    limited = [one for documents in files.values() for one in documents if one["kind"] in kinds]
    others = [
        one for documents in files.values() for one in documents if one["kind"] in ("Service", "ConfigMap")
    ]
    tried = 0
    for place in range(len(limited)):
        for removed in ("resources", "limits", "memory"):
            documents = copy.deepcopy([*limited, *others])
            first = _containers(documents[place])[0]
            # A second container without a limit, behind one that has it.
            second = {**copy.deepcopy(first), "name": "sidecar"}
            holder = {
                "resources": second,
                "limits": second["resources"],
                "memory": second["resources"]["limits"],
            }
            del holder[removed][removed]
            _containers(documents[place]).append(second)
            with attempt("your function fails"):
                named = set(answer(documents))
            expected = {documents[place]["metadata"]["name"]}
            what = f"the {documents[place]['kind']} {documents[place]['metadata']['name']!r}"
            if expected - named:
                raise NotYet(
                    f"{what} is left out: its container 'sidecar' has no {removed!r}; its other containers"
                    " have a memory limit."
                )
            if wrong := sorted(map(str, named - expected)):
                raise NotYet(
                    f"your set contains {wrong[0]!r}, but each of its containers has a limit, or it has no"
                    " pod at all."
                )
            tried += 1
    return (
        f"{tried} manifests with a container without a limit were found, and no other. Kubernetes can reject"
        " them itself: that's what admission policies are for."
    )


def _says_it_to_katib(parameters: Any) -> str:
    import optuna
    import yaml
    from kubeflow_katib_api import models
    from optuna.distributions import FloatDistribution, IntDistribution

    from lifecycle.cluster import katib

    if isinstance(parameters, str):
        with attempt("that text isn't YAML"):
            parameters = yaml.safe_load(parameters)
    spec = models.V1beta1ParameterSpec
    if not isinstance(parameters, list | tuple):
        raise NotYet(
            f"your answer has the type {type(parameters).__name__}; Katib takes a list with an entry for each"
            " hyperparameter, as in the YAML above."
        )
    for one in parameters:
        if not isinstance(one, dict | spec):
            raise NotYet(
                f"an entry of the list has the type {type(one).__name__}; each is a dictionary with the"
                " keys of the YAML above."
            )
    written = [one.to_dict() if isinstance(one, spec) else one for one in parameters]
    for one in written:
        limits = one.get("feasibleSpace")
        for key, value in limits.items() if isinstance(limits, dict) else ():
            if isinstance(value, int | float):
                raise NotYet(
                    f"{key} of {one.get('name')} is a number, {value!r}, which Katib's models reject. How"
                    " does the YAML above write every value?"
                )
    with attempt("Katib's models reject it"):
        read = [spec.from_dict(one).to_dict() for one in written]
    if lost := _lost(written, read):
        raise NotYet(
            f"Katib's models read it, and dropped {', '.join(lost)} without an error. Compare each key with"
            " the YAML above."
        )
    names = [one.get("name") for one in read]
    if sorted(map(str, names)) != ["epochs", "learning_rate"]:
        raise NotYet(
            f"the names are {', '.join(map(str, names)) or 'none'}: write `learning_rate` and"
            " `epochs`, once each."
        )
    for one in read:
        name, kind, limits = one["name"], one.get("parameterType"), one.get("feasibleSpace", {})
        if kind is None:
            raise NotYet(f"{name} has no parameterType.")
        if kind != {"learning_rate": "double", "epochs": "int"}[name]:
            raise NotYet(
                f"{name} has the type {kind!r}. The YAML above has a type for fractions, one for whole"
                " numbers, and one for choices; with a choice, a sampler doesn't know the order of the"
                " values."
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
            raise NotYet(f"{name} has a logarithmic scale, but 4, 8, and 12 are equally far apart.")
    with attempt("Optuna can't make a range of these limits"):
        space = katib.distributions(read)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    drawn = [study.ask(dict(sorted(space.items()))).params for _ in range(200)]
    small = sum(trial["learning_rate"] < 1e-3 for trial in drawn)
    if space["learning_rate"] != FloatDistribution(1e-6, 1e-1, log=True):
        raise NotYet(
            f"Katib would draw learning_rate from {space['learning_rate']}: of 200 draws, {small} are below"
            " 0.001. Which scale does the exercise ask for?"
        )
    if space["epochs"] != IntDistribution(4, 12, step=4):
        raise NotYet(
            f"Katib would try {', '.join(map(str, sorted({trial['epochs'] for trial in drawn})))} epochs."
        )
    return (
        f"Read back, it is Optuna's space: of 200 draws, {small} have a learning rate below 0.001, and the"
        " epochs are 4, 8, or 12."
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


PLACES = {
    "of the team": "mlflow-artifacts:/7",
    "of the object store": "s3://models/runs",
    "of Ana's laptop": "file:///home/ana/runs",
    "of Ben's laptop": "/home/ben/runs",
}
"""Experiments that the check adds to a copy of the course's, and where the files of their runs lie."""
FOLDERS = ("", "file")
"""The schemes of places that are folders of one machine; a path has none."""


def _out_of_reach(answer: Any) -> str:
    if not callable(answer):
        raise NotYet(f"your answer has the type {type(answer).__name__}; write a function of a client.")
    with scratch_tracking() as client:
        for name, place in PLACES.items():
            client.create_experiment(name, artifact_location=place)
        found = {experiment.name: experiment.artifact_location for experiment in client.search_experiments()}
        with attempt("your function fails"):
            named = set(answer(client))
    if other := [one for one in named if not isinstance(one, str)]:
        raise NotYet(f"it returns a value of type {type(other[0]).__name__}; return the names.")
    if strange := sorted(named - set(found)):
        raise NotYet(f"{strange[0]!r} isn't the name of an experiment; return the names.")
    far = {name for name, place in found.items() if urlparse(place).scheme in FOLDERS}
    if missed := sorted(far - named):
        raise NotYet(
            f"{missed[0]!r} is left out, and its files are in {found[missed[0]]}: which machine has that"
            " folder?"
        )
    if wrong := sorted(named - far):
        raise NotYet(
            f"{wrong[0]!r} doesn't belong in the result: its files are at {found[wrong[0]]!r}, which isn't a"
            " folder on one machine."
        )
    return (
        f"{len(far)} of {len(found)} experiments keep their files in a folder on one machine. A server in"
        " front of the database shows their runs and metrics to everybody, but their models load only where"
        " that folder is."
    )


EXERCISES = [
    Exercise(
        "10.1",
        "Find the pods without a limit",
        _unlimited,
        more=(
            "First write a function that returns the containers of a manifest, of any kind. Then call `get`"
            " with a default three times: `container.get('resources', {})` and so on. Not every manifest has"
            " a pod, and a pod can have several containers."
        ),
        worked="""
def containers(document):
    spec = document.get("spec", {})
    if document["kind"] == "Experiment":
        spec = spec["trialTemplate"]["trialSpec"]["spec"]
    # A Service has neither, and so no containers.
    pod = spec.get("predictor") or spec.get("template", {}).get("spec", {})
    return pod.get("containers", [])


def unlimited(documents):
    found = set()
    for document in documents:
        for container in containers(document):
            if "memory" not in container.get("resources", {}).get("limits", {}):
                found.add(document["metadata"]["name"])
    return found
""",
    ),
    Exercise(
        "10.2",
        "Say it in Katib's words",
        _says_it_to_katib,
        more=(
            "Two entries like those of C and degree in the YAML above. Each has a name, a type, and under"
            " `feasibleSpace` limits in quotes; the whole numbers are four apart."
        ),
        worked="""
# All values are strings. Without logUniform, nine of ten trials would be above 0.01. With a step, Katib
# rounds, and chooses 8 twice as often as 4 or 12.
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
    Exercise(
        "10.3",
        "Find what a colleague can't load",
        _out_of_reach,
        more=(
            "`client.search_experiments()` returns the experiments, and `artifact_location` is where the"
            " files of their runs go. There are two ways to write a folder on this machine: as a path, and as"
            " an address with a scheme."
        ),
        worked="""
from urllib.parse import urlparse


def out_of_reach(client):
    # A path has no scheme, and "file:" is another way to write a path. Every other scheme
    # names a server, which a colleague can reach as well as you can.
    schemes = {e.name: urlparse(e.artifact_location).scheme for e in client.search_experiments()}
    return [name for name, scheme in schemes.items() if scheme in ("", "file")]
""",
    ),
]

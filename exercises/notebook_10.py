"""The exercises of notebook 10."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlparse

from exercises.core import Exercise, NotYet, attempt, scratch_tracking
from helpers.workspace import REPOSITORY

CPUS, MEMORY = 2, 4096
"""The quota: CPUs and MiB that may be requested."""
PYTHON, POSTGRES = 400, 128
"""MiB that a process takes at least: the model server at rest, and PostgreSQL's shared buffers."""
SERVERS = ("Deployment", "FeatureStore", "InferenceService")


def _resources(part: Any) -> Iterator[dict[str, Any]]:
    """What containers in a part of a manifest get, aside from those that end before others begin."""
    if isinstance(part, dict):
        if "limits" in part:
            yield part
        part = [value for key, value in part.items() if key != "initContainers"]
    for inner in part if isinstance(part, list) else []:
        yield from _resources(inner)


def _fits(changes: Any) -> str:
    import yaml

    from lifecycle.cluster import manifests
    from lifecycle.settings import FILE, Settings, amount

    if not isinstance(changes, dict):
        raise NotYet(f"your answer has the type {type(changes).__name__}; write a dictionary of settings.")
    course = Settings.load(REPOSITORY / FILE)
    feast = yaml.safe_load((REPOSITORY / course.feature_repo / "feature_store.yaml").read_text())
    with attempt("the settings reject it"):
        own = course.replace(cluster=changes)
        files = manifests.render(own, feast)
    given = {"a step": own.cluster.step.manifest()}
    for document in [one for documents in files.values() for one in documents if one["kind"] in SERVERS]:
        for number, found in enumerate(_resources(document), 1):
            given[f"container {number} of {document['kind']} {document['metadata']['name']}"] = found
    for name in ("step", "server", "mlflow", "store"):
        before, after = getattr(course.cluster, name), getattr(own.cluster, name)
        for limit in ("cpu_limit", "memory_limit"):
            if amount(getattr(after, limit)) < amount(getattr(before, limit)):
                raise NotYet(
                    f"{limit} of {name} is {getattr(after, limit)}, and was {getattr(before, limit)}: a quota"
                    " on requests doesn't ask for that, and above its memory limit a container is killed."
                )
        least = POSTGRES if name == "store" else PYTHON
        if amount(after.memory) < least * 2**20:
            process = "PostgreSQL" if name == "store" else "a Python process"
            raise NotYet(
                f"{name} requests {after.memory}, and {process} takes about {least} MiB: on a full node, a"
                " container that takes more than it requests is the first to go."
            )
        if amount(after.cpu) < 0.05:
            raise NotYet(f"{name} requests {after.cpu} CPUs; on a busy node, it would hardly start.")
    cpus, memory = (
        sum(amount(one["requests"][kind]) for one in given.values()) for kind in ("cpu", "memory")
    )
    asks = f"{cpus:g} CPUs and {memory / 2**20:,.0f} MiB"
    if cpus > CPUS or memory > MEMORY * 2**20:
        raise NotYet(
            f"with your changes, {len(given)} containers request {asks}, and the quota is {CPUS} CPUs and"
            f" {MEMORY:,} MiB. Which setting do the most containers share?"
        )
    return (
        f"{len(given)} containers request {asks}. `step` counts four times, since Feast's three servers get"
        " what a step gets. The limits are as before, so a busy process may still take more while the node"
        " has it."
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
        "Fit into a quota",
        _fits,
        more=(
            "Change two of the four sizes. The FeatureStore above asks for the most: it starts three servers,"
            " and each gets what a step gets. A size has four values: `cpu`, `memory`, `cpu_limit`, and"
            " `memory_limit`."
        ),
        worked="""
# Feast's three servers and a step of the pipeline get what `step` says: 4 x 512 MiB saved. The model
# server gives the rest. Limits stay, so that a busy process can still take up to 2 GiB.
half = {"cpu": "250m", "memory": "512Mi", "cpu_limit": "1", "memory_limit": "2Gi"}
smaller = {"step": half, "server": half}
""",
    ),
    Exercise(
        "10.2",
        "Write a search space for Katib",
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

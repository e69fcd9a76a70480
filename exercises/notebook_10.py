"""The exercises of notebook 10."""

from __future__ import annotations

import copy
from typing import Any
from urllib.parse import urlparse

from exercises.core import Exercise, NotYet, attempt, scratch_tracking, staged
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
            f"that is of the type {type(answer).__name__}; the answer is a function of a list of manifests."
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
            with attempt("your function ends with an error"):
                named = set(answer(documents))
            expected = {documents[place]["metadata"]["name"]}
            what = f"the {documents[place]['kind']} {documents[place]['metadata']['name']!r}"
            if expected - named:
                raise NotYet(
                    f"{what} is left out: its container 'sidecar' has no {removed!r}; the other containers"
                    " have all."
                )
            if wrong := sorted(map(str, named - expected)):
                raise NotYet(
                    f"{wrong[0]!r} is named, and each of its containers has a limit, or it has no pod at all."
                )
            tried += 1
    return (
        f"{tried} manifests with a container without a limit were found, and no other. Kubernetes can refuse"
        " them itself: that is what admission policies are for."
    )


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
        raise NotYet(f"that is of the type {type(answer).__name__}; the answer is a function of a client.")
    with scratch_tracking() as client:
        for name, place in PLACES.items():
            client.create_experiment(name, artifact_location=place)
        found = {experiment.name: experiment.artifact_location for experiment in client.search_experiments()}
        with attempt("your function ends with an error"):
            named = set(answer(client))
    if other := [one for one in named if not isinstance(one, str)]:
        raise NotYet(f"it returns something of the type {type(other[0]).__name__}; return the names.")
    if strange := sorted(named - set(found)):
        raise NotYet(f"{strange[0]!r} is the name of no experiment; return the names.")
    far = {name for name, place in found.items() if urlparse(place).scheme in FOLDERS}
    if missed := sorted(far - named):
        raise NotYet(
            f"{missed[0]!r} is left out, and its files are in {found[missed[0]]}: which machine has that"
            " folder?"
        )
    if wrong := sorted(named - far):
        raise NotYet(
            f"{wrong[0]!r} is named, and its files are at {found[wrong[0]]!r}, which is no folder of one"
            " machine."
        )
    return (
        f"{len(far)} of {len(found)} experiments keep their files in a folder of one machine. A server in"
        " front of the database lists their runs and metrics to everybody, and their models load only where"
        " that folder is."
    )


def _answers_from(answer: Any) -> str:
    import pandas as pd

    from helpers.data import FIRST_DRIVER, NOW

    if not callable(answer):
        raise NotYet(f"that is of the type {type(answer).__name__}; the answer is a function of a table.")
    noon, hour = pd.Timestamp(NOW).as_unit("us") - pd.Timedelta("1d"), pd.Timedelta("1h")
    cases = {
        "was written two hours after it happened": 2 * hour,
        "was written as it happened": 0 * hour,
        "was written three hours ahead, as a forecast is": -3 * hour,
    }
    rows = pd.DataFrame(
        {
            "driver_id": range(FIRST_DRIVER, FIRST_DRIVER + len(cases)),
            "event_timestamp": noon,
            "created": [noon + delay for delay in cases.values()],
            "conv_rate": 0.5,
            "acc_rate": 0.5,
            "avg_daily_trips": 5,
        }
    )
    with attempt("your function ends with an error"):
        found = answer(rows.copy())
        if found is ...:
            raise NotYet("your function still returns `...`.")
        if found is None or isinstance(found, pd.DataFrame):
            raise NotYet(
                f"it gives {'nothing' if found is None else 'a table'}; give one moment for each row."
            )
        moments = pd.Series(pd.to_datetime(list(found), utc=True)).dt.as_unit("us")
    if len(moments) != len(rows):
        raise NotYet(
            f"{len(rows)} rows, and your function gives {len(moments)} moments. Give one for each row."
        )

    with staged(rows) as store:

        def known(times: pd.Series) -> list[bool]:
            questions = pd.DataFrame({"driver_id": rows.driver_id, "event_timestamp": times})
            job = store.get_historical_features(
                questions, ["driver_hourly_stats:conv_rate"], filter_by_created_timestamp=True
            )
            return job.to_df().sort_values("driver_id").conv_rate.notna().tolist()

        at, before = known(moments), known(moments - pd.Timedelta("1us"))
    for case, there, sooner in zip(cases, at, before, strict=True):
        if not there:
            raise NotYet(
                f"a row that {case}: at your moment Feast does not give it yet. Is it both past and written"
                " then?"
            )
        if sooner:
            raise NotYet(
                f"a row that {case}: Feast gives it a microsecond before your moment already. What does it"
                " still wait for?"
            )
    return (
        "A row answers from the later of its two times. On that column the ASOF store joins when it is asked"
        " for what was known; before, it drops rows that are written late about an earlier time than is known"
        " already."
    )


EXERCISES = [
    Exercise(
        "10.1",
        "Find the pods without a limit",
        _unlimited,
        more=(
            "First a function that gives the containers of a manifest, of whichever kind; then `get` with a"
            " default, three times: `container.get('resources', {})` and so on. Not every manifest has a pod,"
            " and a pod can have several containers."
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
        "Find what a colleague cannot load",
        _out_of_reach,
        more=(
            "`client.search_experiments()` gives the experiments, and `artifact_location` is where the files"
            " of their runs go. There are two ways to write a folder of this machine: as a path, and as an"
            " address with a scheme."
        ),
        worked="""
from urllib.parse import urlparse


def out_of_reach(client):
    # A path has no scheme, and "file:" is a path in other clothes. Every other scheme
    # names a server, which a colleague reaches as well as we do.
    schemes = {e.name: urlparse(e.artifact_location).scheme for e in client.search_experiments()}
    return [name for name, scheme in schemes.items() if scheme in ("", "file")]
""",
    ),
    Exercise(
        "10.3",
        "Find the moment from which a row may answer",
        _answers_from,
        more=(
            "Two things must be true before a row may answer: it has happened, and it has been written. Each"
            " has its time in the table, and both can come last."
        ),
        worked="""
def answers_from(stats):
    # A row that happened at noon and was written at two answers from two o'clock; a
    # forecast, written at nine for noon, answers from noon. So the later time counts.
    return stats[["event_timestamp", "created"]].max(axis=1)
""",
    ),
]

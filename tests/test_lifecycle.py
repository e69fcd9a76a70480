"""What leaves the laptop stands on its own: another story, with two text keys and a value from the caller, runs in a folder without the workshop.

And imports run one way: workshop, then helpers, then lifecycle.
"""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import nbformat
import pytest
import requests

from helpers.services import Service
from helpers.workspace import REPOSITORY
from workshop import commands

STORE = """
project: departures
provider: local
registry: registry.db
online_store: {type: sqlite, path: online.db}
offline_store: {type: duckdb}
entity_key_serialization_version: 3
"""
DEFINITIONS = """
from datetime import timedelta
from pathlib import Path

from feast import Entity, FeatureService, FeatureView, Field, FileSource, RequestSource, ValueType
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Float64, Int64, String

origin = Entity(name="origin", join_keys=["origin"], value_type=ValueType.STRING)
carrier = Entity(name="carrier", join_keys=["carrier"], value_type=ValueType.STRING)


def source(name):
    path = str(Path(__file__).parent.parent / "data" / f"{name}.parquet")
    return FileSource(name=name, path=path, timestamp_field="event_timestamp", created_timestamp_column="written")


by_airport = FeatureView(
    name="by_airport", entities=[origin], ttl=timedelta(days=2), source=source("airports"),
    schema=[Field(name="origin", dtype=String), Field(name="wind", dtype=Float64)],
)
by_both = FeatureView(
    name="by_both", entities=[origin, carrier], ttl=timedelta(days=2), source=source("pairs"),
    schema=[Field(name="origin", dtype=String), Field(name="carrier", dtype=String), Field(name="delay", dtype=Float64)],
)
asked = RequestSource(name="asked", schema=[Field(name="hour", dtype=Int64)])


@on_demand_feature_view(
    sources=[by_airport, asked], schema=[Field(name="windy_evening", dtype=Float64)], mode="python"
)
def evening(inputs):
    pairs = zip(inputs["wind"], inputs["hour"], strict=True)
    return {"windy_evening": [None if wind is None or wind != wind else wind * (hour >= 18) for wind, hour in pairs]}


known = FeatureService(name="known", features=[by_both, by_airport, evening])
"""
PROGRAM = """
import json, sys
from datetime import datetime, timedelta, timezone
from pathlib import Path

import great_expectations as gx
import great_expectations.expectations as gxe
import mlflow
import numpy as np
import pandas as pd
from feast import FeatureStore
from feast.infra.offline_stores.file_source import SavedDatasetFileStorage
from feast.repo_operations import parse_repo
from kfp import components, local

from lifecycle import pipeline
from lifecycle.contract import FeatureContract
from lifecycle.model import new_model, split
from lifecycle.retrieval import historical_features
from lifecycle.serving import FeatureModel
from lifecycle.validation import suite_tag

for name in ("helpers", "workshop"):
    try:
        __import__(name)
    except ImportError:
        continue
    raise SystemExit(f"{name} can be imported here, so nothing is proven")

here, end = Path.cwd(), datetime(2031, 5, 1, tzinfo=timezone.utc)
rng, hours = np.random.default_rng(3), pd.date_range(end - timedelta(days=20), end, freq="h", inclusive="left").as_unit("us")
pairs = [(origin, carrier) for origin in ("JFK", "LGA") for carrier in ("AA", "DL", "9E")]
airports = pd.DataFrame([(o, t, rng.gamma(2, 5)) for o in ("JFK", "LGA") for t in hours], columns=["origin", "event_timestamp", "wind"])
both = pd.DataFrame([(o, c, t, rng.normal(10, 5)) for o, c in pairs for t in hours], columns=["origin", "carrier", "event_timestamp", "delay"])
(here / "data").mkdir()
for name, table in (("airports", airports), ("pairs", both)):
    table.assign(written=table.event_timestamp).to_parquet(here / "data" / f"{name}.parquet")
labels = both.sample(1500, random_state=1).sort_values("event_timestamp")
chance = 1 / (1 + np.exp(-(labels.delay - 10) / 3))
labels = labels.assign(hour=labels.event_timestamp.dt.hour, late=(rng.random(len(labels)) < chance).astype(int))
labels = labels[["origin", "carrier", "event_timestamp", "hour", "late"]].reset_index(drop=True)
labels.to_parquet(here / "labels.parquet")

repo = here / "feature_repo"
sys.path.insert(0, str(repo))
found = parse_repo(repo)
store = FeatureStore(repo_path=str(repo))
store.apply([*found.entities, *found.feature_views, *found.on_demand_feature_views, *found.feature_services])
contract = FeatureContract.of_service(store, "known", "late")
table = historical_features(store, labels, store.get_feature_service("known"))

rules = [gxe.ExpectColumnValuesToNotBeNull(column="wind", mostly=0.9), gxe.ExpectColumnValuesToBeInSet(column="late", value_set=[0, 1])]
store.create_saved_dataset(
    from_=store.get_historical_features(labels.head(200), ["by_airport:wind", "by_both:delay"]),
    name="good_weeks", storage=SavedDatasetFileStorage(path=str(here / "good.parquet")),
    tags=suite_tag(gx.ExpectationSuite("departures", expectations=rules)),
)
rows, _ = split(table)
inputs = rows[contract.columns].astype("float64")
by_hand = new_model().fit(inputs, rows.late)
with mlflow.start_run():
    logged = mlflow.sklearn.log_model(by_hand, name="model", metadata={"feast": contract.to_dict()}, input_example=inputs.head(), serialization_format="skops", pip_requirements=["scikit-learn"])
mlflow.register_model(logged.model_uri, "late_departure", tags=contract.tags())

local.init(local.SubprocessRunner(use_venv=False), pipeline_root=str(here / "out"), raise_on_error=True)
with pipeline.local_run(here / "logs" / "pipeline.log"):
    components.load_component_from_file(str(here / "pipeline.yaml"))(
        feature_repo=str(repo), labels=str(here / "labels.parquet"), feature_service="known", label="late", reference="good_weeks",
        experiment="departures", run_name="first", model_name="late_departure", C=1.0, degree=1, weights="equal", threshold=0.5,
    )
version = mlflow.MlflowClient().get_model_version("late_departure", "2")
by_pipeline = mlflow.sklearn.load_model("models:/late_departure/2")
mlflow.MlflowClient().set_registered_model_alias("late_departure", "production", "2")
store.materialize(end - timedelta(days=2), end)
server = FeatureModel("late_departure", repo, "production", now=end.timestamp())
scores, served = server.score([{"origin": "JFK", "carrier": "9E", "hour": 20}])
print(json.dumps({
    "contract": contract.to_dict(), "made_by": version.tags["made_by"], "served": served, "score": scores[0],
    "equal": bool(np.allclose(by_hand.predict_proba(inputs), by_pipeline.predict_proba(inputs))),
    "inputs": server.get_input_types(), "now": end.timestamp(),
}))
"""


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory) -> Path:
    """A folder with lifecycle, a feature repository and the compiled pipeline, in which neither helpers nor workshop can be imported."""
    folder = tmp_path_factory.mktemp("another team's folder")
    shutil.copytree(
        REPOSITORY / "lifecycle", folder / "lifecycle", ignore=shutil.ignore_patterns("__pycache__")
    )
    shutil.copy(REPOSITORY / "cluster" / commands.PIPELINE, folder / "pipeline.yaml")
    for name in ("helpers", "workshop"):  # in front of those of this repository, whatever process starts
        (folder / f"{name}.py").write_text(f"raise ImportError('{name} stays on the laptop')")
    (folder / "feature_repo").mkdir()
    (folder / "feature_repo" / "feature_store.yaml").write_text(STORE)
    (folder / "feature_repo" / "definitions.py").write_text(DEFINITIONS)
    return folder


@pytest.fixture(scope="module")
def environment(elsewhere) -> dict[str, str]:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    tracking = f"sqlite:///{elsewhere / 'mlflow.db'}"
    return {**os.environ, "PYTHONPATH": str(elsewhere), "PATH": path, "MLFLOW_TRACKING_URI": tracking}


@pytest.fixture(scope="module")
def ran(elsewhere, environment) -> dict:
    program = elsewhere / "program.py"
    program.write_text(PROGRAM)
    done = subprocess.run(
        [sys.executable, program], cwd=elsewhere, env=environment, capture_output=True, text=True, timeout=400
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_another_story_is_retrieved_validated_trained_and_registered_without_the_workshop(ran):
    meant = ran["contract"].pop("definitions")
    assert list(meant) == ["by_airport", "by_both", "evening"]
    assert ran["contract"] == {
        "project": "departures",
        "feature_service": "known",
        "feature_refs": ["by_both:delay", "by_airport:wind", "evening:windy_evening"],
        "join_keys": ["origin", "carrier"],
        "request_fields": ["hour"],
        "label": "late",
        "columns": ["delay", "wind", "windy_evening"],
    }
    assert ran["made_by"] == "pipeline" and ran["served"] == "2"
    assert ran["equal"], "the pipeline trained another model than the same calls by hand"


def test_both_protocols_take_several_text_keys_and_a_value_from_the_caller(
    ran, elsewhere, environment, monkeypatch
):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(elsewhere)
    command = [
        sys.executable,
        "-m",
        "lifecycle.serving",
        "--feature-repo",
        "feature_repo",
        "--model",
        "late_departure",
    ]
    command += ["--port", "{port}", "--now", str(ran["now"])]
    health = "/v2/models/late_departure/ready"
    with Service("model server", command, health=health, log=elsewhere / "logs" / "server.log") as server:
        row = {"origin": "JFK", "carrier": "9E", "hour": 20}

        def v1(**changes: object) -> requests.Response:
            body = {"instances": [{**row, **changes}]}
            return requests.post(f"{server.url}/v1/models/late_departure:predict", json=body, timeout=30)

        def v2(**changes: object) -> requests.Response:
            kinds = {"origin": "BYTES", "carrier": "BYTES", "hour": "INT64"}
            tensors = [
                {"name": name, "datatype": kind, "shape": [1], "data": [{**row, **changes}[name]]}
                for name, kind in kinds.items()
            ]
            return requests.post(
                f"{server.url}/v2/models/late_departure/infer", json={"inputs": tensors}, timeout=30
            )

        assert v1().json()["predictions"] == pytest.approx([ran["score"]], abs=1e-12)
        assert v2().json()["outputs"][0]["data"] == v1().json()["predictions"]
        assert v1(hour=3).json()["predictions"] != v1().json()["predictions"], (
            "the caller's value has no effect"
        )
        for ask in (v1, v2):
            assert ask(carrier="ZZ").status_code == 404
            assert (
                "origin=JFK, carrier=ZZ" in ask(carrier="ZZ").text
                and "missing delay" in ask(carrier="ZZ").text
            )
            for wrong in (
                {"carrier": 9},
                {"hour": "late"},
                {"hour": 20.5},
                {"origin": None},
                {"carrier": "x" * 2000},
            ):
                assert ask(**wrong).status_code == 400, wrong
        asked = requests.get(f"{server.url}/v2/models/late_departure", timeout=10).json()["inputs"]
    assert [(one["name"], one["datatype"]) for one in asked] == [
        ("origin", "BYTES"),
        ("carrier", "BYTES"),
        ("hour", "INT64"),
    ]


def modules(place: str) -> dict[str, ast.Module]:
    """The modules of a package, parsed."""
    paths = sorted((REPOSITORY / place).glob("*.py"))
    return {f"{place}.{path.stem}".removesuffix(".__init__"): ast.parse(path.read_text()) for path in paths}


def imported(tree: ast.Module) -> set[str]:
    """What a module imports anywhere, type checking aside: a name as dotted as it is written."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are written in full"
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


@pytest.mark.parametrize(
    "place, never",
    [
        ("lifecycle", {"helpers", "exercises", "workshop", "benchmarks", "tests"}),
        ("helpers", {"exercises", "workshop", "benchmarks", "tests"}),
        ("exercises", {"workshop", "benchmarks", "tests"}),
        ("workshop", {"benchmarks", "tests"}),
        ("feature_repo", {"lifecycle", "helpers", "exercises", "workshop", "benchmarks", "tests"}),
    ],
)
def test_imports_run_one_way(place, never):
    found = {
        name: {word.split(".")[0] for word in imported(tree)} & never for name, tree in modules(place).items()
    }
    assert {name: names for name, names in found.items() if names} == {}


def test_no_import_goes_in_a_circle():
    trees = {
        name: tree
        for place in ("lifecycle", "helpers", "exercises", "workshop")
        for name, tree in modules(place).items()
    }
    graph = {
        name: {word for word in imported(tree) if word in trees and word != name}
        for name, tree in trees.items()
    }
    order = list(TopologicalSorter(graph).static_order())  # raises CycleError
    assert set(order) >= set(graph) and any(graph.values())


def story() -> set[str]:
    """The words of this workshop's story: what its definitions, files and notebooks call things."""
    words = {
        "driver",
        "drivers",
        "ride",
        "conv_rate",
        "acc_rate",
        "trips",
        "rating",
        "tenure",
        "notebook",
        "workshop",
    }
    for path in sorted((REPOSITORY / "feature_repo").glob("*.py")):
        words |= set(re.findall(r'name="(\w+)"', path.read_text()))
    words |= {"driver_conversion", "driver_reference", "feature_selection", "training_pipeline", "2025"}
    return words - {"everything", "rates"}  # English as well


def test_lifecycle_knows_no_word_of_the_story():
    pattern = re.compile(r"(?<![a-z])(" + "|".join(sorted(story())) + r")(?![a-z])", re.I)
    found = {}
    for path in sorted((REPOSITORY / "lifecycle").glob("*.py")):
        hits = {match[0] for match in pattern.finditer(path.read_text())}
        if hits:
            found[path.name] = hits
    assert found == {}


def test_a_process_that_ends_does_not_look_for_garbage():
    # What is registered first runs last.
    code = "import atexit, gc; atexit.register(lambda: print(gc.get_freeze_count() > 1000)); import lifecycle"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"


def test_each_thing_is_written_once():
    text = {path.name: path.read_text() for path in sorted((REPOSITORY / "lifecycle").glob("*.py"))}
    for path in sorted((REPOSITORY / "notebooks").glob("*.ipynb")):
        cells = nbformat.read(path, as_version=4).cells
        text[path.name] = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
    once = {
        "the estimator": r"LogisticRegression\(C=",
        "the cut": r"quantile\(0\.75\)|= 0\.75\b",
        "the image's name": r"ml-lifecycle:\d",
        "taking a reference apart": r"split\([\"']:[\"']\)\[1\]|partition\([\"']:",
    }
    for what, pattern in once.items():
        places = [name for name, source in text.items() if re.search(pattern, source)]
        assert len(places) == 1, f"{what} is written in {places}"

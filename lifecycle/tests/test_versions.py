"""Models that must never serve: those that execute code when read, and those that would answer nonsense.

Each is a real one, and registered.
"""

import io
import json
import os
import pickle
import resource
import sys
import threading
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import mlflow
import numpy as np
import pytest
import skops.io
import yaml
from feast import FeatureStore
from served import eventually, training
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from helpers.data import NOW
from helpers.workspace import configure
from lifecycle.features.contract import FeatureContract
from lifecycle.models import model as lifecycle_model
from lifecycle.models import model_file, sandbox, versions
from lifecycle.models.versions import Version, VersionRefused, load_version, version_by_alias
from lifecycle.serving import scoring as serving
from lifecycle.serving import watching

pytestmark = pytest.mark.unit
NAME = "attacked"


class Payload:
    """What pickle executes when it is read."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.fixture(scope="module")
def rows(served):
    """Training rows and the contract of two features, once for all models of this file."""
    configure(served)
    return training(FeatureStore(repo_path=str(served.feature_repo)), "rates")


@pytest.fixture
def store(served) -> FeatureStore:
    configure(served)
    return FeatureStore(repo_path=str(served.feature_repo))


@pytest.fixture
def fitted(rows, store):
    frame, contract = rows
    return make_pipeline(StandardScaler(), LogisticRegression()).fit(frame[contract.columns], frame.label)


@pytest.fixture
def log(rows, store):
    """Register a model with a good contract and a good example, save for what the caller changes."""
    frame, contract = rows

    def registered(model, name: str = NAME, **changes) -> Version:
        client = mlflow.MlflowClient()
        how = {"pip_requirements": ["scikit-learn"], "serialization_format": "skops"}
        how |= {"metadata": {"feast": contract.to_dict()}, "input_example": frame[contract.columns].head()}
        with mlflow.start_run(experiment_id=client.get_experiment_by_name("tests").experiment_id):
            logged = mlflow.sklearn.log_model(model, name="model", **how | changes)
        number = mlflow.register_model(logged.model_uri, name).version
        client.set_registered_model_alias(name, "production", number)
        return version_by_alias(client, name, "production")

    return registered


def folder_of(version: Version) -> Path:
    """Where MLflow keeps the files of a version."""
    return Path(mlflow.artifacts.download_artifacts(f"models:/{version.model_id}"))


def test_a_good_version_is_read_as_it_was_stored(log, fitted, rows):
    frame, contract = rows
    version = log(fitted)
    model, found = load_version(NAME, version)
    assert found == contract == FeatureContract.from_model(f"models:/{NAME}/{version.number}")
    inputs = frame[contract.columns]
    assert np.array_equal(model.predict_proba(inputs), fitted.predict_proba(inputs))


def test_a_pickle_executes_when_mlflow_reads_it_and_is_refused_here(log, fitted, tmp_path):
    evidence = tmp_path / "executed"
    version = log(fitted, serialization_format="cloudpickle")
    (folder_of(version) / "model.pkl").write_bytes(pickle.dumps(Payload(evidence)))
    mlflow.sklearn.load_model(f"models:/{NAME}/{version.number}")
    assert evidence.exists(), "MLflow does not execute it, so nothing is proven"
    evidence.rmdir()
    with pytest.raises(VersionRefused, match="stored as cloudpickle; only skops is read"):
        load_version(NAME, version)
    assert not evidence.exists()


def test_a_pickle_that_calls_itself_skops_is_refused(log, fitted, tmp_path):
    evidence = tmp_path / "executed"
    version = log(fitted)
    (folder_of(version) / "model.skops").write_bytes(pickle.dumps(Payload(evidence)))
    with pytest.raises(VersionRefused, match="no model file"):
        load_version(NAME, version)
    assert not evidence.exists()


def hostile(path: Path, evidence: Path) -> None:
    """A skops file whose first step calls ``pty.spawn(["touch", evidence], ...)`` to compute a score."""
    last = LogisticRegression().fit([[0.0, 1.0], [1.0, 0.0]], [0, 1])
    skops.io.dump(make_pipeline(FunctionTransformer(func=len), last), path)
    function = {"__class__": "spawn", "__module__": "pty", "__loader__": "FunctionNode"}
    partial = {"__class__": "partial", "__module__": "functools", "__loader__": "PartialNode"}
    arguments = {"args": node((["touch", str(evidence)],)), "kwds": node({}), "namespace": node({})}
    partial["content"] = {"func": function, **arguments}

    def planted(found: dict) -> dict:
        called = lambda node: partial if node.get("__class__") == "len" else node  # noqa: E731
        changed = json.loads(json.dumps(found), object_hook=called)
        assert changed != found, "no place for the payload was found"
        return changed

    rewrite(path, planted)


def test_a_skops_file_that_names_its_own_trusted_types_executes_in_mlflow_and_is_refused_here(
    log, fitted, rows, tmp_path
):
    frame, contract = rows
    evidence = tmp_path / "executed"
    version = log(fitted, skops_trusted_types=["pty.spawn", "functools.partial"])
    hostile(folder_of(version) / "model.skops", evidence)
    loaded = mlflow.sklearn.load_model(f"models:/{NAME}/{version.number}")
    with pytest.raises(Exception):  # noqa: B017  whatever it is that the payload leaves behind
        loaded.predict_proba(frame[contract.columns].head(1))
    assert evidence.exists(), "MLflow does not execute it, so nothing is proven"
    evidence.unlink()
    with pytest.raises(VersionRefused, match=r"nobody vouches for: .*pty\.spawn"):
        load_version(NAME, version)
    assert not evidence.exists()


def files(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def rewrite(path: Path, change) -> None:
    """Change the schema of a skops file."""
    parts = files(path)
    parts["schema.json"] = json.dumps(change(json.loads(parts["schema.json"]))).encode()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in parts.items():
            archive.writestr(name, data)


def node(value: object) -> dict:
    """That of a skops file, without its ids: they are addresses, and could be those of another file."""
    with zipfile.ZipFile(io.BytesIO(skops.io.dumps(value))) as archive:
        text = archive.read("schema.json")
    return json.loads(text, object_hook=lambda part: {k: v for k, v in part.items() if k != "__id__"})


def attribute(schema: dict, name: str, value: dict) -> dict:
    """The pipeline of a schema with one more stored attribute."""
    text = {"__class__": "str", "__module__": "builtins", "__loader__": "TypeNode"}
    schema["content"]["content"][name] = value
    schema["content"]["key_types"]["content"].append(text)
    return schema


def tenfold(schema: dict) -> dict:
    """Ten levels of lists: each holds the next one, and names it nine times more."""
    kind = {"__class__": "list", "__module__": "builtins", "__loader__": "ListNode"}
    inner = {**kind, "content": [], "__id__": 1}
    for level in range(2, 12):
        inner = {**kind, "__id__": level, "content": [inner, *[{**kind, "__id__": level - 1}] * 9]}
    return attribute(schema, "extra", inner)


def mlmodel(**changes: object):
    def changed(folder: Path) -> None:
        stored = yaml.safe_load((folder / "MLmodel").read_text())
        (folder / "MLmodel").write_text(yaml.safe_dump(stored | changes))

    return changed


def text(content: str):
    return lambda folder: (folder / "MLmodel").write_text(content)


def schema(change):
    return lambda folder: rewrite(folder / "model.skops", change)


def example(path: str):
    return mlmodel(saved_input_example_info={"artifact_path": path, "type": "dataframe"})


LAUGHS = "a0: &a0 [x, x]\n" + "".join(f"a{n + 1}: &a{n + 1} [{f'*a{n}, ' * 9}]\n" for n in range(9))
PROBABILITY = {"__class__": "float64", "__module__": "numpy", "__loader__": "TypeNode"}
HOSTILE = {
    "ten times longer a level": ("have one id, .* and differ", schema(tenfold)),
    "aliases in aliases": ("its MLmodel has aliases", text(LAUGHS)),
    "an MLmodel of 1.1 MB": ("its file MLmodel takes more than 1,000,000 bytes", text("x" * 1_100_000)),
    "an MLmodel that crashes its reader": ("not YAML|signal 11", text("[" * 900_000)),
    "metadata of no text": (
        "stored as a value of type list;",
        mlmodel(flavors={"sklearn": {"serialization_format": ["x"] * 10}}),
    ),
    "an example without an end": ("a file that is not in it: ../../", example("../../../../../../dev/zero")),
    "an example elsewhere": ("a file that is not in it: /etc/passwd", example("/etc/passwd")),
    "resources elsewhere": ("a file that is not in it: ../../etc", mlmodel(resources="../../etc/passwd")),
    "a schema that unpacks to 24 MB": (
        "schema.json takes more than 10,000,000 bytes",
        schema(lambda found: attribute(found, "extra", {"content": [0] * 8_000_000})),
    ),
    "a type in the place of a method": (
        "an attribute Pipeline.predict_proba, in the place of the method",
        schema(lambda found: attribute(found, "predict_proba", PROBABILITY)),
    ),
    "a link to a device": (
        "something else than plain files",
        lambda folder: (folder / "more.bin").symlink_to("/dev/zero"),
    ),
}


@pytest.mark.parametrize("attack", HOSTILE)
def test_a_hostile_version_is_refused_in_a_moment_and_little_memory(log, fitted, attack):
    says, plant = HOSTILE[attack]
    version = log(fitted)
    load_version(NAME, version)  # the child has its imports
    plant(folder_of(version))
    began, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(VersionRefused, match=says) as refusal:
        load_version(NAME, version)
    assert time.monotonic() - began < 30 and len(str(refusal.value)) <= 500
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300 * 1024


@pytest.mark.skipif(sys.platform != "linux", reason="macOS enforces no limit of memory")
def test_the_child_has_limits_of_time_memory_and_files(monkeypatch, tmp_path):
    """Whatever reading a file takes: here, what the child executes in the place of reading."""
    monkeypatch.setattr(sandbox, "_child", None)
    monkeypatch.setattr(sandbox, "CPU_SECONDS", 2)
    hook = "sandbox.CPU_SECONDS = 2; sandbox._tried = lambda _, code, types, task: exec(code); sandbox.main()"
    monkeypatch.setattr(sandbox, "_MAIN", hook)
    write = f"import os; os.write(os.open({str(tmp_path / 'large')!r}, os.O_CREAT | os.O_WRONLY), b'x')"
    for code, says in (
        ("while True: pass", "more than 2 s"),
        ("bytearray(2_000_000_000)", "more than 1,000,000,000 bytes of memory"),
        ("import ctypes; ctypes.string_at(0)", "ended with signal 11"),
        (write, "cannot be read: OSError.*File too large"),
    ):
        with pytest.raises(VersionRefused, match=says):
            sandbox.vouch(tmp_path, code, lifecycle_model.TYPES)
    sandbox._end()
    monkeypatch.setattr(sandbox, "_MAIN", "raise SystemExit")
    with pytest.raises(RuntimeError, match="does not stay alive"):
        sandbox.vouch(tmp_path, "", [])


def test_a_type_that_skops_trusts_and_lifecycle_does_not_is_refused(tmp_path):
    model = make_pipeline(FunctionTransformer(np.square), LogisticRegression()).fit([[0.0], [1.0]], [0, 1])
    lifecycle_model.save(model, tmp_path / "model.skops")
    assert skops.io.load(tmp_path / "model.skops", trusted=[])
    with pytest.raises(ValueError, match="nobody vouches for"):
        lifecycle_model.load(tmp_path / "model.skops")


def test_a_model_file_that_would_fill_the_memory_is_not_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(model_file, "MOST_BYTES", 1_000_000)
    # skops reads a part of the file again for each node that names it.
    node = {"__class__": "ndarray", "__module__": "numpy", "__loader__": "NdArrayNode", "file": "part.npy"}
    for size, times, says in ((2_000_000, 1, "at most 1,000,000 are read"), (80_000, 99, "unpacks to more")):
        with zipfile.ZipFile(tmp_path / "large.skops", "w", zipfile.ZIP_DEFLATED) as file:
            file.writestr("part.npy", bytes(size))
            file.writestr("schema.json", json.dumps([node] * times))
        assert (tmp_path / "large.skops").stat().st_size < 100_000
        with pytest.raises(ValueError, match=says):
            lifecycle_model.load(tmp_path / "large.skops")


def test_a_version_that_would_fill_the_disk_or_brings_code_is_not_copied(log, fitted, monkeypatch):
    version = log(fitted)
    (folder_of(version) / "large.bin").write_bytes(b"0" * 1_000_000)
    monkeypatch.setattr(versions, "MOST_BYTES", 500_000)
    with pytest.raises(VersionRefused, match="its files take more than 500,000 bytes"):
        load_version(NAME, version)
    monkeypatch.undo()
    (folder_of(version) / "code").mkdir()
    (folder_of(version) / "code" / "evil.py").write_text("raise SystemExit")
    with pytest.raises(VersionRefused, match="it holds folders"):
        load_version(NAME, version)


def test_only_the_views_of_the_contract_become_functions(served, store, rows, tmp_path):
    """Feast makes a function of each on-demand view of a project; a server needs those of its contract."""
    contract = rows[1]
    own = watching.pinned(store, tmp_path, contract.definitions)
    assert [view.name for view in own.list_all_feature_views()] == ["driver_hourly_stats"]
    assert len(store.list_on_demand_feature_views()) == 2
    contract.check(own)
    # tests/upstream/test_feast.py shows what Feast does to two registries with one.
    assert own.registry.proto().version_id != store.registry.proto().version_id
    (tmp_path / "other").mkdir()
    other = watching.pinned(store, tmp_path / "other", ["driver_hourly_stats", "driver_ratios"])
    [ratios] = other.registry.proto().on_demand_feature_views
    function = ratios.spec.feature_transformation.user_defined_function
    assert function.body == b"" and "conv_log_odds" in function.body_text
    question = ["driver_ratios:conv_log_odds"], [{"driver_id": 1001}]
    assert other.get_online_features(*question).to_dict() == store.get_online_features(*question).to_dict()


def test_a_registry_that_is_just_being_written_is_not_taken_for_a_changed_one(served, store, rows):
    path = served.path / "registry.db"
    content = path.read_bytes()
    path.write_bytes(b"")
    try:
        store.refresh_registry()
        with pytest.raises(RuntimeError, match="empty, or just being written"):
            rows[1].check_definitions(store)
    finally:
        path.write_bytes(content)


def nan_scores(model, frame, contract):
    model[-1].coef_ = np.full_like(model[-1].coef_, np.nan)
    return model, {}


def three_classes(model, frame, contract):
    return model.fit(frame[contract.columns], np.arange(len(frame)) % 3), {}


def one_column(model, frame, contract):
    return model.fit(frame[contract.columns[:1]], frame.label), {}


NONSENSE = {
    "its scores on its own input example are not two probabilities": nan_scores,
    "tells 3 outcomes apart": three_classes,
    "it was trained on": one_column,
    "no rows to try it on": lambda model, frame, contract: (model, {"input_example": None}),
    "without a feature contract": lambda model, frame, contract: (model, {"metadata": {}}),
}


@pytest.mark.parametrize("says", NONSENSE)
def test_a_version_that_would_answer_nonsense_is_refused(log, fitted, rows, says):
    model, changes = NONSENSE[says](fitted, *rows)
    with pytest.raises(VersionRefused, match=says):
        load_version(NAME, log(model, **changes))


def test_a_version_is_not_taken_for_another_one_of_the_same_number(log, fitted):
    version = log(fitted)
    with pytest.raises(VersionRefused, match="the registry names the model m-0, and stores m-"):
        load_version(NAME, replace(version, model_id="m-0"))


@pytest.fixture
def follower(served, log, fitted, request):
    """A server's model in this process, of a registered model of its own; it looks twenty times a second."""
    log(fitted, name=request.node.name)
    made = serving.FeatureModel(
        request.node.name, served.feature_repo, "production", now=NOW.timestamp(), watch=0.05
    )
    yield made
    made.stop()
    mlflow.MlflowClient().delete_registered_model(request.node.name)


def threads_that_follow() -> int:
    return sum(thread.name.endswith("(_follow)") and thread.is_alive() for thread in threading.enumerate())


def test_a_refused_version_never_replaces_what_serves_and_the_status_says_why(
    follower, log, fitted, rows, capsys
):
    frame, contract = rows
    good = follower.loaded.version
    bad = log(three_classes(fitted, frame, contract)[0], name=follower.name)
    eventually(lambda: follower.status()["refused"], "nothing was refused")
    said = follower.status()
    assert said["serves"] == {"version": good.number, "model_id": good.model_id}
    assert said["wanted"] == {"version": bad.number, "model_id": bad.model_id}
    assert said["refused"].startswith(f"version {bad.number} must not serve: it tells 3 outcomes apart")
    assert said["ready"] and said["follows"] and follower.score([{"driver_id": 1001}])[1] == good.number
    time.sleep(0.5)
    assert capsys.readouterr().out.count("tells 3 outcomes apart") == 1, "once is enough"
    mlflow.MlflowClient().set_registered_model_alias(follower.name, "production", good.number)
    eventually(lambda: not follower.status()["refused"], "the refusal stays although the alias is back")


def test_a_refused_version_is_read_again_only_when_it_changes(follower, log, fitted, monkeypatch):
    reads: list[str] = []

    def counted(name: str, version: Version, **given: object):
        reads.append(version.number)
        return load_version(name, version, **given)

    monkeypatch.setattr(watching, "load_version", counted)
    bad = log(fitted, name=follower.name)
    kept = (folder_of(bad) / "model.skops").read_bytes()
    (folder_of(bad) / "model.skops").write_bytes(kept[:-100])
    eventually(lambda: follower.status()["refused"], "nothing was refused")
    time.sleep(2)  # the first look may have begun before the file was cut
    read_before, looked = len(reads), follower.status()["last_look"]
    eventually(lambda: follower.status()["last_look"] > looked + 3, "it looks no more")
    assert len(reads) == read_before, "the same files were read again"
    (folder_of(bad) / "model.skops").write_bytes(kept)
    eventually(lambda: follower.loaded.version == bad, "it does not see that the files are whole again")


def test_a_number_that_comes_to_mean_another_model_is_noticed(follower, log, rows):
    frame, contract = rows
    before = follower.loaded.version
    mlflow.MlflowClient().delete_registered_model(follower.name)
    other = make_pipeline(StandardScaler(), LogisticRegression(C=1e-3))
    other.fit(frame[contract.columns], frame.label)
    again = log(other, name=follower.name)
    assert again.number == before.number and again.model_id != before.model_id
    eventually(lambda: follower.loaded.version == again, "the server still serves the deleted model")


def test_whatever_loading_raises_the_server_goes_on_following(follower, log, fitted, monkeypatch):
    running, before = threads_that_follow(), follower.loaded.version

    def failing(*_):
        raise SystemExit(3)

    monkeypatch.setattr(watching, "load_version", failing)
    wanted = log(fitted, name=follower.name)
    eventually(lambda: follower.status()["refused"], "nothing was refused")
    assert follower.loaded.version == before and threads_that_follow() == running
    monkeypatch.setattr(watching, "load_version", load_version)
    eventually(lambda: follower.loaded.version == wanted, "the server has stopped following")

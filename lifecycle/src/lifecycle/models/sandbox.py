"""A version's files are read and tried in a child process, before the process that wants them reads them.

Whoever writes a model's files decides what parsing them takes. The child has limits of memory, CPU and
files, and executes nothing that the files bring along. What it vouches for, its caller loads itself, from the
same bytes.

The child starts with the imports that it needs and answers each question in a fork of its own: a question
takes some hundredths of a second once the first was answered. Without a question for ``IDLE`` seconds it
ends. macOS enforces no limit of memory; there the sizes that ``lifecycle.models.model_file`` checks, and the
limits of time, have to do.
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import json
import os
import resource
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from lifecycle.features.contract import METADATA, FeatureContract
from lifecycle.models.model_file import load

if TYPE_CHECKING:
    import yaml

CPU_SECONDS = 20
"""Of the child's processor, for one version."""
SECONDS = 180.0
"""For an answer, imports included. A busy machine, not a hostile file, takes so long."""
MEMORY = 1_000_000_000
"""Bytes of data that a question may take, 200 MB of imports included."""
IDLE = 60.0
MOST_METADATA_BYTES = 1_000_000
"""Of ``MLmodel``, and of the input example."""


class VersionRefused(ValueError):
    """A version that must not serve; the message says which and why."""


def vouch(folder: Path, model_id: str, types: Collection[str], task: str = "binary") -> dict[str, Any]:
    """What the child says about the files of a version.

    Args:
        folder: with the files; nobody else may write to it.
        model_id: that the registry names.
        types: full names of the types that the model may hold.
        task: ``binary`` or ``regression``.

    Returns:
        ``file``, the name of the model's file; ``sha256``, of its bytes; ``contract``, as stored.

    Raises:
        VersionRefused: it must not serve; or reading it takes more than the limits.
        TimeoutError: no answer within ``SECONDS``.
        RuntimeError: the child does not work; the message says why.
    """
    with _lock:
        for _ in range(2):  # it may end, for nobody asked, at the moment of the question
            if text := _ask(json.dumps([str(folder), model_id, sorted(types), task]).encode() + b"\n"):
                break
        else:
            raise RuntimeError("the process that tries versions does not stay alive")
    said, ended, _ = text.split(b"\n")
    if not said:
        why = f"more than {CPU_SECONDS} s" if int(ended) == signal.SIGXCPU else "more than it may"
        raise VersionRefused(f"reading it takes {why}: the process that tried ended with signal {int(ended)}")
    answer = json.loads(said)
    if "failed" in answer:
        raise RuntimeError(f"a version could not be tried: {answer['failed']}")
    if "refused" in answer:
        raise VersionRefused(answer["refused"])
    return answer


_MAIN = "sandbox.main()"
_FORKS = sys.platform != "darwin"  # there, what numpy calls does not survive a fork: a child answers once
_lock = threading.Lock()
_child: subprocess.Popen | None = None


def _ask(question: bytes) -> bytes:
    """Two lines: an answer, empty if there is none; and the signal that ended its process. Or nothing."""
    global _child
    if _child is None or _child.poll() is not None:
        _child = _started()
    child, deadline, text = _child, time.monotonic() + SECONDS, b""
    assert child.stdin and child.stdout, "both are pipes"
    try:
        child.stdin.write(question)
        child.stdin.flush()
    except BrokenPipeError:
        _end()
        return b""
    while text.count(b"\n") < 2:
        ready, _, _ = select.select([child.stdout], [], [], max(deadline - time.monotonic(), 0))
        if not ready:
            _end()
            raise TimeoutError(f"no answer within {SECONDS:.0f} s")
        if not (part := os.read(child.stdout.fileno(), 1 << 16)):
            number = -child.wait()
            _end()
            return text + b"\n%d\n" % number if text or (number > 0 and not _FORKS) else b""
        text += part
    return text


def _started() -> subprocess.Popen:
    # The same modules as here, wherever they come from.
    code = f"import sys; sys.path[:] = {sys.path!r}; from lifecycle.models import sandbox; {_MAIN}"
    one_thread = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL")}
    return subprocess.Popen(
        [sys.executable, "-P", "-B", "-W", "ignore", "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **one_thread},
        start_new_session=True,  # ended as a whole
    )


@atexit.register
def _end() -> None:
    global _child
    child, _child = _child, None
    if child is None:
        return
    if child.poll() is None:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
    for pipe in (child.stdin, child.stdout):
        if pipe:
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


# In the child.


def main() -> None:
    """Answer questions, a line each, until nobody has asked for ``IDLE`` seconds."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.nice(5)  # who scores comes first
    try:
        import sklearn.utils

        # skops lists all estimators to trust them, which imports all of scikit-learn, and PyTorch where it is
        # installed: seconds, for a list that is not used here.
        sklearn.utils.all_estimators = lambda *_, **__: []
        import skops.io  # noqa: F401
    except BaseException as error:
        failed = {"failed": f"{type(error).__name__}: {error}"[:500]}
        _write(answers, json.dumps(failed).encode() + b"\n0\n")
        return
    while select.select([0], [], [], IDLE)[0] and (question := _line()):
        if _FORKS and (process := os.fork()):
            _, status = os.waitpid(process, 0)
            _write(answers, b"\n%d\n" % (status & 0x7F))
            continue
        try:
            _limit()
            _write(answers, json.dumps(_answer(*json.loads(question))).encode())
        finally:
            os._exit(0)


def _line() -> bytes:
    line = b""
    while not line.endswith(b"\n") and (part := os.read(0, 1 << 16)):
        line += part
    return line


def _write(answers: BinaryIO, said: bytes) -> None:
    answers.write(said)
    answers.flush()


def _limit() -> None:
    for what, most in (
        (resource.RLIMIT_CPU, CPU_SECONDS),
        (resource.RLIMIT_DATA, MEMORY),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        hard = resource.getrlimit(what)[1]
        resource.setrlimit(what, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def _answer(folder: str, model_id: str, types: list[str], task: str) -> dict[str, Any]:
    try:
        return _tried(Path(folder), model_id, types, task)
    except VersionRefused as error:
        said = str(error)
    except MemoryError:
        said = f"reading it takes more than {MEMORY:,} bytes of memory"
    except Exception as error:
        said = f"it cannot be read: {type(error).__name__}: {error}"
    return {"refused": said[:500]}


def _tried(folder: Path, model_id: str, types: list[str], task: str) -> dict[str, Any]:
    stored = _metadata(folder)
    if stored.get("model_id") != model_id:
        raise VersionRefused(
            f"the registry names the model {model_id}, and stores {_short(stored.get('model_id'))}"
        )
    flavor = _table(_table(stored.get("flavors")).get("sklearn"))
    form = flavor.get("serialization_format", "none that MLflow names")
    if form != "skops":
        raise VersionRefused(
            f"it is stored as {_short(form)}; only skops is read, because reading it executes nothing"
        )
    file = _inside(folder, flavor.get("pickled_model"))
    if isinstance(stored.get("resources"), str):  # the name of a file, which MLflow opens
        _inside(folder, stored["resources"])
    metadata = _table(stored.get("metadata"))
    if METADATA not in metadata:
        raise VersionRefused(f"it was stored without a feature contract: its metadata has no {METADATA!r}")
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
        try:
            model, contract = load(opened, types), FeatureContract.from_dict(metadata[METADATA])
        except ValueError as error:
            raise VersionRefused(str(error)) from error
    _try(model, contract, *_example(folder, stored), task)
    return {"file": file.name, "sha256": digest, "contract": metadata[METADATA]}


def _short(value: Any) -> str:
    """For a message: text whose length nobody vouches for, or what is there in its place."""
    return value[:80] if isinstance(value, str) else f"a value of type {type(value).__name__}"


def _table(value: Any) -> dict:
    return value if isinstance(value, dict) else {}


def _inside(folder: Path, name: Any) -> Path:
    """The file of this name in a version's folder."""
    if not isinstance(name, str) or name != Path(name).name or not (path := folder / name).is_file():
        raise VersionRefused(f"its metadata names a file that is not in it: {_short(name)}")
    if path.is_symlink():
        raise VersionRefused(f"its file {_short(name)} is a link to another")
    return path


def _small(path: Path) -> bytes:
    with path.open("rb") as file:
        content = file.read(MOST_METADATA_BYTES + 1)
    if len(content) > MOST_METADATA_BYTES:
        raise VersionRefused(f"its file {path.name} takes more than {MOST_METADATA_BYTES:,} bytes")
    return content


def _metadata(folder: Path) -> dict:
    """What ``MLmodel`` says. MLflow's own way of reading it opens files that it names, wherever they are."""
    import yaml

    loader: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    content = _small(_inside(folder, "MLmodel"))
    try:
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(content, loader)):
            raise VersionRefused("its MLmodel has aliases: a few lines can stand for gigabytes")
        return _table(yaml.load(content, loader))
    except yaml.YAMLError as error:
        raise VersionRefused(f"its MLmodel is not YAML: {type(error).__name__}") from error


def _example(folder: Path, stored: dict) -> tuple[list, Any]:
    """The columns and the rows of the input example, as MLflow stores a table."""
    import numpy as np

    described = _table(stored.get("saved_input_example_info"))
    if described.get("type") != "dataframe":
        raise VersionRefused(
            "it carries no rows to try it on: log it with input_example=, a table of a few rows"
        )
    path = _inside(folder, described.get("artifact_path"))
    try:
        table = json.loads(_small(path))
        columns, rows = table["columns"], np.array(table["data"], dtype="float64")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise VersionRefused(f"its input example cannot be read: {type(error).__name__}") from error
    if not len(rows):
        raise VersionRefused("its input example has no rows to try it on")
    return columns, rows


def _try(model: Any, contract: FeatureContract, columns: list, rows: Any, task: str) -> None:
    """Ask a model about its stored rows, as the server will ask it."""
    import numpy as np

    if columns != contract.columns:
        raise VersionRefused(f"its input example has the columns {columns}, its contract {contract.columns}")
    trained = list(getattr(model, "feature_names_in_", []))
    if trained != contract.columns:
        raise VersionRefused(f"it was trained on {trained}, its contract says {contract.columns}")
    outcomes = [*getattr(model, "classes_", [])]
    if task == "binary" and outcomes != [0, 1]:
        raise VersionRefused(f"it tells {len(outcomes)} outcomes apart; the two outcomes 0 and 1 are served")
    if task == "regression" and outcomes:
        raise VersionRefused(f"it tells {len(outcomes)} outcomes apart; a number is served")
    try:
        # As an array: a table a request costs more than the model. Names were compared above.
        scores = model.predict_proba(rows) if task == "binary" else np.asarray(model.predict(rows))
    except Exception as error:
        raise VersionRefused(f"it fails on its own input example: {type(error).__name__}: {error}") from error
    if task == "regression":
        if scores.shape != (len(rows),) or not np.isfinite(scores).all():
            raise VersionRefused("its predictions on its own input example are not one finite number a row")
        return
    probable = np.isfinite(scores).all() and scores.min() >= 0 and scores.max() <= 1
    if scores.shape != (len(rows), 2) or not probable:
        raise VersionRefused(
            "its scores on its own input example are not two probabilities a row, finite and between 0 and 1"
        )

"""The exercises of notebook 11."""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from exercises.core import Exercise, NotYet, attempt
from helpers.workspace import current


@contextlib.contextmanager
def _runner() -> Iterator[tuple[Path, Any]]:
    """A folder that is gone afterwards, and a local runner of Flyte with its files in it."""
    import flyte

    from helpers.orchestrators import keep_files_in

    # A task of an answer may still be writing there.
    with tempfile.TemporaryDirectory(prefix="exercise-", ignore_cleanup_errors=True) as name:
        runner = flyte.with_runcontext(mode="local", raw_data_path=str(Path(name) / "flyte"))
        keep_files_in(current().path, runner)
        yield Path(name), runner


def _is_task(answer: Any, names: list[str]) -> None:
    from flyte import TaskEnvironment  # noqa: F401  the extra is there, or `begin` would have refused
    from flyte.extend import AsyncFunctionTaskTemplate

    if not isinstance(answer, AsyncFunctionTaskTemplate):
        what = "a plain function" if callable(answer) else f"of type {type(answer).__name__}"
        raise NotYet(f"your answer is {what}, not a task. The decorator `@training.task` makes it one.")
    parameters = list(answer.native_interface.inputs)
    if parameters != names:
        raise NotYet(
            f"the task's parameters are {', '.join(parameters) or 'none'}; they should be"
            f" {' and '.join(names)}."
        )


def _notices_a_change(labels_of: Any) -> str:
    import flyte
    from flyte.io import File

    if not callable(labels_of):
        raise NotYet(
            f"your answer has the type {type(labels_of).__name__}; it should be a function that takes a path."
        )
    executed: list[str] = []
    with _runner() as (folder, runner):
        environment = flyte.TaskEnvironment(name="exercise")
        cache = flyte.Cache(behavior="auto", salt=folder.name)

        @environment.task(cache=cache)
        async def read_rows(labels: File) -> int:
            text = Path(await labels.download()).read_text()
            executed.append(text)
            return text.count("\n")

        def runs_for(path: Path) -> bool:
            """Whether the task runs for the file that the answer makes of a path."""
            with attempt("your function fails"):
                labels = labels_of(str(path))  # a string, as `retrieve` and `File` take it
            if not isinstance(labels, File):
                raise NotYet(f"your function returned a {type(labels).__name__}; the task takes a `File`.")
            before = len(executed)
            with attempt("the task can't read the `File` that your function returned"):
                runner.run(read_rows, labels=labels)
            return len(executed) > before

        labels = folder / "labels.csv"
        labels.write_text("driver,label\n1001,0\n")
        runs_for(labels)
        same = runs_for(labels)
        (folder / "copies").mkdir()
        copied = runs_for(Path(shutil.copy(labels, folder / "copies")))
        labels.write_text("driver,label\n1001,1\n")  # as long as before
        changed = runs_for(labels)
    if not changed:
        raise NotYet(
            "one label in the file changed, and the task was answered from the cache. Which part of the file"
            " decides your key? Its path, name, and size haven't changed."
        )
    if same:
        raise NotYet("the task ran again for the same file. Equal content must give an equal key.")
    if copied:
        raise NotYet(
            "the task ran again for a copy of the file, whose content is equal. Does your key contain a path"
            " or a time?"
        )
    return (
        "The task ran again only for new content: not for the same file or its copy, but for one changed"
        " label."
    )


def _fans_out(longest: Any) -> str:
    import numpy as np

    _is_task(longest, ["lengths", "notes"])
    for lengths in ([0.5, 0.3, 0.4, 0.35], [0.4, 0.5]):
        with _runner() as (folder, runner):
            notes = folder / "notes.txt"
            with attempt("the workflow fails"):
                result = runner.run(longest, lengths=lengths, notes=str(notes)).outputs().o0
            spans = np.loadtxt(notes, ndmin=2) if notes.exists() else np.empty((0, 2))
        if len(spans) != len(lengths):
            raise NotYet(
                f"for {len(lengths)} numbers the notes list {len(spans)} pauses; start one per number."
            )
        waited = sorted(round(float(end - begin), 1) for begin, end, *_ in spans)
        if np.abs(np.array(waited) - sorted(lengths)).max() > 0.15:
            raise NotYet(f"for the numbers {sorted(lengths)}, the pauses took {waited} seconds.")
        if spans[:, 0].max() >= spans[:, 1].min():
            raise NotYet(
                "the pauses ran one after the other, because each `await` waits until its task has ended."
                " Start them all, and await them together."
            )
        if result != max(lengths):
            raise NotYet(
                f"for the numbers {lengths}, the workflow returned {result}; the largest is {max(lengths)}."
            )
    return "Four pauses ran at the same time, then two: the workflow took its shape from its input."


def _gives_up(careful: Any) -> str:
    from flyte.errors import RuntimeUserError

    _is_task(careful, ["kind", "attempts"])
    with _runner() as (folder, runner):
        hiccup, broken = folder / "hiccup.txt", folder / "broken.txt"
        try:
            answer = runner.run(careful, kind="hiccup", attempts=str(hiccup)).outputs().o0
        except RuntimeUserError as error:
            gave_up = hiccup.read_text().count("\n") if hiccup.exists() else 0
            raise NotYet(
                f"after a hiccup the task ended on attempt {gave_up} with a {error.code} ({error}); the third"
                " attempt would have passed."
            ) from None
        count = hiccup.read_text().count("\n") if hiccup.exists() else 0
        if (answer, count) != (7, 3):
            raise NotYet(
                f"after a hiccup the task returned {answer} in {count} attempts; the warehouse returns 7 on"
                " the third."
            )
        message = ""
        with attempt("a broken table ended the task with an error that isn't Flyte's"):
            try:
                answer = runner.run(careful, kind="broken", attempts=str(broken)).outputs().o0
            except RuntimeUserError as error:
                message = str(error)
            else:
                raise NotYet(
                    f"for a broken table the task returned {answer}, as if nothing had happened. It should"
                    " fail."
                )
        count = broken.read_text().count("\n") if broken.exists() else 0
    if not count:
        raise NotYet(
            "the broken table was never queried: your task looks at `kind` and fails. The error should come"
            " from the warehouse."
        )
    if count != 1:
        raise NotYet(f"the broken table was queried {count} times; retrying doesn't repair it.")
    if "no column conv_rate" not in message:
        raise NotYet(
            f"the task failed at once, with the message {message!r}. To repair the table, you need the"
            " warehouse's own message."
        )
    return "Three attempts for a hiccup, one for a broken table, and the error carries the reason."


EXERCISES = [
    Exercise(
        number="11.1",
        title="Notice a changed file",
        judge=_notices_a_change,
        more=(
            "The key can be any string that depends on the bytes of the file and on nothing else."
            " `Path(path).read_bytes()` returns the bytes; `sha256` is imported above."
        ),
        worked="""
def labels_of(path):
    key = sha256(Path(path).read_bytes()).hexdigest()
    return File.from_existing_remote(str(path), file_cache_key=key)

# Another name or time leaves the key as it is; one changed byte changes it.
# Making the key reads the whole file. For a large table, use its version number instead.
""",
    ),
    Exercise(
        number="11.2",
        title="Fan out",
        judge=_fans_out,
        more=(
            "`two_pauses` above passes two awaitables to `asyncio.gather`. Calling a task without `await`"
            " returns an awaitable; `*` before a list passes its items as arguments."
        ),
        worked="""
@training.task
async def longest(lengths: list[float], notes: str) -> float:
    pauses = [pause(seconds, notes) for seconds in lengths]
    return max(await asyncio.gather(*pauses))

# Calling a task starts nothing yet. gather starts all of them, and returns their results in order.
""",
    ),
    Exercise(
        number="11.3",
        title="Give up at once",
        judge=_gives_up,
        more=(
            "Keep `retries=2` for the hiccup. Inside, catch only the `ValueError`, and raise"
            " `flyte.errors.NonRecoverableError` with the same message."
        ),
        worked="""
@training.task(retries=2)
async def careful(kind: str, attempts: str) -> int:
    try:
        return warehouse(kind, attempts)
    except ValueError as error:
        raise flyte.errors.NonRecoverableError(str(error)) from error

# Only the error that a retry can't fix is caught; Flyte still retries every other one.
""",
    ),
]

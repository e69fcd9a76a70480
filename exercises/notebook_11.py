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
    """A folder that is gone afterwards, and Flyte's runner with its files in it."""
    from helpers.orchestrators import local_flyte

    # A task of an answer may still be writing there.
    with tempfile.TemporaryDirectory(prefix="exercise-", ignore_cleanup_errors=True) as name:
        yield Path(name), local_flyte(current().path, Path(name) / "flyte")


def _is_task(answer: Any, names: list[str]) -> None:
    from flyte import TaskEnvironment  # noqa: F401  the extra is there, or `begin` would have refused
    from flyte.extend import AsyncFunctionTaskTemplate

    if not isinstance(answer, AsyncFunctionTaskTemplate):
        what = "a plain function" if callable(answer) else f"of the type {type(answer).__name__}"
        raise NotYet(f"that is {what}, and no task: the line with `@training.task` makes it one.")
    given = list(answer.native_interface.inputs)
    if given != names:
        raise NotYet(f"the task takes {', '.join(given) or 'nothing'}; it should take {' and '.join(names)}.")


def _notices_a_change(labels_of: Any) -> str:
    import flyte
    from flyte.io import File

    if not callable(labels_of):
        raise NotYet(f"that is of the type {type(labels_of).__name__}; the answer is a function of a path.")
    executed: list[str] = []
    with _runner() as (folder, runner):
        environment = flyte.TaskEnvironment(name="exercise")
        kept = flyte.Cache(behavior="auto", salt=folder.name)

        @environment.task(cache=kept)
        async def read_rows(labels: File) -> int:
            text = Path(await labels.download()).read_text()
            executed.append(text)
            return text.count("\n")

        def again(path: Path) -> bool:
            """Whether the task runs for the file that the answer makes of a path."""
            with attempt("your function fails"):
                labels = labels_of(str(path))  # as `retrieve` is given it, and as `File` takes it
            if not isinstance(labels, File):
                raise NotYet(f"the function gave a {type(labels).__name__}, and the task takes a `File`.")
            before = len(executed)
            with attempt("the task cannot read the file that your function gave"):
                runner.run(read_rows, labels=labels)
            return len(executed) > before

        labels = folder / "labels.csv"
        labels.write_text("driver,label\n1001,0\n")
        again(labels)
        same = again(labels)
        (folder / "copies").mkdir()
        copied = again(Path(shutil.copy(labels, folder / "copies")))
        labels.write_text("driver,label\n1001,1\n")  # as long as before
        changed = again(labels)
    if not changed:
        raise NotYet(
            "one label in the file changed, and the task was answered from the cache. What does your key go"
            " by? Path, name and size are as before."
        )
    if same:
        raise NotYet(
            "the same file ran the task again. The key has to be the same text whenever the content is."
        )
    if copied:
        raise NotYet(
            "a copy of the file ran the task again, though its content is equal: your key holds where or"
            " when, too."
        )
    return (
        "The task ran for new content alone: not for the same file, not for its copy, and at once for one"
        " changed label."
    )


def _fans_out(longest: Any) -> str:
    import numpy as np

    _is_task(longest, ["lengths", "notes"])
    for lengths in ([0.5, 0.3, 0.4, 0.35], [0.4, 0.5]):
        with _runner() as (folder, runner):
            notes = folder / "notes.txt"
            with attempt("the workflow fails"):
                found = runner.run(longest, lengths=lengths, notes=str(notes)).outputs().o0
            spans = np.loadtxt(notes, ndmin=2) if notes.exists() else np.empty((0, 2))
        if len(spans) != len(lengths):
            raise NotYet(
                f"for {len(lengths)} numbers the notes hold {len(spans)} pauses; there should be one for"
                " each."
            )
        waited = sorted(round(float(end - begin), 1) for begin, end in spans)
        if np.abs(np.array(waited) - sorted(lengths)).max() > 0.15:
            raise NotYet(f"for the numbers {sorted(lengths)} the pauses took {waited} seconds.")
        if spans[:, 0].max() >= spans[:, 1].min():
            raise NotYet(
                "the pauses ran one after the other: `await` waits for what stands behind it. Start them all,"
                " and await them together."
            )
        if found != max(lengths):
            raise NotYet(
                f"for the numbers {lengths} the workflow gave {found}; the largest is {max(lengths)}."
            )
    return (
        "Four pauses ran at the same moment, then two: the workflow took its shape from its input, when it"
        " ran."
    )


def _gives_up(careful: Any) -> str:
    from flyte.errors import RuntimeUserError

    _is_task(careful, ["kind", "tries"])
    with _runner() as (folder, runner):
        hiccup, broken = folder / "hiccup.txt", folder / "broken.txt"
        try:
            answer = runner.run(careful, kind="hiccup", tries=str(hiccup)).outputs().o0
        except RuntimeUserError as error:
            gave_up = hiccup.read_text().count("\n") if hiccup.exists() else 0
            raise NotYet(
                f"after a hiccup the task ended on attempt {gave_up}, with a {error.code} ({error}); the"
                " third try would have passed."
            ) from None
        tries = hiccup.read_text().count("\n") if hiccup.exists() else 0
        if (answer, tries) != (7, 3):
            raise NotYet(
                f"after a hiccup the task gave {answer} in {tries} attempts; the warehouse answers 7 on the"
                " third."
            )
        said = ""
        with attempt("a broken table ended the task with an error that is not Flyte's"):
            try:
                found = runner.run(careful, kind="broken", tries=str(broken)).outputs().o0
            except RuntimeUserError as error:
                said = str(error)
            else:
                raise NotYet(
                    f"a broken table gave {found}, as if nothing had happened. It should end the task."
                )
        attempts = broken.read_text().count("\n") if broken.exists() else 0
    if not attempts:
        raise NotYet(
            "a broken table was never asked: your task ends by what stands in `kind`. The error is to come"
            " from the warehouse."
        )
    if attempts != 1:
        raise NotYet(f"a broken table was asked {attempts} times; it will not mend itself in between.")
    if "no column conv_rate" not in said:
        raise NotYet(
            f"the task ended at once, and said {said!r}. Whoever mends the table needs the warehouse's own"
            " words."
        )
    return "Three attempts for a hiccup, one for a broken table, and the reason is in the error."


EXERCISES = [
    Exercise(
        number="11.1",
        title="Notice a changed file",
        judge=_notices_a_change,
        more=(
            "The key may be any text that is made from the bytes of the file, and from nothing else."
            " `Path(path).read_bytes()` has the bytes; `sha256` is imported above."
        ),
        worked="""
def labels_of(path):
    key = sha256(Path(path).read_bytes()).hexdigest()
    return File.from_existing_remote(str(path), file_cache_key=key)

# The key is the content's: another name or time changes nothing, one changed byte everything.
# Reading a large file for its key costs as much as reading it; a version of the table does it too.
""",
    ),
    Exercise(
        number="11.2",
        title="Fan out",
        judge=_fans_out,
        more=(
            "`three_pauses` above gives three awaitables to `asyncio.gather`. Calling a task without `await`"
            " gives one; a list of them goes into a call as `*them`."
        ),
        worked="""
@training.task
async def longest(lengths: list[float], notes: str) -> float:
    pauses = [pause(seconds, notes) for seconds in lengths]
    return max(await asyncio.gather(*pauses))

# Calling a task starts nothing yet; gather starts them all, and gives their results in order.
""",
    ),
    Exercise(
        number="11.3",
        title="Give up at once",
        judge=_gives_up,
        more=(
            "Keep `retries=2` for the hiccup. Inside, catch the `ValueError` alone, and raise"
            " `flyte.errors.NonRecoverableError` in its place, with the same words."
        ),
        worked="""
@training.task(retries=2)
async def careful(kind: str, tries: str) -> int:
    try:
        return warehouse(kind, tries)
    except ValueError as error:
        raise flyte.errors.NonRecoverableError(str(error)) from error

# Only what is known to stay broken is caught; all else is still tried again.
""",
    ),
]

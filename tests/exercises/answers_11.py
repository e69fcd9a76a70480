from faults import Answers

ANSWERS = {
    "11.1": Answers(
        right=[
            """
def labels_of(path):
    with open(path, "rb") as file:
        return File.from_existing_remote(path, file_cache_key=sha256(file.read()).hexdigest())
""",
            """
def labels_of(path):
    rows = Path(path).read_text()
    return File.from_existing_remote(str(path), file_cache_key=str(len(rows)) + rows)
""",
            """
import hashlib

def labels_of(path):
    with open(path, "rb") as file:
        return File(path=str(path), hash=hashlib.file_digest(file, "md5").hexdigest())
""",
        ],
        wrong={
            "answered from the cache": (
                "def labels_of(path):\n    return File.from_existing_remote(str(path))"
            ),
            "Path, name and size are as before": """
def labels_of(path):
    return File.from_existing_remote(str(path), file_cache_key=str(Path(path).stat().st_size))
""",
            "the same file ran the task again": """
def labels_of(path):
    return File.from_existing_remote(str(path), file_cache_key=str(time.time_ns()))
""",
            "a copy of the file ran the task again": """
def labels_of(path):
    return File.from_existing_remote(str(path), file_cache_key=f'{path} {Path(path).read_text()}')
""",
            "the function gave a str": (
                "def labels_of(path):\n    return sha256(Path(path).read_bytes()).hexdigest()"
            ),
            "your function fails: TypeError": (
                "def labels_of(path):\n    return File.from_existing_remote(key=path)"
            ),
            "that is of the type File": "labels_of = File.from_existing_remote(str(labels_file))",
        },
    ),
    "11.2": Answers(
        right=[
            """
@training.task
async def longest(lengths: list[float], notes: str) -> float:
    tasks = []
    for seconds in lengths:
        tasks.append(asyncio.ensure_future(pause(seconds, notes)))
    waited = [await task for task in tasks]
    return max(waited)
""",
        ],
        wrong={
            "one after the other": """
@training.task
async def longest(lengths: list[float], notes: str) -> float:
    return max([await pause(seconds, notes) for seconds in lengths])
""",
            "for 4 numbers the notes hold 2 pauses": """
@training.task
async def longest(lengths: list[float], notes: str) -> float:
    first, second = lengths[:2]
    return max(await asyncio.gather(pause(first, notes), pause(second, notes)))
""",
            "the largest is 0.5": """
@training.task
async def longest(lengths: list[float], notes: str) -> float:
    return sum(await asyncio.gather(*[pause(seconds, notes) for seconds in lengths]))
""",
            "the notes hold 0 pauses": """
@training.task
async def longest(lengths: list[float], notes: str) -> float:
    return max(lengths)
""",
            "that is a plain function, and no task": """
async def longest(lengths: list[float], notes: str) -> float:
    return max(await asyncio.gather(*[pause(seconds, notes) for seconds in lengths]))
""",
            "it should take lengths and notes": """
@training.task
async def longest(notes: str, seconds: float) -> float:
    return await pause(seconds, notes)
""",
            "the workflow fails: RuntimeUserError": """
@training.task
async def longest(lengths: list[float], notes: str) -> float:
    return max(asyncio.gather(*[pause(seconds, notes) for seconds in lengths]))
""",
        },
    ),
    "11.3": Answers(
        right=[
            """
@training.task(retries=flyte.RetryStrategy(count=2))
async def careful(kind: str, tries: str) -> int:
    try:
        return warehouse(kind, tries)
    except ConnectionError:
        raise
    except Exception as error:
        raise flyte.errors.NonRecoverableError(f"not tried again: {error}")
""",
        ],
        wrong={
            "a broken table was asked 3 times": """
@training.task(retries=2)
async def careful(kind: str, tries: str) -> int:
    return warehouse(kind, tries)
""",
            "on attempt 1, with a ConnectionError": """
@training.task
async def careful(kind: str, tries: str) -> int:
    return warehouse(kind, tries)
""",
            "on attempt 1, with a NonRecoverableError": """
@training.task(retries=2)
async def careful(kind: str, tries: str) -> int:
    try:
        return warehouse(kind, tries)
    except Exception as error:
        raise flyte.errors.NonRecoverableError(str(error))
""",
            "a broken table gave 0": """
@training.task(retries=2)
async def careful(kind: str, tries: str) -> int:
    try:
        return warehouse(kind, tries)
    except ValueError:
        return 0
""",
            "needs the warehouse's own words": """
@training.task(retries=2)
async def careful(kind: str, tries: str) -> int:
    try:
        return warehouse(kind, tries)
    except ValueError:
        raise flyte.errors.NonRecoverableError("broken")
""",
            "a broken table was never asked": """
@training.task(retries=2)
async def careful(kind: str, tries: str) -> int:
    if kind == "broken":
        raise flyte.errors.NonRecoverableError("the table has no column conv_rate")
    return warehouse(kind, tries)
""",
            "that is a plain function": "def careful(kind, tries):\n    return warehouse(kind, tries)",
        },
    ),
}

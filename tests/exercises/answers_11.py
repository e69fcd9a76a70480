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
            "Its path, name, and size haven't changed": """
def labels_of(path):
    return File.from_existing_remote(str(path), file_cache_key=str(Path(path).stat().st_size))
""",
            "the task ran again for the same file": """
def labels_of(path):
    return File.from_existing_remote(str(path), file_cache_key=str(time.time_ns()))
""",
            "the task ran again for a copy of the file": """
def labels_of(path):
    return File.from_existing_remote(str(path), file_cache_key=f'{path} {Path(path).read_text()}')
""",
            "your function returned a str": (
                "def labels_of(path):\n    return sha256(Path(path).read_bytes()).hexdigest()"
            ),
            "your function fails: TypeError": (
                "def labels_of(path):\n    return File.from_existing_remote(key=path)"
            ),
            "your answer has the type File": "labels_of = File.from_existing_remote(str(labels_file))",
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
            "for 4 numbers the notes list 2 pauses": """
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
            "the notes list 0 pauses": """
@training.task
async def longest(lengths: list[float], notes: str) -> float:
    return max(lengths)
""",
            "your answer is a plain function, not a task": """
async def longest(lengths: list[float], notes: str) -> float:
    return max(await asyncio.gather(*[pause(seconds, notes) for seconds in lengths]))
""",
            "they should be lengths and notes": """
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
async def careful(kind: str, attempts: str) -> int:
    try:
        return warehouse(kind, attempts)
    except ConnectionError:
        raise
    except Exception as error:
        raise flyte.errors.NonRecoverableError(f"not retried: {error}")
""",
        ],
        wrong={
            "the broken table was queried 3 times": """
@training.task(retries=2)
async def careful(kind: str, attempts: str) -> int:
    return warehouse(kind, attempts)
""",
            "on attempt 1 with a ConnectionError": """
@training.task
async def careful(kind: str, attempts: str) -> int:
    return warehouse(kind, attempts)
""",
            "on attempt 1 with a NonRecoverableError": """
@training.task(retries=2)
async def careful(kind: str, attempts: str) -> int:
    try:
        return warehouse(kind, attempts)
    except Exception as error:
        raise flyte.errors.NonRecoverableError(str(error))
""",
            "for a broken table the task returned 0": """
@training.task(retries=2)
async def careful(kind: str, attempts: str) -> int:
    try:
        return warehouse(kind, attempts)
    except ValueError:
        return 0
""",
            "you need the warehouse's own message": """
@training.task(retries=2)
async def careful(kind: str, attempts: str) -> int:
    try:
        return warehouse(kind, attempts)
    except ValueError:
        raise flyte.errors.NonRecoverableError("broken")
""",
            "the broken table was never queried": """
@training.task(retries=2)
async def careful(kind: str, attempts: str) -> int:
    if kind == "broken":
        raise flyte.errors.NonRecoverableError("the table has no column conv_rate")
    return warehouse(kind, attempts)
""",
            "your answer is a plain function": """
def careful(kind, attempts):
    return warehouse(kind, attempts)
""",
        },
    ),
}

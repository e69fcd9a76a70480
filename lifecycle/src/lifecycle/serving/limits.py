"""What the model server refuses before it looks at a request, and what its log may hold.

Each limit protects the other callers.
"""

from __future__ import annotations

import asyncio
import json
import logging
import resource
import sqlite3
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

from fastapi import HTTPException
from kserve.errors import InvalidInput
from prometheus_client import Counter
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from lifecycle.settings import Serving

MOST_BYTES = Serving().most_bytes
"""Of a request's body. A thousand rows with a long key each fit."""
MOST_WAITING = Serving().most_waiting
"""Requests that wait for a thread. One more is asked to come back: it would wait too long."""
THREADS = 4
"""That score at a time, each waiting for an online store on another machine."""
SECONDS = 10.0
"""For a request's headers to arrive, again for its body, and for an answer to be read; and between two
requests of a connection."""
PATIENCE = 5.0
"""Seconds that a request may wait for a thread: as long as SQLite waits for a lock."""
MOST_CONNECTIONS = 1000
REFUSED = Counter(
    "lifecycle_refused_requests", "Requests without an answer, by the first reason of each.", ["reason"]
)
LOOPBACK = Serving().hosts
"""Names by which a caller on the same machine may call the server."""


class Limits:
    """ASGI middleware: whose request it is, a body's size, the time it takes to arrive.

    The body is read here, whole and within its limits, before anything parses it. Starlette's
    ``TrustedHostMiddleware`` stands before it.

    Args:
        app: what answers the requests that pass.
        most_bytes: of a body.
    """

    def __init__(self, app: Callable, most_bytes: int = MOST_BYTES) -> None:
        self.app, self.most_bytes = app, most_bytes

    async def __call__(self, scope: dict, receive: Callable, send: Callable) -> None:
        """Pass a request on, or refuse it with 400, 403, 408 or 413."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        headers = dict(scope["headers"])
        if sum(name == b"host" for name, _ in scope["headers"]) > 1:
            return await _refuse(send, 400, "host", "a request has one Host")
        if scope["method"] in ("GET", "HEAD"):
            return await self.app(scope, receive, send)
        # A browser names the page that sends a request, and sends some without asking the server first.
        origin = headers.get(b"origin")
        if origin is not None and origin.partition(b"://")[2].lower() != headers.get(b"host", b"").lower():
            return await _refuse(send, 403, "origin", "this server answers no page of another host")
        length = headers.get(b"content-length", b"0")
        # Python refuses to read a number of more than 4,300 digits.
        if not length.isdigit() or len(length) > 20 or int(length) > self.most_bytes:
            return await _refuse(
                send, 413, "too large", f"a body has at most {self.most_bytes:,} bytes; split the request"
            )
        body = bytearray()
        try:
            async with asyncio.timeout(SECONDS):
                more = True
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return None
                    body += message.get("body", b"")
                    more = message.get("more_body", False)
                    if len(body) > self.most_bytes:
                        said = f"a body has at most {self.most_bytes:,} bytes; split the request"
                        return await _refuse(send, 413, "too large", said)
        except TimeoutError:
            return await _refuse(send, 408, "slow", f"the body did not arrive within {SECONDS:.0f} s")
        whole: list[dict] = [{"type": "http.request", "body": bytes(body), "more_body": False}]

        async def again() -> dict:
            return whole.pop() if whole else await receive()

        await self.app(scope, again, send)


async def _refuse(send: Callable, status: int, reason: str, said: str) -> None:
    REFUSED.labels(reason).inc()
    body = json.dumps({"error": said}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    headers.append((b"connection", b"close"))  # what is left of the body is not wanted
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class Pool:
    """A few threads and a bounded queue before them, so that the event loop stays free for metrics.

    They are the standard library's: anyio's take one more turn of the event loop, 0.1 ms of a request.

    Args:
        threads: that work at a time.
        most_waiting: requests in the queue.
    """

    def __init__(self, threads: int, most_waiting: int = MOST_WAITING) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="score")
        self._open, self._most = 0, threads + most_waiting

    async def run(self, task: Callable, *arguments: Any) -> Any:
        """What ``task`` returns, or refuses with ``HTTPException`` or ``InvalidInput``, from a thread.

        Raises:
            HTTPException: 503 with ``Retry-After`` when the queue is full, or the online store was locked for
                too long or does not answer.
            RuntimeError: whatever else ``task`` raised, as text.
        """
        if self._open >= self._most:
            raise _later("busy", f"{self._open} requests are waiting already")
        self._open += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(
                self._threads, _run, time.monotonic(), task, arguments
            )
        finally:
            self._open -= 1


def _run(began: float, task: Callable, arguments: tuple) -> Any:
    """In the thread: ``task``, unless it waited too long.

    An error of the store ends here. It holds a cursor, and to let go of that means to wait for whoever works
    on the same connection: in the event loop, the whole server would wait.
    """
    if time.monotonic() - began > PATIENCE:
        raise _later("busy", "the requests before this one take too long")
    try:
        return task(*arguments)
    except (HTTPException, InvalidInput):
        raise
    except Exception as error:
        passing = _passing(error)
        said = "".join(traceback.format_exception(error))
        traceback.clear_frames(error.__traceback__)
    # Not above: an error that is raised there would bring the other one along.
    raise _later(*passing) if passing else RuntimeError(said)


def _passing(error: Exception) -> tuple[str, str] | None:
    """The reason and the words of an error that goes away by itself; None of any other.

    What a client says of a server that is away names addresses, which are for the log.
    """
    if isinstance(error, sqlite3.OperationalError) and "locked" in str(error):
        return "locked", "the online store is locked"
    away = {"ConnectionError", "TimeoutError", "OperationalError", "PoolTimeout"}
    client = type(error).__module__.partition(".")[0] in ("redis", "psycopg", "psycopg_pool")
    if isinstance(error, ConnectionError | TimeoutError) or (
        client and away & {kind.__name__ for kind in type(error).__mro__}
    ):
        logging.getLogger("kserve").error("the online store does not answer: %s", error)
        return "store away", "the online store does not answer"
    return None


def _later(reason: str, said: str) -> HTTPException:
    REFUSED.labels(reason).inc()
    return HTTPException(503, said, {"Retry-After": "1"})


def connections() -> tuple[int, int]:
    """How many there may be at a time, and how many may come at once, by the descriptors of the process.

    Those that come at once are taken before any of them is looked at: asyncio takes as many in each turn of
    its loop, makes their connections two turns later, and frees the descriptor of an aborted one a turn after
    that.
    """
    descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if descriptors == resource.RLIM_INFINITY:
        descriptors = 4 * MOST_CONNECTIONS
    backlog = min(512, descriptors // 10)
    return min(MOST_CONNECTIONS, descriptors - 5 * backlog), backlog


class Impatient(HttpToolsProtocol):
    """uvicorn's HTTP with limits.

    Alone, it waits for ever for a request's headers and for whoever reads no answer, and takes connections
    until no descriptor is left.

    A connection waits while no answer of it is being made, and while an answer is not read. It may wait for
    ``SECONDS``. When there are too many connections, the one that has waited longest makes room.
    """

    _waits: ClassVar[dict[Impatient, asyncio.TimerHandle]] = {}

    def connection_made(self, transport: Any) -> None:
        """Make room when there are too many connections."""
        super().connection_made(transport)
        if len(self.connections) > connections()[0]:
            REFUSED.labels("connections").inc()
            next(iter(self._waits), self)._give_up()
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Start a deadline again: bytes outside a request cancel uvicorn's own for an idle connection."""
        super().data_received(data)
        if self.cycle is None or self.cycle.response_complete:
            self._wait()

    def on_message_begin(self) -> None:
        """A request's first byte."""
        super().on_message_begin()
        self._wait()

    def on_headers_complete(self) -> None:
        """From here on, ``Limits`` enforces a deadline; still, this connection can make room."""
        self._waited()
        super().on_headers_complete()
        self._wait(2 * SECONDS)

    def on_message_complete(self) -> None:
        """The body is here."""
        super().on_message_complete()
        self._waited()

    def on_response_complete(self) -> None:
        """The next request has its time; so has a closing connection, to take the rest of the answer."""
        super().on_response_complete()
        if self.cycle.response_complete:
            self._wait()

    def pause_writing(self) -> None:
        """The caller does not read."""
        super().pause_writing()
        self._wait()

    def resume_writing(self) -> None:
        """The caller reads."""
        super().resume_writing()
        if not (self.cycle is None or self.cycle.response_complete):
            self._waited()

    def connection_lost(self, exc: Exception | None) -> None:
        """The caller is gone."""
        self._waited()
        super().connection_lost(exc)

    def _wait(self, seconds: float = SECONDS) -> None:
        if self not in self._waits:
            self._waits[self] = self.loop.call_later(seconds, self._give_up)

    def _waited(self) -> None:
        if timer := self._waits.pop(self, None):
            timer.cancel()

    def _give_up(self) -> None:
        self._waited()
        self.transport.abort()


def one_line(text: str, most: int = 2000) -> str:
    """``text`` as one line of a log: control characters are escaped, and a long middle is left out."""
    if len(text) > most:
        # A traceback says what it is about at its end.
        text = f"{text[: most // 4]} [...] {text[-3 * most // 4 :]}"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class OneLine(logging.Formatter):
    """A record is one line, whatever was in a request."""

    def format(self, record: logging.LogRecord) -> str:
        """The time, the level, and what was said."""
        return one_line(super().format(record))


class Seldom(logging.Filter):
    """At most ``most`` records a minute, of all handlers that share it.

    What a caller can cause may not fill a disk.
    """

    def __init__(self, most: int = 60) -> None:
        super().__init__()
        self._most, self._minute, self._count = most, 0, 0

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether there is room for the record; the last one that has room says that more are left out."""
        minute = int(time.monotonic() // 60)
        if minute != self._minute:
            self._minute, self._count = minute, 0
        self._count += 1
        if self._count == self._most:
            record.msg, record.args = (
                f"{record.getMessage()} (further records of this minute are left out)",
                (),
            )
        return self._count <= self._most

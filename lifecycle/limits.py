"""What the model server refuses before it looks at a request, and what its log may hold.

Each limit protects the other callers.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import resource
import time
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from fastapi import HTTPException
from prometheus_client import Counter
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MOST_BYTES = 1_000_000
"""Of a request's body. A thousand rows with a long key each fit."""
MOST_WAITING = 128
"""Requests that wait for a thread. One more is asked to come back: it would wait too long."""
THREADS = 4
"""That score at a time, each waiting for an online store on another machine."""
SECONDS = 10.0
"""For a request's headers to arrive, and again for its body."""
REFUSED = Counter(
    "lifecycle_refused_requests", "Requests without an answer, by the first reason of each.", ["reason"]
)
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
"""Names by which a caller on the same machine may call the server."""


class Limits:
    """ASGI middleware: the host by which the server is called, a body's size, the time it takes to arrive.

    The body is read here, whole and within its limits, before anything parses it.

    Args:
        app: what answers the requests that pass.
        hosts: names without a port by which the server may be called; ``*`` for any. A page in a browser can
            make other names point at this machine.
    """

    def __init__(self, app: Callable, hosts: Collection[str]) -> None:
        self.app, self.hosts = app, {host.lower() for host in hosts}

    async def __call__(self, scope: dict, receive: Callable, send: Callable) -> None:
        """Pass a request on, or refuse it with 400, 408 or 413."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        headers = dict(scope["headers"])
        if "*" not in self.hosts and _host(headers) not in self.hosts:
            return await _refuse(send, 400, "host", "this server is not called by that host name")
        if scope["method"] in ("GET", "HEAD"):
            return await self.app(scope, receive, send)
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or int(length) > MOST_BYTES:
            return await _refuse(
                send, 413, "too large", f"a body has at most {MOST_BYTES:,} bytes; split the request"
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
                    if len(body) > MOST_BYTES:
                        said = f"a body has at most {MOST_BYTES:,} bytes; split the request"
                        return await _refuse(send, 413, "too large", said)
        except TimeoutError:
            return await _refuse(send, 408, "slow", f"the body did not arrive within {SECONDS:.0f} s")
        whole: list[dict] = [{"type": "http.request", "body": bytes(body), "more_body": False}]

        async def again() -> dict:
            return whole.pop() if whole else await receive()

        await self.app(scope, again, send)


def _host(headers: dict[bytes, bytes]) -> str:
    return re.sub(r":\d+$", "", headers.get(b"host", b"").decode("latin-1").lower())


async def _refuse(send: Callable, status: int, reason: str, said: str) -> None:
    REFUSED.labels(reason).inc()
    body = json.dumps({"error": said}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    headers.append((b"connection", b"close"))  # what is left of the body is not wanted
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class Pool:
    """A few threads and a bounded queue before them, so that the event loop stays free for metrics.

    Args:
        threads: that work at a time.
    """

    def __init__(self, threads: int) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="score")
        self._open, self._most = 0, threads + MOST_WAITING

    async def run(self, task: Callable, *arguments: Any) -> Any:
        """What ``task`` returns or raises, from one of the threads.

        Raises:
            HTTPException: 503 with ``Retry-After`` when the queue is full.
        """
        if self._open >= self._most:
            REFUSED.labels("busy").inc()
            raise HTTPException(503, f"{self._open} requests are waiting already", {"Retry-After": "1"})
        self._open += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, partial(task, *arguments))
        finally:
            self._open -= 1


class Impatient(HttpToolsProtocol):
    """uvicorn's HTTP with limits.

    Alone, it waits for ever for a request's headers, and takes connections until no descriptor is left.
    """

    _patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Close the connection at once when there are too many."""
        super().connection_made(transport)
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        if most != resource.RLIM_INFINITY and len(self.connections) > max(most - 100, most // 2):
            transport.abort()
        else:
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
        """From here on, ``Limits`` enforces a deadline."""
        self._waited()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """The caller is gone."""
        self._waited()
        super().connection_lost(exc)

    def _wait(self) -> None:
        if self._patience is None:
            self._patience = self.loop.call_later(SECONDS, self.transport.abort)

    def _waited(self) -> None:
        if self._patience:
            self._patience.cancel()
            self._patience = None


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
    """At most ``most`` records a minute. What a caller can cause may not fill a disk."""

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

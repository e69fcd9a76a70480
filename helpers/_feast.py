"""Feast's command line, whose HTTP servers answer only callers on this machine, by its names.

``feast ui`` and ``feast serve`` look at neither the Host nor the Origin of a request, and take writes. A page
in a browser can point a name of its own at this machine, or send requests to a port of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import feast.feature_server
import feast.ui_server
from feast.cli.cli import cli
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import PlainTextResponse

_NAMES = ["127.0.0.1", "localhost", "[::1]"]


class _OwnPages:
    """ASGI middleware: what a page of another host sends gets 403."""

    def __init__(self, app: Callable) -> None:
        self.app = app

    async def __call__(self, scope: dict, receive: Callable, send: Callable) -> None:
        headers = dict(scope.get("headers", []))
        host, app = headers.get(b"host", b"").decode("latin-1"), self.app
        origin = headers.get(b"origin", b"").decode("latin-1")
        if origin and urlsplit(origin).netloc != host:
            app = PlainTextResponse("this server answers no page of another host", 403)
        await app(scope, receive, send)


def _checked(get_app: Callable) -> Callable:
    def checked(*arguments: Any, **options: Any) -> Any:
        app = get_app(*arguments, **options)
        app.add_middleware(_OwnPages)
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=_NAMES, www_redirect=False)
        return app

    return checked


if __name__ == "__main__":
    feast.ui_server.get_app = _checked(feast.ui_server.get_app)
    feast.feature_server.get_app = _checked(feast.feature_server.get_app)
    cli(prog_name="feast")

"""The page that `make ui` begins with: links into the tools' own pages, and what to look at there."""

from __future__ import annotations

import contextlib
import html
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

from helpers.services import HOST

LOOK_AT = {
    "runs of ": "One row per run. Open a row for its parameters, metrics, tags, and model.",
    "its candidates": "The feature sets that notebook 04 compared. Add the metric auc with Columns.",
    "their metrics": "One bar per candidate: compare auc with the number of features.",
    "versions of ": "Each registered version with its aliases. The server loads the one named production.",
    "experiments": "No notebook has recorded a run yet.",
    "lineage": "Follow a feature from its file through a view to the feature services that use it.",
    "feature views": "Each view with its features, its source, and its time to live.",
    "feature services": "Each service with the features that one model reads.",
}
NOTES = {
    "MLflow": "Close its assistant by the cross: it stays closed. Where the menu shows GenAI, choose "
    "Model training.",
    "Feast": "The definitions that notebook 01 applied.",
}
_STYLE = """<style>
:root { color-scheme: light dark }
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 46rem; padding: 0 1rem }
dt { margin-top: .75rem; font-weight: 600 } dd { margin: 0 }
</style>"""


def page(whose: str, urls: Mapping[str, str], shown: Mapping[str, Mapping[str, str]]) -> str:
    """Return the page.

    Args:
        whose: state it is that the tools show.
        urls: of each tool's server.
        shown: the addresses of a tool's pages, by what they show.
    """
    parts = []
    for tool, links in shown.items():
        parts.append(f'<h2><a href="{html.escape(urls[tool])}">{tool}</a></h2><p>{NOTES[tool]}<dl>')
        for what, address in links.items():
            look = next((text for start, text in LOOK_AT.items() if what.startswith(start)), "")
            parts.append(f'<dt><a href="{html.escape(address)}">{html.escape(what)}</a><dd>{look}')
        parts.append("</dl>")
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>What your runs made</title>{_STYLE}<h1>What your runs made</h1>"
        f"<p>These pages show {html.escape(whose)}.{''.join(parts)}</html>\n"
    )


@contextlib.contextmanager
def served(text: str, port: int) -> Iterator[str]:
    """Serve one page on loopback until the block ends; gives its address.

    Args:
        text: the page.
        port: to listen on; 0 for a free one.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            own = {f"{name}:{self.server.server_address[1]}" for name in (HOST, "localhost")}
            known = self.headers.get("Host") in own
            self.send_response(200 if known else 403)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.end_headers()
            if known:
                self.wfile.write(text.encode())

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    server = ThreadingHTTPServer((HOST, port), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://{HOST}:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()

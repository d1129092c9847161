"""Serves a folder of pages to the browser of this computer, and opens pages in it.

The server listens on 127.0.0.1 alone and answers requests that name it so: a page from elsewhere
cannot read the atlas under a name of its own that it lets point here. It hands out the files of the
folder, to be read only: no listings, nothing outside, no links out of it.
"""

from __future__ import annotations

import os
import webbrowser
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import IO

from summit_graph.errors import UsageError

HOST = "127.0.0.1"

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

_HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}

_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".webp": "image/webp",
    "": "application/octet-stream",
}


class _Handler(SimpleHTTPRequestHandler):
    """Answers GET and HEAD with files of one folder."""

    protocol_version = "HTTP/1.1"
    extensions_map = _TYPES
    server: ThreadingHTTPServer

    def send_head(self) -> IO[bytes] | None:  # type: ignore[override]
        port = self.server.server_address[1]
        if self.headers.get("Host") not in (f"{HOST}:{port}", f"localhost:{port}"):
            self.send_error(HTTPStatus.MISDIRECTED_REQUEST)
            return None
        root = Path(self.directory)
        if not Path(self.translate_path(self.path)).resolve().is_relative_to(root):
            self.send_error(HTTPStatus.NOT_FOUND)
            return None
        return super().send_head()

    def list_directory(self, path: str | os.PathLike[str]) -> None:
        self.send_error(HTTPStatus.NOT_FOUND)

    def end_headers(self) -> None:
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, *_: object) -> None:
        """Requests are nobody's business."""


def page_server(folder: str | Path, port: int = 0) -> ThreadingHTTPServer:
    """A server of the pages in a folder, listening; `serve_forever` answers, `server_close` ends.

    port: 0 for a free one. Raises: UsageError if there are no pages, or the port cannot be had.
    """
    root = Path(folder).resolve()
    if not (root / "index.html").is_file():
        raise UsageError(f"there are no pages in {root}: it has no index.html.")
    try:
        server = ThreadingHTTPServer((HOST, port), partial(_Handler, directory=os.fspath(root)))
    except (OSError, OverflowError) as error:
        raise UsageError(
            f"port {port} of {HOST} cannot be had: {error}. Choose another, or 0 for a free one."
        ) from error
    server.daemon_threads = True
    return server


def address(server: ThreadingHTTPServer) -> str:
    """Where a browser finds the pages of a server."""
    return f"http://{HOST}:{server.server_address[1]}/"


def serve(
    folder: str | Path,
    *,
    port: int = 0,
    open_browser: bool = False,
    state: str = "",
    tell: Callable[[str], None] = print,
) -> None:
    """Serves the pages in a folder until Ctrl-C.

    port: 0 for a free one. open_browser: open them, too. state: what the page shows at first, like
    `class=3`. tell: told the address.
    Raises: UsageError if there are no pages, the port cannot be had, or there is no browser.
    """
    with page_server(folder, port) as server:
        url = _with_state(address(server), state)
        tell(url)
        try:
            if open_browser:
                _open(url)
            server.serve_forever(poll_interval=0.1)
        except KeyboardInterrupt:
            return


def open_page(path: str | Path, state: str = "") -> None:
    """Opens a page as a file in the browser.

    state: what it shows at first, like `class=3`. Raises: UsageError if there is no browser.
    """
    _open(_with_state(Path(path).resolve().as_uri(), state))


def _with_state(url: str, state: str) -> str:
    return f"{url}#{state}" if state else url


def _open(url: str) -> None:
    if not webbrowser.open(url):
        raise UsageError(f"there is no browser to open here: open {url} in one yourself.")

"""The server hands out the files of one folder, to this computer alone."""

from __future__ import annotations

import http.client
import signal
import socket
import subprocess
import sys
import threading
import webbrowser
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest

from summit_graph.errors import UsageError
from summit_graph.view import serving


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of pages, and beside it what is nobody's."""
    pages = tmp_path / "pages"
    (pages / "data").mkdir(parents=True)
    (pages / "index.html").write_text("<p>page</p>")
    (pages / "data" / "overview.js").write_text("summitData()")
    (pages / "a.webp").write_bytes(b"RIFF")
    (tmp_path / "secret.txt").write_text("secret")
    (pages / "link").symlink_to("../secret.txt")
    (pages / "up").symlink_to("..")
    return pages


@pytest.fixture
def server(folder: Path) -> Iterator[ThreadingHTTPServer]:
    with serving.page_server(folder) as made:
        thread = threading.Thread(target=made.serve_forever, args=(0.02,))
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def ask(
    server: ThreadingHTTPServer, path: str, method: str = "GET", host: str | None = None
) -> tuple[int, bytes, http.client.HTTPMessage]:
    port = server.server_address[1]
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.putrequest(method, path, skip_host=True)
    connection.putheader("Host", host or f"127.0.0.1:{port}")
    connection.endheaders()
    answer = connection.getresponse()
    found = answer.status, answer.read(), answer.headers
    connection.close()
    return found


def test_files_come_with_their_types_and_headers(server: ThreadingHTTPServer) -> None:
    for path, kind in (
        ("/", "text/html; charset=utf-8"),
        ("/index.html#class=3", "text/html; charset=utf-8"),
        ("/data/overview.js", "text/javascript; charset=utf-8"),
        ("/a.webp", "image/webp"),
    ):
        status, content, headers = ask(server, path.partition("#")[0])
        assert status == 200
        assert content
        assert headers["Content-Type"] == kind
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer"
    assert ask(server, "/", "HEAD")[:2] == (200, b"")


@pytest.mark.parametrize(
    "path",
    ["/data/", "/data", "/../secret.txt", "/%2e%2e/secret.txt", "/..%2fsecret.txt", "/link",
     "/up/secret.txt", "/up/", "//secret.txt", "/none", "/data/..%5c..%5csecret.txt"],
)  # fmt: skip
def test_nothing_else_comes(server: ThreadingHTTPServer, path: str) -> None:
    status, content, _ = ask(server, path)
    if status == 301:
        status, content, _ = ask(server, path + "/")
    assert status == 404
    assert b"secret\n" not in content
    assert b"overview.js" not in content


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_nothing_can_be_sent(server: ThreadingHTTPServer, method: str) -> None:
    assert ask(server, "/", method)[0] == 501


def test_another_name_for_this_computer_is_refused(server: ThreadingHTTPServer) -> None:
    port = server.server_address[1]
    assert ask(server, "/", host=f"attacker.example:{port}")[0] == 421
    assert ask(server, "/", host=f"localhost:{port}")[0] == 200


def test_it_listens_to_this_computer_alone(server: ThreadingHTTPServer) -> None:
    assert server.server_address[0] == "127.0.0.1"
    assert server.socket.family == socket.AF_INET


def test_what_cannot_be_served_is_said(folder: Path, server: ThreadingHTTPServer) -> None:
    with pytest.raises(UsageError, match="no pages"):
        serving.page_server(folder / "data")
    with pytest.raises(UsageError, match="cannot be had"):
        serving.page_server(folder, server.server_address[1])
    with pytest.raises(UsageError, match="cannot be had"):
        serving.page_server(folder, 70_000)


def test_ctrl_c_ends_it_cleanly(folder: Path) -> None:
    code = f"from summit_graph.view.serving import serve; serve({str(folder)!r})"
    with subprocess.Popen(
        [sys.executable, "-u", "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # A shell starts what it sends to the background with SIGINT ignored, and that is inherited.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        try:
            assert process.stdout is not None
            said = process.stdout.readline().decode()
            port = int(said.strip().removeprefix("http://127.0.0.1:").removesuffix("/"))
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            connection.request("GET", "/")
            assert connection.getresponse().status == 200
            process.send_signal(signal.SIGINT)
            out, error = process.communicate(timeout=10)
        finally:
            process.kill()  # or a failure would wait for it without end
    assert (process.returncode, out, error) == (0, b"", b"")


def test_a_page_is_opened_as_a_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    controller = webbrowser.GenericBrowser("true")
    monkeypatch.setattr(controller, "open", lambda url, *_: opened.append(url) or True)
    monkeypatch.setattr(webbrowser, "_tryorder", ["mine"])
    monkeypatch.setattr(webbrowser, "_browsers", {"mine": [None, controller]})
    serving.open_page(folder / "index.html")
    serving.open_page(folder / "index.html", "class=3")
    page = (folder / "index.html").as_uri()
    assert opened == [page, f"{page}#class=3"]
    monkeypatch.setattr(webbrowser, "_tryorder", [])
    with pytest.raises(UsageError, match="no browser"):
        serving.open_page(folder / "index.html")

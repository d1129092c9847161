"""A TCP proxy that breaks connections: after so many bytes, or around a commit.

It breaks a connection as a pulled cable and a reset do: both sides are closed at once, and what was
on its way is lost. New connections go through.
"""

from __future__ import annotations

import selectors
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from urllib.parse import urlsplit

from summit_graph.graphdb.connection import Connection

COMMIT = b"\x00\x02\xb0\x12\x00\x00"
"""The message that asks for a commit, as Bolt sends it."""

_PIECE = 65_536


@dataclass
class Cuts:
    """When to break. What it counts goes on over all connections.

    after_bytes: from the client, each break once. before_commits, after_commits: numbers of commits
    (from 1), broken before the server sees them, or once it has answered and before the client
    sees that.
    """

    after_bytes: list[int] = field(default_factory=list)
    before_commits: frozenset[int] = frozenset()
    after_commits: frozenset[int] = frozenset()
    sent: int = 0
    commits: int = 0
    made: int = 0


@contextmanager
def dropping(connection: Connection, cuts: Cuts) -> Iterator[Connection]:
    """A connection to the same database, through the proxy."""
    address = urlsplit(connection.uri)
    server = (address.hostname, address.port or 7687)
    stopped = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.1)

        def accept() -> None:
            while not stopped.is_set():
                with suppress(TimeoutError):
                    client, _ = listener.accept()
                    threading.Thread(
                        target=_serve, args=(client, server, cuts), daemon=True
                    ).start()

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield replace(connection, uri=f"bolt://127.0.0.1:{listener.getsockname()[1]}")
        finally:
            stopped.set()
            thread.join()


def _serve(client: socket.socket, address: tuple[str | None, int], cuts: Cuts) -> None:
    with client, suppress(OSError), socket.create_connection(address) as server:
        for side in (client, server):
            side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        selector = selectors.DefaultSelector()
        selector.register(client, selectors.EVENT_READ, (server, _Watch(cuts)))
        selector.register(server, selectors.EVENT_READ, (client, None))
        while True:
            for key, _ in selector.select():
                other, watch = key.data
                piece = key.fileobj.recv(_PIECE)  # type: ignore[union-attr]
                if not piece or (watch is not None and watch(piece, other, server)):
                    return
                other.sendall(piece)


class _Watch:
    """Looks at what a client sends."""

    def __init__(self, cuts: Cuts) -> None:
        self.cuts = cuts
        self.tail = b""

    def __call__(self, piece: bytes, other: socket.socket, server: socket.socket) -> bool:
        """Whether to break the connection instead of passing the piece on."""
        cuts = self.cuts
        cuts.sent += len(piece)
        if cuts.after_bytes and cuts.sent > cuts.after_bytes[0]:
            cuts.after_bytes.pop(0)
            cuts.made += 1
            return True
        commits = (self.tail + piece).count(COMMIT)
        self.tail = (self.tail + piece)[-len(COMMIT) + 1 :]
        for _ in range(commits):
            cuts.commits += 1
            if cuts.commits in cuts.before_commits:
                cuts.made += 1
                return True
            if cuts.commits in cuts.after_commits:
                cuts.made += 1
                other.sendall(piece)
                server.recv(_PIECE)
                return True
        return False

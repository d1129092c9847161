"""What breaks while an atlas is loaded, and what is in the database after: nothing lost or doubled.

The server is a real one, killed, stopped and limited; the network is cut by a proxy.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from graphdb import atlases, dump
from graphdb.dropping_proxy import Cuts, dropping
from graphdb.watching import Watching

from summit_graph.atlas.atlas import Atlas
from summit_graph.errors import DatabaseError
from summit_graph.graphdb import connection as connecting
from summit_graph.graphdb import load as loading
from summit_graph.graphdb import server
from summit_graph.graphdb.connection import Connection, opened, write_session
from summit_graph.graphdb.load import load, unload
from summit_graph.graphdb.model import RELATIONSHIPS
from summit_graph.graphdb.server import Server

KEY = "toy-0"
BATCH = 40
STATE = "MATCH (m:Model {key: $key}) RETURN m.loaded, m.progress"


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return atlases.toy(tmp_path_factory.mktemp("faults") / "atlas")


@pytest.fixture(scope="module")
def wanted(path: Path) -> dump.Graph:
    return dump.expected(path)


@pytest.fixture(autouse=True)
def _cleared(connection: Connection) -> Iterator[None]:
    yield
    with suppress(DatabaseError):
        unload(KEY, connection)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver gives up after a second."""
    monkeypatch.setattr(connecting, "_RETRIES", 1.0)


def run(connection: Connection, text: str, **values: Any) -> list[Any]:
    with opened(connection) as driver, write_session(driver, connection) as session:
        return [record.values() for record in session.run(text, values)]


# The loader is killed --------------------------------------------------------------------------

KILLED = """
import json, os, signal, sys
import neo4j
from summit_graph.graphdb.connection import Connection
from summit_graph.graphdb.load import load, unload

path, action, uri, user, database, *moments = sys.argv[1:]
connection = Connection(uri, user, sys.stdin.read(), database or None)
run = neo4j.Transaction.run

for moment in moments:
    child = os.fork()
    if not child:
        statements = 0

        def counted(tx, *arguments, **options):
            global statements
            statements += 1
            if statements == int(moment):
                os.kill(os.getpid(), signal.SIGKILL)
            return run(tx, *arguments, **options)

        neo4j.ManagedTransaction.run = counted
        if action == "load":
            load(path, connection, batch=40)
        else:
            unload(path, connection)
        os._exit(0)
    print(json.dumps(os.waitpid(child, 0)[1]), flush=True)
"""


def killed(connection: Connection, path: str, action: str, moments: list[int]) -> list[int]:
    """How loaders ended that are killed, one after the other, before so many statements."""
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            KILLED,
            path,
            action,
            connection.uri,
            connection.user,
            connection.database or "",
            *map(str, moments),
        ],
        input=connection.password,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_killed_loader_is_continued_by_the_next(
    connection: Connection, path: Path, wanted: dump.Graph
) -> None:
    """Each dies at another statement of a transaction, rows further than the one before."""
    ends = killed(connection, str(path), "load", [2, 5, 6, 7, 8, 9, 10, 20, 21, 22])
    assert ends == [signal.SIGKILL] * 10
    [[loaded, progress]] = run(connection, STATE, key=KEY)
    assert loaded is False
    assert 0 < progress < len(wanted.nodes) + wanted.relationships.total()
    load(path, connection, batch=BATCH)
    dump.assert_same(dump.dump(connection, KEY), wanted)


def test_a_killed_unload_is_continued_by_the_next(connection: Connection, path: Path) -> None:
    before = dump.dump(connection)
    load(path, connection)
    assert killed(connection, KEY, "unload", [3, 6, 8, 9]) == [signal.SIGKILL] * 4
    unload(KEY, connection)
    assert dump.dump(connection) == before


# The network is cut ----------------------------------------------------------------------------


@pytest.mark.parametrize("answered", [False, True])
@pytest.mark.parametrize("commit", [1, 2, 9])
def test_cut_at_a_commit(
    commit: int, answered: bool, connection: Connection, path: Path, wanted: dump.Graph
) -> None:
    one = frozenset({commit})
    cuts = Cuts(after_commits=one) if answered else Cuts(before_commits=one)
    with dropping(connection, cuts) as through:
        load(path, through, batch=BATCH)
    assert cuts.made == 1
    dump.assert_same(dump.dump(connection, KEY), wanted)


def test_cut_at_every_other_commit_once_it_was_made(
    connection: Connection, path: Path, wanted: dump.Graph
) -> None:
    cuts = Cuts(after_commits=frozenset(range(1, 1000, 2)))
    with dropping(connection, cuts) as through:
        load(path, through, batch=BATCH)
        dump.assert_same(dump.dump(connection, KEY), wanted)
        unload(KEY, through)
    assert cuts.made > 20
    assert dump.dump(connection, KEY).nodes == {}


def test_a_network_that_breaks_at_every_commit_ends_the_load(
    connection: Connection, path: Path, wanted: dump.Graph, impatient: None
) -> None:
    cuts = Cuts(after_commits=frozenset(range(5, 1000)))
    with (
        dropping(connection, cuts) as through,
        pytest.raises(DatabaseError, match=r"connection broke.*What was committed is kept"),
    ):
        load(path, through, batch=BATCH)
    load(path, connection, batch=BATCH)
    dump.assert_same(dump.dump(connection, KEY), wanted)


def test_cut_in_the_middle_of_batches(
    connection: Connection, path: Path, wanted: dump.Graph
) -> None:
    cuts = Cuts(after_bytes=[9_001, 23_456])
    with dropping(connection, cuts) as through:
        load(path, through, batch=200)
    assert cuts.made == 2
    dump.assert_same(dump.dump(connection, KEY), wanted)


# The server is killed, stopped, limited --------------------------------------------------------


@pytest.fixture
def local_server(request: pytest.FixtureRequest, connection: Connection) -> Iterator[Server]:
    """The tests' own server, which a test may end; it runs again after."""
    if connecting.URI_VARIABLE in os.environ:
        pytest.skip("the database is another's: it is not killed")
    found: Server = request.getfixturevalue("neo4j_server")
    yield found
    server.up(found.home)


def kill(home: Path) -> None:
    """Ends the server as a power cut does."""
    found = server.status(home)
    assert found is not None
    process = psutil.Process(found.pid)
    process.kill()
    process.wait(10)


@pytest.mark.slow
def test_the_server_is_killed_and_started_again_meanwhile(
    local_server: Server, connection: Connection, path: Path, wanted: dump.Graph
) -> None:
    def restart() -> None:
        kill(local_server.home)
        server.up(local_server.home)

    load(path, connection, batch=BATCH, progress=Watching(11, restart))
    dump.assert_same(dump.dump(connection, KEY), wanted)


@pytest.mark.slow
def test_the_server_is_stopped_between_two_batches(
    local_server: Server,
    connection: Connection,
    demo_atlas: Path,
    impatient: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It comes back with a memory limit that a batch of all edges does not fit in."""
    with Atlas.open(demo_atlas) as atlas:
        key = atlas.info()["key"]
    stopping = Watching(8, lambda: server.down(local_server.home))
    with pytest.raises(DatabaseError, match=r"cannot be reached.*summit-graph db status") as found:
        load(demo_atlas, connection, batch=100, progress=stopping)
    assert connection.password not in str(found.value)
    configuration = server._configuration
    limit = "db.memory.transaction.max=2m\n"
    with monkeypatch.context() as patched:
        patched.setattr(server, "_configuration", lambda kept: configuration(kept) + limit)
        server.up(local_server.home)
    [[loaded, progress]] = run(connection, STATE, key=key)
    assert (loaded, progress > 0) == (False, True)
    with pytest.raises(DatabaseError, match=r"memory limit.*What was committed is kept.*--batch"):
        load(demo_atlas, connection, batch=100_000)
    assert run(connection, STATE, key=key)[0][1] >= progress
    load(demo_atlas, connection, batch=500)
    dump.assert_same(dump.dump(connection, key), dump.expected(demo_atlas))
    with pytest.raises(DatabaseError, match=r"memory limit"):
        unload(key, connection)
    unload(key, connection, batch=500)
    server.down(local_server.home)


def test_a_wrong_password(connection: Connection, path: Path) -> None:
    with pytest.raises(DatabaseError, match=r"does not let 'neo4j' in.*NEO4J_PASSWORD") as refusal:
        load(path, replace(connection, password="s3cret-wrong"))
    assert "s3cret-wrong" not in str(refusal.value)


def test_a_database_that_does_not_exist(connection: Connection, path: Path) -> None:
    with pytest.raises(DatabaseError, match="no database 'nope'"):
        load(path, replace(connection, database="nope"))


# Others work on the same database --------------------------------------------------------------


def test_a_deadlock_is_tried_again(
    connection: Connection,
    path: Path,
    wanted: dump.Graph,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Another transaction holds nodes that a batch needs, and wants the node `Model` before it."""
    creating = loading.creating
    holds = threading.Event()

    def contend() -> None:
        """Begins after the batch and holds more: so the batch is the one that has to give way."""
        with (
            opened(connection) as driver,
            write_session(driver, connection) as session,
            session.begin_transaction() as tx,
        ):
            tx.run(
                "MATCH (n) WHERE n.key STARTS WITH $prefix SET n.x = 1 REMOVE n.x",
                prefix=f"{KEY}/",
            ).consume()
            holds.set()
            tx.run("MATCH (m:Model {key: $key}) SET m.x = 1 REMOVE m.x", key=KEY).consume()
            tx.commit()

    def between(kind: Any) -> str:
        """Called when a batch holds the node `Model`, before it needs nodes."""
        if kind is RELATIONSHIPS["RANKS"] and not holds.is_set():
            other.start()
            holds.wait()
            time.sleep(0.5)
        return creating(kind)

    monkeypatch.setattr(loading, "creating", between)
    other = threading.Thread(target=contend)
    load(path, connection, batch=5)
    other.join()
    assert "will be retried" in caplog.text
    assert "DeadlockDetected" in caplog.text
    dump.assert_same(dump.dump(connection, KEY), wanted)


def test_the_second_of_two_loaders_goes_on_and_the_first_one_stops(
    connection: Connection, path: Path, wanted: dump.Graph
) -> None:
    def second() -> None:
        load(path, connection, batch=BATCH)

    with pytest.raises(DatabaseError, match=r"another run has taken over the model 'toy-0'"):
        load(path, connection, batch=BATCH, progress=Watching(7, second))
    dump.assert_same(dump.dump(connection, KEY), wanted)


def test_an_unload_stops_a_loader(connection: Connection, path: Path) -> None:
    before = dump.dump(connection)
    with pytest.raises(DatabaseError, match=r"another run has taken over the model 'toy-0'"):
        load(path, connection, batch=BATCH, progress=Watching(7, lambda: unload(KEY, connection)))
    assert dump.dump(connection) == before


def attempted(action: Callable[[], object]) -> str | None:
    try:
        action()
    except DatabaseError as error:
        return str(error)
    return None


def test_loaders_of_one_model_at_once(
    connection: Connection, path: Path, wanted: dump.Graph
) -> None:
    with ThreadPoolExecutor(4) as pool:
        ends = list(
            pool.map(lambda _: attempted(lambda: load(path, connection, batch=BATCH)), range(4))
        )
    assert None in ends
    assert all(end is None or "has taken over" in end for end in ends)
    dump.assert_same(dump.dump(connection, KEY), wanted)


def test_loaders_of_different_models_at_once(connection: Connection, tmp_path: Path) -> None:
    paths = {key: atlases.toy(tmp_path / key, key=key) for key in ("one", "two", "three")}
    with ThreadPoolExecutor(3) as pool:
        reports = list(pool.map(lambda path: load(path, connection, batch=BATCH), paths.values()))
    assert [report.key for report in reports] == list(paths)
    for key, path in paths.items():
        dump.assert_same(dump.dump(connection, key), dump.expected(path))
        unload(key, connection)

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from summit_graph.errors import DatabaseError, UsageError
from summit_graph.graphdb.connection import (
    SCHEMES,
    Connection,
    connect,
    opened,
    read_session,
    write_session,
)
from summit_graph.graphdb.server import Server

ENVIRONMENT = {
    "NEO4J_URI": "neo4j+s://graphs.example.org",
    "NEO4J_USERNAME": "reader",
    "NEO4J_PASSWORD": "of the environment",
}


@pytest.fixture
def nowhere(tmp_path: Path) -> Path:
    """A home without a server."""
    return tmp_path / "home"


@pytest.fixture
def closed_port() -> Iterator[int]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        yield free.getsockname()[1]


def test_the_environment_names_the_database(nowhere: Path) -> None:
    assert connect(home=nowhere, environment=ENVIRONMENT) == Connection(
        "neo4j+s://graphs.example.org", "reader", "of the environment", None
    )


def test_arguments_come_before_the_environment(nowhere: Path) -> None:
    found = connect("bolt://127.0.0.1:1", "writer", "other", nowhere, ENVIRONMENT)
    assert found == Connection("bolt://127.0.0.1:1", "writer", "of the environment", "other")


@pytest.mark.parametrize("scheme", SCHEMES)
def test_each_scheme_of_the_driver_is_taken(nowhere: Path, scheme: str) -> None:
    uri = f"{scheme}://example.org:7687"
    assert connect(uri, home=nowhere, environment={"NEO4J_PASSWORD": "p"}).uri == uri


def test_without_an_address_or_a_server_it_says_what_to_do(nowhere: Path) -> None:
    with pytest.raises(DatabaseError, match=r"no local server runs.*db up.*--uri.*NEO4J_URI"):
        connect(home=nowhere, environment={})


@pytest.mark.parametrize("uri", ["example.org", "http://example.org", "bolt://", "://", "bolt:/x"])
def test_what_is_no_address_is_refused(nowhere: Path, uri: str) -> None:
    with pytest.raises(DatabaseError, match="is no address of a Neo4j"):
        connect(uri, home=nowhere, environment=ENVIRONMENT)


@pytest.mark.parametrize("uri", ["bolt://neo4j:hunter2@example.org", "//neo4j:hunter2@example.org"])
def test_a_password_in_an_address_is_refused_and_not_repeated(nowhere: Path, uri: str) -> None:
    with pytest.raises((UsageError, DatabaseError)) as caught:
        connect(uri, home=nowhere, environment=ENVIRONMENT)
    assert "hunter2" not in str(caught.value)


def test_without_a_password_the_variable_is_named(nowhere: Path) -> None:
    with pytest.raises(DatabaseError, match=r"no password for bolt://example\.org.*NEO4J_PASSWORD"):
        connect("bolt://example.org", home=nowhere, environment={})


def test_a_connection_does_not_show_its_password() -> None:
    assert "secret" not in repr(Connection("bolt://example.org", "neo4j", "secret"))


def test_an_unreachable_server_is_said(closed_port: int) -> None:
    connection = Connection(f"bolt://127.0.0.1:{closed_port}", "neo4j", "secret")
    with (
        pytest.raises(DatabaseError, match=r"cannot be reached.*db status") as caught,
        opened(connection),
    ):
        pass
    assert "secret" not in str(caught.value)


@pytest.mark.slow
def test_the_local_server_is_found_with_its_password(neo4j_server: Server) -> None:
    found = connect(home=neo4j_server.home, environment={})
    assert found == Connection(neo4j_server.bolt_uri, "neo4j", neo4j_server.password(), None)
    named = connect(neo4j_server.bolt_uri, home=neo4j_server.home, environment={})
    assert named == found


@pytest.mark.slow
def test_the_password_of_the_local_server_goes_nowhere_else(neo4j_server: Server) -> None:
    with pytest.raises(DatabaseError, match="no password for"):
        connect("bolt://example.org", home=neo4j_server.home, environment={})


@pytest.mark.slow
@pytest.mark.parametrize("which", ["connection", "lts_connection"])
def test_a_session_that_reads_cannot_write(request: pytest.FixtureRequest, which: str) -> None:
    connection: Connection = request.getfixturevalue(which)
    with (
        pytest.raises(DatabaseError, match="refused to write in a session that only reads"),
        opened(connection) as driver,
        read_session(driver, connection) as session,
    ):
        session.run("CREATE (:Written)").consume()
    with opened(connection) as driver, write_session(driver, connection) as session:
        session.run("CREATE (:Written)").consume()
        assert session.run("MATCH (n:Written) RETURN count(n)").single(strict=True)[0] == 1
        session.run("MATCH (n:Written) DELETE n").consume()


@pytest.mark.slow
def test_a_wrong_password_is_said_and_not_shown(connection: Connection) -> None:
    wrong = replace(connection, password="hunter2")
    with (
        pytest.raises(DatabaseError, match=r"does not let 'neo4j' in.*NEO4J_PASSWORD") as caught,
        opened(wrong),
    ):
        pass
    assert "hunter2" not in str(caught.value)


@pytest.mark.slow
def test_a_database_that_does_not_exist_is_named(connection: Connection) -> None:
    with (
        pytest.raises(DatabaseError, match=r"has no database 'absent'.*--database"),
        opened(replace(connection, database="absent")),
    ):
        pass


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["bolt+s", "bolt+ssc", "neo4j+s", "neo4j+ssc"])
def test_a_server_without_encryption_is_not_used_as_if_it_had_it(
    neo4j_server: Server, scheme: str
) -> None:
    uri = neo4j_server.bolt_uri.replace("bolt", scheme, 1)
    connection = Connection(uri, "neo4j", neo4j_server.password())
    with pytest.raises(DatabaseError, match=r"\+s"), opened(connection):
        pass


@pytest.mark.slow
def test_the_routing_scheme_reaches_the_local_server(neo4j_server: Server) -> None:
    uri = neo4j_server.bolt_uri.replace("bolt", "neo4j", 1)
    connection = Connection(uri, "neo4j", neo4j_server.password())
    with opened(connection) as driver, read_session(driver, connection) as session:
        assert session.run("RETURN 1").single(strict=True)[0] == 1

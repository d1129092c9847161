"""Attribution graphs as bound subgraphs of py2neo, which ipycytoscape draws whole."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from atlas import made
from conftest import optional_package

from summit_graph import Atlas, GraphDB
from summit_graph.atlas.interface import AttributionGraph
from summit_graph.errors import DatabaseError, UnknownClass
from summit_graph.graphdb.connection import Connection
from summit_graph.graphdb.database import _py2neo_graph, _subgraph
from summit_graph.graphdb.load import load, unload
from summit_graph.graphdb.model import class_key


@pytest.fixture(scope="module", params=["connection", "lts_connection"])
def server(request: pytest.FixtureRequest) -> Connection:
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def atlases(
    server: Connection, demo_atlas: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Path, ...]]:
    """Two models: their neurons, and the influences of their classes, stand side by side."""
    toy = made.atlas(tmp_path_factory.mktemp("toy") / "atlas", made.images(60), key='"toy" {}')
    reports = [load(path, server) for path in (demo_atlas, toy)]
    yield demo_atlas, toy
    for report in reports:
        if not report.already:
            unload(report.key, server)


@pytest.fixture(params=[0, 1], ids=["demo", "toy"])
def pair(
    request: pytest.FixtureRequest, server: Connection, atlases: tuple[Path, ...]
) -> Iterator[tuple[Atlas, GraphDB]]:
    with Atlas.open(atlases[request.param]) as atlas, opened(server, atlas) as database:
        yield atlas, database


def opened(server: Connection, atlas: Atlas, **changes: str) -> GraphDB:
    return GraphDB.open(
        atlas.info()["key"],
        uri=changes.get("uri", server.uri),
        user=server.user,
        password=server.password,
        database=changes.get("database", server.database),
    )


def same(subgraph: object, graph: AttributionGraph, key: str) -> None:
    """A subgraph has all neurons and edges of an attribution graph, and the class."""
    nodes, relationships = subgraph.nodes, subgraph.relationships  # type: ignore[attr-defined]
    assert len(nodes) == len(graph.neurons) + 1
    assert len({node.identity for node in nodes}) == len(nodes)
    by_key = {node["key"]: node for node in nodes}
    assert set(by_key) == {
        f"{key}/class/{graph.record.index}",
        *(f"{key}/{neuron.name}" for neuron in graph.neurons),
    }
    assert Counter(type(one).__name__ for one in relationships) == Counter(
        {"ATTRIBUTES": len(graph.neurons), "INFLUENCES": len(graph.edges)}
    )
    found = {}
    for one in relationships:
        assert one.start_node is by_key[one.start_node["key"]]
        assert one.end_node is by_key[one.end_node["key"]]
        ends = tuple(node["key"][len(key) + 1 :] for node in one.nodes)
        found[ends] = {name: value for name, value in one.items() if name != "class"}
    for neuron in graph.neurons:
        assert found.pop((f"class/{graph.record.index}", neuron.name)) == {
            "pagerank": neuron.pagerank,
            "rank": neuron.rank,
            "count": neuron.count,
        }
    for edge in graph.edges:
        expected = {"count": edge.count, "share": edge.share}
        assert found.pop((edge.source, edge.target)) == expected
    assert not found


def test_the_subgraph_is_the_attribution_graph(pair: tuple[Atlas, GraphDB]) -> None:
    atlas, database = pair
    for record in atlas.classes:
        subgraph = database.py2neo(record.index)
        same(subgraph, atlas.attribution_graph(record.index), database.key)
        graph = next(iter(subgraph.nodes)).graph
        assert all(one.graph is graph for one in (*subgraph.nodes, *subgraph.relationships))
        assert database.connection.password not in repr((graph, graph.service, subgraph))
    with pytest.raises(UnknownClass):
        database.py2neo("eleven")


def test_ipycytoscape_draws_it_whole(pair: tuple[Atlas, GraphDB]) -> None:
    ipycytoscape = optional_package("ipycytoscape")
    atlas, database = pair
    record = atlas.classes[0]
    graph = atlas.attribution_graph(record.index)
    widget = ipycytoscape.CytoscapeWidget()
    widget.graph.add_graph_from_neo4j(database.py2neo(record.index))
    nodes, edges = widget.graph.nodes, widget.graph.edges
    assert Counter(node.data["label"] for node in nodes) == {
        "Class": 1,
        "Neuron": len(graph.neurons),
    }
    assert Counter(edge.data["name"] for edge in edges) == {
        "ATTRIBUTES": len(graph.neurons),
        "INFLUENCES": len(graph.edges),
    }
    by_id = {node.data["id"]: node.data for node in nodes}
    assert {edge.data["count"] for edge in edges if edge.data["name"] == "INFLUENCES"} == {
        edge.count for edge in graph.edges
    }
    for edge in edges:
        assert {edge.data["source"], edge.data["target"]} <= set(by_id)
        # Nothing looks as if somebody had clicked on it.
        assert not edge.selected
        assert "directed" in edge.classes
    names = {f"{node['layer']}/{node['channel']}" for node in by_id.values() if "layer" in node}
    assert names == {neuron.name for neuron in graph.neurons}
    for data in by_id.values():
        assert data["tooltip"].startswith(f"{data['label']}\n")
        assert f"key:{data['key']}" in data["tooltip"]


@pytest.mark.parametrize("scheme", ["neo4j", "bolt"])
def test_addresses_and_databases(
    server: Connection, atlases: tuple[Path, ...], scheme: str
) -> None:
    with Atlas.open(atlases[0]) as atlas:
        address = f"{scheme}://{server.uri.partition('://')[2]}"
        with opened(server, atlas, uri=address, database="neo4j") as database:
            assert len(database.py2neo("three").nodes) == atlas.find("three").neurons + 1


def test_an_address_in_the_environment_that_py2neo_does_not_know(
    server: Connection, atlases: tuple[Path, ...]
) -> None:
    """py2neo reads NEO4J_URI when it is imported."""
    code = (
        "import sys\n"
        "from summit_graph import GraphDB\n"
        "with GraphDB.open(sys.argv[1]) as database:\n"
        "    print(len(database.py2neo('three').nodes))\n"
    )
    with Atlas.open(atlases[0]) as atlas:
        environment = {
            **os.environ,
            "NEO4J_URI": f"neo4j://{server.uri.partition('://')[2]}",
            "NEO4J_USERNAME": server.user,
            "NEO4J_PASSWORD": server.password,
        }
        done = subprocess.run(
            [sys.executable, "-c", code, atlas.info()["key"]],
            capture_output=True,
            text=True,
            env=environment,
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert int(done.stdout) == atlas.find("three").neurons + 1


@pytest.mark.parametrize(
    "changes", [{"password": "not-the-p4ssw0rd"}, {"uri": "bolt+s://127.0.0.1:1"}]
)
def test_py2neo_cannot_connect(
    pair: tuple[Atlas, GraphDB], changes: dict[str, str], capfd: pytest.CaptureFixture[str]
) -> None:
    atlas, database = pair
    database.connection = replace(database.connection, **changes)
    with pytest.raises(DatabaseError, match="py2neo cannot ask bolt") as refused:
        database.py2neo(atlas.classes[0].index)
    assert "p4ssw0rd" not in str(refused.value)
    assert capfd.readouterr() == ("", "")


def test_it_has_to_be_as_it_was_opened(
    server: Connection, atlases: tuple[Path, ...], tmp_path: Path
) -> None:
    path = made.atlas(tmp_path / "one", made.images(20), key="one")
    load(path, server)
    with Atlas.open(path) as atlas, opened(server, atlas) as database:
        assert database.py2neo(0).relationships
        with _py2neo_graph(server) as graph:
            unload("one", server)
            with pytest.raises(DatabaseError, match="it was unloaded"):
                _subgraph(graph, "one", {"class": class_key("one", 0)}, database._checked)
        with pytest.raises(DatabaseError, match="it was unloaded"):
            database.py2neo(0)

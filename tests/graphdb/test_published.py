"""The authors' 900 published graphs in Neo4j: everything that the files have is there."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from summit_graph.atlas.summit import import_summit
from summit_graph.errors import DatabaseError
from summit_graph.graphdb.connection import Connection, opened, read_session
from summit_graph.graphdb.database import GraphDB
from summit_graph.graphdb.load import load, unload

pytestmark = pytest.mark.slow

KEY = "published"


@pytest.fixture(scope="module")
def published(
    connection: Connection, test_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Connection]:
    """A database that holds an import of all files."""
    atlas = tmp_path_factory.mktemp("published") / "published.atlas"
    import_summit(
        test_data / "summit-published",
        atlas,
        classes_file=test_data / "imagenet-classes.csv",
        name=KEY,
    )
    load(atlas, connection)
    yield connection
    unload(KEY, connection)


@pytest.fixture(scope="module")
def files(test_data: Path) -> dict[int, dict[str, list[dict[str, Any]]]]:
    """Class index -> what its file says."""
    folder = test_data / "summit-published" / "data" / "ag"
    return {
        int(path.stem.partition("-")[2]): json.loads(path.read_text())
        for path in folder.glob("ag-*.json")
    }


def rows(connection: Connection, query: str) -> list[list[Any]]:
    with opened(connection) as driver, read_session(driver, connection) as session:
        return [list(record.values()) for record in session.run(query, {"model": KEY})]


def test_every_neuron_edge_and_count_is_there(
    published: Connection, files: dict[int, dict[str, list[dict[str, Any]]]]
) -> None:
    """Per class: how many neurons and edges, and the sums of their counts and PageRanks."""
    expected = {}
    for index, layers in files.items():
        neurons = [neuron for found in layers.values() for neuron in found]
        edges = [edge for neuron in neurons for edge in neuron["prev_channels"]]
        expected[index] = (
            len(neurons),
            sum(neuron["count"] for neuron in neurons),
            pytest.approx(sum(neuron["pagerank"] for neuron in neurons), rel=1e-12),
            len(edges),
            sum(edge["inf"] for edge in edges),
        )
    of_neurons = {
        index: numbers
        for index, *numbers in rows(
            published,
            "MATCH (:Model {key: $model})-[:HAS_CLASS]->(c:Class)-[a:ATTRIBUTES]->(:Neuron) "
            "RETURN c.index, count(a), sum(a.count), sum(a.pagerank)",
        )
    }
    of_edges = {
        index: numbers
        for index, *numbers in rows(
            published,
            "MATCH (:Model {key: $model})-[:HAS_CLASS]->(c:Class) "
            "MATCH ()-[e:INFLUENCES {class: c.key}]->() "
            "RETURN c.index, count(e), sum(e.count)",
        )
    }
    found = {index: (*of_neurons[index], *of_edges[index]) for index in of_neurons}
    assert len(found) == 900
    assert found == expected


def test_every_edge_is_between_its_neurons(
    published: Connection, files: dict[int, dict[str, list[dict[str, Any]]]]
) -> None:
    """Over all classes at once: how often each pair of neurons is joined, and with what counts."""
    before = dict(zip(sorted(files[270])[1:], sorted(files[270]), strict=False))
    expected: Counter[tuple[str, str, int]] = Counter()
    for layers in files.values():
        for layer, neurons in layers.items():
            for neuron in neurons:
                for edge in neuron["prev_channels"]:
                    source = f"{before[layer]}/{edge['prev_channel']}"
                    expected[source, f"{layer}/{neuron['channel']}", edge["inf"]] += 1
    found = {
        (source, target, count): number
        for source, target, count, number in rows(
            published,
            "MATCH (:Model {key: $model})-[:HAS_LAYER]->()-[:HAS_NEURON]->(a:Neuron) "
            "MATCH (a)-[e:INFLUENCES]->(b:Neuron) "
            "RETURN a.name, b.name, e.count, count(*)",
        )
    }
    assert found == expected


def test_what_the_files_do_not_say_is_absent(published: Connection) -> None:
    found = rows(
        published,
        "MATCH (:Model {key: $model})-[:HAS_CLASS]->(c:Class) "
        "RETURN count(c), count(c.images), count(c.top1), count(c.mass), count(c.threshold)",
    )
    assert found == [[900, 0, 0, 0, 0]]
    shares = rows(
        published,
        "MATCH (:Model {key: $model})-[:HAS_CLASS]->(c:Class)-[a:ACTIVATES]->() "
        "RETURN count(a) > 0, count(a.share)",
    )
    assert shares == [[True, 0]]
    assert rows(
        published, "MATCH (m:Model {key: $model}) RETURN m.partial, m.images, m.weights"
    ) == [[True, None, None]]


def test_it_can_be_asked_like_one_s_own(
    published: Connection, files: dict[int, dict[str, list[dict[str, Any]]]]
) -> None:
    uri, password = published.uri, published.password
    with GraphDB.open(KEY, uri=uri, user=published.user, password=password) as graphs:
        wolf = graphs.find("white wolf")
        assert wolf.index == 270
        graph = graphs.attribution_graph("white wolf")
        assert {neuron.name for neuron in graph.neurons} == {
            f"{layer}/{neuron['channel']}"
            for layer, neurons in files[270].items()
            for neuron in neurons
        }
        shared = graphs.run("shared-neurons", {"classes": ["white wolf", "Siberian husky"]})
        assert shared.rows
        with pytest.raises(DatabaseError, match="published attribution graphs"):
            graphs.run("pagerank", {"class": "white wolf"})

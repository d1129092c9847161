"""PageRank as Cypher and with Graph Data Science, beside the atlas's (SciPy) and networkx."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import neo4j
import networkx
import pytest
from atlas import made

from summit_graph.atlas.atlas import Atlas
from summit_graph.errors import DatabaseError
from summit_graph.graphdb.connection import Connection, opened, read_session, write_session
from summit_graph.graphdb.load import load, unload
from summit_graph.graphdb.queries import query, run
from summit_graph.rank.stage import Ranking
from summit_graph.reranking import rerank

NEAR = 1e-9
RANKERS = ("pagerank", "pagerank-gds")


class Loaded(NamedTuple):
    """An atlas, its key, and the database it was loaded into."""

    atlas: Atlas
    key: str
    driver: neo4j.Driver
    connection: Connection

    def ranks(self, name: str, index: int, **parameters: float) -> dict[str, float]:
        """The neurons that a query ranks, by name, in the order of their ranks."""
        given = {"class": f"{self.key}/class/{index}", **parameters}
        rows = run(self.driver, self.connection, query(name), given).rows
        assert [row[4] for row in rows] == list(range(1, len(rows) + 1))
        assert all(row[0] == f"{self.key}/{row[1]}/{row[2]}" for row in rows)
        return {f"{row[1]}/{row[2]}": row[3] for row in rows}

    def projections(self) -> list[str]:
        """The graphs that Graph Data Science holds."""
        with read_session(self.driver, self.connection) as session:
            listed = session.run("CALL gds.graph.list() YIELD graphName RETURN graphName")
            return [record.value() for record in listed]


def loaded(path: Path, connection: Connection) -> Iterator[Loaded]:
    with Atlas.open(path) as atlas, opened(connection) as driver:
        report = load(atlas, connection)
        try:
            yield Loaded(atlas, report.key, driver, connection)
        finally:
            if not report.already:
                unload(report.key, connection)


@pytest.fixture(scope="module")
def demo(demo_atlas: Path, connection: Connection) -> Iterator[Loaded]:
    yield from loaded(demo_atlas, connection)


@pytest.fixture(scope="module")
def excluding(
    demo_atlas: Path, connection: Connection, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Loaded]:
    """The demo without the neurons that are active most, with another damping."""
    path = tmp_path_factory.mktemp("excluding") / "excluding.atlas"
    shutil.copytree(demo_atlas, path, symlinks=True)
    header = json.loads((path / "atlas.json").read_text(encoding="utf-8"))
    header["key"] = "excluding"
    (path / "atlas.json").write_text(json.dumps(header), encoding="utf-8")
    with Atlas.open(path) as atlas:
        most = {layer.name: (0, 0) for layer in atlas.layers}
        for row in atlas.activations().to_pylist():
            most[row["layer"]] = max(most[row["layer"]], (row["count"], row["channel"]))
    names = tuple(f"{layer}/{channel}" for layer, (_, channel) in most.items())
    rerank(path, Ranking(exclude=names, damping=0.6), workers=1)
    yield from loaded(path, connection)


def of_atlas(atlas: Atlas, index: int) -> dict[str, float]:
    """The atlas's ranks, by name, in the order of ranks."""
    names = {layer.number: layer.name for layer in atlas.layers}
    ranks = atlas.generation.of_class("ranks", index).sort_by("rank").to_pylist()
    return {f"{names[row['layer']]}/{row['channel']}": row["pagerank"] for row in ranks}


def of_networkx(
    atlas: Atlas, index: int, damping: float = 0.85, left_out: tuple[str, ...] = ()
) -> dict[str, float]:
    """docs/method.md, section 5, written again: G_c, its teleport, and networkx's PageRank."""
    names = {layer.number: layer.name for layer in atlas.layers}
    graph: networkx.Graph[str] = networkx.Graph()
    for row in atlas.generation.of_class("edges", index).to_pylist():
        graph.add_edge(
            f"{names[row['source_layer']]}/{row['source']}",
            f"{names[row['target_layer']]}/{row['target']}",
            weight=row["count"],
        )
    counts: dict[str, dict[str, int]] = {layer.name: {} for layer in atlas.layers}
    for row in atlas.activations(index).to_pylist():
        name = f"{row['layer']}/{row['channel']}"
        if name not in left_out:
            counts[row["layer"]][name] = row["count"]
    teleport = {
        name: count / max(found.values())
        for found in counts.values()
        for name, count in found.items()
        if name in graph
    }
    if not teleport:
        teleport = dict.fromkeys(graph, 1.0)
    return networkx.pagerank(
        graph, damping, personalization=teleport, tol=1e-15, max_iter=1000, weight="weight"
    )


def assert_near(found: dict[str, float], wanted: dict[str, float]) -> None:
    assert found.keys() == wanted.keys()
    assert max(abs(found[name] - wanted[name]) for name in wanted) < NEAR


def assert_selected(model: Loaded, index: int) -> None:
    """The query `select`, at the atlas's own mass, keeps what the atlas keeps."""
    record = model.atlas.find(index)
    given = {"class": f"{model.key}/class/{index}"}
    rows = run(model.driver, model.connection, query("select"), given).rows
    assert [f"{row[1]}/{row[2]}" for row in rows] == [
        neuron.name for neuron in model.atlas.attribution_graph(index).neurons
    ]
    assert {row[5:] for row in rows} == {(record.mass, record.threshold)}


@pytest.mark.parametrize("index", range(10))
def test_all_agree_on_the_demo(demo: Loaded, index: int) -> None:
    wanted = of_atlas(demo.atlas, index)
    assert_near(of_networkx(demo.atlas, index), wanted)
    for name in RANKERS:
        found = demo.ranks(name, index)
        assert_near(found, wanted)
        # Those that are no ties stand in the same order.
        assert max(abs(a - b) for a, b in zip(found.values(), wanted.values(), strict=True)) < NEAR
        kept = len(demo.atlas.attribution_graph(index).neurons)
        assert list(found)[:kept] == list(wanted)[:kept]
    assert_selected(demo, index)


@pytest.mark.slow
@pytest.mark.parametrize("index", range(12))
def test_all_agree_on_a_real_model(lite: Loaded, index: int) -> None:
    wanted = of_atlas(lite.atlas, index)
    assert_near(of_networkx(lite.atlas, index), wanted)
    for name in RANKERS:
        found = lite.ranks(name, index)
        assert_near(found, wanted)
        # What the values select: those strictly above the threshold.
        threshold = lite.atlas.find(index).threshold
        assert threshold is not None
        assert {n for n, value in found.items() if value > threshold + NEAR} == {
            neuron.name for neuron in lite.atlas.attribution_graph(index).neurons
        }
    assert_selected(lite, index)


@pytest.fixture(scope="module")
def lite(lite_atlas: Path, connection: Connection) -> Iterator[Loaded]:
    yield from loaded(lite_atlas, connection)


def test_excluded_neurons_do_not_count_for_the_largest(excluding: Loaded) -> None:
    left_out = tuple(excluding.atlas.info()["ranking"]["exclude"])
    assert len(left_out) == 4
    differs = 0.0
    for index in range(10):
        wanted = of_atlas(excluding.atlas, index)
        assert not wanted.keys() & set(left_out)
        assert_near(of_networkx(excluding.atlas, index, 0.6, left_out), wanted)
        for name in RANKERS:
            assert_near(excluding.ranks(name, index), wanted)
        counted = of_networkx(excluding.atlas, index, 0.6)
        differs = max(differs, *(abs(counted[name] - wanted[name]) for name in wanted))
        assert_selected(excluding, index)
    assert differs > NEAR


@pytest.mark.parametrize("damping", [0.0, 0.5, 0.95])
@pytest.mark.parametrize("name", RANKERS)
def test_another_damping(demo: Loaded, name: str, damping: float) -> None:
    found = demo.ranks(name, 3, damping=damping, iterations=400)
    assert_near(found, of_networkx(demo.atlas, 3, damping))


def test_what_the_last_step_moved_tells_whether_it_converged(demo: Loaded) -> None:
    moved = []
    for iterations in (1, 20, 60):
        given = {"class": f"{demo.key}/class/3", "iterations": iterations}
        rows = run(demo.driver, demo.connection, query("pagerank"), given).rows
        (change,) = {row[5] for row in rows}
        moved.append(change)
        wanted = of_atlas(demo.atlas, 3)
        error = sum(abs(row[3] - wanted[f"{row[1]}/{row[2]}"]) for row in rows)
        assert error < 3 * change + 1e-12
    assert moved[0] > 0.01
    assert moved[2] < 1e-12 < moved[1]


@pytest.fixture
def toy(connection: Connection, tmp_path: Path) -> Iterator[Loaded]:
    """A small made atlas, without any activation in the database, and a class without counts."""
    path = made.atlas(tmp_path / "toy", made.images(60), key="toy-pagerank")
    header = json.loads((path / "atlas.json").read_text(encoding="utf-8"))
    header["ranking"] = Ranking().describe()
    (path / "atlas.json").write_text(json.dumps(header), encoding="utf-8")
    yield from loaded(path, connection)


@pytest.mark.parametrize("name", RANKERS)
def test_without_activations_walkers_start_everywhere(toy: Loaded, name: str) -> None:
    with write_session(toy.driver, toy.connection) as session:
        key = f"{toy.key}/class/2"
        session.run("MATCH (:Class {key: $key})-[a:ACTIVATES]->() DELETE a", key=key).consume()
        # The made ranking ranks other neurons than those of the graph.
        session.run(
            "MATCH (c:Class {key: $key}) OPTIONAL MATCH (c)-[r:RANKS]->() DELETE r "
            "WITH DISTINCT c MATCH (n:Neuron)-[e:INFLUENCES]-() WHERE e.class = $key "
            "WITH DISTINCT c, n CREATE (c)-[:RANKS {pagerank: 0.0, rank: 1}]->(n)",
            key=key,
        ).consume()
    names = {layer.number: layer.name for layer in toy.atlas.layers}
    graph: networkx.Graph[str] = networkx.Graph()
    for row in toy.atlas.generation.of_class("edges", 2).to_pylist():
        source = f"{names[row['source_layer']]}/{row['source']}"
        target = f"{names[row['target_layer']]}/{row['target']}"
        graph.add_edge(source, target, weight=row["count"])
    assert_near(toy.ranks(name, 2), networkx.pagerank(graph, tol=1e-15, max_iter=1000))


@pytest.mark.parametrize("name", [*RANKERS, "select"])
def test_a_class_without_edges_has_no_ranks(toy: Loaded, name: str) -> None:
    with write_session(toy.driver, toy.connection) as session:
        key = f"{toy.key}/class/5"
        for text in (
            "MATCH ()-[e:INFLUENCES {class: $key}]->() DELETE e",
            "MATCH (:Class {key: $key})-[r:RANKS]->() DELETE r",
        ):
            session.run(text, key=key).consume()
    assert run(toy.driver, toy.connection, query(name), {"class": key}).rows == ()


def test_projections_are_dropped(demo: Loaded) -> None:
    before = demo.projections()
    demo.ranks("pagerank-gds", 3)
    assert demo.projections() == before


def test_a_projection_that_a_failure_left_is_dropped_later(demo: Loaded) -> None:
    """An impossible damping fails between projection and drop."""
    before = set(demo.projections())
    with pytest.raises(DatabaseError, match="dampingFactor"):
        demo.ranks("pagerank-gds", 3, damping=1.0)
    (left,) = set(demo.projections()) - before
    assert left.startswith("summit-graph/")
    asked = query("pagerank-gds")
    at_once = asked.text.replace("duration({minutes: 10})", "duration({minutes: 0})")
    assert at_once != asked.text
    with read_session(demo.driver, demo.connection) as session:
        given = {"class": f"{demo.key}/class/3", "damping": None, "iterations": 1000}
        session.run(at_once, given).consume()  # type: ignore[arg-type]
    assert left not in demo.projections()


def test_the_long_term_server_ranks_alike(lts_connection: Connection, demo_atlas: Path) -> None:
    for model in loaded(demo_atlas, lts_connection):
        for index in (0, 8):
            assert_near(model.ranks("pagerank", index), of_atlas(model.atlas, index))
            assert_selected(model, index)

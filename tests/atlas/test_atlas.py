from __future__ import annotations

import shutil
from pathlib import Path

import duckdb
import networkx
import pyarrow as pa
import pytest
from atlas import made

from summit_graph.atlas.atlas import Atlas
from summit_graph.atlas.interface import Graphs
from summit_graph.atlas.store import Store
from summit_graph.errors import AtlasError, UnknownClass, UnknownLayer, UnknownNeuron

IMAGES = made.images(60)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made.atlas(tmp_path_factory.mktemp("atlas") / "atlas", IMAGES)


@pytest.fixture
def atlas(path: Path):
    with Atlas.open(path) as opened:
        yield opened


@pytest.fixture(scope="module")
def sums():
    return made.sums(IMAGES)


def names(number: int) -> str:
    return made.LAYERS[number].name


def test_it_answers_the_questions_of_every_backend(atlas: Atlas) -> None:
    graphs: Graphs = atlas
    questions = [name for name in vars(Graphs) if not name.startswith("_")]
    assert len(questions) == 14
    for name in questions:
        assert hasattr(graphs, name)
        assert getattr(Atlas, name).__doc__ or isinstance(getattr(Atlas, name), property)
    assert not graphs.partial


def test_classes(atlas: Atlas, sums) -> None:
    assert [record.index for record in atlas.classes] == [0, 2, 5]
    for record, row in zip(atlas.classes, sums["classes"], strict=True):
        assert (record.index, record.name, record.synset, record.images) == row[:4]
        assert (record.top1, record.top5) == pytest.approx(row[4:6])
        assert record.probability == tuple(row[6])
        assert record.mass == 0.075
        assert record.threshold is None
        assert record.converged is True
        assert record.unconnected == ("mixed/a",)


def test_layers_are_the_chosen_ones(atlas: Atlas) -> None:
    assert [layer.name for layer in atlas.layers] == ["stem", "mixed/a", "mixed/b"]


@pytest.mark.parametrize("index", [0, 2, 5])
def test_an_attribution_graph_is_the_kept_neurons_and_the_edges_between(
    atlas: Atlas, path: Path, sums, index: int
) -> None:
    graph = atlas.attribution_graph(index)
    images = graph.record.images
    counts = {row[1:3]: row[3] for row in sums["activations"] if row[0] == index}
    tables = made.tables(path)
    kept = sorted(
        (row for row in made.rows(tables["ranks"]) if row[0] == index and row[5]),
        key=lambda row: row[4],
    )
    assert [
        (neuron.name, neuron.layer, neuron.channel, neuron.pagerank, neuron.rank)
        for neuron in graph.neurons
    ] == [(f"{names(row[1])}/{row[2]}", names(row[1]), *row[2:5]) for row in kept]
    for neuron, row in zip(graph.neurons, kept, strict=True):
        assert neuron.count == counts[row[1:3]]
        assert neuron.share == neuron.count / images
    inside = {row[1:3] for row in kept}
    edges = sorted(
        (
            row
            for row in made.rows(tables["edges"])
            if row[0] == index and row[1:3] in inside and row[3:5] in inside
        ),
        key=lambda row: (-row[5], row[1:5]),
    )
    assert edges
    assert [(edge.source, edge.target, edge.count, edge.share) for edge in graph.edges] == [
        (f"{names(row[1])}/{row[2]}", f"{names(row[3])}/{row[4]}", row[5], row[5] / images)
        for row in edges
    ]


def test_a_graph_as_networkx_and_as_tables(atlas: Atlas) -> None:
    graph = atlas.attribution_graph("white wolf")
    found = graph.to_networkx()
    assert isinstance(found, networkx.DiGraph)
    assert found.graph["name"] == "white wolf"
    assert list(found) == [neuron.name for neuron in graph.neurons]
    assert found.nodes[graph.neurons[0].name]["rank"] == 1
    assert set(found.edges) == {(edge.source, edge.target) for edge in graph.edges}
    order = [layer.name for layer in atlas.layers]
    for source, target, values in found.edges(data=True):
        assert order.index(found.nodes[source]["layer"]) < order.index(found.nodes[target]["layer"])
        assert values["share"] == values["count"] / graph.record.images
    neurons, edges = graph.neurons_table(), graph.edges_table()
    assert [tuple(row.values()) for row in neurons.to_pylist()] == [
        tuple(vars(neuron).values()) for neuron in graph.neurons
    ]
    assert edges.column("count").to_pylist() == [edge.count for edge in graph.edges]
    assert edges.schema.field("count").type == pa.int32()
    with pytest.raises(AttributeError):
        graph.neurons[0].rank = 3  # type: ignore[misc]


def test_activations(atlas: Atlas, sums) -> None:
    chosen = [row for row in sums["activations"] if row[1] != 1]
    images = {record.index: record.images for record in atlas.classes}
    found = made.rows(atlas.activations())
    assert [row[:4] for row in found] == [(row[0], names(row[1]), *row[2:]) for row in chosen]
    assert [row[4] for row in found] == [row[3] / images[row[0]] for row in chosen]
    some = made.rows(atlas.activations("tench", "mixed/b"))
    assert some == [row for row in found if row[0] == 2 and row[1] == "mixed/b"]
    assert some
    with pytest.raises(UnknownLayer, match=r"no layer is called 'stem/reduce'. This atlas has: s"):
        atlas.activations(layer="stem/reduce")
    with pytest.raises(UnknownClass):
        atlas.activations("cat")


def test_a_neuron_and_the_classes_it_matters_to(atlas: Atlas, path: Path, sums) -> None:
    tables = made.tables(path)
    for layer in (0, 2, 3):
        for channel in range(made.CHANNELS):
            view = atlas.neuron(f"{names(layer)}/{channel}")
            assert (view.layer, view.channel) == (names(layer), channel)
            ranks = {
                row[0]: row for row in made.rows(tables["ranks"]) if row[1:3] == (layer, channel)
            }
            active = {row[0]: row[3] for row in sums["activations"] if row[1:3] == (layer, channel)}
            assert {entry.index for entry in view.classes} == set(ranks) | set(active)
            for entry in view.classes:
                row = ranks[entry.index]
                assert (entry.pagerank, entry.rank, entry.selected) == row[3:]
                assert entry.count == active[entry.index]
            keys = [(not entry.selected, -(entry.pagerank or 0)) for entry in view.classes]
            assert keys == sorted(keys)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("stem", "has to be <layer>/<channel>"),
        ("stem/x", "has to be <layer>/<channel>"),
        ("stem/-1", "has to be <layer>/<channel>"),
        ("stem/²", "has to be <layer>/<channel>"),
        ("stem/6", "stem has the channels 0 to 5"),
        ("stem/reduce/1", "This atlas has: stem, mixed/a, mixed/b"),
        ("", "has to be <layer>/<channel>"),
    ],
)
def test_no_such_neuron(atlas: Atlas, name: str, message: str) -> None:
    with pytest.raises(UnknownNeuron, match=message):
        atlas.neuron(name)


def test_neighbours(atlas: Atlas, path: Path) -> None:
    edges = [row for row in made.rows(made.tables(path)["edges"]) if row[0] == 0]
    found = atlas.neighbours("mixed/a/2", "white wolf", limit=4)
    into = sorted((row for row in edges if row[3:5] == (2, 2)), key=lambda row: (-row[5], row[1:3]))
    out = sorted((row for row in edges if row[1:3] == (2, 2)), key=lambda row: (-row[5], row[3:5]))
    assert [(edge.source, edge.count) for edge in found.sources] == [
        (f"{names(row[1])}/{row[2]}", row[5]) for row in into[:4]
    ]
    assert [(edge.target, edge.count) for edge in found.targets] == [
        (f"{names(row[3])}/{row[4]}", row[5]) for row in out[:4]
    ]
    assert {edge.target for edge in found.sources} == {"mixed/a/2"}


def test_two_classes_beside_each_other(atlas: Atlas) -> None:
    found = atlas.compare("white wolf", "tench")
    first, second = atlas.attribution_graph(0), atlas.attribution_graph(2)
    assert (found.first, found.second) == (first.record, second.record)
    mine, theirs = ({neuron.name for neuron in graph.neurons} for graph in (first, second))
    assert {neuron.name for neuron in found.shared} == mine & theirs
    assert found.only_first == tuple(n for n in first.neurons if n.name not in theirs)
    assert found.only_second == tuple(n for n in second.neurons if n.name not in mine)
    assert found.shared
    for neuron in found.shared:
        assert neuron.first in first.neurons
        assert neuron.second in second.neurons
    sums = [neuron.first.pagerank + neuron.second.pagerank for neuron in found.shared]
    assert sums == sorted(sums, reverse=True)


def test_similar_confused_and_speaking(atlas: Atlas, sums) -> None:
    similar = atlas.similar("white wolf")
    assert [(other.index, other.cosine) for other in similar] == [(2, 1 / 3), (5, 1 / 6)]
    assert [other.index for other in atlas.similar(0, layer="stem", limit=1)] == [2]
    assert atlas.similar(0, layer="mixed/a") == ()
    images = atlas.find(0).images
    confused = sorted(
        (row for row in sums["confusions"] if row[0] == 0), key=lambda row: (-row[2], row[1])
    )
    assert [(row.index, row.count, row.share) for row in atlas.confusions(0)] == [
        (row[1], row[2], row[2] / images) for row in confused
    ]
    assert {row.name for row in atlas.confusions(0) if row.index == -1} == {None}
    votes = sorted(
        (row for row in sums["raw_votes"] if row[0] == 0 and row[1] != 1),
        key=lambda row: (-row[3], row[1:3]),
    )
    assert [(vote.name, vote.count) for vote in atlas.votes(0)] == [
        (f"{names(row[1])}/{row[2]}", row[3]) for row in votes
    ]
    assert atlas.votes(0, limit=2) == atlas.votes(0)[:2]


def test_places_of_classes(atlas: Atlas, tmp_path: Path) -> None:
    found = [(point.index, point.name, point.x, point.y) for point in atlas.embedding("mixed/a")]
    assert found == [
        (2, "tench, Tinca tinca", 2 - 2 / 3, 1 / 3),
        (5, "never seen", 2 - 5 / 3, 1 / 6),
    ]
    assert [point.index for point in atlas.embedding("stem")] == [0, 2, 5]
    assert atlas.embedding("mixed/b") == ()
    with pytest.raises(UnknownLayer, match="no layer is called 'stem/reduce'"):
        atlas.embedding("stem/reduce")
    path = made.atlas(tmp_path / "atlas", made.images(12), ranked=False)
    with (
        Atlas.open(path) as without,
        pytest.raises(AtlasError, match=r"without an embedding.*`summit-graph rank`"),
    ):
        without.embedding("stem")


def test_examples(atlas: Atlas, sums) -> None:
    paths = [row[1] for row in sums["images"]]
    found = atlas.examples("mixed/b/3")
    expected = [row for row in sums["examples"] if row[1:3] == (3, 3)]
    assert len(found) == 3
    assert [
        (one.rank, one.image, one.path, one.activation, one.row, one.column) for one in found
    ] == [(row[3], row[4], paths[row[4]], *row[5:]) for row in expected]
    assert atlas.examples("mixed/b/3", "tench") == ()


def test_info_and_images(atlas: Atlas, sums) -> None:
    info = atlas.info()
    assert info["key"] == "toy-0"
    assert info["identity"]["parameters"]["k"] == 5
    assert info["counted"]["images"] == 60
    assert "ranks" in info["tables"]
    assert made.rows(atlas.images) == sums["images"]


def test_what_is_no_atlas_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(AtlasError, match=r"no such folder. Make one with `summit-graph ingest"):
        Atlas.open(tmp_path / "x")
    with pytest.raises(AtlasError, match=r"is not an atlas"):
        Atlas.open(tmp_path)
    with Store.create(tmp_path / "new", made.description()) as store:
        store.plan(IMAGES)
    with pytest.raises(AtlasError, match=r"are not counted yet. Run the same `summit-graph ingest"):
        Atlas.open(tmp_path / "new")
    unranked = made.atlas(tmp_path / "unranked", IMAGES[:6], ranked=False)
    with Atlas.open(unranked) as atlas:
        assert atlas.find(0).neurons is None
        assert atlas.activations(0).num_rows
        with pytest.raises(AtlasError, match=r"no table 'ranks' yet. Run `summit-graph rank`"):
            atlas.attribution_graph(0)


def test_a_copy_without_links_can_be_read_and_not_written(path: Path, tmp_path: Path) -> None:
    shutil.copytree(path, tmp_path / "links", symlinks=True)
    shutil.copytree(path, tmp_path / "plain", symlinks=False)
    with Atlas.open(path) as atlas:
        for copy in ("links", "plain"):
            with Atlas.open(tmp_path / copy) as other:
                assert other.attribution_graph(0) == atlas.attribution_graph(0)
    Store.open_for_writing(tmp_path / "links").close()
    with pytest.raises(AtlasError, match=r"copied without its symbolic links"):
        Store.open_for_writing(tmp_path / "plain")


def test_the_tables_are_read_without_this_package(path: Path, atlas: Atlas) -> None:
    rows = duckdb.sql(
        f"SELECT layer, channel FROM '{path}/ranks.parquet' "
        f"JOIN '{path}/classes.parquet' USING (class) "
        "WHERE name = 'white wolf' AND selected ORDER BY rank"
    ).fetchall()
    assert [f"{names(layer)}/{channel}" for layer, channel in rows] == [
        neuron.name for neuron in atlas.attribution_graph(0).neurons
    ]

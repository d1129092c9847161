"""One suite for both backends: an atlas on disk and the same atlas in Neo4j.

The atlases below are loaded side by side. What `Graphs` promises is held of either backend; then
every question is put to both, and their answers, or their refusals, have to be equal.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pytest
from atlas import made
from graphdb import atlases
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from summit_graph.atlas.atlas import Atlas
from summit_graph.atlas.generation import locate
from summit_graph.atlas.interface import Graphs
from summit_graph.atlas.schema import ClassEntry
from summit_graph.atlas.summit import import_summit
from summit_graph.errors import (
    AtlasError,
    SummitGraphError,
    UnknownClass,
    UnknownLayer,
    UnknownNeuron,
)
from summit_graph.graphdb.connection import Connection
from summit_graph.graphdb.database import GraphDB
from summit_graph.graphdb.load import load, unload


def by_prediction(path: Path) -> Path:
    """Grouped by prediction, and none of its images has a label."""
    images = [image._replace(label=None) for image in made.images(30)]
    return made.atlas(path, images, grouping="prediction", key="graphs")


def without_embedding(path: Path) -> Path:
    """As an atlas is that was made so, or before there was one."""
    made = atlases.toy(path, 12, key="graphs flat")
    (locate(made) / "embedding.parquet").unlink()
    return made


MADE: dict[str, Callable[[Path], Path]] = {
    "toy": lambda path: atlases.toy(path, 60, key="graphs toy"),
    "hostile": lambda path: atlases.hostile(path, key="'}) \"` //graphs"),
    "by prediction": by_prediction,
    "without embedding": without_embedding,
}
"""Made atlases. The key of one begins like that of another."""


class Pair(NamedTuple):
    """An atlas, and what was loaded from it."""

    atlas: Atlas
    database: GraphDB


def opened(connection: Connection, key: str) -> GraphDB:
    return GraphDB.open(
        key,
        uri=connection.uri,
        user=connection.user,
        password=connection.password,
        database=connection.database,
    )


@pytest.fixture(scope="module")
def paths(
    tmp_path_factory: pytest.TempPathFactory, demo_atlas: Path, test_data: Path
) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("atlases")
    found = {name: make(folder / name) for name, make in MADE.items()}
    published = folder / "published"
    published.mkdir()
    for index in (0, 8, 111, 270, 999):
        name = f"ag-{index}.json"
        shutil.copy(test_data / "summit-published" / "data" / "ag" / name, published / name)
    import_summit(published, folder / "imported", classes_file=test_data / "imagenet-classes.csv")
    return {**found, "demo": demo_atlas, "published": folder / "imported"}


@pytest.fixture(scope="module", params=["connection", "lts_connection"])
def pairs(request: pytest.FixtureRequest, paths: dict[str, Path]) -> Iterator[dict[str, Pair]]:
    """All atlases, loaded side by side."""
    connection: Connection = request.getfixturevalue(request.param)
    with ExitStack() as stack:
        found = {}
        for name, path in paths.items():
            atlas = stack.enter_context(Atlas.open(path))
            report = load(atlas, connection)
            if not report.already:
                stack.callback(unload, report.key, connection)
            found[name] = (atlas, report.key)
        yield {
            name: Pair(atlas, stack.enter_context(opened(connection, key)))
            for name, (atlas, key) in found.items()
        }


CASES = [*MADE, "demo", "published"]


@pytest.fixture(params=CASES)
def pair(request: pytest.FixtureRequest, pairs: dict[str, Pair]) -> Pair:
    return pairs[request.param]


@pytest.fixture(params=["atlas", "database"])
def graphs(request: pytest.FixtureRequest, pair: Pair) -> Graphs:
    return getattr(pair, request.param)


# What is promised of either -------------------------------------------------------------------


def shared(count: int, images: int | None) -> float | None:
    if images is None:
        return None
    return count / images if images else 0.0


def place(graphs: Graphs, name: str) -> tuple[int, int]:
    """Where a neuron stands in the order of layers and channels."""
    layer, _, channel = name.rpartition("/")
    return [entry.name for entry in graphs.layers].index(layer), int(channel)


def neurons(graphs: Graphs) -> list[str]:
    return [
        f"{layer.name}/{channel}" for layer in graphs.layers for channel in range(layer.channels)
    ]


def some_neurons(graphs: Graphs) -> list[str]:
    """Neurons from all over the layers, and the first of each attribution graph."""
    names = neurons(graphs)
    chosen = {names[number * (len(names) - 1) // 8] for number in range(9)}
    for record in graphs.classes:
        chosen |= {neuron.name for neuron in graphs.attribution_graph(record.index).neurons[:1]}
    return sorted(chosen)


def test_attribution_graphs(graphs: Graphs) -> None:
    for record in graphs.classes:
        graph = graphs.attribution_graph(record.name)
        assert graph.record == record == graphs.find(record.index)
        names = [neuron.name for neuron in graph.neurons]
        assert (len(names), len(set(names))) == (record.neurons, record.neurons)
        assert [neuron.rank for neuron in graph.neurons] == list(range(1, len(names) + 1))
        for first, second in pairwise(graph.neurons):
            assert first.pagerank >= second.pagerank
        for neuron in graph.neurons:
            assert neuron.name == f"{neuron.layer}/{neuron.channel}"
            assert neuron.share == shared(neuron.count, record.images)
        keys = [
            (-edge.count, place(graphs, edge.source), place(graphs, edge.target))
            for edge in graph.edges
        ]
        assert keys == sorted(keys)
        for edge, (_, source, target) in zip(graph.edges, keys, strict=True):
            assert source[0] < target[0]
            assert {edge.source, edge.target} <= set(names)
            assert edge.share == shared(edge.count, record.images)


def test_neighbours_have_the_edges_of_the_attribution_graph(graphs: Graphs) -> None:
    record = graphs.classes[0]
    graph = graphs.attribution_graph(record.index)
    for neuron in graph.neurons:
        found = graphs.neighbours(neuron.name, record.index, limit=10**6)
        for side, end in ((found.sources, "target"), (found.targets, "source")):
            assert {getattr(edge, end) for edge in side} <= {neuron.name}
            assert {edge for edge in graph.edges if getattr(edge, end) == neuron.name} <= set(side)
            counts = [edge.count for edge in side]
            assert counts == sorted(counts, reverse=True)
        assert graphs.neighbours(neuron.name, record.index).sources == found.sources[:10]


def test_places(graphs: Graphs, request: pytest.FixtureRequest) -> None:
    names = {record.index: record.name for record in graphs.classes}
    for layer in graphs.layers:
        if graphs.partial or request.node.callspec.params["pair"] == "without embedding":
            with pytest.raises(AtlasError, match=r"are not known|`summit-graph rank`"):
                graphs.embedding(layer.name)
            continue
        points = graphs.embedding(layer.name)
        indices = [point.index for point in points]
        assert indices == sorted(set(indices))
        assert all(point.name == names[point.index] for point in points)


def test_activations_are_what_neurons_and_graphs_say(graphs: Graphs) -> None:
    table = graphs.activations()
    rows = made.rows(table)
    assert [str(field.type) for field in table.schema] == [
        "int32",
        "string",
        "int32",
        "int32",
        "double",
    ]
    order = [layer.name for layer in graphs.layers]
    keys = [(row[0], order.index(row[1]), row[2]) for row in rows]
    assert keys == sorted(set(keys))
    counts = {(row[0], f"{row[1]}/{row[2]}"): row[3] for row in rows}
    for record in graphs.classes:
        for neuron in graphs.attribution_graph(record.index).neurons:
            assert counts.get((record.index, neuron.name), 0) == neuron.count
    for name in some_neurons(graphs):
        view = graphs.neuron(name)
        active = {index for index, other in counts if other == name}
        assert {seen.index for seen in view.classes if seen.count} == active
        for seen in view.classes:
            graph = graphs.attribution_graph(seen.index)
            assert seen.selected == (name in {neuron.name for neuron in graph.neurons})


# Equal answers --------------------------------------------------------------------------------

Question = tuple[str, tuple[Any, ...]]
LIMITS = (0, 1, 3, 10**6)


def questions(graphs: Graphs) -> Iterator[Question]:
    """Everything that can be asked of these classes, layers and neurons, and what cannot."""
    layers = [layer.name for layer in graphs.layers]
    names = some_neurons(graphs)
    yield "activations", ()
    for layer in (*layers, "none", ""):
        yield "activations", (None, layer)
        yield "embedding", (layer,)
    for record in (*graphs.classes, None):
        index = -7 if record is None else record.index
        spelled = {"nothing", ""} if record is None else {record.name, str(record.synset)}
        for name in (index, *spelled):
            for method in ("find", "attribution_graph", "activations", "similar", "confusions"):
                yield method, (name,)
        for limit in (None, *LIMITS):
            yield "votes", (index, limit)
        for layer in (None, *layers, "none"):
            yield "activations", (index, layer)
            for limit in LIMITS:
                yield "similar", (index, layer, limit)
        for other in graphs.classes:
            yield "compare", (index, other.index)
        for neuron in (*names, f"{layers[0]}/9999", "none/1", "none", ""):
            yield "examples", (neuron, index)
            for limit in (2, 10**6):
                yield "neighbours", (neuron, index, limit)
    for neuron in (*names, f"{names[0]}9", "none/1", f"{layers[0]}/007", "none", ""):
        yield "neuron", (neuron,)
        yield "examples", (neuron,)


def answer(graphs: Graphs, question: Question) -> Any:
    method, arguments = question
    try:
        found = getattr(graphs, method)(*arguments)
    except SummitGraphError as error:
        return type(error), str(error)
    # As text, 1 is not 1.0, and every float is told from every other.
    return found if isinstance(found, pa.Table) else repr(found)


def test_answers_and_refusals_are_equal(pair: Pair) -> None:
    atlas, database = pair
    for fact in ("partial", "layers", "classes"):
        assert repr(getattr(atlas, fact)) == repr(getattr(database, fact))
    asked = list(questions(atlas))
    refused = set()
    for question in asked:
        expected = answer(atlas, question)
        assert answer(database, question) == expected, question
        if isinstance(expected, tuple):
            refused.add(expected[0])
    assert len(asked) > 300
    assert {UnknownClass, UnknownLayer, UnknownNeuron} <= refused
    placed = {type(answer(atlas, ("embedding", (layer.name,)))) for layer in atlas.layers}
    assert placed == {str if atlas.generation.has("embedding") else tuple}
    assert (AtlasError in refused) == (atlas.partial or not atlas.generation.has("embedding"))


def test_both_have_all_of_the_interface(pair: Pair) -> None:
    for name in (name for name in vars(Graphs) if not name.startswith("_")):
        for backend in pair:
            described = getattr(type(backend), name)
            assert described.__doc__ or isinstance(described, cached_property)


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_any_name_means_the_same(pair: Pair, data: st.DataObject) -> None:
    atlas, database = pair
    known = [record.name for record in atlas.classes]
    known += [layer.name for layer in atlas.layers]
    some = st.sampled_from(known).flatmap(
        lambda name: st.sampled_from([name, name[1:], name[:-1], name.upper(), f"{name}/1"])
    )
    name = data.draw(st.one_of(st.text(), some, st.integers(-2, 1001)))
    asked: list[Question] = [("find", (name,))]
    if isinstance(name, str):
        asked += [("neuron", (name,)), ("examples", (f"{name}/0",)), ("similar", (0, name))]
    for question in asked:
        assert answer(database, question) == answer(atlas, question)


@settings(
    max_examples=3, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    names=st.lists(
        st.text(st.characters(exclude_categories=["Cs"]), min_size=1), min_size=60, max_size=60
    ),
    number=st.integers(0, 10**9),
)
def test_any_text_arrives(
    connection: Connection, tmp_path: Path, names: list[str], number: int
) -> None:
    """Classes, synsets, layers and paths may be called anything."""
    distinct = list(dict.fromkeys(names))
    classes = [
        ClassEntry(index, name, distinct[-index - 1], (index,))
        for index, name in enumerate(distinct)
    ]
    layers = [
        layer._replace(name=f"{layer.number} {name}")
        for layer, name in zip(made.LAYERS, reversed(names), strict=False)
    ]
    images = [
        image._replace(path=f"{image.path} {name}")
        for image, name in zip(made.images(12), names, strict=False)
    ]
    path = made.atlas(
        tmp_path / str(number), images, classes=classes, layers=layers, key="any text"
    )
    with Atlas.open(path) as atlas:
        load(atlas, connection, replace=True)
        with opened(connection, "any text") as database:
            assert database.classes == atlas.classes
            assert database.layers == atlas.layers
            for neuron in neurons(atlas):
                assert database.examples(neuron) == atlas.examples(neuron)
    unload("any text", connection)

"""A model in Neo4j is drawn as its atlas is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from view.test_widget import click, nodes, shown_edges, trouble

from summit_graph import Atlas, GraphDB, explore
from summit_graph.errors import DatabaseError
from summit_graph.graphdb.connection import Connection
from summit_graph.graphdb.load import load, unload
from summit_graph.view.figure import attribution_figure, figure_bytes
from summit_graph.view.widget import attribution_widget


@pytest.fixture(scope="module")
def loaded(connection: Connection, demo_atlas: Path) -> Iterator[tuple[Atlas, GraphDB]]:
    report = load(demo_atlas, connection)
    with (
        Atlas.open(demo_atlas) as atlas,
        GraphDB.open(
            report.key,
            uri=connection.uri,
            user=connection.user,
            password=connection.password,
            database=connection.database,
        ) as database,
    ):
        yield atlas, database
    unload(report.key, connection)


def test_figures_are_the_same_to_the_byte(loaded: tuple[Atlas, GraphDB]) -> None:
    for compare in ("eight", ("eight", "five")):
        one, other = (
            figure_bytes(attribution_figure(graphs, "three", compare=compare), "svg")
            for graphs in loaded
        )
        assert one == other


def test_the_widget_draws_asks_and_grows_the_same(
    loaded: tuple[Atlas, GraphDB], demo_atlas: Path
) -> None:
    atlas, database = loaded
    widgets = [attribution_widget(graphs, "three", pictures=demo_atlas) for graphs in loaded]
    for neuron in ("conv3/14", "conv2/4"):
        for widget in widgets:
            widget._grow.value = True
            click(widget, neuron)
            assert not trouble(widget)
        one, other = widgets
        assert nodes(one) == nodes(other)
        assert shown_edges(one) == shown_edges(other)
        assert one._details.value == other._details.value
        assert one._elsewhere.options == other._elsewhere.options
    assert len(nodes(widgets[1])) > len(atlas.attribution_graph("three").neurons)
    assert "name the atlas that has pictures" in attribution_widget(database, 3)._heading.value


def test_the_views_are_the_same(loaded: tuple[Atlas, GraphDB]) -> None:
    one, other = (explore(graphs, "three") for graphs in loaded)
    for explorer in (one, other):
        explorer.choose("eight")
        explorer.compared = (3, 5)
        explorer.layer = "conv1"
        explorer._sort.value = "similar"
        assert not trouble(explorer)
    assert one._card.value == other._card.value
    assert one._list.options == other._list.options
    assert one._said.value == other._said.value
    (points,), (others,) = one._stage.children, other._stage.children
    assert points.cytoscape_layout == others.cytoscape_layout
    assert points.cytoscape_style == others.cytoscape_style
    assert shown_edges(one.attribution) == shown_edges(other.attribution)


def test_a_database_that_is_gone_is_said_in_the_widget(
    connection: Connection, demo_atlas: Path, loaded: tuple[Atlas, GraphDB]
) -> None:
    _, database = loaded
    with GraphDB.open(
        database.key,
        uri=connection.uri,
        user=connection.user,
        password=connection.password,
        database=connection.database,
    ) as short:
        explorer = explore(short, "three")
        short.close()
    explorer.class_index = 8
    assert "closed" in trouble(explorer)
    click(explorer.attribution, "conv3/14")
    assert "closed" in trouble(explorer.attribution)
    with pytest.raises(DatabaseError):
        explorer.attribution.show("eight")

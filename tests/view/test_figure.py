"""A figure shows every neuron and influence of a class once, legibly, and comes out the same."""

from __future__ import annotations

import io
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import matplotlib
import pytest
from matplotlib.text import Text
from matplotlib.transforms import Bbox
from PIL import Image
from view import made

from summit_graph import Atlas
from summit_graph.errors import UsageError
from summit_graph.view import appearance
from summit_graph.view.figure import (
    AttributionFigure,
    attribution_figure,
    figure_bytes,
    save_figure,
)
from summit_graph.view.scene import Owner, flattened, scene, strongest

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def atlas(pictured_atlas: Path) -> Iterator[Atlas]:
    with Atlas.open(pictured_atlas) as opened:
        yield opened


def texts(figure: AttributionFigure) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def svg_texts(content: bytes) -> list[str]:
    root = ElementTree.fromstring(content)
    return ["".join(one.itertext()) for one in root.iter(f"{SVG}text")]


# What a scene holds ---------------------------------------------------------------------------


def test_a_scene_has_the_attribution_graph(atlas: Atlas) -> None:
    for record in atlas.classes:
        graph, drawn = atlas.attribution_graph(record.index), scene(atlas, record.index)
        assert [neuron.first for neuron in drawn.neurons] == list(graph.neurons)
        assert [edge.first for edge in drawn.edges] == list(graph.edges)
        most = max(neuron.count for neuron in graph.neurons)
        for neuron in drawn.neurons:
            assert neuron.owner is Owner.FIRST
            assert neuron.first is not None
            assert neuron.side == appearance.side(neuron.first.count, most)
        for edge, known in zip(drawn.edges, graph.edges, strict=True):
            assert drawn.neurons[edge.source].name == known.source
            assert drawn.neurons[edge.target].name == known.target
            assert edge.strength == known.count / graph.edges[0].count
            assert edge.width == appearance.width(known.count, graph.edges[0].count)
            assert edge.opacity == appearance.opacity(known.count, graph.edges[0].count)


def test_a_comparison_has_what_either_class_has(atlas: Atlas) -> None:
    drawn, compared = scene(atlas, "three", "eight"), atlas.compare("three", "eight")
    by_owner = {
        owner: {neuron.name for neuron in drawn.neurons if neuron.owner is owner} for owner in Owner
    }
    assert by_owner == {
        Owner.FIRST: {neuron.name for neuron in compared.only_first},
        Owner.SECOND: {neuron.name for neuron in compared.only_second},
        Owner.SHARED: {neuron.name for neuron in compared.shared},
        Owner.NEITHER: set(),
    }
    assert all(by_owner[owner] for owner in (Owner.FIRST, Owner.SECOND, Owner.SHARED))
    graphs = [atlas.attribution_graph(name) for name in ("three", "eight")]
    edges = [{(edge.source, edge.target): edge for edge in graph.edges} for graph in graphs]
    most = [graph.edges[0].count for graph in graphs]
    for edge in drawn.edges:
        ends = drawn.neurons[edge.source].name, drawn.neurons[edge.target].name
        assert (edge.first, edge.second) == (edges[0].get(ends), edges[1].get(ends))
        strengths = [
            one[ends].count / top for one, top in zip(edges, most, strict=True) if ends in one
        ]
        assert edge.strength == max(strengths)
    assert len(drawn.edges) == len(edges[0].keys() | edges[1].keys())
    with pytest.raises(UsageError, match="'three' cannot be compared with itself"):
        scene(atlas, "three", 3)


@pytest.mark.parametrize("compare", [None, "eight"])
def test_no_two_neurons_touch_and_layers_rise(atlas: Atlas, compare: str | None) -> None:
    for record in atlas.classes:
        if record.name == compare:
            continue
        whole = scene(atlas, record.index, compare)
        assert [row.layer for row in whole.rows] == [layer.name for layer in atlas.layers]
        for drawn in (whole, flattened(whole, 60)):
            row = {row.layer: row for row in drawn.rows}
            heights = [row.y for row in drawn.rows]
            assert heights == sorted(heights, reverse=True)
            for neuron in drawn.neurons:
                assert neuron.y == row[neuron.layer].y
                assert neuron.x - neuron.side / 2 >= row[neuron.layer].left - 1e-9
                assert neuron.x + neuron.side / 2 <= drawn.width + 1e-9
            for one, other in combinations(drawn.neurons, 2):
                apart = (one.side + other.side) / 2 + 10
                assert abs(one.x - other.x) >= apart or abs(one.y - other.y) >= apart
    assert flattened(whole, 1e9) == whole
    assert flattened(whole, 60).height < whole.height


def test_the_strongest_come_first(atlas: Atlas) -> None:
    whole = scene(atlas, "eight")
    few = strongest(whole, neurons=8, edges=5)
    assert [one.first for one in few.neurons] == [one.first for one in whole.neurons[:8]]
    kept = {neuron.name for neuron in few.neurons}
    inside = [edge.first for edge in whole.edges if edge.first is not None]
    inside = [edge for edge in inside if {edge.source, edge.target} <= kept]
    assert [edge.first for edge in few.edges] == inside[:5]
    assert len(inside) > 5
    assert few.width < whole.width


def test_what_is_left_out_takes_its_edges_along(atlas: Atlas) -> None:
    whole = scene(atlas, "three")
    gone = whole.neurons[0].name
    left = whole.without([0], least=0.5)
    assert gone not in {neuron.name for neuron in left.neurons}
    expected = [
        edge.first
        for edge in whole.edges
        if edge.strength >= 0.5 and 0 not in (edge.source, edge.target)
    ]
    assert [edge.first for edge in left.edges] == expected
    for edge in left.edges:
        assert edge.first is not None
        assert left.neurons[edge.source].name == edge.first.source
        assert left.neurons[edge.target].name == edge.first.target


# What a figure shows --------------------------------------------------------------------------


@pytest.mark.parametrize("compare", [None, "eight"])
def test_a_figure_shows_all_of_it(atlas: Atlas, compare: str | None) -> None:
    figure, drawn = (
        attribution_figure(atlas, "three", compare=compare),
        scene(atlas, "three", compare),
    )
    (axes,) = figure.axes
    assert len(axes.images) == len(drawn.neurons)
    (edges,) = axes.collections
    assert len(edges.get_paths()) == len(drawn.edges)
    assert sorted(edges.get_linewidths()) == pytest.approx(
        sorted(edge.width * 0.6 for edge in drawn.edges)
    )
    said = texts(figure)
    for neuron in drawn.neurons:
        assert said.count(str(neuron.channel)) == sum(
            other.channel == neuron.channel for other in drawn.neurons
        )
    for layer in atlas.layers:
        assert layer.name in said
    assert ("three" if compare is None else "three and eight") in said
    assert any(f"{len(drawn.neurons)} neurons" in text for text in said)
    assert ("only in three" in said) == ("in both" in said) == (compare is not None)
    frames = [patch for patch in axes.patches if patch.get_width() > 20]
    shared = sum(neuron.owner is Owner.SHARED for neuron in drawn.neurons)
    assert len(frames) == len(drawn.neurons) + shared


def test_least_and_title(atlas: Atlas) -> None:
    figure = attribution_figure(atlas, "three", least=0.6, title=False)
    counts = [edge.count for edge in atlas.attribution_graph("three").edges]
    strong = sum(count >= 0.6 * counts[0] for count in counts)
    assert 0 < strong < len(counts)
    assert len(figure.axes[0].collections[0].get_paths()) == strong
    assert "three" not in texts(figure)
    for wrong in (-0.1, 1.1, float("nan")):
        with pytest.raises(UsageError, match="between 0 and 1"):
            attribution_figure(atlas, "three", least=wrong)


def test_width(atlas: Atlas) -> None:
    figure = attribution_figure(atlas, "three", width=10)
    assert figure.get_size_inches()[0] == pytest.approx(10)
    natural = attribution_figure(atlas, "three").get_size_inches()
    assert figure.get_size_inches()[1] / 10 == pytest.approx(natural[1] / natural[0])
    with pytest.raises(UsageError, match="above 0 inches"):
        attribution_figure(atlas, "three", width=0)


def test_nothing_covers_a_text(published_atlas: Path) -> None:
    """Titles, names of layers, channel numbers and the legend stand free, inside the figure."""
    with Atlas.open(published_atlas) as atlas:
        for name, compare in (("white wolf", None), ("black bear", "brown bear")):
            figure = attribution_figure(atlas, name, compare=compare)
            renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
            (axes,) = figure.axes
            said = [text for text in axes.texts if text.get_text()]
            boxes = [text.get_window_extent(renderer) for text in said]
            for one, other in combinations(boxes, 2):
                assert Bbox.intersection(one, other) is None
            squares = [patch.get_window_extent(renderer) for patch in axes.patches]
            for text, box in zip(said, boxes, strict=True):
                assert figure.bbox.x0 < box.x0 < box.x1 < figure.bbox.x1
                assert figure.bbox.y0 < box.y0 < box.y1 < figure.bbox.y1
                inside = [square for square in squares if square.overlaps(box)]
                if text.get_text().isdigit():
                    assert inside
                    assert all(square.x0 <= box.x0 and box.x1 <= square.x1 for square in inside)
                else:
                    assert not inside


def test_a_partial_atlas_has_tiles(published_atlas: Path) -> None:
    with Atlas.open(published_atlas) as atlas:
        figure = attribution_figure(atlas, "white wolf")
        record = atlas.find("white wolf")
    assert not figure.axes[0].images
    assert len(figure.axes[0].patches) == record.neurons
    assert f"{record.neurons} neurons and {record.edges} influences." in texts(figure)


# Files ----------------------------------------------------------------------------------------


def test_the_same_atlas_gives_the_same_file(pictured_atlas: Path) -> None:
    for kind, beginning in (("svg", b"<?xml"), ("png", b"\x89PNG"), ("pdf", b"%PDF")):
        made_twice = []
        for _ in range(2):
            with Atlas.open(pictured_atlas) as atlas:
                made_twice.append(figure_bytes(attribution_figure(atlas, "three"), kind))
        assert made_twice[0] == made_twice[1]
        assert made_twice[0].startswith(beginning)
        assert not re.search(rb"\b20\d\d-\d\d-\d\d|\(D:20\d\d", made_twice[0])


def test_saving(atlas: Atlas, tmp_path: Path) -> None:
    figure = attribution_figure(atlas, "three")
    before = dict(matplotlib.rcParams)
    assert save_figure(figure, tmp_path / "three.SVG") == tmp_path / "three.SVG"
    assert dict(matplotlib.rcParams) == before
    said = svg_texts((tmp_path / "three.SVG").read_bytes())
    assert {"three", "conv1", "conv4"} <= set(said)
    save_figure(figure, tmp_path / "three.png", dpi=300)
    with Image.open(tmp_path / "three.png") as image:
        assert image.width == pytest.approx(figure.get_size_inches()[0] * 300, abs=1)
    with pytest.raises(UsageError, match="cannot be written as 'gif'"):
        save_figure(figure, tmp_path / "three.gif")
    assert not (tmp_path / "three.gif").exists()
    with Image.open(io.BytesIO(figure._repr_png_())) as image:
        assert image.width == pytest.approx(figure.get_size_inches()[0] * 144, abs=1)


@pytest.mark.filterwarnings("ignore:Glyph")
def test_names_are_text(thousand_atlas: Path) -> None:
    with Atlas.open(thousand_atlas) as atlas:
        for index in (20, 22, 23, 24, 30, *made.LONG):
            figure = attribution_figure(atlas, index)
            said = "".join(svg_texts(figure_bytes(figure, "svg")))
            shown = made.name(index).replace("\x00", "�").replace("\x07", "�").replace("\t", "�")
            shown = shown.replace("\u2028", "�").replace("\u2029", "�")
            assert shown.replace(" ", "") in said.replace(" ", "")
        empty = attribution_figure(atlas, made.WITHOUT_GRAPH)
        assert any("0 neurons and 0 influences" in text for text in texts(empty))


def test_nothing_heavy_is_imported_before_it_is_used() -> None:
    code = (
        "import sys, summit_graph\n"
        "heavy = {'matplotlib', 'ipywidgets', 'ipycytoscape'} & set(sys.modules)\n"
        "from summit_graph import attribution_figure\n"
        "print(heavy, 'matplotlib.pyplot' in sys.modules, 'ipywidgets' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["set()", "False", "False"]

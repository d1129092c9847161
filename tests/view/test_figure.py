"""A figure shows every neuron and influence of a class once, legibly, and comes out the same."""

from __future__ import annotations

import io
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import matplotlib
import pytest
from matplotlib.colors import to_hex
from matplotlib.font_manager import findfont, get_font
from matplotlib.text import Text
from matplotlib.transforms import Bbox
from PIL import Image
from view import made

from summit_graph import Atlas
from summit_graph.atlas.interface import (
    AttributionGraph,
    ClassRecord,
    EdgeRecord,
    Graphs,
    NeuronRecord,
)
from summit_graph.errors import UsageError
from summit_graph.view import appearance
from summit_graph.view.figure import (
    AttributionFigure,
    attribution_figure,
    figure_bytes,
    save_figure,
    scene_figure,
)
from summit_graph.view.scene import MOST_CLASSES, Scene, _weight, flattened, scene, strongest

SVG = "{http://www.w3.org/2000/svg}"


THREE = ("eight", "five")
"""What "three" is compared with, in pictures of three classes."""


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
        assert [neuron.records for neuron in drawn.neurons] == [(one,) for one in graph.neurons]
        assert [edge.records for edge in drawn.edges] == [(one,) for one in graph.edges]
        most = max(neuron.count for neuron in graph.neurons)
        for neuron, record in zip(drawn.neurons, graph.neurons, strict=True):
            assert (neuron.owners, neuron.shared) == ((0,), False)
            assert neuron.colour == appearance.CLASSES[0]
            assert neuron.side == appearance.side(record.count, most)
        for edge, known in zip(drawn.edges, graph.edges, strict=True):
            assert drawn.neurons[edge.source].name == known.source
            assert drawn.neurons[edge.target].name == known.target
            assert edge.strength == known.count / graph.edges[0].count
            assert edge.width == appearance.width(known.count, graph.edges[0].count)
            assert edge.opacity == appearance.opacity(known.count, graph.edges[0].count)


def test_a_comparison_has_what_either_class_has(atlas: Atlas) -> None:
    drawn, compared = scene(atlas, "three", "eight"), atlas.compare("three", "eight")
    assert drawn.classes == (atlas.find("three"), atlas.find("eight"))
    by_owners: dict[tuple[int, ...], set[str]] = {}
    for neuron in drawn.neurons:
        by_owners.setdefault(neuron.owners, set()).add(neuron.name)
    assert by_owners == {
        (0,): {neuron.name for neuron in compared.only_first},
        (1,): {neuron.name for neuron in compared.only_second},
        (0, 1): {neuron.name for neuron in compared.shared},
    }


@pytest.mark.parametrize("others", [("eight",), THREE, ("eight", "five", "nine")])
def test_a_comparison_is_all_of_its_graphs(atlas: Atlas, others: tuple[str, ...]) -> None:
    """Written again in plain loops: whose a part is, how strong, and in which order they come."""
    graphs = [atlas.attribution_graph(name) for name in ("three", *others)]
    drawn = scene(atlas, "three", others)
    pageranks: dict[str, float] = {}
    for graph in graphs:
        for record in graph.neurons:
            pageranks[record.name] = pageranks.get(record.name, 0.0) + record.pagerank
    rows = [layer.name for layer in atlas.layers]
    assert [neuron.name for neuron in drawn.neurons] == sorted(
        pageranks,
        key=lambda name: (
            -pageranks[name],
            rows.index(name.split("/")[0]),
            int(name.split("/")[1]),
        ),
    )
    for neuron in drawn.neurons:
        found = [
            next((one for one in graph.neurons if one.name == neuron.name), None)
            for graph in graphs
        ]
        assert neuron.records == tuple(found)
        shares = [
            one.count / max(other.count for other in graph.neurons)
            for one, graph in zip(found, graphs, strict=True)
            if one is not None
        ]
        assert neuron.side == pytest.approx(appearance.side(round(max(shares) * 1e9), 10**9))
        has = [at for at, one in enumerate(found) if one is not None]
        assert neuron.owners == tuple(has)
        assert neuron.shared == (len(has) > 1)
        assert neuron.colour == (appearance.SHARED if len(has) > 1 else appearance.CLASSES[has[0]])
    expected = []
    for graph in graphs:
        for edge in graph.edges:
            if (edge.source, edge.target) not in expected:
                expected.append((edge.source, edge.target))
    ends = [
        (drawn.neurons[edge.source].name, drawn.neurons[edge.target].name) for edge in drawn.edges
    ]
    assert ends == expected
    for edge, (source, target) in zip(drawn.edges, ends, strict=True):
        each = [
            next((one for one in graph.edges if (one.source, one.target) == (source, target)), None)
            for graph in graphs
        ]
        assert edge.records == tuple(each)
        assert edge.owners == tuple(at for at, one in enumerate(each) if one is not None)
        assert edge.strength == max(
            one.count / graph.edges[0].count
            for one, graph in zip(each, graphs, strict=True)
            if one is not None
        )


def small_scene(compare: Sequence[int]) -> Scene:
    """Three classes of two layers. The influence of a/0 on b/0 is in the graphs of cat and owl."""
    names = ("cat", "dog", "owl")
    parts: dict[int, tuple[dict[str, tuple[int, float]], dict[tuple[str, str], int]]] = {
        0: (
            {"a/0": (8, 0.125), "b/0": (2, 0.25), "a/2": (1, 0.0625)},
            {("a/2", "b/0"): 8, ("a/0", "b/0"): 4},
        ),
        1: ({"a/0": (3, 0.125), "b/1": (6, 0.5)}, {("a/0", "b/1"): 6}),
        2: (
            {"a/0": (1, 0.125), "a/1": (2, 0.125), "b/0": (4, 0.125)},
            {("a/1", "b/0"): 10, ("a/0", "b/0"): 6},
        ),
    }
    records = [ClassRecord(at, name, None, 10, *[None] * 9) for at, name in enumerate(names)]

    def graph(index: int) -> AttributionGraph:
        neurons, edges = parts[index]
        return AttributionGraph(
            records[index],
            tuple(
                NeuronRecord(name, name[0], int(name[2]), pagerank, 1, count, count / 10)
                for name, (count, pagerank) in neurons.items()
            ),
            tuple(
                EdgeRecord(source, target, count, count / 10)
                for (source, target), count in edges.items()
            ),
        )

    graphs = SimpleNamespace(
        layers=(SimpleNamespace(name="a"), SimpleNamespace(name="b")),
        find=lambda name: records[name],
        attribution_graph=graph,
    )
    return scene(cast(Graphs, graphs), 0, compare)


def test_three_small_graphs_in_one_picture() -> None:
    drawn = small_scene([1, 2])
    assert drawn.names == ["cat", "dog", "owl"]
    # The PageRanks of a/0 and b/0 sum to 0.375 both; the layer decides.
    assert [(one.name, one.owners, one.colour) for one in drawn.neurons] == [
        ("b/1", (1,), appearance.CLASSES[1]),
        ("a/0", (0, 1, 2), appearance.SHARED),
        ("b/0", (0, 2), appearance.SHARED),
        ("a/1", (2,), appearance.CLASSES[2]),
        ("a/2", (0,), appearance.CLASSES[0]),
    ]
    # 6 of 6; 8 of 8, 3 of 6 and 1 of 4; 2 of 8 and 4 of 4; 2 of 4; 1 of 8.
    assert [one.counted.strength for one in drawn.neurons] == [1, 1, 1, 0.5, 0.125]
    edges = [
        (drawn.neurons[edge.source].name, drawn.neurons[edge.target].name, edge.owners)
        for edge in drawn.edges
    ]
    assert edges == [
        ("a/2", "b/0", (0,)),
        ("a/0", "b/0", (0, 2)),
        ("a/0", "b/1", (1,)),
        ("a/1", "b/0", (2,)),
    ]
    # The second is 4 of 8 and 6 of 10.
    assert [edge.strength for edge in drawn.edges] == [1, 0.6, 1, 1]
    assert [[one and one.count for one in edge.records] for edge in drawn.edges] == [
        [8, None, None],
        [4, None, 6],
        [None, 6, None],
        [None, None, 10],
    ]
    assert [_weight(edge) for edge in drawn.edges] == [8, 10, 6, 10]
    swapped = small_scene([2, 1])
    assert swapped.names == ["cat", "owl", "dog"]
    assert [edge.owners for edge in swapped.edges] == [(0,), (0, 1), (1,), (2,)]


def test_a_name_is_one_class_and_nothing_is_no_class(atlas: Atlas) -> None:
    alone = scene(atlas, "three")
    assert scene(atlas, "three", ()) == scene(atlas, "three", []) == alone
    assert scene(atlas, "three", ["eight"]) == scene(atlas, "three", 8)
    assert scene(atlas, "three", (8, "five")) == scene(atlas, 3, THREE)


@pytest.mark.parametrize(
    ("compare", "told"),
    [
        (3, "'three' cannot be compared with itself"),
        (("eight", "three"), "'three' cannot be compared with itself"),
        (("eight", "five", 8), "'eight' cannot be compared with itself"),
        (("eight", "five", "one", "two"), "5 classes are too many for one picture: .* at most 3"),
    ],
)
def test_what_one_picture_cannot_show(atlas: Atlas, compare: Any, told: str) -> None:
    for ask in (
        lambda: scene(atlas, "three", compare),
        lambda: attribution_figure(atlas, "three", compare=compare),
    ):
        with pytest.raises(UsageError, match=told):
            ask()
    assert len(appearance.CLASSES) == MOST_CLASSES


@pytest.mark.parametrize("compare", [(), ("eight",), THREE])
def test_no_two_neurons_touch_and_layers_rise(atlas: Atlas, compare: tuple[str, ...]) -> None:
    for record in atlas.classes:
        if record.name in compare:
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
    assert [one.records for one in few.neurons] == [one.records for one in whole.neurons[:8]]
    kept = {neuron.name for neuron in few.neurons}
    edges = atlas.attribution_graph("eight").edges
    inside = [edge for edge in edges if {edge.source, edge.target} <= kept]
    assert [edge.records for edge in few.edges] == [(edge,) for edge in inside[:5]]
    assert len(inside) > 5
    assert few.width < whole.width


def test_what_is_left_out_takes_its_edges_along(atlas: Atlas) -> None:
    whole = scene(atlas, "three")
    gone = whole.neurons[0].name
    left = whole.without([0], least=0.5)
    assert gone not in {neuron.name for neuron in left.neurons}
    expected = [
        edge.records
        for edge in whole.edges
        if edge.strength >= 0.5 and 0 not in (edge.source, edge.target)
    ]
    assert [edge.records for edge in left.edges] == expected
    for edge in left.edges:
        (record,) = edge.records
        assert record is not None
        assert left.neurons[edge.source].name == record.source
        assert left.neurons[edge.target].name == record.target


# What a figure shows --------------------------------------------------------------------------


@pytest.mark.parametrize("compare", [None, "eight", THREE])
def test_a_figure_shows_all_of_it(atlas: Atlas, compare: str | tuple[str, str] | None) -> None:
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
    title, legend = {
        None: ("three", []),
        "eight": ("three and eight", ["only in three", "only in eight", "in both"]),
        THREE: (
            "three, eight and five",
            ["only in three", "only in eight", "only in five", "in more than one"],
        ),
    }[compare]
    assert title in said
    assert any(f"{len(drawn.neurons)} neurons" in text for text in said)
    assert [text for text in said if text.startswith(("only in ", "in "))] == legend
    used = [*appearance.CLASSES[: len(legend) - 1], appearance.SHARED] if legend else []
    keys = [patch for patch in axes.patches if patch.get_width() == 11]
    assert [to_hex(patch.get_edgecolor()).upper() for patch in keys] == used
    frames = [patch for patch in axes.patches if patch.get_width() > 20]
    shared = sum(neuron.shared for neuron in drawn.neurons)
    assert len(frames) == len(drawn.neurons) + shared
    colours = [to_hex(patch.get_edgecolor()).upper() for patch in frames]
    for colour in {*appearance.CLASSES, appearance.SHARED}:
        assert colours.count(colour) == sum(
            (1 + neuron.shared) * (neuron.colour == colour) for neuron in drawn.neurons
        )
    lines = [to_hex(colour).upper() for colour in edges.get_edgecolor()]
    if compare is None:
        assert set(lines) == {appearance.EDGE}
    else:
        assert sorted(lines) == sorted(edge.colour for edge in drawn.edges)
        assert set(colours) == set(lines) == set(used)


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
        for name, compare in (
            ("white wolf", None),
            ("black bear", "brown bear"),
            ("black bear", ("brown bear", "ice bear", "white wolf")),
        ):
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


@pytest.mark.filterwarnings("error")
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


# Letters that DejaVu Sans lacks ---------------------------------------------------------------

ELSEWHERE = "\u210a"
"""A script g: DejaVu Sans lacks it, STIX, which comes with matplotlib, has it."""

NOWHERE = "\U000f1234"
"""A private-use letter of no font."""


def named(name: str) -> AttributionFigure:
    """A figure of a class of a name."""
    bare = small_scene([])
    return scene_figure(replace(bare, classes=(replace(bare.classes[0], name=name),)))


def families(figure: AttributionFigure, text: str) -> list[str]:
    (found,) = (one for one in figure.findobj(Text) if one.get_text() == text)
    return list(found.get_fontfamily())


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", ["png", "pdf", "svg"])
def test_a_letter_comes_from_a_font_that_has_it(kind: str) -> None:
    figure = named(f"{ELSEWHERE}rass")
    first, other = families(figure, f"{ELSEWHERE}rass")
    assert first == "DejaVu Sans"
    assert ord(ELSEWHERE) not in get_font(findfont(first)).get_charmap()
    assert ord(ELSEWHERE) in get_font(findfont(other)).get_charmap()
    assert families(figure, "a") == ["DejaVu Sans"]
    written = figure_bytes(figure, kind)
    if kind == "svg":
        assert f"{ELSEWHERE}rass" in svg_texts(written)
    if kind == "png":
        plain = figure_bytes(named("grass"), "png")
        boxed = named(f"{ELSEWHERE}rass")
        for text in boxed.findobj(Text):
            text.set_fontfamily(["DejaVu Sans"])
        assert len({written, plain, figure_bytes(boxed, "png")}) == 3


@pytest.mark.filterwarnings("error::UserWarning")
def test_a_letter_of_no_font_is_told_once() -> None:
    figure = named(f"g{NOWHERE}{ELSEWHERE}s")
    assert f"g{NOWHERE}{ELSEWHERE}s" in svg_texts(figure_bytes(figure, "svg"))
    with pytest.warns(UserWarning, match=f"has the letters {NOWHERE}: .* or write SVG") as told:
        figure_bytes(figure, "png")
    assert len(told) == 1
    figure_bytes(figure, "pdf")


def test_fonts_are_looked_through_for_such_letters_only() -> None:
    """A figure of common letters reads one font: looking through all of them takes seconds."""
    code = (
        "import matplotlib.font_manager as fonts\n"
        "from summit_graph.view import figure\n"
        "print(figure._fonts('Gräser, травы'), figure._fallback.cache_info().currsize)\n"
        "print(figure._letters.cache_info().currsize)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["(('DejaVu Sans',), '') 0", "1"]


def test_nothing_heavy_is_imported_before_it_is_used() -> None:
    code = (
        "import sys, summit_graph\n"
        "heavy = {'matplotlib', 'ipywidgets', 'ipycytoscape'} & set(sys.modules)\n"
        "from summit_graph import attribution_figure\n"
        "print(heavy, 'matplotlib.pyplot' in sys.modules, 'ipywidgets' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["set()", "False", "False"]

"""What somebody does with the widget changes what it shows, and what goes wrong is said in it."""

from __future__ import annotations

import base64
import io
import re
import shutil
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any

import networkx
import pytest
from PIL import Image
from view import made

from summit_graph import Atlas, Pictures
from summit_graph.errors import UnknownClass, UnknownNeuron, UsageError
from summit_graph.view import appearance
from summit_graph.view import scene as scenes
from summit_graph.view import widget as widgets
from summit_graph.view.canvas import FADED
from summit_graph.view.widget import AttributionWidget, attribution_widget

HARMLESS = re.compile(r"</?(?:p|h3|h4|span|div|img|style|a)(?: [a-z-]+='[^'<>]*')*>")
"""The only markup that a widget writes."""


@pytest.fixture(scope="module")
def atlas(pictured_atlas: Path) -> Iterator[Atlas]:
    with Atlas.open(pictured_atlas) as opened:
        yield opened


@pytest.fixture
def three(atlas: Atlas) -> AttributionWidget:
    return attribution_widget(atlas, "three")


def graph_of(widget: AttributionWidget) -> Any:
    """The ipycytoscape graph that is shown."""
    (canvas,) = widget._stage.children
    return canvas


def nodes(widget: AttributionWidget) -> dict[str, dict[str, Any]]:
    """What the browser gets for each neuron, by its name."""
    found = [node.data for node in graph_of(widget).graph.nodes if "number" in node.data]
    return {widget._drawn.neurons[data["number"]].name: data for data in found}


def click(widget: AttributionWidget, neuron: str) -> None:
    """A click as it comes from the browser."""
    _send(widget, "node", "click", {"number": nodes(widget)[neuron]["number"]})


def _send(widget: AttributionWidget, kind: str, event: str, data: dict[str, Any]) -> None:
    message = {"event": event, "widget": kind, "data": {"data": data}}
    canvas = graph_of(widget)
    canvas._handle_custom_msg(message, [])


def look(widget: AttributionWidget, kind: str, number: int, **data: Any) -> dict[str, Any]:
    """How an element is drawn, by the rules of the style sheet that fit it, the last one first."""
    found: dict[str, Any] = {}
    for rule in graph_of(widget).cytoscape_style:
        for selector in rule["selector"].split(", "):
            name, _, condition = selector.partition("[")
            condition = condition.rstrip("]")
            fits = name == kind
            if condition.startswith("number = "):
                fits &= int(condition[9:]) == number
            elif condition.startswith("strength < "):
                fits &= data.get("strength", 1.0) < float(condition[11:])
            elif condition in ("picture", "side"):
                fits &= condition in data or condition == "side"
            elif condition:
                fits &= data.get("border") == "double"
            if fits:
                found.update(rule["style"])
    return found


def shown_edges(widget: AttributionWidget) -> set[tuple[str, str]]:
    """The influences that are drawn and not faded, by the names of their ends."""
    drawn = widget._drawn
    hidden = {
        neuron.name
        for neuron in drawn.neurons
        if look(widget, "node", neuron.number).get("display") == "none"
    }
    found = set()
    for number, edge in enumerate(drawn.edges):
        style = look(widget, "edge", number, strength=edge.strength)
        ends = drawn.neurons[edge.source].name, drawn.neurons[edge.target].name
        visible = style.get("display") != "none" and style["opacity"] != FADED
        if visible and not hidden & set(ends):
            found.add(ends)
    return found


def lit(widget: AttributionWidget) -> set[str]:
    """The neurons that are neither hidden nor faded."""
    found = set()
    for neuron in widget._drawn.neurons:
        style = look(widget, "node", neuron.number)
        if style.get("display") != "none" and style.get("opacity", 1) != FADED:
            found.add(neuron.name)
    return found


def trouble(widget: AttributionWidget) -> str:
    return unescape(re.sub(r"<[^>]*>", "", widget._trouble.value))


# What is shown --------------------------------------------------------------------------------


def test_it_has_the_attribution_graph(atlas: Atlas, three: AttributionWidget) -> None:
    graph = atlas.attribution_graph("three")
    assert set(nodes(three)) == {neuron.name for neuron in graph.neurons}
    assert shown_edges(three) == {(edge.source, edge.target) for edge in graph.edges}
    pictures = Pictures(atlas)
    for name, data in nodes(three).items():
        kind, content = data["picture"].split(",", 1)
        assert kind == "data:image/webp;base64"
        assert base64.b64decode(content) == pictures.feature(name)
        assert data["label"] == name.split("/")[1]
    rows = [node for node in graph_of(three).graph.nodes if "number" not in node.data]
    assert [row.data["label"] for row in rows] == [layer.name for layer in atlas.layers]
    assert three.class_index == 3
    assert repr(three) == (
        "AttributionWidget('three': 9 neurons and 21 influences, counted over 94 images)"
    )
    assert "9 neurons and 21 influences" in three._heading.value


def test_positions_are_those_of_the_figure(atlas: Atlas, three: AttributionWidget) -> None:
    drawn = scenes.scene(atlas, "three")
    x = {neuron.name: neuron.x for neuron in drawn.neurons}
    assert {
        three._drawn.neurons[node.data["number"]].name: node.position["x"]
        for node in graph_of(three).graph.nodes
        if "number" in node.data
    } == x


def test_two_classes(atlas: Atlas) -> None:
    widget = attribution_widget(atlas, "three", compare="eight")
    compared = atlas.compare("three", "eight")
    borders = {name: data["border"] for name, data in nodes(widget).items()}
    assert {name for name, border in borders.items() if border == "double"} == {
        neuron.name for neuron in compared.shared
    }
    assert len(borders) == sum(
        map(len, (compared.shared, compared.only_first, compared.only_second))
    )
    assert "three" in widget._heading.value
    assert "eight" in widget._heading.value
    click(widget, compared.shared[0].name)
    details = unescape(widget._details.value)
    assert f"three: rank {compared.shared[0].first.rank} " in details
    assert f"eight: rank {compared.shared[0].second.rank} " in details
    click(widget, compared.only_second[0].name)
    assert "three: not in its attribution graph" in widget._details.value


def test_three_classes(atlas: Atlas) -> None:
    names = ("three", "eight", "five")
    widget = attribution_widget(atlas, "three", compare=("eight", "five"))
    graphs = [atlas.attribution_graph(name) for name in names]
    have = [{neuron.name for neuron in graph.neurons} for graph in graphs]
    shown = nodes(widget)
    assert set(shown) == set.union(*have)
    for name, data in shown.items():
        owners = [at for at, side in enumerate(have) if name in side]
        alone = len(owners) == 1
        assert data["border"] == ("solid" if alone else "double")
        assert data["colour"] == (appearance.CLASSES[owners[0]] if alone else appearance.SHARED)
    assert {data["colour"] for data in shown.values()} == {
        *appearance.CLASSES[:3],
        appearance.SHARED,
    }
    lines = {edge.data["colour"] for edge in graph_of(widget).graph.edges}
    assert lines <= {*appearance.CLASSES[:3], appearance.SHARED}
    assert shown_edges(widget) == {
        (edge.source, edge.target) for graph in graphs for edge in graph.edges
    }
    heading = widget._heading.value
    assert re.search(r">three</span>, <.*>eight</span> and <.*>five</span></h3>", heading)
    for name, colour in zip(names, appearance.CLASSES, strict=False):
        assert f"solid {colour}'>{name}</span>" in heading
    assert "In more than one: " in heading
    assert repr(widget).startswith("AttributionWidget('three', 'eight', 'five': ")
    neuron = next(name for name in shown if name not in have[0] and name in have[2])
    click(widget, neuron)
    details = unescape(widget._details.value)
    assert "three: not in its attribution graph" in details
    rank = next(one.rank for one in graphs[2].neurons if one.name == neuron)
    assert f"five: rank {rank} (PageRank" in details
    assert not {3, 8, 5} & {index for _, index in widget._elsewhere.options}
    number, edge = next(
        (at, edge) for at, edge in enumerate(widget._drawn.edges) if len(edge.owners) > 1
    )
    _send(widget, "edge", "mouseover", {"number": number})
    for at, (name, record) in enumerate(zip(names, edge.records, strict=True)):
        said = record is not None and f"{name}: in {record.count} image"
        assert (said or f"{name}: ") in widget._line.value or at not in edge.owners
        assert (f"{name}: " in widget._line.value) == (at in edge.owners)
    assert widget._grow.disabled
    widget._save.click()
    assert "download='three, eight and five.png'" in widget._links.children[0].value
    widget.show("three", ["eight"])
    assert "In both: " in widget._heading.value
    widget.show("three", ())
    assert not widget._grow.disabled
    assert set(nodes(widget)) == have[0]


def test_wrong_names_are_refused_before_anything_is_shown(atlas: Atlas) -> None:
    with pytest.raises(UnknownClass, match="no class fits 'thirteen'"):
        attribution_widget(atlas, "thirteen")
    with pytest.raises(UsageError, match="cannot be compared with itself"):
        attribution_widget(atlas, "three", compare="three")
    widget = attribution_widget(atlas, "three")
    with pytest.raises(UsageError, match="5 classes are too many"):
        widget.show("three", ("one", "two", "four", "five"))
    assert widget.class_index == 3


def test_a_partial_atlas(published_atlas: Path) -> None:
    with Atlas.open(published_atlas) as atlas:
        widget = attribution_widget(atlas, "white wolf")
        neuron = atlas.attribution_graph("white wolf").neurons[0]
        click(widget, neuron.name)
        assert f"active in {neuron.count} images" in widget._details.value
        assert "%" not in widget._details.value
        assert "the published graphs come without pictures" in widget._heading.value
        assert not trouble(widget)
        assert not any("picture" in data for data in nodes(widget).values())


# What somebody does ---------------------------------------------------------------------------


def test_a_click_gives_details(atlas: Atlas, three: AttributionWidget) -> None:
    assert "Click a neuron" in three._details.value
    neuron = atlas.attribution_graph("three").neurons[0]
    click(three, neuron.name)
    assert three.neuron == neuron.name == three._neurons.value
    details = unescape(three._details.value)
    assert f"rank 1 (PageRank {neuron.pagerank:.4f}), active in {neuron.count} images" in details
    pictures = Pictures(atlas)
    shown = [base64.b64decode(one) for one in re.findall(r"base64,([^']*)'", details)]
    assert shown == [
        pictures.feature(neuron.name),
        *pictures.diverse(neuron.name),
        *(patch.webp for patch in pictures.patches(neuron.name)),
    ]
    assert len(shown) == 1 + 2 + 10
    for example in atlas.examples(neuron.name):
        assert f"{example.path}, activation {example.activation:.3g}" in details
    edges = atlas.attribution_graph("three").edges
    for edge in [edge for edge in edges if edge.source == neuron.name][:5]:
        assert f"{edge.target} ({edge.count})" in details
    ring = look(three, "node", nodes(three)[neuron.name]["number"])
    assert ring["underlay-opacity"] == 1


def test_without_thumbnails_examples_are_named(
    demo_atlas: Path, atlas: Atlas, tmp_path: Path
) -> None:
    copy = tmp_path / "digits.atlas"
    shutil.copytree(demo_atlas, copy)
    shutil.rmtree(copy / "thumbnails")
    with Atlas.open(copy) as bare:
        widget = attribution_widget(bare, "three")
        click(widget, "conv2/3")
        assert "<img" not in widget._details.value
        best = atlas.examples("conv2/3")[0]
        assert f"{best.path} ({best.activation:.3g})" in unescape(widget._details.value)


def test_the_slider_hides_weak_influences(atlas: Atlas, three: AttributionWidget) -> None:
    edges = atlas.attribution_graph("three").edges
    for least in (0.3, 0.6, 1.0):
        three._least.value = least
        assert three.least == least
        strong = {
            (edge.source, edge.target) for edge in edges if edge.count >= least * edges[0].count
        }
        assert 0 < len(strong) < len(edges)
        assert shown_edges(three) == strong
    three.least = 0
    assert len(shown_edges(three)) == len(edges)


def test_hovering_fades_all_but_its_influences(atlas: Atlas, three: AttributionWidget) -> None:
    edges = atlas.attribution_graph("three").edges
    _send(three, "node", "mouseover", {"number": nodes(three)["conv3/22"]["number"]})
    near = {
        (edge.source, edge.target) for edge in edges if "conv3/22" in (edge.source, edge.target)
    }
    assert shown_edges(three) == near
    assert lit(three) == {end for ends in near for end in ends}
    assert three._line.value.startswith("conv3/22: rank ")
    _send(three, "node", "mouseout", {"number": 0})
    assert len(shown_edges(three)) == len(edges)
    assert three._line.value == ""
    _send(three, "edge", "mouseover", {"number": 4})
    assert shown_edges(three) == {(edges[4].source, edges[4].target)}
    assert unescape(three._line.value) == (
        f"{edges[4].source} → {edges[4].target}: in {edges[4].count} images ({edges[4].share:.0%})"
    )


def test_focus_keeps_the_paths_through_a_neuron(atlas: Atlas) -> None:
    widget = attribution_widget(atlas, "eight")
    graph = atlas.attribution_graph("eight").to_networkx()
    widget._focus.value = True
    for name in graph:
        click(widget, name)
        below, above = networkx.ancestors(graph, name), networkx.descendants(graph, name)
        assert lit(widget) == below | above | {name}
        assert shown_edges(widget) == {
            (source, target)
            for source, target in graph.edges
            if {source, target} <= below | {name} or {source, target} <= above | {name}
        }
    widget._focus.value = False
    assert lit(widget) == set(graph)


def test_hiding(atlas: Atlas, three: AttributionWidget) -> None:
    three._hide.click()
    assert trouble(three) == "Choose a neuron to hide: click it."
    click(three, "conv3/14")
    assert not trouble(three)
    three._hide.click()
    assert three.neuron == ""
    left = {
        (edge.source, edge.target)
        for edge in atlas.attribution_graph("three").edges
        if "conv3/14" not in (edge.source, edge.target)
    }
    assert shown_edges(three) == left
    assert "conv3/14" not in lit(three)
    three._all.click()
    assert "conv3/14" in lit(three)
    assert len(shown_edges(three)) == 21


@pytest.mark.parametrize("kind", ["png", "svg"])
def test_saving_gives_a_link_that_holds_the_picture(three: AttributionWidget, kind: str) -> None:
    click(three, "conv3/14")
    three._hide.click()
    three.least = 0.5
    three._save.click()
    link = next(one.value for one in three._links.children if f".{kind}'" in one.value)
    assert "download='three." in link
    content = base64.b64decode(link.split("base64,")[1].split("'")[0])
    if kind == "png":
        with Image.open(io.BytesIO(content)) as image:
            assert image.width > 300
    else:
        text = content.decode()
        assert f"8 neurons and {len(shown_edges(three))} influences" in text
        assert ">22</text>" in text
        assert ">14</text>" not in text
    three.least = 0.4
    assert three._links.children == ()


def test_growing_asks_for_the_neighbours(atlas: Atlas, three: AttributionWidget) -> None:
    graph = atlas.attribution_graph("three")
    three._grow.value = True
    click(three, "conv3/14")
    found = atlas.neighbours("conv3/14", "three")
    expected = {
        (edge.source, edge.target) for edge in (*graph.edges, *found.sources, *found.targets)
    }
    assert shown_edges(three) == expected
    assert len(expected) > len(graph.edges)
    assert three.neuron == "conv3/14"
    counts = {
        f"{row['layer']}/{row['channel']}": row["count"]
        for row in atlas.activations("three").to_pylist()
    }
    known = {neuron.name for neuron in graph.neurons}
    added = [neuron for neuron in three._drawn.neurons if not neuron.owners]
    assert {neuron.name for neuron in added} == {end for ends in expected for end in ends} - known
    for neuron in added:
        (record,) = neuron.records
        assert record is not None
        assert record.count == counts.get(neuron.name, 0)
        assert nodes(three)[neuron.name]["border"] == "dashed"
    again = added[0].name
    click(three, again)
    assert shown_edges(three) > expected
    assert "Not in the attribution graph." in three._details.value
    three._all.click()
    assert shown_edges(three) == {(edge.source, edge.target) for edge in graph.edges}


def test_growing_stops_before_it_is_too_much(
    three: AttributionWidget, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scenes, "MOST_NEURONS", 10)
    three._grow.value = True
    click(three, "conv3/14")
    assert trouble(three).startswith("With the neighbours of conv3/14 there would be")
    assert len(nodes(three)) == 9


def test_on_to_another_class(atlas: Atlas, three: AttributionWidget) -> None:
    click(three, "conv2/4")
    others = [one for one in atlas.neuron("conv2/4").classes if one.selected and one.index != 3]
    assert [index for _, index in three._elsewhere.options[1:]] == [one.index for one in others]
    assert three._elsewhere.label == f"Also in {len(others)} more: go to …"
    three._elsewhere.value = others[0].index
    assert three.class_index == others[0].index
    assert three.neuron == "conv2/4"
    assert set(nodes(three)) == {
        neuron.name for neuron in atlas.attribution_graph(others[0].index).neurons
    }
    assert others[0].name in three._heading.value


def test_more_than_can_be_drawn_is_offered(atlas: Atlas, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (scenes, widgets):
        monkeypatch.setattr(module, "MOST_NEURONS", 12)
    monkeypatch.setattr(scenes.strongest, "__defaults__", (12, 1000))
    widget = attribution_widget(atlas, "eight")
    assert widget._stage.children == ()
    text, button = widget._offer.children
    assert "17 neurons and 56 influences, counted over" in text.value
    assert "too many to draw" in text.value
    assert button.description == "Show the 12 strongest"
    widget.least = 0.5
    assert not trouble(widget)
    widget.least = 0
    button.click()
    graph = atlas.attribution_graph("eight")
    assert set(nodes(widget)) == {neuron.name for neuron in graph.neurons[:12]}
    assert "The strongest of 17 neurons" in widget._offer.children[0].value
    widget.show("three")
    assert widget._offer.children == ()
    assert len(nodes(widget)) == 9


def test_what_goes_wrong_is_said(atlas: Atlas, three: AttributionWidget) -> None:
    with pytest.raises(UnknownNeuron, match="no neuron is called 'conv9/1'"):
        three.neuron = "conv9/1"
    with pytest.raises(UnknownNeuron, match="conv1/3 is not in this picture"):
        three.neuron = "conv1/3"
    assert three.neuron == ""
    canvas = graph_of(three)
    with pytest.raises(KeyError):
        canvas._interaction_handlers["node"]["click"].callbacks[0]({"data": {}})
    assert trouble(three) == "KeyError: 'number'"


def test_names_are_text(thousand_atlas: Path) -> None:
    with Atlas.open(thousand_atlas) as atlas:
        for index in (20, 21, 23, 26, 29, 41):
            widget = attribution_widget(atlas, index, compare=(1, 25))
            click(widget, atlas.attribution_graph(index).neurons[0].name)
            _send(widget, "node", "mouseover", {"number": 0})
            if index == 20:
                widget._save.click()
            written = [widget._heading, widget._details, widget._line, *widget._links.children]
            for one in written:
                rest = HARMLESS.sub("", one.value)
                assert "<" not in rest
                assert ">" not in rest
            assert made.name(index) in unescape(widget._heading.value)


def test_a_class_without_a_graph(thousand_atlas: Path) -> None:
    with Atlas.open(thousand_atlas) as atlas:
        widget = attribution_widget(atlas, made.WITHOUT_GRAPH)
        assert "0 neurons and 0 influences" in widget._heading.value
        assert "no attribution graph" in widget._heading.value
        widget._save.click()
        assert len(widget._links.children) == 2
        widget.show(made.WITHOUT_IMAGE)
        assert not trouble(widget)

"""A scene in the browser: an ipycytoscape graph and the style sheet that shows or fades its parts.

Neurons and edges are elements with numbers, `n3` and `e7`; a name is never a part of an
identifier, a selector or markup. What changes while somebody looks (least influence, focus, what is
hidden or chosen) is said by the style sheet alone, so that each change is one message.
"""

from __future__ import annotations

import base64
from collections.abc import Collection, Iterable, Sequence
from io import BytesIO
from math import hypot
from typing import Any, NamedTuple

import ipycytoscape
from ipywidgets import Layout
from PIL import Image

from summit_graph.explain.pictures import Pictures
from summit_graph.view import appearance
from summit_graph.view.scene import Scene, SceneEdge, SceneNeuron, flattened

FADED = 0.12
"""How opaque is what is not looked at."""

_TEXT, _QUIET, _TILE = "#1F2933", "#52606D", "#F1F4F7"


class Emphasis(NamedTuple):
    """What of a scene is shown, and how; neurons and edges by number.

    least: edges weaker than that are hidden, 0 to 1. hidden: neurons that are. lit, lit_edges:
    the only ones that are not faded; None: all. chosen: the neuron with the ring.
    """

    least: float = 0.0
    hidden: frozenset[int] = frozenset()
    lit: frozenset[int] | None = None
    lit_edges: frozenset[int] = frozenset()
    chosen: int | None = None


WIDTH, HEIGHT = 570.0, 760.0
"""Pixels that a notebook of middling size has for a graph."""


def zoom(drawn: Scene) -> float:
    """How much smaller than full size a scene is drawn in a notebook; at most 1."""
    return min(1.0, WIDTH / (drawn.width + 90), HEIGHT / (drawn.height + 1))


def suited(drawn: Scene) -> Scene:
    """The scene with its rows as close as a notebook's height asks for."""
    return flattened(drawn, HEIGHT / min(1.0, WIDTH / (drawn.width + 90)))


def height_of(drawn: Scene) -> int:
    """Pixels of height that a scene takes in a notebook: one of a few, from 380 to 800."""
    return min(800, max(380, 20 * round((drawn.height * zoom(drawn) + 40) / 20)))


def height_class(height: int) -> str:
    """The CSS class of a graph of a height.

    ipycytoscape measures its place before it takes a height from its `Layout`, and fits the graph
    into 400 pixels then; a class is there in time.
    """
    return f"summit-graph-height-{height}"


def height_rule(height: int) -> str:
    """The markup that makes `height_class` work; it has to be on the page before the graph is."""
    return f"<style>.{height_class(height)} {{height: {height}px !important}}</style>"


def canvas(drawn: Scene, pictures: Pictures | None, height: int) -> Any:
    """The scene as an ipycytoscape widget of `height` pixels, not yet styled.

    What `height_rule` gives has to be on the page.
    """
    nodes = [
        ipycytoscape.Node(data=_node(neuron, pictures), position={"x": neuron.x, "y": neuron.y})
        for neuron in drawn.neurons
    ]
    rows = [
        ipycytoscape.Node(
            data={"id": f"r{at}", "label": row.layer},
            position={"x": -18, "y": row.y},
            classes="row",
        )
        for at, row in enumerate(drawn.rows)
    ]
    edges = [
        ipycytoscape.Edge(data=_edge(number, edge, drawn))
        for number, edge in enumerate(drawn.edges)
    ]
    widget = ipycytoscape.CytoscapeWidget(
        graph=ipycytoscape.Graph(nodes=rows + nodes, edges=edges),
        cytoscape_layout={"name": "preset", "fit": True, "padding": 16},
        auto_ungrabify=True,
        tooltip_source="",
        min_zoom=0.1,
        max_zoom=4,
        layout=Layout(width="auto", flex="1 1 auto", min_width="0"),
    )
    widget.add_class(height_class(height))
    return widget


def style(drawn: Scene, emphasis: Emphasis) -> list[dict[str, Any]]:
    """The style sheet of a scene."""
    sheet: list[dict[str, Any]] = list(_base(drawn))
    if emphasis.lit is not None:
        sheet.append(_rule("node[side]", {"opacity": FADED}))
        sheet.append(_rule("edge", {"opacity": FADED}))
        sheet.extend(_rules("node", emphasis.lit, {"opacity": 1}))
        sheet.extend(_rules("edge", emphasis.lit_edges, {"opacity": "data(opacity)"}))
    if emphasis.chosen is not None:
        ring = {"underlay-color": appearance.CHOSEN, "underlay-opacity": 1, "underlay-padding": 6}
        sheet.extend(_rules("node", [emphasis.chosen], {**ring, "opacity": 1}))
    if emphasis.least > 0:
        sheet.append(_rule(f"edge[strength < {float(emphasis.least)!r}]", {"display": "none"}))
    sheet.extend(_rules("node", emphasis.hidden, {"display": "none"}))
    return sheet


def close(widget: Any) -> None:
    """Closes an ipycytoscape graph and its elements."""
    graph = widget.graph
    for element in (*graph.nodes, *graph.edges, graph, widget.layout):
        element.close()
    widget.close()


def data_uri(content: bytes, kind: str | None = None) -> str:
    """Bytes as an address that holds them. kind: None for a WebP or PNG picture."""
    if kind is None:
        kind = "image/png" if content.startswith(b"\x89PNG") else "image/webp"
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def tiny(content: bytes) -> bool:
    """Whether a picture has so few pixels that they are shown as squares."""
    with Image.open(BytesIO(content)) as picture:
        return max(picture.size) < 32


def _node(neuron: SceneNeuron, pictures: Pictures | None) -> dict[str, Any]:
    data: dict[str, Any] = {
        "id": f"n{neuron.number}",
        "number": neuron.number,
        "label": str(neuron.channel),
        "side": round(neuron.side, 2),
        "print": round(min(16.0, neuron.side * 0.82 / max(2, len(str(neuron.channel))) / 0.56), 1),
        "colour": neuron.colour,
        "border": "double" if neuron.shared else "solid" if neuron.owners else "dashed",
    }
    picture = None if pictures is None else pictures.feature(neuron.name)
    if picture is not None:
        data["picture"] = data_uri(picture)
        data["smooth"] = "no" if tiny(picture) else "yes"
    return data


def _edge(number: int, edge: SceneEdge, drawn: Scene) -> dict[str, Any]:
    source, target = drawn.neurons[edge.source], drawn.neurons[edge.target]
    distances, weights = _bend(source, target)
    return {
        "id": f"e{number}",
        "number": number,
        "source": f"n{edge.source}",
        "target": f"n{edge.target}",
        "strength": edge.strength,
        "width": round(edge.width, 3),
        "opacity": round(edge.opacity, 3),
        "colour": edge.colour if drawn.compared or not edge.owners else appearance.EDGE,
        "distances": distances,
        "weights": weights,
    }


def _bend(source: SceneNeuron, target: SceneNeuron) -> tuple[str, str]:
    """Two control points that make an edge leave upwards and arrive from below.

    Each is given, as cytoscape takes them, by its distance from the straight line between the
    middles, and by how far along that line it lies, from 0 to 1.
    """
    run_x, run_y = target.x - source.x, target.y - source.y
    length = hypot(run_x, run_y)
    leaves, arrives = -source.side / 2, run_y + target.side / 2
    away, along = [], []
    for x, part in ((0.0, 0.4), (run_x, 0.6)):
        y = leaves + (arrives - leaves) * part
        along.append((x * run_x + y * run_y) / length**2)
        away.append((y * run_x - x * run_y) / length)
    return " ".join(f"{value:.2f}" for value in away), " ".join(f"{value:.4f}" for value in along)


def _base(drawn: Scene) -> Iterable[dict[str, Any]]:
    yield _rule(
        "node.row",
        {
            "label": "data(label)",
            "width": 1,
            "height": 1,
            "background-opacity": 0,
            "text-halign": "left",
            "text-valign": "center",
            "font-size": round(min(12 / zoom(drawn), 26), 1),
            "color": _QUIET,
            "events": "no",
        },
    )
    yield _rule(
        "node[side]",
        {
            "shape": "round-rectangle",
            "width": "data(side)",
            "height": "data(side)",
            "background-color": _TILE,
            "border-width": 2.5,
            "border-color": "data(colour)",
            "border-style": "data(border)",
            "label": "data(label)",
            "font-size": "data(print)",
            "color": _TEXT,
            "text-valign": "center",
            "text-halign": "center",
        },
    )
    if drawn.compared:
        yield _rule('node[border = "double"]', {"border-width": 7})
    yield _rule(
        "node[picture]",
        {
            "background-image": "data(picture)",
            "background-image-smoothing": "data(smooth)",
            "background-fit": "cover",
            "background-clip": "node",
            "text-valign": "bottom",
            "text-margin-y": -6,
            "text-background-color": "#FFFFFF",
            "text-background-opacity": 0.9,
            "text-background-padding": 1.5,
            "text-background-shape": "round-rectangle",
            "font-size": 11,
            "min-zoomed-font-size": 7,
        },
    )
    yield _rule(
        "edge",
        {
            "curve-style": "unbundled-bezier",
            "control-point-distances": "data(distances)",
            "control-point-weights": "data(weights)",
            "edge-distances": "node-position",
            "source-endpoint": "0% -50%",
            "target-endpoint": "0% 50%",
            "width": "data(width)",
            "line-color": "data(colour)",
            "opacity": "data(opacity)",
        },
    )


def _rule(selector: str, css: dict[str, Any]) -> dict[str, Any]:
    return {"selector": selector, "style": css}


def _rules(
    kind: str, numbers: Collection[int] | Sequence[int], css: dict[str, Any]
) -> Iterable[dict[str, Any]]:
    """One rule for elements by number; none for none."""
    if numbers:
        selectors = (f"{kind}[number = {number}]" for number in sorted(numbers))
        yield _rule(", ".join(selectors), css)

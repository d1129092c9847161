"""What a picture of one class or of two shows: neurons with places and sizes, edges, rows, as data.

1. The neurons and edges of a class's attribution graph; of two classes, of either graph.
2. The **strength** of a neuron or an edge is its count over the largest count in its class's graph
   (0 to 1); of two classes, the greater of the two. It sets size, width and opacity
   (`appearance`). An atlas that does not know how many images a class has can be drawn as well.
3. `layout` gives every neuron its row and its place within; here slots become pixels, as close as
   the sizes of the neurons allow.

Figures and widgets draw the same scene. Lengths are pixels at full size, y grows downwards.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from summit_graph.atlas.atlas import Atlas
from summit_graph.atlas.interface import (
    AttributionGraph,
    ClassRecord,
    EdgeRecord,
    Graphs,
    NeuronRecord,
)
from summit_graph.errors import UsageError
from summit_graph.explain.pictures import Pictures
from summit_graph.view import appearance
from summit_graph.view.layout import Edge, Place, layout

MOST_NEURONS = 300
MOST_EDGES = 1000
"""What a picture on the screen shows at most; beyond, the strongest are shown first."""

_GAP = 12.0
_BETWEEN_ROWS = 52.0
_LEAST_ROW = 84.0
_SLOPE = 0.05
_FLAT = 26.0


class Owner(StrEnum):
    """Whose a neuron or an edge is."""

    FIRST = "first"
    SECOND = "second"
    SHARED = "shared"
    NEITHER = "neither"
    """Added by growing a neighbourhood: in no attribution graph."""


COLOUR: Mapping[Owner, str] = {
    Owner.FIRST: appearance.FIRST,
    Owner.SECOND: appearance.SECOND,
    Owner.SHARED: appearance.SHARED,
    Owner.NEITHER: "#6B7280",
}


@dataclass(frozen=True)
class Counted:
    """A count and the largest one of its graph. largest: 0 only if all are."""

    count: int
    largest: int

    @property
    def strength(self) -> float:
        """0 to 1."""
        return self.count / self.largest if self.largest else 0.0


@dataclass(frozen=True)
class SceneNeuron:
    """A neuron in a picture.

    number: its place in `Scene.neurons`. first, second: what it is to each class, None where its
    attribution graph does not have it. x, y: its middle. side: of its square.
    """

    number: int
    name: str
    layer: str
    channel: int
    owner: Owner
    first: NeuronRecord | None
    second: NeuronRecord | None
    counted: Counted
    x: float = 0.0
    y: float = 0.0

    @property
    def side(self) -> float:
        """Pixels."""
        return appearance.side(self.counted.count, self.counted.largest)


@dataclass(frozen=True)
class SceneEdge:
    """An influence in a picture, from the earlier layer to the later.

    source, target: numbers of neurons. first, second: the edge in each class's graph, or None.
    """

    source: int
    target: int
    owner: Owner
    first: EdgeRecord | None
    second: EdgeRecord | None
    counted: Counted

    @property
    def strength(self) -> float:
        """count / largest count, 0 to 1."""
        return self.counted.strength

    @property
    def width(self) -> float:
        """Pixels."""
        return appearance.width(self.counted.count, self.counted.largest)

    @property
    def opacity(self) -> float:
        """0 to 1."""
        return appearance.opacity(self.counted.count, self.counted.largest)


class Row(NamedTuple):
    """A layer's row. y: of its middle; left: where its first neuron begins."""

    layer: str
    y: float
    left: float


@dataclass(frozen=True)
class Scene:
    """A picture of one class's attribution graph, or of two.

    neurons: the most important first. edges: those of the first class by count, then those of the
    second alone. rows: the first layer's first.
    width, height: of all neurons; the names of the layers stand to the left of x = 0.
    """

    first: ClassRecord
    second: ClassRecord | None
    neurons: tuple[SceneNeuron, ...]
    edges: tuple[SceneEdge, ...]
    rows: tuple[Row, ...]
    width: float
    height: float

    @property
    def crowded(self) -> bool:
        """Whether it holds more than can be drawn and taken in on a screen."""
        return len(self.neurons) > MOST_NEURONS or len(self.edges) > MOST_EDGES

    def without(self, neurons: Iterable[int] = (), least: float = 0.0) -> Scene:
        """The scene without some neurons and the edges weaker than `least`; the rest stays put."""
        hidden = set(neurons)
        kept = [neuron for neuron in self.neurons if neuron.number not in hidden]
        number = {neuron.number: at for at, neuron in enumerate(kept)}
        return replace(
            self,
            neurons=tuple(replace(neuron, number=at) for at, neuron in enumerate(kept)),
            edges=tuple(
                replace(edge, source=number[edge.source], target=number[edge.target])
                for edge in self.edges
                if edge.strength >= least and edge.source in number and edge.target in number
            ),
        )


def pictures_of(graphs: Graphs, pictures: Pictures | Atlas | str | Path | None) -> Pictures | None:
    """Where the pictures of neurons come from: what was named, else the atlas itself.

    None for a database of which no atlas was named. Raises: AtlasError if a folder is no atlas.
    """
    if isinstance(pictures, Pictures):
        return pictures
    if pictures is not None:
        return Pictures(pictures)
    return Pictures(graphs) if isinstance(graphs, Atlas) else None


def scene(graphs: Graphs, name: str | int, compare: str | int | None = None) -> Scene:
    """The scene of a class, or of two beside each other.

    name, compare: as `Graphs.find` takes them. Raises: UnknownClass; AtlasError if the atlas is not
    ranked; UsageError if both are the same class.
    """
    first = graphs.attribution_graph(name)
    if compare is None:
        return arranged(graphs, first, None, *_united(graphs, first, None))
    second = graphs.attribution_graph(compare)
    if second.record.index == first.record.index:
        raise UsageError(f"{first.record.name!r} cannot be compared with itself: name two classes.")
    return arranged(graphs, first, second, *_united(graphs, first, second))


def strongest(drawn: Scene, neurons: int = MOST_NEURONS, edges: int = MOST_EDGES) -> Scene:
    """The most important neurons, and the strongest edges between them, placed anew."""
    most = drawn.without(range(neurons, len(drawn.neurons)))
    first = sorted(most.edges, key=lambda edge: -edge.strength)[:edges]
    return _placed(replace(most, edges=tuple(first)), [row.layer for row in drawn.rows])


def grown(drawn: Scene, neurons: Sequence[NeuronRecord], edges: Sequence[EdgeRecord]) -> Scene:
    """The scene of one class with more neurons and edges of its whole graph, placed anew.

    Neurons and edges that it has are left as they are.
    """
    known = {neuron.name: neuron.number for neuron in drawn.neurons}
    largest = max((neuron.counted.largest for neuron in drawn.neurons), default=0)
    more = list(drawn.neurons)
    for record in neurons:
        if record.name not in known:
            known[record.name] = len(more)
            counted = Counted(min(record.count, largest), largest)
            more.append(
                SceneNeuron(
                    len(more),
                    record.name,
                    record.layer,
                    record.channel,
                    Owner.NEITHER,
                    record,
                    None,
                    counted,
                )
            )
    seen = {(edge.source, edge.target) for edge in drawn.edges}
    strongest_edge = max(
        [edge.counted.largest for edge in drawn.edges] + [edge.count for edge in edges], default=0
    )
    all_edges = list(drawn.edges)
    for edge in edges:
        ends = known[edge.source], known[edge.target]
        if ends not in seen:
            seen.add(ends)
            counted = Counted(edge.count, strongest_edge)
            all_edges.append(SceneEdge(*ends, Owner.NEITHER, edge, None, counted))
    return _placed(
        replace(drawn, neurons=tuple(more), edges=tuple(all_edges)),
        [row.layer for row in drawn.rows],
    )


def flattened(drawn: Scene, height: float) -> Scene:
    """The same scene with its rows closer together, to have a height, as far as that can be."""
    tallest: dict[str, float] = {}
    for neuron in drawn.neurons:
        tallest[neuron.layer] = max(tallest.get(neuron.layer, 0.0), neuron.side)
    needed = [
        ((tallest.get(low.layer, 0.0) + tallest.get(high.layer, 0.0)) / 2 + _FLAT)
        / (low.y - high.y)
        for low, high in pairwise(drawn.rows)
    ]
    factor = min(1.0, max([height / drawn.height if drawn.height else 1.0, *needed]))
    return replace(
        drawn,
        neurons=tuple(replace(neuron, y=neuron.y * factor) for neuron in drawn.neurons),
        rows=tuple(row._replace(y=row.y * factor) for row in drawn.rows),
        height=drawn.height * factor,
    )


def described(drawn: Scene) -> str:
    """A sentence of how much a scene shows."""
    neurons = _number(len(drawn.neurons), "neuron")
    edges = _number(len(drawn.edges), "influence")
    if drawn.second is not None:
        shared = sum(neuron.owner is Owner.SHARED for neuron in drawn.neurons)
        return f"{neurons}, {shared:,} of them shared, and {edges}."
    images = drawn.first.images
    counted = "" if images is None else f", counted over {_number(images, 'image')}"
    return f"{neurons} and {edges}{counted}."


def _number(count: int, what: str) -> str:
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"


def arranged(
    graphs: Graphs,
    first: AttributionGraph,
    second: AttributionGraph | None,
    neurons: tuple[SceneNeuron, ...],
    edges: tuple[SceneEdge, ...],
) -> Scene:
    """A scene of neurons and edges, placed. graphs: gives the rows, one for each chosen layer."""
    record = None if second is None else second.record
    bare = Scene(first.record, record, neurons, edges, (), 0.0, 0.0)
    return _placed(bare, [layer.name for layer in graphs.layers])


def _united(
    graphs: Graphs, first: AttributionGraph, second: AttributionGraph | None
) -> tuple[tuple[SceneNeuron, ...], tuple[SceneEdge, ...]]:
    """The neurons and edges of one graph or two, each once."""
    row = {layer.name: at for at, layer in enumerate(graphs.layers)}
    mine = {neuron.name: neuron for neuron in first.neurons}
    theirs = {neuron.name: neuron for neuron in second.neurons} if second else {}
    most = [max((one.count for one in side.values()), default=0) for side in (mine, theirs)]
    names = list(mine) + [name for name in theirs if name not in mine]
    if second is not None:

        def importance(name: str) -> tuple[float, int, int]:
            have = [side[name] for side in (mine, theirs) if name in side]
            return -sum(one.pagerank for one in have), row[have[0].layer], have[0].channel

        names.sort(key=importance)
    neurons: list[SceneNeuron] = []
    for name in names:
        here, there = mine.get(name), theirs.get(name)
        known = here or there
        assert known is not None
        neurons.append(
            SceneNeuron(
                number=len(neurons),
                name=name,
                layer=known.layer,
                channel=known.channel,
                owner=_owner(here, there),
                first=here,
                second=there,
                counted=_greater(here, there, most),
            )
        )
    number = {neuron.name: neuron.number for neuron in neurons}
    ours = {(edge.source, edge.target): edge for edge in first.edges}
    others = {(edge.source, edge.target): edge for edge in second.edges} if second else {}
    top = [max((one.count for one in side.values()), default=0) for side in (ours, others)]
    edges = []
    for ends in [*ours, *(ends for ends in others if ends not in ours)]:
        left, right = ours.get(ends), others.get(ends)
        edges.append(
            SceneEdge(
                source=number[ends[0]],
                target=number[ends[1]],
                owner=_owner(left, right),
                first=left,
                second=right,
                counted=_greater(left, right, top),
            )
        )
    return tuple(neurons), tuple(edges)


def _owner(first: object, second: object) -> Owner:
    if first is not None and second is not None:
        return Owner.SHARED
    return Owner.FIRST if first is not None else Owner.SECOND


def _greater(
    first: NeuronRecord | EdgeRecord | None,
    second: NeuronRecord | EdgeRecord | None,
    largest: Sequence[int],
) -> Counted:
    """The count that is more of its own graph's largest."""
    both = [
        Counted(one.count, most) for one, most in zip((first, second), largest, strict=True) if one
    ]
    return max(both, key=lambda counted: counted.strength)


def _weight(edge: SceneEdge) -> int:
    return sum(record.count for record in (edge.first, edge.second) if record is not None)


def _placed(drawn: Scene, layers: Sequence[str]) -> Scene:
    """The scene with a place for every neuron and a row for every layer."""
    row = {layer: at for at, layer in enumerate(layers)}
    rows = [row[neuron.layer] for neuron in drawn.neurons]
    edges = [Edge(edge.source, edge.target, _weight(edge)) for edge in drawn.edges]
    places = layout(rows, edges)
    slot = _slot(places, [neuron.side for neuron in drawn.neurons])
    tallest = [0.0] * len(layers)
    for neuron, at in zip(drawn.neurons, rows, strict=True):
        tallest[at] = max(tallest[at], neuron.side)
    # The further an edge goes sideways, the more room it needs not to lie flat.
    longest = [0.0] * len(layers)
    for edge in drawn.edges:
        ends = sorted((rows[edge.source], rows[edge.target]))
        if ends[1] == ends[0] + 1:
            sideways = abs(places[edge.source].x - places[edge.target].x) * slot
            longest[ends[1]] = max(longest[ends[1]], sideways)
    y, below = [0.0] * len(layers), 0.0
    for at in range(1, len(layers)):
        apart = (tallest[at - 1] + tallest[at]) / 2 + _BETWEEN_ROWS + longest[at] * _SLOPE
        below += max(apart, _LEAST_ROW)
        y[at] = below
    top = below + (tallest[-1] / 2 if tallest else 0.0)
    height = top + (tallest[0] / 2 if tallest else 0.0)
    y = [top - value for value in y]
    lefts = [
        place.x * slot - neuron.side / 2
        for place, neuron in zip(places, drawn.neurons, strict=True)
    ]
    shift = -min(lefts, default=0.0)
    neurons = tuple(
        replace(neuron, x=place.x * slot + shift, y=y[place.row])
        for neuron, place in zip(drawn.neurons, places, strict=True)
    )
    width = max((neuron.x + neuron.side / 2 for neuron in neurons), default=0.0)
    left = [width] * len(layers)
    for neuron, place in zip(neurons, places, strict=True):
        left[place.row] = min(left[place.row], neuron.x - neuron.side / 2)
    named = tuple(Row(layer, y[at], left[at]) for at, layer in enumerate(layers))
    return replace(drawn, neurons=neurons, rows=named, width=width, height=height)


def _slot(places: Sequence[Place], sides: Sequence[float]) -> float:
    """Pixels of a slot: the least at which no two neurons of a row touch."""
    rows: dict[int, list[tuple[float, float]]] = {}
    for place, side in zip(places, sides, strict=True):
        rows.setdefault(place.row, []).append((place.x, side))
    needed = [max(sides, default=0.0) * 0.6]
    for row in rows.values():
        row.sort()
        for (x, side), (other_x, other_side) in pairwise(row):
            needed.append(((side + other_side) / 2 + _GAP) / (other_x - x))
    return max(needed)

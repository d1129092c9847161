"""What a picture of one class or of several shows: neurons with places and sizes, edges, rows.

1. The neurons and edges of a class's attribution graph; of several classes, of all their graphs.
2. The **strength** of a neuron or an edge is its count over the largest count in its class's graph
   (0 to 1); of several classes, the greatest. It sets size, width and opacity
   (`appearance`). An atlas that does not know how many images a class has can be drawn as well.
3. `layout` gives every neuron its row and its place within; here slots become pixels, as close as
   the sizes of the neurons allow.

Figures and widgets draw the same scene. Lengths are pixels at full size, y grows downwards.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
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

MOST_CLASSES = 4
"""Classes that one picture shows at most."""

MOST_NEURONS = 300
MOST_EDGES = 1000
"""What a picture on the screen shows at most; beyond, the strongest are shown first."""

_GAP = 12.0
_BETWEEN_ROWS = 52.0
_LEAST_ROW = 84.0
_SLOPE = 0.05
_FLAT = 26.0


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
class _Part:
    """What neurons and edges of a picture have alike.

    owners: places in `Scene.classes` of those whose attribution graph has it, in order; none for
    what growing a neighbourhood added.
    """

    owners: tuple[int, ...]
    counted: Counted

    @property
    def shared(self) -> bool:
        """Whether several classes have it."""
        return len(self.owners) > 1

    @property
    def colour(self) -> str:
        """That of its class, or of what is shared, or of what was added."""
        if not self.owners:
            return appearance.ADDED
        return appearance.SHARED if self.shared else appearance.CLASSES[self.owners[0]]


@dataclass(frozen=True)
class SceneNeuron(_Part):
    """A neuron in a picture.

    number: its place in `Scene.neurons`. records: what it is to each class of the scene, None where
    its attribution graph does not have it. x, y: its middle. side: of its square.
    """

    number: int
    name: str
    layer: str
    channel: int
    records: tuple[NeuronRecord | None, ...]
    x: float = 0.0
    y: float = 0.0

    @property
    def side(self) -> float:
        """Pixels."""
        return appearance.side(self.counted.count, self.counted.largest)


@dataclass(frozen=True)
class SceneEdge(_Part):
    """An influence in a picture, from the earlier layer to the later.

    source, target: numbers of neurons. records: the edge in the graph of each class, or None.
    """

    source: int
    target: int
    records: tuple[EdgeRecord | None, ...]

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
    """A picture of one class's attribution graph, or of several.

    classes: the one asked for first. neurons: the most important first. edges: those of the first
    class by count, then those of the second that are new, and so on. rows: the first layer's first.
    width, height: of all neurons; the names of the layers stand to the left of x = 0.
    """

    classes: tuple[ClassRecord, ...]
    neurons: tuple[SceneNeuron, ...]
    edges: tuple[SceneEdge, ...]
    rows: tuple[Row, ...]
    width: float
    height: float

    @property
    def compared(self) -> bool:
        """Whether it shows several classes."""
        return len(self.classes) > 1

    @property
    def names(self) -> list[str]:
        """Those of its classes."""
        return [record.name for record in self.classes]

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


def scene(
    graphs: Graphs, name: str | int, compare: str | int | Sequence[str | int] | None = None
) -> Scene:
    """The scene of a class, or of several in one picture.

    name, compare: a class, and one or more beside it, each as `Graphs.find` takes it. Raises:
    UnknownClass; AtlasError if the atlas is not ranked; UsageError if they are more than
    `MOST_CLASSES`, or one of them is there twice.
    """
    records = classes_of(graphs, name, compare)
    found = [graphs.attribution_graph(record.index) for record in records]
    neurons, edges = _united(graphs, found)
    bare = Scene(records, neurons, edges, (), 0.0, 0.0)
    return _placed(bare, [layer.name for layer in graphs.layers])


def classes_of(
    graphs: Graphs, name: str | int, compare: str | int | Sequence[str | int] | None = None
) -> tuple[ClassRecord, ...]:
    """The classes that a picture is asked for, the first one first; `scene` says what is raised."""
    if compare is None:
        others: Sequence[str | int] = ()
    elif isinstance(compare, str) or not isinstance(compare, Sequence):
        others = (compare,)
    else:
        others = compare
    if len(others) >= MOST_CLASSES:
        raise UsageError(
            f"{1 + len(others)} classes are too many for one picture: compare a class with at most "
            f"{MOST_CLASSES - 1} others."
        )
    records: list[ClassRecord] = []
    for one in (name, *others):
        record = graphs.find(one)
        if any(record.index == other.index for other in records):
            raise UsageError(
                f"{record.name!r} cannot be compared with itself: name each class once."
            )
        records.append(record)
    return tuple(records)


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
                    owners=(),
                    counted=counted,
                    number=len(more),
                    name=record.name,
                    layer=record.layer,
                    channel=record.channel,
                    records=(record,),
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
            all_edges.append(SceneEdge((), counted, *ends, (edge,)))
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
    if drawn.compared:
        shared = sum(neuron.shared for neuron in drawn.neurons)
        return f"{neurons}, {shared:,} of them shared, and {edges}."
    images = drawn.classes[0].images
    counted = "" if images is None else f", counted over {_number(images, 'image')}"
    return f"{neurons} and {edges}{counted}."


def _number(count: int, what: str) -> str:
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"


def joined(texts: Sequence[str]) -> str:
    """Texts in a row: "a", "a and b", "a, b and c"."""
    *most, last = texts
    return f"{', '.join(most)} and {last}" if most else last


def _united(
    graphs: Graphs, found: Sequence[AttributionGraph]
) -> tuple[tuple[SceneNeuron, ...], tuple[SceneEdge, ...]]:
    """The neurons and edges of some graphs, each once."""
    row = {layer.name: at for at, layer in enumerate(graphs.layers)}
    neurons_of = [{neuron.name: neuron for neuron in graph.neurons} for graph in found]
    names = list(dict.fromkeys(name for side in neurons_of for name in side))
    if len(found) > 1:

        def importance(name: str) -> tuple[float, int, int]:
            have = [side[name] for side in neurons_of if name in side]
            return -sum(one.pagerank for one in have), row[have[0].layer], have[0].channel

        names.sort(key=importance)
    most = [_largest(side.values()) for side in neurons_of]
    neurons: list[SceneNeuron] = []
    for name in names:
        known = tuple(side.get(name) for side in neurons_of)
        owners = _owners(known)
        record = neurons_of[owners[0]][name]
        neurons.append(
            SceneNeuron(
                owners=owners,
                counted=_greatest(known, most),
                number=len(neurons),
                name=name,
                layer=record.layer,
                channel=record.channel,
                records=known,
            )
        )
    number = {neuron.name: neuron.number for neuron in neurons}
    edges_of = [{(edge.source, edge.target): edge for edge in graph.edges} for graph in found]
    top = [_largest(side.values()) for side in edges_of]
    edges: list[SceneEdge] = []
    for ends in dict.fromkeys(ends for side in edges_of for ends in side):
        each = tuple(side.get(ends) for side in edges_of)
        edges.append(
            SceneEdge(
                owners=_owners(each),
                counted=_greatest(each, top),
                source=number[ends[0]],
                target=number[ends[1]],
                records=each,
            )
        )
    return tuple(neurons), tuple(edges)


def _largest(records: Iterable[NeuronRecord | EdgeRecord]) -> int:
    return max((record.count for record in records), default=0)


def _owners(records: Sequence[object]) -> tuple[int, ...]:
    return tuple(at for at, record in enumerate(records) if record is not None)


def _greatest(
    records: Sequence[NeuronRecord | EdgeRecord | None], largest: Sequence[int]
) -> Counted:
    """The count that is most of its own graph's largest."""
    counted = [
        Counted(record.count, most)
        for record, most in zip(records, largest, strict=True)
        if record is not None
    ]
    return max(counted, key=lambda one: one.strength)


def _weight(edge: SceneEdge) -> int:
    return sum(record.count for record in edge.records if record is not None)


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

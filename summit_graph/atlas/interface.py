"""What can be asked of an atlas, and the records it answers with.

`Graphs` is the interface: an atlas on disk (`atlas.Atlas`) and one in a graph database answer the
same questions with the same records. Neurons are those of the chosen layers, named
`<layer>/<channel>`; a class is given by index, name, part of a name or synset (`find_class`).

In every record, `count` is a number of images of the class, `share` is count / images of the class
(0 to 1), `pagerank` sums to 1 over the neurons of a class's graph, `rank` 1 is the highest.

A **partial** atlas, imported from published graphs, holds attribution graphs alone: `images` and
`share` are None there, the PageRanks of a class are those of its graph's neurons, and what it lacks
altogether is refused with `not_known`.
Source: docs/method.md, sections 4 to 6.
"""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol, TypeVar

import networkx
import pyarrow as pa

from summit_graph.atlas.schema import LayerEntry
from summit_graph.errors import AtlasError, UnknownClass, UnknownLayer, UnknownNeuron

_LISTED = 8


@dataclass(frozen=True)
class ClassRecord:
    """A class and how the model does on it.

    images: how many are counted for it; None if that is not known (a partial atlas). top1, top5:
    share of its images whose label's output is among the 1 or 5 highest (None without labels).
    probability: images per bin of the label's output's probability, ten bins from 0 to 1.
    neurons, edges: size of the attribution graph. mass: the share of PageRank it was cut at;
    threshold: the PageRank that its neurons lie above (None: all were kept). converged: whether the
    ranking did. unconnected: names of layers that no edge reaches from an earlier one. These six
    are None before the atlas is ranked; of a partial atlas all but the size are.
    """

    index: int
    name: str
    synset: str | None
    images: int | None
    top1: float | None
    top5: float | None
    probability: tuple[int, ...] | None
    neurons: int | None
    edges: int | None
    mass: float | None
    threshold: float | None
    converged: bool | None
    unconnected: tuple[str, ...] | None


@dataclass(frozen=True)
class NeuronRecord:
    """A neuron of a class's attribution graph. name: `<layer>/<channel>`."""

    name: str
    layer: str
    channel: int
    pagerank: float
    rank: int
    count: int
    share: float | None


@dataclass(frozen=True)
class EdgeRecord:
    """An influence between two neurons, by name, from the earlier layer to the later."""

    source: str
    target: str
    count: int
    share: float | None


@dataclass(frozen=True)
class AttributionGraph:
    """The attribution graph of a class: its neurons, by rank, and the edges between them.

    Edges are sorted by count, the highest first, then by layer and channel of source and target.
    """

    record: ClassRecord
    neurons: tuple[NeuronRecord, ...]
    edges: tuple[EdgeRecord, ...]

    def to_networkx(self) -> networkx.DiGraph[str]:
        """The graph as a `networkx.DiGraph`, from earlier layers to later ones.

        Nodes are the neurons' names with `layer`, `channel`, `pagerank`, `rank`, `count`, `share`;
        edges have `count` and `share`; the graph has the class record. The ranking looked at the
        edges without their direction: `to_networkx().to_undirected()` is that graph's part.
        """
        graph: networkx.DiGraph[str] = networkx.DiGraph(**asdict(self.record))
        for neuron in self.neurons:
            values = asdict(neuron)
            graph.add_node(values.pop("name"), **values)
        for edge in self.edges:
            graph.add_edge(edge.source, edge.target, count=edge.count, share=edge.share)
        return graph

    def neurons_table(self) -> pa.Table:
        """The neurons as an Arrow table, a column for each field of `NeuronRecord`.

        `.to_pandas()` makes a data frame of it where pandas is installed.
        """
        return pa.Table.from_pylist([asdict(neuron) for neuron in self.neurons], _NEURON_SCHEMA)

    def edges_table(self) -> pa.Table:
        """The edges as an Arrow table, a column for each field of `EdgeRecord`."""
        return pa.Table.from_pylist([asdict(edge) for edge in self.edges], _EDGE_SCHEMA)


_NEURON_SCHEMA = pa.schema(
    [
        ("name", pa.string()),
        ("layer", pa.string()),
        ("channel", pa.int32()),
        ("pagerank", pa.float64()),
        ("rank", pa.int32()),
        ("count", pa.int32()),
        ("share", pa.float64()),
    ]
)

_EDGE_SCHEMA = pa.schema(
    [
        ("source", pa.string()),
        ("target", pa.string()),
        ("count", pa.int32()),
        ("share", pa.float64()),
    ]
)


@dataclass(frozen=True)
class NeuronInClass:
    """What a neuron is to one class.

    pagerank, rank: None where it has no edge in the class's graph. selected: whether it is in the
    class's attribution graph. count: in how many images it is active (0: in none).
    """

    index: int
    name: str
    pagerank: float | None
    rank: int | None
    selected: bool
    count: int
    share: float | None


@dataclass(frozen=True)
class NeuronView:
    """A neuron and the classes it matters to: those with a rank or an active image.

    classes: those whose attribution graph has it first, then by PageRank, then by share, each the
    highest first, then by index. Of a partial atlas those whose attribution graph has it, and no
    others are known.
    """

    name: str
    layer: str
    channel: int
    classes: tuple[NeuronInClass, ...]


@dataclass(frozen=True)
class Neighbourhood:
    """The strongest influences of one neuron in the graph of one class, the highest count first.

    sources: edges into it. targets: edges out of it. Of a partial atlas, in the attribution graph.
    """

    sources: tuple[EdgeRecord, ...]
    targets: tuple[EdgeRecord, ...]


@dataclass(frozen=True)
class SharedNeuron:
    """A neuron that is in the attribution graphs of two classes, as each has it."""

    name: str
    first: NeuronRecord
    second: NeuronRecord


@dataclass(frozen=True)
class Comparison:
    """Two classes' attribution graphs beside each other.

    shared: neurons of both, by the sum of their PageRanks. only_first, only_second: neurons of one,
    by rank.
    """

    first: ClassRecord
    second: ClassRecord
    shared: tuple[SharedNeuron, ...]
    only_first: tuple[NeuronRecord, ...]
    only_second: tuple[NeuronRecord, ...]


@dataclass(frozen=True)
class SimilarClass:
    """A class near another. cosine: of their activation rows, 0 to 1."""

    index: int
    name: str
    cosine: float


@dataclass(frozen=True)
class ClassPoint:
    """Where a class stands among the others in one layer. x, y: without a unit."""

    index: int
    name: str
    x: float
    y: float


@dataclass(frozen=True)
class Confusion:
    """Images of a class whose prediction (or, grouped by prediction, label) is of another class.

    index: of the other class, -1 with no name if it is none of the atlas.
    """

    index: int
    name: str | None
    count: int
    share: float | None


@dataclass(frozen=True)
class Vote:
    """A neuron among the strongest sources of a class's logit, in `count` images."""

    name: str
    layer: str
    channel: int
    count: int
    share: float | None


@dataclass(frozen=True)
class ExampleRecord:
    """An image in which a neuron's activation is among its highest.

    image, path: the image's number and path. activation: the highest of its map, above 0, without a
    unit. row, column: where that is, in the layer's map.
    """

    rank: int
    image: int
    path: str
    activation: float
    row: int
    column: int


class Graphs(Protocol):
    """The questions that every backend answers alike. `name` is as `find_class` takes it.

    Of a partial atlas `similar`, `embedding`, `confusions`, `votes` and `examples` raise
    `not_known`.
    """

    @property
    def partial(self) -> bool:
        """Whether it holds attribution graphs alone, without images and counts behind them."""

    @property
    def classes(self) -> tuple[ClassRecord, ...]:
        """All classes, by index."""

    @property
    def layers(self) -> tuple[LayerEntry, ...]:
        """The chosen layers, in the order of the forward pass."""

    def find(self, name: str | int) -> ClassRecord:
        """One class. Raises: UnknownClass."""

    def attribution_graph(self, name: str | int) -> AttributionGraph:
        """The attribution graph of a class. Raises: UnknownClass, AtlasError."""

    def activations(self, name: str | int | None = None, layer: str | None = None) -> pa.Table:
        """In how many images neurons are active. Raises: UnknownClass, UnknownLayer."""

    def neuron(self, neuron: str) -> NeuronView:
        """The classes a neuron matters to. Raises: UnknownNeuron, AtlasError."""

    def neighbours(self, neuron: str, name: str | int, limit: int = 10) -> Neighbourhood:
        """A neuron's strongest influences for a class. Raises: UnknownNeuron, UnknownClass."""

    def compare(self, first: str | int, second: str | int) -> Comparison:
        """Shared and own neurons of two classes. Raises: UnknownClass, AtlasError."""

    def similar(
        self, name: str | int, layer: str | None = None, limit: int = 10
    ) -> tuple[SimilarClass, ...]:
        """The classes nearest to one. Raises: UnknownClass, UnknownLayer, AtlasError."""

    def embedding(self, layer: str) -> tuple[ClassPoint, ...]:
        """Where the classes stand in a layer, by index. Raises: UnknownLayer, AtlasError."""

    def confusions(self, name: str | int) -> tuple[Confusion, ...]:
        """What a class is confused with. Raises: UnknownClass, AtlasError."""

    def votes(self, name: str | int, limit: int | None = None) -> tuple[Vote, ...]:
        """The neurons that speak for a class. Raises: UnknownClass, AtlasError."""

    def examples(self, neuron: str, name: str | int | None = None) -> tuple[ExampleRecord, ...]:
        """The images that excite it most. Raises: UnknownNeuron, UnknownClass, AtlasError."""


def not_known(what: str) -> AtlasError:
    """The refusal to answer what a partial atlas lacks. what: like `the votes for a class`."""
    return AtlasError(
        f"{what} are not known: the atlas was imported from published graphs, which do not say."
    )


def no_embedding() -> AtlasError:
    """The refusal of an atlas that was made without an embedding."""
    return AtlasError(
        "where the classes stand is not known: the atlas was made without an embedding, or before "
        "there was one. Run `summit-graph rank` on it; if it is in Neo4j, then load it again."
    )


class _Named(Protocol):
    @property
    def index(self) -> int: ...
    @property
    def name(self) -> str: ...
    @property
    def synset(self) -> str | None: ...


Entry = TypeVar("Entry", bound=_Named)


def find_class(classes: Sequence[Entry], name: str | int) -> Entry:
    """The class that `name` means.

    An int is an index. Text is, the first that fits: a whole name as it is written; a whole name
    whatever its case; one of the names that a name lists between commas (`tench` of `tench, Tinca
    tinca`); a synset; an index; a part of a name.

    Raises: UnknownClass if nothing fits (the nearest names are listed) or several do (they are).
    """
    if isinstance(name, int):
        return _one(classes, [entry for entry in classes if entry.index == name], name)
    wanted = _folded(name)
    if not wanted:
        return _one(classes, [], name)
    tests: tuple[Callable[[Entry], bool], ...] = (
        lambda entry: entry.name == name,
        lambda entry: _folded(entry.name) == wanted,
        lambda entry: wanted in [_folded(part) for part in entry.name.split(",")],
        lambda entry: entry.synset is not None and _folded(entry.synset) == wanted,
        lambda entry: wanted == str(entry.index),
        lambda entry: wanted in _folded(entry.name),
    )
    for test in tests:
        if found := [entry for entry in classes if test(entry)]:
            return _one(classes, found, name)
    return _one(classes, [], name)


def _one(classes: Sequence[Entry], found: Sequence[Entry], name: str | int) -> Entry:
    if len(found) == 1:
        return found[0]
    if found:
        more = f" and {len(found) - _LISTED} more" if len(found) > _LISTED else ""
        raise UnknownClass(
            f"{name!r} fits {len(found)} classes: {_listed(found[:_LISTED])}{more}. "
            "Give the whole name, the index or the synset."
        )
    if not classes:
        raise UnknownClass(f"no class fits {name!r}: there are no classes.")
    if isinstance(name, int):
        near = sorted(classes, key=lambda entry: (abs(entry.index - name), entry.index))[:3]
        raise UnknownClass(
            f"no class has the index {name}; they go from {classes[0].index} to "
            f"{classes[-1].index}. The nearest are {_listed(near)}."
        )
    by_name: dict[str, Entry] = {}
    for entry in reversed(classes):
        for part in (entry.name, *entry.name.split(","), entry.synset or ""):
            by_name[_folded(part)] = entry
    matches = difflib.get_close_matches(_folded(name), by_name, n=_LISTED, cutoff=0.5)
    close = list({by_name[match].index: by_name[match] for match in matches}.values())
    nearest = (
        f"The nearest are {_listed(close)}."
        if close
        else (f"There are {len(classes)}, from {_listed(classes[:3])} on.")
    )
    raise UnknownClass(f"no class fits {name!r}. {nearest}")


def _listed(classes: Sequence[Entry]) -> str:
    return ", ".join(
        f"{entry.name!r} ({entry.index}{f', {entry.synset}' if entry.synset else ''})"
        for entry in classes
    )


def _folded(text: str) -> str:
    return unicodedata.normalize("NFC", text).casefold().strip()


def find_layer(layers: Sequence[LayerEntry], name: str) -> LayerEntry:
    """The chosen layer called `name`. Raises: UnknownLayer with the names there are."""
    for layer in layers:
        if layer.chosen and layer.name == name:
            return layer
    names = ", ".join(layer.name for layer in layers if layer.chosen)
    raise UnknownLayer(f"no layer is called {name!r}. This atlas has: {names}.")


def find_neuron(layers: Sequence[LayerEntry], name: str) -> tuple[LayerEntry, int]:
    """Layer and channel of a neuron of a chosen layer, named like `inception4c/57`.

    Raises: UnknownNeuron with what the name should be.
    """
    layer_name, slash, channel = name.rpartition("/")
    if not slash or not (channel.isascii() and channel.isdigit()):
        raise UnknownNeuron(
            f"{name!r} is no neuron's name: it has to be <layer>/<channel>, like 'inception4c/57'."
        )
    try:
        layer = find_layer(layers, layer_name)
    except UnknownLayer as error:
        raise UnknownNeuron(f"no neuron is called {name!r}: {error}") from error
    if int(channel) >= layer.channels:
        raise UnknownNeuron(
            f"no neuron is called {name!r}: {layer.name} has the channels 0 to "
            f"{layer.channels - 1}."
        )
    return layer, int(channel)


def share_of(count: int, images: int | None) -> float | None:
    """count / images of the class, 0 to 1; 0 where it has none, None where they are not known."""
    if images is None:
        return None
    return count / images if images else 0.0


def compared(first: AttributionGraph, second: AttributionGraph) -> Comparison:
    """Two attribution graphs of one atlas beside each other; see `Comparison`."""
    mine: dict[str, NeuronRecord] = {neuron.name: neuron for neuron in first.neurons}
    theirs: dict[str, NeuronRecord] = {neuron.name: neuron for neuron in second.neurons}
    shared = [
        SharedNeuron(name, neuron, theirs[name]) for name, neuron in mine.items() if name in theirs
    ]
    shared.sort(key=lambda neuron: (-neuron.first.pagerank - neuron.second.pagerank, neuron.name))
    return Comparison(
        first.record,
        second.record,
        tuple(shared),
        tuple(neuron for neuron in first.neurons if neuron.name not in theirs),
        tuple(neuron for neuron in second.neurons if neuron.name not in mine),
    )


def summary(graph: AttributionGraph) -> dict[str, Any]:
    """The graph as plain JSON: `class`, `neurons`, `edges`, with the fields of the records."""
    return {
        "class": asdict(graph.record),
        "neurons": [asdict(neuron) for neuron in graph.neurons],
        "edges": [asdict(edge) for edge in graph.edges],
    }

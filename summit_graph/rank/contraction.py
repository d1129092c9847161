"""The class's neuron graph: counts of all hops, contracted to chosen layers.

Method (docs/method.md, section 4), for one class:

1. Counts that touch an excluded neuron are dropped before anything else is looked at.
2. Layer by layer, in forward order, two matrices (channels of the layer × chosen neurons) gather
   all ways from a chosen neuron, directly or through hidden layers only: the widest way (the
   (max, min) product of the hop matrices) and the number of ways (their ordinary (+, ×) product).
   A layer needs only the matrices of the hidden layers it reads, so no path is ever enumerated, and
   a hidden layer's matrices are forgotten behind its last reader.
3. A target in a chosen layer keeps all its direct sources and its `m` heaviest indirect ones, over
   all source layers together: by the widest way, then by the number of ways, then the lower
   source. An edge weighs as much as the widest way.

The method is that of Hohman et al., *Summit*, TVCG 2020, generalised to any mixture of direct and
indirect sources.

Counts of one target are sparse, but behind one hidden layer they no longer are: 40 sources of 40
sources reach most of a layer. So the matrices are dense over the chosen neurons that have a way at
all, and a product runs along whole rows; that beats joining and sorting the paths.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from summit_graph.errors import AtlasError, UnknownNeuron, UsageError

_LARGEST_COUNT = int(np.iinfo(np.int32).max)
# Cells of one block of a (max, min) product: 1 MB of int32, so that its passes stay in the cache.
_BLOCK_CELLS = 1 << 18


@dataclass(frozen=True)
class LayerShape:
    """A layer as the graph sees it: its place in forward order, whether it is chosen, its width."""

    number: int
    chosen: bool
    channels: int


@dataclass(frozen=True, eq=False)
class HopCounts:
    """One class's influence counts along one hop; a pair of channels occurs at most once."""

    source_layer: int
    target_layer: int
    source: NDArray[np.int32]
    target: NDArray[np.int32]
    count: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Edges:
    """A class's graph: n edges, sorted by (target_layer, target, source_layer, source)."""

    source_layer: NDArray[np.int32]
    source: NDArray[np.int32]
    target_layer: NDArray[np.int32]
    target: NDArray[np.int32]
    count: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Votes:
    """How often n neurons speak for one class, sorted by (layer, channel)."""

    layer: NDArray[np.int32]
    channel: NDArray[np.int32]
    count: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class _Hop:
    """A hop's counts above 0, as a matrix with a row for each target channel (CSR)."""

    source_layer: int
    target_layer: int
    start: NDArray[np.int64]
    target: NDArray[np.int64]
    source: NDArray[np.int64]
    count: NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class _Ways:
    """The ways into one layer: direct hops, and those through hidden layers only.

    sources: the chosen neurons that have a way, as neuron numbers, ascending
    width: (channels, sources) the widest way, 0 where there is none
    number: (channels, sources) the (+, ×) product, in units of 2 ** exponent; the exponent is the
        layer's own, because along a hundred hops the product leaves the range of float64
    """

    sources: NDArray[np.int64]
    width: NDArray[np.int32]
    number: NDArray[np.float64]
    exponent: int


def class_graph(
    layers: Sequence[LayerShape],
    hops: Sequence[HopCounts],
    *,
    sources: int | None = None,
    exclude: frozenset[tuple[int, int]] = frozenset(),
) -> Edges:
    """The neuron graph `G_c` of one class (docs/method.md, section 4).

    layers: all layers, chosen and hidden, in forward order (`layers[n].number == n`)
    hops: one class's counts; at most one item for a pair of layers; rows with count 0 are no source
    sources: how many indirect sources a target keeps, 0 or more; None: for each target layer the
        floor of the mean number of distinct immediate sources, over its channels that have a direct
        source (where none has one, over those that have any)
    exclude: neurons as (layer, channel) that are no source and no target; one of a hidden layer
        closes the ways through it

    Returns an edge for every direct source and the heaviest indirect ones of every chosen target;
    its count is the widest way between the two.

    Raises:
        UsageError: `sources` is negative, or the layers are not numbered in forward order.
        UnknownNeuron: an excluded neuron is not in the layers.
        AtlasError: counts do not fit the layers.
    """
    if sources is not None and sources < 0:
        raise UsageError(f"sources is {sources}; a target keeps 0 indirect sources or more")
    first = _first_neurons(layers)
    into = _hops_by_target(layers, hops, _excluded(first, exclude))
    last_reader = {hop.source_layer: hop.target_layer for hops in into for hop in hops}
    ways: dict[int, _Ways] = {}
    edges: list[tuple[NDArray[np.int64], ...]] = []
    for layer, arriving in zip(layers, into, strict=True):
        direct = [hop for hop in arriving if layers[hop.source_layer].chosen]
        hidden = [hop for hop in arriving if not layers[hop.source_layer].chosen]
        through = [(hop, ways[hop.source_layer]) for hop in hidden]
        gathered = _gather(layer.channels, direct, through, first)
        if layer.chosen:
            m = _mean_sources(layer, direct, hidden) if sources is None else sources
            target, source, count = _kept(direct, gathered, m, first)
            edges.append((source, target + first[layer.number], count))
        else:
            ways[layer.number] = gathered
        for hop in hidden:
            if last_reader[hop.source_layer] == layer.number:
                del ways[hop.source_layer]
    return _edges(edges, first)


def contract_votes(layers: Sequence[LayerShape], hops: Sequence[HopCounts], votes: Votes) -> Votes:
    """One class's votes, contracted to chosen layers (docs/method.md, section 6).

    A vote of a hidden neuron is handed to the chosen neurons that have a way to it through hidden
    layers only. A chosen neuron's vote is the widest of its own and those handed to it: the largest
    min(widest way, vote). None is trimmed.

    layers, hops: as for `class_graph`
    votes: of neurons of any layer; a neuron occurs at most once

    Raises:
        UsageError: the layers are not numbered in forward order.
        AtlasError: counts or votes do not fit the layers.
    """
    first = _first_neurons(layers)
    into = _hops_by_target(layers, hops, np.zeros(int(first[-1]), dtype=np.bool_))
    own = _neurons(votes, layers, first)
    vote = np.zeros(int(first[-1]), dtype=np.int64)
    vote[own] = votes.count
    for layer, arriving in zip(reversed(layers), reversed(into), strict=True):
        if layer.chosen:
            continue
        for hop in arriving:
            handed = np.minimum(hop.count, vote[first[layer.number] + hop.target])
            np.maximum.at(vote, first[hop.source_layer] + hop.source, handed)
    chosen = np.repeat([layer.chosen for layer in layers], [layer.channels for layer in layers])
    voting = np.flatnonzero(chosen & (vote > 0))
    layer_of, channel_of = _layer_and_channel(voting, first)
    return Votes(layer_of, channel_of, vote[voting])


def _first_neurons(layers: Sequence[LayerShape]) -> NDArray[np.int64]:
    """Number of each layer's first neuron, and of all neurons: layers stand one behind another."""
    if [layer.number for layer in layers] != list(range(len(layers))):
        raise UsageError("the layers must be all of the network's, numbered 0, 1, … as they stand")
    channels = np.array([0] + [layer.channels for layer in layers], dtype=np.int64)
    return np.cumsum(channels)


def _layer_and_channel(
    neuron: NDArray[np.int64], first: NDArray[np.int64]
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    layer = np.searchsorted(first, neuron, side="right") - 1
    return layer.astype(np.int32), (neuron - first[layer]).astype(np.int32)


def _excluded(first: NDArray[np.int64], exclude: Iterable[tuple[int, int]]) -> NDArray[np.bool_]:
    mask = np.zeros(int(first[-1]), dtype=np.bool_)
    for layer, channel in exclude:
        known = 0 <= layer < len(first) - 1 and 0 <= channel < first[layer + 1] - first[layer]
        if not known:
            raise UnknownNeuron(
                f"layer {layer} has no channel {channel} that could be excluded; "
                f"there are layers 0 to {len(first) - 2}, see the table of layers"
            )
        mask[first[layer] + channel] = True
    return mask


def _neurons(
    votes: Votes, layers: Sequence[LayerShape], first: NDArray[np.int64]
) -> NDArray[np.int64]:
    if votes.layer.size and not 0 <= votes.layer.min() <= votes.layer.max() < len(layers):
        raise AtlasError(f"votes name a layer that is none of the {len(layers)} layers")
    layer = votes.layer.astype(np.int64)
    neuron = first[layer] + votes.channel
    if (votes.channel < 0).any() or (neuron >= first[layer + 1]).any():
        raise AtlasError("votes name a channel that their layer does not have")
    if (votes.count < 0).any() or np.unique(neuron).size < neuron.size:
        raise AtlasError("votes are negative or name a neuron twice; the counts are damaged")
    return neuron


def _hops_by_target(
    layers: Sequence[LayerShape], hops: Sequence[HopCounts], excluded: NDArray[np.bool_]
) -> list[list[_Hop]]:
    """The hops into each layer, without excluded neurons and zero counts."""
    first = _first_neurons(layers)
    into: dict[int, dict[int, _Hop]] = {layer.number: {} for layer in layers}
    for hop in hops:
        name = f"hop from layer {hop.source_layer} to layer {hop.target_layer}"
        if not 0 <= hop.source_layer < hop.target_layer < len(layers):
            raise AtlasError(f"{name}: a hop leads from an earlier layer to a later one")
        if hop.source_layer in into[hop.target_layer]:
            raise AtlasError(f"{name}: there are two of them; a pair of layers is one hop")
        into[hop.target_layer][hop.source_layer] = _matrix(hop, name, layers, first, excluded)
    return [[into[layer.number][s] for s in sorted(into[layer.number])] for layer in layers]


def _matrix(
    hop: HopCounts,
    name: str,
    layers: Sequence[LayerShape],
    first: NDArray[np.int64],
    excluded: NDArray[np.bool_],
) -> _Hop:
    sources = layers[hop.source_layer].channels
    targets = layers[hop.target_layer].channels
    if not len(hop.source) == len(hop.target) == len(hop.count):
        raise AtlasError(f"{name}: its columns differ in length")
    for what, column, end in (
        ("source channel", hop.source, sources),
        ("target channel", hop.target, targets),
        ("count", hop.count, _LARGEST_COUNT + 1),
    ):
        if column.size and not 0 <= column.min() <= column.max() < end:
            raise AtlasError(f"{name}: a {what} is outside 0 to {end - 1}")
    kept = hop.count > 0
    kept &= ~excluded[first[hop.source_layer] + hop.source]
    kept &= ~excluded[first[hop.target_layer] + hop.target]
    cell = hop.target[kept].astype(np.int64) * sources + hop.source[kept]
    order = np.argsort(cell, kind="stable")
    cell = cell[order]
    if (cell[1:] == cell[:-1]).any():
        raise AtlasError(f"{name}: a pair of channels occurs twice; the counts are damaged")
    target, source = np.divmod(cell, max(sources, 1))
    return _Hop(
        source_layer=hop.source_layer,
        target_layer=hop.target_layer,
        start=np.searchsorted(target, np.arange(targets + 1)),
        target=target,
        source=source,
        count=hop.count[kept][order].astype(np.int32),
    )


def _mean_sources(layer: LayerShape, direct: Sequence[_Hop], hidden: Sequence[_Hop]) -> int:
    """The default `m` of a target layer; 0 where nothing arrives."""
    directly = np.zeros(layer.channels, dtype=np.int64)
    immediate = np.zeros(layer.channels, dtype=np.int64)
    for hop in direct:
        directly += np.diff(hop.start)
    for hop in (*direct, *hidden):
        immediate += np.diff(hop.start)
    judged = directly > 0 if directly.any() else immediate > 0
    return int(immediate[judged].sum()) // max(int(judged.sum()), 1)


def _gather(
    channels: int,
    direct: Sequence[_Hop],
    through: Sequence[tuple[_Hop, _Ways]],
    first: NDArray[np.int64],
) -> _Ways:
    """The ways into a layer: direct hops, and those through the hidden layers that it reads."""
    numbers = [first[hop.source_layer] + hop.source for hop in direct]
    numbers += [ways.sources for _, ways in through]
    sources = np.unique(np.concatenate([np.zeros(0, dtype=np.int64), *numbers]))
    width = np.zeros((channels, sources.size), dtype=np.int32)
    number = np.zeros((channels, sources.size))
    exponent = max([0, *(ways.exponent for _, ways in through)])
    for hop in direct:
        at = np.searchsorted(sources, first[hop.source_layer] + hop.source)
        width[hop.target, at] = hop.count
        number[hop.target, at] = np.ldexp(hop.count.astype(np.float64), -exponent)
    for hop, ways in through:
        at = np.searchsorted(sources, ways.sources)
        width[:, at] = np.maximum(width[:, at], _widest(hop, ways.width))
        number[:, at] += np.ldexp(_number(hop, ways.number), ways.exponent - exponent)
    shift = int(np.frexp(number.max(initial=0.0))[1])
    return _Ways(sources, width, np.ldexp(number, -shift), exponent + shift)


def _number(hop: _Hop, number: NDArray[np.float64]) -> NDArray[np.float64]:
    """(+, ×) product of a hop's matrix (targets, hidden) with (hidden, sources)."""
    shape = (len(hop.start) - 1, number.shape[0])
    matrix = csr_array((hop.count.astype(np.float64), hop.source, hop.start), shape=shape)
    product: NDArray[np.float64] = np.asarray(matrix @ number)
    return product


def _widest(hop: _Hop, width: NDArray[np.int32]) -> NDArray[np.int32]:
    """(max, min) product of a hop's matrix (targets, hidden) with (hidden, sources).

    Targets are taken in blocks, those with the most counts first, so that the n-th count of all
    targets of a block is one array operation over the first so many rows.
    """
    degree = np.diff(hop.start)
    product = np.zeros((degree.size, width.shape[1]), dtype=np.int32)
    busiest = np.argsort(-degree, kind="stable")
    rows = max(1, _BLOCK_CELLS // max(1, width.shape[1]))
    for begin in range(0, int((degree > 0).sum()), rows):
        block = busiest[begin : begin + rows]
        widest = np.zeros((block.size, width.shape[1]), dtype=np.int32)
        for nth in range(int(degree[block[0]])):
            live = int((degree[block] > nth).sum())
            entry = hop.start[block[:live]] + nth
            way = width[hop.source[entry]]
            np.minimum(way, hop.count[entry, None], out=way)
            np.maximum(widest[:live], way, out=widest[:live])
        product[block] = widest
    return product


def _kept(
    direct: Sequence[_Hop], ways: _Ways, m: int, first: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Target channel, source neuron and count of a layer's edges."""
    indirect = ways.width.copy()
    kept: list[tuple[NDArray[np.int64], ...]] = []
    for hop in direct:
        source = first[hop.source_layer] + hop.source
        cell = hop.target, np.searchsorted(ways.sources, source)
        kept.append((hop.target, source, ways.width[cell].astype(np.int64)))
        indirect[cell] = 0
    target, at = _heaviest(indirect, ways.number, m)
    kept.append((target, ways.sources[at], ways.width[target, at].astype(np.int64)))
    targets, sources, counts = (np.concatenate(column) for column in zip(*kept, strict=True))
    order = np.lexsort((sources, targets))
    return targets[order], sources[order], counts[order]


def _heaviest(
    width: NDArray[np.int32], number: NDArray[np.float64], m: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Row and column of the m heaviest cells above 0 of each row: by width, number, column."""
    columns = width.shape[1]
    least = np.ones((width.shape[0], 1), dtype=np.int32)
    if 0 < m < columns:
        mth = np.partition(width, columns - m, axis=1)[:, [columns - m]]
        least = np.maximum(least, mth)
    row, column = (width >= least).nonzero()
    # Stable sort: what ties in width and number stays in the order of the columns.
    order = np.lexsort((-number[row, column], -width[row, column], row))
    row, column = row[order], column[order]
    place = np.arange(row.size) - np.searchsorted(row, row)
    return row[place < m], column[place < m]


def _edges(kept: Sequence[tuple[NDArray[np.int64], ...]], first: NDArray[np.int64]) -> Edges:
    nothing = np.zeros(0, dtype=np.int64)
    source, target, count = (
        np.concatenate([nothing, *column])
        for column in zip((nothing, nothing, nothing), *kept, strict=True)
    )
    source_layer, source_channel = _layer_and_channel(source, first)
    target_layer, target_channel = _layer_and_channel(target, first)
    return Edges(source_layer, source_channel, target_layer, target_channel, count)

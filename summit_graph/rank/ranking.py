"""One class from its counts to its attribution graph.

Method (docs/method.md, sections 4 and 5):

1. The counts of all hops are contracted to the class's neuron graph.
2. Its nodes are the neurons that have an edge, in the order of layers, then channels.
3. They are ranked by PageRank; walkers jump where the class activates its layers most.
4. The highest are kept, with the edges between them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from summit_graph.rank.contraction import Edges, HopCounts, LayerShape, class_graph
from summit_graph.rank.pagerank import pagerank, teleport_vector
from summit_graph.rank.selection import Selection, select


@dataclass(frozen=True, eq=False)
class Activations:
    """In how many images of one class each of n neurons is active; a neuron at most once."""

    layer: NDArray[np.int32]
    channel: NDArray[np.int32]
    count: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class ClassRank:
    """A class's graph with N neurons and n edges, ranked.

    edges: the class's graph
    layer, channel: (N,) the neurons that have an edge, sorted
    pagerank: (N,) sum 1
    selection: the attribution graph; its `edges` go with those above
    iterations, converged: of the PageRank
    """

    edges: Edges
    layer: NDArray[np.int32]
    channel: NDArray[np.int32]
    pagerank: NDArray[np.float64]
    selection: Selection
    iterations: int
    converged: bool


def rank_class(
    layers: Sequence[LayerShape],
    hops: Sequence[HopCounts],
    activations: Activations,
    *,
    damping: float = 0.85,
    mass: float = 0.075,
    sources: int | None = None,
    exclude: frozenset[tuple[int, int]] = frozenset(),
) -> ClassRank:
    """Rank one class's neurons and select its attribution graph.

    layers, hops, sources, exclude: as for `contraction.class_graph`
    activations: the class's activation counts
    damping, mass: as for `pagerank.pagerank` and `selection.select`

    A class without counts has an empty graph; its PageRank has converged after 0 iterations.

    Raises:
        UsageError: a parameter is out of range, or an excluded neuron is unknown.
        AtlasError: counts do not fit the layers.
    """
    edges = class_graph(layers, hops, sources=sources, exclude=exclude)
    widest = max((layer.channels for layer in layers), default=1)
    earlier = edges.source_layer.astype(np.int64) * widest + edges.source
    later = edges.target_layer.astype(np.int64) * widest + edges.target
    neurons, ends = np.unique(np.concatenate([earlier, later]), return_inverse=True)
    u, v = ends[: earlier.size], ends[earlier.size :]
    layer, channel = (part.astype(np.int32) for part in np.divmod(neurons, widest))
    teleport = teleport_vector(
        layer, channel, activations.layer, activations.channel, activations.count, exclude=exclude
    )
    ranks = pagerank(u, v, edges.count.astype(np.float64), teleport, damping=damping)
    chosen = [shape.number for shape in layers if shape.chosen]
    selection = select(ranks.values, layer, u, v, mass=mass, layers=chosen)
    return ClassRank(
        edges=edges,
        layer=layer,
        channel=channel,
        pagerank=ranks.values,
        selection=selection,
        iterations=ranks.iterations,
        converged=ranks.converged,
    )

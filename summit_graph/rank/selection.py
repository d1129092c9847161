"""The neurons of a class that make its attribution graph.

Method (docs/method.md, section 5):

1. The neurons are sorted by PageRank, descending. `n` is how many it takes for the running sum to
   reach the mass; the threshold is the value behind them (rank `n`, counted from 0). Neurons
   strictly above it are kept; where there is no value behind them, all are.
2. Every layer that has an edge to an earlier layer must keep one: an edge between a kept neuron of
   the layer and a kept neuron of an earlier layer. Where one does not, the mass the user asked for
   is raised by 0.005 · r, r = 1, 2, …; at mass 1 everything is kept.

The method is that of Hohman et al., *Summit*, TVCG 2020.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from summit_graph.errors import UsageError

_MASS_STEP = 0.005


@dataclass(frozen=True, eq=False)
class Selection:
    """The attribution graph of a class of N neurons and n edges.

    selected: (N,) whether the neuron is kept
    rank: (N,) place by PageRank, 1 the highest; ties in the order of the nodes
    mass: the mass that was used in the end
    threshold: kept neurons lie strictly above it; None: all are kept
    unconnected: numbers of the layers, the first one aside, without an edge to an earlier layer
    edges: (n,) whether the edge joins two kept neurons
    """

    selected: NDArray[np.bool_]
    rank: NDArray[np.int32]
    mass: float
    threshold: float | None
    unconnected: tuple[int, ...]
    edges: NDArray[np.bool_]


def select(
    pagerank: NDArray[np.float64],
    layer: NDArray[np.integer],
    edges_u: NDArray[np.integer],
    edges_v: NDArray[np.integer],
    *,
    mass: float = 0.075,
    layers: Sequence[int] | None = None,
) -> Selection:
    """The neurons that carry the mass, and the edges between them (docs/method.md, section 5).

    pagerank: (N,) sum 1
    layer: (N,) each neuron's layer number; the nodes stand in the order of layers, then channels
    edges_u, edges_v: (n,) nodes of each edge, u in the earlier layer
    mass: above 0, at most 1
    layers: numbers of all chosen layers, so that one without a neuron here is reported too; None:
        the layers of the nodes

    Raises:
        UsageError: the mass is out of range.
    """
    if not 0 < mass <= 1:
        raise UsageError(f"mass is {mass}; it must be above 0 and at most 1")
    order = np.argsort(-pagerank, kind="stable")
    rank = np.empty(pagerank.size, dtype=np.int32)
    rank[order] = np.arange(1, pagerank.size + 1)
    falling = pagerank[order]
    running = np.cumsum(falling)

    # An edge is kept where its lower end is, a layer is connected where its best edge is kept.
    lower_end = np.minimum(pagerank[edges_u], pagerank[edges_v])
    reached, best = _best_by_layer(layer[edges_v], lower_end)
    needed = float(best.min(initial=np.inf))

    raised = 0
    used = mass
    threshold = _threshold(falling, running, used)
    while threshold is not None and not threshold < needed:
        raised += 1
        used = min(1.0, mass + _MASS_STEP * raised)
        threshold = _threshold(falling, running, used)

    selected = np.ones(pagerank.size, dtype=np.bool_)
    if threshold is not None:
        selected = pagerank > threshold
    judged = sorted(set(np.unique(layer).tolist() if layers is None else layers))
    connected = set(reached.tolist())
    return Selection(
        selected=selected,
        rank=rank,
        mass=used,
        threshold=threshold,
        unconnected=tuple(number for number in judged[1:] if number not in connected),
        edges=selected[edges_u] & selected[edges_v],
    )


def _threshold(
    falling: NDArray[np.float64], running: NDArray[np.float64], mass: float
) -> float | None:
    """Value behind the neurons that carry the mass; None where they are all of them."""
    if mass == 1:
        return None
    n = int(np.searchsorted(running, mass, side="left")) + 1
    return float(falling[n]) if n < falling.size else None


def _best_by_layer(
    layer: NDArray[np.integer], value: NDArray[np.float64]
) -> tuple[NDArray[np.integer], NDArray[np.float64]]:
    """The layers that occur, and the largest value of each."""
    layers, at = np.unique(layer, return_inverse=True)
    best = np.full(layers.size, -np.inf)
    np.maximum.at(best, at, value)
    return layers, best

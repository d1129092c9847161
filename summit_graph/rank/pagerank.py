"""Personalised PageRank of a weighted, undirected graph.

Method (docs/method.md, section 5). PageRank `x` is what a walker's place settles to who follows an
edge with probability α (the damping), each by its weight, and else jumps to a neuron drawn from the
teleport `t`:

    x = α A D⁻¹ x + (1 − α) t        A the symmetric weights, D the nodes' sums of weights

1. The graph is undirected, so with `x = D^½ y` the system is symmetric positive definite,
   `(I − α S) y = (1 − α) D^-½ t` with `S = D^-½ A D^-½`, and conjugate gradients solve it; at
   α = 0.85 in about a quarter of the steps of a power iteration.
2. A node without weight (none in a class's graph) hands its walkers back to the teleport. That only
   scales the other ranks, so it is left out of the system, takes `(1 − α) t`, and everything is
   divided by its sum.
3. One step of the power iteration is then done on the result. The L1 change it makes is the measure
   of convergence: the result is wrong by at most change / (1 − α), in L1.

The ranking of neurons by PageRank is that of Hohman et al., *Summit*, TVCG 2020.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array, csr_array, diags_array
from scipy.sparse.linalg import cg

from summit_graph.errors import UsageError


@dataclass(frozen=True, eq=False)
class PageRank:
    """PageRank of N nodes.

    values: (N,) not negative, sum 1
    iterations: steps of the conjugate gradients
    converged: whether the values are within the tolerance, in L1, of the exact ones
    """

    values: NDArray[np.float64]
    iterations: int
    converged: bool


def pagerank(
    edges_u: NDArray[np.integer],
    edges_v: NDArray[np.integer],
    weights: NDArray[np.float64],
    teleport: NDArray[np.float64],
    *,
    damping: float = 0.85,
    tolerance: float = 1e-10,
    max_iterations: int = 1000,
) -> PageRank:
    """PageRank of an undirected, weighted graph with N nodes (docs/method.md, section 5).

    edges_u, edges_v: (n,) ends of each edge, 0 to N − 1; an edge stands once, in either direction
    weights: (n,) not negative
    teleport: (N,) not negative, not all 0; divided by its sum here
    damping: 0 or more, below 1
    tolerance: largest L1 distance to the exact ranks. The L1 change of a power iteration's step is
        then below tolerance · (1 − damping), so stricter than a change below the tolerance
    max_iterations: after so many steps the result is returned as it is, `converged` False

    Raises:
        UsageError: damping, tolerance or the number of iterations is out of range, a weight or a
            teleport is negative or not finite, or an edge does not join two different nodes.
    """
    _check(edges_u, edges_v, weights, teleport, damping, tolerance, max_iterations)
    nodes = teleport.size
    if nodes == 0:
        return PageRank(np.zeros(0), 0, True)
    jump = teleport / teleport.max()
    jump /= jump.sum()
    ends = np.concatenate([edges_u, edges_v]), np.concatenate([edges_v, edges_u])
    adjacency = csr_array(coo_array((np.tile(weights, 2), ends), shape=(nodes, nodes)))
    degree = np.asarray(adjacency.sum(axis=1), dtype=np.float64)
    if not np.isfinite(degree).all():
        raise UsageError("the weights of a node add up to more than float64 holds; scale them down")
    root = np.sqrt(degree)
    inverse = np.divide(1.0, root, out=np.zeros(nodes), where=root > 0)
    scale = diags_array(inverse)
    symmetric = csr_array(scale @ adjacency @ scale)
    system = diags_array(np.ones(nodes)) - damping * symmetric

    iterations = 0

    def count(_: NDArray[np.float64]) -> None:
        nonlocal iterations
        iterations += 1

    # The L1 residual of x = D^½ y is at most |D^½|₂ · |residual of y|₂. A tenth of what is allowed
    # leaves room for the division by the sum and for what clipping at 0 moves.
    change_allowed = tolerance * (1 - damping)
    whole = np.where(degree > 0, jump, (1 - damping) * jump).sum()
    residual = 0.1 * change_allowed * whole / max(float(np.linalg.norm(root)), 1e-300)
    start = (1 - damping) * inverse * jump
    solved, _ = cg(
        csr_array(system), start, rtol=0.0, atol=residual, maxiter=max_iterations, callback=count
    )
    values = np.maximum(np.where(degree > 0, root * solved, (1 - damping) * jump), 0.0)
    values /= values.sum()
    stepped = _step(symmetric, root, inverse, values, jump, damping)
    change = float(np.abs(stepped - values).sum())
    return PageRank(stepped / stepped.sum(), iterations, converged=change <= change_allowed)


def teleport_vector(
    layer: NDArray[np.integer],
    channel: NDArray[np.integer],
    active_layer: NDArray[np.integer],
    active_channel: NDArray[np.integer],
    active_count: NDArray[np.integer],
    *,
    exclude: frozenset[tuple[int, int]] = frozenset(),
) -> NDArray[np.float64]:
    """Where a walker jumps to: a class's activation counts, each layer by its own maximum.

    layer, channel: (N,) the nodes
    active_layer, active_channel, active_count: (n,) one class's activation counts, a neuron at most
        once; also of neurons that are no node, for the maximum is over the whole layer
    exclude: neurons as (layer, channel) that do not count for the maximum

    Returns (N,) with sum 1: proportional to count / the layer's largest count, 0 where the count is
    0, and uniform where all are 0 (docs/method.md, section 5).
    """
    if layer.size == 0:
        return np.zeros(0)
    layers = int(max(layer.max(), active_layer.max(initial=0))) + 1
    channels = int(max(channel.max(), active_channel.max(initial=0))) + 1
    counts = np.zeros((layers, channels))
    counts[active_layer, active_channel] = active_count
    for excluded_layer, excluded_channel in exclude:
        if excluded_layer < layers and excluded_channel < channels:
            counts[excluded_layer, excluded_channel] = 0
    largest = counts.max(axis=1)
    share: NDArray[np.float64] = counts[layer, channel] / np.maximum(largest, 1)[layer]
    if not share.any():
        share = np.ones(layer.size)
    teleport: NDArray[np.float64] = share / share.sum()
    return teleport


def _step(
    symmetric: csr_array,
    root: NDArray[np.float64],
    inverse: NDArray[np.float64],
    values: NDArray[np.float64],
    jump: NDArray[np.float64],
    damping: float,
) -> NDArray[np.float64]:
    """One step of the power iteration."""
    stranded = values[root == 0].sum()
    followed = root * (symmetric @ (inverse * values))
    stepped: NDArray[np.float64] = damping * (followed + stranded * jump) + (1 - damping) * jump
    return stepped


def _check(
    edges_u: NDArray[np.integer],
    edges_v: NDArray[np.integer],
    weights: NDArray[np.float64],
    teleport: NDArray[np.float64],
    damping: float,
    tolerance: float,
    max_iterations: int,
) -> None:
    if not 0 <= damping < 1:
        raise UsageError(f"damping is {damping}; it must be 0 or more and below 1")
    if not (tolerance > 0 and max_iterations > 0):
        raise UsageError(
            f"tolerance is {tolerance} and max_iterations {max_iterations}; both must be above 0"
        )
    if not (np.isfinite(weights).all() and (weights >= 0).all()):
        raise UsageError("an edge's weight is negative or not finite; weights are counts")
    if not (np.isfinite(teleport).all() and (teleport >= 0).all()):
        raise UsageError("a node's teleport is negative or not finite; it is a share")
    if teleport.size and not teleport.any():
        raise UsageError("all teleports are 0; a walker must jump somewhere, for example uniformly")
    if not len(edges_u) == len(edges_v) == len(weights):
        raise UsageError("edges and weights differ in number")
    for ends in (edges_u, edges_v):
        if ends.size and not 0 <= ends.min() <= ends.max() < teleport.size:
            raise UsageError(f"an edge ends outside the {teleport.size} nodes")
    if (edges_u == edges_v).any():
        raise UsageError("an edge joins a node to itself; a neuron is no source of its own")

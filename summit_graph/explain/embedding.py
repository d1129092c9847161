"""Where the classes stand in the plane, layer by layer: near each other if they activate alike.

Method (docs/method.md, section 6):

1. A class's row in a layer is how often each channel is active in its images, divided by its sum.
   Two classes are as far apart as 1 − the cosine of their rows. A class without a count in the
   layer is left out there.
2. From 5 classes on, UMAP: the fuzzy graph of each class's nearest ones, then a layout of it by
   umap-learn. Below 5 classes, classical scaling of the distances.
3. A layout starts where the layers before left the classes, and moves by smaller steps than one
   without such a start. A class that has not stood anywhere yet starts amid its nearest ones. Where
   most have not, as in the first layer, all start on the principal axes of their rows.
4. Each layer's points are moved, turned and, if need be, mirrored as a whole to lie as near as
   possible to where the classes stood before. They are never scaled.

umap-learn comes with Numba, which compiles what it runs in every process anew. The fuzzy graph is
made here, in NumPy, since compiling umap-learn's takes seconds and would be most of the time that
ten classes need; a test holds both equal.

Source: McInnes, Healy, Melville, *UMAP: Uniform Manifold Approximation and Projection for Dimension
Reduction*, 2018 (arXiv 1802.03426), algorithms 2 to 5. Principal axes as a start: Kobak and
Linderman, *Initialization is critical for preserving global data structure in both t-SNE and
UMAP*, Nature Biotechnology 39, 2021. Classical scaling: Torgerson, 1952.
"""

from __future__ import annotations

import locale
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray
from scipy.linalg import orthogonal_procrustes

from summit_graph.explain.similarity import Rows, cosines, rows_by_layer

NEIGHBOURS = 15
"""Of a class in UMAP, itself among them, as umap-learn counts; fewer where classes are fewer."""

MIN_DIST = 0.1
"""How near to each other UMAP lets points lie."""

FEWEST = 5
"""Classes from which on there is something for UMAP to lay out."""

_SEED = 0
_EPOCHS = 500
# The first steps of a layout (umap-learn's learning rate): of one from the principal axes, as
# umap-learn has it, and of one that goes on from the layers before, so that noise does not shuffle
# classes whose rows are what they were.
_STEP, _STEP_ON = 1.0, 0.1
# The longer side of the principal axes when a layout starts on them, as umap-learn has it.
_SIDE = 10.0
# Cosine distances below this are rounding: the rows are multiples of each other.
_ROUNDING = 1e-12
# Decimals that are kept, so that what differs in the last bits between two runs (threads of a
# linear algebra library) does not grow from layer to layer.
_DECIMALS = 6
# Cells of one block of cosines (classes × all classes), 128 MB in float64.
_BLOCK_CELLS = 1 << 24

Points = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Embedding:
    """n points, sorted by (layer, class_index).

    layer: number of the layer
    x, y: without a unit; in all layers on the same scale where all are UMAP's
    """

    layer: NDArray[np.int32]
    class_index: NDArray[np.int32]
    x: NDArray[np.float64]
    y: NDArray[np.float64]


def embedding(
    class_index: NDArray[np.integer],
    layer: NDArray[np.integer],
    channel: NDArray[np.integer],
    count: NDArray[np.integer],
    advance: Callable[[], None] = lambda: None,
) -> Embedding:
    """A point for each class in each layer where it has a count (docs/method.md, section 6).

    class_index, layer, channel, count: (n,) rows of the table of activations, a neuron at most once
        for a class; layers are numbered in the order of the forward pass
    advance: is called when a layer is done

    The same rows give the same points in every run on one machine.
    """
    classes, place = np.unique(class_index, return_inverse=True)
    stood = np.full((classes.size, 2), np.nan)
    parts: list[tuple[int, NDArray[np.int64], Points]] = []
    for rows in rows_by_layer(place, layer, channel, count, classes.size):
        here = np.flatnonzero(rows.squares)
        present = Rows(rows.number, rows.counts[here], rows.squares[here])
        points = aligned(_layout(present, stood[here]), stood[here])
        stood[here] = points
        parts.append((rows.number, classes[here], points))
        advance()
    nothing = np.zeros(0, np.int64)
    points = np.concatenate([np.zeros((0, 2)), *(found for *_, found in parts)])
    return Embedding(
        layer=np.concatenate(
            [nothing, *(np.full(len(found), number) for number, _, found in parts)]
        ).astype(np.int32),
        class_index=np.concatenate([nothing, *(found for _, found, _ in parts)]).astype(np.int32),
        x=points[:, 0],
        y=points[:, 1],
    )


def _layout(rows: Rows, stood: Points) -> Points:
    """(classes, 2) points of the classes of one layer, wherever the whole of them lies.

    stood: (classes, 2) where they stood before, nan where nowhere.
    """
    if rows.squares.size < FEWEST:
        return classical_scaling(_distances(rows, np.arange(rows.squares.size)))
    neighbours, distances = nearest(rows, min(NEIGHBOURS, rows.squares.size - 1))
    random = np.random.RandomState(_SEED)
    goes_on = bool(np.isfinite(stood[:, 0]).mean() > 0.5)
    start = _start(stood if goes_on else _principal_axes(rows), neighbours, random)
    return _umap(fuzzy_graph(neighbours, distances), start, _STEP_ON if goes_on else _STEP, random)


def _distances(rows: Rows, block: NDArray[np.integer]) -> NDArray[np.float64]:
    """(block, classes) cosine distances of some classes to all, 0 to 1; to itself 0."""
    distances = 1.0 - cosines(rows, block)
    distances[np.arange(block.size), block] = 0.0
    distances[distances < _ROUNDING] = 0.0
    return distances


def nearest(rows: Rows, neighbours: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Each class's nearest ones and how far they are, (classes, neighbours) each.

    The first is the class itself; equal distances go to the lower class. rows: each with a count.
    """
    classes = rows.squares.size
    found: list[NDArray[np.int64]] = []
    far: list[NDArray[np.float64]] = []
    size = max(1, _BLOCK_CELLS // classes)
    for begin in range(0, classes, size):
        block = np.arange(begin, min(begin + size, classes))
        distances = _distances(rows, block)
        distances[np.arange(block.size), block] = -1.0
        order = np.argsort(distances, axis=1, kind="stable")[:, :neighbours]
        found.append(order)
        far.append(np.maximum(np.take_along_axis(distances, order, axis=1), 0.0))
    return np.concatenate(found), np.concatenate(far)


def fuzzy_graph(
    neighbours: NDArray[np.integer], distances: NDArray[np.floating]
) -> scipy.sparse.csr_matrix[np.float64]:
    """UMAP's graph: (classes, classes) how strongly two are joined, 0 to 1, symmetric.

    A class is joined to its nearest one, as far as that may be, with 1, and to the others with
    exp(−(distance − that of the nearest) / width), its width such that they add up to log₂ of the
    number of neighbours. What both say of each other is joined as probabilities are: a + b − a·b.

    neighbours, distances: (classes, neighbours) as `nearest` gives them.
    Source: McInnes et al., algorithms 2 and 3; umap-learn, `fuzzy_simplicial_set`.
    """
    classes, size = neighbours.shape
    least = np.where(distances > 0, distances, np.inf).min(axis=1)
    least[np.isinf(least)] = 0.0
    beyond = np.maximum(distances - least[:, None], 0.0)
    width = _widths(beyond[:, 1:], float(np.log2(size)))
    # umap-learn's floor, a thousandth of the mean distance: of the class, or, where all its
    # neighbours are at 0, of all classes.
    floor = 1e-3 * np.where(least > 0, distances.mean(axis=1), distances.mean())
    width = np.maximum(width, floor)[:, None]
    strength = np.exp(-np.divide(beyond, width, out=np.zeros_like(beyond), where=width > 0))
    strength[:, 0] = 0.0
    ends = np.repeat(np.arange(classes), size), neighbours.ravel()
    one = scipy.sparse.csr_matrix((strength.ravel(), ends), shape=(classes, classes))
    other = one.T.tocsr()
    graph = scipy.sparse.csr_matrix(one + other - one.multiply(other))
    graph.eliminate_zeros()
    return graph


def _widths(beyond: NDArray[np.float64], target: float) -> NDArray[np.float64]:
    """(classes,) widths for which Σ exp(−beyond / width) over each row is the target.

    By bisection, as far as float64 goes; next to 0 where so many are at 0 that it is more.
    """
    low, high = np.zeros(len(beyond)), np.full(len(beyond), np.inf)
    width = np.ones(len(beyond))
    for _ in range(64):
        above = np.exp(-beyond / width[:, None]).sum(axis=1) > target
        high = np.where(above, width, high)
        low = np.where(above, low, width)
        width = np.where(np.isinf(high), 2 * width, (low + high) / 2)
    return width


def _start(stood: Points, neighbours: NDArray[np.integer], random: np.random.RandomState) -> Points:
    """(classes, 2) where a layout starts: no two at the same place.

    Who stood nowhere comes amid those of its neighbours that did, else amid all.
    """
    known = np.isfinite(stood[:, 0])
    start = stood.copy()
    for index in np.flatnonzero(~known):
        near = neighbours[index][known[neighbours[index]]]
        start[index] = stood[near if near.size else known].mean(axis=0)
    extent = float(np.ptp(start, axis=0).max())
    return start + random.normal(scale=1e-4 * (extent or 1.0), size=start.shape)


def _principal_axes(rows: Rows) -> Points:
    """(classes, 2) the rows, each of length 1, on the two axes along which they differ most.

    All at once scaled to the size of a layout.
    """
    unit = rows.counts / np.sqrt(rows.squares)[:, None]
    left, values, _ = np.linalg.svd(unit - unit.mean(axis=0), full_matrices=False)
    points = _in_the_plane(left[:, :2] * values[:2])
    return points * (_SIDE / (float(np.ptp(points, axis=0).max()) or 1.0))


def classical_scaling(distances: NDArray[np.float64]) -> Points:
    """(n, 2) points whose distances are those given, as near as a plane allows; centred on 0.

    distances: (n, n), symmetric, 0 on the diagonal. Source: Torgerson, 1952.
    """
    centre = np.eye(len(distances)) - 1 / len(distances)
    values, vectors = np.linalg.eigh(-centre @ np.square(distances) @ centre / 2)
    largest = np.argsort(-values, kind="stable")[:2]
    return _in_the_plane(vectors[:, largest] * np.sqrt(np.maximum(values[largest], 0.0)))


def _in_the_plane(points: NDArray[np.float64]) -> Points:
    """(n, 2) of (n, up to 2) coordinates, rounded, the one that is farthest from 0 positive on
    each axis: linear algebra leaves the direction of an axis open."""
    flat = np.zeros((len(points), 2))
    flat[:, : points.shape[1]] = np.round(points, _DECIMALS)
    farthest = flat[np.abs(flat).argmax(axis=0), [0, 1]]
    return np.where(farthest < 0, -flat, flat)


def _umap(
    graph: scipy.sparse.csr_matrix[np.float64],
    start: Points,
    step: float,
    random: np.random.RandomState,
) -> Points:
    """(classes, 2) the layout of a fuzzy graph by umap-learn, from a start, in one thread.

    As umap-learn's `simplicial_set_embedding` lays it out, but that this takes the start as it is,
    where that would stretch it to a square first. Source: McInnes et al., algorithm 5.
    """
    joined = graph.tocoo()
    heavy = joined.data >= joined.data.max() / _EPOCHS
    points = np.ascontiguousarray(start - start.min(axis=0), np.float32)
    with _umap_learn() as umap:
        a, b = umap.find_ab_params(spread=1.0, min_dist=MIN_DIST)
        umap.optimize_layout_euclidean(
            points,
            points,
            joined.row[heavy],
            joined.col[heavy],
            n_epochs=_EPOCHS,
            n_vertices=len(points),
            epochs_per_sample=umap.make_epochs_per_sample(joined.data[heavy], _EPOCHS),
            a=a,
            b=b,
            rng_state=random.randint(umap.INT32_MIN, umap.INT32_MAX, 3).astype(np.int64),
            initial_alpha=step,
            move_other=True,
        )
    return points.astype(np.float64)


@contextmanager
def _umap_learn() -> Iterator[Any]:
    """The module `umap.umap_`; imported where it is needed, since that takes a second.

    Its import warns that it found no TensorFlow, for a part of it that is not used here, and sets
    how the process writes numbers; both end with it.
    """
    numbers = locale.setlocale(locale.LC_NUMERIC)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Tensorflow not installed", ImportWarning)
            import umap.umap_
        yield umap.umap_
    finally:
        locale.setlocale(locale.LC_NUMERIC, numbers)


def aligned(points: Points, stood: Points) -> Points:
    """(classes, 2) the points, moved, turned and mirrored as a whole to where the classes stood.

    stood: (classes, 2), nan for a class that stood nowhere. The squares of the distances between
    the two are least then. Where none stood anywhere, the points' mean comes to 0.
    Source: Schönemann, *A generalized solution of the orthogonal Procrustes problem*, 1966.
    """
    known = np.isfinite(stood[:, 0])
    if known.any():
        centre, target = points[known].mean(axis=0), stood[known].mean(axis=0)
        turn, _ = orthogonal_procrustes(points[known] - centre, stood[known] - target)
        moved = (points - centre) @ turn + target
    else:
        moved = points - points.mean(axis=0)
    return np.asarray(np.round(moved, _DECIMALS))

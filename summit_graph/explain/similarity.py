"""How alike the classes are in what they activate.

Method (docs/method.md, section 6):

1. A class's row in a layer is how often each channel is active in its images. Two classes' cosine
   in the layer is that of their rows. A class without a count in the layer has none there.
2. Overall, two classes have the mean of their cosines over the layers in which both have counts.
3. Of each class the nearest others are kept; equal cosines go to the lower class.

Dot products of integer counts are exact in float64 (below 2⁵³), in whatever order a machine adds
them, so equal rows have equal cosines, and a layer has the same neighbours everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from summit_graph.errors import UsageError

OVERALL = -1
# Cells of one block of rows (classes × all classes), 128 MB in float64.
_BLOCK_CELLS = 1 << 24


@dataclass(frozen=True, eq=False)
class Similar:
    """n rows, sorted by (layer, class_index, other).

    layer: number of the layer, or −1 (`OVERALL`)
    cosine: 0 to 1, for counts are not negative; in a layer, equal rows have exactly 1
    """

    layer: NDArray[np.int32]
    class_index: NDArray[np.int32]
    other: NDArray[np.int32]
    cosine: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Rows:
    """Activation counts of a layer: (classes, channels), and their sums of squares (classes,).

    number: of the layer. A class without a count in it has a row of zeros.
    """

    number: int
    counts: NDArray[np.float64]
    squares: NDArray[np.float64]


def similarity(
    class_index: NDArray[np.integer],
    layer: NDArray[np.integer],
    channel: NDArray[np.integer],
    count: NDArray[np.integer],
    n_classes: int,
    nearest: int = 50,
) -> Similar:
    """The most similar classes of each class, per layer and overall (docs/method.md, section 6).

    class_index, layer, channel, count: (n,) rows of the table of activations, a neuron at most once
        for a class
    n_classes: classes are 0 to n_classes − 1
    nearest: how many others a class keeps, 1 or more

    Raises:
        UsageError: `nearest` is below 1.
    """
    if nearest < 1:
        raise UsageError(f"nearest is {nearest}; a class keeps 1 other class or more")
    layers = list(rows_by_layer(class_index, layer, channel, count, n_classes))
    parts: list[tuple[int, NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]] = []
    size = max(1, _BLOCK_CELLS // max(1, n_classes))
    for begin in range(0, n_classes, size):
        block = np.arange(begin, min(begin + size, n_classes))
        total = np.zeros((block.size, n_classes))
        times = np.zeros((block.size, n_classes), dtype=np.int32)
        for rows in layers:
            cosine = cosines(rows, block)
            known = cosine >= 0
            total += np.where(known, cosine, 0.0)
            times += known
            parts.append((rows.number, *_nearest(cosine, block, nearest)))
        mean = np.where(times > 0, total / np.maximum(times, 1), -1.0)
        parts.append((OVERALL, *_nearest(mean, block, nearest)))
    return _sorted(parts)


def rows_by_layer(
    class_index: NDArray[np.integer],
    layer: NDArray[np.integer],
    channel: NDArray[np.integer],
    count: NDArray[np.integer],
    n_classes: int,
) -> Iterator[Rows]:
    """The activation rows of each layer that has a count, in the order of their numbers.

    Parameters as those of `similarity`.
    """
    for number in np.unique(layer):
        here = layer == number
        counts = np.zeros((n_classes, int(channel[here].max()) + 1))
        counts[class_index[here], channel[here]] = count[here]
        yield Rows(int(number), counts, np.square(counts).sum(axis=1))


def cosines(rows: Rows, block: NDArray[np.integer]) -> NDArray[np.float64]:
    """(block, classes): cosines of some classes with all, 0 to 1.

    −1 where one of the two has no count, and of a class with itself.
    """
    dots = rows.counts[block] @ rows.counts.T
    squares = np.multiply.outer(rows.squares[block], rows.squares)
    cosine = np.full(dots.shape, -1.0)
    np.divide(dots, np.sqrt(squares), out=cosine, where=squares > 0)
    np.minimum(cosine, 1.0, out=cosine)
    cosine[np.arange(block.size), block] = -1.0
    return cosine


def _nearest(
    cosine: NDArray[np.float64], block: NDArray[np.int64], nearest: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Class, other and cosine of each class's nearest."""
    others = cosine.shape[1]
    least = np.zeros((block.size, 1))
    if nearest < others:
        nth = np.partition(cosine, others - nearest, axis=1)[:, [others - nearest]]
        least = np.maximum(least, nth)
    row, other = np.nonzero(cosine >= least)
    # Stable sort: equal cosines stay in the order of the other classes.
    order = np.lexsort((-cosine[row, other], row))
    row, other = row[order], other[order]
    kept = np.arange(row.size) - np.searchsorted(row, row) < nearest
    row, other = row[kept], other[kept]
    return block[row], other, cosine[row, other]


def _sorted(
    parts: list[tuple[int, NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]],
) -> Similar:
    nothing = np.zeros(0, dtype=np.int64)
    layer = np.concatenate([nothing, *(np.full(len(a), number) for number, a, _, _ in parts)])
    class_index = np.concatenate([nothing, *(a for _, a, _, _ in parts)])
    other = np.concatenate([nothing, *(b for _, _, b, _ in parts)])
    cosine = np.concatenate([np.zeros(0), *(c for _, _, _, c in parts)])
    order = np.lexsort((other, class_index, layer))
    return Similar(
        layer=layer[order].astype(np.int32),
        class_index=class_index[order].astype(np.int32),
        other=other[order].astype(np.int32),
        cosine=cosine[order],
    )

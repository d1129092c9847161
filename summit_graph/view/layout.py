"""Where the neurons of a picture stand: one row a layer, with few crossings of edges.

1. Rows: a neuron's row is its layer's place, the first layer in row 0, drawn at the bottom.
2. Order within rows: sweeps up and down the rows sort each row by the weighted mean place of its
   neurons' neighbours in the rows already passed; after each sweep, neighbours in a row change
   places while that takes away crossings. The order with the fewest crossings is kept.
   (Sugiyama, Tagawa, Toda: Methods for visual understanding of hierarchical system structures, IEEE
   Trans. Systems, Man and Cybernetics 11, 1981; the swaps: Gansner, Koutsofios, North, Vo: A
   technique for drawing directed graphs, IEEE Trans. Software Engineering 19, 1993.)
3. Places within rows: each neuron moves towards the weighted mean of its neighbours, as far as the
   order and a distance of one slot allow (isotonic regression), within the width of the widest row.

`page/layout.js` is the same algorithm for pages, operation by operation, so that a class looks the
same everywhere; a test compares the two.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Sequence
from typing import NamedTuple

_SWEEPS = 12
_SWAP_PASSES = 10
_RELAXATIONS = 16


class Place(NamedTuple):
    """Where a node stands. x: in slots, 0 at the left of the widest row; row: 0 is the lowest."""

    x: float
    row: int


class Edge(NamedTuple):
    """An edge between nodes, by their numbers; `weight` is its count, above 0."""

    source: int
    target: int
    weight: int


def layout(rows: Sequence[int], edges: Sequence[Edge]) -> tuple[Place, ...]:
    """Places of nodes whose rows are given, by number.

    rows: (nodes,) the row of each node; nodes come in their order of importance, which decides
    where nothing else does. edges: between nodes of different rows, either way round.
    """
    row_numbers = sorted(set(rows))
    order = [[node for node in range(len(rows)) if rows[node] == row] for row in row_numbers]
    level = {row: at for at, row in enumerate(row_numbers)}
    levels = [level[row] for row in rows]
    ordered = _ordered(order, levels, edges)
    x = _placed(ordered, levels, edges)
    return tuple(Place(x[node], rows[node]) for node in range(len(rows)))


def crossings(order: Sequence[Sequence[int]], levels: Sequence[int], edges: Sequence[Edge]) -> int:
    """How many pairs of edges between the same two rows cross.

    order: the nodes of each level, from left to right. levels: of each node.
    """
    place = _places(order, len(levels))
    between: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for edge in edges:
        low, high = edge.source, edge.target
        if levels[low] > levels[high]:
            low, high = high, low
        pair = (levels[low], levels[high])
        between.setdefault(pair, []).append((place[low], place[high]))
    total = 0
    for ends in between.values():
        seen: list[int] = []
        ends.sort()
        for _, end in ends:
            total += len(seen) - bisect_right(seen, end)
            insort(seen, end)
    return total


def _ordered(
    order: list[list[int]], levels: Sequence[int], edges: Sequence[Edge]
) -> list[list[int]]:
    """The nodes of each level from left to right, with few crossings."""
    neighbours = _neighbours(edges, len(levels))
    order = [list(nodes) for nodes in order]
    best, fewest = [list(nodes) for nodes in order], crossings(order, levels, edges)
    for sweep in range(_SWEEPS):
        if fewest == 0:
            break
        upwards = sweep % 2 == 0
        for at in range(len(order)) if upwards else range(len(order) - 1, -1, -1):
            _sort_by_neighbours(order, at, levels, neighbours, upwards)
        _swap(order, levels, neighbours)
        found = crossings(order, levels, edges)
        if found < fewest:
            best, fewest = [list(nodes) for nodes in order], found
    return best


def _neighbours(edges: Sequence[Edge], nodes: int) -> list[list[tuple[int, int]]]:
    """(neighbour, weight) of each node, in the order of the edges."""
    found: list[list[tuple[int, int]]] = [[] for _ in range(nodes)]
    for edge in edges:
        found[edge.source].append((edge.target, edge.weight))
        found[edge.target].append((edge.source, edge.weight))
    return found


def _places(order: Sequence[Sequence[int]], nodes: int) -> list[int]:
    place = [0] * nodes
    for level in order:
        for at, node in enumerate(level):
            place[node] = at
    return place


def _sort_by_neighbours(
    order: list[list[int]],
    at: int,
    levels: Sequence[int],
    neighbours: Sequence[Sequence[tuple[int, int]]],
    upwards: bool,
) -> None:
    """Sort one level by where its neighbours in the levels already passed stand.

    Places are counted from the middle of a row; a node without such neighbours stays.
    """
    middle: dict[int, float] = {}
    for level in order:
        for place, node in enumerate(level):
            middle[node] = place - (len(level) - 1) / 2
    wanted: dict[int, float] = {}
    for node in order[at]:
        total, weights = 0.0, 0
        for other, weight in neighbours[node]:
            passed = levels[other] < at if upwards else levels[other] > at
            if passed:
                total += weight * middle[other]
                weights += weight
        wanted[node] = total / weights if weights else middle[node]
    order[at].sort(key=wanted.__getitem__)


def _swap(
    order: list[list[int]],
    levels: Sequence[int],
    neighbours: Sequence[Sequence[tuple[int, int]]],
) -> None:
    """Let neighbours in a row change places as long as that takes away crossings."""
    place = _places(order, len(levels))
    for _ in range(_SWAP_PASSES):
        changed = False
        for level in order:
            for at in range(len(level) - 1):
                left, right = level[at], level[at + 1]
                now, then = _crossed(left, right, levels, neighbours, place)
                if then < now:
                    level[at], level[at + 1] = right, left
                    place[left], place[right] = at + 1, at
                    changed = True
        if not changed:
            return


def _crossed(
    left: int,
    right: int,
    levels: Sequence[int],
    neighbours: Sequence[Sequence[tuple[int, int]]],
    place: Sequence[int],
) -> tuple[int, int]:
    """Crossings between the edges of two nodes as they stand, and with places changed."""
    now = then = 0
    for first, _ in neighbours[left]:
        for second, _ in neighbours[right]:
            if levels[first] == levels[second]:
                now += place[first] > place[second]
                then += place[first] < place[second]
    return now, then


def _placed(
    order: Sequence[Sequence[int]], levels: Sequence[int], edges: Sequence[Edge]
) -> list[float]:
    """Places in slots, 0 at the left of the widest row, at least one slot apart in a row."""
    neighbours = _neighbours(edges, len(levels))
    widest = max((len(level) for level in order), default=0)
    half = (widest - 1) / 2
    x = [0.0] * len(levels)
    for level in order:
        for at, node in enumerate(level):
            x[node] = at - (len(level) - 1) / 2
    for step in range(_RELAXATIONS):
        for level in order if step % 2 == 0 else reversed(order):
            wanted = []
            for at, node in enumerate(level):
                total, weights = 0.0, 0
                for other, weight in neighbours[node]:
                    total += weight * x[other]
                    weights += weight
                wanted.append((total / weights if weights else x[node]) - at)
            rest = half - (len(level) - 1)
            for at, value in enumerate(_rising(wanted)):
                x[level[at]] = min(max(value, -half), rest) + at
    return [place + half for place in x]


def _rising(values: Sequence[float]) -> list[float]:
    """The rising sequence nearest to `values` by squares: neighbours that fall are pooled."""
    sums: list[float] = []
    sizes: list[int] = []
    for value in values:
        sums.append(value)
        sizes.append(1)
        while len(sums) > 1 and sums[-2] / sizes[-2] > sums[-1] / sizes[-1]:
            total, size = sums.pop(), sizes.pop()
            sums[-1] += total
            sizes[-1] += size
    return [total / size for total, size in zip(sums, sizes, strict=True) for _ in range(size)]

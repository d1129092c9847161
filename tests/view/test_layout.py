"""Places of neurons: rows, distances, widths, and that edges cross less."""

from __future__ import annotations

from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.isotonic import IsotonicRegression

from summit_graph.view.layout import Edge, Place, _rising, crossings, layout


@st.composite
def graphs(draw: st.DrawFn) -> tuple[list[int], list[Edge]]:
    rows = draw(st.lists(st.integers(0, 4), min_size=1, max_size=18))
    pairs = [(a, b) for a, b in combinations(range(len(rows)), 2) if rows[a] != rows[b]]
    if not pairs:
        return rows, []
    chosen = draw(st.lists(st.sampled_from(pairs), unique=True, max_size=30))
    return rows, [Edge(a, b, draw(st.integers(1, 50))) for a, b in chosen]


def by_row(places: tuple[Place, ...]) -> dict[int, list[float]]:
    found: dict[int, list[float]] = {}
    for place in places:
        found.setdefault(place.row, []).append(place.x)
    return {row: sorted(xs) for row, xs in found.items()}


def in_order(
    rows: list[int], places: tuple[Place, ...] | None
) -> tuple[list[list[int]], list[int]]:
    """The nodes of each level from left to right (as given, where there are no places)."""
    numbers = sorted(set(rows))
    order = [[node for node in range(len(rows)) if rows[node] == row] for row in numbers]
    if places is not None:
        order = [sorted(level, key=lambda node: places[node].x) for level in order]
    return order, [numbers.index(row) for row in rows]


def crossings_slowly(rows: list[int], places: tuple[Place, ...], edges: list[Edge]) -> int:
    """Pairs of edges between the same two rows whose ends stand in opposite order."""
    upwards = [(a, b) if rows[a] < rows[b] else (b, a) for a, b, _ in edges]
    total = 0
    for (a, b), (c, d) in combinations(upwards, 2):
        if rows[a] == rows[c] and rows[b] == rows[d]:
            low, high = places[a].x - places[c].x, places[b].x - places[d].x
            total += low * high < 0
    return total


@given(graphs())
def test_neurons_stand_in_their_rows_a_slot_apart(graph: tuple[list[int], list[Edge]]) -> None:
    rows, edges = graph
    places = layout(rows, edges)
    assert [place.row for place in places] == rows
    widest = max(rows.count(row) for row in rows)
    for xs in by_row(places).values():
        assert xs[0] >= -1e-9
        assert xs[-1] <= widest - 1 + 1e-9
        assert all(b - a >= 1 - 1e-9 for a, b in pairwise(xs))


@given(graphs())
def test_crossings_are_counted_and_never_more_than_before(
    graph: tuple[list[int], list[Edge]],
) -> None:
    rows, edges = graph
    places = layout(rows, edges)
    found = crossings(*in_order(rows, places), edges)
    assert found == crossings_slowly(rows, places, edges)
    assert found <= crossings(*in_order(rows, None), edges)


@given(graphs())
def test_the_same_graph_stands_the_same(graph: tuple[list[int], list[Edge]]) -> None:
    rows, edges = graph
    assert layout(rows, edges) == layout(rows, [Edge(b, a, weight) for a, b, weight in edges])


def test_a_graph_that_can_be_drawn_without_crossings() -> None:
    """Three chains through three rows, given as crossed as can be."""
    rows = [0, 0, 0, 1, 1, 1, 2, 2, 2]
    edges = [Edge(0, 5, 3), Edge(1, 4, 3), Edge(2, 3, 3), Edge(5, 7, 3), Edge(4, 8, 3)]
    edges.append(Edge(3, 6, 3))
    places = layout(rows, edges)
    assert crossings_slowly(rows, places, edges) == 0
    for edge in edges:
        assert places[edge.source].x == pytest.approx(places[edge.target].x)


def test_a_lone_target_stands_at_the_weighted_mean_of_its_sources() -> None:
    """Sources at 0 and 1, counts 1 and 3: by hand, 0.75."""
    places = layout([0, 0, 1], [Edge(0, 2, 1), Edge(1, 2, 3)])
    assert places == (Place(0.0, 0), Place(1.0, 0), Place(0.75, 1))


def test_nothing_to_place() -> None:
    assert layout([], []) == ()
    assert layout([3], []) == (Place(0.0, 3),)


@given(st.lists(st.floats(-9, 9), min_size=1, max_size=12))
def test_pooling_is_isotonic_regression(values: list[float]) -> None:
    expected = IsotonicRegression().fit_transform(np.arange(len(values)), values)
    np.testing.assert_allclose(_rising(values), expected, atol=1e-6)

"""The selection: by hand with shares that float64 holds exactly, and against plain loops."""

from __future__ import annotations

import numpy as np
import pytest
import reference_ranking as reference
from hypothesis import given, settings
from hypothesis import strategies as st

from summit_graph.errors import UsageError
from summit_graph.rank.selection import Selection, select


def selected(
    ranks: list[float],
    layer: list[int],
    edges: list[tuple[int, int]],
    mass: float = 0.075,
    layers: list[int] | None = None,
) -> Selection:
    return select(
        np.array(ranks, dtype=np.float64),
        np.array(layer, dtype=np.int32),
        np.array([u for u, _ in edges], dtype=np.int64),
        np.array([v for _, v in edges], dtype=np.int64),
        mass=mass,
        layers=layers,
    )


def test_keeps_what_lies_strictly_above_the_next_value() -> None:
    # Sorted ½, ¼, ⅛, ⅛; mass 0.6: running sums ½, ¾, so n = 2, threshold = the third value, ⅛.
    found = selected([1 / 8, 1 / 4, 1 / 2, 1 / 8], [0, 0, 1, 1], [(0, 3), (1, 2), (1, 3)], 0.6)
    assert found.selected.tolist() == [False, True, True, False]
    assert found.edges.tolist() == [False, True, False]
    assert found.threshold == 1 / 8
    assert found.mass == 0.6
    assert found.rank.tolist() == [3, 2, 1, 4]  # of equals, the one that stands first
    assert found.unconnected == ()


def test_sum_that_reaches_the_mass_exactly_is_enough() -> None:
    # ½ + ¼ = 0.75: n = 2. A hair more takes the third, and the threshold falls to the fourth.
    ranks, layer, edges = [1 / 2, 1 / 4, 1 / 8, 1 / 8], [0, 1, 0, 1], [(0, 1), (2, 3)]
    assert selected(ranks, layer, edges, 0.75).threshold == 1 / 8
    assert selected(ranks, layer, edges, 0.75).selected.sum() == 2
    # n = 3, threshold = the fourth value, ⅛: the third is not above it.
    assert selected(ranks, layer, edges, 0.76).selected.sum() == 2
    # ¾ + ⅛ + ⅛ = 1 needs all four: no value behind them, all are kept.
    everything = selected(ranks, layer, edges, 0.9)
    assert everything.threshold is None
    assert everything.selected.all()
    assert everything.edges.all()
    assert everything.mass == 0.9


def test_mass_is_raised_until_a_layer_is_connected() -> None:
    # ½ and ⅛ in layer 0, ¼ and ⅛ in layer 1; mass 0.4 keeps ½ alone (threshold ¼), and layer 1 has
    # an edge to it. n becomes 2 when the mass passes ½: 0.4 + 0.005 · 21 = 0.505.
    found = selected([1 / 2, 1 / 8, 1 / 4, 1 / 8], [0, 0, 1, 1], [(0, 2), (1, 3)], 0.4)
    assert found.mass == 0.4 + 0.005 * 21
    assert found.threshold == 1 / 8
    assert found.selected.tolist() == [True, False, True, False]
    assert found.edges.tolist() == [True, False]


def test_kept_neurons_of_a_layer_must_have_the_edge() -> None:
    # ½ (layer 0) and ¼ (layer 1) are kept at 0.6, but have no edge; ¼'s is to 3/16 in layer 0.
    # That one is above the threshold 1/16 once n = 3: mass above ¾: 0.6 + 0.005 · 31 = 0.755.
    found = selected([1 / 2, 3 / 16, 1 / 4, 1 / 16], [0, 0, 1, 1], [(1, 2), (0, 3)], 0.6)
    assert found.mass == 0.6 + 0.005 * 31
    assert found.selected.tolist() == [True, True, True, False]
    assert found.edges.tolist() == [True, False]


def test_equal_ranks_are_kept_together_or_not_at_all() -> None:
    # Four of ¼: the threshold is always ¼ and nothing lies above, until n is all four.
    found = selected([1 / 4] * 4, [0, 0, 1, 1], [(0, 2), (1, 3)], 0.3)
    assert found.selected.all()
    assert found.threshold is None
    assert found.mass == 0.3 + 0.005 * 91  # the first above ¾
    assert found.rank.tolist() == [1, 2, 3, 4]


def test_mass_1_keeps_all() -> None:
    # The last value is the threshold's only candidate, and sums of PageRank need not reach 1.
    ranks = [0.5, 0.25, 0.25 - 1e-12]
    found = selected(ranks, [0, 1, 1], [(0, 1), (0, 2)], 1.0)
    assert found.selected.all()
    assert found.threshold is None
    over = selected([0.5, 0.5 + 1e-12, 1e-14], [0, 1, 1], [(0, 1), (0, 2)], 1.0)
    assert over.selected.all()
    # Layer 1's edge needs the last neuron, so the mass is raised to 1, not beyond.
    raised = selected([0.5, 0.5 + 1e-12, 1e-14], [0, 0, 1], [(0, 2)], 0.9)
    assert raised.mass == 1.0
    assert raised.selected.all()


def test_layers_without_an_edge_to_an_earlier_one_are_reported() -> None:
    # Layer 2 feeds layer 3 and is fed by none; layer 5 has no neuron here; layer 0 is the first.
    ranks, layer = [1 / 2, 1 / 8, 1 / 8, 1 / 4], [0, 1, 2, 3]
    edges = [(0, 1), (0, 3), (2, 3)]
    found = selected(ranks, layer, edges, 0.6, [0, 1, 2, 3, 5])
    assert found.unconnected == (2, 5)
    assert selected(ranks, layer, edges, 0.6).unconnected == (2,)
    # They do not raise the mass; layer 1 does.
    assert selected(ranks, [0, 3, 2, 3], [(0, 1), (0, 3), (2, 3)], 0.6).mass == 0.6
    assert found.mass > 0.6


def test_empty_graph() -> None:
    found = selected([], [], [], 0.3, [0, 2, 4])
    assert found.selected.size == found.rank.size == found.edges.size == 0
    assert found.mass == 0.3
    assert found.threshold is None
    assert found.unconnected == (2, 4)


@pytest.mark.parametrize("mass", [0.0, -0.1, 1.001, float("nan")])
def test_wrong_mass_is_refused(mass: float) -> None:
    with pytest.raises(UsageError, match="mass is"):
        selected([1.0], [0], [], mass)


@st.composite
def ranked_graphs(draw: st.DrawFn) -> tuple[list[int], list[float], list[tuple[int, int]]]:
    """Nodes in layers, with values that tie often and sum to 1 about, and edges between layers."""
    layer = sorted(draw(st.lists(st.integers(0, 3), min_size=2, max_size=9)))
    weights = draw(st.lists(st.integers(1, 6), min_size=len(layer), max_size=len(layer)))
    pairs = [(u, v) for v in range(len(layer)) for u in range(v) if layer[u] < layer[v]]
    edges = draw(st.lists(st.sampled_from(pairs), unique=True)) if pairs else []
    return layer, [weight / sum(weights) for weight in weights], edges


@settings(max_examples=300, deadline=None)
@given(ranked_graphs(), st.integers(1, 200))
def test_equals_the_reference(
    made: tuple[list[int], list[float], list[tuple[int, int]]], permille: int
) -> None:
    layer, ranks, edges = made
    mass = permille * 0.005
    nodes = [(number, index) for index, number in enumerate(layer)]
    named = {(nodes[u], nodes[v]): 1 for u, v in edges}
    kept, used, threshold = reference.select(nodes, ranks, named, mass)
    found = selected(ranks, layer, edges, min(mass, 1.0))
    assert {node for node, here in zip(nodes, found.selected, strict=True) if here} == kept
    assert found.mass == used
    assert found.threshold == threshold
    assert found.edges.tolist() == [nodes[u] in kept and nodes[v] in kept for u, v in edges]
    by_rank = sorted(range(len(ranks)), key=lambda node: (-ranks[node], node))
    assert [found.rank[node] for node in by_rank] == list(range(1, len(ranks) + 1))


@settings(max_examples=100, deadline=None)
@given(ranked_graphs(), st.floats(0.01, 1.0), st.floats(0.01, 1.0))
def test_more_mass_never_keeps_fewer(
    made: tuple[list[int], list[float], list[tuple[int, int]]], one: float, other: float
) -> None:
    # A raised mass overshoots by up to a step, so only a mass that stands can be compared.
    layer, ranks, edges = made
    less, more = (selected(ranks, layer, edges, mass) for mass in sorted((one, other)))
    if less.mass == min(one, other):
        assert more.mass == max(one, other)
        assert (less.selected <= more.selected).all()
    assert less.mass >= min(one, other)

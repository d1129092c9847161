"""One class from counts to attribution graph: the parts joined."""

from __future__ import annotations

import numpy as np
import pytest
import reference_ranking as reference
from hypothesis import given, settings
from hypothesis import strategies as st
from layered_graphs import activations, as_counts, hops, layered_graphs, shapes
from reference_ranking import Counts, Layer, Neuron

from summit_graph.errors import UsageError
from summit_graph.rank.ranking import Activations, ClassRank, rank_class


def ranked(
    layers: list[Layer],
    counts: Counts,
    active: dict[Neuron, int],
    *,
    damping: float = 0.85,
    mass: float = 0.075,
    sources: int | None = None,
    exclude: frozenset[Neuron] = frozenset(),
) -> ClassRank:
    return rank_class(
        shapes(layers),
        hops(counts),
        Activations(
            np.array([layer for layer, _ in active], dtype=np.int32),
            np.array([channel for _, channel in active], dtype=np.int32),
            np.array(list(active.values()), dtype=np.int64),
        ),
        damping=damping,
        mass=mass,
        sources=sources,
        exclude=exclude,
    )


def test_small_network_by_hand() -> None:
    # u (0/1) -3- m (2/0), m is chosen and feeds v (3/2) with 1; 0/0 and 3/0, 3/1 have no edge.
    # Every node is as active as its layer's most active, so the teleport is uniform: the three
    # neurons of test_pagerank.py, 13.325/37, 18/37 and 5.675/37. Layer 1 is chosen, has no edge.
    layers: list[Layer] = [(True, 2), (True, 1), (True, 1), (True, 3)]
    u, m, v = (0, 1), (2, 0), (3, 2)
    found = ranked(layers, {(u, m): 3, (m, v): 1}, {u: 4, m: 2, v: 9, (3, 0): 5}, mass=0.4)
    assert found.layer.tolist() == [0, 2, 3]
    assert found.channel.tolist() == [1, 0, 2]
    expected = np.array([13.325, 18, 5.675]) / 37
    np.testing.assert_allclose(found.pagerank, expected, rtol=0, atol=1e-12)
    assert found.converged
    assert found.iterations >= 1
    # Mass 0.4 keeps m alone (18/37 = 0.486). Both layers 2 and 3 need an edge, so all must stay:
    # n = 3 from a mass above (18 + 13.325)/37 = 0.8466: 0.4 + 0.005 · 90 = 0.85.
    assert found.selection.mass == 0.4 + 0.005 * 90
    assert found.selection.selected.all()
    assert found.selection.threshold is None
    assert found.selection.rank.tolist() == [2, 1, 3]
    assert found.selection.edges.tolist() == [True, True]
    assert found.selection.unconnected == (1,)
    assert as_counts(found.edges) == {(u, m): 3, (m, v): 1}


def test_teleport_follows_the_whole_layer_but_excluded_neurons() -> None:
    # u (0/0) -7- t (1/0). u's count is 3 where 0/1 has 6: ½, t's is its layer's largest: 1. So
    # ⅓ and ⅔: x_u = 0.85 x_t + 0.05, x_u + x_t = 1: x_u = 0.9 / 1.85 = 18/37.
    layers: list[Layer] = [(True, 2), (True, 1)]
    counts = {((0, 0), (1, 0)): 7}
    active = {(0, 0): 3, (0, 1): 6, (1, 0): 2}
    np.testing.assert_allclose(
        ranked(layers, counts, active).pagerank, [18 / 37, 19 / 37], rtol=0, atol=1e-12
    )
    # Without 0/1 both are ½.
    excluded = ranked(layers, counts, active, exclude=frozenset({(0, 1)}))
    np.testing.assert_allclose(excluded.pagerank, [0.5, 0.5], rtol=0, atol=1e-12)


def test_class_without_counts_has_an_empty_graph() -> None:
    found = ranked([(True, 2), (False, 3), (True, 2)], {}, {})
    for column in (found.layer, found.channel, found.pagerank, found.edges.count):
        assert column.size == 0
    assert found.selection.selected.size == 0
    assert found.selection.mass == 0.075
    assert found.selection.unconnected == (2,)
    assert found.converged
    assert found.iterations == 0


def test_parameters_arrive() -> None:
    layers: list[Layer] = [(True, 3), (False, 1), (True, 1)]
    counts = {((0, i), (1, 0)): 5 - i for i in range(3)} | {((1, 0), (2, 0)): 5}
    assert ranked(layers, counts, {}, sources=2).edges.count.tolist() == [5, 4]
    assert ranked(
        layers, counts, {}, sources=2, exclude=frozenset({(0, 0)})
    ).edges.count.tolist() == [4, 3]
    assert ranked(layers, counts, {}, mass=0.5).selection.mass >= 0.5
    # Damping 0: the teleport alone, uniform here.
    flat = ranked(layers, counts, {}, sources=3, damping=0.0)
    np.testing.assert_allclose(flat.pagerank, np.full(4, 0.25), rtol=0, atol=1e-12)
    with pytest.raises(UsageError, match="damping"):
        ranked(layers, counts, {}, damping=1.0)
    with pytest.raises(UsageError, match="mass"):
        ranked(layers, counts, {}, mass=0.0)


@settings(max_examples=150, deadline=None)
@given(layered_graphs(), st.data())
def test_equals_the_reference(made: tuple[list[Layer], Counts], data: st.DataObject) -> None:
    layers, counts = made
    active = data.draw(activations(layers))
    mass = data.draw(st.sampled_from([0.075, 0.3, 0.6]))
    neurons = [
        (layer, channel) for layer, (_, width) in enumerate(layers) for channel in range(width)
    ]
    exclude = data.draw(st.frozensets(st.sampled_from(neurons), max_size=2))
    found = ranked(layers, counts, active, mass=mass, exclude=exclude)

    edges = reference.class_graph(layers, counts, exclude=exclude)
    nodes = sorted({neuron for pair in edges for neuron in pair})
    assert as_counts(found.edges) == edges
    assert list(zip(found.layer.tolist(), found.channel.tolist(), strict=True)) == nodes
    if nodes:
        jump = reference.teleport(nodes, active, exclude)
        expected = reference.pagerank(nodes, edges, jump)
        np.testing.assert_allclose(found.pagerank, expected, rtol=0, atol=1e-9)
        assert found.pagerank.sum() == pytest.approx(1, abs=1e-12)
    # Equal places in the graph may differ in the last bit; the selection is judged on the same
    # values.
    kept, used, threshold = reference.select(nodes, found.pagerank.tolist(), edges, mass)
    here = [
        node for node, kept_here in zip(nodes, found.selection.selected, strict=True) if kept_here
    ]
    assert set(here) == kept
    assert found.selection.mass == used
    assert found.selection.threshold == threshold

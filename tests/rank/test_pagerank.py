"""PageRank: by hand, and against networkx."""

from __future__ import annotations

from typing import Any

import networkx
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from summit_graph.errors import UsageError
from summit_graph.rank.pagerank import pagerank, teleport_vector


def by_networkx(
    u: NDArray[np.int64],
    v: NDArray[np.int64],
    weights: NDArray[np.float64],
    teleport: NDArray[np.float64],
    damping: float = 0.85,
) -> NDArray[np.float64]:
    graph = networkx.Graph()
    graph.add_nodes_from(range(teleport.size))
    graph.add_weighted_edges_from(zip(u.tolist(), v.tolist(), weights.tolist(), strict=True))
    # networkx stops at an L1 change of N · tol.
    ranks = networkx.pagerank(
        graph,
        alpha=damping,
        personalization=dict(enumerate(teleport.tolist())),
        tol=1e-14 if teleport.size < 100 else 1e-13 / teleport.size,
        max_iter=10000,
    )
    return np.array([ranks[node] for node in range(teleport.size)])


def test_two_neurons_by_hand() -> None:
    # x_u = 0.85 x_v + 0.15, x_v = 0.85 x_u: x_u = 0.15 / (1 − 0.7225) = 20/37, x_v = 17/37.
    ranks = pagerank(np.array([0]), np.array([1]), np.array([7.0]), np.array([3.0, 0.0]))
    np.testing.assert_allclose(ranks.values, [20 / 37, 17 / 37], rtol=0, atol=1e-12)
    assert ranks.converged
    assert ranks.iterations >= 1


def test_three_neurons_by_hand() -> None:
    # u -3- m -1- v, teleport 1/3 each, so (1 − 0.85) / 3 = 0.05 to each:
    #   x_m = 0.85 (x_u + x_v) + 0.05,  x_u = 0.85 · ¾ x_m + 0.05,  x_v = 0.85 · ¼ x_m + 0.05
    #   x_m = 0.85 (0.85 x_m + 0.1) + 0.05 = 0.7225 x_m + 0.135:  x_m = 0.135 / 0.2775 = 18/37
    #   x_u = 0.6375 · 18/37 + 0.05 = 13.325/37,  x_v = 0.2125 · 18/37 + 0.05 = 5.675/37
    ranks = pagerank(np.array([0, 1]), np.array([1, 2]), np.array([3.0, 1.0]), np.ones(3))
    np.testing.assert_allclose(ranks.values, np.array([13.325, 18, 5.675]) / 37, rtol=0, atol=1e-12)


def test_isolated_neuron_by_hand() -> None:
    # d has no edge: its walkers jump. Teleport ⅓ each; x_d = (0.85 x_d + 0.15) / 3, so
    # x_d (1 − 0.85/3) = 0.05: x_d = 0.15 / 2.15 = 3/43, and u, v share the rest: 20/43 each.
    ranks = pagerank(np.array([0]), np.array([1]), np.array([2.0]), np.ones(3))
    np.testing.assert_allclose(ranks.values, np.array([20, 20, 3]) / 43, rtol=0, atol=1e-12)
    alone = pagerank(np.array([], int), np.array([], int), np.array([]), np.array([1.0, 3.0]))
    np.testing.assert_allclose(alone.values, [0.25, 0.75], rtol=0, atol=1e-15)


def test_empty_graph() -> None:
    nothing = np.zeros(0)
    ranks = pagerank(nothing.astype(int), nothing.astype(int), nothing, nothing)
    assert ranks.values.size == 0
    assert ranks.converged


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 9), st.sampled_from([0.0, 0.3, 0.85, 0.99]), st.data())
def test_equals_networkx(nodes: int, damping: float, data: st.DataObject) -> None:
    pairs = [(a, b) for a in range(nodes) for b in range(a)]
    drawn = data.draw(
        st.dictionaries(st.sampled_from(pairs), st.just(0.0) | st.floats(1e-3, 1300.0), max_size=20)
        if pairs
        else st.just({})
    )
    share = st.just(0.0) | st.floats(1e-3, 1.0)
    teleport = np.array(data.draw(st.lists(share, min_size=nodes, max_size=nodes)))
    assume(teleport.any())
    u = np.array([a for a, _ in drawn], dtype=np.int64)
    v = np.array([b for _, b in drawn], dtype=np.int64)
    weights = np.array(list(drawn.values()), dtype=np.float64)
    ranks = pagerank(u, v, weights, teleport, damping=damping)
    assert ranks.converged
    assert (ranks.values >= 0).all()
    assert ranks.values.sum() == pytest.approx(1, abs=1e-12)
    expected = by_networkx(u, v, weights, teleport, damping)
    np.testing.assert_allclose(ranks.values, expected, rtol=0, atol=1e-9)


def made_class_graph(
    sizes: list[int], edges: int, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Edges from each layer to the next with counts of 1 to 1300, and a skewed teleport."""
    random = np.random.default_rng(seed)
    first = np.concatenate([[0], np.cumsum(sizes)])
    pairs = np.concatenate(
        [
            np.arange(first[t - 1], first[t])[:, None] * first[-1]
            + np.arange(first[t], first[t + 1])
            for t in range(1, len(sizes))
        ],
        axis=None,
    )
    u, v = np.divmod(random.choice(pairs, edges, replace=False), first[-1])
    weights = np.minimum(1300.0, np.floor(1 + 3 * random.pareto(0.7, edges)))
    return u, v, weights, random.gamma(0.1, size=first[-1])


def test_equals_networkx_on_a_larger_graph() -> None:
    u, v, weights, teleport = made_class_graph([40, 60, 50, 80], 2000, seed=5)
    ranks = pagerank(u, v, weights, teleport)
    assert ranks.converged
    expected = by_networkx(u, v, weights, teleport)
    assert np.abs(ranks.values - expected).sum() < 1e-9


def test_equals_networkx_at_the_published_size() -> None:
    # 5,488 neurons and 209,280 edges: a class's graph of the authors' network.
    u, v, weights, teleport = made_class_graph(
        [192, 256, 480, 512, 512, 512, 528, 832, 832, 832], 209_280, seed=1
    )
    assert teleport.size == 5488
    ranks = pagerank(u, v, weights, teleport)
    assert ranks.converged
    assert ranks.iterations < 100
    expected = by_networkx(u, v, weights, teleport)
    assert np.abs(ranks.values - expected).sum() < 1e-9
    np.testing.assert_array_equal(np.argsort(-ranks.values)[:100], np.argsort(-expected)[:100])


def test_says_when_it_did_not_converge() -> None:
    u, v, weights, teleport = made_class_graph([20, 30, 20], 200, seed=2)
    cut = pagerank(u, v, weights, teleport, max_iterations=3)
    assert not cut.converged
    assert cut.iterations == 3
    assert cut.values.sum() == pytest.approx(1)
    # What is reported holds: a converged result is within the tolerance, a coarse one too.
    exact = by_networkx(u, v, weights, teleport)
    coarse = pagerank(u, v, weights, teleport, tolerance=1e-4)
    fine = pagerank(u, v, weights, teleport)
    assert coarse.converged
    assert fine.converged
    assert coarse.iterations < fine.iterations
    assert np.abs(coarse.values - exact).sum() < 1e-4
    assert np.abs(cut.values - exact).sum() > 1e-9
    # Beyond what float64 can tell, it says so.
    assert not pagerank(u, v, weights, teleport, tolerance=1e-30).converged


def test_ranks_do_not_depend_on_the_scale_of_weights_and_teleport() -> None:
    u, v, weights, teleport = made_class_graph([20, 30, 20], 200, seed=2)
    ranks = pagerank(u, v, weights, teleport)
    scaled = pagerank(v, u, 1e6 * weights, 1e-3 * teleport)
    np.testing.assert_allclose(scaled.values, ranks.values, rtol=0, atol=1e-10)


ONE = np.array([1.0])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"damping": 1.0}, "damping is 1.0"),
        ({"damping": -0.1}, "damping is -0.1"),
        ({"damping": float("nan")}, "damping is nan"),
        ({"tolerance": 0.0}, "tolerance is 0.0"),
        ({"max_iterations": 0}, "max_iterations 0"),
        ({"weights": -ONE}, "weight is negative"),
        ({"weights": ONE * np.inf}, "weight is negative or not finite"),
        ({"weights": ONE * np.nan}, "weight is negative or not finite"),
        ({"weights": np.array([1.0, 1.0])}, "differ in number"),
        ({"teleport": np.array([1.0, -1.0])}, "teleport is negative"),
        ({"teleport": np.array([1.0, np.nan])}, "teleport is negative or not finite"),
        ({"teleport": np.zeros(2)}, "all teleports are 0"),
        ({"edges_v": np.array([2])}, "outside the 2 nodes"),
        ({"edges_u": np.array([-1])}, "outside the 2 nodes"),
        ({"edges_v": np.array([0])}, "joins a node to itself"),
    ],
)
def test_wrong_requests_are_refused(changed: dict[str, Any], message: str) -> None:
    right: dict[str, Any] = {
        "edges_u": np.array([0]),
        "edges_v": np.array([1]),
        "weights": ONE,
        "teleport": np.ones(2),
    }
    pagerank(**right)
    with pytest.raises(UsageError, match=message):
        pagerank(**(right | changed))


@pytest.mark.filterwarnings("ignore:overflow")
def test_overflowing_weights_are_refused() -> None:
    with pytest.raises(UsageError, match="add up to more"):
        pagerank(np.array([0, 0]), np.array([1, 2]), np.full(2, 1.7e308), np.ones(3))


def test_teleport_by_hand() -> None:
    # Layer 0: counts 4 and 8 of the nodes, and 16 of a neuron that is no node: 4/16, 8/16.
    # Layer 2: node 3 has no count (0), node 5 has 3, the layer's maximum: 1.
    # Layer 4: no counts at all: 0. Sum ¼ + ½ + 0 + 1 + 0 = 7/4.
    layer, channel = np.array([0, 0, 2, 2, 4]), np.array([0, 1, 3, 5, 0])
    active = np.array([0, 0, 0, 2]), np.array([0, 1, 9, 5]), np.array([4, 8, 16, 3])
    expected = np.array([1, 2, 0, 4, 0]) / 7
    np.testing.assert_allclose(teleport_vector(layer, channel, *active), expected, rtol=1e-15)
    # Without the excluded neuron 0/9, layer 0's maximum is 8: ½ + 1 + 0 + 1 + 0 = 5/2. Excluded
    # neurons of which there is no count change nothing.
    without = teleport_vector(layer, channel, *active, exclude=frozenset({(0, 9), (7, 1), (0, 70)}))
    np.testing.assert_allclose(without, np.array([1, 2, 0, 2, 0]) / 5, rtol=1e-15)


def test_teleport_is_uniform_where_all_are_0() -> None:
    nodes = np.array([0, 1, 1]), np.array([0, 0, 1])
    nothing = np.zeros(0, dtype=np.int64)
    np.testing.assert_array_equal(
        teleport_vector(*nodes, nothing, nothing, nothing), np.full(3, 1 / 3)
    )
    other = np.array([1]), np.array([7]), np.array([5])
    np.testing.assert_array_equal(teleport_vector(*nodes, *other), np.full(3, 1 / 3))
    assert teleport_vector(nothing, nothing, *other).size == 0

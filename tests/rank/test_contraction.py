"""The class's neuron graph: by hand, and against every path walked one by one."""

from __future__ import annotations

import numpy as np
import pytest
import reference_ranking as reference
from hypothesis import given, settings
from hypothesis import strategies as st
from layered_graphs import as_counts, hops, layered_graphs, shapes
from reference_ranking import Counts, Layer, Neuron

from summit_graph.errors import AtlasError, UnknownNeuron, UsageError
from summit_graph.rank import contraction
from summit_graph.rank.contraction import HopCounts, LayerShape, Votes, class_graph, contract_votes


def graph(
    layers: list[Layer],
    counts: Counts,
    sources: int | None = None,
    exclude: frozenset[Neuron] = frozenset(),
) -> Counts:
    return as_counts(class_graph(shapes(layers), hops(counts), sources=sources, exclude=exclude))


def votes_of(layers: list[Layer], counts: Counts, votes: dict[Neuron, int]) -> dict[Neuron, int]:
    given_votes = sorted(votes.items())
    result = contract_votes(
        shapes(layers),
        hops(counts),
        Votes(
            np.array([layer for (layer, _), _ in given_votes], dtype=np.int32),
            np.array([channel for (_, channel), _ in given_votes], dtype=np.int32),
            np.array([count for _, count in given_votes], dtype=np.int64),
        ),
    )
    rows = list(
        zip(result.layer.tolist(), result.channel.tolist(), result.count.tolist(), strict=True)
    )
    assert rows == sorted(rows)
    return {(layer, channel): count for layer, channel, count in rows}


# Names for the neurons of the cases by hand: a, b, c are sources in a first chosen layer, g and h
# are hidden, t and u are targets.


def test_three_neurons_with_direct_hops() -> None:
    # a -3-> t, b -2-> t: the edges are the counts.
    a, b, t = (0, 0), (0, 1), (1, 0)
    layers = [(True, 2), (True, 1)]
    assert graph(layers, {(a, t): 3, (b, t): 2}) == {(a, t): 3, (b, t): 2}


def test_indirect_through_one_hidden_layer() -> None:
    #   a -5-> g, b -2-> g, b -4-> h, c -1-> h;  g -3-> t, h -6-> t
    # a: min(5, 3) = 3.  b: max(min(2, 3), min(4, 6)) = max(2, 4) = 4.  c: min(1, 6) = 1.
    # t has no direct source and two immediate ones (g, h), so m = 2: b and a stay, c goes.
    a, b, c, g, h, t = (0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (2, 0)
    layers = [(True, 3), (False, 2), (True, 1)]
    counts = {(a, g): 5, (b, g): 2, (b, h): 4, (c, h): 1, (g, t): 3, (h, t): 6}
    assert graph(layers, counts) == {(a, t): 3, (b, t): 4}
    assert graph(layers, counts, sources=3) == {(a, t): 3, (b, t): 4, (c, t): 1}
    assert graph(layers, counts, sources=1) == {(b, t): 4}
    assert graph(layers, counts, sources=0) == {}


def test_indirect_through_two_hidden_layers() -> None:
    #   a -7-> g0, b -2-> g1;  g0 -3-> h, g1 -9-> h;  h -5-> t
    # a: min(7, 3, 5) = 3.  b: min(2, 9, 5) = 2.  One immediate source (h): m = 1, so a.
    a, b, g0, g1, h, t = (0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (3, 0)
    layers = [(True, 2), (False, 2), (False, 1), (True, 1)]
    counts = {(a, g0): 7, (b, g1): 2, (g0, h): 3, (g1, h): 9, (h, t): 5}
    assert graph(layers, counts) == {(a, t): 3}
    # g0 -4-> t passes h by: a has max(3, min(7, 4)) = 4. Two immediate sources: m = 2.
    counts[g0, t] = 4
    assert graph(layers, counts) == {(a, t): 4, (b, t): 2}


def test_ways_do_not_lead_through_chosen_layers() -> None:
    # a -5-> t -5-> u, all chosen: a is no source of u.
    a, t, u = (0, 0), (1, 0), (2, 0)
    layers = [(True, 1), (True, 1), (True, 1)]
    assert graph(layers, {(a, t): 5, (t, u): 5}) == {(a, t): 5, (t, u): 5}


def test_target_with_direct_and_indirect_sources() -> None:
    #   a -2-> t directly, b -1-> t directly, a -8-> g -6-> t, c -8-> g, d -7-> g
    # a is direct; its widest path is max(2, min(8, 6)) = 6.  b is direct: 1, and stays although
    # the indirect c: min(8, 6) = 6 and d: min(7, 6) = 6 are heavier.
    # t has three immediate sources (a, b, g): m = 3, both indirect sources stay.
    a, b, c, d, g, t = (0, 0), (0, 1), (0, 2), (0, 3), (1, 0), (2, 0)
    layers = [(True, 4), (False, 1), (True, 1)]
    counts = {(a, t): 2, (b, t): 1, (a, g): 8, (c, g): 8, (d, g): 7, (g, t): 6}
    assert graph(layers, counts) == {(a, t): 6, (b, t): 1, (c, t): 6, (d, t): 6}
    # One indirect source: c and d tie at 6; products 8 · 6 = 48 and 7 · 6 = 42, so c. The direct
    # ones do not use up the number.
    assert graph(layers, counts, sources=1) == {(a, t): 6, (b, t): 1, (c, t): 6}


def test_indirect_sources_of_all_layers_compete() -> None:
    # a (layer 0) -3-> h, b (layer 1) -4-> h, h -9-> t: m = 1 keeps b alone, of the later layer.
    a, b, h, t = (0, 0), (1, 0), (2, 0), (3, 0)
    layers = [(True, 1), (True, 1), (False, 1), (True, 1)]
    assert graph(layers, {(a, h): 3, (b, h): 4, (h, t): 9}) == {(b, t): 4}


def test_tie_goes_to_more_ways() -> None:
    # a -2-> g, b -2-> g, b -2-> h, c -2-> h; g -2-> t, h -2-> t. All have width 2.
    # Products: a 2·2 = 4, b 2·2 + 2·2 = 8, c 4. m = 1: b.
    a, b, c, g, h, t = (0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (2, 0)
    layers = [(True, 3), (False, 2), (True, 1)]
    counts = {(a, g): 2, (b, g): 2, (b, h): 2, (c, h): 2, (g, t): 2, (h, t): 2}
    assert graph(layers, counts, sources=1) == {(b, t): 2}
    # Then a and c tie in both: the lower channel.
    assert graph(layers, counts, sources=2) == {(a, t): 2, (b, t): 2}
    # c -9-> h: its width stays min(9, 2) = 2, its product becomes 9·2 = 18, above b's 8.
    counts[c, h] = 9
    assert graph(layers, counts, sources=1) == {(c, t): 2}


def test_tie_goes_to_the_lower_layer_before_the_lower_channel() -> None:
    # Channel 1 of layer 0 and channel 0 of layer 1, both -2-> h -2-> t.
    a, b, h, t = (0, 1), (1, 0), (2, 0), (3, 0)
    layers = [(True, 2), (True, 1), (False, 1), (True, 1)]
    assert graph(layers, {(a, h): 2, (b, h): 2, (h, t): 2}) == {(a, t): 2}


def test_number_of_indirect_sources() -> None:
    # Targets t, u, v with g hidden and a … d in the first layer, all of which reach g.
    #   t: a and b directly, and g: 3 immediate sources.   u: c directly, and g: 2.
    #   v and w: g alone: 1 each.
    # Over the channels with a direct source: m = floor((3 + 2) / 2) = 2. Over all four it would be
    # floor((3 + 2 + 1 + 1) / 4) = 1.
    a, b, c, d, g = (0, 0), (0, 1), (0, 2), (0, 3), (1, 0)
    t, u, v, w = (2, 0), (2, 1), (2, 2), (2, 3)
    layers = [(True, 4), (False, 1), (True, 4)]
    counts = {(a, t): 1, (b, t): 1, (c, u): 1}
    counts |= {(a, g): 4, (b, g): 3, (c, g): 2, (d, g): 1}
    counts |= {(g, target): 9 for target in (t, u, v, w)}
    found = graph(layers, counts)
    assert {s for s, target in found if target == t} == {a, b, c, d}  # c, d indirect
    assert {s for s, target in found if target == u} == {c, a, b}  # a, b indirect, d left
    assert {s for s, target in found if target == v} == {a, b}
    assert {s for s, target in found if target == w} == {a, b}
    # Without direct hops every channel with a source counts: (1 + 1 + 1 + 1) / 4 = 1.
    indirect = {pair: count for pair, count in counts.items() if g in pair}
    assert graph(layers, indirect) == {(a, target): 4 for target in (t, u, v, w)}


def test_number_of_indirect_sources_is_each_layers_own() -> None:
    # t (layer 2) reads one hidden neuron, u (layer 3) both: m is 1 and 2.
    a, b, g, h, t, u = (0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (3, 0)
    layers = [(True, 2), (False, 2), (True, 1), (True, 1)]
    counts = {(a, g): 2, (b, g): 1, (b, h): 1, (g, t): 5, (g, u): 5, (h, u): 5}
    assert graph(layers, counts) == {(a, t): 2, (a, u): 2, (b, u): 1}


def test_exclusion_moves_the_next_source_up() -> None:
    # The case through one hidden layer: b (4), a (3), c (1), m = 2. Without b, c moves up.
    a, b, c, g, h, t = (0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (2, 0)
    layers = [(True, 3), (False, 2), (True, 1)]
    counts = {(a, g): 5, (b, g): 2, (b, h): 4, (c, h): 1, (g, t): 3, (h, t): 6}
    assert graph(layers, counts, exclude=frozenset({b})) == {(a, t): 3, (c, t): 1}
    # An excluded target has no edges; a closed hidden neuron hands nothing on, and m falls to 1.
    assert graph(layers, counts, exclude=frozenset({t})) == {}
    assert graph(layers, counts, exclude=frozenset({h})) == {(a, t): 3}


def test_exclusion_comes_before_the_number_of_sources() -> None:
    # t: a, b, c directly, and g: 4 immediate sources. Without a, b: 2, so two of d, e, f stay.
    a, b, c, d, e, f = ((0, channel) for channel in range(6))
    g, t = (1, 0), (2, 0)
    layers = [(True, 6), (False, 1), (True, 1)]
    counts = {(a, t): 1, (b, t): 1, (c, t): 1, (d, g): 3, (e, g): 2, (f, g): 1, (g, t): 9}
    assert set(graph(layers, counts)) == {(s, t) for s in (a, b, c, d, e, f)}
    assert set(graph(layers, counts, exclude=frozenset({a, b}))) == {(s, t) for s in (c, d, e)}


def test_ways_of_a_long_chain_are_still_told_apart() -> None:
    # 120 hidden layers of two neurons, all counts 1300: 1300 ** 121 · 2 ** 119 ways is far above
    # the largest float64, 1.8e308. b enters at both neurons of the first, a and c at one.
    depth = 120
    layers: list[Layer] = [(True, 3), *[(False, 2)] * depth, (True, 1)]
    a, b, c, t = (0, 0), (0, 1), (0, 2), (depth + 1, 0)
    counts: Counts = {(a, (1, 0)): 1300, (c, (1, 1)): 1300, (b, (1, 0)): 1300, (b, (1, 1)): 1300}
    for layer in range(1, depth):
        counts |= {((layer, i), (layer + 1, j)): 1300 for i in range(2) for j in range(2)}
    counts |= {((depth, i), t): 1300 for i in range(2)}
    assert graph(layers, counts, sources=1) == {(b, t): 1300}
    assert graph(layers, counts, sources=2) == {(a, t): 1300, (b, t): 1300}


def test_votes_of_hidden_neurons() -> None:
    #   a -3-> g, a -9-> h, b -4-> h; votes a 1, g 5, h 2, t 6; t is chosen and reads a: no way.
    # a: max(1, min(3, 5), min(9, 2)) = 3.   b: min(4, 2) = 2.   t: its own 6.
    a, b, g, h, t = (0, 0), (0, 1), (1, 0), (1, 1), (2, 0)
    layers = [(True, 2), (False, 2), (True, 1)]
    counts = {(a, g): 3, (a, h): 9, (b, h): 4, (a, t): 9}
    assert votes_of(layers, counts, {a: 1, g: 5, h: 2, t: 6}) == {a: 3, b: 2, t: 6}
    assert votes_of(layers, counts, {}) == {}


def test_votes_through_two_hidden_layers() -> None:
    # a -7-> g -3-> h, h votes 5: min(7, 3, 5) = 3. g's own vote, 4, gives min(7, 4) = 4.
    a, g, h = (0, 0), (1, 0), (2, 0)
    layers = [(True, 1), (False, 1), (False, 1)]
    assert votes_of(layers, {(a, g): 7, (g, h): 3}, {h: 5}) == {a: 3}
    assert votes_of(layers, {(a, g): 7, (g, h): 3}, {h: 5, g: 4}) == {a: 4}


@settings(max_examples=300, deadline=None)
@given(layered_graphs(), st.none() | st.integers(0, 4), st.data())
def test_equals_the_reference(
    made: tuple[list[Layer], Counts], sources: int | None, data: st.DataObject
) -> None:
    layers, counts = made
    neurons = [
        (layer, channel) for layer, (_, width) in enumerate(layers) for channel in range(width)
    ]
    exclude = data.draw(st.frozensets(st.sampled_from(neurons), max_size=2))
    assert graph(layers, counts, sources, exclude) == reference.class_graph(
        layers, counts, sources, exclude
    )


@settings(max_examples=200, deadline=None)
@given(layered_graphs(), st.data())
def test_votes_equal_the_reference(made: tuple[list[Layer], Counts], data: st.DataObject) -> None:
    layers, counts = made
    neurons = [
        (layer, channel) for layer, (_, width) in enumerate(layers) for channel in range(width)
    ]
    votes = data.draw(st.dictionaries(st.sampled_from(neurons), st.integers(1, 5)))
    assert votes_of(layers, counts, votes) == reference.contract_votes(layers, counts, votes)


@pytest.mark.parametrize("cells", [1, 40, 1 << 18])
def test_wider_layers_in_blocks_of_any_size(monkeypatch: pytest.MonkeyPatch, cells: int) -> None:
    # A chain like a bottleneck's, 12 to 20 channels, where a block holds one target or all.
    monkeypatch.setattr(contraction, "_BLOCK_CELLS", cells)
    random = np.random.default_rng(3)
    layers: list[Layer] = [(True, 12), (False, 6), (True, 20), (False, 8), (False, 7), (True, 16)]
    pairs = [(0, 1), (1, 2), (0, 2), (2, 3), (3, 4), (4, 5), (3, 5), (0, 4)]
    counts = {
        ((s, i), (t, j)): int(random.integers(1, 6))
        for s, t in pairs
        for i in range(layers[s][1])
        for j in range(layers[t][1])
        if random.random() < 0.3
    }
    assert graph(layers, counts) == reference.class_graph(layers, counts)


@settings(max_examples=100, deadline=None)
@given(layered_graphs(), st.integers(0, 3))
def test_every_target_keeps_direct_sources_and_at_most_m_others(
    made: tuple[list[Layer], Counts], sources: int
) -> None:
    layers, counts = made
    found = graph(layers, counts, sources)
    direct = {(s, t) for s, t in counts if layers[s[0]][0] and layers[t[0]][0]}
    assert direct <= set(found)
    others = [t for s, t in found if (s, t) not in direct]
    assert all(others.count(target) <= sources for target in others)
    assert all(found[pair] >= counts[pair] for pair in direct)


def test_edges_are_sorted() -> None:
    layers: list[Layer] = [(True, 2), (False, 2), (True, 2), (True, 2)]
    neurons = [(layer, channel) for layer in range(4) for channel in range(2)]
    counts = {(s, t): 1 + s[1] + t[1] for s in neurons for t in neurons if s[0] < t[0]}
    edges = class_graph(shapes(layers), hops(dict(reversed(counts.items()))))
    columns = (edges.target_layer, edges.target, edges.source_layer, edges.source)
    rows = list(zip(*(column.tolist() for column in columns), strict=True))
    assert rows == sorted(rows)
    assert len(rows) == 12
    assert edges.count.dtype == np.int64
    assert edges.source.dtype == np.int32


def test_without_counts_there_is_no_edge() -> None:
    layers: list[Layer] = [(True, 2), (False, 2), (True, 2)]
    assert graph(layers, {}) == {}
    assert graph([], {}) == {}
    nothing = np.zeros(0, dtype=np.int32)
    empty = HopCounts(0, 2, nothing, nothing, nothing.astype(np.int64))
    assert as_counts(class_graph(shapes(layers), [empty])) == {}


def test_count_of_zero_is_no_source() -> None:
    a, b, t = (0, 0), (0, 1), (1, 0)
    assert graph([(True, 2), (True, 1)], {(a, t): 0, (b, t): 2}) == {(b, t): 2}


def hop(
    source_layer: int = 0,
    target_layer: int = 1,
    source: tuple[int, ...] = (0,),
    target: tuple[int, ...] = (0,),
    count: tuple[int, ...] = (1,),
) -> HopCounts:
    return HopCounts(
        source_layer,
        target_layer,
        np.array(source, dtype=np.int32),
        np.array(target, dtype=np.int32),
        np.array(count, dtype=np.int64),
    )


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ([hop(source_layer=1)], "earlier layer to a later"),
        ([hop(target_layer=2)], "earlier layer to a later"),
        ([hop(), hop()], "two of them"),
        ([hop(source=(2,))], "source channel is outside 0 to 1"),
        ([hop(target=(3,))], "target channel is outside 0 to 2"),
        ([hop(count=(-1,))], "count is outside"),
        ([hop(count=(1 << 31,))], "count is outside"),
        ([hop(source=(0, 0), target=(0, 0), count=(1, 1))], "occurs twice"),
        ([hop(source=(0, 1))], "differ in length"),
    ],
)
def test_damaged_counts_are_refused(wrong: list[HopCounts], message: str) -> None:
    with pytest.raises(AtlasError, match=message):
        class_graph(shapes([(True, 2), (True, 3)]), wrong)


@pytest.mark.parametrize(
    ("votes", "message"),
    [
        ({(2, 0): 1}, "layer that is none"),
        ({(0, 2): 1}, "channel that their layer does not have"),
        ({(0, 0): -1}, "negative"),
    ],
)
def test_damaged_votes_are_refused(votes: dict[Neuron, int], message: str) -> None:
    with pytest.raises(AtlasError, match=message):
        votes_of([(True, 2), (True, 3)], {}, votes)


def test_wrong_requests_are_refused() -> None:
    layers = shapes([(True, 2), (True, 3)])
    with pytest.raises(UsageError, match="sources is -1"):
        class_graph(layers, [], sources=-1)
    with pytest.raises(UnknownNeuron, match="layer 1 has no channel 3"):
        class_graph(layers, [], exclude=frozenset({(1, 3)}))
    with pytest.raises(UnknownNeuron, match="layer 2 has no channel 0"):
        class_graph(layers, [], exclude=frozenset({(2, 0)}))
    with pytest.raises(UsageError, match="numbered"):
        class_graph([LayerShape(1, True, 2)], [])

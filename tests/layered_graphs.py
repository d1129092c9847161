"""Small layered graphs: written by hand as dictionaries, or made by hypothesis."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from reference_ranking import Counts, Layer, Neuron

from summit_graph.rank.contraction import Edges, HopCounts, LayerShape


def shapes(layers: list[Layer]) -> list[LayerShape]:
    return [LayerShape(number, chosen, width) for number, (chosen, width) in enumerate(layers)]


def hops(counts: Counts) -> list[HopCounts]:
    """The package's form of {(source neuron, target neuron): count}."""
    made = []
    for source_layer, target_layer in sorted({(s[0], t[0]) for s, t in counts}):
        rows = [
            (s[1], t[1], count)
            for (s, t), count in counts.items()
            if (s[0], t[0]) == (source_layer, target_layer)
        ]
        source, target, count = (np.array(column) for column in zip(*rows, strict=True))
        made.append(
            HopCounts(
                source_layer,
                target_layer,
                source.astype(np.int32),
                target.astype(np.int32),
                count.astype(np.int64),
            )
        )
    return made


def as_counts(edges: Edges) -> Counts:
    columns = (edges.source_layer, edges.source, edges.target_layer, edges.target, edges.count)
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return {((s, i), (t, j)): count for s, i, t, j, count in rows}


@st.composite
def layered_graphs(draw: st.DrawFn, widest: int = 3) -> tuple[list[Layer], Counts]:
    """Up to 6 layers, chosen and hidden in any order, with few different counts: ties abound."""
    layers = draw(
        st.lists(st.tuples(st.booleans(), st.integers(1, widest)), min_size=2, max_size=6)
    )
    neurons = [(number, c) for number, (_, width) in enumerate(layers) for c in range(width)]
    pairs = [(s, t) for s in neurons for t in neurons if s[0] < t[0]]
    drawn = draw(
        st.lists(st.sampled_from([0, 0, 0, 1, 1, 2, 3]), min_size=len(pairs), max_size=len(pairs))
    )
    return layers, {pair: count for pair, count in zip(pairs, drawn, strict=True) if count}


def activations(layers: list[Layer]) -> st.SearchStrategy[dict[Neuron, int]]:
    """Activation counts of neurons of chosen layers."""
    neurons = [(n, c) for n, (chosen, width) in enumerate(layers) if chosen for c in range(width)]
    if not neurons:
        return st.just({})
    return st.dictionaries(st.sampled_from(neurons), st.integers(1, 9))

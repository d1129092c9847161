"""Similarity of classes: by hand, and against plain loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from summit_graph.errors import UsageError
from summit_graph.explain import similarity as module
from summit_graph.explain.similarity import OVERALL, similarity

Counts = dict[tuple[int, int, int], int]
Found = dict[tuple[int, int, int], float]


def found(counts: Counts, n_classes: int, nearest: int = 50) -> Found:
    """counts: {(class, layer, channel): count}; returns {(layer, class, other): cosine}."""
    rows = [(*neuron, count) for neuron, count in counts.items()]
    index, layer, channel, count = np.array(rows, dtype=np.int64).reshape(-1, 4).T
    result = similarity(index, layer, channel, count, n_classes, nearest)
    keys = list(
        zip(
            result.layer.tolist(),
            result.class_index.tolist(),
            result.other.tolist(),
            strict=True,
        )
    )
    assert keys == sorted(set(keys))
    return dict(zip(keys, result.cosine.tolist(), strict=True))


def test_three_classes_by_hand() -> None:
    # Layer 3: rows (3, 4), (4, 3), (0, 5): all of length 5.
    #   0·1: (12 + 12)/25 = 0.96, 0·2: 20/25 = 0.8, 1·2: 15/25 = 0.6
    # Layer 7: rows (1, 0), (2, 0), (0, 0): 0·1: 1; class 2 has no count, so no cosine.
    # Overall: 0·1: (0.96 + 1)/2 = 0.98; with 2: layer 3 alone.
    counts = {(0, 3, 0): 3, (0, 3, 1): 4, (1, 3, 0): 4, (1, 3, 1): 3, (2, 3, 1): 5}
    counts |= {(0, 7, 0): 1, (1, 7, 0): 2}
    pairs = {
        (3, 0, 1): 0.96,
        (3, 0, 2): 0.8,
        (3, 1, 2): 0.6,
        (7, 0, 1): 1.0,
        (OVERALL, 0, 1): 0.98,
        (OVERALL, 0, 2): 0.8,
        (OVERALL, 1, 2): 0.6,
    }
    expected = pairs | {(layer, b, a): cosine for (layer, a, b), cosine in pairs.items()}
    assert found(counts, 3) == pytest.approx(expected, abs=1e-15)
    # The nearest alone: 0 and 1 have each other, 2 has 0.
    nearest = {key for key in expected if key[1:] in {(0, 1), (1, 0), (2, 0)}}
    assert set(found(counts, 3, nearest=1)) == nearest


def test_equal_cosines_go_to_the_lower_class() -> None:
    # Classes 0, 2, 3, 5 have the row (1, 2), 4 has ten times as much, 1 has (9, 2).
    rows = [(1, 2), (9, 2), (1, 2), (1, 2), (10, 20), (1, 2)]
    counts = {(c, 0, channel): n for c, row in enumerate(rows) for channel, n in enumerate(row)}
    kept = {(a, b) for layer, a, b in found(counts, 6, nearest=2) if layer == 0}
    assert {b for a, b in kept if a == 5} == {0, 2}
    assert {b for a, b in kept if a == 0} == {2, 3}
    assert {b for a, b in kept if a == 3} == {0, 2}
    cosines = found(counts, 6)
    assert all(cosines[0, 5, b] == 1.0 for b in (0, 2, 3))
    assert cosines[0, 5, 4] == pytest.approx(1, abs=1e-15)
    assert cosines[0, 5, 1] == pytest.approx(13 / math.sqrt(5 * 85))


def test_classes_without_common_channels_are_at_0() -> None:
    assert found({(0, 0, 0): 2, (1, 0, 1): 3}, 2) == {
        (layer, a, b): 0.0 for layer in (OVERALL, 0) for a, b in ((0, 1), (1, 0))
    }


def test_without_counts_there_is_no_row() -> None:
    assert found({}, 3) == {}
    assert found({}, 0) == {}
    assert found({(1, 0, 0): 2}, 3) == {}


def test_nearest_must_be_positive() -> None:
    with pytest.raises(UsageError, match="nearest is 0"):
        found({}, 3, nearest=0)


def by_loops(counts: Counts, n_classes: int, nearest: int) -> Found:
    layers = sorted({layer for _, layer, _ in counts})
    cosines: dict[tuple[int, int, int], float] = {}
    for layer in layers:
        rows = {
            c: {channel: n for (d, at, channel), n in counts.items() if (d, at) == (c, layer)}
            for c in range(n_classes)
        }
        for a in range(n_classes):
            for b in range(n_classes):
                if a != b and rows[a] and rows[b]:
                    dot = sum(n * rows[b].get(channel, 0) for channel, n in rows[a].items())
                    squares = [sum(n * n for n in rows[c].values()) for c in (a, b)]
                    cosines[layer, a, b] = min(1.0, dot / math.sqrt(squares[0] * squares[1]))
    for a in range(n_classes):
        for b in range(n_classes):
            known = [cosines[layer, a, b] for layer in layers if (layer, a, b) in cosines]
            if known:
                cosines[OVERALL, a, b] = sum(known) / len(known)
    kept: Found = {}
    for layer in [OVERALL, *layers]:
        for a in range(n_classes):
            others = [b for b in range(n_classes) if (layer, a, b) in cosines]
            others.sort(key=lambda b: (-cosines[layer, a, b], b))
            kept |= {(layer, a, b): cosines[layer, a, b] for b in others[:nearest]}
    return kept


@settings(max_examples=150, deadline=None)
@given(
    st.dictionaries(
        st.tuples(st.integers(0, 5), st.integers(0, 2), st.integers(0, 3)), st.integers(1, 4)
    ),
    st.integers(1, 6),
    st.sampled_from([1, 13, 1 << 24]),
)
def test_equals_plain_loops(counts: Counts, nearest: int, cells: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_BLOCK_CELLS", cells)
        assert found(counts, 6, nearest) == by_loops(counts, 6, nearest)


@pytest.mark.parametrize("classes", [1, 2, 3, 10, 1000])
def test_any_number_of_classes(classes: int) -> None:
    """Each keeps its 50 nearest, as the whole matrix of cosines has them."""
    rows = np.random.default_rng(0).poisson(1.0, (classes, 60)) + np.eye(classes, 60, dtype=int)
    rows[:, 0] += 1
    index, channel = np.nonzero(rows)
    result = similarity(index, np.zeros_like(index), channel, rows[index, channel], classes)
    lengths = np.sqrt(np.square(rows).sum(axis=1))
    cosine = rows @ rows.T / np.multiply.outer(lengths, lengths)
    np.fill_diagonal(cosine, -1)
    kept = min(50, classes - 1)
    for layer in (OVERALL, 0):
        here = result.layer == layer
        assert np.bincount(result.class_index[here], minlength=classes).tolist() == [kept] * classes
        given = result.cosine[here].reshape(classes, kept)
        assert np.sort(given, axis=1) == pytest.approx(np.sort(cosine, axis=1)[:, classes - kept :])

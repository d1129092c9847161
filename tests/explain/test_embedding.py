"""Places of classes: by hand, against umap-learn and plain loops, for any number of classes."""

from __future__ import annotations

import locale
import subprocess
import sys
import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial.distance import cdist, pdist, squareform
from scipy.stats import ortho_group

from summit_graph.explain import embedding as module
from summit_graph.explain.embedding import (
    FEWEST,
    aligned,
    classical_scaling,
    embedding,
    fuzzy_graph,
    nearest,
)
from summit_graph.explain.similarity import Rows

Matrix = NDArray[np.int64]
Points = dict[int, dict[int, NDArray[np.float64]]]


def found(*layers: Matrix, classes: NDArray[np.int64] | None = None) -> Points:
    """layers: (classes, channels) counts; returns {layer: {class: (x, y)}}, layers 0, 10, 20, …"""
    rows = [
        (c, 10 * number, channel, counts[c, channel])
        for number, counts in enumerate(layers)
        for c, channel in zip(*np.nonzero(counts), strict=True)
    ]
    index, layer, channel, count = np.array(rows, dtype=np.int64).reshape(-1, 4).T
    if classes is not None:
        index = classes[index]
    result = embedding(index, layer, channel, count)
    keys = list(zip(result.layer.tolist(), result.class_index.tolist(), strict=True))
    assert keys == sorted(set(keys))
    points: Points = {}
    for (number, c), x, y in zip(keys, result.x, result.y, strict=True):
        assert np.isfinite([x, y]).all()
        points.setdefault(number, {})[c] = np.array([x, y])
    return points


def places(points: dict[int, NDArray[np.float64]]) -> NDArray[np.float64]:
    return np.stack([points[c] for c in sorted(points)])


def counts(classes: int, channels: int = 40, seed: int = 0) -> Matrix:
    return np.random.default_rng(seed).poisson(2.0, (classes, channels)) + np.eye(
        classes, channels, dtype=np.int64
    )


def distances(rows: Matrix) -> NDArray[np.float64]:
    return np.asarray(cdist(rows, rows, "cosine"))


def as_rows(table: Matrix) -> Rows:
    return Rows(0, table.astype(np.float64), np.square(table).sum(axis=1).astype(np.float64))


# Few classes ----------------------------------------------------------------------------------


def test_three_classes_by_hand() -> None:
    # Rows (1, 0), (0, 1), (0, 3): the first is at distance 1 from the others, which are alike; the
    # mean is at 2/3 of the way. Then rows (4, 0), (0, 1), (3, 4): cosines 0, 0.6, 0.8.
    first = np.array([[1, 0], [0, 1], [0, 3]])
    second = np.array([[4, 0], [0, 1], [3, 4]])
    points = found(first, second)
    assert places(points[0]) == pytest.approx(np.array([[2 / 3, 0], [-1 / 3, 0], [-1 / 3, 0]]))
    apart = squareform(pdist(places(points[10])))
    # No triangle has sides 1, 0.4 and 0.2: it is laid out flat, 0 and 1 at the ends.
    assert apart[0, 1] > apart[0, 2] > apart[1, 2]
    assert apart[0, 1] == pytest.approx(apart[0, 2] + apart[1, 2], abs=1e-5)


@pytest.mark.parametrize("classes", [1, 2, 3, 4])
def test_few_classes_stand_as_far_apart_as_their_rows(classes: int) -> None:
    # Counts over two channels that make triangles and squares of the distances.
    angles = np.array([[100, 0], [80, 60], [60, 80], [0, 100]])[:classes]
    points = places(found(angles)[0])
    assert points.mean(axis=0) == pytest.approx(0, abs=1e-6)
    assert squareform(pdist(points)) == pytest.approx(
        squareform(pdist(classical_scaling(distances(angles)))), abs=1e-5
    )
    if classes == 2:
        assert pdist(points) == pytest.approx(distances(angles)[0, 1], abs=1e-5)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.floats(-9, 9), st.floats(-9, 9)), min_size=1, max_size=8))
def test_classical_scaling_gives_back_a_plane(points: list[tuple[float, float]]) -> None:
    wanted = pdist(np.array(points))
    again = classical_scaling(squareform(wanted) if len(points) > 1 else np.zeros((1, 1)))
    assert pdist(again) == pytest.approx(wanted, abs=1e-5)


# Any number of classes ------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [1, 2, 3, 4, 5, 6, 10, 17])
@pytest.mark.parametrize("kind", ["drawn", "alike", "multiples", "one-hot", "two kinds"])
def test_any_number_of_classes_has_places(classes: int, kind: str) -> None:
    table = {
        "drawn": counts(classes),
        "alike": np.ones((classes, 3), dtype=np.int64),
        "multiples": np.arange(1, classes + 1)[:, None] * np.array([[3, 5, 7]]),
        "one-hot": np.eye(classes, dtype=np.int64) * 5,
        "two kinds": np.eye(2, dtype=np.int64)[np.arange(classes) % 2],
    }[kind]
    points = found(table, table, np.ones((classes, 1), dtype=np.int64))
    assert list(points) == [0, 10, 20]
    for layer in points.values():
        assert sorted(layer) == list(range(classes))
        assert np.abs(places(layer)).max() < 30
    assert places(points[0]).mean(axis=0) == pytest.approx(0, abs=1e-5)
    if classes >= FEWEST and kind in ("drawn", "one-hot"):
        assert pdist(places(points[0])).min() > 0.01


def test_without_counts_there_are_no_places() -> None:
    assert found() == {}


def grouped(classes: int, groups: int, seed: int) -> Matrix:
    """Rows of classes that belong to groups, by index modulo their number."""
    draw = np.random.default_rng(seed)
    kinds = draw.gamma(0.3, 8.0, (groups, 120))
    return draw.poisson(kinds[np.arange(classes) % groups] + 0.05)


def test_a_thousand_classes_stand_with_those_like_them() -> None:
    layers = [grouped(1000, 40, seed) for seed in (0, 1)]
    for rows, points in zip(layers, found(*layers).values(), strict=True):
        present = np.flatnonzero(rows.any(axis=1))
        assert sorted(points) == present.tolist()
        apart = squareform(pdist(places(points)))
        near = np.argsort(apart, axis=1)[:, 1:6]
        assert (present[near] % 40 == present[:, None] % 40).mean() > 0.9


def test_the_nearest_stand_near() -> None:
    rows = counts(10, 6, seed=3)
    apart = squareform(pdist(places(found(rows)[0])))
    wanted = distances(rows)
    inside = np.triu_indices(10, 1)
    assert np.corrcoef(apart[inside], wanted[inside])[0, 1] > 0.5


# From layer to layer --------------------------------------------------------------------------


def test_a_class_without_a_count_is_left_out() -> None:
    first, second, third = counts(12), counts(12, seed=1), counts(12, seed=2)
    first[[0, 11]], second[5], third[[0, 1]] = 0, 0, 0
    labels = np.arange(12) * 3 + 1
    points = found(first, second, third, classes=labels)
    assert {layer: sorted(set(labels) - set(there)) for layer, there in points.items()} == {
        0: [1, 34],
        10: [16],
        20: [1, 4],
    }


@pytest.mark.parametrize("classes", [3, 300])
def test_classes_stay_where_their_rows_stay(classes: int) -> None:
    rows = grouped(classes, 6, seed=5) + np.eye(classes, 120, dtype=np.int64)
    layers = [places(points) for points in found(rows, rows, rows).values()]
    spread = np.sqrt(np.square(layers[1] - layers[1].mean(axis=0)).sum(axis=1).mean())
    moved = np.sqrt(np.square(layers[2] - layers[1]).sum(axis=1).mean())
    assert moved < (1e-6 if classes < FEWEST else 0.3 * spread)


def test_a_new_class_comes_to_those_like_it() -> None:
    rows = grouped(60, 3, seed=7)
    first = rows.copy()
    first[57:] = 0
    points = found(first, rows)[10]
    for new in (57, 58, 59):
        others = sorted(
            (c for c in range(57)), key=lambda c: float(np.linalg.norm(points[c] - points[new]))
        )
        assert {c % 3 for c in others[:5]} == {new % 3}


def test_a_few_classes_in_the_layer_before_do_not_hold_all_together() -> None:
    rows = grouped(200, 5, seed=8) + np.eye(200, 120, dtype=np.int64)
    first = rows.copy()
    first[3:] = 0
    points = places(found(first, rows)[10])
    near = np.argsort(squareform(pdist(points)), axis=1)[:, 1:6]
    assert (near % 5 == np.arange(200)[:, None] % 5).mean() > 0.95


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 9), st.integers(0, 10**6), st.booleans())
def test_alignment_undoes_what_was_moved_as_a_whole(n: int, seed: int, some: bool) -> None:
    draw = np.random.default_rng(seed)
    stood = draw.normal(size=(n, 2))
    points = stood @ ortho_group.rvs(2, random_state=seed) + draw.normal(size=2)
    before = stood.copy()
    if some and n > 3:
        before[3:] = np.nan
    found_again = aligned(points, before)
    if n > 2 or not some:
        assert found_again == pytest.approx(stood, abs=1e-5)
    assert pdist(found_again) == pytest.approx(pdist(points), abs=1e-5)


def test_alignment_does_not_scale() -> None:
    stood = np.random.default_rng(0).normal(size=(8, 2))
    assert aligned(3 * stood, stood) == pytest.approx(
        3 * (stood - stood.mean(axis=0)) + stood.mean(axis=0), abs=1e-5
    )


# The parts of UMAP ----------------------------------------------------------------------------


def test_the_nearest_are_those_of_plain_loops(monkeypatch: pytest.MonkeyPatch) -> None:
    table = np.random.default_rng(0).integers(1, 4, (30, 3))
    whole = nearest(as_rows(table), 7)
    for c in range(30):
        wanted = sorted((round(far, 12), d != c, d) for d, far in enumerate(distances(table)[c]))
        assert whole[0][c, 0] == c
        assert whole[1][c] == pytest.approx([far for far, *_ in wanted[:7]], abs=1e-11)
        # Where rows are equal, distances are exactly so.
        alike = [d for d in range(30) if (table[d] == table[c]).all() and d != c]
        assert whole[0][c, 1 : 1 + len(alike)].tolist() == alike[:6]
    monkeypatch.setattr(module, "_BLOCK_CELLS", 1)
    for whole_one, block_one in zip(whole, nearest(as_rows(table), 7), strict=True):
        assert (whole_one == block_one).all()


def test_rows_that_are_multiples_are_at_distance_0() -> None:
    factors = np.arange(1, 60)[:, None] * np.array([[3, 5, 7, 11]])
    _, apart = nearest(as_rows(factors), 15)
    assert (apart == 0).all()


@pytest.fixture
def umap_uncompiled(monkeypatch: pytest.MonkeyPatch) -> Any:
    """umap-learn's own fuzzy graph, run as Python: compiling it takes four seconds."""
    import umap.umap_ as umap

    for name in ("smooth_knn_dist", "compute_membership_strengths"):
        monkeypatch.setattr(umap, name, getattr(umap, name).py_func)
    return umap


@pytest.mark.parametrize("size", [2, 4, 9, 15])
@pytest.mark.parametrize("kind", ["drawn", "ties", "alike", "some alike"])
def test_the_graph_is_that_of_umap_learn(umap_uncompiled: Any, size: int, kind: str) -> None:
    table = {
        "drawn": counts(25),
        "ties": np.random.default_rng(1).integers(1, 3, (25, 3)),
        "alike": np.ones((25, 2), dtype=np.int64),
        "some alike": counts(25)[np.maximum(0, np.arange(25) - 17)],
    }[kind]
    neighbours, apart = nearest(as_rows(table), size)
    wanted, _, _ = umap_uncompiled.fuzzy_simplicial_set(
        table, size, None, "cosine", knn_indices=neighbours, knn_dists=apart
    )
    assert fuzzy_graph(neighbours, apart).toarray() == pytest.approx(wanted.toarray(), abs=1e-4)


# What is around it ----------------------------------------------------------------------------

OTHER_PROCESS = """
import sys
sys.path[:0] = sys.argv[1:]
from explain.test_embedding import counts, found, places
print(repr([places(points).tolist() for points in found(counts(10), counts(10, seed=1)).values()]))
"""


def test_another_process_with_other_threads_gives_the_same() -> None:
    points = found(counts(10), counts(10, seed=1)).values()
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", OTHER_PROCESS, *sys.path],
        env={"OMP_NUM_THREADS": "2"},
        capture_output=True,
        text=True,
    )
    assert done.stderr == ""
    assert done.stdout == repr([places(layer).tolist() for layer in points]) + "\n"


def test_the_process_is_left_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = locale.setlocale(locale.LC_NUMERIC)
    for name in [name for name in sys.modules if name.partition(".")[0] == "umap"]:
        monkeypatch.delitem(sys.modules, name)
    state = np.random.get_state()[1].tolist()
    filters = list(warnings.filters)
    locale.setlocale(locale.LC_NUMERIC, "C.UTF-8")
    try:
        found(counts(8))
        assert locale.setlocale(locale.LC_NUMERIC) == "C.UTF-8"
    finally:
        locale.setlocale(locale.LC_NUMERIC, numbers)
    assert np.random.get_state()[1].tolist() == state
    assert list(warnings.filters) == filters


def test_every_layer_is_told() -> None:
    done: list[None] = []
    rows = counts(6)
    index, channel = np.nonzero(rows)
    layer = np.repeat([2, 5, 9], len(index))
    embedding(np.tile(index, 3), layer, np.tile(channel, 3), np.tile(rows[index, channel], 3),
              advance=lambda: done.append(None))  # fmt: skip
    assert len(done) == 3

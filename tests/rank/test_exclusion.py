"""Neurons that are active nearly always: the limits, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from summit_graph.errors import UsageError
from summit_graph.rank.exclusion import always_active


def flagged(
    counts: dict[tuple[int, int], list[int]], images: list[int], share: float = 0.95
) -> frozenset[tuple[int, int]]:
    """counts: {(layer, channel): count of each class}, where 0 is no row of the table."""
    rows = [
        (index, layer, channel, count)
        for (layer, channel), column in counts.items()
        for index, count in enumerate(column)
        if count
    ]
    index, layer, channel, count = np.array(rows, dtype=np.int64).reshape(-1, 4).T
    return always_active(index, layer, channel, count, np.array(images), share=share)


def test_shares_of_images_and_classes_by_hand() -> None:
    # 20 classes of 20 images: 95 % are 19 images, and 19 classes.
    images = [20] * 20
    counts = {
        (0, 3): [20] * 20,
        (1, 4): [19] * 20,
        (1, 5): [18] + [19] * 19,  # nearly always in 19 classes of 20: enough
        (2, 6): [18, 18] + [20] * 18,  # in 18: not enough
        (2, 7): [18] * 20,
        (2, 8): [0] + [20] * 19,
        (2, 9): [0, 0] + [20] * 18,
    }
    assert flagged(counts, images) == {(0, 3), (1, 4), (1, 5), (2, 8)}
    assert flagged(counts, images, share=0.9) == set(counts)
    assert flagged(counts, images, share=1.0) == {(0, 3)}


@pytest.mark.parametrize("images", [20, 40, 60, 100, 300, 700, 1300])
def test_exactly_95_percent_is_enough(images: int) -> None:
    enough = images * 95 // 100
    counts = {(0, 0): [enough] * 10, (0, 1): [enough - 1] * 10}
    assert flagged(counts, [images] * 10) == {(0, 0)}


def test_shares_are_compared_as_quotients() -> None:
    # 0.55 · 100 is 55.00000000000001 in float64, but 55 of 100 are 55 %, of images and of classes.
    assert flagged({(0, 0): [55] * 100}, [100] * 100, share=0.55) == {(0, 0)}
    assert flagged({(0, 0): [100] * 55}, [100] * 100, share=0.55) == {(0, 0)}


def test_fewer_than_10_classes_with_images_are_not_judged() -> None:
    assert flagged({(0, 0): [5] * 9}, [5] * 9) == frozenset()
    assert flagged({(0, 0): [5] * 9 + [0]}, [5] * 9 + [0]) == frozenset()
    assert flagged({(0, 0): [5] * 10}, [5] * 10) == {(0, 0)}
    # A class without images stands for nothing: 10 of 10, not 10 of 12.
    assert flagged({(0, 0): [0, 0] + [5] * 10}, [0, 0] + [5] * 10) == {(0, 0)}


def test_without_counts_nothing_is_flagged() -> None:
    assert flagged({}, [5] * 10) == frozenset()


@pytest.mark.parametrize("share", [0.0, 1.1, float("nan")])
def test_wrong_share_is_refused(share: float) -> None:
    with pytest.raises(UsageError, match="share is"):
        flagged({(0, 0): [5] * 10}, [5] * 10, share)

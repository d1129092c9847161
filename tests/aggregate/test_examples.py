from __future__ import annotations

import numpy as np
import pytest
import torch

from summit_graph.aggregate.activation import Peaks
from summit_graph.aggregate.examples import Examples, rows


def best(
    activation: np.ndarray, position: np.ndarray, keys: list[str], limit: int
) -> set[tuple[int, str, float, int]]:
    """Per channel the `limit` largest above 0, equal ones by key."""
    found = set()
    for channel in range(activation.shape[1]):
        order = sorted(range(len(keys)), key=lambda n: (-activation[n, channel], keys[n]))
        for n in order[:limit]:
            if activation[n, channel] > 0:
                found.add(
                    (channel, keys[n], float(activation[n, channel]), int(position[n, channel]))
                )
    return found


@pytest.mark.parametrize("splits", [[12], [1] * 12, [5, 0, 7], [11, 1]])
@pytest.mark.parametrize("limit", [1, 3, 10, 20])
def test_the_largest_stay_whatever_the_batches(splits: list[int], limit: int) -> None:
    random = np.random.default_rng(0)
    activation = random.integers(0, 4, (12, 5)).astype(np.float32)  # many are equal
    position = random.integers(0, 30, (12, 5))
    keys = [f"{n:02}.jpg" for n in range(12)]
    examples, start = Examples(5, limit), 0
    for size in splits:
        some = slice(start, start + size)
        examples.add(
            keys[some], Peaks(torch.tensor(activation[some]), torch.tensor(position[some]))
        )
        start += size
    found = examples.found()
    assert len(found.channel) == len(set(zip(found.channel, found.image, strict=True)))
    assert set(zip(*found, strict=True)) == best(activation, position, keys, limit)


def test_no_example_without_activation() -> None:
    examples = Examples(2)
    examples.add(["a"], Peaks(torch.tensor([[0.0, 1.0]]), torch.tensor([[3, 4]])))
    assert examples.found() == ([1], ["a"], [1.0], [4])


def test_row_and_column() -> None:
    row, column = rows([0, 6, 7, 20], 7)
    assert row.tolist() == [0, 0, 1, 2]
    assert column.tolist() == [0, 6, 0, 6]

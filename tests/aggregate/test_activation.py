from __future__ import annotations

import numpy as np
import pytest
import reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from summit_graph.aggregate.activation import active, peaks


def channels(*activation: float, mass: float) -> list[int]:
    found = active(torch.tensor([activation]), mass)
    return torch.nonzero(found[0]).squeeze(1).tolist()


def test_taken_by_falling_share_until_the_mass_is_reached() -> None:
    """Shares 0.2, 0.5, 0.3: the channel that reaches the mass is taken too."""
    assert channels(2, 5, 3, mass=0.03) == [1]
    assert channels(2, 5, 3, mass=0.5) == [1]
    assert channels(2, 5, 3, mass=0.51) == [1, 2]
    assert channels(2, 5, 3, mass=0.8) == [1, 2]
    assert channels(2, 5, 3, mass=0.9) == [0, 1, 2]


def test_equal_activations_go_to_the_lower_channel() -> None:
    """Saturated at 6, as ReLU6 leaves them: each share is a fourth."""
    assert channels(6, 6, 6, 6, mass=0.2) == [0]
    assert channels(6, 6, 6, 6, mass=0.26) == [0, 1]
    assert channels(1, 6, 6, 6, mass=0.5) == [1, 2]


def test_without_activation_nothing_is_active() -> None:
    assert channels(0, 0, 0, mass=1.0) == []
    assert channels(0, 3, 0, mass=1.0) == [1]


def test_all_of_the_mass_takes_no_silent_channel() -> None:
    """Ten shares of a tenth add up to less than 1 in float64."""
    assert channels(*[0.1] * 10, *[0.0] * 5, mass=1.0) == list(range(10))


def test_peaks_are_0_or_more_and_the_first_of_equals() -> None:
    maps = torch.tensor([[[-1.0, -3.0, -1.0], [0.0, 2.0, 2.0], [4.0, 1.0, 4.0]]])
    found = peaks(maps)
    assert found.activation.tolist() == [[0.0, 2.0, 4.0]]
    assert found.position.tolist() == [[0, 1, 0]]


@pytest.mark.parametrize("images", [0, 1])
def test_any_number_of_images(images: int) -> None:
    assert active(torch.rand(images, 4), 0.1).shape == (images, 4)


@settings(max_examples=200, derandomize=True, deadline=None, database=None)
@given(
    st.lists(st.lists(st.integers(-3, 6), min_size=4, max_size=4), min_size=1, max_size=9),
    st.sampled_from([0.03, 0.1, 0.25, 0.5, 0.75, 1.0]),
)
def test_the_reference_agrees(rows: list[list[int]], mass: float) -> None:
    """Whole numbers: sums are exact, and a share that meets the mass exactly is common."""
    value = np.array(rows, np.float64).reshape(-1, 2, 2)
    found = peaks(torch.tensor(value, dtype=torch.float32).flatten(1)[None]).activation
    taken = torch.nonzero(active(found, mass)[0]).squeeze(1).tolist()
    assert taken == sorted(reference.active(value, mass))

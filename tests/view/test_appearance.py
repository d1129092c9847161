"""Sizes and widths grow with the counts; colours differ for everybody."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import numpy.typing as npt
import pytest

from summit_graph.view import appearance

Colour = npt.NDArray[np.float64]

# Linear RGB as it is seen without one kind of cone: Machado, Oliveira and Fernandes, "A
# Physiologically-based Model for Simulation of Color Vision Deficiency", 2009, severity 1.
SEEN = {
    "all cones": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.01182, 0.04294, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.3039],
    ],
}

# From linear sRGB to XYZ, as IEC 61966-2-1 has it.
XYZ = np.array(
    [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]], float
)


def test_sides_go_from_the_smallest_to_the_largest_by_area() -> None:
    assert appearance.side(0, 9) == 28
    assert appearance.side(9, 9) == 72
    assert appearance.side(4, 16) == 50
    assert appearance.side(0, 0) == 28


def test_edges_go_from_thin_and_faint_to_broad_and_strong() -> None:
    assert (appearance.width(0, 4), appearance.width(4, 4)) == (0.75, 6)
    assert (appearance.opacity(0, 4), appearance.opacity(4, 4)) == (0.35, 0.8)


def linear(colour: str) -> Colour:
    """Red, green and blue of a colour `#rrggbb`, 0 to 1, in proportion to the light."""
    encoded = np.array([int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)])
    return np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)


def lab(light: Colour) -> Colour:
    """CIELAB of linear RGB; white is that of RGB."""
    part = XYZ @ light / XYZ.sum(1)
    x, y, z = np.where(part > (6 / 29) ** 3, np.cbrt(part), part * (29 / 6) ** 2 / 3 + 4 / 29)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def test_cielab_is_that_of_the_standard() -> None:
    assert lab(linear("#FFFFFF")) == pytest.approx([100, 0, 0], abs=1e-9)
    assert lab(linear("#FF0000")) == pytest.approx([53.24, 80.09, 67.20], abs=0.05)
    assert lab(linear("#0000FF")) == pytest.approx([32.30, 79.19, -107.86], abs=0.05)
    assert lab(linear("#010101")) == pytest.approx([0.274, 0, 0], abs=0.001)


@pytest.mark.parametrize("sight", SEEN)
def test_classes_are_told_apart_with_any_colour_vision(sight: str) -> None:
    seen = [
        lab(np.clip(np.array(SEEN[sight]) @ linear(colour), 0, 1))
        for colour in (*appearance.CLASSES, appearance.SHARED)
    ]
    assert min(float(np.linalg.norm(one - other)) for one, other in combinations(seen, 2)) >= 16


@pytest.mark.parametrize("colour", [*appearance.CLASSES, appearance.SHARED])
def test_frames_and_lines_stand_out_from_white(colour: str) -> None:
    """Contrast as the Web Content Accessibility Guidelines count it: at least 3 for graphics."""
    assert 1.05 / (float(XYZ[1] @ linear(colour)) + 0.05) >= 3

"""Sizes and widths grow with the counts."""

from __future__ import annotations

from summit_graph.view import appearance


def test_sides_go_from_the_smallest_to_the_largest_by_area() -> None:
    assert appearance.side(0, 9) == 28
    assert appearance.side(9, 9) == 72
    assert appearance.side(4, 16) == 50
    assert appearance.side(0, 0) == 28


def test_edges_go_from_thin_and_faint_to_broad_and_strong() -> None:
    assert (appearance.width(0, 4), appearance.width(4, 4)) == (0.75, 6)
    assert (appearance.opacity(0, 4), appearance.opacity(4, 4)) == (0.35, 0.8)

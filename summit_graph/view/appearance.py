"""Colours and sizes, the same in figures, widgets and pages.

The colours are of the palette that people with any colour vision tell apart (Okabe and Ito, *Color
Universal Design*, 2008), but for the violet, which is as far from the others; a test simulates each
kind of colour vision. No meaning hangs on colour alone. `page/page.css` and `page/graph.js` repeat
these values; a test holds them equal.
"""

from __future__ import annotations

from math import sqrt

CLASSES = ("#0072B2", "#D55E00", "#9440ED", "#CC79A7")
"""Blue, vermilion, violet, reddish purple: the classes of a picture, the one asked for first."""

SHARED = "#009E73"
"""Bluish green: what several classes share; always with a double border."""

ADDED = "#6B7280"
"""Grey: what is in the graph of no class of the picture; always with a dashed border."""

EDGE = "#5B7B94"
"""Grey blue: an influence."""

CHOSEN = "#E69F00"
"""Orange: the ring around what is chosen."""

_SIDE = (28.0, 72.0)
_WIDTH = (0.75, 6.0)
_OPACITY = (0.35, 0.8)


def side(count: int, largest: int) -> float:
    """Pixels of a neuron's side: its area grows with its count. largest: in the graph, or 0."""
    return _SIDE[0] + (_SIDE[1] - _SIDE[0]) * sqrt(count / largest if largest else 0.0)


def width(count: int, largest: int) -> float:
    """Pixels of an edge's width, by its count. largest: in the graph, above 0."""
    return _WIDTH[0] + (_WIDTH[1] - _WIDTH[0]) * count / largest


def opacity(count: int, largest: int) -> float:
    """How opaque an edge is, 0 to 1, by its count. largest: in the graph, above 0."""
    return _OPACITY[0] + (_OPACITY[1] - _OPACITY[0]) * count / largest

"""Neurons that are active in nearly every image of nearly every class.

Such a neuron tells classes apart for nobody, yet stands high in every class's ranking. Method
(docs/method.md, section 4): it is flagged where it is active in 95 % of the images of 95 % of the
classes that have images, or more. Below 10 such classes nothing is judged. What is flagged is
reported; it is left out of the graphs only on request.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from summit_graph.errors import UsageError

_FEWEST_CLASSES = 10


def always_active(
    class_index: NDArray[np.integer],
    layer: NDArray[np.integer],
    channel: NDArray[np.integer],
    count: NDArray[np.integer],
    images: NDArray[np.integer],
    *,
    share: float = 0.95,
) -> frozenset[tuple[int, int]]:
    """Neurons, as (layer, channel), that are active nearly always (docs/method.md, section 4).

    class_index, layer, channel, count: (n,) rows of the table of activations, a neuron at most once
        for a class
    images: (classes,) images of each class; those of 0 are not judged
    share: above 0, at most 1; of a class's images and of the classes

    Raises:
        UsageError: the share is out of range.
    """
    if not 0 < share <= 1:
        raise UsageError(f"share is {share}; it must be above 0 and at most 1")
    classes = int((images > 0).sum())
    if classes < _FEWEST_CLASSES:
        return frozenset()
    # A quotient of two integers and a literal like 0.95 are both rounded once, so that 19 of 20
    # reaches 0.95; 0.95 · images would be rounded twice.
    mostly = count / np.maximum(images[class_index], 1) >= share
    neurons, in_classes = np.unique(
        np.stack([layer[mostly], channel[mostly]]), axis=1, return_counts=True
    )
    flagged = neurons[:, in_classes / classes >= share]
    return frozenset((int(number), int(index)) for number, index in flagged.T)

"""Dataset examples: the images that excite each neuron most (docs/method.md, section 6).

For every neuron of a layer the `limit` images with the largest activation above 0 are kept, equal
activations by path, with the place of the maximum in the layer's map.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from summit_graph.aggregate.activation import Peaks

DEFAULT_EXAMPLES = 10


class Found(NamedTuple):
    """Examples in no order of ranks: channel, image (its key), activation, place in row-major
    order."""

    channel: list[int]
    image: list[str]
    activation: list[float]
    position: list[int]


class Examples:
    """The best images of a layer's neurons so far."""

    def __init__(self, channels: int, limit: int = DEFAULT_EXAMPLES):
        self._limit = limit
        self._keys: list[str] = []
        self._activation = torch.zeros(0, channels)
        self._image = torch.zeros(0, channels, dtype=torch.int64)
        self._position = torch.zeros(0, channels, dtype=torch.int64)

    def add(self, keys: Sequence[str], found: Peaks) -> None:
        """Take in a batch.

        Args:
            keys: (images,) paths, in rising order over all batches.
            found: the images' largest activations, (images, channels).
        """
        first = len(self._keys)
        self._keys.extend(keys)
        count, channels = found.activation.shape
        image = torch.arange(first, first + count).unsqueeze(1).expand(-1, channels)
        activation = torch.cat([self._activation, found.activation.cpu()])
        images = torch.cat([self._image, image])
        position = torch.cat([self._position, found.position.cpu()])
        best = torch.sort(activation, dim=0, descending=True, stable=True)
        kept = best.indices[: self._limit]
        self._activation = best.values[: self._limit]
        self._image, self._position = images.gather(0, kept), position.gather(0, kept)

    def found(self) -> Found:
        """All examples kept."""
        ranks, channels = torch.nonzero(self._activation > 0, as_tuple=True)
        images = self._image[ranks, channels].tolist()
        return Found(
            channels.tolist(),
            [self._keys[image] for image in images],
            self._activation[ranks, channels].tolist(),
            self._position[ranks, channels].tolist(),
        )


def rows(position: Sequence[int], width: int) -> tuple[Tensor, Tensor]:
    """Row and column of places in row-major order, in a map `width` wide."""
    places = torch.tensor(position, dtype=torch.int64)
    return places // max(width, 1), places % max(width, 1)

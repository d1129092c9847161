"""Activation aggregation: which neurons matter for an image (docs/method.md, section 2).

1. `a_j` is the largest value of channel j's map, or 0 if that is negative.
2. A channel's share is `a_j` divided by the sum over the layer.
3. Channels are taken by falling share, the lower channel first among equals, until their shares
   add up to the mass: those are **active** in the image.

Source: Hohman et al., Summit, TVCG 2020, section 6.2, and the order of ties decided here.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

DEFAULT_MASS = 0.03


class Peaks(NamedTuple):
    """The largest value of each channel and where it is.

    Attributes:
        activation: (images, channels) float32, `a_j` >= 0.
        position: (images, channels) int64, the first such place in row-major order.
    """

    activation: Tensor
    position: Tensor


def peaks(maps: Tensor) -> Peaks:
    """Each channel's largest value.

    Args:
        maps: (images, channels, positions), a layer's tensor.
    """
    return Peaks(maps.amax(2).clamp(min=0), maps.argmax(2))


def active(activation: Tensor, mass: float = DEFAULT_MASS) -> Tensor:
    """Which channels are active in each image.

    Args:
        activation: (images, channels) >= 0.
        mass: the share of the sum that the active channels reach together, in (0, 1].

    Returns:
        (images, channels) bool; a channel whose activation is 0 is never active.
    """
    values = activation.double()
    total = values.sum(1, keepdim=True)
    share = values / torch.where(total > 0, total, 1)
    ordered = torch.sort(share, dim=1, descending=True, stable=True)
    before = torch.cumsum(ordered.values, 1)
    taken = torch.ones_like(before, dtype=torch.bool)
    taken[:, 1:] = before[:, :-1] < mass
    taken &= ordered.values > 0
    return torch.zeros_like(taken).scatter_(1, ordered.indices, taken)

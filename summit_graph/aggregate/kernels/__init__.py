"""The inner loop of influence aggregation, apart from its implementations.

A kernel is a function with the signature of `Kernel`. It gets everything that some target
channels receive, for a batch of images, and returns each target's strongest sources. How it finds
them (whether it computes every influence or rules most of them out) is its own affair; what it
returns is defined by docs/method.md, section 3, down to the order of ties.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from torch import Tensor


class Mixing(NamedTuple):
    """A mixer's contribution to some targets.

    Attributes:
        maps: (images, inputs, h, w), the mixer's true input, its padding included.
        kernel: (targets, inputs / groups, kh, kw), constant factors behind the mixer folded in.
        stride, dilation: rows, columns.
        groups: targets and inputs fall into as many equal runs; a run of targets reads its own
            run of inputs.
        gate: (images or 1, targets, positions of the mixer's output or 1), or None: what the
            contributions are multiplied by.
        neurons: (inputs,) int64, the source neuron behind each input; -1 is none.
    """

    maps: Tensor
    kernel: Tensor
    stride: tuple[int, int]
    dilation: tuple[int, int]
    groups: int
    gate: Tensor | None
    neurons: Tensor


class Passing(NamedTuple):
    """An identity term: each target receives one source's map as it is.

    Attributes:
        maps: (images, targets, positions).
        gate: (images or 1, targets, positions or 1), or None.
        neurons: (targets,) int64, the source neuron of each target.
    """

    maps: Tensor
    gate: Tensor | None
    neurons: Tensor


class Strongest(NamedTuple):
    """The strongest sources of each target.

    Attributes:
        neurons: (images, targets, k) int64, by falling influence, then rising number; -1 where
            fewer than k sources have an influence above 0.
        influence: (images, targets, k) float32; 0 where there is none.
    """

    neurons: Tensor
    influence: Tensor


class Kernel(Protocol):
    """Find the k strongest sources of every target.

    Args:
        terms: all that the targets receive, each for the same targets in the same order.
        k: how many sources of each target are wanted.
        memory: bytes that temporary tensors may take.
    """

    def __call__(self, terms: Sequence[Mixing | Passing], k: int, memory: int) -> Strongest: ...

"""Where each element of a tensor comes from (docs/method.md, section 1).

A **maker** is an operation that makes neurons: a mixer, an add, a chosen layer's tensor, or the
input image. Between a maker and the next mixer everything preserves channels, so each element of
a tensor belongs to one channel of one maker. A `Map` says which, for every element; a `Strand` is
the way from one maker to the tensor, with the `Step`s that changed values on it. Operations that
only move elements (views, concatenation, shuffles) need no step: they are run on the channel
numbers themselves.

On a strand, values are held as (images, channels, positions): the maker's channels in its own
order, the positions of a map in row-major order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from summit_graph.errors import UnsupportedNetwork

Values = Mapping[Node, Any]

# An element's number is `lane * LANE + channel`, the lane being the strand's place in its map;
# NO_NEURON where it belongs to no maker's channel (padding of channels).
LANE = 1 << 32
NO_NEURON = -1


class Kind(Enum):
    """What an operation on a strand does to values."""

    AFFINE = "factor * x + shift; both are parameters, or held at their values for an image"
    SPATIAL = "linear in each channel's map: average pooling, resizing, zero padding, slicing"
    NONLINEAR = "anything else that keeps channels apart: activations, maximum pooling"


Affine = Callable[[Values], tuple[Tensor | None, Tensor | None]]
Change = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Step:
    """One channel-preserving operation on a strand.

    `input` is the map of the operation's path operand, the value of `source`, and `lane` the
    strand's place in it. AFFINE steps have `affine`, which reads factor and shift (broadcastable
    to the operand) from the values of a forward pass, parameters alone where `constant`. SPATIAL
    and NONLINEAR steps have `change`, a function of maps (images, channels, *spatial sizes);
    a join of two ways from the same channels, x * sigmoid(x), has `branches` too, and `change`
    takes the two sides stacked along a new last axis.
    """

    kind: Kind
    node: Node
    source: Node
    input: Map
    lane: int
    affine: Affine | None = None
    constant: bool = False
    change: Change | None = None
    branches: tuple[tuple[Step, ...], tuple[Step, ...]] | None = None


@dataclass(frozen=True, eq=False)
class Strand:
    """The way from a maker to a tensor: `maker` is its number, `steps` what lies between."""

    maker: int
    steps: tuple[Step, ...] = ()


@dataclass(frozen=True, eq=False)
class Map:
    """Which maker's channel each element of a tensor belongs to.

    `numbers`: int64, one axis per axis of the tensor, of size 1 along those on which nothing
    depends (the batch always); `shape`: the tensor's shape with one image.
    """

    numbers: Tensor
    shape: tuple[int, ...]
    strands: tuple[Strand, ...]

    @property
    def axes(self) -> tuple[int, ...]:
        """The axes along which the channel changes."""
        return tuple(a for a, size in enumerate(self.numbers.shape) if size > 1)

    @property
    def axis(self) -> int | None:
        """The one axis of channels; None in the middle of a shuffle, where there are several."""
        axes = self.axes
        if len(axes) == 1:
            return axes[0]
        if axes or len(self.shape) < 2:
            return None
        return 1 if self.shape[1] == 1 or self.shape[-1] > 1 else len(self.shape) - 1

    @property
    def spatial(self) -> tuple[int, ...]:
        """The sizes of the axes beside batch and channels."""
        return tuple(n for a, n in enumerate(self.shape) if a not in (0, *self.channel_axes))

    def spatial_axis(self, axis: int) -> int:
        """Where an axis of positions stands in (images, channels, *spatial)."""
        others = [a for a in range(1, len(self.shape)) if a not in self.channel_axes]
        return 2 + others.index(axis)

    @property
    def channel_axes(self) -> tuple[int, ...]:
        """The axes along which channels lie, varying or not."""
        return self.axes or ((self.axis,) if self.axis is not None else ())

    def full(self) -> Tensor:
        """The numbers, one for each element (an expanded view)."""
        return self.numbers.expand(self.shape)

    def channels(self) -> Tensor:
        """The numbers along the one channel axis."""
        assert self.axis is not None
        return self.numbers.movedim(self.axis, -1).reshape(-1).expand(self.shape[self.axis])

    @property
    def positions(self) -> int:
        """How many elements one channel of a maker has, where all have as many."""
        numbers = self.numbers[self.numbers >= 0]
        repeated = len(numbers) // max(1, len(numbers.unique()))
        return repeated * math.prod(
            n for n, m in zip(self.shape, self.numbers.shape, strict=True) if m == 1
        )

    def places(self) -> Tensor:
        """For each element the place among its channel's elements, in row-major order."""
        if self.alone:
            sizes = [1 if axis in self.axes else n for axis, n in enumerate(self.shape)]
            return torch.arange(math.prod(sizes)).reshape(sizes).expand(self.shape)
        full = self.full().reshape(-1)
        order = torch.sort(full, stable=True).indices
        _, counts = torch.unique_consecutive(full[order], return_counts=True)
        starts = torch.repeat_interleave(torch.cumsum(counts, 0) - counts, counts)
        places = torch.empty_like(full)
        places[order] = torch.arange(len(full)) - starts
        return places.reshape(self.shape)

    @property
    def alone(self) -> bool:
        """Whether each channel stands at one place along the axes of channels."""
        numbers = self.numbers.reshape(-1)
        return len(numbers.unique()) == len(numbers)

    def order_of(self, places: Tensor) -> Tensor | None:
        """(positions,) the `places` of a channel's elements; None if channels differ in them."""
        if self.alone:
            rows = places.movedim(self.axes, tuple(range(len(self.axes))))
            rows = rows.reshape(math.prod(places.shape[axis] for axis in self.axes), -1)
        else:
            full = self.full().reshape(-1)
            named = torch.nonzero(full >= 0).squeeze(1)
            named = named[torch.sort(full[named], stable=True).indices]
            _, counts = torch.unique_consecutive(full[named], return_counts=True)
            if len(counts.unique()) != 1:
                return None
            rows = places.reshape(-1)[named].reshape(len(counts), -1)
        return rows[0] if bool((rows == rows[:1]).all()) else None

    def then(self, kind: Kind, node: Node, source: Node, **what: Any) -> Map:
        """This map behind an operation that changes values and moves nothing."""
        strands = tuple(
            replace(strand, steps=(*strand.steps, Step(kind, node, source, self, lane, **what)))
            for lane, strand in enumerate(self.strands)
        )
        return replace(self, strands=strands)


def fresh(maker: int, shape: tuple[int, ...], axis: int) -> Map:
    """The map of a tensor that a maker makes, its channels along `axis`."""
    sizes = [1] * len(shape)
    sizes[axis] = shape[axis]
    return Map(torch.arange(shape[axis]).reshape(sizes), shape, (Strand(maker),))


def nowhere(shape: tuple[int, ...]) -> Map:
    """The map of a tensor that no neuron feeds."""
    return Map(torch.full([1] * len(shape), NO_NEURON), shape, ())


def compressed(full: Tensor, strands: tuple[Strand, ...]) -> Map:
    """A map from one number per element; strands without an element are dropped."""
    numbers = full
    for axis in range(full.ndim):
        first = numbers.narrow(axis, 0, 1)
        if numbers.shape[axis] > 1 and bool((numbers == first).all()):
            numbers = first
    used = sorted(set((numbers[numbers >= 0] // LANE).tolist()))
    if len(used) < len(strands):
        renumbered = torch.zeros(max(len(strands), 1), dtype=torch.int64)
        renumbered[used] = torch.arange(len(used))
        lanes = renumbered[(numbers // LANE).clamp(min=0)]
        numbers = torch.where(numbers < 0, numbers, lanes * LANE + numbers % LANE)
        strands = tuple(strands[lane] for lane in used)
    return Map(numbers.contiguous(), tuple(full.shape), strands)


def lined(tensor: Tensor, axis: int) -> Tensor:
    """A tensor as (images, channels, positions), its channels along `axis`; a view if it can be."""
    maps = tensor.movedim(axis, 1)
    return maps.flatten(2) if maps.ndim > 2 else maps.unsqueeze(2)


def gather(tensor: Tensor, where: Map, lane: int, channels: tuple[int, ...]) -> Tensor:
    """A strand's channels out of a tensor.

    Args:
        tensor: (images, ...), its elements described by `where`.
        lane: the strand's place in `where.strands`.
        channels: the maker's channels that are wanted.

    Returns:
        (images, channels, positions).
    """
    along = _along_axis(where, lane, channels)
    if along is not None and where.axis is not None:
        maps = lined(tensor, where.axis)
        if along == tuple(range(maps.shape[1])):
            return maps
        return maps.index_select(1, torch.tensor(along, device=tensor.device))
    index = elements(where, lane, channels).to(tensor.device)
    flat = tensor.reshape(len(tensor), -1)
    return flat[:, index.reshape(-1)].reshape(len(tensor), *index.shape)


def spread(value: Tensor, where: Map, lane: int, channels: tuple[int, ...]) -> Tensor:
    """A factor or shift for each of a strand's channels.

    Args:
        value: broadcastable to a tensor described by `where`.

    Returns:
        (images or 1, channels, positions or 1); 1 where it is the same everywhere.
    """
    value = value.reshape(*[1] * (len(where.shape) - value.ndim), *value.shape)
    varying = [axis for axis in range(1, value.ndim) if value.shape[axis] > 1]
    if not varying:
        return value.reshape(len(value), 1, 1).expand(-1, len(channels), -1)
    along = _along_axis(where, lane, channels)
    if varying == [where.axis] and along is not None:
        each = lined(value, varying[0])
        return each.index_select(1, torch.tensor(along, device=value.device))
    return gather(value.expand(-1, *where.shape[1:]), where, lane, channels)


@lru_cache(maxsize=4096)
def _along_axis(where: Map, lane: int, channels: tuple[int, ...]) -> tuple[int, ...] | None:
    """Places of the channels on the channel axis; None if some channel has not just one."""
    if where.axis is None:
        return None
    numbers = where.channels().tolist()
    place: dict[int, int] = {}
    for position, number in enumerate(numbers):
        if number >= 0 and number // LANE == lane:
            if number % LANE in place:
                return None
            place[number % LANE] = position
    return tuple(place[channel] for channel in channels)


@lru_cache(maxsize=64)
def elements(where: Map, lane: int, channels: tuple[int, ...]) -> Tensor:
    """Places of the channels' elements in the flattened tensor: (channels, positions)."""
    full = where.full().reshape(-1)
    places = torch.nonzero((full >= 0) & (full // LANE == lane)).squeeze(1)
    channel_of = full[places] % LANE
    order = torch.sort(channel_of, stable=True).indices
    counts = torch.bincount(channel_of, minlength=max(channels) + 1)
    starts = torch.cumsum(counts, 0) - counts
    wanted = counts[list(channels)]
    if int(wanted.min()) != int(wanted.max()) or int(wanted.min()) == 0:
        raise UnsupportedNetwork(
            "some channels of a tensor are repeated more often than others before an operation "
            "that treats them one by one"
        )
    index = starts[list(channels)].unsqueeze(1) + torch.arange(int(wanted[0]))
    return places[order][index]


def carry(
    steps: tuple[Step, ...],
    x: Tensor,
    values: Values,
    channels: tuple[int, ...],
    *,
    shifts: bool = True,
) -> Tensor:
    """Values carried along a strand, gates and run-time statistics held as in `values`.

    Args:
        steps: what lies on the way.
        x: (images, channels, positions), the maker's channels named in `channels`.
        values: the undisturbed forward pass, from which factors and shifts are read.
        shifts: False leaves out what is added on the way, so that the result is linear in x
            where no step is NONLINEAR.

    Returns:
        (images, channels, positions at the end).
    """
    for step in steps:
        if step.branches is not None:
            assert step.change is not None
            sides = [carry(b, x, values, channels, shifts=shifts) for b in step.branches]
            x = step.change(torch.stack(torch.broadcast_tensors(*sides), -1))
        elif step.affine is not None:
            factor, shift = step.affine(values)
            if factor is not None:
                x = x * spread(factor, step.input, step.lane, channels)
            if shift is not None and shifts:
                x = x + spread(shift, step.input, step.lane, channels)
        else:
            assert step.change is not None
            sizes = step.input.spatial
            fits = math.prod(sizes) == x.shape[2]
            x = step.change(x.reshape(*x.shape[:2], *sizes) if fits else x)
            x = x.reshape(*x.shape[:2], -1)
    return x


def factor(
    steps: tuple[Step, ...], values: Values, channels: tuple[int, ...], *, constant: bool
) -> Tensor | None:
    """The product of the factors on a strand, what else lies there passed over.

    Args:
        constant: True for the factors that are parameters, False for the others (gates,
            run-time statistics).

    Returns:
        (images or 1, channels, positions or 1), or None where there is none.
    """
    product: Tensor | None = None
    for step in steps:
        found: Tensor | None = None
        if step.branches is not None:
            if not constant and linear(steps):
                one = torch.ones(1, len(channels), 1, device=_device(values))
                found = carry((step,), one, values, channels, shifts=False)
        elif step.kind is Kind.AFFINE and step.constant == constant:
            assert step.affine is not None
            value, _ = step.affine(values)
            found = None if value is None else spread(value, step.input, step.lane, channels)
        if found is not None:
            product = found if product is None else product * found
    return product


def _device(values: Values) -> torch.device:
    return next(v.device for v in values.values() if isinstance(v, Tensor))


def linear(steps: tuple[Step, ...]) -> bool:
    """Whether nothing non-linear stands on a strand."""
    return all(
        step.kind is not Kind.NONLINEAR
        and (step.branches is None or all(linear(branch) for branch in step.branches))
        for step in steps
    )

"""What each position of a layer sees of the image: receptive fields (docs/method.md, section 6).

1. Every position of every tensor on the path has **bounds**: the rows and columns of the image
   that its values can depend on. A position of the image sees itself.
2. Each operation takes them on. A window (convolution, pool) has the smallest rectangle around
   those of the positions it reads, where padding adds nothing; adds and concatenations have the
   one around their operands'; moves take bounds along with the elements; a linear layer on
   flattened maps sees whatever it reads. What has no rule here sees the whole image, so that
   bounds are never too small.
3. Gates, and the statistics of a normalisation, may depend on all of the image. They are not on
   the path, and are held, as they are where influence is measured.
4. A layer's bounds are stated as a `Field`, a rectangle of one size that moves by fixed steps from
   position to position: the one that holds the bounds of every position and has the smallest area
   within the image.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.fx import Node

from summit_graph.network import graph as graphs
from summit_graph.network import operations
from summit_graph.network.channels import Map
from summit_graph.network.operations import Mixer, shape_of
from summit_graph.network.trace import Network

aten = torch.ops.aten

_NOTHING = math.inf
"""First row of what sees nothing; its last is minus this."""


class Field(NamedTuple):
    """The receptive field of a layer's positions, in pixels of the network's input.

    Position (row, column) of the layer's map sees `height` rows from `top + row * row_step` on and
    `width` columns from `left + column * column_step` on, as far as they lie within the image.
    A height (width) of None: every position sees all rows (columns); top (left) and step are 0.
    """

    top: int
    left: int
    row_step: float
    column_step: float
    height: int | None
    width: int | None


def receptive_fields(network: Network) -> dict[int, Field]:
    """The receptive field of every chosen layer, by the layer's number.

    It holds for all channels of the layer together: one channel may see less (the 1 x 1 branch of
    an inception block).
    """
    _, height, width = network.shape
    bounds = _Walk(network).bounds()
    fields: dict[int, Field] = {}
    for layer in network.chosen:
        own, where = bounds[network.nodes[layer.number]], network.maps[layer.number]
        axes = [a for a in range(1, len(where.shape)) if a not in where.channel_axes]
        if isinstance(own, list) or len(axes) > 2:
            fields[layer.number] = Field(0, 0, 0.0, 0.0, None, None)
            continue
        row, column = ([*axes, None, None])[:2]
        top, row_step, rows = _fitted(own.top, own.bottom, row, layer.height, height)
        left, column_step, columns = _fitted(own.left, own.right, column, layer.width, width)
        fields[layer.number] = Field(top, left, row_step, column_step, rows, columns)
    return fields


class _Bounds(NamedTuple):
    """First and last row and column (the last exclusive) that each element of a tensor sees.

    Each has as many axes as the tensor, of size 1 along those on which nothing depends.
    """

    top: Tensor
    bottom: Tensor
    left: Tensor
    right: Tensor


_FIRST = (True, False, True, False)
"""Whether each of `_Bounds` is a first row or column; where bounds are joined, it is the least."""


def _each(change: Callable[[Tensor, bool], Tensor], bounds: _Bounds) -> _Bounds:
    return _Bounds(*(change(one, lowest) for one, lowest in zip(bounds, _FIRST, strict=True)))


def _around(bounds: _Bounds, axes: tuple[int, ...]) -> _Bounds:
    """The bounds of all elements along some axes together; the axes stay, of size 1."""
    if not axes:
        return bounds
    return _each(lambda x, low: x.amin(axes, True) if low else x.amax(axes, True), bounds)


def _joined(several: Sequence[_Bounds], rank: int) -> _Bounds:
    """The bounds around those of several operands, broadcast to each other."""

    def join(parts: Sequence[Tensor], lowest: bool) -> Tensor:
        result = parts[0]
        for part in parts[1:]:
            result = torch.minimum(result, part) if lowest else torch.maximum(result, part)
        return result.reshape(*[1] * (rank - result.ndim), *result.shape)

    return _Bounds(
        *(join(parts, low) for parts, low in zip(zip(*several, strict=True), _FIRST, strict=True))
    )


def _through(bounds: _Bounds, axis: int, reads: Tensor) -> _Bounds:
    """Bounds behind a window along one axis; `reads`: (outputs, inputs), what each one reads."""

    def change(x: Tensor, lowest: bool) -> Tensor:
        if x.shape[axis] == 1:
            return x
        along = x.movedim(axis, -1).unsqueeze(-2)
        if lowest:
            return torch.where(reads, along, _NOTHING).amin(-1).movedim(-1, axis)
        return torch.where(reads, along, -_NOTHING).amax(-1).movedim(-1, axis)

    return _each(change, bounds)


def _window(
    inputs: int, outputs: int, kernel: int, stride: int, before: int, dilation: int
) -> Tensor:
    """(outputs, inputs): which positions each position of a window's result reads."""
    offset = torch.arange(inputs) - (torch.arange(outputs) * stride - before).unsqueeze(1)
    inside = (offset >= 0) & (offset <= (kernel - 1) * dilation)
    return inside & (offset % dilation == 0)


def _adaptive(inputs: int, outputs: int) -> Tensor:
    """(outputs, inputs): which positions adaptive pooling reads."""
    place, at = torch.arange(inputs), torch.arange(outputs).unsqueeze(1)
    return (place >= at * inputs // outputs) & (place < -(-(at + 1) * inputs // outputs))


def _compressed(x: Tensor) -> Tensor:
    """A tensor with size 1 along the axes on which it does not depend."""
    for axis in range(x.ndim):
        first = x.narrow(axis, 0, 1)
        if x.shape[axis] > 1 and bool((x == first).all()):
            x = first
    return x


_MOVES = (operations.move, operations.slice_, operations.turn)
_POOLS = (operations.pool, operations.maximum_pool, operations.maximum_pool_with_indices)
_REDUCTIONS = (operations.mean, operations.total, operations.largest, operations.spread_of)
_ELEMENTWISE = (
    operations.add, operations.subtract, operations.subtract_from, operations.multiply,
    operations.divide, operations.add_product, operations.negate, operations.batch_norm,
    operations.layer_norm, operations.group_norm, operations.instance_norm, operations.pointwise,
    operations.identity, operations.prelu, operations.expand,
)  # fmt: skip
_ADAPTIVE = (aten.adaptive_avg_pool2d, aten._adaptive_avg_pool2d, aten.adaptive_max_pool2d)
_WINDOWED = (aten.avg_pool2d, aten.max_pool2d, aten.max_pool2d_with_indices)


class _Walk:
    """Takes the bounds from the image to the chosen layers, operation by operation."""

    def __init__(self, network: Network):
        self._network = network
        self._tracing = network.tracing
        self._mixers = {m.node: m for m in network.tracing.makers if isinstance(m, Mixer)}

    def bounds(self) -> Mapping[Node, _Bounds | list[_Bounds]]:
        """The bounds of every tensor on the way to a chosen layer."""
        exported, path = self._network.graph, self._tracing.path
        wanted: set[Node] = set()
        stack = [self._network.nodes[layer.number] for layer in self._network.chosen]
        while stack:
            node = stack.pop()
            if node not in wanted:
                wanted.add(node)
                stack.extend(path.get(node, ()))
        found: dict[Node, _Bounds | list[_Bounds]] = {}
        for node in exported.nodes:
            if node in wanted:
                made = self._image() if node is exported.image else self._made(node, found)
                found[node] = self._of_channels(node, made)
        return found

    def _image(self) -> _Bounds:
        _, height, width = self._network.shape
        rows = torch.arange(height, dtype=torch.float32).reshape(1, 1, -1, 1)
        columns = torch.arange(width, dtype=torch.float32).reshape(1, 1, 1, -1)
        return _Bounds(rows, rows + 1, columns, columns + 1)

    def _whole(self, rank: int) -> _Bounds:
        _, height, width = self._network.shape
        return _Bounds(*(torch.full([1] * rank, float(n)) for n in (0, height, 0, width)))

    def _of_channels(self, node: Node, made: _Bounds | list[_Bounds]) -> _Bounds | list[_Bounds]:
        """The same for all channels of a tensor: they may lie anywhere along its axes later."""
        value = self._tracing.values.get(node)
        if isinstance(made, list):
            values = value if isinstance(value, list) else [None] * len(made)
            return [
                _around(one, own.channel_axes) if isinstance(own, Map) and own.strands else one
                for one, own in zip(made, values, strict=True)
            ]
        if isinstance(value, list):
            value = value[0]
        return (
            _around(made, value.channel_axes) if isinstance(value, Map) and value.strands else made
        )

    def _made(
        self, node: Node, found: Mapping[Node, _Bounds | list[_Bounds]]
    ) -> _Bounds | list[_Bounds]:
        """The bounds of an operation's result."""
        sources = self._tracing.path.get(node, ())
        if node.target is graphs.GETITEM:
            taken = found[sources[0]]
            return taken[node.args[1]] if isinstance(taken, list) else taken  # type: ignore[index]
        operands = {n: b for n in sources if isinstance(b := found[n], _Bounds)}
        value = node.meta["val"]
        rank = (value[0] if isinstance(value, (list, tuple)) else value).ndim
        packet = getattr(node.target, "overloadpacket", None)
        rule: Any = operations.RULES.get(packet)
        if not sources:
            return _Bounds(
                *(torch.full([1] * rank, _NOTHING if low else -_NOTHING) for low in _FIRST)
            )
        if len(operands) < len(set(sources)):
            return self._whole(rank)
        a = operations.arguments(node)
        source = sources[0]
        own = operands[source]
        if rule is operations.convolution:
            return self._convolution(node, own)
        if rule in (operations.linear, operations.product):
            return _around(own, (rank - 1,))
        if rule in _POOLS:
            return self._pool(node, packet, a, source, own)
        if rule in _ELEMENTWISE:
            return _joined(list(operands.values()), rank)
        if rule in _MOVES:
            return self._moved(node, source, own)
        if rule is operations.concatenate:
            return self._concatenated(node, a, operands, rank)
        if rule is operations.padding:
            return self._padded(node, a, source, own)
        if rule in _REDUCTIONS:
            given = a["dim"] if isinstance(a["dim"], (list, tuple)) else [a["dim"]]
            axes = tuple(axis % own.top.ndim for axis in given)
            around = _around(own, axes)
            return around if a.get("keepdim") else _each(lambda x, _: x.squeeze(axes), around)
        return self._whole(rank)

    def _convolution(self, node: Node, own: _Bounds) -> _Bounds:
        mixer, before, after = (
            self._mixers[node],
            shape_of(self._mixers[node].image),
            shape_of(node),
        )
        left, _, top, _ = mixer.padding
        bounds = _around(own, (1,))
        for axis, pad in ((2, top), (3, left)):
            side = axis - 2
            bounds = _through(
                bounds,
                axis,
                _window(
                    before[axis], after[axis], mixer.weight.shape[axis], mixer.stride[side], pad,
                    mixer.dilation[side],
                ),
            )  # fmt: skip
        return bounds

    def _pool(
        self, node: Node, packet: Any, a: dict[str, Any], source: Node, own: _Bounds
    ) -> _Bounds:
        before = shape_of(source)
        value = node.meta["val"]
        result = value[0] if isinstance(value, (list, tuple)) else value
        rank = len(before)
        for side, axis in enumerate((rank - 2, rank - 1)):
            inputs, outputs = before[axis], int(result.shape[axis])
            if packet in _ADAPTIVE:
                reads = _adaptive(inputs, outputs)
            elif packet in _WINDOWED:
                kernel = _of_side(a["kernel_size"], side)
                stride = _of_side(a.get("stride") or kernel, side)
                before_it = _of_side(a.get("padding", 0), side)
                dilation = _of_side(a.get("dilation", 1), side)
                reads = _window(inputs, outputs, kernel, stride, before_it, dilation)
            else:
                reads = self._resized(node, before, axis)
            own = _through(own, axis, reads)
        return own

    def _resized(self, node: Node, before: tuple[int, ...], axis: int) -> Tensor:
        """(outputs, inputs): what a resize reads along an axis, seen by letting it run."""
        target: Any = node.target
        arguments = [self._tracing.number(arg) for arg in node.args[1:]]
        keywords = {key: self._tracing.number(arg) for key, arg in node.kwargs.items()}
        each = torch.eye(before[axis]).reshape(
            before[axis], 1, *((-1, 1) if axis == len(before) - 2 else (1, -1))
        )
        maps = each.expand(-1, 1, *before[-2:]).contiguous()
        seen: Tensor = target(maps, *arguments, **keywords)
        return (seen != 0).any(2 if axis == len(before) - 1 else 3).squeeze(1).T

    def _moved(self, node: Node, source: Node, own: _Bounds) -> _Bounds | list[_Bounds]:
        target: Any = node.target
        arguments = [self._tracing.number(arg) for arg in node.args[1:]]
        keywords = {key: self._tracing.number(arg) for key, arg in node.kwargs.items()}
        if target in (aten.view.default, aten._unsafe_view.default):
            target = aten.reshape.default
        shape = shape_of(source)
        results = [target(x.expand(shape), *arguments, **keywords) for x in own]
        if isinstance(results[0], (list, tuple)):
            return [_Bounds(*map(_compressed, item)) for item in zip(*results, strict=True)]
        return _Bounds(*map(_compressed, results))

    def _concatenated(
        self, node: Node, a: dict[str, Any], operands: Mapping[Node, _Bounds], rank: int
    ) -> _Bounds:
        stacked = getattr(node.target, "overloadpacket", None) is aten.stack
        axis = a["dim"] % rank
        nothing = _Bounds(
            *(torch.full([1] * (rank - stacked), _NOTHING if low else -_NOTHING) for low in _FIRST)
        )
        pieces: list[_Bounds] = []
        for source in a["tensors"]:
            own = operands.get(source, nothing)
            if stacked:
                pieces.append(_each(lambda x, _: x.unsqueeze(axis), own))
            else:
                size = source.meta["val"].shape[axis]
                pieces.append(_each(lambda x, _, n=size: _wide(x, axis, n), own))  # type: ignore[misc]

        def cat(parts: Sequence[Tensor]) -> Tensor:
            sizes = [max(part.shape[n] for part in parts) for n in range(rank)]
            wide = [
                part.expand(*(part.shape[n] if n == axis else sizes[n] for n in range(rank)))
                for part in parts
            ]
            return _compressed(torch.cat(wide, axis))

        return _Bounds(*(cat(parts) for parts in zip(*pieces, strict=True)))

    def _padded(self, node: Node, a: dict[str, Any], source: Node, own: _Bounds) -> _Bounds:
        pads, shape = list(a.get("pad", a.get("padding"))), shape_of(source)  # type: ignore[arg-type]
        named = str(node.target)
        constant = "reflection" not in named and "replication" not in named
        if constant and a.get("mode", "constant") == "constant":
            return _each(
                lambda x, low: F.pad(x.expand(shape), pads, value=_NOTHING if low else -_NOTHING),
                own,
            )
        moved = self._moved(node, source, own)
        assert isinstance(moved, _Bounds)
        return moved


def _of_side(value: Any, side: int) -> int:
    """A window's number for rows (side 0) or columns (1), given as one for both or as a pair."""
    return int(value) if isinstance(value, int) else int(value[side % len(value)])


def _wide(x: Tensor, axis: int, size: int) -> Tensor:
    return x.expand(*(size if n == axis else -1 for n in range(x.ndim)))


def _fitted(
    first: Tensor, last: Tensor, axis: int | None, positions: int, size: int
) -> tuple[int, float, int | None]:
    """Start, step and length of the interval that holds the bounds along one side of the image.

    first, last: a layer's bounds; `axis`: its positions' axis along this side, None if it has none.
    size: pixels of the image along it.
    """
    others = [n for n in range(first.ndim) if n != axis]
    low = first.amin(others).reshape(-1).expand(positions).clamp(0, size).double()
    high = last.amax(others).reshape(-1).expand(positions).clamp(0, size).double()
    if bool(((low == 0) & (high == size)).all()):
        return 0, 0.0, None
    place = torch.arange(positions, dtype=torch.float64)
    seeing = low < high
    place, low, high = place[seeing], low[seeing], high[seeing]
    if not len(place):
        return 0, 0.0, None
    steps = {0.0, size / positions}
    for ends in (low, high):
        if len(place) > 1:
            between = (ends.diff() / place.diff()).tolist()
            whole = float((ends[-1] - ends[0]) / (place[-1] - place[0]))
            steps |= {min(between), max(between), whole}

    def fit(step: float) -> tuple[float, int, int]:
        start = math.floor(round(float((low - step * place).min()), 6))
        end = math.ceil(round(float((high - step * place).max()), 6))
        shown = (step * place + end).ceil().clamp(0, size) - (step * place + start).floor().clamp(
            0, size
        )
        return float(shown.sum()), end - start, start

    step = min(sorted(steps), key=lambda n: (fit(n)[0], abs(n - size / positions)))
    _, length, start = fit(step)
    return start, step, length

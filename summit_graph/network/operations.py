"""What each tensor operation does to channels: one rule per operation (docs/method.md, section 1).

`RULES` at the end is the table. A rule reads the maps of an operation's operands and gives the
map of its result:

- a **mixer** makes neurons: `conv2d`, `linear`, a product with a fixed matrix;
- an **add** of two maps makes neurons, unless both come from the same channels;
- **moves** (views, concatenation, slices of channels, shuffles) are run on the channel numbers;
- **pointwise** operations, **pools** and **affine** ones (normalisation, gates, layer scale)
  leave each channel where it is;
- what mixes channels in another way is `Lost`. That is no error where it only computes a gate or
  a statistic; it is one where the way to the logits leads through it.

To add an operation: write its rule, or name it in the group that it belongs to.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.fx import Node

from summit_graph.network import graph as graphs
from summit_graph.network.channels import (
    LANE,
    NO_NEURON,
    Kind,
    Map,
    Step,
    Strand,
    Values,
    compressed,
    fresh,
    nowhere,
)

aten = torch.ops.aten


@dataclass(frozen=True)
class Lost:
    """A tensor whose elements belong to no single channel; `node` and `reason` say why."""

    node: Node
    reason: str


@dataclass(frozen=True)
class Statistic:
    """Means, norms and the like over a map's own channels, held when influence is measured."""

    shape: tuple[int, ...]


@dataclass(frozen=True)
class Mixer:
    """A linear operation that mixes channels.

    `image` is the node of its input, `input` that input's map; `weight`: (targets, sources /
    groups, kh, kw) for a convolution, (targets, features) for a linear layer; `padding`: (left,
    right, top, bottom).
    """

    node: Node
    image: Node
    input: Map
    weight: Tensor
    convolution: bool
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1


@dataclass(frozen=True)
class Operand:
    """One side of an add: its node, its map broadcast to the sum, and its factor (-1 behind -)."""

    node: Node
    map: Map
    factor: float


@dataclass(frozen=True)
class Add:
    """A sum of two maps."""

    node: Node
    operands: tuple[Operand, Operand]


@dataclass(frozen=True)
class Layer:
    """A chosen layer's tensor; `under` is the map that it has as a target."""

    node: Node
    under: Map


Maker = Mixer | Add | Layer
Value = Any  # Map | Lost | Statistic | int | float | list of these | None, or a constant's value


@dataclass
class Tracing:
    """The state of one pass over the graph: values so far, and the makers met."""

    graph: graphs.Graph
    values: dict[Node, Value] = field(default_factory=dict)
    makers: list[Maker] = field(default_factory=list)
    path: dict[Node, tuple[Node, ...]] = field(default_factory=dict)

    def make(self, maker: Maker, axis: int) -> Map:
        self.makers.append(maker)
        return fresh(len(self.makers) - 1, shape_of(maker.node), axis)

    def constant(self, node: Any) -> bool:
        return not isinstance(node, Node) or node in self.graph.constants

    def number(self, arg: Any) -> Any:
        """An argument for a run on channel numbers: sizes as they are for one image."""
        if isinstance(arg, Node):
            return self.graph.constants.get(arg, self.values.get(arg))
        if isinstance(arg, (list, tuple)):
            return type(arg)(self.number(item) for item in arg)
        return arg


Rule = Callable[[Tracing, Node, dict[str, Any]], Value]


def shape_of(node: Node) -> tuple[int, ...]:
    """A node's shape with one image."""
    value = node.meta["val"]
    batch = value.shape[0] if value.ndim else None
    return tuple(
        1 if n == 0 and not isinstance(batch, int) else int(size) if isinstance(size, int) else 1
        for n, size in enumerate(value.shape)
    )


def trace_node(tracing: Tracing, node: Node) -> Value:
    """The value of one operation, by its rule."""
    target: Any = node.target
    if target in _SIZES:
        return graphs.call(node, {n: _size_source(tracing, n) for n in node.all_input_nodes})
    if target is graphs.GETITEM:
        source, index = node.args
        value = tracing.values.get(source)  # type: ignore[arg-type]
        if isinstance(value, list):
            tracing.path[node] = (source,)  # type: ignore[assignment]
            return value[index]  # type: ignore[index]
        return value if isinstance(value, Lost) else Lost(node, "takes an item of a value")
    packet = getattr(target, "overloadpacket", target)
    rule = RULES.get(packet)
    if rule is None:
        return _of_image(tracing, node) or Lost(node, _why_no_rule(node))
    return rule(tracing, node, arguments(node))


def _of_image(tracing: Tracing, node: Node) -> Value:
    """The map of an operation without a rule that works on the image alone, before any mixer."""
    sources = [n for n in node.all_input_nodes if isinstance(tracing.values.get(n), Map)]
    others = [tracing.values.get(n) for n in node.all_input_nodes if n not in sources]
    alone = all(not tracing.values[n].strands for n in sources) and not any(
        isinstance(value, (Lost, Statistic, list)) for value in others
    )
    if not sources or not alone or not isinstance(node.meta["val"], Tensor):
        return None
    tracing.path[node] = tuple(sources)
    return nowhere(shape_of(node))


def _size_source(tracing: Tracing, node: Node) -> Any:
    value = tracing.values.get(node)
    if isinstance(value, (int, float)):
        return value
    return torch.empty(shape_of(node)) if isinstance(node.meta["val"], Tensor) else 1


def arguments(node: Node) -> dict[str, Any]:
    """An operation's arguments by name, those that are not given at their defaults."""
    schema = node.target._schema  # type: ignore[union-attr]
    names = [argument.name for argument in schema.arguments]
    found = {a.name: a.default_value for a in schema.arguments if a.has_default_value()}
    found.update(zip(names, node.args, strict=False))
    found.update(node.kwargs)
    return found


def _why_no_rule(node: Node) -> str:
    name = str(node.target)
    if "attention" in name:
        return "is attention, which mixes positions by weights computed from the image"
    if any(part in name for part in ("bmm", "matmul", "einsum", "mm.")):
        return "multiplies two tensors that both depend on the image, as attention does"
    if "conv" in name:
        return "is a convolution other than Conv2d"
    return "has no rule"


def _first_lost(*values: Value) -> Lost | None:
    return next((v for v in values if isinstance(v, Lost)), None)


# Mixers --------------------------------------------------------------------------------------


def convolution(t: Tracing, node: Node, a: dict[str, Any]) -> Value:
    """Conv2d with any kernel, stride, dilation, padding, groups."""
    x = t.values.get(a["input"])
    if not t.constant(a["weight"]):
        return Lost(node, "has a kernel computed from the image")
    if not isinstance(x, Map):
        return x if isinstance(x, Lost) else Lost(node, "convolves what is no map")
    if len(x.shape) != 4 or any(axis != 1 for axis in x.axes):
        return Lost(node, "convolves a tensor whose channels do not lie along axis 1")
    weight = t.graph.constants[a["weight"]]
    dilation = _pair(a["dilation"])
    t.path[node] = (a["input"],)
    mixer = Mixer(
        node=node,
        image=a["input"],
        input=x,
        weight=weight,
        convolution=True,
        stride=_pair(a["stride"]),
        padding=_padding(a["padding"], weight.shape[2:], dilation),
        dilation=dilation,
        groups=a["groups"],
    )
    return t.make(mixer, 1)


def _padding(
    padding: Any, kernel: Sequence[int], dilation: tuple[int, int]
) -> tuple[int, int, int, int]:
    if padding == "valid":
        return (0, 0, 0, 0)
    if padding == "same":
        rows, columns = (d * (k - 1) for d, k in zip(dilation, kernel, strict=True))
        return (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2)
    rows, columns = _pair(padding)
    return (columns, columns, rows, rows)


def _pair(value: Any) -> tuple[int, int]:
    items = (value,) if isinstance(value, int) else tuple(value)
    return (int(items[0]), int(items[-1]))


def linear(t: Tracing, node: Node, a: dict[str, Any]) -> Value:
    """A linear layer over the last axis; its matrix is (targets, features)."""
    return _matrix(t, node, a["input"], a["weight"], transposed=False)


def product(t: Tracing, node: Node, a: dict[str, Any]) -> Value:
    """A matrix product; a linear layer where the right-hand matrix is fixed."""
    left = a.get("mat1", a.get("self", a.get("input")))
    right = a.get("mat2", a.get("other"))
    return _matrix(t, node, left, right, transposed=True)


def _matrix(t: Tracing, node: Node, image: Any, weight: Any, *, transposed: bool) -> Value:
    x = t.values.get(image)
    if t.constant(image) or not t.constant(weight) or t.graph.constants[weight].ndim != 2:
        return Lost(node, _why_no_rule(node))
    if not isinstance(x, Map):
        return x if isinstance(x, Lost) else Lost(node, "multiplies what is no map")
    last = len(x.shape) - 1
    if any(axis != last for axis in x.axes):
        return Lost(node, "is a linear layer over another axis than that of channels")
    matrix = t.graph.constants[weight]
    t.path[node] = (image,)
    mixer = Mixer(node, image, x, matrix.T if transposed else matrix, convolution=False)
    return t.make(mixer, last)


# Sums, differences, products, quotients ------------------------------------------------------


def add(t: Tracing, node: Node, a: dict[str, Any]) -> Value:
    """A residual add; with a constant or a statistic, a shift."""
    return _sum(t, node, a["self"], a["other"], 1.0, float(a.get("alpha", 1)))


def subtract(t: Tracing, node: Node, a: dict[str, Any]) -> Value:
    """A difference: an add whose second operand has the factor -1."""
    return _sum(t, node, a["self"], a["other"], 1.0, -float(a.get("alpha", 1)))


def subtract_from(t: Tracing, node: Node, a: dict[str, Any]) -> Value:
    """A difference with its operands the other way round."""
    return _sum(t, node, a["self"], a["other"], -float(a.get("alpha", 1)), 1.0)


def _sum(t: Tracing, node: Node, left: Any, right: Any, first: float, second: float) -> Value:
    one, two = _value(t, left), _value(t, right)
    if isinstance(one, Map) and isinstance(two, Map):
        t.path[node] = (left, right)
        if not one.strands and not two.strands:
            return nowhere(shape_of(node))
        same = _same_channels(t, one, two, node)
        if same is not None:
            return _join(
                t,
                node,
                left,
                right,
                same,
                lambda pair: first * pair[..., 0] + second * pair[..., 1],
                linear=True,
            )
        shape = shape_of(node)
        wide = tuple(
            Operand(source, _broadcast(value, node, source), sign)
            for source, value, sign in ((left, one, first), (right, two, second))
        )
        axis = _sum_axis(wide[0].map, wide[1].map)
        if axis is None:
            return Lost(node, "adds tensors whose channels lie along different axes")
        if len(shape) < 2:
            return Lost(node, "adds what is no map")
        return t.make(Add(node, (wide[0], wide[1])), axis)
    for value, other, source, added, sign, other_sign in (
        (one, two, left, right, first, second),
        (two, one, right, left, second, first),
    ):
        if isinstance(value, Map) and (isinstance(other, Statistic) or t.constant(added)):
            if _spreads_channel(value, node):
                return Lost(node, "gives one channel a different shift at several places")
            value = _broadcast(value, node, source)
            t.path[node] = (source,)

            def affine(
                values: Values, sign: float = sign, added: Any = added, times: float = other_sign
            ) -> tuple[Tensor | None, Tensor | None]:
                factor = None if sign == 1 else torch.tensor(sign)
                return factor, times * _tensor(values, added)

            return value.then(Kind.AFFINE, node, source, affine=affine, constant=t.constant(added))
    return _no_map(node, one, two, "adds a map to a tensor that belongs to no channel")


def _value(t: Tracing, arg: Any) -> Value:
    return t.values.get(arg) if isinstance(arg, Node) else arg


def _tensor(values: Values, arg: Any) -> Tensor:
    value = values[arg] if isinstance(arg, Node) else arg
    return value if isinstance(value, Tensor) else torch.tensor(float(value))


def _no_map(node: Node, one: Value, two: Value, reason: str) -> Value:
    """The value of an operation on two tensors that are not both maps."""
    plain = (Statistic, int, float, Tensor, type(None))
    lost = _first_lost(one, two)
    if lost is not None:
        return lost
    if isinstance(one, plain) and isinstance(two, plain):
        return Statistic(shape_of(node))
    return Lost(node, reason)


def _sum_axis(one: Map, two: Map) -> int | None:
    axes = set(one.axes) | set(two.axes)
    if len(axes) > 1:
        return None
    return axes.pop() if axes else one.axis


def _broadcast(value: Map, node: Node, source: Node) -> Map:
    """A map as it is when broadcast to the shape of a result."""
    shape = shape_of(node)
    if value.shape == shape:
        return value
    missing = len(shape) - len(value.shape)
    numbers = value.numbers.reshape(*[1] * missing, *value.numbers.shape)
    wide = replace(value, numbers=numbers, shape=(*[1] * missing, *value.shape))
    spatial = tuple(n for axis, n in enumerate(shape) if axis and axis not in wide.channel_axes)
    changed = wide.then(
        Kind.SPATIAL, node, source, change=lambda x: x.expand(*x.shape[:2], *spatial)
    )
    return replace(changed, shape=shape)


def _spreads_channel(value: Map, node: Node) -> bool:
    """Whether a result repeats a map's only channel along the axis of channels."""
    shape = shape_of(node)
    if not value.strands or value.axes or len(shape) != len(value.shape):
        return False
    return any(shape[axis] != value.shape[axis] for axis in value.channel_axes)


def _same_channels(t: Tracing, one: Map, two: Map, node: Node) -> tuple[Map, Map] | None:
    """Both maps, if each element of both comes from the same channel of the same maker."""
    shape = shape_of(node)
    if len(one.shape) != len(two.shape) or not one.strands or not two.strands:
        return None
    numbers = torch.broadcast_tensors(one.numbers, two.numbers)
    if not torch.equal(numbers[0] % LANE, numbers[1] % LANE):
        return None
    makers = []
    for value, own in zip((one, two), numbers, strict=True):
        of_lane = torch.tensor([s.maker for s in value.strands])
        makers.append(torch.where(own < 0, own, of_lane[(own // LANE).clamp(min=0)]))
    if not torch.equal(makers[0], makers[1]):
        return None
    if not torch.equal(numbers[0], numbers[1]):
        return None
    return replace(one, shape=shape), replace(two, shape=shape)


def _join(
    t: Tracing,
    node: Node,
    left: Node,
    right: Node,
    maps: tuple[Map, Map],
    change: Callable[[Tensor], Tensor],
    *,
    linear: bool,
) -> Map:
    """One map from two ways out of the same channels; they part where their steps do."""
    one, two = maps
    strands = []
    for lane, (a, b) in enumerate(zip(one.strands, two.strands, strict=True)):
        shared = 0
        while shared < min(len(a.steps), len(b.steps)) and a.steps[shared] is b.steps[shared]:
            shared += 1
        branches = (a.steps[shared:], b.steps[shared:])
        parting = next((branch[0] for branch in branches if branch), None)
        step = Step(
            Kind.SPATIAL if linear else Kind.NONLINEAR,
            node,
            left if parting is None else parting.source,
            one if parting is None else parting.input,
            lane if parting is None else parting.lane,
            change=change,
            branches=branches,
        )
        strands.append(Strand(a.maker, (*a.steps[:shared], step)))
    return Map(one.numbers, shape_of(node), tuple(strands))


def multiply(t: Tracing, node: Node, a: dict[str, Any]) -> Value:
    """A product: of a map with a constant, a gate, or itself behind an activation."""
    left, right = a["self"], a["other"]
    one, two = _value(t, left), _value(t, right)
    for value, other, source, by in ((one, two, left, right), (two, one, right, left)):
        if not isinstance(value, Map):
            continue
        if t.constant(by) or isinstance(other, Statistic) or _gates(t, node, value, source, by):
            return _scaled(t, node, value, source, by)
    if isinstance(one, Map) and isinstance(two, Map):
        t.path[node] = (left, right)
        same = _same_channels(t, one, two, node)
        if same is not None:
            return _join(t, node, left, right, same, lambda p: p[..., 0] * p[..., 1], linear=False)
        return Lost(node, "multiplies two maps, neither of which is a gate for the other")
    return _no_map(node, one, two, "multiplies tensors that belong to no channel")


def _scaled(t: Tracing, node: Node, value: Map, source: Node, by: Any) -> Value:
    if _spreads_channel(value, node):
        return Lost(node, "gives one channel a different factor at several places")
    value = _broadcast(value, node, source)
    t.path[node] = (source,)
    return value.then(
        Kind.AFFINE,
        node,
        source,
        affine=lambda values: (_tensor(values, by), None),
        constant=t.constant(by),
    )


def _gates(t: Tracing, node: Node, value: Map, source: Node, by: Any) -> bool:
    """Whether `by` is a gate for `value`.

    It is if it is smaller, the same at all positions or for all channels; if it is computed from
    `value`'s own tensor by more than an activation; or if it comes out of a sigmoid and the other
    does not.
    """
    other = t.values.get(by)
    size, other_size = (math.prod(shape_of(n)) for n in (source, by))
    if other_size != size:
        return other_size < size
    if isinstance(other, Map) and _same_channels(t, value, other, node) is not None:
        return False
    if _depends(by, source):
        return True
    if _depends(source, by):
        return False
    return _squashed(by) and not _squashed(source)


def _depends(node: Node, ancestor: Node) -> bool:
    seen, stack = set(), [node]
    while stack:
        current = stack.pop()
        if current is ancestor:
            return True
        if current not in seen:
            seen.add(current)
            stack.extend(current.all_input_nodes)
    return False


def _squashed(node: Node) -> bool:
    packet = getattr(node.target, "overloadpacket", None)
    if packet in (aten.clone, aten.view, aten.expand, aten.alias):
        return _squashed(node.all_input_nodes[0])
    return packet in (aten.sigmoid, aten.hardsigmoid, aten.softmax, aten._softmax, aten.tanh)


def divide(t: Tracing, node: Node, a: dict[str, Any]) -> Value:
    """A quotient; what a map is divided by is held, like a gate."""
    if a.get("rounding_mode") is not None:
        return Lost(node, "rounds")
    left, right = a["self"], a["other"]
    one, two = _value(t, left), _value(t, right)
    if isinstance(one, Map) and math.prod(shape_of(node)) == math.prod(one.shape):
        t.path[node] = (left,)
        return one.then(
            Kind.AFFINE,
            node,
            left,
            affine=lambda values: (1.0 / _tensor(values, right), None),
            constant=t.constant(right),
        )
    if isinstance(two, Map) and not isinstance(left, Node):
        t.path[node] = (right,)
        return two.then(Kind.NONLINEAR, node, right, change=lambda x: left / x)
    return _no_map(node, one, two, "divides by a map")


def add_product(t: Tracing, node: Node, a: dict[str, Any]) -> Value:
    """`constant + value * tensor1 * tensor2`, one of the tensors a map, the other a constant."""
    value = float(a.get("value", 1))
    for source, by in ((a["tensor1"], a["tensor2"]), (a["tensor2"], a["tensor1"])):
        x = t.values.get(source)
        if isinstance(x, Map) and t.constant(by) and t.constant(a["self"]):
            t.path[node] = (source,)
            return x.then(
                Kind.AFFINE,
                node,
                source,
                affine=lambda values, by=by: (
                    value * _tensor(values, by),
                    _tensor(values, a["self"]),
                ),
                constant=True,
            )
    return _first_lost(*(t.values.get(n) for n in node.all_input_nodes)) or Lost(
        node, "adds a product of tensors that are no parameters"
    )


def negate(t: Tracing, node: Node, a: dict[str, Any]) -> Value:
    """The sign turned."""
    return _map_or_lost(
        t,
        node,
        a["self"],
        lambda x: x.then(
            Kind.AFFINE,
            node,
            a["self"],
            affine=lambda values: (torch.tensor(-1.0), None),
            constant=True,
        ),
    )


# Normalisation -------------------------------------------------------------------------------


def batch_norm(t: Tracing, node: Node, a: dict[str, Any]) -> Value:
    """Normalisation by stored statistics: a factor and a shift per channel of axis 1."""

    def affine(values: Values) -> tuple[Tensor | None, Tensor | None]:
        held = {
            key: values[a[key]]
            for key in ("weight", "bias", "running_mean", "running_var")
            if isinstance(a.get(key), Node)
        }
        factor = torch.rsqrt(held["running_var"] + a["eps"])
        if "weight" in held:
            factor = factor * held["weight"]
        shift = -held["running_mean"] * factor
        if "bias" in held:
            shift = shift + held["bias"]
        axes = [1] * (len(shape_of(node_input)) - 2)
        return factor.reshape(1, -1, *axes), shift.reshape(1, -1, *axes)

    node_input = a["input"]
    return _map_or_lost(
        t,
        node,
        node_input,
        lambda x: [x.then(Kind.AFFINE, node, node_input, affine=affine, constant=True), None, None],
    )


def layer_norm(t: Tracing, node: Node, a: dict[str, Any]) -> Value:
    """Normalisation over the last axes by statistics of the image."""
    axes = tuple(range(-len(a["normalized_shape"]), 0))
    return _normalised(
        t,
        node,
        a,
        lambda x: (x.mean(axes, keepdim=True), x.var(axes, correction=0, keepdim=True)),
        lambda w: w,
    )


def group_norm(t: Tracing, node: Node, a: dict[str, Any]) -> Value:
    """Normalisation over groups of channels by statistics of the image."""

    def statistics(x: Tensor) -> tuple[Tensor, Tensor]:
        grouped = x.reshape(len(x), a["num_groups"], -1)
        each = x.shape[1] // a["num_groups"]
        shape = (len(x), -1, *[1] * (x.ndim - 2))
        mean = grouped.mean(-1).repeat_interleave(each, 1).reshape(shape)
        return mean, grouped.var(-1, correction=0).repeat_interleave(each, 1).reshape(shape)

    return _normalised(
        t, node, a, statistics, lambda w: w.reshape(1, -1, *[1] * (len(shape_of(a["input"])) - 2))
    )


def instance_norm(t: Tracing, node: Node, a: dict[str, Any]) -> Value:
    """Normalisation of each map by its own mean and variance."""
    if not a["use_input_stats"]:
        return batch_norm(t, node, a)

    def statistics(x: Tensor) -> tuple[Tensor, Tensor]:
        axes = tuple(range(2, x.ndim))
        return x.mean(axes, keepdim=True), x.var(axes, correction=0, keepdim=True)

    return _normalised(
        t, node, a, statistics, lambda w: w.reshape(1, -1, *[1] * (len(shape_of(a["input"])) - 2))
    )


def _normalised(
    t: Tracing,
    node: Node,
    a: dict[str, Any],
    statistics: Callable[[Tensor], tuple[Tensor, Tensor]],
    shaped: Callable[[Tensor], Tensor],
) -> Value:
    source = a["input"]

    def affine(values: Values) -> tuple[Tensor | None, Tensor | None]:
        mean, variance = statistics(values[source])
        factor = torch.rsqrt(variance + a["eps"])
        if a.get("weight") is not None:
            factor = factor * shaped(values[a["weight"]])
        shift = -mean * factor
        if a.get("bias") is not None:
            shift = shift + shaped(values[a["bias"]])
        return factor, shift

    return _map_or_lost(t, node, source, lambda x: x.then(Kind.AFFINE, node, source, affine=affine))


def _map_or_lost(t: Tracing, node: Node, source: Node, then: Callable[[Map], Value]) -> Value:
    value = t.values.get(source)
    if isinstance(value, Map):
        t.path[node] = (source,)
        return then(value)
    if isinstance(value, Statistic):
        return Statistic(shape_of(node))
    return value if isinstance(value, Lost) else Lost(node, "works on what is no map")


# Pointwise operations and pools --------------------------------------------------------------


def pointwise(t: Tracing, node: Node, a: dict[str, Any]) -> Value:
    """A function of each value alone, its parameters the same for all."""
    source = _first(a)
    if any(
        not t.constant(arg) or t.graph.constants[arg].numel() != 1
        for arg in node.all_input_nodes
        if arg is not source
    ):
        return _first_lost(t.values.get(source)) or Lost(
            node, "is a function of two tensors, or has parameters that differ between channels"
        )
    return _map_or_lost(
        t, node, source, lambda x: x.then(Kind.NONLINEAR, node, source, change=_called(t, node))
    )


def identity(t: Tracing, node: Node, a: dict[str, Any]) -> Value:
    """What changes nothing in eval mode: dropout, copies, casts between float types."""
    source = _first(a)
    value = t.values.get(source)
    if a.get("train", a.get("training")) is True:
        return Lost(node, "drops values at random, in eval mode too")
    t.path[node] = (source,)
    return value


def prelu(t: Tracing, node: Node, a: dict[str, Any]) -> Value:
    """A leaky ReLU with one parameter, or one per channel."""
    weight = t.graph.constants.get(a["weight"])
    if weight is None or weight.numel() == 1:
        return pointwise(t, node, a)
    source = a["self"]

    def then(x: Map) -> Value:
        def positive(values: Values) -> tuple[Tensor | None, Tensor | None]:
            slope = weight.reshape(1, -1, *[1] * (len(x.shape) - 2))
            return torch.where(values[source] > 0, torch.ones_like(slope), slope), None

        return x.then(Kind.NONLINEAR, node, source, affine=positive)

    return _map_or_lost(t, node, source, then)


def pool(t: Tracing, node: Node, a: dict[str, Any]) -> Value:
    """Average pooling, resizing: linear in each map."""
    return _pooled(t, node, a, Kind.SPATIAL)


def maximum_pool(t: Tracing, node: Node, a: dict[str, Any]) -> Value:
    """Maximum pooling."""
    return _pooled(t, node, a, Kind.NONLINEAR)


def maximum_pool_with_indices(t: Tracing, node: Node, a: dict[str, Any]) -> Value:
    """Maximum pooling that also says where the maxima were."""
    value = _pooled(t, node, a, Kind.NONLINEAR, item=0)
    return [value, None] if isinstance(value, Map) else value


def _pooled(
    t: Tracing, node: Node, a: dict[str, Any], kind: Kind, item: int | None = None
) -> Value:
    source = _first(a)
    value = t.values.get(source)
    if isinstance(value, Map) and any(axis != 1 for axis in value.axes):
        return Lost(node, "pools over the axis of channels")
    result = node.meta["val"] if item is None else node.meta["val"][item]
    shape = (1, *(int(size) for size in result.shape[1:]))
    return _map_or_lost(
        t,
        node,
        source,
        lambda x: replace(x.then(kind, node, source, change=_called(t, node, item)), shape=shape),
    )


def _called(t: Tracing, node: Node, item: int | None = None) -> Callable[[Tensor], Tensor]:
    """The operation as a function of its first operand."""
    target: Any = node.target
    arguments = [t.number(arg) for arg in node.args[1:]]
    keywords = {key: t.number(arg) for key, arg in node.kwargs.items()}

    def change(x: Tensor) -> Tensor:
        result = target(x, *arguments, **keywords)
        return result if item is None else result[item]  # type: ignore[no-any-return]

    return change


def _first(a: dict[str, Any]) -> Any:
    return a["self"] if "self" in a else a["input"]


def mean(t: Tracing, node: Node, a: dict[str, Any]) -> Value:
    """The mean over axes: a pool over positions, a statistic over channels."""
    return _reduced(t, node, a, Kind.SPATIAL, lambda x, axes: x.mean(axes))


def total(t: Tracing, node: Node, a: dict[str, Any]) -> Value:
    """The sum over axes."""
    return _reduced(t, node, a, Kind.SPATIAL, lambda x, axes: x.sum(axes))


def largest(t: Tracing, node: Node, a: dict[str, Any]) -> Value:
    """The maximum over axes."""
    value = _reduced(t, node, a, Kind.NONLINEAR, lambda x, axes: x.amax(axes))
    return [value, None] if isinstance(node.meta["val"], (tuple, list)) else value


def spread_of(t: Tracing, node: Node, a: dict[str, Any]) -> Value:
    """Variance, standard deviation or norm over axes."""

    def change(x: Tensor, axes: tuple[int, ...]) -> Tensor:
        kept = {
            k: v for k, v in a.items() if k in ("ord", "correction", "unbiased") and v is not None
        }
        target: Any = getattr(node.target, "overloadpacket", node.target)
        return target(x, dim=list(axes), **kept)  # type: ignore[no-any-return]

    return _reduced(t, node, a, Kind.NONLINEAR, change)


def mean_and_variance(t: Tracing, node: Node, a: dict[str, Any]) -> Value:
    """Both statistics of a hand-written normalisation."""
    value = t.values.get(_first(a))
    axes = a.get("dim")
    if isinstance(value, Map) and axes and set(value.axes) <= {x % len(value.shape) for x in axes}:
        shapes = [(1, *(int(s) for s in item.shape[1:])) for item in node.meta["val"]]
        return [Statistic(shape) for shape in shapes]
    return _first_lost(value) or Lost(node, "takes a variance over some axes alone")


def _reduced(
    t: Tracing,
    node: Node,
    a: dict[str, Any],
    kind: Kind,
    change: Callable[[Tensor, tuple[int, ...]], Tensor],
) -> Value:
    source = _first(a)
    value = t.values.get(source)
    if not isinstance(value, Map):
        return _map_or_lost(t, node, source, lambda x: x)
    given = a.get("dim")
    given = [given] if isinstance(given, int) else given
    rank = len(value.shape)
    axes = sorted({axis % rank for axis in given}) if given else list(range(rank))
    if 0 in axes:
        return Lost(node, "reduces over images")
    first = node.meta["val"][0] if isinstance(node.meta["val"], (tuple, list)) else node.meta["val"]
    shape = (1, *(int(size) for size in first.shape[1:]))
    if any(axis in value.axes or axis == value.axis for axis in axes):
        return (
            Statistic(shape)
            if set(value.axes) <= set(axes)
            else Lost(node, "reduces over channels")
        )
    inner = tuple(value.spatial_axis(axis) for axis in axes)
    reduced = value.then(kind, node, source, change=lambda x: change(x, inner))
    t.path[node] = (source,)
    if a.get("keepdim"):
        return replace(reduced, shape=shape)
    numbers = reduced.numbers.squeeze(axes)
    return replace(reduced, numbers=numbers, shape=shape)


def padding(t: Tracing, node: Node, a: dict[str, Any]) -> Value:
    """Padding of positions; padding of channels with zeros adds channels that are no neurons."""
    source = _first(a)
    value = t.values.get(source)
    if not isinstance(value, Map):
        return _map_or_lost(t, node, source, lambda x: x)
    pads, rank = list(a.get("pad", a.get("padding"))), len(value.shape)  # type: ignore[arg-type]
    mode, fill = a.get("mode", "constant"), float(a.get("value") or 0)
    padded = {rank - 1 - n // 2 for n, size in enumerate(pads) if size}
    t.path[node] = (source,)
    if padded & set(value.axes) or (value.axis in padded):
        if padded - {value.axis} or mode != "constant" or fill:
            return Lost(node, "pads channels with something else than zeros, or positions too")
        return compressed(F.pad(value.full(), pads, value=NO_NEURON), value.strands)
    inner = [0] * (2 * len(value.spatial))
    for axis in padded:
        at = 2 * (len(value.spatial) - 1 - (value.spatial_axis(axis) - 2))
        inner[at : at + 2] = pads[2 * (rank - 1 - axis) : 2 * (rank - 1 - axis) + 2]
    named = str(node.target)
    if "reflection" in named or "replication" in named:
        mode = "reflect" if "reflection" in named else "replicate"
    extra = {"value": fill} if mode == "constant" else {}
    kind = Kind.NONLINEAR if fill else Kind.SPATIAL
    shape = shape_of(node)
    return replace(
        value.then(kind, node, source, change=lambda x: F.pad(x, inner, mode=mode, **extra)),
        shape=shape,
    )


# Moves ---------------------------------------------------------------------------------------


def move(t: Tracing, node: Node, a: dict[str, Any]) -> Value:
    """An operation that only moves elements: run on the channel numbers."""
    source = _first(a)
    value = t.values.get(source)
    if isinstance(value, Statistic) and not isinstance(node.meta["val"], (list, tuple)):
        return Statistic(shape_of(node))
    if not isinstance(value, Map):
        return value if isinstance(value, Lost) else Lost(node, "moves what is no map")
    t.path[node] = (source,)
    target: Any = node.target
    arguments = [t.number(arg) for arg in node.args[1:]]
    keywords = {key: t.number(arg) for key, arg in node.kwargs.items()}
    if target in (aten.view.default, aten._unsafe_view.default):
        target = aten.reshape.default
    moved = target(value.full(), *arguments, **keywords)
    places = target(value.places(), *arguments, **keywords)
    if isinstance(moved, (list, tuple)):
        return [
            _ordered(node, source, value, _moved(node, item, value.strands), place)
            for item, place in zip(moved, places, strict=True)
        ]
    return _ordered(node, source, value, _moved(node, moved, value.strands), places)


def _moved(node: Node, moved: Tensor, strands: tuple[Strand, ...]) -> Map | Lost:
    if moved.ndim == 0 or moved.shape[0] != 1:
        return Lost(node, "moves positions or channels into the axis of images")
    return compressed(moved, strands)


def _ordered(node: Node, source: Node, before: Map, moved: Map | Lost, places: Tensor) -> Value:
    """What was moved, with a step where that changed the order of a channel's positions.

    `places` tells which of its channel's positions each element of the result was before.
    """
    if isinstance(moved, Lost) or not moved.strands:
        return moved
    order = moved.order_of(places)
    if order is None:
        return Lost(node, "moves the positions of some channels in another way than of others")
    if torch.equal(order, torch.arange(before.positions)):
        return moved
    strands = []
    for strand in moved.strands:
        lane = before.strands.index(strand)
        step = Step(
            Kind.SPATIAL, node, source, before, lane,
            change=lambda x: x.flatten(2)[:, :, order.to(x.device)],
        )  # fmt: skip
        strands.append(replace(strand, steps=(*strand.steps, step)))
    return replace(moved, strands=tuple(strands))


def slice_(t: Tracing, node: Node, a: dict[str, Any]) -> Value:
    """A slice of channels moves them; a slice of positions changes the map's size."""
    source = a["self"]
    value = t.values.get(source)
    if not isinstance(value, Map):
        return move(t, node, a)
    axis = a["dim"] % len(value.shape)
    if axis == 0:
        whole = a.get("start") in (None, 0) and a.get("end") in (None, 2**63 - 1) and a["step"] == 1
        t.path[node] = (source,)
        return value if whole else Lost(node, "picks some images of the batch")
    if axis in value.axes or axis == value.axis:
        return move(t, node, a)
    inner = value.spatial_axis(axis)
    start, end, step = a.get("start"), a.get("end"), a["step"]
    t.path[node] = (source,)
    return replace(
        value.then(
            Kind.SPATIAL,
            node,
            source,
            change=lambda x: aten.slice.Tensor(x, inner, start, end, step),
        ),
        shape=shape_of(node),
    )


def turn(t: Tracing, node: Node, a: dict[str, Any]) -> Value:
    """A flip or roll of positions, or of channels."""
    value = t.values.get(a["self"])
    if not isinstance(value, Map) or not a["dims"]:
        return move(t, node, a)
    axes = [axis % len(value.shape) for axis in a["dims"]]
    if all(axis in value.axes for axis in axes):
        return move(t, node, a)
    if 0 in axes or any(axis in value.axes for axis in axes):
        return Lost(node, "turns channels and positions at once")
    inner = [value.spatial_axis(axis) for axis in axes]
    target: Any = node.target
    shifts = [a["shifts"]] if "shifts" in a else []
    t.path[node] = (a["self"],)
    return value.then(Kind.SPATIAL, node, a["self"], change=lambda x: target(x, *shifts, inner))


def expand(t: Tracing, node: Node, a: dict[str, Any]) -> Value:
    """A map repeated along axes of size one."""
    value = t.values.get(a["self"])
    if isinstance(value, Map) and _spreads_channel(value, node):
        return Lost(node, "repeats one channel at several places")
    return _map_or_lost(t, node, a["self"], lambda x: _broadcast(x, node, a["self"]))


def concatenate(t: Tracing, node: Node, a: dict[str, Any]) -> Value:
    """Maps side by side; each keeps its channels."""
    pieces: list[Tensor] = []
    strands: list[Strand] = []
    sources: list[Node] = []
    for source in a["tensors"]:
        value = t.values.get(source)
        if t.constant(source):
            value = nowhere(tuple(t.graph.constants[source].shape))
        elif _zeros(source):
            value = nowhere(shape_of(source))
        if not isinstance(value, Map):
            return (
                value
                if isinstance(value, Lost)
                else Lost(node, "concatenates a map with what is none")
            )
        if value.strands or not t.constant(source):
            sources.append(source)
        full = value.full()
        pieces.append(torch.where(full < 0, full, full + len(strands) * LANE))
        strands.extend(value.strands)
    t.path[node] = tuple(sources)
    join = torch.stack if getattr(node.target, "overloadpacket", None) is aten.stack else torch.cat
    return _moved(node, join(pieces, a["dim"]), tuple(strands))


def _zeros(node: Node) -> bool:
    packet = getattr(node.target, "overloadpacket", None)
    return packet in (aten.zeros, aten.new_zeros, aten.zeros_like, aten.full, aten.new_full)


def softmax(t: Tracing, node: Node, a: dict[str, Any]) -> Value:
    """A softmax over channels mixes them; over positions it belongs to attention."""
    value = t.values.get(_first(a))
    if isinstance(value, (Lost, Statistic)):
        return value
    return Lost(node, "is a softmax within the network, as attention has it")


_SIZES = {
    aten.sym_size.int, operator.mul, operator.add, operator.sub, operator.floordiv,
    operator.truediv, operator.mod, operator.neg, torch.sym_int, torch.sym_float, math.floor,
    math.ceil,
}  # fmt: skip

# The table: every operation that the way from the image to the logits may hold.
RULES: dict[Any, Rule] = {
    # mixers
    aten.conv2d: convolution, aten.convolution: convolution, aten.linear: linear,
    aten.mm: product, aten.matmul: product, aten.addmm: product,
    # sums and products
    aten.add: add, aten.sub: subtract, aten.rsub: subtract_from, aten.mul: multiply,
    aten.div: divide, aten.addcmul: add_product, aten.neg: negate,
    # normalisation
    aten._native_batch_norm_legit_no_training: batch_norm, aten.layer_norm: layer_norm,
    aten.group_norm: group_norm, aten.instance_norm: instance_norm,
    # activations and other functions of one value
    **dict.fromkeys(
        (
            aten.relu, aten.relu6, aten.hardtanh, aten.leaky_relu, aten.elu, aten.selu, aten.celu,
            aten.gelu, aten.silu, aten.mish, aten.softplus, aten.sigmoid,
            aten.hardsigmoid, aten.hardswish, aten.log_sigmoid, aten.tanh, aten.hardshrink,
            aten.softshrink, aten.threshold, aten.clamp, aten.clamp_min, aten.clamp_max, aten.abs,
            aten.exp, aten.expm1, aten.log, aten.log1p, aten.sqrt, aten.rsqrt, aten.pow,
            aten.square, aten.reciprocal, aten.sin, aten.cos, aten.erf, aten.sign, aten.rrelu,
        ),
        pointwise,
    ),
    aten.prelu: prelu, aten._prelu_kernel: prelu,
    # what changes nothing in eval mode
    **dict.fromkeys(
        (
            aten.dropout, aten.feature_dropout, aten.alpha_dropout, aten.feature_alpha_dropout,
            aten.native_dropout, aten.clone, aten.alias, aten.detach, aten.contiguous,
            aten._to_copy, aten.to, aten.lift_fresh, aten.lift_fresh_copy, aten.type_as,
        ),
        identity,
    ),
    # pools and other changes of a map's positions
    aten.avg_pool2d: pool, aten.adaptive_avg_pool2d: pool, aten._adaptive_avg_pool2d: pool,
    aten.upsample_nearest2d: pool, aten.upsample_bilinear2d: pool, aten.upsample_bicubic2d: pool,
    aten._upsample_bilinear2d_aa: pool, aten._upsample_bicubic2d_aa: pool,
    aten._upsample_nearest_exact2d: pool,
    aten.max_pool2d: maximum_pool, aten.max_pool2d_with_indices: maximum_pool_with_indices,
    aten.adaptive_max_pool2d: maximum_pool_with_indices,
    aten.mean: mean, aten.sum: total, aten.amax: largest, aten.max: largest, aten.amin: spread_of,
    aten.var: spread_of, aten.std: spread_of, aten.linalg_vector_norm: spread_of,
    aten.norm: spread_of, aten.var_mean: mean_and_variance,
    aten.constant_pad_nd: padding, aten.pad: padding, aten.reflection_pad2d: padding,
    aten.replication_pad2d: padding,
    # moves
    **dict.fromkeys(
        (
            aten.view, aten._unsafe_view, aten.reshape, aten.flatten, aten.unflatten, aten.permute,
            aten.transpose, aten.t, aten.movedim, aten.squeeze, aten.unsqueeze, aten.select,
            aten.index_select, aten.split, aten.split_with_sizes, aten.chunk, aten.unbind,
            aten.narrow, aten.channel_shuffle, aten.native_channel_shuffle,
            aten.pixel_unshuffle,
        ),
        move,
    ),
    aten.slice: slice_, aten.flip: turn, aten.roll: turn, aten.expand: expand,
    aten.cat: concatenate, aten.stack: concatenate,
    aten.softmax: softmax, aten._softmax: softmax, aten.log_softmax: softmax,
}  # fmt: skip

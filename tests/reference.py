"""Activations and influences once more, slowly: docs/method.md, sections 1 to 3.

Written from the definition, in numpy and loops over channels, in float64, one image at a time.
Nothing here is shared with the package, PyTorch least of all. A network is a `Description`: a list
of operations in forward order, each with the places of its inputs; `small_networks` makes the same
network in PyTorch. Sections 4 and 5 are in `reference_ranking`.

A **maker** is a mixer, an add or a chosen layer. For every channel of every operation's result
three things are known, apart from its value:

- `origin`: the maker and its channel that it comes from, or None;
- `linear`: its value without what was added to it behind the last activation, pool of maxima, or
  maker;
- `factor`: the product of the constant factors, gates and run-time factors since the maker.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Origin = tuple[int, int] | None


@dataclass(frozen=True)
class Operation:
    """One operation: what it is, where its inputs are, its parameters.

    `shares` is the place of the operation whose module it calls once more; `functional` means
    that no module of its own runs it.
    """

    kind: str
    inputs: tuple[int, ...]
    settings: dict[str, Any] = field(default_factory=dict)
    functional: bool = False
    shares: int | None = None


@dataclass(frozen=True)
class Description:
    """A network: operation 0 is the image, the last one makes the logits."""

    operations: tuple[Operation, ...]
    shape: tuple[int, int, int]


MIXERS = ("conv", "linear")
ADDS = ("add", "subtract")
# Operations that multiply by a constant, or change nothing.
CONSTANT = ("bn", "scale", "identity", "negate", "shuffle", "pick")


class Layer(NamedTuple):
    """A layer: the operation whose result it is, and whether it was chosen."""

    operation: int
    chosen: bool


class Flow(NamedTuple):
    """What is known of an operation's result, for one image; see the module's text."""

    value: Array
    linear: Array
    factor: Array
    origin: tuple[Origin, ...]


class Contribution(NamedTuple):
    """One term of one target channel: its source and the map it adds."""

    source: tuple[int, int]
    map: Array


# Section 1 ----------------------------------------------------------------------------------


def path(description: Description) -> set[int]:
    """The operations on the way from the logits back to the image, gates left out."""
    found: set[int] = set()
    waiting = [len(description.operations) - 1]
    while waiting:
        place = waiting.pop()
        if place in found:
            continue
        found.add(place)
        operation = description.operations[place]
        waiting.extend(operation.inputs[:1] if operation.kind == "gate" else operation.inputs)
    return found


def layers(description: Description, chosen: Sequence[int]) -> list[Layer]:
    """All layers in forward order: the chosen ones, and what another mixer reads unchosen."""
    flows = flow(description, np.zeros(description.shape), chosen)
    on_path = path(description)
    read: set[int] = set()
    for place in on_path:
        if description.operations[place].kind in MIXERS:
            (source,) = description.operations[place].inputs
            read.update(origin[0] for origin in flows[source].origin if origin is not None)
    return [Layer(place, place in chosen) for place in sorted(read | set(chosen))]


def hops(description: Description, chosen: Sequence[int]) -> set[tuple[int, int]]:
    """Pairs of layer numbers (source, target) with a term."""
    image = np.zeros(description.shape)
    found = set()
    every = layers(description, chosen)
    for target in computed(every):
        for channel in contributions(description, image, chosen, target):
            for term in channel:
                found.add((term.source[0], target))
    return found


def computed(every: Sequence[Layer]) -> list[int]:
    """Numbers of the layers behind the first chosen one: the targets."""
    first = min(number for number, layer in enumerate(every) if layer.chosen)
    return list(range(first + 1, len(every)))


# The forward pass ---------------------------------------------------------------------------


def flow(description: Description, image: Array, chosen: Sequence[int]) -> list[Flow]:
    """Every operation's result, chosen layers as makers of their channels."""
    flows: list[Flow] = []
    for place in range(len(description.operations)):
        found = before_choice(description, image, flows, place)
        flows.append(made(place, found.value) if place in chosen else found)
    return flows


def made(place: int, value: Array) -> Flow:
    """A maker's own result."""
    origin = tuple((place, channel) for channel in range(len(value)))
    return Flow(value, value, np.ones((len(value), 1, 1)), origin)


def before_choice(description: Description, image: Array, flows: list[Flow], place: int) -> Flow:
    """An operation's result as it is where the operation is no chosen layer."""
    operation = description.operations[place]
    settings = operation.settings
    if operation.kind == "image":
        return Flow(image, image, np.ones((len(image), 1, 1)), (None,) * len(image))
    x = flows[operation.inputs[0]]
    kind = operation.kind
    if kind == "conv":
        value = np.stack(
            [
                np.sum([correlation(settings, x.value, j, i) for i in sources_of(settings, j)], 0)
                for j in range(len(settings["weight"]))
            ]
        )
        return made(place, value + column(settings["bias"]))
    if kind == "linear":
        value = np.array([float((w * x.value).sum()) for w in settings["weight"]])
        return made(place, column(value) + column(settings["bias"]))
    if kind in ADDS:
        sign = 1 if kind == "add" else -1
        return made(place, x.value + sign * flows[operation.inputs[1]].value)
    if kind == "bn":
        factor = column(settings["gamma"] / np.sqrt(settings["variance"] + settings["eps"]))
        shift = column(settings["beta"]) - column(settings["mean"]) * factor
        return Flow(x.value * factor + shift, x.linear * factor, x.factor * factor, x.origin)
    if kind == "scale":
        factor = column(settings["factor"])
        return Flow(x.value * factor, x.linear * factor, x.factor * factor, x.origin)
    if kind == "negate":
        return Flow(-x.value, -x.linear, -x.factor, x.origin)
    if kind == "layer_norm":
        deviation = np.sqrt(x.value.var(0) + settings["eps"])
        factor = column(settings["gamma"]) / deviation
        shift = column(settings["beta"]) - x.value.mean(0) * factor
        return Flow(x.value * factor + shift, x.linear * factor, x.factor * factor, x.origin)
    if kind == "gate":
        gate = flows[operation.inputs[1]].value
        return Flow(x.value * gate, x.linear * gate, x.factor * gate, x.origin)
    if kind in POINTWISE:
        value = POINTWISE[kind](x.value)
        return Flow(value, value, x.factor, x.origin)
    if kind == "prelu":
        value = np.where(x.value > 0, x.value, x.value * column(settings["slope"]))
        return Flow(value, value, x.factor, x.origin)
    if kind == "max_pool":
        value = pooled(x.value, settings, np.max, -np.inf)
        return Flow(value, value, x.factor, x.origin)
    if kind == "avg_pool":
        return Flow(
            pooled(x.value, settings, np.mean, 0.0),
            pooled(x.linear, settings, np.mean, 0.0),
            x.factor,
            x.origin,
        )
    if kind == "mean":
        mean = [m.mean((1, 2), keepdims=True) for m in (x.value, x.linear)]
        return Flow(mean[0], mean[1], x.factor, x.origin)
    if kind == "maximum":
        value = x.value.max((1, 2), keepdims=True)
        return Flow(value, value, x.factor, x.origin)
    if kind == "upsample":
        twice = [m.repeat(2, 1).repeat(2, 2) for m in (x.value, x.linear)]
        return Flow(twice[0], twice[1], x.factor, x.origin)
    if kind == "identity":
        return x
    if kind == "stride":
        return Flow(x.value[:, ::2, ::2], x.linear[:, ::2, ::2], x.factor, x.origin)
    if kind == "channel_mean":
        value = x.value.mean(0, keepdims=True)
        return Flow(value, value, np.ones((1, 1, 1)), (None,))
    if kind == "concat":
        parts = [flows[source] for source in operation.inputs]
        return Flow(
            np.concatenate([part.value for part in parts]),
            np.concatenate([part.linear for part in parts]),
            stacked([part.factor for part in parts]),
            tuple(origin for part in parts for origin in part.origin),
        )
    if kind == "pick":  # channels by number, which is slicing and shuffling both
        return picked(x, settings["channels"])
    if kind == "shuffle":
        each = len(x.value) // settings["groups"]
        return picked(x, [g * each + n for n in range(each) for g in range(settings["groups"])])
    if kind == "pad_channels":
        before, after = settings["before"], settings["after"]
        return Flow(
            np.pad(x.value, ((before, after), (0, 0), (0, 0))),
            np.pad(x.linear, ((before, after), (0, 0), (0, 0))),
            np.pad(x.factor, ((before, after), (0, 0), (0, 0)), constant_values=1),
            (None,) * before + x.origin + (None,) * after,
        )
    raise AssertionError(f"no operation {kind}")


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


POINTWISE = {
    "relu": lambda x: np.maximum(x, 0),
    "relu6": lambda x: np.clip(x, 0, 6),
    "silu": lambda x: x * sigmoid(x),
    "sigmoid": sigmoid,
    "clip01": lambda x: np.clip(x, 0, 1),
}


def column(values: npt.ArrayLike) -> Array:
    """One value per channel, to be broadcast over positions."""
    return np.asarray(values, np.float64).reshape(-1, 1, 1)


def stacked(factors: list[Array]) -> Array:
    height = max(f.shape[1] for f in factors)
    width = max(f.shape[2] for f in factors)
    return np.concatenate([np.broadcast_to(f, (len(f), height, width)) for f in factors])


def picked(x: Flow, order: Sequence[int]) -> Flow:
    numbers = list(order)
    origin = tuple(x.origin[n] for n in numbers)
    return Flow(x.value[numbers], x.linear[numbers], x.factor[numbers], origin)


def pooled(x: Array, settings: dict[str, Any], of: Any, fill: float) -> Array:
    size, stride, around = settings["size"], settings["stride"], settings["padding"]
    x = np.pad(x, ((0, 0), (around, around), (around, around)), constant_values=fill)
    height = (x.shape[1] - size) // stride + 1
    width = (x.shape[2] - size) // stride + 1
    found = np.zeros((len(x), height, width))
    for c in range(len(x)):
        for row in range(height):
            for at in range(width):
                top, left = row * stride, at * stride
                found[c, row, at] = of(x[c, top : top + size, left : left + size])
    return found


def sources_of(settings: dict[str, Any], j: int) -> range:
    """The input channels that a convolution's target channel reads: those of its group."""
    each = len(settings["weight"]) // settings["groups"]
    inputs = settings["weight"].shape[1]
    return range(j // each * inputs, (j // each + 1) * inputs)


def correlation(settings: dict[str, Any], x: Array, j: int, i: int) -> Array:
    """`K_ji * X_i` at every position of the convolution's output."""
    weight = settings["weight"][j, i - sources_of(settings, j).start]
    (top, bottom), (left, right) = settings["padding"]
    padded = np.pad(x[i], ((top, bottom), (left, right)))
    (down, along), (apart, beside) = settings["stride"], settings["dilation"]
    height = (padded.shape[0] - apart * (weight.shape[0] - 1) - 1) // down + 1
    width = (padded.shape[1] - beside * (weight.shape[1] - 1) - 1) // along + 1
    total = np.zeros((height, width))
    for row in range(weight.shape[0]):
        for at in range(weight.shape[1]):
            first, start = row * apart, at * beside
            total += (
                weight[row, at]
                * padded[
                    first : first + down * (height - 1) + 1 : down,
                    start : start + along * (width - 1) + 1 : along,
                ]
            )
    return total


# Section 2 ----------------------------------------------------------------------------------


def active(value: Array, mass: float) -> list[int]:
    """The channels that are active, in the order in which they are taken."""
    activation = [max(0.0, float(m.max())) for m in value]
    total = sum(activation)
    taken: list[int] = []
    running = 0.0
    if total == 0:
        return taken
    for channel in sorted(range(len(value)), key=lambda c: (-activation[c], c)):
        if activation[channel] == 0:  # rounding kept the sum below the mass; none is left
            break
        taken.append(channel)
        running += activation[channel] / total
        if running >= mass:
            break
    return taken


# Section 3 ----------------------------------------------------------------------------------


def contributions(
    description: Description, image: Array, chosen: Sequence[int], target: int | None
) -> list[list[Contribution]]:
    """All terms of every channel of a target layer (its number), or of the logits (None)."""
    every = layers(description, chosen)
    number = {layer.operation: n for n, layer in enumerate(every)}
    flows = flow(description, image, chosen)
    operations = description.operations
    readers = [
        [n for n, o in enumerate(operations) if place in o.inputs]
        for place in range(len(operations))
    ]

    def folded(mixer: int, c: int, end: int | None) -> float:
        """The constant factors directly behind a mixer, up to the target's own tensor."""
        scale, place = 1.0, mixer
        channel = c
        while place != end and len(readers[place]) == 1:
            reader = readers[place][0]
            operation = operations[reader]
            if operation.kind not in CONSTANT or (place in chosen and place != mixer):
                break
            if operation.kind == "pick":
                if channel not in operation.settings["channels"]:
                    break
                channel = operation.settings["channels"].index(channel)
            elif operation.kind == "shuffle":
                groups = operation.settings["groups"]
                each = len(flows[place].value) // groups
                channel = channel % each * groups + channel // each
            elif operation.kind == "bn":
                settings = operation.settings
                deviation = np.sqrt(settings["variance"][channel] + settings["eps"])
                scale *= settings["gamma"][channel] / deviation
            elif operation.kind == "scale":
                scale *= settings_at(operation.settings["factor"], channel)
            elif operation.kind == "negate":
                scale = -scale
            place = reader
        return float(scale)

    def mixed(mixer: int, j: int) -> list[Contribution]:
        operation = operations[mixer]
        x = flows[operation.inputs[0]]
        found = []
        inputs = (
            sources_of(operation.settings, j) if operation.kind == "conv" else range(len(x.value))
        )
        for i in inputs:
            origin = x.origin[i]
            if origin is None:
                continue
            if operation.kind == "conv":
                map_ = correlation(operation.settings, x.value, j, i)
            else:
                whole = (operation.settings["weight"][j][i] * x.value[i]).sum()
                map_ = np.full((1, 1), whole)
            found.append(Contribution((number[origin[0]], origin[1]), map_))
        return found

    def added(place: int, c: int) -> list[Contribution]:
        found = []
        kind = operations[place].kind
        signs = (1.0, 1.0 if kind == "add" else -1.0)
        for source, sign in zip(operations[place].inputs, signs, strict=True):
            operand = flows[source]
            own = c if len(operand.value) > 1 else 0
            found.extend(term_of(operand, own, sign))
        return found

    def term_of(operand: Flow, c: int, sign: float) -> list[Contribution]:
        origin = operand.origin[c]
        if origin is None:
            return []
        maker, channel = origin
        if maker in number:
            return [Contribution((number[maker], channel), sign * operand.linear[c])]
        terms = mixed(maker, channel) if operations[maker].kind in MIXERS else added(maker, channel)
        return [Contribution(t.source, sign * t.map * operand.factor[c]) for t in terms]

    if target is None:
        end = len(operations) - 1
        own, is_chosen = end, False
        under = flows[end]
    else:
        own, is_chosen = every[target]
        end = own
        under = before_choice(description, image, flows, own) if is_chosen else flows[own]

    found: list[list[Contribution]] = []
    for j in range(len(under.value)):
        origin = under.origin[j]
        if origin is None:
            found.append([])
            continue
        maker, channel = origin
        if maker in number and not (target is not None and maker == own):
            found.append([Contribution((number[maker], channel), under.linear[j])])
        elif operations[maker].kind in MIXERS:
            scale = folded(maker, channel, own if is_chosen else None)
            found.append([Contribution(t.source, scale * t.map) for t in mixed(maker, channel)])
        else:
            found.append(added(maker, channel))
    return found


def settings_at(values: npt.ArrayLike, channel: int) -> float:
    return float(np.asarray(values).reshape(-1)[channel])


def influences(terms: Sequence[Contribution]) -> dict[tuple[int, int], float]:
    """Each source's influence on a target: the largest value of its largest term."""
    found: dict[tuple[int, int], float] = {}
    for term in terms:
        value = float(term.map.max())
        found[term.source] = max(value, found.get(term.source, -np.inf))
    return found


def strongest(found: dict[tuple[int, int], float], k: int) -> list[tuple[int, int]]:
    """The k sources with the largest influence above 0, ties to the earlier, lower one."""
    ordered = sorted(found, key=lambda source: (-found[source], source))
    return [source for source in ordered if found[source] > 0][:k]

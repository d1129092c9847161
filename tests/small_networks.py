"""Small networks of every kind, each as a reference's `Description` and as a PyTorch module.

A network is a stem, some **motifs** (a residual block, a dense block, a gate, …) and a head. Its
parameters come from a seed. With `exact` all parameters are small multiples of powers of two, so
that float32 computes without rounding, and equal values are equal bit for bit: ties abound.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from reference import MIXERS, Description, Operation, flow, path
from torch import Tensor, nn

# The modules ----------------------------------------------------------------------------------


class Sum(nn.Module):
    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return left + right


class ChannelNorm(nn.Module):
    """A layer norm over channels, as ConvNeXt has it."""

    def __init__(self, channels: int, eps: float):
        super().__init__()
        self.norm = nn.LayerNorm(channels, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ChannelsLast(nn.Module):
    """A 1x1 convolution written as a linear layer on channels-last maps."""

    def __init__(self, weight: Tensor, bias: Tensor):
        super().__init__()
        self.linear = filled(nn.Linear(weight.shape[1], weight.shape[0]), weight, bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def filled(module: Any, weight: Tensor, bias: Tensor) -> Any:
    module.weight.data.copy_(weight)
    if module.bias is not None:
        module.bias.data.copy_(bias)
    return module


def tensor(values: Any) -> Tensor:
    return torch.tensor(np.asarray(values), dtype=torch.float32)


def convolution(settings: dict[str, Any]) -> nn.Module:
    weight, bias = tensor(settings["weight"]), tensor(settings["bias"])
    if settings.get("channels_last"):
        return ChannelsLast(weight[:, :, 0, 0], bias)
    (top, bottom), (left, right) = settings["padding"]
    uneven = (top, left) != (bottom, right)
    conv = nn.Conv2d(
        weight.shape[1] * settings["groups"],
        weight.shape[0],
        weight.shape[2:],
        stride=settings["stride"],
        padding="same" if uneven else (top, left),
        dilation=settings["dilation"],
        groups=settings["groups"],
        bias=bool(bias.any()),
    )
    return filled(conv, weight, bias)


def batch_norm(settings: dict[str, Any]) -> nn.Module:
    norm = nn.BatchNorm2d(len(settings["gamma"]), eps=settings["eps"])
    filled(norm, tensor(settings["gamma"]), tensor(settings["beta"]))
    norm.running_mean.copy_(tensor(settings["mean"]))
    norm.running_var.copy_(tensor(settings["variance"]))
    return norm


def linear(settings: dict[str, Any]) -> nn.Module:
    weight = tensor(settings["weight"]).flatten(1)
    layer = filled(nn.Linear(weight.shape[1], len(weight)), weight, tensor(settings["bias"]))
    return nn.Sequential(nn.Flatten(), layer)


MODULES: dict[str, Callable[[dict[str, Any]], nn.Module]] = {
    "conv": convolution,
    "linear": linear,
    "bn": batch_norm,
    "layer_norm": lambda s: ChannelNorm(len(s["gamma"]), s["eps"]),
    "add": lambda s: Sum(),
    "relu": lambda s: nn.ReLU(inplace=s.get("inplace", False)),
    "relu6": lambda s: nn.ReLU6(),
    "silu": lambda s: nn.SiLU(),
    "sigmoid": lambda s: nn.Sigmoid(),
    "clip01": lambda s: nn.Hardtanh(0.0, 1.0),
    "prelu": lambda s: nn.PReLU(len(s["slope"])),
    "max_pool": lambda s: nn.MaxPool2d(s["size"], s["stride"], s["padding"]),
    "avg_pool": lambda s: nn.AvgPool2d(s["size"], s["stride"], s["padding"]),
    "mean": lambda s: nn.AdaptiveAvgPool2d(1),
    "maximum": lambda s: nn.AdaptiveMaxPool2d(1),
    "upsample": lambda s: nn.Upsample(scale_factor=2, mode="nearest"),
    "identity": lambda s: nn.Dropout(0.5),
}


def shuffled(x: Tensor, groups: int) -> Tensor:
    images, channels, height, width = x.shape
    grouped = x.view(images, groups, channels // groups, height, width)
    return grouped.transpose(1, 2).reshape(images, channels, height, width)


def sliced(x: Tensor, channels: list[int]) -> Tensor:
    step = channels[1] - channels[0] if len(channels) > 1 else 1
    return x[:, channels[0] : channels[-1] + 1 : step]


class Described(nn.Module):
    """A description in PyTorch; operation n is the module `n<n>`, if a module runs it."""

    def __init__(self, description: Description):
        super().__init__()
        self.description = description
        for place, operation in enumerate(description.operations):
            if operation.kind == "scale":
                factor = tensor(operation.settings["factor"]).reshape(1, -1, 1, 1)
                self.register_parameter(f"factor{place}", nn.Parameter(factor))
            elif has_module(operation) and operation.shares is None:
                module = MODULES[operation.kind](operation.settings)
                if operation.kind == "prelu":
                    module.weight.data.copy_(tensor(operation.settings["slope"]))
                if operation.kind == "layer_norm":
                    filled(
                        module.norm,
                        tensor(operation.settings["gamma"]),
                        tensor(operation.settings["beta"]),
                    )
                self.add_module(f"n{place}", module)

    def forward(self, image: Tensor) -> Tensor:
        values: list[Tensor] = []
        for place, operation in enumerate(self.description.operations):
            inputs = [values[source] for source in operation.inputs]
            values.append(self.run(place, operation, inputs or [image]))
        return values[-1]

    def run(self, place: int, operation: Operation, inputs: list[Tensor]) -> Tensor:
        x, kind, settings = inputs[0], operation.kind, operation.settings
        if kind == "image":
            return x
        if kind == "scale":
            return x * getattr(self, f"factor{place}")
        if has_module(operation):
            module = getattr(self, f"n{place if operation.shares is None else operation.shares}")
            return module(*inputs)
        functions: dict[str, Callable[[], Tensor]] = {
            "add": lambda: x + inputs[1],
            "subtract": lambda: x - inputs[1],
            "negate": lambda: -x,
            "gate": lambda: inputs[1] * x if settings.get("turned") else x * inputs[1],
            "relu": lambda: F.relu(x),
            "relu6": lambda: F.relu6(x),
            "stride": lambda: x[:, :, ::2, ::2],
            "mean": lambda: x.mean((2, 3), keepdim=True),
            "channel_mean": lambda: x.mean(1, keepdim=True),
            "concat": lambda: torch.cat(inputs, 1),
            "pick": lambda: sliced(x, settings["channels"]),
            "shuffle": lambda: shuffled(x, settings["groups"]),
            "pad_channels": lambda: F.pad(x, (0, 0, 0, 0, settings["before"], settings["after"])),
        }
        return functions[kind]()


def has_module(operation: Operation) -> bool:
    return operation.kind in MODULES and not operation.functional


def module_name(description: Description, place: int) -> str:
    """The name under which an operation's result can be chosen."""
    operation = description.operations[place]
    if operation.kind in ("add", "subtract") and operation.functional:
        earlier = [
            o
            for o in description.operations[:place]
            if o.kind in ("add", "subtract") and o.functional
        ]
        for n, o in enumerate(description.operations):
            if o.kind == "identity" and o.inputs == (place,):
                return f"n{n}"  # a module that returns the sum
        return f"/add_{len(earlier)}" if earlier else "/add"
    if operation.shares is None:
        return f"n{place}"
    calls = [
        n for n, o in enumerate(description.operations[:place]) if o.shares == operation.shares
    ]
    return f"n{operation.shares}@{len(calls) + 1}"


def mixer_name(description: Description, place: int) -> str:
    """The name of a hidden layer that an operation makes."""
    operation = description.operations[place]
    name = module_name(description, place)
    if operation.kind == "linear":
        return f"{name}.1"
    if operation.settings.get("channels_last"):
        return f"{name}.linear"
    return name


# Descriptions ----------------------------------------------------------------------------------


class Builder:
    """Puts a description together; every method gives the place of the operation it adds."""

    def __init__(self, shape: tuple[int, int, int], seed: int, *, exact: bool):
        self.random = np.random.default_rng(seed)
        self.exact = exact
        self.operations = [Operation("image", ())]
        self.shapes = [shape]

    def description(self) -> Description:
        return Description(tuple(self.operations), self.shapes[0])

    def put(
        self,
        kind: str,
        *inputs: int,
        shape: tuple[int, int, int] | None = None,
        functional: bool = False,
        shares: int | None = None,
        **settings: Any,
    ) -> int:
        self.operations.append(Operation(kind, inputs, settings, functional, shares))
        self.shapes.append(shape or self.shapes[inputs[0]])
        return len(self.operations) - 1

    def numbers(self, *shape: int) -> Any:
        """Weights: many of each sign; in an exact network few and coarse."""
        if self.exact:
            return self.random.choice([-1.0, -0.5, 0.0, 0.0, 0.5, 1.0], shape)
        fan = max(1, int(np.prod(shape[1:])))
        return np.float32(self.random.standard_normal(shape) / np.sqrt(fan)).astype(np.float64)

    def conv(
        self,
        x: int,
        outputs: int,
        size: int | tuple[int, int] = 3,
        *,
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] | str | None = None,
        dilation: int = 1,
        groups: int = 1,
        channels_last: bool = False,
        bias: bool = True,
    ) -> int:
        channels, height, width = self.shapes[x]
        kernel = (size, size) if isinstance(size, int) else size
        strides = (stride, stride) if isinstance(stride, int) else stride
        if padding == "same":
            whole = [dilation * (k - 1) for k in kernel]
            around = tuple((w // 2, w - w // 2) for w in whole)
        else:
            plain = padding
            if plain is None:
                plain = (dilation * (kernel[0] // 2), dilation * (kernel[1] // 2))
            pair = (plain, plain) if isinstance(plain, int) else plain
            around = ((pair[0], pair[0]), (pair[1], pair[1]))
        sizes = [
            (n + sum(p) - dilation * (k - 1) - 1) // s + 1
            for n, p, k, s in zip((height, width), around, kernel, strides, strict=True)
        ]
        return self.put(
            "conv", x, shape=(outputs, sizes[0], sizes[1]),
            weight=self.numbers(outputs, channels // groups, *kernel),
            bias=self.numbers(outputs) if bias else np.zeros(outputs),
            stride=strides, padding=around, dilation=(dilation, dilation), groups=groups,
            channels_last=channels_last,
        )  # fmt: skip

    def again(self, place: int, x: int) -> int:
        """The same convolution called once more."""
        first = self.operations[place]
        own = place if first.shares is None else first.shares
        return self.put(
            "conv",
            x,
            shape=(self.shapes[place][0], *self.shapes[x][1:]),
            shares=own,
            **first.settings,
        )

    def bn(self, x: int) -> int:
        channels = self.shapes[x][0]
        if self.exact:
            return self.put(
                "bn", x, eps=0.0, gamma=self.random.choice([-1.0, 0.5, 1.0], channels),
                beta=self.random.choice([-1.0, 0.0, 1.0], channels),
                mean=self.random.choice([-1.0, 0.0, 0.5], channels),
                variance=self.random.choice([0.25, 1.0, 4.0], channels),
            )  # fmt: skip
        single = [np.float32(self.random.standard_normal(channels)) for _ in range(3)]
        return self.put(
            "bn", x, eps=1e-3, gamma=single[0].astype(np.float64),
            beta=single[1].astype(np.float64), mean=single[2].astype(np.float64),
            variance=np.float32(self.random.random(channels) + 0.5).astype(np.float64),
        )  # fmt: skip

    def layer_norm(self, x: int) -> int:
        channels = self.shapes[x][0]
        return self.put(
            "layer_norm", x, eps=1e-5, gamma=self.numbers(channels) + 1, beta=self.numbers(channels)
        )

    def scale(self, x: int) -> int:
        return self.put("scale", x, factor=self.numbers(self.shapes[x][0]) + 0.25)

    def act(self, x: int, kind: str | None = None, *, functional: bool | None = None) -> int:
        kinds = ["relu", "relu", "relu6"] + ([] if self.exact else ["silu", "prelu"])
        kind = kind or str(self.random.choice(kinds))
        if functional is None:
            functional = kind in ("relu", "relu6") and self.random.random() < 0.3
        if kind == "prelu":
            return self.put(kind, x, slope=self.numbers(self.shapes[x][0]))
        return self.put(kind, x, functional=functional)

    def cell(self, x: int, outputs: int, size: int = 3, **how: Any) -> int:
        """A convolution with its normalisation and activation."""
        return self.act(self.bn(self.conv(x, outputs, size, bias=False, **how)))

    def add(self, left: int, right: int, *, kind: str = "add") -> int:
        functional = kind == "subtract" or bool(self.random.random() < 0.5)
        return self.put(kind, left, right, functional=functional)

    def pool(self, x: int, kind: str, size: int, stride: int, padding: int) -> int:
        channels, height, width = self.shapes[x]
        sizes = [(n + 2 * padding - size) // stride + 1 for n in (height, width)]
        return self.put(
            kind, x, shape=(channels, sizes[0], sizes[1]), size=size, stride=stride, padding=padding
        )

    def over_all(self, x: int, kind: str = "mean") -> int:
        functional = kind == "mean" and bool(self.random.random() < 0.5)
        return self.put(kind, x, shape=(self.shapes[x][0], 1, 1), functional=functional)

    def concat(self, *parts: int) -> int:
        channels = sum(self.shapes[part][0] for part in parts)
        return self.put("concat", *parts, shape=(channels, *self.shapes[parts[0]][1:]))

    def pick(self, x: int, channels: range) -> int:
        return self.put(
            "pick", x, shape=(len(channels), *self.shapes[x][1:]), channels=list(channels)
        )

    def squeeze(self, x: int, by: int) -> int:
        """A gate for x, one number per channel, computed from `by`."""
        channels = self.shapes[x][0]
        small = self.act(self.conv(self.over_all(by), 2, 1), "relu", functional=False)
        last = self.conv(small, channels, 1)
        return self.put("clip01" if self.exact else "sigmoid", last)

    def linear(self, x: int, outputs: int) -> int:
        return self.put(
            "linear",
            x,
            shape=(outputs, 1, 1),
            bias=self.numbers(outputs),
            weight=self.numbers(outputs, *self.shapes[x]),
        )


# Each motif takes the builder and a map, and gives a map; all of them work on any map.


def residual(b: Builder, x: int) -> int:
    """An identity added to two convolutions."""
    channels = b.shapes[x][0]
    y = b.bn(b.conv(b.cell(x, channels), channels))
    return b.act(b.add(y, x), "relu")


def projection(b: Builder, x: int) -> int:
    """A residual block whose shortcut is a convolution of its own, at half the size."""
    stride = 2 if b.shapes[x][1] > 4 else 1
    channels = b.shapes[x][0] + 1
    y = b.bn(b.conv(b.cell(x, 3, stride=stride), channels))
    return b.act(b.add(y, b.bn(b.conv(x, channels, 1, stride=stride))), "relu")


def preactivated(b: Builder, x: int) -> int:
    """Norm and activation before each convolution; the sum is left as it is."""
    y = b.conv(b.act(b.bn(x), "relu"), 3)
    y = b.conv(b.act(b.bn(y), "relu"), b.shapes[x][0])
    return b.add(x, y)


def pooled_shortcut(b: Builder, x: int) -> int:
    """A shortcut that is pooled and has channels of zeros beside it."""
    channels, height, _ = b.shapes[x]
    if height < 4:
        return plain(b, x)
    short = b.pool(x, "avg_pool", 2, 2, 0)
    short = b.put(
        "pad_channels", short, shape=(channels + 2, *b.shapes[short][1:]), before=1, after=1
    )
    return b.add(short, b.conv(x, channels + 2, 2, stride=2, padding=0))


def strided_shortcut(b: Builder, x: int) -> int:
    """A shortcut that leaves every second position out."""
    channels, height, width = b.shapes[x]
    short = b.put("stride", x, shape=(channels, (height + 1) // 2, (width + 1) // 2))
    return b.act(b.add(b.conv(x, channels, 3, stride=2), short))


def gated(b: Builder, x: int) -> int:
    """Squeeze and excitation in a residual block, towards the add."""
    channels = b.shapes[x][0]
    y = b.act(b.bn(b.conv(x, channels + 1)))
    y = b.put("gate", y, b.squeeze(y, y), turned=bool(b.random.random() < 0.5))
    return b.add(b.bn(b.conv(y, channels, 1)), x)


def gated_sum(b: Builder, x: int) -> int:
    """A gate and a layer scale directly before the add."""
    channels = b.shapes[x][0]
    y = b.bn(b.conv(x, channels, 3, groups=1))
    y = b.put("gate", y, b.squeeze(y, x))
    return b.act(b.add(x, b.scale(y)), "relu")


def spatially_gated(b: Builder, x: int) -> int:
    """A gate that differs between positions, on the way to an add."""
    channels = b.shapes[x][0]
    y = b.bn(b.conv(x, channels))
    mean = b.put("channel_mean", y, shape=(1, *b.shapes[y][1:]))
    gate = b.put("clip01" if b.exact else "sigmoid", b.conv(mean, 1, 3))
    return b.add(b.put("gate", y, gate), x)


def inception(b: Builder, x: int) -> int:
    """Parallel branches side by side, one of them a pool and one of them two mixers long."""
    channels = b.shapes[x][0]
    long = b.cell(b.cell(x, 2, 1), 3, int(b.random.choice([3, 5])))
    pool = b.cell(b.pool(x, "max_pool", 3, 1, 1), 2, 1)
    return b.concat(b.cell(x, 2, 1), long, pool, b.conv(x, 1, (1, 3)) if channels else x)


def dense(b: Builder, x: int) -> int:
    """A dense block: each convolution reads all before it."""
    first = b.conv(b.act(b.bn(x), "relu"), 2)
    both = b.concat(x, first)
    second = b.conv(b.act(b.bn(both), "relu"), 2)
    return b.concat(x, first, second)


def separable(b: Builder, x: int) -> int:
    """A depthwise convolution, sometimes with two outputs per input, and a 1x1 one."""
    channels = b.shapes[x][0]
    times = int(b.random.choice([1, 1, 2]))
    y = b.cell(x, channels * times, 3, groups=channels)
    return b.cell(y, 4, 1)


def grouped(b: Builder, x: int) -> int:
    """A grouped convolution between two 1x1 ones, channels shuffled."""
    y = b.cell(x, 4, 1)
    y = b.put("shuffle", b.bn(b.conv(y, 6, 3, groups=2)), groups=2)
    return b.act(y, "relu")


def split_shuffle(b: Builder, x: int) -> int:
    """Half of the channels pass untouched; both halves are shuffled together."""
    channels = b.shapes[x][0]
    if channels < 4:
        return plain(b, x)
    half = channels // 2
    left = b.pick(x, range(half))
    right = b.pick(x, range(half, 2 * half))
    both = b.concat(left, b.cell(right, half))
    return b.put("shuffle", both, groups=2)


def every_second(b: Builder, x: int) -> int:
    """Every second channel alone is read on."""
    if b.shapes[x][0] < 2:
        return plain(b, x)
    return b.cell(b.pick(x, range(0, b.shapes[x][0], 2)), 3)


def sliced_then_normed(b: Builder, x: int) -> int:
    """Some of a convolution's channels are left out before its norm."""
    return b.act(b.bn(b.pick(b.conv(x, 5), range(1, 5, 2))))


def many_sided(b: Builder, x: int) -> int:
    """Several mixers of one input and its norm, all added (RepVGG while it trains)."""
    channels = b.shapes[x][0]
    y = b.add(b.bn(b.conv(x, channels)), b.bn(b.conv(x, channels, 1)))
    return b.act(b.add(y, b.bn(x)), "relu")


def stretch(b: Builder, x: int) -> int:
    """Three layers in a row."""
    return b.cell(b.cell(b.cell(x, 3, 1), 3), 5, 1)


def twice(b: Builder, x: int) -> int:
    """One convolution called two times."""
    first = b.conv(x, b.shapes[x][0])
    return b.act(b.again(first, b.act(first)))


def plain(b: Builder, x: int) -> int:
    """A convolution and an activation, no norm."""
    return b.act(b.conv(x, 4))


def odd(b: Builder, x: int) -> int:
    """Dilation, uneven padding, kernels that are not square."""
    y = b.act(b.conv(x, 3, 2, padding="same"))
    y = b.act(b.conv(y, 3, (3, 1), padding="same", dilation=2))
    return b.conv(y, 4, (1, 2), stride=(2, 1) if b.shapes[y][1] > 4 else 1, padding=(1, 0))


def padded_one(b: Builder, x: int) -> int:
    """A 1x1 convolution with stride and padding."""
    return b.act(b.conv(x, 4, 1, stride=2, padding=1))


def channels_last(b: Builder, x: int) -> int:
    """A ConvNeXt block: depthwise, norm over channels, linear layers on channels-last maps."""
    channels = b.shapes[x][0]
    y = b.conv(x, channels, 3, groups=channels)
    if not b.exact:
        y = b.layer_norm(y)
    y = b.act(b.conv(y, 2 * channels, 1, channels_last=True), "relu", functional=False)
    return b.add(b.scale(b.conv(y, channels, 1, channels_last=True)), x)


def difference(b: Builder, x: int) -> int:
    """A subtraction, and a sign turned before a mixer."""
    y = b.add(b.conv(x, b.shapes[x][0]), x, kind="subtract")
    return b.act(b.put("identity", b.put("negate", y)))


def activated_sum(b: Builder, x: int) -> int:
    """An activation between a mixer and the add."""
    return b.add(b.cell(x, b.shapes[x][0]), x)


def nested_sums(b: Builder, x: int) -> int:
    """A sum that goes into another sum and is no layer."""
    channels = b.shapes[x][0]
    inner = b.scale(b.add(b.conv(x, channels), x))
    return b.act(b.add(inner, b.conv(x, channels, 1)), "relu")


def broadcast_sum(b: Builder, x: int) -> int:
    """One number per channel, added at every position."""
    channels = b.shapes[x][0]
    whole = b.conv(b.over_all(x), channels, 1)
    return b.add(x, whole)


def shrunk(b: Builder, x: int) -> int:
    """A pool, and at larger sizes a nearest-neighbour enlargement behind it."""
    if b.shapes[x][1] < 4:
        return plain(b, x)
    y = b.pool(b.cell(x, 4), str(b.random.choice(["max_pool", "avg_pool"])), 2, 2, 0)
    if b.random.random() < 0.5:
        channels, height, width = b.shapes[y]
        y = b.put("upsample", y, shape=(channels, 2 * height, 2 * width))
    return y


MOTIFS = (
    residual, projection, preactivated, pooled_shortcut, strided_shortcut, gated, gated_sum,
    spatially_gated, inception, dense, separable, grouped, split_shuffle, every_second,
    sliced_then_normed, many_sided, stretch, twice, plain, odd, padded_one, channels_last,
    difference, activated_sum, nested_sums, broadcast_sum, shrunk,
)  # fmt: skip


def head_mean(b: Builder, x: int) -> int:
    return b.linear(b.over_all(x), 3)


def head_flat(b: Builder, x: int) -> int:
    return b.linear(b.put("identity", x), 3)


def head_both(b: Builder, x: int) -> int:
    """Mean and maximum of each map side by side: two terms of one source."""
    return b.linear(b.concat(b.over_all(x), b.over_all(x, "maximum")), 3)


def head_deep(b: Builder, x: int) -> int:
    return b.linear(b.act(b.linear(x, 5), "relu"), 3)


HEADS = (head_mean, head_flat, head_both, head_deep)


def described(
    motifs: list[Callable[[Builder, int], int]],
    head: Callable[[Builder, int], int],
    seed: int,
    *,
    exact: bool,
    channels: int = 3,
    size: int = 6,
) -> Description:
    """A network of these motifs, its logits (images, 3)."""
    b = Builder((channels, size, size + 1), seed, exact=exact)
    x = b.act(b.conv(0, 4, 3), "relu")
    for motif in motifs:
        x = motif(b, x)
    head(b, x)
    return b.description()


def eligible(description: Description) -> list[int]:
    """Operations that can be chosen as layers: on the way, with a name, made of neurons."""
    flows = flow(description, np.zeros(description.shape), [])
    on_path = path(description)
    found = []
    for place, operation in enumerate(description.operations[:-1]):
        if operation.kind == "identity":  # another name for its input
            continue
        names = [origin for origin in flows[place].origin if origin is not None]
        named = has_module(operation) or (
            operation.functional and operation.kind in ("add", "subtract")
        )
        if place in on_path and named and names and len(set(names)) == len(names):
            found.append(place)
    # Nothing between the last mixer and the logits.
    last = [p for p in on_path if description.operations[p].kind in MIXERS]
    return [place for place in found if place < max(last)]


networks = st.builds(
    described,
    st.lists(st.sampled_from(MOTIFS), min_size=2, max_size=4),
    st.sampled_from(HEADS),
    st.integers(0, 10_000),
    exact=st.booleans(),
    channels=st.sampled_from([1, 3, 5]),
    size=st.sampled_from([5, 6, 8]),
)

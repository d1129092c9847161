"""Receptive fields against gradients: the pixels that move a position lie in its field and fill it.

Of each network there is a second one whose weights and images are positive and whose maximum pools
take means, so that nothing cancels and nothing is cut off: a pixel has a gradient exactly where
there is a way from it.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from torchvision.models import convnext, densenet, mobilenetv3, shufflenetv2
from torchvision.ops import SqueezeExcitation

from summit_graph.network.digits import DigitsCNN
from summit_graph.network.receptive import Field, receptive_fields
from summit_graph.network.trace import trace

Box = tuple[int, int, int, int]


def open_to_gradients(module: nn.Module) -> nn.Module:
    """A copy with positive weights, means for maxima, and gates that are held."""
    made = copy.deepcopy(module).double().eval()
    with torch.no_grad():
        for part in made.modules():
            if isinstance(part, (nn.Conv2d, nn.Linear)):
                weight = torch.rand_like(part.weight) + 0.5
                total = weight.flatten(1).sum(1).reshape(-1, *[1] * (weight.ndim - 1))
                part.weight.copy_(weight / total)
                if part.bias is not None:
                    part.bias.zero_()
    for part in list(made.modules()):
        for name, child in part.named_children():
            if isinstance(child, nn.MaxPool2d):
                mean = nn.AvgPool2d(child.kernel_size, child.stride, child.padding, child.ceil_mode)
                setattr(part, name, mean)
            if isinstance(child, SqueezeExcitation):
                setattr(part, name, Held(child))
    return made


class Held(nn.Module):
    """A squeeze-and-excitation whose gate has no gradient."""

    def __init__(self, gate: SqueezeExcitation):
        super().__init__()
        self.gate = gate

    def forward(self, x: Tensor) -> Tensor:
        held: Tensor = self.gate._scale(x).detach()
        return held * x


def seen(module: nn.Module, shape: tuple[int, int, int], layers: list[str]) -> dict[str, Any]:
    """For each layer a function of (row, column): the box of pixels with a gradient, or None."""
    made = open_to_gradients(module)
    maps: dict[str, Tensor] = {}
    parts = dict(made.named_modules())
    for name in layers:
        parts[name].register_forward_hook(
            lambda _, __, output, name=name: maps.__setitem__(name, output)
        )
    image = (torch.rand(1, *shape, dtype=torch.float64) + 0.5).requires_grad_()
    made(image)

    def box(name: str, row: int, column: int) -> Box | None:
        value = maps[name]
        while value.ndim < 4:
            value = value.unsqueeze(-1)
        (slope,) = torch.autograd.grad(value[0, :, row, column].sum(), image, retain_graph=True)
        moved = slope[0].abs().sum(0)
        rows, columns = (torch.nonzero(moved.sum(n)).flatten().tolist() for n in (1, 0))
        return (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1) if rows else None

    return {name: lambda row, column, name=name: box(name, row, column) for name in layers}


def within(field: Field, row: int, column: int, shape: tuple[int, int, int]) -> Box:
    """The field of a position, as far as it lies within the image: left, top, right, bottom."""

    def side(start: float, length: int | None, size: int) -> tuple[int, int]:
        if length is None:
            return 0, size
        return max(0, math.floor(start)), min(size, math.ceil(start + length))

    left, right = side(field.left + column * field.column_step, field.width, shape[2])
    top, bottom = side(field.top + row * field.row_step, field.height, shape[1])
    return left, top, right, bottom


def compared(
    module: nn.Module, shape: tuple[int, int, int], layers: list[str] | None = None
) -> tuple[dict[str, Field], list[tuple[Box, Box]]]:
    """The fields of all layers, and (field, pixels with a gradient) of positions of each."""
    torch.manual_seed(0)
    network = trace(module.eval(), shape, layers)
    fields = receptive_fields(network)
    boxes = seen(module, shape, [layer.name for layer in network.chosen])
    pairs = []
    for layer in network.chosen:
        for row in sorted({0, 1 % layer.height, layer.height // 2, layer.height - 1}):
            for column in sorted({0, layer.width // 2, layer.width - 1}):
                found = boxes[layer.name](row, column)
                if found is not None:
                    pairs.append((within(fields[layer.number], row, column, shape), found))
    assert len(pairs) >= len(network.chosen)
    return {layer.name: fields[layer.number] for layer in network.chosen}, pairs


NETWORKS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "resnet": (lambda: torchvision.models.resnet18(num_classes=5), 72),
    "googlenet": (
        lambda: torchvision.models.googlenet(weights=None, init_weights=False, num_classes=5), 96,
    ),
    "densenet": (lambda: densenet.DenseNet(8, (2, 3, 2), 8, num_classes=5), 80),
    "convnext": (
        lambda: convnext.ConvNeXt(
            [convnext.CNBlockConfig(8, 12, 2), convnext.CNBlockConfig(12, None, 1)], num_classes=5
        ),
        96,
    ),
    "mobilenet": (
        lambda: mobilenetv3.MobileNetV3(
            [
                mobilenetv3.InvertedResidualConfig(*block, 1.0)
                for block in (
                    (16, 3, 16, 16, True, "RE", 2, 1), (16, 5, 24, 24, True, "HS", 2, 1),
                    (24, 5, 32, 24, True, "HS", 1, 1), (24, 3, 32, 24, False, "HS", 1, 2),
                )
            ],
            16,
            num_classes=5,
        ),
        96,
    ),
    "shufflenet": (
        lambda: shufflenetv2.ShuffleNetV2([2, 2, 1], [8, 16, 24, 32, 32], num_classes=5), 100,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_as_people_use_them(name: str) -> None:
    build, size = NETWORKS[name]
    torch.manual_seed(0)
    fields, pairs = compared(build(), (3, size, size))
    assert [pair for pair in pairs if pair[0] != pair[1]] == []
    assert any(field.height is not None for field in fields.values())


def test_the_demo_network() -> None:
    """By hand: 3 x 3; 5 x 5; behind the pool 10 x 10 at steps of 2; 14 x 14, in which all 8 lie."""
    network = trace(DigitsCNN().eval(), (1, 8, 8))
    fields = receptive_fields(network)
    assert {layer.name: fields[layer.number] for layer in network.chosen} == {
        "conv1": (-1, -1, 1, 1, 3, 3),
        "conv2": (-2, -2, 1, 1, 5, 5),
        "conv3": (-4, -4, 2, 2, 10, 10),
        "conv4": (0, 0, 0, 0, None, None),
    }


class Hand(nn.Module):
    """A convolution, something in between, and another convolution, whose layer is looked at."""

    def __init__(self, between: Callable[[Tensor], Tensor], inputs: int = 4, **how: Any):
        super().__init__()
        self.first = nn.Conv2d(3, 4, (3, 1), padding=(1, 0), bias=False)
        self.between = between
        self.last = nn.Conv2d(inputs, 2, bias=False, **{"kernel_size": 1, **how})
        self.end = nn.Linear(2, 3)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.end(self.last(self.between(self.first(x))).mean((2, 3)))
        return result


def same(x: Tensor) -> Tensor:
    return x


def to_depth(x: Tensor) -> Tensor:
    count, channels, height, width = x.shape
    parts = x.reshape(count, channels, height // 2, 2, width // 2, 2)
    return parts.permute(0, 1, 3, 5, 2, 4).reshape(count, channels * 4, height // 2, width // 2)


# What stands between, what the last convolution is, and whether the field is exact.
HANDMADE: dict[str, tuple[Callable[[Tensor], Tensor], dict[str, Any], bool]] = {
    "dilation": (same, {"kernel_size": 3, "dilation": (2, 3), "padding": (2, 3)}, True),
    "asymmetric kernel and stride": (
        same, {"kernel_size": (1, 5), "stride": (3, 2), "padding": (0, 2)}, True,
    ),
    "padding of one side": (
        lambda x: F.pad(x, (3, 0, 1, 2)), {"kernel_size": (2, 4), "stride": 2}, True,
    ),
    "same padding of an even kernel": (same, {"kernel_size": 4, "padding": "same"}, True),
    "ceil mode": (lambda x: F.avg_pool2d(x, 3, 2, ceil_mode=True), {"kernel_size": 2}, True),
    "pool of two strides": (lambda x: F.avg_pool2d(x, (1, 3), (1, 3), (0, 1)), {}, True),
    "uneven adaptive pool": (lambda x: F.adaptive_avg_pool2d(x, (5, 3)), {}, False),
    "even adaptive pool": (lambda x: F.adaptive_avg_pool2d(x, (6, 4)), {}, True),
    "mirrored edges": (lambda x: F.pad(x, (4, 4, 3, 3), "reflect"), {}, False),
    "mirrored edges that are read": (
        lambda x: F.pad(x, (1, 1, 1, 1), "reflect"), {"kernel_size": 3}, True,
    ),
    "repeated edges": (
        lambda x: F.pad(x, (2, 2, 2, 2), "replicate"), {"kernel_size": 3}, False,
    ),
    "edges from the other side": (
        lambda x: F.pad(x, (1, 1, 1, 1), "circular"), {"kernel_size": 3}, False,
    ),
    "a larger map": (lambda x: F.interpolate(x, scale_factor=2), {"kernel_size": 3}, False),
    "a larger map, smooth": (
        lambda x: F.interpolate(x, (18, 24), mode="bilinear"), {"kernel_size": 2}, False,
    ),
    "every second row": (lambda x: x[:, :, 1::2], {"kernel_size": (2, 1)}, True),
    "turned": (lambda x: x.flip(3), {"kernel_size": (1, 2), "stride": (1, 2)}, True),
    "rows become columns": (lambda x: x.transpose(2, 3), {"kernel_size": (3, 1)}, False),
    "space to depth": (to_depth, {"kernel_size": 3, "padding": 1, "inputs": 16}, True),
    "pixel unshuffle": (
        lambda x: F.pixel_unshuffle(x, 2), {"kernel_size": 3, "padding": 1, "inputs": 16}, True,
    ),
    "one large and one small branch": (
        lambda x: torch.cat([x, F.avg_pool2d(x, 5, 1, 2)], 1), {"inputs": 8}, True,
    ),
    "a mean over all, added": (lambda x: x + x.mean((2, 3), True), {}, True),
    "a maximum over rows, added": (
        lambda x: x + x.mean(2, keepdim=True), {"kernel_size": (1, 3)}, True,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", HANDMADE)
def test_small_networks(name: str) -> None:
    between, how, exact = HANDMADE[name]
    module = Hand(between, **how)
    fields, pairs = compared(module, (3, 12, 16), ["last"])
    for box, found in pairs:
        assert box[0] <= found[0]
        assert box[1] <= found[1]
        assert box[2] >= found[2]
        assert box[3] >= found[3]
    if exact:
        assert [pair for pair in pairs if pair[0] != pair[1]] == [], fields

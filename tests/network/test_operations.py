"""Rules, one small module each: its layers and hops, complete and with the right sources.

Every module has three convolutions `c1`, `c2`, `c3` and a linear layer `fc`; a case names what it
needs beside them, and gives its forward pass.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from summit_graph.aggregate.counts import Counter
from summit_graph.errors import UnsupportedNetwork
from summit_graph.network.check import completeness, source
from summit_graph.network.trace import Network, trace


def conv(inputs: int, outputs: int, size: int = 3, **how: Any) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, padding=size // 2, **how)


class Net(nn.Module):
    def __init__(self, run: Callable[[Any, Tensor], Tensor], **parts: Any):
        super().__init__()
        self.c1, self.c2, self.c3 = conv(3, 4), conv(4, 4), conv(4, 4)
        self.fc, self.run = nn.Linear(4, 3), run
        for name, part in parts.items():
            setattr(self, name, nn.Parameter(part) if isinstance(part, Tensor) else part)

    def forward(self, x: Tensor) -> Tensor:
        return self.run(self, x)


def prepared(module: nn.Module) -> nn.Module:
    """Random parameters of both signs, and norms with random statistics."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.4)
        for part in module.modules():
            if isinstance(part, nn.modules.batchnorm._BatchNorm):
                size = part.running_var.shape
                part.running_var.copy_(torch.rand(size, generator=generator) + 0.5)
                part.running_mean.copy_(torch.randn(size, generator=generator))
    return module.eval()


def traced(module: nn.Module, layers: list[str] | None = None) -> Network:
    return trace(prepared(module), (3, 8, 8), layers)


def holds(network: Network) -> None:
    images = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    assert [found for found in completeness(network, images) if not found.holds] == []
    sources = source(network, images[:1])
    assert [found for found in sources if not found.holds] == []
    assert sum(found.changed for found in sources) > 0
    counter = Counter(network)
    counter.add(images, ["a", "b"], [0, 1], lambda label, _: label)
    counts = counter.counts()
    assert {row["hop"] for row in counts.influences.to_pylist()} <= set(range(len(network.hops)))
    assert counts.votes.num_rows + counts.influences.num_rows > 0


def end(s: Any, x: Tensor) -> Tensor:
    """Mean over positions and the linear layer."""
    return s.fc(x.mean((2, 3)))


def start(s: Any, x: Tensor) -> Tensor:
    return F.relu(s.c1(x))


class Case(NamedTuple):
    """A module, the names of its layers (hidden ones in brackets) and its hops."""

    run: Callable[[Any, Tensor], Tensor]
    parts: dict[str, Any]
    layers: list[str]
    hops: list[tuple[int, int]]


CASES: dict[str, Callable[[], Case]] = {}
CHAIN = ["c1", "c2", "c3"]
CHAIN_HOPS = [(0, 1), (1, 2)]


def case(make: Callable[[], Case]) -> Callable[[], Case]:
    CASES[make.__name__] = make
    return make


def chain(run: Callable[[Any, Tensor], Tensor], **parts: Any) -> Case:
    """A case in which `run` stands between c2 and c3."""
    return Case(lambda s, x: end(s, s.c3(run(s, s.c2(start(s, x))))), parts, CHAIN, CHAIN_HOPS)


# Two ways out of the same channels are one.


@case
def x_times_sigmoid_of_x() -> Case:
    return chain(lambda s, y: y * torch.sigmoid(y))


@case
def x_times_relu6_of_x() -> Case:
    return chain(lambda s, y: y * (F.relu6(y + 3) / 6))


@case
def x_plus_gate_times_x() -> Case:
    return chain(
        lambda s, y: y + torch.sigmoid(s.g(y.mean((2, 3), keepdim=True))) * y, g=conv(4, 4, 1)
    )


@case
def mean_plus_maximum() -> Case:
    def run(s, x):
        return (lambda y: s.fc(y.mean((2, 3)) + y.amax((2, 3))))(F.relu(s.c2(start(s, x))))

    return Case(run, {}, ["c1", "c2"], [(0, 1)])


@case
def a_gated_map_added_to_itself_and_to_a_mixer() -> Case:
    def run(s: Any, x: Tensor) -> Tensor:
        y = F.relu(s.c2(start(s, x)))
        z = torch.sigmoid(s.g(y.mean((2, 3), keepdim=True))) * y + y
        return end(s, s.c3(z) + z)

    hops = [(0, 1), (1, 2), (1, 3), (2, 3)]
    return Case(run, {"g": conv(4, 4, 1)}, [*CHAIN, "(/add_1)"], hops)


@case
def a_pool_instead_of_attention() -> Case:
    """PoolFormer's block: norms by statistics of the image, a pool less the map itself."""

    def run(s: Any, x: Tensor) -> Tensor:
        y = s.c1(x)
        z = s.n(y)
        y = y + s.factor * (F.avg_pool2d(z, 3, 1, 1, count_include_pad=False) - z)
        return end(s, y + s.c3(F.relu(s.c2(s.m(y)))))

    parts = {"n": nn.GroupNorm(1, 4), "m": nn.GroupNorm(1, 4), "factor": torch.ones(4, 1, 1)}
    return Case(run, parts, [*CHAIN, "(/add_2)"], [(0, 1), (1, 2), (0, 3), (2, 3)])


# Gates.


@case
def a_gate_of_one_position_each() -> Case:
    """On 1x1 maps the gate is as large as what it gates; it comes from the map, so it is one."""

    def run(s, y):
        return (lambda z: z * torch.sigmoid(s.g(z)))(F.adaptive_avg_pool2d(y, 1))

    return chain(run, g=conv(4, 4, 1))


@case
def a_gate_of_one_position_each_written_first() -> Case:
    def run(s, y):
        return (lambda z: F.hardtanh(s.g(z), 0, 1) * z)(F.adaptive_avg_pool2d(y, 1))

    return chain(run, g=conv(4, 4, 1))


@case
def a_linear_unit_gated_by_hand() -> Case:
    def run(s: Any, x: Tensor) -> Tensor:
        left, right = s.w(start(s, x)).chunk(2, 1)
        return end(s, s.c3(left * right.sigmoid()))

    return Case(run, {"w": conv(4, 8)}, ["c1", "w", "c3"], CHAIN_HOPS)


@case
def a_gate_per_row() -> Case:
    return chain(lambda s, y: y * torch.sigmoid(s.g(y.mean(3, keepdim=True))), g=conv(4, 4, 1))


@case
def responses_normalised_over_channels() -> Case:
    """ConvNeXt V2's global response normalisation."""

    def run(s: Any, y: Tensor) -> Tensor:
        norm = y.norm(p=2, dim=(2, 3), keepdim=True)
        return s.factor * (y * (norm / (norm.mean(1, keepdim=True) + 1e-6))) + y

    return chain(run, factor=torch.ones(4, 1, 1))


@case
def local_response_norm() -> Case:
    return chain(lambda s, y: s.n(F.relu(y)), n=nn.LocalResponseNorm(3))


@case
def divided_by_its_length() -> Case:
    def run(s, x):
        return s.fc(F.normalize(F.relu(s.c2(start(s, x))).mean((2, 3))))

    return Case(run, {}, ["c1", "c2"], [(0, 1)])


# Sums.


@case
def one_number_per_channel_added() -> Case:
    def run(s: Any, x: Tensor) -> Tensor:
        y = start(s, x)
        return end(s, s.c3(F.relu(s.g(y.mean((2, 3), keepdim=True)) + s.c2(y))))

    layers = ["c1", "g", "c2", "(/add)", "c3"]
    return Case(run, {"g": conv(4, 4, 1)}, layers, [(0, 1), (0, 2), (1, 3), (2, 3), (3, 4)])


@case
def one_channel_added_to_all() -> Case:
    def run(s: Any, x: Tensor) -> Tensor:
        y = start(s, x)
        return end(s, s.c3(F.relu(s.c2(y) + s.g(y))))

    layers = ["c1", "c2", "g", "(/add)", "c3"]
    return Case(run, {"g": conv(4, 1)}, layers, [(0, 1), (0, 2), (1, 3), (2, 3), (3, 4)])


@case
def zeros_beside_a_strided_shortcut() -> Case:
    """The shortcut of the first residual networks for small images ("option A")."""

    def run(s: Any, x: Tensor) -> Tensor:
        y = start(s, x)
        short = F.pad(y[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2))
        return s.last((s.wide(F.relu(s.c2(y))) + short).relu().mean((2, 3)))

    parts = {"wide": conv(4, 8, stride=2), "last": nn.Linear(8, 3)}
    return Case(run, parts, ["c1", "c2", "wide", "(/add)"], [(0, 1), (1, 2), (0, 3), (2, 3)])


@case
def a_factor_per_position() -> Case:
    def run(s, x):
        return (lambda y: end(s, s.c3(y + s.c2(y) * s.factor)))(start(s, x))

    layers = ["c1", "c2", "(/add)", "c3"]
    return Case(run, {"factor": torch.ones(4, 8, 8)}, layers, [(0, 1), (0, 2), (1, 2), (2, 3)])


@case
def a_shift_per_position() -> Case:
    def run(s, x):
        return (lambda y: end(s, s.c3(y + s.c2(y) + s.shift)))(start(s, x))

    layers = ["c1", "c2", "(/add)", "c3"]
    return Case(run, {"shift": torch.ones(4, 8, 8)}, layers, [(0, 1), (0, 2), (1, 2), (2, 3)])


@case
def a_sum_behind_dropout() -> Case:
    """The sum is what the dropout module returns, so it has that name."""

    def run(s, x):
        return (lambda y: end(s, s.c3(F.relu(s.d(s.c2(y) + y)))))(start(s, x))

    return Case(run, {"d": nn.Dropout()}, ["c1", "c2", "(d)", "c3"],
                [(0, 1), (0, 2), (1, 2), (2, 3)])  # fmt: skip


@case
def logits_that_are_a_sum() -> Case:
    def run(s: Any, x: Tensor) -> Tensor:
        y = F.relu(s.c2(start(s, x)))
        return end(s, y) + s.more(F.relu(s.c3(y)).mean((2, 3)))

    return Case(run, {"more": nn.Linear(4, 3)}, CHAIN, CHAIN_HOPS)


@case
def logits_side_by_side() -> Case:
    """The first logits are there before c3 is run; c3 is a layer all the same."""

    def run(s: Any, x: Tensor) -> Tensor:
        y = F.relu(s.c2(start(s, x)))
        return torch.cat([end(s, y), s.more(F.relu(s.c3(y)).mean((2, 3)))], 1)

    return Case(run, {"more": nn.Linear(4, 3)}, CHAIN, CHAIN_HOPS)


# Moves.


@case
def rows_and_columns_changed() -> Case:
    return chain(lambda s, y: F.relu(y).transpose(2, 3))


@case
def rows_turned() -> Case:
    return chain(lambda s, y: F.relu(y).flip(2).roll(3, 3))


@case
def positions_moved_into_channels() -> Case:
    def run(s, x):
        return end(s, s.w(F.pixel_unshuffle(start(s, x), 2)))

    return Case(run, {"w": conv(16, 4)}, ["c1", "w"], [(0, 1)])


@case
def positions_moved_into_channels_by_hand() -> Case:
    def run(s: Any, x: Tensor) -> Tensor:
        y = start(s, x)
        n, c, h, w = y.shape
        y = y.view(n, c, h // 2, 2, w // 2, 2).permute(0, 3, 5, 1, 2, 4)
        return end(s, s.w(y.reshape(n, 4 * c, h // 2, w // 2)))

    return Case(run, {"w": conv(16, 4)}, ["c1", "w"], [(0, 1)])


@case
def positions_moved_into_channels_by_slices() -> Case:
    def run(s: Any, x: Tensor) -> Tensor:
        y = start(s, x)
        parts = [y[..., row::2, column::2] for row in (0, 1) for column in (0, 1)]
        return end(s, s.w(torch.cat(parts, 1)))

    return Case(run, {"w": conv(16, 4)}, ["c1", "w"], [(0, 1)])


@case
def enlarged_and_side_by_side() -> Case:
    def run(s: Any, x: Tensor) -> Tensor:
        y = start(s, x)
        z = F.interpolate(F.relu(s.c2(F.max_pool2d(y, 2))), size=y.shape[-2:], mode="bilinear")
        return end(s, s.w(torch.cat([y, z], 1)))

    return Case(run, {"w": conv(8, 4)}, ["c1", "c2", "w"], [(0, 1), (0, 2), (1, 2)])


@case
def a_norm_of_flattened_maps() -> Case:
    """A factor per feature is none per channel: it is nobody's scale, but it is followed."""

    def run(s: Any, x: Tensor) -> Tensor:
        return s.last(F.relu(s.wide(s.n(s.c2(start(s, x)).flatten(1)))))

    parts = {"n": nn.BatchNorm1d(256), "wide": nn.Linear(256, 5), "last": nn.Linear(5, 3)}
    return Case(run, parts, ["c1", "c2", "(wide)"], [(0, 1), (1, 2)])


@case
def mean_and_maximum_side_by_side() -> Case:
    """Two features of one source."""

    def run(s: Any, x: Tensor) -> Tensor:
        y = F.relu(s.c2(start(s, x)))
        return s.last(torch.cat([y.mean((2, 3)), y.amax((2, 3))], 1))

    return Case(run, {"last": nn.Linear(8, 3)}, ["c1", "c2"], [(0, 1)])


@case
def maps_of_two_sizes_flattened_side_by_side() -> Case:
    def run(s: Any, x: Tensor) -> Tensor:
        y = start(s, x)
        z = F.relu(s.c2(y)).mean((2, 3))
        return s.last(torch.cat([F.max_pool2d(y, 4).flatten(1), z], 1))

    return Case(run, {"last": nn.Linear(20, 3)}, ["c1", "c2"], [(0, 1)])


# What surrounds the network.


@case
def the_image_beside_neurons() -> Case:
    def run(s: Any, x: Tensor) -> Tensor:
        y = F.relu(s.c2(start(s, x)))
        return end(s, s.c3(F.relu(s.w(torch.cat([y, x], 1)))))

    return Case(run, {"w": conv(7, 4)}, ["c1", "c2", "w", "c3"], [(0, 1), (1, 2), (2, 3)])


@case
def two_stems() -> Case:
    def run(s: Any, x: Tensor) -> Tensor:
        return end(s, s.c3(torch.cat([F.relu(s.left(x)), F.relu(s.right(start(s, x)))], 1)))

    parts = {"left": conv(3, 2), "right": conv(4, 2)}
    return Case(run, parts, ["left", "c1", "right", "c3"], [(1, 2), (0, 3), (2, 3)])


@case
def an_image_changed_before_the_first_mixer() -> Case:
    """What becomes of the image alone is no neuron: sums, repeats, operations without a rule."""

    def run(s: Any, x: Tensor) -> Tensor:
        grey = (0.3 * x[:, :1] + 0.6 * x[:, 1:2] + 0.1 * x[:, 2:]).repeat(1, 3, 1, 1)
        return end(s, s.c3(F.relu(s.c2(start(s, torch.cumsum(grey, 2) - x)))))

    return Case(run, {}, CHAIN, CHAIN_HOPS)


@case
def one_channel_between() -> Case:
    def run(s, x):
        return end(s, F.relu(s.out(s.into(start(s, x)))))

    parts = {"into": conv(4, 1), "out": conv(1, 4)}
    return Case(run, parts, ["c1", "into", "out"], [(0, 1), (1, 2)])


@case
def padding_by_reflection() -> Case:
    def run(s, y):
        return F.pad(F.relu(s.r(F.relu(y))), (1, 0, 0, 1))

    parts = {"r": conv(4, 4, padding_mode="reflect")}
    case_ = chain(run, **parts)
    return case_._replace(layers=["c1", "c2", "r", "c3"], hops=[(0, 1), (1, 2), (2, 3)])


@case
def slopes_per_channel() -> Case:
    def run(s, y):
        return s.one(s.each(y))

    case_ = chain(run, each=nn.PReLU(4), one=nn.PReLU())
    return case_._replace(layers=["c1", "one", "c3"])


@case
def a_power_mean() -> Case:
    """Generalised mean pooling; its exponent is a parameter."""

    def run(s: Any, x: Tensor) -> Tensor:
        y = F.relu(s.c2(start(s, x))).clamp(min=1e-6).pow(s.p.abs() + 2)
        return s.fc(F.avg_pool2d(y, (8, 8)).pow(1.0 / (s.p.abs() + 2)).flatten(1))

    return Case(run, {"p": torch.ones(1)}, ["c1", "c2"], [(0, 1)])


@pytest.mark.parametrize("name", CASES)
def test_traced(name: str) -> None:
    expected = CASES[name]()
    network = traced(Net(expected.run, **expected.parts))
    shown = [layer.name if layer.chosen else f"({layer.name})" for layer in network.layers]
    assert shown == expected.layers
    assert [(hop.source, hop.target) for hop in network.hops] == expected.hops
    holds(network)


REFUSED: dict[str, tuple[Callable[[Any, Tensor], Tensor], dict[str, Any], list[str]]] = {
    "positions of two maps in one": (
        lambda s, x: (lambda y: end(s, s.c3(torch.cat([s.c2(y), y], 2))))(start(s, x)), {},
        ["aten.conv2d", "module 'c3'", "channels do not lie along axis 1"],
    ),
    "product of two maps": (
        lambda s, x: (lambda y: end(s, s.c2(y) * s.c3(y)))(start(s, x)), {},
        ["aten.mul", "the network's own forward", "neither of which is a gate"],
    ),
    "a larger one of two maps": (
        lambda s, x: (lambda y: end(s, torch.maximum(s.c2(y), y)))(start(s, x)), {},
        ["aten.maximum", "has no rule"],
    ),
    "largest of groups of channels": (
        lambda s, x: end(s, s.w(start(s, x)).view(-1, 4, 2, 8, 8).amax(2)), {"w": conv(4, 8)},
        ["aten.amax", "reduces over channels"],
    ),
    "parameters per channel of an activation": (
        lambda s, x: end(s, torch.clamp(s.c2(start(s, x)), min=s.p)), {"p": torch.ones(4, 1, 1)},
        ["aten.clamp", "differ between channels"],
    ),
    "a transposed convolution": (
        lambda s, x: end(s, s.t(start(s, x))), {"t": nn.ConvTranspose2d(4, 4, 2)},
        ["aten.conv_transpose2d", "module 't'", "a convolution other than Conv2d"],
    ),
    "a convolution over rows": (
        lambda s, x: s.fc(s.t(start(s, x).flatten(2)).mean(2)), {"t": nn.Conv1d(4, 4, 3)},
        ["aten.conv1d", "module 't'", "a convolution other than Conv2d"],
    ),
    "a convolution over volumes": (
        lambda s, x: s.fc(s.t(start(s, x).unsqueeze(2)).mean((2, 3, 4))),
        {"t": nn.Conv3d(4, 4, 1)},
        ["aten.conv3d", "module 't'", "a convolution other than Conv2d"],
    ),
    "an operation without a rule": (
        lambda s, x: end(s, torch.cumsum(start(s, x), 2)), {},
        ["aten.cumsum", "has no rule", "add a rule"],
    ),
    "a kernel computed from the image": (
        lambda s, x: (lambda y: end(s, F.conv2d(y, y.mean(0, keepdim=True).expand(4, 4, 8, 8)
                                                 [:, :, :3, :3])))(start(s, x)), {},
        ["aten.conv2d", "kernel computed from the image"],
    ),
    "attention": (
        lambda s, x: (lambda y: s.fc((y.transpose(1, 2) @ y).softmax(2).matmul(
            y.transpose(1, 2)).mean(1)))(start(s, x).flatten(2)), {},
        ["attention is not supported", "aten."],
    ),
    "a statistic over the batch": (
        lambda s, x: (lambda y: end(s, y - y.mean(0, keepdim=True)))(s.c2(start(s, x))), {},
        ["aten.mean", "reduces over images"],
    ),
    "logits per position": (
        lambda s, x: s.c3(start(s, x)), {}, ["(images, 4, 8, 8)", "one logit per class"],
    ),
    "no mixer": (lambda s, x: x.mean((2, 3)), {}, ["no convolution or linear layer"]),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    run, parts, words = REFUSED[name]
    with pytest.raises(UnsupportedNetwork) as found:
        traced(Net(run, **parts))
    for word in words:
        assert word in str(found.value)


def test_a_layer_with_its_channels_last() -> None:
    """A linear layer's own tensor: (images, rows, columns, channels)."""

    def run(s: Any, x: Tensor) -> Tensor:
        y = F.relu(s.inner(start(s, x)[:, :, :4].permute(0, 2, 3, 1)))
        return end(s, s.c3(y.permute(0, 3, 1, 2)))

    module = Net(run, inner=nn.Linear(4, 4))
    network = traced(module, ["c1", "inner"])
    assert [(n.channels, n.height, n.width) for n in network.layers[:2]] == [(4, 8, 8), (4, 4, 8)]
    holds(network)
    images = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    counter = Counter(network, examples=1)
    counter.add(images, ["a", "b"], [0, 1], lambda label, _: label)
    examples = counter.counts().examples.to_pylist()
    with torch.no_grad():
        maps = module.inner(F.relu(module.c1(images))[:, :, :4].permute(0, 2, 3, 1))
    for row in examples:
        if row["layer"] == 1:
            best = maps[..., row["channel"]]
            found = best["ab".index(row["path"]), row["row"], row["column"]]
            assert float(found) == pytest.approx(float(best.max()))
            assert row["activation"] == pytest.approx(float(best.max()))

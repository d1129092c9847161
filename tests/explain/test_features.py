from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from summit_graph.explain import features
from summit_graph.explain.features import Excitation, activations, optimise
from summit_graph.network import graph
from summit_graph.network.digits import digits_cnn
from summit_graph.network.trace import Network, trace

GREY = {"mean": (0.5,), "std": (0.5,)}


class Deep(nn.Module):
    """Every clipped activation, normalisations that can and cannot join a convolution, a gate, a
    layer in channels-last order, and a linear one."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 6, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(6, affine=False)
        self.second = nn.Conv2d(6, 8, 3, stride=2, padding=1)
        self.both = nn.BatchNorm2d(8)
        self.gate = nn.Conv2d(8, 8, 1)
        self.last = nn.Linear(8, 10)
        self.hidden = nn.Linear(10, 12)
        self.out = nn.Linear(12, 3)
        for norm in (self.norm, self.both):
            norm.running_mean = torch.linspace(-0.5, 0.5, norm.num_features)
            norm.running_var = torch.linspace(0.5, 2, norm.num_features)
        self.both.weight.data = torch.linspace(-1, 2, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu6(self.norm(self.first(x)))
        x = self.second(x)
        x = functional.hardtanh(self.both(x), -1, 2) + 0.1 * x
        x = x * torch.sigmoid(self.gate(x.mean((2, 3), keepdim=True)))
        x = self.last(x.permute(0, 2, 3, 1)).clamp(min=-0.5).permute(0, 3, 1, 2)
        x = functional.relu(self.hidden(x.mean((2, 3))))
        return self.out(x)


class OneLayer(nn.Module):
    """A convolution with given kernels, then what clips it, and logits."""

    def __init__(self, kernels: Tensor, bias: Sequence[float], clip: Callable[[Tensor], Tensor]):
        super().__init__()
        self.conv = nn.Conv2d(kernels.shape[1], len(kernels), kernels.shape[2])
        self.conv.weight.data = kernels
        self.conv.bias.data = torch.tensor(bias)  # type: ignore[union-attr]
        self.clip = Clip(clip)
        self.out = nn.Linear(len(kernels), 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.clip(self.conv(x)).mean((2, 3)))


class Clip(nn.Module):
    def __init__(self, clip: Callable[[Tensor], Tensor]):
        super().__init__()
        self.clip = clip

    def forward(self, x: Tensor) -> Tensor:
        return self.clip(x)


def traced(module: nn.Module, shape: tuple[int, int, int], layers: list[str]) -> Network:
    return trace(module.eval().requires_grad_(False), shape, layers)


def test_the_layers_are_those_of_the_whole_network() -> None:
    torch.manual_seed(0)
    network = traced(Deep(), (2, 12, 8), ["first", "norm", "both", "last", "hidden"])
    images = torch.randn(3, 2, 12, 8)
    values = graph.run(network.graph, images)
    shapes = []
    for layer in network.chosen:
        found = Excitation(network, layer.number)(images)
        axis = network.maps[layer.number].axis
        assert axis is not None
        expected = values[network.nodes[layer.number]].movedim(axis, 1)
        shapes.append(tuple(found.shape))
        torch.testing.assert_close(found, expected.reshape(found.shape))
    assert shapes == [(3, 6, 12, 8), (3, 6, 12, 8), (3, 8, 6, 4), (3, 10, 6, 4), (3, 12, 1, 1)]


def test_the_gradient_is_the_network_s_own_where_it_has_one() -> None:
    torch.manual_seed(1)
    module = Deep()
    network = traced(module, (2, 12, 8), ["last"])
    images = torch.randn(3, 2, 12, 8, requires_grad=True)
    seen: list[Tensor] = []
    module.last.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    module(images)
    (expected,) = torch.autograd.grad(seen[0].sum(), [images])
    assert (expected != 0).flatten(1).any(1).all()
    (layer,) = network.chosen
    (found,) = torch.autograd.grad(Excitation(network, layer.number)(images).sum(), [images])
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    ("clip", "bias", "wanted"),
    [
        (functional.relu, -5.0, 1),  # clipped from below: it may rise
        (functional.relu, -5.0, -1),  # and not fall further
        (functional.relu6, 11.0, -1),
        (functional.relu6, 11.0, 1),
        (lambda x: x.clamp(max=1), 5.0, -1),
        (lambda x: x.clamp(-1, 1), 5.0, 1),
        (lambda x: functional.hardtanh(x, -2, 2), -5.0, 1),
    ],
)
def test_a_gradient_passes_where_all_is_clipped_unless_it_pushes_out(
    clip: Callable[[Tensor], Tensor], bias: float, wanted: int
) -> None:
    network = traced(OneLayer(torch.ones(1, 1, 1, 1), [bias], clip), (1, 3, 3), ["clip"])
    (layer,) = network.chosen
    images = torch.zeros(2, 1, 3, 3)
    images[1] = 0.5 - bias  # this one is in the middle of the range, with a gradient of its own
    images.requires_grad_()
    loss = -wanted * Excitation(network, layer.number)(images).sum()
    (found,) = torch.autograd.grad(loss, [images])
    pushes_back = wanted * bias < 0
    assert torch.equal(found[0], torch.full((1, 3, 3), -float(wanted) if pushes_back else 0.0))
    assert torch.equal(found[1], torch.full((1, 3, 3), -float(wanted)))


def test_a_spectrum_is_an_image() -> None:
    mean = torch.tensor([0.2, 0.5, 0.7])
    made = features.Spectra((3, 6, 9), mean)
    flat = made.images(torch.zeros(1, 3, 6, 5, 2))
    torch.testing.assert_close(flat, mean.reshape(1, 3, 1, 1).expand(1, 3, 6, 9))
    wave = torch.zeros(1, 3, 6, 5, 2)
    wave[0, 0, 1, 2, 0] = 30.0  # brightness: once over the rows, twice over the columns
    image = torch.logit(made.images(wave)[0]) - torch.logit(mean).reshape(3, 1, 1)
    rows, columns = torch.meshgrid(torch.arange(6), torch.arange(9), indexing="ij")
    cosine = torch.cos(2 * math.pi * (rows / 6 + 2 * columns / 9))
    for channel in image:
        share = channel / cosine
        assert float(share.std() / share.mean()) < 1e-3
    assert float(image.mean(0).abs().max()) > 4 * float((image[0] - image[2]).abs().max())


def test_low_frequencies_weigh_more() -> None:
    made = features.Spectra((1, 16, 16), torch.tensor([0.5]))
    heights = []
    for frequency in (1, 2, 4, 8):
        spectrum = torch.zeros(1, 1, 16, 9, 2)
        spectrum[0, 0, frequency, 0, 0] = 0.1
        heights.append(float(torch.logit(made.images(spectrum)).abs().max()))
    ratios = np.array(heights[:-2]) / np.array(heights[1:-1])
    assert np.allclose(ratios, 2, rtol=1e-3)


def test_moves_turn_shift_and_scale_a_picture_without_bending_it() -> None:
    height, width = 24, 40
    rows, columns = torch.meshgrid(torch.arange(24.0), torch.arange(40.0), indexing="ij")
    places = torch.stack([rows, columns]).unsqueeze(0)
    angles, scales, shifts = [], [], []
    moves = np.random.default_rng(0)
    for _ in range(60):
        found = features.moved(places.expand(2, -1, -1, -1), moves)
        assert torch.equal(found[0], found[1])
        middle = found[0, :, 9:15, 17:23].double()
        down, right = middle.diff(dim=1)[:, :, 0].mean(1), middle.diff(dim=2)[:, 0].mean(1)
        assert abs(float(down @ right)) < 1e-4
        assert float(down.norm()) == pytest.approx(float(right.norm()), abs=1e-4)
        scales.append(float(down.norm()))
        angles.append(math.degrees(math.atan2(float(down[1]), float(down[0]))))
        shifts.append(
            (middle.mean((1, 2)) - torch.tensor([height - 1, width - 1]).double() / 2).tolist()
        )
    for values, limit in (
        (np.array(scales) - 1, features.SCALE),
        (np.array(angles), math.degrees(features.TURN)),
        (np.array(shifts)[:, 0], features.SHIFT * height),
        (np.array(shifts)[:, 1], features.SHIFT * width),
    ):
        assert 0.7 * limit < np.abs(values).max() <= limit * 1.001
        assert abs(values.mean()) < 0.3 * limit


def test_the_smallest_images_are_shifted_by_a_pixel() -> None:
    spot = torch.zeros(1, 1, 8, 8)
    spot[..., 4, 4] = 1
    moves = np.random.default_rng(0)
    furthest = 0.0
    for _ in range(40):
        found = features.moved(spot, moves)[0, 0]
        centre = (found.sum(1) * torch.arange(8.0)).sum() / found.sum()
        furthest = max(furthest, abs(float(centre) - 4))
    assert 0.8 < furthest < 1.3


def test_cells_hold_the_largest_values() -> None:
    maps = torch.arange(2 * 9 * 6).reshape(2, 9, 6).float()
    found = features.cells(maps)
    assert found.shape == (2, 16)
    #        rows 0-2, 3-4, 5-6, 7-8 end in 12, 24, 36, 48; columns end in 1, 3, 4, 5
    assert found[0].tolist() == [row + c for row in (12, 24, 36, 48) for c in (1, 3, 4, 5)]
    assert features.cells(torch.ones(3, 1, 1)).shape == (3, 1)


@pytest.mark.parametrize(("channels", "positions"), [(3, 7), (7, 3)])
def test_likeness_is_the_cosine_of_gram_matrices(channels: int, positions: int) -> None:
    torch.manual_seed(2)
    maps = torch.randn(2, 3, channels, positions)
    found = features.likeness(maps)
    for group in range(2):
        grams = [(m @ m.T).flatten() for m in maps[group]]
        for image in range(3):
            others = [
                float(functional.cosine_similarity(grams[image], grams[other], dim=0))
                for other in range(3)
                if other != image
            ]
            assert float(found[group, image]) == pytest.approx(np.mean(others), abs=1e-5)


def test_an_edge_detector_sees_an_edge() -> None:
    torch.manual_seed(3)
    kernels = torch.cat(
        [torch.tensor([[[[-1.0, 1.0], [-1.0, 1.0]]]]), torch.randn(3, 1, 3, 3)[..., :2, :2]]
    )
    network = traced(OneLayer(kernels, [0.0] * 4, nn.Identity()), (1, 12, 12), ["conv"])
    (layer,) = network.chosen
    excitation = Excitation(network, layer.number)
    images = optimise(excitation, [0, 1, 2, 3], shape=(1, 12, 12), steps=128, starts=2, **GREY)
    assert images.shape == (4, 1, 1, 12, 12)
    assert images.min() >= 0
    assert images.max() <= 1
    found = activations(excitation, [0, 1, 2, 3], images[:, 0], **GREY)
    most = kernels.abs().sum((1, 2, 3)).tolist()  # values go from -1 to 1
    for reached, limit in zip(found, most, strict=True):
        assert 0.9 * limit < reached <= limit


def demo(layer: str) -> tuple[Excitation, dict[str, Any]]:
    network = trace(digits_cnn().requires_grad_(False), (1, 8, 8), [layer])
    (chosen,) = network.chosen
    shape = {"shape": (1, 8, 8), "mean": (0.305,), "std": (0.375,)}
    return Excitation(network, chosen.number), shape


def test_a_seed_makes_the_same_image_whatever_else_is_made() -> None:
    excitation, options = demo("conv3")
    alone = optimise(excitation, [5], steps=24, diverse=2, seed=7, **options)
    again = optimise(excitation, [5], steps=24, diverse=2, seed=7, **options)
    among = optimise(excitation, [1, 5, 30, 2, 9], steps=24, diverse=2, seed=7, **options)
    other = optimise(excitation, [5], steps=24, diverse=2, seed=8, **options)
    fewer = optimise(excitation, [5], steps=24, seed=7, **options)
    assert torch.equal(alone, again)
    torch.testing.assert_close(alone[0], among[1], atol=2e-3, rtol=0)
    torch.testing.assert_close(alone[0, 0], fewer[0, 0], atol=2e-3, rtol=0)
    assert float((alone - other).abs().mean()) > 0.05
    assert float((alone[0, 0] - alone[0, 1]).abs().mean()) > 0.05


def test_more_starts_keep_the_strongest() -> None:
    excitation, options = demo("conv2")
    channels = list(range(24))
    found = [
        optimise(excitation, channels, steps=32, starts=starts, **options) for starts in (1, 3)
    ]
    scale = {"mean": options["mean"], "std": options["std"]}
    one, best = (
        np.array(activations(excitation, channels, images[:, 0], **scale)) for images in found
    )
    assert (best >= one - 1e-3).all()
    assert (best > one + 0.1).any()


def test_diverse_images_are_less_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    excitation, options = demo("conv3")
    channels = [2, 3, 6, 9, 13, 19]
    alike = []
    for weight in (0.0, features.DIVERSITY):
        monkeypatch.setattr(features, "DIVERSITY", weight)
        images = optimise(excitation, channels, steps=48, diverse=4, **options)[:, 1:]
        maps = excitation((images.flatten(0, 1) - 0.305) / 0.375).flatten(2)
        alike.append(float(features.likeness(maps.unflatten(0, (6, 4))).mean()))
    assert alike[1] < alike[0] - 0.05


def test_a_neuron_that_is_off_at_first_is_found_and_one_that_cannot_be_on_does_no_harm() -> None:
    kernels = torch.ones(2, 1, 2, 2)
    network = traced(OneLayer(kernels, [-2.0, -9.0], functional.relu), (1, 8, 8), ["clip"])
    (layer,) = network.chosen
    excitation = Excitation(network, layer.number)
    images = optimise(excitation, [0, 1], shape=(1, 8, 8), steps=96, diverse=2, **GREY)
    assert bool(torch.isfinite(images).all())
    first, second = activations(excitation, [0, 1], images[:, 0], **GREY)
    assert first > 1.5  # of 2
    assert second == 0

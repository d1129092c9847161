"""Feature visualisation: images optimised to excite neurons (docs/method.md, section 6).

1. An image is the inverse Fourier transform of a spectrum, its high frequencies scaled down, its
   colours turned from decorrelated ones to red, green and blue, and squeezed to values from 0 to 1.
2. At each step it is shifted, turned and scaled a little at random, so that what is left in the end
   does not hang on single pixels, and normalised as the network takes it.
3. The part of the network up to the neuron's layer is run, with gradients to the image. Where a
   clipped activation (ReLU, ReLU6) lets no gradient of an image through at all, it is
   **redirected**: it passes as if not clipped, unless it pushes further out.
4. The neuron's map is cut into 4 x 4 cells. What is made large is the mean of the cells' largest
   values, and the largest of all a little more. That one is the activation in the rest of
   summit-graph; the cells repeat what causes it over the picture, which shows a texture better than
   one spot does. Differences between neighbouring pixels count against it.
5. **Diverse** images of one neuron are optimised side by side; what their layer's maps have in
   common in style, the cosine of their Gram matrices, is held down.

Many neurons of one layer are optimised in one batch. An image has its own random start, all have
the same moves, and nothing is shared between neurons; so it does not matter which neurons are in a
batch, but for rounding.

Sources: Olah, Mordvintsev, Schubert, *Feature Visualization*, Distill 2017 (1 to 3, 5; the colours'
correlation over ImageNet is theirs, as are the redirected gradients, from Lucid); Mordvintsev,
Pezzotti, Schubert, Olah, *Differentiable Image Parameterizations*, Distill 2018 (1, 2).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.fx import Node
from torch.nn import functional

from summit_graph.aggregate.activation import peaks
from summit_graph.network import graph
from summit_graph.network.channels import Values
from summit_graph.network.trace import Network

LEARNING_RATE = 0.1

START = 8.0
"""Standard deviation of the spectrum that an optimisation starts from, times the longer side: the
smaller the image, the easier it is caught where a neighbour of its start is no better."""

CELLS = 4
"""Rows and columns of cells that a neuron's map is cut into."""

PEAK = 0.3
"""How much the largest value of the map counts beside the mean of the cells' largest."""

SMOOTH = 1.0
"""How much the mean squared difference between neighbouring pixels counts against excitation."""

DIVERSITY = 0.5
"""How much the likeness of a neuron's diverse images counts against their excitation."""

SHIFT, SCALE, TURN = 0.05, 0.1, math.radians(10)
"""The largest moves to either side: shares of a side (but at least a pixel) and of the size, and an
angle."""

STILL = 0.1
"""The share of the steps, the last ones, without moves."""

# Square root of the covariance of colours over ImageNet (Lucid, `optvis/param/color.py`).
_COLOURS = ((0.26, 0.09, 0.02), (0.27, 0.00, -0.05), (0.27, -0.09, 0.03))

aten = torch.ops.aten


class Excitation:
    """The part of a network up to one layer: images to the layer's maps, with gradients.

    A convolution and the batch normalisation behind it are computed as one.

    Args:
        network: traced; `layer`: the number of one of its layers.
    """

    def __init__(self, network: Network, layer: int):
        exported = network.graph
        self.layer = layer
        self._constants = exported.constants
        self._image = exported.image
        self._node = network.nodes[layer]
        axis = network.maps[layer].axis
        assert axis is not None
        self._axis = axis
        self.channels = network.layers[layer].channels
        wanted: set[Node] = set()
        stack = [self._node]
        while stack:
            node = stack.pop()
            if node not in wanted:
                wanted.add(node)
                stack.extend(node.all_input_nodes)
        reached = [node for node in exported.nodes if node in wanted]
        self._joined = {node: joined for node in reached if (joined := _joined(node, exported))}
        inside = {joined.convolution for joined in self._joined.values()}
        self._nodes = [
            node
            for node in reached
            if node not in exported.constants and node is not exported.image and node not in inside
        ]
        last: dict[Node, Node] = {}
        for node in self._nodes:
            reader = self._joined[node].convolution if node in self._joined else node
            last.update(dict.fromkeys(reader.all_input_nodes, node))
        self._freed: dict[Node, list[Node]] = {}
        for source, node in last.items():
            self._freed.setdefault(node, []).append(source)

    def __call__(self, images: Tensor) -> Tensor:
        """The layer's maps of (images, C, H, W), normalised: (images, channels, rows, columns).

        What lies along a line, or has no place, has one column.
        """
        values: dict[Node, Any] = dict(self._constants)
        values[self._image] = images
        for node in self._nodes:
            if node in self._joined:
                values[node] = (self._joined[node](values),)
            elif (limits := _limits(node, values)) is not None:
                values[node] = _Redirected.apply(values[node.all_input_nodes[0]], *limits)
            elif node.target is aten.view.default:  # of a tensor in another order than when traced
                values[node] = aten.reshape.default(*torch.fx.map_arg(node.args, values.get))
            else:
                values[node] = graph.call(node, values)
            for used in self._freed.get(node, ()):
                del values[used]
        maps: Tensor = values[self._node].movedim(self._axis, 1)
        while maps.ndim < 4:
            maps = maps.unsqueeze(-1)
        return maps.flatten(3)


@dataclass(frozen=True, eq=False)
class _Joined:
    """A convolution and the batch normalisation behind it, as one convolution."""

    convolution: Node
    weight: Tensor
    bias: Tensor

    def __call__(self, values: Values) -> Tensor:
        """What the normalisation returns first; the rest of it is for training alone."""
        image: Any = self.convolution.args[0]
        further = self.convolution.args[3:]
        result: Tensor = aten.conv2d.default(values[image], self.weight, self.bias, *further)
        return result


def _joined(norm: Node, exported: graph.Graph) -> _Joined | None:
    """This node and the convolution before it, where it is such a normalisation of nothing else."""
    if norm.target is not aten._native_batch_norm_legit_no_training.default:
        return None
    source = norm.args[0]
    if (
        not isinstance(source, Node)
        or source.target is not aten.conv2d.default
        or source.kwargs
        or len(source.users) > 1
    ):
        return None
    known: dict[Any, Any] = {None: None, **exported.constants}
    nodes = (source.args[1], (*source.args, None)[2], *norm.args[1:5])
    if any(node not in known for node in nodes):
        return None
    weight, bias, gamma, beta, mean, variance = (known[node] for node in nodes)
    scale = torch.rsqrt(variance + norm.args[6])
    if gamma is not None:
        scale = scale * gamma
    shift = -mean * scale if bias is None else (bias - mean) * scale
    if beta is not None:
        shift = shift + beta
    return _Joined(source, weight * scale.reshape(-1, 1, 1, 1), shift)


class _Redirected(torch.autograd.Function):
    """Values clipped to a range; the gradient as step 3 of the module has it."""

    @staticmethod
    def forward(context: Any, values: Tensor, low: float, high: float) -> Tensor:
        """The values, none below `low` nor above `high`."""
        context.save_for_backward(values)
        context.limits = low, high
        return values.clamp(low, high)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        """The gradient of a loss, which falls against it."""
        (gradient,) = gradients
        (values,) = context.saved_tensors
        low, high = context.limits
        own: Tensor = aten.hardtanh_backward(gradient, values, low, high)
        if bool(own.flatten(1).sum(1).all()):  # the usual case, seen quickly
            return own, None, None
        further = ((values <= low) & (gradient > 0)) | ((values >= high) & (gradient < 0))
        alive = (own != 0).flatten(1).any(1).reshape(-1, *[1] * (own.ndim - 1))
        return torch.where(alive, own, gradient.masked_fill(further, 0)), None, None


def _limits(node: Node, values: Values) -> tuple[float, float] | None:
    """The range that an operation clips a tensor to; None where it does something else."""
    packet = getattr(node.target, "overloadpacket", None)
    given = [values[arg] if isinstance(arg, Node) else arg for arg in node.args[1:]]
    named = {k: values[v] if isinstance(v, Node) else v for k, v in node.kwargs.items()}
    low: Any = -math.inf
    high: Any = math.inf
    if packet is aten.relu:
        low = 0.0
    elif packet is aten.relu6:
        low, high = 0.0, 6.0
    elif packet is aten.clamp_min:
        low = named.get("min", given[0] if given else None)
    elif packet is aten.clamp_max:
        high = named.get("max", given[0] if given else None)
    elif packet in (aten.hardtanh, aten.clamp):
        names = ("min_val", "max_val") if packet is aten.hardtanh else ("min", "max")
        default = (-1.0, 1.0) if packet is aten.hardtanh else (None, None)
        low, high = (
            given[place] if place < len(given) else named.get(name, default[place])
            for place, name in enumerate(names)
        )
    else:
        return None
    low = -math.inf if low is None else low
    high = math.inf if high is None else high
    if isinstance(low, Tensor) or isinstance(high, Tensor):
        return None
    return float(low), float(high)


class Spectra:
    """Images as spectra: what is optimised, and how an image is made of it.

    Args:
        shape: (C, H, W) of an image.
        mean: (C,) values from 0 to 1, the image whose spectrum is all 0; on the device to use.
    """

    def __init__(self, shape: tuple[int, int, int], mean: Tensor):
        self.shape = shape
        channels, height, width = shape
        frequency = torch.hypot(
            torch.fft.fftfreq(height).unsqueeze(1), torch.fft.rfftfreq(width).unsqueeze(0)
        )
        self._scale = (1 / frequency.clamp(min=1 / max(height, width))).to(mean.device)
        self._centre = torch.logit(mean.clamp(0.05, 0.95)).reshape(1, -1, 1, 1)
        self._colours: Tensor | None = None
        if channels == 3:
            colours = torch.tensor(_COLOURS)
            self._colours = (colours / colours.norm(dim=0).max()).to(mean.device)

    def start(self, seeds: Sequence[Sequence[int]]) -> Tensor:
        """Random spectra, one from each seed: (images, C, H, W // 2 + 1, 2), on the CPU."""
        channels, height, width = self.shape
        size = (channels, height, width // 2 + 1, 2)
        drawn = [np.random.default_rng(seed).standard_normal(size, np.float32) for seed in seeds]
        return torch.from_numpy(np.stack(drawn)) * (START / max(height, width))

    def images(self, spectra: Tensor) -> Tensor:
        """(images, C, H, W), values from 0 to 1."""
        scaled = torch.view_as_complex(spectra) * self._scale
        values = torch.fft.irfft2(scaled, s=self.shape[1:], norm="ortho") / 4
        if self._colours is not None:
            values = torch.einsum("dc,bchw->bdhw", self._colours, values)
        return torch.sigmoid(values + self._centre)


def optimise(
    excitation: Excitation,
    channels: Sequence[int],
    *,
    shape: tuple[int, int, int],
    mean: Sequence[float],
    std: Sequence[float],
    steps: int,
    starts: int = 1,
    diverse: int = 0,
    seed: int = 0,
    device: torch.device | None = None,
) -> Tensor:
    """Images that excite neurons of one layer.

    Args:
        excitation: the network up to the layer.
        channels: (neurons,) the neurons.
        shape: (C, H, W) of an image.
        mean, std: (C,) of the normalisation: the network takes `(image - mean) / std`.
        steps: of the optimisation, at least 1.
        starts: how many random starts a neuron's one image has; the strongest result is kept.
        diverse: how many diverse images each neuron has beside its one.
        seed: of the random numbers. An image's start follows from it, the layer, the channel and
            which of the neuron's images it is; the moves from it alone.
        device: of the network; None for the CPU.

    Returns:
        (neurons, 1 + diverse, C, H, W) float32 on the CPU, values from 0 to 1.

    Source: the module's text.
    """
    where = device or torch.device("cpu")
    each = starts + diverse
    normal = _Normal(mean, std, where)
    made = Spectra(shape, normal.mean)
    seeds = [
        (seed, excitation.layer, channel, *((0, image) if image < starts else (1, image - starts)))
        for channel in channels
        for image in range(each)
    ]
    spectra = made.start(seeds).to(where).requires_grad_()
    of = torch.tensor(channels, device=where).repeat_interleave(each)
    places = torch.arange(len(of), device=where)
    moves = np.random.default_rng(seed)
    descent = torch.optim.Adam([spectra], LEARNING_RATE)
    for step in range(steps):
        images = made.images(spectra)
        still = step >= steps * (1 - STILL)
        maps = excitation(normal(images if still else moved(images, moves)))
        own = maps[places, of]
        excited = cells(own).mean(1) + PEAK * own.amax((1, 2))
        against = SMOOTH * roughness(images)
        if diverse > 1:
            groups = maps.flatten(2).unflatten(0, (len(channels), each))[:, starts:]
            alike = functional.pad(DIVERSITY * likeness(groups), (starts, 0))
            against = against + alike.flatten()
        loss = (excited.detach().abs() * against - excited).sum()
        (spectra.grad,) = torch.autograd.grad(loss, [spectra])
        descent.step()
    with torch.no_grad():
        images = made.images(spectra)
        own = excitation(normal(images))[places, of].amax((1, 2))
        images = images.unflatten(0, (len(channels), each))
        strongest = own.unflatten(0, (len(channels), each))[:, :starts].argmax(1)
        one = images[torch.arange(len(channels), device=where), strongest].unsqueeze(1)
        return torch.cat([one, images[:, starts:]], 1).cpu()


class _Normal:
    """Values from 0 to 1, (images, C, H, W), as the network takes them."""

    def __init__(self, mean: Sequence[float], std: Sequence[float], device: torch.device):
        self.mean = torch.tensor(mean, dtype=torch.float32, device=device)
        self.std = torch.tensor(std, dtype=torch.float32, device=device)

    def __call__(self, images: Tensor) -> Tensor:
        values = (images - self.mean.reshape(1, -1, 1, 1)) / self.std.reshape(1, -1, 1, 1)
        return values.contiguous(memory_format=torch.channels_last)


def moved(images: Tensor, moves: np.random.Generator) -> Tensor:
    """All images shifted, turned and scaled by the same random amount; the border is continued."""
    height, width = images.shape[2:]
    limit = 2 * max(SHIFT, 1 / max(height, width))
    right, down = moves.uniform(-limit, limit, 2)
    scale, turn = 1 + moves.uniform(-SCALE, SCALE), moves.uniform(-TURN, TURN)
    cos, sin = math.cos(turn) * scale, math.sin(turn) * scale
    move = torch.tensor(
        [[[cos, -sin * height / width, right], [sin * width / height, cos, down]]],
        dtype=images.dtype,
        device=images.device,
    )
    grid = functional.affine_grid(move, [1, *images.shape[1:]], align_corners=False)
    return functional.grid_sample(
        images, grid.expand(len(images), -1, -1, -1), padding_mode="reflection", align_corners=False
    )


def cells(maps: Tensor) -> Tensor:
    """The largest value in each cell of maps (images, rows, columns): (images, cells), at most 16.

    The cells have as nearly the same size as can be.
    """
    bands = maps.tensor_split(min(CELLS, maps.shape[1]), 1)
    return torch.stack(
        [
            cell.amax((1, 2))
            for band in bands
            for cell in band.tensor_split(min(CELLS, maps.shape[2]), 2)
        ],
        1,
    )


def roughness(images: Tensor) -> Tensor:
    """(images,): the mean squared difference between neighbouring pixels of (images, C, H, W)."""
    return images.diff(dim=2).square().mean((1, 2, 3)) + images.diff(dim=3).square().mean((1, 2, 3))


def likeness(maps: Tensor) -> Tensor:
    """How much an image's maps have in common in style with those of its group's other images.

    Args:
        maps: (groups, images, channels, positions), at least two images.

    Returns:
        (groups, images): the mean cosine of its Gram matrix with the others', 0 to 1.
    """
    _, images, channels, positions = maps.shape
    if channels <= positions:
        grams = torch.einsum("gicp,gidp->gicd", maps, maps).flatten(2)
        products = grams @ grams.transpose(1, 2)
    else:
        products = torch.einsum("gicp,gjcq->gijpq", maps, maps).square().sum((3, 4))
    norms = products.diagonal(dim1=1, dim2=2).clamp(min=1e-20).sqrt()
    cosines = products / (norms.unsqueeze(1) * norms.unsqueeze(2))
    return (cosines.sum(2) - cosines.diagonal(dim1=1, dim2=2)) / (images - 1)


def activations(
    excitation: Excitation,
    channels: Sequence[int],
    images: Tensor,
    mean: Sequence[float],
    std: Sequence[float],
    device: torch.device | None = None,
) -> list[float]:
    """The activation `a_j` that each image gives its neuron (docs/method.md, section 2).

    Args:
        channels: (images,) the neuron of each.
        images: (images, C, H, W), values from 0 to 1.
    """
    where = device or torch.device("cpu")
    with torch.no_grad():
        maps = excitation(_Normal(mean, std, where)(images.to(where)))
        found = peaks(maps.flatten(2)).activation.cpu()
    return [float(found[place, channel]) for place, channel in enumerate(channels)]

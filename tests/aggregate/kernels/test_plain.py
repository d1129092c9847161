"""The plain kernel against loops, on small whole numbers: float32 is exact, and ties abound."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from summit_graph.aggregate.kernels import Mixing, Passing, Strongest
from summit_graph.aggregate.kernels.plain import strongest

MEMORY = 1 << 30
NONE = -1


def contributions(term: Mixing | Passing, image: int, target: int) -> list[tuple[int, float]]:
    """Each of a term's sources for one target, and its influence."""
    gate = np.ones(1) if term.gate is None else term.gate.numpy()
    if gate.ndim == 3:
        gate = gate[min(image, len(gate) - 1), target]
    if isinstance(term, Passing):
        map_ = term.maps[image, target].numpy() * gate
        return [(int(term.neurons[target]), float(map_.max()))]
    kernel, maps = term.kernel[target].numpy(), term.maps[image].numpy()
    each = len(term.kernel) // term.groups
    found = []
    for n in range(len(kernel)):
        source = target // each * len(kernel) + n
        values = []
        height = maps.shape[1] - term.dilation[0] * (kernel.shape[1] - 1)
        width = maps.shape[2] - term.dilation[1] * (kernel.shape[2] - 1)
        for top in range(0, height, term.stride[0]):
            for left in range(0, width, term.stride[1]):
                total = 0.0
                for row, column in itertools.product(*map(range, kernel.shape[1:])):
                    at = (top + row * term.dilation[0], left + column * term.dilation[1])
                    total += kernel[n, row, column] * maps[source][at]
                values.append(total)
        found.append((int(term.neurons[source]), float((np.array(values) * gate).max())))
    return found


def slowly(terms: Sequence[Mixing | Passing], k: int) -> Strongest:
    images, first = len(terms[0].maps), terms[0]
    targets = len(first.kernel) if isinstance(first, Mixing) else first.maps.shape[1]
    neurons = np.full((images, targets, k), NONE)
    influence = np.zeros((images, targets, k))
    for image, target in itertools.product(range(images), range(targets)):
        best: dict[int, float] = {}
        for term in terms:
            for source, value in contributions(term, image, target):
                if source != NONE and value > 0:
                    best[source] = max(value, best.get(source, 0.0))
        ordered = sorted(best, key=lambda source: (-best[source], source))[:k]
        neurons[image, target, : len(ordered)] = ordered
        influence[image, target, : len(ordered)] = [best[source] for source in ordered]
    return Strongest(torch.tensor(neurons), torch.tensor(influence))


def agree(terms: Sequence[Mixing | Passing], k: int = 3, memory: int = MEMORY) -> Strongest:
    expected, found = slowly(terms, k), strongest(terms, k, memory)
    assert found.neurons.dtype == torch.int64
    assert found.influence.dtype == torch.float32
    assert found.neurons.tolist() == expected.neurons.tolist()
    assert found.influence.tolist() == expected.influence.tolist()
    return found


def whole(random: np.random.Generator, *shape: int, low: int = -2, high: int = 3) -> Tensor:
    return torch.tensor(random.integers(low, high, shape), dtype=torch.float32)


def mixing(seed: int = 0, **how: Any) -> Mixing:
    """A convolution of whole numbers."""
    random = np.random.default_rng(seed)
    targets, inputs, groups = how.get("targets", 4), how.get("inputs", 5), how.get("groups", 1)
    kernel = how.get("kernel", (3, 3))
    return Mixing(
        maps=whole(random, how.get("images", 2), inputs, 6, 7, low=how.get("low", -2)),
        kernel=whole(random, targets, inputs // groups, *kernel),
        stride=how.get("stride", (1, 1)),
        dilation=how.get("dilation", (1, 1)),
        groups=groups,
        gate=how.get("gate"),
        neurons=how.get("neurons", torch.arange(10, 10 + inputs)),
    )


def passing(seed: int = 0, targets: int = 4, images: int = 2, **how: Any) -> Passing:
    random = np.random.default_rng(seed)
    neurons = how.get("neurons", torch.arange(targets))
    return Passing(whole(random, images, targets, 12), how.get("gate"), neurons)


def gates(seed: int, images: int, positions: int, targets: int = 4) -> Tensor:
    random = np.random.default_rng(seed)
    values = random.choice([-1.0, 0.0, 0.5, 2.0], (images, targets, positions))
    return torch.tensor(values, dtype=torch.float32)


WAYS: dict[str, dict[str, Any]] = {
    "3x3": {},
    "1x1": {"kernel": (1, 1)},
    "1x1, maps above 0": {"kernel": (1, 1), "low": 0},
    "1x1, stride": {"kernel": (1, 1), "stride": (2, 3)},
    "stride": {"stride": (2, 1)},
    "uneven kernel": {"kernel": (2, 3), "stride": (1, 2)},
    "dilation": {"dilation": (2, 1), "kernel": (3, 2)},
    "dilation and stride": {"dilation": (2, 3), "kernel": (2, 2), "stride": (2, 2)},
    "groups": {"groups": 2, "inputs": 6},
    "groups, 1x1": {"groups": 2, "inputs": 6, "kernel": (1, 1)},
    "depthwise": {"groups": 4, "inputs": 4},
    "depthwise, 1x1": {"groups": 4, "inputs": 4, "kernel": (1, 1)},
    "depthwise, two targets each": {"groups": 2, "inputs": 2},
    "depthwise, stride and dilation": {
        "groups": 4, "inputs": 4, "stride": (2, 1), "dilation": (1, 2)},
    "one source": {"inputs": 1},
    "one source, 1x1": {"inputs": 1, "kernel": (1, 1)},
    "one target": {"targets": 1},
    "kernel as large as the map": {"kernel": (6, 7)},
    "some inputs are no neurons": {"neurons": torch.tensor([3, NONE, 1, NONE, 2])},
    "no input is a neuron": {"neurons": torch.full((5,), NONE)},
    "one source several times": {"neurons": torch.tensor([3, 1, 3, 1, 2])},
    "groups that share sources": {
        "groups": 2, "inputs": 6, "neurons": torch.tensor([1, 2, 1, 2, 3, NONE])},
}  # fmt: skip


def positions(term: Mixing) -> int:
    sizes = [
        (n - d * (k - 1) - 1) // s + 1
        for n, d, k, s in zip(
            term.maps.shape[2:], term.dilation, term.kernel.shape[2:], term.stride, strict=True
        )
    ]
    return sizes[0] * sizes[1]


@pytest.mark.parametrize("gate", ["no gate", "gate", "gate for all images", "gate per position"])
@pytest.mark.parametrize("way", WAYS)
def test_one_mixer(way: str, gate: str) -> None:
    term = mixing(**WAYS[way])
    if gate != "no gate":
        images = 1 if gate == "gate for all images" else 2
        size = positions(term) if gate == "gate per position" else 1
        term = term._replace(gate=gates(5, images, size, len(term.kernel)))
    for memory in (MEMORY, 64):
        agree([term], memory=memory)


def several(seed: int) -> list[Mixing | Passing]:
    """All kinds of terms side by side, some of one source."""
    random = np.random.default_rng(seed)
    neurons = [torch.tensor(random.integers(-1, 12, n)) for n in (5, 4, 4, 6, 4)]
    return [
        mixing(seed, neurons=neurons[0]),
        mixing(seed + 1, kernel=(1, 1), inputs=4, stride=(2, 2), neurons=neurons[1]),
        passing(seed + 2, neurons=neurons[2], gate=gates(seed, 2, 1)),
        mixing(seed + 3, groups=2, inputs=6, neurons=neurons[3]),
        passing(seed + 4, neurons=neurons[4], gate=gates(seed, 1, 12)),
    ]


@pytest.mark.parametrize("seed", range(8))
def test_several_terms(seed: int) -> None:
    terms = several(seed)
    for some in (terms, terms[:3], terms[2:3], [terms[2], terms[4]], [terms[1], terms[2]]):
        for k in (1, 2, 5, 30):
            agree(some, k)


@pytest.mark.parametrize("memory", [0, 1, 100, 1000, 5000])
@pytest.mark.parametrize("images", [1, 3])
def test_too_little_memory_changes_nothing(memory: int, images: int) -> None:
    terms = [
        mixing(1, images=images, gate=gates(2, images, 20)),
        mixing(2, images=images, kernel=(1, 1), inputs=7),
        passing(3, images=images, gate=gates(3, 1, 1)),
    ]
    agree(terms, memory=memory)
    agree(terms[:1], memory=memory)
    agree([mixing(4, images=images, groups=2, inputs=8, gate=gates(2, 1, 20))], memory=memory)


def test_equal_influences_go_to_the_lower_number() -> None:
    """Saturated maps (all 6, as ReLU6 leaves them) under equal weights: all sources tie."""
    term = Mixing(
        torch.full((1, 4, 3, 3), 6.0), torch.ones(1, 4, 1, 1), (1, 1), (1, 1), 1, None,
        torch.tensor([9, 4, 7, 5]),
    )  # fmt: skip
    assert agree([term], k=2).neurons.tolist() == [[[4, 5]]]
    assert agree([term], k=3).neurons.tolist() == [[[4, 5, 7]]]
    assert agree([term], k=4).neurons.tolist() == [[[4, 5, 7, 9]]]


def test_a_tie_across_terms_goes_to_the_earlier_layer() -> None:
    """Influences 6, 6, 6 from neurons 8 (a mixer) and 2, 3 (identities); k = 2 takes 2 and 3."""
    mixer = Mixing(
        torch.full((1, 1, 1, 1), 3.0), torch.full((1, 1, 1, 1), 2.0), (1, 1), (1, 1), 1, None,
        torch.tensor([8]),
    )  # fmt: skip
    identity = Passing(torch.full((1, 1, 1), 6.0), None, torch.tensor([3]))
    other = Passing(torch.full((1, 1, 1), 3.0), torch.full((1, 1, 1), 2.0), torch.tensor([2]))
    assert agree([mixer, identity, other], k=2).neurons.tolist() == [[[2, 3]]]


def test_a_source_counts_once_with_its_largest_term() -> None:
    """Neuron 5 has 4 and 7, neuron 6 has 5: 5 comes first, once."""
    terms = [
        Passing(torch.full((1, 1, 1), value), None, torch.tensor([neuron]))
        for value, neuron in ((4.0, 5), (5.0, 6), (7.0, 5))
    ]
    found = agree(terms, k=3)
    assert found.neurons.tolist() == [[[5, 6, NONE]]]
    assert found.influence.tolist() == [[[7.0, 5.0, 0.0]]]


def test_influences_of_zero_or_less_count_nowhere() -> None:
    term = Mixing(
        torch.tensor([[[[2.0]], [[0.0]], [[3.0]]]]), torch.tensor([[[[-1.0]], [[5.0]], [[0.0]]]]),
        (1, 1), (1, 1), 1, None, torch.tensor([0, 1, 2]),
    )  # fmt: skip
    assert agree([term]).neurons.tolist() == [[[NONE, NONE, NONE]]]


def test_a_patch_of_zeros_gives_exactly_zero() -> None:
    """Large values beside zeros: a transform (Winograd) would leave noise above 0."""
    random = np.random.default_rng(0)
    maps = torch.zeros(1, 8, 16, 16)
    maps[:, :, :, :2] = torch.tensor(random.uniform(1e3, 1e4, (1, 8, 16, 2)), dtype=torch.float32)
    kernel = torch.tensor(-random.uniform(0.1, 1, (8, 8, 3, 3)), dtype=torch.float32)
    for groups, own in ((1, kernel), (8, kernel[:, :1]), (2, kernel[:, :4])):
        term = Mixing(maps, own, (1, 1), (1, 1), groups, None, torch.arange(8))
        assert (strongest([term], 5, MEMORY).neurons == NONE).all()


@pytest.mark.parametrize("seed", range(4))
def test_real_numbers(seed: int) -> None:
    """With rounding the same sources, and influences to 1e-5."""
    torch.manual_seed(seed)
    terms: list[Mixing | Passing] = [
        Mixing(torch.randn(3, 6, 8, 8), torch.randn(5, 6, 3, 3), (1, 1), (1, 1), 1,
               torch.rand(3, 5, 36), torch.arange(6)),
        Mixing(torch.randn(3, 4, 6, 6), torch.randn(5, 4, 1, 1), (1, 1), (1, 1), 1, None,
               torch.arange(3, 7)),
        Passing(torch.randn(3, 5, 36), None, torch.arange(7, 12)),
    ]  # fmt: skip
    expected, found = slowly(terms, 4), strongest(terms, 4, MEMORY)
    assert found.neurons.tolist() == expected.neurons.tolist()
    torch.testing.assert_close(found.influence.double(), expected.influence, rtol=1e-5, atol=1e-5)

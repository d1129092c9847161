"""Influences (docs/method.md, section 3): by hand, and small networks of every kind against the
reference, with their layers, hops, activations and votes.

A decision may differ from the reference where it is nearer than 1e-5, relative, to the k-th place,
to 0 or to the mass; none may where float32 computes the network without rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pytest
import reference
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from small_networks import (
    HEADS,
    MOTIFS,
    Builder,
    Described,
    described,
    eligible,
    mixer_name,
    module_name,
    networks,
    plain,
)
from torch import Tensor, nn

from summit_graph.aggregate.counts import Counter, Counts
from summit_graph.aggregate.influence import Influences
from summit_graph.aggregate.kernels.plain import strongest
from summit_graph.errors import UnsupportedNetwork
from summit_graph.network import graph
from summit_graph.network.check import completeness, source
from summit_graph.network.trace import Network, trace

Images = npt.NDArray[np.float64]

K = 3
MASS = 0.3
NEAR = 1e-5


@dataclass
class Decisions:
    """What one image decided: active channels per layer, and the sources of each target."""

    active: dict[int, set[int]]
    sources: dict[tuple[int, int], set[tuple[int, int]]]
    votes: set[tuple[int, int]]


def found_by_package(network: Network, images: Images, label: int) -> list[Decisions]:
    """Each image counted as a class of its own."""
    counter = Counter(network, mass=MASS, k=K)
    classes = iter(range(len(images)))
    counter.add(
        torch.tensor(images, dtype=torch.float32),
        [f"{n:03}" for n in range(len(images))],
        [label] * len(images),
        lambda _label, _predicted: next(classes),
    )
    return decisions(network, counter.counts(), len(images))


def decisions(network: Network, counts: Counts, images: int) -> list[Decisions]:
    found = [Decisions({}, {}, set()) for _ in range(images)]
    for row in counts.activations.to_pylist():
        assert row["count"] == 1
        found[row["class"]].active.setdefault(row["layer"], set()).add(row["channel"])
    for row in counts.influences.to_pylist():
        assert row["count"] == 1
        hop = network.hops[row["hop"]]
        place = found[row["class"]].sources.setdefault((hop.target, row["target"]), set())
        assert (hop.source, row["source"]) not in place
        place.add((hop.source, row["source"]))
    for row in counts.votes.to_pylist():
        assert row["count"] == 1
        found[row["class"]].votes.add((row["layer"], row["channel"]))
    return found


def near_ties(
    values: dict[tuple[int, int], float],
    expected: list[tuple[int, int]],
    found: set[tuple[int, int]],
    where: str,
) -> tuple[list[str], list[str]]:
    """Differences that are nearer than 1e-5 to the k-th place or to 0, and all others."""
    near, wrong = [], []
    scale = max((abs(v) for v in values.values()), default=0.0)
    last = values[expected[-1]] if len(expected) == K else 0.0
    for item in found ^ set(expected):
        text = f"{where}: source {item}, {values.get(item)}, the last place has {last}"
        value = values.get(item)
        close = value is not None and min(abs(value - last), abs(value)) <= NEAR * scale
        (near if close else wrong).append(text)
    return near, wrong


def near_mass(value: Images, found: set[int], where: str) -> tuple[list[str], list[str]]:
    expected = set(reference.active(value, MASS))
    if found == expected:
        return [], []
    text = f"{where}: active {sorted(found)}, expected {sorted(expected)}"
    peaks = np.maximum(value.max((1, 2)), 0)
    share = np.sort(peaks / max(peaks.sum(), 1e-30))[::-1]
    running = np.cumsum(share)
    close = bool((np.abs(running - MASS) <= NEAR).any())
    for channel in found ^ expected:
        others = np.delete(peaks, channel)
        close = close or bool((np.abs(others - peaks[channel]) <= NEAR * peaks.max()).any())
    return ([text], []) if close else ([], [text])


def compare(
    description: reference.Description,
    network: Network,
    chosen: list[int],
    image: Images,
    found: Decisions,
    label: int,
) -> tuple[list[str], list[str]]:
    """Every decision of one image against the reference: near ones that differ, wrong ones."""
    near: list[str] = []
    wrong: list[str] = []
    every = reference.layers(description, chosen)
    flows = reference.flow(description, image, chosen)
    for number, layer in enumerate(every):
        if layer.chosen:
            some = near_mass(
                flows[layer.operation].value,
                found.active.get(number, set()),
                network.layers[number].name,
            )
            near, wrong = near + some[0], wrong + some[1]
    for target in reference.computed(every):
        terms = reference.contributions(description, image, chosen, target)
        for channel, own in enumerate(terms):
            values = reference.influences(own)
            some = near_ties(
                values,
                reference.strongest(values, K),
                found.sources.get((target, channel), set()),
                f"{network.layers[target].name}/{channel}",
            )
            near, wrong = near + some[0], wrong + some[1]
    values = reference.influences(reference.contributions(description, image, chosen, None)[label])
    some = near_ties(values, reference.strongest(values, K), found.votes, f"logit {label}")
    return near + some[0], wrong + some[1]


def is_exact(description: reference.Description, module: Described, images: Images) -> bool:
    """Whether float32 computes this network without rounding."""
    with torch.no_grad():
        logits = module(torch.tensor(images, dtype=torch.float32)).double().numpy()
    for image, found in zip(images, logits, strict=True):
        flows = reference.flow(description, image, [])
        for flow in flows:
            if not np.array_equal(flow.value, np.float32(flow.value).astype(np.float64)):
                return False
        if not np.array_equal(flows[-1].value.reshape(-1), found):
            return False
    return True


@dataclass
class Seen:
    """What a check looked at: images of networks without rounding, decisions, near ones."""

    exact: int
    decisions: int
    near: list[str]


def check(
    description: reference.Description, chosen: list[int], images: Images, label: int
) -> Seen:
    """One network in everything: names, hops, completeness, source, every decision."""
    module = Described(description).eval()
    network = trace(
        module, description.shape, [module_name(description, place) for place in chosen]
    )
    every = reference.layers(description, chosen)
    names = [
        module_name(description, layer.operation)
        if layer.chosen
        else mixer_name(description, layer.operation)
        for layer in every
    ]
    assert [layer.name for layer in network.layers] == names
    assert [layer.chosen for layer in network.layers] == [layer.chosen for layer in every]
    assert {(hop.source, hop.target) for hop in network.hops} == reference.hops(description, chosen)
    batch = torch.tensor(images, dtype=torch.float32)
    assert [c for c in completeness(network, batch) if not c.holds] == []
    assert [s for s in source(network, batch[:1]) if not s.holds] == []

    exact = is_exact(description, module, images)
    seen = Seen(len(images) if exact else 0, 0, [])
    found = found_by_package(network, images, label)
    for image, own in zip(images, found, strict=True):
        near, wrong = compare(description, network, chosen, image, own, label)
        assert wrong == []
        assert not (exact and near), near
        seen.near += near
        seen.decisions += len(own.sources) + len(own.active)
    return seen


def random_images(description: reference.Description, count: int, seed: int) -> Images:
    random = np.random.default_rng(seed)
    return random.integers(-2, 3, (count, *description.shape)).astype(np.float64)


@pytest.mark.parametrize("motif", MOTIFS, ids=lambda motif: motif.__name__)
def test_every_motif(motif: Callable[[Builder, int], int]) -> None:
    place = MOTIFS.index(motif)
    description = described([motif, plain], HEADS[place % 4], place, exact=place % 3 > 0)
    options = eligible(description)
    check(description, options[place % 2 :: 2], random_images(description, 2, place), place % 3)


def test_networks_of_many_motifs() -> None:
    every: list[Seen] = []

    @settings(
        max_examples=16, derandomize=True, deadline=None, database=None,
        suppress_health_check=list(HealthCheck), phases=[Phase.generate],
    )  # fmt: skip
    @given(networks, st.data())
    def each(description: reference.Description, data: st.DataObject) -> None:
        options = st.sampled_from(eligible(description))
        chosen = data.draw(st.lists(options, min_size=1, max_size=4, unique=True))
        seed, label = data.draw(st.integers(0, 1000)), data.draw(st.integers(0, 2))
        images = random_images(description, 3, seed)
        every.append(check(description, sorted(chosen), images, label))

    each()
    assert sum(seen.exact for seen in every) >= 3
    decisions = sum(seen.decisions for seen in every)
    near = [text for seen in every for text in seen.near]
    assert decisions > 500
    assert len(near) <= decisions / 500, near


def test_all_layers_chosen() -> None:
    """Every tensor with a name a layer, a convolution's own and its norm's too."""
    description = described([*MOTIFS[:3]], HEADS[0], 5, exact=True)
    check(description, eligible(description), random_images(description, 2, 0), 1)


class ThreeNeurons(nn.Module):
    """Neurons a/0 and a/1, one more in b, and two logits; see the test for the numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.a = nn.Conv2d(1, 2, 1), nn.ReLU()
        self.second, self.norm, self.b = nn.Conv2d(2, 1, 1), nn.BatchNorm2d(1, eps=0.0), nn.ReLU()
        self.logits = nn.Linear(1, 2)
        with torch.no_grad():
            self.first.weight.copy_(torch.tensor([1.0, -1.0]).reshape(2, 1, 1, 1))
            self.first.bias.copy_(torch.tensor([0.0, 3.0]))
            self.second.weight.copy_(torch.tensor([-0.5, 1.0]).reshape(1, 2, 1, 1))
            self.second.bias.zero_()
            self.norm.weight.fill_(-2.0)
            self.norm.running_var.fill_(4.0)
            self.norm.bias.fill_(1.0)
            self.logits.weight.copy_(torch.tensor([[2.0], [-1.0]]))
            self.logits.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        y = self.b(self.norm(self.second(self.a(self.first(x)))))
        return self.logits(y.mean((2, 3)))


def test_three_neurons_by_hand() -> None:
    """One image, 1 2 / 3 4.

    a/0 = x          = 1 2 / 3 4    largest 4, share 4/6
    a/1 = relu(3-x)  = 2 1 / 0 0    largest 2, share 2/6

    The norm behind b's convolution has the factor s = -2 / sqrt(4) = -1, so the kernel (-0.5, 1)
    counts as (0.5, -1):

    C(b/0, a/0) =  0.5 * a/0 = 0.5 1 / 1.5 2    largest 2: an influence
    C(b/0, a/1) = -1   * a/1 = -2 -1 / 0 0      largest 0: none, for it never raises b/0

    Without the sign of s it would be the other way round. Then b/0 = relu(0.5 a/0 - a/1 + 1)
    = 0 1 / 2.5 3, its mean 6.5 / 4 = 1.625, the logits 3.25 and -1.625. So b/0 votes for logit 0
    with 3.25, and not for logit 1.
    """
    network = trace(ThreeNeurons().eval(), (1, 2, 2), ["a", "b"])
    assert [layer.name for layer in network.layers] == ["a", "b"]
    assert [(hop.source, hop.target, hop.mixers) for hop in network.hops] == [(0, 1, ("second",))]
    counter = Counter(network, mass=0.7, k=5)
    image = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).reshape(1, 1, 2, 2)
    # The image is in class 0 by its label 0, and once more in class 1 by its label 1.
    counter.add(image.repeat(2, 1, 1, 1), ["x", "y"], [0, 1], lambda label, _: label)
    counts = counter.counts()
    rows = counts.activations.to_pylist()
    assert [tuple(row.values()) for row in rows] == [  # class, layer, channel, count
        (0, 0, 0, 1), (0, 0, 1, 1), (0, 1, 0, 1),
        (1, 0, 0, 1), (1, 0, 1, 1), (1, 1, 0, 1),
    ]  # fmt: skip
    influences = [tuple(row.values()) for row in counts.influences.to_pylist()]
    assert influences == [(0, 0, 0, 0, 1), (1, 0, 0, 0, 1)]  # class, hop, source, target, count
    assert [tuple(row.values()) for row in counts.votes.to_pylist()] == [(0, 1, 0, 1)]
    assert counts.images["predicted"].to_pylist() == [0, 0]
    assert counts.images["label_rank"].to_pylist() == [1, 2]

    # With a mass of 0.5 the share 4/6 is enough: a/1 is not active.
    counter = Counter(network, mass=0.5)
    counter.add(image, ["x"], [0], lambda label, _: label)
    active = counter.counts().activations.to_pylist()
    assert [(row["layer"], row["channel"]) for row in active] == [(0, 0), (1, 0)]


class Summed(nn.Module):
    """Layer a with two neurons, and what `body` makes of it is layer b."""

    def __init__(self, body: Callable[[Tensor], Tensor], outputs: int = 2, **parts: nn.Module):
        super().__init__()
        self.a, self.body, self.outputs = nn.ReLU(), body, outputs
        self.b = nn.Identity()
        self.first = nn.Conv2d(1, 2, 1)
        self.logits = nn.Linear(outputs, 2)
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, x: Tensor) -> Tensor:
        return self.logits(self.b(self.body(self, self.a(self.first(x)))).mean((2, 3)))


def influences_of(module: nn.Module, image: Tensor) -> dict[tuple[int, int, int], float]:
    """Influences on layer b: {(target, source layer, source): value}."""
    network = trace(module.eval(), tuple(image.shape[1:]), ["a", "b"])
    assert [c for c in completeness(network, image) if not c.holds] == []
    assert [s for s in source(network, image) if not s.holds] == []
    (target,) = (t for t in network.targets if network.layers[t.layer].name == "b")
    made = Influences(network, target, strongest, 5, 1 << 30)
    found = {}
    values = graph.run(network.graph, image)
    for targets, best in made.strongest(values):
        for row, channel in enumerate(targets.tolist()):
            for neuron, value in zip(best.neurons[0, row], best.influence[0, row], strict=True):
                if neuron >= 0:
                    layer = max(n for n, first in enumerate(network.offsets) if first <= neuron)
                    place = int(neuron) - network.offsets[layer]
                    found[channel, layer, place] = round(float(value), 4)
    return found


def mixer(*rows: list[float]) -> nn.Conv2d:
    """A 1x1 convolution with these weights and a bias of 100, which is nobody's."""
    conv = nn.Conv2d(len(rows[0]), len(rows), 1)
    conv.weight.data.copy_(torch.tensor(rows)[:, :, None, None])
    conv.bias.data.fill_(100.0)
    return conv


def norm(factors: list[float], shift: float = 0.0) -> nn.BatchNorm2d:
    part = nn.BatchNorm2d(len(factors), eps=0.0)
    part.weight.data.copy_(torch.tensor(factors))
    part.bias.data.fill_(shift)
    return part


def two_neurons(body: Callable[[Summed, Tensor], Tensor], **parts: nn.Module) -> Summed:
    """a/0 = 1 2 / 3 4 and a/1 = 0 0 / 0 5 on the image 1 2 / 3 4: a/1 = relu(5x - 15)."""
    module = Summed(body, **parts)
    module.first.weight.data.copy_(torch.tensor([1.0, 5.0]).reshape(2, 1, 1, 1))
    module.first.bias.data.copy_(torch.tensor([0.0, -15.0]))
    return module


IMAGE = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).reshape(1, 1, 2, 2)


def test_an_identity_and_a_mixer_of_one_source() -> None:
    """b = a + K a: a/0 has 4 as identity and 2 x 4 = 8 by the mixer, and counts with 8."""
    module = two_neurons(lambda s, a: a + s.k(a), k=mixer([2.0, 1.0], [-1.0, 0.5]))
    assert influences_of(module, IMAGE) == {
        (0, 0, 0): 8.0, (0, 0, 1): 5.0,
        (1, 0, 1): 5.0,  # the identity's 5, not the mixer's 2.5; -a/0 is at most -1
    }  # fmt: skip


def test_an_identity_is_taken_scaled_and_without_its_shift() -> None:
    """b = norm(a) + K a with factors -1 and 2 and the shift 7: -a/0 is at most -1, 2 a/1 is 10."""
    module = two_neurons(
        lambda s, a: s.n(a) + s.k(a), n=norm([-1.0, 2.0], 7.0), k=mixer([0.0, 1.0], [1.0, 0.0])
    )
    assert influences_of(module, IMAGE) == {(0, 0, 1): 5.0, (1, 0, 0): 4.0, (1, 0, 1): 10.0}


def test_an_identity_is_taken_pooled() -> None:
    """The mean of a/0 is 2.5, of a/1 1.25."""
    pool = nn.AvgPool2d(2)
    module = two_neurons(lambda s, a: s.p(a) + s.k(s.p(a)), p=pool, k=mixer([0.0, 4.0], [0.0, 0.0]))
    assert influences_of(module, IMAGE) == {(0, 0, 0): 2.5, (0, 0, 1): 5.0, (1, 0, 1): 1.25}


def test_two_ways_out_of_one_channel_are_one_way() -> None:
    """b = (norm(a) + a) + K a: with factors -3 and 1 the identities are -2 a/0 and 2 a/1."""
    module = two_neurons(
        lambda s, a: s.n(a) + a + s.k(a), n=norm([-3.0, 1.0], 7.0), k=mixer([0.0, 0.0], [1.0, 0.0])
    )
    assert influences_of(module, IMAGE) == {(1, 0, 0): 4.0, (1, 0, 1): 10.0}


def test_a_difference_turns_the_second_operand() -> None:
    """b = a - K a: the mixer's weights count with the other sign."""
    module = two_neurons(lambda s, a: a - s.k(a), k=mixer([-2.0, 1.0], [1.0, -2.0]))
    assert influences_of(module, IMAGE) == {(0, 0, 0): 8.0, (1, 0, 1): 10.0}


def test_gates_and_factors_before_the_add_count() -> None:
    """b = a + g * norm(K a), g = 0.5 and 3 by a gate that reads the image, the norm's factor -1."""

    def body(s: Summed, a: Tensor) -> Tensor:
        gate = s.g(a.amax((2, 3), keepdim=True))
        return a + s.n(s.k(a)) * gate

    gate = mixer([0.125, 0.0], [0.0, 0.6])
    gate.bias.data.zero_()
    module = two_neurons(body, g=gate, n=norm([-1.0, -1.0]), k=mixer([-4.0, 1.0], [1.0, -1.0]))
    # b/0: a/0 by the mixer 4 x 0.5 x 4 = 8; b/1: a/1 by the mixer 3 x 5 = 15
    assert influences_of(module, IMAGE) == {(0, 0, 0): 8.0, (1, 0, 1): 15.0}


def test_a_gate_per_position_counts_where_it_stands() -> None:
    """g = 1 0 / 0 0 leaves only the first position of K a: a/0 = 1, a/1 = 0."""
    gate = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    module = two_neurons(lambda s, a: a + s.k(a) * gate, k=mixer([9.0, 9.0], [3.0, 9.0]))
    assert influences_of(module, IMAGE) == {
        (0, 0, 0): 9.0, (1, 0, 0): 3.0, (1, 0, 1): 5.0
    }  # fmt: skip


def test_what_follows_the_mixer_is_left_out() -> None:
    """A pool behind the mixer, before the add, does not smooth the influence: 2 x 4 = 8."""
    module = two_neurons(
        lambda s, a: s.p(a) + s.p(s.k(a)), p=nn.AvgPool2d(2), k=mixer([2.0, 0.0], [0.0, 0.0])
    )
    assert influences_of(module, IMAGE) == {(0, 0, 0): 8.0, (1, 0, 1): 1.25}


def test_one_channel_added_to_all() -> None:
    """b = K a + m with one channel m = a/0 + a/1, repeated over both channels of the sum."""
    module = two_neurons(
        lambda s, a: s.k(a) + s.m(a), k=mixer([2.0, -1.0], [-1.0, 2.0]), m=mixer([1.0, 1.0])
    )
    assert influences_of(module, IMAGE) == {
        (0, 0, 0): 8.0, (0, 0, 1): 5.0, (1, 0, 0): 4.0, (1, 0, 1): 10.0
    }  # fmt: skip


def test_no_factor_behind_a_layer_s_own_tensor() -> None:
    """The layer is the convolution itself: the norm behind it, of factor -1, has no say."""
    module = two_neurons(
        lambda s, a: s.n(s.k(a)), n=norm([-1.0, -1.0]), k=mixer([1.0, -1.0] * 1, [-1.0, 1.0])
    )
    network = trace(module.eval(), (1, 2, 2), ["a", "k"])
    counter = Counter(network)
    counter.add(IMAGE, ["x"], [0], lambda label, _: label)
    rows = counter.counts().influences.to_pylist()
    assert [(row["target"], row["source"]) for row in rows] == [(0, 0), (1, 1)]
    assert sorted(influences_of(module, IMAGE)) == [(0, 0, 1), (1, 0, 0)]


def test_features_of_maps_of_two_sizes() -> None:
    """A linear layer reads a flattened map and another one's mean: two sizes, both followed.

    a/0 is flattened: weights 1 1 / 1 1 give 10; the mean of a/1 is 1.25, its weight 2 gives 2.5.
    """

    class Head(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(5, 2)
            weight = torch.tensor([[1.0, 1.0, 1.0, 1.0, 2.0], [0.0, 0.0, 0.0, 0.0, -1.0]])
            self.linear.weight.data.copy_(weight)

        def forward(self, a: Tensor) -> Tensor:
            both = torch.cat([a[:, :1].flatten(1), a[:, 1:].mean((2, 3))], 1)
            return self.linear(both)[:, :, None, None]

    module = two_neurons(lambda s, a: s.h(a), h=Head())
    assert influences_of(module, IMAGE) == {(0, 0, 0): 10.0, (0, 0, 1): 2.5}


def test_a_gate_behind_a_pool_is_refused() -> None:
    """It belongs to no position of the mixer's output."""
    gate = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    module = two_neurons(
        lambda s, a: s.p(a) + s.p(s.k(a)) * gate, p=nn.MaxPool2d(2), k=mixer([1.0, 0.0], [0.0, 1.0])
    )
    image = torch.rand(1, 1, 4, 4)
    with pytest.raises(UnsupportedNetwork, match="gate that differs between positions"):
        influences_of(module, image)

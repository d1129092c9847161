"""Neuron-influence aggregation: who influences whom (docs/method.md, section 3).

1. A mixer's target channel j gets from source channel i the map `C_ji = s_j (K_ji * X_i)`, at the
   mixer's own stride and padding; its influence `v_ji` is the largest value of that map. Towards
   an add, the map is multiplied by the gates and factors that stand before it, as they are for
   this image. An identity passes the source's own map on.
2. Per image and target, the k sources with the largest `v_ji > 0`, over all terms from all layers
   together, are the target's **strongest** sources; a source counts once.

The terms come from the trace; this file turns them into what a kernel takes, batch by batch.
Source: Hohman et al., Summit, TVCG 2020, section 6.3, and the authors' published notebooks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.fx import Node

from summit_graph.aggregate.kernels import Kernel, Mixing, Passing, Strongest
from summit_graph.errors import UnsupportedNetwork
from summit_graph.network.channels import Values, carry, factor, gather, linear, lined
from summit_graph.network.forward import step_needs
from summit_graph.network.operations import Mixer
from summit_graph.network.trace import Network, Target, Term

DEFAULT_SOURCES = 5


@dataclass(frozen=True, eq=False)
class _Part:
    """A term for some targets, with all that does not depend on the image made ready.

    Attributes:
        rows: (targets,) places in the term.
        kernel: (targets, inputs / groups, kh, kw), or None for an identity.
        groups: as `Mixing` has it.
        features: which features of the mixer's input make its inputs: (inputs, features each),
            or None for all channels as they are.
        neurons: as `Mixing` or `Passing` has them.
    """

    term: Term
    rows: Tensor
    kernel: Tensor | None
    groups: int
    features: Tensor | None
    neurons: Tensor


class Block(NamedTuple):
    """Targets of a layer that have the same terms."""

    targets: Tensor
    parts: tuple[_Part, ...]


class Influences:
    """The strongest sources of one target layer's channels, or of the logits."""

    def __init__(self, network: Network, target: Target, kernel: Kernel, k: int, memory: int):
        self.target = target
        self._kernel, self._k, self._memory = kernel, k, memory
        constants = network.graph.constants.values()
        device = next((v.device for v in constants if isinstance(v, Tensor)), torch.device("cpu"))
        self.blocks = tuple(_blocks(target, device))
        self.needs = frozenset(_needs(target))

    def strongest(self, values: Values) -> list[tuple[Tensor, Strongest]]:
        """For each block its targets and their strongest sources, for a batch's values."""
        return [
            (
                block.targets,
                self._kernel(
                    [_observed(part, values) for part in block.parts], self._k, self._memory
                ),
            )
            for block in self.blocks
        ]

    def of_logits(self, values: Values, outputs: Tensor) -> Strongest:
        """The strongest sources of one logit per image.

        Args:
            outputs: (images,) int64, the logit; -1 for none.

        Returns:
            One target per image: (images, 1, k).
        """
        neurons = torch.full((len(outputs), 1, self._k), -1, dtype=torch.int64)
        influence = torch.zeros((len(outputs), 1, self._k))
        for block in self.blocks:
            place = {int(target): row for row, target in enumerate(block.targets)}
            wanted = [output for output in outputs.unique().tolist() if output in place]
            if not wanted:
                continue
            terms = [_observed(part, values) for part in block.parts]
            for output in wanted:
                images = torch.nonzero(outputs == output).squeeze(1)
                some = [_only(term, images, place[output]) for term in terms]
                found = self._kernel(some, self._k, self._memory)
                neurons[images] = found.neurons.cpu()
                influence[images] = found.influence.cpu()
        return Strongest(neurons, influence)


def _only(term: Mixing | Passing, images: Tensor, row: int) -> Mixing | Passing:
    """A term for one target and some images."""
    images = images.to(term.maps.device)
    gate = term.gate
    if gate is not None:
        gate = gate.expand(len(term.maps), -1, -1)[images][:, row : row + 1]
    maps = term.maps[images]
    if isinstance(term, Passing):
        return Passing(maps[:, row : row + 1], gate, term.neurons[row : row + 1])
    neurons = term.neurons
    if term.groups > 1:
        inputs = term.kernel.shape[1]
        start = row // (len(term.kernel) // term.groups) * inputs
        maps, neurons = maps[:, start : start + inputs], neurons[start : start + inputs]
    return term._replace(
        maps=maps, kernel=term.kernel[row : row + 1], groups=1, gate=gate, neurons=neurons
    )


def _needs(target: Target) -> set[Node]:
    needs: set[Node] = set()
    for term in target.terms:
        if term.mixer is not None:
            needs.add(term.mixer.image)
        if term.operand is not None:
            needs.add(term.operand)
        for link in term.links:
            needs |= step_needs(link.steps)
    return needs


def _blocks(target: Target, device: torch.device) -> list[Block]:
    """Targets with the same terms, and in grouped mixers the same group, side by side."""
    received: dict[int, list[tuple[int, int, int]]] = {}
    for number, term in enumerate(target.terms):
        apart = _apart(term)
        for row, channel in enumerate(term.targets.tolist()):
            group = int(term.outputs[row]) // _per_group(term.mixer) if apart else -1
            received.setdefault(channel, []).append((number, group, row))
    alike: dict[tuple[tuple[int, int], ...], list[int]] = {}
    for channel in sorted(received):
        key = tuple((number, group) for number, group, _ in received[channel])
        alike.setdefault(key, []).append(channel)
    blocks = []
    for key, channels in alike.items():
        parts = []
        for place, (number, group) in enumerate(key):
            rows = torch.tensor([received[channel][place][2] for channel in channels])
            parts.extend(_parts(target.terms[number], rows, group, device))
        blocks.append(Block(torch.tensor(channels), tuple(parts)))
    return blocks


def _per_group(mixer: Mixer | None) -> int:
    assert mixer is not None
    return len(mixer.weight) // mixer.groups


def _apart(term: Term) -> bool:
    """Whether a grouped mixer's groups must be taken one by one, because its outputs are not
    all there in their own order."""
    mixer = term.mixer
    if mixer is None or mixer.groups == 1 or mixer.weight.shape[1] == 1:
        return False
    return not torch.equal(term.outputs, torch.arange(len(mixer.weight)))


def _parts(term: Term, rows: Tensor, group: int, device: torch.device) -> list[_Part]:
    mixer = term.mixer
    if mixer is None:
        return [_Part(term, rows, None, 1, None, term.neurons[rows].to(device))]
    outputs = term.outputs[rows]
    weight = mixer.weight[outputs.to(mixer.weight.device)]
    scale = term.scale[rows].to(weight.device, weight.dtype)
    weight = weight * scale.reshape(-1, *[1] * (weight.ndim - 1))
    neurons, features, groups = term.neurons, None, mixer.groups
    if not mixer.convolution:
        return [
            _Part(
                term,
                rows,
                weight[:, some.to(weight.device)].unsqueeze(3).contiguous(),
                1,
                some,
                neurons[some[:, 0]].to(device),
            )
            for some in _features(mixer, neurons)
        ]
    if group >= 0:
        inputs = weight.shape[1]
        features = torch.arange(group * inputs, (group + 1) * inputs).unsqueeze(1)
        neurons, groups = neurons[features[:, 0]], 1
    elif groups > 1 and not torch.equal(outputs, torch.arange(len(mixer.weight))):
        features = (outputs // _per_group(mixer)).unsqueeze(1)
        neurons, groups = neurons[features[:, 0]], len(outputs)
    return [_Part(term, rows, weight.contiguous(), groups, features, neurons.to(device))]


def _features(mixer: Mixer, neurons: Tensor) -> list[Tensor]:
    """Features of a linear layer, those of one map together: (inputs, features each).

    Maps of different sizes, flattened and put side by side, stand in tensors of their own.
    """
    numbers = mixer.input.full().reshape(-1, len(neurons))[0]
    named = torch.nonzero(neurons >= 0).squeeze(1)
    order = named[torch.sort(numbers[named], stable=True).indices]
    _, counts = torch.unique_consecutive(numbers[order], return_counts=True)
    maps = order.split(counts.tolist())
    return [
        torch.stack([map_ for map_ in maps if len(map_) == size])
        for size in counts.unique().tolist()
    ]


def _observed(part: _Part, values: Values) -> Mixing | Passing:
    term = part.term
    gate = _gate(part, values)
    if part.kernel is None:
        return Passing(_passed(part, values), gate, part.neurons)
    mixer = term.mixer
    assert mixer is not None
    maps = values[mixer.image]
    device = maps.device
    if mixer.convolution:
        if part.features is not None:
            maps = maps.index_select(1, part.features[:, 0].to(device))
        if any(mixer.padding):
            maps = F.pad(maps, mixer.padding)
    else:
        assert part.features is not None
        own = lined(maps, maps.ndim - 1)
        each = part.features.shape[1]
        if own.shape[2] > 1 and each > 1:
            raise UnsupportedNetwork(
                f"the linear layer {mixer.node.name} reads flattened maps at several positions"
            )
        own = own[:, part.features.reshape(-1).to(device)]
        maps = own.reshape(len(own), -1, each, own.shape[2])
    return Mixing(maps, part.kernel, mixer.stride, mixer.dilation, part.groups, gate, part.neurons)


def _passed(part: _Part, values: Values) -> Tensor:
    """(images, targets, positions): an identity's operand, without what is added to it."""
    term = part.term
    assert term.operand is not None
    assert term.place is not None
    first = term.links[0]
    channels = tuple(first.channels[row] for row in part.rows.tolist())
    last = max((n for n, step in enumerate(first.steps, 1) if not linear((step,))), default=0)
    steps = first.steps[last:]
    if steps:
        start = steps[0]
        maps = gather(values[start.source], start.input, start.lane, channels)
        maps = carry(steps, maps, values, channels, shifts=False)
    else:
        maps = gather(values[term.operand], term.place, term.lane, channels)
    return maps if first.sign == 1 else maps * first.sign


def _gate(part: _Part, values: Values) -> Tensor | None:
    """(images or 1, targets, positions or 1): what stands between a mixer and an add."""
    links = part.term.links if part.term.mixer is not None else part.term.links[1:]
    product: Tensor | None = None
    mixer = part.term.mixer
    for link in links:
        channels = tuple(link.channels[row] for row in part.rows.tolist())
        for constant in (False, True):
            found = factor(link.steps, values, channels, constant=constant)
            if found is None or (mixer is not None and constant and found.shape[2] == 1):
                continue
            if mixer is not None and found.shape[2] not in (1, _positions(mixer)):
                raise UnsupportedNetwork(
                    f"a gate that differs between positions stands behind a pool on the way from "
                    f"{mixer.node.name} to {part.term.end.name}: it belongs to no position of the "
                    f"mixer's output. Choose the pool's output as a layer."
                )
            product = found if product is None else product * found
        if mixer is None and link.sign != 1:
            product = torch.tensor(link.sign) if product is None else product * link.sign
    return product


def _positions(mixer: Mixer) -> int:
    shape = mixer.node.meta["val"].shape
    return math.prod(int(size) for size in (shape[2:] if mixer.convolution else shape[1:-1]))

"""Is a trace right? Two tests of it on real values (docs/method.md, section 7).

**Completeness**: for every target, the maps of its terms add up to its map as mixer and add make
it, up to what depends on no source. Each term is built from the source neuron's own tensor,
carried along the traced strand; gates and run-time statistics are held.

**Source**: zeroing a neuron changes, among the inputs of the mixers that read its layer directly,
only the channels traced to it.

Both run on a few images and take about as long as some forward passes without freed memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from summit_graph.network import graph, operations
from summit_graph.network.channels import (
    LANE,
    Kind,
    Map,
    Step,
    carry,
    elements,
    gather,
    linear,
    lined,
)
from summit_graph.network.operations import Add, Mixer
from summit_graph.network.trace import Network, Target, Term


@dataclass(frozen=True)
class Completeness:
    """How far a target's terms are from its map.

    `difference`: the largest absolute difference; `scale`: the largest absolute value of the map;
    `skipped`: channels behind an activation that stands between a mixer and an add, for which the
    property is not defined.
    """

    target: str
    difference: float
    scale: float
    channels: int
    skipped: int

    @property
    def holds(self) -> bool:
        return self.difference <= 1e-4 * self.scale


@dataclass(frozen=True)
class Source:
    """What zeroing some neurons of a layer changed: input channels of mixers traced to them, and
    others (`strays`, which there should be none of)."""

    layer: str
    neurons: int
    changed: int
    strays: int

    @property
    def holds(self) -> bool:
        return self.strays == 0


def completeness(network: Network, images: Tensor) -> tuple[Completeness, ...]:
    """Test every target of a network, the logits too.

    Args:
        images: (images, C, H, W).
    """
    with torch.no_grad():
        values = graph.run(network.graph, images)
        return tuple(
            _target_completeness(network, target, values)
            for target in (*network.targets, network.logits)
        )


def _target_completeness(network: Network, target: Target, values: dict[Node, Any]) -> Completeness:
    name = "logits" if target.layer is None else network.layers[target.layer].name
    largest, scale, skipped = 0.0, 0.0, 0
    for end in dict.fromkeys(term.end for term in target.terms):
        terms = [term for term in target.terms if term.end is end]
        end_map = network.tracing.values[end]
        assert isinstance(end_map, Map)
        axis = end_map.axis
        assert axis is not None
        actual = lined(values[end], axis)
        silent = lined(_without_sources(network, end, values), axis)
        total = torch.zeros_like(actual)
        defined = torch.zeros(actual.shape[1], dtype=torch.bool)
        broken = torch.zeros(actual.shape[1], dtype=torch.bool)
        for term in terms:
            defined[term.end_channels] = True
            if term.mixer is not None and not all(linear(link.steps) for link in term.links):
                broken[term.end_channels] = True
                continue
            part = _term_map(network, term, values)
            total.index_add_(
                1, term.end_channels.to(total.device), part.expand(-1, -1, total.shape[2])
            )
        tested = defined & ~broken
        skipped += int(broken.sum())
        if bool(tested.any()):
            error = (actual - silent - total)[:, tested]
            largest = max(largest, float(error.abs().max()))
            scale = max(scale, float(actual[:, tested].abs().max()))
    return Completeness(name, largest, scale, target.channels, skipped)


def _term_map(network: Network, term: Term, values: dict[Node, Any]) -> Tensor:
    """(images, targets, positions): what a term adds at its end."""
    if term.mixer is not None:
        x = _mixed(network, term.mixer, term.neurons, values)[:, term.outputs]
    else:
        source = int(torch.bucketize(term.neurons[0], torch.tensor(network.offsets), right=True))
        x = _own(network, source - 1, term.outputs.tolist(), values)
    for place, link in enumerate(term.links):
        steps = link.steps
        if term.mixer is None and place == 0:
            last = max((n for n, s in enumerate(steps, 1) if not linear((s,))), default=0)
            x = carry(steps[:last], x, values, link.channels)
            steps = steps[last:]
        x = link.sign * carry(steps, x, values, link.channels, shifts=False)
    return x


def _own(network: Network, layer: int, channels: Sequence[int], values: dict[Node, Any]) -> Tensor:
    """(images, channels, positions) of a layer's own tensor."""
    return gather(values[network.nodes[layer]], network.maps[layer], 0, tuple(channels))


def _mixed(network: Network, mixer: Mixer, neurons: Tensor, values: dict[Node, Any]) -> Tensor:
    """(images, outputs, positions): the mixer run on its input built anew from the sources."""
    actual = values[mixer.image]
    built = torch.zeros_like(actual).reshape(len(actual), -1)
    where = mixer.input
    axis = 1 if mixer.convolution else len(where.shape) - 1
    along = where.full().movedim(axis, -1).reshape(-1, where.shape[axis])[0]
    for lane, strand in enumerate(where.strands):
        layer = network.makers[strand.maker]
        inputs = torch.nonzero((along >= 0) & (along // LANE == lane)).squeeze(1)
        traced = tuple(dict.fromkeys((along[inputs] % LANE).tolist()))
        first = {int(along[i] % LANE): int(neurons[i]) for i in reversed(inputs.tolist())}
        sources = [first[channel] - network.offsets[layer] for channel in traced]
        x = carry(strand.steps, _own(network, layer, sources, values), values, traced)
        index = elements(where, lane, traced).to(built.device)
        built[:, index.reshape(-1)] = x.expand(-1, -1, index.shape[1]).reshape(len(built), -1)
    result = _run_mixer(mixer, built.reshape(actual.shape), values, bias=False)
    return lined(result, 1 if mixer.convolution else result.ndim - 1)


def _run_mixer(mixer: Mixer, x: Tensor, values: dict[Node, Any], *, bias: bool) -> Tensor:
    changed = {**values, mixer.image: x}
    result = graph.call(mixer.node, changed)
    if bias:
        return result  # type: ignore[no-any-return]
    changed[mixer.image] = torch.zeros_like(x)
    return result - graph.call(mixer.node, changed)  # type: ignore[no-any-return]


def _without_sources(network: Network, end: Node, values: dict[Node, Any]) -> Tensor:
    """The value of `end` where every source neuron is silent: what biases and shifts make of it."""
    tracing = network.tracing
    layers = set(network.nodes)
    mixers = {m.node: m for m in tracing.makers if isinstance(m, Mixer)}
    under = {m.node: m.under for m in tracing.makers if isinstance(m, operations.Layer)}
    done: dict[Node, Any] = {}

    def value(node: Node) -> Any:
        if node not in done:
            done[node] = compute(node)
        return done[node]

    def compute(node: Node) -> Any:
        if node in layers and node is not end:
            return torch.zeros_like(values[node])
        if node in mixers:
            mixer = mixers[node]
            keep = (mixer.input.full() < 0).to(values[node].device)
            return _run_mixer(mixer, values[mixer.image] * keep, values, bias=True)
        paths = tracing.path.get(node)
        if paths is None:
            return values[node]
        found = under.get(node, tracing.values[node])
        first = found[0] if isinstance(found, list) and isinstance(found[0], Map) else found
        step = _last_step(first, node) if isinstance(first, Map) else None
        if step is not None and not linear((step,)):
            many = isinstance(found, list)
            return [torch.zeros_like(values[node][0])] if many else torch.zeros_like(values[node])
        if step is not None and step.affine is not None:
            factor, shift = step.affine(values)
            x = value(step.source)
            x = x if factor is None else x * factor
            x = x if shift is None else x + shift
            return [x] if isinstance(found, list) else x
        return graph.call(node, {**values, **{source: value(source) for source in paths}})

    result = value(end)
    assert isinstance(result, Tensor)
    return result


def _last_step(found: Map, node: Node) -> Step | None:
    """The step that a node's own operation added, if it changes values."""
    steps = [strand.steps[-1] for strand in found.strands if strand.steps]
    return next((step for step in steps if step.node is node), None)


def source(
    network: Network, image: Tensor, *, neurons: int = 4, seed: int = 0
) -> tuple[Source, ...]:
    """Zero some neurons of every layer, one at a time.

    Args:
        image: (1, C, H, W).
        neurons: how many of each layer.
        seed: which ones.
    """
    generator = torch.Generator().manual_seed(seed)
    found = []
    with torch.no_grad():
        values = graph.run(network.graph, image)
        repeated = graph.run(network.graph, image.expand(neurons, -1, -1, -1))
        for layer in network.layers:
            picked = torch.randperm(layer.channels, generator=generator)[:neurons]
            found.append(_layer_source(network, layer.number, picked, repeated, values))
    return tuple(found)


def _layer_source(
    network: Network,
    layer: int,
    picked: Tensor,
    values: dict[Node, Any],
    held: dict[Node, Any],
) -> Source:
    tracing = network.tracing
    node = network.nodes[layer]
    axis = network.maps[layer].axis
    assert axis is not None
    disturbed = values[node].clone().movedim(axis, 1)
    for image, channel in enumerate(picked.tolist()):
        disturbed[image, channel] = 0
    new: dict[Node, Any] = {node: disturbed.movedim(1, axis)}
    makers = {m.node: m for m in tracing.makers if m.node is not node}
    changed = strays = 0
    number = next(n for n, place in network.makers.items() if place == layer)
    for later in network.graph.nodes:
        paths = [p for p in tracing.path.get(later, ()) if p in new]
        if not paths:
            continue
        maker = makers.get(later)
        if isinstance(maker, Mixer):
            hit, stray = _compare(maker, number, picked, new[maker.image], values[maker.image])
            changed, strays = changed + hit, strays + stray
        elif isinstance(maker, Add):
            continue
        else:
            new[later] = _disturbed(network, later, new, values, held)
            if isinstance(maker, operations.Layer):
                del new[later]
    return Source(network.layers[layer].name, len(picked), changed, strays)


def _disturbed(
    network: Network,
    node: Node,
    new: dict[Node, Any],
    values: dict[Node, Any],
    held: dict[Node, Any],
) -> Any:
    """A node's value downstream of a zeroed neuron, gates and statistics held."""
    found = network.tracing.values[node]
    first = found[0] if isinstance(found, list) and isinstance(found[0], Map) else found
    step = _last_step(first, node) if isinstance(first, Map) else None
    if step is not None and step.kind is Kind.AFFINE and step.affine is not None:
        factor, shift = step.affine(held)
        x = new[step.source]
        x = x if factor is None else x * factor
        x = x if shift is None else x + shift
        return [x] if isinstance(found, list) else x
    paths = network.tracing.path[node]
    return graph.call(node, {**values, **{p: new[p] for p in paths if p in new}})


def _compare(
    mixer: Mixer, number: int, picked: Tensor, new: Tensor, old: Tensor
) -> tuple[int, int]:
    """Changed input elements' channels: those traced to the zeroed neuron, and the others."""
    numbers = mixer.input.full().reshape(-1)
    of_lane = torch.tensor([strand.maker for strand in mixer.input.strands] or [-1])
    makers = of_lane[(numbers // LANE).clamp(min=0)]
    tolerance = 1e-6 * float(old.abs().max())
    hits = strays = 0
    for image, channel in enumerate(picked.tolist()):
        moved = ((new[image] - old[image]).abs() > tolerance).reshape(-1).cpu()
        traced = (numbers >= 0) & (makers == number) & (numbers % LANE == channel)
        hits += int((moved & traced).any())
        strays += int((moved & ~traced).sum())
    return hits, strays

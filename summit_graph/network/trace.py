"""From a classifier to its layers, mixers and hops (docs/method.md, section 1).

1. Export the model as a flat graph of operations (`graph`).
2. Run each operation's rule on channel numbers (`operations`), and walk back from the logits: what
   lies on the way is the **path**; gates and statistics are beside it (`survey`).
3. Choose layers, by name or by default (`layers`), and run the rules again with each chosen
   layer's tensor as a maker of its own channels.
4. A maker on the path that another mixer reads, and that is no chosen layer, is a **hidden**
   layer. Number all layers in forward order.
5. For each layer behind the first chosen one, and for the logits, list the **terms** of every
   channel: mixers towards it and identities, each with the neurons it reads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn
from torch.fx import Node

from summit_graph.network import channels, graph, operations
from summit_graph.network.channels import LANE, Map, Step
from summit_graph.network.layers import (
    default_layers,
    maker_name,
    matching_layers,
    names_of,
    own_name,
)
from summit_graph.network.operations import Add, Mixer, Tracing
from summit_graph.network.survey import Survey, sizes_of, survey_of


@dataclass(frozen=True)
class Layer:
    """A layer of the network: `number` is its place in forward order, sizes at the model's input
    size; hidden where not `chosen`."""

    number: int
    name: str
    chosen: bool
    channels: int
    height: int
    width: int


@dataclass(frozen=True)
class Hop:
    """A pair of layers with a term from `source` to `target`; `mixers` names the modules that
    mix (none where only an identity joins them)."""

    number: int
    source: int
    target: int
    mixers: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Link:
    """A stretch of strand between a mixer or operand and the sum that it goes into.

    `channels`: for each target of the term, the channel of the stretch's maker.
    `sign`: the sum's own factor for it.
    """

    steps: tuple[Step, ...]
    channels: tuple[int, ...]
    sign: float


@dataclass(frozen=True, eq=False)
class Term:
    """What some channels of a target receive in one way.

    Attributes:
        targets: (targets,) channels of the target layer, or logits.
        mixer: the mixer, or None for an identity.
        outputs: (targets,) the mixer's output channels; for an identity the channels of the
            source layer.
        links: the stretches on the way to the sum, nearest to the mixer first; empty where the
            target is the mixer's own output.
        scale: (targets,) the constant factors `s` folded into the mixer.
        neurons: (mixer inputs,) number of the source neuron behind each input channel or feature,
            counted over all layers in forward order, -1 for none; for an identity (targets,).
        end: the node of the value that the term is a part of: the mixer's output, the sum, or for
            a channel that is passed on the target layer's own tensor; `end_channels`: (targets,)
            its channels there.
        operand: the node whose value an identity adds (or passes on), with `place`, its map, and
            `lane`.
    """

    targets: Tensor
    mixer: Mixer | None
    outputs: Tensor
    links: tuple[Link, ...]
    scale: Tensor
    neurons: Tensor
    end: Node
    end_channels: Tensor
    operand: Node | None = None
    place: Map | None = None
    lane: int = 0


@dataclass(frozen=True, eq=False)
class Target:
    """The terms of a layer's channels (`layer` is its number), or of the logits (None)."""

    layer: int | None
    channels: int
    terms: tuple[Term, ...]


@dataclass(frozen=True)
class Choice:
    """A tensor that can be chosen as a layer."""

    name: str
    channels: int
    height: int
    width: int


@dataclass(frozen=True, eq=False)
class Network:
    """A traced classifier: its layers, the hops between them, and how to compute them.

    The graph's output is the logits, a softmax behind them left out.
    `offsets[n]` is the number of layer n's first neuron, all layers counted in forward order;
    `nodes[n]` is the graph's node of layer n's tensor, `maps[n]` where its elements come from.
    `choices` is everything that could have been chosen, in forward order.
    """

    graph: graph.Graph
    shape: tuple[int, int, int]
    layers: tuple[Layer, ...]
    hops: tuple[Hop, ...]
    targets: tuple[Target, ...]
    logits: Target
    outputs: int
    offsets: tuple[int, ...]
    nodes: tuple[Node, ...]
    maps: tuple[Map, ...] = field(repr=False)
    makers: Mapping[int, int] = field(repr=False)
    tracing: Tracing = field(repr=False)
    choices: tuple[Choice, ...] = field(repr=False)

    @property
    def chosen(self) -> tuple[Layer, ...]:
        """The chosen layers, in forward order."""
        return tuple(layer for layer in self.layers if layer.chosen)

    @property
    def neurons(self) -> int:
        """The number of neurons of all layers, hidden ones too."""
        return sum(layer.channels for layer in self.layers)


def trace(
    module: nn.Module, shape: tuple[int, int, int], layers: Sequence[str] | None = None
) -> Network:
    """Trace a convolutional classifier.

    Args:
        module: in eval mode; takes (images, C, H, W), returns (images, outputs).
        shape: (C, H, W) of an image as the model gets it.
        layers: names or globs of the modules whose outputs are the layers; None for the default
            layers of docs/method.md, section 1.

    Raises:
        UnsupportedNetwork: the model cannot be exported, or the way from image to logits leads
            through an operation without a rule; the message names it and its module.
        UnknownLayer: a name or pattern matches nothing that can be a layer.
    """
    exported = graph.export(module, shape)
    return trace_graph(exported, module, shape, layers)


def trace_graph(
    exported: graph.Graph,
    module: nn.Module,
    shape: tuple[int, int, int],
    layers: Sequence[str] | None = None,
) -> Network:
    """`trace` for a model that was exported before."""
    survey = survey_of(exported)
    names = names_of(survey)
    if layers is None:
        chosen = default_layers(survey, module, names)
    else:
        chosen = matching_layers(layers, names, survey)
    possible = tuple(
        Choice(name, *sizes_of(survey.tracing.values[node])) for name, node in names.items()
    )
    return _network(exported, shape, chosen, possible)


def _network(
    exported: graph.Graph,
    shape: tuple[int, int, int],
    chosen: Mapping[Node, str],
    possible: tuple[Choice, ...],
) -> Network:
    survey = survey_of(exported, chosen)
    tracing, order = survey.tracing, exported.order
    makers = tracing.makers

    layer_of: dict[int, tuple[str, bool]] = {}
    for number, maker in enumerate(makers):
        if isinstance(maker, operations.Layer) and maker.node in survey.path:
            layer_of[number] = (chosen[maker.node], True)
    taken = {name for name, _ in layer_of.values()}
    read = {
        strand.maker
        for maker in makers
        if isinstance(maker, Mixer) and maker.node in survey.path
        for strand in maker.input.strands
    }
    for number in sorted(read):
        maker = makers[number]
        if number not in layer_of and not isinstance(maker, operations.Layer):
            name = maker_name(exported, maker)
            if name in taken:
                name = own_name(exported, maker)
            taken.add(name)
            layer_of[number] = (name, False)

    numbers = sorted(layer_of, key=lambda n: (order[makers[n].node], n))
    layers: list[Layer] = []
    maps: list[Map] = []
    for place, number in enumerate(numbers):
        name, is_chosen = layer_of[number]
        own = _own_map(makers[number], tracing)
        maps.append(own)
        layers.append(Layer(place, name, is_chosen, *sizes_of(own)))
    place_of = {number: place for place, number in enumerate(numbers)}
    offsets: list[int] = []
    total = 0
    for layer in layers:
        offsets.append(total)
        total += layer.channels

    builder = _Builder(survey, place_of, offsets)
    first = next((layer.number for layer in layers if layer.chosen), len(layers))
    targets = tuple(
        Target(place, layers[place].channels, builder.layer_terms(numbers[place]))
        for place in range(first + 1, len(layers))
    )
    logits_map = tracing.values[survey.logits]
    logits = Target(None, logits_map.shape[1], builder.terms(logits_map, survey.logits, None))
    return Network(
        graph=replace(exported, output=survey.logits),
        shape=shape,
        layers=tuple(layers),
        hops=_hops(targets, layers, offsets, exported),
        targets=targets,
        logits=logits,
        outputs=logits_map.shape[1],
        offsets=tuple(offsets),
        nodes=tuple(makers[number].node for number in numbers),
        maps=tuple(maps),
        makers=place_of,
        tracing=tracing,
        choices=possible,
    )


def _own_map(maker: operations.Maker, tracing: Tracing) -> Map:
    """The map of a maker's own tensor."""
    value = tracing.values[maker.node]
    assert isinstance(value, Map)
    return value


def _hops(
    targets: Sequence[Target], layers: Sequence[Layer], offsets: Sequence[int], g: graph.Graph
) -> tuple[Hop, ...]:
    bounds = torch.tensor([*offsets[1:], 1 << 62])
    found: dict[tuple[int, int], list[str]] = {}
    for target in targets:
        assert target.layer is not None
        for term in target.terms:
            neurons = term.neurons[term.neurons >= 0]
            sources = torch.bucketize(neurons, bounds, right=True).unique().tolist()
            for source in sources:
                names = found.setdefault((source, target.layer), [])
                if term.mixer is not None:
                    name = maker_name(g, term.mixer)
                    if name not in names:
                        names.append(name)
    return tuple(
        Hop(number, source, target, tuple(found[source, target]))
        for number, (source, target) in enumerate(sorted(found, key=lambda key: (key[1], key[0])))
    )


class _Builder:
    """Lists the terms of targets, given which makers are layers."""

    def __init__(self, survey: Survey, place_of: Mapping[int, int], offsets: Sequence[int]):
        self.tracing = survey.tracing
        self.path = survey.path
        self.place_of = place_of
        self.offsets = offsets
        self.neurons = {
            maker.node: self._neurons(maker.input.numbers, maker.input)
            for maker in self.tracing.makers
            if isinstance(maker, Mixer) and maker.node in survey.path
        }

    def _neurons(self, numbers: Tensor, where: Map) -> Tensor:
        """The source neuron behind each channel of a mixer's input."""
        axis = 1 if len(where.shape) == 4 and where.axis in (1, None) else where.axis
        assert axis is not None
        along = numbers.movedim(axis, -1).reshape(-1).expand(where.shape[axis])
        return self._neurons_of(along, where)

    def _neurons_of(self, numbers: Tensor, where: Map) -> Tensor:
        first = torch.tensor(
            [self._first(strand.maker) for strand in where.strands] or [-1], dtype=torch.int64
        )
        lanes = (numbers // LANE).clamp(min=0)
        neuron = first[lanes] + numbers % LANE
        return torch.where((numbers < 0) | (first[lanes] < 0), -1, neuron)

    def _first(self, maker: int) -> int:
        return self.offsets[self.place_of[maker]] if maker in self.place_of else -1

    def layer_terms(self, number: int) -> tuple[Term, ...]:
        """The terms of a layer's own channels."""
        maker = self.tracing.makers[number]
        if isinstance(maker, operations.Layer):
            return self.terms(maker.under, maker.node, number)
        own = _own_map(maker, self.tracing)
        assert own.axis is not None
        every = torch.arange(own.shape[own.axis])
        return self._maker_terms(number, every, every)

    def terms(self, where: Map, node: Node, own: int | None) -> tuple[Term, ...]:
        """The terms of a tensor's channels, whatever made each of them."""
        numbers = where.channels()
        found: list[Term] = []
        for lane, strand in enumerate(where.strands):
            places = torch.nonzero((numbers >= 0) & (numbers // LANE == lane)).squeeze(1)
            made = numbers[places] % LANE
            if strand.maker in self.place_of and strand.maker != own:
                end = (node, places)
                found.append(self._identity(places, made, strand.maker, (), node, where, lane, end))
            else:
                found.extend(self._maker_terms(strand.maker, places, made))
        return tuple(found)

    def _maker_terms(
        self,
        number: int,
        targets: Tensor,
        made: Tensor,
        links: tuple[Link, ...] = (),
        end: tuple[Node, Tensor] | None = None,
    ) -> tuple[Term, ...]:
        """The terms that a mixer or a sum gives `targets`, by its channels `made`."""
        maker = self.tracing.makers[number]
        end = end or (maker.node, made)
        if isinstance(maker, Mixer):
            scale = self._constants(links) if links else self._folded(maker)[made]
            return (Term(targets, maker, made, links, scale, self.neurons[maker.node], *end),)
        assert isinstance(maker, Add), "a layer's terms are identities"
        found: list[Term] = []
        for operand in maker.operands:
            value = operand.map
            axis = _sum_axis_of(maker, self.tracing)
            numbers = value.full().movedim(axis, -1)
            along = numbers.reshape(-1, numbers.shape[-1])[0][made]
            for lane, strand in enumerate(value.strands):
                places = torch.nonzero((along >= 0) & (along // LANE == lane)).squeeze(1)
                if not len(places):
                    continue
                kept = tuple(_narrowed(link, places) for link in links)
                channel = along[places] % LANE
                link = Link(strand.steps, tuple(channel.tolist()), operand.factor)
                if strand.maker in self.place_of:
                    found.append(
                        self._identity(
                            targets[places],
                            channel,
                            strand.maker,
                            (link, *kept),
                            operand.node,
                            value,
                            lane,
                            (end[0], end[1][places]),
                        )
                    )
                else:
                    found.extend(
                        self._maker_terms(
                            strand.maker,
                            targets[places],
                            channel,
                            (link, *kept),
                            (end[0], end[1][places]),
                        )
                    )
        return tuple(found)

    def _identity(
        self,
        targets: Tensor,
        made: Tensor,
        maker: int,
        links: tuple[Link, ...],
        operand: Node,
        place: Map,
        lane: int,
        end: tuple[Node, Tensor],
    ) -> Term:
        if not links:
            links = (Link(place.strands[lane].steps, tuple(made.tolist()), 1.0),)
        neurons = made + self._first(maker)
        scale = torch.ones(len(targets))
        return Term(targets, None, made, links, scale, neurons, *end, operand, place, lane)

    def _constants(self, links: Sequence[Link]) -> Tensor:
        """(targets,) the constant factors on the way to a sum, alike at all positions."""
        scale = torch.ones(len(links[0].channels))
        for link in links:
            found = channels.factor(
                link.steps, self.tracing.graph.constants, link.channels, constant=True
            )
            if found is not None and found.shape[2] == 1:
                scale = scale * found[0, :, 0].cpu()
            scale = scale * link.sign
        return scale

    def _folded(self, mixer: Mixer) -> Tensor:
        """(outputs,) the constant factors directly behind a mixer, its only reader.

        None lies behind a chosen layer's own tensor, nor one that differs between positions.
        """
        own = _own_map(mixer, self.tracing)
        assert own.axis is not None
        size = own.shape[own.axis]
        scale = torch.ones(size)
        if isinstance(self.tracing.makers[own.strands[0].maker], operations.Layer):
            return scale
        under = {
            layer.node: layer.under
            for layer in self.tracing.makers
            if isinstance(layer, operations.Layer)
        }
        node = mixer.node
        while len(node.users) == 1 and node not in under:
            (node,) = node.users
            value = under.get(node, self.tracing.values.get(node))
            value = value[0] if isinstance(value, list) and value else value
            if (
                not isinstance(value, Map)
                or len(value.strands) != 1
                or value.strands[0].maker != own.strands[0].maker
                or not all(s.constant for s in value.strands[0].steps)
                or not ({node, *node.users} & self.path)
            ):
                break
            kept = (value.numbers[value.numbers >= 0] % LANE).unique()
            found = channels.factor(
                value.strands[0].steps,
                self.tracing.graph.constants,
                tuple(kept.tolist()),
                constant=True,
            )
            if found is not None:
                if found.shape[2] != 1:
                    break
                scale[kept] = found[0, :, 0].cpu()
        return scale


def _sum_axis_of(maker: Add, tracing: Tracing) -> int:
    axis = _own_map(maker, tracing).axis
    assert axis is not None
    return axis


def _narrowed(link: Link, places: Tensor) -> Link:
    return Link(link.steps, tuple(link.channels[p] for p in places.tolist()), link.sign)

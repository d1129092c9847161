"""A trace that is wrong on purpose fails completeness, source or the reference: which one, here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import reference
import torch
from small_networks import (
    MOTIFS,
    Builder,
    Described,
    described,
    eligible,
    gated_sum,
    grouped,
    head_mean,
    module_name,
    plain,
    projection,
    split_shuffle,
    strided_shortcut,
)
from torch import Tensor

from summit_graph.aggregate.influence import Influences
from summit_graph.aggregate.kernels.plain import strongest
from summit_graph.network import graph, operations
from summit_graph.network.channels import Map
from summit_graph.network.check import completeness, source
from summit_graph.network.operations import RULES, aten
from summit_graph.network.trace import Network, Target, Term, _Builder, trace

Motif = Callable[[Builder, int], int]


def made(motif: Motif, *, exact: bool = False) -> reference.Description:
    return described([motif, plain], head_mean, 1, exact=exact)


def traced(description: reference.Description, chosen: list[int] | None = None) -> Network:
    places = eligible(description)[:1] if chosen is None else chosen
    names = [module_name(description, place) for place in places]
    return trace(Described(description).eval(), description.shape, names)


def image_of(network: Network) -> Tensor:
    return torch.randn(2, *network.shape, generator=torch.Generator().manual_seed(0))


def complete(network: Network) -> bool:
    return all(found.holds for found in completeness(network, image_of(network)))


def right_sources(network: Network) -> bool:
    return all(found.holds for found in source(network, image_of(network)[:1], neurons=99))


def with_terms(network: Network, change: Callable[[Target], Target]) -> Network:
    return replace(network, targets=tuple(change(target) for target in network.targets))


@pytest.mark.parametrize("motif", [projection, gated_sum, split_shuffle, strided_shortcut])
def test_a_right_trace_passes(motif: Motif) -> None:
    network = traced(made(motif))
    assert complete(network)
    assert right_sources(network)


def test_two_swapped_sources_are_incomplete() -> None:
    network = traced(made(projection))

    def swapped(term: Term) -> Term:
        neurons = term.neurons.clone()
        neurons[[0, 1]] = neurons[[1, 0]]
        return replace(term, neurons=neurons)

    broken = with_terms(network, lambda t: replace(t, terms=tuple(map(swapped, t.terms))))
    assert not complete(broken)


@pytest.mark.parametrize("motif", [split_shuffle, grouped])
def test_a_shuffle_that_is_not_followed_is_wrong_in_its_sources(
    motif: Motif, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The channels of a concatenation or shuffle taken in their old order."""

    def in_order(t: Any, node: Any, a: dict[str, Any]) -> Any:
        value = operations.move(t, node, a)
        if isinstance(value, Map) and len(value.axes) == 1 and len(value.shape) == 4:
            numbers = value.numbers.reshape(-1).sort().values.reshape(value.numbers.shape)
            return replace(value, numbers=numbers)
        return value

    for packet, rule in list(RULES.items()):
        if rule is operations.move:
            monkeypatch.setitem(RULES, packet, in_order)
    network = traced(made(motif))
    assert not right_sources(network)
    assert not complete(network)


def test_a_dropped_term_is_incomplete() -> None:
    network = traced(made(projection))
    broken = with_terms(network, lambda target: replace(target, terms=target.terms[1:]))
    assert not complete(broken)


def test_a_gate_left_out_is_incomplete(monkeypatch: pytest.MonkeyPatch) -> None:
    def without_gate(t: Any, node: Any, a: dict[str, Any]) -> Any:
        value = operations.multiply(t, node, a)
        if isinstance(value, Map) and not t.constant(a["other"]):
            return t.values[a["self"]]
        return value

    monkeypatch.setitem(RULES, aten.mul, without_gate)
    assert not complete(traced(made(gated_sum)))


def test_a_stride_of_the_shortcut_ignored_is_incomplete(monkeypatch: pytest.MonkeyPatch) -> None:
    """The shortcut's positions taken from the first row of the map on, without gaps."""

    def without_stride(t: Any, node: Any, a: dict[str, Any]) -> Any:
        value = operations.slice_(t, node, a)
        if isinstance(value, Map) and a["step"] == 2:
            axis, size = a["dim"], value.shape[a["dim"]]
            step = replace(value.strands[0].steps[-1], change=lambda x: x.narrow(axis, 0, size))
            strand = replace(value.strands[0], steps=(*value.strands[0].steps[:-1], step))
            return replace(value, strands=(strand,))
        return value

    monkeypatch.setitem(RULES, aten.slice, without_stride)
    network = traced(made(strided_shortcut))
    assert not complete(network)


def test_the_sign_of_a_norm_lost_before_an_add_is_incomplete(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def unsigned(t: Any, node: Any, a: dict[str, Any]) -> Any:
        value = operations.batch_norm(t, node, a)
        (strand,) = value[0].strands
        step = strand.steps[-1]
        affine = step.affine
        changed = replace(step, affine=lambda values: (affine(values)[0].abs(), affine(values)[1]))
        strand = replace(strand, steps=(*strand.steps[:-1], changed))
        return [replace(value[0], strands=(strand,)), None, None]

    monkeypatch.setitem(RULES, aten._native_batch_norm_legit_no_training, unsigned)
    assert not complete(traced(made(projection)))


def influences(network: Network, image: Tensor) -> list[list[list[float]]]:
    """Per target layer and channel all influences above 0, by falling value."""
    found = []
    values = graph.run(network.graph, image)
    for target in network.targets:
        made = Influences(network, target, strongest, 99, 1 << 30)
        every: list[list[float]] = [[] for _ in range(target.channels)]
        for targets, best in made.strongest(values):
            for row, channel in enumerate(targets.tolist()):
                every[channel] = [v for v in best.influence[0, row].tolist() if v > 0]
        found.append(every)
    return found


def equal_to_reference(
    description: reference.Description, chosen: list[int], network: Network
) -> bool:
    """Every influence equal to the reference's, to 1e-5 of the largest."""
    image = np.random.default_rng(0).integers(-2, 3, description.shape).astype(np.float64)
    every = reference.layers(description, chosen)
    found = influences(network, torch.tensor(image[None], dtype=torch.float32))
    for place, target in enumerate(reference.computed(every)):
        terms = reference.contributions(description, image, chosen, target)
        for channel, own in enumerate(terms):
            expected = sorted(reference.influences(own).values(), reverse=True)
            expected = [value for value in expected if value > 1e-6]
            values = [value for value in found[place][channel] if value > 1e-6]
            if len(values) != len(expected) or not np.allclose(values, expected, 1e-5, 1e-5):
                return False
    return True


@pytest.mark.slow
@pytest.mark.parametrize("motif", MOTIFS, ids=lambda motif: motif.__name__)
def test_every_influence_equals_the_reference(motif: Motif) -> None:
    """Not the strongest alone, and not its place alone: all values."""
    description = made(motif)
    chosen = eligible(description)[::3]
    assert equal_to_reference(description, chosen, traced(description, chosen))


def test_the_sign_of_a_folded_norm_lost_is_seen_by_the_reference(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Completeness cannot see it: it compares with the mixer's own output."""
    description = made(grouped)
    chosen = eligible(description)[:1]
    assert equal_to_reference(description, chosen, traced(description, chosen))
    folded = _Builder._folded
    monkeypatch.setattr(_Builder, "_folded", lambda self, mixer: folded(self, mixer).abs())
    network = traced(description, chosen)
    assert complete(network)
    assert not equal_to_reference(description, chosen, network)


@pytest.mark.parametrize("change", [{"stride": (1, 1)}, {"padding": (0, 0, 0, 0)}])
def test_a_mixer_read_wrongly_is_seen_by_the_reference(change: dict[str, Any]) -> None:
    """Completeness runs the mixer's own operation, the influence what was read from it."""
    description = made(projection)
    chosen = eligible(description)[:1]
    network = traced(description, chosen)

    def read_wrongly(term: Term) -> Term:
        return (
            term
            if term.mixer is None or term.links
            else replace(term, mixer=replace(term.mixer, **change))
        )

    broken = with_terms(network, lambda t: replace(t, terms=tuple(map(read_wrongly, t.terms))))
    assert equal_to_reference(description, chosen, network)
    assert not equal_to_reference(description, chosen, broken)

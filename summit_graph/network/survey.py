"""One pass of the rules over a network's graph (docs/method.md, section 1).

1. Every operation's rule is run on channel numbers, in forward order. Where a layer was chosen, its
   tensor becomes a maker of its own channels.
2. From the logits back, the **path** is followed through the operands that carry channels; gates
   and statistics are beside it. Where it meets what no rule can follow, the network is refused.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch.fx import Node

from summit_graph.errors import UnsupportedNetwork
from summit_graph.network import channels, graph, operations
from summit_graph.network.channels import Map
from summit_graph.network.operations import Lost, Mixer, Tracing


@dataclass(frozen=True, eq=False)
class Survey:
    """One pass of the rules: what is on the path, and the logits' node."""

    tracing: Tracing
    logits: Node
    path: frozenset[Node]


def survey_of(exported: graph.Graph, chosen: Iterable[Node] = ()) -> Survey:
    """Run every rule, in forward order; a chosen node's channels become a maker's."""
    tracing = Tracing(exported)
    boundaries = set(chosen)
    image = exported.image
    tracing.values[image] = channels.nowhere(operations.shape_of(image))
    for node in exported.nodes:
        if node in exported.constants or node is image:
            continue
        value = operations.trace_node(tracing, node)
        if node in boundaries and isinstance(value, Map):
            assert value.axis is not None
            value = tracing.make(operations.Layer(node, value), value.axis)
        tracing.values[node] = value

    logits = exported.output
    while getattr(logits.target, "overloadpacket", None) in (
        torch.ops.aten.softmax,
        torch.ops.aten._softmax,
        torch.ops.aten.log_softmax,
        torch.ops.aten.sigmoid,
    ):
        logits = logits.all_input_nodes[0]
    path: set[Node] = set()
    stack = [logits]
    while stack:
        node = stack.pop()
        if node in path:
            continue
        path.add(node)
        value = tracing.values.get(node)
        if isinstance(value, Lost):
            raise UnsupportedNetwork(_refusal(exported, value))
        stack.extend(tracing.path.get(node, ()))
    value = tracing.values.get(logits)
    if (
        not isinstance(value, Map)
        or value.axis is None
        or not any(isinstance(maker, Mixer) for maker in tracing.makers)
    ):
        raise UnsupportedNetwork(
            "no convolution or linear layer leads from the image to the output"
        )
    if len(value.shape) < 2 or value.axis != 1 or any(n != 1 for n in value.shape[2:]):
        sizes = ", ".join(map(str, value.shape[1:]))
        raise UnsupportedNetwork(
            f"the model returns a tensor of shape (images, {sizes}); a classifier returns one "
            "logit per class: (images, classes)"
        )
    return Survey(tracing, logits, frozenset(path))


def _refusal(exported: graph.Graph, lost: Lost) -> str:
    where = exported.place(lost.node)
    what = f"{lost.node.target} in {where} {lost.reason}"
    if "attention" in lost.reason:
        return (
            f"attention is not supported: {what}. summit-graph traces convolutional classifiers "
            "only."
        )
    return (
        f"the way from image to logits cannot be traced: {what}. summit-graph needs each channel "
        "to be followed from mixer to mixer; write that part with convolutions, activations, "
        "pools, normalisation, adds and concatenation, or add a rule for the operation "
        "(CONTRIBUTING.md)."
    )


def sizes_of(value: Map) -> tuple[int, int, int]:
    """Channels, height, width."""
    assert value.axis is not None
    spatial = (*value.spatial, 1, 1)
    return value.shape[value.axis], spatial[0], spatial[1]

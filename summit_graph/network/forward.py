"""One forward pass that shows what it is asked for and keeps nothing longer than it must.

The graph's operations run in order. An observation names the values that it needs; it is made as
soon as the last of them is there, and a value is freed once nothing reads it any more. So all
layers and all hops are seen in one pass, and the memory is that of the pass itself plus what an
observation holds back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from summit_graph.network import graph
from summit_graph.network.channels import Step, Values
from summit_graph.network.trace import Network


@dataclass(frozen=True, eq=False)
class Observation:
    """What to do once the values of some nodes are known.

    `observe` gets the values by node; those named in `needs`, and the constants, are there.
    """

    needs: frozenset[Node]
    observe: Callable[[Values], None]


class Forward:
    """A network's forward pass with observations."""

    def __init__(self, network: Network, observations: Sequence[Observation]):
        exported = network.graph
        self._graph = exported
        order = exported.order
        wanted: set[Node] = set()
        stack = [exported.output, *(n for o in observations for n in o.needs)]
        while stack:
            node = stack.pop()
            if node not in wanted:
                wanted.add(node)
                stack.extend(node.all_input_nodes)
        self._nodes = [
            node for node in exported.nodes if node in wanted and node not in exported.constants
        ]
        self._ready: dict[Node, list[Observation]] = {}
        last = {node: node for node in self._nodes}
        for node in self._nodes:
            for source in node.all_input_nodes:
                if source in last:
                    last[source] = node
        for observation in observations:
            needs = [node for node in observation.needs if node in last]
            at = max(needs, key=order.__getitem__)
            self._ready.setdefault(at, []).append(observation)
            for node in needs:
                last[node] = max(last[node], at, key=order.__getitem__)
        self._freed: dict[Node, list[Node]] = {}
        for node, at in last.items():
            if node is not exported.output:
                self._freed.setdefault(at, []).append(node)

    def __call__(self, images: Tensor) -> Tensor:
        """The logits of (images, C, H, W); makes every observation on the way."""
        values: dict[Node, Any] = dict(self._graph.constants)
        values[self._graph.image] = images
        with torch.no_grad():
            for node in self._nodes:
                if node is not self._graph.image:
                    values[node] = graph.call(node, values)
                for observation in self._ready.get(node, ()):
                    observation.observe(values)
                for used in self._freed.get(node, ()):
                    del values[used]
        logits = values[self._graph.output]
        assert isinstance(logits, Tensor)
        return logits.flatten(1)


def step_needs(steps: Iterable[Step]) -> set[Node]:
    """The nodes whose values the factors and shifts on a strand are read from."""
    needs: set[Node] = set()
    for step in steps:
        needs.add(step.source)
        needs.update(step.node.all_input_nodes)
        for branch in step.branches or ():
            needs |= step_needs(branch)
    return needs

"""Which tensors are layers, and what they are called (docs/method.md, section 1).

A tensor can be a layer if it lies on the path, before the logits' own mixer, and each of its
channels comes from one maker's channel. It has the name of the module call that returns it, or one
made of the innermost module and the operation.

By default the layers are the outputs of the network's **blocks**: modules that hold two mixers or
more and lie in no other such module. The network itself is none, nor is a module that only runs
its children in turn, nor one that holds all the others. Where there are fewer than two blocks, the
layers are the outputs of the convolutions, each behind its normalisation and activation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from torch import nn
from torch.fx import Node

from summit_graph.errors import UnknownLayer
from summit_graph.network import graph, operations
from summit_graph.network.channels import Map
from summit_graph.network.operations import Mixer
from summit_graph.network.survey import Survey


def _can_be_layer(value: object) -> bool:
    if not isinstance(value, Map) or value.axis is None or not value.strands:
        return False
    numbers = value.channels()
    own = numbers[numbers >= 0]
    return len(own) == len(own.unique())


def names_of(survey: Survey) -> dict[str, Node]:
    """Every name that a layer can have, with its node, in forward order."""
    exported, tracing = survey.tracing.graph, survey.tracing
    found: dict[str, Node] = {}
    behind = _leading_only_to_logits(survey)
    for node in exported.nodes:
        if node not in survey.path or not _can_be_layer(tracing.values.get(node)):
            continue
        if node in behind:
            continue
        for name in exported.returned.get(node, ()):
            if name:
                found.setdefault(name, node)
    for maker in tracing.makers:
        node = maker.node
        if node in survey.path and node not in behind:
            name = maker_name(exported, maker)
            if not exported.returned.get(node):
                found.setdefault(name, node)
    return dict(sorted(found.items(), key=lambda item: exported.order[item[1]]))


def _leading_only_to_logits(survey: Survey) -> set[Node]:
    """The nodes between which and the logits only channel-preserving operations stand."""
    makers = {maker.node for maker in survey.tracing.makers}
    found: set[Node] = set()
    stack = [survey.logits]
    while stack:
        node = stack.pop()
        if node not in found:
            found.add(node)
            if node not in makers:
                stack.extend(survey.tracing.path.get(node, ()))
    return found


def maker_name(exported: graph.Graph, maker: operations.Maker) -> str:
    """The name of a mixer, or of a sum.

    A mixer's is that of the innermost module call that runs it, a sum's that of the module that
    returns it; where there is none, `<innermost module>/conv2d`, `/add`, `/add_1`, … in forward
    order.
    """
    node = maker.node
    scope = exported.scope[node]
    inner = scope[-1] if scope else ""
    if isinstance(maker, Mixer):
        alone = [n for n in exported.nodes if exported.scope[n] == scope and _mixes(n)]
        return inner if inner and len(alone) == 1 else own_name(exported, maker)
    behind = node
    while True:
        names = exported.returned.get(behind, ())
        own = [name for name in names if name.split("[")[0] == inner]
        if own or (names and behind is node):
            return (own or names)[0]
        users = [user for user in behind.users if exported.scope[user][: len(scope)] == scope]
        if len(users) != 1 or len(users[0].all_input_nodes) != 1 or _mixes(users[0]):
            break
        behind = users[0]
    return own_name(exported, maker)


def own_name(exported: graph.Graph, maker: operations.Maker) -> str:
    """`<innermost module>/add`, `/add_1`, …: the name of a tensor that no module returns."""
    scope = exported.scope[maker.node]
    mixes = isinstance(maker, Mixer)
    alike = [
        node
        for node in exported.nodes
        if exported.scope[node] == scope
        and node not in exported.constants
        and (_mixes(node) if mixes else _adds(node))
    ]
    kind = str(maker.node.target).split(".")[1] if mixes else "add"
    return f"{scope[-1] if scope else ''}/{_counted(kind, alike.index(maker.node))}"


def _counted(kind: str, place: int) -> str:
    return f"{kind}_{place}" if place else kind


def _mixes(node: Node) -> bool:
    packet = getattr(node.target, "overloadpacket", None)
    return operations.RULES.get(packet) in (
        operations.convolution,
        operations.linear,
        operations.product,
    )


def _adds(node: Node) -> bool:
    packet = getattr(node.target, "overloadpacket", None)
    rules = (operations.add, operations.subtract, operations.subtract_from)
    return operations.RULES.get(packet) in rules


def default_layers(survey: Survey, module: nn.Module, names: Mapping[str, Node]) -> dict[Node, str]:
    """The outputs of the network's blocks, or of its mixers where it has no blocks."""
    exported = survey.tracing.graph
    mixers = [m for m in survey.tracing.makers if isinstance(m, Mixer) and m.node in survey.path]
    held: dict[str, int] = {}
    for mixer in mixers:
        for name in exported.scope[mixer.node]:
            held[name] = held.get(name, 0) + 1
    parts = dict(module.named_modules())
    blocks = {
        name
        for name, count in held.items()
        if count >= 2 and not _container(parts[name.split("@")[0]])
    }
    returns = _returns(names)
    blocks = {name for name in blocks if name in returns}
    while True:
        outer = {
            name
            for name in blocks
            if not any(other != name and _inside(name, other, exported, mixers) for other in blocks)
        }
        if len(outer) != 1:
            break
        blocks -= outer
    if len(outer) >= 2:
        return {node: name for block in outer for name, node in returns[block].items()}
    return _mixer_outputs(survey, mixers, names, held)


def _returns(names: Mapping[str, Node]) -> dict[str, dict[str, Node]]:
    """Per module call, its returned layers: one, or the items of a list."""
    found: dict[str, dict[str, Node]] = {}
    for name, node in names.items():
        found.setdefault(name.split("[")[0], {})[name] = node
    return found


def _inside(name: str, other: str, exported: graph.Graph, mixers: Sequence[Mixer]) -> bool:
    """Whether one module call runs within another."""
    scope = next(exported.scope[m.node] for m in mixers if name in exported.scope[m.node])
    return other in scope[: scope.index(name)]


def _container(part: nn.Module) -> bool:
    """A module that only runs its children in turn."""
    return type(part).forward in (nn.Sequential.forward, nn.Module.forward)


def _mixer_outputs(
    survey: Survey, mixers: Sequence[Mixer], names: Mapping[str, Node], held: Mapping[str, int]
) -> dict[Node, str]:
    """Each convolution's output behind its normalisation and activation.

    Fully connected layers take part only in a network that has no convolution (or one).
    """
    spatial = [m for m in mixers if m.convolution]
    by_node: dict[Node, list[str]] = {}
    for name, node in names.items():
        by_node.setdefault(node, []).append(name)
    chosen: dict[Node, str] = {}
    for mixer in spatial if len(spatial) > 1 else mixers:
        node, best = mixer.node, None
        while True:
            if node in by_node:
                best = node
            users = [user for user in node.users if user in survey.path or _item(user)]
            if len(users) != 1 or len(node.users) != 1 or not _finishes(users[0]):
                break
            node = users[0]
        if best is not None:
            options = [n for n in by_node[best] if held.get(n, 0) <= 1]
            chosen[best] = (options or by_node[best])[-1]
    if not chosen:
        raise UnknownLayer(
            "the network has no layer before its logits, so there is nothing to show"
        )
    return chosen


def _item(node: Node) -> bool:
    return node.target is graph.GETITEM


def _finishes(node: Node) -> bool:
    """Normalisation, activation, or what changes nothing."""
    if _item(node):
        return True
    rule = operations.RULES.get(getattr(node.target, "overloadpacket", None))
    return rule in (
        operations.batch_norm,
        operations.group_norm,
        operations.instance_norm,
        operations.layer_norm,
        operations.pointwise,
        operations.prelu,
        operations.identity,
    )


def matching_layers(
    patterns: Sequence[str], names: Mapping[str, Node], survey: Survey
) -> dict[Node, str]:
    """The layers that names and globs choose; a tensor with several names keeps the first."""
    if not patterns:
        raise UnknownLayer("no layer is named: give names or globs, or leave the choice out")
    chosen: dict[Node, str] = {}
    for pattern in patterns:
        if pattern in names:
            chosen[names[pattern]] = pattern
            continue
        items = {n: node for n, node in names.items() if n.split("[")[0] == pattern}
        found = items or {n: node for n, node in names.items() if fnmatchcase(n, pattern)}
        if not found:
            raise UnknownLayer(_no_such_layer(pattern, names, survey))
        for name, node in found.items():
            chosen.setdefault(node, name)
    return chosen


def _no_such_layer(pattern: str, names: Mapping[str, Node], survey: Survey) -> str:
    returned = {n: node for node, own in survey.tracing.graph.returned.items() for n in own}
    shown = ", ".join(list(names)[:12]) + (", …" if len(names) > 12 else "")
    if pattern in returned:
        node = returned[pattern]
        if node in survey.path:
            why = "its tensor holds logits or no single axis of channels"
        else:
            why = "it is not on the way from image to logits"
        return f"'{pattern}' cannot be a layer: {why}. This model's layers: {shown}."
    return (
        f"no layer matches '{pattern}'. This model has: {shown}. "
        "`summit-graph layers --model … --all` lists every one."
    )

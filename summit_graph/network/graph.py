"""A classifier as a flat graph of tensor operations (docs/method.md, section 1).

1. Every module gets a hook that passes what it returns through a marker operation, so that the
   exported graph says which tensor a module returned, and in which order modules returned.
2. `torch.export` traces the model with a free batch size, and writes operations that change a
   tensor in place as operations that return a new one.
3. The markers are taken out again; the names they carried stay with the tensors.
4. What depends on parameters alone (standardised weights, say) is computed once.
"""

from __future__ import annotations

import logging
import operator
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from io import StringIO
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Node

from summit_graph.errors import UnsupportedNetwork

_MARKER = "summit_graph::returned"


@torch.library.custom_op(_MARKER, mutates_args=())
def _returned(tensor: Tensor, module: str, item: int) -> Tensor:
    return tensor.clone()


@_returned.register_fake
def _(tensor: Tensor, module: str, item: int) -> Tensor:
    return torch.empty_like(tensor)


@dataclass(frozen=True, eq=False)
class Graph:
    """A traced classifier.

    `nodes` are the operations in forward order; `image` is the node of the input batch, `output`
    the node of the logits. `constants` holds the value of every node that no image changes.
    `returned` gives the names of the module calls that return a node's value: `layer1.0`,
    `block@1` for a second call, `stage[1]` for an item of a list. `scope` is, per node, the
    names of the module calls it lies in, outermost first, the network itself ("") left out.
    `order` is a node's place in the forward pass.
    """

    nodes: tuple[Node, ...]
    image: Node
    output: Node
    constants: Mapping[Node, Any]
    returned: Mapping[Node, tuple[str, ...]]
    scope: Mapping[Node, tuple[str, ...]]
    order: Mapping[Node, int] = field(repr=False)

    def place(self, node: Node) -> str:
        """The innermost module call that runs a node, in words for an error."""
        scope = self.scope[node]
        return f"module '{scope[-1]}'" if scope else "the network's own forward"


def export(module: nn.Module, shape: tuple[int, int, int]) -> Graph:
    """Trace a classifier.

    Args:
        module: in eval mode, on any device; takes (images, C, H, W) and returns (images, outputs).
        shape: (C, H, W) of one image.

    Raises:
        UnsupportedNetwork: `torch.export` cannot trace it (control flow that depends on values,
            operations outside PyTorch), or the exported graph computes something else.
    """
    if module.training:
        raise UnsupportedNetwork("the model is in training mode: call model.eval() first")
    like = next((t for t in (*module.parameters(), *module.buffers())), torch.zeros(()))
    example = torch.randn(
        (2, *shape), generator=torch.Generator().manual_seed(0), dtype=torch.float32
    ).to(like.device)
    try:
        with torch.no_grad(), _marked(module), _quiet():
            program = torch.export.export(
                module,
                (example,),
                dynamic_shapes=({0: torch.export.Dim("images", min=1, max=4096)},),
                strict=False,
            ).run_decompositions({})
    except Exception as error:
        raise UnsupportedNetwork(_export_failure(error)) from error
    graph = _read(program, module)
    _check_export(module, graph, example)
    return graph


def run(graph: Graph, images: Tensor) -> dict[Node, Any]:
    """Every value of the forward pass; for checks on small batches, since nothing is freed."""
    values: dict[Node, Any] = dict(graph.constants)
    values[graph.image] = images
    for node in graph.nodes:
        if node not in values:
            values[node] = call(node, values)
    return values


def call(node: Node, values: Mapping[Node, Any]) -> Any:
    """One operation's result, its inputs taken from `values`."""
    args = torch.fx.map_arg(node.args, values.__getitem__)
    kwargs = torch.fx.map_arg(node.kwargs, values.__getitem__)
    target: Any = node.target
    return target(*args, **kwargs)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the log of `torch.export`: what matters of it is in our own error."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with redirect_stderr(StringIO()), redirect_stdout(StringIO()):
            yield
    finally:
        logging.disable(before)


@contextmanager
def _marked(module: nn.Module) -> Iterator[None]:
    """Hooks that mark what each module returns."""
    calls: dict[str, int] = {}

    def begin(_module: nn.Module, _inputs: Any) -> None:
        calls.clear()

    def mark(name: str) -> Callable[[nn.Module, Any, Any], Any]:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> Any:
            number = calls.get(name, 0)
            calls[name] = number + 1
            call_name = _numbered(name, number)
            if isinstance(output, Tensor):
                return _mark(output, call_name, -1)
            if type(output) in (list, tuple):
                return type(output)(_mark(item, call_name, n) for n, item in enumerate(output))
            return output

        return hook

    hooks = [module.register_forward_pre_hook(begin)]
    hooks += [part.register_forward_hook(mark(name)) for name, part in module.named_modules()]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _mark(value: Any, name: str, item: int) -> Any:
    is_map = isinstance(value, Tensor) and value.is_floating_point() and value.ndim > 0
    return _returned(value, name, item) if is_map else value


def _read(program: torch.export.ExportedProgram, module: nn.Module) -> Graph:
    fx_graph = program.graph_module.graph
    marker = torch.ops.summit_graph.returned.default
    returned: dict[Node, list[str]] = {}
    scope: dict[Node, tuple[str, ...]] = {}
    nodes: list[Node] = []
    call_names = _CallNames(module)

    for node in list(fx_graph.nodes):
        if node.op == "call_function" and node.target is marker:
            source, name, item = node.args
            node.replace_all_uses_with(source)
            fx_graph.erase_node(node)
            returned.setdefault(source, []).append(name if item < 0 else f"{name}[{item}]")
            continue
        if node.op == "output":
            break
        stack = (node.meta.get("nn_module_stack") or {}).items()
        scope[node] = tuple(call_names(key, str(entry[0])) for key, entry in stack if entry[0])
        nodes.append(node)

    signature = program.graph_signature
    state = {**program.state_dict, **program.constants}
    held = {
        **signature.inputs_to_parameters,
        **signature.inputs_to_buffers,
        **signature.inputs_to_lifted_tensor_constants,
    }
    constants: dict[Node, Any] = {}
    images: list[Node] = []
    for node in nodes:
        if node.op == "placeholder":
            if node.name in held:
                constants[node] = state[held[node.name]].detach()
            else:
                images.append(node)
    outputs = signature.user_outputs
    if len(images) != 1 or len(outputs) != 1:
        raise UnsupportedNetwork(
            f"a classifier takes one batch of images and returns one tensor of logits; this one "
            f"takes {len(images)} and returns {len(outputs)}. Wrap it in a module that does."
        )
    output = fx_graph.output_node().args[0][-1]

    changing = {images[0]}
    with torch.no_grad():
        for node in nodes:
            if node.op != "call_function":
                continue
            if any(source in changing for source in node.all_input_nodes):
                changing.add(node)
            else:
                constants[node] = call(node, constants)
    return Graph(
        nodes=tuple(nodes),
        image=images[0],
        output=output,
        constants=constants,
        returned={node: tuple(names) for node, names in returned.items()},
        scope=scope,
        order={node: place for place, node in enumerate(nodes)},
    )


class _CallNames:
    """Names of module calls, from the keys that `torch.export` gives them.

    A key ends in `@1` for the second call under a name. A module that has two names is called by
    the first of them here, its calls numbered as they come.
    """

    def __init__(self, module: nn.Module):
        first = {id(part): name for name, part in module.named_modules()}
        every = list(module.named_modules(remove_duplicate=False))
        self._name = {name: first[id(part)] for name, part in every}
        self._alike = dict.fromkeys(first.values(), 0)
        for _, part in every:
            self._alike[first[id(part)]] += 1
        self._met: dict[str, list[str]] = {}

    def __call__(self, key: str, path: str) -> str:
        name = self._name.get(path, path)
        if self._alike.get(name, 1) == 1:
            _, _, number = key.rpartition("@")
            return _numbered(name, int(number) if "@" in key else 0)
        met = self._met.setdefault(name, [])
        if key not in met:
            met.append(key)
        return _numbered(name, met.index(key))


def _numbered(name: str, call_number: int) -> str:
    return f"{name}@{call_number}" if call_number else name


def _check_export(module: nn.Module, graph: Graph, example: Tensor) -> None:
    """The graph computes what the module computes, on images it was not traced with."""
    images = torch.cat([example.flip(0), example[:1] * 0.5])
    with torch.no_grad():
        expected = module(images)
        found = run(graph, images)[graph.output]
    if not isinstance(expected, Tensor):
        raise UnsupportedNetwork(
            f"a classifier returns one tensor of logits; this one returns a "
            f"{type(expected).__name__}. Wrap it in a module that returns the logits alone."
        )
    if not bool(torch.isfinite(expected).all()):
        raise UnsupportedNetwork(
            "the model's outputs for random images are no finite numbers: its weights are damaged, "
            "or its numbers overflow in float32"
        )
    scale = float(expected.abs().max())
    difference = float((expected - found).abs().max())
    if not difference <= 1e-4 * max(scale, 1e-6):
        raise UnsupportedNetwork(
            f"the traced network's outputs differ from the model's by {difference:.3g} (largest "
            f"output {scale:.3g}): its forward pass depends on something the trace cannot see, "
            "such as random numbers, state that changes between calls, or tensors shared by "
            "in-place operations"
        )


def _export_failure(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    what = lines[0][:200] if lines else type(error).__name__
    kind = type(error).__name__
    if "Guard" in kind or "data-dependent" in str(error) or "Constraints" in str(error):
        advice = (
            "its forward pass branches on values of tensors or on the batch size; write those "
            "branches so that they do not depend on the images"
        )
    else:
        advice = "check that the model runs on a batch of this shape and uses PyTorch alone"
    user_lines = [line for line in lines if line.startswith("File ") and "/torch/" not in line]
    where = f" ({user_lines[-1]})" if user_lines else ""
    return f"torch.export cannot trace the model: {kind}: {what}{where}. {advice}."


GETITEM = operator.getitem

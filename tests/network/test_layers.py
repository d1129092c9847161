"""Which tensors are layers, and what they are called (docs/method.md, section 1)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from summit_graph.errors import UnknownLayer
from summit_graph.network.trace import Network, trace


def conv(inputs: int = 4, outputs: int = 4) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1)


class Block(nn.Module):
    """Two convolutions and a sum."""

    def __init__(self) -> None:
        super().__init__()
        self.c, self.d = conv(), conv()

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.d(F.relu(self.c(x))))


class Net(nn.Module):
    def __init__(self, run: Callable[[Any, Tensor], Tensor], **parts: nn.Module):
        super().__init__()
        self.stem, self.run = conv(3), run
        for name, part in parts.items():
            setattr(self, name, part)
        self.fc = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.run(self, F.relu(self.stem(x))).mean((2, 3)))


def network(module: nn.Module, layers: list[str] | None = None) -> Network:
    return trace(module.eval(), (3, 8, 8), layers)


def shown(found: Network) -> list[str]:
    return [layer.name if layer.chosen else f"({layer.name})" for layer in found.layers]


def of(
    run: Callable[[Any, Tensor], Tensor], layers: list[str] | None = None, **parts: nn.Module
) -> list[str]:
    return shown(network(Net(run, **parts), layers))


# Names ------------------------------------------------------------------------------------------


def test_a_module_called_twice() -> None:
    layers = of(lambda s, x: F.relu(s.c(F.relu(s.c(x)))), ["c", "c@1"], c=conv())
    assert layers == ["(stem)", "c", "c@1"]


def test_parts_of_a_module_called_twice() -> None:
    layers = of(lambda s, x: s.b(s.b(x)), b=Block())
    assert layers == ["(stem)", "(b.c)", "b", "(b.c@1)", "b@1"]


def test_one_module_under_two_names() -> None:
    """It is called by its first name, each call counted."""
    module = Net(lambda s, x: s.b(s.a(s.b(x))), a=Block())
    module.b = module.a
    layers = shown(network(module))
    assert layers == ["(stem)", "(a.c)", "a", "(a.c@1)", "a@1", "(a.c@2)", "a@2"]


def test_a_part_of_a_chain_is_called_by_itself() -> None:
    """`features[:2]` is a module that the network does not hold; its parts are."""
    chain = nn.Sequential(conv(), nn.ReLU(), conv(), nn.ReLU())
    layers = of(lambda s, x: s.f[2:](s.f[:2](x)), f=chain)
    assert layers == ["stem", "f.1", "f.3"]


def test_two_modules_of_one_weight() -> None:
    module = Net(lambda s, x: F.relu(s.b(F.relu(s.a(x)))), a=conv(), b=conv())
    module.b.weight = module.a.weight
    assert shown(network(module)) == ["stem", "a", "b"]


class Pair(nn.Module):
    def __init__(self, make: Callable[[Tensor, Tensor], Any]):
        super().__init__()
        self.c, self.d, self.make = conv(), conv(), make

    def forward(self, x: Tensor) -> Any:
        return self.make(self.c(x), self.d(x))


@pytest.mark.parametrize(
    ("make", "item", "layers"),
    [
        (lambda c, d: [c, d], 0, ["(stem)", "p[0]"]),
        (lambda c, d: [c, d], 1, ["(stem)", "p[1]"]),
        (lambda c, d: (None, d), 1, ["(stem)", "p[1]"]),
        (lambda c, d: (3, c, d), 2, ["(stem)", "p[2]"]),
    ],
)
def test_items_of_a_list(
    make: Callable[[Tensor, Tensor], Any], item: int, layers: list[str]
) -> None:
    def run(s, x):
        return F.relu(s.p(x)[item])

    assert of(run, [f"p[{item}]"], p=Pair(make)) == layers
    assert of(run, ["p"], p=Pair(make)) == layers


def test_items_of_a_list_called_twice() -> None:
    def run(s, x):
        return sum(s.p(sum(s.p(x))))

    layers = of(run, ["p", "p@1"], p=Pair(lambda c, d: [c, d]))
    assert layers == ["(stem)", "p[0]", "p[1]", "(/add_1)", "p@1[0]", "p@1[1]", "(/add_3)"]


def test_a_dictionary_of_tensors() -> None:
    """Its items have no name; what its module runs has, in each call."""

    def run(s, x):
        return F.relu(s.p(F.relu(s.p(x)["d"]))["d"])

    layers = of(run, p=Pair(lambda c, d: {"d": d}))
    assert layers == ["stem", "p.d", "p.d@1"]


def test_sums_are_numbered() -> None:
    def run(s: Any, x: Tensor) -> Tensor:
        y = F.relu(x + s.a(x))
        return F.relu(y + s.b(y))

    layers = of(run, ["/add", "b"], a=conv(), b=conv())
    assert layers == ["(stem)", "/add", "b", "(/add_1)"]
    assert of(run, ["/add*"], a=conv(), b=conv()) == ["(stem)", "/add", "/add_1"]


def test_a_sum_is_called_by_the_module_that_returns_it() -> None:
    """Hidden, since only the second block is chosen."""
    layers = of(lambda s, x: s.b(s.a(x)), ["b"], a=Block(), b=Block())
    assert layers == ["(stem)", "(a.c)", "(a)", "(b.c)", "b"]


def test_a_sum_in_a_list_is_called_by_its_item() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.c = conv()

        def forward(self, x: Tensor) -> list[Tensor]:
            return [F.relu(x + self.c(x)), x]

    layers = of(lambda s, x: F.relu(s.last(s.p(x)[0])), ["last"], p=Both(), last=conv())
    assert layers == ["(stem)", "(p[0])", "last"]


def test_mixers_that_no_module_of_their_own_runs() -> None:
    def run(s: Any, x: Tensor) -> Tensor:
        return F.relu(F.conv2d(F.relu(F.conv2d(x, s.a.weight)), s.b.weight))

    assert of(run, a=conv(), b=conv()) == ["stem", "/conv2d", "/conv2d_1"]


def test_a_module_that_mixes_and_adds() -> None:
    """The mixer and the sum of one module: both are called by it, but no name is given twice."""

    class Both(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            return x + F.conv2d(F.relu(F.conv2d(x, self.weight, padding=1)), self.weight, padding=1)

    layers = of(lambda s, x: F.relu(s.last(s.p(x))), ["last"], p=Both(4, 4, 3), last=conv())
    assert layers == ["(stem)", "(p/conv2d)", "(p)", "last"]


# Default layers -------------------------------------------------------------------------------


def test_blocks() -> None:
    assert of(lambda s, x: s.b(s.a(x)), a=Block(), b=Block()) == [
        "(stem)", "(a.c)", "a", "(b.c)", "b"
    ]  # fmt: skip


def test_containers_are_no_blocks() -> None:
    class Chain(nn.Sequential):
        """Like a `Sequential`, without a forward of its own."""

    def run(s, x):
        return s.f(x)

    assert of(run, f=nn.Sequential(Chain(Block(), Block()), Chain(Block()))) == [
        "(stem)", "(f.0.0.c)", "f.0.0", "(f.0.1.c)", "f.0.1", "(f.1.0.c)", "f.1.0"
    ]  # fmt: skip


def test_the_outermost_block_counts() -> None:
    class Stage(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = Block(), Block()

        def forward(self, x: Tensor) -> Tensor:
            return self.b(self.a(x))

    layers = of(lambda s, x: s.t(s.s(x)), s=Stage(), t=Stage())
    assert [name for name in layers if "(" not in name] == ["s", "t"]


@pytest.mark.parametrize("depth", [1, 2])
def test_a_network_in_a_wrapper(depth: int) -> None:
    class Wrapper(nn.Module):
        def __init__(self, net: nn.Module):
            super().__init__()
            self.net = net

        def forward(self, x: Tensor) -> Tensor:
            return self.net((x - 0.5) / 0.25)

    module: nn.Module = Net(lambda s, x: s.b(s.a(x)), a=Block(), b=Block())
    for _ in range(depth):
        module = Wrapper(module)
    found = network(module)
    assert [layer.name for layer in found.chosen] == ["net." * depth + n for n in ("a", "b")]


def test_a_gate_is_no_block() -> None:
    """Two convolutions that only compute a gate do not make a module a block."""

    class Gate(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(4, 2, 1), nn.Conv2d(2, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            return x * torch.sigmoid(self.b(F.relu(self.a(x.mean((2, 3), keepdim=True)))))

    layers = of(lambda s, x: F.relu(s.c(s.g(F.relu(s.d(x))))), g=Gate(), c=conv(), d=conv())
    assert layers == ["stem", "d", "c"]


def test_without_blocks_each_mixer_with_norm_and_activation() -> None:
    chain = nn.Sequential(
        conv(), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), conv(), nn.Dropout(), nn.SiLU()
    )
    assert of(lambda s, x: s.f(x), f=chain) == ["stem", "f.2", "f.6"]


def test_linear_layers_alone() -> None:
    chain = nn.Sequential(
        nn.Flatten(), nn.Linear(192, 6), nn.ReLU(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)
    )
    assert shown(network(chain)) == ["2", "4"]


def test_one_layer_alone() -> None:
    with pytest.raises(UnknownLayer, match="no layer before its logits"):
        network(nn.Sequential(nn.Flatten(), nn.Linear(192, 3)))


# Choosing -------------------------------------------------------------------------------------


def module() -> nn.Module:
    return Net(lambda s, x: s.b(s.a(x)), a=Block(), b=Block())


def test_names_and_globs() -> None:
    assert shown(network(module(), ["b", "stem"])) == ["stem", "(a.c)", "(a)", "(b.c)", "b"]
    assert shown(network(module(), ["?.c"])) == ["(stem)", "a.c", "(a)", "b.c", "(b)"]
    found = network(module(), ["*"])
    every = [choice.name for choice in found.choices]
    assert [layer.name for layer in found.chosen] == ["stem", "a.c", "a.d", "a", "b.c", "b.d", "b"]
    assert set(shown(found)) <= set(every)
    assert every == [choice.name for choice in network(module()).choices]
    assert all((c.channels, c.height, c.width) == (4, 8, 8) for c in found.choices)


def test_a_tensor_with_several_names_keeps_one() -> None:
    chain = nn.Sequential(conv(), nn.Sequential(nn.ReLU(), nn.Dropout()))
    names = {"f.1.0", "f.1.1", "f.1", "f"}
    for name in names:
        assert of(lambda s, x: s.c(s.f(x)), [name], f=chain, c=conv())[1] == name
    layers = of(lambda s, x: s.c(s.f(x)), ["f.*", "f"], f=chain, c=conv())
    assert [layers[1], layers[3]] == ["f.0", "(c)"]
    assert layers[2] in names


def test_a_name_that_matches_nothing() -> None:
    with pytest.raises(UnknownLayer, match=r"no layer matches 'mixed\*'. This model has: stem,"):
        network(module(), ["a", "mixed*"])


def test_what_cannot_be_a_layer_says_why() -> None:
    class Gate(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.g = nn.Conv2d(4, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            return torch.sigmoid(self.g(x.mean((2, 3), keepdim=True)))

    gated = Net(lambda s, x: s.c(x * s.gate(x)), gate=Gate(), c=conv())
    with pytest.raises(UnknownLayer, match="'gate' cannot be a layer: it is not on the way"):
        network(gated, ["gate"])
    with pytest.raises(UnknownLayer, match=r"'gate.g' cannot be a layer: it is not on the way"):
        network(gated, ["gate.g"])
    with pytest.raises(UnknownLayer, match="'fc' cannot be a layer: its tensor holds logits"):
        network(gated, ["fc"])


def test_a_flattened_map_is_no_layer() -> None:
    """Its elements are positions, several to a channel."""
    chain = nn.Sequential(conv(3), nn.ReLU(), nn.Flatten(), nn.Linear(256, 5), nn.Linear(5, 3))
    with pytest.raises(UnknownLayer, match=r"'2' cannot be a layer: .* no single axis of channels"):
        network(chain, ["2"])


# Numbers --------------------------------------------------------------------------------------


def test_layers_are_numbered_as_the_forward_pass_makes_them() -> None:
    """The second branch is run first; hops are numbered by target, then source."""
    found = network(
        Net(lambda s, x: (lambda b: torch.cat([s.a(x), b], 1)[:, 2:6])(s.b(x)), a=conv(), b=conv()),
        ["stem", "a", "b"],
    )
    assert shown(found) == ["stem", "b", "a"]
    assert [layer.number for layer in found.layers] == [0, 1, 2]
    assert [(hop.number, hop.source, hop.target, hop.mixers) for hop in found.hops] == [
        (0, 0, 1, ("b",)), (1, 0, 2, ("a",)),
    ]  # fmt: skip


def test_no_hop_to_the_first_chosen_layer_or_before_it() -> None:
    found = network(module(), ["b.c"])
    assert shown(found) == ["(stem)", "(a.c)", "(a)", "b.c", "(b)"]
    assert [(hop.source, hop.target) for hop in found.hops] == [(2, 4), (3, 4)]
    assert [target.layer for target in found.targets] == [4]
    last = network(module(), ["b"])
    assert last.hops == last.targets == ()


def test_sizes() -> None:
    found = network(
        Net(lambda s, x: s.b(F.max_pool2d(s.a(x), (2, 4))), a=conv(), b=conv()), ["a", "b"]
    )
    sizes = [(layer.channels, layer.height, layer.width) for layer in found.chosen]
    assert sizes == [(4, 8, 8), (4, 4, 2)]

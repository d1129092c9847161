"""Tracing whole models: what can be exported, what cannot, and what an error says."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from summit_graph.errors import UnknownLayer, UnsupportedNetwork
from summit_graph.network import graph
from summit_graph.network.forward import Forward
from summit_graph.network.trace import trace


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.fc = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Any:
        return self.fc(F.relu(self.b(F.relu(self.a(x)))).mean((2, 3)))


def refusal(module: nn.Module) -> str:
    with pytest.raises(UnsupportedNetwork) as found:
        trace(module, (3, 8, 8))
    return str(found.value)


def test_a_model_in_training_is_refused() -> None:
    assert "call model.eval() first" in refusal(Small().train())


def test_two_outputs_are_refused() -> None:
    class Two(Small):
        def forward(self, x: Tensor) -> Any:
            logits = super().forward(x)
            return logits, logits * 2

    message = refusal(Two().eval())
    assert "takes 1 and returns 2" in message
    assert "Wrap it" in message


def test_a_branch_on_values_is_refused() -> None:
    class Branching(Small):
        def forward(self, x: Tensor) -> Any:
            return super().forward(x if x.mean() > 0 else -x)

    message = refusal(Branching().eval())
    assert "torch.export cannot trace the model" in message
    assert "branches on values" in message


def test_a_branch_on_the_number_of_images_is_refused() -> None:
    class Branching(Small):
        def forward(self, x: Tensor) -> Any:
            return super().forward(x if len(x) > 2 else -x)

    assert "branches on values of tensors or on the batch size" in refusal(Branching().eval())


def test_random_numbers_are_refused() -> None:
    class Random(Small):
        def forward(self, x: Tensor) -> Any:
            return super().forward(x + torch.randn_like(x))

    assert "outputs differ from the model's" in refusal(Random().eval())


def test_dropout_in_eval_mode_is_refused() -> None:
    class Dropping(Small):
        def forward(self, x: Tensor) -> Any:
            return super().forward(F.dropout(x, 0.5, training=True))

    assert "random" in refusal(Dropping().eval())


def test_another_size_than_the_model_takes_is_refused() -> None:
    message = refusal(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(7, 3)).eval())
    assert "check that the model runs on a batch of this shape" in message


@pytest.mark.parametrize("end", [nn.Softmax(1), nn.LogSoftmax(1), nn.Sigmoid()])
def test_logits_are_what_the_softmax_reads(end: nn.Module) -> None:
    module = Small().eval()
    images = torch.randn(3, 3, 8, 8)
    with torch.no_grad():
        logits = module(images)
    network = trace(nn.Sequential(module, end).eval(), (3, 8, 8))
    torch.testing.assert_close(Forward(network, [])(images), logits)
    assert network.outputs == 3
    assert [layer.name for layer in network.layers] == ["0.a", "0.b"]


def test_hooks_are_taken_off_again() -> None:
    module = Small().eval()
    images = torch.randn(2, 3, 8, 8)
    before = module(images)
    trace(module, (3, 8, 8))
    assert all(not part._forward_hooks and not part._forward_pre_hooks for part in module.modules())
    assert torch.equal(module(images), before)


def test_in_place_operations() -> None:
    """A norm's result changed in place by the activation and by the sum."""

    class InPlace(Small):
        def __init__(self) -> None:
            super().__init__()
            self.n = nn.BatchNorm2d(4)

        def forward(self, x: Tensor) -> Any:
            x = F.relu(self.n(self.a(x)), inplace=True)
            y = F.conv2d(x, self.b.weight, padding=1)
            y += x
            y.mul_(2.0)
            return self.fc(F.relu(y, inplace=True).mean((2, 3)))

    network = trace(InPlace().eval(), (3, 8, 8), ["n", "/add"])
    assert [(hop.source, hop.target) for hop in network.hops] == [(0, 1)]


def test_what_depends_on_parameters_alone_is_computed_once() -> None:
    class Standardised(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
            return F.conv2d(x, weight / (weight.std((1, 2, 3), keepdim=True) + 1e-5), self.bias)

    module = Small()
    module.b = Standardised(4, 4, 3)
    network = trace(module.eval(), (3, 8, 8))
    assert [layer.name for layer in network.layers] == ["a", "b"]
    (term,) = network.targets[0].terms
    mean = term.mixer.weight.mean((1, 2, 3))
    torch.testing.assert_close(mean, torch.zeros(4), atol=1e-6, rtol=0)


@pytest.mark.parametrize("images", [1, 2, 7])
def test_the_graph_computes_what_the_module_computes(images: int) -> None:
    module = Small().eval()
    exported = graph.export(module, (3, 8, 8))
    batch = torch.randn(images, 3, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(graph.run(exported, batch)[exported.output], module(batch))


def test_the_second_call_s_operations_lie_in_the_second_call() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.s, self.fc = nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU()), nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.s(self.s(x)).mean((2, 3)))

    exported = graph.export(Twice().eval(), (3, 8, 8))
    scopes = [exported.scope[node] for node in exported.nodes if "conv2d" in str(node.target)]
    assert scopes == [("s", "s.0"), ("s@1", "s.0@1")]
    returned = [names for names in exported.returned.values() if "s@1" in names]
    assert returned == [("s.1@1", "s@1")]


class _Dictionary(nn.Module):
    def __init__(self, factor: float):
        super().__init__()
        self.mix, self.factor = nn.Conv2d(1, 2, 1), factor

    def forward(self, x: Tensor) -> dict[str, Tensor] | Tensor:
        logits = self.mix(x).mean((2, 3)) * self.factor
        return {"logits": logits} if self.factor == 1 else logits


def test_a_dictionary_of_logits_is_refused() -> None:
    with pytest.raises(UnsupportedNetwork, match="returns a dict"):
        trace(_Dictionary(1.0).eval(), (1, 4, 4))


def test_outputs_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(UnsupportedNetwork, match="no finite numbers"):
        trace(_Dictionary(float("nan")).eval(), (1, 4, 4))


def test_an_empty_choice_of_layers_is_refused() -> None:
    with pytest.raises(UnknownLayer, match="no layer is named"):
        trace(_Dictionary(2.0).eval(), (1, 4, 4), [])

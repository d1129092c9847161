"""Default layers of networks in wrappers, and factors folded into a mixer behind a chosen layer."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from summit_graph.aggregate.counts import Counter
from summit_graph.network.trace import trace


class Block(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.one = nn.Conv2d(channels, channels, 3, padding=1)
        self.two = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.two(torch.relu(self.one(x))))


class Body(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.b1, self.b2 = Block(4), Block(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.b2(self.b1(x))


class Wrapper(nn.Module):
    def __init__(self, body: nn.Module):
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


class Classifier(nn.Module):
    def __init__(self, body: nn.Module):
        super().__init__()
        self.stem, self.body, self.head = nn.Conv2d(3, 4, 1), body, nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(self.stem(x)).mean((2, 3)))


def test_blocks_are_found_in_wrappers() -> None:
    body: nn.Module = Body()
    names = "body"
    for _ in range(3):
        network = trace(Classifier(body).eval(), (3, 8, 8))
        assert [layer.name for layer in network.chosen] == [f"{names}.b1", f"{names}.b2"]
        body, names = Wrapper(body), f"{names}.body"


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor([-1.0, 2.0]).reshape(1, 2, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


class Signed(nn.Module):
    """conv -> relu -> mix -> factors of -1 and 2: the sign of a factor turns who influences."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.mix = nn.Conv2d(2, 2, 1, bias=False), nn.Conv2d(2, 2, 1, bias=False)
        self.scaled, self.head = Scaled(), nn.Linear(2, 2)
        with torch.no_grad():
            self.first.weight.copy_(torch.eye(2).reshape(2, 2, 1, 1))
            self.mix.weight.copy_(torch.tensor([[1.0, -1.0], [1.0, -1.0]]).reshape(2, 2, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.scaled(self.mix(torch.relu(self.first(x)))).mean((2, 3)))


def test_a_factor_in_the_chosen_layer_itself_counts_with_its_sign() -> None:
    # Sources are 1 everywhere. Target 0: s = -1, so v = (-1, 1): source 1 alone raises it.
    # Target 1: s = 2, so v = (2, -2): source 0 alone.
    network = trace(Signed().eval(), (2, 3, 3), ["first", "scaled"])
    counter = Counter(network)
    counter.add(torch.ones(1, 2, 3, 3), ["image"], [0], lambda label, _predicted: label or 0)
    found = {(row["source"], row["target"]) for row in counter.counts().influences.to_pylist()}
    assert found == {(1, 0), (0, 1)}
    # Chosen before the factor, the mixer's own sign decides.
    network = trace(Signed().eval(), (2, 3, 3), ["first", "mix"])
    counter = Counter(network)
    counter.add(torch.ones(1, 2, 3, 3), ["image"], [0], lambda label, _predicted: label or 0)
    found = {(row["source"], row["target"]) for row in counter.counts().influences.to_pylist()}
    assert found == {(0, 0), (0, 1)}


def test_votes_are_those_of_the_prediction_where_classes_are_predictions() -> None:
    # Logit 0 has weights (1, -1), logit 1 (-1, 1) and a bias that makes it the prediction.
    model = Signed().eval()
    with torch.no_grad():
        model.scaled.factor.fill_(1.0)
        model.mix.weight.copy_(torch.eye(2).reshape(2, 2, 1, 1))
        model.head.weight.copy_(torch.tensor([[1.0, -1.0], [-1.0, 1.0]]))
        model.head.bias.copy_(torch.tensor([0.0, 5.0]))
    network = trace(model, (2, 3, 3), ["first", "scaled"])
    for by_prediction, voter in ((True, 1), (False, 0)):
        counter = Counter(network, by_prediction=by_prediction)
        counter.add(
            torch.ones(1, 2, 3, 3),
            ["image"],
            [0],
            lambda label, predicted, by=by_prediction: predicted if by else label or 0,
        )
        (vote,) = counter.counts().votes.to_pylist()
        assert (vote["class"], vote["channel"]) == (1 if by_prediction else 0, voter)

"""The counter: sums over images, classes, examples, votes (docs/method.md, sections 2, 3, 6, 7)."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
import reference
import torch
from small_networks import Described, dense, described, gated_sum, head_mean, module_name, residual
from torch import Tensor, nn

from summit_graph.aggregate.counts import Counter, Counts
from summit_graph.errors import SummitGraphError
from summit_graph.network.trace import Network, trace

IMAGES = 8
K = 3
DESCRIPTION = described([residual, gated_sum, dense], head_mean, 3, exact=True, size=4)
CHOSEN = [n for n, o in enumerate(DESCRIPTION.operations) if o.kind in ("relu", "relu6") and n > 1][
    :3
]
Classify = Callable[[int | None, int], int]


def by_label(label: int | None, predicted: int) -> int:
    return -1 if label is None else label


@pytest.fixture(scope="module")
def network() -> Network:
    names = [module_name(DESCRIPTION, place) for place in named(CHOSEN)]
    return trace(Described(DESCRIPTION).eval(), DESCRIPTION.shape, names)


def named(places: Sequence[int]) -> list[int]:
    return [n for n in places if not DESCRIPTION.operations[n].functional]


@pytest.fixture(scope="module")
def images() -> npt.NDArray[np.float64]:
    random = np.random.default_rng(1)
    found = random.integers(-2, 3, (IMAGES, *DESCRIPTION.shape)).astype(np.float64)
    found[3] = found[5]  # two images with the same activations
    return found


def keys(count: int = IMAGES) -> list[str]:
    return [f"{n:03}.png" for n in range(count)]


LABELS: list[int | None] = [0, 1, 0, 2, 0, 1, 2, 0]


def counted(
    network: Network,
    images: npt.NDArray[np.float64],
    splits: Sequence[int] = (IMAGES,),
    labels: Sequence[int | None] = LABELS,
    classify: Classify = by_label,
    **settings: Any,
) -> Counts:
    counter = Counter(network, **{"mass": 0.3, "k": K, **settings})
    start = 0
    for size in splits:
        some = slice(start, start + size)
        batch = torch.tensor(images[some], dtype=torch.float32)
        counter.add(batch, keys()[some], labels[some], classify)
        start += size
    return counter.counts()


def tables(counts: Counts) -> dict[str, list[tuple[Any, ...]]]:
    """All rows, sorted; probabilities, which no decision depends on, to five digits."""
    found = {}
    for name in ("images", "activations", "influences", "votes", "examples"):
        rows = getattr(counts, name).to_pylist()
        for row in rows:
            if row.get("probability") is not None:
                row["probability"] = round(row["probability"], 5)
        found[name] = sorted((tuple(row.values()) for row in rows), key=repr)
    return found


def summed(parts: Sequence[Counts], name: str) -> Tally[tuple[int, ...]]:
    total: Tally[tuple[int, ...]] = Tally()
    for part in parts:
        for *key, count in (tuple(row.values()) for row in getattr(part, name).to_pylist()):
            total[tuple(key)] += count
    return total


@pytest.mark.parametrize("splits", [[3, 5], [1] * IMAGES, [7, 1]])
def test_counts_do_not_depend_on_batches(
    network: Network, images: npt.NDArray[np.float64], splits: list[int]
) -> None:
    whole = counted(network, images, per_class_examples=True)
    assert tables(counted(network, images, splits, per_class_examples=True)) == tables(whole)


@pytest.mark.parametrize("cut", [1, 4])
def test_counts_add_up(network: Network, images: npt.NDArray[np.float64], cut: int) -> None:
    whole = counted(network, images)
    parts = [
        counted(network, images[:cut], [cut], LABELS[:cut]),
        counted(network, images[cut:], [IMAGES - cut], LABELS[cut:]),
    ]
    for name in ("activations", "influences", "votes"):
        assert summed(parts, name) == summed([whole], name)
        assert summed([whole], name)


def test_little_memory_changes_nothing(network: Network, images: npt.NDArray[np.float64]) -> None:
    whole = tables(counted(network, images))
    assert tables(counted(network, images, memory=100)) == whole


def test_the_counter_starts_again(network: Network, images: npt.NDArray[np.float64]) -> None:
    counter = Counter(network)
    batch = torch.tensor(images, dtype=torch.float32)
    counter.add(batch, keys(), LABELS, by_label)
    first = tables(counter.counts())
    assert all(not rows for rows in tables(counter.counts()).values())
    counter.add(batch, keys(), LABELS, by_label)
    assert tables(counter.counts()) == first


def test_columns_and_types(network: Network, images: npt.NDArray[np.float64]) -> None:
    counts = counted(network, images, per_class_examples=True)
    empty = Counter(network).counts()
    for found in (counts, empty):
        assert (
            found.activations.schema
            == found.votes.schema
            == pa.schema(
                {
                    "class": pa.int32(),
                    "layer": pa.int16(),
                    "channel": pa.int32(),
                    "count": pa.int32(),
                }
            )
        )
        assert found.influences.schema == pa.schema(
            {"class": pa.int32(), "hop": pa.int16(), "source": pa.int32(), "target": pa.int32(),
             "count": pa.int32()}
        )  # fmt: skip
        assert found.examples.schema == pa.schema(
            {"class": pa.int32(), "layer": pa.int16(), "channel": pa.int32(), "path": pa.string(),
             "activation": pa.float32(), "row": pa.int32(), "column": pa.int32()}
        )  # fmt: skip


def test_what_always_holds(network: Network, images: npt.NDArray[np.float64]) -> None:
    """A <= images of the class; the sum of I over hops and sources of a target <= k images."""
    counts = counted(network, images)
    of_class = Tally(LABELS)
    for row in counts.activations.to_pylist():
        assert 0 < row["count"] <= of_class[row["class"]]
        assert network.layers[row["layer"]].chosen
    received: Tally[tuple[int, int, int]] = Tally()
    for row in counts.influences.to_pylist():
        hop = network.hops[row["hop"]]
        assert 0 < row["count"] <= of_class[row["class"]]
        assert row["source"] < network.layers[hop.source].channels
        assert row["target"] < network.layers[hop.target].channels
        received[row["class"], hop.target, row["target"]] += row["count"]
    assert all(total <= K * of_class[class_] for (class_, _, _), total in received.items())
    assert max(received.values()) > K  # more than one image has been counted
    votes: Tally[int] = Tally()
    for row in counts.votes.to_pylist():
        votes[row["class"]] += row["count"]
    assert all(votes[class_] <= K * of_class[class_] for class_ in votes)


def test_an_image_without_a_class_counts_nowhere(
    network: Network, images: npt.NDArray[np.float64]
) -> None:
    labels: list[int | None] = [0, None, 0, None, 0, 1, None, 0]
    kept = [n for n in range(IMAGES) if labels[n] is not None]
    counts = counted(network, images, labels=labels, per_class_examples=True)
    other = counted(
        network, images[kept], [len(kept)], [labels[n] for n in kept], per_class_examples=True
    )
    assert counts.images["class"].to_pylist() == labels
    assert counts.images.num_rows == IMAGES
    for name in ("activations", "influences", "votes"):
        assert tables(counts)[name] == tables(other)[name]
    assert {row["class"] for row in counts.examples.to_pylist()} == {None, 0, 1}


def test_no_image_with_a_class(network: Network, images: npt.NDArray[np.float64]) -> None:
    counts = counted(network, images, labels=[None] * IMAGES)
    assert counts.images.num_rows == IMAGES
    assert counts.activations.num_rows == counts.influences.num_rows == counts.votes.num_rows == 0


def test_classes_by_prediction(network: Network, images: npt.NDArray[np.float64]) -> None:
    """By prediction an image votes by what was predicted, whatever its label."""
    logits = Described(DESCRIPTION).eval()(torch.tensor(images, dtype=torch.float32))
    predicted = logits.argmax(1).tolist()
    assert any(label != best for label, best in zip(LABELS, predicted, strict=True))
    labelled = counted(network, images, classify=lambda _, best: best, by_prediction=True)
    bare = counted(
        network, images, labels=[None] * IMAGES, classify=lambda _, best: best, by_prediction=True
    )
    for name in ("activations", "influences", "votes", "examples"):
        assert tables(labelled)[name] == tables(bare)[name]
    assert labelled.images["class"].to_pylist() == predicted
    assert labelled.images["label"].to_pylist() == LABELS
    assert (
        tables(labelled)["votes"]
        != tables(counted(network, images, classify=lambda _, best: best))["votes"]
    )


@pytest.mark.parametrize("limit", [1, 2, 10])
def test_examples(network: Network, images: npt.NDArray[np.float64], limit: int) -> None:
    """Per neuron, over all classes and for each, by falling activation, then path; places too."""
    counts = counted(network, images, [3, 5], examples=limit, per_class_examples=True)
    every = [
        (layer.number, place) for layer, place in zip(network.chosen, named(CHOSEN), strict=True)
    ]
    flows = [reference.flow(DESCRIPTION, image, []) for image in images]
    expected = set()
    for class_ in (None, 0, 1, 2):
        own = [n for n in range(IMAGES) if class_ is None or LABELS[n] == class_]
        for number, place in every:
            maps = {n: flows[n][place].value for n in own}
            for channel in range(len(flows[0][place].value)):
                order = sorted(own, key=lambda n: (-maps[n][channel].max(), keys()[n]))
                for n in order[:limit]:
                    value = maps[n][channel]
                    if value.max() > 0:
                        row, column = np.unravel_index(value.argmax(), value.shape)
                        expected.add(
                            (
                                class_,
                                number,
                                channel,
                                keys()[n],
                                float(value.max()),
                                int(row),
                                int(column),
                            )
                        )
    rows = [tuple(row.values()) for row in counts.examples.to_pylist()]
    assert len(rows) == len(set(rows))
    assert set(rows) == expected
    assert all(row["class"] is None for row in counted(network, images).examples.to_pylist())


class Fixed(nn.Module):
    """One layer `a`, a convolution of weight 1, and given logits behind it."""

    def __init__(self, logits: Sequence[float], end: nn.Module | None = None):
        super().__init__()
        self.conv, self.a = nn.Conv2d(1, 1, 1, bias=False), nn.ReLU()
        self.more, self.b = nn.Conv2d(1, 2, 1, bias=False), nn.ReLU6()
        self.linear, self.end = nn.Linear(2, len(logits)), end or nn.Identity()
        for part in (self.conv, self.more):
            nn.init.ones_(part.weight)
        nn.init.zeros_(self.linear.weight)
        self.linear.bias.data.copy_(torch.tensor(logits))

    def forward(self, x: Tensor) -> Tensor:
        return self.end(self.linear(self.b(self.more(self.a(self.conv(x)))).mean((2, 3))))


def count_fixed(module: nn.Module, image: float, labels: Sequence[int | None]) -> Counts:
    counter = Counter(trace(module.eval(), (1, 2, 2), ["a", "b"]), mass=0.5)
    batch = torch.full((len(labels), 1, 2, 2), image)
    counter.add(batch, keys(len(labels)), labels, by_label)
    return counter.counts()


def test_the_record_of_an_image() -> None:
    """Logits 1, 3, 3, 0: equal ones are ranked by number, so label 2 is second, label 0 third."""
    logits = [1.0, 3.0, 3.0, 0.0]
    labels: list[int | None] = [0, 1, 2, 3, None]
    found = count_fixed(Fixed(logits), 1.0, labels).images.to_pylist()
    probability = torch.softmax(torch.tensor(logits), 0).tolist()
    assert [row["label_rank"] for row in found] == [3, 1, 2, 4, None]
    assert [row["predicted"] for row in found] == [1] * 5
    assert [row["class"] for row in found] == labels
    assert [row["path"] for row in found] == keys(5)
    for row in found[:4]:
        assert row["probability"] == pytest.approx(probability[row["label"]])
    assert found[4]["probability"] is None


@pytest.mark.parametrize("end", [nn.Softmax(1), nn.LogSoftmax(1), nn.Identity()])
def test_a_softmax_at_the_end_is_no_second_one(end: nn.Module) -> None:
    logits = [1.0, 3.0, 2.0]
    (row,) = count_fixed(Fixed(logits, end), 1.0, [1]).images.to_pylist()
    assert row["probability"] == pytest.approx(float(torch.softmax(torch.tensor(logits), 0)[1]))


def test_saturated_channels_tie_to_the_lower_one() -> None:
    """Both channels of b are at 6, each with half of the mass, which is enough: channel 0."""
    rows = count_fixed(Fixed([0.0, 1.0]), 9.0, [0]).activations.to_pylist()
    assert [(row["layer"], row["channel"]) for row in rows] == [(0, 0), (1, 0)]


def test_an_image_that_excites_nothing() -> None:
    counts = count_fixed(Fixed([0.0, 1.0]), -1.0, [0, 1])
    assert counts.images.num_rows == 2
    for table in (counts.activations, counts.influences, counts.votes, counts.examples):
        assert table.num_rows == 0


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_activations_that_are_no_numbers(value: float) -> None:
    with pytest.raises(SummitGraphError, match="layer 'a' has activations that are no finite"):
        count_fixed(Fixed([0.0, 1.0]), value, [0])


def test_logits_that_are_no_numbers() -> None:
    module = Fixed([0.0, 1.0])
    network = trace(module.eval(), (1, 2, 2), ["a", "b"])
    bias = next(n for n, v in network.graph.constants.items() if "bias" in n.name)
    network.graph.constants[bias].fill_(float("nan"))  # type: ignore[union-attr]
    counter = Counter(network)
    with pytest.raises(SummitGraphError, match="outputs are no finite numbers"):
        counter.add(torch.ones(1, 1, 2, 2), ["x"], [0], by_label)


def test_many_keys_are_counted_in_parts(
    network: Network, images: npt.NDArray[np.float64], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What waits to be counted is settled now and then; the sums are the same."""
    from summit_graph.aggregate import counts

    whole = tables(counted(network, images))
    add = counts._Tally.add

    def settled(self: Any, found: Any) -> None:
        add(self, found)
        self.settle()

    monkeypatch.setattr(counts._Tally, "add", settled)
    assert tables(counted(network, images, [1] * IMAGES)) == whole

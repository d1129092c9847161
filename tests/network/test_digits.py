"""The demo network reads the digits it has not seen."""

from __future__ import annotations

import torch

from summit_graph.images.batches import BatchPlan, load_batches
from summit_graph.images.sources import labels_of, open_source
from summit_graph.network.digits import digits_cnn
from summit_graph.network.loading import load_model


def test_held_out_accuracy_by_way_of_the_source() -> None:
    model = load_model("summit_graph.network.digits:digits_cnn")
    source = open_source("digits")
    items = tuple(source.items())
    assert model.categories is not None
    assert labels_of(items) == tuple(sorted(model.categories))
    plans = [BatchPlan(0, items[:450]), BatchPlan(1, items[450:])]
    right = 0
    with torch.inference_mode():
        for batch in load_batches(source, plans, model.preprocessing, 1):
            assert not batch.bad
            predicted = model.module(batch.images).argmax(dim=1).tolist()
            right += sum(
                model.categories[output] == item.label
                for output, item in zip(predicted, batch.items, strict=True)
            )
    assert right / len(items) >= 0.97


def test_its_parts() -> None:
    network = digits_cnn()
    assert not network.training
    assert network.conv4.conv.in_channels == network.conv2.conv.out_channels + 32
    assert network(torch.zeros(2, *network.input_shape)).shape == (2, 10)

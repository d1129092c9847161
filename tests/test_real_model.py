"""EfficientNet-Lite0 with its real weights on the 900 ImageNet sample images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from summit_graph import Atlas
from summit_graph.aggregate.counts import Counter
from summit_graph.images.decoding import decode
from summit_graph.network.loading import LoadedModel
from summit_graph.network.trace import trace
from summit_graph.reporting import IngestReport

pytestmark = pytest.mark.slow


def test_accuracy_and_who_is_counted(lite_run: tuple[IngestReport, Path]) -> None:
    report, path = lite_run
    assert report.images == 900
    assert report.left_out == ()
    assert (report.counted, report.without_class) == (283, 617)
    assert report.top1 == pytest.approx(0.867, abs=0.005)
    with Atlas.open(path) as atlas:
        assert sum(record.images for record in atlas.classes) == 283
        right = sum(record.images * (record.top1 or 0) for record in atlas.classes)
        assert right / 283 == pytest.approx(0.880, abs=0.005)
        counts = atlas.activations().to_pylist()
    images = {record.index: record.images for record in atlas.classes}
    assert all(row["count"] <= images[row["class"]] for row in counts)


def test_every_group_has_a_graph_that_connects_all_layers(
    lite_run: tuple[IngestReport, Path],
) -> None:
    report, path = lite_run
    assert report.classes == report.ranking.with_graph == 12
    assert report.ranking.not_converged == ()
    with Atlas.open(path) as atlas:
        layers = [layer.name for layer in atlas.layers if layer.chosen]
        for record in atlas.classes:
            graph = atlas.attribution_graph(record.name)
            reached = {neuron.layer for neuron in graph.neurons}
            fed = {edge.target.rpartition("/")[0] for edge in graph.edges}
            without = set(record.unconnected)
            assert reached >= set(layers) - without - {layers[0]}, record.name
            assert fed >= set(layers[1:]) - without, record.name


def _counted(model: LoadedModel, image: Tensor) -> dict[tuple[str, int], set[tuple[str, int]]]:
    """Who influences whom in one image, as the package counts it."""
    network = trace(model.module, model.preprocessing.shape)
    counter = Counter(network)
    counter.add(image, ["image"], [0], lambda label, _predicted: label or 0)
    found: dict[tuple[str, int], set[tuple[str, int]]] = {}
    names = [layer.name for layer in network.layers]
    for row in counter.counts().influences.to_pylist():
        hop = network.hops[row["hop"]]
        target = (names[hop.target], row["target"])
        found.setdefault(target, set()).add((names[hop.source], row["source"]))
    return found


def _values(block: Any, x: Tensor, name: str, before: str) -> Any:
    """Every influence in one block, in float64, by the definition.

    Yields targets with all their sources' values; x is the block's input, made by layer `before`.
    """

    def scale(norm: Any) -> Tensor:
        return norm.weight.double() / torch.sqrt(norm.running_var.double() + norm.eps)

    def normed(y: Tensor, norm: Any) -> Tensor:
        factor = scale(norm)
        shift = norm.bias.double() - norm.running_mean.double() * factor
        return y * factor[:, None, None] + shift[:, None, None]

    source, y = before, x
    if hasattr(block, "_expand_conv"):
        weight = block._expand_conv.weight.double() * scale(block._bn0)[:, None, None, None]
        high, low = y.amax((1, 2)), y.amin((1, 2))
        plain = weight[:, :, 0, 0]
        values = torch.maximum(plain * high, plain * low)
        for target, row in enumerate(values):
            yield (f"{name}._expand_conv", target), {(source, i): v for i, v in enumerate(row)}
        y = F.conv2d(y[None], block._expand_conv.weight.double())[0]
        y = normed(y, block._bn0).clamp(0, 6)
        source = f"{name}._expand_conv"
    deep = block._depthwise_conv
    size, kernel = y.shape[-1], deep.weight.shape[-1]
    step = deep.stride[0]
    total = max((-(-size // step) - 1) * step + kernel - size, 0)
    padded = F.pad(y, (total // 2, total - total // 2, total // 2, total - total // 2))
    maps = F.conv2d(padded[None], deep.weight.double(), stride=step, groups=len(y))[0]
    for target, value in enumerate((maps * scale(block._bn1)[:, None, None]).amax((1, 2))):
        yield (f"{name}._depthwise_conv", target), {(source, target): value}
    y = normed(maps, block._bn1).clamp(0, 6)
    source = f"{name}._depthwise_conv"
    weight = (block._project_conv.weight.double() * scale(block._bn2)[:, None, None, None])[
        ..., 0, 0
    ]
    high, low = y.amax((1, 2)), y.amin((1, 2))
    values = torch.maximum(weight * high, weight * low)
    adds = step == 1 and weight.shape[0] == x.shape[0]
    for target, row in enumerate(values):
        sources = {(source, i): v for i, v in enumerate(row)}
        if adds:
            sources[before, target] = x[target].max()
        yield (name, target), sources


def test_counts_of_a_few_images_equal_the_definition(
    lite_model: LoadedModel, test_data: Path
) -> None:
    blocks = lite_model.module._blocks
    checked = near = 0
    for file in sorted((test_data / "imagenet-sample").rglob("*.jpg"))[::400]:
        image = lite_model.preprocessing(decode(file.read_bytes(), 3)).unsqueeze(0)
        counted = _counted(lite_model, image)
        inputs: dict[int, Tensor] = {}
        hooks = [
            block.register_forward_pre_hook(
                lambda _block, args, n=n, kept=inputs: kept.__setitem__(n, args[0][0].double())
            )
            for n, block in enumerate(blocks)
        ]
        with torch.no_grad():
            lite_model.module(image)
            for hook in hooks:
                hook.remove()
            for n in (1, 2, 5, 9, 15):
                for target, sources in _values(blocks[n], inputs[n], f"_blocks.{n}",
                                               f"_blocks.{n - 1}"):  # fmt: skip
                    values = sorted((float(v) for v in sources.values()), reverse=True)
                    edge = values[4] if len(values) > 4 else 0.0
                    chosen = counted.get(target, set())
                    for name, value in sources.items():
                        wanted = float(value) > 0 and float(value) >= edge
                        if (name in chosen) != wanted:
                            distance = min(abs(float(value) - edge), abs(float(value)))
                            assert distance <= 1e-5 * max(abs(edge), abs(float(value))), (
                                f"{file.name}: {name} -> {target} is {float(value)}, the fifth "
                                f"{edge}"
                            )
                            near += 1
                    checked += len(sources)
    assert checked > 500_000
    assert near <= checked * 1e-5

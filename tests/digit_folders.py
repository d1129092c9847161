"""The demo's digits as PNG files in class folders, for tests that need real files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from summit_graph.images.digits import DigitsSource

MODEL = "summit_graph.network.digits:digits_cnn"
NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def write_digits(root: Path, per_class: int, names: Sequence[str] = NAMES) -> Path:
    """Write the first `per_class` held-out digits of each class as `root/<class>/<n>.png`."""
    source = DigitsSource()
    written = dict.fromkeys(names, 0)
    for item in source.items():
        assert item.label is not None
        if written.get(item.label, per_class) >= per_class:
            continue
        written[item.label] += 1
        folder = root / item.label
        folder.mkdir(parents=True, exist_ok=True)
        image = source.read(item).image
        assert isinstance(image, Image.Image)
        image.save(folder / f"{Path(item.path).name}.png")
    return root

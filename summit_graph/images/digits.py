"""The demo set: scikit-learn's handwritten digits, 8 x 8 pixels, in two halves.

The demo network was trained on one half; the source is the other. The split is a permutation from
a fixed seed. Pixels, 0 to 16 there, are 0 to 255 here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from summit_graph.errors import ImageError
from summit_graph.images.sources import Content, Item

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SPLIT_SEED = 20


def digits() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """All digits: images (1797, 8, 8), 0 (paper) to 255 (ink), and what they show, 0 to 9."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    pixels = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
    return pixels, bunch.target.astype(np.int64)


def halves(count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The numbers of the images for training and of those held out, each in ascending order."""
    order = np.random.default_rng(SPLIT_SEED).permutation(count)
    return np.sort(order[: count // 2]), np.sort(order[count // 2 :])


class DigitsSource:
    """The held-out half; an image's path is its digit's name and its number in the whole set."""

    name = "digits"
    passed_over: tuple[str, ...] = ()
    labels_are_outputs = False

    def __init__(self) -> None:
        self._pixels, targets = digits()
        _, held_out = halves(len(targets))
        self._items = sorted(
            Item(
                f"{NAMES[targets[number]]}/{number:04}",
                NAMES[targets[number]],
                NAMES[targets[number]],
            )
            for number in held_out
        )

    def items(self) -> Sequence[Item]:
        return self._items

    def read(self, item: Item) -> Content:
        number = item.path.rpartition("/")[2]
        if not number.isdecimal() or int(number) >= len(self._pixels):
            raise ImageError(f"The digits have no image '{item.path}'.")
        pixels = self._pixels[int(number)]
        raw = pixels.tobytes()
        return Content(len(raw), hashlib.sha256(raw).hexdigest(), Image.fromarray(pixels))

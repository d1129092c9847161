"""The demo set: its halves, and its held-out half as a source."""

from __future__ import annotations

import hashlib
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from summit_graph.errors import ImageError
from summit_graph.images.digits import NAMES, digits, halves
from summit_graph.images.sources import Item, labels_of, open_source


def test_the_halves_share_no_image() -> None:
    training, held_out = halves(1797)
    assert (len(training), len(held_out)) == (898, 899)
    assert sorted([*training, *held_out]) == list(range(1797))
    assert [array.tolist() for array in halves(1797)] == [training.tolist(), held_out.tolist()]


def test_the_source_is_the_held_out_half() -> None:
    source = open_source("digits")
    items = source.items()
    pixels, targets = digits()
    _, held_out = halves(len(targets))
    assert source.name == "digits"
    assert sorted(int(item.path[-4:]) for item in items) == held_out.tolist()
    assert [item.path for item in items] == sorted(item.path for item in items)
    assert labels_of(items) == tuple(sorted(NAMES))
    for item in items:
        number = int(item.path[-4:])
        name = NAMES[targets[number]]
        assert item == Item(f"{name}/{number:04}", name, name)
    content = source.read(items[0])
    assert isinstance(content.image, Image.Image)
    first = pixels[int(items[0].path[-4:])]
    assert np.array_equal(np.asarray(content.image), first)
    assert (content.size, content.hash) == (64, hashlib.sha256(first.tobytes()).hexdigest())
    assert min(Counter(item.label for item in items).values()) >= 75


def test_shades_are_those_of_scikit_learn() -> None:
    pixels, _ = digits()
    assert pixels.shape == (1797, 8, 8)
    assert (pixels.min(), pixels.max()) == (0, 255)
    assert len(np.unique(pixels)) == 17


def test_an_image_that_is_none_of_the_digits() -> None:
    with pytest.raises(ImageError, match="no image 'nine/9999'"):
        open_source("digits").read(Item("nine/9999", "nine", "nine"))

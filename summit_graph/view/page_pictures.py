"""The pictures that the pages show of neurons, made small enough for many of them.

A feature visualisation becomes a data URI, so that the page may save it within a picture. Diverse
ones and the patches of dataset examples become strips: square tiles side by side from the left.
"""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from PIL import Image

from summit_graph.atlas.atlas import Atlas
from summit_graph.atlas.interface import ExampleRecord
from summit_graph.errors import AtlasError
from summit_graph.explain.patches import LEAST, Patches
from summit_graph.explain.pictures import Pictures
from summit_graph.view.page_data import ClassGraphs

FEATURE = 128
"""Pixels of a feature visualisation's longer side, at most."""

TILE = 96
"""Pixels of a side of the tiles of diverse pictures and of dataset examples."""

QUALITY = 82
"""WebP's quality of what is encoded here, of 100."""

_EFFORT = 2
"""Of WebP's encoder, 0 to 6; the files are hardly larger than with more, and quick to make."""

_SMALL = 64
"""A picture of fewer pixels is made larger without smoothing."""

_THREADS = 8


class Portrait(NamedTuple):
    """The pictures of a neuron.

    key: of the neuron, as in `ClassGraphs`. name: `<place of the layer>-<channel>`. feature: its
    feature visualisation, a data URI; None without one. diverse, examples: strips, WebP files; None
    without any. tiles: of `diverse`. Those of `examples` are in the order of its dataset examples;
    one without a picture is empty.
    """

    key: int
    name: str
    feature: str | None
    diverse: bytes | None
    tiles: int
    examples: bytes | None


class Portraits:
    """The pictures of all neurons of a graph, one after another.

    Several are made at a time: decoding and encoding take no lock. examples: of each neuron, by
    key. Raises: AtlasError if a picture that the atlas lists cannot be read.
    """

    def __init__(
        self, atlas: Atlas, graphs: ClassGraphs, examples: Mapping[int, Sequence[ExampleRecord]]
    ) -> None:
        self._graphs = graphs
        self._examples = examples
        self._pictures = Pictures(atlas)
        self._patches = Patches(atlas)

    def __iter__(self) -> Iterator[Portrait]:
        with ThreadPoolExecutor(min(os.cpu_count() or 1, _THREADS)) as pool:
            yield from pool.map(self._portrait, self._graphs.by_neuron)

    def _portrait(self, key: int) -> Portrait:
        place, channel = self._graphs.place_of(key)
        layer = self._graphs.layers[place].name
        neuron = f"{layer}/{channel}"
        feature = self._pictures.feature(neuron)
        diverse = [_tile(_read(content, neuron)) for content in self._pictures.diverse(neuron)]
        crops = [self._patches.crop(layer, example) for example in self._examples.get(key, ())]
        tiles = [None if crop is None else _tile(crop) for crop in crops]
        return Portrait(
            key=key,
            name=f"{place}-{channel}",
            feature=None if feature is None else _uri(feature, neuron),
            diverse=_strip(diverse) if diverse else None,
            tiles=len(diverse),
            examples=_strip(tiles) if any(tile is not None for tile in tiles) else None,
        )


def _read(content: bytes, neuron: str) -> Image.Image:
    try:
        with Image.open(io.BytesIO(content)) as picture:
            picture.load()
            return picture
    except OSError as error:
        raise AtlasError(
            f"a feature visualisation of {neuron} cannot be read: {error}. Remove the atlas's "
            "folder 'features' and make the pictures again with `summit-graph features`."
        ) from error


def _sized(picture: Image.Image, side: int) -> Image.Image:
    """A picture whose longer side has `side` pixels; small ones keep their pixels as squares."""
    longer = max(picture.size)
    if longer == side:
        return picture
    size = (
        max(1, round(picture.width * side / longer)),
        max(1, round(picture.height * side / longer)),
    )
    small = longer < _SMALL
    return picture.resize(size, Image.Resampling.NEAREST if small else Image.Resampling.LANCZOS)


def _uri(content: bytes, neuron: str) -> str:
    """A feature visualisation as a data URI of a WebP file of `LEAST` to `FEATURE` pixels."""
    picture = _read(content, neuron)
    longer = max(picture.size)
    if picture.format != "WEBP" or not LEAST <= longer <= FEATURE:
        side = min(max(longer, LEAST), FEATURE)
        content = _webp(_sized(picture, side), lossless=longer < LEAST)
    return f"data:image/webp;base64,{base64.b64encode(content).decode('ascii')}"


def _tile(picture: Image.Image) -> Image.Image:
    return _sized(picture, TILE)


def _strip(tiles: Sequence[Image.Image | None]) -> bytes:
    """Tiles side by side from the left, each in the middle of its square."""
    strip = Image.new("RGBA", (TILE * len(tiles), TILE))
    for at, tile in enumerate(tiles):
        if tile is not None:
            corner = (at * TILE + (TILE - tile.width) // 2, (TILE - tile.height) // 2)
            strip.paste(tile, corner)
    return _webp(strip, lossless=False)


def _webp(picture: Image.Image, *, lossless: bool) -> bytes:
    content = io.BytesIO()
    picture.save(content, "WEBP", quality=QUALITY, lossless=lossless, method=_EFFORT)
    return content.getvalue()

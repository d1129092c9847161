"""Dataset examples as a person sees them: the part of an image that a neuron looks at.

1. A dataset example names an image and the position of the maximum in the layer's map
   (docs/method.md, section 6). The layer's receptive field says which pixels of the model's input
   that position sees (`network.receptive`).
2. Those pixels are cut out of the image's thumbnail, which is what the network saw of it. Where
   the field reaches beyond the image, the patch is what lies within.
3. A patch of a few pixels is made larger, each pixel a square, so that it can be looked at.

It needs neither the model nor the images. An atlas without thumbnails, or made before receptive
fields were kept, has no patches.
"""

from __future__ import annotations

import io
import math
from functools import cached_property

import pyarrow as pa
from PIL import Image

from summit_graph.atlas import thumbnails
from summit_graph.atlas.atlas import Atlas
from summit_graph.atlas.interface import ExampleRecord, find_layer
from summit_graph.atlas.schema import ReceptiveField
from summit_graph.errors import AtlasError

LEAST = 48
"""Pixels that the longer side of a patch has at least, once it is made larger."""

QUALITY = 90
"""WebP's quality of large patches, of 100; small ones are kept pixel by pixel."""

Box = tuple[int, int, int, int]
"""Left, top, right, bottom, the last two exclusive."""


class Patches:
    """The patches of an atlas.

    atlas: stays open as long as patches are asked for.
    """

    def __init__(self, atlas: Atlas) -> None:
        self._atlas = atlas

    def field(self, layer: str) -> ReceptiveField | None:
        """The receptive field of a chosen layer; None where the atlas does not hold it.

        Raises: UnknownLayer.
        """
        return self._fields.get(find_layer(self._atlas.layers, layer).number)

    def crop(self, layer: str, example: ExampleRecord) -> Image.Image | None:
        """What a neuron of a layer sees of one of its dataset examples, as a picture.

        example: as `Atlas.examples` gives it. None where the atlas has no thumbnail of the image or
        does not hold the layer's receptive field.
        Raises: UnknownLayer; AtlasError if the thumbnail is damaged.
        """
        found = self.field(layer)
        content = None if found is None else self.thumbnail(example)
        if found is None or content is None:
            return None
        try:
            with Image.open(io.BytesIO(content), formats=["WEBP"]) as picture:
                picture.load()
        except (OSError, ValueError) as error:
            raise AtlasError(
                f"the thumbnail of {example.path} in {self._atlas.path} is damaged: {error}. "
                f"Remove the folder {self._atlas.path / thumbnails.FOLDER} and run the same "
                "`summit-graph ingest` again: its pictures are made anew."
            ) from error
        height, width = self._input or (picture.height, picture.width)
        seen = box(found, example.row, example.column, height, width)
        return _cut(picture, seen, picture.width / width, picture.height / height)

    def patch(self, layer: str, example: ExampleRecord) -> bytes | None:
        """`crop` as the bytes of a WebP file."""
        picture = self.crop(layer, example)
        if picture is None:
            return None
        content = io.BytesIO()
        if max(picture.size) < thumbnails.LOSSLESS:
            picture.save(content, "WEBP", lossless=True)
        else:
            picture.save(content, "WEBP", quality=QUALITY, method=thumbnails.EFFORT)
        return content.getvalue()

    def thumbnail(self, example: ExampleRecord) -> bytes | None:
        """The whole image of a dataset example as the network saw it, the bytes of a WebP file.

        None where the atlas has none.
        """
        if self._hashes is None:
            return None
        return thumbnails.read(self._atlas.path, self._hashes[example.image].as_py())

    @cached_property
    def _fields(self) -> dict[int, ReceptiveField]:
        return {field.layer: field for field in self._atlas.generation.fields or ()}

    @cached_property
    def _hashes(self) -> pa.ChunkedArray | None:
        """The content hashes of all images, by number; None where the atlas has no images."""
        generation = self._atlas.generation
        return generation.table("images", columns=["hash"])[0] if generation.has("images") else None

    @cached_property
    def _input(self) -> tuple[int, int] | None:
        """Height and width of the model's input, in pixels, where the atlas says."""
        shape = self._atlas.generation.identity["parameters"].get("shape")
        return None if shape is None else (int(shape[1]), int(shape[2]))


def box(field: ReceptiveField, row: int, column: int, height: int, width: int) -> Box:
    """What a position of a layer's map sees of an input of height x width pixels.

    row, column: of the position. At least one pixel, where it sees nothing but padding the nearest.
    """
    top, bottom = _side(field.top + row * field.row_step, field.height, height)
    left, right = _side(field.left + column * field.column_step, field.width, width)
    return left, top, right, bottom


def _side(start: float, length: int | None, size: int) -> tuple[int, int]:
    if length is None:
        return 0, size
    first = min(max(0, math.floor(start)), size - 1)
    return first, max(first + 1, min(size, math.ceil(start + length)))


def _cut(picture: Image.Image, seen: Box, across: float, down: float) -> Image.Image:
    """A box of the model's input out of its thumbnail, which has `across` and `down` pixels for
    each pixel of the input."""
    left, top, right, bottom = seen
    part = picture.crop(
        (
            math.floor(left * across),
            math.floor(top * down),
            max(math.ceil(right * across), math.floor(left * across) + 1),
            max(math.ceil(bottom * down), math.floor(top * down) + 1),
        )
    )
    times = math.ceil(LEAST / max(part.size))
    if times > 1:
        size = (part.width * times, part.height * times)
        part = part.resize(size, Image.Resampling.NEAREST)
    return part

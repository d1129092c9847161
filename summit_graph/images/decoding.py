"""The bytes of an image file become pixels.

1. Pillow opens the file: JPEG, PNG, WebP, BMP, TIFF, GIF, PPM; of an animation the first frame.
2. Its whole content is decoded, so that a truncated or damaged file is found here and not later.
3. The EXIF orientation is carried out: the picture is upright, as a viewer shows it.
4. 16-bit greyscale is scaled to 8 bits (65535 becomes 255), not clipped.
5. Transparency is laid over white, as a page shows it; the colours hidden under it do not count.
6. Palette, CMYK, YCbCr and greyscale become RGB (three channels) or greyscale (one channel).

A file that cannot be decoded is a `BadImage`, whose `status` is what the atlas notes about it.
"""

from __future__ import annotations

import io
import struct

import numpy as np
from PIL import Image, UnidentifiedImageError

from summit_graph.errors import ImageError, UsageError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM")
"""The formats Pillow is let try, by its names (JPEG: MPO, of cameras, as well)."""

SUFFIXES = frozenset(
    (
        ".bmp", ".dib", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm",
        ".ppm", ".tif", ".tiff", ".webp",
    )
)  # fmt: skip
"""The endings (lower case) by which a file in a folder counts as an image."""

_SIXTEEN_BITS = frozenset({"I;16", "I;16B", "I;16L", "I;16N"})
_TRANSPARENT = frozenset({"LA", "La", "PA", "RGBA", "RGBa"})
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_PIXEL_MODES = {1: "L", 3: "RGB"}


class BadImage(ImageError):
    """An image whose content cannot be decoded.

    `status` is a short, stable text: `empty file`, `not an image`, `truncated`, `damaged`,
    `too large`, or `unsupported pixels: MODE`.
    """

    def __init__(self, status: str) -> None:
        super().__init__(status)
        self.status = status


def decode(content: bytes, channels: int) -> Image.Image:
    """The upright picture in a file's bytes, 8 bits a channel.

    `channels` is 3 (the result's mode is `RGB`) or 1 (`L`).

    Raises:
        BadImage: the bytes are empty, no image, truncated, damaged, or a picture of more than
            twice `PIL.Image.MAX_IMAGE_PIXELS` pixels.
        UsageError: `channels` is neither 1 nor 3.
    """
    if not content:
        raise BadImage("empty file")
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            image.load()
            upright = _upright(image)
    except UnidentifiedImageError as error:
        raise BadImage("not an image") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BadImage("too large") from error
    except MemoryError:
        raise
    except Exception as error:  # Pillow's decoders raise whatever a damaged file leads them to
        truncated = isinstance(error, EOFError) or "truncat" in str(error).lower()
        raise BadImage("truncated" if truncated else "damaged") from error
    return as_pixels(upright, channels)


def as_pixels(image: Image.Image, channels: int) -> Image.Image:
    """The same picture in mode `RGB` (3 channels) or `L` (1 channel).

    Raises:
        BadImage: pixels of 32 bits or of a colour space that Pillow does not convert.
        UsageError: `channels` is neither 1 nor 3.
    """
    mode = _PIXEL_MODES.get(channels)
    if mode is None:
        raise UsageError(
            f"The network takes {channels} channels; a picture gives 3 (colour) or 1 (greyscale). "
            "Give such images as float tensors, from a data set (module:attribute)."
        )
    transparent = image.mode in _TRANSPARENT or "transparency" in image.info
    if image.mode == mode and not transparent:
        return image
    if image.mode in _SIXTEEN_BITS or (image.mode == "I" and image.format in ("PNG", "PPM")):
        return _eight_bits(image).convert(mode)
    if image.mode in ("I", "F"):  # no telling which values are black and white
        raise BadImage(f"unsupported pixels: {image.mode}")
    try:
        if not transparent:
            return image.convert(mode)
        picture = image.convert("RGBA")
    except ValueError as error:
        raise BadImage(f"unsupported pixels: {image.mode}") from error
    paper = Image.new("RGBA", picture.size, "white")
    return Image.alpha_composite(paper, picture).convert(mode)


def _eight_bits(image: Image.Image) -> Image.Image:
    """Greyscale of 16 bits, 0 to 65535, as greyscale of 8 bits, rounded."""
    deep = np.asarray(image).astype(np.float64)
    return Image.fromarray(np.rint(np.clip(deep, 0, 65535) / 257).astype(np.uint8))


def _upright(image: Image.Image) -> Image.Image:
    """The picture turned as its EXIF orientation says; as it is where that cannot be read."""
    try:
        orientation = image.getexif().get(0x0112, 1)
    except (SyntaxError, ValueError, TypeError, KeyError, EOFError, struct.error):
        orientation = 1  # the pixels are whole; broken metadata does not make them a bad image
    turn = _TURNS.get(orientation)
    turned = image.copy() if turn is None else image.transpose(turn)
    turned.format = image.format
    return turned

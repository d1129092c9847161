"""Real files of every kind, made here, come out as the picture that a viewer shows."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from summit_graph.errors import UsageError
from summit_graph.images.decoding import BadImage, as_pixels, decode


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


@pytest.fixture
def photo() -> Image.Image:
    """24 x 16: left half red, right half blue, one white corner (top left, 4 x 4)."""
    image = Image.new("RGB", (24, 16), (220, 20, 20))
    image.paste((20, 20, 220), (12, 0, 24, 16))
    image.paste((255, 255, 255), (0, 0, 4, 4))
    return image


def near(image: Image.Image, at: tuple[int, int], colour: tuple[int, ...], by: int = 25) -> bool:
    pixel = np.asarray(image, dtype=int)[at[1], at[0]]
    return bool((np.abs(pixel - np.array(colour)) <= by).all())


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM"])
def test_lossless_formats_give_the_pixels_back(photo: Image.Image, kind: str) -> None:
    assert decode(encoded(photo, kind), 3).tobytes() == photo.tobytes()


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "GIF"])
def test_lossy_formats_give_the_picture_back(photo: Image.Image, kind: str) -> None:
    image = decode(encoded(photo, kind), 3)
    assert (image.mode, image.size) == ("RGB", (24, 16))
    assert near(image, (8, 12), (220, 20, 20))
    assert near(image, (20, 12), (20, 20, 220))


def test_webp_without_loss(photo: Image.Image) -> None:
    assert decode(encoded(photo, "WEBP", lossless=True), 3).tobytes() == photo.tobytes()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP", "BMP"])
def test_greyscale_becomes_three_equal_channels(kind: str) -> None:
    gray = Image.new("L", (9, 7), 77)
    colour = np.asarray(decode(encoded(gray, kind), 3))
    assert colour.shape == (7, 9, 3)
    assert np.abs(colour.astype(int) - 77).max() <= 3
    assert decode(encoded(gray, kind), 1).mode == "L"


def test_colour_becomes_greyscale_by_luma(photo: Image.Image) -> None:
    assert decode(encoded(photo, "PNG"), 1).tobytes() == photo.convert("L").tobytes()


def test_black_and_white() -> None:
    image = Image.new("1", (8, 8), 1)
    image.putpixel((3, 2), 0)
    pixels = np.asarray(decode(encoded(image, "PNG"), 3))
    assert pixels[2, 3].tolist() == [0, 0, 0]
    assert pixels[0, 0].tolist() == [255, 255, 255]


def test_palette(photo: Image.Image) -> None:
    image = decode(encoded(photo.quantize(8), "PNG"), 3)
    assert near(image, (8, 12), (220, 20, 20), by=2)


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk(photo: Image.Image, kind: str) -> None:
    content = encoded(photo.convert("CMYK"), kind)
    assert Image.open(io.BytesIO(content)).mode == "CMYK"
    image = decode(content, 3)
    assert near(image, (8, 12), (220, 20, 20))
    assert near(image, (20, 12), (20, 20, 220))


def test_transparency_shows_white_paper() -> None:
    image = Image.new("RGBA", (4, 1), (200, 0, 0, 255))
    image.putpixel((1, 0), (0, 0, 0, 0))  # black, and not to be seen
    image.putpixel((2, 0), (0, 0, 0, 128))
    pixels = np.asarray(decode(encoded(image, "PNG"), 3))[0].tolist()
    assert pixels == [[200, 0, 0], [255, 255, 255], [127, 127, 127], [200, 0, 0]]


def test_grey_with_transparency_shows_white_paper() -> None:
    image = Image.new("LA", (2, 1), (10, 255))
    image.putpixel((1, 0), (10, 0))
    assert np.asarray(decode(encoded(image, "PNG"), 1))[0].tolist() == [10, 255]


def test_palette_with_a_transparent_entry() -> None:
    image = Image.new("P", (3, 1), 0)
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.putpixel((1, 0), 1)
    pixels = np.asarray(decode(encoded(image, "PNG", transparency=1), 3))[0].tolist()
    assert pixels == [[255, 0, 0], [255, 255, 255], [255, 0, 0]]


def test_a_transparent_colour() -> None:
    image = Image.new("RGB", (2, 1), (1, 2, 3))
    image.putpixel((1, 0), (9, 9, 9))
    pixels = np.asarray(decode(encoded(image, "PNG", transparency=(1, 2, 3)), 3))[0].tolist()
    assert pixels == [[255, 255, 255], [9, 9, 9]]


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_sixteen_bits_are_scaled(kind: str) -> None:
    deep = np.array([[0, 257, 32768, 65535, 128, 129]], dtype=np.uint16)
    content = encoded(Image.fromarray(deep), kind)
    assert np.asarray(decode(content, 1))[0].tolist() == [0, 1, 128, 255, 0, 1]
    assert decode(content, 3).mode == "RGB"


@pytest.mark.parametrize(("dtype", "mode"), [(np.float32, "F"), (np.int32, "I")])
def test_pixels_without_a_known_range_are_refused(dtype: type, mode: str) -> None:
    content = encoded(Image.fromarray(np.ones((3, 3), dtype=dtype)), "TIFF")
    with pytest.raises(BadImage, match=rf"^unsupported pixels: {mode}$"):
        decode(content, 3)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF", "MPO"])
def test_the_first_of_several_frames(photo: Image.Image, kind: str) -> None:
    second = Image.new("RGB", photo.size, "green")
    content = encoded(photo, kind, save_all=True, append_images=[second])
    assert near(decode(content, 3), (8, 12), (220, 20, 20))


# EXIF orientation: where the white corner of the upright picture is stored.
@pytest.mark.parametrize(
    ("orientation", "stored"),
    [
        (1, None),
        (2, Image.Transpose.FLIP_LEFT_RIGHT),
        (3, Image.Transpose.ROTATE_180),
        (4, Image.Transpose.FLIP_TOP_BOTTOM),
        (5, Image.Transpose.TRANSPOSE),
        (6, Image.Transpose.ROTATE_90),
        (7, Image.Transpose.TRANSVERSE),
        (8, Image.Transpose.ROTATE_270),
    ],
)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_orientation(
    photo: Image.Image, orientation: int, stored: Image.Transpose | None, kind: str
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    camera = photo if stored is None else photo.transpose(stored)
    image = decode(encoded(camera, kind, exif=exif), 3)
    assert image.size == photo.size
    assert near(image, (1, 1), (255, 255, 255), by=60)
    assert near(image, (8, 12), (220, 20, 20), by=60)
    assert near(image, (20, 12), (20, 20, 220), by=60)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize(
    "exif",
    [
        b"Exif\x00\x00garbage, not TIFF",
        b"Exif\x00\x00",
        b"Exif\x00\x00II*\x00\x08\x00\x00\x00\x05\x00\x12\x01",
        b"Exif\x00\x00II*\x00\xff\xff\xff\xff",
        b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\x00\x01\x01\x12\x00\x02\x00\x00\x00\x04ABC\x00",
    ],
)
def test_broken_exif_leaves_the_picture_as_it_is(photo: Image.Image, exif: bytes) -> None:
    image = decode(encoded(photo, "JPEG", exif=exif), 3)
    assert near(image, (20, 12), (20, 20, 220))


def test_what_is_no_image() -> None:
    for content, status in [
        (b"", "empty file"),
        (b"<html>not found</html>", "not an image"),
        (b"\xff\xd8\xff", "not an image"),
        (bytes(1000), "not an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image"),
    ]:
        with pytest.raises(BadImage) as caught:
            decode(content, 3)
        assert caught.value.status == status


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "TIFF", "GIF", "PPM"])
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_a_truncated_file(kind: str, share: float) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    content = encoded(Image.fromarray(noise), kind)
    with pytest.raises(BadImage, match=r"^truncated$"):
        decode(content[: int(len(content) * share)], 3)


def test_a_truncated_webp() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    content = encoded(Image.fromarray(noise), "WEBP")
    with pytest.raises(BadImage, match=r"^damaged$"):
        decode(content[: len(content) // 2], 3)


def test_a_decompression_bomb(photo: Image.Image, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(BadImage, match=r"^too large$"):
        decode(encoded(photo, "PNG"), 3)


@pytest.mark.filterwarnings("ignore")
@settings(deadline=None, max_examples=60)
@given(
    kind=st.sampled_from(["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF"]),
    at=st.floats(0, 1, exclude_max=True),
    put=st.binary(min_size=1, max_size=12),
)
def test_damage_anywhere_is_a_picture_or_a_status(kind: str, at: float, put: bytes) -> None:
    content = bytearray(encoded(Image.new("RGB", (20, 20), (9, 99, 199)), kind))
    start = int(at * len(content))
    content[start : start + len(put)] = put
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Image, "MAX_IMAGE_PIXELS", 10_000)  # or some would take half a second
        try:
            mode = decode(bytes(content), 3).mode
        except BadImage as bad:
            mode = bad.status
    statuses = {"not an image", "truncated", "damaged", "too large", "RGB"}
    assert mode in statuses or mode.startswith("unsupported pixels: ")


def test_only_one_and_three_channels(photo: Image.Image) -> None:
    with pytest.raises(UsageError, match="takes 4 channels"):
        as_pixels(photo, 4)

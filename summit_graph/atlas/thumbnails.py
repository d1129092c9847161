"""Small pictures of the images that excite neurons: what the network saw, one file an image.

1. `<atlas>/thumbnails/<first two digits>/<hash>.webp` is the picture of the image whose content has
   that SHA-256. So it is one file however many neurons have the image as an example, it never is
   of an image whose content changed, and atlases that are merged can share it.
2. Only images that are a dataset example of a neuron of a chosen layer have one. They are made
   from the images after counting (`pipeline`), and are the only part of an atlas that shows
   what is in an image; `atlas.json` says under `thumbnails` whether it may have any.
3. A file is whole or absent: it is written under a temporary name, synced and renamed. What a
   killed run left, and pictures that are no example any more, go with `prune`.
"""

from __future__ import annotations

import io
import os
import re
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from summit_graph.atlas.files import discard, share, sync, temporary, writing
from summit_graph.atlas.generation import Generation

FOLDER = "thumbnails"

LARGEST = 256
"""Pixels of a thumbnail's longer side, at most."""

LOSSLESS = 64
"""Inputs whose longer side has fewer pixels are kept as they are, pixel by pixel."""

QUALITY = 85
"""WebP's quality of the others, of 100."""

EFFORT = 2
"""How hard WebP tries to make files small, of 6: more takes twice as long for a hundredth."""

_HASH = re.compile("[0-9a-f]{64}")


def encoded(picture: Image.Image) -> bytes:
    """A thumbnail's file: WebP of the picture, made smaller where it is larger than `LARGEST`."""
    longer = max(picture.size)
    if longer > LARGEST:
        width, height = (max(1, round(side * LARGEST / longer)) for side in picture.size)
        picture = picture.resize((width, height), Image.Resampling.LANCZOS)
    content = io.BytesIO()
    if longer < LOSSLESS:
        picture.save(content, "WEBP", lossless=True)
    else:
        picture.save(content, "WEBP", quality=QUALITY, method=EFFORT)
    return content.getvalue()


def path_of(atlas: Path, content_hash: str) -> Path:
    """Where the thumbnail of an image lies, whether or not it is there."""
    return atlas / FOLDER / content_hash[:2] / f"{content_hash}.webp"


def read(atlas: Path, content_hash: str) -> bytes | None:
    """The file of an image's thumbnail; None where there is none."""
    if not _HASH.fullmatch(content_hash):
        return None
    try:
        return path_of(atlas, content_hash).read_bytes()
    except FileNotFoundError:
        return None


def wanted(generation: Generation) -> dict[str, str]:
    """The images that are examples of chosen layers: hash of the content -> path.

    Of images with the same content the first by path.
    """
    chosen = [layer.number for layer in generation.layers if layer.chosen]
    images = generation.table("images", columns=["path", "hash"])
    named = np.zeros(images.num_rows, dtype=bool)
    for batch in pq.ParquetFile(generation.path("examples")).iter_batches(
        columns=["layer", "image"]
    ):
        layers, numbers = (np.asarray(column) for column in batch.columns)
        named[numbers[np.isin(layers, chosen)]] = True
    kept = images.filter(pa.array(named))
    found: dict[str, str] = {}
    for path, content in zip(*(column.to_pylist() for column in kept.columns), strict=True):
        found.setdefault(content, path)
    return found


def missing(atlas: Path, images: Mapping[str, str]) -> dict[str, str]:
    """Those of `images` (hash -> path) that have no thumbnail yet."""
    there = {path.stem for path in _files(atlas)}
    return {content: path for content, path in images.items() if content not in there}


def write(atlas: Path, content_hash: str, content: bytes) -> None:
    """Puts an image's thumbnail in place.

    Raises: AtlasError if it cannot be written.
    """
    target = path_of(atlas, content_hash)
    with writing(atlas):
        target.parent.mkdir(parents=True, exist_ok=True)
        new = temporary(target.parent)
        try:
            with new.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(new, target)
        except BaseException:
            discard(new)
            raise


def settle(atlas: Path) -> None:
    """Waits until the names of all thumbnails are on the disk."""
    with writing(atlas):
        for folder in (atlas / FOLDER).iterdir():
            sync(folder)
        sync(atlas / FOLDER)
        sync(atlas)


def prune(atlas: Path, keep: Collection[str]) -> None:
    """Removes all thumbnails but those of the images with these hashes, and what a cut left."""
    with writing(atlas):
        for path in list(_files(atlas)):
            if path.suffix != ".webp" or path.stem not in keep:
                path.unlink()


def remove(atlas: Path) -> None:
    """Removes all thumbnails."""
    if (atlas / FOLDER).exists():
        with writing(atlas):
            away = temporary(atlas)
            os.rename(atlas / FOLDER, away)
            shutil.rmtree(away)


def take_over(sources: Sequence[Path], atlas: Path, generation: Generation) -> None:
    """Copies the thumbnails that a new atlas needs from those it was made of.

    The files are shared where the file system can.
    """
    with writing(atlas):
        for content in wanted(generation):
            target = path_of(atlas, content)
            source = next((p for a in sources if (p := path_of(a, content)).is_file()), None)
            if source is not None:
                target.parent.mkdir(parents=True, exist_ok=True)
                share(source, target)
    if (atlas / FOLDER).is_dir():
        settle(atlas)


def _files(atlas: Path) -> Iterator[Path]:
    if (atlas / FOLDER).is_dir():
        for folder in (atlas / FOLDER).iterdir():
            yield from folder.iterdir()

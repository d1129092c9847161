"""Thumbnails on disk: which images have one, what it holds, and what is left after a cut."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from atlas import made
from PIL import Image

from summit_graph.atlas import thumbnails
from summit_graph.atlas.atlas import Atlas
from summit_graph.atlas.generation import Generation
from summit_graph.atlas.merging import merge_atlases
from summit_graph.atlas.store import Store
from summit_graph.atlas.tables import build_tables, compact
from summit_graph.errors import AtlasError


def with_thumbnails(path: Path, **changes: object) -> Path:
    with Store.open_for_writing(path) as store:
        made.make_thumbnails(store)
    return path


def there(path: Path) -> set[str]:
    return {file.stem for file in (path / "thumbnails").rglob("*.webp")}


def shown(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(content))


def noise(width: int, height: int, mode: str = "RGB") -> Image.Image:
    shape = (height, width, 3) if mode == "RGB" else (height, width)
    values = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    return Image.fromarray(values)


@pytest.mark.parametrize(("width", "height"), [(8, 8), (63, 5), (1, 1)])
def test_small_inputs_are_kept_pixel_by_pixel(width: int, height: int) -> None:
    for mode in ("L", "RGB"):
        picture = noise(width, height, mode)
        again = shown(thumbnails.encoded(picture)).convert(mode)
        assert np.array_equal(np.asarray(again), np.asarray(picture))


@pytest.mark.parametrize(
    ("size", "expected"), [((64, 64), (64, 64)), ((224, 224), (224, 224)),
                           ((512, 300), (256, 150)), ((3, 900), (1, 256))],
)  # fmt: skip
def test_large_inputs_are_made_smaller(size: tuple[int, int], expected: tuple[int, int]) -> None:
    grey = Image.new("RGB", size, (200, 100, 50))
    again = shown(thumbnails.encoded(grey))
    assert again.format == "WEBP"
    assert again.size == expected
    assert np.abs(np.asarray(again).astype(int) - [200, 100, 50]).max() < 6


def test_which_images_have_one(tmp_path: Path) -> None:
    """By a slow count: every image that is an example of a chosen layer, and no other."""
    images = made.images(40)
    images[8] = images[8]._replace(hash=images[3].hash)  # the same content under two paths
    path = made.atlas(tmp_path / "atlas", images)
    generation = Generation.current(path)
    rows = {row["image"]: row for row in generation.table("images").to_pylist()}
    examples = generation.table("examples").to_pylist()
    used = {rows[row["image"]]["hash"] for row in examples if row["layer"] != 1}
    assert 0 < len(used) < 40
    found = thumbnails.wanted(generation)
    assert set(found) == used
    by_path = {image.path: image.hash for image in images}
    assert all(by_path[path] == content for content, path in found.items())
    hidden = {rows[row["image"]]["hash"] for row in examples if row["layer"] == 1}
    assert hidden - used, "no image is an example of the hidden layer alone"


def test_they_follow_the_examples(tmp_path: Path) -> None:
    path = with_thumbnails(made.atlas(tmp_path / "atlas", made.images(9)))
    before = there(path)
    assert before == set(thumbnails.wanted(Generation.current(path)))
    stamps = {file: file.stat().st_mtime_ns for file in path.glob("thumbnails/*/*")}
    with Store.open_for_writing(path) as store:
        store.plan(made.images(40))
        made.count(store)
        compact(store, threads=1)
        build_tables(store, threads=1)
        assert store.generation.fields == made.FIELDS
    with_thumbnails(path)
    after = there(path)
    assert after == set(thumbnails.wanted(Generation.current(path)))
    assert before - after, "no image was overtaken by a new one"
    assert after - before
    for file, time in stamps.items():
        assert not file.exists() or file.stat().st_mtime_ns == time, "made twice"
    content = thumbnails.read(path, sorted(after)[0])
    assert content is not None
    assert shown(content).convert("L").tobytes() == made.picture(sorted(after)[0]).tobytes()


def test_what_a_cut_left_goes(tmp_path: Path) -> None:
    path = with_thumbnails(made.atlas(tmp_path / "atlas", made.images(9)))
    before = there(path)
    folder = next((path / "thumbnails").iterdir())
    for name in (".tmp-1-a", f"{'f' * 64}.webp", "notes.txt"):
        (folder / name).write_bytes(b"half")
    with Store.open_for_writing(path) as store:
        assert not thumbnails.missing(path, thumbnails.wanted(store.generation))
    with_thumbnails(path)
    assert {file.name for file in path.glob("thumbnails/*/*")} == {
        f"{name}.webp" for name in before
    }


def test_a_thumbnail_that_is_not_there(tmp_path: Path) -> None:
    path = made.atlas(tmp_path / "atlas", made.images(3))
    (tmp_path / "secret.webp").write_bytes(b"of somebody else")
    assert thumbnails.read(path, "0" * 64) is None
    assert thumbnails.read(path, "../../secret") is None
    assert thumbnails.read(path, "") is None


def test_what_the_system_refuses_is_said(tmp_path: Path) -> None:
    path = made.atlas(tmp_path / "atlas", made.images(3))
    (path / "thumbnails").write_text("in the way")
    with pytest.raises(AtlasError, match="could not write to"):
        thumbnails.write(path, "0" * 64, b"")


def test_merged_atlases_share_them(tmp_path: Path) -> None:
    images = made.images(30)
    parts = [
        with_thumbnails(made.atlas(tmp_path / name, some))
        for name, some in (("a", images[:14]), ("b", images[14:]))
    ]
    merge_atlases(parts, tmp_path / "ab").close()
    merge_atlases(parts[::-1], tmp_path / "ba").close()
    whole = with_thumbnails(made.atlas(tmp_path / "whole", images))
    for path in (tmp_path / "ab", tmp_path / "ba"):
        assert there(path) == there(whole)
        assert Generation.current(path).fields == made.FIELDS
        for content in there(path):
            assert thumbnails.read(path, content) == thumbnails.read(whole, content)
        with Store.open_for_writing(path) as store:
            assert thumbnails.missing(path, thumbnails.wanted(store.generation)) == {}


def test_a_merged_atlas_has_none_where_one_is_to_have_none(tmp_path: Path) -> None:
    images = made.images(20)
    first = with_thumbnails(made.atlas(tmp_path / "a", images[:9]))
    second = made.atlas(tmp_path / "b", images[9:], thumbnails=False)
    assert json.loads((second / "atlas.json").read_text())["thumbnails"] is False
    for order in ((first, second), (second, first)):
        merged = tmp_path / f"{order[0].name}{order[1].name}"
        merge_atlases(order, merged).close()
        assert Generation.current(merged).header["thumbnails"] is False
        assert not (merged / "thumbnails").exists()


def test_an_atlas_of_an_earlier_version_opens_and_is_added_to(tmp_path: Path) -> None:
    """It has neither the table nor the entry in `atlas.json`."""
    path = made.atlas(tmp_path / "old", made.images(9))
    for folder in (path / ".tables").iterdir():
        if not folder.is_symlink():
            (folder / "receptive_fields.parquet").unlink()
            header = json.loads((folder / "atlas.json").read_text())
            header.pop("thumbnails", None)
            (folder / "atlas.json").write_text(json.dumps(header))
    with Atlas.open(path) as atlas:
        assert atlas.generation.fields is None
        assert atlas.attribution_graph(0).neurons
        assert atlas.examples("stem/0")
    with Store.open_or_create(path, made.description()) as store:
        store.plan(made.images(14))
        made.count(store)
        build_tables(store, threads=1, fields=made.FIELDS)
        assert store.generation.fields == made.FIELDS
    new = made.atlas(tmp_path / "new", made.images(20, start=14))
    merge_atlases([path, new], tmp_path / "both").close()
    assert Generation.current(tmp_path / "both").fields == made.FIELDS

"""Patches: cut out by hand, and on the demo network the pixels that the activation depends on."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from atlas import made, published
from PIL import Image

from summit_graph.atlas import thumbnails
from summit_graph.atlas.atlas import Atlas
from summit_graph.atlas.interface import ExampleRecord
from summit_graph.atlas.schema import ReceptiveField
from summit_graph.atlas.store import Store
from summit_graph.atlas.summit import import_summit
from summit_graph.errors import AtlasError, UnknownLayer
from summit_graph.explain.patches import LEAST, Patches, box
from summit_graph.network import graph
from summit_graph.network.digits import digits_cnn
from summit_graph.network.trace import trace

FIELD = ReceptiveField(0, -3, -1, 4.0, 2.0, 7, 3)


@pytest.mark.parametrize(
    ("row", "column", "expected"),
    [
        (0, 0, (0, 0, 2, 4)),
        (1, 3, (5, 1, 8, 8)),
        (4, 2, (3, 13, 6, 16)),
        (9, 20, (11, 15, 12, 16)),  # it sees nothing but padding
    ],
)
def test_the_box_of_a_position_by_hand(
    row: int, column: int, expected: tuple[int, int, int, int]
) -> None:
    assert box(FIELD, row, column, 16, 12) == expected


def test_a_side_that_sees_all_and_steps_of_half_a_pixel() -> None:
    assert box(FIELD._replace(height=None, top=0, row_step=0.0), 3, 1, 16, 12) == (1, 0, 4, 16)
    assert box(FIELD._replace(column_step=0.5, left=1), 1, 3, 16, 12) == (2, 1, 6, 8)


def shape(height: int, width: int) -> dict[str, object]:
    return {**made.description().parameters, "shape": [1, height, width]}


def atlas_of(path: Path, picture: Image.Image, height: int, width: int) -> Path:
    """A made atlas whose thumbnails are all of one picture."""
    made.atlas(path, made.images(9), parameters=shape(height, width))
    with Store.open_for_writing(path) as store:
        for content in thumbnails.wanted(store.generation):
            thumbnails.write(path, content, thumbnails.encoded(picture))
    return path


def pixels(content: bytes | None) -> np.ndarray:
    assert content is not None
    return np.asarray(Image.open(io.BytesIO(content)).convert("L"))


def test_a_patch_by_hand(tmp_path: Path) -> None:
    """Fields of 3 x 3 from -1, of 6 rows from -2 by steps of 2 and all columns, and of all."""
    numbers = np.arange(80, dtype=np.uint8).reshape(8, 10)
    with Atlas.open(atlas_of(tmp_path / "a", Image.fromarray(numbers), 8, 10)) as atlas:
        patches = Patches(atlas)
        example = atlas.examples("stem/0")[0]
        at = [
            ExampleRecord(1, example.image, example.path, 1.0, row, column)
            for row, column in ((0, 0), (3, 9), (2, 4))
        ]
        for record, expected in zip(
            at, (numbers[0:2, 0:2], numbers[2:5, 8:10], numbers[1:4, 3:6]), strict=True
        ):
            times = -(-LEAST // max(expected.shape))
            found = pixels(patches.patch("stem", record))
            assert np.array_equal(found, expected.repeat(times, 0).repeat(times, 1))
            assert max(found.shape) >= LEAST
        wide = numbers[2:8].repeat(5, 0).repeat(5, 1)
        assert np.array_equal(pixels(patches.patch("mixed/a", at[2])), wide)
        crop = patches.crop("mixed/b", at[1])
        assert crop is not None
        assert np.array_equal(np.asarray(crop.convert("L")), numbers.repeat(5, 0).repeat(5, 1))
        assert patches.field("mixed/b") == made.FIELDS[2]
        with pytest.raises(UnknownLayer, match="stem"):
            patches.patch("stem/reduce", at[0])


def test_a_thumbnail_that_was_made_smaller(tmp_path: Path) -> None:
    """The input is 512 x 1024, the thumbnail 128 x 256, so 4 pixels become one."""
    values = np.zeros((512, 1024), np.uint8)
    values[400:424, 800:824] = 255
    picture = Image.fromarray(values)
    path = atlas_of(tmp_path / "a", picture, 512, 1024)
    with Store.open_for_writing(path) as store:
        rows = made.table(
            store.generation.table("receptive_fields").schema,
            [(0, 0, 0, 8.0, 8.0, 24, 24), *made.FIELDS[1:]],
        )
        store.replace_tables({"receptive_fields": rows})
    with Atlas.open(path) as atlas:
        example = atlas.examples("stem/0")[0]
        inside, outside = (
            ExampleRecord(1, example.image, example.path, 1.0, *place)
            for place in ((50, 100), (50, 97))
        )
        bright = pixels(Patches(atlas).patch("stem", inside))
        assert bright.shape == (48, 48)
        assert bright.min() > 180
        assert pixels(Patches(atlas).patch("stem", outside)).max() < 80


def test_a_damaged_thumbnail_is_said(tmp_path: Path) -> None:
    path = atlas_of(tmp_path / "a", Image.new("L", (64, 64)), 64, 64)
    for file in path.glob("thumbnails/*/*"):
        file.write_bytes(file.read_bytes()[:40])
    with Atlas.open(path) as atlas:
        example = atlas.examples("stem/0")[0]
        with pytest.raises(AtlasError, match=f"{example.path} in .* is damaged"):
            Patches(atlas).patch("stem", example)


def test_what_an_atlas_does_not_hold(tmp_path: Path) -> None:
    path = made.atlas(tmp_path / "a", made.images(9))
    with Atlas.open(path) as atlas:
        example = atlas.examples("stem/0")[0]
        assert Patches(atlas).field("stem") == made.FIELDS[0]
        assert Patches(atlas).thumbnail(example) is None
        assert Patches(atlas).patch("stem", example) is None
    with Store.open_for_writing(path) as store:
        made.make_thumbnails(store)
        with store.draft(
            keep=[n for n in store.generation.tables() if n != "receptive_fields"]
        ) as d:
            d.publish()
    with Atlas.open(path) as atlas:
        assert Patches(atlas).field("stem") is None
        assert Patches(atlas).thumbnail(example) is not None
        assert Patches(atlas).patch("stem", example) is None
    published.write(tmp_path / "ag", {3: published.content(3)})
    published.class_file(tmp_path / "classes.csv")
    import_summit(tmp_path / "ag", tmp_path / "p", classes_file=tmp_path / "classes.csv")
    with Atlas.open(tmp_path / "p") as atlas:
        assert Patches(atlas).field("mixed3a") is None
        assert Patches(atlas).patch("mixed3a", example) is None


def test_the_patch_holds_all_that_the_activation_depends_on(demo_atlas: Path) -> None:
    """With noise around it the neuron's activation stays; with noise in it, it changes."""
    network = trace(digits_cnn(), (1, 8, 8))
    chance = torch.Generator().manual_seed(0)
    changed = 0
    with Atlas.open(demo_atlas) as atlas:
        patches = Patches(atlas)
        for layer, of_network in zip(atlas.layers, network.chosen, strict=True):
            field = patches.field(layer.name)
            assert field is not None
            for channel in range(0, layer.channels, 5):
                for example in atlas.examples(f"{layer.name}/{channel}")[:2]:
                    content = patches.thumbnail(example)
                    assert content is not None
                    seen = torch.from_numpy(pixels(content).astype(np.float32) / 255)
                    left, top, right, bottom = box(field, example.row, example.column, 8, 8)
                    inside = torch.zeros(8, 8, dtype=torch.bool)
                    inside[top:bottom, left:right] = True
                    noise = torch.rand(8, 8, generator=chance)
                    images = torch.stack(
                        [torch.where(inside, seen, noise), torch.where(inside, noise, seen)]
                    )
                    values = graph.run(network.graph, ((images - 0.305) / 0.375).unsqueeze(1))
                    found = values[network.nodes[of_network.number]][
                        :, channel, example.row, example.column
                    ]
                    assert float(found[0]) == pytest.approx(example.activation, rel=1e-4)
                    changed += abs(float(found[1]) - example.activation) > 0.01
    assert changed > 30

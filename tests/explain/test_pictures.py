"""The pictures of an atlas's neurons are those in its folder, and what is missing is said."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import pytest
from PIL import Image

from summit_graph import Atlas
from summit_graph.atlas.features import read_features
from summit_graph.errors import AtlasError, UnknownNeuron
from summit_graph.explain.pictures import Pictures
from summit_graph.visualisation import visualise


@pytest.fixture(scope="module")
def atlas(demo_atlas: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's atlas, with pictures of two neurons."""
    copy = tmp_path_factory.mktemp("pictures") / "digits.atlas"
    shutil.copytree(demo_atlas, copy)
    visualise(copy, neurons=["conv1/5", "conv4/26"], steps=4, diverse=2)
    return copy


def test_features_are_the_files_that_the_table_names(atlas: Path) -> None:
    pictures = Pictures(atlas)
    number = {layer.name: layer.number for layer in pictures.atlas.layers}
    listed = read_features(atlas)
    for name in ("conv1/5", "conv4/26"):
        layer, channel = name.split("/")
        one, *diverse = listed[number[layer], int(channel)]
        assert pictures.feature(name) == (atlas / "features" / one.file).read_bytes()
        assert pictures.diverse(name) == tuple(
            (atlas / "features" / own.file).read_bytes() for own in diverse
        )
        assert len(diverse) == 2


def test_a_neuron_without_pictures_has_none(atlas: Path) -> None:
    pictures = Pictures(atlas)
    assert pictures.feature("conv1/4") is None
    assert pictures.diverse("conv1/4") == ()
    with pytest.raises(UnknownNeuron):
        pictures.feature("conv9/4")


def test_patches_come_in_the_order_of_the_examples(atlas: Path) -> None:
    with Atlas.open(atlas) as opened:
        found = Pictures(opened).patches("conv2/4")
        assert tuple(patch.example for patch in found) == opened.examples("conv2/4")
        assert len(found) == 10
        for patch in found:
            with Image.open(io.BytesIO(patch.webp)) as picture:
                assert min(picture.size) > 0


def test_a_picture_that_is_gone_is_an_error_that_says_what_to_do(
    atlas: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "digits.atlas"
    shutil.copytree(atlas, copy)
    for file in (copy / "features").glob("*.webp"):
        file.unlink()
    with pytest.raises(AtlasError, match="summit-graph features"):
        Pictures(copy).feature("conv1/5")

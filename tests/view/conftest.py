"""Atlases and pages that the tests of views share. All to be read only."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from view import made

from summit_graph.atlas.atlas import Atlas
from summit_graph.atlas.summit import import_summit
from summit_graph.view.pages import write_pages
from summit_graph.visualisation import visualise


@pytest.fixture(scope="session")
def thousand_atlas(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The made atlas of 1,000 classes."""
    return made.atlas(tmp_path_factory.mktemp("thousand") / "made.atlas")


@pytest.fixture(scope="session")
def published_atlas(test_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The authors' 900 published graphs, as an atlas."""
    atlas = tmp_path_factory.mktemp("published") / "published.atlas"
    import_summit(
        test_data / "summit-published", atlas, classes_file=test_data / "imagenet-classes.csv"
    )
    return atlas


def pages(atlas: Path, folder: Path, **options: Any) -> Path:
    """Writes the pages of an atlas and returns their folder."""
    with Atlas.open(atlas) as opened:
        write_pages(opened, folder, **options)
    return folder


@pytest.fixture(scope="session")
def pictured_atlas(demo_atlas: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's atlas with feature visualisations, rough ones: an image and two diverse ones."""
    atlas = tmp_path_factory.mktemp("pictured") / "digits.atlas"
    shutil.copytree(demo_atlas, atlas, symlinks=True)
    visualise(atlas, steps=12, diverse=2)
    return atlas


@pytest.fixture(scope="session")
def demo_pages(pictured_atlas: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pages of the demo, with all pictures."""
    return pages(pictured_atlas, tmp_path_factory.mktemp("demo-pages") / "pages")


@pytest.fixture(scope="session")
def lite_pages(lite_atlas: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pages of EfficientNet-Lite0 on the sample images."""
    return pages(lite_atlas, tmp_path_factory.mktemp("lite-pages") / "pages")


@pytest.fixture(scope="session")
def published_pages(published_atlas: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pages of the 900 published graphs."""
    return pages(published_atlas, tmp_path_factory.mktemp("published-pages") / "pages")


@pytest.fixture(scope="session")
def thousand_pages(thousand_atlas: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pages of the made atlas of 1,000 classes."""
    return pages(thousand_atlas, tmp_path_factory.mktemp("thousand-pages") / "pages")

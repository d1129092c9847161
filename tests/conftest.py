"""What all tests share: one thread for PyTorch, the test data, optional packages, two atlases."""

from __future__ import annotations

import importlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from summit_graph.network.loading import LoadedModel
    from summit_graph.reporting import IngestReport

pytest_plugins = ["graphdb.servers", "view.jupyter"]

CI = os.environ.get("SUMMIT_GRAPH_CI") == "1"


def pytest_configure(config: pytest.Config) -> None:
    """One thread, so that tests that run side by side do not wait for each other."""
    import torch

    torch.set_num_threads(1)


def missing(reason: str) -> None:
    """Skip a test that cannot run here; where SUMMIT_GRAPH_CI=1 everything has to run."""
    if CI:
        pytest.fail(reason)
    pytest.skip(reason)


def optional_package(name: str) -> ModuleType:
    """An installed package that the tests can do without."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name.partition(".")[0]:
            raise
        missing(f"the package {name} is not installed: pip install 'summit-graph[test]'")
        raise AssertionError from error


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of test data that SUMMIT_GRAPH_TEST_DATA names."""
    named = os.environ.get("SUMMIT_GRAPH_TEST_DATA")
    if not named:
        missing("SUMMIT_GRAPH_TEST_DATA does not name the folder of test data")
    folder = Path(str(named))
    if not folder.is_dir():
        missing(f"SUMMIT_GRAPH_TEST_DATA names {folder}, which is no folder")
    return folder


@pytest.fixture(scope="session")
def demo_atlas(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The atlas that `summit-graph demo` makes. To be read only."""
    from summit_graph import ingest
    from summit_graph.cli import DEMO_MODEL

    atlas = tmp_path_factory.mktemp("demo") / "digits.atlas"
    ingest(model=DEMO_MODEL, images="digits", atlas=atlas)
    return atlas


@pytest.fixture(scope="session")
def lite_model() -> LoadedModel:
    """EfficientNet-Lite0 with its real weights."""
    from summit_graph.network.loading import load_model

    optional_package("efficientnet_lite_pytorch")
    file = Path(__file__).parent / "models" / "efficientnet_lite0.py"
    return load_model(f"{file}:efficientnet_lite0", image_size=224, mean=[0.498], std=[0.502])


@pytest.fixture(scope="session")
def lite_run(
    lite_model: LoadedModel, test_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[IngestReport, Path]:
    """EfficientNet-Lite0 on the 900 sample images, by groups: the report and the atlas."""
    from summit_graph import ingest

    atlas = tmp_path_factory.mktemp("lite") / "lite.atlas"
    report = ingest(
        model=lite_model,
        images=test_data / "imagenet-sample",
        atlas=atlas,
        classes_file=test_data / "imagenet-classes.csv",
        group_by=str(test_data / "imagenet-groups.csv"),
    )
    return report, atlas


@pytest.fixture(scope="session")
def lite_atlas(lite_run: tuple[IngestReport, Path]) -> Path:
    """The atlas of EfficientNet-Lite0 on the 900 sample images. To be read only."""
    return lite_run[1]


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Chromium without a window: the one browser of all tests, since Playwright runs once."""
    playwright = optional_package("playwright.sync_api")
    found = shutil.which("chromium") or shutil.which("google-chrome")
    if found is None:
        missing("no chromium is installed")
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield opened
        opened.close()

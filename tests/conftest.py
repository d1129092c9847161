"""What all tests share: one thread for PyTorch, the test data, optional packages."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from types import ModuleType

import pytest

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

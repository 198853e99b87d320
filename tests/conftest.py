"""Fixtures that several test files use."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder of real data beside the checkout. In CI its absence is a failure, not a quiet skip."""
    folder = Path(__file__).parents[2] / "shared"
    if not folder.is_dir():
        if os.environ.get("CI") == "true":
            pytest.fail(f"{folder}: no such folder, and CI=true: real data must be there")
        pytest.skip(f"{folder}: no such folder; the tests on real data need it")
    return folder

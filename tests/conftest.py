"""Fixtures that several test files use."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from station_servers import mosquitto as mosquitto
from station_servers import mosquitto_of as mosquitto_of
from station_servers import postgres_url as postgres_url

if TYPE_CHECKING:
    from playwright.sync_api import Browser


# The longest files, longest first: begun early, none of them is left to one process while the other is idle
LONGEST = (
    *("station_page", "station_service", "training", "export", "calibrate", "pages", "station_models_page"),
    *(
        "station_languages",
        "station_review_page",
        "station_pages_more",
        "station_registry",
        "report_browser",
        "loggers",
    ),
    *("stops", "station_thresholds", "warm_start", "parts"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the longest files first; the order within a file stays."""
    place = {f"test_{name}.py": number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.name, len(LONGEST)))


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder of real data beside the checkout. In CI its absence is a failure, not a quiet skip."""
    folder = Path(__file__).parents[2] / "shared"
    if not folder.is_dir():
        if os.environ.get("CI") == "true":
            pytest.fail(f"{folder}: no such folder, and CI=true: real data must be there")
        pytest.skip(f"{folder}: no such folder; the tests on real data need it")
    return folder


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Chromium, for pages that this project writes. In CI its absence is a failure, not a quiet skip."""
    from playwright.sync_api import sync_playwright  # not for tests that need no browser

    chromium = shutil.which("chromium")
    if chromium is None:
        message = "no chromium on the path: what pages do is not tested; install Chromium"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder with a small untrained network, which is not calibrated."""
    from supersimplenet.inference.model_folder import save_model  # not for tests that need no torch
    from supersimplenet.model.config import ModelConfig
    from supersimplenet.model.network import SuperSimpleNet

    folder = tmp_path_factory.mktemp("model")
    save_model(folder, SuperSimpleNet(ModelConfig(backbone="compact", image_size=(64, 64)), seed=1).eval(), {})
    return folder

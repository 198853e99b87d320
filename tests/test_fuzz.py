"""A short slice of the campaign (tests/fuzz.py), and the corpus that it left."""

from __future__ import annotations

import pytest
from fuzz import CORPUS, LIMITS, files_of, replay, run_case, set_limits, targets, warm_up

INPUTS = {"models": 4, "exports": 40, "documents": 30}  # the slow ones; of the others 60


@pytest.fixture(scope="module", autouse=True)
def _campaign(tmp_path_factory):
    """Set the limits of the campaign for this file, and load the libraries."""
    with pytest.MonkeyPatch.context() as patch:
        for name in LIMITS:
            patch.setenv(f"SUPERSIMPLENET_MAX_{name}", "1")  # so that the old value comes back
        patch.chdir(tmp_path_factory.mktemp("campaign"))
        set_limits()
        warm_up(list(targets()), tmp_path_factory.mktemp("warm"))
        yield


@pytest.mark.parametrize("name", targets())
def test_a_slice_of_the_campaign(name, tmp_path):
    refused = 0
    for number in range(INPUTS.get(name, 60)):
        outcome = run_case(targets()[name], files_of(name, 7, number), tmp_path, seconds=60)
        assert not outcome.failure, f"{name} 7 {number}: {outcome.trace}"
        refused += outcome.refused
    assert refused > 0


@pytest.mark.parametrize("name", ["found", *targets()])
def test_the_corpus(name, tmp_path):
    """Inputs that reached lines which none before them had reached, and those that once failed (found)."""
    paths = sorted(CORPUS.glob(f"{name}-*.zip"))
    assert paths
    for path in paths:
        outcome = replay(path, tmp_path)
        assert not outcome.failure, f"{path}: {outcome.trace}"

"""What every test gets: a hash cache of its own, and a small number of threads."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def cache_of_its_own(tmp_path_factory: pytest.TempPathFactory, monkeypatch):
    """Keep the user's hash cache out of the tests, and tests out of each other's."""
    folder: Path = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("MERGELAB_CACHE_DIR", str(folder))
    return folder


@pytest.fixture(autouse=True)
def off_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test downloads a scorer's weights."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

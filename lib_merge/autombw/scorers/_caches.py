"""Folders in which scorers look for weights that are on this machine already."""

from __future__ import annotations

import os
from pathlib import Path


class _Own:
    """The folder that the user chose for scorers' weights, one a process."""

    folder: Path | None = None


_own = _Own()


def use_cache(folder: Path | None) -> None:
    """Look here first, and download here; None for the caches in the user's home."""
    _own.folder = folder


def own_folder() -> Path | None:
    """What `use_cache` was told."""
    return _own.folder


def hub_caches() -> tuple[Path, ...]:
    """Where Hugging Face libraries keep what they downloaded, as they look it up."""
    places = [] if _own.folder is None else [_own.folder]
    for name, below in (("HF_HUB_CACHE", ""), ("HF_HOME", "hub")):
        if os.environ.get(name):
            places.append(Path(os.environ[name]).expanduser() / below)
    places.append(Path("~/.cache/huggingface/hub").expanduser())
    return tuple(places)


def hub_snapshots(repo: str) -> tuple[Path, ...]:
    """Folders of a repository "owner/name" in those caches, the newest first."""
    found: list[Path] = []
    for cache in hub_caches():
        folder = cache / f"models--{repo.replace('/', '--')}" / "snapshots"
        found += sorted(folder.glob("*"), key=lambda path: -path.stat().st_mtime)
    return tuple(found)


def hub_file(repos: tuple[str, ...], name: str) -> Path | None:
    """One file of the first repository that has it in those caches."""
    places = (place / name for repo in repos for place in hub_snapshots(repo))
    return next((path for path in places if path.is_file()), None)

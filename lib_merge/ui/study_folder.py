"""Whether a study's folder has changed since a page last looked."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lib_merge.autombw.study import Study

FolderState = tuple[int, ...]
"""When what a page shows of a study was last written."""


def folder_state(study: Study) -> FolderState:
    """Changes whenever something in a study's folder that is shown does."""
    paths = (
        study.folder / "settings.json",
        study.folder / "trials",
        study.live_path,
        study.result_path,
        study.report_path,
        study.lock_path,
    )
    return tuple(_changed(path) for path in paths)


def _changed(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0

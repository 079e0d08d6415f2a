"""Axes for merges in the WebUI's X/Y/Z plot; the merge's recipe in every picture."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from modules import script_callbacks, scripts

from lib_merge.hosts import detect_host
from lib_merge.hosts._infotext import tell
from lib_merge.hosts._xyz import add_axes
from lib_merge.ui.grids import MergeGrid, axes_of
from lib_merge.ui.workspace import workspace_of


@lru_cache(maxsize=1)
def find_grid() -> MergeGrid | None:
    """The grid of the tab's own workspace, or None outside every known WebUI."""
    host = detect_host()
    jobs = getattr(host, "grid_jobs", None)
    return workspace_of(host).grid(jobs) if host and jobs else None


class MergeMarks(scripts.Script):
    """Puts back what a grid has changed, and tells pictures what they are made with.

    The WebUI calls in the middle of its own jobs only what is always on.
    """

    def title(self) -> str:
        """What the WebUI calls it."""
        return "MergeLab"

    def show(self, is_img2img: bool) -> Any:
        """Always on, without controls."""
        return scripts.AlwaysVisible

    def before_process(self, job: Any, *args: Any) -> None:
        """A picture is about to be made."""
        grid = find_grid()
        if grid is not None:
            grid.before_picture()

    def process(self, job: Any, *args: Any) -> None:
        """The model for the picture is loaded; its data is not written yet."""
        grid = find_grid()
        if grid is not None:
            tell(job, grid.picture_fields())


def offer_axes() -> None:
    """Before the X/Y/Z plot builds its lists; without that script nothing is added."""
    grid = find_grid()
    if grid is not None:
        add_axes(scripts.scripts_data, axes_of(grid), grid)


script_callbacks.on_before_ui(offer_axes)

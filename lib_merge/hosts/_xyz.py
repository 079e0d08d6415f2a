"""Axes of ours in the WebUIs' own X/Y/Z plot script, and the jobs around its grids.

Source: scripts/xyz_grid.py of AUTOMATIC1111 1.10.1; Forge's and reForge's offer the
same to extensions. For every cell it copies the job, has each axis change the copy and
renders it; what an axis raises ends the grid, what a picture raises does not.
"""

from __future__ import annotations

import inspect
import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any

from lib_merge.core.grid import Grid, GridAxis
from lib_merge.errors import MergeError
from lib_merge.hosts._webui import WebUi

_log = logging.getLogger(__name__)

_N_AXES = "_mergelab_n_axes"
_EDITS = "_mergelab_edits"
_CACHES = ("cached_c", "cached_uc", "cached_hr_c", "cached_hr_uc")


class WebUiGridJobs:
    """GridJobs over the host's lock and state.

    Args:
        ui: The host.
    """

    def __init__(self, ui: WebUi) -> None:
        self._ui = ui

    def inside(self) -> AbstractContextManager[None]:
        """Work inside a job of the host's, which holds the lock already."""
        return self._ui.gate.inside()

    def behind(self, work: Callable[[], None]) -> None:
        """Queue for the lock, which is handed out in the order of asking."""

        def job() -> None:
            # On the Forges this is the main thread, inside our own hold of the lock.
            with self._ui.gate.inside():
                work()

        def wait() -> None:
            try:
                self._ui.gate.run(job)
            except Exception:
                _log.exception("MergeLab could not end a grid")

        threading.Thread(target=wait, name="mergelab-grid", daemon=True).start()

    def token(self) -> object:
        """When the host began its running job."""
        state = self._ui.shared.state
        stamp = getattr(state, "job_timestamp", None)
        return (stamp, getattr(state, "time_start", None))


def add_axes(scripts_data: Iterable[Any], axes: Sequence[GridAxis], grid: Grid) -> int:
    """Offer axes in the host's X/Y/Z plot; before its controls are built.

    Args:
        scripts_data: The host's `modules.scripts.scripts_data`.
        axes: What to offer.
        grid: Does the merging.

    Returns:
        How many were added: none where the host has no such script, or has them.
    """
    modules = {id(data.module): data.module for data in scripts_data}
    n_added = 0
    for module in modules.values():
        options = getattr(module, "axis_options", None)
        kind = getattr(module, "AxisOption", None)
        if not isinstance(options, list) or kind is None:
            continue
        known = {getattr(option, "label", None) for option in options}
        new = [_option(kind, axis, grid) for axis in axes if axis.label not in known]
        options.extend(new)
        n_added += len(new)
    return n_added


def _option(kind: Any, axis: GridAxis, grid: Grid) -> Any:
    """The host's own kind of axis; what an older script does not know is left out."""

    def confirm(job: Any, values: Sequence[Any]) -> None:
        with _plain_errors():
            grid.begin(axis, values)
        # Copied into every cell's job: how many edits make up a cell.
        setattr(job, _N_AXES, getattr(job, _N_AXES, 0) + 1)

    def apply(job: Any, value: Any, values: Sequence[Any]) -> None:
        edits = (*getattr(job, _EDITS, ()), (axis, value))
        setattr(job, _EDITS, edits)
        if len(edits) < getattr(job, _N_AXES, 1):
            return
        with _plain_errors():
            grid.merge(edits)
        for name in _CACHES:
            # The copy shares its prompts' encodings with the cell before it.
            if hasattr(job, name):
                setattr(job, name, [None, None, None])

    given: dict[str, Any] = {
        "confirm": confirm,
        # Outer loops are those of the dearest axis: models stay loaded longest.
        "cost": 0.9 - axis.rank / 10,
        "choices": axis.choices,
        "prepare": axis.prepare,
    }
    known = inspect.signature(kind).parameters
    options = {name: value for name, value in given.items() if name in known}
    return kind(axis.label, float if axis.is_number else str, apply, **options)


class _plain_errors(AbstractContextManager[None]):  # noqa: N801
    """Our errors as the kind that the host's script itself raises, to be shown."""

    def __exit__(
        self, kind: object, fault: BaseException | None, trace: object
    ) -> None:
        if isinstance(fault, MergeError):
            raise RuntimeError(f"MergeLab: {fault}") from fault

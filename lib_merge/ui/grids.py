"""Grids of pictures over merges: each cell's merge is loaded, the former put back."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lib_merge.core.grid import GridAxis, GridJobs
from lib_merge.core.recipe import Recipe
from lib_merge.errors import InputError, MergeError
from lib_merge.formats.short_form import picture_fields

if TYPE_CHECKING:
    from lib_merge.core.blocks import Architecture
    from lib_merge.ui.workspace import Workspace

_log = logging.getLogger(__name__)

MAX_CHECKED = 2000
"""Cells whose recipe is made before the first picture."""

NAME = "X/Y/Z plot of merges"
"""What the loaded model is reserved by."""


class MergeGrid:
    """Changes the loaded merge for one grid at a time; satisfies the Grid port.

    All of it is called inside the host's own jobs, so the host's lock is held.

    Args:
        workspace: Whose loaded merge it is.
        jobs: The host's jobs.
    """

    def __init__(self, workspace: Workspace, jobs: GridJobs) -> None:
        self.workspace = workspace
        self._jobs = jobs
        self._token: object = None
        self._is_open = False
        self._has_merged = False
        self._before: Recipe | None = None
        self._axes: list[tuple[GridAxis, tuple[Any, ...]]] = []

    @property
    def is_open(self) -> bool:
        """Whether the merge from before a grid is still to be put back."""
        return self._is_open

    # The Grid port

    def begin(self, axis: GridAxis, values: Sequence[Any]) -> None:
        """Check an axis's values, and reserve the loaded model with the first axis.

        Raises:
            MergeError: A value is none, or the loaded model is in use.
        """
        for value in values:
            axis.edit(value)
        if self._is_open and self._token == self._jobs.token():
            self._axes.append((axis, tuple(values)))
            return
        self.put_back()
        self.workspace.claim(NAME)
        self._axes = [(axis, tuple(values))]
        self._is_open, self._has_merged = True, False
        self._token = self._jobs.token()
        self._before = self.workspace.live.recipe()
        # Queued now, so that it comes ahead of whatever is asked for from here on.
        self._jobs.behind(self.put_back)

    def merge(self, edits: Sequence[tuple[GridAxis, Any]]) -> None:
        """Load the merge of one cell.

        Raises:
            MergeError: Whatever merging raises; the merge from before stays due.
        """
        if not self._is_open:
            raise InputError("The grid is over; start it again.")
        if not self._has_merged:
            self._check_all()
        recipe = self._edited(edits)
        self._has_merged = True
        self._load(recipe)

    def _check_all(self) -> None:
        """Make every cell's recipe once, so that no grid fails at its last picture."""
        values = [[(axis, value) for value in found] for axis, found in self._axes]
        for edits in itertools.islice(itertools.product(*values), MAX_CHECKED):
            self._edited(edits)

    def _edited(self, edits: Sequence[tuple[GridAxis, Any]]) -> Recipe:
        recipe = self._before
        for axis, value in sorted(edits, key=lambda one: one[0].rank):
            recipe = axis.edit(value)(recipe)
        if recipe is None:
            raise InputError("No merge is loaded; load one in the MergeLab tab first.")
        return recipe

    # Around pictures

    def before_picture(self) -> None:
        """A picture is about to be rendered: of another job, if the grid is over."""
        if self._is_open and self._token != self._jobs.token():
            self.put_back()

    def picture_fields(self) -> Mapping[str, str]:
        """What the generation data of a picture says of the merge that is loaded."""
        recipe = self.workspace.live.recipe()
        return {} if recipe is None else picture_fields(recipe)

    def put_back(self) -> None:
        """Load the merge from before the grid, or the model as it was; once."""
        if not self._is_open:
            return
        try:
            if self._has_merged:
                self._restore()
        except MergeError as fault:
            _log.error("The merge from before the grid is not back: %s", fault)
        finally:
            self._is_open = False
            self._before, self._axes = None, []
            self.workspace.studies.release(NAME)

    def _restore(self) -> None:
        if self._before is not None:
            self._load(self._before)
        else:
            with self._jobs.inside():
                self.workspace.restore_now()

    def _load(self, recipe: Recipe) -> None:
        workspace = self.workspace
        with self._jobs.inside():
            workspace.live.merge(
                recipe,
                folders=workspace.folders(),
                options=workspace.preferences.run_options(),
            )


def architecture_of_recipe(workspace: Workspace, recipe: Recipe) -> Architecture:
    """The architecture of a recipe's first model.

    Raises:
        MergeError: The model is not there, or of no known architecture.
    """
    from lib_merge.engine.resolve import recipe_models
    from lib_merge.ui.form import architecture_of

    resolved = recipe_models(recipe, workspace.folders())
    path = dict(resolved.models())[resolved.first_model()].path
    return architecture_of(Path(path))


def axes_of(grid: MergeGrid) -> tuple[GridAxis, ...]:
    """Every axis that a grid offers."""
    from lib_merge.ui.grid_axes import grid_axes

    workspace = grid.workspace
    return grid_axes(
        workspace.recipes, lambda recipe: architecture_of_recipe(workspace, recipe)
    )

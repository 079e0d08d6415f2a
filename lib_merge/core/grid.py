"""Grids of pictures in a WebUI's own script: what an axis is, what it asks for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from lib_merge.core.recipe import Recipe

Edit = Callable[[Recipe | None], Recipe]
"""Makes another recipe out of the one that is loaded (None: nothing is merged)."""


@dataclass(frozen=True)
class GridAxis:
    """An axis that changes the loaded merge.

    Attributes:
        label: What the script's list calls it.
        is_number: Whether its values are numbers, with the host's own ranges.
        rank: Edits of several axes are made in this order: a recipe before a method,
            a method before its parameters.
        edit: The edit that a value stands for; raises MergeError where it is none.
        choices: Gives the values to choose from, or None for free text.
        prepare: Splits the text that was typed into values, or None for commas.
    """

    label: str
    is_number: bool
    rank: int
    edit: Callable[[Any], Edit]
    choices: Callable[[], list[str]] | None = None
    prepare: Callable[[str], list[str]] | None = None


class Grid(Protocol):
    """What a host's script asks of the merges of a grid."""

    def begin(self, axis: GridAxis, values: Sequence[Any]) -> None:
        """Check an axis before the first picture.

        Raises:
            MergeError: A value is none, or the loaded model is in use.
        """
        ...

    def merge(self, edits: Sequence[tuple[GridAxis, Any]]) -> None:
        """Make the loaded model the merge of one cell, inside the host's own job.

        Raises:
            MergeError: Whatever merging raises.
        """
        ...


class GridJobs(Protocol):
    """What a WebUI offers to work in the middle of, and right behind, its own jobs."""

    def inside(self) -> AbstractContextManager[None]:
        """Work inside a job of the host's, which holds the lock already."""
        ...

    def behind(self, work: Callable[[], None]) -> None:
        """Have something done as soon as the host's running job has ended."""
        ...

    def token(self) -> object:
        """Differs from job to job of the host."""
        ...

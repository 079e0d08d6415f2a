"""What comes of a matching: aligned B as a checkpoint, and its weighted sum with A."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from lib_merge.analysis.rebasin.align import AlignedFile, save_aligned
from lib_merge.analysis.rebasin.matching import Matching
from lib_merge.analysis.rebasin.measure import total
from lib_merge.analysis.rebasin.pair import A, B, Pair
from lib_merge.checkpoint.journal import is_in_use, partial_files
from lib_merge.core.dtypes import DType
from lib_merge.core.ports import Progress
from lib_merge.core.recipe import Recipe, Setting, simple_recipe
from lib_merge.engine.planning import plan_recipe
from lib_merge.engine.run import RunOptions
from lib_merge.engine.save import SavedMerge, check_disk, check_output, merge_to_file
from lib_merge.errors import OutputError, RecipeError

METHOD = "weighted_sum"
"""How A and aligned B are blended; its parameter is `alpha`."""

MEAN = "uniform_soup"
"""How they are where they are equal."""


@dataclass(frozen=True)
class Wanted:
    """What is to be written.

    Attributes:
        merged: The weighted sum of A and aligned B, or None.
        aligned: Aligned B, or None.
        alpha: Place between A (0) and aligned B (1), by block where wanted.
        save_dtype: Type of the weighted sum; None keeps A's types.
        overwrite: Whether existing files may be replaced.
    """

    merged: Path | None = None
    aligned: Path | None = None
    alpha: Setting = Setting(0.5)  # noqa: RUF009 - frozen
    save_dtype: DType | None = DType.F16
    overwrite: bool = False

    def recipe(self, model_a: Path, model_b: Path) -> Recipe:
        """The weighted sum of two files."""
        paths = (str(model_a), str(model_b))
        params = {"alpha": self.alpha}
        return simple_recipe(METHOD, paths, params, save_dtype=self.save_dtype)


@dataclass(frozen=True)
class Outcome:
    """What was written.

    Attributes:
        aligned: Aligned B, if it was wanted.
        merged: The weighted sum, if it was wanted.
        warnings: Sentences that the user should see.
    """

    aligned: AlignedFile | None
    merged: SavedMerge | None
    warnings: tuple[str, ...] = ()


def check_wanted(pair: Pair, wanted: Wanted) -> None:
    """Refuse what cannot be written, before the search begins.

    Args:
        pair: The models.
        wanted: What is to be written.

    Raises:
        RecipeError: Every fault of places and of the weighted sum.
        DiskFullError: There is no room.
    """
    problems: list[str] = []
    inputs = [header.path for header in pair.headers]
    places = [p for p in (wanted.merged, wanted.aligned) if p is not None]
    if len({_absolute(place) for place in places}) < len(places):
        problems.append(
            f"{places[0]} is named for both outputs; give the aligned model and the "
            "merge different names."
        )
    for place in places:
        try:
            check_output(_absolute(place), inputs, overwrite=wanted.overwrite)
        except OutputError as fault:
            problems.append(str(fault))
    if wanted.merged is not None:
        try:
            # Of B as it is: the same keys, shapes and blocks as of aligned B.
            plan_recipe(wanted.recipe(inputs[A], inputs[B]))
        except RecipeError as fault:
            problems += fault.problems
    if problems:
        raise RecipeError(problems)
    for place in places:
        check_disk(_absolute(place), pair.headers[B].n_bytes)


def save_outcome(
    pair: Pair,
    matching: Matching,
    wanted: Wanted,
    *,
    seed: int,
    options: RunOptions,
    progress: Progress,
) -> Outcome:
    """Write aligned B, or the weighted sum, or both; each is whole or not there.

    Where only the sum is wanted, aligned B lies in a hidden folder beside it meanwhile.

    Args:
        pair: The models.
        matching: What the search found.
        wanted: What is to be written.
        seed: Of the search, for the metadata.
        options: How the merge is run.
        progress: Advanced by bytes; asked whether to stop.

    Raises:
        OutputError: A file cannot be written.
        DiskFullError: There is no room.
        Cancelled: The user asked to stop; nothing is left behind.
    """
    with _place_of_aligned(pair, wanted) as place:
        if place is None:
            return Outcome(None, None)
        aligned = save_aligned(
            pair,
            matching,
            place,
            seed=seed,
            overwrite=wanted.overwrite,
            progress=progress,
        )
        kept = None if wanted.aligned is None else aligned
        if wanted.merged is None:
            return Outcome(kept, None)
        recipe = wanted.recipe(pair.headers[A].path, aligned.path)
        warnings: tuple[str, ...] = ()
        if total(matching.after).squares_delta == 0.0 and matching.after:
            recipe, warnings = _of_equals(pair, recipe, wanted)
        merged = merge_to_file(
            recipe,
            wanted.merged,
            options=options,
            overwrite=wanted.overwrite,
            progress=progress,
        )
        return Outcome(kept, merged, warnings)


def _of_equals(
    pair: Pair, recipe: Recipe, wanted: Wanted
) -> tuple[Recipe, tuple[str, ...]]:
    """The recipe where aligned B is A, which a weighted sum refuses to blend."""
    name_a, name_b = (header.path.name for header in pair.headers)
    paths = tuple(model.path for _, model in recipe.models())
    warning = (
        f"{name_b} is {name_a} with its channels in another order; aligned they are "
        "equal, and so is their merge."
    )
    mean = simple_recipe(MEAN, paths, save_dtype=wanted.save_dtype)
    return mean, (warning,)


@contextmanager
def _place_of_aligned(pair: Pair, wanted: Wanted) -> Iterator[Path | None]:
    """Where aligned B is written: where it is wanted, or beside the merge for a while.

    Folders that killed processes left beside the same merge are removed.
    """
    if wanted.aligned is not None or wanted.merged is None:
        yield wanted.aligned
        return
    target = _absolute(wanted.merged)
    _remove_folders(partial_files(target))
    folder = target.with_name(f".{target.name}.{os.getpid()}-aligned.tmp")
    folder.mkdir()
    try:
        names = [header.path.stem for header in pair.headers]
        yield folder / f"{names[B]} aligned to {names[A]}.safetensors"
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _remove_folders(places: Sequence[Path]) -> None:
    for place in places:
        with suppress(OSError):
            if place.is_dir() and not is_in_use(place):
                shutil.rmtree(place)


def _absolute(path: Path) -> Path:
    return path.expanduser().absolute()

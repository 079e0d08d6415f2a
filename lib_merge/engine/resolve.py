"""Finds the files that a recipe's models mean: by path, by name in folders, by hash."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePath

from lib_merge.checkpoint.folders import (
    INDEX_SUFFIX,
    PIPELINE_FILE,
    is_model_folder,
)
from lib_merge.checkpoint.hashes import file_sha256, known_sha256
from lib_merge.core.ports import Progress
from lib_merge.core.recipe import FileNode, Recipe
from lib_merge.errors import CheckpointError, RecipeError

SUFFIXES = (".safetensors", ".ckpt")
_ENDS = (
    *SUFFIXES,
    *(suffix.upper() for suffix in SUFFIXES),
    INDEX_SUFFIX,
    PIPELINE_FILE,
)
_SHARD = re.compile(r"-\d{5}-of-\d{5}\.safetensors$")


def recipe_models(
    recipe: Recipe,
    folders: Sequence[str | os.PathLike[str]] = (),
    *,
    may_hash: bool = False,
    progress: Progress | None = None,
) -> Recipe:
    """The recipe with absolute paths of files that exist.

    A model is looked for as its path says, then by that path and by its file name
    inside the folders, then by its hash among the folders' files. A file whose known
    hash is another than the recipe's is passed over.

    Args:
        recipe: Paths as the user or a saved file gives them.
        folders: Where checkpoints lie; searched with their subfolders.
        may_hash: Whether files of unknown hash may be read whole to find a model.
        progress: Asked while files are read.

    Raises:
        RecipeError: Every model that was not found, one sentence each.
    """
    roots = [Path(folder).expanduser() for folder in folders]
    found: dict[int, FileNode] = {}
    problems = []
    for index, model in recipe.files():
        path, reason = _find(model, roots)
        if path is None and may_hash and model.sha256:
            path = _find_by_reading(model.sha256, roots, progress)
        if path is None:
            problems.append(reason)
            continue
        found[index] = replace(model, path=str(path))
    if problems:
        raise RecipeError(problems)
    return recipe.with_models(found)


def _find(model: FileNode, roots: Sequence[Path]) -> tuple[Path | None, str]:
    wrong: list[Path] = []
    for path in _candidates(model.path, roots):
        if model.sha256 is None or _known(path) in (None, model.sha256):
            return path.absolute(), ""
        wrong.append(path)
    if model.sha256:
        for path in _checkpoints(roots):
            if _known(path) == model.sha256:
                return path.absolute(), ""
    return None, _reason(model, wrong, roots)


def _reason(model: FileNode, wrong: Sequence[Path], roots: Sequence[Path]) -> str:
    if wrong:
        return (
            f"Model '{model.path}': {wrong[0]} has another content (SHA-256 "
            f"{(_known(wrong[0]) or '')[:10]}, the recipe wants "
            f"{(model.sha256 or '')[:10]}); give the folder of the right file."
        )
    where = ", ".join(str(root) for root in roots) or "the path given"
    return (
        f"Model '{model.path}' was not found (looked in {where}); check the spelling, "
        "or name the folder that holds it (--models DIR)."
    )


def _candidates(text: str, roots: Sequence[Path]) -> Iterator[Path]:
    given = Path(text).expanduser()
    names = [given]
    if given.suffix.lower() not in SUFFIXES:
        names += [given.with_name(given.name + suffix) for suffix in SUFFIXES]
    yield from (name for name in names if _is_model(name))
    bare = {PurePath(str(name).replace("\\", "/")).name for name in names}
    for root in roots:
        for name in names:
            if not name.is_absolute() and _is_model(root / name):
                yield root / name
    yield from (path for path in _checkpoints(roots) if path.name in bare)
    if given.is_dir():
        # Reading it says what is wrong with the folder.
        yield given


def _is_model(path: Path) -> bool:
    return path.is_file() or is_model_folder(path)


def _checkpoints(roots: Iterable[Path]) -> Iterator[Path]:
    """Files, indexes of shards and folders of pipelines; not what lies inside these."""
    for root in roots:
        if not root.is_dir():
            continue
        files = [path for path in root.rglob("*") if path.name.endswith(_ENDS)]
        pipelines = {path.parent for path in files if path.name == PIPELINE_FILE}
        found = [
            path
            for path in files
            if path.name != PIPELINE_FILE
            and pipelines.isdisjoint(path.parents)
            and not _SHARD.search(path.name)
            and path.is_file()
        ]
        yield from sorted([*found, *pipelines])


def _known(path: Path) -> str | None:
    try:
        return known_sha256(path)
    except CheckpointError:
        return None


def _find_by_reading(
    sha256: str, roots: Sequence[Path], progress: Progress | None
) -> Path | None:
    for path in _checkpoints(roots):
        if _known(path) is None and file_sha256(path, progress=progress) == sha256:
            return path.absolute()
    return None

"""Finds the models of imported recipes in the user's folders, and what they are."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lib_merge.arch import detect_architecture
from lib_merge.checkpoint.hashes import file_sha256, known_sha256
from lib_merge.checkpoint.header import read_header
from lib_merge.core.nodes import FileNode, ModelNode
from lib_merge.core.ports import Progress
from lib_merge.core.recipe import Recipe
from lib_merge.engine.resolve import SUFFIXES, recipe_models
from lib_merge.errors import CheckpointError, RecipeError
from lib_merge.formats.files import read
from lib_merge.formats.imported import Imported, Options
from lib_merge.formats.source import open_source

_SHORT = re.compile(r"[0-9a-f]{10}")


@dataclass(frozen=True)
class Found:
    """A model of a recipe and where it lies.

    Attributes:
        model: As the recipe has it.
        path: The file, or None.
        reason: Why there is none, a sentence.
    """

    model: FileNode
    path: str | None
    reason: str = ""


def load(
    path: Path,
    options: Options | None = None,
    *,
    folders: Sequence[Path] = (),
    format_id: str | None = None,
) -> Imported:
    """Read a recipe; block orders follow the architecture of the models, if found.

    Args:
        path: The recipe's file, or a checkpoint.
        options: What the file does not say.
        folders: Where models lie.
        format_id: The format; None looks.

    Raises:
        InputError: It cannot be read, holds no recipe, or leaves something open.
    """
    options = options or Options()
    source = open_source(path)
    imported = read(source, options, format_id=format_id)
    if options.arch is not None or imported.format in ("mergelab", "mergekit"):
        return imported
    for entry in imported.entries[:1]:
        arch = arch_of(entry.recipe, folders) if entry.recipe else None
        if arch is not None:
            return read(source, replace(options, arch=arch), format_id=format_id)
    return imported


def arch_of(recipe: Recipe, folders: Sequence[Path]) -> str | None:
    """The architecture of the first model that is there, or None."""
    for one in find_models(recipe, folders):
        if one.path is None or not isinstance(one.model, ModelNode):
            continue
        try:
            infos = read_header(one.path).infos
            return detect_architecture(infos, where=one.path).id
        except CheckpointError:
            continue
    return None


def find_models(
    recipe: Recipe,
    folders: Sequence[Path],
    *,
    may_hash: bool = False,
    progress: Progress | None = None,
) -> Iterator[Found]:
    """Each file of a recipe, by its path, name or hash, as it is asked for.

    Args:
        recipe: Any recipe.
        folders: Where models lie.
        may_hash: Whether files of unknown hash may be read whole.
        progress: Asked while files are read.
    """
    for _, model in recipe.files():
        single = Recipe((ModelNode(model.path, model.sha256),))
        try:
            resolved = recipe_models(
                single, folders, may_hash=may_hash, progress=progress
            )
        except RecipeError as fault:
            yield Found(model, None, str(fault))
        else:
            yield Found(model, resolved.models()[0][1].path)


def with_full_hashes(
    recipe: Recipe,
    folders: Sequence[Path],
    *,
    may_hash: bool = False,
    progress: Progress | None = None,
) -> Recipe:
    """Models that are known by the first ten digits of their hash, found by them.

    Args:
        recipe: Any recipe.
        folders: Where models lie.
        may_hash: Whether files of unknown hash may be read whole.
        progress: Asked while files are read.
    """
    wanted = {
        index: model
        for index, model in recipe.files()
        if model.sha256 is None and _SHORT.fullmatch(model.path)
    }
    if not wanted:
        return recipe
    hashes = _hashes(folders, may_hash=may_hash, progress=progress)
    changed: dict[int, FileNode] = {}
    for index, model in wanted.items():
        for sha256, path in hashes.items():
            if sha256.startswith(model.path):
                changed[index] = replace(model, path=str(path), sha256=sha256)
    return recipe.with_models(changed)


def _hashes(
    folders: Sequence[Path], *, may_hash: bool, progress: Progress | None
) -> Mapping[str, Path]:
    found = {}
    for folder in folders:
        for path in sorted(folder.expanduser().rglob("*")):
            if path.suffix.lower() not in SUFFIXES or not path.is_file():
                continue
            sha256 = known_sha256(path)
            if sha256 is None and may_hash:
                sha256 = file_sha256(path, progress=progress)
            if sha256 is not None:
                found[sha256] = path
    return found

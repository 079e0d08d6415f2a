"""Path checks: models from the host's folders only, results into them only."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from lib_merge.api._call import Call, Refusal
from lib_merge.core.recipe import Recipe
from lib_merge.errors import OutputError

ADVICE = "put it there, or use the command line, which may read any file"


def input_roots(call: Call) -> tuple[Path, ...]:
    """The folders that models may come from: those the host lists models of."""
    catalog = call.workspace.host.catalog
    listed = (entry.path.parent for entry in catalog.checkpoints())
    roots = [*listed, catalog.output_dir(), *call.input_dirs]
    return tuple(dict.fromkeys(Path(root).absolute() for root in roots))


def is_inside(path: Path, roots: Iterable[Path]) -> bool:
    """Whether a path lies below one of some folders; with ".." in it, it never does.

    Links are not followed: what the user has linked into a folder belongs to it.
    """
    place = path.absolute()
    return ".." not in path.parts and any(map(place.is_relative_to, roots))


def checked_recipe(recipe: Recipe, call: Call) -> Recipe:
    """The recipe with absolute paths of files that exist in the host's folders.

    Raises:
        Refusal: A file lies elsewhere; whether it exists is not told.
        RecipeError: Every file that was not found.
    """
    from lib_merge.engine.resolve import recipe_models

    roots = input_roots(call)
    named = [Path(node.path).expanduser() for _, node in recipe.files()]
    told = [path for path in named if path.is_absolute() or ".." in path.parts]
    check_inputs(told, roots)
    resolved = recipe_models(recipe, roots)
    check_inputs([Path(node.path) for _, node in resolved.files()], roots)
    return resolved


def check_inputs(paths: Sequence[Path], roots: Sequence[Path]) -> None:
    """Refuse files outside some folders.

    Raises:
        Refusal: One sentence for each of them.
    """
    problems = [
        f"'{path}' is in none of the host's model folders; {ADVICE}."
        for path in paths
        if not is_inside(path, roots)
    ]
    if problems:
        raise Refusal(403, *problems)


def output_file(name: str, call: Call) -> Path:
    """The file that a name stands for, inside the host's output folder.

    Raises:
        Refusal: The name leaves the folder, also by a link, or has unfit characters.
    """
    try:
        target = call.workspace.output_path(name)
    except OutputError as fault:
        raise Refusal(403 if name.strip() else 400, str(fault)) from fault
    folder = call.workspace.host.catalog.output_dir()
    if not target.resolve().is_relative_to(folder.resolve()):
        raise Refusal(
            403,
            f"'{name}' leads out of {folder} by a link; give a name inside it.",
        )
    return target

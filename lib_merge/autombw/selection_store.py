"""Selections on disk: what is tried, which pictures are there, which are kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lib_merge.autombw._files import folder_name, read_json, write_bytes
from lib_merge.autombw.payloads import Payload
from lib_merge.core.recipe import ModelNode, Pick, Recipe, SelectNode
from lib_merge.engine.resolve import recipe_models
from lib_merge.errors import InputError, OutputError

SETTINGS = "selection.json"
STATE = "state.json"
AVERAGE = "average.safetensors"
KEPT = "kept.txt"
_VERSION = 1
PARTS = ("text", "unet", "clip_l", "clip_g", "clip_h", "t5", "bert", "vae")
"""What may be tried: a component, or "text" for every text encoder."""


@dataclass(frozen=True)
class SelectionSettings:
    """What is tried.

    Attributes:
        name: Names the folder.
        models: Files, absolute; two or more.
        part: What each model gives: one of `PARTS`.
        payload: What is rendered; its first picture.
        average: An average to use instead of making one, absolute; None makes it.
    """

    name: str
    models: tuple[str, ...]
    part: str
    payload: Payload
    average: str | None = None

    def to_json(self) -> dict[str, Any]:
        """A plain JSON object; `from_json` gives equal settings back."""
        return {**asdict(self), "models": list(self.models), "version": _VERSION}

    @classmethod
    def from_json(cls, data: Any, *, where: str) -> SelectionSettings:
        """Read what `to_json` wrote.

        Raises:
            InputError: It is something else.
        """
        try:
            if data["version"] != _VERSION:
                raise InputError(f"{where} is of another version; update MergeLab.")
            return cls(
                name=str(data["name"]),
                models=tuple(str(path) for path in data["models"]),
                part=str(data["part"]),
                payload=Payload.from_json(data["payload"], where=where),
                average=None if data["average"] is None else str(data["average"]),
            )
        except (KeyError, TypeError) as fault:
            raise InputError(
                f"{where} is damaged ({fault}); start the selection under another name."
            ) from fault


@dataclass(frozen=True)
class TrialPicture:
    """One cell of the grid.

    Attributes:
        number: From 1 in the models' order; 0 is the average itself.
        name: The model's file name without its ending.
        picture: The file, relative to the folder, or None where there is none yet.
        fault: Why there is none and will be none, or "".
    """

    number: int
    name: str
    picture: str | None
    fault: str = ""


@dataclass(frozen=True)
class SelectionResult:
    """A selection as it stands.

    Attributes:
        folder: Where it is kept.
        settings: What is tried.
        pictures: The average first, then every model.
    """

    folder: Path
    settings: SelectionSettings
    pictures: tuple[TrialPicture, ...]

    @property
    def html(self) -> Path:
        """The grid with boxes to tick."""
        return self.folder / "sheet.html"

    @property
    def png(self) -> Path:
        """The grid as one picture."""
        return self.folder / "sheet.png"

    @property
    def is_complete(self) -> bool:
        """Whether every model was tried."""
        return all(cell.picture or cell.fault for cell in self.pictures)


def selection_settings(
    name: str,
    models: Sequence[str],
    part: str,
    payload: Payload,
    *,
    folders: Sequence[Path] = (),
    average: str | None = None,
) -> SelectionSettings:
    """Settings over models that exist.

    Args:
        name: Names the selection.
        models: Files, or names to look for in the folders.
        part: One of `PARTS`.
        payload: What is rendered.
        folders: Where models lie.
        average: A file to put the parts into; None makes the average of all.

    Raises:
        InputError: Too few models, one twice, or an unknown part.
        RecipeError: A model was not found.
    """
    if part not in PARTS:
        raise InputError(f"{part!r} cannot be tried; choose one of {', '.join(PARTS)}.")
    named = [*models, *([average] if average else [])]
    nodes = tuple(ModelNode(path) for path in named)
    picks = SelectNode(tuple(range(len(nodes))), (Pick(0),))
    found = recipe_models(Recipe((*nodes, picks)), folders)
    paths = [model.path for _, model in found.models()]
    files = tuple(paths[: len(models)])
    if len(files) < 2:
        raise InputError("A selection needs two models or more; name them, or a list.")
    twice = [path for path in files if files.count(path) > 1]
    if twice:
        raise InputError(f"{twice[0]} is named twice; leave one out.")
    return SelectionSettings(
        name, files, part, payload.with_fixed_seed(0), paths[-1] if average else None
    )


def selection_folder(out: Path, name: str) -> Path:
    """Where a selection of this name is kept, or the folder that was given itself."""
    given = Path(name)
    if (given / SETTINGS).is_file():
        return given.absolute()
    return out / "selections" / folder_name(name)


def open_selection(folder: Path) -> SelectionResult:
    """A selection as it stands on the disk.

    Raises:
        InputError: There is none, or it is damaged.
    """
    file = folder / SETTINGS
    try:
        data = read_json(file)
    except (OSError, ValueError) as fault:
        raise InputError(
            f"{folder} holds no selection ({fault}); start one with: select run"
        ) from fault
    settings = SelectionSettings.from_json(data, where=str(file))
    return SelectionResult(folder, settings, cells_of(folder, settings))


def read_faults(folder: Path) -> Mapping[str, str]:
    try:
        data = read_json(folder / STATE)
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}


def cells_of(folder: Path, settings: SelectionSettings) -> tuple[TrialPicture, ...]:
    faults = read_faults(folder)
    names = ["average", *(Path(path).stem for path in settings.models)]
    found = []
    for number, name in enumerate(names):
        file = picture_name(number)
        is_there = (folder / file).is_file()
        fault = "" if is_there else str(faults.get(str(number), ""))
        found.append(TrialPicture(number, name, file if is_there else None, fault))
    return tuple(found)


def picture_name(number: int) -> str:
    return f"pictures/{number:04d}.png"


def keep_models(
    result: SelectionResult, names: Sequence[str], target: Path | None = None
) -> tuple[str, ...]:
    """Write the models that were ticked as a list for the next merge's pool.

    Args:
        result: The selection.
        names: Numbers as in the grid, or names of models.
        target: The list; None writes it into the selection's folder.

    Returns:
        The files, in the grid's order.

    Raises:
        InputError: A name that is in no cell, or none at all.
        OutputError: The list cannot be written.
    """
    cells = result.pictures[1:]
    chosen = set()
    for name in names:
        found = [c for c in cells if name in (str(c.number), c.name)]
        if len(found) != 1:
            raise InputError(
                f"{name!r} is no model of this selection; use its number, 1 to "
                f"{len(cells)}, or its name."
            )
        chosen.add(found[0].number)
    if not chosen:
        raise InputError("No model is kept; name their numbers, as 1,3,5.")
    files = tuple(result.settings.models[n - 1] for n in sorted(chosen))
    file = target or result.folder / KEPT
    lines = [f"# {len(files)} of {len(cells)} models of {result.settings.name}", *files]
    try:
        write_bytes(file, ("\n".join(lines) + "\n").encode("utf-8"))
    except OSError as fault:
        raise OutputError(
            f"{file} cannot be written ({fault.strerror}); choose another place."
        ) from fault
    return files

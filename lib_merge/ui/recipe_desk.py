"""Saved recipes and past merges as one list: searched, found, exported, imported."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from lib_merge.core.recipe import Recipe
from lib_merge.errors import InputError, OutputError
from lib_merge.formats.short_form import short_form
from lib_merge.ui.recipe_history import LOADED, History, read_recipe_file

if TYPE_CHECKING:
    from lib_merge.formats.imported import Entry, Imported
    from lib_merge.ui.workspace import Workspace

RECIPE, MERGE = "r", "m"
"""What keys begin with: a saved recipe by its name, a past merge by its hash."""

MAX_IMPORTED = 50
"""Recipes of one file that are kept at once."""

ENDINGS = {"mecha": ".mecha", "mergekit": ".yaml", "preset": ".txt"}
"""Endings of exported files; the others are JSON."""

PICTURES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".avif"})


@dataclass(frozen=True)
class Item:
    """A line of the list.

    Attributes:
        key: What the page calls it by.
        name: What people call it.
        what: "recipe", "loaded" or "saved".
        digest: The recipe's hash.
        time: Local time, to the minute.
        where: The file it was saved to, or its recipe's file.
        words: The recipe in one line.
    """

    key: str
    name: str
    what: str
    digest: str
    time: str
    where: str
    words: str

    def has(self, words: Sequence[str]) -> bool:
        """Whether every word stands somewhere in it."""
        parts = (self.name, self.what, self.digest, self.time, self.where, self.words)
        text = " ".join(parts).lower()
        return all(word in text for word in words)


class RecipeDesk:
    """The recipes of one workspace, shared by all open pages.

    Args:
        workspace: Whose folders and catalog they are in.
    """

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._read: dict[Path, tuple[int, Recipe | None, str]] = {}
        self._words: dict[str, str] = {}

    @property
    def _history(self) -> History:
        return self._workspace.history

    def items(self, search: str = "") -> list[Item]:
        """Saved recipes by name, then past merges, the newest first."""
        words = search.lower().split()
        found = [*self._saved(), *self._past()]
        return [item for item in found if item.has(words)]

    def recipe(self, key: str) -> Recipe:
        """The recipe of a line.

        Raises:
            InputError: It is not there any more.
        """
        kind, _, name = key.partition(":")
        recipe = None
        if kind == RECIPE:
            # Only a name that is listed: it comes from a page.
            path = next((p for p in self._files() if p.stem == name), None)
            recipe = self._opened(path) if path else None
        elif kind == MERGE:
            recipe = self._history.recipe(name)
        if recipe is None:
            raise InputError(
                "This recipe is not there any more, or its file is damaged; choose "
                "another one."
            )
        return recipe

    def find(self, digest: str) -> str | None:
        """The key of a recipe by its hash: a saved one before a past merge."""
        for path in self._files():
            if self._opened(path) is not None and self._read[path][2] == digest:
                return f"{RECIPE}:{path.stem}"
        is_past = self._history.recipe(digest) is not None
        return f"{MERGE}:{digest}" if is_past else None

    def delete(self, key: str) -> Path:
        """Put a saved recipe aside, into the folder `deleted`.

        Returns:
            Where it is now.

        Raises:
            InputError: It is a past merge, which stays in the history, or not there.
        """
        kind, _, name = key.partition(":")
        path = next((p for p in self._files() if p.stem == name), None)
        if kind != RECIPE or path is None:
            raise InputError(
                "Only saved recipes can be deleted; a merge stays in the history."
            )
        aside = path.parent / "deleted" / path.name
        aside.parent.mkdir(exist_ok=True)
        path.replace(aside)
        return aside

    def export(self, recipe: Recipe, name: str, format_id: str) -> Path:
        """Write a recipe in another program's format, into the data folder.

        Raises:
            RecipeError: The format cannot say it.
            OutputError: The name is unfit, or the disk does not take the file.
        """
        from lib_merge.formats.files import write

        text = write(recipe, format_id)
        stem = self._workspace.output_path(name).stem
        folder = self._workspace.host.catalog.data_dir() / "exports"
        target = folder / f"{stem}{ENDINGS.get(format_id, '.json')}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            target.write_text(text, encoding="utf-8")
        except OSError as fault:
            raise OutputError(
                f"{target} cannot be written ({fault.strerror}); look at the folder."
            ) from fault
        return target

    def import_file(self, path: Path) -> tuple[list[str], list[str]]:
        """Keep every recipe of a file of any program.

        Returns:
            Keys of the recipes that were kept, and sentences on what the file says
            without naming models, and on what is not known.

        Raises:
            InputError: It holds no recipe that MergeLab can read.
        """
        from lib_merge.formats.lookup import load

        found = load(path, folders=self._workspace.folders())
        told = [f"{path.name}: {found.title}.", *found.notes, *found.unknown]
        keys = []
        for entry in found.entries[:MAX_IMPORTED]:
            if entry.recipe is None:
                told.append(_weights_words(entry))
            else:
                name = _entry_name(path, entry, found)
                keys.append(self._keep(entry.recipe, name, told))
        n_more = len(found.entries) - MAX_IMPORTED
        if n_more > 0:
            told.append(
                f"{n_more} more recipes of this file were left out; convert single "
                "ones with: python -m lib_merge recipe convert FILE --entry NAME."
            )
        return keys, told

    def _keep(self, recipe: Recipe, name: str, told: list[str]) -> str:
        known = self.find(recipe.digest())
        if known is not None and known.startswith(RECIPE):
            told.append(f"'{name}' is here already, as {known.partition(':')[2]}.")
            return known
        stem = re.sub(r"[^\w. -]+", "-", name).strip(" .-")[:80] or "recipe"
        taken = {path.stem for path in self._files()}
        number = 2
        unique = stem
        while unique in taken:
            unique, number = f"{stem}-{number}", number + 1
        saved = self._workspace.save_recipe(recipe, unique)
        return f"{RECIPE}:{saved.stem}"

    # The list

    def _files(self) -> list[Path]:
        folder = self._workspace.recipe_dir()
        return sorted(folder.glob("*.json"), key=lambda path: path.stem.lower())

    def _opened(self, path: Path) -> Recipe | None:
        """A file's recipe; read again only after it has changed."""
        changed = path.stat().st_mtime_ns
        known = self._read.get(path)
        if known is None or known[0] != changed:
            recipe = read_recipe_file(path)
            digest = recipe.digest() if recipe is not None else ""
            known = self._read[path] = (changed, recipe, digest)
        return known[1]

    def _saved(self) -> list[Item]:
        items = []
        for path in self._files():
            recipe = self._opened(path)
            if recipe is None:
                continue
            when = datetime.fromtimestamp(path.stat().st_mtime)
            digest = self._read[path][2]
            items.append(
                Item(
                    f"{RECIPE}:{path.stem}",
                    path.stem,
                    "recipe",
                    digest,
                    _minute(when),
                    str(path),
                    self._short(digest, recipe),
                )
            )
        return items

    def _past(self) -> list[Item]:
        items = []
        for past in self._history.entries():
            when = datetime.fromisoformat(past.time).astimezone()
            what = "loaded" if past.kind == LOADED else "saved"
            words = past.name if past.kind == LOADED else self._short(past.digest)
            key = f"{MERGE}:{past.digest}"
            items.append(
                Item(key, past.name, what, past.digest, _minute(when), past.path, words)
            )
        return items

    def _short(self, digest: str, recipe: Recipe | None = None) -> str:
        if digest not in self._words:
            found = recipe or self._history.recipe(digest)
            self._words[digest] = short_form(found) if found else ""
        return self._words[digest]


def _minute(when: datetime) -> str:
    return when.strftime("%Y-%m-%d %H:%M")


def _entry_name(path: Path, entry: Entry, found: Imported) -> str:
    is_only = len(found.entries) == 1
    return path.stem if is_only or entry.name == path.name else entry.name


def _weights_words(entry: Entry) -> str:
    """Weights without models, as text for the Merge page's block weights."""
    blocks = entry.weights.blocks if entry.weights else ()
    pairs = ", ".join(f"{block}={value:g}" for block, value in blocks)
    base = entry.weights.value if entry.weights else 0.0
    return (
        f"'{entry.name}' has block weights but names no models; choose two on the "
        f"Merge page, set alpha to {base:g} and paste these block weights: {pairs}"
    )


def infotext_of(path: Path) -> str:
    """The generation data of a picture.

    Raises:
        InputError: It is no picture, or has none.
    """
    from lib_merge.autombw.infotext import read_picture

    return read_picture(path)

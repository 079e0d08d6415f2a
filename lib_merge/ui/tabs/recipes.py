"""The Recipes page: saved recipes and past merges, shown, compared, run, exchanged."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from lib_merge.core.recipe import Recipe
from lib_merge.errors import InputError, MergeError
from lib_merge.formats.short_form import recipe_hash_in
from lib_merge.ui import compat, markup
from lib_merge.ui.guard import guarded, problems_of
from lib_merge.ui.recipe_desk import PICTURES, Item, infotext_of
from lib_merge.ui.recipe_view import details_html, difference_html, table_html
from lib_merge.ui.tabs._merge_taking import RecipeTaker
from lib_merge.ui.tabs._recipes_controls import FORMATS, NOTHING, RecipesControls
from lib_merge.ui.workspace import Workspace

MERGE_PAGE = "merge"
"""The id of the Merge page among the tabs."""

MAX_OTHERS = 300
"""Recipes that the list to compare with offers."""


class RecipesPage(RecipesControls):
    """The page: its controls and what they do.

    Args:
        workspace: Jobs and host, shared by all open pages.
        taker: Puts a recipe into the Merge page.
        tabs: The row of pages, which turns to the Merge page.
    """

    def __init__(self, workspace: Workspace, taker: RecipeTaker, tabs: Any) -> None:
        self._workspace = workspace
        self._desk = workspace.recipes
        self._taker = taker
        items = self._desk.items()
        super().__init__(_labels(items))
        self.table.value = table_html(items, "", "")
        self._wire(tabs)

    def _wire(self, tabs: Any) -> None:
        bind, key = compat.handle, self.chosen
        merge = [*self._taker.inputs, tabs]
        self._n_merge = len(merge)
        shown = [self.chosen, self.details, self.name, self.message, self.difference]
        listed = [self.search, self.chosen]
        bind(self.search.change, self.on_search, listed, self.table)
        bind(self.picked.change, self.on_pick, self.picked, shown)
        bind(self.open.click, self.on_open, key, [self.message, *merge])
        told = [self.message, self.live]
        bind(self.load.click, self.on_load, key, told)
        bind(self.save.click, self.on_save, [key, self.name], told)
        changed = [self.message, self.table]
        bind(self.keep.click, self.on_keep, [key, self.name, self.search], changed)
        bind(self.delete.click, self.on_delete, [key, self.search], changed)
        both = [key, self.other]
        bind(self.other.change, self.on_compare, both, self.difference)
        files = [self.export_told, self.exported]
        exporting = [key, self.name, self.format]
        bind(self.export.click, self.on_export, exporting, files)
        found = [*shown, self.table, *merge]
        bind(self.drop.upload, self.on_drop, [self.drop, self.search], found)
        asked = [self.infotext, self.search]
        bind(self.find.click, self.on_infotext, asked, found)
        news = [self.seen, self.live, self.table, self.other]
        bind(self.poll.click, self.on_poll, [self.seen, *listed], news)

    # Handlers: each returns at once

    def on_search(self, search: str, chosen: str) -> str:
        """Other words to search for."""
        return self._table(search, chosen)

    def on_pick(self, picked: str) -> list[Any]:
        """A row was clicked; a counter stands before its key."""
        return self._shown(str(picked).partition("|")[2])

    def on_open(self, key: str) -> list[Any]:
        """Put the recipe into the Merge page and turn to it."""
        updates: list[Any] = [gr.update()] * self._n_merge

        def take() -> None:
            updates[:] = self._taken(self._recipe(key))

        return [guarded(take), *updates]

    def on_load(self, key: str) -> list[str]:
        """Merge into the loaded model."""
        return self._told(lambda: self._workspace.load(self._recipe(key)))

    def on_save(self, key: str, name: str) -> list[str]:
        """Merge into a file."""

        def start() -> None:
            recipe = self._recipe(key)
            output = self._workspace.output_path(_named(name, "the merged model"))
            if output.exists():
                raise InputError(
                    f"{output} exists; choose another name, or delete it first."
                )
            self._workspace.save(recipe, output, overwrite=False)

        return self._told(start)

    def on_keep(self, key: str, name: str, search: str) -> list[str]:
        """Save the recipe under a name."""
        saved: list[Path] = []

        def keep() -> None:
            recipe = self._recipe(key)
            what = _named(name, "the recipe")
            saved.append(self._workspace.save_recipe(recipe, what))

        fault = guarded(keep)
        message = fault or markup.success(f"Saved {saved[0]}.")
        return [message, self._table(search, key)]

    def on_delete(self, key: str, search: str) -> list[str]:
        """Put a saved recipe aside."""
        moved: list[Path] = []
        fault = guarded(lambda: moved.append(self._desk.delete(_chosen(key))))
        message = fault or markup.success(f"Moved to {moved[0]}.")
        return [message, self._table(search, key)]

    def on_compare(self, key: str, label: str) -> str:
        """Another recipe to compare with."""
        if not label:
            return ""
        try:
            first = self._recipe(key)
            other = next((i for i in self._desk.items() if _label(i) == label), None)
            if other is None:
                raise InputError(f"There is no recipe '{label}'; choose another one.")
            second = self._desk.recipe(other.key)
        except MergeError as fault:
            return markup.errors(problems_of(fault))
        mine = next((i for i in self._desk.items() if i.key == key), None)
        names = (_cut(mine.name) if mine else "This one", _cut(other.name))
        return difference_html(first, second, names)

    def on_export(self, key: str, name: str, title: str) -> list[Any]:
        """Write the recipe in another program's words."""
        made: list[Path] = []

        def export() -> None:
            recipe = self._recipe(key)
            known = key.partition(":")[2]
            made.append(self._desk.export(recipe, name or known, FORMATS[title]))

        fault = guarded(export)
        if fault:
            return [fault, gr.update(visible=False)]
        told = markup.success(f"Written to {made[0]}.")
        return [told, gr.update(value=str(made[0]), visible=True)]

    def on_drop(self, file: Any, search: str) -> list[Any]:
        """A file was dropped: a picture, or any program's recipe."""
        path = Path(str(getattr(file, "name", file)))
        if path.suffix.lower() in PICTURES:
            try:
                return self.on_infotext(infotext_of(path), search)
            except MergeError as fault:
                return self._nothing(markup.errors(problems_of(fault)), search)
        try:
            keys, told = self._desk.import_file(path)
        except MergeError as fault:
            return self._nothing(markup.errors(problems_of(fault)), search)
        if not keys:
            return self._nothing(markup.notes(told), search)
        shown = self._shown(keys[0], markup.notes(told))
        rest = [gr.update()] * self._n_merge
        return [*shown, self._table(search, keys[0]), *rest]

    def on_infotext(self, infotext: str, search: str) -> list[Any]:
        """A picture's generation data: the recipe that it was made with, opened."""
        digest = recipe_hash_in(str(infotext))
        if digest is None:
            return self._nothing(_no_recipe(), search)
        key = self._desk.find(digest)
        if key is None:
            words = (
                f"The picture was made with recipe {digest}, which is not among the "
                "saved recipes or the merges that were done here; drop the recipe's "
                "file, or the merged model, here first."
            )
            return self._nothing(markup.errors([words]), search)
        try:
            updates = self._taken(self._desk.recipe(key))
            message = markup.success(f"Found recipe {digest} of the picture.")
        except MergeError as fault:
            updates = [gr.update()] * self._n_merge
            message = markup.errors(problems_of(fault))
        return [*self._shown(key, message), self._table(search, key), *updates]

    def on_poll(self, seen: str, search: str, chosen: str) -> list[Any]:
        """What has changed since this page last asked; nothing when nothing has."""
        items = self._desk.items()
        live = self._live()
        text = f"{live}{[(i.key, i.time, i.what) for i in items]}"
        token = f"{zlib.crc32(text.encode()):08x}"
        if token == seen:
            return [gr.update()] * 4
        others = gr.update(choices=_labels(items))
        return [token, live, self._table(search, chosen), others]

    # Showing

    def _taken(self, recipe: Recipe) -> list[Any]:
        return [*self._taker.take(recipe), gr.update(selected=MERGE_PAGE)]

    def _recipe(self, key: str) -> Recipe:
        return self._desk.recipe(_chosen(key))

    def _shown(self, key: str, message: str = "") -> list[Any]:
        """Updates of chosen, details, name, message and difference."""
        try:
            recipe = self._desk.recipe(key)
        except MergeError as fault:
            return ["", NOTHING, gr.update(), markup.errors([str(fault)]), ""]
        items = [item for item in self._desk.items() if item.key == key]
        name = items[0].name if items else key.partition(":")[2]
        files = dict.fromkeys(i.where for i in items if i.what == "saved" and i.where)
        where = [f"Saved as {path}" for path in files]
        is_name = bool(items) and items[0].what != "loaded"
        named = gr.update(value=name if is_name else "")
        return [key, details_html(recipe, name, where), named, message, ""]

    def _nothing(self, message: str, search: str) -> list[Any]:
        """A message alone; everything else stays."""
        stays = gr.update()
        shown = [stays, stays, stays, message, stays]
        return [*shown, self._table(search, ""), *[stays] * self._n_merge]

    def _table(self, search: str, chosen: str) -> str:
        words = str(search or "")
        return table_html(self._desk.items(words), str(chosen or ""), words)

    def _told(self, action: Callable[[], Any]) -> list[str]:
        return [guarded(action), self._live()]

    def _live(self) -> str:
        job = self._workspace.merging.job
        return markup.job(job.view() if job else None) or "<div></div>"


def _chosen(key: Any) -> str:
    if not key:
        raise InputError("No recipe is chosen; choose one in the list.")
    return str(key)


def _named(name: Any, what: str) -> str:
    if not str(name or "").strip():
        raise InputError(f"{what.capitalize()} has no name; type one above.")
    return str(name)


def _no_recipe() -> str:
    return markup.errors(
        [
            "The picture says nothing of a MergeLab recipe: it was made with a model "
            "as it is on disk, by another program, or its data was removed."
        ]
    )


def _cut(name: str, limit: int = 60) -> str:
    return name if len(name) <= limit else name[: limit - 1] + "…"


def _label(item: Item) -> str:
    return f"{_cut(item.name)} [{item.digest[:10]}]"


def _labels(items: Sequence[Item]) -> list[str]:
    return list(dict.fromkeys(map(_label, items)))[:MAX_OTHERS]


def build(workspace: Workspace, taker: RecipeTaker, tabs: Any) -> RecipesPage:
    """Build the page inside the current Blocks."""
    return RecipesPage(workspace, taker, tabs)

"""What the Recipes page shows: the list, one recipe in words and as a graph, two."""

from __future__ import annotations

from collections.abc import Sequence

from lib_merge.analysis.drawing import to_svg
from lib_merge.core.recipe import Recipe
from lib_merge.formats.difference import differences, facts_of
from lib_merge.formats.short_form import short_form
from lib_merge.ui import markup
from lib_merge.ui.recipe_desk import Item
from lib_merge.ui.recipe_graph import recipe_graph

MAX_ROWS = 200
_N_SIGNS = 90
_WHAT = {"recipe": "recipe", "loaded": "merged and loaded", "saved": "merged and saved"}


def table_html(items: Sequence[Item], chosen: str, search: str) -> str:
    """The list, a row each; a row's name is a button (`javascript/merge_models.js`).

    Args:
        items: What fits the search.
        chosen: The key of the one that is shown.
        search: What was searched for.
    """
    if not items and search.strip():
        return markup.empty("No recipe has these words in name, hash, models or file.")
    if not items:
        return markup.empty(
            "No recipe yet. Every merge that you load or save stands here, and every "
            "recipe that you drop above."
        )
    told = f"{markup.count(len(items), 'entry').replace('entrys', 'entries')}."
    if len(items) > MAX_ROWS:
        told += f" The first {MAX_ROWS} are shown; search for others."
    head = "".join(f"<th>{cell}</th>" for cell in ("Name", "What", "When", "Hash"))
    body = "".join(_row(item, item.key == chosen) for item in items[:MAX_ROWS])
    table = (
        f'<table class="merge-table"><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table>"
    )
    return f'<div class="merge-source">{told}</div>' + markup.scroll(table, "Recipes")


def _row(item: Item, is_chosen: bool) -> str:
    name = item.name if len(item.name) <= _N_SIGNS else item.name[:_N_SIGNS] + "…"
    pressed = "true" if is_chosen else "false"
    button = (
        f'<button type="button" data-merge-pick="{markup.text(item.key)}" '
        f'aria-pressed="{pressed}" title="{markup.text(item.words)}">'
        f"{markup.text(name)}</button>"
    )
    what = markup.text(_WHAT[item.what])
    if item.where and item.what != "recipe":
        what = f'<span title="{markup.text(item.where)}">{what}</span>'
    return (
        f"<tr><td>{button}</td><td>{what}</td>"
        f"<td>{markup.text(item.time)}</td><td><code>{item.digest[:10]}</code></td></tr>"
    )


def details_html(recipe: Recipe, name: str, where: Sequence[str]) -> str:
    """One recipe: what it is called, its graph, and all that it says.

    Args:
        recipe: The recipe.
        name: What it is called.
        where: Files that came of it.
    """
    heading = f'<h3 class="merge-heading">{markup.text(name)}</h3>'
    words = [short_form(recipe), f"Recipe {recipe.digest()}", *where]
    drawing = recipe_graph(recipe)
    graph = markup.note("Too many nodes for a graph; the table says all of it.")
    if drawing is not None:
        svg = to_svg(drawing, is_file=False)
        graph = markup.scroll(f'<div class="merge-figure">{svg}</div>', "Graph")
    table = markup.table(("Place", "Value"), facts_of(recipe).items())
    return (
        f'{heading}<div class="merge-source">{markup.lines(words)}</div>{graph}'
        f"{markup.scroll(table, 'Settings of the recipe')}"
    )


def difference_html(first: Recipe, second: Recipe, names: tuple[str, str]) -> str:
    """Where two recipes differ, as a table below a sentence."""
    found = differences(first, second)
    if not found:
        return markup.success("The two recipes say the same.")
    places = markup.count(len(found), "place")
    line = f'<div class="merge-source">They differ in {places}.</div>'
    rows = [(one.place, one.first or "-", one.second or "-") for one in found]
    table = markup.table(("Place", names[0], names[1]), rows)
    return line + markup.scroll(table, "Differences")

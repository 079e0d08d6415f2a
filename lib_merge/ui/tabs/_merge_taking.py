"""The Merge page takes over a recipe that another page sends."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import gradio as gr

from lib_merge.core.method import MergeMethod
from lib_merge.core.ports import Catalog
from lib_merge.core.recipe import Recipe
from lib_merge.methods import methods
from lib_merge.ui import widgets
from lib_merge.ui.recipe_form import form_of
from lib_merge.ui.recipe_page import packed, page_values
from lib_merge.ui.tabs._merge_controls import N_SINGLE, MergeControls
from lib_merge.ui.widgets import Kind

if TYPE_CHECKING:
    from lib_merge.ui.tabs.merge import MergePage


class RecipeTaker:
    """Turns a recipe into updates of the page's controls.

    Args:
        page: The page.
        titles: Gives the models that can be chosen.
        catalog: Where the recipe's models are looked for.
    """

    def __init__(
        self, page: MergePage, titles: Callable[[], list[str]], catalog: Catalog
    ) -> None:
        self._page = page
        self._titles = titles
        self._catalog = catalog

    @property
    def inputs(self) -> list[Any]:
        """The controls that `take` changes, in its order."""
        page = self._page
        models = [page.taken, page.method, *page.singles, page.pool]
        views = [page.explanation, page.pool_column, page.blocks_column]
        params = [control for kind in Kind for control in page.params[kind]]
        last = [page.block_param, page.editor, page.outlook]
        return [*models, *self._plain(), *views, *params, *last]

    def take(self, recipe: Recipe) -> list[Any]:
        """Updates that make the page say a recipe.

        Raises:
            RecipeError: A model is not in the list, or the controls cannot say it.
        """
        form = form_of(recipe, self._catalog)
        method = methods().get(form.method)
        shown = page_values(form, method, N_SINGLE)
        values: dict[Any, Any] = {
            self._page.block_param: None,
            self._page.method: method.label,
            self._page.pool: list(shown.pool),
            **dict(zip(self._page.singles, shown.singles, strict=True)),
            **dict(zip(self._plain(), shown.plain, strict=True)),
        }
        titles = self._titles()
        singles = [
            gr.update(choices=titles, value=title, **widgets.input_options(method, i))
            for i, title in enumerate(shown.singles)
        ]
        params = param_updates(self._page, method, values, shown.numbers)
        return [
            packed(form),
            gr.update(value=method.label),
            *singles,
            gr.update(choices=titles, value=list(shown.pool)),
            *(gr.update(value=value) for value in shown.plain),
            widgets.explanation(method),
            gr.update(visible=method.is_pool),
            gr.update(visible=bool(form.weights)),
            *params,
            *self._page.on_first(values),
        ]

    def _plain(self) -> list[Any]:
        """Controls whose value alone a recipe sets, in the order of `PageValues`."""
        page = self._page
        texts = [page.use_blocks, page.weights, page.rules, page.steps]
        options = [page.precision, page.save_dtype, page.parts]
        return [*texts, *options, page.keep_ema, page.is_missing_ok, page.non_finite]


def param_updates(
    page: MergeControls,
    method: MergeMethod,
    values: dict[Any, Any],
    shown: Mapping[str, Any],
) -> list[Any]:
    """Updates that make the parameters' controls a method's.

    Args:
        page: Whose controls.
        method: Whose parameters they show.
        values: By control; gets what they hold from now on.
        shown: Values by parameter, for those that do not begin at their default.
    """
    updates = []
    for kind in Kind:
        specs = widgets.placed(method, kind)
        for control, spec in zip(page.params[kind], specs, strict=True):
            options = widgets.dressed(kind, spec)
            if spec is not None and spec.name in shown:
                options["value"] = shown[spec.name]
            usual = widgets.opening_value(kind, spec)
            values[control] = options.get("value", usual)
            updates.append(gr.update(**options))
    return updates

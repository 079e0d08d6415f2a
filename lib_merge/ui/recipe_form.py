"""The Merge page's form that stands for a recipe, where its controls can say it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lib_merge.core.method import MergeMethod
from lib_merge.core.nodes import (
    LoraNode,
    MergeNode,
    ModelNode,
    Pick,
    SelectNode,
    Setting,
)
from lib_merge.core.params import split_name
from lib_merge.core.ports import Catalog
from lib_merge.core.recipe import Recipe
from lib_merge.errors import MergeError, RecipeError
from lib_merge.formats.lookup import find_models
from lib_merge.methods import methods
from lib_merge.ui.form import (
    KEEP,
    NON_FINITE,
    PARTS,
    MergeForm,
    recipe_of,
    titles_of,
)

_DIRECT = "Run it from the Recipes page instead: Merge and load, or Merge and save."


def form_of(recipe: Recipe, catalog: Catalog) -> MergeForm:
    """The form whose recipe means the same.

    Raises:
        RecipeError: A model is not in the list, or the page's controls cannot say it;
            each reason is a sentence.
    """
    titles = _titles(recipe, catalog)
    form = _Reader(recipe, titles).form()
    try:
        again = recipe_of(form, catalog)
    except MergeError as fault:
        raise RecipeError([f"The Merge page cannot show it: {fault} {_DIRECT}"]) from (
            fault
        )
    paths = {title: str(entry.path) for title, entry in _entries(catalog).items()}
    # Told by its meaning, so that nothing is lost on the way that nobody thought of.
    if meaning(again) != meaning(recipe, {i: paths[t] for i, t in titles.items()}):
        raise RecipeError(
            [f"The Merge page's controls cannot say all of this recipe. {_DIRECT}"]
        )
    return form


def meaning(recipe: Recipe, paths: Mapping[int, str] | None = None) -> tuple[Any, ...]:
    """Equal for recipes that compute the same, however they are written down.

    Args:
        recipe: Any recipe.
        paths: Where its models lie, by node, in place of what it says itself.
    """
    seen: dict[int, Any] = {}

    def told(index: int) -> Any:
        if index not in seen:
            seen[index] = _told(recipe, index, told, paths or {})
        return seen[index]

    options = (recipe.compute_dtype, recipe.save_dtype, recipe.keep_ema)
    more = (recipe.is_missing_ok, recipe.on_non_finite)
    return (told(len(recipe.nodes) - 1), *options, *more)


def _told(
    recipe: Recipe, index: int, told: Callable[[int], Any], paths: Mapping[int, str]
) -> Any:
    node = recipe.nodes[index]
    if isinstance(node, ModelNode):
        return ("model", str(Path(paths.get(index, node.path))))
    if isinstance(node, LoraNode):
        return ("lora", node.path, _plain(node.strength), told(node.base))
    if isinstance(node, SelectNode):
        sources = [told(node.inputs[pick.input]) for pick in node.picks]
        wheres = [(pick.blocks, pick.pattern) for pick in node.picks]
        picks = tuple(zip(sources, wheres, strict=True))
        return ("select", told(node.inputs[0]), picks)
    method = methods().get(node.method) if node.method in methods() else None
    given = dict(node.params)
    each = {split_name(name)[0] for name in given if "@" in name}
    usual = {
        s.name: Setting(s.default)
        for s in (method.params if method else ())
        if s.name not in each or s.name in given
    }
    settings = {name: _plain(setting) for name, setting in {**usual, **given}.items()}
    inputs = tuple(told(i) for i in node.inputs)
    return (
        node.method,
        inputs,
        tuple(sorted(settings.items())),
        frozenset(node.components),
    )


def _plain(setting: Setting) -> tuple[Any, ...]:
    return (setting.value, tuple(sorted(setting.blocks)), setting.rules)


def _entries(catalog: Catalog) -> Mapping[str, Any]:
    return titles_of(catalog.checkpoints())


def _titles(recipe: Recipe, catalog: Catalog) -> dict[int, str]:
    """Titles of the recipe's models, by node.

    Raises:
        RecipeError: A model is not in the host's list.
    """
    entries = _entries(catalog)
    by_path = {entry.path.resolve(): title for title, entry in entries.items()}
    folders = list(dict.fromkeys(e.path.parent for e in entries.values()))
    found: dict[int, str] = {}
    problems = []
    indices = [index for index, _ in recipe.files()]
    for index, one in zip(indices, find_models(recipe, folders), strict=True):
        if not isinstance(one.model, ModelNode):
            continue
        title = by_path.get(Path(one.path).resolve()) if one.path else None
        if title is not None:
            found[index] = title
        elif one.path is None:
            problems.append(one.reason)
        else:
            problems.append(
                f"{one.path} is not in the list of models; refresh the list, or put "
                "it into a folder of the host's."
            )
    if problems:
        raise RecipeError(problems)
    return found


@dataclass(frozen=True)
class _Chain:
    """A recipe taken apart as the page has it: one method, then others, then picks."""

    main: MergeNode
    then: tuple[MergeNode, ...]
    picks: tuple[tuple[Pick, Any], ...]


class _Reader:
    """Reads one recipe.

    Args:
        recipe: The recipe.
        titles: Of its models, by node.
    """

    def __init__(self, recipe: Recipe, titles: Mapping[int, str]) -> None:
        self._recipe = recipe
        self._titles = titles

    def form(self) -> MergeForm:
        """The form; where the controls cannot say something, a near one.

        Raises:
            RecipeError: No merge stands at its beginning.
        """
        chain = self._chain()
        method = methods().get(chain.main.method)
        settings = dict(chain.main.params)
        recipe = self._recipe
        keeps = recipe.save_dtype is None
        return MergeForm(
            method=method.id,
            models=tuple(self._titles.get(i, "") for i in chain.main.inputs),
            values=tuple(_values(method, settings)),
            each=tuple(_each(method, settings, len(chain.main.inputs))),
            weights=_weights(method, settings),
            rules="\n".join(_rules(method, settings)),
            steps="\n".join(self._steps(chain)),
            compute_dtype=recipe.compute_dtype.torch_name,
            save_dtype=KEEP if keeps else str(recipe.save_dtype.torch_name),  # type: ignore[union-attr]
            parts=tuple(
                name
                for name, parts in PARTS.items()
                if set(parts) & set(chain.main.components)
            ),
            keep_ema=recipe.keep_ema,
            is_missing_ok=recipe.is_missing_ok,
            non_finite=_words_for(recipe.on_non_finite),
        )

    def _chain(self) -> _Chain:
        nodes = self._recipe.nodes
        index = len(nodes) - 1
        picks: tuple[tuple[Pick, Any], ...] = ()
        last = nodes[index]
        if isinstance(last, SelectNode):
            picks = tuple((pick, nodes[last.inputs[pick.input]]) for pick in last.picks)
            index = last.inputs[0]
        then: list[MergeNode] = []
        node = nodes[index]
        while isinstance(node, MergeNode) and node.method in methods():
            above = [i for i in node.inputs if not isinstance(nodes[i], ModelNode)]
            if not above:
                return _Chain(node, tuple(reversed(then)), picks)
            then.append(node)
            node = nodes[above[-1]]
        what = "a LoRA" if isinstance(node, LoraNode) else "something else"
        name = f"the method {node.method}" if isinstance(node, MergeNode) else what
        raise RecipeError(
            [f"The Merge page has no control for {name} at its beginning. {_DIRECT}"]
        )

    def _steps(self, chain: _Chain) -> Iterable[str]:
        for node in chain.then:
            yield f"then : {_step(node)}"
        for pick, node in chain.picks:
            blocks = ", ".join(pick.blocks)
            if isinstance(node, ModelNode):
                index = self._recipe.nodes.index(node)
                yield f"{blocks} = {self._titles.get(index, node.path)}"
            elif isinstance(node, MergeNode):
                yield f"{blocks} : {_step(node)}"


def _words_for(policy: Any) -> str:
    return next(words for words, one in NON_FINITE.items() if one is policy)


def _number(method: MergeMethod, name: str, value: float) -> str:
    spec = method.param(split_name(name)[0])
    named = spec is not None and bool(spec.param.choices)
    return spec.text_of(value) if spec is not None and named else repr(value)


def _step(node: MergeNode) -> str:
    method = methods().get(node.method) if node.method in methods() else None
    if method is None:
        return node.method
    values = [(name, setting.value) for name, setting in node.params]
    pairs = [f"{name}={_number(method, name, value)}" for name, value in values]
    return " : ".join([node.method, *([", ".join(pairs)] if pairs else [])])


def _values(
    method: MergeMethod, settings: Mapping[str, Setting]
) -> Iterable[tuple[str, float]]:
    for spec in method.params:
        if not spec.param.per_model:
            setting = settings.get(spec.name)
            yield spec.name, spec.default if setting is None else setting.value


def _each(
    method: MergeMethod, settings: Mapping[str, Setting], n_inputs: int
) -> Iterable[tuple[str, str]]:
    n_pool = n_inputs - method.n_single
    for spec in method.params:
        if not spec.param.per_model:
            continue
        own = {n: s for n, s in settings.items() if split_name(n)[0] == spec.name}
        usual = own.get(spec.name, Setting(spec.default))
        singles = [own.get(f"{spec.name}@{i + 1}", usual) for i in range(n_pool)]
        if set(own) - {spec.name}:
            yield spec.name, ", ".join(repr(one.value) for one in singles)
        else:
            is_usual = usual.value == spec.default
            yield spec.name, "" if is_usual else repr(usual.value)


def _weights(method: MergeMethod, settings: Mapping[str, Setting]) -> str:
    """Values by block as text, the main parameter's first and without its name."""
    main = method.block_param.name if method.block_param else ""
    texts = []
    for name in sorted(settings, key=lambda name: name != main):
        pairs = [f"{b}={_number(method, name, v)}" for b, v in settings[name].blocks]
        if pairs:
            lead = "" if name == main else f"{name}: "
            texts.append(lead + ", ".join(pairs))
    return "; ".join(texts)


def _rules(method: MergeMethod, settings: Mapping[str, Setting]) -> Sequence[str]:
    main = method.block_param.name if method.block_param else ""
    return [
        f"{'' if name == main else f'{name}@'}{' '.join(rule.blocks)} : "
        f"{rule.pattern} : {_number(method, name, rule.value)}"
        for name, setting in settings.items()
        for rule in setting.rules
    ]

"""Two recipes beside each other: what is said of each place, and where they differ."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from lib_merge.core.nodes import (
    MergeNode,
    ModelNode,
    Pick,
    SelectNode,
    Setting,
)
from lib_merge.core.recipe import Recipe
from lib_merge.formats.short_form import model_name, value_words
from lib_merge.methods import methods


@dataclass(frozen=True)
class Difference:
    """One thing that two recipes say differently.

    Attributes:
        place: Where: "Method", "Model B", "alpha in IN04".
        first: What the first says there; "" where it says nothing.
        second: What the second says there.
    """

    place: str
    first: str
    second: str

    def sentence(self) -> str:
        """In words."""
        if not self.first:
            return f"{self.place}: only the second has {self.second}."
        if not self.second:
            return f"{self.place}: only the first has {self.first}."
        return f"{self.place}: {self.first} in the first, {self.second} in the second."


def facts_of(recipe: Recipe) -> dict[str, str]:
    """All that a recipe says, by place, in the order of reading.

    Defaults are filled in, so that a recipe which names them says the same as one that
    does not. A part that is used twice is described where it is met first.
    """
    facts = dict(_Reader(recipe).node(len(recipe.nodes) - 1, ""))
    save = recipe.save_dtype.torch_name if recipe.save_dtype else "each tensor's own"
    return facts | {
        "Computes in": recipe.compute_dtype.torch_name,
        "Stores as": save,
        "Keeps EMA weights": "yes" if recipe.keep_ema else "no",
        "Models may lack keys": "yes" if recipe.is_missing_ok else "no",
        "NaN or infinity": recipe.on_non_finite.value.replace("_", " "),
    }


def differences(first: Recipe, second: Recipe) -> tuple[Difference, ...]:
    """Every place where two recipes differ, in the first one's order."""
    ours, theirs = facts_of(first), facts_of(second)
    places = dict.fromkeys([*ours, *theirs])
    return tuple(
        Difference(place, ours.get(place, ""), theirs.get(place, ""))
        for place in places
        if ours.get(place, "") != theirs.get(place, "")
    )


class _Reader:
    """Walks a recipe from its result to its files."""

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe
        self._met: dict[int, str] = {}

    def node(self, index: int, place: str) -> Iterator[tuple[str, str]]:
        """What is said of a node and of all below it."""
        node = self._recipe.nodes[index]
        if isinstance(node, ModelNode):
            yield place or "Model", _file(node.path, node.sha256)
            return
        if index in self._met:
            yield place, f"the same as {self._met[index]}"
            return
        self._met[index] = place or "the result"
        lead = f"{place}: " if place else ""
        if isinstance(node, MergeNode):
            yield from self._merge(node, lead)
        elif isinstance(node, SelectNode):
            yield from self._select(node, lead)
        else:
            yield f"{lead}LoRA", _file(node.path, node.sha256)
            yield from _setting(f"{lead}strength", node.strength, None, "strength")
            yield from self.node(node.base, f"{lead}below the LoRA")

    def _merge(self, node: MergeNode, lead: str) -> Iterator[tuple[str, str]]:
        method = methods().get(node.method) if node.method in methods() else None
        yield f"{lead}Method", method.label if method else node.method
        for place, index in enumerate(node.inputs):
            yield from self.node(index, f"{lead}{_input_name(node, place)}")
        given = dict(node.params)
        usual = {s.name: Setting(s.default) for s in method.params} if method else {}
        each = {name.partition("@")[0] for name in given if "@" in name}
        for name, setting in {**usual, **given}.items():
            if name in each and name not in given:
                continue
            yield from _setting(f"{lead}{name}", setting, node.method, name)
        parts = sorted(component.value for component in node.components)
        yield f"{lead}Blends", ", ".join(parts)

    def _select(self, node: SelectNode, lead: str) -> Iterator[tuple[str, str]]:
        yield from self.node(node.inputs[0], lead.removesuffix(": "))
        for pick in node.picks:
            where = f"{lead}{_pick_name(pick)} from elsewhere"
            yield from self.node(node.inputs[pick.input], where)


def _setting(
    place: str, setting: Setting, method_id: str | None, name: str
) -> Iterator[tuple[str, str]]:
    is_known = method_id is not None and method_id in methods()
    method = methods().get(method_id or "") if is_known else None
    yield place, value_words(method, name, setting.value)
    for block, value in setting.blocks:
        yield f"{place} in {block}", value_words(method, name, value)
    for number, rule in enumerate(setting.rules, 1):
        where = " ".join(rule.blocks) or "any block"
        text = f"{where}, {rule.pattern or 'any key'}: {rule.value:g}"
        yield f"{place}, rule {number}", text


def _input_name(node: MergeNode, place: int) -> str:
    if node.method not in methods():
        return f"Model {place + 1}"
    specs = methods().get(node.method).inputs
    spec = specs[min(place, len(specs) - 1)]
    if spec.is_pool:
        return f"Model {place - len(specs) + 2} of the pool"
    return "Base" if spec.name == "base" else f"Model {spec.name.upper()}"


def _pick_name(pick: Pick) -> str:
    return " ".join([*pick.blocks, *([f"/{pick.pattern}/"] if pick.pattern else [])])


def _file(path: str, sha256: str | None) -> str:
    return model_name(path) + (f" ({sha256[:10]})" if sha256 else "")

"""A recipe in one short line, and the mark that pictures carry of a loaded merge."""

from __future__ import annotations

import re
from pathlib import PurePath

from lib_merge.core.method import MergeMethod
from lib_merge.core.nodes import LoraNode, MergeNode, ModelNode, SelectNode, Setting
from lib_merge.core.recipe import Recipe
from lib_merge.methods import methods

RECIPE_FIELD = "MergeLab recipe"
"""What the recipe's hash is called in a picture's generation data."""

MERGE_FIELD = "MergeLab merge"
"""What the short line is called there."""

LIMIT = 240
"""Signs of a short line at most."""

_N_MODELS = 4
_N_BLOCKS = 3
_HASH = re.compile(rf"{RECIPE_FIELD}:\s*\"?([0-9a-f]{{16}})\b")


def picture_fields(recipe: Recipe) -> dict[str, str]:
    """What a picture's generation data says of the merge it was made with."""
    return {RECIPE_FIELD: recipe.digest(), MERGE_FIELD: short_form(recipe)}


def recipe_hash_in(infotext: str) -> str | None:
    """The recipe's hash in a picture's generation data, or None.

    Of several (a prompt may quote one) the last counts: fields stand at the end.
    """
    found = _HASH.findall(infotext)
    return found[-1] if found else None


def short_form(recipe: Recipe, limit: int = LIMIT) -> str:
    """One line: "weighted_sum(a, b; alpha=0.5 IN04=0.7)".

    Args:
        recipe: Any recipe.
        limit: Signs at most; what is longer ends in dots.
    """
    text = _node(recipe, len(recipe.nodes) - 1)
    return text if len(text) <= limit else text[: limit - 3].rstrip() + "..."


def model_name(path: str) -> str:
    """A model's file name without its folder and ending."""
    name = PurePath(path.replace("\\", "/")).name
    return name.removesuffix(".safetensors").removesuffix(".ckpt") or path


def setting_words(setting: Setting, spec_text: str) -> str:
    """A setting: its value, the first blocks of their own, how many rules."""
    words = [spec_text]
    words += [f"{block}={value:g}" for block, value in setting.blocks[:_N_BLOCKS]]
    n_more = len(setting.blocks) - _N_BLOCKS
    words += [f"+{n_more} blocks"] if n_more > 0 else []
    words += [f"{len(setting.rules)} rules"] if setting.rules else []
    return " ".join(words)


def value_words(method: MergeMethod | None, name: str, value: float) -> str:
    """A parameter's value as people write it; a choice by its name."""
    spec = method.param(name.partition("@")[0]) if method else None
    return spec.text_of(value) if spec else f"{value:g}"


def _node(recipe: Recipe, index: int) -> str:
    node = recipe.nodes[index]
    if isinstance(node, ModelNode):
        return model_name(node.path)
    if isinstance(node, LoraNode):
        strength = setting_words(node.strength, f"{node.strength.value:g}")
        lora = f"{model_name(node.path)} x {strength}"
        return f"{_node(recipe, node.base)} + lora {lora}"
    if isinstance(node, SelectNode):
        picks = [
            f"{' '.join(pick.blocks) or pick.pattern} of "
            f"{_node(recipe, node.inputs[pick.input])}"
            for pick in node.picks
        ]
        return f"{_node(recipe, node.inputs[0])}, but {', '.join(picks)}"
    return _merge(recipe, node)


def _merge(recipe: Recipe, node: MergeNode) -> str:
    method = methods().get(node.method) if node.method in methods() else None
    shown = node.inputs[:_N_MODELS]
    inputs = [_node(recipe, i) for i in shown]
    n_more = len(node.inputs) - len(shown)
    inputs += [f"+{n_more} models"] if n_more > 0 else []
    params = []
    for name, setting in node.params:
        spec = method.param(name.partition("@")[0]) if method else None
        is_usual = spec is not None and setting == Setting(spec.default)
        is_main = method is not None and spec == method.block_param
        if is_main or not is_usual:
            value = f"{name}={value_words(method, name, setting.value)}"
            params.append(setting_words(setting, value))
    settings = f"; {', '.join(params)}" if params else ""
    return f"{node.method}({', '.join(inputs)}{settings})"

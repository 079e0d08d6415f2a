"""A merge of supermerger: `sd_merge_recipe` of its type, and rows of mergehistory.csv.

Block weights come as 25 (SDXL: 19) numbers beside base_alpha, or as 26 (20) in a text
with the base first. time_embed follows IN00 and out the last block there, base_alpha
drives the VAE, too, and tensors that are neither weight nor bias stay model A's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lib_merge.core.recipe import Rule, Setting
from lib_merge.errors import RecipeError
from lib_merge.formats.elemental import exclusion_rules, read_elements
from lib_merge.formats.numbers import flag, number
from lib_merge.formats.orders import WHOLE, find_order, split_weights

if TYPE_CHECKING:
    from lib_merge.formats.imported import Options
    from lib_merge.formats.webui import Step
    from lib_merge.formats.webui_models import Models

NOTE = (
    "supermerger: base_alpha drives text encoders and VAE, time_embed follows IN00 and "
    "out follows the last block."
)

_A_AND_B = ("model_a", "model_b")
_ALL = ("model_a", "model_b", "model_c")
_PLAIN = {
    "Weight": ("weighted_sum", _A_AND_B, ("alpha",)),
    "Add": ("add_difference", _ALL, ("alpha",)),
    "Triple": ("triple_sum", _ALL, ("alpha", "beta")),
    "Twice": ("sum_twice", _ALL, ("alpha", "beta")),
}
_CALC = {
    "trainDifference": ("train_difference", _ALL, ("alpha",)),
    "smoothAdd": ("smooth_add", _ALL, ("alpha",)),
    "smoothAdd MT": ("smooth_add", _ALL, ("alpha",)),
    "tensor": ("tensor_sum", _A_AND_B, ("alpha", "beta")),
    "tensor2": ("tensor_sum", _A_AND_B, ("alpha", "beta")),
}
_REASONS = {
    "cosineA": "stretches its cosines over the whole model, which MergeLab does not",
    "cosineB": "stretches its cosines over the whole model, which MergeLab does not",
    "extract": "has a gamma that is not written down here",
    "self": "leaves out some layers in a way of its own",
    "plus random": "adds noise that cannot be repeated",
}
_LOOSE = Rule(0.0, (), r"^(?!.*(?:weight|bias))")
"""Tensors that supermerger passes over; CLIP-G has some."""


def inputs_of(data: Mapping[str, Any]) -> dict[str, object]:
    """The models that the merge uses, by their names in its metadata."""
    try:
        _, names, _ = _method_of(data)
    except RecipeError:
        names = _A_AND_B
    return {name: data.get(name) for name in names}


def build(step: Step, models: Models, options: Options) -> int:
    """The merge's node.

    Raises:
        RecipeError: A calculation that MergeLab does not have or numbers that it
            cannot read.
    """
    data = step.data
    method, names, params = _method_of(data)
    settings = settings_of(data, params, options, where=step.name)
    if method == "tensor_sum":
        axis = 1.0 if data.get("calcmode") == "tensor2" else 0.0
        settings.append(("axis", Setting(axis)))
    if method == "extract":
        settings.append(("gamma", Setting(number(data["gamma"], step.name))))
    models.note(NOTE)
    nodes = [step.nodes[name] for name in names]
    return models.graph.merge(method, nodes, settings, WHOLE)


def _method_of(data: Mapping[str, Any]) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    mode = str(data.get("mode") or "").replace("sum Twice", "Twice")
    calc = str(data.get("calcmode") or "normal")
    if calc == "extract" and "gamma" in data:
        return "extract", _ALL, ("alpha", "beta")
    word = mode.partition(" ")[0].partition(":")[0]
    if calc == "normal" and word in _PLAIN:
        return _PLAIN[word]
    if calc in _CALC:
        method = _CALC[calc]
        if method[0] == "smooth_add" and word != "Add":
            raise RecipeError([f"supermerger's {calc} needs the mode Add difference."])
        return method
    reason = _REASONS.get(calc, "is not known")
    if calc == "normal":
        raise RecipeError([f"supermerger's mode {mode[:60]!r} is not known."])
    raise RecipeError([f"supermerger's calculation {calc[:40]!r} {reason}."])


def settings_of(
    data: Mapping[str, Any], params: tuple[str, ...], options: Options, *, where: str
) -> list[tuple[str, Setting]]:
    """alpha and beta by block, with rules for layers and what was left out.

    Raises:
        RecipeError: Numbers or rules that cannot be read.
    """
    is_mbw = flag(data.get("mbw"))
    is_sdxl = options.arch == "sdxl"
    settings = {}
    for name in params:
        base = data.get(f"base_{name}", 0.0)
        at = f"{where}, {name}"
        if is_mbw:
            settings[name], is_xl = _by_block(data, name, base, options, at)
            is_sdxl = is_sdxl or is_xl
        else:
            settings[name] = Setting(number(base, at))
    elements = read_elements(
        str(data.get("elemental_merge") or ""), is_sdxl=is_sdxl, where=where
    )
    skipped = exclusion_rules(data, is_sdxl=is_sdxl)
    if is_sdxl:
        skipped = (_LOOSE, *skipped)
    return [
        (
            name,
            Setting(
                one.value,
                one.blocks,
                (*one.rules, *(elements if name == "alpha" else ()), *skipped),
            ),
        )
        for name, one in settings.items()
    ]


def _by_block(
    data: Mapping[str, Any], name: str, base: object, options: Options, where: str
) -> tuple[Setting, bool]:
    """Block weights, and whether they are SDXL's."""
    given = data.get(f"weights_{name}")
    if isinstance(given, str):
        numbers = split_weights(given, where)
    elif isinstance(given, list):
        numbers = [number(one, where) for one in given]
        # The list lacks the base, and SDXL's has a number for the VAE without effect.
        if len(numbers) == 20:
            numbers = numbers[:19]
        numbers = [number(base, where), *numbers]
    else:
        raise RecipeError([f"{where}: block weights were on, but there are none."])
    if len(numbers) in (61, 110):
        raise RecipeError(
            [f"{where}: supermerger's {len(numbers)} weights are not read."]
        )
    usual = "supermerger" if len(numbers) == 26 else "supermerger_sdxl"
    order = find_order(len(numbers), options.order, where, usual=usual)
    is_sdxl = order.is_sdxl or options.arch == "sdxl"
    return order.setting(numbers, is_sdxl=is_sdxl), is_sdxl

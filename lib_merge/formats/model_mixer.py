"""A merge of model-mixer: model A, then one model after another, each in its mode.

Sources of its meaning: `weights_alpha` holds a list a model, 26 (SDXL: 20) numbers
with the base first; the VAE is merged only where no block weights are used; time_embed,
label_emb and out follow the last block.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lib_merge.core.blocks import BlockId
from lib_merge.core.recipe import DEFAULT_COMPONENTS, Rule, Setting
from lib_merge.errors import RecipeError
from lib_merge.formats.elemental import read_elements
from lib_merge.formats.numbers import flag, number
from lib_merge.formats.orders import WHOLE, find_order

if TYPE_CHECKING:
    from lib_merge.formats.imported import Options
    from lib_merge.formats.webui import Step
    from lib_merge.formats.webui_models import Models

NOTE = (
    "model-mixer: time_embed, label_emb and out follow the last block; with block "
    "weights the VAE stays model A's."
)

_MAX_STEPS = 64
_LOOSE = ("TIME_EMBED", "LABEL_EMB", "OUT")


def inputs_of(data: Mapping[str, Any]) -> dict[str, object]:
    """The models that the merge uses, by their names in its metadata."""
    names: dict[str, object] = {"model_a": data.get("model_a")}
    for place in range(_n_steps(data)):
        name = _model(place)
        names[name] = data.get(name)
    if "Add-Diff" in _list(data, "mode"):
        names["base_model"] = data.get("base_model")
    return names


def _n_steps(data: Mapping[str, Any]) -> int:
    return min(len(_list(data, "mode")), _MAX_STEPS)


def _model(place: int) -> str:
    return f"model_{chr(ord('b') + place)}"


def _list(data: Mapping[str, Any], name: str) -> list[Any]:
    value = data.get(name)
    return value if isinstance(value, list) else []


def build(step: Step, models: Models, options: Options) -> int:
    """The last model's node.

    Raises:
        RecipeError: A mode that MergeLab does not have or numbers that it cannot read.
    """
    data = step.data
    n_steps = _n_steps(data)
    if not n_steps:
        raise RecipeError([f"{step.name}: model-mixer's 'mode' names no merge."])
    result = step.nodes["model_a"]
    for place in range(n_steps):
        result = _add(step, models, options, place, result)
    if str(data.get("adjust") or "").rstrip(",0"):
        models.note_unknown(
            f"{step.name} was adjusted by {data['adjust']!r:.60}, not repeated here."
        )
    models.note(NOTE)
    return result


def _add(step: Step, models: Models, options: Options, place: int, before: int) -> int:
    data = step.data
    where = f"{step.name}, {_model(place)}"
    calc = str(_at(data, "calcmode", place) or "Normal")
    if calc != "Normal":
        reason = (
            "leaves the UNet as it is, by a fault" if "Cosine" in calc else "differs"
        )
        raise RecipeError([f"{where}: the calculation {calc[:40]!r} {reason}."])
    alpha = _alpha(data, place, options, where)
    components = DEFAULT_COMPONENTS if _is_mbw(data, place) else WHOLE
    mode = str(_at(data, "mode", place))
    method, params = _method(mode, alpha, where)
    inputs = [before, step.nodes[_model(place)]]
    if method == "add_difference":
        inputs.append(step.nodes["base_model"])
    if mode.startswith(("DARE", "Dare")):
        models.note_unknown(f"{where}: {mode} draws values; other ones are drawn here.")
    return models.graph.merge(method, inputs, params, components)


def _at(data: Mapping[str, Any], name: str, place: int) -> Any:
    values = _list(data, name)
    return values[place] if place < len(values) else None


def _is_mbw(data: Mapping[str, Any], place: int) -> bool:
    return flag(_at(data, "use_mbws", place))


def _alpha(
    data: Mapping[str, Any], place: int, options: Options, where: str
) -> Setting:
    is_sdxl = options.arch == "sdxl"
    if not _is_mbw(data, place):
        setting = Setting(number(_at(data, "alpha", place), f"{where}, alpha"))
    else:
        given = _at(data, "weights_alpha", place)
        if not isinstance(given, list):
            raise RecipeError([f"{where}: block weights were on, but there are none."])
        numbers = [number(one, where) for one in given]
        usual = "supermerger" if len(numbers) == 26 else "supermerger_sdxl"
        order = find_order(len(numbers), options.order, where, usual=usual)
        is_sdxl = order.is_sdxl or is_sdxl
        setting = _loose_last(order.setting(numbers, is_sdxl=is_sdxl), is_sdxl=is_sdxl)
    text = _at(data, "elemental", place)
    if flag(_at(data, "use_elemental", place)) and isinstance(text, str):
        rules: tuple[Rule, ...] = read_elements(text, is_sdxl=is_sdxl, where=where)
        setting = Setting(setting.value, setting.blocks, rules)
    return setting


def _loose_last(setting: Setting, *, is_sdxl: bool) -> Setting:
    """What belongs to no block follows the last one."""
    values = {str(block): value for block, value in setting.blocks}
    last = values.get("OUT08" if is_sdxl else "OUT11", 0.0)
    for block in (*_LOOSE, "VAE"):
        values.pop(block, None)
    if last:
        values.update({b: last for b in _LOOSE if is_sdxl or b != "LABEL_EMB"})
    return Setting(0.0, tuple((BlockId(b), v) for b, v in values.items()))


def _method(
    mode: str, alpha: Setting, where: str
) -> tuple[str, list[tuple[str, Setting]]]:
    if mode == "Sum":
        return "weighted_sum", [("alpha", alpha)]
    if mode == "Add-Diff":
        return "add_difference", [("alpha", alpha)]
    if mode == "DARE":
        half = ("drop_rate", Setting(0.5))
        return "dare", [half, ("rescale", Setting(1.0)), ("lam", alpha)]
    if mode == "Dare-Fixed":
        params = [("drop_rate", _each(alpha, lambda v: 1.0 - v))]
        return "dare", [*params, ("rescale", Setting(0.0))]
    if mode == "TIES":
        return "ties", [("density", Setting(0.5)), ("lam", alpha)]
    if mode == "Ties-Fixed":
        is_on = _each(alpha, lambda v: 0.0 if v == 0.0 else 1.0)
        return "ties", [("density", alpha), ("lam", is_on)]
    raise RecipeError(
        [
            f"{where}: model-mixer's mode {mode[:40]!r} has no counterpart; those of "
            "Sum, Add-Diff, DARE and TIES are read."
        ]
    )


def _each(setting: Setting, change: Any) -> Setting:
    return Setting(
        change(setting.value),
        tuple((block, change(value)) for block, value in setting.blocks),
        tuple(Rule(change(r.value), r.blocks, r.pattern) for r in setting.rules),
    )

"""Block weights in sd-mecha's own blocks, whose labels hold other tensors than ours."""

from __future__ import annotations

from collections.abc import Sequence

from lib_merge.core.blocks import Component
from lib_merge.core.recipe import Setting
from lib_merge.errors import RecipeError
from lib_merge.formats.orders import ORDERS, Order

_TEXT = ("CLIP_L", "CLIP_G")


def block_line(
    setting: Setting, components: Sequence[Component], where: str
) -> tuple[str, str]:
    """The `dict` line of a setting, and the config that its names are of.

    Args:
        setting: Values by block.
        components: What is blended.
        where: For messages.

    Raises:
        RecipeError: Rules for layers; ranges; or blocks that share a label there and
            have different values here.
    """
    values = {str(block): value for block, value in setting.blocks}
    if setting.rules:
        raise RecipeError([f"{where}: sd-mecha's blocks know no rules for layers."])
    last = [block for block in values if block[-2:] in ("09", "10", "11")]
    is_sdxl = "LABEL_EMB" in values or not last
    order = next(o for o in ORDERS if o.id == ("mecha_sdxl" if is_sdxl else "mecha"))
    known = {*order.labels, *dict(order.also), *_TEXT}
    odd = [block for block in values if block not in known]
    if odd:
        raise RecipeError(
            [f"{where}: '{odd[0]}' is no block of sd-mecha's; name single blocks."]
        )
    for text in _TEXT:
        values.setdefault(text, values.get("BASE", setting.value))
    labels = {label: values.get(label, setting.value) for label in order.labels}
    labels["BASE"] = values["CLIP_L"]
    _check(values, labels, order, setting.value, components, where)
    pairs = " ".join(f"{label}={value!r}" for label, value in labels.items())
    config = "sdxl-supermerger_blocks" if is_sdxl else "sd1-supermerger_blocks"
    return f"dict {pairs}", config


def _check(
    values: dict[str, float],
    labels: dict[str, float],
    order: Order,
    default: float,
    components: Sequence[Component],
    where: str,
) -> None:
    pairs = [*order.also, ("CLIP_G", "BASE")] if order.is_sdxl else list(order.also)
    for block, label in pairs:
        is_idle = block == "VAE" and Component.VAE not in components
        if block == "LABEL_EMB" and not order.is_sdxl:
            continue
        value = values.get(block, default)
        if value != labels[label] and not is_idle:
            raise RecipeError(
                [
                    f"{where}: in sd-mecha {block} has the weight of {label}, but here "
                    f"they are {value:g} and {labels[label]:g}."
                ]
            )

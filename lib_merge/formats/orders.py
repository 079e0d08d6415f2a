"""Orders in which other programs write block weights without names.

A place of an order may stand for several of our blocks: BASE of one program holds the
time embedding, IN00 of another does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lib_merge.core import block_orders
from lib_merge.core.blocks import BlockId, Component
from lib_merge.core.recipe import DEFAULT_COMPONENTS, Setting
from lib_merge.errors import RecipeError

_IN = tuple(f"IN{i:02d}" for i in range(12))
_OUT = tuple(f"OUT{i:02d}" for i in range(12))
_SKIPPED = ("IN09", "IN10", "IN11", "OUT09", "OUT10", "OUT11")
"""Blocks of SD1 and SD2 that SDXL does not have."""

WHOLE = (*DEFAULT_COMPONENTS, Component.VAE)
"""Programs whose base weight drives the VAE, too."""

_UNET = (Component.UNET,)


@dataclass(frozen=True)
class Order:
    """One order.

    Attributes:
        id: Its permanent id, which --order takes.
        title: Where it is used.
        labels: The program's own names, in order.
        also: Our blocks that follow a label besides the one of its name.
        components: What its programs blend.
        is_sdxl: Whether it is of SDXL only.
    """

    id: str
    title: str
    labels: tuple[str, ...]
    also: tuple[tuple[str, str], ...] = ()
    components: tuple[Component, ...] = _UNET
    is_sdxl: bool = False

    def setting(self, numbers: Sequence[float], *, is_sdxl: bool) -> Setting:
        """The weights by our blocks; what the order does not name stays at model A.

        Args:
            numbers: As many as there are labels.
            is_sdxl: Whether the models are SDXL, which lacks some of SD1's blocks.
        """
        values = dict(zip(self.labels, numbers, strict=True))
        for block, label in self.also:
            values[block] = values[label]
        if is_sdxl:
            last = values.pop("OUT11", None) if not self.is_sdxl else None
            for block in _SKIPPED:
                values.pop(block, None)
            # Programs that have OUT follow the last block follow SDXL's own last one.
            if last is not None and "OUT" in dict(self.also):
                values["OUT"] = values["OUT08"]
        else:
            values.pop("LABEL_EMB", None)
        pairs = [(BlockId(k), v) for k, v in values.items() if v != 0.0]
        return Setting(0.0, tuple(sorted(pairs, key=lambda p: _rank(p[0]))))


def _rank(block: str) -> int:
    order = ("BASE", "VAE", "TIME_EMBED", "LABEL_EMB", *_IN, "M00", *_OUT, "OUT")
    return order.index(block) if block in order else len(order)


_SUPERMERGER = (("TIME_EMBED", "IN00"), ("LABEL_EMB", "IN00"), ("OUT", "OUT11"))
_MECHA = (("TIME_EMBED", "BASE"), ("LABEL_EMB", "BASE"), ("OUT", "OUT11"))
_XL_IN, _XL_OUT = _IN[:9], _OUT[:9]

ORDERS = (
    Order(
        "autombw_csv",
        "AutoMBW's CSV columns and its box of natural order: OUT after M00",
        block_orders.CSV_ORDER,
    ),
    Order(
        "autombw_recipe",
        "AutoMBW's recipe.txt and sd_mbwrt_recipe: OUT, then TIME_EMBED at the end",
        block_orders.RECIPE_TXT_ORDER,
    ),
    Order(
        "rbm_sliders",
        "the first runtime-block-merge: TIME_EMBED, then OUT at the end",
        block_orders.OLD_PAGE_ORDER,
    ),
    Order(
        "supermerger",
        "supermerger and model-mixer, base first: time_embed with IN00, out with OUT11",
        ("BASE", *_IN, "M00", *_OUT),
        (*_SUPERMERGER, ("VAE", "BASE")),
        WHOLE,
    ),
    Order(
        "mecha",
        "sd-mecha's supermerger_blocks, base first: time_embed with BASE",
        ("BASE", *_IN, "M00", *_OUT),
        (*_MECHA, ("VAE", "BASE")),
        WHOLE,
    ),
    Order(
        "meh",
        "meh and bayesian-merger, 25 blocks and base_alpha at the end",
        (*_IN, "M00", *_OUT, "BASE"),
        (("TIME_EMBED", "IN00"), ("OUT", "OUT11"), ("VAE", "BASE")),
        WHOLE,
    ),
    Order(
        "mbw25",
        "merge-block-weighted presets without base: time_embed with IN00, out with "
        "OUT11",
        (*_IN, "M00", *_OUT),
        _SUPERMERGER,
    ),
    Order(
        "supermerger_sdxl",
        "supermerger and model-mixer on SDXL, base first: time_embed and label_emb "
        "with IN00, out with OUT08",
        ("BASE", *_XL_IN, "M00", *_XL_OUT),
        (
            ("TIME_EMBED", "IN00"),
            ("LABEL_EMB", "IN00"),
            ("OUT", "OUT08"),
            ("VAE", "BASE"),
        ),
        WHOLE,
        is_sdxl=True,
    ),
    Order(
        "mecha_sdxl",
        "sd-mecha's supermerger_blocks on SDXL: base first, VAE last",
        ("BASE", *_XL_IN, "M00", *_XL_OUT, "VAE"),
        (("TIME_EMBED", "BASE"), ("LABEL_EMB", "BASE"), ("OUT", "OUT08")),
        WHOLE,
        is_sdxl=True,
    ),
    Order(
        "lora17",
        "LoRA block weights: BASE, then the blocks with attention",
        (
            "BASE",
            *(f"IN{i:02d}" for i in (1, 2, 4, 5, 7, 8)),
            "M00",
            *_OUT[3:],
        ),
        (),
        DEFAULT_COMPONENTS,
    ),
)


def find_order(
    n_numbers: int, order: str | None, where: str, *, usual: str | None = None
) -> Order:
    """The order of so many numbers.

    Args:
        n_numbers: How many there are.
        order: The id that the user gave, or None.
        where: For messages.
        usual: The order that the kind of file leaves no doubt of, if it fits.

    Raises:
        RecipeError: No order has so many numbers; the given one does not; or several
            do and none was given.
    """
    fitting = [o for o in ORDERS if len(o.labels) == n_numbers]
    listed = "; ".join(f"{o.id} ({o.title})" for o in fitting)
    if order is not None:
        chosen = next((o for o in ORDERS if o.id == order), None)
        if chosen is None:
            known = ", ".join(o.id for o in ORDERS)
            raise RecipeError([f"There is no order '{order}'; known: {known}."])
        if chosen not in fitting:
            raise RecipeError(
                [
                    f"{where}: the order {order} has {len(chosen.labels)} numbers, but "
                    f"there are {n_numbers}. Orders of {n_numbers}: {listed or 'none'}."
                ]
            )
        return chosen
    for one in fitting:
        if one.id == usual or len(fitting) == 1:
            return one
    if not fitting:
        counts = sorted({len(o.labels) for o in ORDERS})
        raise RecipeError(
            [
                f"{where}: {n_numbers} block weights are in no order that MergeLab "
                f"knows; it reads {', '.join(map(str, counts))} numbers."
            ]
        )
    raise RecipeError(
        [
            f"{where}: {n_numbers} block weights come in {len(fitting)} orders, which "
            f"give different models. Say which with --order: {listed}."
        ]
    )


def split_weights(text: str, where: str) -> list[float]:
    """Numbers with commas, semicolons or blanks between.

    Raises:
        RecipeError: Something is no finite number.
    """
    found = []
    for part in text.replace(",", " ").replace(";", " ").split():
        try:
            number = float(part)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise RecipeError([f"{where}: '{part:.40}' is no number; write e.g. 0.5."])
        found.append(number)
    return found

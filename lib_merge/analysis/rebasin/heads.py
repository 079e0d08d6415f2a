"""How many heads an attention layer has, which a checkpoint does not say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lib_merge.core.blocks import Component
from lib_merge.errors import CheckpointError, InputError


@dataclass(frozen=True)
class HeadRule:
    """A number of heads, or a size of each of them; the other follows.

    Attributes:
        n_heads: How many, whatever the width; 0 where the size is fixed.
        size: Features of one; 0 where the number is fixed.
    """

    n_heads: int = 0
    size: int = 0

    def count(self, width: int, key: str) -> int:
        """Heads of a layer with so many features.

        Raises:
            CheckpointError: They are no whole number of heads.
        """
        n_heads = self.n_heads or width // self.size
        if n_heads == 0 or width % n_heads or (self.size and width % self.size):
            text = f"{self.n_heads} heads" if self.n_heads else f"heads of {self.size}"
            raise CheckpointError(
                f"'{key}' has {width} features, which are no {text}; say how many "
                "heads it has (--heads unet=8)."
            )
        return n_heads


UNET_RULES: Mapping[str, HeadRule] = {
    # v1-inference.yaml (CompVis): num_heads 8; sd_xl_base.yaml (Stability AI):
    # num_head_channels 64.
    "sd1": HeadRule(n_heads=8),
    "sdxl": HeadRule(size=64),
}

TEXT_WIDTHS: Mapping[Component, tuple[int, int]] = {
    # Width and heads of CLIP ViT-L/14 (OpenAI) and ViT-bigG/14 (OpenCLIP).
    Component.CLIP_L: (768, 12),
    Component.CLIP_G: (1280, 20),
}


def text_rule(
    component: Component, width: int, given: Mapping[Component, int]
) -> HeadRule | None:
    """The heads of a text encoder, or None where they are not known.

    Args:
        component: Which text encoder.
        width: Its features.
        given: Numbers of heads that the user names.
    """
    if component in given:
        return HeadRule(n_heads=given[component])
    usual, n_heads = TEXT_WIDTHS[component]
    return HeadRule(n_heads=n_heads) if width == usual else None


def read_heads(text: str | None) -> dict[Component, int]:
    """Numbers of heads as "unet=8,clip_l=4".

    Raises:
        InputError: A part is no component and number.
    """
    found: dict[Component, int] = {}
    known = [Component.UNET.value, *(c.value for c in TEXT_WIDTHS)]
    for part in (p.strip() for p in (text or "").split(",") if p.strip()):
        name, _, number = (field.strip().lower() for field in part.partition("="))
        if name not in known or not number.isdecimal() or int(number) < 1:
            raise InputError(
                f"--heads: '{part}' is no number of heads; write {known[0]}=8 or "
                f"{known[1]}=12 (known: {', '.join(known)})."
            )
        found[Component(name)] = int(number)
    return found

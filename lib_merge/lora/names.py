"""Takes tensor names of LoRA files apart: family, module, and the part it plays.

Three ways of writing are read. Kohya's trainer and LyCORIS flatten the module's name
(`lora_unet_down_blocks_0_...`); diffusers and PEFT keep its dots
(`unet.down_blocks.0....lora_A.weight`); ComfyUI writes the checkpoint's own names
(`diffusion_model.double_blocks.0....`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from lib_merge.lora.targets import TE1, TE2, TE3, UNET

UP, DOWN, MID, ALPHA = "up", "down", "mid", "alpha"
DORA, MAGNITUDE = "dora_scale", "magnitude"
"""DoRA's lengths: by LyCORIS of rows or columns, as the shape says; by PEFT of rows."""

_ROLES: dict[str, str] = {
    "lora_up.weight": UP,
    "lora_down.weight": DOWN,
    "lora_mid.weight": MID,
    "lora.up.weight": UP,
    "lora.down.weight": DOWN,
    "lora_linear_layer.up.weight": UP,
    "lora_linear_layer.down.weight": DOWN,
    "lora_B.weight": UP,
    "lora_A.weight": DOWN,
    "alpha": ALPHA,
    "dora_scale": DORA,
    "lora_magnitude_vector": MAGNITUDE,
    "lora_magnitude_vector.weight": MAGNITUDE,
    "a1.weight": "a1",
    "a2.weight": "a2",
    "b1.weight": "b1",
    "b2.weight": "b2",
    "bm.weight": "bm",
    "oft_blocks": "oft_blocks",
    "rescale": "rescale",
    "diff": "diff",
    "diff_b": "diff_b",
    "w_norm": "w_norm",
    "b_norm": "b_norm",
}
_ROLES |= {
    name: name
    for name in (
        *("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2"),
        *("lokr_w1", "lokr_w1_a", "lokr_w1_b"),
        *("lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2"),
    )
}
_SUFFIX = re.compile(
    r"(?P<stem>.+?)\.(?P<suffix>"
    + "|".join(sorted(map(re.escape, _ROLES), key=len, reverse=True))
    + r")"
)
_ADAPTER = re.compile(r"\.(lora_A|lora_B|lora_magnitude_vector)\.[^.]+(\.weight)?$")
"""PEFT puts the adapter's name ("default") in the middle."""

_PROCESSOR = re.compile(
    r"(?P<stem>.+?)(?:\.processor)?\.(?P<part>to_[qkv]|to_out)_lora\."
    r"(?P<side>up|down)\.weight"
)
_OLD_TEXT = {"to_q": "q_proj", "to_k": "k_proj", "to_v": "v_proj", "to_out": "out_proj"}
_OLD_UNET = {"to_out": "to_out.0"}

_PREFIXES: tuple[tuple[str, str], ...] = (
    ("lora_unet_", UNET),
    ("lora_transformer_", UNET),
    ("lora_te1_", TE1),
    ("lora_te2_", TE2),
    ("lora_te3_", TE3),
    ("lora_te_", TE1),
    ("lora_text_encoder_", TE1),
    ("unet.", UNET),
    ("transformer.", UNET),
    ("model.diffusion_model.", UNET),
    ("diffusion_model.", UNET),
    ("text_encoder_2.", TE2),
    ("text_encoder_3.", TE3),
    ("text_encoder.", TE1),
    ("lycoris_unet_", UNET),
    ("lycoris_", ""),
)


@dataclass(frozen=True)
class TensorName:
    """A tensor's name, taken apart.

    Attributes:
        module: The module as the file names it.
        role: What the tensor is for the module: up, down, alpha, hada_w1_a ...
        family: unet, te1, te2, te3; "" where the name does not say.
        flat: The module's own name, flattened.
    """

    module: str
    role: str
    family: str
    flat: str


def take_apart(name: str) -> TensorName | None:
    """A tensor's name, or None where it is none of a LoRA's."""
    old = _PROCESSOR.fullmatch(name)
    if old:
        is_text = ".self_attn" in old["stem"]
        part = (_OLD_TEXT if is_text else _OLD_UNET).get(old["part"], old["part"])
        return _named(f"{old['stem']}.{part}", UP if old["side"] == "up" else DOWN)
    plain = _ADAPTER.sub(r".\1.weight", name)
    found = _SUFFIX.fullmatch(plain)
    if found is None:
        return None
    return _named(found["stem"], _ROLES[found["suffix"]])


def _named(module: str, role: str) -> TensorName:
    rest = module.removeprefix("base_model.model.")
    for prefix, family in _PREFIXES:
        if rest.startswith(prefix):
            return TensorName(module, role, family, _flat(rest[len(prefix) :]))
    return TensorName(module, role, "", _flat(rest))


def _flat(dotted: str) -> str:
    return dotted.replace(".", "_")

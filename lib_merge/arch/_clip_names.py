"""OpenCLIP's names of a text encoder against those of transformers.

Source: `clip_text_transformers_convert` of ComfyUI and `convert_open_clip_checkpoint`
of diffusers: the same layers, q, k and v fused in one tensor, and a text projection
that multiplies from the other side.
"""

from __future__ import annotations

from collections.abc import Iterator

from lib_merge.core.naming import How, Rule

_LAYER = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
    "attn.out_proj": "self_attn.out_proj",
}
_TOP = {
    "positional_embedding": "embeddings.position_embedding.weight",
    "token_embedding.weight": "embeddings.token_embedding.weight",
    "ln_final.weight": "final_layer_norm.weight",
    "ln_final.bias": "final_layer_norm.bias",
}


def open_clip_rules(n_layers: int) -> Iterator[Rule]:
    """The rules of a whole encoder; stored names with and without `text_model.`.

    Args:
        n_layers: So many layers have a counterpart.
    """
    for lead in ("text_model.", ""):
        for key, stored in _TOP.items():
            yield Rule(f"model.{key}", (f"{lead}{stored}",))
        for layer in range(n_layers):
            yield from _layer_rules(layer, lead)
    yield Rule("model.text_projection", ("text_projection.weight",), how=How.TRANSPOSED)


def _layer_rules(layer: int, lead: str) -> Iterator[Rule]:
    old = f"model.transformer.resblocks.{layer}."
    new = f"{lead}encoder.layers.{layer}."
    for end in ("weight", "bias"):
        for key, stored in _LAYER.items():
            yield Rule(f"{old}{key}.{end}", (f"{new}{stored}.{end}",))
        fused = tuple(f"{new}self_attn.{part}_proj.{end}" for part in "qkv")
        yield Rule(f"{old}attn.in_proj_{end}", fused, (1, 1, 1))

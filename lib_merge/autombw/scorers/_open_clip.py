"""CLIP weights under open_clip's names, as transformers' CLIPModel."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lib_merge.errors import ScorerError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_HEAD_WIDTHS = {1280: 80, 1408: 88, 1664: 104}
"""Width of an attention head where it is not 64: ViT-H, ViT-g and ViT-bigG."""

_LAYER = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
_PLAIN = {
    "logit_scale": "logit_scale",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final.weight": "text_model.final_layer_norm.weight",
    "ln_final.bias": "text_model.final_layer_norm.bias",
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.ln_pre.weight": "vision_model.pre_layrnorm.weight",
    "visual.ln_pre.bias": "vision_model.pre_layrnorm.bias",
    "visual.ln_post.weight": "vision_model.post_layernorm.weight",
    "visual.ln_post.bias": "vision_model.post_layernorm.bias",
}
_TURNED = {
    "visual.proj": "visual_projection.weight",
    "text_projection": "text_projection.weight",
}
_BLOCK = re.compile(r"^(visual\.)?transformer\.resblocks\.(\d+)\.(.+)\.(weight|bias)$")
_FUSED = re.compile(r"^(visual\.)?transformer\.resblocks\.(\d+)\.attn\.in_proj_(\w+)$")


def to_transformers(state: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """The same tensors under transformers' names.

    Raises:
        ScorerError: A name that open_clip's CLIP does not have.
    """
    renamed: dict[str, Tensor] = {}
    for key, value in state.items():
        block, fused = _BLOCK.match(key), _FUSED.match(key)
        if key in _PLAIN:
            renamed[_PLAIN[key]] = value
        elif key in _TURNED:
            renamed[_TURNED[key]] = value.T.contiguous()
        elif fused:
            shares = value.chunk(3, dim=0)
            for name, share in zip("qkv", shares, strict=True):
                target = f"{_layer(fused)}.self_attn.{name}_proj.{fused[3]}"
                renamed[target] = share.clone()
        elif block and block[3] in _LAYER:
            renamed[f"{_layer(block)}.{_LAYER[block[3]]}.{block[4]}"] = value
        elif key != "attn_mask":
            raise ScorerError(
                f"{where} holds '{key}', which is not part of a CLIP in open_clip's "
                "names; choose HPS_v2_compressed.pt, HPS_v2.1_compressed.pt or alike."
            )
    return renamed


def _layer(found: re.Match[str]) -> str:
    side = "vision_model" if found[1] else "text_model"
    return f"{side}.encoder.layers.{found[2]}"


def build_clip(state: Mapping[str, Tensor], where: str) -> torch.nn.Module:
    """transformers' CLIPModel with an open_clip state dict, sizes read from it.

    Raises:
        ScorerError: It is not a CLIP's, or incomplete.
    """
    import transformers

    renamed = to_transformers(state, where)
    try:
        config = transformers.CLIPConfig(**_sizes(renamed))
        model: torch.nn.Module = transformers.CLIPModel(config)
        left_out = model.load_state_dict(renamed, strict=False)
    except (KeyError, IndexError, RuntimeError) as error:
        raise ScorerError(
            f"{where} is not a whole CLIP in open_clip's names: {error}. Download it "
            "again."
        ) from error
    missing = [k for k in left_out.missing_keys if not k.endswith("position_ids")]
    if missing or left_out.unexpected_keys:
        raise ScorerError(
            f"{where} does not fit a CLIP: missing {missing[:3]}, unknown "
            f"{left_out.unexpected_keys[:3]}. Download it again."
        )
    return model.eval()


def _sizes(state: Mapping[str, Tensor]) -> dict[str, Any]:
    patches = state["vision_model.embeddings.patch_embedding.weight"]
    places = state["vision_model.embeddings.position_embedding.weight"]
    words = state["text_model.embeddings.token_embedding.weight"]
    side = round((places.shape[0] - 1) ** 0.5) * patches.shape[-1]
    vision = _tower(state, "vision_model", patches.shape[0])
    text = _tower(state, "text_model", words.shape[1])
    n_words = words.shape[0]
    text |= {
        "vocab_size": n_words,
        "max_position_embeddings": state[
            "text_model.embeddings.position_embedding.weight"
        ].shape[0],
        "bos_token_id": n_words - 2,
        "eos_token_id": n_words - 1,
    }
    vision |= {"image_size": side, "patch_size": patches.shape[-1]}
    width = state["visual_projection.weight"].shape[0]
    return {"text_config": text, "vision_config": vision, "projection_dim": width}


def _tower(state: Mapping[str, Tensor], side: str, width: int) -> dict[str, Any]:
    layers = [k for k in state if k.startswith(f"{side}.encoder.layers.")]
    head = _HEAD_WIDTHS.get(width, 64)
    return {
        "hidden_size": width,
        "intermediate_size": state[f"{side}.encoder.layers.0.mlp.fc1.weight"].shape[0],
        "num_hidden_layers": 1 + max(int(k.split(".")[3]) for k in layers),
        "num_attention_heads": max(1, width // head),
        "hidden_act": "gelu",
        "projection_dim": state["visual_projection.weight"].shape[0],
    }

"""Prompts for a diffusers call: as texts, or read by an earlier layer (clip skip)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def prompt_arguments(
    pipe: Any, prompts: Sequence[str], negatives: Sequence[str], clip_skip: int
) -> dict[str, Any]:
    """The arguments that tell a pipeline its prompts.

    Args:
        pipe: A Stable Diffusion pipeline.
        prompts: One a picture.
        negatives: One a picture.
        clip_skip: Which layer of the text encoder is read, the last one being 1, as
            WebUIs count; 0 is 1. They leave SDXL's two encoders alone, and so do we.
    """
    is_xl = getattr(pipe, "text_encoder_2", None) is not None
    if clip_skip < 2 or is_xl:
        return {"prompt": list(prompts), "negative_prompt": list(negatives)}
    # diffusers' own clip_skip looks for a part that transformers 5 does not have.
    return {
        "prompt_embeds": _read(pipe, prompts, clip_skip),
        "negative_prompt_embeds": _read(pipe, negatives, clip_skip),
    }


def _read(pipe: Any, texts: Sequence[str], clip_skip: int) -> Any:
    tokens = pipe.tokenizer(
        list(texts),
        padding="max_length",
        max_length=pipe.tokenizer.model_max_length,
        truncation=True,
        return_tensors="pt",
    )
    encoder = pipe.text_encoder
    ids = tokens.input_ids.to(encoder.device)
    layers = encoder(ids, output_hidden_states=True).hidden_states
    inner = getattr(encoder, "text_model", encoder)
    return inner.final_layer_norm(layers[-min(clip_skip, len(layers) - 1)])

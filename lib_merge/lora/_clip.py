"""Names of the text encoders' modules: CLIP as Hugging Face and OpenCLIP lay it out."""

from __future__ import annotations

from collections.abc import Iterator

from lib_merge.lora.targets import Name, Rows, Target, layer

_THIRDS = {"q": Rows(0, 1, 3), "k": Rows(1, 2, 3), "v": Rows(2, 3, 3)}


def clip_names(family: str, stored: str, n_layers: int) -> Iterator[Name]:
    """Names of an encoder that the checkpoint stores as Hugging Face does.

    Args:
        family: te1 or te2.
        stored: What its keys begin with, up to and with "text_model.".
        n_layers: Of the transformer.
    """
    parts = [
        *(f"self_attn.{part}_proj" for part in ("q", "k", "v", "out")),
        *("mlp.fc1", "mlp.fc2", "layer_norm1", "layer_norm2"),
    ]
    modules = [f"encoder.layers.{n}.{part}" for n in range(n_layers) for part in parts]
    modules += ["final_layer_norm"]
    for module in modules:
        target = layer(f"{stored}{module}")
        yield Name(family, f"text_model.{module}", target, is_own=True)
        yield Name(family, module, target)
    for module in ("embeddings.token_embedding", "embeddings.position_embedding"):
        target = Target(f"{stored}{module}.weight")
        yield Name(family, f"text_model.{module}", target, is_own=True)


def open_clip_names(family: str, stored: str, n_layers: int) -> Iterator[Name]:
    """Names of an encoder that the checkpoint stores as OpenCLIP does.

    Trainers work on the Hugging Face form: there query, key and value are tensors of
    their own, and the text projection has its axes swapped.

    Args:
        family: te1 or te2.
        stored: What its keys begin with, up to and with "model.".
        n_layers: Of the transformer.
    """
    for number in range(n_layers):
        theirs = f"text_model.encoder.layers.{number}."
        ours = f"{stored}transformer.resblocks.{number}."
        for part, rows in _THIRDS.items():
            target = Target(
                f"{ours}attn.in_proj_weight", f"{ours}attn.in_proj_bias", rows
            )
            yield Name(family, f"{theirs}self_attn.{part}_proj", target, is_own=True)
        for name, module in (
            ("self_attn.out_proj", "attn.out_proj"),
            ("mlp.fc1", "mlp.c_fc"),
            ("mlp.fc2", "mlp.c_proj"),
            ("layer_norm1", "ln_1"),
            ("layer_norm2", "ln_2"),
        ):
            yield Name(family, theirs + name, layer(ours + module), is_own=True)
    for name, target in (
        ("text_model.final_layer_norm", layer(f"{stored}ln_final")),
        (
            "text_projection",
            Target(f"{stored}text_projection", is_transposed=True),
        ),
        (
            "text_model.embeddings.token_embedding",
            Target(f"{stored}token_embedding.weight"),
        ),
        (
            "text_model.embeddings.position_embedding",
            Target(f"{stored}positional_embedding"),
        ),
    ):
        yield Name(family, name, target, is_own=True)

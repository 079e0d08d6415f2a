"""LoRA files for tests, and their changes by plain formulas in float64."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

UNET = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_"
TO_Q = UNET + "attn1_to_q"
TO_K2 = UNET + "attn2_to_k"
CONV = "lora_unet_down_blocks_0_resnets_0_conv1"
TEXT = "lora_te_text_model_encoder_layers_0_mlp_fc1"

TO_Q_KEY = (
    "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_q.weight"
)
TO_K2_KEY = TO_Q_KEY.replace("attn1.to_q", "attn2.to_k")
CONV_KEY = "model.diffusion_model.input_blocks.1.0.in_layers.2.weight"
TEXT_KEY = "cond_stage_model.transformer.text_model.encoder.layers.0.mlp.fc1.weight"
KEY_OF = {TO_Q: TO_Q_KEY, TO_K2: TO_K2_KEY, CONV: CONV_KEY, TEXT: TEXT_KEY}


def draw(seed: int, *shape: int, scale: float = 0.3) -> Tensor:
    """Normal values in float32."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * scale


def module(
    kind: str, name: str, shape: tuple[int, ...], *, rank: int = 4, seed: int = 0
) -> dict[str, Tensor]:
    """The tensors of a module of a kind for a weight of a shape."""
    maker = _MAKERS[kind]
    return {f"{name}.{part}": t for part, t in maker(shape, rank, seed).items()}


def save(path: Path, *modules: dict[str, Tensor], **metadata: str) -> Path:
    """A file of some modules."""
    tensors = {name: t.contiguous() for part in modules for name, t in part.items()}
    save_file(tensors, str(path), metadata=metadata or None)
    return path


def _lora(shape: tuple[int, ...], rank: int, seed: int) -> dict[str, Tensor]:
    ones = (1,) * (len(shape) - 2)
    return {
        "lora_up.weight": draw(seed, shape[0], rank, *ones),
        "lora_down.weight": draw(seed + 1, rank, *shape[1:]),
        "alpha": torch.tensor(float(rank) / 2),
    }


def _locon_tucker(shape: tuple[int, ...], rank: int, seed: int) -> dict[str, Tensor]:
    return {
        "lora_up.weight": draw(seed, shape[0], rank, 1, 1),
        "lora_mid.weight": draw(seed + 2, rank, rank, *shape[2:]),
        "lora_down.weight": draw(seed + 1, rank, shape[1], 1, 1),
        "alpha": torch.tensor(3.0),
    }


def _flat(shape: tuple[int, ...]) -> int:
    n = 1
    for side in shape[1:]:
        n *= side
    return n


def _loha(shape: tuple[int, ...], rank: int, seed: int) -> dict[str, Tensor]:
    return {
        "hada_w1_a": draw(seed, shape[0], rank),
        "hada_w1_b": draw(seed + 1, rank, _flat(shape)),
        "hada_w2_a": draw(seed + 2, shape[0], rank),
        "hada_w2_b": draw(seed + 3, rank, _flat(shape)),
        "alpha": torch.tensor(1.5),
    }


def _loha_tucker(shape: tuple[int, ...], rank: int, seed: int) -> dict[str, Tensor]:
    return {
        "hada_t1": draw(seed + 4, rank, rank, *shape[2:]),
        "hada_w1_a": draw(seed, rank, shape[0]),
        "hada_w1_b": draw(seed + 1, rank, shape[1]),
        "hada_t2": draw(seed + 5, rank, rank, *shape[2:]),
        "hada_w2_a": draw(seed + 2, rank, shape[0]),
        "hada_w2_b": draw(seed + 3, rank, shape[1]),
        "alpha": torch.tensor(2.0),
    }


def _split(side: int) -> tuple[int, int]:
    small = next(n for n in (2, 3, 5, 1) if side % n == 0)
    return small, side // small


def _lokr_full(shape: tuple[int, ...], rank: int, seed: int) -> dict[str, Tensor]:
    (o1, o2), (i1, i2) = _split(shape[0]), _split(shape[1])
    return {
        "lokr_w1": draw(seed, o1, i1),
        "lokr_w2": draw(seed + 1, o2, i2, *shape[2:]),
        "alpha": torch.tensor(99.0),
    }


def _lokr(shape: tuple[int, ...], rank: int, seed: int) -> dict[str, Tensor]:
    (o1, o2), (i1, i2) = _split(shape[0]), _split(shape[1])
    return {
        "lokr_w1": draw(seed, o1, i1),
        "lokr_w2_a": draw(seed + 1, o2, rank),
        "lokr_w2_b": draw(seed + 2, rank, _flat((1, i2, *shape[2:]))),
        "alpha": torch.tensor(float(rank) * 0.75),
    }


def _lokr_both(shape: tuple[int, ...], rank: int, seed: int) -> dict[str, Tensor]:
    (o1, _), (i1, _) = _split(shape[0]), _split(shape[1])
    found = _lokr(shape, rank, seed)
    del found["lokr_w1"]
    return found | {
        "lokr_w1_a": draw(seed + 3, o1, rank),
        "lokr_w1_b": draw(seed + 4, rank, i1),
    }


def _lokr_tucker(shape: tuple[int, ...], rank: int, seed: int) -> dict[str, Tensor]:
    (o1, o2), (i1, i2) = _split(shape[0]), _split(shape[1])
    return {
        "lokr_w1": draw(seed, o1, i1),
        "lokr_t2": draw(seed + 3, rank, rank, *shape[2:]),
        "lokr_w2_a": draw(seed + 1, rank, o2),
        "lokr_w2_b": draw(seed + 2, rank, i2),
        "alpha": torch.tensor(2.0),
    }


def _glora(shape: tuple[int, ...], rank: int, seed: int) -> dict[str, Tensor]:
    ones = (1,) * (len(shape) - 2)
    return {
        "a1.weight": draw(seed, shape[1], rank, *ones),
        "a2.weight": draw(seed + 1, rank, shape[1], *ones),
        "b1.weight": draw(seed + 2, shape[0], rank, *ones),
        "b2.weight": draw(seed + 3, rank, *shape[1:]),
        "alpha": torch.tensor(3.0),
    }


def _glora_old(shape: tuple[int, ...], rank: int, seed: int) -> dict[str, Tensor]:
    new = _glora(shape, rank, seed)
    return {
        "a1.weight": new["a2.weight"],
        "a2.weight": new["a1.weight"],
        "b1.weight": new["b2.weight"],
        "b2.weight": new["b1.weight"],
        "alpha": new["alpha"],
    }


def _dora(shape: tuple[int, ...], rank: int, seed: int) -> dict[str, Tensor]:
    ones = (1,) * (len(shape) - 1)
    return _lora(shape, rank, seed) | {
        "dora_scale": draw(seed + 7, shape[0], *ones).abs() + 0.5
    }


def _dora_in(shape: tuple[int, ...], rank: int, seed: int) -> dict[str, Tensor]:
    ones = (1,) * (len(shape) - 2)
    return _loha(shape, rank, seed) | {
        "dora_scale": draw(seed + 7, 1, shape[1], *ones).abs() + 0.5
    }


def _oft(shape: tuple[int, ...], rank: int, seed: int) -> dict[str, Tensor]:
    n_blocks, side = _split(shape[0])
    return {
        "oft_blocks": draw(seed, n_blocks, side, side),
        "rescale": draw(seed + 1, shape[0], *(1,) * (len(shape) - 1)).abs() + 0.5,
        "alpha": torch.tensor(0.1),
    }


def _boft(shape: tuple[int, ...], rank: int, seed: int) -> dict[str, Tensor]:
    side = 2
    n_blocks = shape[0] // side
    n_stages = max(1, n_blocks.bit_length() - 1) + 1 if n_blocks % 2 == 0 else 1
    return {
        "oft_blocks": draw(seed, n_stages, n_blocks, side, side),
        "alpha": torch.tensor(0.0),
    }


def _full(shape: tuple[int, ...], rank: int, seed: int) -> dict[str, Tensor]:
    return {"diff": draw(seed, *shape)}


_MAKERS = {
    "lora": _lora,
    "locon_tucker": _locon_tucker,
    "loha": _loha,
    "loha_tucker": _loha_tucker,
    "lokr_full": _lokr_full,
    "lokr": _lokr,
    "lokr_both": _lokr_both,
    "lokr_tucker": _lokr_tucker,
    "glora": _glora,
    "glora_old": _glora_old,
    "dora": _dora,
    "dora_in": _dora_in,
    "oft": _oft,
    "boft": _boft,
    "full": _full,
}
LINEAR_KINDS = (
    *("lora", "loha", "lokr_full", "lokr", "lokr_both", "glora", "glora_old"),
    *("dora", "dora_in", "oft", "boft", "full"),
)
CONV_KINDS = (*LINEAR_KINDS, "locon_tucker", "loha_tucker", "lokr_tucker")


def change_of(kind: str, parts: dict[str, Tensor], base: Tensor) -> Tensor:
    """The change of a module by plain formulas, float64, in the base's shape.

    Args:
        kind: As for `module`.
        parts: Its tensors by part, without the module's name.
        base: The weight.
    """
    p = {name: t.double() for name, t in parts.items()}
    base = base.double()
    alpha = float(p["alpha"]) if "alpha" in p else None
    found = _FORMULAS[kind](p, base, alpha)
    return found.reshape(base.shape)


def _product(p: dict[str, Tensor], alpha: float | None) -> Tensor:
    up, down = p["lora_up.weight"].flatten(1), p["lora_down.weight"].flatten(1)
    rank = up.shape[1]
    return sum(torch.outer(up[:, r], down[r]) for r in range(rank)) * (
        1.0 if alpha is None else alpha / rank
    )


def _f_lora(p, base, alpha):
    return _product(p, alpha)


def _f_tucker(p, base, alpha):
    up, down = p["lora_up.weight"][:, :, 0, 0], p["lora_down.weight"][:, :, 0, 0]
    return torch.einsum("op,pqhw,qi->oihw", up, p["lora_mid.weight"], down) * (
        alpha / up.shape[1]
    )


def _f_loha(p, base, alpha):
    one = p["hada_w1_a"] @ p["hada_w1_b"]
    two = p["hada_w2_a"] @ p["hada_w2_b"]
    return one * two * (alpha / p["hada_w1_b"].shape[0])


def _f_loha_tucker(p, base, alpha):
    one, two = (
        torch.einsum("pqhw,po,qi->oihw", p[f"hada_t{n}"], a, b)
        for n, a, b in (
            (1, p["hada_w1_a"], p["hada_w1_b"]),
            (2, p["hada_w2_a"], p["hada_w2_b"]),
        )
    )
    return one * two * (alpha / p["hada_w1_b"].shape[0])


def _kron(one, two):
    for _ in range(two.dim() - one.dim()):
        one = one.unsqueeze(-1)
    return torch.kron(one.contiguous(), two.contiguous())


def _f_lokr_full(p, base, alpha):
    return _kron(p["lokr_w1"], p["lokr_w2"])


def _f_lokr(p, base, alpha):
    one = p["lokr_w1"] if "lokr_w1" in p else p["lokr_w1_a"] @ p["lokr_w1_b"]
    two = p["lokr_w2_a"] @ p["lokr_w2_b"]
    i2 = base.shape[1] // one.shape[1]
    two = two.reshape(two.shape[0], i2, *base.shape[2:])
    return _kron(one, two) * (alpha / p["lokr_w2_b"].shape[0])


def _f_lokr_tucker(p, base, alpha):
    two = torch.einsum("pqhw,po,qi->oihw", p["lokr_t2"], p["lokr_w2_a"], p["lokr_w2_b"])
    return _kron(p["lokr_w1"], two) * (alpha / p["lokr_w2_b"].shape[0])


def _f_glora(p, base, alpha):
    rank = p["a2.weight"].shape[0]
    a = p["a1.weight"].flatten(1) @ p["a2.weight"].flatten(1)
    b = (p["b1.weight"].flatten(1) @ p["b2.weight"].flatten(1)).reshape(base.shape)
    return (torch.einsum("oi...,ij->oj...", base, a) + b) * (alpha / rank)


def _f_glora_old(p, base, alpha):
    swapped = {
        "a1.weight": p["a2.weight"],
        "a2.weight": p["a1.weight"],
        "b1.weight": p["b2.weight"],
        "b2.weight": p["b1.weight"],
    }
    return _f_glora(swapped, base, alpha)


def _f_dora(p, base, alpha):
    weight = base + _product(p, alpha).reshape(base.shape)
    rows = [
        row * m / row.norm() for row, m in zip(weight, p["dora_scale"], strict=True)
    ]
    return torch.stack(rows) - base


def _f_dora_in(p, base, alpha):
    weight = base + _f_loha(p, base, alpha).reshape(base.shape)
    magnitude = p["dora_scale"].reshape(-1)
    columns = [
        weight[:, i] * magnitude[i] / weight[:, i].norm() for i in range(base.shape[1])
    ]
    return torch.stack(columns, 1) - base


def _turns(blocks: Tensor, limit: float) -> Tensor:
    skew = blocks - blocks.transpose(-1, -2)
    if limit > 0 and float(skew.norm()) > limit:
        skew = skew * limit / skew.norm()
    eye = torch.eye(blocks.shape[-1], dtype=blocks.dtype)
    return (eye + skew) @ torch.linalg.inv(eye - skew)


def _f_oft(p, base, alpha):
    turns = _turns(p["oft_blocks"], alpha * base.shape[0])
    side = turns.shape[-1]
    parts = base.reshape(-1, side, base[0].numel())
    turned = torch.stack([t.T @ part for t, part in zip(turns, parts, strict=True)])
    scale = p["rescale"].reshape(-1, 1)
    return turned.reshape(base.shape[0], -1) * scale - base.flatten(1)


def _f_boft(p, base, alpha):
    turns = _turns(p["oft_blocks"], 0.0)
    rows = base.flatten(1)
    for stage in range(turns.shape[0]):
        stride = 2**stage
        order = [
            start + place + half * stride
            for start in range(0, rows.shape[0], 2 * stride)
            for place in range(stride)
            for half in (0, 1)
        ]
        mixed = rows[order].reshape(-1, 2, rows.shape[1])
        mixed = torch.bmm(turns[stage], mixed).reshape(rows.shape)
        rows = torch.empty_like(rows)
        rows[order] = mixed
    return rows - base.flatten(1)


def _f_full(p, base, alpha):
    return p["diff"]


_FORMULAS = {
    "lora": _f_lora,
    "locon_tucker": _f_tucker,
    "loha": _f_loha,
    "loha_tucker": _f_loha_tucker,
    "lokr_full": _f_lokr_full,
    "lokr": _f_lokr,
    "lokr_both": _f_lokr,
    "lokr_tucker": _f_lokr_tucker,
    "glora": _f_glora,
    "glora_old": _f_glora_old,
    "dora": _f_dora,
    "dora_in": _f_dora_in,
    "oft": _f_oft,
    "boft": _f_boft,
    "full": _f_full,
}


def parts_of(tensors: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    """A module's tensors by part."""
    start = f"{name}."
    return {n[len(start) :]: t for n, t in tensors.items() if n.startswith(start)}


def merged(modules: Iterable[dict[str, Tensor]]) -> dict[str, Tensor]:
    """All modules' tensors in one dictionary."""
    return {name: t for part in modules for name, t in part.items()}

"""sd-mecha 1.1.8 and mergekit 0.1.5, whose functions the merge methods are held to.

Both are in the lock's test group only; lib_merge never imports them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from lib_merge.core.runs import Place
from lib_merge.methods import methods
from lib_merge.methods._ops.draws import Draws

SHAPES = [(257,), (12, 33), (5, 4, 3, 3)]


def pool(n_models: int, shape: Sequence[int] = (12, 33), seed: int = 0) -> list[Tensor]:
    """A base and fine-tunes of it, float64; `n_models` without the base.

    All values are multiples of 2^-20, so that deltas are exact in float32, too: the
    peers find thresholds in it.
    """
    draws = torch.Generator().manual_seed(seed)
    base = torch.randn(*shape, generator=draws, dtype=torch.float64)
    steps = torch.randn(n_models, *shape, generator=draws, dtype=torch.float64)
    tensors = [base, *(base + 0.1 * step for step in steps)]
    return [(tensor * 2**20).round() / 2**20 for tensor in tensors]


def ours(method: str, tensors: Sequence[Tensor], **params: Any) -> Tensor:
    """A method of MergeLab on whole tensors, a base first where it has one."""
    return methods().get(method).call_with(tensors, params, key=KEY)


def assert_same(ours: Tensor, theirs: Tensor, *, rtol: float = 1e-12) -> None:
    """Equal but for float64 roundings."""
    assert ours.shape == theirs.shape
    torch.testing.assert_close(ours, theirs.double(), rtol=rtol, atol=rtol)


KEY = "model.diffusion_model.out.2.weight"
SEED = 3


def masks(n_models: int, shape: Sequence[int], drop_rate: float) -> list[Tensor]:
    """The masks that our draws give a pool: 1 where kept, 0 where dropped."""
    n_elements = torch.Size(shape).numel()
    place = Place(KEY, tuple(shape), 0, tuple(range(n_models)))
    draws = Draws(place, n_elements, seed=SEED, device=torch.device("cpu"))
    kept = [draws.keep(i, drop_rate) for i in range(n_models)]
    return [(bits != 0).double().reshape(tuple(shape)) for bits in kept]


# sd-mecha


def mecha(module: str) -> Any:
    """A module of its built-in merge methods."""
    return pytest.importorskip(
        f"sd_mecha.extensions.builtin.merge_methods.{module}",
        reason="sd-mecha 1.1.8 (test group of requirements.lock) cannot be imported",
    )


def mecha_linear(name: str, *tensors: Tensor, **params: Any) -> Tensor:
    """A method that takes whole state dicts."""
    method = getattr(mecha("linear"), name).__wrapped__
    return method(*({KEY: tensor} for tensor in tensors), key=KEY, **params)


def deltas(tensors: Sequence[Tensor]) -> list[Tensor]:
    """What the models differ from the first tensor by."""
    return [tensor - tensors[0] for tensor in tensors[1:]]


def with_masks(
    monkeypatch: pytest.MonkeyPatch, drawn: Sequence[Tensor]
) -> list[Tensor]:
    """Give both peers these masks in turn.

    Returns:
        A list that fills with the keep probabilities they ask for.
    """
    turns: Iterator[Tensor] = iter(drawn)
    asked: list[Tensor] = []

    def bernoulli(probabilities: Tensor, **_: Any) -> Tensor:
        asked.append(probabilities)
        return next(turns).reshape(probabilities.shape).to(probabilities)

    monkeypatch.setattr(torch, "bernoulli", bernoulli)
    return asked


# mergekit


def kit(method: str, tensors: Sequence[Tensor], **params: Any) -> Tensor:
    """One of its methods; the first tensor is the base.

    Args:
        method: Its name there.
        tensors: In order.
        params: Of the method; `lam` for its lambda, `base` None for no base.
    """
    merge_methods = pytest.importorskip(
        "mergekit.merge_methods",
        reason="mergekit 0.1.5 (test group of requirements.lock) cannot be imported",
    )
    base = params.pop("base", 0)
    if "lam" in params:
        params["lambda"] = params.pop("lam")
    return merge_methods.merge_tensors(
        list(tensors), method, parameters=params, base_index=base
    )

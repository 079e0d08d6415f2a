"""Sums of models by coefficients that were found for whole tensors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def mixed(models: Iterable[Tensor], coefficients: Sequence[float]) -> Tensor:
    """The sum of each model's values times its coefficient.

    Model by model, so that every element has the same bits however the tensor is cut
    up. A model with coefficient 0 has no part: another with 1 alone comes back exactly.

    Args:
        models: At least one; read once, in order.
        coefficients: One a model.

    Returns:
        A new tensor in the models' dtype.
    """
    total: Tensor | None = None
    last: Tensor | None = None
    for coefficient, values in zip(coefficients, models, strict=True):
        last = values
        if coefficient == 0.0:
            continue
        if total is None:
            total = values * coefficient
        else:
            total.add_(values, alpha=coefficient)
    if total is not None:
        return total
    if last is None:
        raise ValueError("A sum of models needs at least one model.")
    return last * 0.0

"""Model Stock as it went round: row by row, by neighbours in the pool only."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

from lib_merge.core.declare import merge_method
from lib_merge.core.params import choice
from lib_merge.core.runs import Over
from lib_merge.core.spaces import Delta
from lib_merge.methods._ops.dots import row_dots

if TYPE_CHECKING:
    from torch import Tensor

_LEAST_NORM = 1e-6
_LEAST_DENOMINATOR = 1e-12


@merge_method(
    label="Model Stock (consecutive pairs, per row)",
    formula="base + t * mean(delta_t), t = N cos / (1 + (N - 1) cos), by rows, cos of "
    "consecutive pairs",
    source="Jang et al., Model Stock, 2024, https://arxiv.org/abs/2403.19522; this "
    "variant: sd-mecha, https://github.com/ljleb/sd-mecha",
    over=Over.ROWS,
)
def model_stock_consecutive(
    deltas: Iterable[Delta],
    *,
    clamp: Annotated[
        float,
        choice(
            "off",
            "on",
            help="keep each row's factor within 0 (the base) and 1 (the mean); off, "
            "rows that pull apart may go beyond the base, without bound",
        ),
    ] = 0.0,
) -> Delta:
    """Go from the base towards the mean of the models, row by row.

    Formula: per row, base + t * mean(delta_t) with t = N cos / (1 + (N - 1) cos), where
    cos is the mean of the cosines of the first and second delta, the second and third,
    and so on. A row is one along the last axis. Unlike in `model_stock` the order of
    the models matters. Norms below 1e-6 count as 1e-6 in the cosines.

    Shapes: any, equal; 0-D and 1-D tensors are one row. Works in and returns the
    inputs' dtype (float32 or float64); cosines and factors in float64.

    Args:
        deltas: Task vectors, one a model; read once, in order.
        clamp: Whether each t stays within 0 and 1. Off, as in circulation, negative
            mean cosines give factors of any size and either sign.

    Degenerate inputs: one model comes back unchanged. Equal models give that model to
    within a rounding of the sum, but for rows shorter than 1e-6, which come nearer to
    the base. A zero row's cosines are 0; rows of zeros, and rows whose denominator is
    0, give the base. Rows of one element have cosines of 1 and -1. Opposite rows give
    any t; constant ones are nothing special; empty stays empty.

    Source: Jang et al., Model Stock, 2024, https://arxiv.org/abs/2403.19522, as in
    sd-mecha's model_stock. We differ from that in float64 cosines, in the base where
    the denominator is 0, and in accepting one model. The paper has the angle of all
    pairs.

    Raises:
        ValueError: No model at all.
    """
    total: Tensor | None = None
    cosines: Tensor | None = None
    before: tuple[Tensor, Tensor] | None = None
    n_models = 0
    for delta in deltas:
        row = delta.double()
        norms = row_dots(row, row).sqrt_().clamp_min_(_LEAST_NORM)
        if before is not None:
            cosine = row_dots(before[0], row).div_(before[1]).div_(norms)
            cosines = cosine if cosines is None else cosines.add_(cosine)
        total = delta.clone() if total is None else total.add_(delta)
        before = row, norms
        n_models += 1
    if total is None:
        raise ValueError("model_stock_consecutive needs at least one model.")
    if cosines is None:
        return total
    factors = _factors(cosines.div_(n_models - 1), n_models, is_clamped=clamp > 0.0)
    return total.mul_(factors.div_(n_models).to(total))


def _factors(cosines: Tensor, n_models: int, *, is_clamped: bool) -> Tensor:
    import torch

    denominators = cosines * (n_models - 1) + 1.0
    is_singular = denominators.abs() < _LEAST_DENOMINATOR
    factors = torch.where(is_singular, 0.0, n_models * cosines / denominators)
    return factors.clamp_(0.0, 1.0) if is_clamped else factors

"""Powers that do not depend on where a run is cut.

torch's own `pow` computes the last few values of a run with other instructions, which
differ in the last bit; log, exp and sqrt do not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

_MAX_EXPONENT = 1e9


def power(values: Tensor, exponent: float) -> Tensor:
    """values^exponent, in place.

    Args:
        values: Not negative, at most about 1e4 where the exponent is above 8; owned by
            the caller.
        exponent: Not negative. Above 1e9 it counts as 1e9.

    Returns:
        The same tensor; 0^0 is 1.
    """
    if exponent == 0.0:
        return values.fill_(1.0)
    if exponent == 1.0:
        return values
    if exponent == 0.5:
        return values.sqrt_()
    return values.log_().mul_(min(exponent, _MAX_EXPONENT)).exp_()


def geometric_mean(x: Tensor, y: Tensor, alpha: float) -> Tensor:
    """x^(1 - alpha) * y^alpha, in place.

    Args:
        x: Not negative; owned by the caller.
        y: Of the same shape and dtype; owned by the caller.
        alpha: In [0, 1].

    Returns:
        One of the two tensors: x for alpha 0, y for alpha 1; between, 0 where either
        is 0.
    """
    if alpha == 0.0:
        return x
    if alpha == 1.0:
        return y
    if alpha == 0.5:
        return x.sqrt_().mul_(y.sqrt_())
    return x.log_().mul_(1.0 - alpha).add_(y.log_(), alpha=alpha).exp_()

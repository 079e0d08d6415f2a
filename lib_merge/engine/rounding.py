"""Rounds merged values to the type they are saved in: once, ties to even."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def round_into(out: Tensor, values: Tensor) -> None:
    """Write values into a tensor of another float type, rounding once.

    Args:
        out: 1-D, any float type; overwritten.
        values: As many, in any float type.

    torch goes from float64 to float16, bfloat16 and float8 by way of float32, which
    rounds twice; float64 is therefore brought to float32 by rounding to odd first,
    after which the second rounding alone decides (Boldo and Melquiond, When double
    rounding is odd, 2005).
    """
    if values.element_size() == 8 and out.element_size() < 4:
        values = _round_to_odd(values)
    out.copy_(values)


def _round_to_odd(values: Tensor) -> Tensor:
    """float64 to float32, cut towards zero, the last bit set where anything was cut."""
    import torch

    nearest = values.to(torch.float32)
    widened = nearest.to(torch.float64)
    bits = nearest.view(torch.int32)
    # Stepping the bit pattern down by one lessens the magnitude for either sign.
    bits = bits - (widened.abs() > values.abs()).to(torch.int32)
    bits |= (widened != values).to(torch.int32)
    return bits.view(torch.float32)

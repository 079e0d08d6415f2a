"""Positions on the great circle between two directions."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

# Below this angle the arc is the straight line to within rounding.
_LEAST_ANGLE = 1e-7
# Directions closer to opposite than this have no one plane: the factors would exceed
# 1000 and what they leave of each other would be lost in float32.
_LEAST_COSINE = -1.0 + 1e-6


def has_arc(cosine: Tensor) -> Tensor:
    """Whether two vectors are neither parallel, nor opposite, nor zero.

    Args:
        cosine: Of the angle between them, float64; NaN where one is zero.
    """
    angle = cosine.clamp(-1.0, 1.0).acos()
    return (cosine > _LEAST_COSINE) & (angle > _LEAST_ANGLE)


def arc_factors(cosine: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """Factors of two vectors in the point between them on their arc.

    With the angle w between them: sin((1 - alpha) w) / sin(w) of the first and
    sin(alpha w) / sin(w) of the second; applied to unit vectors they give a unit
    vector. Vectors that are parallel, opposite or zero have no arc: the factors are
    then those of the straight line, 1 - alpha and alpha.

    Args:
        cosine: Of the angle, float64, any shape; NaN where a vector is zero.
        alpha: Position in [0, 1]; exactly 1 and 0, or 0 and 1, at the ends.

    Returns:
        Two tensors of the shape of `cosine`.
    """
    import torch

    is_arc = has_arc(cosine)
    angle = torch.where(is_arc, cosine.clamp(-1.0, 1.0).acos(), 1.0)
    first = torch.where(
        is_arc, ((1.0 - alpha) * angle).sin() / angle.sin(), 1.0 - alpha
    )
    second = torch.where(is_arc, (alpha * angle).sin() / angle.sin(), alpha)
    return first, second

"""The types that a merge method's signature is written in."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Annotated, TypeAlias

if TYPE_CHECKING:
    from torch import Tensor


class Space(Enum):
    """What the numbers of an input, or of the result, mean."""

    WEIGHT = "weight"
    """A model's own values (theta)."""

    DELTA = "delta"
    """A task vector: a model's values less those of the base (theta - theta_0)."""


if TYPE_CHECKING:
    Weight: TypeAlias = Tensor
    """A tensor of a model's values, in the working dtype (float32 or float64)."""

    Delta: TypeAlias = Tensor
    """A tensor of differences from the base, in the working dtype."""
else:
    # Signatures are read at run time without importing torch.
    Weight = Annotated[object, Space.WEIGHT]
    Delta = Annotated[object, Space.DELTA]

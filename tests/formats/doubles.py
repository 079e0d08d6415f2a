"""Methods with every kind of parameter and input, to read settings for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from lib_merge.core.declare import merge_method
from lib_merge.core.params import SEED, Param, choice
from lib_merge.core.spaces import Delta, Weight

_TEXT = {"label": "double", "formula": "double", "source": "double"}
_NUMBER = Annotated[float, Param(0.0, 1.0, 0.01)]
_EACH = Annotated[tuple[float, ...], Param(0.0, 9.0, 0.01, per_model=True)]


@merge_method(**_TEXT)
def voted(
    deltas: Iterable[Delta],
    *,
    elect: Annotated[float, choice("sum", "count", help="how")] = 0.0,
    density: _NUMBER = 0.2,
    lam: _NUMBER = 1.0,
    weight: _EACH = (1.0,),
    seed: Annotated[float, SEED] = 0.0,
) -> Delta:
    """A pool on a base."""
    raise NotImplementedError


@merge_method(**_TEXT)
def pooled(models: Iterable[Weight], *, weight: _EACH = (1.0,)) -> Weight:
    """A pool of whole models with a number each."""
    raise NotImplementedError


@merge_method(**_TEXT)
def plain(models: Iterable[Weight]) -> Weight:
    """A pool of whole models."""
    raise NotImplementedError


@merge_method(**_TEXT)
def pair(a: Weight, b: Weight, *, alpha: _NUMBER = 0.5) -> Weight:
    """Two models."""
    raise NotImplementedError


@merge_method(**_TEXT)
def triple(a: Weight, b: Weight, c: Weight) -> Weight:
    """Three models."""
    raise NotImplementedError


@merge_method(**_TEXT)
def shaped(delta: Delta, *, alpha: _NUMBER = 0.5) -> Delta:
    """One model on a base."""
    raise NotImplementedError


@merge_method(**_TEXT)
def lone(a: Weight) -> Weight:
    """One model."""
    raise NotImplementedError

"""What lines of a .mecha recipe stand for while it is turned into a graph.

sd-mecha computes with differences as values of their own; MergeLab's nodes are whole
models. A difference is kept as its two models until it is added to something.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from lib_merge.core.blocks import Component
from lib_merge.core.recipe import Setting


@dataclass(frozen=True)
class Weight:
    """A model."""

    node: int


@dataclass(frozen=True)
class Delta:
    """factor * (node - base)."""

    base: int
    node: int
    factor: float = 1.0


@dataclass(frozen=True)
class LoraFile:
    """A LoRA's change."""

    path: str


@dataclass(frozen=True)
class Perpendicular:
    """The part of a difference that stands at right angles to another."""

    along: Delta
    of: Delta


@dataclass(frozen=True)
class Mask:
    """A factor for each value, by which b - c is added to a."""

    method: str
    a: int
    b: int
    c: int
    alpha: Setting


@dataclass(frozen=True)
class Part:
    """A model's components: these alone, or all but these."""

    node: int
    component: Component
    is_omitted: bool


@dataclass(frozen=True)
class Literal:
    """Numbers by block, or one number."""

    values: Mapping[str, object]
    config: str = ""


Value: TypeAlias = (
    "Weight | Delta | LoraFile | Perpendicular | Mask | Part | Literal | str | float "
    "| bool | None"
)

"""A method's numbers: their limits, defaults and names."""

from __future__ import annotations

import math
from dataclasses import dataclass

from lib_merge.errors import InputError


@dataclass(frozen=True)
class Param:
    """Limits of one number, written as `Annotated[float, Param(0, 1)]`.

    Attributes:
        low: Smallest allowed value.
        high: Largest allowed value.
        step: What a slider moves by; values between steps are allowed.
        per_block: Whether it may differ from block to block.
        help: What it does, with its effect at both ends.
        choices: Names of the values 0, 1, 2 ... of a choice; empty for a number. The
            order is permanent: saved files hold the number.
        per_model: Whether every model of the pool has its own. The function gets a
            tuple, in the pool's order; NAME sets all of them, NAME@2 the second's.
        is_integer: Whether only whole numbers make sense (a seed, a rank).
    """

    low: float
    high: float
    step: float = 0.01
    per_block: bool = True
    help: str = ""
    choices: tuple[str, ...] = ()
    per_model: bool = False
    is_integer: bool = False


def choice(*names: str, per_block: bool = False, help: str) -> Param:
    """A parameter that is one of some names, written `Annotated[float, choice(...)]`.

    Args:
        names: In their permanent order; the function gets 0.0, 1.0 ...
        per_block: Whether it may differ from block to block.
        help: What each does.
    """
    top = float(len(names) - 1)
    return Param(0.0, top, 1.0, per_block, help, choices=names, is_integer=True)


SEED = Param(
    0,
    2**32 - 1,
    1,
    per_block=False,
    is_integer=True,
    help="which values are drawn; the same seed gives the same bits",
)
"""The parameter of a method that draws."""


@dataclass(frozen=True)
class ParamSpec:
    """A declared parameter: its name, default and limits."""

    name: str
    default: float
    param: Param

    def check(self, value: float, where: str) -> None:
        """Raise unless the value is a finite number within the limits.

        Raises:
            InputError: Not finite, outside [low, high], or no whole number where one
                is needed.
        """
        low, high = self.param.low, self.param.high
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not is_number or not math.isfinite(value):
            raise InputError(f"{self.name}={value!r} ({where}) is no finite number.")
        if self.param.choices and value not in range(len(self.param.choices)):
            raise InputError(
                f"{self.name}={value:g} ({where}) is no choice; use one of: "
                f"{', '.join(self.param.choices)}."
            )
        if not low <= value <= high:
            raise InputError(
                f"{self.name}={value:g} ({where}) is outside {low:g} to {high:g}; "
                "choose a value in that range."
            )
        if self.param.is_integer and value != int(value):
            raise InputError(
                f"{self.name}={value:g} ({where}) must be a whole number from "
                f"{low:g} to {high:g}."
            )

    def text_of(self, value: float) -> str:
        """A value as people read it: a choice's name, or the number."""
        if self.param.choices and value in range(len(self.param.choices)):
            return self.param.choices[int(value)]
        return f"{value:.12g}"

    def value_of(self, text: str) -> float | None:
        """The value that a choice's name stands for, or None."""
        name = text.strip().lower()
        return float(self.param.choices.index(name)) if self._has(name) else None

    def _has(self, name: str) -> bool:
        return name in self.param.choices


STRENGTH = ParamSpec(
    "strength",
    1.0,
    Param(-10.0, 10.0, 0.05, help="how much of a LoRA's change is added; 0 adds none"),
)
"""How much of a LoRA is baked in."""


def split_name(name: str) -> tuple[str, int | None]:
    """A setting's name as (parameter, position in the pool): "weight@2" is the second.

    Returns:
        The position counts from 0; None where the setting is of all models, and also
        where what stands behind the @ is no such number (the name is then unknown).
    """
    stem, at, number = name.partition("@")
    if not at:
        return name, None
    if number.isascii() and number.isdigit() and int(number) > 0:
        return stem, int(number) - 1
    return name, None

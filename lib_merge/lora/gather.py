"""The weighted sum of what several LoRAs do to one module, as factors while short."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from lib_merge.errors import InputError
from lib_merge.lora.change import change_of, low_rank_factors
from lib_merge.lora.factors import (
    Factors,
    Keep,
    factorise,
    factorise_product,
    shared_evenly,
)
from lib_merge.lora.fit import Placed, trailing_shape
from lib_merge.lora.kinds import Kind
from lib_merge.lora.targets import Rows, Target

if TYPE_CHECKING:
    from torch import Tensor


class Gathered:
    """The sum of changes of one module.

    Products are kept as factors until they have as many as the module has rows or
    columns; from then on the sum itself is shorter.

    Args:
        name: The module's, as it is written.
        target: What it means.
    """

    def __init__(self, name: str, target: Target) -> None:
        self._name = name
        self._target = target
        self._ups: list[Tensor] = []
        self._downs: list[Tensor] = []
        self._sum: Tensor | None = None
        self._sides: tuple[int, int] | None = None
        self._trailing: tuple[int, ...] | None = None
        self.is_vector = False
        self.has_differences = False

    @property
    def is_empty(self) -> bool:
        """Whether nothing was added."""
        return self._sides is None

    @property
    def trailing(self) -> tuple[int, ...]:
        """The shape of one row of the weight: inputs, then the kernel's sides."""
        assert self._trailing is not None
        return self._trailing

    def add(self, placed: Placed, factors: Mapping[str, Tensor], weight: float) -> None:
        """Add a module's change.

        Args:
            placed: The module; all or some of the rows of this one.
            factors: Its tensors, float64.
            weight: How much of it.

        Raises:
            InputError: It is of another size than those before.
        """
        module = placed.module
        n_rows, first = _share(
            self._target.rows, placed.target.rows, module.extent.rows
        )
        self._check(n_rows, module.extent.columns, placed)
        if module.kind is Kind.LORA:
            up, down = low_rank_factors(factors)
            up, down = shared_evenly(up, down, module.scale * weight)
            self._ups.append(self._placed(up, placed, n_rows, first))
            self._downs.append(down)
            if sum(u.shape[1] for u in self._ups) >= min(n_rows, down.shape[1]):
                self._fold()
            return
        change = change_of(module, factors)
        self.is_vector |= module.kind is Kind.NORM
        self.has_differences |= module.kind.is_difference
        own = change.rows(0, change.n_rows) * weight
        self._add(self._placed(own, placed, n_rows, first))

    def _check(self, n_rows: int, n_columns: int, placed: Placed) -> None:
        if self._sides is None:
            self._sides = (n_rows, n_columns)
        if self._sides != (n_rows, n_columns):
            raise InputError(
                f"The LoRAs are of different sizes in '{self._name}': {n_rows} by "
                f"{n_columns} as '{placed.module.name}', {self._sides[0]} by "
                f"{self._sides[1]} in a file before; join LoRAs for one size of model."
            )
        known = trailing_shape(placed.module, placed.target)
        if self._trailing is None or len(known) > len(self._trailing):
            self._trailing = known

    def _placed(self, part: Tensor, placed: Placed, n_rows: int, first: int) -> Tensor:
        """Rows of a part where the module has them."""
        import torch

        if placed.target.is_rotated:
            part = part.roll(part.shape[0] // 2, 0)
        if part.shape[0] == n_rows:
            return part
        out = torch.zeros(n_rows, part.shape[1], dtype=part.dtype)
        out[first : first + part.shape[0]] = part
        return out

    def _add(self, change: Tensor) -> None:
        self._sum = change if self._sum is None else self._sum + change

    def _fold(self) -> None:
        """Multiply the factors out."""
        import torch

        if self._ups:
            self._add(torch.cat(self._ups, 1) @ torch.cat(self._downs))
            self._ups, self._downs = [], []

    def dense(self) -> Tensor:
        """The sum itself, [rows, columns]."""
        self._fold()
        assert self._sum is not None
        return self._sum

    def concatenated(self) -> tuple[Tensor, Tensor]:
        """Factors whose product is the sum: no more than its rows or columns."""
        import torch

        if self._sum is None:
            return torch.cat(self._ups, 1), torch.cat(self._downs)
        whole = self.dense()
        n_rows, n_columns = whole.shape
        if n_rows <= n_columns:
            return torch.eye(n_rows, dtype=whole.dtype), whole
        return whole, torch.eye(n_columns, dtype=whole.dtype)

    def decomposed(self, keep: Keep) -> Factors | None:
        """The sum's best factors; None where it is 0."""
        import torch

        if self._sum is None:
            return factorise_product(
                torch.cat(self._ups, 1), torch.cat(self._downs), keep
            )
        return factorise(self.dense(), keep)


def _share(held: Rows, part: Rows, n_part: int) -> tuple[int, int]:
    """Rows of what is written, and the first of them that a part has."""
    n_all = n_part * part.of // (part.stop - part.start)
    n_held = n_all * (held.stop - held.start) // held.of
    return n_held, n_all * part.start // part.of - n_all * held.start // held.of

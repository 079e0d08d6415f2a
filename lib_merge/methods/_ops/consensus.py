"""Sign election and sums over a pool, model by model, in a fixed number of buffers."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


class Elect(IntEnum):
    """Who decides on the sign of each element; zeros abstain everywhere."""

    NONE = 0
    """No election: all values take part."""

    COUNT = 1
    """One model, one vote: sgn(sum of signs)."""

    MAGNITUDE = 2
    """Votes weighted by magnitude: sgn(sum of values)."""


class Consensus:
    """Sums over one run of a pool of the values that have the elected sign.

    Both signs are summed up apart while the election is still open, so that each
    model's values are looked at once. An even split elects no sign and gives 0. Model
    weights have no part in the election.

    Args:
        elect: The kind of election.
        is_disjoint: Whether the sum is divided by the weights of the models that take
            part in it (elected sign, not zero), element by element; where none does the
            result is 0.
        is_uniform: Whether all weights are 1, which saves a sum.
    """

    def __init__(
        self, elect: Elect, *, is_disjoint: bool, is_uniform: bool = False
    ) -> None:
        self._elect = elect
        self._is_disjoint = is_disjoint
        self._is_uniform = is_uniform
        self._sides: tuple[_Side, ...] = ()
        self._votes: Tensor | None = None
        self._spare: Tensor | None = None

    def add(self, values: Tensor, weight: float = 1.0) -> None:
        """Take in the next model's values.

        Args:
            values: 1-D; left as they are.
            weight: Factor of the values in the sum, and of 1 in the divisor.
        """
        import torch

        if self._spare is None:
            self._start(values)
        assert self._spare is not None
        for side in self._sides:
            side.add(values, weight, self._spare)
        if self._votes is None:
            return
        if self._elect is Elect.MAGNITUDE:
            self._votes.add_(values)
        else:
            self._votes.add_(torch.sign(values, out=self._spare))

    def _start(self, values: Tensor) -> None:
        import torch

        self._spare = torch.empty_like(values)
        if self._elect is Elect.NONE:
            self._sides = (_Side(values, 0, has_weights=self._is_disjoint),)
            return
        self._sides = tuple(
            _Side(values, sign, has_weights=self._is_disjoint) for sign in (1, -1)
        )
        # With weights of 1 the divisors of both sides count the votes already.
        is_counted = self._is_uniform and self._is_disjoint
        if self._elect is Elect.MAGNITUDE or not is_counted:
            self._votes = torch.zeros_like(values)

    def merged(self) -> Tensor:
        """The result; the object is used up.

        Raises:
            ValueError: No model was added.
        """
        if not self._sides:
            raise ValueError("An election needs at least one model.")
        if self._elect is Elect.NONE:
            return self._sides[0].result()
        signs = self._signs()
        up, down = (side.result() for side in self._sides)
        elected = up.mul_(signs.clamp(min=0))
        return elected.sub_(down.mul_(signs.clamp_(max=0)))

    def _signs(self) -> Tensor:
        if self._votes is not None:
            return self._votes.sign_()
        up, down = self._sides
        assert up.weights is not None
        assert down.weights is not None
        return up.weights.sub(down.weights).sign_()


class _Side:
    """The values of one sign: their sum, and the sum of their weights.

    Args:
        like: A tensor of the run's length.
        sign: 1 or -1; 0 for both.
        has_weights: Whether the weights are summed up too.
    """

    def __init__(self, like: Tensor, sign: int, *, has_weights: bool) -> None:
        import torch

        self._sign = sign
        self.total = torch.zeros_like(like)
        self.weights = torch.zeros_like(like) if has_weights else None

    def add(self, values: Tensor, weight: float, spare: Tensor) -> None:
        import torch

        part = values
        if self._sign > 0:
            part = torch.clamp(values, min=0, out=spare)
        elif self._sign < 0:
            part = torch.clamp(values, max=0, out=spare)
        self.total.add_(part, alpha=weight)
        if self.weights is None:
            return
        torch.sign(part, out=spare)
        if self._sign == 0:
            spare.abs_()
        self.weights.add_(spare, alpha=weight if self._sign >= 0 else -weight)

    def result(self) -> Tensor:
        """The sum, or the mean where weights were summed up; overwrites them."""
        import torch

        if self.weights is None:
            return self.total
        least = torch.finfo(self.total.dtype).tiny
        return self.total.div_(self.weights.clamp_(min=least))


def elected(pool: Sequence[Tensor], elect: Elect) -> list[Tensor]:
    """The models' values with zero where the sign is not the elected one.

    Args:
        pool: 1-D each; left as they are.
        elect: The kind of election.

    Returns:
        New tensors, or the pool's own without an election.
    """
    import torch

    if elect is Elect.NONE or not pool:
        return list(pool)
    votes = torch.zeros_like(pool[0])
    spare = torch.empty_like(votes)
    for values in pool:  # As `Consensus` adds them, so that both elect the same.
        is_count = elect is Elect.COUNT
        votes.add_(torch.sign(values, out=spare) if is_count else values)
    votes.sign_()
    # Multiplying by a sign is exact, and makes what was elected positive.
    return [torch.mul(values, votes).clamp_(min=0).mul_(votes) for values in pool]

"""What the LoRAs of an operation add to one tensor, while it is evaluated."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from lib_merge.core.plan import KeyTask, LoraOp, Op
from lib_merge.engine.sources import Sources
from lib_merge.lora.fitted import ChangeWindow, FittedChange

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Read = Callable[[int, int], "Tensor"]
"""Values [start, stop) of something, in the working dtype."""


class Changes:
    """The changes by LoRA operations on one tensor.

    Args:
        sources: The open files.
        task: Whose tensor it is.
        compute_dtype: What they are computed in.
        device: Where.
    """

    def __init__(
        self,
        sources: Sources,
        task: KeyTask,
        *,
        compute_dtype: torch.dtype,
        device: str,
    ) -> None:
        self._sources = sources
        self._task = task
        self._dtype = compute_dtype
        self._device = device
        self._readers: dict[int, Read] = {}
        self._fits: dict[int, FittedChange] = {}

    def prepare(self, op: LoraOp, whole_base: Callable[[], Tensor]) -> None:
        """Compute a change that depends on the values of its base.

        Args:
            op: The operation.
            whole_base: Computes all of its base, flat.
        """
        if op.needs_base:
            change = self._fitted(op).whole(whole_base())
            self._readers[id(op)] = lambda start, stop: change[start:stop]

    def _fitted(self, op: LoraOp) -> FittedChange:
        found = self._fits.get(id(op))
        if found is None:
            found = self._fits[id(op)] = self._sources.lora_change(
                op.lora,
                op.arch_id,
                key=self._task.key,
                shape=self._task.shape,
                dtype=self._dtype,
                device=self._device,
            )
        return found

    def add_to(self, op: LoraOp, values: Tensor, start: int, stop: int) -> Tensor:
        """Add a change, times its strength, to values.

        Args:
            op: Whose change.
            values: [start, stop) of what it is added to, written to.
            start: The first value of a block of rows (`panel_elements`).
            stop: The one behind its last.

        Returns:
            The values.
        """
        if op.needs_base:
            return values.add_(self.values(op, start, stop), alpha=op.strength)
        self._fitted(op).add_panel(values, start, stop, op.strength)
        return values

    def values(self, op: LoraOp, start: int, stop: int) -> Tensor:
        """Values [start, stop) of the change at strength 1; not to be written to."""
        read = self._readers.get(id(op))
        if read is None:
            read = self._readers[id(op)] = ChangeWindow(self._fitted(op)).values
        return read(start, stop)

    def difference(self, op: Op | None, base: Op | None) -> Read | None:
        """What LoRAs alone make of one operation's values another's.

        Args:
            op: An operation.
            base: Another.

        Returns:
            Exactly `op` less `base`, without the rounding that adding the base and
            taking it off again would cost; None where more than LoRAs lies between.
        """
        between: list[LoraOp] = []
        while isinstance(op, LoraOp):
            between.append(op)
            op = op.base
            if op == base:
                return lambda start, stop: self._sum(between, start, stop)
        return None

    def _sum(self, ops: list[LoraOp], start: int, stop: int) -> Tensor:
        total = self.values(ops[-1], start, stop) * ops[-1].strength
        for op in ops[-2::-1]:
            total.add_(self.values(op, start, stop), alpha=op.strength)
        return total

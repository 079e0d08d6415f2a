"""A plan: what happens to every key, resolved before the first byte is read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

from lib_merge.core.blocks import BlockId, Component
from lib_merge.core.dtypes import DType
from lib_merge.core.recipe import Recipe


@dataclass(frozen=True)
class CopyOp:
    """Take the tensor of one model node."""

    model: int


@dataclass(frozen=True)
class MergeOp:
    """Apply a method; parameters are plain numbers by now.

    Attributes:
        method: The method's id.
        inputs: In the method's order; None where a model of a pool lacks the key.
        params: Every declared parameter with its value for this key; a tuple of one a
            model of the pool for a per-model parameter.
    """

    method: str
    inputs: tuple[Op | None, ...]
    params: tuple[tuple[str, ParamValue], ...]


@dataclass(frozen=True)
class LoraOp:
    """Add the change that a LoRA makes to the tensor.

    Attributes:
        lora: The LoRA's node.
        base: What is changed.
        strength: Factor of the change; never 0.
        arch_id: The architecture that its names are read for.
        needs_base: Whether the change is computed from the base's values (DoRA, OFT,
            GLoRA), so that these are needed whole.
        n_factors: Numbers that the change is computed from, for the memory budget.
    """

    lora: int
    base: Op
    strength: float
    arch_id: str
    needs_base: bool = False
    n_factors: int = 0


ParamValue: TypeAlias = "float | tuple[float, ...]"
Op: TypeAlias = "CopyOp | MergeOp | LoraOp"


def parts_of(op: Op) -> tuple[Op | None, ...]:
    """What an operation works on."""
    if isinstance(op, CopyOp):
        return ()
    return (op.base,) if isinstance(op, LoraOp) else op.inputs


def models_of(op: Op | None) -> tuple[int, ...]:
    """Every model node that an operation reads, in order of first use."""
    if op is None:
        return ()
    if isinstance(op, CopyOp):
        return (op.model,)
    found = (model for part in parts_of(op) for model in models_of(part))
    return tuple(dict.fromkeys(found))


def loras_of(op: Op | None) -> Iterator[LoraOp]:
    """Every LoRA that takes part in an operation."""
    if isinstance(op, LoraOp):
        yield op
    for part in parts_of(op) if op is not None else ():
        yield from loras_of(part)


def outer_loras(op: Op) -> Iterator[LoraOp]:
    """The LoRAs that are baked in last, the outermost first."""
    while isinstance(op, LoraOp):
        yield op
        op = op.base


@dataclass(frozen=True)
class KeyTask:
    """One output tensor.

    Attributes:
        key: Its name in the file, as the first model spells it.
        shape: Its shape.
        dtype: What it is stored as.
        block: The block it belongs to.
        component: The component it belongs to.
        op: How it comes about; a bare `CopyOp` with equal dtype is a byte copy.
        element_bytes: Stored bytes of one value, over all models that are read.
    """

    key: str
    shape: tuple[int, ...]
    dtype: DType
    block: BlockId
    component: Component
    op: Op
    element_bytes: int = 8

    @property
    def n_elements(self) -> int:
        """How many numbers it holds."""
        count = 1
        for side in self.shape:
            count *= side
        return count

    @property
    def n_bytes(self) -> int:
        """Its size in the output."""
        return self.n_elements * self.dtype.size


@dataclass(frozen=True)
class Plan:
    """A whole merge, ready to run.

    Attributes:
        recipe: What it was planned from.
        arch_id: The architecture of every model in it.
        tasks: In the order of the first model's file.
        n_bytes_in: Bytes that will be read.
        n_bytes_out: Bytes of the output's tensors.
        warnings: Sentences that the user should see; nothing is wrong enough to stop.
    """

    recipe: Recipe
    arch_id: str
    tasks: tuple[KeyTask, ...]
    n_bytes_in: int
    n_bytes_out: int
    warnings: tuple[str, ...] = ()

"""How much of a tensor a method sees at once, and where in the tensor that lies."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol


class Over(Enum):
    """What a method must see at once to merge a value.

    The tensors that a method gets have the shape named here. It returns a tensor of
    the same shape.
    """

    ELEMENTS = "elements"
    """Any run of the flattened tensor, 1-D: every value stands for itself."""

    ROWS = "rows"
    """Whole rows along the last axis, 2-D (rows, values); 0-D and 1-D are one row."""

    SLABS = "slabs"
    """Whole entries of the first axis with neighbours on both sides, in the tensor's
    own number of dimensions; the neighbours' results are thrown away."""

    TENSOR = "tensor"
    """The whole tensor in its own shape."""


@dataclass(frozen=True)
class Place:
    """Where the values of one call lie.

    Attributes:
        key: The tensor's name.
        shape: The whole tensor's shape.
        start: Index of the first value in the flattened tensor.
        models: Positions in the pool of the models that are given, in order; a model
            that was left out for this key is not among them.
    """

    key: str = ""
    shape: tuple[int, ...] = ()
    start: int = 0
    models: tuple[int, ...] = ()

    @property
    def n_elements(self) -> int:
        """Number of values of the whole tensor."""
        count = 1
        for side in self.shape:
            count *= side
        return count


@dataclass(frozen=True)
class Run:
    """A run of values of every input.

    Attributes:
        inputs: As the method's function gets them: single tensors, then the pool as an
            iterable that may be walked once. 1-D each.
        place: Where they lie.
    """

    inputs: tuple[Any, ...]
    place: Place


class Runs(Protocol):
    """All of a tensor's inputs, run by run; every iteration is a pass over the tensor.

    Runs have the same bounds and order for every budget, thread count and device, so
    that sums over them have the same bits. Empty tensors have no runs.
    """

    @property
    def place(self) -> Place:
        """The whole tensor's place (start 0)."""
        ...

    def __iter__(self) -> Iterator[Run]: ...


MAX_RUN = 1 << 17
MIN_RUN = 1 << 13
_RUN_VALUES = 1 << 22


def run_elements(n_inputs: int) -> int:
    """Values of one measuring run: by the number of inputs alone, a power of two.

    All inputs of a run may be held at once: at most 2^22 values up to 512 inputs.
    """
    n_elements = MAX_RUN
    while n_elements > MIN_RUN and n_elements * n_inputs > _RUN_VALUES:
        n_elements >>= 1
    return n_elements

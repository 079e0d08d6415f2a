"""The result of comparing models: sums by part, and what is said about them."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from lib_merge.analysis.pairs import PairSums
from lib_merge.core.blocks import Component
from lib_merge.errors import InputError

ALL = "all"
"""The part that is everything that was compared."""


@dataclass(frozen=True)
class Prediction:
    """Where a merge of the pool would lie, before anything is merged.

    Attributes:
        method: The merge method's id.
        part: The component.
        distances: L2 distance of the result from every model.
        errors: Standard error of each distance; 0 where it is exact.
        share: Share of the values that it was found on; 1 where it is exact.
    """

    method: str
    part: str
    distances: tuple[float, ...]
    errors: tuple[float, ...]
    share: float = 1.0


@dataclass(frozen=True)
class LeftOut:
    """A tensor that was not compared, and why."""

    key: str
    reason: str


@dataclass(frozen=True, eq=False)
class Comparison:
    """Some models, and how far they are from each other.

    Attributes:
        names: Short and unique, one a model.
        paths: Their files; empty where none are known.
        base: Position of the model that changes are measured from.
        n_apart: 1 if the base was given apart from the models (it comes first).
        architecture: What they are.
        components: Sums by component, in order.
        blocks: Sums by block, in order.
        keys: Sums by tensor; empty unless they were asked for.
        left_out: Tensors that were not compared.
        predictions: Where merges would lie, if that was asked for.
        seconds: Time of the pass.
        n_bytes: Read in it.
        n_threads: That worked.
    """

    names: tuple[str, ...]
    base: int
    components: Mapping[str, PairSums]
    blocks: Mapping[str, PairSums] = field(default_factory=dict)
    keys: Mapping[str, PairSums] = field(default_factory=dict)
    paths: tuple[str, ...] = ()
    n_apart: int = 0
    architecture: str = ""
    left_out: tuple[LeftOut, ...] = ()
    predictions: tuple[Prediction, ...] = ()
    seconds: float = 0.0
    n_bytes: int = 0
    n_threads: int = 0

    @property
    def pool(self) -> tuple[int, ...]:
        """Positions of the models themselves, without a base given apart."""
        return tuple(range(self.n_apart, len(self.names)))

    @property
    def main_part(self) -> str:
        """What maps show unless told otherwise: the UNet where there is one."""
        if Component.UNET.value in self.components:
            return Component.UNET.value
        return next(iter(self.components))

    def parts(self, level: str) -> Iterator[tuple[str, PairSums]]:
        """All parts of one level.

        Args:
            level: component, block or key.
        """
        groups = {
            "component": self.components,
            "block": self.blocks,
            "key": self.keys,
        }
        yield from groups[level].items()

    def part(self, name: str) -> PairSums:
        """The sums of a part.

        Args:
            name: `all`, a component, a block or (if they were kept) a tensor.

        Raises:
            InputError: There is no such part; names the nearest.
        """
        found = pick_part([*self.components, *self.blocks, *self.keys], name)
        for group in (self.components, self.blocks, self.keys):
            if found in group:
                return group[found]
        return total(list(self.components.values()))

    def model(self, name: str) -> int:
        """The position of a model.

        Args:
            name: Its short name, a part of that which fits one model only, or its
                number from 1 on.

        Raises:
            InputError: None or several fit.
        """
        return pick_model(self.names, name)


def pick_part(known: Sequence[str], name: str) -> str:
    """A part by its name, in lower or upper case.

    Args:
        known: All parts but the whole.
        name: What somebody wrote.

    Raises:
        InputError: There is no such part; names the nearest.
    """
    for candidate in (name, name.lower(), name.upper()):
        if candidate == ALL or candidate in known:
            return candidate
    near = difflib.get_close_matches(name, [ALL, *known], 1, 0.5)
    hint = f" Did you mean {near[0]}?" if near else ""
    few = [part for part in known if "." not in part]
    raise InputError(
        f"There is no part '{name}' to compare; known: {', '.join([ALL, *few])}.{hint}"
    )


def pick_model(names: Sequence[str], name: str) -> int:
    """The position of a model; see `Comparison.model`."""
    if name in names:
        return names.index(name)
    if name.isdigit() and 1 <= int(name) <= len(names):
        return int(name) - 1
    fitting = [i for i, known in enumerate(names) if name in known]
    if len(fitting) == 1:
        return fitting[0]
    fault = "fits several of the models" if fitting else "is none of the models"
    shown = ", ".join(names[i] for i in fitting or range(len(names)))
    raise InputError(f"'{name}' {fault}: {shown}; give a name or a number.")


def total(parts: list[PairSums]) -> PairSums:
    """The sums of several parts together."""
    same = [part.same for part in parts if part.same is not None]
    both = [part.both for part in parts if part.both is not None]
    has_signs = len(same) == len(both) == len(parts)
    return PairSums(
        n_values=sum(part.n_values for part in parts),
        base=parts[0].base,
        norms=np.sum([part.norms for part in parts], axis=0),
        squares=np.sum([part.squares for part in parts], axis=0),
        same=np.sum(same, axis=0) if has_signs else None,
        both=np.sum(both, axis=0) if has_signs else None,
    )

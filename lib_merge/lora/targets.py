"""What a LoRA's module names mean in a checkpoint: tensors, and rows of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

from lib_merge.arch import architectures

UNET, TE1, TE2, TE3 = "unet", "te1", "te2", "te3"
"""Families of names: the denoiser, and the text encoders in order."""


@dataclass(frozen=True)
class Rows:
    """A run of a tensor's rows, in equal shares of all of them.

    Query, key and value are thirds of a fused tensor: (0, 1, 3), (1, 2, 3), (2, 3, 3).
    """

    start: int = 0
    stop: int = 1
    of: int = 1

    def span(self, n_rows: int) -> tuple[int, int]:
        """First row and the one behind the last; (0, 0) where it does not divide."""
        if n_rows % self.of:
            return 0, 0
        share = n_rows // self.of
        return self.start * share, self.stop * share

    def holds(self, other: Rows) -> bool:
        """Whether the other's rows are all among these."""
        is_after = other.start * self.of >= self.start * other.of
        return is_after and other.stop * self.of <= self.stop * other.of


WHOLE = Rows()


@dataclass(frozen=True)
class Target:
    """What a module's name stands for.

    Attributes:
        weight: The tensor's key in the single-file layout.
        bias: Its bias's key; "" where there is none.
        rows: The part of the tensor that is meant.
        is_transposed: Whether the checkpoint stores it with its axes swapped.
        is_rotated: Whether the checkpoint has the two halves of the rows swapped.
    """

    weight: str
    bias: str = ""
    rows: Rows = WHOLE
    is_transposed: bool = False
    is_rotated: bool = False

    @property
    def place(self) -> tuple[str, Rows]:
        """What two names of one thing have in common."""
        return self.weight, self.rows


@dataclass(frozen=True)
class Name:
    """One name of a target.

    Attributes:
        family: The denoiser or a text encoder.
        dotted: The module's name with dots.
        target: What it means.
        is_own: Whether files that are written use this name.
    """

    family: str
    dotted: str
    target: Target
    is_own: bool = False

    @property
    def flat(self) -> str:
        """The name as kohya's trainer writes it."""
        return self.dotted.replace(".", "_")


@dataclass(frozen=True)
class Written:
    """A module's name in files that are written, with its meaning."""

    name: str
    target: Target


class Table:
    """All module names of an architecture.

    Args:
        names: Every name of every target.
        prefixes: How kohya's trainer begins a name, by family.
    """

    def __init__(self, names: Iterable[Name], prefixes: Mapping[str, str]) -> None:
        self._by_flat: dict[tuple[str, str], Target] = {}
        self._own: dict[str, list[Written]] = {}
        unclear: set[tuple[str, str]] = set()
        names = list(names)
        for name in names:
            flat = (name.family, name.flat)
            if self._by_flat.setdefault(flat, name.target).place != name.target.place:
                unclear.add(flat)
        # A name that means two things in two ways of naming means nothing here.
        for flat in unclear:
            del self._by_flat[flat]
        for name in names:
            if name.is_own and (name.family, name.flat) in self._by_flat:
                written = Written(f"{prefixes[name.family]}_{name.flat}", name.target)
                self._own.setdefault(name.target.weight, []).append(written)

    def find(self, family: str, flat: str) -> Target | None:
        """What a flattened name means; a file may not say of which family it is."""
        for each in (family,) if family else (UNET, TE1):
            found = self._by_flat.get((each, flat))
            if found is not None:
                return found
        return None

    def written(self) -> Iterator[Written]:
        """Everything that a written file has a name for, once each."""
        return (written for names in self._own.values() for written in names)

    def can_write(self, target: Target) -> bool:
        """Whether something that is written holds a target."""
        names = self._own.get(target.weight, ())
        return any(name.target.rows.holds(target.rows) for name in names)


def known_architectures() -> tuple[str, ...]:
    """Ids of the architectures that a LoRA is looked for in, when it does not say."""
    others = (a.id for a in architectures() if a.id not in (*_USUAL, *_KIN))
    return (*_USUAL, *others)


_USUAL = ("sd1", "sd2", "sdxl", "flux")
_KIN = ("sdxl_refiner", "sdxl_small")
"""Their LoRAs have SDXL's names; they are read so only beside such a model."""


@lru_cache(maxsize=16)
def table_of(arch_id: str) -> Table | None:
    """The names of an architecture, or None for an id that there is not."""
    from lib_merge.lora._naming import names_of

    if arch_id not in architectures():
        return None
    names, prefixes = names_of(architectures().get(arch_id))
    return Table(names, prefixes)

"""One registry for methods, architectures, scorers and hosts, filled by discovery."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Iterator
from types import ModuleType
from typing import Generic, Protocol, TypeVar

from lib_merge.errors import DeclarationError, UnknownIdError


class HasId(Protocol):
    """Anything with a permanent snake_case id."""

    @property
    def id(self) -> str:
        """The id that saved files carry."""
        ...


T = TypeVar("T", bound=HasId)


class Registry(Generic[T]):
    """Things by id; iteration is sorted by id.

    Args:
        noun: What it holds, for messages ("merge method").
    """

    def __init__(self, noun: str) -> None:
        self.noun = noun
        self._items: dict[str, T] = {}

    def add(self, item: T) -> T:
        """Add one thing.

        Raises:
            DeclarationError: The id is taken; the registry stays as it was.
        """
        if item.id in self._items:
            raise DeclarationError(
                f"The {self.noun} id '{item.id}' is declared twice; "
                "rename one of the two files and ids."
            )
        self._items[item.id] = item
        return item

    def get(self, item_id: str) -> T:
        """The thing with this id.

        Raises:
            UnknownIdError: No such id; the message names the nearest.
        """
        try:
            return self._items[item_id]
        except KeyError:
            raise UnknownIdError(self._unknown(item_id)) from None

    def _unknown(self, item_id: str) -> str:
        near = difflib.get_close_matches(item_id, self._items, n=1, cutoff=0.4)
        hint = f"did you mean '{near[0]}'?" if near else "see the list below."
        known = ", ".join(sorted(self._items)) or "none"
        return f"Unknown {self.noun} '{item_id}': {hint} Known: {known}."

    def ids(self) -> tuple[str, ...]:
        """All ids, sorted."""
        return tuple(sorted(self._items))

    def copy(self) -> Registry[T]:
        """An independent registry with the same things (for tests)."""
        twin: Registry[T] = Registry(self.noun)
        twin._items.update(self._items)
        return twin

    def __iter__(self) -> Iterator[T]:
        return (self._items[item_id] for item_id in sorted(self._items))

    def __len__(self) -> int:
        return len(self._items)

    def __contains__(self, item_id: object) -> bool:
        return item_id in self._items


def discover(package: ModuleType) -> Iterator[ModuleType]:
    """Import every public module of a package, in name order.

    Args:
        package: An imported package; modules starting with `_` are private.
    """
    for info in sorted(pkgutil.iter_modules(package.__path__), key=lambda m: m.name):
        if not info.name.startswith("_"):
            yield importlib.import_module(f"{package.__name__}.{info.name}")

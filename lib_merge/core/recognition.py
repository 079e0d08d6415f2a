"""What recognising an architecture may ask about a file's keys, fast for many files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache

from lib_merge.core.blocks import KeyInfos, TensorInfo
from lib_merge.core.naming import Binding, ComponentNames, Place


class Names(Mapping[str, TensorInfo]):
    """A file's tensors, with a fast answer to which first words there are.

    Args:
        infos: Every key with its tensor.
    """

    def __init__(self, infos: KeyInfos) -> None:
        self._infos = infos
        self._text = "\n" + "\n".join(infos)
        self._known: dict[str, bool] = {"": bool(infos)}

    def starts(self, words: str) -> bool:
        """Whether a key starts with these words."""
        found = self._known.get(words)
        if found is None:
            found = self._known[words] = f"\n{words}" in self._text
        return found

    def starts_any(self, words: Iterable[str], prefix: str = "") -> bool:
        """Whether a key starts with any of some words behind a prefix."""
        return any(self.starts(prefix + word) for word in words)

    def __getitem__(self, key: str) -> TensorInfo:
        return self._infos[key]

    def __contains__(self, key: object) -> bool:
        return key in self._infos

    def __iter__(self) -> Iterator[str]:
        return iter(self._infos)

    def __len__(self) -> int:
        return len(self._infos)


class View:
    """A component of a file under its canonical names.

    Args:
        names: The file's tensors.
        binding: How the file names the component.
    """

    def __init__(self, names: Names, binding: Binding) -> None:
        self.names = names
        self.binding = binding

    def has(self, *rests: str) -> bool:
        """Whether all of some canonical tensors are there (names without prefix)."""
        return all(self._first(rest) is not None for rest in rests)

    def shape(self, rest: str) -> tuple[int, ...]:
        """The shape of the first share of a canonical tensor; () where it is absent."""
        info = self._first(rest)
        return () if info is None else info.shape

    def starts(self, words: str) -> bool:
        """Whether a stored key of the component starts with these words."""
        return self.names.starts(self.binding.place.prefix + words)

    def _first(self, rest: str) -> TensorInfo | None:
        place = self.binding.place
        rule = place.style.rule(rest)
        if rule is None:
            return None
        return self.names.get(place.prefix + rule.stored[0])


@lru_cache(maxsize=4096)
def binding_of(names: ComponentNames, place: Place) -> Binding:
    """The one binding of a component to a place."""
    return Binding(names, place)


def bindings_of(names: Names, component: ComponentNames) -> Iterator[Binding]:
    """The places of a component that a file's keys speak for, bare ones last."""
    bare = []
    for place in component.places:
        if not names.starts(place.prefix):
            continue
        if names.starts_any(place.marks, place.prefix):
            binding = binding_of(component, place)
            if place.prefix:
                yield binding
            else:
                bare.append(binding)
    yield from bare

"""How tools name one tensor: where a stored tensor lies in the one that we speak of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum

from lib_merge.core.blocks import Component

Shares = tuple[int, ...]


class How(Enum):
    """What else differs between a stored tensor and its canonical one."""

    PLAIN = "plain"
    TRANSPOSED = "transposed"
    """Rows and columns change places (the text projection of OpenCLIP)."""
    SWAPPED = "swapped"
    """The two halves along the first axis change places (shift and scale)."""
    AS_CONV = "as_conv"
    """The canonical tensor is a 1x1 convolution, the stored one a matrix."""


@dataclass(frozen=True)
class Spot:
    """The canonical tensor that a stored one is, or is a part of.

    Attributes:
        key: The canonical tensor's key.
        part: Which share of its first axis, from 0.
        shares: Relative sizes of all its shares, in order.
        how: What else differs.
    """

    key: str
    part: int = 0
    shares: Shares = (1,)
    how: How = How.PLAIN


@dataclass(frozen=True)
class Rule:
    """One canonical tensor and the stored ones that make it up.

    Attributes:
        key: Canonical, without its component's prefix.
        stored: As the other naming has it, one for each share.
        shares: Relative sizes of the shares along the first axis.
        how: What else differs; only for a tensor that is stored whole.
    """

    key: str
    stored: tuple[str, ...]
    shares: Shares = (1,)
    how: How = How.PLAIN


class Style:
    """A naming of one component's tensors, without any prefix; the canonical one here.

    Args:
        name: For messages: "single file", "diffusers".
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def spot(self, rest: str) -> Spot | None:
        """Where a stored tensor lies, or None for a name that this style has not."""
        return Spot(rest)

    def rule(self, rest: str) -> Rule | None:
        """How a canonical tensor is stored, or None where this style cannot hold it."""
        return Rule(rest, (rest,))


@dataclass(frozen=True)
class _Held:
    spots: Mapping[str, Spot]
    rules: Mapping[str, Rule]


class TableStyle(Style):
    """A naming that is listed tensor by tensor.

    Args:
        name: For messages.
        rules: Of every tensor; a stored name listed twice keeps its first meaning.
        lead: Put in front of stored names before they are looked up.

    Attributes:
        rules: As given.
    """

    def __init__(self, name: str, rules: Iterable[Rule], lead: str = "") -> None:
        super().__init__(name)
        self._lead = lead
        self.rules = tuple(rules)
        spots: dict[str, Spot] = {}
        found: dict[str, Rule] = {}
        for rule in self.rules:
            found.setdefault(rule.key, rule)
            for part, stored in enumerate(rule.stored):
                spot = Spot(rule.key, part, rule.shares, rule.how)
                spots.setdefault(stored, spot)
        self._held = _Held(spots, found)

    def spot(self, rest: str) -> Spot | None:
        """Look a stored name up."""
        return self._held.spots.get(self._lead + rest)

    def rule(self, rest: str) -> Rule | None:
        """Look a canonical name up."""
        rule = self._held.rules.get(rest)
        if rule is None or not self._lead:
            return rule
        if not all(name.startswith(self._lead) for name in rule.stored):
            return None
        short = tuple(name[len(self._lead) :] for name in rule.stored)
        return Rule(rule.key, short, rule.shares, rule.how)


class PrefixStyle(Style):
    """A naming that differs in the first words only.

    Args:
        name: For messages.
        pairs: (stored first words, canonical first words); the first pair that fits
            counts.
    """

    def __init__(self, name: str, *pairs: tuple[str, str]) -> None:
        super().__init__(name)
        self._pairs = pairs

    def spot(self, rest: str) -> Spot | None:
        """Put the canonical words in place of the stored ones."""
        for stored, canonical in self._pairs:
            if rest.startswith(stored):
                return Spot(canonical + rest[len(stored) :])
        return None

    def rule(self, rest: str) -> Rule | None:
        """Put the stored words in place of the canonical ones."""
        for stored, canonical in self._pairs:
            if rest.startswith(canonical):
                return Rule(rest, (stored + rest[len(canonical) :],))
        return None


CANONICAL = Style("single file")


@dataclass(frozen=True)
class Place:
    """A prefix and style in which files hold a component.

    Attributes:
        prefix: In front of the component's names; "" where the file holds it bare.
        style: How the names behind it are spelled.
        marks: Names behind the prefix (or starts of them, with a final dot), any of
            which gives the place away.
    """

    prefix: str
    style: Style
    marks: tuple[str, ...] = ("",)


@dataclass(frozen=True)
class ComponentNames:
    """Every place where files hold one component of an architecture.

    Attributes:
        component: Which.
        prefix: Of its canonical names.
        folder: Prefix that it has in a pipeline of diffusers: its folder's name.
        places: In order of preference; the canonical one is the first.
    """

    component: Component
    prefix: str
    folder: str
    places: tuple[Place, ...]

    @property
    def canonical(self) -> Place:
        """The place whose keys are the canonical ones."""
        return self.places[0]

    @property
    def in_folder(self) -> Place:
        """The place in a pipeline of diffusers."""
        others = (p for p in self.places if p.style.name != CANONICAL.name)
        return next(place for place in others if place.prefix == self.folder)


@dataclass(frozen=True)
class Binding:
    """A component as one file holds it."""

    names: ComponentNames
    place: Place

    @property
    def is_canonical(self) -> bool:
        """Whether its keys are the canonical ones."""
        return self.place == self.names.canonical

    def spot(self, key: str) -> Spot | None:
        """The canonical place of a stored key of this component."""
        if not key.startswith(self.place.prefix):
            return None
        spot = self.place.style.spot(key[len(self.place.prefix) :])
        if spot is None:
            return None
        return Spot(self.names.prefix + spot.key, spot.part, spot.shares, spot.how)

    def rule(self, key: str) -> Rule | None:
        """How this place stores a canonical key of this component."""
        if not key.startswith(self.names.prefix):
            return None
        rule = self.place.style.rule(key[len(self.names.prefix) :])
        if rule is None:
            return None
        stored = tuple(self.place.prefix + name for name in rule.stored)
        return Rule(key, stored, rule.shares, rule.how)

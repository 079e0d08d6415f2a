"""What a reader makes of another program's file: recipes, and what stays unknown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from lib_merge.core.blocks import BlockId, Component
from lib_merge.core.recipe import MergeNode, ModelNode, Recipe, Setting
from lib_merge.errors import InputError

UNKNOWN = "unknown model: "
"""What the path of a model begins with that a file does not name."""


@dataclass(frozen=True)
class Options:
    """What a reader cannot know from the file itself.

    Attributes:
        order: Id of the order of block weights that come without names.
        arch: Id of the models' architecture, where block orders differ by it.
        as_of: When the file was made, where a format's words changed their meaning.
    """

    order: str | None = None
    arch: str | None = None
    as_of: date | None = None


@dataclass(frozen=True)
class Entry:
    """One recipe of a file, or weights that lack only their models.

    Attributes:
        name: What the file calls it; unique in the file.
        recipe: The recipe, or None where the file names no models.
        weights: alpha by block, where `recipe` is None.
        components: What the weights blend.
        facts: Label and value of what else the file says of it.
    """

    name: str
    recipe: Recipe | None = None
    weights: Setting | None = None
    components: tuple[Component, ...] = ()
    facts: tuple[tuple[str, str], ...] = ()

    def with_models(self, models: Sequence[str]) -> Recipe:
        """The recipe; weights become a weighted sum of two models.

        Raises:
            InputError: The file names no models and none are given, or the wrong
                number of them, or it names models and some are given.
        """
        if self.recipe is not None:
            if models:
                raise InputError(
                    f"'{self.name}' names its models itself; leave --inputs out."
                )
            return self.recipe
        if len(models) != 2:
            raise InputError(
                f"'{self.name}' has block weights but names no models; give the two "
                "that they blend, as --inputs A B."
            )
        return blend((ModelNode(models[0]), ModelNode(models[1])), self)


def blend(models: tuple[ModelNode, ModelNode], entry: Entry) -> Recipe:
    """A weighted sum of two models by an entry's weights."""
    node = MergeNode(
        "weighted_sum",
        (0, 1),
        (("alpha", entry.weights or Setting(0.0)),),
        entry.components,
    )
    return Recipe((*models, node))


@dataclass(frozen=True)
class Imported:
    """All that a file says.

    Attributes:
        format: The reader's id.
        title: The format in words, with its dialect.
        entries: At least one.
        notes: How words of the file were understood where that is not obvious.
        unknown: What the file does not say, and what was made of that.
    """

    format: str
    title: str
    entries: tuple[Entry, ...]
    notes: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()

    def entry(self, name: str | None = None) -> Entry:
        """The entry of a name, or the only one.

        Raises:
            InputError: There is none of that name, or several and none is named.
        """
        names = [entry.name for entry in self.entries]
        if name is None and len(names) == 1:
            return self.entries[0]
        if name in names:
            return self.entries[names.index(name)]
        listed = ", ".join(names[:12]) + (" ..." if len(names) > 12 else "")
        if name is None:
            raise InputError(
                f"This {self.title} holds {len(names)} entries; say which with "
                f"--entry NAME: {listed}."
            )
        raise InputError(f"There is no entry '{name}'; the file has: {listed}.")


def blocks_setting(values: dict[str, float], *, default: float = 0.0) -> Setting:
    """A setting from values by block; blocks of the default value are left out."""
    pairs = [(BlockId(k), v) for k, v in values.items() if v != default]
    return Setting(default, tuple(pairs))

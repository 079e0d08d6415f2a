"""Further steps of a merge as text: other methods for parts, and parts of other models.

CLIP_L, CLIP_G : uniform_soup        these blocks by another method
M00 : weighted_sum : alpha=0.3       ... with settings
VAE = other.safetensors              this component of another model
then : iso_z : z=0.8                 a method on what the main one gave
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from lib_merge.core.blocks import Architecture, BlockId
from lib_merge.core.method import MergeMethod
from lib_merge.errors import UnknownIdError
from lib_merge.formats.block_text import read_places, settings_of
from lib_merge.formats.request import Part, Step, Take
from lib_merge.formats.value_text import read_values

THEN = "then"
"""What stands for the blocks of a step on the main method's result."""


@dataclass(frozen=True)
class Steps:
    """What several lines say, by kind, in order."""

    then: tuple[Step, ...] = ()
    parts: tuple[Part, ...] = ()
    takes: tuple[Take, ...] = ()


@dataclass(frozen=True)
class StepReader:
    """Reads steps.

    Attributes:
        find: The method with an id; raises UnknownIdError.
        path_of: The file that a model's name stands for, or None.
        arch: Whose blocks are meant; None leaves block names to the planner.
    """

    find: Callable[[str], MergeMethod]
    path_of: Callable[[str], str | None]
    arch: Architecture | None = None

    def steps(self, lines: Iterable[str], where: str, problems: list[str]) -> Steps:
        """Every line; empty ones and those that begin with "#" are skipped."""
        then: list[Step] = []
        parts: list[Part] = []
        takes: list[Take] = []
        for number, line in enumerate(lines, 1):
            place = f"{where} {number}"
            head, colon, rest = line.partition(":")
            if not line.strip() or line.strip().startswith("#"):
                continue
            if "=" in head:
                takes += self.take(line, place, problems)
            elif colon and head.strip().lower() == THEN:
                then += self.step(rest, place, problems)
            else:
                parts += self.part(line, place, problems)
        return Steps(tuple(then), tuple(parts), tuple(takes))

    def part(self, text: str, where: str, problems: list[str]) -> list[Part]:
        """BLOCKS:METHOD or BLOCKS:METHOD:SETTINGS."""
        head, colon, rest = text.partition(":")
        if not colon or not rest.strip():
            problems.append(
                f"{where}: '{text.strip()}' names no method; write BLOCKS:METHOD, like "
                "CLIP_L,CLIP_G:uniform_soup."
            )
            return []
        blocks = self._places(head, where, problems)
        steps = self.step(rest, where, problems)
        return [Part(blocks, step) for step in steps if blocks]

    def step(self, text: str, where: str, problems: list[str]) -> list[Step]:
        """METHOD or METHOD:SETTINGS."""
        name, _, values = text.partition(":")
        try:
            method = self.find(name.strip())
        except UnknownIdError as fault:
            problems.append(f"{where}: {fault}")
            return []
        found = read_values([values], method, where, problems)
        return [Step(method, tuple(settings_of(found, (), (), method).items()))]

    def take(self, text: str, where: str, problems: list[str]) -> list[Take]:
        """BLOCKS=MODEL."""
        head, equals, name = (field.strip() for field in text.partition("="))
        if not equals or not name:
            problems.append(
                f"{where}: '{text.strip()}' names no model; write BLOCKS=MODEL, like "
                "VAE=other.safetensors."
            )
            return []
        blocks = self._places(head, where, problems)
        path = self.path_of(name)
        if path is None:
            problems.append(
                f"{where}: there is no model '{name}' in the list; write its name as "
                "the list has it."
            )
            return []
        return [Take(blocks, path)] if blocks else []

    def _places(
        self, text: str, where: str, problems: list[str]
    ) -> tuple[BlockId, ...]:
        """Blocks, ranges and components that exist; at least one."""
        blocks = read_places(text)
        if not blocks:
            problems.append(
                f"{where}: no block or component is named; write e.g. VAE or IN00-IN05."
            )
        problems += (
            f"{where}: {self.arch.label} has no block or component '{name}'; it has "
            f"{', '.join(self.arch.block_ids())}, BASE and UNET."
            for name in blocks
            if self.arch is not None and not self.arch.expand(name)
        )
        return blocks

"""What the user is told of a plan's keys: gathered by model, said in sentences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from lib_merge.checkpoint.header import Header
from lib_merge.core.blocks import Component, KeyInfos, Treatment
from lib_merge.core.dtypes import DType
from lib_merge.core.layouts import Layout
from lib_merge.core.recipe import Recipe

_N_NAMED = 3
"""So many keys are named in a message; the rest are counted."""


@dataclass(frozen=True)
class PlanModels:
    """The models of a plan.

    Attributes:
        headers: By model node index.
        layouts: What each was recognised as.
        first: The node whose tensors are copied.
        output: What is written: the first model's tensors, under the output's names.
    """

    headers: Mapping[int, Header]
    layouts: Mapping[int, Layout]
    first: int
    output: Layout

    def name(self, model: int) -> str:
        """A model's file name."""
        return self.headers[model].path.name


class KeyFaults:
    """Keys with something odd about them.

    Args:
        recipe: The recipe.
        models: Its models.
    """

    def __init__(self, recipe: Recipe, models: PlanModels) -> None:
        self._recipe = recipe
        self._models = models
        self.missing: dict[int, list[str]] = {i: [] for i in models.headers}
        self.spared: dict[int, list[str]] = {i: [] for i in models.headers}
        self.shapes: dict[int, list[str]] = {i: [] for i in models.headers}
        self.integers: list[str] = []
        self.unknown: list[str] = []

    def problems(self) -> Iterator[str]:
        """What has to be mended before the merge."""
        first = self._models.name(self._models.first)
        for model, keys in self.missing.items():
            if keys and not self._recipe.is_missing_ok:
                yield (
                    f"{self._models.headers[model].path} lacks {_listed(keys)} that "
                    f"{first} has; choose a whole model, or do without it there with "
                    "--missing-ok."
                )
        for model, faults in self.shapes.items():
            if faults:
                yield self._shape_problem(model, faults)

    def _shape_problem(self, model: int, faults: list[str]) -> str:
        mine = self._models.output
        theirs = self._models.layouts[model]
        path, first = (
            self._models.headers[model].path,
            self._models.name(self._models.first),
        )
        if mine.kind == theirs.kind:
            return (
                f"{path} does not fit {first} in {_listed(faults, '; ')}; models of "
                "one size only can be merged."
            )
        return (
            f"{path} is {_described(theirs)} and {first} is {_described(mine)}, so "
            f"they do not fit in {_listed(faults, '; ')}. To bring what a plain model "
            "has learned into a wider one use add_difference: A the wider model, B the "
            "plain one and C the plain model that B was trained from."
        )

    def warnings(self) -> Iterator[str]:
        """What the user should know."""
        first = self._models.name(self._models.first)
        if self.unknown:
            label = self._models.output.architecture.label
            yield (
                f"{first} has {_listed(self.unknown)} unknown to {label}; copied as "
                "they are."
            )
        if self.integers:
            yield f"{first} has {_listed(self.integers)} of integers; copied."
        for model, keys in self.missing.items():
            if keys:
                yield (
                    f"{self._models.name(model)} lacks {_listed(keys)}; a pool does "
                    f"without it there, else they are taken from {first}."
                )
        for model, keys in self.spared.items():
            if keys:
                yield (
                    f"{self._models.name(model)} has no {_listed(keys)}, which a whole "
                    f"model may lack; they are taken from {first} where it would take "
                    "part alone."
                )
        yield from self._half_warnings(first)
        yield from self._extra_warnings(first)
        yield from self._kind_warnings()
        yield from self._precision_warnings()

    def _half_warnings(self, first: str) -> Iterator[str]:
        """A folder's tensors of which a part is missing have no place in the output."""
        mine = self._models.layouts[self._models.first]
        if mine.bindings == self._models.output.bindings:
            return
        spots = mine.spots
        halves = [k for k, s in spots.items() if s and s.key not in mine.canonical]
        if halves:
            yield (
                f"{first} has {_listed(halves)} without the other parts of the same "
                "tensor; they are not in the result."
            )

    def _extra_warnings(self, first: str) -> Iterator[str]:
        output = self._models.output
        own: KeyInfos = output.canonical
        seen: dict[int, list[str]] = {}
        for model, layout in self._models.layouts.items():
            if (
                model == self._models.first
                or layout.infos.keys() == output.infos.keys()
            ):
                continue
            extra = [key for key in layout.infos if _is_lost(layout, key, own)]
            if extra:
                seen[model] = extra
        for model, extra in seen.items():
            yield (
                f"{self._models.name(model)} has {_listed(extra)} that {first} lacks; "
                "they are not in the result."
            )

    def _kind_warnings(self) -> Iterator[str]:
        """Equal shapes, but trained to do different things."""
        if len({layout.kind for layout in self._models.layouts.values()}) == 1:
            return
        kinds: dict[str, list[str]] = {}
        for model, layout in self._models.layouts.items():
            if Component.UNET in layout.components:
                kinds.setdefault(layout.kind, []).append(self._models.name(model))
        if len(kinds) > 1:
            said = "; ".join(
                f"{', '.join(dict.fromkeys(names[:_N_NAMED]))}"
                f"{', ...' if len(names) > _N_NAMED else ''} {kind}"
                for kind, names in kinds.items()
            )
            yield (
                f"The models are of different kinds: {said}. Their shapes fit, but "
                "they were trained to do different things; look at the result closely."
            )

    def _precision_warnings(self) -> Iterator[str]:
        if self._recipe.compute_dtype is DType.F64:
            return
        for header in self._models.headers.values():
            if any(info.dtype is DType.F64 for info in header.infos.values()):
                yield (
                    f"{header.path.name} holds float64 values, computed in float32; "
                    "use --precision float64 to keep them exact."
                )


def _described(layout: Layout) -> str:
    """A kind, with the channels that set it apart."""
    first = layout.canonical.get("model.diffusion_model.input_blocks.0.0.weight")
    if first is None or len(first.shape) != 4:
        return layout.kind
    return f"{layout.kind} ({first.shape[1]} channels)"


def _is_lost(layout: Layout, key: str, own: KeyInfos) -> bool:
    spot = layout.spots[key]
    if spot is None or spot.key in own or key in own:
        return False
    role = layout.role_of(key)
    return role is not None and role.treatment is Treatment.MERGE


def _listed(items: list[str], separator: str = ", ") -> str:
    """The first few of some keys, and how many there are."""
    shown = separator.join(items[:_N_NAMED])
    more = f"{separator}..." if len(items) > _N_NAMED else ""
    noun = "key" if len(items) == 1 else "keys"
    return f"{len(items)} {noun} ({shown}{more})"

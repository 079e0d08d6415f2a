"""A merge as people ask for it, and the recipe that it stands for.

One method over some models, then perhaps another method on what came out, other
methods for some blocks, and parts of other models: what the command line and the tab
offer, short of a recipe's whole freedom.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lib_merge.core.blocks import BlockId, Component
from lib_merge.core.method import MergeMethod
from lib_merge.core.recipe import (
    DEFAULT_COMPONENTS,
    LoraNode,
    MergeNode,
    ModelNode,
    Node,
    Pick,
    Recipe,
    SelectNode,
    Setting,
)
from lib_merge.errors import RecipeError

BLENDABLE = tuple(c for c in Component if c is not Component.SCHEDULE)
"""Every component that can be merged at all."""

FULL_STRENGTH = Setting(1.0)
"""All of a LoRA, everywhere."""

Settings = tuple[tuple[str, Setting], ...]


@dataclass(frozen=True)
class Step:
    """A method with its settings."""

    method: MergeMethod
    settings: Settings = ()


@dataclass(frozen=True)
class Part:
    """Another method for some blocks, over the same models."""

    blocks: tuple[BlockId, ...]
    step: Step


@dataclass(frozen=True)
class Take:
    """Some blocks of another model, as they are."""

    blocks: tuple[BlockId, ...]
    path: str


@dataclass(frozen=True)
class Lora:
    """A LoRA and how much of it is added, by block."""

    path: str
    strength: Setting = FULL_STRENGTH


@dataclass(frozen=True)
class MergeRequest:
    """A merge as it is asked for.

    Attributes:
        main: The method for everything that no part or take names.
        models: Files in order; with a base first where it has one and `base` is None.
            A LoRA stands for the base (or the first model) with it baked in.
        base: The model that deltas are taken from, or None.
        components: What the main method blends.
        then: Methods on the main method's result, in order.
        parts: Other methods for some blocks; a later one wins.
        takes: Blocks of other models; they win over parts.
        loras: Baked into the result, in order.
    """

    main: Step
    models: tuple[str | Lora, ...]
    base: str | None = None
    components: tuple[Component, ...] = DEFAULT_COMPONENTS
    then: tuple[Step, ...] = ()
    parts: tuple[Part, ...] = ()
    takes: tuple[Take, ...] = ()
    loras: tuple[Lora, ...] = ()

    @property
    def n_pool(self) -> int:
        """How many models the main method's pool has."""
        if not self.main.method.is_pool:
            return 0
        n_models = len(self.models) + (self.base is not None)
        return max(0, n_models - self.main.method.n_single)


def recipe_of_request(request: MergeRequest, **options: Any) -> Recipe:
    """The recipe that a request stands for.

    Args:
        request: What is asked for.
        options: Fields of `Recipe` (compute_dtype ...).

    Raises:
        RecipeError: A method has no base to work from, or cannot follow another.
    """
    graph = _Graph(request)
    result = graph.main()
    picks = [(part.blocks, graph.part(part.step)) for part in request.parts]
    picks += [(take.blocks, graph.model(take.path)) for take in request.takes]
    if picks:
        result = graph.select(result, picks)
    for lora in request.loras:
        result = graph.bake(lora, result)
    if graph.problems:
        raise RecipeError(graph.problems)
    return Recipe(nodes=tuple(graph.nodes), **options)


def recipe_of_baking(model: str, loras: Sequence[Lora], **options: Any) -> Recipe:
    """The recipe of one model with LoRAs baked in.

    Args:
        model: The file.
        loras: In order.
        options: Fields of `Recipe` (compute_dtype ...).
    """
    nodes: list[Node] = [ModelNode(model)]
    for index, lora in enumerate(loras):
        nodes.append(LoraNode(lora.path, index, lora.strength))
    return Recipe(nodes=tuple(nodes), **options)


class _Graph:
    """The nodes of a request, in the making."""

    def __init__(self, request: MergeRequest) -> None:
        self.nodes: list[Node] = []
        self.problems: list[str] = []
        self._request = request
        base, models = request.base, request.models
        method = request.main.method
        if method.has_base and base is None and models:
            if isinstance(models[0], Lora):
                self.problems.append(_no_model(models[0]))
            else:
                base, models = models[0], models[1:]
        first = [base] if base is not None and method.has_base else []
        self._base = self._add(ModelNode(first[0])) if first else None
        self._models: list[int] = []
        for model in models:
            self._models.append(self._input(model))
        if base is not None and not first:
            self._base = self._add(ModelNode(base))
            if not any(step.method.has_base for step in self._other_steps()):
                self.problems.append(
                    f"{method.id} works on whole models, not on deltas, so it takes no "
                    f"base; leave '{base}' out, or give it as a model."
                )

    def _input(self, model: str | Lora) -> int:
        """A model of the request; a LoRA stands on the base, or on the first model."""
        if not isinstance(model, Lora):
            return self._add(ModelNode(model))
        below = self._base if self._base is not None else next(iter(self._models), None)
        if below is None:
            self.problems.append(_no_model(model))
            return self._add(ModelNode(model.path))
        return self.bake(model, below)

    def bake(self, lora: Lora, below: int) -> int:
        """A LoRA on an earlier node; its index."""
        return self._add(LoraNode(lora.path, below, lora.strength))

    def main(self) -> int:
        """The main method and what follows it; the result's index."""
        request = self._request
        result = self._merge(request.main, request.components)
        for step in request.then:
            result = self._follow(step, result)
        return result

    def part(self, step: Step) -> int:
        """Another method over the same models; its index."""
        return self._merge(step, BLENDABLE)

    def model(self, path: str) -> int:
        """A model's node, the one that is there already if there is one."""
        node = ModelNode(path)
        return self.nodes.index(node) if node in self.nodes else self._add(node)

    def select(
        self, result: int, picks: Sequence[tuple[tuple[BlockId, ...], int]]
    ) -> int:
        """Blocks from where they are picked, the rest from the result."""
        inputs = list(dict.fromkeys([result, *(index for _, index in picks)]))
        chosen = tuple(Pick(inputs.index(index), blocks) for blocks, index in picks)
        return self._add(SelectNode(tuple(inputs), chosen))

    def _merge(self, step: Step, components: tuple[Component, ...]) -> int:
        inputs = list(self._models)
        if step.method.has_base and self._base is None:
            self.problems.append(
                f"{step.method.id} works on deltas, but no base is given; name the "
                "model that the others were trained from as the base."
            )
        elif step.method.has_base:
            inputs = [self._base or 0, *inputs]
        return self._add(
            MergeNode(step.method.id, tuple(inputs), step.settings, components)
        )

    def _follow(self, step: Step, result: int) -> int:
        """A method on one result: alone, or as the second model after base or A."""
        first = self._base
        if first is None and not step.method.has_base:
            first = next(iter(self._models), None)
        inputs = (result,) if step.method.min_models == 1 else (first or 0, result)
        if not step.method.accepts(len(inputs)):
            self.problems.append(
                f"{step.method.id} takes {step.method.min_models} models, so it cannot "
                "follow another method; one or two are possible there."
            )
        if step.method.has_base and first is None:
            self.problems.append(
                f"{step.method.id} works on deltas, but no base is given; name the "
                "model that the others were trained from as the base."
            )
        components = self._request.components
        return self._add(MergeNode(step.method.id, inputs, step.settings, components))

    def _other_steps(self) -> list[Step]:
        return [*self._request.then, *(part.step for part in self._request.parts)]

    def _add(self, node: Node) -> int:
        self.nodes.append(node)
        return len(self.nodes) - 1


def _no_model(lora: Lora) -> str:
    return (
        f"The LoRA {lora.path} has no model to stand on; name the base, or a model, "
        "ahead of it."
    )

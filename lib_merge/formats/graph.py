"""The nodes of a recipe in the making; equal nodes are one."""

from __future__ import annotations

from collections.abc import Sequence

from lib_merge.core.blocks import Component
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
from lib_merge.formats.imported import UNKNOWN

Params = Sequence[tuple[str, Setting]]


class Graph:
    """Collects nodes.

    Args:
        components: What merges blend.
    """

    def __init__(self, components: tuple[Component, ...] = DEFAULT_COMPONENTS) -> None:
        self.components = components
        self.nodes: list[Node] = []
        self._places: dict[Node, int] = {}

    def add(self, node: Node) -> int:
        """A node's index, a new one or the one of an equal node."""
        place = self._places.get(node)
        if place is None:
            place = self._places[node] = len(self.nodes)
            self.nodes.append(node)
        return place

    def model(self, path: str, sha256: str | None = None) -> int:
        """A model file's index."""
        return self.add(ModelNode(path, sha256))

    def unknown(self, what: str) -> int:
        """A model that the file does not name."""
        return self.model(f"{UNKNOWN}{what}")

    def merge(
        self,
        method: str,
        inputs: Sequence[int],
        params: Params = (),
        components: tuple[Component, ...] | None = None,
    ) -> int:
        """A merge's index."""
        chosen = self.components if components is None else components
        return self.add(MergeNode(method, tuple(inputs), tuple(params), chosen))

    def select(self, inputs: Sequence[int], picks: Sequence[Pick]) -> int:
        """A selection's index."""
        return self.add(SelectNode(tuple(inputs), tuple(picks)))

    def lora(self, path: str, base: int, strength: Setting) -> int:
        """A LoRA on an earlier node; its index."""
        return self.add(LoraNode(path, base, strength))

    def nodes_for(self, root: int) -> tuple[Node, ...]:
        """What a node is made of, in order; it comes last.

        Nodes that it does not need are left out.
        """
        needed = {root}
        for index in range(root, -1, -1):
            node = self.nodes[index]
            if index in needed and not isinstance(node, ModelNode):
                needed.update(node.inputs)
        kept = sorted(needed)
        places = {old: new for new, old in enumerate(kept)}
        return tuple(moved(self.nodes[old], places) for old in kept)

    def recipe(self, root: int, **options: object) -> Recipe:
        """The recipe whose result is a node.

        Raises:
            RecipeError: Options that do not fit together.
        """
        return Recipe(self.nodes_for(root), **options)  # type: ignore[arg-type]


def moved(node: Node, places: dict[int, int]) -> Node:
    """A node with the indices that it refers to replaced."""
    if isinstance(node, ModelNode):
        return node
    if isinstance(node, LoraNode):
        return LoraNode(node.path, places[node.base], node.strength, node.sha256)
    inputs = tuple(places[i] for i in node.inputs)
    if isinstance(node, SelectNode):
        return SelectNode(inputs, node.picks)
    return MergeNode(node.method, inputs, node.params, node.components)

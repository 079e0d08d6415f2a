"""A recipe: a frozen, serialisable graph of models and merges that repeats a merge."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from lib_merge.core._recipe_json import node_from_json, node_to_json
from lib_merge.core.dtypes import COMPUTE_DTYPES, SAVE_DTYPES, DType
from lib_merge.core.nodes import (
    DEFAULT_COMPONENTS,
    FileNode,
    LoraNode,
    MergeNode,
    ModelNode,
    Node,
    NonFinite,
    Pick,
    Rule,
    SelectNode,
    Setting,
)
from lib_merge.errors import RecipeError

__all__ = [
    "DEFAULT_COMPONENTS",
    "FORMAT",
    "VERSION",
    "FileNode",
    "LoraNode",
    "MergeNode",
    "ModelNode",
    "Node",
    "NonFinite",
    "Pick",
    "Recipe",
    "Rule",
    "SelectNode",
    "Setting",
    "simple_recipe",
]

FORMAT = "mergelab-recipe"
VERSION = 1


@dataclass(frozen=True)
class Recipe:
    """A whole merge as a value; the last node is the result.

    Attributes:
        nodes: Every merge node refers to earlier nodes only.
        compute_dtype: What the arithmetic runs in (float32 or float64).
        save_dtype: What every merged float tensor is rounded to, once, at the end;
            None keeps each tensor's own type in the first model.
        keep_ema: Whether EMA shadow weights of the first model are kept.
        is_missing_ok: Keys that a later model lacks are no error: a pool does without
            it there, other methods take the first model's tensor.
        on_non_finite: What happens where a merged model holds NaN or infinity.
    """

    nodes: tuple[Node, ...]
    compute_dtype: DType = DType.F32
    save_dtype: DType | None = DType.F16
    keep_ema: bool = False
    is_missing_ok: bool = False
    on_non_finite: NonFinite = NonFinite.STOP

    def __post_init__(self) -> None:
        problems = list(_structural_problems(self))
        if problems:
            raise RecipeError(problems)

    def models(self) -> tuple[tuple[int, ModelNode], ...]:
        """(node index, model) of every model node."""
        found = [(i, n) for i, n in enumerate(self.nodes) if isinstance(n, ModelNode)]
        return tuple(found)

    def files(self) -> tuple[tuple[int, FileNode], ...]:
        """(node index, node) of everything that is a file: models and LoRAs."""
        kinds = (ModelNode, LoraNode)
        return tuple((i, n) for i, n in enumerate(self.nodes) if isinstance(n, kinds))

    def first_model(self) -> int:
        """Index of the model that copied keys come from (first input all the way)."""
        index = len(self.nodes) - 1
        node = self.nodes[index]
        while not isinstance(node, ModelNode):
            index = node.inputs[0]
            node = self.nodes[index]
        return index

    def with_models(self, models: Mapping[int, FileNode]) -> Recipe:
        """The same recipe with some files' nodes replaced (resolved or hashed)."""
        nodes = tuple(models.get(i, node) for i, node in enumerate(self.nodes))
        return replace(self, nodes=nodes)

    def digest(self) -> str:
        """A short name of what it computes: equal for equal recipes, 16 hex digits."""
        text = json.dumps(self.to_json(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def to_json(self) -> dict[str, Any]:
        """A plain JSON object; `from_json` gives an equal recipe back."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "compute_dtype": self.compute_dtype.torch_name,
            "save_dtype": self.save_dtype.torch_name if self.save_dtype else "keep",
            "keep_ema": self.keep_ema,
            "is_missing_ok": self.is_missing_ok,
            "on_non_finite": self.on_non_finite.value,
            "nodes": [node_to_json(node) for node in self.nodes],
        }

    @classmethod
    def from_json(cls, data: Any) -> Recipe:
        """Read what `to_json` wrote, in this version or any before it.

        Raises:
            RecipeError: Not a recipe, a newer version, or a field that cannot be read.
        """
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise RecipeError([f"This is no MergeLab recipe (no format '{FORMAT}')."])
        version = data.get("version")
        if not isinstance(version, int) or version not in READERS:
            raise RecipeError(
                [
                    f"Recipe version {version!r:.40} is not readable by this MergeLab "
                    f"(it knows up to {VERSION}); update MergeLab."
                ]
            )
        try:
            return READERS[version](data)
        except RecipeError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError) as fault:
            raise RecipeError(
                [f"The recipe is damaged: {type(fault).__name__} at {fault!s:.200}."]
            ) from fault


def _read_version_1(data: Mapping[str, Any]) -> Recipe:
    return Recipe(
        nodes=tuple(node_from_json(node) for node in data["nodes"]),
        compute_dtype=DType.from_name(str(data["compute_dtype"])),
        save_dtype=_save_dtype(data["save_dtype"]),
        keep_ema=bool(data.get("keep_ema", False)),
        is_missing_ok=bool(data.get("is_missing_ok", False)),
        on_non_finite=NonFinite(data.get("on_non_finite", "stop")),
    )


READERS = {1: _read_version_1}
"""A reader for every version that was ever written; none of them may go."""


def simple_recipe(
    method: str,
    paths: tuple[str, ...],
    params: Mapping[str, Setting] | None = None,
    **options: Any,
) -> Recipe:
    """The usual recipe: one method over some model files, in order.

    Args:
        method: The method's id.
        paths: The model files, in the method's order.
        params: Settings by parameter name.
        options: Fields of `Recipe` (compute_dtype ...), or `components`.
    """
    components = options.pop("components", DEFAULT_COMPONENTS)
    merge = MergeNode(
        method=method,
        inputs=tuple(range(len(paths))),
        params=tuple((params or {}).items()),
        components=tuple(components),
    )
    return Recipe(nodes=(*(ModelNode(path) for path in paths), merge), **options)


def _save_dtype(name: Any) -> DType | None:
    return None if name == "keep" else DType.from_name(str(name))


def _name_of(node: MergeNode | SelectNode | LoraNode) -> str:
    if isinstance(node, MergeNode):
        return node.method
    return "select" if isinstance(node, SelectNode) else "lora"


def _structural_problems(recipe: Recipe) -> list[str]:
    problems = []
    if not recipe.nodes:
        return ["The recipe has no nodes; give at least one model."]
    for index, node in enumerate(recipe.nodes):
        if isinstance(node, ModelNode):
            continue
        name = _name_of(node)
        bad = [i for i in node.inputs if not 0 <= i < index]
        if bad:
            problems.append(
                f"Node {index} ({name}) refers to node {bad[0]}, which does not "
                "come before it; order the nodes so that inputs come first."
            )
        if not node.inputs:
            problems.append(f"Node {index} ({name}) has no inputs.")
        if isinstance(node, SelectNode):
            problems += [
                f"Node {index} (select) picks input {pick.input}, but has "
                f"{len(node.inputs)}; the first is 0."
                for pick in node.picks
                if not 0 <= pick.input < len(node.inputs)
            ]
    if recipe.compute_dtype not in COMPUTE_DTYPES:
        problems.append(
            f"Precision {recipe.compute_dtype.torch_name} is too narrow to merge in; "
            "use float32 or float64."
        )
    if recipe.save_dtype is not None and recipe.save_dtype not in SAVE_DTYPES:
        problems.append(
            f"Save type {recipe.save_dtype.torch_name} is no float type; use "
            + ", ".join(d.torch_name for d in SAVE_DTYPES)
            + "."
        )
    return problems

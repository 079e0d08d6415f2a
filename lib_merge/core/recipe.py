"""A recipe: a frozen, serialisable graph of models and merges that repeats a merge."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, TypeAlias

from lib_merge.core.blocks import BlockId, Component
from lib_merge.core.dtypes import COMPUTE_DTYPES, SAVE_DTYPES, DType
from lib_merge.errors import RecipeError

FORMAT = "mergelab-recipe"
VERSION = 1

DEFAULT_COMPONENTS = (
    Component.UNET,
    Component.CLIP_L,
    Component.CLIP_G,
    Component.CLIP_H,
)
"""What a merge blends unless told otherwise: everything but the VAE."""


@dataclass(frozen=True)
class ModelNode:
    """A model file, by place and by hash.

    Attributes:
        path: As given by the user; a bare file name in a saved checkpoint's metadata.
        sha256: Of the whole file, 64 hex digits, or None while it is not known.
    """

    path: str
    sha256: str | None = None


@dataclass(frozen=True)
class Rule:
    """A value for the keys that match everything the rule names.

    Attributes:
        value: The parameter's value there.
        blocks: Block ids; empty means any block.
        pattern: A substring or regular expression searched in the key; "" means any.
    """

    value: float
    blocks: tuple[BlockId, ...] = ()
    pattern: str = ""

    def matches(self, key: str, block: BlockId) -> bool:
        """Whether the rule speaks of this key."""
        if self.blocks and block not in self.blocks:
            return False
        return not self.pattern or re.search(self.pattern, key) is not None


@dataclass(frozen=True)
class Setting:
    """A parameter over all keys: a default, a value per block, rules on top.

    The last matching rule wins, then the block's value, then the default.

    Attributes:
        value: The default.
        blocks: (block id, value) pairs.
        rules: The field's "elemental" merge, in order.
    """

    value: float
    blocks: tuple[tuple[BlockId, float], ...] = ()
    rules: tuple[Rule, ...] = ()

    def value_for(self, key: str, block: BlockId) -> float:
        """The parameter's value for one key."""
        for rule in reversed(self.rules):
            if rule.matches(key, block):
                return rule.value
        return dict(self.blocks).get(block, self.value)


@dataclass(frozen=True)
class MergeNode:
    """One merge: a method over earlier nodes.

    Attributes:
        method: The method's id.
        inputs: Indices of earlier nodes, in the method's order (base, a, b, c, pool).
        params: (name, setting) pairs; what is not named keeps its default. A per-model
            parameter NAME may also be set as NAME@1, NAME@2 ... by place in the pool.
        components: What is blended; every other key is taken from the first input.
    """

    method: str
    inputs: tuple[int, ...]
    params: tuple[tuple[str, Setting], ...] = ()
    components: tuple[Component, ...] = DEFAULT_COMPONENTS


@dataclass(frozen=True)
class Pick:
    """Which keys a `SelectNode` takes from one of its inputs.

    Attributes:
        input: Position among the node's inputs.
        blocks: Block ids, ranges, BASE or component names; empty means any.
        pattern: A substring or regular expression searched in the key; "" means any.
    """

    input: int
    blocks: tuple[BlockId, ...] = ()
    pattern: str = ""


@dataclass(frozen=True)
class SelectNode:
    """Takes every key whole from one of some earlier nodes; nothing is computed.

    So one method can serve the UNet and another the text encoders, and any component
    can come from a model of its own.

    Attributes:
        inputs: Indices of earlier nodes; the first has every key that no pick names.
        picks: In order; the last that matches a key wins.
    """

    inputs: tuple[int, ...]
    picks: tuple[Pick, ...]


Node: TypeAlias = "ModelNode | MergeNode | SelectNode"


class NonFinite(str, Enum):
    """What happens where a model itself holds NaN or infinity."""

    STOP = "stop"
    """The merge ends with an error that names file, key and count."""

    LEAVE_OUT = "leave_out"
    """A pool goes on without that model for that key; elsewhere it is an error."""

    KEEP = "keep"
    """They go into the result, with a warning."""


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

    def first_model(self) -> int:
        """Index of the model that copied keys come from (first input all the way)."""
        index = len(self.nodes) - 1
        node = self.nodes[index]
        while not isinstance(node, ModelNode):
            index = node.inputs[0]
            node = self.nodes[index]
        return index

    def with_models(self, models: Mapping[int, ModelNode]) -> Recipe:
        """The same recipe with some model nodes replaced (resolved or hashed)."""
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
            "nodes": [_node_to_json(node) for node in self.nodes],
        }

    @classmethod
    def from_json(cls, data: Any) -> Recipe:
        """Read what `to_json` wrote.

        Raises:
            RecipeError: Not a recipe, a newer version, or a field that cannot be read.
        """
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise RecipeError([f"This is no MergeLab recipe (no format '{FORMAT}')."])
        if data.get("version") != VERSION:
            raise RecipeError(
                [
                    f"Recipe version {data.get('version')!r} is not readable by this "
                    f"MergeLab (version {VERSION}); update MergeLab."
                ]
            )
        try:
            return cls(
                nodes=tuple(_node_from_json(node) for node in data["nodes"]),
                compute_dtype=DType.from_name(str(data["compute_dtype"])),
                save_dtype=_save_dtype(data["save_dtype"]),
                keep_ema=bool(data.get("keep_ema", False)),
                is_missing_ok=bool(data.get("is_missing_ok", False)),
                on_non_finite=NonFinite(data.get("on_non_finite", "stop")),
            )
        except RecipeError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError) as fault:
            raise RecipeError(
                [f"The recipe is damaged: {type(fault).__name__} at {fault}."]
            ) from fault


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


def _structural_problems(recipe: Recipe) -> list[str]:
    problems = []
    if not recipe.nodes:
        return ["The recipe has no nodes; give at least one model."]
    for index, node in enumerate(recipe.nodes):
        if isinstance(node, ModelNode):
            continue
        name = node.method if isinstance(node, MergeNode) else "select"
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


def _node_to_json(node: Node) -> dict[str, Any]:
    if isinstance(node, ModelNode):
        return {"model": node.path, "sha256": node.sha256}
    if isinstance(node, SelectNode):
        picks = [
            {"input": p.input, "blocks": list(p.blocks), "pattern": p.pattern}
            for p in node.picks
        ]
        return {"select": list(node.inputs), "picks": picks}
    return {
        "method": node.method,
        "inputs": list(node.inputs),
        "components": [component.value for component in node.components],
        "params": {name: _setting_to_json(s) for name, s in node.params},
    }


def _setting_to_json(setting: Setting) -> dict[str, Any]:
    data: dict[str, Any] = {"value": setting.value}
    if setting.blocks:
        data["blocks"] = dict(setting.blocks)
    if setting.rules:
        data["rules"] = [
            {"value": r.value, "blocks": list(r.blocks), "pattern": r.pattern}
            for r in setting.rules
        ]
    return data


def _node_from_json(data: Any) -> Node:
    if "model" in data:
        return ModelNode(path=str(data["model"]), sha256=data.get("sha256"))
    if "select" in data:
        return SelectNode(
            inputs=tuple(int(i) for i in data["select"]),
            picks=tuple(_pick(pick) for pick in data["picks"]),
        )
    return MergeNode(
        method=str(data["method"]),
        inputs=tuple(int(i) for i in data["inputs"]),
        params=tuple((str(k), _setting(v)) for k, v in data["params"].items()),
        components=tuple(Component(c) for c in data["components"]),
    )


def _setting(data: Any) -> Setting:
    blocks = data.get("blocks", {})
    return Setting(
        value=_number(data["value"]),
        blocks=tuple((BlockId(str(k)), _number(v)) for k, v in blocks.items()),
        rules=tuple(_rule(rule) for rule in data.get("rules", [])),
    )


def _rule(data: Any) -> Rule:
    return Rule(_number(data["value"]), _blocks(data), _pattern(data))


def _pick(data: Any) -> Pick:
    return Pick(int(data["input"]), _blocks(data), _pattern(data))


def _blocks(data: Any) -> tuple[BlockId, ...]:
    return tuple(BlockId(str(b)) for b in data.get("blocks", ()))


def _pattern(data: Any) -> str:
    pattern = str(data.get("pattern", ""))
    try:
        re.compile(pattern)
    except re.error as fault:
        raise RecipeError(
            [f"The rule pattern {pattern!r} is no regular expression: {fault}."]
        ) from fault
    return pattern


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise RecipeError([f"A recipe value must be a number, not {value!r}."])
    return float(value)

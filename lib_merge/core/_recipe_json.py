"""A recipe's nodes as JSON objects, and back."""

from __future__ import annotations

import math
import re
from typing import Any

from lib_merge.core.blocks import BlockId, Component
from lib_merge.core.nodes import (
    LoraNode,
    MergeNode,
    ModelNode,
    Node,
    Pick,
    Rule,
    SelectNode,
    Setting,
)
from lib_merge.errors import RecipeError


def node_to_json(node: Node) -> dict[str, Any]:
    """A node as a plain JSON object; `node_from_json` gives it back."""
    if isinstance(node, ModelNode):
        return {"model": node.path, "sha256": node.sha256}
    if isinstance(node, SelectNode):
        picks = [
            {"input": p.input, "blocks": list(p.blocks), "pattern": p.pattern}
            for p in node.picks
        ]
        return {"select": list(node.inputs), "picks": picks}
    if isinstance(node, LoraNode):
        return {
            "lora": node.path,
            "sha256": node.sha256,
            "base": node.base,
            "strength": _setting_to_json(node.strength),
        }
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


def node_from_json(data: Any) -> Node:
    """Read what `node_to_json` wrote.

    Raises:
        RecipeError: A value is no number, or a pattern no regular expression.
        KeyError, TypeError, ValueError, AttributeError: It is damaged otherwise.
    """
    if "model" in data:
        return ModelNode(path=_text(data["model"]), sha256=_hash(data.get("sha256")))
    if "select" in data:
        return SelectNode(
            inputs=tuple(_index(i) for i in data["select"]),
            picks=tuple(_pick(pick) for pick in data["picks"]),
        )
    if "lora" in data:
        return LoraNode(
            path=_text(data["lora"]),
            base=_index(data["base"]),
            strength=_setting(data.get("strength", {"value": 1.0})),
            sha256=_hash(data.get("sha256")),
        )
    return MergeNode(
        method=_text(data["method"]),
        inputs=tuple(_index(i) for i in data["inputs"]),
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
    return Pick(_index(data["input"]), _blocks(data), _pattern(data))


def _blocks(data: Any) -> tuple[BlockId, ...]:
    return tuple(BlockId(_text(b)) for b in data.get("blocks", ()))


def _pattern(data: Any) -> str:
    pattern = _text(data.get("pattern", ""))
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as fault:
        raise RecipeError(
            [f"The rule pattern {pattern[:80]!r} is no regular expression: {fault}."]
        ) from fault
    return pattern


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise RecipeError([f"A recipe's name or path must be text, not {value!r:.80}."])
    return value


def _index(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise RecipeError(
            [f"A reference to a node must be a whole number, not {value!r:.80}."]
        )
    return value


def _hash(value: Any) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or not re.fullmatch(r"[0-9a-fA-F]{64}", value):
        raise RecipeError(
            [f"A sha256 must be 64 hex digits or null, not {value!r:.80}."]
        )
    return value.lower()


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise RecipeError([f"A recipe value must be a number, not {value!r:.80}."])
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise RecipeError(["A recipe value must be a finite number."])
    return number

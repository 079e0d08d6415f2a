"""Our own format: version 1 stays readable, and the published schema describes it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from lib_merge.core.blocks import BlockId, Component
from lib_merge.core.dtypes import DType
from lib_merge.core.recipe import (
    READERS,
    VERSION,
    LoraNode,
    MergeNode,
    ModelNode,
    NonFinite,
    Pick,
    Recipe,
    Rule,
    SelectNode,
    Setting,
)
from lib_merge.errors import RecipeError
from lib_merge.formats.mergelab import schema, write
from tests.formats import samples

PINNED = Path(__file__).with_name("data") / "recipe-v1.json"
"""A file of version 1, which must be read for ever: never change it."""

VERSION_1 = Recipe(
    (
        ModelNode(
            "base.safetensors",
            "31e35c80fc4829d14f90153f4c74cd59c90b779f6afe05a74cd6120b893f7e5b",
        ),
        ModelNode("a.safetensors"),
        ModelNode("b.safetensors"),
        MergeNode(
            "ties",
            (0, 1, 2),
            (
                (
                    "density",
                    Setting(0.2, ((BlockId("IN04-IN07"), 0.4), (BlockId("BASE"), 0.1))),
                ),
                (
                    "weight@2",
                    Setting(0.5, (), (Rule(0.3, (BlockId("OUT03"),), "attn[12]"),)),
                ),
            ),
            (Component.UNET, Component.CLIP_L),
        ),
        LoraNode("style.safetensors", 3, Setting(0.8)),
        SelectNode((4, 1), (Pick(1, (BlockId("VAE"),)),)),
    ),
    compute_dtype=DType.F64,
    save_dtype=DType.BF16,
    keep_ema=True,
    is_missing_ok=True,
    on_non_finite=NonFinite.LEAVE_OUT,
)


def test_file_of_version_1_is_read_as_ever() -> None:
    assert Recipe.from_json(json.loads(PINNED.read_text())) == VERSION_1


def test_every_version_up_to_the_newest_has_a_reader() -> None:
    assert sorted(READERS) == list(range(1, VERSION + 1))


def test_newer_version_is_refused() -> None:
    data = json.loads(PINNED.read_text()) | {"version": VERSION + 1}
    with pytest.raises(RecipeError, match="update MergeLab"):
        Recipe.from_json(data)


def faults(data: Any, rule: dict[str, Any], root: dict[str, Any]) -> Iterator[str]:
    """What a value breaks of a schema; the few words that ours uses."""
    if "$ref" in rule:
        yield from faults(data, root["$defs"][rule["$ref"].split("/")[-1]], root)
        return
    kinds: dict[str, Any] = {
        "object": dict,
        "array": list,
        "string": str,
        "integer": int,
        "number": (int, float),
        "boolean": bool,
        "null": type(None),
    }
    if "type" in rule:
        is_bool = isinstance(data, bool) and rule["type"] != "boolean"
        if is_bool or not isinstance(data, kinds[rule["type"]]):
            yield f"{data!r} is no {rule['type']}"
            return
    if "const" in rule and data != rule["const"]:
        yield f"{data!r} is not {rule['const']!r}"
    if "enum" in rule and data not in rule["enum"]:
        yield f"{data!r} is not of {rule['enum']}"
    if "pattern" in rule and not re.search(rule["pattern"], data):
        yield f"{data!r} does not fit {rule['pattern']}"
    if "minimum" in rule and data < rule["minimum"]:
        yield f"{data!r} is too small"
    if len(data) < rule.get("minItems", 0) if isinstance(data, list) else False:
        yield "too few items"
    if "oneOf" in rule:
        fits = [one for one in rule["oneOf"] if not list(faults(data, one, root))]
        if len(fits) != 1:
            yield f"{data!r:.80} fits {len(fits)} kinds"
    if isinstance(data, list) and "items" in rule:
        for item in data:
            yield from faults(item, rule["items"], root)
    if isinstance(data, dict):
        yield from (
            f"{n} is missing" for n in rule.get("required", ()) if n not in data
        )
        for name, value in data.items():
            inner = rule.get("properties", {}).get(
                name, rule.get("additionalProperties", {})
            )
            yield from faults(value, inner, root)


@pytest.mark.parametrize("recipe", [VERSION_1, samples.OWN], ids=["pinned", "sample"])
def test_written_recipe_fits_the_schema(recipe: Recipe) -> None:
    data = json.loads(write(recipe))
    assert list(faults(data, schema(), schema())) == []
    if find_spec("jsonschema"):
        import_module("jsonschema").validate(data, schema())


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"nodes": []},
        {"nodes": [{"model": 3}]},
        {"nodes": [{"model": "a", "sha256": "xyz"}]},
        {"nodes": [{"select": [-1], "picks": []}]},
        {"nodes": [{"method": "ties", "inputs": [0], "params": {}}]},
        {"compute_dtype": "float16"},
    ],
    ids=str,
)
def test_schema_refuses_what_the_reader_refuses(change: dict[str, Any]) -> None:
    data = json.loads(PINNED.read_text()) | change
    assert list(faults(data, schema(), schema()))
    with pytest.raises(RecipeError):
        Recipe.from_json(data)


@pytest.mark.parametrize(
    "node",
    [
        {"model": "a", "sha256": "a" * 63},
        {"select": [True], "picks": []},
        {"select": [1.5], "picks": []},
        {"select": [10**400], "picks": []},
        {"lora": "a", "base": "0"},
        {"method": "ties", "inputs": [0], "components": ["soul"], "params": {}},
        {"method": 3, "inputs": [0], "components": [], "params": {}},
    ],
    ids=lambda node: str(node)[:40],
)
def test_damaged_node_is_refused_with_a_message(node: dict[str, Any]) -> None:
    data = json.loads(PINNED.read_text())
    data["nodes"] = [{"model": "x"}, node]
    with pytest.raises(RecipeError, match=r"\w+"):
        Recipe.from_json(data)

"""Mutated recipes of every format: a clear error or a recipe, and never anything else.

Deterministic: mutation n of a seed is the same on every machine. Each is of bytes or of
tokens (words and numbers swapped for others, huge ones, references out of place).
"""

from __future__ import annotations

import json
import math
import random
import re
import time
from collections.abc import Callable
from typing import Any

import pytest

from lib_merge.core.recipe import Recipe
from lib_merge.errors import MergeError
from lib_merge.formats.files import read
from lib_merge.formats.flatten import flatten
from lib_merge.formats.imported import Imported, Options
from lib_merge.formats.source import Source
from tests.formats.samples import SAMPLES

N_MUTATIONS = 10_000
N_GROUPS = 20
LIMIT_S = 5.0
"""No single mutation may take longer (a hundred times the usual)."""

TOKEN = re.compile(r'"[^"\n]*"|[\w.+-]+|[^\w\s]|\s+')
ODD = (
    *("0", "-1", "1e308", "-1e308", "1e999", "nan", "inf", "NaN", "Infinity"),
    *("9" * 400, "0x1f", "&0", "&1", "&99999", "&-1", "&", "null", "true", "false"),
    *('""', '"', "[]", "{}", "[", "]", "{", "}", "()", ":", ",", ";", "=", "\t", "\n"),
    *("\\", "\x00", "\ufeff", "é", "IN04", "BASE", "OUT99", "VAE", "../../x", "/", ""),
    *("weighted_sum", "merge", "call", "dict", "model", "version 0.1.0", "(a+)+$"),
    *("*a", "&a", "!!python/object:os.system", "- - - -", "---", "<<: *x", "1.0.0"),
)


def of_bytes(data: bytes, draws: random.Random) -> bytes:
    """A few bytes changed, dropped, doubled, or the end cut off."""
    changed = bytearray(data)
    for _ in range(draws.choice((1, 1, 1, 3))):
        place = draws.randrange(len(changed) + 1)
        kind = draws.randrange(5)
        if kind == 0 and place < len(changed):
            changed[place] = _byte(draws)
        elif kind == 1:
            del changed[place : place + draws.choice((1, 2, 30))]
        elif kind == 2:
            changed[place:place] = bytes(
                _byte(draws) for _ in range(draws.choice((1, 4)))
            )
        elif kind == 3:
            changed[place:place] = changed[place : place + draws.choice((5, 200))]
        elif draws.random() < 0.3:
            del changed[place:]
    return bytes(changed)


def _byte(draws: random.Random) -> int:
    """Mostly a sign that stands in recipes; sometimes any byte."""
    if draws.random() < 0.9:
        return draws.choice(b'0123456789.-&"=:,_ abcdefABN\n\t')
    return draws.randrange(256)


def of_values(data: bytes, draws: random.Random) -> bytes:
    """A value deep in JSON (strings of JSON included) replaced, dropped or doubled."""
    try:
        tree = json.loads(data)
    except (ValueError, RecursionError):
        return of_tokens(data, draws)
    return json.dumps(_changed(tree, draws)).encode()


def _changed(tree: Any, draws: random.Random) -> Any:
    if isinstance(tree, str) and tree[:1] in ("{", "["):
        try:
            return json.dumps(_changed(json.loads(tree), draws))
        except (ValueError, RecursionError):
            return tree[1:]
    if isinstance(tree, dict) and tree and draws.random() < 0.95:
        key = draws.choice(sorted(tree))
        kind = draws.random()
        if kind < 0.1:
            return {k: v for k, v in tree.items() if k != key}
        if kind < 0.2:
            return {**tree, draws.choice(sorted(tree)): tree[key]}
        return {**tree, key: _changed(tree[key], draws)}
    if isinstance(tree, list) and tree and draws.random() < 0.8:
        place = draws.randrange(len(tree))
        return [*tree[:place], _changed(tree[place], draws), *tree[place + 1 :]]
    return draws.choice(VALUES)


VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 3, 0.25, 1e308, 10**30, math.inf, -math.inf),
    *("", "a", "0.5", "True", "IN04", "unknown", "Add difference", "a" * 64, "b" * 64),
    *([], {}, [0], [None], [[0.5] * 26], {"a": 1}, [0.5] * 25, "Sum", ["Sum"] * 3),
    *("{", "[1,", "IN04:attn:0.5", "NOT IN04:NOT bias:1", 1e-320, "nan", "\x00", "/"),
)


def of_tokens(data: bytes, draws: random.Random) -> bytes:
    """Words and numbers swapped, doubled, dropped or replaced by odd ones."""
    tokens = TOKEN.findall(data.decode("utf-8", "replace"))
    for _ in range(draws.choice((1, 1, 1, 2, 3))):
        if not tokens:
            break
        here, there = draws.randrange(len(tokens)), draws.randrange(len(tokens))
        kind = draws.randrange(5)
        if kind == 0:
            tokens[here], tokens[there] = tokens[there], tokens[here]
        elif kind == 1:
            tokens[here] = tokens[there]
        elif kind == 2:
            del tokens[here]
        elif kind == 3:
            tokens[here:here] = tokens[there : there + draws.choice((1, 5, 40))]
        else:
            tokens[here] = draws.choice(ODD)
    return "".join(tokens).encode("utf-8", "replace")


def read_all(name: str, data: bytes, options: Options) -> Imported | None:
    """What a file says, or None where it says clearly that it cannot be read."""
    start = time.perf_counter()
    try:
        imported = read(Source(name, data), options)
    except MergeError as fault:
        message = str(fault)
        assert message
        assert len(message) < 20_000
        imported = None
    assert time.perf_counter() - start < LIMIT_S
    return imported


def check(recipe: Recipe) -> None:
    """A recipe that is one: it goes through JSON and its references point back."""
    text = json.dumps(recipe.to_json(), allow_nan=False)
    assert Recipe.from_json(json.loads(text)) == recipe
    for index, node in enumerate(recipe.nodes):
        assert all(0 <= i < index for i in getattr(node, "inputs", ()))


def mutate(name: str, number: int) -> tuple[bytes, Options]:
    draws = random.Random(f"{name} {number}")
    data = SAMPLES[name].encode()
    for _ in range(draws.choice((1, 1, 1, 2))):
        change = draws.choice((of_bytes, of_tokens, of_tokens, of_values, of_values))
        data = change(data, draws)
    arch = draws.choice((None, None, None, "sd1", "sdxl"))
    return data, Options(arch=arch)


@pytest.mark.parametrize("group", range(N_GROUPS))
def test_mutated_recipe_is_read_or_refused_with_a_message(group: int) -> None:
    names = sorted(SAMPLES)
    n_read = 0
    for number in range(group, N_MUTATIONS, N_GROUPS):
        name = names[number % len(names)]
        data, options = mutate(name, number)
        imported = read_all(name, data, options)
        if imported is None:
            continue
        n_read += 1
        for entry in imported.entries[:3]:
            if entry.recipe is not None:
                check(entry.recipe)
                if len(entry.recipe.nodes) < 40:
                    _flatten(entry.recipe)
    # Some mutations only change a name: a reader that refuses all is none.
    assert n_read > 10


def _flatten(recipe: Recipe) -> None:
    try:
        flat = flatten(recipe)
    except MergeError:
        return
    assert all(not math.isnan(w) for leaf in flat.leaves for w in leaf.weights)


BOMBS: dict[str, Callable[[], str]] = {
    "json_nested": lambda: '{"sd_merge_recipe":' + "[" * 200_000,
    "json_nested_objects": lambda: '{"__metadata__":' + '{"a":' * 100_000,
    "json_huge_number": lambda: (
        '{"format":"mergelab-recipe","version":' + "9" * 100_000 + "}"
    ),
    "own_huge_index": lambda: (
        '{"format":"mergelab-recipe","version":1,"compute_dtype":"float32",'
        '"save_dtype":"keep","nodes":[{"select":[' + "9" * 400 + '],"picks":[]}]}'
    ),
    "own_deep_pattern": lambda: (
        '{"format":"mergelab-recipe","version":1,"compute_dtype":"float32",'
        '"save_dtype":"keep","nodes":[{"model":"a"},{"select":[0],"picks":'
        '[{"input":0,"pattern":"' + "(" * 50_000 + '"}]}]}'
    ),
    "own_huge_repeat": lambda: (
        '{"format":"mergelab-recipe","version":1,"compute_dtype":"float32",'
        '"save_dtype":"keep","nodes":[{"model":"a"},{"select":[0],"picks":'
        '[{"input":0,"pattern":"a{99999999999999999999}"}]}]}'
    ),
    "mecha_many_lines": lambda: 'model "a"\n' * 300_000,
    "mecha_long_line": lambda: 'model "a"\ncall "weighted_sum" ' + "&0 " * 500_000,
    "mecha_doubling": lambda: (
        'model "a"\nmodel "b"\n'
        + "\n".join(f'call "weighted_sum" &{i} &{i} alpha=0.5' for i in range(1, 3000))
    ),
    "mecha_huge_reference": lambda: 'model "a"\ncall "weighted_sum" &' + "9" * 100_000,
    "mecha_open_quote": lambda: 'model "' + "a" * 2_000_000,
    "webui_cycle": lambda: json.dumps(
        {
            "sd_merge_recipe": {"type": "webui", "primary_model_hash": "a" * 64},
            "sd_merge_models": {
                "a" * 64: {
                    "name": "x",
                    "sd_merge_recipe": {
                        "interp_method": "Weighted sum",
                        "primary_model_hash": "b" * 64,
                        "secondary_model_hash": "a" * 64,
                        "multiplier": 0.5,
                    },
                },
                "b" * 64: {"name": "y"},
            },
        }
    ),
    "webui_long_chain": lambda: json.dumps(
        {
            "sd_merge_recipe": _step(0, 0),
            "sd_merge_models": {
                f"{i:064x}": {"name": f"m{i}", "sd_merge_recipe": _step(i + 1, i + 1)}
                for i in range(3000)
            },
        }
    ),
    "webui_many_models": lambda: json.dumps(
        {
            "sd_merge_recipe": {"type": "webui"},
            "sd_merge_models": {f"{i:064x}": {} for i in range(30_000)},
        }
    ),
    "yaml_laughs": lambda: (
        "merge_method: linear\na: &a [x,x,x,x,x,x,x,x,x]\n"
        + "\n".join(
            f"{chr(98 + i)}: &{chr(98 + i)} [{','.join([f'*{chr(97 + i)}'] * 9)}]"
            for i in range(9)
        )
    ),
    "yaml_nested": lambda: "merge_method: linear\nmodels: " + "[" * 100_000,
    "yaml_indented": lambda: (
        "merge_method: linear\n" + "\n".join(" " * i + "a:" for i in range(500))
    ),
    "preset_same_names": lambda: ("a\t" + ",".join(["0"] * 25) + "\n") * 15_000,
    "csv_huge_field": lambda: "0,1,2,3,4,5\n" + "1" * 5_000_000,
    "csv_open_quote": lambda: (
        'ID,time,name,weights alpha,weights beta,model A\n"' + "a," * 400_000
    ),
    "history_many_rows": lambda: (
        "ID,time,name,weights alpha,weights beta,model A\n" + "1,2\n" * 200_000
    ),
}


def _step(primary: int, secondary: int) -> dict[str, object]:
    return {
        "type": "webui",
        "interp_method": "Weighted sum",
        "primary_model_hash": f"{primary:064x}",
        "secondary_model_hash": f"{secondary + 5000:064x}",
        "multiplier": 0.5,
    }


@pytest.mark.parametrize("name", BOMBS)
def test_bomb_is_defused_at_once(name: str) -> None:
    imported = read_all(name, BOMBS[name]().encode(), Options())
    if imported is not None and imported.entries[0].recipe is not None:
        check(imported.entries[0].recipe)
        flatten(imported.entries[0].recipe)
